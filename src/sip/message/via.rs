//! Via (RFC 3261 §20.42; `rport`: RFC 3581).

use super::lex::{Params, digits_at, is_token_text, number, skip_lws, trim};
use super::uri::host_len;
use crate::sip::Token;

/// One value of a Via header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// This one value, without white space around it.
    pub value: &'a [u8],
    /// The transport as written: `TCP`, `TLS`, `UDP`, …
    pub transport: &'a [u8],
    /// The host of sent-by; an IPv6 address keeps its brackets.
    pub host: &'a [u8],
    /// The port of sent-by.
    pub port: Option<u16>,
    /// Names the transaction; `None` in messages of RFC 2543.
    pub branch: Option<&'a [u8]>,
    /// The address that the request came from; an IPv6 address may have brackets.
    pub received: Option<&'a [u8]>,
    /// `Some(None)` asks for the port that the request came from, `Some(Some(_))` tells it.
    pub rport: Option<Option<u16>>,
    /// Where in `value` an `rport` without a value ends.
    pub(in crate::sip) rport_end: Option<usize>,
    /// The sender takes requests on the connection that it opened (RFC 5923 §5).
    pub alias: bool,
}

/// What the branches of RFC 3261 begin with (§8.1.1.7).
pub const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

impl<'a> Via<'a> {
    /// Reads the first value of a Via header. White space and folds may be around each part.
    pub fn parse(header: &'a [u8]) -> Option<Self> {
        let at = match header {
            [b'S', b'I', b'P', b'/', b'2', b'.', b'0', b'/', ..] => 8,
            _ => protocol_end(header)?,
        };
        let start = skip_lws(header, at);
        let transport_end = start + header[start..].iter().position(|&byte| byte <= b' ')?;
        let transport = &header[start..transport_end];
        let host_start = skip_lws(header, transport_end);
        let host_end = host_start + host_len(header.get(host_start..)?)?;
        if !is_token_text(transport) {
            return None;
        }
        let (port, at) = port(header, host_end)?;
        let mut via = Self {
            value: &[],
            transport,
            host: &header[host_start..host_end],
            port,
            branch: None,
            received: None,
            rport: None,
            rport_end: None,
            alias: false,
        };
        let mut params = Params::new(header, at, true);
        while let Some(param) = params.next().ok()? {
            // RFC 4475 §3.1.2.1: semicolons with nothing between them spoil a Via.
            match param.name {
                [] => return None,
                name if name.eq_ignore_ascii_case(b"branch") => {
                    // Of two branches another element may take the other one.
                    let branch = param.value.filter(|branch| !branch.is_empty())?;
                    if via.branch.replace(branch).is_some() {
                        return None;
                    }
                }
                name if name.eq_ignore_ascii_case(b"received") => via.received = param.value,
                name if name.eq_ignore_ascii_case(b"rport") => {
                    via.rport = Some(param.value.and_then(port_number));
                    via.rport_end = param.value.is_none().then_some(param.end);
                }
                name if name.eq_ignore_ascii_case(b"alias") => via.alias = true,
                _ => {}
            }
        }
        via.value = trim(&header[..params.end()]);
        let before = skip_lws(header, 0);
        via.rport_end = via.rport_end.map(|end| end - before);
        Some(via)
    }

    /// What follows the magic cookie of the branch, when we made it.
    pub fn token(&self) -> Option<Token> {
        let (cookie, rest) = self.branch?.split_at_checked(MAGIC_COOKIE.len())?;
        if cookie.eq_ignore_ascii_case(MAGIC_COOKIE) { Token::parse(rest) } else { None }
    }
}

/// The position behind the second slash of `SIP / 2.0 / transport`.
fn protocol_end(header: &[u8]) -> Option<usize> {
    let first = header.iter().position(|&byte| byte == b'/')?;
    let (protocol, rest) = (&header[..first], &header[first + 1..]);
    let second = rest.iter().position(|&byte| byte == b'/')?;
    let is_sip = trim(protocol).eq_ignore_ascii_case(b"SIP") && trim(&rest[..second]) == b"2.0";
    is_sip.then_some(first + second + 2)
}

/// The port behind a host, if there is one, and the position behind it.
fn port(bytes: &[u8], host_end: usize) -> Option<(Option<u16>, usize)> {
    let colon = skip_lws(bytes, host_end);
    if bytes.get(colon) != Some(&b':') {
        return Some((None, host_end));
    }
    let start = skip_lws(bytes, colon + 1);
    let end = start + digits_at(bytes, start);
    Some((Some(port_number(bytes.get(start..end)?)?), end))
}

/// A port as a number.
pub(super) fn port_number(digits: &[u8]) -> Option<u16> {
    u16::try_from(number(digits)?).ok()
}
