//! The world: one queue of events, one clock, and who reacts to what.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;

use holdfast::options::Role;
use holdfast::sip::{FlowError, NewFlow};
use holdfast::target::Transport;

use crate::events::Checker;
use crate::log::{Keep, Log};
use crate::message::Stream;
use crate::network::{Cut, LinkId, Listener, Network, Owner, USER_TIMEOUT, Weather};
use crate::oracle::Oracle;
use crate::packets::Packets;
use crate::peer::{Ctx, Effect, Peer, PeerTimer, SEC};
use crate::proxy::{self, Proxied};
use crate::rng::Rng;
use crate::scenario::{self, Cue};
use crate::server::{Mesh, Nodes, Way};
use crate::shards::Place;
use crate::swarm::Director;
use crate::trap::{self, Trap};
use crate::truth::{Call, Truth};

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    Syn {
        link: LinkId,
        deadline: u64,
    },
    Opened {
        link: LinkId,
    },
    Arrive {
        link: LinkId,
        end: usize,
        bytes: Vec<u8>,
    },
    Down {
        link: LinkId,
        end: usize,
        error: FlowError,
    },
    ShardTimer {
        at: Place,
    },
    Mesh {
        at: Place,
        mesh: Mesh,
    },
    PeerTimer {
        peer: usize,
        timer: PeerTimer,
    },
    Cue(Cue),
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// An ICMP error about what was sent to an address.
    Icmp {
        to: SocketAddr,
        about: SocketAddr,
    },
}

/// What will happen, by time and then in the order it was decided.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// Microseconds since the beginning.
    pub(crate) now: u64,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    serial: u64,
}

impl Schedule {
    /// Lets `event` happen at `at`, or now if that is past.
    pub(crate) fn at(&mut self, at: u64, event: Event) -> u64 {
        self.serial += 1;
        self.heap.push(Reverse((at.max(self.now), self.serial)));
        self.events.insert(self.serial, event);
        self.serial
    }

    /// What will happen under a number that [`at`](Self::at) gave, if it has not.
    pub(crate) fn pending(&mut self, serial: u64) -> Option<&mut Event> {
        self.events.get_mut(&serial)
    }

    /// Lets `event` happen in `after` microseconds.
    pub(crate) fn after(&mut self, after: u64, event: Event) {
        self.at(self.now + after, event);
    }

    fn next(&mut self, until: u64) -> Option<Event> {
        let Reverse((at, serial)) = *self.heap.peek()?;
        if at > until {
            return None;
        }
        self.heap.pop();
        self.now = at;
        self.events.remove(&serial)
    }
}

/// Everything.
pub(crate) struct World {
    pub(crate) schedule: Schedule,
    pub(crate) net: Network,
    pub(crate) packets: Packets,
    pub(crate) nodes: Nodes,
    pub(crate) peers: Vec<Peer>,
    /// Listening addresses of peers and how they behave.
    pub(crate) listeners: BTreeMap<SocketAddr, (usize, Listener)>,
    streams: BTreeMap<(usize, usize), Stream>,
    links: BTreeMap<(usize, usize), LinkId>,
    pub(crate) truth: Truth,
    pub(crate) oracle: Oracle,
    pub(crate) proxied: Proxied,
    pub(crate) checker: Checker,
    pub(crate) log: Log,
    pub(crate) director: Director,
    /// The exact point at which a flow will die.
    pub(crate) trap: Option<Trap>,
    pub(crate) rng: Rng,
    peer_rng: Rng,
    effects: Vec<Effect>,
}

/// Connections of peers to the server give up after this.
const PEER_CONNECT_TIMEOUT: u64 = 4 * SEC;

/// A ping is due, and is not acknowledged: so long may silence go unnoticed while something waits.
pub(crate) const NOTICED: u64 = SEC + USER_TIMEOUT;

impl World {
    /// A world without server and peers.
    pub(crate) fn new(seed: u64, weather: Weather, keep: Keep) -> Self {
        let rng = Rng::new(seed);
        Self {
            schedule: Schedule::default(),
            net: Network::new(weather, rng.fork("network")),
            packets: Packets::default(),
            nodes: Nodes::default(),
            peers: Vec::new(),
            listeners: BTreeMap::new(),
            streams: BTreeMap::new(),
            links: BTreeMap::new(),
            truth: Truth::default(),
            oracle: Oracle::default(),
            proxied: Proxied::default(),
            checker: Checker::default(),
            log: Log::new(keep),
            director: Director::default(),
            trap: None,
            peer_rng: rng.fork("peers"),
            rng: rng.fork("world"),
            effects: Vec::new(),
        }
    }

    /// Microseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        self.schedule.now
    }

    /// Adds a peer that listens.
    pub(crate) fn add_peer(&mut self, peer: Peer) {
        self.listeners.insert(peer.addr, (peer.index, Listener::Up));
        self.peers.push(peer);
    }

    /// Books a call from one peer to another.
    pub(crate) fn book_call(&mut self, caller: usize, callee: usize, number: String) -> usize {
        self.truth.calls.push(Call {
            caller,
            callee,
            number,
            legs: [None; 2],
            call_ids: Default::default(),
            established: false,
            ended: None,
            may_release: None,
        });
        self.truth.calls.len() - 1
    }

    /// Handles events up to and including `until`; false when something failed.
    pub(crate) fn run_until(&mut self, until: u64) -> bool {
        while self.truth.failures.is_empty() {
            let Some(event) = self.schedule.next(until) else {
                self.schedule.now = until.max(self.schedule.now);
                return true;
            };
            self.dispatch(event);
        }
        false
    }

    /// Notes a failure.
    pub(crate) fn fail(&mut self, text: String) {
        self.log.line(self.schedule.now, format_args!("FAILURE {text}"));
        self.truth.failures.push(text);
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Syn { link, deadline } => self.on_syn(link, deadline),
            Event::Opened { link } => {
                let traps = self.trap.is_some();
                let unsent = if traps { self.net.take_unsent(link) } else { Vec::new() };
                let opened = self.net.opened(&mut self.schedule, link);
                // One message after the other: the trap may be set for any of them.
                let mut waiting = Stream::default();
                waiting.push(&unsent);
                while let Some(message) = waiting.next_message() {
                    self.write(link, self.net.links[link].owners[0], &message);
                }
                if opened && let Owner::Shard { at, flow } = self.net.links[link].owners[0] {
                    self.flow_opened(at, flow);
                }
            }
            Event::Arrive { link, end, bytes } => {
                if let Some(bytes) = self.net.arrive(link, end, bytes) {
                    self.on_bytes(link, end, &bytes);
                }
            }
            Event::Down { link, end, error } => self.on_down(link, end, error),
            Event::ShardTimer { at } => self.on_shard_timer(at),
            Event::Mesh { at, mesh } => self.on_mesh(at, mesh),
            Event::PeerTimer { peer, timer } => {
                self.with_peer(peer, |peer, ctx| peer.on_timer(ctx, timer));
            }
            Event::Cue(cue) => scenario::on_cue(self, cue),
            Event::Datagram { from, to, bytes } => self.on_datagram(from, to, &bytes),
            Event::Icmp { to, about } => self.on_icmp(to, about),
        }
    }

    /// Lets a peer react and carries out what it wants.
    pub(crate) fn with_peer<R>(
        &mut self,
        index: usize,
        react: impl FnOnce(&mut Peer, &mut Ctx<'_>) -> R,
    ) -> R {
        let mut effects = std::mem::take(&mut self.effects);
        let mut ctx = Ctx {
            now: self.schedule.now,
            rng: &mut self.peer_rng,
            truth: &mut self.truth,
            log: &mut self.log,
            effects: &mut effects,
        };
        let result = react(&mut self.peers[index], &mut ctx);
        for effect in effects.drain(..) {
            match effect {
                Effect::Connect { conn, target }
                    if self.peers[index].transport == Transport::Udp =>
                {
                    self.add_datagram_conn(index, conn, target);
                }
                Effect::Connect { conn, target } => {
                    let owner = Owner::Peer { peer: index, conn };
                    let from = self.peers[index].addr;
                    let link = self.net.connect(
                        &mut self.schedule,
                        owner,
                        from,
                        target,
                        PEER_CONNECT_TIMEOUT,
                    );
                    self.links.insert((index, conn), link);
                    self.log.line(
                        self.schedule.now,
                        format_args!(
                            "{} connects to {target}: link {link}",
                            self.peers[index].name
                        ),
                    );
                }
                Effect::Send { conn, bytes } => {
                    if let Some(remote) = self.datagram_remote(index, conn) {
                        self.send_datagram(self.peers[index].addr, remote, &bytes);
                    } else if let Some(&link) = self.links.get(&(index, conn)) {
                        self.write(link, Owner::Peer { peer: index, conn }, &bytes);
                    }
                }
                Effect::Timer { after, timer } => {
                    self.schedule.after(after, Event::PeerTimer { peer: index, timer });
                }
            }
        }
        self.effects = effects;
        result
    }

    /// Writes bytes at an end of a link, around which it may die.
    pub(crate) fn write(&mut self, link: LinkId, owner: Owner, bytes: &[u8]) {
        let end = usize::from(self.net.links[link].owners[0] != owner);
        if let Some(len) = trap::at_write(self, link, end, bytes) {
            self.net.send(&mut self.schedule, link, end, &bytes[..len]);
            return trap::fire(self, link);
        }
        let cut = scenario::fault_at_write(self, link, end, bytes);
        if let Some((cut, false)) = cut {
            self.kill(link, cut);
        }
        self.net.send(&mut self.schedule, link, end, bytes);
        if let Some((cut, true)) = cut {
            self.kill(link, cut);
        }
    }

    /// Cuts a link, and notes whose path was disturbed.
    pub(crate) fn kill(&mut self, link: LinkId, cut: Cut) {
        let owners = self.net.links[link].owners;
        self.log.line(
            self.schedule.now,
            format_args!("link {link} is cut: {:?} {:?}", cut.flight, cut.told_after),
        );
        for owner in owners {
            if let Owner::Peer { peer, .. } = owner {
                let told = cut.told_after[0].max(cut.told_after[1]);
                let told = if cut.silent { told.min(NOTICED) } else { told };
                let until = self.schedule.now + told;
                self.oracle.disturbed(peer, until);
            }
        }
        self.net.kill(&mut self.schedule, link, cut);
    }

    /// What a connection that a node accepted is made of; those of strangers are plain.
    pub(crate) fn transport_of(
        &self,
        role: Role,
        from: SocketAddr,
        local: SocketAddr,
    ) -> Transport {
        let peer = self.peers.iter().find(|peer| peer.addr.ip() == from.ip());
        match role {
            Role::Proxy => proxy::transport_at(local),
            Role::Server => match (peer, self.truth.path) {
                (Some(peer), _) => peer.transport,
                (None, Some(path)) => path.hop,
                (None, None) => Transport::Tcp,
            },
        }
    }

    fn on_syn(&mut self, link: LinkId, deadline: u64) {
        let target = self.net.links[link].addrs[1];
        let node = self.nodes.at(target);
        let listener = match self.listeners.get(&target) {
            _ if node.is_some() => Listener::Up,
            Some((_, listener)) => *listener,
            None => Listener::Refusing,
        };
        if !self.net.answer_syn(&mut self.schedule, link, deadline, listener) {
            return;
        }
        let from = self.net.links[link].addrs[0];
        let owner = if let Some(role) = node {
            let Some(server) = self.nodes.get_mut(role) else { return };
            let shard = server.rng.below(server.shards.len() as u64) as usize;
            let at = Place { role, shard };
            let transport = self.transport_of(role, from, target);
            let new = NewFlow { peer: from, local: target, transport };
            let Some(flow) = self.accept(at, new, Way::Link { link, end: 1 }) else {
                return self.net.close(&mut self.schedule, link, 1);
            };
            Owner::Shard { at, flow }
        } else {
            let peer = self.listeners[&target].0;
            let conn = self.peers[peer].on_accept(from);
            self.links.insert((peer, conn), link);
            Owner::Peer { peer, conn }
        };
        self.log.line(self.schedule.now, format_args!("link {link} from {from}: {owner:?}"));
        self.net.links[link].owners[1] = owner;
    }

    fn on_bytes(&mut self, link: LinkId, end: usize, bytes: &[u8]) {
        match self.net.links[link].owners[end] {
            Owner::Peer { peer, conn } => {
                self.streams.entry((peer, conn)).or_default().push(bytes);
                while let Some(message) =
                    self.streams.get_mut(&(peer, conn)).and_then(Stream::next_message)
                {
                    trap::at_read(self, link, Owner::Peer { peer, conn }, &message);
                    self.with_peer(peer, |peer, ctx| peer.on_message(ctx, conn, &message));
                }
            }
            Owner::Shard { at, flow } => self.read(at, flow, bytes),
            Owner::Nobody => {}
        }
    }

    fn on_down(&mut self, link: LinkId, end: usize, error: FlowError) {
        let state = &mut self.net.links[link];
        if std::mem::replace(&mut state.told[end], true) {
            return;
        }
        let owner = state.owners[end];
        self.log.line(self.schedule.now, format_args!("link {link}: {owner:?} sees {error:?}"));
        match owner {
            Owner::Peer { peer, conn } => self.with_peer(peer, |peer, ctx| peer.on_down(ctx, conn)),
            Owner::Shard { at, flow } => self.flow_failed(at, flow, error),
            Owner::Nobody => {}
        }
    }
}
