//! How calls end: BYE from a peer, a recovery given up, a drain.

use super::relay::write_passed;
use super::{Agent, Call, Ended, Sent, events, write};
use crate::cti::{Content, ErrorCode};
use crate::key::{CallId, LegId, ServerId, Side};
use crate::sip::dialog::MAX_FORWARDS;
use crate::sip::message::{Method, View};
use crate::sip::recovery::TRANSPORT_ERROR;
use crate::sip::session::{Leg, NewRequest, Spares};
use crate::sip::transaction::{Owner, Stack};

/// How a call is ended.
#[derive(Clone, Copy)]
pub(super) struct End {
    /// Answers INVITEs that are open.
    pub(super) status: u16,
    /// Whose peer ended it; `None`: we did.
    pub(super) by: Option<Side>,
    /// What becomes of an INVITE of ours on the leg where it ends.
    pub(super) ended: Ended,
    /// The request that asked for it.
    pub(super) reference: Option<u64>,
}

/// How one leg is ended.
#[derive(Clone, Copy)]
pub(super) enum Goodbye<'a> {
    /// Its peer ended it.
    None,
    /// A BYE with what the other leg's BYE carried.
    Passed(View<'a>),
    /// A BYE with a Reason header (RFC 3326), or none.
    Bye(Option<&'static str>),
}

/// Reason of a BYE when the ACK of a 2xx never came (RFC 3261 §13.3.1.4).
const NO_ACK: &str = "SIP;cause=408;text=\"no ACK\"";
/// Reason of a BYE on the other leg when its re-INVITE found no answer.
const NO_ANSWER: &str = "SIP;cause=408;text=\"no answer\"";
/// Reason of a BYE on the other leg when its re-INVITE found no dialog.
const NO_DIALOG: &str = "SIP;cause=481;text=\"dialog is gone\"";

/// Reason of a BYE when no session refresh came.
const EXPIRED: &str = "SIP;cause=408;text=\"session expired\"";

impl Agent {
    /// A peer hangs up: 200, and the other leg gets its BYE.
    pub(super) fn on_bye(&mut self, stack: &mut Stack, id: LegId, server: ServerId, bye: View<'_>) {
        stack.respond(server, 200);
        let end = End { status: 487, by: Some(id.side), ended: Ended::Released, reference: None };
        self.end(stack, id, end, Goodbye::None, Goodbye::Passed(bye));
    }

    /// The recovery of a leg is over without an answer, or it was switched off (`spec` §6): the
    /// other leg's re-INVITE is answered 408, then both legs get their BYE.
    pub(super) fn give_up(&mut self, stack: &mut Stack, id: LegId) {
        stack.counted.calls_lost += 1;
        let end = End { status: 408, by: None, ended: Ended::GivenUp, reference: None };
        self.end(stack, id, end, Goodbye::Bye(None), Goodbye::Bye(Some(TRANSPORT_ERROR)));
    }

    /// A peer answered 481 or 408 to a re-INVITE, or nothing: its dialog is gone (RFC 3261
    /// §12.2.1.2). `status` answers the other leg's re-INVITE.
    pub(super) fn release_gone(&mut self, stack: &mut Stack, id: LegId, status: u16) {
        let reason = if status == 408 { NO_ANSWER } else { NO_DIALOG };
        let end = End { status, by: None, ended: Ended::Released, reference: None };
        self.end(stack, id, end, Goodbye::Bye(None), Goodbye::Bye(Some(reason)));
    }

    /// The peer never acknowledged our 2xx.
    pub(super) fn release_unacknowledged(&mut self, stack: &mut Stack, id: LegId) {
        let end = End { status: 487, by: None, ended: Ended::Released, reference: None };
        self.end(stack, id, end, Goodbye::Bye(Some(NO_ACK)), Goodbye::Bye(Some(NO_ACK)));
    }

    /// A call that was not answered ends: the caller gets `status` unless it has its answer. `by`
    /// hung up or refused.
    pub(super) fn release_unanswered(
        &mut self,
        stack: &mut Stack,
        call: CallId,
        status: u16,
        by: Option<Side>,
    ) {
        let id = LegId { call, side: Side::A };
        let end = End { status, by, ended: Ended::Released, reference: None };
        self.end(stack, id, end, Goodbye::None, Goodbye::None);
    }

    /// The device of a call that was not answered cannot be reached.
    pub(super) fn release_unreachable(&mut self, stack: &mut Stack, call: CallId) {
        let id = LegId { call, side: Side::A };
        if let Some(call) = self.calls.get(call) {
            let code = ErrorCode::OutOfService;
            events::emit(stack, call, id, Content::Error { code, reference: None });
        }
        self.release_unanswered(stack, call, 503, None);
    }

    /// The session was not refreshed (RFC 4028 §10).
    pub(super) fn release_silent(&mut self, stack: &mut Stack, call: CallId) {
        let id = LegId { call, side: Side::A };
        let end = End { status: 408, by: None, ended: Ended::Released, reference: None };
        self.end(stack, id, end, Goodbye::Bye(Some(EXPIRED)), Goodbye::Bye(Some(EXPIRED)));
    }

    /// Ends every call.
    pub(super) fn release_all(&mut self, stack: &mut Stack) {
        for call in self.calls.keys() {
            let id = LegId { call, side: Side::A };
            let end = End { status: 503, by: None, ended: Ended::Released, reference: None };
            self.end(stack, id, end, Goodbye::Bye(None), Goodbye::Bye(None));
        }
    }

    /// Ends both legs and forgets the call.
    pub(super) fn end(
        &mut self,
        stack: &mut Stack,
        id: LegId,
        end: End,
        here: Goodbye<'_>,
        there: Goodbye<'_>,
    ) {
        let Some(mut call) = self.calls.remove(id.call) else { return };
        call.stop_session_timer(stack);
        // Open INVITEs are answered before any BYE goes out.
        for leg in &mut call.legs {
            end_incoming(stack, leg, end.status);
        }
        let asked = asked_for(&call, id);
        end_leg(stack, &mut self.spares, &mut call, id, end.ended, here);
        if end.ended == Ended::GivenUp || asked.is_some() {
            let (leg, reference) = asked.map_or((id, None), |(leg, asked)| (leg, Some(asked)));
            let code = match end.ended {
                Ended::GivenUp => ErrorCode::Timeout,
                Ended::Answered | Ended::Cancelled | Ended::Released => ErrorCode::OutOfService,
            };
            events::emit(stack, &call, leg, Content::Error { code, reference });
        }
        end_leg(stack, &mut self.spares, &mut call, id.other(), Ended::Released, there);
        events::leave(stack, &mut call, id, end.by, end.reference);
        events::leave(stack, &mut call, id.other(), end.by, None);
        for leg in call.legs {
            leg.dialog.give_back(&mut stack.pool);
        }
    }
}

/// The operation of an application that is under way, and its party.
fn asked_for(call: &Call, id: LegId) -> Option<(LegId, u64)> {
    [id, id.other()].into_iter().find_map(|leg| {
        let purpose = call.leg(leg.side).outgoing.as_ref()?.purpose;
        Some((purpose.party(leg), purpose.reference()?))
    })
}

fn end_incoming(stack: &mut Stack, leg: &mut Leg, status: u16) {
    if leg.has_pending_incoming() {
        if let Some(incoming) = leg.incoming.take() {
            stack.respond(incoming.server, status);
        }
    } else {
        leg.end_incoming(stack);
    }
}

fn end_leg(
    stack: &mut Stack,
    spares: &mut Spares,
    call: &mut Call,
    id: LegId,
    ended: Ended,
    goodbye: Goodbye<'_>,
) {
    let leg = call.leg_mut(id.side);
    match leg.outgoing.as_ref().map(|outgoing| outgoing.state) {
        Some(Sent::Attempting(client)) if !leg.confirmed => stack.cancel(client),
        Some(Sent::Answered(client, flow)) => {
            leg.acknowledge(stack, client, flow, |out| write::body(out, b""));
        }
        Some(Sent::Attempting(_) | Sent::Waiting) | None => {}
    }
    events::end_outgoing(stack, spares, call, id, ended);
    let leg = call.leg_mut(id.side);
    if !leg.confirmed {
        return;
    }
    let bye = NewRequest {
        method: b"BYE",
        kind: Method::Bye,
        owner: Owner::Nobody,
        max_forwards: MAX_FORWARDS,
        contact: false,
    };
    match goodbye {
        Goodbye::None => {}
        Goodbye::Passed(view) => leg.send_request(stack, &bye, |out| {
            write_passed(out, view);
            write::body(out, view.body());
        }),
        Goodbye::Bye(reason) => leg.send_request(stack, &bye, |out| {
            if let Some(reason) = reason {
                write::header(out, "Reason", reason.as_bytes());
            }
            write::body(out, b"");
        }),
    }
}
