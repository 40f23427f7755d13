//! Latencies and what is said about them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer latencies count as this one.
const LATENCY_MAX: Duration = Duration::from_secs(600);

/// A histogram of microseconds with three significant digits: an error of at most 0.1 %.
pub(crate) struct Latency(Histogram<u64>);

/// The figures of a histogram, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) count: u64,
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Latency {
    pub(crate) fn new() -> Self {
        let Ok(histogram) = Histogram::new_with_max(LATENCY_MAX.as_micros() as u64, 3) else {
            unreachable!("the bounds are constants that the histogram takes")
        };
        Self(histogram)
    }

    pub(crate) fn add(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    pub(crate) fn figures(&self) -> Figures {
        let at = |quantile| millis(self.0.value_at_quantile(quantile));
        if self.0.is_empty() {
            return Figures::default();
        }
        Figures {
            count: self.0.len(),
            min: millis(self.0.min()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: millis(self.0.max()),
        }
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// From request to final response, by kind of request.
pub(crate) struct Latencies {
    pub(crate) invite: Latency,
    pub(crate) reinvite: Latency,
    pub(crate) bye: Latency,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self { invite: Latency::new(), reinvite: Latency::new(), bye: Latency::new() }
    }

    pub(crate) fn clear(&mut self) {
        self.invite.clear();
        self.reinvite.clear();
        self.bye.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_samples_within_a_thousandth() {
        let mut latency = Latency::new();
        for n in 1..=1000 {
            latency.add(Duration::from_micros(n * 500));
        }
        let figures = latency.figures();
        assert_eq!(figures.count, 1000);
        for (found, sample) in
            [(figures.p50, 250.0), (figures.p90, 450.0), (figures.p99, 495.0), (figures.max, 500.0)]
        {
            assert!((found - sample).abs() / sample < 0.002, "{found} for {sample}");
        }
    }
}
