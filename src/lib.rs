//! Holdfast: a SIP server that keeps established calls alive when the TCP connections under them
//! fail.
//!
//! A shard is one thread on one core that owns connections, dialogs and one hashed timer wheel. Its
//! protocol is a plain struct, [`sip::Endpoint`]: it is handed the time and an input and appends
//! actions to a buffer; it never waits, never reads a clock, never fails. Around it, tasks on
//! glommio read sockets, call `handle`, and carry the actions out. The control plane is one more
//! thread that talks to shards by messages only.
//!
//! ```text
//! control ─► shard ─► net ─► sip ─► base        (an arrow means: may import)
//! within sip: endpoint ─► agent ─► session ─► recovery, dialog ─► transaction ─► flow, kept, message, wheel, timer
//! ```
//!
//! `tests/layers.rs` reads every `use` of the source against this rule.

mod bucket;
pub mod cti;
pub mod key;
pub mod network;
pub mod options;
pub mod proxy_protocol;
pub mod target;
pub mod time;

pub mod sip;

#[cfg(feature = "server")]
pub mod control;
#[cfg(feature = "server")]
pub mod net;
#[cfg(feature = "server")]
pub mod shard;
