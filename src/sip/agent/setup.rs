//! A new call: routing, the two legs, the first INVITE (RFC 3261 §13).

use std::io::Write;

use super::{Agent, Call, events, respond_unavailable, rest_of_invite};
use crate::key::{CallId, FlowId, LegId, ServerId, Side};
use crate::options::{Device, DeviceId, ForeignCallers, Options};
use crate::sip::dialog::{Dialog, hops_left};
use crate::sip::flow::Flow;
use crate::sip::kept::{Kept, Pool};
use crate::sip::message::{Uri, View, is_secure};
use crate::sip::session::{Incoming, Leg, Party};
use crate::sip::token::{Token, put_hex};
use crate::sip::transaction::Stack;
use crate::target::{Target, Transport};

/// Where a new call comes from and goes to.
struct Route {
    caller: Option<DeviceId>,
    callee: DeviceId,
    /// Request-URI on the callee's leg.
    uri: Kept,
    target: Target,
    /// What calls to the callee go through.
    proxy: Option<Target>,
}

impl Agent {
    /// An INVITE outside any dialog.
    pub(super) fn on_new_invite(
        &mut self,
        stack: &mut Stack,
        flow: FlowId,
        server: ServerId,
        invite: View<'_>,
    ) {
        let full = self.calls.len() >= stack.options.limits.calls_max as usize;
        if self.draining || full || !stack.has_room_for_client() {
            return respond_unavailable(stack, server);
        }
        let Some(from) = stack.flows.get(flow) else {
            return stack.end_server(server);
        };
        let peer = from.target();
        let route = match find_route(&stack.options, &mut stack.pool, from, invite) {
            Ok(route) => route,
            Err(status) => return stack.refuse(server, status),
        };
        let max_forwards = hops_left(invite);
        if max_forwards == 0 {
            return stack.respond(server, 483);
        }
        // RFC 3261 §8.1.1.8: one SIP or SIPS URI, which requests to the caller will go to.
        if invite.contact().and_then(|contact| contact.uri()).is_none() {
            return stack.respond(server, 400);
        }
        let CallId(key) = self.calls.next_key();
        let tags = [stack.token(key.index << 1), stack.token(key.index << 1 | 1)];
        let legs = make_legs(stack, flow, peer, &route, invite, tags);
        stack.pool.give_back(route.uri);
        let Some(legs) = legs else {
            return stack.respond(server, 400);
        };
        stack.set_to_tag(server, tags[0]);
        stack.respond(server, 100);
        let call = self.calls.insert(Call { legs, session: None });
        let Some(call_mut) = self.calls.get_mut(call) else { return };
        call_mut.leg_mut(Side::A).incoming = Some(Incoming {
            server,
            cseq: invite.cseq().map_or(0, |(number, _)| number),
            initial: true,
            accepted: None,
        });
        let id = LegId { call, side: Side::B };
        let offered = invite.has_offer();
        let leg = call_mut.leg_mut(Side::B);
        let sent = leg.send_invite(stack, &mut self.spares, id, max_forwards - 1, offered, |out| {
            rest_of_invite(out, invite);
        });
        if !sent {
            self.calls.remove(call);
            return stack.respond(server, 513);
        }
        events::enter(stack, call_mut, id.other(), Party::Dialing);
    }
}

/// Decides who calls whom, or with which status the call is refused.
fn find_route(
    options: &Options,
    pool: &mut Pool,
    flow: &Flow,
    invite: View<'_>,
) -> Result<Route, u16> {
    let from = invite.from().and_then(|from| from.uri());
    let number = from.map(|uri| uri.number()).unwrap_or_default();
    let caller = flow.hosts(options).find_map(|host| options.caller(host, &number));
    if caller.is_none() && options.foreign_callers == ForeignCallers::Refuse {
        return Err(403);
    }
    let uri = Uri::parse(invite.request_uri()).ok_or(416u16)?;
    let callee = options.route(&uri.number()).ok_or(404u16)?;
    let device = options.device(callee).ok_or(404u16)?;
    // Its name has no answer yet: nobody can be reached.
    let target = device.target().ok_or(503u16)?;
    if uri.is_secure() && [device.transport, target.transport] != [Transport::Tls; 2] {
        // Every hop is to be TLS (RFC 5630 §4), and the one to the device is not.
        return Err(480);
    }
    let mut buffer = pool.take_buffer();
    write_request_uri(&mut buffer, device, &uri);
    let uri = pool.keep_buffer(buffer);
    Ok(Route { caller, callee, uri, target, proxy: device.outbound })
}

/// Writes the Request-URI of an INVITE to a device that was asked for by `asked`; SIPS stays SIPS (RFC 5630 §5.1.2).
fn write_request_uri(out: &mut Vec<u8>, device: &Device, asked: &Uri<'_>) {
    let contact = device.contact.as_bytes();
    let secure = asked.is_secure() || is_secure(contact);
    let after = memchr::memchr(b':', contact).map_or(contact, |colon| &contact[colon + 1..]);
    out.extend_from_slice(if secure { b"sips:" } else { b"sip:" });
    if device.contact_has_user {
        return out.extend_from_slice(after);
    }
    out.extend_from_slice(asked.user.unwrap_or_default());
    out.push(b'@');
    let Some(address) = device.address.filter(|_| device.names.contact.is_none()) else {
        // The name, as it is written.
        return out.extend_from_slice(after);
    };
    // Writing to a vector does not fail.
    let _ = write!(out, "{address}");
    if !secure {
        out.extend_from_slice(b";transport=");
        out.extend_from_slice(device.transport.in_uri().as_bytes());
    }
}

fn make_legs(
    stack: &mut Stack,
    flow: FlowId,
    peer: Target,
    route: &Route,
    invite: View<'_>,
    tags: [Token; 2],
) -> Option<[Leg; 2]> {
    let mut call_id = [0; 32];
    for half in call_id.chunks_mut(16) {
        put_hex(half, stack.random());
    }
    let fallback = route.caller.and_then(|id| stack.options.device(id)).and_then(Device::target);
    let a = Leg {
        dialog: Dialog::of_invite(&mut stack.pool, invite, tags[0], peer.transport)?,
        confirmed: false,
        device: route.caller,
        flow: Some(flow),
        target: None,
        watched: false,
        fallback: fallback.unwrap_or(peer),
        invite_cseq: None,
        party: Party::Null,
        outgoing: None,
        incoming: None,
    };
    let mut b = Leg {
        dialog: Dialog::to_target(
            &mut stack.pool,
            invite,
            tags[1],
            &call_id,
            &route.uri,
            route.target.transport,
        )?,
        confirmed: false,
        device: Some(route.callee),
        flow: None,
        target: None,
        watched: false,
        fallback: route.target,
        invite_cseq: None,
        party: Party::Null,
        outgoing: None,
        incoming: None,
    };
    if let Some(proxy) = route.proxy {
        b.dialog.go_through(&mut stack.pool, proxy);
    }
    b.begin_with_reachable(stack);
    Some([a, b])
}
