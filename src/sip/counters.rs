//! What an endpoint has counted by kind since it began.

use std::time::Duration;

use super::message::{HeadError, Method};
use crate::cti;

/// Final statuses, 200 to 699.
const STATUSES: usize = 500;
/// [`STATUSES`], a timeout, and a failure of the transport.
const ENDS: usize = STATUSES + 2;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a final response of this status.
    Status(u16),
    /// Nothing came in time (timer B, F or C).
    TimedOut,
    /// The flow died or could not be opened.
    Failed,
}

/// Transactions that have ended, by method and end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transactions {
    counts: Box<[u64]>,
}

impl Default for Transactions {
    fn default() -> Self {
        Self { counts: vec![0; Method::ALL.len() * ENDS].into() }
    }
}

impl Transactions {
    pub(super) fn count(&mut self, method: Method, end: End) {
        let end = match end {
            End::Status(status) => usize::from(status.clamp(200, 699)) - 200,
            End::TimedOut => STATUSES,
            End::Failed => STATUSES + 1,
        };
        if let Some(count) = self.counts.get_mut(method as usize * ENDS + end) {
            *count += 1;
        }
    }

    /// All that is not zero.
    pub fn iter(&self) -> impl Iterator<Item = (Method, End, u64)> {
        Method::ALL.iter().zip(self.counts.chunks(ENDS)).flat_map(|(&method, counts)| {
            counts.iter().enumerate().filter(|(_, count)| **count > 0).map(move |(end, &count)| {
                let end = match end {
                    STATUSES => End::TimedOut,
                    status if status < STATUSES => End::Status(200 + status as u16),
                    _ => End::Failed,
                };
                (method, end, count)
            })
        })
    }
}

/// Upper bounds of the buckets of a [`Histogram`], in microseconds.
pub const BUCKETS: [u64; 14] = [
    500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// Durations by size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many fell into each of [`BUCKETS`] and not into the one before; the last one: above all.
    pub counts: [u64; BUCKETS.len() + 1],
    /// Their sum, in microseconds.
    pub sum: u64,
}

impl Histogram {
    pub(crate) fn count(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|bound| micros <= *bound).unwrap_or(BUCKETS.len());
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(micros);
    }
}

/// Recoveries of one cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recoveries {
    /// Begun: a re-INVITE had to wait.
    pub started: u64,
    /// Ended with an answer.
    pub succeeded: u64,
    /// Ended without, by [`cti::Outcome`].
    pub ended: [u64; cti::Outcome::ALL.len()],
}

/// What an endpoint has counted by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests of peers, by the answer they got; an ACK gets none.
    pub received: Transactions,
    /// Requests of ours, by the answer they got.
    pub sent: Transactions,
    /// By the cause of the first wait: [`cti::Cause::ALL`].
    pub recoveries: [Recoveries; cti::Cause::ALL.len()],
    /// Re-INVITEs sent again.
    pub attempts: u64,
    /// From the first failure of a re-INVITE to its answer, less the waits: what recovery cost
    /// beyond the delay that was asked for. Zero where it went faster than that.
    pub excess: Histogram,
    /// Messages refused or dropped because they are malformed: [`REFUSALS`].
    pub refused: [u64; REFUSALS.len()],
    /// INVITEs of new calls refused because there is too much to do: [`OVERLOADS`].
    pub overload: [u64; OVERLOADS.len()],
}

/// Why new calls are too many, as counters call it: `calls-per-second-max`, `queueing-delay-max`.
pub const OVERLOADS: [&str; 2] = ["rate", "queueing-delay"];

/// The same, in the order of [`OVERLOADS`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Overload {
    /// `calls-per-second-max`.
    Rate,
    /// `queueing-delay-max`.
    QueueingDelay,
}

/// Why messages are refused, as counters call it.
pub const REFUSALS: [&str; 8] = [
    "too-large",
    "framing",
    "start-line",
    "version",
    "header",
    "missing-header",
    "repeated-header",
    "body",
];

impl Counters {
    pub(super) fn refuse(&mut self, error: HeadError) {
        let reason = match error {
            HeadError::Frame(error) if error.status() != 400 => 0,
            HeadError::Frame(_) | HeadError::Unfinished => 1,
            HeadError::StartLine | HeadError::RequestUri | HeadError::Status(_) => 2,
            HeadError::Version => 3,
            HeadError::HeaderLine | HeadError::Value(_) | HeadError::CSeqMethod { .. } => 4,
            HeadError::Missing(_) => 5,
            HeadError::Repeated(_) => 6,
            HeadError::BodyTooShort { .. } => 7,
        };
        self.refused[reason] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_has_the_place_of_its_number() {
        for (place, &method) in Method::ALL.iter().enumerate() {
            assert_eq!(method as usize, place, "{method:?}");
        }
    }

    #[test]
    fn transactions_come_back_as_they_were_counted() {
        let mut transactions = Transactions::default();
        let ends = [End::Status(200), End::Status(699), End::TimedOut, End::Failed];
        for method in [Method::Invite, Method::Other] {
            for end in ends {
                transactions.count(method, end);
            }
        }
        let counted: Vec<_> = transactions.iter().collect();
        let expected = [Method::Invite, Method::Other]
            .into_iter()
            .flat_map(|method| ends.into_iter().map(move |end| (method, end, 1)));
        assert_eq!(counted, expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        for micros in [0, 500, 501, 10_000_000, 10_000_001] {
            histogram.count(Duration::from_micros(micros));
        }
        assert_eq!(histogram.counts[..2], [2, 1]);
        assert_eq!(histogram.counts[BUCKETS.len() - 1..], [1, 1]);
        assert_eq!(histogram.sum, 20_001_002);
    }
}
