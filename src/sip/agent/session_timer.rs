//! Session timers (RFC 4028): a call whose peers vanished ends.
//!
//! The peers negotiate and refresh among themselves, through the server; it reads what their 2xx
//! say. When no refresh came in time it sends both their BYE, as each of them would (§10).

use std::time::Duration;

use super::{Agent, Call};
use crate::key::{CallId, TimerKey};
use crate::sip::message::View;
use crate::sip::timer::Timer;
use crate::sip::transaction::Stack;
use crate::time::Instant;

/// The least session interval (RFC 4028 §4); what is below it is taken for it.
const INTERVAL_MIN: Duration = Duration::from_secs(90);
/// How long before the end of the interval the BYE is sent, at most (RFC 4028 §10).
const MARGIN_MAX: Duration = Duration::from_secs(32);

/// A session that the peers refresh.
#[derive(Debug)]
pub(super) struct Session {
    /// Due at `until` or before: among a million timers it costs less to look once more than to move it at each
    /// refresh.
    timer: TimerKey,
    /// When the BYE is sent.
    until: Instant,
}

impl Call {
    /// A 2xx to an INVITE or UPDATE passed: the session is refreshed, or has no timer any more.
    pub(super) fn refresh_session(&mut self, stack: &mut Stack, id: CallId, success: View<'_>) {
        let Some(seconds) = success.session_expires() else {
            return self.stop_session_timer(stack);
        };
        let interval = Duration::from_secs(seconds.into()).max(INTERVAL_MIN);
        let until = stack.now + (interval - MARGIN_MAX.min(interval / 3));
        match &mut self.session {
            Some(session) if session.until <= until => session.until = until,
            Some(_) | None => {
                self.stop_session_timer(stack);
                self.session = Some(Session::begin(stack, id, until));
            }
        }
    }

    pub(super) fn stop_session_timer(&mut self, stack: &mut Stack) {
        if let Some(session) = self.session.take() {
            stack.wheel.cancel(session.timer);
        }
    }
}

impl Session {
    fn begin(stack: &mut Stack, id: CallId, until: Instant) -> Self {
        Self { timer: stack.wheel.schedule(until, Timer::Session(id)), until }
    }
}

impl Agent {
    /// The end of a session, unless it was refreshed in time.
    pub(super) fn on_session_timer(&mut self, stack: &mut Stack, id: CallId) {
        let Some(call) = self.calls.get_mut(id) else { return };
        let Some(session) = call.session.take() else { return };
        if stack.now < session.until {
            call.session = Some(Session::begin(stack, id, session.until));
        } else {
            self.release_silent(stack, id);
        }
    }
}
