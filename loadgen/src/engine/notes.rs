//! What agents do is written down here, and watched by the oracle.

use std::time::{Duration, Instant};

use super::agent::{Id, Phase, Side};
use super::danger::{Fate, StruckCall};
use super::{Engine, Outcome};
use crate::message::{self, Frame, Message};
use crate::net::Place;
use crate::oracle::{self, Between, Seen, SeenCalls, Violations};
use crate::outcome::{self, End, Latency, Recorder, RecoverySample};
use crate::scenario::program::{Kind, Scenario, Step};

/// Troubles that are told of.
const TROUBLES_MAX: usize = 16;

/// Instants become durations since `start`, names numbers.
pub(crate) struct Notes {
    pub(crate) start: Instant,
    pub(crate) recorder: Recorder,
    pub(crate) violations: Violations,
    pub(crate) troubles: Vec<String>,
    /// The server's delay, for the excess beyond it.
    delay: Duration,
    steps: [Vec<Vec<Option<Latency>>>; 2],
    marks: Vec<Vec<Latency>>,
    bye: Latency,
    release: Latency,
}

impl Notes {
    pub(super) fn new(
        programs: &[Scenario],
        start: Instant,
        interval: Duration,
        delay: Duration,
    ) -> Self {
        let mut recorder = Recorder::new(interval);
        let marks = programs
            .iter()
            .map(|program| program.marks.iter().map(|name| recorder.latency(name)).collect())
            .collect();
        let mut of = |caller: bool| {
            let side = |program: &Scenario| {
                let steps = if caller { &program.caller } else { &program.callee };
                let marks = &program.marks;
                steps.iter().map(|step| named(step, steps, marks, caller, &mut recorder)).collect()
            };
            programs.iter().map(side).collect::<Vec<Vec<_>>>()
        };
        let steps = [of(true), of(false)];
        let (bye, release) = (recorder.latency("bye"), recorder.latency("release"));
        let violations = Violations::default();
        let troubles = Vec::new();
        Self { start, recorder, violations, troubles, delay, steps, marks, bye, release }
    }

    /// The response time that the step of a program counts for; BYEs of no program are `bye`.
    pub(super) fn latency_of_step(&self, side: Side, program: u16, pc: u16) -> Option<Latency> {
        self.steps[side as usize].get(usize::from(program))?.get(usize::from(pc)).copied().flatten()
    }

    pub(super) fn latency_of_bye(&self) -> Latency {
        self.bye
    }

    pub(crate) fn since(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.start)
    }

    pub(super) fn started(&mut self, intended: Instant, now: Instant) {
        self.recorder.started(self.since(intended), self.since(now));
    }

    /// Something that the operator should hear of.
    pub(crate) fn trouble(&mut self, what: String) {
        if self.troubles.len() < TROUBLES_MAX {
            self.troubles.push(what);
        }
    }

    /// There was no place for a call.
    pub(super) fn no_place(&mut self) {
        self.recorder.count("no_place", 1);
    }

    pub(super) fn struck(&mut self, call: &StruckCall) {
        let since = |at: Option<Instant>| at.map(|at| self.since(at));
        let good = call.answered.is_some();
        if !call.outstanding {
            let name = if call.fate == Fate::Kept { "exposed_kept" } else { "exposed_not_kept" };
            self.recorder.count(name, 1);
            return;
        }
        let fate = match (call.fate, good) {
            (Fate::Kept, true) => outcome::Fate::Safe,
            (Fate::Unknown, _) => outcome::Fate::Unknown,
            (Fate::Kept | Fate::Lost | Fate::Released, _) => outcome::Fate::Lost,
        };
        let sample = RecoverySample {
            fault_at: self.since(call.fault_at),
            detected_at: since(call.detected),
            first_attempt_at: since(call.first_attempt),
            attempts: call.attempts,
            answered_at: since(call.answered),
            acked_at: since(call.acked),
            delay: call.due,
            fate,
        };
        if call.fate == Fate::Released {
            let (fault, ended) = (sample.fault_at, self.since(call.ended));
            self.recorder.response(self.release, fault, fault, ended);
        }
        self.recorder.recovered(&sample);
    }
}

/// The names of the response times that programs measure.
pub(super) fn response_names(programs: &[Scenario]) -> Vec<String> {
    let notes = Notes::new(programs, Instant::now(), Duration::from_secs(1), Duration::ZERO);
    notes.recorder.names().map(str::to_owned).collect()
}

/// The name under which the response time of a step is kept.
fn named(
    step: &Step,
    steps: &[Step],
    marks: &[String],
    caller: bool,
    recorder: &mut Recorder,
) -> Option<Latency> {
    if let Step::Request(request) = step
        && let Some(mark) = request.mark.and_then(|mark| marks.get(usize::from(mark)))
    {
        return Some(recorder.latency(mark));
    }
    let request = |step: &Step| match step {
        Step::Request(request) => Some((request.method.clone(), request.line)),
        Step::Send(send) => match &send.kind {
            Kind::Request(method) => Some((method.clone(), send.line)),
            Kind::Response(_) => None,
        },
        _ => None,
    };
    let (method, line) = request(step)?;
    let first = steps.iter().filter_map(request).find(|(method, _)| method == "INVITE");
    let name = match method.as_str() {
        "ACK" | "CANCEL" => return None,
        "INVITE" if caller && first.is_some_and(|(_, first)| first == line) => "invite".into(),
        "INVITE" => "reinvite".into(),
        other => other.to_ascii_lowercase(),
    };
    Some(recorder.latency(&name))
}

impl Engine {
    /// The oracle sees a message that an agent read.
    pub(super) fn watch_message(&mut self, id: Id, message: &Message<'_>, now: Instant) {
        let (mut watch, mut seen) = self.seen(id, now);
        watch.read(message, &mut seen);
        self.agent(id).watch = watch;
    }

    /// The oracle sees bytes that an agent wrote.
    pub(super) fn watch_written(&mut self, id: Id, bytes: &[u8], now: Instant) {
        if let Frame::Message(message, _) = message::next(bytes) {
            self.watch_sent(id, &message, now);
        }
    }

    /// The oracle sees a message that an agent wrote.
    pub(super) fn watch_sent(&mut self, id: Id, message: &Message<'_>, now: Instant) {
        let (mut watch, mut seen) = self.seen(id, now);
        watch.sent(message, &mut seen);
        self.agent(id).watch = watch;
    }

    /// An agent is no more: what the server owes it is missing. Over datagrams what is lost would be
    /// sent again, and nobody waits for that.
    pub(super) fn note_gone(&mut self, id: Id) {
        let (now, datagrams) = (self.now, self.settings.datagrams);
        let (mut watch, mut seen) = self.seen(id, now);
        if !datagrams {
            watch.end(&mut seen);
        }
        if id.side == Side::Callee {
            self.seen_of(id).add(&watch.seen_call());
        } else {
            let over = watch.is_over();
            if let Some(peer) = self.peer_of(id).filter(|_| !over) {
                self.agent(peer).watch.other_left();
            }
            // What a caller recovers it cannot tell from what its callee asked for anew.
            let most = watch.recoveries().most;
            if most > 0 {
                self.seen_of(id).recovered.add(Between { least: 0, most });
            }
        }
    }

    /// What was seen of the calls of the callee that an agent is or calls.
    fn seen_of(&mut self, id: Id) -> &mut SeenCalls {
        let callee = match self.peer_of(id) {
            Some(peer) if id.side == Side::Caller => self[peer].party as usize,
            _ => self.callee_of(id),
        };
        &mut self.seen_calls[callee]
    }

    /// A connection is no more: what went over it last may not have arrived.
    pub(super) fn note_closed(&mut self, place: Place, ended: Instant) {
        let (at, delay) = (self.notes.since(ended), self.settings.delay);
        let agents = match place.side {
            Side::Caller => &mut self.callers_agents,
            Side::Callee => &mut self.callees_agents,
        };
        for index in agents.of_party(place.party).to_vec() {
            let agent = &mut agents[index];
            if agent.conn == place.conn {
                agent.watch.lost(at, delay);
            }
        }
    }

    /// What was seen of the calls of each callee, by its number.
    pub(crate) fn take_seen_calls(&mut self) -> Vec<(String, SeenCalls)> {
        let numbers = self.callees.iter().map(|party| party.user.clone());
        numbers.zip(std::mem::take(&mut self.seen_calls)).collect()
    }

    fn seen(&mut self, id: Id, now: Instant) -> (oracle::Dialog, Seen<'_>) {
        let may_end = self.may_end(id);
        let agent = &self[id];
        let (watch, call) = (agent.watch, u64::from(self.caller_name_of(id).index));
        let datagrams = self.settings.datagrams;
        let notes = &mut self.notes;
        let (at, delay) = (notes.since(now), notes.delay);
        let violations = &mut notes.violations;
        (watch, Seen { call, at, datagrams, may_end, delay, violations })
    }

    /// The server has a reason to end this call: the other end hung up, its connection was struck, or
    /// an INVITE of the server waits for an answer at either end.
    fn may_end(&self, id: Id) -> bool {
        let agent = &self[id];
        let other = self.peer_of(id);
        let hung_up =
            other.is_none_or(|peer| self[peer].hung_up || self[peer].phase == Phase::Ending);
        let silent = other.is_some_and(|peer| self[peer].watch.owes_answer());
        agent.hung_up || hung_up || silent || agent.watch.owes_answer() || self.is_exposed(id)
    }

    /// A final response to the request in progress.
    pub(super) fn note_final(&mut self, id: Id, status: u16, now: Instant) {
        let client = self[id].client;
        let notes = &mut self.notes;
        if let Some(latency) = client.latency {
            let (intended, sent) = (notes.since(client.intended), notes.since(client.sent));
            let at = notes.since(now);
            notes.recorder.response(latency, intended, sent, at);
        }
        if client.is_invite {
            self.danger_answered(id, status, now);
            if let Some(peer) = self.peer_of(id) {
                self.agent(peer).watch.operation_over();
            }
        }
    }

    /// The 2xx of the INVITE that made the call was read, or its ACK.
    pub(super) fn note_set_up(&mut self, id: Id) {
        if self.counts(id) {
            self.notes.recorder.set_up();
        }
    }

    /// The call is over, one way or the other; once for each call.
    pub(super) fn conclude(&mut self, id: Id, outcome: Outcome, now: Instant) {
        if std::mem::replace(&mut self.agent(id).concluded, true) {
            return;
        }
        self.danger_concluded(id, &outcome, now);
        if outcome != Outcome::Success {
            self.note_given_up(id);
        }
        let up = self[id].is_up();
        let at = self.notes.since(now);
        let text;
        let end = match &outcome {
            Outcome::Success => End::Kept,
            Outcome::Refused => End::Refused,
            Outcome::Released => End::Released,
            Outcome::Status(_) if up => End::Lost,
            Outcome::Status(status) => {
                text = format!("answered {status}");
                End::Failed(&text)
            }
            Outcome::Failed(why) => End::Failed(why),
            Outcome::Other(why) => End::Failed(why),
        };
        self.notes.recorder.call_done(end, at);
    }

    /// The server may have given up a recovery of the call.
    fn note_given_up(&mut self, caller: Id) {
        if self[caller].is_up() {
            self.seen_of(caller).given_up.add(Between { least: 0, most: 1 });
        }
    }

    pub(super) fn note_connect(&mut self, place: Place, now: Instant) {
        if place.side == Side::Callee {
            let at = self.notes.since(now);
            self.notes.recorder.connect(at);
        }
        self.danger_connect(place, now);
    }

    pub(super) fn start_mark(&mut self, id: Id, mark: u8, now: Instant) {
        let marks = &mut self.agent(id).kept().marks;
        if marks.len() <= usize::from(mark) {
            marks.resize(usize::from(mark) + 1, None);
        }
        marks[usize::from(mark)] = Some(now);
    }

    pub(super) fn stop_mark(&mut self, id: Id, mark: u8, now: Instant) {
        let program = usize::from(self[id].program);
        let kept = self.agent(id).kept();
        let Some(began) = kept.marks.get_mut(usize::from(mark)).and_then(Option::take) else {
            return;
        };
        let notes = &mut self.notes;
        if let Some(latency) = notes.marks[program].get(usize::from(mark)).copied() {
            let (began, now) = (notes.since(began), notes.since(now));
            notes.recorder.response(latency, began, began, now);
        }
    }

    /// The run ends before the call.
    fn note_unknown(&mut self, id: Id) {
        if !std::mem::replace(&mut self.agent(id).concluded, true) {
            let at = self.notes.since(self.now);
            self.notes.recorder.call_done(End::Unknown, at);
            self.note_given_up(id);
        }
    }

    /// A callee that still stands at the end of the run was not told that its call is over.
    fn note_untold(&mut self, id: Id) {
        let (now, up) = (self.now, self[id].is_up());
        let callee = self.party_of(id).user.clone();
        let (watch, seen) = self.seen(id, now);
        if up && watch.must_be_told() {
            seen.violations.add("bye_missing", seen.call, seen.at, || {
                (format!("BYE to callee {callee}"), "none".into())
            });
        } else if up {
            // A BYE cannot reach who lost its flow and was not there when the call ended.
            self.notes.recorder.count("callees_out_of_touch", 1);
        }
    }

    /// The end of the run: calls that still stand are told of, and what callees were never told.
    pub(crate) fn finish(&mut self, now: Instant) {
        self.now = now;
        self.settle_rest(now);
        let callers: Vec<u32> = self.callers_agents.iter().map(|(index, _)| index).collect();
        for index in callers {
            let id = Id { side: Side::Caller, index };
            self.note_unknown(id);
            self.forget(id);
        }
        let callees: Vec<u32> = self.callees_agents.iter().map(|(index, _)| index).collect();
        for index in callees {
            let id = Id { side: Side::Callee, index };
            match self.only_answers {
                true => self.note_unknown(id),
                false => self.note_untold(id),
            }
            self.forget(id);
        }
        self.notes.recorder.count("late_messages", std::mem::take(&mut self.late));
        self.notes.recorder.count("retransmissions", std::mem::take(&mut self.retransmissions));
    }
}
