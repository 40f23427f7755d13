//! The network: streams with latency and jitter, connections that open, are refused, time out, die.
//!
//! ```text
//!            Syn          Opened
//! opener ──────────► acceptor ──────► opener        Opening ─► Open
//!     bytes, in order inside a direction, cut and joined at random
//! kill(Cut) : what is in flight is lost, halved or delivered; each end is told at its own time
//! ```

use std::net::SocketAddr;

use holdfast::key::FlowId;
use holdfast::sip::FlowError;

use crate::peer::{MS, SEC};
use crate::rng::Rng;
use crate::shards::Place;
use crate::world::{Event, Schedule};

/// Position of a link in the network.
pub(crate) type LinkId = usize;

/// Who is at an end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Shard { at: Place, flow: FlowId },
    Peer { peer: usize, conn: usize },
    Nobody,
}

/// What becomes of bytes that are under way to an end when the link dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flight {
    Lost,
    Half,
    Delivered,
}

/// How a link dies: for each end, what still reaches it and when it is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) flight: [Flight; 2],
    pub(crate) told_after: [u64; 2],
    pub(crate) error: FlowError,
    /// Nothing answers any more: writing brings no RST.
    pub(crate) silent: bool,
}

impl Cut {
    /// Both ends see a reset now, and nothing in flight arrives.
    pub(crate) const RESET: Self = Self {
        flight: [Flight::Lost; 2],
        told_after: [0; 2],
        error: FlowError::Reset,
        silent: false,
    };
}

/// How a listening address behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    Up,
    Refusing,
    /// Packets to it vanish.
    Silent,
    Unreachable,
    /// Connections open, and no handshake succeeds.
    Unfriendly,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// Opener and acceptor.
    pub(crate) owners: [Owner; 2],
    pub(crate) addrs: [SocketAddr; 2],
    pub(crate) open: bool,
    pub(crate) dead: Option<Cut>,
    /// The end knows that it is over, or closed it itself.
    pub(crate) told: [bool; 2],
    /// The end will hear that it is over, because of something it wrote.
    down_coming: [bool; 2],
    /// When the end wrote last.
    written_at: [Option<u64>; 2],
    latency: u64,
    last_arrival: [u64; 2],
    /// The last bytes on their way to each end.
    last_event: [u64; 2],
    /// What the opener wrote before it was open.
    unsent: Vec<u8>,
    pub(crate) opened_at: u64,
}

/// How fast and how orderly the network is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) latency: [u64; 2],
    pub(crate) jitter: u64,
    /// In 1000 writes, this many arrive in pieces, or together with the one before.
    pub(crate) splits: u64,
}

impl Weather {
    /// Everything arrives whole and at once.
    pub(crate) const PERFECT: Self = Self { latency: [0, 0], jitter: 0, splits: 0 };

    /// One of those that seeds meet.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        *rng.pick(&[
            Self::PERFECT,
            Self { latency: [100, 900], jitter: 0, splits: 0 },
            Self { latency: [MS, 20 * MS], jitter: 5 * MS, splits: 50 },
            Self { latency: [10 * MS, 150 * MS], jitter: 60 * MS, splits: 300 },
        ])
    }
}

/// All links there ever were.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) links: Vec<Link>,
    pub(crate) weather: Weather,
    pub(crate) rng: Rng,
}

impl Network {
    /// A network without links.
    pub(crate) fn new(weather: Weather, rng: Rng) -> Self {
        Self { links: Vec::new(), weather, rng }
    }

    /// Begins to open a link; who is behind `target` is asked when the first packet gets there.
    pub(crate) fn connect(
        &mut self,
        schedule: &mut Schedule,
        owner: Owner,
        from: SocketAddr,
        target: SocketAddr,
        timeout: u64,
    ) -> LinkId {
        let latency = self.rng.range(self.weather.latency[0], self.weather.latency[1]);
        let link = self.links.len();
        let port = 20_000 + (link % 40_000) as u16;
        self.links.push(Link {
            owners: [owner, Owner::Nobody],
            addrs: [SocketAddr::new(from.ip(), port), target],
            open: false,
            dead: None,
            told: [false; 2],
            down_coming: [false; 2],
            written_at: [None; 2],
            latency,
            last_arrival: [0; 2],
            last_event: [0; 2],
            unsent: Vec::new(),
            opened_at: 0,
        });
        let arrival = latency + self.rng.below(self.weather.jitter + 1);
        schedule.after(arrival, Event::Syn { link, deadline: schedule.now + timeout });
        link
    }

    /// The first packet was answered or not; tells the opener in its time.
    pub(crate) fn answer_syn(
        &mut self,
        schedule: &mut Schedule,
        link: LinkId,
        deadline: u64,
        listener: Listener,
    ) -> bool {
        let state = &mut self.links[link];
        let back = state.latency;
        let error = match listener {
            _ if state.dead.is_some() => FlowError::Refused,
            Listener::Up if schedule.now + back > deadline => FlowError::ConnectTimeout,
            Listener::Up => {
                state.last_arrival[0] = schedule.now + back;
                schedule.after(back, Event::Opened { link });
                return true;
            }
            Listener::Refusing => FlowError::Refused,
            Listener::Silent => FlowError::ConnectTimeout,
            Listener::Unreachable => FlowError::Unreachable,
            Listener::Unfriendly => FlowError::Handshake,
        };
        let at = match error {
            FlowError::ConnectTimeout => deadline,
            // A round trip, and one more.
            FlowError::Handshake => (schedule.now + 3 * back).min(deadline),
            _ => (schedule.now + back).min(deadline),
        };
        schedule.at(at, Event::Down { link, end: 0, error });
        false
    }

    /// The opener hears that the link is open; false when it died meanwhile.
    pub(crate) fn opened(&mut self, schedule: &mut Schedule, link: LinkId) -> bool {
        let state = &mut self.links[link];
        if state.told[0] {
            return false;
        }
        if let Some(cut) = state.dead {
            schedule.after(0, Event::Down { link, end: 0, error: cut.error });
            return false;
        }
        state.open = true;
        state.opened_at = schedule.now;
        let unsent = std::mem::take(&mut state.unsent);
        if !unsent.is_empty() {
            self.send(schedule, link, 0, &unsent);
        }
        true
    }

    /// What the opener wrote before the link was open, to be written again once it is.
    pub(crate) fn take_unsent(&mut self, link: LinkId) -> Vec<u8> {
        std::mem::take(&mut self.links[link].unsent)
    }

    /// Writes bytes at `end`.
    pub(crate) fn send(&mut self, schedule: &mut Schedule, link: LinkId, end: usize, bytes: &[u8]) {
        let state = &mut self.links[link];
        if state.told[end] {
            return;
        }
        if end == 0 && !state.open {
            return state.unsent.extend_from_slice(bytes);
        }
        if let Some(cut) = state.dead {
            if cut.silent {
                self.miss_acks(schedule, link, end);
            } else if !std::mem::replace(&mut state.down_coming[end], true) {
                let after = 2 * state.latency;
                schedule.after(after, Event::Down { link, end, error: FlowError::Reset });
            }
            return;
        }
        state.written_at[end] = Some(schedule.now);
        let mut rest = bytes;
        while !rest.is_empty() {
            let split = rest.len() > 1 && self.rng.chance(self.weather.splits);
            let len =
                if split { self.rng.range(1, rest.len() as u64) as usize } else { rest.len() };
            let delay = state.latency + self.rng.below(self.weather.jitter + 1);
            let at = (schedule.now + delay).max(state.last_arrival[1 - end]);
            let joined = at == state.last_arrival[1 - end] && self.rng.chance(self.weather.splits);
            state.last_arrival[1 - end] = at;
            match schedule.pending(state.last_event[1 - end]) {
                Some(Event::Arrive { bytes, .. }) if joined => {
                    bytes.extend_from_slice(&rest[..len])
                }
                Some(_) | None => {
                    let bytes = rest[..len].to_vec();
                    let serial = schedule.at(at, Event::Arrive { link, end: 1 - end, bytes });
                    state.last_event[1 - end] = serial;
                }
            }
            rest = &rest[len..];
        }
    }

    /// What the server writes is acknowledged no more: its kernel ends the connection in its time.
    fn miss_acks(&mut self, schedule: &mut Schedule, link: LinkId, end: usize) {
        let state = &mut self.links[link];
        let ours = matches!(state.owners[end], Owner::Shard { .. });
        if ours && !std::mem::replace(&mut state.down_coming[end], true) {
            schedule.after(USER_TIMEOUT, Event::Down { link, end, error: FlowError::Silent });
        }
    }

    /// What of the bytes really arrives at `end`.
    pub(crate) fn arrive(&mut self, link: LinkId, end: usize, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let state = &mut self.links[link];
        if state.told[end] {
            return None;
        }
        let Some(cut) = &mut state.dead else { return Some(bytes) };
        match cut.flight[end] {
            Flight::Lost => None,
            Flight::Delivered => Some(bytes),
            Flight::Half => {
                cut.flight[end] = Flight::Lost;
                let len = self.rng.below(bytes.len() as u64) as usize;
                (len > 0).then(|| bytes[..len].to_vec())
            }
        }
    }

    /// Cuts a link.
    pub(crate) fn kill(&mut self, schedule: &mut Schedule, link: LinkId, cut: Cut) {
        if self.links[link].dead.is_some() {
            return;
        }
        self.links[link].dead = Some(cut);
        for end in 0..2 {
            let state = &self.links[link];
            if state.told[end] || state.owners[end] == Owner::Nobody {
                continue;
            }
            let mut at = schedule.now + cut.told_after[end];
            if cut.flight[end] != Flight::Lost {
                at = at.max(state.last_arrival[end]);
            }
            schedule.at(at, Event::Down { link, end, error: cut.error });
            let round_trip = 2 * (state.latency + self.weather.jitter);
            let under_way = state.written_at[end].is_some_and(|at| at + round_trip >= schedule.now);
            if cut.silent && under_way {
                self.miss_acks(schedule, link, end);
            }
        }
    }

    /// The owner of `end` closes the link after what it wrote.
    pub(crate) fn close(&mut self, schedule: &mut Schedule, link: LinkId, end: usize) {
        let state = &mut self.links[link];
        if state.told[end] {
            return;
        }
        state.told[end] = true;
        if state.dead.is_some() {
            return;
        }
        let other = 1 - end;
        state.dead = Some(Cut {
            flight: [Flight::Delivered; 2],
            told_after: [0; 2],
            error: FlowError::Closed,
            silent: false,
        });
        let at = (schedule.now + state.latency).max(state.last_arrival[other]);
        schedule.at(at, Event::Down { link, end: other, error: FlowError::Closed });
    }

    /// Both ends believe in the link, and it is really there.
    pub(crate) fn is_healthy(&self, link: LinkId) -> bool {
        let state = &self.links[link];
        state.open && state.dead.is_none()
    }

    /// Links that carry bytes now.
    pub(crate) fn healthy(&self) -> impl Iterator<Item = LinkId> {
        (0..self.links.len()).filter(|link| self.is_healthy(*link))
    }

    /// A cut as chance makes it. `silence`: how long at most until an end is told that says nothing.
    pub(crate) fn draw_cut(rng: &mut Rng, silence: u64) -> Cut {
        const FLIGHTS: [Flight; 4] = [Flight::Lost, Flight::Lost, Flight::Half, Flight::Delivered];
        const ERRORS: [FlowError; 3] = [FlowError::Reset, FlowError::Reset, FlowError::Closed];
        let silent = silence > 0 && rng.chance(150);
        let told = |rng: &mut Rng| match rng.below(4) {
            _ if silent => rng.range(SILENCE_MIN, silence),
            0 | 1 => 0,
            2 => rng.below(40 * MS),
            _ => rng.below(2_000 * MS),
        };
        Cut {
            flight: [*rng.pick(&FLIGHTS), *rng.pick(&FLIGHTS)],
            told_after: [told(rng), told(rng)],
            error: if silent { FlowError::Silent } else { *rng.pick(&ERRORS) },
            silent,
        }
    }
}

/// `tcp-user-timeout`, as it is by default.
pub(crate) const USER_TIMEOUT: u64 = 3 * SEC;

/// What silence lasts at least until somebody notices.
const SILENCE_MIN: u64 = 500 * MS;
