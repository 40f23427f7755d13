//! The server as it is run, on real sockets: calls, dying connections, signals, limits.
//!
//! What sockets do without SIP is tested in `src/shard/tests`.

// Clocks, threads and processes belong to the other side of the socket.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod child;
mod ua;
mod udp;

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use child::{Server, Setup, field};
use ua::{Call, PATIENCE, Ua, request};

/// A server, a caller, and where the callee is called.
struct World {
    server: Server,
    listener: TcpListener,
    caller: Ua,
}

impl World {
    fn new(cores: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let callee = listener.local_addr().unwrap();
        let server = Server::start(&Setup { cores, callee, ..Setup::default() });
        let caller = Ua::connect(server.address);
        Self { server, listener, caller }
    }

    fn contact(&self) -> String {
        format!("sip:7002@{};transport=tcp", self.listener.local_addr().unwrap())
    }

    fn accept(&self) -> Ua {
        Ua::new(self.listener.accept().unwrap().0)
    }

    /// Sets up a call over the caller's connection and the callee's, which it opens if need be.
    fn call(&mut self, number: u32, callee: &mut Option<Ua>) -> Call {
        self.caller.send(&request("INVITE", number, 1, None));
        if callee.is_none() {
            *callee = Some(self.accept());
        }
        let contact = self.contact();
        let callee = callee.as_mut().unwrap();
        Call::accepted(number, &mut self.caller, callee, &contact).0
    }

    fn end(&mut self, call: &Call, cseq: u32, callee: &mut Ua) {
        self.caller.send(&call.request("BYE", cseq));
        let bye = callee.receive();
        assert!(bye.is("BYE "), "{bye:?}");
        callee.send(&bye.response("200 OK", &self.contact()));
        let ok = self.caller.receive();
        assert!(ok.is("SIP/2.0 200") && ok.header("CSeq").ends_with("BYE"), "{ok:?}");
    }
}

#[test]
fn calls_go_through_however_many_shards_share_the_cores() {
    for cores in ["[0]", "\"all\"", "[0, 0]", "[0, 0, 0, 0]"] {
        let mut world = World::new(cores);
        let mut callee = None;
        let calls: Vec<_> = (0..4).map(|number| world.call(number, &mut callee)).collect();
        let mut callee = callee.unwrap();
        for call in &calls {
            world.end(call, 2, &mut callee);
        }
    }
}

#[test]
fn call_is_reached_over_a_connection_of_any_shard() {
    let mut world = World::new("[0, 0, 0, 0]");
    let mut callee = None;
    let call = world.call(1, &mut callee);
    let mut callee = callee.unwrap();
    // The kernel spreads connections over the shards: most of these are not at the call's home.
    for cseq in 2..12 {
        world.caller = Ua::connect(world.server.address);
        world.caller.send(&call.request("INFO", cseq));
        let info = callee.receive();
        assert!(info.is("INFO "), "{info:?}");
        callee.send(&info.response("200 OK", &world.contact()));
        assert!(world.caller.receive().is("SIP/2.0 200"));
    }
    world.end(&call, 12, &mut callee);
    let total = world.server.stats();
    assert!(field(&total, "forwarded") > 0, "{total}");
    assert_eq!(field(&total, "forward_drops"), 0, "{total}");
}

#[test]
fn reinvite_that_is_reset_is_sent_again_over_a_new_connection() {
    for cores in ["[0]", "[0, 0]"] {
        let mut world = World::new(cores);
        let mut callee = None;
        let call = world.call(1, &mut callee);
        let mut old = callee.unwrap();
        world.caller.send(&call.request("INVITE", 2));
        let first = old.receive();
        assert!(first.is("INVITE "), "{first:?}");
        let began = Instant::now();
        old.reset();
        let mut callee = world.accept();
        let again = callee.receive();
        assert!(again.is("INVITE "), "{again:?}");
        assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
        assert_ne!(first.header("CSeq"), again.header("CSeq"));
        callee.send(&again.response("200 OK", &world.contact()));
        let ok = world.caller.receive_after("SIP/2.0 100");
        assert!(ok.is("SIP/2.0 200") && ok.header("CSeq") == "2 INVITE", "{ok:?}");
        world.caller.send(&call.request("ACK", 2));
        assert!(callee.receive().is("ACK "));
        world.end(&call, 3, &mut callee);
    }
}

#[test]
fn sixteen_requests_in_one_segment_are_answered_with_one_write() {
    let mut world = World::new("[0]");
    let requests: String = (1..=16).map(|cseq| request("OPTIONS", 1, cseq, None)).collect();
    world.caller.send(&requests);
    for cseq in 1..=16 {
        let ok = world.caller.receive();
        assert!(ok.is("SIP/2.0 200"), "{ok:?}");
        assert_eq!(ok.header("CSeq"), format!("{cseq} OPTIONS"));
    }
    let total = world.server.stats();
    assert_eq!(field(&total, "messages"), 16, "{total}");
    assert_eq!(field(&total, "reads"), field(&total, "writes"), "{total}");
    assert!(field(&total, "reads") <= 2 && field(&total, "rss_kib") > 0, "{total}");
}

#[test]
fn sigterm_waits_for_calls_and_ends_when_there_are_none() {
    let mut world = World::new("[0, 0]");
    let mut callee = None;
    let call = world.call(1, &mut callee);
    let mut callee = callee.unwrap();
    world.server.signal("TERM");
    world.server.wait_for("draining");
    // A shard obeys in order: when it has said what it holds it drains.
    world.server.stats();
    world.caller.send(&request("INVITE", 2, 1, None));
    let refused = world.caller.receive_after("SIP/2.0 100");
    assert!(refused.is("SIP/2.0 503"), "{refused:?}");
    world.caller.send(&request("ACK", 2, 1, Some(("sip:7002@127.0.0.1", refused.header("To")))));
    world.end(&call, 2, &mut callee);
    let began = Instant::now();
    assert!(world.server.wait().success());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let total = world.server.wait_for("stats total");
    assert_eq!(field(&total, "calls_established"), 1, "{total}");
    assert!(world.caller.is_closed());
}

#[test]
fn server_is_back_on_its_address_at_once() {
    let address = child::free_address();
    for _ in 0..3 {
        let mut server = Server::start(&Setup { cores: "[0, 0]", address, ..Setup::default() });
        let mut uas: Vec<_> = (0..20).map(|_| Ua::connect(server.address)).collect();
        for ua in &mut uas {
            ua.send(&request("OPTIONS", 1, 1, None));
            assert!(ua.receive().is("SIP/2.0 200"));
        }
        server.signal("TERM");
        // The server closes first: its ends of the connections stay in TIME_WAIT.
        assert!(uas.iter_mut().all(Ua::is_closed));
        assert!(server.wait().success());
    }
}

#[test]
fn calls_that_outlast_the_drain_get_a_bye() {
    let mut world = World::new("[0]");
    let mut callee = None;
    let _call = world.call(1, &mut callee);
    let mut callee = callee.unwrap();
    let began = Instant::now();
    world.server.signal("INT");
    for ua in [&mut world.caller, &mut callee] {
        let bye = ua.receive();
        assert!(bye.is("BYE "), "{bye:?}");
        ua.send(&bye.response("200 OK", "sip:7002@127.0.0.1"));
    }
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(world.server.wait().success());
}

#[test]
fn second_signal_ends_at_once() {
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let mut world = World::new("[0]");
        let mut callee = None;
        let _call = world.call(1, &mut callee);
        world.server.signal("TERM");
        world.server.wait_for("draining");
        let began = Instant::now();
        world.server.signal(name);
        assert_eq!(world.server.wait().code(), Some(code));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

#[test]
fn ten_thousand_resets_are_a_few_lines() {
    let world = World::new("[0]");
    for _ in 0..10 {
        let flows: Vec<_> = (0..200).map(|_| Ua::connect(world.server.address)).collect();
        flows.into_iter().for_each(Ua::reset);
    }
    let line = world.server.wait_for("flows:");
    assert!(line.contains(" reset="), "{line}");
    std::thread::sleep(Duration::from_millis(1200));
    let lines = world.server.lines();
    assert!(lines.len() < 5, "{lines:#?}");
}

#[test]
fn too_little_lockable_memory_is_told_with_its_remedy() {
    let mut server = Server::spawn(&Setup { before: "ulimit -l 64", ..Setup::default() });
    assert_eq!(server.wait().code(), Some(1));
    let line = server.wait_for("cannot lock");
    assert!(line.contains("cannot lock 512 KiB of memory for io_uring: the limit is 64 KiB"));
    assert!(line.contains("LimitMEMLOCK=") && line.contains("tuning/README.md"), "{line}");
}

#[test]
fn too_few_descriptors_are_told_with_their_remedy() {
    let mut server = Server::spawn(&Setup { before: "ulimit -n 64", ..Setup::default() });
    assert_eq!(server.wait().code(), Some(1));
    let line = server.wait_for("descriptors");
    assert!(line.contains("the limit is 64; raise RLIMIT_NOFILE"), "{line}");
}

#[test]
fn address_in_use_is_told() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let mut server = Server::spawn(&Setup { address, ..Setup::default() });
    assert_eq!(server.wait().code(), Some(1));
    server.wait_for(&format!("cannot listen on {address}: the address is in use"));
}

#[test]
fn core_that_does_not_exist_is_told() {
    let mut server = Server::spawn(&Setup { cores: "[0, 1023]", ..Setup::default() });
    assert_eq!(server.wait().code(), Some(1));
    server.wait_for("there is no core 1023 for a shard: this process may use 0");
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let server = Server::start(&Setup { before: "ulimit -n 150", ..Setup::default() });
    let mut first = Ua::connect(server.address);
    first.send(&request("OPTIONS", 1, 1, None));
    assert!(first.receive().is("SIP/2.0 200"));
    let many: Vec<_> =
        (0..200).map(|_| TcpStream::connect_timeout(&server.address, PATIENCE).unwrap()).collect();
    server.wait_for("cannot accept; new connections wait");
    first.send(&request("OPTIONS", 1, 2, None));
    assert!(first.receive().is("SIP/2.0 200"));
    drop(many);
    let mut last = Ua::connect(server.address);
    last.send(&request("OPTIONS", 2, 1, None));
    assert!(last.receive().is("SIP/2.0 200"));
}

#[test]
fn what_holds_the_server_back_is_told_before_it_listens() {
    let server = Server::spawn(&Setup { cores: "[0, 0, 0]", ..Setup::default() });
    let line = server.wait_for("several shards run on core 0, wanted is one");
    assert!(line.contains(" INFO ") && line.contains("cores = [0]"), "{line}");
    server.wait_for("listening on");
}
