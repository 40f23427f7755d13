//! A histogram of times, and its form in JSON.

use std::io::Read;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{
    Deserializer, Serializer as _, V2DeflateSerializer, V2Serializer,
};
use serde::{Deserialize, Serialize};

/// A histogram of microseconds with three significant digits: an error of at most 0.1 %.
///
/// Its JSON has figures in milliseconds and, in `hdr`, the whole histogram (HdrHistogram V2,
/// deflated, base64), from which alone it is read again.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Kept")]
pub(crate) struct Timing(Histogram<u64>);

/// Longer times count as this one.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(120);

const DIGITS: u8 = 3;

/// A histogram of these bounds has at most 18,432 counters of at most 9 bytes each.
const HISTOGRAM_BYTES_MAX: u64 = 256 * 1024;

impl Timing {
    /// An empty histogram: 150 KiB, all there will ever be.
    pub(crate) fn new() -> Self {
        let Ok(histogram) = Histogram::new_with_max(TIME_MAX.as_micros() as u64, DIGITS) else {
            unreachable!("the bounds are constants that the histogram takes")
        };
        Self(histogram)
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    /// Adds all samples of `other`; loses nothing.
    pub(crate) fn merge(&mut self, other: &Self) {
        let added = self.0.add(&other.0);
        debug_assert!(added.is_ok(), "all histograms have the same bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Milliseconds at or below which `quantile` (0 to 1) of the samples are; 0 when there are none.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { millis(self.0.value_at_quantile(quantile)) }
    }

    pub(crate) fn min_ms(&self) -> f64 {
        if self.0.is_empty() { 0.0 } else { millis(self.0.min()) }
    }

    pub(crate) fn max_ms(&self) -> f64 {
        millis(self.0.max())
    }

    pub(crate) fn mean_ms(&self) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.mean() / 1000.0 }
    }

    /// Milliseconds.
    pub(crate) fn deviation_ms(&self) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.stdev() / 1000.0 }
    }

    /// Samples of at most `time`.
    #[cfg(test)]
    pub(crate) fn count_within(&self, time: Duration) -> u64 {
        self.0.count_between(0, u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    }

    /// Every value that has samples, in milliseconds, with their number.
    pub(crate) fn values_ms(&self) -> impl Iterator<Item = (f64, u64)> {
        let recorded = self.0.iter_recorded();
        recorded.map(|step| (millis(step.value_iterated_to()), step.count_at_value()))
    }

    /// For writers of HdrHistogram's own formats.
    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// HdrHistogram V2.
    pub(crate) fn to_v2(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let written = V2Serializer::new().serialize(&self.0, &mut bytes);
        debug_assert!(written.is_ok(), "the histogram is small and memory takes it");
        bytes
    }

    /// Reads HdrHistogram V2 as [`to_v2`](Self::to_v2) writes it.
    ///
    /// # Errors
    /// Other bytes, or a histogram of other bounds.
    pub(crate) fn from_v2(bytes: &[u8]) -> Result<Self, String> {
        // The header tells how much memory the histogram takes, so it is looked at first: cookie,
        // length, offset, digits (4 bytes each), lowest, highest (8 bytes each).
        let digits = bytes.get(12..16);
        let bounds = (bytes.get(16..24), bytes.get(24..32));
        let highest = TIME_MAX.as_micros() as u64;
        if digits != Some(&u32::from(DIGITS).to_be_bytes())
            || bounds != (Some(&1_u64.to_be_bytes()), Some(&highest.to_be_bytes()))
        {
            return Err(format!(
                "histogram is not one of 1 µs to {highest} µs with {DIGITS} significant digits"
            ));
        }
        let read = Deserializer::new().deserialize::<u64, _>(&mut &*bytes);
        read.map(Self).map_err(|e| format!("histogram cannot be read: {e}"))
    }

    /// HdrHistogram V2, deflated, base64: the text that other tools read.
    pub(crate) fn to_base64(&self) -> String {
        let mut bytes = Vec::new();
        let written = V2DeflateSerializer::new().serialize(&self.0, &mut bytes);
        debug_assert!(written.is_ok(), "the histogram is small and memory takes it");
        STANDARD.encode(bytes)
    }

    /// Reads [`to_base64`](Self::to_base64).
    ///
    /// # Errors
    /// Other text, or a histogram of other bounds.
    pub(crate) fn from_base64(text: &str) -> Result<Self, String> {
        let bytes = STANDARD.decode(text).map_err(|e| format!("histogram is not base64: {e}"))?;
        // Cookie and length, 4 bytes each, are before the deflated part.
        let deflated = bytes.get(8..).ok_or("histogram is cut off")?;
        let mut plain = Vec::new();
        flate2::read::ZlibDecoder::new(deflated)
            .take(HISTOGRAM_BYTES_MAX)
            .read_to_end(&mut plain)
            .map_err(|e| format!("histogram cannot be inflated: {e}"))?;
        Self::from_v2(&plain)
    }
}

impl std::fmt::Debug for Timing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (count, p50, max) = (self.count(), self.quantile_ms(0.5), self.max_ms());
        write!(f, "Timing({count} samples, p50 {p50} ms, max {max} ms)")
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::new()
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// What is written.
#[derive(Serialize)]
struct Written {
    count: u64,
    min_ms: f64,
    mean_ms: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    hdr: String,
}

impl From<Timing> for Written {
    fn from(timing: Timing) -> Self {
        Self {
            count: timing.count(),
            min_ms: timing.min_ms(),
            mean_ms: timing.mean_ms(),
            p50_ms: timing.quantile_ms(0.5),
            p90_ms: timing.quantile_ms(0.9),
            p99_ms: timing.quantile_ms(0.99),
            p999_ms: timing.quantile_ms(0.999),
            max_ms: timing.max_ms(),
            hdr: timing.to_base64(),
        }
    }
}

/// What is read: the figures follow from the histogram.
#[derive(Deserialize)]
struct Kept {
    hdr: String,
}

impl TryFrom<Kept> for Timing {
    type Error = String;

    fn try_from(read: Kept) -> Result<Self, String> {
        Self::from_base64(&read.hdr)
    }
}
