//! Runs seeds, each twice, and says what to type to see a failure again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::log::Keep;
use crate::network::Weather;
use crate::peer::Peer;
use crate::scenario;
use crate::swarm;
use crate::world::World;

/// Seeds of an ordinary test run.
const SEEDS: Range<u64> = 0..200;

/// What an ordinary run must come across.
const REACHED: [&str; 22] = [
    "1xx of an orphan",
    "2xx repeated",
    "503 that starts a wait",
    "CANCEL during a wait",
    "PRACK",
    "all flows of a peer at once",
    "answer in the ACK",
    "attempt after 491",
    "attempt repeated",
    "busy with an earlier copy",
    "call proved up",
    "cut around an ACK",
    "cut around an INVITE",
    "drain",
    "final response of an orphan",
    "glare at a peer",
    "message crossed the mesh",
    "peer away",
    "recovered",
    "released: at the deadline",
    "released: delay 0",
    "reload",
];

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Runs one seed once.
fn run_seed(seed: u64, keep: Keep) -> World {
    let mut world = swarm::build(seed, keep);
    scenario::play(&mut world);
    world
}

/// Runs one seed twice; the reason when it failed, else what was covered.
fn check_seed(seed: u64) -> Result<BTreeMap<&'static str, u64>, String> {
    let first = catch_unwind(|| run_seed(seed, Keep::Hash)).map_err(|_| "panic".to_owned())?;
    if let Some(failure) = first.truth.failures.first() {
        let tail = first.log.lines();
        let tail = tail[tail.len().saturating_sub(12)..].join("\n");
        return Err(format!("{failure}\n{tail}"));
    }
    let second = catch_unwind(AssertUnwindSafe(|| run_seed(seed, Keep::Hash)))
        .map_err(|_| "panic in the second run".to_owned())?;
    if first.log.hash() != second.log.hash() {
        let (one, two) = (run_seed(seed, Keep::Lines), run_seed(seed, Keep::Lines));
        let differs = one.log.lines().into_iter().zip(two.log.lines()).find(|(a, b)| a != b);
        return Err(format!("two runs differ, first here:\n{differs:#?}"));
    }
    Ok(first.truth.coverage)
}

#[test]
fn seeds() {
    if let Some(seed) = variable("HOLDFAST_SEED").and_then(|seed| seed.parse().ok()) {
        let keep = if variable("HOLDFAST_TRACE").is_some() { Keep::Print } else { Keep::Hash };
        let world = run_seed(seed, keep);
        println!("seed {seed}: {:?} {:#?}", world.truth.coverage, world.truth.failures);
        assert!(world.truth.failures.is_empty(), "seed {seed} failed");
        return;
    }
    let range = variable("HOLDFAST_SEEDS").map_or(SEEDS, |text| {
        let (low, high) = text.split_once("..").unwrap_or(("0", &text));
        low.parse().unwrap_or(0)..high.parse().unwrap_or(0)
    });
    let threads = variable("HOLDFAST_THREADS").and_then(|n| n.parse().ok()).unwrap_or(1);
    let failures = Mutex::new(Vec::new());
    let coverage = Mutex::new(BTreeMap::new());
    let next = AtomicU64::new(range.start);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end {
                        return;
                    }
                    let outcome = check_seed(seed);
                    let done = seed + 1 - range.start;
                    if done.is_multiple_of(1000) {
                        println!("{done} seeds in {:.1?}", began.elapsed());
                    }
                    match outcome {
                        Ok(covered) => {
                            let Ok(mut coverage) = coverage.lock() else { return };
                            for (what, count) in covered {
                                *coverage.entry(what).or_insert(0) += count;
                            }
                        }
                        Err(reason) => {
                            println!(
                                "seed {seed} FAILED: {reason}\nrepeat: HOLDFAST_SEED={seed} \
                                 HOLDFAST_TRACE=1 cargo test --no-default-features --test sim -- \
                                 seeds --nocapture\n"
                            );
                            let Ok(mut failures) = failures.lock() else { return };
                            failures.push(seed);
                            if failures.len() >= 20 {
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    let coverage = coverage.into_inner().unwrap_or_default();
    for (what, count) in &coverage {
        println!("{count:>9} {what}");
    }
    println!("seeds {range:?} in {:.1?}, failed: {failures:?}", began.elapsed());
    assert!(failures.is_empty(), "failed seeds: {failures:?}");
    if range == SEEDS {
        // A swarm that no longer reaches these proves nothing about them.
        for what in REACHED {
            assert!(coverage.contains_key(what), "never happened: {what}");
        }
    }
}

#[test]
fn peers_understand_each_other_without_a_server() {
    let mut established = 0;
    for seed in 0..20 {
        let weather = Weather { latency: [1_000, 30_000], jitter: 10_000, splits: 300 };
        let keep = if variable("HOLDFAST_TRACE").is_some() { Keep::Print } else { Keep::Hash };
        let mut world = World::new(seed, weather, keep);
        world.truth.direct = true;
        let (a, b) = (swarm::peer_addr(0), swarm::peer_addr(1));
        world.add_peer(Peer::new(0, "1000".to_owned(), a, b));
        world.add_peer(Peer::new(1, "1001".to_owned(), b, a));
        swarm::draw_direct(&mut world, seed);
        scenario::play(&mut world);
        assert_eq!(world.truth.failures, Vec::<String>::new(), "seed {seed}");
        established += world.truth.coverage.get("call established").copied().unwrap_or(0);
    }
    assert!(established > 20, "{established} calls");
}
