//! Which members of the pairs are in service.
//!
//! ```text
//!            oos-check: OPTIONS          no answer for oos-force, or it cannot be sent
//! In service ───────────────► asked ────────────────────────────────────────────► Out of service
//!      ▲                        │ any answer                                            │
//!      └────────────────────────┴───────────────────────────────────────────────────────┘
//! ```

use std::time::Duration;

use crate::key::TimerKey;
use crate::options::Options;
use crate::sip::dialog::write_via;
use crate::sip::message::{Method, write};
use crate::sip::timer::Timer;
use crate::sip::transaction::{NewClient, Owner, Stack, Verdict};
use crate::target::Target;

/// What is known of a member.
#[derive(Debug, Default)]
struct Member {
    target: Option<Target>,
    /// It did not answer.
    out: bool,
    /// A question is under way.
    asked: bool,
    timer: Option<TimerKey>,
}

/// Members of all pairs, in the order of the configuration.
#[derive(Debug, Default)]
pub(super) struct Members {
    members: Vec<Member>,
}

/// Members of a pair.
const PAIR: usize = 2;

impl Members {
    /// Members are probed as the options say; what is known of one that stays is kept.
    pub(super) fn on_options(&mut self, stack: &mut Stack) {
        for member in &mut self.members {
            if let Some(timer) = member.timer.take() {
                stack.wheel.cancel(timer);
            }
        }
        let mut before = std::mem::take(&mut self.members);
        let options = std::sync::Arc::clone(&stack.options);
        for place in 0..options.pairs.len() * PAIR {
            let target = target_at(&options, place);
            let known = before.iter_mut().find(|old| old.target == target && target.is_some());
            let mut member = known.map(std::mem::take).unwrap_or_default();
            member.target = target;
            // An answer that is under way tells of a place, which may be another member's now.
            member.asked = false;
            if target.is_some() && !options.oos_check.is_zero() {
                let timer = Timer::Probe(place as u16);
                member.timer = Some(stack.wheel.schedule(stack.now + options.oos_check, timer));
            } else {
                member.out = false;
            }
            self.members.push(member);
        }
    }

    /// Asks a member whether it lives, and looks again after `oos-check`.
    pub(super) fn probe(&mut self, stack: &mut Stack, place: u16) {
        let (every, patience) = (stack.options.oos_check, stack.options.oos_force);
        let Some(member) = self.members.get_mut(usize::from(place)) else { return };
        member.timer = None;
        let Some(target) = member.target.filter(|_| !every.is_zero()) else { return };
        member.timer = Some(stack.wheel.schedule(stack.now + every, Timer::Probe(place)));
        if member.asked || !stack.has_room_for_client() {
            return;
        }
        member.asked = true;
        ask(stack, place, target, patience);
    }

    /// What became of the question.
    pub(super) fn on_told(&mut self, place: u16, verdict: Verdict) {
        let Some(member) = self.members.get_mut(usize::from(place)) else { return };
        member.asked = false;
        member.out = !matches!(verdict, Verdict::Answered { .. });
    }

    /// The next target of a forwarded request, and which were `tried` then: `first` before the other one, those
    /// in service before those that are not. `None` when all were.
    pub(super) fn next(
        &self,
        stack: &Stack,
        pair: u16,
        tried: u8,
        first: Option<u8>,
    ) -> Option<(Target, u8)> {
        let members = &stack.options.pairs.get(usize::from(pair))?.members;
        let is_out = |index: usize| {
            self.members.get(usize::from(pair) * PAIR + index).is_some_and(|member| member.out)
        };
        let index =
            (0..members.len()).filter(|index| tried & (1 << index) == 0).min_by_key(|&index| {
                (is_out(index), first.is_some_and(|first| first as usize != index))
            })?;
        Some((members[index], tried | 1 << index))
    }
}

fn target_at(options: &Options, place: usize) -> Option<Target> {
    options.pairs.get(place / PAIR)?.members.get(place % PAIR).copied()
}

fn ask(stack: &mut Stack, place: u16, target: Target, patience: Duration) {
    let branch = stack.next_branch();
    let (options, tag) = (std::sync::Arc::clone(&stack.options), stack.token(u32::MAX));
    let own = options.sent_by(target.transport);
    let uri = target.uri();
    let mut out = Vec::with_capacity(512);
    write::request_line(&mut out, b"OPTIONS", uri.as_bytes());
    write_via(&mut out, own, target.transport, branch);
    write::header(&mut out, "Max-Forwards", b"1");
    write::header(&mut out, "From", format!("<sip:{own}>;tag={tag}").as_bytes());
    write::header(&mut out, "To", format!("<{uri}>").as_bytes());
    write::header(&mut out, "Call-ID", format!("probe-{tag}").as_bytes());
    write::header(&mut out, "CSeq", b"1 OPTIONS");
    write::body(&mut out, b"");
    let flow = stack.outbound(target);
    let request = stack.pool.keep(&out);
    stack.start(NewClient {
        branch,
        method: Method::Options,
        cseq: 1,
        owner: Owner::Probe(place),
        flow,
        target,
        oversized: false,
        request,
        timeout: patience,
    });
}
