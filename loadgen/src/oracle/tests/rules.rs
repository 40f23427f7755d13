//! One sequence of messages for each rule, that breaks it and no other.

use super::By::{Maker, Taker};
use super::*;

/// A callee with a call that stands: CSeq 1 was answered and acknowledged.
fn callee() -> End {
    let mut end = End::new();
    end.reads(&request(Maker, false, "INVITE", 1, "i1", &sdp(1)))
        .sends(&response(Maker, 180, "INVITE", 1, "i1", ""))
        .sends(&response(Maker, 200, "INVITE", 1, "i1", &sdp(1)))
        .reads(&request(Maker, true, "ACK", 1, "a1", ""));
    end.broke_nothing();
    end
}

/// A caller with a call that stands, over a route set of two.
fn caller() -> End {
    let mut end = End::new();
    let ok = response(Maker, 200, "INVITE", 1, "i1", &sdp(1));
    let ok = ok.replace("Contact", "Record-Route: <sip:p2;lr>, <sip:p1;lr>\r\nContact");
    end.sends(&request(Maker, false, "INVITE", 1, "i1", &sdp(1)))
        .reads(&response(Maker, 100, "INVITE", 1, "i1", ""))
        .reads(&ok)
        .sends(&routed(&request(Maker, true, "ACK", 1, "a1", "")));
    end.broke_nothing();
    end
}

fn routed(text: &str) -> String {
    text.replacen("Max-Forwards", "Route: <sip:p1;lr>\r\nRoute: <sip:p2;lr>\r\nMax-Forwards", 1)
}

/// A re-INVITE of the server to a callee.
fn reinvite(cseq: u32, version: u32) -> String {
    request(Maker, true, "INVITE", cseq, &format!("i{cseq}"), &sdp(version))
}

/// A re-INVITE of a caller.
fn own_reinvite(cseq: u32) -> String {
    routed(&request(Maker, true, "INVITE", cseq, &format!("i{cseq}"), &sdp(cseq)))
}

fn answer(status: u16, cseq: u32) -> String {
    let body = if status == 200 { sdp(2) } else { String::new() };
    response(Maker, status, "INVITE", cseq, &format!("i{cseq}"), &body)
}

#[test]
fn cseq_rises() {
    let mut end = callee();
    end.reads(&request(Maker, true, "INFO", 1, "o1", "")).broke(Rule::CseqNotHigher);
    // The first may be any; an old one is not pardoned by the new ones after it.
    let mut end = callee();
    end.reads(&request(Maker, true, "INFO", 9, "o9", "")).broke_nothing();
    end.reads(&request(Maker, true, "INFO", 8, "o8", "")).broke(Rule::CseqNotHigher);
}

#[test]
fn a_branch_is_new() {
    let text = request(Maker, true, "INFO", 2, "i1", "");
    callee().reads(&text).broke(Rule::BranchNotNew);
    // An attempt that is the one before, byte for byte.
    let mut end = callee();
    end.reads(&reinvite(2, 2)).loses_flow().later(600).reads(&reinvite(2, 2));
    end.broke(Rule::BranchNotNew);
    // Over datagrams that is a retransmission.
    let mut end = callee();
    end.datagrams = true;
    end.reads(&reinvite(2, 2)).later(500).reads(&reinvite(2, 2)).broke_nothing();
    // The ACK of a 2xx is a transaction of its own.
    let mut end = callee();
    end.reads(&reinvite(2, 2)).sends(&answer(200, 2));
    end.reads(&request(Maker, true, "ACK", 2, "i2", "")).broke(Rule::BranchNotNew);
}

#[test]
fn call_id_and_tags_stay() {
    let text = request(Maker, true, "INFO", 2, "o2", "");
    for (from, to) in [("one@h", "two@h"), ("tag=maker", "tag=faker"), ("tag=taker", "tag=baker")] {
        callee().reads(&text.replace(from, to)).broke(Rule::DialogChanged);
    }
    let mut end = caller();
    end.sends(&own_reinvite(2)).reads(&answer(200, 2).replace("tag=taker", "tag=other"));
    end.broke(Rule::DialogChanged);
    let mut end = caller();
    end.sends(&routed(&request(Maker, true, "BYE", 2, "o2", "")));
    end.reads(&response(Maker, 200, "BYE", 2, "o2", "").replace("one@h", "two@h"));
    end.broke(Rule::DialogChanged);
}

#[test]
fn there_is_one_final_response() {
    let mut end = caller();
    end.sends(&own_reinvite(2)).reads(&answer(200, 2)).reads(&answer(200, 2)).broke_nothing();
    end.reads(&answer(488, 2)).broke(Rule::FinalTwice);
    let mut end = caller();
    end.sends(&own_reinvite(2)).reads(&answer(488, 2)).reads(&answer(488, 2));
    end.broke(Rule::FinalTwice);
    let mut end = caller();
    end.datagrams = true;
    end.sends(&own_reinvite(2)).reads(&answer(488, 2)).reads(&answer(488, 2)).broke_nothing();
    let bye = response(Maker, 200, "BYE", 2, "o2", "");
    let mut end = caller();
    end.sends(&routed(&request(Maker, true, "BYE", 2, "o2", ""))).reads(&bye).broke_nothing();
    end.reads(&bye).broke(Rule::FinalTwice);
}

#[test]
fn a_fork_answers_for_itself() {
    let mut end = caller();
    end.reads(&response(Maker, 200, "INVITE", 1, "i1", "").replace("tag=taker", "tag=fork"));
    end.sends(&own_reinvite(2)).reads(&answer(200, 2)).broke_nothing();
}

#[test]
fn nothing_provisional_comes_after_the_final_response() {
    let mut end = caller();
    end.sends(&own_reinvite(2)).reads(&answer(180, 2)).reads(&answer(200, 2)).broke_nothing();
    end.reads(&answer(180, 2)).broke(Rule::ProvisionalAfterFinal);
}

#[test]
fn a_response_answers_a_request() {
    caller().reads(&answer(200, 2)).broke(Rule::ResponseForNothing);
    caller().reads(&response(Maker, 200, "BYE", 2, "o2", "")).broke(Rule::ResponseForNothing);
    caller().reads(&response(Maker, 200, "ACK", 1, "a1", "")).broke(Rule::ResponseForNothing);
    let cancelled = response(Maker, 200, "CANCEL", 1, "i1", "");
    caller().reads(&cancelled).broke(Rule::ResponseForNothing);
    let mut end = caller();
    end.sends(&own_reinvite(2)).reads(&answer(200, 2).replace("z9hG4bK-i2", "z9hG4bK-i3"));
    end.broke(Rule::ResponseForNothing);
    // A late one to the request before is none.
    let mut end = caller();
    end.sends(&own_reinvite(2)).reads(&answer(200, 2)).sends(&own_reinvite(3));
    end.reads(&answer(200, 2)).broke_nothing();
}

#[test]
fn a_released_call_has_its_invite_answered() {
    let bye = request(Taker, true, "BYE", 7, "b7", "");
    let mut end = caller();
    end.may_end = true;
    end.sends(&own_reinvite(2)).reads(&bye).broke_nothing();
    end.ends().ends().broke(Rule::NeverAnswered);
    let mut end = caller();
    end.may_end = true;
    end.sends(&own_reinvite(2)).reads(&bye).reads(&answer(481, 2)).ends().broke_nothing();
    let mut end = caller();
    end.may_end = true;
    end.sends(&own_reinvite(2)).loses_flow().reads(&bye).ends().broke_nothing();
}

#[test]
fn the_final_response_comes_before_bye() {
    let mut end = caller();
    end.may_end = true;
    end.sends(&own_reinvite(2)).reads(&answer(100, 2));
    end.reads(&request(Taker, true, "BYE", 7, "b7", "")).reads(&answer(408, 2)).ends();
    end.broke(Rule::ByeBeforeFinal);
}

#[test]
fn the_route_set_is_kept() {
    caller().sends(&routed(&request(Maker, true, "INFO", 2, "o2", ""))).broke_nothing();
    caller().sends(&request(Maker, true, "INFO", 2, "o2", "")).broke(Rule::RouteSet);
    let turned = routed(&request(Maker, true, "INFO", 2, "o2", ""));
    let turned = turned.replace("p1", "p3").replace("p2", "p1").replace("p3", "p2");
    caller().sends(&turned).broke(Rule::RouteSet);
    let left = request(Maker, true, "INFO", 2, "o2", "");
    let left = left.replace("Max-Forwards", "Route: <sip:p9;lr>\r\nMax-Forwards");
    callee().reads(&left).broke(Rule::RouteSet);
    // A callee's is the Record-Route of the INVITE as it stands.
    let mut end = End::new();
    let invite = request(Maker, false, "INVITE", 1, "i1", &sdp(1));
    let recorded = "Record-Route: <sip:p1;lr>,<sip:p2;lr>\r\nMax-Forwards";
    end.reads(&invite.replace("Max-Forwards", recorded)).sends(&answer(200, 1));
    end.sends(&routed(&request(Taker, true, "INFO", 5, "o5", ""))).broke_nothing();
    end.sends(&turned.replace("maker", "other")).broke(Rule::RouteSet);
}

#[test]
fn requests_have_max_forwards() {
    let text = request(Maker, true, "INFO", 2, "o2", "");
    callee().reads(&text.replace("Max-Forwards: 70\r\n", "")).broke(Rule::MaxForwards);
    callee().reads(&text.replace("Max-Forwards: 70", "Max-Forwards: x")).broke(Rule::MaxForwards);
}

#[test]
fn an_attempt_has_the_body_of_the_one_before() {
    let mut end = callee();
    end.reads(&reinvite(2, 2)).loses_flow().later(600).reads(&reinvite(3, 3));
    end.broke(Rule::BodyChanged);
    // After a 503 that the server takes for a failure.
    let mut end = callee();
    let unavailable = answer(503, 2).replace("Call-ID", "Error-Info: transport-error\r\nCall-ID");
    end.reads(&reinvite(2, 2)).sends(&unavailable);
    end.reads(&request(Maker, true, "ACK", 2, "i2", "")).later(600).reads(&reinvite(3, 3));
    end.broke(Rule::BodyChanged);
    // Another operation has another body: after an answer, or when the first was taken back.
    let mut end = callee();
    end.reads(&reinvite(2, 2)).sends(&answer(488, 2)).reads(&reinvite(3, 3)).broke_nothing();
    let mut end = callee();
    end.reads(&reinvite(2, 2)).loses_flow();
    end.dialog.operation_over();
    end.reads(&reinvite(3, 3)).broke_nothing();
}

#[test]
fn the_version_of_a_description_does_not_fall() {
    let mut end = callee();
    end.reads(&reinvite(2, 5)).sends(&answer(200, 2));
    end.reads(&request(Maker, true, "ACK", 2, "a2", "")).reads(&reinvite(3, 4));
    end.broke(Rule::SdpVersionLower);
    let mut end = callee();
    end.reads(&reinvite(2, 5)).sends(&answer(200, 2));
    let other = reinvite(3, 4).replace("o=lg 1", "o=lg 2");
    end.reads(&request(Maker, true, "ACK", 2, "a2", "")).reads(&other).broke_nothing();
    let mut end = caller();
    end.sends(&own_reinvite(2)).reads(&answer(200, 2).replace("o=lg 1 2", "o=lg 1 0"));
    end.broke(Rule::SdpVersionLower);
}

#[test]
fn contact_is_where_it_must_be() {
    let contact = "Contact: <sip:x@h:5>\r\n";
    callee().reads(&reinvite(2, 2).replace(contact, "")).broke(Rule::ContactMissing);
    let mut end = caller();
    end.sends(&own_reinvite(2)).reads(&answer(200, 2).replace("Contact: <sip:y@h:5>\r\n", ""));
    end.broke(Rule::ContactMissing);
}

#[test]
fn an_ack_is_for_its_invite() {
    let mut end = callee();
    end.reads(&reinvite(5, 2)).sends(&answer(200, 5));
    end.reads(&request(Maker, true, "ACK", 4, "a4", "")).broke(Rule::AckForAnother);
    // Before there is an answer.
    let mut end = callee();
    end.reads(&reinvite(2, 2)).reads(&request(Maker, true, "ACK", 2, "a2", ""));
    end.broke(Rule::AckForAnother);
    // That of a refusal has the branch of the INVITE.
    let mut end = callee();
    end.reads(&reinvite(2, 2)).sends(&answer(488, 2));
    end.reads(&request(Maker, true, "ACK", 2, "a2", "")).broke(Rule::AckForAnother);
}

#[test]
fn a_2xx_is_acknowledged() {
    let mut end = callee();
    end.reads(&reinvite(2, 2)).sends(&answer(200, 2)).broke_nothing();
    end.ends().ends().broke(Rule::AckMissing);
    // One that was lost need not be; one that is sent again must be.
    let mut end = callee();
    end.reads(&reinvite(2, 2)).sends(&answer(200, 2)).loses_flow().ends().broke_nothing();
    let mut end = callee();
    end.reads(&reinvite(2, 2)).sends(&answer(200, 2)).loses_flow().later(600);
    end.sends(&answer(200, 2)).ends().broke(Rule::AckMissing);
    // A late one of the attempt before, too.
    let mut end = callee();
    end.reads(&reinvite(2, 2)).loses_flow().later(600).reads(&reinvite(3, 2));
    end.sends(&answer(200, 2)).sends(&answer(200, 3));
    end.reads(&request(Maker, true, "ACK", 3, "a3", "")).ends().broke(Rule::AckMissing);
}

#[test]
fn a_cancel_is_for_its_invite() {
    let cancel = request(Maker, true, "CANCEL", 2, "i2", "");
    let mut end = callee();
    end.reads(&reinvite(2, 2)).reads(&cancel).broke_nothing();
    end.reads(&cancel.replace("z9hG4bK-i2", "z9hG4bK-i9")).broke(Rule::CancelForNothing);
    let mut end = callee();
    end.reads(&reinvite(2, 2)).reads(&cancel.replace("CSeq: 2", "CSeq: 3"));
    end.broke(Rule::CancelForNothing);
}

#[test]
fn nobody_says_bye_unasked() {
    let bye = request(Maker, true, "BYE", 2, "b2", "");
    callee().reads(&bye).broke(Rule::ByeUnasked);
    let mut end = callee();
    end.may_end = true;
    end.reads(&bye).broke_nothing();
    // BYEs that cross.
    let mut end = callee();
    end.sends(&request(Taker, true, "BYE", 1, "t1", "")).reads(&bye).broke_nothing();
}

#[test]
fn no_attempt_comes_before_the_delay() {
    let mut end = callee();
    end.reads(&reinvite(2, 2)).loses_flow().later(490).reads(&reinvite(3, 2)).broke(Rule::TooEarly);
    let mut end = callee();
    end.reads(&reinvite(2, 2)).loses_flow().later(500).reads(&reinvite(3, 2)).broke_nothing();
    // A 2xx that was lost: the same offer is an attempt, another one another operation.
    let mut end = callee();
    end.reads(&reinvite(2, 2)).sends(&answer(200, 2)).loses_flow().later(100);
    end.reads(&reinvite(3, 2)).broke(Rule::TooEarly);
    let mut end = callee();
    end.reads(&reinvite(2, 2)).sends(&answer(200, 2)).loses_flow().later(100);
    end.reads(&reinvite(3, 3)).broke_nothing();
    // Retry-After in place of the delay.
    for (millis, early) in [(1990, true), (2000, false)] {
        let mut end = callee();
        let busy = answer(503, 2).replace("Call-ID", "Retry-After: 2 (busy)\r\nCall-ID");
        end.reads(&reinvite(2, 2)).sends(&busy).reads(&request(Maker, true, "ACK", 2, "i2", ""));
        end.later(millis).reads(&reinvite(3, 2));
        if early { end.broke(Rule::TooEarly) } else { end.broke_nothing() }
    }
}

#[test]
fn attempts_do_not_overlap() {
    let mut end = callee();
    end.reads(&reinvite(2, 2)).later(600).reads(&reinvite(3, 2)).broke(Rule::AttemptOverlaps);
}

#[test]
fn nothing_comes_after_bye() {
    let info = request(Maker, true, "INFO", 3, "o3", "");
    let mut end = callee();
    end.may_end = true;
    end.reads(&request(Maker, true, "BYE", 2, "b2", "")).broke_nothing();
    // A BYE that comes again over a new connection is none.
    end.reads(&request(Maker, true, "BYE", 2, "b2", "")).broke_nothing();
    end.reads(&info).broke(Rule::AfterBye);
    // Its own BYE: what crosses it is none, what comes after its answer is.
    let mut end = callee();
    end.sends(&request(Taker, true, "BYE", 1, "t1", "")).reads(&info).broke_nothing();
    end.reads(&response(Taker, 200, "BYE", 1, "t1", ""));
    end.reads(&request(Maker, true, "INFO", 4, "o4", "")).broke(Rule::AfterBye);
}
