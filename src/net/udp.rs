//! UDP: one socket for each listening address and shard, which share the address.
//!
//! ```text
//! socket ──read──► Host::datagram          Action::Send ──► sendto, at once or not at all
//!    └─ error queue ──► Host::undelivered
//! ```
//!
//! The kernel gives all datagrams of one peer to one shard (SO_REUSEPORT); every shard sends from the
//! same address. Nothing waits to be sent: what the kernel does not take is lost, as any datagram may
//! be. ICMP errors come through the socket's error queue (IP_RECVERR), which says whom they are about.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use glommio::net::UdpSocket;
use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{FlowError, Host, NewFlow, READ_BYTES, next_round};
use crate::target::Transport;

/// Datagrams read before the flows have their turn.
const READ_BURST: u32 = 64;
/// Pause after a read that failed for want of memory.
const READ_PAUSE: Duration = Duration::from_millis(100);
/// Errors taken from a queue at a time.
const ERRORS_MAX: usize = 64;

/// A socket for datagrams.
pub(crate) struct Datagrams {
    socket: UdpSocket,
    /// Our end.
    local: SocketAddr,
}

/// Something about a datagram that did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Undelivered {
    /// Where it went.
    pub(crate) peer: SocketAddr,
    /// Why it did not get there.
    pub(crate) error: FlowError,
}

/// Binds a socket of this shard; the kernel spreads peers over all that share the address.
///
/// # Errors
/// As for [`tcp::listen`](super::tcp::listen).
pub(crate) fn bind(address: SocketAddr) -> io::Result<Datagrams> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_cloexec(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    let socket = std::net::UdpSocket::from(socket);
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    }
    Ok(Datagrams { socket: UdpSocket::from(Socket::from(socket)), local: address })
}

/// As [`tcp::probe`](super::tcp::probe): one bind that no other socket may share.
///
/// # Errors
/// As for [`bind`], and when any other socket has the address.
pub(crate) fn probe(address: SocketAddr) -> io::Result<SocketAddr> {
    std::net::UdpSocket::bind(address)?.local_addr()
}

impl Datagrams {
    /// True when `peer` can be sent to from here.
    pub(crate) fn reaches(&self, peer: SocketAddr) -> bool {
        self.local.is_ipv4() == peer.is_ipv4()
    }

    /// Sends one datagram. `undelivered` is told of earlier ones that the kernel has heard of
    /// meanwhile.
    ///
    /// # Errors
    /// There is no way to the peer. A datagram for which there is no room now is lost without one.
    pub(crate) fn send(
        &self,
        peer: SocketAddr,
        bytes: &[u8],
        mut undelivered: impl FnMut(Undelivered),
    ) -> Result<(), FlowError> {
        let flags = (MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).bits();
        let send = || SockRef::from(&self.socket).send_to_with_flags(bytes, &peer.into(), flags);
        let sent = send().or_else(|_| {
            // It may have been told of an earlier datagram: that one's error is in the queue.
            self.errors(&mut undelivered);
            send()
        });
        match sent {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => Ok(()),
                Some(libc::ECONNREFUSED) => Err(FlowError::Refused),
                _ => Err(FlowError::Unreachable),
            },
        }
    }

    /// Empties the error queue.
    fn errors(&self, undelivered: &mut impl FnMut(Undelivered)) {
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        for _ in 0..ERRORS_MAX {
            let mut head = [0; 1];
            let mut parts = [IoSliceMut::new(&mut head)];
            let mut space = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
            let fd = self.socket.as_raw_fd();
            let Ok(message) = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), flags)
            else {
                return;
            };
            let number = message.cmsgs().find_map(|control| match control {
                ControlMessageOwned::Ipv4RecvErr(error, _)
                | ControlMessageOwned::Ipv6RecvErr(error, _) => Some(error.ee_errno as i32),
                _ => None,
            });
            let peer = message.address.as_ref().and_then(to_std);
            if let (Some(peer), Some(error)) = (peer, number.and_then(meaning)) {
                undelivered(Undelivered { peer, error });
            }
        }
    }
}

/// What an ICMP error says of a flow. A datagram that was too large for the path is sent again in
/// fragments.
fn meaning(number: i32) -> Option<FlowError> {
    match number {
        libc::ECONNREFUSED => Some(FlowError::Refused),
        libc::EMSGSIZE => None,
        _ => Some(FlowError::Unreachable),
    }
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

/// Reads for ever.
pub(crate) async fn read_all<H: Host>(host: Rc<H>, datagrams: Rc<Datagrams>) {
    let mut buffer = vec![0; READ_BYTES].into_boxed_slice();
    let mut burst = 0;
    loop {
        match datagrams.socket.recv_from(&mut buffer).await {
            Ok((len, peer)) => {
                host.net().tally.count(|stats| stats.reads += 1);
                host.net().rounds.look(|| host.now());
                let ends = NewFlow { peer, local: datagrams.local, transport: Transport::Udp };
                host.datagram(ends, buffer.get(..len).unwrap_or_default());
            }
            Err(error) => {
                let error = io::Error::from(error);
                let mut failed = Vec::new();
                datagrams.errors(&mut |undelivered| failed.push(undelivered));
                if failed.is_empty() {
                    tracing::debug!(address = %datagrams.local, %error, "cannot read datagrams");
                    if error.kind() == io::ErrorKind::OutOfMemory {
                        glommio::timer::sleep(READ_PAUSE).await;
                    }
                }
                for undelivered in failed {
                    host.undelivered(undelivered);
                }
                next_round().await;
            }
        }
        burst += 1;
        if burst % READ_BURST == 0 {
            next_round().await;
        }
    }
}
