//! What the peers say: the messages of a carrier's border element, with an SDP offer of 164 bytes.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The server, or the proxy.
pub(crate) const SERVER: &str = "10.0.0.100:5060";
/// The caller's device.
pub(crate) const CALLER: &str = "10.0.0.1:5060";

/// The offer of a re-INVITE.
macro_rules! sdp {
    () => {
        "v=0\r\n\
        o=- 3890123456 3890123457 IN IP4 203.0.113.17\r\n\
        s=-\r\n\
        c=IN IP4 203.0.113.17\r\n\
        t=0 0\r\n\
        m=audio 31004 RTP/AVP 8 101\r\n\
        a=rtpmap:101 telephone-event/16000\r\n\
        a=sendonly\r\n"
    };
}

/// A re-INVITE of 692 bytes, as a B2BUA would send it on.
pub(crate) const REINVITE: &str = concat!(
    "INVITE sip:+13125550100@203.0.113.17:5060;transport=tcp SIP/2.0\r\n\
    Via: SIP/2.0/TCP 198.51.100.20:5060;branch=z9hG4bKhf00020000a41f9c1e5fd07b3a2e44;rport\r\n\
    Max-Forwards: 70\r\n\
    From: <sip:+12125550142@edge1.example.net>;tag=hf00020000a41f9c1e5fd07b3a2e44\r\n\
    To: \"Bob Example\" <sip:+13125550100@edge1.example.net>;tag=4711aa90bc\r\n\
    Call-ID: 77a1c0e2-9d41-4c54@198.51.100.20\r\n\
    CSeq: 2 INVITE\r\n\
    Contact: <sip:b2b@198.51.100.20:5060>\r\n\
    Supported: timer\r\n\
    Session-Expires: 1800;refresher=uas\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 164\r\n\
    \r\n",
    sdp!()
);

/// An INVITE of 1180 bytes, as a carrier's border element sends it.
pub(crate) const INVITE: &str = "INVITE sip:+12125550142@edge1.carrier.example.net:5060;user=phone SIP/2.0\r\n\
    Via: SIP/2.0/TCP 198.51.100.20:5060;branch=z9hG4bK61aa.9f9a1c22e1f0b7.0;rport\r\n\
    Via: SIP/2.0/TCP 203.0.113.17:5060;received=203.0.113.17;branch=z9hG4bKas71h2kd;rport=5060\r\n\
    Record-Route: <sip:198.51.100.20:5060;lr;ftag=81fx3ced76>\r\n\
    Max-Forwards: 69\r\n\
    From: \"Bob Example\" <sip:+13125550100@edge1.carrier.example.net;user=phone>;tag=81fx3ced76\r\n\
    To: <sip:+12125550142@edge1.carrier.example.net;user=phone>\r\n\
    Call-ID: 77a1c0e2-9d41-4c54-b5b4-0e8f1f3c7a10@ua17.example.com\r\n\
    CSeq: 1 INVITE\r\n\
    Contact: <sip:+13125550100@203.0.113.17:5060;transport=tcp>\r\n\
    Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, PRACK\r\n\
    Supported: timer, 100rel, replaces\r\n\
    Session-Expires: 1800;refresher=uac\r\n\
    Min-SE: 90\r\n\
    User-Agent: Example-Edge/4.2.1\r\n\
    P-Asserted-Identity: <sip:+13125550100@carrier.example.net>\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 268\r\n\
    \r\n\
    v=0\r\n\
    o=- 3890123456 3890123456 IN IP4 203.0.113.17\r\n\
    s=-\r\n\
    c=IN IP4 203.0.113.17\r\n\
    t=0 0\r\n\
    m=audio 31004 RTP/AVP 8 0 101\r\n\
    a=rtpmap:8 PCMA/8000\r\n\
    a=rtpmap:0 PCMU/8000\r\n\
    a=rtpmap:101 telephone-event/8000\r\n\
    a=fmtp:101 0-16\r\n\
    a=ptime:20\r\n\
    a=maxptime:120\r\n\
    a=rtcp:31005\r\n\
    a=sendrecv\r\n";

const SDP: &str = sdp!();

/// The number of the callee's device `n`.
pub(crate) fn number(n: usize) -> String {
    format!("+1312555{n:04}")
}

/// Where the callee's device `n` listens.
pub(crate) fn callee(n: usize) -> SocketAddr {
    let [high, low] = u16::try_from(n).expect("a device").to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, high, low)), 5060)
}

/// The value of a header, the first if there are several; empty without.
pub(crate) fn header<'a>(text: &'a str, name: &'a str) -> &'a str {
    headers(text, name).next().unwrap_or_default()
}

fn headers<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.split("\r\n").filter_map(move |line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// A request of the caller.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) uri: &'a str,
    /// A Route header with the end of its line, or nothing.
    pub(crate) route: &'a str,
    /// Which call; Call-ID, tag and branch have it.
    pub(crate) call: usize,
    /// The value of To.
    pub(crate) to: &'a str,
    pub(crate) cseq: u32,
}

impl Request<'_> {
    pub(crate) fn text(&self) -> String {
        let Self { method, uri, route, call, to, cseq } = self;
        let mut text = format!(
            "{method} {uri} SIP/2.0\r\n\
             Via: SIP/2.0/TCP {CALLER};branch=z9hG4bK61aa.9f9a1c{call:07}.{cseq:05}{method};rport\r\n\
             {route}Max-Forwards: 70\r\n\
             From: <sip:+12125550142@edge1.example.net>;tag=81fx{call:07}\r\n\
             To: {to}\r\n\
             Call-ID: 77a1c0e2-9d41-4c54-{call:07}@10.0.0.1\r\n\
             CSeq: {cseq} {method}\r\n\
             Contact: <sip:+12125550142@{CALLER};transport=tcp>\r\n"
        );
        if *method == "INVITE" {
            session(&mut text, "uac");
        }
        body(text, *method == "INVITE")
    }
}

/// The callee's response to a request.
pub(crate) fn response(request: &str, status: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for name in ["Via", "Record-Route"] {
        for value in headers(request, name) {
            let _ = write!(text, "{name}: {value}\r\n");
        }
    }
    let (to, cseq) = (header(request, "To"), header(request, "CSeq"));
    let tag = if to.contains("tag=") { "" } else { ";tag=4711aa90bc" };
    let uri = request.split(' ').nth(1).unwrap_or_default();
    let _ = write!(
        text,
        "From: {}\r\nTo: {to}{tag}\r\nCall-ID: {}\r\nCSeq: {cseq}\r\nContact: <{uri}>\r\n",
        header(request, "From"),
        header(request, "Call-ID"),
    );
    let offer = status.starts_with('2') && cseq.ends_with("INVITE");
    if offer {
        session(&mut text, "uac");
    }
    body(text, offer)
}

fn session(text: &mut String, refresher: &str) {
    let _ = write!(text, "Supported: timer\r\nSession-Expires: 1800;refresher={refresher}\r\n");
}

fn body(mut text: String, offer: bool) -> String {
    let (kind, sdp) = if offer { ("Content-Type: application/sdp\r\n", SDP) } else { ("", "") };
    let _ = write!(text, "{kind}Content-Length: {}\r\n\r\n{sdp}", sdp.len());
    text
}
