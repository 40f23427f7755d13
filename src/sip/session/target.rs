//! Where the requests of a leg go: its target set, and which target is next.
//!
//! ```text
//! set:   0  the peer's own flow while it is up, else the dialog's next hop (a new INVITE: contact)
//!        1… where the device has backup contacts: its contact and those, in order
//!
//! attempt fails ─► an untried target: at once        all have failed: wait ─► a new round
//! ```
//!
//! A phone with no backup contacts has two addresses where its Contact is not its `contact`: when the
//! one cannot be connected to, the other one's turn comes after the wait. Some phones name as Contact
//! the port that their own connection comes from, where nobody listens. The same holds for any device whose
//! Contact is a name: the address that took its INVITE and its `contact`, which DNS may have moved since.
//!
//! A peer's own flow and its address are one target: when the flow dies the address is where it was
//! (`docs/ARCHITECTURE.md`, "Target sets"). Targets that could not be reached lately are tried last.
//!
//! The target in use is kept as what it is, not as its place in the set: the set may be another one after
//! a look-up of the device's name, and a call stays where it is.
//!
//! Over UDP the target is where its Contact or Route says. A request that is too large for a datagram
//! goes over TCP to the same address (RFC 3261 §18.1.1).

use super::Leg;
use crate::key::FlowId;
use crate::options::{CONTACT_BACKUPS_MAX, DeviceKind, NAME_TARGETS_MAX, Options};
use crate::sip::flow::Direction;
use crate::sip::kept::Kept;
use crate::sip::message::write;
use crate::sip::recovery::Cause;
use crate::sip::transaction::Stack;
use crate::target::{Target, Transport};

/// Bytes of a request that are sent as a datagram where the path's MTU is not known; a larger one goes
/// over TCP (RFC 3261 §18.1.1).
const DATAGRAM_BYTES_MAX: usize = 1300;

/// A target for a request of this size, the request with the Via for it, and true when it goes over TCP for
/// its size alone.
pub(in crate::sip) fn fitting(
    stack: &mut Stack,
    target: Target,
    mut request: Kept,
) -> (Target, Kept, bool) {
    if !target.transport.is_unreliable() || request.len() <= DATAGRAM_BYTES_MAX {
        return (target, request, false);
    }
    let transport = Transport::Tcp;
    let bytes = write::with_via_transport(&request, transport);
    stack.pool.replace(&mut request, &bytes);
    (Target { transport, ..target }, request, true)
}

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
    pub(super) fn fitting(self, stack: &mut Stack, request: Kept) -> (Self, Kept, bool) {
        let here = Target { transport: self.transport, ..self.target };
        match fitting(stack, here, request) {
            (target, request, true) => {
                (Self { flow: None, transport: target.transport, target }, request, true)
            }
            (_, request, false) => (self, request, false),
        }
    }
}

/// Targets of a leg that have failed in this round, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tried(u32);

/// Targets of a leg: where its dialog is, its contact, and what names or a configuration give besides.
const TARGETS_MAX: usize = 2 + NAME_TARGETS_MAX;

const _: () = assert!(CONTACT_BACKUPS_MAX <= NAME_TARGETS_MAX && TARGETS_MAX <= 32);

impl Leg {
    /// The way of the next request: the peer's own flow while it is up, else the one to the target.
    pub(super) fn choose(&self, stack: &Stack) -> Way {
        let target = self.in_use();
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
        let target = self.target.unwrap_or(self.fallback);
        Way { flow: None, transport: target.transport, target }
    }

    /// The flow that the next request goes down, if it is there.
    pub(in crate::sip) fn flow_in_use(&self, stack: &Stack) -> Option<FlowId> {
        let way = self.choose(stack);
        way.flow.or_else(|| stack.flows.to(way.target))
    }

    /// True when the device can be reached at more than one address.
    pub(in crate::sip) fn has_more_targets(&self, options: &Options) -> bool {
        let first = self.origin();
        self.further(options).any(|target| target != first)
    }

    /// True when `target` is one of the set.
    pub(in crate::sip) fn is_target(&self, options: &Options, target: Target) -> bool {
        self.targets(options).any(|other| other == target)
    }

    /// The next request goes to one of the set.
    pub(super) fn use_target(&mut self, target: Target) {
        self.target = (target != self.origin()).then_some(target);
    }

    /// A new INVITE begins with the first target that is not set aside, if there is one.
    pub(in crate::sip) fn begin_with_reachable(&mut self, stack: &Stack) {
        let reachable = |target: &Target| !stack.aside.contains(*target, stack.now);
        if let Some(target) = self.targets(&stack.options).find(reachable) {
            self.use_target(target);
        }
    }

    /// The dialog is confirmed: requests go where it says (RFC 3261 §12.2.1.1), unless that is a name: then
    /// to the target that took its INVITE.
    pub(in crate::sip) fn settle(&mut self) {
        self.target = self.target.filter(|_| self.dialog.next_hop().is_none());
    }

    /// The target in use has failed. The next one that has not failed in this round is in use now, those that
    /// are set aside last; false when there is none, and the next round begins behind it.
    pub(super) fn next_target(&mut self, stack: &Stack, cause: Cause, tried: &mut Tried) -> bool {
        let mut set: Vec<Target> = Vec::new();
        for target in self.targets(&stack.options) {
            if !set.contains(&target) {
                set.push(target);
            }
        }
        if set.len() == 1 {
            self.target = self.next_address(&stack.options, cause);
            return false;
        }
        let failed = self.target.unwrap_or_else(|| self.origin());
        let behind = match set.iter().position(|target| *target == failed) {
            Some(index) => {
                tried.0 |= 1 << index;
                index + 1
            }
            None => 0,
        };
        let round = (0..set.len()).map(|step| (behind + step) % set.len());
        let mut untried = round.filter(|index| tried.0 & (1 << index) == 0);
        let reachable = |index: &usize| !stack.aside.contains(set[*index], stack.now);
        let next = untried.clone().find(reachable).or_else(|| untried.next());
        self.use_target(set[next.unwrap_or(behind % set.len())]);
        next.is_some()
    }

    /// Which address of the only target is next, when it is not the first.
    fn next_address(&self, options: &Options, cause: Cause) -> Option<Target> {
        let contact = self.contact_elsewhere(options);
        let turn = cause == Cause::Connect && self.confirmed;
        let at_contact = contact.is_some() && self.target == contact;
        contact.filter(|_| at_contact != turn)
    }

    /// The `contact` of a phone, or of a device whose dialog names no address, where the dialog goes elsewhere, by
    /// the same transport. Other devices may name another host on purpose.
    fn contact_elsewhere(&self, options: &Options) -> Option<Target> {
        let device = options.device(self.device?)?;
        let at_name = self.dialog.next_hop().is_none();
        let is_own = device.kind == DeviceKind::Extension || at_name;
        let contact = Target { transport: device.transport, address: device.address? };
        let dialog = self.first();
        let elsewhere = contact != dialog && contact.transport == dialog.transport;
        (is_own && elsewhere && !device.has_proxy()).then_some(contact)
    }

    fn in_use(&self) -> Target {
        self.target.unwrap_or_else(|| self.first())
    }

    fn first(&self) -> Target {
        self.dialog.next_hop().unwrap_or(self.fallback)
    }

    /// The first of the set. An early dialog, which may be that of another target, is no target of a new INVITE.
    fn origin(&self) -> Target {
        if self.confirmed { self.first() } else { self.fallback }
    }

    /// The set, in order: at least the first, at most one for each bit of [`Tried`]. One may be there twice.
    fn targets<'a>(&self, options: &'a Options) -> impl Iterator<Item = Target> + use<'a> {
        std::iter::once(self.origin()).chain(self.further(options)).take(TARGETS_MAX)
    }

    /// Every address of a device that has several: the dialog may be at any of them, and DNS may tell them in
    /// another order by now.
    fn further<'a>(&self, options: &'a Options) -> impl Iterator<Item = Target> + use<'a> {
        let device = self.device.and_then(|id| options.device(id));
        device.filter(|device| !device.backups.is_empty()).into_iter().flat_map(|device| {
            let transport = device.transport;
            let addresses = device.address.iter().chain(&device.backups);
            addresses.map(move |&address| Target { transport, address })
        })
    }
}
