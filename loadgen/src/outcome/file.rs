//! Outcomes in files: the final JSON, and HdrHistogram's own formats.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use serde::Deserialize;

use super::result::Outcome;
use super::timing::Timing;

/// Larger files are no outcomes: the largest series makes some 20 MiB.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 30;

/// Ticks of a `.hgrm` table for each half of the rest, as HdrHistogram's plotters expect.
const HGRM_TICKS: u32 = 5;

impl Outcome {
    /// The final JSON, for people to read too.
    pub(crate) fn to_json(&self) -> String {
        // Maps have string keys and numbers are finite: nothing in it can fail.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The same in one line: the last of the JSON lines.
    pub(crate) fn to_json_line(&self) -> String {
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads a final JSON, or JSON lines whose last line is one.
    ///
    /// # Errors
    /// Names the file, and what is wrong with it.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let wrong = |what: String| format!("{}: {what}", path.display());
        let file = File::open(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
        let too_large = || wrong(format!("larger than the limit of {FILE_BYTES_MAX} bytes"));
        if file.metadata().is_ok_and(|data| data.len() > FILE_BYTES_MAX) {
            return Err(too_large());
        }
        // A pipe does not tell its length.
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .map_err(|e| wrong(format!("cannot be read: {e}")))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(too_large());
        }
        Self::parse(&text).map_err(wrong)
    }

    /// Reads the text of a final JSON, or JSON lines whose last line is one.
    ///
    /// # Errors
    /// Says what is wrong, with line and column.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Head {
            schema: Option<String>,
        }
        let last = || text.trim_end().rsplit('\n').next().unwrap_or("");
        let (text, head) = match serde_json::from_str::<Head>(text) {
            Ok(head) => (text, head),
            Err(whole) => match serde_json::from_str::<Head>(last()) {
                Ok(head) => (last(), head),
                Err(_) => return Err(format!("not JSON of an outcome: {whole}")),
            },
        };
        match head.schema.as_deref() {
            Some(super::SCHEMA) => {}
            Some(other) => {
                return Err(format!("schema is {other:?}, expected {:?}", super::SCHEMA));
            }
            None => return Err(format!("has no schema, expected {:?}", super::SCHEMA)),
        }
        serde_json::from_str(text).map_err(|e| format!("not an outcome: {e}"))
    }

    /// Every histogram with the name of its file, which is one of letters, digits, `_` and `-`.
    pub(crate) fn histograms(&self) -> Vec<(String, &Timing)> {
        let mut all = Vec::new();
        for (name, response) in &self.response {
            let name = file_name(name);
            all.push((name.clone(), &response.corrected));
            all.push((format!("{name}-uncorrected"), &response.uncorrected));
        }
        if let Some(recovery) = &self.recovery {
            all.push(("recovery-detected".into(), &recovery.detected));
            all.push(("recovery-first-attempt".into(), &recovery.first_attempt));
            all.push(("recovery-answered".into(), &recovery.answered));
            all.push(("recovery-acked".into(), &recovery.acked));
            all.push(("recovery-excess".into(), &recovery.excess));
        }
        all.push(("lateness".into(), &self.generator.lateness));
        all.retain(|(_, timing)| !timing.is_empty());
        all
    }

    /// Files of HdrHistogram's formats, by name: `run.hlog`, and a `.hgrm` for each histogram.
    ///
    /// # Errors
    /// Says what cannot be written.
    pub(crate) fn hdr_files(&self) -> Result<Vec<(String, Vec<u8>)>, String> {
        let tables = self.histograms().into_iter();
        let tables = tables.map(|(name, timing)| (format!("{name}.hgrm"), timing.to_hgrm().into()));
        Ok(std::iter::once(("run.hlog".into(), self.to_hdr_log()?)).chain(tables).collect())
    }

    /// HdrHistogram log, version 1.3 with V2 histograms: the responses of each interval without a
    /// tag, then every histogram of the whole run with its name as tag. Values are microseconds.
    ///
    /// # Errors
    /// Says what cannot be written.
    pub(crate) fn to_hdr_log(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let started = UNIX_EPOCH
            .checked_add(Duration::from_millis(self.manifest.started_unix_ms))
            .ok_or("start of the run is out of range")?;
        let mut builder = IntervalLogWriterBuilder::new();
        builder
            .add_comment("[Histogram log format version 1.3]")
            .add_comment("holdfast loadgen; values are microseconds")
            .with_start_time(started)
            // The log says seconds and writes the maximum of a line in milliseconds.
            .with_max_value_divisor(1000.0);
        let mut writer = builder
            .begin_log_with(&mut bytes, &mut serializer)
            .map_err(|e| format!("cannot write the log's head: {e}"))?;
        let wrong = |e: &dyn std::fmt::Debug| format!("cannot write a histogram: {e:?}");
        let length = self.series.interval();
        for (index, interval) in self.series.intervals.iter().enumerate() {
            if interval.response.count > 0 {
                let timing = interval.response.timing();
                let start = length.saturating_mul(u32::try_from(index).unwrap_or(u32::MAX));
                writer
                    .write_histogram(timing.histogram(), start, length, None)
                    .map_err(|e| wrong(&e))?;
            }
        }
        let whole = Duration::try_from_secs_f64(self.seconds).unwrap_or_default();
        for (name, timing) in self.histograms() {
            let tag = Tag::new(&name);
            writer
                .write_histogram(timing.histogram(), Duration::ZERO, whole, tag)
                .map_err(|e| wrong(&e))?;
        }
        Ok(bytes)
    }
}

impl Timing {
    /// HdrHistogram's percentile table (`.hgrm`), in milliseconds.
    pub(crate) fn to_hgrm(&self) -> String {
        let histogram = self.histogram();
        let mut text = format!(
            "{:>12} {:>14} {:>10} {:>14}\n\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        );
        for step in histogram.iter_quantiles(HGRM_TICKS) {
            let quantile = step.quantile_iterated_to();
            let value = step.value_iterated_to() as f64 / 1000.0;
            let count = histogram.count_between(0, step.value_iterated_to());
            let _ = write!(text, "{value:>12.3} {quantile:>14.12} {count:>10}");
            if quantile < 1.0 {
                let _ = write!(text, " {:>14.2}", 1.0 / (1.0 - quantile));
            }
            text.push('\n');
        }
        let (mean, deviation) = (self.mean_ms(), self.deviation_ms());
        let _ = writeln!(text, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]");
        let (max, total) = (self.max_ms(), self.count());
        let _ = writeln!(text, "#[Max     = {max:>12.3}, Total count    = {total:>12}]");
        let buckets = histogram.buckets();
        // Each bucket but the first shares half its values with the one before.
        let sub_buckets = histogram.distinct_values() * 2 / (usize::from(buckets) + 1);
        let _ = writeln!(text, "#[Buckets = {buckets:>12}, SubBuckets     = {sub_buckets:>12}]");
        text
    }
}

/// Letters, digits, `_` and `-` of a name; the rest becomes `_`.
fn file_name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    name.chars().take(64).map(safe).collect()
}
