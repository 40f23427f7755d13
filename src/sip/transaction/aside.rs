//! Targets that could not be reached lately (RFC 3263 §4.3): new requests try them last.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::target::Target;
use crate::time::Instant;

/// How long a target is tried last after it could not be reached.
pub const SET_ASIDE: Duration = Duration::from_secs(30);
/// Targets of a shard that are set aside; one more is tried in its turn.
pub const SET_ASIDE_MAX: usize = 4096;

/// The targets, each with the end of its time.
#[derive(Debug, Default)]
pub(in crate::sip) struct Aside {
    until: BTreeMap<Target, Instant>,
}

impl Aside {
    /// Sets a target aside from `now` on. O(log n), and O(n) while the table is full.
    pub(super) fn add(&mut self, target: Target, now: Instant) {
        if self.until.len() >= SET_ASIDE_MAX && !self.until.contains_key(&target) {
            self.until.retain(|_, until| *until > now);
            if self.until.len() >= SET_ASIDE_MAX {
                return;
            }
        }
        self.until.insert(target, now + SET_ASIDE);
    }

    /// A connection to it, or from it, is open.
    pub(in crate::sip) fn remove(&mut self, target: Target) {
        self.until.remove(&target);
    }

    pub(in crate::sip) fn contains(&self, target: Target, now: Instant) -> bool {
        self.until.get(&target).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(port: u16) -> Target {
        Target::tcp(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn a_target_is_set_aside_until_its_time_is_over_or_it_is_there() {
        let (mut aside, at) = (Aside::default(), Instant::from_millis);
        aside.add(target(1), at(0));
        aside.add(target(2), at(0));
        assert!(aside.contains(target(1), at(29_999)) && !aside.contains(target(3), at(0)));
        assert!(!aside.contains(target(1), at(30_000)));
        aside.add(target(1), at(20_000));
        assert!(aside.contains(target(1), at(49_999)), "it failed again");
        aside.remove(target(2));
        assert!(!aside.contains(target(2), at(1)));
    }

    #[test]
    fn a_full_table_forgets_what_is_over_and_takes_no_more() {
        let (mut aside, at) = (Aside::default(), Instant::from_millis);
        for port in 1..=SET_ASIDE_MAX as u16 {
            aside.add(target(port), at(u64::from(port)));
        }
        aside.add(target(10_000), at(5000));
        assert!(!aside.contains(target(10_000), at(5000)));
        aside.add(target(10_001), at(30_001));
        assert!(aside.contains(target(10_001), at(30_001)));
        assert_eq!(aside.until.len(), SET_ASIDE_MAX);
    }
}
