//! Datagrams: boundaries, bursts, errors.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::rig::{Event, LONG, Rig, address, request, request_of};
use crate::net::{Fault, Reconnect, Side, Transport};

fn peer() -> UdpSocket {
    let socket = UdpSocket::bind((address(), 0)).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
    socket
}

fn connect(rig: &mut Rig, from: SocketAddr, to: SocketAddr) -> u32 {
    rig.run(move |wire| {
        wire.start_connect(Side::Caller, 0, from, to, Transport::Udp, Reconnect::No);
    });
    let place = rig.opened();
    assert!(place.datagrams);
    place.conn
}

#[test]
fn each_message_of_a_burst_is_one_datagram() {
    let mut rig = Rig::new();
    let server = peer();
    let conn = connect(&mut rig, (address(), 0).into(), server.local_addr().unwrap());
    const COUNT: usize = 400;
    let size = |n: usize| 40 * (n % 50);
    let reader = server.try_clone().unwrap();
    let read = std::thread::spawn(move || {
        let (mut seen, mut buffer) = (BTreeSet::new(), vec![0; 65536]);
        while seen.len() < COUNT {
            let len = reader.recv(&mut buffer).expect("a datagram");
            let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
            let n: usize = text
                .split("Call-ID: n")
                .nth(1)
                .and_then(|t| t.split("\r\n").next())
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(&buffer[..len], request_of(&format!("n{n}"), size(n)), "cut or joined");
            seen.insert(n);
        }
        seen.len()
    });
    rig.run(move |wire| {
        use crate::net::Handler;
        wire.with(|handler, _| {
            for n in 0..COUNT {
                let bytes = request_of(&format!("n{n}"), size(n));
                handler.out().message(conn, |out| out.extend_from_slice(&bytes));
            }
        });
    });
    assert_eq!(read.join().unwrap(), COUNT);
}

#[test]
fn a_burst_larger_than_the_kernel_holds_is_sent_in_whole_datagrams() {
    let mut rig = Rig::new();
    let server = peer();
    let conn = connect(&mut rig, (address(), 0).into(), server.local_addr().unwrap());
    let whole = request_of("big", 60_000);
    let expected = whole.len();
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut count = 0;
        while let Ok(len) = server.recv(&mut buffer) {
            assert_eq!(len, expected);
            count += 1;
            if count % 16 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        count
    });
    for _ in 0..20 {
        let burst = whole.clone();
        rig.run(move |wire| {
            use crate::net::Handler;
            wire.with(|handler, _| {
                for _ in 0..50 {
                    handler.out().message(conn, |out| out.extend_from_slice(&burst));
                }
            });
        });
    }
    let count = reader.join().unwrap();
    // A slow receiver's kernel drops many; those that arrive are whole.
    assert!(count >= 5, "{count} of 1000");
}

#[test]
fn a_party_answers_whoever_asks_from_its_one_socket() {
    let mut rig = Rig::new();
    let callee = rig.listen(0, Transport::Udp);
    let peers = [peer(), peer()];
    for (n, socket) in peers.iter().enumerate() {
        socket.send_to(&request(&format!("p{n}")), callee).unwrap();
        let mut buffer = [0; 4096];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from, callee);
        assert!(String::from_utf8_lossy(&buffer[..len]).contains(&format!("p{n}")));
    }
    let places = [rig.opened(), rig.opened()];
    assert_ne!(places[0].conn, places[1].conn);
    assert_eq!(rig.run(|wire| wire.conns_of(Side::Callee, 0)).len(), 2);
}

#[test]
fn without_a_content_length_the_body_ends_with_the_datagram() {
    let mut rig = Rig::new();
    let callee = rig.listen(0, Transport::Udp);
    let socket = peer();
    let bytes = b"OPTIONS sip:a SIP/2.0\r\nCall-ID: bare\r\nCSeq: 1 OPTIONS\r\n\r\nbody";
    socket.send_to(bytes, callee).unwrap();
    assert_eq!(rig.message().1, "barebody");
    for hostile in
        [&b""[..], b"\r", b"\xff\xfe", b"INVITE", b"SIP/2.0 200 OK\r\nContent-Length: 9\r\n\r\n"]
    {
        socket.send_to(hostile, callee).unwrap();
    }
    socket.send_to(b"\r\n\r\n", callee).unwrap();
    let mut buffer = [0; 4096];
    let answer = socket.recv(&mut buffer).unwrap();
    assert!(buffer[..answer].starts_with(b"SIP/2.0 200"));
    assert_eq!(socket.recv(&mut buffer).unwrap(), 2, "a pong");
}

#[test]
fn a_datagram_to_a_closed_port_is_reported() {
    let mut rig = Rig::new();
    let gone = peer().local_addr().unwrap();
    let conn = connect(&mut rig, (address(), 0).into(), gone);
    rig.say(conn, request("anybody"));
    let (place, kind) = rig.event(|event| match event {
        Event::Error(place, kind) => Some((*place, *kind)),
        _ => None,
    });
    assert_eq!((place.conn, kind), (conn, ErrorKind::ConnectionRefused));
}

#[test]
fn refusing_over_udp_is_port_unreachable() {
    let rig = Rig::new();
    let callee = rig.listen(0, Transport::Udp);
    let socket = peer();
    socket.connect(callee).unwrap();
    rig.run(|wire| wire.strike(Side::Callee, 0, Fault::Refuse)).unwrap();
    socket.send(&request("x")).unwrap();
    let error = socket.recv(&mut [0; 10]).expect_err("nobody there");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    rig.run(|wire| wire.lift(Side::Callee, 0)).unwrap();
    socket.send(&request("y")).unwrap();
    assert!(socket.recv(&mut [0; 1000]).is_ok());
}

#[test]
fn blackhole_stop_cut_and_another_port_over_udp() {
    let mut rig = Rig::new();
    let callee = rig.listen(0, Transport::Udp);
    let socket = peer();
    let strike = |rig: &Rig, fault| {
        rig.run(move |wire| wire.strike(Side::Callee, 0, fault)).unwrap();
    };
    let short = Duration::from_millis(200);
    for fault in [Fault::Blackhole, Fault::StopReading] {
        strike(&rig, fault);
        socket.send_to(&request("lost"), callee).unwrap();
        socket.set_read_timeout(Some(short)).unwrap();
        assert_eq!(socket.recv(&mut [0; 10]).unwrap_err().kind(), ErrorKind::WouldBlock);
        rig.run(|wire| wire.lift(Side::Callee, 0)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        if fault == Fault::StopReading {
            assert!(socket.recv(&mut [0; 1000]).is_ok(), "it was left in the kernel");
        }
    }
    let mut buffer = [0; 4096];
    socket.send_to(&request("whole"), callee).unwrap();
    let whole = socket.recv(&mut buffer).unwrap();
    strike(&rig, Fault::CutInside);
    socket.send_to(&request("whole"), callee).unwrap();
    assert_eq!(socket.recv(&mut buffer).unwrap(), whole / 2);
    let conn = rig.opened().conn;
    let port = rig.run(|wire| wire.rebind(Side::Callee, 0, 0)).unwrap();
    rig.say(conn, request("from the new one"));
    let (_, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(from, SocketAddr::new(callee.ip(), port));
}
