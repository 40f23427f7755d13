//! Session timers (RFC 4028): a call whose peers vanished ends.
//!
//! The peers negotiate and refresh among themselves, through the server; it reads what their 2xx
//! say. When no refresh came in time it sends both their BYE, as each of them would (§10).

use std::time::Duration;

use super::{Agent, Call};
use crate::key::CallId;
use crate::sip::message::View;
use crate::sip::timer::Timer;
use crate::sip::transaction::Stack;

/// The least session interval (RFC 4028 §4); what is below it is taken for it.
const INTERVAL_MIN: Duration = Duration::from_secs(90);
/// How long before the end of the interval the BYE is sent, at most (RFC 4028 §10).
const MARGIN_MAX: Duration = Duration::from_secs(32);

impl Call {
    /// A 2xx to an INVITE or UPDATE passed: the session is refreshed, or has no timer any more.
    pub(super) fn refresh_session(&mut self, stack: &mut Stack, id: CallId, success: View<'_>) {
        self.stop_session_timer(stack);
        let Some(seconds) = success.session_expires() else { return };
        let interval = Duration::from_secs(seconds.into()).max(INTERVAL_MIN);
        let end = stack.now + (interval - MARGIN_MAX.min(interval / 3));
        self.session = Some(stack.wheel.schedule(end, Timer::Session(id)));
    }

    pub(super) fn stop_session_timer(&mut self, stack: &mut Stack) {
        if let Some(timer) = self.session.take() {
            stack.wheel.cancel(timer);
        }
    }
}

impl Agent {
    /// No refresh came in time.
    pub(super) fn release_expired(&mut self, stack: &mut Stack, id: CallId) {
        if let Some(call) = self.calls.get_mut(id) {
            call.session = None;
            self.release_silent(stack, id);
        }
    }
}
