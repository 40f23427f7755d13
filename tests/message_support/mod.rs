//! What the message tests share.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::fmt;

use holdfast::sip::message::{
    Frame, FrameError, Framer, Head, NameAddr, Uri, Values, Via, View, home,
};
use proptest::prelude::*;

/// A small good message.
pub const OPTIONS: &str = "OPTIONS sip:bob@example.com SIP/2.0\r\n\
    Via: SIP/2.0/TCP 192.0.2.1:5060;branch=z9hG4bKedge\r\n\
    Max-Forwards: 70\r\n\
    From: <sip:alice@example.com>;tag=ft\r\n\
    To: <sip:bob@example.com>\r\n\
    Call-ID: edge@192.0.2.1\r\n\
    CSeq: 1 OPTIONS\r\n\
    Content-Length: 0\r\n\
    \r\n";

/// A frame with bytes of its own.
#[derive(Clone, PartialEq, Eq)]
pub enum OwnedFrame {
    Message(Vec<u8>),
    Ping,
    Unframed { bytes: Vec<u8>, error: FrameError },
}

impl fmt::Debug for OwnedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(bytes) => write!(f, "Message({:?})", bytes.escape_ascii().to_string()),
            Self::Ping => f.write_str("Ping"),
            Self::Unframed { bytes, error } => {
                write!(f, "Unframed({error:?}, {:?})", bytes.escape_ascii().to_string())
            }
        }
    }
}

impl From<Frame<'_>> for OwnedFrame {
    fn from(frame: Frame<'_>) -> Self {
        match frame {
            Frame::Message(message) => {
                let bytes = message.bytes();
                let mut head = Head::new();
                // What is wrong with it both views say.
                let _ = head.read(bytes);
                let read = View::new(bytes, &head);
                assert_eq!(format!("{message:?}"), format!("{read:?}"), "{}", bytes.escape_ascii());
                Self::Message(bytes.to_vec())
            }
            Frame::Ping => Self::Ping,
            Frame::Unframed { bytes, error } => Self::Unframed { bytes: bytes.to_vec(), error },
        }
    }
}

/// The frames of a stream that is read at once.
pub fn frames(stream: &[u8]) -> Vec<OwnedFrame> {
    frames_of_cuts(stream, [])
}

/// The frames of a stream that is read in the pieces between `cuts`, which ascend.
pub fn frames_of_cuts(stream: &[u8], cuts: impl IntoIterator<Item = usize>) -> Vec<OwnedFrame> {
    let mut framer = Framer::new(65_535);
    let mut head = Head::new();
    let mut frames = Vec::new();
    let mut start = 0;
    for end in cuts.into_iter().chain([stream.len()]) {
        framer.feed(&stream[start..end], &mut head, |frame| frames.push(frame.into()));
        start = end;
    }
    frames
}

/// Calls everything that reads `bytes`.
pub fn read_everything(bytes: &[u8]) {
    let mut head = Head::new();
    let read = head.read(bytes);
    if let Err(error) = read {
        assert!((400..600).contains(&error.status()), "{error}");
    }
    look_at_everything(&View::new(bytes, &head));
    home(bytes);
    frames(bytes);
    Values::new(bytes).for_each(drop);
    let _ = (Via::parse(bytes), NameAddr::parse(bytes), Uri::parse(bytes));
}

/// Calls every accessor.
pub fn look_at_everything(view: &View<'_>) {
    if let Err(error) = view.check() {
        assert!((400..600).contains(&error.status()), "{error}");
    }
    let _ = (view.is_request(), view.method(), view.method_bytes(), view.request_uri());
    let _ = (view.status(), view.reason(), view.body(), view.cseq(), view.call_id());
    let _ = (view.max_forwards(), view.has_offer(), view.retry_after());
    if let Some(via) = view.via() {
        assert!(!via.value.is_empty() && !via.host.is_empty());
        via.token();
    }
    for address in [view.from(), view.to(), view.contact()].into_iter().flatten() {
        let (before, after) = address.without_tag();
        assert!(before.len() + after.len() <= address.value.len());
        let _ = (address.param("tag"), address.param("expires"), address.token());
        if let Some(uri) = address.uri() {
            let _ = (uri.param("lr"), uri.ip(), uri.socket_addr(5060), uri.is_secure());
        }
    }
    for header in view.headers() {
        assert!(header.line.ends_with(b"\r\n"));
        assert!(!header.name_bytes.is_empty());
        assert!(view.count(header.name) > 0);
        assert!(view.first(header.name).is_some());
    }
    for route in view.routes().chain(view.record_routes()) {
        assert!(!route.is_empty());
        NameAddr::parse(route);
    }
}

/// Pieces of messages: put together at random they reach further into a reader than noise does.
const PIECES: &[&str] = &[
    "\r\n",
    "\r\n\r\n",
    "\r",
    "\n",
    "\r\n ",
    "\r\n\t",
    " ",
    "\t",
    ":",
    ";",
    ",",
    "=",
    "\"",
    "<",
    ">",
    "@",
    "?",
    "[",
    "]",
    "/",
    "\\",
    "\0",
    "INVITE ",
    "ACK ",
    "sip:a@b ",
    "sips:[2001:db8::1]:5061;lr?x=y ",
    "SIP/2.0",
    "SIP/2.0 200 OK\r\n",
    "SIP/2.0 503 \r\n",
    "SIP/3.0",
    "INVITE sip:bob@192.0.2.4 SIP/2.0\r\n",
    "Via: ",
    "v:",
    "V :",
    "SIP/2.0/TCP h:1",
    "SIP / 2.0 / TLS [::1]",
    ";branch=",
    "z9hG4bK",
    ";rport",
    ";rport=7",
    ";received=1.2.3.4",
    "hf00020000a41f9c1e5fd07b3a2e44",
    "HF00FF0000A41F9C1E5FD07B3A2E44",
    "To: ",
    "t: ",
    "TO\t: ",
    "From: ",
    "f: ",
    "<sip:a@b>",
    "\"A, B\" <sip:c@d;p>",
    ";tag=",
    ";TAG = ",
    "x",
    "Call-ID: ",
    "i: ",
    "CSeq: ",
    "1 INVITE",
    "4294967296 ACK",
    "2147483648 ACK",
    "0009\r\n INVITE",
    "Contact: ",
    "*",
    "Route: ",
    "Record-Route: ",
    "Max-Forwards: ",
    "Max\rForwards: ",
    "70",
    "300",
    "Content-Length: ",
    "l: ",
    "Content-Length: 0\r\n",
    "Content-Length: 5\r\n\r\nabcde",
    "Content-Length: 70000\r\n",
    "5",
    "-1",
    "Content-Type: application/sdp",
    "multipart/mixed",
    "Retry-After: ",
    "18000;duration=1 (x)",
    "\u{e9}",
    "Via: SIP/2.0/TCP h;branch=z9hG4bKhf00020000a41f9c1e5fd07b3a2e44\r\n",
    "To: <sip:a@b>;tag=hf00070000a41f9c1e5fd07b3a2e44\r\n",
    "From: <sip:a@b>;tag=1\r\n",
    "Call-ID: x\r\n",
    "CSeq: 1 INVITE\r\n",
    "CSeq: 2 BYE\r\n",
];

/// Anything from noise to almost good messages.
pub fn soup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        20 => prop::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        3 => Just(OPTIONS.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
        1 => (any::<u8>(), 0..9000usize).prop_map(|(byte, len)| vec![byte; len]),
    ];
    let pieces = prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat());
    let mutated = (any::<prop::sample::Index>(), prop::sample::select(PIECES), 0..9usize).prop_map(
        |(at, piece, removed)| {
            let mut bytes = OPTIONS.repeat(2).into_bytes();
            let start = at.index(bytes.len());
            let end = (start + removed).min(bytes.len());
            bytes.splice(start..end, piece.bytes());
            bytes
        },
    );
    prop_oneof![4 => pieces, 4 => mutated, 1 => prop::collection::vec(any::<u8>(), 0..300)]
}
