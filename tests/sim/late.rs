//! Answers, cancels and acknowledgements that come when nobody expects them any more.

use crate::message::Msg;
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

/// A re-INVITE without offer was lost, and its second attempt is with B.
fn delayed_offer_sent_again() -> (Script, Msg) {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite().without_offer());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.at(10).reset(B);
    s.at(510);
    let newer = s.b_receives("INVITE");
    (s, newer)
}

#[test]
fn a_reinvite_with_a_delayed_offer_is_recovered() {
    let (mut s, _) = delayed_offer_sent_again();
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
    let (mut s, _) = delayed_offer_sent_again();
    s.b_answers(200);
    s.a_receives("200");
    s.b_answers_earlier(1, 408);
    s.b_receives("ACK");
    s.a_acknowledges();
    s.b_receives("ACK");
    s.call_is_up();
}

/// Two attempts of a re-INVITE were lost, and in the second wait a 100 to the older one came.
fn the_older_is_adopted() -> (Script, Msg) {
    let (mut s, _) = waiting();
    s.at(510);
    let newer = s.b_receives("INVITE");
    s.at(520).reset(B);
    s.at(530).b_answers_earlier(1, 100);
    (s, newer)
}

#[test]
fn a_2xx_to_the_newest_attempt_is_success_although_an_older_one_was_adopted() {
    let (mut s, newer) = the_older_is_adopted();
    s.at(540).b_answers(200);
    assert_eq!(s.b_receives("ACK").cseq().0, newer.cseq().0);
    s.a_receives("200");
    s.a_acknowledges();
    s.until(300_000).nothing_happens();
    s.call_is_up();
}

#[test]
fn what_the_older_attempt_is_answered_after_the_success_of_the_newest_changes_nothing() {
    for status in [100, 180, 200, 408, 481, 487, 488, 491, 500, 503] {
        let (mut s, newer) = the_older_is_adopted();
        s.at(540).b_answers(200);
        assert_eq!(s.b_receives("ACK").cseq().0, newer.cseq().0);
        s.a_receives("200");
        s.a_acknowledges();
        s.at(550).b_answers_earlier(1, status);
        match status {
            200.. => assert_eq!(s.b_receives("ACK").cseq().0, newer.cseq().0 - 1),
            // Rings, and nobody waits for it.
            180 => assert_eq!(s.b_receives("CANCEL").cseq().0, newer.cseq().0 - 1),
            _ => {}
        }
        s.until(60_000).nothing_happens();
        s.call_is_up();
    }
}

#[test]
fn the_newest_attempt_that_is_heard_of_takes_the_place_of_an_older_one() {
    for status in [408, 481, 487, 488, 491, 500, 503] {
        let (mut s, newer) = the_older_is_adopted();
        s.at(540).b_answers(180);
        s.a_receives("180");
        // The older one is superseded; what it is answered is no answer to the operation any more,
        // but that the dialog is gone.
        s.at(550).b_answers_earlier(1, status);
        assert_eq!(s.b_receives("ACK").cseq().0, newer.cseq().0 - 1);
        if matches!(status, 408 | 481) {
            s.a_receives(&status.to_string());
            s.a_receives("BYE");
            continue;
        }
        s.nothing_happens();
        s.at(560).b_answers(200);
        assert_eq!(s.b_receives("ACK").cseq().0, newer.cseq().0);
        s.a_receives("200");
        s.a_acknowledges();
        s.until(300_000).nothing_happens();
        s.call_is_up();
    }
}

#[test]
fn a_2xx_to_the_adopted_attempt_is_success_although_a_newer_one_was_lost() {
    for late in [200, 480, 481, 500] {
        let (mut s, newer) = the_older_is_adopted();
        s.at(540).b_answers_earlier(1, 200);
        assert_eq!(s.b_receives("ACK").cseq().0, newer.cseq().0 - 1);
        s.a_receives("200");
        s.a_acknowledges();
        s.at(550).b_answers(late);
        assert_eq!(s.b_receives("ACK").cseq().0, newer.cseq().0);
        s.until(60_000).nothing_happens();
        s.call_is_up();
    }
}

#[test]
fn a_peer_that_refuses_the_newest_attempt_as_busy_may_still_answer_the_adopted_one() {
    for status in [491, 500] {
        let (mut s, newer) = the_older_is_adopted();
        s.at(540).b_answers(status);
        assert_eq!(s.b_receives("ACK").cseq().0, newer.cseq().0);
        s.nothing_happens();
        s.at(3000).b_answers_earlier(1, 200);
        assert_eq!(s.b_receives("ACK").cseq().0, newer.cseq().0 - 1);
        s.a_receives("200");
        s.a_acknowledges();
        s.call_is_up();
    }
}

#[test]
fn the_flow_of_a_superseded_attempt_may_die_without_harm() {
    let (mut s, newer) = the_older_is_adopted();
    s.at(540).b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.at(550).reset(B);
    s.until(5000).nothing_happens();
    s.b_answers_earlier(1, 200);
    assert_eq!(s.b_receives("ACK").cseq().0, newer.cseq().0 - 1);
    s.call_is_up();
}

#[test]
fn a_cancel_goes_on_to_the_attempt_that_takes_the_place_of_a_cancelled_one() {
    let (mut s, newer) = the_older_is_adopted();
    s.at(540).a_cancels();
    s.a_receives("200");
    assert_eq!(s.b_receives("CANCEL").cseq().0, newer.cseq().0 - 1);
    s.at(550).b_answers(180);
    s.a_receives("180");
    assert_eq!(s.b_receives("CANCEL").cseq().0, newer.cseq().0);
    s.b_answers_earlier(1, 487);
    assert_eq!(s.b_receives("ACK").cseq().0, newer.cseq().0 - 1);
    s.nothing_happens();
    s.b_answers(487);
    assert_eq!(s.b_receives("ACK").cseq().0, newer.cseq().0);
    s.a_receives("487");
    s.a_acknowledges();
    s.until(60_000).nothing_happens();
    s.call_is_up();
}

#[test]
fn a_delayed_offer_is_answered_by_the_newest_attempt_although_an_older_one_was_adopted() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite().without_offer());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.at(10).reset(B);
    s.at(510).b_receives("INVITE");
    s.at(520).reset(B);
    s.at(530).b_answers_earlier(1, 100);
    s.at(540).b_answers(200);
    s.a_receives("200");
    s.b_answers_earlier(1, 481);
    s.b_receives("ACK");
    s.a_acknowledges();
    s.b_receives("ACK");
    s.until(60_000).nothing_happens();
    s.call_is_up();
}

/// True when all media are to stop.
fn is_quiet(ack: &Msg) -> bool {
    String::from_utf8_lossy(&ack.body).contains("a=inactive\r\nm=audio")
}

#[test]
fn a_late_2xx_to_an_older_delayed_offer_gets_an_answer_that_stops_all_media() {
    let (mut s, newer) = delayed_offer_sent_again();
    // RFC 3261 §13.2.2.4: an ACK has the answer to the offer of its 2xx.
    s.at(520).b_answers_earlier(1, 200);
    let ack = s.b_receives("ACK");
    assert_eq!(ack.cseq().0, newer.cseq().0 - 1);
    assert_eq!(ack.header("Content-Type"), Some("application/sdp"));
    assert!(is_quiet(&ack));
    s.at(530).b_answers(200);
    s.a_receives("200");
    // The answer to the newest offer is the caller's own.
    s.a_acknowledges();
    let ack = s.b_receives("ACK");
    assert_eq!(ack.cseq().0, newer.cseq().0);
    assert!(!is_quiet(&ack));
    // Once the operation is over, too.
    s.at(540).b_answers_earlier(1, 200);
    assert!(is_quiet(&s.b_receives("ACK")));
    s.call_is_up();
}

#[test]
fn a_2xx_that_follows_the_503_of_a_proxy_is_acknowledged_and_ends_the_wait() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    let first = s.b_receives("INVITE");
    s.b_answers_with(503, &[("Error-Info", "<transport-error>")]);
    s.b_receives("ACK");
    // The peer had accepted, and its answer finds another way.
    s.at(100).b_answers(200);
    assert_eq!(s.b_receives("ACK").cseq().0, first.cseq().0);
    s.a_receives("200");
    s.a_acknowledges();
    s.until(60_000).nothing_happens();
    s.call_is_up();
}
