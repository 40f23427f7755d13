//! What is shown while a run goes on: lines redrawn on a terminal, or one line a second.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::gather::Line;
use super::text::{grouped, percent, short};

/// Draws to `W`, usually standard error.
#[derive(Debug)]
pub(crate) struct Live<W: Write> {
    out: W,
    look: Look,
    /// Lines that are on the screen and will be drawn over.
    drawn: usize,
    /// The end of the interval of the last plain line.
    shown_ms: u64,
    /// Share of calls that were safe, after each interval since the first fault.
    curve: VecDeque<f64>,
    /// Calls that were struck and that recovered, by the intervals.
    struck: u64,
    safe: u64,
}

/// How to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// The lines can be drawn over.
    pub(crate) terminal: bool,
    pub(crate) color: bool,
    /// Columns.
    pub(crate) width: usize,
}

/// Where no terminal is: a line at most this often.
const PLAIN_EVERY: Duration = Duration::from_secs(1);

/// Steps of the recovery curve that are kept; with more, each second one goes.
const CURVE_MAX: usize = 120;

/// The longest line on a terminal; a narrower one gets its lines cut.
const SCREEN_WIDTH: usize = 78;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

impl Look {
    /// As standard error and the environment (`NO_COLOR`, `TERM`) say.
    pub(crate) fn of_stderr() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        let terminal = std::io::stderr().is_terminal() && !dumb;
        let size = rustix::termios::tcgetwinsize(std::io::stderr());
        let width = size.map_or(0, |size| usize::from(size.ws_col));
        let width = if width == 0 { 80 } else { width };
        Self { terminal, color: terminal && set("NO_COLOR").is_none(), width }
    }
}

impl<W: Write> Live<W> {
    pub(crate) fn new(out: W, look: Look) -> Self {
        let curve = VecDeque::new();
        Self { out, look, drawn: 0, shown_ms: 0, curve, struck: 0, safe: 0 }
    }

    /// Shows an interval. Errors of a terminal are not errors of a run.
    pub(crate) fn show(&mut self, line: &Line) {
        self.grow_curve(line);
        let end = line.at_ms.saturating_add(line.interval_ms);
        if self.look.terminal {
            let lines = self.screen(line);
            self.erase();
            for text in &lines {
                // A line that wraps would be two to take away.
                let text = match self.look.width < SCREEN_WIDTH {
                    true => text.chars().take(self.look.width).collect(),
                    false => text.clone(),
                };
                let _ = writeln!(self.out, "{text}");
            }
            self.drawn = lines.len();
        } else if end >= self.shown_ms.saturating_add(PLAIN_EVERY.as_millis() as u64) {
            self.shown_ms = end;
            let text = self.plain(line);
            let _ = writeln!(self.out, "{text}");
        }
        let _ = self.out.flush();
    }

    /// Clears the screen's lines for what is written next.
    pub(crate) fn end(&mut self) {
        self.erase();
        let _ = self.out.flush();
    }

    fn erase(&mut self) {
        for _ in 0..std::mem::take(&mut self.drawn) {
            let _ = write!(self.out, "\x1b[1A\x1b[2K");
        }
    }

    fn grow_curve(&mut self, line: &Line) {
        self.struck += line.interval.endangered;
        self.safe += line.interval.recovered;
        if self.struck == 0 {
            return;
        }
        self.curve.push_back((self.safe as f64 / self.struck as f64).min(1.0));
        if self.curve.len() > CURVE_MAX {
            let mut keep = false;
            self.curve.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    fn plain(&self, line: &Line) -> String {
        let (interval, calls) = (&line.interval, &line.calls);
        let at = line.at_ms.saturating_add(line.interval_ms) as f64 / 1000.0;
        let mut text = format!(
            "{at:>7.1} s  {} calls/s, {} in flight, p50 {} ms, p99 {} ms, kept {}, lost {}, failed {}",
            short(a_second(interval.done, line)),
            grouped(line.in_flight),
            short(interval.response.p50_ms),
            short(interval.response.p99_ms),
            grouped(calls.kept),
            grouped(calls.lost),
            grouped(calls.failed),
        );
        if self.struck > 0 {
            text.push_str(&format!(", safe {}", percent(self.share())));
        }
        text
    }

    fn share(&self) -> f64 {
        (self.safe as f64 / self.struck.max(1) as f64).min(1.0)
    }

    fn screen(&self, line: &Line) -> Vec<String> {
        let (interval, calls) = (&line.interval, &line.calls);
        let at = line.at_ms.saturating_add(line.interval_ms) as f64 / 1000.0;
        let started = short(a_second(interval.started, line));
        let done = short(a_second(interval.done, line));
        let bad = calls.lost + calls.failed + calls.unknown;
        let bad = self.paint(if bad > 0 { "31" } else { "32" }, &grouped(bad));
        let mut lines = vec![
            format!(
                "{at:>7.1} s   started {started}/s   done {done}/s   in flight {}",
                grouped(line.in_flight)
            ),
            format!(
                "            p50 {} ms   p99 {} ms   generator {} of a core",
                short(interval.response.p50_ms),
                short(interval.response.p99_ms),
                percent(interval.busy)
            ),
            format!("            kept {}   lost or failed {bad}", grouped(calls.kept)),
        ];
        if self.struck > 0 {
            lines.push(format!(
                "            in danger {}   safe {}   connects {}/s",
                grouped(self.struck),
                self.paint("1", &percent(self.share())),
                short(a_second(interval.connects, line))
            ));
            lines.push(format!("            {}", self.paint("36", &self.bars())));
        }
        lines
    }

    /// The curve in one line, the newest part of it when it is longer than the screen.
    fn bars(&self) -> String {
        let room = self.look.width.saturating_sub(14);
        let skip = self.curve.len().saturating_sub(room);
        let bar = |share: &f64| BARS[((share * 7.0).floor() as usize).min(7)];
        self.curve.iter().skip(skip).map(bar).collect()
    }

    fn paint(&self, code: &str, text: &str) -> String {
        // Codes do not survive when lines are cut.
        match self.look.color && self.look.width >= SCREEN_WIDTH {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.into(),
        }
    }
}

fn a_second(count: u64, line: &Line) -> f64 {
    count as f64 * 1000.0 / line.interval_ms.max(1) as f64
}
