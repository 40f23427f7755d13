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

    /// How long what was read now, and was not there at the look before the last one, may have waited.
    pub(crate) fn waited(&self, now: Instant) -> Duration {
        now.since(self.looked.get())
    }
}

/// Since when bytes may have waited in one socket; nothing while it was found empty.
#[derive(Debug, Default)]
pub(super) struct Backlog(Option<Box<Left>>);

/// There were more bytes than the last read took.
#[derive(Debug)]
struct Left {
    since: Instant,
    /// When what was in the socket was counted, and how much of that is not read yet.
    mark: Option<(Instant, u64)>,
}

impl Backlog {
    /// `count` bytes were read at `now`, and `left` says whether there may be more: how long they may have waited,
    /// at most. `queued` counts what is in the socket, and gives `None` where it is so full that more may wait in
    /// the peer; it is asked for only while the socket is never found empty.
    pub(super) fn read(
        &mut self,
        now: Instant,
        rounds: &Rounds,
        (count, left): (usize, bool),
        queued: impl FnOnce() -> Option<u64>,
    ) -> Duration {
        let since = self.0.as_ref().map_or(rounds.looked.get(), |before| before.since);
        let waited = now.since(since);
        if !left {
            self.0 = None;
            return waited;
        }
        let state = self.0.get_or_insert_with(|| Box::new(Left { since, mark: None }));
        let mark = state.mark.map(|(at, bytes)| (at, bytes.saturating_sub(count as u64)));
        match mark {
            Some((_, 1..)) => state.mark = mark,
            Some((at, 0)) => {
                // What is left now came after that.
                state.since = at;
                state.mark = queued().map(|bytes| (now, bytes));
            }
            None => state.mark = queued().map(|bytes| (now, bytes)),
        }
        waited
    }

    /// Nothing is read before `until`, whatever comes: that is no delay of the shard's.
    pub(super) fn hold_back(&mut self, until: Instant) {
        if let Some(left) = &mut self.0 {
            left.since = left.since.max(until);
            left.mark = None;
        }
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
            backlog.read(at(now), &rounds, (1000, left), || Some(1_000_000)).as_millis()
        };
        assert_eq!(waited(1000, 1001, false), 1);
        // Emptied in the same round, before it: a round at most is too much.
        assert_eq!(waited(1000, 1003, false), 3);
        assert_eq!(waited(5000, 5004, true), 4);
        assert_eq!(waited(5010, 5011, true), 11);
        assert_eq!(waited(5400, 5401, false), 401);
        assert_eq!(waited(5410, 5412, false), 2);
    }

    #[test]
    fn what_came_after_a_count_is_not_older_than_it() {
        let (rounds, mut backlog) = (Rounds::default(), Backlog::default());
        // Never empty, but never longer than three reads either.
        let mut waited =
            |now, queued| backlog.read(at(now), &rounds, (1000, true), || Some(queued)).as_millis();
        assert_eq!(waited(10, 3000), 10);
        assert_eq!([20, 30, 40].map(|now| waited(now, 3000)), [20, 30, 40], "counted at 10");
        assert_eq!(
            [50, 60, 70].map(|now| waited(now, 2500)),
            [40, 50, 60],
            "at 40, read up to here"
        );
        assert_eq!(waited(80, 2500), 40);
    }

    #[test]
    fn what_comes_while_the_socket_is_full_may_have_waited_in_the_peer() {
        let (rounds, mut backlog) = (Rounds::default(), Backlog::default());
        let mut waited =
            |now, queued| backlog.read(at(now), &rounds, (1000, true), || queued).as_millis();
        assert_eq!([10, 20, 30].map(|now| waited(now, None)), [10, 20, 30]);
        assert_eq!(waited(40, Some(500)), 40);
        assert_eq!([50, 60].map(|now| waited(now, Some(500))), [50, 20], "counted at 40");
    }

    #[test]
    fn a_flow_that_is_held_back_is_not_late() {
        let (rounds, mut backlog) = (Rounds::default(), Backlog::default());
        let read = |backlog: &mut Backlog, now, left| {
            backlog.read(at(now), &rounds, (1000, left), || Some(1_000_000)).as_millis()
        };
        read(&mut backlog, 1000, false);
        read(&mut backlog, 1000, true);
        backlog.hold_back(at(2000));
        assert_eq!(read(&mut backlog, 2003, true), 3);
    }
}
