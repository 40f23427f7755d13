//! The proxy on real sockets: what it does when a flow dies, how soon, and what is left of it.

// Clocks, threads and processes belong to the other side of the socket.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::print_stdout)]

#[path = "loopback/child.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod child;
#[path = "loopback/ua.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod ua;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use child::{Server, Setup, free_address};
use ua::{PATIENCE, Ua};

/// Where the servers of the pair are: what comes from there may go anywhere.
const MEMBERS: [&str; 2] = ["127.0.0.2", "127.0.0.3"];

struct World {
    proxy: Server,
    members: [TcpListener; 2],
    device: TcpListener,
}

impl World {
    fn new(cores: &str, more: &str) -> Self {
        let members = MEMBERS.map(|ip| TcpListener::bind((ip, 0)).unwrap());
        let [primary, backup] = [0, 1].map(|index| members[index].local_addr().unwrap());
        let address = free_address();
        let whole = format!(
            "[server]\nrole = \"proxy\"\nlisten = [\"tcp:{address}\"]\ncores = {cores}\n\
             drain-timeout = 2\n{more}[[pair]]\nname = \"one\"\n\
             primary = \"sip:{primary};transport=tcp\"\nbackup = \"sip:{backup};transport=tcp\"\n"
        );
        let proxy = Server::start(&Setup { whole: Some(whole), address, ..Setup::default() });
        Self { proxy, members, device: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    /// A server of the pair connects to the proxy.
    fn member(&self) -> Ua {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let from: SocketAddr = format!("{}:0", MEMBERS[0]).parse().unwrap();
        socket.bind(&from.into()).unwrap();
        socket.connect(&self.proxy.address.into()).unwrap();
        Ua::new(socket.into())
    }

    /// A re-INVITE of the server to the device, by way of the proxy.
    fn reinvite(&self, number: u32) -> String {
        let (device, proxy) = (self.device.local_addr().unwrap(), self.proxy.address);
        let member = self.members[0].local_addr().unwrap();
        format!(
            "INVITE sip:7001@{device};transport=tcp SIP/2.0\r\n\
             Via: SIP/2.0/TCP {member};branch=z9hG4bK-{number}\r\nMax-Forwards: 70\r\n\
             From: <sip:7002@d>;tag=s1\r\nTo: <sip:7001@d>;tag=d1\r\nCall-ID: {number}@s\r\n\
             CSeq: 2 INVITE\r\nRoute: <sip:{proxy};transport=tcp;lr>\r\n\
             Contact: <sip:{member};transport=tcp>\r\nContent-Length: 0\r\n\r\n"
        )
    }
}

#[test]
fn a_reset_becomes_503_with_error_info_within_milliseconds() {
    const ROUNDS: u32 = 200;
    let world = World::new("[0]", "");
    let mut member = world.member();
    let mut took = Vec::new();
    for number in 0..ROUNDS {
        member.send(&world.reinvite(number));
        let mut device = Ua::new(world.device.accept().unwrap().0);
        let invite = device.receive();
        assert!(invite.is("INVITE ") && invite.0.matches("\nVia: ").count() == 2, "{invite:?}");
        let began = Instant::now();
        device.reset();
        let refused = member.receive_after("SIP/2.0 100");
        took.push(began.elapsed());
        assert!(refused.is("SIP/2.0 503"), "{refused:?}");
        assert_eq!(refused.header("Error-Info"), "<transport-error>");
        assert_eq!(refused.header("Reason"), "SIP;cause=503;text=\"transport-error\"");
        member.send(&world.reinvite(number).replace("INVITE", "ACK"));
    }
    took.sort();
    let (median, last) = (took[took.len() / 2], took[took.len() - 1]);
    println!("from RST to 503: median {median:?}, slowest of {ROUNDS} {last:?}");
    assert!(last < Duration::from_secs(1), "{last:?}");
}

#[test]
fn a_call_goes_to_the_backup_while_the_primary_is_away() {
    let mut world = World::new("[0, 0]", "");
    let listener = TcpListener::bind("127.0.0.3:0").unwrap();
    // Nobody listens where the primary was.
    world.members[0] = listener;
    let mut caller = Ua::connect(world.proxy.address);
    let invite = ua::request("INVITE", 1, 1, None);
    caller.send(&invite);
    let mut backup = Ua::new(world.members[1].accept().unwrap().0);
    let got = backup.receive();
    assert!(got.is("INVITE sip:7002@127.0.0.1 "), "{got:?}");
    backup.send(&got.response("486 Busy Here", "sip:x@127.0.0.3"));
    assert!(backup.receive().is("ACK "));
    assert!(caller.receive_after("SIP/2.0 100").is("SIP/2.0 486"));
}

#[test]
fn rude_peers_of_the_proxy_end_their_own_flow_only() {
    let world = World::new("[0]", "");
    let mut member = world.member();
    for bytes in [
        "INVITE sip:x SIP/2.0\r\n\r\n",
        "SIP/2.0 200 OK\r\nVia: x\r\nContent-Length: 0\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "OPTIONS sip:a SIP/2.0\r\nRoute: <sip:,,,\r\nContent-Length: 0\r\n\r\n",
    ] {
        let mut rude = Ua::connect(world.proxy.address);
        rude.send(bytes);
    }
    // A response that was forged for a transaction of ours finds none.
    let mut rude = Ua::connect(world.proxy.address);
    rude.send(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bKhf00000000000000000000000000000000\r\n\
         Via: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\n\
         Call-ID: x\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n",
    );
    // Many routes, and a route to nowhere.
    let many = format!("Route: {}\r\n", "<sip:127.0.0.1:1;lr>, ".repeat(60).trim_end_matches(", "));
    member.send(&world.reinvite(1).replace("Contact:", &format!("{many}Contact:")));
    let refused = member.receive_after("SIP/2.0 100");
    assert!(refused.is("SIP/2.0 513"), "{refused:?}");
    member.send(&world.reinvite(1).replace("INVITE", "ACK"));
    member.send(&world.reinvite(2));
    let mut device = Ua::new(world.device.accept().unwrap().0);
    assert!(device.receive().is("INVITE "));
}

#[test]
fn members_are_asked_and_a_drain_ends_the_proxy() {
    let mut world = World::new("[0]", "[proxy]\noos-check = 1\noos-force = 1\n");
    let mut primary = Ua::new(world.members[0].accept().unwrap().0);
    let probe = primary.receive();
    assert!(probe.is("OPTIONS sip:127.0.0.2"), "{probe:?}");
    primary.send(&probe.response("200 OK", "sip:127.0.0.2"));
    let again = primary.receive();
    assert!(again.is("OPTIONS ") && again.header("Call-ID") != probe.header("Call-ID"));
    let began = Instant::now();
    world.proxy.signal("TERM");
    assert!(world.proxy.wait().success());
    assert!(began.elapsed() < PATIENCE);
}
