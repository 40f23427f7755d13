//! The world: one queue of events, one clock, and who reacts to what.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;

use holdfast::key::FlowId;
use holdfast::sip::message::{Frame, Framer, PING, home};
use holdfast::sip::{Action, FlowError, Input, NewFlow};
use holdfast::target::Transport;
use holdfast::time::Instant;

use crate::events::Checker;
use crate::log::{Keep, Log, digest};
use crate::message::{Msg, Stream};
use crate::network::{Cut, LinkId, Listener, Network, Owner, USER_TIMEOUT, Weather};
use crate::oracle::Oracle;
use crate::packets::Packets;
use crate::peer::{Ctx, Effect, MS, Peer, PeerTimer, SEC};
use crate::rng::Rng;
use crate::scenario::{self, Cue};
use crate::server::{Mesh, Read, Server, Way};
use crate::swarm::Director;
use crate::trap::{self, Trap};
use crate::truth::{Call, Truth};
use crate::vandal;

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
        shard: usize,
    },
    Mesh {
        shard: usize,
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
    pub(crate) server: Option<Server>,
    pub(crate) peers: Vec<Peer>,
    /// Listening addresses of peers and how they behave.
    pub(crate) listeners: BTreeMap<SocketAddr, (usize, Listener)>,
    streams: BTreeMap<(usize, usize), Stream>,
    links: BTreeMap<(usize, usize), LinkId>,
    pub(crate) truth: Truth,
    pub(crate) oracle: Oracle,
    pub(crate) checker: Checker,
    pub(crate) log: Log,
    pub(crate) director: Director,
    /// The exact point at which a flow will die.
    pub(crate) trap: Option<Trap>,
    pub(crate) rng: Rng,
    peer_rng: Rng,
    effects: Vec<Effect>,
}

/// `Timeout` inputs of one shard in one virtual millisecond above which it is said to spin.
const TIMEOUTS_PER_MS_MAX: u64 = 2_000;
/// Connections of peers to the server give up after this.
const PEER_CONNECT_TIMEOUT: u64 = 4 * SEC;

/// A ping is due, and is not acknowledged: so long may silence go unnoticed while something waits.
pub(crate) const NOTICED: u64 = SEC + USER_TIMEOUT;

/// What the connections of a peer are made of; those of strangers are plain.
fn transport_of(peers: &[Peer], addr: SocketAddr) -> Transport {
    let peer = peers.iter().find(|peer| peer.addr.ip() == addr.ip());
    peer.map_or(Transport::Tcp, |peer| peer.transport)
}

impl World {
    /// A world without server and peers.
    pub(crate) fn new(seed: u64, weather: Weather, keep: Keep) -> Self {
        let rng = Rng::new(seed);
        Self {
            schedule: Schedule::default(),
            net: Network::new(weather, rng.fork("network")),
            packets: Packets::default(),
            server: None,
            peers: Vec::new(),
            listeners: BTreeMap::new(),
            streams: BTreeMap::new(),
            links: BTreeMap::new(),
            truth: Truth::default(),
            oracle: Oracle::default(),
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
                if !unsent.is_empty() {
                    self.write(link, self.net.links[link].owners[0], &unsent);
                }
                if opened && let Owner::Shard { shard, flow } = self.net.links[link].owners[0] {
                    self.log.line(self.now(), format_args!("shard {shard} {flow:?} is open"));
                    self.oracle.on_opened(self.schedule.now, shard, flow);
                    self.input(shard, Input::FlowOpened { flow });
                }
            }
            Event::Arrive { link, end, bytes } => {
                if let Some(bytes) = self.net.arrive(link, end, bytes) {
                    self.on_bytes(link, end, &bytes);
                }
            }
            Event::Down { link, end, error } => self.on_down(link, end, error),
            Event::ShardTimer { shard } => self.on_shard_timer(shard),
            Event::Mesh { shard, mesh } => self.on_mesh(shard, mesh),
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

    fn write(&mut self, link: LinkId, owner: Owner, bytes: &[u8]) {
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

    fn on_syn(&mut self, link: LinkId, deadline: u64) {
        let target = self.net.links[link].addrs[1];
        let to_server = self.server.as_ref().is_some_and(|server| server.addr == target);
        let listener = match self.listeners.get(&target) {
            _ if to_server => Listener::Up,
            Some((_, listener)) => *listener,
            None => Listener::Refusing,
        };
        if !self.net.answer_syn(&mut self.schedule, link, deadline, listener) {
            return;
        }
        let from = self.net.links[link].addrs[0];
        let owner = if to_server {
            let Some(server) = &mut self.server else { return };
            let shard = server.rng.below(server.shards.len() as u64) as usize;
            let now = Instant::from_micros(self.schedule.now);
            let transport = transport_of(&self.peers, from);
            let new = NewFlow { peer: from, local: target, transport };
            let Some(flow) = server.shards[shard].endpoint.accept(now, new) else {
                return self.net.close(&mut self.schedule, link, 1);
            };
            server.shards[shard].ways.insert(flow, Way::Link { link, end: 1 });
            self.oracle.on_accept(shard, flow, from);
            Owner::Shard { shard, flow }
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
            Owner::Shard { shard, flow } => self.read(shard, flow, bytes),
            Owner::Nobody => {}
        }
    }

    fn read(&mut self, shard: usize, flow: FlowId, bytes: &[u8]) {
        let Some(server) = &mut self.server else { return };
        let bytes_max = server.options.limits.message_bytes_max;
        let framer = server.shards[shard].streams.entry(flow);
        let mut frames = Vec::new();
        framer.or_insert_with(|| Framer::new(bytes_max)).feed(bytes, |frame| {
            frames.push(match frame {
                Frame::Message(bytes) => Read::Message(bytes.to_vec()),
                Frame::Ping => Read::Ping,
                Frame::Unframed { bytes, error } => Read::Unframed(bytes.to_vec(), error),
            });
        });
        for frame in frames {
            match frame {
                Read::Message(message) => {
                    self.route(shard, flow, message.clone());
                    if let Some(&Way::Link { link, .. }) = self.way(shard, flow) {
                        trap::at_read(self, link, Owner::Shard { shard, flow }, &message);
                    }
                }
                Read::Ping => self.pong(shard, flow),
                Read::Unframed(bytes, error) => {
                    self.truth.cover("stream that cannot be framed");
                    self.input(shard, Input::Unframed { flow, bytes: &bytes, error });
                }
            }
        }
    }

    fn way(&self, shard: usize, flow: FlowId) -> Option<&Way> {
        self.server.as_ref().and_then(|server| server.shards[shard].ways.get(&flow))
    }

    /// Hands a message in here, or to the shard that is its home.
    fn route(&mut self, shard: usize, flow: FlowId, message: Vec<u8>) {
        let Some(server) = &self.server else { return };
        let Some(Way::Link { link, end }) = server.shards[shard].ways.get(&flow) else { return };
        let home = home(&message).map_or(shard, |home| usize::from(home.0));
        if home == shard || home >= server.shards.len() {
            return self.deliver(shard, flow, &message);
        }
        let addrs = self.net.links[*link].addrs;
        let (peer, local) = (addrs[1 - end], addrs[*end]);
        self.truth.cover("message crossed the mesh");
        let mesh = Mesh::Message { origin: shard, flow, peer, local, bytes: message };
        self.send_mesh(shard, home, mesh);
    }

    /// RFC 5626 §4.4.1: the socket layer answers, the endpoint never sees it.
    fn pong(&mut self, shard: usize, flow: FlowId) {
        let Some(server) = &self.server else { return };
        if let Some(Way::Link { link, .. }) = server.shards[shard].ways.get(&flow) {
            let link = *link;
            self.write(link, Owner::Shard { shard, flow }, b"\r\n");
        }
    }

    pub(crate) fn deliver(&mut self, shard: usize, flow: FlowId, bytes: &[u8]) {
        vandal::overhear(self, bytes);
        let msg = Msg::parse(bytes);
        match &msg {
            Ok(msg) => self.log.line(
                self.schedule.now,
                format_args!("shard {shard} reads {msg} on {flow:?} #{:08x}", digest(bytes)),
            ),
            Err(error) => self.log.line(
                self.schedule.now,
                format_args!("shard {shard} reads on {flow:?} #{:08x}: {error}", digest(bytes)),
            ),
        }
        if let Ok(msg) = &msg {
            let now = self.schedule.now;
            self.oracle.on_read(&mut self.truth, now, shard, flow, msg);
        }
        self.input(shard, Input::Message { flow, bytes });
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
            Owner::Shard { shard, flow } => self.flow_failed(shard, flow, error),
            Owner::Nobody => {}
        }
    }

    /// A flow of a shard is gone; all that stand in for it are too.
    fn flow_failed(&mut self, shard: usize, flow: FlowId, error: FlowError) {
        self.forget_flow(shard, flow, error);
        let now = self.schedule.now;
        self.oracle.on_flow_failed(&mut self.truth, now, shard, flow);
        self.input(shard, Input::FlowFailed { flow, error });
    }

    fn forget_flow(&mut self, shard: usize, flow: FlowId, error: FlowError) {
        let Some(server) = &mut self.server else { return };
        server.shards[shard].ways.remove(&flow);
        server.shards[shard].streams.remove(&flow);
        for other in 0..server.shards.len() {
            if other != shard {
                self.send_mesh(shard, other, Mesh::Down { origin: shard, flow, error });
            }
        }
    }

    pub(crate) fn send_mesh(&mut self, from: usize, to: usize, mesh: Mesh) {
        let Some(server) = &mut self.server else { return };
        let at = self.schedule.now + server.rng.below(server.mesh_delay + 1);
        let last = server.mesh_last.entry((from, to)).or_default();
        let at = at.max(*last);
        *last = at;
        self.schedule.at(at, Event::Mesh { shard: to, mesh });
    }

    fn on_mesh(&mut self, shard: usize, mesh: Mesh) {
        let now = Instant::from_micros(self.schedule.now);
        let Some(server) = &mut self.server else { return };
        match mesh {
            Mesh::Message { origin, flow, peer, local, bytes } => {
                let here = &mut server.shards[shard];
                let stand_in = match here.stand_ins.get(&(origin, flow)) {
                    Some(Some(stand_in)) => *stand_in,
                    Some(None) => return,
                    None => {
                        let transport = transport_of(&self.peers, peer);
                        let new = NewFlow { peer, local, transport };
                        let Some(new) = here.endpoint.accept(now, new) else {
                            return;
                        };
                        here.stand_ins.insert((origin, flow), Some(new));
                        here.ways.insert(new, Way::StandIn { shard: origin, flow });
                        self.oracle.on_accept(shard, new, peer);
                        new
                    }
                };
                self.deliver(shard, stand_in, &bytes);
            }
            Mesh::Datagram { peer, bytes } => self.read_datagram(shard, peer, &bytes),
            Mesh::Send { flow, bytes } => {
                if let Some(Way::Link { link, .. }) = server.shards[shard].ways.get(&flow) {
                    let link = *link;
                    self.write(link, Owner::Shard { shard, flow }, &bytes);
                }
            }
            Mesh::Down { origin, flow, error } => {
                let here = &mut server.shards[shard];
                let Some(Some(stand_in)) = here.stand_ins.remove(&(origin, flow)) else { return };
                here.ways.remove(&stand_in);
                let now = self.schedule.now;
                self.oracle.on_flow_failed(&mut self.truth, now, shard, stand_in);
                self.input(shard, Input::FlowFailed { flow: stand_in, error });
            }
            Mesh::Close { flow } => {
                if let Some(Way::Link { link, end }) = server.shards[shard].ways.get(&flow).copied()
                {
                    self.net.close(&mut self.schedule, link, end);
                    self.flow_failed(shard, flow, FlowError::Local);
                }
            }
        }
    }

    fn on_shard_timer(&mut self, shard: usize) {
        let now = self.schedule.now;
        let Some(server) = &mut self.server else { return };
        let state = &mut server.shards[shard];
        if state.timer_at != Some(now) {
            return;
        }
        state.timer_at = None;
        let due = state.endpoint.next_timeout().is_some_and(|at| at.as_micros() <= now);
        if !due {
            return self.set_timer(shard);
        }
        if state.timeouts.0 != now / MS {
            state.timeouts = (now / MS, 0);
        }
        state.timeouts.1 += 1;
        if state.timeouts.1 > TIMEOUTS_PER_MS_MAX {
            let next = state.endpoint.next_timeout();
            return self.fail(format!("shard {shard} spins: next_timeout stays at {next:?}"));
        }
        self.input(shard, Input::Timeout);
    }

    fn set_timer(&mut self, shard: usize) {
        let now = self.schedule.now;
        let Some(server) = &mut self.server else { return };
        let state = &mut server.shards[shard];
        let Some(at) = state.endpoint.next_timeout() else {
            state.timer_at = None;
            return;
        };
        // A time already past: the shard comes back after its sockets, a moment later.
        let at = at.as_micros().max(now + 1);
        if state.timer_at.is_none_or(|set| set <= now || at < set) {
            state.timer_at = Some(at);
            self.schedule.at(at, Event::ShardTimer { shard });
        }
    }

    /// One turn of a shard: an input, and what comes of it.
    pub(crate) fn input(&mut self, shard: usize, input: Input<'_>) {
        let now = self.schedule.now;
        let Some(server) = &mut self.server else { return };
        let state = &mut server.shards[shard];
        let mut actions = std::mem::take(&mut state.actions);
        state.endpoint.handle(Instant::from_micros(now), input, &mut actions);
        for action in actions.iter() {
            self.apply(shard, action);
        }
        actions.clear();
        if let Some(server) = &mut self.server {
            server.shards[shard].actions = actions;
            let stats = server.shards[shard].endpoint.stats();
            self.oracle.after_turn(&mut self.truth, now, shard, &stats);
        }
        self.set_timer(shard);
    }

    fn apply(&mut self, shard: usize, action: Action<'_>) {
        let now = self.schedule.now;
        match action {
            Action::Connect { flow, target, timeout } => {
                let Some(server) = &mut self.server else { return };
                if target.transport == Transport::Udp {
                    let way = Way::Datagram { peer: target.address };
                    server.shards[shard].ways.insert(flow, way);
                    return;
                }
                let target = target.address;
                self.log.line(now, format_args!("shard {shard} connects to {target}: {flow:?}"));
                self.oracle.on_connect(&mut self.truth, now, shard, flow, target);
                let owner = Owner::Shard { shard, flow };
                let timeout = timeout.as_micros() as u64;
                let from = server.addr;
                let link = self.net.connect(&mut self.schedule, owner, from, target, timeout);
                server.shards[shard].ways.insert(flow, Way::Link { link, end: 0 });
            }
            Action::Send { flow, bytes } => {
                self.on_server_send(shard, flow, bytes);
            }
            Action::Alias { .. } => {}
            Action::Emit(event) => {
                self.log.line(now, format_args!("shard {shard} tells {event:?}"));
                self.checker.on_event(&mut self.truth, event);
            }
            Action::Close { flow, reason } => {
                self.log.line(now, format_args!("shard {shard} closes {flow:?}: {reason:?}"));
                self.oracle.on_close(shard, flow);
                let Some(server) = &mut self.server else { return };
                match server.shards[shard].ways.get(&flow).copied() {
                    Some(Way::Link { link, end }) => {
                        self.net.close(&mut self.schedule, link, end);
                        self.forget_flow(shard, flow, FlowError::Local);
                    }
                    Some(Way::StandIn { shard: origin, flow: origin_flow }) => {
                        server.shards[shard].ways.remove(&flow);
                        server.shards[shard].stand_ins.insert((origin, origin_flow), None);
                        let mesh = Mesh::Close { flow: origin_flow };
                        self.send_mesh(shard, origin, mesh);
                    }
                    Some(Way::Datagram { .. }) => {
                        server.shards[shard].ways.remove(&flow);
                    }
                    None => {}
                }
            }
        }
    }

    fn on_server_send(&mut self, shard: usize, flow: FlowId, bytes: &[u8]) {
        let now = self.schedule.now;
        match Msg::parse(bytes) {
            _ if bytes == PING => {
                self.log.line(now, format_args!("shard {shard} pings on {flow:?}"));
                self.truth.cover("ping of the server");
                self.oracle.on_ping(&mut self.truth, now, shard, flow);
            }
            Ok(msg) => {
                self.log.line(
                    now,
                    format_args!("shard {shard} sends {msg} on {flow:?} #{:08x}", digest(bytes)),
                );
                self.oracle.on_send(&mut self.truth, now, shard, flow, &msg);
            }
            Err(_) if self.oracle.is_stranger(shard, flow) => {
                // What he sent is repeated to him in the refusal.
                self.truth.cover("nonsense refused");
            }
            Err(error) => {
                let text = String::from_utf8_lossy(bytes).into_owned();
                self.fail(format!("shard {shard} sends a bad message: {error}\n{text}"));
            }
        }
        let Some(server) = &mut self.server else { return };
        match server.shards[shard].ways.get(&flow).copied() {
            Some(Way::Link { link, .. }) => self.write(link, Owner::Shard { shard, flow }, bytes),
            Some(Way::StandIn { shard: origin, flow }) => {
                self.send_mesh(shard, origin, Mesh::Send { flow, bytes: bytes.to_vec() });
            }
            Some(Way::Datagram { peer }) => {
                let from = server.addr;
                self.send_datagram(from, peer, bytes);
            }
            None => self.truth.cover("sent to a flow that is gone"),
        }
    }
}
