//! Requests that an end reads, and how it answers them.

use std::time::Duration;

use super::dialog::{Dialog, Flag, Seen, Text, name_of, tags};
use super::digest::{self, Order};
use super::{Rule, digest::short};
use crate::message::{self, Field, Message, Method};

impl Dialog {
    pub(super) fn read_request(
        &mut self,
        method: Method,
        message: &Message<'_>,
        seen: &mut Seen<'_>,
    ) {
        if message.max_forwards.is_none() {
            seen.breach(Rule::MaxForwards, "Max-Forwards", "none that can be read");
        }
        let (from, to) = tags(message);
        if !to.is_empty() && self.is(Flag::Confirmed) {
            self.check_identity(message, to, from, seen);
            if message.routes > 0 {
                seen.breach(Rule::RouteSet, "no Route left", format_args!("{}", message.routes));
            }
        }
        match method {
            Method::Ack => self.read_ack(message, seen),
            Method::Cancel => self.read_cancel(message, seen),
            Method::Invite | Method::Bye | Method::Other => self.read_new(method, message, seen),
        }
        self.set(Flag::Begun, true);
    }

    fn read_new(&mut self, method: Method, message: &Message<'_>, seen: &mut Seen<'_>) {
        let branch = digest::long(message.branch);
        let is_invite = method == Method::Invite;
        let known = match is_invite {
            true => branch == self.invite_branch && message.cseq == self.invite_cseq,
            false => branch == self.other_branch && message.cseq <= self.cseq,
        };
        if known {
            self.read_again(is_invite, message, seen);
            return;
        }
        if branch == self.invite_branch || branch == self.other_branch {
            seen.breach(Rule::BranchNotNew, "a new branch", Text(message.branch));
        }
        if self.is(Flag::Begun) && message.cseq <= self.cseq {
            let expected = format_args!("CSeq above {}", self.cseq);
            seen.breach(Rule::CseqNotHigher, expected, message.cseq);
        }
        self.cseq = self.cseq.max(message.cseq);
        if self.is(Flag::Over) {
            seen.breach(Rule::AfterBye, "nothing after BYE", name_of(method));
        }
        if is_invite {
            self.read_invite(branch, message, seen);
        } else {
            self.other_branch = branch;
        }
        if method == Method::Bye {
            self.read_bye(seen);
        }
    }

    /// A request comes again. Over a reliable transport an attempt may not: it is a new one.
    fn read_again(&mut self, is_invite: bool, message: &Message<'_>, seen: &mut Seen<'_>) {
        if !is_invite {
            return;
        }
        if !seen.datagrams {
            seen.breach(Rule::BranchNotNew, "a new branch", Text(message.branch));
        }
        if short(message.body) != self.body {
            seen.breach(Rule::BodyChanged, "the same bytes again", Text(message.body));
        }
    }

    fn read_invite(&mut self, branch: u64, message: &Message<'_>, seen: &mut Seen<'_>) {
        if message.contact.is_empty() {
            seen.breach(Rule::ContactMissing, "Contact in INVITE", "none");
        }
        let body = short(message.body);
        if self.invite_branch != 0 {
            self.check_attempt(body, message, seen);
        }
        self.check_description(message.body, seen);
        if !self.is(Flag::Confirmed) {
            self.begin(message);
        }
        if self.is(Flag::PreviousAckDue) && self.is(Flag::AckDue) {
            let expected = format_args!("ACK of INVITE {}", self.previous_cseq);
            seen.breach(Rule::AckMissing, expected, "a third INVITE");
        }
        let due = self.is(Flag::AckDue) || self.is(Flag::PreviousAckDue);
        if self.is(Flag::AckDue) || !self.is(Flag::PreviousAckDue) {
            self.previous_cseq = self.invite_cseq;
        }
        self.set(Flag::PreviousAckDue, due);
        self.invite_cseq = message.cseq;
        self.invite_branch = branch;
        self.body = body;
        self.not_before = 0;
        for flag in [Flag::AckDue, Flag::Accepted, Flag::Answered, Flag::Lost, Flag::Repeats] {
            self.set(flag, false);
        }
        self.set(Flag::Pending, true);
    }

    /// The INVITE that makes the dialog: its route set is the Record-Route as it stands
    /// (RFC 3261 §12.1.1).
    fn begin(&mut self, message: &Message<'_>) {
        let (from, to) = tags(message);
        if to.is_empty() {
            self.call_id = short(message.call_id);
            self.remote = short(from);
            self.routes = digest::routes(message, Field::RecordRoute, Order::Forward);
        }
    }

    /// A later INVITE: an attempt anew of the last one, or another operation.
    fn check_attempt(&mut self, body: u32, message: &Message<'_>, seen: &mut Seen<'_>) {
        let pending = self.is(Flag::Pending);
        if pending && !self.is(Flag::Lost) {
            let expected = format_args!("INVITE {} to be answered first", self.invite_cseq);
            seen.breach(Rule::AttemptOverlaps, expected, format_args!("INVITE {}", message.cseq));
        }
        let repeats = self.is(Flag::Repeats) || (pending && !self.is(Flag::Lost));
        if repeats && body != self.body {
            let expected = format_args!("the body of INVITE {}", self.invite_cseq);
            seen.breach(Rule::BodyChanged, expected, Text(message.body));
        }
        // With its 2xx lost, the same offer tells an attempt from another operation.
        self.set(Flag::Anew, self.is(Flag::Repeats) && body == self.body);
        let attempt = repeats || (body == self.body && !message.body.is_empty());
        let at = u64::try_from(seen.at.as_micros()).unwrap_or(u64::MAX);
        if attempt && at < self.not_before {
            let expected = format_args!("no attempt before {} us", self.not_before);
            seen.breach(Rule::TooEarly, expected, format_args!("one at {at} us"));
        }
    }

    fn read_bye(&mut self, seen: &mut Seen<'_>) {
        if !seen.may_end && !self.is(Flag::ByeSent) {
            seen.breach(Rule::ByeUnasked, "the call to go on", "BYE");
        }
        let proceeding = self.is(Flag::SentProceeding) && !self.is(Flag::SentLost);
        if self.sent_open() && proceeding {
            let expected = format_args!("INVITE {} to be answered first", self.sent_invite_cseq);
            seen.breach(Rule::ByeBeforeFinal, expected, "BYE");
        }
        self.set(Flag::ByeRead, true);
        self.set(Flag::Over, true);
    }

    fn read_ack(&mut self, message: &Message<'_>, seen: &mut Seen<'_>) {
        let own_branch = digest::long(message.branch) == self.invite_branch;
        if message.cseq == self.invite_cseq && self.is(Flag::Answered) {
            self.acknowledged();
            match (self.is(Flag::Accepted), own_branch) {
                (true, true) => {
                    seen.breach(Rule::BranchNotNew, "a new branch in ACK", Text(message.branch));
                }
                (false, false) => {
                    let found = Text(message.branch);
                    seen.breach(Rule::AckForAnother, "the branch of the INVITE", found);
                }
                _ => {}
            }
        } else if message.cseq == self.previous_cseq && self.previous_cseq != 0 {
            self.set(Flag::PreviousAckDue, false);
        } else {
            let expected = format_args!("CSeq of an answered INVITE, such as {}", self.invite_cseq);
            seen.breach(Rule::AckForAnother, expected, message.cseq);
        }
    }

    /// The INVITE's answer arrived: what follows is another operation.
    fn acknowledged(&mut self) {
        self.set(Flag::AckDue, false);
        if self.is(Flag::Accepted) {
            self.set(Flag::Acknowledged, true);
            self.set(Flag::Troubled, false);
            self.operation_over();
            if self.is(Flag::Anew) {
                self.note_recovered();
            }
        }
    }

    fn read_cancel(&mut self, message: &Message<'_>, seen: &mut Seen<'_>) {
        let fits =
            message.cseq == self.invite_cseq && digest::long(message.branch) == self.invite_branch;
        if !fits {
            let expected = format_args!("CSeq {} and its branch", self.invite_cseq);
            let found = format_args!("{} and {}", message.cseq, Text(message.branch));
            seen.breach(Rule::CancelForNothing, expected, found);
        }
        self.operation_over();
        self.set(Flag::Pending, false);
    }

    pub(super) fn sent_response(
        &mut self,
        status: u16,
        message: &Message<'_>,
        seen: &mut Seen<'_>,
    ) {
        if message.cseq_method != Method::Invite || status < 200 {
            return;
        }
        let good = status < 300;
        if message.cseq != self.invite_cseq {
            // A late 2xx of an attempt before: it must be acknowledged, too.
            if good && message.cseq == self.previous_cseq {
                self.set(Flag::PreviousAckDue, true);
            }
            return;
        }
        if self.is(Flag::Confirmed) {
            // The server may take a refusal for a failure of the flow.
            self.set(Flag::Troubled, self.is(Flag::Troubled) || !good);
            self.note_answer();
        }
        self.set(Flag::Pending, false);
        self.set(Flag::Answered, true);
        if good {
            self.set(Flag::Accepted, true);
            self.set(Flag::AckDue, true);
            self.set(Flag::Confirmed, true);
            let (_, to) = tags(message);
            self.local = short(to);
        } else if status == 503 && self.is(Flag::Confirmed) {
            self.refused(message, seen);
        }
    }

    /// A 503 that the server takes for a failure of the transport: F3 and F4 of its recovery.
    fn refused(&mut self, message: &Message<'_>, seen: &Seen<'_>) {
        let (mut delay, mut counts) = (Duration::ZERO, false);
        for (name, value) in message::headers(message.headers) {
            if name.eq_ignore_ascii_case(b"Retry-After") {
                let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
                if let Some(seconds) = message::number(&value[..digits]) {
                    delay = delay.max(Duration::from_secs(seconds.into()));
                    counts = true;
                }
            } else if name.eq_ignore_ascii_case(b"Error-Info") && value == b"transport-error" {
                delay = delay.max(seen.delay);
                counts |= !seen.delay.is_zero();
            }
        }
        if counts {
            self.set(Flag::Repeats, true);
            self.wait(seen.at + delay);
        }
    }
}
