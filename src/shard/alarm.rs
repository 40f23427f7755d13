//! The one timer of a shard: a task that sleeps until the next thing is due.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use glommio::timer::Timer;

use super::{Protocol, Shard};
use crate::net::{Host, next_round};
use crate::time::Instant;

/// Until when the timer task sleeps, and how to wake it.
#[derive(Default)]
pub(super) struct Alarm {
    /// `None` while the task does not sleep: it will look by itself.
    sleeps_until: Cell<Option<Instant>>,
    waker: RefCell<Option<Waker>>,
}

/// The longest sleep of a shard. Nothing but a fault of the executor needs it: see `PREEMPT`.
const HEARTBEAT: Duration = Duration::from_secs(1);

impl Alarm {
    /// Something is due at `next`: wakes the task if it would sleep longer.
    pub(super) fn rearm(&self, next: Option<Instant>) {
        let (Some(next), Some(until)) = (next, self.sleeps_until.get()) else { return };
        if next < until {
            self.sleeps_until.set(None);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    /// Sleeps until `until`, or until something is due earlier.
    async fn sleep(&self, now: Instant, until: Instant) {
        let mut timer = pin!(Timer::new(until.since(now)));
        self.sleeps_until.set(Some(until));
        poll_fn(|cx| {
            if self.sleeps_until.get().is_none() || timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        self.sleeps_until.set(None);
    }
}

/// Hands in what is due, one bounded turn at a time, and serves the sockets in between.
pub(super) async fn run<P: Protocol>(shard: Rc<Shard<P>>) {
    loop {
        let now = shard.now();
        shard.net.rounds.look(|| now);
        match shard.next_due() {
            Some(due) if due <= now => {
                shard.on_due(now);
                next_round().await;
            }
            due => {
                let heartbeat = now + HEARTBEAT;
                shard.alarm.sleep(now, due.map_or(heartbeat, |due| due.min(heartbeat))).await;
            }
        }
    }
}
