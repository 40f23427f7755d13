//! Answers, cancels and acknowledgements that come when nobody expects them any more.

use crate::scenarios::*;
use crate::script::{A, B, Script, reinvite, request};

#[test]
fn a_cancelled_attempt_that_was_repeated_and_gets_no_answer_keeps_the_call() {
    let (mut s, _) = waiting();
    s.at(510);
    s.b_receives("INVITE");
    s.b_answers(100);
    s.a_cancels();
    s.a_receives("200");
    s.b_receives("CANCEL");
    s.until(40_000);
    s.a_receives("487");
    s.a_acknowledges();
    s.call_is_up();
}

#[test]
fn a_cancelled_attempt_that_was_repeated_and_gets_nothing_at_all_keeps_the_call() {
    let (mut s, _) = waiting();
    s.at(510);
    s.b_receives("INVITE");
    s.a_cancels();
    s.a_receives("200");
    s.until(40_000);
    s.a_receives("487");
    s.a_acknowledges();
    s.call_is_up();
}

#[test]
fn a_late_408_of_an_operation_that_is_over_changes_nothing() {
    let (mut s, _) = waiting();
    s.at(510);
    s.b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.at(20_000).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers_earlier(2, 408);
    s.b_receives("ACK");
    s.nothing_happens();
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.call_is_up();
}

#[test]
fn a_delayed_offer_whose_ack_never_comes_gets_one_without_body() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite().without_offer());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(200);
    s.a_receives("200");
    s.refuse(A);
    s.at(10).reset(A);
    s.until(33_000);
    s.b_receives("ACK");
}

#[test]
fn a_prack_after_the_2xx_keeps_its_rack() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers_with(183, &[("RSeq", "7"), ("Require", "100rel")]);
    s.a_receives("183");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.a_sends(request("PRACK").header("RAck", "7 2 INVITE"));
    let prack = s.b_receives("PRACK");
    assert_eq!(prack.header("RAck"), Some("7 2 INVITE"));
}

#[test]
fn a_cancel_that_was_wanted_goes_out_when_an_orphan_rings() {
    let mut s = Script::new();
    s.a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.a_cancels();
    s.a_receives("200");
    s.a_receives("487");
    s.reset(B);
    s.b_answers(180);
    s.b_receives("CANCEL");
}

#[test]
fn a_408_to_another_request_than_invite_is_not_passed_on() {
    let mut s = Script::established();
    s.at(0).a_sends(request("INFO"));
    s.b_receives("INFO");
    s.b_answers(408);
    s.nothing_happens();
}

#[test]
fn a_late_180_after_a_cancel_leaves_nothing_behind() {
    let mut s = Script::new();
    s.a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.a_cancels();
    s.a_receives("200");
    s.a_receives("487");
    s.b_receives("CANCEL");
    s.reset(B);
    s.b_answers(180);
    s.until(600_000);
    let stats = s.stats();
    assert_eq!((stats.calls, stats.clients, stats.servers, stats.timers), (0, 0, 0, 0));
}

#[test]
fn a_bye_in_a_recovery_and_a_late_2xx_leave_nothing_behind() {
    let (mut s, _) = waiting();
    s.at(100).a_sends(request("BYE"));
    s.a_receives("200");
    s.a_receives("487");
    s.a_acknowledges();
    s.b_receives("BYE");
    s.b_answers_earlier(1, 200);
    s.b_receives("ACK");
    s.b_answers(200);
    s.until(100_000);
    let stats = s.stats();
    assert_eq!((stats.calls, stats.clients, stats.servers, stats.timers), (0, 0, 0, 0));
}

#[test]
fn a_2xx_that_crosses_the_cancel_of_a_repeated_attempt_is_passed_on() {
    let (mut s, _) = waiting();
    s.at(510);
    s.b_receives("INVITE");
    s.b_answers(100);
    s.a_cancels();
    s.a_receives("200");
    s.b_receives("CANCEL");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.call_is_up();
}

#[test]
fn a_reinvite_with_a_delayed_offer_is_recovered() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite().without_offer());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.at(10).reset(B);
    s.at(510);
    s.b_receives("INVITE");
    s.b_answers(200);
    s.a_receives("200");
    // 2xx of the first attempt comes late, while the ACK of the second waits for its body
    s.b_answers_earlier(1, 200);
    s.b_receives("ACK");
    s.a_acknowledges();
    s.b_receives("ACK");
    s.call_is_up();
}

#[test]
fn a_late_408_while_the_ack_of_a_newer_attempt_waits_changes_nothing() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite().without_offer());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.at(10).reset(B);
    s.at(510);
    s.b_receives("INVITE");
    s.b_answers(200);
    s.a_receives("200");
    s.b_answers_earlier(1, 408);
    s.b_receives("ACK");
    s.a_acknowledges();
    s.b_receives("ACK");
    s.call_is_up();
}
