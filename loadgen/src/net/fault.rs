//! What parties suffer, without root.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Instant;

use super::conn::{Conn, Hears, Link, Says, State, abort};
use super::wire::Wire;
use super::{Closed, Door, Fault, Handler, Side, Struck, Transport};

/// Room in the kernel for what a slow reader has not read, in bytes; it takes the least it can.
const SLOW_BUFFER: usize = 2048;
/// The same, when it reads as others do again.
const USUAL_BUFFER: usize = 128 * 1024;
/// Reads that empty the kernel before a connection is closed in order.
const DRAIN_READS_MAX: u32 = 1024;

impl<H: Handler> Wire<H> {
    /// Lets a party suffer `fault`: all its open connections, and its listener. Gives each
    /// connection that was struck and the instant just before.
    ///
    /// [`Fault::CutInside`] strikes with the next message: [`Handler::on_closed`] says when. Over
    /// UDP, [`Fault::Refuse`] closes the socket, [`Fault::CutInside`] sends half a datagram,
    /// [`Fault::Blackhole`] and [`Fault::StopReading`] are as elsewhere; others do nothing.
    ///
    /// # Errors
    /// A listener that cannot be opened again.
    pub(crate) fn strike(
        self: &Rc<Self>,
        side: Side,
        party: u32,
        fault: Fault,
    ) -> io::Result<Vec<Struck>> {
        let door = match fault {
            Fault::Refuse => Some(Door::Refuse),
            Fault::AcceptThenClose => Some(Door::AcceptThenClose),
            Fault::HandshakeStall => Some(Door::Stall),
            _ => None,
        };
        if let Some(door) = door {
            return self.set_door(side, party, door).map(|()| Vec::new());
        }
        self.keep_lasting(side, party, fault);
        let conns = self.streams_of(side, party);
        if fault == Fault::Reset {
            // All at once: what the handler makes of it comes after the last.
            let struck = conns.iter().filter_map(|conn| self.reset(conn)).collect();
            conns.iter().for_each(|conn| self.close_conn(conn, Closed::Struck));
            return Ok(struck);
        }
        Ok(conns.iter().filter_map(|conn| self.strike_stream(conn, fault)).collect())
    }

    /// Lets one connection suffer `fault`; `None` when it is gone or one over UDP, or the fault is
    /// one of listeners.
    #[cfg(test)]
    pub(crate) fn strike_conn(self: &Rc<Self>, conn: u32, fault: Fault) -> Option<Struck> {
        let conn = self.stream(conn)?;
        if fault == Fault::Reset {
            let struck = self.reset(&conn);
            self.close_conn(&conn, Closed::Struck);
            return struck;
        }
        self.strike_stream(&conn, fault)
    }

    fn reset(&self, conn: &Conn) -> Option<Struck> {
        if conn.state.get() == State::Closed {
            return None;
        }
        let at = Instant::now();
        abort(conn);
        Some(Struck { conn: conn.place.conn, at })
    }

    fn strike_stream(self: &Rc<Self>, conn: &Rc<Conn>, fault: Fault) -> Option<Struck> {
        if conn.state.get() == State::Closed || conn.stalled {
            return None;
        }
        let at = Instant::now();
        match fault {
            Fault::Reset => abort(conn),
            Fault::Fin => self.finish(conn),
            Fault::HalfClose => self.half_close(conn),
            Fault::TlsAlert => self.alert(conn),
            Fault::CutInside => conn.says.set(Says::Cut),
            Fault::Blackhole | Fault::StopReading => {}
            Fault::SlowReader { .. } => shrink_buffer(conn),
            Fault::SlowWriter { .. } => {}
            Fault::Refuse | Fault::AcceptThenClose | Fault::HandshakeStall => return None,
        }
        apply(conn, lasting_of(fault));
        Some(Struck { conn: conn.place.conn, at })
    }

    /// Closes in order: what has come is taken off the kernel first, or it would reset.
    pub(super) fn finish(self: &Rc<Self>, conn: &Rc<Conn>) {
        self.say_end(conn);
        let mut waste = [0; 4096];
        for _ in 0..DRAIN_READS_MAX {
            if !(&conn.stream).read(&mut waste).is_ok_and(|len| len > 0) {
                break;
            }
        }
        self.close_conn(conn, Closed::Struck);
    }

    fn half_close(&self, conn: &Conn) {
        self.say_end(conn);
        conn.says.set(Says::Ended);
        let _ = conn.stream.shutdown(Shutdown::Write);
    }

    /// The close_notify of TLS, behind what is pending.
    fn say_end(&self, conn: &Conn) {
        if let Some(tls) = &conn.tls {
            tls.borrow_mut().send_close_notify();
        }
        self.say_last_words(conn);
    }

    /// A fatal alert: our own TLS stumbles over a forged record and tells the peer so.
    fn alert(self: &Rc<Self>, conn: &Rc<Conn>) {
        const FORGED: [u8; 21] = {
            let mut record = [0; 21];
            // Application data, TLS 1.2, 16 bytes: nobody has the key for these.
            (record[0], record[1], record[2], record[4]) = (23, 3, 3, 16);
            record
        };
        if let Some(tls) = &conn.tls {
            let mut tls = tls.borrow_mut();
            let _ = tls.read_tls(&mut &FORGED[..]);
            let _ = tls.process_new_packets();
        }
        self.say_last_words(conn);
        self.finish(conn);
    }

    /// Gives the kernel what is pending and what TLS has to say; what it does not take is lost.
    pub(super) fn say_last_words(&self, conn: &Conn) {
        // Being written by the caller: then there is nothing to add.
        let Ok(mut pending) = conn.pending.try_borrow_mut() else { return };
        conn.pull_tls(&mut pending);
        let _ = (&conn.stream).write(&pending.bytes[pending.written..]);
        pending.bytes.clear();
        pending.written = 0;
    }

    fn keep_lasting(&self, side: Side, party: u32, fault: Fault) {
        {
            let mut table = self.table.borrow_mut();
            let party = table.parties.entry((side, party)).or_default();
            let (hears, says) = lasting_of(fault);
            party.lasting.0 = hears.unwrap_or(party.lasting.0);
            party.lasting.1 = says.unwrap_or(party.lasting.1);
            let datagrams = |e: &super::listen::Entrance| e.transport == Transport::Udp;
            if fault == Fault::CutInside && party.entrances.iter().any(datagrams) {
                party.lasting.1 = Says::Cut;
            }
        }
        if fault == Fault::StopReading {
            self.pause_datagrams(side, party, true);
        }
    }

    pub(super) fn lasting(&self, side: Side, party: u32) -> (Hears, Says) {
        let table = self.table.borrow();
        table.parties.get(&(side, party)).map(|party| party.lasting).unwrap_or_default()
    }

    /// Ends what lasts of the party's faults: the door opens, connections read and write again.
    /// Those that stalled are closed.
    ///
    /// # Errors
    /// A port that somebody took meanwhile.
    pub(crate) fn lift(self: &Rc<Self>, side: Side, party: u32) -> io::Result<()> {
        if let Some(party) = self.table.borrow_mut().parties.get_mut(&(side, party)) {
            party.lasting = Default::default();
        }
        self.pause_datagrams(side, party, false);
        for conn in self.streams_of(side, party) {
            if conn.stalled {
                self.close_conn(&conn, Closed::Struck);
                continue;
            }
            let heard = conn.hears.get();
            conn.hear(Hears::All);
            if let Hears::Slow(_) = heard {
                let _ = socket2::SockRef::from(&conn.stream).set_recv_buffer_size(USUAL_BUFFER);
            }
            if conn.says.get() != Says::Ended {
                conn.says.set(Says::All);
            }
            conn.wake();
        }
        self.set_door(side, party, Door::Open)
    }

    /// Bytes that the kernel holds for connections of `side` that do not read.
    pub(crate) fn bytes_unread(&self, side: Side) -> u64 {
        let table = self.table.borrow();
        let unread = |link: &Link| match link {
            Link::Stream(conn) if conn.place.side == side => {
                rustix::io::ioctl_fionread(&conn.stream).ok()
            }
            Link::Stream(_) | Link::Datagrams(_) | Link::Gone => None,
        };
        table.links.iter().filter_map(unread).sum()
    }
}

/// What a fault does to connections to come.
fn lasting_of(fault: Fault) -> (Option<Hears>, Option<Says>) {
    match fault {
        Fault::Blackhole => (Some(Hears::Dropped), Some(Says::Nothing)),
        Fault::StopReading => (Some(Hears::Nothing), None),
        Fault::SlowReader { bytes_per_second } => (Some(Hears::Slow(bytes_per_second)), None),
        Fault::SlowWriter { gap } => (None, Some(Says::Slow(gap))),
        _ => (None, None),
    }
}

fn apply(conn: &Conn, (hears, says): (Option<Hears>, Option<Says>)) {
    conn.hear(hears.unwrap_or(conn.hears.get()));
    if conn.says.get() != Says::Ended {
        conn.says.set(says.unwrap_or(conn.says.get()));
    }
}

/// Lets the kernel hold little for a connection, so that its peer feels what it does not read.
pub(super) fn shrink_buffer(conn: &Conn) {
    let _ = socket2::SockRef::from(&conn.stream).set_recv_buffer_size(SLOW_BUFFER);
}
