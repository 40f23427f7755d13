//! What the fuzz targets do with an input: panic when a promise is broken.
//!
//! ```text
//! bytes ─┬─► framing::run    a stream, cut into pieces: the same frames as in one piece
//!        ├─► proxy_protocol::run  what comes before a stream, in pieces
//!        ├─► reader::run     a message: written again from what was read, it reads the same
//!        └─► endpoint::run   a program of inputs with times for a whole endpoint
//! ```
//!
//! `tests/corpus.rs` includes this file: the seeds run with every `cargo test`.

pub mod endpoint;
pub mod framing;
pub mod proxy_protocol;
pub mod reader;
pub mod seeds;

mod bytes;
mod mutate;
mod template;
