//! The back-to-back user agent (RFC 7092 "signaling-only"): calls of two legs.
//!
//! ```text
//!   caller ◄── leg A ──► call ◄── leg B ──► device
//!
//!   INVITE ─► 100, leg B's INVITE ─► 1xx, 2xx, 3xx–6xx passed back
//!   in a dialog: INVITE (recovered), ACK, BYE, CANCEL here; UPDATE, INFO, REFER, NOTIFY, PRACK, …
//!                and methods nobody knows passed to the other leg
//!   outside: OPTIONS answered, what belongs to a dialog 481, everything else 405, or 501 where nobody
//!            knows it
//! ```
//!
//! The two legs of a call live and end together: when one ends, the other gets its BYE and the call
//! is forgotten; transactions that are still out find no call and clean up after themselves.

mod control;
mod events;
mod invite;
mod recover;
mod relay;
mod release;
mod require;
mod sdp;
mod session_timer;
mod setup;

use self::session_timer::Session;
use super::flow::Needed;
use super::message::{Method, Uri, View, write};
use super::session::{Leg, Sent, Spares, Unacknowledged};
use super::timer::Timer;
use super::token::Token;
use super::transaction::{Owner, Received, Stack, Told, Verdict};
use crate::key::{CallId, FlowId, LegId, ServerId, Side, Slab};

/// Methods that are understood, for Allow (RFC 3261 §20.5).
const ALLOW: &[u8] =
    b"INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO, REFER, NOTIFY, MESSAGE, PRACK";

/// What a caller is told to wait before it tries again while the server cannot take calls, seconds.
const RETRY_AFTER_SECS: u64 = 5;

/// Calls of a shard and what is done with them.
#[derive(Debug, Default)]
pub(super) struct Agent {
    calls: Slab<CallId, Call>,
    spares: Spares,
    /// True when no new calls are taken.
    draining: bool,
    /// Legs that wait and have several targets; some may have gone on meanwhile.
    watching: Vec<LegId>,
    /// When the list is tidied up.
    watching_max: usize,
}

/// How an INVITE of ours ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// With a final answer.
    Answered,
    /// Its recovery was given up, or is switched off.
    GivenUp,
    /// It was cancelled.
    Cancelled,
    /// With its call, for another reason.
    Released,
}

/// Two legs.
#[derive(Debug)]
struct Call {
    legs: [Leg; 2],
    /// Runs while the peers refresh their session (RFC 4028).
    session: Option<Session>,
}

impl Call {
    fn leg(&self, side: Side) -> &Leg {
        &self.legs[side as usize]
    }

    fn leg_mut(&mut self, side: Side) -> &mut Leg {
        &mut self.legs[side as usize]
    }

    /// Reads something of each cache line that a request in the dialog and what is made of it on the other leg will
    /// need. Among a million calls none of them is in the cache; so they come from memory at the same time, and not
    /// one after the other when their turn is.
    fn fetch(&self) {
        let touch = |leg: &Leg| {
            let open = leg.outgoing.is_some() | leg.incoming.is_some() | leg.target.is_some();
            (leg.dialog.touch(), leg.flow, open | leg.confirmed, leg.invite_cseq)
        };
        std::hint::black_box(self.legs.each_ref().map(touch));
    }
}

impl Agent {
    /// How many calls there are.
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Marks the flows of all calls.
    pub(super) fn mark_needed(&self, stack: &Stack, needed: &mut Needed) {
        for (_, call) in self.calls.iter() {
            for leg in &call.legs {
                if let Some(flow) = leg.flow_in_use(stack) {
                    needed.mark(flow);
                }
            }
        }
    }

    /// Takes no new calls any more.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// True when a drain was asked for and the last call is gone.
    pub(super) fn is_drained(&self) -> bool {
        self.draining && self.calls.is_empty()
    }

    /// A request, well-formed and with the mandatory headers.
    pub(super) fn on_request(&mut self, stack: &mut Stack, flow: FlowId, request: View<'_>) {
        match request.method() {
            Method::Ack => return self.on_ack(stack, flow, request),
            Method::Cancel => return self.on_cancel(stack, flow, request),
            _ => {}
        }
        let server = match stack.receive(flow, request) {
            Received::New(server) => server,
            Received::Repeated => return,
            Received::Refused => return refuse(stack, flow, request, 503),
        };
        match request.to().and_then(|to| to.tag) {
            Some(tag) => self.on_request_in_dialog(stack, flow, server, request, tag),
            None => self.on_request_outside(stack, flow, server, request),
        }
    }

    /// A transaction of ours has something to tell; `response` is there when it was answered.
    pub(super) fn on_told(
        &mut self,
        stack: &mut Stack,
        told: Told,
        response: Option<(FlowId, View<'_>)>,
    ) {
        match (told.owner, told.verdict, response) {
            (Owner::Nobody, _, _) => {}
            (Owner::Relay { from, leg }, Verdict::Answered { .. }, Some((_, response))) => {
                self.relay_response(stack, from, leg, response);
            }
            // The requester's own timer F has run out as well (RFC 4320 §4.2).
            (Owner::Relay { from, .. }, Verdict::TimedOut, _) => stack.finish(from),
            (Owner::Relay { from, .. }, Verdict::Failed { .. } | Verdict::Answered { .. }, _) => {
                stack.respond(from, 503);
            }
            // The proxy's.
            (Owner::Forwarded(_) | Owner::Probe(_), _, _) => {}
            (Owner::Leg(leg), _, response) => self.on_invite_told(stack, leg, told, response),
        }
    }

    /// A timer of a leg, of an INVITE that was cancelled for its age, or of a drain.
    pub(super) fn on_timer(&mut self, stack: &mut Stack, timer: Timer) {
        match timer {
            Timer::C(client) => self.on_invite_unanswered(stack, client),
            Timer::Retry(leg) => self.on_retry(stack, leg),
            Timer::Answer(leg) => self.on_answer_timer(stack, leg),
            Timer::Session(call) => self.on_session_timer(stack, call),
            Timer::Drain => self.release_all(stack),
            // Those of transactions and flows.
            _ => {}
        }
    }

    fn on_answer_timer(&mut self, stack: &mut Stack, id: LegId) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        match call.leg_mut(id.side).on_answer_timer(stack, id) {
            Some(Unacknowledged::End) => self.release_unacknowledged(stack, id),
            Some(Unacknowledged::Forget) => self.acknowledge_other(stack, id, None),
            Some(Unacknowledged::Repeated) | None => {}
        }
    }

    fn on_request_in_dialog(
        &mut self,
        stack: &mut Stack,
        flow: FlowId,
        server: ServerId,
        request: View<'_>,
        tag: &[u8],
    ) {
        let Some(id) = self.find(stack, tag, request) else {
            return stack.refuse(server, 481);
        };
        let Some(call) = self.calls.get_mut(id.call) else { return };
        let leg = call.leg_mut(id.side);
        let method = request.method();
        let cseq = request.cseq().map_or(0, |(number, _)| number);
        if !leg.dialog.accept_cseq(cseq, method == Method::Invite) {
            return respond_busy(stack, server);
        }
        leg.flow = Some(flow);
        stack.set_to_tag(server, leg.dialog.local_tag);
        match method {
            Method::Invite => self.on_reinvite(stack, id, server, cseq, request),
            Method::Bye => self.on_bye(stack, id, server, request),
            _ => self.relay_request(stack, id, server, request),
        }
    }

    fn on_request_outside(
        &mut self,
        stack: &mut Stack,
        flow: FlowId,
        server: ServerId,
        request: View<'_>,
    ) {
        let method = request.method();
        match method {
            Method::Invite | Method::Options => {}
            // They belong to a dialog, and there is none without our tag (RFC 3261 §12.2.2).
            Method::Bye | Method::Update | Method::Info | Method::Prack | Method::Notify => {
                return stack.refuse(server, 481);
            }
            Method::Other => return respond_allow(stack, server, 501),
            _ => return respond_allow(stack, server, 405),
        }
        if Uri::parse(request.request_uri()).is_none() {
            return stack.refuse(server, 416);
        }
        if require::has_unknown(request) {
            return require::respond(stack, server, request);
        }
        match method {
            Method::Invite => self.on_new_invite(stack, flow, server, request),
            _ if self.draining => respond_allow(stack, server, 503),
            _ => respond_allow(stack, server, 200),
        }
    }

    /// The leg that a request names by our tag, its own tag and its Call-ID (RFC 3261 §12.2.2).
    fn find(&self, stack: &Stack, tag: &[u8], request: View<'_>) -> Option<LegId> {
        let token = Token::parse(tag).filter(|token| token.shard == stack.shard)?;
        let side = if token.index & 1 == 0 { Side::A } else { Side::B };
        let call = self.calls.key_at(token.index >> 1)?;
        let found = self.calls.get(call)?;
        // The ACK follows its INVITE closely.
        if request.method() != Method::Ack {
            found.fetch();
        }
        let leg = found.leg(side);
        let same = leg.dialog.local_tag == token && leg.dialog.has_sent(request);
        same.then_some(LegId { call, side })
    }
}

/// Out of order, or an INVITE before the last one was answered (RFC 3261 §12.2.2, §14.2).
fn respond_busy(stack: &mut Stack, server: ServerId) {
    let seconds = stack.random() % 11;
    stack.respond_with(server, 500, write::reason_phrase(500).as_bytes(), |out| {
        write::retry_after(out, seconds);
        write::body(out, b"");
    });
}

/// Answers, and says what is understood (RFC 3261 §8.2.1, §11.2).
fn respond_allow(stack: &mut Stack, server: ServerId, status: u16) {
    stack.respond_with(server, status, write::reason_phrase(status).as_bytes(), |out| {
        write::header(out, "Allow", ALLOW);
        write::header(out, "Accept", b"application/sdp");
        write::body(out, b"");
    });
}

/// Not now: 503 with Retry-After (RFC 3261 §21.5.4).
fn respond_unavailable(stack: &mut Stack, server: ServerId) {
    stack.respond_with(server, 503, write::reason_phrase(503).as_bytes(), rest_of_unavailable);
}

/// What follows the copied headers in that.
pub(super) fn rest_of_unavailable(out: &mut Vec<u8>) {
    write::retry_after(out, RETRY_AFTER_SECS);
    write::body(out, b"");
}

/// Answers a request that gets no transaction.
fn refuse(stack: &mut Stack, flow: FlowId, request: View<'_>, status: u16) {
    stack.respond_once(flow, request, status, |out| write::body(out, b""));
}

/// What follows the server's own headers in an INVITE, or its ACK, that is passed on.
fn rest_of_invite(out: &mut Vec<u8>, request: View<'_>) {
    relay::write_passed(out, request);
    write::body(out, request.body());
}
