//! Events as lines of JSON, and requests read from such lines. Names are T-Library's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::cti::{Content, ErrorCode, Request, What};
use crate::key::{CallId, Key, ShardId, Side};
use crate::shard::Told;

/// Appends the line of an event.
pub(super) fn write_event(out: &mut Vec<u8>, told: &Told) {
    let event = &told.event;
    let (name, number) = event.content.message();
    let mut line = Line {
        event: name,
        message_id: number,
        user_event: event.content.user_event(),
        time: Some(Time::of(told.at)),
        shard: Some(event.shard.0),
        event_sequence_number: Some(event.sequence),
        conn_id: Some(connection(event.shard, event.leg.call)),
        leg: Some(side_name(event.leg.side)),
        this_dn: Some(&event.this_dn),
        other_dn: Some(&event.other_dn),
        ..Line::default()
    };
    line.fill(event.content, told.at);
    write(out, &line);
}

/// Appends a line that says that `lost` events are missing before the next one: of one shard, or of
/// any.
pub(super) fn write_gap(out: &mut Vec<u8>, shard: Option<ShardId>, lost: u64) {
    let shard = shard.map(|shard| shard.0);
    write(out, &Line { event: "Gap", shard, lost: Some(lost), ..Line::default() });
}

/// Appends the line that answers a request that cannot be read.
pub(super) fn write_refusal(out: &mut Vec<u8>, refusal: &Refusal) {
    write(
        out,
        &Line {
            event: "EventError",
            message_id: 52,
            reference_id: refusal.reference,
            error_code: Some(refusal.code),
            error_message: Some(&refusal.text),
            ..Line::default()
        },
    );
}

fn write(out: &mut Vec<u8>, line: &Line<'_>) {
    // Writing into memory fails for maps with odd keys only, of which there are none.
    if serde_json::to_writer(&mut *out, line).is_ok() {
        out.push(b'\n');
    }
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line<'a> {
    event: &'static str,
    #[serde(rename = "MessageID", skip_serializing_if = "is_zero")]
    message_id: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_event: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_sequence_number: Option<u64>,
    #[serde(rename = "ConnID", skip_serializing_if = "Option::is_none")]
    conn_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leg: Option<&'static str>,
    #[serde(rename = "ThisDN", skip_serializing_if = "Option::is_none")]
    this_dn: Option<&'a str>,
    #[serde(rename = "OtherDN", skip_serializing_if = "Option::is_none")]
    other_dn: Option<&'a str>,
    #[serde(rename = "ReferenceID", skip_serializing_if = "Option::is_none")]
    reference_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extensions: Option<Extensions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
}

impl Line<'_> {
    fn fill(&mut self, content: Content, at: SystemTime) {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).ok();
        match content {
            Content::Dialing | Content::Ringing | Content::Established | Content::Abandoned => {}
            Content::Released { by, reference } => {
                self.reference_id = reference;
                self.extensions = Some(Extensions { releasing_party: by.spelling() });
            }
            Content::Held { reference } | Content::Retrieved { reference } => {
                self.reference_id = Some(reference);
            }
            Content::Error { code, reference } => {
                self.reference_id = reference;
                self.error_code = Some(code.number());
                self.error_message = Some(error_text(code));
            }
            Content::RecoveryStarted { cause, delay, window } => {
                self.cause = Some(cause.name());
                self.delay = millis(delay);
                self.deadline = Some(Time::of(at + window));
            }
            Content::RecoverySucceeded { attempts, elapsed } => {
                self.attempts = Some(attempts);
                self.elapsed = millis(elapsed);
            }
            Content::RecoveryEnded { outcome, attempts, elapsed } => {
                self.outcome = Some(outcome.name());
                self.attempts = Some(attempts);
                self.elapsed = millis(elapsed);
            }
        }
    }
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}

#[derive(Serialize)]
struct Extensions {
    #[serde(rename = "ReleasingParty")]
    releasing_party: &'static str,
}

#[derive(Serialize)]
struct Time {
    #[serde(rename = "TimeinSecs")]
    secs: u64,
    #[serde(rename = "TimeinuSecs")]
    micros: u32,
}

impl Time {
    fn of(at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { secs: since.as_secs(), micros: since.subsec_micros() }
    }
}

fn error_text(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InSameState => "the party is busy with an operation, or in the state asked for",
        ErrorCode::InvalidConnectionId => "there is no such call",
        ErrorCode::Timeout => "the operation was given up: its transport did not come back",
        ErrorCode::OutOfService => "the device cannot be reached, or refused",
    }
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::A => "caller",
        Side::B => "callee",
    }
}

/// A call's name outside: the shard, and what the shard calls it.
fn connection(ShardId(shard): ShardId, CallId(key): CallId) -> String {
    format!("{shard:04x}{:08x}{:08x}", key.index, key.generation)
}

fn parse_connection(text: &str) -> Option<(ShardId, CallId)> {
    let is_hex = text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let part = |range: std::ops::Range<usize>| {
        text.get(range).filter(|_| is_hex).and_then(|digits| u32::from_str_radix(digits, 16).ok())
    };
    let (shard, index, generation) = (part(0..4)?, part(4..12)?, part(12..20)?);
    Some((ShardId(u16::try_from(shard).ok()?), CallId(Key { index, generation })))
}

/// Why a request cannot be passed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reference: Option<u64>,
    /// T-Library's number.
    pub(super) code: u16,
    pub(super) text: String,
}

/// T-Library's TERR_INVALID_ATTR.
const INVALID_ATTRIBUTE: u16 = 53;

impl Refusal {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { reference: None, code: INVALID_ATTRIBUTE, text: text.into() }
    }

    /// The call's shard is not there any more.
    pub(super) fn no_such_call(reference: u64) -> Self {
        let code = ErrorCode::InvalidConnectionId;
        Self { reference: Some(reference), code: code.number(), text: error_text(code).to_owned() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Asked {
    request: Wanted,
    #[serde(rename = "ReferenceID")]
    reference_id: u64,
    #[serde(rename = "ConnID")]
    conn_id: String,
    leg: Leg,
}

#[derive(Deserialize)]
enum Wanted {
    #[serde(rename = "RequestReleaseCall")]
    Release,
    #[serde(rename = "RequestHoldCall")]
    Hold,
    #[serde(rename = "RequestRetrieveCall")]
    Retrieve,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Leg {
    Caller,
    Callee,
}

/// Reads a request.
pub(super) fn parse_request(line: &[u8]) -> Result<(ShardId, Request), Refusal> {
    let asked: Asked =
        serde_json::from_slice(line).map_err(|error| Refusal::new(error.to_string()))?;
    let reference = asked.reference_id;
    let Some((shard, call)) = parse_connection(&asked.conn_id) else {
        let refusal = Refusal::new("ConnID is not the name of a call: 20 hexadecimal digits");
        return Err(Refusal { reference: Some(reference), ..refusal });
    };
    let what = match asked.request {
        Wanted::Release => What::Release,
        Wanted::Hold => What::Hold,
        Wanted::Retrieve => What::Retrieve,
    };
    let side = match asked.leg {
        Leg::Caller => Side::A,
        Leg::Callee => Side::B,
    };
    Ok((shard, Request { reference, call, side, what }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cti::{Cause, Event};
    use crate::key::LegId;
    use crate::time::Instant;

    fn told(content: Content) -> Told {
        let call = CallId(Key { index: 0x12, generation: 0xabcd });
        let event = Event {
            shard: ShardId(1),
            sequence: 7,
            at: Instant::ZERO,
            leg: LegId { call, side: Side::B },
            this_dn: "70\"02\n".into(),
            other_dn: "7001".into(),
            content,
        };
        Told { at: UNIX_EPOCH + Duration::from_micros(1_500_000), event }
    }

    fn text(content: Content) -> String {
        let mut out = Vec::new();
        write_event(&mut out, &told(content));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_is_one_line_and_a_name_cannot_break_out_of_it() {
        let started = Content::RecoveryStarted {
            cause: Cause::Flow,
            delay: Duration::from_millis(1000),
            window: Duration::from_secs(32),
        };
        let expected = concat!(
            r#"{"Event":"EventUserEvent","MessageID":96,"UserEvent":"RecoveryStarted","#,
            r#""Time":{"TimeinSecs":1,"TimeinuSecs":500000},"Shard":1,"EventSequenceNumber":7,"#,
            r#""ConnID":"0001000000120000abcd","Leg":"callee","ThisDN":"70\"02\n","OtherDN":"7001","#,
            r#""Cause":"flow","Delay":1000,"Deadline":{"TimeinSecs":33,"TimeinuSecs":500000}}"#,
            "\n"
        );
        assert_eq!(text(started), expected);
    }

    #[test]
    fn a_request_names_the_call_as_events_do() {
        let line = br#"{"Request":"RequestHoldCall","ReferenceID":9,"ConnID":"0001000000120000ABCD","Leg":"callee"}"#;
        let (shard, request) = parse_request(line).unwrap();
        let call = CallId(Key { index: 0x12, generation: 0xabcd });
        assert_eq!(shard, ShardId(1));
        assert_eq!(request, Request { reference: 9, call, side: Side::B, what: What::Hold });
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_reason() {
        let long = format!(r#"{{"Request":{}"#, "[".repeat(4000));
        for line in [
            "",
            "{}",
            "null",
            "[1]",
            "RequestHoldCall",
            r#"{"Request":"RequestMakeCall","ReferenceID":9,"ConnID":"0001000000120000abcd","Leg":"caller"}"#,
            r#"{"Request":"RequestHoldCall","ReferenceID":-1,"ConnID":"0001000000120000abcd","Leg":"caller"}"#,
            r#"{"Request":"RequestHoldCall","ReferenceID":9,"ConnID":"0001000000120000abcd","Leg":"both"}"#,
            r#"{"Request":"RequestHoldCall","ReferenceID":9,"ConnID":"+001000000120000abcd","Leg":"caller"}"#,
            r#"{"Request":"RequestHoldCall","ReferenceID":9,"ConnID":"00ä1000000120000abc","Leg":"caller"}"#,
            r#"{"Request":"RequestHoldCall","ReferenceID":9,"ConnID":"12","Leg":"caller"}"#,
            r#"{"Request":"RequestHoldCall","ReferenceID":9,"ConnID":"0001000000120000abcd","Leg":"caller","X":1}"#,
            &long,
        ] {
            let refusal = parse_request(line.as_bytes()).unwrap_err();
            assert_eq!(refusal.code, 53, "{line}");
            assert!(!refusal.text.is_empty());
        }
        assert!(parse_request(b"\xff\xfe").is_err());
    }
}
