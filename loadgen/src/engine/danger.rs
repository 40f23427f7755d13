//! Calls whose connection was struck: what was seen of them since, until they are safe or lost.
//!
//! A call is *in danger* from the instant just before the fault of the connection under one of its
//! ends, when a request of it was unanswered then. It is *safe* when the end that was struck reads the ACK of
//! the answer, or, for a request that needs none, when its sender reads the final response. A call that
//! had nothing outstanding is *exposed*: kept or lost, but on no recovery curve.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::agent::{Id, NONE, Side};
use super::{Engine, Outcome};
use crate::net::Place;

/// One end of a call whose connection was struck.
#[derive(Clone, Copy, Debug)]
pub(super) struct Danger {
    /// Which end was struck.
    struck: Side,
    party: u32,
    pub(super) fault_at: Instant,
    /// A request of the call was unanswered.
    pub(super) outstanding: bool,
    pub(super) first_attempt: Option<Instant>,
    pub(super) attempts: u32,
    pub(super) answered: Option<Instant>,
    pub(super) acked: Option<Instant>,
    /// The time after the fault at which the attempt that can succeed is due.
    due: Duration,
}

/// A call: its caller's place and use; a callee's, where nobody knows the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Call(Side, u32, u32);

/// When a party was struck last, and when it had a connection again.
#[derive(Clone, Copy, Debug)]
struct Struck {
    at: Instant,
    connected: Option<Instant>,
}

/// All that is in danger or was exposed.
#[derive(Debug, Default)]
pub(super) struct Dangers {
    calls: HashMap<Call, Danger, foldhash::fast::FixedState>,
    struck: [Vec<Option<Struck>>; 2],
    /// Counts for the run: re-INVITEs that callees read since the run asked.
    pub(super) reinvites_read: u64,
}

/// What became of a call whose connection was struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Kept,
    Lost,
    /// Ended by the server.
    Released,
    /// The run was over before it was seen.
    Unknown,
}

/// One struck call, when its fate is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StruckCall {
    pub(crate) fate: Fate,
    pub(crate) outstanding: bool,
    pub(crate) fault_at: Instant,
    /// The party's first connection, or its first message, after the fault.
    pub(crate) detected: Option<Instant>,
    pub(crate) first_attempt: Option<Instant>,
    pub(crate) attempts: u32,
    pub(crate) answered: Option<Instant>,
    pub(crate) acked: Option<Instant>,
    pub(crate) due: Duration,
    pub(crate) ended: Instant,
}

impl Engine {
    /// The connections of a party were struck at `at`, the instant just before, and it is `away` for
    /// so long.
    pub(crate) fn endanger(&mut self, side: Side, party: u32, at: Instant, away: Duration) {
        let struck = &mut self.dangers.struck[side as usize];
        if struck.len() <= party as usize {
            struck.resize(party as usize + 1, None);
        }
        struck[party as usize] = Some(Struck { at, connected: None });
        let (since, delay) = (self.notes.since(at), self.settings.delay);
        let attempts = away.as_micros().div_ceil(delay.as_micros().max(1)).max(1);
        let due = delay.saturating_mul(u32::try_from(attempts).unwrap_or(u32::MAX));
        for index in self.agents(side).of_party(party).to_vec() {
            let id = Id { side, index };
            self.agent(id).watch.lost(since, delay);
            let open = |id: Id| self[id].client.open && self[id].is_up();
            let outstanding = open(id) || self.peer_of(id).is_some_and(open);
            let fresh = Danger {
                struck: side,
                party,
                fault_at: at,
                outstanding,
                first_attempt: None,
                attempts: 0,
                answered: None,
                acked: None,
                due,
            };
            let call = self.call_of(id);
            let known = self.dangers.calls.get(&call).is_some_and(|danger| danger.outstanding);
            if outstanding && !known {
                self.notes.recorder.endangered(since);
            }
            let danger = self.dangers.calls.entry(call).or_insert(fresh);
            // Struck again while idle: this fault is the one that counts.
            if !danger.outstanding && outstanding {
                *danger = fresh;
            }
        }
    }

    fn call_of(&self, id: Id) -> Call {
        let agent = &self[id];
        match id.side {
            Side::Callee if agent.peer != NONE => {
                Call(Side::Caller, agent.peer, agent.peer_generation)
            }
            side => Call(side, id.index, agent.generation),
        }
    }

    fn danger_of(&mut self, id: Id) -> Option<&mut Danger> {
        if self.dangers.calls.is_empty() {
            return None;
        }
        let call = self.call_of(id);
        self.dangers.calls.get_mut(&call)
    }

    pub(super) fn danger_connect(&mut self, place: Place, now: Instant) {
        let struck = self.dangers.struck[place.side as usize].get_mut(place.party as usize);
        if let Some(Some(struck)) = struck {
            struck.connected.get_or_insert(now);
        }
    }

    /// A re-INVITE was read.
    pub(super) fn danger_attempt(&mut self, id: Id, now: Instant) {
        self.dangers.reinvites_read += 1;
        let unanswered = |danger: &&mut Danger| {
            danger.struck == id.side && danger.answered.is_none() && danger.acked.is_none()
        };
        if let Some(danger) = self.danger_of(id).filter(unanswered) {
            danger.first_attempt.get_or_insert(now);
            danger.attempts += 1;
        }
    }

    /// The request in progress has its final response at its sender.
    pub(super) fn danger_answered(&mut self, id: Id, status: u16, now: Instant) {
        if let Some(danger) = self.danger_of(id)
            && (200..300).contains(&status)
        {
            danger.answered.get_or_insert(now);
            if danger.struck == id.side {
                // The answer itself came over what was struck.
                danger.acked.get_or_insert(now);
            }
            self.settle_if_safe(id, now);
        }
    }

    /// The struck end read an ACK.
    pub(super) fn danger_acked(&mut self, id: Id, now: Instant) {
        if let Some(danger) = self.danger_of(id)
            && danger.struck == id.side
            && danger.attempts > 0
        {
            danger.acked.get_or_insert(now);
            self.settle_if_safe(id, now);
        }
    }

    /// The answer was read at one end and its ACK at the other.
    fn settle_if_safe(&mut self, id: Id, now: Instant) {
        let safe = |danger: &mut Danger| danger.answered.is_some() && danger.acked.is_some();
        if self.danger_of(id).is_some_and(safe) {
            let call = self.call_of(id);
            self.settle(call, Fate::Kept, now);
        }
    }

    /// A caller's call is over: what that means if it was struck.
    pub(super) fn danger_concluded(&mut self, caller: Id, outcome: &Outcome, now: Instant) {
        if self.dangers.calls.is_empty() {
            return;
        }
        let fate = match outcome {
            Outcome::Success => Fate::Kept,
            Outcome::Released => Fate::Released,
            Outcome::Refused | Outcome::Status(_) | Outcome::Failed(_) | Outcome::Other(_) => {
                Fate::Lost
            }
        };
        let call = self.call_of(caller);
        self.settle(call, fate, now);
    }

    /// What is still open when the run ends: safe calls are kept, the others unknown.
    pub(crate) fn settle_rest(&mut self, now: Instant) {
        let calls: Vec<(Call, Danger)> =
            self.dangers.calls.iter().map(|(call, danger)| (*call, *danger)).collect();
        for (call, danger) in calls {
            let fate = if danger.acked.is_some() { Fate::Kept } else { Fate::Unknown };
            self.settle(call, fate, now);
        }
    }

    fn settle(&mut self, call: Call, fate: Fate, now: Instant) {
        let Some(danger) = self.dangers.calls.remove(&call) else { return };
        let struck = &self.dangers.struck[danger.struck as usize];
        let struck = struck.get(danger.party as usize).copied().flatten();
        let connected = struck.filter(|s| s.at >= danger.fault_at).and_then(|s| s.connected);
        let detected = [connected, danger.first_attempt].into_iter().flatten().min();
        let Danger { fault_at, outstanding, first_attempt, attempts, answered, acked, due, .. } =
            danger;
        self.notes.struck(&StruckCall {
            fate,
            outstanding,
            fault_at,
            detected,
            first_attempt,
            attempts,
            answered,
            acked,
            due,
            ended: now,
        });
    }

    /// The call's connection was struck, and what became of it is open.
    pub(super) fn is_exposed(&self, id: Id) -> bool {
        !self.dangers.calls.is_empty() && self.dangers.calls.contains_key(&self.call_of(id))
    }

    /// Calls in danger now.
    #[cfg(test)]
    pub(crate) fn in_danger(&self) -> u64 {
        let open = |d: &&Danger| d.outstanding && d.acked.is_none();
        self.dangers.calls.values().filter(open).count() as u64
    }

    /// Re-INVITEs that were read so far.
    pub(crate) fn reinvites_read(&self) -> u64 {
        self.dangers.reinvites_read
    }
}
