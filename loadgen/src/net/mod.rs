//! Sockets, on glommio's executor: TCP, TLS and UDP, and the faults that parties suffer.
//!
//! ```text
//! engine ─► Outboxes ─► writing task ─► socket       one write carries all that waits
//! engine ◄─ Handler  ◄─ reading task ◄─ socket       one read takes all there is
//!     └───► Wire::strike, lift, rebind ─► connections and listeners
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "a load generator measures by the clock and waits in real time"
)]

mod conn;
mod connect;
mod fault;
pub(crate) mod kernel;
mod listen;
mod outbox;
mod ready;
mod tally;
mod tls;
mod types;
mod udp;
mod wire;

#[cfg(test)]
mod tests;

use std::io;

pub(crate) use self::{
    outbox::Outboxes,
    tally::Tally,
    tls::{Authority, Tls, TlsOptions},
    types::{Closed, Door, Fault, Handler, Limits, Place, Reconnect, Side, Struck, Transport},
    wire::Wire,
};

fn no_tls() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "TLS is asked for, but there are no certificates")
}

fn too_many() -> io::Error {
    io::Error::other("more connections than the limit of this run")
}
