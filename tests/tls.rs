//! TLS on real sockets: calls and their recovery, handshakes that fail and why, certificates that change.

// Clocks, threads and processes belong to the other side of the socket.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::print_stdout)]

#[path = "loopback/child.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod child;
#[path = "loopback/tls.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod tls;
#[path = "loopback/ua.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod ua;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use child::{Server, Setup, free_address};
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tls::{Authority, Files, Identity, Validity};
use ua::{Call, Message, PATIENCE, Ua, request};

/// A server that listens on TCP and TLS, and a device 7002 that it reaches over TLS.
struct World {
    files: Files,
    authority: Authority,
    server: Server,
    address: SocketAddr,
    client: Arc<ClientConfig>,
    listener: TcpListener,
    callee: Arc<ServerConfig>,
}

impl World {
    /// `device` is more of the device, `more` more of the configuration.
    fn new(device: &str, more: &str) -> Self {
        let authority = Authority::new("the authority");
        let callee = authority.certify(&["127.0.0.1"], Validity::Now);
        Self::with(authority, &callee, device, more)
    }

    fn with(authority: Authority, callee: &Identity, device: &str, more: &str) -> Self {
        let files = Files::new();
        let own = authority.certify(&["sip.holdfast.test", "127.0.0.1"], Validity::Now);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (plain, address) = (free_address(), free_address());
        let section = files.section(&own, &authority);
        let whole = config(plain, address, &section, listener.local_addr().unwrap(), device, more);
        let server =
            Server::start(&Setup { whole: Some(whole), address: plain, ..Setup::default() });
        let client = authority.client(Some(&own));
        let callee = callee.server();
        Self { files, authority, server, address, client, listener, callee }
    }

    fn caller(&self) -> Ua {
        tls::ua(self.address, &self.client, "sip.holdfast.test")
    }

    /// What the server opens.
    fn accept(&self) -> Ua {
        tls::accepted(self.listener.accept().unwrap().0, &self.callee)
    }

    fn contact(&self) -> String {
        format!("sip:7002@{};transport=tls", self.listener.local_addr().unwrap())
    }

    /// A call that is up, its caller and its callee.
    fn call(&self, number: u32) -> (Call, Ua, Ua) {
        let mut caller = self.caller();
        caller.send(&over_tls(&request("INVITE", number, 1, None)));
        let mut callee = self.accept();
        let invite = callee.receive();
        callee.send(&invite.response("200 OK", &self.contact()));
        let ok = caller.receive_after("SIP/2.0 1");
        assert!(ok.is("SIP/2.0 200"), "{ok:?}");
        let call = Call::of(number, &ok);
        caller.send(&over_tls(&call.request("ACK", 1)));
        assert!(callee.receive().is("ACK "));
        (call, caller, callee)
    }

    /// Over this connection the server still answers.
    fn serves(&self, ua: &mut Ua) {
        ua.send(&over_tls(&request("OPTIONS", 900, 1, None)).replace("sip:7002@", "sip:"));
        assert!(ua.receive().is("SIP/2.0 200"));
    }
}

fn config(
    plain: SocketAddr,
    address: SocketAddr,
    section: &str,
    callee: SocketAddr,
    device: &str,
    more: &str,
) -> String {
    format!(
        "[server]\nlisten = [\"tcp:{plain}\", \"tls:{address}\"]\ncores = [0]\ndrain-timeout = 2\n\
         [TServer]\nretry-after-reliable-transport-error = 200\n{section}\
         [[device]]\ndn = \"7001\"\ntype = \"Extension\"\ncontact = \"sip:7001@127.0.0.1:9;transport=tls\"\n\
         [[device]]\ndn = \"7002\"\ntype = \"Extension\"\ncontact = \"sip:7002@{callee};transport=tls\"\n\
         {device}{more}"
    )
}

fn over_tls(text: &str) -> String {
    text.replace("SIP/2.0/TCP", "SIP/2.0/TLS").replace("transport=tcp", "transport=tls")
}

fn with_offer(text: &str, bytes: usize) -> String {
    let body = "v=0\r\n".repeat(bytes / 5);
    let length = format!("Content-Type: application/sdp\r\nContent-Length: {}", body.len());
    text.replace("Content-Length: 0", &length) + &body
}

#[test]
fn a_call_over_tls_names_tls_in_via_and_contact() {
    let world = World::new("", "");
    let mut caller = world.caller();
    caller.send(&over_tls(&request("INVITE", 1, 1, None)));
    let mut callee = world.accept();
    let invite = callee.receive();
    let own = format!("127.0.0.1:{}", world.address.port());
    assert!(invite.header("Via").starts_with(&format!("SIP/2.0/TLS {own};")), "{invite:?}");
    assert_eq!(invite.header("Contact"), format!("<sip:{own};transport=tls>"));
    callee.send(&invite.response("200 OK", &world.contact()));
    let ok = caller.receive_after("SIP/2.0 1");
    assert_eq!(ok.header("Contact"), format!("<sip:{own};transport=tls>"));
}

#[test]
fn a_reinvite_whose_tls_flow_dies_is_sent_again_over_a_resumed_session() {
    let world = World::new("", "");
    let (call, mut caller, mut callee) = world.call(1);
    for round in 2..5 {
        caller.send(&over_tls(&with_offer(&call.request("INVITE", round), 30_000)));
        let first = callee.receive();
        assert!(first.is("INVITE "), "{first:?}");
        callee.reset();
        let stream = world.listener.accept().unwrap().0;
        let mut connection = rustls::ServerConnection::new(Arc::clone(&world.callee)).unwrap();
        let mut stream = stream;
        connection.complete_io(&mut stream).unwrap();
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Resumed), "round {round}");
        callee = Ua::over(Box::new(rustls::StreamOwned::new(connection, stream)));
        let second = callee.receive();
        let cseq = |message: &Message| {
            message.header("CSeq").split(' ').next().unwrap().parse::<u32>().unwrap()
        };
        assert_eq!(cseq(&second), cseq(&first) + 1);
        callee.send(&second.response("200 OK", &world.contact()));
        assert!(callee.receive().is("ACK "));
        assert!(caller.receive_after("SIP/2.0 1").is("SIP/2.0 200"));
        caller.send(&over_tls(&call.request("ACK", round)));
    }
}

/// What a peer does to the handshake of the server.
#[derive(Clone, Copy, Debug)]
enum Obstacle {
    Closes,
    Resets,
    SpeaksPlainText,
    SaysNothing,
    ResetsHalfWay,
}

#[test]
fn a_handshake_that_fails_is_a_connection_that_does_not_open_and_the_call_recovers() {
    use Obstacle::{Closes, Resets, ResetsHalfWay, SaysNothing, SpeaksPlainText};
    let world = World::new("", "[limits]\nconnect-timeout = 1000\n");
    let (call, mut caller, callee) = world.call(1);
    // The first attempt opens a connection, because the flow died while the call was idle.
    callee.reset();
    sleep(Duration::from_millis(100));
    caller.send(&over_tls(&with_offer(&call.request("INVITE", 2), 200)));
    for obstacle in [SpeaksPlainText, Closes, Resets, SaysNothing, ResetsHalfWay] {
        let (mut stream, _) = world.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match obstacle {
            Closes => drop(stream),
            Resets => Ua::new(stream).reset(),
            SpeaksPlainText => {
                stream.write_all(b"SIP/2.0 400 Bad Request\r\n\r\n").unwrap();
                world.server.wait_for("does not speak TLS");
            }
            SaysNothing => {
                let mut all = Vec::new();
                let _ = stream.read_to_end(&mut all);
            }
            ResetsHalfWay => {
                let mut connection =
                    rustls::ServerConnection::new(Arc::clone(&world.callee)).unwrap();
                connection.read_tls(&mut stream).unwrap();
                connection.process_new_packets().unwrap();
                connection.write_tls(&mut stream).unwrap();
                Ua::new(stream).reset();
            }
        }
    }
    let mut callee = world.accept();
    let invite = callee.receive();
    assert!(invite.is("INVITE "), "{invite:?}");
    callee.send(&invite.response("200 OK", &world.contact()));
    assert!(callee.receive().is("ACK "));
    assert!(caller.receive_after("SIP/2.0 1").is("SIP/2.0 200"));
}

#[test]
fn a_device_whose_certificate_is_not_good_is_not_called_and_the_log_says_why() {
    let good = || Authority::new("the authority");
    let cases: [(Authority, Identity, &str, &str); 5] = {
        let (a, b, c, d, e) = (good(), good(), good(), good(), good());
        let past = a.certify(&["127.0.0.1"], Validity::Past);
        let future = b.certify(&["127.0.0.1"], Validity::Future);
        let other_name = c.certify(&["phone.example"], Validity::Now);
        let stranger = Authority::new("another").certify(&["127.0.0.1"], Validity::Now);
        let other_address = e.certify(&["127.0.0.2"], Validity::Now);
        [
            (a, past, "", "has expired"),
            (b, future, "", "is not valid yet"),
            (c, other_name, "tls-name = \"other.example\"\n", "is not for other.example"),
            (d, stranger, "", "is of an unknown authority"),
            (e, other_address, "", "is not for 127.0.0.1"),
        ]
    };
    for (authority, identity, device, reason) in cases {
        let world = World::with(authority, &identity, device, "");
        let mut caller = world.caller();
        caller.send(&over_tls(&request("INVITE", 1, 1, None)));
        let (listener, callee) = (world.listener.try_clone().unwrap(), Arc::clone(&world.callee));
        let refused = thread::spawn(move || {
            let mut connection = rustls::ServerConnection::new(callee).unwrap();
            connection.complete_io(&mut listener.accept().unwrap().0).is_err()
        });
        world.server.wait_for(reason);
        let answer = caller.receive_after("SIP/2.0 1");
        assert!(answer.is("SIP/2.0 503"), "{reason}: {answer:?}");
        // TLS 1.3 lets the server end of a handshake finish before the client has looked.
        let _ = refused.join().unwrap();
    }
}

#[test]
fn a_device_with_a_name_is_asked_for_it_and_believed() {
    let authority = Authority::new("the authority");
    let identity = authority.certify(&["phone.example"], Validity::Now);
    let world = World::with(authority, &identity, "tls-name = \"phone.example\"\n", "");
    let (call, mut caller, mut callee) = world.call(1);
    caller.send(&over_tls(&call.request("BYE", 2)));
    assert!(callee.receive().is("BYE "));
}

#[test]
fn plain_text_on_the_tls_port_is_refused_and_the_log_says_so() {
    let world = World::new("", "");
    let mut bystander = world.caller();
    let mut rude = TcpStream::connect(world.address).unwrap();
    rude.write_all(request("OPTIONS", 1, 1, None).as_bytes()).unwrap();
    world.server.wait_for("does not speak TLS");
    rude.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(rude.read(&mut [0; 16]), Ok(0) | Err(_)), "something was answered");
    world.serves(&mut bystander);
}

#[test]
fn tls_on_the_tcp_port_is_refused_like_any_other_nonsense() {
    let world = World::new("", "");
    let connected = tls::connect(world.server.address, &world.client, "127.0.0.1");
    assert!(connected.is_err());
}

#[test]
fn both_versions_of_tls_are_served_and_sessions_are_resumed() {
    let world = World::new("", "");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(world.authority.roots())
            .with_no_client_auth();
        let config = Arc::new(config);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let stream = tls::connect(world.address, &config, "127.0.0.1").unwrap();
            assert_eq!(stream.conn.protocol_version(), Some(version.version));
            assert_eq!(stream.conn.handshake_kind(), Some(expected), "{:?}", version.version);
        }
    }
}

#[test]
fn a_peer_without_a_good_certificate_is_refused_where_one_is_required() {
    let world = World::new("", "");
    // The section is what it was, and one line more.
    let own = world.authority.certify(&["sip.holdfast.test"], Validity::Now);
    let section = world.files.section(&own, &world.authority);
    let whole = config(
        world.server.address,
        world.address,
        &format!("{section}client-certificate = \"required\"\n"),
        world.listener.local_addr().unwrap(),
        "",
        "",
    );
    world.server.configure(&whole);
    world.server.wait_for("configuration in force");
    let name = "sip.holdfast.test";
    let good = world.authority.client(Some(&world.authority.certify(&["x"], Validity::Now)));
    assert!(tls::connect(world.address, &good, name).is_ok());
    let none = world.authority.client(None);
    assert!(tls::connect(world.address, &none, name).is_err());
    world.server.wait_for("has no certificate");
    for (bad, reason) in [
        (world.authority.certify(&["x"], Validity::Past), "has expired"),
        (Authority::new("another").certify(&["x"], Validity::Now), "unknown authority"),
    ] {
        sleep(Duration::from_millis(1100));
        assert!(tls::connect(world.address, &world.authority.client(Some(&bad)), name).is_err());
        world.server.wait_for(reason);
    }
}

#[test]
fn a_certificate_of_ours_that_has_expired_is_warned_of_and_the_server_serves_on() {
    let world = World::new("", "");
    let mut caller = world.caller();
    let old = world.authority.certify(&["sip.holdfast.test"], Validity::Past);
    world.files.write("key.pem", &old.key_pem);
    world.files.write("cert.pem", &old.certificate_pem);
    let warning = world.server.wait_for("has expired on");
    assert!(warning.contains("cert.pem") && warning.contains("peers refuse it"), "{warning}");
    world.serves(&mut caller);
}

#[test]
fn a_new_certificate_is_shown_from_the_next_handshake_on_and_open_flows_stay() {
    let world = World::new("", "");
    let (call, mut caller, mut callee) = world.call(1);
    let next = world.authority.certify(&["next.holdfast.test"], Validity::Now);
    world.files.write("key.pem", &next.key_pem);
    world.files.write("cert.pem", &next.certificate_pem);
    world.server.wait_for("configuration in force");
    let began = Instant::now();
    while tls::connect(world.address, &world.client, "next.holdfast.test").is_err() {
        assert!(began.elapsed() < PATIENCE, "the new certificate is not shown");
        sleep(Duration::from_millis(50));
    }
    assert!(tls::connect(world.address, &world.client, "sip.holdfast.test").is_err());
    caller.send(&over_tls(&call.request("BYE", 2)));
    let bye = callee.receive();
    callee.send(&bye.response("200 OK", &world.contact()));
    assert!(caller.receive().is("SIP/2.0 200"));
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused_and_the_old_one_stays() {
    let world = World::new("", "");
    for (name, text, reason) in [
        ("cert.pem", "nonsense", "holds no certificate"),
        ("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "key.pem"),
        ("key.pem", &world.authority.certify(&["x"], Validity::Now).key_pem, "is not the key of"),
    ] {
        world.files.write(name, text);
        world.server.wait_for(reason);
        world.server.wait_for("configuration refused");
        let own = world.authority.certify(&["sip.holdfast.test"], Validity::Now);
        world.files.section(&own, &world.authority);
        world.server.wait_for("configuration in force");
    }
    let mut caller = world.caller();
    world.serves(&mut caller);
}

#[test]
fn the_certificate_is_the_one_for_the_name_that_is_asked_for() {
    let world = World::new("", "");
    let (one, two) = (["one.test", "127.0.0.1"], ["two.test"]);
    let own = [&one[..], &two[..]].map(|names| world.authority.certify(names, Validity::Now));
    let mut lists = [String::new(), String::new()];
    for (number, identity) in own.iter().enumerate() {
        let texts = [&identity.certificate_pem, &identity.key_pem];
        for ((list, text), kind) in lists.iter_mut().zip(texts).zip(["cert", "key"]) {
            let path = world.files.write(&format!("{kind}{number}.pem"), text);
            list.push_str(&format!("\"{}\", ", path.display()));
        }
    }
    let authorities = world.files.write("ca.pem", &world.authority.pem);
    let section = format!(
        "[tls]\ncertificate = [{}]\nprivate-key = [{}]\nauthorities = \"{}\"\n",
        lists[0],
        lists[1],
        authorities.display()
    );
    let callee = world.listener.local_addr().unwrap();
    let whole = config(world.server.address, world.address, &section, callee, "", "");
    world.server.configure(&whole);
    world.server.wait_for("configuration in force");
    for name in ["one.test", "two.test", "127.0.0.1"] {
        assert!(tls::connect(world.address, &world.client, name).is_ok(), "{name}");
    }
    assert!(tls::connect(world.address, &world.client, "three.test").is_err());
}

#[test]
fn handshakes_that_stop_half_way_are_closed_and_keep_nobody_out() {
    let world = World::new("", "[limits]\ntls-handshake-timeout = 1\ntls-handshakes-max = 20\n");
    let began = Instant::now();
    let mut silent: Vec<_> = (0..20).map(|_| TcpStream::connect(world.address).unwrap()).collect();
    for (index, stream) in silent.iter_mut().enumerate() {
        // Some say nothing, some a part of a record that never ends.
        stream.write_all(&[22, 3, 1, 2, 0, 1][..index % 6]).unwrap();
    }
    sleep(Duration::from_millis(200));
    // One more is closed at once.
    let mut late = TcpStream::connect(world.address).unwrap();
    late.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(late.read(&mut [0]), Ok(0) | Err(_)));
    assert!(began.elapsed() < Duration::from_millis(900), "it was not closed at once");
    for stream in &mut silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    let mut caller = world.caller();
    world.serves(&mut caller);
}

#[test]
fn records_that_are_broken_end_their_own_flow_only() {
    let world = World::new("", "");
    let mut bystander = world.caller();
    for bytes in [&[23, 3, 3, 0, 4, 1, 2, 3, 4][..], &[0xff; 300], &[21, 3, 3, 0, 2, 2, 0]] {
        let mut rude = tls::connect(world.address, &world.client, "127.0.0.1").unwrap();
        rude.sock.write_all(bytes).unwrap();
        rude.sock.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        let _ = rude.sock.read_to_end(&mut rest);
        world.serves(&mut bystander);
    }
}

#[test]
fn large_messages_and_tiny_records_pass() {
    let world = World::new("", "");
    let (call, mut caller, mut callee) = world.call(1);
    let text = over_tls(&with_offer(&call.request("INVITE", 2), 47_000));
    for part in text.as_bytes().chunks(997) {
        caller.stream.write_all(part).unwrap();
        caller.stream.flush().unwrap();
    }
    let invite = callee.receive();
    assert!(invite.0.len() > 47_000, "{} bytes", invite.0.len());
    callee.send(&with_offer(&invite.response("200 OK", &world.contact()), 47_000));
    assert!(callee.receive().is("ACK "));
    let ok = caller.receive_after("SIP/2.0 1");
    assert!(ok.is("SIP/2.0 200") && ok.0.len() > 47_000);
}

#[test]
fn a_sips_call_has_sips_on_both_legs_and_reaches_no_device_without_tls() {
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!(
        "[[device]]\ndn = \"7003\"\ntype = \"Extension\"\ncontact = \"sip:7003@{};transport=tcp\"\n",
        plain.local_addr().unwrap()
    );
    let world = World::new("", &more);
    let mut caller = world.caller();
    let secure = |text: &str| {
        over_tls(text)
            .replace("sip:7002@127.0.0.1", "sips:7002@127.0.0.1")
            .replace("<sip:7001@127.0.0.1:9;transport=tls>", "<sips:7001@127.0.0.1:9>")
    };
    caller.send(&secure(&request("INVITE", 1, 1, None)));
    let mut callee = world.accept();
    let invite = callee.receive();
    assert!(invite.is("INVITE sips:7002@"), "{invite:?}");
    let own = format!("<sips:127.0.0.1:{}>", world.address.port());
    assert_eq!(invite.header("Contact"), own);
    callee.send(&invite.response("200 OK", &world.contact().replace("sip:", "sips:")));
    let ok = caller.receive_after("SIP/2.0 1");
    assert_eq!(ok.header("Contact"), own);
    caller.send(&secure(&request("INVITE", 2, 1, None)).replace("7002", "7003"));
    let answer = caller.receive_after("SIP/2.0 1");
    assert!(answer.is("SIP/2.0 480"), "{answer:?}");
}

#[test]
fn a_close_notify_is_answered_like_a_fin_and_a_drain_says_one() {
    let mut world = World::new("", "");
    let mut caller = tls::connect(world.address, &world.client, "127.0.0.1").unwrap();
    caller.conn.send_close_notify();
    caller.flush().unwrap();
    let mut rest = Vec::new();
    assert!(caller.read_to_end(&mut rest).is_ok() && rest.is_empty(), "{rest:?}");
    let mut idle = tls::connect(world.address, &world.client, "127.0.0.1").unwrap();
    world.server.signal("TERM");
    // With a truncation instead of close_notify this was an error.
    assert_eq!(idle.read(&mut [0; 16]).unwrap(), 0);
    let _ = world.server.wait();
}

/// CPU seconds that a process has used, and its memory in KiB.
fn used(pid: u32) -> (f64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (ticks as f64 / 100.0, rss.trim().trim_end_matches(" kB").parse().unwrap())
}

/// Run it alone and optimised: `cargo test --release --test tls -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn measure_handshakes_and_memory() {
    const HANDSHAKES: u32 = 3000;
    const FLOWS: usize = 5000;
    let world = World::new("", "");
    // The server listens after its shell became it.
    let pid = world.server.pid();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for resumed in [false, true] {
            let mut config = ClientConfig::builder_with_protocol_versions(&[version])
                .with_root_certificates(world.authority.roots())
                .with_no_client_auth();
            if !resumed {
                config.resumption = rustls::client::Resumption::disabled();
            }
            let config = Arc::new(config);
            drop(tls::connect(world.address, &config, "127.0.0.1").unwrap());
            let (before, _) = used(pid);
            for _ in 0..HANDSHAKES {
                drop(tls::connect(world.address, &config, "127.0.0.1").unwrap());
            }
            let (after, _) = used(pid);
            let kind = if resumed { "resumed" } else { "full" };
            let each = (after - before) / f64::from(HANDSHAKES);
            println!(
                "{:?} {kind}: {:.0} µs of CPU, {:.0} a core and second",
                version.version,
                each * 1e6,
                1.0 / each
            );
        }
    }
    for secured in [false, true] {
        let (_, before) = used(pid);
        let mut held: Vec<Box<dyn std::any::Any>> = Vec::new();
        for _ in 0..FLOWS {
            held.push(match secured {
                true => Box::new(tls::connect(world.address, &world.client, "127.0.0.1").unwrap()),
                false => Box::new(TcpStream::connect(world.server.address).unwrap()),
            });
        }
        sleep(Duration::from_secs(1));
        let (_, after) = used(pid);
        let each = (after - before) as f64 * 1024.0 / FLOWS as f64;
        println!(
            "{} idle flows over {}: {each:.0} bytes each",
            FLOWS,
            if secured { "TLS" } else { "TCP" }
        );
        drop(held);
        sleep(Duration::from_secs(2));
    }
}
