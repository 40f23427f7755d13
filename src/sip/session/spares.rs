//! Boxes for the INVITEs of legs, used again.
//!
//! Few legs have an INVITE under way. It lies apart, so that the others take less room, and in a box that was lately in
//! use and that the cache still has.

use super::Outgoing;

/// Boxes that wait for their next INVITE; what is beyond is freed.
const SPARES_MAX: usize = 256;

/// Boxes that are free.
#[derive(Debug, Default)]
pub(in crate::sip) struct Spares {
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is kept")]
    free: Vec<Box<Outgoing>>,
}

impl Spares {
    /// A box with `outgoing` in it.
    pub(super) fn put(&mut self, outgoing: Outgoing) -> Box<Outgoing> {
        match self.free.pop() {
            Some(mut spare) => {
                *spare = outgoing;
                spare
            }
            None => Box::new(outgoing),
        }
    }

    /// Takes a box back.
    pub(super) fn give_back(&mut self, spare: Box<Outgoing>) {
        if self.free.len() < SPARES_MAX {
            self.free.push(spare);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{ClientId, Key};
    use crate::sip::kept::Kept;
    use crate::sip::session::target::Tried;
    use crate::sip::session::{Purpose, Sent};
    use crate::time::Instant;

    fn outgoing(first_cseq: u32) -> Outgoing {
        Outgoing {
            state: Sent::Attempting(ClientId(Key { index: 0, generation: 0 })),
            request: Kept::default(),
            purpose: Purpose::Relay,
            first_cseq,
            initial: false,
            tried: Tried::default(),
            timer_b: Instant::ZERO,
            recovery: None,
            attempts: 1,
            offered: true,
            cancelled: false,
        }
    }

    #[test]
    fn a_box_is_used_again_with_what_is_put_into_it_and_few_are_kept() {
        let mut spares = Spares::default();
        let boxes: Vec<_> = (0..SPARES_MAX as u32 + 9).map(|n| spares.put(outgoing(n))).collect();
        assert!(spares.free.is_empty());
        boxes.into_iter().for_each(|spare| spares.give_back(spare));
        assert_eq!(spares.free.len(), SPARES_MAX);
        assert_eq!(spares.put(outgoing(7777)).first_cseq, 7777);
        assert_eq!(spares.free.len(), SPARES_MAX - 1);
    }
}
