//! What a timer costs with many standing ones, and what it costs in an ordered map.
//!
//! Standing timers are spread over 32 s. What is measured with them standing:
//!
//! * `transaction`: schedules timer B of a request, 32 s ahead, and cancels that of the request
//!   1,000 before, which has its answer by now; a request a microsecond. This is what a shard does, and the standing
//!   ones expire meanwhile and are scheduled again: of ten million one in three steps.
//! * `schedule_cancel`: the same while nothing expires.
//! * `random`: schedules one anywhere and cancels any of the standing ones. Each step touches memory
//!   that has grown cold: the worst case.
//! * `pop`: schedules one anywhere and pops the earliest.
//! * `next_expiry`.
//!
//! `WHEEL_BENCH_LARGE=1` adds ten million.

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use holdfast::key::TimerKey;
use holdfast::sip::wheel::Wheel;
use holdfast::time::Instant;

use support::clock::CpuTime;

#[allow(dead_code, reason = "other benches use the rest")]
mod support;

/// As large as a `Timer` of the endpoint.
type Item = [u32; 3];

const SPAN_MICROS: u64 = 32_000_000;
/// Requests without an answer yet.
const OUTSTANDING: usize = 1000;

/// Enough of a generator to spread timers (Marsaglia's xorshift).
struct Spread(u64);

impl Spread {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// The operations that both have.
trait Timers {
    type Key: Copy;
    fn new() -> Self;
    fn schedule(&mut self, at: Instant, item: Item) -> Self::Key;
    fn cancel(&mut self, key: Self::Key) -> Option<Item>;
    fn pop_due(&mut self, now: Instant) -> Option<Item>;
    fn next_expiry(&self) -> Option<Instant>;
}

impl Timers for Wheel<Item> {
    type Key = TimerKey;

    fn new() -> Self {
        Wheel::new(Instant::ZERO)
    }

    fn schedule(&mut self, at: Instant, item: Item) -> TimerKey {
        Wheel::schedule(self, at, item)
    }

    fn cancel(&mut self, key: TimerKey) -> Option<Item> {
        Wheel::cancel(self, key)
    }

    fn pop_due(&mut self, now: Instant) -> Option<Item> {
        Wheel::pop_due(self, now)
    }

    fn next_expiry(&self) -> Option<Instant> {
        Wheel::next_expiry(self)
    }
}

#[derive(Default)]
struct Ordered {
    map: BTreeMap<(Instant, u64), Item>,
    count: u64,
}

impl Timers for Ordered {
    type Key = (Instant, u64);

    fn new() -> Self {
        Self::default()
    }

    fn schedule(&mut self, at: Instant, item: Item) -> (Instant, u64) {
        self.count += 1;
        self.map.insert((at, self.count), item);
        (at, self.count)
    }

    fn cancel(&mut self, key: (Instant, u64)) -> Option<Item> {
        self.map.remove(&key)
    }

    fn pop_due(&mut self, now: Instant) -> Option<Item> {
        let first = self.map.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    fn next_expiry(&self) -> Option<Instant> {
        self.map.first_key_value().map(|(key, _)| key.0)
    }
}

fn standing<W: Timers>(count: usize, spread: &mut Spread) -> (W, Vec<W::Key>) {
    let mut timers = W::new();
    let item = [0; 3];
    let at = |spread: &mut Spread| Instant::from_micros(spread.next() % SPAN_MICROS);
    let keys = (0..count).map(|_| timers.schedule(at(spread), item)).collect();
    (timers, keys)
}

/// When a transaction that begins at `now` gives up.
fn later(now: Instant) -> Instant {
    Instant::from_micros(now.as_micros() + SPAN_MICROS)
}

fn measure<W: Timers>(criterion: &mut Criterion<CpuTime>, name: &str, counts: &[usize]) {
    let mut group = criterion.benchmark_group(name);
    for &count in counts {
        let mut spread = Spread(0x9e37_79b9_7f4a_7c15);
        let (mut timers, mut keys) = standing::<W>(count, &mut spread);
        group.bench_function(BenchmarkId::new("random", count), |bencher| {
            bencher.iter(|| {
                let random = spread.next();
                let at = Instant::from_micros(random % SPAN_MICROS);
                let key = timers.schedule(at, [1; 3]);
                let victim = (random >> 32) as usize % keys.len();
                timers.cancel(std::mem::replace(&mut keys[victim], key))
            });
        });
        group.bench_function(BenchmarkId::new("next_expiry", count), |bencher| {
            bencher.iter(|| black_box(&timers).next_expiry());
        });
        let mut now = Instant::ZERO;
        group.bench_function(BenchmarkId::new("pop", count), |bencher| {
            bencher.iter(|| {
                let ahead = spread.next() % SPAN_MICROS;
                timers.schedule(Instant::from_micros(now.as_micros() + ahead), [1; 3]);
                now = timers.next_expiry().map_or(now, |expiry| expiry.max(now));
                timers.pop_due(now)
            });
        });
        let mut answered = VecDeque::with_capacity(OUTSTANDING + 1);
        group.bench_function(BenchmarkId::new("schedule_cancel", count), |bencher| {
            bencher.iter(|| {
                answered.push_back(timers.schedule(later(now), [1; 3]));
                if answered.len() > OUTSTANDING {
                    answered.pop_front().map(|key| timers.cancel(key));
                }
            });
        });
        for key in answered.drain(..) {
            timers.cancel(key);
        }
        group.bench_function(BenchmarkId::new("transaction", count), |bencher| {
            bencher.iter(|| {
                now = Instant::from_micros(now.as_micros() + 1);
                if let Some(item) = timers.pop_due(now) {
                    timers.schedule(later(now), item);
                }
                answered.push_back(timers.schedule(later(now), [1; 3]));
                if answered.len() > OUTSTANDING {
                    answered.pop_front().map(|key| timers.cancel(key));
                }
            });
        });
    }
    group.finish();
}

fn wheel(criterion: &mut Criterion<CpuTime>) {
    let mut counts = vec![1_000, 100_000, 1_000_000];
    if std::env::var_os("WHEEL_BENCH_LARGE").is_some() {
        counts.push(10_000_000);
    }
    measure::<Wheel<Item>>(criterion, "wheel", &counts);
    measure::<Ordered>(criterion, "btreemap", &counts);
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime).sample_size(30);
    targets = wheel
}
criterion_main!(benches);
