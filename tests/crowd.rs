//! More connections and messages than one server can or should serve, on real sockets: who has to go, who
//! stays, and how long the others wait.

// Clocks, threads and processes belong to the other side of the socket.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::print_stdout)] // The measurement says what it found.

#[path = "loopback/child.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod child;
#[path = "loopback/ua.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod ua;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use child::{Server, Setup};
use socket2::{Domain, Socket, Type};
use ua::{Call, PATIENCE, Ua, request};

/// A source that is no device.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);
/// The address of the devices.
const DEVICE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A server, and a call to its device 7002 that nothing must happen to.
struct World {
    server: Server,
    caller: Ua,
    callee: Ua,
    call: Call,
    cseq: u32,
}

impl World {
    fn new(cores: &str, limits: &str) -> Self {
        let listener = TcpListener::bind((DEVICE, 0)).unwrap();
        let callee = listener.local_addr().unwrap();
        let contact = format!("sip:7002@{callee};transport=tcp");
        let more = format!("[limits]\n{limits}\n");
        let server = Server::start(&Setup { cores, callee, more: &more, ..Setup::default() });
        let mut caller = Ua::connect(server.address);
        caller.send(&request("INVITE", 1, 1, None));
        let mut callee = Ua::new(listener.accept().unwrap().0);
        let (call, _) = Call::accepted(1, &mut caller, &mut callee, &contact);
        Self { server, caller, callee, call, cseq: 1 }
    }

    /// A request over the two connections that the call came up on.
    fn call_is_up(&mut self) {
        self.cseq += 1;
        self.caller.send(&self.call.request("INFO", self.cseq));
        let info = self.callee.receive();
        assert!(info.is("INFO "), "{info:?}");
        self.callee.send(&info.response("200 OK", "sip:7002@127.0.0.1"));
        assert!(self.caller.receive().is("SIP/2.0 200"));
    }

    fn connect(&self, from: Ipv4Addr) -> TcpStream {
        connect(from, self.server.address)
    }
}

fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A peer of whom a request was answered.
fn spoken(stream: TcpStream, call: u32) -> Ua {
    let mut peer = Ua::new(stream);
    peer.send(&request("OPTIONS", call, 1, None));
    assert!(peer.receive().is("SIP/2.0 200"));
    peer
}

/// Sees the server end the connection; panics when it does not.
fn ends(stream: &mut TcpStream) {
    match stream.read(&mut [0; 64]) {
        Ok(count) => assert_eq!(count, 0, "a word before the end"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
}

#[test]
fn silent_connections_give_place_before_idle_ones_and_the_calls_never() {
    let mut world = World::new("[0]", "flows-max = 6");
    let mut talker = spoken(world.connect(STRANGER), 50);
    // Two of the call, one that spoke, three that never do.
    let mut silent: VecDeque<_> = (0..3).map(|_| world.connect(STRANGER)).collect();
    for call in 51..=55 {
        world.server.until("sockets", |count| count == 6);
        let newer = spoken(world.connect(STRANGER), call);
        ends(&mut silent.pop_front().unwrap());
        drop(newer);
        world.server.until("sockets", |count| count == 5);
        silent.push_back(world.connect(STRANGER));
    }
    talker.send(&request("OPTIONS", 50, 2, None));
    assert!(talker.receive().is("SIP/2.0 200"));
    assert_eq!(world.server.stat("crowded"), 5);
    assert_eq!(world.server.stat("no_room"), 0);
    world.call_is_up();
}

#[test]
fn where_all_connections_have_calls_a_further_one_is_closed_at_once() {
    let mut world = World::new("[0]", "flows-max = 2");
    for _ in 0..20 {
        ends(&mut world.connect(DEVICE));
    }
    world.server.until("no_room", |count| count == 20);
    assert_eq!(world.server.stat("crowded"), 0);
    world.call_is_up();
}

#[test]
fn a_forged_tag_of_another_shard_does_not_keep_a_connection_from_being_closed() {
    let mut world = World::new("[0, 0, 0]", "flows-max = 40");
    let target = world.call.target.clone();
    // Each shard has its forty, and each of these connections is known to all three.
    let mut strangers = Vec::new();
    for call in 0..150 {
        let mut peer = Ua::new(world.connect(STRANGER));
        for shard in ["0000", "0001", "0002"] {
            let to = format!("<sip:7002@127.0.0.1>;tag=hf{shard}000000070123456789abcdef");
            let _ = peer.try_send(&request("INFO", 100 + call, 2, Some((&target, &to))));
        }
        strangers.push(peer);
    }
    world.server.until("crowded", |count| count > 0);
    // Nobody else is kept out for longer than it takes to ask the other shards.
    let began = Instant::now();
    let mut served = 0;
    while served < 30 {
        assert!(began.elapsed() < PATIENCE, "kept out, {served} of 30 served");
        let mut peer = Ua::new(world.connect(STRANGER));
        if peer.try_send(&request("OPTIONS", 500, 1, None)).is_ok() && peer.try_receive().is_some()
        {
            served += 1;
        }
    }
    drop(strangers);
    world.call_is_up();
}

#[test]
fn one_source_has_so_many_connections_and_a_device_as_many_as_it_likes() {
    let mut world = World::new("[0]", "flows-per-source-max = 3");
    let held: Vec<_> = (0..3).map(|_| world.connect(STRANGER)).collect();
    world.server.until("sockets", |count| count == 5);
    ends(&mut world.connect(STRANGER));
    assert_eq!(world.server.stat("refused_source"), 1);
    drop(spoken(world.connect(Ipv4Addr::new(127, 0, 0, 78)), 60));
    let devices: Vec<_> = (0..10).map(|n| spoken(world.connect(DEVICE), 70 + n)).collect();
    drop(held);
    world.server.until("sockets", |count| count == 2 + devices.len() as u64);
    drop(spoken(world.connect(STRANGER), 61));
    world.call_is_up();
}

#[test]
fn a_stranger_who_sends_too_much_waits_and_loses_nothing() {
    let mut world = World::new("[0]", "messages-per-second-max = 100");
    let many: String = (0..400).map(|n| request("OPTIONS", 1000 + n, 1, None)).collect();
    let answered = |from| {
        let mut peer = Ua::new(world.connect(from));
        let began = Instant::now();
        peer.send(&many);
        for n in 0..400 {
            let ok = peer.receive();
            assert!(ok.is("SIP/2.0 200"), "{n}: {ok:?}");
        }
        began.elapsed()
    };
    answered(DEVICE);
    assert_eq!(world.server.stat("held_back"), 0);
    let took = answered(STRANGER);
    assert!(world.server.stat("held_back") > 0);
    assert!(took > Duration::from_millis(500), "{took:?}");
    world.call_is_up();
}

/// Connections of the flood, from so many addresses.
const FLOOD: u32 = 100_000;
const FLOOD_SOURCES: u32 = 250;
/// Connections of the flood that its side holds at a time.
const FLOOD_HELD: usize = 15_000;

/// How long a request and its answer took through the server and back.
fn round_trips(world: &mut World, until: impl Fn() -> bool) -> Vec<Duration> {
    let mut all = Vec::new();
    while !until() {
        let began = Instant::now();
        world.call_is_up();
        all.push(began.elapsed());
        thread::sleep(Duration::from_millis(1));
    }
    all.sort_unstable();
    all
}

fn say(when: &str, trips: &[Duration]) {
    let at = |share: f64| trips[((trips.len() - 1) as f64 * share) as usize].as_micros();
    println!(
        "{when:<24} {:>6} requests, p50 {} µs, p99 {} µs, max {} µs",
        trips.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// Opens the flood's connections as fast as it can, says nothing on any, and lets go of the oldest when it has
/// too many. How many were opened, and how long it took.
fn flood(server: SocketAddr) -> (u32, Duration) {
    let (mut held, mut opened) = (VecDeque::new(), 0);
    let began = Instant::now();
    for n in 0..FLOOD {
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + n % FLOOD_SOURCES);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        opened += u32::from(socket.connect(&server.into()).is_ok());
        held.push_back(socket);
        if held.len() > FLOOD_HELD {
            held.pop_front();
        }
    }
    (opened, began.elapsed())
}

/// `cargo test --release --test crowd -- --ignored --nocapture flood`
#[test]
#[ignore = "a measurement"]
fn measure_a_flood_of_silent_connections() {
    let mut world = World::new("[0]", "flows-max = 10000");
    let patience = |time| {
        let began = Instant::now();
        move || began.elapsed() > Duration::from_secs(time)
    };
    say("before the flood", &round_trips(&mut world, patience(5)));
    let server = world.server.address;
    let flood = thread::spawn(move || flood(server));
    let during = round_trips(&mut world, || flood.is_finished());
    let (opened, took) = flood.join().unwrap();
    say("during the flood", &during);
    say("after the flood", &round_trips(&mut world, patience(5)));
    println!("{opened} of {FLOOD} connections in {:.1} s", took.as_secs_f64());
    for name in ["accepted", "crowded", "no_room", "refused_source", "calls", "calls_lost"] {
        println!("{name} {}", world.server.stat(name));
    }
    assert_eq!((world.server.stat("calls"), world.server.stat("calls_lost")), (1, 0));
}
