//! What does not keep the server from starting, but holds it back.
//!
//! | looked at | wanted |
//! |---|---|
//! | `net.core.somaxconn` | the backlog of a listener |
//! | `net.ipv4.ip_local_port_range` | as many ports as the kernel's default has |
//! | `net.ipv4.tcp_tw_reuse` | not 0; 1 where peers are beyond loopback |
//! | `RLIMIT_NOFILE`, `RLIMIT_MEMLOCK` | all flows, all rings |
//! | cores of the shards | a whole one for each |
//! | `scaling_governor` | not `powersave` |
//! | the build | release |
//!
//! What the kernel does not say (a container hides it, a virtual machine has no governor) holds nobody
//! back here. `tuning/tune check` has the same list and more.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use crate::shard::cores;

/// What glommio asks `listen` for.
pub const BACKLOG: u32 = 1024;
/// Memory that glommio registers with the three rings of an executor.
const LOCKED_BYTES: u64 = 3 * (64 << 10);
/// The same where the allocator's memory is in huge pages: the kernel counts whole pages.
const LOCKED_BYTES_HUGE: u64 = 3 * (2 << 20);
/// CAP_IPC_LOCK in a mask of capabilities: locked memory is not counted.
const CAP_IPC_LOCK: u64 = 1 << 14;
/// Local ports below which a line is printed; the kernel's default has 28,232.
pub const PORTS_MIN: u32 = 28_000;

/// What was seen when the server started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The core of each shard.
    pub shards: Vec<usize>,
    /// Cores that share their execution units, a group for each; those alone need not be there.
    pub siblings: BTreeSet<Vec<usize>>,
    /// Cores of shards whose governor is `powersave`.
    pub powersave: Vec<usize>,
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u32>,
    /// `net.ipv4.ip_local_port_range`: first and last port.
    pub local_ports: Option<(u16, u16)>,
    /// `net.ipv4.tcp_tw_reuse`.
    pub tcp_tw_reuse: Option<u8>,
    /// Whether a listener can be reached from other machines.
    pub beyond_loopback: bool,
    /// RLIMIT_MEMLOCK in force, in bytes.
    pub memlock: Option<u64>,
    /// Whether the allocator's memory is in transparent huge pages.
    pub huge_pages: bool,
    /// Whether the process may lock what it likes (CAP_IPC_LOCK).
    pub ipc_lock: bool,
    /// Flows for which each shard has descriptors.
    pub flows: u64,
    /// `flows-max`.
    pub flows_max: u64,
    /// Descriptors that `flows_max` flows of each shard need.
    pub nofile_wanted: u64,
    /// Built without optimisation.
    pub debug_build: bool,
}

/// A line when there are fewer descriptors than flows: connections beyond wait.
pub fn descriptors(seen: &Snapshot) -> Option<String> {
    let Snapshot { flows, flows_max, nofile_wanted: wanted, .. } = seen;
    (flows < flows_max).then(|| {
        format!(
            "RLIMIT_NOFILE leaves each shard {flows} flows, flows-max is {flows_max}: further \
             connections will wait; LimitNOFILE={wanted} (ulimit -n {wanted}), see tuning/README.md"
        )
    })
}

/// A line for each other thing that holds the server back: what was found, what is wanted, and how to get it.
pub fn find(seen: &Snapshot) -> Vec<String> {
    [memlock(seen), backlog(seen), ports(seen), time_wait(seen), shared_cores(seen)]
        .into_iter()
        .chain([hyperthreads(seen), powersave(seen), debug_build(seen)])
        .flatten()
        .collect()
}

fn memlock(seen: &Snapshot) -> Option<String> {
    let each = if seen.huge_pages { LOCKED_BYTES_HUGE } else { LOCKED_BYTES };
    // One more: that of the executor that was tried, which the kernel gives back later.
    let wanted = each * (seen.shards.len() as u64 + 1);
    let found = seen.memlock.filter(|&found| found < wanted && !seen.ipc_lock)? >> 10;
    let wanted = wanted >> 10;
    Some(format!(
        "RLIMIT_MEMLOCK is {found} KiB, wanted are {wanted} KiB: some shards go without registered \
         buffers; LimitMEMLOCK={wanted}K (ulimit -l {wanted}), see tuning/README.md"
    ))
}

fn backlog(seen: &Snapshot) -> Option<String> {
    let found = seen.somaxconn.filter(|&found| found < BACKLOG)?;
    Some(format!(
        "net.core.somaxconn is {found}, wanted is {BACKLOG}: in a burst of connections some wait a \
         second; tuning/tune apply"
    ))
}

fn ports(seen: &Snapshot) -> Option<String> {
    let (first, last) = seen.local_ports?;
    let count = (u32::from(last) + 1).saturating_sub(u32::from(first));
    (count < PORTS_MIN).then(|| {
        format!(
            "net.ipv4.ip_local_port_range is {first} {last}, wanted are {PORTS_MIN} ports: those for \
             connections to one address may run out; tuning/tune apply"
        )
    })
}

/// 2, the default, reuses on loopback only.
fn time_wait(seen: &Snapshot) -> Option<String> {
    let found = seen.tcp_tw_reuse?;
    (found == 0 || found == 2 && seen.beyond_loopback).then(|| {
        format!(
            "net.ipv4.tcp_tw_reuse is {found}, wanted is 1: a port of a connection that we closed is \
             out of use for a minute; tuning/tune apply"
        )
    })
}

fn shared_cores(seen: &Snapshot) -> Option<String> {
    let mut once = BTreeSet::new();
    let shared: BTreeSet<_> =
        seen.shards.iter().copied().filter(|&core| !once.insert(core)).collect();
    let (shared, once) = (Vec::from_iter(shared), Vec::from_iter(once));
    (!shared.is_empty()).then(|| {
        format!(
            "several shards run on core {}, wanted is one: they share its time; cores = {once:?}",
            cores::format_list(&shared)
        )
    })
}

fn hyperthreads(seen: &Snapshot) -> Option<String> {
    let mut wanted: BTreeSet<_> = seen.shards.iter().copied().collect();
    let mut groups = Vec::new();
    for siblings in &seen.siblings {
        let used: Vec<_> =
            siblings.iter().copied().filter(|core| seen.shards.contains(core)).collect();
        if used.len() > 1 {
            used.iter().skip(1).for_each(|core| _ = wanted.remove(core));
            groups.push(cores::format_list(&used));
        }
    }
    let wanted = Vec::from_iter(wanted);
    (!groups.is_empty()).then(|| {
        format!(
            "shards run on hyperthreads of one core ({}), wanted is one a core: two do little more \
             than one; cores = {wanted:?}",
            groups.join("; ")
        )
    })
}

fn powersave(seen: &Snapshot) -> Option<String> {
    (!seen.powersave.is_empty()).then(|| {
        format!(
            "the governor of core {} is powersave, wanted is performance: a core that must speed up \
             first answers late; tuning/tune apply",
            cores::format_list(&seen.powersave)
        )
    })
}

fn debug_build(seen: &Snapshot) -> Option<String> {
    seen.debug_build.then(|| {
        "this is a debug build, wanted is a release build: several times the CPU time; cargo build \
         --release"
            .to_owned()
    })
}

impl Snapshot {
    /// Reads what the kernel says of these cores below `root`, which is `/` but in tests; limits
    /// and configuration are left for the caller to fill in.
    pub fn read(root: &Path, shards: Vec<usize>) -> Self {
        let sysctl = |name: &str| read(root, &format!("proc/sys/{}", name.replace('.', "/")));
        let of_core =
            |core: &usize, what| read(root, &format!("sys/devices/system/cpu/cpu{core}/{what}"));
        let cores: BTreeSet<_> = shards.iter().copied().collect();
        let siblings = cores
            .iter()
            .filter_map(|core| of_core(core, "topology/thread_siblings_list"))
            .filter_map(|list| cores::parse_list(&list))
            .filter(|group| group.len() > 1)
            .collect();
        let powersave = cores
            .iter()
            .copied()
            .filter(|core| {
                of_core(core, "cpufreq/scaling_governor").as_deref() == Some("powersave")
            })
            .collect();
        let local_ports = sysctl("net.ipv4.ip_local_port_range").and_then(|range| {
            let mut ports = range.split_whitespace().map(u16::from_str);
            Some((ports.next()?.ok()?, ports.next()?.ok()?))
        });
        Self {
            shards,
            siblings,
            powersave,
            somaxconn: sysctl("net.core.somaxconn").and_then(|text| text.parse().ok()),
            local_ports,
            tcp_tw_reuse: sysctl("net.ipv4.tcp_tw_reuse").and_then(|text| text.parse().ok()),
            huge_pages: read(root, "sys/kernel/mm/transparent_hugepage/enabled")
                .is_some_and(|modes| !modes.contains("[never]")),
            ipc_lock: read(root, "proc/self/status").is_some_and(|status| may_lock(&status)),
            debug_build: cfg!(debug_assertions),
            ..Self::default()
        }
    }
}

/// Whether `/proc/PID/status` names CAP_IPC_LOCK among the effective capabilities.
fn may_lock(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & CAP_IPC_LOCK != 0)
}

fn read(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which nothing holds two shards back.
    fn tuned() -> Snapshot {
        Snapshot {
            shards: vec![0, 1],
            siblings: [vec![0, 4], vec![1, 5]].into(),
            somaxconn: Some(4096),
            local_ports: Some((32_768, 60_999)),
            tcp_tw_reuse: Some(1),
            beyond_loopback: true,
            memlock: Some(8 << 20),
            flows: 100_000,
            flows_max: 100_000,
            nofile_wanted: 200_066,
            ..Snapshot::default()
        }
    }

    /// The only line that is printed.
    fn line(seen: &Snapshot) -> String {
        let mut found = find(seen);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn nothing_holds_a_tuned_machine_back() {
        assert_eq!(find(&tuned()), Vec::<String>::new());
        assert_eq!(descriptors(&tuned()), None);
    }

    #[test]
    fn what_the_kernel_does_not_say_holds_nobody_back() {
        let unknown =
            Snapshot { flows: 100_000, flows_max: 100_000, shards: vec![0], ..Snapshot::default() };
        assert!(find(&unknown).is_empty());
    }

    #[test]
    fn somaxconn_below_the_backlog_is_told() {
        assert!(find(&Snapshot { somaxconn: Some(1024), ..tuned() }).is_empty());
        let text = line(&Snapshot { somaxconn: Some(1023), ..tuned() });
        assert!(text.starts_with("net.core.somaxconn is 1023, wanted is 1024"), "{text}");
        assert!(text.ends_with("tuning/tune apply"), "{text}");
    }

    #[test]
    fn narrow_port_range_is_told() {
        let range = |first, last| Snapshot { local_ports: Some((first, last)), ..tuned() };
        assert!(find(&range(1, 28_000)).is_empty());
        assert!(find(&range(1024, 65_535)).is_empty());
        let text = line(&range(2, 28_000));
        assert!(text.contains("is 2 28000, wanted are 28000 ports"), "{text}");
        // The kernel allows no such range, but a file may say anything.
        line(&range(60_000, 1));
    }

    #[test]
    fn tcp_tw_reuse_is_told_where_it_does_not_reach_the_peers() {
        let reuse = |value, beyond| Snapshot {
            tcp_tw_reuse: Some(value),
            beyond_loopback: beyond,
            ..tuned()
        };
        assert!(find(&reuse(1, false)).is_empty());
        assert!(find(&reuse(2, false)).is_empty());
        assert!(line(&reuse(2, true)).starts_with("net.ipv4.tcp_tw_reuse is 2, wanted is 1"));
        assert!(line(&reuse(0, false)).starts_with("net.ipv4.tcp_tw_reuse is 0, wanted is 1"));
    }

    #[test]
    fn too_few_descriptors_are_told_with_the_limit_that_has_room() {
        let text = descriptors(&Snapshot { flows: 99_999, ..tuned() }).unwrap();
        assert!(text.contains("leaves each shard 99999 flows, flows-max is 100000"), "{text}");
        assert!(text.contains("LimitNOFILE=200066 (ulimit -n 200066)"), "{text}");
    }

    #[test]
    fn lockable_memory_below_that_of_all_rings_is_told() {
        // Two shards and the executor that was tried.
        assert!(find(&Snapshot { memlock: Some(576 << 10), ..tuned() }).is_empty());
        let text = line(&Snapshot { memlock: Some(575 << 10), ..tuned() });
        assert!(text.contains("is 575 KiB, wanted are 576 KiB"), "{text}");
        assert!(text.contains("LimitMEMLOCK=576K (ulimit -l 576)"), "{text}");
        let text = line(&Snapshot { huge_pages: true, ..tuned() });
        assert!(text.contains("is 8192 KiB, wanted are 18432 KiB"), "{text}");
        assert!(find(&Snapshot { memlock: Some(0), ipc_lock: true, ..tuned() }).is_empty());
    }

    #[test]
    fn shards_that_share_a_core_are_told_once() {
        let text = line(&Snapshot { shards: vec![3, 0, 3, 3, 0, 1], ..tuned() });
        assert!(text.contains("on core 0,3, wanted is one"), "{text}");
        assert!(text.ends_with("cores = [0, 1, 3]"), "{text}");
    }

    #[test]
    fn shards_on_hyperthreads_of_one_core_are_told() {
        let text = line(&Snapshot { shards: vec![0, 1, 2, 4], ..tuned() });
        assert!(text.contains("(0,4), wanted is one a core"), "{text}");
        assert!(text.ends_with("cores = [0, 1, 2]"), "{text}");
        let text = line(&Snapshot { shards: vec![5, 4, 1, 0], ..tuned() });
        assert!(text.contains("(0,4; 1,5)") && text.ends_with("cores = [0, 1]"), "{text}");
    }

    #[test]
    fn governor_powersave_and_a_debug_build_are_told() {
        let text = line(&Snapshot { powersave: vec![0, 1], ..tuned() });
        assert!(text.starts_with("the governor of core 0-1 is powersave, wanted is performance"));
        assert!(line(&Snapshot { debug_build: true, ..tuned() }).contains("cargo build --release"));
    }

    /// A folder that stands for `/`.
    struct Root(std::path::PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root =
                Self(std::env::temp_dir().join(format!("holdfast-{}-{name}", std::process::id())));
            for (path, text) in files {
                let file = root.0.join(path);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            root
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_snapshot_reads_what_the_kernel_writes() {
        let cpu = "sys/devices/system/cpu";
        let root = Root::new(
            "hindrances",
            &[
                ("proc/sys/net/core/somaxconn", "128\n"),
                ("proc/sys/net/ipv4/ip_local_port_range", "40000\t40999\n"),
                ("proc/sys/net/ipv4/tcp_tw_reuse", "2\n"),
                ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
                ("proc/self/status", "Name:\tx\nCapEff:\t0000000000004000\n"),
                (&format!("{cpu}/cpu0/topology/thread_siblings_list"), "0,2\n"),
                (&format!("{cpu}/cpu2/topology/thread_siblings_list"), "0,2\n"),
                (&format!("{cpu}/cpu1/topology/thread_siblings_list"), "1\n"),
                (&format!("{cpu}/cpu1/cpufreq/scaling_governor"), "powersave\n"),
                (&format!("{cpu}/cpu0/cpufreq/scaling_governor"), "performance\n"),
            ],
        );
        let seen = Snapshot::read(&root.0, vec![0, 1, 2]);
        assert_eq!(seen.somaxconn, Some(128));
        assert_eq!(seen.local_ports, Some((40_000, 40_999)));
        assert_eq!(seen.tcp_tw_reuse, Some(2));
        assert_eq!(seen.siblings, [vec![0, 2]].into());
        assert_eq!(seen.powersave, [1]);
        assert!(seen.huge_pages && seen.ipc_lock);
    }

    #[test]
    fn absent_and_strange_files_are_unknown() {
        let root = Root::new(
            "hindrances-strange",
            &[
                ("proc/sys/net/core/somaxconn", "-1\n"),
                ("proc/sys/net/ipv4/ip_local_port_range", "70000 1\n"),
                ("proc/sys/net/ipv4/tcp_tw_reuse", ""),
                ("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "x-y\n"),
                ("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n"),
                ("proc/self/status", "CapEff:\t000001ffffffbfff\n"),
            ],
        );
        let debug_build = cfg!(debug_assertions);
        let expected = Snapshot { shards: vec![0], debug_build, ..Snapshot::default() };
        assert_eq!(Snapshot::read(&root.0, vec![0]), expected);
    }
}
