//! What is wrong with a file, and where.

use std::fmt;

/// Problems of one file that are kept; further ones are counted.
pub const PROBLEMS_MAX: usize = 1000;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line, from 1; `None` when it concerns the whole file.
    pub line: Option<usize>,
    /// What was found and what was expected.
    pub text: String,
}

/// Errors or warnings about one file, in the order of its lines.
///
/// Written one a line: `holdfast.toml:14: text`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    file: String,
    list: Vec<Problem>,
    omitted: usize,
}

impl Problems {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), list: Vec::new(), omitted: 0 }
    }

    pub(super) fn one(file: &str, line: Option<usize>, text: String) -> Self {
        let mut problems = Self::new(file);
        problems.add(line, text);
        problems
    }

    pub(super) fn add(&mut self, line: Option<usize>, text: String) {
        self.add_with(|| Problem { line, text });
    }

    /// Adds what `problem` says, which is not asked when it would only be counted.
    pub(super) fn add_with(&mut self, problem: impl FnOnce() -> Problem) {
        if self.list.len() < PROBLEMS_MAX {
            self.list.push(problem());
        } else {
            self.omitted += 1;
        }
    }

    pub(super) fn sort(&mut self) {
        // Stable: problems of one line stay in the order in which they were found.
        self.list.sort_by_key(|problem| problem.line);
    }

    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The problems, at most [`PROBLEMS_MAX`].
    pub fn list(&self) -> &[Problem] {
        &self.list
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}", self.file)?;
            if let Some(line) = problem.line {
                write!(f, ":{line}")?;
            }
            write!(f, ": {}", problem.text)?;
        }
        if self.omitted > 0 {
            write!(f, "\n{}: {} more like these", self.file, self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The text of a file and where its lines begin.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    starts: Vec<u32>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at as u32 + 1)).collect();
        Self { text, starts }
    }

    /// The line of the byte at `offset`, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start as usize <= offset)
    }

    /// The bytes of a span as written, cut where they are long, without control characters.
    pub(super) fn quote(&self, span: std::ops::Range<usize>) -> String {
        let text = self.text.get(span).unwrap_or_default();
        let mut quoted: String = text
            .chars()
            .take(QUOTED_CHARS_MAX)
            .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
            .collect();
        if text.chars().nth(QUOTED_CHARS_MAX).is_some() {
            quoted.push('…');
        }
        quoted
    }

    /// The line of the byte at `offset`, as written.
    pub(super) fn quote_line(&self, offset: usize) -> String {
        let line = self.line(offset);
        let start = self.starts[line - 1] as usize;
        let end = self.starts.get(line).map_or(self.text.len(), |next| *next as usize);
        let text = self.text.get(start..end).unwrap_or_default();
        let indent = text.len() - text.trim_start().len();
        self.quote(start + indent..start + text.trim_end().len().max(indent))
    }
}

const QUOTED_CHARS_MAX: usize = 80;
