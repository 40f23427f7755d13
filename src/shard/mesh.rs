//! Shard to shard: messages whose home is elsewhere, what is sent back, and the death of flows.
//!
//! ```text
//! origin (owns the socket)                       home (owns the call)
//! message read ──forward──► Flow, Message ─────► accept: a flow id that stands for it; handle
//! outbox ◄─────────────────────── Send ◄──────── Action::Send to that id
//! close ◄──────────────────────── Close ◄─────── Action::Close of that id
//! flow gone ──────────────► Gone ──────────────► FlowFailed
//! ```
//!
//! # Bounds, and why nothing waits for itself
//!
//! What crosses is collected in one parcel for each pair of shards and carried by a queue of
//! [`PARCELS_MAX`] parcels. A task that sends a parcel waits for room in the queue. While a parcel
//! grows above [`PARCEL_BYTES_HIGH`] the shard reads no socket, so what peers send waits in the
//! kernel, and then in the peers. The task that *receives* never waits for anything but the next
//! parcel: what handling one brings about goes to outboxes, which are bounded, or into the parcel
//! of the way back, where more than [`PARCEL_BYTES_MAX`] fails the flow it is for. So every queue is
//! emptied as long as its shard runs, and of two shards that are full of each other's parcels each
//! still takes the other's: only readers wait, and they wait for a task that never waits for
//! readers. `Close` and `Gone` are not held back: there is at most one for each flow.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio::sync::mpsc;

use super::{After, Place, Protocol, Shard};
use crate::key::{FlowId, ShardId};
use crate::net::{Flow, Host, Undelivered, next_round};
use crate::options::DeviceId;
use crate::sip::{FlowError, Input, NewFlow};
use crate::target::Target;

/// Parcels under way from one shard to another.
const PARCELS_MAX: usize = 4;
/// Bytes of a parcel that wait for room above which the shard reads no more.
const PARCEL_BYTES_HIGH: usize = 256 << 10;
/// Bytes of a parcel that wait for room; a message sent back beyond that fails its flow.
pub(super) const PARCEL_BYTES_MAX: usize = 64 << 20;
/// Capacity of an emptied parcel that is used again.
const PARCEL_RETAINED_BYTES: usize = 1 << 20;
/// Things taken from a parcel before the sockets have their turn.
const RECEIVE_BURST: usize = 64;

/// What crosses.
enum Item {
    /// The first word of a flow: its ends, and the devices that its peer has a certificate for.
    Flow { flow: FlowId, ends: Box<NewFlow>, devices: Box<[DeviceId]> },
    /// A message read on the sender's flow.
    Message { flow: FlowId, range: Range<u32> },
    /// A datagram that the sender read.
    Datagram { ends: Box<NewFlow>, range: Range<u32> },
    /// A datagram, sent by whichever shard, did not arrive.
    Undelivered(Undelivered),
    /// Bytes for the receiver's flow.
    Send { flow: FlowId, range: Range<u32> },
    /// The sender's endpoint closed the receiver's flow.
    Close { flow: FlowId },
    /// The sender's flow is gone.
    Gone { flow: FlowId, error: FlowError },
    /// The sender's flow is the way to a target.
    Alias { flow: FlowId, target: Target },
    /// The receiver's flow is, as the sender found.
    Found { flow: FlowId, target: Target },
    /// The sender's table of flows is full.
    Crowded,
    /// The receiver's flow is of no use to the sender, which has seen so many messages of it.
    Release { flow: FlowId, messages: u32 },
    /// The sender's flow is not known to be of use to the receiver any more.
    Released { flow: FlowId },
}

/// Items in order, and their bytes.
#[derive(Default)]
pub(super) struct Parcel {
    items: Vec<Item>,
    bytes: Vec<u8>,
}

/// One shard's ends of the queues to and from another.
pub(super) struct Link {
    to: mpsc::Sender<Parcel>,
    from: mpsc::Receiver<Parcel>,
    /// Emptied parcels of ours that come back.
    spare: mpsc::Receiver<Parcel>,
    /// Emptied parcels of theirs that go back.
    emptied: mpsc::Sender<Parcel>,
}

/// The links of each shard to each other shard: `links(n)[a][b]` is what `a` has of `b`.
pub(super) fn links(shards: usize) -> Vec<Vec<Option<Link>>> {
    let mut table: Vec<Vec<Option<Link>>> =
        (0..shards).map(|_| (0..shards).map(|_| None).collect()).collect();
    for b in 0..shards {
        let (rows, rest) = table.split_at_mut(b);
        for (a, row) in rows.iter_mut().enumerate() {
            let (to_b, from_a) = mpsc::channel(PARCELS_MAX);
            let (to_a, from_b) = mpsc::channel(PARCELS_MAX);
            let (empty_to_a, spare_a) = mpsc::channel(PARCELS_MAX);
            let (empty_to_b, spare_b) = mpsc::channel(PARCELS_MAX);
            row[b] = Some(Link { to: to_b, from: from_b, spare: spare_a, emptied: empty_to_b });
            rest[0][a] = Some(Link { to: to_a, from: from_a, spare: spare_b, emptied: empty_to_a });
        }
    }
    table
}

/// What the home of a call knows of another shard's flow.
struct Known {
    alias: Alias,
    ends: Box<NewFlow>,
    devices: Box<[DeviceId]>,
    /// Messages, and words about it, that came.
    messages: u32,
}

/// Whether its endpoint knows it, too.
#[derive(Clone, Copy)]
enum Alias {
    /// The endpoint's name for it.
    Open(FlowId),
    /// The endpoint closed it: what still comes is dropped.
    Closed,
    /// There was no room for it, or it gave place to another; with the next message it is tried again.
    Absent,
}

/// This shard's side of the mesh.
pub(super) struct Mesh {
    /// By shard; `None` for itself. Empty when there is only one.
    parcels: Vec<Option<Outgoing>>,
    /// Parcels above [`PARCEL_BYTES_HIGH`].
    high: Cell<usize>,
    /// Flows that wait until there is none.
    held: RefCell<Vec<Rc<Flow>>>,
    /// Flows of other shards that this shard has seen; an entry lives as long as the flow.
    aliases: RefCell<HashMap<(ShardId, FlowId), Known, FixedState>>,
}

/// The parcel that waits for its turn.
#[derive(Default)]
struct Outgoing {
    parcel: RefCell<Parcel>,
    waker: RefCell<Option<Waker>>,
    is_high: Cell<bool>,
    /// The other shard has ended.
    is_dead: Cell<bool>,
}

impl Mesh {
    pub(super) fn new(id: ShardId, shards: usize) -> Self {
        let parcels = if shards < 2 {
            Vec::new()
        } else {
            (0..shards).map(|n| (n != usize::from(id.0)).then(Outgoing::default)).collect()
        };
        Self { parcels, high: Cell::new(0), held: RefCell::default(), aliases: RefCell::default() }
    }

    /// True when there are other shards.
    pub(super) fn has_others(&self) -> bool {
        !self.parcels.is_empty()
    }

    /// Flows of other shards that are known here.
    pub(super) fn aliases(&self) -> usize {
        self.aliases.borrow().len()
    }

    /// Hands a message to its home. False when that is here, or nowhere (a forged tag): the caller
    /// handles it.
    pub(super) fn forward(&self, home: ShardId, flow: &Flow, bytes: &[u8]) -> bool {
        let Some(outgoing) = self.outgoing(home) else { return false };
        if outgoing.is_dead.get() {
            return false;
        }
        self.introduce(home, outgoing, flow);
        self.push(outgoing, |parcel| Item::Message { flow: flow.id, range: parcel.put(bytes) });
        true
    }

    /// Counts one more thing that `home` is told of the flow, and says first which flow it is.
    fn introduce(&self, home: ShardId, outgoing: &Outgoing, flow: &Flow) {
        let mut told = flow.told.borrow_mut();
        match told.iter_mut().find(|(shard, _)| *shard == home) {
            Some((_, messages)) => *messages = messages.wrapping_add(1),
            None => {
                told.push((home, 1));
                let ends = Box::new(flow.ends.get());
                let devices = flow.devices.borrow().clone();
                self.push(outgoing, |_| Item::Flow { flow: flow.id, ends, devices });
            }
        }
    }

    /// Tells all shards but `knows` that the flow is the way to `target`.
    pub(super) fn share(&self, flow: &Flow, target: Target, knows: ShardId) {
        for (shard, outgoing) in self.parcels.iter().enumerate() {
            let (shard, Some(outgoing)) = (ShardId(shard as u16), outgoing) else { continue };
            if shard != knows && !outgoing.is_dead.get() {
                self.introduce(shard, outgoing, flow);
                self.push(outgoing, |_| Item::Alias { flow: flow.id, target });
            }
        }
    }

    /// Tells the shard of the flow that it is the way to `target`.
    pub(super) fn tell_alias(&self, shard: ShardId, flow: FlowId, target: Target) {
        if let Some(outgoing) = self.outgoing(shard) {
            self.push(outgoing, |_| Item::Found { flow, target });
        }
    }

    /// Hands a datagram to its home; `Some(false)` when so much waits that it is dropped. `None` when
    /// its home is here, or nowhere: the caller handles it.
    pub(super) fn forward_datagram(
        &self,
        home: ShardId,
        ends: NewFlow,
        bytes: &[u8],
    ) -> Option<bool> {
        let outgoing = self.outgoing(home).filter(|outgoing| !outgoing.is_dead.get())?;
        if outgoing.parcel.borrow().len() > PARCEL_BYTES_HIGH {
            return Some(false);
        }
        let ends = Box::new(ends);
        self.push(outgoing, |parcel| Item::Datagram { ends, range: parcel.put(bytes) });
        Some(true)
    }

    /// Tells all other shards of a datagram that did not arrive; not those for which much waits.
    pub(super) fn undelivered(&self, undelivered: Undelivered) {
        for outgoing in self.parcels.iter().flatten().filter(|outgoing| !outgoing.is_high.get()) {
            self.push(outgoing, |_| Item::Undelivered(undelivered));
        }
    }

    /// Sends bytes back over the flow's own shard. False when too much waits.
    pub(super) fn send(&self, shard: ShardId, flow: FlowId, bytes: &[u8]) -> bool {
        let Some(outgoing) = self.outgoing(shard) else { return true };
        if outgoing.parcel.borrow().len() + bytes.len() > PARCEL_BYTES_MAX {
            return false;
        }
        self.push(outgoing, |parcel| Item::Send { flow, range: parcel.put(bytes) });
        true
    }

    /// Closes another shard's flow.
    pub(super) fn close(&self, shard: ShardId, flow: FlowId) {
        if let Some(known) = self.aliases.borrow_mut().get_mut(&(shard, flow)) {
            known.alias = Alias::Closed;
        }
        if let Some(outgoing) = self.outgoing(shard) {
            self.push(outgoing, |_| Item::Close { flow });
        }
    }

    /// Another shard's flow is of no use here any more.
    pub(super) fn release(&self, shard: ShardId, flow: FlowId) {
        if let Some(known) = self.aliases.borrow_mut().get_mut(&(shard, flow))
            && let Some(outgoing) = self.outgoing(shard)
        {
            known.alias = Alias::Absent;
            let messages = known.messages;
            self.push(outgoing, |_| Item::Release { flow, messages });
        }
    }

    /// Asks the other shards to release what they do not need.
    pub(super) fn ask_for_room(&self) {
        for outgoing in self.parcels.iter().flatten() {
            self.push(outgoing, |_| Item::Crowded);
        }
    }

    /// `home` needs the flow no more, unless messages are under way that it has not seen.
    fn released(&self, home: ShardId, flow: &Flow, messages: u32) {
        let mut told = flow.told.borrow_mut();
        let before = told.len();
        told.retain(|entry| *entry != (home, messages));
        if told.len() < before
            && let Some(outgoing) = self.outgoing(home)
        {
            self.push(outgoing, |_| Item::Released { flow: flow.id });
        }
    }

    /// Tells every shard that saw a message of the flow that it is gone.
    pub(super) fn gone(&self, flow: &Flow, error: FlowError) {
        for (shard, _) in flow.told.borrow_mut().drain(..) {
            if let Some(outgoing) = self.outgoing(shard) {
                self.push(outgoing, |_| Item::Gone { flow: flow.id, error });
            }
        }
    }

    /// Ready when sockets may be read; else the flow is woken when they may.
    pub(super) fn poll_room(&self, flow: &Rc<Flow>) -> Poll<()> {
        if self.high.get() == 0 {
            return Poll::Ready(());
        }
        if !flow.gated.replace(true) {
            self.held.borrow_mut().push(Rc::clone(flow));
        }
        Poll::Pending
    }

    fn outgoing(&self, shard: ShardId) -> Option<&Outgoing> {
        self.parcels.get(usize::from(shard.0))?.as_ref()
    }

    fn push(&self, outgoing: &Outgoing, item: impl FnOnce(&mut Parcel) -> Item) {
        if outgoing.is_dead.get() {
            return;
        }
        let mut parcel = outgoing.parcel.borrow_mut();
        let item = item(&mut parcel);
        parcel.items.push(item);
        if parcel.len() > PARCEL_BYTES_HIGH && !outgoing.is_high.replace(true) {
            self.high.set(self.high.get() + 1);
        }
        if let Some(waker) = outgoing.waker.take() {
            waker.wake();
        }
    }

    /// The parcel went, or never will: readers may go on.
    fn relieve(&self, outgoing: &Outgoing) {
        if outgoing.is_high.replace(false) {
            self.high.set(self.high.get() - 1);
            if self.high.get() == 0 {
                for flow in self.held.take() {
                    flow.gated.set(false);
                    flow.wake();
                }
            }
        }
    }
}

impl Parcel {
    /// Bytes that it holds, its items among them.
    fn len(&self) -> usize {
        self.bytes.len() + self.items.len() * size_of::<Item>()
    }

    fn put(&mut self, bytes: &[u8]) -> Range<u32> {
        // PARCEL_BYTES_MAX, and one read of a socket, are far below 4 GiB.
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len() as u32
    }

    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    fn clear(&mut self) {
        self.items.clear();
        self.items.shrink_to(PARCEL_RETAINED_BYTES / size_of::<Item>());
        self.bytes.clear();
        self.bytes.shrink_to(PARCEL_RETAINED_BYTES);
    }
}

/// Starts the two tasks of each link.
pub(super) fn spawn<P: Protocol>(shard: &Rc<Shard<P>>, links: Vec<Option<Link>>) {
    for (peer, link) in links.into_iter().enumerate() {
        let Some(Link { to, from, spare, emptied }) = link else { continue };
        let peer = ShardId(peer as u16);
        glommio::spawn_local(send(Rc::clone(shard), peer, to, spare)).detach();
        glommio::spawn_local(receive(Rc::clone(shard), peer, from, emptied)).detach();
    }
}

/// Carries parcels to `peer`: all that was put into one since the last went.
async fn send<P: Protocol>(
    shard: Rc<Shard<P>>,
    peer: ShardId,
    to: mpsc::Sender<Parcel>,
    mut spare: mpsc::Receiver<Parcel>,
) {
    let Some(outgoing) = shard.mesh.outgoing(peer) else { return };
    loop {
        poll_fn(|cx| {
            if !outgoing.parcel.borrow().items.is_empty() {
                return Poll::Ready(());
            }
            *outgoing.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        // Room first: what is put in while we wait goes with this parcel.
        let Ok(room) = to.reserve().await else { break };
        let empty = spare.try_recv().unwrap_or_default();
        let parcel = outgoing.parcel.replace(empty);
        room.send(parcel);
        shard.mesh.relieve(outgoing);
    }
    outgoing.is_dead.set(true);
    outgoing.parcel.take();
    shard.mesh.relieve(outgoing);
}

/// Hands in what `peer` sends. Waits for nothing but the next parcel.
async fn receive<P: Protocol>(
    shard: Rc<Shard<P>>,
    peer: ShardId,
    mut from: mpsc::Receiver<Parcel>,
    emptied: mpsc::Sender<Parcel>,
) {
    while let Some(mut parcel) = from.recv().await {
        for (index, item) in parcel.items.iter().enumerate() {
            if index % RECEIVE_BURST == RECEIVE_BURST - 1 {
                next_round().await;
            }
            shard.on_item(peer, item, &parcel);
        }
        parcel.clear();
        let _ = emptied.try_send(parcel);
    }
}

impl<P: Protocol> Shard<P> {
    fn on_item(self: &Rc<Self>, peer: ShardId, item: &Item, parcel: &Parcel) {
        match item {
            Item::Flow { flow, ends, devices } => {
                let (ends, devices) = (ends.clone(), devices.clone());
                let known = Known { alias: Alias::Absent, ends, devices, messages: 0 };
                self.mesh.aliases.borrow_mut().insert((peer, *flow), known);
            }
            Item::Message { flow, range } => match self.alias(peer, *flow) {
                Some(flow) => self.turn(Input::Message {
                    flow,
                    bytes: parcel.slice(range),
                    waited: Duration::ZERO,
                }),
                None => self.net.tally.count(|stats| stats.forward_drops += 1),
            },
            Item::Datagram { ends, range } => self.handle_datagram(**ends, parcel.slice(range)),
            Item::Undelivered(Undelivered { peer, error }) => {
                self.turn(Input::Undelivered { peer: *peer, error: *error });
            }
            Item::Send { flow, range } => self.send(*flow, parcel.slice(range)),
            Item::Close { flow } => {
                let place = self.places.borrow_mut().remove(*flow);
                if let Some(Place::Here(here)) = place {
                    here.close(&self.net, self.now());
                    self.mesh.gone(&here, FlowError::Local);
                    // Our own endpoint did not close it.
                    self.turn(Input::FlowFailed { flow: *flow, error: FlowError::Local });
                }
            }
            Item::Gone { flow, error } => {
                let known = self.mesh.aliases.borrow_mut().remove(&(peer, *flow));
                if let Some(Known { alias: Alias::Open(flow), .. }) = known {
                    self.places.borrow_mut().remove(flow);
                    self.turn(Input::FlowFailed { flow, error: *error });
                }
            }
            Item::Alias { flow, target } => {
                if let Some(flow) = self.alias(peer, *flow) {
                    self.turn(Input::Alias { flow, target: *target });
                }
            }
            Item::Found { flow, target } => {
                if let Some(Place::Here(here)) = self.places.borrow().get(*flow) {
                    self.mesh.share(here, *target, peer);
                }
                self.turn(Input::Alias { flow: *flow, target: *target });
            }
            Item::Crowded => self.let_go(peer),
            Item::Release { flow, messages } => {
                if let Some(Place::Here(flow)) = self.places.borrow().get(*flow) {
                    self.mesh.released(peer, flow, *messages);
                }
            }
            Item::Released { flow } => {
                self.mesh.aliases.borrow_mut().remove(&(peer, *flow));
            }
        }
    }

    /// The local name of another shard's flow, given when something of it comes first.
    fn alias(self: &Rc<Self>, peer: ShardId, flow: FlowId) -> Option<FlowId> {
        let (ends, devices) = {
            let mut aliases = self.mesh.aliases.borrow_mut();
            let known = aliases.get_mut(&(peer, flow))?;
            known.messages = known.messages.wrapping_add(1);
            match known.alias {
                Alias::Open(id) => return Some(id),
                Alias::Closed => return None,
                Alias::Absent => (*known.ends, known.devices.clone()),
            }
        };
        let Some(id) = self.take(ends) else {
            // It must not be kept open for us.
            self.mesh.release(peer, flow);
            return None;
        };
        self.places.borrow_mut().insert(id, Place::Remote { shard: peer, flow });
        if let Some(known) = self.mesh.aliases.borrow_mut().get_mut(&(peer, flow)) {
            known.alias = Alias::Open(id);
        }
        if !devices.is_empty() {
            self.turn(Input::Certified { flow: id, devices: &devices });
        }
        Some(id)
    }

    /// A message for another shard's flow found too much in the way: the flow is over.
    pub(super) fn fail_remote(&self, id: FlowId, shard: ShardId, flow: FlowId) {
        self.places.borrow_mut().remove(id);
        self.mesh.close(shard, flow);
        let error = FlowError::OutboxFull;
        self.after.borrow_mut().push_back(After::Failed { flow: id, error });
    }
}
