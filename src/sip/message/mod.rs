//! SIP messages as bytes: framing, a table of offsets, borrowed views, a small writer.
//!
//! ```text
//! stream ─► Framer ──────────────► Message(View) ─► method, via, from, to, cseq, …
//!             │                      └► home: which shard, without a table
//!             └► Ping, Unframed
//! datagram, or bytes from another shard ─► Head::read ─► View
//! ```
//!
//! Where a message comes in one piece the framer reads its head, and nothing walks over its lines again.
//! [`Framer`], [`Head`] and [`home`] walk over the lines of a head with one and the same scanner, so
//! they cannot disagree on where a header begins or ends: what one of them takes for a header is a
//! header for all. A line ends with CRLF; a CR or an LF by itself is refused, because the next
//! reader down the path may take it for a line end (`Max<CR>Forwards`).
//!
//! No byte that arrives makes any of this panic, and no message allocates once the buffers have
//! grown: a [`Head`] is reused, a [`View`] borrows, a writer appends to its caller's vector.

mod addr;
mod check;
mod datagram;
mod frame;
mod head;
mod home;
mod lex;
mod lines;
mod method;
mod name;
mod uri;
mod via;
mod view;
mod word;
pub mod write;

pub use addr::NameAddr;
pub use check::Essentials;
pub use datagram::datagram;
pub use frame::{Frame, FrameError, Framer};
pub use head::{Head, HeadError};
pub use home::home;
pub use lex::Values;
pub use method::Method;
pub use name::Name;
pub use uri::{Uri, is_secure};
pub use via::{MAGIC_COOKIE, Via};
pub use view::{Header, View};

/// What asks a peer whether it is there; it answers with half of it (RFC 5626 §3.5.1).
pub const PING: &[u8] = b"\r\n\r\n";

/// Bytes of a head, from the start line to the empty line. A longer one is refused with 513.
///
/// Together with [`BODY_BYTES_MAX`] this keeps every offset of a message in 16 bits.
pub const HEAD_BYTES_MAX: usize = 16 << 10;

/// Bytes of a start line. A longer one is refused with 414.
pub const START_LINE_BYTES_MAX: usize = 4 << 10;

/// Bytes of one header with its folds. A longer one is refused with 513: the largest ones that
/// are seen in earnest, signed identities, stay below 4 KiB.
pub const HEADER_BYTES_MAX: usize = 8 << 10;

/// Headers of one message. More are refused with 513.
pub const HEADERS_MAX: usize = 128;

/// Bytes of a body. A longer one is refused with 513.
pub const BODY_BYTES_MAX: usize = 48 << 10;

/// Bytes of a message, whatever the options say: offsets have 16 bits.
pub const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;
