//! What a client transaction is made of, and what it tells its owner.

use std::time::Duration;

use crate::key::{ClientId, FlowId, LegId, ServerId};
use crate::sip::actions::FlowError;
use crate::sip::kept::Kept;
use crate::sip::message::Method;
use crate::sip::token::Token;
use crate::target::{Target, Transport};

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sip) enum Owner {
    /// Nobody: a BYE of ours, best effort.
    Nobody,
    /// The leg that an INVITE went out on.
    Leg(LegId),
    /// The server transaction of the other leg that the request was relayed from.
    Relay { from: ServerId, leg: LegId },
    /// The proxy, of a request that it forwarded.
    Forwarded(Forwarded),
    /// The proxy, of its question to a member of a pair.
    Probe(u16),
}

/// A request that the proxy forwarded: where it came from, where it may go, and where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sip) struct Forwarded {
    pub(in crate::sip) from: ServerId,
    /// The pair that its targets are; `None` when there is one target.
    pub(in crate::sip) pair: Option<u16>,
    /// Which members of the pair were tried.
    pub(in crate::sip) tried: u8,
}

/// What a new transaction is made of.
pub(in crate::sip) struct NewClient {
    pub(in crate::sip) branch: Token,
    pub(in crate::sip) method: Method,
    pub(in crate::sip) cseq: u32,
    pub(in crate::sip) owner: Owner,
    pub(in crate::sip) flow: FlowId,
    /// Where to go when the flow is gone.
    pub(in crate::sip) target: Target,
    /// True when `target` is not what the peer asked for: the request is too large for a datagram.
    pub(in crate::sip) oversized: bool,
    pub(in crate::sip) request: Kept,
    /// Timer B or F.
    pub(in crate::sip) timeout: Duration,
}

/// Something a transaction tells its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sip) struct Told {
    pub(in crate::sip) client: ClientId,
    pub(in crate::sip) method: Method,
    pub(in crate::sip) cseq: u32,
    pub(in crate::sip) owner: Owner,
    pub(in crate::sip) verdict: Verdict,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sip) enum Verdict {
    /// A response came; `late` when the attempt had been given up.
    Answered { late: bool },
    /// Timer B, F or C, or 64·T1 after a CANCEL.
    TimedOut,
    /// The flow died or could not be opened.
    Failed {
        /// How.
        lost: Lost,
        /// What the flow was made of.
        transport: Transport,
    },
}

/// How a flow was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sip) enum Lost {
    /// It could not be opened.
    Unopened,
    /// It died, and that was seen at once.
    Died,
    /// Its peer vanished without a word.
    Silent,
}

impl Lost {
    /// `error` ended a flow that was `open`.
    pub(super) fn of(open: bool, error: FlowError) -> Self {
        match error {
            _ if !open => Self::Unopened,
            FlowError::Silent => Self::Silent,
            _ => Self::Died,
        }
    }
}
