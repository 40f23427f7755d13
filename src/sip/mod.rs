//! The protocol: deterministic, synchronous, total.
//!
//! Nothing here waits, reads a clock, draws entropy, or fails: [`Endpoint::handle`] takes an input
//! and a time and appends actions. `tests/sim` runs it in a simulated world, `shard` on sockets.

mod actions;
mod admission;
mod agent;
pub mod counters;
mod dialog;
mod endpoint;
mod flow;
mod kept;
pub mod message;
mod proxy;
pub mod recovery;
mod session;
mod timer;
mod token;
pub mod transaction;
pub mod wheel;

pub use actions::{Action, Actions, CloseReason, FlowError, Input, NewFlow, Stats};
pub use endpoint::{Endpoint, TIMERS_PER_TURN};
pub use token::Token;
