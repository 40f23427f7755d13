//! Client transactions: requests that were sent, and who is told what becomes of them.

use std::time::Duration;

use super::invite_client::{self, Effect, Event};
use super::repeat::Repeat;
use super::told::{Lost, NewClient, Owner, Told, Verdict};
use super::{CLIENTS_MAX, Stack, request_client};
use crate::key::{ClientId, FlowId, TimerKey};
use crate::sip::actions::FlowError;
use crate::sip::counters::End;
use crate::sip::kept::Kept;
use crate::sip::message::{HEADERS_MAX, Head, Method, Name, START_LINE_BYTES_MAX, View, write};
use crate::sip::timer::{self, T1, T1_64, T4, Timer};
use crate::sip::token::Token;
use crate::target::{Target, Transport};

/// A request that was sent.
#[derive(Debug)]
pub(in crate::sip) struct Client {
    pub(in crate::sip) state: State,
    pub(in crate::sip) cseq: u32,
    pub(in crate::sip) owner: Owner,
    /// The bytes sent, kept once for every use: retransmission, ACK, CANCEL, the next attempt.
    pub(in crate::sip) request: Kept,
    /// The ACK of the 2xx, sent again when the 2xx is; empty: none yet.
    ack: Kept,
    /// Those of further forks that answered.
    fork_acks: Box<[Kept]>,
    method: Method,
    cookie: u64,
    pub(super) flow: FlowId,
    /// Of the flow that it went out on last.
    pub(super) transport: Transport,
    target: Target,
    /// Place in the flow's list; `None` when it does not wait on it any more.
    slot: Option<u32>,
    /// Whichever of B, C, D, F, K, M, the orphan's and the cancelled one's runs.
    timer: Option<TimerKey>,
    /// Timer A or E.
    pub(super) repeat: Option<Repeat>,
    /// True when the one new connection was used.
    reconnected: bool,
    /// Goes over TCP only because it is too large for UDP.
    oversized: bool,
    cancel: Cancel,
}

/// Forks of an INVITE whose ACK is kept; a further one is acknowledged anew, and gets its BYE, each
/// time its 2xx comes.
const FORKS_MAX: usize = 8;

/// The machine that a client transaction follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sip) enum State {
    Invite(invite_client::State),
    Request(request_client::State),
}

/// A CANCEL goes out only after a provisional response (RFC 3261 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cancel {
    No,
    Wanted,
    Sent,
}

impl Client {
    fn told(&self, client: ClientId, verdict: Verdict) -> Told {
        Told { client, method: self.method, cseq: self.cseq, owner: self.owner, verdict }
    }

    /// The ACKs that were sent, one for each fork that answered 2xx.
    pub(in crate::sip) fn acks(&self) -> impl Iterator<Item = &Kept> {
        std::iter::once(&self.ack).filter(|ack| !ack.is_empty()).chain(&self.fork_acks)
    }

    /// True until a final response comes or it is given up.
    fn is_pending(&self) -> bool {
        use {invite_client::State as Invite, request_client::State as Request};
        matches!(
            self.state,
            State::Invite(Invite::Calling | Invite::Proceeding)
                | State::Request(Request::Trying | Request::Proceeding)
        )
    }
}

impl Stack {
    /// The branch of the request that [`start`](Self::start) will be given next.
    pub(in crate::sip) fn next_branch(&mut self) -> Token {
        let ClientId(key) = self.clients.next_key();
        self.token(key.index)
    }

    /// True when there is room for one more request.
    pub(in crate::sip) fn has_room_for_client(&self) -> bool {
        self.clients.len() < CLIENTS_MAX
    }

    /// True when the message is within the limits of the reader.
    pub(in crate::sip) fn can_read(&mut self, message: &[u8]) -> bool {
        // Nothing that is so short, in so few lines, is beyond any of them.
        let is_small = message.len() <= START_LINE_BYTES_MAX
            && memchr::memchr_iter(b'\n', message).count() <= HEADERS_MAX;
        is_small || self.stored.read(message).is_ok()
    }

    /// Sends a request and waits for its answer.
    pub(in crate::sip) fn start(&mut self, new: NewClient) -> ClientId {
        let state = match new.method {
            Method::Invite => State::Invite(invite_client::State::Calling),
            _ => State::Request(request_client::State::Trying),
        };
        let id = self.clients.insert(Client {
            state,
            cseq: new.cseq,
            owner: new.owner,
            request: new.request,
            ack: Kept::default(),
            fork_acks: Box::default(),
            method: new.method,
            cookie: new.branch.cookie,
            flow: new.flow,
            transport: Transport::Tcp,
            target: new.target,
            slot: None,
            timer: None,
            repeat: None,
            reconnected: false,
            oversized: new.oversized,
            cancel: Cancel::No,
        });
        debug_assert_eq!(id.0.index, new.branch.index, "the branch names another transaction");
        let timer = match state {
            State::Invite(_) => Timer::B(id),
            State::Request(_) => Timer::F(id),
        };
        self.set_client_timer(id, new.timeout, timer);
        self.wait_on(id, new.flow);
        self.send_same(id);
        self.repeat_if_unreliable(id);
        id
    }

    /// The transaction, while it lasts.
    pub(in crate::sip) fn client(&self, id: ClientId) -> Option<&Client> {
        self.clients.get(id)
    }

    /// Keeps the ACK of a 2xx for as long as the 2xx may be repeated, and sends it.
    pub(in crate::sip) fn acknowledge(&mut self, id: ClientId, flow: FlowId, ack: Kept) {
        self.out.send(flow, &ack);
        match self.clients.get_mut(id) {
            Some(client) if client.ack.is_empty() => client.ack = ack,
            Some(client)
                if client.acks().count() < FORKS_MAX && !client.acks().any(|it| *it == ack) =>
            {
                let forks = std::mem::take(&mut client.fork_acks);
                client.fork_acks = forks.into_iter().chain([ack]).collect();
            }
            Some(_) | None => self.pool.give_back(ack),
        }
    }

    /// Finds the transaction of a response and lets it react (RFC 3261 §17.1.3). `None`: there is
    /// nobody to tell.
    pub(in crate::sip) fn on_response(&mut self, flow: FlowId, response: View<'_>) -> Option<Told> {
        let id = self.match_response(response)?;
        let client = self.clients.get_mut(id)?;
        let status = response.status();
        if status >= 200 && client.is_pending() {
            self.counters.sent.count(client.method, End::Status(status));
        }
        let unreliable = client.transport.is_unreliable();
        match client.state {
            State::Invite(before) => {
                let lost =
                    status == 503 || self.options.transport_error_responses.contains(&status);
                let event = if lost { Event::Lost } else { invite_event(status) };
                let (after, effect) = invite_client::step(before, event);
                client.state = State::Invite(after);
                use invite_client::State::{Orphaned, Refused};
                let late = matches!(before, Orphaned | Refused);
                let told = client.told(id, Verdict::Answered { late });
                self.on_invite_response(id, before, after, flow);
                if matches!(effect, Effect::Acknowledge | Effect::AcknowledgeAndTell) {
                    self.acknowledge_failure(id, flow, response);
                }
                if after == invite_client::State::Completed {
                    // Timer D is zero on a reliable flow (RFC 3261 §17.1.1.2).
                    match unreliable {
                        true if before != after => self.set_client_timer(id, T1_64, Timer::D(id)),
                        true => {}
                        false => self.end_client(id),
                    }
                }
                matches!(effect, Effect::Tell | Effect::AcknowledgeAndTell).then_some(told)
            }
            State::Request(before) => {
                let event = match status {
                    100..=199 => request_client::Event::Provisional,
                    _ => request_client::Event::Final,
                };
                let (after, effect) = request_client::step(before, event);
                client.state = State::Request(after);
                let told = client.told(id, Verdict::Answered { late: false });
                if after == request_client::State::Completed {
                    // Timer K is zero on a reliable flow (RFC 3261 §17.1.2.2).
                    match unreliable {
                        true if before != after => {
                            self.stop_repeating(id);
                            self.stop_waiting(id);
                            self.set_client_timer(id, T4, Timer::K(id));
                        }
                        true => {}
                        false => self.end_client(id),
                    }
                }
                (effect == request_client::Effect::Tell).then_some(told)
            }
        }
    }

    /// A flow is gone: every transaction that waits on it, in one pass.
    pub(in crate::sip) fn flow_failed(&mut self, flow: FlowId, error: FlowError) -> Vec<Told> {
        let Some(gone) = self.flows.remove(flow) else { return Vec::new() };
        let (lost, transport) = (Lost::of(gone.open, error), gone.transport);
        // An ICMP error is to UDP what a refused connection is to TCP. Whoever else peers name in Contact does
        // not fill the table.
        let unreachable = lost == Lost::Unopened || transport.is_unreliable();
        if unreachable && self.options.is_target(gone.target()) {
            self.aside.add(gone.target(), self.now);
        }
        let waiting = gone.into_waiting();
        waiting.into_iter().filter_map(|id| self.client_flow_failed(id, lost, transport)).collect()
    }

    /// Timer B or F: nothing came in time.
    pub(in crate::sip) fn on_client_timeout(&mut self, id: ClientId) -> Option<Told> {
        let client = self.clients.get_mut(id)?;
        client.timer = None;
        self.counters.sent.count(client.method, End::TimedOut);
        match client.state {
            State::Invite(before) => {
                let (after, effect) = invite_client::step(before, Event::B);
                client.state = State::Invite(after);
                let told = client.told(id, Verdict::TimedOut);
                if after == invite_client::State::Orphaned {
                    self.orphan(id);
                }
                (effect == Effect::Tell).then_some(told)
            }
            State::Request(before) => {
                let (_, effect) = request_client::step(before, request_client::Event::F);
                let told = client.told(id, Verdict::TimedOut);
                self.end_client(id);
                (effect == request_client::Effect::Tell).then_some(told)
            }
        }
    }

    /// 64·T1 after a CANCEL: the transaction counts as cancelled (RFC 3261 §9.1).
    pub(in crate::sip) fn on_cancelled(&mut self, id: ClientId) -> Option<Told> {
        let client = self.clients.get_mut(id)?;
        client.timer = None;
        self.counters.sent.count(client.method, End::TimedOut);
        let told = client.told(id, Verdict::TimedOut);
        self.end_client(id);
        Some(told)
    }

    /// Timer C: CANCEL, and 64·T1 for the final response.
    pub(in crate::sip) fn on_timer_c(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id) {
            client.timer = None;
        }
        self.cancel(id);
    }

    /// Timer D, K or M, or an orphan's: nothing can come any more.
    pub(in crate::sip) fn on_client_over(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.timer = None;
        let over = match client.state {
            State::Invite(state) => {
                invite_client::step(state, Event::Over).0 == invite_client::State::Terminated
            }
            State::Request(state) => {
                let (after, _) = request_client::step(state, request_client::Event::K);
                after == request_client::State::Terminated
            }
        };
        if over {
            self.end_client(id);
        }
    }

    /// Cancels an INVITE: now, or as soon as a provisional response came (RFC 3261 §9.1).
    pub(in crate::sip) fn cancel(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        match (client.state, client.cancel) {
            (State::Invite(invite_client::State::Calling), Cancel::No) => {
                client.cancel = Cancel::Wanted;
            }
            (State::Invite(invite_client::State::Proceeding), Cancel::No | Cancel::Wanted) => {
                client.cancel = Cancel::Sent;
                self.send_cancel(id);
                self.set_client_timer(id, T1_64, Timer::Cancelled(id));
                self.repeat_if_unreliable(id);
            }
            (State::Invite(_) | State::Request(_), Cancel::No | Cancel::Wanted | Cancel::Sent) => {}
        }
    }

    fn match_response(&mut self, response: View<'_>) -> Option<ClientId> {
        let token = response.via()?.token()?;
        let (cseq, _) = response.cseq()?;
        let id = self.clients.key_at(token.index)?;
        let client = self.clients.get(id)?;
        let same =
            token.shard == self.shard && token.cookie == client.cookie && cseq == client.cseq;
        let method = response.method();
        if same && method == Method::Cancel && client.cancel == Cancel::Sent {
            // The answer to a CANCEL has the INVITE's branch, and all that it says is that it came.
            self.stop_repeating(id);
            return None;
        }
        (same && method == client.method).then_some(id)
    }

    /// Timers and places after a response to an INVITE.
    fn on_invite_response(
        &mut self,
        id: ClientId,
        before: invite_client::State,
        after: invite_client::State,
        flow: FlowId,
    ) {
        use invite_client::State::{Accepted, Completed, Orphaned, Proceeding, Refused};
        match after {
            Proceeding => {
                if before == invite_client::State::Calling {
                    self.stop_repeating(id);
                }
                let wanted = self.clients.get(id).map(|client| client.cancel);
                match wanted {
                    Some(Cancel::No) => self.set_client_timer(id, timer::C, Timer::C(id)),
                    Some(Cancel::Wanted) => self.cancel(id),
                    Some(Cancel::Sent) | None => {}
                }
            }
            Accepted if before != Accepted => {
                self.stop_repeating(id);
                self.stop_waiting(id);
                // A little longer than the 2xx of the other leg waits for the ACK that is passed on.
                self.set_client_timer(id, T1_64 + T1, Timer::M(id));
            }
            Completed => {
                self.stop_repeating(id);
                self.stop_waiting(id);
            }
            Orphaned => self.adopt_flow(id, flow),
            Refused if matches!(before, Orphaned | Refused) => self.adopt_flow(id, flow),
            Refused => self.orphan(id),
            Accepted | invite_client::State::Calling | invite_client::State::Terminated => {}
        }
    }

    /// An orphan that is heard of again lives on the flow that its answer came on.
    fn adopt_flow(&mut self, id: ClientId, flow: FlowId) {
        if let Some(client) = self.clients.get_mut(id) {
            client.flow = flow;
        }
    }

    /// Gives an INVITE up for another attempt: nothing more is told of it but late answers.
    pub(in crate::sip) fn give_up(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let State::Invite(before) = client.state else { return };
        let (after, _) = invite_client::step(before, Event::Superseded);
        client.state = State::Invite(after);
        if before != after {
            self.orphan(id);
        }
    }

    /// Nothing is awaited of an INVITE any more, but what comes late is recognised for 64·T1.
    fn orphan(&mut self, id: ClientId) {
        self.stop_repeating(id);
        self.stop_waiting(id);
        self.set_client_timer(id, T1_64, Timer::Orphan(id));
    }

    /// Makes an orphan the attempt again, after a late provisional response.
    pub(in crate::sip) fn adopt(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.state = State::Invite(invite_client::State::Proceeding);
        client.cancel = Cancel::No;
        let flow = client.flow;
        self.wait_on(id, flow);
        self.set_client_timer(id, timer::C, Timer::C(id));
    }

    /// Makes an orphan the attempt again for `more` time: its timer B was cut at a deadline that
    /// has moved since.
    pub(in crate::sip) fn resume(&mut self, id: ClientId, more: Duration) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.state = State::Invite(invite_client::State::Calling);
        let flow = client.flow;
        self.wait_on(id, flow);
        self.set_client_timer(id, more, Timer::B(id));
        self.repeat_if_unreliable(id);
    }

    /// A device answers provisionally to an attempt that was given up and that nobody waits for: it
    /// rings, and is cancelled.
    pub(in crate::sip) fn cancel_late(&mut self, id: ClientId) {
        let orphan = State::Invite(invite_client::State::Orphaned);
        if self.clients.get(id).is_some_and(|client| client.state == orphan) {
            self.adopt(id);
            self.cancel(id);
        }
    }

    fn client_flow_failed(
        &mut self,
        id: ClientId,
        lost: Lost,
        transport: Transport,
    ) -> Option<Told> {
        let was_open = lost != Lost::Unopened;
        self.stop_repeating(id);
        let client = self.clients.get_mut(id)?;
        client.slot = None;
        self.outstanding -= 1;
        if std::mem::take(&mut client.oversized) && !was_open {
            self.send_as_datagram(id);
            return None;
        }
        let client = self.clients.get_mut(id)?;
        let told = client.told(id, Verdict::Failed { lost, transport });
        match client.state {
            State::Invite(state) => {
                let (after, effect) = invite_client::step(state, Event::FlowFailed);
                client.state = State::Invite(after);
                self.counters.sent.count(client.method, End::Failed);
                self.set_client_timer(id, T1_64, Timer::Orphan(id));
                (effect == Effect::Tell).then_some(told)
            }
            State::Request(state) => {
                // An ICMP error is not the end of a connection that a new one may replace.
                let again = was_open && !client.reconnected && !transport.is_unreliable();
                let event = request_client::Event::FlowFailed { again };
                let (after, effect) = request_client::step(state, event);
                client.state = State::Request(after);
                if again {
                    self.send_again(id);
                } else {
                    self.counters.sent.count(client.method, End::Failed);
                    // The proxy may have another target for its bytes, and ends it then.
                    if !matches!(client.owner, Owner::Forwarded(_)) {
                        self.end_client(id);
                    }
                }
                (effect == request_client::Effect::Tell).then_some(told)
            }
        }
    }

    /// The one new connection of a request that is no INVITE.
    fn send_again(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.reconnected = true;
        self.send_to_target(id);
    }

    /// A request too large for UDP finds nobody who takes it over TCP: a datagram after all (RFC 3261
    /// §18.1.1).
    fn send_as_datagram(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.target.transport = Transport::Udp;
        let request = write::with_via_transport(&client.request, Transport::Udp);
        self.pool.replace(&mut client.request, &request);
        self.send_to_target(id);
        self.repeat_if_unreliable(id);
    }

    /// The request over the flow to its target, which it waits on from now on.
    fn send_to_target(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(id) else { return };
        let target = client.target;
        let flow = self.outbound(target);
        if let Some(client) = self.clients.get_mut(id) {
            client.flow = flow;
        }
        self.wait_on(id, flow);
        self.send_same(id);
    }

    fn wait_on(&mut self, id: ClientId, flow: FlowId) {
        let slot = self.flows.wait(flow, id);
        self.ping_while_waiting(flow);
        let transport = self.transport(flow);
        self.outstanding += 1;
        if let Some(client) = self.clients.get_mut(id) {
            client.slot = Some(slot);
            client.transport = transport;
        }
    }

    fn stop_waiting(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let Some(slot) = client.slot.take() else { return };
        self.outstanding -= 1;
        if let Some(moved) = self.flows.answered(client.flow, id, slot)
            && let Some(moved) = self.clients.get_mut(moved)
        {
            moved.slot = Some(slot);
        }
    }

    pub(in crate::sip) fn end_client(&mut self, id: ClientId) {
        self.stop_repeating(id);
        self.stop_waiting(id);
        let Some(client) = self.clients.remove(id) else { return };
        if let Some(timer) = client.timer {
            self.wheel.cancel(timer);
        }
        for kept in [client.request, client.ack].into_iter().chain(client.fork_acks) {
            self.pool.give_back(kept);
        }
    }

    fn set_client_timer(&mut self, id: ClientId, after: Duration, timer: Timer) {
        let Some(client) = self.clients.get_mut(id) else { return };
        if let Some(old) = client.timer.take() {
            self.wheel.cancel(old);
        }
        client.timer = Some(self.wheel.schedule(self.now + after, timer));
    }

    /// The ACK of a 3xx–6xx: same branch, To of the response (RFC 3261 §17.1.1.3).
    fn acknowledge_failure(&mut self, id: ClientId, flow: FlowId, response: View<'_>) {
        let Some(client) = self.clients.get(id) else { return };
        let to = response.first(Name::To).unwrap_or_default();
        let request = client.request.clone();
        self.send_derived(flow, &request, b"ACK", Some(to));
    }

    pub(super) fn send_cancel(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(id) else { return };
        let (flow, request) = (client.flow, client.request.clone());
        self.send_derived(flow, &request, b"CANCEL", None);
    }

    /// A request on the branch of an INVITE: its ACK or CANCEL (RFC 3261 §9.1, §17.1.1.3).
    fn send_derived(&mut self, flow: FlowId, invite: &[u8], method: &[u8], to: Option<&[u8]>) {
        let mut head = std::mem::take(&mut self.stored);
        if head.read(invite).is_ok() {
            self.out.send_with(flow, |out| write_derived(out, invite, &head, method, to));
        }
        self.stored = head;
    }
}

fn write_derived(out: &mut Vec<u8>, invite: &[u8], head: &Head, method: &[u8], to: Option<&[u8]>) {
    let invite = View::new(invite, head);
    write::request_line(out, method, invite.request_uri());
    for header in invite.headers() {
        match (header.name, to) {
            (Name::To, Some(to)) => write::header(out, "To", to),
            (Name::CSeq, _) => write_cseq(out, invite.cseq().map_or(0, |(n, _)| n), method),
            (
                Name::Via | Name::MaxForwards | Name::From | Name::To | Name::CallId | Name::Route,
                _,
            ) => write::line(out, header.line),
            _ => {}
        }
    }
    write::body(out, b"");
}

/// Appends a CSeq header.
pub(in crate::sip) fn write_cseq(out: &mut Vec<u8>, cseq: u32, method: &[u8]) {
    out.extend_from_slice(b"CSeq: ");
    write::number(out, u64::from(cseq));
    out.push(b' ');
    out.extend_from_slice(method);
    out.extend_from_slice(b"\r\n");
}

fn invite_event(status: u16) -> Event {
    match status {
        100..=199 => Event::Provisional,
        200..=299 => Event::Success,
        _ => Event::Failure,
    }
}
