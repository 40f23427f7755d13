//! The page and the lines on a terminal.

use super::sample::outcome;
use crate::outcome::*;

/// Every tag of `page` is closed by its own, every attribute is in quotes, and every `&` begins a
/// reference.
pub(super) fn check(page: &str) {
    let page = page.strip_prefix("<!DOCTYPE html>").expect("a document");
    let (mut open, mut rest) = (Vec::new(), page);
    while let Some(at) = rest.find('<') {
        check_text(&rest[..at]);
        let end = rest[at..].find('>').expect("a tag that ends") + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        let name = tag.split([' ', '/']).next().unwrap_or("");
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "closed in the wrong place");
        } else {
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric()), "tag {tag:?}");
            assert!(tag.matches('"').count().is_multiple_of(2), "attributes of {tag:?}");
            check_text(tag);
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
    }
    assert_eq!(open, Vec::<&str>::new());
    assert!(!page.contains("NaN") && !page.contains("inf\"") && !page.contains("<path class=\"\""));
}

fn check_text(text: &str) {
    for after in text.split('&').skip(1) {
        let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
        assert!(known.iter().any(|name| after.starts_with(name)), "&{after:.20}");
    }
}

/// `LOADGEN_SAMPLE_HTML=FILE cargo test …` also writes the page, for the eye.
#[test]
fn the_page_of_a_drill_has_all_its_figures() {
    let outcome = outcome(1.0, &["lost=0", "p99_excess<500ms"]);
    let page = outcome.to_html();
    if let Some(file) = std::env::var_os("LOADGEN_SAMPLE_HTML") {
        std::fs::write(file, &page).unwrap();
    }
    check(&page);
    let titles = [
        "Recovery curve",
        "configured delay 500 ms",
        "beyond the configured delay",
        "Calls per second",
        "Response time over the run",
        "Response time by percentile",
        "Calls in flight",
        "New connections per second",
        "own load",
        "Goals",
        "Violations",
        "Manifest",
        "net.core.somaxconn",
    ];
    for title in titles {
        assert!(page.contains(title), "{title}");
    }
    assert_eq!(page.matches("<svg").count(), 8);
}

#[test]
fn the_page_loads_nothing() {
    let page = outcome(1.0, &[]).to_html();
    for outside in ["http://", "https://", "src=", "href=", "url(", "@import", "<link", "<img"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn texts_of_others_are_only_text_in_the_page() {
    let evil = "</script><script>alert(1)</script>\"'&<!--\u{0}";
    let mut outcome = outcome(1.0, &[]);
    let response = outcome.response["bye"].clone();
    outcome.response.insert(evil.into(), response);
    outcome.scenario = evil.into();
    outcome.command = evil.into();
    outcome.schema = evil.into();
    outcome.reasons = vec![evil.into()];
    outcome.counters.insert(evil.into(), 1);
    outcome.calls.failures.insert(evil.into(), 1);
    outcome.violations.counts.insert(evil.into(), 1);
    outcome.violations.examples.push(evil.into());
    outcome.parameters.insert(evil.into(), evil.into());
    outcome.goals.push(GoalResult { goal: evil.into(), found: evil.into(), met: true });
    let manifest = &mut outcome.manifest;
    for text in [&mut manifest.date, &mut manifest.kernel, &mut manifest.cpu_model] {
        *text = evil.into();
    }
    manifest.command_line = vec![evil.into()];
    manifest.sysctls.insert(evil.into(), evil.into());
    manifest.server = Some(ServerBuild { version: evil.into(), config_digest: evil.into() });
    let page = outcome.to_html();
    check(&page);
    assert_eq!(page.matches("<script").count(), 1, "the page's own");
    assert!(!page.contains("<!--"));
    assert!(!outcome.table().contains('\u{0}'));
}

#[test]
fn a_run_of_nothing_has_a_page_and_a_table() {
    let recorder = Recorder::new(std::time::Duration::from_secs(1));
    let outcome = recorder.into_outcome(About::default(), &[]);
    check(&outcome.to_html());
    assert!(outcome.table().contains("PASS"));
    assert_eq!(Outcome::parse(&outcome.to_json()).unwrap(), outcome);
}

#[test]
fn the_table_says_what_became_of_the_calls() {
    let table = outcome(1.0, &["lost=0"]).table();
    for line in [
        "kept                                   9,996",
        "lost                                       4",
        "goal lost=0: NOT MET, found 4",
        "safe again 99.96 % of the calls in danger",
        "  beyond the delay",
        "\nFAIL\n",
    ] {
        assert!(table.contains(line), "{line:?} in {table}");
    }
    assert!(table.lines().all(|line| line.chars().count() < 160), "{table}");
}

/// What `look` shows of a line with a fault.
fn shown(look: Look, ends_at_ms: &[u64]) -> String {
    let mut out = Vec::new();
    let mut live = Live::new(&mut out, look);
    for end in ends_at_ms {
        let interval =
            Interval { started: 50, done: 40, endangered: 10, recovered: 5, ..Interval::default() };
        live.show(&Line {
            schema: SCHEMA,
            kind: "interval",
            at_ms: end - 100,
            interval_ms: 100,
            interval,
            calls: Calls { kept: 1234, ..Calls::default() },
            in_flight: 77,
            endangered: 10,
            safe: 5,
        });
    }
    live.end();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_terminal_is_drawn_over_and_left_clean() {
    let look = Look { terminal: true, color: true, width: 80 };
    let text = shown(look, &[100, 200]);
    assert!(text.contains("started 500/s") && text.contains("in flight 77"), "{text}");
    assert!(text.contains("\x1b[1m50.0 %\x1b[0m"), "{text}");
    let up = text.matches("\x1b[1A\x1b[2K").count();
    assert_eq!(up, text.matches('\n').count(), "each line is taken away");
    let narrow = shown(Look { width: 30, ..look }, &[100]);
    let lines = narrow.split("\x1b[1A").next().unwrap().lines();
    assert!(lines.clone().all(|line| line.chars().count() <= 30), "{narrow}");
    let plain = shown(Look { color: false, ..look }, &[100]);
    assert!(!plain.contains("\x1b[3") && !plain.contains("\x1b[0m"), "{plain}");
}

#[test]
fn without_a_terminal_there_is_a_line_a_second() {
    let look = Look { terminal: false, color: false, width: 80 };
    let ends: Vec<u64> = (1..=30).map(|n| n * 100).collect();
    let text = shown(look, &ends);
    assert!(!text.contains('\x1b'));
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().all(|line| line.contains("safe 50.0 %")), "{text}");
}
