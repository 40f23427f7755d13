//! The generator against a scripted peer whose delays are known: what it reports is what was done.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real programs, real sockets, real time"
)]

mod relay;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use relay::{Relay, Script};
use serde_json::Value;

const FAST: Script = Script {
    delay: Duration::from_millis(200),
    more: Duration::ZERO,
    refuse: None,
    release: false,
    same_cseq: false,
    breach: None,
};

/// A run of the generator and its JSON.
struct Ran {
    output: Output,
    figures: Value,
}

impl Ran {
    fn number(&self, path: &str) -> f64 {
        self.figures.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path}"))
    }

    fn status(&self) -> i32 {
        self.output.status.code().unwrap()
    }

    /// All was as expected, or the machine does too much else for the generator to be punctual.
    #[track_caller]
    fn assert_passed(&self) {
        assert!([0, 3].contains(&self.status()), "{:?}", self.output);
        assert_eq!(self.number("/calls/failed"), 0.0, "{:?}", self.output);
    }
}

fn loadgen(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen")).args(args).output().unwrap()
}

fn against(relay: &Relay, command: &[&str]) -> Ran {
    let (server, port) = (relay.address.to_string(), relay.callee_port.to_string());
    let json = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{port}.json"));
    let mut all = command.to_vec();
    all.extend(["--server", &server, "--port", &port, "--timeout", "30"]);
    all.extend(["--callee-connections", "4", "--caller-connections", "2"]);
    all.extend(["--json", json.to_str().unwrap()]);
    let output = loadgen(&all);
    let figures = std::fs::read(&json).unwrap_or_default();
    let figures = serde_json::from_slice(&figures).unwrap_or_else(|_| panic!("{output:?}"));
    std::fs::remove_file(&json).unwrap();
    Ran { output, figures }
}

fn drill(script: Script, args: &[&str]) -> (Relay, Ran) {
    let relay = Relay::start(script);
    let mut all = vec!["drill", "--settle", "100", "--slack", "2", "--window", "2"];
    for (name, default) in [("--calls", "40"), ("--delay", "200")] {
        if !args.contains(&name) {
            all.extend([name, default]);
        }
    }
    all.extend(args);
    let ran = against(&relay, &all);
    (relay, ran)
}

#[test]
fn reported_percentiles_are_those_of_the_delays_that_the_peer_injected() {
    let script = Script { more: Duration::from_millis(20), ..FAST };
    let (relay, ran) = drill(script, &["--calls", "200"]);
    ran.assert_passed();
    let waits = relay.waits();
    assert_eq!(waits.len(), 200);
    for (path, rank) in [("p50", 100), ("p90", 180), ("p99", 198), ("max", 200)] {
        let injected = waits[rank - 1].as_secs_f64() * 1000.0;
        let found = ran.number(&format!("/recovery/answered/{path}_ms"));
        // Three digits, the two loopback crossings, and a machine that does other things, too.
        assert!((found - injected).abs() < 0.001 * injected + 25.0, "{path}: {found}, {injected}");
        let excess = ran.number(&format!("/recovery/excess/{path}_ms"));
        assert!((found - 200.0 - excess).abs() < 1.0, "{path}: {found}, {excess}");
    }
    assert_eq!(ran.number("/calls/kept"), 200.0);
    assert_eq!(ran.number("/recovery/safe"), 200.0);
    assert_eq!(ran.number("/recovery/attempts/1"), 200.0);
}

#[test]
fn a_lost_call_is_exit_status_1_and_named() {
    let (_relay, ran) = drill(Script { refuse: Some(7), ..FAST }, &[]);
    assert_eq!(ran.status(), 1, "{:?}", ran.output);
    assert_eq!(ran.number("/calls/lost"), 1.0);
    assert_eq!(ran.number("/calls/kept"), 39.0);
    let table = String::from_utf8_lossy(&ran.output.stdout);
    assert!(table.contains("1 of 40 calls were not kept"), "{table}");
}

#[test]
fn a_caller_that_tries_once_more_keeps_a_call_that_was_refused() {
    let again = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/versus/again.scenario");
    let (_relay, ran) = drill(Script { refuse: Some(7), ..FAST }, &["--scenario", again]);
    // The relay passes on the ACK of its own 503; what counts is what became of the calls.
    assert_eq!(ran.number("/calls/kept"), 40.0);
    assert_eq!(ran.number("/response/again/corrected/count"), 40.0);
    assert_eq!(ran.number("/recovery/safe"), 40.0);
}

#[test]
fn calls_are_kept_at_every_fault_point() {
    for fault in ["before-read", "after-100"] {
        let (_relay, ran) = drill(FAST, &["--fault", fault]);
        ran.assert_passed();
        assert_eq!(ran.number("/recovery/endangered"), 40.0, "{fault}");
    }
}

#[test]
fn callees_that_return_late_refuse_connections_until_then() {
    let (_relay, ran) = drill(FAST, &["--return-after", "500"]);
    ran.assert_passed();
    assert!(ran.number("/recovery/answered/min_ms") >= 600.0, "{}", ran.figures);
    assert!(ran.number("/recovery/excess/max_ms") < 100.0, "{}", ran.figures);
}

#[test]
fn released_calls_are_the_aim_or_a_loss_as_expected() {
    let script = Script { release: true, ..FAST };
    // The relay breaks rules that are not this test's matter: what counts is what is said of calls.
    let complains = |ran: &Ran, word: &str| ran.figures["reasons"].to_string().contains(word);
    let (_relay, ran) = drill(script, &["--expect", "released"]);
    assert_eq!(ran.number("/calls/released"), 40.0);
    assert!(!complains(&ran, "were not released"), "{:?}", ran.output);
    let (_relay, ran) = drill(script, &[]);
    assert_eq!(ran.status(), 1, "{:?}", ran.output);
    assert_eq!(ran.number("/calls/released"), 40.0);
    assert!(complains(&ran, "40 of 40 calls were not kept"), "{:?}", ran.output);
}

#[test]
fn a_repeated_request_with_an_old_cseq_and_branch_is_a_breach() {
    let (_relay, ran) = drill(Script { same_cseq: true, ..FAST }, &[]);
    assert_eq!(ran.status(), 1, "{:?}", ran.output);
    let counts = &ran.figures["violations"]["counts"];
    assert_eq!(counts["branch_not_new"], 40, "{counts}");
}

#[test]
fn an_answer_before_the_delay_is_a_breach() {
    let (_relay, ran) = drill(FAST, &["--delay", "400"]);
    assert_eq!(ran.status(), 1, "{:?}", ran.output);
    assert_eq!(ran.number("/violations/counts/too_early"), 40.0);
}

#[test]
fn closed_loops_report_their_rate() {
    for scenario in [&["run", "call"][..], &["run", "standing", "--calls", "20"]] {
        let relay = Relay::start(FAST);
        let time = ["--profile", "closed 4 for 1s"];
        let ran = against(&relay, &[scenario, &time].concat());
        // The relay is fast: the generator may be what limits a closed loop.
        ran.assert_passed();
        let name = if scenario[1] == "call" { "bye" } else { "reinvite" };
        let count = ran.number(&format!("/response/{name}/corrected/count"));
        assert!(count > 10.0, "{scenario:?}: {}", ran.figures);
    }
}

#[test]
fn a_server_that_is_not_there_is_exit_status_2() {
    let output = loadgen(&["drill", "--server", "127.0.0.1:1", "--calls", "1", "--port", "45071"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("no server at 127.0.0.1:1"), "{text}");
}

#[test]
fn a_server_that_cannot_be_started_is_exit_status_2() {
    for (program, wanted) in [("/nonexistent", "--holdfast"), ("/bin/false", "ended at its start")]
    {
        let output = loadgen(&["drill", "--holdfast", program]);
        assert_eq!(output.status.code(), Some(2), "{program}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(wanted), "{program}: {text}");
    }
}

#[test]
fn a_limit_of_the_server_is_in_its_configuration() {
    let output = loadgen(&["drill", "--print-config", "--limit", "calls-per-second-max=7"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("\n[limits]\ncalls-per-second-max = 7\n"), "{text}");
}

#[test]
fn options_out_of_range_are_refused_with_the_range() {
    for (args, wanted) in [
        (["--delay", "34001"], "0..=34000"),
        (["--window", "35"], "0..=34"),
        (["--calls", "0"], "1..=1000000"),
        (["--fault", "never"], "before-read"),
        (["--server", "192.0.2.1:5060"], "127.0.0.0/8"),
        (["--limit", "calls-max"], "NAME=NUMBER"),
        (["--limit", "calls max=1"], "no name"),
        (["--limit", "calls-max=-1"], "no number"),
        (["--retries", "3"], "--retries"),
    ] {
        let output = loadgen(&["drill", args[0], args[1]]);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(wanted), "{args:?}: {text}");
    }
}

#[test]
fn the_configuration_can_be_printed() {
    let output = loadgen(&["drill", "--print-config", "--callee-connections", "2"]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("contact = \"sip:70002@127.20.0.2:5070;transport=tcp\""), "{text}");
}
