//! Requests of an agent and what comes back.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::agent::{Client, Id, Phase, RESENDS_MAX, Resend, Resent, Side, Waiting};
use super::{Engine, Outcome, RELEASE_GRACE, REQUEST_TIMEOUT, T1};
use crate::message::{Message, Method};
use crate::name::{self, Direction, Name, put_number};
use crate::outcome::Latency;
use crate::scenario::program::{self, Offer, Step, Target};
use crate::text::{self, Request, Where};

/// How long a request inside a call waits for a connection.
const CONNECTION_MAX: Duration = Duration::from_secs(2);
/// Between two looks at whether there is one.
const CONNECTION_LOOK: Duration = Duration::from_millis(5);

/// A request about to be written.
#[derive(Clone, Copy, Default)]
struct Draft<'a> {
    method: &'a str,
    cseq: u32,
    /// Ends the branch: the ACK of a 2xx is a transaction of its own.
    branch_end: &'a str,
    /// Lines of the program, and what the body is.
    headers: &'a [u8],
    body: &'a [u8],
    media_type: &'a str,
    to: To<'a>,
}

/// Whom a request is for.
#[derive(Clone, Copy, Default)]
enum To<'a> {
    #[default]
    Dialog,
    Called,
    Server,
    User(&'a str),
}

impl Engine {
    /// Sends a request of a program; its final response moves the program on.
    pub(super) fn request(&mut self, id: Id, request: &program::Request, now: Instant) {
        if self.waits_for_connection(id, now) {
            return;
        }
        let agent = &self[id];
        let latency = self.notes.latency_of_step(id.side, agent.program, agent.pc);
        self.open_client(id, &request.method, latency, now);
        self.agent(id).waiting = Waiting::Final;
        self.wake_at(id, now + request.timeout.unwrap_or(REQUEST_TIMEOUT));
        if let Some(span) = request.cancel {
            let at = now + self.draw(span);
            self.agent(id).kept().cancel_at = Some(at);
            self.arm(id);
        }
        if !self.put_step(id, request, now) {
            self.agent(id).client.open = false;
            self.give_up(id, Outcome::Failed("no connection to send on"), now);
        }
    }

    /// A call that stands lost its caller's connection, which is being made again: the request waits
    /// for it, and its response time counts from when it was to be sent.
    fn waits_for_connection(&mut self, id: Id, now: Instant) -> bool {
        let until = match self[id].waiting {
            Waiting::Connection(until) => until,
            _ => now + CONNECTION_MAX,
        };
        let waits = id.side == Side::Caller
            && self[id].is_up()
            && self.conn_of(id).is_none()
            && now < until;
        if waits {
            self.agent(id).waiting = Waiting::Connection(until);
            self.wake_at(id, now + CONNECTION_LOOK);
        }
        waits
    }

    /// A request of the agent's own begins.
    pub(super) fn open_client(
        &mut self,
        id: Id,
        method: &str,
        latency: Option<Latency>,
        now: Instant,
    ) {
        let agent = self.agent(id);
        agent.cseq += 1;
        let is_invite = method == "INVITE";
        if is_invite {
            agent.invite_cseq = agent.cseq;
        }
        agent.hung_up |= method == "BYE";
        let (cseq, intended) = (agent.cseq, agent.due);
        agent.client =
            Client { open: true, is_invite, cseq, intended, sent: now, proceeding: false, latency };
    }

    fn put_step(&mut self, id: Id, request: &program::Request, now: Instant) -> bool {
        let (mut headers, mut body, mut user) = (Vec::new(), Vec::new(), Vec::new());
        if !request.headers.is_empty() {
            self.render(id, &request.headers, 0, &mut headers, now);
        }
        let mut media_type = "application/sdp";
        if let Some(own) = &request.body {
            media_type = &own.media_type;
            self.render(id, &own.text, 0, &mut body, now);
        }
        match request.offer {
            Some(Offer::Fresh(direction)) => self.describe(id, direction, &mut body),
            Some(Offer::Same) => self.describe_again(id, &mut body),
            None => {}
        }
        if let Target::User(template) = &request.to {
            self.render(id, template, 0, &mut user, now);
        }
        let user = String::from_utf8_lossy(&user);
        let to = match request.to {
            Target::Dialog => To::Dialog,
            Target::Called => To::Called,
            Target::Server => To::Server,
            Target::User(_) => To::User(&user),
        };
        let (method, cseq) = (request.method.as_str(), self[id].cseq);
        let draft =
            Draft { method, cseq, headers: &headers, body: &body, media_type, to, branch_end: "" };
        self.put(id, draft, now)
    }

    /// Ends a dialog that its program left standing.
    pub(super) fn bye(&mut self, id: Id, now: Instant) {
        let latency = Some(self.notes.latency_of_bye());
        self.agent(id).due = now;
        self.open_client(id, "BYE", latency, now);
        self.agent(id).waiting = Waiting::Final;
        self.wake_at(id, now + REQUEST_TIMEOUT);
        let cseq = self[id].cseq;
        if !self.put(id, Draft { method: "BYE", cseq, ..Draft::default() }, now) {
            self.forget(id);
        }
    }

    /// Takes back an INVITE that is not answered (RFC 3261 §9.1).
    pub(super) fn cancel(&mut self, id: Id, now: Instant) {
        let cseq = self[id].client.cseq;
        let to = To::Called;
        self.put(id, Draft { method: "CANCEL", cseq, to, ..Draft::default() }, now);
    }

    /// Writes a request to the agent's connection; false when there is none.
    fn put(&mut self, id: Id, draft: Draft<'_>, now: Instant) -> bool {
        let Some(conn) = self.conn_of(id) else { return false };
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        let message = self.write_request(id, draft, &mut bytes);
        self.watch_sent(id, &message, now);
        self.out.message(conn, |out| out.extend_from_slice(&bytes));
        if self.settings.datagrams && draft.method != "CANCEL" {
            self.send_again(id, Resent::Request(draft.cseq), bytes.clone(), T1, now);
        }
        self.scratch = bytes;
        true
    }

    fn write_request<'a>(&self, id: Id, draft: Draft<'_>, out: &'a mut Vec<u8>) -> Message<'a> {
        let agent = &self[id];
        let name = self.name(id);
        // The tag, a CSeq, and what ends it.
        let mut branch = self.tag(id);
        branch.push(b'-');
        put_number(&mut branch, draft.cseq);
        branch.extend_from_slice(draft.branch_end.as_bytes());
        let place = match draft.to {
            To::Dialog | To::Called if !agent.dialog.is_empty() => Where::Dialog(&agent.dialog),
            To::Dialog | To::Called => self.number_of(id, name),
            To::Server => Where::Server { server: &self.settings.server, name },
            To::User(user) => Where::User { user, server: &self.settings.server, name },
        };
        let Draft { method, cseq, headers, body, media_type, .. } = draft;
        let (party, branch) = (self.party_of(id), &branch[..]);
        Request { method, cseq, branch, party, place, headers, body, media_type }.write_message(out)
    }

    fn number_of(&self, id: Id, name: Name) -> Where<'_> {
        let number = &self.callees[self.callee_of(id)].user;
        Where::Number { number, server: &self.settings.server, name }
    }

    /// Writes the session description of an agent's next offer or answer.
    pub(super) fn describe(&mut self, id: Id, direction: Direction, body: &mut Vec<u8>) {
        let agent = self.agent(id);
        agent.version += 1;
        agent.direction = direction;
        self.describe_again(id, body);
    }

    /// The last description, byte for byte.
    fn describe_again(&self, id: Id, body: &mut Vec<u8>) {
        let (agent, host) = (&self[id], self.party_of(id).ip);
        name::write_sdp(body, host, self.caller_name_of(id), agent.version, agent.direction);
    }

    /// Over datagrams: `bytes` go out again until something answers them.
    pub(super) fn send_again(
        &mut self,
        id: Id,
        of: Resent,
        bytes: Vec<u8>,
        interval: Duration,
        now: Instant,
    ) {
        let agent = self.agent(id);
        // An INVITE is sent again at doubling intervals, everything else up to T2 (RFC 3261 §17.1).
        let capped = of != Resent::Request(agent.invite_cseq);
        let resend = Resend { of, bytes, at: now + interval, interval, capped };
        let resends = &mut agent.kept().resends;
        if resends.len() == RESENDS_MAX {
            resends.remove(0);
        }
        resends.push(resend);
        self.arm(id);
    }

    pub(super) fn on_response(
        &mut self,
        id: Id,
        conn: u32,
        status: u16,
        message: &Message<'_>,
        now: Instant,
    ) {
        let agent = self.agent(id);
        agent.conn = conn;
        if message.cseq_method == Method::Cancel {
            return;
        }
        let of_invite = message.cseq_method == Method::Invite;
        if of_invite && status >= 200 {
            self.acknowledge(id, conn, status, message, now);
        }
        let agent = self.agent(id);
        let expected = agent.client.open
            && message.cseq == agent.client.cseq
            && agent.client.is_invite == of_invite;
        if !expected {
            return;
        }
        if status >= 200 || of_invite {
            // An INVITE is not sent again once a provisional response came (§17.1.1.2).
            agent.answered(Resent::Request(message.cseq));
        }
        if status < 200 {
            agent.client.proceeding = true;
            self.cancel_if_due(id, now);
            return;
        }
        agent.client.open = false;
        if let Some(kept) = agent.kept.as_mut() {
            kept.cancel_at = None;
        }
        self.note_final(id, status, now);
        self.on_final(id, status, now);
    }

    /// The ACK of a final response, however often that comes (RFC 3261 §13.2.2.4, §17.1.1.3).
    fn acknowledge(&mut self, id: Id, conn: u32, status: u16, message: &Message<'_>, now: Instant) {
        if message.cseq != self[id].invite_cseq {
            return;
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        if (200..300).contains(&status) {
            if self[id].dialog.is_empty() {
                self.agent(id).dialog = text::Dialog::of_response(message);
                self.note_set_up(id);
            } else {
                self.agent(id).dialog.refresh(message.contact);
            }
            let (method, cseq) = ("ACK", message.cseq);
            let draft = Draft { method, cseq, branch_end: "a", ..Draft::default() };
            let ack = self.write_request(id, draft, &mut bytes);
            self.watch_sent(id, &ack, now);
        } else {
            let agent = &self[id];
            let place = match agent.dialog.is_empty() {
                true => self.number_of(id, self.name(id)),
                false => Where::Dialog(&agent.dialog),
            };
            // Part of the transaction: no rule is about it.
            text::write_ack_of_failure(&mut bytes, self.party_of(id), &place, message);
        }
        self.out.message(conn, |out| out.extend_from_slice(&bytes));
        self.scratch = bytes;
    }

    /// What the agent makes of a final response.
    fn on_final(&mut self, id: Id, status: u16, now: Instant) {
        let agent = &self[id];
        if agent.phase == Phase::Ending {
            // A 2xx that crossed the CANCEL leaves a dialog to end.
            match agent.is_up() && !agent.hung_up {
                true => self.bye(id, now),
                false => self.forget(id),
            }
            return;
        }
        if agent.waiting != Waiting::Final {
            return;
        }
        let programs = Rc::clone(&self.programs);
        let steps = super::steps(&programs[usize::from(agent.program)], id.side);
        let Some(Step::Request(request)) = steps.get(usize::from(agent.pc)) else { return };
        let good = request.expect.contains(&status);
        let refused = request.refused.as_ref().is_some_and(|range| range.contains(&status));
        if good {
            let agent = self.agent(id);
            agent.due = now;
            agent.pc += 1;
            self.advance(id, None, now);
        } else if refused {
            self.give_up(id, Outcome::Refused, now);
        } else if agent.is_up() {
            // The server may be about to end the call by itself: then it is released, not lost.
            self.agent(id).waiting = Waiting::Release(status);
            self.wake_at(id, now + RELEASE_GRACE);
        } else {
            self.give_up(id, Outcome::Status(status), now);
        }
    }

    /// CANCEL goes out when its time has come and a provisional response was there (§9.1).
    pub(super) fn cancel_if_due(&mut self, id: Id, now: Instant) {
        let agent = self.agent(id);
        let client = agent.client;
        let Some(kept) = agent.kept.as_mut() else { return };
        if client.open && client.proceeding && kept.cancel_at.is_some_and(|at| at <= now) {
            kept.cancel_at = None;
            self.cancel(id, now);
        }
    }
}
