//! The user agents of one worker, without sockets: bytes of a message and the time go in, bytes for
//! connections come out.
//!
//! ```text
//! start_call ─► caller's program ─► request ─► out        tick ─► timers ─► programs, retransmissions
//! on_message ─► response ─► the caller's or callee's request in progress ─► its program
//!            └► request  ─► a new callee and its program, or the agent beneath: ACK, re-INVITE, BYE, …
//! ```
//!
//! Which agent a message is for stands in it: the tags and the Call-ID that the generator gives are
//! names (see [`name`](crate::name)). What happens is noted in `notes.rs`, dangers in `danger.rs`.

mod agent;
mod client;
mod danger;
mod manner;
mod meeting;
mod notes;
mod program;
mod raw;
mod server;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub(crate) use agent::{Id, Side};
pub(crate) use manner::Manner;

use agent::{Agent, Agents, NONE, Phase};
use danger::Dangers;
use notes::Notes;
use timers::Timers;

use crate::message::{self, Message, Start};
use crate::name::Name;
use crate::net::{Closed, Handler, Outboxes, Place};
use crate::oracle::SeenCalls;
use crate::oracle::digest;
use crate::outcome::Recorder;
use crate::scenario::fields::{FieldFile, Order};
use crate::scenario::program::{Mixture, Scenario, Step};
use crate::text::Party;

/// RFC 3261 §17.1.1.1.
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// 64·T1 (timers B, F, H), and what the server's own window may add.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);
/// How long a call whose request was refused waits for the server to end it.
const RELEASE_GRACE: Duration = Duration::from_secs(1);
/// Reasons of failures that are kept as texts.
const REASONS_MAX: usize = 256;
/// Wakes that one tick sees to, so that the sockets have their turn.
const WAKES_MAX: u32 = 2048;

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its program ran to the end.
    Success,
    /// The server had no room for it and said so.
    Refused,
    /// A final response that its program did not expect.
    Status(u16),
    /// Ended by the server, unasked.
    Released,
    Failed(&'static str),
    /// The program's own reason.
    Other(Rc<str>),
}

/// Something that the engine wants of the sockets.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// At `at` the party loses its connections, opens one to the server and answers there.
    AnswerLate { at: Instant, side: Side, party: u32 },
}

/// What a closed loop keeps going, without waiting for a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refill {
    /// So many calls are under way.
    Begin(u64),
    /// So many standing calls are between meeting places.
    Pass(u64),
}

/// What does not change during a run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Names the run in Call-IDs, tags and branches.
    pub(crate) run: u32,
    /// Seeds what programs draw.
    pub(crate) seed: u64,
    pub(crate) address: SocketAddrV4,
    /// The same as a text.
    pub(crate) server: String,
    /// `UDP`, `TCP` or `TLS`.
    pub(crate) transport: &'static str,
    /// UDP: requests and 2xx are sent again until they are answered.
    pub(crate) datagrams: bool,
    /// The server's delay before it sends again; an attempt before that is a violation.
    pub(crate) delay: Duration,
    /// Of the series.
    pub(crate) interval: Duration,
}

/// All calls of a worker.
pub(crate) struct Engine {
    settings: Settings,
    programs: Rc<[Scenario]>,
    /// Shares of the programs, summed up: a draw below the n-th is program n.
    shares: Vec<u32>,
    callers: Vec<Rc<Party>>,
    callees: Vec<Rc<Party>>,
    callers_agents: Agents,
    callees_agents: Agents,
    /// The connection that each party sends its requests on; newest first wins.
    conns: [Vec<u32>; 2],
    manners: [Vec<Manner>; 2],
    /// Calls begun so far.
    begun: u64,
    /// Callees' INVITEs by digest of their branch, until they are acknowledged.
    invited: HashMap<u64, u32, foldhash::fast::FixedState>,
    /// Callees by digest of their Call-ID, where programs give tags of their own.
    by_call_id: HashMap<u64, u32, foldhash::fast::FixedState>,
    keeps_call_ids: bool,
    /// Nobody is called: the calls of the run are those that callees get from others.
    only_answers: bool,
    timers: Timers,
    random: ChaCha8Rng,
    pub(crate) out: Outboxes,
    pub(crate) wishes: Vec<Wish>,
    pub(crate) notes: Notes,
    dangers: Dangers,
    /// By callee; not begun anew with `notes`, as the server's events are not.
    seen_calls: Vec<SeenCalls>,
    refill: Option<Refill>,
    /// Callers that wait at each meeting place.
    meeting: Vec<VecDeque<(u32, u32)>>,
    /// How many those are.
    waiting_to_pass: u64,
    /// Callers whose program is through and whose dialog stands.
    held: u64,
    /// Messages for calls that are over.
    late: u64,
    retransmissions: u64,
    dynamic_id: u64,
    reasons: Vec<Rc<str>>,
    now: Instant,
    body: Vec<u8>,
    scratch: Vec<u8>,
}

/// What one end of a call does.
fn steps(scenario: &Scenario, side: Side) -> &[Step] {
    match side {
        Side::Caller => &scenario.caller,
        Side::Callee => &scenario.callee,
    }
}

/// The names of the response times that a mixture measures.
pub(crate) fn response_names(mixture: &Mixture) -> Vec<String> {
    let programs: Vec<Scenario> = mixture.parts.iter().map(|part| part.scenario.clone()).collect();
    notes::response_names(&programs)
}

impl Engine {
    /// `callers` and `callees` are the parties of this worker.
    pub(crate) fn new(
        settings: Settings,
        mixture: &Mixture,
        callers: Vec<Rc<Party>>,
        callees: Vec<Rc<Party>>,
        start: Instant,
    ) -> Self {
        let programs: Rc<[Scenario]> =
            mixture.parts.iter().map(|part| part.scenario.clone()).collect();
        let shares = mixture.parts.iter().scan(0, |sum, part| {
            *sum += part.weight;
            Some(*sum)
        });
        let notes = Notes::new(&programs, start, settings.interval, settings.delay);
        let seen_calls = vec![SeenCalls::default(); callees.len()];
        Self {
            shares: shares.collect(),
            only_answers: mixture.only_answers(),
            keeps_call_ids: programs.iter().any(|program| program.strict.callee),
            callers_agents: Agents::new(callers.len()),
            callees_agents: Agents::new(callees.len()),
            conns: [vec![NONE; callers.len()], vec![NONE; callees.len()]],
            manners: [vec![Manner::Well; callers.len()], vec![Manner::Well; callees.len()]],
            random: ChaCha8Rng::seed_from_u64(settings.seed),
            settings,
            programs,
            callers,
            callees,
            begun: 0,
            invited: HashMap::default(),
            by_call_id: HashMap::default(),
            timers: Timers::new(start),
            out: Outboxes::default(),
            wishes: Vec::new(),
            notes,
            dangers: Dangers::default(),
            seen_calls,
            refill: None,
            meeting: Vec::new(),
            waiting_to_pass: 0,
            held: 0,
            late: 0,
            retransmissions: 0,
            dynamic_id: 0,
            reasons: Vec::new(),
            now: start,
            body: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// A party is at another port from now on.
    pub(crate) fn listens_at(&mut self, side: Side, party: u32, port: u16) {
        let transport = self.settings.transport;
        let parties = match side {
            Side::Caller => &mut self.callers,
            Side::Callee => &mut self.callees,
        };
        if let Some(party) = parties.get_mut(party as usize) {
            Rc::make_mut(party).listens_at(port, transport);
        }
    }

    pub(crate) fn party_of(&self, id: Id) -> &Rc<Party> {
        let party = self[id].party as usize;
        match id.side {
            Side::Caller => &self.callers[party],
            Side::Callee => &self.callees[party],
        }
    }

    /// The number that an agent calls: another callee for each use of a caller's place.
    fn callee_of(&self, id: Id) -> usize {
        let agent = &self[id];
        match id.side {
            Side::Caller => (id.index as usize + agent.generation as usize) % self.callees.len(),
            Side::Callee => agent.party as usize,
        }
    }

    /// A reason that calls fail for, kept once.
    fn reason(&mut self, text: &str) -> Rc<str> {
        if let Some(known) = self.reasons.iter().find(|known| ***known == *text) {
            return Rc::clone(known);
        }
        let reason = Rc::from(text);
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(Rc::clone(&reason));
        }
        reason
    }

    fn name(&self, id: Id) -> Name {
        Name { index: id.index, generation: self[id].generation, run: self.settings.run }
    }

    /// The name of the call that an agent is in: its caller's.
    fn caller_name_of(&self, id: Id) -> Name {
        let agent = &self[id];
        match (id.side, agent.peer) {
            (Side::Callee, index) if index != NONE => {
                Name { index, generation: agent.peer_generation, run: self.settings.run }
            }
            _ => self.name(id),
        }
    }

    fn tag(&self, id: Id) -> Vec<u8> {
        // Room for the rest of a branch, which begins with it.
        let mut tag = Vec::with_capacity(48);
        tag.push(if id.side == Side::Caller { b'c' } else { b'd' });
        self.name(id).write(&mut tag);
        tag
    }

    fn agents(&self, side: Side) -> &Agents {
        match side {
            Side::Caller => &self.callers_agents,
            Side::Callee => &self.callees_agents,
        }
    }

    fn agents_mut(&mut self, side: Side) -> &mut Agents {
        match side {
            Side::Caller => &mut self.callers_agents,
            Side::Callee => &mut self.callees_agents,
        }
    }

    fn agent(&mut self, id: Id) -> &mut Agent {
        &mut self.agents_mut(id.side)[id.index]
    }

    /// The other end of a call, while it is there.
    fn peer_of(&self, id: Id) -> Option<Id> {
        let agent = &self[id];
        let side = id.side.other();
        self.agents(side).find(agent.peer, agent.peer_generation)?;
        Some(Id { side, index: agent.peer })
    }

    /// The connection that an agent's next message goes out on.
    fn conn_of(&self, id: Id) -> Option<u32> {
        let agent = &self[id];
        let own = Some(agent.conn).filter(|conn| *conn != NONE && self.out.is_open(*conn));
        let of_party = self.conns[id.side as usize].get(agent.party as usize).copied();
        own.or(of_party.filter(|conn| *conn != NONE))
    }

    fn random_below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.random.next_u32()) * u64::from(bound)) >> 32) as u32
    }

    /// Whose message this is: told by tag or Call-ID.
    fn owner(&self, place: Place, message: &Message<'_>) -> Option<Id> {
        let tag = match message.start {
            Start::Request(_) => message::parameter(message.to, b"tag"),
            Start::Response(_) => message::parameter(message.from, b"tag"),
        };
        let by_tag = tag.split_first().and_then(|(side, name)| {
            let side = match side {
                b'c' => Side::Caller,
                b'd' => Side::Callee,
                _ => return None,
            };
            self.named(side, name)
        });
        by_tag.or_else(|| match place.side {
            Side::Caller => self.named(Side::Caller, message.call_id),
            Side::Callee if self.keeps_call_ids => {
                let index = *self.by_call_id.get(&digest::long(message.call_id))?;
                Some(Id { side: Side::Callee, index })
            }
            Side::Callee => None,
        })
    }

    fn named(&self, side: Side, text: &[u8]) -> Option<Id> {
        let name = Name::read(text).filter(|name| name.run == self.settings.run)?;
        self.agents(side).find(name.index, name.generation)?;
        Some(Id { side, index: name.index })
    }

    /// Begins a call that was to begin at `intended`; false when there is no place for it.
    pub(crate) fn start_call(&mut self, intended: Instant, now: Instant) -> bool {
        self.now = now;
        let party = (self.begun % self.callers.len() as u64) as u32;
        let draw = self.random_below(self.shares.last().copied().unwrap_or(1));
        let program = self.shares.partition_point(|share| *share <= draw);
        self.begun += 1;
        let Some(index) = self.callers_agents.add(party, now) else {
            self.notes.no_place();
            return false;
        };
        let id = Id { side: Side::Caller, index };
        let conn = self.conns[0][party as usize];
        let agent = self.agent(id);
        agent.program = program as u16;
        (agent.due, agent.began, agent.conn) = (intended, intended, conn);
        self.draw_rows(id);
        self.notes.started(intended, now);
        self.advance(id, None, now);
        true
    }

    /// A call's number and its rows of the field files, where its program may ask for them.
    fn draw_rows(&mut self, id: Id) {
        let programs = Rc::clone(&self.programs);
        let program = &programs[usize::from(self[id].program)];
        if program.fields.is_empty() && !self.is_strict(id) {
            return;
        }
        let (number, party) = (self.begun, self[id].party);
        let row = |file: &FieldFile, random| match file.order {
            Order::User => file.row(party.into(), random),
            Order::Sequential | Order::Random => file.row(number - 1, random),
        };
        let rows = program.fields.iter().map(|file| row(file, self.random.next_u32())).collect();
        let kept = self.agent(id).kept();
        (kept.number, kept.rows) = (number, rows);
    }

    /// Sees to everything whose time has come; true when there is more.
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        self.now = now;
        self.top_up(now);
        for _ in 0..WAKES_MAX {
            let Some((id, stamp, due)) = self.timers.due(now) else { return false };
            let agents = self.agents(id.side);
            if agents.has(id.index) && agents[id.index].stamp == stamp {
                self.on_time(id, due, now);
            }
        }
        true
    }

    /// The instant of the next wake.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// An agent's wait ends at `at`, whatever it waited for before.
    fn wake_at(&mut self, id: Id, at: Instant) {
        self.agent(id).deadline = Some(at);
        self.arm(id);
    }

    /// Asks for the wake that comes first: the end of the wait, or the next retransmission.
    fn arm(&mut self, id: Id) {
        let agent = self.agent(id);
        let kept = agent.kept.as_ref();
        let resend = kept.and_then(|kept| kept.resends.iter().map(|resend| resend.at).min());
        let cancel = kept.and_then(|kept| kept.cancel_at).filter(|_| !agent.client.proceeding);
        agent.stamp = agent.stamp.wrapping_add(1);
        let stamp = agent.stamp;
        if let Some(at) = [agent.deadline, resend, cancel].into_iter().flatten().min() {
            self.timers.set(at, id, stamp);
        }
    }

    /// An agent is no more.
    fn forget(&mut self, id: Id) {
        if self[id].phase == Phase::Resting && id.side == Side::Caller {
            self.held -= 1;
        }
        self.note_gone(id);
        if id.side == Side::Callee {
            if self.keeps_call_ids {
                let call_id = digest::long(self[id].dialog.call_id());
                self.by_call_id.remove(&call_id);
            }
            let branch = self[id].branch;
            self.invited.remove(&branch);
        }
        self.leave_meeting(id);
        self.agents_mut(id.side).remove(id.index);
    }

    /// What becomes of this end is what becomes of the call.
    fn counts(&self, id: Id) -> bool {
        (id.side == Side::Callee) == self.only_answers
    }

    fn is_strict(&self, id: Id) -> bool {
        let strict = self.programs[usize::from(self[id].program)].strict;
        match id.side {
            Side::Caller => strict.caller,
            Side::Callee => strict.callee,
        }
    }

    /// An arrival was not begun.
    pub(crate) fn missed(&mut self, intended: Instant) {
        let at = self.notes.since(intended);
        self.notes.recorder.missed_slots(1, at);
    }

    /// The next arrival has been due for so many milliseconds.
    pub(crate) fn waiting(&mut self, millis: u64) {
        self.notes.recorder.backlog(millis);
    }

    /// Ends up to `count` calls whose program left them standing; how many are left.
    pub(crate) fn end_held(&mut self, count: usize, now: Instant) -> u64 {
        self.now = now;
        let resting = |(index, agent): (u32, &Agent)| {
            (agent.phase == Phase::Resting).then_some(Id { side: Side::Caller, index })
        };
        let some: Vec<Id> = self.callers_agents.iter().filter_map(resting).take(count).collect();
        for id in some {
            self.give_up(id, Outcome::Success, now);
        }
        self.held
    }

    /// Calls whose program runs or whose end is under way.
    pub(crate) fn in_flight(&self) -> u64 {
        self.callers_agents.len() as u64 - self.held
    }

    /// Callers that have a connection.
    pub(crate) fn callers_connected(&self) -> usize {
        self.conns[0].iter().filter(|conn| **conn != NONE).count()
    }

    /// The calls of the run are those of others.
    pub(crate) fn only_answers(&self) -> bool {
        self.only_answers
    }

    /// Calls that were begun.
    pub(crate) fn begun(&self) -> u64 {
        self.begun
    }

    /// What was noted so far is forgotten; instants count from `start`, CPU time from `used`.
    pub(crate) fn restart(&mut self, start: Instant, used: Duration) {
        let Settings { interval, delay, .. } = self.settings;
        self.notes = Notes::new(&self.programs, start, interval, delay);
        self.notes.recorder.count_cpu_from(used);
    }

    /// What was noted up to now; what follows is noted anew.
    pub(crate) fn end_measuring(&mut self) -> Recorder {
        let Settings { interval, delay, .. } = self.settings;
        let fresh = Notes::new(&self.programs, self.notes.start, interval, delay);
        std::mem::replace(&mut self.notes.recorder, fresh.recorder)
    }

    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    pub(crate) fn callees_left(&self) -> usize {
        self.callees_agents.len()
    }
}

impl std::ops::Index<Id> for Engine {
    type Output = Agent;

    fn index(&self, id: Id) -> &Agent {
        &self.agents(id.side)[id.index]
    }
}

impl Handler for Engine {
    fn on_open(&mut self, place: Place, now: Instant) {
        self.now = now;
        if let Some(conn) = self.conns[place.side as usize].get_mut(place.party as usize) {
            *conn = place.conn;
        }
        self.note_connect(place, now);
    }

    fn on_message(&mut self, place: Place, message: &Message<'_>, now: Instant) {
        self.now = now;
        let owner = self.owner(place, message);
        match (message.start, owner) {
            (_, Some(id)) if self.is_strict(id) => self.on_raw_message(id, place, message, now),
            (Start::Response(status), Some(id)) => {
                self.watch_message(id, message, now);
                self.on_response(id, place.conn, status, message, now);
            }
            (Start::Response(_), None) => self.late += 1,
            (Start::Request(method), Some(id)) => self.on_request(id, place, method, message, now),
            (Start::Request(method), None) => {
                self.on_foreign_request(place, method, message, now);
            }
        }
        self.top_up(now);
    }

    fn on_closed(&mut self, place: Place, _why: Closed, ended: Instant, now: Instant) {
        self.now = now;
        let conn = self.conns[place.side as usize].get_mut(place.party as usize);
        if let Some(conn) = conn.filter(|conn| **conn == place.conn) {
            *conn = NONE;
        }
        self.note_closed(place, ended);
    }

    fn out(&mut self) -> &mut Outboxes {
        &mut self.out
    }
}
