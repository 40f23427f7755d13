//! What must happen, one sentence each (`docs/PROCEDURES.md`; RFC 3261 where it is named).

use crate::message::Msg;
use crate::script::{A, B, Script, reinvite, request};

pub(crate) const DELAY: &str = "retry-after-reliable-transport-error";
pub(crate) const WINDOW: &str = "sip-invite-timeout";
pub(crate) const REASON: &str = "SIP;cause=503;text=\"transport-error\"";

/// An established call whose re-INVITE was lost with B's flow at 10 ms; the delay is 500 ms.
pub(crate) fn waiting() -> (Script, Msg) {
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
fn reinvite_of_the_device_during_the_wait_gets_491_and_its_flow_is_used_for_the_next_attempt() {
    let (mut s, first) = waiting();
    s.at(100).b_sends(reinvite());
    s.b_receives("491");
    s.b_acknowledges();
    s.until(509).nothing_happens();
    s.at(510);
    let second = s.b_receives("INVITE");
    assert_eq!(second.cseq().0, first.cseq().0 + 1);
    assert_eq!(s.connections(), 0);
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
}

#[test]
fn an_adopted_attempt_that_is_lost_again_waits_in_the_same_window() {
    let mut s = Script::established().option(DELAY, 2000).option(WINDOW, 5);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.reset(B);
    s.at(1000).b_answers(180);
    s.a_receives("180");
    s.at(2500).reset(B);
    s.until(4499).nothing_happens();
    s.at(4500).b_receives("INVITE");
    s.at(4600).reset(B);
    s.a_receives("408");
    s.a_receives("BYE");
}

#[test]
fn a_device_that_never_answers_a_reinvite_loses_the_call_after_32_seconds() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.until(31_999).nothing_happens();
    s.at(32_000).a_receives("408");
    s.a_receives("BYE");
    s.b_receives("BYE");
}

#[test]
fn a_reinvite_that_rings_for_three_minutes_is_cancelled_and_the_call_stays() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.until(180_000).nothing_happens();
    s.at(181_000).b_receives("CANCEL");
    s.b_answers(487);
    s.b_receives("ACK");
    s.a_receives("487");
    s.a_acknowledges();
    s.call_is_up();
}

#[test]
fn a_reinvite_whose_refusal_was_lost_ends_three_minutes_later_and_the_call_stays() {
    let mut s = Script::established().option(DELAY, 500).option(WINDOW, 5);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.reset(B);
    // Over a connection of its own; its final response is lost with another one.
    s.at(100).b_answers(180);
    s.a_receives("180");
    s.until(181_000).nothing_happens();
    s.at(181_100).b_receives("CANCEL");
    s.until(213_000).nothing_happens();
    s.at(213_100).a_receives("487");
    s.a_acknowledges();
    s.call_is_up();
    s.a_reinvites();
}

#[test]
fn a_reinvite_that_rings_and_is_never_answered_not_even_when_it_is_cancelled_keeps_the_call() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.at(181_000).b_receives("CANCEL");
    s.at(213_000).a_receives("487");
    s.a_acknowledges();
    s.call_is_up();
}

#[test]
fn a_reinvite_that_was_cancelled_after_three_minutes_and_whose_flow_dies_keeps_the_call() {
    let mut s = Script::established().option(DELAY, 500).option(WINDOW, 5);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.reset(B);
    s.at(100).b_answers(180);
    s.a_receives("180");
    s.at(181_100).b_receives("CANCEL");
    s.at(182_000).reset(B);
    s.a_receives("487");
    s.a_acknowledges();
    s.call_is_up();
}

#[test]
fn a_cancelled_attempt_outlives_the_deadline_and_the_call_stays() {
    let mut s = Script::established().option(DELAY, 2000).option(WINDOW, 5);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.reset(B);
    s.at(2000).b_receives("INVITE");
    s.at(3000).a_cancels();
    s.a_receives("200");
    s.until(6000).nothing_happens();
    s.b_answers(180);
    s.b_receives("CANCEL");
    s.b_answers(487);
    s.b_receives("ACK");
    s.a_receives("180");
    s.a_receives("487");
    s.a_acknowledges();
    s.call_is_up();
}
