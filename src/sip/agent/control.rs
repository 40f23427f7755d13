//! Third-party call control: what an application asks of a party (RFC 3725).
//!
//! ```text
//! Hold:      INVITE without offer ─► party;  200 (offer);  ACK (the offer, inactive)
//! Retrieve:  INVITE without offer ─► party;  200 (offer);  INVITE (offer) ─► other party
//!            ACK (its answer) ◄──────────────────────────  200 (answer), ACK
//! ```
//!
//! Neither needs a session description that the server would have to keep. Both are re-INVITEs like
//! any other: when one fails in transport it is sent again ([`recovery`](crate::sip::recovery)).

use super::release::{End, Goodbye};
use super::{Agent, Call, Ended, Sent, events, sdp};
use crate::cti::{Content, ErrorCode, Request, What};
use crate::key::{ClientId, FlowId, LegId};
use crate::sip::dialog::MAX_FORWARDS;
use crate::sip::message::{Head, View};
use crate::sip::session::{Party, Purpose, Spares};
use crate::sip::transaction::Stack;

impl Agent {
    /// What an application asks; an event answers it.
    pub(in crate::sip) fn on_cti_request(&mut self, stack: &mut Stack, request: Request) {
        let id = LegId { call: request.call, side: request.side };
        let reference = request.reference;
        let Some(call) = self.calls.get_mut(id.call) else {
            return events::refuse_unknown(stack, id, reference);
        };
        match request.what {
            What::Release => self.release_by(stack, id, reference),
            What::Hold => start(stack, &mut self.spares, call, id, Purpose::Hold { reference }),
            What::Retrieve => {
                start(stack, &mut self.spares, call, id, Purpose::Retrieve { reference })
            }
        }
    }

    fn release_by(&mut self, stack: &mut Stack, id: LegId, reference: u64) {
        let end = End {
            status: 487,
            by: Some(id.side),
            ended: Ended::Released,
            reference: Some(reference),
        };
        self.end(stack, id, end, Goodbye::Bye(None), Goodbye::Bye(None));
    }

    /// A 2xx to an INVITE that an application asked for, not acknowledged yet.
    pub(super) fn on_control_answer(
        &mut self,
        stack: &mut Stack,
        id: LegId,
        purpose: Purpose,
        response: View<'_>,
    ) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        match purpose {
            Purpose::Relay => {}
            Purpose::Hold { reference } => {
                acknowledge(stack, &mut self.spares, call, id, &sdp::inactive(response.body()));
                call.leg_mut(id.side).party = Party::Held;
                events::emit(stack, call, id, Content::Held { reference });
            }
            Purpose::Retrieve { reference } => {
                rejoin(stack, &mut self.spares, call, id, reference, response)
            }
            Purpose::Rejoin { reference } => {
                events::end_outgoing(stack, &mut self.spares, call, id, Ended::Answered);
                acknowledge(stack, &mut self.spares, call, id.other(), response.body());
                call.leg_mut(id.side.other()).party = Party::Connected;
                events::emit(stack, call, id.other(), Content::Retrieved { reference });
            }
        }
    }

    /// An INVITE that an application asked for was refused, and the call stays.
    pub(super) fn on_control_refused(
        &mut self,
        stack: &mut Stack,
        id: LegId,
        purpose: Purpose,
        request: &[u8],
    ) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        if let Purpose::Rejoin { .. } = purpose {
            // The party that was to be retrieved waits for the answer to its offer.
            let offer = body_of(request);
            acknowledge(stack, &mut self.spares, call, id.other(), &sdp::inactive(&offer));
        }
        fail_control(stack, call, id, purpose);
    }
}

/// Sends the INVITE without offer, unless the party is busy with an operation or in the state asked
/// for.
fn start(stack: &mut Stack, spares: &mut Spares, call: &mut Call, id: LegId, purpose: Purpose) {
    let (leg, other) = (call.leg(id.side), call.leg(id.side.other()));
    let (wanted, reference) = match purpose {
        Purpose::Hold { reference } => (Party::Connected, reference),
        Purpose::Retrieve { reference } | Purpose::Rejoin { reference } => (Party::Held, reference),
        Purpose::Relay => return,
    };
    let idle = [leg, other].iter().all(|leg| leg.outgoing.is_none() && leg.incoming.is_none());
    if !idle || leg.party != wanted {
        return fail(stack, call, id, ErrorCode::InSameState, reference);
    }
    if !stack.has_room_for_client() || !invite(stack, spares, call, id, purpose, b"") {
        fail(stack, call, id, ErrorCode::OutOfService, reference);
    }
}

/// The offer of the party that comes back goes to the other one.
fn rejoin(
    stack: &mut Stack,
    spares: &mut Spares,
    call: &mut Call,
    id: LegId,
    reference: u64,
    response: View<'_>,
) {
    let offer = response.body();
    let purpose = Purpose::Rejoin { reference };
    let sent = !offer.is_empty()
        && call.leg(id.side.other()).outgoing.is_none()
        && call.leg(id.side.other()).incoming.is_none()
        && stack.has_room_for_client()
        && invite(stack, spares, call, id.other(), purpose, offer);
    if !sent {
        acknowledge(stack, spares, call, id, &sdp::inactive(offer));
        fail(stack, call, id, ErrorCode::OutOfService, reference);
    }
}

fn invite(
    stack: &mut Stack,
    spares: &mut Spares,
    call: &mut Call,
    id: LegId,
    purpose: Purpose,
    offer: &[u8],
) -> bool {
    let offered = !offer.is_empty();
    let leg = call.leg_mut(id.side);
    let sent =
        leg.send_invite(stack, spares, id, MAX_FORWARDS, offered, |out| sdp::write(out, offer));
    if let Some(outgoing) = leg.outgoing.as_mut().filter(|_| sent) {
        outgoing.purpose = purpose;
    }
    sent
}

/// The ACK, with its answer, of a leg whose 2xx waits for it.
fn acknowledge(stack: &mut Stack, spares: &mut Spares, call: &mut Call, id: LegId, answer: &[u8]) {
    let leg = call.leg_mut(id.side);
    let Some((client, flow)) = waits_for_ack(leg.outgoing.as_ref().map(|it| it.state)) else {
        return;
    };
    leg.acknowledge(stack, client, flow, |out| sdp::write(out, answer));
    events::end_outgoing(stack, spares, call, id, Ended::Answered);
}

fn waits_for_ack(state: Option<Sent>) -> Option<(ClientId, FlowId)> {
    match state {
        Some(Sent::Answered(client, flow)) => Some((client, flow)),
        Some(Sent::Attempting(_) | Sent::Waiting) | None => None,
    }
}

/// What an application asked for by the INVITE on this leg fails.
pub(super) fn fail_control(stack: &mut Stack, call: &Call, id: LegId, purpose: Purpose) {
    if let Some(reference) = purpose.reference() {
        fail(stack, call, purpose.party(id), ErrorCode::OutOfService, reference);
    }
}

fn fail(stack: &mut Stack, call: &Call, id: LegId, code: ErrorCode, reference: u64) {
    events::emit(stack, call, id, Content::Error { code, reference: Some(reference) });
}

fn body_of(request: &[u8]) -> Vec<u8> {
    let mut head = Head::new();
    match head.read(request) {
        Ok(()) => View::new(request, &head).body().to_vec(),
        Err(_) => Vec::new(),
    }
}
