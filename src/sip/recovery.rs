//! ★ The heart: what to do when an attempt of a re-INVITE fails.
//!
//! ```text
//!                 attempt fails at t0                     ┌────────── attempt fails ─────────┐
//!  idle ───────────────────────────► decide ──► Waiting ──┴─ wait is over ──► Attempting ────┘
//!                                      │           │                              │
//!                                      │           └─ late 1xx of an orphan ──────┤
//!                                      ▼                                          ▼
//!                                   give up                                 final response:
//!                        delay 0, or now + wait ≥ deadline                  the session goes on
//! ```
//!
//! The decision is pure and reads the options in force at its moment. The window begins when the
//! first failure is detected and never restarts inside one operation. What follows from a decision
//! (timers, attempts, releases) is the caller's.

use std::time::Duration;

use crate::key::TimerKey;
use crate::time::Instant;

/// Why an attempt counts as failed in transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// F1: the connection was refused, unreachable, or did not open in time.
    Connect,
    /// F2: the flow that the attempt went out on died, whether or not a 1xx had come.
    Flow,
}

/// What is decided after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Try again at `retry`; until `deadline` there is a chance.
    Wait {
        /// When the next attempt goes out.
        retry: Instant,
        /// When the window ends.
        deadline: Instant,
    },
    /// End the leg: recovery is switched off, or a wait would end beyond the deadline.
    GiveUp,
}

/// Decides what follows a transport failure noticed at `now`, when the first one of this operation
/// was noticed at `first_failure`.
///
/// `delay` is `retry-after-reliable-transport-error` in force for the leg's device (zero: recovery
/// is off), `window` is `sip-invite-timeout` in force.
pub fn decide(
    now: Instant,
    first_failure: Instant,
    cause: Cause,
    delay: Duration,
    window: Duration,
) -> Decision {
    let wait = match cause {
        Cause::Connect | Cause::Flow => delay,
    };
    let deadline = first_failure + window;
    let retry = now + wait;
    if wait.is_zero() || retry >= deadline {
        return Decision::GiveUp;
    }
    Decision::Wait { retry, deadline }
}

/// A leg that is recovering: from the first failure until an answer comes or it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// When the first failure was noticed: the window begins here.
    pub first_failure: Instant,
    /// Attempts that failed so far.
    pub failures: u32,
    /// Where it stands.
    pub phase: Phase,
}

/// A recovering leg has one wait or one attempt, never both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The next attempt goes out when the timer is due.
    Waiting {
        /// Cancelled when something else ends the wait.
        retry: TimerKey,
    },
    /// An attempt is out.
    Attempting,
}

/// What a late answer to an orphan means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// The orphan is the attempt again; the wait stops.
    Adopt,
    /// The operation has succeeded.
    Succeed,
    /// Acknowledge (a 2xx never stays without ACK) and keep waiting for the newer attempt.
    Acknowledge,
    /// The peer has no such dialog any more: the leg ends.
    EndLeg,
    /// Nothing.
    Ignore,
}

/// Decides about an answer with `status` to an orphan; `newer` when a later attempt is out.
pub fn decide_late(status: u16, newer: bool) -> Late {
    match status {
        100..=199 if newer => Late::Ignore,
        100..=199 => Late::Adopt,
        200..=299 if newer => Late::Acknowledge,
        200..=299 => Late::Succeed,
        408 | 481 => Late::EndLeg,
        _ => Late::Ignore,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(32);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn the_next_attempt_goes_out_after_the_delay() {
        let decision = decide(at(1000), at(1000), Cause::Flow, Duration::from_millis(500), WINDOW);
        assert_eq!(decision, Decision::Wait { retry: at(1500), deadline: at(33_000) });
    }

    #[test]
    fn a_delay_of_zero_switches_recovery_off() {
        assert_eq!(
            decide(at(1000), at(1000), Cause::Flow, Duration::ZERO, WINDOW),
            Decision::GiveUp
        );
    }

    #[test]
    fn the_window_does_not_restart_at_a_later_failure() {
        let delay = Duration::from_secs(1);
        let late = decide(at(31_999), at(1000), Cause::Connect, delay, WINDOW);
        assert_eq!(late, Decision::Wait { retry: at(32_999), deadline: at(33_000) });
        assert_eq!(decide(at(32_000), at(1000), Cause::Connect, delay, WINDOW), Decision::GiveUp);
    }

    #[test]
    fn a_delay_as_long_as_the_window_can_never_retry() {
        assert_eq!(decide(at(0), at(0), Cause::Flow, WINDOW, WINDOW), Decision::GiveUp);
    }

    #[test]
    fn a_late_2xx_is_never_left_without_ack() {
        assert_eq!(decide_late(200, false), Late::Succeed);
        assert_eq!(decide_late(202, true), Late::Acknowledge);
    }

    #[test]
    fn a_late_provisional_response_adopts_the_orphan_unless_a_newer_attempt_is_out() {
        assert_eq!(decide_late(180, false), Late::Adopt);
        assert_eq!(decide_late(180, true), Late::Ignore);
    }

    #[test]
    fn late_481_and_408_end_the_leg_and_other_failures_do_not() {
        for status in [408, 481] {
            assert_eq!(decide_late(status, true), Late::EndLeg);
        }
        for status in [300, 486, 500, 503, 603] {
            assert_eq!(decide_late(status, false), Late::Ignore);
        }
    }
}
