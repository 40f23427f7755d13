//! What a worker's engine writes down while it runs.
//!
//! A sample costs a few additions and no allocation; memory grows with names and intervals only.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::goal::Goal;
use super::manifest::Manifest;
use super::recovery::{Fate, Recovery, RecoverySample};
use super::result::{Calls, Generator, Outcome, ResponseTime, ServerUse, Verdict, Violations};
use super::series::{Interval, Packed, Series};
use super::timing::Timing;

/// One worker's figures. Instants must not go back by more than the engine's own disorder: a sample
/// belongs to the interval of its instant, its response time to the interval that is open.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    workers: u32,
    calls: Calls,
    response: Vec<(String, ResponseTime)>,
    series: Series,
    /// Responses of the open interval.
    open: Timing,
    /// The start of the open interval.
    open_from: Duration,
    /// Intervals that [`tick`](Self::tick) has not told of yet begin here.
    told: Duration,
    recovery: Recovery,
    /// Calls whose danger began.
    endangered: u64,
    counters: BTreeMap<&'static str, u64>,
    lateness: Timing,
    backlog: u64,
    in_flight: u64,
    /// CPU time of the worker at the last tick, and when that was.
    cpu: (Duration, Duration),
}

/// The name of a response time; from [`Recorder::latency`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latency(u8);

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End<'a> {
    /// Ended as its scenario says.
    Kept,
    Lost,
    /// The reason is one of few: no number of a call in it.
    Failed(&'a str),
    /// The server had no room and said so: neither kept nor failed.
    Refused,
    Unknown,
    /// Ended by the server.
    Released,
}

/// What a worker tells while it runs: intervals that are over, and the counts so far.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) interval: Duration,
    /// The start of each, and its content.
    pub(crate) intervals: Vec<(Duration, Interval)>,
    pub(crate) calls: Calls,
    pub(crate) in_flight: u64,
    /// Calls in danger so far, and safe again.
    pub(crate) endangered: u64,
    pub(crate) safe: u64,
}

/// What an outcome has besides a recorder's figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    pub(crate) command: String,
    pub(crate) scenario: String,
    pub(crate) manifest: Manifest,
    pub(crate) parameters: BTreeMap<String, Value>,
    /// Measured time.
    pub(crate) duration: Duration,
    /// Arrivals followed a plan (open loop).
    pub(crate) open_loop: bool,
    pub(crate) violations: Violations,
    pub(crate) server: Option<ServerUse>,
    /// What else was not as expected; each makes the run fail.
    pub(crate) failures: Vec<String>,
    /// Peak memory of this process.
    pub(crate) rss_peak_kib: u64,
}

/// Names of response times beyond this one share the last.
const LATENCIES_MAX: usize = 64;

/// Reasons of failed calls, and names of counters, beyond this count as `other`.
const NAMES_MAX: usize = 256;

impl Recorder {
    /// For one worker; all workers of a run have the same interval.
    pub(crate) fn new(interval: Duration) -> Self {
        let series = Series::new(interval);
        Self {
            workers: 1,
            calls: Calls::default(),
            response: Vec::new(),
            open: Timing::new(),
            open_from: Duration::ZERO,
            told: Duration::ZERO,
            series,
            recovery: Recovery::default(),
            endangered: 0,
            counters: BTreeMap::new(),
            lateness: Timing::new(),
            backlog: 0,
            in_flight: 0,
            cpu: (Duration::ZERO, Duration::ZERO),
        }
    }

    /// The response time of that name, made when it is new.
    pub(crate) fn latency(&mut self, name: &str) -> Latency {
        let known = self.response.iter().position(|(known, _)| known == name);
        let index = known.unwrap_or_else(|| {
            if self.response.len() < LATENCIES_MAX {
                self.response.push((name.into(), ResponseTime::default()));
            }
            self.response.len() - 1
        });
        Latency(index as u8)
    }

    /// A call was started at `actual` that was to be started at `intended` (the same in a closed
    /// loop).
    pub(crate) fn started(&mut self, intended: Duration, actual: Duration) {
        self.roll(actual);
        self.calls.intended += 1;
        self.calls.started += 1;
        self.in_flight += 1;
        self.lateness.record(actual.saturating_sub(intended));
        self.series.at(intended).intended += 1;
        self.series.at(actual).started += 1;
    }

    /// The names of all response times.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.response.iter().map(|(name, _)| name.as_str())
    }

    /// What became of the calls so far.
    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// A call's INVITE was answered 2xx.
    pub(crate) fn set_up(&mut self) {
        self.calls.set_up += 1;
    }

    /// A final response (or the end of a mark) came at `now`; `intended` is when its request was to
    /// be sent, `sent` when it was.
    pub(crate) fn response(
        &mut self,
        latency: Latency,
        intended: Duration,
        sent: Duration,
        now: Duration,
    ) {
        self.roll(now);
        let corrected = now.saturating_sub(intended);
        self.open.record(corrected);
        if let Some((_, response)) = self.response.get_mut(usize::from(latency.0)) {
            response.corrected.record(corrected);
            response.uncorrected.record(now.saturating_sub(sent));
        }
    }

    /// A call is over. Exactly once for each call that was [`started`](Self::started).
    pub(crate) fn call_done(&mut self, end: End<'_>, now: Duration) {
        self.roll(now);
        self.in_flight = self.in_flight.saturating_sub(1);
        let bad = match end {
            End::Kept => {
                self.calls.kept += 1;
                false
            }
            End::Lost => {
                self.calls.lost += 1;
                true
            }
            End::Refused => {
                self.calls.refused += 1;
                false
            }
            End::Unknown => {
                self.calls.unknown += 1;
                true
            }
            End::Released => {
                self.calls.released += 1;
                true
            }
            End::Failed(reason) => {
                self.calls.failed += 1;
                self.count_failure(reason);
                true
            }
        };
        let interval = self.series.at(now);
        interval.done += 1;
        interval.failed += u64::from(bad);
    }

    fn count_failure(&mut self, reason: &str) {
        let failures = &mut self.calls.failures;
        let reason = match failures.contains_key(reason) || failures.len() < NAMES_MAX {
            true => reason,
            false => "other",
        };
        match failures.get_mut(reason) {
            Some(count) => *count += 1,
            None => {
                failures.insert(reason.into(), 1);
            }
        }
    }

    /// The connection of a call was struck.
    pub(crate) fn endangered(&mut self, at: Duration) {
        self.endangered += 1;
        self.series.at(at).endangered += 1;
    }

    /// The danger of a call is over. Once for each [`endangered`](Self::endangered); a call without
    /// one counts as [`Fate::Unknown`].
    pub(crate) fn recovered(&mut self, sample: &RecoverySample) {
        self.recovery.record(sample);
        if let (Fate::Safe, Some(at)) = (sample.fate, sample.answered_at) {
            self.series.at(at).recovered += 1;
        }
    }

    /// The server (or a party) made a new connection.
    pub(crate) fn connect(&mut self, at: Duration) {
        self.series.at(at).connects += 1;
    }

    /// `count` arrivals were not started at all: too late, or no room.
    pub(crate) fn missed_slots(&mut self, count: u64, at: Duration) {
        self.calls.intended += count;
        let interval = self.series.at(at);
        interval.intended += count;
        interval.missed_slots += count;
    }

    /// Arrivals that are due and not yet started, now.
    pub(crate) fn backlog(&mut self, waiting: u64) {
        self.backlog = self.backlog.max(waiting);
    }

    /// Adds to a number of that name.
    pub(crate) fn count(&mut self, name: &'static str, more: u64) {
        let room = self.counters.len() < NAMES_MAX || self.counters.contains_key(name);
        *self.counters.entry(if room { name } else { "other" }).or_default() += more;
    }

    /// An interval has ended that [`tick`](Self::tick) has not told of.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.series.index(now) > self.series.index(self.told)
    }

    /// Closes intervals that are over. `cpu` is the CPU time of this worker's thread so far.
    ///
    /// Call it about once an interval or more often, and at the end of the run. `None` when no
    /// interval ended since the last.
    pub(crate) fn tick(&mut self, now: Duration, cpu: Duration) -> Option<Progress> {
        if !self.is_due(now) {
            return None;
        }
        self.roll(now);
        self.spread_cpu(now, cpu);
        Some(self.news(now))
    }

    /// What the worker used before it began is no part of the figures.
    pub(crate) fn count_cpu_from(&mut self, used: Duration) {
        self.cpu = (used, Duration::ZERO);
    }

    /// CPU time since the last tick belongs to the intervals since then, in equal parts.
    fn spread_cpu(&mut self, now: Duration, cpu: Duration) {
        let (used_before, at) = std::mem::replace(&mut self.cpu, (cpu, now));
        let (used, passed) = (cpu.saturating_sub(used_before), now.saturating_sub(at));
        let (from, to) = (self.series.index(at), self.series.index(now));
        let parts = to.saturating_sub(from).max(1);
        let intervals = self.series.intervals.iter_mut().skip(from).take(parts);
        for interval in intervals {
            interval.cpu_ms += used.as_secs_f64() * 1000.0 / parts as f64;
            if !passed.is_zero() {
                interval.busy = interval.busy.max(used.as_secs_f64() / passed.as_secs_f64());
            }
        }
    }

    /// Intervals that are over and were not told of.
    fn news(&mut self, now: Duration) -> Progress {
        let length = self.series.interval();
        let (from, to) = (self.series.index(self.told), self.series.index(now));
        let over = self.series.intervals.iter().enumerate().take(to).skip(from);
        let start = |index: usize| length.saturating_mul(u32::try_from(index).unwrap_or(u32::MAX));
        let intervals = over.map(|(index, interval)| (start(index), interval.clone())).collect();
        self.told = start(to);
        Progress {
            interval: length,
            intervals,
            calls: self.calls.clone(),
            in_flight: self.in_flight,
            endangered: self.endangered,
            safe: self.recovery.safe,
        }
    }

    /// Opens the interval of `now`, when it is not open; no call begins or ends in those between.
    fn roll(&mut self, now: Duration) {
        while now >= self.open_from.saturating_add(self.series.interval()) {
            self.close();
            let next = u32::try_from(self.series.index(self.open_from) + 1).unwrap_or(u32::MAX);
            self.open_from = self.series.interval().saturating_mul(next);
        }
    }

    /// Writes what the open interval holds into the series.
    fn close(&mut self) {
        let (backlog, in_flight) = (self.backlog, self.in_flight);
        let interval = self.series.at(self.open_from);
        if !self.open.is_empty() {
            let packed = Packed::of(&self.open);
            interval.response.merge(&packed);
            self.open.clear();
        }
        interval.backlog = interval.backlog.max(backlog);
        interval.in_flight = in_flight;
        self.backlog = 0;
    }

    /// The measured time begins: forgets response times and lateness so far, and the counts of
    /// calls. The series stays.
    pub(crate) fn begin_measuring(&mut self) {
        self.calls = Calls::default();
        for (_, response) in &mut self.response {
            response.corrected.clear();
            response.uncorrected.clear();
        }
        self.lateness.clear();
        self.counters.clear();
    }

    /// Adds another worker's figures; loses nothing.
    pub(crate) fn merge(&mut self, mut other: Self) {
        self.close();
        other.close();
        self.workers += other.workers;
        self.calls.merge(&other.calls);
        for (name, response) in &other.response {
            let Latency(index) = self.latency(name);
            self.response[usize::from(index)].1.merge(response);
        }
        self.series.merge(other.series);
        self.recovery.merge(&other.recovery);
        for (name, more) in other.counters {
            self.count(name, more);
        }
        self.endangered += other.endangered;
        self.lateness.merge(&other.lateness);
        self.in_flight += other.in_flight;
    }

    /// The outcome, with its verdict.
    pub(crate) fn into_outcome(mut self, about: About, goals: &[Goal]) -> Outcome {
        self.close();
        let generator = self.generator(about.rss_peak_kib, about.open_loop);
        let seconds = about.duration.as_secs_f64();
        let a_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let mut recovery = self.recovery;
        let untold = self.endangered.saturating_sub(recovery.endangered);
        recovery.endangered += untold;
        recovery.unknown += untold;
        let peak = self.series.intervals.iter().map(|interval| interval.connects).max();
        recovery.connects_per_second_peak =
            peak.unwrap_or(0) as f64 * 1000.0 / self.series.interval_ms as f64;
        let mut outcome = Outcome {
            schema: super::SCHEMA.into(),
            verdict: Verdict::Pass,
            reasons: Vec::new(),
            command: about.command,
            scenario: about.scenario,
            manifest: about.manifest,
            parameters: about.parameters,
            seconds,
            offered_per_second: about.open_loop.then(|| a_second(self.calls.intended)),
            done_per_second: a_second(self.calls.done()),
            response: self.response.into_iter().collect(),
            calls: self.calls,
            series: self.series,
            recovery: (recovery.endangered > 0).then_some(recovery),
            counters: self.counters.into_iter().map(|(name, n)| (name.into(), n)).collect(),
            violations: about.violations,
            generator,
            server: about.server,
            goals: Vec::new(),
        };
        outcome.judge(goals, about.failures);
        outcome
    }

    fn generator(&self, rss_peak_kib: u64, open_loop: bool) -> Generator {
        let intervals = &self.series.intervals;
        let mut generator = Generator {
            workers: self.workers,
            cpu_seconds: intervals.iter().map(|interval| interval.cpu_ms).sum::<f64>() / 1000.0,
            busy_peak: intervals.iter().map(|interval| interval.busy).fold(0.0, f64::max),
            busy_intervals: 0,
            lateness: self.lateness.clone(),
            missed_slots: intervals.iter().map(|interval| interval.missed_slots).sum(),
            backlog_peak: intervals.iter().map(|interval| interval.backlog).max().unwrap_or(0),
            rss_peak_kib,
            limited_by: Vec::new(),
        };
        generator.judge(&self.series, open_loop.then_some(self.calls.intended));
        generator
    }
}
