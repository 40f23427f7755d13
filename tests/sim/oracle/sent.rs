//! What the endpoints send, held to the account.

use std::net::{IpAddr, Ipv4Addr};

use holdfast::key::FlowId;
use holdfast::sip::Stats;

use super::{Attempt, Operation, Oracle, Owed, PAUSE_MAX, Phase, State, TICKS};
use crate::message::Msg;
use crate::peer::T1;
use crate::truth::{Side, Truth};

impl Oracle {
    /// An endpoint sends a message.
    pub(crate) fn on_send(
        &mut self,
        truth: &mut Truth,
        now: u64,
        shard: usize,
        flow: FlowId,
        msg: &Msg,
    ) {
        self.settle(truth, now);
        if let Some(flow) = self.flows.get_mut(&(shard, flow)) {
            flow.used = true;
        }
        let known = self.by_call_id.get(msg.text("Call-ID")).copied();
        if msg.is_response() {
            let Some(leg) = known.filter(|_| msg.method() == "INVITE") else { return };
            let leg = &mut self.legs[leg];
            if msg.status() >= 200 {
                leg.served.remove(&msg.cseq().0);
            }
            if (200..300).contains(&msg.status()) {
                leg.confirmed = true;
                leg.unacked.entry(msg.cseq().0).or_insert(now);
            }
            return;
        }
        let cseq = msg.cseq().0;
        let leg = match known {
            Some(leg) => leg,
            None if msg.method() == "INVITE" => {
                let Some(call) = msg.number("X-Sim-Call").map(|call| call as usize) else { return };
                let peer = truth.calls[call].callee;
                self.add_leg(msg, call, Side::Callee, peer)
            }
            None => return,
        };
        if self
            .flows
            .get(&(shard, flow))
            .is_some_and(|flow| flow.peer.ip() != self.address_of(self.legs[leg].peer))
        {
            truth.failures.push(format!("{msg} goes to another peer than its dialog's"));
        }
        match msg.method() {
            "ACK" => {
                self.acks.remove(&(leg, cseq));
                return;
            }
            "CANCEL" => {
                if let Some(&(leg, operation, attempt)) = self.branches.get(&msg.branch()) {
                    let over = now + 64 * T1 - 1;
                    self.owe(over, Owed::Cancelled { leg, operation, attempt });
                }
                return;
            }
            _ => {}
        }
        if !self.sent.insert((msg.branch(), msg.method().to_owned())) && msg.method() != "INVITE" {
            // The one new connection of a request whose flow was lost.
            truth.cover("request sent again over a new flow");
            return;
        }
        if cseq <= self.legs[leg].cseq {
            truth.failures.push(format!("{msg}: CSeq after {}", self.legs[leg].cseq));
        }
        let before = std::mem::replace(&mut self.legs[leg].cseq, cseq);
        match msg.method() {
            "INVITE" => self.on_attempt(truth, now, (shard, flow), leg, before, msg),
            "BYE" => self.on_bye(truth, now, leg, msg),
            _ => {}
        }
    }

    fn address_of(&self, peer: usize) -> IpAddr {
        let found = self.addresses.iter().find(|(_, index)| **index == peer);
        found.map_or(Ipv4Addr::UNSPECIFIED.into(), |(addr, _)| addr.ip())
    }

    fn on_attempt(
        &mut self,
        truth: &mut Truth,
        now: u64,
        place: (usize, FlowId),
        leg: usize,
        cseq_before: u32,
        msg: &Msg,
    ) {
        let peer = self.legs[leg].peer;
        let alive = self.rules.get(peer).is_some_and(|rules| rules.backup)
            && self.alive.get(&peer) == Some(&now);
        let state = &mut self.legs[leg];
        let attempt = Attempt { msg: msg.clone(), place, sent_at: now, state: State::Out };
        let call = state.call;
        let mut wrong = Vec::new();
        match state.operations.last_mut() {
            Some(operation) if operation.phase == Phase::Attempting => {
                wrong.push("an INVITE while another is open".to_owned());
                operation.attempts.push(attempt);
                operation.current = operation.attempts.len() - 1;
            }
            Some(operation) if operation.phase != Phase::Over => {
                if let Phase::Waiting { due, exact } = operation.phase {
                    if now < due && alive {
                        truth.cover("target came alive during a wait");
                    } else if now < due {
                        wrong.push(format!("an attempt before {due}, when its wait ends"));
                    }
                    truth.cover(if exact { "attempt repeated" } else { "attempt after 491" });
                }
                if msg.cseq().0 != cseq_before + 1 {
                    wrong.push(format!("CSeq of the new attempt after {cseq_before}"));
                }
                if let Some(last) = operation.attempts.last() {
                    for name in ["From", "To", "Call-ID", "Contact", "Route", "X-Sim-Id"] {
                        if last.msg.list(name) != msg.list(name) {
                            wrong.push(format!("{name} of the new attempt differs"));
                        }
                    }
                    if last.msg.body != msg.body {
                        wrong.push("body of the new attempt differs".to_owned());
                    }
                    if last.msg.uri() != msg.uri() {
                        wrong.push("Request-URI of the new attempt differs".to_owned());
                    }
                }
                operation.phase = Phase::Attempting;
                operation.attempts.push(attempt);
                operation.current = operation.attempts.len() - 1;
            }
            Some(_) | None => state.operations.push(Operation {
                attempts: vec![attempt],
                current: 0,
                phase: Phase::Attempting,
                first_failure: None,
                window_max: 0,
                cancelled: false,
                failed_targets: 0,
                paused: 0,
            }),
        }
        if let Some(deadline) = self.deadline(leg)
            && now >= deadline
        {
            wrong.push("an attempt after the deadline".to_owned());
        }
        for text in wrong {
            truth.failures.push(format!("call {call}: {msg}: {text}"));
        }
        let index = self.legs[leg].operations.len() - 1;
        let number = self.legs[leg].operations[index].attempts.len() - 1;
        if self.branches.insert(msg.branch(), (leg, index, number)).is_some() {
            truth.failures.push(format!("{msg}: the branch was used before"));
        }
        self.on_flow.entry(place).or_default().push(leg);
    }

    fn on_bye(&mut self, truth: &mut Truth, now: u64, leg: usize, msg: &Msg) {
        let call = self.legs[leg].call;
        self.legs[leg].ended = true;
        if msg.number("X-Sim-Id").is_none() {
            self.justify(truth, now, leg);
            let state = &truth.calls[call];
            let asked = state.ended.is_some() || !state.established;
            if !asked && state.may_release.is_none() {
                truth.failures.push(format!("call {call}: {msg} that nobody asked for"));
            }
            let transport = matches!(state.may_release.as_deref(), Some("delay 0" | "given up"));
            let reason = msg.text("Reason");
            if transport
                && !asked
                && !self.legs[leg].failed
                && reason != "SIP;cause=503;text=\"transport-error\""
            {
                truth.failures.push(format!("call {call}: {msg}: Reason {reason:?}"));
            }
        }
        self.stop(leg);
    }

    /// Finds out whether the server may end a call now, and notes why.
    fn justify(&mut self, truth: &mut Truth, now: u64, leg: usize) {
        let call = self.legs[leg].call;
        if truth.calls[call].may_release.is_some() {
            return;
        }
        if self.drain.is_some_and(|deadline| now >= deadline) {
            truth.calls[call].may_release = Some("drained".to_owned());
            return;
        }
        for leg in [Some(leg), self.other(leg, truth)].into_iter().flatten() {
            let at_deadline = self.deadline(leg).is_some_and(|deadline| now >= deadline);
            let state = &self.legs[leg];
            let operation = state.operations.last();
            let pause = matches!(operation, Some(Operation {
                phase: Phase::Waiting { exact: false, .. }, first_failure: Some(at), ..
            }) if now + PAUSE_MAX >= at + self.window);
            if pause {
                truth.cover("released: no pause after 491 fits into the window");
                truth.calls[call].may_release = Some("given up".to_owned());
                return self.expect_release(truth, now, leg, "given up");
            }
            // One that its peer has answered provisionally has no deadline any more.
            let open = operation.is_some_and(|op| op.phase != Phase::Over && !op.proceeds());
            if at_deadline && open {
                truth.cover("released: at the deadline");
                truth.calls[call].may_release = Some("given up".to_owned());
                if operation.is_some_and(|op| op.phase == Phase::Attempting) {
                    self.check_promise(truth, now, leg);
                }
                self.expect_release(truth, now, leg, "given up");
                return;
            }
            let silent = operation.is_some_and(|op| {
                let attempt = &op.attempts[op.current];
                let out = op.phase == Phase::Attempting && attempt.state == State::Out;
                out && now + TICKS >= attempt.sent_at + 64 * T1
            });
            if silent {
                truth.cover("released: timer B");
                truth.calls[call].may_release = Some("timer B".to_owned());
                return;
            }
            if state.unacked.values().any(|since| now + TICKS >= since + 64 * T1) {
                truth.cover("released: 2xx never acknowledged");
                truth.calls[call].may_release = Some("no ACK".to_owned());
                return;
            }
        }
    }

    /// A turn is over: what it had to do is done.
    pub(crate) fn after_turn(&mut self, truth: &mut Truth, _now: u64, shard: usize, stats: &Stats) {
        if let Some(unused) = self.flows.iter().find(|((on, _), flow)| *on == shard && !flow.used) {
            truth.failures.push(format!("a connection that nobody needs: {unused:?}"));
        }
        let waiting = self.legs.iter().filter(|leg| leg.is_waiting(shard)).count();
        if waiting != stats.waiting && !self.passive {
            truth.failures.push(format!(
                "shard {shard} says that {} legs wait, but {waiting} do",
                stats.waiting
            ));
        }
        for (leg, cseq) in std::mem::take(&mut self.acks) {
            let call = self.legs[leg].call;
            truth.failures.push(format!(
                "call {call}: shard {shard} did not ACK the response to INVITE {cseq}"
            ));
        }
    }
}
