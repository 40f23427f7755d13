//! A shard: one thread on one core that runs one endpoint.
//!
//! ```text
//! turn:   now ─► Endpoint::handle(now, input, &mut actions) ─► apply: Connect, Send, Close
//! ```
//!
//! Every input is one turn, whatever it came from: a socket ([`net`](crate::net)), the timer
//! (`alarm`), another shard (`mesh`) or the control thread ([`Command`]). Turns never nest:
//! what a turn's own actions bring about is queued and handed in after it.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // The clock is read here.

mod alarm;
mod clock;
pub mod cores;
mod crowd;
mod datagrams;
mod feed;
mod mesh;
mod start;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::key::{FlowId, Key, ShardId};
use crate::net::{Flow, Host, Net, NetStats, Undelivered, tcp};
use crate::options::Options;
use crate::sip::counters::Counters;
use crate::sip::message::{FrameError, View};
use crate::sip::{Action, Actions, CloseReason, Endpoint, FlowError, Input, NewFlow, Stats};
use crate::target::{Target, Transport};
use crate::time::Instant;

use alarm::Alarm;
use clock::Clock;
use crowd::Crowd;
use feed::Feed;
pub use feed::{FeedStats, Told};
use mesh::Mesh;
pub use start::{Command, Handle, Plan, Report, SHARDS_MAX, Shards, StartError, start};

/// What a shard runs: the [`Endpoint`], or a stand-in that a test understands at a glance.
pub(crate) trait Protocol: Sized + 'static {
    fn accept(&mut self, now: Instant, flow: NewFlow) -> Option<FlowId>;
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Actions);
    fn next_timeout(&self) -> Option<Instant>;
    fn stats(&self) -> Stats;
    fn counters(&self) -> Counters;
    fn is_drained(&self) -> bool;
    /// The shard that a message belongs to, when it says so.
    fn home(&self, bytes: &[u8]) -> Option<ShardId>;
}

impl Protocol for Endpoint {
    fn accept(&mut self, now: Instant, flow: NewFlow) -> Option<FlowId> {
        Self::accept(self, now, flow)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Actions) {
        Self::handle(self, now, input, out);
    }

    fn next_timeout(&self) -> Option<Instant> {
        Self::next_timeout(self)
    }

    fn stats(&self) -> Stats {
        Self::stats(self)
    }

    fn counters(&self) -> Counters {
        Self::counters(self).clone()
    }

    fn is_drained(&self) -> bool {
        Self::is_drained(self)
    }

    fn home(&self, bytes: &[u8]) -> Option<ShardId> {
        Self::home(self, bytes)
    }
}

/// What a shard holds and has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Which shard.
    pub shard: ShardId,
    /// Its endpoint.
    pub endpoint: Stats,
    /// What its endpoint counted by kind.
    pub counters: Counters,
    /// Its sockets.
    pub net: NetStats,
    /// Flows of other shards that it has seen messages of.
    pub remote_flows: usize,
    /// What it told of its calls.
    pub events: FeedStats,
}

/// What a [`FlowId`] of this shard's endpoint stands for.
enum Place {
    /// A flow of this shard.
    Here(Rc<Flow>),
    /// A flow of another shard, whose messages come over the mesh.
    Remote { shard: ShardId, flow: FlowId },
    /// Datagrams to and from a peer.
    Datagrams { peer: SocketAddr },
}

/// One shard's state, shared by its tasks.
struct Shard<P> {
    id: ShardId,
    clock: Clock,
    protocol: RefCell<P>,
    actions: RefCell<Actions>,
    places: RefCell<Places>,
    /// What the actions of a turn brought about, for turns of its own.
    after: RefCell<VecDeque<After>>,
    net: Net,
    mesh: Mesh,
    alarm: Alarm,
    feed: Feed,
    crowd: Crowd,
    /// True from `Drain` until the endpoint was found drained and that was reported.
    draining: Cell<bool>,
    reports: start::Reports,
}

/// Something to hand in after the turn.
enum After {
    Failed { flow: FlowId, error: FlowError },
    Undelivered(Undelivered),
}

impl<P: Protocol> Shard<P> {
    /// One input, and what its actions bring about.
    fn turn(self: &Rc<Self>, input: Input<'_>) {
        self.handle(input);
        self.follow_up();
    }

    /// Hands in what was brought about, and sets the alarm anew.
    fn follow_up(self: &Rc<Self>) {
        loop {
            let after = self.after.borrow_mut().pop_front();
            match after {
                Some(After::Failed { flow, error }) => {
                    self.handle(Input::FlowFailed { flow, error });
                }
                Some(After::Undelivered(Undelivered { peer, error })) => {
                    self.handle(Input::Undelivered { peer, error });
                }
                None => break,
            }
        }
        self.rearm();
        if self.draining.get() && self.protocol.borrow().is_drained() {
            self.draining.set(false);
            self.reports.drained(self.id);
        }
    }

    fn handle(self: &Rc<Self>, input: Input<'_>) {
        let now = self.clock.now();
        let mut actions = self.actions.borrow_mut();
        self.protocol.borrow_mut().handle(now, input, &mut actions);
        for action in actions.iter() {
            match action {
                Action::Connect { flow, target, timeout } => match target.transport {
                    Transport::Tcp | Transport::Tls => tcp::connect(self, flow, target, timeout),
                    Transport::Udp => {
                        let place = Place::Datagrams { peer: target.address };
                        self.places.borrow_mut().insert(flow, place);
                    }
                },
                Action::Send { flow, bytes } => self.send(flow, bytes),
                Action::Close { flow, reason } => self.close(now, flow, reason),
                Action::Alias { flow, target } => self.on_alias(flow, target),
                Action::Emit(event) => self.feed.tell(event),
            }
        }
        actions.clear();
    }

    fn home(&self, bytes: &[u8]) -> Option<ShardId> {
        self.protocol.borrow().home(bytes)
    }

    fn send(&self, flow: FlowId, bytes: &[u8]) {
        let places = self.places.borrow();
        let (shard, remote) = match places.get(flow) {
            Some(Place::Here(flow)) => return flow.send(&self.net, bytes),
            Some(Place::Remote { shard, flow }) => (*shard, *flow),
            Some(&Place::Datagrams { peer }) => {
                drop(places);
                return self.send_datagram(flow, peer, bytes);
            }
            None => return,
        };
        drop(places);
        if !self.mesh.send(shard, remote, bytes) {
            self.fail_remote(flow, shard, remote);
        }
    }

    fn close(&self, now: Instant, id: FlowId, reason: CloseReason) {
        let place = self.places.borrow_mut().remove(id);
        match place {
            Some(Place::Here(flow)) => {
                tracing::debug!(shard = self.id.0, peer = %flow.peer(), ?reason, "flow closed");
                match reason {
                    CloseReason::Crowded => self.net.give_up(&flow, now),
                    _ => flow.close(&self.net, now),
                }
                self.mesh.gone(&flow, FlowError::Local);
            }
            Some(Place::Remote { shard, flow }) => match reason {
                CloseReason::Crowded => self.mesh.release(shard, flow),
                _ => self.mesh.close(shard, flow),
            },
            Some(Place::Datagrams { .. }) | None => {}
        }
    }

    /// A flow is the way to a target: its origin tells all others.
    fn on_alias(&self, id: FlowId, target: Target) {
        match self.places.borrow().get(id) {
            Some(Place::Here(flow)) => self.mesh.share(flow, target, self.id),
            Some(&Place::Remote { shard, flow }) => self.mesh.tell_alias(shard, flow, target),
            Some(Place::Datagrams { .. }) | None => {}
        }
    }

    /// When [`on_due`](Self::on_due) has something to do.
    fn next_due(&self) -> Option<Instant> {
        [self.protocol.borrow().next_timeout(), self.net.next_deadline(), self.net.tally.due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does one bounded part of what is due.
    fn on_due(self: &Rc<Self>, now: Instant) {
        self.net.tally.summarize(now, self.id.0);
        self.net.expire(now);
        if self.protocol.borrow().next_timeout().is_some_and(|due| due <= now) {
            self.turn(Input::Timeout);
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            shard: self.id,
            endpoint: self.protocol.borrow().stats(),
            counters: self.protocol.borrow().counters(),
            net: self.net.stats(),
            remote_flows: self.mesh.aliases(),
            events: self.feed.stats(),
        }
    }

    /// New options: the endpoint's and the sockets' at once.
    fn set_options(self: &Rc<Self>, options: Arc<Options>) {
        self.net.set_options(&options);
        self.turn(Input::Options(options));
    }

    fn drain(self: &Rc<Self>, patience: Duration) {
        self.draining.set(true);
        let deadline = self.clock.now() + patience;
        self.turn(Input::Drain { deadline });
    }
}

impl<P: Protocol> Host for Shard<P> {
    fn net(&self) -> &Net {
        &self.net
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn accept(self: &Rc<Self>, new: NewFlow) -> Option<FlowId> {
        self.take(new)
    }

    fn certified(self: &Rc<Self>, flow: &Flow) {
        let devices = flow.devices.borrow();
        self.turn(Input::Certified { flow: flow.id, devices: &devices });
    }

    fn make_room(self: &Rc<Self>) {
        self.close_idle();
    }

    fn attach(&self, flow: &Rc<Flow>) {
        self.places.borrow_mut().insert(flow.id, Place::Here(Rc::clone(flow)));
    }

    fn message(self: &Rc<Self>, flow: &Flow, message: View<'_>) {
        if self.mesh.has_others()
            && let Some(home) = self.home(message.bytes())
            && self.mesh.forward(home, flow, message.bytes())
        {
            self.net.tally.count(|stats| stats.forwarded += 1);
            return;
        }
        self.turn(Input::Framed { flow: flow.id, message, waited: self.net.waited.get() });
    }

    fn unframed(self: &Rc<Self>, flow: &Flow, bytes: &[u8], error: FrameError) {
        self.turn(Input::Unframed { flow: flow.id, bytes, error });
    }

    fn datagram(self: &Rc<Self>, ends: NewFlow, bytes: &[u8]) {
        self.on_datagram(ends, bytes);
    }

    fn undelivered(self: &Rc<Self>, undelivered: Undelivered) {
        self.note_undelivered(undelivered);
        self.follow_up();
    }

    fn opened(self: &Rc<Self>, flow: &Flow) {
        self.turn(Input::FlowOpened { flow: flow.id });
    }

    fn failed(self: &Rc<Self>, flow: &Flow, error: FlowError) {
        tracing::debug!(shard = self.id.0, peer = %flow.peer(), ?error, "flow failed");
        self.places.borrow_mut().remove(flow.id);
        self.mesh.gone(flow, error);
        self.net.tally.failed(self.clock.now(), error);
        self.turn(Input::FlowFailed { flow: flow.id, error });
    }

    fn poll_may_read(&self, flow: &Rc<Flow>) -> Poll<()> {
        self.mesh.poll_room(flow)
    }

    fn rearm(&self) {
        self.alarm.rearm(self.next_due());
    }
}

/// What each flow id stands for, by its position in the endpoint's slab.
#[derive(Default)]
struct Places {
    slots: Vec<Option<(FlowId, Place)>>,
    len: usize,
}

/// Slots that an empty table keeps.
const PLACES_RETAINED: usize = 1024;

impl Places {
    fn get(&self, id: FlowId) -> Option<&Place> {
        match self.slots.get(id.0.index as usize)? {
            Some((named, place)) if *named == id => Some(place),
            Some(_) | None => None,
        }
    }

    fn insert(&mut self, id: FlowId, place: Place) {
        let Key { index, generation: _ } = id.0;
        let index = index as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        if self.slots[index].replace((id, place)).is_none() {
            self.len += 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (FlowId, &Place)> {
        self.slots.iter().flatten().map(|(id, place)| (*id, place))
    }

    fn remove(&mut self, id: FlowId) -> Option<Place> {
        let slot = self.slots.get_mut(id.0.index as usize)?;
        let (_, place) = slot.take_if(|(named, _)| *named == id)?;
        self.len -= 1;
        if self.len == 0 && self.slots.capacity() > PLACES_RETAINED {
            self.slots = Vec::new();
        }
        Some(place)
    }
}
