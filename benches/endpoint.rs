//! What the protocol of a shard takes, without sockets: from the bytes that are read to the bytes that are written.
//!
//! * `reinvite-relay`: a re-INVITE, its 200 and its ACK on one of 1,000 calls (three messages read, four written).
//! * `reinvite-proxy`: the same through the proxy role.
//! * `call`: a whole call, from INVITE to the 200 of its BYE.
//! * `outage-leg`: 10,000 calls over 100 connections, all reset with a re-INVITE on each call; the delay passes, all
//!   are sent again, and answered.
//!
//! The times that criterion prints are of 1,000 operations (10,000 legs); `thrpt` counts operations. The peers are a
//! record that is played back, so they take no part of the time (`support`).

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::time::Duration;

use criterion::{BatchSize, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

use support::clock::CpuTime;
use support::workload::Workload;

#[allow(dead_code, reason = "other benches use the rest")]
mod support;

/// Legs of the outage.
const LEGS: usize = 10_000;

fn endpoint(criterion: &mut Criterion<CpuTime>) {
    for workload in Workload::all(LEGS) {
        let mut server = workload.prepare();
        workload.run(&mut server);
        workload.check(&server);
        let mut group = criterion.benchmark_group("endpoint");
        group.sampling_mode(SamplingMode::Flat);
        group.throughput(Throughput::Elements(workload.operations as u64));
        group.bench_function(workload.name, |bencher| {
            bencher.iter_batched_ref(
                || workload.prepare(),
                |server| workload.run(server),
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .with_measurement(CpuTime)
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(4));
    targets = endpoint
}
criterion_main!(benches);
