//! What reading one message costs, step by step, and what rsip takes for the same.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use holdfast::sip::message::{Frame, Framer, Head, View, home, write};
use rsip::headers::untyped::ToTypedHeader;
use rsip::message::HeadersExt;

use support::clock::CpuTime;
use support::messages::{INVITE, REINVITE};

#[allow(dead_code, reason = "other benches use the rest")]
mod support;

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

fn message(c: &mut Criterion<CpuTime>) {
    for (name, text, len) in [("reinvite", REINVITE, 692), ("invite", INVITE, 1180)] {
        let bytes = text.as_bytes();
        assert_eq!(bytes.len(), len);
        let mut group = c.benchmark_group(format!("message/{name}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut framer = Framer::new(usize::MAX);
        let mut head = Head::new();
        group.bench_function("frame and head", |b| {
            b.iter(|| {
                let mut frames = 0;
                framer.feed(black_box(bytes), &mut head, |frame| {
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
                framer.feed(black_box(bytes), &mut head, |frame| {
                    let Frame::Message(message) = frame else { return };
                    sum += step(&message);
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

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = message
}
criterion_main!(benches);
