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
/// When there was too little to close, nothing more is looked for in this long.
const PAUSE: Duration = Duration::from_millis(100);
/// A look takes in every call. After one that took longer than this, ...
const BRIEF: Duration = Duration::from_millis(1);
/// ... nothing more is looked for in so many times as long, whoever comes.
const REST: u32 = 4;

/// When to look for idle connections again.
#[derive(Default)]
pub(super) struct Crowd {
    own: Looks,
    /// For those of other shards.
    others: Looks,
}

/// When to look again.
#[derive(Default)]
struct Looks {
    quiet_until: Cell<Option<Instant>>,
}

impl Looks {
    fn is_quiet(&self, now: Instant) -> bool {
        self.quiet_until.get().is_some_and(|until| now < until)
    }

    /// There was a look from `began` to `ended`.
    fn rest(&self, began: Instant, ended: Instant, least: Duration) {
        let took = ended.since(began);
        let rest = if took > BRIEF { took * REST } else { Duration::ZERO };
        self.quiet_until.set(Some(ended + rest.max(least)));
    }
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
        if self.crowd.own.is_quiet(now) {
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
        let too_little = closed < count;
        let least = if too_little { PAUSE } else { Duration::ZERO };
        self.crowd.own.rest(now, self.now(), least);
        if too_little && !held.is_empty() {
            self.mesh.ask_for_room();
        }
    }

    /// The table of `peer` is full: all of its flows that nothing here needs are let go. Several shards may know
    /// one flow, and it is free when the last has let it go. While this shard rests from the last look it does
    /// nothing: the peer will ask again.
    pub(super) fn let_go(self: &Rc<Self>, peer: ShardId) {
        let now = self.now();
        if self.crowd.others.is_quiet(now) {
            return;
        }
        let held = self
            .flows_where(|place| !matches!(place, Place::Remote { shard, .. } if *shard == peer));
        self.turn(Input::Crowded { held: &held, count: usize::MAX });
        self.crowd.others.rest(now, self.now(), Duration::ZERO);
    }

    fn flows_where(&self, which: impl Fn(&Place) -> bool) -> Vec<FlowId> {
        let places = self.places.borrow();
        places.iter().filter(|(_, place)| which(place)).map(|(id, _)| id).collect()
    }
}
