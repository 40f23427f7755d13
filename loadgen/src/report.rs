//! What a run found: as a table for people, as JSON for programs (docs/LOADGEN.md has the schema).

use std::fmt::Write as _;

use serde::Serialize;

use crate::args::{DrillArgs, Time};
use crate::engine::Violations;
use crate::figures::Figures;
use crate::usage::Usage;

/// Names the layout of the JSON; a number that changes its meaning changes this.
const SCHEMA: &str = "holdfast-loadgen/1";

/// Whether everything was as expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Pass,
    Fail,
}

/// The outcome of a drill.
#[derive(Debug, Serialize)]
pub(crate) struct Drilled {
    schema: &'static str,
    version: &'static str,
    command: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) seed: u64,
    parameters: DrillParameters,
    pub(crate) calls: Counted,
    pub(crate) setup: Setup,
    pub(crate) resend_latency_ms: Figures,
    pub(crate) recovery_latency_ms: Figures,
    pub(crate) excess_ms: Figures,
    pub(crate) release_latency_ms: Figures,
    pub(crate) violations: Violations,
    pub(crate) server: ServerUse,
    pub(crate) generator: Usage,
    /// The generator's own part of the time between set-up and recovery.
    pub(crate) generator_recovery_cpu_seconds: f64,
    /// What was not as expected.
    pub(crate) failures: Vec<String>,
}

#[derive(Debug, Serialize)]
struct DrillParameters {
    calls: u32,
    callee_connections: u32,
    caller_connections: u32,
    rate: u32,
    in_flight: u32,
    fault: &'static str,
    delay_ms: u32,
    window_s: u32,
    return_after_ms: u32,
    expect: &'static str,
    slack_s: u32,
}

/// Calls by what became of them.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Counted {
    pub(crate) set_up: u64,
    pub(crate) not_set_up: u64,
    /// Their connection was reset with the re-INVITE unanswered.
    pub(crate) outstanding: u64,
    /// Their callee got the re-INVITE again.
    pub(crate) resent: u64,
    /// Outstanding, and answered 2xx after all.
    pub(crate) recovered: u64,
    pub(crate) kept: u64,
    pub(crate) lost: u64,
    /// Ended by the server.
    pub(crate) released: u64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Setup {
    pub(crate) seconds: f64,
    pub(crate) calls_per_second: f64,
    pub(crate) latency_ms: Figures,
}

/// The server's process: before the calls, with all of them up, after the recovery, at the end.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ServerUse {
    pub(crate) pid: Option<u32>,
    pub(crate) idle: Option<Usage>,
    pub(crate) up: Option<Usage>,
    pub(crate) recovered: Option<Usage>,
    pub(crate) after: Option<Usage>,
}

impl Drilled {
    pub(crate) fn new(args: &DrillArgs) -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            command: "drill",
            verdict: Verdict::Fail,
            seed: 0,
            parameters: DrillParameters {
                calls: args.calls,
                callee_connections: args.common.callee_connections,
                caller_connections: args.common.caller_connections,
                rate: args.rate,
                in_flight: args.in_flight,
                fault: args.fault.text(),
                delay_ms: args.delay,
                window_s: args.window,
                return_after_ms: args.return_after,
                expect: args.expect.text(),
                slack_s: args.slack,
            },
            calls: Counted::default(),
            setup: Setup::default(),
            resend_latency_ms: Figures::default(),
            recovery_latency_ms: Figures::default(),
            excess_ms: Figures::default(),
            release_latency_ms: Figures::default(),
            violations: Violations::default(),
            server: ServerUse::default(),
            generator: Usage::default(),
            generator_recovery_cpu_seconds: 0.0,
            failures: Vec::new(),
        }
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let (p, c) = (&self.parameters, &self.calls);
        let mut text = String::new();
        let _ = writeln!(
            text,
            "drill {}: {} calls, {} callee and {} caller connections, reset {}, delay {} ms, \
             return after {} ms, expected {}; seed {}",
            self.version,
            grouped(p.calls.into()),
            grouped(p.callee_connections.into()),
            grouped(p.caller_connections.into()),
            p.fault,
            p.delay_ms,
            p.return_after_ms,
            p.expect,
            self.seed
        );
        let rows = [
            ("calls set up", c.set_up),
            ("  reset under their re-INVITE", c.outstanding),
            ("  sent again to the callee", c.resent),
            ("  recovered", c.recovered),
            ("kept", c.kept),
            ("lost", c.lost),
            ("released by the server", c.released),
        ];
        for (label, count) in rows {
            let _ = writeln!(text, "{label:<32}{:>12}", grouped(count));
        }
        let _ = writeln!(text, "\n{:<32}{}", "milliseconds", Figures::HEADINGS);
        for (label, figures) in [
            ("sent again: reset to callee", self.resend_latency_ms),
            ("recovery: reset to answer", self.recovery_latency_ms),
            ("  beyond the delay", self.excess_ms),
            ("release: reset to BYE", self.release_latency_ms),
            ("set-up: INVITE to 200", self.setup.latency_ms),
        ] {
            if figures.count > 0 {
                let _ = writeln!(text, "{label:<32}{}", figures.row());
            }
        }
        let (seconds, rate) = (self.setup.seconds, self.setup.calls_per_second);
        let _ = writeln!(text, "\nset-up rate {rate:.0} calls/s over {seconds:.2} s");
        self.server.write(&mut text);
        let _ = writeln!(
            text,
            "generator: CPU {:.2} s (fault and recovery {:.2}), RSS {}",
            self.generator.cpu_seconds,
            self.generator_recovery_cpu_seconds,
            mib(self.generator.rss_peak_kib)
        );
        write_violations(&mut text, self.violations);
        for failure in &self.failures {
            let _ = writeln!(text, "not as expected: {failure}");
        }
        let _ = writeln!(text, "{}", self.verdict.sentence());
        text
    }
}

impl Verdict {
    fn sentence(self) -> &'static str {
        match self {
            Self::Pass => "PASS: everything was as expected",
            Self::Fail => "FAIL",
        }
    }
}

impl ServerUse {
    fn write(&self, text: &mut String) {
        let (Some(idle), Some(after)) = (self.idle, self.after) else {
            let _ = writeln!(text, "server: no process to look at (--server-pid)");
            return;
        };
        let cpu = |usage: Option<Usage>| usage.map_or(idle.cpu_seconds, |u| u.cpu_seconds);
        let (up, recovered) = (cpu(self.up), cpu(self.recovered));
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

/// The outcome of a closed loop.
#[derive(Debug, Serialize)]
pub(crate) struct Benched {
    schema: &'static str,
    version: &'static str,
    pub(crate) command: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) seed: u64,
    pub(crate) parameters: BenchParameters,
    #[serde(skip)]
    what: String,
    /// Measured time.
    pub(crate) seconds: f64,
    /// Calls, or re-INVITEs, that ended well or badly in that time.
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) per_second: f64,
    pub(crate) invite_ms: Figures,
    pub(crate) reinvite_ms: Figures,
    pub(crate) bye_ms: Figures,
    pub(crate) server_cpu_seconds: Option<f64>,
    pub(crate) per_cpu_second: Option<f64>,
    pub(crate) server_rss_kib: Option<u64>,
    pub(crate) generator_cpu_seconds: f64,
    pub(crate) violations: Violations,
    /// What was wrong with the server's end.
    pub(crate) complaint: Option<String>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct BenchParameters {
    pub(crate) calls: u32,
    pub(crate) in_flight: u32,
    pub(crate) callee_connections: u32,
    pub(crate) caller_connections: u32,
    duration_s: u32,
    warm_up_s: u32,
}

impl Benched {
    pub(crate) fn new(what: &str, time: &Time) -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            command: "",
            verdict: Verdict::Fail,
            seed: 0,
            parameters: BenchParameters {
                duration_s: time.duration,
                warm_up_s: time.warm_up,
                ..BenchParameters::default()
            },
            what: what.into(),
            seconds: 0.0,
            done: 0,
            failed: 0,
            per_second: 0.0,
            invite_ms: Figures::default(),
            reinvite_ms: Figures::default(),
            bye_ms: Figures::default(),
            server_cpu_seconds: None,
            per_cpu_second: None,
            server_rss_kib: None,
            generator_cpu_seconds: 0.0,
            violations: Violations::default(),
            complaint: None,
        }
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let (p, what) = (&self.parameters, &self.what);
        let mut text = String::new();
        let standing = match p.calls {
            0 => String::new(),
            calls => format!("{} standing calls, ", grouped(calls.into())),
        };
        let _ = writeln!(
            text,
            "{} {}: {standing}{} in flight, {} callee and {} caller connections; seed {}",
            self.command,
            self.version,
            grouped(p.in_flight.into()),
            grouped(p.callee_connections.into()),
            grouped(p.caller_connections.into()),
            self.seed
        );
        let _ = writeln!(
            text,
            "{} {what} in {:.2} s, {} failed: {} a second",
            grouped(self.done),
            self.seconds,
            grouped(self.failed),
            grouped(self.per_second as u64)
        );
        let _ = writeln!(text, "\n{:<32}{}", "milliseconds", Figures::HEADINGS);
        for (label, figures) in [
            ("INVITE to final response", self.invite_ms),
            ("re-INVITE to final response", self.reinvite_ms),
            ("BYE to final response", self.bye_ms),
        ] {
            if figures.count > 0 {
                let _ = writeln!(text, "{label:<32}{}", figures.row());
            }
        }
        let _ = writeln!(text);
        match (self.server_cpu_seconds, self.per_cpu_second, self.server_rss_kib) {
            (Some(cpu), Some(rate), Some(rss)) => {
                let (rate, rss) = (grouped(rate as u64), mib(rss));
                let _ = writeln!(
                    text,
                    "server: CPU {cpu:.2} s, {rate} {what} for each CPU second, RSS {rss}"
                );
            }
            _ => {
                let _ = writeln!(text, "server: no process to look at (--server-pid)");
            }
        }
        let _ = writeln!(text, "generator: CPU {:.2} s", self.generator_cpu_seconds);
        write_violations(&mut text, self.violations);
        if let Some(complaint) = &self.complaint {
            let _ = writeln!(text, "not as expected: {complaint}");
        }
        let _ = writeln!(text, "{}", self.verdict.sentence());
        text
    }
}

impl Figures {
    const HEADINGS: &str = "        p50         p90         p99         max       count";

    fn row(self) -> String {
        let Self { p50, p90, p99, max, count, .. } = self;
        format!("{p50:>11.2} {p90:>11.2} {p99:>11.2} {max:>11.2} {:>11}", grouped(count))
    }
}

fn write_violations(text: &mut String, v: Violations) {
    for (label, count) in [
        ("re-INVITE with a CSeq that is not higher", v.cseq_not_higher),
        ("repeated re-INVITE with its old branch", v.branch_not_new),
        ("request with another Call-ID or From tag", v.dialog_changed),
        ("repeated re-INVITE with another body", v.body_changed),
        ("ACK whose CSeq is not that of the 2xx", v.ack_for_another),
        ("2xx of a callee without ACK", v.ack_missing),
        ("call ended, but no BYE for its callee", v.bye_missing),
        ("re-INVITE never answered though released", v.never_answered),
        ("answer sooner than the delay allows", v.too_early),
        ("message for no known call, or not SIP", v.stray),
    ] {
        if count > 0 {
            let _ = writeln!(text, "breach: {label}: {}", grouped(count));
        }
    }
}

fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

/// 12345 as 12,345.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let texts = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn headings_stand_over_their_columns() {
        let row = Figures::default().row();
        assert_eq!(row.len(), Figures::HEADINGS.len());
    }
}
