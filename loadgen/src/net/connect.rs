//! Connections that a party opens: from its own address, without blocking, and again when lost.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::ready::Ready;
use super::wire::Wire;
use super::{Closed, Handler, Reconnect, Side, Transport};

/// Who connects where.
pub(super) struct Dial {
    pub(super) side: Side,
    pub(super) party: u32,
    from: SocketAddr,
    to: SocketAddr,
    transport: Transport,
    pub(super) again: Reconnect,
}

/// How a connection that was asked for came out: its number, or, of a mere stream, nothing more.
#[derive(Default)]
pub(super) struct Ticket<T = u32> {
    result: RefCell<Option<io::Result<T>>>,
    waker: Cell<Option<Waker>>,
}

impl<T> Ticket<T> {
    pub(super) fn open(&self, what: T) {
        self.settle(Ok(what));
    }

    pub(super) fn fail(&self, error: io::Error) {
        self.settle(Err(error));
    }

    fn settle(&self, result: io::Result<T>) {
        self.result.borrow_mut().get_or_insert(result);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) async fn wait(&self) -> io::Result<T> {
        poll_fn(|cx| match self.result.borrow_mut().take() {
            Some(result) => Poll::Ready(result),
            None => {
                self.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

impl<H: Handler> Wire<H> {
    /// Connects a party to the server from an address of its own (port 0: any) and gives the
    /// connection's number, once [`Handler::on_open`] was called. Over UDP, the party's socket is
    /// used when it has one.
    ///
    /// # Errors
    /// Refused, timed out, no such address, TLS that fails, or a limit. With [`Reconnect::After`]
    /// it is tried again nevertheless, and the handler hears how that ends.
    pub(crate) async fn connect(
        self: &Rc<Self>,
        side: Side,
        party: u32,
        from: SocketAddr,
        to: SocketAddr,
        transport: Transport,
        again: Reconnect,
    ) -> io::Result<u32> {
        let dial = Rc::new(Dial { side, party, from, to, transport, again });
        let result = self.dial(&dial).await;
        if result.is_err() {
            self.dial_again(dial);
        }
        result
    }

    /// As [`connect`](Self::connect), without waiting: the handler hears how it ends.
    pub(crate) fn start_connect(
        self: &Rc<Self>,
        side: Side,
        party: u32,
        from: SocketAddr,
        to: SocketAddr,
        transport: Transport,
        again: Reconnect,
    ) {
        let dial = Rc::new(Dial { side, party, from, to, transport, again });
        let wire = Rc::clone(self);
        glommio::spawn_local(async move {
            if wire.try_dial(&dial).await.is_err() {
                wire.dial_again(dial);
            }
        })
        .detach();
    }

    /// Makes a lost connection anew, as often as it takes.
    pub(super) fn dial_again(self: &Rc<Self>, dial: Rc<Dial>) {
        let Reconnect::After(pause) = dial.again else { return };
        let wire = Rc::clone(self);
        glommio::spawn_local(async move {
            loop {
                glommio::timer::sleep(pause).await;
                if wire.ended.get() || wire.try_dial(&dial).await.is_ok() {
                    return;
                }
            }
        })
        .detach();
    }

    async fn try_dial(self: &Rc<Self>, dial: &Rc<Dial>) -> io::Result<u32> {
        let result = self.dial(dial).await;
        if let Err(error) = &result {
            let (side, party) = (dial.side, dial.party);
            self.with(|handler, now| handler.on_connect_failed(side, party, error, now));
        }
        result
    }

    async fn dial(self: &Rc<Self>, dial: &Rc<Dial>) -> io::Result<u32> {
        let result = self.dial_once(dial).await;
        if let Err(error) = &result {
            self.tally.borrow_mut().failed(error);
        }
        result
    }

    async fn dial_once(self: &Rc<Self>, dial: &Rc<Dial>) -> io::Result<u32> {
        if dial.transport == Transport::Udp {
            return self.connect_datagrams(dial.side, dial.party, dial.from, dial.to);
        }
        let _turn = self.connects.acquire_permit(1).await.map_err(io::Error::from)?;
        if self.ended.get() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let tls = match (dial.transport, &self.tls) {
            (Transport::Tls, Some(tls)) => Some(tls.connect(dial.to.ip())?),
            (Transport::Tls, None) => return Err(super::no_tls()),
            (Transport::Tcp | Transport::Udp, _) => None,
        };
        let began = std::time::Instant::now();
        let limit = self.limits.connect_timeout;
        let stream = within(limit, open(&self.ready, dial.from, dial.to)).await?;
        let ticket = Rc::new(Ticket::default());
        let dialled = Some((Rc::clone(dial), Rc::clone(&ticket)));
        let conn = self
            .adopt(stream, dial.side, dial.party, tls, false, dialled)
            .ok_or_else(super::too_many)?;
        let opened = within(limit.saturating_sub(began.elapsed()), ticket.wait()).await;
        if opened.is_err() {
            self.close_conn(&conn, Closed::Failed(io::ErrorKind::TimedOut));
        }
        opened
    }
}

async fn within<T>(limit: Duration, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    futures_lite::future::or(what, async {
        glommio::timer::sleep(limit).await;
        Err(io::ErrorKind::TimedOut.into())
    })
    .await
}

/// A socket at `from`; a port that it does not name is chosen when it connects, and may serve for
/// other destinations at the same time.
fn bound(from: SocketAddr) -> io::Result<OwnedFd> {
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    if from.port() == 0 {
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    }
    rustix::net::bind(&socket, &from)?;
    Ok(socket)
}

async fn open(ready: &Ready, from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = bound(from)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    ready.connected(&stream).await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_taken_before_the_destination_is_known() {
        let socket = bound(([127, 0, 0, 9], 0).into()).unwrap();
        let local = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
        assert_eq!(local, ([127, 0, 0, 9], 0).into());
    }
}
