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

/// `REINVITE` with the line that begins with `from` replaced.
fn replaced(from: &str, to: &str) -> Result<(), HeadError> {
    check(with_line(REINVITE, from, to).as_bytes())
}

#[test]
fn headers_that_cannot_be_read_are_refused_by_name() {
    for (line, name) in [
        ("Via: ", Name::Via),
        ("Via: SIP/2.0/TCP", Name::Via),
        ("Via: SIP/2.0/TCP ;branch=x", Name::Via),
        ("Via: SIP/7.0/TCP h;branch=x", Name::Via),
        ("Via: HTTP/2.0/TCP h;branch=x", Name::Via),
        ("Via: SIP/2.0/T(P h;branch=x", Name::Via),
        ("Via: SIP/2.0/TCP h:;branch=x", Name::Via),
        ("Via: SIP/2.0/TCP h:65536;branch=x", Name::Via),
        ("Via: SIP/2.0/TCP [::1;branch=x", Name::Via),
        ("Via: SIP/2.0/TCP h;;branch=x", Name::Via),
        ("Via: SIP/2.0/TCP h;branch", Name::Via),
        ("Via: SIP/2.0/TCP h;branch=", Name::Via),
        ("Via: SIP/2.0/TCP h;branch=x;branch=y", Name::Via),
        ("Via: SIP/2.0/TCP h;x=\"", Name::Via),
        ("From: ", Name::From),
        ("From: alice", Name::From),
        ("From: <sip:a@b>;tag", Name::From),
        ("From: <sip:a@b>;tag=", Name::From),
        ("From: <sip:a@b>;tag=1;TAG=2", Name::From),
        ("From: <sip:a@b>;tag=\"1\"", Name::From),
        ("From: <sip:a@b>x;tag=1", Name::From),
        ("From: <sip:a@b>;tag=1, <sip:c@d>", Name::From),
        ("To: <sip:a@b", Name::To),
        ("To: < sip:a@b>", Name::To),
        ("To: <sip:a b@c>", Name::To),
        ("To: \"A <sip:a@b>", Name::To),
        ("To: \"A\" sip:a@b", Name::To),
        ("To: A, B <sip:a@b>", Name::To),
        ("To: sip:a@b?x=y", Name::To),
        ("To: <>", Name::To),
        ("Call-ID: ", Name::CallId),
        ("Call-ID: a b", Name::CallId),
        ("Call-ID: a\r\n b", Name::CallId),
        ("CSeq: INVITE", Name::CSeq),
        ("CSeq: 1", Name::CSeq),
        ("CSeq: 1INVITE", Name::CSeq),
        ("CSeq: -1 INVITE", Name::CSeq),
        ("CSeq: 1 INVITE x", Name::CSeq),
        ("CSeq: 2147483648 INVITE", Name::CSeq),
        ("CSeq: 36893488147419103233 INVITE", Name::CSeq),
        ("Max-Forwards: 256", Name::MaxForwards),
        ("Max-Forwards: -1", Name::MaxForwards),
        ("Max-Forwards: ", Name::MaxForwards),
    ] {
        let (from, _) = line.split_once(':').unwrap();
        let result = replaced(from, line);
        assert_eq!(result, Err(HeadError::Value(name)), "{line}");
        assert_eq!(result.unwrap_err().status(), 400);
    }
}

#[test]
fn what_deployed_stacks_send_is_read() {
    for line in [
        "Via: SIP/2.0/TLS host_1.example.com;branch=z9hG4bK-a.b~c=/@;alias;rport=;received=2001:db8::9",
        "Via: sip/2.0/tcp h",
        "v : SIP / 2.0 / TCP [2001:db8::1] : 5061 ;branch=x , SIP/2.0/UDP other;;",
        "From: A. Bell <sip:a@b>;tag=a=b==",
        "From: sip:a@b;tag=1",
        "From: \"\\\" <x>, y\"<sip:a@b;p=q?x=y>;tag=1;x=\"a;tag=2\"",
        "From: <tel:+1-212;phone-context=x>;tag=1",
        "From: \"\" <sip:anonymous@anonymous.invalid>;tag=1;",
        "To: <sip:a@b>",
        "CSeq: 2147483647\tINVITE",
        "CSeq: 00000000000000000000000000000000002 INVITE",
        "Max-Forwards: 0",
        "Call-ID: (anything)<at>:all",
        "Supported:",
        "Subject: \u{ff}\0\u{7f}",
    ] {
        let from = match line.split_once(':').unwrap().0 {
            "v " => "Via",
            "Supported" | "Subject" => "Content-Type",
            name => name,
        };
        assert_eq!(replaced(from, line), Ok(()), "{line}");
    }
    assert_eq!(replaced("Max-Forwards", ""), Ok(()));
}

#[test]
fn headers_that_may_be_there_once_are_there_once() {
    for (line, name) in [
        ("f: <sip:a@b>;tag=1", Name::From),
        ("TO: <sip:a@b>", Name::To),
        ("i: x", Name::CallId),
        ("cseq: 2 INVITE", Name::CSeq),
        ("Max-Forwards : 70", Name::MaxForwards),
    ] {
        assert_eq!(replaced("Content-Type", line), Err(HeadError::Repeated(name)), "{line}");
    }
}

#[test]
fn start_lines_are_read_strictly() {
    for (line, error) in [
        ("INVITE sip:h SIP/3.0", HeadError::Version),
        ("INVITE sip:h SIP/2.00", HeadError::Version),
        ("SIP/3.0 200 OK", HeadError::Version),
        ("SIP/2 200 OK", HeadError::Version),
        ("INVITE sip:h HTTP/1.1", HeadError::StartLine),
        ("INVITE sip:h", HeadError::StartLine),
        ("INVITE  sip:h SIP/2.0", HeadError::StartLine),
        ("INVITE sip:h  SIP/2.0", HeadError::StartLine),
        ("INVITE sip:h SIP/2.0 ", HeadError::StartLine),
        ("INVITE sip:h\t SIP/2.0", HeadError::StartLine),
        ("INVITE sip:h;x y SIP/2.0", HeadError::StartLine),
        ("INVITE SIP/2.0", HeadError::StartLine),
        ("INV(TE sip:h SIP/2.0", HeadError::StartLine),
        (" INVITE sip:h SIP/2.0", HeadError::StartLine),
        ("INVITE sip:h\r\n SIP/2.0", HeadError::StartLine),
        ("SIP/2.0 20 OK", HeadError::StartLine),
        ("SIP/2.0 2000 OK", HeadError::StartLine),
        ("SIP/2.0 4294967496 OK", HeadError::StartLine),
        ("SIP/2.0  200 OK", HeadError::StartLine),
        ("SIP/2.0 -20 OK", HeadError::StartLine),
        ("INVITE <sip:h> SIP/2.0", HeadError::RequestUri),
        ("INVITE sip: SIP/2.0", HeadError::RequestUri),
        ("INVITE h SIP/2.0", HeadError::RequestUri),
        ("INVITE 1ab:h SIP/2.0", HeadError::RequestUri),
        ("INVITE sip:h:99999 SIP/2.0", HeadError::RequestUri),
        ("SIP/2.0 099 OK", HeadError::Status(99)),
        ("SIP/2.0 700 OK", HeadError::Status(700)),
    ] {
        let result = replaced("INVITE", line);
        assert_eq!(result, Err(error), "{line:?}");
        let status = if error == HeadError::Version { 505 } else { 400 };
        assert_eq!(result.unwrap_err().status(), status);
    }
    for line in [
        "INVITE sip:h sip/2.0",
        "INVITE tel:+1 SIP/2.0",
        "INVITE nobodyKnows:this SIP/2.0",
        "SIP/2.0 200 OK",
        "SIP/2.0 200 ",
        "SIP/2.0 200",
        "SIP/2.0 699 \u{e9}\t!",
    ] {
        assert_eq!(replaced("INVITE", line), Ok(()), "{line:?}");
    }
}

#[test]
fn lines_that_are_no_headers_are_refused_and_the_others_are_still_read() {
    for line in ["no colon", ": no name", "two names: x", "(: x", "Max\u{e9}: x", "X\r\n : y"] {
        let message = with_line(REINVITE, "Max-Forwards", line);
        let mut head = Head::new();
        assert_eq!(head.read(message.as_bytes()), Err(HeadError::HeaderLine), "{line:?}");
        let view = View::new(message.as_bytes(), &head);
        assert_eq!(view.check(), Err(HeadError::HeaderLine), "said again by the view");
        assert_eq!(view.cseq(), Some((2, &b"INVITE"[..])));
    }
    // A line end by itself hides what follows it; what came before can be answered.
    for (line, error) in [
        ("Max\rForwards: 70", FrameError::BareLineEnd),
        ("Subject: x\rMax-Forwards: 70", FrameError::BareLineEnd),
        ("Subject: x\nMax-Forwards: 70", FrameError::BareLineEnd),
    ] {
        let message = with_line(REINVITE, "Max-Forwards", line);
        let mut head = Head::new();
        assert_eq!(head.read(message.as_bytes()), Err(HeadError::Frame(error)), "{line:?}");
        let view = View::new(message.as_bytes(), &head);
        assert_eq!((view.count(Name::Via), view.count(Name::MaxForwards)), (1, 0));
        assert_eq!(view.check(), Err(HeadError::Frame(error)), "said again by the view");
        assert_eq!(view.from(), None);
    }
}

#[test]
fn errors_say_what_was_found() {
    let error = replaced("CSeq", "CSeq: 2 BYE").unwrap_err();
    assert_eq!(error.to_string(), "CSeq method is BYE in a request with INVITE");
    assert_eq!(error, HeadError::CSeqMethod { request: Method::Invite, cseq: Method::Bye });
    let error = replaced("CSeq", "CSeq: 2 invite").unwrap_err();
    assert_eq!(error.to_string(), "CSeq method is another method in a request with INVITE");
    let error = replaced("Content-Length", "Content-Length: 70000").unwrap_err();
    assert_eq!(error.to_string(), "Content-Length 70000 is above the limit of 49152 bytes");
    assert_eq!(error.status(), 513);
    let error = replaced("Content-Length", "Content-Length: 6").unwrap_err();
    assert_eq!(error.to_string(), "Content-Length is 6, the body has 5 bytes");
    let error = replaced("Call-ID", "").unwrap_err();
    assert_eq!(error.to_string(), "Call-ID is missing");
}

#[test]
fn what_follows_the_content_length_is_not_body() {
    let message = with_line(REINVITE, "Content-Length", "Content-Length: 3");
    let mut head = Head::new();
    head.read(message.as_bytes()).unwrap();
    assert_eq!(View::new(message.as_bytes(), &head).body(), b"v=0");
    let message = with_line(REINVITE, "Content-Length", "");
    head.read(message.as_bytes()).unwrap();
    assert_eq!(View::new(message.as_bytes(), &head).body(), b"v=0\r\n");
}

#[test]
fn an_offer_is_a_body_of_sdp_or_of_several_parts() {
    for (content_type, expected) in [
        ("Content-Type: application/SDP ; x=y", true),
        ("c: multipart/mixed;boundary=x", true),
        ("Content-Type: application/sdpx", false),
        ("Content-Type: text/plain", false),
        ("Content-Type:", false),
        ("X: application/sdp", false),
    ] {
        let message = with_line(REINVITE, "Content-Type", content_type);
        let mut head = Head::new();
        head.read(message.as_bytes()).unwrap();
        assert_eq!(View::new(message.as_bytes(), &head).has_offer(), expected, "{content_type}");
        let empty = with_line(&message, "Content-Length", "Content-Length: 0");
        head.read(empty.as_bytes()).unwrap();
        assert!(!View::new(empty.as_bytes(), &head).has_offer());
    }
}

#[test]
fn retry_after_is_read_with_comment_and_parameters() {
    for (value, expected) in [
        ("18000;duration=3600", Some(18_000)),
        ("120 (I'm in a meeting)", Some(120)),
        ("30(x)", Some(30)),
        ("0", Some(0)),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("4294967296", Some(u32::MAX)),
        ("99999999999999999999999;x", Some(u32::MAX)),
        ("Fri, 13 Nov 2026 12:00:00 GMT", None),
    ] {
        let message = with_line(REINVITE, "Content-Type", &format!("Retry-After: {value}"));
        let mut head = Head::new();
        head.read(message.as_bytes()).unwrap();
        assert_eq!(View::new(message.as_bytes(), &head).retry_after(), expected, "{value}");
    }
}

#[test]
fn a_tag_is_cut_out_wherever_it_stands() {
    for (value, before, after) in [
        ("<sip:a@b>;tag=1", "<sip:a@b>", ""),
        ("<sip:a@b;tag=0>;x; Tag = 1 ;y=\"z\"", "<sip:a@b;tag=0>;x", " ;y=\"z\""),
        ("sip:a@b;tag=1;x", "sip:a@b", ";x"),
        ("\"x;tag=2\" <sip:a@b> ;tag=1", "\"x;tag=2\" <sip:a@b>", ""),
        ("<sip:a@b>;x", "<sip:a@b>;x", ""),
    ] {
        let address = NameAddr::parse(value.as_bytes()).unwrap();
        assert_eq!(address.without_tag(), (before.as_bytes(), after.as_bytes()), "{value}");
        assert_eq!(address.tag.is_some(), value != before);
    }
}

#[test]
fn numbers_are_written_as_they_are() {
    let mut out = Vec::new();
    for n in [0, 9, 10, 4_294_967_296, u64::MAX] {
        write::number(&mut out, n);
        out.push(b' ');
    }
    assert_eq!(out, b"0 9 10 4294967296 18446744073709551615 ");
}

#[test]
fn reason_phrases_are_those_of_the_standard() {
    for (code, phrase) in [
        (100, "Trying"),
        (200, "OK"),
        (302, "Moved Temporarily"),
        (408, "Request Timeout"),
        (481, "Call/Transaction Does Not Exist"),
        (491, "Request Pending"),
        (503, "Service Unavailable"),
        (603, "Decline"),
    ] {
        assert_eq!(write::reason_phrase(code), phrase);
    }
    assert_eq!(write::reason_phrase(299), "OK");
    assert_eq!(write::reason_phrase(999), "Global Failure");
}
