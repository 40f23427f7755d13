//! A new INVITE that comes again by another way, because the first one was lost with its flow.

use crate::message::Msg;
use crate::peer::{Ctx, LegState, Peer};

impl Peer {
    /// The request is for an early dialog that a newer copy of its INVITE ended.
    pub(crate) fn is_forgotten(&self, leg: usize, msg: &Msg) -> bool {
        let tag = msg.tag_of_to();
        tag != self.legs[leg].local_tag
            && self
                .legs
                .iter()
                .any(|old| old.call_id == self.legs[leg].call_id && old.local_tag == tag)
    }

    /// The same INVITE by another way: the first copy is forgotten, unless it was answered already.
    pub(crate) fn on_initial_invite_again(&mut self, ctx: &mut Ctx<'_>, served: usize, old: usize) {
        let (call, open) = (self.legs[old].call, self.legs[old].invite_in);
        let newer = self.served[served].request.cseq().0 > self.legs[old].remote_cseq;
        let Some(open) = open.filter(|_| newer && self.legs[old].state == LegState::Early) else {
            ctx.truth.cover("new INVITE again: answered before");
            return self.answer(ctx, served, 482);
        };
        ctx.truth.cover("new INVITE again: the first copy is forgotten");
        self.served[open].dropped = true;
        self.served[open].plan.clear();
        self.legs[old].state = LegState::Ended;
        ctx.truth.calls[call].legs[1] = None;
        self.on_initial_invite(ctx, served);
    }

    /// A newer copy of the INVITE ended an early dialog of this call.
    pub(crate) fn has_forgotten(&self, leg: usize) -> bool {
        let call_id = &self.legs[leg].call_id;
        self.legs.iter().filter(|old| old.call_id == *call_id).count() > 1
    }
}
