//! A fault at an exact point of a call: before, in the middle of, or after the bytes of one message,
//! at the end that writes it or at the end that reads it.
//!
//! ```text
//!        Before Middle After                 Reads
//!           │     │     │                      │
//! writer ───┴─INVITE────┴──────────────────────┴─► reader
//! ```
//!
//! A trap springs once for each of its points, in their order. What follows the last one is its
//! aftermath: who is away, for how long, and what the peer then does.

use crate::message::find;
use crate::network::{Cut, Flight, LinkId, Listener, Owner};
use crate::peer::Traits;
use crate::scenario::{Cue, cut_peer};
use crate::world::{Event, NOTICED, World};

/// Which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Request(&'static str),
    /// A response to an INVITE.
    Status(u16),
}

impl What {
    fn is(self, bytes: &[u8]) -> bool {
        let bytes = bytes.trim_ascii_start();
        match self {
            Self::Request(method) => bytes.starts_with(method.as_bytes()),
            Self::Status(status) => {
                bytes.starts_with(format!("SIP/2.0 {status}").as_bytes())
                    && find(bytes, b" INVITE\r\n").is_some()
            }
        }
    }
}

/// Where in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The writer is about to write it.
    Before,
    /// Some of its bytes arrive, never all of them.
    Middle,
    /// It is written, and lost.
    After,
    /// The reader is about to act on all of it.
    Read,
}

/// A point of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) what: What,
    pub(crate) moment: Moment,
    /// So many messages like it pass first.
    pub(crate) skip: u64,
}

/// What follows the last fault.
#[derive(Clone, Debug)]
pub(crate) struct Aftermath {
    /// How the addresses of the peer behave from then on.
    pub(crate) listener: Listener,
    /// When they are back.
    pub(crate) back_after: Option<u64>,
    /// When the peer opens a flow of its own.
    pub(crate) returns_after: Option<u64>,
    /// Its habits from then on.
    pub(crate) traits: Traits,
}

/// Points at which the flows between the server and one peer die.
#[derive(Clone, Debug)]
pub(crate) struct Trap {
    pub(crate) peer: usize,
    pub(crate) points: Vec<Point>,
    pub(crate) cut: Cut,
    /// All flows of the peer die, not only the one.
    pub(crate) whole_peer: bool,
    pub(crate) aftermath: Aftermath,
    /// When it sprang.
    pub(crate) sprung: Vec<u64>,
}

impl Trap {
    /// The point that comes next is reached by these bytes.
    fn reached(&mut self, bytes: &[u8], moments: &[Moment]) -> Option<Moment> {
        let point = self.points.get_mut(self.sprung.len())?;
        if !moments.contains(&point.moment) || !point.what.is(bytes) {
            return None;
        }
        match point.skip {
            0 => Some(point.moment),
            _ => {
                point.skip -= 1;
                None
            }
        }
    }
}

/// The trap, where it is set for the peer at one of the link's ends.
fn on_link(world: &mut World, link: LinkId) -> Option<&mut Trap> {
    let owners = world.net.links[link].owners;
    let healthy = world.net.is_healthy(link);
    let trap = world.trap.as_mut().filter(|_| healthy)?;
    let ours = |owner: &Owner| matches!(owner, Owner::Peer { peer, .. } if *peer == trap.peer);
    owners.iter().any(ours).then_some(trap)
}

/// How much of a message is still written when the flow dies around it.
pub(crate) fn at_write(world: &mut World, link: LinkId, end: usize, bytes: &[u8]) -> Option<usize> {
    let mut rng = world.rng.fork("trap");
    let trap = on_link(world, link)?;
    let moment = trap.reached(bytes, &[Moment::Before, Moment::Middle, Moment::After])?;
    let other = 1 - end;
    trap.cut.flight[other] =
        if moment == Moment::Middle { Flight::Delivered } else { Flight::Lost };
    Some(match moment {
        Moment::Before => 0,
        Moment::Middle => rng.range(1, bytes.len() as u64 - 1) as usize,
        Moment::After | Moment::Read => bytes.len(),
    })
}

/// A whole message is read at one end.
pub(crate) fn at_read(world: &mut World, link: LinkId, owner: Owner, bytes: &[u8]) {
    let server = matches!(owner, Owner::Shard { .. });
    let Some(trap) = on_link(world, link) else { return };
    // A point is at one end: what the server writes its peer reads, and the other way round.
    if matches!(owner, Owner::Peer { peer, .. } if peer != trap.peer) {
        return;
    }
    let request = !bytes.starts_with(b"SIP/");
    if request != server && trap.reached(bytes, &[Moment::Read]).is_some() {
        trap.cut.flight = [Flight::Lost; 2];
        fire(world, link);
    }
}

/// The flow dies, and after the last time the aftermath begins.
pub(crate) fn fire(world: &mut World, link: LinkId) {
    let Some(mut trap) = world.trap.take() else { return };
    world.kill(link, trap.cut);
    if trap.whole_peer {
        cut_peer(world, trap.peer, trap.cut);
    }
    spring(world, &mut trap);
    world.trap = Some(trap);
}

/// Notes that a fault of the trap happened.
pub(crate) fn spring(world: &mut World, trap: &mut Trap) {
    let now = world.now();
    trap.sprung.push(now);
    if trap.sprung.len() < trap.points.len() {
        return;
    }
    let (peer, after) = (trap.peer, trap.aftermath.clone());
    world.peers[peer].traits = after.traits;
    if after.listener == Listener::Up {
        let told = trap.cut.told_after[0].max(trap.cut.told_after[1]);
        let noticed = if trap.cut.silent { told.min(NOTICED) } else { told };
        world.truth.healed_at = Some(now + noticed);
    } else {
        world.oracle.disturbed(peer, now + after.back_after.unwrap_or(u64::MAX / 4));
        for (index, listener) in world.listeners.values_mut() {
            if *index == peer {
                *listener = after.listener;
            }
        }
    }
    if let Some(after) = after.back_after {
        world.schedule.after(after, Event::Cue(Cue::Back { peer }));
    }
    if let Some(after) = after.returns_after {
        world.schedule.after(after, Event::Cue(Cue::Return { peer }));
    }
}

/// The peer opens a flow of its own and asks something over it, on the leg of every call it has.
pub(crate) fn come_back(world: &mut World, peer: usize) {
    let target = world.peers[peer].outbound;
    for leg in 0..world.peers[peer].legs.len() {
        if world.peers[peer].is_ready(leg) {
            world.truth.cover("peer came back over a flow of its own");
            world.with_peer(peer, |peer, ctx| {
                let conn = peer.connect(ctx, target);
                peer.legs[leg].conn = conn;
                peer.send_in_dialog(ctx, leg, "INFO");
            });
        }
    }
}
