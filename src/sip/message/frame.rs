//! Splits a byte stream into SIP messages.

/// Why a stream cannot be split any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The message is larger than `message_bytes_max`.
    TooLarge,
}
