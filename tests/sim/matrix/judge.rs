//! Whether a call was kept or released, and whether that is what it was owed.

use holdfast::cti::{Content, Request, What};
use holdfast::key::CallId;
use holdfast::key::ShardId;
use holdfast::sip::Input;

use super::Row;
use super::plan::{CONNECT_TIMEOUT, Manner, Operation, Plan};
use crate::peer::{MS, SEC};
use crate::truth::{Ended, Outcome, Side};
use crate::world::World;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Kept,
    Released,
}

/// The reference of the request under which the flow dies.
pub(super) const ASKED: u64 = 2;

/// The calls of a world as applications know them, by the order in which they were made.
pub(super) fn calls(world: &World) -> Vec<(ShardId, CallId)> {
    let mut calls = Vec::new();
    for event in &world.checker.events {
        if event.content == Content::Dialing {
            calls.push((event.shard, event.leg.call));
        }
    }
    calls
}

/// An application asks something for the victim's party of every call that is up.
pub(super) fn ask(world: &mut World, plan: &Plan, what: What, reference: u64) {
    for (call, (shard, id)) in calls(world).into_iter().enumerate() {
        if world.truth.is_up(call) {
            let request = Request { reference, call: id, side: plan.leg, what };
            world.input(usize::from(shard.0), Input::Request(request));
        }
    }
}

/// What was told of a call.
fn told(world: &World, call: usize) -> Vec<(u64, Content)> {
    let Some((shard, id)) = calls(world).get(call).copied() else { return Vec::new() };
    let events = world.checker.events.iter();
    let ours = events.filter(|event| event.shard == shard && event.leg.call == id);
    ours.map(|event| (event.at.as_micros(), event.content)).collect()
}

/// The answer to the request of an application.
pub(super) fn done(world: &World, call: usize, reference: u64) -> bool {
    told(world, call).iter().any(|(_, content)| {
        matches!(content, Content::Held { reference: r } | Content::Retrieved { reference: r }
            if *r == reference)
    })
}

/// What became of a call, or what is wrong with it.
pub(super) fn judge(
    world: &World,
    row: &Row,
    plan: &Plan,
    call: usize,
    request: Option<usize>,
) -> Result<Verdict, String> {
    let outcome = request.map(|id| world.truth.requests[id].outcome);
    let state = &world.truth.calls[call];
    match (state.may_release.as_deref(), state.ended) {
        (None, None) => {
            let answered = match outcome {
                Some(outcome) => matches!(outcome, Some(Outcome::Final(200, true))),
                None => done(world, call, ASKED),
            };
            if row.for_good {
                return Err("kept although its path is gone for good".to_owned());
            }
            if !answered {
                return Err(format!("kept, but the re-INVITE got no answer: {outcome:?}"));
            }
            Ok(Verdict::Kept)
        }
        (Some(reason), Some(ended)) => {
            let owed = match reason {
                "given up" => !plan.in_time,
                "delay 0" => plan.delay == 0,
                "answered 481" => plan.manner == Manner::Answers(481),
                _ => false,
            };
            if !owed {
                return Err(format!("released: {reason}"));
            }
            let hung_up =
                ended == Ended::Bye(if plan.peer == 0 { Side::Callee } else { Side::Caller });
            if ended != Ended::Released && !(hung_up && reason == "answered 481") {
                return Err(format!("released for {reason}, but ended by {ended:?}"));
            }
            check_told(world, row, plan, call, outcome)?;
            Ok(Verdict::Released)
        }
        (reason, ended) => Err(format!("released for {reason:?}, ended by {ended:?}")),
    }
}

/// Both legs and whoever asked know that the call is over.
fn check_told(
    world: &World,
    row: &Row,
    plan: &Plan,
    call: usize,
    outcome: Option<Option<Outcome>>,
) -> Result<(), String> {
    let told = told(world, call);
    let released = told.iter().filter(|(_, what)| matches!(what, Content::Released { .. })).count();
    if released != 2 {
        return Err(format!("{released} parties were told that the call is over"));
    }
    match outcome {
        Some(Some(Outcome::Final(408 | 481, _))) => {}
        Some(outcome) => return Err(format!("re-INVITE of a released call: {outcome:?}")),
        None if plan.operation == Operation::Relayed => return Err("nobody asked".to_owned()),
        None => {
            let error = told.iter().any(|(_, what)| {
                matches!(what, Content::Error { reference: Some(r), .. } if *r == ASKED)
            });
            if !error && !done(world, call, ASKED) {
                return Err("the application was not told".to_owned());
            }
        }
    }
    let began = told.iter().find(|(_, what)| matches!(what, Content::RecoveryStarted { .. }));
    let over = told.iter().find(|(_, what)| matches!(what, Content::Released { .. }));
    if let (true, Some((began, _)), Some((over, _))) = (row.for_good, began, over) {
        let took = over - began;
        let least = plan.window.saturating_sub(plan.delay + 9 * SEC);
        // The proxy's 100 keeps an attempt alive until it says that it reaches nobody.
        let patience = if row.behind_the_proxy { CONNECT_TIMEOUT + SEC } else { 2 * MS };
        if took < least || took > plan.window + patience {
            return Err(format!("released after {took} µs in a window of {} µs", plan.window));
        }
    }
    Ok(())
}
