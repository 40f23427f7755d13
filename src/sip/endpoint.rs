//! The endpoint of a shard: one input in, actions out.
//!
//! ```text
//!  Message ─► head, view ─┬─ response ─► transaction ─► agent
//!                         └─ request ──────────────────► agent
//!  FlowFailed ─► every transaction that waits on the flow ─► agent
//!  Timeout ────► the wheel's due timers, a bounded number ─► transaction, agent
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::actions::{Actions, CloseReason, FlowError, Input, NewFlow, Stats};
use super::admission::{Admission, Backlog};
use super::agent::{Agent, rest_of_unavailable};
use super::counters::{Counters, Overload};
use super::flow::{Flow, Needed};
use super::message::{FrameError, Head, HeadError, Method, Name, View, home, write};
use super::proxy::Proxy;
use super::timer::Timer;
use super::transaction::{Stack, Told};
use crate::cti;
use crate::key::{FlowId, ShardId, TimerKey};
use crate::options::{Options, Role};
use crate::target::{Target, Transport};
use crate::time::Instant;

/// Timers that one [`Input::Timeout`] serves; what is still due makes
/// [`Endpoint::next_timeout`] lie in the past, so that sockets are served in between.
pub const TIMERS_PER_TURN: usize = 256;

/// The protocol of one shard.
pub struct Endpoint {
    stack: Stack,
    user: User,
    head: Head,
    admission: Admission,
    backlog: Backlog,
    drain: Option<TimerKey>,
}

impl Endpoint {
    /// An endpoint without flows or calls. `seed` starts its one generator of tags and branches.
    pub fn new(shard: ShardId, seed: [u8; 32], options: Arc<Options>) -> Self {
        let mut stack = Stack::new(shard, seed, options);
        let user = User::new(&mut stack);
        Self {
            stack,
            user,
            head: Head::new(),
            admission: Admission::default(),
            backlog: Backlog::default(),
            drain: None,
        }
    }

    /// Takes a flow that a peer opened. `None` when `flows_max` are open: close it.
    ///
    /// A peer that a listener for both families names by its mapped address, `::ffff:a.b.c.d`, is
    /// the IPv4 peer that it is (RFC 4291 §2.5.5.2): devices are found by address.
    ///
    /// Over UDP it is said of each datagram before the datagram itself, and gives the same flow as
    /// before while that lasts. `None`: drop the datagram.
    pub fn accept(&mut self, now: Instant, flow: NewFlow) -> Option<FlowId> {
        let peer = SocketAddr::new(flow.peer.ip().to_canonical(), flow.peer.port());
        match flow.transport {
            transport @ (Transport::Tcp | Transport::Tls) => {
                let flows_max = self.stack.options.limits.flows_max;
                let full = self.stack.flows.is_full(transport, flows_max);
                let peer = Target { transport, address: peer };
                (!full).then(|| self.stack.flows.accept(peer, now))
            }
            Transport::Udp => {
                self.stack.now = now;
                self.stack.wheel.advance(now);
                self.stack.datagram_from(peer)
            }
        }
    }

    /// Reacts to `input` at `now`, which never runs backwards, and appends to `out`.
    pub fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Actions) {
        self.stack.now = now;
        self.stack.wheel.advance(now);
        std::mem::swap(&mut self.stack.out, out);
        match input {
            Input::Framed { flow, message, waited } => self.on_message(flow, message, waited),
            Input::Message { flow, bytes, waited } => {
                let mut head = std::mem::take(&mut self.head);
                // What is wrong with it the view says.
                let _ = head.read(bytes);
                self.on_message(flow, View::new(bytes, &head), waited);
                self.head = head;
            }
            Input::Unframed { flow, bytes, error } => self.on_unframed(flow, bytes, error),
            Input::FlowOpened { flow } => self.on_flow_opened(flow),
            Input::FlowFailed { flow, error } => self.on_flow_failed(flow, error),
            Input::Undelivered { peer, error } => self.on_undelivered(peer, error),
            Input::Request(request) => self.user.on_cti_request(&mut self.stack, request),
            Input::Options(options) => {
                self.stack.flows.on_options(&options);
                self.stack.options = options;
                self.user.on_options(&mut self.stack);
            }
            Input::Drain { deadline } => self.on_drain(deadline),
            Input::Certified { flow, devices } => self.stack.flows.certified(flow, devices),
            Input::Alias { flow, target } => {
                self.on_alias(flow, target);
            }
            Input::Crowded { held, count } => self.on_crowded(held, count),
            Input::Timeout => self.on_timeout(now),
        }
        std::mem::swap(&mut self.stack.out, out);
    }

    /// When to call [`handle`](Self::handle) with [`Input::Timeout`]; `None`: nothing is due, ever.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.stack.wheel.next_expiry()
    }

    /// What there is and what was counted.
    pub fn stats(&self) -> Stats {
        Stats { calls: self.user.calls(), ..self.stack.stats() }
    }

    /// What was counted by kind.
    pub fn counters(&self) -> &Counters {
        &self.stack.counters
    }

    /// The shard that a message belongs to, when it says so: by the branch of a request of ours, or by the tag
    /// of a dialog of ours. A proxy has no dialogs; a tag that looks like ours is that of a server behind it.
    pub fn home(&self, bytes: &[u8]) -> Option<ShardId> {
        let is_response = bytes.starts_with(b"SIP/");
        match self.user {
            User::Proxy(_) if !is_response => None,
            User::Agent(_) | User::Proxy(_) => home(bytes),
        }
    }

    /// True when a drain was asked for, no call is left, and no request of ours is unanswered.
    pub fn is_drained(&self) -> bool {
        self.user.is_drained() && self.stack.is_quiet()
    }

    fn on_message(&mut self, flow: FlowId, message: View<'_>, waited: Duration) {
        self.stack.counted.messages += 1;
        self.stack.flows.heard(flow, self.stack.now);
        match message.essentials() {
            Ok(essentials) => self.on_checked(flow, message.with(&essentials), waited),
            Err(error) => self.on_bad_message(flow, message, error),
        }
    }

    fn on_checked(&mut self, flow: FlowId, message: View<'_>, waited: Duration) {
        if message.is_request() {
            self.look_for_alias(flow, message);
            if self.is_too_much(message, waited) {
                // No transaction is made of it: the ACK finds nothing.
                return self.stack.respond_once(flow, message, 503, rest_of_unavailable);
            }
            self.user.on_request(&mut self.stack, flow, message);
        } else {
            self.on_response(flow, message);
        }
    }

    /// True for the INVITE of a new call when too many have begun, or when it has waited too long and is not the
    /// only one; a copy of one that was taken is not.
    fn is_too_much(&mut self, request: View<'_>, waited: Duration) -> bool {
        let limits = &self.stack.options.limits;
        let (per_second, late) = (limits.calls_per_second_max, limits.is_late(waited));
        if (per_second == 0 && !late)
            || request.method() != Method::Invite
            || !request.is_outside_dialog()
            || self.stack.has_received(request)
        {
            return false;
        }
        let (now, max) = (self.stack.now, limits.queueing_delay_max);
        let reason = if late && self.backlog.is_standing(now, max) {
            Overload::QueueingDelay
        } else if !self.admission.admits(now, per_second) {
            Overload::Rate
        } else {
            return false;
        };
        self.stack.counters.overload[reason as usize] += 1;
        true
    }

    fn on_response(&mut self, flow: FlowId, response: View<'_>) {
        if let Some(told) = self.stack.on_response(flow, response) {
            self.user.on_told(&mut self.stack, told, Some((flow, response)));
        }
    }

    /// 400 where a response can be formed, else the flow is closed. A response or an ACK that is
    /// malformed is never answered (RFC 3261 §8.1.3.1, §17.1.1.3).
    fn on_bad_message(&mut self, flow: FlowId, message: View<'_>, error: HeadError) {
        self.stack.counted.messages_bad += 1;
        self.stack.counters.refuse(error);
        if message.is_request() && message.method() == Method::Ack {
            return;
        }
        if is_response(message) {
            return;
        }
        if !self.answer_bad(flow, message, error.status()) {
            self.close(flow);
        }
    }

    /// The stream cannot be followed any further: 400 if the head says to whom, and the end.
    fn on_unframed(&mut self, flow: FlowId, bytes: &[u8], error: FrameError) {
        self.stack.counted.messages_bad += 1;
        self.stack.counters.refuse(error.into());
        let mut head = std::mem::take(&mut self.head);
        // What could be read of a head that is cut short says to whom the answer goes.
        let _ = head.read(bytes);
        self.answer_bad(flow, View::new(bytes, &head), error.status());
        self.head = head;
        self.close(flow);
    }

    fn answer_bad(&mut self, flow: FlowId, message: View<'_>, status: u16) -> bool {
        let can_answer = is_answerable(message) && message.method() != Method::Ack;
        if can_answer {
            self.stack.respond_once(flow, message, status, |out| write::body(out, b""));
        }
        can_answer
    }

    /// Closes a connection. A datagram says nothing of the next one, and who sent it may be forged.
    fn close(&mut self, flow: FlowId) {
        if self.stack.transport(flow).is_unreliable() {
            return;
        }
        let told = self.stack.close(flow);
        self.tell(&told);
    }

    /// A flow that a device opened is the way to that device, if its first request says `alias`
    /// (RFC 5923). Only the address that it comes from, or a certificate, makes the claim good, and only
    /// for the address that the device is configured with.
    fn look_for_alias(&mut self, flow: FlowId, request: View<'_>) {
        if !self.stack.flows.look_at(flow) {
            return;
        }
        let Some(via) = request.via().filter(|via| via.alias) else { return };
        let Some(flow_of) = self.stack.flows.get(flow) else { return };
        let port = via.port.unwrap_or(flow_of.transport.port());
        let target = flow_of.claim(&self.stack.options, port);
        if let Some(target) = target
            && self.on_alias(flow, target)
        {
            self.stack.out.alias(flow, target);
        }
    }

    /// Requests to `target` may go down a peer's flow, if it is one and leads nowhere else: true.
    fn on_alias(&mut self, flow: FlowId, target: Target) -> bool {
        let new = self.stack.flows.alias(flow, target);
        if new {
            self.stack.aside.remove(target);
            self.user.on_alive(&mut self.stack, target);
        }
        new
    }

    fn on_flow_opened(&mut self, flow: FlowId) {
        self.stack.flow_opened(flow);
        if let Some(target) = self.stack.flows.get(flow).map(Flow::target) {
            self.stack.aside.remove(target);
            self.user.on_alive(&mut self.stack, target);
        }
    }

    fn on_flow_failed(&mut self, flow: FlowId, error: FlowError) {
        let told = self.stack.flow_failed(flow, error);
        self.tell(&told);
    }

    fn on_undelivered(&mut self, peer: SocketAddr, error: FlowError) {
        if let Some(flow) = self.stack.flows.datagram(peer, self.stack.now) {
            self.stack.out.close(flow, CloseReason::Undelivered);
            self.on_flow_failed(flow, error);
        }
    }

    fn tell(&mut self, told: &[Told]) {
        for &told in told {
            self.user.on_told(&mut self.stack, told, None);
        }
    }

    /// Closes idle connections, the least worth first.
    fn on_crowded(&mut self, held: &[FlowId], count: usize) {
        let mut needed = Needed::default();
        held.iter().for_each(|&flow| needed.mark(flow));
        self.stack.mark_needed(&mut needed);
        if let User::Agent(agent) = &self.user {
            agent.mark_needed(&self.stack, &mut needed);
        }
        let idle = self.stack.flows.idle(count, &needed);
        self.stack.close_idle(&idle);
    }

    fn on_drain(&mut self, deadline: Instant) {
        self.user.drain();
        if let Some(old) = self.drain.replace(self.stack.wheel.schedule(deadline, Timer::Drain)) {
            self.stack.wheel.cancel(old);
        }
    }

    fn on_timeout(&mut self, now: Instant) {
        for _ in 0..TIMERS_PER_TURN {
            let Some(timer) = self.stack.wheel.pop_due(now) else { return };
            match timer {
                Timer::B(id) | Timer::F(id) => {
                    let told = self.stack.on_client_timeout(id);
                    self.tell(told.as_slice());
                }
                Timer::Cancelled(id) => {
                    let told = self.stack.on_cancelled(id);
                    self.tell(told.as_slice());
                }
                Timer::C(id) => {
                    self.stack.on_timer_c(id);
                    self.user.on_timer(&mut self.stack, timer);
                }
                Timer::A(id) => self.stack.on_timer_a(id),
                Timer::E(id) => self.stack.on_timer_e(id),
                Timer::G(id) => self.stack.on_timer_g(id),
                Timer::D(id) | Timer::K(id) | Timer::M(id) | Timer::Orphan(id) => {
                    self.stack.on_client_over(id);
                }
                Timer::H(id) | Timer::I(id) | Timer::J(id) | Timer::L(id) => {
                    self.stack.on_server_over(id);
                }
                Timer::Ping(flow) => self.stack.on_ping(flow),
                Timer::Idle(flow) => self.stack.on_idle(flow),
                Timer::Retry(_)
                | Timer::Answer(_)
                | Timer::Session(_)
                | Timer::Probe(_)
                | Timer::Drain => {
                    self.user.on_timer(&mut self.stack, timer);
                }
            }
        }
    }
}

/// What stands on the transactions (RFC 3261 §5, "transaction user"): one for the life of the server.
enum User {
    Agent(Agent),
    Proxy(Proxy),
}

impl User {
    fn new(stack: &mut Stack) -> Self {
        match stack.options.role {
            Role::Server => Self::Agent(Agent::default()),
            Role::Proxy => {
                let mut proxy = Proxy::default();
                proxy.on_options(stack);
                Self::Proxy(proxy)
            }
        }
    }

    fn on_request(&mut self, stack: &mut Stack, flow: FlowId, request: View<'_>) {
        match self {
            Self::Agent(agent) => agent.on_request(stack, flow, request),
            Self::Proxy(proxy) => proxy.on_request(stack, flow, request),
        }
    }

    fn on_told(&mut self, stack: &mut Stack, told: Told, response: Option<(FlowId, View<'_>)>) {
        match self {
            Self::Agent(agent) => agent.on_told(stack, told, response),
            Self::Proxy(proxy) => proxy.on_told(stack, told, response),
        }
    }

    fn on_timer(&mut self, stack: &mut Stack, timer: Timer) {
        match (self, timer) {
            (Self::Agent(agent), timer) => agent.on_timer(stack, timer),
            (Self::Proxy(proxy), Timer::Probe(place)) => proxy.on_probe(stack, place),
            // A drain of the proxy is over when its transactions are.
            (Self::Proxy(_), _) => {}
        }
    }

    fn on_options(&mut self, stack: &mut Stack) {
        match self {
            Self::Agent(_) => {}
            Self::Proxy(proxy) => proxy.on_options(stack),
        }
    }

    fn on_alive(&mut self, stack: &mut Stack, target: Target) {
        match self {
            Self::Agent(agent) => agent.on_alive(stack, target),
            Self::Proxy(_) => {}
        }
    }

    /// A proxy has no calls that anything could be asked of.
    fn on_cti_request(&mut self, stack: &mut Stack, request: cti::Request) {
        match self {
            Self::Agent(agent) => agent.on_cti_request(stack, request),
            Self::Proxy(_) => {}
        }
    }

    fn drain(&mut self) {
        match self {
            Self::Agent(agent) => agent.drain(),
            Self::Proxy(proxy) => proxy.drain(),
        }
    }

    fn is_drained(&self) -> bool {
        match self {
            Self::Agent(agent) => agent.is_drained(),
            Self::Proxy(proxy) => proxy.is_drained(),
        }
    }

    fn calls(&self) -> usize {
        match self {
            Self::Agent(agent) => agent.len(),
            Self::Proxy(_) => 0,
        }
    }
}

/// True when the peer can tell which request is answered: a response is matched by Via and CSeq (RFC
/// 3261 §17.1.3). On a connection Via need not be understood, and what else is missing is not copied.
fn is_answerable(message: View<'_>) -> bool {
    message.is_request()
        && [Name::Via, Name::CSeq].iter().all(|&name| message.first(name).is_some())
}

/// True for what begins like a response, whatever follows.
fn is_response(message: View<'_>) -> bool {
    message.bytes().get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/"))
}
