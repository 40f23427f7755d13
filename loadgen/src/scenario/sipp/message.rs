//! The text of a `<send>`: its lines as SIPp sends them, and what it is.

use crate::scenario::program::Kind;
use crate::scenario::trouble::short;

/// A message ready to compile.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cleaned {
    pub(super) text: String,
    /// How many lines of the element were left out before the first.
    pub(super) skipped: u32,
}

/// SIPp's rules: blanks around lines go, empty lines around the message too; lines end with CRLF.
/// A message without a body gets its empty line; one with a body ends with one CRLF when any line
/// end stood after it.
pub(super) fn clean(raw: &str) -> Cleaned {
    let body = raw.trim_start();
    let skipped = raw[..raw.len() - body.len()].matches('\n').count() as u32;
    let kept = body.trim_end();
    let ended = body[kept.len()..].contains('\n');
    let lines: Vec<&str> = kept.lines().map(str::trim).collect();
    let mut text = lines.join("\r\n");
    if !lines.contains(&"") {
        text.push_str("\r\n\r\n");
    } else if ended {
        text.push_str("\r\n");
    }
    Cleaned { text, skipped }
}

/// What the first line says.
///
/// # Errors
/// It is neither a request nor a status line, or its method or status is a keyword.
pub(super) fn kind(text: &str) -> Result<Kind, String> {
    let line = text.lines().next().unwrap_or_default();
    let bad = || {
        format!(
            "`{}`: expected a request line (METHOD URI SIP/2.0) or a status line (SIP/2.0 200 OK), \
             method and status not as keywords",
            short(line)
        )
    };
    let mut words = line.split_ascii_whitespace();
    let first = words.next().ok_or_else(bad)?;
    if first == "SIP/2.0" {
        let status = words.next().and_then(|word| word.parse().ok());
        return status.filter(|s| (100..700).contains(s)).map(Kind::Response).ok_or_else(bad);
    }
    let is_token = first.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.!%*+".contains(&b));
    if is_token && line.ends_with(" SIP/2.0") && words.count() >= 2 {
        Ok(Kind::Request(first.to_owned()))
    } else {
        Err(bad())
    }
}
