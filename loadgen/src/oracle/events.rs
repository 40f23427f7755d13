//! What the server says in its event file (docs/EVENTS.md), against what its peers saw.
//!
//! Events name a call by a ConnID that its peers never see. So calls are compared by the number of
//! their callee: how many the server speaks of, and how many were seen. What a peer cannot know for
//! sure (a final response that died on the wire) widens the range that is taken for right.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufRead};
use std::time::Duration;

use serde::Deserialize;

use super::Violations;

/// Longer lines are passed over; the server's are below 1 KiB.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Calls kept; events of further ones are counted as left out.
const CALLS_MAX: usize = 4_000_000;
/// Numbers of callees kept.
const NUMBERS_MAX: usize = 1_000_000;
/// Shards whose sequence is followed.
const SHARDS_MAX: usize = 1024;

/// What the event file says.
#[derive(Debug, Default)]
pub(crate) struct Events {
    calls: HashMap<u128, Call>,
    numbers: HashMap<String, u32>,
    sequences: HashMap<u64, u64>,
    /// Lines taken.
    pub(crate) lines: u64,
    /// Events that the server says it lost.
    pub(crate) lost: u64,
    /// Whole lines that are no event.
    pub(crate) unreadable: u64,
    /// The last line was cut off.
    pub(crate) truncated: bool,
    /// Lines that found no place, or were too long.
    pub(crate) left_out: u64,
    /// Numbers of a shard that did not follow, with no gap announced.
    pub(crate) out_of_sequence: u64,
    gap: bool,
}

/// What is said of one call.
#[derive(Clone, Copy, Debug, Default)]
struct Call {
    callee: u32,
    established: bool,
    started: u32,
    succeeded: u32,
    given_up: u32,
    ended: u32,
    /// Releases and abandonments of the caller and of the callee.
    over: [u32; 2],
}

/// A count of which it is known only that it is no lower and no higher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Between {
    pub(crate) least: u64,
    pub(crate) most: u64,
}

/// What was seen of the calls of a callee.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeenCalls {
    /// Calls whose 2xx the server had: the callee sent it, and read its ACK.
    pub(crate) established: Between,
    /// Recoveries that ended well: re-INVITEs answered after a later attempt.
    pub(crate) recovered: Between,
    /// Recoveries given up, after which the server released the call.
    pub(crate) given_up: Between,
    /// Established calls that ended.
    pub(crate) over: Between,
}

impl Between {
    pub(crate) fn add(&mut self, other: Self) {
        self.least = self.least.saturating_add(other.least);
        self.most = self.most.saturating_add(other.most);
    }
}

impl SeenCalls {
    /// Adds what was seen elsewhere, or later.
    pub(crate) fn add(&mut self, other: &Self) {
        self.established.add(other.established);
        self.recovered.add(other.recovered);
        self.given_up.add(other.given_up);
        self.over.add(other.over);
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "Event", borrow)]
    event: Cow<'a, str>,
    #[serde(rename = "UserEvent", borrow, default)]
    user_event: Option<Cow<'a, str>>,
    #[serde(rename = "Time", default)]
    time: Option<Time>,
    #[serde(rename = "Shard", default)]
    shard: Option<u64>,
    #[serde(rename = "EventSequenceNumber", default)]
    sequence: Option<u64>,
    #[serde(rename = "ConnID", borrow, default)]
    conn_id: Option<Cow<'a, str>>,
    #[serde(rename = "Leg", borrow, default)]
    leg: Option<Cow<'a, str>>,
    #[serde(rename = "ThisDN", borrow, default)]
    this_dn: Option<Cow<'a, str>>,
    #[serde(rename = "OtherDN", borrow, default)]
    other_dn: Option<Cow<'a, str>>,
    #[serde(rename = "Outcome", borrow, default)]
    outcome: Option<Cow<'a, str>>,
    #[serde(rename = "Lost", default)]
    lost: Option<u64>,
}

#[derive(Clone, Copy, Deserialize)]
struct Time {
    #[serde(rename = "TimeinSecs")]
    seconds: u64,
    #[serde(rename = "TimeinuSecs")]
    micros: u64,
}

impl Events {
    /// Reads an event file. Lines of an instant before `since` (of the clock, since 1970) are
    /// passed over: the server appends.
    ///
    /// # Errors
    ///
    /// Those of the reader. What is in the lines is never an error.
    pub(crate) fn read(mut from: impl BufRead, since: Duration) -> io::Result<Self> {
        let mut events = Self::default();
        let mut line = Vec::new();
        while let Some(whole) = next_line(&mut from, &mut line)? {
            if line.len() > LINE_BYTES_MAX {
                events.left_out += 1;
            } else if !line.trim_ascii().is_empty() {
                events.take(&line, whole, since);
            }
        }
        Ok(events)
    }

    fn take(&mut self, line: &[u8], whole: bool, since: Duration) {
        let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else {
            self.truncated |= !whole;
            self.unreadable += u64::from(whole);
            return;
        };
        let at = line.time.map(|time| {
            Duration::from_secs(time.seconds).saturating_add(Duration::from_micros(time.micros))
        });
        if at.is_some_and(|at| at < since) {
            return;
        }
        self.lines += 1;
        if line.event == "Gap" {
            self.lost = self.lost.saturating_add(line.lost.unwrap_or(1));
            self.gap = true;
            return;
        }
        if let (Some(shard), Some(sequence)) = (line.shard, line.sequence) {
            self.follow(shard, sequence);
        }
        let id = line.conn_id.as_deref().and_then(read_id);
        let callee = match line.leg.as_deref() {
            Some("callee") => line.this_dn.as_deref(),
            _ => line.other_dn.as_deref(),
        };
        if let Some(id) = id
            && !self.note(id, callee.unwrap_or_default(), &line)
        {
            self.left_out += 1;
        }
    }

    fn follow(&mut self, shard: u64, sequence: u64) {
        if self.sequences.len() >= SHARDS_MAX && !self.sequences.contains_key(&shard) {
            return;
        }
        let before = self.sequences.insert(shard, sequence);
        // 1 is a server that started anew.
        let follows = before.is_none_or(|n| n.checked_add(1) == Some(sequence)) || sequence == 1;
        self.out_of_sequence += u64::from(!follows && !self.gap);
    }

    /// False when there is no place for another call.
    fn note(&mut self, id: u128, callee: &str, line: &Line<'_>) -> bool {
        let full = self.calls.len() >= CALLS_MAX || self.numbers.len() >= NUMBERS_MAX;
        if full && !self.calls.contains_key(&id) {
            return false;
        }
        let next = self.numbers.len() as u32;
        let number = match self.numbers.get(callee) {
            Some(number) => *number,
            None => {
                self.numbers.insert(callee.to_owned(), next);
                next
            }
        };
        let call = self.calls.entry(id).or_insert(Call { callee: number, ..Call::default() });
        let leg = usize::from(line.leg.as_deref() == Some("callee"));
        match (line.event.as_ref(), line.user_event.as_deref()) {
            ("EventEstablished", _) => call.established = true,
            ("EventReleased" | "EventAbandoned", _) => call.over[leg] += 1,
            ("EventUserEvent", Some("RecoveryStarted")) => call.started += 1,
            ("EventUserEvent", Some("RecoverySucceeded")) => call.succeeded += 1,
            ("EventUserEvent", Some("RecoveryEnded")) => {
                call.ended += 1;
                call.given_up += u32::from(line.outcome.as_deref() == Some("given-up"));
            }
            _ => {}
        }
        true
    }

    /// Compares with what was seen; breaches carry the instant `at`.
    ///
    /// * `event_missing`: fewer events than must be;
    /// * `event_for_nothing`: more events than can be;
    /// * `event_contradicts`: a call said to be over that stands, one released twice, a recovery
    ///   that never ends;
    /// * `event_sequence`, `event_unreadable`: the file itself.
    ///
    /// What the server says it lost is not missing.
    pub(crate) fn compare<'a>(
        &self,
        seen: impl IntoIterator<Item = (&'a str, SeenCalls)>,
        at: Duration,
        violations: &mut Violations,
    ) {
        let complete = self.lost == 0 && self.left_out == 0 && !self.truncated;
        violations.add_count("event_sequence", self.out_of_sequence);
        violations.add_count("event_unreadable", self.unreadable);
        self.check_promises(complete, at, violations);
        let mut sums: HashMap<&str, Sums> = HashMap::new();
        for (callee, calls) in seen {
            sums.entry(callee).or_default().seen.add(&calls);
        }
        let mut names = vec![""; self.numbers.len()];
        for (name, number) in &self.numbers {
            names[*number as usize] = name;
        }
        for call in self.calls.values() {
            sums.entry(names[call.callee as usize]).or_default().add_said(call);
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_unstable_by_key(|(callee, _)| *callee);
        for (callee, sum) in sums {
            sum.judge(callee, complete, at, violations);
        }
    }

    /// What docs/EVENTS.md promises of each call: a recovery ends once, a party is over once.
    fn check_promises(&self, complete: bool, at: Duration, violations: &mut Violations) {
        for (id, call) in &self.calls {
            let ends = call.succeeded.saturating_add(call.ended);
            if complete && ends != call.started {
                violations.add("event_contradicts", 0, at, || {
                    let expected = format!("{} ends of recoveries of {id:020x}", call.started);
                    (expected, ends.to_string())
                });
            }
            if call.over.iter().any(|times| *times > 1) {
                violations.add("event_contradicts", 0, at, || {
                    (format!("each party of {id:020x} released once"), format!("{:?}", call.over))
                });
            }
        }
    }
}

/// One callee: what was seen, and what was said.
#[derive(Debug, Default)]
struct Sums {
    seen: SeenCalls,
    established: u64,
    recovered: u64,
    given_up: u64,
    over: u64,
}

impl Sums {
    fn add_said(&mut self, call: &Call) {
        self.established += u64::from(call.established);
        self.recovered += u64::from(call.succeeded);
        self.given_up += u64::from(call.given_up);
        let over = call.over.iter().all(|times| *times > 0);
        self.over += u64::from(call.established && over);
    }

    fn judge(&self, callee: &str, complete: bool, at: Duration, violations: &mut Violations) {
        let all = [
            ("calls established", self.seen.established, self.established, "event_for_nothing"),
            ("recoveries succeeded", self.seen.recovered, self.recovered, "event_for_nothing"),
            ("recoveries given up", self.seen.given_up, self.given_up, "event_contradicts"),
            ("calls over", self.seen.over, self.over, "event_contradicts"),
        ];
        for (what, Between { least, most }, said, too_many) in all {
            let rule = match said {
                _ if said > most => too_many,
                _ if said < least && complete => "event_missing",
                _ => continue,
            };
            violations.add(rule, 0, at, || {
                (format!("{least} to {most} {what}, callee {callee}"), said.to_string())
            });
        }
    }
}

/// 20 hexadecimal digits.
fn read_id(text: &str) -> Option<u128> {
    let digits = text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// The next line into `line`, of which no more is kept than shows that it is too long. `None`: no
/// more lines; false: the line has no end.
fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let mut any = false;
    loop {
        let bytes = match from.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if bytes.is_empty() {
            return Ok(any.then_some(false));
        }
        any = true;
        let end = memchr::memchr(b'\n', bytes);
        let taken = end.unwrap_or(bytes.len());
        let room = (LINE_BYTES_MAX + 1).saturating_sub(line.len());
        line.extend_from_slice(&bytes[..taken.min(room)]);
        from.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(Some(true));
        }
    }
}
