//! What applications are told: the checker of every run, and scenarios.
//!
//! ```text
//! (nothing) ─► Dialing ────────────► Established ◄─► Held ─► Released
//!          └─► Ringing ─┬──────────► Established ◄─► Held ─► Released
//!                       └─► Abandoned, Released
//! beside it: RecoveryStarted ─► RecoverySucceeded | RecoveryEnded, before Released
//! ```

use std::collections::BTreeMap;

use holdfast::cti::{Content, ErrorCode, Event, Outcome, ReleasingParty, Request, What};
use holdfast::key::{Key, LegId, ShardId, Side};
use holdfast::sip::Input;

use crate::scenarios::{DELAY, WINDOW, waiting};
use crate::script::{B, Script, reinvite, request};
use crate::truth::Truth;

/// Where a party is, from what was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Dialing,
    Ringing,
    Established,
    Held,
    Released,
}

/// What was told of one leg.
#[derive(Clone, Copy, Debug)]
struct Told {
    state: State,
    recovering: bool,
}

/// Reads all events of a world, and finds out whether each leg's sequence is well-formed.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    sequences: BTreeMap<ShardId, (u64, u64)>,
    legs: BTreeMap<(ShardId, Key, bool), Told>,
    /// All of them, for scripts.
    pub(crate) events: Vec<Event>,
    /// True while they are kept.
    pub(crate) keep: bool,
}

impl Checker {
    /// The next event of a shard.
    pub(crate) fn on_event(&mut self, truth: &mut Truth, event: &Event) {
        let (last, at) = self.sequences.entry(event.shard).or_default();
        if event.sequence != *last + 1 || event.at.as_micros() < *at {
            truth.failures.push(format!("{event:?} comes after event {last} at {at}"));
        }
        (*last, *at) = (event.sequence, event.at.as_micros());
        if let Err(reason) = self.advance(event) {
            truth.failures.push(format!("{event:?}: {reason}"));
        }
        truth.cover(match event.content.user_event() {
            Some(name) => name,
            None => event.content.message().0,
        });
        if self.keep {
            self.events.push(event.clone());
        }
    }

    fn advance(&mut self, event: &Event) -> Result<(), String> {
        let LegId { call, side } = event.leg;
        let key = (event.shard, call.0, side == Side::B);
        let told = self.legs.get(&key).copied();
        let state = told.map(|told| told.state);
        let recovering = told.is_some_and(|told| told.recovering);
        let (next, recovering_next) = match (event.content, state) {
            (Content::Dialing, None) => (State::Dialing, false),
            (Content::Ringing, None) => (State::Ringing, false),
            (Content::Established, Some(State::Dialing | State::Ringing)) => {
                (State::Established, false)
            }
            (Content::Abandoned, Some(State::Ringing)) => (State::Released, false),
            (Content::Released { .. }, Some(state)) if state != State::Released && !recovering => {
                (State::Released, false)
            }
            (Content::Held { .. }, Some(State::Established)) => (State::Held, recovering),
            (Content::Retrieved { .. }, Some(State::Held)) => (State::Established, recovering),
            (Content::RecoveryStarted { window, delay, .. }, Some(state))
                if state != State::Released && !recovering && delay < window =>
            {
                (state, true)
            }
            (
                Content::RecoverySucceeded { attempts, .. }
                | Content::RecoveryEnded { attempts, .. },
                Some(state),
            ) if recovering && attempts > 0 => (state, false),
            (Content::Error { code: ErrorCode::InvalidConnectionId, .. }, _) => return Ok(()),
            (Content::Error { .. }, state) => {
                return if state == Some(State::Released) {
                    Err("an error of a party that is gone".to_owned())
                } else {
                    Ok(())
                };
            }
            _ => return Err(format!("in state {state:?}, recovering: {recovering}")),
        };
        self.legs.insert(key, Told { state: next, recovering: recovering_next });
        Ok(())
    }

    /// Every leg that was ever there is gone.
    pub(crate) fn check_end(&self, truth: &mut Truth) {
        for (leg, told) in &self.legs {
            if told.state != State::Released {
                truth.failures.push(format!("{leg:?} was never released: {told:?}"));
            }
        }
    }
}

impl Script {
    /// An application asks something of a party of the call.
    pub(crate) fn asks(&mut self, side: Side, what: What, reference: u64) {
        let call = self.world.checker.events[0].leg.call;
        let request = Request { reference, call, side, what };
        self.world.input(0, Input::Request(request));
        self.settle();
    }

    /// Nothing came to B since the script last looked.
    fn b_nothing(&self) {
        assert!(self.world.peers[B].inbox.is_empty());
    }

    /// What was told since the script last looked, of one party.
    fn told(&mut self, side: Side) -> Vec<Content> {
        let events = &mut self.world.checker.events;
        let told = events.iter().skip(1).filter(|event| event.leg.side == side);
        let told = told.map(|event| event.content).collect();
        events.truncate(1);
        told
    }
}

const UNKNOWN: Content = Content::Released { by: ReleasingParty::Unknown, reference: None };

#[test]
fn a_call_is_told_from_dialing_to_released() {
    let mut s = Script::new();
    s.a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
    s.a_acknowledges();
    s.a_sends(request("BYE"));
    s.a_receives("200");
    s.b_receives("BYE");
    s.b_answers(200);
    let events = &s.world.checker.events;
    let told: Vec<_> =
        events.iter().map(|event| (event.leg.side, event.content.message().0)).collect();
    assert_eq!(
        told,
        [
            (Side::A, "EventDialing"),
            (Side::B, "EventRinging"),
            (Side::A, "EventEstablished"),
            (Side::B, "EventEstablished"),
            (Side::A, "EventReleased"),
            (Side::B, "EventReleased"),
        ]
    );
    assert_eq!((&*events[0].this_dn, &*events[0].other_dn), ("1000", "1001"));
    assert_eq!((&*events[1].this_dn, &*events[1].other_dn), ("1001", "1000"));
    let by = |by| Content::Released { by, reference: None };
    assert_eq!(events[4].content, by(ReleasingParty::Local));
    assert_eq!(events[5].content, by(ReleasingParty::Remote));
}

#[test]
fn a_caller_that_cancels_abandons_the_device_that_rings() {
    let mut s = Script::new();
    s.a_calls("1001");
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(180);
    s.a_receives("180");
    s.a_cancels();
    let told: Vec<_> = s.world.checker.events.iter().map(|event| event.content).collect();
    let gone = Content::Released { by: ReleasingParty::Local, reference: None };
    assert_eq!(told, [Content::Dialing, Content::Ringing, gone, Content::Abandoned]);
}

#[test]
fn a_new_invite_that_reaches_nobody_is_told_as_error_and_released() {
    let mut s = Script::new();
    s.refuse(B);
    s.a_calls("1001");
    let told: Vec<_> = s.world.checker.events.iter().map(|event| event.content).collect();
    let error = Content::Error { code: ErrorCode::OutOfService, reference: None };
    assert_eq!(told, [Content::Dialing, error, UNKNOWN]);
}

#[test]
fn a_recovery_is_told_when_its_wait_begins_and_when_it_succeeded() {
    let (mut s, _) = waiting();
    let told = s.told(Side::B);
    let [.., Content::RecoveryStarted { delay, window, .. }] = told[..] else { panic!("{told:?}") };
    assert_eq!((delay.as_millis(), window.as_millis()), (500, 32_000));
    s.at(510).b_receives("INVITE");
    s.b_answers(200);
    let told = s.told(Side::B);
    let [Content::RecoverySucceeded { attempts, elapsed }] = told[..] else { panic!("{told:?}") };
    assert_eq!((attempts, elapsed.as_millis()), (2, 500));
}

#[test]
fn a_recovery_that_is_given_up_is_told_as_error_57_and_both_are_released() {
    let mut s = Script::established().option(DELAY, 2000).option(WINDOW, 3);
    s.told(Side::A);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.reset(B);
    s.refuse(B);
    s.at(2000);
    let told: Vec<_> = s.world.checker.events.iter().skip(1).map(|event| event.content).collect();
    assert!(matches!(told[0], Content::RecoveryStarted { .. }), "{told:?}");
    let Content::RecoveryEnded { outcome, attempts, .. } = told[1] else { panic!("{told:?}") };
    assert_eq!((outcome, attempts), (Outcome::GivenUp, 2));
    let error = Content::Error { code: ErrorCode::Timeout, reference: None };
    assert_eq!(told[2..], [error, UNKNOWN, UNKNOWN]);
    assert_eq!(ErrorCode::Timeout.number(), 57);
    assert_eq!(ReleasingParty::Unknown.spelling(), "3 Unknown");
}

#[test]
fn with_a_delay_of_zero_no_recovery_is_told_and_the_error_is() {
    let mut s = Script::established().option(DELAY, 0);
    s.told(Side::A);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.reset(B);
    let told = s.told(Side::B);
    let error = Content::Error { code: ErrorCode::Timeout, reference: None };
    assert_eq!(told, [error, UNKNOWN]);
}

#[test]
fn release_call_during_the_wait_ends_the_call_at_once() {
    let (mut s, _) = waiting();
    s.told(Side::A);
    s.at(100).asks(Side::A, What::Release, 7);
    s.a_receives("487");
    s.a_acknowledges();
    assert_eq!(s.a_receives("BYE").header("Reason"), None);
    s.a_answers(200);
    s.connects_to(B);
    s.b_receives("BYE");
    s.b_answers(200);
    let told = s.told(Side::A);
    assert_eq!(told, [Content::Released { by: ReleasingParty::Local, reference: Some(7) }]);
    s.until(3000).nothing_happens();
    s.call_is_over();
}

#[test]
fn hold_and_retrieve_during_the_wait_are_refused_with_error_43() {
    let (mut s, _) = waiting();
    s.told(Side::A);
    for (side, what) in [(Side::B, What::Hold), (Side::B, What::Retrieve), (Side::A, What::Hold)] {
        s.asks(side, what, 8);
        let told = s.told(side);
        let error = Content::Error { code: ErrorCode::InSameState, reference: Some(8) };
        assert_eq!(told, [error]);
    }
    assert_eq!(ErrorCode::InSameState.number(), 43);
    s.until(509).nothing_happens();
    s.at(510).b_receives("INVITE");
}

#[test]
fn a_request_for_a_call_that_there_is_not_is_refused_with_error_56() {
    let mut s = Script::established();
    s.b_sends(request("BYE"));
    s.told(Side::A);
    s.asks(Side::A, What::Hold, 9);
    let told = s.told(Side::A);
    let error = Content::Error { code: ErrorCode::InvalidConnectionId, reference: Some(9) };
    assert_eq!(told, [error]);
}

/// B's party is on hold.
fn held() -> Script {
    let mut s = Script::established().option(DELAY, 500);
    s.told(Side::A);
    s.at(0).asks(Side::B, What::Hold, 1);
    let invite = s.b_receives("INVITE");
    assert!(invite.body.is_empty(), "an offer of ours");
    s.b_answers(200);
    let ack = s.b_receives("ACK");
    assert!(String::from_utf8_lossy(&ack.body).contains("o=holdfast "), "{ack}");
    s.nothing_happens();
    assert_eq!(s.told(Side::B), [Content::Held { reference: 1 }]);
    s
}

#[test]
fn hold_asks_the_party_for_an_offer_and_answers_it_with_silence() {
    let mut s = held();
    s.asks(Side::B, What::Hold, 2);
    let error = Content::Error { code: ErrorCode::InSameState, reference: Some(2) };
    assert_eq!(s.told(Side::B), [error]);
    s.call_is_up();
}

#[test]
fn retrieve_joins_the_offer_of_the_party_with_the_answer_of_the_other() {
    let mut s = held();
    s.asks(Side::B, What::Retrieve, 2);
    s.b_receives("INVITE");
    s.b_answers(200);
    let offer = s.a_receives("INVITE");
    assert!(String::from_utf8_lossy(&offer.body).contains("o=- 9 9"), "{offer}");
    s.b_nothing();
    s.a_answers(200);
    s.a_receives("ACK");
    let ack = s.b_receives("ACK");
    assert!(!ack.body.is_empty());
    assert_eq!(s.told(Side::B), [Content::Retrieved { reference: 2 }]);
    s.call_is_up();
}

#[test]
fn a_retrieve_that_the_other_party_refuses_leaves_the_party_on_hold() {
    let mut s = held();
    s.asks(Side::B, What::Retrieve, 2);
    s.b_receives("INVITE");
    s.b_answers(200);
    s.a_receives("INVITE");
    s.a_answers(488);
    s.a_receives("ACK");
    let ack = s.b_receives("ACK");
    assert!(String::from_utf8_lossy(&ack.body).contains("o=holdfast "), "{ack}");
    let error = Content::Error { code: ErrorCode::OutOfService, reference: Some(2) };
    assert_eq!(s.told(Side::B), [error]);
    s.call_is_up();
}

#[test]
fn a_hold_that_is_lost_is_sent_again_and_held_is_told_then() {
    let mut s = Script::established().option(DELAY, 500);
    s.told(Side::A);
    s.at(0).asks(Side::B, What::Hold, 1);
    s.b_receives("INVITE");
    s.at(10).reset(B);
    s.until(509).nothing_happens();
    s.at(510).connects_to(B);
    s.b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    let told = s.told(Side::B);
    assert!(matches!(told[0], Content::RecoveryStarted { .. }), "{told:?}");
    assert!(matches!(told[1], Content::RecoverySucceeded { .. }), "{told:?}");
    assert_eq!(told[2..], [Content::Held { reference: 1 }]);
}

#[test]
fn a_hold_that_rings_and_is_never_answered_is_told_as_an_error_and_the_call_stays() {
    let mut s = Script::established().option(DELAY, 500);
    s.told(Side::A);
    s.at(0).asks(Side::B, What::Hold, 5);
    s.b_receives("INVITE");
    s.b_answers(180);
    s.at(181_000).b_receives("CANCEL");
    s.until(212_999).nothing_happens();
    s.at(213_000);
    let error = Content::Error { code: ErrorCode::OutOfService, reference: Some(5) };
    assert_eq!(s.told(Side::B), [error]);
    s.call_is_up();
    s.a_reinvites();
}

#[test]
fn a_hold_whose_recovery_is_given_up_is_told_with_its_reference() {
    let mut s = Script::established().option(DELAY, 0);
    s.told(Side::A);
    s.at(0).asks(Side::B, What::Hold, 5);
    s.b_receives("INVITE");
    s.reset(B);
    let error = Content::Error { code: ErrorCode::Timeout, reference: Some(5) };
    assert_eq!(s.told(Side::B), [error, UNKNOWN]);
    assert_eq!(s.a_receives("BYE").text("Reason"), crate::scenarios::REASON);
}
