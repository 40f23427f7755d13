//! What reading one message costs, step by step, and what rsip takes for the same.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use holdfast::sip::message::{Frame, Framer, Head, View, home, write};
use rsip::headers::untyped::ToTypedHeader;
use rsip::message::HeadersExt;

/// A re-INVITE of 692 bytes, as a B2BUA would send it on.
const REINVITE: &str = "INVITE sip:+13125550100@203.0.113.17:5060;transport=tcp SIP/2.0\r\n\
    Via: SIP/2.0/TCP 198.51.100.20:5060;branch=z9hG4bKhf00020000a41f9c1e5fd07b3a2e44;rport\r\n\
    Max-Forwards: 70\r\n\
    From: <sip:+12125550142@edge1.example.net>;tag=hf00020000a41f9c1e5fd07b3a2e44\r\n\
    To: \"Bob Example\" <sip:+13125550100@edge1.example.net>;tag=4711aa90bc\r\n\
    Call-ID: 77a1c0e2-9d41-4c54@198.51.100.20\r\n\
    CSeq: 2 INVITE\r\n\
    Contact: <sip:b2b@198.51.100.20:5060>\r\n\
    Supported: timer\r\n\
    Session-Expires: 1800;refresher=uas\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 164\r\n\
    \r\n\
    v=0\r\n\
    o=- 3890123456 3890123457 IN IP4 203.0.113.17\r\n\
    s=-\r\n\
    c=IN IP4 203.0.113.17\r\n\
    t=0 0\r\n\
    m=audio 31004 RTP/AVP 8 101\r\n\
    a=rtpmap:101 telephone-event/16000\r\n\
    a=sendonly\r\n";

/// An INVITE of 1180 bytes, as a carrier's border element sends it.
const INVITE: &str = "INVITE sip:+12125550142@edge1.carrier.example.net:5060;user=phone SIP/2.0\r\n\
    Via: SIP/2.0/TCP 198.51.100.20:5060;branch=z9hG4bK61aa.9f9a1c22e1f0b7.0;rport\r\n\
    Via: SIP/2.0/TCP 203.0.113.17:5060;received=203.0.113.17;branch=z9hG4bKas71h2kd;rport=5060\r\n\
    Record-Route: <sip:198.51.100.20:5060;lr;ftag=81fx3ced76>\r\n\
    Max-Forwards: 69\r\n\
    From: \"Bob Example\" <sip:+13125550100@edge1.carrier.example.net;user=phone>;tag=81fx3ced76\r\n\
    To: <sip:+12125550142@edge1.carrier.example.net;user=phone>\r\n\
    Call-ID: 77a1c0e2-9d41-4c54-b5b4-0e8f1f3c7a10@ua17.example.com\r\n\
    CSeq: 1 INVITE\r\n\
    Contact: <sip:+13125550100@203.0.113.17:5060;transport=tcp>\r\n\
    Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, PRACK\r\n\
    Supported: timer, 100rel, replaces\r\n\
    Session-Expires: 1800;refresher=uac\r\n\
    Min-SE: 90\r\n\
    User-Agent: Example-Edge/4.2.1\r\n\
    P-Asserted-Identity: <sip:+13125550100@carrier.example.net>\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 268\r\n\
    \r\n\
    v=0\r\n\
    o=- 3890123456 3890123456 IN IP4 203.0.113.17\r\n\
    s=-\r\n\
    c=IN IP4 203.0.113.17\r\n\
    t=0 0\r\n\
    m=audio 31004 RTP/AVP 8 0 101\r\n\
    a=rtpmap:8 PCMA/8000\r\n\
    a=rtpmap:0 PCMU/8000\r\n\
    a=rtpmap:101 telephone-event/8000\r\n\
    a=fmtp:101 0-16\r\n\
    a=ptime:20\r\n\
    a=maxptime:120\r\n\
    a=rtcp:31005\r\n\
    a=sendrecv\r\n";

/// What a step of a transaction asks of a message.
fn step(view: &View<'_>) -> usize {
    let via = view.via().unwrap();
    let to = view.to().unwrap();
    let (number, method) = view.cseq().unwrap();
    view.method() as usize
        + via.branch.unwrap().len()
        + to.tag.unwrap_or_default().len()
        + view.call_id().unwrap().len()
        + number as usize
        + method.len()
}

/// The same of rsip.
fn step_of_rsip(bytes: &[u8]) -> usize {
    let request = rsip::Request::try_from(bytes).unwrap();
    let via = request.via_header().unwrap().clone().typed().unwrap();
    let to = request.to_header().unwrap().clone().typed().unwrap();
    let cseq = request.cseq_header().unwrap().clone().typed().unwrap();
    let tag = to.params.iter().any(|param| matches!(param, rsip::Param::Tag(_)));
    via.branch().unwrap().value().len()
        + usize::from(tag)
        + request.call_id_header().unwrap().value_len()
        + cseq.seq as usize
}

trait ValueLen {
    fn value_len(&self) -> usize;
}

impl ValueLen for rsip::headers::CallId {
    fn value_len(&self) -> usize {
        rsip::headers::UntypedHeader::value(self).len()
    }
}

fn message(c: &mut Criterion) {
    for (name, text, len) in [("reinvite", REINVITE, 692), ("invite", INVITE, 1180)] {
        let bytes = text.as_bytes();
        assert_eq!(bytes.len(), len);
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut framer = Framer::new(usize::MAX);
        let mut head = Head::new();
        group.bench_function("frame", |b| {
            b.iter(|| {
                let mut frames = 0;
                framer.feed(black_box(bytes), |frame| {
                    assert!(matches!(frame, Frame::Message(_)));
                    frames += 1;
                });
                frames
            });
        });
        group.bench_function("head", |b| {
            b.iter(|| head.read(black_box(bytes)).unwrap());
        });
        group.bench_function("frame, head, view of a step", |b| {
            b.iter(|| {
                let mut sum = 0;
                framer.feed(black_box(bytes), |frame| {
                    let Frame::Message(bytes) = frame else { return };
                    head.read(bytes).unwrap();
                    sum += step(&View::new(bytes, &head));
                });
                sum
            });
        });
        head.read(bytes).unwrap();
        let view = View::new(bytes, &head);
        group.bench_function("view of a step", |b| b.iter(|| step(black_box(&view))));
        group.bench_function("check", |b| b.iter(|| black_box(&view).check().unwrap()));
        group.bench_function("home", |b| b.iter(|| home(black_box(bytes))));
        let mut out = Vec::new();
        group.bench_function("write on", |b| {
            b.iter(|| {
                out.clear();
                write::request_line(&mut out, view.method_bytes(), view.request_uri());
                for header in black_box(&view).headers() {
                    write::line(&mut out, header.line);
                }
                write::body(&mut out, view.body());
                out.len()
            });
        });
        group.bench_function("rsip", |b| b.iter(|| step_of_rsip(black_box(bytes))));
        group.finish();
    }
}

criterion_group!(benches, message);
criterion_main!(benches);
