//! What the workers tell while they run, put together; and JSON lines of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::recorder::Progress;
use super::result::Calls;
use super::series::Interval;

/// Adds up the workers' intervals. An interval is whole when every worker has told of it.
#[derive(Debug)]
pub(crate) struct Gather {
    workers: Vec<Told>,
    /// By start; those that are not whole yet.
    pending: BTreeMap<Duration, Interval>,
}

/// What one worker told last.
#[derive(Clone, Debug, Default)]
struct Told {
    /// Its intervals are known up to here.
    until: Duration,
    calls: Calls,
    endangered: u64,
    safe: u64,
    in_flight: u64,
}

/// A whole interval of the run: one JSON line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Line {
    pub(crate) schema: &'static str,
    /// `interval`; the final object has no such member.
    pub(crate) kind: &'static str,
    /// Start of the interval since the start of the run.
    pub(crate) at_ms: u64,
    pub(crate) interval_ms: u64,
    pub(crate) interval: Interval,
    /// Counts since the start of the run.
    pub(crate) calls: Calls,
    pub(crate) in_flight: u64,
    pub(crate) endangered: u64,
    pub(crate) safe: u64,
}

impl Gather {
    pub(crate) fn new(workers: usize) -> Self {
        Self { workers: vec![Told::default(); workers.max(1)], pending: BTreeMap::new() }
    }

    /// Takes what `worker` tells; gives the intervals that are whole now, oldest first.
    pub(crate) fn news(&mut self, worker: usize, progress: Progress) -> Vec<Line> {
        let Some(told) = self.workers.get_mut(worker) else { return Vec::new() };
        let length = progress.interval;
        if let Some((start, _)) = progress.intervals.last() {
            told.until = start.saturating_add(length);
        }
        (told.calls, told.in_flight) = (progress.calls, progress.in_flight);
        (told.endangered, told.safe) = (progress.endangered, progress.safe);
        for (start, interval) in progress.intervals {
            self.pending.entry(start).or_default().merge(&interval);
        }
        self.whole(length)
    }

    /// `worker` tells nothing more: its last intervals are whole without it.
    pub(crate) fn ended(&mut self, worker: usize, interval: Duration) -> Vec<Line> {
        if let Some(told) = self.workers.get_mut(worker) {
            told.until = Duration::MAX;
        }
        self.whole(interval)
    }

    fn whole(&mut self, length: Duration) -> Vec<Line> {
        let until = self.workers.iter().map(|told| told.until).min().unwrap_or_default();
        let rest = self.pending.split_off(&until);
        let whole = std::mem::replace(&mut self.pending, rest);
        let lines = whole.into_iter().map(|(at, interval)| self.line(at, length, interval));
        lines.collect()
    }

    fn line(&self, at: Duration, length: Duration, interval: Interval) -> Line {
        let mut calls = Calls::default();
        for told in &self.workers {
            calls.merge(&told.calls);
        }
        let sum = |of: fn(&Told) -> u64| self.workers.iter().map(of).sum();
        Line {
            schema: super::SCHEMA,
            kind: "interval",
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            interval_ms: u64::try_from(length.as_millis()).unwrap_or(u64::MAX),
            in_flight: sum(|told| told.in_flight),
            endangered: sum(|told| told.endangered),
            safe: sum(|told| told.safe),
            interval,
            calls,
        }
    }
}

impl Line {
    pub(crate) fn to_json_line(&self) -> String {
        // Maps have string keys and numbers are finite: nothing in it can fail.
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }
}
