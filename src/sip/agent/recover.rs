//! What becomes of a call when an INVITE of ours fails: the other target, the wait, the end.
//!
//! The decisions are [`recovery`](crate::sip::recovery)'s and the leg's; here they are carried out.

use std::time::Duration;

use super::invite::on_stray_answer;
use super::{Agent, Ended, Sent, events, sdp};
use crate::cti::Content;
use crate::key::{ClientId, FlowId, LegId, Side};
use crate::sip::message::View;
use crate::sip::recovery::{Cause, Late, cause_of, decide_late};
use crate::sip::session::{Failed, Purpose};
use crate::sip::transaction::{Owner, Stack};
use crate::target::Target;

impl Agent {
    /// Decides about a late answer to an attempt that was given up (`spec` §5); true when it goes on
    /// as if the attempt had never failed.
    pub(super) fn admit_late(
        &mut self,
        stack: &mut Stack,
        id: LegId,
        client: ClientId,
        flow: FlowId,
        response: View<'_>,
    ) -> bool {
        let Some(call) = self.calls.get_mut(id.call) else { return false };
        let leg = call.leg_mut(id.side);
        let Some(outgoing) = &mut leg.outgoing else { return false };
        let out = !matches!(outgoing.state, Sent::Waiting);
        if outgoing.initial && (out || response.status() >= 300) {
            // Two answers to a new INVITE would be two dialogs, and one is wanted.
            on_stray_answer(stack, client, flow, response);
            return false;
        }
        match decide_late(response.status(), outgoing.has_newer(stack, client)) {
            Late::Adopt => {
                let cancelled = outgoing.cancelled;
                leg.supersede(stack);
                leg.adopt(stack, client);
                if cancelled {
                    stack.cancel(client);
                }
                true
            }
            Late::Succeed => {
                leg.supersede(stack);
                true
            }
            Late::Acknowledge => {
                let offered = outgoing.offered;
                leg.acknowledge(stack, client, flow, |out| {
                    sdp::write_quiet(out, offered, response);
                });
                false
            }
            // A newer attempt has its 2xx already, and only its ACK is still to go.
            Late::EndLeg if matches!(outgoing.state, Sent::Answered(..)) => false,
            Late::EndLeg => {
                self.release_gone(stack, id, response.status());
                false
            }
            Late::Ignore => false,
        }
    }

    /// A refusal that stands for a transport failure (F3, F4, F6), or a peer that is still busy with
    /// an earlier attempt: true when it was taken as such.
    pub(super) fn recover_refused(
        &mut self,
        stack: &mut Stack,
        id: LegId,
        flow: FlowId,
        response: View<'_>,
    ) -> bool {
        let pause = glare_pause(stack, id.side);
        let Some(call) = self.calls.get_mut(id.call) else { return false };
        let established = call.is_established();
        let leg = call.leg_mut(id.side);
        let Some(outgoing) = leg.outgoing.as_ref().filter(|outgoing| !outgoing.cancelled) else {
            return false;
        };
        if !established {
            // A new INVITE: the next target (RFC 3263 §4.3), or what Retry-After says.
            let retry_after = response.retry_after().map(|secs| Duration::from_secs(secs.into()));
            let cause = Cause::Unavailable { transport_error: false, retry_after };
            return response.status() == 503
                && leg.on_attempt_failed(stack, id, cause) != Failed::GiveUp;
        }
        if stack.transport(flow).is_unreliable() {
            // Only what a reliable transport lost is recovered.
            return false;
        }
        let listed = &stack.options.transport_error_responses;
        let repeated = outgoing.recovery.is_some();
        let Some(cause) = cause_of(response, listed, repeated, pause) else {
            return false;
        };
        self.recover(stack, id, cause);
        true
    }

    fn recover(&mut self, stack: &mut Stack, id: LegId, cause: Cause) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        match call.leg_mut(id.side).on_attempt_failed(stack, id, cause) {
            Failed::Wait { first, retry, deadline } => {
                if first {
                    let (delay, window) = (retry - stack.now, deadline - stack.now);
                    let started = Content::RecoveryStarted { cause: cause.told(), delay, window };
                    events::emit(stack, call, id, started);
                }
                if call.leg(id.side).has_more_targets(&stack.options) {
                    self.watch_targets(id);
                }
            }
            Failed::NextTarget => {}
            Failed::GiveUp => self.give_up(stack, id),
        }
    }

    /// The flow of an attempt died, or could not be opened.
    pub(super) fn on_invite_failed(
        &mut self,
        stack: &mut Stack,
        id: LegId,
        client: ClientId,
        cause: Cause,
    ) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        let established = call.is_established();
        let leg = call.leg_mut(id.side);
        let Some(outgoing) = &leg.outgoing else { return };
        if outgoing.state != Sent::Attempting(client) {
            return;
        }
        if !established && outgoing.cancelled {
            return self.release_unanswered(stack, id.call, 408, None);
        }
        if !established {
            // A new INVITE is not recovered: the next target (RFC 3263 §4.3), or the end.
            if leg.on_attempt_failed(stack, id, cause) == Failed::GiveUp {
                self.release_unreachable(stack, id.call);
            }
            return;
        }
        if outgoing.cancelled {
            return self.end_invite(stack, id, 487, Ended::Cancelled);
        }
        self.recover(stack, id, cause);
    }

    /// An INVITE met an ICMP error: its peer has answered 503, as far as anybody above is concerned
    /// (RFC 3261 §8.1.3.1, §17.1.4). Nothing waits, and a call that is up stays as it is.
    pub(super) fn on_invite_undelivered(&mut self, stack: &mut Stack, id: LegId, client: ClientId) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        if !call.is_established() {
            return self.on_invite_failed(stack, id, client, Cause::Flow);
        }
        let Some(outgoing) = &call.leg(id.side).outgoing else { return };
        if outgoing.state != Sent::Attempting(client) {
            return;
        }
        let (status, ended) =
            if outgoing.cancelled { (487, Ended::Cancelled) } else { (503, Ended::GivenUp) };
        self.end_invite(stack, id, status, ended);
    }

    /// An INVITE of ours is over without an answer, and the call stays: who asked for it is told so.
    fn end_invite(&mut self, stack: &mut Stack, id: LegId, status: u16, ended: Ended) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        let Some(outgoing) = &call.leg(id.side).outgoing else { return };
        let (purpose, request) = (outgoing.purpose, outgoing.request.clone());
        events::end_outgoing(stack, &mut self.spares, call, id, ended);
        if purpose == Purpose::Relay {
            self.fail_incoming(stack, id.other(), status);
        } else {
            self.on_control_refused(stack, id, purpose, &request);
        }
    }

    /// Timer C: the INVITE was cancelled. Its peer was heard and its path works, so that a re-INVITE ends
    /// as if its caller had cancelled it, also when no final response follows: that was lost, or never comes.
    pub(super) fn on_invite_unanswered(&mut self, stack: &Stack, client: ClientId) {
        let Some(Owner::Leg(id)) = stack.client(client).map(|client| client.owner) else { return };
        let Some(call) = self.calls.get_mut(id.call) else { return };
        if let Some(outgoing) = &mut call.leg_mut(id.side).outgoing
            && outgoing.state == Sent::Attempting(client)
        {
            outgoing.cancelled = true;
        }
    }

    /// Timer B of an attempt ran out.
    pub(super) fn on_invite_timeout(&mut self, stack: &mut Stack, id: LegId, client: ClientId) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        let established = call.is_established();
        let leg = call.leg_mut(id.side);
        let Some(outgoing) = &leg.outgoing else { return };
        if outgoing.state != Sent::Attempting(client) {
            return;
        }
        if !established {
            return self.release_unanswered(stack, id.call, 408, None);
        }
        let (cancelled, recovering) = (outgoing.cancelled, outgoing.recovery.is_some());
        if recovering && leg.extend(stack, client) {
            return;
        }
        if cancelled {
            return self.end_invite(stack, id, 487, Ended::Cancelled);
        }
        if recovering {
            return self.give_up(stack, id);
        }
        self.release_gone(stack, id, 408);
    }

    /// A wait is over.
    pub(super) fn on_retry(&mut self, stack: &mut Stack, id: LegId) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        if call.leg_mut(id.side).retry(stack, id) {
            return;
        }
        if call.is_established() {
            self.give_up(stack, id);
        } else {
            self.release_unreachable(stack, id.call);
        }
    }

    /// A connection with `target` is open: legs that wait and have it in their target set go on at
    /// once, if they have more targets than that one (`spec` §7).
    pub(in crate::sip) fn on_alive(&mut self, stack: &mut Stack, target: Target) {
        let mut at = 0;
        while let Some(&id) = self.watching.get(at) {
            if self.goes_on_waiting(stack, id, target) {
                at += 1;
            } else {
                self.watching.swap_remove(at);
            }
        }
    }

    fn goes_on_waiting(&mut self, stack: &mut Stack, id: LegId, target: Target) -> bool {
        let Some(call) = self.calls.get_mut(id.call) else { return false };
        let leg = call.leg_mut(id.side);
        let sent = leg.is_target(&stack.options, target) && leg.retry_at(stack, id, target);
        leg.watched = !sent && leg.is_waiting();
        leg.watched
    }

    /// The leg waits and has several targets: any of them may come alive.
    fn watch_targets(&mut self, id: LegId) {
        let Some(call) = self.calls.get_mut(id.call) else { return };
        if std::mem::replace(&mut call.leg_mut(id.side).watched, true) {
            return;
        }
        self.watching.push(id);
        if self.watching.len() > self.watching_max {
            let calls = &mut self.calls;
            self.watching.retain(|id| {
                let Some(call) = calls.get_mut(id.call) else { return false };
                let leg = call.leg_mut(id.side);
                leg.watched = leg.is_waiting();
                leg.watched
            });
            self.watching_max = (2 * self.watching.len()).max(WATCHING_MIN);
        }
    }
}

/// Legs on the list of those that wait with several targets before it is first tidied up; after that
/// at most half of it has gone on.
const WATCHING_MIN: usize = 64;

/// The pause after a 491 (RFC 3261 §14.1): the server made the Call-ID of the callee's leg, the
/// caller that of its own.
fn glare_pause(stack: &mut Stack, side: Side) -> Duration {
    let random = stack.random();
    match side {
        Side::A => Duration::from_millis(10 * (random % 201)),
        Side::B => Duration::from_millis(2100 + 10 * (random % 191)),
    }
}
