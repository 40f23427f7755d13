//! When things happen: everything that a run decides before it begins, out of a text and a seed.
//!
//! ```text
//! Profile  "ramp 100/s to 2000/s over 60s"            ─► Arrivals  the instants of calls
//! Fault    "at 10s reset on 50% of callees, over 2s"  ─► Strikes   who suffers what, from when to when
//! Knee     the highest rate whose goals hold          ─► one rate after the other
//! ```
//!
//! Nothing here reads a clock. The same seed gives the same plan; each purpose draws from a stream
//! of its own, so that one more fault shifts no arrival.

mod arrivals;
mod fault;
mod knee;
mod profile;
mod random;
mod strikes;
#[cfg(test)]
mod tests;
mod words;

pub(crate) use crate::net::Side;
pub(crate) use arrivals::Spacing;
pub(crate) use fault::{Fault, Share, What};
#[cfg(test)]
pub(crate) use knee::Found;
pub(crate) use knee::Knee;
pub(crate) use profile::{Load, Profile, Sweep};
pub(crate) use random::{Purpose, Random};
pub(crate) use strikes::{Strike, strikes};

use std::time::Duration;

/// Calls a second that a profile may ask for.
pub(crate) const RATE_MAX: f64 = 1_000_000.0;
/// A profile or a fault lasts no longer: seven days.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Parts that `then` joins in one profile.
pub(crate) const SEGMENTS_MAX: usize = 100;
/// Stretches of one slope that a profile is made of, the steps of `step` included.
pub(crate) const PIECES_MAX: usize = 10_000;
/// Calls that a closed loop may keep in flight.
pub(crate) const IN_FLIGHT_MAX: u32 = 1_000_000;
/// How often a flapping fault comes back.
pub(crate) const TIMES_MAX: u32 = 100_000;
/// Faults of one run.
pub(crate) const FAULTS_MAX: usize = 1000;
/// Strikes of one run.
pub(crate) const STRIKES_MAX: usize = 1_000_000;
/// Rates that one search for the knee tries.
pub(crate) const TRIES_MAX: usize = 64;
