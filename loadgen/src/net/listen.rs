//! Listeners and their doors.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::conn::{Hears, Link};
use super::ready::{Event, Source};
use super::udp::Datagrams;
use super::wire::Wire;
use super::{Door, Handler, Side, Transport};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// Connections accepted from one listener before the others have their turn.
const ACCEPT_BURST: u32 = 64;
/// Pause after what failed for want of descriptors or memory.
pub(super) const STARVED_PAUSE: Duration = Duration::from_millis(10);

/// A listener that is open.
pub(super) struct Listening {
    pub(super) socket: TcpListener,
    pub(super) side: Side,
    pub(super) party: u32,
    pub(super) transport: Transport,
    pub(super) door: Cell<Door>,
}

/// Where a party is to be reached.
pub(super) struct Entrance {
    pub(super) address: SocketAddr,
    pub(super) transport: Transport,
    pub(super) door: Door,
    pub(super) open: Option<(u64, Socketed)>,
}

/// The socket of an entrance.
#[derive(Clone)]
pub(super) enum Socketed {
    Stream(Rc<Listening>),
    Datagrams(Rc<Datagrams>),
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl<H: Handler> Wire<H> {
    /// Listens for connections to a party, until the party is told to refuse. Over UDP: binds the
    /// one socket that the party sends from, too. Gives the address, its port chosen where it was 0.
    ///
    /// # Errors
    /// The address cannot be bound, or TLS without certificates.
    pub(crate) fn listen(
        self: &Rc<Self>,
        side: Side,
        party: u32,
        address: SocketAddr,
        transport: Transport,
    ) -> io::Result<SocketAddr> {
        let mut entrance = Entrance { address, transport, door: Door::Open, open: None };
        self.open_entrance(side, party, &mut entrance)?;
        let address = entrance.address;
        let mut table = self.table.borrow_mut();
        table.parties.entry((side, party)).or_default().entrances.push(entrance);
        Ok(address)
    }

    fn open_entrance(
        self: &Rc<Self>,
        side: Side,
        party: u32,
        entrance: &mut Entrance,
    ) -> io::Result<()> {
        if entrance.transport == Transport::Udp {
            let datagrams = self.bind_datagrams(side, party, entrance.address)?;
            entrance.address = datagrams.local;
            let source = Source::Datagrams(Rc::clone(&datagrams));
            let key = self.ready.add(&datagrams.socket, source)?;
            entrance.open = Some((key, Socketed::Datagrams(datagrams)));
            return Ok(());
        }
        if entrance.transport == Transport::Tls && self.tls.is_none() {
            return Err(super::no_tls());
        }
        let socket = bind(entrance.address)?;
        entrance.address = socket.local_addr()?;
        let door = Cell::new(entrance.door);
        let transport = entrance.transport;
        let listening = Rc::new(Listening { socket, side, party, transport, door });
        let source = Source::Listener(Rc::clone(&listening));
        let key = self.ready.add(&listening.socket, source)?;
        entrance.open = Some((key, Socketed::Stream(listening)));
        Ok(())
    }

    /// What the party's listener does from now on; true at once when this returns.
    ///
    /// Over UDP every door but [`Door::Refuse`] is open.
    ///
    /// # Errors
    /// A port that somebody took meanwhile.
    pub(crate) fn set_door(self: &Rc<Self>, side: Side, party: u32, door: Door) -> io::Result<()> {
        let mut entrances = self.take_entrances(side, party);
        let mut result = Ok(());
        for entrance in &mut entrances {
            entrance.door = door;
            match (&entrance.open, door) {
                (_, Door::Refuse) => self.close_entrance(entrance),
                (Some((_, Socketed::Stream(listening))), _) => listening.door.set(door),
                (Some((_, Socketed::Datagrams(_))), _) => {}
                (None, _) => result = result.and(self.open_entrance(side, party, entrance)),
            }
        }
        self.give_entrances(side, party, entrances);
        result
    }

    /// Moves the party's listener to another port (0: any free one) and gives it. Open connections
    /// stay; over UDP what is sent from now on comes from the new port.
    ///
    /// # Errors
    /// The port cannot be bound, or the party does not listen; all stays as it was then.
    pub(crate) fn rebind(self: &Rc<Self>, side: Side, party: u32, port: u16) -> io::Result<u16> {
        let mut old = self.take_entrances(side, party);
        let moved = self.move_all(side, party, &old, port);
        let result = match moved {
            Ok((port, new)) => {
                for entrance in &mut old {
                    self.close_entrance(entrance);
                }
                old = new;
                Ok(port)
            }
            Err(error) => Err(error),
        };
        self.give_entrances(side, party, old);
        result
    }

    fn move_all(
        self: &Rc<Self>,
        side: Side,
        party: u32,
        old: &[Entrance],
        port: u16,
    ) -> io::Result<(u16, Vec<Entrance>)> {
        let (mut port, mut new) = (port, Vec::new());
        for entrance in old {
            let address = SocketAddr::new(entrance.address.ip(), port);
            let (transport, door) = (entrance.transport, entrance.door);
            let mut moved = Entrance { address, transport, door, open: None };
            let opened = self.open_entrance(side, party, &mut moved);
            port = moved.address.port();
            new.push(moved);
            if let Err(error) = opened {
                new.iter_mut().for_each(|entrance| self.close_entrance(entrance));
                return Err(error);
            }
        }
        for entrance in new.iter_mut().filter(|entrance| entrance.door == Door::Refuse) {
            self.close_entrance(entrance);
        }
        match new.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the party listens nowhere")),
            false => Ok((port, new)),
        }
    }

    /// The port that the party listens at, open or not.
    #[cfg(test)]
    pub(crate) fn port_of(&self, side: Side, party: u32) -> Option<u16> {
        let table = self.table.borrow();
        let entrance = table.parties.get(&(side, party))?.entrances.first()?;
        Some(entrance.address.port())
    }

    fn close_entrance(&self, entrance: &mut Entrance) {
        if let Some((key, socket)) = entrance.open.take() {
            self.ready.remove(key);
            // Its last owner: the kernel refuses as soon as this is dropped.
            drop(socket);
        }
    }

    fn take_entrances(&self, side: Side, party: u32) -> Vec<Entrance> {
        let mut table = self.table.borrow_mut();
        let party = table.parties.get_mut(&(side, party));
        party.map(|party| std::mem::take(&mut party.entrances)).unwrap_or_default()
    }

    fn give_entrances(&self, side: Side, party: u32, entrances: Vec<Entrance>) {
        if let Some(party) = self.table.borrow_mut().parties.get_mut(&(side, party)) {
            party.entrances = entrances;
        }
        if self.lasting(side, party).0 == Hears::Nothing {
            self.pause_datagrams(side, party, true);
        }
    }

    /// Closes every listener.
    pub(super) fn close_entrances(&self) {
        let parties: Vec<_> = self.table.borrow().parties.keys().copied().collect();
        for (side, party) in parties {
            for entrance in &mut self.take_entrances(side, party) {
                self.close_entrance(entrance);
            }
        }
    }

    /// Sees to all sockets until the end.
    pub(super) async fn watch(self: Rc<Self>) {
        while !self.ended.get() {
            let Ok(events) = self.ready.wait().await else {
                glommio::timer::sleep(STARVED_PAUSE).await;
                continue;
            };
            let mut starved = false;
            for event in events {
                match event {
                    Event::Source(Source::Listener(listening)) => {
                        starved |= self.accept(&listening).is_err();
                    }
                    Event::Source(Source::Datagrams(datagrams)) => self.read_datagrams(&datagrams),
                    Event::Source(Source::Connecting(ticket)) => ticket.open(()),
                    Event::Stream(conn, change) => {
                        if let Some(Link::Stream(conn)) =
                            self.table.borrow().links.get(conn as usize)
                        {
                            conn.changed(change);
                        }
                    }
                }
            }
            if starved {
                glommio::timer::sleep(STARVED_PAUSE).await;
            }
        }
    }

    fn accept(self: &Rc<Self>, listening: &Listening) -> io::Result<()> {
        for _ in 0..ACCEPT_BURST {
            match listening.socket.accept() {
                Ok((stream, _)) => self.admit(listening, stream),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    fn admit(self: &Rc<Self>, listening: &Listening, stream: TcpStream) {
        let stalled = match listening.door.get() {
            Door::Open => false,
            Door::Stall => true,
            Door::AcceptThenClose | Door::Refuse => return,
        };
        let tls = match (listening.transport, stalled, &self.tls) {
            (Transport::Tls, false, Some(tls)) => {
                let Ok(local) = stream.local_addr() else { return };
                let Ok(accepted) = tls.accept(local.ip()) else { return };
                Some(accepted)
            }
            (Transport::Tcp | Transport::Tls | Transport::Udp, _, _) => None,
        };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        // Beyond the limit of connections it is closed here.
        let _ = self.adopt(stream, listening.side, listening.party, tls, stalled, None);
    }
}
