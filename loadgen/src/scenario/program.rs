//! What every call does, as the interpreter reads it: flat lists of steps with jumps by index.
//!
//! Own texts ([`super::text`]) and imported SIPp files ([`super::sipp`]) are compiled to this.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::fields::FieldFile;
use super::span::Span;
use super::template::Template;
pub(crate) use crate::name::Direction;

/// Steps of one block.
pub(crate) const STEPS_MAX: usize = 4096;
/// Names of response times in one scenario.
pub(crate) const MARKS_MAX: usize = 32;
/// Certainty, as a chance in millionths.
pub(crate) const ALWAYS: u32 = 1_000_000;

/// What a run plays: one scenario, or several by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mixture {
    pub(crate) name: String,
    pub(crate) about: String,
    /// `fault …` lines of the mixture itself, as in [`Scenario::faults`]; the parts may have more.
    pub(crate) faults: Vec<(u32, String)>,
    /// At least one; the weights are millionths and add up to [`ALWAYS`].
    pub(crate) parts: Vec<Part>,
}

impl Mixture {
    /// It starts no calls and waits for those of others.
    pub(crate) fn only_answers(&self) -> bool {
        self.parts.iter().all(|part| part.scenario.caller.is_empty())
    }
}

/// A scenario and the share of the calls that it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) weight: u32,
    pub(crate) scenario: Scenario,
}

/// What the two ends of a call do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) about: String,
    /// Empty when the file has only a callee (a SIPp server scenario): it starts no calls.
    pub(crate) caller: Vec<Step>,
    /// Runs from the request that makes the call. Never empty: a text without a callee rings and
    /// answers.
    pub(crate) callee: Vec<Step>,
    /// Names of response times; [`Step::Start`], [`Step::Stop`] and requests refer to them.
    pub(crate) marks: Vec<String>,
    /// Names of meeting points; [`Step::Meet`] refers to them.
    pub(crate) meets: Vec<String>,
    /// Slots used by [`Step::Repeat`], for each agent.
    pub(crate) counters: u8,
    /// `fault …` lines: the line in the file (from 1), and the text after the word.
    pub(crate) faults: Vec<(u32, String)>,
    pub(crate) fields: Vec<FieldFile>,
    /// Some template uses `[last_…]`: the agent must keep the last message it received.
    pub(crate) keeps_messages: bool,
    /// Which blocks are SIPp's: there an unexpected message fails the call.
    pub(crate) strict: Strict,
}

/// Blocks without a user agent beneath them: every message is a step of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Strict {
    pub(crate) caller: bool,
    pub(crate) callee: bool,
}

/// One step. Jumps (`to`, `next`) are indices into the same list and may be its length: the end.
///
/// An imported file may loop without a step that waits: an interpreter must bound the steps that it
/// takes at once.
///
/// A block that runs off its end has ended well. The user agent beneath goes on to answer what
/// comes for its dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Writes a request and waits for its final response.
    Request(Request),
    /// Answers the request that made the call; a callee's step only.
    Respond(Respond),
    Wait(Span),
    /// Waits until the peer has sent a request of this method, answered by the user agent
    /// beneath. At once when one came since the last `Await` of the method, or the call began.
    Await(Await),
    /// Waits until all calls of the run have come here.
    Meet(u8),
    /// A raw message goes out (SIPp import).
    Send(Send),
    /// A raw message must come in (SIPp import).
    Recv(Recv),
    Goto(usize),
    /// Jumps with this probability, else goes on.
    Chance {
        millionths: u32,
        to: usize,
    },
    /// Stands after the body of a loop: counts, and jumps back until the body ran `times` times;
    /// then the counter is zero again and the step after it follows.
    Repeat {
        counter: u8,
        times: u32,
        to: usize,
    },
    /// From here to the next [`Step::Stop`] of the same name is one sample of `marks[n]`.
    Start(u8),
    Stop(u8),
    /// SIPp's `timewait`: the call has ended well, but stays this long to answer what comes again.
    Linger(Duration),
    /// The call is over for this agent.
    End(Outcome),
}

/// How a call went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// The server said that it has no room; neither good nor a failure.
    Refused,
    /// And why, as the scenario says it.
    Failure(String),
}

/// A request of the dialog, or the one that makes it. The ACK of an INVITE is automatic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Line in the file, from 1; for messages.
    pub(crate) line: u32,
    pub(crate) method: String,
    pub(crate) to: Target,
    /// What the SDP offers; `None`: no SDP (an INVITE without one asks for an offer, and its ACK
    /// carries the answer).
    pub(crate) offer: Option<Offer>,
    /// A body that is not the SDP of the call; never together with `offer`.
    pub(crate) body: Option<Body>,
    /// Extra header lines, CRLF each.
    pub(crate) headers: Template,
    /// Final responses that are good; any other fails the call.
    pub(crate) expect: RangeInclusive<u16>,
    /// Final responses that end the call as [`Outcome::Refused`].
    pub(crate) refused: Option<RangeInclusive<u16>>,
    /// From sending to the final response; `None`: as long as the run's own limit.
    pub(crate) timeout: Option<Duration>,
    /// An INVITE only: CANCEL goes out this long after it, but not before a provisional response
    /// (RFC 3261 §9.1), and not after a final one.
    pub(crate) cancel: Option<Span>,
    /// From sending to the final response is one sample of this response time.
    pub(crate) mark: Option<u8>,
}

/// Whom a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The peer of the dialog; INVITE, UPDATE, BYE, INFO, and others after the call is up.
    Dialog,
    /// The called number at the server, outside any dialog or making one.
    Called,
    /// The server itself, without a user (REGISTER, OPTIONS as a ping).
    Server,
    /// This user at the server, by `to "[field0]"`; for a REGISTER also the user in From and To.
    User(Template),
}

/// What an SDP body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// A new version with this direction.
    Fresh(Direction),
    /// The last description byte for byte, as a session refresh has it (RFC 4028 §7.4).
    Same,
}

/// A body of the scenario's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    /// Value of Content-Type.
    pub(crate) media_type: String,
    pub(crate) text: Template,
}

/// An answer to the request that made the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Respond {
    /// Line in the file, from 1; for messages.
    pub(crate) line: u32,
    pub(crate) status: u16,
    pub(crate) reason: String,
    /// With an SDP that answers the offer (or makes one when there was none). Only for an INVITE;
    /// and only an INVITE gets provisional responses: for another request they are left out.
    pub(crate) sdp: bool,
    /// Extra header lines, CRLF each.
    pub(crate) headers: Template,
}

/// See [`Step::Await`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Await {
    pub(crate) line: u32,
    pub(crate) method: String,
    /// The call fails when it takes longer.
    pub(crate) timeout: Option<Duration>,
}

/// Which message a template is, read off its first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request(String),
    Response(u16),
}

/// A raw message that goes out.
///
/// As SIPp does it: the message is written from the template, and written again from the same
/// bytes after `retransmit` over UDP (doubling up to T2) until a message comes that a later
/// [`Recv`] takes. `[cseq]` counts up before each request other than ACK and CANCEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Send {
    pub(crate) line: u32,
    /// SIPp's number of the message in its scenario, from 0: for `[msg_index]` and `[branch]`.
    pub(crate) index: u32,
    pub(crate) template: Template,
    pub(crate) kind: Kind,
    /// First interval; UDP only.
    pub(crate) retransmit: Option<Duration>,
    /// Probability in millionths that the message is not sent at all.
    pub(crate) lost: u32,
    pub(crate) start: Option<u8>,
    pub(crate) stop: Option<u8>,
    /// Where to go on after it.
    pub(crate) next: Option<usize>,
    /// Probability in millionths that `next` is taken; `None`: always.
    pub(crate) chance: Option<u32>,
}

/// What a [`Recv`] waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    Request(String),
    Response(u16),
}

/// A raw message that must, or may, come in.
///
/// As SIPp does it: a message is compared with this step; when this one is `optional` and does
/// not fit, with the ones after it up to and with the first that is not optional. Before that,
/// with the optional ones that stand directly before this one (a 180 after the 183, again). A
/// message that came before, byte for byte, is a retransmission: what was sent after it is sent
/// again, and no step is taken. Any other message fails the call.
///
/// A message that an optional step takes leaves the call where it is, unless the step has a
/// `next`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recv {
    pub(crate) line: u32,
    pub(crate) index: u32,
    pub(crate) what: Awaited,
    pub(crate) optional: bool,
    /// How long to wait, and where to go then; nowhere: the call fails.
    pub(crate) timeout: Option<(Duration, Option<usize>)>,
    /// Probability in millionths that the message is treated as if it had not come.
    pub(crate) lost: u32,
    pub(crate) start: Option<u8>,
    pub(crate) stop: Option<u8>,
    pub(crate) next: Option<usize>,
    /// Probability in millionths that `next` is taken; `None`: always.
    pub(crate) chance: Option<u32>,
    /// `rrs`: keep Record-Route and Contact for `[routes]` and `[next_url]`.
    pub(crate) routes: bool,
}
