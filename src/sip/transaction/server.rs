//! Server transactions: requests that were received, and the responses to them.

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

use super::copied::{self, Copied};
use super::invite_server::{self, Event};
use super::repeat::Repeat;
use super::{SERVERS_MAX, Stack, request_server};
use crate::key::{ClientId, FlowId, RETAINED_SLOTS, ServerId, TimerKey};
use crate::sip::counters::End;
use crate::sip::kept::Kept;
use crate::sip::message::{Method, Name, Via, View, write};
use crate::sip::timer::{T1_64, T4, Timer};
use crate::sip::token::Token;
use crate::target::{Target, Transport};

/// A request that was received.
#[derive(Debug)]
pub(in crate::sip) struct Server {
    /// What responses copy of the request, until it has its final one.
    copied: Copied,
    /// The tag that responses put into To when the request had none.
    pub(in crate::sip) to_tag: Option<Token>,
    state: State,
    /// Where responses go.
    pub(super) flow: FlowId,
    pub(in crate::sip) transport: Transport,
    /// Where the request came from.
    pub(in crate::sip) peer: SocketAddr,
    /// The peer's port for responses when the flow is gone (RFC 3261 §18.2.2).
    reply_port: u16,
    branch: u64,
    /// The last response to an INVITE, and over UDP to any request; empty: none.
    response: Kept,
    /// The last response to an INVITE was a 100: it is written anew when it is repeated.
    trying: bool,
    timer: Option<TimerKey>,
    /// Timer G.
    pub(super) repeat: Option<Repeat>,
    /// What the proxy forwarded it as.
    forwarded: Option<ClientId>,
    /// A CANCEL came for it, to the proxy.
    cancelled: bool,
}

impl Server {
    /// True when the request was to a SIPS URI.
    pub(in crate::sip) fn is_secure(&self) -> bool {
        self.copied.is_secure()
    }

    /// Where the machine of an INVITE is; `None` for another request.
    pub(super) fn invite_state(&self) -> Option<invite_server::State> {
        match self.state {
            State::Invite(state) => Some(state),
            State::Request(_) => None,
        }
    }
}

/// Where a response goes.
struct Reply {
    flow: FlowId,
    transport: Transport,
    /// Where the request came from.
    peer: SocketAddr,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Invite(invite_server::State),
    Request(request_server::State),
}

/// What a request turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sip) enum Received {
    /// A new one.
    New(ServerId),
    /// One that was seen before; it was answered as then.
    Repeated,
    /// One too many: [`SERVERS_MAX`].
    Refused,
}

impl Stack {
    /// Finds or makes the transaction of a request other than ACK and CANCEL (RFC 3261 §17.2.3).
    pub(in crate::sip) fn receive(&mut self, flow: FlowId, request: View<'_>) -> Received {
        let method = request.method();
        let branch = self.branch_hash(request, method);
        if let Some(&id) = self.by_branch.get(&branch) {
            self.repeat(id, flow);
            return Received::Repeated;
        }
        if self.servers.len() >= SERVERS_MAX {
            return Received::Refused;
        }
        let Some(reply) = self.reply_to(flow, request.via()) else { return Received::Refused };
        let state = match method {
            Method::Invite => State::Invite(invite_server::State::Proceeding),
            _ => State::Request(request_server::State::Trying),
        };
        let id = self.servers.insert(Server {
            copied: Copied::new(request, reply.peer, &mut self.pool),
            to_tag: None,
            state,
            flow: reply.flow,
            transport: reply.transport,
            peer: reply.peer,
            reply_port: reply.port,
            branch,
            forwarded: None,
            cancelled: false,
            response: Kept::default(),
            trying: false,
            timer: None,
            repeat: None,
        });
        self.by_branch.insert(branch, id);
        Received::New(id)
    }

    /// True for a copy of a request that has its transaction.
    pub(in crate::sip) fn has_received(&self, request: View<'_>) -> bool {
        self.by_branch.contains_key(&self.branch_hash(request, request.method()))
    }

    /// Where the responses to a request go: down its flow over TCP; over UDP to the port that it came
    /// from when its Via asks for that (RFC 3581 §4), else to that of its Via (RFC 3261 §18.2.2).
    /// `None` when the flow is gone, or when that is one too many.
    fn reply_to(&mut self, flow: FlowId, via: Option<Via<'_>>) -> Option<Reply> {
        let (peer, transport) = self.flows.get(flow).map(|flow| (flow.peer, flow.transport))?;
        let sent_by = via.and_then(|via| via.port).unwrap_or(transport.port());
        if !transport.is_unreliable() {
            return Some(Reply { flow, transport, peer, port: sent_by });
        }
        let as_it_came = sent_by == 0 || via.is_some_and(|via| via.rport == Some(None));
        let port = if as_it_came { peer.port() } else { sent_by };
        let flow = match port == peer.port() {
            true => flow,
            false => {
                let address = SocketAddr::new(peer.ip(), port);
                let known = self.flows.datagram(address, self.now).is_some();
                let full = self.flows.is_full(transport, self.options.limits.flows_max);
                if full && !known {
                    return None;
                }
                self.outbound(Target::udp(address))
            }
        };
        Some(Reply { flow, transport, peer, port })
    }

    /// The INVITE that a CANCEL is about (RFC 3261 §9.2).
    pub(in crate::sip) fn cancelled_invite(&self, cancel: View<'_>) -> Option<ServerId> {
        self.by_branch.get(&self.branch_hash(cancel, Method::Invite)).copied()
    }

    /// Takes the ACK of a response other than 2xx; false when it is not one (RFC 3261 §17.2.1).
    pub(in crate::sip) fn on_ack(&mut self, ack: View<'_>) -> bool {
        let Some(&id) = self.by_branch.get(&self.branch_hash(ack, Method::Invite)) else {
            return false;
        };
        let Some(server) = self.servers.get_mut(id) else { return false };
        let State::Invite(before) = server.state else { return false };
        let (after, _) = invite_server::step(before, Event::Ack);
        server.state = State::Invite(after);
        let unreliable = server.transport.is_unreliable();
        if after == invite_server::State::Confirmed && before != after {
            // Timer I is zero on a reliable flow (RFC 3261 §17.2.1).
            if unreliable {
                self.stop_repeating_response(id);
                self.set_server_timer(id, T4, Timer::I(id));
            } else {
                self.end_server(id);
            }
        }
        after == invite_server::State::Confirmed
    }

    /// The transaction, while it lasts.
    pub(in crate::sip) fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers.get(id)
    }

    /// True when the connection that the request came on is gone.
    pub(in crate::sip) fn lost_flow(&self, id: ServerId) -> bool {
        self.servers.get(id).is_some_and(|server| {
            // Over UDP there is nothing to lose.
            !server.transport.is_unreliable() && self.flows.get(server.flow).is_none()
        })
    }

    /// Responses go down `flow` from now on: the peer, whose old one is gone, was heard on it.
    pub(in crate::sip) fn redirect(&mut self, id: ServerId, flow: Option<FlowId>) {
        if let Some(flow) = flow.filter(|&flow| self.flows.get(flow).is_some())
            && let Some(server) = self.servers.get_mut(id)
        {
            server.flow = flow;
        }
    }

    /// Fixes the tag that responses put into To.
    pub(in crate::sip) fn set_to_tag(&mut self, id: ServerId, tag: Token) {
        if let Some(server) = self.servers.get_mut(id) {
            server.to_tag = Some(tag);
        }
    }

    /// Answers with a response of our own, without a body.
    pub(in crate::sip) fn respond(&mut self, id: ServerId, status: u16) {
        self.respond_with(id, status, write::reason_phrase(status).as_bytes(), |out| {
            write::body(out, b"");
        });
    }

    /// Refuses a request from nobody we know, and forgets it: a stranger leaves nothing behind. The
    /// ACK finds nothing. On a reliable flow no repetition comes; over UDP each is refused alike, with
    /// the same tag (RFC 3261 §8.2.7), and a forged source is sent no more than was sent to us.
    pub(in crate::sip) fn refuse(&mut self, id: ServerId, status: u16) {
        if let Some(server) = self.servers.get_mut(id)
            && server.transport.is_unreliable()
        {
            let cookie = server.branch;
            server.to_tag = Some(Token { shard: self.shard, index: u32::MAX, cookie });
        }
        self.respond(id, status);
        self.end_server(id);
    }

    /// Answers; `rest` writes what follows the headers that are copied from the request.
    pub(in crate::sip) fn respond_with(
        &mut self,
        id: ServerId,
        status: u16,
        reason: &[u8],
        rest: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(to_tag) = self.servers.get(id).map(|server| server.to_tag) else { return };
        if to_tag.is_none() && status > 100 {
            let tag = self.token(u32::MAX);
            self.set_to_tag(id, tag);
        }
        let mut buffer = self.pool.take_buffer();
        if let Some(server) = self.servers.get(id)
            && !server.copied.is_empty()
        {
            let tag = server.to_tag.filter(|_| status > 100);
            server.copied.write(&mut buffer, status, reason, tag);
            rest(&mut buffer);
            if status >= 200 {
                self.counters.received.count(server.copied.method(), End::Status(status));
            }
            self.on_answer(id, status, &buffer);
        }
        self.pool.put_buffer(buffer);
    }

    /// Sends the final response of an INVITE again; its flow may be a new one by now.
    pub(in crate::sip) fn answer_again(&mut self, id: ServerId) {
        let Some(server) = self.servers.get(id) else { return };
        let response = server.response.clone();
        if !response.is_empty() {
            self.send_response(id, &response, true);
        } else if server.trying && !server.copied.is_empty() {
            let mut trying = self.pool.take_buffer();
            server.copied.write(&mut trying, 100, write::reason_phrase(100).as_bytes(), None);
            write::body(&mut trying, b"");
            self.send_response(id, &trying, true);
            self.pool.put_buffer(trying);
        }
    }

    /// The user needs a transaction no more: its 2xx was acknowledged, or nothing is to be answered.
    /// Over UDP it stays and absorbs copies of its request, until timer L or J (RFC 6026 §7.1): a
    /// late copy of an INVITE must not make a second call.
    pub(in crate::sip) fn finish(&mut self, id: ServerId) {
        let Some(server) = self.servers.get_mut(id) else { return };
        if !server.transport.is_unreliable() {
            return self.end_server(id);
        }
        self.pool.give_back(std::mem::take(&mut server.response));
        server.trying = false;
        if let State::Request(_) = server.state {
            server.state = State::Request(request_server::State::Completed);
            server.copied.give_back(&mut self.pool);
            self.set_server_timer(id, T1_64, Timer::J(id));
        }
    }

    /// Notes what a request was forwarded as.
    pub(in crate::sip) fn set_forwarded(&mut self, id: ServerId, client: ClientId) {
        if let Some(server) = self.servers.get_mut(id) {
            server.forwarded = Some(client);
        }
    }

    /// A CANCEL came for a request that was forwarded: as what, if it was.
    pub(in crate::sip) fn cancel_forwarded(&mut self, id: ServerId) -> Option<ClientId> {
        let server = self.servers.get_mut(id)?;
        server.cancelled = true;
        server.forwarded
    }

    /// True when a CANCEL came for a request that was forwarded.
    pub(in crate::sip) fn is_cancelled(&self, id: ServerId) -> bool {
        self.servers.get(id).is_some_and(|server| server.cancelled)
    }

    /// Passes the response of somebody else on, as it is: what else but a 2xx again comes after a final one is
    /// dropped (RFC 3261 §16.7 step 5, RFC 6026 §7.1), and so is what comes when the transaction is over. True: it
    /// was sent.
    pub(in crate::sip) fn forward_response(
        &mut self,
        id: ServerId,
        method: Method,
        status: u16,
        bytes: &[u8],
    ) -> bool {
        let Some(server) = self.servers.get(id) else { return false };
        let is_first = match server.state {
            State::Invite(invite_server::State::Proceeding) => true,
            State::Invite(invite_server::State::Accepted) if (200..300).contains(&status) => false,
            State::Invite(_) => return false,
            State::Request(state) => state != request_server::State::Completed,
        };
        if is_first && status >= 200 {
            self.counters.received.count(method, End::Status(status));
        }
        self.on_answer(id, status, bytes);
        true
    }

    /// Sends a response whose transaction is over to whom the second Via of its request names (RFC 3261 §18.2.2); the
    /// first is ours. What the response says there itself might lead anywhere.
    pub(in crate::sip) fn send_back(&mut self, id: ClientId, bytes: &[u8]) {
        let Some(request) = self.client(id).map(|client| client.request.clone()) else {
            return;
        };
        let mut head = std::mem::take(&mut self.stored);
        let via = match head.read(&request) {
            Ok(()) => View::new(&request, &head).values(Name::Via).nth(1),
            Err(_) => None,
        };
        let target = via.and_then(Via::parse).and_then(reply_target);
        self.stored = head;
        if let Some(target) = target {
            let flow = self.outbound(target);
            self.out.send(flow, bytes);
        }
    }

    /// Forgets a transaction.
    pub(in crate::sip) fn end_server(&mut self, id: ServerId) {
        if let Some(mut server) = self.servers.remove(id) {
            server.copied.give_back(&mut self.pool);
            self.pool.give_back(server.response);
            self.by_branch.remove(&server.branch);
            if self.servers.is_empty() && self.by_branch.capacity() > RETAINED_SLOTS {
                self.by_branch.shrink_to(0);
            }
            let repeat = server.repeat.map(|repeat| repeat.timer);
            for timer in [server.timer, repeat].into_iter().flatten() {
                self.wheel.cancel(timer);
            }
        }
    }

    fn stop_repeating_response(&mut self, id: ServerId) {
        if let Some(server) = self.servers.get_mut(id)
            && let Some(repeat) = server.repeat.take()
        {
            self.wheel.cancel(repeat.timer);
        }
    }

    /// Timer H, I, J or L: nothing can come any more.
    pub(in crate::sip) fn on_server_over(&mut self, id: ServerId) {
        let Some(server) = self.servers.get_mut(id) else { return };
        server.timer = None;
        let over = match server.state {
            State::Invite(state) => {
                invite_server::step(state, Event::Over).0 == invite_server::State::Terminated
            }
            State::Request(state) => {
                let (after, _) = request_server::step(state, request_server::Event::J);
                after == request_server::State::Terminated
            }
        };
        if over {
            self.end_server(id);
        }
    }

    /// Answers a request that gets no transaction: a CANCEL, or one that is malformed. The flow it
    /// came on carries the answer.
    pub(in crate::sip) fn respond_once(
        &mut self,
        flow: FlowId,
        request: View<'_>,
        status: u16,
        rest: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(reply) = self.reply_to(flow, request.via()) else { return };
        let tag = self.token(u32::MAX);
        let reason = write::reason_phrase(status).as_bytes();
        self.counters.received.count(request.method(), End::Status(status));
        let mut lines = self.pool.take_buffer();
        self.out.send_with(reply.flow, |out| {
            copied::write_once(out, &mut lines, request, reply.peer, (status, reason), tag);
            rest(out);
        });
        self.pool.put_buffer(lines);
    }

    fn on_answer(&mut self, id: ServerId, status: u16, bytes: &[u8]) {
        self.send_response(id, bytes, status >= 200);
        let Some(server) = self.servers.get_mut(id) else { return };
        let unreliable = server.transport.is_unreliable();
        match server.state {
            State::Invite(before) => {
                server.trying = status == 100;
                let kept = if server.trying { b"" } else { bytes };
                self.pool.replace(&mut server.response, kept);
                let event = match status {
                    100..=199 => return,
                    200..=299 => Event::Success,
                    _ => Event::Failure,
                };
                let (after, _) = invite_server::step(before, event);
                server.state = State::Invite(after);
                server.copied.give_back(&mut self.pool);
                let timer = match after {
                    invite_server::State::Accepted => Timer::L(id),
                    _ => Timer::H(id),
                };
                self.set_server_timer(id, T1_64, timer);
                if unreliable && after == invite_server::State::Completed {
                    self.begin_repeating_response(id);
                }
            }
            State::Request(before) => {
                let event = match status {
                    100..=199 => request_server::Event::Provisional,
                    _ => request_server::Event::Final,
                };
                let (after, _) = request_server::step(before, event);
                server.state = State::Request(after);
                if unreliable {
                    self.pool.replace(&mut server.response, bytes);
                }
                if after == request_server::State::Completed {
                    // Timer J is zero on a reliable flow (RFC 3261 §17.2.2).
                    if unreliable {
                        server.copied.give_back(&mut self.pool);
                        self.set_server_timer(id, T1_64, Timer::J(id));
                    } else {
                        self.end_server(id);
                    }
                }
            }
        }
    }

    /// Down the flow of the request; a final response finds its way over a new connection to the
    /// address the request came from when that flow is gone (RFC 3261 §18.2.2). Over UDP any does.
    fn send_response(&mut self, id: ServerId, bytes: &[u8], is_final: bool) {
        let Some(server) = self.servers.get(id) else { return };
        let flow = server.flow;
        if self.flows.get(flow).is_some() {
            self.out.send(flow, bytes);
        } else if is_final || server.transport.is_unreliable() {
            let address = SocketAddr::new(server.peer.ip(), server.reply_port);
            let flow = self.outbound(Target { transport: server.transport, address });
            self.out.send(flow, bytes);
        }
    }

    fn repeat(&mut self, id: ServerId, flow: FlowId) {
        let peer = self.flows.get(flow).map(|flow| flow.peer.ip());
        let Some(server) = self.servers.get_mut(id) else { return };
        // Over UDP responses go where those to the first copy went.
        if server.flow != flow && !server.transport.is_unreliable() {
            // Responses go down the flow of the request while it is up (RFC 3261 §18.2.2); else a
            // stranger who repeats a branch would be handed them.
            if self.flows.get(server.flow).is_some() || peer != Some(server.peer.ip()) {
                return;
            }
            server.flow = flow;
        }
        let again = match server.state {
            State::Invite(state) => {
                invite_server::step(state, Event::Invite).1 == invite_server::Effect::Retransmit
            }
            State::Request(state) => {
                let event = request_server::Event::Request;
                request_server::step(state, event).1 == request_server::Effect::Retransmit
            }
        };
        if again {
            self.answer_again(id);
        }
    }

    fn set_server_timer(&mut self, id: ServerId, after: Duration, timer: Timer) {
        let Some(server) = self.servers.get_mut(id) else { return };
        if let Some(old) = server.timer.take() {
            self.wheel.cancel(old);
        }
        server.timer = Some(self.wheel.schedule(self.now + after, timer));
    }

    /// A server transaction is named by branch, sent-by and method, ACK and CANCEL counting as the
    /// INVITE they belong to; without the magic cookie by what RFC 3261 §17.2.3 lists for RFC 2543.
    fn branch_hash(&self, request: View<'_>, method: Method) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        method.hash(&mut hasher);
        if method == Method::Other {
            request.method_bytes().hash(&mut hasher);
        }
        let Some(via) = request.via() else { return hasher.finish() };
        match via.branch.filter(|branch| branch.starts_with(b"z9hG4bK") && branch.len() > 7) {
            Some(branch) => (branch, via.host, via.port).hash(&mut hasher),
            None => {
                let from_tag = request.from().and_then(|from| from.tag);
                let cseq = request.cseq().map(|(number, _)| number);
                (request.request_uri(), from_tag, request.call_id(), cseq, via.value)
                    .hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

/// Where responses go that find no connection.
fn reply_target(via: Via<'_>) -> Option<Target> {
    let transport = Transport::parse(via.transport)?;
    let host = via.received.unwrap_or(via.host);
    let host = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")).unwrap_or(host);
    let ip = std::str::from_utf8(host).ok()?.parse().ok()?;
    let port = via.rport.flatten().or(via.port).unwrap_or(transport.port());
    Some(Target { transport, address: SocketAddr::new(ip, port) })
}
