//! Whether the peer answers our pings (RFC 5626 §4.4.1).
//!
//! A peer need not: before RFC 5626 a CRLF between messages was skipped and no more. One that has answered a
//! ping is known to answer, and is missed when it does not.

use std::time::Duration;

use crate::time::Instant;

/// How long an answer may take (RFC 5626 §4.4.1).
const PONG_TIMEOUT: Duration = Duration::from_secs(10);

/// The pings of one flow.
#[derive(Debug, Default)]
pub(super) struct Pings {
    /// A ping was sent, and nothing was read since.
    asked: bool,
    /// The peer has answered one before.
    answers: bool,
    /// When it must have answered.
    due: Option<Instant>,
}

impl Pings {
    /// A ping was sent.
    pub(super) fn sent(&mut self, now: Instant) {
        self.asked = true;
        if self.answers && self.due.is_none() {
            self.due = Some(now + PONG_TIMEOUT);
        }
    }

    /// Something was read, whatever it is: the peer lives. `between` when no message was begun before.
    pub(super) fn read(&mut self, bytes: &[u8], between: bool) {
        self.due = None;
        if std::mem::take(&mut self.asked) && between {
            self.answers |= bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        }
    }

    /// When the flow is over, unless something is read before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_peer_that_has_answered_a_ping_must_answer() {
        let at = Instant::from_millis;
        let mut pings = Pings::default();
        pings.sent(at(0));
        assert_eq!(pings.due(), None);
        pings.read(b"SIP/2.0 100 Trying", true);
        pings.sent(at(1000));
        assert_eq!(pings.due(), None, "that was no pong");
        pings.read(b"\r\n", true);
        pings.read(b"\r\n", true);
        pings.sent(at(2000));
        pings.sent(at(3000));
        assert_eq!(pings.due(), Some(at(12_000)), "the first unanswered one counts");
        pings.read(b"I", true);
        assert_eq!(pings.due(), None);
    }

    #[test]
    fn a_line_end_inside_a_message_is_no_pong() {
        let mut pings = Pings::default();
        pings.sent(Instant::from_millis(0));
        pings.read(b"\r\n", false);
        pings.sent(Instant::from_millis(1000));
        assert_eq!(pings.due(), None);
    }
}
