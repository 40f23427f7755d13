//! The server in the world, or a proxy: its shards, and the mesh between them as the shard layer makes it.
//!
//! ```text
//! flow of shard 0 ── message whose home is shard 1 ──► accept on shard 1: a stand-in flow
//! Send to the stand-in ──► over the mesh ──► the origin flow
//! the origin dies ──► FlowFailed for it and for every stand-in
//! Close of the origin or of a stand-in ──► the link is closed, the other shards get FlowFailed
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use holdfast::key::{FlowId, ShardId};
use holdfast::options::{Options, Role};
use holdfast::sip::message::{FrameError, Framer};
use holdfast::sip::{Actions, Endpoint, FlowError};

use crate::network::LinkId;
use crate::rng::Rng;

/// What a flow of an endpoint stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The end of a link.
    Link { link: LinkId, end: usize },
    /// A flow of another shard.
    StandIn { shard: usize, flow: FlowId },
    /// Datagrams to and from a peer.
    Datagram { peer: SocketAddr },
}

/// One shard.
pub(crate) struct Shard {
    pub(crate) endpoint: Endpoint,
    pub(crate) actions: Actions,
    pub(crate) ways: BTreeMap<FlowId, Way>,
    /// Stand-ins of this shard by the shard and flow they stand for.
    /// None: the endpoint closed it, and what still comes is dropped.
    pub(crate) stand_ins: BTreeMap<(usize, FlowId), Option<FlowId>>,
    /// When the shard's timer is set for.
    pub(crate) timer_at: Option<u64>,
    /// `Timeout` inputs in the millisecond they were counted in.
    pub(crate) timeouts: (u64, u64),
    /// Bytes read that are no whole message yet, by flow.
    pub(crate) streams: BTreeMap<FlowId, Framer>,
}

/// A frame of a stream, with bytes of its own.
#[derive(Clone, Debug)]
pub(crate) enum Read {
    Message(Vec<u8>),
    Ping,
    Unframed(Vec<u8>, FrameError),
}

/// What one shard tells another.
#[derive(Clone, Debug)]
pub(crate) enum Mesh {
    /// A message whose home is the receiver.
    Message { origin: usize, flow: FlowId, peer: SocketAddr, local: SocketAddr, bytes: Vec<u8> },
    /// A datagram whose home is the receiver.
    Datagram { peer: SocketAddr, bytes: Vec<u8> },
    /// Bytes for a flow of the receiver.
    Send { flow: FlowId, bytes: Vec<u8> },
    /// A flow of `origin` is gone.
    Down { origin: usize, flow: FlowId, error: FlowError },
    /// A stand-in for a flow of the receiver was closed.
    Close { flow: FlowId },
}

/// The server, or a proxy in front of it.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) shards: Vec<Shard>,
    pub(crate) options: Arc<Options>,
    /// Which shard takes a connection.
    pub(crate) rng: Rng,
    /// How long a message between shards takes at most.
    pub(crate) mesh_delay: u64,
    /// When the last message from one shard to another arrives: order is kept.
    pub(crate) mesh_last: BTreeMap<(usize, usize), u64>,
}

/// What listens besides the peers.
#[derive(Default)]
pub(crate) struct Nodes {
    pub(crate) server: Option<Server>,
    pub(crate) proxy: Option<Server>,
}

impl Nodes {
    /// The node in a role.
    pub(crate) fn get(&self, role: Role) -> Option<&Server> {
        match role {
            Role::Server => self.server.as_ref(),
            Role::Proxy => self.proxy.as_ref(),
        }
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, role: Role) -> Option<&mut Server> {
        match role {
            Role::Server => self.server.as_mut(),
            Role::Proxy => self.proxy.as_mut(),
        }
    }

    /// Who listens at an address.
    pub(crate) fn at(&self, addr: SocketAddr) -> Option<Role> {
        let server = self.server.as_ref().filter(|server| server.addr == addr);
        let ip = addr.ip();
        let proxy = self.proxy.as_ref().filter(|proxy| proxy.addr.ip() == ip);
        server.map(|_| Role::Server).or(proxy.map(|_| Role::Proxy))
    }
}

impl Server {
    /// A server with `shards` shards that listens at `addr`.
    pub(crate) fn new(addr: SocketAddr, shards: usize, options: Options, mut rng: Rng) -> Self {
        let options = Arc::new(options);
        let shards = (0..shards)
            .map(|shard| Shard {
                endpoint: Endpoint::new(ShardId(shard as u16), rng.seed(), options.clone()),
                actions: Actions::new(),
                ways: BTreeMap::new(),
                stand_ins: BTreeMap::new(),
                timer_at: None,
                timeouts: (0, 0),
                streams: BTreeMap::new(),
            })
            .collect();
        Self { addr, shards, options, rng, mesh_delay: 0, mesh_last: BTreeMap::new() }
    }
}
