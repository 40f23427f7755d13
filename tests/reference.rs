//! `docs/OPTIONS.md` and `docs/holdfast.toml` say what the code does, and the tests that
//! `docs/PROCEDURES.md` names are there.

#![cfg(feature = "server")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // A test reads files.

use std::collections::HashSet;
use std::path::Path;

use holdfast::control::config::{
    CONTACT_BYTES_MAX, CORES_MAX, DEVICE_TSERVER, FILE_BYTES_MAX, FRONTS_MAX, LISTEN_MAX,
    NUMBER_BYTES_MAX, NUMBERS, PROBLEMS_MAX, SECTIONS,
};
use holdfast::sip::{message, transaction, wheel};

#[test]
fn every_option_is_in_the_reference_with_its_range_and_default() {
    let reference = std::fs::read_to_string("docs/OPTIONS.md").unwrap();
    let row = |name: &str| {
        let start = format!("| `{name}` |");
        let row = reference.lines().find(|line| line.starts_with(&start));
        row.unwrap_or_else(|| panic!("no row for {name}")).to_owned()
    };
    for option in SECTIONS.iter().flat_map(|section| section.options) {
        row(option);
    }
    for number in NUMBERS {
        let row = row(number.name);
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let range = format!("{}–{}", number.min, number.max);
        let default = number.default.to_string();
        assert_eq!(cells[2..5], [number.unit, range.as_str(), default.as_str()], "{row}");
    }
    let example = std::fs::read_to_string("docs/holdfast.toml").unwrap();
    for option in SECTIONS.iter().chain([&DEVICE_TSERVER]).flat_map(|section| section.options) {
        let set = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{option} ="));
        assert!(
            example.lines().any(set) || example.contains(&format!("{{ {option} =")),
            "{option}"
        );
    }
}

#[test]
fn every_fixed_limit_is_in_the_reference_with_its_value() {
    let reference = std::fs::read_to_string("docs/OPTIONS.md").unwrap();
    let limits = [
        ("HEAD_BYTES_MAX", message::HEAD_BYTES_MAX),
        ("START_LINE_BYTES_MAX", message::START_LINE_BYTES_MAX),
        ("HEADER_BYTES_MAX", message::HEADER_BYTES_MAX),
        ("HEADERS_MAX", message::HEADERS_MAX),
        ("BODY_BYTES_MAX", message::BODY_BYTES_MAX),
        ("CLIENTS_MAX", transaction::CLIENTS_MAX),
        ("SERVERS_MAX", transaction::SERVERS_MAX),
        ("TIMERS_MAX", wheel::TIMERS_MAX),
        ("OUTBOX_BYTES_TOTAL_MAX", holdfast::net::OUTBOX_BYTES_TOTAL_MAX),
        ("SHARDS_MAX", holdfast::shard::SHARDS_MAX),
        ("FILE_BYTES_MAX", FILE_BYTES_MAX),
        ("LISTEN_MAX", LISTEN_MAX),
        ("FRONTS_MAX", FRONTS_MAX),
        ("PROXY_HEADER_BYTES_MAX", holdfast::proxy_protocol::PROXY_HEADER_BYTES_MAX),
        ("CORES_MAX", CORES_MAX),
        ("NUMBER_BYTES_MAX", NUMBER_BYTES_MAX),
        ("CONTACT_BYTES_MAX", CONTACT_BYTES_MAX),
        ("PROBLEMS_MAX", PROBLEMS_MAX),
    ];
    for (name, value) in limits {
        let start = format!("| `{name}` |");
        let row = reference.lines().find(|line| line.starts_with(&start)).unwrap_or_default();
        let written = row.split('|').nth(2).unwrap_or_default().trim().replace(',', "");
        let (number, scale) = match written.split_once(' ') {
            Some((number, "KiB")) => (number, 1 << 10),
            Some((number, "MiB")) => (number, 1 << 20),
            Some((number, "GiB")) => (number, 1 << 30),
            Some(_) | None => (written.as_str(), 1),
        };
        assert_eq!(number.parse().ok(), Some(value / scale), "{name}: {row}");
    }
}

/// Names of `#[test]` functions in the files below `folder`.
fn tests_below(folder: &Path, names: &mut HashSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            // Tests that a macro makes of rows: a number, a name.
            let rows = text.split_once("\nrows! {").map_or("", |(_, rows)| rows);
            let of_row = |line: &str| {
                let (number, name) = line.trim().split_once(' ')?;
                number.parse::<u32>().ok().map(|_| name.to_owned())
            };
            names.extend(rows.lines().filter_map(of_row));
            // Those that it makes of names alone.
            let both = text.split_once("\neach_way! {").and_then(|(_, rest)| rest.split_once('}'));
            let both = both.map_or("", |(names, _)| names);
            names.extend(both.split(',').map(|name| name.trim().to_owned()));
            for after in text.split("#[test]").skip(1) {
                let name = after.split_once("fn ").and_then(|(_, rest)| rest.split_once('('));
                names.extend(name.map(|(name, _)| name.to_owned()));
            }
        }
    }
}

#[test]
fn every_test_that_the_procedures_name_is_there() {
    let mut names = HashSet::new();
    for folder in ["src", "tests", "loadgen"] {
        tests_below(Path::new(folder), &mut names);
    }
    let procedures = std::fs::read_to_string("docs/PROCEDURES.md").unwrap();
    // A name of a test is a sentence; names of the code beside it are shorter.
    let is_sentence = |word: &&str| word.matches('_').count() >= 4 && !word.contains(['/', '.']);
    let named: Vec<&str> = procedures.split('`').skip(1).step_by(2).filter(is_sentence).collect();
    let missing: Vec<_> = named.iter().filter(|name| !names.contains(**name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
    assert!(named.len() > 60, "{} tests are named", named.len());
    assert!(!procedures.contains('@'), "a place to fill in is left");
}
