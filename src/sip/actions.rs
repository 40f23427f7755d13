//! What goes into an endpoint and what comes out of it.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::message::{FrameError, View};
use crate::cti;
use crate::key::FlowId;
use crate::options::{DeviceId, Options};
use crate::target::{Target, Transport};
use crate::time::Instant;

/// A flow that a peer opened to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewFlow {
    /// The peer's end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// What it is made of.
    pub transport: Transport,
}

/// Why a flow is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowError {
    /// The connection was refused; a datagram met a closed port (ICMP).
    Refused,
    /// There is no way to the address, or no local resource to go it.
    Unreachable,
    /// The connection did not open in `connect-timeout`.
    ConnectTimeout,
    /// The connection opened, and the TLS handshake failed: one end does not accept the other, or it took too
    /// long.
    Handshake,
    /// The peer reset it.
    Reset,
    /// The peer closed it (FIN).
    Closed,
    /// More than `outbox-bytes-max` were queued for a peer that does not read.
    OutboxFull,
    /// A message, or the first one, took longer than it may.
    Timeout,
    /// The peer has vanished: nothing was acknowledged for `tcp-user-timeout`, or a ping was not answered.
    Silent,
    /// We closed it, for the reason given with [`Action::Close`].
    Local,
}

/// Something that happens to an endpoint.
#[derive(Debug)]
pub enum Input<'a> {
    /// A whole message whose head was read when it was framed.
    Framed {
        /// Where it was read.
        flow: FlowId,
        /// The message, at most `message_bytes_max` bytes.
        message: View<'a>,
        /// How long it may have waited to be read, at most.
        waited: Duration,
    },
    /// A whole message that nobody has read yet, at most `message_bytes_max` bytes; over UDP a whole datagram.
    Message {
        /// Where it was read.
        flow: FlowId,
        /// Start line to the last byte of the body.
        bytes: &'a [u8],
        /// How long it may have waited to be read, at most; zero where nobody knows.
        waited: Duration,
    },
    /// A stream that can no longer be split into messages. The endpoint answers 400 if `bytes` let
    /// it form a response, and closes the flow.
    Unframed {
        /// Where it was read.
        flow: FlowId,
        /// What had been read of the message; a whole head where there was one.
        bytes: &'a [u8],
        /// What is wrong.
        error: FrameError,
    },
    /// A connection asked for by [`Action::Connect`] is open.
    FlowOpened {
        /// The flow of the action.
        flow: FlowId,
    },
    /// A flow is gone, or could not be opened. Said once for each flow; never for one that the
    /// endpoint closed itself.
    FlowFailed {
        /// The flow that is gone.
        flow: FlowId,
        /// Why.
        error: FlowError,
    },
    /// Something sent to a peer over UDP did not arrive, by whichever socket of the address: the flow
    /// to it, if there is one, has failed, and is closed.
    Undelivered {
        /// The peer.
        peer: SocketAddr,
        /// Why.
        error: FlowError,
    },
    /// An application asks something of a call; an event answers it.
    Request(cti::Request),
    /// The peer of a flow that was just accepted has a certificate for these devices: it is one of them, wherever
    /// it comes from, and wherever they are by then.
    Certified {
        /// Which.
        flow: FlowId,
        /// At least one.
        devices: &'a [DeviceId],
    },
    /// [`Action::Alias`] of another endpoint: requests to `target` may go down this flow.
    Alias {
        /// What stands for its flow here.
        flow: FlowId,
        /// Whom it leads to.
        target: Target,
    },
    /// New options are in force, from now on.
    Options(Arc<Options>),
    /// Take no new calls: they are answered 503 with Retry-After. At `deadline` what is left is
    /// released with BYE.
    Drain {
        /// When the patience ends.
        deadline: Instant,
    },
    /// A peer wants to open a connection, and `flows_max` are open: idle ones may be closed, those of peers that
    /// never sent a message first, then the ones that were idle longest. One that a call, a request or a
    /// response still needs is not idle.
    Crowded {
        /// Flows that are needed although nothing here says so.
        held: &'a [FlowId],
        /// How many are to be closed at most.
        count: usize,
    },
    /// [`Endpoint::next_timeout`](super::Endpoint::next_timeout) has come.
    Timeout,
}

/// Why the endpoint closes a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// What the peer sent cannot be answered or followed.
    BadInput,
    /// It is idle, and the table of flows is full ([`Input::Crowded`]).
    Crowded,
    /// Nothing came from or went to a peer over UDP for long.
    Idle,
    /// A peer over UDP cannot be reached.
    Undelivered,
}

/// Something an endpoint wants done, in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Open a connection. [`Input::FlowOpened`] or [`Input::FlowFailed`] follows; bytes sent to the
    /// flow before it is open wait in its outbox. Over UDP it is open at once, and no
    /// [`Input::FlowOpened`] follows.
    Connect {
        /// The name it will have.
        flow: FlowId,
        /// Where to.
        target: Target,
        /// After this it has failed with [`FlowError::ConnectTimeout`].
        timeout: Duration,
    },
    /// Queue bytes on a flow. To a flow that is gone: nothing happens.
    Send {
        /// Where to.
        flow: FlowId,
        /// One whole message.
        bytes: &'a [u8],
    },
    /// Write what is queued, then close the flow. No [`Input::FlowFailed`] follows, and nothing read
    /// on it is handed in any more.
    Close {
        /// Which.
        flow: FlowId,
        /// Why, for the log and the counters.
        reason: CloseReason,
    },
    /// A peer's flow has become the way to a target (RFC 5923 §7): tell the other endpoints.
    Alias {
        /// Which.
        flow: FlowId,
        /// Whom it leads to.
        target: Target,
    },
    /// Tell whoever listens; only while [`Options::events`] is set.
    Emit(&'a cti::Event),
}

/// The actions of one turn and the bytes they send, in buffers that are reused.
#[derive(Debug, Default)]
pub struct Actions {
    list: Vec<Recorded>,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Recorded {
    Connect {
        flow: FlowId,
        target: Target,
        timeout: Duration,
    },
    Send {
        flow: FlowId,
        range: Range<usize>,
    },
    Close {
        flow: FlowId,
        reason: CloseReason,
    },
    Alias {
        flow: FlowId,
        target: Target,
    },
    /// Boxed: rare, and larger than the others.
    Emit(Box<cti::Event>),
}

/// Bytes of messages, and actions, that [`Actions::clear`] keeps room for: an ordinary turn fits, and
/// the turn in which ten thousand calls lost their flow leaves nothing behind.
const RETAINED_BYTES: usize = 1 << 18;
const RETAINED_ACTIONS: usize = 1 << 10;

impl Actions {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many actions there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Forgets the actions and keeps the memory, up to a bound.
    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
        self.list.shrink_to(RETAINED_ACTIONS);
        self.bytes.shrink_to(RETAINED_BYTES);
    }

    /// The actions, in order.
    pub fn iter(&self) -> impl Iterator<Item = Action<'_>> {
        self.list.iter().map(|recorded| match recorded {
            Recorded::Connect { flow, target, timeout } => {
                Action::Connect { flow: *flow, target: *target, timeout: *timeout }
            }
            Recorded::Send { flow, range } => {
                Action::Send { flow: *flow, bytes: &self.bytes[range.clone()] }
            }
            Recorded::Close { flow, reason } => Action::Close { flow: *flow, reason: *reason },
            Recorded::Alias { flow, target } => Action::Alias { flow: *flow, target: *target },
            Recorded::Emit(event) => Action::Emit(event),
        })
    }

    pub(crate) fn connect(&mut self, flow: FlowId, target: Target, timeout: Duration) {
        self.list.push(Recorded::Connect { flow, target, timeout });
    }

    pub(crate) fn send(&mut self, flow: FlowId, bytes: &[u8]) {
        self.send_with(flow, |out| out.extend_from_slice(bytes));
    }

    /// Lets `write` append one message to the buffer, and sends it.
    pub(crate) fn send_with(&mut self, flow: FlowId, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.list.push(Recorded::Send { flow, range: start..self.bytes.len() });
    }

    pub(crate) fn alias(&mut self, flow: FlowId, target: Target) {
        self.list.push(Recorded::Alias { flow, target });
    }

    pub(crate) fn emit(&mut self, event: cti::Event) {
        self.list.push(Recorded::Emit(Box::new(event)));
    }

    pub(crate) fn close(&mut self, flow: FlowId, reason: CloseReason) {
        self.list.push(Recorded::Close { flow, reason });
    }
}

/// What an endpoint holds and has counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Open or opening flows.
    pub flows: usize,
    /// Calls of which at least one leg lives.
    pub calls: usize,
    /// Legs that wait for their next attempt.
    pub waiting: usize,
    /// Client transactions, orphans among them.
    pub clients: usize,
    /// Server transactions.
    pub servers: usize,
    /// Scheduled timers.
    pub timers: usize,
    /// Calls that were answered.
    pub calls_established: u64,
    /// Calls that we ended because a recovery was given up or is switched off.
    pub calls_lost: u64,
    /// Recoveries begun.
    pub recoveries_started: u64,
    /// Recoveries that ended with an answer.
    pub recoveries_succeeded: u64,
    /// Recoveries given up.
    pub recoveries_failed: u64,
    /// Messages handled.
    pub messages: u64,
    /// Messages that were refused or dropped because they are malformed.
    pub messages_bad: u64,
}
