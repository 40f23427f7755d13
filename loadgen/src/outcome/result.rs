//! The outcome of a run: what its JSON holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::manifest::Manifest;
use super::recovery::Recovery;
use super::series::Series;
use super::timing::Timing;
use crate::oracle;

/// All that a run found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// [`SCHEMA`](super::SCHEMA).
    pub(crate) schema: String,
    pub(crate) verdict: Verdict,
    /// Why the verdict is not `pass`; one sentence each.
    pub(crate) reasons: Vec<String>,
    /// The subcommand: `drill`.
    pub(crate) command: String,
    pub(crate) scenario: String,
    pub(crate) manifest: Manifest,
    /// The options of the run by name.
    pub(crate) parameters: BTreeMap<String, Value>,
    /// Measured time.
    pub(crate) seconds: f64,
    /// Calls that were to be started, a second; `None` in a closed loop.
    pub(crate) offered_per_second: Option<f64>,
    pub(crate) done_per_second: f64,
    pub(crate) calls: Calls,
    /// By name: `invite`, `reinvite`, `bye`, and the marks of the scenario.
    pub(crate) response: BTreeMap<String, ResponseTime>,
    pub(crate) series: Series,
    /// `None` when no call was in danger.
    pub(crate) recovery: Option<Recovery>,
    /// Other numbers of the engine by name: `retransmissions`, `responses_503`.
    pub(crate) counters: BTreeMap<String, u64>,
    pub(crate) violations: Violations,
    pub(crate) generator: Generator,
    /// `None` without a process to look at.
    pub(crate) server: Option<ServerUse>,
    pub(crate) goals: Vec<GoalResult>,
}

/// Whether everything was as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    #[serde(rename = "pass")]
    Pass,
    /// A goal was not met, or a rule was broken.
    #[serde(rename = "fail")]
    Fail,
    /// The generator was too slow: the figures are its own.
    #[serde(rename = "generator limited")]
    GeneratorLimited,
}

/// Calls by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Calls {
    pub(crate) intended: u64,
    pub(crate) started: u64,
    /// 2xx to their INVITE.
    pub(crate) set_up: u64,
    /// Ended as their scenario says.
    pub(crate) kept: u64,
    /// Set up, and lost.
    pub(crate) lost: u64,
    /// Nothing was heard of them until the end.
    pub(crate) unknown: u64,
    /// Ended by the server.
    pub(crate) released: u64,
    /// The server had no room for them and said so.
    pub(crate) refused: u64,
    /// Ended otherwise than their scenario says.
    pub(crate) failed: u64,
    /// `failed` by reason.
    pub(crate) failures: BTreeMap<String, u64>,
}

/// How long responses of one name took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ResponseTime {
    /// From the instant at which the request was to be sent.
    pub(crate) corrected: Timing,
    /// From the instant at which it was sent.
    pub(crate) uncorrected: Timing,
}

/// Broken rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Violations {
    /// By rule.
    pub(crate) counts: BTreeMap<String, u64>,
    /// The first ones, a sentence each.
    pub(crate) examples: Vec<String>,
}

/// The generator's own health.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Generator {
    pub(crate) workers: u32,
    pub(crate) cpu_seconds: f64,
    /// The highest share of its core that a worker used in an interval, 0 to 1.
    pub(crate) busy_peak: f64,
    /// Intervals in which a worker used more of its core than the limit.
    pub(crate) busy_intervals: u64,
    /// How late calls were started, against their intended instants.
    pub(crate) lateness: Timing,
    /// Arrivals that were not started at all.
    pub(crate) missed_slots: u64,
    pub(crate) backlog_peak: u64,
    pub(crate) rss_peak_kib: u64,
    /// The limits of the verdict that were passed; one sentence each.
    pub(crate) limited_by: Vec<String>,
}

/// The server's process: before the calls, with all of them up, after the recovery, at the end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ServerUse {
    pub(crate) pid: Option<u32>,
    pub(crate) idle: Option<Usage>,
    pub(crate) up: Option<Usage>,
    pub(crate) recovered: Option<Usage>,
    pub(crate) after: Option<Usage>,
}

/// A look at a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Usage {
    /// User and system time so far.
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_kib: u64,
    pub(crate) rss_peak_kib: u64,
    pub(crate) descriptors: u64,
}

/// A goal and whether it was met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GoalResult {
    /// As it was written.
    pub(crate) goal: String,
    /// The figure found, in the goal's unit, with the unit.
    pub(crate) found: String,
    pub(crate) met: bool,
}

impl Calls {
    /// Calls that are over.
    pub(crate) fn done(&self) -> u64 {
        let all = [self.kept, self.lost, self.unknown, self.released, self.failed];
        // Files of others may hold any number.
        all.into_iter().fold(0, u64::saturating_add)
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.intended += other.intended;
        self.started += other.started;
        self.set_up += other.set_up;
        self.kept += other.kept;
        self.lost += other.lost;
        self.unknown += other.unknown;
        self.released += other.released;
        self.refused += other.refused;
        self.failed += other.failed;
        for (reason, count) in &other.failures {
            *self.failures.entry(reason.clone()).or_default() += count;
        }
    }
}

impl Violations {
    /// Adds what an oracle found.
    pub(crate) fn add(&mut self, found: &oracle::Violations) {
        for (rule, count) in found.counts() {
            let sum = self.counts.entry(rule).or_default();
            *sum = sum.saturating_add(count);
        }
        self.examples.extend(found.sentences());
    }

    pub(crate) fn total(&self) -> u64 {
        self.counts.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

impl ResponseTime {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.corrected.merge(&other.corrected);
        self.uncorrected.merge(&other.uncorrected);
    }
}
