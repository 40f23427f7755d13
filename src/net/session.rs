//! The task of one open flow: reads, frames, hands in, writes; says once how it ended.
//!
//! ```text
//! woken ─► written all that can be ─► one read of all there is ─► each message to the host
//!              ▲                                                        │ more in the outbox
//!              └────────────────────────────────────────────────────────┘
//! ```

use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use socket2::SockRef;

use super::backlog::Backlog;
use super::flow::{Flow, State};
use super::pings::{PONG, Patience, Pings};
use super::sources::{Rate, Seat};
use super::tcp::patient;
use super::tls::Tls;
use super::{Host, Net, WRITE_TIMEOUT, next_round};
use crate::sip::FlowError;
use crate::sip::message::{Frame, Framer, PING};
use crate::time::Instant;

/// An open stream and what is known of the message that is being read.
pub(super) struct Session {
    flow: Rc<Flow>,
    stream: TcpStream,
    /// `None` over TCP.
    tls: Option<Box<Tls>>,
    framer: Framer,
    /// When the first message must be whole; `None` once it was, or when nobody waits for it.
    first_message: Option<Instant>,
    /// When the unfinished message must be whole.
    message: Option<Instant>,
    /// When the peer must have taken some of what is queued; `None` while nothing is stuck.
    stuck: Option<Instant>,
    pings: Pings,
    backlog: Backlog,
    /// Set after a read that filled the buffer, when there is more and it is the others' turn, or that brought
    /// too much.
    pause: Option<Timer>,
    /// What a stranger may send; `None` for others.
    rate: Option<Rate>,
    /// Its place among the connections of its address.
    _seat: Option<Seat>,
    /// True when TLS has said that we write no more.
    said: bool,
    /// True when the peer was told that we write no more.
    write_ended: bool,
}

// Most connections are idle: what each holds is what memory goes to.
const _: () = assert!(size_of::<Session>() <= 272);

impl Session {
    /// An open stream.
    pub(super) fn new(net: &Net, flow: Rc<Flow>, stream: TcpStream, tls: Option<Box<Tls>>) -> Self {
        let message_bytes_max = net.limits.borrow().message_bytes_max;
        let framer = Framer::new(message_bytes_max);
        Self {
            flow,
            stream,
            tls,
            framer,
            first_message: None,
            message: None,
            stuck: None,
            pings: Pings::default(),
            backlog: Backlog::default(),
            pause: None,
            rate: None,
            _seat: None,
            said: false,
            write_ended: false,
        }
    }

    /// The same, opened by a peer; `first_message` is the deadline of its first whole message.
    pub(super) fn of_guest(mut self, seat: Seat, first_message: Instant) -> Self {
        self.first_message = Some(first_message);
        // Who has the certificate of a device is one, wherever he comes from.
        let is_device = !self.flow.devices.borrow().is_empty();
        self.rate = (seat.is_stranger() && !is_device).then(Rate::default);
        self._seat = Some(seat);
        self
    }

    /// Serves the flow until it ends, and closes the socket.
    #[allow(clippy::manual_async_fn, reason = "an async function would hold the session twice")]
    pub(super) fn run<H: Host>(mut self, host: Rc<H>) -> impl Future<Output = ()> {
        async move { self.serve(&host).await }
    }

    async fn serve<H: Host>(&mut self, host: &Rc<H>) {
        if self.first_message.is_some() {
            self.watch(&**host);
        }
        // What came behind the last words of a handshake.
        host.net().waited.set(Duration::ZERO);
        let greeted = self.read(host, b"");
        let error = poll_fn(|cx| match greeted {
            Err(error) => Poll::Ready(Some(error)),
            Ok(()) => self.poll(host, cx),
        })
        .await;
        host.net().remove(&self.flow);
        if let Some(error) = error {
            host.failed(&self.flow, error);
        }
        self.say_goodbye().await;
        // Without this the descriptor stays open until the armed poll is cancelled, that is, until
        // the executor is next idle.
        let _ = self.stream.shutdown(Shutdown::Both).await;
    }

    /// The last words of TLS, as far as the socket takes them at once: a peer that hears none takes the end for
    /// an attack (RFC 8446 §6.1).
    async fn say_goodbye(&mut self) {
        let Some(tls) = self.tls.as_mut().filter(|_| !self.said) else { return };
        tls.close();
        let stream = &mut self.stream;
        poll_fn(|cx| {
            let _ = tls.poll_flush(|bytes| Pin::new(&mut *stream).poll_write(cx, bytes));
            Poll::Ready(())
        })
        .await;
    }

    /// Ready when the flow has ended: with what the endpoint has to be told.
    fn poll<H: Host>(&mut self, host: &Rc<H>, cx: &mut Context<'_>) -> Poll<Option<FlowError>> {
        self.flow.running(cx);
        host.net().rounds.look(|| host.now());
        loop {
            match self.flow.state.get() {
                State::Connecting | State::Open => {}
                State::Closing => {
                    ready!(self.poll_close(host.net(), cx));
                    return Poll::Ready(None);
                }
                State::Ending => {
                    let _ = ready!(self.poll_write(host.net(), cx));
                    return Poll::Ready(None);
                }
                State::Failed(error) => return Poll::Ready(Some(error)),
                State::Abandoned => return Poll::Ready(None),
            }
            // A peer that does not read may still be read from: what it sends is answered into the
            // outbox, up to its bound.
            if let Poll::Ready(Err(error)) = self.poll_queued(&**host, cx) {
                return Poll::Ready(Some(error_of(&error)));
            }
            if self.poll_pause(cx).is_pending() || host.poll_may_read(&self.flow).is_pending() {
                self.flow.waiting();
                return Poll::Pending;
            }
            let mut buffer = host.net().buffer.borrow_mut();
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Some(FlowError::Closed)),
                Poll::Ready(Ok(count)) => {
                    self.heard(host.net());
                    self.note_wait(&**host, count, count == buffer.len());
                    if let Err(error) = self.read(host, &buffer[..count]) {
                        return Poll::Ready(Some(error));
                    }
                    if count == buffer.len() && self.pause.is_none() {
                        self.pause = Some(next_round());
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Some(error_of(&error))),
                Poll::Pending => {
                    self.flow.waiting();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Notes how long `count` bytes just read may have waited; `left`: there may be more.
    fn note_wait<H: Host>(&mut self, host: &H, count: usize, left: bool) {
        let (net, stream) = (host.net(), &self.stream);
        let queued = || queued(stream);
        let waited = self.backlog.read(host.now(), &net.rounds, (count, left), queued);
        net.tally.waited(waited);
        net.waited.set(waited);
    }

    /// Takes what was read from the socket.
    ///
    /// # Errors
    /// The flow is over.
    fn read<H: Host>(&mut self, host: &Rc<H>, bytes: &[u8]) -> Result<(), FlowError> {
        let Some(mut tls) = self.tls.take() else {
            self.take_in(host, bytes);
            return Ok(());
        };
        let read = tls.read(bytes, |plain| self.take_in(host, plain));
        self.tls = Some(tls);
        match read {
            Ok(false) => Ok(()),
            Ok(true) => Err(FlowError::Closed),
            Err(error) => {
                tracing::debug!(peer = %self.flow.peer(), %error, "TLS broken");
                Err(FlowError::Reset)
            }
        }
    }

    /// Frames plain text and hands it in.
    fn take_in<H: Host>(&mut self, host: &Rc<H>, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        host.net().tally.count(|stats| stats.reads += 1);
        let was_partial = self.framer.is_partial();
        if self.pings.read(bytes, !was_partial) {
            self.watch(&**host);
            return;
        }
        let (mut messages, mut frames) = (0u32, 0u32);
        let flow = &self.flow;
        let mut head = host.net().head.borrow_mut();
        self.framer.feed(bytes, &mut head, |frame| {
            // The endpoint may close the flow for one message; the next ones are not for it.
            if flow.state.get() != State::Open {
                return;
            }
            frames += 1;
            match frame {
                Frame::Message(message) => {
                    messages += 1;
                    host.message(flow, message);
                }
                Frame::Ping => flow.send(host.net(), PONG),
                Frame::Unframed { bytes, error } => host.unframed(flow, bytes, error),
            }
        });
        drop(head);
        if messages > 0 {
            self.first_message = None;
        }
        if !self.framer.is_partial() {
            self.message = None;
        } else if messages > 0 || !was_partial {
            let patience = host.net().limits.borrow().message_timeout;
            self.message = Some(host.now() + patience);
        }
        if flow.state.get() == State::Open {
            self.watch(&**host);
        }
        self.hold_back(host, frames);
    }

    /// A stranger who sends too much is not read for a while: what he sends waits in his socket.
    fn hold_back<H: Host>(&mut self, host: &Rc<H>, frames: u32) {
        let Some(rate) = self.rate.as_mut().filter(|_| frames > 0) else { return };
        let per_second = host.net().limits.borrow().messages_per_second_max;
        let pause = rate.take(host.now(), frames, per_second);
        if !pause.is_zero() {
            self.pause = Some(Timer::new(pause));
            self.backlog.hold_back(host.now() + pause);
            host.net().tally.limited(host.now(), |stats| &mut stats.held_back);
            host.rearm();
        }
    }

    /// Writes what is queued, and watches over a peer that takes none of it.
    fn poll_queued<H: Host>(&mut self, host: &H, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ask_in_time(host);
        let before = self.flow.queued();
        let result = self.poll_write(host.net(), cx);
        match &result {
            Poll::Pending if self.stuck.is_none() || self.flow.queued() < before => {
                self.stuck = Some(host.now() + WRITE_TIMEOUT);
                self.watch(host);
            }
            Poll::Ready(_) if self.stuck.take().is_some() => self.watch(host),
            Poll::Pending | Poll::Ready(_) => {}
        }
        result
    }

    /// Asks a peer for whose answer something waits whether it is there, and gives what is written the patience
    /// that it needs.
    fn ask_in_time<H: Host>(&mut self, host: &H) {
        let (wrote, pinged) = (self.flow.wrote.take(), self.flow.pinged.take());
        if !wrote && !pinged {
            return;
        }
        let (net, now, before) = (host.net(), host.now(), self.pings.patience());
        let user_timeout = net.limits.borrow().tcp_user_timeout;
        if wrote {
            self.pings.wrote(now, user_timeout);
        }
        if pinged && self.pings.ask(now, user_timeout) {
            self.flow.queue(net, PING);
            self.watch(host);
        }
        self.set_patience(net, before);
    }

    /// Something was read.
    fn heard(&mut self, net: &Net) {
        let before = self.pings.patience();
        self.pings.heard();
        self.set_patience(net, before);
    }

    /// Tells the kernel when its patience is no longer what it was. A socket that does not take it is gone, and
    /// says so when it is read.
    fn set_patience(&self, net: &Net, before: Patience) {
        let patience = self.pings.patience();
        if patience != before {
            let socket = SockRef::from(&self.stream);
            if let Err(error) = patient(&socket, &net.limits.borrow(), before, patience) {
                tracing::debug!(peer = %self.flow.peer(), %error, "patience not set");
            }
        }
    }

    /// Enters the earliest deadline.
    fn watch<H: Host>(&self, host: &H) {
        let deadlines = [self.first_message, self.message, self.stuck];
        let mut deadline = deadlines.into_iter().flatten().min();
        let mut overdue = FlowError::Timeout;
        if let Some(pong) = self.pings.due()
            && deadline.is_none_or(|other| pong < other)
        {
            (deadline, overdue) = (Some(pong), FlowError::Silent);
        }
        self.flow.overdue.set(overdue);
        if self.flow.deadline.replace(deadline) != deadline {
            host.net().watch(&self.flow);
            host.rearm();
        }
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(Pin::new(pause).poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    fn poll_write(&mut self, net: &Net, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = &mut self.stream;
        let mut write = |bytes: &[u8]| {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, bytes));
            net.tally.count(|stats| stats.writes += 1);
            Poll::Ready(written)
        };
        let Some(tls) = &mut self.tls else { return self.flow.poll_write(net, write) };
        ready!(self.flow.poll_write(net, |bytes| {
            // One chunk of cipher text at a time: the rest waits as plain text, and is counted.
            ready!(tls.poll_flush(&mut write))?;
            Poll::Ready(tls.encrypt(bytes))
        }))?;
        tls.poll_flush(write)
    }

    /// Writes what is queued, ends our direction, and throws away what the peer still sends until
    /// it ends its own: a socket that is closed with unread bytes resets the connection, and the
    /// peer would lose our last words. The flow's deadline bounds it.
    fn poll_close(&mut self, net: &Net, cx: &mut Context<'_>) -> Poll<()> {
        if !self.write_ended {
            let Ok(()) = ready!(self.poll_write(net, cx)) else { return Poll::Ready(()) };
            if let Some(tls) =
                self.tls.as_mut().filter(|_| !std::mem::replace(&mut self.said, true))
            {
                tls.close();
                let Ok(()) = ready!(self.poll_write(net, cx)) else { return Poll::Ready(()) };
            }
            self.write_ended = true;
            if let Poll::Ready(Err(_)) = pin!(self.stream.shutdown(Shutdown::Write)).poll(cx) {
                return Poll::Ready(());
            }
        }
        loop {
            ready!(self.poll_pause(cx));
            let mut buffer = net.buffer.borrow_mut();
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(count) if count == buffer.len() => self.pause = Some(next_round()),
                Ok(_) => {}
            }
        }
    }
}

/// Bytes in the socket; `None` when there are so many that the peer may have to wait.
fn queued(stream: &TcpStream) -> Option<u64> {
    // rustix takes no descriptor that is not owned.
    let socket = SockRef::from(stream).try_clone().ok()?;
    let room = socket.recv_buffer_size().ok()? as u64;
    let bytes = rustix::io::ioctl_fionread(std::net::TcpStream::from(socket)).ok()?;
    (bytes < room / 2).then_some(bytes)
}

/// Why a stream that was open is gone.
fn error_of(error: &io::Error) -> FlowError {
    match error.kind() {
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            FlowError::Unreachable
        }
        // Nothing was acknowledged for `tcp-user-timeout`, or a keep-alive was not answered.
        io::ErrorKind::TimedOut => FlowError::Silent,
        _ => FlowError::Reset,
    }
}
