//! Words, durations and rates of the texts that plans are written in.

use std::time::Duration;

use super::{DURATION_MAX, RATE_MAX};

/// Longer texts are refused.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Of a word that an error quotes.
const QUOTED_CHARS_MAX: usize = 40;

/// The words of a text, one after the other; commas count as blanks.
#[derive(Clone, Debug)]
pub(super) struct Words<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, String> {
        if text.len() > TEXT_BYTES_MAX {
            let len = text.len();
            return Err(format!("{len} bytes, at most {TEXT_BYTES_MAX} are allowed"));
        }
        let blank = |c: char| c.is_whitespace() || c == ',';
        Ok(Self { words: text.split(blank).filter(|word| !word.is_empty()).collect(), at: 0 })
    }

    pub(super) fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    /// The next word; an error says what was expected.
    pub(super) fn next(&mut self, expected: &str) -> Result<&'a str, String> {
        let word = self.peek().ok_or_else(|| format!("ends where {expected} is expected"))?;
        self.at += 1;
        Ok(word)
    }

    /// Passes `word` when it is the next one.
    pub(super) fn pass(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        self.at += usize::from(found);
        found
    }

    /// The next word must be `word`.
    pub(super) fn must(&mut self, word: &str) -> Result<(), String> {
        let found = self.next(&format!("`{word}`"))?;
        match found == word {
            true => Ok(()),
            false => Err(format!("{} stands where `{word}` is expected", quoted(found))),
        }
    }

    /// The time after `word`.
    pub(super) fn duration_after(&mut self, word: &str) -> Result<Duration, String> {
        self.must(word)?;
        duration(self.next("a time such as 30s")?)
    }

    pub(super) fn rate(&mut self) -> Result<f64, String> {
        rate(self.next("a rate such as 500/s")?)
    }

    pub(super) fn rate_after(&mut self, word: &str) -> Result<f64, String> {
        self.must(word)?;
        self.rate()
    }

    /// Nothing may be left.
    pub(super) fn end(&self, expected: &str) -> Result<(), String> {
        match self.peek() {
            None => Ok(()),
            Some(word) => Err(format!("{} stands where {expected} is expected", quoted(word))),
        }
    }
}

/// A word of the text, short enough for an error.
pub(super) fn quoted(word: &str) -> String {
    let short: String = word.chars().take(QUOTED_CHARS_MAX).collect();
    let dots = if short.len() < word.len() { "…" } else { "" };
    format!("`{}{dots}`", short.escape_debug())
}

/// A decimal number without sign or exponent, and what follows it.
fn number(word: &str) -> Option<(f64, &str)> {
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let (digits, rest) = word.split_at(end);
    let begins_well = digits.starts_with(|c: char| c.is_ascii_digit());
    let value = digits.parse::<f64>().ok().filter(|value| begins_well && value.is_finite())?;
    Some((value, rest))
}

/// `250us`, `1800ms`, `30s`, `1.5s`, `10m`, `8h`, `7d`; at most seven days.
pub(super) fn duration(word: &str) -> Result<Duration, String> {
    let allowed = "a time is a number with us, ms, s, m, h or d, such as 1800ms, from 0s to 7d";
    let refused = || format!("{} is no time: {allowed}", quoted(word));
    let (value, unit) = number(word).ok_or_else(refused)?;
    let nanos = match unit {
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        "d" => 86_400e9,
        _ => return Err(refused()),
    };
    let nanos = (value * nanos).round();
    match nanos <= DURATION_MAX.as_nanos() as f64 {
        true => Ok(Duration::from_nanos(nanos as u64)),
        false => Err(refused()),
    }
}

/// `500/s`, `0.5/s`, `30/min`, `100/h`; calls a second.
fn rate(word: &str) -> Result<f64, String> {
    let refused = || {
        let what = quoted(word);
        format!("{what} is no rate: a number with /s, /min or /h, from 0/s to {RATE_MAX}/s")
    };
    let (value, unit) = number(word).ok_or_else(refused)?;
    let seconds = match unit {
        "/s" => 1.0,
        "/m" | "/min" => 60.0,
        "/h" => 3600.0,
        _ => return Err(refused()),
    };
    Some(value / seconds).filter(|rate| *rate <= RATE_MAX).ok_or_else(refused)
}

/// A whole number from 1 to `max`.
pub(super) fn count(word: &str, what: &str, max: u32) -> Result<u32, String> {
    let value = word.parse::<u32>().ok().filter(|value| (1..=max).contains(value));
    value.ok_or_else(|| format!("{} is no number of {what}: 1 to {max}", quoted(word)))
}
