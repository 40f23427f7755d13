//! Listeners and UDP sockets in one epoll set, which the ring waits for.
//!
//! glommio gives no descriptor of its listeners, so they could not be closed at an exact instant
//! (the ring holds them until its next turn), and its datagram sockets copy and cut. Here they are
//! std's: a listener that is dropped refuses at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;

use futures_lite::AsyncRead;
use glommio::net::TcpStream;
use rustix::event::{Timespec, epoll};

use super::listen::Listening;
use super::udp::Datagrams;

/// Events taken in one turn.
const EVENTS_MAX: usize = 256;

/// Something that is waited for.
#[derive(Clone)]
pub(super) enum Source {
    Listener(Rc<Listening>),
    Datagrams(Rc<Datagrams>),
}

/// What becomes readable.
pub(super) struct Ready {
    epoll: OwnedFd,
    next: Cell<u64>,
    sources: RefCell<BTreeMap<u64, Source>>,
}

impl Ready {
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, next: Cell::new(0), sources: RefCell::default() })
    }

    /// Waits for `socket` from now on; the key ends it.
    ///
    /// # Errors
    /// No memory in the kernel.
    pub(super) fn add(&self, socket: impl AsFd, source: Source) -> io::Result<u64> {
        let key = self.next.get();
        self.next.set(key + 1);
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?;
        self.sources.borrow_mut().insert(key, source);
        Ok(key)
    }

    /// Waits for a source no more.
    pub(super) fn remove(&self, key: u64) {
        let source = self.sources.borrow_mut().remove(&key);
        let _ = match &source {
            Some(Source::Listener(listener)) => epoll::delete(&self.epoll, &listener.socket),
            Some(Source::Datagrams(datagrams)) => epoll::delete(&self.epoll, &datagrams.socket),
            None => Ok(()),
        };
    }

    /// Waits for any source, then gives those that are readable.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) async fn wait(&self) -> io::Result<Vec<Source>> {
        // A stream is the only thing of glommio's that waits for a descriptor of any kind. Its
        // first read waits for POLLIN; that the set is no socket is found out after that.
        let set = std::net::TcpStream::from(rustix::io::fcntl_dupfd_cloexec(&self.epoll, 0)?);
        let mut set = TcpStream::from(socket2::Socket::from(set));
        let mut byte = [0];
        let _ = poll_fn(|cx| Pin::new(&mut set).poll_read(cx, &mut byte)).await;
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now))?;
        let sources = self.sources.borrow();
        Ok(events.iter().filter_map(|event| sources.get(&event.data.u64()).cloned()).collect())
    }
}
