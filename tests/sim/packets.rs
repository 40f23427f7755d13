//! Datagrams of the simulated network: lost, doubled, overtaken, or answered with an ICMP error.
//!
//! ```text
//! sender ── lost? ── doubled? ── delay ──► address ─┬─ server: any shard, or the message's home
//!    ▲                                              ├─ peer: its inbox
//!    └───────────────── ICMP ───────────────────────┴─ nobody
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use holdfast::sip::message::{FrameError, datagram, home};
use holdfast::sip::{FlowError, Input, NewFlow};
use holdfast::target::Transport;
use holdfast::time::Instant;

use crate::network::Listener;
use crate::server::{Mesh, Way};
use crate::shards::Place;
use crate::world::{Event, World};

/// How datagrams fare, and who sends them.
#[derive(Debug, Default)]
pub(crate) struct Packets {
    /// In 1000, this many get lost.
    pub(crate) loss: u64,
    /// In 1000, this many come twice.
    pub(crate) doubles: u64,
    /// The longest way; each takes its own time, so one may overtake another.
    pub(crate) delay_max: u64,
    /// The next ones to an address that get lost.
    pub(crate) lose: BTreeMap<SocketAddr, usize>,
    /// Addresses that hear datagrams though they refuse connections.
    pub(crate) hear: BTreeSet<SocketAddr>,
    /// What the server sent: when, where to, what.
    pub(crate) sent: Vec<(u64, SocketAddr, Vec<u8>)>,
    /// The far end of a peer's flow, by peer and flow; and the flow, by peer and far end.
    remotes: BTreeMap<(usize, usize), SocketAddr>,
    conns: BTreeMap<(usize, SocketAddr), usize>,
}

impl World {
    /// A flow of a peer goes over datagrams.
    pub(crate) fn add_datagram_conn(&mut self, peer: usize, conn: usize, remote: SocketAddr) {
        self.packets.remotes.insert((peer, conn), remote);
        self.packets.conns.insert((peer, remote), conn);
    }

    /// Where a peer's flow goes, if it goes over datagrams.
    pub(crate) fn datagram_remote(&self, peer: usize, conn: usize) -> Option<SocketAddr> {
        self.packets.remotes.get(&(peer, conn)).copied()
    }

    /// Sends a datagram.
    pub(crate) fn send_datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let now = self.schedule.now;
        if self.nodes.server.as_ref().is_some_and(|server| server.addr == from) {
            self.packets.sent.push((now, to, bytes.to_vec()));
        }
        let doomed = self.packets.lose.get_mut(&to).filter(|left| **left > 0);
        let lost = match doomed {
            Some(left) => {
                *left -= 1;
                true
            }
            None => self.net.rng.chance(self.packets.loss),
        };
        if lost {
            return self.log.line(now, format_args!("a datagram to {to} is lost"));
        }
        let copies = if self.net.rng.chance(self.packets.doubles) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = self.net.rng.below(self.packets.delay_max + 1);
            self.schedule.after(delay, Event::Datagram { from, to, bytes: bytes.to_vec() });
        }
    }

    /// A datagram arrives.
    pub(crate) fn on_datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if self.nodes.server.as_ref().is_some_and(|server| server.addr == to) {
            return self.on_datagram_to_server(from, bytes);
        }
        let hears = self.packets.hear.contains(&to);
        match self.listeners.get(&to).copied() {
            Some((peer, Listener::Refusing)) if hears => {
                self.on_datagram_to_peer(peer, from, bytes)
            }
            Some((peer, Listener::Up)) => self.on_datagram_to_peer(peer, from, bytes),
            Some((_, Listener::Silent)) => {}
            Some((_, Listener::Refusing | Listener::Unreachable | Listener::Unfriendly)) | None => {
                self.schedule.after(0, Event::Icmp { to: from, about: to });
            }
        }
    }

    fn on_datagram_to_peer(&mut self, peer: usize, from: SocketAddr, bytes: &[u8]) {
        let conn = match self.packets.conns.get(&(peer, from)) {
            Some(conn) => *conn,
            None => {
                let conn = self.peers[peer].on_accept(from);
                self.add_datagram_conn(peer, conn, from);
                conn
            }
        };
        self.with_peer(peer, |peer, ctx| peer.on_message(ctx, conn, bytes));
    }

    /// An ICMP error reaches whoever sent to `about`.
    pub(crate) fn on_icmp(&mut self, to: SocketAddr, about: SocketAddr) {
        let Some(server) = self.nodes.server.as_ref().filter(|server| server.addr == to) else {
            return;
        };
        let shards = server.shards.len();
        let now = self.schedule.now;
        self.log.line(now, format_args!("ICMP from {about}"));
        // The kernel tells one socket, and its shard all others.
        for shard in 0..shards {
            let error = FlowError::Refused;
            self.input(shard, Input::Undelivered { peer: about, error });
        }
    }

    fn on_datagram_to_server(&mut self, from: SocketAddr, bytes: &[u8]) {
        let Some(message) = datagram(bytes) else { return };
        let Some(server) = &mut self.nodes.server else { return };
        let count = server.shards.len();
        let shard = server.rng.below(count as u64) as usize;
        let home = home(message).map_or(shard, |home| usize::from(home.0));
        if home == shard || home >= count {
            return self.read_datagram(shard, from, message);
        }
        self.truth.cover("datagram crossed the mesh");
        self.send_mesh(
            Place::server(shard),
            home,
            Mesh::Datagram { peer: from, bytes: message.to_vec() },
        );
    }

    /// A datagram gets to the shard that handles it, which knows the peer or not.
    pub(crate) fn read_datagram(&mut self, shard: usize, peer: SocketAddr, bytes: &[u8]) {
        let now = Instant::from_micros(self.schedule.now);
        let Some(server) = &mut self.nodes.server else { return };
        let (local, transport) = (server.addr, Transport::Udp);
        let bytes_max = server.options.limits.message_bytes_max;
        let state = &mut server.shards[shard];
        let new = NewFlow { peer, local, transport };
        let Some(flow) = state.endpoint.accept(now, new) else { return };
        if state.ways.insert(flow, Way::Datagram { peer }).is_none() {
            self.oracle.on_accept(shard, flow, peer);
        }
        if bytes.len() > bytes_max {
            let error = FrameError::MessageTooLarge { bytes: bytes.len(), bytes_max };
            return self.input(shard, Input::Unframed { flow, bytes, error });
        }
        self.deliver(Place::server(shard), flow, bytes);
    }
}
