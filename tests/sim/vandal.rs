//! A stranger who sends what he overheard, altered: the server must neither fall over nor let it
//! touch a call.
//!
//! Call-ID and branch are always other ones, so nothing that he says belongs to a call; then some
//! bytes are flipped, the message is cut short, or something is put in between.

use std::net::SocketAddr;

use crate::message::Msg;
use crate::network::{Cut, Owner};
use crate::peer::{MS, SEC};
use crate::scenario::Cue;
use crate::swarm::SERVER;
use crate::world::{Event, World};

/// Overheard messages that are kept.
const HEARD_MAX: usize = 16;

/// Remembers a message that the server read.
pub(crate) fn overhear(world: &mut World, bytes: &[u8]) {
    if world.director.vandal_gap == 0 {
        return;
    }
    let heard = &mut world.director.heard;
    if heard.len() == HEARD_MAX {
        heard.remove(0);
    }
    heard.push(bytes.to_vec());
}

/// Connects, sends a few altered messages, and mostly goes away at once.
pub(crate) fn on_cue(world: &mut World) {
    let gap = 1 + world.rng.below(2 * world.director.vandal_gap);
    world.schedule.after(gap, Event::Cue(Cue::Vandal));
    let (Ok(from), Ok(server)) = ("10.66.0.1:1".parse::<SocketAddr>(), SERVER.parse()) else {
        return;
    };
    world.truth.cover("vandal");
    let link = world.net.connect(&mut world.schedule, Owner::Nobody, from, server, SEC);
    for _ in 0..world.rng.range(1, 4) {
        let bytes = alter(world);
        world.net.send(&mut world.schedule, link, 0, &bytes);
    }
    if world.rng.chance(700) {
        let after = world.rng.below(500 * MS);
        let cut = Cut { told_after: [after; 2], ..Cut::RESET };
        world.net.kill(&mut world.schedule, link, cut);
    }
}

fn alter(world: &mut World) -> Vec<u8> {
    let rng = &mut world.rng;
    if world.director.heard.is_empty() {
        let len = rng.below(400) as usize;
        return rng.bytes(len);
    }
    let heard = rng.pick(&world.director.heard).clone();
    let Ok(mut msg) = Msg::parse(&heard) else { return heard[..heard.len() / 2].to_vec() };
    for (name, value) in &mut msg.headers {
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "call-id" | "i" => value.extend_from_slice(b"-stranger"),
            "via" | "v" => *value = String::from_utf8_lossy(value).replace("4bK", "4bKs").into(),
            "x-sim-id" | "x-sim-call" | "x-sim-response" => value.clear(),
            _ => {}
        }
    }
    let mut bytes = msg.to_bytes();
    match rng.below(6) {
        0 => {}
        1 => bytes.truncate(rng.below(bytes.len() as u64) as usize),
        2 => {
            let at = rng.below(bytes.len() as u64) as usize;
            let junk: &[u8] = match rng.below(4) {
                0 => b"\r",
                1 => b"\r\n\r\n",
                2 => b"\r\nContent-Length: 4294967296\r\n",
                _ => &[0, 255, b'<', b'"'],
            };
            bytes.splice(at..at, junk.iter().copied());
        }
        3 => {
            let long = "x".repeat(rng.range(1_000, 70_000) as usize);
            msg.add("X-Long", long);
            bytes = msg.to_bytes();
        }
        _ => {
            for _ in 0..rng.range(1, 6) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.next() as u8;
            }
        }
    }
    bytes
}
