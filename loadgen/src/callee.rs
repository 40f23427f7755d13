//! The callees: they answer, keep their dialogs across an outage, and check what is sent again.

use std::time::Instant;

use crate::engine::{Answered, Engine, Place, Reply, Step, digest};
use crate::message::{self, Message, Method, Start};
use crate::name::{self, Direction};
use crate::text;

impl Engine {
    pub(crate) fn on_callee_message(&mut self, place: Place, message: &Message<'_>, now: Instant) {
        let Start::Request(method) = message.start else {
            // Callees send no requests.
            self.violations.stray += 1;
            return;
        };
        let tag = message::parameter(message.to, b"tag");
        match (tag.split_first(), method) {
            (None, Method::Invite) => self.on_new_invite(place, message),
            (Some((b'd', name)), _) => match self.find(name) {
                Some(index) => self.on_request_inside(place, index, method, message, now),
                None => self.refuse(place, method, message),
            },
            // Keep-alives by OPTIONS and the like.
            (None, Method::Other) => self.respond(place, message, "200 OK"),
            (None | Some(_), _) => self.refuse(place, method, message),
        }
    }

    fn respond(&mut self, place: Place, message: &Message<'_>, status: &str) {
        text::write_response(self.out.to(place.conn), message, status, None, None, b"");
    }

    fn refuse(&mut self, place: Place, method: Method, message: &Message<'_>) {
        // A call whose place is in use again may still have an ACK or a BYE under way.
        self.violations.stray += u64::from(self.round.step != Step::Cycle);
        if method != Method::Ack {
            self.respond(place, message, "481 Call/Transaction Does Not Exist");
        }
    }

    fn on_new_invite(&mut self, place: Place, message: &Message<'_>) {
        let known = name::sdp_call(message.body).filter(|n| (*n as usize) < self.calls.len());
        let Some(index) = known else {
            self.violations.stray += 1;
            self.respond(place, message, "488 Not Acceptable Here");
            return;
        };
        self.answered[index as usize] = Answered {
            up: true,
            conn: place.conn,
            identity: identity(message),
            cseq: message.cseq,
            branch: digest(&[message.branch]),
            unanswered_body: None,
            ack_due: true,
        };
        let callee = &self.callees[place.party as usize];
        let name = Some(self.name(index));
        let out = self.out.to(place.conn);
        text::write_response(out, message, "180 Ringing", name, Some(callee), b"");
        self.answer(place, index, message);
    }

    /// 200 with a description that fits the offer.
    fn answer(&mut self, place: Place, index: u32, message: &Message<'_>) {
        let name = Some(self.name(index));
        let direction = Direction::of(message.body).answer();
        let callee = &self.callees[place.party as usize];
        let version = message.cseq;
        name::write_sdp(&mut self.body, &callee.host, index, version, direction);
        let out = self.out.to(place.conn);
        text::write_response(out, message, "200 OK", name, Some(callee), &self.body);
    }

    fn on_request_inside(
        &mut self,
        place: Place,
        index: u32,
        method: Method,
        message: &Message<'_>,
        now: Instant,
    ) {
        let leg = &mut self.answered[index as usize];
        if leg.identity != identity(message) {
            self.violations.dialog_changed += 1;
        }
        match method {
            Method::Ack => {
                if message.cseq == leg.cseq {
                    leg.ack_due = false;
                } else {
                    self.violations.ack_for_another += 1;
                }
            }
            Method::Bye => {
                leg.up = false;
                leg.cseq = leg.cseq.max(message.cseq);
                self.respond(place, message, "200 OK");
            }
            Method::Invite => self.on_reinvite(place, index, message, now),
            Method::Cancel | Method::Other => {
                leg.cseq = leg.cseq.max(message.cseq);
                self.respond(place, message, "200 OK");
            }
        }
    }

    fn on_reinvite(&mut self, place: Place, index: u32, message: &Message<'_>, now: Instant) {
        let (branch, body) = (digest(&[message.branch]), digest(&[message.body]));
        let leg = &mut self.answered[index as usize];
        let drill = &mut self.calls[index as usize].drill;
        if drill.reset_at.is_some() && drill.hold.is_none() && drill.resent_at.is_none() {
            drill.resent_at = Some(now);
            self.counts.resent += 1;
        }
        if branch == leg.branch {
            self.violations.branch_not_new += 1;
        }
        if leg.unanswered_body.is_some_and(|before| before != body) {
            self.violations.body_changed += 1;
        }
        if message.cseq <= leg.cseq {
            // RFC 3261 §12.2.2: out of order.
            self.violations.cseq_not_higher += 1;
            self.respond(place, message, "500 Server Internal Error");
            return;
        }
        (leg.cseq, leg.branch, leg.conn) = (message.cseq, branch, place.conn);
        leg.unanswered_body = Some(body);
        self.counts.holds_read += u64::from(self.round.step == Step::Hold);
        match self.reply {
            Reply::Silence => {}
            Reply::Trying => self.respond(place, message, "100 Trying"),
            Reply::Answer => {
                leg.unanswered_body = None;
                leg.ack_due = true;
                self.answer(place, index, message);
            }
        }
    }
}

fn identity(message: &Message<'_>) -> u64 {
    digest(&[message.call_id, message::parameter(message.from, b"tag")])
}
