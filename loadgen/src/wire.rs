//! Sockets on glommio: one reading and one writing task for each connection, one accepting task
//! for each listener. One read takes all there is, one write carries all that waits.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};

use crate::engine::{Engine, Place, Side};
use crate::message::{self, Frame};

/// Bytes that one read may take; idle connections share the one buffer.
const READ_BYTES: usize = 64 * 1024;
/// What a connection that fills the buffer waits, so that the others have their turn.
const OTHERS_TURN: Duration = Duration::from_micros(20);
/// Bytes that may wait for a connection; one that has more is closed.
const OUTBOX_BYTES_MAX: usize = 256 << 20;
/// Connections of one run, closed ones included.
const CONNS_MAX: usize = 1 << 20;
/// How long the server may take to accept a caller.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// The engine and its connections.
pub(crate) struct Wire {
    pub(crate) engine: RefCell<Engine>,
    conns: RefCell<Vec<Rc<Conn>>>,
    scratch: RefCell<Box<[u8]>>,
}

struct Conn {
    place: Place,
    stream: RefCell<TcpStream>,
    open: Cell<bool>,
    /// Nothing more is read.
    paused: Cell<bool>,
    partial: RefCell<Vec<u8>>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
}

/// A listener that accepts until it is dropped.
pub(crate) struct Listening(
    #[expect(dead_code, reason = "held: dropping it ends the task")] glommio::Task<()>,
);

impl Wire {
    pub(crate) fn new(engine: Engine) -> Rc<Self> {
        Rc::new(Self {
            engine: RefCell::new(engine),
            conns: RefCell::default(),
            scratch: RefCell::new(vec![0; READ_BYTES].into_boxed_slice()),
        })
    }

    /// Does something with the engine, then sees to what it wants to send.
    pub(crate) fn with<T>(&self, what: impl FnOnce(&mut Engine, Instant) -> T) -> T {
        let mut engine = self.engine.borrow_mut();
        let result = what(&mut engine, Instant::now());
        self.wake_writers(&mut engine);
        result
    }

    fn wake_writers(&self, engine: &mut Engine) {
        if engine.out.dirty.is_empty() {
            return;
        }
        let conns = self.conns.borrow();
        for conn in engine.out.dirty.drain(..) {
            if let Some(waker) = conns[conn as usize].writer.take() {
                waker.wake();
            }
        }
    }

    /// Listens for the server's connections to a party.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub(crate) fn listen(
        self: &Rc<Self>,
        side: Side,
        party: u32,
        address: SocketAddr,
    ) -> io::Result<Listening> {
        let listener = TcpListener::bind(address).map_err(io::Error::from)?;
        let wire = Rc::clone(self);
        Ok(Listening(glommio::spawn_local(async move {
            // Ends when the task is dropped, or with the executor.
            while let Ok(stream) = listener.accept().await {
                if wire.adopt(stream, side, party).is_none() {
                    return;
                }
            }
        })))
    }

    /// Connects a caller to the server from the caller's own address.
    ///
    /// # Errors
    /// Refused, timed out, or no such address.
    pub(crate) fn connect(
        self: &Rc<Self>,
        party: u32,
        from: Ipv4Addr,
        server: SocketAddr,
    ) -> io::Result<()> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect_timeout(&server.into(), CONNECT_TIMEOUT)?;
        let conn = self.adopt(TcpStream::from(socket), Side::Caller, party);
        self.engine.borrow_mut().callers[party as usize].conn = conn;
        Ok(())
    }

    fn adopt(self: &Rc<Self>, stream: TcpStream, side: Side, party: u32) -> Option<u32> {
        let mut conns = self.conns.borrow_mut();
        if conns.len() == CONNS_MAX {
            return None;
        }
        // Without it 40 ms of Nagle and delayed ACK would be measured.
        let _ = stream.set_nodelay(true);
        let id = conns.len() as u32;
        let conn = Rc::new(Conn {
            place: Place { conn: id, side, party },
            stream: RefCell::new(stream),
            open: Cell::new(true),
            paused: Cell::new(false),
            partial: RefCell::default(),
            reader: Cell::default(),
            writer: Cell::default(),
        });
        self.engine.borrow_mut().out.open(id);
        conns.push(Rc::clone(&conn));
        let (wire, reader) = (Rc::clone(self), Rc::clone(&conn));
        glommio::spawn_local(async move { wire.read(&reader).await }).detach();
        let wire = Rc::clone(self);
        glommio::spawn_local(async move { wire.write(&conn).await }).detach();
        Some(id)
    }

    async fn read(&self, conn: &Conn) {
        while let Some(len) = poll_fn(|cx| self.poll_read(conn, cx)).await {
            if len == READ_BYTES {
                // There is more. Not `yield_now`: a task that wakes itself goes before the sockets.
                glommio::timer::sleep(OTHERS_TURN).await;
            }
        }
        self.close(conn);
        conn.partial.take();
        if conn.place.side == Side::Caller {
            let party = conn.place.party;
            self.with(|engine, now| {
                if engine.callers[party as usize].conn == Some(conn.place.conn) {
                    engine.on_caller_lost(party, now);
                }
            });
        }
    }

    /// One read and what follows from it: its length, or `None` at the end of the stream.
    fn poll_read(&self, conn: &Conn, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        if !conn.open.get() {
            return Poll::Ready(None);
        }
        conn.reader.set(Some(cx.waker().clone()));
        if conn.paused.get() {
            return Poll::Pending;
        }
        let mut scratch = self.scratch.borrow_mut();
        let read = Pin::new(&mut *conn.stream.borrow_mut()).poll_read(cx, &mut scratch);
        match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(None),
            Poll::Ready(Ok(len)) => {
                Poll::Ready(self.on_bytes(conn, &scratch[..len]).then_some(len))
            }
        }
    }

    /// Hands every whole message to the engine; false when the bytes are not SIP.
    fn on_bytes(&self, conn: &Conn, bytes: &[u8]) -> bool {
        let mut partial = conn.partial.borrow_mut();
        let waiting = !partial.is_empty();
        if waiting {
            partial.extend_from_slice(bytes);
        }
        let good = self.with(|engine, now| {
            let mut rest = if waiting { &partial[..] } else { bytes };
            let good = loop {
                if rest.is_empty() {
                    break true;
                }
                match message::next(rest) {
                    Frame::Partial => break true,
                    Frame::Bad => {
                        engine.violations.stray += 1;
                        break false;
                    }
                    Frame::Blank(len, ping) => {
                        if ping {
                            engine.out.to(conn.place.conn).extend_from_slice(b"\r\n");
                        }
                        rest = &rest[len..];
                    }
                    Frame::Message(message, len) => {
                        engine.on_message(conn.place, &message, now);
                        rest = &rest[len..];
                    }
                }
            };
            (good, rest.len())
        });
        let (good, left) = good;
        if waiting {
            let taken = partial.len() - left;
            partial.drain(..taken);
        } else {
            partial.extend_from_slice(&bytes[bytes.len() - left..]);
        }
        good
    }

    async fn write(&self, conn: &Conn) {
        let mut taken = Vec::new();
        let mut written = 0;
        poll_fn(|cx| {
            loop {
                if !conn.open.get() {
                    return Poll::Ready(());
                }
                conn.writer.set(Some(cx.waker().clone()));
                if written == taken.len() {
                    taken.clear();
                    written = 0;
                    self.engine.borrow_mut().out.take(conn.place.conn, &mut taken);
                    if taken.is_empty() {
                        return Poll::Pending;
                    }
                    if taken.len() > OUTBOX_BYTES_MAX {
                        return Poll::Ready(());
                    }
                }
                let mut stream = conn.stream.borrow_mut();
                match Pin::new(&mut *stream).poll_write(cx, &taken[written..]) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(len)) if len > 0 => written += len,
                    Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(()),
                }
            }
        })
        .await;
        self.close(conn);
    }

    fn close(&self, conn: &Conn) {
        if !conn.open.replace(false) {
            return;
        }
        // Dropping the stream closes it only when the executor is next idle: end it now.
        let socket = socket2_of(conn);
        let _ = socket.and_then(|socket| socket.shutdown(std::net::Shutdown::Both));
        self.engine.borrow_mut().out.close(conn.place.conn);
        for waker in [conn.reader.take(), conn.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    /// Stops reading on the callees' connections; what comes stays in the kernel.
    pub(crate) fn pause_callees(&self) {
        for conn in self.open_callees() {
            conn.paused.set(true);
        }
    }

    /// Bytes that the kernel holds for callees that do not read.
    pub(crate) fn bytes_unread(&self) -> u64 {
        let unread = |conn: &Rc<Conn>| rustix::io::ioctl_fionread(socket2_of(conn).ok()?).ok();
        self.open_callees().iter().filter_map(unread).sum()
    }

    /// Resets every connection of a callee: an RST goes out, and whatever was unread is lost.
    ///
    /// Gives the instant just before each reset, by connection.
    pub(crate) fn reset_callees(&self) -> Vec<(u32, Instant)> {
        let mut resets = Vec::new();
        for conn in self.open_callees() {
            let Ok(socket) = socket2_of(&conn) else { continue };
            let at = Instant::now();
            // connect(AF_UNSPEC) aborts the connection at once; SO_LINGER 0 and close() would wait
            // until the ring lets go of the descriptor.
            let aborted = rustix::net::connect_unspec(&socket);
            debug_assert!(aborted.is_ok(), "{aborted:?}");
            self.close(&conn);
            resets.push((conn.place.conn, at));
        }
        resets
    }

    fn open_callees(&self) -> Vec<Rc<Conn>> {
        let conns = self.conns.borrow();
        let open = |conn: &&Rc<Conn>| conn.open.get() && conn.place.side == Side::Callee;
        conns.iter().filter(open).cloned().collect()
    }
}

/// A second descriptor of a connection, for the calls that glommio has no name for.
fn socket2_of(conn: &Conn) -> io::Result<std::net::TcpStream> {
    let stream = conn.stream.borrow();
    socket2::SockRef::from(&*stream).try_clone().map(Into::into)
}
