//! The client half of a simulated peer: requests out, responses in.

use holdfast::target::Transport;

use crate::message::{self, Msg};
use crate::peer::{Ctx, Leg, LegState, MS, Peer, PeerTimer, SEC, T1};
use crate::truth::{Ended, Outcome, SentRequest, Side, draw_extras, draw_sdp};

/// A client transaction.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) leg: usize,
    pub(crate) request: Msg,
    /// Its number in the book.
    pub(crate) id: Option<usize>,
    pub(crate) conn: usize,
    pub(crate) sent_at: u64,
    pub(crate) provisional: bool,
    pub(crate) cancelled: bool,
    pub(crate) outcome: Option<Outcome>,
    /// The flow that the final response came on.
    answered_on: usize,
    /// The offer was left to the other end.
    pub(crate) delayed_offer: bool,
}

impl Peer {
    /// Calls `number`; the world has booked the call.
    pub(crate) fn call(&mut self, ctx: &mut Ctx<'_>, call: usize, number: &str) {
        let call_id = format!("{}@{}", self.unique(), self.addr.ip());
        let local_tag = format!("t{}", self.unique());
        let outbound = self.outbound;
        let conn = self.flow_to(ctx, outbound, None, self.traits.flow_per_call);
        let route: Vec<String> = self.draw_record_routes();
        let leg = Leg {
            call,
            side: Side::Caller,
            state: LegState::Early,
            ready: false,
            call_id: call_id.clone(),
            local: format!("\"{}\" <sip:{}@sim.example>", self.name, self.name),
            local_tag,
            remote: format!("<sip:{number}@{outbound}>"),
            remote_tag: String::new(),
            remote_target: format!("sip:{number}@{outbound}"),
            local_contact: self.contact.clone(),
            record_route: route.clone(),
            route,
            route_set: Vec::new(),
            cseq: ctx.rng.range(1, 1_000_000) as u32,
            remote_cseq: 0,
            conn,
            invite_out: None,
            invite_in: None,
            unacked: None,
            acks: Default::default(),
            rseq_seen: 0,
            sdp_version: 1,
        };
        self.legs.push(leg);
        let leg = self.legs.len() - 1;
        self.leg_of.insert(call_id.clone(), leg);
        ctx.truth.calls[call].legs[0] = Some(leg);
        ctx.truth.calls[call].call_ids[0] = call_id;
        self.send_in_dialog(ctx, leg, "INVITE");
    }

    /// How the peer names itself: in Via, Contact, Record-Route.
    pub(crate) fn host(&self, place: usize) -> String {
        if self.traits.names[place] {
            // Where no port is written, over TLS it is another one.
            let port = if self.transport == Transport::Tls { ":5060" } else { "" };
            format!("host-{}.sim.example{port}", self.index)
        } else {
            self.addr.to_string()
        }
    }

    /// The Contact of a leg, with its parameters.
    pub(crate) fn contact_of(&self, leg: usize) -> String {
        format!("<{}>{}", self.legs[leg].local_contact, self.traits.contact_params)
    }

    /// The Record-Route entries of the proxies this peer pretends to be behind.
    pub(crate) fn draw_record_routes(&mut self) -> Vec<String> {
        (0..self.traits.record_routes)
            .map(|_| {
                self.serial += 1;
                let (host, transport) = (self.host(2), self.transport.in_uri());
                format!("<sip:{host};transport={transport};lr;hop={}>", self.serial)
            })
            .collect()
    }

    /// Sends a re-INVITE unless one is open in the dialog.
    pub(crate) fn reinvite(&mut self, ctx: &mut Ctx<'_>, leg: usize) {
        let l = &self.legs[leg];
        if self.is_ready(leg)
            && l.invite_out.is_none()
            && l.invite_in.is_none()
            && l.unacked.is_none()
        {
            self.send_in_dialog(ctx, leg, "INVITE");
        }
    }

    /// Sends a request on a leg and returns its client transaction.
    pub(crate) fn send_in_dialog(&mut self, ctx: &mut Ctx<'_>, leg: usize, method: &str) -> usize {
        let (msg, extras, delayed_offer) = self.draw_request(ctx, leg, method);
        let extras_max = self.traits.extras_max;
        let mut msg = msg;
        let mut all = extras;
        all.extend(draw_extras(ctx.rng, extras_max));
        for (name, value) in &all {
            msg.add(name, value);
        }
        self.transmit(ctx, leg, msg, all, delayed_offer)
    }

    /// Request line, the headers of the dialog, and a body as the method wants it.
    fn draw_request(
        &mut self,
        ctx: &mut Ctx<'_>,
        leg: usize,
        method: &str,
    ) -> (Msg, Vec<(String, Vec<u8>)>, bool) {
        let max_forwards = ctx.rng.range(20, 70);
        let mut msg = self.dialog_request(leg, method, max_forwards);
        let mut extras: Vec<(String, Vec<u8>)> = Vec::new();
        let mut extra =
            |name: &str, value: &str| extras.push((name.to_owned(), value.as_bytes().to_vec()));
        let initial = self.legs[leg].remote_tag.is_empty();
        let host = self.addr.ip().to_string();
        let mut delayed_offer = false;
        match method {
            "INVITE" => {
                extra("Allow", "INVITE, ACK, BYE, CANCEL, UPDATE, INFO, PRACK, REFER, NOTIFY");
                if initial {
                    msg.add("X-Sim-Call", self.legs[leg].call.to_string());
                    extra("Supported", "100rel");
                    for route in &self.legs[leg].record_route {
                        msg.add("Record-Route", route);
                    }
                }
                delayed_offer = ctx.rng.chance(self.traits.delayed_offers);
                if !delayed_offer {
                    self.legs[leg].sdp_version += 1;
                    let sdp = draw_sdp(ctx.rng, &host, self.legs[leg].sdp_version);
                    msg = msg.with_body("application/sdp", &sdp);
                }
            }
            "UPDATE" => {
                self.legs[leg].sdp_version += 1;
                let sdp = draw_sdp(ctx.rng, &host, self.legs[leg].sdp_version);
                msg = msg.with_body("application/sdp", &sdp);
            }
            "INFO" => {
                extra("Info-Package", "sim");
                let len = ctx.rng.below(200) as usize;
                msg = msg.with_body("application/octet-stream", &ctx.rng.bytes(len));
            }
            "MESSAGE" => msg = msg.with_body("text/plain;charset=utf-8", "Grüße".as_bytes()),
            "REFER" => {
                extra("Refer-To", "<sip:7777@elsewhere.example;method=INVITE?Replaces=a%3Bb>");
            }
            "NOTIFY" => {
                extra("Event", "refer");
                extra("Subscription-State", "terminated;reason=noresource");
                msg = msg.with_body("message/sipfrag;version=2.0", b"SIP/2.0 200 OK\r\n");
            }
            "BYE" | "CANCEL" | "OPTIONS" | "PRACK" => {}
            _ => {
                let len = ctx.rng.below(64) as usize;
                msg = msg.with_body("application/x-unheard", &ctx.rng.bytes(len));
            }
        }
        if matches!(method, "INVITE" | "UPDATE" | "REFER" | "NOTIFY") {
            msg.add("Contact", self.contact_of(leg));
        }
        (msg, extras, delayed_offer)
    }

    fn dialog_request(&mut self, leg: usize, method: &str, max_forwards: u64) -> Msg {
        let branch = format!("z9hG4bK{}", self.unique());
        if method != "ACK" {
            self.legs[leg].cseq += 1;
        }
        let l = &self.legs[leg];
        let via = self.transport.in_via();
        let rport = if self.traits.rport { ";rport" } else { "" };
        let alias = if self.traits.alias { ";alias" } else { "" };
        let mut msg = Msg::request(method, &l.remote_target)
            .with("Via", format!("SIP/2.0/{via} {};branch={branch}{alias}{rport}", self.host(0)));
        for hop in 1..self.traits.vias {
            msg.add("Via", format!("SIP/2.0/UDP 192.0.2.{hop}:5060;branch=z9hG4bKbelow{hop}"));
        }
        let to = if l.remote_tag.is_empty() {
            l.remote.clone()
        } else {
            format!("{};tag={}", l.remote, l.remote_tag)
        };
        for route in &l.route_set {
            msg.add("Route", route);
        }
        msg.with("Max-Forwards", max_forwards.to_string())
            .with("From", format!("{};tag={}", l.local, l.local_tag))
            .with("To", to)
            .with("Call-ID", &l.call_id)
            .with("CSeq", format!("{} {method}", l.cseq))
    }

    fn transmit(
        &mut self,
        ctx: &mut Ctx<'_>,
        leg: usize,
        mut msg: Msg,
        extras: Vec<(String, Vec<u8>)>,
        delayed_offer: bool,
    ) -> usize {
        let (call, side) = (self.legs[leg].call, self.legs[leg].side);
        let method = msg.method().to_owned();
        let id = ctx.truth.sent_request(SentRequest {
            call,
            side,
            method: method.clone(),
            max_forwards: msg.number("Max-Forwards").unwrap_or(0),
            content_type: msg.text("Content-Type").to_owned(),
            extras,
            body: msg.body.clone(),
            seen: Vec::new(),
            outcome: None,
        });
        msg.add("X-Sim-Id", id.to_string());
        let conn = self.leg_flow(ctx, leg);
        let client = Client {
            leg,
            request: msg.clone(),
            id: Some(id),
            conn,
            sent_at: ctx.now,
            provisional: false,
            cancelled: false,
            outcome: None,
            answered_on: usize::MAX,
            delayed_offer,
        };
        self.client_of.insert(msg.branch(), self.clients.len());
        self.clients.push(client);
        let index = self.clients.len() - 1;
        if method == "INVITE" {
            self.legs[leg].invite_out = Some(index);
        } else {
            ctx.after(64 * T1, PeerTimer::TimedOut { client: index });
        }
        if method == "BYE" {
            self.end_leg(ctx, leg, Some(Ended::Bye(side)));
        }
        ctx.log.line(ctx.now, format_args!("{} sends {msg} (#{id})", self.name));
        self.send(ctx, conn, msg.spelled(self.traits.spelling));
        index
    }

    /// RFC 3261 §17.1.2.2: nobody answered.
    pub(crate) fn on_timer_f(&mut self, ctx: &mut Ctx<'_>, index: usize) {
        let client = &mut self.clients[index];
        if client.outcome.is_some() {
            return;
        }
        client.outcome = Some(Outcome::TimedOut);
        if ctx.truth.healed_at.is_some_and(|at| at + SEC < client.sent_at) {
            ctx.fail(format!("{}: no answer to {}", self.name, client.request));
        }
        ctx.truth.cover("request timed out");
        self.on_outcome(ctx, index);
    }

    /// The flow that the next request of a leg goes over.
    fn leg_flow(&mut self, ctx: &mut Ctx<'_>, leg: usize) -> usize {
        let target = self.next_hop(leg);
        let fresh = self.traits.flow_per_call;
        let conn = self.flow_to(ctx, target, Some(self.legs[leg].conn), fresh);
        self.legs[leg].conn = conn;
        conn
    }

    /// Cancels the open INVITE of a leg when RFC 3261 §9.1 lets it; true when it did.
    pub(crate) fn cancel(&mut self, ctx: &mut Ctx<'_>, leg: usize) -> bool {
        let Some(index) = self.legs[leg].invite_out else { return false };
        let client = &mut self.clients[index];
        if !client.provisional || client.cancelled || client.outcome.is_some() {
            return false;
        }
        client.cancelled = true;
        let (request, conn) = (client.request.clone(), client.conn);
        let mut msg = Msg::request("CANCEL", request.uri());
        for name in ["Via", "From", "To", "Call-ID"] {
            msg.add(name, request.raw(name).unwrap_or(b""));
        }
        msg.add("CSeq", format!("{} CANCEL", request.cseq().0));
        for route in request.list("Route") {
            msg.add("Route", route);
        }
        msg.add("Max-Forwards", "70");
        self.clients.push(Client {
            leg,
            request: msg.clone(),
            id: None,
            conn,
            sent_at: ctx.now,
            provisional: false,
            cancelled: false,
            outcome: None,
            answered_on: usize::MAX,
            delayed_offer: false,
        });
        let key = format!("{} CANCEL", request.branch());
        self.client_of.insert(key, self.clients.len() - 1);
        ctx.truth.cover("CANCEL");
        ctx.log.line(ctx.now, format_args!("{} sends {msg}", self.name));
        self.send(ctx, conn, msg.spelled(self.traits.spelling));
        true
    }

    /// A response came.
    pub(crate) fn on_response(&mut self, ctx: &mut Ctx<'_>, conn: usize, msg: &Msg) {
        let mut key = msg.branch();
        if msg.method() == "CANCEL" {
            key.push_str(" CANCEL");
        }
        let Some(&index) = self.client_of.get(&key) else {
            return ctx.fail(format!("{} received {msg}: no such request", self.name));
        };
        if let Err(error) = self.check_answer(ctx, index, msg) {
            ctx.fail(format!("{} received {msg}: {error}", self.name));
        }
        self.check_owned(ctx, msg);
        let client = &mut self.clients[index];
        let leg = client.leg;
        if msg.status() < 200 {
            client.provisional = true;
            // On another flow it may have been overtaken.
            if matches!(client.outcome, Some(Outcome::Final(..))) && conn == client.answered_on {
                ctx.fail(format!("{} received {msg} after a final response", self.name));
            }
            return self.on_provisional(ctx, index, msg);
        }
        let invite = msg.method() == "INVITE";
        if let Some(Outcome::Final(status, _)) = client.outcome {
            if status != msg.status() {
                ctx.fail(format!("{} received {msg} after a final {status}", self.name));
            } else if invite {
                self.acknowledge(ctx, index, conn, msg);
            }
            return;
        }
        let relayed = msg.number("X-Sim-Response").is_some();
        // Also when the flow was lost meanwhile: a late 2xx is acknowledged all the same.
        client.answered_on = conn;
        client.outcome = Some(Outcome::Final(msg.status(), relayed));
        if invite {
            self.on_invite_final(ctx, index, conn, msg);
        }
        if self.legs[leg].conn != conn && self.conns[conn].alive {
            self.legs[leg].conn = conn;
        }
        self.on_outcome(ctx, index);
    }

    /// What a response must repeat of its request, and whether the other peer really sent it.
    fn check_answer(&self, ctx: &Ctx<'_>, index: usize, msg: &Msg) -> Result<(), String> {
        let client = &self.clients[index];
        let request = &client.request;
        let leg = &self.legs[client.leg];
        let (sent, have) = (request.list("Via"), msg.list("Via"));
        if sent.len() != have.len() || sent.iter().zip(&have).any(|(s, h)| !h.starts_with(s)) {
            return Err(format!("Via {have:?} instead of {sent:?}"));
        }
        if msg.text("CSeq") != request.text("CSeq") {
            return Err(format!("CSeq {:?}", msg.text("CSeq")));
        }
        if msg.text("Call-ID") != leg.call_id || msg.text("From") != request.text("From") {
            return Err("Call-ID or From is not that of the request".to_owned());
        }
        let to_tag = msg.tag_of_to();
        if msg.status() > 100 && to_tag.is_empty() {
            return Err("no To tag".to_owned());
        }
        let asked = request.tag_of_to();
        if !asked.is_empty() && msg.status() > 100 && to_tag != asked {
            return Err(format!("To tag {to_tag} instead of {asked}"));
        }
        let dialog = msg.method() == "INVITE" && matches!(msg.status(), 101..=299);
        if dialog && !leg.remote_tag.is_empty() && to_tag != leg.remote_tag {
            return Err(format!("To tag {to_tag} instead of {}", leg.remote_tag));
        }
        let recorded = self.recorded(ctx.truth, client.leg);
        if dialog && asked.is_empty() && msg.list("Record-Route") != recorded {
            return Err(format!("Record-Route {:?}", msg.list("Record-Route")));
        }
        if !dialog && msg.count("Record-Route") > 0 && msg.list("Record-Route") != recorded {
            return Err("Record-Route leaked".to_owned());
        }
        let relayed = ctx.truth.check_response(client.id, msg)?;
        let invite_2xx = msg.method() == "INVITE" && matches!(msg.status(), 200..=299);
        if invite_2xx && !relayed {
            return Err("the server answered an INVITE with 2xx by itself".to_owned());
        }
        Ok(())
    }

    fn on_provisional(&mut self, ctx: &mut Ctx<'_>, index: usize, msg: &Msg) {
        let leg = self.clients[index].leg;
        if msg.status() == 100 || msg.method() != "INVITE" {
            return;
        }
        let initial = self.clients[index].request.tag_of_to().is_empty();
        if initial {
            self.learn_routes(ctx.truth, leg, msg);
        }
        let l = &mut self.legs[leg];
        if l.remote_tag.is_empty() {
            l.remote_tag = msg.tag_of_to();
            if let Some(contact) = msg.list("Contact").first() {
                l.remote_target = message::uri(contact).to_owned();
            }
        }
        let Some(rseq) = msg.number("RSeq") else { return };
        if !msg.text("Require").contains("100rel") || l.rseq_seen as u64 >= rseq {
            return;
        }
        l.rseq_seen = rseq as u32;
        let max_forwards = ctx.rng.range(20, 70);
        let cseq = self.clients[index].request.cseq().0;
        let mut prack = self.dialog_request(leg, "PRACK", max_forwards);
        prack.add("RAck", format!("{rseq} {cseq} INVITE"));
        let extras = draw_extras(ctx.rng, self.traits.extras_max);
        for (name, value) in &extras {
            prack.add(name, value);
        }
        ctx.truth.cover("PRACK");
        self.transmit(ctx, leg, prack, extras, false);
    }

    fn on_invite_final(&mut self, ctx: &mut Ctx<'_>, index: usize, conn: usize, msg: &Msg) {
        let leg = self.clients[index].leg;
        let initial = self.clients[index].request.tag_of_to().is_empty();
        if self.legs[leg].invite_out == Some(index) {
            self.legs[leg].invite_out = None;
        }
        let was_over = self.legs[leg].state == LegState::Ended;
        if msg.status() < 300 {
            if initial {
                self.learn_routes(ctx.truth, leg, msg);
            }
            let l = &mut self.legs[leg];
            l.remote_tag = msg.tag_of_to();
            if let Some(contact) = msg.list("Contact").first() {
                l.remote_target = message::uri(contact).to_owned();
            }
            if initial && l.state == LegState::Early {
                l.state = LegState::Confirmed;
                l.ready = true;
                ctx.truth.calls[l.call].established = true;
                ctx.truth.cover("call established");
            }
        }
        self.acknowledge(ctx, index, conn, msg);
        if initial && msg.status() >= 300 {
            self.end_leg(ctx, leg, Some(Ended::Refused));
        } else if initial && (self.clients[index].cancelled || was_over) {
            // RFC 3261 §9.1: the 2xx crossed the CANCEL, or came after its flow was lost.
            self.send_in_dialog(ctx, leg, "BYE");
        }
    }

    /// ACK: the same one again for a repeated response.
    fn acknowledge(&mut self, ctx: &mut Ctx<'_>, index: usize, conn: usize, msg: &Msg) {
        let leg = self.clients[index].leg;
        let request = self.clients[index].request.clone();
        let cseq = request.cseq().0;
        if let Some(bytes) = self.legs[leg].acks.get(&cseq) {
            let bytes = bytes.clone();
            return self.send(ctx, conn, bytes);
        }
        let ack = if msg.status() < 300 {
            // RFC 3261 §13.2.2.4: the CSeq number of the INVITE, a branch of its own.
            let mut ack = self.dialog_request(leg, "ACK", 70);
            if let Some((_, value)) = ack.headers.iter_mut().find(|(name, _)| name == "CSeq") {
                *value = format!("{cseq} ACK").into_bytes();
            }
            if self.clients[index].delayed_offer && !msg.body.is_empty() {
                let host = self.addr.ip().to_string();
                let sdp = draw_sdp(ctx.rng, &host, self.legs[leg].sdp_version);
                ack = ack.with_body("application/sdp", &sdp);
                if let Some(response) = msg.number("X-Sim-Response") {
                    ctx.truth.answers.insert(response as usize, sdp);
                }
                ctx.truth.cover("answer in the ACK");
            }
            ack
        } else {
            // RFC 3261 §17.1.1.3: the branch of the INVITE, the To of the response.
            let mut ack = Msg::request("ACK", request.uri());
            ack.add("Via", request.raw("Via").unwrap_or(b""));
            ack.add("From", request.raw("From").unwrap_or(b""));
            ack.add("To", msg.raw("To").unwrap_or(b""));
            ack.add("Call-ID", request.raw("Call-ID").unwrap_or(b""));
            ack.add("CSeq", format!("{cseq} ACK"));
            for route in request.list("Route") {
                ack.add("Route", route);
            }
            ack.add("Max-Forwards", "70");
            ack
        };
        let bytes = ack.spelled(self.traits.spelling);
        self.legs[leg].acks.insert(cseq, bytes.clone());
        self.send(ctx, conn, bytes);
    }

    /// A request of this peer is over, one way or the other.
    pub(crate) fn on_outcome(&mut self, ctx: &mut Ctx<'_>, index: usize) {
        let client = &self.clients[index];
        let (leg, id, outcome) = (client.leg, client.id, client.outcome);
        let method = client.request.method().to_owned();
        let initial = client.request.tag_of_to().is_empty();
        if let (Some(id), Some(outcome)) = (id, outcome) {
            ctx.truth.requests[id].outcome = Some(outcome);
        }
        let call = self.legs[leg].call;
        match outcome {
            Some(Outcome::FlowLost) => {
                if self.legs[leg].invite_out == Some(index) {
                    self.legs[leg].invite_out = None;
                }
                if method == "BYE" {
                    ctx.truth.cover("BYE lost with its flow");
                    ctx.after(SEC, PeerTimer::ByeAgain { leg });
                }
                if method == "INVITE" && initial {
                    // A new INVITE that fails is over for its caller; the server learns by BYE
                    // if it ever answers.
                    self.end_leg(ctx, leg, Some(Ended::Refused));
                }
            }
            Some(Outcome::Final(491, _)) if method == "INVITE" => {
                // RFC 3261 §14.1: who owns the Call-ID waits longer.
                let wait = match self.legs[leg].side {
                    Side::Caller => 2100 * MS + 10 * MS * ctx.rng.below(190),
                    Side::Callee => 10 * MS * ctx.rng.below(200),
                };
                ctx.truth.cover("491");
                ctx.after(wait, PeerTimer::ReinviteAgain { leg });
            }
            Some(Outcome::Final(500, _)) if method == "INVITE" && !initial => {
                let wait = SEC + ctx.rng.below(SEC);
                ctx.after(wait, PeerTimer::ReinviteAgain { leg });
            }
            Some(Outcome::Final(481, _)) if !matches!(&method[..], "BYE" | "CANCEL" | "PRACK") => {
                if ctx.truth.is_up(call) {
                    ctx.fail(format!("{}: 481 to {method} in call {call} that is up", self.name));
                }
                if self.legs[leg].state == LegState::Confirmed {
                    // RFC 3261 §12.2.1.2: to terminate the dialog is to send a BYE.
                    self.send_in_dialog(ctx, leg, "BYE");
                }
            }
            Some(Outcome::Final(..) | Outcome::TimedOut) | None => {}
        }
    }
}
