//! Counts of what became of connections, for the report.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

/// Time that one slot of [`Tally::connects`] stands for.
pub(crate) const SLOT: Duration = Duration::from_millis(100);
/// Slots kept: a day. What comes later counts in the last.
const SLOTS_MAX: usize = 864_000;

/// What became of connections since the wire was made.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    began: Instant,
    /// Connections that came about in each [`SLOT`], accepted ones included; TLS done.
    pub(crate) connects: Vec<u32>,
    /// Those of them that a peer opened.
    pub(crate) accepted: u64,
    /// Connects of ours that failed, by reason.
    pub(crate) failed: BTreeMap<io::ErrorKind, u64>,
    /// Accepted connections that ended before their handshake did, those of stalled doors not
    /// included.
    pub(crate) handshakes_failed: u64,
    /// Datagrams of senders beyond the limit, or that hold no whole message.
    pub(crate) datagrams_ignored: u64,
}

impl Tally {
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began,
            connects: Vec::new(),
            accepted: 0,
            failed: BTreeMap::new(),
            handshakes_failed: 0,
            datagrams_ignored: 0,
        }
    }

    pub(super) fn opened(&mut self, accepted: bool, now: Instant) {
        let slot = now.saturating_duration_since(self.began).as_millis() / SLOT.as_millis();
        let slot = usize::try_from(slot).unwrap_or(usize::MAX).min(SLOTS_MAX - 1);
        if self.connects.len() <= slot {
            self.connects.resize(slot + 1, 0);
        }
        self.connects[slot] += 1;
        self.accepted += u64::from(accepted);
    }

    pub(super) fn failed(&mut self, error: &io::Error) {
        *self.failed.entry(error.kind()).or_default() += 1;
    }

    /// The most connections that came about in one second, any ten slots in a row.
    pub(crate) fn peak_per_second(&self) -> u32 {
        let width = (Duration::from_secs(1).as_millis() / SLOT.as_millis()) as usize;
        let whole = self.connects.windows(width).map(|slots| slots.iter().sum()).max();
        whole.unwrap_or_else(|| self.connects.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connects_fall_into_their_slots_and_the_peak_is_of_any_second() {
        let began = Instant::now();
        let mut tally = Tally::new(began);
        assert_eq!(tally.peak_per_second(), 0);
        for (millis, count) in [(0, 1), (950, 3), (1099, 2), (2950, 4)] {
            for _ in 0..count {
                tally.opened(false, began + Duration::from_millis(millis));
            }
        }
        assert_eq!((tally.connects[0], tally.connects[9], tally.connects[10]), (1, 3, 2));
        // The first second has 4, the one from 0.1 s on has 5.
        assert_eq!(tally.peak_per_second(), 5);
        tally.opened(true, began + Duration::from_secs(1_000_000));
        assert_eq!((tally.connects.len(), tally.accepted), (SLOTS_MAX, 1));
    }
}
