//! Profiles: integrals, spacing, drift, shares.

use std::time::Duration;

use super::profile;
use crate::plan::*;

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn even(profile: &Profile) -> Vec<Duration> {
    profile.arrivals(0, Spacing::Even).collect()
}

#[test]
fn the_integral_of_every_shape_is_exact() {
    for (text, duration, expected, peak) in [
        ("constant 500/s for 30s", 30.0, 15_000.0, 500.0),
        ("soak 300/s for 8h", 28_800.0, 8_640_000.0, 300.0),
        ("ramp 100/s to 2000/s over 60s", 60.0, 63_000.0, 2000.0),
        ("ramp 2000/s to 0/s over 1m", 60.0, 60_000.0, 2000.0),
        ("step 100/s by 100/s every 10s to 1000/s", 100.0, 55_000.0, 1000.0),
        ("step 30/min by 6/min every 10s to 18/min", 30.0, 12.0, 0.5),
        ("step 0.1/s by 0.1/s every 10s to 0.3/s", 30.0, 6.0, 0.3),
        ("spike 200/s to 3000/s at 20s for 5s, in 60s", 60.0, 26_000.0, 3000.0),
        (
            "constant 10/s for 1s then ramp 10/s to 30/s over 1s then constant 0/s for 2s",
            4.0,
            30.0,
            30.0,
        ),
    ] {
        let profile = profile(text);
        assert_eq!(profile.duration(), secs(duration), "{text}");
        assert!((profile.expected() - expected).abs() < 1e-6, "{text}: {}", profile.expected());
        assert!((profile.peak() - peak).abs() < 1e-9, "{text}");
        let arrivals = even(&profile);
        assert_eq!(arrivals.len(), expected.round() as usize, "{text}");
        assert!(arrivals.is_sorted() && arrivals.iter().all(|at| *at < profile.duration()));
    }
}

#[test]
fn even_arrivals_are_where_the_integral_says() {
    let profile =
        profile("constant 10/s for 1s then constant 0/s for 2s then ramp 0/s to 8/s over 2s");
    let arrivals = even(&profile);
    assert_eq!(arrivals.len(), 18);
    assert_eq!((arrivals[0], arrivals[9]), (secs(0.0), secs(0.9)));
    // 2·t² = n from the start of the ramp on; the pause has none.
    for n in 0..8 {
        let at = 3.0 + (f64::from(n) / 2.0).sqrt();
        assert!((arrivals[10 + n as usize].as_secs_f64() - at).abs() < 2e-9, "{n}");
    }
    assert_eq!(profile.rate(secs(0.5)), 10.0);
    assert_eq!(profile.rate(secs(4.0)), 4.0);
    assert_eq!((profile.rate(secs(2.0)), profile.rate(secs(6.0))), (0.0, 0.0));
}

#[test]
fn the_last_arrival_of_a_soak_is_as_exact_as_the_first() {
    // 288 million arrivals: the share of a late one is reached by a jump.
    let profile = profile("soak 9999.7/s for 8h");
    for number in [1u32, 1000, 287_990_000] {
        let at = profile.arrivals(0, Spacing::Even).share(number, 1).next().unwrap();
        let exact = f64::from(number) / 9999.7;
        assert!((at.as_secs_f64() - exact).abs() < 5e-9, "{number}: {at:?}");
    }
}

#[test]
fn gaps_of_a_poisson_process_have_its_mean_and_variance() {
    for seed in 0..5 {
        let profile = profile("constant 1000/s for 100s");
        let all: Vec<_> = profile.arrivals(seed, Spacing::Poisson).collect();
        // 100,000 expected, deviation 316.
        assert!(all.len().abs_diff(100_000) < 1300, "{}", all.len());
        let gaps: Vec<f64> = all.windows(2).map(|two| (two[1] - two[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let square = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>();
        let variance = square / gaps.len() as f64;
        assert!((mean * 1e3 - 1.0).abs() < 0.015, "{mean}");
        assert!((variance * 1e6 - 1.0).abs() < 0.04, "{variance}");
        // Counts in tenths of a second: their variance is their mean.
        let mut counts = [0f64; 1000];
        for at in &all {
            counts[(at.as_secs_f64() * 10.0) as usize] += 1.0;
        }
        let mean = counts.iter().sum::<f64>() / 1000.0;
        let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / 1000.0;
        assert!((variance / mean - 1.0).abs() < 0.2, "{variance} {mean}");
    }
}

#[test]
fn a_poisson_ramp_follows_its_rate() {
    let profile = profile("ramp 0/s to 2000/s over 20s");
    let all: Vec<_> = profile.arrivals(3, Spacing::Poisson).collect();
    assert!(all.is_sorted());
    let first_half = all.iter().filter(|at| at.as_secs() < 10).count();
    // A quarter of the calls comes in the first half: 5000, deviation 71.
    assert!(first_half.abs_diff(5000) < 300, "{first_half}");
}

#[test]
fn the_same_seed_gives_the_same_instants_and_another_others() {
    let profile = profile("step 50/s by 50/s every 2s to 200/s");
    let of = |seed| profile.arrivals(seed, Spacing::Poisson).collect::<Vec<_>>();
    assert_eq!(of(9), of(9));
    assert_ne!(of(9), of(10));
    assert_eq!(even(&profile), even(&profile));
}

#[test]
fn the_parts_of_the_workers_are_the_whole() {
    let profile = profile("ramp 10/s to 500/s over 5s then constant 77/s for 2s");
    for spacing in [Spacing::Even, Spacing::Poisson] {
        let whole: Vec<_> = profile.arrivals(4, spacing).collect();
        for workers in [1, 2, 3, 7] {
            for worker in 0..workers {
                let part = profile.arrivals(4, spacing).share(worker, workers);
                let every = whole.iter().skip(worker as usize).step_by(workers as usize);
                assert!(part.eq(every.copied()), "{spacing:?} {worker} of {workers}");
            }
        }
    }
}

#[test]
fn closed_loops_and_knees_have_no_arrivals() {
    let closed = profile("closed 64 for 10s");
    assert_eq!(closed.load(), Load::Closed { in_flight: 64 });
    assert_eq!((closed.duration(), closed.expected(), closed.peak()), (secs(10.0), 0.0, 0.0));
    let knee = profile("knee 100/s to 20000/s, each 10s");
    let sweep = Sweep { from: 100.0, to: 20_000.0, each: secs(10.0) };
    assert_eq!((knee.load(), knee.peak()), (Load::Knee(sweep), 20_000.0));
    for profile in [closed, knee] {
        assert_eq!(even(&profile).len(), 0);
    }
    assert_eq!(even(&Profile::constant(20.0, secs(1.5))).len(), 30);
    assert_eq!(even(&Profile::constant(f64::NAN, secs(1.5))).len(), 0);
}

#[test]
fn a_refusal_says_what_is_allowed() {
    for (text, words) in [
        ("", "allowed are constant|ends where a profile (constant"),
        ("wave 5/s for 3s", "`wave` is no profile: allowed are constant, ramp"),
        (
            "constant 500 for 30s",
            "`500` is no rate: a number with /s, /min or /h, from 0/s to 1000000/s",
        ),
        ("constant 1000001/s for 30s", "from 0/s to 1000000/s"),
        ("constant -1/s for 30s", "no rate"),
        ("constant 5/s for 30", "`30` is no time: a time is a number with us, ms, s, m, h or d"),
        ("constant 5/s for 8d", "from 0s to 7d"),
        ("constant 5/s for 0s", "above 0s is allowed"),
        ("constant 5/s 30s", "`30s` stands where `for` is expected"),
        ("constant 5/s for", "ends where a time such as 30s is expected"),
        ("constant 5/s for 3s and", "`and` stands where `then` or the end is expected"),
        ("constant 0/s for 3s", "no call at all"),
        ("constant 5/s for 4d then constant 5/s for 4d", "longer than seven days"),
        ("step 1/s by 0/s every 1s to 5/s", "lead nowhere"),
        ("step 1/s by 0.0001/s every 1s to 5/s", "at most 10000 are allowed"),
        (
            "spike 1/s to 5/s at 10s for 5s in 12s",
            "the spike ends at 15 s, after the whole of 12 s",
        ),
        ("knee 5/s to 1/s each 1s", "rising rates above 0/s are allowed"),
        ("constant 1/s for 1s then knee 5/s to 9/s each 1s", "`knee` stands alone"),
        ("closed 0 for 1s", "no number of calls in flight: 1 to 1000000"),
        ("closed 5 for 1s then closed 5 for 1s", "`closed` stands alone"),
    ] {
        let error = Profile::parse(text).expect_err(text);
        assert!(words.split('|').any(|words| error.contains(words)), "{text}: {error}");
    }
    let long = vec!["constant 1/s for 1s"; SEGMENTS_MAX + 1].join(" then ");
    assert!(Profile::parse(&long).is_err_and(|error| error.contains("more than 100 parts")));
}
