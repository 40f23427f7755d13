//! What every command does: addresses, server, connections, and rounds with a deadline.
#![allow(
    clippy::disallowed_methods,
    reason = "a load generator measures by the clock and waits in real time"
)]

use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::End;
use crate::args::{self, Common};
use crate::engine::{Engine, Round, Side};
use crate::progress::Progress;
use crate::server::{self, Options, Server};
use crate::text::Party;
use crate::usage::Usage;
use crate::wire::{Listening, Wire};

/// Between two looks at a round.
const TICK: Duration = Duration::from_millis(1);
/// A round that gets no further for so long is given up.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(10);
/// Port of the parties when the server was configured by somebody else.
const PORT_DEFAULT: u16 = 5070;
/// Between the start of the server and the look at its memory.
const IDLE: Duration = Duration::from_millis(300);

/// Who calls whom, before anything is opened.
pub(crate) struct Plan {
    pub(crate) callers: Vec<Party>,
    pub(crate) callees: Vec<Party>,
    pub(crate) server: SocketAddrV4,
    pub(crate) config: String,
    pub(crate) seed: u64,
    /// `seed` as it stands in names.
    pub(crate) run: u32,
    port: u16,
}

impl Plan {
    /// Chooses the addresses.
    ///
    /// # Errors
    /// No free port.
    pub(crate) fn new(common: &Common, delay: u32, window: u32) -> Result<Self, End> {
        let seed = common.seed.unwrap_or_else(seed_of_now);
        let port = match (common.port, common.server.is_some() || common.print_config) {
            (0, true) => PORT_DEFAULT,
            (0, false) => server::free_port(args::callee_address(0))?,
            (port, _) => port,
        };
        let party = |user: String, ip: std::net::Ipv4Addr| Party {
            user,
            host: ip.to_string(),
            sent_by: format!("{ip}:{port}"),
            conn: None,
        };
        let callees: Vec<Party> = (0..common.callee_connections)
            .map(|n| party(format!("{}", 70_001 + n), args::callee_address(n)))
            .collect();
        let callers: Vec<Party> = (0..common.caller_connections)
            .map(|n| party(format!("caller-{}-", n + 1), args::caller_address(n)))
            .collect();
        let server = match common.server {
            Some(address) => address,
            None if common.print_config => SocketAddrV4::new([127, 0, 0, 1].into(), 5060),
            None => {
                let ip = [127, 0, 0, 1].into();
                SocketAddrV4::new(ip, server::free_port(ip)?)
            }
        };
        let options = Options { listen: server, cores: &common.server_cores, delay, window };
        let config = server::config(options, &callers, &callees);
        let run = (mix(seed) >> 32) as u32;
        Ok(Self { callers, callees, server, config, seed, run, port })
    }
}

/// A run in progress.
pub(crate) struct Run {
    pub(crate) wire: Rc<Wire>,
    pub(crate) server: Server,
    pub(crate) progress: Progress,
    pub(crate) idle: Option<Usage>,
    /// The server ended before its time.
    pub(crate) server_lost: Option<String>,
    listening: Vec<Listening>,
    port: u16,
    deadline: Instant,
    timeout: u32,
    stop: Arc<AtomicBool>,
}

/// The server that was named, or one that is started.
///
/// Called before the executor pins this thread: a child inherits the CPUs of its parent.
///
/// # Errors
/// It cannot be started.
pub(crate) fn server(plan: &Plan, common: &Common, watch: &Watch) -> Result<Server, End> {
    if let Some(address) = common.server {
        return Ok(Server::running(address, common.server_pid));
    }
    let server = Server::start(&program(common)?, &plan.config, plan.server, plan.run)?;
    watch.server.store(server.pid.unwrap_or(0), Ordering::Relaxed);
    Ok(server)
}

impl Run {
    /// Opens every address and connects the callers.
    ///
    /// # Errors
    /// What the machine does not allow, or the server refuses.
    pub(crate) async fn begin(
        plan: Plan,
        server: Server,
        common: &Common,
        calls: u32,
        watch: &Watch,
    ) -> Result<Self, End> {
        let deadline = Instant::now() + Duration::from_secs(common.timeout.into());
        glommio::timer::sleep(IDLE).await;
        let idle = server.usage();
        if let (Some(pid), None) = (common.server_pid, idle) {
            return Err(End::usage(format!("--server-pid: there is no process {pid}")));
        }
        let Plan { callers, callees, run, port, .. } = plan;
        let (caller_count, callee_count) = (callers.len() as u32, callees.len() as u32);
        let engine =
            Engine::new(run, server.address.to_string(), callers, callees, calls, Instant::now());
        let mut this = Self {
            wire: Wire::new(engine),
            server,
            progress: Progress::new(),
            idle,
            server_lost: None,
            listening: Vec::new(),
            port,
            deadline,
            timeout: common.timeout,
            stop: Arc::clone(&watch.stop),
        };
        for party in 0..caller_count {
            let address = SocketAddr::from((args::caller_address(party), port));
            // Kept by its task: the server may open a connection to a caller, too.
            let listening = this.wire.listen(Side::Caller, party, address);
            this.listening.push(listening.map_err(|e| cannot_listen(address, &e))?);
        }
        this.listen_callees(callee_count)?;
        let server = SocketAddr::from(this.server.address);
        for party in 0..caller_count {
            let from = args::caller_address(party);
            this.wire.connect(party, from, server).map_err(|e| {
                End::usage(format!("no server at {server}: connecting from {from}: {e}"))
            })?;
        }
        Ok(this)
    }

    fn listen_callees(&mut self, count: u32) -> Result<(), End> {
        for party in 0..count {
            let address = SocketAddr::from((args::callee_address(party), self.port));
            let listening = self.wire.listen(Side::Callee, party, address);
            self.listening.push(listening.map_err(|e| cannot_listen(address, &e))?);
        }
        Ok(())
    }

    /// The callees refuse connections from now on.
    ///
    /// # Errors
    /// A port that stays open.
    pub(crate) async fn leave(&mut self) -> Result<(), End> {
        let callers = self.wire.engine.borrow().callers.len();
        self.listening.truncate(callers);
        let last = self.wire.engine.borrow().callees.len() as u32 - 1;
        // The ring lets go of a listener at its next turn; nobody connects before the reset.
        for _ in 0..200 {
            glommio::timer::sleep(Duration::from_millis(5)).await;
            let refuses = |party| {
                let address = SocketAddr::from((args::callee_address(party), self.port));
                std::net::TcpStream::connect_timeout(&address, STALL_MAX).is_err()
            };
            if refuses(last) && refuses(0) {
                return Ok(());
            }
        }
        Err(End::usage("a callee's port stays open although its listener was closed".into()))
    }

    /// The callees accept connections again.
    ///
    /// # Errors
    /// A port that somebody took meanwhile.
    pub(crate) fn come_back(&mut self) -> Result<(), End> {
        let callees = self.wire.engine.borrow().callees.len() as u32;
        self.listen_callees(callees)
    }

    /// Lets a moment pass and shows `text`.
    ///
    /// # Errors
    /// The overall timeout, or a signal to end.
    pub(crate) async fn tick(&mut self, text: impl FnOnce(&Engine) -> String) -> Result<(), End> {
        glommio::timer::sleep(TICK).await;
        let now = Instant::now();
        if self.stop.load(Ordering::Relaxed) {
            return Err(End::usage("interrupted".into()));
        }
        if now > self.deadline {
            let seconds = self.timeout;
            return Err(End::usage(format!("not finished after {seconds} s (--timeout)")));
        }
        if self.server_lost.is_none()
            && let Some(status) = self.server.has_ended()
        {
            let words = self.server.last_words();
            self.server_lost = Some(format!("the server ended during the run: {status}{words}"));
        }
        let engine = self.wire.engine.borrow();
        self.progress.show(now, || text(&engine));
        Ok(())
    }

    /// Waits for `duration` with ticks.
    ///
    /// # Errors
    /// As [`tick`](Self::tick).
    pub(crate) async fn wait(&mut self, duration: Duration, text: &str) -> Result<(), End> {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.tick(|_| text.into()).await?;
        }
        Ok(())
    }

    /// One step for every call; gives up what gets no further. How long it took.
    ///
    /// # Errors
    /// As [`tick`](Self::tick).
    pub(crate) async fn round(
        &mut self,
        label: &str,
        mut round: Round,
        rate: Option<u32>,
    ) -> Result<Duration, End> {
        let began = Instant::now();
        let (mut done, mut moved) = (0, began);
        if rate.is_some() {
            round.allowed = 0;
        }
        self.wire.with(|engine, now| engine.begin(round, now));
        loop {
            let over = self.wire.with(|engine, now| {
                if let Some(rate) = rate {
                    let micros = (now - began).as_micros() as u64;
                    engine.round.allowed = micros * u64::from(rate) / 1_000_000 + 1;
                }
                engine.pump(now);
                if engine.round.done != done {
                    (done, moved) = (engine.round.done, now);
                }
                engine.round_is_over()
            });
            if over {
                return Ok(began.elapsed());
            }
            if moved.elapsed() > STALL_MAX {
                self.wire.with(|engine, _| engine.abandon_round());
                return Ok(began.elapsed());
            }
            self.tick(|engine| {
                let (done, all) = (engine.round.done, engine.calls.len());
                format!("{label}: {done} of {all}, {} failed", engine.round.failed)
            })
            .await?;
        }
    }

    /// Ends the server, if it was started here; what was wrong with its end.
    ///
    /// Callers and callees answer meanwhile: a server that drains waits for them.
    pub(crate) async fn end(&mut self) -> Option<String> {
        let began = Instant::now();
        if self.server.ask_to_end() {
            while began.elapsed() < server::STOP_MAX && self.server.has_ended().is_none() {
                glommio::timer::sleep(Duration::from_millis(5)).await;
            }
        }
        self.progress.end();
        let complaint = self.server.clear_up();
        self.server_lost.take().or(complaint)
    }
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> End {
    End::usage(format!("cannot listen at {address}: {error}"))
}

fn program(common: &Common) -> Result<PathBuf, End> {
    if let Some(path) = &common.holdfast {
        return Ok(path.clone());
    }
    let own = std::env::current_exe()
        .map_err(|e| End::usage(format!("cannot tell where this program is: {e}")))?;
    Ok(own.with_file_name("holdfast"))
}

fn seed_of_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64) ^ u64::from(std::process::id())
}

/// Spreads neighbouring seeds over all numbers (the finaliser of SplitMix64).
fn mix(seed: u64) -> u64 {
    let a = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ a >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let c = (b ^ b >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    c ^ c >> 31
}

/// What outlives a run that hangs: the wish to stop, and the server to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    pub(crate) stop: Arc<AtomicBool>,
    /// Process of the server that was started here; 0: none.
    pub(crate) server: Arc<AtomicU32>,
}
