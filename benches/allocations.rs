//! How often the core asks for memory, from the bytes that are read to the bytes that are written, in a steady
//! state: as many transactions end while it is counted as begin.
//!
//! ```sh
//! cargo bench --no-default-features --bench allocations            # fails when a count went up
//! cargo bench --no-default-features --bench allocations -- --save  # commits the counts
//! ```
//!
//! The counts are exact: the same inputs in the same order, on one thread. A reallocation counts as one.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it says what it counted")]

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use support::figures::{Figures, conclude};
use support::workload::Workload;

#[allow(dead_code, reason = "other benches use the rest")]
mod support;

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Legs of the outage.
const LEGS: usize = 10_000;

fn main() -> ExitCode {
    let mut counts = Figures::of("allocations", Some(0.0));
    let mut bytes = Figures::of("allocated-bytes", Some(0.0));
    println!("for one operation:");
    for workload in Workload::all(LEGS) {
        let mut server = workload.prepare();
        let before = server.stats();
        let region = Region::new(GLOBAL);
        workload.run(&mut server);
        let used = region.change();
        workload.check(&server);
        let operations = workload.operations as f64;
        let count = (used.allocations + used.reallocations) as f64;
        counts.note(workload.name, count / operations);
        bytes.note(workload.name, used.bytes_allocated as f64 / operations);
        println!(
            "{:<16} {:.2} messages read, {:.2} allocations a message",
            workload.name,
            workload.messages(&before) as f64 / operations,
            count / workload.messages(&before) as f64,
        );
    }
    conclude(&[counts, bytes])
}
