//! The INVITE client transaction (RFC 3261 §17.1.1, RFC 6026 §7.2).
//!
//! ```text
//!          INVITE sent
//!              │        A: send again (unreliable)
//!          ┌───▼────┐   B, flow failed: tell ──────────────► Orphaned
//!          │Calling ├─ 2xx ────────────────┐
//!          └───┬──┬─┘                      │
//!          1xx │  └─ 3xx–6xx: ACK ─────┐   │
//!        ┌─────▼────┐                  │   │  flow failed: tell ► Orphaned
//!        │Proceeding├─ 3xx–6xx: ACK ─┐ │   │
//!        └─────┬────┘                │ │   │
//!              └───── 2xx ─────────┐ │ │   │
//!                                ┌─▼─┼─┼───▼┐     ┌──────────┐
//!                           2xx: │Accepted  │     │Completed │ 3xx–6xx: ACK
//!                           tell └───┬──────┘     └────┬─────┘
//!                                    M                 D ──► Terminated
//! ```
//!
//! An attempt whose flow failed, whose timer B ran out (it is cut at the deadline of a recovery), or that
//! another attempt took the place of, is not forgotten but `Orphaned`: its bytes may have arrived, so a late
//! answer must still find it (`recovery` says what it means) and a 2xx is never left without ACK. The same holds
//! for one that a proxy answered because it lost the peer (503, or a listed status): it is `Refused`, and of what
//! may still come only a 2xx matters.

/// Where the transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Sent, nothing heard.
    Calling,
    /// A provisional response came.
    Proceeding,
    /// A final response other than 2xx came and was acknowledged.
    Completed,
    /// A 2xx came; its ACK is the dialog's business.
    Accepted,
    /// Given up, but a late answer is still recognised.
    Orphaned,
    /// Refused by somebody on the way who lost the peer: the peer's 2xx may follow.
    Refused,
    /// Over.
    Terminated,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A 1xx response.
    Provisional,
    /// A 2xx response.
    Success,
    /// A 3xx, 4xx, 5xx or 6xx response.
    Failure,
    /// One of them by which somebody on the way says that he lost the peer.
    Lost,
    /// Timer A: retransmit.
    A,
    /// Timer B: nothing came.
    B,
    /// Timer D, M, or an orphan's: nothing can come any more.
    Over,
    /// The flow died before a final response.
    FlowFailed,
    /// Another attempt at the same took its place.
    Superseded,
}

/// What there is to do besides changing the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Hand the event to the transaction user.
    Tell,
    /// Send the ACK of a final response other than 2xx.
    Acknowledge,
    /// Both.
    AcknowledgeAndTell,
    /// Send the request again.
    Retransmit,
}

/// One step of the machine: pure.
pub fn step(state: State, event: Event) -> (State, Effect) {
    use Effect::{Acknowledge, AcknowledgeAndTell, Nothing, Retransmit, Tell};
    use Event::{A, B, Failure, FlowFailed, Lost, Over, Provisional, Success, Superseded};
    use State::{Accepted, Calling, Completed, Orphaned, Proceeding, Refused, Terminated};
    match (state, event) {
        (Calling | Proceeding, Provisional) => (Proceeding, Tell),
        (Calling | Proceeding, Success) => (Accepted, Tell),
        (Calling | Proceeding, Failure) => (Completed, AcknowledgeAndTell),
        (Calling, A) => (Calling, Retransmit),
        (Calling, B) | (Calling | Proceeding, FlowFailed) => (Orphaned, Tell),
        (Calling | Proceeding, Superseded) => (Orphaned, Nothing),
        (Calling | Proceeding, Lost) => (Refused, AcknowledgeAndTell),
        (Completed | Refused, Failure | Lost) => (state, Acknowledge),
        (Accepted, Success) => (Accepted, Tell),
        // RFC 3261 §17.1.1.3 for the ACK; what a late answer means is decided by the session.
        (Orphaned, Provisional) => (Orphaned, Tell),
        (Orphaned | Refused, Success) => (Accepted, Tell),
        (Orphaned, Failure | Lost) => (Refused, AcknowledgeAndTell),
        (Completed | Accepted | Orphaned | Refused, Over) => (Terminated, Nothing),
        (Terminated, _)
        | (Calling | Proceeding, Over)
        | (Proceeding | Completed | Accepted | Orphaned | Refused, A | B)
        | (Completed | Accepted | Orphaned | Refused, FlowFailed | Superseded)
        | (Refused, Provisional)
        | (Completed, Provisional | Success)
        | (Accepted, Provisional | Failure | Lost) => (state, Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_acknowledged_each_time_it_comes_and_told_once() {
        let (state, effect) = step(State::Calling, Event::Failure);
        assert_eq!((state, effect), (State::Completed, Effect::AcknowledgeAndTell));
        assert_eq!(step(state, Event::Failure), (State::Completed, Effect::Acknowledge));
        assert_eq!(step(state, Event::Over), (State::Terminated, Effect::Nothing));
    }

    #[test]
    fn every_2xx_is_told_because_each_needs_its_ack() {
        let (state, effect) = step(State::Proceeding, Event::Success);
        assert_eq!((state, effect), (State::Accepted, Effect::Tell));
        assert_eq!(step(state, Event::Success), (State::Accepted, Effect::Tell));
    }

    #[test]
    fn timer_b_counts_only_until_a_provisional_response() {
        assert_eq!(step(State::Calling, Event::B), (State::Orphaned, Effect::Tell));
        let (state, _) = step(State::Calling, Event::Provisional);
        assert_eq!(step(state, Event::B), (State::Proceeding, Effect::Nothing));
    }

    #[test]
    fn an_attempt_whose_flow_died_still_recognises_its_late_2xx() {
        let (state, effect) = step(State::Proceeding, Event::FlowFailed);
        assert_eq!((state, effect), (State::Orphaned, Effect::Tell));
        assert_eq!(step(state, Event::Success), (State::Accepted, Effect::Tell));
    }

    #[test]
    fn the_2xx_of_a_peer_that_somebody_else_gave_up_is_still_recognised() {
        let (state, effect) = step(State::Proceeding, Event::Lost);
        assert_eq!((state, effect), (State::Refused, Effect::AcknowledgeAndTell));
        assert_eq!(step(state, Event::Provisional), (state, Effect::Nothing));
        assert_eq!(step(state, Event::Failure), (state, Effect::Acknowledge));
        assert_eq!(step(state, Event::Success), (State::Accepted, Effect::Tell));
    }

    #[test]
    fn a_flow_that_dies_after_the_final_response_changes_nothing() {
        for state in [State::Completed, State::Accepted, State::Orphaned, State::Refused] {
            assert_eq!(step(state, Event::FlowFailed), (state, Effect::Nothing));
        }
    }
}
