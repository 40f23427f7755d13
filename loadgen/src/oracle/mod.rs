//! What must hold, whatever the speed: the rules of each dialog, and the server's own events.
//!
//! A [`Dialog`] watches one end of a call: every message that the end reads or sends goes through
//! it. It keeps numbers and digests, no bytes, and allocates nothing unless a rule is broken.
//! [`events`] compares what the server says in its event file with what its peers saw.
//!
//! A rule is about what the server did. What the generator sends is noted, not judged, but for the
//! route set.

mod dialog;
pub(crate) mod digest;
pub(crate) mod events;
mod requests;
mod responses;
mod rule;
#[cfg(test)]
mod tests;
mod violations;

pub(crate) use dialog::{Dialog, Seen};
pub(crate) use events::{Between, SeenCalls};
pub(crate) use rule::Rule;
pub(crate) use violations::Violations;

/// Bytes of one [`Dialog`]: there are two for each call, and a million calls.
pub(crate) const DIALOG_BYTES_MAX: usize = 96;
/// Examples kept of each rule.
pub(crate) const EXAMPLES_MAX: usize = 5;
/// Characters of a value in an example.
pub(crate) const VALUE_CHARS_MAX: usize = 160;
