//! Ways to break the rules of a dialog, one by one.

use super::{branch, bye, header};

/// What the relay does wrong, to every re-INVITE where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breach {
    /// It has the CSeq of the request before.
    CseqNotHigher,
    /// All have the same branch.
    BranchNotNew,
    /// Its From tag is another.
    DialogChanged,
    /// A 486 after its 200.
    FinalTwice,
    /// A 180 after its 200.
    ProvisionalAfterFinal,
    /// A response with another CSeq before its 200.
    ResponseForNothing,
    /// It is swallowed, and BYE comes.
    NeverAnswered,
    /// 180 and then BYE.
    ByeBeforeFinal,
    RouteSet,
    MaxForwards,
    /// An attempt anew has another body.
    BodyChanged,
    SdpVersionLower,
    ContactMissing,
    /// Its ACK has another CSeq.
    AckForAnother,
    /// Its ACK is swallowed.
    AckMissing,
    /// A CANCEL with another branch comes after it.
    CancelForNothing,
    /// The caller gets a BYE after its 200.
    ByeUnasked,
    /// It comes twice.
    AttemptOverlaps,
    /// The caller's BYE is crossed by one, and INFO follows.
    AfterBye,
    /// The callee's BYE is swallowed.
    ByeMissing,
}

impl Breach {
    /// What the callee gets in place of a request; `again`: an attempt anew.
    pub(crate) fn to_callee(self, text: &str, again: bool) -> Vec<String> {
        let (cseq, method) = header(text, "CSeq").split_once(' ').unwrap();
        let cseq: u32 = cseq.parse().unwrap();
        let inside = header(text, "To").contains(";tag=");
        let re_invite = inside && method == "INVITE";
        match self {
            Self::ByeMissing if method == "BYE" => return Vec::new(),
            Self::AckForAnother if method == "ACK" && cseq > 1 => {
                return vec![with_cseq(text, cseq + 7, "ACK")];
            }
            Self::AckMissing if method == "ACK" && cseq > 1 => return Vec::new(),
            Self::NeverAnswered | Self::ByeBeforeFinal if re_invite => return Vec::new(),
            _ if !re_invite => return vec![text.to_owned()],
            _ => {}
        }
        let changed = match self {
            Self::CseqNotHigher => with_cseq(text, cseq - 1, "INVITE"),
            Self::BranchNotNew => text.replacen(branch(text), "z9hG4bK-same", 1),
            Self::DialogChanged => {
                let from = header(text, "From");
                text.replacen(from, &format!("{from}x"), 1)
            }
            Self::RouteSet => with_line(text, "Route: <sip:127.0.0.9;lr>"),
            Self::MaxForwards => without(text, "Max-Forwards"),
            Self::ContactMissing => without(text, "Contact"),
            Self::BodyChanged if again => text.replacen("a=sendonly", "a=inactive", 1),
            Self::SdpVersionLower => {
                let at = text.find(" IN IP4").unwrap();
                format!("{}0{}", &text[..at - 1], &text[at..])
            }
            _ => text.to_owned(),
        };
        let then = match self {
            Self::CancelForNothing => {
                let text = text.replacen("INVITE", "CANCEL", 1);
                let text = with_cseq(&text, cseq, "CANCEL");
                vec![text.replacen(branch(&text), "z9hG4bK-cancel", 1)]
            }
            Self::AttemptOverlaps if !again => {
                let text = with_cseq(text, cseq + 1, "INVITE");
                vec![text.replacen(branch(&text), "z9hG4bK-again", 1)]
            }
            _ => Vec::new(),
        };
        std::iter::once(changed).chain(then).collect()
    }

    /// What the caller gets in place of a response.
    pub(crate) fn to_caller(self, text: &str) -> Vec<String> {
        let (cseq, method) = header(text, "CSeq").split_once(' ').unwrap();
        let cseq: u32 = cseq.parse().unwrap();
        let of_re_invite = method == "INVITE" && cseq > 1 && text.starts_with("SIP/2.0 200");
        let own = text.to_owned();
        let status = |status: &str| text.replacen("SIP/2.0 200 OK", status, 1);
        match self {
            _ if !of_re_invite => vec![own],
            Self::FinalTwice => vec![own, status("SIP/2.0 486 Busy Here")],
            Self::ProvisionalAfterFinal => vec![own, status("SIP/2.0 180 Ringing")],
            Self::ResponseForNothing => vec![with_cseq(text, cseq + 5, "INVITE"), own],
            Self::ByeUnasked => vec![own, bye(text)],
            _ => vec![own],
        }
    }

    /// What the caller gets for its request at once.
    pub(crate) fn back(self, text: &str) -> Vec<String> {
        let (_, method) = header(text, "CSeq").split_once(' ').unwrap();
        let inside = header(text, "To").contains(";tag=");
        let re_invite = inside && method == "INVITE";
        match self {
            Self::NeverAnswered if re_invite => vec![bye(text)],
            Self::ByeBeforeFinal if re_invite => {
                vec![super::refusal(text, "180 Ringing"), bye(text)]
            }
            Self::ByeMissing if method == "BYE" => vec![super::refusal(text, "200 OK")],
            Self::AfterBye if method == "BYE" => {
                let info = bye(text).replace("BYE", "INFO").replace("CSeq: 1", "CSeq: 2");
                vec![bye(text), info.replace("z9hG4bKbye", "z9hG4bKinfo")]
            }
            _ => Vec::new(),
        }
    }
}

fn with_cseq(text: &str, cseq: u32, method: &str) -> String {
    let old = format!("\r\nCSeq: {}\r\n", header(text, "CSeq"));
    text.replacen(&old, &format!("\r\nCSeq: {cseq} {method}\r\n"), 1)
}

fn with_line(text: &str, line: &str) -> String {
    text.replacen("\r\n", &format!("\r\n{line}\r\n"), 1)
}

fn without(text: &str, name: &str) -> String {
    let value = header(text, name);
    let line = text.lines().find(|line| line.starts_with(name) && line.ends_with(value));
    text.replacen(&format!("{}\r\n", line.unwrap()), "", 1)
}
