//! The proxy role: transaction-stateful, record-routing, without forking (RFC 3261 §16).
//!
//! ```text
//!  device ◄──► proxy ◄──► pair of servers (primary, backup)
//!
//!  request ─► route ─► first target ─┬─ answer ─► passed back
//!                        ▲           └─ transport fails ─► next target of the set
//!                        └───────────────────────────────────┘  │ none left
//!                                              503, Error-Info: transport-error ◄┘
//! ```
//!
//! It never waits and never sends the same thing twice to the same target: that is for the server that
//! recovers. It keeps no state beyond its transactions; a failed one is remembered for 64·T1, so that a late
//! 2xx of its peer still finds its way back.

mod forward;
mod probe;
mod route;

use self::probe::Members;
use self::route::{Hop, Plan};
use super::kept::Kept;
use super::message::{Method, Name, View, write};
use super::recovery::TRANSPORT_ERROR;
use super::session::fitting;
use super::timer::T1_64;
use super::token::Token;
use super::transaction::{Forwarded, NewClient, Owner, Received, Stack, Told, Verdict};
use crate::key::{FlowId, ServerId};
use crate::target::Target;

/// What a proxy says of a transport failure of a forwarded request (`spec` §9).
const ERROR_INFO: &[u8] = b"<transport-error>";
/// Seconds that a caller is told to wait while no new calls are taken.
const RETRY_AFTER: &[u8] = b"5";

/// Forwards requests and responses.
#[derive(Debug, Default)]
pub(super) struct Proxy {
    draining: bool,
    members: Members,
}

impl Proxy {
    /// Takes no new calls any more.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// True when a drain was asked for: what is under way the stack knows.
    pub(super) fn is_drained(&self) -> bool {
        self.draining
    }

    /// New options are in force: members are probed as they say.
    pub(super) fn on_options(&mut self, stack: &mut Stack) {
        self.members.on_options(stack);
    }

    /// A member is to be probed.
    pub(super) fn on_probe(&mut self, stack: &mut Stack, place: u16) {
        self.members.probe(stack, place);
    }

    /// A request, well-formed and with the mandatory headers.
    pub(super) fn on_request(&mut self, stack: &mut Stack, flow: FlowId, request: View<'_>) {
        match request.method() {
            Method::Ack => return self.on_ack(stack, flow, request),
            Method::Cancel => return on_cancel(stack, flow, request),
            _ => {}
        }
        let server = match stack.receive(flow, request) {
            Received::New(server) => server,
            Received::Repeated => return,
            Received::Refused => {
                return stack.respond_once(flow, request, 503, |out| write::body(out, b""));
            }
        };
        match self.plan(stack, flow, request) {
            Ok(Some(plan)) => self.forward(stack, server, request, &plan),
            Ok(None) => answer_options(stack, server, self.draining),
            Err(status) => refuse(stack, server, request, status),
        }
    }

    /// What becomes of a request; `None`: it is for the proxy itself.
    fn plan<'a>(
        &self,
        stack: &Stack,
        flow: FlowId,
        request: View<'a>,
    ) -> Result<Option<Plan<'a>>, u16> {
        let Some(peer) = stack.flows.get(flow).map(|flow| flow.peer) else { return Err(503) };
        let options = &stack.options;
        let plan = route::plan(options, peer.ip(), request)?;
        let for_us = request.method() == Method::Options && plan.is_for_us;
        if for_us {
            return Ok(None);
        }
        if request.max_forwards() == Some(0) {
            return Err(483);
        }
        if forward::has_looped(options, request) {
            return Err(482);
        }
        if request.first(Name::ProxyRequire).is_some() {
            return Err(420);
        }
        if self.draining && request.is_outside_dialog() && request.method() == Method::Invite {
            return Err(503);
        }
        Ok(Some(plan))
    }

    fn forward(&self, stack: &mut Stack, server: ServerId, request: View<'_>, plan: &Plan<'_>) {
        if request.method() == Method::Invite {
            stack.respond(server, 100);
        }
        let Some((target, pair, tried)) = self.first_target(stack, plan.hop) else {
            return respond_lost(stack, server);
        };
        let forwarded = Forwarded { from: server, pair, tried };
        let branch = stack.next_branch();
        let head = forward::Forward {
            plan,
            branch,
            transport: target.transport,
            peer: stack.server(server).map(|server| (server.peer, server.transport)),
        };
        let mut bytes = stack.pool.take_buffer();
        forward::request(&mut bytes, &stack.options, request, &head);
        if !stack.can_read(&bytes) {
            stack.pool.put_buffer(bytes);
            return stack.respond(server, 513);
        }
        let bytes = stack.pool.keep_buffer(bytes);
        let cseq = request.cseq().map_or(0, |(number, _)| number);
        send(stack, forwarded, target, request.method(), cseq, branch, bytes);
    }

    /// The target of a request that was sent nowhere yet; with its pair, and what of that is tried then.
    fn first_target(&self, stack: &Stack, hop: Hop) -> Option<(Target, Option<u16>, u8)> {
        match hop {
            Hop::To(target) => Some((target, None, 0)),
            Hop::Pair { pair, first } => {
                let (target, tried) = self.members.next(stack, pair, 0, first)?;
                Some((target, Some(pair), tried))
            }
        }
    }

    /// The ACK of a 2xx goes on like any request, without a transaction (RFC 3261 §16.11); that of another
    /// response ends here.
    fn on_ack(&mut self, stack: &mut Stack, flow: FlowId, ack: View<'_>) {
        if stack.on_ack(ack) || ack.max_forwards() == Some(0) {
            return;
        }
        let Some((peer, transport)) = stack.flows.get(flow).map(|flow| (flow.peer, flow.transport))
        else {
            return;
        };
        let Ok(plan) = route::plan(&stack.options, peer.ip(), ack) else { return };
        let Some((target, ..)) = self.first_target(stack, plan.hop) else { return };
        let head = forward::Forward {
            plan: &plan,
            branch: stack.token(u32::MAX),
            transport: target.transport,
            peer: Some((peer, transport)),
        };
        let flow = stack.outbound(target);
        let (out, options) = (&mut stack.out, &stack.options);
        out.send_with(flow, |out| forward::request(out, options, ack, &head));
    }

    /// A request that was forwarded has something to tell; `response` is there when it was answered.
    pub(super) fn on_told(
        &mut self,
        stack: &mut Stack,
        told: Told,
        response: Option<(FlowId, View<'_>)>,
    ) {
        let forwarded = match told.owner {
            Owner::Forwarded(forwarded) => forwarded,
            Owner::Probe(place) => return self.members.on_told(place, told.verdict),
            Owner::Nobody | Owner::Leg(_) | Owner::Relay { .. } => return,
        };
        match (told.verdict, response) {
            (Verdict::Answered { late }, Some((_, response))) => {
                self.on_answer(stack, told, forwarded, late, response);
            }
            (Verdict::Failed { .. }, _) => {
                self.on_failed(stack, told, forwarded);
                if told.method != Method::Invite {
                    stack.end_client(told.client);
                }
            }
            (Verdict::TimedOut | Verdict::Answered { .. }, _) => {
                on_timeout(stack, told.method, forwarded);
            }
        }
    }

    fn on_answer(
        &mut self,
        stack: &mut Stack,
        told: Told,
        forwarded: Forwarded,
        late: bool,
        response: View<'_>,
    ) {
        let status = response.status();
        if status == 100 {
            return;
        }
        let accepted = response.method() == Method::Invite && (200..300).contains(&status);
        if late && !accepted {
            return;
        }
        let unavailable = status == 503 && !stack.is_cancelled(forwarded.from);
        if unavailable && self.try_next(stack, told, forwarded) {
            return;
        }
        let mut bytes = stack.pool.take_buffer();
        forward::response(&mut bytes, response);
        let passed =
            !late && stack.forward_response(forwarded.from, response.method(), status, &bytes);
        // Whoever asked was told 503, or has the answer of another target. A 2xx must reach who can acknowledge
        // it, each time it comes (RFC 6026 §7.2); nothing else matters.
        if accepted && !passed {
            stack.send_back(told.client, &bytes);
        }
        stack.pool.put_buffer(bytes);
    }

    fn on_failed(&mut self, stack: &mut Stack, told: Told, forwarded: Forwarded) {
        if stack.is_cancelled(forwarded.from) {
            return stack.respond(forwarded.from, 487);
        }
        if !self.try_next(stack, told, forwarded) {
            respond_lost(stack, forwarded.from);
        }
    }

    /// The same request to the next target of its set, if there is one.
    fn try_next(&self, stack: &mut Stack, told: Told, forwarded: Forwarded) -> bool {
        let Some(pair) = forwarded.pair else { return false };
        let Some((target, tried)) = self.members.next(stack, pair, forwarded.tried, None) else {
            return false;
        };
        let next = Forwarded { tried, ..forwarded };
        let Some(request) = stack.client(told.client).map(|it| it.request.clone()) else {
            return false;
        };
        let branch = stack.next_branch();
        let mut bytes = stack.pool.take_buffer();
        if !forward::again(&mut bytes, &stack.options, &request, branch, target.transport) {
            stack.pool.put_buffer(bytes);
            return false;
        }
        let bytes = stack.pool.keep_buffer(bytes);
        send(stack, next, target, told.method, told.cseq, branch, bytes);
        true
    }
}

fn send(
    stack: &mut Stack,
    forwarded: Forwarded,
    target: Target,
    method: Method,
    cseq: u32,
    branch: Token,
    bytes: Kept,
) {
    if !stack.has_room_for_client() {
        stack.pool.give_back(bytes);
        return stack.respond(forwarded.from, 503);
    }
    let (target, bytes, oversized) = fitting(stack, target, bytes);
    let flow = stack.outbound(target);
    let client = stack.start(NewClient {
        branch,
        method,
        cseq,
        owner: Owner::Forwarded(forwarded),
        flow,
        target,
        oversized,
        request: bytes,
        timeout: T1_64,
    });
    stack.set_forwarded(forwarded.from, client);
}

/// 200, and the CANCEL goes on by the transaction of its INVITE (RFC 3261 §16.10). One without an INVITE
/// here can have none further on either: it would need our branch.
fn on_cancel(stack: &mut Stack, flow: FlowId, cancel: View<'_>) {
    let server = stack.cancelled_invite(cancel);
    let status = if server.is_some() { 200 } else { 481 };
    stack.respond_once(flow, cancel, status, |out| write::body(out, b""));
    if let Some(server) = server
        && let Some(client) = stack.cancel_forwarded(server)
    {
        stack.cancel(client);
    }
}

/// Nothing came in time. Who asked for anything but INVITE has given up by himself (RFC 4320 §4.2).
fn on_timeout(stack: &mut Stack, method: Method, forwarded: Forwarded) {
    match method {
        Method::Invite if stack.is_cancelled(forwarded.from) => stack.respond(forwarded.from, 487),
        Method::Invite => stack.respond(forwarded.from, 408),
        _ => stack.finish(forwarded.from),
    }
}

/// The forwarded request met a transport failure, and there is no other target.
fn respond_lost(stack: &mut Stack, server: ServerId) {
    stack.respond_with(server, 503, write::reason_phrase(503).as_bytes(), |out| {
        write::header(out, "Error-Info", ERROR_INFO);
        // The same for who does not read that.
        write::header(out, "Reason", TRANSPORT_ERROR.as_bytes());
        write::body(out, b"");
    });
}

fn refuse(stack: &mut Stack, server: ServerId, request: View<'_>, status: u16) {
    stack.respond_with(server, status, write::reason_phrase(status).as_bytes(), |out| {
        match status {
            420 => {
                for option in request.values(Name::ProxyRequire) {
                    write::header(out, "Unsupported", option);
                }
            }
            503 => write::header(out, "Retry-After", RETRY_AFTER),
            _ => {}
        }
        write::body(out, b"");
    });
}

/// Somebody asks whether the proxy lives.
fn answer_options(stack: &mut Stack, server: ServerId, draining: bool) {
    let status = if draining { 503 } else { 200 };
    stack.respond(server, status);
}
