//! Every fault of the timeline, through the command line: what a peer between callers and callees
//! sees on its sockets, and what the result says.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "real programs, real sockets, real time; a test that cannot be tried says so"
)]

mod peer;
mod relay;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use peer::{Party, Peer, Script, Seen, Tls, What};
use serde_json::Value;

/// Twelve calls, three for each callee, that ask one re-INVITE after the other.
const SCENARIO: &str = "scenario faults \"\"\ncaller\n  invite\n  repeat ROUNDS\n    wait 20ms\n    \
    reinvite sendonly as \"hold\"\n  end\n  bye\ncallee\n  ring\n  answer\n";
const CALLS: u64 = 12;
const CALLEES: usize = 4;

/// A run of the generator and its JSON.
struct Ran {
    seen: Vec<Seen>,
    /// Port of the callees.
    port: u16,
    output: Output,
    result: Value,
    strikes: Vec<String>,
}

/// Plays calls that stand for about `length` ms, with faults that hold them up for about `stalls` ms.
fn play(name: &str, (length, stalls): (u64, u64), script: Script, strikes: &[&str]) -> Ran {
    let dir = folder(name);
    // A round takes the peer's lag and the wait.
    let rounds = (length - stalls) / 100;
    let file = dir.join("faults.scenario");
    std::fs::write(&file, SCENARIO.replace("ROUNDS", &rounds.to_string())).unwrap();
    let (json, tls) = (dir.join("result.json"), script.tls.clone());
    let peer = Peer::start(script);
    let (server, port) = (peer.address.to_string(), peer.callee_port.to_string());
    let profile = format!("constant 60/s for 200ms then constant 0/s for {length}ms");
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(["run", file.to_str().unwrap(), "--profile", &profile, "--spacing", "even"]);
    command.args(["--server", &server, "--port", &port, "--timeout", "40", "--drain", "20"]);
    command.args(["--callee-connections", "4", "--caller-connections", "2", "--delay", "200"]);
    command.arg("--json").arg(&json);
    for strike in strikes {
        command.args(["--strike", strike]);
    }
    if let Some(tls) = tls {
        let (certificate, key) = (dir.join("own.pem"), dir.join("own.key"));
        std::fs::write(&certificate, tls.certificate).unwrap();
        std::fs::write(&key, tls.key).unwrap();
        command.args(["--transport", "tls"]).arg("--tls-authorities").arg(&certificate);
        command.arg("--tls-certificate").arg(certificate).arg("--tls-key").arg(key);
    }
    let output = command.output().unwrap();
    let result = std::fs::read(&json).unwrap_or_default();
    let result = serde_json::from_slice(&result).unwrap_or_else(|_| panic!("{output:?}"));
    std::fs::remove_dir_all(&dir).unwrap();
    let strikes = strikes.iter().map(|&strike| strike.to_owned()).collect();
    // The run ends with FIN on all connections, and callers send none before.
    let ends = |seen: &Seen| matches!((seen.party, &seen.what), (Party::Caller(_), What::Eof(_)));
    let mut seen = peer.seen();
    let length = seen.iter().position(ends).unwrap_or(seen.len());
    let _ = seen.split_off(length);
    Ran { seen, port: peer.callee_port, output, result, strikes }
}

/// An empty folder.
fn folder(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{name}"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn patient(millis: u64) -> Script {
    Script { patience: Duration::from_millis(millis), ..Script::default() }
}

impl Ran {
    fn number(&self, path: &str) -> f64 {
        let number = self.result.pointer(path).and_then(Value::as_f64);
        number.unwrap_or_else(|| panic!("no {path}: {}", self.result))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// Every call was kept and no rule broken, and the result lists the faults and `struck` strikes.
    #[track_caller]
    fn assert_kept(&self, struck: usize) {
        // A machine that does too much else limits the generator.
        let status = self.output.status.code().unwrap();
        assert!([0, 3].contains(&status), "{}\n{:#?}", self.text(), self.seen);
        assert_eq!(self.number("/calls/kept"), CALLS as f64, "{}", self.text());
        assert_eq!(self.number("/calls/lost"), 0.0, "{}", self.text());
        assert_eq!(self.result["violations"]["counts"], serde_json::json!({}), "{}", self.text());
        assert_eq!(self.result["parameters"]["strikes"], serde_json::json!(self.strikes));
        assert_eq!(self.number("/counters/strikes"), struck as f64);
    }

    /// Calls were in danger since `first`, and all came through, not before `wait` ms had passed.
    #[track_caller]
    fn assert_recovered(&self, first: f64, wait: f64) {
        let endangered = self.number("/recovery/endangered");
        assert!(endangered >= 1.0, "{}", self.text());
        assert_eq!(self.number("/recovery/safe"), endangered, "{}", self.text());
        assert_eq!(self.number("/recovery/lost"), 0.0, "{}", self.text());
        assert!(self.number("/recovery/first_fault_ms") >= first, "{}", self.text());
        assert!(self.number("/recovery/answered/max_ms") >= wait, "{}", self.text());
    }

    /// The parties at which this was seen, each once.
    fn at(&self, wanted: impl Fn(&What) -> bool) -> BTreeSet<Party> {
        self.parties(wanted).into_iter().collect()
    }

    /// Who saw it, as often as it was seen.
    fn parties(&self, wanted: impl Fn(&What) -> bool) -> Vec<Party> {
        self.seen.iter().filter(|seen| wanted(&seen.what)).map(|seen| seen.party).collect()
    }

    /// What somebody found who tried a callee's door.
    fn doors_of(&self, n: u8) -> Vec<What> {
        let of_it = self.seen.iter().filter(|seen| seen.party == Party::Callee(n));
        let is_door = |what: &What| {
            matches!(what, What::DoorOpen | What::DoorRefused | What::DoorClosedAtOnce)
        };
        of_it.map(|seen| seen.what.clone()).filter(is_door).collect()
    }

    /// It was seen at two of the callees at least: of four that are struck one may be away.
    #[track_caller]
    fn assert_seen(&self, name: &str, wanted: impl Fn(&What) -> bool) {
        let seen = self.at(wanted);
        let callees = seen.iter().filter(|party| matches!(party, Party::Callee(_))).count();
        assert!(callees >= 2, "{name}: {seen:?}\n{:#?}", self.seen);
    }
}

#[test]
fn connections_are_reset_finished_half_closed_and_cut() {
    let ran = play(
        "connections",
        (3600, 900),
        patient(1000),
        &[
            "at 400ms reset on all of callees",
            "at 1200ms fin on all of callees",
            "at 2s half-close on all of callees",
            "at 2800ms cut-inside on all of callees",
        ],
    );
    ran.assert_kept(4 * CALLEES);
    ran.assert_recovered(400.0, 100.0);
    ran.assert_seen("RST", |what| *what == What::Reset(false));
    ran.assert_seen("FIN", |what| *what == What::Closed);
    ran.assert_seen("FIN of one way", |what| *what == What::HalfClosed);
    ran.assert_seen("RST inside a message", |what| *what == What::Reset(true));
    assert!(ran.number("/recovery/last_fault_ms") >= 2000.0, "{}", ran.text());
}

#[test]
fn doors_refuse_and_close_and_move() {
    let strikes = [
        "at 300ms refuse on all of callees, away 500ms",
        "at 1200ms accept-then-close on all of callees, away 500ms",
        "at 2100ms other-port on 2 of callees",
    ];
    let ran = play("doors", (2900, 0), Script { probes: 4, ..patient(1000) }, &strikes);
    // Calls of callees that moved away without a word are lost to who knows no other port.
    assert!([1, 3].contains(&ran.output.status.code().unwrap()), "{}", ran.text());
    assert_eq!(ran.number("/calls/lost"), 6.0, "{}", ran.text());
    assert_eq!(ran.number("/calls/kept"), 6.0, "{}", ran.text());
    assert_eq!(ran.number("/counters/strikes"), 10.0, "{}", ran.text());
    let mut moved = 0;
    for n in 1..=CALLEES as u8 {
        let mut doors = ran.doors_of(n);
        let open = |what: &What| *what == What::DoorOpen;
        // Before the generator listens nobody does.
        doors.drain(..doors.iter().position(open).unwrap());
        let after = doors.split_off(doors.iter().rposition(open).unwrap() + 1);
        doors.dedup();
        let (open, refused) = (What::DoorOpen, What::DoorRefused);
        let wanted = [open.clone(), refused, open.clone(), What::DoorClosedAtOnce, open];
        assert_eq!(doors, wanted, "callee {n}");
        moved += usize::from(after.len() > 6);
    }
    assert_eq!(moved, 2, "{:#?}", ran.seen);
}

#[test]
fn a_callee_that_returns_refuses_until_then() {
    let strike = "at 400ms reset on all of callees, away 500ms";
    let ran = play("away", (1400, 600), patient(1000), &[strike]);
    ran.assert_kept(CALLEES);
    ran.assert_recovered(400.0, 100.0);
    ran.assert_seen("refused connects", |what| *what == What::Refused);
    // 200, 400 and 600 ms after the fault: the third attempt finds it.
    assert_eq!(ran.number("/recovery/delay_ms"), 600.0);
    assert!(ran.number("/recovery/answered/min_ms") >= 500.0, "{}", ran.text());
}

#[test]
fn tls_ends_in_an_alert_and_does_not_begin() {
    let tls = Some(Tls::new());
    let ran = play(
        "tls",
        (2400, 900),
        Script { tls, ..patient(300) },
        &[
            "at 500ms tls-alert on all of callees",
            "at 1400ms reset on all of callees",
            "at 1401ms handshake-stall on all of callees, away 600ms",
        ],
    );
    ran.assert_kept(3 * CALLEES);
    ran.assert_recovered(500.0, 100.0);
    ran.assert_seen("alert", |what| matches!(what, What::Alert(text) if text.contains("Received")));
    ran.assert_seen("stall", |what| *what == What::Stalled);
}

#[test]
fn the_silent_are_silent_on_new_connections_too() {
    let ran = play(
        "silent",
        (2800, 1500),
        patient(250),
        &[
            "at 400ms blackhole on all of callees, away 700ms",
            "at 1800ms stop-reading on all of callees, away 700ms",
        ],
    );
    ran.assert_kept(2 * CALLEES);
    ran.assert_recovered(400.0, 100.0);
    assert!(ran.number("/recovery/last_fault_ms") >= 1800.0, "{}", ran.text());
    // Silent before and after the peer connected anew.
    let silences = |n: u8| {
        let seen = ran.parties(|what| *what == What::Silent);
        seen.iter().filter(|party| **party == Party::Callee(n)).count()
    };
    assert!((1..=4).any(|n| silences(n) >= 3), "{:#?}", &ran.seen);
    ran.assert_seen("silence", |what| *what == What::Silent);
}

#[test]
fn the_slow_read_and_write_slowly() {
    let ran = play(
        "slow",
        (3000, 800),
        patient(5000),
        &[
            "at 500ms slow-reader 3000 B/s on all of callees, away 900ms",
            "at 2s slow-writer 500us on all of callees, away 900ms",
        ],
    );
    ran.assert_kept(2 * CALLEES);
    ran.assert_seen("bytes one by one", |what| *what == What::Trickle);
    // A re-INVITE of 500 bytes and more takes a sixth of a second to be read, and others wait before
    // it; this is before the first byte that trickled.
    let seen = &ran.seen;
    let trickles = seen.iter().position(|seen| seen.what == What::Trickle).unwrap();
    let late = Duration::from_millis(160);
    let slow = |seen: &&Seen| matches!(seen.what, What::Answered(200, _, after) if after > late);
    let slow: BTreeSet<Party> =
        seen[..trickles].iter().filter(slow).map(|seen| seen.party).collect();
    assert!(slow.len() >= 2, "{slow:?} {seen:#?}");
}

#[test]
fn answers_are_those_of_servers_that_cannot() {
    let ran = play(
        "answers",
        (4600, 1800),
        patient(3000),
        &[
            "at 300ms unavailable 503 with error-info on all of callees, away 400ms",
            "at 1200ms 430 on all of callees, away 400ms",
            "at 2100ms 477 on all of callees, away 400ms",
            "at 3s duplicate on all of callees, away 400ms",
            "at 3900ms unavailable 503 with retry-after 1 on all of callees, away 400ms",
        ],
    );
    ran.assert_kept(5 * CALLEES);
    let answered = |wanted: u16, line: &'static str| {
        move |what: &What| {
            let What::Answered(status, lines, _) = what else { return false };
            *status == wanted && lines.concat() == line
        }
    };
    ran.assert_seen("503 of a proxy", answered(503, "Error-Info: transport-error"));
    ran.assert_seen("503 for a while", answered(503, "Retry-After: 1"));
    ran.assert_seen("430", answered(430, ""));
    ran.assert_seen("477", answered(477, ""));
    ran.assert_seen("200 twice", |what| *what == What::Twice(200));
    ran.assert_seen("200", answered(200, ""));
}

#[test]
fn an_answer_comes_late_on_a_new_connection() {
    let strike = "at 400ms late-on-new-connection on all of callees, away 500ms";
    let ran = play("late", (1400, 100), patient(1000), &[strike]);
    ran.assert_kept(CALLEES);
    ran.assert_recovered(400.0, 0.0);
    // RST and a connection (the peer may look at that one first), which brings the answer: the peer
    // did not ask again before.
    let seen = &ran.seen;
    let late = (1..=4).map(Party::Callee).filter(|party| {
        let own = seen.iter().filter(|seen| seen.party == *party).map(|seen| &seen.what);
        let own: Vec<&What> = own.collect();
        own.windows(3).any(|what| {
            let moved =
                what[..2].contains(&&What::Reset(false)) && what[..2].contains(&&What::Connected);
            moved && matches!(what[2], What::Answered(200, ..))
        })
    });
    assert!(late.count() >= 2, "{seen:#?}");
}

#[test]
fn a_wave_rolls_and_a_flapping_party_comes_back() {
    let ran = play(
        "waves",
        (3600, 500),
        patient(1000),
        &[
            "at 400ms reset on all of callees, over 1200ms",
            "at 2200ms fin on 50% of callees, every 600ms, 2 times",
        ],
    );
    ran.assert_kept(CALLEES + 2 * 2);
    ran.assert_recovered(400.0, 100.0);
    let seen = &ran.seen;
    let resets: Vec<&Seen> = seen.iter().filter(|seen| seen.what == What::Reset(false)).collect();
    // 300 ms lie between two of the wave, and a busy machine lets none come sooner.
    let (first, last) = (resets.first().unwrap(), resets.last().unwrap());
    assert!(last.at - first.at > Duration::from_millis(500), "{resets:?}");
    let parties: BTreeSet<Party> = resets.iter().map(|seen| seen.party).collect();
    assert_eq!(parties.len(), resets.len(), "{resets:?}");
    // The same two, twice.
    let mut fins = ran.parties(|what| *what == What::Closed);
    let parties: BTreeSet<Party> = fins.iter().copied().collect();
    assert_eq!(parties.len(), 2, "{seen:#?}");
    fins.sort();
    assert!(fins.len() >= 3, "{fins:?}");
}

#[test]
fn callers_suffer_as_callees_do() {
    let ran = play(
        "callers",
        (2000, 0),
        patient(2000),
        &["at 500ms reset on all of callers", "at 1200ms other-port on 1 of callers"],
    );
    // What a caller had under way when its connection died may be lost for good: nobody sends it again.
    assert_eq!(ran.number("/counters/strikes"), 3.0, "{}", ran.text());
    assert_eq!(ran.number("/calls/lost"), 0.0, "{}", ran.text());
    assert!(ran.number("/calls/kept") >= 10.0, "{}", ran.text());
    assert_eq!(ran.result["violations"]["counts"], serde_json::json!({}), "{}", ran.text());
    let endangered = ran.number("/recovery/endangered");
    assert!(endangered >= 3.0, "{}", ran.text());
    assert!(ran.number("/recovery/safe") >= endangered - 2.0, "{}", ran.text());
    let resets = ran.parties(|what| *what == What::Reset(false));
    let callers = |n: u8| resets.iter().filter(|party| **party == Party::Caller(n)).count();
    assert_eq!(callers(1) + callers(2), 3, "{resets:?}");
    // Who was moved says so in its next Contact.
    let own = What::Contact(ran.port);
    let moved = ran.at(|what| matches!(what, What::Contact(_)) && *what != own);
    assert_eq!(moved.len(), 1, "{:#?}", &ran.seen);
}

/// Tables of nftables that runs have made; `None` where faults of the kernel cannot be tried.
fn tables() -> Option<Vec<String>> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let listed = Command::new("nft").args(["list", "tables"]).output().ok()?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let of_runs = text.lines().filter(|line| line.contains("loadgen_"));
    listed.status.success().then(|| of_runs.map(str::to_owned).collect())
}

#[test]
fn the_kernel_drops_packets_and_leaves_no_table() {
    let Some(before) = tables() else {
        println!("not tried: faults of the kernel need root and nft");
        return;
    };
    let strike = "at 400ms kernel-drop on all of callees, away 900ms";
    let ran = play("drop", (1800, 800), patient(250), &[strike]);
    ran.assert_kept(CALLEES);
    ran.assert_recovered(400.0, 100.0);
    ran.assert_seen("silence", |what| *what == What::Silent);
    // The peer connects to one after the other.
    assert!(!ran.at(|what| *what == What::ConnectTimedOut).is_empty(), "{:#?}", ran.seen);
    // Those that were there before are of other runs, which may be over by now.
    let left: Vec<String> =
        tables().unwrap().into_iter().filter(|table| !before.contains(table)).collect();
    let own = |table: &String| {
        let pid = table.split('_').nth(1).unwrap();
        !std::path::Path::new("/proc").join(pid).exists()
    };
    assert!(!left.iter().any(own), "{left:?}");
}

#[test]
fn the_kernel_kills_connections() {
    if tables().is_none() {
        println!("not tried: faults of the kernel need root and nft");
        return;
    }
    let strike = "at 400ms kernel-kill on all of callees";
    let ran = play("kill", (1200, 200), patient(1000), &[strike]);
    if ran.text().contains("a fault did not strike: ss ") {
        println!("not tried: {}", ran.text());
        return;
    }
    ran.assert_kept(CALLEES);
    ran.assert_recovered(400.0, 100.0);
    ran.assert_seen("RST", |what| *what == What::Reset(false));
}

#[test]
fn faults_of_the_kernel_are_refused_where_they_cannot_strike() {
    // Neither programs nor, it may be, root.
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["run", "call", "--server", "127.0.0.1:1"])
        .args(["--strike", "at 1s kernel-drop on all of callees"])
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("faults of the kernel") && text.contains("need"), "{text}");
}
