//! A simulated peer: its address, its flows, its dialogs, and what both halves of its user agent
//! (`uac`, `uas`) share.
//!
//! ```text
//!              flows ◄──── network
//!                │ messages
//!      responses │ requests
//!         ▼      └──────▼
//!        uac           uas
//!         └── legs ─────┘        a leg is one dialog with the server
//! ```
//!
//! A peer that loses a flow keeps its dialogs, listens at its address, accepts a re-INVITE with a
//! higher CSeq as new and drops one with an equal CSeq.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use holdfast::target::Transport;

use crate::log::Log;
use crate::message::{self, Msg, Spelling};
use crate::rng::Rng;
use crate::truth::{Ended, Outcome, SentResponse, Side, Truth};
use crate::uac::Client;
use crate::uas::Served;

/// One millisecond and one second in the simulation's microseconds.
pub(crate) const MS: u64 = 1_000;
pub(crate) const SEC: u64 = 1_000_000;
/// RFC 3261 §17.1.1.1.
pub(crate) const T1: u64 = 500 * MS;
pub(crate) const T2: u64 = 4 * SEC;

/// What a peer wants done.
#[derive(Debug)]
pub(crate) enum Effect {
    Connect { conn: usize, target: SocketAddr },
    Send { conn: usize, bytes: Vec<u8> },
    Timer { after: u64, timer: PeerTimer },
}

/// What a peer set an alarm for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerTimer {
    /// The next step of the answer to a request.
    Plan { served: usize },
    /// Send the 2xx again unless it was acknowledged.
    Repeat2xx { served: usize, interval: u64 },
    /// Send the reliable provisional response again unless PRACK came.
    RepeatReliable { served: usize, interval: u64 },
    /// Timer F of a request.
    TimedOut { client: usize },
    /// A 1xx to an earlier copy of a re-INVITE.
    TryLate { served: usize },
    /// Its final response.
    EndLate { served: usize },
    /// Report on a REFER.
    Notify { leg: usize },
    /// Hang up again: the flow was lost with the first BYE.
    ByeAgain { leg: usize },
    /// Try a re-INVITE again after 491 or 500.
    ReinviteAgain { leg: usize },
}

/// What surrounds a peer while it reacts.
pub(crate) struct Ctx<'a> {
    pub(crate) now: u64,
    pub(crate) rng: &'a mut Rng,
    pub(crate) truth: &'a mut Truth,
    pub(crate) log: &'a mut Log,
    pub(crate) effects: &'a mut Vec<Effect>,
}

impl Ctx<'_> {
    /// Notes a failure of whoever the peer talks to.
    pub(crate) fn fail(&mut self, text: String) {
        self.log.line(self.now, format_args!("FAILURE {text}"));
        self.truth.failures.push(text);
    }

    pub(crate) fn after(&mut self, after: u64, timer: PeerTimer) {
        self.effects.push(Effect::Timer { after, timer });
    }
}

/// How a peer behaves, drawn once.
#[derive(Clone, Debug)]
pub(crate) struct Traits {
    /// Sends a response over a new flow when the one of its request is gone (RFC 3261 §18.2.2).
    pub(crate) responds_on_new_flow: bool,
    /// What it answers to a re-INVITE while its 2xx to the one before is not acknowledged; 0: takes
    /// it as new.
    pub(crate) busy_status: u16,
    /// Answers 18x reliably to callers that support it.
    pub(crate) reliable: bool,
    /// Record-Route entries of the proxies it pretends to be behind.
    pub(crate) record_routes: usize,
    /// Vias of its requests.
    pub(crate) vias: usize,
    pub(crate) spelling: Spelling,
    /// Asks for `rport` in its Via (RFC 3581).
    pub(crate) rport: bool,
    /// Names itself and its proxies by names instead of addresses: in Via, Contact, Record-Route.
    pub(crate) names: [bool; 3],
    /// What follows the address in its Contacts.
    pub(crate) contact_params: &'static str,
    /// Opens a flow of its own for each call it makes.
    pub(crate) flow_per_call: bool,
    /// Longest answer delay of a re-INVITE and of any other request.
    pub(crate) answer_delay_max: u64,
    /// Longest time it rings.
    pub(crate) ring_max: u64,
    /// In 1000 cases it refuses a re-INVITE or another request this often.
    pub(crate) refuses: u64,
    /// In 1000 new INVITEs it refuses this often.
    pub(crate) rejects: u64,
    /// In 1000 re-INVITEs it answers 503 this often, as a proxy that lost its own target.
    pub(crate) transport_errors: u64,
    /// In 1000 messages this many come after a ping.
    pub(crate) pings: u64,
    /// Unknown headers at most.
    pub(crate) extras_max: u64,
    /// In 1000 INVITEs it leaves the offer to the other end this often.
    pub(crate) delayed_offers: u64,
    /// Takes requests on the flows that it opens (RFC 5923).
    pub(crate) alias: bool,
    /// What it answers to its next re-INVITEs, and to how many.
    pub(crate) next_answers: Option<(u16, u8)>,
    /// Sends every final response twice.
    pub(crate) answers_twice: bool,
    /// Sends every response over a flow of its own.
    pub(crate) answers_apart: bool,
    /// The 1xx that it sends to every re-INVITE, some time before the final response.
    pub(crate) always_rings: Option<u16>,
    /// In 1000 copies of a re-INVITE that a newer one superseded this many are heard of once more.
    pub(crate) tries_late: u64,
}

impl Default for Traits {
    fn default() -> Self {
        Self {
            responds_on_new_flow: true,
            busy_status: 0,
            reliable: false,
            record_routes: 0,
            vias: 1,
            spelling: Spelling::Plain,
            rport: false,
            names: [false; 3],
            contact_params: "",
            flow_per_call: false,
            answer_delay_max: 20 * MS,
            ring_max: SEC,
            refuses: 0,
            rejects: 0,
            transport_errors: 0,
            pings: 0,
            extras_max: 2,
            delayed_offers: 0,
            alias: false,
            next_answers: None,
            answers_twice: false,
            answers_apart: false,
            always_rings: None,
            tries_late: 0,
        }
    }
}

/// A flow of a peer.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) remote: SocketAddr,
    pub(crate) alive: bool,
}

/// Where a leg is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LegState {
    Early,
    Confirmed,
    Ended,
}

/// One dialog of a peer.
#[derive(Clone, Debug)]
pub(crate) struct Leg {
    pub(crate) call: usize,
    pub(crate) side: Side,
    pub(crate) state: LegState,
    /// The first 2xx was acknowledged.
    pub(crate) ready: bool,
    pub(crate) call_id: String,
    pub(crate) local: String,
    pub(crate) local_tag: String,
    pub(crate) remote: String,
    pub(crate) remote_tag: String,
    pub(crate) remote_target: String,
    pub(crate) local_contact: String,
    /// Record-Route that this side put into the dialog, in the order the server must use it.
    pub(crate) route: Vec<String>,
    /// The same as it stands in the message that carried it.
    pub(crate) record_route: Vec<String>,
    /// Route of this side's own requests: the proxy that really is there.
    pub(crate) route_set: Vec<String>,
    pub(crate) cseq: u32,
    pub(crate) remote_cseq: u32,
    pub(crate) conn: usize,
    /// The INVITE this side sent and that has no final response.
    pub(crate) invite_out: Option<usize>,
    /// The INVITE that this side has not answered finally.
    pub(crate) invite_in: Option<usize>,
    /// The INVITE whose 2xx is not acknowledged.
    pub(crate) unacked: Option<usize>,
    /// ACKs that were sent, by CSeq.
    pub(crate) acks: BTreeMap<u32, Vec<u8>>,
    /// RSeq and CSeq of reliable responses that were acknowledged.
    pub(crate) rseq_seen: u32,
    pub(crate) sdp_version: u32,
}

/// A simulated peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) addr: SocketAddr,
    pub(crate) contact: String,
    /// What it speaks.
    pub(crate) transport: Transport,
    /// Request-URI of INVITEs to it; none: the number at its address.
    pub(crate) route_uri: Option<String>,
    /// Where it sends the first INVITE of a call.
    pub(crate) outbound: SocketAddr,
    pub(crate) traits: Traits,
    pub(crate) conns: Vec<Conn>,
    pub(crate) legs: Vec<Leg>,
    pub(crate) leg_of: BTreeMap<String, usize>,
    pub(crate) clients: Vec<Client>,
    pub(crate) client_of: BTreeMap<String, usize>,
    pub(crate) served: Vec<Served>,
    pub(crate) served_of: BTreeMap<(String, String), usize>,
    /// Branches of all requests that came.
    pub(crate) branches: BTreeSet<String>,
    /// Answers nothing by itself: a script does.
    pub(crate) manual: bool,
    /// What came, for a script.
    pub(crate) inbox: Vec<(u64, usize, Msg)>,
    pub(crate) serial: u64,
}

impl Peer {
    /// A peer that listens at `addr`.
    pub(crate) fn new(index: usize, name: String, addr: SocketAddr, outbound: SocketAddr) -> Self {
        Self {
            index,
            contact: format!("sip:{name}@{addr};transport=tcp"),
            transport: Transport::Tcp,
            route_uri: None,
            name,
            addr,
            outbound,
            traits: Traits::default(),
            conns: Vec::new(),
            legs: Vec::new(),
            leg_of: BTreeMap::new(),
            clients: Vec::new(),
            client_of: BTreeMap::new(),
            served: Vec::new(),
            served_of: BTreeMap::new(),
            branches: BTreeSet::new(),
            manual: false,
            inbox: Vec::new(),
            serial: 0,
        }
    }

    /// A name that this peer never used before.
    pub(crate) fn unique(&mut self) -> String {
        self.serial += 1;
        format!("p{}n{}", self.index, self.serial)
    }

    /// A peer connected to us.
    pub(crate) fn on_accept(&mut self, remote: SocketAddr) -> usize {
        self.conns.push(Conn { remote, alive: true });
        self.conns.len() - 1
    }

    /// A whole message came.
    pub(crate) fn on_message(&mut self, ctx: &mut Ctx<'_>, conn: usize, bytes: &[u8]) {
        let msg = match Msg::parse(bytes) {
            Ok(msg) => msg,
            Err(error) => {
                let text = String::from_utf8_lossy(bytes).into_owned();
                return ctx.fail(format!("{} received a bad message: {error}\n{text}", self.name));
            }
        };
        ctx.log.line(
            ctx.now,
            format_args!("  {} receives {msg} #{:08x}", self.name, crate::log::digest(bytes)),
        );
        if self.manual {
            self.inbox.push((ctx.now, conn, msg));
        } else if msg.is_response() {
            self.on_response(ctx, conn, &msg);
        } else {
            self.on_request(ctx, conn, &msg);
        }
    }

    /// A flow is gone; requests that wait on it have failed, dialogs stay.
    pub(crate) fn on_down(&mut self, ctx: &mut Ctx<'_>, conn: usize) {
        self.conns[conn].alive = false;
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if client.conn == conn && client.outcome.is_none() {
                client.outcome = Some(Outcome::FlowLost);
                self.on_outcome(ctx, index);
            }
        }
    }

    /// A timer went off.
    pub(crate) fn on_timer(&mut self, ctx: &mut Ctx<'_>, timer: PeerTimer) {
        match timer {
            PeerTimer::Plan { served } => self.next_step(ctx, served),
            PeerTimer::Repeat2xx { served, interval } => self.repeat_2xx(ctx, served, interval),
            PeerTimer::RepeatReliable { served, interval } => {
                self.repeat_reliable(ctx, served, interval);
            }
            PeerTimer::TryLate { served } => self.try_late(ctx, served),
            PeerTimer::EndLate { served } => self.end_late(ctx, served),
            PeerTimer::TimedOut { client } => self.on_timer_f(ctx, client),
            PeerTimer::Notify { leg } => {
                if self.is_ready(leg) {
                    self.send_in_dialog(ctx, leg, "NOTIFY");
                }
            }
            PeerTimer::ByeAgain { leg } => {
                self.send_in_dialog(ctx, leg, "BYE");
            }
            PeerTimer::ReinviteAgain { leg } => self.reinvite(ctx, leg),
        }
    }

    /// A living flow to `target`'s host: the preferred one, another one, or a new one.
    pub(crate) fn flow_to(
        &mut self,
        ctx: &mut Ctx<'_>,
        target: SocketAddr,
        preferred: Option<usize>,
        fresh: bool,
    ) -> usize {
        let usable = |conn: &Conn| conn.alive && conn.remote.ip() == target.ip();
        if let Some(conn) = preferred.filter(|conn| usable(&self.conns[*conn])) {
            return conn;
        }
        if !fresh && let Some(conn) = self.conns.iter().rposition(usable) {
            return conn;
        }
        self.connect(ctx, target)
    }

    /// Opens a new flow to `target`.
    pub(crate) fn connect(&mut self, ctx: &mut Ctx<'_>, target: SocketAddr) -> usize {
        self.conns.push(Conn { remote: target, alive: true });
        let conn = self.conns.len() - 1;
        ctx.effects.push(Effect::Connect { conn, target });
        conn
    }

    pub(crate) fn send(&self, ctx: &mut Ctx<'_>, conn: usize, mut bytes: Vec<u8>) {
        if ctx.rng.chance(self.traits.pings) {
            // RFC 5626 §3.5.1, and stray line ends between messages (RFC 3261 §7.5).
            let before: &[u8] = if ctx.rng.chance(500) { b"\r\n\r\n" } else { b"\r\n" };
            bytes.splice(..0, before.iter().copied());
        }
        ctx.effects.push(Effect::Send { conn, bytes });
    }

    /// Sends a response to where its request came from, or to the Via when that flow is gone.
    pub(crate) fn respond(&mut self, ctx: &mut Ctx<'_>, served: usize, bytes: Vec<u8>) {
        let conn = self.served[served].conn;
        if self.conns[conn].alive && !self.traits.answers_apart {
            return self.send(ctx, conn, bytes);
        }
        let via = self.served[served].request.list("Via").swap_remove(0);
        let remote = self.conns[conn].remote;
        let apart = self.traits.answers_apart;
        let other = |conn: &Conn| conn.alive && conn.remote.ip() == remote.ip();
        if let Some(other) = self.conns.iter().rposition(other).filter(|_| !apart) {
            return self.send(ctx, other, bytes);
        }
        if !self.traits.responds_on_new_flow {
            return;
        }
        let sent_by = via.split_whitespace().nth(1).unwrap_or("").split(';').next().unwrap_or("");
        match sent_by.parse() {
            Ok(target) => {
                let conn = self.connect(ctx, target);
                ctx.truth.cover("response over a new flow to the Via");
                self.send(ctx, conn, bytes);
            }
            Err(_) => ctx.fail(format!("Via sent-by {sent_by:?} is no address")),
        }
    }

    /// The leg may send requests: confirmed, and its first 2xx acknowledged (RFC 3261 §15).
    pub(crate) fn is_ready(&self, leg: usize) -> bool {
        self.legs[leg].state == LegState::Confirmed && self.legs[leg].ready
    }

    /// The call is over for this leg.
    pub(crate) fn end_leg(&mut self, ctx: &mut Ctx<'_>, leg: usize, ended: Option<Ended>) {
        self.legs[leg].state = LegState::Ended;
        if let Some(ended) = ended {
            ctx.truth.end(self.legs[leg].call, ended);
        }
    }

    /// What a B2BUA owns in everything that it sends.
    pub(crate) fn check_owned(&self, ctx: &mut Ctx<'_>, msg: &Msg) {
        if ctx.truth.direct {
            return;
        }
        let mut wrong = Vec::new();
        if let Some(contact) = msg.list("Contact").first() {
            let host = message::host_port(message::uri(contact));
            if host != ctx.truth.sent_by && !matches!(msg.status(), 300..=399) {
                wrong.push(format!("Contact {contact:?} is not the server's"));
            }
        }
        let needs_contact = msg.method() == "INVITE" && matches!(msg.status(), 0 | 101..=299);
        if needs_contact && msg.count("Contact") != 1 {
            wrong.push(format!("{} Contact headers", msg.count("Contact")));
        }
        if !msg.is_response() {
            wrong.extend(self.check_hops(ctx.truth, msg));
            if !msg.branch().starts_with("z9hG4bK") {
                wrong.push(format!("branch {:?}", msg.branch()));
            }
        }
        for text in wrong {
            ctx.fail(format!("{} received {msg}: {text}", self.name));
        }
    }

    /// Notes a response to a relayed request in the book and puts its number into it.
    pub(crate) fn book_response(
        &mut self,
        ctx: &mut Ctx<'_>,
        served: usize,
        mut msg: Msg,
        extras: Vec<(String, Vec<u8>)>,
    ) -> Msg {
        let Some(request) = self.served[served].id else { return msg };
        for (name, value) in &extras {
            msg.add(name, value);
        }
        msg.add("X-Sim-Response", ctx.truth.responses.len().to_string());
        ctx.truth.responses.push(SentResponse {
            request,
            status: msg.status(),
            extras,
            body: msg.body.clone(),
        });
        msg
    }
}
