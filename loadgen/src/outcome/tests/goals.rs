//! Goals: their grammar, with each of its errors, and what they find.

use super::sample::outcome;
use crate::outcome::*;

fn error(text: &str) -> String {
    Goal::parse(text).unwrap_err()
}

#[test]
fn goals_are_met_and_not_met() {
    // Calls: 10,000, of which 4 lost; the answer's excess is 0 to some 150 ms.
    let cases = [
        ("lost=4", true),
        ("lost=0", false),
        ("lost == 4", true),
        ("lost<0.1%", true),
        ("lost<0.04%", false),
        ("lost<=0.04%", true),
        ("kept>=9996", true),
        ("kept>9996", false),
        ("safe>=99.9%", true),
        ("endangered=10000", true),
        ("violations=0", true),
        ("missed_slots=0", true),
        ("failed<0.1%", true),
        ("rate>=700/s", true),
        ("rate>=10000", false),
        ("offered>700/s", true),
        ("connects<1000000/s", true),
        ("attempts<=2", true),
        ("p50_excess<50ms", true),
        ("p99_excess<50000us", false),
        ("p99.9_answered<1s", true),
        ("max_detected<1s", true),
        ("mean_first_attempt>400ms", true),
        ("p99_acked<2s", true),
        ("p99(invite)<1ms", false),
        ("p99(invite)<5ms", true),
        ("p99_uncorrected(invite)<4ms", true),
        ("p10<1ms", true),
        ("min>0us", true),
        ("p99_lateness<1ms", true),
    ];
    let texts = cases.map(|(text, _)| text);
    let outcome = outcome(1.0, &texts);
    for (result, (text, met)) in outcome.goals.iter().zip(cases) {
        assert_eq!(result.met, met, "{text}: found {}", result.found);
        assert_eq!(result.goal, text);
    }
    assert_eq!(outcome.goals[0].found, "4");
    assert_eq!(outcome.goals[3].found, "0.04 %");
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert!(outcome.reasons[0].contains("goal lost=0 was not met: found 4"));
}

#[test]
fn a_goal_about_what_was_not_measured_is_not_met() {
    let recorder = Recorder::new(std::time::Duration::from_secs(1));
    let about = About::default();
    let texts = ["p99_excess<1s", "p99(invite)<1s", "p99<1s", "offered<1/s", "attempts<9"];
    let goals: Vec<Goal> = texts.iter().map(|text| Goal::parse(text).unwrap()).collect();
    assert_eq!(goals[1].response_name(), Some("invite"));
    assert_eq!(goals[0].response_name(), None);
    let outcome = recorder.into_outcome(about, &goals);
    assert!(outcome.goals.iter().all(|goal| !goal.met), "{:?}", outcome.goals);
    let found: Vec<&str> = outcome.goals.iter().map(|goal| goal.found.as_str()).collect();
    assert_eq!(found[0], "no call was in danger");
    assert!(found[1].starts_with("no response time \"invite\""));
    assert_eq!(found[2], "no sample");
}

#[test]
fn errors_of_goals_name_what_there_is() {
    assert!(error("lost").contains("no comparison"));
    assert!(error("").contains("no comparison"));
    assert!(error("lots=0").contains("there are started, set_up, done, kept, lost"));
    assert!(error("p=0").contains("unknown name"));
    assert!(error("p9x<1ms").contains("unknown name"));
    assert!(error("p1.2.3<1ms").contains("unknown name"));
    assert!(error("p0<1ms").contains("above 0 and at most 100"));
    assert!(error("p101<1ms").contains("above 0 and at most 100"));
    assert!(error("p99_late<1ms").contains("there are detected, first_attempt, answered"));
    assert!(error("p99(invite<1ms").contains("no )"));
    assert!(error("p99_excess(invite)<1ms").contains("no (…)"));
    assert!(error("p99_lateness(invite)<1ms").contains("unknown time \"lateness\""));
    assert!(error("lost(invite)=0").contains("not a time"));
    assert!(error("lost=").contains("does not begin with a number"));
    assert!(error("lost=x").contains("does not begin with a number"));
    assert!(error("lost=-1").contains("does not begin with a number"));
    assert!(error("lost=1.2.3").contains("not a number"));
    assert!(error("lost=.").contains("not a number"));
    assert!(error("lost=1ms").contains("allowed: % or none"));
    assert!(error("p99<1").contains("allowed: us, ms or s"));
    assert!(error("p99<1%").contains("allowed: us, ms or s"));
    assert!(error("rate>1ms").contains("allowed: /s or none"));
    assert!(error("attempts<1s").contains("allowed: none"));
    assert!(error("lost<=>1").contains("does not begin with a number"));
    let long = format!("lost={}", "9".repeat(300));
    assert!(error(&long).contains("256 bytes"));
    let large = format!("lost={}", "9".repeat(200));
    assert!(error(&large).contains("above the limit of 1e12"));
    assert!(error("\u{1b}[2J=1").starts_with("goal \"\\u{1b}[2J=1\""), "no control characters");
    assert!(error("p99µ<1ms").contains("unknown name"), "letters of two bytes");
}
