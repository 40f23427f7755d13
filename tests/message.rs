//! Reading and writing messages: what a view says of them, and what is refused.

use holdfast::key::ShardId;
use holdfast::sip::Token;
use holdfast::sip::message::*;

const REINVITE: &str = "INVITE sip:bob@192.0.2.4:5060;transport=tcp SIP/2.0\r\n\
    Via: SIP/2.0/TCP 198.51.100.20:5060;branch=z9hG4bK55aa.77cc01;rport\r\n\
    Max-Forwards: 70\r\n\
    From: <sip:+12125550142@sbc1.example.net>;tag=8321234356\r\n\
    To: \"Alice Example\" <sip:+13125550100@sbc1.example.net;user=phone>;tag=9fxced76sl;x=1\r\n\
    Call-ID: 3848276298220188511@ua17.example.com\r\n\
    CSeq: 2 INVITE\r\n\
    Contact: <sip:b2b@198.51.100.20:5060>, <sip:other@198.51.100.20>\r\n\
    Route: <sip:198.51.100.21:5060;lr>, \"a, b\" <sip:198.51.100.22;lr>\r\n\
    Route: <sip:198.51.100.23;lr>\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 5\r\n\
    \r\n\
    v=0\r\n";

/// Reads and checks `bytes`.
fn check(bytes: &[u8]) -> Result<(), HeadError> {
    let mut head = Head::new();
    head.read(bytes)?;
    View::new(bytes, &head).check()
}

/// The message with the line that begins with `from` replaced by `to`; no line when `to` is empty.
fn with_line(message: &str, from: &str, to: &str) -> String {
    let mut lines: Vec<String> = message.split_inclusive("\r\n").map(str::to_owned).collect();
    let at = lines.iter().position(|line| line.starts_with(from)).expect(from);
    lines[at] = if to.is_empty() { String::new() } else { format!("{to}\r\n") };
    lines.concat()
}

#[test]
fn a_view_finds_the_parts_of_a_request() {
    let mut head = Head::new();
    head.read(REINVITE.as_bytes()).unwrap();
    let view = View::new(REINVITE.as_bytes(), &head);
    assert_eq!(view.check(), Ok(()));
    assert!(view.is_request());
    assert_eq!(view.method(), Method::Invite);
    assert_eq!(view.method_bytes(), b"INVITE");
    assert_eq!(view.request_uri(), b"sip:bob@192.0.2.4:5060;transport=tcp");
    assert_eq!((view.status(), view.reason()), (0, &b""[..]));
    let via = view.via().unwrap();
    assert_eq!(via.transport, b"TCP");
    assert_eq!((via.host, via.port), (&b"198.51.100.20"[..], Some(5060)));
    assert_eq!(via.branch, Some(&b"z9hG4bK55aa.77cc01"[..]));
    assert_eq!((via.rport, via.received), (Some(None), None));
    let to = view.to().unwrap();
    assert_eq!(to.display, b"\"Alice Example\"");
    assert_eq!(to.uri, b"sip:+13125550100@sbc1.example.net;user=phone");
    assert_eq!(to.uri().unwrap().user, Some(&b"+13125550100"[..]));
    assert_eq!(to.tag, Some(&b"9fxced76sl"[..]));
    assert_eq!(to.param("X"), Some(Some(&b"1"[..])));
    assert_eq!(
        to.without_tag(),
        (&b"\"Alice Example\" <sip:+13125550100@sbc1.example.net;user=phone>"[..], &b";x=1"[..])
    );
    assert_eq!(view.from().unwrap().tag, Some(&b"8321234356"[..]));
    assert_eq!(view.contact().unwrap().value, b"<sip:b2b@198.51.100.20:5060>");
    assert_eq!(view.cseq(), Some((2, &b"INVITE"[..])));
    assert_eq!(view.call_id(), Some(&b"3848276298220188511@ua17.example.com"[..]));
    assert_eq!(view.max_forwards(), Some(70));
    let routes: Vec<_> = view.routes().collect();
    assert_eq!(
        routes,
        [
            &b"<sip:198.51.100.21:5060;lr>"[..],
            b"\"a, b\" <sip:198.51.100.22;lr>",
            b"<sip:198.51.100.23;lr>",
        ]
    );
    assert_eq!(view.record_routes().count(), 0);
    assert_eq!(view.count(Name::Route), 2);
    assert!(view.has_offer());
    assert_eq!(view.body(), b"v=0\r\n");
    assert_eq!(home(REINVITE.as_bytes()), None);
    let lines: Vec<u8> = view.headers().flat_map(|header| header.line).copied().collect();
    let head_len = REINVITE.len() - "\r\nv=0\r\n".len();
    assert_eq!(lines, &REINVITE.as_bytes()[REINVITE.find("Via").unwrap()..head_len]);
}

#[test]
fn a_view_finds_the_parts_of_a_response() {
    let token = Token { shard: ShardId(3), index: 7, cookie: 9 };
    let text = format!(
        "SIP/2.0 503 Service Unavailable\r\n\
        v: SIP / 2.0 /\r\n TCP [2001:db8::9] : 5060 ; received=2001:db8::7 ;\r\n branch = z9hG4bK{token}, SIP/2.0/UDP h\r\n\
        v: SIP/2.0/TCP other\r\n\
        f: sip:a@h;tag=1\r\n\
        t: <sip:b@h>\r\n ;\r\n\ttag = {token}\r\n\
        i: x\r\n\
        CSeq: 0009\r\n\t INVITE\r\n\
        Retry-After: 30 (back soon);duration=5\r\n\
        l: 0\r\n\r\n"
    );
    let mut head = Head::new();
    head.read(text.as_bytes()).unwrap();
    let view = View::new(text.as_bytes(), &head);
    assert_eq!(view.check(), Ok(()));
    assert!(!view.is_request());
    assert_eq!((view.status(), view.reason()), (503, &b"Service Unavailable"[..]));
    assert_eq!(view.method(), Method::Invite);
    assert_eq!(view.request_uri(), b"");
    let via = view.via().unwrap();
    assert!(via.value.ends_with(token.to_string().as_bytes()));
    assert_eq!((via.host, via.port), (&b"[2001:db8::9]"[..], Some(5060)));
    assert_eq!(via.received, Some(&b"2001:db8::7"[..]));
    assert_eq!(via.token(), Some(token));
    assert_eq!(view.to().unwrap().token(), Some(token));
    assert_eq!(view.to().unwrap().without_tag(), (&b"<sip:b@h>"[..], &b""[..]));
    assert_eq!(view.from().unwrap().uri, b"sip:a@h");
    assert_eq!(view.cseq(), Some((9, &b"INVITE"[..])));
    assert_eq!(view.retry_after(), Some(30));
    assert!(!view.has_offer());
    assert_eq!(home(text.as_bytes()), Some(ShardId(3)));
}

#[test]
fn each_mandatory_header_is_missed_by_name() {
    for (line, name) in [
        ("Via", Name::Via),
        ("From", Name::From),
        ("To", Name::To),
        ("Call-ID", Name::CallId),
        ("CSeq", Name::CSeq),
    ] {
        let message = with_line(REINVITE, line, "");
        assert_eq!(check(message.as_bytes()), Err(HeadError::Missing(name)));
    }
}
