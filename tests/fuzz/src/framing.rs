//! A stream in pieces gives the frames that it gives in one piece.
//!
//! ```text
//! input = limit, 4 sizes of pieces, stream
//! ```

use holdfast::sip::message::{Frame, FrameError, Framer, Head, View};

use super::bytes::Bytes;

/// The limits of a message that a framer is made with.
const LIMITS: [usize; 4] = [65_535, 1 << 20, 512, 0];

/// Streams up to this are also fed byte by byte.
const SINGLE_BYTES_MAX: usize = 4096;

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Message(Vec<u8>),
    Ping,
    Unframed(Vec<u8>, FrameError),
}

/// Frames the stream in `input` in several ways.
pub fn run(input: &[u8]) {
    let mut input = Bytes::new(input);
    let limit = input.pick(&LIMITS);
    let sizes = [input.byte(), input.byte(), input.byte(), input.byte()].map(usize::from);
    let stream = input.rest();
    let whole = frames(limit, stream, &[usize::MAX]);
    check(limit, stream, &whole.0);
    assert_eq!(frames(limit, stream, &sizes), whole, "in pieces of {sizes:?}");
    if stream.len() <= SINGLE_BYTES_MAX {
        assert_eq!(frames(limit, stream, &[1]), whole, "byte by byte");
    }
}

/// The frames, and whether a message was begun at the end; pieces of 0 bytes are fed as well, but
/// never two in a row.
fn frames(limit: usize, stream: &[u8], sizes: &[usize]) -> (Vec<Seen>, bool) {
    let mut framer = Framer::new(limit);
    let mut head = Head::new();
    let mut seen = Vec::new();
    let mut rest = stream;
    let mut turn = 0;
    while !rest.is_empty() {
        let mut size = sizes[turn % sizes.len()];
        if size == 0 {
            framer.feed(&[], &mut head, |_| panic!("a frame out of nothing"));
            size = 1;
        }
        let (piece, after) = rest.split_at(size.min(rest.len()));
        framer.feed(piece, &mut head, |frame| {
            seen.push(match frame {
                Frame::Message(message) => {
                    check_read(message);
                    Seen::Message(message.bytes().to_vec())
                }
                Frame::Ping => Seen::Ping,
                Frame::Unframed { bytes, error } => Seen::Unframed(bytes.to_vec(), error),
            });
        });
        rest = after;
        turn += 1;
    }
    (seen, framer.is_partial())
}

/// What the framer read of a head is what is read of the message alone.
fn check_read(message: View<'_>) {
    let mut head = Head::new();
    // What is wrong with it both views say.
    let _ = head.read(message.bytes());
    let read = View::new(message.bytes(), &head);
    assert_eq!(message.check(), read.check());
    assert!(message.headers().eq(read.headers()));
    assert_eq!(message.body(), read.body());
}

/// Messages are pieces of the stream in its order, none is too long, nothing follows an error.
fn check(limit: usize, stream: &[u8], frames: &[Seen]) {
    let mut rest = stream;
    let mut is_dead = false;
    for frame in frames {
        assert!(!is_dead, "a frame after an error");
        match frame {
            Seen::Message(bytes) => {
                assert!(bytes.len() <= limit, "{} bytes of {limit}", bytes.len());
                // Between messages are only line ends.
                while let Some(after) = rest.strip_prefix(b"\r\n") {
                    rest = after;
                }
                rest = rest.strip_prefix(&bytes[..]).expect("a message is a piece of the stream");
            }
            Seen::Ping => {}
            Seen::Unframed(_, error) => {
                assert!(matches!(error.status(), 400 | 414 | 513), "{error}");
                is_dead = true;
            }
        }
    }
}
