//! What a message costs a shard, by hand:
//! `cargo test --profile bench --lib measure -- --ignored --nocapture --test-threads 1`.

#![allow(clippy::print_stderr)] // It says what it found.

use std::fs;

use super::*;

/// How long each case runs.
const FOR: Duration = Duration::from_secs(3);
/// About as large as a re-INVITE without a body.
const BODY: usize = 640;

/// CPU time of the thread of shard 0: its processes' clock, in nanoseconds.
fn shard_cpu() -> u64 {
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.trim() == "shard-0" {
            let times = fs::read_to_string(task.path().join("schedstat")).unwrap();
            return times.split(' ').next().unwrap().parse().unwrap();
        }
    }
    panic!("no thread of shard 0");
}

fn measure(name: &str, clients: usize, in_flight: usize) {
    let world = World::new(1);
    let mut clients: Vec<_> = (0..clients).map(|_| world.connect()).collect();
    let bytes = request("ECHO", "x", &"b".repeat(BODY)).repeat(in_flight);
    for client in &mut clients {
        client.send(&bytes);
        client.expect(&bytes);
    }
    let (began, cpu) = (SystemInstant::now(), shard_cpu());
    let before = world.snapshots()[0].net;
    let mut messages = 0;
    while began.elapsed() < FOR {
        clients.iter_mut().for_each(|client| client.send(&bytes));
        clients.iter_mut().for_each(|client| client.expect(&bytes));
        messages += clients.len() * in_flight;
    }
    let micros = (shard_cpu() - cpu) as f64 / 1000.0 / messages as f64;
    let net = world.snapshots()[0].net;
    let reads = (net.reads - before.reads) as f64 / messages as f64;
    let writes = (net.writes - before.writes) as f64 / messages as f64;
    let rate = messages as f64 / began.elapsed().as_secs_f64();
    eprintln!(
        "{name}: {micros:.2} us of shard CPU a message, {rate:.0} messages/s, \
         {reads:.3} reads and {writes:.3} writes a message"
    );
}

#[test]
#[ignore = "a measurement"]
fn measure_echo() {
    measure("1 flow, 16 in flight", 1, 16);
    measure("100 flows, 16 in flight", 100, 16);
    measure("1 flow, 1 in flight", 1, 1);
    measure("100 flows, 1 in flight", 100, 1);
    measure("1000 flows, 1 in flight", 1000, 1);
}

#[test]
#[ignore = "a measurement"]
fn measure_latency() {
    let world = World::new(1);
    let mut client = world.connect();
    client.echo("x", "");
    let mut kept = Vec::new();
    for pause in [0, 1, 5, 20, 100] {
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(pause));
            let began = SystemInstant::now();
            client.echo("x", "");
            let echo = began.elapsed();
            let began = SystemInstant::now();
            let bytes = request("TIMER", "x", "20");
            client.send(&bytes);
            client.expect(&bytes);
            let timer = began.elapsed();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let began = SystemInstant::now();
            client.send(&request("CONNECT", "x", &address));
            let accepted = listener.accept().unwrap();
            let connected = began.elapsed();
            client.expect(&request("OPENED", "x", ""));
            let opened = began.elapsed();
            eprintln!(
                "after {pause} ms: echo {echo:?}, timer of 20 ms {timer:?}, \
                 connect {connected:?}, opened {opened:?}"
            );
            kept.push(accepted);
        }
    }
}
