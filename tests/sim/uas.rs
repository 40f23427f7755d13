//! The server half of a simulated peer: requests in, responses out.

use std::collections::VecDeque;

use crate::message::{self, Msg};
use crate::peer::{Ctx, Leg, LegState, MS, Peer, PeerTimer, SEC, T1, T2};
use crate::truth::{Ended, Outcome, Side, draw_extras, draw_sdp};

/// A server transaction.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) request: Msg,
    pub(crate) conn: usize,
    pub(crate) leg: Option<usize>,
    /// Number of the request in the book; none when the server made it.
    pub(crate) id: Option<usize>,
    pub(crate) plan: VecDeque<(u64, Step)>,
    last: Option<Vec<u8>>,
    pub(crate) status: Option<u16>,
    received_at: u64,
    pub(crate) answered_at: u64,
    pub(crate) acked: bool,
    /// Took an offer in its 2xx, so the ACK brings the answer: number of the response.
    offered: Option<usize>,
    /// RSeq of a reliable response that waits for PRACK.
    rseq: Option<u32>,
    rseq_last: u32,
    /// Set when a later INVITE took its place.
    pub(crate) dropped: bool,
}

/// A step of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Provisional(u16),
    Reliable(u16),
    Final(u16),
}

impl Peer {
    /// A request came.
    pub(crate) fn on_request(&mut self, ctx: &mut Ctx<'_>, conn: usize, msg: &Msg) {
        match msg.method() {
            "ACK" => return self.on_ack(ctx, msg),
            "CANCEL" => return self.on_cancel(ctx, conn, msg),
            _ => {}
        }
        let key = (msg.branch(), msg.method().to_owned());
        if let Some(&served) = self.served_of.get(&key) {
            // The same transaction again: the same answer again.
            ctx.truth.cover("request repeated");
            if let Some(last) = self.served[served].last.clone() {
                self.served[served].conn = conn;
                self.respond(ctx, served, last);
            }
            return;
        }
        if !ctx.truth.direct {
            self.check_owned(ctx, msg);
        }
        if !self.branches.insert(msg.branch()) {
            ctx.fail(format!("{} received {msg}: the branch was used before", self.name));
        }
        let leg = self.leg_of.get(msg.text("Call-ID")).copied();
        let id = msg.number("X-Sim-Id").map(|id| id as usize);
        self.served.push(Served {
            request: msg.clone(),
            conn,
            leg,
            id,
            plan: VecDeque::new(),
            last: None,
            status: None,
            received_at: ctx.now,
            answered_at: 0,
            acked: false,
            offered: None,
            rseq: None,
            rseq_last: 0,
            dropped: false,
        });
        let served = self.served.len() - 1;
        self.served_of.insert(key, served);
        match leg {
            None if msg.method() == "INVITE" && msg.tag_of_to().is_empty() => {
                self.on_initial_invite(ctx, served);
            }
            Some(leg) if msg.method() == "INVITE" && msg.tag_of_to().is_empty() => {
                self.on_initial_invite_again(ctx, served, leg);
            }
            None => {
                ctx.fail(format!("{} received {msg}: no such dialog", self.name));
                self.answer(ctx, served, 481);
            }
            Some(leg) if self.is_forgotten(leg, msg) => {
                ctx.truth.cover("request in a forgotten early dialog");
                self.answer(ctx, served, 481);
            }
            Some(leg) => self.on_dialog_request(ctx, served, leg),
        }
    }

    pub(crate) fn on_initial_invite(&mut self, ctx: &mut Ctx<'_>, served: usize) {
        let msg = self.served[served].request.clone();
        let Some(call) = msg.number("X-Sim-Call").map(|call| call as usize) else {
            return ctx.fail(format!("{} received {msg}: INVITE of no call", self.name));
        };
        self.check_booked(ctx, served, call, Side::Callee);
        if !ctx.truth.direct {
            let wanted = self.route_uri.clone().unwrap_or_else(|| {
                let (number, transport) = (&ctx.truth.calls[call].number, self.transport.in_uri());
                format!("sip:{number}@{};transport={transport}", self.addr)
            });
            if msg.uri() != wanted {
                ctx.fail(format!("{} received {msg}: Request-URI, wanted {wanted}", self.name));
            }
            if msg.text("Call-ID") == ctx.truth.calls[call].call_ids[0] {
                ctx.fail(format!("{} received {msg}: Call-ID of the other leg", self.name));
            }
        }
        if let Some(old) = ctx.truth.calls[call].legs[1] {
            ctx.fail(format!("{} received {msg}: call {call} already has leg {old}", self.name));
        }
        let record_route = self.draw_record_routes();
        let contact = msg.list("Contact").first().cloned().unwrap_or_default();
        let leg = Leg {
            call,
            side: Side::Callee,
            state: LegState::Early,
            ready: false,
            call_id: msg.text("Call-ID").to_owned(),
            local: msg.text("To").to_owned(),
            local_tag: format!("t{}", self.unique()),
            remote: strip_tag(msg.text("From")),
            remote_tag: msg.tag_of_from(),
            remote_target: message::uri(&contact).to_owned(),
            local_contact: self.contact.clone(),
            route: record_route.iter().rev().cloned().collect(),
            record_route,
            route_set: msg.list("Record-Route"),
            cseq: ctx.rng.range(1, 1_000_000) as u32,
            remote_cseq: msg.cseq().0,
            conn: self.served[served].conn,
            invite_out: None,
            invite_in: Some(served),
            unacked: None,
            acks: Default::default(),
            rseq_seen: 0,
            sdp_version: 1,
        };
        self.legs.push(leg);
        let leg = self.legs.len() - 1;
        self.leg_of.insert(msg.text("Call-ID").to_owned(), leg);
        self.served[served].leg = Some(leg);
        ctx.truth.calls[call].legs[1] = Some(leg);
        ctx.truth.calls[call].call_ids[1] = msg.text("Call-ID").to_owned();
        let ring = ctx.rng.below(self.traits.ring_max.max(1));
        let mut plan = VecDeque::new();
        if ctx.rng.chance(700) {
            plan.push_back((ctx.rng.below(20 * MS), Step::Provisional(100)));
        }
        let reliable = self.traits.reliable && msg.text("Supported").contains("100rel");
        let early = *ctx.rng.pick(&[0, 180, 180, 183]);
        if early != 0 {
            let step = if reliable { Step::Reliable(early) } else { Step::Provisional(early) };
            plan.push_back((ctx.rng.below(50 * MS), step));
        }
        let status = if ctx.rng.chance(self.traits.rejects) {
            *ctx.rng.pick(&[486, 404, 480, 603, 488])
        } else {
            200
        };
        plan.push_back((ring, Step::Final(status)));
        self.begin_plan(ctx, served, plan);
    }

    fn on_dialog_request(&mut self, ctx: &mut Ctx<'_>, served: usize, leg: usize) {
        let msg = self.served[served].request.clone();
        let (call, side) = (self.legs[leg].call, self.legs[leg].side);
        self.check_booked(ctx, served, call, side);
        if self.legs[leg].remote_tag.is_empty() {
            // The 2xx was lost with its flow and will come again: 481 would end the call.
            ctx.truth.cover("request in a dialog that its caller does not know yet");
            return self.answer(ctx, served, 500);
        }
        self.check_dialog(ctx, leg, &msg);
        let (cseq, method) = (msg.cseq().0, msg.method().to_owned());
        let l = &mut self.legs[leg];
        if cseq == l.remote_cseq {
            // Dropped, as deployed stacks do.
            ctx.fail(format!("{} received {msg}: CSeq did not rise", self.name));
            return;
        }
        if cseq < l.remote_cseq {
            // A later request overtook it on another flow.
            ctx.truth.cover("request overtaken");
            return self.answer(ctx, served, 500);
        }
        l.remote_cseq = cseq;
        l.conn = self.served[served].conn;
        if l.state == LegState::Ended {
            let status = if method == "BYE" { 200 } else { 481 };
            return self.answer(ctx, served, status);
        }
        if let Some(contact) = msg.list("Contact").first() {
            l.remote_target = message::uri(contact).to_owned();
        }
        match &method[..] {
            "INVITE" => self.on_reinvite(ctx, served, leg),
            "BYE" => {
                if let Some(open) = self.legs[leg].invite_in {
                    self.answer(ctx, open, 487);
                }
                self.answer(ctx, served, 200);
                if self.served[served].id.is_none() {
                    self.on_server_bye(ctx, leg, &msg);
                }
                self.end_leg(ctx, leg, None);
            }
            "PRACK" => self.on_prack(ctx, served, leg, &msg),
            "UPDATE" if self.legs[leg].invite_out.is_some() => self.answer(ctx, served, 491),
            "UPDATE" if self.legs[leg].invite_in.is_some() => self.answer(ctx, served, 500),
            _ => {
                let status = if ctx.rng.chance(self.traits.refuses) {
                    *ctx.rng.pick(&[403, 405, 415, 501, 603])
                } else if method == "REFER" {
                    let wait = ctx.rng.range(10 * MS, SEC);
                    ctx.after(wait, PeerTimer::Notify { leg });
                    202
                } else {
                    200
                };
                let delay = ctx.rng.below(self.traits.answer_delay_max.max(1));
                self.begin_plan(ctx, served, VecDeque::from([(delay, Step::Final(status))]));
            }
        }
    }

    fn on_server_bye(&mut self, ctx: &mut Ctx<'_>, leg: usize, msg: &Msg) {
        let call = self.legs[leg].call;
        let state = &ctx.truth.calls[call];
        if state.ended.is_none() && state.established && state.may_release.is_none() {
            ctx.fail(format!("{} received {msg} that nobody asked for, call {call}", self.name));
        }
        ctx.truth.end(call, Ended::Released);
    }

    fn on_reinvite(&mut self, ctx: &mut Ctx<'_>, served: usize, leg: usize) {
        if self.legs[leg].invite_out.is_some() {
            ctx.truth.cover("glare at a peer");
            return self.answer(ctx, served, 491);
        }
        if let Some((status, times)) = self.traits.next_answers {
            self.traits.next_answers = (times > 1).then_some((status, times - 1));
            return self.answer_rudely(ctx, served, leg, status);
        }
        if self.legs[leg].state == LegState::Early {
            ctx.fail(format!("{}: re-INVITE before the dialog is confirmed", self.name));
        }
        if let Some(open) = self.legs[leg].invite_in.or(self.legs[leg].unacked) {
            if self.traits.busy_status != 0 && ctx.now < self.served[open].answered_at + 4 * SEC {
                ctx.truth.cover("busy with an earlier copy");
                return self.answer(ctx, served, self.traits.busy_status);
            }
            self.supersede(ctx, leg, open);
        }
        self.legs[leg].invite_in = Some(served);
        let delay = ctx.rng.below(self.traits.answer_delay_max.max(1));
        let mut plan = VecDeque::new();
        match ctx.rng.below(10) {
            _ if self.traits.always_rings.is_some() => {
                let status = self.traits.always_rings.unwrap_or(180);
                plan.push_back((ctx.rng.below(10 * MS), Step::Provisional(status)));
                plan.push_back((SEC, Step::Provisional(status)));
            }
            0..4 => plan.push_back((ctx.rng.below(10 * MS), Step::Provisional(100))),
            4 => {
                plan.push_back((0, Step::Provisional(100)));
                plan.push_back((delay, Step::Provisional(180)));
            }
            _ => {}
        }
        let status = if ctx.rng.chance(self.traits.refuses) {
            *ctx.rng.pick(&[488, 415, 403])
        } else if ctx.rng.chance(self.traits.transport_errors) {
            503
        } else {
            200
        };
        plan.push_back((delay, Step::Final(status)));
        self.begin_plan(ctx, served, plan);
    }

    fn on_prack(&mut self, ctx: &mut Ctx<'_>, served: usize, leg: usize, msg: &Msg) {
        let Some(open) = self.legs[leg].invite_in else { return self.answer(ctx, served, 481) };
        let invite = &self.served[open];
        let rack = format!("{} {} INVITE", invite.rseq_last, invite.request.cseq().0);
        if self.has_forgotten(leg) && msg.text("RAck") != rack {
            // Forks are folded into one dialog: it acknowledges what the forgotten one said.
            ctx.truth.cover("PRACK of a forgotten early dialog");
            return self.answer(ctx, served, 481);
        }
        if invite.rseq_last == 0 || msg.text("RAck") != rack {
            ctx.fail(format!(
                "{} received {msg}: RAck {:?} instead of {rack:?}",
                self.name,
                msg.text("RAck")
            ));
            return self.answer(ctx, served, 481);
        }
        self.answer(ctx, served, 200);
        if self.served[open].rseq.take().is_some() {
            self.schedule_step(ctx, open);
        }
    }

    fn on_cancel(&mut self, ctx: &mut Ctx<'_>, conn: usize, msg: &Msg) {
        let Some(&open) = self.served_of.get(&(msg.branch(), "INVITE".to_owned())) else {
            // The INVITE was lost with its flow.
            let reply = self.plain_response(msg, 481, "t-none");
            return self.send(ctx, conn, reply.to_bytes());
        };
        let tag =
            self.served[open].leg.map_or(String::new(), |leg| self.legs[leg].local_tag.clone());
        let reply = self.plain_response(msg, 200, &tag);
        self.send(ctx, conn, reply.to_bytes());
        if self.served[open].status.is_none() && !self.served[open].dropped {
            self.served[open].plan.clear();
            self.answer(ctx, open, 487);
        }
    }

    fn on_ack(&mut self, ctx: &mut Ctx<'_>, msg: &Msg) {
        if let Some(&served) = self.served_of.get(&(msg.branch(), "INVITE".to_owned())) {
            if matches!(self.served[served].status, Some(200..=299)) && !ctx.truth.direct {
                ctx.fail(format!("{} received {msg}: branch of the INVITE", self.name));
            }
            self.served[served].acked = true;
            return;
        }
        let Some(&leg) = self.leg_of.get(msg.text("Call-ID")) else {
            return ctx.fail(format!("{} received {msg}: no such dialog", self.name));
        };
        let cseq = msg.cseq().0;
        let served = self.served.iter().rposition(|served| {
            served.leg == Some(leg)
                && served.request.method() == "INVITE"
                && served.request.cseq().0 == cseq
                && matches!(served.status, Some(200..=299))
        });
        let Some(served) = served else {
            return ctx.fail(format!("{} received {msg}: nothing to acknowledge", self.name));
        };
        self.check_dialog(ctx, leg, msg);
        for text in self.check_hops(ctx.truth, msg) {
            ctx.fail(format!("{} received {msg}: {text}", self.name));
        }
        if let Some(response) = self.served[served].offered {
            match ctx.truth.answers.get(&response) {
                Some(answer) if *answer == msg.body => {}
                // The ACK that carried it was lost with its flow, and the server moved on.
                Some(_) if msg.body.is_empty() => ctx.truth.cover("answer lost with its ACK"),
                Some(_) => {
                    ctx.fail(format!("{} received {msg}: another answer in the ACK", self.name));
                }
                None => ctx.truth.cover("offer of a 2xx went unanswered"),
            }
        } else if self.served[served].id.is_none() && self.served[served].request.body.is_empty() {
            ctx.truth.cover("offer answered by the server");
        } else if !msg.body.is_empty() {
            ctx.fail(format!("{} received {msg}: a body without an offer", self.name));
        }
        self.served[served].acked = true;
        self.legs[leg].ready = true;
        if self.legs[leg].unacked == Some(served) {
            self.legs[leg].unacked = None;
        }
    }

    /// Holds a request to the one that the other peer sent.
    fn check_booked(&mut self, ctx: &mut Ctx<'_>, served: usize, call: usize, side: Side) {
        let msg = &self.served[served].request;
        let Some(id) = self.served[served].id else {
            let own = msg.method() == "BYE" || msg.method() == "INVITE" && ctx.truth.controlled;
            if !own {
                ctx.fail(format!("{} received {msg} that nobody sent", self.name));
            }
            return;
        };
        if let Err(error) = ctx.truth.check_request(id, call, side, msg) {
            ctx.fail(format!("{} received {msg}: {error}", self.name));
        }
    }

    /// Tags, Route and Request-URI of the dialog.
    fn check_dialog(&self, ctx: &mut Ctx<'_>, leg: usize, msg: &Msg) {
        let l = &self.legs[leg];
        if msg.tag_of_from() != l.remote_tag || msg.tag_of_to() != l.local_tag {
            ctx.fail(format!(
                "{} received {msg}: tags {} {} instead of {} {}",
                self.name,
                msg.tag_of_from(),
                msg.tag_of_to(),
                l.remote_tag,
                l.local_tag
            ));
        }
        if ctx.truth.direct {
            return;
        }
        if msg.list("Route") != l.route {
            ctx.fail(format!(
                "{} received {msg}: Route {:?} instead of {:?}",
                self.name,
                msg.list("Route"),
                l.route
            ));
        }
        if msg.uri() != l.local_contact {
            ctx.fail(format!("{} received {msg}: Request-URI is not the Contact", self.name));
        }
    }

    fn begin_plan(&mut self, ctx: &mut Ctx<'_>, served: usize, plan: VecDeque<(u64, Step)>) {
        self.served[served].plan = plan;
        self.schedule_step(ctx, served);
    }

    fn schedule_step(&self, ctx: &mut Ctx<'_>, served: usize) {
        if let Some((delay, _)) = self.served[served].plan.front() {
            ctx.after(*delay, PeerTimer::Plan { served });
        }
    }

    /// Takes the next step of an answer.
    pub(crate) fn next_step(&mut self, ctx: &mut Ctx<'_>, served: usize) {
        let state = &self.served[served];
        if state.rseq.is_some() || state.dropped || state.status.is_some() {
            return;
        }
        let Some((_, step)) = self.served[served].plan.pop_front() else { return };
        match step {
            Step::Final(status) => self.answer(ctx, served, status),
            Step::Provisional(status) => self.answer(ctx, served, status),
            Step::Reliable(status) => {
                let rseq = self.served[served].rseq_last.max(ctx.rng.range(1, 9000) as u32) + 1;
                self.served[served].rseq = Some(rseq);
                self.served[served].rseq_last = rseq;
                self.answer(ctx, served, status);
                ctx.after(T1, PeerTimer::RepeatReliable { served, interval: T1 });
            }
        }
        if self.served[served].rseq.is_none() {
            self.schedule_step(ctx, served);
        }
    }

    /// A response with nothing of its own.
    fn plain_response(&self, request: &Msg, status: u16, tag: &str) -> Msg {
        let mut msg = Msg::response(status, reason(status));
        for (name, value) in &request.headers {
            if ["via", "v"].contains(&name.to_ascii_lowercase().as_str()) {
                msg.add("Via", value);
            }
        }
        msg.add("From", request.raw("From").unwrap_or(b""));
        let to = request.text("To");
        if request.tag_of_to().is_empty() && status != 100 {
            msg.add("To", format!("{to};tag={tag}"));
        } else {
            msg.add("To", to);
        }
        msg.add("Call-ID", request.raw("Call-ID").unwrap_or(b""));
        msg.add("CSeq", request.raw("CSeq").unwrap_or(b""));
        msg
    }

    /// Answers a request, provisionally or finally.
    pub(crate) fn answer(&mut self, ctx: &mut Ctx<'_>, served: usize, status: u16) {
        let request = self.served[served].request.clone();
        let leg = self.served[served].leg;
        let tag = leg.map_or("t-none".to_owned(), |leg| self.legs[leg].local_tag.clone());
        let invite = request.method() == "INVITE";
        let mut msg = self.plain_response(&request, status, &tag);
        let mut extras = Vec::new();
        if status > 100 {
            extras = draw_extras(ctx.rng, self.traits.extras_max);
        }
        if let Some(leg) = leg {
            let initial = request.tag_of_to().is_empty();
            if invite && matches!(status, 101..=299) {
                msg.add("Contact", self.contact_of(leg));
                let l = &self.legs[leg];
                for route in l.record_route.iter().chain(&l.route_set).filter(|_| initial) {
                    msg.add("Record-Route", route);
                }
            }
            if let Some(rseq) = self.served[served].rseq
                && status < 200
            {
                msg.add("RSeq", rseq.to_string());
                extras.push(("Require".to_owned(), b"100rel".to_vec()));
            }
            let session = (invite && (status == 200 || status == 183))
                || (request.method() == "UPDATE" && status == 200);
            if session {
                let host = self.addr.ip().to_string();
                self.legs[leg].sdp_version += 1;
                let sdp = draw_sdp(ctx.rng, &host, self.legs[leg].sdp_version);
                let booked = self.served[served].id.is_some();
                if status == 200 && invite && request.body.is_empty() && booked {
                    self.served[served].offered = Some(ctx.truth.responses.len());
                    ctx.truth.cover("offer in the 2xx");
                }
                if status == 200 || !request.body.is_empty() {
                    msg = msg.with_body("application/sdp", &sdp);
                }
            }
        }
        match status {
            500 if invite => msg.add("Retry-After", ctx.rng.below(3).to_string()),
            503 if invite && request.tag_of_to().is_empty() => {}
            503 if invite => {
                if ctx.rng.chance(700) {
                    let token = *ctx.rng.pick(&["transport-error", "<transport-error>"]);
                    msg.add("Error-Info", token);
                }
                if msg.count("Error-Info") == 0 || ctx.rng.chance(300) {
                    msg.add("Retry-After", ctx.rng.below(3).to_string());
                }
            }
            _ => {}
        }
        if status > 100 {
            msg = self.book_response(ctx, served, msg, extras);
        }
        let bytes = msg.spelled(self.traits.spelling);
        ctx.log.line(ctx.now, format_args!("{} answers {msg}", self.name));
        let tx = &mut self.served[served];
        tx.last = Some(bytes.clone());
        if status >= 200 {
            tx.status = Some(status);
            tx.answered_at = ctx.now;
            if let Some(leg) = leg.filter(|_| invite) {
                self.on_invite_answered(ctx, served, leg, status);
            }
        }
        if invite && status >= 200 && self.traits.answers_twice {
            self.respond(ctx, served, bytes.clone());
        }
        self.respond(ctx, served, bytes);
    }

    /// An answer that only keeps the call waiting, or 481, which ends it: of a peer that forgot it.
    fn answer_rudely(&mut self, ctx: &mut Ctx<'_>, served: usize, leg: usize, status: u16) {
        ctx.truth.cover("repeated attempt answered rudely");
        if status == 481 {
            if let Some(open) = self.legs[leg].invite_in.take() {
                self.served[open].dropped = true;
                self.served[open].plan.clear();
            }
            self.end_leg(ctx, leg, None);
        }
        self.answer(ctx, served, status);
    }

    fn on_invite_answered(&mut self, ctx: &mut Ctx<'_>, served: usize, leg: usize, status: u16) {
        let l = &mut self.legs[leg];
        if l.invite_in == Some(served) {
            l.invite_in = None;
        }
        let initial = self.served[served].request.tag_of_to().is_empty();
        if status < 300 {
            if initial && l.state == LegState::Early {
                l.state = LegState::Confirmed;
            }
            l.unacked = Some(served);
            ctx.after(T1, PeerTimer::Repeat2xx { served, interval: T1 });
        } else if initial && status != 482 {
            // A second copy that is merged with the first ends nothing (RFC 3261 §8.2.2.2).
            l.state = LegState::Ended;
        }
    }

    /// RFC 3261 §13.3.1.4: a 2xx is repeated until its ACK comes.
    pub(crate) fn repeat_2xx(&mut self, ctx: &mut Ctx<'_>, served: usize, interval: u64) {
        let tx = &self.served[served];
        let Some(leg) = tx.leg else { return };
        if tx.acked || tx.dropped || self.legs[leg].state == LegState::Ended {
            return;
        }
        if ctx.now >= tx.answered_at + 64 * T1 {
            self.legs[leg].unacked = None;
            // The server forgets an attempt 64·T1 after it failed, which was not before it came here.
            let remembered = ctx.now.min(tx.received_at + 64 * T1);
            let healed = ctx.truth.healed_at.is_some_and(|at| at + 10 * SEC < remembered);
            if healed && self.traits.responds_on_new_flow {
                ctx.fail(format!("{}: 2xx to {} was never ACKed", self.name, tx.request));
            }
            ctx.truth.cover("2xx not acknowledged in 64*T1");
            return;
        }
        let bytes = tx.last.clone().unwrap_or_default();
        ctx.truth.cover("2xx repeated");
        self.respond(ctx, served, bytes);
        let next = (2 * interval).min(T2);
        ctx.after(next, PeerTimer::Repeat2xx { served, interval: next });
    }

    /// RFC 3262 §3: so is a reliable provisional response until PRACK comes.
    pub(crate) fn repeat_reliable(&mut self, ctx: &mut Ctx<'_>, served: usize, interval: u64) {
        let tx = &self.served[served];
        if tx.rseq.is_none() || tx.status.is_some() || tx.dropped {
            return;
        }
        if interval >= 32 * T1 {
            self.served[served].rseq = None;
            return self.answer(ctx, served, 504);
        }
        let bytes = tx.last.clone().unwrap_or_default();
        self.respond(ctx, served, bytes);
        // The sum of all is 64·T1.
        let next = 2 * interval;
        let wait = if next >= 32 * T1 { next + T1 } else { next };
        ctx.after(wait, PeerTimer::RepeatReliable { served, interval: next });
    }

    /// Requests that are open although their flow lives.
    pub(crate) fn open_requests(&self) -> impl Iterator<Item = (usize, &crate::uac::Client)> {
        self.clients
            .iter()
            .enumerate()
            .filter(|(_, client)| client.outcome.is_none() && self.conns[client.conn].alive)
    }

    /// The outcome of a client transaction.
    pub(crate) fn outcome(&self, client: usize) -> Option<Outcome> {
        self.clients[client].outcome
    }
}

fn strip_tag(value: &str) -> String {
    match value.rfind(";tag=") {
        Some(at) => {
            let rest = &value[at + 5..];
            let end = rest.find(';').map_or("", |end| &rest[end..]);
            format!("{}{end}", &value[..at])
        }
        None => value.to_owned(),
    }
}

/// The phrase for a status.
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        183 => "Session Progress",
        200 => "OK",
        202 => "Accepted",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        415 => "Unsupported Media Type",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        603 => "Decline",
        _ => "Something Else",
    }
}
