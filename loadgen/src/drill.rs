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

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::End;
use crate::args::{DrillArgs, Expect, Fault};
use crate::engine::{Call, Engine, Reply, Round, State, Step};
use crate::figures::Latency;
use crate::report::{Drilled, ServerUse, Verdict};
use crate::run::{Plan, Run, STALL_MAX, Watch};
use crate::server::Server;
use crate::usage::Usage;

/// `sip-invite-timeout = 0` stands for this (RFC 3261 timer B).
const WINDOW_DEFAULT: u32 = 32;
/// Unread bytes that do not grow for so long are all there are.
const QUIET: Duration = Duration::from_millis(150);
/// From the callees' 100 to the reset, so that the server has read it.
const AFTER_100: Duration = Duration::from_millis(100);

/// Runs the drill and judges it.
///
/// # Errors
/// What the machine does not allow, the timeout, or a signal.
pub(crate) async fn run(
    args: &DrillArgs,
    plan: Plan,
    server: Server,
    watch: &Watch,
) -> Result<Drilled, End> {
    let seed = plan.seed;
    let mut run = Run::begin(plan, server, &args.common, args.calls, watch).await?;
    let setup = Round::new(Step::SetUp, args.in_flight);
    let setup_took = run.round("calls set up", setup, Some(args.rate)).await?;
    let up = run.server.usage();
    let own_up = own_cpu();

    let reset_last = fault(&mut run, args).await?;
    recover(&mut run, args, reset_last).await?;
    let recovered = run.server.usage();
    let own_recovery = own_cpu() - own_up;

    let check = Round::new(Step::Retrieve, args.in_flight);
    run.round("calls checked", check, None).await?;
    let bye = Round::new(Step::Bye, args.in_flight);
    run.round("calls ended", bye, None).await?;
    run.wait(Duration::from_millis(args.settle.into()), "waiting for the server to settle").await?;
    let after = run.server.usage();
    let usage = ServerUse { pid: run.server.pid, idle: run.idle, up, recovered, after };

    let mut drilled = {
        let mut engine = run.wire.engine.borrow_mut();
        judge(&mut engine, args, setup_took)
    };
    drilled.seed = seed;
    drilled.server = usage;
    drilled.generator = Usage::of(std::process::id()).unwrap_or_default();
    drilled.generator_recovery_cpu_seconds = own_recovery;
    if let Some(complaint) = run.end() {
        drilled.failures.push(complaint);
        drilled.verdict = Verdict::Fail;
    }
    Ok(drilled)
}

fn own_cpu() -> f64 {
    Usage::of(std::process::id()).map_or(0.0, |usage| usage.cpu_seconds)
}

/// Sends the re-INVITEs and resets the connections; the instant of the last reset.
async fn fault(run: &mut Run, args: &DrillArgs) -> Result<Instant, End> {
    let reply = match args.fault {
        Fault::BeforeRead => {
            run.wire.pause_callees();
            Reply::Answer
        }
        Fault::AfterRead => Reply::Silence,
        Fault::After100 => Reply::Trying,
    };
    run.wire.with(|engine, now| {
        engine.reply = reply;
        engine.begin(Round::new(Step::Hold, args.calls), now);
    });
    let wanted = run.wire.engine.borrow().counts.set_up;
    let (mut moved, mut seen) = (Instant::now(), (0, 0));
    loop {
        let now_seen = run.wire.with(|engine, now| {
            engine.pump(now);
            let sent = engine.round.started == wanted && engine.out.is_empty();
            (engine.counts.holds_read, u64::from(sent))
        });
        let unread = if args.fault == Fault::BeforeRead { run.wire.bytes_unread() } else { 0 };
        let now_seen = (now_seen.0 + unread, now_seen.1);
        if now_seen != seen {
            (seen, moved) = (now_seen, Instant::now());
        }
        let there = match args.fault {
            Fault::BeforeRead => seen.0 > 0 && seen.1 == 1 && moved.elapsed() > QUIET,
            Fault::AfterRead => seen.0 >= wanted,
            Fault::After100 => seen.0 >= wanted && moved.elapsed() > AFTER_100,
        };
        let answered = run.wire.engine.borrow().round_is_over();
        if there || answered || moved.elapsed() > STALL_MAX {
            break;
        }
        run.tick(|engine| {
            let read = engine.counts.holds_read;
            format!("re-INVITEs on their way: {read} of {wanted} read by the callees")
        })
        .await?;
    }
    if args.return_after > 0 {
        run.leave().await?;
    }
    let resets = run.wire.reset_callees();
    let last = resets.last().map_or_else(Instant::now, |(_, at)| *at);
    run.wire.with(|engine, _| {
        engine.reply = Reply::Answer;
        mark_resets(engine, &resets);
    });
    Ok(last)
}

/// Each call whose re-INVITE is outstanding is timed from the reset of its own connection.
fn mark_resets(engine: &mut Engine, resets: &[(u32, Instant)]) {
    let at: BTreeMap<u32, Instant> = resets.iter().copied().collect();
    for (call, leg) in engine.calls.iter_mut().zip(&engine.answered) {
        if call.state == State::Reinviting {
            call.drill.reset_at = at.get(&leg.conn).copied();
        }
    }
}

/// Waits until every call has its answer or its BYE, or the deadline has passed.
async fn recover(run: &mut Run, args: &DrillArgs, reset: Instant) -> Result<(), End> {
    let window = if args.window == 0 { WINDOW_DEFAULT } else { args.window };
    let limit = Duration::from_secs((window + args.slack).into());
    let back_at = reset + Duration::from_millis(args.return_after.into());
    let mut away = args.return_after > 0;
    let (mut settled, mut moved) = (u64::MAX, Instant::now());
    loop {
        if away && Instant::now() >= back_at {
            run.come_back()?;
            away = false;
        }
        let open = {
            let engine = run.wire.engine.borrow();
            let waits = |call: &&Call| match args.expect {
                Expect::Kept => call.state == State::Reinviting,
                Expect::Released => call.drill.set_up && call.drill.released_at.is_none(),
            };
            let open = engine.calls.iter().filter(waits).count() as u64;
            if open != settled {
                (settled, moved) = (open, Instant::now());
            }
            open
        };
        let late = reset.elapsed() > limit;
        // A call that was answered will not be released: no use waiting for the window.
        let answered = args.expect == Expect::Released
            && moved.elapsed() > STALL_MAX
            && run.wire.engine.borrow().round_is_over();
        if open == 0 || late || answered || run.server_lost.is_some() {
            break;
        }
        run.tick(|engine| {
            let counts = engine.counts;
            format!(
                "after the reset: {open} calls open, {} answered, {} released, {} sent again, {:.1} s",
                counts.holds_answered,
                counts.released,
                counts.resent,
                reset.elapsed().as_secs_f64()
            )
        })
        .await?;
        // Looking at every call each millisecond would cost more than it shows.
        glommio::timer::sleep(Duration::from_millis(u64::from(args.calls / 2000))).await;
    }
    if away {
        run.come_back()?;
    }
    run.wire.with(|engine, _| engine.abandon_round());
    Ok(())
}

/// The earliest instant after the reset at which an attempt can succeed.
fn earliest(args: &DrillArgs) -> Duration {
    let delay = args.delay.max(1);
    let attempts = args.return_after.div_ceil(delay).max(1);
    Duration::from_millis(u64::from(args.delay) * u64::from(attempts))
}

fn judge(engine: &mut Engine, args: &DrillArgs, setup_took: Duration) -> Drilled {
    let (mut resend, mut recovery, mut excess, mut release) =
        (Latency::new(), Latency::new(), Latency::new(), Latency::new());
    let earliest = earliest(args);
    let mut drilled = Drilled::new(args);
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    for index in 0..engine.calls.len() {
        let (call, leg) = (&engine.calls[index], engine.answered[index]);
        let drill = call.drill;
        if !drill.set_up {
            *reasons.entry("not set up".into()).or_default() += 1;
            continue;
        }
        drilled.calls.set_up += 1;
        engine.violations.ack_missing += u64::from(leg.ack_due);
        engine.violations.never_answered +=
            u64::from(call.unanswered && drill.released_at.is_some());
        drilled.calls.outstanding += u64::from(drill.reset_at.is_some());
        drilled.calls.resent += u64::from(drill.resent_at.is_some());
        if let (Some(reset), Some(at)) = (drill.reset_at, drill.resent_at) {
            resend.add(at.saturating_duration_since(reset));
        }
        if let Some(at) = drill.released_at {
            drilled.calls.released += 1;
            release.add(at.saturating_duration_since(drill.reset_at.unwrap_or(at)));
        }
        if let (Some(reset), Some((status @ 200..=299, at))) = (drill.reset_at, drill.hold) {
            let _ = status;
            let took = at.saturating_duration_since(reset);
            drilled.calls.recovered += 1;
            recovery.add(took);
            excess.add(took.saturating_sub(earliest));
            engine.violations.too_early += u64::from(took < earliest);
        }
        match fate(args.expect, call) {
            None if args.expect == Expect::Kept => {
                drilled.calls.kept += 1;
                engine.violations.bye_missing += u64::from(leg.up);
            }
            None => {}
            Some(reason) => {
                drilled.calls.lost += u64::from(args.expect == Expect::Kept);
                *reasons.entry(reason).or_default() += 1;
            }
        }
    }
    drilled.calls.not_set_up = engine.calls.len() as u64 - drilled.calls.set_up;
    drilled.failures = reasons.iter().map(|(why, count)| format!("{count} calls: {why}")).collect();
    drilled.resend_latency_ms = resend.figures();
    drilled.recovery_latency_ms = recovery.figures();
    drilled.excess_ms = excess.figures();
    drilled.release_latency_ms = release.figures();
    drilled.setup.seconds = setup_took.as_secs_f64();
    drilled.setup.calls_per_second = drilled.calls.set_up as f64 / setup_took.as_secs_f64();
    drilled.setup.latency_ms = engine.latencies.invite.figures();
    drilled.violations = engine.violations;
    if engine.violations.total() > 0 {
        drilled.failures.push("breaches of the protocol: see violations".into());
    }
    drilled.verdict = if drilled.failures.is_empty() { Verdict::Pass } else { Verdict::Fail };
    drilled
}

/// Why a call is not what was expected; `None` when it is.
fn fate(expect: Expect, call: &Call) -> Option<String> {
    let drill = call.drill;
    if expect == Expect::Released {
        return match (drill.released_at, drill.hold) {
            (Some(_), _) => None,
            (None, Some((status, _))) => {
                Some(format!("not released, its re-INVITE was answered {status}"))
            }
            (None, None) => Some("not released, its re-INVITE was never answered".into()),
        };
    }
    match (drill.hold, drill.released_at) {
        (None, None) => return Some("no answer to its re-INVITE".into()),
        (None | Some((200..=299, _)), Some(_)) => return Some("the server sent BYE".into()),
        (Some((status, _)), Some(_)) => {
            return Some(format!("its re-INVITE was answered {status}, then the server sent BYE"));
        }
        (Some((200..=299, _)), None) => {}
        (Some((status, _)), None) => return Some(format!("its re-INVITE was answered {status}")),
    }
    match (drill.check, drill.bye) {
        (Some(200..=299), Some(200)) => None,
        (Some(200..=299), Some(status)) => Some(format!("its BYE was answered {status}")),
        (Some(200..=299), None) => Some("no answer to its BYE".into()),
        (Some(status), _) => Some(format!("the re-INVITE that checks it was answered {status}")),
        (None, _) => Some("no answer to the re-INVITE that checks it".into()),
    }
}
