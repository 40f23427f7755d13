//! What the benches share: an endpoint that is driven from a record, peers that fill such a record, the work that
//! is measured, and the figures that are committed.
//!
//! ```text
//!  recording:  peers ◄──► endpoint       every input is written down, with its time
//!  measuring:  record ──► endpoint       the same inputs again: no peer runs, none is measured
//! ```
//!
//! An endpoint that begins with the same seed does the same, so the record fits each new one.

pub(crate) mod clock;
pub(crate) mod exchange;
pub(crate) mod figures;
pub(crate) mod messages;
pub(crate) mod server;
pub(crate) mod workload;
