//! The oracle: a second, much simpler account of what the server owes, kept at its edge.
//!
//! It sees every message that an endpoint reads and sends, and every flow that opens and fails, and
//! keeps for each leg only what the recovery of a re-INVITE is about:
//!
//! ```text
//!             INVITE sent                fails: decide wait
//!  (nothing) ─────────────► Attempting ───────────────────► Waiting { due }
//!      ▲                        │   ▲                            │
//!      └─ a final response ─────┘   └── INVITE at due, CSeq + 1 ─┘
//!         BYE, CANCEL, give-up           1xx of an earlier attempt
//! ```
//!
//! What must happen by a time is an [`Owed`]; what must happen in the same turn is checked after it.

mod promise;
mod sent;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use holdfast::key::FlowId;

use crate::message::Msg;
use crate::peer::{MS, SEC, T1};
use crate::truth::{Ended, Side, Truth};

/// How late the server may be: one tick of its wheel, and one for what a turn may leave over.
const TICKS: u64 = 2 * MS;
/// Addresses of a peer that has a second one.
const TARGETS: u32 = 2;

/// The longest pause after 491 (RFC 3261 §14.1).
const PAUSE_MAX: u64 = 4 * SEC;

/// An INVITE that the server sent in a dialog.
#[derive(Debug)]
struct Attempt {
    msg: Msg,
    place: (usize, FlowId),
    sent_at: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Out,
    Proceeding,
    Failed { at: u64 },
    Final { status: u16 },
}

/// A re-INVITE from its first attempt to its final response.
#[derive(Debug)]
struct Operation {
    attempts: Vec<Attempt>,
    /// The attempt that is out, or was last.
    current: usize,
    phase: Phase,
    first_failure: Option<u64>,
    /// The longest window that was in force since then: an attempt that is out is cut where its
    /// window ended when it was sent.
    window_max: u64,
    cancelled: bool,
    /// Targets that failed since the last wait.
    failed_targets: u32,
    /// The end of the last pause that the peer asked for, at the latest.
    paused: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Attempting,
    /// `exact` is false where the server itself draws the delay.
    Waiting {
        due: u64,
        exact: bool,
    },
    Over,
}

/// A leg of the server, as seen from outside.
#[derive(Debug)]
struct Leg {
    call_id: String,
    call: usize,
    side: Side,
    peer: usize,
    cseq: u32,
    confirmed: bool,
    ended: bool,
    /// It is the one that could not be reached; its peer gets a BYE without a Reason, if any.
    failed: bool,
    /// The first INVITE, and all operations; the last one may be going on.
    operations: Vec<Operation>,
    /// 2xx sent to an INVITE of the peer and not acknowledged, by CSeq, since when.
    unacked: BTreeMap<u32, u64>,
    /// INVITEs of the peer without a final response, by CSeq: a peer that lost its flow may send a second one.
    served: BTreeSet<u32>,
}

impl Leg {
    /// It waits for its next attempt, on this shard.
    fn is_waiting(&self, shard: usize) -> bool {
        self.operations.last().is_some_and(|operation| {
            matches!(operation.phase, Phase::Waiting { .. })
                && operation.attempts[operation.current].place.0 == shard
        })
    }
}

/// What the server owes by some time.
#[derive(Clone, Copy, Debug)]
enum Owed {
    Retry {
        leg: usize,
        due: u64,
    },
    GiveUp {
        leg: usize,
        operation: usize,
    },
    Release {
        leg: usize,
    },
    /// An INVITE that was cancelled and got no final response is over (RFC 3261 §9.1).
    Cancelled {
        leg: usize,
        operation: usize,
        attempt: usize,
    },
}

/// What the oracle must know of a device.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    /// `retry-after-reliable-transport-error` in force, per peer.
    pub(crate) delay: u64,
    /// The peer has a second address.
    pub(crate) backup: bool,
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    peer: SocketAddr,
    opening: bool,
    used: bool,
}

/// The account.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// Rules by peer.
    pub(crate) rules: Vec<Rules>,
    /// `transport-error-responses` in force.
    pub(crate) listed: Vec<u16>,
    /// What the answer of a slow peer may take on top of the rest.
    pub(crate) patience: u64,
    /// The window in force.
    pub(crate) window: u64,
    /// Peers by address.
    pub(crate) addresses: BTreeMap<SocketAddr, usize>,
    legs: Vec<Leg>,
    by_call_id: BTreeMap<String, usize>,
    branches: BTreeMap<String, (usize, usize, usize)>,
    /// Branches and methods of all requests.
    sent: BTreeSet<(String, String)>,
    on_flow: BTreeMap<(usize, FlowId), Vec<usize>>,
    flows: BTreeMap<(usize, FlowId), Flow>,
    opening: BTreeSet<(usize, SocketAddr)>,
    owed: BTreeMap<(u64, u64), Owed>,
    serial: u64,
    /// When a flow was pinged last.
    pings: BTreeMap<(usize, FlowId), u64>,
    /// ACKs that this turn must send.
    acks: BTreeSet<(usize, u32)>,
    /// Until when the path to a peer was disturbed, by peer.
    disturbed: BTreeMap<usize, u64>,
    /// When a way to a peer was last seen to work.
    alive: BTreeMap<usize, u64>,
    /// A script says what must happen; its calls are not in the book.
    pub(crate) passive: bool,
    /// A drain began; its deadline.
    pub(crate) drain: Option<u64>,
}

impl Oracle {
    /// The path to a peer is not in order until `until`.
    pub(crate) fn disturbed(&mut self, peer: usize, until: u64) {
        let at = self.disturbed.entry(peer).or_default();
        *at = (*at).max(until);
    }

    /// At the other end of the flow is none of the peers.
    pub(crate) fn is_stranger(&self, shard: usize, flow: FlowId) -> bool {
        let peer = self.flows.get(&(shard, flow)).map(|flow| flow.peer.ip());
        !self.addresses.keys().any(|addr| Some(addr.ip()) == peer)
    }

    /// Other options are in force from now on.
    pub(crate) fn on_reload(&mut self, window: u64) {
        self.window = window;
        for leg in &mut self.legs {
            if let Some(operation) = leg.operations.last_mut() {
                operation.window_max = operation.window_max.max(window);
            }
        }
    }

    fn owe(&mut self, at: u64, owed: Owed) {
        self.serial += 1;
        self.owed.insert((at, self.serial), owed);
    }

    /// A peer connected to the server, or a stand-in was made.
    pub(crate) fn on_accept(&mut self, shard: usize, flow: FlowId, peer: SocketAddr) {
        self.flows.insert((shard, flow), Flow { peer, opening: false, used: true });
    }

    pub(crate) fn on_close(&mut self, shard: usize, flow: FlowId) {
        self.flows.remove(&(shard, flow));
    }

    pub(crate) fn on_connect(
        &mut self,
        truth: &mut Truth,
        now: u64,
        shard: usize,
        flow: FlowId,
        target: SocketAddr,
    ) {
        self.settle(truth, now);
        if !self.opening.insert((shard, target)) {
            truth.failures.push(format!("shard {shard} connects to {target} twice at a time"));
        }
        if !self.addresses.contains_key(&target) {
            truth.failures.push(format!("shard {shard} connects to {target}: nobody's address"));
        }
        truth.cover("connection opened by the server");
        self.flows.insert((shard, flow), Flow { peer: target, opening: true, used: false });
    }

    pub(crate) fn on_opened(&mut self, now: u64, shard: usize, flow: FlowId) {
        if let Some(flow) = self.flows.get_mut(&(shard, flow)) {
            flow.opening = false;
            self.opening.remove(&(shard, flow.peer));
            let target = flow.peer;
            self.alive(now, target);
        }
    }

    fn alive(&mut self, now: u64, addr: SocketAddr) {
        let known = self.addresses.iter().find(|(other, _)| other.ip() == addr.ip());
        if let Some((_, &peer)) = known {
            self.alive.insert(peer, now);
        }
    }

    /// The server asks whether a peer is still there: at most once a second, and only where a request waits.
    pub(crate) fn on_ping(&mut self, truth: &mut Truth, now: u64, shard: usize, flow: FlowId) {
        let before = self.pings.insert((shard, flow), now);
        if before.is_some_and(|before| now < before + SEC) {
            truth.failures.push(format!("shard {shard} pings {flow:?} more than once a second"));
        }
    }

    /// Every attempt that waits on the flow has failed.
    pub(crate) fn on_flow_failed(
        &mut self,
        truth: &mut Truth,
        now: u64,
        shard: usize,
        flow: FlowId,
    ) {
        self.settle(truth, now);
        let target = self.flows.remove(&(shard, flow));
        if let Some(flow) = target.filter(|flow| flow.opening) {
            self.opening.remove(&(shard, flow.peer));
        }
        for leg in self.on_flow.remove(&(shard, flow)).unwrap_or_default() {
            let Some(operation) = self.legs[leg].operations.last_mut() else { continue };
            let attempt = &operation.attempts[operation.current];
            let out = matches!(attempt.state, State::Out | State::Proceeding);
            if attempt.place == (shard, flow) && out && operation.phase == Phase::Attempting {
                self.fail(truth, now, leg, None, true);
            }
        }
    }

    fn deadline(&self, leg: usize) -> Option<u64> {
        let operation = self.legs[leg].operations.last()?;
        operation.first_failure.map(|at| at + self.window)
    }

    /// The outstanding attempt of a leg failed; `wait` is given where the answer set it.
    /// `of_target`: another address of the peer may do better.
    fn fail(
        &mut self,
        truth: &mut Truth,
        now: u64,
        leg: usize,
        wait: Option<u64>,
        of_target: bool,
    ) {
        let (window, peer) = (self.window, self.legs[leg].peer);
        let delay = self.rules[peer].delay;
        let (ended, confirmed) = (self.legs[leg].ended, self.legs[leg].confirmed);
        let index = self.legs[leg].operations.len() - 1;
        let operation = &mut self.legs[leg].operations[index];
        let attempt = &mut operation.attempts[operation.current];
        if matches!(attempt.state, State::Out | State::Proceeding) {
            attempt.state = State::Failed { at: now };
        }
        if ended || !confirmed || operation.cancelled {
            operation.phase = Phase::Over;
            return;
        }
        let deadline = *operation.first_failure.get_or_insert(now) + window;
        operation.window_max = operation.window_max.max(window);
        let first = deadline == now + window;
        truth.cover("re-INVITE lost");
        if of_target && self.rules[peer].backup && now < deadline {
            operation.failed_targets += 1;
            if operation.failed_targets < TARGETS {
                truth.cover("next target at once");
                operation.phase = Phase::Waiting { due: now, exact: true };
                self.owe(now + TICKS, Owed::Retry { leg, due: now });
                return self.owe(deadline + TICKS, Owed::GiveUp { leg, operation: index });
            }
        }
        operation.failed_targets = 0;
        if wait.is_none() && delay == 0 {
            operation.phase = Phase::Over;
            truth.cover("released: delay 0");
            return self.expect_release(truth, now, leg, "delay 0");
        }
        let due = now + wait.unwrap_or(delay);
        if due >= deadline {
            operation.phase = Phase::Over;
            truth.cover("released: no wait fits into the window");
            if wait.is_none() && !first {
                self.check_promise(truth, now, leg);
            }
            return self.expect_release(truth, now, leg, "given up");
        }
        operation.phase = Phase::Waiting { due, exact: true };
        self.owe(due + TICKS, Owed::Retry { leg, due });
        self.owe(deadline + TICKS, Owed::GiveUp { leg, operation: index });
    }

    fn expect_release(&mut self, truth: &mut Truth, now: u64, leg: usize, why: &str) {
        truth.calls[self.legs[leg].call].may_release.get_or_insert(why.to_owned());
        self.legs[leg].failed = true;
        self.owe(now + TICKS, Owed::Release { leg });
    }

    fn other(&self, leg: usize, truth: &Truth) -> Option<usize> {
        let call = &truth.calls[self.legs[leg].call];
        let side = self.legs[leg].side.other();
        self.by_call_id.get(&call.call_ids[side as usize]).copied()
    }

    /// Looks at everything that was due before `now`.
    pub(crate) fn settle(&mut self, truth: &mut Truth, now: u64) {
        while let Some((&key, &owed)) = self.owed.first_key_value() {
            if key.0 >= now {
                return;
            }
            self.owed.remove(&key);
            match owed {
                Owed::Retry { leg, due } => {
                    let phase = self.legs[leg].operations.last().map(|op| op.phase);
                    let waiting =
                        matches!(phase, Some(Phase::Waiting { due: d, exact: true }) if d == due);
                    if waiting && !self.legs[leg].ended {
                        truth.failures.push(format!(
                            "call {}: no attempt at {due}, when the wait of {} ended",
                            self.legs[leg].call, self.legs[leg].call_id
                        ));
                    }
                }
                Owed::GiveUp { leg, operation: index } => {
                    let operation = &self.legs[leg].operations[index];
                    let deadline = operation.first_failure.unwrap_or(0) + operation.window_max;
                    if deadline + TICKS > key.0 {
                        // The window has grown meanwhile.
                        self.owe(deadline + TICKS, owed);
                        continue;
                    }
                    let operation = &self.legs[leg].operations[index];
                    let current = &operation.attempts[operation.current];
                    let proceeding = current.state == State::Proceeding;
                    let call = self.legs[leg].call;
                    let over = operation.phase == Phase::Over || operation.cancelled;
                    let ended = self.legs[leg].ended || truth.calls[call].ended.is_some();
                    if !over && !proceeding && !ended && truth.calls[call].may_release.is_none() {
                        truth.failures.push(format!("call {call}: not given up at its deadline"));
                    }
                }
                Owed::Cancelled { leg, operation, attempt } => {
                    let operation = &mut self.legs[leg].operations[operation];
                    if operation.current == attempt && operation.phase == Phase::Attempting {
                        truth.cover("cancelled without a final response");
                        operation.phase = Phase::Over;
                    }
                }
                Owed::Release { leg } => {
                    let call = self.legs[leg].call;
                    let other = self.other(leg, truth);
                    let released = other.is_none_or(|other| self.legs[other].ended);
                    let by_peer = matches!(truth.calls[call].ended, Some(Ended::Bye(_)));
                    if !released && !by_peer {
                        truth.failures.push(format!("call {call}: not released when it was lost"));
                    }
                }
            }
        }
    }

    /// An endpoint is about to read a message.
    pub(crate) fn on_read(
        &mut self,
        truth: &mut Truth,
        now: u64,
        shard: usize,
        flow: FlowId,
        msg: &Msg,
    ) {
        self.settle(truth, now);
        if self.is_stranger(shard, flow) {
            // His words change nothing.
            return;
        }
        if let Some(peer) = self.flows.get(&(shard, flow)).map(|flow| flow.peer) {
            self.alive(now, peer);
        }
        if msg.is_response() {
            if msg.method() == "INVITE" {
                self.on_answer(truth, now, shard, flow, msg);
            }
            return;
        }
        let known = self.by_call_id.get(msg.text("Call-ID")).copied();
        let Some(leg) = known else {
            if msg.method() == "INVITE"
                && let Some(call) = msg.number("X-Sim-Call").map(|call| call as usize)
            {
                let peer = truth.calls[call].caller;
                let leg = self.add_leg(msg, call, Side::Caller, peer);
                self.legs[leg].served.insert(msg.cseq().0);
            }
            return;
        };
        let cseq = msg.cseq().0;
        match msg.method() {
            "INVITE" if !msg.tag_of_to().is_empty() => {
                self.legs[leg].served.insert(cseq);
            }
            "ACK" => {
                self.legs[leg].unacked.remove(&cseq);
            }
            "BYE" => {
                self.legs[leg].ended = true;
                self.stop(leg);
                if let Some(other) = self.other(leg, truth) {
                    self.stop(other);
                }
            }
            "CANCEL" if self.legs[leg].served.contains(&cseq) => {
                if let Some(other) = self.other(leg, truth)
                    && let Some(operation) = self.legs[other].operations.last_mut()
                {
                    if matches!(operation.phase, Phase::Waiting { .. }) {
                        truth.cover("CANCEL during a wait");
                        operation.phase = Phase::Over;
                    }
                    operation.cancelled = true;
                }
            }
            _ => {}
        }
    }

    fn stop(&mut self, leg: usize) {
        if let Some(operation) = self.legs[leg].operations.last_mut() {
            operation.phase = Phase::Over;
        }
    }

    fn add_leg(&mut self, msg: &Msg, call: usize, side: Side, peer: usize) -> usize {
        self.legs.push(Leg {
            call_id: msg.text("Call-ID").to_owned(),
            call,
            side,
            peer,
            cseq: 0,
            confirmed: false,
            ended: false,
            failed: false,
            operations: Vec::new(),
            unacked: BTreeMap::new(),
            served: BTreeSet::new(),
        });
        let leg = self.legs.len() - 1;
        self.by_call_id.insert(msg.text("Call-ID").to_owned(), leg);
        leg
    }

    fn on_answer(&mut self, truth: &mut Truth, now: u64, shard: usize, flow: FlowId, msg: &Msg) {
        let Some(&(leg, index, number)) = self.branches.get(&msg.branch()) else { return };
        let status = msg.status();
        let last_operation = index + 1 == self.legs[leg].operations.len();
        let (peer, call) = (self.legs[leg].peer, self.legs[leg].call);
        let operation = &mut self.legs[leg].operations[index];
        let current = number == operation.current;
        let first = number == 0;
        let attempt = &mut operation.attempts[number];
        let before = attempt.state;
        // Nothing newer is out.
        let open = match operation.phase {
            Phase::Waiting { .. } => true,
            Phase::Attempting => number > operation.current,
            Phase::Over => false,
        };
        if status < 200 {
            if matches!(before, State::Final { .. }) {
                return;
            }
            let adopted = matches!(before, State::Failed { .. }) && open;
            if adopted || before == State::Out {
                attempt.state = State::Proceeding;
            }
            if adopted && last_operation {
                truth.cover("1xx of an orphan");
                attempt.place = (shard, flow);
                if operation.phase == Phase::Attempting {
                    truth.cover("1xx of an orphan newer than the adopted one");
                    operation.attempts[operation.current].state = State::Failed { at: now };
                }
                operation.phase = Phase::Attempting;
                operation.current = number;
                self.on_flow.entry((shard, flow)).or_default().push(leg);
            }
            return;
        }
        if let State::Failed { at } = before {
            truth.cover("final response of an orphan");
            if now + SEC > at + 64 * T1 {
                return;
            }
        }
        // Without an offer in the INVITE the ACK waits for the answer of the other leg, unless the
        // 2xx comes too late to matter.
        let offered = !attempt.msg.body.is_empty();
        let failed = matches!(before, State::Failed { .. });
        let under_way = if failed { open } else { current };
        let matters = last_operation && under_way;
        if status >= 300 || offered || !matters {
            let repeated = matches!(before, State::Final { .. });
            if !repeated || (200..300).contains(&status) {
                self.acks.insert((leg, attempt.msg.cseq().0));
            }
        }
        if matches!(before, State::Final { .. }) {
            return;
        }
        attempt.state = State::Final { status };
        let initial = attempt.msg.tag_of_to().is_empty();
        if initial {
            operation.phase = Phase::Over;
            self.legs[leg].confirmed |= status < 300;
            return;
        }
        let decisive = matters && operation.phase != Phase::Over;
        if decisive {
            if failed && operation.phase == Phase::Attempting && status < 300 {
                truth.cover("2xx of an orphan newer than the adopted one");
            }
            if status < 300 || operation.phase != Phase::Attempting {
                operation.current = number;
            }
        }
        if status < 300 {
            if decisive {
                if operation.first_failure.is_some() {
                    truth.cover("recovered");
                }
                operation.phase = Phase::Over;
            }
            return;
        }
        if matches!(status, 408 | 481) {
            operation.phase = Phase::Over;
            truth.calls[call].may_release.get_or_insert(format!("answered {status}"));
            return;
        }
        let orphan = matches!(before, State::Failed { .. });
        if !decisive || orphan {
            return;
        }
        // At least T1: a decision of the server's, docs/ARCHITECTURE.md.
        let retry_after = msg.number("Retry-After").map(|seconds| (seconds * SEC).max(T1));
        let error_info = msg.text("Error-Info").to_ascii_lowercase().contains("transport-error");
        match status {
            503 if (error_info || retry_after.is_some()) => {
                truth.cover("503 that starts a wait");
                if truth.path.is_some() && msg.count("Reason") > 0 {
                    // The proxy's own: the attempt may have reached the peer, which may answer it.
                    attempt.state = State::Failed { at: now };
                } else {
                    self.disturbed(peer, now);
                }
                let delay = self.rules[peer].delay;
                let wait = match (error_info, retry_after) {
                    (true, None) => None,
                    (true, Some(after)) => Some(after.max(delay)),
                    (false, after) => after,
                };
                self.fail(truth, now, leg, wait, true);
            }
            _ if self.listed.contains(&status) => {
                truth.cover("listed answer that starts a wait");
                self.disturbed(peer, now);
                self.fail(truth, now, leg, None, true);
            }
            500 if retry_after.is_some() && !first => {
                self.pause(now, leg, retry_after);
                self.fail(truth, now, leg, retry_after, false);
            }
            491 if !first && !operation.cancelled => {
                operation.phase = Phase::Waiting { due: now, exact: false };
                operation.failed_targets = 0;
                self.pause(now, leg, None);
            }
            _ => operation.phase = Phase::Over,
        }
    }
}
