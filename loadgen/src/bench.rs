//! Closed loops: calls, or re-INVITEs on standing calls, as fast as the server takes them.
#![allow(
    clippy::disallowed_methods,
    reason = "a load generator measures by the clock and waits in real time"
)]

use std::time::{Duration, Instant};

use crate::End;
use crate::args::{CallsArgs, Common, ReinvitesArgs, Time};
use crate::engine::{Round, Step};
use crate::report::{Benched, Verdict};
use crate::run::{Plan, Run, Watch};
use crate::server::Server;
use crate::usage::Usage;

/// How long requests in flight may take to end after the measured time.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Calls set up a second before re-INVITEs are measured, and how many at once.
const SETUP_RATE: u32 = 5000;
const SETUP_IN_FLIGHT: u32 = 256;

/// INVITE, ACK, BYE, again and again.
///
/// # Errors
/// What the machine does not allow, the timeout, or a signal.
pub(crate) async fn calls(
    args: &CallsArgs,
    plan: Plan,
    server: Server,
    watch: &Watch,
) -> Result<Benched, End> {
    let seed = plan.seed;
    let mut run = Run::begin(plan, server, &args.common, args.in_flight, watch).await?;
    let round = Round::new(Step::Cycle, args.in_flight);
    let mut benched = measure(&mut run, "calls", round, &args.time).await?;
    benched.parameters.in_flight = args.in_flight;
    finish(&mut run, benched, seed, &args.common, "calls").await
}

/// Re-INVITE, ACK, again and again on standing calls.
///
/// # Errors
/// What the machine does not allow, the timeout, or a signal.
pub(crate) async fn reinvites(
    args: &ReinvitesArgs,
    plan: Plan,
    server: Server,
    watch: &Watch,
) -> Result<Benched, End> {
    let seed = plan.seed;
    let mut run = Run::begin(plan, server, &args.common, args.calls, watch).await?;
    let setup = Round::new(Step::SetUp, SETUP_IN_FLIGHT);
    run.round("calls set up", setup, Some(SETUP_RATE)).await?;
    let not_set_up = run.wire.engine.borrow().round.failed;
    let in_flight = args.in_flight.min(args.calls);
    let round = Round::new(Step::Loop, in_flight);
    let mut benched = measure(&mut run, "re-INVITEs", round, &args.time).await?;
    run.round("calls ended", Round::new(Step::Bye, SETUP_IN_FLIGHT), None).await?;
    benched.failed += not_set_up + run.wire.engine.borrow().round.failed;
    benched.parameters.calls = args.calls;
    benched.parameters.in_flight = in_flight;
    finish(&mut run, benched, seed, &args.common, "reinvites").await
}

async fn measure(run: &mut Run, what: &str, round: Round, time: &Time) -> Result<Benched, End> {
    run.wire.with(|engine, now| engine.begin(round, now));
    spin(run, what, Duration::from_secs(time.warm_up.into()), "warming up").await?;
    let (server, own) = (run.server.usage(), Usage::of(std::process::id()));
    let before = run.wire.with(|engine, _| {
        engine.latencies.clear();
        engine.round.done
    });
    let began = Instant::now();
    spin(run, what, Duration::from_secs(time.duration.into()), "measuring").await?;
    let mut benched = Benched::new(what, time);
    benched.seconds = began.elapsed().as_secs_f64();
    let (server_after, own_after) = (run.server.usage(), Usage::of(std::process::id()));
    run.wire.with(|engine, _| {
        benched.done = engine.round.done - before;
        benched.invite_ms = engine.latencies.invite.figures();
        benched.reinvite_ms = engine.latencies.reinvite.figures();
        benched.bye_ms = engine.latencies.bye.figures();
        engine.round.stop();
    });
    benched.per_second = benched.done as f64 / benched.seconds;
    if let (Some(before), Some(after)) = (server, server_after) {
        let cpu = after.cpu_seconds - before.cpu_seconds;
        benched.server_cpu_seconds = Some(cpu);
        benched.per_cpu_second = (cpu > 0.0).then(|| benched.done as f64 / cpu);
        benched.server_rss_kib = Some(after.rss_kib);
    }
    if let (Some(before), Some(after)) = (own, own_after) {
        benched.generator_cpu_seconds = after.cpu_seconds - before.cpu_seconds;
    }
    let drain = Instant::now() + DRAIN_MAX;
    while Instant::now() < drain && !run.wire.engine.borrow().round_is_over() {
        run.tick(|_| format!("{what}: waiting for the last")).await?;
    }
    benched.failed = run.wire.with(|engine, _| {
        engine.abandon_round();
        engine.round.failed
    });
    Ok(benched)
}

async fn spin(run: &mut Run, what: &str, duration: Duration, doing: &str) -> Result<(), End> {
    let (began, mut done, mut moved) = (Instant::now(), 0, Instant::now());
    while began.elapsed() < duration {
        run.wire.with(|engine, now| {
            engine.pump(now);
            if engine.round.done != done {
                (done, moved) = (engine.round.done, now);
            }
        });
        if moved.elapsed() > DRAIN_MAX || run.server_lost.is_some() {
            return Ok(());
        }
        run.tick(|engine| {
            let round = &engine.round;
            format!("{what}, {doing}: {} done, {} failed", round.done, round.failed)
        })
        .await?;
    }
    Ok(())
}

async fn finish(
    run: &mut Run,
    mut benched: Benched,
    seed: u64,
    common: &Common,
    command: &'static str,
) -> Result<Benched, End> {
    benched.command = command;
    benched.seed = seed;
    benched.parameters.callee_connections = common.callee_connections;
    benched.parameters.caller_connections = common.caller_connections;
    // A caller's BYE may be answered before the callee has its own.
    let drain = Instant::now() + DRAIN_MAX;
    while Instant::now() < drain && run.wire.engine.borrow().legs_left() > 0 {
        run.tick(|engine| format!("waiting for {} callees to be told", engine.legs_left())).await?;
    }
    benched.violations = run.wire.with(|engine, _| {
        engine.violations.bye_missing += engine.legs_left();
        engine.violations.ack_missing +=
            engine.answered.iter().filter(|leg| leg.ack_due).count() as u64;
        engine.violations
    });
    benched.complaint = run.end().await;
    let good = benched.failed == 0
        && benched.done > 0
        && benched.complaint.is_none()
        && benched.violations.total() == 0;
    benched.verdict = if good { Verdict::Pass } else { Verdict::Fail };
    Ok(benched)
}
