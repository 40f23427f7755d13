//! From the elements of a SIPp file to steps.

use std::collections::HashMap;
use std::time::Duration;

use roxmltree::{Document, Node};

use super::attributes::{self, Lines, flag};
use super::message;
use super::{SIPP_DEPTH_MAX, action};
use crate::scenario::fields::FieldFiles;
use crate::scenario::keyword::{self, Dialect};
use crate::scenario::program::{
    ALWAYS, Awaited, MARKS_MAX, Outcome, Recv, STEPS_MAX, Scenario, Send, Step, Strict,
};
use crate::scenario::trouble::{Trouble, Troubles, short};

/// What the elements read so far have made.
struct Import<'a, 'f> {
    lines: &'a Lines,
    troubles: &'a mut Troubles,
    fields: FieldFiles<'f>,
    pause: Duration,
    steps: Vec<Step>,
    marks: Vec<String>,
    /// Marks that some step starts; the others run from the start of the call.
    started: Vec<u8>,
    /// Where each label stands.
    labels: HashMap<String, usize>,
    /// Jumps to settle: the step, the label, the line, and whether it is the one of a timeout.
    jumps: Vec<Jump>,
    /// SIPp's number of the next message.
    index: u32,
    /// The first message goes out.
    calls: Option<bool>,
    /// An optional receive, by its line, whose mandatory one has not come yet.
    optional: Option<u32>,
    keeps_messages: bool,
}

struct Jump {
    step: usize,
    label: String,
    line: u32,
    on_timeout: bool,
}

pub(super) fn import(
    file: &str,
    document: &Document<'_>,
    fields: FieldFiles<'_>,
    pause: Duration,
) -> Result<(Scenario, Vec<Trouble>), Vec<Trouble>> {
    let mut troubles = Troubles::new(file);
    let lines = Lines::new(document.input_text());
    let root = document.root_element();
    if root.tag_name().name() != "scenario" {
        let text = format!("<{}>: expected <scenario>", short(root.tag_name().name()));
        return Err(Troubles::only(file, lines.of(root), text));
    }
    if let Some(deep) = too_deep(root, 1) {
        let text = format!("elements within elements beyond the limit of {SIPP_DEPTH_MAX}");
        return Err(Troubles::only(file, lines.of(deep), text));
    }
    let mut import = Import {
        lines: &lines,
        troubles: &mut troubles,
        fields,
        pause,
        steps: Vec::new(),
        marks: Vec::new(),
        started: Vec::new(),
        labels: HashMap::new(),
        jumps: Vec::new(),
        index: 0,
        calls: None,
        optional: None,
        keeps_messages: false,
    };
    for node in root.children() {
        import.node(node);
    }
    let scenario = import.end(root);
    troubles.end(scenario)
}

/// An element that is too deep.
fn too_deep<'a, 'i>(node: Node<'a, 'i>, depth: usize) -> Option<Node<'a, 'i>> {
    if depth > SIPP_DEPTH_MAX {
        return Some(node);
    }
    node.children().filter(Node::is_element).find_map(|child| too_deep(child, depth + 1))
}

/// Which message a `<recv>` waits for.
fn awaited(node: Node<'_, '_>) -> Result<Awaited, String> {
    match (node.attribute("request"), node.attribute("response")) {
        (Some(method), None) if !method.trim().is_empty() => {
            Ok(Awaited::Request(method.trim().to_owned()))
        }
        (None, Some(status)) => {
            let read = status.trim().parse().ok().filter(|s| (100..700).contains(s));
            let bad = || format!("response=\"{}\": expected 100 to 699", short(status));
            Ok(Awaited::Response(read.ok_or_else(bad)?))
        }
        _ => Err("expected either request=\"METHOD\" or response=\"STATUS\"".to_owned()),
    }
}

/// The first CDATA section of an element as it stands in the file, and where. The tree joins it
/// with the blanks around it, which do not belong to the message.
fn cdata<'a>(node: Node<'a, '_>) -> Option<(&'a str, usize)> {
    const OPEN: &str = "<![CDATA[";
    let from = node.range().start;
    let source = &node.document().input_text()[node.range()];
    let inside = source.find(OPEN)? + OPEN.len();
    let end = source[inside..].find("]]>")?;
    Some((&source[inside..inside + end], from + inside))
}

impl Import<'_, '_> {
    fn node(&mut self, node: Node<'_, '_>) {
        let at = self.lines.of(node);
        if node.is_text() && node.text().is_some_and(|text| !text.trim().is_empty()) {
            let text = short(node.text().unwrap_or_default().trim());
            self.troubles.warning(at, format!("text between elements is ignored: `{text}`"));
        }
        if !node.is_element() {
            return;
        }
        if self.steps.len() >= STEPS_MAX {
            if self.steps.len() == STEPS_MAX {
                self.troubles.error(at, format!("more steps than the limit of {STEPS_MAX}"));
                self.steps.push(Step::End(Outcome::Success));
            }
            return;
        }
        let done = match node.tag_name().name() {
            "send" => self.counted(node, Self::send),
            "recv" => self.counted(node, Self::recv),
            "pause" => self.counted(node, Self::pause),
            "nop" => self.counted(node, Self::nop),
            "timewait" => self.counted(node, Self::timewait),
            "label" => self.label(node),
            // Declarations and tables for SIPp's own figures.
            "Reference"
            | "Global"
            | "User"
            | "ResponseTimeRepartition"
            | "CallLengthRepartition" => Ok(()),
            "sendCmd" | "recvCmd" => {
                Err("commands between SIPp processes (3PCC) are not understood".to_owned())
            }
            _ => Err("unknown element; understood are send, recv, pause, nop, timewait, label, \
                Reference, Global, User, ResponseTimeRepartition, CallLengthRepartition"
                .to_owned()),
        };
        if let Err(text) = done {
            self.troubles.error(at, format!("<{}>: {text}", short(node.tag_name().name())));
        }
    }

    /// An element that SIPp numbers as a message.
    fn counted(
        &mut self,
        node: Node<'_, '_>,
        element: fn(&mut Self, Node<'_, '_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let receives = node.tag_name().name() == "recv";
        if let (false, Some(line)) = (receives, self.optional.take()) {
            let text = "<recv optional>: a <recv> that is not optional must follow before \
                anything else does";
            self.troubles.error(line, text);
        }
        for child in node.children().filter(Node::is_element) {
            match child.tag_name().name() {
                "action" => action::check(child, self.lines, self.troubles),
                name => {
                    let text = format!("<{}>: unknown element; understood is action", short(name));
                    self.troubles.error(self.lines.of(child), text);
                }
            }
        }
        let done = element(self, node);
        self.index += 1;
        done
    }

    fn send(&mut self, node: Node<'_, '_>) -> Result<(), String> {
        attributes::check(node, &["retrans", "lost"], self.lines, self.troubles);
        let (raw, first) = cdata(node).ok_or("the message must stand in <![CDATA[ ]]>")?;
        let first = self.lines.at(first);
        let cleaned = message::clean(raw);
        let kind = message::kind(&cleaned.text)?;
        self.calls.get_or_insert(true);
        let compiled = keyword::compile(&cleaned.text, Dialect::Sipp, &mut self.fields);
        let template = compiled.map_err(|(at, text)| {
            let line = first + cleaned.skipped + cleaned.text[..at].matches('\n').count() as u32;
            if line == self.lines.of(node) { text } else { format!("in line {line}: {text}") }
        })?;
        self.keeps_messages |= template.uses_last();
        let (start, stop) = self.marks(node)?;
        let step = Send {
            line: self.lines.of(node),
            index: self.index,
            template,
            kind,
            retransmit: attributes::time(node, "retrans")?.filter(|time| !time.is_zero()),
            lost: attributes::lost(node)?,
            start,
            stop,
            next: self.next(node)?,
            chance: attributes::chance(node)?,
        };
        self.steps.push(Step::Send(step));
        Ok(())
    }

    fn recv(&mut self, node: Node<'_, '_>) -> Result<(), String> {
        const OWN: &[&str] = &[
            "request",
            "response",
            "optional",
            "timeout",
            "ontimeout",
            "rrs",
            "auth",
            "lost",
            "regexp_match",
        ];
        attributes::check(node, OWN, self.lines, self.troubles);
        let what = awaited(node)?;
        if flag(node, "regexp_match")? {
            return Err("regexp_match: patterns for methods are not understood".to_owned());
        }
        if flag(node, "auth")? {
            self.troubles.warning(self.lines.of(node), "<recv auth>: challenges are not answered");
        }
        if node.attribute("optional") == Some("global") {
            return Err("optional=\"global\" is not understood".to_owned());
        }
        self.calls.get_or_insert(false);
        let optional = flag(node, "optional")?;
        self.optional = optional.then(|| self.lines.of(node));
        let (start, stop) = self.marks(node)?;
        let timeout = attributes::time(node, "timeout")?;
        self.timeout_jump(node, timeout.is_some())?;
        let step = Recv {
            line: self.lines.of(node),
            index: self.index,
            what,
            optional,
            timeout: timeout.map(|time| (time, None)),
            lost: attributes::lost(node)?,
            start,
            stop,
            next: self.next(node)?,
            chance: attributes::chance(node)?,
            routes: flag(node, "rrs")?,
        };
        self.steps.push(Step::Recv(step));
        Ok(())
    }

    fn timeout_jump(&mut self, node: Node<'_, '_>, timed: bool) -> Result<(), String> {
        let Some(label) = node.attribute("ontimeout") else { return Ok(()) };
        if !timed {
            return Err("ontimeout without timeout".to_owned());
        }
        let (step, label) = (self.steps.len(), label.to_owned());
        self.jumps.push(Jump { step, label, line: self.lines.of(node), on_timeout: true });
        Ok(())
    }

    fn pause(&mut self, node: Node<'_, '_>) -> Result<(), String> {
        attributes::check(node, attributes::PAUSE, self.lines, self.troubles);
        let span = attributes::pause(node, self.pause)?;
        self.start_and_stop(node)?;
        self.steps.push(Step::Wait(span));
        self.jump(node)
    }

    fn nop(&mut self, node: Node<'_, '_>) -> Result<(), String> {
        attributes::check(node, &[], self.lines, self.troubles);
        self.start_and_stop(node)?;
        self.jump(node)
    }

    fn timewait(&mut self, node: Node<'_, '_>) -> Result<(), String> {
        attributes::check(node, &["milliseconds"], self.lines, self.troubles);
        let time = attributes::time(node, "milliseconds")?.unwrap_or_default();
        self.steps.push(Step::Linger(time));
        Ok(())
    }

    fn label(&mut self, node: Node<'_, '_>) -> Result<(), String> {
        let id = node.attribute("id").ok_or("id is missing")?;
        match self.labels.insert(id.to_owned(), self.steps.len()) {
            None => Ok(()),
            Some(_) => Err(format!("id=\"{}\" stands twice", short(id))),
        }
    }

    /// A jump as a step of its own, for steps that have no field for it.
    fn jump(&mut self, node: Node<'_, '_>) -> Result<(), String> {
        let chance = attributes::chance(node)?.unwrap_or(ALWAYS);
        if self.next(node)?.is_some() {
            self.steps.push(match chance {
                ALWAYS => Step::Goto(0),
                millionths => Step::Chance { millionths, to: 0 },
            });
        }
        Ok(())
    }

    /// Notes the jump of the step that comes next; the place follows at the end.
    fn next(&mut self, node: Node<'_, '_>) -> Result<Option<usize>, String> {
        let Some(label) = node.attribute("next") else {
            return match node.attribute("chance") {
                Some(_) => Err("chance without next".to_owned()),
                None => Ok(None),
            };
        };
        let (step, label) = (self.steps.len(), label.to_owned());
        self.jumps.push(Jump { step, label, line: self.lines.of(node), on_timeout: false });
        Ok(Some(0))
    }

    fn start_and_stop(&mut self, node: Node<'_, '_>) -> Result<(), String> {
        let (start, stop) = self.marks(node)?;
        self.steps.extend(stop.map(Step::Stop));
        self.steps.extend(start.map(Step::Start));
        Ok(())
    }

    /// The response times that a step starts and stops.
    fn marks(&mut self, node: Node<'_, '_>) -> Result<(Option<u8>, Option<u8>), String> {
        let start = self.mark(node, "start_rtd")?;
        if let Some(start) = start.filter(|start| !self.started.contains(start)) {
            self.started.push(start);
        }
        Ok((start, self.mark(node, "rtd")?))
    }

    fn mark(&mut self, node: Node<'_, '_>, attribute: &str) -> Result<Option<u8>, String> {
        let name = match node.attribute(attribute) {
            None | Some("false") => return Ok(None),
            Some("true") => "1",
            Some(name) => name,
        };
        let name = format!("rtd {}", short(name));
        if let Some(at) = self.marks.iter().position(|mark| *mark == name) {
            return Ok(Some(at as u8));
        }
        if self.marks.len() == MARKS_MAX {
            return Err(format!("more response times than the limit of {MARKS_MAX}"));
        }
        self.marks.push(name);
        Ok(Some(self.marks.len() as u8 - 1))
    }

    /// Settles what could not be settled before the last element.
    fn end(mut self, root: Node<'_, '_>) -> Scenario {
        if let Some(line) = self.optional {
            self.troubles.error(line, "<recv optional>: a <recv> that is not optional must follow");
        }
        if self.calls.is_none() && !self.troubles.is_bad() {
            self.troubles.error(self.lines.of(root), "<scenario>: no <send> and no <recv>");
        }
        self.settle_jumps();
        self.start_the_rest();
        let calls = self.calls.unwrap_or(true);
        let (caller, callee) =
            if calls { (self.steps, Vec::new()) } else { (Vec::new(), self.steps) };
        let name = root.attribute("name").unwrap_or("sipp").trim();
        Scenario {
            name: short(name),
            about: "imported from SIPp".to_owned(),
            caller,
            callee,
            marks: self.marks,
            fields: self.fields.into_files(),
            keeps_messages: self.keeps_messages,
            strict: Strict { caller: calls, callee: !calls },
            ..Scenario::default()
        }
    }

    fn settle_jumps(&mut self) {
        for jump in &self.jumps {
            let Some(to) = self.labels.get(&jump.label).copied() else {
                let text = format!("no <label id=\"{}\"> in this file", short(&jump.label));
                self.troubles.error(jump.line, text);
                continue;
            };
            match self.steps.get_mut(jump.step) {
                Some(Step::Goto(place) | Step::Chance { to: place, .. }) => *place = to,
                Some(Step::Recv(recv)) if jump.on_timeout => {
                    recv.timeout = recv.timeout.map(|(time, _)| (time, Some(to)));
                }
                Some(Step::Recv(Recv { next, .. }) | Step::Send(Send { next, .. })) => {
                    *next = Some(to);
                }
                // The step of the jump was an error.
                Some(_) | None => {}
            }
        }
    }

    /// A response time that nothing starts runs from the start of the call.
    fn start_the_rest(&mut self) {
        let count = self.marks.len() as u8;
        let rest: Vec<_> = (0..count).filter(|mark| !self.started.contains(mark)).collect();
        let shift = |place: &mut usize| *place += rest.len();
        for step in &mut self.steps {
            match step {
                Step::Goto(to) | Step::Chance { to, .. } => shift(to),
                Step::Send(send) => send.next.iter_mut().for_each(shift),
                Step::Recv(recv) => {
                    recv.next.iter_mut().for_each(shift);
                    recv.timeout.iter_mut().flat_map(|(_, to)| to).for_each(shift);
                }
                _ => {}
            }
        }
        self.steps.splice(0..0, rest.iter().map(|mark| Step::Start(*mark)));
    }
}
