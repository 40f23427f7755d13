//! One line that says how far the run is: refreshed on a terminal, at most one a second elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Writes to standard error.
pub(crate) struct Progress {
    terminal: bool,
    shown_at: Option<Instant>,
    last: String,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, shown_at: None, last: String::new() }
    }

    /// Shows `text()` when it is time to.
    pub(crate) fn show(&mut self, now: Instant, text: impl FnOnce() -> String) {
        let interval = Duration::from_millis(if self.terminal { 100 } else { 1000 });
        if self.shown_at.is_some_and(|at| now - at < interval) {
            return;
        }
        self.shown_at = Some(now);
        let text = text();
        if text == self.last {
            return;
        }
        let mut err = std::io::stderr().lock();
        let _ = match self.terminal {
            true => write!(err, "\r\x1b[K{text}").and_then(|()| err.flush()),
            false => writeln!(err, "{text}"),
        };
        self.last = text;
    }

    /// Clears the line for what is written next.
    pub(crate) fn end(&mut self) {
        if self.terminal && !self.last.is_empty() {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\x1b[K").and_then(|()| err.flush());
            self.last.clear();
        }
    }
}
