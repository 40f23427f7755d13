//! The highest rate that holds.

use super::{Sweep, TRIES_MAX};

/// How near the bracket must close, as a share of the rate that held.
const PRECISION: f64 = 0.05;
/// The finest that may be asked for: below it noise decides.
#[cfg(test)]
const PRECISION_MIN: f64 = 0.001;

/// Seeks the highest rate whose goals hold: doubles it until it fails, then halves the bracket.
///
/// The rate found is held once more at the end. When it fails then, or a rate failed that is lower
/// than one that held, the server is not monotonic, and the rate found is the highest below all
/// that failed.
#[derive(Clone, Debug)]
pub(crate) struct Knee {
    from: f64,
    to: f64,
    precision: f64,
    /// Rates and whether they held, in the order of their trial.
    tries: Vec<(f64, bool)>,
}

/// What a search came to. Rates in calls a second.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Found {
    /// The highest rate that held, below all that failed.
    pub(crate) holds: Option<f64>,
    /// The lowest rate that failed: the knee lies between the two.
    pub(crate) fails: Option<f64>,
    /// A rate failed below one that held, or the same both held and failed.
    pub(crate) not_monotonic: bool,
    /// The bracket is as narrow as asked, and what holds was held twice.
    pub(crate) settled: bool,
    /// Every rate and whether it held, in the order of trial.
    pub(crate) tries: Vec<(f64, bool)>,
}

impl Knee {
    /// A search to 5 %.
    pub(crate) fn new(sweep: Sweep) -> Self {
        let from = sweep.from.max(f64::MIN_POSITIVE);
        Self { from, to: sweep.to.max(from), precision: PRECISION, tries: Vec::new() }
    }

    /// To another precision, a share of the rate: 0.001 to 1.
    #[cfg(test)]
    pub(crate) fn with_precision(mut self, precision: f64) -> Self {
        self.precision = if precision.is_nan() { PRECISION } else { precision };
        self.precision = self.precision.clamp(PRECISION_MIN, 1.0);
        self
    }

    /// The rate to try next, after `last` (a rate and whether it held); `None` when it is found.
    pub(crate) fn next_rate(&mut self, last: Option<(f64, bool)>) -> Option<f64> {
        self.tries.extend(last);
        if self.tries.len() >= TRIES_MAX {
            return None;
        }
        let (holds, fails) = (self.holds(), self.fails());
        match (holds, fails) {
            (None, None) => Some(self.from),
            // Not even the lowest.
            (None, Some(_)) => None,
            (Some(holds), None) if holds >= self.to => self.confirm(holds),
            (Some(holds), None) => Some((holds * 2.0).min(self.to)),
            (Some(holds), Some(fails)) if fails - holds <= holds * self.precision => {
                self.confirm(holds)
            }
            (Some(holds), Some(fails)) => Some((holds + fails) / 2.0),
        }
    }

    /// The rate again, unless it has held twice.
    fn confirm(&self, rate: f64) -> Option<f64> {
        (self.times_held(rate) < 2).then_some(rate)
    }

    fn times_held(&self, rate: f64) -> usize {
        self.tries.iter().filter(|(tried, held)| *held && *tried == rate).count()
    }

    fn fails(&self) -> Option<f64> {
        self.tries.iter().filter(|(_, held)| !held).map(|(rate, _)| *rate).reduce(f64::min)
    }

    fn holds(&self) -> Option<f64> {
        let below = self.fails().unwrap_or(f64::INFINITY);
        let held = self.tries.iter().filter(|(rate, held)| *held && *rate < below);
        held.map(|(rate, _)| *rate).reduce(f64::max)
    }

    /// What is known by now.
    pub(crate) fn found(&self) -> Found {
        let (holds, fails) = (self.holds(), self.fails());
        let held = |(_, held): &&(f64, bool)| *held;
        let highest = self.tries.iter().filter(held).map(|(rate, _)| *rate).reduce(f64::max);
        let not_monotonic = fails.zip(highest).is_some_and(|(fails, highest)| fails <= highest);
        let settled = match (holds, fails) {
            (None, fails) => fails.is_some(),
            (Some(holds), None) => holds >= self.to && self.times_held(holds) > 1,
            (Some(holds), Some(fails)) => {
                fails - holds <= holds * self.precision && self.times_held(holds) > 1
            }
        };
        Found { holds, fails, not_monotonic, settled, tries: self.tries.clone() }
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.holds, self.fails) {
            (None, None) => write!(out, "no rate was tried")?,
            (None, Some(fails)) => write!(out, "no rate held: {fails:.1}/s failed already")?,
            (Some(holds), None) => write!(out, "{holds:.1}/s held, and nothing higher was tried")?,
            (Some(holds), Some(fails)) => write!(out, "{holds:.1}/s held, {fails:.1}/s failed")?,
        }
        if self.not_monotonic {
            write!(out, "; not monotonic: a rate failed at or below one that held")?;
        }
        if !self.settled {
            write!(out, "; the search was not finished")?;
        }
        Ok(())
    }
}
