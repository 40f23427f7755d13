//! The promise: no call is given up although the path to its peer was in order again in time.

use super::{Operation, Oracle, PAUSE_MAX, Phase, State, TARGETS};
use crate::peer::SEC;
use crate::truth::Truth;

/// What an attempt may need to get through a healed network, connecting included.
const ATTEMPT_MAX: u64 = 6 * SEC;

impl Oracle {
    /// No call is given up although the path to its peer healed in time.
    ///
    /// A pause that the peer asked for when it was reached is not the network's: the next attempt has its time
    /// after it.
    pub(super) fn check_promise(&self, truth: &mut Truth, now: u64, leg: usize) {
        let peer = self.legs[leg].peer;
        let healed = self.disturbed.get(&peer).copied().unwrap_or(0);
        let paused = self.legs[leg].operations.last().map_or(0, |operation| operation.paused);
        let attempts = if self.rules[peer].backup { u64::from(TARGETS) } else { 1 };
        let again = (healed + self.rules[peer].delay).max(paused);
        if again + attempts * ATTEMPT_MAX + self.patience < now {
            let call = self.legs[leg].call;
            truth.failures.push(format!(
                "the promise is broken: call {call} is given up at {now}, its path healed at {healed}"
            ));
        }
    }

    /// The peer is there and busy: with an earlier copy, or with an INVITE of its own, which it may have lost
    /// with a flow that it does not know to be dead (RFC 3261 §14.2). `pause` is what it asks for; `None`: that
    /// of §14.1.
    pub(super) fn pause(&mut self, now: u64, leg: usize, pause: Option<u64>) {
        if let Some(operation) = self.legs[leg].operations.last_mut() {
            operation.paused = now + pause.unwrap_or(PAUSE_MAX);
        }
    }

    /// A peer has answered a re-INVITE provisionally and not yet finally. What it said last may be lost: a final
    /// response other than 2xx is not sent again over TCP (RFC 3261 §17.2.1), and only timer C ends its INVITE.
    pub(crate) fn awaits_timer_c(&self) -> bool {
        self.legs
            .iter()
            .filter(|leg| !leg.ended)
            .any(|leg| leg.operations.last().is_some_and(Operation::proceeds))
    }
}

impl Operation {
    /// The attempt that is out was answered provisionally.
    pub(super) fn proceeds(&self) -> bool {
        self.phase == Phase::Attempting && self.attempts[self.current].state == State::Proceeding
    }
}
