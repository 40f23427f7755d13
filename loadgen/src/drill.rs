//! The drill: calls are set up, every callee's connection is reset under a re-INVITE, and each call
//! is judged.
//!
//! ```text
//! set up ─► re-INVITE (hold) ─► reset ─► answers, or BYEs ─► re-INVITE (retrieve) ─► BYE ─► judge
//!           callees: unread | read | 100    deadline: window + slack
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "a load generator measures by the clock and waits in real time"
)]

use std::time::{Duration, Instant};

use crate::End;
use crate::cli::{DrillArgs, Expect, Moment};
use crate::driver::Driver;
use crate::engine::{Engine, Manner};
use crate::load::share_of;
use crate::net::{Door, Fault, Side};
use crate::worker::{Done, Point};

/// `sip-invite-timeout = 0` stands for this (RFC 3261 timer B).
const WINDOW_DEFAULT: u32 = 32;
/// Unread bytes that do not grow for so long are all there are.
const QUIET: Duration = Duration::from_millis(150);
/// From the callees' 100 to the reset, so that the server has read it.
const AFTER_100: Duration = Duration::from_millis(100);
/// A step that gets no further for so long is given up.
const STALL_MAX: Duration = Duration::from_secs(10);
/// How long callees may take to be told that a call is over.
const TELL_MAX: Duration = Duration::from_secs(5);

/// A worker's part of a drill.
pub(crate) struct DrillPlan {
    pub(crate) calls: u64,
    /// Calls set up a second, by this worker.
    pub(crate) rate: f64,
    pub(crate) in_flight: u64,
    pub(crate) moment: Moment,
    pub(crate) away: Duration,
    pub(crate) expect: Expect,
    /// How long after the reset an answer or a BYE still counts.
    pub(crate) limit: Duration,
    pub(crate) settle: Duration,
}

impl DrillPlan {
    pub(crate) fn new(args: &DrillArgs, worker: u32, workers: u32) -> Self {
        let window = if args.common.window == 0 { WINDOW_DEFAULT } else { args.common.window };
        let part = |all: u32| share_of(all.into(), worker, workers);
        Self {
            calls: part(args.calls),
            rate: f64::from(args.rate) / f64::from(workers),
            in_flight: part(args.in_flight).max(1),
            moment: args.fault,
            away: Duration::from_millis(args.return_after.into()),
            expect: args.expect,
            limit: Duration::from_secs((window + args.slack).into()),
            settle: Duration::from_millis(args.settle.into()),
        }
    }
}

/// Where the calls of the scenario `drill` wait.
struct Places {
    up: u8,
    recovered: u8,
    checked: u8,
}

/// Runs the drill.
///
/// # Errors
/// The timeout, or a signal.
pub(crate) async fn run(driver: &mut Driver, plan: DrillPlan, callees: u32) -> Result<Done, End> {
    let places = driver.wire.with(|engine, _| {
        let place = |name| engine.meeting_place(name);
        Some(Places {
            up: place("up")?,
            recovered: place("recovered")?,
            checked: place("checked")?,
        })
    });
    let Some(places) = places else {
        return Err(End::usage(
            "the drill's scenario must meet at up, recovered and checked".into(),
        ));
    };
    let start = driver.begin(Vec::new());
    set_up(driver, &plan, &places, start).await?;
    driver.point(Point::Up);
    fault(driver, &plan, &places, callees).await?;
    recover(driver, &plan, callees).await?;
    driver.point(Point::Recovered);
    pass(driver, &plan, places.recovered).await?;
    pass(driver, &plan, places.checked).await?;
    let left = |engine: &mut Engine, _| (engine.in_flight() == 0, engine.in_flight());
    driver.until(STALL_MAX, left).await?;
    let told = |engine: &mut Engine, _| (engine.callees_left() == 0, engine.callees_left() as u64);
    driver.until(TELL_MAX, told).await?;
    driver.measured = start.elapsed();
    driver.pause(plan.settle).await?;
    driver.point(Point::After);
    Ok(driver.done())
}

/// Calls begin at even intervals; the step is over when each is up or failed.
async fn set_up(
    driver: &mut Driver,
    plan: &DrillPlan,
    places: &Places,
    start: Instant,
) -> Result<(), End> {
    let due = |n: u64| start + Duration::from_secs_f64(n as f64 / plan.rate);
    loop {
        let (next, over) = driver.wire.with(|engine, now| {
            while engine.begun() < plan.calls && due(engine.begun()) <= now {
                engine.start_call(due(engine.begun()), now);
            }
            (due(engine.begun()), engine.begun() == plan.calls)
        });
        if over {
            break;
        }
        driver.turn(Some(next)).await?;
    }
    let up = places.up;
    driver.until(STALL_MAX, |engine, _| (engine.running() == 0, engine.met(up) as u64)).await?;
    Ok(())
}

/// Sends the re-INVITEs and resets the connections.
async fn fault(
    driver: &mut Driver,
    plan: &DrillPlan,
    places: &Places,
    callees: u32,
) -> Result<(), End> {
    let manner = match plan.moment {
        Moment::BeforeRead => {
            for party in 0..callees {
                strike(driver, party, Fault::StopReading)?;
            }
            Manner::Well
        }
        Moment::AfterRead => Manner::Silent,
        Moment::After100 => Manner::Trying,
    };
    let wanted = driver.wire.with(|engine, now| {
        engine.set_manners(&manner);
        let before = engine.reinvites_read();
        before + engine.release(places.up, usize::MAX, now) as u64
    });
    outstanding(driver, plan.moment, wanted).await?;
    if !plan.away.is_zero() {
        for party in 0..callees {
            door(driver, party, Door::Refuse)?;
        }
    }
    for party in 0..callees {
        if let Some(at) = strike(driver, party, Fault::Reset)? {
            driver.wire.with(|engine, _| engine.endanger(Side::Callee, party, at, plan.away));
        }
    }
    driver.wire.with(|engine, _| engine.set_manners(&Manner::Well));
    if plan.away.is_zero() {
        come_back(driver, callees)?;
    }
    Ok(())
}

/// Waits until the re-INVITEs are where the connections are to die under them.
async fn outstanding(driver: &mut Driver, moment: Moment, wanted: u64) -> Result<(), End> {
    let wire = std::rc::Rc::clone(&driver.wire);
    let (mut seen, mut moved) = ((0, false), Instant::now());
    driver
        .until(STALL_MAX, |engine, now| {
            let unread = match moment {
                Moment::BeforeRead => wire.bytes_unread(Side::Callee),
                Moment::AfterRead | Moment::After100 => 0,
            };
            let sent = engine.out.is_empty();
            let found = (engine.reinvites_read() + unread, sent);
            if found != seen {
                (seen, moved) = (found, now);
            }
            let quiet = now.saturating_duration_since(moved);
            let there = match moment {
                Moment::BeforeRead => seen.0 > 0 && seen.1 && quiet > QUIET,
                Moment::AfterRead => seen.0 >= wanted,
                Moment::After100 => seen.0 >= wanted && quiet > AFTER_100,
            };
            (there || wanted == 0, seen.0)
        })
        .await?;
    Ok(())
}

fn strike(driver: &Driver, party: u32, fault: Fault) -> Result<Option<Instant>, End> {
    let struck = driver.wire.strike(Side::Callee, party, fault);
    let struck = struck.map_err(|e| End::usage(format!("callee {party}: {e}")))?;
    Ok(struck.first().map(|first| first.at))
}

fn door(driver: &Driver, party: u32, door: Door) -> Result<(), End> {
    let set = driver.wire.set_door(Side::Callee, party, door);
    set.map_err(|e| End::usage(format!("the listener of callee {party}: {e}")))
}

/// The callees accept connections and read again.
fn come_back(driver: &Driver, callees: u32) -> Result<(), End> {
    for party in 0..callees {
        let lifted = driver.wire.lift(Side::Callee, party);
        lifted.map_err(|e| End::usage(format!("the listener of callee {party}: {e}")))?;
    }
    Ok(())
}

/// Waits until every call has its answer or its BYE, or the deadline has passed.
async fn recover(driver: &mut Driver, plan: &DrillPlan, callees: u32) -> Result<(), End> {
    let reset = Instant::now();
    if !plan.away.is_zero() {
        driver.pause(plan.away).await?;
        come_back(driver, callees)?;
    }
    let expect = plan.expect;
    let (mut open_before, mut moved) = (u64::MAX, reset);
    driver
        .until(plan.limit + STALL_MAX, |engine, now| {
            let open = match expect {
                Expect::Kept => engine.running(),
                Expect::Released => engine.in_flight(),
            };
            if open != open_before {
                (open_before, moved) = (open, now);
            }
            let late = now.saturating_duration_since(reset) > plan.limit;
            // A call that was answered will not be released: no use waiting for the window.
            let answered = expect == Expect::Released
                && engine.running() == 0
                && now.saturating_duration_since(moved) > STALL_MAX;
            (open == 0 || late || answered, open)
        })
        .await?;
    Ok(())
}

/// Lets the calls pass a place, so many at a time.
async fn pass(driver: &mut Driver, plan: &DrillPlan, place: u8) -> Result<(), End> {
    let in_flight = plan.in_flight;
    driver
        .until(STALL_MAX, |engine, now| {
            let room = in_flight.saturating_sub(engine.running());
            engine.release(place, room as usize, now);
            (engine.met(place) == 0 && engine.running() == 0, engine.met(place) as u64)
        })
        .await?;
    Ok(())
}
