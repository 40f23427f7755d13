//! A wire on an executor in a thread of its own, told from the test what to do.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};

use crate::message::{Message, Start};
use crate::net::{
    Authority, Closed, Handler, Limits, Outboxes, Place, Side, Tls, TlsOptions, Transport, Wire,
};

/// Longer than anything here takes, even on a busy machine.
pub(super) const LONG: Duration = Duration::from_secs(10);

/// Bodies that are shorter are told, behind the Call-ID.
const BODY_SHOWN: usize = 10;

/// What the handler heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Open(Place),
    Message(Place, String),
    Closed(Place, Closed),
    ConnectFailed(u32, std::io::ErrorKind),
    Error(Place, std::io::ErrorKind),
}

/// Answers each request when told to, and reports.
pub(super) struct Listener {
    out: Outboxes,
    events: Sender<Event>,
    pub(super) echo: bool,
}

impl Handler for Listener {
    fn on_open(&mut self, place: Place, _now: Instant) {
        let _ = self.events.send(Event::Open(place));
    }

    fn on_message(&mut self, place: Place, message: &Message<'_>, _now: Instant) {
        if self.echo && matches!(message.start, Start::Request(_)) {
            self.out.message(place.conn, |out| response(out, message));
        }
        let mut text = String::from_utf8_lossy(message.call_id).into_owned();
        if message.body.len() < BODY_SHOWN {
            text.push_str(&String::from_utf8_lossy(message.body));
        }
        let _ = self.events.send(Event::Message(place, text));
    }

    fn on_closed(&mut self, place: Place, why: Closed, _ended: Instant, _now: Instant) {
        let _ = self.events.send(Event::Closed(place, why));
    }

    fn on_connect_failed(&mut self, _: Side, party: u32, error: &std::io::Error, _: Instant) {
        let _ = self.events.send(Event::ConnectFailed(party, error.kind()));
    }

    fn on_error(&mut self, place: Place, error: &std::io::Error, _now: Instant) {
        let _ = self.events.send(Event::Error(place, error.kind()));
    }

    fn out(&mut self) -> &mut Outboxes {
        &mut self.out
    }
}

fn response(out: &mut Vec<u8>, message: &Message<'_>) {
    out.extend_from_slice(b"SIP/2.0 200 OK\r\nCall-ID: ");
    out.extend_from_slice(message.call_id);
    out.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
}

/// A request whose Call-ID tells it from others.
pub(super) fn request(call_id: &str) -> Vec<u8> {
    request_of(call_id, 0)
}

/// A request with a body of so many bytes.
pub(super) fn request_of(call_id: &str, body: usize) -> Vec<u8> {
    let head = format!(
        "OPTIONS sip:a@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK1\r\n\
         Call-ID: {call_id}\r\nCSeq: 1 OPTIONS\r\nContent-Length: {body}\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + body, b'x');
    bytes
}

type Job = Box<dyn FnOnce(&Rc<Wire<Listener>>) + Send>;

/// The wire's thread.
pub(super) struct Rig {
    jobs: Sender<Job>,
    events: Receiver<Event>,
    kept: VecDeque<Event>,
    pub(super) ca: String,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// How a rig is made.
#[derive(Default)]
pub(super) struct Setup {
    pub(super) limits: Limits,
    pub(super) tls: TlsOptions,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(Setup::default())
    }

    pub(super) fn with(setup: Setup) -> Self {
        let (jobs, wanted) = channel::<Job>();
        let (told, events) = channel();
        let (ca_out, ca) = channel();
        let thread = std::thread::spawn(move || {
            LocalExecutorBuilder::new(Placement::Unbound)
                .io_memory(1 << 20)
                .ring_depth(256)
                .preempt_timer(Duration::from_secs(1))
                .make()
                .expect("an executor")
                .run(async move {
                    let authority = std::sync::Arc::new(Authority::new().expect("an authority"));
                    let tls = Tls::new(&setup.tls, &authority).expect("certificates");
                    ca_out.send(authority.pem().to_owned()).expect("a test that waits");
                    let handler = Listener { out: Outboxes::default(), events: told, echo: true };
                    let wire = Wire::new(handler, Some(tls), setup.limits).expect("a wire");
                    serve(&wire, &wanted).await;
                });
        });
        let ca = ca.recv_timeout(LONG).expect("an authority");
        Self { jobs, events, kept: VecDeque::new(), ca, thread: Some(thread) }
    }

    /// Does something on the wire's thread.
    pub(super) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Rc<Wire<Listener>>) -> T + Send + 'static,
    ) -> T {
        let (done, result) = channel();
        let job = Box::new(move |wire: &Rc<Wire<Listener>>| {
            let _ = done.send(job(wire));
        });
        self.jobs.send(job).expect("the wire's thread");
        result.recv_timeout(LONG).expect("the wire's thread")
    }

    /// A callee that listens at an address of its own.
    pub(super) fn listen(&self, party: u32, transport: Transport) -> SocketAddr {
        let address = SocketAddr::from((address(), 0));
        self.run(move |wire| wire.listen(Side::Callee, party, address, transport))
            .expect("a listener")
    }

    /// Writes a message.
    pub(super) fn say(&self, conn: u32, bytes: Vec<u8>) {
        self.run(move |wire| {
            wire.with(|handler, _| {
                handler.out().message(conn, |out| out.extend_from_slice(&bytes));
            });
        });
    }

    /// The next event that `what` takes for one; earlier ones are kept.
    pub(super) fn event<T>(&mut self, mut what: impl FnMut(&Event) -> Option<T>) -> T {
        for at in 0..self.kept.len() {
            if let Some(found) = what(&self.kept[at]) {
                self.kept.remove(at);
                return found;
            }
        }
        loop {
            let Ok(event) = self.events.recv_timeout(LONG) else {
                panic!("no such event, only {:?}", self.kept);
            };
            match what(&event) {
                Some(found) => return found,
                None => self.kept.push_back(event),
            }
        }
    }

    pub(super) fn opened(&mut self) -> Place {
        self.event(|event| match event {
            Event::Open(place) => Some(*place),
            _ => None,
        })
    }

    pub(super) fn closed(&mut self) -> Closed {
        self.event(|event| match event {
            Event::Closed(_, why) => Some(*why),
            _ => None,
        })
    }

    pub(super) fn message(&mut self) -> (Place, String) {
        self.event(|event| match event {
            Event::Message(place, text) => Some((*place, text.clone())),
            _ => None,
        })
    }

    /// No event within a while.
    pub(super) fn hears_nothing(&self, for_so_long: Duration) -> bool {
        self.kept.is_empty() && self.events.recv_timeout(for_so_long).is_err()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A thread whose channel is closed ends.
        drop(std::mem::replace(&mut self.jobs, channel().0));
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            assert!(ended.is_some_and(|ended| ended.is_ok()), "the wire's thread panicked");
        }
    }
}

async fn serve(wire: &Rc<Wire<Listener>>, wanted: &Receiver<Job>) {
    use std::sync::mpsc::TryRecvError;
    loop {
        match wanted.try_recv() {
            Ok(job) => job(wire),
            Err(TryRecvError::Empty) => glommio::timer::sleep(Duration::from_micros(500)).await,
            Err(TryRecvError::Disconnected) => return wire.end(),
        }
    }
}

/// An address of 127/8 that no other test of this process has.
pub(super) fn address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let pid = std::process::id();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::new(127, 64 + (pid % 128) as u8, (number / 250) as u8, (number % 250 + 1) as u8)
}
