//! Dialogs (RFC 3261 §12): what both ends remember of each other, and the head of a request in one.

mod texts;

use self::texts::{Part, Texts, write_route, write_tag};
use super::kept::Pool;
use super::message::{NameAddr, Uri, View, is_secure, write};
use super::token::Token;
use super::transaction::write_cseq;
use crate::target::{Target, Transport};

/// One dialog, early or confirmed, seen from the server.
#[derive(Debug)]
pub(super) struct Dialog {
    pub(super) local_tag: Token,
    texts: Texts,
    /// CSeq of the last request sent.
    local_cseq: u32,
    /// CSeq of the last request received.
    remote_cseq: Option<u32>,
    /// What a URI without `transport` is reached over: what the dialog began with.
    transport: Transport,
    /// Where requests go, when that is an address: what route set, remote target and transport say.
    next_hop: Option<Target>,
    /// True when it began with a SIPS URI: our own Contact is one, too (RFC 3261 §8.1.1.8, §12.1.1).
    secure: bool,
}

/// Routes that a dialog keeps; further ones are dropped, and a peer behind so many proxies cannot
/// be reached.
pub(super) const ROUTES_MAX: usize = 32;

/// CSeq of the first request of a dialog of ours.
const FIRST_CSEQ: u32 = 1;

impl Dialog {
    /// The dialog that a received INVITE begins (RFC 3261 §12.1.1).
    pub(super) fn of_invite(
        pool: &mut Pool,
        invite: View<'_>,
        local_tag: Token,
        transport: Transport,
    ) -> Option<Self> {
        let texts = NewTexts {
            call_id: invite.call_id()?,
            local: invite.to()?,
            remote: invite.from()?,
            remote_tag: invite.from()?.tag,
            remote_target: invite.contact()?.uri,
        };
        let dialog = Self {
            local_tag,
            texts: texts.write(pool, invite.record_routes().take(ROUTES_MAX)),
            local_cseq: FIRST_CSEQ - 1,
            remote_cseq: invite.cseq().map(|(number, _)| number),
            transport,
            next_hop: None,
            secure: is_secure(invite.request_uri()),
        };
        Some(dialog.aimed())
    }

    /// The dialog that a sent INVITE is to begin (RFC 3261 §12.1.2): the names of the received one,
    /// a Call-ID and a tag of ours.
    pub(super) fn to_target(
        pool: &mut Pool,
        invite: View<'_>,
        local_tag: Token,
        call_id: &[u8],
        target: &[u8],
        transport: Transport,
    ) -> Option<Self> {
        let texts = NewTexts {
            call_id,
            local: invite.from()?,
            remote: invite.to()?,
            remote_tag: None,
            remote_target: target,
        };
        let dialog = Self {
            local_tag,
            texts: texts.write(pool, std::iter::empty()),
            local_cseq: FIRST_CSEQ - 1,
            remote_cseq: None,
            transport,
            next_hop: None,
            secure: is_secure(target),
        };
        Some(dialog.aimed())
    }

    /// The dialog of a 2xx that nobody waits for, as far as its ACK and BYE need it.
    pub(super) fn of_stray(pool: &mut Pool, invite: View<'_>, response: View<'_>) -> Option<Self> {
        let texts = NewTexts {
            call_id: invite.call_id()?,
            local: invite.from()?,
            remote: response.to()?,
            remote_tag: response.to()?.tag,
            remote_target: response.contact().map_or(invite.request_uri(), |contact| contact.uri),
        };
        let mut routes = [&b""[..]; ROUTES_MAX];
        let recorded = recorded(response, &mut routes);
        let local_tag = invite.from()?.tag.and_then(Token::parse)?;
        let texts = match recorded.is_empty() {
            false => texts.write(pool, recorded.iter().rev().copied()),
            true => texts.write(pool, invite.routes().take(ROUTES_MAX)),
        };
        let dialog = Self {
            local_tag,
            texts,
            local_cseq: FIRST_CSEQ,
            remote_cseq: None,
            transport: Transport::Tcp,
            next_hop: None,
            secure: is_secure(invite.request_uri()),
        };
        Some(dialog.aimed())
    }

    /// Takes tag, target and routes of a response that makes the dialog early or confirmed. A
    /// downstream fork is folded into this one dialog: the newest branch counts.
    pub(super) fn on_response(&mut self, pool: &mut Pool, response: View<'_>) {
        let tag = response.to().and_then(|to| to.tag);
        let tag = tag.filter(|tag| self.texts.remote_tag() != Some(tag));
        let target = self.new_target(response);
        let mut routes = [&b""[..]; ROUTES_MAX];
        let routes = recorded(response, &mut routes).iter().rev().copied();
        let other_way = !self.texts.routes().eq(routes.clone());
        if tag.is_none() && target.is_none() && !other_way {
            return;
        }
        self.texts.rewrite(pool, |part, before, out| match (part, tag, target) {
            (Part::RemoteTag, Some(_), _) => write_tag(out, tag),
            (Part::RemoteTarget, _, Some(target)) => out.extend_from_slice(target),
            (Part::Routes, ..) => routes.clone().for_each(|route| write_route(out, route)),
            _ => out.extend_from_slice(before.get(part)),
        });
        if target.is_some() || other_way {
            self.aim();
        }
    }

    /// A target refresh: re-INVITE, UPDATE and their 2xx (RFC 3261 §12.2, RFC 3311 §5).
    pub(super) fn refresh_target(&mut self, pool: &mut Pool, message: View<'_>) {
        let Some(target) = self.new_target(message) else { return };
        self.texts.rewrite(pool, |part, before, out| match part {
            Part::RemoteTarget => out.extend_from_slice(target),
            _ => out.extend_from_slice(before.get(part)),
        });
        self.aim();
    }

    /// The URI of a message's Contact, when that is one and another than before.
    fn new_target<'a>(&self, message: View<'a>) -> Option<&'a [u8]> {
        let uri = message.contact()?.uri;
        let is_new = self.texts.get(Part::RemoteTarget) != uri && Uri::parse(uri).is_some();
        is_new.then_some(uri)
    }

    /// Reads something of each part: see `Call::fetch`.
    pub(super) fn touch(&self) -> (u8, u64, u32, bool) {
        (self.texts.touch(), self.local_tag.cookie, self.local_cseq, self.next_hop.is_some())
    }

    /// The dialog is over.
    pub(super) fn give_back(self, pool: &mut Pool) {
        self.texts.give_back(pool);
    }

    /// True when a request with this Call-ID and From tag belongs here (RFC 3261 §12.2.2).
    pub(super) fn has_sent(&self, request: View<'_>) -> bool {
        let tag = request.from().and_then(|from| from.tag);
        request.call_id() == Some(self.texts.get(Part::CallId)) && tag == self.texts.remote_tag()
    }

    /// True when a response comes from the peer of this dialog, not from another fork.
    pub(super) fn is_remote(&self, response: View<'_>) -> bool {
        response.to().and_then(|to| to.tag) == self.texts.remote_tag()
    }

    /// Notes the CSeq of a received request; false when it is out of order (RFC 3261 §12.2.2). An
    /// INVITE must be newer; another request may be a repetition over a new connection.
    pub(super) fn accept_cseq(&mut self, cseq: u32, invite: bool) -> bool {
        let in_order = match self.remote_cseq {
            None => true,
            Some(last) if invite => cseq > last,
            Some(last) => cseq >= last,
        };
        if in_order {
            self.remote_cseq = Some(cseq);
        }
        in_order
    }

    /// The CSeq of the next request.
    pub(super) fn next_cseq(&mut self) -> u32 {
        self.local_cseq += 1;
        self.local_cseq
    }

    /// The dialog begins by way of a proxy (RFC 3261 §8.1.2).
    pub(super) fn go_through(&mut self, pool: &mut Pool, proxy: Target) {
        let route = format!("<{};lr>", proxy.uri());
        self.texts.rewrite(pool, |part, before, out| match part {
            Part::Preloaded => write_route(out, route.as_bytes()),
            _ => out.extend_from_slice(before.get(part)),
        });
        self.forget_early(pool);
    }

    /// Forgets what a provisional response made of a dialog that is to begin anew.
    pub(super) fn forget_early(&mut self, pool: &mut Pool) {
        self.texts.rewrite(pool, |part, before, out| match part {
            Part::RemoteTag => {}
            Part::Routes => out.extend_from_slice(before.get(Part::Preloaded)),
            _ => out.extend_from_slice(before.get(part)),
        });
        self.aim();
    }

    /// True when the peer's tag is known.
    pub(super) fn has_remote_tag(&self) -> bool {
        self.texts.remote_tag().is_some()
    }

    /// The peer's address, From or To, without tag.
    pub(super) fn remote(&self) -> &[u8] {
        self.texts.get(Part::Remote)
    }

    /// Where requests of this dialog go, when that is an address (RFC 3261 §12.2.1.1).
    pub(super) fn next_hop(&self) -> Option<Target> {
        self.next_hop
    }

    /// A new dialog, that knows where its requests go.
    fn aimed(mut self) -> Self {
        self.aim();
        self
    }

    /// Reads it anew: route set or target have changed.
    fn aim(&mut self) {
        let uri = match self.texts.routes().next() {
            Some(route) => NameAddr::parse(route).map(|route| route.uri),
            None => Some(self.texts.get(Part::RemoteTarget)),
        };
        self.next_hop = uri.and_then(Uri::parse).and_then(|uri| {
            let transport = uri.transport().unwrap_or(self.transport);
            Some(Target { transport, address: uri.socket_addr(transport.port())? })
        });
    }

    /// Writes the start line and the headers that the server owns (RFC 3261 §12.2.1.1). The body's
    /// length is left to the caller.
    pub(super) fn write_request(&self, out: &mut Vec<u8>, head: &RequestHead<'_>) {
        let strict = self.texts.routes().next().filter(|route| !is_loose(route));
        let remote_target = self.texts.get(Part::RemoteTarget);
        let target = match strict {
            Some(route) => NameAddr::parse(route).map_or(remote_target, |route| route.uri),
            None => remote_target,
        };
        write::request_line(out, head.method, target);
        write_via(out, head.sent_by, head.transport, head.branch);
        out.extend_from_slice(b"Max-Forwards: ");
        write::number(out, u64::from(head.max_forwards));
        out.extend_from_slice(b"\r\nFrom: ");
        out.extend_from_slice(self.texts.get(Part::Local));
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(&self.local_tag.to_bytes());
        out.extend_from_slice(b"\r\nTo: ");
        out.extend_from_slice(self.texts.get(Part::Remote));
        out.extend_from_slice(self.texts.get(Part::RemoteTag));
        out.extend_from_slice(b"\r\n");
        write::header(out, "Call-ID", self.texts.get(Part::CallId));
        write_cseq(out, head.cseq, head.method);
        for route in self.texts.routes().skip(usize::from(strict.is_some())) {
            write::header(out, "Route", route);
        }
        if strict.is_some() {
            out.extend_from_slice(b"Route: <");
            out.extend_from_slice(remote_target);
            out.extend_from_slice(b">\r\n");
        }
        if head.contact {
            write_contact(out, head.sent_by, head.transport, self.secure);
        }
    }
}

/// What differs between the requests of one dialog.
pub(super) struct RequestHead<'a> {
    pub(super) method: &'a [u8],
    pub(super) branch: Token,
    pub(super) cseq: u32,
    pub(super) max_forwards: u8,
    pub(super) sent_by: &'a str,
    pub(super) transport: Transport,
    pub(super) contact: bool,
}

/// Max-Forwards of a request that does not come from another one (RFC 3261 §8.1.1.6).
pub(super) const MAX_FORWARDS: u8 = 70;

/// Max-Forwards of a request, at most what a request begins with: a loop through several servers ends
/// after 70 hops, whatever a peer asks for (RFC 3261 §8.1.1.6, §16.6 step 3).
pub(super) fn hops_left(request: View<'_>) -> u8 {
    request.max_forwards().unwrap_or(MAX_FORWARDS).min(MAX_FORWARDS)
}

/// Appends the server's Via.
pub(super) fn write_via(out: &mut Vec<u8>, sent_by: &str, transport: Transport, branch: Token) {
    out.extend_from_slice(b"Via: SIP/2.0/");
    out.extend_from_slice(transport.in_via().as_bytes());
    out.push(b' ');
    out.extend_from_slice(sent_by.as_bytes());
    out.extend_from_slice(b";branch=z9hG4bK");
    out.extend_from_slice(&branch.to_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends the server's Contact: a listening address, so that a peer that lost the flow finds it.
pub(super) fn write_contact(out: &mut Vec<u8>, sent_by: &str, transport: Transport, secure: bool) {
    if secure {
        // TLS goes without saying; naming it is deprecated (RFC 3261 §26.2.2).
        out.extend_from_slice(b"Contact: <sips:");
        out.extend_from_slice(sent_by.as_bytes());
        return out.extend_from_slice(b">\r\n");
    }
    out.extend_from_slice(b"Contact: <sip:");
    out.extend_from_slice(sent_by.as_bytes());
    out.extend_from_slice(b";transport=");
    out.extend_from_slice(transport.in_uri().as_bytes());
    out.extend_from_slice(b">\r\n");
}

/// What the texts of a new dialog are made of.
struct NewTexts<'a> {
    call_id: &'a [u8],
    local: NameAddr<'a>,
    remote: NameAddr<'a>,
    remote_tag: Option<&'a [u8]>,
    remote_target: &'a [u8],
}

impl NewTexts<'_> {
    fn write<'r>(self, pool: &mut Pool, routes: impl Iterator<Item = &'r [u8]>) -> Texts {
        let (mut texts, mut routes) = (Texts::default(), routes);
        texts.rewrite(pool, |part, _, out| match part {
            Part::CallId => out.extend_from_slice(self.call_id),
            Part::Local => write_without_tag(out, &self.local),
            Part::Remote => write_without_tag(out, &self.remote),
            Part::RemoteTag => write_tag(out, self.remote_tag),
            Part::RemoteTarget => out.extend_from_slice(self.remote_target),
            Part::Preloaded => {}
            Part::Routes => routes.by_ref().for_each(|route| write_route(out, route)),
        });
        texts
    }
}

fn write_without_tag(out: &mut Vec<u8>, address: &NameAddr<'_>) {
    let (before, after) = address.without_tag();
    out.extend_from_slice(before);
    out.extend_from_slice(after);
}

/// The Record-Route values of a response, in `all`: last hop first, seen from who gets it.
fn recorded<'a, 'r>(response: View<'a>, all: &'r mut [&'a [u8]; ROUTES_MAX]) -> &'r [&'a [u8]] {
    let mut count = 0;
    for (place, route) in all.iter_mut().zip(response.record_routes()) {
        *place = route;
        count += 1;
    }
    all.get(..count).unwrap_or_default()
}

fn is_loose(route: &[u8]) -> bool {
    NameAddr::parse(route)
        .and_then(|route| Uri::parse(route.uri)?.param("lr").map(|_| ()))
        .is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::ShardId;
    use crate::sip::message::Head;

    const INVITE: &[u8] = b"INVITE sip:7001@127.0.0.1 SIP/2.0\r\n\
        Via: SIP/2.0/TCP 127.0.0.9:5060;branch=z9hG4bK1\r\n\
        Record-Route: <sip:127.0.0.7;lr>, <sip:127.0.0.8:5070;lr>\r\n\
        From: \"A\" <sip:a@x>;tag=ft;x=1\r\nTo: <sip:7001@x>\r\nCall-ID: c@x\r\nCSeq: 7 INVITE\r\n\
        Contact: <sip:a@127.0.0.9:5060;transport=tcp>\r\nContent-Length: 0\r\n\r\n";

    fn token() -> Token {
        Token { shard: ShardId(1), index: 2, cookie: 3 }
    }

    fn dialog(bytes: &[u8]) -> Dialog {
        let mut head = Head::new();
        head.read(bytes).unwrap();
        let invite = View::new(bytes, &head);
        Dialog::of_invite(&mut Pool::default(), invite, token(), Transport::Tcp).unwrap()
    }

    fn written(dialog: &Dialog) -> String {
        let mut out = Vec::new();
        let head = RequestHead {
            method: b"BYE",
            branch: token(),
            cseq: 1,
            max_forwards: 70,
            sent_by: "127.0.0.1:5060",
            transport: Transport::Tcp,
            contact: false,
        };
        dialog.write_request(&mut out, &head);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_goes_along_the_recorded_route_to_the_contact() {
        let dialog = dialog(INVITE);
        let proxy = Target::tcp("127.0.0.7:5060".parse().unwrap());
        assert_eq!(dialog.next_hop(), Some(proxy));
        let text = written(&dialog);
        assert!(text.starts_with("BYE sip:a@127.0.0.9:5060;transport=tcp SIP/2.0\r\n"), "{text}");
        assert!(text.contains("To: \"A\" <sip:a@x>;x=1;tag=ft\r\n"), "{text}");
        assert!(
            text.contains("Route: <sip:127.0.0.7;lr>\r\nRoute: <sip:127.0.0.8:5070;lr>\r\n"),
            "{text}"
        );
    }

    #[test]
    fn a_strict_router_stands_in_the_request_line_and_the_contact_comes_last() {
        let strict = String::from_utf8_lossy(INVITE).replace("127.0.0.7;lr", "127.0.0.7");
        let text = written(&dialog(strict.as_bytes()));
        assert!(text.starts_with("BYE sip:127.0.0.7 SIP/2.0\r\n"), "{text}");
        assert!(
            text.ends_with(
                "Route: <sip:127.0.0.8:5070;lr>\r\n\
                 Route: <sip:a@127.0.0.9:5060;transport=tcp>\r\n"
            ),
            "{text}"
        );
    }

    fn responded(dialog: &mut Dialog, pool: &mut Pool, bytes: &str) {
        let mut head = Head::new();
        head.read(bytes.as_bytes()).unwrap();
        dialog.on_response(pool, View::new(bytes.as_bytes(), &head));
    }

    #[test]
    fn a_response_gives_tag_target_and_routes_and_a_dialog_that_begins_anew_has_only_its_target() {
        let (mut pool, mut head) = (Pool::default(), Head::new());
        head.read(INVITE).unwrap();
        let invite = View::new(INVITE, &head);
        let tcp = Transport::Tcp;
        let made = Dialog::to_target(&mut pool, invite, token(), b"id", b"sip:b@127.0.0.3", tcp);
        let mut dialog = made.unwrap();
        dialog.go_through(&mut pool, Target::tcp("127.0.0.5:5060".parse().unwrap()));
        let early = written(&dialog);
        assert!(early.starts_with("BYE sip:b@127.0.0.3 SIP/2.0\r\n"), "{early}");
        assert!(early.contains("To: <sip:7001@x>\r\nCall-ID: id\r\n"), "{early}");
        assert!(early.ends_with("Route: <sip:127.0.0.5:5060;transport=tcp;lr>\r\n"), "{early}");
        let response = "SIP/2.0 180 Ringing\r\nRecord-Route: <sip:127.0.0.7;lr>, <sip:127.0.0.8;lr>\r\n\
            To: <sip:7001@x>;tag=tt\r\nContact: <sip:b@127.0.0.4>\r\nContent-Length: 0\r\n\r\n";
        for _ in 0..2 {
            responded(&mut dialog, &mut pool, response);
            let text = written(&dialog);
            assert!(text.starts_with("BYE sip:b@127.0.0.4 SIP/2.0\r\n"), "{text}");
            assert!(text.contains("To: <sip:7001@x>;tag=tt\r\nCall-ID: id\r\n"), "{text}");
            let routes = "Route: <sip:127.0.0.8;lr>\r\nRoute: <sip:127.0.0.7;lr>\r\n";
            assert!(text.ends_with(routes), "{text}");
            assert_eq!(dialog.next_hop(), Some(Target::tcp("127.0.0.8:5060".parse().unwrap())));
        }
        dialog.forget_early(&mut pool);
        assert_eq!(written(&dialog), early.replace("127.0.0.3", "127.0.0.4"));
        assert_eq!(dialog.next_hop(), Some(Target::tcp("127.0.0.5:5060".parse().unwrap())));
        assert!(!dialog.has_remote_tag());
    }

    #[test]
    fn an_invite_must_be_newer_than_the_last_request_and_others_not_older() {
        let mut dialog = dialog(INVITE);
        assert!(!dialog.accept_cseq(7, true));
        assert!(dialog.accept_cseq(7, false));
        assert!(dialog.accept_cseq(9, true));
        assert!(!dialog.accept_cseq(8, false));
    }
}
