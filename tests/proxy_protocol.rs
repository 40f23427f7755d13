//! Load balancers in front, on real sockets: who the peer is says the PROXY header, if it is to be believed.

// Clocks, threads and processes belong to the other side of the socket.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "loopback/child.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod child;
mod proxy_support;
#[path = "loopback/tls.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod tls;
#[path = "loopback/ua.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod ua;

use std::cell::RefCell;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use child::{Server, Setup, free_address};
use proxy_support::Writer;
use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};
use tls::{Authority, Files, Validity};
use ua::{Call, Message, PATIENCE, Ua, request};

/// The load balancer.
const FRONT: &str = "127.0.0.9";
/// The phone 7001 behind it.
const PHONE: &str = "127.0.0.77";
/// Nobody's address.
const STRANGER: &str = "127.0.0.8";
/// The port that the header says the phone has.
const PORT: u16 = 40_000;
const NAME: &str = "sip.holdfast.test";

/// A server that listens on TCP and TLS, and where the device 7002 listens.
struct World {
    server: Server,
    plain: SocketAddr,
    secure: SocketAddr,
    client: Arc<ClientConfig>,
    listener: TcpListener,
    config: String,
    /// The connection that the server has to the device.
    callee: RefCell<Option<Ua>>,
    _files: Files,
}

impl World {
    /// `limits` is the section of that name.
    fn new(limits: &str) -> Self {
        let (authority, files) = (Authority::new("the authority"), Files::new());
        let own = authority.certify(&[NAME], Validity::Now);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (plain, secure) = (free_address(), free_address());
        let callee = listener.local_addr().unwrap();
        let config = format!(
            "[server]\nlisten = [\"tcp:{plain}\", \"tls:{secure}\"]\ncores = [0]\n\
             proxy-protocol-from = [\"192.0.2.0/24\", \"127.0.0.9\"]\n\
             [limits]\n{limits}\n{}\
             [[device]]\ndn = \"7001\"\ntype = \"Extension\"\ncontact = \"sip:7001@{PHONE}:9\"\n\
             [[device]]\ndn = \"7002\"\ntype = \"Extension\"\ncontact = \"sip:7002@{callee}\"\n",
            files.section(&own, &authority),
        );
        let setup = Setup { whole: Some(config.clone()), address: plain, ..Setup::default() };
        let server = Server::start(&setup);
        let client = authority.client(None);
        let callee = RefCell::default();
        Self { server, plain, secure, client, listener, config, callee, _files: files }
    }

    /// A connection from this address.
    fn from(&self, host: &str, to: SocketAddr) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let own: SocketAddr = format!("{host}:0").parse().unwrap();
        socket.bind(&own.into()).unwrap();
        socket.connect(&to.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The load balancer's connection to the TCP listener, on which these bytes are the first.
    fn fronted(&self, first: &[u8]) -> Ua {
        let mut stream = self.from(FRONT, self.plain);
        stream.write_all(first).unwrap();
        Ua::new(stream)
    }

    /// A call that the caller's INVITE has begun, until its BYE.
    fn completes(&self, number: u32, caller: &mut Ua) {
        let mut held = self.callee.borrow_mut();
        let callee = held.get_or_insert_with(|| accept(&self.listener));
        let contact = format!("sip:7002@{}", self.listener.local_addr().unwrap());
        let invite = expect(callee, "INVITE ");
        callee.send(&invite.response("200 OK", &contact));
        let ok = caller.receive_after("SIP/2.0 1");
        assert!(ok.is("SIP/2.0 200"), "{ok:?}");
        assert!(says(&ok, "received", PHONE) && says(&ok, "rport", "40000"), "{ok:?}");
        let call = Call::of(number, &ok);
        caller.send(&call.request("ACK", 1));
        assert!(callee.receive().is("ACK "));
        caller.send(&call.request("BYE", 2));
        assert!(caller.receive().is("SIP/2.0 200"));
        let bye = expect(callee, "BYE ");
        callee.send(&bye.response("200 OK", &contact));
    }
}

/// The next connection to this listener.
fn accept(listener: &TcpListener) -> Ua {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return Ua::new(stream);
            }
            Err(error) => assert!(Instant::now() < deadline, "no connection: {error}"),
        }
        sleep(Duration::from_millis(2));
    }
}

/// True when the topmost Via has this parameter.
fn says(answer: &Message, name: &str, value: &str) -> bool {
    let wanted = format!("{name}={value}");
    answer.header("Via").split(';').any(|param| param == wanted)
}

/// The next message, which begins so.
fn expect(ua: &mut Ua, start: &str) -> Message {
    let got = ua.receive();
    assert!(got.is(start), "{got:?}");
    got
}

/// The header of a connection from this host.
fn header_of(host: &str) -> Writer {
    let source = format!("{host}:{PORT}").parse().unwrap();
    Writer::tcp(source, "198.51.100.1:5060".parse().unwrap())
}

fn header() -> Vec<u8> {
    header_of(PHONE).bytes()
}

/// A request of the phone, who asks for its port in Via.
fn of_phone(method: &str, call: u32) -> String {
    request(method, call, 1, None).replace(";branch=", ";rport;branch=")
}

fn over_tls(request: &str) -> String {
    request.replace("SIP/2.0/TCP", "SIP/2.0/TLS")
}

#[test]
fn a_call_behind_a_header_is_the_call_of_its_source_however_the_bytes_come() {
    let world = World::new("");
    let tlvs = header_of(PHONE).with_tlv(2, b"sip.example").with_tlv(4, &[0; 700]);
    for (number, header) in [header(), tlvs.bytes(), tlvs.bytes_with_crc()].iter().enumerate() {
        let number = number as u32;
        let invite = of_phone("INVITE", number);
        let mut caller = world.fronted(&[header, invite.as_bytes()].concat());
        world.completes(number, &mut caller);
    }
    for (number, piece) in [(3, 1), (4, 5), (5, 16), (6, 20)] {
        let stream = [&header()[..], of_phone("INVITE", number).as_bytes()].concat();
        let (slow, fast) = stream.split_at(40);
        let mut caller = world.fronted(b"");
        for piece in slow.chunks(piece) {
            caller.stream.write_all(piece).unwrap();
            sleep(Duration::from_millis(3));
        }
        caller.stream.write_all(fast).unwrap();
        world.completes(number, &mut caller);
    }
    assert_eq!(world.server.stat("proxy_headers_refused"), 0);
}

#[test]
fn over_tls_the_header_comes_before_the_handshake() {
    let world = World::new("");
    for (number, header) in [header(), header_of(PHONE).bytes_with_crc()].iter().enumerate() {
        let number = number as u32;
        let stream = world.from(FRONT, world.secure);
        let stream = tls::shake_hands(stream, header, &world.client, NAME).unwrap();
        let mut caller = Ua::over(Box::new(stream));
        caller.send(&over_tls(&of_phone("INVITE", number)));
        world.completes(number, &mut caller);
    }
    // Inside TLS it is nonsense, and so is a handshake that nothing comes before.
    let stream = world.from(FRONT, world.secure);
    assert!(tls::shake_hands(stream, b"", &world.client, NAME).is_err());
    let line = world.server.wait_for("no good PROXY header");
    assert!(line.contains("does not begin with one"), "{line}");
    assert_eq!(world.server.stat("handshakes_failed"), 0);
    let stream = world.from(FRONT, world.secure);
    let stream = tls::shake_hands(stream, &header(), &world.client, NAME).unwrap();
    let mut caller = Ua::over(Box::new(stream));
    caller.stream.write_all(&header()).unwrap();
    caller.stream.flush().unwrap();
    let mut bytes = Vec::new();
    let _ = caller.stream.read_to_end(&mut bytes);
    assert_eq!(String::from_utf8_lossy(&bytes), "\r\n", "a pong, and the end");
}

#[test]
fn a_header_that_names_nobody_leaves_the_load_balancer_as_the_peer() {
    let world = World::new("");
    let unknown = Writer { family: 0, ..header_of(PHONE) };
    let datagram = Writer { family: 0x12, ..header_of(PHONE) };
    let unix = Writer { family: 0x31, addresses: vec![b'/'; 216], ..Writer::local() };
    let local = Writer { command: 0x20, ..header_of(PHONE) };
    for (number, header) in [Writer::local(), local, unknown, datagram, unix].iter().enumerate() {
        let invite = of_phone("INVITE", number as u32);
        let mut caller = world.fronted(&[&header.bytes()[..], invite.as_bytes()].concat());
        let answer = caller.receive();
        assert!(answer.is("SIP/2.0 403"), "{header:?}: {answer:?}");
        assert!(says(&answer, "received", FRONT), "{answer:?}");
    }
    assert_eq!(world.server.stat("proxy_headers_refused"), 0);
}

#[test]
fn devices_are_known_by_the_source_and_by_nothing_else() {
    let world = World::new("");
    let invite = of_phone("INVITE", 1);
    let stream = [&header_of(STRANGER).bytes()[..], invite.as_bytes()].concat();
    let answer = world.fronted(&stream).receive();
    assert!(answer.is("SIP/2.0 403"), "{answer:?}");
    assert!(says(&answer, "received", STRANGER) && says(&answer, "rport", "40000"), "{answer:?}");
    // IPv6 clients of a load balancer that speaks IPv4 with us.
    let source = "[2001:db8::7]:40000".parse().unwrap();
    let header = Writer::tcp(source, "[2001:db8::1]:5060".parse().unwrap()).bytes();
    let answer = world.fronted(&[&header[..], invite.as_bytes()].concat()).receive();
    assert!(answer.is("SIP/2.0 403"), "{answer:?}");
    assert!(says(&answer, "received", "2001:db8::7"), "{answer:?}");
}

#[test]
fn who_is_no_load_balancer_is_served_as_he_is_and_not_believed() {
    let world = World::new("");
    let mut direct = Ua::new(world.from(STRANGER, world.plain));
    direct.send(&of_phone("INVITE", 1));
    let answer = direct.receive();
    assert!(answer.is("SIP/2.0 403"), "{answer:?}");
    assert!(says(&answer, "received", STRANGER), "{answer:?}");
    let mut liar = Ua::new(world.from(STRANGER, world.plain));
    liar.stream.write_all(&header()).unwrap();
    let _ = liar.stream.write_all(of_phone("INVITE", 2).as_bytes());
    let mut answer = Vec::new();
    let _ = liar.stream.read_to_end(&mut answer);
    assert_eq!(String::from_utf8_lossy(&answer), "\r\n", "a pong, and the end");
    let liar = world.from(STRANGER, world.secure);
    assert!(tls::shake_hands(liar, &header(), &world.client, NAME).is_err());
    let line = world.server.wait_for("TLS handshake failed");
    assert!(line.contains(STRANGER), "{line}");
    assert_eq!(world.server.stat("proxy_headers_refused"), 0);
    assert_eq!(world.server.stat("calls"), 0);
    // A phone that connects itself is a device as ever.
    let mut caller = Ua::new(world.from(PHONE, world.plain));
    caller.send(&request("INVITE", 3, 1, None));
    assert!(accept(&world.listener).receive().is("INVITE "));
}

#[test]
fn what_is_no_good_header_ends_the_connection_without_a_word() {
    let world = World::new("");
    let invite = of_phone("INVITE", 1);
    let with = |at: usize, bytes: &[u8]| {
        let mut spoilt = header();
        spoilt[at..at + bytes.len()].copy_from_slice(bytes);
        [&spoilt[..], invite.as_bytes()].concat()
    };
    let mut checksum = header_of(PHONE).bytes_with_crc();
    checksum[19] ^= 1;
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("version 1", format!("PROXY TCP4 {PHONE} 127.0.0.1 40000 5060\r\n{invite}").into()),
        ("no header", invite.clone().into()),
        ("pings", b"\r\n\r\n\r\n\r\n".to_vec()),
        ("garbage", (0..3000u32).map(|n| (n * n % 251) as u8).collect()),
        ("one wrong byte", with(11, b"\r")),
        ("version 3", with(12, &[0x31])),
        ("an unknown command", with(12, &[0x22])),
        ("an unknown family", with(13, &[0x51])),
        ("an absurd length", with(14, &[0xff, 0xff])),
        ("a length that cuts the addresses", with(14, &[0, 11])),
        ("a TLV that does not end", header_of(PHONE).with_tlv(4, b"").bytes()[..29].to_vec()),
        ("no host's address", with(16, &[0, 0, 0, 0])),
        ("a wrong checksum", checksum),
    ];
    for (place, (name, bytes)) in bad.iter().enumerate() {
        let mut bytes = bytes.clone();
        if *name == "a TLV that does not end" {
            // Its length is one byte, which is but its type.
            bytes[15] = 13;
        }
        let began = Instant::now();
        let mut ua = world.fronted(&bytes);
        assert!(ua.is_closed(), "{name}");
        // Not when the patience with a header that does not come is over.
        assert!(began.elapsed() < PATIENCE / 2, "{name}: {:?}", began.elapsed());
        world.server.until("proxy_headers_refused", |count| count == place as u64 + 1);
    }
    let mut cut = world.fronted(&header()[..27]);
    cut.stream.tcp().shutdown(Shutdown::Write).unwrap();
    assert!(cut.is_closed());
    world.server.until("proxy_headers_refused", |count| count == bad.len() as u64 + 1);
    // Of these some are gone before they are accepted.
    for number in 0..50 {
        let ua = world.fronted(&header()[..1 + number % 27]);
        sleep(Duration::from_millis(number as u64 % 5));
        ua.reset();
    }
    assert!(world.server.stat("proxy_headers_refused") > bad.len() as u64 + 1);
    world.server.until("flows", |count| count == 0);
    let mut caller = world.fronted(&[&header()[..], invite.as_bytes()].concat());
    world.completes(1, &mut caller);
}

#[test]
fn refused_headers_are_told_once_in_a_while_with_their_number() {
    let world = World::new("");
    assert!(world.fronted(b"PROXY TCP4 ").is_closed());
    let line = world.server.wait_for("no good PROXY header");
    assert!(line.contains("it is of version 1 (text)"), "{line}");
    assert!(line.contains("refused=1") && line.contains(FRONT), "{line}");
    for _ in 0..20 {
        assert!(world.fronted(b"x").is_closed());
    }
    // Asking whether we live is no failure.
    for _ in 0..5 {
        drop(world.fronted(b""));
    }
    sleep(Duration::from_millis(1100));
    let lines = world.server.lines();
    let told = lines.iter().filter(|line| line.contains("no good PROXY header")).count();
    assert!(told < 10, "{lines:?}");
    assert!(world.fronted(b"x").is_closed());
    let line = world.server.wait_for("no good PROXY header");
    assert!(line.contains("refused=22"), "{line}");
}

#[test]
fn headers_that_do_not_come_are_waited_for_a_while_and_hold_few_places() {
    let world = World::new("tls-handshake-timeout = 1\ntls-handshakes-max = 2");
    let began = Instant::now();
    let mut waiting = [world.fronted(b""), world.fronted(&header()[..20])];
    sleep(Duration::from_millis(100));
    let mut third = world.fronted(&header());
    assert!(third.is_closed());
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    world.server.until("refused_handshake", |count| count == 1);
    // A peer that connects itself needs no place.
    let mut direct = Ua::new(world.from(STRANGER, world.plain));
    direct.send(&of_phone("OPTIONS", 1).replace("sip:7002@", "sip:"));
    assert!(direct.receive().is("SIP/2.0 200"));
    for ua in &mut waiting {
        assert!(ua.is_closed());
    }
    assert!(began.elapsed() >= Duration::from_secs(1));
    world.server.until("proxy_headers_refused", |count| count == 2);
    // Nor does it help to send byte by byte.
    let mut slow = world.fronted(b"");
    let began = Instant::now();
    for byte in header() {
        sleep(Duration::from_millis(60));
        if slow.stream.write_all(&[byte]).is_err() {
            break;
        }
    }
    assert!(slow.is_closed() && began.elapsed() < PATIENCE);
    world.server.until("proxy_headers_refused", |count| count == 3);
    let invite = of_phone("INVITE", 1);
    let mut caller = world.fronted(&[&header()[..], invite.as_bytes()].concat());
    world.completes(1, &mut caller);
}

#[test]
fn the_connections_of_a_source_are_counted_and_not_those_of_the_load_balancer() {
    let world = World::new("flows-per-source-max = 2");
    let ping = |host: &str| [&header_of(host).bytes()[..], b"\r\n\r\n"].concat();
    let is_served = |ua: &mut Ua| ua.stream.read_exact(&mut [0; 2]).is_ok();
    let hosts = ["127.0.1.1", "127.0.1.1", "127.0.1.2", "127.0.1.2", "127.0.1.3"];
    let mut held: Vec<_> = hosts.map(|host| world.fronted(&ping(host))).into();
    assert!(held.iter_mut().all(is_served));
    assert!(!is_served(&mut world.fronted(&ping("127.0.1.1"))));
    world.server.until("refused_source", |count| count == 1);
    assert!(is_served(&mut world.fronted(&ping("127.0.1.3"))));
}

#[test]
fn an_answer_whose_flow_is_gone_goes_to_the_source_in_the_header() {
    let world = World::new("");
    let phone = TcpListener::bind(format!("{PHONE}:0")).unwrap();
    let own = phone.local_addr().unwrap();
    let invite = of_phone("INVITE", 1).replace("127.0.0.1:9;", &format!("{own};"));
    let caller = world.fronted(&[&header()[..], invite.as_bytes()].concat());
    let mut callee = accept(&world.listener);
    let invite = expect(&mut callee, "INVITE ");
    world.server.until("flows", |count| count == 2);
    caller.reset();
    world.server.until("flows", |count| count == 1);
    let contact = format!("sip:7002@{}", world.listener.local_addr().unwrap());
    callee.send(&invite.response("200 OK", &contact));
    let mut again = accept(&phone);
    let ok = again.receive();
    assert!(ok.is("SIP/2.0 200"), "{ok:?}");
}

#[test]
fn load_balancers_that_change_count_for_new_connections() {
    let world = World::new("");
    let mut old = world.fronted(&header());
    old.send("\r\n\r\n");
    let mut pong = [0; 2];
    old.stream.read_exact(&mut pong).unwrap();
    let other = world.config.replace("\"127.0.0.9\"]", "\"127.0.0.8/32\"]");
    world.server.configure(&other);
    let line = world.server.wait_for("proxy-protocol-from");
    assert!(line.contains("\"127.0.0.9\"] → [\"192.0.2.0/24\", \"127.0.0.8\"]"), "{line}");
    // Who is none any more is served as he is, and who was before stays who he was.
    let mut direct = world.fronted(of_phone("INVITE", 1).as_bytes());
    let answer = direct.receive();
    assert!(answer.is("SIP/2.0 403"), "{answer:?}");
    assert!(says(&answer, "received", FRONT), "{answer:?}");
    let mut new = world.from(STRANGER, world.plain);
    new.write_all(&[&header()[..], of_phone("INVITE", 2).as_bytes()].concat()).unwrap();
    world.completes(2, &mut Ua::new(new));
    old.send(&of_phone("INVITE", 3));
    world.completes(3, &mut old);
}
