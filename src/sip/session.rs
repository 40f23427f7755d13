//! One leg: a dialog with a device and the INVITE session in it (RFC 3261 §13, §14).
//!
//! ```text
//!            our INVITE on this leg (outgoing)            the peer's INVITE (incoming)
//!
//!                 Attempting ◄── retry ──┐                 Pending ──► 100, 1xx
//!                  │  │  │               │                    │ 2xx
//!        final     │  │  └─ failed ──► Waiting                ▼
//!        response  │  │                  │                 Accepted: 2xx again at T1, 2·T1 … T2
//!                  │  └─ 2xx without     └─ give up           │
//!                  │     offer sent:                          │ ACK, or 64·T1
//!                  ▼     Answered until the ACK's body comes  ▼
//!                 none                                       none
//! ```
//!
//! A leg knows nothing of the other one: the agent joins them.

mod outgoing;
mod spares;
mod target;

pub(super) use target::fitting;

use std::time::Duration;

pub(super) use outgoing::{Failed, Outgoing, Purpose, Sent};
pub(super) use spares::Spares;
use target::{Tried, Way};

use super::dialog::{Dialog, MAX_FORWARDS, RequestHead, write_via};
use super::kept::Kept;
use super::message::{Method, Name, View, write};
use super::recovery::{Cause, Decision, Phase, Recovery, decide};
use super::timer::{T1, T1_64, T2, Timer};
use super::token::Token;
use super::transaction::{NewClient, Owner, Stack, write_cseq};
use crate::cti::Outcome;
use crate::key::{ClientId, FlowId, LegId, ServerId, TimerKey};
use crate::options::DeviceId;
use crate::target::{Target, Transport};
use crate::time::Instant;

/// One leg of a call.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) dialog: Dialog,
    /// False until the INVITE that began it was answered 2xx.
    pub(super) confirmed: bool,
    /// `None` for a foreign caller.
    pub(super) device: Option<DeviceId>,
    /// The flow that the peer was last heard on.
    pub(super) flow: Option<FlowId>,
    /// The target in use: one of the device's backups. `None`: the first of the set.
    pub(super) target: Option<Target>,
    /// True while it is on the agent's list of legs that wait with several targets.
    pub(super) watched: bool,
    /// CSeq of the last INVITE of ours, which a PRACK names even after its 2xx.
    pub(super) invite_cseq: Option<u32>,
    /// Where to go when the dialog's next hop is no address.
    pub(super) fallback: Target,
    pub(super) party: Party,
    pub(super) outgoing: Option<Box<Outgoing>>,
    pub(super) incoming: Option<Incoming>,
}

/// Where the party of a leg is, as applications see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Party {
    /// Not there yet, or not any more.
    Null,
    /// It calls.
    Dialing,
    /// It rings.
    Alerting,
    /// It talks.
    Connected,
    /// It was put on hold by a request.
    Held,
}

/// An INVITE of the peer's.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) server: ServerId,
    pub(super) cseq: u32,
    /// The one that began the dialog.
    pub(super) initial: bool,
    pub(super) accepted: Option<Accepted>,
}

/// A 2xx of ours that waits for its ACK.
#[derive(Debug)]
pub(super) struct Accepted {
    timer: TimerKey,
    interval: Duration,
    until: Instant,
    /// True when the flow of the INVITE was seen dead meanwhile.
    flow_lost: bool,
}

/// What an unanswered 2xx comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unacknowledged {
    /// It was sent again.
    Repeated,
    /// 64·T1 without ACK on a living flow, or for a new call: end it (RFC 3261 §13.3.1.4).
    End,
    /// 64·T1 without ACK because the flow died: the call stays, as before the re-INVITE.
    Forget,
}

impl Leg {
    /// Sends a request other than INVITE. `rest` writes the headers after the server's own, and the
    /// body.
    pub(super) fn send_request(
        &mut self,
        stack: &mut Stack,
        request: &NewRequest<'_>,
        rest: impl FnOnce(&mut Vec<u8>),
    ) {
        let cseq = self.dialog.next_cseq();
        let way = self.choose(stack);
        let (branch, bytes) = self.write(stack, request, cseq, way.transport, rest);
        let (way, bytes, oversized) = way.fitting(stack, bytes);
        let flow = way.open(stack);
        stack.start(NewClient {
            branch,
            method: request.kind,
            cseq,
            owner: request.owner,
            flow,
            target: way.target,
            oversized,
            request: bytes,
            timeout: T1_64,
        });
    }

    /// Sends an INVITE; its attempts are this leg's `outgoing` until it is answered. False, and nothing
    /// is sent, when it grew beyond the limits of a message: its ACK, CANCEL and next attempt are
    /// read off it.
    pub(super) fn send_invite(
        &mut self,
        stack: &mut Stack,
        spares: &mut Spares,
        id: LegId,
        max_forwards: u8,
        offered: bool,
        rest: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let request = NewRequest {
            method: b"INVITE",
            kind: Method::Invite,
            owner: Owner::Leg(id),
            max_forwards,
            contact: true,
        };
        let cseq = self.dialog.next_cseq();
        let way = self.choose_for_invite(stack);
        let (branch, bytes) = self.write(stack, &request, cseq, way.transport, rest);
        if !stack.can_read(&bytes) {
            stack.pool.give_back(bytes);
            return false;
        }
        let request = bytes.clone();
        let client = self.attempt(stack, id, way, Attempt { branch, cseq, bytes, timeout: T1_64 });
        let state = Sent::Attempting(client);
        self.outgoing = Some(spares.put(Outgoing {
            state,
            request,
            purpose: Purpose::Relay,
            initial: !self.confirmed,
            tried: Tried::default(),
            first_cseq: cseq,
            timer_b: stack.now + T1_64,
            recovery: None,
            attempts: 1,
            offered,
            cancelled: false,
        }));
        true
    }

    /// The attempt failed at `stack.now`: the next target is tried at once, or a wait begins, or
    /// there is none. Pure decision in [`decide`].
    pub(super) fn on_attempt_failed(
        &mut self,
        stack: &mut Stack,
        id: LegId,
        cause: Cause,
    ) -> Failed {
        let Some(outgoing) = &mut self.outgoing else { return Failed::GiveUp };
        let now = stack.now;
        let recovery = *outgoing.recovery.get_or_insert(Recovery::begin(now, cause));
        let (first_failure, waits) = (recovery.first_failure, recovery.waits);
        let window = stack.options.window();
        if cause.is_of_the_target() && now < first_failure + window {
            let mut tried = outgoing.tried;
            let next = self.next_target(stack, cause, &mut tried);
            if let Some(outgoing) = &mut self.outgoing {
                outgoing.tried = tried;
            }
            if next {
                // Not down the flow of the target that failed, were it up.
                self.flow = None;
                self.send_next(stack, id, first_failure + window);
                return Failed::NextTarget;
            }
        }
        let Some(outgoing) = &mut self.outgoing else { return Failed::GiveUp };
        // A new INVITE waits only as long as it was told to.
        let delay =
            if outgoing.initial { Duration::ZERO } else { stack.options.retry_delay(self.device) };
        let decision = decide(now, first_failure, cause, delay, window);
        let Decision::Wait { retry, deadline } = decision else { return Failed::GiveUp };
        let timer = stack.wheel.schedule(retry, Timer::Retry(id));
        let phase = Phase::Waiting { retry: timer };
        let cause = if waits == 0 { cause.told() } else { recovery.cause };
        let waited = recovery.waited + (retry - now);
        outgoing.recovery =
            Some(Recovery { first_failure, cause, waits: waits + 1, waited, phase });
        outgoing.state = Sent::Waiting;
        // After a wait every target has its chance again.
        outgoing.tried = Tried::default();
        stack.counted.waiting += 1;
        let first = waits == 0 && !outgoing.initial;
        if first {
            stack.counters.recoveries[cause as usize].started += 1;
        }
        Failed::Wait { first, retry, deadline }
    }

    /// The wait is over: the next attempt. False when nothing waits, or the window closed meanwhile.
    pub(super) fn retry(&mut self, stack: &mut Stack, id: LegId) -> bool {
        let Some(outgoing) = &mut self.outgoing else { return false };
        let Some(recovery) = &mut outgoing.recovery else { return false };
        let deadline = recovery.first_failure + stack.options.window();
        if stack.now >= deadline {
            return false;
        }
        recovery.phase = Phase::Attempting;
        stack.counted.waiting -= 1;
        self.send_next(stack, id, deadline);
        true
    }

    /// A target of a leg that waits is alive: the next attempt goes there now. False when nothing
    /// waits, or the window closed meanwhile.
    pub(super) fn retry_at(&mut self, stack: &mut Stack, id: LegId, target: Target) -> bool {
        let recovery = self.outgoing.as_ref().and_then(|outgoing| outgoing.recovery);
        let Some(recovery) = recovery.filter(|_| self.is_waiting()) else { return false };
        let deadline = recovery.first_failure + stack.options.window();
        if stack.now >= deadline {
            return false;
        }
        self.stop_wait(stack);
        self.use_target(target);
        self.send_next(stack, id, deadline);
        true
    }

    /// The next attempt, with a new branch and the next CSeq, and the rest as it was.
    fn send_next(&mut self, stack: &mut Stack, id: LegId, deadline: Instant) {
        let Some(outgoing) = &self.outgoing else { return };
        let request = outgoing.request.clone();
        if outgoing.initial {
            self.dialog.forget_early(&mut stack.pool);
        }
        let cseq = self.dialog.next_cseq();
        let branch = stack.next_branch();
        let way = self.choose_for_invite(stack);
        let bytes = next_attempt(stack, &request, branch, cseq, way.transport);
        let timeout = T1_64.min(deadline - stack.now);
        let next = bytes.clone();
        let client = self.attempt(stack, id, way, Attempt { branch, cseq, bytes, timeout });
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.request = next;
            outgoing.attempts += 1;
            stack.counters.attempts += u64::from(!outgoing.initial);
            outgoing.timer_b = stack.now + T1_64;
            outgoing.state = Sent::Attempting(client);
        }
    }

    /// Timer B of a repeated attempt ran out. True when it was cut too early, so that the attempt
    /// goes on: its deadline lies later by the options now in force, or it was cancelled meanwhile
    /// and has no deadline any more but its own timer B.
    pub(super) fn extend(&mut self, stack: &mut Stack, client: ClientId) -> bool {
        let Some(outgoing) = &self.outgoing else { return false };
        let Some(recovery) = &outgoing.recovery else { return false };
        let deadline = recovery.first_failure + stack.options.window();
        let end =
            if outgoing.cancelled { outgoing.timer_b } else { deadline.min(outgoing.timer_b) };
        let extended = stack.now < end;
        if extended {
            stack.resume(client, end - stack.now);
        }
        extended
    }

    /// True while the wait before the next attempt runs.
    pub(super) fn is_waiting(&self) -> bool {
        self.outgoing.as_ref().is_some_and(|outgoing| outgoing.state == Sent::Waiting)
    }

    /// Ends the wait, if one runs.
    pub(super) fn stop_wait(&mut self, stack: &mut Stack) {
        if let Some(outgoing) = &mut self.outgoing
            && let Some(recovery) = &mut outgoing.recovery
            && let Phase::Waiting { retry } = recovery.phase
        {
            stack.wheel.cancel(retry);
            stack.counted.waiting -= 1;
            recovery.phase = Phase::Attempting;
        }
    }

    /// Whatever is under way gives place to an attempt that was given up and is answered now: the wait ends,
    /// an older attempt becomes an orphan.
    pub(super) fn supersede(&mut self, stack: &mut Stack) {
        self.stop_wait(stack);
        if let Some(outgoing) = &self.outgoing
            && let Sent::Attempting(older) = outgoing.state
        {
            stack.give_up(older);
        }
    }

    /// An attempt that was given up is the attempt again.
    pub(super) fn adopt(&mut self, stack: &mut Stack, client: ClientId) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.state = Sent::Attempting(client);
            stack.adopt(client);
        }
    }

    /// The INVITE is over: answered, or with another outcome. Counts how a recovery went; gives it, if there was one,
    /// and the number of attempts.
    pub(super) fn end_outgoing(
        &mut self,
        stack: &mut Stack,
        spares: &mut Spares,
        outcome: Option<Outcome>,
    ) -> Option<(Recovery, u32)> {
        self.stop_wait(stack);
        let mut outgoing = self.outgoing.take()?;
        stack.pool.give_back(std::mem::take(&mut outgoing.request));
        let recovery = outgoing.recovery.filter(|_| outgoing.has_waited());
        let attempts = outgoing.attempts;
        spares.give_back(outgoing);
        let recovery = recovery?;
        let counted = &mut stack.counters.recoveries[recovery.cause as usize];
        match outcome {
            None => {
                counted.succeeded += 1;
                let elapsed = stack.now.since(recovery.first_failure);
                stack.counters.excess.count(elapsed.saturating_sub(recovery.waited));
            }
            Some(outcome) => counted.ended[outcome as usize] += 1,
        }
        Some((recovery, attempts))
    }

    /// Sends the ACK of a 2xx and keeps it for when the 2xx is repeated (RFC 3261 §13.2.2.4).
    pub(super) fn acknowledge(
        &mut self,
        stack: &mut Stack,
        client: ClientId,
        flow: FlowId,
        rest: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(cseq) = stack.client(client).map(|client| client.cseq) else { return };
        let branch = stack.token(u32::MAX);
        let flow = self.ack_flow(stack, flow);
        let mut bytes = stack.pool.take_buffer();
        self.dialog.write_request(
            &mut bytes,
            &RequestHead {
                method: b"ACK",
                branch,
                cseq,
                max_forwards: MAX_FORWARDS,
                sent_by: stack.options.sent_by(stack.transport(flow)),
                transport: stack.transport(flow),
                contact: false,
            },
        );
        rest(&mut bytes);
        let ack = stack.pool.keep_buffer(bytes);
        stack.acknowledge(client, flow, ack);
    }

    /// A 2xx was sent: it is repeated until its ACK comes.
    pub(super) fn await_ack(&mut self, stack: &mut Stack, id: LegId) {
        let Some(incoming) = &mut self.incoming else { return };
        incoming.accepted = Some(Accepted {
            timer: stack.wheel.schedule(stack.now + T1, Timer::Answer(id)),
            interval: T1,
            until: stack.now + T1_64,
            flow_lost: false,
        });
    }

    /// The time to repeat a 2xx has come.
    pub(super) fn on_answer_timer(
        &mut self,
        stack: &mut Stack,
        id: LegId,
    ) -> Option<Unacknowledged> {
        let incoming = self.incoming.as_mut()?;
        let accepted = incoming.accepted.as_mut()?;
        if stack.lost_flow(incoming.server) {
            accepted.flow_lost = true;
            stack.redirect(incoming.server, self.flow);
        }
        if stack.now >= accepted.until {
            let end = incoming.initial || !accepted.flow_lost;
            let server = incoming.server;
            self.incoming = None;
            stack.finish(server);
            return Some(if end { Unacknowledged::End } else { Unacknowledged::Forget });
        }
        accepted.interval = (accepted.interval * 2).min(T2);
        let next = (stack.now + accepted.interval).min(accepted.until);
        accepted.timer = stack.wheel.schedule(next, Timer::Answer(id));
        stack.answer_again(incoming.server);
        Some(Unacknowledged::Repeated)
    }

    /// The answer to the peer's INVITE goes down the flow that the peer was last heard on, when that
    /// of the INVITE is gone.
    pub(super) fn redirect_answer(&self, stack: &mut Stack) {
        if let Some(incoming) = &self.incoming
            && stack.lost_flow(incoming.server)
        {
            stack.redirect(incoming.server, self.flow);
        }
    }

    /// Ends the peer's INVITE after its 2xx: the ACK came, or something that replaces it.
    pub(super) fn end_incoming(&mut self, stack: &mut Stack) {
        let Some(incoming) = self.incoming.take() else { return };
        if let Some(accepted) = incoming.accepted {
            stack.wheel.cancel(accepted.timer);
            stack.finish(incoming.server);
        }
    }

    /// True while the peer's INVITE has no final response.
    pub(super) fn has_pending_incoming(&self) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| incoming.accepted.is_none())
    }

    /// Down the flow that the 2xx came on; a new one when that is gone.
    fn ack_flow(&self, stack: &mut Stack, flow: FlowId) -> FlowId {
        if stack.flows.get(flow).is_some() { flow } else { self.choose(stack).open(stack) }
    }

    fn attempt(&mut self, stack: &mut Stack, id: LegId, way: Way, attempt: Attempt) -> ClientId {
        let Attempt { branch, cseq, bytes, timeout } = attempt;
        let (way, bytes, oversized) = way.fitting(stack, bytes);
        let flow = way.open(stack);
        self.invite_cseq = Some(cseq);
        stack.start(NewClient {
            branch,
            method: Method::Invite,
            cseq,
            owner: Owner::Leg(id),
            flow,
            target: way.target,
            oversized,
            request: bytes,
            timeout,
        })
    }

    fn write(
        &self,
        stack: &mut Stack,
        request: &NewRequest<'_>,
        cseq: u32,
        transport: Transport,
        rest: impl FnOnce(&mut Vec<u8>),
    ) -> (Token, Kept) {
        let branch = stack.next_branch();
        let mut bytes = stack.pool.take_buffer();
        self.dialog.write_request(
            &mut bytes,
            &RequestHead {
                method: request.method,
                branch,
                cseq,
                max_forwards: request.max_forwards,
                sent_by: stack.options.sent_by(transport),
                transport,
                contact: request.contact,
            },
        );
        rest(&mut bytes);
        (branch, stack.pool.keep_buffer(bytes))
    }
}

/// One sending of an INVITE.
struct Attempt {
    branch: Token,
    cseq: u32,
    bytes: Kept,
    /// Timer B.
    timeout: Duration,
}

/// What a request of a leg is made of.
pub(super) struct NewRequest<'a> {
    pub(super) method: &'a [u8],
    pub(super) kind: Method,
    pub(super) owner: Owner,
    pub(super) max_forwards: u8,
    pub(super) contact: bool,
}

/// The request again with another branch and CSeq; everything else as it was.
fn next_attempt(
    stack: &mut Stack,
    request: &[u8],
    branch: Token,
    cseq: u32,
    transport: Transport,
) -> Kept {
    let mut head = stack.take_head();
    let mut out = stack.pool.take_buffer();
    if head.read(request).is_ok() {
        let view = View::new(request, &head);
        let own = stack.options.sent_by(transport);
        write::request_line(&mut out, view.method_bytes(), view.request_uri());
        for header in view.headers() {
            match header.name {
                Name::Via => write_via(&mut out, own, transport, branch),
                Name::CSeq => write_cseq(&mut out, cseq, view.method_bytes()),
                Name::ContentLength => {}
                _ => write::line(&mut out, header.line),
            }
        }
        write::body(&mut out, view.body());
    }
    stack.put_head(head);
    stack.pool.keep_buffer(out)
}
