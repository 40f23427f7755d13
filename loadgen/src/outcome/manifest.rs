//! Under what conditions a result came about.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The machine and the programs. No name of the host: results are published.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Manifest {
    pub(crate) loadgen_version: String,
    /// Start of the run, UTC, RFC 3339.
    pub(crate) date: String,
    /// The same, for logs of other tools.
    pub(crate) started_unix_ms: u64,
    pub(crate) command_line: Vec<String>,
    pub(crate) seed: u64,
    pub(crate) kernel: String,
    pub(crate) cpu_model: String,
    /// CPUs that are online.
    pub(crate) cpus: u32,
    /// Of the first CPU; `None` when the kernel tells none, as in a guest.
    pub(crate) governor: Option<String>,
    pub(crate) memory_kib: u64,
    /// CPUs that this process may run on, as the kernel writes lists: `0-3,8`.
    pub(crate) cpus_allowed: String,
    /// The core of each worker; empty when they are not pinned.
    pub(crate) worker_cores: Vec<u32>,
    /// Soft limits: `open files`, `locked memory`, `processes`; -1 is none.
    pub(crate) limits: BTreeMap<String, i64>,
    /// By name with dots: `net.core.somaxconn`.
    pub(crate) sysctls: BTreeMap<String, String>,
    /// `None` when the server is not ours.
    pub(crate) server: Option<ServerBuild>,
}

/// The server, when it is Holdfast.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ServerBuild {
    pub(crate) version: String,
    /// FNV-1a of its configuration's text, 16 hexadecimal digits.
    pub(crate) config_digest: String,
}

/// What of the kernel's settings changes how SIP over many connections behaves.
const SYSCTLS: [&str; 26] = [
    "fs.file-max",
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "net.core.netdev_max_backlog",
    "net.core.rmem_default",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_default",
    "net.core.wmem_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_autocorking",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_retries2",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
    "net.ipv4.udp_mem",
];

/// Limits of `/proc/self/limits` that a run can meet.
const LIMITS: [&str; 3] = ["Max open files", "Max locked memory", "Max processes"];

/// Files of `/proc` are short; a longer one is cut.
const FILE_BYTES_MAX: usize = 4096;

impl Manifest {
    /// Looks at the machine. `seed` and `worker_cores` are the run's. What the kernel does not
    /// tell is left empty.
    pub(crate) fn collect(seed: u64, worker_cores: Vec<u32>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        Self {
            loadgen_version: env!("CARGO_PKG_VERSION").into(),
            date: rfc3339(since),
            started_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            command_line: command_line(),
            seed,
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
            cpu_model: cpu_model(&cpuinfo),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count() as u32,
            governor,
            memory_kib: field(&meminfo, "MemTotal:")
                .and_then(|text| text.split_ascii_whitespace().next()?.parse().ok())
                .unwrap_or(0),
            cpus_allowed: field(&status, "Cpus_allowed_list:").unwrap_or_default().into(),
            worker_cores,
            limits: limits(&fs::read_to_string("/proc/self/limits").unwrap_or_default()),
            sysctls: SYSCTLS.iter().filter_map(|name| sysctl(name)).collect(),
            server: None,
        }
    }
}

impl ServerBuild {
    pub(crate) fn new(version: &str, config: &str) -> Self {
        let digest = config.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |value, byte| {
            (value ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { version: version.into(), config_digest: format!("{digest:016x}") }
    }
}

/// The arguments; of the program its name only, its folder is nobody's business.
fn command_line() -> Vec<String> {
    let mut arguments = std::env::args_os().map(|text| text.to_string_lossy().into_owned());
    let program = arguments.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or("loadgen").to_owned();
    std::iter::once(name).chain(arguments).collect()
}

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text: Vec<&str> = text.split_ascii_whitespace().collect();
    Some(text.join(" ").chars().take(FILE_BYTES_MAX).collect())
}

fn sysctl(name: &str) -> Option<(String, String)> {
    let value = read(&format!("/proc/sys/{}", name.replace('.', "/")))?;
    Some((name.into(), value))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// `model name` of x86; other processors tell numbers of maker and part.
fn cpu_model(cpuinfo: &str) -> String {
    let of = |name: &str| field(cpuinfo, name).map(|text| text.trim_start_matches(':').trim());
    match (of("model name"), of("CPU implementer"), of("CPU part")) {
        (Some(name), _, _) => name.into(),
        (None, Some(maker), Some(part)) => format!("implementer {maker}, part {part}"),
        (None, _, _) => String::new(),
    }
}

fn limits(text: &str) -> BTreeMap<String, i64> {
    let soft = |name: &str| {
        let value = field(text, name)?.split_ascii_whitespace().next()?;
        let short = name.trim_start_matches("Max ").to_owned();
        Some((short, if value == "unlimited" { -1 } else { value.parse().ok()? }))
    };
    LIMITS.iter().filter_map(|name| soft(name)).collect()
}

/// UTC. Days to a date as in the calendar of the Gregorian era of 400 years.
fn rfc3339(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    // A clock beyond the year 9999 is broken; the loop is short either way.
    while year < 9999 && days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let texts = [0, 951_782_400, 1_709_251_199, 1_735_689_599]
            .map(|seconds| rfc3339(Duration::from_secs(seconds)));
        assert_eq!(
            texts,
            [
                "1970-01-01T00:00:00Z",
                "2000-02-29T00:00:00Z",
                "2024-02-29T23:59:59Z",
                "2024-12-31T23:59:59Z"
            ]
        );
    }

    #[test]
    fn the_machine_is_described_without_its_name() {
        let manifest = Manifest::collect(7, vec![1]);
        assert!(!manifest.kernel.is_empty() && manifest.cpus > 0);
        assert!(manifest.sysctls.contains_key("net.core.somaxconn"));
        assert!(manifest.limits["open files"] != 0);
        let host = read("/proc/sys/kernel/hostname").unwrap_or_default();
        assert!(manifest.sysctls.values().all(|value| *value != host));
        assert!(manifest.command_line.iter().take(1).all(|name| !name.contains('/')));
    }

    #[test]
    fn limits_are_the_soft_ones() {
        let text = "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\n\
                    Max locked memory  unlimited  unlimited  bytes\n";
        let limits = limits(text);
        assert_eq!(limits.get("open files"), Some(&1024));
        assert_eq!(limits.get("locked memory"), Some(&-1));
    }

    #[test]
    fn a_processor_without_a_name_is_told_by_its_numbers() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: Fast 9\n"), "Fast 9");
        let arm = "processor : 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
        assert_eq!(cpu_model(arm), "implementer 0x41, part 0xd0c");
    }

    #[test]
    fn another_configuration_has_another_digest() {
        let [a, b] = ["a = 1", "a = 2"].map(|text| ServerBuild::new("0.1.0", text).config_digest);
        assert!(a != b && a.len() == 16);
    }
}
