//! What is wrong with a file, and where.

use std::fmt;

/// More of them in one file are not listed.
pub(crate) const TROUBLES_MAX: usize = 50;

/// An error or a warning about a line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) file: String,
    /// From 1; 0 is the file as a whole.
    pub(crate) line: u32,
    pub(crate) text: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(out, "{}: {}", self.file, self.text),
            line => write!(out, "{}:{line}: {}", self.file, self.text),
        }
    }
}

/// Errors and warnings about one file, as they are found.
#[derive(Debug)]
pub(crate) struct Troubles {
    file: String,
    errors: Vec<Trouble>,
    warnings: Vec<Trouble>,
}

impl Troubles {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), errors: Vec::new(), warnings: Vec::new() }
    }

    /// The file cannot be played.
    pub(crate) fn error(&mut self, line: u32, text: impl Into<String>) {
        if self.errors.len() < TROUBLES_MAX {
            self.errors.push(Trouble { file: self.file.clone(), line, text: text.into() });
        }
    }

    /// It can be played, but not all of it is understood.
    pub(crate) fn warning(&mut self, line: u32, text: impl Into<String>) {
        if self.warnings.len() < TROUBLES_MAX {
            self.warnings.push(Trouble { file: self.file.clone(), line, text: text.into() });
        }
    }

    pub(crate) fn is_bad(&self) -> bool {
        !self.errors.is_empty()
    }

    /// `value` and the warnings, or the errors in the order of their lines.
    ///
    /// # Errors
    /// When [`error`](Self::error) was called.
    pub(crate) fn end<T>(mut self, value: T) -> Result<(T, Vec<Trouble>), Vec<Trouble>> {
        self.errors.sort_by_key(|trouble| trouble.line);
        self.warnings.sort_by_key(|trouble| trouble.line);
        if self.errors.is_empty() { Ok((value, self.warnings)) } else { Err(self.errors) }
    }

    /// One error that stops the reading of the file.
    pub(crate) fn only(file: &str, line: u32, text: impl Into<String>) -> Vec<Trouble> {
        vec![Trouble { file: file.to_owned(), line, text: text.into() }]
    }
}

/// At most 40 characters of a word, for a message: what a bad file holds may be long.
pub(crate) fn short(word: &str) -> String {
    const SHOWN: usize = 40;
    let mut shown: String = word.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if word.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
