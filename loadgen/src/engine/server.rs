//! Requests that come in: the agent beneath every program answers them.

use std::rc::Rc;
use std::time::Instant;

use super::agent::{Id, NONE, Phase, Resent, Side, Waiting};
use super::manner::Manner;
use super::{Engine, Outcome, REQUEST_TIMEOUT, T1};
use crate::message::{self, Message, Method, Start};
use crate::name::{self, Direction};
use crate::net::Place;
use crate::oracle::digest;
use crate::scenario::program::{Awaited, Step};
use crate::text::{self, Answer, Dialog};

impl Engine {
    /// A request that belongs to no agent.
    pub(super) fn on_foreign_request(
        &mut self,
        place: Place,
        method: Method,
        message: &Message<'_>,
        now: Instant,
    ) {
        let inside = !message::parameter(message.to, b"tag").is_empty();
        match method {
            Method::Ack => {}
            Method::Cancel => self.on_cancel(place, message, now),
            _ if inside => {
                self.late += 1;
                self.respond_plain(place.conn, message, "481 Call/Transaction Does Not Exist");
            }
            _ if place.side == Side::Callee => self.on_new_call(place, method, message, now),
            Method::Invite => self.respond_plain(place.conn, message, "486 Busy Here"),
            Method::Bye => {
                self.respond_plain(place.conn, message, "481 Call/Transaction Does Not Exist");
            }
            // Keep-alives by OPTIONS and the like.
            Method::Other => self.respond_plain(place.conn, message, "200 OK"),
        }
    }

    pub(super) fn respond_plain(&mut self, conn: u32, message: &Message<'_>, status: &str) {
        self.out.message(conn, |out| {
            text::write_response(out, message, status, &Answer::default());
        });
    }

    /// A callee is called.
    fn on_new_call(&mut self, place: Place, method: Method, message: &Message<'_>, now: Instant) {
        let branch = digest::long(message.branch);
        if let Some(index) = self.invited.get(&branch).copied() {
            self.repeat_response(Id { side: Side::Callee, index }, place.conn);
            return;
        }
        if method == Method::Other && !self.takes(message) {
            self.respond_plain(place.conn, message, "200 OK");
            return;
        }
        if method == Method::Invite && self.misbehave(place, None, message, now) {
            return;
        }
        let Some(index) = self.callees_agents.add(place.party, now) else {
            self.respond_plain(place.conn, message, "503 Service Unavailable");
            return;
        };
        let id = Id { side: Side::Callee, index };
        self.link(id, message);
        let tag = self.tag(id);
        let agent = self.agent(id);
        agent.conn = place.conn;
        agent.remote_cseq = message.cseq;
        agent.came |= super::program::method_bit(message.method_name());
        if method == Method::Invite {
            agent.dialog = Dialog::of_request(message, &tag);
        }
        self.invited.insert(branch, index);
        self.agent(id).branch = branch;
        if self.keeps_call_ids {
            self.by_call_id.insert(digest::long(message.call_id), index);
        }
        if self.only_answers {
            self.begun += 1;
            self.draw_rows(id);
            self.notes.started(now, now);
        }
        if self.is_strict(id) {
            self.advance(id, None, now);
            self.on_raw_message(id, place, message, now);
            return;
        }
        self.watch_message(id, message, now);
        self.advance(id, Some(message), now);
    }

    /// Finds the caller of a call by the description that it offers.
    fn link(&mut self, id: Id, message: &Message<'_>) {
        let caller = name::sdp_call(message.body)
            .filter(|name| name.run == self.settings.run)
            .filter(|name| self.callers_agents.find(name.index, name.generation).is_some());
        let Some(name) = caller else { return };
        let generation = self[id].generation;
        let caller = &mut self.callers_agents[name.index];
        (caller.peer, caller.peer_generation) = (id.index, generation);
        let program = caller.program;
        let agent = self.agent(id);
        agent.program = program;
        (agent.peer, agent.peer_generation) = (name.index, name.generation);
    }

    /// A request of another method than INVITE begins a call only where a program waits for it.
    fn takes(&self, message: &Message<'_>) -> bool {
        let method = message.method_name();
        self.programs.iter().any(|program| match program.callee.first() {
            Some(Step::Recv(recv)) => {
                matches!(&recv.what, Awaited::Request(wanted) if wanted.as_bytes() == method)
            }
            _ => false,
        })
    }

    fn on_cancel(&mut self, place: Place, message: &Message<'_>, now: Instant) {
        self.respond_plain(place.conn, message, "200 OK");
        let branch = digest::long(message.branch);
        let Some(index) = self.invited.get(&branch).copied() else { return };
        let id = Id { side: Side::Callee, index };
        if self[id].kept.as_ref().is_some_and(|kept| !kept.request.is_empty()) {
            self.answer_kept(id, "487 Request Terminated", b"", false, now);
            self.forget(id);
        }
    }

    /// A request inside an agent's dialog.
    pub(super) fn on_request(
        &mut self,
        id: Id,
        place: Place,
        method: Method,
        message: &Message<'_>,
        now: Instant,
    ) {
        self.watch_message(id, message, now);
        let agent = self.agent(id);
        agent.conn = place.conn;
        if method == Method::Ack {
            self.on_ack(id, message.cseq, now);
            return;
        }
        if place.datagrams && message.cseq == agent.remote_cseq && method != Method::Cancel {
            self.answer_again(id, place, message, now);
            return;
        }
        let lower = message.cseq <= agent.remote_cseq;
        if lower && method != Method::Cancel {
            // RFC 3261 §12.2.2: out of order.
            self.respond(id, message, "500 Server Internal Error", &Answer::default());
            return;
        }
        agent.remote_cseq = agent.remote_cseq.max(message.cseq);
        match method {
            Method::Invite => self.on_reinvite(id, place, message, now),
            Method::Bye => {
                self.respond(id, message, "200 OK", &Answer::default());
                self.on_bye(id, now);
            }
            Method::Ack | Method::Cancel | Method::Other => {
                self.respond(id, message, "200 OK", &Answer::default());
                self.came(id, message.method_name(), now);
            }
        }
    }

    fn on_ack(&mut self, id: Id, cseq: u32, now: Instant) {
        self.danger_acked(id, now);
        let branch = std::mem::take(&mut self.agent(id).branch);
        self.invited.remove(&branch);
        let agent = self.agent(id);
        agent.answered(Resent::Response(cseq));
        if agent.waiting == Waiting::Ack {
            agent.waiting = Waiting::Nothing;
            agent.due = now;
            self.advance(id, None, now);
        }
    }

    fn on_reinvite(&mut self, id: Id, place: Place, message: &Message<'_>, now: Instant) {
        self.agent(id).dialog.refresh(message.contact);
        self.danger_attempt(id, now);
        if self.misbehave(place, Some(id), message, now) {
            return;
        }
        self.answer_reinvite(id, message);
        if self.manner(place) == Manner::Twice {
            self.repeat_last(id, place.conn);
        }
        self.came(id, b"INVITE", now);
    }

    /// 200 with a description that fits the offer.
    pub(super) fn answer_reinvite(&mut self, id: Id, message: &Message<'_>) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        self.describe(id, Direction::of(message.body).answer(), &mut body);
        let party = Rc::clone(self.party_of(id));
        let answer = Answer { contact: Some(&*party), body: &body, ..Answer::default() };
        self.respond(id, message, "200 OK", &answer);
        self.body = body;
    }

    fn on_bye(&mut self, id: Id, now: Instant) {
        let asked = self.peer_of(id).is_some_and(|peer| self[peer].hung_up);
        match (id.side, self[id].phase) {
            // Both sides said BYE: its own is still to be answered.
            _ if self[id].hung_up && self[id].client.open => {}
            (Side::Caller, Phase::Running | Phase::Resting) => {
                let outcome = if asked { Outcome::Success } else { Outcome::Released };
                self.conclude(id, outcome, now);
                self.forget(id);
            }
            (_, Phase::Ending) => {}
            _ => self.forget(id),
        }
    }

    /// Writes a response of an agent.
    pub(super) fn respond(
        &mut self,
        id: Id,
        message: &Message<'_>,
        status: &str,
        answer: &Answer<'_>,
    ) {
        let conn = self[id].conn;
        if conn == NONE {
            return;
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        text::write_response(&mut bytes, message, status, answer);
        self.watch_response(id, message, status, answer);
        self.out.message(conn, |out| out.extend_from_slice(&bytes));
        if self.settings.datagrams {
            let is_ok = message.cseq_method == Method::Invite && status.starts_with('2');
            let kept = self.agent(id).kept();
            kept.response.clear();
            kept.response.extend_from_slice(&bytes);
            if is_ok {
                let now = self.now;
                self.send_again(id, Resent::Response(message.cseq), bytes.clone(), T1, now);
            }
        }
        self.scratch = bytes;
    }

    /// The oracle sees a response to `request`, which it need not read for that.
    fn watch_response(&mut self, id: Id, request: &Message<'_>, status: &str, answer: &Answer<'_>) {
        let Some(status) = status.get(..3).and_then(|digits| digits.parse().ok()) else { return };
        let own_tag;
        let to = match message::parameter(request.to, b"tag").is_empty() {
            true => {
                own_tag = [b";tag=", answer.tag].concat();
                &own_tag[..]
            }
            false => request.to,
        };
        let (start, headers) = (Start::Response(status), answer.headers);
        let response = Message { start, to, headers, body: answer.body, ..*request };
        self.watch_sent(id, &response, self.now);
    }

    /// The request that made the call gets its response.
    pub(super) fn answer_kept(
        &mut self,
        id: Id,
        status: &str,
        headers: &[u8],
        describe: bool,
        now: Instant,
    ) {
        let request = std::mem::take(&mut self.agent(id).kept().request);
        if let message::Frame::Message(message, _) = message::next(&request) {
            self.answer_first(id, &message, status, headers, describe, now);
        }
        if status.starts_with('1') {
            self.agent(id).kept().request = request;
        }
    }

    /// A response to `message`, which made the call.
    pub(super) fn answer_first(
        &mut self,
        id: Id,
        message: &Message<'_>,
        status: &str,
        headers: &[u8],
        describe: bool,
        now: Instant,
    ) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        if describe {
            self.describe(id, Direction::of(message.body).answer(), &mut body);
        }
        let tag = self.tag(id);
        let party = Rc::clone(self.party_of(id));
        let makes_dialog = matches!(status.as_bytes().first(), Some(b'1' | b'2'));
        let contact = makes_dialog.then_some(&*party);
        let answer = Answer { tag: &tag, contact, headers, body: &body };
        self.respond(id, message, status, &answer);
        self.body = body;
        if !status.starts_with('1') && message.cseq_method == Method::Invite {
            self.wake_at(id, now + REQUEST_TIMEOUT);
        }
    }

    /// Over datagrams a request inside the dialog came again: so does its response, where it had one.
    fn answer_again(&mut self, id: Id, place: Place, message: &Message<'_>, now: Instant) {
        let kept = self[id].kept.as_ref().map_or(&[][..], |kept| &kept.response);
        let of_this = |last: Message<'_>| {
            (last.cseq, last.cseq_method) == (message.cseq, message.cseq_method)
        };
        let had = matches!(message::next(kept), message::Frame::Message(last, _) if of_this(last));
        if had {
            self.repeat_response(id, place.conn);
        } else if message.cseq_method == Method::Invite
            && !self.misbehave(place, Some(id), message, now)
        {
            self.answer_reinvite(id, message);
            self.came(id, b"INVITE", now);
        }
    }

    /// Over datagrams a request came again: so does its response.
    fn repeat_response(&mut self, id: Id, conn: u32) {
        let Some(kept) = &self[id].kept else { return };
        let bytes = kept.response.clone();
        if !bytes.is_empty() {
            self.out.message(conn, |out| out.extend_from_slice(&bytes));
        }
    }

    /// The response just written goes out a second time.
    fn repeat_last(&mut self, id: Id, conn: u32) {
        let bytes = std::mem::take(&mut self.scratch);
        self.watch_written(id, &bytes, self.now);
        self.out.message(conn, |out| out.extend_from_slice(&bytes));
        self.scratch = bytes;
    }
}
