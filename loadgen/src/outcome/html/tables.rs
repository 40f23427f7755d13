//! Tables of the page.

use std::fmt::Write as _;

use super::super::result::{Outcome, ServerUse, Usage};
use super::super::text::{escape, grouped, mib, percent, short};
use super::super::timing::Timing;

/// A cell: text, or a figure that stands at the right edge. Both are escaped.
pub(in super::super) enum Cell {
    Text(String),
    Figure(String),
    /// Text in the colour of good (`true`) or bad.
    Mark(bool, String),
}

/// A table with the first cell of each row as its head.
pub(in super::super) fn table(page: &mut String, heads: &[&str], rows: &[Vec<Cell>]) {
    let pairs = rows.iter().all(|row| row.len() < 3);
    let class = if pairs { " class=\"pairs\"" } else { "" };
    let _ = write!(page, "<div class=\"wide\"><table{class}>");
    if !heads.is_empty() {
        page.push_str("<thead><tr>");
        for (at, head) in heads.iter().enumerate() {
            let figure =
                rows.first().is_some_and(|row| matches!(row.get(at), Some(Cell::Figure(_))));
            let class = if figure { " class=\"n\"" } else { "" };
            let _ = write!(page, "<th{class}>{}</th>", escape(head));
        }
        page.push_str("</tr></thead>");
    }
    page.push_str("<tbody>");
    for row in rows {
        page.push_str("<tr>");
        for (at, cell) in row.iter().enumerate() {
            let _ = match (at, cell) {
                (0, Cell::Text(text)) => write!(page, "<th>{}</th>", escape(text)),
                (_, Cell::Text(text)) => write!(page, "<td class=\"text\">{}</td>", escape(text)),
                (_, Cell::Figure(text)) => write!(page, "<td class=\"n\">{}</td>", escape(text)),
                (_, Cell::Mark(good, text)) => {
                    let class = if *good { "met" } else { "unmet" };
                    write!(page, "<td class=\"{class}\">{}</td>", escape(text))
                }
            };
        }
        page.push_str("</tr>");
    }
    page.push_str("</tbody></table></div>");
}

fn section(page: &mut String, title: &str, heads: &[&str], rows: &[Vec<Cell>]) {
    if rows.is_empty() {
        return;
    }
    let _ = write!(page, "<section><h2>{}</h2>", escape(title));
    table(page, heads, rows);
    page.push_str("</section>\n");
}

fn count(label: &str, count: u64) -> Vec<Cell> {
    vec![Cell::Text(label.into()), Cell::Figure(grouped(count))]
}

fn pair(label: &str, value: impl Into<String>) -> Vec<Cell> {
    vec![Cell::Text(label.into()), Cell::Text(value.into())]
}

impl Outcome {
    pub(super) fn write_tables(&self, page: &mut String) {
        let goals = self.goals.iter().map(|goal| {
            let met = if goal.met { "met" } else { "not met" };
            vec![
                Cell::Text(goal.goal.clone()),
                Cell::Text(goal.found.clone()),
                Cell::Mark(goal.met, met.into()),
            ]
        });
        section(page, "Goals", &["goal", "found", ""], &goals.collect::<Vec<_>>());
        section(page, "Calls", &[], &self.call_rows());
        let heads = ["milliseconds", "p50", "p90", "p99", "p99.9", "max", "samples"];
        section(page, "Times", &heads, &self.time_rows());
        section(page, "Violations", &["rule", "count"], &self.violation_rows());
        let examples = self.violations.examples.iter();
        let examples: Vec<Vec<Cell>> =
            examples.map(|example| vec![Cell::Text(example.clone())]).collect();
        section(page, "The first violations", &[], &examples);
        if let Some(server) = &self.server {
            let heads = ["", "CPU seconds", "RSS", "peak RSS", "descriptors"];
            section(page, "The server's process", &heads, &server_rows(server));
        }
        section(page, "The generator", &[], &self.generator_rows());
        self.write_manifest(page);
    }

    fn call_rows(&self) -> Vec<Vec<Cell>> {
        let calls = &self.calls;
        let mut rows = vec![
            count("to be started", calls.intended),
            count("started", calls.started),
            count("set up", calls.set_up),
            count("kept", calls.kept),
            count("lost", calls.lost),
            count("failed", calls.failed),
            count("unknown", calls.unknown),
            count("released by the server", calls.released),
            count("refused by the server", calls.refused),
        ];
        if let Some(recovery) = &self.recovery {
            rows.push(count("in danger", recovery.endangered));
            rows.push(count("safe again", recovery.safe));
            for (attempts, number) in recovery.attempts.iter().enumerate() {
                if *number > 0 {
                    let label = format!("in danger, with attempts: {attempts}");
                    rows.push(count(&label, *number));
                }
            }
        }
        let failures = calls.failures.iter();
        rows.extend(failures.map(|(reason, number)| count(&format!("failed: {reason}"), *number)));
        rows.extend(self.counters.iter().map(|(name, number)| count(name, *number)));
        rows
    }

    fn time_rows(&self) -> Vec<Vec<Cell>> {
        let mut rows = Vec::new();
        for (name, response) in &self.response {
            rows.extend(time_row(name, &response.corrected));
            // Equal figures say nothing twice.
            if response.uncorrected != response.corrected {
                let label = format!("{name}, from when it was sent");
                rows.extend(time_row(&label, &response.uncorrected));
            }
        }
        if let Some(recovery) = &self.recovery {
            rows.extend(time_row("fault to first sign at the peer", &recovery.detected));
            rows.extend(time_row("fault to first attempt", &recovery.first_attempt));
            rows.extend(time_row("fault to answer", &recovery.answered));
            rows.extend(time_row("answer beyond the delay", &recovery.excess));
            rows.extend(time_row("fault to ACK at the callee", &recovery.acked));
        }
        rows.extend(time_row("lateness of the generator", &self.generator.lateness));
        rows
    }

    fn violation_rows(&self) -> Vec<Vec<Cell>> {
        let counts = self.violations.counts.iter().filter(|(_, number)| **number > 0);
        let rows: Vec<Vec<Cell>> = counts.map(|(rule, number)| count(rule, *number)).collect();
        match rows.is_empty() {
            true => vec![count("none", 0)],
            false => rows,
        }
    }

    fn generator_rows(&self) -> Vec<Vec<Cell>> {
        let generator = &self.generator;
        vec![
            count("workers", generator.workers.into()),
            vec![
                Cell::Text("CPU seconds".into()),
                Cell::Figure(format!("{:.2}", generator.cpu_seconds)),
            ],
            vec![
                Cell::Text("busiest worker, share of its core".into()),
                Cell::Figure(percent(generator.busy_peak)),
            ],
            count("intervals above the limit of that share", generator.busy_intervals),
            count("arrivals not started", generator.missed_slots),
            count("most arrivals waiting", generator.backlog_peak),
            vec![Cell::Text("peak RSS".into()), Cell::Figure(mib(generator.rss_peak_kib))],
        ]
    }

    fn write_manifest(&self, page: &mut String) {
        let m = &self.manifest;
        let cores = m.worker_cores.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let pinned = if cores.is_empty() { "not pinned".into() } else { format!("cores {cores}") };
        let mut rows = vec![
            pair("command line", m.command_line.join(" ")),
            pair("date", &*m.date),
            pair("seed", m.seed.to_string()),
            pair("loadgen", &*m.loadgen_version),
        ];
        if let Some(server) = &m.server {
            let text = format!("{}, configuration {}", server.version, server.config_digest);
            rows.push(pair("server", text));
        }
        rows.extend([
            pair("kernel", &*m.kernel),
            pair("CPU", format!("{} × {}", m.cpus, m.cpu_model)),
            pair("governor", m.governor.as_deref().unwrap_or("not told by the kernel")),
            pair("memory", mib(m.memory_kib)),
            pair("CPUs allowed", &*m.cpus_allowed),
            pair("workers", pinned),
        ]);
        let limits = m.limits.iter().map(|(name, limit)| match limit {
            -1 => pair(name, "unlimited"),
            limit => pair(name, limit.to_string()),
        });
        rows.extend(limits);
        page.push_str("<section><h2>Manifest</h2>");
        table(page, &[], &rows);
        let parameters = self.parameters.iter().map(|(name, value)| pair(name, value.to_string()));
        details(page, "Options of the run", &parameters.collect::<Vec<_>>());
        let sysctls = m.sysctls.iter().map(|(name, value)| pair(name, &**value));
        details(page, "Settings of the kernel", &sysctls.collect::<Vec<_>>());
        page.push_str("</section>\n");
    }
}

fn details(page: &mut String, title: &str, rows: &[Vec<Cell>]) {
    if !rows.is_empty() {
        let _ = write!(page, "<details><summary>{}</summary>", escape(title));
        table(page, &[], rows);
        page.push_str("</details>");
    }
}

fn time_row(label: &str, timing: &Timing) -> Option<Vec<Cell>> {
    let figure = |quantile| Cell::Figure(short(timing.quantile_ms(quantile)));
    (!timing.is_empty()).then(|| {
        vec![
            Cell::Text(label.into()),
            figure(0.5),
            figure(0.9),
            figure(0.99),
            figure(0.999),
            Cell::Figure(short(timing.max_ms())),
            Cell::Figure(grouped(timing.count())),
        ]
    })
}

fn server_rows(server: &ServerUse) -> Vec<Vec<Cell>> {
    let looks = [
        ("before the calls", server.idle),
        ("all calls set up", server.up),
        ("after the recovery", server.recovered),
        ("at the end", server.after),
    ];
    let row = |label: &str, usage: Usage| {
        vec![
            Cell::Text(label.into()),
            Cell::Figure(format!("{:.2}", usage.cpu_seconds)),
            Cell::Figure(mib(usage.rss_kib)),
            Cell::Figure(mib(usage.rss_peak_kib)),
            Cell::Figure(grouped(usage.descriptors)),
        ]
    };
    looks.into_iter().filter_map(|(label, usage)| Some(row(label, usage?))).collect()
}
