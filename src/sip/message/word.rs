//! Sixteen bytes at a time, as a number whose lowest byte is the first one.

use wide::u8x16;

/// Bytes of a word.
pub(super) const WORD: usize = 16;

/// A word of equal bytes.
pub(super) const fn repeat(byte: u8) -> u128 {
    u128::from_le_bytes([byte; WORD])
}

/// The first bytes of `text`; zeros behind its end.
#[inline]
pub(super) fn first_word(text: &[u8]) -> u128 {
    match text.first_chunk::<WORD>() {
        Some(word) => u128::from_le_bytes(*word),
        None => {
            let mut word = [0; WORD];
            word.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
            u128::from_le_bytes(word)
        }
    }
}

/// The position of the first `byte` in `word`; [`WORD`] when there is none.
#[inline]
pub(super) fn first_equal(word: u128, byte: u8) -> usize {
    first(lanes(word).simd_eq(u8x16::splat(byte))).unwrap_or(WORD)
}

/// The largest byte that [`control`] looks for: CR is, LF is less.
const CONTROL_MAX: u8 = b'\r';

/// The position of the first byte from `at` on that is [`CONTROL_MAX`] at most.
#[inline]
pub(super) fn control(bytes: &[u8], at: usize) -> Option<usize> {
    first_of(bytes, at, CONTROL_MAX, [])
}

/// The position of the first byte from `at` on that is `max` at most or one of `others`.
#[inline]
pub(super) fn first_of<const N: usize>(
    bytes: &[u8],
    mut at: usize,
    max: u8,
    others: [u8; N],
) -> Option<usize> {
    let rest = loop {
        let rest = bytes.get(at..)?;
        let Some(chunk) = rest.first_chunk::<WORD>() else {
            break rest;
        };
        let word = u8x16::new(*chunk);
        let low = word.simd_le(u8x16::splat(max));
        let found =
            others.iter().fold(low, |found, &byte| found | word.simd_eq(u8x16::splat(byte)));
        if let Some(found) = first(found) {
            return Some(at + found);
        }
        at += WORD;
    };
    Some(at + rest.iter().position(|&byte| byte <= max || others.contains(&byte))?)
}

#[inline]
fn lanes(word: u128) -> u8x16 {
    u8x16::new(word.to_le_bytes())
}

/// The position of the first byte that was found.
#[inline]
fn first(found: u8x16) -> Option<usize> {
    let marks = found.to_bitmask();
    (marks != 0).then_some(marks.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_is_found_among_any_others() {
        for filler in [0x00, 0x0e, 0x20, 0x39, 0x3b, 0x7f, 0x80, 0xba, 0xff] {
            for at in 0..WORD {
                for after in [0x00, 0x0c, 0x39, 0x3a, 0x3b, 0xba, 0xff] {
                    let mut bytes = [filler; WORD];
                    bytes[at..].fill(after);
                    bytes[at] = b':';
                    assert_eq!(first_equal(u128::from_le_bytes(bytes), b':'), at, "{bytes:?}");
                }
            }
            assert_eq!(first_equal(repeat(filler), b':'), WORD);
        }
    }

    #[test]
    fn every_control_is_found_whatever_its_neighbours() {
        for byte in 0..=CONTROL_MAX {
            for neighbour in [0x0e, 0x7f, 0x80, 0x8d, 0xff] {
                for after in [0x00, 0x0d, 0x0e, 0x80, 0x8e, 0xff] {
                    for len in 0..50 {
                        for at in 0..len {
                            let mut bytes = vec![neighbour; len];
                            bytes[at..].fill(after);
                            bytes[at] = byte;
                            assert_eq!(control(&bytes, at / 2), Some(at));
                        }
                        assert_eq!(control(&vec![neighbour; len], 0), None);
                    }
                }
            }
        }
    }
}
