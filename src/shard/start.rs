//! Starting shards, and speaking to them from another thread.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};
use tokio::sync::{mpsc, oneshot};

use super::alarm::{self, Alarm};
use super::clock::{self, Clock};
use super::crowd::Crowd;
use super::feed::{Feed, Told};
use super::mesh::{self, Link, Mesh};
use super::{Protocol, Shard, Snapshot, cores};
use crate::cti;
use crate::key::ShardId;
use crate::net::tls::Contexts;
use crate::net::{CLOSE_TIMEOUT, Host, Net, tcp, udp};
use crate::options::Options;
use crate::sip::{Endpoint, Input};
use crate::target::{Target, Transport};

/// What to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where every shard listens. Port 0 stands for a free port.
    pub listen: Vec<Target>,
    /// The core of each shard, one entry a shard; a core may be named several times.
    pub cores: Vec<usize>,
    /// The options in force at first.
    pub options: Arc<Options>,
    /// What TLS needs; `None`: nothing is served or reached over TLS.
    pub tls: Option<Contexts>,
    /// Where events go, if anybody is to be told of them.
    pub events: Option<mpsc::Sender<Told>>,
}

/// What the control thread tells a shard.
#[derive(Debug)]
pub enum Command {
    /// New options.
    Options(Arc<Options>),
    /// New certificates and authorities, for handshakes from now on.
    Tls(Contexts),
    /// No new calls; after `patience` what is left is released.
    Drain {
        /// From now to the deadline.
        patience: Duration,
    },
    /// Something is asked of one of its calls.
    Request(cti::Request),
    /// Says what it holds.
    Stats(oneshot::Sender<Snapshot>),
    /// Closes every flow and ends.
    Stop,
}

/// What a shard tells the control thread.
#[derive(Debug)]
pub enum Report {
    /// All listeners are bound.
    Listening(ShardId),
    /// It cannot start.
    Failed(ShardId, String),
    /// The drain is over: no call and no transaction is left.
    Drained(ShardId),
    /// It has ended, with what it counted; `None`: it did not end in order.
    Ended(ShardId, Option<Box<Snapshot>>),
}

/// Why the shards did not start.
#[derive(Debug)]
pub enum StartError {
    /// The plan names a core that does not exist, or that this process may not use.
    NoSuchCore {
        /// The core.
        core: usize,
        /// Those there are.
        available: Vec<usize>,
    },
    /// The plan names no core.
    NoCore,
    /// More shards than a shard number can name.
    TooManyShards(usize),
    /// A listener cannot be bound; the text names the address and the remedy.
    Listen(String),
    /// The kernel gives no entropy.
    Entropy(io::Error),
    /// An executor cannot be made.
    Executor(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCore { core, available } => {
                let available = cores::format_list(available);
                write!(f, "there is no core {core} for a shard: this process may use {available}")
            }
            Self::NoCore => f.write_str("no core is named: there must be one for each shard"),
            Self::TooManyShards(shards) => {
                write!(f, "{shards} shards are above the limit of {SHARDS_MAX}")
            }
            Self::Listen(text) | Self::Executor(text) => f.write_str(text),
            Self::Entropy(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// Shards of one server: each pair has a queue.
pub const SHARDS_MAX: usize = 256;

/// Commands that wait for a shard; the control thread waits for room.
const COMMANDS_MAX: usize = 16;
/// Reports of one shard that wait for the control thread.
const REPORTS_MAX: usize = 16;
/// glommio's preemption timer. glommio 0.9 goes to sleep on tasks that are ready to run when this
/// timer fires between the look at the rings and the first task: with 1 ms, on a busy machine,
/// shards stood still for seconds. Nothing here needs the timer, because no task wakes itself
/// (see `net::next_round`), so it is as long as makes that improbable; the heartbeat of the
/// [`alarm`] ends what is left of it.
const PREEMPT: Duration = Duration::from_secs(1);
/// How often a shard that ends looks whether its flows have.
const STOP_PAUSE: Duration = Duration::from_millis(2);
/// Memory an executor registers for file buffers, of which there are none: the least it takes.
const IO_MEMORY: usize = 64 << 10;

/// The way to running shards, as often as it is needed.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: Arc<[mpsc::Sender<Command>]>,
}

impl Handle {
    /// How many shards there are.
    pub fn count(&self) -> usize {
        self.commands.len()
    }

    /// Tells every shard the same thing. A shard that has ended hears nothing.
    pub async fn tell(&self, command: impl Fn() -> Command) {
        for shard in self.commands.iter() {
            let _ = shard.send(command()).await;
        }
    }

    /// Asks something of a call of a shard. False when there is no such shard any more.
    pub async fn request(&self, shard: ShardId, request: cti::Request) -> bool {
        match self.commands.get(usize::from(shard.0)) {
            Some(shard) => shard.send(Command::Request(request)).await.is_ok(),
            None => false,
        }
    }

    /// What each shard holds, when all that it was told before is in force; shards that have ended
    /// are left out.
    pub async fn snapshots(&self) -> Vec<Snapshot> {
        let mut snapshots = Vec::with_capacity(self.count());
        for shard in self.commands.iter() {
            let (reply, answer) = oneshot::channel();
            if shard.send(Command::Stats(reply)).await.is_ok()
                && let Ok(snapshot) = answer.await
            {
                snapshots.push(snapshot);
            }
        }
        snapshots
    }

    /// Commands that wait for each shard.
    pub fn queued(&self) -> impl Iterator<Item = usize> {
        self.commands.iter().map(|shard| shard.max_capacity() - shard.capacity())
    }
}

/// Running shards.
pub struct Shards {
    handle: Handle,
    reports: mpsc::Receiver<Report>,
    threads: Vec<JoinHandle<Result<(), String>>>,
    listen: Vec<Target>,
}

impl Shards {
    /// The way to them.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where they listen, with the ports that port 0 became.
    pub fn listen(&self) -> &[Target] {
        &self.listen
    }

    /// The next report; `None` when all shards have ended.
    pub async fn report(&mut self) -> Option<Report> {
        self.reports.recv().await
    }

    /// Waits for the threads. Call it when every shard was told to stop.
    pub fn join(self) {
        drop(self.handle);
        for thread in self.threads {
            // How it ended was reported.
            let _ = thread.join();
        }
    }
}

/// Starts one shard on each core of the plan and waits until all listen.
///
/// # Errors
/// What [`StartError`] names; no shard runs then.
pub fn start(plan: Plan) -> Result<Shards, StartError> {
    start_with(plan, Endpoint::new)
}

/// [`start`] with another protocol.
pub(crate) fn start_with<P: Protocol>(
    plan: Plan,
    make: impl Fn(ShardId, [u8; 32], Arc<Options>) -> P + Clone + Send + 'static,
) -> Result<Shards, StartError> {
    let available = cores::available();
    if plan.cores.is_empty() {
        return Err(StartError::NoCore);
    }
    if plan.cores.len() > SHARDS_MAX {
        return Err(StartError::TooManyShards(plan.cores.len()));
    }
    if let Some(&core) = plan.cores.iter().find(|core| !available.contains(core)) {
        return Err(StartError::NoSuchCore { core, available });
    }
    let listen = plan
        .listen
        .iter()
        .map(|&Target { transport, address }| {
            let bound = match transport {
                Transport::Tcp | Transport::Tls => tcp::probe(address),
                Transport::Udp => udp::probe(address),
            };
            bound
                .map(|address| Target { transport, address })
                .map_err(|error| StartError::Listen(tcp::bind_error(address, &error)))
        })
        .collect::<Result<Vec<_>, _>>()?;

    let shards = plan.cores.len();
    let (report, reports) = mpsc::channel(REPORTS_MAX * shards);
    let (mut commands_of, mut threads) = (Vec::with_capacity(shards), Vec::with_capacity(shards));
    for (number, links) in mesh::links(shards).into_iter().enumerate() {
        let id = ShardId(number as u16);
        let seed = clock::seed().map_err(StartError::Entropy)?;
        let (command, commands) = mpsc::channel(COMMANDS_MAX);
        let make = make.clone();
        let options = Arc::clone(&plan.options);
        let birth = Birth {
            id,
            listen: listen.clone(),
            options: Arc::clone(&options),
            tls: plan.tls.clone(),
            events: plan.events.clone(),
            links,
            commands,
            reports: Reports { to: report.clone() },
        };
        let core = plan.cores[number];
        let thread = thread::Builder::new()
            .name(format!("shard-{number}"))
            .spawn(move || birth.run(core, move || make(id, seed, options)))
            .map_err(|error| StartError::Executor(executor_error(&error.to_string())))?;
        commands_of.push(command);
        threads.push(thread);
    }
    drop(report);
    let handle = Handle { commands: commands_of.into() };
    Shards { handle, reports, threads, listen }.wait_until_listening()
}

impl Shards {
    fn wait_until_listening(mut self) -> Result<Self, StartError> {
        for _ in 0..self.handle.count() {
            match self.reports.blocking_recv() {
                Some(Report::Listening(_)) => {}
                Some(Report::Failed(_, text)) => {
                    self.join();
                    return Err(StartError::Listen(text));
                }
                Some(Report::Ended(..) | Report::Drained(_)) | None => {
                    drop(self.handle);
                    let text = self.threads.into_iter().find_map(|thread| match thread.join() {
                        Ok(ended) => ended.err(),
                        Err(_) => Some("the thread of a shard panicked".to_owned()),
                    });
                    let text = text.unwrap_or_else(|| "a shard ended early".to_owned());
                    return Err(StartError::Executor(executor_error(&text)));
                }
            }
        }
        Ok(self)
    }
}

fn executor_error(text: &str) -> String {
    format!("cannot make an io_uring executor: {text}, see tuning/README.md")
}

/// A shard's way to the control thread.
#[derive(Clone)]
pub(super) struct Reports {
    to: mpsc::Sender<Report>,
}

impl Reports {
    /// The drain is over.
    pub(super) fn drained(&self, shard: ShardId) {
        self.say(Report::Drained(shard));
    }

    fn say(&self, report: Report) {
        // A full queue means that the control thread is gone; it has no use for more.
        let _ = self.to.try_send(report);
    }
}

/// Says how the shard ended, also when its thread unwinds: a panic leaves tasks behind that are
/// never dropped, so no task can be trusted with it.
struct End {
    id: ShardId,
    reports: Reports,
    /// What it counted, when it ended in order.
    last: Option<Box<Snapshot>>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.reports.say(Report::Ended(self.id, self.last.take()));
    }
}

/// What a shard is born with.
struct Birth {
    id: ShardId,
    listen: Vec<Target>,
    options: Arc<Options>,
    tls: Option<Contexts>,
    events: Option<mpsc::Sender<Told>>,
    links: Vec<Option<Link>>,
    commands: mpsc::Receiver<Command>,
    reports: Reports,
}

impl Birth {
    /// The life of the shard's thread.
    fn run<P: Protocol>(self, core: usize, make: impl FnOnce() -> P) -> Result<(), String> {
        let mut end = End { id: self.id, reports: self.reports.clone(), last: None };
        let executor = LocalExecutorBuilder::new(Placement::Fixed(core))
            .io_memory(IO_MEMORY)
            .preempt_timer(PREEMPT)
            .make()
            .map_err(|error| error.to_string())?;
        end.last = executor.run(self.live(make)).map(Box::new);
        Ok(())
    }

    async fn live<P: Protocol>(mut self, make: impl FnOnce() -> P) -> Option<Snapshot> {
        // The first sleep of an executor takes tens of milliseconds longer than the others.
        glommio::timer::sleep(Duration::from_millis(1)).await;
        let mut listeners = Vec::new();
        let mut datagrams = Vec::new();
        for &Target { transport, address } in &self.listen {
            let bound = match transport {
                Transport::Tcp | Transport::Tls => {
                    let listen = Target { transport, address };
                    tcp::listen(address).map(|listener| listeners.push((listen, listener)))
                }
                Transport::Udp => udp::bind(address).map(|it| datagrams.push(Rc::new(it))),
            };
            match bound {
                Ok(()) => {}
                Err(error) => {
                    let text = tcp::bind_error(address, &error);
                    self.reports.say(Report::Failed(self.id, text));
                    return None;
                }
            }
        }
        let shard = Rc::new(Shard {
            id: self.id,
            clock: Clock::start(),
            protocol: make().into(),
            actions: Default::default(),
            places: Default::default(),
            after: Default::default(),
            net: Net::new(&self.options, datagrams.clone()),
            mesh: Mesh::new(self.id, self.links.len()),
            alarm: Alarm::default(),
            feed: Feed::new(self.events),
            crowd: Crowd::default(),
            draining: false.into(),
            reports: self.reports,
        });
        if let Some(contexts) = self.tls {
            shard.net.set_tls(contexts);
        }
        mesh::spawn(&shard, self.links);
        glommio::spawn_local(alarm::run(Rc::clone(&shard))).detach();
        let accepting = listeners.into_iter().map(|(listen, listener)| {
            glommio::spawn_local(tcp::accept_all(Rc::clone(&shard), listener, listen))
        });
        let reading = datagrams
            .into_iter()
            .map(|socket| glommio::spawn_local(udp::read_all(Rc::clone(&shard), socket)));
        let accepting: Vec<_> = accepting.chain(reading).collect();
        shard.reports.say(Report::Listening(shard.id));
        serve(&shard, &mut self.commands, accepting).await;
        Some(shard.snapshot())
    }
}

/// Obeys the control thread until it says stop, or is gone.
async fn serve<P: Protocol>(
    shard: &Rc<Shard<P>>,
    commands: &mut mpsc::Receiver<Command>,
    accepting: Vec<glommio::Task<()>>,
) {
    loop {
        match commands.recv().await {
            Some(Command::Options(options)) => shard.set_options(options),
            Some(Command::Tls(contexts)) => shard.net.set_tls(contexts),
            Some(Command::Drain { patience }) => shard.drain(patience),
            Some(Command::Request(request)) => shard.turn(Input::Request(request)),
            Some(Command::Stats(reply)) => {
                let _ = reply.send(shard.snapshot());
            }
            Some(Command::Stop) | None => break,
        }
    }
    for task in accepting {
        task.cancel().await;
    }
    let began = shard.now();
    shard.net.end_all(began);
    shard.rearm();
    // At least once: a cancelled accept holds its listener until the ring has heard of it, and the
    // next server could not bind the address.
    loop {
        glommio::timer::sleep(STOP_PAUSE).await;
        if shard.net.flows() == 0 || shard.now().since(began) > CLOSE_TIMEOUT * 2 {
            break;
        }
    }
}
