//! When agents want to be woken: one instant each, the last one set counts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::agent::Id;

/// Wakes that agents asked for. A wake that was replaced stays in the heap and is skipped by its stamp.
#[derive(Debug)]
pub(crate) struct Timers {
    base: Instant,
    heap: BinaryHeap<Reverse<(u64, Id, u32)>>,
}

impl Timers {
    pub(crate) fn new(base: Instant) -> Self {
        Self { base, heap: BinaryHeap::new() }
    }

    /// Asks for a wake at `at`; `stamp` is what the agent compares when it comes.
    pub(crate) fn set(&mut self, at: Instant, id: Id, stamp: u32) {
        let micros = at.saturating_duration_since(self.base).as_micros() as u64;
        self.heap.push(Reverse((micros, id, stamp)));
    }

    /// The next wake that is due: who, its stamp, and the instant that was asked for.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(Id, u32, Instant)> {
        let micros = now.saturating_duration_since(self.base).as_micros() as u64;
        let Reverse((at, id, stamp)) = *self.heap.peek()?;
        if at > micros {
            return None;
        }
        self.heap.pop();
        Some((id, stamp, self.base + Duration::from_micros(at)))
    }

    /// The instant of the next wake, replaced ones included.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| self.base + Duration::from_micros(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::agent::Side;

    #[test]
    fn wakes_come_in_order_of_time_and_not_before() {
        #[allow(clippy::disallowed_methods, reason = "a base to count from")]
        let base = Instant::now();
        let mut timers = Timers::new(base);
        let id = |index| Id { side: Side::Caller, index };
        let at = |ms| base + Duration::from_millis(ms);
        timers.set(at(20), id(2), 7);
        timers.set(at(10), id(1), 3);
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.due(at(9)), None);
        assert_eq!(timers.due(at(30)), Some((id(1), 3, at(10))));
        assert_eq!(timers.due(at(30)), Some((id(2), 7, at(20))));
        assert_eq!(timers.due(at(30)), None);
    }
}
