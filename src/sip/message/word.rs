//! Sixteen bytes at a time, as a number whose lowest byte is the first one.

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
pub(super) const fn first_equal(word: u128, byte: u8) -> usize {
    // A byte that is zero borrows into its top bit. The borrow can spoil the bytes above it, so
    // the lowest mark is the one that is right.
    let zero = word ^ repeat(byte);
    let marks = zero.wrapping_sub(repeat(1)) & !zero & repeat(0x80);
    marks.trailing_zeros() as usize / 8
}

/// The largest byte that [`control`] looks for: CR is, LF is less.
const CONTROL_MAX: u8 = b'\r';

/// The position of the first byte from `at` on that is [`CONTROL_MAX`] at most.
#[inline]
pub(super) fn control(bytes: &[u8], mut at: usize) -> Option<usize> {
    let rest = loop {
        let rest = bytes.get(at..)?;
        let Some(chunk) = rest.first_chunk::<WORD>() else {
            break rest;
        };
        // In this form the compiler compares all bytes at once.
        if chunk.iter().fold(false, |any, &byte| any | (byte <= CONTROL_MAX)) {
            return Some(at + first_control(u128::from_le_bytes(*chunk)));
        }
        at += WORD;
    };
    Some(at + rest.iter().position(|&byte| byte <= CONTROL_MAX)?)
}

/// The position of the first byte of `word` that is [`CONTROL_MAX`] at most.
#[inline]
const fn first_control(word: u128) -> usize {
    let marks = word.wrapping_sub(repeat(CONTROL_MAX + 1)) & !word & repeat(0x80);
    marks.trailing_zeros() as usize / 8
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
