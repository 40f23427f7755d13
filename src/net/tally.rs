//! What happens to flows, counted: many equal failures are one line of the log.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use crate::sip::FlowError;
use crate::sip::counters::Histogram;
use crate::time::Instant;

/// Failures of this long are summed up in one line.
const SUMMARY: Duration = Duration::from_secs(1);

/// What the sockets of a shard hold and have counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetStats {
    /// Connections with a task: opening, open, or being closed.
    pub tasks: usize,
    /// Bytes queued in all outboxes.
    pub outbox_bytes: usize,
    /// Reads that brought bytes.
    pub reads: u64,
    /// How long what was read may have waited in the sockets of connections, at most.
    pub queueing: Histogram,
    /// Writes that took bytes.
    pub writes: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed at once, and datagrams dropped, because the table of flows is full.
    pub refused: u64,
    /// Connections closed at once because their address has `flows-per-source-max`.
    pub refused_source: u64,
    /// Connections closed at once because `tls-handshakes-max` are under way.
    pub refused_handshake: u64,
    /// Times that a flow was not read for a while because more than `messages-per-second-max` came.
    pub held_back: u64,
    /// Idle connections closed because the table of flows was full.
    pub crowded: u64,
    /// TLS handshakes that failed, of peers and of ours.
    pub handshakes_failed: u64,
    /// Connections of load balancers closed because their PROXY header was bad, cut short or late.
    pub headers_refused: u64,
    /// Connections opened by us.
    pub connected: u64,
    /// Times that `accept` failed for want of descriptors or memory.
    pub accept_errors: u64,
    /// Flows that failed, by reason: see [`REASONS`].
    pub failed: [u64; REASONS.len()],
    /// Messages handed to the shard that is their home.
    pub forwarded: u64,
    /// Messages dropped on the way to their home: its table of flows was full, or for datagrams the
    /// way was.
    pub forward_drops: u64,
}

/// The order of [`NetStats::failed`], as it is logged.
pub const REASONS: [&str; 10] = [
    "refused",
    "unreachable",
    "connect_timeout",
    "reset",
    "closed",
    "outbox_full",
    "timeout",
    "local",
    "silent",
    "handshake",
];

fn reason(error: FlowError) -> usize {
    match error {
        FlowError::Refused => 0,
        FlowError::Unreachable => 1,
        FlowError::ConnectTimeout => 2,
        FlowError::Reset => 3,
        FlowError::Closed => 4,
        FlowError::OutboxFull => 5,
        FlowError::Timeout => 6,
        FlowError::Local => 7,
        FlowError::Silent => 8,
        FlowError::Handshake => 9,
    }
}

/// Counts, and what of them the log does not know yet.
#[derive(Default)]
pub(crate) struct Tally {
    stats: RefCell<NetStats>,
    logged: Cell<NetStats>,
    due: Cell<Option<Instant>>,
    /// When a failed handshake was logged last.
    handshake_told: Cell<Option<Instant>>,
    /// When a refused PROXY header was logged last.
    header_told: Cell<Option<Instant>>,
}

impl Tally {
    /// Counts something.
    pub(crate) fn count(&self, count: impl FnOnce(&mut NetStats)) {
        count(&mut self.stats.borrow_mut());
    }

    /// Counts a read of bytes that may have waited so long.
    pub(crate) fn waited(&self, waited: Duration) {
        self.stats.borrow_mut().queueing.count(waited);
    }

    /// Counts a failed flow; a line of the log sums it up within [`SUMMARY`]. A peer that closed
    /// its flow in order is no reason for a line.
    pub(crate) fn failed(&self, now: Instant, error: FlowError) {
        self.count(|stats| stats.failed[reason(error)] += 1);
        match error {
            FlowError::Closed | FlowError::Local => {}
            FlowError::Refused
            | FlowError::Unreachable
            | FlowError::ConnectTimeout
            | FlowError::Handshake
            | FlowError::Reset
            | FlowError::OutboxFull
            | FlowError::Timeout
            | FlowError::Silent => self.summarize_after(now),
        }
    }

    /// Counts a handshake that failed; its reason is logged, unless another one was a moment ago.
    pub(crate) fn handshake_failed(&self, now: Instant, peer: SocketAddr, error: &dyn Display) {
        self.count(|stats| stats.handshakes_failed += 1);
        if was_told(&self.handshake_told, now) {
            tracing::debug!(%peer, "TLS handshake failed: {error}");
            return;
        }
        let failed = self.stats().handshakes_failed;
        tracing::warn!(%peer, failed, "TLS handshake failed: {error}");
    }

    /// Counts a PROXY header that did not come or was bad; logged like a failed handshake.
    pub(crate) fn header_refused(&self, now: Instant, front: SocketAddr, error: &dyn Display) {
        self.count(|stats| stats.headers_refused += 1);
        if was_told(&self.header_told, now) {
            tracing::debug!(%front, "no good PROXY header: {error}");
            return;
        }
        let refused = self.stats().headers_refused;
        tracing::warn!(
            %front, refused, "no good PROXY header, see `proxy-protocol-from`: {error}"
        );
    }

    /// Counts one of what a limit did; a line of the log sums it up within [`SUMMARY`].
    pub(crate) fn limited(&self, now: Instant, of: impl FnOnce(&mut NetStats) -> &mut u64) {
        self.count(|stats| *of(stats) += 1);
        self.summarize_after(now);
    }

    /// Everything so far.
    pub(crate) fn stats(&self) -> NetStats {
        *self.stats.borrow()
    }

    /// When to call [`summarize`](Self::summarize).
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.get()
    }

    /// Writes the line if it is due.
    pub(crate) fn summarize(&self, now: Instant, shard: u16) {
        if self.due.get().is_none_or(|due| due > now) {
            return;
        }
        self.due.set(None);
        let stats = self.stats();
        let before = self.logged.replace(stats);
        let mut counts = String::new();
        for (index, name) in REASONS.iter().enumerate() {
            let count = stats.failed[index] - before.failed[index];
            if count > 0 {
                counts.push_str(&format!(" {name}={count}"));
            }
        }
        let others = [
            ("no_room", stats.refused - before.refused),
            ("too_many_of_a_source", stats.refused_source - before.refused_source),
            ("too_many_handshakes", stats.refused_handshake - before.refused_handshake),
            ("held_back", stats.held_back - before.held_back),
            ("idle_closed_for_room", stats.crowded - before.crowded),
        ];
        for (name, count) in others.into_iter().filter(|(_, count)| *count > 0) {
            counts.push_str(&format!(" {name}={count}"));
        }
        tracing::info!(shard, "flows:{counts}");
    }

    fn summarize_after(&self, now: Instant) {
        if self.due.get().is_none() {
            self.due.set(Some(now + SUMMARY));
        }
    }
}

/// True when something like it was told a moment ago; else it is told now.
fn was_told(told: &Cell<Option<Instant>>, now: Instant) -> bool {
    if told.get().is_some_and(|told| now.since(told) < SUMMARY) {
        return true;
    }
    told.set(Some(now));
    false
}
