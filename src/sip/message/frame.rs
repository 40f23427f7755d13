//! Splits a byte stream into SIP messages by `Content-Length` (RFC 3261 §18.3).
//!
//! ```text
//!            CRLF CRLF: Ping
//!           ┌───────────────┐
//!           ▼               │
//!        between ──byte──► head ──empty line──► body ──last byte──► Message
//!           ▲               │ limits, line ends, Content-Length        │
//!           │               └──────────► Unframed: dead                │
//!           └──────────────────────────────────────────────────────────┘
//! ```

use std::fmt;

use super::head::{Extent, Head};
use super::lex::{number, trim};
use super::lines::{Event, Lines};
use super::name::{self, Name};
use super::view::View;
use super::{
    BODY_BYTES_MAX, HEAD_BYTES_MAX, HEADER_BYTES_MAX, HEADERS_MAX, MESSAGE_BYTES_MAX,
    START_LINE_BYTES_MAX,
};

/// What a stream holds next.
#[derive(Clone, Copy, Debug)]
pub enum Frame<'a> {
    /// A whole message, start line to the last byte of the body, of which the head was read.
    Message(View<'a>),
    /// CRLFCRLF between messages: the peer wants a CRLF back (RFC 5626 §3.5.1).
    Ping,
    /// A message that cannot be told from the next one. Nothing after it is read: answer it if its
    /// bytes allow, and close the flow.
    Unframed {
        /// The message up to the byte that decided; the whole head where Content-Length is wrong.
        bytes: &'a [u8],
        /// What is wrong.
        error: FrameError,
    },
}

/// Why a stream cannot be split any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The head exceeds [`HEAD_BYTES_MAX`].
    HeadTooLarge,
    /// The start line exceeds [`START_LINE_BYTES_MAX`].
    StartLineTooLarge,
    /// A header exceeds [`HEADER_BYTES_MAX`].
    HeaderTooLarge,
    /// There are more headers than [`HEADERS_MAX`].
    TooManyHeaders,
    /// Content-Length exceeds [`BODY_BYTES_MAX`].
    BodyTooLarge {
        /// What it says, at most 2^64 - 1.
        content_length: u64,
    },
    /// Head and body exceed the limit together.
    MessageTooLarge {
        /// Bytes of both.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A CR or an LF stands by itself.
    BareLineEnd,
    /// There is no Content-Length, which a stream needs (RFC 3261 §20.14).
    NoContentLength,
    /// Content-Length is not a number.
    BadContentLength,
    /// There are several Content-Length headers, equal or not.
    ConflictingContentLength,
}

impl FrameError {
    /// The status code of the response that tells the peer.
    pub const fn status(self) -> u16 {
        match self {
            Self::StartLineTooLarge => 414,
            Self::HeadTooLarge
            | Self::HeaderTooLarge
            | Self::TooManyHeaders
            | Self::BodyTooLarge { .. }
            | Self::MessageTooLarge { .. } => 513,
            Self::BareLineEnd
            | Self::NoContentLength
            | Self::BadContentLength
            | Self::ConflictingContentLength => 400,
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeadTooLarge => {
                write!(f, "the head is above the limit of {HEAD_BYTES_MAX} bytes")
            }
            Self::StartLineTooLarge => {
                write!(f, "the start line is above the limit of {START_LINE_BYTES_MAX} bytes")
            }
            Self::HeaderTooLarge => {
                write!(f, "a header is above the limit of {HEADER_BYTES_MAX} bytes")
            }
            Self::TooManyHeaders => {
                write!(f, "the number of headers is above the limit of {HEADERS_MAX}")
            }
            Self::BodyTooLarge { content_length } => write!(
                f,
                "Content-Length {content_length} is above the limit of {BODY_BYTES_MAX} bytes"
            ),
            Self::MessageTooLarge { bytes, bytes_max } => {
                write!(f, "a message of {bytes} bytes is above the limit of {bytes_max} bytes")
            }
            Self::BareLineEnd => f.write_str("a CR or LF stands by itself, lines end with CRLF"),
            Self::NoContentLength => f.write_str("Content-Length is missing"),
            Self::BadContentLength => f.write_str("Content-Length is not a number"),
            Self::ConflictingContentLength => f.write_str("Content-Length is there more than once"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Splits the stream of one flow into messages.
///
/// Holds nothing but a message that is not whole yet: no more of it than has come, in a vector at
/// most twice as large. Between messages it owns no memory, and is small itself: most connections are idle. Each byte is looked at once where the
/// message comes in one piece, three times at most where it does not.
#[derive(Debug)]
pub struct Framer {
    /// A message that did not come in one piece.
    held: Option<Box<Held>>,
    message_bytes_max: u16,
    state: State,
}

/// A message that is not whole yet.
#[derive(Debug)]
struct Held {
    /// What came of it.
    bytes: Vec<u8>,
    scan: Scan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between messages, after this many bytes of CRLFCRLF.
    Between(u8),
    /// In a message.
    Message,
    /// After an error.
    Dead,
}

/// Bytes that are added to a held head at a time: the rest of the input stays where it is, so
/// that whole messages behind the held one are not copied.
const HOLD_STEP: usize = 1024;

/// Bytes that are set aside for what a Content-Length promises; the rest must come first.
const RESERVE_MAX: usize = 4096;

impl Framer {
    /// A framer at the beginning of a stream. Messages larger than `message_bytes_max`, or than
    /// [`MESSAGE_BYTES_MAX`], are refused.
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            held: None,
            message_bytes_max: message_bytes_max.min(MESSAGE_BYTES_MAX) as u16,
            state: State::Between(0),
        }
    }

    /// Feeds bytes just read; calls `each` for every whole frame, in order. Heads are read into `head`.
    ///
    /// A message that lies in `input` as a whole is borrowed from there. The frames are the same
    /// however the stream is cut into inputs. After [`Frame::Unframed`] nothing more comes, now or
    /// later. A CRLF that is not half of a ping is skipped: a pong, or a stray one (RFC 3261 §7.5).
    pub fn feed(&mut self, mut input: &[u8], head: &mut Head, mut each: impl FnMut(Frame<'_>)) {
        while let Some(&first) = input.first() {
            match self.state {
                State::Dead => return,
                State::Between(seen) => match (first, seen) {
                    (b'\r', 0 | 2) => {
                        self.state = State::Between(seen + 1);
                        input = &input[1..];
                    }
                    (b'\n', 1) => {
                        self.state = State::Between(2);
                        input = &input[1..];
                    }
                    (b'\n', 3) => {
                        self.state = State::Between(0);
                        input = &input[1..];
                        each(Frame::Ping);
                    }
                    (b'\n', _) => self.refuse(b"\n", FrameError::BareLineEnd, &mut each),
                    (_, 1 | 3) => self.refuse(b"\r", FrameError::BareLineEnd, &mut each),
                    _ => self.state = State::Message,
                },
                State::Message if self.held.is_none() => {
                    input = self.feed_borrowed(input, head, &mut each);
                }
                State::Message => input = self.feed_held(input, head, &mut each),
            }
        }
    }

    /// True when a message has begun and is not whole: the time for it runs.
    pub fn is_partial(&self) -> bool {
        self.state == State::Message
    }

    /// `input` begins with a message. Returns what follows it.
    fn feed_borrowed<'a>(
        &mut self,
        input: &'a [u8],
        head: &mut Head,
        each: &mut impl FnMut(Frame<'_>),
    ) -> &'a [u8] {
        let len = match head.scan(input) {
            Extent::Head(head_len) => {
                let body = head.content_length(input);
                whole(head_len, body, self.bytes_max()).map_err(|error| (error, head_len))
            }
            Extent::Part => {
                self.hold(input, None);
                return &[];
            }
            Extent::Refused { error, cut } => Err((error, cut)),
        };
        match len {
            Ok(len) => {
                if let Some((message, rest)) = input.split_at_checked(len) {
                    self.state = State::Between(0);
                    each(Frame::Message(View::new(message, head)));
                    return rest;
                }
                self.hold(input, Some(len));
            }
            Err((error, cut)) => self.refuse(input.get(..cut).unwrap_or(input), error, each),
        }
        &[]
    }

    /// Keeps the beginning of a message, which is to have `whole` bytes if that is known.
    fn hold(&mut self, input: &[u8], whole: Option<usize>) {
        let capacity = whole.map_or(input.len(), |len| len.min(input.len() + RESERVE_MAX));
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend_from_slice(input);
        self.held = Some(Box::new(Held { bytes, scan: Scan { whole, ..Scan::default() } }));
    }

    /// `input` goes on with the held message. Returns what follows it.
    fn feed_held<'a>(
        &mut self,
        input: &'a [u8],
        head: &mut Head,
        each: &mut impl FnMut(Frame<'_>),
    ) -> &'a [u8] {
        let Some(mut held) = self.held.take() else { return input };
        let Held { bytes, scan } = &mut *held;
        let wanted = match scan.whole {
            Some(len) => len.saturating_sub(bytes.len()),
            None => HOLD_STEP,
        };
        let (taken, rest) = input.split_at(wanted.min(input.len()));
        let held_before = bytes.len();
        bytes.extend_from_slice(taken);
        match scan.advance(bytes, self.bytes_max()) {
            Step::Whole { len } if len <= bytes.len() => {
                self.state = State::Between(0);
                let message = &bytes[..len];
                // What is wrong with it the view says.
                let _ = head.read(message);
                each(Frame::Message(View::new(message, head)));
                return input.get(len.saturating_sub(held_before)..).unwrap_or_default();
            }
            Step::Whole { len } => bytes.reserve_exact((len - bytes.len()).min(RESERVE_MAX)),
            Step::More => {}
            Step::Refused { error, cut } => {
                self.refuse(bytes.get(..cut).unwrap_or(bytes), error, each);
                return &[];
            }
        }
        self.held = Some(held);
        rest
    }

    fn bytes_max(&self) -> usize {
        self.message_bytes_max.into()
    }

    fn refuse(&mut self, bytes: &[u8], error: FrameError, each: &mut impl FnMut(Frame<'_>)) {
        self.state = State::Dead;
        each(Frame::Unframed { bytes, error });
    }
}

/// How far a message has been looked at.
#[derive(Debug, Default)]
struct Scan {
    lines: Lines,
    content_length: Option<Result<usize, FrameError>>,
    /// Bytes of the message, once its head is whole.
    whole: Option<usize>,
}

enum Step {
    More,
    Whole { len: usize },
    Refused { error: FrameError, cut: usize },
}

impl Scan {
    /// Looks at what is new in `bytes`, the message so far.
    fn advance(&mut self, bytes: &[u8], bytes_max: usize) -> Step {
        if let Some(len) = self.whole {
            return Step::Whole { len };
        }
        loop {
            match self.lines.next(bytes) {
                Event::More => return Step::More,
                Event::Line { start: 0, .. } => {}
                Event::Line { start, end } => self.note(&bytes[start..end]),
                Event::End { head } => {
                    let body = self.content_length.unwrap_or(Err(FrameError::NoContentLength));
                    let len = whole(head, body, bytes_max);
                    return match len {
                        Ok(len) => {
                            self.whole = Some(len);
                            Step::Whole { len }
                        }
                        Err(error) => Step::Refused { error, cut: head },
                    };
                }
                Event::Refused { error, cut } => return Step::Refused { error, cut },
            }
        }
    }

    /// Notes a Content-Length, if the line is one.
    fn note(&mut self, line: &[u8]) {
        let Some((Name::ContentLength, _, value)) = name::read(line, line.len()) else {
            return;
        };
        self.content_length = Some(match self.content_length {
            None => content_length(trim(&line[value..])),
            Some(_) => Err(FrameError::ConflictingContentLength),
        });
    }
}

/// Bytes of a message with such a head and such a body.
fn whole(
    head: usize,
    body: Result<usize, FrameError>,
    bytes_max: usize,
) -> Result<usize, FrameError> {
    let bytes = head + body?;
    if bytes > bytes_max {
        Err(FrameError::MessageTooLarge { bytes, bytes_max })
    } else {
        Ok(bytes)
    }
}

/// Reads the value of a Content-Length.
pub(super) fn content_length(value: &[u8]) -> Result<usize, FrameError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(FrameError::BadContentLength);
    }
    let content_length = number(value).unwrap_or(u64::MAX);
    match usize::try_from(content_length) {
        Ok(length) if length <= BODY_BYTES_MAX => Ok(length),
        Ok(_) | Err(_) => Err(FrameError::BodyTooLarge { content_length }),
    }
}
