//! What happened in each interval of a run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::timing::Timing;

/// The intervals of a run, one behind the other from its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) interval_ms: u64,
    pub(crate) intervals: Vec<Interval>,
}

/// More intervals than this are halved in number, each twice as long: a run may last for days.
pub(crate) const INTERVALS_MAX: usize = 3600;

/// One interval. Counts of workers add up; `in_flight` and `backlog` too, `busy` is the busiest's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Interval {
    /// Calls whose intended instant is in the interval.
    pub(crate) intended: u64,
    /// Calls that were started.
    pub(crate) started: u64,
    /// Calls that ended, well or not.
    pub(crate) done: u64,
    pub(crate) failed: u64,
    /// Calls that were not over at the end of the interval.
    pub(crate) in_flight: u64,
    pub(crate) connects: u64,
    /// Calls whose connection was struck.
    pub(crate) endangered: u64,
    /// Calls that were in danger and were answered.
    pub(crate) recovered: u64,
    /// Arrivals that were due and not yet started: the most of the interval.
    pub(crate) backlog: u64,
    pub(crate) missed_slots: u64,
    /// CPU time of the generator's workers.
    pub(crate) cpu_ms: f64,
    /// Share of its core that the busiest worker used, 0 to 1.
    pub(crate) busy: f64,
    /// Responses of all names, from the intended instant.
    pub(crate) response: Packed,
}

/// A [`Timing`] that takes as little memory as its samples need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "PackedJson", try_from = "PackedJson")]
pub(crate) struct Packed {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// HdrHistogram V2; nothing without samples.
    v2: Vec<u8>,
}

/// `hdr` as in [`Timing`], empty without samples.
#[derive(Serialize, Deserialize)]
struct PackedJson {
    count: u64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    hdr: String,
}

impl Series {
    pub(crate) fn new(interval: Duration) -> Self {
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { interval_ms, intervals: Vec::new() }
    }

    pub(crate) fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }

    /// The number of the interval that `at` is in.
    pub(crate) fn index(&self, at: Duration) -> usize {
        let ms = at.as_secs().saturating_mul(1000).saturating_add(at.subsec_millis().into());
        usize::try_from(ms / self.interval_ms.max(1)).unwrap_or(usize::MAX)
    }

    /// The interval that `at` is in; made, with all before it, when it is not there yet.
    pub(crate) fn at(&mut self, at: Duration) -> &mut Interval {
        while self.index(at) >= INTERVALS_MAX {
            self.coarsen();
        }
        let index = self.index(at);
        if index >= self.intervals.len() {
            self.intervals.resize_with(index + 1, Interval::default);
        }
        &mut self.intervals[index]
    }

    /// This series in at most `most` intervals.
    pub(crate) fn at_most(&self, most: usize) -> Self {
        let mut series = self.clone();
        while series.intervals.len() > most.max(1) {
            series.coarsen();
        }
        series
    }

    /// Makes one interval of each two.
    fn coarsen(&mut self) {
        self.interval_ms = self.interval_ms.saturating_mul(2);
        let mut old = std::mem::take(&mut self.intervals).into_iter();
        while let Some(mut first) = old.next() {
            if let Some(second) = old.next() {
                first.follow(&second);
            }
            self.intervals.push(first);
        }
    }

    /// Adds another worker's series.
    pub(crate) fn merge(&mut self, mut other: Self) {
        while self.interval_ms < other.interval_ms {
            self.coarsen();
        }
        while other.interval_ms < self.interval_ms {
            other.coarsen();
        }
        if self.intervals.len() < other.intervals.len() {
            self.intervals.resize_with(other.intervals.len(), Interval::default);
        }
        for (mine, others) in self.intervals.iter_mut().zip(&other.intervals) {
            mine.merge(others);
        }
    }
}

impl Interval {
    /// Adds the same interval of another worker.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.add(other);
        self.in_flight = self.in_flight.saturating_add(other.in_flight);
        self.backlog = self.backlog.saturating_add(other.backlog);
        self.busy = self.busy.max(other.busy);
    }

    /// Takes the next interval of the same worker into this one.
    fn follow(&mut self, next: &Self) {
        self.add(next);
        self.in_flight = next.in_flight;
        self.backlog = self.backlog.max(next.backlog);
        self.busy = f64::midpoint(self.busy, next.busy);
    }

    fn add(&mut self, other: &Self) {
        self.intended = self.intended.saturating_add(other.intended);
        self.started = self.started.saturating_add(other.started);
        self.done = self.done.saturating_add(other.done);
        self.failed = self.failed.saturating_add(other.failed);
        self.connects = self.connects.saturating_add(other.connects);
        self.endangered = self.endangered.saturating_add(other.endangered);
        self.recovered = self.recovered.saturating_add(other.recovered);
        self.missed_slots = self.missed_slots.saturating_add(other.missed_slots);
        self.cpu_ms += other.cpu_ms;
        self.response.merge(&other.response);
    }
}

impl Packed {
    pub(crate) fn of(timing: &Timing) -> Self {
        if timing.is_empty() {
            return Self::default();
        }
        Self {
            count: timing.count(),
            p50_ms: timing.quantile_ms(0.5),
            p90_ms: timing.quantile_ms(0.9),
            p99_ms: timing.quantile_ms(0.99),
            max_ms: timing.max_ms(),
            v2: timing.to_v2(),
        }
    }

    /// The whole histogram.
    pub(crate) fn timing(&self) -> Timing {
        // Only bytes that were read before are kept, or none.
        Timing::from_v2(&self.v2).unwrap_or_default()
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = other.clone();
            return;
        }
        let mut sum = self.timing();
        sum.merge(&other.timing());
        *self = Self::of(&sum);
    }
}

impl From<Packed> for PackedJson {
    fn from(packed: Packed) -> Self {
        let Packed { count, p50_ms, p90_ms, p99_ms, max_ms, .. } = packed;
        let hdr = if count == 0 { String::new() } else { packed.timing().to_base64() };
        Self { count, p50_ms, p90_ms, p99_ms, max_ms, hdr }
    }
}

impl TryFrom<PackedJson> for Packed {
    type Error = String;

    fn try_from(json: PackedJson) -> Result<Self, String> {
        match json.hdr.as_str() {
            "" => Ok(Self::default()),
            hdr => Timing::from_base64(hdr).map(|timing| Self::of(&timing)),
        }
    }
}
