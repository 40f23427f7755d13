//! What is told about the parties of a call ([`cti`](crate::cti)).
//!
//! ```text
//!         routed            180, or 2xx          2xx             BYE, failure
//! caller: Dialing ───────────────────────► Established ───────► Released
//! callee:            Ringing ────────────► Established ───────► Released
//!                       └── the caller hung up: Abandoned
//!
//! a re-INVITE: RecoveryStarted ─► RecoverySucceeded, or RecoveryEnded; once each
//! ```

use super::{Call, Ended};
use crate::cti::{Content, ErrorCode, Event, Outcome, ReleasingParty};
use crate::key::{LegId, Side};
use crate::sip::message::{NameAddr, Uri};
use crate::sip::session::{Party, Spares};
use crate::sip::transaction::Stack;

/// Tells whoever listens what happened to a party.
pub(super) fn emit(stack: &mut Stack, call: &Call, leg: LegId, content: Content) {
    if stack.options.events {
        let (this_dn, other_dn) = (number(call, leg.side), number(call, leg.side.other()));
        send(stack, leg, this_dn, other_dn, content);
    }
}

fn send(stack: &mut Stack, leg: LegId, this_dn: Box<str>, other_dn: Box<str>, content: Content) {
    if !stack.options.events {
        return;
    }
    stack.events += 1;
    let (shard, sequence, at) = (stack.shard, stack.events, stack.now);
    stack.out.emit(Event { shard, sequence, at, leg, this_dn, other_dn, content });
}

/// A party comes to a new state, and that is told.
pub(super) fn enter(stack: &mut Stack, call: &mut Call, leg: LegId, party: Party) {
    let before = std::mem::replace(&mut call.leg_mut(leg.side).party, party);
    if before == party {
        return;
    }
    let content = match party {
        Party::Null => return,
        Party::Dialing => Content::Dialing,
        Party::Alerting => Content::Ringing,
        Party::Connected if before == Party::Held => return,
        Party::Connected => Content::Established,
        Party::Held => return,
    };
    emit(stack, call, leg, content);
}

/// A request names a call or leg that there is not.
pub(super) fn refuse_unknown(stack: &mut Stack, leg: LegId, reference: u64) {
    let code = ErrorCode::InvalidConnectionId;
    let content = Content::Error { code, reference: Some(reference) };
    send(stack, leg, Box::default(), Box::default(), content);
}

/// A party is gone; told if it was ever there. `by` ended the call, asked by a request with that
/// reference.
pub(super) fn leave(
    stack: &mut Stack,
    call: &mut Call,
    leg: LegId,
    by: Option<Side>,
    reference: Option<u64>,
) {
    let before = std::mem::replace(&mut call.leg_mut(leg.side).party, Party::Null);
    let content = match before {
        Party::Null => return,
        Party::Alerting if by == Some(leg.side.other()) => Content::Abandoned,
        Party::Dialing | Party::Alerting | Party::Connected | Party::Held => {
            let by = match by {
                Some(side) if side == leg.side => ReleasingParty::Local,
                Some(_) => ReleasingParty::Remote,
                None => ReleasingParty::Unknown,
            };
            Content::Released { by, reference }
        }
    };
    emit(stack, call, leg, content);
}

/// The INVITE of a leg is over; how its recovery went, if there was one, is told.
pub(super) fn end_outgoing(
    stack: &mut Stack,
    spares: &mut Spares,
    call: &mut Call,
    leg: LegId,
    ended: Ended,
) {
    let outcome = match ended {
        Ended::Answered => None,
        Ended::GivenUp => Some(Outcome::GivenUp),
        Ended::Cancelled => Some(Outcome::Cancelled),
        Ended::Released => Some(Outcome::Released),
    };
    let recovery = call.leg_mut(leg.side).end_outgoing(stack, spares, outcome);
    let Some((recovery, attempts)) = recovery else { return };
    let elapsed = stack.now.since(recovery.first_failure);
    let content = match outcome {
        None => Content::RecoverySucceeded { attempts, elapsed },
        Some(outcome) => Content::RecoveryEnded { outcome, attempts, elapsed },
    };
    emit(stack, call, leg, content);
}

/// The number of a party: the user part of its address; empty when it has none.
fn number(call: &Call, side: Side) -> Box<str> {
    let address = call.leg(side).dialog.remote();
    let uri = NameAddr::parse(address).and_then(|address| Uri::parse(address.uri));
    uri.map(|uri| uri.number().into()).unwrap_or_default()
}
