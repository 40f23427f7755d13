//! SIP and SIPS URIs (RFC 3261 §19.1).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::lex::{host_name_end, is_uri_text};
use super::via::port_number;
use super::word::find;
use crate::target::Transport;

/// A `sip` or `sips` URI, as written: escapes are not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// `sip` or `sips`, in whatever case.
    pub scheme: &'a [u8],
    /// The user, without password; it may contain `;`, `?` and `/`.
    pub user: Option<&'a [u8]>,
    /// The host; an IPv6 address keeps its brackets.
    pub host: &'a [u8],
    /// The port.
    pub port: Option<u16>,
    /// What follows the first `;` after the host, up to the headers.
    pub params: &'a [u8],
    /// What follows the `?`.
    pub headers: &'a [u8],
}

impl<'a> Uri<'a> {
    /// Reads a URI. `None` when it is malformed or has another scheme.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let colon = find(text, 0, [b':'])?;
        let (scheme, rest) = (&text[..colon], &text[colon + 1..]);
        if !scheme.eq_ignore_ascii_case(b"sip") && !scheme.eq_ignore_ascii_case(b"sips") {
            return None;
        }
        if !is_uri_text(rest) {
            return None;
        }
        let (user, rest) = match find(rest, 0, [b'@']) {
            Some(at) => (Some(user(&rest[..at])?), &rest[at + 1..]),
            None => (None, rest),
        };
        // Elsewhere `@` must be escaped: with two of them, who says which one ends the user?
        if find(rest, 0, [b'@']).is_some() {
            return None;
        }
        let (rest, headers) = split(rest, b'?');
        let (hostport, params) = split(rest, b';');
        let (host, port) = host_and_port(hostport)?;
        Some(Self { scheme, user, host, port, params, headers })
    }

    /// The URI parameter `name`, in any case: `Some(None)` when it has no value.
    pub fn param(&self, name: &str) -> Option<Option<&'a [u8]>> {
        let mut rest = self.params;
        loop {
            let (param, after) = rest.split_at(find(rest, 0, [b';']).unwrap_or(rest.len()));
            if let Some((found, value)) = param.split_at_checked(name.len())
                && matches!(value.first(), None | Some(b'='))
                && found.eq_ignore_ascii_case(name.as_bytes())
            {
                return Some(value.get(1..));
            }
            rest = after.get(1..)?;
        }
    }

    /// The user as a number to look up, escapes decoded (RFC 3261 §19.1.4); empty when there is none or it is
    /// no text.
    pub fn number(&self) -> Cow<'a, str> {
        let user = self.user.unwrap_or_default();
        if memchr::memchr(b'%', user).is_none() {
            return std::str::from_utf8(user).unwrap_or_default().into();
        }
        let mut decoded = Vec::with_capacity(user.len());
        let mut rest = user;
        while let Some((&byte, after)) = rest.split_first() {
            let escaped = (byte == b'%').then(|| after.split_first_chunk::<2>()).flatten();
            let value = escaped.and_then(|(digits, after)| Some((hex(digits)?, after)));
            let (byte, after) = value.unwrap_or((byte, after));
            decoded.push(byte);
            rest = after;
        }
        String::from_utf8(decoded).unwrap_or_default().into()
    }

    /// True for `sips`.
    pub fn is_secure(&self) -> bool {
        self.scheme.len() == 4
    }

    /// What it is to be reached over, when it says so: SIPS means TLS (RFC 3261 §26.2.2).
    pub fn transport(&self) -> Option<Transport> {
        if self.is_secure() {
            return Some(Transport::Tls);
        }
        self.param("transport").flatten().and_then(Transport::parse)
    }

    /// The host, when it is an address.
    pub fn ip(&self) -> Option<IpAddr> {
        ip(self.host)
    }

    /// The host and port, when the host is an address.
    pub fn socket_addr(&self, default_port: u16) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip()?, self.port.unwrap_or(default_port)))
    }
}

/// True for a SIPS URI, and for what begins with one.
pub fn is_secure(uri: &[u8]) -> bool {
    uri.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"sips:"))
}

/// The address `host`, IPv6 in brackets.
fn ip(host: &[u8]) -> Option<IpAddr> {
    match host {
        [b'[', address @ .., b']'] => {
            let address: Ipv6Addr = std::str::from_utf8(address).ok()?.parse().ok()?;
            Some(IpAddr::V6(address))
        }
        _ => {
            let address: Ipv4Addr = std::str::from_utf8(host).ok()?.parse().ok()?;
            Some(IpAddr::V4(address))
        }
    }
}

/// The byte that two hexadecimal digits stand for.
fn hex(&[high, low]: &[u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// The user of userinfo, which must not be empty.
fn user(userinfo: &[u8]) -> Option<&[u8]> {
    let (user, _password) = split(userinfo, b':');
    (!user.is_empty()).then_some(user)
}

/// What is before the first `separator`, and what is after it.
fn split(text: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match find(text, 0, [separator]) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

fn host_and_port(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let host_end = host_len(text)?;
    match &text[host_end..] {
        [] => Some((text, None)),
        [b':', port @ ..] => Some((&text[..host_end], Some(port_number(port)?))),
        _ => None,
    }
}

/// Bytes of the host that `text` begins with.
pub(super) fn host_len(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'[') {
        let len = host_name_end(text, 0);
        return (len > 0).then_some(len);
    }
    let close = text.iter().position(|&byte| byte == b']')?;
    let is_ipv6 = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    (close > 1 && text[1..close].iter().all(is_ipv6)).then_some(close + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_uri_are_found() {
        let uri =
            Uri::parse(b"SIPS:al;ice?x:pw@[2001:db8::9]:5061;transport=tcp;LR;ttl=1?a=b").unwrap();
        assert!(uri.is_secure());
        assert_eq!(uri.user, Some(&b"al;ice?x"[..]));
        assert_eq!(uri.host, b"[2001:db8::9]");
        assert_eq!(uri.port, Some(5061));
        assert_eq!(uri.param("Transport"), Some(Some(&b"tcp"[..])));
        assert_eq!(uri.param("lr"), Some(None));
        assert_eq!(uri.param("maddr"), None);
        assert_eq!(uri.headers, b"a=b");
        assert_eq!(uri.socket_addr(1), Some("[2001:db8::9]:5061".parse().unwrap()));
    }

    #[test]
    fn only_addresses_have_a_socket_address() {
        let addr = |text: &str| Uri::parse(text.as_bytes()).unwrap().socket_addr(5060);
        assert_eq!(addr("sip:192.0.2.1"), Some("192.0.2.1:5060".parse().unwrap()));
        assert_eq!(addr("sip:x@192.0.2.1:7"), Some("192.0.2.1:7".parse().unwrap()));
        assert_eq!(addr("sip:example.com"), None);
        assert_eq!(addr("sip:192.0.2.256"), None);
    }

    #[test]
    fn escapes_in_a_number_are_decoded() {
        let number = |text: &str| Uri::parse(text.as_bytes()).unwrap().number().into_owned();
        assert_eq!(number("sip:%37001@h"), "7001");
        assert_eq!(number("sip:a%6C%6Cice@h"), "allice");
        assert_eq!(number("sip:100%@h"), "100%");
        assert_eq!(number("sip:%2@h"), "%2");
        assert_eq!(number("sip:%zz%41@h"), "%zzA");
        assert_eq!(number("sip:%ff@h"), "", "no text");
        assert_eq!(number("sip:h"), "");
    }

    #[test]
    fn malformed_uris_are_none() {
        for text in [
            "",
            "sip",
            "sip:",
            ":x",
            "tel:+1",
            "sip:@h",
            "sip::pw@h",
            "sip:a@",
            "sip:a@b@c",
            "sip:h:",
            "sip:h:65536",
            "sip:h:x",
            "sip:h :1",
            "sip:[::1",
            "sip:[]",
            "sip:[x]",
            "sip:a b@h",
            "sip:<h>",
            "sip:h/x",
            " sip:h",
            "sip:h\"",
        ] {
            assert_eq!(Uri::parse(text.as_bytes()), None, "{text}");
        }
    }
}
