//! One worker: an executor on a thread of its own, its parties, its calls, its share of the plan.
#![allow(
    clippy::disallowed_methods,
    reason = "a load generator measures by the clock and waits in real time"
)]

use std::net::{SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use crate::End;
use crate::drill::{self, DrillPlan};
use crate::driver::Driver;
use crate::engine::{Engine, Settings};
use crate::load::{self, LoadPlan};
use crate::net::{Authority, Limits, Reconnect, Side, Tls, TlsOptions, Transport, Wire};
use crate::oracle::{SeenCalls, Violations};
use crate::outcome::{Progress, Recorder};
use crate::plan::Strike;
use crate::scenario::program::Mixture;
use crate::text::Party;

/// How long all callers may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// A caller whose connection dies connects again after this.
const RECONNECT: Duration = Duration::from_millis(20);

/// What a worker is to do.
pub(crate) struct Job {
    /// From 0.
    pub(crate) number: u32,
    pub(crate) core: Option<u16>,
    pub(crate) settings: Settings,
    pub(crate) mixture: Mixture,
    pub(crate) callers: Vec<Party>,
    pub(crate) callees: Vec<Party>,
    pub(crate) server: SocketAddrV4,
    pub(crate) transport: Transport,
    pub(crate) tls: Option<(TlsOptions, Arc<Authority>)>,
    /// Of this worker's parties, in order of time.
    pub(crate) strikes: Vec<Strike>,
    pub(crate) work: Work,
    pub(crate) deadline: Option<Instant>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) news: Sender<News>,
}

/// The kinds of work.
pub(crate) enum Work {
    Load(LoadPlan),
    Drill(DrillPlan),
}

/// What workers tell while they run.
pub(crate) enum News {
    Progress(u32, Progress),
    /// A worker came to a point at which processes are looked at.
    Point(Point),
    Done(u32, Box<Result<Done, End>>),
}

/// Points of a run at which processes are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Point {
    /// Connected, nothing sent.
    Ready,
    /// All calls up; the measured time begins.
    Up,
    /// Recovered; the measured time is over.
    Recovered,
    /// Ended and settled.
    After,
}

/// What a worker found.
pub(crate) struct Done {
    pub(crate) recorder: Recorder,
    pub(crate) violations: Violations,
    /// What was seen of the calls of each callee, to be compared with the server's events.
    pub(crate) seen: Vec<(String, SeenCalls)>,
    /// From the start of the measured time to its end.
    pub(crate) measured: Duration,
    /// What was not as expected, with counts.
    pub(crate) failures: Vec<String>,
}

/// Plays a job to its end on a thread of its own.
pub(crate) fn spawn(job: Job) -> std::io::Result<std::thread::JoinHandle<()>> {
    let name = format!("loadgen-{}", job.number);
    std::thread::Builder::new().name(name).spawn(move || {
        let (number, news) = (job.number, job.news.clone());
        let done = executor(job.core).and_then(|executor| executor.run(play(job)));
        // The main thread may have given up meanwhile.
        let _ = news.send(News::Done(number, Box::new(done)));
    })
}

fn executor(core: Option<u16>) -> Result<LocalExecutor, End> {
    let placement = match core {
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

async fn play(job: Job) -> Result<Done, End> {
    let start = Instant::now();
    let shared = |parties: &[Party]| parties.iter().cloned().map(Rc::new).collect();
    let (callers, callees) = (shared(&job.callers), shared(&job.callees));
    let engine = Engine::new(job.settings.clone(), &job.mixture, callers, callees, start);
    let tls = job.tls.as_ref().map(|(options, authority)| Tls::new(options, authority));
    let tls = tls.transpose();
    let tls = tls.map_err(|e| End::usage(format!("cannot set up TLS: {e}")))?;
    let wire = Wire::new(engine, tls, Limits::default())
        .map_err(|e| End::usage(format!("cannot set up sockets: {e}")))?;
    listen(&wire, &job)?;
    if !job.mixture.only_answers() {
        connect(&wire, &job).await?;
    }
    let Job { strikes, work, deadline, stop, news, callees, callers, transport, server, .. } = job;
    let number = job.number;
    let sizes = (callers.len() as u32, callees.len() as u32);
    let addresses = [callers, callees];
    let mut driver = Driver::new(
        Rc::clone(&wire),
        number,
        news,
        stop,
        deadline,
        crate::driver::Net { parties: addresses, transport, server },
    );
    driver.point(Point::Ready);
    let done = match work {
        Work::Load(plan) => load::run(&mut driver, plan, strikes).await,
        Work::Drill(plan) => drill::run(&mut driver, plan, sizes.1).await,
    };
    wire.end();
    done
}

fn listen(wire: &Rc<Wire<Engine>>, job: &Job) -> Result<(), End> {
    for (side, parties) in [(Side::Caller, &job.callers), (Side::Callee, &job.callees)] {
        for (n, party) in parties.iter().enumerate() {
            let address = SocketAddr::from((party.ip, party.port));
            wire.listen(side, n as u32, address, job.transport)
                .map_err(|e| End::usage(format!("cannot listen at {address}: {e}")))?;
        }
    }
    Ok(())
}

/// Every caller has a connection to the server when this returns.
async fn connect(wire: &Rc<Wire<Engine>>, job: &Job) -> Result<(), End> {
    let server = SocketAddr::from(job.server);
    for (n, party) in job.callers.iter().enumerate() {
        let from = SocketAddr::from((party.ip, 0));
        let again = Reconnect::After(RECONNECT);
        if n == 0 {
            // One that fails tells why; the others need no waiting for each.
            let connected = wire.connect(Side::Caller, 0, from, server, job.transport, again).await;
            connected.map_err(|e| {
                End::usage(format!("no server at {server}: connecting from {}: {e}", party.ip))
            })?;
        } else {
            wire.start_connect(Side::Caller, n as u32, from, server, job.transport, again);
        }
    }
    let limit = Instant::now() + CONNECT_MAX;
    loop {
        let there = wire.with(|engine, _| engine.callers_connected());
        if there == job.callers.len() {
            return Ok(());
        }
        if Instant::now() > limit || job.stop.load(Ordering::Relaxed) {
            let all = job.callers.len();
            return Err(End::usage(format!(
                "only {there} of {all} callers could connect to {server}"
            )));
        }
        glommio::timer::sleep(Duration::from_millis(2)).await;
    }
}
