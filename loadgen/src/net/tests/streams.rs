//! TCP without faults.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::rig::{Event, LONG, Rig, Setup, address, request, request_of};
use crate::net::{Closed, Limits, Reconnect, Side, Transport};

/// Reads until `bytes` hold as many answers.
pub(super) fn read_answers(stream: &mut impl Read, count: usize) -> usize {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 65536]);
    while memchr::memmem::find_iter(&bytes, b"\r\n\r\n").count() < count {
        let len = stream.read(&mut buffer).expect("an answer");
        assert!(len > 0, "end of the stream after {} bytes", bytes.len());
        bytes.extend_from_slice(&buffer[..len]);
    }
    memchr::memmem::find_iter(&bytes, b"\r\n\r\n").count()
}

pub(super) fn peer(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a listener");
    stream.set_read_timeout(Some(LONG)).expect("a timeout");
    stream
}

#[test]
fn messages_are_read_however_the_stream_is_cut() {
    let mut rig = Rig::new();
    let mut stream = peer(rig.listen(0, Transport::Tcp));
    let mut bytes = b"\r\n".to_vec();
    bytes.extend(request_of("one", 700));
    bytes.extend(request("two"));
    for piece in bytes.chunks(7) {
        stream.write_all(piece).unwrap();
    }
    assert_eq!(rig.message().1, "one");
    assert_eq!(rig.message().1, "two");
    assert_eq!(read_answers(&mut stream, 2), 2);
}

#[test]
fn a_ping_is_answered_with_a_pong() {
    let rig = Rig::new();
    let mut stream = peer(rig.listen(0, Transport::Tcp));
    stream.write_all(b"\r\n\r\n").unwrap();
    let mut pong = [0; 2];
    stream.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"\r\n");
}

#[test]
fn ten_thousand_messages_at_once_are_all_answered() {
    let rig = Rig::new();
    let mut stream = peer(rig.listen(0, Transport::Tcp));
    let mut reader = stream.try_clone().unwrap();
    let read = std::thread::spawn(move || read_answers(&mut reader, 10_000));
    let all: Vec<u8> = (0..10_000).flat_map(|n| request(&format!("{n}"))).collect();
    stream.write_all(&all).unwrap();
    assert_eq!(read.join().unwrap(), 10_000);
}

#[test]
fn what_the_kernel_does_not_take_at_once_goes_out_when_the_peer_reads() {
    let mut rig = Rig::new();
    let mut stream = peer(rig.listen(0, Transport::Tcp));
    let conn = rig.opened().conn;
    // More than the largest buffers of both ends.
    let bytes = request_of("much", 60_000).repeat(600);
    rig.say(conn, bytes.clone());
    std::thread::sleep(Duration::from_millis(100));
    let mut read = vec![0; bytes.len()];
    stream.read_exact(&mut read).unwrap();
    assert!(read == bytes);
}

#[test]
fn what_is_not_sip_or_too_long_closes_the_connection() {
    let mut rig = Rig::new();
    let address = rig.listen(0, Transport::Tcp);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[b'a'; 70_000], &[0xff; 70_000]] {
        let mut stream = peer(address);
        let _ = stream.write_all(bytes);
        rig.opened();
        assert_eq!(rig.closed(), Closed::NotSip);
    }
}

#[test]
fn hostile_bytes_close_connections_and_nothing_else() {
    let mut rig = Rig::new();
    let (tcp, tls) = (rig.listen(0, Transport::Tcp), rig.listen(1, Transport::Tls));
    let mut state = 7_u64;
    let mut random = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let seeds = [request_of("seed", 90), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()];
    for round in 0..400 {
        let mut bytes = seeds[round % 2].repeat(1 + random() % 4);
        for _ in 0..1 + random() % 8 {
            let at = random() % bytes.len();
            bytes[at] = random() as u8;
        }
        bytes.truncate(1 + random() % bytes.len());
        let mut stream = peer(if random() % 2 == 0 { tcp } else { tls });
        let _ = stream.write_all(&bytes);
    }
    let mut stream = peer(tcp);
    stream.write_all(&request("after")).unwrap();
    rig.event(|event| matches!(event, Event::Message(_, text) if text == "after").then_some(()));
}

#[test]
fn a_caller_connects_from_its_own_address_and_again_when_lost() {
    let mut rig = Rig::new();
    let server = TcpListener::bind((address(), 0)).unwrap();
    let (from, to) = (SocketAddr::from((address(), 0)), server.local_addr().unwrap());
    let again = Reconnect::After(Duration::from_millis(50));
    rig.run(move |wire| wire.start_connect(Side::Caller, 3, from, to, Transport::Tcp, again));
    let (first, peer) = server.accept().unwrap();
    assert_eq!(peer.ip(), from.ip());
    let place = rig.opened();
    assert_eq!((place.side, place.party), (Side::Caller, 3));
    rig.say(place.conn, request("hello"));
    let mut buffer = [0; 4096];
    let len = (&first).read(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], request("hello"));
    let lost = Instant::now();
    drop(first);
    assert_eq!(rig.closed(), Closed::Eof);
    let (_second, _) = server.accept().unwrap();
    assert!(lost.elapsed() >= Duration::from_millis(50), "{:?}", lost.elapsed());
    assert_ne!(rig.opened().conn, place.conn);
}

#[test]
fn refused_and_unanswered_connects_are_told_apart() {
    let limits = Limits { connect_timeout: Duration::from_millis(300), ..Limits::default() };
    let mut rig = Rig::with(Setup { limits, ..Setup::default() });
    let closed = TcpListener::bind((address(), 0)).unwrap().local_addr().unwrap();
    let full = full_listener();
    let silent = full.0.local_addr().unwrap();
    for (party, to) in [(0, closed), (1, silent)] {
        let from = SocketAddr::from((address(), 0));
        rig.run(move |wire| {
            wire.start_connect(Side::Caller, party, from, to, Transport::Tcp, Reconnect::No);
        });
    }
    let mut failed = [0, 1].map(|_| {
        rig.event(|event| match event {
            Event::ConnectFailed(party, kind) => Some((*party, *kind)),
            _ => None,
        })
    });
    failed.sort_by_key(|(party, _)| *party);
    let kinds = [std::io::ErrorKind::ConnectionRefused, std::io::ErrorKind::TimedOut];
    assert_eq!(failed, [(0, kinds[0]), (1, kinds[1])]);
    let tally = rig.run(|wire| wire.tally());
    assert_eq!(tally.failed.into_iter().collect::<Vec<_>>(), kinds.map(|kind| (kind, 1)));
}

#[test]
fn connects_beyond_the_limit_in_flight_wait_their_turn() {
    let connect_timeout = Duration::from_millis(200);
    let limits = Limits { connects: 2, connect_timeout, ..Limits::default() };
    let mut rig = Rig::with(Setup { limits, ..Setup::default() });
    let full = full_listener();
    let (from, to) = (SocketAddr::from((address(), 0)), full.0.local_addr().unwrap());
    let began = Instant::now();
    rig.run(move |wire| {
        for party in 0..6 {
            wire.start_connect(Side::Caller, party, from, to, Transport::Tcp, Reconnect::No);
        }
    });
    for _ in 0..6 {
        rig.event(|event| matches!(event, Event::ConnectFailed(..)).then_some(()));
    }
    assert!(began.elapsed() >= 3 * connect_timeout, "{:?}", began.elapsed());
}

/// A listener whose backlog is full, and what fills it: it answers no SYN.
fn full_listener() -> (TcpListener, Vec<socket2::Socket>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address(), 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let to = listener.local_addr().unwrap();
    let fill = (0..8).map(|_| {
        let filler =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        filler.set_nonblocking(true).unwrap();
        let _ = filler.connect(&to.into());
        filler
    });
    let fill = fill.collect();
    (listener, fill)
}

#[test]
fn a_thousand_connects_at_once_all_succeed() {
    let limits = Limits { connects: 16, ..Limits::default() };
    let mut rig = Rig::with(Setup { limits, ..Setup::default() });
    let server = TcpListener::bind((address(), 0)).unwrap();
    let (from, to) = (SocketAddr::from((address(), 0)), server.local_addr().unwrap());
    let accepted = std::thread::spawn(move || {
        (0..1000).map(|_| server.accept().unwrap().0).collect::<Vec<_>>()
    });
    rig.run(move |wire| {
        for party in 0..1000 {
            wire.start_connect(Side::Caller, party, from, to, Transport::Tcp, Reconnect::No);
        }
    });
    for _ in 0..1000 {
        rig.opened();
    }
    assert_eq!(accepted.join().unwrap().len(), 1000);
    let tally = rig.run(|wire| wire.tally());
    assert_eq!((tally.connects.iter().sum::<u32>(), tally.accepted), (1000, 0));
}

#[test]
fn beyond_the_limits_connections_are_closed() {
    let limits = Limits { conns: 2, outbox_bytes: 4 << 20, ..Limits::default() };
    let mut rig = Rig::with(Setup { limits, ..Setup::default() });
    let address = rig.listen(0, Transport::Tcp);
    let (_one, _two) = (peer(address), peer(address));
    let conn = rig.opened().conn;
    let mut third = peer(address);
    assert!(matches!(third.read(&mut [0; 1]), Ok(0) | Err(_)));
    // Nobody reads: 16 MiB cannot all be in the kernel, and 4 may wait.
    for _ in 0..256 {
        rig.say(conn, vec![b'x'; 64 * 1024]);
    }
    assert_eq!(rig.closed(), Closed::Overflow);
}

#[test]
fn a_message_to_a_connection_that_is_gone_goes_nowhere() {
    let mut rig = Rig::new();
    let stream = peer(rig.listen(0, Transport::Tcp));
    let conn = rig.opened().conn;
    drop(stream);
    assert_eq!(rig.closed(), Closed::Eof);
    rig.say(conn, request("late"));
    rig.say(conn + 1000, request("never"));
    assert!(rig.run(move |wire| wire.with(|handler, _| {
        use crate::net::Handler;
        handler.out().is_empty() && !handler.out().is_open(conn)
    })));
}

#[test]
fn connections_go_on_when_no_descriptor_is_left() {
    // In a process of its own: other tests of this one need theirs.
    let mut own = std::process::Command::new(std::env::current_exe().unwrap());
    own.args(["--exact", "--ignored", "net::tests::streams::messages_without_a_descriptor"]);
    let ran = own.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "leaves its process without descriptors"]
fn messages_without_a_descriptor() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut rig = Rig::new();
    let mut stream = peer(rig.listen(0, Transport::Tcp));
    rig.opened();
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(0);
    setrlimit(Resource::Nofile, limit).unwrap();
    for call_id in ["one", "two", "three"] {
        stream.write_all(&request(call_id)).unwrap();
        assert_eq!(rig.message().1, call_id);
    }
    assert_eq!(read_answers(&mut stream, 3), 3);
    drop(stream);
    assert_eq!(rig.closed(), Closed::Eof);
}
