//! How many instructions the core needs for an operation, counted by callgrind: a gate that noise does not move.
//!
//! ```sh
//! cargo bench --no-default-features --bench instructions            # fails 3 % above what is committed
//! cargo bench --no-default-features --bench instructions -- --save  # commits the counts
//! ```
//!
//! Needs valgrind. It runs itself under callgrind, once for each operation, and only what [`counted`] calls is
//! counted: neither the state before nor the peers. The counts depend on the compiler, and a little on what the
//! processor can do (`memchr` and the C library choose by it).

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it says what it counted")]

use std::hint::black_box;
use std::process::{Command, ExitCode};

use holdfast::key::TimerKey;
use holdfast::sip::message::{Frame, Framer, Head, View, write};
use holdfast::sip::wheel::Wheel;
use holdfast::time::Instant;

use support::figures::{Figures, conclude};
use support::messages::REINVITE;
use support::workload::Workload;

#[allow(dead_code, reason = "other benches use the rest")]
mod support;

/// By how much a count may be above the committed one.
const TOLERANCE: f64 = 0.03;
/// How often the small operations are done.
const TIMES: usize = 1_000;
/// Legs of the outage.
const LEGS: usize = 1_000;

/// What callgrind knows an operation by.
type Operation = (&'static str, usize, fn());

const OPERATIONS: [Operation; 8] = [
    ("scan-692-bytes", TIMES, scan),
    ("read-692-bytes", TIMES, read),
    ("write-692-bytes", TIMES, write_on),
    ("timer-schedule-cancel", TIMES, schedule_and_cancel),
    ("reinvite-relay", support::workload::OPERATIONS, || replay(&Workload::reinvite())),
    ("reinvite-proxy", support::workload::OPERATIONS, || replay(&Workload::proxy_reinvite())),
    ("call", support::workload::OPERATIONS, || replay(&Workload::call())),
    ("outage-leg", LEGS, || replay(&Workload::outage(LEGS))),
];

fn main() -> ExitCode {
    if let Some(name) = std::env::args().nth(1).filter(|argument| !argument.starts_with('-')) {
        let (.., run) = OPERATIONS.iter().find(|(known, ..)| *known == name).expect("an operation");
        run();
        return ExitCode::SUCCESS;
    }
    let mut figures = Figures::of("instructions", Some(TOLERANCE));
    for (name, times, _) in OPERATIONS {
        match count(name) {
            Ok(count) => figures.note(name, (count as f64 / times as f64).round()),
            Err(error) => {
                println!("{name}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("instructions for one operation, at most {:.0} % above:", TOLERANCE * 100.0);
    conclude(&[figures])
}

/// Runs an operation under callgrind. The environment is empty: its size moves the stack.
fn count(name: &str) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=*counted_by_callgrind*")
        .arg(program)
        .arg(name)
        .env_clear()
        .env("PATH", path)
        .output()
        .map_err(|error| format!("cannot run valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match count {
        Some(count) if output.status.success() && count > 0 => Ok(count),
        Some(_) | None => Err(format!("callgrind counted nothing: {}\n{text}", output.status)),
    }
}

/// Calls what is counted. By its name callgrind finds it.
#[inline(never)]
fn counted_by_callgrind(work: &mut dyn FnMut()) {
    work();
}

fn replay(workload: &Workload) {
    let mut server = workload.prepare();
    counted_by_callgrind(&mut || workload.run(&mut server));
    workload.check(&server);
}

/// From the stream to what tells whose a message is, and what it wants.
fn scan() {
    frame(|message| {
        let via = message.via().expect("a Via");
        let to = message.to().expect("a To");
        black_box((via.branch, to.tag, message.call_id(), message.cseq(), message.method()));
    });
}

/// From the stream to a view whose mandatory headers are checked.
fn read() {
    frame(|message| message.check().expect("a message"));
}

fn frame(mut each: impl FnMut(View<'_>)) {
    let bytes = REINVITE.as_bytes();
    let (mut framer, mut head) = (Framer::new(usize::MAX), Head::new());
    let mut run = |times| {
        for _ in 0..times {
            framer.feed(black_box(bytes), &mut head, |frame| {
                let Frame::Message(message) = frame else { return };
                each(message);
            });
        }
    };
    run(1);
    counted_by_callgrind(&mut || run(TIMES));
}

/// Start line, headers as they came, body.
fn write_on() {
    let bytes = REINVITE.as_bytes();
    let mut head = Head::new();
    head.read(bytes).expect("a head");
    let view = View::new(bytes, &head);
    let mut out = Vec::with_capacity(1024);
    counted_by_callgrind(&mut || {
        for _ in 0..TIMES {
            out.clear();
            write::request_line(&mut out, view.method_bytes(), view.request_uri());
            for header in black_box(&view).headers() {
                write::line(&mut out, header.line);
            }
            write::body(&mut out, view.body());
            black_box(&out);
        }
    });
}

/// Timer B of a request, 32 s ahead, among 1,000 others; the oldest gets its answer.
fn schedule_and_cancel() {
    let mut wheel = Wheel::new(Instant::ZERO);
    let ahead = |n: usize| Instant::from_micros(32_000_000 + n as u64);
    let mut keys: Vec<TimerKey> = (0..TIMES).map(|n| wheel.schedule(ahead(n), [0u32; 3])).collect();
    counted_by_callgrind(&mut || {
        for (n, key) in keys.iter_mut().enumerate() {
            wheel.advance(Instant::from_micros(n as u64));
            let old = std::mem::replace(key, wheel.schedule(ahead(TIMES + n), [1; 3]));
            wheel.cancel(old);
        }
    });
}
