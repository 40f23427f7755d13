//! Bytes that are kept for a while: requests and responses until nobody can repeat them, texts of dialogs.
//!
//! ```text
//!          keep                                  give_back
//!  bytes ───────► Kept ··· shared by clones ··· ───────────► free buffers of its size, a bounded number
//!    ▲                                                            │
//!    └────────────────────────────────────────────────────────────┘
//! ```
//!
//! As many transactions end in a steady state as begin, and then nothing is asked of the allocator. What is dropped
//! without being given back is freed like any other memory.

use std::ops::Deref;
use std::rc::Rc;

/// Sizes of buffers are multiples of it, so what is kept has half of it to spare on average.
const STEP: usize = 64;
/// How many sizes are used again. What is longer than the largest of them, 2 KiB, is allocated as it is and freed.
const SIZES: usize = 32;
/// Free buffers of one size, bytes; of 2 KiB that is 32, of 704 bytes 93. All sizes together: 2 MiB.
const FREE_BYTES_MAX: usize = 1 << 16;

/// Bytes in a buffer of a [`Pool`]. A clone is the same buffer.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    /// `None`: no bytes.
    buffer: Option<Rc<[u8]>>,
    len: usize,
}

impl Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.as_deref().and_then(|buffer| buffer.get(..self.len)).unwrap_or_default()
    }
}

impl Kept {
    /// Reads a byte of each cache line.
    pub(super) fn touch(&self) -> u8 {
        self.chunks(64).fold(0, |sum, line| sum ^ line.first().copied().unwrap_or_default())
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

/// Buffers that wait for their next use.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// For what is being written: its length is known at the end.
    buffer: Vec<u8>,
    /// By size.
    free: [Vec<Rc<[u8]>>; SIZES],
}

impl Pool {
    /// An empty buffer to write in; [`put_buffer`](Self::put_buffer) takes it back.
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer
    }

    /// Takes that buffer back.
    pub(super) fn put_buffer(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }

    /// Keeps what was written in that buffer, and takes it back.
    pub(super) fn keep_buffer(&mut self, buffer: Vec<u8>) -> Kept {
        let kept = self.keep(&buffer);
        self.buffer = buffer;
        kept
    }

    /// A copy of `bytes`.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> Kept {
        let len = bytes.len();
        let Some(place) = place_of(len) else { return Kept::default() };
        let free = self.free.get_mut(place);
        let (size, free) = match free {
            Some(free) => ((place + 1) * STEP, free.pop()),
            None => (len, None),
        };
        let mut buffer = free.unwrap_or_else(|| std::iter::repeat_n(0, size).collect());
        if let Some(room) = Rc::get_mut(&mut buffer).and_then(|buffer| buffer.get_mut(..len)) {
            room.copy_from_slice(bytes);
        }
        Kept { buffer: Some(buffer), len }
    }

    /// Takes a buffer for its next use, unless somebody still holds a clone of it: whoever gives back last does.
    pub(super) fn give_back(&mut self, kept: Kept) {
        let Some(mut buffer) = kept.buffer else { return };
        let size = buffer.len();
        let free = place_of(size).and_then(|place| self.free.get_mut(place));
        if let Some(free) = free
            && free.len() < FREE_BYTES_MAX / size
            && Rc::get_mut(&mut buffer).is_some()
        {
            free.push(buffer);
        }
    }

    /// Puts a copy of `bytes` in the place of what was kept, in the same buffer if it fits and is nobody else's.
    pub(super) fn replace(&mut self, kept: &mut Kept, bytes: &[u8]) {
        let len = bytes.len();
        let own = kept.buffer.as_mut().filter(|buffer| place_of(buffer.len()) == place_of(len));
        match own.and_then(Rc::get_mut).and_then(|buffer| buffer.get_mut(..len)) {
            Some(room) => {
                room.copy_from_slice(bytes);
                kept.len = len;
            }
            None => {
                let new = self.keep(bytes);
                self.give_back(std::mem::replace(kept, new));
            }
        }
    }
}

/// Which size holds `len` bytes; `None` for none.
fn place_of(len: usize) -> Option<usize> {
    Some(len.checked_sub(1)? / STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(pool: &Pool) -> usize {
        pool.free.iter().map(Vec::len).sum()
    }

    #[test]
    fn what_is_kept_is_what_was_given_whatever_was_in_the_buffer_before() {
        let mut pool = Pool::default();
        let long = pool.keep(&[1; STEP]);
        pool.give_back(long);
        assert_eq!(free(&pool), 1);
        let short = pool.keep(&[2; STEP - 10]);
        assert_eq!((&*short, free(&pool)), (&[2; STEP - 10][..], 0));
        assert_eq!(&*pool.keep(&[3; STEP + 1]), &[3; STEP + 1][..]);
        assert!(pool.keep(b"").is_empty());
    }

    #[test]
    fn a_buffer_is_used_again_when_its_last_holder_gives_it_back() {
        let mut pool = Pool::default();
        let kept = pool.keep(b"shared");
        let clone = kept.clone();
        pool.give_back(kept);
        assert_eq!((&*clone, free(&pool)), (&b"shared"[..], 0));
        pool.give_back(clone);
        assert_eq!(free(&pool), 1);
        drop(pool.keep(b"dropped"));
        assert_eq!(free(&pool), 0);
    }

    #[test]
    fn free_buffers_of_each_size_are_bounded_and_large_ones_are_freed() {
        let mut pool = Pool::default();
        let largest = STEP * SIZES;
        let kept: Vec<Kept> = (0..100).map(|_| pool.keep(&vec![0; largest])).collect();
        kept.into_iter().for_each(|kept| pool.give_back(kept));
        assert_eq!(free(&pool), FREE_BYTES_MAX / largest);
        let large = pool.keep(&vec![7; largest + 1]);
        assert_eq!(large.len(), largest + 1);
        pool.give_back(large);
        assert_eq!(free(&pool), FREE_BYTES_MAX / largest);
        let absurd = pool.keep(&vec![7; 1 << 20]);
        assert!(absurd.len() == 1 << 20 && absurd.iter().all(|&byte| byte == 7));
        pool.give_back(absurd);
        assert_eq!(free(&pool), FREE_BYTES_MAX / largest);
    }

    #[test]
    fn a_replacement_takes_the_same_buffer_if_it_can() {
        let mut pool = Pool::default();
        let mut kept = pool.keep(b"one");
        pool.replace(&mut kept, b"another");
        assert_eq!((&*kept, free(&pool)), (&b"another"[..], 0));
        let clone = kept.clone();
        pool.replace(&mut kept, b"third");
        assert_eq!((&*kept, &*clone, free(&pool)), (&b"third"[..], &b"another"[..], 0));
        pool.replace(&mut kept, &[9; STEP + 1]);
        assert_eq!((&*kept, free(&pool)), (&[9; STEP + 1][..], 1));
        pool.replace(&mut kept, b"");
        assert_eq!((kept.len(), free(&pool)), (0, 2));
        pool.replace(&mut kept, b"again");
        assert_eq!((&*kept, free(&pool)), (&b"again"[..], 1));
    }
}
