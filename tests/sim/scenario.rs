//! A seed's story: the phases of a run, and what happens in them.
//!
//! ```text
//! faults ──► heal ──► liveness ──► hang up ──► nothing is left
//! ```

use std::sync::Arc;
use std::time::Duration;

use holdfast::options::{Options, Role};
use holdfast::sip::Input;
use holdfast::time::Instant;

use crate::network::{Cut, Flight, LinkId, Listener, Network, Owner};
use crate::peer::{LegState, MS, SEC, T1};
use crate::rng::Rng;
use crate::shards::Place;
use crate::trap;
use crate::truth::{Outcome, Side};
use crate::vandal;
use crate::world::{Event, World};

/// Something that the story lets happen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cue {
    /// A peer calls another one.
    Call,
    /// One of the peers of a call does something.
    Act { call: usize },
    /// A link dies.
    Fault,
    /// A stranger sends altered messages.
    Vandal,
    /// A peer goes away for a time.
    Away,
    /// It is back.
    Back { peer: usize },
    /// It opens a flow of its own, and asks something over it.
    Return { peer: usize },
    /// Other delays and another window are in force from now on.
    Reload,
    /// The next proof that a call is up.
    Probe { call: usize, stage: u8, tries: u8, waiting: Option<(usize, usize)> },
}

/// An INVITE that rings is cancelled after so long (RFC 3261 §16.6 step 11).
const TIMER_C: u64 = 181 * SEC;

/// Runs a world's story to its end; the failures are in its book.
pub(crate) fn play(world: &mut World) {
    let mut rng = world.rng.fork("story");
    let length = rng.range(5, 40) * SEC;
    world.schedule.after(10 * MS, Event::Cue(Cue::Call));
    if world.director.faults {
        if world.director.fault_gap > 0 {
            let gap = rng.below(world.director.fault_gap);
            world.schedule.after(gap, Event::Cue(Cue::Fault));
        }
        if world.director.away_gap > 0 {
            let gap = rng.below(world.director.away_gap);
            world.schedule.after(gap, Event::Cue(Cue::Away));
        }
        if world.director.vandal_gap > 0 {
            world.schedule.after(SEC, Event::Cue(Cue::Vandal));
        }
        if world.director.reload_gap > 0 {
            let gap = rng.below(world.director.reload_gap);
            world.schedule.after(gap, Event::Cue(Cue::Reload));
        }
    }
    if !world.run_until(length) {
        return;
    }
    heal(world);
    conclude(world, &mut rng);
}

/// The network is in order: every call that nobody ended works, and when all are over nothing is left.
pub(crate) fn conclude(world: &mut World, rng: &mut Rng) {
    let settle = world.oracle.window + 64 * T1 + 20 * SEC;
    let until = world.now() + settle;
    if !world.run_until(until) {
        return;
    }
    if world.oracle.awaits_timer_c() {
        world.truth.cover("final response lost: timer C");
        let until = world.now() + TIMER_C + 64 * T1;
        if !world.run_until(until) {
            return;
        }
    }
    world.director.proof_until = world.now() + 55 * SEC;
    world.log.line(world.schedule.now, format_args!("== liveness"));
    for call in 0..world.truth.calls.len() {
        check_ends(world, call);
        if world.truth.is_up(call) {
            let cue = Cue::Probe { call, stage: 0, tries: 0, waiting: None };
            world.schedule.after(0, Event::Cue(cue));
        }
    }
    let until = world.now() + 60 * SEC;
    if !world.run_until(until) {
        return;
    }
    let draining = world.nodes.server.is_some() && rng.chance(200);
    hang_up(world, rng, !draining);
    if draining {
        drain(world);
    }
    let until = world.now() + 64 * T1 + 240 * SEC;
    if world.run_until(until) {
        check_nothing_left(world);
    }
}

/// The network is in order from now on, and nobody starts anything.
pub(crate) fn heal(world: &mut World) {
    world.log.line(world.schedule.now, format_args!("== heal"));
    world.director.calm = true;
    world.truth.healed_at = Some(world.schedule.now);
    for (_, listener) in world.listeners.values_mut() {
        *listener = Listener::Up;
    }
    world.net.weather.splits = 0;
    for peer in &mut world.peers {
        peer.traits.refuses = 0;
        peer.traits.transport_errors = 0;
    }
}

/// A call is up on both sides or was ended for a reason.
fn check_ends(world: &mut World, call: usize) {
    let state = &world.truth.calls[call];
    let leg = |side: Side| {
        let peer = if side == Side::Caller { state.caller } else { state.callee };
        state.legs[side as usize].map(|leg| world.peers[peer].legs[leg].state)
    };
    let (caller, callee) = (leg(Side::Caller), leg(Side::Callee));
    let up = world.truth.is_up(call);
    if up && (caller, callee) != (Some(LegState::Confirmed), Some(LegState::Confirmed)) {
        world.fail(format!("call {call} is up, but its legs are {caller:?} and {callee:?}"));
    } else if caller == Some(LegState::Early) || callee == Some(LegState::Early) {
        world.fail(format!("call {call} hangs: {caller:?} and {callee:?}"));
    }
}

/// The peers end what is left over of calls that are over, and if `all` the others too.
fn hang_up(world: &mut World, rng: &mut Rng, all: bool) {
    world.log.line(world.schedule.now, format_args!("== hang up"));
    for call in 0..world.truth.calls.len() {
        let up = world.truth.is_up(call);
        if up && !all {
            continue;
        }
        let first = if rng.chance(500) { Side::Caller } else { Side::Callee };
        let sides = [first, first.other()];
        for side in sides.into_iter().take(if up { 1 } else { 2 }) {
            let state = &world.truth.calls[call];
            let peer = if side == Side::Caller { state.caller } else { state.callee };
            let Some(leg) = state.legs[side as usize] else { continue };
            if world.peers[peer].legs[leg].state == LegState::Confirmed {
                if !up {
                    world.truth.cover("leg left over");
                    if !world.director.faults {
                        world.fail(format!("call {call}: {side:?} still up, without any fault"));
                    }
                }
                world.with_peer(peer, |peer, ctx| peer.send_in_dialog(ctx, leg, "BYE"));
            }
        }
    }
}

/// The server takes no new calls and releases the others when its patience ends.
fn drain(world: &mut World) {
    world.log.line(world.schedule.now, format_args!("== drain"));
    world.truth.cover("drain");
    let deadline = world.now() + 5 * SEC;
    world.oracle.drain = Some(deadline);
    let shards = world.nodes.server.as_ref().map_or(0, |server| server.shards.len());
    for shard in 0..shards {
        world.input(shard, Input::Drain { deadline: Instant::from_micros(deadline) });
    }
}

fn check_nothing_left(world: &mut World) {
    let now = world.schedule.now;
    world.oracle.settle(&mut world.truth, now);
    if world.nodes.server.is_some() {
        world.checker.check_end(&mut world.truth);
    }
    let mut wrong = Vec::new();
    for peer in &world.peers {
        for (_, client) in peer.open_requests() {
            wrong.push(format!("{}: {} was never answered", peer.name, client.request));
        }
        for leg in peer.legs.iter().filter(|leg| leg.state != LegState::Ended) {
            wrong.push(format!("{}: leg of call {} is {:?}", peer.name, leg.call, leg.state));
        }
    }
    let draining = world.oracle.drain.is_some();
    for role in [Role::Server, Role::Proxy] {
        let shards = world.nodes.get(role).map(|node| &node.shards[..]).unwrap_or_default();
        for (shard, state) in shards.iter().enumerate() {
            let at = Place { role, shard };
            let stats = state.endpoint.stats();
            let left = stats.calls + stats.clients + stats.servers + stats.timers + stats.waiting;
            if left > 0 {
                wrong.push(format!("{at} is not empty: {stats:?}"));
            }
            if draining && role == Role::Server && !state.endpoint.is_drained() {
                wrong.push(format!("{at} is not drained"));
            }
            if let Some(due) = state.endpoint.next_timeout() {
                wrong.push(format!("{at} still has a timeout at {due:?}"));
            }
        }
    }
    world.proxied.check_end(&mut world.truth);
    for text in wrong {
        world.fail(text);
    }
}

/// A cue of the story.
pub(crate) fn on_cue(world: &mut World, cue: Cue) {
    let calm = world.director.calm;
    match cue {
        Cue::Call if !calm => on_call(world),
        Cue::Act { call } if !calm => on_act(world, call),
        Cue::Fault if !calm => on_fault(world),
        Cue::Away if !calm => on_away(world),
        Cue::Reload if !calm => on_reload(world),
        Cue::Vandal if !calm => vandal::on_cue(world),
        Cue::Call | Cue::Act { .. } | Cue::Fault | Cue::Away | Cue::Reload | Cue::Vandal => {}
        Cue::Back { peer } => {
            let addr = world.peers[peer].addr;
            world.log.line(world.schedule.now, format_args!("{} is back", addr));
            if world.trap.is_some() {
                // Its flow dies once, and not again.
                world.truth.healed_at = Some(world.schedule.now);
            }
            for (index, listener) in world.listeners.values_mut() {
                if *index == peer {
                    *listener = Listener::Up;
                }
            }
        }
        Cue::Return { peer } => trap::come_back(world, peer),
        Cue::Probe { call, stage, tries, waiting } => on_probe(world, call, stage, tries, waiting),
    }
}

fn on_call(world: &mut World) {
    let caller = world.rng.below(world.peers.len() as u64) as usize;
    let step = world.rng.range(1, world.peers.len() as u64 - 1) as usize;
    let callee = (caller + step) % world.peers.len();
    let prefix = world.nodes.server.as_ref().and_then(|server| {
        server.options.devices().nth(callee).and_then(|device| device.prefix.clone())
    });
    let number = match prefix {
        Some(prefix) if world.rng.chance(500) => format!("{prefix}{}", world.rng.below(100_000)),
        Some(_) | None => world.peers[callee].name.clone(),
    };
    let call = world.book_call(caller, callee, number.clone());
    world.with_peer(caller, |peer, ctx| peer.call(ctx, call, &number));
    let gap = 1 + world.rng.below(world.director.act_gap);
    world.schedule.after(gap, Event::Cue(Cue::Act { call }));
    world.director.calls_left -= 1;
    if world.director.calls_left > 0 {
        let gap = world.rng.below(world.director.call_gap);
        world.schedule.after(gap, Event::Cue(Cue::Call));
    }
}

fn on_act(world: &mut World, call: usize) {
    let state = &world.truth.calls[call];
    if state.ended.is_some() {
        return;
    }
    let side = if world.rng.chance(500) { Side::Caller } else { Side::Callee };
    let ends = [(state.caller, state.legs[0]), (state.callee, state.legs[1])];
    let method = *world.rng.pick(&world.director.methods);
    let roll = world.rng.below(1000);
    let (byes, cancels, glares) =
        (world.director.byes, world.director.cancels, world.director.glares);
    let glare = roll >= 1000 - glares;
    for (peer, leg) in [ends[side as usize], ends[side.other() as usize]] {
        let Some(leg) = leg else { continue };
        let open = world.peers[peer].legs[leg].invite_out.is_some();
        let confirmed = world.peers[peer].is_ready(leg);
        if open && roll < cancels {
            world.with_peer(peer, |peer, ctx| peer.cancel(ctx, leg));
        } else if confirmed && roll < byes {
            world.with_peer(peer, |peer, ctx| peer.send_in_dialog(ctx, leg, "BYE"));
        } else if confirmed && (method == "INVITE" || glare) {
            world.with_peer(peer, |peer, ctx| peer.reinvite(ctx, leg));
        } else if confirmed && !(method == "UPDATE" && open) {
            world.with_peer(peer, |peer, ctx| peer.send_in_dialog(ctx, leg, method));
        }
        if !glare {
            break;
        }
    }
    let gap = 1 + world.rng.below(world.director.act_gap);
    world.schedule.after(gap, Event::Cue(Cue::Act { call }));
}

fn on_fault(world: &mut World) {
    let healthy: Vec<LinkId> = world.net.healthy().collect();
    let cut = Network::draw_cut(&mut world.rng, world.director.silence);
    if !healthy.is_empty() {
        let link = *world.rng.pick(&healthy);
        world.kill(link, cut);
        if world.rng.chance(world.director.whole_peer) {
            let owners = world.net.links[link].owners;
            for owner in owners {
                if let Owner::Peer { peer, .. } = owner {
                    world.truth.cover("all flows of a peer at once");
                    cut_peer(world, peer, cut);
                }
            }
        }
    }
    let gap = 1 + world.rng.below(2 * world.director.fault_gap);
    world.schedule.after(gap, Event::Cue(Cue::Fault));
}

/// Cuts all flows of a peer.
pub(crate) fn cut_peer(world: &mut World, peer: usize, cut: Cut) {
    let links: Vec<LinkId> = world.net.healthy().collect();
    for link in links {
        let owners = world.net.links[link].owners;
        if owners.iter().any(|owner| matches!(owner, Owner::Peer { peer: p, .. } if *p == peer)) {
            world.kill(link, cut);
        }
    }
}

/// A reload: the options that decide about recovery change, for calls that are recovering too.
fn on_reload(world: &mut World) {
    let delay = world.rng.range(0, 4_000);
    let window = *world.rng.pick(&[0, 3, 8, 34]);
    let gap = 1 + world.rng.below(2 * world.director.reload_gap);
    let Some(server) = &mut world.nodes.server else { return };
    let mut options = Options::clone(&server.options);
    options.retry_after = Duration::from_millis(delay);
    options.sip_invite_timeout = Duration::from_secs(window);
    world.oracle.on_reload(options.window().as_micros() as u64);
    for (rules, device) in world.oracle.rules.iter_mut().zip(options.devices()) {
        rules.delay = device.retry_after.unwrap_or(options.retry_after).as_micros() as u64;
    }
    server.options = Arc::new(options);
    let (options, shards) = (server.options.clone(), server.shards.len());
    world.log.line(world.schedule.now, format_args!("reload: delay {delay} ms, window {window} s"));
    world.truth.cover("reload");
    for shard in 0..shards {
        world.input(shard, Input::Options(options.clone()));
    }
    world.schedule.after(gap, Event::Cue(Cue::Reload));
}

fn on_away(world: &mut World) {
    let peer = world.rng.below(world.peers.len() as u64) as usize;
    let ways = [Listener::Refusing, Listener::Silent, Listener::Unreachable, Listener::Unfriendly];
    let listener = *world.rng.pick(&ways);
    let time = world.rng.below(world.director.away_max);
    let addr = world.peers[peer].addr;
    if world.listeners[&addr].1 == Listener::Up {
        let until = world.now() + time;
        world.log.line(world.schedule.now, format_args!("{addr} is away: {listener:?}"));
        world.truth.cover("peer away");
        world.oracle.disturbed(peer, until);
        world.listeners.insert(addr, (peer, listener));
        let cut = Network::draw_cut(&mut world.rng, world.director.silence);
        cut_peer(world, peer, cut);
        world.schedule.after(time, Event::Cue(Cue::Back { peer }));
    }
    let gap = 1 + world.rng.below(2 * world.director.away_gap);
    world.schedule.after(gap, Event::Cue(Cue::Away));
}

/// Whether a link dies around a write, and how; true: after the bytes were written.
pub(crate) fn fault_at_write(
    world: &mut World,
    link: LinkId,
    end: usize,
    bytes: &[u8],
) -> Option<(Cut, bool)> {
    if world.director.calm || !world.director.faults {
        return None;
    }
    let kind = match bytes {
        [b'I', b'N', b'V', ..] => 0,
        [b'S', b'I', b'P', b'/', _, _, _, _, b'1', ..] => 1,
        [b'S', b'I', b'P', b'/', _, _, _, _, b'2', ..] => 2,
        [b'A', b'C', b'K', ..] => 3,
        _ => 4,
    };
    if !world.rng.chance(world.director.write_faults[kind]) || !world.net.is_healthy(link) {
        return None;
    }
    world.truth.cover(match kind {
        0 => "cut around an INVITE",
        1 => "cut around a 1xx",
        2 => "cut around a 2xx",
        3 => "cut around an ACK",
        _ => "cut around something else",
    });
    let mut cut = Network::draw_cut(&mut world.rng, world.director.silence);
    let after = world.rng.chance(800);
    if after && world.rng.chance(500) {
        cut.flight[1 - end] = Flight::Delivered;
    }
    Some((cut, after))
}

/// Proves that a call is up: a re-INVITE and an INFO each way.
fn on_probe(world: &mut World, call: usize, stage: u8, tries: u8, waiting: Option<(usize, usize)>) {
    const AGAIN_MAX: u8 = 12;
    let mut next = (stage, tries, None);
    if let Some((peer, client)) = waiting {
        next = match world.peers[peer].outcome(client) {
            None => (stage, tries, waiting),
            Some(Outcome::Final(200..=299, true)) => (stage + 1, 0, None),
            Some(Outcome::Final(491 | 500, _)) if tries < AGAIN_MAX => (stage, tries + 1, None),
            Some(outcome) => {
                let what = &world.peers[peer].clients[client].request;
                return world.fail(format!("call {call} is not up: {outcome:?} to {what}"));
            }
        };
    }
    let (stage, tries, waiting) = next;
    if stage == 4 {
        return world.truth.cover("call proved up");
    }
    let mut waiting = waiting;
    if waiting.is_none() {
        let state = &world.truth.calls[call];
        let side = stage as usize % 2;
        let peer = if side == 0 { state.caller } else { state.callee };
        let Some(leg) = state.legs[side] else { return };
        let l = &world.peers[peer].legs[leg];
        let busy = l.invite_out.is_some() || l.invite_in.is_some() || l.unacked.is_some();
        if stage >= 2 || !busy {
            let method = if stage < 2 { "INVITE" } else { "INFO" };
            let client = world.with_peer(peer, |peer, ctx| peer.send_in_dialog(ctx, leg, method));
            waiting = Some((peer, client));
        }
    }
    if world.now() > world.director.proof_until {
        return world.fail(format!("call {call}: the proof that it is up hangs at stage {stage}"));
    }
    let cue = Cue::Probe { call, stage, tries, waiting };
    world.schedule.after(300 * MS, Event::Cue(cue));
}
