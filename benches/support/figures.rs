//! The figures that are committed, `benches/figures.toml`, and how a run compares with them.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it says what was measured")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What stands above the figures when they are written.
const HEAD: &str = "# What the benches measured, each figure for one operation. `benches/run --save` writes it.\n\
    #\n\
    # allocations, allocated-bytes, instructions: limits; a run that needs more fails.\n\
    # held-bytes, nanoseconds: to compare with; they are not limits.\n";

type Table = BTreeMap<String, f64>;

/// One table of the file, and what a run measured instead.
pub(crate) struct Figures {
    table: &'static str,
    /// By how much a figure may be above the committed one; `None`: by anything.
    tolerance: Option<f64>,
    committed: Table,
    measured: Table,
}

impl Figures {
    /// The committed figures of a table.
    pub(crate) fn of(table: &'static str, tolerance: Option<f64>) -> Self {
        let committed = read(&compared()).remove(table).unwrap_or_default();
        Self { table, tolerance, committed, measured: Table::new() }
    }

    /// Notes a figure, to three decimals.
    pub(crate) fn note(&mut self, name: &str, value: f64) {
        self.measured.insert(name.to_owned(), (value * 1000.0).round() / 1000.0);
    }

    /// True when a figure is above its limit, or has none.
    fn exceeds(&self, name: &str, value: f64) -> bool {
        self.tolerance.is_some_and(|tolerance| {
            self.committed.get(name).is_none_or(|limit| value > limit * (1.0 + tolerance) + 1e-6)
        })
    }

    /// True for a limit that nothing is measured for.
    fn is_missing(&self, name: &str) -> bool {
        self.tolerance.is_some() && !self.measured.contains_key(name)
    }

    /// Prints what was measured beside what is committed. False when something is above its limit.
    fn print(&self) -> bool {
        println!("\n{:<34} {:>14} {:>14} {:>7}", self.table, "measured", "committed", "ratio");
        let mut fine = true;
        for (name, &value) in &self.measured {
            let exceeds = self.exceeds(name, value);
            let committed = self.committed.get(name);
            let before = committed.map_or("-".to_owned(), |before| before.to_string());
            let ratio = committed.filter(|before| **before != 0.0);
            let ratio = ratio.map_or("-".to_owned(), |before| format!("{:.3}", value / before));
            let mark = if exceeds { "  ABOVE THE LIMIT" } else { "" };
            println!("{name:<34} {value:>14} {before:>14} {ratio:>7}{mark}");
            fine &= !exceeds;
        }
        for name in self.committed.keys().filter(|name| self.is_missing(name)) {
            println!("{name:<34} {:>14}", "NOT MEASURED");
            fine = false;
        }
        fine
    }
}

/// Prints what was measured, and with `--save` among the arguments commits it. The exit code is 1 when something
/// is above its limit and is not saved.
pub(crate) fn conclude(all: &[Figures]) -> ExitCode {
    let mut fine = true;
    for figures in all {
        fine &= figures.print();
    }
    if std::env::args().any(|argument| argument == "--save") {
        save(all);
        println!("\nsaved in {}", path().display());
        return ExitCode::SUCCESS;
    }
    if !fine {
        println!("\nmore than {} allows", compared().display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn save(all: &[Figures]) {
    let mut tables = read(&path());
    for figures in all {
        let table = tables.entry(figures.table.to_owned()).or_default();
        table.retain(|name, _| !figures.is_missing(name));
        table.extend(figures.measured.clone());
    }
    let text = toml::to_string(&tables).expect("figures");
    std::fs::write(path(), format!("{HEAD}\n{text}")).expect("a file that can be written");
}

fn read(path: &Path) -> BTreeMap<String, Table> {
    match std::fs::read_to_string(path) {
        Ok(text) => match toml::from_str(&text) {
            Ok(tables) => tables,
            Err(error) => panic!("{}: {error}", path.display()),
        },
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// The figures to compare with: those of another version, if `benches/run --against` names one.
fn compared() -> PathBuf {
    std::env::var_os("HOLDFAST_FIGURES").map_or_else(path, PathBuf::from)
}

fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "benches", "figures.toml"].iter().collect()
}
