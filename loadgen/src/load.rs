//! Calls by a profile: begun at their intended instants whatever the server does, or so many at a time.
#![allow(
    clippy::disallowed_methods,
    reason = "a load generator measures by the clock and waits in real time"
)]

use std::time::{Duration, Instant};

use crate::End;
use crate::driver::Driver;
use crate::engine::{Engine, Refill};
use crate::plan::{Load, Profile, Spacing, Strike};
use crate::worker::{Done, Point};

/// Calls begun in one turn, so that messages have theirs.
const BURST_MAX: usize = 256;
/// An arrival that could not be begun for so long is a missed slot.
const SLOT_MAX: Duration = Duration::from_secs(1);
/// Standing calls are set up so many at a time, and ended so.
const SETUP_IN_FLIGHT: u64 = 256;
/// A step that gets no further for so long is given up.
const STALL_MAX: Duration = Duration::from_secs(10);
/// How long callees may take to be told that a call is over.
const TELL_MAX: Duration = Duration::from_secs(5);

/// A worker's share of the arrivals.
pub(crate) struct LoadPlan {
    pub(crate) profile: Profile,
    pub(crate) spacing: Spacing,
    pub(crate) seed: u64,
    /// This worker and how many there are.
    pub(crate) share: (u32, u32),
    pub(crate) warm_up: Duration,
    pub(crate) drain: Duration,
    /// Standing calls, for scenarios that meet; of this worker.
    pub(crate) standing: u64,
}

/// Plays the profile.
///
/// # Errors
/// The timeout, or a signal.
pub(crate) async fn run(
    driver: &mut Driver,
    plan: LoadPlan,
    strikes: Vec<Strike>,
) -> Result<Done, End> {
    match plan.profile.load() {
        _ if driver.wire.with(|engine, _| engine.only_answers()) => {
            answer(driver, &plan, strikes).await?
        }
        Load::Closed { in_flight } => {
            let time = plan.profile.duration();
            closed(driver, &plan, strikes, in_flight, time).await?
        }
        Load::Open | Load::Knee(_) => open(driver, &plan, strikes).await?,
    }
    driver.point(Point::Recovered);
    driver.calm();
    drain(driver, plan.drain).await?;
    driver.point(Point::After);
    Ok(driver.done())
}

/// Arrivals by the plan.
async fn open(driver: &mut Driver, plan: &LoadPlan, strikes: Vec<Strike>) -> Result<(), End> {
    let (worker, workers) = plan.share;
    let arrivals = plan.profile.arrivals(plan.seed, plan.spacing);
    let mut arrivals = arrivals.share(worker, workers).peekable();
    let start = driver.begin(strikes);
    let mut warm = Some(start + plan.warm_up);
    let mut measured = start;
    loop {
        if warm.take_if(|warm| *warm <= Instant::now()).is_some() {
            measured = driver.begin_measuring();
        }
        let next = driver.wire.with(|engine, now| {
            let (mut begun, mut next) = (0, None);
            engine.waiting(arrivals.peek().map_or(0, |at| due_since(start + *at, now)));
            while let Some(at) = arrivals.peek().copied() {
                let due = start + at;
                if due > now || begun == BURST_MAX {
                    next = Some(due);
                    break;
                }
                arrivals.next();
                begun += 1;
                arrive(engine, due, now);
            }
            next
        });
        let Some(next) = next else { break };
        driver.turn(Some(next)).await?;
    }
    let end = start + plan.profile.duration();
    driver.pause(end.saturating_duration_since(Instant::now())).await?;
    driver.measured = measured.elapsed();
    Ok(())
}

/// Others call as they like; the profile says for how long.
async fn answer(driver: &mut Driver, plan: &LoadPlan, strikes: Vec<Strike>) -> Result<(), End> {
    driver.begin(strikes);
    driver.pause(plan.warm_up).await?;
    let start = driver.begin_measuring();
    driver.pause(plan.profile.duration()).await?;
    driver.measured = start.elapsed();
    Ok(())
}

/// Milliseconds that the next arrival has been due.
fn due_since(due: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(due).as_millis() as u64
}

fn arrive(engine: &mut Engine, due: Instant, now: Instant) {
    if now - due > SLOT_MAX || !engine.start_call(due, now) {
        engine.missed(due);
    }
}

/// So many calls at a time, or so many standing calls at work at a time.
async fn closed(
    driver: &mut Driver,
    plan: &LoadPlan,
    strikes: Vec<Strike>,
    in_flight: u32,
    time: Duration,
) -> Result<(), End> {
    let (worker, workers) = plan.share;
    let in_flight = share_of(u64::from(in_flight), worker, workers).max(1);
    let meets = driver.wire.with(|engine, _| engine.meets());
    if meets {
        stand(driver, plan.standing).await?;
    }
    driver.begin(strikes);
    let refill = if meets { Refill::Pass(in_flight) } else { Refill::Begin(in_flight) };
    driver.wire.with(|engine, now| engine.refill(Some(refill), now));
    driver.pause(plan.warm_up).await?;
    let start = driver.begin_measuring();
    driver.pause(time).await?;
    driver.end_measuring(start);
    driver.wire.with(|engine, now| engine.refill(None, now));
    Ok(())
}

/// A worker's part of a whole number.
pub(crate) fn share_of(all: u64, worker: u32, workers: u32) -> u64 {
    let (worker, workers) = (u64::from(worker), u64::from(workers));
    all / workers + u64::from(worker < all % workers)
}

/// Sets up the standing calls.
async fn stand(driver: &mut Driver, calls: u64) -> Result<(), End> {
    let all_up = driver
        .until(STALL_MAX, |engine, now| {
            while engine.running() < SETUP_IN_FLIGHT && engine.begun() < calls {
                engine.start_call(now, now);
            }
            let over = engine.begun() >= calls && engine.running() == 0;
            (over, engine.begun() + engine.met(0) as u64)
        })
        .await?;
    match all_up {
        true => Ok(()),
        false => Err(End::usage(format!("not all of {calls} standing calls could be set up"))),
    }
}

/// Ends what stands and waits for the last answers.
async fn drain(driver: &mut Driver, limit: Duration) -> Result<(), End> {
    let end = Instant::now() + limit;
    driver
        .until(STALL_MAX.max(limit), |engine, now| {
            engine.dismiss(now);
            let ending = engine.in_flight();
            if ending < SETUP_IN_FLIGHT {
                engine.end_held((SETUP_IN_FLIGHT - ending) as usize, now);
            }
            let over = engine.in_flight() == 0 && engine.held() == 0;
            (over || now > end, engine.in_flight() + engine.held())
        })
        .await?;
    // A caller's BYE may be answered before the callee has its own.
    driver
        .until(TELL_MAX, |engine, _| (engine.callees_left() == 0, engine.callees_left() as u64))
        .await?;
    Ok(())
}
