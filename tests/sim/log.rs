//! What happened, line by line: hashed always, kept or printed when asked.

use std::fmt::{self, Write as _};

/// What becomes of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Only the hash, and the last few lines for a failure report.
    Hash,
    /// All lines, to compare two runs.
    Lines,
    /// Printed as they come.
    Print,
}

/// The log of one run.
#[derive(Debug)]
pub(crate) struct Log {
    keep: Keep,
    hash: u64,
    count: u64,
    lines: Vec<String>,
    /// Where the next line goes when only the last ones are kept.
    next: usize,
    buffer: String,
}

/// Lines that a failure report shows when nothing else is kept.
const TAIL_LINES: usize = 40;

impl Log {
    /// An empty log.
    pub(crate) fn new(keep: Keep) -> Self {
        Self {
            keep,
            hash: 0xcbf2_9ce4_8422_2325,
            count: 0,
            lines: Vec::new(),
            next: 0,
            buffer: String::new(),
        }
    }

    /// Adds one line.
    pub(crate) fn line(&mut self, now: u64, text: fmt::Arguments<'_>) {
        self.buffer.clear();
        let _ = write!(self.buffer, "{:>10}.{:03} {text}", now / 1000, now % 1000);
        for chunk in self.buffer.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.hash = (self.hash.rotate_left(5) ^ u64::from_le_bytes(word))
                .wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        self.count += 1;
        match self.keep {
            Keep::Lines => self.lines.push(self.buffer.clone()),
            Keep::Hash => {
                if self.lines.len() < TAIL_LINES {
                    self.lines.push(String::new());
                }
                // The oldest line makes room, its memory stays.
                std::mem::swap(&mut self.lines[self.next], &mut self.buffer);
                self.next = (self.next + 1) % TAIL_LINES;
            }
            Keep::Print => println!("{}", self.buffer),
        }
    }

    /// A number that is the same when all lines were the same.
    pub(crate) fn hash(&self) -> u64 {
        self.hash ^ self.count
    }

    /// The lines kept: all of them, or the last ones.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = self.lines.clone();
        if self.keep == Keep::Hash && lines.len() == TAIL_LINES {
            lines.rotate_left(self.next);
        }
        lines
    }
}

/// A number for bytes, to write into the log instead of them.
pub(crate) fn digest(bytes: &[u8]) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    (hash >> 32) as u32
}
