//! Faults of the kernel; without root they say so, and only that is tested.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use super::rig::{LONG, Rig, address, request};
use super::streams::{peer, read_answers};
use crate::net::kernel::{Kernel, Reach};
use crate::net::{Closed, Reconnect, Side, Transport};

/// Root, and the tools: else what a user would read.
fn kernel() -> Option<Kernel> {
    match Kernel::new() {
        Ok(kernel) => Some(kernel),
        Err(text) => {
            assert!(text.contains("need root") || text.contains("need `nft`"), "{text}");
            println!("not tried: {text}");
            None
        }
    }
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(v4) => v4,
        SocketAddr::V6(v6) => panic!("{v6} is not of 127/8"),
    }
}

fn silent(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    let read = stream.read(&mut [0; 1]).map_err(|error| error.kind());
    stream.set_read_timeout(Some(LONG)).unwrap();
    read == Err(ErrorKind::WouldBlock)
}

#[test]
fn dropped_packets_come_through_when_restored_and_neighbours_feel_nothing() {
    let Some(mut kernel) = kernel() else { return };
    let rig = Rig::new();
    let (dropped, other) = (rig.listen(0, Transport::Tcp), rig.listen(1, Transport::Tcp));
    let (mut stream, mut neighbour) = (peer(dropped), peer(other));
    let reach = Reach::Listening(v4(dropped));
    kernel.drop_packets(&[reach]).unwrap();
    stream.write_all(&request("held")).unwrap();
    assert!(silent(&mut stream));
    let connected = TcpStream::connect_timeout(&dropped, Duration::from_millis(300));
    assert_eq!(connected.unwrap_err().kind(), ErrorKind::TimedOut);
    neighbour.write_all(&request("well")).unwrap();
    assert_eq!(read_answers(&mut neighbour, 1), 1);
    kernel.restore(&[reach]).unwrap();
    assert_eq!(read_answers(&mut stream, 1), 1, "sent again by the kernel");
}

#[test]
fn packets_of_a_connecting_party_are_dropped_until_the_end() {
    let Some(mut kernel) = kernel() else { return };
    let mut rig = Rig::new();
    let server = TcpListener::bind((address(), 0)).unwrap();
    let (from, to) = (address(), server.local_addr().unwrap());
    rig.run(move |wire| {
        let from = SocketAddr::from((from, 0));
        wire.start_connect(Side::Caller, 0, from, to, Transport::Tcp, Reconnect::No);
    });
    let (mut stream, _) = server.accept().unwrap();
    let conn = rig.opened().conn;
    kernel.drop_packets(&[Reach::Connecting { from, to: v4(to) }]).unwrap();
    rig.say(conn, request("held"));
    assert!(silent(&mut stream));
    let table = kernel.table.clone();
    assert!(tables().contains(&table));
    drop(kernel);
    assert!(!tables().contains(&table));
    assert_eq!(read_answers(&mut stream, 1), 1);
}

fn tables() -> String {
    let listed = std::process::Command::new("nft").args(["list", "tables"]).output().unwrap();
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

#[test]
fn what_a_dead_run_left_behind_is_removed() {
    if kernel().is_none() {
        return;
    }
    let mut dead = std::process::Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let table = format!("loadgen_{}_0", dead.id());
    let add = ["add", "table", "inet", &table];
    assert!(std::process::Command::new("nft").args(add).status().unwrap().success());
    assert!(tables().contains(&table));
    assert!(kernel().is_some());
    assert!(!tables().contains(&table));
}

#[test]
fn a_killed_connection_is_reset_at_the_peer() {
    let Some(kernel) = kernel() else { return };
    let mut rig = Rig::new();
    let (struck, other) = (rig.listen(0, Transport::Tcp), rig.listen(1, Transport::Tcp));
    let (mut stream, mut neighbour) = (peer(struck), peer(other));
    rig.opened();
    rig.opened();
    match kernel.kill(Reach::Listening(v4(struck))) {
        Ok((count, _)) => assert_eq!(count, 1),
        Err(text) => {
            assert!(text.starts_with("ss ") || text.contains("need `ss`"), "{text}");
            println!("not tried: {text}");
            return;
        }
    }
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(rig.closed(), Closed::Failed(ErrorKind::ConnectionAborted));
    neighbour.write_all(&request("well")).unwrap();
    assert_eq!(read_answers(&mut neighbour, 1), 1);
}

#[test]
fn a_kernel_without_netem_is_named() {
    let Some(mut kernel) = kernel() else { return };
    let reach = Reach::Listening(SocketAddrV4::new(address(), 5060));
    match kernel.delay(reach, Duration::from_millis(20)) {
        Ok(_) => kernel.undo().unwrap(),
        Err(text) => assert!(
            text.contains("sch_netem") || text.contains("need `tc`") || text.contains("qdisc"),
            "{text}"
        ),
    }
}

#[test]
fn addresses_of_others_are_never_touched() {
    let Some(mut kernel) = kernel() else { return };
    for outside in ["192.0.2.1:5060", "127.0.0.1:0"] {
        let reach = Reach::Listening(outside.parse().unwrap());
        assert!(kernel.drop_packets(&[reach]).is_err());
        assert!(kernel.kill(reach).is_err());
        assert!(kernel.delay(reach, Duration::from_millis(1)).is_err());
    }
    let to = "192.0.2.1:5060".parse().unwrap();
    let reach = Reach::Connecting { from: address(), to };
    assert!(kernel.drop_packets(&[reach]).unwrap_err().starts_with("192.0.2.1 is outside"));
}
