//! The one scanner of heads: bytes in, whole header lines out, folds and limits seen to.
//!
//! It can stop anywhere and go on when more bytes have come, and never looks at a byte twice.

use super::frame::FrameError;
use super::word::{BLOCK, controls};
use super::{HEAD_BYTES_MAX, HEADER_BYTES_MAX, HEADERS_MAX, START_LINE_BYTES_MAX};

/// Where a scan of a head stands. Offsets count from the first byte of the message.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    /// Where the start line or header that is being read begins.
    begin: usize,
    /// Where its last line so far begins: past `begin` after a fold.
    line: usize,
    /// Where the next [`BLOCK`] begins.
    block: usize,
    /// Control characters of the one before it that were not looked at yet.
    controls: u64,
    /// A line has ended, and the byte behind it, which tells a fold, was not there yet.
    is_between: bool,
    /// How many were read.
    count: usize,
}

/// What [`Lines::next`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The bytes end before the head does.
    More,
    /// The start line, and then each header, from its first byte to behind its CRLF.
    Line { start: usize, end: usize },
    /// The empty line: the head is this long.
    End { head: usize },
    /// The head is refused, for what its first `cut` bytes say.
    Refused { error: FrameError, cut: usize },
}

impl Lines {
    /// The next event. `bytes` begin with the message; later calls may bring more of them.
    ///
    /// The answers do not depend on how the bytes come in: every limit is tested at the byte
    /// that exceeds it.
    #[inline(always)] // Its three callers then keep the state in registers.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Event {
        if self.is_between {
            match bytes.get(self.line) {
                None => return Event::More,
                Some(b' ' | b'\t') => self.is_between = false,
                Some(_) => {
                    self.is_between = false;
                    return self.complete();
                }
            }
        }
        loop {
            while self.controls == 0 {
                if self.block >= bytes.len() {
                    return self.more(bytes.len());
                }
                self.controls = controls(bytes, self.block);
                // The LF of a CR that was the last byte of a block.
                if self.line > self.block {
                    self.controls &= u64::MAX << (self.line - self.block);
                }
                self.block += BLOCK;
            }
            let at = self.block - BLOCK + self.controls.trailing_zeros() as usize;
            if at >= self.limit() {
                return self.more(at);
            }
            self.controls &= self.controls - 1;
            match (bytes.get(at), bytes.get(at + 1)) {
                (Some(b'\r'), Some(b'\n')) => {
                    if at == self.line {
                        return Event::End { head: at + 2 };
                    }
                    self.line = at + 2;
                    if self.line <= self.block {
                        self.controls &= self.controls - 1;
                    }
                    match bytes.get(at + 2) {
                        Some(b' ' | b'\t') => {}
                        Some(_) => return self.complete(),
                        None => {
                            self.is_between = true;
                            return self.wait(at + 2);
                        }
                    }
                }
                (Some(b'\r'), None) => return self.wait(at),
                (Some(b'\r'), Some(_)) => {
                    return Event::Refused { error: FrameError::BareLineEnd, cut: at + 2 };
                }
                (Some(b'\n'), _) => {
                    return Event::Refused { error: FrameError::BareLineEnd, cut: at + 1 };
                }
                // A tab, or a control character that ends no line.
                _ => {}
            }
        }
    }

    /// Goes on at `at` when there are more bytes.
    fn wait(&mut self, at: usize) -> Event {
        (self.block, self.controls) = (at, 0);
        Event::More
    }

    /// The header that was being read is whole: the next line does not continue it.
    #[inline]
    fn complete(&mut self) -> Event {
        let start = self.begin;
        self.begin = self.line;
        self.count += 1;
        if self.count > HEADERS_MAX + 1 {
            return Event::Refused { error: FrameError::TooManyHeaders, cut: self.line };
        }
        Event::Line { start, end: self.line }
    }

    /// Where the next line end must have begun.
    #[inline]
    fn limit(&self) -> usize {
        let line_max = if self.count == 0 { START_LINE_BYTES_MAX } else { HEADER_BYTES_MAX };
        (self.begin + line_max + 1).min(HEAD_BYTES_MAX - 1)
    }

    /// No line ends before `at`, and need not, unless `at` is beyond the limit.
    #[cold]
    fn more(&mut self, at: usize) -> Event {
        let limit = self.limit();
        if at < limit {
            return self.wait(at);
        }
        let error = match self.count {
            _ if limit == HEAD_BYTES_MAX - 1 => FrameError::HeadTooLarge,
            0 => FrameError::StartLineTooLarge,
            _ => FrameError::HeaderTooLarge,
        };
        Event::Refused { error, cut: limit }
    }
}
