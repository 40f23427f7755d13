//! What each object of the core holds in memory, and what work costs among many of them.
//!
//! ```sh
//! cargo bench --no-default-features --bench memory            # a table, 1,000 to 1,000,000 calls
//! cargo bench --no-default-features --bench memory -- --save  # commits it
//! ```
//!
//! Bytes are those that the core has asked for and not given back, growth of tables included; what an allocator adds,
//! sockets and their buffers are not in them. They are exact.
//!
//! The cost of a call among many is that of a re-INVITE, its 200 and its ACK on calls that lie far from one another.
//! To measure it without the peers the calls are made twice: once to record what the peers say, once to play it back.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it says what it measured")]

use std::alloc::System;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use holdfast::options::Options;
use holdfast::sip::wheel::Wheel;
use holdfast::time::Instant;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use support::clock::CpuTime;
use support::exchange::{Exchange, server_options};
use support::figures::{Figures, conclude};
use support::server::Trace;

#[allow(dead_code, reason = "other benches use the rest")]
mod support;

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How many objects of each kind.
const COUNTS: [(usize, &str); 3] = [(1_000, "1k"), (100_000, "100k"), (1_000_000, "1M")];
/// Transactions hold whole messages: a million would need gigabytes.
const TRANSACTIONS: usize = 100_000;
/// Re-INVITEs in a row whose time is taken once.
const BATCH: usize = 1_000;
/// Of the batches the median counts.
const BATCHES: usize = 21;
/// From one call in which there is a re-INVITE to the next; prime to all counts.
const STRIDE: usize = 611_953;
/// Between two calls or re-INVITEs.
const PERIOD: Duration = Duration::from_millis(1);
/// Longer than a transaction lasts.
const SETTLE: Duration = Duration::from_secs(70);

fn main() -> ExitCode {
    let mut held = Figures::of("held-bytes", None);
    let mut times = Figures::of("nanoseconds", None);
    let mut ends = Vec::new();
    held.note("wheel", wheel());
    for (count, name) in COUNTS {
        held.note(&format!("timer-among-{name}"), timers(count));
        held.note(&format!("idle-flow-among-{name}"), idle_flows(count));
        if count <= TRANSACTIONS {
            let [unanswered, accepted] =
                [false, true].map(|answered| transactions(count, answered));
            held.note(&format!("reinvite-unanswered-among-{name}"), unanswered);
            held.note(&format!("reinvite-after-its-2xx-among-{name}"), accepted);
        }
        let (bytes, nanos) = calls(count);
        held.note(&format!("call-among-{name}"), bytes);
        times.note(&format!("memory/reinvite-among-{name}"), nanos);
        ends.push((bytes, nanos));
    }
    let code = conclude(&[held, times]);
    if let [(bytes, nanos), .., (bytes_last, nanos_last)] = ends[..] {
        println!("\n1M over 1k: bytes of a call {:.2}", bytes_last / bytes);
        println!("1M over 1k: time of a re-INVITE {:.2}", nanos_last / nanos);
    }
    code
}

/// Bytes that are held for each of `count` since `region` began.
fn each(region: &Region<'_, System>, count: usize) -> f64 {
    let change = region.change();
    (change.bytes_allocated as f64 - change.bytes_deallocated as f64) / count as f64
}

/// A wheel without timers.
fn wheel() -> f64 {
    let region = Region::new(GLOBAL);
    let wheel: Wheel<[u32; 3]> = Wheel::new(Instant::ZERO);
    let bytes = each(&region, 1);
    drop(black_box(wheel));
    bytes
}

/// Entries of a wheel, spread over 32 s.
fn timers(count: usize) -> f64 {
    let mut wheel = Wheel::new(Instant::ZERO);
    let region = Region::new(GLOBAL);
    for n in 0..count {
        let at = Instant::from_micros(n as u64 * 32_000_000 / count as u64);
        wheel.schedule(at, [0u32; 3]);
    }
    each(&region, count)
}

/// Connections that peers opened, on which nothing was said.
fn idle_flows(count: usize) -> f64 {
    let mut options = Options::clone(&server_options());
    options.limits.flows_max = u32::MAX;
    let mut exchange = Exchange::new(&options.into());
    exchange.forget();
    let region = Region::new(GLOBAL);
    for n in 0..count {
        exchange.stranger(n);
    }
    each(&region, count)
}

/// Re-INVITEs relayed, each on a call of its own: a server and a client transaction, their timers, and the messages
/// that they keep. Without an answer yet, or after the 2xx and its ACK.
fn transactions(count: usize, answered: bool) -> f64 {
    let mut exchange = Exchange::new(&server_options());
    exchange.forget();
    let calls: Vec<String> = (0..count).map(|call| exchange.establish(call)).collect();
    exchange.pass(SETTLE);
    exchange.answering = answered;
    let region = Region::new(GLOBAL);
    for (call, to) in calls.iter().enumerate() {
        exchange.request("INVITE", call, to, 2);
    }
    each(&region, count)
}

/// Established calls of two legs with a session timer: bytes of each; nanoseconds of a re-INVITE among them.
fn calls(count: usize) -> (f64, f64) {
    let trace = record(count);
    let mut exchange = Exchange::new(&server_options());
    exchange.forget();
    let region = Region::new(GLOBAL);
    for call in 0..count {
        exchange.establish(call);
        exchange.pass(PERIOD);
    }
    exchange.pass(SETTLE);
    let bytes = each(&region, count);
    assert_eq!(exchange.server.stats().calls, count);
    let mut nanos: Vec<f64> = trace
        .marks
        .windows(2)
        .map(|ends| {
            let start = CpuTime::now();
            exchange.server.replay(&trace.trace, ends[0]..ends[1]);
            (CpuTime::now() - start).as_nanos() as f64 / BATCH as f64
        })
        .collect();
    assert_eq!(exchange.server.stats(), trace.stats, "the record fits");
    nanos.sort_by(f64::total_cmp);
    (bytes, nanos[BATCHES / 2])
}

/// What the peers say in re-INVITEs among `count` calls.
struct Record {
    trace: Trace,
    /// The steps at which the batches begin and end.
    marks: Vec<usize>,
    stats: holdfast::sip::Stats,
}

fn record(count: usize) -> Record {
    let chosen = |n: usize| n * STRIDE % count;
    let mut exchange = Exchange::new(&server_options());
    exchange.forget();
    let mut calls = vec![String::new(); count];
    for (call, to) in calls.iter_mut().enumerate() {
        *to = exchange.establish(call);
        exchange.pass(PERIOD);
    }
    exchange.pass(SETTLE);
    exchange.trace = Some(Trace::default());
    let mut marks = vec![0];
    for n in 0..BATCH * BATCHES {
        let call = chosen(n);
        exchange.request("INVITE", call, &calls[call], 2 + (n / count) as u32);
        exchange.pass(PERIOD);
        if (n + 1) % BATCH == 0 {
            marks.push(exchange.steps());
        }
    }
    let stats = exchange.server.stats();
    Record { trace: exchange.trace.take().expect("a record"), marks, stats }
}
