//! Every socket of a worker in one epoll set, which the ring waits for.
//!
//! Were each socket polled by the ring, each message would interrupt this core: the kernel tells a
//! task of its completions at once, with an interrupt that the sender's core pays for, the server's
//! here. Of a set it tells once, however much comes until somebody looks.
//!
//! The sockets are std's, not glommio's, which faults need too: a listener that is dropped refuses
//! at once, and a stream has a descriptor for calls that glommio has no name for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;

use futures_lite::AsyncRead;
use rustix::event::{Timespec, epoll};

use super::connect::Ticket;
use super::listen::{Listening, STARVED_PAUSE};
use super::udp::Datagrams;

/// Events taken in one turn.
const EVENTS_MAX: usize = 256;

/// In the key of an event: the rest of it is the number of a connection.
const STREAM: u64 = 1 << 63;

/// Something that is waited for.
#[derive(Clone)]
pub(super) enum Source {
    Listener(Rc<Listening>),
    Datagrams(Rc<Datagrams>),
    /// A stream that is not connected yet.
    Connecting(Rc<Ticket<()>>),
}

/// What happened.
pub(super) enum Event {
    Source(Source),
    Stream(u32, Change),
}

/// What became of a stream since the last look at it.
#[derive(Clone, Copy)]
pub(super) struct Change {
    /// There are bytes, or an end.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// An end of it is there or under way, perhaps behind bytes.
    pub(super) ending: bool,
}

impl From<epoll::EventFlags> for Change {
    fn from(flags: epoll::EventFlags) -> Self {
        use epoll::EventFlags as Flags;
        let ending = flags.intersects(Flags::RDHUP | Flags::HUP | Flags::ERR);
        Self {
            readable: ending || flags.contains(Flags::IN),
            writable: flags.intersects(Flags::OUT | Flags::HUP | Flags::ERR),
            ending,
        }
    }
}

/// What becomes readable or writable.
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

    /// Waits for bytes from `socket`, from now on; the key ends it.
    ///
    /// # Errors
    /// No memory in the kernel.
    pub(super) fn add(&self, socket: impl AsFd, source: Source) -> io::Result<u64> {
        self.enter(socket, source, epoll::EventFlags::IN)
    }

    fn enter(
        &self,
        socket: impl AsFd,
        source: Source,
        flags: epoll::EventFlags,
    ) -> io::Result<u64> {
        let key = self.next.get();
        self.next.set(key + 1);
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(key), flags)?;
        self.sources.borrow_mut().insert(key, source);
        Ok(key)
    }

    /// Tells of each change of a stream until it is dropped, and of what it has already.
    ///
    /// # Errors
    /// No memory in the kernel.
    pub(super) fn add_stream(&self, stream: &TcpStream, conn: u32) -> io::Result<()> {
        use epoll::EventFlags as Flags;
        let key = epoll::EventData::new_u64(STREAM | u64::from(conn));
        Ok(epoll::add(&self.epoll, stream, key, Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET)?)
    }

    /// Waits until a stream that connects has done so, or has failed.
    ///
    /// # Errors
    /// No memory in the kernel.
    pub(super) async fn connected(&self, stream: &TcpStream) -> io::Result<()> {
        let ticket = Rc::new(Ticket::default());
        let source = Source::Connecting(Rc::clone(&ticket));
        let key = self.enter(stream, source, epoll::EventFlags::OUT)?;
        let _entry = Entry { ready: self, stream, key };
        ticket.wait().await
    }

    /// Waits for a source no more.
    pub(super) fn remove(&self, key: u64) {
        let source = self.sources.borrow_mut().remove(&key);
        let _ = match &source {
            Some(Source::Listener(listener)) => epoll::delete(&self.epoll, &listener.socket),
            Some(Source::Datagrams(datagrams)) => epoll::delete(&self.epoll, &datagrams.socket),
            Some(Source::Connecting(_)) | None => Ok(()),
        };
    }

    /// Waits for anything to happen, then gives what has. Without a descriptor to wait with it looks
    /// after a pause: what ends meanwhile may free one.
    ///
    /// # Errors
    /// Those of epoll_wait(2).
    pub(super) async fn wait(&self) -> io::Result<Vec<Event>> {
        match rustix::io::fcntl_dupfd_cloexec(&self.epoll, 0) {
            Ok(set) => readable(set).await,
            Err(_) => glommio::timer::sleep(STARVED_PAUSE).await,
        }
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now))?;
        let sources = self.sources.borrow();
        let event = |event: &epoll::Event| match event.data.u64() {
            key if key & STREAM == 0 => sources.get(&key).cloned().map(Event::Source),
            key => Some(Event::Stream(key as u32, event.flags.into())),
        };
        Ok(events.iter().filter_map(event).collect())
    }
}

/// Waits until a set has something to tell.
async fn readable(set: OwnedFd) {
    // A stream is the only thing of glommio's that waits for a descriptor of any kind. Its first
    // read waits for POLLIN; that the set is no socket is found out after that.
    let mut set = glommio::net::TcpStream::from(socket2::Socket::from(TcpStream::from(set)));
    let mut byte = [0];
    let _ = poll_fn(|cx| Pin::new(&mut set).poll_read(cx, &mut byte)).await;
}

/// The place of a stream that connects.
struct Entry<'a> {
    ready: &'a Ready,
    stream: &'a TcpStream,
    key: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.ready.remove(self.key);
        let _ = epoll::delete(&self.ready.epoll, self.stream);
    }
}
