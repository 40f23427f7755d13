//! What a response copies from its request (RFC 3261 §8.2.6.2): taken once, when the request comes.

use std::io::Write;
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
    let host = via.host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]"));
    let host = std::str::from_utf8(host.unwrap_or(via.host)).ok();
    let same = host.and_then(|host| host.parse().ok()) == Some(peer.ip());
    if (same && !wants_rport) || via.received.is_some() {
        return write::line(out, header.line);
    }
    let rest = header.value.get(via.value.len()..).unwrap_or_default();
    out.extend_from_slice(b"Via: ");
    match wants_rport.then(|| empty_rport(via.value)).flatten() {
        Some(end) => {
            out.extend_from_slice(&via.value[..end]);
            out.push(b'=');
            write::number(out, u64::from(peer.port()));
            out.extend_from_slice(&via.value[end..]);
        }
        None => out.extend_from_slice(via.value),
    }
    out.extend_from_slice(b";received=");
    write_ip(out, peer.ip());
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\r\n");
}

fn write_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            for (place, octet) in ip.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                write::number(out, octet.into());
            }
        }
        // Writing to a vector does not fail.
        IpAddr::V6(ip) => write!(out, "{ip}").unwrap_or_default(),
    }
}

/// Where an `rport` parameter without a value ends.
fn empty_rport(via: &[u8]) -> Option<usize> {
    let mut start = 0;
    for parameter in via.split(|&byte| byte == b';') {
        let end = start + parameter.len();
        if parameter.trim_ascii().eq_ignore_ascii_case(b"rport") {
            return Some(start + parameter.trim_ascii_end().len());
        }
        start = end + 1;
    }
    None
}
