//! Events on their way to the control plane: a queue with room for so many, and a count of those
//! that found none. A shard never waits for whoever listens.

use std::cell::Cell;
use std::time::SystemTime;

use tokio::sync::mpsc;

use crate::cti;

/// An event, and when it was by the calendar.
#[derive(Clone, Debug)]
pub struct Told {
    /// When the shard told it.
    pub at: SystemTime,
    /// What it told.
    pub event: cti::Event,
}

/// A shard's way to whoever listens.
#[derive(Debug, Default)]
pub(super) struct Feed {
    to: Option<mpsc::Sender<Told>>,
    told: Cell<u64>,
    lost: Cell<u64>,
}

/// What a shard has told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedStats {
    /// Events handed over.
    pub told: u64,
    /// Events that found the queue full.
    pub lost: u64,
}

impl Feed {
    pub(super) fn new(to: Option<mpsc::Sender<Told>>) -> Self {
        Self { to, ..Self::default() }
    }

    /// Hands an event over, or counts it: its number in the sequence is missing then.
    pub(super) fn tell(&self, event: &cti::Event) {
        let Some(to) = &self.to else { return };
        // The place first: a lost event costs no copy.
        match to.try_reserve() {
            Ok(place) => {
                place.send(Told { at: SystemTime::now(), event: event.clone() });
                self.told.set(self.told.get() + 1);
            }
            Err(_) => self.lost.set(self.lost.get() + 1),
        }
    }

    pub(super) fn stats(&self) -> FeedStats {
        FeedStats { told: self.told.get(), lost: self.lost.get() }
    }
}
