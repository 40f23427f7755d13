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

use super::message::{Name, View};
use crate::cti;
use crate::key::TimerKey;
use crate::time::Instant;

/// Why an attempt counts as failed in transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// F1: the connection was refused, unreachable, or did not open in time.
    Connect,
    /// F2: the flow that the attempt went out on died, whether or not a 1xx had come.
    Flow,
    /// F5: nothing was heard of the peer any more, though it should have been.
    Silence,
    /// F3, F4, or both at once: `503` with `Error-Info: transport-error`, with `Retry-After`.
    Unavailable {
        /// A proxy says that it could not reach the peer.
        transport_error: bool,
        /// What Retry-After says.
        retry_after: Option<Duration>,
    },
    /// F6: an answer that `transport-error-responses` lists.
    Listed,
    /// The peer is busy with an earlier copy of a repeated attempt: `500` with Retry-After (RFC
    /// 3261 §14.2), or `491` and the pause of §14.1.
    Busy(Duration),
}

impl Cause {
    /// True when another address of the same device may do better; a busy peer is the same peer
    /// everywhere.
    pub(super) fn is_of_the_target(self) -> bool {
        match self {
            Self::Connect
            | Self::Flow
            | Self::Silence
            | Self::Unavailable { .. }
            | Self::Listed => true,
            Self::Busy(_) => false,
        }
    }

    /// What events and counters call it.
    pub(super) fn told(self) -> cti::Cause {
        match self {
            Self::Connect => cti::Cause::Connect,
            Self::Flow => cti::Cause::Flow,
            Self::Silence => cti::Cause::Silence,
            Self::Unavailable { transport_error: true, .. } => cti::Cause::TransportError,
            Self::Unavailable { transport_error: false, .. } => cti::Cause::RetryAfter,
            Self::Listed => cti::Cause::Listed,
            Self::Busy(_) => cti::Cause::Busy,
        }
    }

    /// The pause before the next attempt; `None` when there is to be none.
    fn wait(self, delay: Duration) -> Option<Duration> {
        let delay = Some(delay).filter(|delay| !delay.is_zero());
        match self {
            Self::Connect | Self::Flow | Self::Silence | Self::Listed => delay,
            Self::Unavailable { transport_error, retry_after } => {
                let asked = retry_after.map(|after| after.max(RETRY_AFTER_MIN));
                delay.filter(|_| transport_error).max(asked)
            }
            Self::Busy(pause) => Some(pause.max(RETRY_AFTER_MIN)),
        }
    }
}

/// The least pause that an answer can ask for, T1. A peer that says `Retry-After: 0` and refuses again
/// was asked a thousand times a second.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(500);

/// Reads the cause off a final response to a re-INVITE; `None` when it is an answer like any other.
/// `listed` are the statuses of `transport-error-responses`;
/// `repeated` when an attempt of the same operation went before; `pause` is what RFC 3261 §14.1
/// prescribes after a 491.
pub(super) fn cause_of(
    response: View<'_>,
    listed: &[u16],
    repeated: bool,
    pause: Duration,
) -> Option<Cause> {
    let retry_after = response.retry_after().map(|secs| Duration::from_secs(secs.into()));
    let status = response.status();
    let is_listed = || listed.contains(&status).then_some(Cause::Listed);
    match status {
        503 => {
            let transport_error = response.values(Name::ErrorInfo).any(is_transport_error);
            (transport_error || retry_after.is_some())
                .then_some(Cause::Unavailable { transport_error, retry_after })
                .or_else(is_listed)
        }
        500 if repeated && retry_after.is_some() => retry_after.map(Cause::Busy),
        491 if repeated => Some(Cause::Busy(pause)),
        _ => is_listed(),
    }
}

/// Reason (RFC 3326) of what follows a transport failure: the BYE on the other leg when a recovery was given
/// up, and a proxy's 503.
pub(super) const TRANSPORT_ERROR: &str = "SIP;cause=503;text=\"transport-error\"";

/// True for `transport-error` in the spellings that proxies use: bare, in brackets, as the last
/// part of a URI or URN, or as a parameter; in any case.
fn is_transport_error(value: &[u8]) -> bool {
    let is_token = |text: &[u8]| text.trim_ascii().eq_ignore_ascii_case(b"transport-error");
    let (uri, outside) = match (memchr::memchr(b'<', value), memchr::memchr(b'>', value)) {
        (Some(open), Some(close)) if open < close => (&value[open + 1..close], &value[close + 1..]),
        _ => (value, &[][..]),
    };
    let mut parts = uri.split(|&byte| byte == b';');
    let path = parts.next().unwrap_or_default();
    let path = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    let last = path.rsplit(|byte| matches!(byte, b'/' | b':')).next().unwrap_or_default();
    let is_parameter =
        |text: &[u8]| text.split(|&byte| byte == b'=').any(|part| is_token(unquoted(part)));
    is_token(last) || parts.chain(outside.split(|&byte| byte == b';')).any(is_parameter)
}

/// The text of a quoted string; anything else as it is.
fn unquoted(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii();
    text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text)
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
    let deadline = first_failure + window;
    let Some(retry) = cause.wait(delay).map(|wait| now + wait).filter(|retry| *retry < deadline)
    else {
        return Decision::GiveUp;
    };
    Decision::Wait { retry, deadline }
}

/// A leg that is recovering: from the first failure until an answer comes or it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// When the first failure was noticed: the window begins here.
    pub first_failure: Instant,
    /// Why the failure came about that the first wait followed.
    pub cause: cti::Cause,
    /// Waits that were begun so far.
    pub waits: u32,
    /// How long they are together.
    pub waited: Duration,
    /// Where it stands.
    pub phase: Phase,
}

impl Recovery {
    /// The first failure is noticed at `now`.
    pub(super) fn begin(now: Instant, cause: Cause) -> Self {
        let (cause, waited) = (cause.told(), Duration::ZERO);
        Self { first_failure: now, cause, waits: 0, waited, phase: Phase::Attempting }
    }
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
    fn retry_after_is_waited_for_even_where_the_delay_is_zero() {
        let asked = |transport_error, secs| Cause::Unavailable {
            transport_error,
            retry_after: Some(Duration::from_secs(secs)),
        };
        let wait = |cause, delay| match decide(at(0), at(0), cause, delay, WINDOW) {
            Decision::Wait { retry, .. } => Some(retry.as_millis()),
            Decision::GiveUp => None,
        };
        let delay = Duration::from_secs(3);
        assert_eq!(wait(asked(false, 2), Duration::ZERO), Some(2000));
        assert_eq!(wait(asked(false, 2), delay), Some(2000));
        assert_eq!(wait(asked(true, 2), delay), Some(3000), "the larger of both");
        assert_eq!(wait(asked(true, 4), delay), Some(4000), "the larger of both");
        assert_eq!(wait(asked(false, 0), Duration::ZERO), Some(500), "at least T1");
        assert_eq!(wait(asked(false, 32), delay), None, "not inside the window");
        let bare = Cause::Unavailable { transport_error: true, retry_after: None };
        assert_eq!(wait(bare, Duration::ZERO), None);
    }

    #[test]
    fn transport_error_is_recognised_in_all_its_spellings() {
        for value in [
            "transport-error",
            "Transport-Error",
            "<transport-error>",
            "<urn:holdfast:transport-error>",
            "<http://h/errors/transport-error>;x=y",
            "<sip:proxy@h>;reason=transport-error",
            "<sip:proxy@h>;transport-error",
            "sip:h;transport-error",
            "<sip:proxy@h>;reason=\"transport-error\"",
            "<sip:proxy@h> ; reason = \"Transport-Error\"",
        ] {
            assert!(is_transport_error(value.as_bytes()), "{value}");
        }
        for value in [
            "",
            "<sip:transport-error@h>",
            "transport-errors",
            "<http://h/transport-error/x>",
            "<sip:h>;reason=\"transport-error",
        ] {
            assert!(!is_transport_error(value.as_bytes()), "{value}");
        }
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
