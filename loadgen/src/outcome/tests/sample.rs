//! A drill that never was: 10,000 calls on 1,000 connections, made of numbers.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use crate::outcome::*;

/// Numbers that look like chance and are always the same.
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 0 to 1.
    pub(super) fn next(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Microseconds, exponential with that mean.
    pub(super) fn exponential(&mut self, mean: f64) -> Duration {
        Duration::from_micros((-(1.0 - self.next()).ln() * mean) as u64)
    }
}

pub(super) const CALLS: u32 = 10_000;

/// When the connections were reset.
const FAULT: Duration = Duration::from_secs(8);

/// Instant, call, and whether its INVITE, its recovery or its BYE is due, in order.
fn events(calls: impl Iterator<Item = u32>, numbers: &mut Numbers) -> Vec<(Duration, u32, u8)> {
    let mut events = Vec::new();
    for call in calls {
        events.push((Duration::from_micros(u64::from(call) * 500), call, 0));
        events.push((Duration::from_millis(8500) + numbers.exponential(30_000.0), call, 1));
        events.push((Duration::from_micros(10_000_000 + u64::from(call) * 300), call, 2));
    }
    events.sort();
    events
}

/// What worker `worker` of `workers` recorded.
pub(super) fn recorder(worker: u32, workers: u32, scale: f64) -> Recorder {
    let mut recorder = Recorder::new(Duration::from_millis(100));
    let [invite, reinvite, bye] = ["invite", "reinvite", "bye"].map(|name| recorder.latency(name));
    let mut numbers = Numbers::new(u64::from(worker) + 7);
    let ms = |number: f64| Duration::from_micros((number * 1000.0 * scale) as u64);
    for (at, call, what) in events((worker..CALLS).step_by(workers as usize), &mut numbers) {
        let _ = recorder.tick(at, at.mul_f64(0.3));
        let lost = call % 2500 == 0;
        match what {
            0 => {
                let sent = at + numbers.exponential(40.0);
                recorder.started(at, sent);
                let end = sent + ms(0.4) + numbers.exponential(300.0 * scale);
                recorder.response(invite, at, sent, end);
                recorder.set_up();
            }
            1 => {
                let answer = at + ms(1.0) + numbers.exponential(2_000.0 * scale);
                let struck = recover(&mut recorder, call, at, (!lost).then_some(answer));
                recorder.response(reinvite, struck, struck, answer);
            }
            _ => {
                let end = at + ms(0.2) + numbers.exponential(150.0 * scale);
                recorder.response(bye, at, at, end);
                recorder.call_done(if lost { End::Lost } else { End::Kept }, end);
            }
        }
    }
    recorder.count("retransmissions", 3);
    let _ = recorder.tick(Duration::from_secs(14), Duration::from_secs(4));
    recorder
}

/// The recovery of one call, tried at `at`; when its connection was struck.
fn recover(recorder: &mut Recorder, call: u32, at: Duration, answer: Option<Duration>) -> Duration {
    let struck = FAULT + Duration::from_micros(u64::from(call % 1000) * 20);
    recorder.endangered(struck);
    if call.is_multiple_of(10) {
        recorder.connect(at);
    }
    recorder.recovered(&RecoverySample {
        fault_at: struck,
        detected_at: Some(at - Duration::from_millis(4)),
        first_attempt_at: Some(at),
        attempts: 1 + u32::from(call.is_multiple_of(97)),
        answered_at: answer,
        acked_at: answer.map(|answer| answer + Duration::from_micros(300)),
        delay: Duration::from_millis(500),
        fate: if answer.is_some() { Fate::Safe } else { Fate::Lost },
    });
    struck
}

/// The recorder of a drill at the scale of 1, which most tests take.
static RECORDED: LazyLock<Recorder> = LazyLock::new(|| recorded(1.0));

fn recorded(scale: f64) -> Recorder {
    let mut all = recorder(0, 2, scale);
    all.merge(recorder(1, 2, scale));
    all
}

/// The whole drill, with `goals`; `scale` makes the server slower.
pub(super) fn outcome(scale: f64, goals: &[&str]) -> Outcome {
    let all = if scale == 1.0 { RECORDED.clone() } else { recorded(scale) };
    let goals: Vec<Goal> = goals.iter().map(|text| Goal::parse(text).unwrap()).collect();
    all.into_outcome(about(), &goals)
}

pub(super) fn about() -> About {
    let usage = |cpu_seconds, rss_kib| Usage {
        cpu_seconds,
        rss_kib,
        rss_peak_kib: rss_kib + 900,
        descriptors: 2040,
    };
    let mut manifest = Manifest::collect(42, vec![1, 2]);
    manifest.command_line = ["loadgen", "drill", "--calls", "10000"].map(String::from).to_vec();
    manifest.server = Some(ServerBuild::new("0.1.0", "listen = \"127.0.0.1:5060\""));
    About {
        command: "drill".into(),
        scenario: "hold".into(),
        manifest,
        parameters: BTreeMap::from([
            ("calls".into(), CALLS.into()),
            ("callee-connections".into(), 1000.into()),
            ("fault".into(), "at 8s reset on 100% of callees".into()),
        ]),
        duration: Duration::from_secs(14),
        open_loop: true,
        violations: Violations {
            counts: BTreeMap::from([("cseq_not_higher".into(), 0)]),
            examples: Vec::new(),
        },
        server: Some(ServerUse {
            pid: Some(4711),
            idle: Some(usage(0.02, 9_000)),
            up: Some(usage(1.9, 61_000)),
            recovered: Some(usage(3.1, 84_000)),
            after: Some(usage(4.4, 70_000)),
        }),
        failures: Vec::new(),
        rss_peak_kib: 120_000,
    }
}
