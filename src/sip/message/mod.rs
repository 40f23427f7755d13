//! SIP messages as bytes: framing, offsets, borrowed views.

mod frame;

pub use frame::FrameError;
