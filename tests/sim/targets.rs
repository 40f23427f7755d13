//! Where requests go when there is more than one way, and when there is one again.

use crate::message::Msg;
use crate::network::Listener;
use crate::scenarios::{DELAY, REASON, WINDOW, waiting};
use crate::script::{A, B, C, Script, reinvite, request};

/// B's flow is lost under a re-INVITE; its backup C gets it at once.
fn failed_over() -> (Script, Msg, Msg) {
    let mut s = Script::established().option(DELAY, 500).backup();
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    let first = s.b_receives("INVITE");
    s.at(10).reset(B);
    s.connects_to(C);
    let second = s.c_receives("INVITE");
    (s, first, second)
}

#[test]
fn with_more_than_one_target_the_next_one_gets_the_reinvite_at_once() {
    let (mut s, first, second) = failed_over();
    assert_eq!(second.cseq().0, first.cseq().0 + 1);
    assert_ne!(second.branch(), first.branch());
    assert_eq!((second.uri(), &second.body), (first.uri(), &first.body));
    s.c_answers(200);
    s.c_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.until(5000).nothing_happens();
    assert_eq!(s.stats().recoveries_started, 0);
}

#[test]
fn a_503_on_the_peers_own_flow_sends_the_next_attempt_to_the_next_target() {
    let mut s = Script::established().option(DELAY, 500).backup();
    s.reset(B);
    s.b_connects_with_alias();
    s.b_receives("200");
    s.at(10).b_sends(request("INFO"));
    s.a_receives("INFO");
    s.a_answers(200);
    s.b_receives("200");
    s.a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers_with(503, &[("Error-Info", "transport-error")]);
    s.b_receives("ACK");
    s.connects_to(C);
    s.c_receives("INVITE");
}

#[test]
fn the_wait_begins_when_every_target_has_failed() {
    let (mut s, _, _) = failed_over();
    s.at(100).reset(C);
    s.until(599).nothing_happens();
    s.at(600).connects_to(B);
    s.b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    assert_eq!(s.stats().recoveries_succeeded, 1);
}

#[test]
fn after_the_wait_every_target_is_tried_again_before_the_next_wait() {
    let (mut s, _, _) = failed_over();
    s.at(100).reset(C);
    s.refuse(B);
    s.at(600);
    assert_eq!(s.connections(), 2);
    s.c_receives("INVITE");
    s.c_answers(200);
    s.c_receives("ACK");
    s.a_receives("200");
}

#[test]
fn the_window_begins_with_the_first_target_that_failed() {
    let mut s = Script::established().option(DELAY, 1000).option(WINDOW, 3).backup();
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.at(10).reset(B);
    s.c_receives("INVITE");
    s.at(2010).reset(C);
    s.a_receives("408");
    assert_eq!(s.a_receives("BYE").text("Reason"), REASON);
}

#[test]
fn with_recovery_switched_off_the_next_target_is_tried_all_the_same() {
    let mut s = Script::established().option(DELAY, 0).backup();
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.at(10).reset(B);
    s.c_receives("INVITE");
    s.at(20).reset(C);
    s.a_receives("408");
    assert_eq!(s.a_receives("BYE").text("Reason"), REASON);
}

#[test]
fn the_target_that_answered_last_gets_the_next_request() {
    let (mut s, _, _) = failed_over();
    s.c_answers(200);
    s.c_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.a_sends(request("INFO"));
    s.c_receives("INFO");
}

#[test]
fn a_target_that_comes_alive_during_the_wait_is_used_at_once() {
    let (mut s, _, _) = failed_over();
    s.at(100).reset(C);
    s.refuse(B);
    s.refuse(C);
    s.until(300).nothing_happens();
    s.accept(C);
    // C's own connection says so.
    s.c_connects_with_alias();
    s.c_receives("INVITE");
    s.c_receives("200");
    assert_eq!(s.stats().waiting, 0);
    s.c_answers(200);
    s.c_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.until(5000).nothing_happens();
}

#[test]
fn a_single_target_that_comes_alive_during_the_wait_gets_the_next_attempt_when_it_is_due() {
    let (mut s, _) = waiting();
    s.refuse(B);
    s.at(300).b_connects_with_alias();
    s.b_receives("200");
    s.until(509).nothing_happens();
    s.at(510);
    assert_eq!(s.connections(), 0);
    s.b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
}

#[test]
fn an_alias_of_an_address_that_is_no_device_is_ignored() {
    let (mut s, _) = waiting();
    s.at(300).b_connects_with_alias_to(5099);
    s.b_receives("200");
    s.at(510).connects_to(B);
    s.b_receives("INVITE");
}

#[test]
fn a_flow_without_alias_is_no_way_to_its_device() {
    let (mut s, _) = waiting();
    s.at(300).b_sends_options("");
    s.b_receives("200");
    s.at(510).connects_to(B);
    s.b_receives("INVITE");
}

#[test]
fn new_invite_goes_to_the_next_target_when_the_first_refuses_the_connection() {
    let mut s = Script::new().option(DELAY, 500).backup();
    s.refuse(B);
    s.a_calls("1001");
    s.a_receives("100");
    let invite = s.c_receives("INVITE");
    assert_eq!(invite.cseq().0, 2);
    assert!(invite.uri().starts_with("sip:1001@10.0.0.2"), "{invite}");
    s.c_answers(200);
    s.c_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.until(5000).nothing_happens();
}

/// B could not be reached when A called; C was, and is busy. B is there again.
pub(crate) fn b_is_set_aside() -> Script {
    let mut s = Script::new().backup();
    s.refuse(B);
    s.at(0).a_calls("1001");
    s.a_receives("100");
    s.c_receives("INVITE");
    s.c_answers(486);
    s.c_receives("ACK");
    s.a_receives("486");
    s.a_acknowledges();
    s.accept(B);
    s
}

/// A calls, and C is asked at once. It is busy.
fn next_call_goes_to_c(s: &mut Script) {
    let before = s.connections();
    s.a_calls("1001");
    s.a_receives("100");
    let invite = s.c_receives("INVITE");
    assert_eq!(invite.cseq().0, 1);
    s.c_answers(486);
    s.c_receives("ACK");
    s.a_receives("486");
    s.a_acknowledges();
    assert!(s.connections() - before <= 1);
}

#[test]
fn a_target_that_could_not_be_reached_is_tried_last_for_30_s() {
    let mut s = Script::new().backup();
    s.refuse(B);
    s.at(0).a_calls("1001");
    s.a_receives("100");
    assert_eq!(s.c_receives("INVITE").cseq().0, 2);
    s.c_answers(486);
    s.c_receives("ACK");
    s.a_receives("486");
    s.a_acknowledges();
    next_call_goes_to_c(&mut s);
    // When the other one fails, it has its turn.
    s.at(1000).reset(C);
    s.refuse(C);
    s.accept(B);
    s.a_calls("1001");
    s.a_receives("100");
    assert_eq!(s.b_receives("INVITE").cseq().0, 2);
    s.b_answers(486);
    s.b_receives("ACK");
    s.a_receives("486");
    s.a_acknowledges();
    // It was reached: it is the first again.
    s.at(2000).a_calls("1001");
    s.a_receives("100");
    assert_eq!(s.b_receives("INVITE").cseq().0, 1);
}

#[test]
fn a_target_that_was_set_aside_is_the_first_again_when_its_time_is_over() {
    let mut s = b_is_set_aside();
    s.at(29_900);
    next_call_goes_to_c(&mut s);
    s.at(30_100).a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
}

#[test]
fn when_every_target_is_set_aside_the_first_is_tried_first() {
    let mut s = Script::new().backup();
    s.refuse(B);
    s.refuse(C);
    s.at(0).a_calls("1001");
    s.a_receives("100");
    s.a_receives("503");
    s.a_acknowledges();
    s.accept(B);
    s.accept(C);
    s.at(1000).a_calls("1001");
    s.a_receives("100");
    assert_eq!(s.b_receives("INVITE").cseq().0, 1);
}

#[test]
fn a_call_that_began_at_a_backup_goes_where_its_dialog_says() {
    let mut s = Script::new().option(DELAY, 500).backup();
    s.refuse(B);
    s.a_calls("1001");
    s.a_receives("100");
    s.c_receives("INVITE");
    s.c_answers(200);
    s.c_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.accept(B);
    // The name of the device leads to B alone by now.
    s.backups_are(&[]);
    s.a_sends(request("INFO"));
    s.c_receives("INFO");
    s.c_answers(200);
    s.a_receives("200");
    s.at(1000).reset(C);
    s.a_sends(reinvite());
    s.a_receives("100");
    s.connects_to(C);
    s.c_receives("INVITE");
}

#[test]
fn new_invite_goes_to_the_next_target_when_the_first_answers_503() {
    let mut s = Script::new().backup();
    s.a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(503);
    s.b_receives("ACK");
    s.c_receives("INVITE");
    s.c_answers(486);
    s.c_receives("ACK");
    s.a_receives("486");
    s.a_acknowledges();
    s.call_is_over();
}

#[test]
fn new_invite_that_was_cancelled_for_its_age_is_sent_nowhere_else() {
    let mut s = Script::new().backup();
    s.at(0).a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.at(181_000).b_receives("CANCEL");
    s.at(181_100).reset(B);
    s.a_receives("408");
    s.a_acknowledges();
    s.call_is_over();
}

#[test]
fn new_invite_that_no_target_takes_is_answered_503_without_a_wait() {
    let mut s = Script::new().option(DELAY, 500).backup();
    s.refuse(B);
    s.refuse(C);
    s.a_calls("1001");
    assert_eq!(s.connections(), 2);
    s.a_receives("100");
    s.a_receives("503");
    s.a_acknowledges();
    s.call_is_over();
}

#[test]
fn a_late_answer_of_the_first_target_of_a_new_invite_is_ended_with_bye() {
    let mut s = Script::new().backup();
    s.a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.reset(B);
    s.c_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.b_receives("BYE");
    s.b_answers(200);
    s.c_answers(200);
    s.c_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    assert_eq!(s.stats().calls, 1);
}

#[test]
fn new_invite_that_is_told_to_come_back_waits_that_long_even_where_the_delay_is_zero() {
    let mut s = Script::new();
    s.a_calls("1001");
    s.a_receives("100");
    let first = s.b_receives("INVITE");
    s.b_answers_with(503, &[("Retry-After", "3")]);
    s.b_receives("ACK");
    s.until(2999).nothing_happens();
    s.at(3000);
    let second = s.b_receives("INVITE");
    assert_eq!(second.cseq().0, first.cseq().0 + 1);
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    assert_eq!((s.stats().recoveries_started, s.stats().calls), (0, 1));
    s.until(6000).nothing_happens();
}

#[test]
fn a_wait_of_a_new_invite_that_does_not_fit_into_the_window_is_none() {
    let mut s = Script::new().option(WINDOW, 5);
    s.a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers_with(503, &[("Retry-After", "5")]);
    s.b_receives("ACK");
    s.a_receives("503");
    s.a_acknowledges();
    s.call_is_over();
}

#[test]
fn a_second_503_to_a_new_invite_is_passed_on_when_the_window_is_over() {
    let mut s = Script::new().option(WINDOW, 5);
    s.a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers_with(503, &[("Retry-After", "3")]);
    s.b_receives("ACK");
    s.at(3000).b_receives("INVITE");
    s.b_answers_with(503, &[("Retry-After", "3")]);
    s.b_receives("ACK");
    s.a_receives("503");
    s.a_acknowledges();
    s.call_is_over();
}

#[test]
fn a_caller_that_cancels_during_the_wait_of_a_new_invite_gets_487() {
    let mut s = Script::new();
    s.a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers_with(503, &[("Retry-After", "3")]);
    s.b_receives("ACK");
    s.at(1000).a_cancels();
    s.a_receives("200");
    s.a_receives("487");
    s.a_acknowledges();
    s.until(5000).nothing_happens();
    s.call_is_over();
}

#[test]
fn a_listed_answer_starts_the_wait() {
    for status in [430, 477] {
        let mut s = Script::established().option(DELAY, 500).listed(&[430, 477]);
        s.at(0).a_sends(reinvite());
        s.a_receives("100");
        s.b_receives("INVITE");
        s.b_answers(status);
        s.b_receives("ACK");
        s.until(499).nothing_happens();
        s.at(500).b_receives("INVITE");
    }
}

#[test]
fn an_answer_that_is_not_listed_is_passed_on() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(430);
    s.b_receives("ACK");
    s.a_receives("430");
    s.a_acknowledges();
    s.call_is_up();
}

/// Where nobody listens, at B's host.
const NOBODY: &str = "sip:1002@10.0.0.2:40001;transport=tcp";

/// As baresip does: its Contact over a connection that it opened is the port of that connection.
#[test]
fn a_phone_whose_contact_nobody_listens_at_gets_the_reinvite_where_it_is_configured() {
    let mut s = Script::established().option(DELAY, 500);
    s.loses_b_whose_contact_is_nobodys();
    s.until(609).nothing_happens();
    s.at(610);
    assert_eq!(s.connections(), 1, "to the Contact, refused");
    s.at(1110).connects_to(B);
    assert_eq!(s.b_receives("INVITE").uri(), NOBODY);
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.a_sends(request("INFO"));
    s.b_receives("INFO");
}

#[test]
fn a_phone_that_refuses_where_it_is_configured_is_sought_at_its_contact_again() {
    let mut s = Script::established().option(DELAY, 500).option(WINDOW, 2);
    s.loses_b_whose_contact_is_nobodys();
    s.refuse(B);
    s.at(1110).connects_to(B);
    s.at(1610);
    assert_eq!(s.connections(), 2, "of the attempt to the Contact, and of the BYE");
    s.connects_to(B);
    s.a_receives("408");
    assert_eq!(s.a_receives("BYE").text("Reason"), REASON);
}

#[test]
fn a_trunk_whose_contact_nobody_listens_at_is_not_sought_elsewhere() {
    let mut s = Script::established().option(DELAY, 500).option(WINDOW, 2).trunk("1");
    s.loses_b_whose_contact_is_nobodys();
    // B listens where it is configured, and would have got an attempt that it does not answer.
    s.at(1610).a_receives("408");
    assert_eq!(s.a_receives("BYE").text("Reason"), REASON);
}

impl Script {
    /// B opens a connection, answers a re-INVITE with a Contact that nobody listens at, and at 110 ms
    /// loses the connection under the next re-INVITE.
    fn loses_b_whose_contact_is_nobodys(&mut self) {
        self.reset(B);
        self.b_connects_with_alias();
        self.b_receives("200");
        let address = "10.0.0.2:40001".parse().expect("an address");
        self.world.oracle.addresses.insert(address, B);
        self.world.listeners.insert(address, (B, Listener::Refusing));
        self.world.peers[B].contact = NOBODY.to_owned();
        self.a_reinvites();
        self.at(100).a_sends(reinvite());
        self.a_receives("100");
        self.b_receives("INVITE");
        self.at(110).reset(B);
    }

    /// B connects to the server and says that it takes requests on that connection.
    fn b_connects_with_alias(&mut self) {
        self.sends_options(B, 5060, ";alias");
    }

    fn b_connects_with_alias_to(&mut self, port: u16) {
        self.sends_options(B, port, ";alias");
    }

    fn b_sends_options(&mut self, params: &str) {
        self.sends_options(B, 5060, params);
    }

    fn c_connects_with_alias(&mut self) {
        self.sends_options(C, 5060, ";alias");
    }

    /// An OPTIONS outside of any dialog over a connection of the peer's own.
    fn sends_options(&mut self, peer: usize, port: u16, params: &str) {
        assert_ne!(peer, A);
        let ip = self.world.peers[peer].addr.ip();
        let serial = self.world.peers[peer].unique();
        let via = format!("SIP/2.0/TCP {ip}:{port};branch=z9hG4bK{serial}{params}");
        let msg = Msg::request("OPTIONS", "sip:10.99.0.1:5060")
            .with("Via", via)
            .with("Max-Forwards", "70")
            .with("From", format!("<sip:x@{ip}>;tag={serial}"))
            .with("To", "<sip:10.99.0.1>")
            .with("Call-ID", format!("{serial}@{ip}"))
            .with("CSeq", "1 OPTIONS");
        self.transmit(peer, None, &msg);
    }
}
