//! `holdfast`: the server's command line.

// Threads, files and the clock belong here, apart from the protocol core.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Parser, Subcommand};
use holdfast::control::config::Config;
use holdfast::control::expiry;
use holdfast::control::reload::Watched;
use holdfast::control::serve;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A SIP server that keeps established calls alive when the TCP connections under them fail.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server until SIGTERM or SIGINT.
    #[command(after_help = SERVE_HELP)]
    Serve {
        /// The configuration file, TOML.
        #[arg(long, short, value_name = "FILE", default_value = "holdfast.toml")]
        config: PathBuf,
    },
    /// Validate a configuration and print every option in force with its origin.
    #[command(after_help = CHECK_HELP)]
    Check {
        /// The configuration file, TOML.
        #[arg(value_name = "FILE", default_value = "holdfast.toml")]
        file: PathBuf,
    },
}

const EXAMPLES: &str = "\
Examples:
  holdfast check holdfast.toml            is the file right, and what is in force?
  holdfast serve --config holdfast.toml   run

The smallest configuration that carries a call and keeps it:

  [server]
  listen = [\"tcp:192.0.2.1:5060\"]

  [TServer]
  retry-after-reliable-transport-error = 1000   # ms; without it nothing is kept

  [[device]]
  dn = \"7001\"
  type = \"Extension\"
  contact = \"sip:7001@192.0.2.7:5060;transport=tcp\"

  [[device]]
  dn = \"7002\"
  type = \"Extension\"
  contact = \"sip:7002@192.0.2.8:5060;transport=tcp\"

Every option: docs/OPTIONS.md. An example with all of them: docs/holdfast.toml.";

const SERVE_HELP: &str = "\
The configuration is validated first, as `holdfast check` does; nothing runs with a wrong one.

SIGTERM, SIGINT   no new calls; ends when no call is left, at the latest after drain-timeout
the same again    ends at once, with exit status 128 + the signal's number
SIGHUP            reads the configuration again, as does a change of the file; opens the events
                  file again. A wrong configuration changes nothing.
SIGUSR1           writes statistics to the log

Exit status: 0 ended as asked, 1 could not start or lost a shard.

Examples:
  holdfast serve
  holdfast serve --config /etc/holdfast/holdfast.toml";

const CHECK_HELP: &str = "\
Prints the options in force on stdout, as a configuration that says the same; warnings and errors
go to stderr, all of them, each with file and line. Exit status: 0 valid, 1 not valid.

Examples:
  holdfast check holdfast.toml
  holdfast check holdfast.toml > /dev/null    only warnings and errors
  holdfast check holdfast.toml | grep holdfast.toml:    only what the file sets";

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve { config } => run_server(&config),
        Command::Check { file } => check(&file),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

/// Loads a configuration; tells its warnings, or what is wrong with it.
fn load(file: &Path) -> Result<Config, ExitCode> {
    let config = Config::load(file).map_err(|problems| {
        tell(problems);
        ExitCode::FAILURE
    })?;
    for line in config.warnings.to_string().lines() {
        tell(format_args!("warning: {line}"));
    }
    Ok(config)
}

fn run_server(file: &Path) -> Result<(), ExitCode> {
    let watched = Watched::new(file);
    serve::run(load(file)?, watched).map_err(|error| {
        let code = error.exit_code();
        tell(error);
        ExitCode::from(code)
    })
}

fn check(file: &Path) -> Result<(), ExitCode> {
    let config = load(file)?;
    config.tls_contexts().map_err(|error| {
        tell(format_args!("{}: [tls] {error}", file.display()));
        ExitCode::FAILURE
    })?;
    for line in expiry::warnings(&config, SystemTime::now()) {
        tell(format_args!("warning: {}: {line}", file.display()));
    }
    match config.write_effective(&mut BufWriter::new(io::stdout().lock())) {
        // The reader of a pipe that has seen enough is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            tell(format_args!("cannot write to stdout: {error}"));
            Err(ExitCode::FAILURE)
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a line to stderr. When even that fails there is nobody left to tell.
fn tell(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
