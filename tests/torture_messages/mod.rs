//! The project's own torture messages: IPv6 after the cases of RFC 5118, and requests that must be
//! refused. What is expected of each, on the wire, is in `docs/TORTURE.md`.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses its part")]

/// A message: its name, what the reader alone makes of it (0: it is read; else the status with which
/// it is refused), and its bytes.
pub struct Own {
    pub name: &'static str,
    pub read: u16,
    pub bytes: Vec<u8>,
}

/// An OPTIONS in which `from` is `to`.
fn options(name: &'static str, read: u16, from: &str, to: &str) -> Own {
    changed(name, read, OPTIONS, from, to)
}

/// An INVITE in which `from` is `to`.
fn invite(name: &'static str, read: u16, from: &str, to: &str) -> Own {
    changed(name, read, INVITE, from, to)
}

fn changed(name: &'static str, read: u16, text: &str, from: &str, to: &str) -> Own {
    assert!(text.contains(from), "{name}");
    let text = text.replace(from, to).replace("own@", &format!("{name}@"));
    let text = text.replace("z9hG4bKown", &format!("z9hG4bK{name}"));
    Own { name, read, bytes: text.into_bytes() }
}

const OPTIONS: &str = "OPTIONS sip:holdfast@127.0.0.1 SIP/2.0\r\n\
    Via: SIP/2.0/TCP 127.0.0.1:5070;branch=z9hG4bKown\r\n\
    Max-Forwards: 70\r\nFrom: <sip:7001@127.0.0.1>;tag=f\r\n\
    To: <sip:holdfast@127.0.0.1>\r\nCall-ID: own@127.0.0.1\r\nCSeq: 1 OPTIONS\r\n\
    Contact: <sip:7001@127.0.0.1:5070>\r\nContent-Length: 0\r\n\r\n";

/// To a number that nobody has: 404 says that all of it was understood.
const INVITE: &str = "INVITE sip:nobody@127.0.0.1 SIP/2.0\r\n\
    Via: SIP/2.0/TCP 127.0.0.1:5070;branch=z9hG4bKown\r\n\
    Max-Forwards: 70\r\nFrom: <sip:7001@127.0.0.1>;tag=f\r\n\
    To: <sip:nobody@127.0.0.1>\r\nCall-ID: own@127.0.0.1\r\nCSeq: 1 INVITE\r\n\
    Contact: <sip:7001@127.0.0.1:5070>\r\nContent-Length: 0\r\n\r\n";

const RESPONSE: &str = "SIP/2.0 200 OK\r\n\
    Via: SIP/2.0/TCP 127.0.0.1:5070;branch=z9hG4bKown\r\nFrom: <sip:a@127.0.0.1>;tag=f\r\n\
    To: <sip:b@127.0.0.1>;tag=t\r\nCall-ID: own@127.0.0.1\r\nCSeq: 1 INVITE\r\n\
    Content-Length: 0\r\n\r\n";

const VIA: &str = "TCP 127.0.0.1:5070";
const CONTACT: &str = "<sip:7001@127.0.0.1:5070>";
const URI: &str = "sip:holdfast@127.0.0.1 ";
const END: &str = "Content-Length: 0\r\n";
const SDP: &str = "Content-Type: application/sdp\r\nContent-Length: 113\r\n\r\nv=0\r\n\
    o=- 1 1 IN IP6 2001:db8::20\r\ns=-\r\nc=IN IP6 2001:db8::20\r\nt=0 0\r\n\
    m=audio 6000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n";

/// All of them.
pub fn own() -> Vec<Own> {
    [ipv6(), uris_and_methods(), headers(), framing()].into_iter().flatten().collect()
}

fn ipv6() -> Vec<Own> {
    let sdp_length = SDP.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
    let sdp = SDP.replace("113", &sdp_length.to_string());
    vec![
        options("v6-uri", 0, URI, "sip:[2001:db8::10] "),
        options("v6-uri-bare", 400, URI, "sip:2001:db8::10 "),
        options("v6-uri-port-inside", 0, URI, "sip:[2001:db8::10:5070] "),
        options("v6-uri-port", 0, URI, "sip:[2001:db8::10]:5070 "),
        options("v6-uri-unclosed", 400, URI, "sip:[2001:db8::10 "),
        options("v6-uri-empty", 400, URI, "sip:[] "),
        options("v6-uri-two-gaps", 0, URI, "sip:[2001::db8::10] "),
        options("v6-uri-scope", 400, URI, "sip:[fe80::1%25eth0] "),
        options("v6-uri-mapped", 0, URI, "sip:[::ffff:192.0.2.10] "),
        options("v6-via", 0, VIA, "TCP [2001:db8::9:1]:5070"),
        options("v6-via-bare", 400, VIA, "TCP 2001:db8::9:1"),
        options("v6-via-received", 0, VIA, "TCP [2001:db8::9:1];received=[2001:db8::9:255]"),
        options("v6-via-received-bare", 0, VIA, "TCP [2001:db8::9:1];received=2001:db8::9:255"),
        options("v6-via-maddr", 0, VIA, "TCP [2001:db8::9:1];maddr=[ff02::1]"),
        options(
            "v6-via-mixed",
            0,
            VIA,
            "TCP [2001:db8::9:1]:5070;branch=z9hG4bKm, SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKn, \
             SIP/2.0/TCP [2001:db8::1:1]:5060",
        ),
        options("v6-via-mapped", 0, VIA, "TCP [::ffff:192.0.2.10]:5070"),
        options("v6-via-three-colons", 0, VIA, "TCP [2001:db8:::192.0.2.1]"),
        invite("v6-contact", 0, CONTACT, "<sip:7001@[2001:db8::9:1]:5070>"),
        invite("v6-contact-mapped", 0, CONTACT, "<sip:7001@[::ffff:192.0.2.10]>"),
        invite("v6-sdp", 0, "Content-Length: 0\r\n\r\n", &sdp),
        options("v6-route", 0, END, "Route: <sip:[2001:db8::1];lr>\r\nContent-Length: 0\r\n"),
    ]
}

fn uris_and_methods() -> Vec<Own> {
    vec![
        options("scheme-unknown", 0, URI, "soap.beep://192.0.2.103:3002 "),
        invite("scheme-tel", 0, "sip:nobody@127.0.0.1 ", "tel:+12025550100 "),
        options("uri-none", 400, URI, ""),
        options("version-3", 505, " SIP/2.0\r\nVia", " SIP/3.0\r\nVia"),
        options("method-unknown", 0, "OPTIONS", "FROBNICATE"),
        options("method-lower-case", 0, "OPTIONS", "options"),
        options("method-register", 0, "OPTIONS", "REGISTER"),
        options("method-subscribe", 0, "OPTIONS", "SUBSCRIBE"),
        options("method-publish", 0, "OPTIONS", "PUBLISH"),
        options("method-mismatch", 400, "1 OPTIONS", "1 INVITE"),
        options("bye-no-dialog", 0, "OPTIONS", "BYE")
            .with("To: <sip:holdfast@127.0.0.1>", ";tag=x"),
        options("bye-no-tag", 0, "OPTIONS", "BYE"),
        options("cancel-no-invite", 0, "OPTIONS", "CANCEL"),
        options("ack-no-invite", 0, "OPTIONS", "ACK"),
        invite("invite-no-dialog", 0, "To: <sip:nobody@127.0.0.1>", "To: <sip:n@127.0.0.1>;tag=x"),
    ]
}

impl Own {
    /// The same to the number of a device.
    fn for_7001(mut self) -> Self {
        let text =
            String::from_utf8_lossy(&self.bytes).replace("INVITE sip:nobody", "INVITE sip:7001");
        self.bytes = text.into_bytes();
        self
    }

    /// The same with `more` behind `after`.
    fn with(mut self, after: &str, more: &str) -> Self {
        let text = String::from_utf8_lossy(&self.bytes).replace(after, &format!("{after}{more}"));
        self.bytes = text.into_bytes();
        self
    }
}

fn headers() -> Vec<Own> {
    let more = |name: &str| format!("{name}\r\n{END}");
    let forwards = "Max-Forwards: 70";
    let from = "From: <sip:7001@127.0.0.1>;tag=f\r\n";
    vec![
        invite("require-unknown", 0, END, &more("Require: 100rel, no-such-option")),
        options("require-unknown-options", 0, END, &more("Require: no-such-option")),
        invite("require-known", 0, END, &more("Require: 100rel, timer")),
        options("proxy-require-unknown", 0, END, &more("Proxy-Require: no-such-option")),
        invite("max-forwards-0", 0, forwards, "Max-Forwards: 0").for_7001(),
        options("max-forwards-0-options", 0, forwards, "Max-Forwards: 0"),
        options("max-forwards-256", 400, forwards, "Max-Forwards: 256"),
        options("max-forwards-none", 0, "Max-Forwards: 70\r\n", ""),
        options("from-none", 400, from, ""),
        options("from-twice", 400, from, &from.repeat(2)),
        options("from-unclosed", 400, "From: <sip:7001@127.0.0.1>", "From: <sip:7001@127.0.0.1"),
        options("call-id-twice", 400, "Call-ID:", "Call-ID: one\r\nCall-ID:"),
        options("cseq-too-large", 400, "CSeq: 1 ", "CSeq: 2147483648 "),
        options("via-none", 400, "Via:", "X-Via:"),
        options("via-malformed", 400, VIA, "TCP"),
        options("colon-none", 400, END, &more("This is no header")),
        invite("content-type-unknown", 0, END, &more("Content-Type: application/x-unknown")),
        invite("contact-none", 0, "Contact: <sip:7001@127.0.0.1:5070>\r\n", "").for_7001(),
        invite("contact-malformed", 0, CONTACT, "<sip:7001@127.0.0.1:x>").for_7001(),
    ]
}

fn framing() -> Vec<Own> {
    let long = "x".repeat(5000);
    let header = format!("X-Long: {}\r\n{END}", "x".repeat(9000));
    vec![
        options("length-none", 0, END, ""),
        options("length-twice", 400, END, "Content-Length: 0\r\nContent-Length: 0\r\n"),
        options("length-negative", 400, END, "Content-Length: -1\r\n"),
        options("length-huge", 513, END, "Content-Length: 4294967296\r\n"),
        options("length-cut", 400, END, "Content-Length: 9999\r\n"),
        options("bare-lf", 400, "Max-Forwards: 70\r\n", "Max-Forwards: 70\n"),
        options("uri-long", 414, URI, &format!("sip:{long}@127.0.0.1 ")),
        options("header-long", 513, END, &header),
        changed("response-stray", 0, RESPONSE, "200 OK", "200 OK"),
        changed("response-799", 400, RESPONSE, "200 OK", "799 What"),
    ]
}
