//! How a peer that vanishes while a request waits is missed in `tcp-user-timeout`, and whether it answers our
//! pings (RFC 5626 §4.4.1).
//!
//! A peer need not: before RFC 5626 a CRLF between messages was skipped and no more, and since then phones send pings
//! of their own and answer none. One that has answered two in a row, each before the next was sent, is known to answer,
//! and is missed when it does not: what looks like an answer may be its own ping, or its own keep-alive once in a while.
//!
//! ```text
//!          asked, the last message may be under way        read
//!   Whole ──────────────────────────────────────► Asking ────────► Whole
//!     │                                             │ asked, nothing but pings is under way
//!     │ asked, nothing but pings is under way       ▼
//!     └────────────────────────────────────────► Short ──► Whole when a message is written and no ping is under way
//! ```

use std::time::Duration;

use super::tcp::ASK_EVERY;
use crate::time::Instant;

/// The answer to a keep-alive (RFC 5626 §3.5.1).
pub(super) const PONG: &[u8] = b"\r\n";
/// Pings in a row that a peer must have answered to be known to answer.
const ANSWERS_MIN: u8 = 2;
/// How long an answer may take (RFC 5626 §4.4.1).
const PONG_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the kernel has for a peer of which nothing is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Patience {
    /// `tcp-user-timeout` from the first byte that is not acknowledged.
    #[default]
    Whole,
    /// Less by `ping-interval`: what is under way are pings, and the peer may have vanished when the one before
    /// them had just been acknowledged.
    Short,
    /// [`Whole`](Self::Whole), and the kernel asks each second as long as everything is acknowledged, and counts
    /// from the last that it heard.
    Asking,
}

/// The pings of one flow.
#[derive(Debug, Default)]
pub(super) struct Pings {
    patience: Patience,
    /// When the last message was written, if nothing was read since: it may be unacknowledged.
    message: Option<Instant>,
    /// When the last ping was written, if nothing was read since.
    ping: Option<Instant>,
    /// Pings in a row that it has answered, until there were [`ANSWERS_MIN`].
    answered: u8,
    /// When it must have answered.
    due: Option<Instant>,
}

impl Pings {
    /// What the kernel is to be told.
    pub(super) fn patience(&self) -> Patience {
        self.patience
    }

    /// The peer is to be asked whether it is there. True: by a ping, which the caller writes. False: by the
    /// kernel, because a ping needs the short patience, which a message under way must not get.
    pub(super) fn ask(&mut self, now: Instant, user_timeout: Duration) -> bool {
        let alone = self.patience == Patience::Short || is_over(self.message, now, user_timeout);
        if !user_timeout.is_zero() {
            self.patience = if alone { Patience::Short } else { Patience::Asking };
        }
        if alone {
            let unanswered = self.ping.replace(now).is_some();
            if unanswered && !self.answers() {
                self.answered = 0;
            }
            if self.answers() && self.due.is_none() {
                self.due = Some(now + PONG_TIMEOUT);
            }
        }
        alone
    }

    /// A message is written.
    pub(super) fn wrote(&mut self, now: Instant, user_timeout: Duration) {
        self.message = Some(now);
        if self.patience == Patience::Short && is_over(self.ping, now, user_timeout) {
            self.patience = Patience::Whole;
        }
    }

    /// Something was read from the socket.
    pub(super) fn heard(&mut self) {
        self.message = None;
        if self.patience == Patience::Asking {
            self.patience = Patience::Whole;
        }
    }

    /// Plain text was read, whatever it is: the peer lives. `between` when no message was begun before. True when it
    /// is the answer to a ping and nothing else: two of them are no ping.
    pub(super) fn read(&mut self, bytes: &[u8], between: bool) -> bool {
        self.due = None;
        let pong = self.ping.take().is_some() && between && bytes == PONG;
        if pong && !self.answers() {
            self.answered += 1;
        }
        pong
    }

    fn answers(&self) -> bool {
        self.answered >= ANSWERS_MIN
    }

    /// When the flow is over, unless something is read before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

/// True when what was written then is acknowledged: something was read since, or the kernel would have given the
/// connection up. It has a second more for that, in which it asks once more.
fn is_over(written: Option<Instant>, now: Instant, user_timeout: Duration) -> bool {
    written.is_none_or(|written| now.since(written) >= user_timeout + ASK_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(3);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn only_a_peer_that_has_answered_a_ping_must_answer() {
        let mut pings = Pings::default();
        assert!(pings.ask(at(0), TIMEOUT));
        assert_eq!(pings.due(), None);
        assert!(!pings.read(b"SIP/2.0 100 Trying", true));
        assert!(pings.ask(at(1000), TIMEOUT));
        assert_eq!(pings.due(), None, "that was no pong");
        assert!(pings.read(b"\r\n", true));
        assert!(!pings.read(b"\r\n", true), "nobody had asked");
        assert!(pings.ask(at(2000), TIMEOUT));
        assert_eq!(pings.due(), None, "one is not enough");
        assert!(pings.read(b"\r\n", true));
        assert!(pings.ask(at(2000), TIMEOUT) && pings.ask(at(3000), TIMEOUT));
        assert_eq!(pings.due(), Some(at(12_000)), "the first unanswered one counts");
        assert!(!pings.read(b"I", true));
        assert_eq!(pings.due(), None);
    }

    #[test]
    fn a_peer_with_keep_alives_of_its_own_need_not_answer() {
        for (own, is_pong) in [(&b"\r\n\r\n"[..], false), (b"\r\n", true)] {
            let mut pings = Pings::default();
            for second in 0..40 {
                assert!(pings.ask(at(1000 * second), TIMEOUT));
                assert_eq!(pings.due(), None, "after {second} s");
                if second % 15 == 14 {
                    assert_eq!(pings.read(own, true), is_pong);
                }
            }
        }
    }

    #[test]
    fn a_line_end_inside_a_message_is_no_pong() {
        let mut pings = Pings::default();
        assert!(pings.ask(at(0), TIMEOUT));
        assert!(!pings.read(b"\r\n", false));
        assert!(pings.ask(at(1000), TIMEOUT));
        assert_eq!(pings.due(), None);
    }

    #[test]
    fn a_message_that_may_be_under_way_has_the_whole_patience_and_no_ping_behind_it() {
        let mut pings = Pings::default();
        pings.wrote(at(0), TIMEOUT);
        assert!(!pings.ask(at(1000), TIMEOUT) && !pings.ask(at(3999), TIMEOUT));
        assert_eq!(pings.patience(), Patience::Asking);
        assert!(pings.ask(at(4000), TIMEOUT), "the kernel would have given it up");
        assert_eq!(pings.patience(), Patience::Short);
    }

    #[test]
    fn pings_that_are_alone_under_way_have_the_short_patience() {
        let mut pings = Pings::default();
        pings.wrote(at(0), TIMEOUT);
        assert!(!pings.ask(at(1000), TIMEOUT));
        pings.heard();
        assert_eq!(pings.patience(), Patience::Whole, "the kernel need not ask any more");
        assert!(pings.ask(at(2000), TIMEOUT));
        assert_eq!(pings.patience(), Patience::Short);
    }

    #[test]
    fn a_message_behind_a_ping_has_the_whole_patience_once_the_ping_has_arrived() {
        let mut pings = Pings::default();
        assert!(pings.ask(at(1000), TIMEOUT));
        pings.wrote(at(1500), TIMEOUT);
        assert_eq!(pings.patience(), Patience::Short, "the ping may be under way");
        assert!(pings.ask(at(2000), TIMEOUT), "so pings go on");
        pings.heard();
        assert!(pings.read(b"\r\n", true));
        pings.wrote(at(2100), TIMEOUT);
        assert_eq!(pings.patience(), Patience::Whole, "it was answered");
        assert!(pings.ask(at(6100), TIMEOUT));
        pings.wrote(at(10_100), TIMEOUT);
        assert_eq!(pings.patience(), Patience::Whole, "it was acknowledged");
    }

    #[test]
    fn without_a_timeout_there_is_no_patience_to_change() {
        let mut pings = Pings::default();
        pings.wrote(at(0), Duration::ZERO);
        assert!(pings.ask(at(1000), Duration::ZERO));
        assert_eq!(pings.patience(), Patience::Whole);
    }
}
