//! Which charts an outcome makes.

use super::super::recovery::Recovery;
use super::super::result::{Outcome, ResponseTime};
use super::super::series::{Interval, Series};
use super::super::timing::Timing;
use super::chart::{Chart, Line, Log, Mark, X};

/// Values of x in a chart; more are not seen.
const POINTS: usize = 600;

/// Response times by percentile that are drawn: those with the most samples.
const NAMES: usize = 3;

impl Outcome {
    pub(super) fn write_plots(&self, page: &mut String) {
        if let Some(recovery) = &self.recovery {
            recovery.curve_chart().render(page);
            if let Some(chart) = recovery.excess_chart() {
                chart.render(page);
            }
        }
        let series = self.series.at_most(POINTS);
        let over_time = OverTime { series: &series, marks: self.fault_marks() };
        over_time.rates(self.offered_per_second.is_some()).render(page);
        over_time.latency().render(page);
        self.by_percentile().render(page);
        over_time.in_flight().render(page);
        if series.intervals.iter().any(|interval| interval.connects > 0) {
            over_time.connects().render(page);
        }
        over_time.health().render(page);
    }

    /// First and last fault.
    fn fault_marks(&self) -> Vec<(f64, &'static str)> {
        let Some(recovery) = &self.recovery else { return Vec::new() };
        match (recovery.first_fault_ms, recovery.last_fault_ms) {
            (Some(first), Some(last)) if last > first + 100.0 => {
                vec![(first / 1000.0, "first fault"), (last / 1000.0, "last fault")]
            }
            (Some(first), _) => vec![(first / 1000.0, "fault")],
            (None, _) => Vec::new(),
        }
    }

    fn by_percentile(&self) -> Chart<'static> {
        let mut names: Vec<(&String, &ResponseTime)> = self.response.iter().collect();
        names.sort_by_key(|(_, response)| std::cmp::Reverse(response.corrected.count()));
        let mut timings = Vec::new();
        for (color, (name, response)) in names.into_iter().take(NAMES).enumerate() {
            timings.push((name.clone(), color, false, &response.corrected));
            if response.uncorrected != response.corrected {
                let name = format!("{name}, from when it was sent");
                timings.push((name, color, true, &response.uncorrected));
            }
        }
        percentiles(
            "Response time by percentile",
            "From the instant at which each request was to be sent; dashed from when it was sent. \
             Where they part, the generator or a full connection held requests back.",
            &timings,
        )
    }
}

/// The recovery curves of several runs in one chart, when any has one; six at most.
pub(in super::super) fn recovery_curves(page: &mut String, runs: &[(String, &Outcome)]) {
    let curves = runs.iter().filter_map(|(name, run)| Some((name, run.recovery.as_ref()?)));
    let curves: Vec<(&String, &Recovery)> = curves.take(6).collect();
    let ends = curves.iter().map(|(_, recovery)| recovery.answered.max_ms().max(recovery.delay_ms));
    let xs = spaced(ends.fold(1.0, f64::max) * 1.06);
    let lines = curves.iter().enumerate().map(|(color, (name, recovery))| Line {
        name: (*name).clone(),
        color,
        dashed: false,
        steps: true,
        values: shares(&recovery.answered, recovery.endangered, &xs)
            .into_iter()
            .map(Some)
            .collect(),
    });
    let chart = Chart {
        title: "Recovery curves",
        about: "Share of the calls in danger that were safe again, over the time since the fault of \
                each call; of the first run of each side.",
        x: X::Linear("milliseconds since the fault", " ms since the fault"),
        y_label: "share of calls, %",
        y_unit: " %",
        y_top: 100.0,
        log: Log::Never,
        lines: lines.collect(),
        xs,
        marks: vec![Mark { x: 0.0, label: "fault".into() }],
    };
    chart.render(page);
}

impl Recovery {
    fn curve_chart(&self) -> Chart<'static> {
        let end = [&self.answered, &self.acked].map(Timing::max_ms).into_iter();
        let end = end.fold(self.delay_ms, f64::max).max(1.0) * 1.06;
        let xs = spaced(end);
        let stages = [
            ("answered: the call is safe", &self.answered, 0, false),
            ("ACK at the callee", &self.acked, 2, true),
            ("first attempt", &self.first_attempt, 1, true),
            ("first sign at the peer", &self.detected, 3, true),
        ];
        let stages = stages.into_iter().filter(|(_, timing, ..)| !timing.is_empty());
        let lines = stages.map(|(name, timing, color, dashed)| Line {
            name: name.into(),
            color,
            dashed,
            steps: true,
            values: shares(timing, self.endangered, &xs).into_iter().map(Some).collect(),
        });
        let mut marks = vec![Mark { x: 0.0, label: "fault".into() }];
        if self.delay_ms > 0.0 {
            let label = format!("configured delay {:.0} ms", self.delay_ms);
            marks.push(Mark { x: self.delay_ms, label });
        }
        Chart {
            title: "Recovery curve",
            about: "Share of the calls in danger that were safe again, over the time since the \
                    fault of each call.",
            x: X::Linear("milliseconds since the fault", " ms since the fault"),
            y_label: "share of calls, %",
            y_unit: " %",
            y_top: 100.0,
            log: Log::Never,
            lines: lines.collect(),
            xs,
            marks,
        }
    }

    fn excess_chart(&self) -> Option<Chart<'static>> {
        let timings = [("answer beyond the delay".to_owned(), 0, false, &self.excess)];
        (!self.excess.is_empty()).then(|| {
            percentiles(
                "Time in danger beyond the configured delay, by percentile",
                "What the server, the network and the generator added to the delay that the server \
                 was told to wait.",
                &timings,
            )
        })
    }
}

/// Charts over the time of the run.
struct OverTime<'a> {
    series: &'a Series,
    marks: Vec<(f64, &'static str)>,
}

impl OverTime<'_> {
    fn chart(&self, lines: Vec<Line>) -> Chart<'static> {
        // An interval's figure stands at its start and holds until the next.
        let length = self.series.interval_ms as f64 / 1000.0;
        let xs = (0..self.series.intervals.len()).map(|n| n as f64 * length).collect();
        let marks = self.marks.iter().map(|(x, label)| Mark { x: *x, label: (*label).into() });
        Chart {
            title: "",
            about: "",
            x: X::Linear("seconds since the start", " s"),
            y_label: "",
            y_unit: "",
            y_top: 0.0,
            log: Log::Never,
            lines,
            xs,
            marks: marks.collect(),
        }
    }

    fn line(&self, name: &str, color: usize, of: impl Fn(&Interval) -> Option<f64>) -> Line {
        let values = self.series.intervals.iter().map(of).collect();
        Line { name: name.into(), color, dashed: false, steps: true, values }
    }

    fn rate(&self, name: &str, color: usize, of: impl Fn(&Interval) -> u64) -> Line {
        let factor = 1000.0 / self.series.interval_ms.max(1) as f64;
        self.line(name, color, |interval| Some(of(interval) as f64 * factor))
    }

    fn rates(&self, offered: bool) -> Chart<'static> {
        let mut lines = vec![
            self.rate("started", 0, |interval| interval.started),
            self.rate("done", 2, |interval| interval.done),
        ];
        if offered {
            let line = self.rate("offered", 5, |interval| interval.intended);
            lines.insert(0, Line { dashed: true, ..line });
        }
        if self.series.intervals.iter().any(|interval| interval.failed > 0) {
            lines.push(self.rate("lost or failed", 4, |interval| interval.failed));
        }
        Chart {
            title: "Calls per second",
            about: "Calls that were to be started, that were, and that ended.",
            y_label: "calls per second",
            y_unit: "/s",
            log: Log::Offered,
            ..self.chart(lines)
        }
    }

    fn latency(&self) -> Chart<'static> {
        let with = |of: fn(&Interval) -> f64| {
            move |interval: &Interval| (interval.response.count > 0).then(|| of(interval))
        };
        let lines = vec![
            self.line("max", 4, with(|interval| interval.response.max_ms)),
            self.line("p99", 1, with(|interval| interval.response.p99_ms)),
            self.line("p90", 3, with(|interval| interval.response.p90_ms)),
            self.line("p50", 0, with(|interval| interval.response.p50_ms)),
        ];
        Chart {
            title: "Response time over the run",
            about: "Of all responses that came in each interval, from the instant at which their \
                    requests were to be sent.",
            y_label: "milliseconds",
            y_unit: " ms",
            log: Log::Shown,
            ..self.chart(lines)
        }
    }

    fn in_flight(&self) -> Chart<'static> {
        let mut lines = vec![self.line("in flight", 0, |i| Some(i.in_flight as f64))];
        if self.series.intervals.iter().any(|interval| interval.backlog > 0) {
            lines.push(self.line("due, not started", 4, |i| Some(i.backlog as f64)));
        }
        Chart {
            title: "Calls in flight",
            about: "Calls that were begun and not over, at the end of each interval.",
            y_label: "calls",
            log: Log::Offered,
            ..self.chart(lines)
        }
    }

    fn connects(&self) -> Chart<'static> {
        let lines = vec![self.rate("new connections", 1, |interval| interval.connects)];
        Chart {
            title: "New connections per second",
            about: "TCP and TLS connections that were made to the callees and by the callers.",
            y_label: "connections per second",
            y_unit: "/s",
            log: Log::Offered,
            ..self.chart(lines)
        }
    }

    fn health(&self) -> Chart<'static> {
        let limit = super::super::honesty::BUSY_SHARE_MAX * 100.0;
        let limit_line = self.line("limit of the verdict", 5, move |_| Some(limit));
        let lines = vec![
            self.line("busiest worker", 0, |interval| Some(interval.busy * 100.0)),
            Line { dashed: true, ..limit_line },
        ];
        Chart {
            title: "The generator's own load",
            about: "CPU time of the busiest worker, as a share of its core. A generator without \
                    time to spare measures itself.",
            y_label: "share of a core, %",
            y_unit: " %",
            y_top: 100.0,
            ..self.chart(lines)
        }
    }
}

/// Lines of times over 1/(1-p).
fn percentiles(
    title: &'static str,
    about: &'static str,
    timings: &[(String, usize, bool, &Timing)],
) -> Chart<'static> {
    let count = timings.iter().map(|(.., timing)| timing.count()).max().unwrap_or(0);
    // Beyond one in `count` all is the maximum.
    let end = (count.max(10) as f64).log10().min(9.0);
    let xs = spaced(end);
    let timings = timings.iter().filter(|(.., timing)| !timing.is_empty());
    let lines = timings.map(|(name, color, dashed, timing)| {
        // A percentile finer than one in `count` of this line is not known.
        let known = (timing.count() as f64).log10() + 1e-9;
        let at = |x: f64| timing.quantile_ms(1.0 - 10_f64.powf(-x));
        let values = xs.iter().map(|x| (*x <= known).then(|| at(*x)));
        let values = values.collect();
        Line { name: name.clone(), color: *color, dashed: *dashed, steps: false, values }
    });
    Chart {
        title,
        about,
        x: X::Percentile,
        y_label: "milliseconds",
        y_unit: " ms",
        y_top: 0.0,
        log: Log::Shown,
        lines: lines.collect(),
        xs,
        marks: Vec::new(),
    }
}

/// 0 to `end` in even steps.
fn spaced(end: f64) -> Vec<f64> {
    (0..=POINTS).map(|n| end * n as f64 / POINTS as f64).collect()
}

/// Per cent of `all` at or below each x, in milliseconds.
fn shares(timing: &Timing, all: u64, xs: &[f64]) -> Vec<f64> {
    let mut values = timing.values_ms().peekable();
    let (mut below, mut shares) = (0_u64, Vec::with_capacity(xs.len()));
    for x in xs {
        while let Some((_, count)) = values.next_if(|(value, _)| value <= x) {
            below = below.saturating_add(count);
        }
        shares.push((below as f64 * 100.0 / all.max(1) as f64).min(100.0));
    }
    shares
}
