//! Broken rules, counted.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{EXAMPLES_MAX, VALUE_CHARS_MAX};

/// How often each rule was broken, and the first times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Violations {
    /// Messages that were watched: without any, no violation means nothing.
    pub(crate) watched: u64,
    /// By the name of the rule.
    pub(crate) rules: BTreeMap<String, Broken>,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Broken {
    pub(crate) count: u64,
    /// The first [`EXAMPLES_MAX`].
    pub(crate) examples: Vec<Example>,
}

/// One breach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Example {
    /// Number of the call.
    pub(crate) call: u64,
    /// Microseconds since the start of the run.
    pub(crate) at_us: u64,
    /// What held before, or should.
    pub(crate) expected: String,
    /// What came.
    pub(crate) found: String,
}

impl Violations {
    /// Notes a breach; the values are made only when they are kept.
    pub(crate) fn add(
        &mut self,
        rule: &str,
        call: u64,
        at: Duration,
        values: impl FnOnce() -> (String, String),
    ) {
        if !self.rules.contains_key(rule) {
            self.rules.insert(rule.to_owned(), Broken::default());
        }
        let Some(broken) = self.rules.get_mut(rule) else { return };
        broken.count = broken.count.saturating_add(1);
        if broken.examples.len() < EXAMPLES_MAX {
            let at_us = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
            let (expected, found) = values();
            let (expected, found) = (short(&expected), short(&found));
            broken.examples.push(Example { call, at_us, expected, found });
        }
    }

    /// Notes breaches that were counted elsewhere, without examples.
    pub(crate) fn add_count(&mut self, rule: &str, count: u64) {
        if count > 0 {
            let broken = self.rules.entry(rule.to_owned()).or_default();
            broken.count = broken.count.saturating_add(count);
        }
    }

    #[cfg(test)]
    pub(crate) fn total(&self) -> u64 {
        self.rules.values().fold(0, |sum, broken| sum.saturating_add(broken.count))
    }

    #[cfg(test)]
    pub(crate) fn count(&self, rule: &str) -> u64 {
        self.rules.get(rule).map_or(0, |broken| broken.count)
    }

    /// Adds those of another worker; the earliest examples stay.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.watched = self.watched.saturating_add(other.watched);
        for (rule, theirs) in &other.rules {
            let ours = self.rules.entry(rule.clone()).or_default();
            ours.count = ours.count.saturating_add(theirs.count);
            ours.examples.extend_from_slice(&theirs.examples);
            ours.examples.sort_by_key(|example| (example.at_us, example.call));
            ours.examples.truncate(EXAMPLES_MAX);
        }
    }

    /// Counts by rule.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.rules.iter().map(|(rule, broken)| (rule.clone(), broken.count)).collect()
    }

    /// The examples, a sentence each.
    pub(crate) fn sentences(&self) -> Vec<String> {
        let of_rule = |(rule, broken): (&String, &Broken)| {
            let sentence = |example: &Example| {
                let Example { call, at_us, expected, found } = example;
                let seconds = *at_us as f64 / 1e6;
                format!("{rule}: call {call} at {seconds:.6} s: expected {expected}, found {found}")
            };
            broken.examples.iter().map(sentence).collect::<Vec<_>>()
        };
        self.rules.iter().flat_map(of_rule).collect()
    }
}

fn short(value: &str) -> String {
    match value.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
