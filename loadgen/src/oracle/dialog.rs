//! The watch over one end of a call.

use std::fmt::Display;
use std::time::Duration;

use super::events::{Between, SeenCalls};
use super::{DIALOG_BYTES_MAX, Rule, Violations, digest};
use crate::message::{self, Message, Method, Start};

/// How much sooner than the delay an attempt may seem to come: instants are those of the turns of
/// an event loop.
const EARLY_TOLERANCE: Duration = Duration::from_millis(5);

/// What the watch is told beside the message.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    /// Number of the call, for examples.
    pub(crate) call: u64,
    /// Since the start of the run.
    pub(crate) at: Duration,
    /// UDP: requests may come again.
    pub(crate) datagrams: bool,
    /// The server may end this call: the other end hung up or gave up, or the recovery may have
    /// failed.
    pub(crate) may_end: bool,
    /// The server's delay between a failure and the next attempt.
    pub(crate) delay: Duration,
    pub(crate) violations: &'a mut Violations,
}

impl Seen<'_> {
    pub(super) fn breach(&mut self, rule: Rule, expected: impl Display, found: impl Display) {
        let values = || (expected.to_string(), found.to_string());
        self.violations.add(rule.name(), self.call, self.at, values);
    }
}

/// One end of a call, in numbers and digests. `Default` is an end that has seen nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dialog {
    /// No attempt may come before: microseconds since the start, 0 for none.
    pub(super) not_before: u64,
    /// Branches of the last INVITE and of the last other request read.
    pub(super) invite_branch: u64,
    pub(super) other_branch: u64,
    /// Call-ID, the end's own tag and the tag of its peer.
    pub(super) call_id: u32,
    pub(super) local: u32,
    pub(super) remote: u32,
    /// The route set that requests of this end must carry.
    pub(super) routes: u32,
    /// The highest CSeq read, that of the last INVITE, and that of the INVITE before.
    pub(super) cseq: u32,
    pub(super) invite_cseq: u32,
    pub(super) previous_cseq: u32,
    /// Body of the last INVITE read; origin and version of the last description read.
    pub(super) body: u32,
    pub(super) origin: u32,
    pub(super) version: u32,
    /// The last INVITE and the last other request sent, and the final status read for each.
    pub(super) sent_invite_branch: u32,
    pub(super) sent_invite_cseq: u32,
    pub(super) sent_other_branch: u32,
    pub(super) sent_other_cseq: u32,
    pub(super) sent_invite_status: u16,
    pub(super) sent_other_status: u16,
    /// Re-INVITEs of the server that came again and were answered and acknowledged.
    recovered: u16,
    /// Re-INVITEs answered while [`Flag::Troubled`]: all that can be recoveries.
    recoverable: u16,
    flags: u32,
}

const _: () = assert!(size_of::<Dialog>() <= DIALOG_BYTES_MAX);

/// What is true of an end.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Flag {
    /// A request was read.
    Begun,
    /// A 2xx of INVITE made a dialog.
    Confirmed,
    /// The last INVITE read has no final response yet.
    Pending,
    /// The last INVITE read was answered 2xx.
    Accepted,
    /// It was answered, with 2xx or not.
    Answered,
    /// The ACK for that 2xx is due; for that of the INVITE before.
    AckDue,
    PreviousAckDue,
    /// The flow was lost since the last INVITE was read.
    Lost,
    /// The next INVITE repeats the last one.
    Repeats,
    /// The INVITE sent is inside the dialog, was answered 1xx, was taken back, may have been lost.
    SentInside,
    SentProceeding,
    SentCancel,
    SentLost,
    /// The other request sent is inside the dialog; it is a BYE.
    OtherInside,
    OtherIsBye,
    ByeSent,
    ByeRead,
    /// BYE was answered, by whichever end.
    Over,
    /// The first 2xx was acknowledged.
    Acknowledged,
    /// The last INVITE read is an attempt anew of the one before.
    Anew,
    /// The flow was lost, or an attempt refused, since an answer was acknowledged.
    Troubled,
    /// Nothing was read since the flow was lost.
    Unheard,
    /// The server was not told that the call is over.
    Untold,
}

impl Dialog {
    pub(super) fn is(&self, flag: Flag) -> bool {
        self.flags & (1 << flag as u32) != 0
    }

    pub(super) fn set(&mut self, flag: Flag, value: bool) {
        let bit = 1 << flag as u32;
        self.flags = if value { self.flags | bit } else { self.flags & !bit };
    }

    /// An INVITE was sent and has no final response.
    pub(super) fn sent_open(&self) -> bool {
        self.sent_invite_branch != 0 && self.sent_invite_status == 0
    }

    /// The end read `message`.
    pub(crate) fn read(&mut self, message: &Message<'_>, seen: &mut Seen<'_>) {
        seen.violations.watched += 1;
        self.set(Flag::Unheard, false);
        match message.start {
            Start::Request(method) => self.read_request(method, message, seen),
            Start::Response(status) => self.read_response(status, message, seen),
        }
    }

    /// The end sends `message`.
    pub(crate) fn sent(&mut self, message: &Message<'_>, seen: &mut Seen<'_>) {
        seen.violations.watched += 1;
        match message.start {
            Start::Request(method) => self.sent_request(method, message, seen),
            Start::Response(status) => self.sent_response(status, message, seen),
        }
    }

    /// The flow of this end was lost, struck or blinded: what was under way may not have arrived.
    /// When an INVITE of the server waits for its answer, the next attempt may come `delay` after.
    ///
    /// A lost 2xx need not be acknowledged. One that is sent again must be.
    pub(crate) fn lost(&mut self, at: Duration, delay: Duration) {
        let unsure = self.is(Flag::AckDue);
        // Lost again before the next attempt: that one may come as early as after the first loss.
        let known = self.is(Flag::Lost) && self.not_before != 0;
        if (self.is(Flag::Pending) || unsure) && !known {
            self.wait(at + delay);
        }
        if self.is(Flag::Pending) {
            self.set(Flag::Repeats, true);
        }
        for flag in [Flag::Lost, Flag::Troubled, Flag::Unheard] {
            self.set(flag, true);
        }
        self.set(Flag::AckDue, false);
        self.set(Flag::PreviousAckDue, false);
        if self.sent_open() {
            self.set(Flag::SentLost, true);
        }
    }

    pub(super) fn wait(&mut self, until: Duration) {
        let until = until.saturating_sub(EARLY_TOLERANCE).as_micros();
        self.not_before = u64::try_from(until).unwrap_or(u64::MAX);
    }

    /// What the server's INVITE was sent for is over (the other end has its final response, or took
    /// it back): the next INVITE is another one.
    pub(crate) fn operation_over(&mut self) {
        self.set(Flag::Repeats, false);
        self.not_before = 0;
    }

    /// A re-INVITE of the server gets a final response.
    pub(super) fn note_answer(&mut self) {
        if self.is(Flag::Troubled) {
            self.recoverable = self.recoverable.saturating_add(1);
        }
    }

    /// The answer to an attempt anew was acknowledged.
    pub(super) fn note_recovered(&mut self) {
        self.set(Flag::Anew, false);
        self.recovered = self.recovered.saturating_add(1);
    }

    /// An INVITE that this end read has no final response.
    pub(crate) fn owes_answer(&self) -> bool {
        self.is(Flag::Pending)
    }

    /// BYE was answered, by whichever end.
    pub(crate) fn is_over(&self) -> bool {
        self.is(Flag::Over)
    }

    /// The server knows that the call is over, and can tell this end.
    pub(crate) fn must_be_told(&self) -> bool {
        !self.is(Flag::Unheard) && !self.is(Flag::Untold)
    }

    /// The other end left without telling the server.
    pub(crate) fn other_left(&mut self) {
        self.set(Flag::Untold, true);
    }

    /// The recoveries that this end saw, from those that are sure to those that are possible.
    pub(crate) fn recoveries(&self) -> Between {
        let most = if self.recoverable == u16::MAX { u64::MAX } else { self.recoverable.into() };
        Between { least: self.recovered.into(), most }
    }

    /// What this end, a callee's, saw of its call. How many recoveries were given up shows at the
    /// caller's.
    pub(crate) fn seen_call(&self) -> SeenCalls {
        let acknowledged = self.is(Flag::Acknowledged);
        let answered_bye =
            self.is(Flag::OtherIsBye) && matches!(self.sent_other_status, 200..=299 | 481);
        let between = |sure: bool| Between {
            least: sure.into(),
            // A server that ends releases what stands.
            most: self.is(Flag::Confirmed).into(),
        };
        SeenCalls {
            established: between(acknowledged),
            recovered: self.recoveries(),
            given_up: Between::default(),
            over: between(acknowledged && (self.is(Flag::ByeRead) || answered_bye)),
        }
    }

    /// The call is over at this end, or the run: what is still owed is missing. To be called when
    /// late answers have had their time, once.
    pub(crate) fn end(&mut self, seen: &mut Seen<'_>) {
        for (flag, cseq) in
            [(Flag::PreviousAckDue, self.previous_cseq), (Flag::AckDue, self.invite_cseq)]
        {
            if self.is(flag) {
                seen.breach(Rule::AckMissing, format_args!("ACK of INVITE {cseq}"), "none");
                self.set(flag, false);
            }
        }
        if self.is(Flag::ByeRead) && self.sent_open() && !self.is(Flag::SentLost) {
            let cseq = self.sent_invite_cseq;
            let expected = format_args!("a final response to INVITE {cseq}");
            seen.breach(Rule::NeverAnswered, expected, "BYE and no response");
            self.set(Flag::SentLost, true);
        }
    }

    /// Call-ID and tags of a message inside the dialog. `own` is the tag of this end.
    pub(super) fn check_identity(
        &self,
        message: &Message<'_>,
        own: &[u8],
        peers: &[u8],
        seen: &mut Seen<'_>,
    ) {
        let parts = [
            ("Call-ID", self.call_id, message.call_id),
            ("own tag", self.local, own),
            ("tag", self.remote, peers),
        ];
        for (name, known, found) in parts {
            if known != 0 && known != digest::short(found) {
                let expected = format_args!("the {name} of the dialog");
                seen.breach(Rule::DialogChanged, expected, Text(found));
            }
        }
    }

    /// Its version may not be lower than that of the description before, of the same origin.
    pub(super) fn check_description(&mut self, body: &[u8], seen: &mut Seen<'_>) {
        let Some((origin, version)) = digest::origin(body) else { return };
        // Versions are often times and wrap in their low half.
        if origin == self.origin && (version.wrapping_sub(self.version) as i32) < 0 {
            let expected = format_args!("{} or higher", self.version);
            seen.breach(Rule::SdpVersionLower, expected, version);
        }
        (self.origin, self.version) = (origin, version);
    }
}

/// Bytes of a message, for an example.
pub(super) struct Text<'a>(pub(super) &'a [u8]);

impl Display for Text<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return out.write_str("nothing");
        }
        out.write_str(&String::from_utf8_lossy(self.0))
    }
}

/// The method's name, as far as it is told apart.
pub(super) fn name_of(method: Method) -> &'static str {
    match method {
        Method::Invite => "INVITE",
        Method::Ack => "ACK",
        Method::Bye => "BYE",
        Method::Cancel => "CANCEL",
        Method::Other => "another request",
    }
}

/// Tags of From and To; empty when there is none.
pub(super) fn tags<'a>(message: &Message<'a>) -> (&'a [u8], &'a [u8]) {
    (message::parameter(message.from, b"tag"), message::parameter(message.to, b"tag"))
}
