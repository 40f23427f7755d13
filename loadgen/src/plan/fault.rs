//! What goes wrong, from a text.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::words::{Words, count, duration, quoted};
use super::{DURATION_MAX, Side, TIMES_MAX};

const KINDS: &str = "reset, fin, half-close, refuse, accept-then-close, blackhole, stop-reading, \
    slow-reader N B/s, slow-writer T, cut-inside, tls-alert, handshake-stall, other-port, \
    unavailable 503 [with error-info] [with retry-after N], 430, 477, late-on-new-connection, \
    duplicate, kernel-drop, kernel-kill, kernel-delay T";
/// Parties that a count may name.
const PARTIES_MAX: u32 = 1_000_000;
/// Bytes a second of a slow reader.
const BYTES_PER_SECOND_MAX: u32 = 1_000_000_000;
/// Seconds of Retry-After: longer than any window of recovery.
const RETRY_AFTER_MAX: u32 = 3600;
/// Between the bytes of a slow writer, and of a packet: more is a blackhole.
const GAP_MAX: Duration = Duration::from_secs(60);

/// What a party suffers, or does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// RST on its connections.
    Reset,
    /// FIN on its connections.
    Fin,
    /// It writes no more and reads on.
    HalfClose,
    /// Its listener refuses connections.
    Refuse,
    /// Its listener takes connections and closes them.
    AcceptThenClose,
    /// What comes is dropped, nothing is written.
    Blackhole,
    /// Nothing is read: what comes stays in the kernel.
    StopReading,
    SlowReader {
        bytes_per_second: u32,
    },
    /// Each byte alone, so long after the one before.
    SlowWriter {
        gap: Duration,
    },
    /// Half a message, then RST.
    CutInside,
    TlsAlert,
    /// Its listener takes connections and says nothing.
    HandshakeStall,
    /// Its connections are reset, and it listens at another port from then on.
    OtherPort,
    /// It answers 503.
    Unavailable {
        /// With `Error-Info: transport-error`.
        error_info: bool,
        /// With Retry-After, seconds.
        retry_after: Option<u32>,
    },
    /// It answers 430 (RFC 5626 §11.5).
    FlowFailed430,
    /// It answers 477, as some proxies do when they cannot send.
    Status477,
    /// It loses its connection under a re-INVITE and answers it on a new one.
    LateOnNewConnection,
    /// It answers twice.
    Duplicate,
    /// The kernel drops its packets (nftables).
    KernelDrop,
    /// The kernel kills its connections (`ss -K`).
    KernelKill,
    /// The kernel delays its packets (netem).
    KernelDelay {
        delay: Duration,
    },
}

impl What {
    /// It is over as soon as it is done; what lasts, lasts until it is lifted.
    pub(crate) fn is_momentary(&self) -> bool {
        matches!(
            self,
            Self::Reset
                | Self::Fin
                | Self::HalfClose
                | Self::CutInside
                | Self::TlsAlert
                | Self::OtherPort
                | Self::KernelKill
        )
    }

    /// It needs root, and runs in the kernel.
    pub(crate) fn is_of_the_kernel(&self) -> bool {
        matches!(self, Self::KernelDrop | Self::KernelKill | Self::KernelDelay { .. })
    }

    fn read(words: &mut Words<'_>) -> Result<Self, String> {
        Ok(match words.next(&format!("a fault ({KINDS})"))? {
            "reset" => Self::Reset,
            "fin" => Self::Fin,
            "half-close" => Self::HalfClose,
            "refuse" => Self::Refuse,
            "accept-then-close" => Self::AcceptThenClose,
            "blackhole" => Self::Blackhole,
            "stop-reading" => Self::StopReading,
            "slow-reader" => {
                let word = words.next("bytes a second, such as 1000 B/s")?;
                let (digits, joined) = match word.strip_suffix("B/s") {
                    Some(digits) => (digits, true),
                    None => (word, false),
                };
                let bytes_per_second = count(digits, "bytes a second", BYTES_PER_SECOND_MAX)?;
                if !joined {
                    words.must("B/s")?;
                }
                Self::SlowReader { bytes_per_second }
            }
            "slow-writer" => Self::SlowWriter { gap: gap(words, Duration::from_millis(10))? },
            "cut-inside" => Self::CutInside,
            "tls-alert" => Self::TlsAlert,
            "handshake-stall" => Self::HandshakeStall,
            "other-port" => Self::OtherPort,
            "unavailable" => Self::read_unavailable(words)?,
            "430" | "flow-failed" => Self::FlowFailed430,
            "477" => Self::Status477,
            "late-on-new-connection" => Self::LateOnNewConnection,
            "duplicate" => Self::Duplicate,
            "kernel-drop" => Self::KernelDrop,
            "kernel-kill" => Self::KernelKill,
            "kernel-delay" => Self::KernelDelay { delay: gap(words, Duration::from_millis(200))? },
            other => return Err(format!("{} is no fault: allowed are {KINDS}", quoted(other))),
        })
    }

    fn read_unavailable(words: &mut Words<'_>) -> Result<Self, String> {
        words.pass("503");
        let (mut error_info, mut retry_after) = (false, None);
        while words.pass("with") || words.pass("and") {
            match words.next("error-info or retry-after")? {
                "error-info" => error_info = true,
                "retry-after" => {
                    let seconds = words.next("seconds")?;
                    let seconds = seconds.strip_suffix('s').unwrap_or(seconds);
                    retry_after = Some(count(seconds, "seconds", RETRY_AFTER_MAX)?);
                }
                other => {
                    let other = quoted(other);
                    return Err(format!("{other}: a 503 comes with error-info or retry-after"));
                }
            }
        }
        Ok(Self::Unavailable { error_info, retry_after })
    }
}

/// A time, where there is one.
fn gap(words: &mut Words<'_>, default: Duration) -> Result<Duration, String> {
    match words.peek() {
        Some(word) if word.starts_with(|c: char| c.is_ascii_digit()) => {
            let gap = duration(words.next("a time")?)?;
            let fits = !gap.is_zero() && gap <= GAP_MAX;
            fits.then_some(gap).ok_or_else(|| {
                format!("{} is out of range: above 0s, up to {}s", quoted(word), GAP_MAX.as_secs())
            })
        }
        _ => Ok(default),
    }
}

/// How many parties of a side are struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// Of all, to the nearest party, one at least.
    Millionths(u32),
    Count(u32),
}

impl Share {
    /// How many of `parties` that is, as many as there are at most.
    pub(crate) fn of(self, parties: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(parties),
            Self::Millionths(millionths) => {
                let product = u64::from(parties) * u64::from(millionths);
                let share = ((product + 500_000) / 1_000_000).max(1);
                (share as u32).min(parties)
            }
        }
    }

    /// `50%`, `10`, `all`.
    fn read(word: &str) -> Result<Self, String> {
        let refused = || {
            let what = quoted(word);
            format!("{what} is no share: a percentage above 0% and up to 100%, a number, or all")
        };
        if word == "all" {
            return Ok(Self::Millionths(1_000_000));
        }
        let Some(digits) = word.strip_suffix('%') else {
            return count(word, "parties", PARTIES_MAX).map(Self::Count).map_err(|_| refused());
        };
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let per_cent = digits.parse::<f64>().ok().filter(|value| plain && *value <= 100.0);
        let millionths = (per_cent.ok_or_else(refused)? * 10_000.0).round() as u32;
        if millionths == 0 { Err(refused()) } else { Ok(Self::Millionths(millionths)) }
    }
}

/// A fault on the timeline.
///
/// ```text
/// at 10s reset on 50% of callees, over 2s, away 1800ms, every 5s, 3 times
/// ```
///
/// One wave; rolling when `over` spreads it over a time; flapping when `every` brings it back to
/// the same parties. `away` is how long the party's listener refuses connections, or how long the
/// effect lasts; without it what lasts is never lifted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    text: String,
    pub(crate) at: Duration,
    pub(crate) what: What,
    pub(crate) share: Share,
    pub(crate) side: Side,
    pub(crate) over: Duration,
    pub(crate) away: Option<Duration>,
    pub(crate) every: Duration,
    pub(crate) times: u32,
}

impl Fault {
    /// Reads a fault.
    ///
    /// # Errors
    ///
    /// What stands where, and what is allowed there; a fault that would strike a party that still
    /// suffers it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut words = Words::new(text)?;
        let at = words.duration_after("at")?;
        let what = What::read(&mut words)?;
        words.must("on")?;
        let share = Share::read(words.next("a share such as 50%")?)?;
        words.pass("of");
        let side = match words.next("callees or callers")? {
            "callees" | "callee" => Side::Callee,
            "callers" | "caller" => Side::Caller,
            other => return Err(format!("{}: allowed are callees, callers", quoted(other))),
        };
        let mut fault = Self {
            text: text.trim().to_owned(),
            at,
            what,
            share,
            side,
            over: Duration::ZERO,
            away: None,
            every: Duration::ZERO,
            times: 1,
        };
        fault.read_options(&mut words)?;
        fault.check()?;
        Ok(fault)
    }

    fn read_options(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let mut seen: Vec<&str> = Vec::new();
        let mut has_times = false;
        while let Some(word) = words.peek() {
            let known = ["over", "away", "every"].into_iter().find(|name| *name == word);
            if known.is_some_and(|name| seen.contains(&name)) {
                return Err(format!("`{word}` stands twice"));
            }
            match known {
                Some("over") => self.over = words.duration_after("over")?,
                Some("away") => self.away = Some(words.duration_after("away")?),
                Some(_) => self.every = words.duration_after("every")?,
                None if word.starts_with(|c: char| c.is_ascii_digit()) && !has_times => {
                    self.times = count(words.next("a number")?, "times", TIMES_MAX)?;
                    words.must("times")?;
                    has_times = true;
                }
                None => {
                    let allowed = "over T, away T, every T, N times";
                    return Err(format!("{}: allowed are {allowed}", quoted(word)));
                }
            }
            seen.extend(known);
        }
        match (seen.contains(&"every"), has_times) {
            (true, false) => Err("`every` without `N times`".into()),
            (false, true) if self.times > 1 => Err("`N times` without `every T`".into()),
            _ => Ok(()),
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.times > 1 && self.every.is_zero() {
            return Err("every 0s: above 0s is allowed".into());
        }
        if let Some(away) = self.away
            && self.times > 1
            && away >= self.every
        {
            let (away, every) = (away.as_secs_f64(), self.every.as_secs_f64());
            return Err(format!("away {away} s every {every} s: away must be shorter than every"));
        }
        if self.away.is_none() && self.times > 1 && !self.what.is_momentary() {
            return Err("what lasts needs `away T` to come again".into());
        }
        let last = self.every.checked_mul(self.times - 1).and_then(|rest| {
            let end = self.at.checked_add(rest)?.checked_add(self.over)?;
            end.checked_add(self.away.unwrap_or_default())
        });
        match last.is_some_and(|last| last <= DURATION_MAX) {
            true => Ok(()),
            false => Err("ends later than after seven days".into()),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}
