//! The table of a head: where its start line and headers lie, as offsets.

use std::fmt;
use std::ops::Range;

use super::frame::{FrameError, content_length};
use super::lex::{is_one_word, is_token_text, trimmed};
use super::lines::{Event, Lines};
use super::method::Method;
use super::name::{self, Name};
use super::word::find;
use super::{HEADERS_MAX, MESSAGE_BYTES_MAX};

/// Where the parts of a message lie: read once, reused for the next message.
///
/// Owns one vector, which grows to the largest number of headers that was seen, at most
/// [`HEADERS_MAX`], and stays. A [`View`](super::View) looks at a message through it.
#[derive(Clone, Debug)]
pub struct Head {
    pub(super) start: Start,
    pub(super) headers: Vec<Entry>,
    /// Position of the first header of each name.
    first: [u8; Name::COUNT],
    /// A bit for each name that occurs more than once.
    repeated: u64,
    /// Where the body begins: behind the empty line.
    pub(super) body: u16,
    /// The first thing found wrong.
    pub(super) result: Result<(), HeadError>,
}

/// How far bytes that begin with a message were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The whole head, of this length.
    Head(usize),
    /// They end before the head does.
    Part,
    /// No further than to what is refused, which the first `cut` bytes say.
    Refused { error: FrameError, cut: usize },
}

/// The start line (RFC 3261 §7.1, §7.2).
#[derive(Clone, Debug)]
pub(super) enum Start {
    /// Nothing was read.
    None,
    Request {
        method: Method,
        method_end: u16,
        uri: Span,
    },
    Response {
        status: u16,
        reason: Span,
    },
}

/// A range of offsets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    start: u16,
    end: u16,
}

impl Span {
    /// Offsets of a message are at most [`MESSAGE_BYTES_MAX`].
    fn new(start: usize, end: usize) -> Self {
        Self { start: start as u16, end: end as u16 }
    }

    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(Range::from(self)).unwrap_or_default()
    }
}

impl From<Span> for Range<usize> {
    fn from(span: Span) -> Self {
        span.start.into()..span.end.into()
    }
}

/// One header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) name: Name,
    /// From the name to behind the last CRLF.
    pub(super) line: Span,
    pub(super) name_end: u16,
    /// Without the white space around it.
    pub(super) value: Span,
}

impl Entry {
    pub(super) fn name_bytes(self, bytes: &[u8]) -> &[u8] {
        Span { start: self.line.start, end: self.name_end }.of(bytes)
    }
}

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// It could not be framed on a stream either, or a Content-Length is wrong.
    Frame(FrameError),
    /// There is no empty line at the end of the head.
    Unfinished,
    /// The start line is neither a request line nor a status line (RFC 3261 §7.1, §7.2).
    StartLine,
    /// The version is not SIP/2.0.
    Version,
    /// A line is not a header: no name, no colon, or something between them (RFC 3261 §7.3.1).
    HeaderLine,
    /// A header that every message must have is missing (RFC 3261 §8.1.1).
    Missing(Name),
    /// A header is there more than once that may be there once.
    Repeated(Name),
    /// A header's value cannot be read, or its number is out of range.
    Value(Name),
    /// The request URI is not a URI.
    RequestUri,
    /// The status code is outside 100 to 699.
    Status(u16),
    /// CSeq names another method than the request line (RFC 3261 §8.1.1.5).
    CSeqMethod {
        /// Of the request line.
        request: Method,
        /// Of CSeq.
        cseq: Method,
    },
    /// The body is shorter than Content-Length says.
    BodyTooShort {
        /// What Content-Length says.
        content_length: usize,
        /// What is there.
        found: usize,
    },
}

impl HeadError {
    /// The status code of the response to a request that is refused for it.
    pub const fn status(self) -> u16 {
        match self {
            Self::Frame(error) => error.status(),
            Self::Version => 505,
            Self::Unfinished
            | Self::StartLine
            | Self::HeaderLine
            | Self::Missing(_)
            | Self::Repeated(_)
            | Self::Value(_)
            | Self::RequestUri
            | Self::Status(_)
            | Self::CSeqMethod { .. }
            | Self::BodyTooShort { .. } => 400,
        }
    }
}

impl From<FrameError> for HeadError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => error.fmt(f),
            Self::Unfinished => f.write_str("the head has no empty line at its end"),
            Self::StartLine => {
                f.write_str("the first line is neither a request line nor a status line")
            }
            Self::Version => f.write_str("the version is not SIP/2.0"),
            Self::HeaderLine => f.write_str("a line of the head is not a header"),
            Self::Missing(name) => write!(f, "{} is missing", name.as_str()),
            Self::Repeated(name) => write!(f, "{} is there more than once", name.as_str()),
            Self::Value(name) => write!(f, "the value of {} cannot be read", name.as_str()),
            Self::RequestUri => f.write_str("the request URI is not a URI"),
            Self::Status(status) => write!(f, "status {status} is outside 100 to 699"),
            Self::CSeqMethod { request, cseq } => {
                let text = |method: &Method| match method {
                    Method::Other => "another method",
                    known => known.as_str(),
                };
                write!(f, "CSeq method is {} in a request with {}", text(cseq), text(request))
            }
            Self::BodyTooShort { content_length, found } => {
                write!(f, "Content-Length is {content_length}, the body has {found} bytes")
            }
        }
    }
}

impl std::error::Error for HeadError {}

/// No header, in [`Head::first`].
const NONE: u8 = u8::MAX;

const _: () = assert!(HEADERS_MAX < NONE as usize && Name::COUNT <= u64::BITS as usize);

impl Default for Head {
    fn default() -> Self {
        Self {
            start: Start::None,
            headers: Vec::new(),
            first: [NONE; Name::COUNT],
            repeated: 0,
            body: 0,
            result: Ok(()),
        }
    }
}

impl Head {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the lines of the message `bytes`: the syntax of the start line and of header lines,
    /// not of values ([`View::check`](super::View::check) is for those).
    ///
    /// # Errors
    /// The first thing found wrong. The table then holds the lines that could be read, enough for a
    /// view to see whether the message can be answered.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), HeadError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            self.clear();
            let (bytes, bytes_max) = (bytes.len(), MESSAGE_BYTES_MAX);
            self.result = Err(FrameError::MessageTooLarge { bytes, bytes_max }.into());
            return self.result;
        }
        let wrong = match self.scan(bytes) {
            Extent::Head(_) => return self.result,
            Extent::Part => HeadError::Unfinished,
            Extent::Refused { error, .. } => error.into(),
        };
        self.body = bytes.len() as u16;
        self.result = self.result.and(Err(wrong));
        self.result
    }

    /// Reads the lines of the message that `bytes` begin with, as far as they go.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Extent {
        self.clear();
        let mut lines = Lines::default();
        let mut result = Ok(());
        let extent = loop {
            match lines.next(bytes) {
                Event::Line { start: 0, end } => {
                    let start_line = &bytes[..end];
                    let read = read_start_line(start_line, &mut self.start);
                    result = result.and(read);
                }
                Event::Line { start, end } => {
                    if !self.note(bytes, start, end) {
                        result = result.and(Err(HeadError::HeaderLine));
                    }
                }
                Event::End { head } => break Extent::Head(head),
                Event::More => break Extent::Part,
                Event::Refused { error, cut } => break Extent::Refused { error, cut },
            }
        };
        if let Extent::Head(head) = extent {
            self.body = head as u16;
            if matches!(self.start, Start::None) {
                result = Err(HeadError::StartLine);
            }
        }
        self.result = result;
        extent
    }

    fn clear(&mut self) {
        self.start = Start::None;
        self.headers.clear();
        self.first = [NONE; Name::COUNT];
        self.repeated = 0;
        self.body = 0;
    }

    /// What Content-Length of the message `bytes` says.
    pub(super) fn content_length(&self, bytes: &[u8]) -> Result<usize, FrameError> {
        let Some(header) = self.first(Name::ContentLength) else {
            return Err(FrameError::NoContentLength);
        };
        if self.is_repeated(Name::ContentLength) {
            return Err(FrameError::ConflictingContentLength);
        }
        content_length(header.value.of(bytes))
    }

    /// Enters the header at `start..end`; false when it is none.
    #[inline]
    fn note(&mut self, bytes: &[u8], start: usize, end: usize) -> bool {
        let Some((name, name_len, value)) = name::read(&bytes[start..], end - start) else {
            return false;
        };
        let (value_start, value_end) = trimmed(bytes, start + value, end - CRLF.len());
        if let Some(first) = self.first.get_mut(name as usize) {
            if *first == NONE {
                *first = self.headers.len() as u8;
            } else {
                self.repeated |= 1 << name as u32;
            }
        }
        self.headers.push(Entry {
            name,
            line: Span::new(start, end),
            name_end: (start + name_len) as u16,
            value: Span::new(value_start, value_end),
        });
        true
    }

    /// The first header of that name.
    pub(super) fn first(&self, name: Name) -> Option<&Entry> {
        self.headers.get(usize::from(*self.first.get(name as usize)?))
    }

    /// True when there are two or more headers of that name.
    pub(super) fn is_repeated(&self, name: Name) -> bool {
        self.repeated & 1 << name as u32 != 0
    }
}

/// Every line ends with it: [`Lines`] gives out no other.
const CRLF: &[u8] = b"\r\n";

const VERSION: &[u8] = b"SIP/2.0";

/// True when `bytes` begin like a response. No method has a slash in it.
pub(super) fn is_response(bytes: &[u8]) -> bool {
    bytes.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/"))
}

/// Reads a start line with its CRLF, and whatever can be told of one that is wrong.
fn read_start_line(line: &[u8], start: &mut Start) -> Result<(), HeadError> {
    let text = line.strip_suffix(CRLF).unwrap_or(line);
    if is_response(text) { read_status_line(text, start) } else { read_request_line(text, start) }
}

/// RFC 3261 §7.1: method, URI and version with one space between them.
fn read_request_line(text: &[u8], start: &mut Start) -> Result<(), HeadError> {
    let method_end = find(text, 0, [b' ']).unwrap_or(text.len());
    let uri_end = memchr::memrchr(b' ', text).unwrap_or(text.len());
    let uri_start = (method_end + 1).min(uri_end);
    let (method, uri) = (&text[..method_end], &text[uri_start..uri_end]);
    *start = Start::Request {
        method: Method::parse(method),
        method_end: method_end as u16,
        uri: Span::new(uri_start, uri_end),
    };
    let version = text.get(uri_end + 1..).unwrap_or_default();
    if !is_token_text(method) || uri.is_empty() || !is_one_word(uri) {
        return Err(HeadError::StartLine);
    }
    if version.eq_ignore_ascii_case(VERSION) {
        return Ok(());
    }
    Err(if is_response(version) && is_one_word(version) {
        HeadError::Version
    } else {
        HeadError::StartLine
    })
}

/// RFC 3261 §7.2. The space before an empty reason phrase may be missing.
fn read_status_line(text: &[u8], start: &mut Start) -> Result<(), HeadError> {
    *start = Start::Response { status: 0, reason: Span::default() };
    let (version, rest) = text.split_at_checked(VERSION.len()).ok_or(HeadError::Version)?;
    if !version.eq_ignore_ascii_case(VERSION) {
        return Err(HeadError::Version);
    }
    let [b' ', hundreds @ b'0'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', rest @ ..] = rest
    else {
        return Err(HeadError::StartLine);
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    let reason = match rest {
        [] => Span::default(),
        [b' ', ..] => Span::new(text.len() - rest.len() + 1, text.len()),
        _ => return Err(HeadError::StartLine),
    };
    let status = digit(hundreds) * 100 + digit(tens) * 10 + digit(ones);
    *start = Start::Response { status, reason };
    Ok(())
}
