//! Faults over TCP, as a raw socket sees them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::rig::{LONG, Rig, request, request_of};
use super::streams::{peer, read_answers};
use crate::net::{Closed, Door, Fault, Side, Struck, Transport};

const SHORT: Duration = Duration::from_millis(300);

struct Struck1 {
    rig: Rig,
    address: SocketAddr,
    stream: TcpStream,
    conn: u32,
}

fn callee() -> Struck1 {
    let mut rig = Rig::new();
    let address = rig.listen(0, Transport::Tcp);
    let stream = peer(address);
    let conn = rig.opened().conn;
    Struck1 { rig, address, stream, conn }
}

impl Struck1 {
    fn strike(&self, fault: Fault) -> Vec<Struck> {
        self.rig.run(move |wire| wire.strike(Side::Callee, 0, fault)).expect("a fault")
    }

    fn lift(&self) {
        self.rig.run(|wire| wire.lift(Side::Callee, 0)).expect("no fault");
    }

    /// Nothing comes for a while, and the stream is not at its end.
    fn is_silent(&mut self) -> bool {
        self.stream.set_read_timeout(Some(SHORT)).unwrap();
        let read = self.stream.read(&mut [0; 1]).map_err(|error| error.kind());
        self.stream.set_read_timeout(Some(LONG)).unwrap();
        read == Err(ErrorKind::WouldBlock)
    }
}

#[test]
fn reset_is_econnreset_at_the_instant_given() {
    let mut s = callee();
    let waiting = s.stream.try_clone().unwrap();
    let seen = std::thread::spawn(move || {
        let error = (&waiting).read(&mut [0; 1]).expect_err("no end of stream");
        (error.kind(), Instant::now())
    });
    std::thread::sleep(Duration::from_millis(50));
    let struck = s.strike(Fault::Reset);
    let (kind, at) = seen.join().unwrap();
    assert_eq!(kind, ErrorKind::ConnectionReset);
    assert_eq!((struck.len(), struck[0].conn), (1, s.conn));
    assert!(at > struck[0].at && at - struck[0].at < SHORT, "{:?}", at - struck[0].at);
    assert_eq!(s.rig.closed(), Closed::Struck);
}

#[test]
fn fin_is_the_end_of_the_stream_even_with_bytes_unread() {
    let mut s = callee();
    s.strike(Fault::StopReading);
    s.stream.write_all(&request("unread")).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(s.strike(Fault::Fin).len(), 1);
    assert_eq!(s.stream.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(s.rig.closed(), Closed::Struck);
}

#[test]
fn half_close_ends_the_stream_and_goes_on_reading() {
    let mut s = callee();
    s.strike(Fault::HalfClose);
    assert_eq!(s.stream.read(&mut [0; 1]).unwrap(), 0);
    for text in ["later", "latest"] {
        s.stream.write_all(&request(text)).unwrap();
        assert_eq!(s.rig.message().1, text);
    }
    assert_eq!(s.stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_door_that_refuses_does_so_when_told_and_opens_again() {
    let mut s = callee();
    for _ in 0..20 {
        s.strike(Fault::Refuse);
        let refused = TcpStream::connect(s.address).expect_err("an open door");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        s.lift();
        peer(s.address);
        s.rig.opened();
    }
    // The connection there was is not struck.
    s.stream.write_all(&request("still")).unwrap();
    assert_eq!(read_answers(&mut s.stream, 1), 1);
}

#[test]
fn accept_then_close_is_a_connection_that_ends_at_once() {
    let s = callee();
    s.strike(Fault::AcceptThenClose);
    assert_eq!(peer(s.address).read(&mut [0; 1]).unwrap(), 0);
    assert!(s.rig.hears_nothing(SHORT), "such a connection is never open");
}

#[test]
fn a_blackhole_reads_and_says_nothing_until_lifted() {
    let mut s = callee();
    assert_eq!(s.strike(Fault::Blackhole).len(), 1);
    let mut later = peer(s.address);
    s.rig.opened();
    // Much more than the kernel holds: it is read.
    let flood = request_of("flood", 60_000);
    for _ in 0..200 {
        s.stream.write_all(&flood).unwrap();
    }
    later.write_all(&request("late")).unwrap();
    // Cut inside a message when it is lifted: the reader is not confused.
    let (first, second) = flood.split_at(1000);
    s.stream.write_all(first).unwrap();
    s.rig.say(s.conn, request("swallowed"));
    assert!(s.is_silent());
    assert!(s.rig.hears_nothing(SHORT), "no message is handed on");
    s.lift();
    s.stream.write_all(second).unwrap();
    assert_eq!(s.rig.message().1, "flood");
    later.write_all(&request("again")).unwrap();
    assert_eq!(s.rig.message().1, "again");
    assert_eq!(read_answers(&mut s.stream, 1), 1);
}

#[test]
fn who_stops_reading_leaves_the_bytes_in_the_kernel() {
    let mut s = callee();
    s.strike(Fault::StopReading);
    let bytes = request("unread");
    s.stream.write_all(&bytes).unwrap();
    let until = Instant::now() + LONG;
    while s.rig.run(|wire| wire.bytes_unread(Side::Callee)) != bytes.len() as u64 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(s.rig.hears_nothing(SHORT));
    // It still writes.
    s.rig.say(s.conn, request("spoken"));
    assert_eq!(read_answers(&mut s.stream, 1), 1);
    s.lift();
    assert_eq!(s.rig.message().1, "unread");
    assert_eq!(s.rig.run(|wire| wire.bytes_unread(Side::Callee)), 0);
}

#[test]
fn an_end_that_came_with_the_last_bytes_is_heard_behind_them() {
    let mut s = callee();
    s.strike(Fault::StopReading);
    s.stream.write_all(&request("last")).unwrap();
    s.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(s.rig.hears_nothing(SHORT));
    s.lift();
    assert_eq!(s.rig.message().1, "last");
    assert_eq!(s.rig.closed(), Closed::Eof);
}

#[test]
fn a_slow_reader_takes_so_many_bytes_a_second() {
    let mut s = callee();
    s.strike(Fault::SlowReader { bytes_per_second: 20_000 });
    let bytes = request_of("slow", 10_000).repeat(400);
    let began = Instant::now();
    s.stream.set_nonblocking(true).unwrap();
    let mut written = 0;
    // What goes in at once is what the kernel holds.
    while let Ok(len) = s.stream.write(&bytes[written..]) {
        written += len;
    }
    assert!(written < bytes.len(), "the peer never felt it");
    assert!(written > 30_000, "{written} bytes went in");
    for _ in 0..3 {
        s.rig.message();
    }
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1200) && took < LONG, "{took:?} for 30,000 bytes");
}

#[test]
fn a_slow_writer_lets_bytes_trickle_one_by_one() {
    let mut s = callee();
    s.strike(Fault::SlowWriter { gap: Duration::from_millis(5) });
    s.stream.write_all(&request("x")).unwrap();
    let began = Instant::now();
    let (mut reads, mut bytes) = (0, Vec::new());
    let mut buffer = [0; 4096];
    while !bytes.ends_with(b"\r\n\r\n") {
        let len = s.stream.read(&mut buffer).unwrap();
        bytes.extend_from_slice(&buffer[..len]);
        reads += 1;
    }
    let least = bytes.len() as u32 - 1;
    assert!(reads > least / 2, "{} bytes in {reads} reads", bytes.len());
    assert!(began.elapsed() >= Duration::from_millis(5) * least, "{:?}", began.elapsed());
}

#[test]
fn a_message_is_cut_in_half_and_reset_follows() {
    let mut s = callee();
    s.strike(Fault::CutInside);
    assert!(s.is_silent(), "it strikes with the next message");
    let mut both = request_of("cut", 200);
    let half = both.len() / 2;
    both.extend(request("never"));
    s.rig.say(s.conn, both.clone());
    assert_eq!(s.rig.closed(), Closed::Struck);
    let mut read = Vec::new();
    let error = s.stream.read_to_end(&mut read).expect_err("no end of stream");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(read, both[..half]);
}

#[test]
fn a_stalled_door_accepts_and_never_says_anything() {
    let mut s = callee();
    s.strike(Fault::HandshakeStall);
    let mut stalled = peer(s.address);
    stalled.write_all(&request("hello")).unwrap();
    stalled.set_read_timeout(Some(SHORT)).unwrap();
    let read = stalled.read(&mut [0; 1]).expect_err("no answer");
    assert_eq!(read.kind(), ErrorKind::WouldBlock);
    s.lift();
    stalled.set_read_timeout(Some(LONG)).unwrap();
    assert!(matches!(stalled.read(&mut [0; 1]), Ok(0)), "lifted: it is closed");
    peer(s.address);
    s.rig.opened();
}

#[test]
fn a_listener_moves_to_another_port_and_connections_stay() {
    let mut s = callee();
    let port = s.rig.run(|wire| wire.rebind(Side::Callee, 0, 0)).unwrap();
    assert_ne!(port, s.address.port());
    assert_eq!(s.rig.run(|wire| wire.port_of(Side::Callee, 0)), Some(port));
    let refused = TcpStream::connect(s.address).expect_err("nobody there");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    peer((s.address.ip(), port).into());
    s.rig.opened();
    s.stream.write_all(&request("still")).unwrap();
    assert_eq!(read_answers(&mut s.stream, 1), 1);
    // A port that is taken: all stays as it was.
    let holder = std::net::TcpListener::bind((s.address.ip(), 0)).unwrap();
    let taken = holder.local_addr().unwrap().port();
    let error = s.rig.run(move |wire| wire.rebind(Side::Callee, 0, taken)).expect_err("taken");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    peer((s.address.ip(), port).into());
    s.rig.opened();
}

#[test]
fn one_connection_is_struck_and_its_neighbour_is_not() {
    let mut s = callee();
    let mut other = peer(s.address);
    s.rig.opened();
    let conn = s.conn;
    let struck = s.rig.run(move |wire| wire.strike_conn(conn, Fault::Reset));
    assert_eq!(struck.map(|struck| struck.conn), Some(conn));
    assert_eq!(s.rig.closed(), Closed::Struck);
    other.write_all(&request("well")).unwrap();
    assert_eq!(read_answers(&mut other, 1), 1);
    assert!(s.rig.run(move |wire| wire.strike_conn(conn, Fault::Reset)).is_none());
}

#[test]
fn doors_are_set_by_name() {
    let s = callee();
    s.rig.run(|wire| wire.set_door(Side::Callee, 0, Door::Refuse)).unwrap();
    assert!(TcpStream::connect(s.address).is_err());
    s.rig.run(|wire| wire.set_door(Side::Callee, 0, Door::AcceptThenClose)).unwrap();
    assert_eq!(peer(s.address).read(&mut [0; 1]).unwrap(), 0);
    s.rig.run(|wire| wire.set_door(Side::Callee, 0, Door::Open)).unwrap();
    let mut stream = peer(s.address);
    stream.write_all(&request("in")).unwrap();
    assert_eq!(read_answers(&mut stream, 1), 1);
}
