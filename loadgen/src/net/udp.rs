//! UDP: one socket for each party; a connection is whom it sends to or hears from.
//!
//! Sockets are std's, without a queue of ours: glommio's cut datagrams when the kernel is short of
//! room. What the kernel does not take now waits, with its boundaries, and is sent a little later.

use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, Socket, Type};

use super::conn::{Hears, Link, Peer, Says};
use super::listen::{Entrance, Socketed};
use super::wire::Wire;
use super::{Closed, Door, Handler, Place, Side, Transport};
use crate::message::{self, Field, Frame};

/// Datagrams read from one socket before the others have their turn.
const READ_BURST: u32 = 64;
/// Errors taken from one socket at a time.
const ERRORS_MAX: u32 = 64;
/// Those whom one party may hear from.
const PEERS_MAX: usize = 4096;
/// What the kernel may hold for a socket, each way; it gives what `net.core.?mem_max` allows.
const KERNEL_BYTES: usize = 4 << 20;
/// Until a datagram is offered again that the kernel had no room for.
const ROOM_WAIT: Duration = Duration::from_micros(200);

/// A party's socket.
pub(super) struct Datagrams {
    pub(super) socket: UdpSocket,
    pub(super) local: SocketAddr,
    side: Side,
    party: u32,
    /// Nothing is read: it is out of the epoll set.
    pub(super) paused: Cell<bool>,
}

impl<H: Handler> Wire<H> {
    pub(super) fn bind_datagrams(
        &self,
        side: Side,
        party: u32,
        address: SocketAddr,
    ) -> io::Result<Rc<Datagrams>> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        let _ = socket.set_recv_buffer_size(KERNEL_BYTES);
        let _ = socket.set_send_buffer_size(KERNEL_BYTES);
        socket.bind(&address.into())?;
        let socket = UdpSocket::from(socket);
        match address.is_ipv4() {
            true => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
            false => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
        }
        let local = socket.local_addr()?;
        Ok(Rc::new(Datagrams { socket, local, side, party, paused: Cell::new(false) }))
    }

    /// The connection of a party to `to`, from the party's socket or a new one at `from`.
    pub(super) fn connect_datagrams(
        self: &Rc<Self>,
        side: Side,
        party: u32,
        from: SocketAddr,
        to: SocketAddr,
    ) -> io::Result<u32> {
        let has = |entrance: &Entrance| entrance.transport == Transport::Udp;
        let bound = {
            let table = self.table.borrow();
            table.parties.get(&(side, party)).is_some_and(|party| party.entrances.iter().any(has))
        };
        if !bound {
            self.listen(side, party, from, Transport::Udp)?;
        }
        self.peer(side, party, to).ok_or_else(super::too_many)
    }

    /// The connection number of `address`, a new one for a new address.
    fn peer(self: &Rc<Self>, side: Side, party: u32, address: SocketAddr) -> Option<u32> {
        let place = {
            let mut table = self.table.borrow_mut();
            let conn = table.links.len();
            let peers = &mut table.parties.entry((side, party)).or_default().peers;
            if let Some(known) = peers.get(&address) {
                return Some(*known);
            }
            if peers.len() == PEERS_MAX || conn >= self.limits.conns {
                return None;
            }
            let place = Place { conn: conn as u32, side, party, datagrams: true };
            peers.insert(address, place.conn);
            table.links.push(Link::Datagrams(Peer { place, address }));
            place
        };
        self.with(|handler, now| {
            handler.out().open(place.conn, true);
            handler.on_open(place, now);
        });
        Some(place.conn)
    }

    /// Forgets a connection over UDP; whoever sends again gets a new one.
    pub(super) fn close_peer(&self, conn: u32, why: Closed) {
        let place = {
            let mut table = self.table.borrow_mut();
            let Some(Link::Datagrams(peer)) = table.links.get(conn as usize) else { return };
            let (place, address) = (peer.place, peer.address);
            table.links[conn as usize] = Link::Gone;
            if let Some(party) = table.parties.get_mut(&(place.side, place.party)) {
                party.peers.remove(&address);
            }
            place
        };
        self.with(|handler, now| {
            handler.out().close(conn);
            handler.on_closed(place, why, now, now);
        });
    }

    pub(super) fn read_datagrams(self: &Rc<Self>, datagrams: &Datagrams) {
        let mut scratch = self.scratch.borrow_mut();
        for _ in 0..READ_BURST {
            let read =
                rustix::net::recvfrom(&datagrams.socket, &mut scratch[..], RecvFlags::DONTWAIT);
            match read {
                Ok((len, _, Some(from))) => {
                    if let Ok(from) = SocketAddr::try_from(from) {
                        self.on_datagram(datagrams, from, &scratch[..len]);
                    }
                }
                Ok((_, _, None)) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                // The kernel has heard of a datagram that did not arrive.
                Err(_) => self.read_errors(datagrams),
            }
        }
        self.read_errors(datagrams);
    }

    fn on_datagram(self: &Rc<Self>, datagrams: &Datagrams, from: SocketAddr, bytes: &[u8]) {
        let Some(conn) = self.peer(datagrams.side, datagrams.party, from) else {
            self.tally.borrow_mut().datagrams_ignored += 1;
            return;
        };
        if self.lasting(datagrams.side, datagrams.party).0 == Hears::Dropped {
            return;
        }
        let (side, party) = (datagrams.side, datagrams.party);
        let place = Place { conn, side, party, datagrams: true };
        self.with(|handler, now| match message::next(bytes) {
            Frame::Blank(_, true) => {
                handler.out().message(conn, |out| out.extend_from_slice(b"\r\n"));
            }
            Frame::Message(mut message, len) => {
                let stated = || {
                    message::headers(message.headers)
                        .any(|(name, _)| message::field_of(name) == Field::ContentLength)
                };
                // Without a Content-Length the body ends with the datagram (RFC 3261 §18.3).
                if len < bytes.len() && !stated() {
                    message.body = &bytes[len..];
                }
                handler.on_message(place, &message, now);
            }
            Frame::Blank(_, false) => {}
            Frame::Partial | Frame::Bad => self.tally.borrow_mut().datagrams_ignored += 1,
        });
    }

    /// Tells the handler which datagrams did not arrive.
    fn read_errors(&self, datagrams: &Datagrams) {
        for _ in 0..ERRORS_MAX {
            let Some((to, error)) = next_error(&datagrams.socket) else { return };
            let conn = {
                let table = self.table.borrow();
                let party = table.parties.get(&(datagrams.side, datagrams.party));
                party.and_then(|party| party.peers.get(&to).copied())
            };
            if let Some(conn) = conn {
                self.tell_error(conn, &error);
            }
        }
    }

    fn tell_error(&self, conn: u32, error: &io::Error) {
        let place = match self.table.borrow().links.get(conn as usize) {
            Some(Link::Datagrams(peer)) => peer.place,
            Some(Link::Stream(_) | Link::Gone) | None => return,
        };
        self.with(|handler, now| handler.on_error(place, error, now));
    }

    /// Sends what waits for connections over UDP, until the end.
    pub(super) async fn write_datagrams(self: Rc<Self>) {
        loop {
            let conn = std::future::poll_fn(|cx| {
                self.datagram_writer.set(Some(cx.waker().clone()));
                match self.datagrams_dirty.borrow_mut().pop_front() {
                    Some(conn) => Poll::Ready(conn),
                    None => Poll::Pending,
                }
            })
            .await;
            self.send_waiting(conn).await;
        }
    }

    async fn send_waiting(&self, conn: u32) {
        let (bytes, ends) = self.with_quietly(|handler| handler.out().take(conn));
        let mut start = 0;
        for end in ends {
            let whole = &bytes[start..end as usize];
            start = end as usize;
            // Looked up for each: a fault may strike between two.
            let Some((datagrams, to, says)) = self.route(conn) else { break };
            let datagram = match says {
                Says::Nothing | Says::Ended => continue,
                Says::Cut => {
                    self.cut_is_done(&datagrams);
                    &whole[..whole.len() / 2]
                }
                Says::All | Says::Slow(_) => whole,
            };
            if let Err(error) = self.send(&datagrams, datagram, to).await {
                self.tell_error(conn, &error);
            }
        }
        self.with_quietly(|handler| handler.out().recycle(bytes));
    }

    fn cut_is_done(&self, datagrams: &Datagrams) {
        let mut table = self.table.borrow_mut();
        if let Some(party) = table.parties.get_mut(&(datagrams.side, datagrams.party)) {
            party.lasting.1 = Says::All;
        }
    }

    fn route(&self, conn: u32) -> Option<(Rc<Datagrams>, SocketAddr, Says)> {
        let table = self.table.borrow();
        let Some(Link::Datagrams(peer)) = table.links.get(conn as usize) else { return None };
        let party = table.parties.get(&(peer.place.side, peer.place.party))?;
        let socket = party.entrances.iter().find_map(|entrance| match &entrance.open {
            Some((_, Socketed::Datagrams(datagrams))) => Some(Rc::clone(datagrams)),
            Some((_, Socketed::Stream(_))) | None => None,
        })?;
        Some((socket, peer.address, party.lasting.1))
    }

    async fn send(&self, datagrams: &Datagrams, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut told = false;
        loop {
            match rustix::net::sendto(&datagrams.socket, bytes, flags, &to) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => {
                    glommio::timer::sleep(ROOM_WAIT).await;
                }
                // That of an earlier datagram, as the error queue tells.
                Err(_) if !told => {
                    told = true;
                    self.read_errors(datagrams);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads a party's datagrams again, or leaves them in the kernel.
    pub(super) fn pause_datagrams(&self, side: Side, party: u32, paused: bool) {
        let mut table = self.table.borrow_mut();
        let Some(party) = table.parties.get_mut(&(side, party)) else { return };
        for entrance in party.entrances.iter_mut().filter(|e| e.door != Door::Refuse) {
            let Some((key, Socketed::Datagrams(datagrams))) = &mut entrance.open else { continue };
            if datagrams.paused.replace(paused) == paused {
                continue;
            }
            if paused {
                self.ready.remove(*key);
            } else {
                let source = super::ready::Source::Datagrams(Rc::clone(datagrams));
                if let Ok(again) = self.ready.add(&datagrams.socket, source) {
                    *key = again;
                }
            }
        }
    }
}

/// The next error that the network sent, and whom it is about.
fn next_error(socket: &UdpSocket) -> Option<(SocketAddr, io::Error)> {
    let mut head = [0; 1];
    let mut parts = [IoSliceMut::new(&mut head)];
    let mut space = nix::cmsg_space!(nix::libc::sock_extended_err, nix::libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let fd = socket.as_raw_fd();
    let told = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), flags).ok()?;
    let number = told.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
            i32::try_from(error.ee_errno).ok()
        }
        _ => None,
    })?;
    let address = told.address?;
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    let to = v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))?;
    Some((to, io::Error::from_raw_os_error(number)))
}
