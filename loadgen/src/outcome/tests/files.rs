//! What is written is read again; what others wrote does no harm.

use std::io::Cursor;
use std::path::PathBuf;

use base64::Engine as _;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::sample::{Numbers, outcome};
use crate::outcome::*;

/// Names of members in `value`, but not those that the run chooses.
fn members(value: &serde_json::Value, found: &mut Vec<String>) {
    const CHOSEN: [&str; 6] = ["parameters", "failures", "counters", "counts", "limits", "sysctls"];
    if let Some(list) = value.as_array() {
        list.iter().take(1).for_each(|value| members(value, found));
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        found.push(name.clone());
        match name.as_str() {
            "response" if value.get("hdr").is_none() => {
                let one = value.as_object().into_iter().flatten().next();
                one.into_iter().for_each(|(_, value)| members(value, found));
            }
            name if CHOSEN.contains(&name) => {}
            _ => members(value, found),
        }
    }
}

#[test]
fn every_member_is_in_the_description_of_the_schema() {
    let description = include_str!("../../../../docs/LOADGEN-SCHEMA.md");
    let outcome = outcome(1.0, &["lost=0"]);
    let mut found = Vec::new();
    members(&serde_json::from_str(&outcome.to_json()).unwrap(), &mut found);
    assert!(found.len() > 100 && found.contains(&"p999_ms".to_owned()), "{found:?}");
    found.retain(|name| !description.contains(&format!("`{name}`")));
    assert_eq!(found, Vec::<String>::new(), "not described");
}

/// `LOADGEN_SAMPLE_HDR=FOLDER cargo test …` also writes them, for other tools.
#[test]
fn each_histogram_has_its_table_and_all_are_in_the_log() {
    let files = outcome(1.0, &[]).hdr_files().unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..4], ["run.hlog", "bye.hgrm", "bye-uncorrected.hgrm", "invite.hgrm"]);
    assert!(names.contains(&"recovery-excess.hgrm") && names.contains(&"lateness.hgrm"));
    if let Some(folder) = std::env::var_os("LOADGEN_SAMPLE_HDR") {
        for (name, content) in &files {
            std::fs::write(PathBuf::from(&folder).join(name), content).unwrap();
        }
    }
}

/// A file of this test; gone when it is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, content: &[u8]) -> Self {
        let file = format!("loadgen-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn json_is_read_as_it_was_written() {
    let outcome = outcome(1.0, &["lost=0", "p99_excess<500ms"]);
    assert_eq!(Outcome::parse(&outcome.to_json()).unwrap(), outcome);
    let lines = format!("{{\"kind\":\"interval\"}}\n{}", outcome.to_json_line());
    assert_eq!(Outcome::parse(&lines).unwrap(), outcome, "the last of the lines");
    assert_eq!(outcome.to_json_line().lines().count(), 1);
    let file = Temporary::new("good.json", outcome.to_json().as_bytes());
    assert_eq!(Outcome::read(&file.0).unwrap(), outcome);
}

#[test]
fn a_text_that_is_cut_anywhere_is_an_error() {
    let text = outcome(1.0, &[]).to_json_line();
    let text = text.trim_end();
    for end in (0..200).chain((0..60).map(|n| n * text.len() / 60)) {
        assert!(Outcome::parse(&text[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn bytes_that_were_changed_anywhere_do_no_harm() {
    let mut text = outcome(1.0, &[]).to_json_line().into_bytes();
    let mut numbers = Numbers::new(11);
    for _ in 0..40 {
        let at = (numbers.next() * text.len() as f64) as usize;
        let old =
            std::mem::replace(&mut text[at], b" 9e-,\"{}[]Az"[(numbers.next() * 12.0) as usize]);
        if let Ok(read) = Outcome::parse(&String::from_utf8_lossy(&text)) {
            let _ = (read.table(), read.to_html(), read.to_hdr_log());
        }
        text[at] = old;
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let good = outcome(1.0, &[]).to_json_line();
    let with = |from: &str, to: &str| {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{from}");
        Outcome::parse(&changed).unwrap_err()
    };
    let text = with("holdfast-loadgen/2", "holdfast-loadgen/1");
    assert!(text.contains("\"holdfast-loadgen/1\", expected \"holdfast-loadgen/2\""), "{text}");
    assert!(Outcome::parse("{}").unwrap_err().contains("has no schema"));
    assert!(Outcome::parse("").unwrap_err().contains("not JSON"));
    assert!(Outcome::parse("[1e999]").unwrap_err().contains("out of range"));
    let kept = "\"kept\":9996";
    assert!(with(kept, "\"kept\":NaN").contains("expected"));
    assert!(with(kept, "\"kept\":99999999999999999999").contains("invalid"));
    assert!(with(kept, "\"kept\":-1").contains("invalid value"));
    assert!(with("\"seconds\":14.0", "\"seconds\":1e999").contains("out of range"));
    assert!(with("\"hdr\":\"HISTF", "\"hdr\":\"!").contains("not base64"));
    assert!(with("\"hdr\":\"HISTF", "\"hdr\":\"HISTFAAAAAAAAAAAAAAA").contains("histogram"));
}

#[test]
fn files_are_named_in_errors_and_large_ones_are_not_read() {
    let missing = Outcome::read(&PathBuf::from("no/such.json")).unwrap_err();
    assert!(missing.starts_with("no/such.json: cannot be read"), "{missing}");
    let bytes = Temporary::new("bytes.json", &[0xff, 0xfe, 0]);
    assert!(Outcome::read(&bytes.0).unwrap_err().contains("UTF-8"));
    let large = Temporary::new("large.json", b"");
    let file = std::fs::OpenOptions::new().write(true).open(&large.0).unwrap();
    // Without blocks on the disk: zeros that are only said to be there.
    file.set_len((1 << 30) + 1).unwrap();
    let text = Outcome::read(&large.0).unwrap_err();
    assert!(text.contains("larger than the limit of 1073741824 bytes"), "{text}");
}

#[test]
fn a_histogram_that_inflates_without_end_is_refused() {
    use flate2::{Compression, write::ZlibEncoder};
    use std::io::Write;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    for _ in 0..64 {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
    let bomb = [&[0; 8][..], &encoder.finish().unwrap()].concat();
    let text = base64::engine::general_purpose::STANDARD.encode(bomb);
    assert!(Timing::from_base64(&text).unwrap_err().contains("not one of 1 µs"));
    // A histogram of nanoseconds up to days takes other memory than ours.
    use hdrhistogram::serialization::{Serializer, V2Serializer};
    for (lowest, highest, digits) in
        [(1, u64::MAX / 2, 3), (1, 120_000_000, 5), (1000, 120_000_000, 3)]
    {
        let mut other =
            hdrhistogram::Histogram::<u64>::new_with_bounds(lowest, highest, digits).unwrap();
        other.record(7000).unwrap();
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&other, &mut bytes).unwrap();
        assert!(Timing::from_v2(&bytes).unwrap_err().contains("3 significant digits"));
    }
}

#[test]
fn the_log_is_read_by_a_reader_of_logs() {
    let outcome = outcome(1.0, &[]);
    let log = outcome.to_hdr_log().unwrap();
    let mut tags = Vec::new();
    let mut untagged = 0;
    for entry in IntervalLogIterator::new(&log) {
        let LogEntry::Interval(interval) = entry.unwrap() else { continue };
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram()).unwrap();
        let read: hdrhistogram::Histogram<u64> =
            Deserializer::new().deserialize(&mut Cursor::new(bytes)).unwrap();
        match interval.tag() {
            None => untagged += read.len(),
            Some(tag) => tags.push((tag.as_str().to_owned(), read.len())),
        }
    }
    assert_eq!(untagged, 30_000, "responses of all intervals");
    let invite = &outcome.response["invite"].corrected;
    assert!(tags.contains(&("invite".into(), invite.count())), "{tags:?}");
    assert!(tags.iter().any(|(tag, count)| tag == "recovery-answered" && *count == 9_996));
}

#[test]
fn the_percentile_table_ends_at_the_maximum() {
    let mut timing = Timing::new();
    for n in 1..=100 {
        timing.record(std::time::Duration::from_millis(n));
    }
    let text = timing.to_hgrm();
    let rows: Vec<Vec<f64>> = text
        .lines()
        .skip(2)
        .take_while(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
        .collect();
    let last = rows.last().unwrap();
    assert_eq!((last[1], last[2], last.len()), (1.0, 100.0, 3), "no 1/(1-p) of the last");
    assert!((last[0] - 100.0).abs() < 0.1);
    let middle = rows.iter().find(|row| row[1] == 0.5).unwrap();
    assert!((middle[0] - 50.0).abs() < 0.1 && middle[2] == 50.0 && middle[3] == 2.0, "{middle:?}");
    assert!(text.contains("#[Mean    =       50.5"), "{text}");
    assert!(text.contains("Total count    =          100]"), "{text}");
    assert!(text.contains("SubBuckets     =         2048]"), "{text}");
}

#[test]
fn names_of_files_hold_nothing_but_letters_and_digits() {
    let mut outcome = outcome(1.0, &[]);
    let response = outcome.response["bye"].clone();
    outcome.response.insert("../../etc/x y".into(), response);
    let names: Vec<String> = outcome.histograms().into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"______etc_x_y".to_owned()), "{names:?}");
    assert!(outcome.to_hdr_log().is_ok());
}
