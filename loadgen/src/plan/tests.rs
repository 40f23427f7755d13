//! Plans: texts, figures of chance, the same seed twice.

mod faults;
mod knees;
mod profiles;

use proptest::prelude::*;

use super::*;

fn profile(text: &str) -> Profile {
    Profile::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn fault(text: &str) -> Fault {
    Fault::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn streams_of_one_seed_are_independent_and_repeat() {
    let first = |purpose| Random::new(7, purpose).number();
    let purposes =
        [Purpose::Arrivals, Purpose::Strikes(0), Purpose::Strikes(1), Purpose::Programs(0)];
    let mut drawn = purposes.map(first);
    assert_eq!(drawn, purposes.map(first));
    drawn.sort_unstable();
    assert!(drawn.windows(2).all(|pair| pair[0] != pair[1]));
    assert_ne!(first(Purpose::Arrivals), Random::new(8, Purpose::Arrivals).number());
}

#[test]
fn draws_have_the_moments_of_their_distributions() {
    const DRAWS: u32 = 200_000;
    let mut random = Random::new(1, Purpose::Programs(0));
    let moments = |mut draw: Box<dyn FnMut() -> f64>| {
        let all: Vec<f64> = (0..DRAWS).map(|_| draw()).collect();
        let mean = all.iter().sum::<f64>() / f64::from(DRAWS);
        let square = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        (mean, square / f64::from(DRAWS))
    };
    let mut other = random.clone();
    let (mean, variance) = moments(Box::new(move || other.exponential()));
    assert!((mean - 1.0).abs() < 0.01 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    let mut other = random.clone();
    let (mean, variance) = moments(Box::new(move || other.normal()));
    assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    let mut counts = [0u32; 10];
    for _ in 0..DRAWS {
        counts[random.below(10) as usize] += 1;
    }
    assert!(counts.iter().all(|count| count.abs_diff(DRAWS / 10) < DRAWS / 200), "{counts:?}");
    assert_eq!(random.below(0), 0);
}

/// Words that the texts are made of, in any order, among others.
fn words() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "constant",
        "ramp",
        "step",
        "spike",
        "soak",
        "knee",
        "closed",
        "then",
        "for",
        "to",
        "over",
        "by",
        "every",
        "at",
        "in",
        "each",
        "on",
        "of",
        "callees",
        "callers",
        "all",
        "away",
        "times",
        "50%",
        "reset",
        "unavailable",
        "503",
        "with",
        "error-info",
        "retry-after",
        "slow-reader",
        "slow-writer",
        "kernel-delay",
        "1000",
        "B/s",
        "B",
        "5/s",
        "0/s",
        "1000000/s",
        "1e9/s",
        "5s",
        "0s",
        "7d",
        "8d",
        "100ms",
        "1us",
        "3",
        ",",
        "0",
        "-1",
        "NaN",
        "inf/s",
        "99999999999999999999s",
        "9999999/min",
        "%",
        "100.0001%",
        "0.00001%",
        "4294967296",
    ]);
    let any = "\\PC{0,12}";
    prop::collection::vec(prop_oneof![8 => known.prop_map(str::to_owned), 1 => any], 0..16)
        .prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn no_text_panics_a_parser(text in words(), any in "\\PC*") {
        for text in [&text, &any] {
            if let Ok(profile) = Profile::parse(text) {
                prop_assert!(profile.expected().is_finite() && profile.peak().is_finite());
                let arrivals = profile.arrivals(1, Spacing::Poisson).take(200);
                prop_assert!(arrivals.into_iter().all(|at| at <= profile.duration()));
                let again = Profile::parse(&profile.to_string());
                prop_assert_eq!(again.as_ref(), Ok(&profile));
            }
            if let Ok(fault) = Fault::parse(text) {
                let strikes = fault.strikes(1, 20, 10);
                prop_assert!(strikes.is_err() || strikes.is_ok_and(|all| !all.is_empty()));
                prop_assert_eq!(Fault::parse(&fault.to_string()), Ok(fault));
            }
        }
    }
}
