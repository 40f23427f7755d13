//! What is written: a forwarded request, and a response on its way back (RFC 3261 §16.6, §16.7).

use std::net::SocketAddr;

use super::route::{Plan, loop_hash, names_us};
use crate::options::Options;
use crate::sip::dialog::{hops_left, write_via};
use crate::sip::message::{Head, Method, Name, Via, View, is_secure, write};
use crate::sip::token::{Token, hex_text};
use crate::sip::transaction::write_top_via;
use crate::target::Transport;

/// The parameter of our Via that says what was forwarded.
const LOOP: &[u8] = b";loop=";

/// How a request is forwarded.
pub(super) struct Forward<'a> {
    pub(super) plan: &'a Plan<'a>,
    pub(super) branch: Token,
    /// Of the next hop.
    pub(super) transport: Transport,
    /// Where the request came from.
    pub(super) peer: Option<(SocketAddr, Transport)>,
}

/// A request as it goes on: our Via, a hop less, the routes that are left, and for a request that may begin a
/// dialog our Record-Route; everything else as it came.
pub(super) fn request(
    out: &mut Vec<u8>,
    options: &Options,
    request: View<'_>,
    forward: &Forward<'_>,
) {
    let Forward { plan, branch, transport, peer } = forward;
    write::request_line(out, request.method_bytes(), plan.uri);
    write_own_via(out, options, *transport, *branch, loop_hash(request));
    out.extend_from_slice(b"Max-Forwards: ");
    write::number(out, u64::from(hops_left(request).saturating_sub(1)));
    out.extend_from_slice(b"\r\n");
    if begins_dialog(request) {
        let here = peer.map_or(*transport, |(_, transport)| transport);
        let secure = is_secure(request.request_uri());
        // The side that the answer comes from first (RFC 5658 §4).
        write_record_route(out, options, *transport, secure);
        if here != *transport {
            write_record_route(out, options, here, secure);
        }
    }
    for route in plan.routes.of(request) {
        write::header(out, "Route", route);
    }
    if let Some(uri) = plan.last_route {
        out.extend_from_slice(b"Route: <");
        out.extend_from_slice(uri);
        out.extend_from_slice(b">\r\n");
    }
    let mut top = true;
    for header in request.headers() {
        match (header.name, peer) {
            (Name::Via, Some((peer, _))) if std::mem::take(&mut top) => {
                write_top_via(out, request, &header, *peer);
            }
            (Name::Route | Name::MaxForwards | Name::ContentLength, _) => {}
            _ => write::line(out, header.line),
        }
    }
    write::body(out, request.body());
}

/// A request that was forwarded, for another target: another branch, the rest as it was. False when it cannot be
/// read.
pub(super) fn again(
    out: &mut Vec<u8>,
    options: &Options,
    forwarded: &[u8],
    branch: Token,
    transport: Transport,
) -> bool {
    let mut head = Head::new();
    if head.read(forwarded).is_err() {
        return false;
    }
    let request = View::new(forwarded, &head);
    let said = request.via().and_then(|via| loop_of(&via));
    write::request_line(out, request.method_bytes(), request.request_uri());
    write_own_via(out, options, transport, branch, said.unwrap_or(0));
    // Ours is the first header.
    for header in request.headers().skip(1) {
        write::line(out, header.line);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(request.body());
    true
}

/// A response without our Via (RFC 3261 §16.7 step 3).
pub(super) fn response(out: &mut Vec<u8>, response: View<'_>) {
    write::status_line(out, response.status(), response.reason());
    for via in response.values(Name::Via).skip(1) {
        write::header(out, "Via", via);
    }
    for header in response.headers() {
        match header.name {
            Name::Via | Name::ContentLength => {}
            _ => write::line(out, header.line),
        }
    }
    write::body(out, response.body());
}

/// True when the request was here before, and nothing that matters has changed (RFC 3261 §16.3 step 4).
pub(super) fn has_looped(options: &Options, request: View<'_>) -> bool {
    let mut hash = None;
    let said = |via: &&[u8]| memchr::memmem::find(via, LOOP).is_some();
    request.values(Name::Via).filter(said).filter_map(Via::parse).any(|via| {
        let transport = Transport::parse(via.transport).unwrap_or_default();
        names_us(options, via.host, via.port, transport)
            && loop_of(&via).is_some_and(|said| said == *hash.get_or_insert(loop_hash(request)))
    })
}

fn loop_of(via: &Via<'_>) -> Option<u64> {
    let at = memchr::memmem::find(via.value, LOOP)? + LOOP.len();
    let digits = via.value.get(at..at + 16)?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn write_own_via(
    out: &mut Vec<u8>,
    options: &Options,
    transport: Transport,
    branch: Token,
    hash: u64,
) {
    write_via(out, options.sent_by(transport), transport, branch);
    // Behind the branch, before the end of the line.
    out.truncate(out.len() - 2);
    out.extend_from_slice(LOOP);
    out.extend_from_slice(&hex_text(hash));
    out.extend_from_slice(b"\r\n");
}

fn write_record_route(out: &mut Vec<u8>, options: &Options, transport: Transport, secure: bool) {
    out.extend_from_slice(if secure { b"Record-Route: <sips:" } else { b"Record-Route: <sip:" });
    out.extend_from_slice(options.sent_by(transport).as_bytes());
    if !secure {
        out.extend_from_slice(b";transport=");
        out.extend_from_slice(transport.in_uri().as_bytes());
    }
    out.extend_from_slice(b";lr>\r\n");
}

fn begins_dialog(request: View<'_>) -> bool {
    matches!(request.method(), Method::Invite | Method::Subscribe | Method::Refer)
        && request.is_outside_dialog()
}
