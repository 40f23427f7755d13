//! The instants at which calls begin.

use std::sync::Arc;
use std::time::Duration;

use super::profile::Piece;
use super::random::{Purpose, Random};

/// How arrivals are spaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Spacing {
    /// As far apart as the rate says.
    Even,
    /// By chance (a Poisson process), as calls of many independent people are.
    #[default]
    Poisson,
}

/// A count of calls in fixed point, 32 bits after the point: sums of it lose nothing.
const ONE: u128 = 1 << 32;
/// Parts of a call that a sum of rates may be off by.
const HAIR: f64 = 1e-6;

/// Instants since the start, never falling; as many as asked for, in constant memory.
///
/// An instant is found from its call's number by the inverse of the rate's integral. No instant is
/// the sum of others, so the last of a soak is as exact as the first: to a nanosecond.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    pieces: Arc<[Piece]>,
    piece: usize,
    /// Where the next call stands on the axis of expected calls.
    place: u128,
    total: f64,
    random: Option<Random>,
    /// This worker takes every so-manieth.
    workers: u32,
}

impl Arrivals {
    pub(super) fn new(pieces: Arc<[Piece]>, seed: u64, spacing: Spacing) -> Self {
        let total = pieces.last().map_or(0.0, |piece| piece.before + piece.calls);
        let random = match spacing {
            Spacing::Even => None,
            Spacing::Poisson => Some(Random::new(seed, Purpose::Arrivals)),
        };
        let mut arrivals = Self { pieces, piece: 0, place: 0, total, random, workers: 1 };
        if arrivals.random.is_some() {
            arrivals.advance(1);
        }
        arrivals
    }

    /// The part of worker `worker` of `workers`: its n-th is number `worker + n·workers` of the
    /// whole. Together the parts are the whole.
    pub(crate) fn share(mut self, worker: u32, workers: u32) -> Self {
        self.advance(worker);
        self.workers = workers.max(1);
        self
    }

    fn advance(&mut self, calls: u32) {
        match &mut self.random {
            None => self.place += ONE * u128::from(calls),
            Some(random) => {
                for _ in 0..calls {
                    self.place += (random.exponential() * ONE as f64) as u128;
                }
            }
        }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let calls = self.place as f64 / ONE as f64;
        if calls >= self.total - HAIR {
            return None;
        }
        let after = |piece: &Piece| calls >= piece.before + piece.calls;
        while self.piece + 1 < self.pieces.len() && after(&self.pieces[self.piece]) {
            self.piece += 1;
        }
        let piece = &self.pieces[self.piece];
        let seconds = piece.start + piece.when((calls - piece.before).max(0.0));
        self.advance(self.workers);
        Some(Duration::from_nanos((seconds * 1e9).round() as u64))
    }
}
