//! What a back-to-back user agent passes on: everything it does not own, byte for byte.
//!
//! Owned, and written anew for each leg: start line, Via, From, To, Call-ID, CSeq, Contact,
//! Record-Route, Route, Max-Forwards, Content-Length, and RAck, which names a CSeq of the other leg
//! (RFC 3262 §7.2).

use std::sync::Arc;

use super::{Agent, Call};
use crate::key::{LegId, ServerId};
use crate::sip::dialog::{hops_left, write_contact};
use crate::sip::message::{Method, Name, View, write};
use crate::sip::session::NewRequest;
use crate::sip::transaction::{Owner, Stack};
use crate::target::Transport;

impl Agent {
    /// Passes a request inside the dialog to the other leg.
    pub(super) fn relay_request(
        &mut self,
        stack: &mut Stack,
        from: LegId,
        server: ServerId,
        request: View<'_>,
    ) {
        let Some(call) = self.calls.get_mut(from.call) else { return };
        let max_forwards = hops_left(request);
        let leg = call.leg_mut(from.side.other());
        if max_forwards == 0 {
            return stack.respond(server, 483);
        }
        if !leg.confirmed && !leg.dialog.has_remote_tag() {
            // An early dialog on one side only: there is nobody to ask yet.
            return stack.respond(server, 481);
        }
        if !stack.has_room_for_client() {
            return stack.respond(server, 503);
        }
        let invite_cseq = leg.invite_cseq;
        let new = NewRequest {
            method: request.method_bytes(),
            kind: request.method(),
            owner: Owner::Relay { from: server, leg: from.other() },
            max_forwards: max_forwards - 1,
            contact: request.contact().is_some(),
        };
        leg.send_request(stack, &new, |out| {
            if let (Some(rack), Some(cseq)) = (request.first(Name::RAck), invite_cseq) {
                write_rack(out, rack, cseq);
            }
            write_passed(out, request);
            write::body(out, request.body());
        });
        if refreshes_target(request.method()) {
            call.leg_mut(from.side).dialog.refresh_target(&mut stack.pool, request);
        }
    }

    /// Passes the response of such a request back.
    pub(super) fn relay_response(
        &mut self,
        stack: &mut Stack,
        from: ServerId,
        leg: LegId,
        response: View<'_>,
    ) {
        match response.status() {
            100 => return,
            // Never to a request other than INVITE: who sent it knows by its own timer F (RFC 4320
            // §4.2).
            408 => return stack.finish(from),
            _ => {}
        }
        if (200..300).contains(&response.status())
            && refreshes_target(response.method())
            && let Some(call) = self.calls.get_mut(leg.call)
        {
            call.leg_mut(leg.side).dialog.refresh_target(&mut stack.pool, response);
            call.refresh_session(stack, leg.call, response);
        }
        pass_response(stack, from, response);
    }
}

impl Call {
    /// True for both legs: the INVITE that began the call was answered.
    pub(super) fn is_established(&self) -> bool {
        self.legs.iter().all(|leg| leg.confirmed)
    }
}

/// Answers `server` as the other leg answered.
pub(super) fn pass_response(stack: &mut Stack, server: ServerId, response: View<'_>) {
    let status = response.status();
    let options = Arc::clone(&stack.options);
    let asked = stack.server(server);
    let transport = asked.map_or(Transport::Tcp, |server| server.transport);
    let secure = asked.is_some_and(|server| server.is_secure());
    stack.respond_with(server, status, response.reason(), |out| {
        // What makes or confirms a dialog names the server, whatever the peer forgot (RFC 3261
        // §12.1.1).
        let makes_dialog = response.method() == Method::Invite && (101..300).contains(&status);
        if response.contact().is_some() || makes_dialog {
            if status >= 300 {
                // The Contacts of a redirection are its content, not an address of the dialog.
                pass_contacts(out, response);
            } else {
                write_contact(out, options.sent_by(transport), transport, secure);
            }
        }
        write_passed(out, response);
        write::body(out, response.body());
    });
}

/// Appends the headers that pass through, as they came.
pub(super) fn write_passed(out: &mut Vec<u8>, message: View<'_>) {
    for header in message.headers() {
        match header.name {
            Name::Via
            | Name::From
            | Name::To
            | Name::CallId
            | Name::CSeq
            | Name::Contact
            | Name::RecordRoute
            | Name::Route
            | Name::MaxForwards
            | Name::ContentLength
            | Name::RAck => {}
            _ => write::line(out, header.line),
        }
    }
}

fn pass_contacts(out: &mut Vec<u8>, message: View<'_>) {
    for header in message.headers().filter(|header| header.name == Name::Contact) {
        write::line(out, header.line);
    }
}

/// RAck: the RSeq stays, the CSeq becomes that of the INVITE on this leg (RFC 3262 §7.2).
fn write_rack(out: &mut Vec<u8>, rack: &[u8], invite_cseq: u32) {
    let mut words = rack.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let (Some(rseq), Some(_), Some(method)) = (words.next(), words.next(), words.next()) else {
        return write::header(out, "RAck", rack);
    };
    out.extend_from_slice(b"RAck: ");
    out.extend_from_slice(rseq);
    out.push(b' ');
    write::number(out, u64::from(invite_cseq));
    out.push(b' ');
    out.extend_from_slice(method);
    out.extend_from_slice(b"\r\n");
}

/// RFC 3311 §5.1; re-INVITE is handled apart.
fn refreshes_target(method: Method) -> bool {
    method == Method::Update
}
