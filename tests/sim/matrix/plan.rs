//! What a seed draws for a row of the matrix: who asks, under which options, with what peers, and
//! whether the path heals in time.

use std::net::SocketAddr;
use std::time::Duration;

use holdfast::key::Side as Leg;
use holdfast::options::Options;
use holdfast::sip::FlowError;
use holdfast::target::{Target, Transport};

use super::{INVITE, Row};
use crate::log::Keep;
use crate::network::{Cut, Flight, Listener, Weather};
use crate::oracle::Rules;
use crate::peer::{MS, Peer, SEC, T1, Traits};
use crate::proxy::{self, Path};
use crate::rng::Rng;
use crate::server::Server;
use crate::swarm::{self, SERVER, device, peer_addr};
use crate::trap::{Aftermath, Moment, Point, Trap, What};
use crate::world::{NOTICED, World};

/// Who causes the re-INVITE under which the flow dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// The device at the other end of the call.
    Relayed,
    /// An application, for the party whose flow dies.
    Hold,
    /// The same for a party that is on hold.
    Retrieve,
}

/// What the peer is like once its flow has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Plain,
    AnswersLate,
    AnswersTwice,
    AnswersApart,
    /// Its next answer to a re-INVITE.
    Answers(u16),
    NeverBack,
    /// Connects by itself, from another port.
    OtherPort,
    /// The same, and takes requests over that flow.
    Alias,
}

/// The story of one seed.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) operation: Operation,
    pub(super) manner: Manner,
    /// The peer whose flow dies, and its leg.
    pub(super) peer: usize,
    pub(super) leg: Leg,
    pub(super) delay: u64,
    pub(super) window: u64,
    pub(super) calls: usize,
    /// The path heals so early that nobody may give up.
    pub(super) in_time: bool,
    pub(super) trap: Trap,
}

const LATE: u64 = 6 * SEC;
pub(super) const CONNECT_TIMEOUT: u64 = 4 * SEC;
/// What latencies may add to a recovery.
const SLACK: u64 = 4 * SEC;

impl Plan {
    /// The plan of a seed, and its world before the first call.
    pub(super) fn draw(row: &Row, seed: u64, keep: Keep) -> (Self, World) {
        let mut rng = Rng::new(seed).fork(row.name);
        if row.behind_the_proxy {
            rng = rng.fork("proxy");
        }
        let peer = rng.below(2) as usize;
        let backup = rng.chance(200) && !row.behind_the_proxy;
        let delay = match rng.below(20) {
            0 if !row.again => 0,
            0..8 => rng.range(1, 500),
            _ => rng.range(500, 4_000),
        } * MS;
        let windows: &[u64] = if row.again { &[32, 34] } else { &[4, 12, 20, 32, 32, 34] };
        let window = *rng.pick(windows) * SEC;
        let manner = if row.for_good { Manner::NeverBack } else { draw_manner(row, &mut rng) };
        let operation = *rng.pick(&[
            Operation::Relayed,
            Operation::Relayed,
            Operation::Hold,
            Operation::Retrieve,
        ]);
        let mut world = build(row, &mut rng, seed, keep);
        if row.behind_the_proxy {
            stand_between(&mut rng.fork("path"), &mut world, peer);
        }
        let traits = draw_peers(row, &mut rng, &mut world, peer, manner);
        let away = [Listener::Refusing, Listener::Silent, Listener::Unreachable];
        let up = !row.away && !row.for_good && manner != Manner::NeverBack && rng.chance(400);
        let listener = match up {
            true => Listener::Up,
            false if row.handshake => Listener::Unfriendly,
            false => *rng.pick(&away),
        };
        let points = draw_points(row, &mut rng);
        let answers = match manner {
            // It rings once and answers, each after its delay.
            Manner::AnswersLate => 2 * LATE,
            Manner::Answers(_) => 4 * SEC + delay,
            _ if traits.busy_status != 0 => 8 * SEC,
            _ => 0,
        };
        let stalls = if listener == Listener::Silent { CONNECT_TIMEOUT } else { 0 };
        let need = points.len() as u64 * (delay + SEC)
            + delay
            + answers
            + if row.silent { NOTICED } else { 0 }
            + SLACK
            + stalls * if backup { 2 } else { 1 };
        let mut in_time = delay > 0 && need < window && manner != Manner::NeverBack;
        let heals = (in_time && rng.chance(700)).then(|| rng.below(window - need));
        in_time &= heals.is_some() || up;
        let after = 500 * MS + rng.below(3 * SEC);
        let returns = matches!(manner, Manner::OtherPort | Manner::Alias).then_some(after);
        let cut = draw_cut(row, &mut rng, window);
        let aftermath = Aftermath { listener, back_after: heals, returns_after: returns, traits };
        // Behind the proxy a caller has two flows, and would answer over the one that it opened.
        let one_way = row.behind_the_proxy && (row.again || row.for_good || row.silent);
        let whole_peer = row.many || rng.chance(300) || one_way;
        let trap = Trap { peer, points, cut, whole_peer, aftermath, sprung: Vec::new() };
        let calls = if row.many { rng.range(15, 40) as usize } else { 1 };
        serve(&mut rng, &mut world, peer, backup, delay, window);
        let leg = if peer == 0 { Leg::A } else { Leg::B };
        world.oracle.patience = answers;
        world.truth.controlled = operation != Operation::Relayed;
        (Self { operation, manner, peer, leg, delay, window, calls, in_time, trap }, world)
    }
}

fn draw_manner(row: &Row, rng: &mut Rng) -> Manner {
    let some = [Manner::Plain, Manner::AnswersLate, Manner::AnswersTwice, Manner::AnswersApart];
    let more = [
        Manner::NeverBack,
        Manner::OtherPort,
        Manner::Alias,
        Manner::Answers(491),
        Manner::Answers(500),
        Manner::Answers(503),
        Manner::Answers(430),
        Manner::Answers(481),
    ];
    // With many calls an answer to one of them would be a story of its own.
    let count = if row.many { some.len() + 1 } else { some.len() + more.len() };
    let at = rng.below(count as u64) as usize;
    match some.iter().chain(&more).nth(at) {
        // To a first attempt these are answers like any other.
        Some(Manner::Answers(491 | 500)) if row.point.is_none() && !row.again => Manner::Plain,
        Some(manner) => *manner,
        None => Manner::Plain,
    }
}

fn build(row: &Row, rng: &mut Rng, seed: u64, keep: Keep) -> World {
    let weather = Weather::draw(rng);
    let mut world = World::new(seed, weather, keep);
    let server: SocketAddr = SERVER.parse().expect("an address");
    for index in 0..2 {
        let mut peer = Peer::new(index, format!("100{index}"), peer_addr(index), server);
        peer.transport = match row.handshake {
            true => Transport::Tls,
            false => swarm::draw_transport(seed, index),
        };
        let transport = peer.transport.in_uri();
        peer.contact = format!("sip:{}@{};transport={transport}", peer.name, peer.addr);
        peer.traits = Traits {
            refuses: 0,
            rejects: 0,
            transport_errors: 0,
            ring_max: 100 * MS,
            answer_delay_max: *rng.pick(&[1, 20 * MS, 300 * MS]),
            pings: 0,
            delayed_offers: *rng.pick(&[0, 300]),
            ..swarm::draw_traits(rng)
        };
        world.add_peer(peer);
    }
    world.truth.sent_by = SERVER.to_owned();
    world.checker.keep = true;
    // The one fault is the trap's.
    world.director.faults = true;
    world.director.calm = true;
    world
}

/// Habits before the fault; gives those of the victim after it.
fn draw_peers(
    row: &Row,
    rng: &mut Rng,
    world: &mut World,
    victim: usize,
    manner: Manner,
) -> Traits {
    if row.many {
        // One flow for all, which also keeps the calls in their order.
        world.peers.iter_mut().for_each(|peer| peer.traits.flow_per_call = false);
    }
    let traits = &mut world.peers[victim].traits;
    traits.alias = manner == Manner::Alias;
    traits.always_rings = row.rings;
    if manner == Manner::AnswersLate {
        traits.answer_delay_max = LATE;
    }
    let mut after = traits.clone();
    if row.for_good || row.silent {
        after.responds_on_new_flow = false;
    }
    // Who answers an attempt after all ends the retries.
    traits.responds_on_new_flow &= !row.again;
    after.answers_twice = manner == Manner::AnswersTwice;
    after.answers_apart = manner == Manner::AnswersApart;
    after.responds_on_new_flow |= after.answers_apart;
    if let Manner::Answers(status) = manner {
        after.next_answers = Some((status, 1));
        after.busy_status = 0;
    }
    after.delayed_offers = if rng.chance(500) { 0 } else { after.delayed_offers };
    after
}

/// A proxy between the server and the peer, which sees its addresses only: it asks no name server.
fn stand_between(rng: &mut Rng, world: &mut World, victim: usize) {
    let server: SocketAddr = SERVER.parse().expect("an address");
    let peer = &mut world.peers[victim];
    let hop = *rng.pick(&[Transport::Tcp, Transport::Tcp, Transport::Tls]);
    let path = Path { peer: victim, hop, beyond: peer.transport };
    peer.outbound = proxy::addr(path.beyond);
    peer.traits.names = [peer.traits.names[0], false, false];
    let beyond = Target { transport: path.beyond, address: peer.addr };
    world.proxied.targets = vec![beyond, Target { transport: hop, address: server }];
    world.truth.path = Some(path);
    let shards = rng.range(1, 2) as usize;
    let own = proxy::addr(Transport::Tcp);
    let mut proxy = Server::new(own, shards, path.options(server), rng.fork("proxy"));
    proxy.mesh_delay = *rng.pick(&[0, 0, 50, 2 * MS]);
    world.nodes.proxy = Some(proxy);
}

/// The options of the server: the delay stands in the device or in the application.
fn serve(rng: &mut Rng, world: &mut World, victim: usize, backup: bool, delay: u64, window: u64) {
    let of_device = rng.chance(500);
    let millis = Duration::from_micros(delay);
    let mut devices = Vec::new();
    for peer in &world.peers {
        let own = (of_device && peer.index == victim).then_some(millis);
        let mut entry = device(peer, &peer.name, own);
        if let Some(path) = peer.path(&world.truth) {
            let proxy = proxy::addr(path.hop);
            entry.outbound = Some(Target { transport: path.hop, address: proxy });
            world.oracle.addresses.insert(proxy, peer.index);
        } else {
            world.oracle.addresses.insert(peer.addr, peer.index);
        }
        if backup && peer.index == victim {
            let addr = SocketAddr::new(peer.addr.ip(), 5070);
            entry.backups.push(addr);
            world.oracle.addresses.insert(addr, peer.index);
            world.listeners.insert(addr, (peer.index, Listener::Up));
        }
        let backup = backup && peer.index == victim;
        let in_force = if of_device && peer.index != victim { 700 * MS } else { delay };
        world.oracle.rules.push(Rules { delay: in_force, backup });
        devices.push(entry);
    }
    let mut options = Options::default().with_devices(devices);
    options.sent_by = SERVER.to_owned();
    options.events = true;
    options.retry_after = if of_device { Duration::from_millis(700) } else { millis };
    options.sip_invite_timeout = Duration::from_micros(window);
    options.transport_error_responses = vec![430, 477];
    world.oracle.window = window;
    world.oracle.listed = vec![430, 477];
    let server: SocketAddr = SERVER.parse().expect("an address");
    let shards = rng.range(1, 3) as usize;
    let mut running = Server::new(server, shards, options, rng.fork("server"));
    running.mesh_delay = *rng.pick(&[0, 0, 50, 2 * MS]);
    world.nodes.server = Some(running);
}

fn draw_points(row: &Row, rng: &mut Rng) -> Vec<Point> {
    if !row.again {
        let skip = if row.many { rng.below(15) } else { 0 };
        let silently = *rng.pick(&[Moment::After, Moment::Read]);
        let point = row.point.map(|(what, moment)| {
            let moment = if row.silent && what == INVITE { silently } else { moment };
            Point { what, moment, skip }
        });
        return point.into_iter().collect();
    }
    let places = [
        (What::Request("INVITE"), Moment::Middle),
        (What::Request("INVITE"), Moment::After),
        (What::Request("INVITE"), Moment::Read),
    ];
    let times = rng.range(2, 4);
    (0..times)
        .map(|_| {
            let &(what, moment) = rng.pick(&places);
            Point { what, moment, skip: 0 }
        })
        .collect()
}

fn draw_cut(row: &Row, rng: &mut Rng, window: u64) -> Cut {
    let told = |rng: &mut Rng| match rng.below(4) {
        0 | 1 => 0,
        2 => rng.below(40 * MS),
        _ => rng.below(SEC),
    };
    // Both ends learn of it when all is decided.
    let never = window + 64 * T1 + 15 * SEC;
    Cut {
        flight: [Flight::Lost; 2],
        told_after: if row.silent { [never; 2] } else { [told(rng), told(rng)] },
        error: *rng.pick(&[FlowError::Reset, FlowError::Reset, FlowError::Closed]),
        silent: row.silent,
    }
}
