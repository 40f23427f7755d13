//! Message texts with keywords in brackets, compiled once ([`super::keyword`]) and written for
//! each call.

use std::io::Write;

use memchr::memmem;

use super::fields::FieldFile;
use crate::message::{self, Field};

/// What the keywords of one message stand for. Everything is borrowed; what a scenario does not
/// use may be empty or zero.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Context<'a> {
    pub(crate) call_id: &'a [u8],
    /// Number of the call in the run, from 1.
    pub(crate) call_number: u64,
    /// Addresses without brackets; IPv6 gets them where SIPp writes them.
    pub(crate) local_ip: &'a str,
    pub(crate) local_port: u16,
    pub(crate) remote_ip: &'a str,
    pub(crate) remote_port: u16,
    pub(crate) media_ip: &'a str,
    pub(crate) media_port: u16,
    /// `UDP`, `TCP` or `TLS`.
    pub(crate) transport: &'a str,
    /// What all branches of the call begin with, magic cookie included; `[branch]` is this, `-`
    /// and `index`. It must change when a step is taken again, for branches to be new.
    pub(crate) branch: &'a [u8],
    /// [`Send::index`](super::program::Send::index).
    pub(crate) index: u32,
    pub(crate) cseq: u32,
    /// Value of the peer's tag; empty: none yet.
    pub(crate) peer_tag: &'a [u8],
    pub(crate) service: &'a [u8],
    /// The URI of the peer's Contact, kept by `rrs`.
    pub(crate) next_url: &'a [u8],
    /// The route set as a Route value, in the order to send it, kept by `rrs`.
    pub(crate) routes: &'a [u8],
    /// The last message received, whole.
    pub(crate) last: &'a [u8],
    pub(crate) pid: u32,
    /// Number of users; 0: calls come at a rate, written as SIPp's -1.
    pub(crate) users: u32,
    /// This call's user from 1; 0: none.
    pub(crate) user: u32,
    /// Milliseconds since the start of the run.
    pub(crate) clock: u64,
    /// A number that no other message of the run had.
    pub(crate) dynamic_id: u64,
    /// The files of the scenario, and this call's row in each.
    pub(crate) fields: &'a [FieldFile],
    pub(crate) rows: &'a [u32],
}

/// How often `[len]` may stand in one message.
pub(crate) const LENS_MAX: usize = 4;

/// A text, compiled; the default is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

/// A part of a template. A number is what is added to the keyword's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Literal(Vec<u8>),
    CallId,
    CallNumber,
    LocalIp,
    LocalIpType,
    LocalPort(i64),
    RemoteIp,
    RemotePort(i64),
    MediaIp,
    MediaIpType,
    MediaPort(i64),
    Transport,
    Branch(i64),
    Index(i64),
    Cseq(i64),
    Len(i64),
    Pid,
    Service,
    PeerTag,
    NextUrl,
    Routes,
    Clock,
    Version,
    Users,
    User,
    DynamicId,
    Last(Last),
    Field { file: u8, column: u16 },
}

/// What of the last message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// Name and value, several joined by commas.
    Header(Vec<u8>),
    /// SIPp's `[last_Request_URI]`: the URI of To.
    ToUri,
    Cseq(i64),
    Message,
}

/// What `[len]` is written as until the body is there; digits replace it from the right.
const LEN_PLACE: &[u8; 5] = b"     ";

impl Template {
    pub(crate) fn new(pieces: Vec<Piece>) -> Self {
        Self { pieces }
    }

    /// True when it writes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// A `[last_…]` keyword stands in it.
    pub(crate) fn uses_last(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Last(_)))
    }

    /// How many of its literals end a line.
    pub(crate) fn line_ends(&self) -> usize {
        let ends = |piece: &&Piece| matches!(piece, Piece::Literal(b) if b.ends_with(b"\r\n"));
        self.pieces.iter().filter(ends).count()
    }

    /// Adds the pieces of another template.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.pieces.append(&mut other.pieces);
    }

    /// Appends the text to `out`. Allocates only where `out` must grow.
    ///
    /// As SIPp does it: a line that would hold nothing because its keyword stands for nothing
    /// (`[routes]`, `[last_…]`, `[fieldN]`) is left out. `[len]` counts from the first empty line
    /// to the end and takes five columns.
    pub(crate) fn write(&self, context: &Context<'_>, out: &mut Vec<u8>) {
        let begin = out.len();
        let mut lens = [(0, 0); LENS_MAX];
        let mut lens_used = 0;
        let mut line_is_void = false;
        for piece in &self.pieces {
            if let Piece::Literal(bytes) = piece {
                out.extend_from_slice(if line_is_void { rest_of_void_line(bytes) } else { bytes });
                line_is_void = false;
            } else if let Piece::Len(offset) = piece {
                if let Some(len) = lens.get_mut(lens_used) {
                    *len = (out.len(), *offset);
                    lens_used += 1;
                }
                out.extend_from_slice(LEN_PLACE);
            } else {
                piece.write(context, out);
                line_is_void = piece.may_be_void() && out[begin..].last() == Some(&b'\n');
            }
        }
        let body = memmem::find(&out[begin..], b"\r\n\r\n").map_or(0, |at| {
            let head = begin + at + 4;
            out.len() - head
        });
        for (at, offset) in &lens[..lens_used] {
            fill_len(&mut out[*at..*at + LEN_PLACE.len()], body, *offset);
        }
    }
}

/// What of a literal is written after a line that holds nothing: not its blanks nor its end.
fn rest_of_void_line(bytes: &[u8]) -> &[u8] {
    let blanks = bytes.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let rest = &bytes[blanks..];
    rest.strip_prefix(b"\r\n").unwrap_or(rest)
}

fn fill_len(place: &mut [u8], body: usize, offset: i64) {
    let mut left = (body as i64).saturating_add(offset).clamp(0, 99_999) as u32;
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
}

impl Piece {
    fn may_be_void(&self) -> bool {
        matches!(self, Self::Last(_) | Self::Routes | Self::NextUrl | Self::Field { .. })
    }

    fn write(&self, context: &Context<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Literal(bytes) => out.extend_from_slice(bytes),
            Self::Len(_) => {}
            Self::CallId => out.extend_from_slice(context.call_id),
            Self::CallNumber => number(out, context.call_number),
            Self::LocalIp => host(out, context.local_ip),
            Self::LocalIpType => out.push(ip_type(context.local_ip)),
            Self::LocalPort(offset) => sum(out, context.local_port.into(), *offset),
            Self::RemoteIp => host(out, context.remote_ip),
            Self::RemotePort(offset) => sum(out, context.remote_port.into(), *offset),
            Self::MediaIp => out.extend_from_slice(context.media_ip.as_bytes()),
            Self::MediaIpType => out.push(ip_type(context.media_ip)),
            Self::MediaPort(offset) => sum(out, context.media_port.into(), *offset),
            Self::Transport => out.extend_from_slice(context.transport.as_bytes()),
            Self::Branch(offset) => {
                out.extend_from_slice(context.branch);
                out.push(b'-');
                sum(out, context.index.into(), *offset);
            }
            Self::Index(offset) => sum(out, context.index.into(), *offset),
            Self::Cseq(offset) => sum(out, context.cseq.into(), *offset),
            Self::Pid => number(out, context.pid.into()),
            Self::Service => out.extend_from_slice(context.service),
            Self::PeerTag if context.peer_tag.is_empty() => {}
            Self::PeerTag => {
                out.extend_from_slice(b";tag=");
                out.extend_from_slice(context.peer_tag);
            }
            Self::NextUrl => out.extend_from_slice(context.next_url),
            Self::Routes if context.routes.is_empty() => {}
            Self::Routes => {
                out.extend_from_slice(b"Route: ");
                out.extend_from_slice(context.routes);
            }
            Self::Clock => number(out, context.clock),
            Self::Version => out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes()),
            Self::Users if context.users == 0 => out.extend_from_slice(b"-1"),
            Self::Users => number(out, context.users.into()),
            Self::User => number(out, context.user.into()),
            Self::DynamicId => number(out, context.dynamic_id),
            Self::Last(what) => what.write(context.last, out),
            Self::Field { file, column } => {
                let file = usize::from(*file);
                let row = context.rows.get(file).copied().unwrap_or(0);
                if let Some(fields) = context.fields.get(file) {
                    fields.write(row, *column, out);
                }
            }
        }
    }
}

impl Last {
    fn write(&self, last: &[u8], out: &mut Vec<u8>) {
        let first_line = memchr::memchr(b'\n', last).map_or(last.len(), |at| at + 1);
        let block = &last[first_line..];
        match self {
            Self::Message => out.extend_from_slice(last),
            Self::Header(name) => write_header(block, name, out),
            Self::ToUri => {
                let to = message::headers(block).find(|(n, _)| message::field_of(n) == Field::To);
                out.extend_from_slice(to.map_or(&[], |(_, value)| uri(value)));
            }
            Self::Cseq(offset) => {
                let field =
                    message::headers(block).find(|(n, _)| message::field_of(n) == Field::CSeq);
                let value = field.map_or(&b""[..], |(_, value)| value);
                let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
                if let Some(cseq) = message::number(&value[..digits]) {
                    sum(out, cseq.into(), *offset);
                }
            }
        }
    }
}

/// The fields of this name as one line without its end; nothing when there is none.
fn write_header(block: &[u8], name: &[u8], out: &mut Vec<u8>) {
    let known = message::field_of(name);
    let fits = |other: &[u8]| {
        other.eq_ignore_ascii_case(name)
            || (known != Field::Other && message::field_of(other) == known)
    };
    let mut first = true;
    for (name, value) in message::headers(block).filter(|(other, _)| fits(other)) {
        if first {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
        } else {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(value);
        first = false;
    }
}

/// The URI of a To value, with or without angle brackets.
fn uri(value: &[u8]) -> &[u8] {
    let (inside, end) = match memchr::memchr(b'<', value) {
        Some(open) => (&value[open + 1..], b'>'),
        None => (value, b';'),
    };
    message::trim(&inside[..memchr::memchr(end, inside).unwrap_or(inside.len())])
}

fn ip_type(address: &str) -> u8 {
    if address.contains(':') { b'6' } else { b'4' }
}

fn host(out: &mut Vec<u8>, address: &str) {
    let six = address.contains(':');
    out.extend(six.then_some(b'['));
    out.extend_from_slice(address.as_bytes());
    out.extend(six.then_some(b']'));
}

fn number(out: &mut Vec<u8>, value: u64) {
    let written = write!(out, "{value}");
    debug_assert!(written.is_ok(), "a Vec takes every write");
}

/// A value and an offset; below zero is zero.
fn sum(out: &mut Vec<u8>, value: u64, offset: i64) {
    number(out, value.saturating_add_signed(offset));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::fields::FieldFiles;
    use crate::scenario::keyword::{Dialect, compile};

    fn template(text: &str) -> Template {
        let read = |_: &str, _: usize| Err("no file".to_owned());
        compile(text, Dialect::Sipp, &mut FieldFiles::new(&read)).unwrap()
    }

    fn written(text: &str, context: &Context<'_>) -> String {
        let mut out = b"before\n".to_vec();
        template(text).write(context, &mut out);
        String::from_utf8(out.split_off(7)).unwrap()
    }

    #[test]
    fn ipv6_addresses_have_brackets_where_a_uri_needs_them() {
        let context = Context {
            local_ip: "::1",
            remote_ip: "2001:db8::2",
            media_ip: "::3",
            ..Context::default()
        };
        let text = written("[local_ip] [remote_ip] IP[media_ip_type] [media_ip]", &context);
        assert_eq!(text, "[::1] [2001:db8::2] IP6 ::3");
    }

    #[test]
    fn length_counts_the_body_in_every_place() {
        let body = "x".repeat(1234);
        let text = written(&format!("A: [len]\r\nB: [len-4]\r\n\r\n{body}"), &Context::default());
        assert!(text.starts_with("A:  1234\r\nB:  1230\r\n\r\n"), "{text}");
        assert_eq!(written("A: [len]\r\n\r\n", &Context::default()), "A:     0\r\n\r\n");
        assert_eq!(written("A: [len-9]\r\n\r\n", &Context::default()), "A:     0\r\n\r\n");
    }

    #[test]
    fn line_that_stands_for_nothing_is_left_out_and_the_body_stays_apart() {
        let text = "A: b\r\n[routes]\r\n[last_X:]  \r\nC: [last_X:]\r\n[routes]\r\n\r\nbody";
        assert_eq!(written(text, &Context::default()), "A: b\r\nC: \r\n\r\nbody");
    }

    #[test]
    fn headers_of_the_last_message_are_found_in_any_form() {
        let last = b"SIP/2.0 200 OK\r\nv: one\r\nVIA : two,\r\n three\r\nt: sip:a@b;tag=1\r\n\
            cseq: 7 INVITE\r\n\r\nX-Body: no\r\n";
        let context = Context { last, ..Context::default() };
        assert_eq!(written("[last_Via:]", &context), "v: one, two,\r\n three");
        assert_eq!(written("[last_Request_URI]", &context), "sip:a@b");
        assert_eq!(written("[last_cseq_number-8]", &context), "0");
        assert_eq!(written("[last_X-Body]", &context), "");
        assert_eq!(written("[last_message]", &context).as_bytes(), last);
    }

    #[test]
    fn any_last_message_can_be_asked_for_anything() {
        let text = "[last_Via:][last_Request_URI][last_cseq_number][last_CSeq:][last_message]";
        for last in [&b""[..], b"\n", b"A", b"A b SIP/2.0\r\nTo", b"x\nTo:<\nCSeq:99999999999 A\n"]
        {
            written(text, &Context { last, ..Context::default() });
        }
    }

    #[test]
    fn written_again_it_takes_no_new_memory() {
        let template = template("A [call_number] [cseq+1] [len] [last_Via:]\r\n\r\n[clock_tick]");
        let last = b"A b SIP/2.0\r\nVia: x\r\n\r\n";
        let context = Context { call_number: u64::MAX, last, ..Context::default() };
        let mut out = Vec::new();
        template.write(&context, &mut out);
        let place = out.as_ptr();
        out.clear();
        template.write(&context, &mut out);
        assert_eq!(out.as_ptr(), place);
    }
}
