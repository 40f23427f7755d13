//! Where the requests of a leg go: its target set, and which target is next.
//!
//! ```text
//! set:   0  the peer's own flow while it is up, else the dialog's next hop (a new INVITE: contact)
//!        1… the device's backup contacts, in order
//!
//! attempt fails ─► an untried target: at once        all have failed: wait ─► a new round
//! ```
//!
//! A peer's own flow and its address are one target: when the flow dies the address is where it was
//! (`docs/ARCHITECTURE.md`, "Target sets").

use std::net::SocketAddr;

use super::Leg;
use crate::key::FlowId;
use crate::options::Options;
use crate::sip::flow::Direction;
use crate::sip::transaction::Stack;

/// Targets of a leg that have failed in this round, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tried(u16);

impl Leg {
    /// The flow for the next request: the peer's own while it is up, else the one to the target.
    pub(in crate::sip) fn choose_flow(&self, stack: &mut Stack) -> (FlowId, SocketAddr) {
        let target = self.address(&stack.options, self.target).unwrap_or(self.fallback);
        if let Some(id) = self.flow
            && let Some(flow) = stack.flows.get(id)
            && (flow.direction == Direction::Inbound || flow.peer == target)
        {
            return (id, target);
        }
        (stack.outbound(target), target)
    }

    /// The same for an INVITE, which goes to the device itself until its dialog is confirmed: what
    /// an earlier attempt's early dialog says is not where a new one begins.
    pub(super) fn choose_invite_flow(&self, stack: &mut Stack) -> (FlowId, SocketAddr) {
        if self.confirmed {
            return self.choose_flow(stack);
        }
        let target = match self.target {
            0 => self.fallback,
            index => self.address(&stack.options, index).unwrap_or(self.fallback),
        };
        (stack.outbound(target), target)
    }

    /// True when the device can be reached at more than one address.
    pub(in crate::sip) fn has_more_targets(&self, options: &Options) -> bool {
        let first = self.address(options, 0);
        self.backups(options).iter().any(|&backup| Some(backup) != first)
    }

    /// The target with this address, if it is one of the set.
    pub(in crate::sip) fn target_at(&self, options: &Options, address: SocketAddr) -> Option<u8> {
        (0..self.targets(options)).find(|&index| self.address(options, index) == Some(address))
    }

    /// The target in use has failed. The next one that has not failed in this round is in use now;
    /// `None` when there is none, and the next round begins behind it.
    pub(super) fn next_target(&mut self, options: &Options, tried: &mut Tried) -> Option<u8> {
        let (count, failed) = (self.targets(options), self.address(options, self.target));
        for index in 0..count {
            if index == self.target || self.address(options, index) == failed {
                tried.0 |= 1 << index;
            }
        }
        let round = (1..=count).map(|step| (self.target + step) % count);
        let next = round.into_iter().find(|index| tried.0 & (1 << index) == 0);
        self.target = next.unwrap_or((self.target + 1) % count);
        next
    }

    fn targets(&self, options: &Options) -> u8 {
        // CONTACT_BACKUPS_MAX is far below 16.
        1 + self.backups(options).len().min(15) as u8
    }

    fn address(&self, options: &Options, index: u8) -> Option<SocketAddr> {
        match index {
            0 => Some(self.dialog.next_hop().unwrap_or(self.fallback)),
            _ => self.backups(options).get(usize::from(index) - 1).copied(),
        }
    }

    fn backups<'a>(&self, options: &'a Options) -> &'a [SocketAddr] {
        let device = self.device.and_then(|id| options.device(id));
        device.map_or(&[], |device| &device.backups)
    }
}
