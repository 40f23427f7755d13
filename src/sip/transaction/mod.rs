//! Transactions (RFC 3261 §17) and what they stand on: flows, wheel, generator, actions.
//!
//! The four state machines are pure functions in files of their own; `client` and `server` keep
//! the transactions, find the one a message belongs to, and do what the machines say; `repeat` drives
//! timers A, E and G, which run over UDP only.

mod aside;
mod client;
mod copied;
pub mod invite_client;
pub mod invite_server;
mod repeat;
pub mod request_client;
pub mod request_server;
mod server;
mod told;

use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub(super) use aside::Aside;
pub use aside::{SET_ASIDE, SET_ASIDE_MAX};
use client::Client;
pub(super) use client::write_cseq;
pub(super) use copied::write_top_via;
pub(super) use server::Received;
use server::Server;
pub(super) use told::{Forwarded, Lost, NewClient, Owner, Told, Verdict};

use super::actions::{Actions, CloseReason, FlowError, Stats};
use super::counters::Counters;
use super::flow::{DATAGRAM_IDLE, Flows, Needed};
use super::kept::Pool;
use super::message::{Head, PING};
use super::timer::Timer;
use super::token::Token;
use super::wheel::Wheel;
use crate::key::{ClientId, FlowId, ServerId, ShardId, Slab};
use crate::options::Options;
use crate::target::{Target, Transport};
use crate::time::Instant;

/// Client transactions and orphans of a shard; a request beyond it is answered 503.
pub const CLIENTS_MAX: usize = 8_000_000;
/// Server transactions of a shard; a request beyond it is answered 503.
pub const SERVERS_MAX: usize = 8_000_000;

/// What every layer above works with.
pub(super) struct Stack {
    /// The time of this turn.
    pub(super) now: Instant,
    pub(super) shard: ShardId,
    pub(super) options: Arc<Options>,
    pub(super) wheel: Wheel<Timer>,
    pub(super) flows: Flows,
    /// Targets of devices that could not be reached lately.
    pub(super) aside: Aside,
    /// What is to be done after this turn.
    pub(super) out: Actions,
    pub(super) counted: Stats,
    pub(super) counters: Counters,
    /// Events told so far.
    pub(super) events: u64,
    clients: Slab<ClientId, Client>,
    servers: Slab<ServerId, Server>,
    /// Client transactions without a final response.
    outstanding: usize,
    by_branch: std::collections::HashMap<u64, ServerId, SeedableRandomState>,
    hasher: SeedableRandomState,
    rng: ChaCha12Rng,
    /// Offsets of a stored message, while it is looked at.
    stored: Head,
    /// What transactions keep of messages.
    pub(super) pool: Pool,
}

impl Stack {
    pub(super) fn new(shard: ShardId, seed: [u8; 32], options: Arc<Options>) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let flows = Flows::new(rng.next_u64());
        let state = |seed| SeedableRandomState::with_seed(seed, SharedSeed::global_fixed());
        Self {
            now: Instant::ZERO,
            shard,
            options,
            wheel: Wheel::new(Instant::ZERO),
            flows,
            aside: Aside::default(),
            out: Actions::new(),
            counted: Stats::default(),
            counters: Counters::default(),
            events: 0,
            clients: Slab::new(),
            servers: Slab::new(),
            outstanding: 0,
            by_branch: std::collections::HashMap::with_hasher(state(rng.next_u64())),
            hasher: state(rng.next_u64()),
            rng,
            stored: Head::new(),
            pool: Pool::default(),
        }
    }

    /// 64 bits that nobody outside can foretell.
    pub(super) fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// A local tag for what is at `index` of the owner's slab.
    pub(super) fn token(&mut self, index: u32) -> Token {
        Token { shard: self.shard, index, cookie: self.random() }
    }

    /// A table to read a stored message with; [`put_head`](Self::put_head) takes it back.
    pub(super) fn take_head(&mut self) -> Head {
        std::mem::take(&mut self.stored)
    }

    /// Takes the table back.
    pub(super) fn put_head(&mut self, head: Head) {
        self.stored = head;
    }

    /// The flow to `target`: the open or opening one, else a new one is asked for.
    pub(super) fn outbound(&mut self, target: Target) -> FlowId {
        let (flow, new) = match target.transport {
            Transport::Tcp | Transport::Tls => self.flows.outbound(target, self.now),
            Transport::Udp => match self.flows.datagram(target.address, self.now) {
                Some(flow) => (flow, false),
                None => (self.add_datagram_flow(target.address), true),
            },
        };
        if new {
            self.out.connect(flow, target, self.options.limits.connect_timeout);
        }
        flow
    }

    /// The flow of a datagram from `peer`. `None` when there are too many.
    pub(super) fn datagram_from(&mut self, peer: SocketAddr) -> Option<FlowId> {
        if let Some(flow) = self.flows.datagram(peer, self.now) {
            return Some(flow);
        }
        let full = self.flows.is_full(Transport::Udp, self.options.limits.flows_max);
        (!full).then(|| self.add_datagram_flow(peer))
    }

    fn add_datagram_flow(&mut self, peer: SocketAddr) -> FlowId {
        let flow = self.flows.add_datagram(peer, self.now);
        self.wheel.schedule(self.now + DATAGRAM_IDLE, Timer::Idle(flow));
        flow
    }

    /// A flow over UDP is forgotten, unless it was used meanwhile or a request waits on it.
    pub(super) fn on_idle(&mut self, flow: FlowId) {
        if self.flows.get(flow).is_none() {
            return;
        }
        match self.flows.busy_until(flow, self.now) {
            Some(until) => {
                self.wheel.schedule(until, Timer::Idle(flow));
            }
            None => {
                self.flows.remove(flow);
                self.out.close(flow, CloseReason::Idle);
            }
        }
    }

    /// A connection asked for is open.
    pub(super) fn flow_opened(&mut self, flow: FlowId) {
        self.flows.opened(flow);
        self.ping_while_waiting(flow);
    }

    /// A peer that vanishes while a request waits for its answer would not be missed before the request's
    /// timeout: from now on it is sent a ping every `ping_interval`, whose bytes it must acknowledge.
    pub(super) fn ping_while_waiting(&mut self, flow: FlowId) {
        let interval = self.options.limits.ping_interval;
        if !interval.is_zero() && self.flows.begin_pings(flow) {
            self.wheel.schedule(self.now + interval, Timer::Ping(flow));
        }
    }

    /// The next ping is due, if anything still waits.
    pub(super) fn on_ping(&mut self, flow: FlowId) {
        if self.flows.goes_on_waiting(flow) {
            self.out.send(flow, PING);
            self.ping_while_waiting(flow);
        }
    }

    /// What a flow is made of; TCP when it is gone.
    pub(super) fn transport(&self, flow: FlowId) -> Transport {
        self.flows.get(flow).map_or(Transport::Tcp, |flow| flow.transport)
    }

    /// Closes a flow whose peer sent what cannot be answered; what waits on it is told.
    pub(super) fn close(&mut self, flow: FlowId) -> Vec<Told> {
        self.out.close(flow, CloseReason::BadInput);
        self.flow_failed(flow, FlowError::Local)
    }

    /// Closes connections on which nothing waits: nobody needs to be told.
    pub(super) fn close_idle(&mut self, flows: &[FlowId]) {
        for &flow in flows {
            self.flows.remove(flow);
            self.out.close(flow, CloseReason::Crowded);
        }
    }

    /// Marks the flows that responses may still go down.
    pub(super) fn mark_needed(&self, needed: &mut Needed) {
        for (_, server) in self.servers.iter() {
            needed.mark(server.flow);
        }
    }

    /// Adds what there is to what was counted.
    pub(super) fn stats(&self) -> Stats {
        let recoveries = &self.counters.recoveries;
        Stats {
            flows: self.flows.len(),
            clients: self.clients.len(),
            servers: self.servers.len(),
            timers: self.wheel.len(),
            recoveries_started: recoveries.iter().map(|cause| cause.started).sum(),
            recoveries_succeeded: recoveries.iter().map(|cause| cause.succeeded).sum(),
            recoveries_failed: recoveries.iter().flat_map(|cause| cause.ended).sum(),
            ..self.counted
        }
    }

    /// True when no request of ours waits for its answer.
    pub(super) fn is_quiet(&self) -> bool {
        self.outstanding == 0
    }
}
