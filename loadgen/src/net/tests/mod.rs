//! The wire against raw sockets: each fault is seen by a peer as what it claims to be.
#![allow(clippy::print_stdout, reason = "figures, and what could not be tried, are printed")]

mod faults;
mod figures;
mod kernel;
mod rig;
mod streams;
mod tls;
mod udp;
