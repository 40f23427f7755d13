//! The one clock and the one source of entropy of a shard.

use std::io;
use std::time::Instant as SystemInstant;

use crate::time::Instant;

/// Time since the shard began; monotonic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began: SystemInstant,
}

impl Clock {
    /// Begins now.
    pub(super) fn start() -> Self {
        Self { began: SystemInstant::now() }
    }

    /// Reads the clock.
    pub(super) fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// 32 bytes from the kernel: all that the shard's generator ever gets (RFC 3261 §19.3 wants tags
/// that nobody outside can guess).
///
/// # Errors
/// The kernel gives none.
pub(super) fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| io::Error::other(format!("no entropy from the kernel: {error}")))?;
    Ok(seed)
}
