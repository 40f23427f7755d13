//! The timers of RFC 3261 table 4 and RFC 6026, and those of the server itself.
//!
//! A, E and G belong to unreliable transports; D, I, J and K are zero on reliable ones: there they are
//! steps of the machines and never entries of the wheel.

use std::time::Duration;

use crate::key::{CallId, ClientId, FlowId, LegId, ServerId};

/// Round-trip estimate (RFC 3261 §17.1.1.1).
pub(super) const T1: Duration = Duration::from_millis(500);
/// The longest retransmission interval (RFC 3261 §17.1.2.2).
pub(super) const T2: Duration = Duration::from_secs(4);
/// How long a message may stay in the network: timers I and K (RFC 3261 table 4).
pub(super) const T4: Duration = Duration::from_secs(5);
/// 64·T1: timers B, D, F, H, J, L and M, and how long an orphan is remembered.
pub(super) const T1_64: Duration = Duration::from_secs(32);
/// Timer C (RFC 3261 §16.6 step 11): more than three minutes without a final response.
pub(super) const C: Duration = Duration::from_secs(181);

/// What is due when the wheel turns up an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// An INVITE is sent again until a response comes (A).
    A(ClientId),
    /// INVITE transaction timeout, cut at the deadline of a recovery (B).
    B(ClientId),
    /// No final response for long after a provisional one (C).
    C(ClientId),
    /// Wait for repeated final responses other than 2xx (D).
    D(ClientId),
    /// Another request, or the CANCEL of an INVITE, is sent again until its final response comes (E).
    E(ClientId),
    /// Non-INVITE transaction timeout (F).
    F(ClientId),
    /// A final response other than 2xx is sent again until its ACK comes (G).
    G(ServerId),
    /// Wait for the ACK of a final response other than 2xx (H).
    H(ServerId),
    /// Wait for repeated ACKs (I).
    I(ServerId),
    /// Wait for repeated requests other than INVITE (J).
    J(ServerId),
    /// Wait for repeated final responses to a request other than INVITE (K).
    K(ClientId),
    /// Wait for INVITE retransmissions after a 2xx (L, RFC 6026 §7.1).
    L(ServerId),
    /// Wait for 2xx retransmissions (M, RFC 6026 §7.2).
    M(ClientId),
    /// An attempt that was given up is forgotten.
    Orphan(ClientId),
    /// A CANCEL was not followed by a final response in 64·T1 (RFC 3261 §9.1).
    Cancelled(ClientId),
    /// The 2xx of a leg's INVITE is sent again until its ACK comes (RFC 3261 §13.3.1.4).
    Answer(LegId),
    /// The wait of a recovering leg is over.
    Retry(LegId),
    /// A connection on which a request waits is pinged (RFC 5626 §4.4.1).
    Ping(FlowId),
    /// A flow over UDP may be idle.
    Idle(FlowId),
    /// No session refresh came in time (RFC 4028 §10).
    Session(CallId),
    /// A member of a pair is to be asked whether it lives.
    Probe(u16),
    /// The patience of a drain is over.
    Drain,
}
