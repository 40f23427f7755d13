//! Several outcomes side by side: ratios of their figures, and whether they mean anything.
//!
//! A side is one run or several; its figure is the median of theirs, its spread their lowest and
//! highest. Two sides whose spreads overlap are *within noise*; so are sides of one run each, whose
//! noise nobody knows.

mod figures;
mod page;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::result::{Outcome, Verdict};
use super::text::{percent, precise, printable};
use figures::Figure;

/// Runs of one side; more are a slip of the shell.
pub(crate) const RUNS_MAX: usize = 1000;

/// Runs that belong together.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) name: String,
    pub(crate) runs: Vec<Outcome>,
}

/// The first side and what it is compared with.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    sides: Vec<Side>,
    rows: Vec<Row>,
    pub(crate) warnings: Vec<String>,
}

/// One figure of all sides.
#[derive(Clone, Debug)]
struct Row {
    figure: Figure,
    /// `None` for a side that has no such figure in any run.
    spreads: Vec<Option<Spread>>,
}

/// The figure of one side.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    low: f64,
    median: f64,
    high: f64,
    runs: usize,
}

/// What a side's figure is against that of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Equal,
    /// A side has one run: the noise is unknown.
    OneRun,
    WithinNoise,
    Better,
    Worse,
    /// Neither more nor less is better.
    Different,
}

/// Which files make which side.
///
/// With `after` (what stands behind `--`) there are two sides; else each argument is a side, of the
/// files that commas part.
///
/// # Errors
/// Fewer than two sides, an empty name, or more than [`RUNS_MAX`] files of one side.
pub(crate) fn sides(before: &[String], after: &[String]) -> Result<Vec<Vec<PathBuf>>, String> {
    let files = |texts: &[String]| -> Vec<PathBuf> {
        texts.iter().flat_map(|text| text.split(',')).map(PathBuf::from).collect()
    };
    let sides = match after {
        [] => before.iter().map(|text| files(std::slice::from_ref(text))).collect(),
        after => vec![files(before), files(after)],
    };
    if sides.len() < 2 || sides.iter().any(Vec::is_empty) {
        return Err("compare needs at least two sides: A.json B.json, or A1.json,A2.json \
                    B1.json,B2.json, or A1.json A2.json -- B1.json B2.json"
            .into());
    }
    for side in &sides {
        if side.iter().any(|file| file.as_os_str().is_empty()) {
            return Err("compare: an empty file name between commas".into());
        }
        if side.len() > RUNS_MAX {
            let found = side.len();
            return Err(format!("compare: {found} files of one side, at most {RUNS_MAX}"));
        }
    }
    Ok(sides)
}

impl Side {
    /// Reads the files of one side; it is named by the first of them.
    ///
    /// # Errors
    /// Names the file, and what is wrong with it.
    pub(crate) fn read(files: &[PathBuf]) -> Result<Self, String> {
        let runs: Result<Vec<Outcome>, String> =
            files.iter().map(|file| Outcome::read(file)).collect();
        let name = files.first().map_or("", |file| stem(file));
        let more = files.len().saturating_sub(1);
        let name = if more > 0 { format!("{name} +{more}") } else { name.to_owned() };
        Ok(Self { name, runs: runs? })
    }
}

fn stem(file: &Path) -> &str {
    file.file_stem().and_then(|name| name.to_str()).unwrap_or("?")
}

impl Comparison {
    /// Compares every side with the first.
    pub(crate) fn new(sides: Vec<Side>) -> Self {
        let rows = figures::of(&sides).into_iter().map(|figure| {
            let spreads = sides.iter().map(|side| Spread::of(side, &figure)).collect();
            Row { figure, spreads }
        });
        let rows = rows.collect();
        let warnings = warnings(&sides);
        Self { sides, rows, warnings }
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {}", printable(warning));
        }
        for (number, side) in self.sides.iter().enumerate() {
            let letter = letter(number);
            let _ =
                writeln!(text, "{letter}: {} ({} runs)", printable(&side.name), side.runs.len());
        }
        for number in 1..self.sides.len() {
            let head = format!("{} against A", letter(number));
            let b = letter(number);
            let _ = writeln!(text, "\n{head:<34}{:>22}{b:>22}{:>9}  judgement", "A", "ratio");
            for row in &self.rows {
                row.write(&mut text, number);
            }
            let _ = writeln!(text, "{}", self.chance(number));
        }
        text.push_str(
            "median (lowest to highest) of each side's runs; within noise: the ranges overlap, or \
             the noise is unknown\n",
        );
        text
    }
}

impl Comparison {
    /// How far the judgements of `side` can be trusted: of two equal sides of a and b runs, one lies
    /// wholly above the other in 2 of (a + b over a) cases.
    fn chance(&self, side: usize) -> String {
        let runs = |side: usize| self.sides.get(side).map_or(0, |side| side.runs.len());
        let (a, b) = (runs(0), runs(side));
        if a < 2 || b < 2 {
            return "A side has one run: nothing is judged; repeat the runs.".into();
        }
        let cases = (1..=a).fold(1.0, |cases, k| cases * (b + k) as f64 / k as f64);
        let share = percent((2.0 / cases).min(1.0));
        format!(
            "With {a} and {b} runs, chance alone makes {share} of equal figures better or worse."
        )
    }
}

impl Row {
    fn write(&self, text: &mut String, number: usize) {
        let label = printable(&self.figure.label());
        let [a, b] = [0, number].map(|side| self.text(side));
        let (ratio, judgement) = (self.ratio(number), self.judge(number));
        let judgement = judgement.map_or("", Judgement::text);
        let _ = writeln!(text, "{label:<34}{a:>22}{b:>22}{ratio:>9}  {judgement}");
    }

    fn text(&self, side: usize) -> String {
        let spread = self.spreads.get(side).copied().flatten();
        spread.map_or_else(|| "–".into(), Spread::text)
    }

    fn pair(&self, side: usize) -> Option<(Spread, Spread)> {
        Some(((*self.spreads.first()?)?, (*self.spreads.get(side)?)?))
    }

    /// The median of `side` as a multiple of the first side's.
    fn ratio(&self, side: usize) -> String {
        match self.pair(side) {
            Some((a, b)) if a.median != 0.0 => {
                let ratio = b.median / a.median;
                let huge = !ratio.is_finite() || ratio.abs() >= 1e6;
                if huge { "> 10^6".into() } else { format!("{ratio:.3}") }
            }
            _ => "–".into(),
        }
    }

    fn judge(&self, side: usize) -> Option<Judgement> {
        let (a, b) = self.pair(side)?;
        let error = self.figure.resolution() * a.high.abs().max(b.high.abs());
        Some(if a.is(b.median) && b.is(a.median) {
            Judgement::Equal
        } else if a.runs == 1 || b.runs == 1 {
            Judgement::OneRun
        } else if a.low <= b.high + error && b.low <= a.high + error {
            Judgement::WithinNoise
        } else {
            match (self.figure.more_is_better(), b.median > a.median) {
                (None, _) => Judgement::Different,
                (Some(better), more) if better == more => Judgement::Better,
                (Some(_), _) => Judgement::Worse,
            }
        })
    }
}

impl Judgement {
    fn text(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::OneRun => "within noise (one run)",
            Self::WithinNoise => "within noise",
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Different => "different",
        }
    }
}

impl Spread {
    fn of(side: &Side, figure: &Figure) -> Option<Self> {
        let mut values: Vec<f64> = side.runs.iter().filter_map(|run| figure.find(run)).collect();
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len().is_multiple_of(2) {
            true => f64::midpoint(values[middle - 1], values[middle]),
            false => values[middle],
        };
        Some(Self { low, median, high, runs: values.len() })
    }

    /// All runs have this figure.
    fn is(self, figure: f64) -> bool {
        self.low == figure && self.high == figure
    }

    fn text(self) -> String {
        match self.runs {
            1 => precise(self.median),
            _ if self.is(self.median) => precise(self.median),
            _ => format!("{} ({}–{})", precise(self.median), precise(self.low), precise(self.high)),
        }
    }
}

/// A for the first side; behind Z come numbers.
fn letter(side: usize) -> String {
    match u8::try_from(side) {
        Ok(n) if n < 26 => char::from(b'A' + n).into(),
        _ => format!("#{}", side + 1),
    }
}

/// What makes the sides' figures differ besides what is to be compared.
fn warnings(sides: &[Side]) -> Vec<String> {
    type Of = (&'static str, fn(&Outcome) -> String);
    const MATTER: [Of; 9] = [
        ("command", |run| run.command.clone()),
        ("scenario", |run| run.scenario.clone()),
        ("seed", |run| run.manifest.seed.to_string()),
        ("kernel", |run| run.manifest.kernel.clone()),
        ("CPU", |run| format!("{} × {}", run.manifest.cpus, run.manifest.cpu_model)),
        ("governor", |run| format!("{:?}", run.manifest.governor)),
        ("workers", |run| {
            format!("{} on cores {:?}", run.generator.workers, run.manifest.worker_cores)
        }),
        ("loadgen version", |run| run.manifest.loadgen_version.clone()),
        ("options", |run| format!("{:?}", run.parameters)),
    ];
    let runs = || sides.iter().flat_map(|side| &side.runs);
    let mut warnings = Vec::new();
    for (name, of) in MATTER {
        let mut values: Vec<String> = runs().map(of).collect();
        values.sort();
        values.dedup();
        if values.len() > 1 {
            let shown: Vec<String> =
                values.iter().take(3).map(|value| value.chars().take(120).collect()).collect();
            warnings.push(format!("{name} differs: {}", shown.join(" | ")));
        }
    }
    let limited = runs().filter(|run| run.verdict == Verdict::GeneratorLimited).count();
    if limited > 0 {
        warnings.push(format!("{limited} runs were limited by the generator, not by the server"));
    }
    warnings
}
