//! From the name of a scenario to what a run plays.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use super::fields::{FieldFiles, Read};
use super::program::{ALWAYS, Mixture, Part, Scenario, Step, Strict};
use super::sipp::{self, SIPP_BYTES_MAX};
use super::text::{self, MixLine, TEXT_BYTES_MAX, Text};
use super::trouble::{Trouble, Troubles, short};
use super::{builtin, ring_and_answer};

/// What is loaded, and what else is to be said about it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) mixture: Mixture,
    pub(crate) warnings: Vec<Trouble>,
}

/// What the command line adds to a scenario.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras<'a> {
    /// Field files, in the order given; `[field0]` alone means the first.
    pub(crate) fields: &'a [String],
    /// How long SIPp's `<pause/>` lasts.
    pub(crate) pause: Duration,
}

/// Loads a built-in scenario by its name, or a file by its path. `read` gets the bytes of a file
/// by the name that stands on the command line or in a scenario, and the most it may have.
///
/// # Errors
/// Everything wrong with the first file that cannot be played.
pub(crate) fn load(name: &str, extras: Extras<'_>, read: Read<'_>) -> Result<Loaded, Vec<Trouble>> {
    let (text, mut warnings) = one(name, extras, read)?;
    match text {
        Text::Scenario(scenario) => {
            let (name, about) = (scenario.name.clone(), scenario.about.clone());
            let parts = vec![Part { weight: ALWAYS, scenario }];
            Ok(Loaded { mixture: Mixture { name, about, faults: Vec::new(), parts }, warnings })
        }
        Text::Mix(head, lines) => {
            let mut parts = Vec::new();
            for line in lines {
                let (scenario, mut more) = part(name, &line, extras, read)?;
                warnings.append(&mut more);
                parts.push(Part { weight: line.weight, scenario });
            }
            let Scenario { name, about, faults, .. } = head;
            Ok(Loaded { mixture: Mixture { name, about, faults, parts }, warnings })
        }
    }
}

/// One of the parts of a mixture.
fn part(
    file: &str,
    line: &MixLine,
    extras: Extras<'_>,
    read: Read<'_>,
) -> Result<(Scenario, Vec<Trouble>), Vec<Trouble>> {
    let wrong = |text: &str| {
        let text = format!("`mix {}`: {text}", short(&line.name));
        Err(Troubles::only(file, line.line, text))
    };
    // A part that cannot be read is named where it stands.
    let at_its_line = |trouble: Trouble| match trouble.line == 0 && trouble.file == line.name {
        true => {
            let text = format!("`mix {}`: {}", short(&line.name), trouble.text);
            Trouble { file: file.to_owned(), line: line.line, text }
        }
        false => trouble,
    };
    let one = one(&line.name, extras, read);
    match one.map_err(|troubles| troubles.into_iter().map(at_its_line).collect::<Vec<_>>())? {
        (Text::Mix(..), _) => wrong("a mixture cannot be part of another"),
        (Text::Scenario(scenario), _) if !scenario.meets.is_empty() => {
            wrong("it has a `meet`, to which the calls of the other parts would never come")
        }
        (Text::Scenario(scenario), _) if scenario.caller.is_empty() => wrong("it has no caller"),
        (Text::Scenario(scenario), warnings) => Ok((scenario, warnings)),
    }
}

/// One built-in or file.
fn one(
    name: &str,
    extras: Extras<'_>,
    read: Read<'_>,
) -> Result<(Text, Vec<Trouble>), Vec<Trouble>> {
    let bytes = match builtin::text(name) {
        Some(text) => text.as_bytes().to_vec(),
        None => read(name, SIPP_BYTES_MAX.max(TEXT_BYTES_MAX)).map_err(|text| {
            let names: Vec<&str> = builtin::names().collect();
            Troubles::only(name, 0, format!("{text}; built in are {}", names.join(", ")))
        })?,
    };
    let mut fields = FieldFiles::new(read);
    for file in extras.fields {
        fields.add(file).map_err(|text| Troubles::only("--fields", 0, text))?;
    }
    if !is_xml(&bytes) {
        return text::parse(name, &bytes, fields);
    }
    let (mut scenario, warnings) = sipp::parse(name, &bytes, fields, extras.pause)?;
    if scenario.callee.is_empty() {
        scenario.callee = ring_and_answer();
    }
    Ok((Text::Scenario(scenario), warnings))
}

fn is_xml(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes.trim_ascii_start().starts_with(b"<")
}

/// Puts the callee of `answers` under the caller of `calls`: two SIPp files that belong together.
///
/// # Errors
/// The first has no caller, or the second no callee of its own.
pub(crate) fn join(mut calls: Scenario, answers: Scenario) -> Result<Scenario, String> {
    if calls.caller.is_empty() {
        return Err(format!("`{}` starts no calls", short(&calls.name)));
    }
    if !answers.caller.is_empty() && answers.strict.caller {
        return Err(format!("`{}` answers no calls", short(&answers.name)));
    }
    let marks = calls.marks.len();
    if marks + answers.marks.len() > super::program::MARKS_MAX {
        return Err(format!("more response times than the limit of {}", super::program::MARKS_MAX));
    }
    if !answers.fields.is_empty() && answers.fields != calls.fields {
        return Err("both scenarios must have the same field files".to_owned());
    }
    calls.callee = answers.callee;
    for step in &mut calls.callee {
        for mark in marks_of(step) {
            *mark += marks as u8;
        }
    }
    calls.marks.extend(answers.marks);
    calls.counters = calls.counters.max(answers.counters);
    calls.keeps_messages |= answers.keeps_messages;
    calls.strict = Strict { callee: answers.strict.callee, ..calls.strict };
    Ok(calls)
}

/// The numbers of response times in a step.
fn marks_of(step: &mut Step) -> Vec<&mut u8> {
    match step {
        Step::Start(mark) | Step::Stop(mark) => vec![mark],
        Step::Request(request) => request.mark.iter_mut().collect(),
        Step::Send(send) => send.start.iter_mut().chain(&mut send.stop).collect(),
        Step::Recv(recv) => recv.start.iter_mut().chain(&mut recv.stop).collect(),
        _ => Vec::new(),
    }
}

/// Reads files from disk: `name` as it is, or beside the scenario file `beside`.
pub(crate) fn disk(beside: &Path) -> impl Fn(&str, usize) -> Result<Vec<u8>, String> + use<> {
    let folder = beside.parent().unwrap_or(Path::new("")).to_owned();
    move |name, max| {
        let own = Path::new(name);
        let near = folder.join(name);
        let path = if own.is_relative() && !own.exists() { near.as_path() } else { own };
        let cannot = |error: std::io::Error| format!("cannot read {}: {error}", short(name));
        let file = std::fs::File::open(path).map_err(cannot)?;
        if file.metadata().map_err(cannot)?.is_dir() {
            return Err(format!("{} is a folder", short(name)));
        }
        let mut bytes = Vec::new();
        file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
        if bytes.len() > max {
            return Err(format!("{} has more than the limit of {max} bytes", short(name)));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
