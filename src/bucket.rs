//! A bucket that leaks: how much came lately, where so much a second may come.

use std::time::Duration;

use crate::time::Instant;

/// Filled by what comes, in the time that it takes to leak out again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    /// When it will have leaked empty.
    empty: Instant,
}

impl Bucket {
    /// How long it leaks from `now` on; zero when it is empty.
    pub(crate) fn level(&self, now: Instant) -> Duration {
        self.empty.since(now)
    }

    /// Adds what takes `amount` to leak out.
    pub(crate) fn fill(&mut self, now: Instant, amount: Duration) {
        self.empty = self.empty.max(now) + amount;
    }
}
