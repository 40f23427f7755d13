//! Numbers out of the seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What numbers are drawn for. Each has a stream of its own: what one draws shifts no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The spacing of arrivals.
    Arrivals,
    /// Who is struck by the fault with this number.
    Strikes(u32),
    /// The waits and choices of programs, in the worker with this number.
    Programs(u32),
}

impl Purpose {
    fn stream(self) -> u64 {
        let (kind, number) = match self {
            Self::Arrivals => (1, 0),
            Self::Strikes(number) => (2, number),
            Self::Programs(number) => (3, number),
        };
        (kind << 32) | u64::from(number)
    }
}

/// A stream of numbers that is the same for the same seed and purpose, on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(seed: u64, purpose: Purpose) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(purpose.stream());
        Self(rng)
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `limit`, each as likely as the others; 0 for a limit of 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        // The high half of the product: the bias is below limit / 2^64.
        ((u128::from(self.number()) * u128::from(limit)) >> 64) as u64
    }

    /// Above 0 and up to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.number() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Exponential with mean 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        // The logarithm of 1 is a negative zero.
        -self.unit().ln() + 0.0
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller).
    #[cfg(test)]
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}
