//! Writes requests and responses, and keeps what a dialog needs for them.

use std::net::Ipv4Addr;
use std::ops::Range;

use crate::message::{self, Field, Message};
use crate::name::{Name, put_address, put_number};

/// One address of the generator that sends or receives calls.
#[derive(Clone, Debug)]
pub(crate) struct Party {
    /// User part: a number for a callee, the prefix for a caller.
    pub(crate) user: String,
    pub(crate) ip: Ipv4Addr,
    /// Where it listens.
    pub(crate) port: u16,
    /// `SIP/2.0/TCP 127.0.0.1:5070`
    via: String,
    /// `Contact: <sip:…>` and its line end.
    contact: String,
    /// `;transport=tcp`
    parameter: String,
}

impl Party {
    /// `transport` is `UDP`, `TCP` or `TLS`.
    pub(crate) fn new(user: String, ip: Ipv4Addr, port: u16, transport: &'static str) -> Self {
        let (via, contact, parameter) = (String::new(), String::new(), String::new());
        let mut this = Self { user, ip, port, via, contact, parameter };
        this.listens_at(port, transport);
        this
    }

    /// It is at another port from now on.
    pub(crate) fn listens_at(&mut self, port: u16, transport: &'static str) {
        let (ip, user) = (self.ip, &self.user);
        let parameter = match transport {
            "UDP" => String::new(),
            other => format!(";transport={}", other.to_ascii_lowercase()),
        };
        self.port = port;
        self.parameter.clone_from(&parameter);
        self.via = format!("SIP/2.0/{transport} {ip}:{port}");
        self.contact = format!("Contact: <sip:{user}@{ip}:{port}{parameter}>\r\n");
    }
}

impl Party {
    /// Where calls to it go.
    pub(crate) fn uri(&self) -> String {
        format!("sip:{}@{}:{}{}", self.user, self.ip, self.port, self.parameter)
    }

    /// The same without a user.
    pub(crate) fn uri_of_host(&self) -> String {
        format!("sip:{}:{}{}", self.ip, self.port, self.parameter)
    }
}

/// What both sides said about a dialog (RFC 3261 §12.1): kept as the bytes that a request needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dialog {
    /// Remote target, local and remote name, Call-ID, Route lines, one after the other.
    bytes: Vec<u8>,
    ends: [u32; 4],
}

impl Dialog {
    /// The caller's: taken from the 2xx (RFC 3261 §12.1.2).
    pub(crate) fn of_response(ok: &Message<'_>) -> Self {
        let mut this = Self::default();
        this.fill(ok.contact, &[ok.from], &[ok.to], ok.call_id);
        // The route set is the Record-Route list in reverse order.
        let mut members: Vec<&[u8]> = routes(ok).collect();
        members.reverse();
        this.add_routes(members.into_iter());
        this
    }

    /// The callee's: taken from the request, with the tag that the callee gives (§12.1.1).
    pub(crate) fn of_request(request: &Message<'_>, tag: &[u8]) -> Self {
        let mut this = Self::default();
        this.fill(request.contact, &[request.to, b";tag=", tag], &[request.from], request.call_id);
        this.add_routes(routes(request));
        this
    }

    fn fill(&mut self, target: &[u8], local: &[&[u8]], remote: &[&[u8]], call_id: &[u8]) {
        for (n, part) in [&[target][..], local, remote, &[call_id]].into_iter().enumerate() {
            put(&mut self.bytes, part);
            self.ends[n] = self.bytes.len() as u32;
        }
    }

    fn add_routes<'a>(&mut self, members: impl Iterator<Item = &'a [u8]>) {
        for member in members {
            put(&mut self.bytes, &[b"Route: ", member, b"\r\n"]);
        }
        self.bytes.shrink_to_fit();
    }

    /// A target refresh (RFC 3261 §12.2.1.2, §12.2.2): the Contact of a later request or 2xx.
    pub(crate) fn refresh(&mut self, contact: &[u8]) {
        if contact.is_empty() || contact == self.target() {
            return;
        }
        let rest = self.bytes.split_off(self.ends[0] as usize);
        let grown = contact.len() as u32;
        let before = self.ends[0];
        for end in &mut self.ends[1..] {
            *end = *end - before + grown;
        }
        self.ends[0] = grown;
        self.bytes.clear();
        self.bytes.reserve_exact(contact.len() + rest.len());
        put(&mut self.bytes, &[contact, &rest]);
    }

    /// No dialog yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn part(&self, n: usize) -> &[u8] {
        let start = n.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.bytes[start..self.ends[n] as usize]
    }

    pub(crate) fn target(&self) -> &[u8] {
        self.part(0)
    }

    pub(crate) fn local(&self) -> &[u8] {
        self.part(1)
    }

    pub(crate) fn remote(&self) -> &[u8] {
        self.part(2)
    }

    pub(crate) fn call_id(&self) -> &[u8] {
        self.part(3)
    }

    /// The Route lines.
    pub(crate) fn routes(&self) -> &[u8] {
        &self.bytes[self.ends[3] as usize..]
    }
}

/// The route set that a message gives, as the value of one Route line: reversed for a response.
pub(crate) fn route_value(message: &Message<'_>) -> Vec<u8> {
    let mut members: Vec<&[u8]> = routes(message).collect();
    if matches!(message.start, message::Start::Response(_)) {
        members.reverse();
    }
    members.join(&b", "[..])
}

fn routes<'a>(message: &Message<'a>) -> impl Iterator<Item = &'a [u8]> {
    message::headers(message.headers)
        .filter(|(name, _)| message::field_of(name) == Field::RecordRoute)
        .flat_map(|(_, value)| message::members(value))
}

/// A request that the generator writes itself.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) cseq: u32,
    /// What follows `z9hG4bK-` in the branch.
    pub(crate) branch: &'a [u8],
    pub(crate) party: &'a Party,
    pub(crate) place: Where<'a>,
    /// Lines of the scenario, each with its line end.
    pub(crate) headers: &'a [u8],
    /// Empty: none.
    pub(crate) body: &'a [u8],
    pub(crate) media_type: &'a str,
}

/// Where a request goes.
pub(crate) enum Where<'a> {
    Dialog(&'a Dialog),
    /// To a number at the server, with a name of the generator's own.
    Number {
        number: &'a str,
        server: &'a str,
        name: Name,
    },
    /// To the server itself; a REGISTER is for the party that sends it.
    Server {
        server: &'a str,
        name: Name,
    },
    /// To a user at the server; a REGISTER is for that user (RFC 3261 §10.2).
    User {
        user: &'a str,
        server: &'a str,
        name: Name,
    },
}

/// Where the parts of a request stand that was written into an empty buffer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    branch: Range<usize>,
    from: Range<usize>,
    to: Range<usize>,
    call_id: Range<usize>,
    /// Lines of Route.
    routes: u16,
}

impl Request<'_> {
    /// Writes the request, and gives it as its reader will see it: as far as the oracle asks, and
    /// without reading it again.
    pub(crate) fn write_message<'a>(&self, out: &'a mut Vec<u8>) -> Message<'a> {
        let written = self.write(out);
        let line = memchr::memchr(b'\n', out).map_or(0, |at| at + 1);
        let part = |range: Range<usize>| out.get(range).unwrap_or_default();
        let method = message::method(self.method.as_bytes());
        Message {
            raw: out,
            start: message::Start::Request(method),
            // The empty line is not of them.
            headers: &out[line..out.len() - self.body.len() - 2],
            body: &[],
            call_id: part(written.call_id),
            from: part(written.from),
            to: part(written.to),
            branch: part(written.branch),
            cseq: self.cseq,
            cseq_method: method,
            contact: &[],
            max_forwards: Some(70),
            routes: written.routes,
            record_routes: 0,
        }
    }

    /// Appends the request.
    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Written {
        let mut written = Written::default();
        let Self { method, cseq, party, .. } = self;
        put(out, &[method.as_bytes(), b" "]);
        self.put_uri(out);
        put(out, &[b" SIP/2.0\r\nVia: ", party.via.as_bytes(), b";rport;branch=z9hG4bK-"]);
        written.branch = out.len() - b"z9hG4bK-".len()..out.len() + self.branch.len();
        put(out, &[self.branch, b"\r\nMax-Forwards: 70\r\n"]);
        self.put_names(out, &mut written);
        put_cseq(out, *cseq, method);
        if let Where::Dialog(dialog) = self.place {
            let lines = memchr::memchr_iter(b'\n', dialog.routes()).count();
            written.routes = u16::try_from(lines).unwrap_or(u16::MAX);
            out.extend_from_slice(dialog.routes());
        }
        if matches!(*method, "INVITE" | "UPDATE" | "REGISTER" | "SUBSCRIBE") {
            out.extend_from_slice(party.contact.as_bytes());
        }
        out.extend_from_slice(self.headers);
        put_body(out, self.media_type, self.body);
        written
    }

    fn put_uri(&self, out: &mut Vec<u8>) {
        let registers = self.method == "REGISTER";
        match self.place {
            Where::Dialog(dialog) => out.extend_from_slice(dialog.target()),
            Where::Server { server, .. } => put(out, &[b"sip:", server.as_bytes()]),
            Where::Number { server, .. } | Where::User { server, .. } if registers => {
                put(out, &[b"sip:", server.as_bytes()]);
            }
            Where::Number { number: user, server, .. } | Where::User { user, server, .. } => {
                put(out, &[b"sip:", user.as_bytes(), b"@", server.as_bytes()]);
            }
        }
    }

    /// From, To and Call-ID.
    fn put_names(&self, out: &mut Vec<u8>, written: &mut Written) {
        let own = self.party.user.as_str();
        let registers = self.method == "REGISTER";
        let (from, to, server, name) = match self.place {
            Where::Dialog(dialog) => {
                written.from = put_field(out, b"From: ", dialog.local());
                written.to = put_field(out, b"To: ", dialog.remote());
                written.call_id = put_field(out, b"Call-ID: ", dialog.call_id());
                return;
            }
            Where::Number { server, name, .. } if registers => (own, own, server, name),
            Where::Server { server, name } if registers => (own, own, server, name),
            Where::User { user, server, name } if registers => (user, user, server, name),
            Where::Number { number: to, server, name } | Where::User { user: to, server, name } => {
                (own, to, server, name)
            }
            Where::Server { server, name } => (own, "", server, name),
        };
        let mut start = out.len();
        put(out, &[b"From: <sip:", from.as_bytes(), b"@"]);
        put_address(out, self.party.ip);
        out.extend_from_slice(b">;tag=c");
        name.write(out);
        out.extend_from_slice(b"\r\n");
        written.from = start + b"From: ".len()..out.len() - 2;
        let at = if to.is_empty() { "" } else { "@" };
        start = out.len();
        put(out, &[b"To: <sip:", to.as_bytes(), at.as_bytes(), server.as_bytes(), b">\r\n"]);
        written.to = start + b"To: ".len()..out.len() - 2;
        start = out.len();
        out.extend_from_slice(b"Call-ID: ");
        name.write(out);
        out.extend_from_slice(b"\r\n");
        written.call_id = start + b"Call-ID: ".len()..out.len() - 2;
    }
}

/// Appends a header line; where its value stands.
fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Range<usize> {
    let start = out.len() + name.len();
    put(out, &[name, value, b"\r\n"]);
    start..start + value.len()
}

/// Appends the ACK of a final response that is no 2xx: its branch, its To (RFC 3261 §17.1.1.3).
pub(crate) fn write_ack_of_failure(
    out: &mut Vec<u8>,
    party: &Party,
    place: &Where<'_>,
    response: &Message<'_>,
) {
    put(out, &[b"ACK "]);
    match place {
        Where::Dialog(dialog) => out.extend_from_slice(dialog.target()),
        Where::Number { number: user, server, .. } | Where::User { user, server, .. } => {
            put(out, &[b"sip:", user.as_bytes(), b"@", server.as_bytes()]);
        }
        Where::Server { server, .. } => put(out, &[b"sip:", server.as_bytes()]),
    }
    put(out, &[b" SIP/2.0\r\nVia: ", party.via.as_bytes(), b";rport;branch=", response.branch]);
    put(out, &[b"\r\nMax-Forwards: 70\r\nFrom: ", response.from, b"\r\nTo: ", response.to]);
    put(out, &[b"\r\nCall-ID: ", response.call_id]);
    out.extend_from_slice(b"\r\n");
    put_cseq(out, response.cseq, "ACK");
    if let Where::Dialog(dialog) = place {
        out.extend_from_slice(dialog.routes());
    }
    put_body(out, "", b"");
}

/// What a response says beyond its request.
#[derive(Default)]
pub(crate) struct Answer<'a> {
    /// Added to To where that has none.
    pub(crate) tag: &'a [u8],
    /// Given with what makes or refreshes a dialog.
    pub(crate) contact: Option<&'a Party>,
    /// Lines, each with its line end.
    pub(crate) headers: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// Appends a response to `request` (RFC 3261 §8.2.6.2); `status` is code and reason.
pub(crate) fn write_response(
    out: &mut Vec<u8>,
    request: &Message<'_>,
    status: &str,
    answer: &Answer<'_>,
) {
    put(out, &[b"SIP/2.0 ", status.as_bytes(), b"\r\n"]);
    for (name, value) in message::headers(request.headers) {
        match message::field_of(name) {
            Field::Via | Field::From | Field::CallId | Field::CSeq | Field::RecordRoute => {
                put(out, &[name, b": ", value, b"\r\n"]);
            }
            Field::To => {
                put(out, &[name, b": ", value]);
                if !answer.tag.is_empty() && message::parameter(value, b"tag").is_empty() {
                    put(out, &[b";tag=", answer.tag]);
                }
                put(out, &[b"\r\n"]);
            }
            _ => {}
        }
    }
    if let Some(party) = answer.contact {
        out.extend_from_slice(party.contact.as_bytes());
    }
    out.extend_from_slice(answer.headers);
    put_body(out, "application/sdp", answer.body);
}

fn put_body(out: &mut Vec<u8>, media_type: &str, body: &[u8]) {
    if !body.is_empty() {
        put(out, &[b"Content-Type: ", media_type.as_bytes(), b"\r\n"]);
    }
    out.extend_from_slice(b"Content-Length: ");
    put_number(out, u32::try_from(body.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

pub(crate) fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn put_cseq(out: &mut Vec<u8>, cseq: u32, method: &str) {
    out.extend_from_slice(b"CSeq: ");
    put_number(out, cseq);
    put(out, &[b" ", method.as_bytes(), b"\r\n"]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Frame, Method, Start};

    fn party() -> Party {
        Party::new("u".into(), Ipv4Addr::new(127, 1, 0, 1), 9, "TCP")
    }

    fn read(bytes: &[u8]) -> Message<'_> {
        let Frame::Message(message, len) = message::next(bytes) else { panic!("no message") };
        assert_eq!(len, bytes.len());
        message
    }

    /// What is read of the bytes, without the parts that a sent request is not asked for.
    fn as_the_oracle_needs(bytes: &[u8]) -> String {
        format!("{:?}", Message { body: b"", contact: b"", ..read(bytes) })
    }

    fn request<'a>(party: &'a Party, dialog: &'a Dialog) -> Request<'a> {
        Request {
            method: "INVITE",
            cseq: 3,
            branch: b"b1",
            party,
            place: Where::Dialog(dialog),
            headers: b"X: y\r\n",
            body: b"sdp",
            media_type: "application/sdp",
        }
    }

    #[test]
    fn a_request_in_a_dialog_goes_to_the_contact_over_the_route_set() {
        let ok = b"SIP/2.0 200 OK\r\nFrom: <sip:a@h>;tag=f\r\nTo: <sip:b@h>;tag=t\r\nContact: <sip:x@y:1>\r\n\
            Call-ID: i\r\nRecord-Route: <sip:p1;lr>, <sip:p2;lr>\r\nRecord-Route: <sip:p3;lr>\r\n\r\n";
        let mut dialog = Dialog::of_response(&read(ok));
        dialog.refresh(b"sip:longer@y:1");
        let (party, mut out) = (party(), Vec::new());
        let said = format!("{:?}", request(&party, &dialog).write_message(&mut out));
        assert_eq!(said, as_the_oracle_needs(&out));
        assert!(out.starts_with(b"INVITE sip:longer@y:1 SIP/2.0\r\n"));
        let message = read(&out);
        assert_eq!(message.start, Start::Request(Method::Invite));
        assert_eq!((message.to, message.from), (&b"<sip:b@h>;tag=t"[..], &b"<sip:a@h>;tag=f"[..]));
        assert_eq!((message.call_id, message.body), (&b"i"[..], &b"sdp"[..]));
        let text = String::from_utf8_lossy(&out);
        let routes: Vec<_> = text.lines().filter(|line| line.starts_with("Route")).collect();
        assert_eq!(routes, ["Route: <sip:p3;lr>", "Route: <sip:p2;lr>", "Route: <sip:p1;lr>"]);
        assert!(text.contains("\r\nX: y\r\n"));
    }

    #[test]
    fn a_callee_is_the_other_end_of_the_same_dialog() {
        let invite =
            b"INVITE sip:b@h SIP/2.0\r\nFrom: <sip:a@h>;tag=f\r\nTo: <sip:b@h>\r\nCall-ID: i\r\n\
            Contact: <sip:s@y>\r\nRecord-Route: <sip:p1;lr>, <sip:p2;lr>\r\n\r\n";
        let dialog = Dialog::of_request(&read(invite), b"dt");
        assert_eq!(dialog.local(), b"<sip:b@h>;tag=dt");
        assert_eq!(dialog.remote(), b"<sip:a@h>;tag=f");
        assert_eq!(dialog.routes(), b"Route: <sip:p1;lr>\r\nRoute: <sip:p2;lr>\r\n");
    }

    #[test]
    fn a_response_copies_what_it_must_and_adds_the_tag_once() {
        let bytes =
            b"INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\r\nv: SIP/2.0/TCP b\r\n\
            From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nl: 0\r\n\r\n";
        let (party, mut out) = (party(), Vec::new());
        let answer = Answer { tag: b"dx", contact: Some(&party), headers: b"", body: b"x" };
        write_response(&mut out, &read(bytes), "200 OK", &answer);
        let first = out.clone();
        let message = read(&first);
        assert_eq!(message.branch, b"z9hG4bK1");
        assert_eq!(message.contact, b"sip:u@127.1.0.1:9;transport=tcp");
        assert_eq!(String::from_utf8_lossy(&out).matches("SIP/2.0/TCP").count(), 2);
        assert_eq!(message::parameter(message.to, b"tag"), b"dx");
        out.clear();
        write_response(&mut out, &message, "200 OK", &answer);
        assert_eq!(String::from_utf8_lossy(&out).matches(";tag=").count(), 2);
    }

    #[test]
    fn a_registration_is_for_its_sender_and_goes_to_the_server() {
        let (party, mut out) = (party(), Vec::new());
        let name = Name { index: 1, generation: 0, run: 2 };
        let place = Where::Number { number: "7", server: "h:1", name };
        let dialog = Dialog::default();
        let request = request(&party, &dialog);
        let request = Request { method: "REGISTER", place, body: b"", ..request };
        let said = format!("{:?}", request.write_message(&mut out));
        assert_eq!(said, as_the_oracle_needs(&out));
        let text = String::from_utf8_lossy(&out);
        assert!(text.starts_with("REGISTER sip:h:1 SIP/2.0\r\n"));
        assert!(text.contains("\r\nTo: <sip:u@h:1>\r\n") && text.contains("\r\nContact: <sip:u@"));
    }
}
