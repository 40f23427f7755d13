//! An INVITE of ours on a leg: its attempts, and why it was sent.

use super::target::Tried;
use crate::key::{ClientId, FlowId, LegId};
use crate::sip::kept::Kept;
use crate::sip::recovery::Recovery;
use crate::sip::transaction::Stack;
use crate::time::Instant;

/// An INVITE of ours on a leg, from the first attempt to the ACK.
#[derive(Debug)]
pub(in crate::sip) struct Outgoing {
    pub(in crate::sip) state: Sent,
    /// The last attempt's bytes: the next one differs in branch and CSeq only.
    pub(in crate::sip) request: Kept,
    /// Why it was sent.
    pub(in crate::sip) purpose: Purpose,
    /// CSeq of the first attempt: a late answer to an older one is of an operation long over.
    pub(in crate::sip) first_cseq: u32,
    /// True for the INVITE that is to begin the dialog.
    pub(in crate::sip) initial: bool,
    pub(super) tried: Tried,
    /// When timer B of the last attempt ends, were it not cut at the deadline.
    pub(super) timer_b: Instant,
    pub(in crate::sip) recovery: Option<Recovery>,
    /// Attempts that were sent.
    pub(in crate::sip) attempts: u32,
    /// True when the INVITE has an offer, so that the ACK needs no body.
    pub(in crate::sip) offered: bool,
    /// True when it was cancelled: a failure is not recovered then.
    pub(in crate::sip) cancelled: bool,
}

impl Outgoing {
    /// True when a re-INVITE failed and had to wait: what counts as a recovery.
    pub(in crate::sip) fn has_waited(&self) -> bool {
        !self.initial && self.recovery.is_some_and(|recovery| recovery.waits > 0)
    }

    /// True when an attempt newer than `client` is out. One that is out need not be the newest: an older one
    /// that was heard of late is out again.
    pub(in crate::sip) fn has_newer(&self, stack: &Stack, client: ClientId) -> bool {
        let cseq = |id| stack.client(id).map(|client| client.cseq);
        match self.state {
            Sent::Waiting => false,
            Sent::Attempting(current) => cseq(current) > cseq(client),
            Sent::Answered(..) => true,
        }
    }
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sip) enum Failed {
    /// The next target of the set is being tried.
    NextTarget,
    /// A wait has begun; the `first` one of this re-INVITE.
    Wait { first: bool, retry: Instant, deadline: Instant },
    /// There is nothing to wait for.
    GiveUp,
}

/// Why an INVITE of ours was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sip) enum Purpose {
    /// Passed on from the other leg.
    Relay,
    /// An application puts the party on hold.
    Hold { reference: u64 },
    /// An application takes the party off hold: what it offers goes to the other party.
    Retrieve { reference: u64 },
    /// The other party of such an operation.
    Rejoin { reference: u64 },
}

impl Purpose {
    /// The leg of the party that an application asked something of, when the INVITE is on `leg`.
    pub(in crate::sip) fn party(self, leg: LegId) -> LegId {
        match self {
            Self::Rejoin { .. } => leg.other(),
            Self::Relay | Self::Hold { .. } | Self::Retrieve { .. } => leg,
        }
    }

    /// The reference of the application's request.
    pub(in crate::sip) fn reference(self) -> Option<u64> {
        match self {
            Self::Relay => None,
            Self::Hold { reference }
            | Self::Retrieve { reference }
            | Self::Rejoin { reference } => Some(reference),
        }
    }
}

/// Where an INVITE of ours stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sip) enum Sent {
    /// An attempt is out.
    Attempting(ClientId),
    /// The wait before the next one runs.
    Waiting,
    /// A 2xx came to an INVITE without offer: its ACK waits for the answer of the other leg.
    Answered(ClientId, FlowId),
}
