//! What the watch costs.

use std::hint::black_box;
use std::time::Instant;

use super::By::{Maker, Taker};
use super::*;

const ROUNDS: u32 = 200_000;

/// A re-INVITE, its answer, its ACK, as a callee reads and writes them: nanoseconds a message, for
/// the watch over what is parsed anyway, and for a parse of its own.
#[test]
#[ignore = "prints a measurement; of use with --release only"]
#[allow(clippy::disallowed_methods, clippy::print_stdout, reason = "measures, and says what")]
fn what_the_watch_costs_a_message() {
    let more =
        "User-Agent: load\r\nAllow: INVITE, ACK, BYE, CANCEL\r\nSupported: timer\r\nMax-Forwards";
    let texts: Vec<[String; 3]> = (2..1002)
        .map(|cseq| {
            let branch = format!("00000000-00000002-20b13186-{cseq}");
            [
                request(Maker, true, "INVITE", cseq, &branch, &sdp(cseq)),
                response(Maker, 200, "INVITE", cseq, &branch, &sdp(cseq)),
                request(Maker, true, "ACK", cseq, &format!("{branch}a"), ""),
            ]
            .map(|text| text.replace("Max-Forwards", more))
        })
        .collect();
    let of = |with_parse: bool, with_watch: bool| {
        let mut end = End::new();
        let parsed: Vec<[Message<'_>; 3]> =
            texts.iter().map(|round| [0, 1, 2].map(|n| parse(&round[n]))).collect();
        let start = Instant::now();
        for n in 0..ROUNDS as usize {
            if n % texts.len() == 0 {
                end.dialog = Dialog::default();
                let first = request(Maker, false, "INVITE", 1, "first", &sdp(1));
                end.reads(&first).sends(&response(Taker, 200, "INVITE", 1, "first", &sdp(1)));
            }
            for (k, text) in texts[n % texts.len()].iter().enumerate() {
                let own;
                let message = match with_parse {
                    true => {
                        own = parse(black_box(text));
                        &own
                    }
                    false => black_box(&parsed[n % texts.len()][k]),
                };
                if with_watch {
                    end.with(|dialog, seen| match k {
                        1 => dialog.sent(message, seen),
                        _ => dialog.read(message, seen),
                    });
                }
                black_box(message);
            }
        }
        start.elapsed().as_nanos() as f64 / f64::from(ROUNDS * 3)
    };
    let (nothing, watch, parse) = (of(false, false), of(false, true), of(true, false));
    println!("watch {:.0} ns, parse {:.0} ns a message", watch - nothing, parse - nothing);
}
