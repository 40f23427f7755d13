//! Faults of the kernel, for root: packets dropped (nftables), connections killed (`ss -K`), packets
//! delayed (netem).
//!
//! All of them match addresses of 127/8 and ports of this run only; nothing else on the machine
//! feels them. What is set up is undone by [`Kernel::undo`] or when the value is dropped, so whoever
//! catches a signal must let it be dropped; what a run that was killed left behind is removed by the
//! next one. Every call starts a program and waits for it, for milliseconds: not on an executor.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Of the tables' names; the number of the process and of the table in it follow.
const TABLE: &str = "loadgen_";
/// Parties whose packets may be delayed: each has two filters.
const DELAYED_MAX: usize = 4096;

static NEXT_TABLE: AtomicU32 = AtomicU32::new(0);

/// Which packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Of connections to where a party listens.
    Listening(SocketAddrV4),
    /// Of connections that a party opens to the server.
    Connecting { from: Ipv4Addr, to: SocketAddrV4 },
}

/// What this run has changed in the kernel.
pub(crate) struct Kernel {
    pub(super) table: String,
    has_table: bool,
    /// Parties delayed; the queueing discipline is there when there is one.
    delayed: usize,
}

impl Kernel {
    /// Removes what dead runs left behind.
    ///
    /// # Errors
    /// Not root, or no `nft`.
    pub(crate) fn new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err(
                "faults of the kernel (drop, kill, delay) need root; without it use those of \
                        the generator: blackhole, reset, slow reader"
                    .into(),
            );
        }
        sweep()?;
        let number = NEXT_TABLE.fetch_add(1, Ordering::Relaxed);
        let table = format!("{TABLE}{}_{number}", std::process::id());
        Ok(Self { table, has_table: false, delayed: 0 })
    }

    /// Drops a party's packets, both ways, until [`restore`](Self::restore). The instant is the one
    /// before which none was dropped.
    ///
    /// # Errors
    /// An address outside 127/8, or what `nft` says.
    pub(crate) fn drop_packets(&mut self, reach: Reach) -> Result<Instant, String> {
        let (set, element) = element(reach)?;
        let at = Instant::now();
        if !self.has_table {
            nft(&table(&self.table))?;
            self.has_table = true;
        }
        nft(&format!("add element inet {} {set} {{ {element} }}\n", self.table))?;
        Ok(at)
    }

    /// Lets a party's packets pass again.
    ///
    /// # Errors
    /// They were not dropped, or what `nft` says.
    pub(crate) fn restore(&mut self, reach: Reach) -> Result<(), String> {
        let (set, element) = element(reach)?;
        nft(&format!("delete element inet {} {set} {{ {element} }}\n", self.table))
    }

    /// Kills the party's ends of its connections: its peers get an RST, the party an error. How
    /// many, and the instant just before.
    ///
    /// # Errors
    /// An address outside 127/8, no `ss`, or a kernel without CONFIG_INET_DIAG_DESTROY.
    pub(crate) fn kill(&self, reach: Reach) -> Result<(usize, Instant), String> {
        check(reach)?;
        let filter = match reach {
            Reach::Listening(at) => format!("src {at}"),
            Reach::Connecting { from, to } => format!("src {from} dst {to}"),
        };
        let mut arguments = vec!["-H", "-n", "-t", "-K"];
        arguments.extend(filter.split(' '));
        let at = Instant::now();
        let killed = run("ss", &arguments, "")?;
        Ok((killed.lines().filter(|line| !line.trim().is_empty()).count(), at))
    }

    /// Delays what is sent to a party, until the end.
    ///
    /// # Errors
    /// No `tc`, a kernel without sch_netem, or a loopback interface that has a queueing discipline
    /// already.
    pub(crate) fn delay(&mut self, reach: Reach, by: Duration) -> Result<Instant, String> {
        check(reach)?;
        if self.delayed == DELAYED_MAX {
            return Err(format!("more than {DELAYED_MAX} parties whose packets are delayed"));
        }
        let at = Instant::now();
        if self.delayed == 0 {
            self.add_discipline(by)?;
        }
        let matches = match reach {
            Reach::Listening(at) => {
                format!("match ip dst {}/32 match ip dport {} 0xffff", at.ip(), at.port())
            }
            Reach::Connecting { from, to } => format!(
                "match ip dst {from}/32 match ip src {}/32 match ip sport {} 0xffff",
                to.ip(),
                to.port()
            ),
        };
        let line = format!("filter add dev lo parent 1: protocol ip u32 {matches} flowid 1:4");
        self.delayed += 1;
        tc(&line)?;
        Ok(at)
    }

    /// A fourth band for what is delayed; the rest goes through the first as it came.
    fn add_discipline(&mut self, by: Duration) -> Result<(), String> {
        let there = tc("qdisc show dev lo")?;
        if !there.contains("qdisc noqueue") {
            return Err(format!("lo has a queueing discipline already: {}", there.trim()));
        }
        let zeros = ["0"; 16].join(" ");
        tc(&format!("qdisc add dev lo root handle 1: prio bands 4 priomap {zeros}"))?;
        let micros = by.as_micros();
        let netem = format!("qdisc add dev lo parent 1:4 handle 40: netem delay {micros}us");
        tc(&netem).map(drop).map_err(|error| {
            let _ = tc("qdisc del dev lo root");
            format!("cannot delay packets, is there sch_netem in this kernel? {error}")
        })
    }

    /// Undoes everything.
    ///
    /// # Errors
    /// What could not be undone, and why.
    pub(crate) fn undo(&mut self) -> Result<(), String> {
        let mut errors = Vec::new();
        if std::mem::take(&mut self.has_table) {
            errors.extend(nft(&format!("delete table inet {}\n", self.table)).err());
        }
        if std::mem::take(&mut self.delayed) > 0 {
            errors.extend(tc("qdisc del dev lo root").err());
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(format!("cannot undo faults of the kernel: {}", errors.join("; "))),
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            let _ = writeln!(io::stderr().lock(), "loadgen: {error}");
        }
    }
}

/// Deletes the tables of runs that are over.
fn sweep() -> Result<(), String> {
    for line in run("nft", &["list", "tables"], "")?.lines() {
        let Some(name) = line.strip_prefix("table inet ") else { continue };
        let numbers = name.strip_prefix(TABLE).and_then(|numbers| numbers.split_once('_'));
        let Some(pid) = numbers.and_then(|(pid, _)| pid.parse::<u32>().ok()) else { continue };
        if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
            nft(&format!("delete table inet {name}\n"))?;
        }
    }
    Ok(())
}

/// Drops packets of the sets' elements on their way in, where the sender does not hear of it.
fn table(name: &str) -> String {
    format!(
        "table inet {name} {{
            set listening {{ type ipv4_addr . inet_service; }}
            set connecting {{ type ipv4_addr . ipv4_addr . inet_service; }}
            chain input {{
                type filter hook input priority -10; policy accept;
                iif lo meta l4proto {{ tcp, udp }} ip daddr . th dport @listening drop
                iif lo meta l4proto {{ tcp, udp }} ip saddr . th sport @listening drop
                iif lo meta l4proto {{ tcp, udp }} ip saddr . ip daddr . th dport @connecting drop
                iif lo meta l4proto {{ tcp, udp }} ip daddr . ip saddr . th sport @connecting drop
            }}
        }}\n"
    )
}

fn element(reach: Reach) -> Result<(&'static str, String), String> {
    check(reach)?;
    Ok(match reach {
        Reach::Listening(at) => ("listening", format!("{} . {}", at.ip(), at.port())),
        Reach::Connecting { from, to } => {
            ("connecting", format!("{from} . {} . {}", to.ip(), to.port()))
        }
    })
}

/// Only addresses of this machine's loopback, and a port: never a rule for everything.
fn check(reach: Reach) -> Result<(), String> {
    let (addresses, port) = match reach {
        Reach::Listening(at) => ([*at.ip(), *at.ip()], at.port()),
        Reach::Connecting { from, to } => ([from, *to.ip()], to.port()),
    };
    match addresses.iter().find(|address| !address.is_loopback()) {
        Some(outside) => Err(format!("{outside} is outside 127.0.0.0/8: no fault of the kernel")),
        None if port == 0 => Err("port 0 is no port: no fault of the kernel".into()),
        None => Ok(()),
    }
}

fn nft(script: &str) -> Result<(), String> {
    run("nft", &["-f", "-"], script).map(drop)
}

fn tc(line: &str) -> Result<String, String> {
    let arguments: Vec<&str> = line.split(' ').collect();
    run("tc", &arguments, "")
}

/// Runs a program to its end and gives what it printed.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = started.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            format!("faults of the kernel need `{program}`, which is not here")
        }
        _ => format!("cannot start {program}: {error}"),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // What it does not read, it complains about itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let ended = child.wait_with_output().map_err(|error| format!("{program}: {error}"))?;
    let complaint = String::from_utf8_lossy(&ended.stderr);
    // `ss` reports a kernel that cannot kill and ends well nevertheless.
    let refused = program == "ss" && complaint.contains("not supported");
    if !ended.status.success() || refused {
        let words = arguments.join(" ");
        return Err(format!("{program} {words}: {}: {}", ended.status, complaint.trim()));
    }
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}
