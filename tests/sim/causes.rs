//! What counts as a transport failure, what may still come of a failed attempt, and when the options
//! count.

use holdfast::sip::FlowError;

use crate::network::{Cut, Flight, Listener};
use crate::scenario::cut_peer;
use crate::scenarios::{DELAY, REASON, WINDOW, waiting};
use crate::script::{B, Script, reinvite};

/// A re-INVITE of A is with B, unanswered.
fn asked(delay: u64, window: u64) -> Script {
    let mut s = Script::established().option(DELAY, delay).option(WINDOW, window);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s
}

/// The call was given up: both are told.
fn given_up(s: &mut Script) {
    s.a_receives("408");
    s.a_acknowledges();
    assert_eq!(s.a_receives("BYE").text("Reason"), REASON);
    s.a_answers(200);
}

#[test]
fn reinvite_is_sent_again_when_the_peer_closes_the_flow_in_order() {
    let mut s = asked(500, 0);
    let fin = Cut {
        flight: [Flight::Delivered; 2],
        told_after: [0; 2],
        error: FlowError::Closed,
        silent: false,
    };
    s.at(10);
    cut_peer(&mut s.world, B, fin);
    s.settle();
    s.until(509).nothing_happens();
    s.at(510).connects_to(B);
    s.b_receives("INVITE");
}

#[test]
fn reinvite_is_sent_again_when_the_connect_finds_no_way_or_no_answer() {
    // A connect that nobody answers has failed after connect-timeout.
    for (listener, failed) in [(Listener::Unreachable, 0), (Listener::Silent, 4000)] {
        let mut s = Script::established().option(DELAY, 500);
        s.reset(B);
        s.listen(B, listener);
        s.at(0).a_sends(reinvite());
        s.connects_to(B);
        s.a_receives("100");
        s.until(failed + 499).nothing_happens();
        s.at(failed + 500).connects_to(B);
        s.accept(B);
    }
}

#[test]
fn a_connect_that_nobody_answers_is_cut_at_the_deadline() {
    let mut s = Script::established().option(DELAY, 500).option(WINDOW, 6);
    s.reset(B);
    s.listen(B, Listener::Silent);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.connects_to(B);
    s.at(4500).connects_to(B);
    // The first failure was at 4000 ms: the connect would time out at 8500 and the window is over at
    // 10,000; the next one begins at 9000.
    s.at(9000).connects_to(B);
    s.until(9999).nothing_happens();
    s.at(10_000);
    given_up(&mut s);
}

#[test]
fn late_failures_of_an_orphan_get_their_ack_and_change_nothing() {
    for status in [302, 486, 500, 503, 603] {
        let (mut s, first) = waiting();
        s.at(100).b_answers(status);
        let ack = s.b_receives("ACK");
        assert_eq!((ack.branch(), ack.cseq().0), (first.branch(), first.cseq().0));
        s.until(509).nothing_happens();
        s.at(510).b_receives("INVITE");
    }
}

#[test]
fn late_481_or_408_of_an_orphan_gets_its_ack_and_ends_the_leg() {
    for status in [481, 408] {
        let (mut s, first) = waiting();
        s.at(100).b_answers(status);
        assert_eq!(s.b_receives("ACK").branch(), first.branch());
        s.a_receives(&status.to_string());
        s.a_acknowledges();
        s.a_receives("BYE");
        s.a_answers(200);
        s.b_receives("BYE");
        s.b_answers(481);
        s.call_is_over();
    }
}

#[test]
fn an_orphan_is_remembered_for_64_t1_after_its_failure() {
    for (late, known) in [(31_900, true), (32_100, false)] {
        let mut s = asked(5000, 34);
        s.at(10).reset(B);
        s.at(5010).b_receives("INVITE");
        s.b_answers(200);
        s.b_receives("ACK");
        s.a_receives("200");
        s.a_acknowledges();
        s.at(10 + late).b_answers_earlier(1, 200);
        if known {
            s.b_receives("ACK");
        }
        s.nothing_happens();
    }
}

#[test]
fn the_ack_of_a_2xx_is_kept_for_64_t1() {
    let (mut s, _) = waiting();
    s.at(510).b_receives("INVITE");
    s.b_answers(200);
    let ack = s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    for late in [510 + 31_900, 510 + 32_400] {
        s.at(late).b_answers(200);
        assert_eq!(s.b_receives("ACK"), ack);
    }
    s.at(510 + 32_600).b_answers(200);
    s.nothing_happens();
}

#[test]
fn a_late_2xx_on_another_flow_is_acknowledged_on_that_flow() {
    let (mut s, _) = waiting();
    s.refuse(B);
    s.at(100).b_answers(200);
    s.b_receives("ACK");
    assert_eq!(s.connections(), 0, "the flow of the 2xx is the only way");
    s.a_receives("200");
}

#[test]
fn a_window_that_shrinks_during_the_wait_counts_when_the_wait_ends() {
    let mut s = asked(5000, 0);
    s.reset(B);
    s.at(1000).set(WINDOW, 4);
    s.until(4999).nothing_happens();
    s.at(5000);
    given_up(&mut s);
}

#[test]
fn a_window_that_grows_during_an_attempt_moves_its_end() {
    let mut s = asked(500, 3);
    s.reset(B);
    s.at(500).b_receives("INVITE");
    s.at(1000).set(WINDOW, 6);
    s.until(5999).nothing_happens();
    s.at(6000);
    given_up(&mut s);
}

#[test]
fn recovery_that_is_switched_off_during_the_wait_lets_the_wait_run_and_ends_the_next_failure() {
    let (mut s, _) = waiting();
    s.set(DELAY, 0);
    s.at(510).b_receives("INVITE");
    s.at(600).reset(B);
    given_up(&mut s);
}

#[test]
fn recovery_that_is_switched_on_for_a_device_counts_at_its_next_failure() {
    let mut s = Script::established().option(DELAY, 0).device_option(0);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    let mut s = s.device_option(700);
    s.at(10).reset(B);
    s.until(709).nothing_happens();
    s.at(710).b_receives("INVITE");
}

#[test]
fn a_number_with_escapes_is_the_number_that_they_stand_for() {
    let mut s = Script::new();
    s.a_calls("%31001");
    s.a_receives("100");
    s.b_receives("INVITE");
}
