//! The outcome as a table for a terminal.

use std::fmt::Write as _;

use super::recovery::Recovery;
use super::result::{Generator, Outcome, ServerUse, Usage, Verdict};
use super::text::{grouped, mib, percent, printable, short};
use super::timing::Timing;

const HEADINGS: &str = "        p50         p90         p99       p99.9         max       count";

impl Outcome {
    /// The table.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let parameters = self.parameters.iter().map(|(name, value)| format!("{name} {value}"));
        let _ = writeln!(
            text,
            "{} {}, scenario {}: {}; seed {}",
            printable(&self.command),
            printable(&self.manifest.loadgen_version),
            printable(&self.scenario),
            printable(&parameters.collect::<Vec<_>>().join(", ")),
            self.manifest.seed
        );
        self.write_calls(&mut text);
        let _ = writeln!(text, "\n{:<32}{HEADINGS}", "milliseconds");
        for (name, response) in &self.response {
            write_row(&mut text, &printable(name), &response.corrected);
            // Equal figures say nothing twice.
            if response.uncorrected != response.corrected {
                write_row(&mut text, "  from when it was sent", &response.uncorrected);
            }
        }
        if let Some(recovery) = &self.recovery {
            recovery.write_rows(&mut text);
        }
        write_row(&mut text, "lateness of the generator", &self.generator.lateness);
        if let Some(recovery) = &self.recovery {
            recovery.write_attempts(&mut text);
        }
        self.write_rest(&mut text);
        text
    }

    fn write_calls(&self, text: &mut String) {
        let c = &self.calls;
        let recovery = self.recovery.as_ref();
        let rows = [
            ("calls started", c.started),
            ("  set up", c.set_up),
            ("  in danger", recovery.map_or(0, |recovery| recovery.endangered)),
            ("    safe again", recovery.map_or(0, |recovery| recovery.safe)),
            ("kept", c.kept),
            ("lost", c.lost),
            ("failed", c.failed),
            ("unknown", c.unknown),
            ("released by the server", c.released),
            ("refused by the server", c.refused),
        ];
        for (label, count) in rows {
            let always = matches!(label, "calls started" | "kept" | "lost" | "failed");
            if always || count > 0 {
                let _ = writeln!(text, "{label:<32}{:>12}", grouped(count));
            }
        }
        for (reason, count) in &c.failures {
            let _ = writeln!(text, "  failed: {}: {}", printable(reason), grouped(*count));
        }
    }

    /// Responses a second, and for each second of the server's CPU in the measured time.
    fn write_rates(&self, text: &mut String) {
        let cpu = self.server.as_ref().and_then(|server| {
            Some(server.recovered?.cpu_seconds - server.up?.cpu_seconds).filter(|cpu| *cpu > 0.0)
        });
        for (name, response) in &self.response {
            let count = response.corrected.count() as f64;
            if count == 0.0 || self.seconds <= 0.0 {
                continue;
            }
            let of_cpu = cpu.map_or_else(String::new, |cpu| {
                format!(", {} for each CPU second of the server", short(count / cpu))
            });
            let _ =
                writeln!(text, "{}: {}/s{of_cpu}", printable(name), short(count / self.seconds));
        }
    }

    fn write_rest(&self, text: &mut String) {
        let done = short(self.done_per_second);
        let offered = self.offered_per_second.map_or_else(String::new, |offered| {
            format!(" of {} calls/s that were offered", short(offered))
        });
        let _ = writeln!(text, "\nrate {done} calls/s{offered} over {:.2} s", self.seconds);
        self.write_rates(text);
        match &self.server {
            Some(server) => server.write(text),
            None => {
                let _ = writeln!(text, "server: no process to look at (--server-pid)");
            }
        }
        self.generator.write(text);
        for (name, count) in &self.counters {
            let _ = writeln!(text, "{}: {}", printable(name), grouped(*count));
        }
        for (rule, count) in &self.violations.counts {
            if *count > 0 {
                let _ = writeln!(text, "breach: {}: {}", printable(rule), grouped(*count));
            }
        }
        for example in &self.violations.examples {
            let _ = writeln!(text, "  {}", printable(example));
        }
        for goal in &self.goals {
            let met = if goal.met { "met" } else { "NOT MET" };
            let (goal, found) = (printable(&goal.goal), printable(&goal.found));
            let _ = writeln!(text, "goal {goal}: {met}, found {found}");
        }
        for reason in &self.reasons {
            let _ = writeln!(text, "not as expected: {}", printable(reason));
        }
        let _ = writeln!(text, "{}", self.verdict.sentence());
    }
}

impl Verdict {
    fn sentence(self) -> &'static str {
        match self {
            Self::Pass => "PASS: everything was as expected",
            Self::Fail => "FAIL",
            Self::GeneratorLimited => {
                "GENERATOR LIMITED: the generator was too slow, the figures are its own"
            }
        }
    }
}

impl Recovery {
    fn write_rows(&self, text: &mut String) {
        write_row(text, "fault to first sign at the peer", &self.detected);
        write_row(text, "fault to first attempt", &self.first_attempt);
        write_row(text, "fault to answer (recovered)", &self.answered);
        write_row(text, "  beyond the delay", &self.excess);
        write_row(text, "fault to ACK at the callee", &self.acked);
    }

    fn write_attempts(&self, text: &mut String) {
        let safe = self.safe as f64 / self.endangered.max(1) as f64;
        let peak = short(self.connects_per_second_peak);
        let attempts = self.attempts.iter().enumerate().filter(|(_, calls)| **calls > 0);
        let attempts: Vec<String> =
            attempts.map(|(number, calls)| format!("{number}: {}", grouped(*calls))).collect();
        let _ = writeln!(
            text,
            "\nsafe again {} of the calls in danger; calls by attempts {}; at most {peak} connects/s",
            percent(safe),
            attempts.join(", ")
        );
    }
}

impl Generator {
    fn write(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "generator: {} workers, CPU {:.2} s, busiest {}, missed {}, backlog {}, RSS {}",
            self.workers,
            self.cpu_seconds,
            percent(self.busy_peak),
            grouped(self.missed_slots),
            grouped(self.backlog_peak),
            mib(self.rss_peak_kib)
        );
    }
}

impl ServerUse {
    fn write(&self, text: &mut String) {
        let (Some(idle), Some(after)) = (self.idle, self.after) else {
            let _ = writeln!(text, "server: no process to look at (--server-pid)");
            return;
        };
        let cpu = |usage: Option<Usage>, before: f64| usage.map_or(before, |u| u.cpu_seconds);
        let up = cpu(self.up, idle.cpu_seconds);
        let recovered = cpu(self.recovered, up);
        let _ = writeln!(
            text,
            "server: CPU {:.2} s (set-up {:.2}, fault and recovery {:.2}, check and end {:.2})",
            after.cpu_seconds - idle.cpu_seconds,
            up - idle.cpu_seconds,
            recovered - up,
            after.cpu_seconds - recovered
        );
        let rss_up =
            self.up.map_or_else(String::new, |up| format!("calls up {}, ", mib(up.rss_kib)));
        let _ = writeln!(
            text,
            "server: RSS idle {}, {rss_up}peak {}, after {}; descriptors idle {}, after {}",
            mib(idle.rss_kib),
            mib(after.rss_peak_kib),
            mib(after.rss_kib),
            idle.descriptors,
            after.descriptors
        );
    }
}

fn write_row(text: &mut String, label: &str, timing: &Timing) {
    if timing.is_empty() {
        return;
    }
    let _ = write!(text, "{label:<32}");
    for quantile in [0.5, 0.9, 0.99, 0.999] {
        let figure = timing.quantile_ms(quantile);
        // The headings have no column before the first.
        let width = if quantile == 0.5 { 11 } else { 12 };
        let _ = write!(text, "{figure:>width$.2}");
    }
    let _ = writeln!(text, "{:>12.2}{:>12}", timing.max_ms(), grouped(timing.count()));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn headings_stand_over_their_columns() {
        let mut timing = Timing::new();
        timing.record(Duration::from_millis(1));
        let mut row = String::new();
        write_row(&mut row, "", &timing);
        assert_eq!(row.trim_end().len(), 32 + HEADINGS.len());
    }
}
