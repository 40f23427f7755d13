//! Peers that vanish without a word, on real sockets: the packets to and from an address are dropped, and no
//! FIN and no RST says so (F5).
//!
//! Needs a network namespace with the chain `holdfast vanished`, so the tests are ignored unless
//! `tests/silence` runs them.

// Clocks, threads and processes belong to the other side of the socket.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::print_stdout)]

#[path = "loopback/child.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod child;
#[path = "loopback/ua.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod ua;

use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use child::{Server, Setup};
use ua::{Message, Ua, request};

/// Where the peer is that vanishes.
const PEER: &str = "127.0.0.7";
/// Longer than the slowest of what a peer that came back waits for.
const LONG: Duration = Duration::from_secs(20);
/// When a peer must have been missed: `tcp-user-timeout`, the first retransmission, and what this machine adds.
const LATEST: Duration = Duration::from_millis(3350);

fn nft(arguments: &str) {
    let status = Command::new("nft").args(arguments.split(' ')).status();
    assert!(status.is_ok_and(|status| status.success()), "nft {arguments}: run tests/silence");
}

/// Nothing comes from or goes to the peer any more.
fn vanish() {
    for direction in ["saddr", "daddr"] {
        nft(&format!("add rule inet holdfast vanished ip {direction} {PEER} drop"));
    }
}

fn come_back() {
    nft("flush chain inet holdfast vanished");
}

/// A call from 7001 to 7002, which is at the peer's address.
struct World {
    _server: Server,
    events: PathBuf,
    listener: TcpListener,
    caller: Ua,
    callee: Ua,
    target: String,
    to: String,
}

impl World {
    fn new(name: &str, tserver: &str) -> Self {
        come_back();
        let listener = TcpListener::bind((PEER, 0)).unwrap();
        let callee = listener.local_addr().unwrap();
        let events = std::env::temp_dir().join(format!("holdfast-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&events);
        let more = format!("[events]\nfile = \"{}\"\n", events.display());
        let server = Server::start(&Setup { callee, tserver, more: &more, ..Setup::default() });
        let mut caller = Ua::connect(server.address);
        caller.stream.tcp().set_read_timeout(Some(LONG)).unwrap();
        caller.send(&request("INVITE", 1, 1, None));
        let mut callee = Ua::new(listener.accept().unwrap().0);
        let invite = callee.receive();
        callee.send(&response(&listener, &invite, "200 OK"));
        let ok = caller.receive_after("SIP/2.0 100");
        assert!(ok.is("SIP/2.0 200"), "{ok:?}");
        let (target, to) = (ok.target().to_owned(), ok.header("To").to_owned());
        caller.send(&request("ACK", 1, 1, Some((&target, &to))));
        assert!(callee.receive().is("ACK "));
        Self { _server: server, events, listener, caller, callee, target, to }
    }

    fn caller_sends(&mut self, method: &str, cseq: u32) {
        self.caller.send(&request(method, 1, cseq, Some((&self.target, &self.to))));
    }

    /// Waits until the server tells of a recovery; how long that was after `since`.
    fn noticed(&self, since: Instant) -> Duration {
        while since.elapsed() < LONG {
            let told = std::fs::read_to_string(&self.events).unwrap_or_default();
            if let Some(line) = told.lines().find(|line| line.contains("RecoveryStarted")) {
                let took = since.elapsed();
                assert!(line.contains("\"silence\""), "{line}");
                return took;
            }
            sleep(Duration::from_millis(5));
        }
        panic!("nobody missed the peer");
    }

    /// The next attempt comes over a new connection, and the call goes on.
    fn recovers(mut self) {
        let mut flow = Ua::new(self.listener.accept().unwrap().0);
        let invite = flow.receive();
        assert!(invite.is("INVITE ") && invite.header("CSeq").starts_with("3 "), "{invite:?}");
        self.callee = flow;
        self.answered(&invite);
    }

    /// The callee takes the re-INVITE; another one and a BYE go through.
    fn answered(mut self, invite: &Message) {
        self.callee.send(&response(&self.listener, invite, "200 OK"));
        let ok = self.caller.receive_after("SIP/2.0 100");
        assert!(ok.is("SIP/2.0 200"), "{ok:?}");
        self.caller_sends("ACK", 2);
        assert!(self.callee.receive().is("ACK "));
        self.caller_sends("BYE", 3);
        let bye = self.callee.receive();
        assert!(bye.is("BYE "), "{bye:?}");
        self.callee.send(&response(&self.listener, &bye, "200 OK"));
        assert!(self.caller.receive().is("SIP/2.0 200"));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.events);
    }
}

fn response(listener: &TcpListener, request: &Message, status: &str) -> String {
    let callee = listener.local_addr().unwrap();
    request.response(status, &format!("sip:7002@{callee};transport=tcp"))
}

#[test]
#[ignore = "tests/silence runs it in a network namespace"]
fn peer_that_vanished_before_the_reinvite_is_missed_and_the_call_recovers() {
    let mut world = World::new("before", "");
    vanish();
    let began = Instant::now();
    world.caller_sends("INVITE", 2);
    let took = world.noticed(began);
    println!("vanished before the re-INVITE: noticed after {took:?}");
    in_time(took);
    come_back();
    world.recovers();
}

/// As long as `tcp-user-timeout` from the last that was heard, whichever way the peer vanished.
fn in_time(took: Duration) {
    assert!(took >= Duration::from_millis(2900) && took < LATEST, "{took:?}");
}

#[test]
#[ignore = "tests/silence runs it in a network namespace"]
fn peer_that_vanishes_after_its_kernel_took_the_reinvite_is_missed_by_the_kernel() {
    let mut world = World::new("acked", "");
    let began = Instant::now();
    world.caller_sends("INVITE", 2);
    assert!(world.callee.receive().is("INVITE "));
    // Longer than a delayed acknowledgement: nothing is under way.
    sleep(Duration::from_millis(300));
    vanish();
    let took = world.noticed(began);
    println!("vanished after the acknowledgement: noticed {took:?} after it");
    in_time(took);
    come_back();
    world.recovers();
}

#[test]
#[ignore = "tests/silence runs it in a network namespace"]
fn peer_that_vanishes_after_it_took_the_reinvite_is_missed_by_the_ping() {
    for late in [200, 600, 950] {
        let mut world = World::new("after", "");
        world.caller_sends("INVITE", 2);
        let invite = world.callee.receive();
        world.callee.send(&response(&world.listener, &invite, "100 Trying"));
        let began = Instant::now();
        // Everything is acknowledged.
        sleep(Duration::from_millis(late));
        vanish();
        let took = world.noticed(began);
        println!("vanished {late} ms after 100: noticed {took:?} after 100");
        assert!(took >= Duration::from_millis(1900) && took < LATEST, "{took:?}");
        come_back();
        world.recovers();
    }
}

#[test]
#[ignore = "tests/silence runs it in a network namespace"]
fn peer_that_vanishes_while_it_rings_is_missed_between_two_pings() {
    for (pongs, late) in [(true, 2300), (false, 2300), (false, 2900), (false, 5700)] {
        let mut world = World::new("rings", "");
        world.caller_sends("INVITE", 2);
        let invite = world.callee.receive();
        world.callee.send(&response(&world.listener, &invite, "100 Trying"));
        let until = Instant::now() + Duration::from_millis(late);
        while pongs && Instant::now() + Duration::from_millis(400) < until {
            let mut ping = [0; 4];
            world.callee.stream.read_exact(&mut ping).unwrap();
            assert_eq!(&ping, b"\r\n\r\n");
            world.callee.send("\r\n");
        }
        sleep(until.saturating_duration_since(Instant::now()));
        vanish();
        let took = world.noticed(Instant::now());
        println!("vanished {late} ms after 100 (pongs: {pongs}): noticed after {took:?}");
        assert!(took >= Duration::from_millis(1900) && took < LATEST, "{took:?}");
        come_back();
        world.recovers();
    }
}

#[test]
#[ignore = "tests/silence runs it in a network namespace"]
fn silence_that_ends_in_time_is_nobodys_business() {
    let mut world = World::new("short", "");
    vanish();
    world.caller_sends("INVITE", 2);
    sleep(Duration::from_millis(2500));
    come_back();
    let invite = world.callee.receive();
    assert!(invite.is("INVITE ") && invite.header("CSeq").starts_with("2 "), "{invite:?}");
    world.answered(&invite);
}

#[test]
#[ignore = "tests/silence runs it in a network namespace"]
fn silence_between_pings_that_ends_in_time_is_nobodys_business() {
    let mut world = World::new("between", "");
    world.caller_sends("INVITE", 2);
    let invite = world.callee.receive();
    world.callee.send(&response(&world.listener, &invite, "100 Trying"));
    for _ in 0..3 {
        sleep(Duration::from_millis(600));
        vanish();
        sleep(Duration::from_millis(1700));
        come_back();
    }
    world.answered(&invite);
}

#[test]
#[ignore = "tests/silence runs it in a network namespace"]
fn peer_that_takes_long_to_answer_is_there() {
    let mut world = World::new("slow", "");
    world.caller_sends("INVITE", 2);
    let invite = world.callee.receive();
    sleep(Duration::from_secs(8));
    world.answered(&invite);
}

#[test]
#[ignore = "tests/silence runs it in a network namespace"]
fn peer_that_vanishes_for_good_loses_its_call_at_the_deadline() {
    let mut world = World::new("good", "sip-invite-timeout = 4\n");
    vanish();
    let began = Instant::now();
    world.caller_sends("INVITE", 2);
    world.noticed(began);
    let answer = world.caller.receive_after("SIP/2.0 100");
    assert!(answer.is("SIP/2.0 408"), "{answer:?}");
    let bye = world.caller.receive();
    assert!(bye.is("BYE ") && bye.header("Reason").contains("transport-error"), "{bye:?}");
    let took = began.elapsed();
    println!("vanished for good: released after {took:?}");
    assert!(took >= Duration::from_secs(6) && took < Duration::from_secs(9), "{took:?}");
    come_back();
}
