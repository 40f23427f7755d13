//! Messages that peers of a call send, made from what the endpoint sent them.

use holdfast::sip::message::{Head, Name, View};

use super::bytes::Bytes;

/// Where the peers are, and their Contacts.
pub(crate) const PEERS: [(&str, &str); 6] = [
    ("127.0.0.3:40000", "<sip:7002@127.0.0.3:5070;transport=tcp>"),
    ("127.0.0.2:40000", "<sip:7001@127.0.0.2:5070;transport=tcp>"),
    ("127.0.0.4:40000", "sip:trunk@127.0.0.4:5080"),
    ("[::1]:40000", "<sip:7003@[::1]:5070>"),
    ("[::ffff:127.0.0.3]:40000", "\"a, b\" <sip:host.invalid;lr>;expires=0"),
    ("127.0.0.66:40000", "<sips:x@127.0.0.66>"),
];

const NUMBERS: [&str; 6] = ["7001", "7002", "9123", "7003", "nobody", "%37001"];

const METHODS: [&str; 14] = [
    "INVITE",
    "BYE",
    "UPDATE",
    "INFO",
    "PRACK",
    "REFER",
    "NOTIFY",
    "OPTIONS",
    "MESSAGE",
    "SUBSCRIBE",
    "REGISTER",
    "PUBLISH",
    "FOO",
    "CANCEL",
];

const STATUSES: [u16; 24] = [
    200, 100, 180, 183, 486, 503, 491, 500, 408, 481, 302, 404, 422, 202, 299, 401, 487, 488, 430,
    504, 600, 699, 101, 199,
];

/// Extra headers, by bits.
const EXTRAS: [&str; 4] = [
    "Session-Expires: 90;refresher=uac\r\nSupported: timer\r\n",
    "Retry-After: 2 (busy)\r\n",
    "Record-Route: <sip:127.0.0.8:5090;lr>, <sip:[::1]:5091;lr>\r\n",
    "Require: 100rel\r\nRSeq: 5\r\nRAck: 5 1 INVITE\r\n",
];

/// What a message copies from another one.
#[derive(Clone, Debug)]
pub(crate) struct Copied {
    pub(crate) is_request: bool,
    method: String,
    uri: String,
    via: String,
    from: String,
    to: String,
    call_id: String,
    cseq: u32,
}

impl Copied {
    /// `None` when `bytes` is not a message that a peer would take.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let mut head = Head::new();
        head.read(bytes).ok()?;
        let view = View::new(bytes, &head);
        view.check().ok()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let vias: Vec<String> = view.values(Name::Via).map(text).collect();
        Some(Self {
            is_request: view.is_request(),
            method: text(view.method_bytes()),
            uri: text(view.request_uri()),
            via: vias.join(", "),
            from: text(view.first(Name::From)?),
            to: text(view.first(Name::To)?),
            call_id: text(view.call_id()?),
            cseq: view.cseq()?.0,
        })
    }
}

/// A request outside any dialog. `serial` makes its names new ones.
pub(crate) fn new_request(input: &mut Bytes<'_>, serial: u32) -> Vec<u8> {
    let method = METHODS[input.below(METHODS.len())];
    let number = input.pick(&NUMBERS);
    let start = format!(
        "{method} sip:{number}@127.0.0.1 SIP/2.0\r\n\
         Via: SIP/2.0/TCP 127.0.0.3:5070;branch=z9hG4bKn{serial}\r\n\
         From: <sip:7002@127.0.0.3>;tag=n{serial}\r\n\
         To: <sip:{number}@127.0.0.1>\r\nCall-ID: n{serial}\r\nCSeq: 1 {method}\r\n"
    );
    finish(input, start, 0)
}

/// A request inside the dialog of `sent`: of the one who got it.
pub(crate) fn request_in_dialog(input: &mut Bytes<'_>, sent: &Copied, serial: u32) -> Vec<u8> {
    let method = METHODS[input.below(METHODS.len())];
    let cseq = sent.cseq.wrapping_add(u32::from(input.byte()) % 8).wrapping_sub(1);
    let (from, to) = if sent.is_request {
        (with_tag(&sent.to, input), sent.from.clone())
    } else {
        (sent.from.clone(), sent.to.clone())
    };
    let start = format!(
        "{method} sip:127.0.0.1:5060 SIP/2.0\r\n\
         Via: SIP/2.0/TCP 127.0.0.3:5070;branch=z9hG4bKd{serial}\r\n\
         From: {from}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n",
        sent.call_id
    );
    finish(input, start, 0)
}

/// A response to `sent`.
pub(crate) fn response(input: &mut Bytes<'_>, sent: &Copied) -> Vec<u8> {
    let status = input.pick(&STATUSES);
    let to = with_tag(&sent.to, input);
    let start = format!(
        "SIP/2.0 {status} Some Reason\r\nVia: {}\r\nFrom: {}\r\nTo: {to}\r\n\
         Call-ID: {}\r\nCSeq: {} {}\r\n",
        sent.via, sent.from, sent.call_id, sent.cseq, sent.method
    );
    finish(input, start, 1)
}

/// ACK or CANCEL of the request that `sent` answers.
pub(crate) fn follow_up(input: &mut Bytes<'_>, sent: &Copied, serial: u32) -> Vec<u8> {
    let kind = input.byte();
    let method = if kind & 1 == 0 { "ACK" } else { "CANCEL" };
    let via = if kind & 2 == 0 {
        sent.via.clone()
    } else {
        format!("SIP/2.0/TCP 127.0.0.3:5070;branch=z9hG4bKf{serial}")
    };
    let start = format!(
        "{method} {} SIP/2.0\r\nVia: {via}\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\n\
         CSeq: {} {method}\r\n",
        if sent.uri.is_empty() { "sip:127.0.0.1:5060" } else { &sent.uri },
        sent.from,
        sent.to,
        sent.call_id,
        sent.cseq
    );
    finish(input, start, 0)
}

/// The peer's tag: mostly the same one, so that dialogs go on.
fn with_tag(to: &str, input: &mut Bytes<'_>) -> String {
    let fork = input.byte();
    if to.contains("tag=") || fork == 255 {
        return to.to_owned();
    }
    format!("{to};tag=b{}", fork % 4)
}

/// Contact, extra headers and body. Bits of the first byte: 0 and 1 `without` a Contact or with
/// which, 2 a body, 3 alias, 4 to 7 [`EXTRAS`].
fn finish(input: &mut Bytes<'_>, mut message: String, contact: usize) -> Vec<u8> {
    let bits = input.byte();
    match bits & 3 {
        0 => message += &format!("Contact: {}\r\n", PEERS[contact].1),
        1 => message += &format!("Contact: {}\r\n", PEERS[input.below(PEERS.len())].1),
        2 => message += "Max-Forwards: 1\r\n",
        _ => {}
    }
    if bits & 8 != 0 {
        message = message.replacen(";branch=", ";alias;branch=", 1);
    }
    for (bit, extra) in EXTRAS.iter().enumerate() {
        if bits & 16 << bit != 0 {
            message += extra;
        }
    }
    let body = "v=0\r\no=- 1 1 IN IP4 127.0.0.3\r\ns=-\r\nc=IN IP4 127.0.0.3\r\nt=0 0\r\n\
                m=audio 4000 RTP/AVP 0\r\n";
    if bits & 4 != 0 {
        message += "Content-Type: application/sdp\r\n";
        message += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    } else {
        message += "Content-Length: 0\r\n\r\n";
    }
    message.into_bytes()
}
