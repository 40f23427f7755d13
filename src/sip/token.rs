//! Names that travel: the local tags and Via branches that the server makes.
//!
//! ```text
//! hf 0002 0000a41f 9c1e5fd07b3a2e44
//! │  │    │        └ 64 random bits: nobody outside can guess it (RFC 3261 §19.3)
//! │  │    └ slab position of the leg or transaction: found without a table
//! │  └ shard that owns it: any shard that reads it knows where it belongs
//! └ ours
//! ```

use std::fmt;

use crate::key::ShardId;

/// A local tag, or what follows the magic cookie of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The shard that owns what is named.
    pub shard: ShardId,
    /// Position in the owner's slab.
    pub index: u32,
    /// Random; compared before the position is believed.
    pub cookie: u64,
}

impl Token {
    /// Bytes of a written token.
    pub const LEN: usize = 30;

    /// Reads a token; `None` when the text is somebody else's. Tokens compare without case
    /// (RFC 3261 §7.3.1), so upper-case digits are read too.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != Self::LEN || !text[..2].eq_ignore_ascii_case(b"hf") {
            return None;
        }
        Some(Self {
            shard: ShardId(u16::try_from(hex(&text[2..6])?).ok()?),
            index: u32::try_from(hex(&text[6..14])?).ok()?,
            cookie: hex(&text[14..])?,
        })
    }

    /// The token as it is written.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut text = [0; Self::LEN];
        text[..2].copy_from_slice(b"hf");
        put_hex(&mut text[2..6], u64::from(self.shard.0));
        put_hex(&mut text[6..14], u64::from(self.index));
        put_hex(&mut text[14..], self.cookie);
        text
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf{:04x}{:08x}{:016x}", self.shard.0, self.index, self.cookie)
    }
}

/// A number in 16 hexadecimal digits.
pub(super) fn hex_text(number: u64) -> [u8; 16] {
    let mut text = [0; 16];
    put_hex(&mut text, number);
    text
}

/// What a byte that is no digit stands for.
const NO_DIGIT: u8 = u8::MAX;

/// The value of each hexadecimal digit.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        let digit = b"0123456789abcdef"[value as usize];
        digits[digit as usize] = value;
        digits[digit.to_ascii_uppercase() as usize] = value;
        value += 1;
    }
    digits
};

/// A number of at most 16 digits.
fn hex(text: &[u8]) -> Option<u64> {
    let (value, seen) = text.iter().fold((0u64, 0), |(value, seen), &byte| {
        let digit = DIGITS[usize::from(byte)];
        (value << 4 | u64::from(digit), seen | digit)
    });
    (seen < 16).then_some(value)
}

/// Writes the lowest digits of `value`, as many as `text` is long.
pub(super) fn put_hex(text: &mut [u8], mut value: u64) {
    for byte in text.iter_mut().rev() {
        *byte = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = Token { shard: ShardId(2), index: 0xa41f, cookie: 0x9c1e_5fd0_7b3a_2e44 };
        assert_eq!(&token.to_bytes()[..], token.to_string().as_bytes());
        assert_eq!(Token::parse(&token.to_bytes()), Some(token));
        assert_eq!(Token::parse(token.to_string().to_uppercase().as_bytes()), Some(token));
    }

    #[test]
    fn foreign_tags_are_no_tokens() {
        for text in ["", "hf", "1928301774", "hf00020000a41f9c1e5fd07b3a2e4g", &"h".repeat(30)] {
            assert_eq!(Token::parse(text.as_bytes()), None, "{text}");
        }
    }
}
