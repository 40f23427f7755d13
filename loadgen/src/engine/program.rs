//! Follows the programs: one step after the other until one has to wait.

use std::time::{Duration, Instant};

use rand_chacha::rand_core::Rng;

use super::agent::{COUNTERS_MAX, Id, Phase, Side, Waiting};
use super::{Engine, Outcome, REQUEST_TIMEOUT, T2};
use crate::message::Message;
use crate::scenario::program::{self, Await, Respond, Step};
use crate::scenario::span::Span;

/// Steps that one turn may take; a loop that never waits is a mistake of the scenario.
const STEPS_MAX: u32 = 10_000;

impl Engine {
    /// Goes on with an agent's program; `message` is the one that made the call, when that is now.
    pub(super) fn advance(&mut self, id: Id, message: Option<&Message<'_>>, now: Instant) {
        for _ in 0..STEPS_MAX {
            if self[id].phase != Phase::Running {
                return;
            }
            let programs = std::rc::Rc::clone(&self.programs);
            let agent = &self[id];
            let steps = super::steps(&programs[usize::from(agent.program)], id.side);
            let Some(step) = steps.get(usize::from(agent.pc)) else {
                self.rest(id, message, now);
                return;
            };
            if !self.take(id, step, message, now) {
                self.keep_request(id, message);
                return;
            }
        }
        self.give_up(id, Outcome::Failed("a loop that never waits"), now);
    }

    /// One step; true when the next can follow at once.
    fn take(&mut self, id: Id, step: &Step, message: Option<&Message<'_>>, now: Instant) -> bool {
        match step {
            Step::Request(request) => {
                self.request(id, request, now);
                false
            }
            Step::Respond(respond) => self.respond_step(id, respond, message, now),
            Step::Wait(span) => {
                let due = self[id].due.max(self[id].began);
                let at = due + self.draw(*span);
                self.agent(id).waiting = Waiting::Time;
                self.wake_at(id, at);
                false
            }
            Step::Meet(place) => {
                self.agent(id).waiting = Waiting::Meet(*place);
                self.meet(id, *place);
                false
            }
            Step::Send(send) => self.send_raw(id, send, now),
            Step::Recv(recv) => {
                self.await_raw(id, recv, now);
                false
            }
            Step::Await(wanted) => self.await_request(id, wanted, now),
            Step::Linger(time) => {
                if self.counts(id) {
                    self.conclude(id, Outcome::Success, now);
                }
                self.agent(id).waiting = Waiting::Time;
                self.wake_at(id, now + *time);
                false
            }
            Step::End(outcome) => {
                self.end_step(id, outcome, now);
                false
            }
            jump => {
                self.jump(id, jump, now);
                true
            }
        }
    }

    fn jump(&mut self, id: Id, step: &Step, now: Instant) {
        let next = match step {
            Step::Goto(to) => Some(*to),
            Step::Chance { millionths, to } => {
                (self.random_below(1_000_000) < *millionths).then_some(*to)
            }
            Step::Repeat { counter, times, to } => {
                let slot = usize::from(*counter).min(COUNTERS_MAX - 1);
                let counter = &mut self.agent(id).counters[slot];
                *counter += 1;
                let again = *counter < *times;
                if !again {
                    *counter = 0;
                }
                again.then_some(*to)
            }
            Step::Start(mark) => {
                self.start_mark(id, *mark, now);
                None
            }
            Step::Stop(mark) => {
                self.stop_mark(id, *mark, now);
                None
            }
            _ => None,
        };
        let agent = self.agent(id);
        agent.pc = next.map_or(agent.pc + 1, |to| to as u16);
    }

    /// The program is through.
    fn rest(&mut self, id: Id, message: Option<&Message<'_>>, now: Instant) {
        self.agent(id).waiting = Waiting::Nothing;
        match id.side {
            Side::Caller if self[id].is_up() && !self[id].hung_up => {
                self.agent(id).phase = Phase::Resting;
                self.held += 1;
            }
            Side::Caller => {
                self.conclude(id, Outcome::Success, now);
                self.forget(id);
            }
            Side::Callee => {
                if self.counts(id) {
                    self.conclude(id, Outcome::Success, now);
                }
                self.keep_request(id, message);
                self.agent(id).phase = Phase::Resting;
                if !self[id].is_up() || self[id].hung_up {
                    self.forget(id);
                }
            }
        }
    }

    fn end_step(&mut self, id: Id, outcome: &program::Outcome, now: Instant) {
        let outcome = match outcome {
            _ if id.side == Side::Callee => {
                self.rest(id, None, now);
                return;
            }
            program::Outcome::Success => Outcome::Success,
            program::Outcome::Refused => Outcome::Refused,
            program::Outcome::Failure(why) => Outcome::Other(self.reason(why)),
        };
        self.give_up(id, outcome, now);
    }

    /// True when a request of the method came since the program last waited for one.
    fn await_request(&mut self, id: Id, wanted: &Await, now: Instant) -> bool {
        let bit = method_bit(wanted.method.as_bytes());
        let agent = self.agent(id);
        if agent.came & bit != 0 {
            agent.came &= !bit;
            agent.pc += 1;
            return true;
        }
        agent.waiting = Waiting::Came(bit);
        if let Some(limit) = wanted.timeout {
            self.wake_at(id, now + limit);
        }
        false
    }

    /// A request of the peer was answered: the program may have waited for it.
    pub(super) fn came(&mut self, id: Id, method: &[u8], now: Instant) {
        let bit = method_bit(method);
        let agent = self.agent(id);
        if agent.waiting == Waiting::Came(bit) {
            (agent.waiting, agent.due, agent.deadline) = (Waiting::Nothing, now, None);
            agent.pc += 1;
            self.advance(id, None, now);
        } else {
            agent.came |= bit;
        }
    }

    /// Keeps the request that made the call while it has no final response.
    fn keep_request(&mut self, id: Id, message: Option<&Message<'_>>) {
        if let Some(message) = message
            && id.side == Side::Callee
            && !self[id].answered
        {
            let kept = self.agent(id).kept();
            kept.request.clear();
            kept.request.extend_from_slice(message.raw);
        }
    }

    fn respond_step(
        &mut self,
        id: Id,
        respond: &Respond,
        message: Option<&Message<'_>>,
        now: Instant,
    ) -> bool {
        let status = format!("{} {}", respond.status, respond.reason);
        let is_final = respond.status >= 200;
        let mut headers = Vec::new();
        if !respond.headers.is_empty() {
            self.render(id, &respond.headers, 0, &mut headers, now);
        }
        match message {
            Some(message) if !self[id].answered => {
                self.answer_first(id, message, &status, &headers, respond.sdp, now);
            }
            _ => self.answer_kept(id, &status, &headers, respond.sdp, now),
        }
        let agent = self.agent(id);
        agent.pc += 1;
        if !is_final {
            return true;
        }
        agent.answered = true;
        if agent.dialog.is_empty() {
            // No INVITE: nothing acknowledges the response.
            return true;
        }
        agent.waiting = Waiting::Ack;
        if respond.status >= 300 {
            agent.phase = Phase::Ending;
            self.wake_at(id, now + REQUEST_TIMEOUT);
        }
        false
    }

    pub(super) fn draw(&mut self, span: Span) -> Duration {
        span.sample([self.random.next_u64(), self.random.next_u64()])
    }

    /// An agent's time has come.
    pub(super) fn on_time(&mut self, id: Id, due: Instant, now: Instant) {
        self.resend_due(id, now);
        self.cancel_if_due(id, now);
        if self[id].deadline.is_some_and(|at| at <= now) {
            self.agent(id).deadline = None;
            self.on_deadline(id, due, now);
        }
        if self[id].phase != Phase::Free {
            self.arm(id);
        }
    }

    /// Over datagrams: what nothing answered goes out again.
    fn resend_due(&mut self, id: Id, now: Instant) {
        let Some(kept) = self.agent(id).kept.as_mut() else { return };
        let mut again = Vec::new();
        for resend in kept.resends.iter_mut().filter(|resend| resend.at <= now) {
            resend.interval *= 2;
            if resend.capped {
                resend.interval = resend.interval.min(T2);
            }
            resend.at = now + resend.interval;
            again.push(resend.bytes.clone());
        }
        let Some(conn) = self.conn_of(id) else { return };
        for bytes in again {
            self.out.message(conn, |out| out.extend_from_slice(&bytes));
            self.retransmissions += 1;
        }
    }

    fn on_deadline(&mut self, id: Id, due: Instant, now: Instant) {
        let agent = self.agent(id);
        match (agent.phase, agent.waiting) {
            (Phase::Ending, _) => self.forget(id),
            (_, Waiting::Time) => {
                agent.waiting = Waiting::Nothing;
                agent.due = due;
                agent.pc += 1;
                self.advance(id, None, now);
            }
            (_, Waiting::Connection(_)) => self.advance(id, None, now),
            (_, Waiting::Final) => {
                agent.client.open = false;
                self.give_up(id, Outcome::Failed("no final response in time"), now);
            }
            (_, Waiting::Release(status)) => self.give_up(id, Outcome::Status(status), now),
            (_, Waiting::Message) => self.on_raw_timeout(id, now),
            (_, Waiting::Came(_)) => {
                self.give_up(id, Outcome::Failed("no request of the peer in time"), now);
            }
            (_, Waiting::Ack) => {
                agent.waiting = Waiting::Nothing;
                if let Some(kept) = agent.kept.as_mut() {
                    kept.resends.clear();
                }
            }
            (_, Waiting::Nothing | Waiting::Meet(_)) => {}
        }
    }

    /// The program of a caller is given up, or comes to its end by itself; what stands is ended.
    pub(super) fn give_up(&mut self, id: Id, outcome: Outcome, now: Instant) {
        if self.counts(id) {
            self.conclude(id, outcome, now);
        }
        self.leave_meeting(id);
        let agent = self.agent(id);
        agent.phase = Phase::Ending;
        agent.waiting = Waiting::Nothing;
        if agent.client.open && agent.client.is_invite && !agent.is_up() {
            if agent.client.proceeding {
                self.cancel(id, now);
            }
            self.wake_at(id, now + REQUEST_TIMEOUT);
        } else if agent.is_up() && !agent.hung_up {
            self.bye(id, now);
        } else if agent.client.open {
            self.wake_at(id, now + REQUEST_TIMEOUT);
        } else {
            self.forget(id);
        }
    }
}

/// Methods that a program can wait for; the rest share one.
pub(super) fn method_bit(method: &[u8]) -> u8 {
    let known: [&[u8]; 7] =
        [b"INVITE", b"BYE", b"UPDATE", b"INFO", b"OPTIONS", b"MESSAGE", b"REFER"];
    1 << known.iter().position(|known| *known == method).unwrap_or(7)
}
