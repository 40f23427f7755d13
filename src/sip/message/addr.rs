//! Addresses with parameters: From, To, Contact, Route, Record-Route (RFC 3261 §20.10).

use super::lex::{
    Param, Params, address_end, is_uri_text, quoted_end, skip_lws, trim, uri_text_end,
};
use super::uri::Uri;
use crate::sip::Token;

/// `"Display name" <uri>;parameters`, or `uri;parameters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The whole value, without white space around it.
    pub value: &'a [u8],
    /// The display name as written, with its quotes; empty when there is none.
    pub display: &'a [u8],
    /// The URI, without brackets. In a value without brackets, parameters are not the URI's.
    pub uri: &'a [u8],
    /// The `tag` parameter; never empty.
    pub tag: Option<&'a [u8]>,
    /// Offset in `value` of what follows the address: nothing, or parameters.
    params: usize,
    /// Where in `value` the tag parameter lies, from its semicolon on.
    tag_start: usize,
    tag_end: usize,
}

impl<'a> NameAddr<'a> {
    /// Reads one value, such as one that [`Values`](super::Values) gave out.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        Self::parse_value(value, false)
    }

    /// Reads the first value of a comma-separated header.
    pub(super) fn parse_first(header: &'a [u8]) -> Option<Self> {
        Self::parse_value(header, true)
    }

    fn parse_value(bytes: &'a [u8], in_list: bool) -> Option<Self> {
        let bytes = trim(bytes);
        let address = Address::read(bytes)?;
        let mut params = Params::new(bytes, address.end, in_list);
        let (mut tag, mut tag_start, mut tag_end) = (None, 0, 0);
        while let Some(param) = params.next().ok()? {
            if !param.name.eq_ignore_ascii_case(b"tag") {
                continue;
            }
            // With two tags, or an unreadable one, two elements may see two dialogs.
            let text = param.value.filter(|text| !text.is_empty() && text[0] != b'"')?;
            if tag.replace(text).is_some() {
                return None;
            }
            (tag_start, tag_end) = (param.start, param.end);
        }
        let value = trim(&bytes[..params.end()]);
        let Address { display, uri, end } = address;
        Some(Self { value, display, uri, tag, params: end, tag_start, tag_end })
    }

    /// The value without its tag parameter, as the parts before and after it.
    pub fn without_tag(&self) -> (&'a [u8], &'a [u8]) {
        match self.tag {
            Some(_) => (trim(&self.value[..self.tag_start]), &self.value[self.tag_end..]),
            None => (self.value, &[]),
        }
    }

    /// The URI, read. `None` when it is not a `sip` or `sips` URI.
    pub fn uri(&self) -> Option<Uri<'a>> {
        Uri::parse(self.uri)
    }

    /// The header parameter `name`, in any case: `Some(None)` when it has no value. A quoted value
    /// keeps its quotes.
    pub fn param(&self, name: &str) -> Option<Option<&'a [u8]>> {
        let mut params = Params::new(self.value, self.params, false);
        while let Ok(Some(param)) = params.next() {
            let Param { name: found, value, .. } = param;
            if found.eq_ignore_ascii_case(name.as_bytes()) {
                return Some(value);
            }
        }
        None
    }

    /// The tag, when we made it.
    pub fn token(&self) -> Option<Token> {
        Token::parse(self.tag?)
    }
}

/// The part before the parameters.
struct Address<'a> {
    display: &'a [u8],
    uri: &'a [u8],
    end: usize,
}

impl<'a> Address<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut at = 0;
        if bytes.first() == Some(&b'"') {
            at = skip_lws(bytes, quoted_end(bytes, 0)?);
            if bytes.get(at) != Some(&b'<') {
                return None;
            }
        }
        at = address_end(bytes, at);
        match bytes.get(at) {
            Some(b'<') => {
                let open = at + 1;
                let close = uri_text_end(bytes, open);
                if bytes.get(close) != Some(&b'>') {
                    return None;
                }
                let display = trim(&bytes[..at]);
                let uri = &bytes[open..close];
                has_scheme(uri).then_some(Self { display, uri, end: close + 1 })
            }
            Some(b'?' | b'"') => None,
            Some(_) | None => {
                let uri = trim(&bytes[..at]);
                is_absolute(uri).then_some(Self { display: &[], uri, end: at })
            }
        }
    }
}

/// True for `scheme:anything` (RFC 3261 §25.1, absoluteURI, and what is like it).
pub(super) fn is_absolute(uri: &[u8]) -> bool {
    has_scheme(uri) && is_uri_text(uri)
}

/// True for what begins with a scheme, a colon and something else.
fn has_scheme(uri: &[u8]) -> bool {
    if let [b's', b'i', b'p', b':', _, ..] = uri {
        return true;
    }
    let is_scheme = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    let scheme_len = uri.iter().position(|byte| !is_scheme(byte)).unwrap_or(uri.len());
    uri.first().is_some_and(u8::is_ascii_alphabetic)
        && uri.get(scheme_len) == Some(&b':')
        && scheme_len + 1 < uri.len()
}
