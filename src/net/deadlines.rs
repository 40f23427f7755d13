//! When flows must have made progress, in coarse buckets.

use std::collections::BTreeMap;
use std::time::Duration;

use super::TaskKey;
use crate::time::Instant;

/// Width of a bucket: how late a deadline may be noticed.
const BUCKET: Duration = Duration::from_millis(250);

/// Keys of flows by the time to look at them, rounded up to [`BUCKET`]; never early.
///
/// An entry is not removed when its flow ends: it finds nothing when its time comes, and holds
/// eight bytes until then.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    buckets: BTreeMap<u64, Vec<TaskKey>>,
}

impl Deadlines {
    /// Looks at `key` at `at`.
    pub(super) fn insert(&mut self, at: Instant, key: TaskKey) {
        let bucket = at.as_micros().div_ceil(BUCKET.as_micros() as u64);
        self.buckets.entry(bucket).or_default().push(key);
    }

    /// The next time to look, if there is anything to watch.
    pub(super) fn next(&self) -> Option<Instant> {
        self.buckets.keys().next().map(|bucket| at(*bucket))
    }

    /// One key whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<TaskKey> {
        let mut first = self.buckets.first_entry().filter(|entry| at(*entry.key()) <= now)?;
        let key = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        key
    }
}

fn at(bucket: u64) -> Instant {
    Instant::from_micros(bucket.saturating_mul(BUCKET.as_micros() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn key(index: u32) -> TaskKey {
        TaskKey(Key { index, generation: 1 })
    }

    #[test]
    fn a_deadline_is_noticed_at_most_a_bucket_late_and_never_early() {
        let mut deadlines = Deadlines::default();
        deadlines.insert(Instant::from_millis(1001), key(1));
        assert_eq!(deadlines.next(), Some(Instant::from_millis(1250)));
        assert_eq!(deadlines.pop(Instant::from_millis(1249)), None);
        assert_eq!(deadlines.pop(Instant::from_millis(1250)), Some(key(1)));
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn earlier_buckets_come_first() {
        let mut deadlines = Deadlines::default();
        deadlines.insert(Instant::from_millis(9000), key(2));
        deadlines.insert(Instant::from_millis(500), key(1));
        assert_eq!(deadlines.pop(Instant::from_millis(10_000)), Some(key(1)));
        assert_eq!(deadlines.pop(Instant::from_millis(10_000)), Some(key(2)));
        assert_eq!(deadlines.pop(Instant::from_millis(10_000)), None);
    }
}
