//! A worker's connections: their table, their opening and their end.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::task::Waker;
use std::time::Instant;

use super::conn::{Conn, Hears, Link, Says, State};
use super::connect::{Dial, Ticket};
use super::listen::Entrance;
use super::ready::Ready;
use super::{Closed, Handler, Limits, Place, Side, Tally, Tls};

/// Bytes that one read may take; idle connections share the one buffer.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// A handler and its connections; one for each worker, on that worker's executor.
///
/// A listening address belongs to one worker: two cannot share it.
pub(crate) struct Wire<H: Handler> {
    handler: RefCell<H>,
    pub(super) table: RefCell<Table>,
    pub(super) scratch: RefCell<Box<[u8]>>,
    /// As `scratch`, for what TLS has decrypted.
    pub(super) plain: RefCell<Box<[u8]>>,
    pub(super) tls: Option<Tls>,
    pub(super) limits: Limits,
    pub(super) ready: Ready,
    /// Turns of those who connect.
    pub(super) connects: glommio::sync::Semaphore,
    /// Connections over UDP that have something to send.
    pub(super) datagrams_dirty: RefCell<VecDeque<u32>>,
    pub(super) datagram_writer: Cell<Option<Waker>>,
    pub(super) ended: Cell<bool>,
    pub(super) tally: RefCell<Tally>,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) links: Vec<Link>,
    pub(super) parties: BTreeMap<(Side, u32), Party>,
}

#[derive(Default)]
pub(super) struct Party {
    pub(super) entrances: Vec<Entrance>,
    pub(super) conns: BTreeSet<u32>,
    /// Connections over UDP.
    pub(super) peers: BTreeMap<SocketAddr, u32>,
    /// Faults that hold for connections to come, too.
    pub(super) lasting: (Hears, Says),
}

impl<H: Handler> Wire<H> {
    /// `tls` is needed for connections and listeners of [`Transport::Tls`](super::Transport::Tls).
    ///
    /// # Errors
    /// What the machine does not allow.
    pub(crate) fn new(mut handler: H, tls: Option<Tls>, limits: Limits) -> io::Result<Rc<Self>> {
        handler.out().set_limit(limits.outbox_bytes);
        let wire = Rc::new(Self {
            handler: RefCell::new(handler),
            table: RefCell::default(),
            scratch: RefCell::new(vec![0; READ_BYTES].into_boxed_slice()),
            plain: RefCell::new(vec![0; READ_BYTES].into_boxed_slice()),
            tls,
            limits,
            ready: Ready::new()?,
            connects: glommio::sync::Semaphore::new(limits.connects as u64),
            datagrams_dirty: RefCell::default(),
            datagram_writer: Cell::default(),
            ended: Cell::new(false),
            tally: RefCell::new(Tally::new(Instant::now())),
        });
        glommio::spawn_local(Rc::clone(&wire).watch()).detach();
        glommio::spawn_local(Rc::clone(&wire).write_datagrams()).detach();
        Ok(wire)
    }

    /// Does something with the handler, then sees to what it wants to send.
    pub(crate) fn with<T>(&self, what: impl FnOnce(&mut H, Instant) -> T) -> T {
        let mut handler = self.handler.borrow_mut();
        let result = what(&mut handler, Instant::now());
        self.wake_writers(&mut handler);
        result
    }

    /// Does something with the handler that gives it nothing to send.
    pub(super) fn with_quietly<T>(&self, what: impl FnOnce(&mut H) -> T) -> T {
        what(&mut self.handler.borrow_mut())
    }

    fn wake_writers(&self, handler: &mut H) {
        let out = handler.out();
        if out.is_clean() {
            return;
        }
        let dirty = out.take_dirty();
        let table = self.table.borrow();
        for id in &dirty {
            match table.links.get(*id as usize) {
                Some(Link::Stream(conn)) => {
                    if out.is_overflown(*id) {
                        conn.overflown.set(true);
                    }
                    conn.wake_writer();
                }
                Some(Link::Datagrams(_)) => {
                    self.datagrams_dirty.borrow_mut().push_back(*id);
                    if let Some(waker) = self.datagram_writer.take() {
                        waker.wake();
                    }
                }
                Some(Link::Gone) | None => {}
            }
        }
        out.keep_room(dirty);
    }

    /// Makes a connection of a stream. `None` and the stream is closed: there are too many.
    pub(super) fn adopt(
        self: &Rc<Self>,
        stream: TcpStream,
        side: Side,
        party: u32,
        tls: Option<rustls::Connection>,
        stalled: bool,
        dialled: Option<(Rc<Dial>, Rc<Ticket>)>,
    ) -> Option<Rc<Conn>> {
        // Without it 40 ms of Nagle and delayed ACK would be measured.
        let _ = stream.set_nodelay(true);
        let (dial, ticket) = dialled.unzip();
        let conn = {
            let mut table = self.table.borrow_mut();
            let id = table.links.len();
            if id >= self.limits.conns || self.ended.get() {
                return None;
            }
            let of_party = table.parties.entry((side, party)).or_default();
            of_party.conns.insert(id as u32);
            let place = Place { conn: id as u32, side, party, datagrams: false };
            let conn = Conn::new(place, stream, tls, stalled, of_party.lasting);
            conn.dial.replace(dial);
            conn.ticket.replace(ticket);
            let conn = Rc::new(conn);
            table.links.push(Link::Stream(Rc::clone(&conn)));
            conn
        };
        if let Hears::Slow(_) = conn.hears.get() {
            super::fault::shrink_buffer(&conn);
        }
        if self.ready.add_stream(&conn.stream, conn.place.conn).is_err() {
            self.close_conn(&conn, Closed::Failed(io::ErrorKind::OutOfMemory));
            return None;
        }
        glommio::spawn_local(Rc::clone(self).read(Rc::clone(&conn))).detach();
        glommio::spawn_local(Rc::clone(self).write(Rc::clone(&conn))).detach();
        if conn.tls.is_none() && !stalled {
            self.opened(&conn);
        }
        Some(conn)
    }

    /// The connection can carry messages.
    pub(super) fn opened(&self, conn: &Conn) {
        conn.state.set(State::Open);
        let accepted = conn.dial.borrow().is_none();
        self.with(|handler, now| {
            self.tally.borrow_mut().opened(accepted, now);
            handler.out().open(conn.place.conn, false);
            handler.on_open(conn.place, now);
        });
        if let Some(ticket) = conn.ticket.take() {
            ticket.open(conn.place.conn);
        }
    }

    /// The one way a stream ends.
    pub(super) fn close_conn(self: &Rc<Self>, conn: &Conn, why: Closed) {
        let before = conn.state.replace(State::Closed);
        if before == State::Closed {
            return;
        }
        // Its tasks hold it until their next turn: end it now.
        let _ = conn.stream.shutdown(std::net::Shutdown::Both);
        let Place { conn: id, side, party, .. } = conn.place;
        {
            let mut table = self.table.borrow_mut();
            table.links[id as usize] = Link::Gone;
            if let Some(party) = table.parties.get_mut(&(side, party)) {
                party.conns.remove(&id);
            }
        }
        conn.wake();
        self.with(|handler, now| {
            handler.out().close(id);
            if before == State::Open {
                handler.on_closed(conn.place, why, conn.ended(why, now), now);
            }
        });
        if before == State::Opening && !conn.stalled && conn.dial.borrow().is_none() {
            self.tally.borrow_mut().handshakes_failed += 1;
        }
        if let Some(ticket) = conn.ticket.take() {
            let kind = match why {
                Closed::Eof => io::ErrorKind::UnexpectedEof,
                Closed::Reset => io::ErrorKind::ConnectionReset,
                Closed::Failed(kind) => kind,
                Closed::Tls => io::ErrorKind::InvalidData,
                Closed::Struck | Closed::NotSip | Closed::Overflow => {
                    io::ErrorKind::ConnectionAborted
                }
            };
            ticket.fail(kind.into());
        }
        // One that never was open is tried again by whoever asked for it.
        if let (State::Open, Some(dial)) = (before, conn.dial.take()) {
            self.dial_again(dial);
        }
    }

    /// What became of connections so far.
    pub(crate) fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }

    /// The open connections of a party.
    #[cfg(test)]
    pub(crate) fn conns_of(&self, side: Side, party: u32) -> Vec<u32> {
        let table = self.table.borrow();
        let Some(party) = table.parties.get(&(side, party)) else { return Vec::new() };
        let is_open = |id: &u32| {
            let link = table.links.get(*id as usize);
            matches!(link, Some(Link::Stream(conn)) if conn.state.get() == State::Open)
        };
        let streams = party.conns.iter().copied().filter(is_open);
        streams.chain(party.peers.values().copied()).collect()
    }

    /// Closes a connection in order, and for good; what waits to be written is lost.
    pub(crate) fn close(self: &Rc<Self>, conn: u32) {
        match self.stream(conn) {
            Some(conn) => {
                conn.dial.take();
                self.finish(&conn);
            }
            None => self.close_peer(conn, Closed::Struck),
        }
    }

    pub(super) fn stream(&self, conn: u32) -> Option<Rc<Conn>> {
        match self.table.borrow().links.get(conn as usize) {
            Some(Link::Stream(conn)) => Some(Rc::clone(conn)),
            Some(Link::Datagrams(_) | Link::Gone) | None => None,
        }
    }

    /// Every stream of a party, those that are still opening included.
    pub(super) fn streams_of(&self, side: Side, party: u32) -> Vec<Rc<Conn>> {
        let table = self.table.borrow();
        let Some(party) = table.parties.get(&(side, party)) else { return Vec::new() };
        let stream = |id: &u32| match table.links.get(*id as usize) {
            Some(Link::Stream(conn)) => Some(Rc::clone(conn)),
            Some(Link::Datagrams(_) | Link::Gone) | None => None,
        };
        party.conns.iter().filter_map(stream).collect()
    }

    /// Closes everything; nothing is connected again.
    pub(crate) fn end(self: &Rc<Self>) {
        self.ended.set(true);
        self.close_entrances();
        let count = self.table.borrow().links.len() as u32;
        for conn in 0..count {
            self.close(conn);
        }
    }
}
