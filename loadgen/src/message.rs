//! Reads SIP messages off a byte stream: tolerant, borrowed, one pass over the lines.
//!
//! It takes what a user agent must take (RFC 3261 §7.3): any case, compact names, folded lines,
//! bare LF, blanks around the colon. It keeps only what the generator asks for.

use memchr::{memchr, memchr2};

/// Longer messages are a broken peer: the connection is closed.
pub(crate) const MESSAGE_BYTES_MAX: usize = 65_535;

/// Methods that the generator tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Other,
}

/// The first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Request(Method),
    Response(u16),
}

/// One message; what is absent is empty or zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// The whole message as it came.
    pub(crate) raw: &'a [u8],
    pub(crate) start: Start,
    /// All header lines, without the first line and the empty one.
    pub(crate) headers: &'a [u8],
    pub(crate) body: &'a [u8],
    pub(crate) call_id: &'a [u8],
    pub(crate) from: &'a [u8],
    pub(crate) to: &'a [u8],
    /// `branch` of the topmost Via.
    pub(crate) branch: &'a [u8],
    pub(crate) cseq: u32,
    pub(crate) cseq_method: Method,
    /// The URI of the first Contact.
    pub(crate) contact: &'a [u8],
    /// None when it is absent or no number.
    pub(crate) max_forwards: Option<u32>,
    /// Lines of Route and of Record-Route.
    pub(crate) routes: u16,
    pub(crate) record_routes: u16,
}

impl<'a> Message<'a> {
    /// The method of a request; the version of a response.
    pub(crate) fn method_name(&self) -> &'a [u8] {
        &self.raw[..memchr(b' ', self.raw).unwrap_or(0)]
    }
}

/// What the front of a buffer is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Frame<'a> {
    /// More bytes are needed.
    Partial,
    /// Line ends between messages, so many bytes (RFC 5626 §3.5.1); true: a ping wants its pong.
    Blank(usize, bool),
    /// A message and how many bytes it took.
    Message(Message<'a>, usize),
    /// Not SIP: the stream cannot be followed any further.
    Bad,
}

/// Looks at the front of `bytes`.
pub(crate) fn next(bytes: &[u8]) -> Frame<'_> {
    let blank = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    if blank > 0 {
        return Frame::Blank(blank, bytes[..blank].starts_with(b"\r\n\r\n"));
    }
    let (mut message, head, body_len) = match read_head(bytes) {
        Ok(read) => read,
        Err(Unread::Partial) if bytes.len() > MESSAGE_BYTES_MAX => return Frame::Bad,
        Err(Unread::Partial) => return Frame::Partial,
        Err(Unread::Bad) => return Frame::Bad,
    };
    let Some(whole) = head.checked_add(body_len).filter(|n| *n <= MESSAGE_BYTES_MAX) else {
        return Frame::Bad;
    };
    match bytes.get(head..whole) {
        Some(body) => {
            message.body = body;
            message.raw = &bytes[..whole];
            Frame::Message(message, whole)
        }
        None => Frame::Partial,
    }
}

/// Why there is no head.
enum Unread {
    Partial,
    Bad,
}

/// The head at the front of `bytes`, how long it is, and how long its body.
fn read_head(bytes: &[u8]) -> Result<(Message<'_>, usize, usize), Unread> {
    let first_end = memchr(b'\n', bytes).ok_or(Unread::Partial)?;
    let start = read_start(trim(&bytes[..first_end])).ok_or(Unread::Bad)?;
    let mut message = Message {
        raw: bytes,
        start,
        headers: &[],
        body: &[],
        call_id: &[],
        from: &[],
        to: &[],
        branch: &[],
        cseq: 0,
        cseq_method: Method::Other,
        contact: &[],
        max_forwards: None,
        routes: 0,
        record_routes: 0,
    };
    let (mut body_len, mut at) = (0, first_end + 1);
    loop {
        let rest = &bytes[at..];
        let blank = match rest {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => 0,
        };
        if blank > 0 {
            message.headers = &bytes[first_end + 1..at];
            return Ok((message, at + blank, body_len));
        }
        let end = line_end(rest).filter(|&end| end < rest.len()).ok_or(Unread::Partial)?;
        if let Some((name, value)) = field(&rest[..end]) {
            note(&mut message, &mut body_len, name, value).ok_or(Unread::Bad)?;
        }
        at += end;
    }
}

/// Notes what the generator reads of a header; `None` when it is no SIP.
fn note<'a>(
    message: &mut Message<'a>,
    body_len: &mut usize,
    name: &'a [u8],
    value: &'a [u8],
) -> Option<()> {
    match field_of(name) {
        Field::Via if message.branch.is_empty() => message.branch = parameter(value, b"branch"),
        Field::From => message.from = value,
        Field::To => message.to = value,
        Field::CallId => message.call_id = value,
        Field::CSeq => {
            let blank = memchr2(b' ', b'\t', value).unwrap_or(value.len());
            message.cseq = number(&value[..blank])?;
            message.cseq_method = method(trim(&value[blank..]));
        }
        Field::Contact if message.contact.is_empty() => message.contact = uri(value),
        Field::ContentLength => *body_len = number(value)? as usize,
        Field::RecordRoute => message.record_routes = message.record_routes.saturating_add(1),
        Field::Other if name.eq_ignore_ascii_case(b"Max-Forwards") => {
            message.max_forwards = number(value);
        }
        Field::Other if is_route(name) => message.routes = message.routes.saturating_add(1),
        Field::Via | Field::Contact | Field::Other => {}
    }
    Some(())
}

fn read_start(line: &[u8]) -> Option<Start> {
    let blank = memchr(b' ', line)?;
    let rest = &line[blank + 1..];
    if line[..blank].eq_ignore_ascii_case(b"SIP/2.0") {
        return Some(Start::Response(u16::try_from(number(rest.get(..3)?)?).ok()?));
    }
    let version = rest.len().checked_sub(7).map(|at| &rest[at..])?;
    version.eq_ignore_ascii_case(b"SIP/2.0").then(|| Start::Request(method(&line[..blank])))
}

/// What a method's name means.
pub(crate) fn method(word: &[u8]) -> Method {
    match word {
        b"INVITE" => Method::Invite,
        b"ACK" => Method::Ack,
        b"BYE" => Method::Bye,
        b"CANCEL" => Method::Cancel,
        _ => Method::Other,
    }
}

/// The header fields that the generator reads or copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Via,
    From,
    To,
    CallId,
    CSeq,
    Contact,
    ContentLength,
    RecordRoute,
    Other,
}

/// Which field a name means, in any case, long or compact (RFC 3261 §7.3.3).
pub(crate) fn field_of(name: &[u8]) -> Field {
    let is = |long: &[u8]| name.eq_ignore_ascii_case(long);
    match (name.len(), name.first().map(u8::to_ascii_lowercase)) {
        (1, Some(b'v')) => Field::Via,
        (1, Some(b'f')) => Field::From,
        (1, Some(b't')) => Field::To,
        (1, Some(b'i')) => Field::CallId,
        (1, Some(b'm')) => Field::Contact,
        (1, Some(b'l')) => Field::ContentLength,
        (2, _) if is(b"To") => Field::To,
        (3, _) if is(b"Via") => Field::Via,
        (4, _) if is(b"From") => Field::From,
        (4, _) if is(b"CSeq") => Field::CSeq,
        (7, _) if is(b"Call-ID") => Field::CallId,
        (7, _) if is(b"Contact") => Field::Contact,
        (12, _) if is(b"Record-Route") => Field::RecordRoute,
        (14, _) if is(b"Content-Length") => Field::ContentLength,
        _ => Field::Other,
    }
}

/// The field is Route, which has no compact name.
pub(crate) fn is_route(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"Route")
}

/// Every field of a block of header lines: name and value, folded lines kept in one value.
pub(crate) fn headers(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = block;
    std::iter::from_fn(move || {
        loop {
            let (line, tail) = rest.split_at(line_end(rest)?);
            rest = tail;
            if let Some(field) = field(line) {
                return Some(field);
            }
            if trim(line).is_empty() {
                return None;
            }
        }
    })
}

/// Where the line at the front ends, with the lines that go on with it.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let mut end = memchr(b'\n', bytes)? + 1;
    while matches!(bytes.get(end), Some(b' ' | b'\t')) {
        end += memchr(b'\n', &bytes[end..])? + 1;
    }
    Some(end)
}

/// Name and value of a line.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    Some((trim(&line[..colon]), trim(&line[colon + 1..])))
}

/// The value of `;name=value`, outside the angle brackets; empty when there is none.
pub(crate) fn parameter<'a>(value: &'a [u8], name: &[u8]) -> &'a [u8] {
    let mut rest = memchr::memrchr(b'>', value).map_or(value, |at| &value[at + 1..]);
    while let Some(semicolon) = memchr(b';', rest) {
        rest = &rest[semicolon + 1..];
        let start = trim_start(rest);
        let Some((found, after)) = start.split_at_checked(name.len()) else { continue };
        if let Some(text) = trim_start(after).strip_prefix(b"=")
            && found.eq_ignore_ascii_case(name)
        {
            let text = trim_start(text);
            let end = text.iter().position(|b| matches!(b, b';' | b',' | b' ' | b'\t' | b'\r'));
            return &text[..end.unwrap_or(text.len())];
        }
    }
    &[]
}

/// The URI of a Contact value, with or without angle brackets.
fn uri(value: &[u8]) -> &[u8] {
    if let Some(open) = memchr(b'<', value) {
        let inside = &value[open + 1..];
        return &inside[..memchr(b'>', inside).unwrap_or(inside.len())];
    }
    trim(&value[..memchr2(b';', b',', value).unwrap_or(value.len())])
}

/// The members of a comma-separated field of name-addrs, such as Record-Route.
pub(crate) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let whole = rest?;
        let mut inside = false;
        let comma = whole.iter().position(|byte| {
            inside = *byte == b'<' || inside && *byte != b'>';
            *byte == b',' && !inside
        });
        rest = comma.map(|at| &whole[at + 1..]);
        Some(trim(&whole[..comma.unwrap_or(whole.len())]))
    })
}

/// A decimal number of at most nine digits or a 32-bit CSeq.
pub(crate) fn number(text: &[u8]) -> Option<u32> {
    let text = trim(text);
    if text.is_empty() || text.len() > 10 {
        return None;
    }
    let value = text.iter().try_fold(0u64, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + u64::from(byte - b'0'))
    })?;
    u32::try_from(value).ok()
}

pub(crate) fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

fn trim_start(text: &[u8]) -> &[u8] {
    text.trim_ascii_start()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"SIP/2.0 200 OK\r\nv: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bKab;rport\r\n\
        FROM : \"A;tag=no\" <sip:a@127.0.0.1;tag=no>;tag=ours\r\nt: <sip:b@127.0.0.1>\r\n ;tag=theirs\r\n\
        i: name@host\r\nCSeq: 7  INVITE\r\nm: <sip:b@127.0.0.1:5070;transport=tcp>;expires=3\r\n\
        Record-Route: <sip:p1;lr>, <sip:p2,x;lr>\r\nmax-forwards: 70\r\nRoute: <sip:p3;lr>\r\n\
        l: 3\r\n\r\nabcSIP/2.0";

    #[test]
    fn compact_folded_and_oddly_spaced_fields_are_read() {
        let Frame::Message(message, taken) = next(OK) else { panic!("no message") };
        assert_eq!(taken, OK.len() - 7);
        assert_eq!(message.start, Start::Response(200));
        assert_eq!(message.branch, b"z9hG4bKab");
        assert_eq!(parameter(message.from, b"tag"), b"ours");
        assert_eq!(parameter(message.to, b"tag"), b"theirs");
        assert_eq!(message.call_id, b"name@host");
        assert_eq!((message.cseq, message.cseq_method), (7, Method::Invite));
        assert_eq!(message.contact, b"sip:b@127.0.0.1:5070;transport=tcp");
        assert_eq!(message.body, b"abc");
        assert_eq!((message.max_forwards, message.routes, message.record_routes), (Some(70), 1, 1));
        let routes = headers(message.headers).find(|(n, _)| field_of(n) == Field::RecordRoute);
        let mut routes: Vec<_> = members(routes.unwrap().1).collect();
        routes.reverse();
        assert_eq!(routes, [&b"<sip:p2,x;lr>"[..], b"<sip:p1;lr>"]);
    }

    #[test]
    fn every_shorter_front_is_partial() {
        let whole = OK.len() - 7;
        for len in 0..whole {
            assert!(matches!(next(&OK[..len]), Frame::Partial), "{len}");
        }
    }

    #[test]
    fn line_ends_between_messages_are_skipped_and_four_bytes_are_a_ping() {
        assert!(matches!(next(b"\r\n\r\nSIP"), Frame::Blank(4, true)));
        assert!(matches!(next(b"\r\nSIP"), Frame::Blank(2, false)));
    }

    #[test]
    fn what_is_not_sip_is_bad() {
        assert!(matches!(next(b"GET / HTTP/1.1\r\n\r\n"), Frame::Bad));
        assert!(matches!(next(b"SIP/2.0 200 OK\r\nContent-Length: 99999\r\n\r\n"), Frame::Bad));
        assert!(matches!(next(b"SIP/2.0 2x0 OK\r\n\r\n"), Frame::Bad));
        assert!(matches!(next(&[b'a'; MESSAGE_BYTES_MAX + 1]), Frame::Bad));
    }
}
