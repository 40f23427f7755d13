//! Compiles texts with `[keywords]` to templates.
//!
//! The keywords are SIPp's. In own texts those that make sense in a header line are allowed, and
//! `[[` is a bracket; in SIPp's `\xNN` is the byte with that number.

use super::fields::FieldFiles;
use super::template::{LENS_MAX, Last, Piece, Template};
use super::trouble::short;

/// Longer texts are refused: no message may be longer than that.
pub(crate) const TEMPLATE_BYTES_MAX: usize = 65_535;

/// Whose text it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// A header line or a body of an own scenario.
    Own,
    /// A whole message of a SIPp scenario.
    Sipp,
}

/// What is allowed in own texts; messages list it.
const OWN: &str = "call_id, call_number, cseq, local_ip, local_ip_type, local_port, remote_ip, \
    remote_port, media_ip, media_ip_type, media_port, transport, service, pid, users, userid, \
    clock_tick, dynamic_id, fieldN, last_NAME:";

/// Compiles `text`.
///
/// # Errors
/// A byte offset in `text`, and what is wrong there.
pub(crate) fn compile(
    text: &str,
    dialect: Dialect,
    fields: &mut FieldFiles<'_>,
) -> Result<Template, (usize, String)> {
    if text.len() > TEMPLATE_BYTES_MAX {
        let text = format!("{} bytes, above the limit of {TEMPLATE_BYTES_MAX}", text.len());
        return Err((0, text));
    }
    let mut pieces = Vec::new();
    let mut literal = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at) {
        let rest = &text[at..];
        match byte {
            b'[' if dialect == Dialect::Own && rest.starts_with("[[") => {
                literal.push(b'[');
                at += 2;
            }
            b'[' => {
                let (word, taken) = bracketed(rest).map_err(|e| (at, e))?;
                let piece = keyword(word, dialect, fields).map_err(|e| (at, e))?;
                flush(&mut literal, &mut pieces);
                pieces.push(piece);
                at += taken;
            }
            b'\\' if dialect == Dialect::Sipp && escape(rest).is_some() => {
                literal.extend(escape(rest));
                at += 4;
            }
            _ => {
                // Bytes of longer characters are never one of the two.
                let after = &rest.as_bytes()[1..];
                let end = memchr::memchr2(b'[', b'\\', after).map_or(rest.len(), |end| end + 1);
                literal.extend_from_slice(&rest.as_bytes()[..end]);
                at += end;
            }
        }
    }
    flush(&mut literal, &mut pieces);
    if pieces.iter().filter(|piece| matches!(piece, Piece::Len(_))).count() > LENS_MAX {
        return Err((0, format!("[len] stands more than {LENS_MAX} times in one message")));
    }
    Ok(Template::new(pieces))
}

fn flush(literal: &mut Vec<u8>, pieces: &mut Vec<Piece>) {
    if !literal.is_empty() {
        pieces.push(Piece::Literal(std::mem::take(literal)));
    }
}

/// The byte of `\x41`.
fn escape(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("\\x")?.get(..2)?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(())?;
    u8::from_str_radix(digits, 16).ok()
}

/// The text between brackets, and how many bytes it took with them. Brackets within count, as in
/// `[field0 line="[$n]"]`.
fn bracketed(text: &str) -> Result<(&str, usize), String> {
    let mut depth = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' if depth == 1 => return Ok((&text[1..at], at + 1)),
            b']' => depth -= 1,
            b'\r' | b'\n' => break,
            _ => {}
        }
    }
    let word = text[1..].split(['\r', '\n']).next().unwrap_or_default();
    Err(format!("`[{}`: the closing bracket is missing on this line", short(word)))
}

fn keyword(word: &str, dialect: Dialect, fields: &mut FieldFiles<'_>) -> Result<Piece, String> {
    let piece = plain(word).or_else(|| counted(word));
    let piece = match piece {
        Some(piece) => piece,
        None => special(word, dialect, fields)?,
    };
    let whole_message =
        matches!(piece, Piece::Branch(_) | Piece::Len(_) | Piece::Index(_) | Piece::Routes);
    if dialect == Dialect::Own && (whole_message || matches!(piece, Piece::Last(Last::Message))) {
        return Err(format!("[{}] cannot stand here; allowed are {OWN}", short(word)));
    }
    Ok(piece)
}

fn plain(word: &str) -> Option<Piece> {
    Some(match word {
        "call_id" => Piece::CallId,
        "call_number" => Piece::CallNumber,
        "local_ip" | "server_ip" => Piece::LocalIp,
        "local_ip_type" => Piece::LocalIpType,
        "remote_ip" | "remote_host" => Piece::RemoteIp,
        "media_ip" => Piece::MediaIp,
        "media_ip_type" => Piece::MediaIpType,
        "transport" => Piece::Transport,
        "pid" => Piece::Pid,
        "service" => Piece::Service,
        "peer_tag_param" => Piece::PeerTag,
        "next_url" => Piece::NextUrl,
        "routes" => Piece::Routes,
        "clock_tick" => Piece::Clock,
        "sipp_version" => Piece::Version,
        "users" => Piece::Users,
        "userid" => Piece::User,
        "dynamic_id" => Piece::DynamicId,
        "last_Request_URI" => Piece::Last(Last::ToUri),
        "last_message" => Piece::Last(Last::Message),
        _ => return None,
    })
}

/// Keywords that take `+1` or `-1`.
fn counted(word: &str) -> Option<Piece> {
    let sign = word.find(['+', '-']).unwrap_or(word.len());
    let (name, offset) = word.split_at(sign);
    let offset = match offset.strip_prefix('+').unwrap_or(offset) {
        "" if offset.is_empty() => 0,
        digits => i64::from(digits.parse::<i32>().ok()?),
    };
    Some(match name {
        "cseq" => Piece::Cseq(offset),
        "branch" => Piece::Branch(offset),
        "msg_index" => Piece::Index(offset),
        "len" => Piece::Len(offset),
        "local_port" => Piece::LocalPort(offset),
        "remote_port" => Piece::RemotePort(offset),
        "media_port" | "auto_media_port" => Piece::MediaPort(offset),
        "last_cseq_number" => Piece::Last(Last::Cseq(offset)),
        _ => return None,
    })
}

/// Fields, headers of the last message, and what cannot be had.
fn special(word: &str, dialect: Dialect, fields: &mut FieldFiles<'_>) -> Result<Piece, String> {
    if let Some(rest) = word.strip_prefix("field") {
        return field(word, rest, fields);
    }
    if let Some(name) = word.strip_prefix("last_") {
        let name = name.strip_suffix(':').unwrap_or(name);
        let token = |b: u8| b.is_ascii_alphanumeric() || b"-_.!%*+`'~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(format!("[{}]: after last_ stands no name of a header", short(word)));
        }
        return Ok(Piece::Last(Last::Header(name.as_bytes().to_vec())));
    }
    Err(match dialect {
        Dialect::Own => {
            let word = short(word);
            format!("[{word}] is no keyword; allowed are {OWN}; a bracket is written [[")
        }
        Dialect::Sipp => format!("the keyword [{}] is not understood", short(word)),
    })
}

/// `field0` or `field0 file="users.csv"`.
fn field(word: &str, rest: &str, fields: &mut FieldFiles<'_>) -> Result<Piece, String> {
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (column, rest) = rest.split_at(digits);
    let bad = || format!("[{}]: expected fieldN or fieldN file=\"NAME\"", short(word));
    let column: u16 = column.parse().map_err(|_| bad())?;
    let name = match rest.trim() {
        "" => None,
        rest => {
            let name = rest.strip_prefix("file=").map(|name| name.trim_matches('"'));
            Some(name.filter(|n| !n.contains(['"', '=']) && !n.is_empty()).ok_or_else(bad)?)
        }
    };
    let file = fields.column(name, column).map_err(|e| format!("[{}]: {e}", short(word)))?;
    Ok(Piece::Field { file, column })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scenario::template::Context;

    fn written(text: &str, dialect: Dialect) -> Result<Vec<u8>, (usize, String)> {
        let read = |_: &str, _: usize| Ok(b"USER\na;b\n".to_vec());
        let template = compile(text, dialect, &mut FieldFiles::new(&read))?;
        let mut out = Vec::new();
        template.write(&Context { cseq: 5, ..Context::default() }, &mut out);
        Ok(out)
    }

    #[test]
    fn offsets_are_added_and_brackets_are_kept() {
        assert_eq!(written("é[cseq+2] [cseq-9]é", Dialect::Sipp).unwrap(), "é7 0é".as_bytes());
        assert_eq!(written("[[cseq] \\x41", Dialect::Own).unwrap(), b"[cseq] \\x41");
        for bad in ["[cseq+]", "[cseq+x]", "[cseq+99999999999]", "[call_id+1]", "[]", "[a[b]]"] {
            assert!(written(bad, Dialect::Sipp).is_err(), "{bad}");
        }
        assert_eq!(written("ab\n[nope]", Dialect::Sipp).unwrap_err().0, 3);
        let long = "x".repeat(TEMPLATE_BYTES_MAX + 1);
        assert!(written(&long, Dialect::Sipp).unwrap_err().1.contains("limit of 65535"));
    }

    const PIECES: &[&str] = &[
        "[",
        "]",
        "[[",
        "é",
        "日",
        "x",
        "\\",
        "\\x",
        "\\x4",
        "\\x41",
        "[cseq]",
        "[len]",
        "\r\n",
        "[field0 file=\"a\"]",
        "[field0",
        "[last_",
        "Via:]",
        "+1]",
        "[branch-",
        "\r\n\r\n",
        " ",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_panics_the_compiler(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..12)) {
            for dialect in [Dialect::Own, Dialect::Sipp] {
                if let Err((at, _)) = written(&pieces.concat(), dialect) {
                    prop_assert!(pieces.concat().is_char_boundary(at));
                }
            }
        }

        #[test]
        fn text_without_keywords_is_written_as_it_is(text in "[^\\[\\\\]{0,40}") {
            prop_assert_eq!(written(&text, Dialect::Sipp).unwrap(), text.as_bytes());
        }
    }
}
