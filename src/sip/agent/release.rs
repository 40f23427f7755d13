//! How calls end: BYE from a peer, a recovery given up, a drain.

use super::relay::write_passed;
use super::{Agent, Sent, write};
use crate::key::{CallId, LegId, ServerId, Side};
use crate::sip::dialog::MAX_FORWARDS;
use crate::sip::message::{Method, View};
use crate::sip::session::{Leg, NewRequest};
use crate::sip::transaction::{Owner, Stack};

/// How one leg is ended.
#[derive(Clone, Copy)]
enum Goodbye<'a> {
    /// Its peer ended it.
    None,
    /// A BYE with what the other leg's BYE carried.
    Passed(View<'a>),
    /// A BYE with a Reason header (RFC 3326), or none.
    Bye(Option<&'static str>),
}

/// Reason of a BYE on the other leg when a recovery was given up.
const TRANSPORT_ERROR: &str = "SIP;cause=503;text=\"transport-error\"";
/// Reason of a BYE when the ACK of a 2xx never came (RFC 3261 §13.3.1.4).
const NO_ACK: &str = "SIP;cause=408;text=\"no ACK\"";
/// Reason of a BYE on the other leg when its re-INVITE found no answer.
const NO_ANSWER: &str = "SIP;cause=408;text=\"no answer\"";
/// Reason of a BYE on the other leg when its re-INVITE found no dialog.
const NO_DIALOG: &str = "SIP;cause=481;text=\"dialog is gone\"";

impl Agent {
    /// A peer hangs up: 200, and the other leg gets its BYE.
    pub(super) fn on_bye(&mut self, stack: &mut Stack, id: LegId, server: ServerId, bye: View<'_>) {
        stack.respond(server, 200);
        self.end(stack, id, 487, Goodbye::None, Goodbye::Passed(bye));
    }

    /// The recovery of a leg is over without an answer, or it was switched off (`spec` §6): the
    /// other leg's re-INVITE is answered 408, then both legs get their BYE.
    pub(super) fn give_up(&mut self, stack: &mut Stack, id: LegId) {
        stack.counted.calls_lost += 1;
        self.end(stack, id, 408, Goodbye::Bye(None), Goodbye::Bye(Some(TRANSPORT_ERROR)));
    }

    /// A peer answered 481 or 408 to a re-INVITE, or nothing: its dialog is gone (RFC 3261
    /// §12.2.1.2). `status` answers the other leg's re-INVITE.
    pub(super) fn release_gone(&mut self, stack: &mut Stack, id: LegId, status: u16) {
        let reason = if status == 408 { NO_ANSWER } else { NO_DIALOG };
        self.end(stack, id, status, Goodbye::Bye(None), Goodbye::Bye(Some(reason)));
    }

    /// The peer never acknowledged our 2xx.
    pub(super) fn release_unacknowledged(&mut self, stack: &mut Stack, id: LegId) {
        self.end(stack, id, 487, Goodbye::Bye(Some(NO_ACK)), Goodbye::Bye(Some(NO_ACK)));
    }

    /// A call that was not answered ends: the caller gets `status` unless it has its answer.
    pub(super) fn release_unanswered(&mut self, stack: &mut Stack, call: CallId, status: u16) {
        let id = LegId { call, side: Side::A };
        self.end(stack, id, status, Goodbye::None, Goodbye::None);
    }

    /// Ends every call.
    pub(super) fn release_all(&mut self, stack: &mut Stack) {
        for call in self.calls.keys() {
            let id = LegId { call, side: Side::A };
            self.end(stack, id, 503, Goodbye::Bye(None), Goodbye::Bye(None));
        }
    }

    /// Ends both legs and forgets the call. `status` answers INVITEs that are open.
    fn end(
        &mut self,
        stack: &mut Stack,
        id: LegId,
        status: u16,
        here: Goodbye<'_>,
        there: Goodbye<'_>,
    ) {
        let Some(mut call) = self.calls.remove(id.call) else { return };
        // Open INVITEs are answered before any BYE goes out.
        for leg in &mut call.legs {
            end_incoming(stack, leg, status);
        }
        end_leg(stack, call.leg_mut(id.side), here);
        end_leg(stack, call.leg_mut(id.side.other()), there);
    }
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

fn end_leg(stack: &mut Stack, leg: &mut Leg, goodbye: Goodbye<'_>) {
    match leg.outgoing.as_ref().map(|outgoing| outgoing.state) {
        Some(Sent::Attempting(client)) if !leg.confirmed => stack.cancel(client),
        Some(Sent::Answered(client, flow)) => {
            leg.acknowledge(stack, client, flow, |out| write::body(out, b""));
        }
        Some(Sent::Attempting(_) | Sent::Waiting) | None => {}
    }
    leg.end_outgoing(stack, false);
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
