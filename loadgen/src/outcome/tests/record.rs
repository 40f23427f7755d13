//! What is recorded is what comes out, however many workers there were.

use std::time::Duration;

use super::sample::{CALLS, Numbers, about, outcome, recorder};
use crate::outcome::*;

const INTERVAL: Duration = Duration::from_millis(100);

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn near(found: f64, sample: f64) {
    assert!((found - sample).abs() <= sample * 0.001 + 0.001, "{found} for {sample}");
}

#[test]
fn percentiles_are_those_of_the_samples_within_a_thousandth() {
    let mut timing = Timing::new();
    // In another order than that of their size.
    for n in 0..1000 {
        timing.record(Duration::from_micros((n * 7 % 1000 + 1) * 500));
    }
    for (quantile, sample) in [(0.5, 250.0), (0.9, 450.0), (0.99, 495.0), (1.0, 500.0)] {
        near(timing.quantile_ms(quantile), sample);
    }
    near(timing.min_ms(), 0.5);
    near(timing.mean_ms(), 250.25);
    assert_eq!(timing.count_within(ms(250)), 500);
}

#[test]
fn a_time_above_the_limit_counts_as_the_limit() {
    let mut timing = Timing::new();
    timing.record(Duration::MAX);
    near(timing.max_ms(), 120_000.0);
    assert_eq!(Timing::new().quantile_ms(0.99), 0.0, "nothing is no time");
}

#[test]
fn latency_counts_from_the_intended_instant_and_uncorrected_from_the_sending() {
    let mut recorder = Recorder::new(INTERVAL);
    let invite = recorder.latency("invite");
    recorder.response(invite, ms(10), ms(25), ms(40));
    let outcome = recorder.into_outcome(about(), &[]);
    let response = &outcome.response["invite"];
    near(response.corrected.max_ms(), 30.0);
    near(response.uncorrected.max_ms(), 15.0);
}

#[test]
fn two_workers_make_the_same_outcome_as_one() {
    // The same samples, recorded by one worker and by two that take turns.
    let names = ["invite", "bye"];
    let mut whole = Recorder::new(INTERVAL);
    let mut parts = [Recorder::new(INTERVAL), Recorder::new(INTERVAL)];
    let mut numbers = Numbers::new(3);
    for n in 0..2000_u64 {
        let at = ms(n);
        let intended = at.saturating_sub(numbers.exponential(900.0));
        for recorder in [&mut whole, &mut parts[n as usize % 2]] {
            let name = recorder.latency(names[n as usize % 3 % 2]);
            recorder.started(at, at + Duration::from_micros(n));
            recorder.response(name, intended, at, at);
            recorder.connect(at);
            recorder.count("sent", 2);
            recorder.endangered(at);
            recorder.recovered(&sample_at(at, n));
            recorder.call_done(if n % 5 == 0 { End::Failed("486") } else { End::Kept }, at);
        }
    }
    let [mut first, second] = parts;
    first.merge(second);
    let about = about();
    let whole = whole.into_outcome(about.clone(), &[]);
    let mut merged = first.into_outcome(about, &[]);
    assert_eq!(merged.generator.workers, 2);
    merged.generator.workers = 1;
    assert_eq!(merged, whole);
}

fn sample_at(at: Duration, n: u64) -> RecoverySample {
    RecoverySample {
        fault_at: at,
        detected_at: Some(at + ms(1)),
        first_attempt_at: Some(at + ms(500)),
        attempts: (n % 3) as u32,
        answered_at: (!n.is_multiple_of(7)).then_some(at + ms(502)),
        acked_at: None,
        delay: ms(500),
        fate: if n.is_multiple_of(7) { Fate::Unknown } else { Fate::Safe },
    }
}

#[test]
fn the_recovery_curve_ends_at_the_share_of_calls_that_are_safe() {
    let outcome = outcome(1.0, &[]);
    let recovery = outcome.recovery.unwrap();
    assert_eq!((recovery.endangered, recovery.safe, recovery.lost), (10_000, 9_996, 4));
    let curve = recovery.curve();
    assert_eq!(curve[0], (0.0, 0.0));
    assert!(curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
    assert_eq!(curve.last().unwrap().1, 0.9996);
    let attempts: u64 = recovery.attempts.iter().sum();
    assert_eq!(attempts, recovery.endangered);
    near(recovery.delay_ms, 500.0);
    near(recovery.first_fault_ms.unwrap(), 8000.0);
}

#[test]
fn excess_is_the_time_of_the_answer_beyond_the_delay() {
    let mut recovery = Recovery::default();
    let sample = sample_at(ms(100), 1);
    recovery.record(&sample);
    // An answer before the delay has passed is no negative excess.
    recovery.record(&RecoverySample { answered_at: Some(ms(150)), ..sample });
    near(recovery.excess.max_ms(), 2.0);
    assert_eq!(recovery.excess.min_ms(), 0.0);
}

#[test]
fn a_call_whose_danger_nobody_ended_is_unknown() {
    let mut recorder = Recorder::new(INTERVAL);
    recorder.endangered(ms(5));
    recorder.endangered(ms(5));
    recorder.recovered(&sample_at(ms(5), 1));
    let recovery = recorder.into_outcome(about(), &[]).recovery.unwrap();
    assert_eq!((recovery.endangered, recovery.safe, recovery.unknown), (2, 1, 1));
    assert_eq!(recovery.curve().last().unwrap().1, 0.5);
}

#[test]
fn calls_of_the_intervals_are_all_calls() {
    let outcome = outcome(1.0, &[]);
    let sum = |of: fn(&Interval) -> u64| outcome.series.intervals.iter().map(of).sum::<u64>();
    let all = u64::from(CALLS);
    assert_eq!(outcome.calls.started, all);
    assert_eq!(sum(|i| i.started), all);
    assert_eq!(sum(|i| i.intended), all);
    assert_eq!(sum(|i| i.done), all);
    assert_eq!(sum(|i| i.failed), 4);
    assert_eq!(sum(|i| i.endangered), all);
    assert_eq!(sum(|i| i.recovered), 9_996);
    assert_eq!(sum(|i| i.response.count), 3 * all, "INVITE, re-INVITE and BYE of each");
    let standing = &outcome.series.intervals[60];
    assert_eq!(standing.in_flight, all, "an interval without an event has calls in flight");
    assert_eq!(outcome.series.intervals.last().unwrap().in_flight, 0);
}

#[test]
fn a_run_of_many_intervals_has_fewer_and_longer_ones() {
    let mut recorder = Recorder::new(INTERVAL);
    let name = recorder.latency("options");
    for second in 0..2000_u64 {
        let at = Duration::from_secs(second);
        recorder.started(at, at);
        recorder.response(name, at, at, at + ms(1));
        recorder.call_done(End::Kept, at + ms(1));
    }
    let outcome = recorder.into_outcome(about(), &[]);
    assert!(outcome.series.intervals.len() <= 3600);
    assert_eq!(outcome.series.interval_ms, 800);
    let count = |of: fn(&Interval) -> u64| outcome.series.intervals.iter().map(of).sum::<u64>();
    assert_eq!((count(|i| i.done), count(|i| i.response.count)), (2000, 2000));
}

#[test]
fn names_without_end_do_not_take_memory_without_end() {
    let mut recorder = Recorder::new(INTERVAL);
    for n in 0..1000 {
        let name = recorder.latency(&format!("mark {n}"));
        recorder.response(name, ms(1), ms(1), ms(2));
        recorder.started(ms(1), ms(1));
        recorder.call_done(End::Failed(&format!("reason {n}")), ms(2));
    }
    let outcome = recorder.into_outcome(about(), &[]);
    assert_eq!(outcome.response.len(), 64);
    let samples: u64 = outcome.response.values().map(|r| r.corrected.count()).sum();
    assert_eq!(samples, 1000);
    assert_eq!(outcome.calls.failures.len(), 257, "256 reasons and `other`");
    assert_eq!(outcome.calls.failures["other"], 744);
}

#[test]
fn what_came_before_the_measured_time_is_forgotten() {
    let mut recorder = Recorder::new(INTERVAL);
    let name = recorder.latency("invite");
    recorder.started(ms(0), ms(0));
    recorder.response(name, ms(0), ms(0), ms(90));
    recorder.begin_measuring();
    recorder.response(name, ms(200), ms(200), ms(201));
    recorder.call_done(End::Kept, ms(300));
    let outcome = recorder.into_outcome(about(), &[]);
    near(outcome.response["invite"].corrected.max_ms(), 1.0);
    assert_eq!((outcome.calls.started, outcome.calls.kept), (0, 1));
}

#[test]
fn workers_tell_each_interval_once_and_the_sum_is_the_run() {
    let mut gather = Gather::new(2);
    let mut lines = Vec::new();
    let mut recorders = [Recorder::new(INTERVAL), Recorder::new(INTERVAL)];
    for n in 0..1050_u64 {
        let worker = n as usize % 2;
        let recorder = &mut recorders[worker];
        recorder.started(ms(n), ms(n));
        if let Some(progress) = recorder.tick(ms(n), ms(n / 4)) {
            lines.extend(gather.news(worker, progress));
        }
    }
    let starts: Vec<u64> = lines.iter().map(|line| line.at_ms).collect();
    assert_eq!(starts, (0..10).map(|n| n * 100).collect::<Vec<_>>());
    assert!(lines.iter().all(|line| line.interval.started == 100));
    assert!(lines.iter().all(|line| line.interval.busy > 0.2 && line.interval.busy < 0.3));
    // Worker 0 was told of up to 1,000 ms, worker 1 too; what is left of a worker that ended
    // does not wait for it.
    assert!(gather.ended(0, INTERVAL).is_empty());
    let progress = recorders[1].tick(ms(1100), ms(300)).unwrap();
    let rest = gather.news(1, progress);
    assert_eq!(
        rest.iter().map(|line| (line.at_ms, line.interval.started)).collect::<Vec<_>>(),
        [(1000, 25)]
    );
    let line: serde_json::Value = serde_json::from_str(&lines[9].to_json_line()).unwrap();
    assert_eq!(line["kind"], "interval");
    assert_eq!(line["at_ms"], 900);
}

/// The verdict of a run that `change` spoils.
fn verdict(change: impl FnOnce(&mut Recorder)) -> (Verdict, Vec<String>) {
    let mut all = recorder(0, 1, 1.0);
    change(&mut all);
    let outcome = all.into_outcome(about(), &[]);
    (outcome.verdict, outcome.reasons)
}

#[test]
fn a_generator_that_is_too_slow_is_told_of_before_goals_and_calls() {
    assert_eq!(verdict(|_| ()).0, Verdict::Pass);
    let (late, reasons) = verdict(|recorder| {
        for n in 0..200 {
            recorder.started(ms(100), ms(100 + n));
        }
    });
    assert_eq!(late, Verdict::GeneratorLimited, "{reasons:?}");
    assert!(reasons[0].contains("limit of 10 ms"), "{reasons:?}");
    let (missed, reasons) = verdict(|recorder| recorder.missed_slots(11, ms(100)));
    assert_eq!(missed, Verdict::GeneratorLimited);
    assert!(reasons[0].contains("11 of 10011"), "{reasons:?}");
    assert_eq!(verdict(|recorder| recorder.missed_slots(10, ms(100))).0, Verdict::Pass);
}

/// The verdict of a run of `all` intervals, of which the first `busy` are spent in whole.
fn verdict_of_busy(busy: u64, all: u64) -> (Verdict, Vec<String>) {
    let mut recorder = Recorder::new(INTERVAL);
    for n in 1..=all {
        let _ = recorder.tick(ms(n * 100), ms(n.min(busy) * 90));
    }
    let outcome = recorder.into_outcome(about(), &[]);
    (outcome.verdict, outcome.reasons)
}

#[test]
fn a_busy_core_limits_and_a_short_burst_does_not() {
    assert_eq!(verdict_of_busy(3, 10).0, Verdict::Pass, "three are a burst");
    let (limited, reasons) = verdict_of_busy(4, 10);
    assert_eq!(limited, Verdict::GeneratorLimited);
    assert!(reasons[0].contains("85 %"), "{reasons:?}");
    assert_eq!(verdict_of_busy(5, 110).0, Verdict::Pass, "less than one in twenty");
    assert_eq!(verdict_of_busy(7, 110).0, Verdict::GeneratorLimited);
}

#[test]
fn a_worker_that_was_busy_for_long_was_busy_in_all_those_intervals() {
    let mut recorder = Recorder::new(INTERVAL);
    let _ = recorder.tick(ms(1000), ms(0));
    // It came to its next tick only after a second, all of it spent.
    let progress = recorder.tick(ms(2000), ms(1000)).unwrap();
    assert_eq!(progress.intervals.len(), 10);
    assert!(progress.intervals.iter().all(|(_, interval)| interval.busy == 1.0));
    let outcome = recorder.into_outcome(about(), &[]);
    near(outcome.generator.cpu_seconds, 1.0);
    assert_eq!(outcome.generator.busy_intervals, 10);
}

#[test]
fn what_the_set_up_used_is_in_no_figure() {
    let mut recorder = Recorder::new(INTERVAL);
    recorder.count_cpu_from(ms(3000));
    let progress = recorder.tick(ms(100), ms(3050)).unwrap();
    near(progress.intervals[0].1.busy, 0.5);
    near(recorder.into_outcome(about(), &[]).generator.cpu_seconds, 0.05);
}

#[test]
fn violations_and_complaints_fail_a_run() {
    let mut with = about();
    with.violations.counts.insert("branch_not_new".into(), 2);
    with.failures.push("the server ended by itself".into());
    let outcome = recorder(0, 1, 1.0).into_outcome(with, &[]);
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert_eq!(outcome.reasons.len(), 2, "{:?}", outcome.reasons);
    assert_eq!(
        [Verdict::Pass, Verdict::Fail, Verdict::GeneratorLimited].map(Verdict::status),
        [0, 1, 3]
    );
}

#[test]
fn a_broken_rule_fails_a_run_however_slow_the_generator_was() {
    let slow = || {
        let mut recorder = recorder(0, 1, 1.0);
        recorder.missed_slots(500, ms(100));
        recorder
    };
    let mut with = about();
    with.failures.push("3 calls were lost".into());
    assert_eq!(slow().into_outcome(with, &[]).verdict, Verdict::GeneratorLimited);
    let mut with = about();
    with.violations.counts.insert("branch_not_new".into(), 2);
    assert_eq!(slow().into_outcome(with, &[]).verdict, Verdict::Fail);
    // And where the server's events show it, after the end.
    let mut outcome = slow().into_outcome(about(), &[]);
    outcome.fail(vec!["the server ended by itself".into()], &Violations::default());
    assert_eq!(outcome.verdict, Verdict::GeneratorLimited);
    let counts = [("event_missing".to_owned(), 1)].into();
    outcome.fail(Vec::new(), &Violations { counts, ..Violations::default() });
    assert_eq!(outcome.verdict, Verdict::Fail);
}
