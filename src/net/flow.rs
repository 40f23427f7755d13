//! One flow as its shard sees it: a state, an outbox, and the waker of the task that owns the
//! stream.
//!
//! ```text
//!             opened               close
//! Connecting ────────► Open ─────────────────► Closing ──► (written, or CLOSE_TIMEOUT)
//!      │                 │ outbox full, deadline
//!      └────────┬────────┘
//!               ▼
//!            Failed(error) ──► the task says so once, then shuts the socket down
//! ```

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{CLOSE_TIMEOUT, Net, OUTBOX_BYTES_TOTAL_MAX, TaskKey};
use crate::key::{FlowId, Key, ShardId};
use crate::options::DeviceId;
use crate::sip::message::PING;
use crate::sip::{FlowError, NewFlow};
use crate::time::Instant;

/// Where a flow is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The connection is being opened; what is sent waits.
    Connecting,
    /// Read and written.
    Open,
    /// The endpoint closed it: the outbox is written, what is read is thrown away.
    Closing,
    /// The shard ends: the outbox is written.
    Ending,
    /// The task has yet to say so.
    Failed(FlowError),
    /// Closed, and the patience is over.
    Abandoned,
}

/// A TCP connection, shared by the task that owns its stream and the shard that queues bytes.
pub(crate) struct Flow {
    /// The endpoint's name for it.
    pub(crate) id: FlowId,
    /// The two ends. Ours is known when the connection is open.
    pub(crate) ends: Cell<NewFlow>,
    /// The shards that were handed a message read here: they are told when the flow is gone.
    /// With each the messages that it was handed, modulo 2^32.
    pub(crate) told: RefCell<Vec<(ShardId, u32)>>,
    /// The devices that the peer has a certificate for.
    pub(crate) devices: RefCell<Box<[DeviceId]>>,
    pub(super) key: Cell<TaskKey>,
    pub(super) state: Cell<State>,
    /// When it must have made progress.
    pub(super) deadline: Cell<Option<Instant>>,
    /// What it has failed with when that has passed.
    pub(super) overdue: Cell<FlowError>,
    /// When that is looked at.
    pub(super) checked: Cell<Option<Instant>>,
    /// True when the peer is to be asked whether it is there, and the task does not know of it yet.
    pub(super) pinged: Cell<bool>,
    /// True when a message was queued that the task does not know of yet.
    pub(super) wrote: Cell<bool>,
    /// True when it was ended for another one.
    pub(super) given_up: Cell<bool>,
    /// How long what was read last may have waited in the socket, at most.
    pub(crate) waited: Cell<Duration>,
    outbox: RefCell<Outbox>,
    waker: RefCell<Option<Waker>>,
    /// True while the task is sure to look at the outbox: it runs, is scheduled, or waits for the
    /// socket to take more.
    busy: Cell<bool>,
    /// True while a gate holds the flow, so that it is held once.
    pub(crate) gated: Cell<bool>,
}

/// Bytes to write, of which the first `written` have been.
#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    written: usize,
}

impl Flow {
    pub(super) fn new(id: FlowId, ends: NewFlow, state: State) -> Self {
        Self {
            id,
            ends: Cell::new(ends),
            told: RefCell::default(),
            devices: RefCell::default(),
            key: Cell::new(TaskKey(Key { index: u32::MAX, generation: 0 })),
            state: Cell::new(state),
            deadline: Cell::new(None),
            overdue: Cell::new(FlowError::Timeout),
            checked: Cell::new(None),
            pinged: Cell::new(false),
            wrote: Cell::new(false),
            given_up: Cell::new(false),
            waited: Cell::default(),
            outbox: RefCell::default(),
            waker: RefCell::new(None),
            busy: Cell::new(true),
            gated: Cell::new(false),
        }
    }

    /// The peer's end.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.ends.get().peer
    }

    /// Queues one message, or leaves it to the task how the peer is asked, if it is a ping.
    pub(crate) fn send(&self, net: &Net, bytes: &[u8]) {
        if bytes == PING {
            self.pinged.set(true);
            self.wake();
        } else {
            self.wrote.set(true);
            self.queue(net, bytes);
        }
    }

    /// Queues bytes. More than `outbox_bytes_max` queued for a peer that does not read: the
    /// flow fails. More than [`OUTBOX_BYTES_TOTAL_MAX`] for all of the shard: the flow that has most
    /// queued fails, which need not be this one.
    pub(super) fn queue(&self, net: &Net, bytes: &[u8]) {
        match self.state.get() {
            State::Connecting | State::Open => {}
            State::Closing | State::Ending | State::Failed(_) | State::Abandoned => return,
        }
        if net.queued.get() + bytes.len() > OUTBOX_BYTES_TOTAL_MAX {
            net.fail_fullest();
        }
        let shard_bytes = net.queued.get() + bytes.len();
        let flow_bytes = self.queued() + bytes.len();
        if flow_bytes > net.limits.borrow().outbox_bytes_max || shard_bytes > OUTBOX_BYTES_TOTAL_MAX
        {
            self.fail(FlowError::OutboxFull);
            return;
        }
        let mut outbox = self.outbox.borrow_mut();
        if outbox.bytes.capacity() == 0 {
            outbox.bytes = net.pool.borrow_mut().take();
        }
        outbox.compact();
        outbox.bytes.extend_from_slice(bytes);
        net.queued.set(shard_bytes);
        drop(outbox);
        if !self.busy.replace(true) {
            self.wake();
        }
    }

    /// Writes what is queued, then closes; nothing read from now on is handed in.
    pub(crate) fn close(&self, net: &Net, now: Instant) {
        self.leave(net, now, State::Closing);
    }

    /// Writes what is queued, then closes without waiting for the peer's end.
    pub(super) fn end(&self, net: &Net, now: Instant) {
        self.leave(net, now, State::Ending);
    }

    fn leave(&self, net: &Net, now: Instant, how: State) {
        match self.state.get() {
            State::Open => {
                self.state.set(how);
                self.deadline.set(Some(now + CLOSE_TIMEOUT));
                net.watch(self);
            }
            State::Closing => self.state.set(how),
            // There is nobody to write to.
            State::Connecting | State::Failed(_) => self.state.set(State::Abandoned),
            State::Ending | State::Abandoned => {}
        }
        self.wake();
    }

    /// Ends it without a word. True the first time.
    pub(super) fn give_up(&self) -> bool {
        self.state.set(State::Abandoned);
        self.wake();
        !self.given_up.replace(true)
    }

    /// The flow is over; its task says so when it runs.
    pub(super) fn fail(&self, error: FlowError) {
        match self.state.get() {
            State::Connecting | State::Open => self.state.set(State::Failed(error)),
            State::Closing | State::Ending => self.state.set(State::Abandoned),
            State::Failed(_) | State::Abandoned => {}
        }
        self.wake();
    }

    /// The deadline has passed.
    pub(super) fn expire(&self) {
        self.deadline.set(None);
        self.fail(self.overdue.get());
    }

    /// Lets the task look at the state again.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The task runs: it needs no waking for what is queued meanwhile.
    pub(super) fn running(&self, cx: &Context<'_>) {
        self.busy.set(true);
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// The task waits. While the socket takes no more, more to write is no reason to wake it.
    pub(super) fn waiting(&self) {
        self.busy.set(!self.outbox.borrow().bytes.is_empty());
    }

    /// Writes what is queued with `write`, as far as it goes. Ready when all is written.
    pub(super) fn poll_write<E>(
        &self,
        net: &Net,
        mut write: impl FnMut(&[u8]) -> Poll<Result<usize, E>>,
    ) -> Poll<Result<(), E>> {
        let mut outbox = self.outbox.borrow_mut();
        while outbox.written < outbox.bytes.len() {
            match write(&outbox.bytes[outbox.written..]) {
                Poll::Ready(Ok(count)) => {
                    outbox.written += count;
                    net.queued.set(net.queued.get().saturating_sub(count));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if outbox.bytes.capacity() > 0 {
            net.pool.borrow_mut().give(std::mem::take(&mut outbox.bytes));
            outbox.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Bytes that wait to be written.
    pub(super) fn queued(&self) -> usize {
        let outbox = self.outbox.borrow();
        outbox.bytes.len() - outbox.written
    }

    /// Forgets what is queued.
    pub(super) fn discard(&self, net: &Net) {
        let outbox = std::mem::take(&mut *self.outbox.borrow_mut());
        let left = outbox.bytes.len() - outbox.written;
        net.queued.set(net.queued.get().saturating_sub(left));
    }

    /// Nobody wakes the task any more.
    pub(super) fn forget_task(&self) {
        self.waker.take();
    }
}

impl Outbox {
    /// Moves what is left to the front once more than half is written: each byte moves once.
    fn compact(&mut self) {
        if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

/// Buffers that outboxes borrow while they have something to write: an idle flow holds none.
#[derive(Default)]
pub(super) struct Pool {
    buffers: Vec<Vec<u8>>,
    /// Their capacity.
    bytes: usize,
}

/// Capacity of all buffers that are kept for the next outboxes.
const POOL_BYTES_MAX: usize = 4 << 20;
/// Capacity of a buffer that is kept; what is larger is freed.
const POOL_BUFFER_BYTES_MAX: usize = 256 << 10;

impl Pool {
    fn take(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    fn give(&mut self, mut buffer: Vec<u8>) {
        let bytes = self.bytes + buffer.capacity();
        if buffer.capacity() <= POOL_BUFFER_BYTES_MAX && bytes <= POOL_BYTES_MAX {
            buffer.clear();
            self.buffers.push(buffer);
            self.bytes = bytes;
        }
    }
}
