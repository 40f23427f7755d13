//! The simulated world: the protocol core among simulated peers on a simulated network, in virtual
//! time, everything drawn from one seed. What it does and how to use it: `docs/SIMULATOR.md`.

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::disallowed_types)]

mod again;
mod causes;
mod datagram;
mod datagram_paths;
mod events;
mod late;
mod log;
mod mass;
mod matrix;
mod message;
mod moved;
mod network;
mod oracle;
mod orders;
mod packets;
mod peer;
mod proxy;
mod rng;
mod routine;
mod runner;
mod scenario;
mod scenarios;
mod script;
mod server;
mod shards;
mod silence;
mod superseded;
mod swarm;
mod targets;
mod trap;
mod truth;
mod uac;
mod uas;
mod unchanged;
mod vandal;
mod world;
