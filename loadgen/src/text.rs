//! Writes requests and responses.

use std::io::Write;

use crate::message::{self, Message};
use crate::name::Name;

/// One address of the generator that sends or receives calls.
#[derive(Clone, Debug)]
pub(crate) struct Party {
    /// User part: a number for a callee, the prefix for a caller.
    pub(crate) user: String,
    /// Address alone.
    pub(crate) host: String,
    /// Address and port.
    pub(crate) sent_by: String,
    /// The connection that its requests go out on, while there is one.
    pub(crate) conn: Option<u32>,
}

/// What the server said about a dialog: kept as the bytes that the next request needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dialog {
    bytes: Vec<u8>,
    target_end: usize,
    to_end: usize,
}

impl Dialog {
    /// Takes remote target, To and route set from a 2xx (RFC 3261 §12.1.2).
    pub(crate) fn learn(&mut self, ok: &Message<'_>) {
        self.bytes.clear();
        self.bytes.extend_from_slice(ok.contact);
        self.target_end = self.bytes.len();
        self.bytes.extend_from_slice(ok.to);
        self.to_end = self.bytes.len();
        let routes = message::headers(ok.headers)
            .filter(|(name, _)| message::field_of(name) == message::Field::RecordRoute);
        // The route set is the Record-Route list in reverse order.
        let mut members: Vec<&[u8]> = Vec::new();
        for (_, value) in routes {
            members.extend(message::members(value));
        }
        for member in members.iter().rev() {
            self.bytes.extend_from_slice(b"Route: ");
            self.bytes.extend_from_slice(member);
            self.bytes.extend_from_slice(b"\r\n");
        }
    }

    /// A target refresh (RFC 3261 §12.2.1.2): the Contact of a later 2xx.
    pub(crate) fn refresh(&mut self, ok: &Message<'_>) {
        if ok.contact.is_empty() || ok.contact == self.target() {
            return;
        }
        let rest = self.bytes.split_off(self.target_end);
        let to_len = self.to_end - self.target_end;
        self.bytes.clear();
        self.bytes.extend_from_slice(ok.contact);
        self.target_end = self.bytes.len();
        self.to_end = self.target_end + to_len;
        self.bytes.extend_from_slice(&rest);
    }

    fn target(&self) -> &[u8] {
        &self.bytes[..self.target_end]
    }

    fn to(&self) -> &[u8] {
        &self.bytes[self.target_end..self.to_end]
    }

    fn routes(&self) -> &[u8] {
        &self.bytes[self.to_end..]
    }
}

/// A request of a caller.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) cseq: u32,
    /// Ends the branch: the ACK of a 2xx is a transaction of its own.
    pub(crate) branch_end: &'a str,
    pub(crate) name: Name,
    pub(crate) caller: &'a Party,
    /// The number that is called.
    pub(crate) number: &'a str,
    /// The server.
    pub(crate) server: &'a str,
    /// Inside a dialog.
    pub(crate) dialog: Option<&'a Dialog>,
    pub(crate) body: &'a [u8],
}

impl Request<'_> {
    /// Appends the request.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let Self { method, cseq, caller, number, server, .. } = self;
        put(out, &[method.as_bytes(), b" "]);
        match self.dialog {
            Some(dialog) => out.extend_from_slice(dialog.target()),
            None => put(out, &[b"sip:", number.as_bytes(), b"@", server.as_bytes()]),
        }
        let sent_by = caller.sent_by.as_bytes();
        put(out, &[b" SIP/2.0\r\nVia: SIP/2.0/TCP ", sent_by, b";branch=z9hG4bK-"]);
        self.name.write(out);
        put_fmt(out, format_args!("-{cseq}{}", self.branch_end));
        let (user, host) = (caller.user.as_bytes(), caller.host.as_bytes());
        put(out, &[b"\r\nMax-Forwards: 70\r\nFrom: <sip:", user, b"@", host, b">;tag=c"]);
        self.name.write(out);
        put(out, &[b"\r\nTo: "]);
        match self.dialog {
            Some(dialog) => out.extend_from_slice(dialog.to()),
            None => put(out, &[b"<sip:", number.as_bytes(), b"@", server.as_bytes(), b">"]),
        }
        put(out, &[b"\r\nCall-ID: "]);
        self.name.write(out);
        put_fmt(out, format_args!("\r\nCSeq: {cseq} {method}\r\n"));
        if let Some(dialog) = self.dialog {
            out.extend_from_slice(dialog.routes());
        }
        if *method == "INVITE" {
            put_contact(out, caller);
        }
        put_body(out, self.body);
    }

    /// Appends the ACK of a final response that is no 2xx: same branch, its To
    /// (RFC 3261 §17.1.1.3).
    pub(crate) fn write_ack_of_failure(&self, out: &mut Vec<u8>, response: &Message<'_>) {
        let Self { cseq, number, server, .. } = self;
        put(out, &[b"ACK "]);
        match self.dialog {
            Some(dialog) => out.extend_from_slice(dialog.target()),
            None => put(out, &[b"sip:", number.as_bytes(), b"@", server.as_bytes()]),
        }
        put(out, &[b" SIP/2.0\r\nVia: SIP/2.0/TCP ", self.caller.sent_by.as_bytes()]);
        put(out, &[b";branch=", response.branch]);
        put(out, &[b"\r\nMax-Forwards: 70\r\nFrom: ", response.from, b"\r\nTo: ", response.to]);
        put(out, &[b"\r\nCall-ID: ", response.call_id]);
        put_fmt(out, format_args!("\r\nCSeq: {cseq} ACK\r\n"));
        if let Some(dialog) = self.dialog {
            out.extend_from_slice(dialog.routes());
        }
        put_body(out, b"");
    }
}

/// Appends a response to `request` (RFC 3261 §8.2.6.2). A `tag` is added where To has none; a
/// `contact` is given with what makes or refreshes a dialog.
pub(crate) fn write_response(
    out: &mut Vec<u8>,
    request: &Message<'_>,
    status: &str,
    tag: Option<Name>,
    contact: Option<&Party>,
    body: &[u8],
) {
    put(out, &[b"SIP/2.0 ", status.as_bytes(), b"\r\n"]);
    for (name, value) in message::headers(request.headers) {
        match message::field_of(name) {
            message::Field::Via
            | message::Field::From
            | message::Field::CallId
            | message::Field::CSeq
            | message::Field::RecordRoute => put(out, &[name, b": ", value, b"\r\n"]),
            message::Field::To => {
                put(out, &[name, b": ", value]);
                if let Some(tag) = tag
                    && message::parameter(value, b"tag").is_empty()
                {
                    put(out, &[b";tag=d"]);
                    tag.write(out);
                }
                put(out, &[b"\r\n"]);
            }
            message::Field::Contact | message::Field::ContentLength | message::Field::Other => {}
        }
    }
    if let Some(party) = contact {
        put_contact(out, party);
    }
    put_body(out, body);
}

fn put_contact(out: &mut Vec<u8>, party: &Party) {
    let (user, sent_by) = (party.user.as_bytes(), party.sent_by.as_bytes());
    put(out, &[b"Contact: <sip:", user, b"@", sent_by, b";transport=tcp>\r\n"]);
}

fn put_body(out: &mut Vec<u8>, body: &[u8]) {
    if !body.is_empty() {
        put(out, &[b"Content-Type: application/sdp\r\n"]);
    }
    put_fmt(out, format_args!("Content-Length: {}\r\n\r\n", body.len()));
    out.extend_from_slice(body);
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn put_fmt(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Frame, Method, Start};

    fn party() -> Party {
        let text = String::from;
        Party { user: text("u"), host: text("127.1.0.1"), sent_by: text("127.1.0.1:9"), conn: None }
    }

    fn read(bytes: &[u8]) -> Message<'_> {
        let Frame::Message(message, len) = message::next(bytes) else { panic!("no message") };
        assert_eq!(len, bytes.len());
        message
    }

    #[test]
    fn a_request_in_a_dialog_goes_to_the_contact_over_the_route_set() {
        let ok = b"SIP/2.0 200 OK\r\nTo: <sip:b@h>;tag=t\r\nContact: <sip:x@y:1>\r\n\
            Record-Route: <sip:p1;lr>, <sip:p2;lr>\r\nRecord-Route: <sip:p3;lr>\r\n\r\n";
        let mut dialog = Dialog::default();
        dialog.learn(&read(ok));
        dialog.refresh(&read(b"SIP/2.0 200 OK\r\nContact: <sip:longer@y:1>\r\n\r\n"));
        let mut out = Vec::new();
        let name = Name { index: 1, generation: 0, run: 2 };
        let request = Request {
            method: "INVITE",
            cseq: 3,
            branch_end: "",
            name,
            caller: &party(),
            number: "70001",
            server: "127.0.0.1:5060",
            dialog: Some(&dialog),
            body: b"sdp",
        };
        request.write(&mut out);
        assert!(out.starts_with(b"INVITE sip:longer@y:1 SIP/2.0\r\n"));
        let message = read(&out);
        assert_eq!(message.start, Start::Request(Method::Invite));
        assert_eq!(message.to, b"<sip:b@h>;tag=t");
        assert_eq!(message.body, b"sdp");
        let text = String::from_utf8_lossy(&out);
        let routes: Vec<_> = text.lines().filter(|line| line.starts_with("Route")).collect();
        assert_eq!(routes, ["Route: <sip:p3;lr>", "Route: <sip:p2;lr>", "Route: <sip:p1;lr>"]);
    }

    #[test]
    fn a_response_copies_what_it_must_and_adds_the_tag_once() {
        let bytes =
            b"INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\r\nv: SIP/2.0/TCP b\r\n\
            From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nl: 0\r\n\r\n";
        let name = Name { index: 1, generation: 0, run: 2 };
        let mut out = Vec::new();
        write_response(&mut out, &read(bytes), "200 OK", Some(name), Some(&party()), b"x");
        let first = out.clone();
        let message = read(&first);
        assert_eq!(message.branch, b"z9hG4bK1");
        assert_eq!(String::from_utf8_lossy(&out).matches("SIP/2.0/TCP").count(), 2);
        assert_eq!(message::parameter(message.to, b"tag"), b"d00000001-00000000-00000002");
        out.clear();
        write_response(&mut out, &message, "200 OK", Some(name), None, b"");
        assert_eq!(String::from_utf8_lossy(&out).matches(";tag=d").count(), 1);
    }
}
