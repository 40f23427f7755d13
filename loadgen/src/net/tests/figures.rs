//! What the wire costs; printed, not judged, but for gross waste.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use super::rig::{LONG, Rig, Setup, address, request_of};
use super::streams::peer;
use crate::net::{Limits, Reconnect, Side, Transport};

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
#[ignore = "prints figures; needs 20,000 descriptors; run it alone"]
fn memory_of_idle_connections_over_tcp() {
    memory_of_idle(Transport::Tcp, 9_000);
}

#[test]
#[ignore = "prints figures; run it alone"]
fn memory_of_idle_connections_over_tls() {
    // Handshakes cost milliseconds in a build without optimisation.
    memory_of_idle(Transport::Tls, 400);
}

/// The wire connects to itself and holds both ends.
fn memory_of_idle(transport: Transport, count: u32) {
    let limits = Limits { connect_timeout: 6 * LONG, ..Limits::default() };
    let mut rig = Rig::with(Setup { limits, ..Setup::default() });
    let to = rig.listen(0, transport);
    let from = SocketAddr::from((address(), 0));
    let before = resident();
    let began = Instant::now();
    rig.run(move |wire| {
        for party in 0..count {
            wire.start_connect(Side::Caller, party, from, to, transport, Reconnect::No);
        }
    });
    for _ in 0..2 * count {
        rig.opened();
    }
    let took = began.elapsed();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let ends = 2 * count;
    let each = resident().saturating_sub(before) / u64::from(ends);
    println!("{transport:?}: {ends} idle ends, {each} bytes each, opened in {took:?}");
    assert!(each < 64 * 1024, "{each} bytes for an idle end");
}

#[test]
#[ignore = "prints figures; run it alone, in release"]
fn connects_and_messages_a_second() {
    let mut rig = Rig::new();
    let listener = TcpListener::bind((address(), 0)).unwrap();
    let to = listener.local_addr().unwrap();
    const CONNECTS: u32 = 5_000;
    let accepted = std::thread::spawn(move || {
        (0..CONNECTS).map(|_| listener.accept().unwrap().0).collect::<Vec<_>>()
    });
    let from = SocketAddr::from((address(), 0));
    let began = Instant::now();
    rig.run(move |wire| {
        for party in 0..CONNECTS {
            wire.start_connect(Side::Caller, party, from, to, Transport::Tcp, Reconnect::No);
        }
    });
    for _ in 0..CONNECTS {
        rig.opened();
    }
    let rate = f64::from(CONNECTS) / began.elapsed().as_secs_f64();
    println!("TCP: {rate:.0} connects a second");
    drop(accepted.join().unwrap());
    let address = rig.listen(0, Transport::Tcp);
    for (conns, flight) in [(1, 1), (100, 1), (100, 16)] {
        let rate = echo_rate(address, conns, flight);
        println!("TCP: {conns} connections, {flight} in flight each: {rate:.0} messages a second");
    }
}

/// A plain peer that keeps `flight` requests in flight on each of its connections.
fn echo_rate(address: SocketAddr, conns: usize, flight: usize) -> f64 {
    const MESSAGES: usize = 200_000;
    let batch = request_of("0123456789", 600).repeat(flight);
    let mut streams: Vec<TcpStream> = (0..conns).map(|_| peer(address)).collect();
    let mut buffer = vec![0; 65536];
    let rounds = (MESSAGES / conns / flight / if flight == 1 { 4 } else { 1 }).max(1);
    let began = Instant::now();
    for _ in 0..rounds {
        for stream in &mut streams {
            stream.write_all(&batch).unwrap();
        }
        for stream in &mut streams {
            let mut answers = 0;
            while answers < flight {
                let len = stream.read(&mut buffer).unwrap();
                assert!(len > 0);
                answers += memchr::memmem::find_iter(&buffer[..len], b"\r\n\r\n").count();
            }
        }
    }
    (rounds * conns * flight) as f64 / began.elapsed().as_secs_f64()
}
