//! Faults: texts, shares, rolling, flapping, overlaps.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fault;
use crate::plan::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn parties(strikes: &[Strike]) -> BTreeSet<u32> {
    strikes.iter().map(|strike| strike.party).collect()
}

#[test]
fn one_wave_strikes_its_share_at_once() {
    let one = fault("at 10s reset on 50% of callees, away 1800ms");
    let strikes = one.strikes(1, 100, 10).unwrap();
    assert_eq!((strikes.len(), parties(&strikes).len()), (50, 50));
    for strike in &strikes {
        assert_eq!((strike.at, strike.until), (ms(10_000), Some(ms(11_800))));
        assert_eq!((strike.side, &strike.what), (Side::Callee, &What::Reset));
        assert!(strike.party < 100);
    }
    assert_eq!(one.strikes(1, 100, 10), one.strikes(1, 100, 10));
    let other = one.strikes(2, 100, 10).unwrap();
    assert_ne!(parties(&strikes), parties(&other));
}

#[test]
fn a_share_is_by_per_cent_or_by_count_and_one_at_least() {
    for (share, of_100, of_3) in [
        ("50%", 50, 2),
        ("all", 100, 3),
        ("1%", 1, 1),
        ("0.001%", 1, 1),
        ("2", 2, 2),
        ("12.5%", 13, 1),
    ] {
        let fault = fault(&format!("at 0s fin on {share} callers"));
        let count = |callers| fault.strikes(1, 0, callers).unwrap().len();
        assert_eq!((count(100), count(3)), (of_100, of_3), "{share}");
        assert!(fault.strikes(1, 0, 100).unwrap().iter().all(|one| one.side == Side::Caller));
    }
    let error = fault("at 0s fin on 4 callees").strikes(1, 3, 100).unwrap_err();
    assert!(error.contains("4 callees, of 3 that there are"), "{error}");
    assert_eq!(fault("at 0s fin on all callees").strikes(1, 0, 0), Ok(Vec::new()));
}

#[test]
fn a_rolling_fault_goes_from_one_to_the_next() {
    let strikes = fault("at 1s fin on all callees, over 2s").strikes(5, 4, 0).unwrap();
    let instants: Vec<_> = strikes.iter().map(|strike| strike.at).collect();
    assert_eq!(instants, [ms(1000), ms(1500), ms(2000), ms(2500)]);
    assert_eq!(parties(&strikes).len(), 4);
    assert!(strikes.iter().all(|strike| strike.until.is_none()));
}

#[test]
fn a_flapping_fault_strikes_the_same_parties_again() {
    let text = "at 1s blackhole on 2 callees, over 1s, away 300ms, every 5s, 3 times";
    let strikes = fault(text).strikes(5, 10, 0).unwrap();
    assert_eq!((strikes.len(), parties(&strikes).len()), (6, 2));
    let instants: Vec<_> = strikes.iter().map(|strike| strike.at).collect();
    let expected = [1000, 1500, 6000, 6500, 11_000, 11_500].map(ms);
    assert_eq!(instants, expected);
    for pair in strikes.chunks(2).collect::<Vec<_>>().windows(2) {
        assert_eq!(pair[0][0].party, pair[1][0].party);
    }
    assert!(strikes.iter().all(|strike| strike.until == Some(strike.at + ms(300))));
}

#[test]
fn every_kind_is_read_with_its_figures() {
    let kind = |text: &str| fault(&format!("at 1s {text} on all callees")).what;
    let unavailable = |error_info, retry_after| What::Unavailable { error_info, retry_after };
    for (text, what) in [
        ("reset", What::Reset),
        ("fin", What::Fin),
        ("half-close", What::HalfClose),
        ("refuse", What::Refuse),
        ("accept-then-close", What::AcceptThenClose),
        ("blackhole", What::Blackhole),
        ("stop-reading", What::StopReading),
        ("slow-reader 1000 B/s", What::SlowReader { bytes_per_second: 1000 }),
        ("slow-reader 50B/s", What::SlowReader { bytes_per_second: 50 }),
        ("slow-writer", What::SlowWriter { gap: ms(10) }),
        ("slow-writer 2ms", What::SlowWriter { gap: ms(2) }),
        ("cut-inside", What::CutInside),
        ("tls-alert", What::TlsAlert),
        ("handshake-stall", What::HandshakeStall),
        ("other-port", What::OtherPort),
        ("unavailable 503", unavailable(false, None)),
        ("unavailable 503 with error-info", unavailable(true, None)),
        ("unavailable with retry-after 2", unavailable(false, Some(2))),
        ("unavailable 503 with error-info and retry-after 2s", unavailable(true, Some(2))),
        ("430", What::FlowFailed430),
        ("477", What::Status477),
        ("late-on-new-connection", What::LateOnNewConnection),
        ("duplicate", What::Duplicate),
        ("kernel-drop", What::KernelDrop),
        ("kernel-kill", What::KernelKill),
        ("kernel-delay 50ms", What::KernelDelay { delay: ms(50) }),
    ] {
        assert_eq!(kind(text), what, "{text}");
        assert_eq!(what.is_of_the_kernel(), text.starts_with("kernel"));
    }
}

#[test]
fn what_lasts_ends_when_the_next_lasting_one_begins() {
    let faults = [
        fault("at 1s refuse on all callees, away 10s"),
        fault("at 2s reset on all callees"),
        fault("at 3s blackhole on all callees"),
        fault("at 5s unavailable 503 on all callees, away 1s"),
        fault("at 6s refuse on all callees, away 1s"),
        fault("at 3s blackhole on all callers"),
    ];
    let strikes = strikes(&faults, 1, 1, 1).unwrap();
    let ends: Vec<_> = strikes.iter().map(|strike| (&strike.what, strike.until)).collect();
    assert_eq!(
        ends,
        [
            (&What::Refuse, Some(ms(3000))),
            (&What::Reset, None),
            (&What::Blackhole, Some(ms(5000))),
            (&What::Blackhole, None),
            (&What::Unavailable { error_info: false, retry_after: None }, Some(ms(6000))),
            (&What::Refuse, Some(ms(7000))),
        ]
    );
}

#[test]
fn one_more_fault_leaves_the_draws_of_the_others() {
    let (a, b) = (fault("at 1s fin on 30% callees"), fault("at 2s reset on 30% callees"));
    let alone = strikes(std::slice::from_ref(&a), 3, 50, 0).unwrap();
    let both = strikes(&[a, b], 3, 50, 0).unwrap();
    assert_eq!(alone[..], both[..alone.len()]);
    assert_ne!(parties(&alone), parties(&both[alone.len()..]));
}

#[test]
fn a_refusal_says_what_is_allowed() {
    for (text, words) in [
        ("", "ends where `at` is expected"),
        ("at 1s explode on all callees", "`explode` is no fault: allowed are reset, fin"),
        ("at 1s reset all callees", "`all` stands where `on` is expected"),
        ("at 1s reset on 0% of callees", "a percentage above 0% and up to 100%, a number, or all"),
        ("at 1s reset on 101% of callees", "no share"),
        ("at 1s reset on 0 callees", "no share"),
        ("at 1s reset on all phones", "allowed are callees, callers"),
        ("at 1s reset on all callees, under 2s", "allowed are over T, away T, every T, N times"),
        ("at 1s reset on all callees, over 2s, over 3s", "`over` stands twice"),
        ("at 1s reset on all callees, every 2s", "`every` without `N times`"),
        ("at 1s reset on all callees, 3 times", "`N times` without `every T`"),
        ("at 1s reset on all callees, every 0s, 3 times", "above 0s is allowed"),
        (
            "at 1s reset on all callees, every 2s, 3 times, away 2s",
            "away must be shorter than every",
        ),
        ("at 1s refuse on all callees, every 2s, 3 times", "needs `away T` to come again"),
        ("at 1s reset on all callees, every 6d, 3 times", "seven days"),
        ("at 1s reset on all callees, every 1s, 100001 times", "1 to 100000"),
        ("at 1s slow-reader fast on all callees", "no number of bytes a second"),
        ("at 1s unavailable 503 with flowers on all callees", "error-info or retry-after"),
        ("at 1s unavailable 503 with retry-after 3601 on all callees", "1 to 3600"),
        ("at 1s slow-writer 61s on all callees", "up to 60s"),
    ] {
        let error = Fault::parse(text).expect_err(text);
        assert!(error.contains(words), "{text}: {error}");
    }
    let many = fault("at 1s reset on all callees, every 1s, 100000 times");
    assert!(many.strikes(1, 11, 0).is_err_and(|error| error.contains("more than 1000000 strikes")));
}
