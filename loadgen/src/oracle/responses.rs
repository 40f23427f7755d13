//! Requests that an end sends, and what it reads in answer.

use super::Rule;
use super::dialog::{Dialog, Flag, Seen, Text, name_of, tags};
use super::digest::{self, Order, short};
use crate::message::{Field, Message, Method};

impl Dialog {
    pub(super) fn sent_request(
        &mut self,
        method: Method,
        message: &Message<'_>,
        seen: &mut Seen<'_>,
    ) {
        let (from, to) = tags(message);
        let inside = !to.is_empty();
        if inside && self.is(Flag::Confirmed) && method != Method::Cancel {
            let routes = digest::routes(message, Field::Other, Order::Forward);
            if routes != self.routes {
                let found = format_args!("{} lines of another", message.routes);
                seen.breach(Rule::RouteSet, "the route set of the dialog", found);
            }
        }
        let branch = short(message.branch);
        match method {
            Method::Ack => {}
            Method::Cancel => self.set(Flag::SentCancel, true),
            Method::Invite => {
                if branch == self.sent_invite_branch {
                    return;
                }
                if !self.is(Flag::Confirmed) {
                    (self.call_id, self.local) = (short(message.call_id), short(from));
                }
                (self.sent_invite_branch, self.sent_invite_cseq) = (branch, message.cseq);
                self.sent_invite_status = 0;
                self.set(Flag::SentInside, inside);
                for flag in [Flag::SentProceeding, Flag::SentCancel, Flag::SentLost] {
                    self.set(flag, false);
                }
            }
            Method::Bye | Method::Other => {
                if branch == self.sent_other_branch {
                    return;
                }
                (self.sent_other_branch, self.sent_other_cseq) = (branch, message.cseq);
                self.sent_other_status = 0;
                self.set(Flag::OtherInside, inside);
                self.set(Flag::OtherIsBye, method == Method::Bye);
                self.set(Flag::ByeSent, self.is(Flag::ByeSent) || method == Method::Bye);
            }
        }
    }

    pub(super) fn read_response(
        &mut self,
        status: u16,
        message: &Message<'_>,
        seen: &mut Seen<'_>,
    ) {
        let (branch, cseq) = match message.cseq_method {
            Method::Invite | Method::Cancel => (self.sent_invite_branch, self.sent_invite_cseq),
            Method::Bye | Method::Other => (self.sent_other_branch, self.sent_other_cseq),
            Method::Ack => (0, 0),
        };
        let of_cancel = message.cseq_method == Method::Cancel;
        // Answers to requests before the last one may be late.
        let late = branch != 0 && message.cseq < cseq;
        let fits = message.cseq == cseq && short(message.branch) == branch;
        let sent = branch != 0 && (!of_cancel || self.is(Flag::SentCancel));
        if late {
            return;
        }
        if !fits || !sent {
            let method = name_of(message.cseq_method);
            let expected = format_args!("an answer to a request that was sent, CSeq {cseq}");
            let branch = Text(message.branch);
            let found = format_args!("{status} to {method} {}, branch {branch}", message.cseq);
            seen.breach(Rule::ResponseForNothing, expected, found);
            return;
        }
        match message.cseq_method {
            Method::Invite => self.read_invite_response(status, message, seen),
            Method::Bye | Method::Other => self.read_other_response(status, message, seen),
            Method::Ack | Method::Cancel => {}
        }
    }

    fn read_invite_response(&mut self, status: u16, message: &Message<'_>, seen: &mut Seen<'_>) {
        let (from, to) = tags(message);
        let inside = self.is(Flag::SentInside);
        if inside && !to.is_empty() {
            self.check_identity(message, from, to, seen);
        }
        let good = (200..300).contains(&status);
        let before = self.sent_invite_status;
        let was_good = (200..300).contains(&before);
        if status < 200 {
            if before == 0 {
                self.set(Flag::SentProceeding, true);
            } else if !seen.datagrams {
                let expected = format_args!("nothing after {before}");
                seen.breach(Rule::ProvisionalAfterFinal, expected, status);
            }
            return;
        }
        if good && message.contact.is_empty() {
            seen.breach(Rule::ContactMissing, "Contact in 2xx", "none");
        }
        if before == 0 {
            self.sent_invite_status = status;
            if good {
                self.confirm(inside, message);
                self.check_description(message.body, seen);
            }
            return;
        }
        // A fork's 2xx makes a dialog of its own (§13.2.2.4), and a 2xx comes until its ACK does.
        let again = match good && was_good {
            true => true,
            false => status == before && (seen.datagrams || self.is(Flag::SentLost)),
        };
        if !again {
            let expected = format_args!("one final response, {before}");
            seen.breach(Rule::FinalTwice, expected, status);
        }
    }

    /// The 2xx makes the dialog: its route set is the Record-Route in reverse (§12.1.2).
    fn confirm(&mut self, inside: bool, message: &Message<'_>) {
        if inside {
            return;
        }
        let (_, to) = tags(message);
        self.remote = short(to);
        self.routes = digest::routes(message, Field::RecordRoute, Order::Reverse);
        self.set(Flag::Confirmed, true);
    }

    fn read_other_response(&mut self, status: u16, message: &Message<'_>, seen: &mut Seen<'_>) {
        let (from, to) = tags(message);
        if self.is(Flag::OtherInside) && !to.is_empty() && self.is(Flag::Confirmed) {
            self.check_identity(message, from, to, seen);
        }
        let before = self.sent_other_status;
        if status < 200 {
            return;
        }
        if before != 0 && (status != before || !seen.datagrams) {
            let expected = format_args!("one final response, {before}");
            seen.breach(Rule::FinalTwice, expected, status);
        }
        self.sent_other_status = status;
        if self.is(Flag::OtherIsBye) {
            self.set(Flag::Over, true);
        }
    }
}
