//! Calls at another address of their device than the first, and devices whose addresses change.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast::key::{FlowId, ShardId};
use holdfast::options::Options;
use holdfast::sip::{Action, Actions, Endpoint, Input, NewFlow};
use holdfast::target::Transport;
use holdfast::time::Instant;

use crate::message::Msg;
use crate::peer::Peer;
use crate::scenarios::DELAY;
use crate::script::{A, B, C, Script, reinvite};
use crate::swarm::{SERVER, device, peer_addr};
use crate::targets::b_is_set_aside;

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
    let mut s = b_is_set_aside();
    s.at(1000).a_calls("1001");
    s.a_receives("100");
    s.c_receives("INVITE");
    s.c_answers(180);
    s.a_receives("180");
    s.reset(C);
    s.b_receives("INVITE");
}

/// An endpoint with a flow of a stranger who has the certificate of the device 1000.
struct Certified {
    endpoint: Endpoint,
    flow: FlowId,
    actions: Actions,
}

const NOW: Instant = Instant::from_millis(1);

/// The devices 1000 and 1001 at these peers' addresses.
fn devices(at: [usize; 2]) -> Arc<Options> {
    let server: SocketAddr = SERVER.parse().expect("an address");
    let devices = [A, B].map(|index| {
        let peer = Peer::new(index, format!("100{index}"), peer_addr(at[index]), server);
        device(&peer, &peer.name, None)
    });
    let mut options = Options::default().with_devices(devices.to_vec());
    options.sent_by = SERVER.to_owned();
    Arc::new(options)
}

impl Certified {
    fn new() -> Self {
        let options = devices([A, B]);
        let id = options.route("1000").expect("a device");
        let mut endpoint = Endpoint::new(ShardId(0), [7; 32], options);
        let ends = |peer: &str| NewFlow {
            peer: peer.parse().expect("an address"),
            local: SERVER.parse().expect("an address"),
            transport: Transport::Tcp,
        };
        let flow = endpoint.accept(NOW, ends("10.7.7.7:40000")).expect("room for a flow");
        let mut actions = Actions::new();
        endpoint.handle(NOW, Input::Certified { flow, devices: &[id] }, &mut actions);
        Self { endpoint, flow, actions }
    }

    fn devices_are_at(&mut self, at: [usize; 2]) {
        self.endpoint.handle(NOW, Input::Options(devices(at)), &mut self.actions);
    }

    /// The peer says this to the server, in its first words or later.
    fn says(&mut self, method: &str, serial: u32, number: &str, via: &str) {
        let head = [
            ("Via", format!("SIP/2.0/TCP {via};branch=z9hG4bK{serial}")),
            ("Max-Forwards", "70".to_owned()),
            ("From", "<sip:1000@sim.example>;tag=a1".to_owned()),
            ("To", format!("<sip:{number}@sim.example>")),
            ("Call-ID", format!("{serial}@sim.example")),
            ("CSeq", format!("1 {method}")),
            ("Contact", "<sip:1000@10.7.7.7:5060>".to_owned()),
        ];
        let message = Msg::request(method, &format!("sip:{number}@{SERVER}"));
        let message =
            head.into_iter().fold(message, |message, (name, value)| message.with(name, value));
        self.actions.clear();
        let bytes = message.to_bytes();
        self.endpoint.handle(
            NOW,
            Input::Message { flow: self.flow, bytes: &bytes, waited: Duration::ZERO },
            &mut self.actions,
        );
    }

    /// Something was sent down the flow that begins so.
    fn hears(&self, start: &[u8]) -> bool {
        self.actions.iter().any(|action| {
            matches!(action, Action::Send { flow, bytes } if flow == self.flow && bytes.starts_with(start))
        })
    }
}

#[test]
fn a_peer_with_the_certificate_of_a_device_is_that_device_when_that_has_another_address() {
    let mut peer = Certified::new();
    peer.devices_are_at([C, B]);
    peer.says("INVITE", 1, "1001", "10.7.7.7");
    assert!(peer.hears(b"SIP/2.0 100"), "it is no stranger");
}

#[test]
fn calls_go_down_the_flow_of_a_certificate_wherever_its_device_moves_and_nobody_elses_do() {
    let mut peer = Certified::new();
    peer.says("OPTIONS", 1, "1000", &format!("{};alias", peer_addr(A)));
    peer.says("INVITE", 2, "1000", "10.7.7.7");
    assert!(peer.hears(b"INVITE sip:1000@"));
    peer.devices_are_at([C, A]);
    peer.says("INVITE", 3, "1000", "10.7.7.7");
    assert!(peer.hears(b"INVITE sip:1000@"), "the device is there now");
    peer.says("INVITE", 4, "1001", "10.7.7.7");
    assert!(peer.hears(b"SIP/2.0 100") && !peer.hears(b"INVITE "), "that is another device");
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
