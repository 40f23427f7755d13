//! The oracle against a peer that breaks the rules one by one: the run fails, and names the rule.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real programs, real sockets, real time"
)]

mod relay;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use relay::{Breach, Relay, Script};
use serde_json::Value;

/// Calls with two re-INVITEs each.
const SCENARIO: &str = "scenario rules \"\"\ncaller\n  invite\n  wait 10ms\n  reinvite sendonly\n  \
    wait 20ms\n  reinvite sendrecv\n  wait 20ms\n  bye\ncallee\n  ring\n  answer\n";

/// Exit status, and how often each rule was broken.
fn play(breach: Option<Breach>, command: &[&str]) -> (i32, Value) {
    let delay = Duration::from_millis(200);
    let relay = Relay::start(Script { delay, breach, ..Script::default() });
    let (server, port) = (relay.address.to_string(), relay.callee_port.to_string());
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let json = dir.join(format!("oracle-{port}.json"));
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(command)
        .args(["--server", &server, "--port", &port, "--timeout", "30", "--delay", "200"])
        .args(["--callee-connections", "2", "--caller-connections", "2"])
        .args(["--json", json.to_str().unwrap()])
        .output()
        .unwrap();
    let figures = std::fs::read(&json).unwrap_or_default();
    let figures: Value = serde_json::from_slice(&figures).unwrap_or_else(|_| panic!("{output:?}"));
    std::fs::remove_file(&json).unwrap();
    (output.status.code().unwrap(), figures["violations"]["counts"].clone())
}

fn calls(breach: Option<Breach>) -> (i32, Value) {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{breach:?}.scenario"));
    std::fs::write(&file, SCENARIO).unwrap();
    let profile = ["--profile", "constant 10/s for 1s", "--drain", "2"];
    let ran = play(breach, &[&["run", file.to_str().unwrap()][..], &profile].concat());
    std::fs::remove_file(&file).unwrap();
    ran
}

fn drill(breach: Option<Breach>) -> (i32, Value) {
    play(breach, &["drill", "--calls", "8", "--settle", "50", "--window", "2", "--slack", "1"])
}

#[track_caller]
fn broke(ran: &(i32, Value), rule: &str) {
    let (status, counts) = ran;
    assert_eq!(*status, 1, "{rule}: {counts}");
    assert!(counts[rule].as_u64().is_some_and(|count| count > 0), "{rule}: {counts}");
}

#[test]
fn who_breaks_no_rule_passes() {
    for (status, counts) in [calls(None), drill(None)] {
        assert_eq!(counts, serde_json::json!({}));
        // A machine that does too much else limits the generator, and that breaks no rule.
        assert!([0, 3].contains(&status), "{status}");
    }
}

#[test]
fn requests_of_a_transaction_or_dialog_of_their_own() {
    broke(&calls(Some(Breach::CseqNotHigher)), "cseq_not_higher");
    broke(&calls(Some(Breach::BranchNotNew)), "branch_not_new");
    broke(&calls(Some(Breach::DialogChanged)), "dialog_changed");
}

#[test]
fn responses_too_many() {
    broke(&calls(Some(Breach::FinalTwice)), "final_twice");
    broke(&calls(Some(Breach::ProvisionalAfterFinal)), "provisional_after_final");
    broke(&calls(Some(Breach::ResponseForNothing)), "response_for_nothing");
}

#[test]
fn responses_too_few() {
    broke(&calls(Some(Breach::NeverAnswered)), "never_answered");
    broke(&calls(Some(Breach::ByeBeforeFinal)), "bye_before_final");
}

#[test]
fn headers_that_must_be_there_or_may_not() {
    broke(&calls(Some(Breach::RouteSet)), "route_set");
    broke(&calls(Some(Breach::MaxForwards)), "max_forwards");
    broke(&calls(Some(Breach::ContactMissing)), "contact_missing");
}

#[test]
fn bodies_that_change() {
    broke(&drill(Some(Breach::BodyChanged)), "body_changed");
    broke(&calls(Some(Breach::SdpVersionLower)), "sdp_version_lower");
}

#[test]
fn acknowledgements_that_are_wrong_or_missing() {
    broke(&calls(Some(Breach::AckForAnother)), "ack_for_another");
    broke(&calls(Some(Breach::AckMissing)), "ack_missing");
    broke(&calls(Some(Breach::CancelForNothing)), "cancel_for_nothing");
}

#[test]
fn ends_that_nobody_asked_for_or_heard_of() {
    broke(&calls(Some(Breach::ByeUnasked)), "bye_unasked");
    broke(&calls(Some(Breach::AfterBye)), "after_bye");
    broke(&calls(Some(Breach::ByeMissing)), "bye_missing");
}

#[test]
fn attempts_at_the_wrong_time() {
    broke(&drill(Some(Breach::AttemptOverlaps)), "attempt_overlaps");
}
