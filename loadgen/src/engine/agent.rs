//! One end of a call, whichever it is, and the places that ends live in.

use std::time::{Duration, Instant};

use crate::name::Direction;
use crate::oracle;
use crate::outcome::Latency;
use crate::text::Dialog;

pub(crate) use crate::net::Side;

/// No connection, no peer.
pub(crate) const NONE: u32 = u32::MAX;
/// Messages of one end that are sent again at a time.
pub(crate) const RESENDS_MAX: usize = 4;
/// Loops that one program may nest.
pub(crate) const COUNTERS_MAX: usize = 4;
/// Ends of calls that one worker plays on each side.
pub(crate) const AGENTS_MAX: usize = 4 << 20;

/// Which end of which call of this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) side: Side,
    pub(crate) index: u32,
}

/// Where an end stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The place is free.
    Free,
    /// Its program runs.
    Running,
    /// Its program is through, its dialog stands and answers.
    Resting,
    /// Its program is through or given up; a BYE or CANCEL of it waits for its answer.
    Ending,
}

/// What makes a program go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    Nothing,
    /// The final response of the request in progress.
    Final,
    /// The ACK of its own 2xx or failure.
    Ack,
    Time,
    /// Until the run lets calls pass.
    Meet(u8),
    /// A message that the program names.
    Message,
    /// The server's BYE after this final response to a request inside the dialog.
    Release(u16),
    /// A request of the peer, by its bit.
    Came(u8),
    /// A connection to send the next request on, made anew; at most until then.
    Connection(Instant),
}

/// A client transaction of an agent; there is one at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) open: bool,
    pub(crate) is_invite: bool,
    pub(crate) cseq: u32,
    /// When it was to be sent, and when it was.
    pub(crate) intended: Instant,
    pub(crate) sent: Instant,
    /// A provisional response came.
    pub(crate) proceeding: bool,
    /// Under which name its response time is kept.
    pub(crate) latency: Option<Latency>,
}

/// What few agents have, and seldom.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// A request that is not answered yet, as it came.
    pub(crate) request: Vec<u8>,

    /// The last message that came, for programs that quote it.
    pub(crate) last: Vec<u8>,
    /// Messages that came before the program was ready for them.
    pub(crate) early: Vec<Vec<u8>>,
    /// Over datagrams: what is sent again, and when.
    pub(crate) resends: Vec<Resend>,
    /// Over datagrams: the last response, sent again when its request comes again.
    pub(crate) response: Vec<u8>,
    /// Starts of marks, by number.
    pub(crate) marks: Vec<Option<Instant>>,
    /// The INVITE in progress is taken back then.
    pub(crate) cancel_at: Option<Instant>,
    /// Number of the call in the worker, from 1, and its row in each field file.
    pub(crate) number: u64,
    pub(crate) rows: Vec<u32>,
    /// Raw programs: digests of what came last, and what `rrs` and `[peer_tag_param]` keep.
    pub(crate) seen: Vec<u64>,
    pub(crate) peer_tag: Vec<u8>,
    pub(crate) next_url: Vec<u8>,
    pub(crate) routes: Vec<u8>,
}

/// A message that is sent until something answers it (RFC 3261 §17.1.1.2, §17.1.2.2, §13.3.1.4).
#[derive(Debug)]
pub(crate) struct Resend {
    /// What ends it: the response to this request of ours, or the ACK of this 2xx of ours.
    pub(crate) of: Resent,
    pub(crate) bytes: Vec<u8>,
    pub(crate) at: Instant,
    pub(crate) interval: Duration,
    /// INVITE doubles without bound, everything else up to T2.
    pub(crate) capped: bool,
}

/// What a message that is sent again is, by its CSeq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resent {
    Request(u32),
    Response(u32),
}

/// One end of a call.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Uses of this place so far.
    pub(crate) generation: u32,
    pub(crate) phase: Phase,
    pub(crate) waiting: Waiting,
    pub(crate) program: u16,
    pub(crate) pc: u16,
    pub(crate) party: u32,
    /// The connection that its last message came on, or its party's.
    pub(crate) conn: u32,
    /// The other end of the call and its generation.
    pub(crate) peer: u32,
    pub(crate) peer_generation: u32,
    /// The last CSeq it used.
    pub(crate) cseq: u32,
    /// The last CSeq it was sent.
    pub(crate) remote_cseq: u32,
    /// CSeq of its last INVITE, whose 2xx is acknowledged however often it comes.
    pub(crate) invite_cseq: u32,
    /// Descriptions it offered or answered so far.
    pub(crate) version: u32,
    /// Digest of the branch of the request that made the call; 0: none, or acknowledged.
    pub(crate) branch: u64,
    /// Counts the wakes it asked for; an older one is void.
    pub(crate) stamp: u32,
    /// Its place in the list of its party.
    pub(crate) listed: u32,
    pub(crate) counters: [u32; COUNTERS_MAX],
    /// Requests of the peer since the program last waited for them, a bit for each method.
    pub(crate) came: u8,
    /// The direction of its last description.
    pub(crate) direction: Direction,
    /// What became of the call is written down.
    pub(crate) concluded: bool,
    /// It sent the BYE.
    pub(crate) hung_up: bool,
    /// The request that made the call has its final response.
    pub(crate) answered: bool,
    /// A wait of the program ends then.
    pub(crate) deadline: Option<Instant>,
    /// The instant at which what it does now was to be done.
    pub(crate) due: Instant,
    pub(crate) began: Instant,
    pub(crate) client: Client,
    pub(crate) dialog: Dialog,
    pub(crate) watch: oracle::Dialog,
    pub(crate) kept: Option<Box<Kept>>,
}

impl Agent {
    fn free(now: Instant) -> Self {
        let client = Client {
            open: false,
            is_invite: false,
            cseq: 0,
            intended: now,
            sent: now,
            proceeding: false,
            latency: None,
        };
        Self {
            generation: 0,
            phase: Phase::Free,
            waiting: Waiting::Nothing,
            program: 0,
            pc: 0,
            party: 0,
            conn: NONE,
            peer: NONE,
            peer_generation: 0,
            cseq: 0,
            remote_cseq: 0,
            invite_cseq: 0,
            version: 0,
            branch: 0,
            stamp: 0,
            listed: 0,
            counters: [0; COUNTERS_MAX],
            came: 0,
            direction: Direction::Both,
            concluded: false,
            hung_up: false,
            answered: false,
            deadline: None,
            due: now,
            began: now,
            client,
            dialog: Dialog::default(),
            watch: oracle::Dialog::default(),
            kept: None,
        }
    }

    pub(crate) fn kept(&mut self) -> &mut Kept {
        self.kept.get_or_insert_default()
    }

    /// A message need not be sent again.
    pub(crate) fn answered(&mut self, of: Resent) {
        if let Some(kept) = self.kept.as_mut() {
            kept.resends.retain(|resend| resend.of != of);
        }
    }

    /// A dialog stands.
    pub(crate) fn is_up(&self) -> bool {
        !self.dialog.is_empty()
    }
}

/// The ends of one side; a place that came free is used again, under the next generation.
#[derive(Debug)]
pub(crate) struct Agents {
    places: Vec<Agent>,
    free: Vec<u32>,
    /// Indices of the agents of each party.
    by_party: Vec<Vec<u32>>,
}

impl Agents {
    pub(crate) fn new(parties: usize) -> Self {
        Self { places: Vec::new(), free: Vec::new(), by_party: vec![Vec::new(); parties] }
    }

    /// A new agent of a party; `None` when there is no place.
    pub(crate) fn add(&mut self, party: u32, now: Instant) -> Option<u32> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.places.len() >= AGENTS_MAX => return None,
            None => {
                self.places.push(Agent::free(now));
                self.places.len() as u32 - 1
            }
        };
        let list = &mut self.by_party[party as usize];
        let old = &self.places[index as usize];
        let (generation, stamp) = (old.generation.wrapping_add(1), old.stamp.wrapping_add(1));
        let fresh = Agent {
            generation,
            stamp,
            party,
            phase: Phase::Running,
            listed: list.len() as u32,
            ..Agent::free(now)
        };
        self.places[index as usize] = fresh;
        list.push(index);
        Some(index)
    }

    /// Frees a place.
    pub(crate) fn remove(&mut self, index: u32) {
        let agent = &mut self.places[index as usize];
        if agent.phase == Phase::Free {
            return;
        }
        let (party, listed) = (agent.party as usize, agent.listed as usize);
        agent.phase = Phase::Free;
        agent.waiting = Waiting::Nothing;
        agent.stamp = agent.stamp.wrapping_add(1);
        agent.dialog = Dialog::default();
        agent.kept = None;
        self.by_party[party].swap_remove(listed);
        if let Some(moved) = self.by_party[party].get(listed) {
            self.places[*moved as usize].listed = listed as u32;
        }
        self.free.push(index);
    }

    /// The agent at a place in its `generation`-th use.
    pub(crate) fn find(&self, index: u32, generation: u32) -> Option<&Agent> {
        let agent = self.places.get(index as usize)?;
        (agent.generation == generation && agent.phase != Phase::Free).then_some(agent)
    }

    /// Somebody is at the place.
    pub(crate) fn has(&self, index: u32) -> bool {
        self.places.get(index as usize).is_some_and(|agent| agent.phase != Phase::Free)
    }

    pub(crate) fn of_party(&self, party: u32) -> &[u32] {
        self.by_party.get(party as usize).map_or(&[], Vec::as_slice)
    }

    /// Agents that are there.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Every agent that is there, with its index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Agent)> {
        let there = |(_, agent): &(usize, &Agent)| agent.phase != Phase::Free;
        self.places.iter().enumerate().filter(there).map(|(index, agent)| (index as u32, agent))
    }
}

impl std::ops::Index<u32> for Agents {
    type Output = Agent;

    fn index(&self, index: u32) -> &Agent {
        &self.places[index as usize]
    }
}

impl std::ops::IndexMut<u32> for Agents {
    fn index_mut(&mut self, index: u32) -> &mut Agent {
        &mut self.places[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_under_another_generation() {
        #[allow(clippy::disallowed_methods, reason = "any instant does")]
        let now = Instant::now();
        let mut agents = Agents::new(2);
        let (a, b, c) = (agents.add(0, now), agents.add(0, now), agents.add(1, now));
        let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
        let generation = agents[a].generation;
        agents.remove(a);
        agents.remove(a);
        assert_eq!((agents.of_party(0), agents.of_party(1)), (&[b][..], &[c][..]));
        assert_eq!((agents.len(), agents[b].listed), (2, 0));
        assert!(agents.find(a, generation).is_none());
        assert_eq!(agents.add(1, now), Some(a));
        assert!(agents.find(a, generation + 1).is_some());
    }
}
