//! The seed corpora: small inputs from which a fuzzer reaches far at once.
//!
//! They are made here from the project's own messages, and checked in so that cargo-fuzz finds
//! them; `tests/corpus.rs` compares, and writes them anew when it is told to.

use std::fmt::Write;

/// Targets, and name and bytes of their seeds.
pub fn all() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (name, message) in messages() {
        // The longest limit, pieces of 7, 1, 0 and 200 bytes.
        let stream = [&[0, 7, 1, 0, 200], message.as_bytes()].concat();
        seeds.push(("framing", name.to_owned(), stream));
        seeds.push(("reader", name.to_owned(), message.into_bytes()));
    }
    let pings = [&[0u8, 1, 2, 3, 4], &b"\r\n\r\n\r\n\r\n"[..], request("").as_bytes()].concat();
    seeds.push(("framing", "pings".to_owned(), pings));
    let two = [&[0u8, 100, 0, 255, 2], request("").repeat(2).as_bytes()].concat();
    seeds.push(("framing", "two".to_owned(), two));
    for (name, stream) in proxy_headers() {
        seeds.push(("proxy_protocol", name.to_owned(), [&[16, 1, 12, 255], &stream[..]].concat()));
    }
    for &(name, program) in PROGRAMS {
        seeds.push(("endpoint", name.to_owned(), program.concat()));
    }
    seeds
}

/// An OPTIONS with further headers.
fn request(headers: &str) -> String {
    format!(
        "OPTIONS sip:bob@example.com SIP/2.0\r\n\
         Via: SIP/2.0/TCP 192.0.2.1:5060;branch=z9hG4bKseed\r\n\
         Max-Forwards: 70\r\nFrom: <sip:alice@example.com>;tag=ft\r\n\
         To: <sip:bob@example.com>\r\nCall-ID: seed@192.0.2.1\r\nCSeq: 1 OPTIONS\r\n\
         {headers}Content-Length: 0\r\n\r\n"
    )
}

fn messages() -> Vec<(&'static str, String)> {
    let sdp = "v=0\r\no=- 1 1 IN IP6 2001:db8::1\r\ns=-\r\nc=IN IP6 2001:db8::1\r\nt=0 0\r\n";
    let mut many = String::new();
    for number in 0..20 {
        let _ = write!(many, "X-Header-{number}: value, value;p=\"a,b\"\r\n");
    }
    let invite = format!(
        "INVITE sips:[2001:db8::10]:5061;lr?Subject=x SIP/2.0\r\n\
         v: SIP / 2.0 / TLS [2001:db8::9:1]:5061;received=2001:db8::9:255;rport;branch=z9hG4bKx,\r\n\
         \tSIP/2.0/UDP h:1 ;branch=z9hG4bKy\r\n\
         f: \"A, \\\"B\\\"\" <sip:a@b;p>;tag=1\r\nt: sip:c@d;tag=hf00000000000041f9c1e5fd07b3a2e44\r\n\
         i: x\r\nCSeq: 0009\r\n INVITE\r\nm: *\r\nRoute: <sip:p1;lr>,<sip:p2;lr>\r\n\
         Require: 100rel, timer\r\nSession-Expires: 90;refresher=uac\r\n\
         c: application/sdp\r\nl: {}\r\n\r\n{sdp}",
        sdp.len()
    );
    vec![
        ("options", request("")),
        ("compact", invite),
        ("many", request(&many)),
        (
            "folds",
            request("Subject: a\r\n b\r\n\tc\r\nX:\r\nContact: <sip:a@b>, \"x\" <sip:c>\r\n"),
        ),
        ("two_lengths", request("Content-Length: 5\r\n")),
        ("bare_line_end", request("X: a\nb\r\n")),
        ("response", response("200 OK", "Retry-After: 5 (x);duration=1\r\n")),
        ("no_reason", response("503 ", "")),
        ("bad_status", response("799 x", "")),
        ("version", request("").replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia")),
        ("no_via", request("").replace("Via:", "X:")),
        ("cut", request("")[..120].to_owned()),
    ]
}

fn response(status: &str, headers: &str) -> String {
    format!(
        "SIP/2.0 {status}\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKhf00000000000041f9c1e5fd07b3a2e44\r\n\
         From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\
         {headers}Content-Length: 0\r\n\r\n"
    )
}

/// Beginnings of connections of load balancers.
fn proxy_headers() -> Vec<(&'static str, Vec<u8>)> {
    let header = |command, family, block: &[u8]| {
        let fixed = [command, family, 0, block.len() as u8];
        [b"\r\n\r\n\0\r\nQUIT\n", &fixed[..], block, b"OPTIONS"].concat()
    };
    let v4 = b"\xc0\0\x02\x01\xc6\x33\x64\x02\x9c\x40\x13\xc4";
    let v6 = [&b"\x20\x01\x0d\xb8"[..], &[7; 28], b"\x9c\x40\x13\xc4"].concat();
    // ALPN, a name, what is to be ignored, and TLS with a version.
    let tlvs = b"\x01\0\x03sip\x02\0\x04a.bc\x04\0\0\x20\0\x0f\x01\0\0\0\0\x21\0\x07TLSv1.3";
    vec![
        ("v4", header(0x21, 0x11, v4)),
        ("v6", header(0x21, 0x21, &v6)),
        ("tlvs", header(0x21, 0x11, &[&v4[..], tlvs].concat())),
        ("checksum", header(0x21, 0x11, &[&v4[..], b"\x03\0\x04CRCC"].concat())),
        ("local", header(0x20, 0x00, b"")),
        ("unix", header(0x21, 0x31, &[b'/'; 216])),
        ("text", b"PROXY TCP4 192.0.2.1 198.51.100.2 40000 5060\r\n".to_vec()),
    ]
}

/// 7002 connects and calls 7001, whose connection opens, which rings and answers; 7002 acknowledges.
const CALL: &[u8] = &[
    1, 0, // 7002 connects
    2, 0, 0, 0, 4, 0, // INVITE to 7001, with a body
    10, 0, // the connection opens
    6, 0, 0, 2, 1, 0, 0, // 180
    6, 0, 0, 0, 1, 4, 0, // 200
    9, 0, 0, 2, 3, 0, // ACK
];
/// The caller's re-INVITE, in the dialog of what was sent last.
const REINVITE: &[u8] = &[4, 0, 0, 0, 2, 4, 0];
const ANSWER: &[u8] = &[6, 0, 0, 0, 1, 4, 0];
/// 503 with Retry-After.
const BUSY: &[u8] = &[6, 0, 0, 5, 1, 32, 0];
const ACK: &[u8] = &[9, 0, 0, 2, 3, 0];
const CANCEL: &[u8] = &[9, 0, 0, 1, 3, 0];
const BYE: &[u8] = &[4, 0, 0, 1, 2, 3, 0];
const FAIL_FIRST: &[u8] = &[11, 0, 0];
const FAIL_SECOND: &[u8] = &[11, 1, 0];
const OPEN: &[u8] = &[10, 0];
const REFUSE: &[u8] = &[10, 3];
const HALF_SECOND: &[u8] = &[0, 4];
const LONG: &[u8] = &[0, 11];
const RELEASE: &[u8] = &[13, 0, 0];
const HOLD: &[u8] = &[13, 0, 4];
const DRAIN: &[u8] = &[14, 7, 4];
const OPTIONS: &[u8] = &[12, 2];

/// Programs: the options, then what happens.
const PROGRAMS: &[(&str, &[&[u8]])] = &[
    ("call", &[&[0], CALL, BYE]),
    ("reinvite", &[&[0], CALL, REINVITE, ANSWER, ACK, BYE]),
    (
        "recovered",
        &[&[0], CALL, REINVITE, FAIL_SECOND, REFUSE, HALF_SECOND, OPEN, ANSWER, ACK, BYE],
    ),
    ("at_once", &[&[0], CALL, REINVITE, FAIL_SECOND, OPEN, ANSWER, ACK]),
    ("given_up", &[&[4], CALL, REINVITE, FAIL_SECOND, REFUSE, HALF_SECOND, REFUSE, LONG]),
    ("next_target", &[&[8], CALL, REINVITE, BUSY, OPEN, ANSWER, ACK]),
    ("cancelled", &[&[0], CALL, REINVITE, CANCEL, ANSWER, LONG]),
    ("caller_lost", &[&[0], CALL, REINVITE, FAIL_FIRST, ANSWER, LONG]),
    ("switched_off", &[&[1], CALL, REINVITE, FAIL_SECOND, REFUSE, LONG]),
    ("held", &[&[0], CALL, HOLD, ANSWER, RELEASE]),
    ("drained", &[&[0], CALL, DRAIN, LONG]),
    ("changed", &[&[0], CALL, OPTIONS, REINVITE, FAIL_SECOND, OPTIONS, REFUSE, HALF_SECOND, OPEN]),
];
