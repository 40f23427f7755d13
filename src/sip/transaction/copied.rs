//! What a response copies from its request (RFC 3261 §8.2.6.2): taken once, when the request comes.

use std::net::{IpAddr, SocketAddr};

use crate::sip::kept::{Kept, Pool};
use crate::sip::message::{Header, Method, Name, View, is_secure, write};
use crate::sip::token::Token;

/// Headers of a request, as its responses have them.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Via, From, To, Call-ID and CSeq, then Record-Route.
    lines: Kept,
    marks: Marks,
}

/// Places in those lines, and what else of the request matters to its responses.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    /// Where a tag is put into To; `None` where it has one.
    tag: Option<u16>,
    /// Where Record-Route begins.
    routes: u16,
    method: Method,
    secure: bool,
}

impl Copied {
    /// What responses to `request`, which came from `peer`, are to have.
    pub(super) fn new(request: View<'_>, peer: SocketAddr, pool: &mut Pool) -> Self {
        let mut lines = pool.take_buffer();
        let marks = copy(&mut lines, request, peer);
        Self { lines: pool.keep_buffer(lines), marks }
    }

    /// Nothing is copied any more.
    pub(super) fn give_back(&mut self, pool: &mut Pool) {
        pool.give_back(std::mem::take(self).lines);
    }

    /// True when the request is to have no response any more.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn method(&self) -> Method {
        self.marks.method
    }

    /// True when the request was to a SIPS URI.
    pub(super) fn is_secure(&self) -> bool {
        self.marks.secure
    }

    /// Writes the head of a response, as far as the request gives it.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        status: u16,
        reason: &[u8],
        to_tag: Option<Token>,
    ) {
        write_head(out, &self.lines, self.marks, status, reason, to_tag);
    }
}

/// The same for a request of which nothing is kept. `scratch` is empty.
pub(super) fn write_once(
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    request: View<'_>,
    peer: SocketAddr,
    (status, reason): (u16, &[u8]),
    to_tag: Token,
) {
    let marks = copy(scratch, request, peer);
    write_head(out, scratch, marks, status, reason, Some(to_tag));
}

/// Record-Route only where a dialog may come of it (RFC 3261 §12.1.1).
fn write_head(
    out: &mut Vec<u8>,
    lines: &[u8],
    marks: Marks,
    status: u16,
    reason: &[u8],
    to_tag: Option<Token>,
) {
    write::status_line(out, status, reason);
    let makes_dialog = marks.method == Method::Invite && marks.tag.is_some();
    let lines = match makes_dialog && (101..300).contains(&status) {
        true => lines,
        false => &lines[..marks.routes.into()],
    };
    match (marks.tag, to_tag) {
        (Some(at), Some(tag)) => {
            let (before, after) = lines.split_at(at.into());
            out.extend_from_slice(before);
            out.extend_from_slice(b";tag=");
            out.extend_from_slice(&tag.to_bytes());
            out.extend_from_slice(after);
        }
        _ => out.extend_from_slice(lines),
    }
}

/// Appends the lines. A head has at most 16 KiB, to which a Via adds an address: offsets fit.
fn copy(out: &mut Vec<u8>, request: View<'_>, peer: SocketAddr) -> Marks {
    let wants_tag = request.is_outside_dialog();
    let mut marks = Marks {
        tag: None,
        routes: 0,
        method: request.method(),
        secure: is_secure(request.request_uri()),
    };
    let mut top = true;
    for header in request.headers() {
        match header.name {
            Name::Via if std::mem::take(&mut top) => write_top_via(out, request, &header, peer),
            Name::To if wants_tag => {
                write::header(out, "To", header.value);
                marks.tag = Some((out.len() - b"\r\n".len()) as u16);
            }
            Name::Via | Name::From | Name::To | Name::CallId | Name::CSeq => {
                write::line(out, header.line);
            }
            _ => {}
        }
    }
    marks.routes = out.len() as u16;
    if request.first(Name::RecordRoute).is_some() {
        for header in request.headers().filter(|header| header.name == Name::RecordRoute) {
            write::line(out, header.line);
        }
    }
    marks
}

/// The topmost Via with `received` where the sender's address is not what it says (RFC 3261
/// §18.2.1), and with both where it asks for `rport` (RFC 3581 §4).
pub(in crate::sip) fn write_top_via(
    out: &mut Vec<u8>,
    request: View<'_>,
    header: &Header<'_>,
    peer: SocketAddr,
) {
    let Some(via) = request.via() else { return write::line(out, header.line) };
    let wants_rport = via.rport == Some(None);
    let same = is_address(via.host, peer.ip());
    if (same && !wants_rport) || via.received.is_some() {
        return write::line(out, header.line);
    }
    let rest = header.value.get(via.value.len()..).unwrap_or_default();
    out.extend_from_slice(b"Via: ");
    match via.rport_end {
        Some(end) => {
            out.extend_from_slice(&via.value[..end]);
            out.push(b'=');
            write::number(out, u64::from(peer.port()));
            out.extend_from_slice(&via.value[end..]);
        }
        None => out.extend_from_slice(via.value),
    }
    out.extend_from_slice(b";received=");
    write_address(out, peer.ip());
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\r\n");
}

/// True when `host` is `address`, IPv6 in brackets or not.
fn is_address(host: &[u8], address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_dotted(host, address.octets()),
        IpAddr::V6(_) => {
            let inner = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]"));
            let host = std::str::from_utf8(inner.unwrap_or(host)).ok();
            host.and_then(|host| host.parse().ok()) == Some(address)
        }
    }
}

/// True for the one way in which these octets are written: without leading zeros.
fn is_dotted(mut text: &[u8], octets: [u8; 4]) -> bool {
    for (n, octet) in octets.into_iter().enumerate() {
        if n > 0 {
            let Some(rest) = text.strip_prefix(b".") else { return false };
            text = rest;
        }
        let digits = [b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10];
        let zeros = usize::from(octet < 100) + usize::from(octet < 10);
        let Some(rest) = text.strip_prefix(&digits[zeros..]) else { return false };
        text = rest;
    }
    text.is_empty()
}

/// Appends an address.
fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (n, octet) in address.octets().into_iter().enumerate() {
                if n > 0 {
                    out.push(b'.');
                }
                write::number(out, octet.into());
            }
        }
        IpAddr::V6(address) => out.extend_from_slice(address.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Head;

    #[test]
    fn an_address_is_known_by_its_text() {
        for address in ["0.0.0.0", "10.0.0.1", "9.99.100.255", "192.168.10.109"] {
            let known: IpAddr = address.parse().unwrap();
            assert!(is_address(address.as_bytes(), known));
            for other in [
                String::new(),
                format!("{address}."),
                format!("{address}0"),
                format!("0{address}"),
                format!("[{address}]"),
                address[1..].to_owned(),
                address[..address.len() - 1].to_owned(),
                address.replacen('.', "..", 1),
                address.replacen('.', ":", 1),
            ] {
                assert!(!is_address(other.as_bytes(), known), "{other} for {address}");
            }
        }
        let known: IpAddr = "2001:db8::1".parse().unwrap();
        assert!(is_address(b"[2001:DB8:0::1]", known) && is_address(b"2001:db8::1", known));
        assert!(!is_address(b"[2001:db8::1", known) && !is_address(b"[2001:db8::2]", known));
    }

    #[test]
    fn the_topmost_via_says_where_the_request_came_from() {
        let written = |via: &str, peer: &str| {
            let text = format!("OPTIONS sip:a SIP/2.0\r\nVia:{via}\r\n\r\n");
            let mut head = Head::new();
            head.read(text.as_bytes()).unwrap();
            let view = View::new(text.as_bytes(), &head);
            let mut out = Vec::new();
            let header = view.headers().next().unwrap();
            write_top_via(&mut out, view, &header, peer.parse().unwrap());
            String::from_utf8(out).unwrap().replace("\r\n", "")
        };
        let here = "10.20.0.1:5061";
        for (via, expected) in [
            (" SIP/2.0/TCP 10.20.0.1", "Via: SIP/2.0/TCP 10.20.0.1"),
            (" SIP/2.0/TCP h", "Via: SIP/2.0/TCP h;received=10.20.0.1"),
            ("   SIP/2.0/TCP h ; rport ;branch=z , SIP/2.0/UDP i", {
                "Via: SIP/2.0/TCP h ; rport=5061 ;branch=z;received=10.20.0.1 , SIP/2.0/UDP i"
            }),
            (
                " SIP/2.0/TCP 10.20.0.1;RPORT",
                "Via: SIP/2.0/TCP 10.20.0.1;RPORT=5061;received=10.20.0.1",
            ),
            (" SIP/2.0/TCP h;rport=9", "Via: SIP/2.0/TCP h;rport=9;received=10.20.0.1"),
            (" SIP/2.0/TCP h;rport;received=1.2.3.4", "Via: SIP/2.0/TCP h;rport;received=1.2.3.4"),
        ] {
            assert_eq!(written(via, here), expected, "{via}");
        }
        let v6 = written(" SIP/2.0/TCP h", "[2001:db8::7]:5060");
        assert_eq!(v6, "Via: SIP/2.0/TCP h;received=2001:db8::7");
    }
}
