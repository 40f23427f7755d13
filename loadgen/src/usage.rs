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
    let ticks = Stat::read(&stat)?.ticks;
    Some(Usage {
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        rss_kib: kib(&status, "VmRSS:")?,
        rss_peak_kib: kib(&status, "VmHWM:")?,
        descriptors: descriptors as u64,
    })
}

/// Looks at process `pid` and all that descend from it, added up: a server may fork its workers. Pages that
/// they share count for each. `None` when there is no process `pid` (any more).
pub(crate) fn of_family(pid: u32) -> Option<Usage> {
    let mut sum = of(pid)?;
    for child in descendants(pid, &parents()) {
        // One that ended meanwhile is no use of memory, and its CPU time is its parent's.
        if let Some(usage) = of(child) {
            sum.cpu_seconds += usage.cpu_seconds;
            sum.rss_kib += usage.rss_kib;
            sum.rss_peak_kib += usage.rss_peak_kib;
            sum.descriptors += usage.descriptors;
        }
    }
    Some(sum)
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, Stat::read(&stat)?.parent))
    })
    .collect()
}

/// Children of `pid`, their children, and so on.
fn descendants(pid: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        let new = parents.iter().filter(|(child, of)| *of == parent && !found.contains(child));
        let new: Vec<u32> = new.map(|(child, _)| *child).collect();
        found.extend(new);
        at += 1;
    }
    found.split_off(1)
}

/// What is read of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// User and system time, also of children that have ended.
    ticks: u64,
}

impl Stat {
    /// Field 4, and fields 14 to 17, counted behind the name, which may hold blanks and brackets.
    fn read(stat: &str) -> Option<Self> {
        let (_, behind_name) = stat.rsplit_once(')')?;
        let mut fields = behind_name.split_ascii_whitespace().skip(1);
        let parent = fields.next()?.parse().ok()?;
        let times: Option<Vec<u64>> =
            fields.skip(9).take(4).map(|text| text.parse().ok()).collect();
        let times = times.filter(|times| times.len() == 4)?;
        Some(Self { parent, ticks: times.iter().sum() })
    }
}

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    #[test]
    fn the_name_of_a_process_does_not_shift_its_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 30 12 5 3 20 0 1";
        assert_eq!(Stat::read(stat), Some(Stat { parent: 1, ticks: 50 }));
        assert_eq!(Stat::read("7 (a) S 1 2 3 4 5 6 7 8 9 10 30 12 5"), None);
        assert_eq!(kib("VmPeak:\t 9 kB\nVmRSS:\t  77 kB\n", "VmRSS:"), Some(77));
    }

    #[test]
    fn the_family_of_a_process_has_all_generations_and_no_others() {
        let parents = [(2, 1), (9, 5), (6, 5), (8, 6), (5, 2), (3, 1)];
        assert_eq!(descendants(5, &parents), [9, 6, 8]);
        assert!(descendants(3, &parents).is_empty());
        // A number that was given away anew while it was looked at makes no circle.
        assert_eq!(descendants(5, &[(6, 5), (5, 6)]), [6]);
    }

    #[test]
    fn what_a_child_and_its_child_use_counts_for_their_family() {
        let burn = "n=0; while [ $n -lt 100000 ]; do n=$((n+1)); done";
        // What stands in the background reads from nothing, unless it is told.
        let script = format!("exec 3<&0; ({burn}; echo done; read x <&3) & wait");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = [0; 5];
        child.stdout.take().unwrap().read_exact(&mut told).unwrap();
        let (alone, family) = (of(child.id()).unwrap(), of_family(child.id()).unwrap());
        // The end of its input is what it waits for.
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(family.cpu_seconds > alone.cpu_seconds && family.rss_kib > alone.rss_kib);
        assert!(of_family(child.id()).is_none());
    }

    #[test]
    fn this_process_uses_memory_and_descriptors() {
        let usage = of(std::process::id());
        assert!(usage.is_some_and(|usage| usage.rss_kib > 100 && usage.descriptors > 2));
        assert!(of(u32::MAX).is_none());
    }
}
