//! The server transaction of every other request (RFC 3261 §17.2.2).
//!
//! ```text
//!       request: tell
//!            │
//!        ┌───▼──┐ request: nothing
//!        │Trying├─ final sent ──────────────┐
//!        └───┬──┘                           │
//!        1xx │ sent                         │
//!      ┌─────▼────┐                    ┌────▼────┐ request: send it again
//!      │Proceeding├─ final sent ──────►│Completed├─ J ──► Terminated
//!      └──────────┘                    └─────────┘  (J is zero on a reliable flow)
//! ```

/// Where the transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was sent.
    Trying,
    /// A provisional response was sent.
    Proceeding,
    /// A final response was sent.
    Completed,
    /// Over.
    Terminated,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The same request again.
    Request,
    /// The user answers 1xx.
    Provisional,
    /// The user answers finally.
    Final,
    /// Timer J: over.
    J,
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
    use Event::{Final, J, Provisional, Request};
    use State::{Completed, Proceeding, Terminated, Trying};
    match (state, event) {
        (Trying, Provisional) => (Proceeding, Nothing),
        (Trying | Proceeding, Final) => (Completed, Nothing),
        (Proceeding | Completed, Request) => (state, Retransmit),
        (Completed, J) => (Terminated, Nothing),
        (Trying, Request | J)
        | (Proceeding, Provisional | J)
        | (Completed, Provisional | Final)
        | (Terminated, _) => (state, Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_request_draws_the_last_response_or_silence() {
        assert_eq!(step(State::Trying, Event::Request), (State::Trying, Effect::Nothing));
        let (state, _) = step(State::Trying, Event::Final);
        assert_eq!(step(state, Event::Request), (State::Completed, Effect::Retransmit));
        assert_eq!(step(state, Event::J), (State::Terminated, Effect::Nothing));
    }
}
