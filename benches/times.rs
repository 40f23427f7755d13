//! The times of criterion's last run beside the committed ones: medians, in nanoseconds, of one operation.
//!
//! ```sh
//! cargo bench --no-default-features --bench times                     # after the benches that criterion runs
//! cargo bench --no-default-features --bench times -- endpoint --save  # commits those of one
//! ```
//!
//! Times of two machines, or of one that is shared, differ for many reasons: they are printed, and never fail.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it says what it read")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;
use support::figures::{Figures, conclude};

#[allow(dead_code, reason = "other benches use the rest")]
mod support;

/// The benches that criterion runs; others in their files are what the core is compared with.
const BENCHES: [&str; 3] = ["endpoint", "message", "wheel"];
/// One more that the core is compared with.
const RSIP: &str = "/rsip";

fn main() -> ExitCode {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let mut wanted: Vec<String> =
        std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    if wanted.is_empty() {
        wanted = BENCHES.map(str::to_owned).to_vec();
    }
    let mut figures = Figures::of("nanoseconds", None);
    let mut count = 0;
    look(&target.join("criterion"), &mut |run| {
        if let Some((name, nanos)) = median(run)
            && !name.ends_with(RSIP)
            && wanted.iter().any(|bench| name.split('/').next() == Some(bench))
        {
            figures.note(&name, nanos);
            count += 1;
        }
    });
    if count == 0 {
        println!("criterion has measured nothing yet: benches/run does");
        return ExitCode::FAILURE;
    }
    conclude(&[figures])
}

/// Finds the last run of each bench.
fn look(directory: &Path, each: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        if path.ends_with("new") {
            each(&path);
        } else {
            look(&path, each);
        }
    }
}

/// The name of a bench, and the median of one operation.
fn median(run: &Path) -> Option<(String, f64)> {
    let read =
        |name| -> Option<Value> { serde_json::from_slice(&fs::read(run.join(name)).ok()?).ok() };
    let bench = read("benchmark.json")?;
    let name = bench["full_id"].as_str()?.to_owned();
    let operations = bench["throughput"]["Elements"].as_f64().unwrap_or(1.0);
    let nanos = read("estimates.json")?["median"]["point_estimate"].as_f64()?;
    Some((name, nanos / operations))
}
