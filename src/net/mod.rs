//! Sockets on glommio: the only readers and writers.
//!
//! ```text
//! listener ──accept──► flow task ◄──connect── Action::Connect
//!                        │   ▲
//!      read, frame, hand in  │ woken once for all that was queued in a turn
//!                        ▼   │
//!                     Host (the shard's turn) ──► outbox
//! ```
//!
//! Datagrams have neither task nor outbox for each peer: see `udp`.
//!
//! One task owns a stream, reads it, frames it and writes its outbox: there is one place where a
//! flow dies and says so. Idle flows own no buffer: bytes are read into one buffer of the shard,
//! framed in the same poll, and what is left of a message is kept by the flow's framer.
//!
//! No glommio timer belongs to a flow (a task with 32,768 wakers panics): what may take too long is
//! entered in `Deadlines`, and the shard's one timer task calls `Net::expire`.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Sockets live here.

mod backlog;
mod deadlines;
mod flow;
mod front;
mod names;
mod pings;
mod session;
mod sources;
mod tally;
pub(crate) mod tcp;
pub mod tls;
pub(crate) mod udp;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures_lite::future;
use glommio::timer::Timer;

use crate::key::{FlowId, Key, Slab};
use crate::network::Network;
use crate::options::{DeviceId, Limits, Options};
use crate::sip::message::{FrameError, Head, View};
use crate::sip::{FlowError, NewFlow};
use crate::time::Instant;

use backlog::Rounds;
use deadlines::Deadlines;
pub(crate) use flow::Flow;
use flow::Pool;
use names::PeerNames;
use sources::Sources;
use tally::Tally;
pub use tally::{NetStats, REASONS};
use tls::{Contexts, Tls};
pub(crate) use udp::{Datagrams, Undelivered};

/// Bytes of one read: all there is, as a rule. With 4 KiB coalesced traffic costs twice as much.
const READ_BYTES: usize = 64 << 10;
/// Bytes queued in all outboxes of a shard; a message that would exceed them closes the flow that has
/// most of them.
pub const OUTBOX_BYTES_TOTAL_MAX: usize = 1 << 30;
/// How long a flow may have bytes to write of which the peer takes none; longer closes it.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a closed flow may take to write what is queued and to see the peer's end.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Flows looked at in one call of [`Net::expire`]: sockets are served between two calls.
const EXPIRE_MAX: usize = 4096;

/// What flows hand in: the shard.
pub(crate) trait Host: Sized + 'static {
    /// The shard's sockets.
    fn net(&self) -> &Net;
    /// Reads the clock.
    fn now(&self) -> Instant;
    /// A peer opened a flow. `None`: there is no room for it.
    fn accept(self: &Rc<Self>, new: NewFlow) -> Option<FlowId>;
    /// The peer of such a flow has a certificate for the devices of [`Flow::devices`].
    fn certified(self: &Rc<Self>, flow: &Flow);
    /// The sockets' own table is full: closes some that are idle.
    fn make_room(self: &Rc<Self>);
    /// From now on `flow` is what its id names.
    fn attach(&self, flow: &Rc<Flow>);
    /// A whole message was read.
    fn message(self: &Rc<Self>, flow: &Flow, message: View<'_>);
    /// The stream cannot be split any further.
    fn unframed(self: &Rc<Self>, flow: &Flow, bytes: &[u8], error: FrameError);
    /// A connection asked for is open.
    fn opened(self: &Rc<Self>, flow: &Flow);
    /// The flow is gone, and it was not the endpoint that closed it. Said once.
    fn failed(self: &Rc<Self>, flow: &Flow, error: FlowError);
    /// A datagram was read.
    fn datagram(self: &Rc<Self>, ends: NewFlow, bytes: &[u8]);
    /// A datagram did not arrive.
    fn undelivered(self: &Rc<Self>, undelivered: Undelivered);
    /// Ready when the flow may read; else it is woken when it may.
    fn poll_may_read(&self, flow: &Rc<Flow>) -> Poll<()>;
    /// A deadline may have become the earliest.
    fn rearm(&self);
}

/// Lets the executor look at its sockets and timers before the task goes on.
///
/// Not `yield_now`: a task that wakes itself stays in the queue that the executor works off before
/// it looks at anything else.
pub(crate) fn next_round() -> Timer {
    // Long enough not to be over when it is first polled.
    Timer::new(Duration::from_micros(20))
}

/// What `task` comes to, or `late` when it takes longer than `patience`.
async fn in_time<T, E>(
    patience: Duration,
    late: E,
    task: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let timeout = async {
        Timer::new(patience).await;
        Err(late)
    };
    future::or(task, timeout).await
}

/// Names a flow task of a shard. Differs from [`FlowId`], which the endpoint gives anew while the
/// task of the old flow still writes its last bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TaskKey(Key);

impl From<Key> for TaskKey {
    fn from(key: Key) -> Self {
        Self(key)
    }
}

impl From<TaskKey> for Key {
    fn from(key: TaskKey) -> Self {
        key.0
    }
}

/// What the flow tasks of a shard share.
pub(crate) struct Net {
    limits: RefCell<Limits>,
    /// Every flow that has a task: connecting, open, or writing its last bytes.
    flows: RefCell<Slab<TaskKey, Rc<Flow>>>,
    deadlines: RefCell<Deadlines>,
    pool: RefCell<Pool>,
    /// Flows that were given up, and whose tasks have yet to end.
    leaving: Cell<usize>,
    /// Bytes in all outboxes.
    queued: Cell<usize>,
    /// What is read lands here and is framed before anything else runs.
    buffer: RefCell<Box<[u8]>>,
    /// The head of what is framed.
    head: RefCell<Head>,
    /// Sockets for datagrams.
    datagrams: Vec<Rc<Datagrams>>,
    /// What TLS handshakes need; `None` until it is set.
    tls: RefCell<Option<Contexts>>,
    /// Names that peers must have certificates for.
    names: RefCell<PeerNames>,
    /// TLS handshakes of peers under way, and PROXY headers that are waited for.
    handshakes: Cell<u32>,
    /// Whose connections begin with a PROXY header.
    fronts: RefCell<Vec<Network>>,
    /// Who has how many connections.
    sources: Rc<Sources>,
    /// When the sockets were looked at.
    pub(crate) rounds: Rounds,
    /// How long what was read last may have waited in its socket, at most.
    pub(crate) waited: Cell<Duration>,
    /// What happened to flows, for the log and the statistics.
    pub(crate) tally: Tally,
}

impl Net {
    /// No flow yet.
    pub(crate) fn new(options: &Options, datagrams: Vec<Rc<Datagrams>>) -> Self {
        let net = Self {
            limits: RefCell::default(),
            flows: RefCell::default(),
            deadlines: RefCell::default(),
            pool: RefCell::default(),
            leaving: Cell::new(0),
            queued: Cell::new(0),
            buffer: RefCell::new(vec![0; READ_BYTES].into_boxed_slice()),
            head: RefCell::default(),
            datagrams,
            tls: RefCell::default(),
            names: RefCell::default(),
            handshakes: Cell::new(0),
            fronts: RefCell::default(),
            sources: Rc::default(),
            rounds: Rounds::default(),
            waited: Cell::default(),
            tally: Tally::default(),
        };
        net.set_options(options);
        net
    }

    /// Bounds and names in force from now on.
    pub(crate) fn set_options(&self, options: &Options) {
        self.limits.borrow_mut().clone_from(&options.limits);
        self.fronts.borrow_mut().clone_from(&options.proxy_protocol_from);
        self.sources.set_options(options);
        self.names.borrow_mut().set_options(options);
    }

    /// Certificates and authorities for handshakes from now on; open flows are not touched.
    pub(crate) fn set_tls(&self, contexts: Contexts) {
        *self.tls.borrow_mut() = Some(contexts);
    }

    /// The other end of a handshake with `target`: its name is the one configured for that address, now or
    /// before, else for that host, else the address itself. `None` without anything to verify it by.
    fn tls_to(&self, target: SocketAddr) -> Option<rustls::Connection> {
        let names = self.names.borrow();
        let name = tls::server_name(names.of(target), target.ip());
        self.tls.borrow().as_ref()?.connect(name)
    }

    /// True when connections from there begin with a PROXY header.
    fn is_front(&self, ip: IpAddr) -> bool {
        self.fronts.borrow().iter().any(|network| network.contains(ip))
    }

    /// The devices that a peer who connected to us has shown a certificate for, by their names.
    fn devices_of(&self, tls: &Tls) -> Box<[DeviceId]> {
        tls.is_certified_for(self.names.borrow().devices())
    }

    /// Bytes of the largest message that is handed in.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.limits.borrow().message_bytes_max
    }

    /// Sends one datagram from the first socket of its family: see [`Datagrams::send`].
    ///
    /// # Errors
    /// There is no way to the peer, or no socket.
    pub(crate) fn send_datagram(
        &self,
        peer: SocketAddr,
        bytes: &[u8],
        undelivered: impl FnMut(Undelivered),
    ) -> Result<(), FlowError> {
        let socket = self.datagrams.iter().find(|socket| socket.reaches(peer));
        socket.ok_or(FlowError::Unreachable)?.send(peer, bytes, undelivered)
    }

    /// Flow tasks that run.
    pub(crate) fn flows(&self) -> usize {
        self.flows.borrow().len()
    }

    /// Takes a place among the handshakes of peers, until [`end_handshake`](Self::end_handshake). False when
    /// `tls-handshakes-max` are under way.
    fn begin_handshake(&self) -> bool {
        let under_way = self.handshakes.get();
        let room = under_way < self.limits.borrow().tls_handshakes_max;
        self.handshakes.set(under_way + u32::from(room));
        room
    }

    fn end_handshake(&self) {
        self.handshakes.set(self.handshakes.get() - 1);
    }

    /// True when one more connection may be served.
    fn has_room(&self) -> bool {
        self.flows() - self.leaving.get() < self.limits.borrow().flows_max as usize
    }

    /// Ends an idle flow at once, for another one.
    pub(crate) fn give_up(&self, flow: &Flow, now: Instant) {
        if flow.give_up() {
            self.leaving.set(self.leaving.get() + 1);
        }
        self.tally.limited(now, |stats| &mut stats.crowded);
    }

    /// Ends every flow: what is queued is written first, for at most [`CLOSE_TIMEOUT`].
    pub(crate) fn end_all(&self, now: Instant) {
        let flows: Vec<_> = self.flows.borrow().iter().map(|(_, flow)| Rc::clone(flow)).collect();
        for flow in flows {
            flow.end(self, now);
        }
    }

    /// What is held and was counted.
    pub(crate) fn stats(&self) -> NetStats {
        NetStats { tasks: self.flows(), outbox_bytes: self.queued.get(), ..self.tally.stats() }
    }

    /// When to call [`expire`](Self::expire).
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.borrow().next()
    }

    /// Ends flows whose time is over, at most [`EXPIRE_MAX`] a call: what is left is due at once.
    pub(crate) fn expire(&self, now: Instant) {
        for _ in 0..EXPIRE_MAX {
            let Some(key) = self.deadlines.borrow_mut().pop(now) else { return };
            let flow = self.flows.borrow().get(key).cloned();
            if let Some(flow) = flow {
                flow.checked.set(None);
                match flow.deadline.get() {
                    Some(deadline) if deadline <= now => flow.expire(),
                    Some(_) => self.watch(&flow),
                    None => {}
                }
            }
        }
    }

    /// Sees to it that the flow's deadline is looked at when it comes. A deadline that moves later
    /// costs nothing: it is looked at when the earlier one would have come.
    fn watch(&self, flow: &Flow) {
        let Some(deadline) = flow.deadline.get() else { return };
        if flow.checked.get().is_none_or(|checked| deadline < checked) {
            flow.checked.set(Some(deadline));
            self.deadlines.borrow_mut().insert(deadline, flow.key.get());
        }
    }

    /// Makes room when all outboxes together are full, at the cost of who fills them most.
    fn fail_fullest(&self) {
        let fullest = {
            let flows = self.flows.borrow();
            flows.iter().map(|(_, flow)| flow).max_by_key(|flow| flow.queued()).cloned()
        };
        if let Some(flow) = fullest {
            flow.fail(FlowError::OutboxFull);
            flow.discard(self);
        }
    }

    fn insert(&self, flow: &Rc<Flow>) {
        let key = self.flows.borrow_mut().insert(Rc::clone(flow));
        flow.key.set(key);
    }

    fn remove(&self, flow: &Flow) {
        self.flows.borrow_mut().remove(flow.key.get());
        if flow.given_up.get() {
            self.leaving.set(self.leaving.get() - 1);
        }
        flow.discard(self);
        flow.forget_task();
    }
}
