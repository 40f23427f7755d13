//! Long calls in which nothing is wrong.

use super::By::{Maker, Taker};
use super::*;

/// A callee through holds, glare, a CANCEL, two recoveries in one operation, a late 2xx, and BYE.
#[test]
fn a_long_call_of_a_callee_breaks_nothing() {
    let mut end = End::new();
    let reinvite =
        |cseq, version| request(Maker, true, "INVITE", cseq, &format!("i{cseq}"), &sdp(version));
    let answer =
        |status: u16, cseq| response(Maker, status, "INVITE", cseq, &format!("i{cseq}"), &sdp(1));
    let ack = |cseq, branch: &str| request(Maker, true, "ACK", cseq, branch, "");
    end.reads(&request(Maker, false, "INVITE", 1, "i1", &sdp(1)));
    end.sends(&answer(180, 1)).sends(&answer(200, 1)).sends(&answer(200, 1));
    end.reads(&ack(1, "a1")).reads(&ack(1, "a1"));
    for round in 0..1000u32 {
        let (cseq, version) = (2 + round * 10, 2 + round);
        // Hold and retrieve.
        end.reads(&reinvite(cseq, version)).sends(&answer(200, cseq));
        end.reads(&ack(cseq, &format!("a{cseq}")));
        // Glare: its own INVITE is out when the server's comes.
        let own = request(Taker, true, "INVITE", round + 1, &format!("t{round}"), &sdp(version));
        end.sends(&own).reads(&reinvite(cseq + 1, version)).sends(&answer(491, cseq + 1));
        end.reads(&ack(cseq + 1, &format!("i{}", cseq + 1)));
        end.reads(&response(Taker, 491, "INVITE", round + 1, &format!("t{round}"), ""));
        end.later(2100).reads(&reinvite(cseq + 2, version)).sends(&answer(200, cseq + 2));
        end.reads(&ack(cseq + 2, &format!("a{}", cseq + 2)));
        // The flow dies twice under one operation; the attempt in the middle is answered late.
        end.reads(&reinvite(cseq + 3, version)).sends(&answer(100, cseq + 3)).loses_flow();
        end.later(510).reads(&reinvite(cseq + 4, version)).loses_flow();
        end.later(510).reads(&reinvite(cseq + 5, version));
        end.sends(&answer(200, cseq + 4)).sends(&answer(200, cseq + 5));
        end.reads(&ack(cseq + 5, &format!("a{}", cseq + 5)));
        end.reads(&ack(cseq + 4, &format!("a{}", cseq + 4)));
        // Its 2xx dies with the flow; the same offer comes again.
        end.reads(&reinvite(cseq + 6, version)).sends(&answer(200, cseq + 6)).loses_flow();
        end.later(510).reads(&reinvite(cseq + 7, version)).sends(&answer(200, cseq + 7));
        end.reads(&ack(cseq + 7, &format!("a{}", cseq + 7)));
        // One is taken back.
        let branch = format!("i{}", cseq + 8);
        end.reads(&reinvite(cseq + 8, version + 1));
        end.reads(&request(Maker, true, "CANCEL", cseq + 8, &branch, ""));
        end.sends(&answer(487, cseq + 8)).reads(&ack(cseq + 8, &branch));
        end.reads(&request(Maker, true, "OPTIONS", cseq + 9, &format!("o{cseq}"), ""));
    }
    end.may_end = true;
    end.reads(&request(Maker, true, "BYE", 20_000, "b", "")).ends().broke_nothing();
}

/// A caller whose re-INVITEs are answered, refused and taken back, and that hangs up.
#[test]
fn a_long_call_of_a_caller_breaks_nothing() {
    let mut end = End::new();
    let invite = |cseq| request(Maker, cseq > 1, "INVITE", cseq, &format!("i{cseq}"), &sdp(cseq));
    let answer =
        |status: u16, cseq| response(Maker, status, "INVITE", cseq, &format!("i{cseq}"), &sdp(1));
    end.sends(&invite(1)).reads(&answer(100, 1)).reads(&answer(180, 1)).reads(&answer(200, 1));
    end.sends(&request(Maker, true, "ACK", 1, "a1", "")).reads(&answer(200, 1));
    end.sends(&request(Maker, true, "ACK", 1, "a1", ""));
    let mut cseq = 1;
    for _ in 0..1000 {
        end.sends(&invite(cseq + 1)).reads(&answer(100, cseq + 1)).reads(&answer(200, cseq + 1));
        end.sends(&request(Maker, true, "ACK", cseq + 1, "a", ""));
        end.sends(&invite(cseq + 2)).reads(&answer(408, cseq + 2));
        end.sends(&request(Maker, true, "ACK", cseq + 2, &format!("i{}", cseq + 2), ""));
        end.sends(&invite(cseq + 3)).reads(&answer(100, cseq + 3));
        let branch = format!("i{}", cseq + 3);
        end.sends(&request(Maker, true, "CANCEL", cseq + 3, &branch, ""));
        end.reads(&response(Maker, 200, "CANCEL", cseq + 3, &branch, ""));
        end.reads(&answer(487, cseq + 3));
        end.sends(&invite(cseq + 4)).loses_flow().later(40_000);
        cseq += 4;
    }
    end.sends(&request(Maker, true, "BYE", cseq + 1, "bye", ""));
    end.reads(&response(Maker, 200, "BYE", cseq + 1, "bye", "")).ends().broke_nothing();
}

/// Over datagrams everything may come twice.
#[test]
fn a_call_over_datagrams_in_which_all_comes_twice_breaks_nothing() {
    let mut end = End::new();
    end.datagrams = true;
    end.may_end = true;
    let twice = |end: &mut End, text: &str| {
        end.reads(text).reads(text);
    };
    twice(&mut end, &request(Maker, false, "INVITE", 1, "i1", &sdp(1)));
    end.sends(&response(Maker, 200, "INVITE", 1, "i1", &sdp(1)));
    twice(&mut end, &request(Maker, true, "ACK", 1, "a1", ""));
    end.sends(&request(Taker, true, "INVITE", 1, "t1", &sdp(2)));
    end.sends(&request(Taker, true, "INVITE", 1, "t1", &sdp(2)));
    for status in [100, 200] {
        twice(&mut end, &response(Taker, status, "INVITE", 1, "t1", &sdp(1)));
    }
    twice(&mut end, &request(Maker, true, "INFO", 2, "o2", ""));
    twice(&mut end, &request(Maker, true, "INVITE", 3, "i3", &sdp(3)));
    end.sends(&response(Maker, 488, "INVITE", 3, "i3", ""));
    twice(&mut end, &request(Maker, true, "ACK", 3, "i3", ""));
    twice(&mut end, &request(Maker, true, "BYE", 4, "b4", ""));
    end.ends().broke_nothing();
}

/// A registration has no dialog: each answer has a tag of its own.
#[test]
fn requests_outside_dialogs_are_not_judged_by_a_dialog() {
    let mut end = End::new();
    for cseq in 1..4 {
        let branch = format!("r{cseq}");
        end.sends(&request(Maker, false, "REGISTER", cseq, &branch, ""));
        let ok = response(Maker, 200, "REGISTER", cseq, &branch, "");
        end.reads(&ok.replace("tag=taker", &format!("tag=t{cseq}")));
    }
    end.ends().broke_nothing();
}

/// What the server's events are compared with.
#[test]
fn what_a_callee_saw_of_its_call_is_counted() {
    let between = |least, most| Between { least, most };
    let mut end = End::new();
    let hold = |cseq| request(Maker, true, "INVITE", cseq, &format!("i{cseq}"), &sdp(2));
    let ok = |cseq| response(Maker, 200, "INVITE", cseq, &format!("i{cseq}"), &sdp(1));
    let ack = |cseq| request(Maker, true, "ACK", cseq, &format!("a{cseq}"), "");
    end.reads(&request(Maker, false, "INVITE", 1, "i1", &sdp(1)));
    assert_eq!(end.dialog.seen_call(), SeenCalls::default());
    end.sends(&ok(1));
    assert_eq!(end.dialog.seen_call().established, between(0, 1));
    end.reads(&ack(1)).reads(&hold(2)).sends(&ok(2)).reads(&ack(2));
    let seen = end.dialog.seen_call();
    assert_eq!(
        (seen.established, seen.recovered, seen.over),
        (between(1, 1), between(0, 0), between(0, 1))
    );
    // An attempt anew, its answer and the ACK are a recovery.
    end.reads(&hold(3)).loses_flow().later(510).reads(&hold(4)).sends(&ok(4)).reads(&ack(4));
    end.reads(&hold(5)).sends(&ok(5)).reads(&ack(5));
    assert_eq!(end.dialog.seen_call().recovered, between(1, 1));
    // After a loss without anything under way, the next INVITE may be one or not.
    end.loses_flow();
    assert!(!end.dialog.must_be_told());
    end.later(600).reads(&hold(6)).sends(&ok(6)).reads(&ack(6));
    assert!(end.dialog.must_be_told());
    assert_eq!(end.dialog.seen_call().recovered, between(1, 2));
    end.may_end = true;
    end.reads(&request(Maker, true, "BYE", 7, "bye", ""));
    assert_eq!(end.dialog.seen_call().over, between(1, 1));
    end.ends().broke_nothing();
}

/// A flow that is lost again before the next attempt: that one may come `delay` after the first loss.
#[test]
fn a_second_loss_does_not_put_off_the_attempt() {
    let mut end = End::new();
    let hold = |cseq| request(Maker, true, "INVITE", cseq, &format!("i{cseq}"), &sdp(2));
    end.reads(&request(Maker, false, "INVITE", 1, "i1", &sdp(1)));
    end.sends(&response(Maker, 200, "INVITE", 1, "i1", &sdp(1)));
    end.reads(&request(Maker, true, "ACK", 1, "a1", "")).reads(&hold(2));
    end.loses_flow().later(300).loses_flow().later(210).reads(&hold(3)).broke_nothing();
}
