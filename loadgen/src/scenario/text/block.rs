//! A block of steps: which may follow which, loops, branches, and names.

use super::steps;
use super::words::Words;
use crate::scenario::fields::FieldFiles;
use crate::scenario::program::{
    ALWAYS, Await, MARKS_MAX, Outcome, Request, STEPS_MAX, Scenario, Step,
};
use crate::scenario::trouble::{Troubles, short};

/// Loops and branches within each other.
pub(crate) const NESTING_MAX: usize = 8;
/// Meeting points of one scenario.
pub(crate) const MEETS_MAX: usize = 32;
/// Turns of a loop.
pub(crate) const TURNS_MAX: u32 = 1_000_000_000;

/// All words that may begin a step.
const VERBS: &str = "invite, reinvite, update, bye, info, options, message, register, request, \
    ring, progress, answer, reject, wait, await, meet, repeat, chance, otherwise, end, mark, lap, \
    success, refuse, fail; after a request or response: header, expect, refused, timeout, cancel, \
    as, to, body, with, without";

/// Names and files that both blocks share.
pub(super) struct Names<'f> {
    pub(super) fields: FieldFiles<'f>,
    pub(super) keeps_messages: bool,
    marks: Vec<String>,
    meets: Vec<String>,
    counters: u8,
}

impl<'f> Names<'f> {
    pub(super) fn new(fields: FieldFiles<'f>) -> Self {
        Self { fields, keeps_messages: false, marks: Vec::new(), meets: Vec::new(), counters: 0 }
    }

    /// The number of a response time.
    pub(super) fn mark(&mut self, name: &str) -> Result<u8, String> {
        number(&mut self.marks, name, MARKS_MAX, "response times")
    }

    pub(super) fn give(self, scenario: &mut Scenario) {
        scenario.marks = self.marks;
        scenario.meets = self.meets;
        scenario.counters = self.counters;
        scenario.keeps_messages = self.keeps_messages;
        scenario.fields = self.fields.into_files();
    }
}

fn number(names: &mut Vec<String>, name: &str, max: usize, what: &str) -> Result<u8, String> {
    if name.is_empty() || name.len() > super::NAME_CHARS_MAX {
        let name = short(name);
        return Err(format!("`{name}`: expected a name of 1 to {} bytes", super::NAME_CHARS_MAX));
    }
    if let Some(at) = names.iter().position(|known| known == name) {
        return Ok(at as u8);
    }
    if names.len() == max {
        return Err(format!("more {what} than the limit of {max}"));
    }
    names.push(name.to_owned());
    Ok(names.len() as u8 - 1)
}

/// Where the dialog of the call stands at a place in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialog {
    /// A caller that sent no INVITE.
    None,
    /// A callee that gave no final response.
    Unanswered,
    /// A caller's INVITE at this step is answered.
    Invited(usize),
    Up,
    Over,
    /// Branches came here that left it differently.
    Unsure,
}

/// A loop or a branch that has not ended.
#[derive(Clone, Copy, Debug)]
enum Open {
    Repeat {
        line: u32,
        times: u32,
        to: usize,
    },
    /// The step that jumps to `otherwise`, and the dialog before it.
    Chance {
        line: u32,
        step: usize,
        before: Dialog,
    },
    /// The jump from the first branch to the end, and where that left the dialog.
    Otherwise {
        line: u32,
        step: usize,
        first: Dialog,
        first_ended: bool,
    },
}

/// One of the two blocks.
pub(super) struct Block {
    calls: bool,
    pub(super) steps: Vec<Step>,
    pub(super) dialog: Dialog,
    open: Vec<Open>,
    /// A step that takes modifiers.
    pub(super) last: Option<usize>,
    /// What follows cannot be reached: a `success` or the like stands before it.
    ended: bool,
    /// Marks that were started in this block.
    started: Vec<u8>,
}

impl Block {
    pub(super) fn new(calls: bool) -> Self {
        Self {
            calls,
            steps: Vec::new(),
            dialog: if calls { Dialog::None } else { Dialog::Unanswered },
            open: Vec::new(),
            last: None,
            ended: false,
            started: Vec::new(),
        }
    }

    pub(super) fn is_caller(&self) -> bool {
        self.calls
    }

    /// One line of the block.
    pub(super) fn line(
        &mut self,
        at: u32,
        verb: &str,
        words: &mut Words,
        names: &mut Names<'_>,
    ) -> Result<(), String> {
        if steps::is_modifier(verb) {
            return match self.last {
                Some(_) => steps::modifiers(self, Some(verb), words, names),
                None => Err(format!("`{verb}`: no request or response stands before it")),
            };
        }
        self.last = None;
        if self.steps.len() >= STEPS_MAX {
            return Err(format!("more steps than the limit of {STEPS_MAX}"));
        }
        match verb {
            "otherwise" => return words.end("the end of the line").and_then(|()| self.otherwise()),
            "end" => return words.end("the end of the line").and_then(|()| self.end_of(names)),
            _ if std::mem::take(&mut self.ended) => {
                return Err(format!("`{}` is never reached", short(verb)));
            }
            _ => {}
        }
        if steps::request(self, at, verb, words, names)?
            || steps::response(self, at, verb, words, names)?
        {
            return Ok(());
        }
        self.flow(at, verb, words, names)?;
        words.end("the end of the line")
    }

    fn flow(
        &mut self,
        at: u32,
        verb: &str,
        words: &mut Words,
        names: &mut Names<'_>,
    ) -> Result<(), String> {
        match verb {
            "wait" => self.steps.push(Step::Wait(words.span()?)),
            "await" => {
                let method = steps::method(words)?;
                let timeout = words.take("timeout").then(|| words.duration()).transpose()?;
                self.steps.push(Step::Await(Await { line: at, method, timeout }));
            }
            "meet" => self.meet(words, names)?,
            "mark" => {
                let mark = names.mark(words.next("a name")?)?;
                self.started.push(mark);
                self.steps.push(Step::Start(mark));
            }
            "lap" => {
                let name = words.next("a name")?.to_owned();
                let mark = names.mark(&name)?;
                if !self.started.contains(&mark) {
                    return Err(format!("`lap {0}` without `mark {0}` before it", short(&name)));
                }
                self.steps.push(Step::Stop(mark));
            }
            "repeat" | "chance" => self.open(at, verb, words)?,
            "success" => self.end_with(Outcome::Success),
            "refuse" => self.end_with(Outcome::Refused),
            "fail" => {
                let why = words.string("why the call has failed")?.to_owned();
                self.end_with(Outcome::Failure(why));
            }
            _ => return Err(format!("`{}`: expected {VERBS}", short(verb))),
        }
        Ok(())
    }

    fn meet(&mut self, words: &mut Words, names: &mut Names<'_>) -> Result<(), String> {
        if self.open.iter().any(|open| !matches!(open, Open::Repeat { .. })) {
            return Err("`meet` inside `chance`: every call must come to it".to_owned());
        }
        let name = super::name(words)?;
        let meet = number(&mut names.meets, &name, MEETS_MAX, "meeting points")?;
        if self.steps.contains(&Step::Meet(meet)) {
            return Err(format!("`meet {name}` stands twice"));
        }
        self.steps.push(Step::Meet(meet));
        Ok(())
    }

    fn end_with(&mut self, outcome: Outcome) {
        self.steps.push(Step::End(outcome));
        self.ended = true;
    }

    fn open(&mut self, line: u32, verb: &str, words: &mut Words) -> Result<(), String> {
        if self.open.len() >= NESTING_MAX {
            return Err(format!("`{verb}` within others beyond the limit of {NESTING_MAX}"));
        }
        // Opened even when its number is wrong, so that its `end` is not wrong too.
        let here = self.steps.len();
        if verb == "repeat" {
            let times = words.number("how often", 1, TURNS_MAX);
            let known = *times.as_ref().unwrap_or(&1);
            self.open.push(Open::Repeat { line, times: known, to: here });
            return times.map(|_| ());
        }
        self.open.push(Open::Chance { line, step: here, before: self.dialog });
        let share = words.percent();
        // The jump is the other way: over the branch.
        let millionths = ALWAYS - share.as_ref().unwrap_or(&ALWAYS);
        self.steps.push(Step::Chance { millionths, to: 0 });
        share.map(|_| ())
    }

    fn otherwise(&mut self) -> Result<(), String> {
        let Some(Open::Chance { line, step, before }) = self.open.last().copied() else {
            return Err("`otherwise` without `chance` before it".to_owned());
        };
        let jump = self.steps.len();
        self.steps.push(Step::Goto(0));
        self.settle(step);
        let first_ended = std::mem::take(&mut self.ended);
        let first = self.dialog;
        self.open.pop();
        self.open.push(Open::Otherwise { line, step: jump, first, first_ended });
        self.dialog = before;
        Ok(())
    }

    fn end_of(&mut self, names: &mut Names<'_>) -> Result<(), String> {
        let (first, first_ended) = match self.open.pop() {
            None => return Err("`end` without `repeat` or `chance` before it".to_owned()),
            Some(Open::Repeat { times, to, .. }) => {
                let depth = self.open.iter().filter(|open| matches!(open, Open::Repeat { .. }));
                let counter = depth.count() as u8;
                names.counters = names.counters.max(counter + 1);
                if to == self.steps.len() {
                    return Err("`repeat` without a step in it".to_owned());
                }
                self.steps.push(Step::Repeat { counter, times, to });
                return Ok(());
            }
            Some(Open::Chance { step, before, .. }) => {
                self.settle(step);
                (before, false)
            }
            Some(Open::Otherwise { step, first, first_ended, .. }) => {
                self.settle(step);
                (first, first_ended)
            }
        };
        self.dialog = match (first_ended, self.ended) {
            (true, _) => self.dialog,
            (_, true) => first,
            _ if first == self.dialog => first,
            _ => Dialog::Unsure,
        };
        self.ended &= first_ended;
        Ok(())
    }

    /// A jump goes to the next step.
    fn settle(&mut self, step: usize) {
        let here = self.steps.len();
        if let Some(Step::Goto(to) | Step::Chance { to, .. }) = self.steps.get_mut(step) {
            *to = here;
        }
    }

    /// Inside `repeat`.
    pub(super) fn is_in_loop(&self) -> bool {
        self.open.iter().any(|open| matches!(open, Open::Repeat { .. }))
    }

    /// The steps; says what has not ended.
    pub(super) fn end(mut self, names: &mut Names<'_>, troubles: &mut Troubles) -> Vec<Step> {
        for open in &self.open {
            let (line, verb) = match open {
                Open::Repeat { line, .. } => (*line, "repeat"),
                Open::Chance { line, .. } | Open::Otherwise { line, .. } => (*line, "chance"),
            };
            troubles.error(line, format!("`{verb}` without its `end`"));
        }
        for step in &mut self.steps {
            if let Step::Request(request @ Request { mark: None, .. }) = step {
                match names.mark(&steps::usual_mark(request)) {
                    Ok(mark) => request.mark = Some(mark),
                    Err(text) => troubles.error(request.line, text),
                }
            }
        }
        self.steps
    }
}
