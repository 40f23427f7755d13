//! How many calls may begin: in a second, by a bucket that leaks, a tenth of a second deep; and while what is read
//! has waited too long, none.
//!
//! What is too much is refused before anything is made of it, so that it costs the calls that
//! stand next to nothing.

use std::time::Duration;

use crate::bucket::Bucket;
use crate::time::Instant;

/// So much later than they might a second's calls may come all at once.
const DEPTH: Duration = Duration::from_millis(100);

/// The bucket of a shard.
#[derive(Debug, Default)]
pub(super) struct Admission(Bucket);

impl Admission {
    /// True when one more call may begin at `now`, where `per_second` may; it is counted then. 0: as many as come.
    pub(super) fn admits(&mut self, now: Instant, per_second: u32) -> bool {
        if per_second == 0 {
            self.0 = Bucket::default();
            return true;
        }
        let admits = self.0.level(now) <= DEPTH;
        if admits {
            self.0.fill(now, Duration::from_secs(1) / per_second);
        }
        admits
    }
}

/// So long after the last late call the next one begins another backlog.
const CALM: Duration = Duration::from_secs(1);

/// Whether new calls that come late are a backlog that does not go away: one that the shard works off soon, as after
/// a stall of the machine, is no reason to refuse any (RFC 8289 §3.2 has the idea).
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// When the first and the last late call of it came; `None` before there was one.
    late: Option<(Instant, Instant)>,
}

impl Backlog {
    /// True when a call that comes at `now`, and has waited longer than `max`, is one too many.
    pub(super) fn is_standing(&mut self, now: Instant, max: Duration) -> bool {
        let since = match self.late {
            Some((since, last)) if now.since(last) < CALM => since,
            Some(_) | None => now,
        };
        self.late = Some((since, now));
        now.since(since) >= max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_stands_when_it_is_not_worked_off_in_time() {
        let mut backlog = Backlog::default();
        let max = Duration::from_millis(200);
        let mut stands = |millis| backlog.is_standing(Instant::from_millis(millis), max);
        assert_eq!([5000, 5199, 5200, 6199].map(&mut stands), [false, false, true, true]);
        assert_eq!([7199, 7398, 7399].map(&mut stands), [false, false, true], "another one");
    }

    fn admitted(admission: &mut Admission, millis: std::ops::Range<u64>, per_second: u32) -> usize {
        // Ten calls in each millisecond.
        let times = millis.flat_map(|at| [Instant::from_millis(at); 10]);
        times.filter(|&now| admission.admits(now, per_second)).count()
    }

    #[test]
    fn of_ten_times_as_many_calls_the_limit_is_admitted_in_each_second() {
        let mut admission = Admission::default();
        assert_eq!(admitted(&mut admission, 0..1000, 1000), 1100);
        assert_eq!(admitted(&mut admission, 1000..2000, 1000), 1000);
        assert_eq!(admitted(&mut admission, 60_000..60_001, 1000), 10, "a pause is no credit");
    }

    #[test]
    fn few_calls_a_second_come_one_at_a_time() {
        let mut admission = Admission::default();
        assert_eq!(admitted(&mut admission, 0..10_000, 1), 11, "each a tenth of a second early");
        assert_eq!(admitted(&mut admission, 10_000..10_001, 0), 10, "no limit");
    }
}
