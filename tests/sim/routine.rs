//! What any back-to-back user agent must do, recovery or not, one sentence each.

use crate::message::Msg;
use crate::script::{B, Script, reinvite, request};

#[test]
fn glare_is_answered_491() {
    let mut s = Script::established();
    s.a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_sends(reinvite());
    s.b_receives("491");
    s.b_acknowledges();
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.call_is_up();
}

#[test]
fn out_of_order_cseq_is_answered_500() {
    let mut s = Script::established();
    s.a_sends(request("INFO").cseq(5));
    s.b_receives("INFO");
    s.b_answers(200);
    s.a_receives("200");
    s.a_sends(request("INFO").cseq(4));
    s.a_receives("500");
    s.nothing_happens();
}

#[test]
fn a_delayed_offer_is_answered_by_the_ack_of_the_other_end() {
    let mut s = Script::established();
    s.a_sends(reinvite().without_offer());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(200);
    s.a_receives("200");
    s.until(100).nothing_happens();
    s.a_acknowledges();
    s.b_receives("ACK");
}

#[test]
fn options_outside_a_dialog_is_answered() {
    let mut s = Script::new();
    s.a_sends_raw(&outside("OPTIONS", "1001").to_bytes());
    let answer = s.a_receives("200");
    assert!(answer.text("Allow").contains("INVITE"));
    s.nothing_happens();
}

#[test]
fn unknown_method_outside_a_dialog_gets_501_and_inside_it_is_relayed() {
    let mut s = Script::established();
    s.a_sends_raw(&outside("XYZZY", "1001").to_bytes());
    assert!(s.a_receives("501").text("Allow").contains("BYE"));
    s.a_sends(request("XYZZY").header("X-Unheard", "of").body("plugh"));
    let relayed = s.b_receives("XYZZY");
    assert_eq!((relayed.text("X-Unheard"), &relayed.body[..]), ("of", &b"plugh"[..]));
    s.b_answers_with(200, &[("X-Hollow", "voice")]);
    assert_eq!(s.a_receives("200").text("X-Hollow"), "voice");
}

#[test]
fn drain_refuses_new_calls_with_503_and_retry_after_and_releases_at_the_deadline() {
    let mut s = Script::established();
    s.drain(5000);
    let mut invite = outside("INVITE", "1001");
    invite.add("Contact", "<sip:1000@10.0.0.1:5060;transport=tcp>");
    s.a_sends_raw(&invite.to_bytes());
    assert!(s.a_receives("503").number("Retry-After").is_some());
    s.at(1000).a_sends(request("INFO"));
    s.b_receives("INFO");
    s.b_answers(200);
    s.a_receives("200");
    s.until(4999).nothing_happens();
    s.at(5000).a_receives("BYE");
    s.a_answers(200);
    s.b_receives("BYE");
    s.b_answers(200);
    s.call_is_over();
}

#[test]
fn of_too_many_new_calls_each_further_one_gets_503_and_what_stands_is_served() {
    let mut s = Script::established();
    s.set("calls-per-second-max", 1);
    let invite = |branch: &str| {
        let mut invite = outside("INVITE", "1001");
        invite.add("Contact", "<sip:1000@10.0.0.1:5060;transport=tcp>");
        let text = String::from_utf8(invite.to_bytes()).unwrap();
        text.replace("z9hG4bK", &format!("z9hG4bK{branch}")).into_bytes()
    };
    s.a_sends_raw(&invite("one"));
    s.a_receives("100");
    s.b_receives("INVITE");
    s.a_sends_raw(&invite("two"));
    assert!(s.a_receives("503").number("Retry-After").is_some());
    // A copy of the one that was taken is no new one.
    s.a_sends_raw(&invite("one"));
    s.a_receives("100");
    assert_eq!(s.stats().calls, 2);
    s.a_sends(request("INFO"));
    s.b_receives("INFO");
    s.b_answers(200);
    s.a_receives("200");
    s.at(2000).a_sends_raw(&invite("three"));
    s.a_receives("100");
    s.b_receives("INVITE");
}

#[test]
fn foreign_caller_gets_403() {
    let mut s = Script::new().foreign_caller();
    s.a_calls("1001");
    s.a_receives("403");
    s.a_acknowledges();
    s.call_is_over();
}

#[test]
fn unrouted_number_gets_404() {
    let mut s = Script::new();
    s.a_calls("5551234");
    s.a_receives("404");
    s.a_acknowledges();
    s.call_is_over();
}

#[test]
fn a_number_with_the_prefix_of_a_trunk_keeps_its_digits() {
    let mut s = Script::new().trunk("555");
    s.a_calls("5551234");
    s.a_receives("100");
    assert_eq!(s.b_receives("INVITE").uri(), "sip:5551234@10.0.0.2:5060;transport=tcp");
}

#[test]
fn malformed_requests_get_400() {
    let good = outside("INVITE", "1001");
    for (header, value) in [("CSeq", "1 BYE"), ("CSeq", "no INVITE"), ("From", "<sip:a@b>;tag")] {
        let mut bad = good.clone();
        for (name, old) in &mut bad.headers {
            if name == header {
                *old = value.as_bytes().to_vec();
            }
        }
        let mut s = Script::new();
        s.a_sends_raw(&bad.to_bytes());
        s.a_receives("400");
        assert_eq!(s.stats().messages_bad, 1, "{header}: {value}");
    }
}

#[test]
fn a_stream_without_content_length_is_closed() {
    let mut s = Script::new();
    s.a_sends_raw(
        b"OPTIONS sip:x@10.99.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.1;branch=z9hG4bKx\r\n\
        From: <sip:a@b>;tag=1\r\nTo: <sip:x@10.99.0.1>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n",
    );
    s.a_receives("400");
    assert_eq!(s.stats().flows, 0);
}

#[test]
fn a_request_in_an_unknown_dialog_gets_481() {
    let mut s = Script::new();
    let mut bye = outside("BYE", "1001");
    for (name, value) in &mut bye.headers {
        if name == "To" {
            value.extend_from_slice(b";tag=hf00000000000029f772f9136b1ccf");
        }
    }
    s.a_sends_raw(&bye.to_bytes());
    s.a_receives("481");
}

/// A request of A outside any dialog.
fn outside(method: &str, number: &str) -> Msg {
    Msg::request(method, &format!("sip:{number}@10.99.0.1:5060"))
        .with("Via", "SIP/2.0/TCP 10.0.0.1:5060;branch=z9hG4bKoutside")
        .with("Max-Forwards", "70")
        .with("From", "<sip:1000@sim.example>;tag=outside")
        .with("To", format!("<sip:{number}@10.99.0.1>"))
        .with("Call-ID", "outside@sim.example")
        .with("CSeq", format!("1 {method}"))
}

#[test]
fn requests_lost_with_their_flow_are_sent_again_in_their_order() {
    let mut s = Script::established();
    for method in ["INFO", "MESSAGE", "OPTIONS", "XYZZY"] {
        s.a_sends(request(method));
        s.b_receives(method);
    }
    s.b_answers_earlier(3, 200);
    s.a_receives("200");
    s.reset(B);
    for method in ["MESSAGE", "OPTIONS", "XYZZY"] {
        s.b_receives(method);
    }
}

#[test]
fn a_malformed_ack_is_never_answered() {
    let ack = outside("ACK", "1001").with("CSeq", "2 ACK");
    let mut s = Script::new();
    s.a_sends_raw(&ack.to_bytes());
    s.nothing_happens();
    let mut bytes = outside("ACK", "1001").to_bytes();
    let at = crate::message::find(&bytes, b"Content-Length").expect("a header");
    bytes.splice(at..at, *b"X: \r\x00\r\n");
    s.a_sends_raw(&bytes);
    s.nothing_happens();
    assert_eq!(s.stats().flows, 0);
}

#[test]
fn a_caller_that_cancels_gets_487_and_the_device_is_cancelled() {
    let mut s = Script::new();
    s.a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.a_cancels();
    s.a_receives("200");
    s.a_receives("487");
    s.a_acknowledges();
    s.b_receives("CANCEL");
    s.b_answers(487);
    s.b_receives("ACK");
    s.nothing_happens();
    s.call_is_over();
}

#[test]
fn a_2xx_that_crosses_the_cancel_is_acknowledged_and_ended_with_bye() {
    let mut s = Script::new();
    s.a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.a_cancels();
    s.b_receives("CANCEL");
    s.b_answers(200);
    s.b_receives("ACK");
    s.b_receives("BYE");
}

#[test]
fn a_device_that_still_rings_for_a_refused_caller_is_cancelled() {
    let mut s = Script::new();
    s.a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.reset(B);
    s.a_receives("503");
    s.a_acknowledges();
    s.b_answers(180);
    s.b_receives("CANCEL");
}

#[test]
fn requests_without_hops_left_get_483() {
    let mut s = Script::established();
    s.a_sends(request("INFO").max_forwards(0));
    s.a_receives("483");
    s.a_sends(reinvite().max_forwards(0));
    s.a_receives("483");
    s.a_acknowledges();
    s.call_is_up();
}

#[test]
fn a_request_uri_that_is_no_sip_uri_gets_416_or_404() {
    let mut s = Script::new();
    let mut invite = outside("INVITE", "1001").with("Contact", "<sip:1000@10.0.0.1:5060>");
    invite.start = "INVITE tel:+49301001 SIP/2.0".to_owned();
    s.a_sends_raw(&invite.to_bytes());
    s.a_receives("416");
}
