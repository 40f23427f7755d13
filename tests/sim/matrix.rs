//! The failure-point matrix: the flow dies at one exact point of a re-INVITE, a test a row.
//!
//! ```text
//! call up ─► re-INVITE ─► the flow dies at the row's point ─► the path heals in time, or does not
//!        ─► kept or released, as it was owed ─► heal ─► every call that was kept works ─► nothing left
//! ```
//!
//! `HOLDFAST_MATRIX_SEEDS` sets the number of seeds of a row, `HOLDFAST_MATRIX_SEED` runs one, and
//! `HOLDFAST_MATRIX_TABLE` names a file that gets a line a row (`tests/matrix`).

mod judge;
mod plan;

use std::io::Write as _;
use std::panic::catch_unwind;

use holdfast::cti::What as Ask;

use self::judge::{ASKED, Verdict, ask, done, judge};
use self::plan::{Operation, Plan};
use crate::log::Keep;
use crate::peer::{MS, SEC, T1};
use crate::scenario::{conclude, cut_peer, heal};
use crate::trap::{Moment, What, spring};
use crate::world::World;

/// Seeds of a row in an ordinary run, and of one behind the proxy.
const SEEDS: u64 = 500;
const SEEDS_BEHIND: u64 = 200;

/// A row.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    number: u32,
    /// Of its test.
    name: &'static str,
    /// In the table: the flow dies…
    title: &'static str,
    /// Where it dies; none: before the re-INVITE.
    point: Option<(What, Moment)>,
    /// The 1xx that the peer sends before.
    rings: Option<u16>,
    /// The peer cannot be reached afterwards.
    away: bool,
    /// It can, and no handshake succeeds.
    handshake: bool,
    again: bool,
    silent: bool,
    for_good: bool,
    many: bool,
    /// The flow is that of a proxy between the server and the peer.
    behind_the_proxy: bool,
}

impl Row {
    /// Of its test, as it is run.
    fn path(&self) -> String {
        let way = if self.behind_the_proxy { "behind_the_proxy::" } else { "" };
        format!("matrix::{way}{}", self.name)
    }
}

/// What the seeds of a row came to, counted in calls.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    kept: u64,
    released: u64,
    /// 503 that the proxy said by itself.
    refused: u64,
}

/// Runs one seed of a row; the world for its failures.
fn play(row: &Row, seed: u64, keep: Keep) -> (World, Tally) {
    let (plan, mut world) = Plan::draw(row, seed, keep);
    let mut tally = Tally::default();
    if let Err(error) = story(row, &plan, &mut world, &mut tally) {
        world.fail(format!("{error}; {plan:?}"));
    }
    tally.refused = world.truth.coverage.get("503 of the proxy").copied().unwrap_or(0);
    (world, tally)
}

fn story(row: &Row, plan: &Plan, world: &mut World, tally: &mut Tally) -> Result<(), String> {
    for _ in 0..plan.calls {
        let call = world.book_call(0, 1, "1001".to_owned());
        world.with_peer(0, |peer, ctx| peer.call(ctx, call, "1001"));
    }
    run(world, 10 * SEC);
    if (0..plan.calls).any(|call| !world.truth.is_up(call)) {
        return Err("not every call came up".to_owned());
    }
    if plan.operation == Operation::Retrieve {
        ask(world, plan, Ask::Hold, ASKED - 1);
        run(world, 15 * SEC);
    }
    let mut trap = plan.trap.clone();
    if row.point.is_none() && !row.again {
        cut_peer(world, plan.peer, trap.cut);
        trap.points.clear();
        spring(world, &mut trap);
        // The server learns of it before, with, or only by the re-INVITE.
        let wait = if row.away { 2 * SEC } else { world.rng.below(SEC) };
        run(world, wait);
    }
    world.trap = Some(trap);
    let requests = operate(world, plan);
    run(world, plan.window + 64 * T1 + 20 * SEC);
    let sprung = world.trap.take().map_or(0, |trap| trap.sprung.len());
    let answered = world.truth.coverage.contains_key("final response of an orphan");
    // A 2xx that comes again while the proxy has a connection ends the retries before the last fault.
    let over = row.again && row.behind_the_proxy && answered;
    if sprung != plan.trap.points.len().max(1) && !over {
        return Err(format!("the fault never happened: {sprung} of {}", plan.trap.points.len()));
    }
    for call in 0..plan.calls {
        let verdict = judge(world, row, plan, call, requests.get(call).copied())?;
        match verdict {
            Verdict::Kept => tally.kept += 1,
            Verdict::Released => tally.released += 1,
        }
    }
    go_on(world, plan)
}

/// The re-INVITEs under which the flow dies; their numbers in the book where devices send them.
fn operate(world: &mut World, plan: &Plan) -> Vec<usize> {
    match plan.operation {
        Operation::Relayed => {
            let from = 1 - plan.peer;
            let mut requests = Vec::new();
            for call in 0..plan.calls {
                let leg = world.truth.calls[call].legs[from];
                if let Some(leg) = leg {
                    requests.push(world.truth.requests.len());
                    world.with_peer(from, |peer, ctx| peer.send_in_dialog(ctx, leg, "INVITE"));
                }
            }
            requests
        }
        Operation::Hold => {
            ask(world, plan, Ask::Hold, ASKED);
            Vec::new()
        }
        Operation::Retrieve => {
            ask(world, plan, Ask::Retrieve, ASKED);
            Vec::new()
        }
    }
}

/// Everything is in order again: calls that were kept are held or retrieved, re-INVITEd and ended.
fn go_on(world: &mut World, plan: &Plan) -> Result<(), String> {
    heal(world);
    for peer in &mut world.peers {
        peer.traits.next_answers = None;
        peer.traits.answers_twice = false;
        peer.traits.answers_apart = false;
        peer.traits.always_rings = None;
        peer.traits.busy_status = 0;
        peer.traits.answer_delay_max = 20 * MS;
    }
    run(world, SEC);
    let next = match plan.operation {
        Operation::Relayed => None,
        Operation::Hold => Some(Ask::Retrieve),
        Operation::Retrieve => Some(Ask::Hold),
    };
    if let Some(what) = next {
        ask(world, plan, what, ASKED + 1);
        run(world, plan.window + 20 * SEC);
        for call in 0..plan.calls {
            if world.truth.is_up(call) && !done(world, call, ASKED + 1) {
                return Err(format!("{what:?} of a call that was kept was not done"));
            }
        }
    }
    world.truth.healed_at = Some(world.now());
    let mut rng = world.rng.fork("end");
    conclude(world, &mut rng);
    Ok(())
}

fn run(world: &mut World, time: u64) {
    let until = world.now() + time;
    world.run_until(until);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs the seeds of a row, and says how to repeat one that failed.
fn prove(row: Row) {
    if let Some(seed) = number("HOLDFAST_MATRIX_SEED") {
        let (world, tally) = play(&row, seed, Keep::Print);
        println!("seed {seed}: {tally:?} {:#?}", world.truth.failures);
        assert!(world.truth.failures.is_empty(), "seed {seed} failed");
        return;
    }
    let usual = if row.behind_the_proxy { SEEDS_BEHIND } else { SEEDS };
    let seeds = number("HOLDFAST_MATRIX_SEEDS").unwrap_or(usual);
    let (mut total, mut wrong) = (Tally::default(), Vec::new());
    for seed in 0..seeds {
        let outcome = catch_unwind(|| play(&row, seed, Keep::Hash));
        let failure = match &outcome {
            Ok((world, _)) => world.truth.failures.first().cloned(),
            Err(_) => Some("panic".to_owned()),
        };
        if let Some(failure) = failure {
            println!(
                "{} seed {seed} FAILED: {failure}\nrepeat: HOLDFAST_MATRIX_SEED={seed} cargo test \
                 --no-default-features --test sim -- {} --nocapture",
                row.name,
                row.path()
            );
            wrong.push(seed);
        } else if let Ok((_, tally)) = outcome {
            total.kept += tally.kept;
            total.released += tally.released;
            total.refused += tally.refused;
        }
    }
    println!("{}: {seeds} seeds, {total:?}, wrong: {wrong:?}", row.path());
    tell(&row, seeds, total, wrong.len());
    assert!(wrong.is_empty(), "{}: {} of {seeds} seeds failed: {wrong:?}", row.name, wrong.len());
    let kept = (total.kept > 0) != row.for_good;
    let released = total.released > 0 || !row.for_good;
    // A flow that dies around the ACK is lost by no request.
    let refused = total.refused > 0 || !row.behind_the_proxy || matches!(row.point, Some((ACK, _)));
    assert!(kept && released && refused, "{} says nothing: {total:?}", row.name);
}

/// Writes what became of a row into the table.
fn tell(row: &Row, seeds: u64, total: Tally, wrong: usize) {
    let Some(path) = std::env::var_os("HOLDFAST_MATRIX_TABLE") else { return };
    let (number, Tally { kept, released, .. }) = (row.number, total);
    let line = match row.behind_the_proxy {
        true => format!("{number:02}|PROXY {kept} kept, {released} released, {wrong} wrong\n"),
        false => {
            format!("{number:02}| {} | {seeds} | {kept} | {released} | {wrong} |\n", row.title)
        }
    };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let written = file.as_mut().map(|file| file.write_all(line.as_bytes()));
    assert!(matches!(written, Ok(Ok(()))), "the table cannot be written");
}

const INVITE: What = What::Request("INVITE");
const ACK: What = What::Request("ACK");
const OK: What = What::Status(200);

/// Two tests a row, without and with a proxy: its number, its name, its title, and what differs from the default.
macro_rules! rows {
    ($($number:literal $name:ident $title:literal { $($field:ident: $value:expr),* })*) => {
        $(#[test]
        fn $name() {
            prove(rows::$name());
        })*

        mod behind_the_proxy {
            use super::{Row, prove, rows};

            $(#[test]
            fn $name() {
                prove(Row { behind_the_proxy: true, ..rows::$name() });
            })*
        }

        mod rows {
            use super::*;

            $(pub(super) fn $name() -> Row {
                Row {
                    number: $number,
                    name: stringify!($name),
                    title: $title,
                    $($field: $value,)*
                    ..Row::default()
                }
            })*
        }
    };
}

rows! {
    1 flow_dies_while_idle
        "while idle, before the re-INVITE is written" {}
    2 flow_dies_at_connect
        "at connect (refused, unreachable, no SYN-ACK)" { away: true }
    3 flow_dies_in_the_middle_of_the_requests_bytes
        "in the middle of the request's bytes" { point: Some((INVITE, Moment::Middle)) }
    4 flow_dies_after_the_request_arrived
        "after the request arrived, before any response" { point: Some((INVITE, Moment::Read)) }
    5 flow_dies_after_100
        "after 100" { point: Some((What::Status(100), Moment::Read)), rings: Some(100) }
    6 flow_dies_after_180
        "after 180" { point: Some((What::Status(180), Moment::Read)), rings: Some(180) }
    7 flow_dies_in_the_middle_of_the_responses_bytes
        "in the middle of the response's bytes" { point: Some((OK, Moment::Middle)) }
    8 flow_dies_after_the_2xx_was_sent
        "after the 2xx was sent, before it arrived" { point: Some((OK, Moment::After)) }
    9 flow_dies_before_the_ack_is_written
        "before the ACK is written" { point: Some((ACK, Moment::Before)) }
    10 flow_dies_in_the_middle_of_the_ack
        "in the middle of the ACK" { point: Some((ACK, Moment::Middle)) }
    11 flow_dies_after_the_ack
        "after the ACK" { point: Some((ACK, Moment::Read)) }
    12 flow_dies_during_the_tls_handshake_again_and_again
        "during the TLS handshake" { away: true, handshake: true }
    13 flow_dies_again_during_the_retry
        "again, during the retry (2 to 4 times)" { again: true }
    14 flow_dies_silently
        "silently (nothing is acknowledged any more)" {
            point: Some((INVITE, Moment::After)), silent: true
        }
    17 flow_dies_silently_after_100
        "silently after 100: only a ping can find it" {
            point: Some((What::Status(100), Moment::Read)), rings: Some(100), silent: true
        }
    15 flow_dies_for_good
        "for good" { point: Some((INVITE, Moment::Read)), for_good: true }
    16 flow_dies_together_with_many_others
        "together with 14 to 39 others" { point: Some((INVITE, Moment::Read)), many: true }
}
