//! Calls at another address of their device than the first, and devices whose addresses change.

use crate::scenarios::DELAY;
use crate::script::{B, C, Script, reinvite};

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
