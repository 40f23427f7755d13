//! How long what is read may have waited for it: what a shard that has too much to do sees of it.
//!
//! What is in a socket came after it was last found empty, and what a shard hears of came after its last look at
//! its sockets. So a shard that is busy all the time but empties each socket in each round is not late, however
//! many calls its peers have in flight.

use std::cell::Cell;
use std::time::Duration;

use crate::time::Instant;

/// When a shard last looked at its sockets.
#[derive(Default)]
pub(crate) struct Rounds {
    /// What was ready in this round came after that.
    looked: Cell<Instant>,
}

impl Rounds {
    /// To be called whenever a task begins to run: in the first call of a round what became ready in it was not
    /// there before the one before it.
    pub(crate) fn look(&self, now: impl FnOnce() -> Instant) {
        // Since it was last asked, and without the time in which the executor had nothing to do.
        let ran = glommio::executor().executor_stats().total_runtime();
        if !ran.is_zero() {
            self.looked.set(now().before(ran));
        }
    }
}

/// Since when bytes may have waited in one socket.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    since: Instant,
    /// True when there were more bytes than the last read took.
    left: bool,
}

impl Backlog {
    /// Something was read at `now`, and `left` says whether there may be more: how long it may have waited, at
    /// most.
    pub(super) fn read(&mut self, now: Instant, rounds: &Rounds, left: bool) -> Duration {
        if !self.left {
            self.since = self.since.max(rounds.looked.get());
        }
        let waited = now.since(self.since);
        self.left = left;
        if !left {
            self.since = now;
        }
        waited
    }

    /// Nothing is read before `until`, whatever comes: that is no delay of the shard's.
    pub(super) fn hold_back(&mut self, until: Instant) {
        self.since = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn what_is_left_in_a_socket_grows_old_and_what_came_to_an_empty_one_does_not() {
        let (rounds, mut backlog) = (Rounds::default(), Backlog::default());
        let mut waited = |looked, now, left| {
            rounds.looked.set(at(looked));
            backlog.read(at(now), &rounds, left).as_millis()
        };
        assert_eq!(waited(1000, 1001, false), 1);
        // Emptied in the same round, before it.
        assert_eq!(waited(1000, 1003, false), 2);
        assert_eq!(waited(5000, 5004, true), 4);
        assert_eq!(waited(5010, 5011, true), 11);
        assert_eq!(waited(5400, 5401, false), 401);
        assert_eq!(waited(5410, 5412, false), 2);
    }

    #[test]
    fn a_flow_that_is_held_back_is_not_late() {
        let (rounds, mut backlog) = (Rounds::default(), Backlog::default());
        rounds.looked.set(at(1000));
        assert_eq!(backlog.read(at(1000), &rounds, true), Duration::ZERO);
        backlog.hold_back(at(2000));
        assert_eq!(backlog.read(at(2003), &rounds, true), Duration::from_millis(3));
    }
}
