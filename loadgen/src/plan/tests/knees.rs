//! The search for the knee, against servers made up.

use std::time::Duration;

use crate::plan::*;

fn sweep(from: f64, to: f64) -> Sweep {
    Sweep { from, to, each: Duration::from_secs(1) }
}

fn seek(mut knee: Knee, mut holds: impl FnMut(f64) -> bool) -> Found {
    let mut last = None;
    while let Some(rate) = knee.next_rate(last) {
        last = Some((rate, holds(rate)));
    }
    knee.found()
}

#[test]
fn a_monotonic_server_is_bracketed_to_the_precision() {
    for limit in [101.0, 999.0, 1234.5, 7000.0, 19_999.0] {
        for precision in [0.05, 0.01] {
            let knee = Knee::new(sweep(100.0, 20_000.0)).with_precision(precision);
            let found = seek(knee, |rate| rate <= limit);
            let (low, high) = (found.holds.unwrap(), found.fails.unwrap());
            assert!(low <= limit && limit < high, "{limit}: {low} {high}");
            assert!(high - low <= low * precision, "{low} {high}");
            assert!(found.settled && !found.not_monotonic);
            assert!(found.tries.len() < 30, "{}", found.tries.len());
        }
    }
}

#[test]
fn a_server_that_always_holds_is_tried_at_the_highest_rate_twice() {
    let found = seek(Knee::new(sweep(100.0, 1000.0)), |_| true);
    assert_eq!((found.holds, found.fails, found.settled), (Some(1000.0), None, true));
    let rates: Vec<_> = found.tries.iter().map(|(rate, _)| *rate).collect();
    assert_eq!(rates, [100.0, 200.0, 400.0, 800.0, 1000.0, 1000.0]);
    assert_eq!(found.to_string(), "1000.0/s held, and nothing higher was tried");
}

#[test]
fn a_server_that_never_holds_is_tried_once() {
    let found = seek(Knee::new(sweep(100.0, 1000.0)), |_| false);
    assert_eq!((found.holds, found.fails, found.settled), (None, Some(100.0), true));
    assert_eq!(found.tries.len(), 1);
    assert_eq!(found.to_string(), "no rate held: 100.0/s failed already");
}

#[test]
fn a_noisy_server_ends_the_search_and_the_doubt_is_said() {
    let mut doubted = 0;
    for seed in 0..50 {
        let mut random = Random::new(seed, Purpose::Programs(0));
        // Between 800 and 1200 a toss-up.
        let found = seek(Knee::new(sweep(50.0, 20_000.0)).with_precision(0.01), |rate| {
            rate < 800.0 || (rate < 1200.0 && random.unit() < 0.5)
        });
        assert!(found.tries.len() <= TRIES_MAX);
        let low = found.holds.unwrap();
        assert!((700.0..=1200.0).contains(&low), "{low}");
        let lowest_failed = found.fails.unwrap();
        assert!(low < lowest_failed);
        doubted += u32::from(found.not_monotonic);
    }
    assert!((5..45).contains(&doubted), "{doubted}");
}

#[test]
fn a_rate_that_fails_the_second_time_is_not_the_knee() {
    let mut seen = Vec::new();
    let found = seek(Knee::new(sweep(100.0, 400.0)), |rate| {
        seen.push(rate);
        rate < 300.0 || seen.iter().filter(|tried| **tried == rate).count() == 1
    });
    assert!(found.not_monotonic);
    assert!(found.holds.is_some_and(|rate| rate < 300.0), "{found:?}");
    assert!(found.to_string().contains("not monotonic"));
}

#[test]
fn an_unfinished_search_says_so() {
    let mut knee = Knee::new(sweep(100.0, 1000.0));
    assert_eq!(knee.next_rate(None), Some(100.0));
    assert_eq!(knee.next_rate(Some((100.0, true))), Some(200.0));
    let found = knee.found();
    assert!(!found.settled && found.holds == Some(100.0));
    assert!(found.to_string().contains("not finished"));
}
