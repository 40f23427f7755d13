//! What recovery does not change, and the answers that it does not take for failures; session timers.

use crate::scenarios::{DELAY, WINDOW, waiting};
use crate::script::{B, Script, reinvite, request};

const METHODS: [&str; 6] = ["INFO", "UPDATE", "REFER", "NOTIFY", "MESSAGE", "OPTIONS"];

#[test]
fn every_other_request_opens_one_new_connection_and_its_failure_is_told_and_the_call_stays() {
    for method in METHODS {
        let mut s = Script::established().option(DELAY, 500);
        s.at(0).a_sends(request(method));
        s.b_receives(method);
        s.at(10).reset(B);
        s.connects_to(B);
        s.b_receives(method);
        s.at(20).reset(B);
        assert_eq!(s.connections(), 0, "{method}");
        s.a_receives("503");
        s.until(40_000).nothing_happens();
        s.call_is_up();
    }
}

#[test]
fn every_other_request_that_is_never_answered_ends_with_timer_f_and_the_call_stays() {
    for method in METHODS {
        let mut s = Script::established().option(DELAY, 500);
        s.at(0).a_sends(request(method));
        s.b_receives(method);
        s.until(40_000).nothing_happens();
        assert_eq!(s.stats().clients, 0, "{method}");
        s.call_is_up();
    }
}

#[test]
fn a_bye_that_cannot_be_delivered_is_given_up_after_one_new_connection() {
    let mut s = Script::established().option(DELAY, 500);
    s.reset(B);
    s.refuse(B);
    s.at(0).a_sends(request("BYE"));
    s.a_receives("200");
    s.connects_to(B);
    s.until(40_000).nothing_happens();
    s.call_is_over();
}

#[test]
fn error_info_and_retry_after_together_mean_the_larger_wait() {
    for (delay, due) in [(500, 2000), (3000, 3000)] {
        let mut s = Script::established().option(DELAY, delay);
        s.at(0).a_sends(reinvite());
        s.a_receives("100");
        s.b_receives("INVITE");
        let both = [("Error-Info", "<urn:x:transport-error>"), ("Retry-After", "2")];
        s.b_answers_with(503, &both);
        s.b_receives("ACK");
        s.until(due - 1).nothing_happens();
        s.at(due).b_receives("INVITE");
    }
}

#[test]
fn error_info_where_the_delay_is_zero_releases_the_call() {
    let mut s = Script::established().option(DELAY, 0);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers_with(503, &[("Error-Info", "transport-error")]);
    s.b_receives("ACK");
    s.a_receives("408");
    s.a_receives("BYE");
    s.b_receives("BYE");
}

#[test]
fn a_busy_peer_that_says_how_long_is_asked_again_then() {
    let (mut s, _) = waiting();
    s.at(510).b_receives("INVITE");
    s.b_answers_with(500, &[("Retry-After", "2")]);
    s.b_receives("ACK");
    s.until(2509).nothing_happens();
    s.at(2510).b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
}

#[test]
fn a_busy_peer_is_an_answer_like_any_other_to_a_first_attempt() {
    for status in [500, 491] {
        let mut s = Script::established().option(DELAY, 500);
        s.at(0).a_sends(reinvite());
        s.a_receives("100");
        s.b_receives("INVITE");
        s.b_answers_with(status, &[("Retry-After", "2")]);
        s.b_receives("ACK");
        s.a_receives(&status.to_string());
        s.a_acknowledges();
        s.until(5000).nothing_happens();
        s.call_is_up();
    }
}

#[test]
fn glare_of_a_repeated_attempt_is_tried_again_after_the_pause_of_rfc_3261_14_1() {
    let (mut s, _) = waiting();
    s.at(510).b_receives("INVITE");
    s.b_answers(491);
    s.b_receives("ACK");
    // The server made the Call-ID of this leg: 2.1 to 4 s.
    s.until(510 + 2099).nothing_happens();
    s.until(510 + 4002);
    s.b_receives("INVITE");
}

#[test]
fn a_pause_that_a_busy_peer_asks_for_and_that_does_not_fit_ends_the_call() {
    let mut s = Script::established().option(DELAY, 500).option(WINDOW, 3);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.reset(B);
    s.at(500).b_receives("INVITE");
    s.b_answers_with(500, &[("Retry-After", "3")]);
    s.b_receives("ACK");
    s.a_receives("408");
    s.a_receives("BYE");
    s.b_receives("BYE");
}

#[test]
fn a_final_answer_of_another_kind_ends_the_recovery_and_is_passed_on() {
    let (mut s, _) = waiting();
    s.at(510).b_receives("INVITE");
    s.b_answers(488);
    s.b_receives("ACK");
    s.a_receives("488");
    s.a_acknowledges();
    assert_eq!(s.stats().recoveries_succeeded, 1);
    s.until(5000).nothing_happens();
    s.call_is_up();
}

#[test]
fn a_dialog_that_the_peer_does_not_know_any_more_ends_with_the_recovery() {
    let (mut s, _) = waiting();
    s.at(510).b_receives("INVITE");
    s.b_answers(481);
    s.b_receives("ACK");
    s.a_receives("481");
    s.a_acknowledges();
    assert!(s.a_receives("BYE").text("Reason").contains("cause=481"));
    s.a_answers(200);
    s.b_receives("BYE");
    s.b_answers(481);
    s.call_is_over();
}

/// A call whose peers agreed to refresh it every `seconds`.
fn with_session_timer(seconds: &str) -> Script {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers_with(200, &[("Session-Expires", seconds)]);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s
}

/// Nothing happens until the session is over, and then the call is.
fn expires_at(s: &mut Script, end: u64) {
    s.until(end - 1).nothing_happens();
    s.at(end);
    assert!(s.a_receives("BYE").text("Reason").contains("session expired"));
    s.a_answers(200);
    s.b_receives("BYE");
    s.b_answers(200);
    s.call_is_over();
}

#[test]
fn a_session_that_is_not_refreshed_ends_before_its_interval_does() {
    // A third of the interval before its end, at most 32 s (RFC 4028 §10); never below 90 s (§4).
    for (seconds, end) in [("90;refresher=uac", 60_000), ("1800", 1_768_000), ("1", 60_000)] {
        let mut s = with_session_timer(seconds);
        expires_at(&mut s, end);
    }
}

#[test]
fn a_refresh_begins_the_interval_anew_and_one_without_timer_ends_it() {
    let mut s = with_session_timer("90");
    s.at(40_000).a_sends(request("UPDATE"));
    s.b_receives("UPDATE");
    s.b_answers_with(200, &[("Session-Expires", "90")]);
    s.a_receives("200");
    s.until(99_999).nothing_happens();
    s.a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.until(400_000).nothing_happens();
    s.call_is_up();
}

#[test]
fn the_last_refresh_counts_whether_its_interval_is_shorter_or_longer() {
    for (first, second, end) in [("90", "1800", 1_808_000), ("1800", "90", 100_000)] {
        let mut s = with_session_timer(first);
        s.at(40_000).a_sends(request("UPDATE"));
        s.b_receives("UPDATE");
        s.b_answers_with(200, &[("Session-Expires", second)]);
        s.a_receives("200");
        expires_at(&mut s, end);
    }
}

#[test]
fn a_session_that_expires_during_the_wait_ends_with_bye() {
    let mut s = with_session_timer("90").option(DELAY, 20_000);
    s.at(45_000).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.reset(B);
    s.until(59_999).nothing_happens();
    s.at(60_000).a_receives("408");
    s.a_acknowledges();
    assert!(s.a_receives("BYE").text("Reason").contains("session expired"));
    s.a_answers(200);
    s.b_receives("BYE");
    s.b_answers(200);
    s.until(120_000).nothing_happens();
    s.call_is_over();
}

#[test]
fn an_update_of_the_device_during_the_wait_is_answered_and_its_flow_is_the_legs() {
    let (mut s, _) = waiting();
    s.refuse(B);
    s.at(100).b_sends(request("UPDATE"));
    s.a_receives("UPDATE");
    s.a_answers(200);
    s.b_receives("200");
    s.until(509).nothing_happens();
    s.at(510);
    assert_eq!(s.connections(), 0);
    s.b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
}
