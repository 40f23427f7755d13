//! From the configuration to the last line of the log.
//!
//! | signal | what happens |
//! |---|---|
//! | SIGTERM, SIGINT | no new calls; ends when no call is left, or a little after `drain-timeout` |
//! | the same again | ends at once, exit code 128 + its number |
//! | SIGHUP | reads the configuration again, opens the events file again |
//! | SIGUSR1 | one line of statistics for each shard, and their sum |

use std::fmt;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, interval, sleep_until, timeout};
use tracing_subscriber::EnvFilter;

use super::config::{Config, Cores};
use super::events::{self, Events};
use super::expiry;
use super::hindrances::{self, Snapshot};
use super::limits::{self, LimitError};
use super::metrics::{self, Sources};
use super::names::Names;
use super::reload::{self, InForce, Reloads, Watch, Watched};
use super::stats;
use crate::key::ShardId;
use crate::net::CLOSE_TIMEOUT;
use crate::shard::{self, Command, Handle, Plan, Report, Shards, StartError, cores};
use crate::target::Target;

/// What is logged where `RUST_LOG` says nothing. The resolver would have a line for each bad datagram.
const LOGGED: &str = "info,hickory_net=error";
/// After the deadline of a drain: time for the answers to the last BYEs.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// How long shards may take to end once they are told to.
const STOP_TIMEOUT: Duration = CLOSE_TIMEOUT.saturating_mul(3);

/// Why the server ended, when it was not asked to or could not wait.
#[derive(Debug)]
pub enum ServeError {
    /// The environment does not allow enough.
    Limit(LimitError),
    /// The shards did not start.
    Start(StartError),
    /// Events or metrics have nowhere to go; the text names it.
    Outlet(String),
    /// The control runtime could not be made.
    Runtime(io::Error),
    /// A shard ended on its own: a panic, which is a bug.
    ShardDied(ShardId),
    /// A second signal of this number cut the drain short.
    Signalled(i32),
}

impl ServeError {
    /// The exit code of the process: 128 and the number for a signal, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Signalled(number) => u8::try_from(128 + number).unwrap_or(1),
            Self::Limit(_)
            | Self::Start(_)
            | Self::Outlet(_)
            | Self::Runtime(_)
            | Self::ShardDied(_) => 1,
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(error) => error.fmt(f),
            Self::Start(error) => error.fmt(f),
            Self::Outlet(text) => f.write_str(text),
            Self::Runtime(error) => write!(f, "cannot start the control thread: {error}"),
            Self::ShardDied(ShardId(shard)) => write!(f, "shard {shard} ended on its own"),
            Self::Signalled(number) => write!(f, "signal {number} cut the drain short"),
        }
    }
}

impl std::error::Error for ServeError {}

/// Serves until a signal ends it; `file` is where the configuration was loaded from, and is read
/// again when it changes. Logs to standard error, `RUST_LOG` says how much (`info`).
///
/// # Errors
/// What [`ServeError`] names; [`ServeError::exit_code`] is for the caller to use.
pub fn run(config: Config, file: Watched) -> Result<(), ServeError> {
    // A test may have set one already.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .try_init();

    set_huge_pages(config.server.huge_pages);
    let cores = match &config.server.cores {
        Cores::All => cores::available(),
        Cores::List(cores) => cores.clone(),
    };
    let flows =
        limits::prepare(cores.len(), config.server.listen.len()).map_err(ServeError::Limit)?;
    tell_hindrances(&config, &cores, flows);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    let signals = {
        let _context = runtime.enter();
        Signals::new().map_err(ServeError::Runtime)?
    };
    let outlets = events::open(&config.server.events).map_err(ServeError::Outlet)?;
    let metrics =
        config.server.metrics.map(metrics::listen).transpose().map_err(ServeError::Outlet)?;
    let (told, queue) = mpsc::channel(config.server.events.queue_max.max(1));
    // Before they are read: what changes meanwhile is seen.
    let tls_files = Watched::all(&config.tls_files());
    let tls = config.tls_contexts().map_err(|error| ServeError::Outlet(error.to_string()))?;
    let in_force = runtime.block_on(look_up(config)).map_err(ServeError::Runtime)?;
    let config = &in_force.config;
    let plan = Plan {
        tls,
        listen: config.server.listen.clone(),
        cores,
        options: in_force.options(),
        events: config.server.events.wanted().then_some(told),
    };
    let shards = shard::start(plan).map_err(ServeError::Start)?;
    let events = if config.server.events.wanted() {
        let events = Events::start(outlets, queue, shards.handle().clone());
        Some(events.map_err(ServeError::Runtime)?)
    } else {
        None
    };
    let addresses: Vec<_> = shards.listen().iter().map(Target::to_string).collect();
    tracing::info!("listening on {} with {} shards", addresses.join(" "), shards.handle().count());
    let reloads = Arc::new(Reloads::default());
    if let Some(listener) = metrics {
        let counts = events.as_ref().map(|events| Arc::clone(&events.counts));
        let (shards, reloads) = (shards.handle().clone(), Arc::clone(&reloads));
        let lookups = Arc::clone(&in_force.names.lookups);
        let sources = Sources { shards, reloads, lookups, events: counts };
        runtime.spawn(metrics::serve(listener, sources));
    }
    let (watch, expiry) = {
        let _context = runtime.enter();
        // The first look is at once.
        (Watch::new(file, tls_files), interval(expiry::LOOK_EVERY))
    };
    let ended = runtime.block_on(supervise(
        shards,
        signals,
        Running { in_force, watch, reloads, events: events.as_ref(), expiry },
    ));
    if let (Some(events), Ok(())) = (events, &ended) {
        events.join();
    }
    ended
}

/// The first touch of a huge page clears 2 MiB, and a shard that waits for it answers nobody. The
/// kernel lets a process do without; what its parent chose, it inherits.
fn set_huge_pages(on: bool) {
    if let Err(error) = nix::sys::prctl::set_thp_disable(!on) {
        let state = if on { "on" } else { "off" };
        tracing::warn!("cannot switch huge pages {state}: {error}");
    }
}

/// A line for each thing that holds the server back; `flows` is for how many each shard has descriptors.
fn tell_hindrances(config: &Config, cores: &[usize], flows: u64) {
    let listen = &config.server.listen;
    let flows_max = u64::from(config.options.limits.flows_max);
    let mut seen = Snapshot {
        beyond_loopback: listen.iter().any(|target| !target.address.ip().is_loopback()),
        memlock: limits::memlock(),
        flows,
        flows_max,
        nofile_wanted: limits::descriptors(cores.len(), listen.len(), flows_max),
        ..Snapshot::read(Path::new("/"), cores.to_vec())
    };
    seen.huge_pages &= config.server.huge_pages;
    if let Some(line) = hindrances::descriptors(&seen) {
        tracing::warn!("{line}");
    }
    for line in hindrances::find(&seen) {
        tracing::info!("{line}");
    }
}

/// The configuration with its names looked up, as far as DNS answers soon.
async fn look_up(config: Config) -> io::Result<InForce> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::from)?;
    let mut names = Names::new(&config, seed);
    names.first_answers().await;
    Ok(InForce::new(config, names))
}

/// What is in force, and what changes it.
struct Running<'a> {
    in_force: InForce,
    watch: Watch,
    reloads: Arc<Reloads>,
    events: Option<&'a Events>,
    /// When to look how long our certificates are good for.
    expiry: Interval,
}

impl Running<'_> {
    async fn reload(&mut self, shards: &Handle) {
        reload::reload(&mut self.watch, &mut self.in_force, shards, &self.reloads).await;
        self.expiry.reset_immediately();
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }
}

/// Where the server is in its life.
enum Phase {
    Serving,
    Draining { drained: usize, give_up: Instant },
}

async fn supervise(
    mut shards: Shards,
    mut signals: Signals,
    mut running: Running<'_>,
) -> Result<(), ServeError> {
    let mut phase = Phase::Serving;
    let mut died = None;
    loop {
        let give_up = match phase {
            Phase::Serving => None,
            Phase::Draining { drained, .. } if drained >= shards.handle().count() => break,
            Phase::Draining { give_up, .. } => Some(give_up),
        };
        let number = tokio::select! {
            _ = signals.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = signals.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = signals.hangup.recv() => {
                if let Some(events) = running.events {
                    events.reopen();
                }
                running.reload(shards.handle()).await;
                continue;
            }
            () = running.watch.changed() => {
                running.reload(shards.handle()).await;
                continue;
            }
            _ = running.expiry.tick() => {
                for line in expiry::warnings(&running.in_force.config, SystemTime::now()) {
                    tracing::warn!("{line}");
                }
                continue;
            }
            () = running.in_force.names.changed() => {
                running.in_force.tell(shards.handle()).await;
                continue;
            }
            _ = signals.user1.recv() => {
                stats::log(&shards.handle().snapshots().await);
                continue;
            }
            report = shards.report() => {
                match report {
                    Some(Report::Drained(ShardId(shard))) => {
                        tracing::info!(shard, "drained");
                        if let Phase::Draining { drained, .. } = &mut phase {
                            *drained += 1;
                        }
                    }
                    Some(Report::Ended(shard, _)) => {
                        // Its listeners stay open and accept nothing: better a new process.
                        tracing::error!(shard = shard.0, "shard ended on its own");
                        died = Some(shard);
                        break;
                    }
                    Some(Report::Listening(_) | Report::Failed(..)) => {}
                    None => break,
                }
                continue;
            }
            () = async { sleep_until(give_up.unwrap_or_else(Instant::now)).await },
                if give_up.is_some() =>
            {
                tracing::warn!("calls were left when the drain was given up");
                break;
            }
        };
        match phase {
            Phase::Serving => {
                let patience = running.in_force.config.server.drain_timeout;
                tracing::info!(signal = number, ?patience, "draining");
                shards.handle().tell(|| Command::Drain { patience }).await;
                let give_up = Instant::now() + patience + DRAIN_GRACE;
                phase = Phase::Draining { drained: 0, give_up };
            }
            Phase::Draining { .. } => return Err(ServeError::Signalled(number)),
        }
    }
    let alive = shards.handle().count() - usize::from(died.is_some());
    stop(shards, signals, alive).await?;
    died.map_or(Ok(()), |shard| Err(ServeError::ShardDied(shard)))
}

/// Ends the shards and says what they counted.
async fn stop(mut shards: Shards, mut signals: Signals, alive: usize) -> Result<(), ServeError> {
    shards.handle().tell(|| Command::Stop).await;
    let mut last = Vec::new();
    let mut ended = 0;
    let all = timeout(STOP_TIMEOUT, async {
        while ended < alive {
            tokio::select! {
                report = shards.report() => match report {
                    Some(Report::Ended(_, snapshot)) => {
                        ended += 1;
                        last.extend(snapshot.map(|snapshot| *snapshot));
                    }
                    Some(_) => {}
                    None => break,
                },
                _ = signals.terminate.recv() => return Some(SignalKind::terminate()),
                _ = signals.interrupt.recv() => return Some(SignalKind::interrupt()),
            }
        }
        None
    })
    .await;
    match all {
        Ok(None) => shards.join(),
        Ok(Some(signal)) => return Err(ServeError::Signalled(signal.as_raw_value())),
        Err(_) => tracing::warn!("shards were left behind: they did not end in time"),
    }
    last.sort_by_key(|snapshot| snapshot.shard);
    stats::log(&last);
    Ok(())
}
