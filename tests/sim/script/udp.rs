//! What scripts say of peers over UDP.

use std::net::SocketAddr;

use holdfast::target::Transport;

use super::{A, B, C, Script};
use crate::message::Msg;
use crate::peer::MS;
use crate::swarm::{SERVER, device, peer_addr};
use crate::world::Event;

impl Script {
    /// These peers speak UDP from now on.
    pub(crate) fn over_udp(mut self, peers: &[usize]) -> Self {
        for &index in peers {
            let peer = &mut self.world.peers[index];
            peer.transport = Transport::Udp;
            peer.contact = format!("sip:{}@{};transport=udp", peer.name, peer.addr);
            if index != C {
                self.devices[index] = device(peer, &peer.name, None);
            }
        }
        self.options = self.options.with_devices(self.devices.clone());
        self.reload();
        self
    }

    /// Gives device B a backup contact, where C is, over UDP.
    pub(crate) fn backup_over_udp(self) -> Self {
        let mut script = self.backup();
        script.world.peers[C].transport = Transport::Udp;
        script
    }

    /// When the clock was at 0, in microseconds of the world.
    pub(crate) fn zero(&self) -> u64 {
        self.zero
    }

    /// What the clock says, in milliseconds.
    pub(crate) fn elapsed(&self) -> u64 {
        (self.world.now() - self.zero) / MS
    }

    /// A sends its last request again, as it was.
    pub(crate) fn a_repeats(&mut self) {
        let msg = self.ends[A].sent.clone().expect("a request");
        self.transmit(A, None, &msg);
    }

    /// A sends its last INVITE again, as it was.
    pub(crate) fn a_repeats_invite(&mut self) {
        let msg = self.ends[A].sent_invite.clone().expect("an INVITE");
        self.transmit(A, None, &msg);
    }

    /// B answers a request that is no part of its list of requests: a CANCEL.
    pub(crate) fn b_answers_message(&mut self, request: &Msg, status: u16) {
        let mut msg = Msg::response(status, "Answer");
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            msg.add(name, request.text(name));
        }
        self.transmit(B, None, &msg);
    }

    /// An ICMP error about what was sent to a peer reaches the server.
    pub(crate) fn icmp(&mut self, peer: usize) {
        let to = SERVER.parse().expect("an address");
        self.world.schedule.after(0, Event::Icmp { to, about: peer_addr(peer) });
        self.settle();
    }

    /// Connections to a peer are refused from now on, and datagrams are taken.
    pub(crate) fn refuse_tcp(&mut self, peer: usize) {
        self.refuse(peer);
        self.world.packets.hear.insert(peer_addr(peer));
    }

    /// A datagram from anywhere comes to the server.
    pub(crate) fn datagram_from(&mut self, from: SocketAddr, bytes: &[u8]) {
        let to = SERVER.parse().expect("an address");
        self.world.send_datagram(from, to, bytes);
        self.settle();
    }
}
