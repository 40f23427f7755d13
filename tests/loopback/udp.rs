//! The server over real datagrams.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use crate::child::{Server, Setup, free_address};
use crate::ua::{Message, PATIENCE, Ua, request};

/// A user agent over UDP.
struct UdpUa {
    socket: UdpSocket,
    server: SocketAddr,
}

impl UdpUa {
    fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, server }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    fn contact(&self) -> String {
        format!("sip:{};transport=udp", self.address())
    }

    fn send(&self, text: &str) {
        self.socket.send_to(text.as_bytes(), self.server).unwrap();
    }

    /// Sends what [`request`] wrote for TCP.
    fn send_request(&self, text: &str) {
        let via = format!("SIP/2.0/UDP {};", self.address());
        let text = text.replace("SIP/2.0/TCP 127.0.0.1:9;", &via);
        self.send(&text.replace("sip:7001@127.0.0.1:9;transport=tcp", &self.contact()));
    }

    fn receive(&self) -> Message {
        let mut bytes = [0; 65_535];
        let (len, from) = self.socket.recv_from(&mut bytes).expect("a message in time");
        assert_eq!(from, self.server, "from another address");
        Message(String::from_utf8(bytes[..len].to_vec()).unwrap())
    }

    /// The next message that is neither 100 nor a repetition of `seen`.
    fn receive_new(&self, seen: &str) -> Message {
        loop {
            let message = self.receive();
            if !message.is("SIP/2.0 100") && message.0 != seen {
                return message;
            }
        }
    }
}

/// A server with devices 7003, where a user agent listens over UDP, and 7004, where nobody does.
struct World {
    server: Server,
    callee: UdpUa,
    /// Keeps the address of the device 7002.
    listener: TcpListener,
}

impl World {
    fn new(cores: &str) -> Self {
        let address = free_address();
        let callee = UdpUa::new(address);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = UdpUa::new(address).address();
        let device = |dn: u32, address| {
            format!(
                "[[device]]\ndn = \"{dn}\"\ntype = \"Extension\"\n\
                 contact = \"sip:{dn}@{address};transport=udp\"\n"
            )
        };
        let more = device(7003, callee.address()) + &device(7004, nobody);
        let tcp = listener.local_addr().unwrap();
        let setup =
            Setup { cores, address, callee: tcp, udp: true, more: &more, ..Setup::default() };
        Self { server: Server::start(&setup), callee, listener }
    }

    /// A call from `caller` to 7003 and its end, by the callee.
    fn call(&self, caller: &UdpUa, number: u32) {
        let invite = request("INVITE", number, 1, None).replace("sip:7002@", "sip:7003@");
        caller.send_request(&invite);
        let invite = self.callee.receive();
        assert!(invite.is("INVITE sip:7003@"), "{invite:?}");
        assert!(invite.header("Via").starts_with("SIP/2.0/UDP"), "{invite:?}");
        self.callee.send(&invite.response("200 OK", &self.callee.contact()));
        let ok = caller.receive_new("");
        assert!(ok.is("SIP/2.0 200"), "{ok:?}");
        let ack = request("ACK", number, 1, Some((ok.target(), ok.header("To"))));
        caller.send_request(&ack);
        let ack = self.callee.receive_new(&invite.0);
        assert!(ack.is("ACK "), "{ack:?}");
        self.callee.send(&bye(&invite, number));
        let end = caller.receive_new(&ok.0);
        assert!(end.is("BYE "), "{end:?}");
        caller.send(&end.response("200 OK", &caller.contact()));
        let ok = self.callee.receive_new("");
        assert!(ok.is("SIP/2.0 200") && ok.header("CSeq").ends_with("BYE"), "{ok:?}");
    }
}

/// The BYE of a callee.
fn bye(invite: &Message, number: u32) -> String {
    let contact = invite.header("Contact").trim_matches(['<', '>']).to_owned();
    format!(
        "BYE {contact} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bKbye{number}\r\n\
         Max-Forwards: 70\r\nFrom: {};tag=callee\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 1 BYE\r\n\
         Content-Length: 0\r\n\r\n",
        invite.header("To"),
        invite.header("From"),
        invite.header("Call-ID"),
    )
}

#[test]
fn a_call_over_udp_is_set_up_and_ended() {
    let world = World::new("[0]");
    let caller = UdpUa::new(world.server.address);
    world.call(&caller, 1);
}

#[test]
fn with_several_shards_each_datagram_finds_its_call() {
    let world = World::new("[0, 0, 0]");
    // The kernel picks a shard by the address of the caller: with so many, not always the same.
    for number in 0..24 {
        let caller = UdpUa::new(world.server.address);
        world.call(&caller, number);
    }
    let total = world.server.stats();
    assert!(!total.contains(" forwarded=0 "), "{total}");
}

#[test]
fn a_caller_over_udp_reaches_a_callee_over_tcp() {
    let world = World::new("[0]");
    let caller = UdpUa::new(world.server.address);
    caller.send_request(&request("INVITE", 1, 1, None));
    let mut callee = Ua::new(world.listener.accept().unwrap().0);
    let invite = callee.receive();
    assert!(invite.header("Via").starts_with("SIP/2.0/TCP"), "{invite:?}");
    let contact = format!("sip:{};transport=tcp", world.listener.local_addr().unwrap());
    callee.send(&invite.response("200 OK", &contact));
    let ok = caller.receive_new("");
    assert!(ok.is("SIP/2.0 200") && ok.header("Contact").ends_with("transport=udp>"), "{ok:?}");
    let dialog = (ok.target().to_owned(), ok.header("To").to_owned());
    caller.send_request(&request("ACK", 1, 1, Some((&dialog.0, &dialog.1))));
    assert!(callee.receive().is("ACK "));
    caller.send_request(&request("BYE", 1, 2, Some((&dialog.0, &dialog.1))));
    let bye = callee.receive();
    callee.send(&bye.response("200 OK", &contact));
    let end = caller.receive_new(&ok.0);
    assert!(end.is("SIP/2.0 200") && end.header("CSeq").ends_with("BYE"), "{end:?}");
}

#[test]
fn a_caller_over_tcp_reaches_a_callee_over_udp() {
    let world = World::new("[0]");
    let mut caller = Ua::connect(world.server.address);
    caller.send(&request("INVITE", 1, 1, None).replace("sip:7002@", "sip:7003@"));
    let invite = world.callee.receive();
    assert!(invite.header("Contact").ends_with("transport=udp>"), "{invite:?}");
    world.callee.send(&invite.response("200 OK", &world.callee.contact()));
    let ok = caller.receive_after("SIP/2.0 100");
    assert!(ok.is("SIP/2.0 200"), "{ok:?}");
    caller.send(&request("ACK", 1, 1, Some((ok.target(), ok.header("To")))));
    assert!(world.callee.receive_new(&invite.0).is("ACK "));
}

#[test]
fn a_closed_port_is_a_503_at_once() {
    for cores in ["[0]", "[0, 0]"] {
        let world = World::new(cores);
        let caller = UdpUa::new(world.server.address);
        let began = Instant::now();
        caller.send_request(&request("INVITE", 1, 1, None).replace("sip:7002@", "sip:7004@"));
        let refused = caller.receive_new("");
        assert!(refused.is("SIP/2.0 503"), "{refused:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "not a timeout of timer B");
    }
}

#[test]
fn garbage_in_datagrams_does_no_harm() {
    let world = World::new("[0, 0]");
    let caller = UdpUa::new(world.server.address);
    let mut noise: Vec<u8> = (0..65_507_u32).map(|n| (n * 131 % 251) as u8).collect();
    for len in [0, 1, 4, 1472, 65_507] {
        caller.socket.send_to(&noise[..len], world.server.address).unwrap();
    }
    noise[..8].copy_from_slice(b"INVITE s");
    caller.socket.send_to(&noise, world.server.address).unwrap();
    let cut = request("INVITE", 9, 1, None);
    for len in [10, 60, cut.len() - 2] {
        caller.send(&cut[..len]);
    }
    world.call(&UdpUa::new(world.server.address), 1);
}

#[test]
fn an_address_that_is_in_use_over_udp_is_told_at_the_start() {
    let address = free_address();
    let _other = UdpSocket::bind(address).unwrap();
    let mut server = Server::spawn(&Setup { address, udp: true, ..Setup::default() });
    server.wait_for(&format!("cannot listen on {address}: the address is in use"));
    assert!(!server.wait().success());
}
