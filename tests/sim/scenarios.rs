//! What must happen, one sentence each (`docs/PROCEDURES.md`; RFC 3261 where it is named).

use crate::message::Msg;
use crate::script::{A, B, Script, reinvite, request};

const DELAY: &str = "retry-after-reliable-transport-error";
const WINDOW: &str = "sip-invite-timeout";
const REASON: &str = "SIP;cause=503;text=\"transport-error\"";

/// An established call whose re-INVITE was lost with B's flow at 10 ms; the delay is 500 ms.
fn waiting() -> (Script, Msg) {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    let first = s.b_receives("INVITE");
    s.at(10).reset(B);
    (s, first)
}

#[test]
fn reinvite_is_sent_again_after_the_retry_delay_when_the_flow_is_reset() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.at(10).reset(B);
    s.until(509).nothing_happens();
    s.at(510).connects_to(B);
    s.b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.call_is_up();
}

#[test]
fn reinvite_is_sent_again_when_the_flow_is_reset_after_a_provisional_response() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.at(10).reset(B);
    s.until(509).nothing_happens();
    s.at(510).connects_to(B);
    s.b_receives("INVITE");
}

#[test]
fn reinvite_is_sent_again_after_the_retry_delay_when_the_connect_is_refused() {
    let mut s = Script::established().option(DELAY, 500);
    s.reset(B);
    s.refuse(B);
    s.at(0).a_sends(reinvite());
    s.connects_to(B);
    s.a_receives("100");
    s.until(499).nothing_happens();
    s.at(500).connects_to(B);
    s.accept(B);
    s.until(999).nothing_happens();
    s.at(1000).connects_to(B);
    s.b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
}

#[test]
fn the_repeated_attempt_has_a_new_branch_and_the_next_cseq() {
    let (mut s, first) = waiting();
    s.at(510);
    let second = s.b_receives("INVITE");
    assert_ne!(first.branch(), second.branch());
    assert_eq!(second.cseq().0, first.cseq().0 + 1);
    assert_eq!(first.uri(), second.uri());
    for name in ["From", "To", "Call-ID", "Contact", "Max-Forwards", "Content-Type"] {
        assert_eq!(first.text(name), second.text(name), "{name}");
    }
    assert_eq!(first.body, second.body);
}

#[test]
fn delay_zero_releases_the_call_and_the_other_leg_gets_bye_with_reason() {
    let mut s = Script::established().option(DELAY, 0);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.at(10).reset(B);
    s.connects_to(B);
    s.a_receives("408");
    s.a_acknowledges();
    let bye = s.a_receives("BYE");
    assert_eq!(bye.text("Reason"), REASON);
    s.a_answers(200);
    s.b_receives("BYE");
    s.b_answers(200);
    s.call_is_over();
}

#[test]
fn device_delay_wins_over_application_delay() {
    let mut s = Script::established().option(DELAY, 3000).device_option(700);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.at(10).reset(B);
    s.until(709).nothing_happens();
    s.at(710).connects_to(B);
    s.b_receives("INVITE");
}

#[test]
fn device_delay_zero_switches_recovery_off_although_the_application_has_a_delay() {
    let mut s = Script::established().option(DELAY, 3000).device_option(0);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.at(10).reset(B);
    s.a_receives("408");
    s.a_receives("BYE");
    s.b_receives("BYE");
}

#[test]
fn a_new_delay_is_in_force_at_the_next_failure() {
    let (mut s, _) = waiting();
    s.set(DELAY, 2000);
    s.until(509).nothing_happens();
    s.at(510).connects_to(B);
    s.b_receives("INVITE");
    s.at(520).reset(B);
    s.until(2519).nothing_happens();
    s.at(2520).connects_to(B);
    s.b_receives("INVITE");
}

#[test]
fn recovery_is_given_up_at_the_deadline() {
    let mut s = Script::established().option(DELAY, 2000).option(WINDOW, 5);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.reset(B);
    s.at(2000).connects_to(B);
    s.b_receives("INVITE");
    s.until(4999).nothing_happens();
    s.at(5000).a_receives("408");
    s.a_acknowledges();
    assert_eq!(s.a_receives("BYE").text("Reason"), REASON);
    s.a_answers(200);
    s.b_receives("BYE");
    s.b_answers(200);
    s.call_is_over();
}

#[test]
fn recovery_is_given_up_at_once_when_no_wait_fits_into_the_window_any_more() {
    let mut s = Script::established().option(DELAY, 2000).option(WINDOW, 5);
    s.reset(B);
    s.refuse(B);
    s.at(0).a_sends(reinvite());
    s.connects_to(B);
    s.a_receives("100");
    s.at(2000).connects_to(B);
    s.until(3999).nothing_happens();
    s.at(4000).a_receives("408");
    assert_eq!(s.a_receives("BYE").text("Reason"), REASON);
}

#[test]
fn the_window_does_not_restart_at_a_second_failure() {
    let mut s = Script::established().option(DELAY, 2000).option(WINDOW, 5);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.reset(B);
    s.at(2000).b_receives("INVITE");
    s.at(2500).reset(B);
    s.at(4500).b_receives("INVITE");
    s.at(4600).reset(B);
    s.a_receives("408");
    s.a_receives("BYE");
}

#[test]
fn a_provisional_response_keeps_the_attempt_alive_past_the_deadline() {
    let mut s = Script::established().option(DELAY, 2000).option(WINDOW, 5);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.reset(B);
    s.at(2000).b_receives("INVITE");
    s.b_answers(100);
    s.until(6000).nothing_happens();
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
}

#[test]
fn new_invite_is_not_recovered() {
    let mut s = Script::new().option(DELAY, 500);
    s.refuse(B);
    s.a_calls("1001");
    s.a_receives("100");
    s.a_receives("503");
    s.a_acknowledges();
    s.until(3000).nothing_happens();
    s.call_is_over();
}

#[test]
fn new_invite_whose_flow_is_reset_is_not_recovered() {
    let mut s = Script::new().option(DELAY, 500);
    s.a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.at(10).reset(B);
    s.a_receives("503");
    s.a_acknowledges();
    s.until(3000).nothing_happens();
    s.call_is_over();
}

#[test]
fn flow_lost_while_idle_changes_nothing() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(10).reset(B);
    s.at(20).reset(A);
    s.until(60_000).nothing_happens();
    s.a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
}

#[test]
fn info_opens_one_new_connection_and_its_failure_keeps_the_call() {
    let mut s = Script::established().option(DELAY, 500);
    s.reset(B);
    s.refuse(B);
    s.at(0).a_sends(request("INFO"));
    s.connects_to(B);
    s.a_receives("503");
    s.until(5000).nothing_happens();
    s.accept(B);
    s.a_sends(request("INFO"));
    s.connects_to(B);
    s.b_receives("INFO");
    s.b_answers(200);
    s.a_receives("200");
    s.call_is_up();
}

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
fn cancel_during_the_wait_gives_487_and_keeps_the_call() {
    let (mut s, _) = waiting();
    s.at(100).a_cancels();
    s.a_receives("200");
    s.a_receives("487");
    s.a_acknowledges();
    s.until(5000).nothing_happens();
    s.call_is_up();
}

#[test]
fn cancel_during_an_attempt_is_passed_on_and_its_answer_too() {
    let mut s = Script::established();
    s.a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.a_cancels();
    s.a_receives("200");
    s.b_receives("CANCEL");
    s.b_answers(487);
    s.b_receives("ACK");
    s.a_receives("487");
    s.a_acknowledges();
    s.call_is_up();
}

#[test]
fn bye_of_the_device_during_the_wait_ends_the_call_normally() {
    let (mut s, _) = waiting();
    s.at(100).b_sends(request("BYE"));
    s.b_receives("200");
    s.a_receives("487");
    s.a_acknowledges();
    assert_eq!(s.a_receives("BYE").header("Reason"), None);
    s.a_answers(200);
    s.until(3000).nothing_happens();
    s.call_is_over();
}

#[test]
fn bye_of_the_other_leg_during_the_wait_ends_the_call_normally() {
    let (mut s, _) = waiting();
    s.at(100).a_sends(request("BYE"));
    s.a_receives("200");
    s.a_receives("487");
    s.connects_to(B);
    s.b_receives("BYE");
    s.b_answers(200);
    s.until(3000).nothing_happens();
    s.call_is_over();
}

#[test]
fn late_2xx_of_an_orphan_is_acknowledged_and_ends_the_recovery() {
    let (mut s, first) = waiting();
    s.at(100).b_answers(200);
    let ack = s.b_receives("ACK");
    assert_eq!(ack.cseq().0, first.cseq().0);
    s.a_receives("200");
    s.a_acknowledges();
    s.until(5000).nothing_happens();
    s.call_is_up();
}

#[test]
fn late_2xx_of_an_orphan_is_acknowledged_while_a_newer_attempt_goes_on() {
    let (mut s, first) = waiting();
    s.at(510);
    let second = s.b_receives("INVITE");
    s.b_answers_earlier(1, 200);
    assert_eq!(s.b_receives("ACK").cseq().0, first.cseq().0);
    s.until(1000).nothing_happens();
    s.b_answers(200);
    assert_eq!(s.b_receives("ACK").cseq().0, second.cseq().0);
    s.a_receives("200");
}

#[test]
fn late_1xx_of_an_orphan_stops_the_wait() {
    let (mut s, first) = waiting();
    s.at(100).b_answers(180);
    s.a_receives("180");
    s.until(3000).nothing_happens();
    s.b_answers(200);
    assert_eq!(s.b_receives("ACK").cseq().0, first.cseq().0);
    s.a_receives("200");
}

#[test]
fn a_2xx_that_comes_again_is_acknowledged_again() {
    let (mut s, _) = waiting();
    s.at(510).b_receives("INVITE");
    s.b_answers(200);
    let ack = s.b_receives("ACK");
    s.at(1010).b_answers(200);
    assert_eq!(s.b_receives("ACK"), ack);
}

#[test]
fn error_info_of_a_proxy_starts_the_wait() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers_with(503, &[("Error-Info", "Transport-Error")]);
    s.b_receives("ACK");
    s.until(499).nothing_happens();
    s.at(500).b_receives("INVITE");
}

#[test]
fn retry_after_of_a_503_is_waited_for_even_where_the_delay_is_zero() {
    let mut s = Script::established().option(DELAY, 0);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers_with(503, &[("Retry-After", "3 (soon);duration=9")]);
    s.b_receives("ACK");
    s.until(2999).nothing_happens();
    s.at(3000).b_receives("INVITE");
}

#[test]
fn a_plain_503_is_an_answer_like_any_other() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(503);
    s.b_receives("ACK");
    s.a_receives("503");
    s.a_acknowledges();
    s.until(2000).nothing_happens();
    s.call_is_up();
}

#[test]
fn a_2xx_to_a_caller_that_lost_its_flow_is_sent_again_to_its_via() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.at(10).reset(A);
    s.at(20).b_answers(200);
    s.b_receives("ACK");
    s.connects_to(A);
    s.a_receives("200");
    s.a_acknowledges();
    s.until(5000).nothing_happens();
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
fn unknown_method_outside_a_dialog_gets_405_and_inside_it_is_relayed() {
    let mut s = Script::established();
    s.a_sends_raw(&outside("XYZZY", "1001").to_bytes());
    assert!(s.a_receives("405").text("Allow").contains("BYE"));
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
fn a_wait_is_carried_through_a_drain_until_its_deadline() {
    let (mut s, _) = waiting();
    s.drain(600);
    s.at(510).b_receives("INVITE");
    s.until(599).nothing_happens();
    s.at(600).a_receives("503");
    s.a_receives("BYE");
    s.b_receives("BYE");
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
