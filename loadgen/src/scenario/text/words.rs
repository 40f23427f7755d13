//! Lines of an own scenario, as words.

use crate::scenario::span::{self, Span};
use crate::scenario::trouble::short;

/// One word, or a text in double quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) quoted: bool,
}

/// Cuts a line into words. `#` begins a comment; in quotes `\"`, `\\` and `\n` (CRLF) are known.
///
/// # Errors
/// A quote that does not end, or a character that cannot stand there.
pub(super) fn split(line: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        match first {
            '#' => break,
            '"' => {
                let (text, after) = quoted(&rest[1..])?;
                if !after.is_empty() && !after.starts_with(char::is_whitespace) {
                    return Err(format!("`{}`: a blank must follow the quote", short(after)));
                }
                words.push(Word { text, quoted: true });
                rest = after.trim_start();
            }
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                if word.contains('"') {
                    let word = short(word);
                    return Err(format!("`{word}`: a quote must stand at the start of a word"));
                }
                words.push(Word { text: word.to_owned(), quoted: false });
                rest = after.trim_start();
            }
        }
    }
    Ok(words)
}

/// The text up to the closing quote, and what follows it.
fn quoted(rest: &str) -> Result<(String, &str), String> {
    let mut text = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((text, &rest[at + 1..])),
            '\\' => match chars.next() {
                Some((_, '"')) => text.push('"'),
                Some((_, '\\')) => text.push('\\'),
                Some((_, 'n')) => text.push_str("\r\n"),
                Some((_, other)) => {
                    let other = other.escape_debug();
                    return Err(format!("`\\{other}`: allowed after \\ are \", \\ and n"));
                }
                None => break,
            },
            char if char.is_control() && char != '\t' => {
                return Err("a control character in quotes".to_owned());
            }
            char => text.push(char),
        }
    }
    Err(format!("`\"{}`: the closing quote is missing", short(rest)))
}

/// The words of a line, taken one after the other.
pub(super) struct Words {
    words: Vec<Word>,
    at: usize,
}

impl Words {
    pub(super) fn new(words: Vec<Word>) -> Self {
        Self { words, at: 0 }
    }

    /// The next word without quotes, left where it is; `None` at the end or before a quote.
    pub(super) fn peek(&self) -> Option<&str> {
        self.words.get(self.at).filter(|word| !word.quoted).map(|word| word.text.as_str())
    }

    /// Takes the next word when it is this one.
    pub(super) fn take(&mut self, word: &str) -> bool {
        let is = self.peek() == Some(word);
        self.at += usize::from(is);
        is
    }

    /// Goes over the next word.
    pub(super) fn skip(&mut self) {
        self.at += 1;
    }

    /// Takes the next word, quoted or not.
    ///
    /// # Errors
    /// There is none; `what` says what was expected.
    pub(super) fn next(&mut self, what: &str) -> Result<&str, String> {
        let word = self.words.get(self.at).ok_or_else(|| format!("expected {what} at the end"))?;
        self.at += 1;
        Ok(&word.text)
    }

    /// Takes the next word, which must be in quotes.
    pub(super) fn string(&mut self, what: &str) -> Result<&str, String> {
        match self.words.get(self.at) {
            Some(word) if word.quoted => {
                self.at += 1;
                Ok(&word.text)
            }
            Some(word) => Err(format!("`{}`: expected {what} in double quotes", short(&word.text))),
            None => Err(format!("expected {what} in double quotes at the end")),
        }
    }

    /// Takes the next word if it is in quotes.
    pub(super) fn optional_string(&mut self) -> Option<&str> {
        let word = self.words.get(self.at).filter(|word| word.quoted)?;
        self.at += 1;
        Some(&word.text)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.words.len()
    }

    /// Nothing may be left.
    pub(super) fn end(&self, allowed: &str) -> Result<(), String> {
        match self.words.get(self.at) {
            None => Ok(()),
            Some(word) => Err(format!("`{}`: expected {allowed}", short(&word.text))),
        }
    }

    pub(super) fn duration(&mut self) -> Result<std::time::Duration, String> {
        span::duration(self.next("a time")?)
    }

    pub(super) fn span(&mut self) -> Result<Span, String> {
        let rest: Vec<_> = self.words.iter().skip(self.at).map(|word| word.text.as_str()).collect();
        let (span, left) = Span::parse(&rest)?;
        self.at = self.words.len() - left.len();
        Ok(span)
    }

    /// A whole number in a range.
    pub(super) fn number(&mut self, what: &str, low: u32, high: u32) -> Result<u32, String> {
        let word = self.next(what)?;
        let value = word.parse().ok().filter(|value| (low..=high).contains(value));
        value.ok_or_else(|| format!("`{}`: expected {what}, {low} to {high}", short(word)))
    }

    /// `30%` or `0.5%`, in millionths.
    pub(super) fn percent(&mut self) -> Result<u32, String> {
        let word = self.next("a share like 30%")?;
        let share = word.strip_suffix('%').and_then(|digits| digits.parse::<f64>().ok());
        let share = share.filter(|share| *share > 0.0 && *share <= 100.0);
        let millionths = share.map(|share| (share * 10_000.0).round() as u32).filter(|n| *n > 0);
        let text = format!("`{}`: expected a share above 0% and up to 100%", short(word));
        millionths.ok_or(text)
    }
}
