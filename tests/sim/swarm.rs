//! What a seed enables: peers and their habits, the network, the options, the faults.
//!
//! Draw something new at the end of its function, or all seeds change their story.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use holdfast::options::{Device, DeviceKind, Options};
use holdfast::target::Transport;

use crate::log::Keep;
use crate::message::Spelling;
use crate::network::{Listener, Weather};
use crate::oracle::Rules;
use crate::peer::{MS, Peer, SEC, Traits};
use crate::rng::Rng;
use crate::server::Server;
use crate::world::World;

/// What the seed enables.
#[derive(Clone, Debug, Default)]
pub(crate) struct Director {
    /// No more new calls, actions or faults.
    pub(crate) calm: bool,
    /// Methods that peers use in dialogs.
    pub(crate) methods: Vec<&'static str>,
    /// In 1000 actions: BYE, CANCEL, glare.
    pub(crate) byes: u64,
    pub(crate) cancels: u64,
    pub(crate) glares: u64,
    pub(crate) act_gap: u64,
    pub(crate) calls_left: u64,
    pub(crate) call_gap: u64,
    pub(crate) fault_gap: u64,
    pub(crate) away_gap: u64,
    pub(crate) away_max: u64,
    /// In 1000 writes a link dies around one: requests INVITE, 1xx, 2xx, ACK, anything else.
    pub(crate) write_faults: [u64; 5],
    pub(crate) silence: u64,
    pub(crate) whole_peer: u64,
    pub(crate) reload_gap: u64,
    pub(crate) vandal_gap: u64,
    /// What a stranger overheard.
    pub(crate) heard: Vec<Vec<u8>>,
    pub(crate) faults: bool,
    /// The proof that calls are up is over by then.
    pub(crate) proof_until: u64,
}

/// Where the server listens.
pub(crate) const SERVER: &str = "10.99.0.1:5060";

/// The address of a peer.
pub(crate) fn peer_addr(index: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + index as u8)), 5060)
}

fn peer_addr6(index: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1 + index as u16)), 5060)
}

/// The URI a peer wants to be reached at inside its dialogs, in one of the ways that stacks write.
fn draw_contact(rng: &mut Rng, peer: &Peer) -> String {
    let (name, host) = (&peer.name, peer.host(1));
    let transport = peer.transport.in_uri();
    // Where no port is written, over TLS it is another one.
    let tcp = peer.transport == Transport::Tcp;
    let ip = host.strip_suffix(":5060").filter(|_| tcp).unwrap_or(&host);
    match rng.below(5) {
        0 => format!("sip:{name}@{ip}"),
        1 => format!("sip:{host};transport={transport}"),
        2 => {
            let shouted = transport.to_uppercase();
            format!("sip:{name};ext=7:secret@{host};transport={shouted};ob;line=a%3Bb")
        }
        _ => format!("sip:{name}@{host};transport={transport}"),
    }
}

/// Some worlds have peers over TLS among the others, or alone.
pub(crate) fn draw_transport(seed: u64, peer: usize) -> Transport {
    let mut rng = Rng::new(seed).fork("transport");
    let secured = *rng.pick(&[0, 0, 500, 1000]);
    let mut own = rng.fork(["first", "second", "third", "fourth", "fifth"][peer.min(4)]);
    if own.chance(secured) { Transport::Tls } else { Transport::Tcp }
}

/// What some stacks put behind the address in a Contact.
const CONTACT_PARAMS: &str = ";expires=60;+sip.instance=\"<urn:uuid:0>\"";

/// A device entry for a peer.
pub(crate) fn device(peer: &Peer, dn: &str, retry_after: Option<Duration>) -> Device {
    Device {
        dn: Some(dn.to_owned()),
        prefix: None,
        kind: DeviceKind::Extension,
        contact: format!("sip:{};transport={}", peer.addr, peer.transport.in_uri()),
        address: Some(peer.addr),
        names: Box::default(),
        transport: peer.transport,
        backups: Vec::new(),
        outbound: None,
        tls_name: None,
        contact_has_user: false,
        retry_after,
    }
}

/// The world of a seed, before anything happened.
pub(crate) fn build(seed: u64, keep: Keep) -> World {
    let mut rng = Rng::new(seed).fork("swarm");
    let weather = Weather::draw(&mut rng);
    let mut world = World::new(seed, weather, keep);
    let mass = rng.chance(40);
    let peers = if mass { 2 } else { rng.range(2, 5) as usize };
    let server: SocketAddr = SERVER.parse().unwrap_or_else(|_| peer_addr(99));
    let delay = match rng.below(8) {
        0 => 0,
        1 => rng.range(1, 400),
        2 => rng.range(5_000, 12_000),
        _ => rng.range(500, 5_000),
    };
    let window_secs = *rng.pick(&[0, 0, 0, 2, 4, 8, 20, 34]);
    world.truth.sent_by = SERVER.to_owned();
    let ipv6 = rng.chance(200);
    let mut devices = Vec::new();
    for index in 0..peers {
        let addr = if ipv6 { peer_addr6(index) } else { peer_addr(index) };
        let mut peer = Peer::new(index, format!("100{index}"), addr, server);
        peer.traits = draw_traits(&mut rng);
        peer.transport = draw_transport(seed, index);
        peer.contact = draw_contact(&mut rng, &peer);
        let own = rng.chance(250).then(|| *rng.pick(&[0, 700, 2_000]));
        let mut entry = device(&peer, &peer.name, own.map(Duration::from_millis));
        match rng.below(4) {
            0 => {
                let transport = peer.transport.in_uri();
                entry.contact = format!("sip:inbox-{index}@{};transport={transport}", peer.addr);
                entry.contact_has_user = true;
                peer.route_uri = Some(entry.contact.clone());
            }
            1 => {
                entry.kind = DeviceKind::Trunk;
                entry.prefix = Some(format!("9{index}"));
            }
            _ => {}
        }
        world.oracle.rules.push(Rules { delay: own.unwrap_or(delay) * MS, backup: false });
        world.oracle.addresses.insert(peer.addr, index);
        devices.push(entry);
        world.add_peer(peer);
    }
    draw_targets(&mut Rng::new(seed).fork("targets"), &mut world, &mut devices);
    let mut manners = Rng::new(seed).fork("manners");
    for peer in &mut world.peers {
        peer.traits.tries_late = *manners.pick(&[0, 0, 500]);
    }
    let mut options = Options::default().with_devices(devices);
    options.sent_by = SERVER.to_owned();
    options.events = true;
    options.retry_after = Duration::from_millis(delay);
    options.sip_invite_timeout = Duration::from_secs(window_secs);
    world.oracle.window = options.window().as_micros() as u64;
    let shards = rng.range(1, 3) as usize;
    let mut running = Server::new(server, shards, options, rng.fork("server"));
    running.mesh_delay = *rng.pick(&[0, 0, 50, 2 * MS]);
    world.nodes.server = Some(running);
    world.director = draw_director(&mut rng, mass);
    world
}

/// Second addresses of peers, and peers that take requests on the flows that they open.
fn draw_targets(rng: &mut Rng, world: &mut World, devices: &mut [Device]) {
    let (backups, aliases) = (rng.chance(250), rng.chance(250));
    for (index, device) in devices.iter_mut().enumerate() {
        world.peers[index].traits.alias = aliases && rng.chance(700);
        if backups && rng.chance(700) {
            let addr = SocketAddr::new(world.peers[index].addr.ip(), 5070);
            device.backups.push(addr);
            world.oracle.rules[index].backup = true;
            world.oracle.addresses.insert(addr, index);
            world.listeners.insert(addr, (index, Listener::Up));
        }
    }
}

pub(crate) fn draw_traits(rng: &mut Rng) -> Traits {
    let busy_status = *rng.pick(&[0, 0, 0, 500, 491]);
    let transport_errors = *rng.pick(&[0, 0, 0, 100]);
    Traits {
        responds_on_new_flow: rng.chance(700),
        busy_status,
        reliable: rng.chance(300),
        record_routes: *rng.pick(&[0, 0, 1, 2]),
        vias: *rng.pick(&[1, 1, 2, 3]),
        spelling: *rng.pick(&[
            Spelling::Plain,
            Spelling::Plain,
            Spelling::Compact,
            Spelling::Shouted,
            Spelling::Spaced,
        ]),
        flow_per_call: rng.chance(300),
        answer_delay_max: *rng.pick(&[1, 20 * MS, 300 * MS, 2 * SEC]),
        ring_max: *rng.pick(&[1, SEC, 8 * SEC]),
        refuses: *rng.pick(&[0, 0, 100]),
        rejects: *rng.pick(&[0, 0, 150]),
        transport_errors,
        rport: rng.chance(300),
        names: std::array::from_fn(|_| rng.chance(200)),
        contact_params: if rng.chance(300) { CONTACT_PARAMS } else { "" },
        pings: *rng.pick(&[0, 0, 100]),
        extras_max: *rng.pick(&[0, 2, 6]),
        delayed_offers: *rng.pick(&[0, 0, 300]),
        alias: false,
        ..Traits::default()
    }
}

fn draw_director(rng: &mut Rng, mass: bool) -> Director {
    let mut methods = vec!["INVITE", "INVITE"];
    for method in ["UPDATE", "INFO", "MESSAGE", "OPTIONS", "REFER", "XYZZY", "INVITE", "INVITE"] {
        if rng.chance(500) {
            methods.push(method);
        }
    }
    let faults = rng.chance(900);
    let sometimes = |rng: &mut Rng, most: u64| if rng.chance(500) { rng.below(most) } else { 0 };
    Director {
        calm: false,
        methods,
        byes: *rng.pick(&[0, 0, 30]),
        cancels: *rng.pick(&[0, 100, 300]),
        glares: *rng.pick(&[0, 50, 200]),
        act_gap: *rng.pick(&[300 * MS, SEC, 3 * SEC]) * if mass { 10 } else { 1 },
        calls_left: if mass { rng.range(50, 80) } else { rng.range(1, 7) },
        call_gap: if mass { 20 * MS } else { *rng.pick(&[100 * MS, 2 * SEC]) },
        fault_gap: *rng.pick(&[0, 500 * MS, 2 * SEC, 6 * SEC]),
        away_gap: *rng.pick(&[0, 0, 3 * SEC, 10 * SEC]),
        away_max: *rng.pick(&[SEC, 5 * SEC, 40 * SEC]),
        write_faults: std::array::from_fn(|_| sometimes(rng, if mass { 10 } else { 150 })),
        silence: *rng.pick(&[0, 0, 2 * SEC, 12 * SEC]),
        whole_peer: if mass { 700 } else { 150 },
        reload_gap: *rng.pick(&[0, 0, 0, 4 * SEC]),
        vandal_gap: *rng.pick(&[0, 0, 0, 300 * MS]),
        heard: Vec::new(),
        faults,
        proof_until: 0,
    }
}

/// Two peers that talk to each other without a server and without faults.
pub(crate) fn draw_direct(world: &mut World, seed: u64) {
    let mut rng = Rng::new(seed).fork("direct");
    for peer in &mut world.peers {
        let drawn = draw_traits(&mut rng);
        peer.traits = Traits {
            record_routes: 0,
            busy_status: 0,
            transport_errors: 0,
            names: [false; 3],
            ..drawn
        };
    }
    world.oracle.window = 32 * SEC;
    world.director = draw_director(&mut rng, false);
    world.director.faults = false;
    world.director.calls_left = 4;
}
