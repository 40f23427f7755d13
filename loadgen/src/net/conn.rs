//! A connection over TCP or TLS: its state, one reading and one writing task.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::connect::{Dial, Ticket};
use super::ready::Change;
use super::wire::{READ_BYTES, Wire};
use super::{Closed, Handler, Place};
use crate::message::{self, Frame};

/// What a connection that fills the buffer waits, so that the others have their turn.
const OTHERS_TURN: Duration = Duration::from_micros(20);
/// Between two reads of a slow reader that reads at least one byte each time.
const SLOW_STEP: Duration = Duration::from_millis(50);

/// What lies in the kernel is read by then, when a connection reads again.
const CATCH_UP: Duration = Duration::from_secs(1);

/// What a connection number stands for.
pub(super) enum Link {
    Stream(Rc<Conn>),
    Datagrams(Peer),
    Gone,
}

/// The other end of a connection over UDP.
pub(super) struct Peer {
    pub(super) place: Place,
    pub(super) address: SocketAddr,
}

/// What becomes of bytes that come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hears {
    #[default]
    All,
    /// Messages are read and dropped.
    Dropped,
    /// They stay in the kernel.
    Nothing,
    /// So many bytes a second.
    Slow(u32),
}

impl Hears {
    /// What comes is read late.
    pub(super) fn is_deaf(self) -> bool {
        matches!(self, Self::Nothing | Self::Slow(_))
    }
}

/// While nothing is read, nobody hears what comes, nor that the connection has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deaf {
    since: Instant,
    until: Option<Instant>,
}

impl Deaf {
    fn begin() -> Self {
        Self { since: Instant::now(), until: None }
    }

    /// What is read now may have come long ago.
    fn lasts(self) -> bool {
        self.until.is_none_or(|until| until.elapsed() < CATCH_UP)
    }
}

/// What becomes of bytes that are to go out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Says {
    #[default]
    All,
    /// They are dropped.
    Nothing,
    /// One by one, so long after another.
    Slow(Duration),
    /// Half of the next message, then a reset.
    Cut,
    /// Nothing more: the stream is at its end.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The handshake of TLS is not done, or never will be.
    Opening,
    Open,
    Closed,
}

/// Bytes on their way into the kernel.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) bytes: Vec<u8>,
    pub(super) written: usize,
    /// A reset follows.
    cut: bool,
}

pub(super) struct Conn {
    pub(super) place: Place,
    pub(super) stream: TcpStream,
    /// There may be something to read.
    readable: Cell<bool>,
    /// The end of the stream is there or under way.
    ending: Cell<bool>,
    /// The kernel takes no bytes now.
    blocked: Cell<bool>,
    pub(super) tls: Option<RefCell<Box<rustls::Connection>>>,
    pub(super) state: Cell<State>,
    pub(super) hears: Cell<Hears>,
    pub(super) deaf: Cell<Option<Deaf>>,
    pub(super) says: Cell<Says>,
    /// Its peer gets no answer, not even a handshake.
    pub(super) stalled: bool,
    pub(super) overflown: Cell<bool>,
    pub(super) partial: RefCell<Vec<u8>>,
    pub(super) pending: RefCell<Pending>,
    pub(super) reader: Cell<Option<Waker>>,
    pub(super) writer: Cell<Option<Waker>>,
    pub(super) dial: RefCell<Option<Rc<Dial>>>,
    pub(super) ticket: RefCell<Option<Rc<Ticket>>>,
}

impl Conn {
    /// One that has yet to be opened.
    pub(super) fn new(
        place: Place,
        stream: TcpStream,
        tls: Option<rustls::Connection>,
        stalled: bool,
        (hears, says): (Hears, Says),
    ) -> Self {
        Self {
            place,
            stream,
            readable: Cell::new(false),
            ending: Cell::new(false),
            blocked: Cell::new(false),
            tls: tls.map(|tls| RefCell::new(Box::new(tls))),
            state: Cell::new(State::Opening),
            hears: Cell::new(hears),
            deaf: Cell::new(hears.is_deaf().then(Deaf::begin)),
            says: Cell::new(says),
            stalled,
            overflown: Cell::new(false),
            partial: RefCell::default(),
            pending: RefCell::default(),
            reader: Cell::default(),
            writer: Cell::default(),
            dial: RefCell::default(),
            ticket: RefCell::default(),
        }
    }

    /// Sets what becomes of bytes that come in.
    pub(super) fn hear(&self, hears: Hears) {
        self.hears.set(hears);
        let deaf = self.deaf.get().filter(|deaf| deaf.lasts());
        self.deaf.set(match (deaf, hears.is_deaf()) {
            (Some(deaf), true) => Some(Deaf { until: None, ..deaf }),
            (None, true) => Some(Deaf::begin()),
            (deaf, false) => {
                deaf.map(|deaf| Deaf { until: deaf.until.or_else(|| Some(Instant::now())), ..deaf })
            }
        });
    }

    /// When a connection that ends `now`, as far as it hears, can have ended at the earliest.
    pub(super) fn ended(&self, why: Closed, now: Instant) -> Instant {
        let deaf = self.deaf.get().filter(|deaf| why != Closed::Struck && deaf.lasts());
        deaf.map_or(now, |deaf| deaf.since)
    }

    pub(super) fn wake_writer(&self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    pub(super) fn wake(&self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    /// Goes on with what the socket allows now.
    pub(super) fn changed(&self, change: Change) {
        if change.ending {
            self.ending.set(true);
        }
        if change.readable {
            self.readable.set(true);
            if let Some(waker) = self.reader.take() {
                waker.wake();
            }
        }
        if change.writable && self.blocked.take() {
            self.wake_writer();
        }
    }

    /// Reads, where there may be something.
    fn try_read(&self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.readable.get() {
            return Poll::Pending;
        }
        match (&self.stream).read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable.set(false);
                Poll::Pending
            }
            read => {
                // That was all. What comes later is told of, and so is an end.
                if read.as_ref().is_ok_and(|len| *len < buffer.len()) && !self.ending.get() {
                    self.readable.set(false);
                }
                Poll::Ready(read)
            }
        }
    }

    fn try_write(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match (&self.stream).write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked.set(true);
                Poll::Pending
            }
            written => Poll::Ready(written),
        }
    }

    /// Moves what TLS wants to send behind what is pending.
    pub(super) fn pull_tls(&self, pending: &mut Pending) {
        if let Some(tls) = &self.tls {
            let mut tls = tls.borrow_mut();
            // Into a vector: nothing can fail, and one write carries all records.
            while tls.wants_write() && tls.write_tls(&mut pending.bytes).is_ok_and(|len| len > 0) {}
        }
    }
}

/// What came of a look at the socket.
enum Heard {
    Bytes(usize),
    Over(Closed),
}

/// What came of a chance to write.
enum Said {
    /// The next byte has to wait.
    Slowly(Duration),
    Over(Closed),
}

impl<H: Handler> Wire<H> {
    pub(super) async fn read(self: Rc<Self>, conn: Rc<Conn>) {
        let why = loop {
            match poll_fn(|cx| self.poll_read(&conn, cx)).await {
                Heard::Over(why) => break why,
                Heard::Bytes(len) => match conn.hears.get() {
                    Hears::Slow(rate) => glommio::timer::sleep(slow_pause(rate)).await,
                    // There is more. Not `yield_now`: a task that wakes itself goes before the
                    // sockets.
                    _ if len == READ_BYTES => glommio::timer::sleep(OTHERS_TURN).await,
                    Hears::All | Hears::Dropped | Hears::Nothing => {}
                },
            }
        };
        self.close_conn(&conn, why);
        conn.partial.take();
    }

    fn poll_read(self: &Rc<Self>, conn: &Rc<Conn>, cx: &mut Context<'_>) -> Poll<Heard> {
        if conn.state.get() == State::Closed {
            return Poll::Ready(Heard::Over(Closed::Struck));
        }
        conn.reader.set(Some(cx.waker().clone()));
        let most = match conn.hears.get() {
            Hears::Nothing => return Poll::Pending,
            Hears::Slow(rate) => slow_bytes(rate).min(READ_BYTES),
            Hears::All | Hears::Dropped => READ_BYTES,
        };
        let mut scratch = self.scratch.borrow_mut();
        Poll::Ready(match conn.try_read(&mut scratch[..most]) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0)) => Heard::Over(Closed::Eof),
            Poll::Ready(Err(error)) => Heard::Over(reason(&error)),
            Poll::Ready(Ok(len)) => match self.on_raw(conn, &scratch[..len]) {
                Ok(()) => Heard::Bytes(len),
                Err(why) => Heard::Over(why),
            },
        })
    }

    /// Bytes off the socket.
    fn on_raw(self: &Rc<Self>, conn: &Rc<Conn>, bytes: &[u8]) -> Result<(), Closed> {
        let Some(tls) = &conn.tls else {
            return if conn.stalled { Ok(()) } else { self.on_bytes(conn, bytes) };
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let over = {
                let mut tls = tls.borrow_mut();
                let taken = tls.read_tls(&mut rest).map_err(|_| Closed::Tls)?;
                if taken == 0 {
                    return Err(Closed::Tls);
                }
                let processed = tls.process_new_packets();
                if tls.wants_write() {
                    conn.wake_writer();
                }
                processed.map(|state| state.peer_has_closed())
            };
            if conn.state.get() == State::Opening && !tls.borrow().is_handshaking() {
                self.opened(conn);
            }
            self.take_plain(conn)?;
            match over {
                Ok(false) => {}
                Ok(true) => return Err(Closed::Eof),
                Err(error) => {
                    self.say_last_words(conn);
                    if let Some(ticket) = conn.ticket.take() {
                        ticket.fail(io::Error::new(io::ErrorKind::InvalidData, error));
                    }
                    return Err(Closed::Tls);
                }
            }
        }
        Ok(())
    }

    fn take_plain(self: &Rc<Self>, conn: &Rc<Conn>) -> Result<(), Closed> {
        let Some(tls) = &conn.tls else { return Ok(()) };
        loop {
            let mut plain = self.plain.borrow_mut();
            // An error says only that there is nothing.
            let len = tls.borrow_mut().reader().read(&mut plain).unwrap_or(0);
            if len == 0 {
                return Ok(());
            }
            self.on_bytes(conn, &plain[..len])?;
        }
    }

    /// Hands every whole message to the handler.
    fn on_bytes(&self, conn: &Conn, bytes: &[u8]) -> Result<(), Closed> {
        let mut partial = conn.partial.borrow_mut();
        let waiting = !partial.is_empty();
        if waiting {
            partial.extend_from_slice(bytes);
        }
        let dropped = conn.hears.get() == Hears::Dropped;
        let left = self.with(|handler, now| {
            let mut rest = if waiting { &partial[..] } else { bytes };
            while !rest.is_empty() {
                match message::next(rest) {
                    Frame::Partial => break,
                    Frame::Bad => return None,
                    Frame::Blank(len, ping) => {
                        if ping && !dropped {
                            let pong = |out: &mut Vec<u8>| out.extend_from_slice(b"\r\n");
                            handler.out().message(conn.place.conn, pong);
                        }
                        rest = &rest[len..];
                    }
                    Frame::Message(message, len) => {
                        if !dropped {
                            handler.on_message(conn.place, &message, now);
                        }
                        rest = &rest[len..];
                    }
                }
            }
            Some(rest.len())
        });
        let left = left.ok_or(Closed::NotSip)?;
        if left > self.limits.partial_bytes {
            return Err(Closed::NotSip);
        }
        match (waiting, left) {
            // Idle connections hold no buffer.
            (true, 0) => *partial = Vec::new(),
            (true, _) => {
                let taken = partial.len() - left;
                partial.drain(..taken);
            }
            (false, _) => partial.extend_from_slice(&bytes[bytes.len() - left..]),
        }
        Ok(())
    }

    pub(super) async fn write(self: Rc<Self>, conn: Rc<Conn>) {
        let why = loop {
            match poll_fn(|cx| self.poll_write(&conn, cx)).await {
                Said::Slowly(gap) => glommio::timer::sleep(gap).await,
                Said::Over(why) => break why,
            }
        };
        self.close_conn(&conn, why);
    }

    fn poll_write(self: &Rc<Self>, conn: &Rc<Conn>, cx: &mut Context<'_>) -> Poll<Said> {
        let mut pending = conn.pending.borrow_mut();
        loop {
            if conn.state.get() == State::Closed {
                return Poll::Ready(Said::Over(Closed::Struck));
            }
            if conn.overflown.get() {
                return Poll::Ready(Said::Over(Closed::Overflow));
            }
            conn.writer.set(Some(cx.waker().clone()));
            if pending.written == pending.bytes.len() {
                if pending.cut {
                    abort(conn);
                    return Poll::Ready(Said::Over(Closed::Struck));
                }
                self.refill(conn, &mut pending);
                if pending.bytes.is_empty() {
                    return Poll::Pending;
                }
            }
            let slow = match conn.says.get() {
                Says::Slow(gap) => Some(gap),
                Says::All | Says::Nothing | Says::Cut | Says::Ended => None,
            };
            let rest = &pending.bytes[pending.written..];
            let rest = if slow.is_some() { &rest[..1] } else { rest };
            match conn.try_write(rest) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(len)) if len > 0 => pending.written += len,
                Poll::Ready(Ok(_)) => return Poll::Ready(Said::Over(Closed::Eof)),
                Poll::Ready(Err(error)) => return Poll::Ready(Said::Over(reason(&error))),
            }
            if let Some(gap) = slow {
                return Poll::Ready(Said::Slowly(gap));
            }
        }
    }

    /// Takes what waits, as the connection's faults allow.
    fn refill(&self, conn: &Conn, pending: &mut Pending) {
        let says = conn.says.get();
        let bytes = self.with_quietly(|handler| {
            let out = handler.out();
            out.recycle(std::mem::take(&mut pending.bytes));
            out.take(conn.place.conn).0
        });
        pending.written = 0;
        if matches!(says, Says::Nothing | Says::Ended) {
            return;
        }
        let mut bytes = bytes;
        if says == Says::Cut && !bytes.is_empty() {
            let first = match message::next(&bytes) {
                Frame::Message(_, len) => len,
                Frame::Partial | Frame::Blank(..) | Frame::Bad => bytes.len(),
            };
            bytes.truncate((first / 2).max(1));
            pending.cut = true;
        }
        match &conn.tls {
            None => pending.bytes = bytes,
            Some(tls) => {
                // Its own buffer has no limit: what may wait is limited before.
                let written = tls.borrow_mut().writer().write_all(&bytes);
                debug_assert!(written.is_ok(), "{written:?}");
                conn.pull_tls(pending);
                self.with_quietly(|handler| handler.out().recycle(bytes));
            }
        }
    }
}

/// An RST goes out at once. `connect(AF_UNSPEC)` does it; `SO_LINGER` 0 and `close()` would wait
/// for the tasks that hold the stream.
pub(super) fn abort(conn: &Conn) {
    let aborted = rustix::net::connect_unspec(&conn.stream);
    debug_assert!(aborted.is_ok(), "{aborted:?}");
}

pub(super) fn reason(error: &io::Error) -> Closed {
    match error.kind() {
        io::ErrorKind::ConnectionReset => Closed::Reset,
        kind => Closed::Failed(kind),
    }
}

fn slow_bytes(rate: u32) -> usize {
    (f64::from(rate) * SLOW_STEP.as_secs_f64()).max(1.0) as usize
}

fn slow_pause(rate: u32) -> Duration {
    Duration::from_secs_f64(slow_bytes(rate) as f64 / f64::from(rate.max(1)))
}
