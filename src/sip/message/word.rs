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

/// Bytes whose control characters are found together.
pub(super) const BLOCK: usize = 64;

/// The largest byte that [`controls`] looks for: CR is, LF is less.
const CONTROL_MAX: u8 = b'\r';

/// A bit for each of the [`BLOCK`] bytes from `at` on that is [`CONTROL_MAX`] at most.
#[inline]
pub(super) fn controls(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first_chunk::<BLOCK>() {
        Some(block) => controls_of(block),
        None => {
            let mut block = [u8::MAX; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            controls_of(&block)
        }
    }
}

#[inline]
fn controls_of(block: &[u8; BLOCK]) -> u64 {
    let (words, _) = block.as_chunks::<WORD>();
    words.iter().rev().fold(0, |marks, &word| {
        let low = u8x16::new(word).simd_le(u8x16::splat(CONTROL_MAX));
        marks << WORD | u64::from(low.to_bitmask())
    })
}

/// The position of the first byte from `at` on that is `max` at most or one of `others`.
#[inline]
pub(super) fn first_of<const N: usize>(
    bytes: &[u8],
    at: usize,
    max: u8,
    others: [u8; N],
) -> Option<usize> {
    let is_sought = |word: u8x16| {
        let low = word.simd_le(u8x16::splat(max));
        others.iter().fold(low, |found, &byte| found | word.simd_eq(u8x16::splat(byte)))
    };
    first_where(bytes, at, is_sought, |byte| byte <= max || others.contains(&byte))
}

/// The position of the first of `sought` from `at` on.
#[inline]
pub(super) fn find<const N: usize>(bytes: &[u8], at: usize, sought: [u8; N]) -> Option<usize> {
    let none = u8x16::splat(0);
    let is_sought = |word: u8x16| {
        sought.iter().fold(none, |found, &byte| found | word.simd_eq(u8x16::splat(byte)))
    };
    first_where(bytes, at, is_sought, |byte| sought.contains(&byte))
}

/// The position of the first byte from `at` on that is sought. Texts are short: what little there is to do is done
/// in place, and the end of a text by looking at its last word once more.
#[inline(always)]
fn first_where(
    bytes: &[u8],
    mut at: usize,
    in_word: impl Fn(u8x16) -> u8x16,
    is_sought: impl Fn(u8) -> bool,
) -> Option<usize> {
    let rest = loop {
        let rest = bytes.get(at..)?;
        let Some(chunk) = rest.first_chunk::<WORD>() else { break rest };
        if let Some(found) = first(in_word(u8x16::new(*chunk))) {
            return Some(at + found);
        }
        at += WORD;
    };
    let Some(last) = bytes.last_chunk::<WORD>() else {
        return Some(at + rest.iter().position(|&byte| is_sought(byte))?);
    };
    let marks = in_word(u8x16::new(*last)).to_bitmask() >> (WORD - rest.len());
    (marks != 0).then(|| at + marks.trailing_zeros() as usize)
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

    /// Texts of `neighbour` with `sought` at a place, other bytes behind it.
    fn texts(sought: u8, lengths: std::ops::Range<usize>, mut each: impl FnMut(&[u8], usize)) {
        for neighbour in [0x0e, 0x7f, 0x80, 0x8d, 0xff] {
            for after in [0x00, 0x0d, 0x0e, 0x80, 0x8e, 0xff] {
                for len in lengths.clone() {
                    for at in 0..len {
                        let mut bytes = vec![neighbour; len];
                        bytes[at..].fill(after);
                        bytes[at] = sought;
                        each(&bytes, at);
                    }
                }
            }
        }
    }

    #[test]
    fn every_control_is_found_whatever_its_neighbours() {
        for sought in 0..=CONTROL_MAX {
            texts(sought, 60..70, |bytes, at| {
                let start = at / 2;
                let wanted = bytes[start..].iter().take(BLOCK).enumerate();
                let wanted = wanted.filter(|(_, byte)| **byte <= CONTROL_MAX);
                let wanted = wanted.fold(0, |marks, (n, _)| marks | 1 << n);
                assert_eq!(controls(bytes, start), wanted, "{bytes:?}");
            });
        }
        assert_eq!(controls(b"\r\n", 2), 0);
        assert_eq!(controls(b"\r\n", 3), 0);
    }

    #[test]
    fn the_first_of_several_is_found_whatever_its_neighbours() {
        for sought in [0x00, 0x0d, b'=', b'@'] {
            texts(sought, 1..50, |bytes, at| {
                for start in [0, at / 2, at] {
                    assert_eq!(first_of(bytes, start, b'\r', [b'=', b'@']), Some(at), "{bytes:?}");
                    assert_eq!(find(bytes, start, [sought]), Some(at), "{bytes:?}");
                }
                let none = bytes[at + 1..].iter().position(|&byte| byte == sought);
                assert_eq!(find(bytes, at + 1, [sought]), none.map(|n| at + 1 + n), "{bytes:?}");
                assert_eq!(find(bytes, bytes.len() + 1, [sought]), None);
            });
        }
    }
}
