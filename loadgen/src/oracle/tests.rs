//! The oracle: messages written by hand that break each rule, and long ones that break none.

mod calls;
mod cost;
mod events;
mod rules;

use std::time::Duration;

use super::*;
use crate::message::{self, Frame, Message};

/// Which end of the dialog wrote a request: the one that made the call, or the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Maker,
    Taker,
}

/// Head lines that all messages of the dialog have. The To tag is left out of what makes it.
fn head(by: By, tagged: bool, cseq: u32, method: &str, branch: &str) -> String {
    let (from, to) = match by {
        By::Maker => ("maker", "taker"),
        By::Taker => ("taker", "maker"),
    };
    let to_tag = if tagged { format!(";tag={to}") } else { String::new() };
    format!(
        "Via: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK-{branch}\r\nFrom: <sip:x@h>;tag={from}\r\n\
         To: <sip:y@h>{to_tag}\r\nCall-ID: one@h\r\nCSeq: {cseq} {method}\r\n"
    )
}

fn end_of(head: &str, body: &str) -> String {
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn request(by: By, tagged: bool, method: &str, cseq: u32, branch: &str, body: &str) -> String {
    let contact = if method == "INVITE" { "Contact: <sip:x@h:5>\r\n" } else { "" };
    let head = head(by, tagged, cseq, method, branch);
    end_of(&format!("{method} sip:y@h SIP/2.0\r\n{head}Max-Forwards: 70\r\n{contact}"), body)
}

fn response(by: By, status: u16, method: &str, cseq: u32, branch: &str, body: &str) -> String {
    let contact = if status < 300 { "Contact: <sip:y@h:5>\r\n" } else { "" };
    let head = head(by, status > 100, cseq, method, branch);
    end_of(&format!("SIP/2.0 {status} Text\r\n{head}{contact}"), body)
}

/// An offer in its `version`-th form.
fn sdp(version: u32) -> String {
    format!("v=0\r\no=lg 1 {version} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n")
}

/// One end of a call and what its oracle says.
struct End {
    dialog: Dialog,
    violations: Violations,
    at: Duration,
    datagrams: bool,
    may_end: bool,
}

impl End {
    fn new() -> Self {
        Self {
            dialog: Dialog::default(),
            violations: Violations::default(),
            at: Duration::from_secs(1),
            datagrams: false,
            may_end: false,
        }
    }

    fn with(&mut self, act: impl FnOnce(&mut Dialog, &mut Seen<'_>)) {
        let mut seen = Seen {
            call: 42,
            at: self.at,
            datagrams: self.datagrams,
            may_end: self.may_end,
            delay: Duration::from_millis(500),
            violations: &mut self.violations,
        };
        act(&mut self.dialog, &mut seen);
    }

    fn reads(&mut self, text: &str) -> &mut Self {
        let message = parse(text);
        self.with(|dialog, seen| dialog.read(&message, seen));
        self
    }

    fn sends(&mut self, text: &str) -> &mut Self {
        let message = parse(text);
        self.with(|dialog, seen| dialog.sent(&message, seen));
        self
    }

    fn later(&mut self, millis: u64) -> &mut Self {
        self.at += Duration::from_millis(millis);
        self
    }

    fn loses_flow(&mut self) -> &mut Self {
        self.dialog.lost(self.at, Duration::from_millis(500));
        self
    }

    fn ends(&mut self) -> &mut Self {
        self.with(Dialog::end);
        self
    }

    /// Only `rule` was broken, once.
    #[track_caller]
    fn broke(&self, rule: Rule) {
        let counts: Vec<_> = self.violations.counts().into_iter().collect();
        assert_eq!(counts, [(rule.name().to_owned(), 1)], "{:?}", self.violations.sentences());
        let example = &self.violations.rules[rule.name()].examples[0];
        assert_eq!((example.call, example.at_us), (42, self.at.as_micros() as u64));
        assert!(!example.expected.is_empty() && !example.found.is_empty());
    }

    #[track_caller]
    fn broke_nothing(&self) {
        assert_eq!(self.violations.sentences(), Vec::<String>::new());
        assert!(self.violations.watched > 0);
    }
}

fn parse(text: &str) -> Message<'_> {
    let Frame::Message(message, len) = message::next(text.as_bytes()) else {
        panic!("no message: {text}")
    };
    assert_eq!(len, text.len());
    message
}

#[test]
fn a_watch_is_small() {
    assert!(size_of::<Dialog>() <= DIALOG_BYTES_MAX);
    assert_eq!(size_of::<Dialog>(), 96);
}

#[test]
fn violations_merge_and_travel() {
    let mut ours = Violations { watched: 3, ..Violations::default() };
    let mut theirs = Violations { watched: 4, ..Violations::default() };
    for n in 0..10u64 {
        let at = Duration::from_micros(100 - n);
        ours.add("a", n, at, || ("x".into(), "y".repeat(500)));
        theirs.add("a", 100 + n, at, || ("x".into(), "y".into()));
    }
    theirs.add("b", 1, Duration::ZERO, || ("p".into(), "q".into()));
    theirs.add_count("c", 7);
    theirs.add_count("d", 0);
    ours.merge(&theirs);
    assert_eq!((ours.watched, ours.count("a"), ours.total()), (7, 20, 28));
    assert_eq!(ours.counts().len(), 3);
    let calls: Vec<_> = ours.rules["a"].examples.iter().map(|example| example.call).collect();
    assert_eq!(calls, [4, 104, 3, 103, 2]);
    assert!(ours.rules["a"].examples[0].found.chars().count() <= VALUE_CHARS_MAX + 1);
    assert!(ours.sentences().contains(&"b: call 1 at 0.000000 s: expected p, found q".into()));
    let json = serde_json::to_string(&ours).unwrap();
    assert_eq!(serde_json::from_str::<Violations>(&json).unwrap(), ours);
}

proptest::proptest! {
    #[test]
    fn no_message_panics_the_watch(
        texts in proptest::collection::vec((proptest::bool::ANY, scrambled()), 0..12),
    ) {
        let mut end = End::new();
        for (reads, text) in &texts {
            if let Frame::Message(message, _) = message::next(text.as_bytes()) {
                end.with(|dialog, seen| match reads {
                    true => dialog.read(&message, seen),
                    false => dialog.sent(&message, seen),
                });
            }
        }
        end.loses_flow().ends();
    }

    #[test]
    fn no_file_panics_the_reader_of_events(lines in proptest::collection::vec("\\PC{0,80}", 0..8)) {
        let text = lines.join("\n");
        let _ = super::events::Events::read(text.as_bytes(), Duration::ZERO);
    }
}

/// Messages with something cut out.
fn scrambled() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let methods = prop::sample::select(vec!["INVITE", "ACK", "BYE", "CANCEL", "INFO"]);
    (methods, 0..4u32, 0..4u32, prop::sample::select(vec![0, 100, 180, 200, 487, 503]), 0..500usize)
        .prop_map(|(method, cseq, version, status, cut)| {
            let branch = format!("b{cseq}");
            let body = sdp(version);
            let text = match status {
                0 => request(By::Maker, cseq > 1, method, cseq, &branch, &body),
                _ => response(By::Maker, status, method, cseq, &branch, &body),
            };
            let end = (cut + 9).min(text.len());
            format!("{}{}", &text[..cut.min(text.len())], &text[end..])
        })
}
