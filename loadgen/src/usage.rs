//! What a process uses, from `/proc`.

use std::fs;
use std::time::Duration;

use crate::outcome::Usage;

/// CPU time that this thread used so far.
pub(crate) fn thread_cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
}

/// Looks at process `pid`; `None` when there is no such process (any more).
pub(crate) fn of(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |dir| dir.count());
    let ticks = cpu_ticks(&stat)?;
    Some(Usage {
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        rss_kib: kib(&status, "VmRSS:")?,
        rss_peak_kib: kib(&status, "VmHWM:")?,
        descriptors: descriptors as u64,
    })
}

/// Fields 14 and 15 of `stat`, counted behind the name, which may hold blanks and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_does_not_shift_its_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0 1";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(kib("VmPeak:\t 9 kB\nVmRSS:\t  77 kB\n", "VmRSS:"), Some(77));
    }

    #[test]
    fn this_process_uses_memory_and_descriptors() {
        let usage = of(std::process::id());
        assert!(usage.is_some_and(|usage| usage.rss_kib > 100 && usage.descriptors > 2));
        assert!(of(u32::MAX).is_none());
    }
}
