//! A stand-in for the endpoint, shards that run it, and clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use futures_lite::future::block_on;
use socket2::SockRef;

use super::super::start::start_with;
use super::super::*;
use crate::key::Slab;
use crate::options::Limits;
use crate::target::Target;

/// Long enough for a machine that does something else, too.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Accepted(ShardId),
    Message(ShardId),
    Failed(ShardId, FlowError),
    Alias(ShardId),
}

/// ECHO: the request comes back. LAST: it comes back and the flow is closed. CONNECT: opens a
/// connection to the address in the body and says how it went. TIMER: comes back after the
/// milliseconds in the body. ALIAS: the flow is the way to [`ALIASED`]. HELLO: goes on to the flow that is, where
/// this was said on another shard. `home=n` in the Request-URI names the home.
struct Servant {
    shard: ShardId,
    flows: Slab<FlowId, Option<FlowId>>,
    timers: Vec<(Instant, FlowId, Vec<u8>)>,
    events: Sender<Event>,
    draining: bool,
    /// The flow that ALIAS was said on, to whichever shard.
    alias: Option<FlowId>,
    /// How many flows the first shard takes.
    flows_max: usize,
    /// How long it looks for idle ones.
    look: Duration,
}

impl Servant {
    fn say(&self, event: Event) {
        let _ = self.events.send(event);
    }

    fn on_message(&mut self, now: Instant, flow: FlowId, bytes: &[u8], out: &mut Actions) {
        let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
        match method {
            b"ECHO" => out.send(flow, bytes),
            b"LAST" => {
                out.send(flow, bytes);
                self.flows.remove(flow);
                out.close(flow, CloseReason::BadInput);
            }
            b"CONNECT" => {
                let target = Target::tcp(body(bytes).parse().unwrap());
                let opening = self.flows.insert(Some(flow));
                out.connect(opening, target, Duration::from_millis(300));
                out.send(opening, &request("HELLO", "x", ""));
            }
            b"TIMER" => {
                let delay = Duration::from_millis(body(bytes).parse().unwrap());
                self.timers.push((now + delay, flow, bytes.to_vec()));
            }
            b"ALIAS" => out.alias(flow, ALIASED),
            b"HELLO" => {
                if let Some(alias) = self.alias {
                    out.send(alias, bytes);
                }
            }
            b"PANIC" => panic!("as the test asked"),
            b"COUNT" => self.say(Event::Message(self.shard)),
            _ => {}
        }
    }
}

impl Protocol for Servant {
    fn accept(&mut self, _now: Instant, _flow: NewFlow) -> Option<FlowId> {
        if self.shard.0 == 0 && self.flows.len() >= self.flows_max {
            return None;
        }
        self.say(Event::Accepted(self.shard));
        Some(self.flows.insert(None))
    }

    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Actions) {
        match input {
            Input::Framed { flow, message, waited } => {
                self.handle(now, Input::Message { flow, bytes: message.bytes(), waited }, out);
            }
            Input::Message { flow, bytes, .. } => {
                assert!(self.flows.get(flow).is_some(), "a message of a flow that is gone");
                self.on_message(now, flow, bytes, out);
            }
            Input::Unframed { flow, .. } => {
                self.flows.remove(flow);
                out.close(flow, CloseReason::BadInput);
            }
            Input::FlowOpened { flow } => {
                let asker = self.flows.get(flow).copied().flatten().unwrap();
                out.send(asker, &request("OPENED", "x", ""));
            }
            Input::FlowFailed { flow, error } => {
                let known = self.flows.remove(flow).expect("a flow fails once");
                self.say(Event::Failed(self.shard, error));
                if let Some(asker) = known {
                    out.send(asker, &request("FAILED", "x", &format!("{error:?}")));
                }
            }
            Input::Timeout => {
                self.timers.retain(|(at, flow, bytes)| {
                    if *at <= now {
                        out.send(*flow, bytes);
                    }
                    *at > now
                });
            }
            Input::Drain { .. } => self.draining = true,
            Input::Alias { flow, target } => {
                assert_eq!(target, ALIASED);
                self.alias = Some(flow);
                self.say(Event::Alias(self.shard));
            }
            Input::Crowded { held, count: _ } => {
                std::thread::sleep(self.look);
                let idle = self.flows.keys().into_iter().find(|flow| !held.contains(flow));
                if let Some(flow) = idle {
                    self.flows.remove(flow);
                    out.close(flow, CloseReason::Crowded);
                }
            }
            Input::Options(_)
            | Input::Request(_)
            | Input::Certified { .. }
            | Input::Undelivered { .. } => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.timers.iter().map(|(at, _, _)| *at).min()
    }

    fn stats(&self) -> Stats {
        Stats { flows: self.flows.len(), ..Stats::default() }
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn is_drained(&self) -> bool {
        self.draining
    }

    fn home(&self, bytes: &[u8]) -> Option<ShardId> {
        let text = std::str::from_utf8(bytes.get(..64.min(bytes.len()))?).ok()?;
        let (_, number) = text.split_once("home=")?;
        number.split(' ').next()?.parse().ok().map(ShardId)
    }
}

/// Whom ALIAS is about.
const ALIASED: Target = Target {
    transport: Transport::Tcp,
    address: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5060),
};

pub(super) fn request(method: &str, uri: &str, body: &str) -> Vec<u8> {
    format!("{method} sip:{uri} SIP/2.0\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn body(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

pub(super) struct World {
    pub(super) shards: Option<Shards>,
    events: Receiver<Event>,
    pub(super) address: SocketAddr,
}

impl World {
    /// So many shards, spread over the cores there are.
    pub(super) fn new(shards: usize) -> Self {
        Self::with(shards, Limits::default())
    }

    pub(super) fn with(shards: usize, limits: Limits) -> Self {
        Self::with_look(shards, limits, Duration::ZERO)
    }

    /// The same; to look for idle flows takes so long.
    pub(super) fn with_look(shards: usize, limits: Limits, look: Duration) -> Self {
        let available = cores::available();
        let cores = available.into_iter().cycle().take(shards).collect();
        let flows_max = limits.flows_max as usize;
        let mut options = Options::default();
        options.limits = limits;
        let options = Arc::new(options);
        let plan = Plan {
            listen: vec![Target::tcp(own_address())],
            cores,
            options,
            tls: None,
            events: None,
        };
        let (sender, events) = channel();
        let shards = start_with(plan, move |shard, _, _| Servant {
            shard,
            flows: Slab::new(),
            timers: Vec::new(),
            events: sender.clone(),
            draining: false,
            alias: None,
            flows_max,
            look,
        })
        .unwrap();
        let address = shards.listen()[0].address;
        Self { shards: Some(shards), events, address }
    }

    pub(super) fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).unwrap())
    }

    pub(super) fn event(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("something happens")
    }

    /// The next event that is not an accept.
    pub(super) fn event_of_a_flow(&self) -> Event {
        loop {
            match self.event() {
                Event::Accepted(_) => {}
                event => return event,
            }
        }
    }

    pub(super) fn nothing_happens(&self) {
        let event = self.events.recv_timeout(Duration::from_millis(100));
        assert!(event.is_err(), "{event:?}");
    }

    pub(super) fn snapshots(&self) -> Vec<Snapshot> {
        block_on(self.shards.as_ref().unwrap().handle().snapshots())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(shards) = self.shards.take() {
            block_on(shards.handle().tell(|| Command::Stop));
            shards.join();
        }
    }
}

pub(super) struct Client {
    pub(super) stream: TcpStream,
}

impl Client {
    pub(super) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads exactly what is expected.
    pub(super) fn expect(&mut self, expected: &[u8]) {
        let mut got = vec![0; expected.len()];
        self.stream.read_exact(&mut got).unwrap();
        assert!(got == expected, "{} bytes differ", got.len());
    }

    /// A message and its echo; false when the connection was closed instead.
    pub(super) fn try_echo(&mut self, uri: &str) -> bool {
        let message = request("ECHO", uri, "");
        let mut got = vec![0; message.len()];
        self.stream.write_all(&message).is_ok() && self.stream.read_exact(&mut got).is_ok()
    }

    pub(super) fn echo(&mut self, uri: &str, body: &str) {
        let message = request("ECHO", uri, body);
        self.send(&message);
        self.expect(&message);
    }

    pub(super) fn expect_end(&mut self) {
        let count = self.stream.read(&mut [0; 64]).unwrap();
        assert_eq!(count, 0);
    }

    pub(super) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// Port 0 of a loopback address that no other world has: a port that one test lets go of is not
/// taken by the next while the first still looks.
fn own_address() -> SocketAddr {
    static WORLDS: AtomicU8 = AtomicU8::new(1);
    let world = WORLDS.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from(([127, 77, 0, world.max(1)], 0))
}
