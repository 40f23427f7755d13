//! `loadgen`: measures how long SIP calls stay in danger when connections die.
//!
//! It plays all callers and all callees of a server on loopback addresses of this machine, on one
//! thread, and shares no code with the server.
//!
//! ```text
//! args ─► run (addresses, server's process, rounds) ─► drill | bench ─► report
//!           └─► wire (sockets) ─► engine (caller, callee) ─► message, name, text
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "a load generator measures by the clock and waits in real time"
)]

mod args;
mod bench;
mod callee;
mod caller;
mod drill;
mod engine;
mod figures;
mod limits;
mod message;
mod name;
mod progress;
mod report;
mod run;
mod server;
mod text;
mod usage;
mod wire;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use clap::Parser;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use crate::args::{Cli, Command, Common};
use crate::report::Verdict;
use crate::run::{Plan, Watch};

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
}

fn main() -> ExitCode {
    // clap ends a bad command line itself, with status 2 and the allowed range.
    let cli = Cli::parse();
    match run(&cli) {
        Ok(Verdict::Pass) => ExitCode::SUCCESS,
        Ok(Verdict::Fail) => ExitCode::from(1),
        Err(end) => {
            let _ = writeln!(std::io::stderr().lock(), "loadgen: {}", end.text);
            ExitCode::from(end.status)
        }
    }
}

fn run(cli: &Cli) -> Result<Verdict, End> {
    let (common, delay, window) = match &cli.command {
        Command::Drill(args) => (&args.common, args.delay, args.window),
        Command::Calls(args) => (&args.common, 500, 0),
        Command::Reinvites(args) => (&args.common, 500, 0),
    };
    let plan = Plan::new(common, delay, window)?;
    if common.print_config {
        print(&plan.config)?;
        return Ok(Verdict::Pass);
    }
    limits::allow_descriptors(common.callee_connections, common.caller_connections)?;
    let watch = Watch::default();
    catch_signals(&watch)?;
    let _watchdog = watchdog(common.timeout, watch.clone());
    let server = run::server(&plan, common, &watch)?;
    let executor = executor(common)?;
    let (verdict, table, json) = match &cli.command {
        Command::Drill(args) => {
            let drilled = executor.run(drill::run(args, plan, server, &watch))?;
            (drilled.verdict, drilled.table(), serde_json::to_vec_pretty(&drilled))
        }
        Command::Calls(args) => {
            let benched = executor.run(bench::calls(args, plan, server, &watch))?;
            (benched.verdict, benched.table(), serde_json::to_vec_pretty(&benched))
        }
        Command::Reinvites(args) => {
            let benched = executor.run(bench::reinvites(args, plan, server, &watch))?;
            (benched.verdict, benched.table(), serde_json::to_vec_pretty(&benched))
        }
    };
    print(&table)?;
    if let Some(file) = &common.json {
        let bytes = json.map_err(|e| End::usage(format!("cannot write the figures: {e}")))?;
        write_json(file, bytes)?;
    }
    Ok(verdict)
}

fn print(text: &str) -> Result<(), End> {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|e| End::usage(format!("cannot write to standard output: {e}")))
}

fn write_json(file: &Path, mut bytes: Vec<u8>) -> Result<(), End> {
    bytes.push(b'\n');
    std::fs::write(file, bytes)
        .map_err(|e| End::usage(format!("cannot write {}: {e}", file.display())))
}

fn executor(common: &Common) -> Result<LocalExecutor, End> {
    let placement = match common.core {
        Some(core) => Placement::Fixed(core.into()),
        None => Placement::Unbound,
    };
    LocalExecutorBuilder::new(placement)
        .name("loadgen")
        .io_memory(1 << 20)
        .ring_depth(512)
        // glommio 0.9 may sleep on runnable tasks when this timer fires at the wrong moment.
        .preempt_timer(Duration::from_secs(1))
        .make()
        .map_err(|e| End::usage(format!("cannot make an io_uring executor: {e}")))
}

/// SIGINT and SIGTERM end the run in order, the server with it.
fn catch_signals(watch: &Watch) -> Result<(), End> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&watch.stop))
            .map_err(|e| End::usage(format!("cannot catch signal {signal}: {e}")))?;
    }
    Ok(())
}

/// Ends a run that hangs so badly that it does not see its own timeout. Dropped when it is over.
fn watchdog(timeout: u32, watch: Watch) -> Sender<()> {
    const GRACE: Duration = Duration::from_secs(15);
    let (over, wait) = channel();
    std::thread::spawn(move || {
        let limit = Duration::from_secs(timeout.into()) + GRACE;
        if wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            let pid = watch.server.load(Ordering::Relaxed);
            if pid != 0 {
                server::terminate(pid);
            }
            let mut err = std::io::stderr().lock();
            let _ = writeln!(err, "loadgen: hung beyond its timeout of {timeout} s, ended");
            std::process::exit(2);
        }
    });
    over
}
