//! INVITEs inside a call: answers to ours, re-INVITEs of the peers, ACK and CANCEL.

use super::control::fail_control;
use super::relay::pass_response;
use super::{
    Agent, Ended, Sent, Verdict, events, refuse, respond_busy, rest_of_invite, sdp, write,
};
use crate::key::{ClientId, FlowId, LegId, ServerId, Side};
use crate::sip::dialog::{Dialog, MAX_FORWARDS, RequestHead, hops_left};
use crate::sip::message::{Head, View};
use crate::sip::recovery::Cause;
use crate::sip::session::{Incoming, Party, Purpose};
use crate::sip::token::Token;
use crate::sip::transaction::{Lost, Stack, Told};

impl Agent {
    /// A re-INVITE: glare and order first (RFC 3261 §14.2), then on to the other leg.
    pub(super) fn on_reinvite(
        &mut self,
        stack: &mut Stack,
        id: LegId,
        server: ServerId,
        cseq: u32,
        invite: View<'_>,
    ) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        if call.leg(id.side).has_pending_incoming() {
            return respond_busy(stack, server);
        }
        if call.leg(id.side).incoming.is_some() {
            // A newer INVITE shows that the peer does not wait for our 2xx any more.
            call.leg_mut(id.side).end_incoming(stack);
            self.acknowledge_other(stack, id, None);
        }
        let Some(call) = self.calls.get_mut(id.call) else { return };
        let other = call.leg(id.side.other());
        let busy = call.leg(id.side).outgoing.is_some()
            || other.outgoing.is_some()
            || other.incoming.is_some()
            || !call.is_established();
        if busy {
            return stack.respond(server, 491);
        }
        let max_forwards = hops_left(invite);
        if max_forwards == 0 {
            return stack.respond(server, 483);
        }
        if !stack.has_room_for_client() {
            return respond_busy(stack, server);
        }
        stack.respond(server, 100);
        let offered = invite.has_offer();
        let other = call.leg_mut(id.side.other());
        let sent = other.send_invite(
            stack,
            &mut self.spares,
            id.other(),
            max_forwards - 1,
            offered,
            |out| {
                rest_of_invite(out, invite);
            },
        );
        if !sent {
            return stack.respond(server, 513);
        }
        let leg = call.leg_mut(id.side);
        leg.dialog.refresh_target(&mut stack.pool, invite);
        leg.incoming = Some(Incoming { server, cseq, initial: false, accepted: None });
    }

    /// What became of an INVITE of ours on leg `id`.
    pub(super) fn on_invite_told(
        &mut self,
        stack: &mut Stack,
        id: LegId,
        told: Told,
        response: Option<(FlowId, View<'_>)>,
    ) {
        let client = told.client;
        match (told.verdict, response) {
            (Verdict::Answered { late }, Some((flow, response))) => {
                if self.is_under_way(id, told, late) {
                    self.on_invite_answered(stack, id, client, late, flow, response);
                } else {
                    on_stray_answer(stack, client, flow, response);
                }
            }
            (Verdict::Failed { transport, .. }, _) if transport.is_unreliable() => {
                self.on_invite_undelivered(stack, id, client);
            }
            (Verdict::Failed { lost, .. }, _) => {
                let cause = match lost {
                    Lost::Unopened => Cause::Connect,
                    Lost::Died => Cause::Flow,
                    Lost::Silent => Cause::Silence,
                };
                self.on_invite_failed(stack, id, client, cause);
            }
            (Verdict::TimedOut | Verdict::Answered { .. }, _) => {
                self.on_invite_timeout(stack, id, client);
            }
        }
    }

    /// The ACK of a 2xx (that of another response ends in its transaction).
    pub(super) fn on_ack(&mut self, stack: &mut Stack, flow: FlowId, ack: View<'_>) {
        if stack.on_ack(ack) {
            return;
        }
        let Some(tag) = ack.to().and_then(|to| to.tag) else { return };
        let Some(id) = self.find(stack, tag, ack) else { return };
        let Some(call) = self.calls.get_mut(id.call) else { return };
        let leg = call.leg_mut(id.side);
        leg.flow = Some(flow);
        let cseq = ack.cseq().map(|(number, _)| number);
        let awaited = leg
            .incoming
            .as_ref()
            .is_some_and(|incoming| incoming.accepted.is_some() && Some(incoming.cseq) == cseq);
        if awaited {
            leg.end_incoming(stack);
            self.acknowledge_other(stack, id, Some(ack));
        }
    }

    /// Sends the ACK that leg `id.other()` waits for: with the body of `ack`, or without.
    pub(super) fn acknowledge_other(
        &mut self,
        stack: &mut Stack,
        id: LegId,
        ack: Option<View<'_>>,
    ) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        let other = call.leg_mut(id.side.other());
        let state = other.outgoing.as_ref().map(|outgoing| outgoing.state);
        let Some(Sent::Answered(client, flow)) = state else { return };
        other.acknowledge(stack, client, flow, |out| match ack {
            Some(ack) => rest_of_invite(out, ack),
            None => write::body(out, b""),
        });
        events::end_outgoing(stack, &mut self.spares, call, id.other(), Ended::Answered);
    }

    /// CANCEL (RFC 3261 §9.2): 200, and 487 to the INVITE where nothing is under way any more. A
    /// re-INVITE that the other peer is asked about ends with that peer's answer, so that both ends
    /// agree on the session.
    pub(super) fn on_cancel(&mut self, stack: &mut Stack, flow: FlowId, cancel: View<'_>) {
        let Some(server) = stack.cancelled_invite(cancel) else {
            return refuse(stack, flow, cancel, 481);
        };
        refuse(stack, flow, cancel, 200);
        let tag = stack.server(server).and_then(|server| server.to_tag);
        let Some(id) = tag.and_then(|tag| self.leg_of(stack, tag)) else { return };
        let Some(call) = self.calls.get_mut(id.call) else { return };
        let open = call.leg(id.side).has_pending_incoming();
        let this = call.leg(id.side).incoming.as_ref().is_some_and(|open| open.server == server);
        if !open || !this {
            return;
        }
        if !call.is_established() {
            return self.release_unanswered(stack, id.call, 487, Some(id.side));
        }
        let other = call.leg_mut(id.side.other());
        match other.outgoing.as_mut().map(|outgoing| (outgoing.state, outgoing)) {
            Some((Sent::Attempting(client), outgoing)) => {
                outgoing.cancelled = true;
                stack.cancel(client);
            }
            Some((Sent::Waiting | Sent::Answered(..), _)) | None => {
                events::end_outgoing(stack, &mut self.spares, call, id.other(), Ended::Cancelled);
                self.fail_incoming(stack, id, 487);
            }
        }
    }

    /// Answers the open re-INVITE of leg `id` finally, with a status of ours.
    pub(super) fn fail_incoming(&mut self, stack: &mut Stack, id: LegId, status: u16) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        let leg = call.leg_mut(id.side);
        if leg.has_pending_incoming()
            && let Some(incoming) = leg.incoming.take()
        {
            stack.respond(incoming.server, status);
        }
    }

    /// True when the answer concerns the operation that its leg has under way.
    fn is_under_way(&self, id: LegId, told: Told, late: bool) -> bool {
        let Some(call) = self.calls.get(id.call) else { return false };
        let Some(outgoing) = &call.leg(id.side).outgoing else { return false };
        let current = match outgoing.state {
            Sent::Attempting(current) | Sent::Answered(current, _) => current == told.client,
            Sent::Waiting => false,
        };
        current || (late && told.cseq >= outgoing.first_cseq)
    }

    fn on_invite_answered(
        &mut self,
        stack: &mut Stack,
        id: LegId,
        client: ClientId,
        late: bool,
        flow: FlowId,
        response: View<'_>,
    ) {
        if late && !self.admit_late(stack, id, client, flow, response) {
            return;
        }
        match response.status() {
            100 => {}
            101..=199 => self.on_invite_progress(stack, id, response),
            200..=299 => self.on_invite_success(stack, id, client, flow, response),
            status => {
                if !self.recover_refused(stack, id, flow, response) {
                    self.on_invite_refused(stack, id, status, response);
                }
            }
        }
    }

    fn on_invite_progress(&mut self, stack: &mut Stack, id: LegId, response: View<'_>) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        let leg = call.leg_mut(id.side);
        if !leg.confirmed && response.to().is_some_and(|to| to.tag.is_some()) {
            leg.dialog.on_response(&mut stack.pool, response);
        }
        if !call.is_established() {
            events::enter(stack, call, id, Party::Alerting);
        }
        if let Some(incoming) = &call.leg(id.side.other()).incoming {
            pass_response(stack, incoming.server, response);
        }
    }

    fn on_invite_success(
        &mut self,
        stack: &mut Stack,
        id: LegId,
        client: ClientId,
        flow: FlowId,
        response: View<'_>,
    ) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        let leg = call.leg_mut(id.side);
        let Some(outgoing) = &mut leg.outgoing else { return };
        if matches!(outgoing.state, Sent::Answered(..)) {
            // A repetition, whose ACK still waits for its body, or the answer of another fork.
            if !leg.dialog.is_remote(response) {
                on_stray_answer(stack, client, flow, response);
            }
            return;
        }
        let (offered, purpose) = (outgoing.offered, outgoing.purpose);
        outgoing.state = Sent::Answered(client, flow);
        call.refresh_session(stack, id.call, response);
        let leg = call.leg_mut(id.side);
        if leg.confirmed {
            leg.dialog.refresh_target(&mut stack.pool, response);
        } else {
            leg.dialog.on_response(&mut stack.pool, response);
            leg.settle();
            leg.confirmed = true;
            stack.counted.calls_established += 1;
        }
        leg.flow = Some(flow);
        if offered {
            // Acknowledged at once, whatever becomes of the other leg.
            leg.acknowledge(stack, client, flow, |out| write::body(out, b""));
            if purpose == Purpose::Relay {
                events::end_outgoing(stack, &mut self.spares, call, id, Ended::Answered);
            }
        }
        if purpose != Purpose::Relay {
            return self.on_control_answer(stack, id, purpose, response);
        }
        call.leg_mut(id.side.other()).confirmed = true;
        if id.side == Side::B && call.leg(Side::A).party == Party::Dialing {
            events::enter(stack, call, id, Party::Alerting);
            events::enter(stack, call, id.other(), Party::Connected);
            events::enter(stack, call, id, Party::Connected);
        }
        let other = call.leg_mut(id.side.other());
        other.redirect_answer(stack);
        if let Some(incoming) = &other.incoming {
            pass_response(stack, incoming.server, response);
            other.await_ack(stack, id.other());
        }
    }

    fn on_invite_refused(&mut self, stack: &mut Stack, id: LegId, status: u16, response: View<'_>) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        let established = call.is_established();
        let control = call.leg(id.side).outgoing.as_ref().and_then(|outgoing| {
            let asked = outgoing.purpose != Purpose::Relay;
            asked.then(|| (outgoing.purpose, outgoing.request.clone()))
        });
        if let Some((purpose, request)) = &control
            && !matches!(status, 408 | 481)
        {
            events::end_outgoing(stack, &mut self.spares, call, id, Ended::Answered);
            return self.on_control_refused(stack, id, *purpose, request);
        }
        events::end_outgoing(stack, &mut self.spares, call, id, Ended::Answered);
        if established && matches!(status, 408 | 481) {
            if let Some((purpose, _)) = control {
                fail_control(stack, call, id, purpose);
            }
            return self.release_gone(stack, id, status);
        }
        call.leg(id.side.other()).redirect_answer(stack);
        if let Some(incoming) = call.leg_mut(id.side.other()).incoming.take() {
            pass_response(stack, incoming.server, response);
        }
        if !established {
            self.release_unanswered(stack, id.call, status, Some(id.side));
        }
    }

    fn leg_of(&self, stack: &Stack, tag: Token) -> Option<LegId> {
        let side = if tag.index & 1 == 0 { Side::A } else { Side::B };
        let call = self.calls.key_at(tag.index >> 1)?;
        let same =
            tag.shard == stack.shard && self.calls.get(call)?.leg(side).dialog.local_tag == tag;
        same.then_some(LegId { call, side })
    }
}

/// An answer whose call or operation is over: a 2xx gets its ACK, once more if it had one, and when
/// it makes a dialog that nobody wants, its BYE (RFC 3261 §13.2.2.4).
pub(super) fn on_stray_answer(stack: &mut Stack, id: ClientId, flow: FlowId, response: View<'_>) {
    if (101..200).contains(&response.status()) {
        return stack.cancel_late(id);
    }
    if !(200..300).contains(&response.status()) {
        return;
    }
    let Some(client) = stack.client(id) else { return };
    let (request, cseq) = (client.request.clone(), client.cseq);
    let tag = response.to().and_then(|to| to.tag).unwrap_or_default();
    let known = client.acks().find(|ack| ack_tag(ack).unwrap_or_default() == tag).cloned();
    if let Some(ack) = known {
        return stack.acknowledge(id, flow, ack);
    }
    let mut head = Head::new();
    if head.read(&request).is_err() {
        return;
    }
    let invite = View::new(&request, &head);
    let Some(dialog) = Dialog::of_stray(&mut stack.pool, invite, response) else { return };
    let (options, transport) = (std::sync::Arc::clone(&stack.options), stack.transport(flow));
    let head_of = |stack: &mut Stack, method: &'static [u8], cseq: u32| {
        let mut bytes = Vec::with_capacity(512);
        dialog.write_request(
            &mut bytes,
            &RequestHead {
                method,
                branch: stack.token(u32::MAX),
                cseq,
                max_forwards: MAX_FORWARDS,
                sent_by: options.sent_by(transport),
                transport,
                contact: false,
            },
        );
        bytes
    };
    let mut ack = head_of(stack, b"ACK", cseq);
    sdp::write_quiet(&mut ack, invite.has_offer(), response);
    let ack = stack.pool.keep(&ack);
    stack.acknowledge(id, flow, ack);
    if invite.is_outside_dialog() {
        let mut bye = head_of(stack, b"BYE", cseq + STRAY_BYE_STEP);
        write::body(&mut bye, b"");
        stack.out.send(flow, &bye);
    }
}

/// How far the CSeq of such a BYE is beyond the INVITE's: requests of the early dialog, which is
/// forgotten, came in between.
const STRAY_BYE_STEP: u32 = 1 << 16;

fn ack_tag(ack: &[u8]) -> Option<Vec<u8>> {
    let mut head = Head::new();
    head.read(ack).ok()?;
    View::new(ack, &head).to()?.tag.map(<[u8]>::to_vec)
}
