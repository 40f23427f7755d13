//! Calls at another address of their device than the first, and devices whose addresses change.

use std::net::SocketAddr;
use std::sync::Arc;

use holdfast::key::ShardId;
use holdfast::options::Options;
use holdfast::sip::{Action, Actions, Endpoint, Input, NewFlow};
use holdfast::target::Transport;
use holdfast::time::Instant;

use crate::message::Msg;
use crate::peer::Peer;
use crate::scenarios::DELAY;
use crate::script::{A, B, C, Script, reinvite};
use crate::swarm::{SERVER, device, peer_addr};

#[test]
fn a_call_that_began_at_a_backup_fails_over_to_the_contact() {
    let mut s = Script::new().option(DELAY, 500).backup();
    s.call_at_c();
    s.accept(B);
    s.at(1000).reset(C);
    s.refuse(C);
    s.a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.b_answers(200);
    s.b_receives("ACK");
    s.a_receives("200");
}

#[test]
fn a_call_fails_over_to_the_other_target_whichever_of_them_dns_names_first() {
    let mut s = Script::established().option(DELAY, 500).backup();
    s.device_is_at(&[C, B]);
    s.at(0).a_sends(reinvite());
    s.a_receives("100");
    s.b_receives("INVITE");
    s.at(10).reset(B);
    s.connects_to(C);
    s.c_receives("INVITE");
    s.at(100).reset(C);
    s.until(599).nothing_happens();
    s.at(600).connects_to(B);
    s.b_receives("INVITE");
}

#[test]
fn a_call_at_a_target_whose_contact_is_a_name_stays_there_when_dns_names_no_other_any_more() {
    let mut s = Script::new().option(DELAY, 500).backup().trunk("1");
    s.world.peers[C].contact = "sip:1001@pbx.example;transport=tcp".to_owned();
    s.call_at_c();
    s.accept(B);
    s.device_is_at(&[C]);
    s.at(1000).a_sends(reinvite());
    s.a_receives("100");
    s.c_receives("INVITE");
    s.at(1010).reset(C);
    s.at(1510).connects_to(C);
    s.c_receives("INVITE");
    s.c_answers(200);
    s.c_receives("ACK");
    s.a_receives("200");
}

#[test]
fn a_call_whose_contact_is_a_name_follows_that_to_its_new_address_when_the_old_one_is_dead() {
    let mut s = Script::new().option(DELAY, 500).backup().trunk("1");
    s.world.peers[B].contact = "sip:1001@pbx.example;transport=tcp".to_owned();
    let mut s = s.establish();
    s.device_is_at(&[C]);
    s.at(0).reset(B);
    s.refuse(B);
    s.a_sends(reinvite());
    s.a_receives("100");
    s.at(500).connects_to(C);
    s.c_receives("INVITE");
}

#[test]
fn a_target_that_rings_and_dies_does_not_keep_a_new_invite_from_the_one_set_aside() {
    let mut s = Script::new().backup();
    s.refuse(B);
    s.at(0).a_calls("1001");
    s.a_receives("100");
    s.c_receives("INVITE");
    s.c_answers(486);
    s.c_receives("ACK");
    s.a_receives("486");
    s.a_acknowledges();
    s.accept(B);
    s.at(1000).a_calls("1001");
    s.a_receives("100");
    s.c_receives("INVITE");
    s.c_answers(180);
    s.a_receives("180");
    s.reset(C);
    s.b_receives("INVITE");
}

/// An INVITE for B, from whoever.
const INVITE: [(&str, &str); 7] = [
    ("Via", "SIP/2.0/TCP 10.7.7.7;branch=z9hG4bK1"),
    ("Max-Forwards", "70"),
    ("From", "<sip:1000@sim.example>;tag=a1"),
    ("To", "<sip:1001@sim.example>"),
    ("Call-ID", "1@sim.example"),
    ("CSeq", "1 INVITE"),
    ("Contact", "<sip:1000@10.7.7.7:5060>"),
];

#[test]
fn a_peer_with_the_certificate_of_a_device_is_that_device_when_that_has_another_address() {
    let server: SocketAddr = SERVER.parse().expect("an address");
    let devices = |first: SocketAddr| {
        let mut devices = [A, B].map(|index| {
            let peer = Peer::new(index, format!("100{index}"), peer_addr(index), server);
            device(&peer, &peer.name, None)
        });
        devices[A].address = Some(first);
        let mut options = Options::default().with_devices(devices.to_vec());
        options.sent_by = SERVER.to_owned();
        Arc::new(options)
    };
    let (now, mut actions) = (Instant::from_millis(1), Actions::new());
    let options = devices(peer_addr(A));
    let id = options.route("1000").expect("a device");
    let mut endpoint = Endpoint::new(ShardId(0), [7; 32], options);
    let peer = "10.7.7.7:40000".parse().expect("an address");
    let ends = NewFlow { peer, local: server, transport: Transport::Tcp };
    let flow = endpoint.accept(now, ends).expect("room for a flow");
    endpoint.handle(now, Input::Certified { flow, devices: &[id] }, &mut actions);
    endpoint.handle(now, Input::Options(devices(peer_addr(C))), &mut actions);
    let invite = INVITE
        .iter()
        .fold(Msg::request("INVITE", &format!("sip:1001@{SERVER}")), |invite, (name, value)| {
            invite.with(name, *value)
        });
    endpoint.handle(now, Input::Message { flow, bytes: &invite.to_bytes() }, &mut actions);
    let trying =
        |action| matches!(action, Action::Send { bytes, .. } if bytes.starts_with(b"SIP/2.0 100"));
    assert!(actions.iter().any(trying), "it is no stranger");
}

impl Script {
    /// B cannot be reached, and C takes a call.
    fn call_at_c(&mut self) {
        self.refuse(B);
        self.a_calls("1001");
        self.a_receives("100");
        self.c_receives("INVITE");
        self.c_answers(200);
        self.c_receives("ACK");
        self.a_receives("200");
        self.a_acknowledges();
    }
}
