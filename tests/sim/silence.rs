//! Peers that vanish without a word (F5): what the kernel misses, and the pings that make it miss something.

use holdfast::cti::{Cause, Content};
use holdfast::sip::FlowError;

use crate::network::{Cut, Flight};
use crate::peer::SEC;
use crate::scenario::cut_peer;
use crate::scenarios::{DELAY, WINDOW};
use crate::script::{A, B, Script, reinvite};

/// The peer is told nothing; the server what it can find out.
const SILENCE: Cut = Cut {
    flight: [Flight::Lost; 2],
    told_after: [600 * SEC; 2],
    error: FlowError::Silent,
    silent: true,
};

impl Script {
    /// Nothing comes from or goes to a peer over its flows any more.
    fn vanishes(&mut self, peer: usize) {
        cut_peer(&mut self.world, peer, SILENCE);
        self.settle();
    }

    fn pings(&self) -> usize {
        self.world.truth.coverage.get("ping of the server").copied().unwrap_or(0) as usize
    }
}

#[test]
fn a_peer_that_vanished_before_the_reinvite_is_missed_when_the_reinvite_is_not_acknowledged() {
    let mut s = Script::established().option(DELAY, 500);
    s.vanishes(B);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.until(3499).nothing_happens();
    s.at(3500).connects_to(B);
    s.b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.call_is_up();
}

#[test]
fn a_peer_that_vanishes_while_it_rings_is_missed_when_a_ping_is_not_acknowledged() {
    let mut s = Script::established().option(DELAY, 500);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.at(5500).vanishes(B);
    // The ping comes within a second, and is missed 3 s later.
    s.until(8999).nothing_happens();
    s.at(10_000).connects_to(B);
    s.b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.call_is_up();
}

#[test]
fn silence_is_a_cause_of_its_own_in_the_events() {
    let mut s = Script::established().option(DELAY, 500);
    s.vanishes(B);
    s.at(0).a_sends(reinvite());
    s.until(3001);
    let started = s.world.checker.events.iter().any(|event| {
        matches!(event.content, Content::RecoveryStarted { cause: Cause::Silence, .. })
    });
    assert!(started);
}

#[test]
fn a_peer_that_vanishes_for_good_loses_its_call_at_the_deadline() {
    let mut s = Script::established().option(DELAY, 2000).option(WINDOW, 5);
    s.vanishes(B);
    s.listen(B, crate::network::Listener::Silent);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.at(5000).connects_to(B);
    s.until(7999).nothing_happens();
    s.at(8000).a_receives("408");
    s.a_acknowledges();
    s.a_receives("BYE");
}

#[test]
fn a_connection_is_pinged_once_a_second_while_a_request_waits_and_never_else() {
    let mut s = Script::established().option(DELAY, 500);
    let before = s.pings();
    s.until(20_000);
    assert_eq!(s.pings(), before, "nothing waits");
    s.a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.at(24_500);
    assert_eq!(s.pings(), before + 4);
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.at(60_000);
    assert_eq!(s.pings(), before + 4, "nothing waits any more");
}

#[test]
fn a_ping_is_no_message_and_is_sent_on_the_flow_of_a_peer_too() {
    let mut s = Script::established().option(DELAY, 500);
    // B asks, and A, which opened its own flow, is the one that does not answer.
    s.at(0).b_sends(reinvite());
    s.b_receives("100");
    s.a_receives("INVITE");
    s.at(500).vanishes(A);
    s.until(4499).nothing_happens();
    s.at(4500).connects_to(A);
    s.a_receives("INVITE");
}
