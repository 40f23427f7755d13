//! Calls over UDP: RFC 3261 §17 with all its timers, and what recovery leaves alone.

use crate::message::Msg;
use crate::network::Listener;
use crate::peer::MS;
use crate::scenarios::DELAY;
use crate::script::{A, B, C, Script, reinvite, request};
use crate::swarm::{SERVER, peer_addr};

/// A call from A to B, both over UDP.
pub(crate) fn established() -> Script {
    Script::new().over_udp(&[A, B]).establish()
}

/// What the server sent to a peer since the call began: when, in milliseconds, and the bytes.
pub(crate) fn sent_to(s: &Script, peer: usize, what: &str) -> Vec<(u64, Vec<u8>)> {
    let sent = s.world.packets.sent.iter().filter(|(_, to, _)| *to == peer_addr(peer));
    let is_it = |bytes: &[u8]| {
        let msg = Msg::parse(bytes).expect("a message");
        if msg.is_response() { what.parse() == Ok(msg.status()) } else { what == msg.method() }
    };
    sent.filter(|(at, _, bytes)| *at >= s.zero() && is_it(bytes))
        .map(|(at, _, bytes)| ((at - s.zero()) / MS, bytes.clone()))
        .collect()
}

#[track_caller]
pub(crate) fn same_bytes_at(sent: &[(u64, Vec<u8>)], times: &[u64]) {
    let when: Vec<u64> = sent.iter().map(|(at, _)| *at).collect();
    assert_eq!(when, times);
    assert!(sent.windows(2).all(|two| two[0].1 == two[1].1), "the bytes differ");
}

/// Timer A and nothing else: T1 doubled until timer B.
const SCHEDULE_A: [u64; 7] = [0, 500, 1500, 3500, 7500, 15_500, 31_500];
/// Timers E and G: T1 doubled to T2 until 64·T1.
const SCHEDULE_E: [u64; 11] =
    [0, 500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500];

/// Takes everything out of a peer's inbox.
fn drop_inbox(s: &mut Script, peer: usize) -> usize {
    s.world.peers[peer].inbox.drain(..).count()
}

#[test]
fn a_call_over_udp_names_udp_in_via_and_contact_on_both_legs() {
    let mut s = Script::new().over_udp(&[A, B]);
    s.a_calls("1001");
    s.a_receives("100");
    let invite = s.b_receives("INVITE");
    assert!(invite.text("Via").starts_with(&format!("SIP/2.0/UDP {SERVER};")), "{invite}");
    assert_eq!(invite.text("Contact"), format!("<sip:{SERVER};transport=udp>"));
    s.b_answers(200);
    let ack = s.b_receives("ACK");
    assert!(ack.text("Via").starts_with("SIP/2.0/UDP"), "{ack}");
    let answer = s.a_receives("200");
    assert_eq!(answer.text("Contact"), format!("<sip:{SERVER};transport=udp>"));
    s.a_acknowledges();
    s.nothing_happens();
    s.call_is_up();
    s.b_sends(request("BYE"));
    s.b_receives("200");
    s.a_receives("BYE");
    s.a_answers(200);
    s.call_is_over();
    assert_eq!(s.stats().flows, 0, "idle flows are forgotten");
}

#[test]
fn one_leg_over_udp_and_one_over_tcp_name_each_their_own() {
    for (over_udp, caller, callee) in [(A, "udp", "tcp"), (B, "tcp", "udp")] {
        let mut s = Script::new().over_udp(&[over_udp]);
        s.a_calls("1001");
        s.a_receives("100");
        let invite = s.b_receives("INVITE");
        assert_eq!(invite.text("Contact"), format!("<sip:{SERVER};transport={callee}>"));
        s.b_answers(200);
        s.b_receives("ACK");
        let answer = s.a_receives("200");
        assert_eq!(answer.text("Contact"), format!("<sip:{SERVER};transport={caller}>"));
        s.a_acknowledges();
        s.call_is_up();
    }
}

#[test]
fn an_invite_is_sent_again_by_timer_a_until_timer_b_and_the_caller_gets_408() {
    let mut s = Script::new().over_udp(&[A, B]);
    s.a_calls("1001");
    s.a_receives("100");
    s.until(31_999);
    same_bytes_at(&sent_to(&s, B, "INVITE"), &SCHEDULE_A);
    assert_eq!(drop_inbox(&mut s, B), SCHEDULE_A.len());
    s.nothing_happens();
    s.at(32_000).a_receives("408");
    s.a_acknowledges();
    s.until(70_000).nothing_happens();
    s.call_is_over();
}

#[test]
fn a_provisional_response_ends_timer_a() {
    let mut s = Script::new().over_udp(&[A, B]);
    s.a_calls("1001");
    s.a_receives("100");
    s.at(600);
    drop_inbox_but_last(&mut s, B);
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.until(60_000).nothing_happens();
    same_bytes_at(&sent_to(&s, B, "INVITE"), &[0, 500]);
}

fn drop_inbox_but_last(s: &mut Script, peer: usize) {
    let inbox = &mut s.world.peers[peer].inbox;
    let count = inbox.len();
    inbox.drain(..count - 1);
}

#[test]
fn a_lost_invite_is_sent_again_and_the_call_comes_about() {
    let mut s = Script::new().over_udp(&[A, B]);
    s.world.packets.lose.insert(peer_addr(B), 2);
    s.a_calls("1001");
    s.a_receives("100");
    s.until(1499).nothing_happens();
    s.at(1500).b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.call_is_up();
}

#[test]
fn a_final_response_is_acknowledged_each_time_it_comes_until_timer_d() {
    let mut s = established();
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(488);
    s.b_receives("ACK");
    s.a_receives("488");
    s.a_acknowledges();
    for at in [500, 1500, 31_999] {
        s.at(at).b_answers(488);
        s.b_receives("ACK");
    }
    let acks = sent_to(&s, B, "ACK");
    same_bytes_at(&acks, &[0, 500, 1500, 31_999]);
    s.at(32_001).b_answers(488);
    s.nothing_happens();
    s.call_is_up();
}

#[test]
fn another_request_is_sent_again_by_timer_e_until_timer_f() {
    let mut s = established();
    s.at(0).a_sends(request("INFO"));
    s.until(63_999);
    same_bytes_at(&sent_to(&s, B, "INFO"), &SCHEDULE_E);
    drop_inbox(&mut s, B);
    s.nothing_happens();
    // What A sends again now is absorbed, until timer J.
    assert_eq!((s.stats().clients, s.stats().servers), (0, 1));
    s.a_repeats();
    s.nothing_happens();
    s.at(64_000);
    assert_eq!(s.stats().servers, 0);
    s.call_is_up();
}

#[test]
fn after_a_provisional_response_timer_e_is_t2() {
    let mut s = established();
    s.at(0).a_sends(request("INFO"));
    s.at(100).b_receives("INFO");
    s.b_answers(183);
    s.until(40_000);
    let times = [0, 500, 4500, 8500, 12_500, 16_500, 20_500, 24_500, 28_500];
    same_bytes_at(&sent_to(&s, B, "INFO"), &times);
}

#[test]
fn repeated_answers_of_another_request_are_absorbed_until_timer_k() {
    let mut s = established();
    let before = s.stats().clients;
    s.at(0).a_sends(request("INFO"));
    s.b_receives("INFO");
    s.b_answers(200);
    s.a_receives("200");
    s.at(100).b_answers(200);
    s.nothing_happens();
    s.at(4999);
    assert_eq!(s.stats().clients, before + 1);
    s.at(5000);
    assert_eq!(s.stats().clients, before);
    s.b_answers(200);
    s.nothing_happens();
}

#[test]
fn a_refused_invite_is_answered_again_by_timer_g_until_timer_h() {
    let mut s = established();
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(488);
    s.b_receives("ACK");
    s.until(40_000);
    same_bytes_at(&sent_to(&s, A, "488"), &SCHEDULE_E);
    drop_inbox(&mut s, A);
    assert_eq!(s.stats().servers, 0);
    s.call_is_up();
}

#[test]
fn the_ack_ends_timer_g_and_timer_i_absorbs_what_repeats_it() {
    let mut s = established();
    let before = s.stats().servers;
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(488);
    s.b_receives("ACK");
    s.a_receives("488");
    s.at(500).a_receives("488");
    s.a_acknowledges();
    s.at(600).a_acknowledges();
    s.a_repeats_invite();
    s.until(5499).nothing_happens();
    assert_eq!(s.stats().servers, before + 1);
    s.at(5500).nothing_happens();
    assert_eq!(s.stats().servers, before);
}

#[test]
fn a_repeated_request_draws_the_last_response_again_and_creates_nothing() {
    let mut s = established();
    let before = s.stats().servers;
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.at(10).a_repeats_invite();
    s.a_receives("100");
    same_bytes_at(&sent_to(&s, A, "100"), &[0, 10]);
    s.b_answers(180);
    s.a_receives("180");
    s.at(20).a_repeats_invite();
    s.a_receives("180");
    s.b_answers(488);
    s.b_receives("ACK");
    s.a_receives("488");
    s.at(30).a_repeats_invite();
    s.a_receives("488");
    s.nothing_happens();
    assert_eq!(s.stats().calls, 1);
    assert_eq!(s.stats().servers, before + 1);
}

#[test]
fn a_repeated_request_other_than_invite_is_answered_again_until_timer_j() {
    let mut s = established();
    s.at(0).a_sends(request("INFO"));
    s.b_receives("INFO");
    s.at(10).a_repeats();
    s.nothing_happens();
    s.b_answers(200);
    let first = s.a_receives("200");
    s.at(20).a_repeats();
    assert_eq!(s.a_receives("200"), first);
    s.at(32_009).a_repeats();
    assert_eq!(s.a_receives("200"), first);
    s.at(32_011);
    assert_eq!(s.stats().servers, 0);
}

#[test]
fn a_lost_answer_to_bye_is_sent_again_when_the_bye_comes_again() {
    let mut s = established();
    s.world.packets.lose.insert(peer_addr(A), 1);
    s.at(0).a_sends(request("BYE"));
    s.b_receives("BYE");
    s.b_answers(200);
    s.nothing_happens();
    s.at(500).a_repeats();
    s.a_receives("200");
    s.nothing_happens();
    s.call_is_over();
}

#[test]
fn a_lost_200_to_invite_is_sent_again_until_its_ack() {
    let mut s = established();
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.world.packets.lose.insert(peer_addr(A), 2);
    s.b_answers(200);
    s.b_receives("ACK");
    s.until(1499).nothing_happens();
    s.at(1500).a_receives("200");
    s.a_acknowledges();
    s.until(40_000).nothing_happens();
    same_bytes_at(&sent_to(&s, A, "200"), &[0, 500, 1500]);
    s.call_is_up();
}

#[test]
fn a_200_that_comes_again_gets_the_same_ack_again() {
    let mut s = established();
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(200);
    let ack = s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.at(500).b_answers(200);
    assert_eq!(s.b_receives("ACK"), ack);
    s.nothing_happens();
}

#[test]
fn a_200_without_ack_ends_the_call_after_64_t1() {
    let mut s = established();
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.until(31_999);
    drop_inbox(&mut s, A);
    s.at(32_000).a_receives("BYE");
    s.a_answers(200);
    s.b_receives("BYE");
    s.b_answers(200);
    s.call_is_over();
}

#[test]
fn a_lost_cancel_is_sent_again_until_it_is_answered() {
    let mut s = Script::new().over_udp(&[A, B]);
    s.a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.world.packets.lose.insert(peer_addr(B), 1);
    s.at(100).a_cancels();
    s.a_receives("200");
    s.a_receives("487");
    s.a_acknowledges();
    s.until(599).nothing_happens();
    let cancel = s.at(600).b_receives("CANCEL");
    s.b_answers_message(&cancel, 200);
    s.until(20_000).nothing_happens();
    same_bytes_at(&sent_to(&s, B, "CANCEL"), &[100, 600]);
    s.b_answers(487);
    s.b_receives("ACK");
    s.call_is_over();
}

#[test]
fn an_icmp_error_to_a_reinvite_is_a_503_and_the_call_stays_without_recovery() {
    let mut s = established().option(DELAY, 500);
    s.refuse(B);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.a_receives("503");
    s.a_acknowledges();
    s.until(40_000).nothing_happens();
    assert_eq!(s.stats().recoveries_started, 0);
    let events = &s.world.checker.events;
    assert!(!events.is_empty() && events.iter().all(|it| it.content.user_event().is_none()));
    s.accept(B);
    s.call_is_up();
}

#[test]
fn an_icmp_error_after_a_provisional_response_is_a_503_as_well() {
    let mut s = established().option(DELAY, 500);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.icmp(B);
    s.a_receives("503");
    s.a_acknowledges();
    s.until(40_000).nothing_happens();
    assert_eq!(s.stats().recoveries_started, 0);
    s.call_is_up();
}

#[test]
fn an_icmp_error_to_another_request_is_a_503_at_once() {
    let mut s = established();
    s.refuse(B);
    s.at(0).a_sends(request("INFO"));
    s.a_receives("503");
    s.until(20_000).nothing_happens();
    same_bytes_at(&sent_to(&s, B, "INFO"), &[0]);
    s.accept(B);
    s.call_is_up();
}

#[test]
fn an_icmp_error_to_a_new_invite_is_a_503_and_the_next_target_gets_it_first() {
    let mut s = Script::new().over_udp(&[A, B]).backup_over_udp();
    s.refuse(B);
    s.a_calls("1001");
    s.a_receives("100");
    s.c_receives("INVITE");
    s.icmp(C);
    s.a_receives("503");
    s.a_acknowledges();
    s.until(40_000).nothing_happens();
    s.call_is_over();
}

#[test]
fn a_timer_b_over_udp_is_a_timeout_without_recovery() {
    let mut s = established().option(DELAY, 500);
    s.listen(B, Listener::Silent);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.until(31_999).nothing_happens();
    same_bytes_at(&sent_to(&s, B, "INVITE"), &SCHEDULE_A);
    s.at(32_000).a_receives("408");
    s.a_receives("BYE");
    assert_eq!(s.stats().recoveries_started, 0);
}

#[test]
fn answers_that_stand_for_a_transport_failure_are_passed_on_over_udp() {
    let transport_error = [("Error-Info", "<urn:x:transport-error>")];
    let later = [("Retry-After", "2")];
    for headers in [&transport_error[..], &later[..], &[]] {
        let mut s = established().option(DELAY, 500).listed(&[503]);
        s.at(0).a_sends(reinvite());
        s.a_receives("100");
        s.b_receives("INVITE");
        s.b_answers_with(503, headers);
        s.b_receives("ACK");
        s.a_receives("503");
        s.a_acknowledges();
        s.until(40_000).nothing_happens();
        assert_eq!(s.stats().recoveries_started, 0);
        s.call_is_up();
    }
}

#[test]
fn the_tcp_leg_of_a_call_recovers_while_the_other_leg_is_udp() {
    let mut s = Script::new().over_udp(&[A]).establish().option(DELAY, 500);
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
    assert_eq!(s.stats().recoveries_succeeded, 1);
    s.call_is_up();
}

#[test]
fn the_udp_leg_of_a_call_whose_other_leg_is_tcp_does_not_recover() {
    let mut s = Script::new().over_udp(&[B]).establish().option(DELAY, 500);
    s.refuse(B);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.a_receives("503");
    s.a_acknowledges();
    s.until(40_000).nothing_happens();
    s.accept(B);
    s.call_is_up();
}
