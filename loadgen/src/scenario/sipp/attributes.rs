//! Attributes of SIPp's elements.

use std::time::Duration;

use roxmltree::Node;

use crate::scenario::program::ALWAYS;
use crate::scenario::span::{self, Span};
use crate::scenario::trouble::{Troubles, short};

/// Attributes that only format SIPp's screens, files and logs.
const SHOWN: &[&str] = &["crlf", "display", "hide", "counter", "ignoresdp"];

/// Attributes that every step may have.
const COMMON: &[&str] = &["next", "chance", "start_rtd", "rtd", "repeat_rtd"];

/// What cannot be done, and why that matters.
const NOT_DONE: &[(&str, &str)] = &[
    ("test", "branches on variables are not understood"),
    ("condexec", "steps that depend on a variable are not understood"),
    ("condexec_inverse", "steps that depend on a variable are not understood"),
    ("start_txn", "named transactions are not understood"),
    ("ack_txn", "named transactions are not understood"),
    ("response_txn", "named transactions are not understood"),
    ("use_txn", "named transactions are not understood"),
    ("advance_state", "a message that leaves the state as it is is not understood"),
];

/// Says which attributes of an element are not understood. `own` are those that it understands.
pub(super) fn check(node: Node<'_, '_>, own: &[&str], lines: &Lines, troubles: &mut Troubles) {
    let element = node.tag_name().name();
    for attribute in node.attributes() {
        let name = attribute.name();
        if own.contains(&name) || COMMON.contains(&name) || SHOWN.contains(&name) {
            continue;
        }
        let line = lines.at(attribute.range().start);
        match NOT_DONE.iter().find(|(known, _)| *known == name) {
            Some((_, why)) => troubles.error(line, format!("<{element} {name}>: {why}")),
            None => {
                let all: Vec<_> = own.iter().chain(COMMON).chain(SHOWN).copied().collect();
                let (name, all) = (short(name), all.join(", "));
                let text = format!("<{element} {name}>: unknown attribute; understood are {all}");
                troubles.error(line, text);
            }
        }
    }
    if node.attribute("repeat_rtd") == Some("true") {
        let text =
            format!("<{element} repeat_rtd>: the response time is taken once for each start");
        troubles.warning(lines.of(node), text);
    }
}

/// Where the lines of a file begin. The tree would count them anew for every question.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn new(text: &str) -> Self {
        Self(memchr::memchr_iter(b'\n', text.as_bytes()).collect())
    }

    /// The line that a node begins in.
    pub(super) fn of(&self, node: Node<'_, '_>) -> u32 {
        self.at(node.range().start)
    }

    /// The line of a byte.
    pub(super) fn at(&self, byte: usize) -> u32 {
        self.0.partition_point(|end| *end < byte) as u32 + 1
    }
}

/// `true` or `false`; false when it is absent.
pub(super) fn flag(node: Node<'_, '_>, name: &str) -> Result<bool, String> {
    match node.attribute(name) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(value) => Err(format!("{name}=\"{}\": expected true or false", short(value))),
    }
}

/// Milliseconds, or a time with a unit.
pub(super) fn time(node: Node<'_, '_>, name: &str) -> Result<Option<Duration>, String> {
    let Some(value) = node.attribute(name) else { return Ok(None) };
    let value = value.trim();
    let plain = value.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let read = if plain { span::duration(&format!("{value}ms")) } else { span::duration(value) };
    let bad = || format!("{name}=\"{}\": expected milliseconds, up to 24h", short(value));
    read.map(Some).map_err(|_| bad())
}

fn needed(node: Node<'_, '_>, name: &str) -> Result<Duration, String> {
    time(node, name)?.ok_or_else(|| format!("{name} is missing"))
}

/// A share of one, in millionths.
pub(super) fn chance(node: Node<'_, '_>) -> Result<Option<u32>, String> {
    share(node, "chance", 1.0)
}

/// A share in percent, in millionths.
pub(super) fn lost(node: Node<'_, '_>) -> Result<u32, String> {
    Ok(share(node, "lost", 100.0)?.unwrap_or(0))
}

fn share(node: Node<'_, '_>, name: &str, whole: f64) -> Result<Option<u32>, String> {
    let Some(value) = node.attribute(name) else { return Ok(None) };
    let share = value.trim().parse::<f64>().ok().filter(|share| (0.0..=whole).contains(share));
    match share {
        Some(share) => Ok(Some((share / whole * f64::from(ALWAYS)).round() as u32)),
        None => Err(format!("{name}=\"{}\": expected a number from 0 to {whole}", short(value))),
    }
}

/// The attributes of a pause beside those that are common.
pub(super) const PAUSE: &[&str] = &[
    "milliseconds",
    "distribution",
    "value",
    "min",
    "max",
    "mean",
    "stdev",
    "variance",
    "sanity_check",
];

/// How long a pause lasts.
pub(super) fn pause(node: Node<'_, '_>, default: Duration) -> Result<Span, String> {
    let deviation = || match node.attribute("variance") {
        Some(value) => {
            let bad = || format!("variance=\"{}\": expected a number", short(value));
            let root = value.trim().parse::<f64>().ok().filter(|v| *v >= 0.0).map(f64::sqrt);
            span::duration(&format!("{}ms", root.ok_or_else(bad)?)).map_err(|_| bad())
        }
        None => needed(node, "stdev"),
    };
    match node.attribute("distribution") {
        None => Ok(Span::Fixed(time(node, "milliseconds")?.unwrap_or(default))),
        Some("fixed") => Ok(Span::Fixed(needed(node, "value")?)),
        Some("uniform") => {
            let (low, high) = (needed(node, "min")?, needed(node, "max")?);
            if low > high {
                return Err("min is above max".to_owned());
            }
            Ok(Span::Uniform(low, high))
        }
        Some("normal") => Ok(Span::Normal(needed(node, "mean")?, deviation()?)),
        Some("exponential") => Ok(Span::Exponential(needed(node, "mean")?)),
        Some(other) => Err(format!(
            "distribution=\"{}\" is not understood; understood are fixed, uniform, normal, exponential",
            short(other)
        )),
    }
}
