//! What the engine and the sockets say to each other.

use std::io;
use std::time::{Duration, Instant};

use crate::message::Message;
use crate::net::Outboxes;

/// Which end of the calls a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Side {
    Caller,
    Callee,
}

impl Side {
    /// The other end.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Transport {
    Tcp,
    Tls,
    Udp,
}

/// Where a message came in.
///
/// Over UDP a connection is a pair of addresses: ours and that of whoever sent or is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) conn: u32,
    pub(crate) side: Side,
    pub(crate) party: u32,
    /// Message boundaries are kept, delivery is not promised.
    pub(crate) datagrams: bool,
}

/// What the engine hears from its connections. Nothing of the wire may be called from within.
pub(crate) trait Handler: 'static {
    /// A connection stands, with TLS done; messages may be written to it.
    fn on_open(&mut self, place: Place, now: Instant);

    /// A whole message came in.
    fn on_message(&mut self, place: Place, message: &Message<'_>, now: Instant);

    /// A connection that was open is gone; nothing more comes from it. It was there until `ended` at
    /// least: while nobody reads, nobody hears of its end.
    fn on_closed(&mut self, place: Place, why: Closed, ended: Instant, now: Instant);

    /// A connection that was asked for does not come about.
    fn on_connect_failed(&mut self, _side: Side, _party: u32, _error: &io::Error, _now: Instant) {}

    /// Something sent over UDP did not arrive, says the network (ICMP).
    fn on_error(&mut self, _place: Place, _error: &io::Error, _now: Instant) {}

    /// Where messages are written to.
    fn out(&mut self) -> &mut Outboxes;
}

/// Why a connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The peer closed it: FIN, or close_notify of TLS.
    Eof,
    /// The peer reset it.
    Reset,
    /// Some other error of the socket.
    Failed(io::ErrorKind),
    /// A fault of our own, or [`Wire::close`](super::Wire::close).
    Struck,
    /// The peer sent what is not SIP, or a message above the limit.
    NotSip,
    /// More than the limit waited to be written.
    Overflow,
    /// The peer broke TLS or sent a fatal alert.
    Tls,
}

/// Whether a connection is made again when it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reconnect {
    No,
    /// So long after it was lost, and so long after each failure, until it stands.
    After(Duration),
}

/// What a party suffers. A fault of a connection strikes those that are open; one of the door lasts
/// until it is lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An RST goes out, whatever was unread is lost.
    Reset,
    /// The connection is closed in order.
    Fin,
    /// Nothing more is written (FIN), reading goes on.
    HalfClose,
    /// The listener refuses connections.
    Refuse,
    /// The listener accepts connections and closes them at once.
    AcceptThenClose,
    /// What comes is read and dropped, nothing is written; on connections to come, too.
    Blackhole,
    /// Nothing is read: what comes stays in the kernel.
    StopReading,
    /// No more is read than this, with a small buffer of the kernel.
    SlowReader { bytes_per_second: u32 },
    /// Each byte is written alone, so long after the one before.
    SlowWriter { gap: Duration },
    /// Half of the next message goes out, then an RST.
    CutInside,
    /// A fatal alert (internal_error) goes out, then FIN. Over TCP: FIN.
    TlsAlert,
    /// The listener accepts connections and says nothing on them, not even a ServerHello.
    HandshakeStall,
}

/// What a listener does with who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Open,
    Refuse,
    AcceptThenClose,
    Stall,
}

/// A connection that was struck, and the instant just before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Struck {
    pub(crate) conn: u32,
    pub(crate) at: Instant,
}

/// How much of everything there may be; beyond it a connection is refused or closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections of one run, closed ones included.
    pub(crate) conns: usize,
    /// Bytes that may wait to be written to a connection.
    pub(crate) outbox_bytes: usize,
    /// Connects in flight; more wait their turn.
    pub(crate) connects: usize,
    /// Bytes of an unfinished message.
    pub(crate) partial_bytes: usize,
    /// How long a connect, TLS included, may take.
    pub(crate) connect_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            conns: 1 << 22,
            outbox_bytes: 256 << 20,
            connects: 4096,
            partial_bytes: crate::message::MESSAGE_BYTES_MAX,
            connect_timeout: Duration::from_secs(4),
        }
    }
}
