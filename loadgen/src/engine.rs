//! The user agents, without sockets: bytes of a message and the time go in, bytes for connections
//! come out.
//!
//! ```text
//! caller   Idle ─INVITE─► Inviting ─2xx/ACK─► Up ─re-INVITE─► Reinviting ─final/ACK─► Up
//!                                              └─BYE─► Ending ─200─► Over       BYE ─► Over
//! callee   INVITE: 180, 200   re-INVITE: as `Reply` says   BYE: 200
//! ```
//!
//! What the callers do next is a [`Round`]: one step for every call, or a step over and over.

use std::time::Instant;

use crate::figures::Latencies;
use crate::message::Message;
use crate::name::{Direction, Name};
use crate::text::{Dialog, Party};

/// Where a call stands on the caller's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    Inviting,
    Up,
    Reinviting,
    Ending,
    Over,
}

/// A call on the caller's side, and what the drill saw of it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) generation: u32,
    pub(crate) state: State,
    /// The last CSeq used.
    pub(crate) cseq: u32,
    /// The CSeq of the last INVITE.
    pub(crate) invite_cseq: u32,
    /// Offers so far.
    pub(crate) version: u32,
    /// The last INVITE has no final response yet.
    pub(crate) unanswered: bool,
    /// The round in force waits for this call.
    pub(crate) in_round: bool,
    /// When the last request went out.
    pub(crate) sent_at: Instant,
    pub(crate) dialog: Dialog,
    pub(crate) drill: Drill,
}

/// What the drill judges a call by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Drill {
    pub(crate) set_up: bool,
    /// The connection of its callee was reset then, with its re-INVITE outstanding.
    pub(crate) reset_at: Option<Instant>,
    /// Final response to the re-INVITE of the fault, and when it came.
    pub(crate) hold: Option<(u16, Instant)>,
    /// Final response to the re-INVITE that checks the call.
    pub(crate) check: Option<u16>,
    /// Final response to BYE.
    pub(crate) bye: Option<u16>,
    /// When the server ended the call.
    pub(crate) released_at: Option<Instant>,
    /// When the callee read the re-INVITE again after the reset.
    pub(crate) resent_at: Option<Instant>,
}

/// A call on the callee's side.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answered {
    pub(crate) up: bool,
    /// The connection its last request came on.
    pub(crate) conn: u32,
    /// Digest of Call-ID and From tag: they never change in a dialog.
    pub(crate) identity: u64,
    pub(crate) cseq: u32,
    /// Digest of the branch of the last INVITE.
    pub(crate) branch: u64,
    /// Digest of the body of the last INVITE, while it is unanswered.
    pub(crate) unanswered_body: Option<u64>,
    /// A 2xx was sent and its ACK has not come.
    pub(crate) ack_due: bool,
}

/// What callees do with a re-INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Answer,
    /// Read it and say nothing.
    Silence,
    /// Say 100 and no more.
    Trying,
}

/// What a round does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    SetUp,
    Hold,
    Retrieve,
    Bye,
    /// INVITE, ACK, BYE, and again.
    Cycle,
    /// re-INVITE, ACK, and again.
    Loop,
}

/// One step over the calls, bounded in flight and in rate.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) step: Step,
    /// The next call to look at.
    next: u32,
    /// Begin again after the last call.
    endless: bool,
    pub(crate) in_flight: u32,
    pub(crate) in_flight_max: u32,
    pub(crate) started: u64,
    /// How many may have been started by now.
    pub(crate) allowed: u64,
    pub(crate) done: u64,
    pub(crate) failed: u64,
}

impl Round {
    pub(crate) fn new(step: Step, in_flight_max: u32) -> Self {
        Self {
            step,
            next: 0,
            endless: matches!(step, Step::Cycle | Step::Loop),
            in_flight: 0,
            in_flight_max,
            started: 0,
            allowed: u64::MAX,
            done: 0,
            failed: 0,
        }
    }

    /// An endless round starts nothing more.
    pub(crate) fn stop(&mut self) {
        self.endless = false;
        self.next = u32::MAX;
    }
}

/// Breaches of the protocol that the user agents saw; each is a failure of the server.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Violations {
    /// A re-INVITE whose CSeq is not above the last one of its dialog.
    pub(crate) cseq_not_higher: u64,
    /// A repeated re-INVITE with the branch of the attempt before it.
    pub(crate) branch_not_new: u64,
    /// Call-ID or From tag of a dialog changed.
    pub(crate) dialog_changed: u64,
    /// A repeated re-INVITE with another body.
    pub(crate) body_changed: u64,
    /// An ACK whose CSeq is not that of the 2xx.
    pub(crate) ack_for_another: u64,
    /// A 2xx of a callee that was never acknowledged.
    pub(crate) ack_missing: u64,
    /// A call that went well for its caller, but its callee never got a BYE.
    pub(crate) bye_missing: u64,
    /// A re-INVITE of a caller that got no final response although the call was released.
    pub(crate) never_answered: u64,
    /// An answer that came sooner than the delay allows.
    pub(crate) too_early: u64,
    /// Messages for no known call, or bytes that are not SIP.
    pub(crate) stray: u64,
}

impl Violations {
    pub(crate) fn total(&self) -> u64 {
        self.cseq_not_higher
            + self.branch_not_new
            + self.dialog_changed
            + self.body_changed
            + self.ack_for_another
            + self.ack_missing
            + self.bye_missing
            + self.never_answered
            + self.too_early
            + self.stray
    }
}

/// Numbers for the progress line and the phases.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) set_up: u64,
    /// Re-INVITEs of the hold step that callees read.
    pub(crate) holds_read: u64,
    pub(crate) holds_answered: u64,
    pub(crate) released: u64,
    pub(crate) resent: u64,
    /// Final responses of each hundred to callers.
    pub(crate) finals: [u64; 7],
}

/// Bytes that wait for each connection, and which connections have news.
#[derive(Debug, Default)]
pub(crate) struct Outboxes {
    boxes: Vec<Vec<u8>>,
    pub(crate) dirty: Vec<u32>,
}

impl Outboxes {
    /// Makes room for connection `conn`.
    pub(crate) fn open(&mut self, conn: u32) {
        if self.boxes.len() <= conn as usize {
            self.boxes.resize_with(conn as usize + 1, Vec::new);
        }
    }

    /// Where the bytes for `conn` go.
    pub(crate) fn to(&mut self, conn: u32) -> &mut Vec<u8> {
        let bytes = &mut self.boxes[conn as usize];
        if bytes.is_empty() {
            self.dirty.push(conn);
        }
        bytes
    }

    /// Swaps what waits for `conn` into `taken`, which must be empty.
    pub(crate) fn take(&mut self, conn: u32, taken: &mut Vec<u8>) {
        std::mem::swap(&mut self.boxes[conn as usize], taken);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.boxes.iter().all(Vec::is_empty)
    }

    /// Forgets what waits for a connection that is gone.
    pub(crate) fn close(&mut self, conn: u32) {
        self.boxes[conn as usize] = Vec::new();
    }
}

/// Which end of the calls a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Caller,
    Callee,
}

/// Where a message came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) conn: u32,
    pub(crate) side: Side,
    pub(crate) party: u32,
}

/// All calls of a run.
pub(crate) struct Engine {
    pub(crate) run: u32,
    /// Address of the server.
    pub(crate) server: String,
    pub(crate) callers: Vec<Party>,
    pub(crate) callees: Vec<Party>,
    pub(crate) calls: Vec<Call>,
    pub(crate) answered: Vec<Answered>,
    pub(crate) reply: Reply,
    pub(crate) round: Round,
    pub(crate) out: Outboxes,
    pub(crate) violations: Violations,
    pub(crate) counts: Counts,
    pub(crate) latencies: Latencies,
    /// Scratch for bodies.
    pub(crate) body: Vec<u8>,
}

/// Calls looked at by one [`Engine::pump`], so that a turn is bounded.
const PUMP_MAX: u32 = 4096;

impl Engine {
    /// `calls` calls spread evenly over the parties, none of them begun.
    pub(crate) fn new(
        run: u32,
        server: String,
        callers: Vec<Party>,
        callees: Vec<Party>,
        calls: u32,
        now: Instant,
    ) -> Self {
        let call = || Call {
            generation: 0,
            state: State::Idle,
            cseq: 0,
            invite_cseq: 0,
            version: 0,
            unanswered: false,
            in_round: false,
            sent_at: now,
            dialog: Dialog::default(),
            drill: Drill::default(),
        };
        Self {
            run,
            server,
            callers,
            callees,
            calls: (0..calls).map(|_| call()).collect(),
            answered: vec![Answered::default(); calls as usize],
            reply: Reply::Answer,
            round: Round::new(Step::SetUp, 0),
            out: Outboxes::default(),
            violations: Violations::default(),
            counts: Counts::default(),
            latencies: Latencies::new(),
            body: Vec::new(),
        }
    }

    /// The caller of a call: the callers take turns among the calls of each callee, so that every
    /// pair occurs.
    pub(crate) fn caller_of(&self, index: u32) -> usize {
        (index as usize + index as usize / self.callees.len()) % self.callers.len()
    }

    /// The callee of a call, another one for each use of its place.
    pub(crate) fn callee_of(&self, index: u32) -> usize {
        let generation = self.calls[index as usize].generation;
        (index as usize + generation as usize) % self.callees.len()
    }

    pub(crate) fn name(&self, index: u32) -> Name {
        Name { index, generation: self.calls[index as usize].generation, run: self.run }
    }

    /// The name in `text`, when it is one of a call of this run in its present use.
    pub(crate) fn find(&self, text: &[u8]) -> Option<u32> {
        let name = Name::read(text).filter(|name| name.run == self.run)?;
        let call = self.calls.get(name.index as usize)?;
        (call.generation == name.generation).then_some(name.index)
    }

    /// A message came in.
    pub(crate) fn on_message(&mut self, place: Place, message: &Message<'_>, now: Instant) {
        match place.side {
            Side::Caller => self.on_caller_message(place, message, now),
            Side::Callee => self.on_callee_message(place, message, now),
        }
    }

    /// A caller's connection is gone: its calls cannot go on.
    pub(crate) fn on_caller_lost(&mut self, party: u32, now: Instant) {
        self.callers[party as usize].conn = None;
        for index in 0..self.calls.len() as u32 {
            if self.caller_of(index) == party as usize {
                self.calls[index as usize].state = State::Over;
                self.finish(index, false, now);
            }
        }
    }

    /// Begins a round and as many of its steps as may be in flight.
    pub(crate) fn begin(&mut self, round: Round, now: Instant) {
        for call in &mut self.calls {
            call.in_round = false;
        }
        self.round = round;
        self.pump(now);
    }

    /// True when nothing of the round is left.
    pub(crate) fn round_is_over(&self) -> bool {
        self.round.in_flight == 0 && self.round.next as usize >= self.calls.len()
    }

    /// Starts what the round allows now.
    pub(crate) fn pump(&mut self, now: Instant) {
        for _ in 0..PUMP_MAX {
            let round = &mut self.round;
            if round.in_flight >= round.in_flight_max || round.started >= round.allowed {
                return;
            }
            if round.endless && round.next as usize >= self.calls.len() {
                round.next = 0;
            }
            let index = round.next;
            if index as usize >= self.calls.len() {
                return;
            }
            round.next += 1;
            self.start(index, now);
        }
    }

    /// The round's step for one call, when the call is in the state for it.
    fn start(&mut self, index: u32, now: Instant) {
        let state = self.calls[index as usize].state;
        let fits = match self.round.step {
            Step::SetUp => state == State::Idle,
            Step::Cycle => state == State::Idle || state == State::Over,
            Step::Hold | Step::Retrieve | Step::Bye | Step::Loop => state == State::Up,
        };
        let party = self.caller_of(index);
        if !fits || self.calls[index as usize].in_round {
            return;
        }
        self.round.started += 1;
        let Some(conn) = self.callers[party].conn else {
            self.round.done += 1;
            self.round.failed += 1;
            return;
        };
        self.round.in_flight += 1;
        self.calls[index as usize].in_round = true;
        match self.round.step {
            Step::SetUp | Step::Cycle => self.invite(index, conn, now),
            Step::Hold => self.reinvite(index, conn, Direction::SendOnly, now),
            Step::Retrieve => self.reinvite(index, conn, Direction::Both, now),
            Step::Loop => {
                let held = self.calls[index as usize].version.is_multiple_of(2);
                let direction = match held {
                    true => Direction::Both,
                    false => Direction::SendOnly,
                };
                self.reinvite(index, conn, direction, now);
            }
            Step::Bye => self.bye(index, conn, now),
        }
    }

    /// The round's step for a call has ended.
    pub(crate) fn finish(&mut self, index: u32, good: bool, now: Instant) {
        let call = &mut self.calls[index as usize];
        if !call.in_round {
            return;
        }
        call.in_round = false;
        self.round.in_flight -= 1;
        self.round.done += 1;
        self.round.failed += u64::from(!good);
        if self.round.step == Step::Cycle {
            // The place that came free is the one that is known to be free.
            if self.round.endless {
                self.start(index, now);
            }
        } else {
            self.pump(now);
        }
    }

    /// Gives up what the round still waits for; how many that were.
    pub(crate) fn abandon_round(&mut self) -> u64 {
        let left = u64::from(self.round.in_flight);
        for call in &mut self.calls {
            call.in_round = false;
        }
        self.round.in_flight = 0;
        self.round.failed += left;
        self.round.stop();
        left
    }
}

/// FNV-1a: tells texts apart, no more.
pub(crate) fn digest(parts: &[&[u8]]) -> u64 {
    let mut value = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0]) {
            value = (value ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    value
}
