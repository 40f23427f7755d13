//! Goals: what must hold for a run to pass.
//!
//! ```text
//! goal   = name [ "(" response ")" ] op number [ unit ]
//! op     = "=" | "<" | "<=" | ">" | ">="
//! name   = a count (lost, failed, …), rate, offered, attempts, connects,
//!          or pN, min, mean, max, optionally with _excess, _answered, …, _uncorrected
//! ```

use super::recovery::Recovery;
use super::result::Outcome;
use super::timing::Timing;

/// A goal that was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Goal {
    text: String,
    figure: Figure,
    op: Op,
    /// Milliseconds, a second, per cent or a plain number, as `unit` says.
    bound: f64,
    unit: Unit,
}

#[derive(Clone, Debug, PartialEq)]
enum Figure {
    /// Calls or other things, as a number or as a share of the calls that were to be.
    Count(Count),
    Rate,
    Offered,
    ConnectsPerSecond,
    AttemptsMax,
    Time {
        statistic: Statistic,
        of: Of,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Started,
    SetUp,
    Done,
    Kept,
    Lost,
    Failed,
    Unknown,
    Released,
    Refused,
    Violations,
    MissedSlots,
    Endangered,
    Safe,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Statistic {
    Quantile(f64),
    Min,
    Mean,
    Max,
}

#[derive(Clone, Debug, PartialEq)]
enum Of {
    /// A response time by name; all of them without.
    Response {
        name: Option<String>,
        corrected: bool,
    },
    Recovery(Stage),
    Lateness,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Detected,
    FirstAttempt,
    Answered,
    Acked,
    Excess,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Equal,
    Less,
    AtMost,
    More,
    AtLeast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Plain,
    Percent,
    Milliseconds,
    ASecond,
}

const COUNTS: [(&str, Count); 13] = [
    ("started", Count::Started),
    ("set_up", Count::SetUp),
    ("done", Count::Done),
    ("kept", Count::Kept),
    ("lost", Count::Lost),
    ("failed", Count::Failed),
    ("unknown", Count::Unknown),
    ("released", Count::Released),
    ("refused", Count::Refused),
    ("violations", Count::Violations),
    ("missed_slots", Count::MissedSlots),
    ("endangered", Count::Endangered),
    ("safe", Count::Safe),
];

const STAGES: [(&str, Stage); 5] = [
    ("detected", Stage::Detected),
    ("first_attempt", Stage::FirstAttempt),
    ("answered", Stage::Answered),
    ("acked", Stage::Acked),
    ("excess", Stage::Excess),
];

/// Longer texts are no goals.
const GOAL_BYTES_MAX: usize = 256;

/// Larger numbers are slips of the pen.
const BOUND_MAX: f64 = 1e12;

impl Goal {
    /// Reads `lost=0`, `p99_excess<50ms`, `p99(invite)<1ms`, `rate>=10000/s`, `failed<0.1%`.
    ///
    /// # Errors
    /// Says what is wrong with the text and which names, operators and units there are.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: String| format!("goal {text:?}: {what}");
        if text.len() > GOAL_BYTES_MAX {
            return Err(format!("a goal is longer than {GOAL_BYTES_MAX} bytes"));
        }
        let at = text.find(['=', '<', '>']).ok_or_else(|| {
            wrong("no comparison in it; write name, one of = < <= > >=, number, unit".into())
        })?;
        let (left, right) = text.split_at(at);
        let (op, right) = Op::parse(right);
        let figure = Figure::parse(left.trim()).map_err(wrong)?;
        let (bound, unit) = bound(right.trim(), &figure).map_err(wrong)?;
        Ok(Self { text: text.trim().into(), figure, op, bound, unit })
    }

    /// Compares with what was found. A time without a sample meets no goal.
    pub(super) fn evaluate(&self, outcome: &Outcome) -> super::GoalResult {
        let found = self.figure.find(outcome, self.unit);
        let met = found.as_ref().is_ok_and(|found| self.op.holds(*found, self.bound));
        let found = match found {
            Ok(found) => format!("{}{}", plain(found), self.unit.text()),
            Err(why) => why,
        };
        super::GoalResult { goal: self.text.clone(), found, met }
    }

    /// Names of response times that the goal speaks of, so that a run can refuse those it never
    /// measures before it starts.
    pub(crate) fn response_name(&self) -> Option<&str> {
        match &self.figure {
            Figure::Time { of: Of::Response { name, .. }, .. } => name.as_deref(),
            Figure::Time { of: Of::Recovery(_) | Of::Lateness, .. }
            | Figure::Count(_)
            | Figure::Rate
            | Figure::Offered
            | Figure::ConnectsPerSecond
            | Figure::AttemptsMax => None,
        }
    }
}

impl Op {
    fn parse(text: &str) -> (Self, &str) {
        let ops = [
            ("<=", Self::AtMost),
            (">=", Self::AtLeast),
            ("==", Self::Equal),
            ("<", Self::Less),
            (">", Self::More),
        ];
        let found = ops.iter().find_map(|(sign, op)| Some((*op, text.strip_prefix(sign)?)));
        found.unwrap_or((Self::Equal, text.get(1..).unwrap_or("")))
    }

    fn holds(self, found: f64, bound: f64) -> bool {
        match self {
            Self::Equal => found == bound,
            Self::Less => found < bound,
            Self::AtMost => found <= bound,
            Self::More => found > bound,
            Self::AtLeast => found >= bound,
        }
    }
}

impl Unit {
    fn text(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Percent => " %",
            Self::Milliseconds => " ms",
            Self::ASecond => "/s",
        }
    }
}

impl Figure {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, response) = match text.split_once('(') {
            None => (text, None),
            Some((name, rest)) => {
                let inside = rest.strip_suffix(')').ok_or("no ) behind the name of a response")?;
                (name.trim_end(), Some(inside.trim()))
            }
        };
        let plain = match name {
            "rate" => Some(Self::Rate),
            "offered" => Some(Self::Offered),
            "connects" => Some(Self::ConnectsPerSecond),
            "attempts" => Some(Self::AttemptsMax),
            _ => COUNTS.iter().find(|(known, _)| *known == name).map(|(_, c)| Self::Count(*c)),
        };
        match (plain, response) {
            (Some(figure), None) => Ok(figure),
            (Some(_), Some(_)) => Err(format!("{name} is not a time: no (…) behind it")),
            (None, response) => Self::time(name, response),
        }
    }

    fn time(name: &str, response: Option<&str>) -> Result<Self, String> {
        let (head, tail) = name.split_once('_').map_or((name, None), |(h, t)| (h, Some(t)));
        let statistic = Statistic::parse(head)?;
        let stage = tail.and_then(|tail| STAGES.iter().find(|(known, _)| *known == tail));
        let of = match (tail, stage, response) {
            (_, Some((stage, _)), Some(_)) => {
                return Err(format!("{stage} is a time of recoveries: no (…) behind it"));
            }
            (_, Some((_, stage)), None) => Of::Recovery(*stage),
            (Some("lateness"), None, None) => Of::Lateness,
            (Some("uncorrected") | None, None, _) => {
                let name = response.map(str::to_owned);
                Of::Response { name, corrected: tail.is_none() }
            }
            (Some(tail), None, _) => {
                let stages = STAGES.map(|(name, _)| name).join(", ");
                return Err(format!(
                    "unknown time {tail:?}; there are {stages}, lateness, uncorrected"
                ));
            }
        };
        Ok(Self::Time { statistic, of })
    }

    fn find(&self, outcome: &Outcome, unit: Unit) -> Result<f64, String> {
        match self {
            Self::Count(count) => {
                let found = count.of(outcome) as f64;
                Ok(match unit {
                    Unit::Percent => found * 100.0 / count.whole(outcome).max(1) as f64,
                    Unit::Plain | Unit::Milliseconds | Unit::ASecond => found,
                })
            }
            Self::Rate => Ok(outcome.done_per_second),
            Self::Offered => {
                outcome.offered_per_second.ok_or_else(|| "no rate was offered (closed loop)".into())
            }
            Self::ConnectsPerSecond => recovery(outcome).map(|r| r.connects_per_second_peak),
            Self::AttemptsMax => {
                let recovery = recovery(outcome)?;
                Ok(recovery.attempts.len().saturating_sub(1) as f64)
            }
            Self::Time { statistic, of } => {
                let timing = of.timing(outcome)?;
                statistic.of(&timing)
            }
        }
    }
}

fn recovery(outcome: &Outcome) -> Result<&Recovery, String> {
    outcome.recovery.as_ref().ok_or_else(|| "no call was in danger".into())
}

impl Statistic {
    fn parse(text: &str) -> Result<Self, String> {
        let unknown = || {
            let counts = COUNTS.map(|(name, _)| name).join(", ");
            format!(
                "unknown name {text:?}; there are {counts}, rate, offered, connects, attempts, and \
                 the times pN (p50, p99.9), min, mean, max"
            )
        };
        match text {
            "min" => return Ok(Self::Min),
            "mean" => return Ok(Self::Mean),
            "max" => return Ok(Self::Max),
            _ => {}
        }
        let digits = text.strip_prefix('p').ok_or_else(unknown)?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(unknown());
        }
        let percent: f64 = digits.parse().map_err(|_| unknown())?;
        match percent > 0.0 && percent <= 100.0 {
            true => Ok(Self::Quantile(percent / 100.0)),
            false => Err(format!("percentile {text} is not above 0 and at most 100")),
        }
    }

    fn of(self, timing: &Timing) -> Result<f64, String> {
        if timing.is_empty() {
            return Err("no sample".into());
        }
        Ok(match self {
            Self::Quantile(quantile) => timing.quantile_ms(quantile),
            Self::Min => timing.min_ms(),
            Self::Mean => timing.mean_ms(),
            Self::Max => timing.max_ms(),
        })
    }
}

impl Of {
    fn timing<'a>(&self, outcome: &'a Outcome) -> Result<std::borrow::Cow<'a, Timing>, String> {
        use std::borrow::Cow::{Borrowed, Owned};
        let pick = |response: &'a super::ResponseTime, corrected: bool| match corrected {
            true => &response.corrected,
            false => &response.uncorrected,
        };
        match self {
            Self::Lateness => Ok(Borrowed(&outcome.generator.lateness)),
            Self::Recovery(stage) => {
                let recovery = recovery(outcome)?;
                Ok(Borrowed(match stage {
                    Stage::Detected => &recovery.detected,
                    Stage::FirstAttempt => &recovery.first_attempt,
                    Stage::Answered => &recovery.answered,
                    Stage::Acked => &recovery.acked,
                    Stage::Excess => &recovery.excess,
                }))
            }
            Self::Response { name: Some(name), corrected } => {
                let response = outcome.response.get(name).ok_or_else(|| {
                    let names: Vec<&str> = outcome.response.keys().map(String::as_str).collect();
                    format!("no response time {name:?}; there are {}", names.join(", "))
                })?;
                Ok(Borrowed(pick(response, *corrected)))
            }
            Self::Response { name: None, corrected } => {
                let mut all = Timing::new();
                for response in outcome.response.values() {
                    all.merge(pick(response, *corrected));
                }
                Ok(Owned(all))
            }
        }
    }
}

impl Count {
    fn of(self, outcome: &Outcome) -> u64 {
        let calls = &outcome.calls;
        let recovery = outcome.recovery.as_ref();
        match self {
            Self::Started => calls.started,
            Self::SetUp => calls.set_up,
            Self::Done => calls.done(),
            Self::Kept => calls.kept,
            Self::Lost => calls.lost,
            Self::Failed => calls.failed,
            Self::Unknown => calls.unknown,
            Self::Released => calls.released,
            Self::Refused => calls.refused,
            Self::Violations => outcome.violations.total(),
            Self::MissedSlots => outcome.generator.missed_slots,
            Self::Endangered => recovery.map_or(0, |recovery| recovery.endangered),
            Self::Safe => recovery.map_or(0, |recovery| recovery.safe),
        }
    }

    /// What a share is of: calls in danger for those that are safe, else calls that were to be.
    fn whole(self, outcome: &Outcome) -> u64 {
        match self {
            Self::Safe => outcome.recovery.as_ref().map_or(0, |recovery| recovery.endangered),
            Self::Started
            | Self::SetUp
            | Self::Done
            | Self::Kept
            | Self::Lost
            | Self::Failed
            | Self::Unknown
            | Self::Released
            | Self::Refused
            | Self::Violations
            | Self::MissedSlots
            | Self::Endangered => outcome.calls.intended,
        }
    }
}

/// The number and the unit behind the comparison, in the goal's terms.
fn bound(text: &str, figure: &Figure) -> Result<(f64, Unit), String> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.is_empty() {
        return Err(format!("{text:?} does not begin with a number"));
    }
    let number: f64 =
        number.parse().map_err(|_| format!("{number:?} is not a number such as 10 or 0.1"))?;
    if number > BOUND_MAX {
        return Err(format!("{number:e} is above the limit of {BOUND_MAX:e}"));
    }
    let (allowed, found) = match (figure, unit.trim()) {
        (Figure::Time { .. }, unit) => {
            let factors = [("us", 0.001), ("µs", 0.001), ("ms", 1.0), ("s", 1000.0)];
            let factor = factors.iter().find(|(name, _)| *name == unit);
            let time = factor.map(|(_, factor)| (number * factor, Unit::Milliseconds));
            ("us, ms or s", time)
        }
        (Figure::Count(_), "") => ("", Some((number, Unit::Plain))),
        (Figure::Count(_), "%") => ("", Some((number, Unit::Percent))),
        (Figure::Count(_), _) => ("% or none", None),
        (Figure::Rate | Figure::Offered | Figure::ConnectsPerSecond, "" | "/s") => {
            ("", Some((number, Unit::ASecond)))
        }
        (Figure::Rate | Figure::Offered | Figure::ConnectsPerSecond, _) => ("/s or none", None),
        (Figure::AttemptsMax, "") => ("", Some((number, Unit::Plain))),
        (Figure::AttemptsMax, _) => ("none", None),
    };
    found.ok_or_else(|| format!("unit {:?} does not fit; allowed: {allowed}", unit.trim()))
}

/// Up to three decimals, no zeros at the end.
fn plain(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}
