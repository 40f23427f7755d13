//! Callers and callees of one engine, joined by a transparent relay, in a time that tests make.
#![allow(clippy::disallowed_methods, reason = "a base to count from")]

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::*;
use crate::message::Frame;
use crate::net::Closed;
use crate::outcome::{Outcome as Found, Recorder};
use crate::scenario::load;

const CALLER: u32 = 0;
const CALLEE: u32 = 1;

/// An engine with one caller and one callee; what one writes the other reads.
struct World {
    engine: Engine,
    start: Instant,
    now: Instant,
    datagrams: bool,
    /// Messages that are lost next, by a piece of their first line.
    lose: Vec<&'static str>,
    /// The server's part: a CSeq that is another on each side.
    cseq: (&'static str, &'static str),
    /// First lines of everything that was carried.
    seen: Vec<String>,
}

impl World {
    fn new(scenario: &str, datagrams: bool) -> Self {
        let start = Instant::now();
        let read = |_: &str, _: usize| Ok(scenario.as_bytes().to_vec());
        let loaded = load::load("test", load::Extras::default(), &read).unwrap();
        let mixture = loaded.mixture;
        let transport = if datagrams { "UDP" } else { "TCP" };
        let settings = Settings {
            run: 9,
            seed: 1,
            address: "127.0.0.1:5060".parse().unwrap(),
            server: "127.0.0.1:5060".into(),
            transport,
            datagrams,
            delay: Duration::from_millis(500),
            interval: Duration::from_millis(100),
        };
        let party = |user: &str, last| {
            Rc::new(Party::new(user.into(), Ipv4Addr::new(127, 0, 0, last), 5070, transport))
        };
        let (callers, callees) = (vec![party("a", 2)], vec![party("b", 3)]);
        let mut engine = Engine::new(settings, &mixture, callers, callees, start);
        for (conn, side) in [(CALLER, Side::Caller), (CALLEE, Side::Callee)] {
            engine.out.open(conn, datagrams);
            engine.on_open(Place { conn, side, party: 0, datagrams }, start);
        }
        Self {
            engine,
            start,
            now: start,
            datagrams,
            lose: Vec::new(),
            cseq: ("", ""),
            seen: Vec::new(),
        }
    }

    fn call(&mut self) {
        let now = self.now;
        assert!(self.engine.start_call(now, now));
        self.carry();
    }

    /// Lets time pass in steps of a millisecond.
    fn pass(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += Duration::from_millis(1);
            let now = self.now;
            self.engine.tick(now);
            self.carry();
        }
    }

    /// Carries what waits until nothing does.
    fn carry(&mut self) {
        loop {
            let mut moved = false;
            for (conn, side) in [(CALLER, Side::Callee), (CALLEE, Side::Caller)] {
                let (bytes, _) = self.engine.out.take(conn);
                moved |= !bytes.is_empty();
                let (of_caller, of_callee) = self.cseq;
                let text = String::from_utf8_lossy(&bytes);
                let text = match side {
                    _ if of_caller.is_empty() => text.into_owned(),
                    Side::Caller => text.replace(of_callee, of_caller),
                    Side::Callee => text.replace(of_caller, of_callee),
                };
                self.deliver(1 - conn, side, text.as_bytes());
            }
            if !moved {
                return;
            }
        }
    }

    fn deliver(&mut self, conn: u32, side: Side, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Frame::Message(message, len) = message::next(rest) else {
                panic!("not SIP: {}", String::from_utf8_lossy(rest))
            };
            rest = &rest[len..];
            let line = message.raw.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line).into_owned();
            if let Some(at) = self.lose.iter().position(|piece| line.contains(piece)) {
                self.lose.remove(at);
                continue;
            }
            self.seen.push(line);
            let place = Place { conn, side, party: 0, datagrams: self.datagrams };
            self.engine.on_message(place, &message, self.now);
        }
    }

    fn end(mut self) -> Found {
        let now = self.now;
        self.engine.finish(now);
        let duration = now - self.start;
        let mut about = crate::outcome::About { duration, ..Default::default() };
        let violations = &self.engine.notes.violations;
        about.violations.counts = violations.counts();
        about.violations.examples = violations.sentences();
        let recorder: Recorder = self.engine.end_measuring();
        recorder.into_outcome(about, &[])
    }
}

const HOLD: &str = "scenario hold \"\"\ncaller\n invite\n wait 100ms\n reinvite sendonly\n bye\n\
    callee\n ring\n wait 20ms\n answer\n";

#[test]
fn a_call_runs_to_its_end_and_its_times_are_those_of_the_callee() {
    let mut world = World::new(HOLD, false);
    world.call();
    world.pass(200);
    let methods: Vec<&str> = world
        .seen
        .iter()
        .map(|line| line.strip_prefix("SIP/2.0 ").unwrap_or(line).split(' ').next().unwrap())
        .collect();
    assert_eq!(methods, ["INVITE", "180", "200", "ACK", "INVITE", "200", "ACK", "BYE", "200"]);
    assert_eq!((world.engine.in_flight(), world.engine.callees_left()), (0, 0));
    let found = world.end();
    assert_eq!((found.calls.kept, found.calls.set_up, found.violations.total()), (1, 1, 0));
    let invite = &found.response["invite"].corrected;
    assert!((invite.max_ms() - 20.0).abs() < 0.1, "{}", invite.max_ms());
    assert!(found.response["reinvite"].corrected.max_ms() < 0.1);
}

#[test]
fn over_datagrams_what_is_lost_is_sent_again_and_no_call_is_made_twice() {
    let mut world = World::new(HOLD, true);
    world.lose = vec!["INVITE sip", "180", "200", "ACK", "BYE"];
    world.call();
    world.pass(6000);
    let found = world.end();
    assert_eq!((found.calls.kept, found.violations.total()), (1, 0), "{:?}", found.violations);
    assert!(found.counters["retransmissions"] >= 3, "{:?}", found.counters);
}

#[test]
fn an_unexpected_answer_fails_the_call_and_ends_what_stands() {
    let scenario = HOLD.replace(" answer\n", " reject 486 \"Busy Here\"\n");
    let mut world = World::new(&scenario, false);
    world.call();
    world.pass(100);
    assert_eq!(world.engine.in_flight(), 0);
    let found = world.end();
    assert_eq!(found.calls.failures.get("answered 486"), Some(&1));
}

#[test]
fn a_call_whose_connection_dies_under_a_reinvite_is_in_danger_until_it_is_acknowledged() {
    let mut world = World::new(HOLD, false);
    world.engine.set_manners(&Manner::Silent);
    world.call();
    world.pass(150);
    let fault = world.now;
    world.engine.endanger(Side::Callee, 0, fault, Duration::ZERO);
    assert_eq!(world.engine.in_danger(), 1);
    world.engine.set_manners(&Manner::Well);
    // The server's part: the same request once more, with the next CSeq and another branch.
    world.cseq = ("CSeq: 2 ", "CSeq: 3 ");
    world.pass(500);
    let again = world.engine.callers_agents[0].cseq;
    assert_eq!(again, 2);
    let place = Place { conn: CALLEE, side: Side::Callee, party: 0, datagrams: false };
    let now = world.now;
    world.engine.on_closed(place, Closed::Struck, now, now);
    world.engine.on_open(place, now);
    let invite = reinvite(&world);
    let Frame::Message(message, _) = message::next(&invite) else { panic!("not SIP") };
    world.engine.on_message(place, &message, now);
    world.carry();
    let found = world.end();
    let recovery = found.recovery.unwrap();
    assert_eq!((recovery.endangered, recovery.safe), (1, 1));
    assert!((recovery.answered.max_ms() - 500.0).abs() < 1.0, "{}", recovery.answered.max_ms());
    assert!(recovery.excess.max_ms() < 1.0);
    assert_eq!(recovery.attempts, [0, 1]);
}

/// The re-INVITE that is outstanding, as a server sends it again: transparent but for the branch.
fn reinvite(world: &World) -> Vec<u8> {
    let agent = &world.engine.callees_agents[0];
    let (local, remote) = (agent.dialog.local(), agent.dialog.remote());
    let text = format!(
        "INVITE sip:b@127.0.0.3:5070 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bKagain\r\n\
         Max-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 3 INVITE\r\n\
         Contact: <sip:127.0.0.1:5060;transport=tcp>\r\nContent-Length: 0\r\n\r\n",
        String::from_utf8_lossy(remote),
        String::from_utf8_lossy(local),
        String::from_utf8_lossy(agent.dialog.call_id()),
    );
    text.into_bytes()
}

#[test]
fn over_datagrams_an_invite_that_nobody_answered_is_answered_when_it_comes_again() {
    let mut world = World::new(HOLD, true);
    world.engine.set_manners(&Manner::Silent);
    world.call();
    world.pass(300);
    world.engine.set_manners(&Manner::Well);
    world.pass(2000);
    let found = world.end();
    assert_eq!((found.calls.kept, found.violations.total()), (1, 0), "{:?}", found.violations);
    assert!(found.response["reinvite"].corrected.max_ms() > 490.0);
}
