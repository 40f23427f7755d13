//! How many calls a second, and when.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::arrivals::{Arrivals, Spacing};
use super::words::{Words, count, quoted};
use super::{DURATION_MAX, IN_FLIGHT_MAX, PIECES_MAX, RATE_MAX, SEGMENTS_MAX};

const SHAPES: &str = "constant, ramp, step, spike, soak, knee, closed";

/// A stretch of time in which the rate changes evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Piece {
    /// Seconds since the start of the profile.
    pub(super) start: f64,
    /// Seconds.
    pub(super) length: f64,
    /// Calls a second at its two ends.
    pub(super) from: f64,
    pub(super) to: f64,
    /// Calls before it.
    pub(super) before: f64,
    /// Calls in it.
    pub(super) calls: f64,
}

impl Piece {
    /// Seconds after its start at which so many calls have come.
    ///
    /// The root of `from·t + (to − from)·t²/(2·length) = calls`, in the form that loses no digits
    /// when both rates are near each other.
    pub(super) fn when(&self, calls: f64) -> f64 {
        let slope = (self.to - self.from) / self.length;
        let root = (self.from * self.from + 2.0 * slope * calls).max(0.0).sqrt();
        let divisor = self.from + root;
        if divisor <= 0.0 { 0.0 } else { (2.0 * calls / divisor).min(self.length) }
    }
}

/// What decides when a call begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// A rate: calls begin when they are due, whatever becomes of the others.
    Open,
    /// So many calls at a time: the next begins when one is over.
    Closed { in_flight: u32 },
    /// One rate after the other, until the highest that holds is found.
    Knee(Sweep),
}

/// Between which rates a knee is sought, and how long each is held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sweep {
    /// Calls a second.
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) each: Duration,
}

/// A profile: `constant 500/s for 30s`, several joined by `then`.
///
/// | text | rate |
/// |---|---|
/// | `constant 500/s for 30s`, `soak 300/s for 8h` | the same all the time |
/// | `ramp 100/s to 2000/s over 60s` | rises or falls evenly |
/// | `step 100/s by 100/s every 10s to 1000/s` | 100, 200, … 1000, each for 10 s |
/// | `spike 200/s to 3000/s at 20s for 5s, in 60s` | 200, between 20 s and 25 s 3000; 60 s in all |
/// | `knee 100/s to 20000/s, each 10s` | sought by [`Knee`](super::Knee) |
/// | `closed 64 for 10s` | no rate: 64 calls at a time |
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Profile {
    text: String,
    load: Load,
    duration: Duration,
    pub(super) pieces: Vec<Piece>,
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    ///
    /// What stands where, and what is allowed there.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut words = Words::new(text)?;
        let mut profile = Self {
            text: text.trim().to_owned(),
            load: Load::Open,
            duration: Duration::ZERO,
            pieces: Vec::new(),
        };
        match words.peek() {
            Some("closed") => profile.read_closed(&mut words)?,
            Some("knee") => profile.read_knee(&mut words)?,
            _ => {
                let mut segments = 1;
                profile.read_segment(&mut words)?;
                while words.pass("then") {
                    segments += 1;
                    if segments > SEGMENTS_MAX {
                        return Err(format!("more than {SEGMENTS_MAX} parts joined by `then`"));
                    }
                    profile.read_segment(&mut words)?;
                }
                words.end("`then` or the end")?;
                if profile.expected() <= 0.0 {
                    return Err("no call at all: a rate above 0/s is needed".into());
                }
            }
        }
        Ok(profile)
    }

    /// The same rate, calls a second, all the time.
    pub(crate) fn constant(rate: f64, duration: Duration) -> Self {
        let rate = if rate.is_finite() { rate.clamp(0.0, RATE_MAX) } else { 0.0 };
        let mut profile = Self {
            text: format!("constant {rate}/s for {}s", duration.as_secs_f64()),
            load: Load::Open,
            duration: Duration::ZERO,
            pieces: Vec::new(),
        };
        profile.push(rate, rate, duration);
        profile
    }

    pub(crate) fn load(&self) -> Load {
        self.load
    }

    /// From the first to the last instant at which a call may begin; of a knee, one rate's time.
    pub(crate) fn duration(&self) -> Duration {
        self.duration
    }

    /// Calls to expect: the integral of the rate. 0 of a closed loop and a knee.
    pub(crate) fn expected(&self) -> f64 {
        self.pieces.last().map_or(0.0, |piece| piece.before + piece.calls)
    }

    /// The highest rate, calls a second; 0 of a closed loop.
    #[cfg(test)]
    pub(crate) fn peak(&self) -> f64 {
        let highest = self.pieces.iter().map(|piece| piece.from.max(piece.to)).fold(0.0, f64::max);
        match self.load {
            Load::Knee(sweep) => sweep.to,
            Load::Open | Load::Closed { .. } => highest,
        }
    }

    /// Calls a second at an instant since the start; 0 before and after.
    #[cfg(test)]
    pub(crate) fn rate(&self, at: Duration) -> f64 {
        let at = at.as_secs_f64();
        let piece = self.pieces.iter().find(|piece| at < piece.start + piece.length);
        piece.map_or(0.0, |piece| {
            piece.from + (piece.to - piece.from) * (at - piece.start) / piece.length
        })
    }

    /// The instants at which calls begin, since the start; none for a closed loop and a knee.
    pub(crate) fn arrivals(&self, seed: u64, spacing: Spacing) -> Arrivals {
        Arrivals::new(self.pieces.clone().into(), seed, spacing)
    }

    /// Appends a stretch; one of no length is none.
    fn push(&mut self, from: f64, to: f64, length: Duration) {
        if length.is_zero() {
            return;
        }
        let start = self.duration.as_secs_f64();
        let seconds = length.as_secs_f64();
        let calls = (from + to) / 2.0 * seconds;
        let before = self.expected();
        self.pieces.push(Piece { start, length: seconds, from, to, before, calls });
        self.duration += length;
    }

    fn add(&mut self, from: f64, to: f64, length: Duration) -> Result<(), String> {
        if self.pieces.len() >= PIECES_MAX {
            return Err(format!("more than {PIECES_MAX} steps"));
        }
        if self.duration + length > DURATION_MAX {
            return Err("longer than seven days".into());
        }
        self.push(from, to, length);
        Ok(())
    }

    fn read_segment(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        match words.next(&format!("a profile ({SHAPES})"))? {
            "constant" | "soak" => {
                let (rate, length) = (words.rate()?, some(words.duration_after("for")?)?);
                self.add(rate, rate, length)
            }
            "ramp" => {
                let (from, to) = (words.rate()?, words.rate_after("to")?);
                self.add(from, to, some(words.duration_after("over")?)?)
            }
            "step" => self.read_steps(words),
            "spike" => self.read_spike(words),
            shape @ ("knee" | "closed") => Err(format!("`{shape}` stands alone, without `then`")),
            other => Err(format!("{} is no profile: allowed are {SHAPES}", quoted(other))),
        }
    }

    fn read_steps(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let (from, by) = (words.rate()?, words.rate_after("by")?);
        let (every, to) = (some(words.duration_after("every")?)?, words.rate_after("to")?);
        if by <= 0.0 {
            return Err("steps by 0/s lead nowhere: above 0/s is allowed".into());
        }
        // Counted, not summed up; a last step that is a hair too high is a rounding error.
        let steps = ((to - from).abs() / by + 1e-9).floor();
        if steps >= PIECES_MAX as f64 {
            return Err(format!("{steps} steps, at most {PIECES_MAX} are allowed"));
        }
        for step in 0..=steps as u32 {
            let rate = from + by.copysign(to - from) * f64::from(step);
            self.add(rate, rate, every)?;
        }
        Ok(())
    }

    fn read_spike(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let (base, peak) = (words.rate()?, words.rate_after("to")?);
        let (at, length) = (words.duration_after("at")?, some(words.duration_after("for")?)?);
        let whole = words.duration_after("in")?;
        let Some(rest) = whole.checked_sub(at + length) else {
            let end = (at + length).as_secs_f64();
            let whole = whole.as_secs_f64();
            return Err(format!("the spike ends at {end} s, after the whole of {whole} s"));
        };
        self.add(base, base, at)?;
        self.add(peak, peak, length)?;
        self.add(base, base, rest)
    }

    fn read_closed(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        words.must("closed")?;
        let in_flight = count(words.next("a number of calls")?, "calls in flight", IN_FLIGHT_MAX)?;
        self.duration = some(words.duration_after("for")?)?;
        self.load = Load::Closed { in_flight };
        words.end("the end (`closed` stands alone)")
    }

    fn read_knee(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        words.must("knee")?;
        let (from, to) = (words.rate()?, words.rate_after("to")?);
        let each = some(words.duration_after("each")?)?;
        if from <= 0.0 || from > to {
            return Err(format!(
                "a knee from {from}/s to {to}/s: rising rates above 0/s are allowed"
            ));
        }
        self.duration = each;
        self.load = Load::Knee(Sweep { from, to, each });
        words.end("the end (`knee` stands alone)")
    }
}

/// A length that is not nothing.
fn some(length: Duration) -> Result<Duration, String> {
    match length.is_zero() {
        true => Err("a length of 0s: above 0s is allowed".into()),
        false => Ok(length),
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}
