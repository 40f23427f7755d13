//! The server's events, against what was seen.

use std::io::Read;
use std::time::Duration;

use crate::oracle::Violations;
use crate::oracle::events::{Between, Events, SeenCalls};

/// Lines of one shard, numbered.
#[derive(Default)]
struct File {
    text: String,
    sequence: u64,
}

impl File {
    fn line(&mut self, event: &str, call: u32, leg: &str, more: &str) -> &mut Self {
        self.sequence += 1;
        let (this, other) = if leg == "callee" { ("7001", "c") } else { ("c", "7001") };
        let sequence = self.sequence;
        self.text += &format!(
            "{{\"Event\":\"{event}\",\"MessageID\":1,\"Time\":{{\"TimeinSecs\":100,\"TimeinuSecs\":5}},\
             \"Shard\":0,\"EventSequenceNumber\":{sequence},\"ConnID\":\"{call:020x}\",\
             \"Leg\":\"{leg}\",\"ThisDN\":\"{this}\",\"OtherDN\":\"{other}\"{more}}}\n"
        );
        self
    }

    fn established(&mut self, call: u32) -> &mut Self {
        self.line("EventDialing", call, "caller", "");
        for leg in ["caller", "callee"] {
            self.line("EventEstablished", call, leg, "");
        }
        self
    }

    fn user(&mut self, call: u32, name: &str, more: &str) -> &mut Self {
        self.line("EventUserEvent", call, "callee", &format!(",\"UserEvent\":\"{name}\"{more}"))
    }

    fn recovered(&mut self, call: u32) -> &mut Self {
        self.user(call, "RecoveryStarted", ",\"Cause\":\"flow\",\"Delay\":500");
        self.user(call, "RecoverySucceeded", ",\"Attempts\":1,\"Elapsed\":501")
    }

    fn given_up(&mut self, call: u32) -> &mut Self {
        self.user(call, "RecoveryStarted", "");
        self.user(call, "RecoveryEnded", ",\"Outcome\":\"given-up\"")
    }

    fn released(&mut self, call: u32) -> &mut Self {
        for leg in ["caller", "callee"] {
            self.line(
                "EventReleased",
                call,
                leg,
                ",\"Extensions\":{\"ReleasingParty\":\"1 Local\"}",
            );
        }
        self
    }

    fn read(&self) -> Events {
        Events::read(self.text.as_bytes(), Duration::ZERO).unwrap()
    }
}

/// Whether the call ended, as its peers saw it.
enum Ended {
    No,
    Yes,
    Unsure,
}

fn exactly(count: u64) -> Between {
    Between { least: count, most: count }
}

fn seen(recovered: u64, given_up: u64, ended: Ended) -> SeenCalls {
    let over = match ended {
        Ended::No => exactly(0),
        Ended::Yes => exactly(1),
        Ended::Unsure => Between { least: 0, most: 1 },
    };
    let (recovered, given_up) = (exactly(recovered), exactly(given_up));
    SeenCalls { established: exactly(1), recovered, given_up, over }
}

fn judged(events: &Events, seen: &[SeenCalls]) -> Vec<(String, u64)> {
    let mut violations = Violations::default();
    let seen = seen.iter().map(|calls| ("7001", *calls));
    events.compare(seen, Duration::from_secs(9), &mut violations);
    violations.counts().into_iter().collect()
}

fn one(rule: &str) -> Vec<(String, u64)> {
    vec![(rule.to_owned(), 1)]
}

#[test]
fn a_file_that_agrees_breaks_nothing() {
    let mut file = File::default();
    file.established(1).recovered(1).recovered(1).released(1);
    file.established(2).given_up(2).released(2);
    file.established(3).line("EventHeld", 3, "callee", "").line("EventOfTomorrow", 3, "callee", "");
    let events = file.read();
    let all = [seen(2, 0, Ended::Yes), seen(0, 1, Ended::Yes), seen(0, 0, Ended::No)];
    assert_eq!(judged(&events, &all), []);
    // What is not sure may be either way.
    let recovered = Between { least: 0, most: 3 };
    let unsure = SeenCalls { recovered, ..seen(0, 0, Ended::Unsure) };
    assert_eq!(judged(&events, &[unsure, seen(0, 1, Ended::Yes), seen(0, 0, Ended::Unsure)]), []);
}

#[test]
fn an_event_that_must_be_there_is_missed() {
    let mut file = File::default();
    let all = [seen(1, 0, Ended::Yes)];
    file.established(1).released(1);
    assert_eq!(judged(&file.read(), &all), one("event_missing"));
    let mut file = File::default();
    file.established(1).recovered(1);
    assert_eq!(judged(&file.read(), &all), one("event_missing"));
    // Not when the server said that events were lost, or the file is cut off.
    file.text += "{\"Event\":\"Gap\",\"Lost\":2}\n";
    let events = file.read();
    assert_eq!((events.lost, judged(&events, &all)), (2, vec![]));
}

#[test]
fn an_event_for_nothing_is_noticed() {
    let mut file = File::default();
    file.established(1).recovered(1);
    assert_eq!(judged(&file.read(), &[seen(0, 0, Ended::No)]), one("event_for_nothing"));
    let none: &[SeenCalls] = &[];
    let mut file = File::default();
    file.established(1);
    assert_eq!(judged(&file.read(), none), one("event_for_nothing"));
}

#[test]
fn an_event_that_contradicts_is_noticed() {
    let standing = [seen(0, 0, Ended::No)];
    let mut file = File::default();
    file.established(1).released(1);
    assert_eq!(judged(&file.read(), &standing), one("event_contradicts"));
    let mut file = File::default();
    file.established(1).given_up(1);
    assert_eq!(judged(&file.read(), &standing), one("event_contradicts"));
    // A recovery that never ends, and a party released twice.
    let mut file = File::default();
    file.established(1).user(1, "RecoveryStarted", "");
    assert_eq!(judged(&file.read(), &standing), one("event_contradicts"));
    let mut file = File::default();
    file.established(1).released(1).line("EventReleased", 1, "callee", "");
    assert_eq!(judged(&file.read(), &[seen(0, 0, Ended::Yes)]), one("event_contradicts"));
}

#[test]
fn a_hole_in_the_sequence_is_a_breach_unless_it_was_announced() {
    let mut file = File::default();
    file.established(1);
    file.sequence += 3;
    file.line("EventHeld", 1, "callee", "");
    assert_eq!(judged(&file.read(), &[seen(0, 0, Ended::No)]), one("event_sequence"));
    let mut file = File::default();
    file.established(1);
    file.text += "{\"Event\":\"Gap\",\"Lost\":3,\"Shard\":0}\n";
    file.sequence += 3;
    file.line("EventHeld", 1, "callee", "");
    assert_eq!(judged(&file.read(), &[seen(0, 0, Ended::No)]), []);
}

#[test]
fn odd_lines_are_passed_over_and_counted() {
    let mut file = File::default();
    file.text += "\n   \nnot json\n{\"Event\":7}\n[1]\n";
    file.established(1);
    file.text += &format!("{{\"Event\":\"{}\"}}\n", "x".repeat(100_000));
    file.text += "{\"Event\":\"EventHeld\",\"ConnID\":\"short\",\"Leg\":\"callee\"}\n";
    file.text +=
        "{\"Event\":\"EventHeld\",\"EventSequenceNumber\":18446744073709551615,\"Shard\":9}\n";
    file.text += "{\"Event\":\"EventRelea";
    let events = file.read();
    assert_eq!((events.lines, events.unreadable, events.left_out), (5, 3, 1));
    assert!(events.truncated);
    // One byte at a time gives the same.
    let bytes = file.text.as_bytes().chain(&b""[..]);
    let slowly = std::io::BufReader::with_capacity(1, bytes);
    let again = Events::read(slowly, Duration::ZERO).unwrap();
    assert_eq!((again.lines, again.unreadable, again.left_out), (5, 3, 1));
}

#[test]
fn lines_of_a_run_before_are_passed_over() {
    let mut file = File::default();
    file.established(1);
    let events = Events::read(file.text.as_bytes(), Duration::from_secs(101)).unwrap();
    assert_eq!(events.lines, 0);
    let events = Events::read(file.text.as_bytes(), Duration::from_secs(100)).unwrap();
    assert_eq!(events.lines, 3);
}
