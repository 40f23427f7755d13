//! Time as an argument: an instant of a shard's own clock.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Microseconds since the shard (or the simulation) began.
///
/// The core never reads a clock: whoever calls it says what time it is. An `Option` of it is no larger: there are
/// several in what each call and each connection holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(
    /// One more than the microseconds.
    NonZeroU64,
);

const _: () = assert!(size_of::<Option<Instant>>() == size_of::<u64>());

impl Instant {
    /// The beginning.
    pub const ZERO: Self = Self(NonZeroU64::MIN);

    /// The instant `micros` microseconds after the beginning, 2^64 - 2 at most.
    pub const fn from_micros(micros: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(micros))
    }

    /// The instant `millis` milliseconds after the beginning.
    pub const fn from_millis(millis: u64) -> Self {
        Self::from_micros(millis.saturating_mul(1000))
    }

    /// Microseconds since the beginning.
    pub const fn as_micros(self) -> u64 {
        self.0.get() - 1
    }

    /// Whole milliseconds since the beginning, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.as_micros() / 1000
    }

    /// The instant `duration` before this; the beginning when there was none.
    pub fn before(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self::from_micros(self.as_micros().saturating_sub(micros))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Instant {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Instant").field(&self.as_micros()).finish()
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_say_what_they_were_made_of_and_never_run_over() {
        for micros in [0, 1, 1999, u64::MAX - 1] {
            assert_eq!(Instant::from_micros(micros).as_micros(), micros);
        }
        let last = Instant::from_micros(u64::MAX);
        assert_eq!(last.as_micros(), u64::MAX - 1);
        assert_eq!(last + Duration::MAX, last);
        assert_eq!(Instant::ZERO - last, Duration::ZERO);
        assert_eq!((Instant::from_millis(3) + Duration::from_micros(7)).as_micros(), 3007);
        assert_eq!(Instant::from_micros(1999).as_millis(), 1);
        assert_eq!(format!("{:?}", Instant::from_micros(5)), "Instant(5)");
    }
}
