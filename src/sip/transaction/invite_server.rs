//! The INVITE server transaction (RFC 3261 §17.2.1, RFC 6026 §7.1).
//!
//! ```text
//!         INVITE: tell, 100
//!              │
//!        ┌─────▼────┐ INVITE: send the last response again
//!        │Proceeding├─ 2xx sent ─────────────────────────┐
//!        └─────┬────┘                                    │
//!              │ 3xx–6xx sent                            │
//!        ┌─────▼────┐ INVITE, G: send it again     ┌─────▼───┐ INVITE: nothing
//!        │Completed ├─ H ──► Terminated      │Accepted │ ACK: tell
//!        └─────┬────┘                              └────┬────┘
//!          ACK │                                        L ──► Terminated
//!        ┌─────▼────┐
//!        │Confirmed ├─ I ──► Terminated   (I is zero on a reliable flow)
//!        └──────────┘
//! ```

/// Where the transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No final response yet.
    Proceeding,
    /// A final response other than 2xx was sent.
    Completed,
    /// It was acknowledged.
    Confirmed,
    /// A 2xx was sent.
    Accepted,
    /// Over.
    Terminated,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The same INVITE again.
    Invite,
    /// An ACK with the INVITE's branch: of a response other than 2xx.
    Ack,
    /// The user answers 2xx.
    Success,
    /// The user answers 3xx–6xx.
    Failure,
    /// Timer G: retransmit.
    G,
    /// Timer H, I or L: over.
    Over,
}

/// What there is to do besides changing the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Send the last response again.
    Retransmit,
}

/// One step of the machine: pure.
pub fn step(state: State, event: Event) -> (State, Effect) {
    use Effect::{Nothing, Retransmit};
    use Event::{Ack, Failure, G, Invite, Over, Success};
    use State::{Accepted, Completed, Confirmed, Proceeding, Terminated};
    match (state, event) {
        (Proceeding | Completed, Invite) | (Completed, G) => (state, Retransmit),
        (Proceeding, Success) => (Accepted, Nothing),
        (Proceeding, Failure) => (Completed, Nothing),
        (Completed, Ack) => (Confirmed, Nothing),
        (Completed | Confirmed | Accepted, Over) => (Terminated, Nothing),
        (Proceeding, Ack | G | Over)
        | (Completed | Confirmed | Accepted, Success | Failure)
        | (Confirmed | Accepted, Invite | Ack | G)
        | (Terminated, _) => (state, Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_invite_draws_the_last_response_until_the_ack() {
        assert_eq!(step(State::Proceeding, Event::Invite).1, Effect::Retransmit);
        let (state, _) = step(State::Proceeding, Event::Failure);
        assert_eq!(step(state, Event::Invite), (State::Completed, Effect::Retransmit));
        let (state, _) = step(state, Event::Ack);
        assert_eq!(step(state, Event::Invite), (State::Confirmed, Effect::Nothing));
    }

    #[test]
    fn after_a_2xx_a_repeated_invite_is_absorbed() {
        let (state, _) = step(State::Proceeding, Event::Success);
        assert_eq!(step(state, Event::Invite), (State::Accepted, Effect::Nothing));
        assert_eq!(step(state, Event::Over), (State::Terminated, Effect::Nothing));
    }

    #[test]
    fn only_the_first_final_response_counts() {
        let (state, _) = step(State::Proceeding, Event::Failure);
        assert_eq!(step(state, Event::Success), (State::Completed, Effect::Nothing));
    }
}
