//! The callers: requests out, responses and the server's BYE in.

use std::time::Instant;

use crate::engine::{Engine, Place, State, Step};
use crate::message::{Message, Method, Start};
use crate::name::{self, Direction};
use crate::text::{self, Request};

impl Engine {
    /// The INVITE that makes a call; a place used before is used anew.
    pub(crate) fn invite(&mut self, index: u32, conn: u32, now: Instant) {
        let call = &mut self.calls[index as usize];
        if call.state != State::Idle {
            call.generation += 1;
        }
        call.state = State::Inviting;
        (call.cseq, call.version) = (0, 0);
        self.send_invite(index, conn, Direction::Both, false, now);
    }

    /// A re-INVITE that offers `direction`.
    pub(crate) fn reinvite(&mut self, index: u32, conn: u32, direction: Direction, now: Instant) {
        self.calls[index as usize].state = State::Reinviting;
        self.send_invite(index, conn, direction, true, now);
    }

    fn send_invite(
        &mut self,
        index: u32,
        conn: u32,
        direction: Direction,
        inside: bool,
        now: Instant,
    ) {
        let call = &mut self.calls[index as usize];
        call.cseq += 1;
        call.version += 1;
        call.invite_cseq = call.cseq;
        call.unanswered = true;
        call.sent_at = now;
        let (cseq, version) = (call.cseq, call.version);
        let mut body = std::mem::take(&mut self.body);
        let host = &self.callers[self.caller_of(index)].host;
        name::write_sdp(&mut body, host, index, version, direction);
        self.send(index, conn, "INVITE", cseq, "", inside, &body);
        self.body = body;
    }

    /// The BYE that ends a call.
    pub(crate) fn bye(&mut self, index: u32, conn: u32, now: Instant) {
        let call = &mut self.calls[index as usize];
        call.state = State::Ending;
        call.cseq += 1;
        call.sent_at = now;
        let cseq = call.cseq;
        self.send(index, conn, "BYE", cseq, "", true, b"");
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of a request line, in its order")]
    fn send(
        &mut self,
        index: u32,
        conn: u32,
        method: &str,
        cseq: u32,
        branch_end: &str,
        inside: bool,
        body: &[u8],
    ) {
        let name = self.name(index);
        let (caller, callee) = (self.caller_of(index), self.callee_of(index));
        let request = Request {
            method,
            cseq,
            branch_end,
            name,
            caller: &self.callers[caller],
            number: &self.callees[callee].user,
            server: &self.server,
            dialog: inside.then_some(&self.calls[index as usize].dialog),
            body,
        };
        request.write(self.out.to(conn));
    }

    pub(crate) fn on_caller_message(&mut self, place: Place, message: &Message<'_>, now: Instant) {
        match message.start {
            Start::Response(status) => self.on_response(place, status, message, now),
            Start::Request(method) => self.on_caller_request(place, method, message, now),
        }
    }

    fn on_response(&mut self, place: Place, status: u16, message: &Message<'_>, now: Instant) {
        let Some(index) = self.find(message.call_id) else {
            // The end of a call whose place is in use again.
            self.violations.stray += u64::from(self.round.step != Step::Cycle);
            return;
        };
        if status < 200 {
            return;
        }
        self.counts.finals[usize::from(status / 100).min(6)] += 1;
        match message.cseq_method {
            Method::Invite => self.on_invite_final(index, place.conn, status, message, now),
            Method::Bye => {
                let call = &mut self.calls[index as usize];
                if call.state == State::Ending && message.cseq == call.cseq {
                    call.state = State::Over;
                    call.drill.bye = Some(status);
                    let took = now - call.sent_at;
                    self.latencies.bye.add(took);
                    self.finish(index, status == 200, now);
                }
            }
            Method::Ack | Method::Cancel | Method::Other => self.violations.stray += 1,
        }
    }

    fn on_invite_final(
        &mut self,
        index: u32,
        conn: u32,
        status: u16,
        message: &Message<'_>,
        now: Instant,
    ) {
        let good = (200..300).contains(&status);
        let call = &mut self.calls[index as usize];
        if message.cseq != call.invite_cseq {
            self.violations.stray += 1;
            return;
        }
        let first = std::mem::take(&mut call.unanswered);
        let inside = call.state != State::Inviting;
        if good && first {
            match inside {
                false => call.dialog.learn(message),
                true => call.dialog.refresh(message),
            }
        }
        let took = now - call.sent_at;
        if good {
            // Again for a 2xx that comes again (RFC 3261 §13.2.2.4).
            self.send(index, conn, "ACK", message.cseq, "a", true, b"");
        } else {
            let call = &self.calls[index as usize];
            let (caller, callee) = (self.caller_of(index), self.callee_of(index));
            let request = Request {
                method: "ACK",
                cseq: message.cseq,
                branch_end: "",
                name: self.name(index),
                caller: &self.callers[caller],
                number: &self.callees[callee].user,
                server: &self.server,
                dialog: inside.then_some(&call.dialog),
                body: b"",
            };
            request.write_ack_of_failure(self.out.to(conn), message);
        }
        if first {
            self.on_first_final(index, conn, status, good, now);
            let latency = match inside {
                false => &mut self.latencies.invite,
                true => &mut self.latencies.reinvite,
            };
            latency.add(took);
        }
    }

    /// What the round makes of the answer to an INVITE.
    fn on_first_final(&mut self, index: u32, conn: u32, status: u16, good: bool, now: Instant) {
        let step = self.round.step;
        let call = &mut self.calls[index as usize];
        match call.state {
            State::Inviting => {
                call.state = if good { State::Up } else { State::Over };
                call.drill.set_up = good;
                self.counts.set_up += u64::from(good);
                if good && step == Step::Cycle {
                    self.bye(index, conn, now);
                } else {
                    self.finish(index, good, now);
                }
            }
            State::Reinviting => {
                call.state = State::Up;
                match step {
                    Step::Hold => {
                        call.drill.hold = Some((status, now));
                        self.counts.holds_answered += 1;
                    }
                    Step::Retrieve => call.drill.check = Some(status),
                    Step::SetUp | Step::Bye | Step::Cycle | Step::Loop => {}
                }
                self.finish(index, good, now);
            }
            // The answer to the re-INVITE of a call that the server has ended.
            State::Over => call.drill.hold = call.drill.hold.or(Some((status, now))),
            State::Idle | State::Up | State::Ending => {}
        }
    }

    fn on_caller_request(
        &mut self,
        place: Place,
        method: Method,
        message: &Message<'_>,
        now: Instant,
    ) {
        let Some(index) = self.find(message.call_id) else {
            if method != Method::Ack {
                let out = self.out.to(place.conn);
                text::write_response(out, message, "481 No Such Call", None, None, b"");
            }
            self.violations.stray += u64::from(self.round.step != Step::Cycle);
            return;
        };
        let out = self.out.to(place.conn);
        match method {
            Method::Ack => {}
            Method::Bye => {
                text::write_response(out, message, "200 OK", None, None, b"");
                let call = &mut self.calls[index as usize];
                if call.drill.released_at.is_none() && call.state != State::Over {
                    call.drill.released_at = Some(now);
                    call.state = State::Over;
                    self.counts.released += 1;
                    self.finish(index, false, now);
                }
            }
            Method::Invite => {
                let version = &mut self.calls[index as usize].version;
                *version += 1;
                let caller = &self.callers[self.caller_of(index)];
                let direction = Direction::of(message.body).answer();
                let mut body = std::mem::take(&mut self.body);
                let version = self.calls[index as usize].version;
                name::write_sdp(&mut body, &caller.host, index, version, direction);
                let out = self.out.to(place.conn);
                text::write_response(out, message, "200 OK", None, Some(caller), &body);
                self.body = body;
            }
            Method::Cancel | Method::Other => {
                text::write_response(out, message, "200 OK", None, None, b"");
            }
        }
    }
}
