//! Header names: which of the known ones a line begins with.
//!
//! A line's first 16 bytes are looked at as one number. The colon is found in it, the rest is
//! masked away, case is removed, and the number is looked up in a hash table that the compiler has
//! built. A line that this does not settle (a long or unknown name, white space before the colon) is
//! read byte by byte.

use super::lex::is_token;
use super::word::{WORD, first_equal, first_word, repeat};

macro_rules! names {
    ($($name:ident $text:literal $($compact:literal)?)*) => {
        /// A header name that this server knows, in any case, in its long or its compact form.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Name {
            $(#[doc = concat!("`", $text, "`" $(, ", `", $compact, "`")?, ".")] $name,)*
            /// Any other name.
            Other,
        }

        impl Name {
            /// How many there are, [`Name::Other`] among them.
            pub(super) const COUNT: usize = Self::Other as usize + 1;

            /// The long form; empty for [`Name::Other`].
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other => "",
                }
            }
        }

        /// Every spelling, long and compact.
        const SPELLINGS: &[(&str, Name)] =
            &[$(($text, Name::$name), $(($compact, Name::$name),)?)*];
    };
}

names! {
    Via "Via" "v"
    From "From" "f"
    To "To" "t"
    CallId "Call-ID" "i"
    CSeq "CSeq"
    Contact "Contact" "m"
    RecordRoute "Record-Route"
    Route "Route"
    MaxForwards "Max-Forwards"
    ContentLength "Content-Length" "l"
    ContentType "Content-Type" "c"
    ContentEncoding "Content-Encoding" "e"
    ContentDisposition "Content-Disposition"
    Require "Require"
    ProxyRequire "Proxy-Require"
    Supported "Supported" "k"
    Unsupported "Unsupported"
    Allow "Allow"
    AllowEvents "Allow-Events" "u"
    Accept "Accept"
    RAck "RAck"
    RSeq "RSeq"
    RetryAfter "Retry-After"
    ErrorInfo "Error-Info"
    Reason "Reason"
    Warning "Warning"
    SessionExpires "Session-Expires" "x"
    MinSe "Min-SE"
    ReferTo "Refer-To" "r"
    ReferredBy "Referred-By" "b"
    Replaces "Replaces"
    Event "Event" "o"
    SubscriptionState "Subscription-State"
    Expires "Expires"
    MinExpires "Min-Expires"
    Authorization "Authorization"
    WwwAuthenticate "WWW-Authenticate"
    ProxyAuthenticate "Proxy-Authenticate"
    ProxyAuthorization "Proxy-Authorization"
    UserAgent "User-Agent"
    Server "Server"
    Subject "Subject" "s"
    Date "Date"
    Timestamp "Timestamp"
    Path "Path"
    ServiceRoute "Service-Route"
    AssertedIdentity "P-Asserted-Identity"
    PreferredIdentity "P-Preferred-Identity"
    Privacy "Privacy"
    Diversion "Diversion"
    HistoryInfo "History-Info"
    CallInfo "Call-Info"
    AlertInfo "Alert-Info"
    Identity "Identity" "y"
}

impl Name {
    /// The name that is written as `text`.
    pub fn parse(text: &[u8]) -> Self {
        lookup(first_word(text), text)
    }
}

/// The name of the header `line`, how long the name is, and where its value begins.
///
/// `line` may go on behind the header: `end` says where its CRLF ends. `None` when it does not
/// begin with a token and a colon.
#[inline(always)] // On the way of every header.
pub(super) fn read(line: &[u8], end: usize) -> Option<(Name, usize, usize)> {
    let word = first_word(line);
    let colon = first_equal(word, b':');
    if colon < end.min(WORD) {
        let name = lookup(word, line.get(..colon)?);
        if name != Name::Other {
            return Some((name, colon, colon + 1));
        }
    }
    read_slowly(line.get(..end)?)
}

/// RFC 3261 §7.3.1: white space may stand between the name and its colon, but no fold.
#[inline(never)]
fn read_slowly(line: &[u8]) -> Option<(Name, usize, usize)> {
    let len = line.iter().position(|&byte| !is_token(byte))?;
    if len == 0 {
        return None;
    }
    let gap = line[len..].iter().position(|byte| !matches!(byte, b' ' | b'\t'))?;
    if line[len + gap] != b':' {
        return None;
    }
    Some((Name::parse(&line[..len]), len, len + gap + 1))
}

const CASE: u128 = repeat(0x20);

/// The name spelled `text`, of which `word` are the first bytes.
#[inline]
fn lookup(word: u128, text: &[u8]) -> Name {
    let (Some(&first), Some(&last)) = (text.first(), text.last()) else {
        return Name::Other;
    };
    let mut slot = hash(first, last, text.len());
    loop {
        let Some(entry) = ENTRIES.get(usize::from(SLOTS[slot])) else {
            return Name::Other;
        };
        if entry.is(word, text) {
            return entry.name;
        }
        slot = (slot + 1) % SLOTS.len();
    }
}

/// Case of letters does not matter to it. With these factors no two spellings share a slot.
const fn hash(first: u8, last: u8, len: usize) -> usize {
    let first = (first | 0x20) as usize;
    let last = (last | 0x20) as usize;
    (first + last * 8 + len * 13) % SLOT_COUNT
}

/// A spelling, prepared for comparison with a word.
#[derive(Clone, Copy)]
struct Entry {
    spelling: &'static str,
    name: Name,
    /// The first bytes in lower case.
    key: u128,
    /// All bits of those bytes.
    mask: u128,
    /// The case bit of those of them that are no letters: a hyphen must have it, or a CR would
    /// pass for one.
    not_letters: u128,
}

impl Entry {
    const fn new(spelling: &'static str, name: Name) -> Self {
        let text = spelling.as_bytes();
        let (mut key, mut mask, mut not_letters) = ([0; WORD], [0; WORD], [0; WORD]);
        let mut at = 0;
        while at < text.len() && at < WORD {
            key[at] = text[at] | 0x20;
            mask[at] = u8::MAX;
            if !text[at].is_ascii_alphabetic() {
                not_letters[at] = 0x20;
            }
            at += 1;
        }
        Self {
            spelling,
            name,
            key: u128::from_le_bytes(key),
            mask: u128::from_le_bytes(mask),
            not_letters: u128::from_le_bytes(not_letters),
        }
    }

    /// True when `text`, which begins with `word`, is this spelling but for case.
    #[inline]
    fn is(&self, word: u128, text: &[u8]) -> bool {
        (word | CASE) & self.mask == self.key
            && word & self.not_letters == self.not_letters
            && text.len() == self.spelling.len()
            && (text.len() <= WORD || text.eq_ignore_ascii_case(self.spelling.as_bytes()))
    }
}

const NONE: u8 = u8::MAX;

const SLOT_COUNT: usize = 256;

static ENTRIES: [Entry; SPELLINGS.len()] = {
    let mut entries = [Entry::new("", Name::Other); SPELLINGS.len()];
    let mut entry = 0;
    while entry < entries.len() {
        let (spelling, name) = SPELLINGS[entry];
        entries[entry] = Entry::new(spelling, name);
        entry += 1;
    }
    entries
};

/// Positions in [`ENTRIES`] by hash; a taken slot's entry goes to the next free one.
static SLOTS: [u8; SLOT_COUNT] = {
    assert!(SPELLINGS.len() < SLOT_COUNT / 2);
    let mut slots = [NONE; SLOT_COUNT];
    let mut entry = 0;
    while entry < SPELLINGS.len() {
        let text = SPELLINGS[entry].0.as_bytes();
        let mut slot = hash(text[0], text[text.len() - 1], text.len());
        while slots[slot] != NONE {
            slot = (slot + 1) % SLOT_COUNT;
        }
        slots[slot] = entry as u8;
        entry += 1;
    }
    slots
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case_and_in_its_compact_form() {
        for &(spelling, name) in SPELLINGS {
            for text in [spelling.to_owned(), spelling.to_uppercase(), spelling.to_lowercase()] {
                assert_eq!(Name::parse(text.as_bytes()), name, "{text}");
                for colon in [":", " :", "\t :"] {
                    let line = format!("{text}{colon} value and more\r\n");
                    let value = text.len() + colon.len();
                    assert_eq!(read(line.as_bytes(), line.len()), Some((name, text.len(), value)));
                }
            }
        }
    }

    #[test]
    fn names_that_differ_in_one_bit_or_one_byte_are_not_found() {
        for &(spelling, name) in SPELLINGS {
            for at in 0..spelling.len() {
                for bit in 0..8 {
                    let mut text = spelling.as_bytes().to_vec();
                    text[at] ^= 1 << bit;
                    if !text.eq_ignore_ascii_case(spelling.as_bytes()) {
                        assert_ne!(Name::parse(&text), name, "{text:?}");
                    }
                }
            }
            assert_ne!(Name::parse(format!("{spelling}s").as_bytes()), name);
            assert_ne!(Name::parse(format!("{spelling}\0").as_bytes()), name);
            assert_ne!(Name::parse(&spelling.as_bytes()[1..]), name);
        }
    }

    #[test]
    fn a_carriage_return_is_no_hyphen() {
        assert_eq!(Name::parse(b"Max-Forwards"), Name::MaxForwards);
        assert_eq!(Name::parse(b"Max\rForwards"), Name::Other);
        assert_eq!(Name::parse(b"P\rAsserted-Identity"), Name::Other);
        assert_eq!(read(b"Max\rForwards: 1\r\n", 17), None);
    }

    #[test]
    fn a_line_without_a_name_or_a_colon_has_none() {
        for line in [
            "\r\n",
            ": x\r\n",
            " : x\r\n",
            "Via\r\n",
            "Via x: y\r\n",
            "V(: x\r\n",
            "To\r\n : x\r\n",
        ] {
            assert_eq!(read(line.as_bytes(), line.len()), None, "{line:?}");
        }
    }
}
