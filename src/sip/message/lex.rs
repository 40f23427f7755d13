//! The small pieces of SIP's grammar: white space, tokens, numbers, lists, parameters.
//!
//! White space here is LWS of RFC 3261 §25.1 with its folds: within a header that
//! [`Lines`](super::lines::Lines) gave out, CR and LF occur in folds only.

use super::word::{find, first_of};

/// Space, tab, or part of a fold.
#[inline]
pub(super) const fn is_lws(byte: u8) -> bool {
    byte <= b' ' && matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A byte of a token (RFC 3261 §25.1).
pub(super) const fn is_token(byte: u8) -> bool {
    CLASS[byte as usize] & TOKEN != 0
}

/// True for one or more token bytes.
pub(super) fn is_token_text(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token(byte))
}

/// True when no byte is white space or a control character.
pub(super) fn is_one_word(text: &[u8]) -> bool {
    first_of(text, 0, b' ', [0x7f]).is_none()
}

/// True when no byte is white space, a control character, a bracket or a quote: none of them can
/// be in a URI (RFC 3261 §25.1).
pub(super) fn is_uri_text(text: &[u8]) -> bool {
    uri_text_end(text, 0) == text.len()
}

/// Where a text that can be in a URI ends.
pub(super) fn uri_text_end(bytes: &[u8], at: usize) -> usize {
    first_of(bytes, at, b' ', [0x7f, b'<', b'>', b'"']).unwrap_or(bytes.len())
}

/// The first position from `at` on that is not white space.
#[inline]
pub(super) fn skip_lws(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(|&byte| is_lws(byte)) {
        at += 1;
    }
    at
}

/// `bytes` without the white space around them.
pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let (start, end) = trimmed(bytes, 0, bytes.len());
    &bytes[start..end]
}

/// `start..end` of `bytes` without the white space around what lies there.
#[inline]
pub(super) fn trimmed(bytes: &[u8], start: usize, end: usize) -> (usize, usize) {
    let mut text = bytes.get(start..end).unwrap_or_default();
    if let [b' ', first, .., last] = text
        && *first > b' '
        && *last > b' '
    {
        return (start + 1, end);
    }
    while let [first, rest @ ..] = text
        && is_lws(*first)
    {
        text = rest;
    }
    let start = end - text.len();
    while let [rest @ .., last] = text
        && is_lws(*last)
    {
        text = rest;
    }
    (start, start + text.len())
}

/// A decimal number, digits only. `None` when it is something else or exceeds 64 bits.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// Where an address without brackets, or an unquoted display name, ends.
pub(super) fn address_end(bytes: &[u8], at: usize) -> usize {
    run(bytes, at, ADDRESS)
}

/// Where a host name or an IPv4 address ends.
pub(super) fn host_name_end(bytes: &[u8], at: usize) -> usize {
    run(bytes, at, HOST)
}

/// How many bytes from `at` on are decimal digits.
pub(super) fn digits_at(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len())
}

/// The position behind a quoted string whose opening quote is at `open`.
pub(super) fn quoted_end(bytes: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        let found = find(bytes, at, [b'"', b'\\'])?;
        if bytes[found] == b'"' {
            return Some(found + 1);
        }
        at = found + 2;
    }
}

/// The single values of a comma-separated header, trimmed, in order.
///
/// Commas in quoted strings and between `<` and `>` do not separate; empty elements are left out.
/// What follows an opening `"` or `<` that is never closed is one value.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Values<'a> {
    /// The values of `header`, the value of a whole header.
    pub fn new(header: &'a [u8]) -> Self {
        Self { rest: Some(header) }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let rest = self.rest?;
            let end = comma(rest);
            self.rest = end.and_then(|end| rest.get(end + 1..));
            let value = trim(&rest[..end.unwrap_or(rest.len())]);
            if !value.is_empty() {
                return Some(value);
            }
        }
    }
}

/// The first comma that separates values.
fn comma(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let found = find(bytes, at, [b',', b'"', b'<'])?;
        at = match bytes[found] {
            b',' => return Some(found),
            b'"' => quoted_end(bytes, found)?,
            _ => find(bytes, found + 1, [b'>'])? + 1,
        };
    }
}

/// `;name=value` parameters of a header (RFC 3261 §25.1, generic-param), white space allowed.
pub(super) struct Params<'a> {
    bytes: &'a [u8],
    at: usize,
    /// A comma ends the parameters instead of spoiling them.
    in_list: bool,
}

/// One parameter, `start..end` from its semicolon to its last byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param<'a> {
    /// Empty where two semicolons follow each other.
    pub(super) name: &'a [u8],
    /// With its quotes if it is quoted.
    pub(super) value: Option<&'a [u8]>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The parameters are malformed from here on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Malformed;

impl<'a> Params<'a> {
    /// Parameters that begin at `at`, behind what they belong to.
    pub(super) fn new(bytes: &'a [u8], at: usize, in_list: bool) -> Self {
        Self { bytes, at, in_list }
    }

    /// Where the last parameter ended; nothing but white space is left before the next comma or
    /// the end once [`next`](Self::next) has said so.
    pub(super) fn end(&self) -> usize {
        self.at
    }

    /// The next one; `Ok(None)` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Param<'a>>, Malformed> {
        let bytes = self.bytes;
        let start = skip_lws(bytes, self.at);
        match bytes.get(start) {
            Some(b';') => {}
            Some(b',') if self.in_list => return Ok(None),
            Some(_) => return Err(Malformed),
            None => return Ok(None),
        }
        let name_start = skip_lws(bytes, start + 1);
        let name_end = run(bytes, name_start, PARAM_NAME);
        let name = &bytes[name_start..name_end];
        let equals = skip_lws(bytes, name_end);
        if bytes.get(equals) != Some(&b'=') {
            self.at = if name.is_empty() { start + 1 } else { name_end };
            return Ok(Some(Param { name, value: None, start, end: self.at }));
        }
        if name.is_empty() {
            return Err(Malformed);
        }
        let value_start = skip_lws(bytes, equals + 1);
        let value_end = match bytes.get(value_start) {
            Some(b'"') => quoted_end(bytes, value_start).ok_or(Malformed)?,
            Some(_) | None => param_value_end(bytes, value_start),
        };
        self.at = value_end;
        let value = Some(&bytes[value_start..value_end]);
        Ok(Some(Param { name, value, start, end: value_end }))
    }
}

/// Where an unquoted value ends: at a separator. Wider than the grammar (a token or a host), since
/// deployed stacks put `=`, `/` and `@` into tags and branches.
#[inline]
fn param_value_end(bytes: &[u8], at: usize) -> usize {
    first_of(bytes, at, b' ', [0x7f, b';', b',', b'"', b'<', b'>']).unwrap_or(bytes.len())
}

/// The end of the run of bytes of `class` that begins at `at`, which is at most the length.
#[inline]
fn run(bytes: &[u8], at: usize, class: u8) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let len = rest.iter().position(|&byte| CLASS[byte as usize] & class == 0);
    at + len.unwrap_or(rest.len())
}

const TOKEN: u8 = 1;
/// What may stand in a parameter's name: all but separators.
const PARAM_NAME: u8 = 2;
/// What does not end an address without brackets, or the display name before one with them
/// (RFC 3261 §20.10: such an address ends before `;`, `,` and `?`).
const ADDRESS: u8 = 4;
/// A byte of a host name. The underscore is not in the grammar and in use.
const HOST: u8 = 8;

const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
        {
            class[byte] |= TOKEN;
        }
        if b > b' ' && b != 0x7f && !matches!(b, b';' | b',' | b'"' | b'<' | b'>' | b'=') {
            class[byte] |= PARAM_NAME;
        }
        if !matches!(b, b'<' | b';' | b',' | b'?' | b'"') {
            class[byte] |= ADDRESS;
        }
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_') {
            class[byte] |= HOST;
        }
        byte += 1;
    }
    class
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_and_brackets_do_not_separate_values() {
        let header = b"\"a, \\\"b\" <sip:x,y@h>;p=\",\" ,, <sip:z>\r\n ,w";
        let values: Vec<&[u8]> = Values::new(header).collect();
        assert_eq!(values, [&b"\"a, \\\"b\" <sip:x,y@h>;p=\",\""[..], b"<sip:z>", b"w"]);
    }

    #[test]
    fn numbers_do_not_wrap() {
        assert_eq!(number(b"0068"), Some(68));
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for text in ["", "-1", "+1", "1 ", "0x1", "18446744073709551616", "36893488147419103232"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn parameters_may_have_white_space_around_every_part() {
        let text = b" ;\r\n tag  =  \t98asjd8 ; lr;q = \"a;b\"";
        let mut params = Params::new(text, 0, false);
        let mut found = Vec::new();
        while let Some(param) = params.next().unwrap() {
            found.push((param.name, param.value));
        }
        assert_eq!(
            found,
            [(&b"tag"[..], Some(&b"98asjd8"[..])), (b"lr", None), (b"q", Some(b"\"a;b\"")),]
        );
    }
}
