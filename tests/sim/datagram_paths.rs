//! Where datagrams go, what may be in them, and what becomes of calls when the network loses, doubles
//! and reorders them.

use crate::datagram::{established, same_bytes_at, sent_to};
use crate::message::Msg;
use crate::peer::MS;
use crate::rng::Rng;
use crate::script::{A, B, Script, request};
use crate::swarm::{SERVER, peer_addr};

#[test]
fn a_response_tells_where_its_request_came_from_and_goes_there_when_asked() {
    let elsewhere = "10.0.0.1:40123".parse().expect("an address");
    let options = |via: &str| {
        Msg::request("OPTIONS", &format!("sip:{SERVER}"))
            .with("Via", via)
            .with("From", "<sip:x@sim.example>;tag=1")
            .with("To", format!("<sip:{SERVER}>"))
            .with("Call-ID", "o@sim.example")
            .with("CSeq", "1 OPTIONS")
            .to_bytes()
    };
    for (via, to, wanted) in [
        // RFC 3581: back to where it came from, with both told.
        (
            "SIP/2.0/UDP 192.0.2.9:5062;rport;branch=z9hG4bKr1",
            elsewhere,
            "SIP/2.0/UDP 192.0.2.9:5062;rport=40123;branch=z9hG4bKr1;received=10.0.0.1",
        ),
        // RFC 3261 §18.2.2: the address it came from, the port of its Via.
        (
            "SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bKr2",
            "10.0.0.1:5062".parse().expect("an address"),
            "SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bKr2;received=10.0.0.1",
        ),
        (
            "SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKr3",
            peer_addr(A),
            "SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKr3",
        ),
    ] {
        let mut s = Script::new();
        s.datagram_from(elsewhere, &options(via));
        let (_, sent_to, bytes) = s.world.packets.sent.pop().expect("a response");
        let msg = Msg::parse(&bytes).expect("a message");
        assert_eq!((msg.status(), sent_to, msg.text("Via")), (200, to, wanted));
    }
}

#[test]
fn a_request_too_large_for_a_datagram_goes_over_tcp_to_the_same_address() {
    let mut s = established();
    let large = "x".repeat(1300);
    s.at(0).a_sends(request("INFO").body(&large));
    s.connects_to(B);
    let info = s.b_receives("INFO");
    assert!(info.text("Via").starts_with("SIP/2.0/TCP"), "{info}");
    s.b_answers(200);
    s.a_receives("200");
    s.at(10).a_sends(request("INFO").body("small"));
    let info = s.b_receives("INFO");
    assert!(info.text("Via").starts_with("SIP/2.0/UDP"), "{info}");
}

#[test]
fn a_request_too_large_for_a_datagram_is_sent_as_one_when_nobody_listens_on_tcp() {
    let mut s = established();
    s.refuse_tcp(B);
    for method in ["INFO", "INVITE"] {
        let large = "x".repeat(1300);
        let at = s.elapsed();
        s.a_sends(request(method).body(&large));
        if method == "INVITE" {
            s.a_receives("100");
        }
        let request = s.b_receives(method);
        assert!(request.text("Via").starts_with("SIP/2.0/UDP"), "{request}");
        s.at(at + 500).b_receives(method);
        same_bytes_at(&sent_to(&s, B, method), &[at, at + 500]);
        s.b_answers(200);
        if method == "INVITE" {
            s.b_receives("ACK");
        }
        s.a_receives("200");
    }
    s.a_acknowledges();
    s.call_is_up();
}

#[test]
fn a_datagram_is_one_message() {
    let options = |headers: &str, body: &str| {
        format!(
            "OPTIONS sip:{SERVER} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKd\r\n\
             From: <sip:x@y>;tag=1\r\nTo: <sip:y@y>\r\nCall-ID: d\r\nCSeq: 1 OPTIONS\r\n\
             {headers}\r\n{body}"
        )
    };
    for (bytes, answer) in [
        // A body that is cut short.
        (options("Content-Length: 5\r\n", "abcd"), Some(400)),
        // What follows it is dropped, be it another message.
        (options("Content-Length: 4\r\n", "abcdOPTIONS sip:x SIP/2.0\r\n"), Some(200)),
        // Without a length the body ends with the datagram.
        (options("", "abcd"), Some(200)),
        // Line ends before a message, and nothing but line ends.
        (format!("\r\n\r\n{}", options("", "")), Some(200)),
        ("\r\n\r\n".to_owned(), None),
        (String::new(), None),
    ] {
        let mut s = Script::new();
        s.datagram_from(peer_addr(A), bytes.as_bytes());
        let sent: Vec<u16> = s
            .world
            .packets
            .sent
            .iter()
            .map(|(_, _, bytes)| Msg::parse(bytes).expect("a message").status())
            .collect();
        assert_eq!(sent, Vec::from_iter(answer), "{bytes:?}");
    }
}

#[test]
fn bad_datagrams_do_no_harm_to_the_call_of_their_sender() {
    let mut s = established();
    let garbage: Vec<u8> = (0..65_507_u32).map(|n| (n * 31 % 251) as u8).collect();
    let invite = b"INVITE sip:1001@x SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKt\r\nFrom";
    for bytes in [&garbage[..], &garbage[..1], &[0; 1472], b"SIP/2.0", &invite[..], b"\xff\r\n\r\n"]
    {
        s.datagram_from(peer_addr(A), bytes);
        s.datagram_from("10.0.0.1:9".parse().expect("an address"), bytes);
    }
    s.datagram_from(peer_addr(A), &[b'a'; 65_507]);
    s.nothing_happens();
    assert_eq!(s.stats().calls, 1);
    s.call_is_up();
}

#[test]
fn a_stranger_is_refused_alike_each_time_and_leaves_nothing_behind() {
    let mut s = Script::new();
    let invite = Msg::request("INVITE", &format!("sip:1001@{SERVER}"))
        .with("Via", "SIP/2.0/UDP 10.0.7.7:5060;branch=z9hG4bKs")
        .with("From", "<sip:s@y>;tag=1")
        .with("To", "<sip:1001@y>")
        .with("Call-ID", "s")
        .with("CSeq", "1 INVITE")
        .with("Contact", "<sip:s@10.0.7.7>")
        .to_bytes();
    let stranger = "10.0.7.7:5060".parse().expect("an address");
    s.datagram_from(stranger, &invite);
    s.datagram_from(stranger, &invite);
    let sent = &s.world.packets.sent;
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].2, sent[1].2);
    assert_eq!(Msg::parse(&sent[0].2).expect("a message").status(), 403);
    assert_eq!(s.stats().servers, 0);
    s.until(32_000).nothing_happens();
    assert_eq!((s.stats().flows, s.stats().timers), (0, 0));
}

#[test]
fn a_late_copy_of_an_invite_makes_no_second_call() {
    let mut s = Script::new().over_udp(&[A, B]);
    s.a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.at(31_999).a_repeats_invite();
    s.nothing_happens();
    assert_eq!(s.stats().calls, 1);
    s.at(32_001);
    assert_eq!(s.stats().servers, 0);
}

#[test]
fn datagrams_that_come_twice_create_nothing_new() {
    let mut s = Script::new().over_udp(&[A, B]);
    s.world.packets.doubles = 1000;
    s.a_calls("1001");
    assert_eq!((s.stats().calls, s.stats().servers, s.stats().clients), (1, 1, 1));
    assert_eq!(sent_to(&s, B, "INVITE").len(), 1);
    assert_eq!(sent_to(&s, A, "100").len(), 2, "the last response, for each copy");
    s.b_receives("INVITE");
    s.b_receives("INVITE");
    s.b_answers(200);
    assert_eq!(sent_to(&s, B, "ACK").len(), 2, "an ACK for each 200");
    assert_eq!(sent_to(&s, A, "200").len(), 1);
    assert_eq!(s.stats().calls_established, 1);
}

/// Where a call with lost datagrams stands.
#[derive(Default)]
struct Progress {
    /// B has answered the INVITE, and no ACK came.
    unacknowledged: bool,
    /// A has the 200 to its INVITE, and to its BYE.
    up: bool,
    over: bool,
}

/// Reacts to all that came.
fn react(s: &mut Script, progress: &mut Progress) {
    let what = |s: &Script, peer: usize| {
        let (_, _, msg) = s.world.peers[peer].inbox.first()?;
        let status = msg.status().to_string();
        Some(if msg.is_response() { status } else { msg.method().to_owned() })
    };
    while let Some(what) = what(s, B) {
        let msg = s.b_receives(&what);
        progress.unacknowledged = match msg.method() {
            "INVITE" => !progress.up || progress.unacknowledged,
            _ => false,
        };
        if msg.method() != "ACK" {
            s.b_answers(200);
        }
    }
    while let Some(what) = what(s, A) {
        let msg = s.a_receives(&what);
        match (msg.status(), msg.method()) {
            (200, "INVITE") => {
                s.a_acknowledges();
                progress.up = true;
            }
            (200, "BYE") => progress.over = true,
            _ => {}
        }
    }
}

#[test]
fn calls_come_about_and_end_while_datagrams_are_lost_doubled_and_overtaken() {
    for seed in 0..100 {
        let mut s = Script::new().over_udp(&[A, B]);
        s.world.net.rng = Rng::new(seed);
        let packets = &mut s.world.packets;
        (packets.loss, packets.doubles, packets.delay_max) = (250, 200, 300 * MS);
        let (mut progress, mut hung_up) = (Progress::default(), false);
        s.a_calls("1001");
        for step in 1..=300 {
            s.at(100 * step);
            react(&mut s, &mut progress);
            if step % 5 == 0 && progress.unacknowledged {
                s.b_answers(200);
            }
            match step % 5 {
                0 if !progress.up => s.a_repeats_invite(),
                0 if step >= 100 && !hung_up => {
                    s.a_sends(request("BYE"));
                    hung_up = true;
                }
                0 if hung_up && !progress.over => s.a_repeats(),
                _ => {}
            }
        }
        assert!(progress.up && progress.over, "seed {seed}");
        assert_eq!((s.stats().calls_established, s.stats().calls_lost), (1, 0), "seed {seed}");
        s.world.packets.loss = 0;
        s.call_is_over();
        assert_eq!(s.stats().flows, 0, "seed {seed}");
    }
}
