//! Programs of raw messages, as SIPp has them: no agent beneath, every message is a step.

use std::rc::Rc;
use std::time::Instant;

use super::agent::{Id, Kept, Phase, Resent, Side, Waiting};
use super::{Engine, Outcome, T1};
use crate::message::{self, Message, Method, Start};
use crate::net::Place;
use crate::oracle::digest;
use crate::scenario::program::{ALWAYS, Awaited, Kind, Recv, Send, Step};
use crate::scenario::template::{Context, Template};
use crate::text::Dialog;

/// Messages that may come before the program is ready for them.
const EARLY_MAX: usize = 16;
/// Messages by which a retransmission is known.
const SEEN_MAX: usize = 8;

impl Engine {
    /// Writes a raw message; true when the program goes on at once.
    pub(super) fn send_raw(&mut self, id: Id, send: &Send, now: Instant) -> bool {
        let method = match &send.kind {
            Kind::Request(method) => Some(method.as_str()),
            Kind::Response(_) => None,
        };
        if let Some(method) = method.filter(|method| !matches!(*method, "ACK" | "CANCEL")) {
            let latency = self.notes.latency_of_step(id.side, self[id].program, self[id].pc);
            self.open_client(id, method, latency, now);
        }
        let Some(conn) = self.conn_of(id) else {
            self.give_up(id, Outcome::Failed("no connection to send on"), now);
            return false;
        };
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        self.render(id, &send.template, send.index, &mut bytes, now);
        self.watch_written(id, &bytes, now);
        if send.lost == 0 || self.random_below(ALWAYS) >= send.lost {
            self.out.message(conn, |out| out.extend_from_slice(&bytes));
        }
        if self.settings.datagrams {
            let kept = self.agent(id).kept();
            kept.response.clone_from(&bytes);
            if method.is_some_and(|method| method != "ACK") || send.retransmit.is_some() {
                let first = send.retransmit.unwrap_or(T1);
                let cseq = self[id].cseq;
                let of = method.map_or(Resent::Response(cseq), |_| Resent::Request(cseq));
                self.send_again(id, of, bytes.clone(), first, now);
            }
        }
        self.scratch = bytes;
        self.marks(id, send.start, send.stop, now);
        let next = self.branch_of(send.next, send.chance);
        let agent = self.agent(id);
        agent.pc = next.map_or(agent.pc + 1, |to| to as u16);
        true
    }

    /// Appends a text of the program, with what its keywords stand for.
    pub(super) fn render(
        &mut self,
        id: Id,
        template: &Template,
        index: u32,
        out: &mut Vec<u8>,
        now: Instant,
    ) {
        self.dynamic_id += 1;
        let programs = Rc::clone(&self.programs);
        let scenario = &programs[usize::from(self[id].program)];
        let (agent, name) = (&self[id], self.name(id));
        let call_id = match id.side {
            Side::Caller => name.to_string().into_bytes(),
            Side::Callee => agent.dialog.call_id().to_vec(),
        };
        let branch = format!("z9hG4bK-r{name}-{}", agent.cseq);
        let empty = Kept::default();
        let kept = agent.kept.as_deref().unwrap_or(&empty);
        let (party, server) = (self.party_of(id), self.settings.address);
        let (local, remote) = (party.ip.to_string(), server.ip().to_string());
        let context = Context {
            call_id: &call_id,
            call_number: kept.number,
            local_ip: &local,
            local_port: party.port,
            remote_ip: &remote,
            remote_port: server.port(),
            media_ip: &local,
            media_port: 40_000,
            transport: self.settings.transport,
            branch: branch.as_bytes(),
            index,
            cseq: agent.cseq,
            peer_tag: &kept.peer_tag,
            service: self.callees[self.callee_of(id)].user.as_bytes(),
            next_url: &kept.next_url,
            routes: &kept.routes,
            last: &kept.last,
            pid: std::process::id(),
            users: self.callers.len() as u32,
            user: agent.party + 1,
            clock: self.notes.since(now).as_millis() as u64,
            dynamic_id: self.dynamic_id,
            fields: &scenario.fields,
            rows: &kept.rows,
        };
        template.write(&context, out);
    }

    fn marks(&mut self, id: Id, start: Option<u8>, stop: Option<u8>, now: Instant) {
        if let Some(mark) = stop {
            self.stop_mark(id, mark, now);
        }
        if let Some(mark) = start {
            self.start_mark(id, mark, now);
        }
    }

    fn branch_of(&mut self, next: Option<usize>, chance: Option<u32>) -> Option<usize> {
        let taken = chance.is_none_or(|chance| self.random_below(ALWAYS) < chance);
        next.filter(|_| taken)
    }

    /// The program waits for a message.
    pub(super) fn await_raw(&mut self, id: Id, recv: &Recv, now: Instant) {
        let agent = self.agent(id);
        agent.waiting = Waiting::Message;
        agent.deadline = None;
        if let Some((limit, _)) = recv.timeout {
            self.wake_at(id, now + limit);
        }
        let early = self.agent(id).kept.as_mut().filter(|kept| !kept.early.is_empty());
        if let Some(kept) = early {
            let bytes = kept.early.remove(0);
            if let message::Frame::Message(message, _) = message::next(&bytes) {
                self.match_raw(id, &message, now);
            }
        }
    }

    pub(super) fn on_raw_timeout(&mut self, id: Id, now: Instant) {
        let Some(recv) = self.recv_at(id, self[id].pc) else { return };
        match recv.timeout {
            Some((_, Some(to))) => {
                let agent = self.agent(id);
                agent.pc = to as u16;
                agent.waiting = Waiting::Nothing;
                self.advance(id, None, now);
            }
            _ => {
                let why = self.reason(&format!("line {}: no message in time", recv.line));
                self.give_up(id, Outcome::Other(why), now);
            }
        }
    }

    fn recv_at(&self, id: Id, pc: u16) -> Option<Recv> {
        let steps = super::steps(&self.programs[usize::from(self[id].program)], id.side);
        match steps.get(usize::from(pc)) {
            Some(Step::Recv(recv)) => Some(recv.clone()),
            _ => None,
        }
    }

    /// A message for an agent whose program is one of raw messages.
    pub(super) fn on_raw_message(
        &mut self,
        id: Id,
        place: Place,
        message: &Message<'_>,
        now: Instant,
    ) {
        self.watch_message(id, message, now);
        let seen = digest::long(message.raw);
        let agent = self.agent(id);
        agent.conn = place.conn;
        let running = agent.phase == Phase::Running;
        let waits = agent.waiting == Waiting::Message;
        let kept = agent.kept();
        if kept.seen.contains(&seen) {
            let bytes = kept.response.clone();
            if !bytes.is_empty() && place.datagrams {
                self.out.message(place.conn, |out| out.extend_from_slice(&bytes));
            }
            return;
        }
        if kept.seen.len() == SEEN_MAX {
            kept.seen.remove(0);
        }
        kept.seen.push(seen);
        if waits {
            self.match_raw(id, message, now);
        } else if running && kept.early.len() < EARLY_MAX {
            kept.early.push(message.raw.to_vec());
        } else {
            self.after_raw(id, place, message, now);
        }
    }

    /// The program is through: what still comes is answered as an agent would.
    fn after_raw(&mut self, id: Id, place: Place, message: &Message<'_>, now: Instant) {
        match message.start {
            Start::Request(method) => self.on_request(id, place, method, message, now),
            Start::Response(status) => self.on_response(id, place.conn, status, message, now),
        }
    }

    /// Finds the step that takes a message, and takes it.
    fn match_raw(&mut self, id: Id, message: &Message<'_>, now: Instant) {
        let at = self[id].pc;
        let mut found = None;
        let mut pc = at;
        while let Some(recv) = self.recv_at(id, pc) {
            if fits(&recv.what, message) {
                found = Some((pc, recv));
                break;
            }
            if !recv.optional {
                break;
            }
            pc += 1;
        }
        let Some((pc, recv)) = found.or_else(|| self.before(id, at, message)) else {
            self.unexpected(id, message, now);
            return;
        };
        if recv.lost > 0 && self.random_below(ALWAYS) < recv.lost {
            return;
        }
        self.take_raw(id, &recv, message, now);
        let next = self.branch_of(recv.next, recv.chance);
        let agent = self.agent(id);
        agent.due = now;
        match next {
            Some(to) => agent.pc = to as u16,
            None if recv.optional => return,
            None => agent.pc = pc + 1,
        }
        agent.waiting = Waiting::Nothing;
        agent.deadline = None;
        self.advance(id, None, now);
    }

    /// The optional steps that stand directly before this one.
    fn before(&self, id: Id, at: u16, message: &Message<'_>) -> Option<(u16, Recv)> {
        let mut pc = at;
        while pc > 0 {
            pc -= 1;
            let recv = self.recv_at(id, pc).filter(|recv| recv.optional)?;
            if fits(&recv.what, message) {
                return Some((pc, recv));
            }
        }
        None
    }

    fn take_raw(&mut self, id: Id, recv: &Recv, message: &Message<'_>, now: Instant) {
        let keeps = self.programs[usize::from(self[id].program)].keeps_messages;
        let is_final = matches!(message.start, Start::Response(200..));
        let agent = self.agent(id);
        agent.remote_cseq = agent.remote_cseq.max(match message.start {
            Start::Request(_) => message.cseq,
            Start::Response(_) => 0,
        });
        let kept = agent.kept();
        kept.resends.clear();
        if keeps {
            kept.last.clear();
            kept.last.extend_from_slice(message.raw);
        }
        let tag = match message.start {
            Start::Request(_) => message::parameter(message.from, b"tag"),
            Start::Response(_) => message::parameter(message.to, b"tag"),
        };
        if !tag.is_empty() {
            kept.peer_tag = tag.to_vec();
        }
        if recv.routes {
            kept.next_url = message.contact.to_vec();
            kept.routes = crate::text::route_value(message);
        }
        if let Start::Response(status) = message.start
            && is_final
            && agent.client.open
            && message.cseq == agent.client.cseq
        {
            agent.client.open = false;
            if (200..300).contains(&status) && agent.client.is_invite && agent.dialog.is_empty() {
                agent.dialog = Dialog::of_response(message);
                self.note_set_up(id);
            }
            self.note_final(id, status, now);
        }
        match message.start {
            Start::Request(Method::Ack) => {
                self.danger_acked(id, now);
                let again = std::mem::replace(&mut self.agent(id).answered, true);
                if id.side == Side::Callee && !again {
                    self.note_set_up(id);
                }
            }
            Start::Request(Method::Invite) => self.danger_attempt(id, now),
            // The dialog is over, whatever the program still says.
            Start::Request(Method::Bye) => self.agent(id).hung_up = true,
            _ => {}
        }
        self.marks(id, recv.start, recv.stop, now);
    }

    fn unexpected(&mut self, id: Id, message: &Message<'_>, now: Instant) {
        let conn = self[id].conn;
        let what = message.raw.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let what = match message.start {
            Start::Response(status) => format!("{status}"),
            Start::Request(_) => {
                let method = what.split(|byte| *byte == b' ').next().unwrap_or_default();
                String::from_utf8_lossy(&method[..method.len().min(32)]).into_owned()
            }
        };
        if let Start::Request(Method::Bye | Method::Cancel) = message.start {
            self.respond_plain(conn, message, "200 OK");
        }
        let line = self.recv_at(id, self[id].pc).map_or(0, |recv| recv.line);
        let why = self.reason(&format!("line {line}: unexpected {what}"));
        if message.start == Start::Request(Method::Bye) {
            self.agent(id).hung_up = true;
        }
        self.give_up(id, Outcome::Other(why), now);
    }
}

fn fits(what: &Awaited, message: &Message<'_>) -> bool {
    match (what, message.start) {
        (Awaited::Response(wanted), Start::Response(status)) => *wanted == status,
        (Awaited::Request(wanted), Start::Request(_)) => {
            let len = wanted.len();
            message.raw.get(..len) == Some(wanted.as_bytes()) && message.raw.get(len) == Some(&b' ')
        }
        _ => false,
    }
}
