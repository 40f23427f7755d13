//! An earlier copy of a re-INVITE, when a newer one comes: it is dropped, or heard of once more.
//!
//! ```text
//! copy 1 ─► flow dies ─► copy 2 ─► flow dies ─► 100 to copy 1 ─► 200 to copy 2 ─► 487 to copy 1
//! ```

use crate::peer::{Ctx, LegState, Peer, PeerTimer, SEC};

/// The newer copy has its answer by then.
const ANSWERED: u64 = 5 * SEC;

impl Peer {
    /// The copy of a re-INVITE that is open, or whose 2xx was not acknowledged, gives place to a newer one.
    pub(crate) fn supersede(&mut self, ctx: &mut Ctx<'_>, leg: usize, open: usize) {
        ctx.truth.cover("earlier copy superseded");
        let answered = self.served[open].status.is_some();
        self.served[open].dropped = true;
        self.served[open].plan.clear();
        self.legs[leg].unacked = None;
        let chance = self.traits.tries_late;
        if chance > 0 && !answered && ctx.rng.chance(chance) {
            let wait = ctx.rng.below(2 * SEC);
            ctx.after(wait, PeerTimer::TryLate { served: open });
        }
    }

    /// Something in front of the peer was slow to say that the earlier copy arrived.
    pub(crate) fn try_late(&mut self, ctx: &mut Ctx<'_>, served: usize) {
        if self.is_over(served) {
            return;
        }
        ctx.truth.cover("1xx to an earlier copy");
        let status = *ctx.rng.pick(&[100, 100, 180]);
        self.answer(ctx, served, status);
        ctx.after(ANSWERED, PeerTimer::EndLate { served });
    }

    /// The earlier copy gets its final response, too.
    pub(crate) fn end_late(&mut self, ctx: &mut Ctx<'_>, served: usize) {
        if !self.is_over(served) {
            self.answer(ctx, served, 487);
        }
    }

    fn is_over(&self, served: usize) -> bool {
        let ended = |leg: usize| self.legs[leg].state == LegState::Ended;
        self.served[served].status.is_some() || self.served[served].leg.is_some_and(ended)
    }
}
