//! Scenarios in the protocol's words: two peers that do only what the script says, a network
//! without delay, and a clock that moves when it is told to.
//!
//! ```text
//! let mut s = Script::established().option("retry-after-reliable-transport-error", 500);
//! s.at(0).a_sends(reinvite());
//! s.b_receives("INVITE");
//! s.at(10).reset(B);
//! s.until(509).nothing_happens();
//! s.at(510).connects_to(B);
//! ```
//!
//! Times are milliseconds after the call was established. What a peer receives waits in its inbox
//! until the script takes it out, in order; [`Script::nothing_happens`] asserts that nothing does.

mod udp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast::options::{Device, DeviceKind, Options};
use holdfast::sip::{Input, Stats};
use holdfast::time::Instant;

use crate::log::Keep;
use crate::message::{self, Msg};
use crate::network::{Cut, Listener, Owner, Weather};
use crate::peer::{MS, Peer, SEC};
use crate::rng::Rng;
use crate::scenario::cut_peer;
use crate::server::Server;
use crate::swarm::{SERVER, device, peer_addr};
use crate::uas::reason;
use crate::world::World;

/// The caller.
pub(crate) const A: usize = 0;
/// The callee, a device with the number 1001.
pub(crate) const B: usize = 1;
/// Another address of the callee, where there is one.
pub(crate) const C: usize = 2;

/// What a peer says of its session in a 2xx.
const DESCRIPTION: &[u8] = b"v=0\r\no=- 9 9 IN IP4 10.0.0.2\r\nm=audio 4000 RTP/AVP 0\r\n";

/// A request to be sent, or the first lines of one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    method: &'static str,
    cseq: Option<u32>,
    max_forwards: Option<u8>,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// A request inside the call.
pub(crate) fn request(method: &'static str) -> Request {
    Request { method, ..Request::default() }
}

/// A re-INVITE with an offer.
pub(crate) fn reinvite() -> Request {
    request("INVITE").body("v=0\r\no=- 1 2 IN IP4 10.0.0.1\r\ns=-\r\nt=0 0\r\n")
}

impl Request {
    /// With this CSeq number instead of the next.
    pub(crate) fn cseq(mut self, cseq: u32) -> Self {
        self.cseq = Some(cseq);
        self
    }

    /// With this many hops left.
    pub(crate) fn max_forwards(mut self, hops: u8) -> Self {
        self.max_forwards = Some(hops);
        self
    }

    /// With one more header.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// With this body.
    pub(crate) fn body(mut self, body: &str) -> Self {
        self.body = body.as_bytes().to_vec();
        self
    }

    /// A re-INVITE that leaves the offer to the other end.
    pub(crate) fn without_offer(mut self) -> Self {
        self.body.clear();
        self
    }
}

/// One end of the call.
#[derive(Clone, Debug, Default)]
struct End {
    call_id: String,
    local: String,
    remote: String,
    target: String,
    cseq: u32,
    /// The last request sent and received, with the flow of the latter.
    sent: Option<Msg>,
    sent_invite: Option<Msg>,
    received: Vec<(usize, Msg)>,
    /// The last response received.
    answer: Option<Msg>,
}

/// A world with two peers, and the script's view of it.
pub(crate) struct Script {
    pub(crate) world: World,
    ends: [End; 3],
    zero: u64,
    options: Options,
    devices: Vec<Device>,
    /// Links that [`Script::connects_to`] has counted.
    links_seen: usize,
    /// Links that [`Script::nothing_happens`] does not mind: what came over them was received.
    links_excused: usize,
}

impl Script {
    /// Two devices, 1000 and 1001, and a server with one shard.
    pub(crate) fn new() -> Self {
        let keep =
            if std::env::var_os("HOLDFAST_TRACE").is_some() { Keep::Print } else { Keep::Hash };
        let mut world = World::new(1, Weather::PERFECT, keep);
        let server: SocketAddr = SERVER.parse().expect("an address");
        let mut devices = Vec::new();
        for index in [A, B] {
            let mut peer = Peer::new(index, format!("100{index}"), peer_addr(index), server);
            peer.manual = true;
            devices.push(device(&peer, &peer.name, None));
            world.oracle.addresses.insert(peer.addr, index);
            world.add_peer(peer);
        }
        let mut options = Options::default().with_devices(devices.clone());
        options.sent_by = SERVER.to_owned();
        options.events = true;
        world.checker.keep = true;
        world.truth.sent_by = SERVER.to_owned();
        world.oracle.passive = true;
        let running = Server::new(server, 1, options.clone(), Rng::new(1));
        world.nodes.server = Some(running);
        let ends = Default::default();
        Self { world, ends, zero: 0, options, devices, links_seen: 0, links_excused: 0 }
    }

    /// The same with a call from A to B that is up; its clock is at 0 now.
    pub(crate) fn established() -> Self {
        Self::new().establish()
    }

    /// A calls B; the clock is at 0 when the call is up.
    pub(crate) fn establish(self) -> Self {
        let mut script = self;
        script.a_calls("1001");
        script.a_receives("100");
        script.b_receives("INVITE");
        script.b_answers(200);
        script.b_receives("ACK");
        script.a_receives("200");
        script.a_acknowledges();
        script.nothing_happens();
        let now = script.world.now();
        let next = now.next_multiple_of(MS) + 10 * MS;
        script.world.run_until(next);
        script.zero = next;
        script.mark();
        script
    }

    /// Puts other options in force, as a reload does.
    pub(crate) fn option(mut self, name: &str, value: u64) -> Self {
        self.set(name, value);
        self
    }

    /// Puts other options in force, now.
    pub(crate) fn set(&mut self, name: &str, value: u64) {
        match name {
            "retry-after-reliable-transport-error" => {
                self.options.retry_after = Duration::from_millis(value);
            }
            "sip-invite-timeout" => self.options.sip_invite_timeout = Duration::from_secs(value),
            "calls-per-second-max" => self.options.limits.calls_per_second_max = value as u32,
            other => panic!("no option {other}"),
        }
        self.reload();
    }

    /// Gives device B a delay of its own.
    pub(crate) fn device_option(mut self, millis: u64) -> Self {
        self.devices[B].retry_after = Some(Duration::from_millis(millis));
        self.options = self.options.with_devices(self.devices.clone());
        self.reload();
        self
    }

    /// Gives device B a backup contact, where C is.
    pub(crate) fn backup(mut self) -> Self {
        let server: SocketAddr = SERVER.parse().expect("an address");
        let mut peer = Peer::new(C, "1002".to_owned(), peer_addr(C), server);
        peer.manual = true;
        self.world.oracle.addresses.insert(peer.addr, C);
        self.devices[B].backups = vec![peer.addr];
        self.world.add_peer(peer);
        self.options = self.options.with_devices(self.devices.clone());
        self.reload();
        self
    }

    /// Device B has the addresses of these peers from now on, in this order.
    pub(crate) fn device_is_at(&mut self, peers: &[usize]) {
        self.devices[B].address = peers.first().map(|&peer| peer_addr(peer));
        self.backups_are(&peers[1..]);
    }

    /// Device B has these backup contacts from now on.
    pub(crate) fn backups_are(&mut self, peers: &[usize]) {
        self.devices[B].backups = peers.iter().map(|&peer| peer_addr(peer)).collect();
        self.options = std::mem::take(&mut self.options).with_devices(self.devices.clone());
        self.reload();
    }

    /// Answers to a re-INVITE that count as a transport failure.
    pub(crate) fn listed(mut self, statuses: &[u16]) -> Self {
        self.options.transport_error_responses = statuses.to_vec();
        self.reload();
        self
    }

    /// A device that stands for all numbers with a prefix, at B's address.
    pub(crate) fn trunk(mut self, prefix: &str) -> Self {
        self.devices[B].kind = DeviceKind::Trunk;
        self.devices[B].prefix = Some(prefix.to_owned());
        self.options = self.options.with_devices(self.devices.clone());
        self.reload();
        self
    }

    /// Takes A out of the configuration.
    pub(crate) fn foreign_caller(mut self) -> Self {
        self.devices.remove(A);
        self.options = self.options.with_devices(self.devices.clone());
        self.reload();
        self
    }

    fn reload(&mut self) {
        self.world.input(0, Input::Options(Arc::new(self.options.clone())));
    }

    /// Takes no new calls from now on; releases what is left at `millis`.
    pub(crate) fn drain(&mut self, millis: u64) {
        let deadline = Instant::from_micros(self.zero + millis * MS);
        self.world.input(0, Input::Drain { deadline });
        self.settle();
    }

    /// Moves the clock to `millis`.
    pub(crate) fn at(&mut self, millis: u64) -> &mut Self {
        let at = self.zero + millis * MS;
        assert!(at >= self.world.now(), "the clock is past {millis} ms");
        if at > self.world.now() {
            self.links_seen = self.world.net.links.len();
        }
        self.world.run_until(at);
        self.check();
        self
    }

    /// Moves the clock to `millis`, as [`at`](Self::at): reads well before silence.
    pub(crate) fn until(&mut self, millis: u64) -> &mut Self {
        self.at(millis)
    }

    pub(crate) fn settle(&mut self) {
        let now = self.world.now();
        self.world.run_until(now);
        self.check();
    }

    #[track_caller]
    fn check(&self) {
        let failures = &self.world.truth.failures;
        assert!(failures.is_empty(), "{failures:#?}");
    }

    fn mark(&mut self) {
        self.links_seen = self.world.net.links.len();
        self.links_excused = self.links_seen;
    }

    /// No message came to a peer and no connection was opened since the script last looked.
    #[track_caller]
    pub(crate) fn nothing_happens(&mut self) {
        for peer in &mut self.world.peers {
            if let Some((_, _, msg)) = peer.inbox.first() {
                panic!("{} received {msg} at {} ms", peer.name, millis(peer.inbox[0].0, self.zero));
            }
        }
        let links = &self.world.net.links[self.links_excused..];
        assert!(links.is_empty(), "a connection to {}", links[0].addrs[1]);
    }

    /// The server asked for exactly one connection to a peer since the clock moved, or since the
    /// script last looked.
    #[track_caller]
    pub(crate) fn connects_to(&mut self, peer: usize) {
        let addr = peer_addr(peer);
        let new = &self.world.net.links[self.links_seen..];
        let count = new.iter().filter(|link| link.addrs[1] == addr).count();
        assert_eq!(count, 1, "connections to {addr}");
        self.mark();
    }

    /// Connections opened since the clock moved, or since the script last looked.
    pub(crate) fn connections(&self) -> usize {
        self.world.net.links.len() - self.links_seen
    }

    /// Every flow of a peer is reset: both ends see it now.
    pub(crate) fn reset(&mut self, peer: usize) {
        cut_peer(&mut self.world, peer, Cut::RESET);
        self.settle();
    }

    /// Connections to a peer are refused from now on.
    pub(crate) fn refuse(&mut self, peer: usize) {
        self.listen(peer, Listener::Refusing);
    }

    /// Connections to a peer succeed again.
    pub(crate) fn accept(&mut self, peer: usize) {
        self.listen(peer, Listener::Up);
    }

    pub(crate) fn listen(&mut self, peer: usize, listener: Listener) {
        self.world.listeners.insert(peer_addr(peer), (peer, listener));
    }

    /// A calls a number.
    pub(crate) fn a_calls(&mut self, number: &str) {
        let peer = &mut self.world.peers[A];
        let serial = peer.unique();
        let msg = Msg::request("INVITE", &format!("sip:{number}@{SERVER}"))
            .with(
                "Via",
                format!("SIP/2.0/{} {};branch=z9hG4bK{serial}", peer.transport.in_via(), peer.addr),
            )
            .with("Max-Forwards", "70")
            .with("From", format!("<sip:{}@sim.example>;tag=a{serial}", peer.name))
            .with("To", format!("<sip:{number}@{SERVER}>"))
            .with("Call-ID", format!("{serial}@sim.example"))
            .with("CSeq", "1 INVITE")
            .with("Contact", format!("<{}>", peer.contact))
            .with_body("application/sdp", b"v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nt=0 0\r\n");
        self.ends[A] = End {
            call_id: msg.text("Call-ID").to_owned(),
            local: msg.text("From").to_owned(),
            remote: msg.text("To").to_owned(),
            target: msg.uri().to_owned(),
            cseq: 1,
            sent: Some(msg.clone()),
            sent_invite: Some(msg.clone()),
            ..End::default()
        };
        self.transmit(A, None, &msg);
    }

    pub(crate) fn a_sends(&mut self, request: Request) {
        self.sends(A, request);
    }

    pub(crate) fn b_sends(&mut self, request: Request) {
        self.sends(B, request);
    }

    fn sends(&mut self, peer: usize, request: Request) {
        let end = &mut self.ends[peer];
        end.cseq = request.cseq.unwrap_or(end.cseq + 1);
        let cseq = end.cseq;
        let msg = self.in_dialog(peer, request.method, cseq, &request);
        self.ends[peer].sent = Some(msg.clone());
        if request.method == "INVITE" {
            self.ends[peer].sent_invite = Some(msg.clone());
        }
        self.transmit(peer, None, &msg);
    }

    fn in_dialog(&mut self, peer: usize, method: &str, cseq: u32, request: &Request) -> Msg {
        let end = &self.ends[peer];
        let (addr, contact) = (self.world.peers[peer].addr, &self.world.peers[peer].contact);
        let hops = request.max_forwards.unwrap_or(70).to_string();
        let mut msg = Msg::request(method, &end.target).with("Max-Forwards", hops);
        msg.add("From", &end.local);
        msg.add("To", &end.remote);
        msg.add("Call-ID", &end.call_id);
        msg.add("CSeq", format!("{cseq} {method}"));
        if method == "INVITE" {
            msg.add("Contact", format!("<{contact}>"));
        }
        for (name, value) in &request.headers {
            msg.add(name, value);
        }
        if !request.body.is_empty() {
            msg = msg.with_body("application/sdp", &request.body);
        }
        let serial = self.world.peers[peer].unique();
        let name = self.world.peers[peer].transport.in_via();
        let via = format!("SIP/2.0/{name} {addr};branch=z9hG4bK{serial}");
        msg.headers.insert(0, ("Via".to_owned(), via.into_bytes()));
        msg
    }

    /// Cancels the INVITE that A sent last.
    pub(crate) fn a_cancels(&mut self) {
        let invite = self.ends[A].sent_invite.clone().expect("an INVITE");
        let mut msg = Msg::request("CANCEL", invite.uri());
        for name in ["Via", "From", "To", "Call-ID", "Max-Forwards"] {
            msg.add(name, invite.text(name));
        }
        msg.add("CSeq", format!("{} CANCEL", invite.cseq().0));
        self.transmit(A, None, &msg);
    }

    /// Acknowledges the INVITE that A sent last: its 2xx, or another final response.
    pub(crate) fn a_acknowledges(&mut self) {
        self.acknowledges(A);
    }

    pub(crate) fn b_acknowledges(&mut self) {
        self.acknowledges(B);
    }

    fn acknowledges(&mut self, peer: usize) {
        let invite = self.ends[peer].sent_invite.clone().expect("an INVITE");
        let answer = self.ends[peer].answer.clone().expect("an answer");
        let mut msg = self.in_dialog(peer, "ACK", invite.cseq().0, &Request::default());
        if answer.status() >= 300 {
            msg.start = format!("ACK {} SIP/2.0", invite.uri());
            for (name, value) in &mut msg.headers {
                match name.as_str() {
                    "Via" => *value = invite.raw("Via").unwrap_or(b"").to_vec(),
                    "To" => *value = answer.raw("To").unwrap_or(b"").to_vec(),
                    _ => {}
                }
            }
        }
        self.transmit(peer, None, &msg);
    }

    pub(crate) fn a_answers(&mut self, status: u16) {
        self.answers(A, 0, status, &[]);
    }

    /// B answers the request that it received last.
    pub(crate) fn b_answers(&mut self, status: u16) {
        self.answers(B, 0, status, &[]);
    }

    /// The same with more headers.
    pub(crate) fn b_answers_with(&mut self, status: u16, headers: &[(&str, &str)]) {
        self.answers(B, 0, status, headers);
    }

    /// C answers the request that it received last.
    pub(crate) fn c_answers(&mut self, status: u16) {
        self.answers(C, 0, status, &[]);
    }

    /// B answers a request that it received earlier: `back` requests before the last.
    pub(crate) fn b_answers_earlier(&mut self, back: usize, status: u16) {
        self.answers(B, back, status, &[]);
    }

    /// The same with more headers.
    pub(crate) fn b_answers_earlier_with(
        &mut self,
        back: usize,
        status: u16,
        headers: &[(&str, &str)],
    ) {
        self.answers(B, back, status, headers);
    }

    fn answers(&mut self, peer: usize, back: usize, status: u16, headers: &[(&str, &str)]) {
        let received = &self.ends[peer].received;
        let (conn, request) = received[received.len() - 1 - back].clone();
        let mut msg = Msg::response(status, reason(status));
        for name in ["Via", "From"] {
            msg.add(name, request.text(name));
        }
        let tag = if request.tag_of_to().is_empty() { ";tag=b1" } else { "" };
        msg.add("To", format!("{}{tag}", request.text("To")));
        for name in ["Call-ID", "CSeq"] {
            msg.add(name, request.text(name));
        }
        for (name, value) in headers {
            msg.add(name, value);
        }
        if request.method() == "INVITE" && status < 300 {
            msg.add("Contact", format!("<{}>", self.world.peers[peer].contact));
            if status >= 200 {
                msg = msg.with_body("application/sdp", DESCRIPTION);
            }
        }
        if request.method() == "INVITE" && self.ends[peer].call_id.is_empty() {
            self.ends[peer] = End {
                call_id: request.text("Call-ID").to_owned(),
                local: msg.text("To").to_owned(),
                remote: request.text("From").to_owned(),
                target: message::uri(request.text("Contact")).to_owned(),
                received: std::mem::take(&mut self.ends[peer].received),
                ..End::default()
            };
        }
        self.transmit(peer, Some(conn), &msg);
    }

    /// Sends bytes as they are over A's flow.
    pub(crate) fn a_sends_raw(&mut self, bytes: &[u8]) {
        let outbound = self.world.peers[A].outbound;
        self.world.with_peer(A, |peer, ctx| {
            let conn = peer.flow_to(ctx, outbound, None, false);
            peer.send(ctx, conn, bytes.to_vec());
        });
        self.mark();
        self.settle();
    }

    /// Over the flow that is given if it lives, else over another one, else over a new one.
    pub(crate) fn transmit(&mut self, peer: usize, conn: Option<usize>, msg: &Msg) {
        let outbound = self.world.peers[peer].outbound;
        let bytes = msg.to_bytes();
        let mark = self.links_seen == self.world.net.links.len();
        self.world.with_peer(peer, |peer, ctx| {
            ctx.log.line(ctx.now, format_args!("{} sends {msg}", peer.name));
            let conn = peer.flow_to(ctx, outbound, conn, false);
            peer.send(ctx, conn, bytes);
        });
        // A connection that a peer opens is none of the server's.
        if mark
            && self
                .world
                .net
                .links
                .last()
                .is_some_and(|link| matches!(link.owners[0], Owner::Peer { .. }))
        {
            self.mark();
        }
        self.settle();
    }

    /// A's next message: a method, or a status.
    #[track_caller]
    pub(crate) fn a_receives(&mut self, what: &str) -> Msg {
        self.receives(A, what)
    }

    /// B's next message: a method, or a status.
    #[track_caller]
    pub(crate) fn b_receives(&mut self, what: &str) -> Msg {
        self.receives(B, what)
    }

    /// C's next message: a method, or a status.
    #[track_caller]
    pub(crate) fn c_receives(&mut self, what: &str) -> Msg {
        self.receives(C, what)
    }

    #[track_caller]
    fn receives(&mut self, peer: usize, what: &str) -> Msg {
        let name = self.world.peers[peer].name.clone();
        let Some(msg) = self.takes(peer) else { panic!("{name} received nothing, wanted {what}") };
        let is_it =
            if msg.is_response() { what.parse() == Ok(msg.status()) } else { what == msg.method() };
        assert!(is_it, "{name} received {msg}, wanted {what}");
        msg
    }

    /// A peer's next message, whatever it is.
    pub(crate) fn takes(&mut self, peer: usize) -> Option<Msg> {
        if self.world.peers[peer].inbox.is_empty() {
            return None;
        }
        let (_, conn, msg) = self.world.peers[peer].inbox.remove(0);
        let end = &mut self.ends[peer];
        if msg.is_response() {
            let ours = msg.text("Call-ID") == end.call_id && !msg.tag_of_to().is_empty();
            if ours && end.sent.as_ref().is_some_and(|m| m.tag_of_to().is_empty()) {
                end.remote = msg.text("To").to_owned();
                if let Some(contact) = msg.list("Contact").first() {
                    end.target = message::uri(contact).to_owned();
                }
            }
            end.answer = Some(msg.clone());
        } else if msg.method() != "ACK" && msg.method() != "CANCEL" {
            end.received.push((conn, msg.clone()));
        }
        self.links_excused = self.world.net.links.len();
        Some(msg)
    }

    /// Requests that B received so far, ACK and CANCEL apart.
    pub(crate) fn requests_of_b(&self) -> usize {
        self.ends[B].received.len()
    }

    /// What the server holds.
    pub(crate) fn stats(&self) -> Stats {
        let server = self.world.nodes.server.as_ref();
        server.map(|server| server.shards[0].endpoint.stats()).unwrap_or_default()
    }

    /// The call is up: a re-INVITE of A goes through.
    #[track_caller]
    pub(crate) fn call_is_up(&mut self) {
        assert_eq!(self.stats().calls, 1);
        assert_eq!(self.stats().waiting, 0);
        self.a_reinvites();
        self.nothing_happens();
    }

    /// A re-INVITE of A is answered and acknowledged.
    #[track_caller]
    pub(crate) fn a_reinvites(&mut self) {
        self.a_sends(reinvite());
        self.a_receives("100");
        self.b_receives("INVITE");
        self.b_answers(200);
        self.b_receives("ACK");
        self.a_receives("200");
        self.a_acknowledges();
    }

    /// The call is over, and 64·T1 later the server holds nothing any more.
    #[track_caller]
    pub(crate) fn call_is_over(&mut self) {
        assert_eq!(self.stats().calls, 0);
        assert_eq!(self.stats().waiting, 0);
        let until = self.world.now() + 40 * SEC;
        self.world.run_until(until);
        self.check();
        let stats = self.stats();
        assert_eq!(stats.clients + stats.servers + stats.timers, 0, "{stats:?}");
    }
}

fn millis(at: u64, zero: u64) -> f64 {
    (at as f64 - zero as f64) / 1000.0
}
