//! The outcome as one page that needs nothing else: styles, script and figures are inside.

mod chart;
mod plots;
mod tables;

use std::fmt::Write as _;

use super::result::{Outcome, Verdict};
use super::text::{escape, grouped, percent, short};

pub(super) use plots::recovery_curves;
pub(super) use tables::{Cell, table};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

impl Outcome {
    /// The page.
    pub(crate) fn to_html(&self) -> String {
        let title = format!("{} · scenario {}", self.command, self.scenario);
        let mut body = String::new();
        self.write_head(&mut body, &title);
        self.write_tiles(&mut body);
        self.write_plots(&mut body);
        self.write_tables(&mut body);
        let _ = write!(
            body,
            "<footer>holdfast loadgen {}; schema {}</footer>",
            escape(&self.manifest.loadgen_version),
            escape(&self.schema)
        );
        page(&title, &body)
    }

    fn write_head(&self, body: &mut String, title: &str) {
        let class = match self.verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::GeneratorLimited => "limited",
        };
        let _ = write!(
            body,
            "<header><div class=\"top\"><h1>{}</h1><span class=\"verdict {class}\">{}</span></div>",
            escape(title),
            self.verdict.text()
        );
        let _ = write!(
            body,
            "<p>{}; {} s measured; seed {}</p>",
            escape(&self.manifest.date),
            short(self.seconds),
            self.manifest.seed
        );
        if !self.reasons.is_empty() {
            body.push_str("<ul class=\"reasons\">");
            for reason in &self.reasons {
                let _ = write!(body, "<li>{}</li>", escape(reason));
            }
            body.push_str("</ul>");
        }
        body.push_str("</header>\n");
    }

    fn write_tiles(&self, body: &mut String) {
        let calls = &self.calls;
        let mut tiles =
            vec![(grouped(calls.kept), "calls kept"), (grouped(calls.lost), "calls lost")];
        let other = calls.failed.saturating_add(calls.unknown).saturating_add(calls.released);
        if other > 0 {
            tiles.push((grouped(other), "failed, unknown, released"));
        }
        if let Some(recovery) = &self.recovery {
            let share = recovery.safe as f64 / recovery.endangered.max(1) as f64;
            tiles.push((percent(share), "of calls in danger safe again"));
            let excess = recovery.excess.quantile_ms(0.99);
            tiles.push((format!("{} ms", short(excess)), "p99 beyond the delay"));
        }
        tiles.push((format!("{}/s", short(self.done_per_second)), "calls done"));
        let most = self.response.iter().max_by_key(|(_, response)| response.corrected.count());
        let p99 = most.map(|(name, response)| (name, response.corrected.quantile_ms(0.99)));
        body.push_str("<div class=\"tiles\">");
        for (value, label) in tiles {
            let _ = write!(body, "<div class=\"tile\"><b>{value}</b><span>{label}</span></div>");
        }
        if let Some((name, p99)) = p99 {
            let (value, name) = (short(p99), escape(name));
            let _ = write!(
                body,
                "<div class=\"tile\"><b>{value} ms</b><span>p99 of {name}</span></div>"
            );
        }
        body.push_str("</div>\n");
    }
}

/// A whole document around `body`.
pub(super) fn page(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'\"/>\
         <title>{}</title><style>{STYLE}</style></head>\n<body><main>{body}</main>\
         <script>{SCRIPT}</script></body></html>\n",
        escape(title)
    )
}
