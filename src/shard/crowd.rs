//! A full table of flows: idle connections give place to new ones.
//!
//! ```text
//! origin (owns the socket)                            home (has calls of it, or had)
//! full: close what is idle and nobody else's ─Crowded─► are those of yours that I know idle?
//! not told there any more: it may be closed ◄─Release── this one, after so many messages
//! ```
//!
//! A message may be under way while its home lets the flow go, which is why both count them: the origin
//! believes a `Release` that knows of all it has sent.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::{Place, Protocol, Shard};
use crate::key::{FlowId, ShardId};
use crate::net::Host;
use crate::sip::{Input, NewFlow};
use crate::time::Instant;

/// One in so many connections is closed at once, so that not each new one has to look for room.
const PART: usize = 32;
/// When there was too little to close, nothing more is looked for in this long: a look takes in every call.
const PAUSE: Duration = Duration::from_millis(100);

/// When to look for idle connections again.
#[derive(Default)]
pub(super) struct Crowd {
    quiet_until: Cell<Option<Instant>>,
}

impl<P: Protocol> Shard<P> {
    /// Takes a flow. For a connection that finds the table full, idle ones are closed.
    pub(super) fn take(self: &Rc<Self>, new: NewFlow) -> Option<FlowId> {
        let taken = self.protocol.borrow_mut().accept(self.clock.now(), new);
        if taken.is_some() || new.transport.is_unreliable() {
            return taken;
        }
        self.close_idle();
        self.protocol.borrow_mut().accept(self.clock.now(), new)
    }

    /// Closes a part of the connections that are idle.
    pub(super) fn close_idle(self: &Rc<Self>) {
        let now = self.now();
        if self.crowd.quiet_until.get().is_some_and(|until| now < until) {
            return;
        }
        let held = self.flows_where(|place| match place {
            Place::Here(flow) => !flow.told.borrow().is_empty(),
            Place::Remote { .. } | Place::Datagrams { .. } => false,
        });
        let before = self.places.borrow().len;
        let count = (before / PART).max(1);
        self.turn(Input::Crowded { held: &held, count });
        let closed = before.saturating_sub(self.places.borrow().len);
        if closed < count {
            self.crowd.quiet_until.set(Some(now + PAUSE));
            if !held.is_empty() {
                self.mesh.ask_for_room();
            }
        }
    }

    /// The table of `peer` is full: all of its flows that nothing here needs are let go. Several shards may know
    /// one flow, and it is free when the last has let it go.
    pub(super) fn let_go(self: &Rc<Self>, peer: ShardId) {
        let held = self
            .flows_where(|place| !matches!(place, Place::Remote { shard, .. } if *shard == peer));
        self.turn(Input::Crowded { held: &held, count: usize::MAX });
    }

    fn flows_where(&self, which: impl Fn(&Place) -> bool) -> Vec<FlowId> {
        let places = self.places.borrow();
        places.iter().filter(|(_, place)| which(place)).map(|(id, _)| id).collect()
    }
}
