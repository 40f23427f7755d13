//! When figures are the generator's own, and the verdict.

use super::goal::Goal;
use super::result::{Generator, Outcome, Verdict, Violations};
use super::series::Series;

/// A worker that uses more of its core than this has no time left to be punctual.
pub(crate) const BUSY_SHARE_MAX: f64 = 0.85;

/// So many intervals may be busier than that before it counts: a burst of work is not a limit.
pub(crate) const BUSY_INTERVALS_MAX: u64 = 3;

/// And at most this share of all intervals.
pub(crate) const BUSY_INTERVALS_SHARE_MAX: f64 = 0.05;

/// 99 of 100 calls are started at most this late, in milliseconds.
pub(crate) const LATENESS_P99_MS_MAX: f64 = 10.0;

/// Share of arrivals that may not be started at all.
pub(crate) const MISSED_SHARE_MAX: f64 = 0.001;

impl Generator {
    /// Notes which limits were passed; `intended` is the number of arrivals that were to be by a plan.
    pub(super) fn judge(&mut self, series: &Series, intended: Option<u64>) {
        let busy = series.intervals.iter().filter(|interval| interval.busy > BUSY_SHARE_MAX);
        self.busy_intervals = busy.count() as u64;
        let all = series.intervals.len();
        if self.busy_intervals > BUSY_INTERVALS_MAX
            && self.busy_intervals as f64 > all as f64 * BUSY_INTERVALS_SHARE_MAX
        {
            self.limited_by.push(format!(
                "a worker used more than {:.0} % of its core in {} of {all} intervals of {} ms",
                BUSY_SHARE_MAX * 100.0,
                self.busy_intervals,
                series.interval_ms
            ));
        }
        // Where nothing follows a plan, nothing is late.
        let Some(intended) = intended else { return };
        let late = self.lateness.quantile_ms(0.99);
        if late > LATENESS_P99_MS_MAX {
            self.limited_by.push(format!(
                "1 of 100 calls was started {late:.1} ms or more after its instant, above the \
                 limit of {LATENESS_P99_MS_MAX} ms"
            ));
        }
        let missed = self.missed_slots as f64 / intended.max(1) as f64;
        if missed > MISSED_SHARE_MAX {
            self.limited_by.push(format!(
                "{} of {intended} calls were not started at all, above the limit of {} %",
                self.missed_slots,
                MISSED_SHARE_MAX * 100.0
            ));
        }
    }
}

impl Outcome {
    /// Sets `goals`, `verdict` and `reasons`. A broken rule of the protocol fails the run, however
    /// fast or late the generator was; of calls and goals it says nothing where it was too slow.
    pub(super) fn judge(&mut self, goals: &[Goal], failures: Vec<String>) {
        self.goals = goals.iter().map(|goal| goal.evaluate(self)).collect();
        let limited = self.generator.limited_by.clone();
        let broken = self.violations.total();
        let mut failed = failures;
        if broken > 0 {
            failed.push(format!("{broken} rules of the protocol were broken"));
        }
        for goal in self.goals.iter().filter(|goal| !goal.met) {
            failed.push(format!("goal {} was not met: found {}", goal.goal, goal.found));
        }
        self.verdict = if broken > 0 {
            Verdict::Fail
        } else if !limited.is_empty() {
            Verdict::GeneratorLimited
        } else if !failed.is_empty() {
            Verdict::Fail
        } else {
            Verdict::Pass
        };
        self.reasons = limited.into_iter().chain(failed).collect();
    }
}

impl Outcome {
    /// What was found only when the server had ended.
    pub(crate) fn fail(&mut self, mut failures: Vec<String>, violations: &Violations) {
        if violations.total() > 0 {
            failures.push(format!("{} events of the server are wrong", violations.total()));
        }
        for (rule, count) in &violations.counts {
            let sum = self.violations.counts.entry(rule.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
        self.violations.examples.extend_from_slice(&violations.examples);
        let broken = violations.total() > 0;
        if broken || (self.verdict == Verdict::Pass && !failures.is_empty()) {
            self.verdict = Verdict::Fail;
        }
        self.reasons.extend(failures);
    }
}

impl Verdict {
    /// Exit status of a run that came to its end.
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 1,
            Self::GeneratorLimited => 3,
        }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::GeneratorLimited => "generator limited",
        }
    }
}
