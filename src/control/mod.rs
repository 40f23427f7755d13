//! The control plane: what a person or a supervisor says to the server.
//!
//! It speaks to shards by [`Command`](crate::shard::Command) and [`Report`](crate::shard::Report)
//! only.

// Files, threads and the clock belong here, apart from the protocol core.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod config;
mod events;
pub mod expiry;
pub mod hindrances;
pub mod limits;
mod metrics;
mod names;
pub mod reload;
pub mod serve;
mod stats;
