//! Scenarios in loadgen's own format: one step a line, see `docs/LOADGEN-SCENARIOS.md`.
//!
//! ```text
//! file     = scenario *(fields / mix / caller / callee / fault)
//! scenario = "scenario" NAME ["about"]
//! fields   = "fields" "file.csv"
//! mix      = "mix" SHARE NAME                            SHARE 30%
//! caller   = "caller" *step
//! callee   = "callee" *step
//! fault    = "fault" words                               read by the plan
//! step     = request *modifier / response *modifier / flow
//! request  = "invite" [media] / "reinvite" [media] / "update" [media] / "bye" / "info"
//!          / "options" / "message" ["text"] / "register" / "request" METHOD
//! media    = DIRECTION / "same" / "without sdp"          DIRECTION sendrecv sendonly recvonly inactive
//! modifier = "header" "Name: value" / "expect" STATUSES / "refused" STATUSES / "timeout" TIME
//!          / "cancel after" SPAN / "as" "name" / "to" ("user" / server) / "body" "type" "text"
//! response = "ring" / "progress" STATUS / "answer" / "reject" STATUS ["Reason"]
//! flow     = "wait" SPAN / "await" METHOD ["timeout" TIME] / "meet" NAME
//!          / "repeat" N *step "end" / "chance" SHARE *step ["otherwise" *step] "end"
//!          / "mark" "name" / "lap" "name" / "success" / "refuse" / "fail" "why"
//! SPAN     = TIME / TIME..TIME / "exp" TIME / "normal" TIME TIME
//! STATUSES = 200 / 200..299 / 2xx
//! ```
//! Modifiers stand on the line of their step or on lines of their own after it.

mod block;
mod steps;
mod words;

use std::collections::HashSet;

use super::fields::FieldFiles;
use super::program::{ALWAYS, Scenario};
use super::ring_and_answer;
use super::trouble::{Trouble, Troubles, short};
use block::{Block, Names};
use words::{Words, split};

/// Bytes of one file.
pub(crate) const TEXT_BYTES_MAX: usize = 256 << 10;
/// Bytes of one line.
pub(crate) const LINE_BYTES_MAX: usize = 8 << 10;
/// `fault` lines of one file.
pub(crate) const FAULTS_MAX: usize = 64;
/// Parts of a mixture.
pub(crate) const PARTS_MAX: usize = 32;
/// Characters of a name.
pub(crate) const NAME_CHARS_MAX: usize = 64;

/// What a text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Scenario(Scenario),
    /// A mixture of others, by name; only `name`, `about` and `faults` of the scenario are set.
    Mix(Scenario, Vec<MixLine>),
}

/// `mix 70% call`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MixLine {
    pub(crate) line: u32,
    /// In millionths; all lines together are [`ALWAYS`].
    pub(crate) weight: u32,
    pub(crate) name: String,
}

/// Reads a text.
///
/// # Errors
/// Every line that is wrong.
pub(crate) fn parse(
    file: &str,
    bytes: &[u8],
    fields: FieldFiles<'_>,
) -> Result<(Text, Vec<Trouble>), Vec<Trouble>> {
    if bytes.len() > TEXT_BYTES_MAX {
        let text = format!("more than the limit of {TEXT_BYTES_MAX} bytes");
        return Err(Troubles::only(file, 0, text));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|b| **b == b'\n').count() as u32 + 1;
        Troubles::only(file, line, "is not UTF-8 text")
    })?;
    let mut parser = Parser {
        troubles: Troubles::new(file),
        scenario: None,
        mix: Vec::new(),
        block: None,
        seen: HashSet::new(),
        names: Names::new(fields),
    };
    for (at, line) in text.lines().enumerate() {
        let at = at as u32 + 1;
        if let Err(text) = parser.line(at, line) {
            parser.troubles.error(at, text);
        }
    }
    parser.end()
}

struct Parser<'f> {
    troubles: Troubles,
    /// From its line on.
    scenario: Option<Scenario>,
    mix: Vec<MixLine>,
    /// The block being read.
    block: Option<Block>,
    /// Blocks that were begun.
    seen: HashSet<&'static str>,
    names: Names<'f>,
}

impl Parser<'_> {
    fn line(&mut self, at: u32, line: &str) -> Result<(), String> {
        if line.len() > LINE_BYTES_MAX {
            return Err(format!("{} bytes, above the limit of {LINE_BYTES_MAX}", line.len()));
        }
        let mut words = Words::new(split(line)?);
        let Some(verb) = words.peek().map(str::to_owned) else {
            return words.end("a word without quotes at the start of the line");
        };
        words.take(&verb);
        if verb == "scenario" {
            return self.begin(&mut words);
        }
        let Some(scenario) = &mut self.scenario else {
            self.scenario = Some(Scenario::default());
            return Err(format!(
                "`{}`: expected `scenario NAME \"about\"` as the first line",
                short(&verb)
            ));
        };
        match verb.as_str() {
            "fields" if self.seen.is_empty() => {
                self.names.fields.add(words.string("the name of a field file")?)?;
                words.end("the end of the line")
            }
            "fields" => Err("`fields` must stand before `caller` and `callee`".to_owned()),
            "fault" => {
                if scenario.faults.len() == FAULTS_MAX {
                    return Err(format!("more faults than the limit of {FAULTS_MAX}"));
                }
                let rest = line.trim_start().strip_prefix("fault").unwrap_or_default();
                let rest = rest.split(" #").next().unwrap_or_default().trim();
                scenario.faults.push((at, rest.to_owned()));
                self.close();
                Ok(())
            }
            "mix" => self.mix(at, &mut words),
            "caller" => self.open("caller", &words),
            "callee" => self.open("callee", &words),
            verb => match &mut self.block {
                Some(block) => block.line(at, verb, &mut words, &mut self.names),
                None => Err(format!(
                    "`{}`: expected scenario, fields, mix, caller, callee or fault",
                    short(verb)
                )),
            },
        }
    }

    fn begin(&mut self, words: &mut Words) -> Result<(), String> {
        if self.scenario.is_some() {
            return Err("`scenario` stands twice".to_owned());
        }
        let mut scenario = Scenario::default();
        let read = name(words).map(|name| {
            scenario.name = name;
            scenario.about = words.optional_string().unwrap_or_default().to_owned();
        });
        self.scenario = Some(scenario);
        read?;
        words.end("a text about it in double quotes, and the end of the line")
    }

    fn mix(&mut self, line: u32, words: &mut Words) -> Result<(), String> {
        if self.mix.len() == PARTS_MAX {
            return Err(format!("more parts than the limit of {PARTS_MAX}"));
        }
        self.close();
        let weight = words.percent()?;
        let name = words.next("the name of a scenario, or of its file")?.to_owned();
        self.mix.push(MixLine { line, weight, name });
        words.end("the end of the line")
    }

    fn open(&mut self, side: &'static str, words: &Words) -> Result<(), String> {
        self.close();
        self.block = Some(Block::new(side == "caller"));
        if !self.seen.insert(side) {
            return Err(format!("`{side}` stands twice"));
        }
        words.end("the end of the line")
    }

    /// Ends the block being read.
    fn close(&mut self) {
        let (Some(block), Some(scenario)) = (self.block.take(), &mut self.scenario) else {
            return;
        };
        let calls = block.is_caller();
        let steps = block.end(&mut self.names, &mut self.troubles);
        match calls {
            true => scenario.caller = steps,
            false => scenario.callee = steps,
        }
    }

    fn end(mut self) -> Result<(Text, Vec<Trouble>), Vec<Trouble>> {
        self.close();
        let Some(mut scenario) = self.scenario.take() else {
            self.troubles.error(0, "is empty; expected `scenario NAME \"about\"`");
            return self.troubles.end(Text::Scenario(Scenario::default()));
        };
        if let Some(first) = self.mix.first() {
            let sum: u32 = self.mix.iter().map(|part| part.weight).sum();
            if sum != ALWAYS {
                let sum = f64::from(sum) / 10_000.0;
                let text = format!("the shares of `mix` add up to {sum}%, expected 100%");
                self.troubles.error(first.line, text);
            }
            if !self.seen.is_empty() {
                let text = "`mix` beside `caller` or `callee`: a scenario is one or the other";
                self.troubles.error(first.line, text);
            }
            return self.troubles.end(Text::Mix(scenario, self.mix));
        }
        if scenario.caller.is_empty() && !self.troubles.is_bad() {
            self.troubles.error(0, "has no step under `caller`, and no `mix`");
        }
        if scenario.callee.is_empty() {
            scenario.callee = ring_and_answer();
        }
        self.names.give(&mut scenario);
        self.troubles.end(Text::Scenario(scenario))
    }
}

/// A name of letters, digits, `-` and `_`.
fn name(words: &mut Words) -> Result<String, String> {
    let word = words.next("a name")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !word.is_empty() && word.len() <= NAME_CHARS_MAX && word.chars().all(fits) {
        return Ok(word.to_owned());
    }
    Err(format!(
        "`{}`: expected a name of letters, digits, - and _, at most {NAME_CHARS_MAX}",
        short(word)
    ))
}

#[cfg(test)]
mod tests;
