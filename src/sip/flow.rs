//! Flows: open or opening connections, peers over UDP, and the client transactions that wait on each.
//!
//! ```text
//!              accept                          connect (first request for a target)
//!                │                                │
//!                ▼                                ▼
//!             ┌──────┐   opened              ┌────────────┐
//!             │ Open │◄──────────────────────│ Connecting │
//!             └──┬───┘                       └─────┬──────┘
//!                └───────── failed, closed ────────┘──► gone: every waiting transaction is told
//! ```
//!
//! A request that is written to a flow is answered for: its transaction is in the flow's list until
//! a final response comes, and the flow's death walks that list.
//!
//! Over UDP a flow is a peer's address: it begins open, with the first datagram from or to it, and is
//! forgotten when nothing came or went for [`DATAGRAM_IDLE`]. There is one for each address, whoever
//! spoke first.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

use crate::key::{ClientId, FlowId, Slab};
use crate::options::{Device, DeviceId, Options};
use crate::target::{Target, Transport};
use crate::time::Instant;

/// One connection.
#[derive(Debug)]
pub(super) struct Flow {
    /// The peer's end; for a flow of ours, the target.
    pub(super) peer: SocketAddr,
    pub(super) transport: Transport,
    pub(super) direction: Direction,
    /// When it began, or a message was last read on it; over UDP, or sent.
    used: Instant,
    /// True when a message was read on it.
    heard: bool,
    /// False while it is connecting.
    pub(super) open: bool,
    /// The target that a peer's own flow stands for (RFC 5923).
    alias: Option<Target>,
    /// The devices that its peer has a certificate for.
    devices: Option<Box<[DeviceId]>>,
    /// True while a timer for its next ping runs.
    pinging: bool,
    /// True when the first request on it was looked at for an alias.
    looked_at: bool,
    /// Client transactions that have no final response yet.
    waiting: Vec<ClientId>,
}

/// Who opened a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// The peer, from an ephemeral port.
    Inbound,
    /// We did, or it is one over UDP, which has no opener.
    Outbound,
}

/// All flows of an endpoint.
#[derive(Debug)]
pub(super) struct Flows {
    slab: Slab<FlowId, Flow>,
    /// Flows that peers opened, by the target that they stand for.
    aliases: HashMap<Target, FlowId, SeedableRandomState>,
    /// The one outbound flow to each target: legs that wait for the same target share it.
    by_target: HashMap<Target, FlowId, SeedableRandomState>,
    /// How many flows are over UDP.
    datagram: usize,
}

impl Flows {
    /// No flows yet; `seed` makes the look-up by target unpredictable for peers.
    pub(super) fn new(seed: u64) -> Self {
        let state = SeedableRandomState::with_seed(seed, SharedSeed::global_fixed());
        let aliases = HashMap::with_hasher(state.clone());
        let by_target = HashMap::with_hasher(state);
        Self { slab: Slab::new(), aliases, by_target, datagram: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn get(&self, id: FlowId) -> Option<&Flow> {
        self.slab.get(id)
    }

    /// True when one more flow over `transport` would be too many. Datagrams have a `flows_max` of their own:
    /// their sources are easily forged, and must not keep connections out.
    pub(super) fn is_full(&self, transport: Transport, flows_max: u32) -> bool {
        let count = match transport.is_unreliable() {
            false => self.slab.len() - self.datagram,
            true => self.datagram,
        };
        count >= flows_max as usize
    }

    /// Takes a flow that a peer opened.
    pub(super) fn accept(&mut self, peer: Target, now: Instant) -> FlowId {
        self.slab.insert(Flow::new(peer, Direction::Inbound, now))
    }

    /// The connection to `target`, if there is one: the open one of ours, else one that its peer opened for that,
    /// else the one that is connecting.
    pub(super) fn to(&self, target: Target) -> Option<FlowId> {
        let ours = self.by_target.get(&target).copied();
        let open = ours.filter(|&id| self.slab.get(id).is_some_and(|flow| flow.open));
        open.or_else(|| self.aliases.get(&target).copied()).or(ours)
    }

    /// The peer has a certificate for these devices.
    pub(super) fn certified(&mut self, id: FlowId, devices: &[DeviceId]) {
        if let Some(flow) = self.slab.get_mut(id) {
            flow.devices = Some(devices.into());
        }
    }

    /// A message was read.
    pub(super) fn heard(&mut self, id: FlowId, now: Instant) {
        if let Some(flow) = self.slab.get_mut(id) {
            flow.used = now;
            flow.heard = true;
        }
    }

    /// The first `count` connections that may be closed for others, the best ones to close first: nothing waits
    /// on them, and they are not `needed`.
    pub(super) fn idle(&self, count: usize, needed: &Needed) -> Vec<FlowId> {
        let idle = |(id, flow): &(FlowId, &Flow)| {
            flow.open
                && flow.waiting.is_empty()
                && !flow.transport.is_unreliable()
                && !needed.has(*id)
        };
        let mut idle: Vec<_> = self
            .slab
            .iter()
            .filter(idle)
            .map(|(id, flow)| (flow.worth(), flow.used, id.0.index, id))
            .collect();
        if idle.len() > count {
            idle.select_nth_unstable_by_key(count, |&(worth, used, index, _)| (worth, used, index));
            idle.truncate(count);
        }
        idle.sort_unstable_by_key(|&(worth, used, index, _)| (worth, used, index));
        idle.into_iter().map(|(.., id)| id).collect()
    }

    /// The flow to or from a peer over UDP, if there is one; it is in use `now`.
    pub(super) fn datagram(&mut self, peer: SocketAddr, now: Instant) -> Option<FlowId> {
        let id = *self.by_target.get(&Target::udp(peer))?;
        self.slab.get_mut(id)?.used = now;
        Some(id)
    }

    /// A new flow over UDP. The caller has seen that there is none, and lets it be forgotten when it
    /// is idle.
    pub(super) fn add_datagram(&mut self, peer: SocketAddr, now: Instant) -> FlowId {
        let target = Target::udp(peer);
        let id = self.slab.insert(Flow::new(target, Direction::Outbound, now));
        self.by_target.insert(target, id);
        self.datagram += 1;
        id
    }

    /// When a flow over UDP is to be looked at again; `None` when it is idle now.
    pub(super) fn busy_until(&self, id: FlowId, now: Instant) -> Option<Instant> {
        let flow = self.slab.get(id)?;
        let until = flow.used + DATAGRAM_IDLE;
        match until > now {
            true => Some(until),
            false => (!flow.waiting.is_empty()).then_some(now + DATAGRAM_IDLE),
        }
    }

    /// The connection [`to`](Self::to) `target`, and true when it is new and must be opened.
    pub(super) fn outbound(&mut self, target: Target, now: Instant) -> (FlowId, bool) {
        if let Some(id) = self.to(target) {
            return (id, false);
        }
        let id = self.slab.insert(Flow::new(target, Direction::Outbound, now));
        self.by_target.insert(target, id);
        if let Some(flow) = self.slab.get_mut(id) {
            flow.open = false;
        }
        (id, true)
    }

    /// Requests to `target` may go down the flow that its peer opened, and do unless one of ours to
    /// it is open (RFC 5923 §7). The newest such flow counts. False when it is none of the peer's.
    pub(super) fn alias(&mut self, id: FlowId, target: Target) -> bool {
        let Some(flow) = self.slab.get_mut(id) else { return false };
        if flow.direction == Direction::Outbound || flow.alias.is_some() {
            return false;
        }
        flow.alias = Some(target);
        self.aliases.insert(target, id);
        true
    }

    /// Options have changed: flows whose peers have certificates stand for where their devices are now.
    pub(super) fn on_options(&mut self, options: &Options) {
        let moved = self.slab.iter().filter_map(|(id, flow)| {
            let before = flow.alias.filter(|_| flow.devices.is_some())?;
            let now = flow.claim(options, before.address.port());
            (now != Some(before)).then_some((id, before, now))
        });
        for (id, before, now) in moved.collect::<Vec<_>>() {
            if self.aliases.get(&before) == Some(&id) {
                self.aliases.remove(&before);
            }
            if let Some(flow) = self.slab.get_mut(id) {
                flow.alias = now;
            }
            if let Some(now) = now {
                self.aliases.insert(now, id);
            }
        }
    }

    /// True the first time it is asked of a flow that the peer opened.
    pub(super) fn look_at(&mut self, id: FlowId) -> bool {
        let Some(flow) = self.slab.get_mut(id) else { return false };
        !std::mem::replace(&mut flow.looked_at, true) && flow.direction == Direction::Inbound
    }

    /// Notes that a connection is open.
    pub(super) fn opened(&mut self, id: FlowId) {
        if let Some(flow) = self.slab.get_mut(id) {
            flow.open = true;
        }
    }

    /// True when pings are to begin: it is a connection that is open, something waits on it, and no timer
    /// for a ping runs, which one does from now on.
    pub(super) fn begin_pings(&mut self, id: FlowId) -> bool {
        let Some(flow) = self.slab.get_mut(id) else { return false };
        let waits = flow.open && !flow.waiting.is_empty() && !flow.transport.is_unreliable();
        waits && !std::mem::replace(&mut flow.pinging, true)
    }

    /// A ping is due: true when something still waits.
    pub(super) fn goes_on_waiting(&mut self, id: FlowId) -> bool {
        let Some(flow) = self.slab.get_mut(id) else { return false };
        flow.pinging = false;
        !flow.waiting.is_empty()
    }

    /// Forgets a flow; its [`waiting`](Flow::into_waiting) transactions are the caller's to tell.
    pub(super) fn remove(&mut self, id: FlowId) -> Option<Flow> {
        let flow = self.slab.remove(id)?;
        if flow.direction == Direction::Outbound {
            self.by_target.remove(&flow.target());
            self.datagram -= usize::from(flow.transport == Transport::Udp);
        }
        if let Some(target) = flow.alias
            && self.aliases.get(&target) == Some(&id)
        {
            self.aliases.remove(&target);
        }
        Some(flow)
    }

    /// Lets `client` wait on a flow; gives its place in the list.
    pub(super) fn wait(&mut self, id: FlowId, client: ClientId) -> u32 {
        let Some(flow) = self.slab.get_mut(id) else { return 0 };
        flow.waiting.push(client);
        flow.waiting.len() as u32 - 1
    }

    /// Takes `client` off the list, where it has place `slot`; gives the one that has that place
    /// now, if any. O(1).
    pub(super) fn answered(&mut self, id: FlowId, client: ClientId, slot: u32) -> Option<ClientId> {
        let waiting = &mut self.slab.get_mut(id)?.waiting;
        if waiting.get(slot as usize) != Some(&client) {
            return None;
        }
        waiting.swap_remove(slot as usize);
        if waiting.is_empty() && waiting.capacity() > WAITING_RETAINED {
            *waiting = Vec::new();
        }
        waiting.get(slot as usize).copied()
    }
}

/// Flows that must not be closed for others.
#[derive(Debug, Default)]
pub(super) struct Needed {
    /// By position: a flow that has the place of one that is gone is spared, too.
    slots: Vec<bool>,
}

impl Needed {
    pub(super) fn mark(&mut self, FlowId(key): FlowId) {
        let index = key.index as usize;
        if index >= self.slots.len() {
            self.slots.resize(index + 1, false);
        }
        self.slots[index] = true;
    }

    fn has(&self, FlowId(key): FlowId) -> bool {
        self.slots.get(key.index as usize) == Some(&true)
    }
}

impl Flow {
    fn new(target: Target, direction: Direction, now: Instant) -> Self {
        let Target { transport, address } = target;
        Self {
            peer: address,
            transport,
            direction,
            used: now,
            heard: false,
            open: true,
            alias: None,
            devices: None,
            pinging: false,
            looked_at: false,
            waiting: Vec::new(),
        }
    }

    /// The addresses of hosts that the peer may speak for: its own, and those of devices that it has a certificate
    /// for, by the options now in force.
    pub(super) fn hosts(&self, options: &Options) -> impl Iterator<Item = IpAddr> {
        let devices = self.devices.as_deref().unwrap_or_default().iter();
        let devices = devices.filter_map(|id| options.device(*id));
        let addresses = devices.flat_map(Device::addresses).map(|address| address.ip());
        std::iter::once(self.peer.ip()).chain(addresses)
    }

    /// The target of a device at this port that it may stand for.
    pub(super) fn claim(&self, options: &Options, port: u16) -> Option<Target> {
        let transport = self.transport;
        let target = |host| Target { transport, address: SocketAddr::new(host, port) };
        self.hosts(options).map(target).find(|target| options.is_target(*target))
    }

    /// Its other end as a target.
    pub(super) fn target(&self) -> Target {
        Target { transport: self.transport, address: self.peer }
    }

    /// How much would be lost if it were closed while it is idle: nothing with a peer that never said anything,
    /// most with one that stands for a target, which may not let itself be connected to.
    fn worth(&self) -> u8 {
        match (self.heard, self.alias) {
            (false, _) => 0,
            (true, None) => 1,
            (true, Some(_)) => 2,
        }
    }

    /// The client transactions that wait, in the order they came: what is sent again must not
    /// overtake (RFC 3261 §12.2.2).
    pub(super) fn into_waiting(self) -> Vec<ClientId> {
        let mut waiting = self.waiting;
        // Answers in between have put the last ones first; generations count insertions.
        waiting.sort_unstable_by_key(|ClientId(key)| key.generation);
        waiting
    }
}

/// A flow over UDP on which nothing was sent or received for so long, 64·T1, is forgotten: nothing
/// that could still be repeated is older.
pub(super) const DATAGRAM_IDLE: Duration = Duration::from_secs(32);

/// Places that a flow keeps when nothing waits on it.
const WAITING_RETAINED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn client(index: u32) -> ClientId {
        ClientId(Key { index, generation: index + 1 })
    }

    #[test]
    fn requests_for_one_target_share_one_flow_until_it_is_gone() {
        let mut flows = Flows::new(1);
        let target = Target::tcp("127.0.0.2:5060".parse().unwrap());
        let (first, new) = flows.outbound(target, at(0));
        assert!(new);
        assert_eq!(flows.outbound(target, at(0)), (first, false));
        flows.remove(first);
        let (second, new) = flows.outbound(target, at(0));
        assert!(new);
        assert_ne!(first, second);
    }

    #[test]
    fn an_alias_stands_for_its_target_until_it_is_gone_while_none_of_ours_is_open() {
        let mut flows = Flows::new(1);
        let target = Target::tcp("127.0.0.2:5060".parse().unwrap());
        let inbound = flows.accept(Target::tcp("127.0.0.2:40000".parse().unwrap()), at(0));
        let (connecting, _) = flows.outbound(target, at(0));
        assert!(flows.alias(inbound, target));
        assert_eq!(flows.to(target), Some(inbound), "this is what must not be closed");
        assert_eq!(flows.outbound(target, at(0)), (inbound, false));
        flows.remove(inbound);
        assert_eq!(flows.outbound(target, at(0)), (connecting, false));
        flows.opened(connecting);
        let late = flows.accept(Target::tcp("127.0.0.2:40001".parse().unwrap()), at(0));
        assert!(flows.alias(late, target));
        assert_eq!(flows.outbound(target, at(0)), (connecting, false));
        flows.remove(connecting);
        assert_eq!(flows.outbound(target, at(0)), (late, false));
        flows.remove(late);
        assert!(flows.outbound(target, at(0)).1);
    }

    #[test]
    fn a_peer_over_udp_is_one_flow_and_counts_apart_from_connections() {
        let mut flows = Flows::new(1);
        let peer: SocketAddr = "127.0.0.2:5060".parse().unwrap();
        let (connection, _) = flows.outbound(Target::tcp(peer), at(0));
        assert_eq!(flows.datagram(peer, at(0)), None);
        let id = flows.add_datagram(peer, at(0));
        assert_ne!(id, connection);
        assert_eq!(flows.outbound(Target::tcp(peer), at(0)), (connection, false));
        assert_eq!(flows.busy_until(id, at(0)), Some(at(32_000)));
        assert_eq!(flows.datagram(peer, at(10_000)), Some(id));
        assert_eq!(flows.busy_until(id, at(32_000)), Some(at(42_000)));
        assert_eq!(flows.busy_until(id, at(42_000)), None);
        flows.wait(id, client(0));
        assert_eq!(flows.busy_until(id, at(42_000)), Some(at(74_000)));
        assert!(flows.is_full(Transport::Udp, 1) && flows.is_full(Transport::Tcp, 1));
        flows.remove(id);
        assert!(!flows.is_full(Transport::Udp, 1) && flows.is_full(Transport::Tcp, 1));
        assert_eq!(flows.datagram(peer, at(0)), None);
    }

    #[test]
    fn the_death_of_a_flow_names_exactly_those_who_still_wait() {
        let mut flows = Flows::new(1);
        let id = flows.accept(Target::tcp("127.0.0.2:40000".parse().unwrap()), at(0));
        let mut slots: Vec<u32> = (0..4).map(|n| flows.wait(id, client(n))).collect();
        let moved = flows.answered(id, client(1), slots[1]).unwrap();
        assert_eq!(moved, client(3));
        slots[3] = slots[1];
        assert_eq!(flows.answered(id, client(3), slots[3]), Some(client(2)));
        assert_eq!(flows.remove(id).unwrap().into_waiting(), [client(0), client(2)]);
        assert!(flows.remove(id).is_none());
    }

    #[test]
    fn silent_flows_are_closed_before_idle_ones_and_those_before_aliases_the_oldest_first() {
        let mut flows = Flows::new(1);
        let peer = |port| Target::tcp(SocketAddr::from(([127, 0, 0, 2], port)));
        let [alias, spoke, late, needed, waits, old, new] =
            [1, 2, 3, 4, 5, 6, 7].map(|n| flows.accept(peer(40_000 + n), at(n.into())));
        for (id, millis) in [(alias, 10), (spoke, 20), (late, 30), (needed, 11), (waits, 12)] {
            flows.heard(id, at(millis));
        }
        flows.alias(alias, peer(5060));
        flows.wait(waits, client(0));
        flows.add_datagram(peer(5060).address, at(0));
        flows.outbound(peer(5070), at(0));
        let needed = {
            let id = needed;
            let mut needed = Needed::default();
            needed.mark(id);
            needed
        };
        assert_eq!(flows.idle(9, &needed), [old, new, spoke, late, alias]);
        assert_eq!(flows.idle(3, &needed), [old, new, spoke]);
    }
}
