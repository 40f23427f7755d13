//! The endpoint of a shard: one input in, actions out.

use std::sync::Arc;

use super::actions::{Actions, Input, NewFlow, Stats};
use crate::key::{FlowId, ShardId, Slab};
use crate::options::Options;
use crate::time::Instant;

/// The protocol of one shard.
pub struct Endpoint {
    flows: Slab<FlowId, NewFlow>,
}

impl Endpoint {
    /// An endpoint without flows or calls. `seed` starts its one generator of tags and branches.
    pub fn new(_shard: ShardId, _seed: [u8; 32], _options: Arc<Options>) -> Self {
        Self { flows: Slab::new() }
    }

    /// Takes a flow that a peer opened. `None` when `flows_max` are open: close it.
    pub fn accept(&mut self, _now: Instant, flow: NewFlow) -> Option<FlowId> {
        Some(self.flows.insert(flow))
    }

    /// Reacts to `input` at `now`, which never runs backwards, and appends to `out`.
    pub fn handle(&mut self, _now: Instant, _input: Input<'_>, _out: &mut Actions) {}

    /// When to call [`handle`](Self::handle) with [`Input::Timeout`]; `None`: nothing is due, ever.
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// What there is and what was counted.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }

    /// True when a drain was asked for and no call and no transaction is left.
    pub fn is_drained(&self) -> bool {
        false
    }
}
