//! Comparisons: honest about noise, and not to be brought down by files.

use std::time::Duration;

use super::sample::outcome;
use crate::outcome::*;

fn side(name: &str, scales: &[f64]) -> Side {
    let runs = scales.iter().map(|scale| outcome(*scale, &[])).collect();
    Side { name: name.into(), runs }
}

fn row<'a>(table: &'a str, label: &str) -> &'a str {
    table.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("{label}: {table}"))
}

#[test]
fn repeats_that_do_not_overlap_are_judged() {
    let slow = Comparison::new(vec![side("a", &[1.0, 1.1]), side("b", &[2.0, 2.1])]);
    let table = slow.table();
    assert!(row(&table, "invite p99, ms").ends_with("worse"), "{table}");
    assert!(row(&table, "calls kept").ends_with("equal"), "{table}");
    assert!(table.contains("With 2 and 2 runs, chance alone makes 33.3 % of"), "{table}");
    let fast = Comparison::new(vec![side("b", &[2.0, 2.1]), side("a", &[1.0, 1.1])]);
    assert!(row(&fast.table(), "invite p99, ms").ends_with("better"));
}

#[test]
fn repeats_that_overlap_are_noise_whatever_their_medians() {
    let overlap = Comparison::new(vec![side("a", &[1.0, 1.5]), side("b", &[1.4, 2.0])]);
    assert!(row(&overlap.table(), "invite p99, ms").ends_with("within noise"));
}

#[test]
fn one_run_of_a_side_proves_nothing() {
    let table = Comparison::new(vec![side("a", &[1.0]), side("b", &[3.0])]).table();
    assert!(row(&table, "invite p99, ms").ends_with("within noise (one run)"), "{table}");
    assert!(row(&table, "calls kept").ends_with("equal"), "{table}");
    assert!(table.contains("nothing is judged"), "{table}");
}

#[test]
fn what_the_histogram_cannot_tell_apart_is_not_judged() {
    let of = |kept: u64, micros: u64| {
        let mut recorder = Recorder::new(Duration::from_secs(1));
        let name = recorder.latency("invite");
        recorder.response(name, Duration::ZERO, Duration::ZERO, Duration::from_micros(micros));
        for _ in 0..kept {
            recorder.call_done(End::Kept, Duration::ZERO);
        }
        recorder.into_outcome(About::default(), &[])
    };
    let a = Side { name: "a".into(), runs: vec![of(10, 5000), of(11, 5004)] };
    let b = Side { name: "b".into(), runs: vec![of(20, 5008), of(21, 5008)] };
    let table = Comparison::new(vec![a, b]).table();
    assert!(row(&table, "invite p50, ms").ends_with("within noise"), "{table}");
    assert!(row(&table, "calls kept").ends_with("better"), "{table}");
}

#[test]
fn ratios_are_of_medians() {
    let table = Comparison::new(vec![side("a", &[1.0]), side("b", &[1.0, 9.0, 1.0])]).table();
    let line = row(&table, "invite p50, ms");
    assert!(line.contains(" 1.000 "), "the median of three is the middle one: {line}");
}

#[test]
fn what_matters_in_manifests_is_warned_of() {
    let (a, mut b) = (side("a", &[1.0]), side("b", &[1.0]));
    b.runs[0].manifest.seed = 43;
    b.runs[0].manifest.kernel = "5.0".into();
    b.runs[0].scenario = "other".into();
    b.runs[0].manifest.date = "another day".into();
    let comparison = Comparison::new(vec![a, b]);
    let found: Vec<&str> =
        comparison.warnings.iter().map(|w| w.split(' ').next().unwrap()).collect();
    assert_eq!(found, ["scenario", "seed", "kernel"]);
}

#[test]
fn sides_are_arguments_or_stand_on_both_sides_of_the_dashes() {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let count = |before: &[&str], after: &[&str]| -> Result<Vec<usize>, String> {
        Ok(sides(&texts(before), &texts(after))?.iter().map(Vec::len).collect())
    };
    assert_eq!(count(&["a", "b", "c"], &[]), Ok(vec![1, 1, 1]));
    assert_eq!(count(&["a,b", "c"], &[]), Ok(vec![2, 1]));
    assert_eq!(count(&["a", "b"], &["c"]), Ok(vec![2, 1]));
    assert!(count(&["a"], &[]).unwrap_err().contains("at least two sides"));
    assert!(count(&["a,,b", "c"], &[]).unwrap_err().contains("empty file name"));
    let many = vec!["x"; 1001];
    assert!(count(&many, &["y"]).unwrap_err().contains("at most 1000"));
}

/// `LOADGEN_SAMPLE_COMPARE=FILE cargo test …` also writes the page, for the eye.
#[test]
fn numbers_that_no_run_makes_do_not_bring_the_comparison_down() {
    let mut b = side("b<script>", &[1.0, 2.0]);
    for run in &mut b.runs {
        run.calls.kept = u64::MAX;
        run.calls.lost = u64::MAX;
        run.series.interval_ms = u64::MAX;
        run.done_per_second = f64::MAX;
        run.generator.busy_peak = -f64::MAX;
        run.counters.insert("\u{1b}[2J".into(), u64::MAX);
        run.series.intervals[0].done = u64::MAX;
        run.series.intervals[1].done = u64::MAX;
    }
    let comparison = Comparison::new(vec![side("a", &[1.0, 1.1]), b]);
    assert!(!comparison.table().contains('\u{1b}'));
    let page = comparison.to_html();
    super::page::check(&page);
    assert!(page.contains("b&lt;script&gt;"));
    if let Some(file) = std::env::var_os("LOADGEN_SAMPLE_COMPARE") {
        let good = Comparison::new(vec![side("before", &[1.0, 1.1]), side("after", &[0.6, 0.7])]);
        std::fs::write(file, good.to_html()).unwrap();
    }
}
