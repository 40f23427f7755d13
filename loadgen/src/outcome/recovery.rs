//! How long calls were in danger.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::timing::Timing;

/// One call that was in danger, from the strike on its connection to the end of the danger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecoverySample {
    pub(crate) fault_at: Duration,
    /// First sign at the peer that the server knows: a new connection, or the next attempt.
    pub(crate) detected_at: Option<Duration>,
    pub(crate) first_attempt_at: Option<Duration>,
    /// Requests that were sent again.
    pub(crate) attempts: u32,
    /// Final response read by the caller.
    pub(crate) answered_at: Option<Duration>,
    /// ACK of that response read by the callee.
    pub(crate) acked_at: Option<Duration>,
    /// The time after the fault at which the configured delay allows the attempt that can succeed.
    pub(crate) delay: Duration,
    pub(crate) fate: Fate,
}

/// How the danger ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Answered 2xx.
    Safe,
    /// Given up by the server, or answered with a failure.
    Lost,
    /// Nothing was heard until the end of the run.
    Unknown,
}

/// All calls that were in danger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recovery {
    pub(crate) endangered: u64,
    pub(crate) safe: u64,
    pub(crate) lost: u64,
    pub(crate) unknown: u64,
    /// First and last fault, milliseconds since the start of the run.
    pub(crate) first_fault_ms: Option<f64>,
    pub(crate) last_fault_ms: Option<f64>,
    /// The longest of the samples' delays.
    pub(crate) delay_ms: f64,
    /// From the fault of each call.
    pub(crate) detected: Timing,
    pub(crate) first_attempt: Timing,
    /// Of safe calls; the recovery curve is this one's share of `endangered` at each time.
    pub(crate) answered: Timing,
    pub(crate) acked: Timing,
    /// `answered` less the delay, at least 0.
    pub(crate) excess: Timing,
    /// Calls by number of attempts, 0 first; the last one counts all above.
    pub(crate) attempts: Vec<u64>,
    /// The most new connections of one interval, a second.
    pub(crate) connects_per_second_peak: f64,
}

/// Calls with more attempts than this are counted together.
pub(crate) const ATTEMPTS_MAX: usize = 64;

impl Recovery {
    pub(crate) fn record(&mut self, sample: &RecoverySample) {
        let since = |at: Option<Duration>| at.map(|at| at.saturating_sub(sample.fault_at));
        match sample.fate {
            Fate::Safe => self.safe += 1,
            Fate::Lost => self.lost += 1,
            Fate::Unknown => self.unknown += 1,
        }
        self.endangered += 1;
        let fault_ms = sample.fault_at.as_secs_f64() * 1000.0;
        self.first_fault_ms = Some(self.first_fault_ms.map_or(fault_ms, |at| at.min(fault_ms)));
        self.last_fault_ms = Some(self.last_fault_ms.map_or(fault_ms, |at| at.max(fault_ms)));
        self.delay_ms = self.delay_ms.max(sample.delay.as_secs_f64() * 1000.0);
        if let Some(time) = since(sample.detected_at) {
            self.detected.record(time);
        }
        if let Some(time) = since(sample.first_attempt_at) {
            self.first_attempt.record(time);
        }
        if let Some(time) = since(sample.acked_at) {
            self.acked.record(time);
        }
        if let (Fate::Safe, Some(time)) = (sample.fate, since(sample.answered_at)) {
            self.answered.record(time);
            self.excess.record(time.saturating_sub(sample.delay));
        }
        let slot = (sample.attempts as usize).min(ATTEMPTS_MAX);
        if self.attempts.len() <= slot {
            self.attempts.resize(slot + 1, 0);
        }
        self.attempts[slot] += 1;
    }

    /// Adds another worker's calls; loses nothing.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.endangered += other.endangered;
        self.safe += other.safe;
        self.lost += other.lost;
        self.unknown += other.unknown;
        self.first_fault_ms = pick(self.first_fault_ms, other.first_fault_ms, f64::min);
        self.last_fault_ms = pick(self.last_fault_ms, other.last_fault_ms, f64::max);
        self.delay_ms = self.delay_ms.max(other.delay_ms);
        self.detected.merge(&other.detected);
        self.first_attempt.merge(&other.first_attempt);
        self.answered.merge(&other.answered);
        self.acked.merge(&other.acked);
        self.excess.merge(&other.excess);
        if self.attempts.len() < other.attempts.len() {
            self.attempts.resize(other.attempts.len(), 0);
        }
        for (mine, others) in self.attempts.iter_mut().zip(&other.attempts) {
            *mine += others;
        }
        self.connects_per_second_peak =
            self.connects_per_second_peak.max(other.connects_per_second_peak);
    }

    /// The recovery curve: milliseconds since the fault, and the share of calls (0 to 1) that were
    /// safe by then; each step of it.
    #[cfg(test)]
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let all = self.endangered.max(1) as f64;
        let mut safe = 0;
        let steps = self.answered.values_ms().map(|(time, count)| {
            safe += count;
            (time, safe as f64 / all)
        });
        std::iter::once((0.0, 0.0)).chain(steps).collect()
    }
}

fn pick(a: Option<f64>, b: Option<f64>, choose: fn(f64, f64) -> f64) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(choose(a, b)),
        (one, None) | (None, one) => one,
    }
}
