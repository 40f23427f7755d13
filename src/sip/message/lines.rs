//! The one scanner of heads: bytes in, whole header lines out, folds and limits seen to.
//!
//! It can stop anywhere and go on when more bytes have come, and never looks at a byte twice.

use memchr::memchr2;

use super::frame::FrameError;
use super::{HEAD_BYTES_MAX, HEADER_BYTES_MAX, HEADERS_MAX, START_LINE_BYTES_MAX};

/// Where a scan of a head stands. Offsets count from the first byte of the message.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    /// Where the start line or header that is being read begins.
    begin: usize,
    /// Where its last line so far begins: past `begin` after a fold.
    line: usize,
    /// Everything before is known to hold no further line end.
    at: usize,
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
    #[inline]
    pub(super) fn next(&mut self, bytes: &[u8]) -> Event {
        loop {
            if self.at == self.line && self.begin < self.line {
                match bytes.get(self.line) {
                    None => return Event::More,
                    Some(b' ' | b'\t') => {}
                    Some(_) => return self.complete(),
                }
            }
            let (line_max, error) = match self.count {
                0 => (START_LINE_BYTES_MAX, FrameError::StartLineTooLarge),
                _ => (HEADER_BYTES_MAX, FrameError::HeaderTooLarge),
            };
            let (limit, error) = match self.begin + line_max + 1 {
                limit if limit <= HEAD_BYTES_MAX => (limit, error),
                _ => (HEAD_BYTES_MAX, FrameError::HeadTooLarge),
            };
            let searched = bytes.get(self.at..limit.min(bytes.len())).unwrap_or_default();
            let Some(found) = memchr2(b'\r', b'\n', searched) else {
                if bytes.len() >= limit {
                    return Event::Refused { error, cut: limit };
                }
                self.at = bytes.len();
                return Event::More;
            };
            let end = self.at + found;
            if searched[found] == b'\n' {
                return Event::Refused { error: FrameError::BareLineEnd, cut: end + 1 };
            }
            match bytes.get(end + 1) {
                None => {
                    self.at = end;
                    return Event::More;
                }
                Some(b'\n') if end == self.line => return Event::End { head: end + 2 },
                Some(b'\n') => {
                    self.line = end + 2;
                    self.at = self.line;
                }
                Some(_) => return Event::Refused { error: FrameError::BareLineEnd, cut: end + 2 },
            }
        }
    }

    /// The header that was being read is whole: the next line does not continue it.
    fn complete(&mut self) -> Event {
        let start = self.begin;
        self.begin = self.line;
        self.count += 1;
        if self.count > HEADERS_MAX + 1 {
            return Event::Refused { error: FrameError::TooManyHeaders, cut: self.line };
        }
        Event::Line { start, end: self.line }
    }
}
