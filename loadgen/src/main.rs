//! `loadgen`: measures how long SIP calls stay in danger when connections die, and how much a server
//! does.
//!
//! It plays all callers and all callees of a server on loopback addresses of this machine, one worker
//! for each core that it is given, and shares no code with the server.
//!
//! ```text
//! cli ─► setup (addresses, configuration), server (process), run ─► outcome (table, JSON, page, goals)
//!                                                             └─► worker: driver ─► load | drill
//! scenario (what calls do)  plan (when, and what goes wrong)             └─► engine ◄─► net
//! oracle (what must hold)                                      engine ─► message, name, text
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "a load generator measures by the clock and waits in real time"
)]

mod cli;
mod drill;
mod driver;
mod engine;
mod kernel;
mod limits;
mod load;
mod message;
mod name;
mod net;
mod oracle;
mod outcome;
mod plan;
mod run;
mod scenario;
mod server;
mod setup;
mod text;
mod usage;
mod work;
mod worker;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::run::Watch;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why there is no result.
#[derive(Debug)]
pub(crate) struct End {
    /// Exit status.
    pub(crate) status: u8,
    pub(crate) text: String,
}

impl End {
    /// The command line or the machine does not allow the run.
    pub(crate) fn usage(text: String) -> Self {
        Self { status: 2, text }
    }

    /// A signal ended it.
    pub(crate) fn interrupted() -> Self {
        Self::usage("interrupted".into())
    }
}

fn main() -> ExitCode {
    // clap ends a bad command line itself, with status 2 and the allowed range.
    let cli = Cli::parse();
    match command(&cli) {
        Ok(status) => ExitCode::from(status),
        Err(end) => {
            let _ = writeln!(std::io::stderr().lock(), "loadgen: {}", end.text);
            ExitCode::from(end.status)
        }
    }
}

fn command(cli: &Cli) -> Result<u8, End> {
    match &cli.command {
        Command::Drill(args) => work::drill(args),
        Command::Run(args) => work::run(args),
        Command::Scenarios { name } => work::scenarios(name.as_deref()),
        Command::Import { file } => work::import(file),
        Command::Compare(args) => work::compare(args),
    }
}

/// Writes to standard output.
///
/// # Errors
/// Nobody reads it.
pub(crate) fn print(text: &str) -> Result<(), End> {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|e| End::usage(format!("cannot write to standard output: {e}")))
}

/// Tells the operator something beside the result.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// As [`warn`], but without a lock: who hangs may do so while it writes there.
pub(crate) fn last_words(text: &str) {
    let _ = rustix::io::write(std::io::stderr(), format!("loadgen: {text}\n").as_bytes());
}

/// SIGINT and SIGTERM end the run in order, the server with it.
///
/// # Errors
/// A signal that cannot be caught.
pub(crate) fn catch_signals(watch: &Watch) -> Result<(), End> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&watch.stop))
            .map_err(|e| End::usage(format!("cannot catch signal {signal}: {e}")))?;
    }
    Ok(())
}

/// Ends a run that hangs so badly that it does not see its own timeout, and clears up after it.
/// Dropped when it is over.
pub(crate) fn watchdog(timeout: u32, watch: Watch) -> Sender<()> {
    // After a long run many events are read.
    let grace = Duration::from_secs(u64::from(15 + timeout / 5));
    let (over, wait) = channel();
    std::thread::spawn(move || {
        let limit = Duration::from_secs(timeout.into()) + grace;
        if wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            watch.clear_up();
            last_words(&format!("hung beyond its timeout of {timeout} s, ended"));
            std::process::exit(2);
        }
    });
    over
}
