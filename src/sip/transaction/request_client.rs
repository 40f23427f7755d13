//! The client transaction of every other request (RFC 3261 §17.1.2).
//!
//! ```text
//!          request sent
//!              │
//!          ┌───▼──┐  E: send again (unreliable)   F: tell ──► Terminated
//!          │Trying├─ final: tell ─────────┐       flow failed: once more over a new
//!          └───┬──┘                       │       connection, then tell ──► Terminated
//!          1xx │ tell                     │
//!        ┌─────▼────┐                ┌────▼────┐
//!        │Proceeding├─ final: tell ─►│Completed├─ K ──► Terminated
//!        └──────────┘                └─────────┘  (K is zero on a reliable flow)
//! ```

/// Where the transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Sent, nothing heard.
    Trying,
    /// A provisional response came.
    Proceeding,
    /// A final response came.
    Completed,
    /// Over.
    Terminated,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A 1xx response.
    Provisional,
    /// A final response.
    Final,
    /// Timer E: retransmit.
    E,
    /// Timer F: nothing came.
    F,
    /// Timer K: no retransmission can come any more.
    K,
    /// The flow died before a final response; `again` when the one new connection is still to try.
    FlowFailed {
        /// True for the first time.
        again: bool,
    },
}

/// What there is to do besides changing the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Hand the event to the transaction user.
    Tell,
    /// Send the request again, over a new connection if the flow is gone.
    Retransmit,
}

/// One step of the machine: pure.
pub fn step(state: State, event: Event) -> (State, Effect) {
    use Effect::{Nothing, Retransmit, Tell};
    use Event::{E, F, Final, FlowFailed, K, Provisional};
    use State::{Completed, Proceeding, Terminated, Trying};
    match (state, event) {
        (Trying | Proceeding, Provisional) => (Proceeding, Tell),
        (Trying | Proceeding, Final) => (Completed, Tell),
        (Trying | Proceeding, E) => (state, Retransmit),
        (Trying | Proceeding, F) => (Terminated, Tell),
        (Trying | Proceeding, FlowFailed { again: true }) => (Trying, Retransmit),
        (Trying | Proceeding, FlowFailed { again: false }) => (Terminated, Tell),
        (Completed, K) => (Terminated, Nothing),
        (Completed | Terminated, _) | (Trying | Proceeding, K) => (state, Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_flow_is_worth_one_new_connection() {
        let (state, effect) = step(State::Trying, Event::FlowFailed { again: true });
        assert_eq!((state, effect), (State::Trying, Effect::Retransmit));
        let last = step(state, Event::FlowFailed { again: false });
        assert_eq!(last, (State::Terminated, Effect::Tell));
    }

    #[test]
    fn a_final_response_is_told_once() {
        let (state, effect) = step(State::Proceeding, Event::Final);
        assert_eq!((state, effect), (State::Completed, Effect::Tell));
        assert_eq!(step(state, Event::Final), (State::Completed, Effect::Nothing));
    }

    #[test]
    fn timer_f_ends_it_in_proceeding_too() {
        assert_eq!(step(State::Proceeding, Event::F), (State::Terminated, Effect::Tell));
    }
}
