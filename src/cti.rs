//! Computer-telephony integration: what the server tells about calls, and what it is asked to do.
//!
//! Names and numbers are those that call-centre developers know from T-Library (Events and Models
//! Reference). Values only: the core makes and takes them, the control plane gives them a spelling.

use std::time::Duration;

use crate::key::{CallId, LegId, ShardId, Side};
use crate::time::Instant;

/// Something happened to a party of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The shard that owns the call.
    pub shard: ShardId,
    /// Counts the events of the shard from 1, without a gap.
    pub sequence: u64,
    /// When, on the shard's clock.
    pub at: Instant,
    /// The call and the leg whose party this is about.
    pub leg: LegId,
    /// The number of that party.
    pub this_dn: Box<str>,
    /// The number of the other party of the call.
    pub other_dn: Box<str>,
    /// What happened.
    pub content: Content,
}

/// What happened to a party.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It calls: the call was routed.
    Dialing,
    /// It is being called, and rings.
    Ringing,
    /// It talks: its INVITE was answered.
    Established,
    /// The caller hung up before this party answered.
    Abandoned,
    /// It left the call.
    Released {
        /// Who ended the call, as this party sees it.
        by: ReleasingParty,
        /// The reference of the request that asked for it.
        reference: Option<u64>,
    },
    /// A request put it on hold.
    Held {
        /// The request's reference.
        reference: u64,
    },
    /// A request took it off hold.
    Retrieved {
        /// The request's reference.
        reference: u64,
    },
    /// Something that was asked for, or was under way, failed.
    Error {
        /// Why.
        code: ErrorCode,
        /// The request's reference; `None` for a re-INVITE that nobody asked for by CTI.
        reference: Option<u64>,
    },
    /// A user event: a re-INVITE failed in transport and will be sent again.
    RecoveryStarted {
        /// Why the first attempt failed.
        cause: Cause,
        /// The wait before the next attempt.
        delay: Duration,
        /// From now to the deadline.
        window: Duration,
    },
    /// A user event: the recovery of a re-INVITE ended with an answer.
    RecoverySucceeded {
        /// Attempts, the first one among them.
        attempts: u32,
        /// From the first failure to the answer.
        elapsed: Duration,
    },
    /// A user event: the recovery of a re-INVITE ended without an answer.
    RecoveryEnded {
        /// Why.
        outcome: Outcome,
        /// Attempts, the first one among them.
        attempts: u32,
        /// From the first failure.
        elapsed: Duration,
    },
}

impl Content {
    /// The message of T-Library: its name and number.
    pub fn message(&self) -> (&'static str, u16) {
        match self {
            Self::Error { .. } => ("EventError", 52),
            Self::Abandoned => ("EventAbandoned", 59),
            Self::Ringing => ("EventRinging", 60),
            Self::Dialing => ("EventDialing", 61),
            Self::Established => ("EventEstablished", 64),
            Self::Released { .. } => ("EventReleased", 65),
            Self::Held { .. } => ("EventHeld", 66),
            Self::Retrieved { .. } => ("EventRetrieved", 67),
            Self::RecoveryStarted { .. }
            | Self::RecoverySucceeded { .. }
            | Self::RecoveryEnded { .. } => ("EventUserEvent", 96),
        }
    }

    /// The name of a user event.
    pub fn user_event(&self) -> Option<&'static str> {
        match self {
            Self::RecoveryStarted { .. } => Some("RecoveryStarted"),
            Self::RecoverySucceeded { .. } => Some("RecoverySucceeded"),
            Self::RecoveryEnded { .. } => Some("RecoveryEnded"),
            Self::Dialing
            | Self::Ringing
            | Self::Established
            | Self::Abandoned
            | Self::Released { .. }
            | Self::Held { .. }
            | Self::Retrieved { .. }
            | Self::Error { .. } => None,
        }
    }
}

/// Who ended a call: `Extensions.ReleasingParty`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleasingParty {
    /// The party that the event is about.
    Local,
    /// The other one.
    Remote,
    /// Neither: the server, because of a failure, a drain or a timer.
    Unknown,
}

impl ReleasingParty {
    /// As T-Library spells it.
    pub fn spelling(self) -> &'static str {
        match self {
            Self::Local => "1 Local",
            Self::Remote => "2 Remote",
            Self::Unknown => "3 Unknown",
        }
    }
}

/// Codes of [`Content::Error`], with T-Library's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The party is busy with an operation, or is already in the state asked for.
    InSameState,
    /// There is no such call or leg.
    InvalidConnectionId,
    /// Nothing came in time: the recovery was given up, or is switched off.
    Timeout,
    /// The device cannot be reached, or refused.
    OutOfService,
}

impl ErrorCode {
    /// The number.
    pub fn number(self) -> u16 {
        match self {
            Self::InSameState => 43,
            Self::InvalidConnectionId => 56,
            Self::Timeout => 57,
            Self::OutOfService => 58,
        }
    }
}

/// Why an attempt failed, as events and counters tell it (the specification's F1–F6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// F1: the connection could not be opened.
    Connect,
    /// F2: the flow died.
    Flow,
    /// F5: the peer has vanished without a word.
    Silence,
    /// F3: a proxy says that it could not reach the peer.
    TransportError,
    /// F4: the peer says when to try again.
    RetryAfter,
    /// F6: an answer that the configuration lists.
    Listed,
    /// 500 with Retry-After or 491 to a repeated attempt.
    Busy,
}

impl Cause {
    /// All of them, in the order of their numbers: `ALL[cause as usize] == cause`.
    pub const ALL: [Self; 7] = [
        Self::Connect,
        Self::Flow,
        Self::Silence,
        Self::TransportError,
        Self::RetryAfter,
        Self::Listed,
        Self::Busy,
    ];

    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Flow => "flow",
            Self::Silence => "silence",
            Self::TransportError => "transport-error",
            Self::RetryAfter => "retry-after",
            Self::Listed => "listed",
            Self::Busy => "busy",
        }
    }
}

/// Why a recovery ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its deadline came, or no wait fitted into the window any more.
    GivenUp,
    /// The re-INVITE was cancelled.
    Cancelled,
    /// The call was released for another reason.
    Released,
}

impl Outcome {
    /// All of them, in the order of their numbers: `ALL[outcome as usize] == outcome`.
    pub const ALL: [Self; 3] = [Self::GivenUp, Self::Cancelled, Self::Released];

    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::GivenUp => "given-up",
            Self::Cancelled => "cancelled",
            Self::Released => "released",
        }
    }
}

/// What an application asks of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Comes back in the event that answers it.
    pub reference: u64,
    /// The call, as an event named it.
    pub call: CallId,
    /// The leg of the party concerned.
    pub side: Side,
    /// What is to be done.
    pub what: What,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// `RequestReleaseCall`: end the call at once.
    Release,
    /// `RequestHoldCall`: stop the party's media.
    Hold,
    /// `RequestRetrieveCall`: join its media with the other party's again.
    Retrieve,
}
