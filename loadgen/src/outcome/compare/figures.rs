//! Which figures of an outcome are compared.

use std::collections::BTreeSet;

use super::super::recovery::Recovery;
use super::super::result::{Outcome, Usage};
use super::super::timing::Timing;
use super::Side;

/// A figure by name.
#[derive(Clone, Debug)]
pub(super) enum Figure {
    Plain(&'static Plain),
    Response { name: String, quantile: f64 },
    Counter(String),
}

/// A figure that has a fixed name.
#[derive(Debug)]
pub(super) struct Plain {
    label: &'static str,
    /// `None`: neither more nor less is better.
    more_is_better: Option<bool>,
    find: fn(&Outcome) -> Option<f64>,
}

const QUANTILES: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (1.0, "max")];

/// Response times and counters of one comparison; the rest is left out.
const NAMES_MAX: usize = 64;

const LESS: Option<bool> = Some(false);
const MORE: Option<bool> = Some(true);

static PLAIN: [Plain; 24] = [
    plain("calls kept", MORE, |run| Some(run.calls.kept as f64)),
    plain("calls lost", LESS, |run| Some(run.calls.lost as f64)),
    plain("calls failed", LESS, |run| Some(run.calls.failed as f64)),
    plain("calls unknown", LESS, |run| Some(run.calls.unknown as f64)),
    plain("calls released", None, |run| Some(run.calls.released as f64)),
    plain("violations", LESS, |run| Some(run.violations.total() as f64)),
    plain("offered, calls/s", None, |run| run.offered_per_second),
    plain("done, calls/s", MORE, |run| Some(run.done_per_second)),
    plain("in danger, not safe again", LESS, |run| {
        let recovery = run.recovery.as_ref()?;
        Some(recovery.endangered.saturating_sub(recovery.safe) as f64)
    }),
    plain("recovery p50, ms", LESS, |run| recovery(run, 0.5, |r| &r.answered)),
    plain("recovery p99, ms", LESS, |run| recovery(run, 0.99, |r| &r.answered)),
    plain("recovery max, ms", LESS, |run| recovery(run, 1.0, |r| &r.answered)),
    plain("beyond the delay p50, ms", LESS, |run| recovery(run, 0.5, |r| &r.excess)),
    plain("beyond the delay p99, ms", LESS, |run| recovery(run, 0.99, |r| &r.excess)),
    plain("beyond the delay max, ms", LESS, |run| recovery(run, 1.0, |r| &r.excess)),
    plain("first attempt p99, ms", LESS, |run| recovery(run, 0.99, |r| &r.first_attempt)),
    plain("ACK at the callee p99, ms", LESS, |run| recovery(run, 0.99, |r| &r.acked)),
    plain("connects/s, peak", None, |run| {
        run.recovery.as_ref().map(|recovery| recovery.connects_per_second_peak)
    }),
    plain("server CPU, s", LESS, |run| {
        let (idle, after) = server(run)?;
        Some(after.cpu_seconds - idle.cpu_seconds)
    }),
    plain("calls done for a CPU second", MORE, |run| {
        let (idle, after) = server(run)?;
        let seconds = after.cpu_seconds - idle.cpu_seconds;
        (seconds > 0.0).then(|| run.calls.done() as f64 / seconds)
    }),
    plain("server RSS peak, MiB", LESS, |run| {
        server(run).map(|(_, after)| after.rss_peak_kib as f64 / 1024.0)
    }),
    plain("generator CPU, s", None, |run| Some(run.generator.cpu_seconds)),
    plain("generator lateness p99, ms", None, |run| quantile(&run.generator.lateness, 0.99)),
    plain("generator missed slots", None, |run| Some(run.generator.missed_slots as f64)),
];

const fn plain(
    label: &'static str,
    more_is_better: Option<bool>,
    find: fn(&Outcome) -> Option<f64>,
) -> Plain {
    Plain { label, more_is_better, find }
}

/// Every figure that some run has.
pub(super) fn of(sides: &[Side]) -> Vec<Figure> {
    let runs = || sides.iter().flat_map(|side| &side.runs);
    let responses: BTreeSet<&String> = runs().flat_map(|run| run.response.keys()).collect();
    let counters: BTreeSet<&String> = runs().flat_map(|run| run.counters.keys()).collect();
    let responses = responses.into_iter().take(NAMES_MAX).flat_map(|name| {
        QUANTILES.map(|(quantile, _)| Figure::Response { name: name.clone(), quantile })
    });
    let counters = counters.into_iter().take(NAMES_MAX).cloned().map(Figure::Counter);
    let all = PLAIN.iter().map(Figure::Plain).chain(responses).chain(counters);
    all.filter(|figure| runs().any(|run| figure.find(run).is_some())).collect()
}

impl Figure {
    pub(super) fn label(&self) -> String {
        match self {
            Self::Plain(plain) => plain.label.into(),
            Self::Response { name, quantile } => {
                let known = QUANTILES.iter().find(|(known, _)| known == quantile);
                format!("{name} {}, ms", known.map_or("", |(_, label)| label))
            }
            Self::Counter(name) => name.clone(),
        }
    }

    pub(super) fn more_is_better(&self) -> Option<bool> {
        match self {
            Self::Plain(plain) => plain.more_is_better,
            Self::Response { .. } => LESS,
            Self::Counter(_) => None,
        }
    }

    /// What two equal times may differ by, as a share of them: the histogram's own error.
    pub(super) fn resolution(&self) -> f64 {
        let time = match self {
            Self::Plain(plain) => plain.label.ends_with(", ms"),
            Self::Response { .. } => true,
            Self::Counter(_) => false,
        };
        if time { 0.001 } else { 0.0 }
    }

    /// The figure of one run; `None` when it has none.
    pub(super) fn find(&self, run: &Outcome) -> Option<f64> {
        match self {
            Self::Plain(plain) => (plain.find)(run),
            Self::Response { name, quantile: q } => {
                quantile(&run.response.get(name)?.corrected, *q)
            }
            Self::Counter(name) => run.counters.get(name).map(|count| *count as f64),
        }
    }
}

fn recovery(run: &Outcome, q: f64, of: fn(&Recovery) -> &Timing) -> Option<f64> {
    run.recovery.as_ref().and_then(|recovery| quantile(of(recovery), q))
}

fn quantile(timing: &Timing, q: f64) -> Option<f64> {
    (!timing.is_empty()).then(|| timing.quantile_ms(q))
}

fn server(run: &Outcome) -> Option<(Usage, Usage)> {
    let server = run.server.as_ref()?;
    Some((server.idle?, server.after?))
}
