//! Devices that nobody can connect to: they open the connection, and requests come down it (RFC 5923), on
//! whichever shard it is.

// Clocks, threads and processes belong to the other side of the socket.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "loopback/child.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod child;
#[path = "loopback/tls.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod tls;
#[path = "loopback/ua.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod ua;

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use child::{Server, Setup, free_address};
use tls::{Authority, Files, Identity, Validity};
use ua::{Call, Ua, request};

/// A server of four shards, and the device 7002 behind a firewall: its address refuses connections.
struct World {
    server: Server,
    contact: String,
    port: u16,
}

impl World {
    fn new() -> Self {
        let callee = free_address();
        let tserver = "retry-after-reliable-transport-error = 500\n";
        let setup = Setup { cores: "[0, 0, 0, 0]", callee, ..Setup::default() };
        let whole = format!(
            "[server]\nlisten = [\"tcp:{}\"]\ncores = [0, 0, 0, 0]\n[TServer]\n{tserver}\
             [[device]]\ndn = \"7001\"\ntype = \"Extension\"\ncontact = \"sip:7001@127.0.0.1:9\"\n\
             [[device]]\ndn = \"7002\"\ntype = \"Extension\"\ncontact = \"sip:7002@{callee}\"\n",
            setup.address
        );
        let server = Server::start(&Setup { whole: Some(whole), ..setup });
        let contact = format!("sip:7002@{callee};transport=tcp");
        Self { server, contact, port: callee.port() }
    }

    /// The device opens a connection, and says which port it stands for.
    fn device_connects(&self, alias: &str) -> Ua {
        let mut device = Ua::new(TcpStream::connect(self.server.address).unwrap());
        let via = format!("Via: SIP/2.0/TCP 127.0.0.1:{}{alias};branch", self.port);
        let options =
            request("OPTIONS", 7, 1, None).replace("Via: SIP/2.0/TCP 127.0.0.1:9;branch", &via);
        assert!(options.contains(&via));
        device.send(&options);
        assert!(device.receive().is("SIP/2.0 200"));
        // The other shards hear of it a moment after the device does.
        thread::sleep(Duration::from_millis(200));
        device
    }

    fn call(&self, number: u32) -> Ua {
        let mut caller = Ua::connect(self.server.address);
        caller.send(&request("INVITE", number, 1, None));
        caller
    }
}

fn established(world: &World, device: &mut Ua, number: u32) -> (Ua, Call) {
    let mut caller = world.call(number);
    let (call, _) = Call::accepted(number, &mut caller, device, &world.contact);
    (caller, call)
}

#[test]
fn calls_go_down_the_flow_that_the_device_opened_whichever_shard_they_are_on() {
    let world = World::new();
    let mut device = world.device_connects(";alias");
    // Each caller's connection lands on one of four shards: sixteen that are all on one are no accident.
    let mut held = Vec::new();
    for number in 1..=16 {
        held.push(established(&world, &mut device, number));
    }
    for (caller, call) in &mut held {
        caller.send(&call.request("INFO", 2));
        let info = device.receive();
        assert!(info.is("INFO "), "{info:?}");
        device.send(&info.response("200 OK", &world.contact));
        assert!(caller.receive().is("SIP/2.0 200"));
    }
}

#[test]
fn a_device_that_comes_back_on_a_new_flow_gets_the_next_attempt_of_every_call() {
    let world = World::new();
    let mut device = world.device_connects(";alias");
    let mut held: Vec<_> = (1..=8).map(|number| established(&world, &mut device, number)).collect();
    for (caller, call) in &mut held {
        caller.send(&call.request("INVITE", 2));
        assert!(caller.receive().is("SIP/2.0 100"));
        assert!(device.receive().is("INVITE "));
    }
    device.reset();
    let mut device = world.device_connects(";alias");
    for _ in 0..held.len() {
        let again = device.receive();
        assert!(again.is("INVITE "), "{again:?}");
        device.send(&again.response("200 OK", &world.contact));
    }
    for (caller, call) in &mut held {
        assert!(caller.receive().is("SIP/2.0 200"));
        caller.send(&call.request("ACK", 2));
    }
}

#[test]
fn a_flow_without_alias_leads_to_nobody() {
    let world = World::new();
    let _device = world.device_connects("");
    for number in 1..=8 {
        let refused = world.call(number).receive_after("SIP/2.0 1");
        assert!(refused.is("SIP/2.0 503"), "{refused:?}");
    }
}

/// The name that the device 7002 must have a certificate for.
const DEVICE: &str = "phone.holdfast.test";

/// A server of four shards over TLS, with a device at an address that nobody here can come from.
struct Secured {
    server: Server,
    address: std::net::SocketAddr,
    authority: Authority,
    _files: Files,
}

impl Secured {
    fn new() -> Self {
        Self::with("127.0.0.1:9")
    }

    /// The device 7001 is at `caller`.
    fn with(caller: &str) -> Self {
        let authority = Authority::new("the authority");
        let files = Files::new();
        let own = authority.certify(&["sip.holdfast.test"], Validity::Now);
        let section = files.section(&own, &authority);
        let (plain, address) = (free_address(), free_address());
        let whole = format!(
            "[server]\nlisten = [\"tcp:{plain}\", \"tls:{address}\"]\ncores = [0, 0, 0, 0]\n\
             {section}client-certificate = \"wanted\"\n\
             [[device]]\ndn = \"7001\"\ntype = \"Extension\"\ncontact = \"sip:7001@{caller}\"\n\
             [[device]]\ndn = \"7002\"\ntype = \"Extension\"\n\
             contact = \"sip:7002@127.9.9.9:5061;transport=tls\"\ntls-name = \"{DEVICE}\"\n"
        );
        let setup = Setup { whole: Some(whole), address: plain, ..Setup::default() };
        Self { server: Server::start(&setup), address, authority, _files: files }
    }

    /// A peer with this certificate says that it is the way to 127.9.9.9.
    fn connect(&self, own: Option<&Identity>) -> Ua {
        let mut device = tls::ua(self.address, &self.authority.client(own), "sip.holdfast.test");
        let options = request("OPTIONS", 7, 1, None);
        device.send(&options.replace("TCP 127.0.0.1:9;", "TLS 127.9.9.9:5061;alias;"));
        assert!(device.receive().is("SIP/2.0 200"));
        thread::sleep(Duration::from_millis(200));
        device
    }
}

#[test]
fn a_certificate_makes_a_peer_the_device_that_it_names_wherever_it_comes_from() {
    let world = Secured::new();
    let own = world.authority.certify(&[DEVICE], Validity::Now);
    let mut device = world.connect(Some(&own));
    for number in 1..=8 {
        let mut caller = Ua::connect(world.server.address);
        caller.send(&request("INVITE", number, 1, None));
        let invite = device.receive();
        assert!(invite.is("INVITE sip:7002@127.9.9.9:5061"), "{invite:?}");
        device.send(&invite.response("486 Busy", "sip:7002@127.9.9.9"));
        assert!(device.receive().is("ACK "));
        assert!(caller.receive_after("SIP/2.0 1").is("SIP/2.0 486"));
    }
}

#[test]
fn who_has_the_certificate_of_a_device_may_call_from_any_address() {
    let world = Secured::with("127.9.9.8:9");
    let own = world.authority.certify(&[DEVICE], Validity::Now);
    // Two calls: one shard may have both, and answers the same INVITE with the same response.
    for (number, own, status) in [(1, Some(&own), "SIP/2.0 503"), (2, None, "SIP/2.0 403")] {
        let mut caller = world.connect(own);
        let invite = request("INVITE", number, 1, None).replace("TCP", "TLS");
        caller.send(&invite.replace("sip:7002@", "sip:7001@"));
        let answer = caller.receive_after("SIP/2.0 1");
        // 7001 refuses connections: whoever hears that has got through.
        assert!(answer.is(status), "{answer:?}");
    }
}

#[test]
fn who_has_the_certificate_of_a_device_may_send_as_much_as_a_device() {
    const MESSAGES: u32 = 1500;
    let world = Secured::with("127.9.9.8:9");
    let own = world.authority.certify(&[DEVICE], Validity::Now);
    for (own, is_held_back) in [(Some(&own), false), (None, true)] {
        let mut peer = world.connect(own);
        let all = (0..MESSAGES).map(|call| request("OPTIONS", 100 + call, 1, None));
        peer.send(&all.collect::<String>().replace("TCP", "TLS"));
        for _ in 0..MESSAGES {
            assert!(peer.receive().is("SIP/2.0 200"));
        }
        assert_eq!(world.server.stat("held_back") > 0, is_held_back);
    }
}

#[test]
fn a_claim_without_the_certificate_leads_nowhere() {
    let world = Secured::new();
    let other = world.authority.certify(&["other.holdfast.test"], Validity::Now);
    let _peers = [world.connect(None), world.connect(Some(&other))];
    for number in 1..=4 {
        let mut caller = Ua::connect(world.server.address);
        caller.send(&request("INVITE", number, 1, None));
        let refused = caller.receive_after("SIP/2.0 1");
        assert!(refused.is("SIP/2.0 503"), "{refused:?}");
    }
}
