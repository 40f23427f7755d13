//! Where the requests of a leg go: its target set, and which target is next.
//!
//! ```text
//! set:   0  the peer's own flow while it is up, else the dialog's next hop (a new INVITE: contact)
//!        1… the device's backup contacts, in order
//!
//! attempt fails ─► an untried target: at once        all have failed: wait ─► a new round
//! ```
//!
//! A phone with no backup contacts has two addresses where its Contact is not its `contact`: when the
//! one cannot be connected to, the other one's turn comes after the wait. Some phones name as Contact
//! the port that their own connection comes from, where nobody listens.
//!
//! A peer's own flow and its address are one target: when the flow dies the address is where it was
//! (`docs/ARCHITECTURE.md`, "Target sets").
//!
//! Over UDP the target is where its Contact or Route says. A request that is too large for a datagram
//! goes over TCP to the same address (RFC 3261 §18.1.1).

use std::rc::Rc;

use super::Leg;
use crate::key::FlowId;
use crate::options::{DeviceKind, Options};
use crate::sip::flow::Direction;
use crate::sip::message::write;
use crate::sip::recovery::Cause;
use crate::sip::transaction::Stack;
use crate::target::{Target, Transport};

/// Bytes of a request that are sent as a datagram where the path's MTU is not known; a larger one goes
/// over TCP (RFC 3261 §18.1.1).
const DATAGRAM_BYTES_MAX: usize = 1300;

/// A target for a request of this size, the request with the Via for it, and true when it goes over TCP for
/// its size alone.
pub(in crate::sip) fn fitting(target: Target, request: Rc<[u8]>) -> (Target, Rc<[u8]>, bool) {
    if !target.transport.is_unreliable() || request.len() <= DATAGRAM_BYTES_MAX {
        return (target, request, false);
    }
    let transport = Transport::Tcp;
    (Target { transport, ..target }, write::with_via_transport(&request, transport), true)
}

/// The place of a phone's `contact` while it stands for the only target. Those of backup contacts are
/// below: `CONTACT_BACKUPS_MAX` is far below 16.
const CONTACT: u8 = 15;

/// How the next request of a leg goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// A flow that is there; `None`: the one to the target.
    flow: Option<FlowId>,
    /// What it goes over: the flow's transport, not always the target's.
    pub(super) transport: Transport,
    pub(super) target: Target,
}

impl Way {
    /// The flow, asked for if it is not there.
    pub(super) fn open(self, stack: &mut Stack) -> FlowId {
        self.flow.unwrap_or_else(|| stack.outbound(self.target))
    }

    /// The same for a request of this size: see [`fitting`].
    pub(super) fn fitting(self, request: Rc<[u8]>) -> (Self, Rc<[u8]>, bool) {
        let here = Target { transport: self.transport, ..self.target };
        match fitting(here, request) {
            (target, request, true) => {
                (Self { flow: None, transport: target.transport, target }, request, true)
            }
            (_, request, false) => (self, request, false),
        }
    }
}

/// Targets of a leg that have failed in this round, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tried(u16);

impl Leg {
    /// The way of the next request: the peer's own flow while it is up, else the one to the target.
    pub(super) fn choose(&self, stack: &Stack) -> Way {
        let target = self.address(&stack.options, self.target).unwrap_or(self.fallback);
        if let Some(id) = self.flow
            && let Some(flow) = stack.flows.get(id)
            && (flow.direction == Direction::Inbound
                || (flow.peer == target.address && flow.transport == target.transport))
        {
            return Way { flow: Some(id), transport: flow.transport, target };
        }
        Way { flow: None, transport: target.transport, target }
    }

    /// The same for an INVITE, which goes to the device itself until its dialog is confirmed: what
    /// an earlier attempt's early dialog says is not where a new one begins.
    pub(super) fn choose_for_invite(&self, stack: &Stack) -> Way {
        if self.confirmed {
            return self.choose(stack);
        }
        let target = match self.target {
            0 => self.fallback,
            index => self.address(&stack.options, index).unwrap_or(self.fallback),
        };
        Way { flow: None, transport: target.transport, target }
    }

    /// The flow that the next request goes down, if it is there.
    pub(in crate::sip) fn flow_in_use(&self, stack: &Stack) -> Option<FlowId> {
        let way = self.choose(stack);
        way.flow.or_else(|| stack.flows.to(way.target))
    }

    /// True when the device can be reached at more than one address.
    pub(in crate::sip) fn has_more_targets(&self, options: &Options) -> bool {
        let first = self.address(options, 0);
        self.backups(options).any(|backup| Some(backup) != first)
    }

    /// The place of a target in the set, if it is one of the set.
    pub(in crate::sip) fn target_at(&self, options: &Options, target: Target) -> Option<u8> {
        (0..self.targets(options)).find(|&index| self.address(options, index) == Some(target))
    }

    /// The target in use has failed. The next one that has not failed in this round is in use now;
    /// `None` when there is none, and the next round begins behind it.
    pub(super) fn next_target(
        &mut self,
        options: &Options,
        cause: Cause,
        tried: &mut Tried,
    ) -> Option<u8> {
        let (count, failed) = (self.targets(options), self.address(options, self.target));
        if count == 1 {
            self.target = self.next_address(options, cause);
            return None;
        }
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

    /// Which address of the only target is next.
    fn next_address(&self, options: &Options, cause: Cause) -> u8 {
        let at_contact = self.target == CONTACT;
        let turn = cause == Cause::Connect && self.confirmed;
        if at_contact != turn && self.has_contact_elsewhere(options) { CONTACT } else { 0 }
    }

    /// True when the device is a phone whose `contact` is not where the dialog goes, by the same
    /// transport. Other devices may name another host on purpose.
    fn has_contact_elsewhere(&self, options: &Options) -> bool {
        let device = self.device.and_then(|id| options.device(id));
        let is_phone = device.is_some_and(|device| {
            device.kind == DeviceKind::Extension && device.outbound.is_none()
        });
        let (contact, dialog) = (self.address(options, CONTACT), self.address(options, 0));
        is_phone
            && contact != dialog
            && contact.map(|target| target.transport) == dialog.map(|target| target.transport)
    }

    fn targets(&self, options: &Options) -> u8 {
        1 + self.backups(options).count().min(usize::from(CONTACT) - 1) as u8
    }

    fn address(&self, options: &Options, index: u8) -> Option<Target> {
        match index {
            0 => Some(self.dialog.next_hop().unwrap_or(self.fallback)),
            CONTACT => {
                let device = options.device(self.device?)?;
                Some(Target { transport: device.transport, address: device.address })
            }
            _ => self.backups(options).nth(usize::from(index) - 1),
        }
    }

    fn backups<'a>(&self, options: &'a Options) -> impl Iterator<Item = Target> + use<'a> {
        let device = self.device.and_then(|id| options.device(id));
        device.into_iter().flat_map(|device| {
            let transport = device.transport;
            device.backups.iter().map(move |&address| Target { transport, address })
        })
    }
}
