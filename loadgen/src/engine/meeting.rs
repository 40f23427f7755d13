//! Meeting places, where calls wait until the run lets them pass, and closed loops.

use std::collections::VecDeque;
use std::time::Instant;

use super::agent::{Id, Side, Waiting};
use super::{Engine, Outcome, Refill};

impl Engine {
    pub(super) fn meet(&mut self, id: Id, place: u8) {
        let place = usize::from(place);
        if self.meeting.len() <= place {
            self.meeting.resize(place + 1, VecDeque::new());
        }
        let generation = self[id].generation;
        self.meeting[place].push_back((id.index, generation));
        self.waiting_to_pass += 1;
    }

    /// An agent waits at a meeting place no more.
    pub(super) fn leave_meeting(&mut self, id: Id) {
        let agent = self.agent(id);
        if let Waiting::Meet(_) = agent.waiting {
            agent.waiting = Waiting::Nothing;
            self.waiting_to_pass -= 1;
        }
    }

    /// Callers that wait at a meeting place, some of which may be gone.
    pub(crate) fn met(&self, place: u8) -> usize {
        self.meeting.get(usize::from(place)).map_or(0, VecDeque::len)
    }

    /// Lets up to `count` callers pass a meeting place; how many did.
    pub(crate) fn release(&mut self, place: u8, count: usize, now: Instant) -> usize {
        self.now = now;
        let mut passed = 0;
        while passed < count {
            let Some((index, generation)) =
                self.meeting.get_mut(usize::from(place)).and_then(VecDeque::pop_front)
            else {
                break;
            };
            let id = Id { side: Side::Caller, index };
            if self.callers_agents.find(index, generation).is_some()
                && self[id].waiting == Waiting::Meet(place)
            {
                self.leave_meeting(id);
                let agent = self.agent(id);
                agent.due = now;
                agent.pc += 1;
                self.advance(id, None, now);
                passed += 1;
            }
        }
        passed
    }

    /// Lets up to `count` callers pass whatever meeting place they wait at.
    pub(crate) fn release_any(&mut self, count: usize, now: Instant) {
        let mut left = count;
        for place in 0..self.meeting.len() as u8 {
            left -= self.release(place, left, now);
        }
    }

    /// Keeps a closed loop going from now on, or no more.
    pub(crate) fn refill(&mut self, refill: Option<Refill>, now: Instant) {
        self.refill = refill;
        self.top_up(now);
    }

    pub(super) fn top_up(&mut self, now: Instant) {
        match self.refill {
            None => {}
            Some(Refill::Begin(wanted)) => {
                // A call that fails at once must not make another in the same turn for ever.
                for _ in self.in_flight()..wanted {
                    self.start_call(now, now);
                }
            }
            Some(Refill::Pass(wanted)) => {
                let room = wanted.saturating_sub(self.running());
                if room > 0 {
                    self.release_any(room as usize, now);
                }
            }
        }
    }

    /// A program of the run has meeting places.
    pub(crate) fn meets(&self) -> bool {
        self.programs.iter().any(|program| !program.meets.is_empty())
    }

    /// Calls that neither wait at a meeting place nor are held.
    pub(crate) fn running(&self) -> u64 {
        self.in_flight().saturating_sub(self.waiting_to_pass)
    }

    /// The number of a meeting place.
    pub(crate) fn meeting_place(&self, name: &str) -> Option<u8> {
        let meets = &self.programs.first()?.meets;
        meets.iter().position(|meet| meet == name).map(|at| at as u8)
    }

    /// Ends the calls that wait at a meeting place.
    pub(crate) fn dismiss(&mut self, now: Instant) {
        self.now = now;
        for place in 0..self.meeting.len() {
            while let Some((index, generation)) = self.meeting[place].pop_front() {
                let id = Id { side: Side::Caller, index };
                if self.callers_agents.find(index, generation).is_some()
                    && matches!(self[id].waiting, Waiting::Meet(_))
                {
                    self.give_up(id, Outcome::Success, now);
                }
            }
        }
    }
}
