//! Datagrams in a shard: which shard handles one, what it is a message of, and what never arrived.
//!
//! A peer over UDP needs no shard of its own: the home of a call answers from its own socket, which
//! has the same address. So a datagram crosses the mesh and nothing comes back.

use std::net::SocketAddr;
use std::rc::Rc;

use super::{After, Place, Protocol, Shard};
use crate::key::FlowId;
use crate::net::{Host, Undelivered};
use crate::sip::message::{FrameError, datagram};
use crate::sip::{Input, NewFlow};

impl<P: Protocol> Shard<P> {
    /// A datagram was read here.
    pub(super) fn on_datagram(self: &Rc<Self>, ends: NewFlow, bytes: &[u8]) {
        let Some(message) = datagram(bytes) else { return };
        if self.mesh.has_others()
            && let Some(home) = self.home(message)
            && let Some(taken) = self.mesh.forward_datagram(home, ends, message)
        {
            return self.net.tally.count(|stats| match taken {
                true => stats.forwarded += 1,
                false => stats.forward_drops += 1,
            });
        }
        self.handle_datagram(ends, message);
    }

    /// A message that was read here or at another shard.
    pub(super) fn handle_datagram(self: &Rc<Self>, ends: NewFlow, bytes: &[u8]) {
        let Some(flow) = self.take(ends) else {
            self.net.tally.limited(self.now(), |stats| &mut stats.refused);
            return self.rearm();
        };
        self.places.borrow_mut().insert(flow, Place::Datagrams { peer: ends.peer });
        let bytes_max = self.net.message_bytes_max();
        if bytes.len() > bytes_max {
            let error = FrameError::MessageTooLarge { bytes: bytes.len(), bytes_max };
            return self.turn(Input::Unframed { flow, bytes, error });
        }
        self.turn(Input::Message { flow, bytes, waited: self.net.rounds.waited(self.now()) });
    }

    /// Sends a datagram; what is found not to arrive is handed in after the turn.
    pub(super) fn send_datagram(&self, flow: FlowId, peer: SocketAddr, bytes: &[u8]) {
        let mut failed = Vec::new();
        let sent = self.net.send_datagram(peer, bytes, |undelivered| failed.push(undelivered));
        for undelivered in failed {
            self.note_undelivered(undelivered);
        }
        if let Err(error) = sent {
            self.places.borrow_mut().remove(flow);
            self.net.tally.failed(self.now(), error);
            self.after.borrow_mut().push_back(After::Failed { flow, error });
        }
    }

    /// A datagram to a peer did not arrive; that is handed in after the turn, here and at the other
    /// shards. The kernel tells the socket that hears from the peer, which need not be the one that
    /// sent.
    pub(super) fn note_undelivered(&self, undelivered: Undelivered) {
        self.net.tally.failed(self.now(), undelivered.error);
        self.mesh.undelivered(undelivered);
        self.after.borrow_mut().push_back(After::Undelivered(undelivered));
    }
}
