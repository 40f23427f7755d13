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

/// No caller more has connected for so long: the server takes no more.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// Callers that connect at a time. A handshake costs both ends a millisecond or so: of thousands at
/// once all would be half done when their time is over.
const CONNECTS_AT_ONCE: usize = 64;
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
            wire.listen(side, n as u32, address, job.transport).map_err(|e| {
                let hint = match e.kind() {
                    std::io::ErrorKind::AddrInUse => "; --port takes another port for all",
                    _ => "",
                };
                End::usage(format!("cannot listen at {address}: {e}{hint}"))
            })?;
        }
    }
    Ok(())
}

/// Every caller has a connection to the server when this returns.
async fn connect(wire: &Rc<Wire<Engine>>, job: &Job) -> Result<(), End> {
    let server = SocketAddr::from(job.server);
    let again = Reconnect::After(RECONNECT);
    let from = |n: usize| SocketAddr::from((job.callers[n].ip, 0));
    // One that fails tells why; the others need no waiting for each.
    let first = wire.connect(Side::Caller, 0, from(0), server, job.transport, again).await;
    first.map_err(|e| no_server(job, &e))?;
    let (mut begun, mut before, mut moved) = (1, 0, Instant::now());
    loop {
        let there = wire.with(|engine, _| engine.callers_connected());
        while begun < job.callers.len() && begun < there + CONNECTS_AT_ONCE {
            let (n, at) = (begun as u32, from(begun));
            wire.start_connect(Side::Caller, n, at, server, job.transport, again);
            begun += 1;
        }
        if there == job.callers.len() {
            return Ok(());
        }
        if there != before {
            (before, moved) = (there, Instant::now());
        }
        if job.stop.load(Ordering::Relaxed) {
            return Err(End::interrupted());
        }
        let late = job.deadline.is_some_and(|deadline| Instant::now() > deadline);
        if late || moved.elapsed() > CONNECT_MAX {
            let (all, late) = (job.callers.len(), if late { " in time (--timeout)" } else { "" });
            return Err(End::usage(format!(
                "only {there} of {all} callers could connect to {server}{late}"
            )));
        }
        glommio::timer::sleep(Duration::from_millis(2)).await;
    }
}

/// Why the first caller has no connection.
fn no_server(job: &Job, error: &std::io::Error) -> End {
    let (server, from) = (job.server, job.callers[0].ip);
    let hint = match (job.transport, error.kind()) {
        (Transport::Tls, std::io::ErrorKind::TimedOut) => {
            "; if it accepts connections: does it speak TLS at this port?"
        }
        _ => "",
    };
    End::usage(format!("no server at {server}: connecting from {from}: {error}{hint}"))
}
