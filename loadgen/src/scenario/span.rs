//! How long a scenario waits.

use std::time::Duration;

/// A fixed time or a distribution of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    Fixed(Duration),
    /// Evenly from the first to the second.
    Uniform(Duration, Duration),
    /// With this mean; cut off at [`SPAN_MAX`].
    Exponential(Duration),
    /// With this mean and standard deviation; below zero is zero, and cut off at [`SPAN_MAX`].
    Normal(Duration, Duration),
}

/// The longest time that a scenario may wait at one step: a day.
pub(crate) const SPAN_MAX: Duration = Duration::from_secs(86_400);

impl Span {
    /// One time of the distribution, made of two numbers that are even over all of `u64`.
    pub(crate) fn sample(self, random: [u64; 2]) -> Duration {
        let [a, b] = random.map(open_unit);
        let seconds = match self {
            Self::Fixed(time) => return time,
            Self::Uniform(low, high) => {
                return low + high.saturating_sub(low).mul_f64(a);
            }
            Self::Exponential(mean) => -a.ln() * mean.as_secs_f64(),
            Self::Normal(mean, deviation) => {
                // Box and Muller.
                let unit = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
                mean.as_secs_f64() + unit * deviation.as_secs_f64()
            }
        };
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(SPAN_MAX).min(SPAN_MAX)
    }
}

/// Above zero and below one.
fn open_unit(random: u64) -> f64 {
    ((random >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

/// Reads `500ms`, `1.5s`, `2min`, `1h`, `20us`.
///
/// # Errors
/// What is allowed.
pub(crate) fn duration(word: &str) -> Result<Duration, String> {
    let digits = word.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (value, unit) = word.split_at(digits);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    let seconds = value.parse::<f64>().unwrap_or(f64::NAN) * scale;
    let time = Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= SPAN_MAX);
    time.ok_or_else(|| {
        let word = super::trouble::short(word);
        format!("`{word}` is no time; expected a number with us, ms, s, min or h, up to 24h")
    })
}

impl Span {
    /// Reads the words of a span: `1s`, `1s..3s`, `exp 3s`, `normal 3s 500ms`. What is left comes
    /// back.
    ///
    /// # Errors
    /// What is allowed.
    pub(crate) fn parse<'a, 'w>(words: &'a [&'w str]) -> Result<(Self, &'a [&'w str]), String> {
        match words {
            ["exp", mean, rest @ ..] => Ok((Self::Exponential(duration(mean)?), rest)),
            ["normal", mean, deviation, rest @ ..] => {
                Ok((Self::Normal(duration(mean)?, duration(deviation)?), rest))
            }
            [word, rest @ ..] if word.contains("..") => {
                let (low, high) = word.split_once("..").unwrap_or((word, ""));
                let (low, high) = (duration(low)?, duration(high)?);
                if low > high {
                    return Err(format!("`{word}`: the first time is above the second"));
                }
                Ok((Self::Uniform(low, high), rest))
            }
            [word, rest @ ..] if !matches!(*word, "exp" | "normal") => {
                Ok((Self::Fixed(duration(word)?), rest))
            }
            _ => Err("expected a time: `1s`, `1s..3s`, `exp 3s` or `normal 3s 500ms`".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64, to have many even numbers.
    fn numbers() -> impl Iterator<Item = [u64; 2]> {
        let mut state = 1u64;
        let mut next = move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        std::iter::repeat_with(move || [next(), next()]).take(100_000)
    }

    /// Mean and standard deviation in seconds.
    fn moments(span: Span) -> (f64, f64) {
        let samples: Vec<_> = numbers().map(|n| span.sample(n).as_secs_f64()).collect();
        let mean = samples.iter().sum::<f64>() / samples.len() as f64;
        let square = samples.iter().map(|s| (s - mean) * (s - mean)).sum::<f64>();
        (mean, (square / samples.len() as f64).sqrt())
    }

    fn near(got: (f64, f64), expected: (f64, f64)) {
        let close = |a: f64, b: f64| (a - b).abs() <= 0.02 * b.max(0.1);
        assert!(close(got.0, expected.0) && close(got.1, expected.1), "{got:?}, not {expected:?}");
    }

    #[test]
    fn distributions_have_their_mean_and_deviation() {
        let seconds = Duration::from_secs;
        near(moments(Span::Fixed(seconds(2))), (2.0, 0.0));
        near(moments(Span::Uniform(seconds(1), seconds(3))), (2.0, 2.0 / 12f64.sqrt()));
        near(moments(Span::Exponential(seconds(3))), (3.0, 3.0));
        near(moments(Span::Normal(seconds(30), seconds(2))), (30.0, 2.0));
    }

    #[test]
    fn extreme_numbers_give_times_within_the_limits() {
        for random in [[0, 0], [u64::MAX; 2], [0, u64::MAX], [u64::MAX, 0]] {
            for span in [
                Span::Uniform(Duration::ZERO, SPAN_MAX),
                Span::Exponential(SPAN_MAX),
                Span::Normal(Duration::ZERO, SPAN_MAX),
            ] {
                assert!(span.sample(random) <= SPAN_MAX, "{span:?}");
            }
        }
    }

    #[test]
    fn durations_have_a_unit_and_a_limit() {
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("20us"), Ok(Duration::from_micros(20)));
        assert_eq!(duration("24h"), Ok(SPAN_MAX));
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1e3s",
            "24.1h",
            "1.2.3s",
            "NaNs",
            "infs",
            "1 s",
            "99999999999999999999h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
