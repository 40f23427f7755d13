//! What really happened: every call, and every request and response that a peer sent, so that the
//! other end can be held to it.

use std::collections::BTreeMap;

use crate::message::{Msg, is_header};
use crate::proxy::Path;
use crate::rng::Rng;

/// Which end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// Sent the first INVITE.
    Caller,
    /// Received it.
    Callee,
}

impl Side {
    /// The other end.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }
}

/// Why a call is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The INVITE was answered with an error, or could not be delivered.
    Refused,
    /// One of the peers hung up.
    Bye(Side),
    /// The server released it, and the oracle agreed.
    Released,
}

/// A call as the peers know it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The peer that calls, and its leg.
    pub(crate) caller: usize,
    /// The peer that is called.
    pub(crate) callee: usize,
    /// What the caller dials.
    pub(crate) number: String,
    /// Index of each side's leg in its peer.
    pub(crate) legs: [Option<usize>; 2],
    /// Call-ID of each side's leg.
    pub(crate) call_ids: [String; 2],
    /// The caller saw a 2xx.
    pub(crate) established: bool,
    /// The first cause of its end.
    pub(crate) ended: Option<Ended>,
    /// The server may end it: the reason that the oracle accepted.
    pub(crate) may_release: Option<String>,
}

/// A request that a peer sent.
#[derive(Clone, Debug)]
pub(crate) struct SentRequest {
    pub(crate) call: usize,
    pub(crate) side: Side,
    pub(crate) method: String,
    pub(crate) max_forwards: u64,
    pub(crate) content_type: String,
    pub(crate) extras: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// CSeq numbers it came with at the other end.
    pub(crate) seen: Vec<u32>,
    pub(crate) outcome: Option<Outcome>,
}

/// How a request ended for the peer that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered; true: by the other peer.
    Final(u16, bool),
    /// The flow was lost first.
    FlowLost,
    /// Nothing came in 64·T1.
    TimedOut,
}

/// A response that a peer sent to a request of another peer.
#[derive(Clone, Debug)]
pub(crate) struct SentResponse {
    pub(crate) request: usize,
    pub(crate) status: u16,
    pub(crate) extras: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// The book of all that was sent.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// No server stands between the peers.
    pub(crate) direct: bool,
    /// Applications ask the server for re-INVITEs of its own.
    pub(crate) controlled: bool,
    /// Host and port the server names.
    pub(crate) sent_by: String,
    /// A proxy stands between the server and a peer.
    pub(crate) path: Option<Path>,
    pub(crate) calls: Vec<Call>,
    pub(crate) requests: Vec<SentRequest>,
    pub(crate) responses: Vec<SentResponse>,
    /// Session answers that went in the ACK to a response.
    pub(crate) answers: BTreeMap<usize, Vec<u8>>,
    /// What went wrong, in order.
    pub(crate) failures: Vec<String>,
    /// How often the interesting things happened.
    pub(crate) coverage: BTreeMap<&'static str, u64>,
    /// No fault is made any more since this time.
    pub(crate) healed_at: Option<u64>,
}

impl Truth {
    /// Counts that `what` happened.
    pub(crate) fn cover(&mut self, what: &'static str) {
        *self.coverage.entry(what).or_default() += 1;
    }

    /// Notes that the call is over, unless it already is.
    pub(crate) fn end(&mut self, call: usize, ended: Ended) {
        if let Some(call) = self.calls.get_mut(call) {
            call.ended.get_or_insert(ended);
        }
    }

    /// The call is up as far as anybody decided.
    pub(crate) fn is_up(&self, call: usize) -> bool {
        let call = &self.calls[call];
        call.established && call.ended.is_none() && call.may_release.is_none()
    }

    /// Writes a request into the book; its number goes into X-Sim-Id.
    pub(crate) fn sent_request(&mut self, request: SentRequest) -> usize {
        self.requests.push(request);
        self.requests.len() - 1
    }

    /// Holds a request that came out of the server to the one that went in.
    ///
    /// # Errors
    /// Says what differs.
    pub(crate) fn check_request(
        &mut self,
        id: usize,
        call: usize,
        side: Side,
        msg: &Msg,
    ) -> Result<(), String> {
        let hops = match self.path {
            _ if self.direct => 0,
            Some(_) => 2,
            None => 1,
        };
        let sent = self.requests.get_mut(id).ok_or("X-Sim-Id that nobody sent")?;
        if sent.call != call || sent.side == side {
            return Err(format!("request {id} of call {} reached call {call} {side:?}", sent.call));
        }
        if sent.method != msg.method() {
            return Err(format!("request {id} was {} and came as {}", sent.method, msg.method()));
        }
        same_extras(&sent.extras, msg)?;
        if sent.body != msg.body {
            return Err(format!(
                "body of request {id}: {} bytes sent, {} came",
                sent.body.len(),
                msg.body.len()
            ));
        }
        if !sent.body.is_empty() && sent.content_type != msg.text("Content-Type") {
            return Err(format!("Content-Type of request {id}: {:?}", msg.text("Content-Type")));
        }
        // A BYE is answered at once and passed on as a request of the server's own.
        let relayed = msg.method() != "BYE";
        if relayed && msg.number("Max-Forwards") != Some(sent.max_forwards - hops) {
            return Err(format!(
                "Max-Forwards of request {id}: {} sent, {:?} came",
                sent.max_forwards,
                msg.text("Max-Forwards")
            ));
        }
        let cseq = msg.cseq().0;
        if !sent.seen.is_empty() && msg.method() != "INVITE" && !sent.seen.contains(&cseq) {
            return Err(format!("{} {id} came twice, CSeq {:?}, {cseq}", sent.method, sent.seen));
        }
        sent.seen.push(cseq);
        Ok(())
    }

    /// Holds a response that came out of the server to the one that went in; true when it is one.
    ///
    /// # Errors
    /// Says what differs.
    pub(crate) fn check_response(&self, request: Option<usize>, msg: &Msg) -> Result<bool, String> {
        let Some(number) = msg.number("X-Sim-Response") else { return Ok(false) };
        let sent = self.responses.get(number as usize).ok_or("X-Sim-Response nobody sent")?;
        if Some(sent.request) != request {
            return Err(format!("answer to request {} came to {request:?}", sent.request));
        }
        if sent.status != msg.status() {
            return Err(format!("answer {} came as {}", sent.status, msg.status()));
        }
        same_extras(&sent.extras, msg)?;
        if sent.body != msg.body {
            return Err(format!("body of response {number} differs"));
        }
        Ok(true)
    }
}

fn same_extras(sent: &[(String, Vec<u8>)], msg: &Msg) -> Result<(), String> {
    for (name, _) in sent {
        let want: Vec<_> = sent.iter().filter(|(n, _)| n == name).map(|(_, v)| v).collect();
        let have: Vec<_> =
            msg.headers.iter().filter(|(n, _)| is_header(n, name)).map(|(_, v)| v).collect();
        if want != have {
            return Err(format!("header {name}: sent {want:?}, came {have:?}"));
        }
    }
    Ok(())
}

/// Headers that no server knows, with arbitrary values.
pub(crate) fn draw_extras(rng: &mut Rng, most: u64) -> Vec<(String, Vec<u8>)> {
    const NAMES: [&str; 8] = [
        "X-Colour",
        "X-Call-UUID",
        "P-Early-Flavour",
        "Unheard-Of",
        "X-Empty",
        "User-To-User",
        "Xx",
        "X-Colour",
    ];
    const VALUES: [&str; 9] = [
        "1",
        "",
        "\"quoted, with ; and <brackets>\"",
        "Grüße, 日本",
        "a=b;c=d;tag=no;branch=z9hG4bKno",
        "sip:not@the.target;lr",
        "  inner   spaces  kept  ",
        "Via: SIP/2.0/TCP nested",
        "0123456789012345678901234567890123456789012345678901234567890123456789",
    ];
    (0..rng.below(most + 1))
        .map(|_| {
            let name = (*rng.pick(&NAMES)).to_owned();
            let value = if rng.chance(150) {
                // Any byte that a header value may hold, UTF-8 or not.
                let len = rng.below(40) as usize;
                let bytes = rng.bytes(len).into_iter();
                bytes.map(|byte| if byte < 0x20 || byte == 0x7f { b'~' } else { byte }).collect()
            } else {
                (*rng.pick(&VALUES)).trim().as_bytes().to_vec()
            };
            (name, trim(value))
        })
        .collect()
}

fn trim(value: Vec<u8>) -> Vec<u8> {
    value.trim_ascii().to_vec()
}

/// A session description of `version`.
pub(crate) fn draw_sdp(rng: &mut Rng, host: &str, version: u32) -> Vec<u8> {
    let direction = rng.pick(&["sendrecv", "sendonly", "recvonly", "inactive"]);
    let port = rng.range(10_000, 60_000) & !1;
    format!(
        "v=0\r\no=- 77 {version} IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0 8\r\na={direction}\r\n"
    )
    .into_bytes()
}
