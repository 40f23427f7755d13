//! The shards in the world: what they read, what they do about it, and what one tells another. The server's and
//! the proxy's are the same here; what they owe is different.

use std::fmt;
use std::time::Duration;

use holdfast::key::FlowId;
use holdfast::options::Role;
use holdfast::sip::message::{Frame, Framer, Head, PING};
use holdfast::sip::{Action, FlowError, Input, NewFlow};
use holdfast::target::{Target, Transport};
use holdfast::time::Instant;

use crate::log::digest;
use crate::message::Msg;
use crate::network::Owner;
use crate::peer::MS;
use crate::server::{Mesh, Read, Way};
use crate::trap;
use crate::vandal;
use crate::world::{Event, World};

/// `Timeout` inputs of one shard in one virtual millisecond above which it is said to spin.
const TIMEOUTS_PER_MS_MAX: u64 = 2_000;

/// A shard of the server or of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) role: Role,
    pub(crate) shard: usize,
}

impl Place {
    /// A shard of the server.
    pub(crate) fn server(shard: usize) -> Self {
        Self { role: Role::Server, shard }
    }

    fn is_server(self) -> bool {
        self.role == Role::Server
    }

    fn beside(self, shard: usize) -> Self {
        Self { shard, ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Role::Server => write!(out, "shard {}", self.shard),
            Role::Proxy => write!(out, "proxy's shard {}", self.shard),
        }
    }
}

impl World {
    /// Bytes of a stream come to a shard.
    pub(crate) fn read(&mut self, at: Place, flow: FlowId, bytes: &[u8]) {
        let Some(server) = self.nodes.get_mut(at.role) else { return };
        let bytes_max = server.options.limits.message_bytes_max;
        let framer = server.shards[at.shard].streams.entry(flow);
        let mut frames = Vec::new();
        framer.or_insert_with(|| Framer::new(bytes_max)).feed(bytes, &mut Head::new(), |frame| {
            frames.push(match frame {
                Frame::Message(message) => Read::Message(message.bytes().to_vec()),
                Frame::Ping => Read::Ping,
                Frame::Unframed { bytes, error } => Read::Unframed(bytes.to_vec(), error),
            });
        });
        for frame in frames {
            match frame {
                Read::Message(message) => {
                    self.route(at, flow, message.clone());
                    if let Some(&Way::Link { link, .. }) = self.way(at, flow) {
                        trap::at_read(self, link, Owner::Shard { at, flow }, &message);
                    }
                }
                Read::Ping => self.pong(at, flow),
                Read::Unframed(bytes, error) => {
                    self.truth.cover("stream that cannot be framed");
                    self.turn(at, Input::Unframed { flow, bytes: &bytes, error });
                }
            }
        }
    }

    fn way(&self, at: Place, flow: FlowId) -> Option<&Way> {
        self.nodes.get(at.role).and_then(|server| server.shards[at.shard].ways.get(&flow))
    }

    /// Hands a message in here, or to the shard that is its home.
    fn route(&mut self, at: Place, flow: FlowId, message: Vec<u8>) {
        let Some(server) = self.nodes.get(at.role) else { return };
        let shard = &server.shards[at.shard];
        let Some(Way::Link { link, end }) = shard.ways.get(&flow) else { return };
        let home = shard.endpoint.home(&message).map_or(at.shard, |home| usize::from(home.0));
        if home == at.shard || home >= server.shards.len() {
            return self.deliver(at, flow, &message);
        }
        let addrs = self.net.links[*link].addrs;
        let (peer, local) = (addrs[1 - end], addrs[*end]);
        self.truth.cover(match at.role {
            Role::Server => "message crossed the mesh",
            Role::Proxy => "message crossed the mesh of the proxy",
        });
        let mesh = Mesh::Message { origin: at.shard, flow, peer, local, bytes: message };
        self.send_mesh(at, home, mesh);
    }

    /// RFC 5626 §4.4.1: the socket layer answers, the endpoint never sees it.
    fn pong(&mut self, at: Place, flow: FlowId) {
        if let Some(&Way::Link { link, .. }) = self.way(at, flow) {
            self.write(link, Owner::Shard { at, flow }, b"\r\n");
        }
    }

    /// A whole message is handed in.
    pub(crate) fn deliver(&mut self, at: Place, flow: FlowId, bytes: &[u8]) {
        let now = self.schedule.now;
        let msg = Msg::parse(bytes);
        match &msg {
            Ok(msg) => self
                .log
                .line(now, format_args!("{at} reads {msg} on {flow:?} #{:08x}", digest(bytes))),
            Err(error) => self
                .log
                .line(now, format_args!("{at} reads on {flow:?} #{:08x}: {error}", digest(bytes))),
        }
        if at.is_server() {
            vandal::overhear(self, bytes);
        }
        match (&msg, at.role) {
            (Ok(msg), Role::Server) => {
                self.oracle.on_read(&mut self.truth, now, at.shard, flow, msg);
            }
            (Ok(msg), Role::Proxy) => self.proxied.on_read(now, msg),
            (Err(_), _) => {}
        }
        self.turn(at, Input::Message { flow, bytes, waited: Duration::ZERO });
    }

    /// A peer connected to a node; its flow, or none when it is refused.
    pub(crate) fn accept(&mut self, at: Place, new: NewFlow, way: Way) -> Option<FlowId> {
        let now = Instant::from_micros(self.schedule.now);
        let shard = &mut self.nodes.get_mut(at.role)?.shards[at.shard];
        let flow = shard.endpoint.accept(now, new)?;
        shard.ways.insert(flow, way);
        if at.is_server() {
            self.oracle.on_accept(at.shard, flow, new.peer);
        }
        Some(flow)
    }

    /// A flow that a shard asked for is open.
    pub(crate) fn flow_opened(&mut self, at: Place, flow: FlowId) {
        self.log.line(self.schedule.now, format_args!("{at} {flow:?} is open"));
        match at.role {
            Role::Server => self.oracle.on_opened(self.schedule.now, at.shard, flow),
            Role::Proxy => self.proxied.on_settled(at.shard, flow),
        }
        self.turn(at, Input::FlowOpened { flow });
    }

    /// A flow of a shard is gone; all that stand in for it are too.
    pub(crate) fn flow_failed(&mut self, at: Place, flow: FlowId, error: FlowError) {
        self.forget_flow(at, flow, error);
        self.tell_failed(at, flow, error);
    }

    fn tell_failed(&mut self, at: Place, flow: FlowId, error: FlowError) {
        match at.role {
            Role::Server => {
                self.oracle.on_flow_failed(&mut self.truth, self.schedule.now, at.shard, flow);
            }
            Role::Proxy => self.proxied.on_settled(at.shard, flow),
        }
        self.turn(at, Input::FlowFailed { flow, error });
    }

    fn forget_flow(&mut self, at: Place, flow: FlowId, error: FlowError) {
        let Some(server) = self.nodes.get_mut(at.role) else { return };
        server.shards[at.shard].ways.remove(&flow);
        server.shards[at.shard].streams.remove(&flow);
        for other in 0..server.shards.len() {
            if other != at.shard {
                self.send_mesh(at, other, Mesh::Down { origin: at.shard, flow, error });
            }
        }
    }

    /// One shard tells another something.
    pub(crate) fn send_mesh(&mut self, from: Place, to: usize, mesh: Mesh) {
        let Some(server) = self.nodes.get_mut(from.role) else { return };
        let at = self.schedule.now + server.rng.below(server.mesh_delay + 1);
        let last = server.mesh_last.entry((from.shard, to)).or_default();
        let at = at.max(*last);
        *last = at;
        self.schedule.at(at, Event::Mesh { at: from.beside(to), mesh });
    }

    /// What one shard told another arrives.
    pub(crate) fn on_mesh(&mut self, at: Place, mesh: Mesh) {
        let Some(server) = self.nodes.get_mut(at.role) else { return };
        let here = &mut server.shards[at.shard];
        match mesh {
            Mesh::Message { origin, flow, peer, local, bytes } => {
                let stand_in = match here.stand_ins.get(&(origin, flow)) {
                    Some(Some(stand_in)) => *stand_in,
                    Some(None) => return,
                    None => {
                        let transport = self.transport_of(at.role, peer, local);
                        let new = NewFlow { peer, local, transport };
                        let way = Way::StandIn { shard: origin, flow };
                        let Some(new) = self.accept(at, new, way) else { return };
                        if let Some(server) = self.nodes.get_mut(at.role) {
                            let here = &mut server.shards[at.shard];
                            here.stand_ins.insert((origin, flow), Some(new));
                        }
                        new
                    }
                };
                self.deliver(at, stand_in, &bytes);
            }
            Mesh::Datagram { peer, bytes } => self.read_datagram(at.shard, peer, &bytes),
            Mesh::Send { flow, bytes } => {
                if let Some(&Way::Link { link, .. }) = here.ways.get(&flow) {
                    self.write(link, Owner::Shard { at, flow }, &bytes);
                }
            }
            Mesh::Down { origin, flow, error } => {
                let Some(Some(stand_in)) = here.stand_ins.remove(&(origin, flow)) else { return };
                here.ways.remove(&stand_in);
                self.tell_failed(at, stand_in, error);
            }
            Mesh::Close { flow } => {
                if let Some(Way::Link { link, end }) = here.ways.get(&flow).copied() {
                    self.net.close(&mut self.schedule, link, end);
                    self.flow_failed(at, flow, FlowError::Local);
                }
            }
        }
    }

    /// The timer of a shard went off, perhaps one that was set anew since.
    pub(crate) fn on_shard_timer(&mut self, at: Place) {
        let now = self.schedule.now;
        let Some(server) = self.nodes.get_mut(at.role) else { return };
        let state = &mut server.shards[at.shard];
        if state.timer_at != Some(now) {
            return;
        }
        state.timer_at = None;
        let due = state.endpoint.next_timeout().is_some_and(|at| at.as_micros() <= now);
        if !due {
            return self.set_timer(at);
        }
        if state.timeouts.0 != now / MS {
            state.timeouts = (now / MS, 0);
        }
        state.timeouts.1 += 1;
        if state.timeouts.1 > TIMEOUTS_PER_MS_MAX {
            let next = state.endpoint.next_timeout();
            return self.fail(format!("{at} spins: next_timeout stays at {next:?}"));
        }
        self.turn(at, Input::Timeout);
    }

    fn set_timer(&mut self, at: Place) {
        let now = self.schedule.now;
        let Some(server) = self.nodes.get_mut(at.role) else { return };
        let state = &mut server.shards[at.shard];
        let Some(due) = state.endpoint.next_timeout() else {
            state.timer_at = None;
            return;
        };
        // A time already past: the shard comes back after its sockets, a moment later.
        let due = due.as_micros().max(now + 1);
        if state.timer_at.is_none_or(|set| set <= now || due < set) {
            state.timer_at = Some(due);
            self.schedule.at(due, Event::ShardTimer { at });
        }
    }

    /// One turn of a shard of the server.
    pub(crate) fn input(&mut self, shard: usize, input: Input<'_>) {
        self.turn(Place::server(shard), input);
    }

    /// One turn of a shard: an input, and what comes of it.
    fn turn(&mut self, at: Place, input: Input<'_>) {
        let now = self.schedule.now;
        let Some(server) = self.nodes.get_mut(at.role) else { return };
        let state = &mut server.shards[at.shard];
        let mut actions = std::mem::take(&mut state.actions);
        state.endpoint.handle(Instant::from_micros(now), input, &mut actions);
        for action in actions.iter() {
            self.apply(at, action);
        }
        actions.clear();
        if let Some(server) = self.nodes.get_mut(at.role) {
            let state = &mut server.shards[at.shard];
            state.actions = actions;
            let stats = state.endpoint.stats();
            match at.role {
                Role::Server => self.oracle.after_turn(&mut self.truth, now, at.shard, &stats),
                Role::Proxy => self.proxied.after_turn(&mut self.truth),
            }
        }
        self.set_timer(at);
    }

    fn apply(&mut self, at: Place, action: Action<'_>) {
        let now = self.schedule.now;
        match action {
            Action::Connect { flow, target, timeout } => {
                self.on_connect(at, flow, target, timeout.as_micros() as u64);
            }
            Action::Send { flow, bytes } => self.on_shard_send(at, flow, bytes),
            Action::Alias { .. } => {}
            Action::Emit(event) => {
                self.log.line(now, format_args!("{at} tells {event:?}"));
                self.checker.on_event(&mut self.truth, event);
            }
            Action::Close { flow, reason } => {
                self.log.line(now, format_args!("{at} closes {flow:?}: {reason:?}"));
                self.on_close(at, flow);
            }
        }
    }

    fn on_connect(&mut self, at: Place, flow: FlowId, target: Target, timeout: u64) {
        let now = self.schedule.now;
        let Some(server) = self.nodes.get_mut(at.role) else { return };
        if target.transport == Transport::Udp {
            let way = Way::Datagram { peer: target.address };
            server.shards[at.shard].ways.insert(flow, way);
            return;
        }
        let from = server.addr;
        let address = target.address;
        self.log.line(now, format_args!("{at} connects to {address}: {flow:?}"));
        match at.role {
            Role::Server => {
                self.oracle.on_connect(&mut self.truth, now, at.shard, flow, address);
            }
            Role::Proxy => self.proxied.on_connect(&mut self.truth, at.shard, flow, target),
        }
        let owner = Owner::Shard { at, flow };
        let link = self.net.connect(&mut self.schedule, owner, from, address, timeout);
        if let Some(server) = self.nodes.get_mut(at.role) {
            server.shards[at.shard].ways.insert(flow, Way::Link { link, end: 0 });
        }
    }

    fn on_close(&mut self, at: Place, flow: FlowId) {
        match at.role {
            Role::Server => self.oracle.on_close(at.shard, flow),
            Role::Proxy => self.proxied.on_settled(at.shard, flow),
        }
        let Some(server) = self.nodes.get_mut(at.role) else { return };
        let state = &mut server.shards[at.shard];
        match state.ways.get(&flow).copied() {
            Some(Way::Link { link, end }) => {
                self.net.close(&mut self.schedule, link, end);
                self.forget_flow(at, flow, FlowError::Local);
            }
            Some(Way::StandIn { shard: origin, flow: origin_flow }) => {
                state.ways.remove(&flow);
                state.stand_ins.insert((origin, origin_flow), None);
                self.send_mesh(at, origin, Mesh::Close { flow: origin_flow });
            }
            Some(Way::Datagram { .. }) => {
                state.ways.remove(&flow);
            }
            None => {}
        }
    }

    fn on_shard_send(&mut self, at: Place, flow: FlowId, bytes: &[u8]) {
        let now = self.schedule.now;
        match Msg::parse(bytes) {
            _ if bytes == PING => self.on_ping(at, flow),
            Ok(msg) => {
                let digest = digest(bytes);
                self.log.line(now, format_args!("{at} sends {msg} on {flow:?} #{digest:08x}"));
                match at.role {
                    Role::Server => {
                        self.oracle.on_send(&mut self.truth, now, at.shard, flow, &msg);
                    }
                    Role::Proxy => self.proxied.on_send(&mut self.truth, now, &msg),
                }
            }
            Err(_) if at.is_server() && self.oracle.is_stranger(at.shard, flow) => {
                // What he sent is repeated to him in the refusal.
                self.truth.cover("nonsense refused");
            }
            Err(error) => {
                let text = String::from_utf8_lossy(bytes).into_owned();
                self.fail(format!("{at} sends a bad message: {error}\n{text}"));
            }
        }
        match self.way(at, flow).copied() {
            Some(Way::Link { link, .. }) => self.write(link, Owner::Shard { at, flow }, bytes),
            Some(Way::StandIn { shard: origin, flow }) => {
                self.send_mesh(at, origin, Mesh::Send { flow, bytes: bytes.to_vec() });
            }
            Some(Way::Datagram { peer }) => {
                if let Some(from) = self.nodes.get(at.role).map(|server| server.addr) {
                    self.send_datagram(from, peer, bytes);
                }
            }
            None => self.truth.cover("sent to a flow that is gone"),
        }
    }

    fn on_ping(&mut self, at: Place, flow: FlowId) {
        let now = self.schedule.now;
        self.log.line(now, format_args!("{at} pings on {flow:?}"));
        match at.role {
            Role::Server => {
                self.truth.cover("ping of the server");
                self.oracle.on_ping(&mut self.truth, now, at.shard, flow);
            }
            Role::Proxy => self.truth.cover("ping of the proxy"),
        }
    }
}
