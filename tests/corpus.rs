//! The seed corpora of the fuzz targets, run once each, and what a fuzzer has found.
//!
//! With `HOLDFAST_WRITE_SEEDS=1` the seeds are written anew from `tests/fuzz/src/seeds.rs`.

#![allow(unreachable_pub, missing_docs, reason = "the library of the fuzz crate is a module here")]

#[path = "fuzz/src/lib.rs"]
mod fuzz;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use holdfast::sip::Stats;

/// More seeds, or larger ones, are for a fuzzer's own corpus.
const SEEDS_MAX: usize = 60;
const SEED_BYTES_MAX: u64 = 4096;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus")
}

/// The inputs that are checked in for a target, by name.
fn inputs(target: &str) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(corpus().join(target)).unwrap();
    files
        .map(|file| {
            let path = file.unwrap().path();
            assert!(path.metadata().unwrap().len() <= SEED_BYTES_MAX, "{}", path.display());
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

#[test]
fn the_seeds_that_are_checked_in_are_those_that_the_project_makes() {
    let seeds = fuzz::seeds::all();
    for (target, name, bytes) in &seeds {
        let path = corpus().join(target).join(name);
        if std::env::var_os("HOLDFAST_WRITE_SEEDS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
        }
        assert!(fs::read(&path).is_ok_and(|found| found == *bytes), "{}", path.display());
    }
    let count: usize = ["framing", "proxy_protocol", "reader", "endpoint"]
        .map(|name| inputs(name).len())
        .iter()
        .sum();
    assert!((seeds.len()..=SEEDS_MAX).contains(&count), "{count} files");
}

#[test]
fn no_promise_is_broken_for_what_is_checked_in_whole_or_cut() {
    for bytes in inputs("framing").into_values() {
        fuzz::framing::run(&bytes);
    }
    for bytes in inputs("proxy_protocol").into_values() {
        for end in 0..=bytes.len() {
            fuzz::proxy_protocol::run(&bytes[..end]);
        }
    }
    for bytes in inputs("endpoint").into_values() {
        for end in 0..=bytes.len() {
            fuzz::endpoint::run_proxy(&bytes[..end]);
        }
    }
    for bytes in inputs("reader").into_values() {
        for end in 0..=bytes.len() {
            fuzz::reader::run(&bytes[..end]);
        }
    }
    for bytes in inputs("endpoint").into_values() {
        for end in 0..=bytes.len() {
            fuzz::endpoint::run(&bytes[..end]);
        }
    }
}

#[test]
fn the_programs_reach_what_they_are_named_after() {
    let run = |name: &str| fuzz::endpoint::run(&inputs("endpoint")[name]);
    let reached = |stats: Stats| {
        let recoveries =
            (stats.recoveries_started, stats.recoveries_succeeded, stats.recoveries_failed);
        (stats.calls_established, stats.calls, recoveries)
    };
    assert_eq!(reached(run("call")), (1, 0, (0, 0, 0)));
    assert_eq!(reached(run("reinvite")), (1, 0, (0, 0, 0)));
    assert_eq!(reached(run("recovered")), (1, 0, (1, 1, 0)));
    assert_eq!(reached(run("at_once")), (1, 1, (0, 0, 0)));
    assert_eq!(reached(run("given_up")), (1, 0, (1, 0, 1)));
    assert_eq!(reached(run("next_target")), (1, 1, (0, 0, 0)));
    assert_eq!(reached(run("switched_off")), (1, 0, (0, 0, 0)));
    assert_eq!(reached(run("drained")), (1, 0, (0, 0, 0)));
}
