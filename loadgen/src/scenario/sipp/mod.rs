//! Import of SIPp's XML scenarios: the common subset.
//!
//! What is not understood is said with its line: an error when it changes what goes over the wire
//! or how a call is judged, a warning when it does not. The file is hostile until read: bytes,
//! nodes and depth have limits, and entity declarations are refused.

mod action;
mod attributes;
mod import;
mod message;

use std::time::Duration;

use roxmltree::{Document, ParsingOptions};

use super::fields::FieldFiles;
use super::program::Scenario;
use super::trouble::{Trouble, Troubles};

/// Bytes of one file.
pub(crate) const SIPP_BYTES_MAX: usize = 1 << 20;
/// Elements, texts and comments of one file.
pub(crate) const SIPP_NODES_MAX: u32 = 20_000;
/// Bytes of one tag: a reader of XML compares each attribute with all others of its tag, and a tag of
/// a mebibyte takes it minutes.
pub(crate) const SIPP_TAG_BYTES_MAX: usize = 4096;
/// Elements within elements; SIPp's own go to four.
pub(crate) const SIPP_DEPTH_MAX: usize = 8;

/// Reads a SIPp scenario. `pause` is how long a `<pause/>` without a time lasts (SIPp's `-d`).
///
/// A file whose first message is sent becomes the caller, one whose first message is received the
/// callee; the other block is empty.
///
/// # Errors
/// Everything that is wrong or not understood, by line.
pub(crate) fn parse(
    file: &str,
    bytes: &[u8],
    fields: FieldFiles<'_>,
    pause: Duration,
) -> Result<(Scenario, Vec<Trouble>), Vec<Trouble>> {
    if bytes.len() > SIPP_BYTES_MAX {
        let text = format!("more than the limit of {SIPP_BYTES_MAX} bytes");
        return Err(Troubles::only(file, 0, text));
    }
    let text = decode(bytes);
    if let Some(at) = text.find("<!ENTITY") {
        let line = text[..at].matches('\n').count() as u32 + 1;
        return Err(Troubles::only(file, line, "entity declarations are not understood"));
    }
    if let Some(at) = giant_tag(&text) {
        let line = text[..at].matches('\n').count() as u32 + 1;
        let text = format!("a tag of more than the limit of {SIPP_TAG_BYTES_MAX} bytes");
        return Err(Troubles::only(file, line, text));
    }
    let options = ParsingOptions {
        // SIPp's files name a DTD; it is not read.
        allow_dtd: true,
        nodes_limit: SIPP_NODES_MAX,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(&text, options).map_err(|error| {
        let (line, text) = match error {
            roxmltree::Error::NodesLimitReached => {
                (0, format!("more elements and texts than the limit of {SIPP_NODES_MAX}"))
            }
            error => (error.pos().row, format!("not well-formed XML: {error}")),
        };
        Troubles::only(file, line, text)
    })?;
    import::import(file, &document, fields, pause)
}

/// Where a tag begins that is too long.
fn giant_tag(text: &str) -> Option<usize> {
    let mut at = 0;
    while let Some(open) = text[at..].find('<') {
        let start = at + open;
        let rest = &text[start..];
        let skipped = [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")]
            .iter()
            .find(|(open, _)| rest.starts_with(open));
        at = start
            + match skipped {
                Some((_, close)) => rest.find(close)? + close.len(),
                // What stands in it is looked at by itself.
                None if rest.starts_with("<!DOCTYPE") => 1,
                None => match tag_len(rest) {
                    len if len > SIPP_TAG_BYTES_MAX => return Some(start),
                    len => len,
                },
            };
    }
    None
}

/// Bytes up to the `>` that stands in no quotes, or all.
fn tag_len(tag: &str) -> usize {
    let mut quote = None;
    for (at, byte) in tag.bytes().enumerate() {
        match (byte, quote) {
            (b'>', None) => return at + 1,
            (b'"' | b'\'', None) => quote = Some(byte),
            (byte, Some(open)) if byte == open => quote = None,
            _ => {}
        }
    }
    tag.len()
}

/// UTF-8 where it is that, else ISO-8859-1, which SIPp's files claim to be.
fn decode(bytes: &[u8]) -> String {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

#[cfg(test)]
mod tests;
