//! Faults of the kernel, for root: packets dropped (nftables), connections killed (`ss -K`), packets
//! delayed (netem).
//!
//! All of them match addresses of 127/8 and ports of this run only; nothing else on the machine
//! feels them. What is set up is undone by [`Kernel::undo`] or when the value is dropped, so whoever
//! catches a signal must let it be dropped; what a run that was killed left behind is removed by the
//! next one. Every call starts a program and waits for it, for milliseconds: not on an executor.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Of the tables' names; the number of the process and of the table in it follow.
const TABLE: &str = "loadgen_";
/// Parties whose packets may be delayed: each has two filters.
const DELAYED_MAX: usize = 4096;
/// How long a program may run; one that hangs is killed.
const PROGRAM_MAX: Duration = Duration::from_secs(5);
/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_micros(500);
/// How long what it said may take to be read, when it has ended.
const READ_MAX: Duration = Duration::from_millis(200);

static NEXT_TABLE: AtomicU32 = AtomicU32::new(0);
/// Loopback has a queueing discipline of this process.
static DISCIPLINE: AtomicBool = AtomicBool::new(false);

/// Which packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
        sweep(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())?;
        let number = NEXT_TABLE.fetch_add(1, Ordering::Relaxed);
        let table = format!("{TABLE}{}_{number}", std::process::id());
        Ok(Self { table, has_table: false, delayed: 0 })
    }

    /// Drops packets of parties, both ways, until [`restore`](Self::restore); those of all parties
    /// from the same instant on. The instant is the one before which none was dropped.
    ///
    /// # Errors
    /// An address outside 127/8, or what `nft` says; then none is dropped.
    pub(crate) fn drop_packets(&mut self, reaches: &[Reach]) -> Result<Instant, String> {
        let elements = self.elements("add", reaches)?;
        let at = Instant::now();
        let made = if self.has_table { String::new() } else { table(&self.table) };
        // A program that was killed may have made the table, too.
        self.has_table = true;
        nft(&(made + &elements)).map(|()| at)
    }

    /// Lets packets of parties pass again.
    ///
    /// # Errors
    /// They were not dropped, or what `nft` says.
    pub(crate) fn restore(&mut self, reaches: &[Reach]) -> Result<(), String> {
        nft(&self.elements("delete", reaches)?)
    }

    /// Lines that change the sets of the table; `nft` carries out all or none.
    fn elements(&self, verb: &str, reaches: &[Reach]) -> Result<String, String> {
        let line = |reach: &Reach| {
            let (set, element) = element(*reach)?;
            Ok(format!("{verb} element inet {} {set} {{ {element} }}\n", self.table))
        };
        reaches.iter().map(line).collect()
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
        DISCIPLINE.store(true, Ordering::Relaxed);
        let micros = by.as_micros();
        let netem = format!("qdisc add dev lo parent 1:4 handle 40: netem delay {micros}us");
        tc(&netem).map(drop).map_err(|error| {
            let _ = remove_discipline();
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
            // `add` before it: that there is none (any more) is no error.
            let table = &self.table;
            errors
                .extend(nft(&format!("add table inet {table}\ndelete table inet {table}\n")).err());
        }
        if std::mem::take(&mut self.delayed) > 0 && DISCIPLINE.load(Ordering::Relaxed) {
            errors.extend(remove_discipline().err());
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

/// Deletes the tables of processes that are `over`.
fn sweep(over: impl Fn(u32) -> bool) -> Result<(), String> {
    for line in run("nft", &["list", "tables"], "")?.lines() {
        let Some(name) = line.strip_prefix("table inet ") else { continue };
        let numbers = name.strip_prefix(TABLE).and_then(|numbers| numbers.split_once('_'));
        let Some(pid) = numbers.and_then(|(pid, _)| pid.parse::<u32>().ok()) else { continue };
        if over(pid) {
            nft(&format!("delete table inet {name}\n"))?;
        }
    }
    Ok(())
}

/// Undoes what this process has changed in the kernel, where its owners hang and cannot.
///
/// # Errors
/// What could not be undone, and why.
pub(crate) fn abandon() -> Result<(), String> {
    let tables = match NEXT_TABLE.load(Ordering::Relaxed) {
        0 => Ok(()),
        _ => sweep(|pid| pid == std::process::id()),
    };
    let discipline = match DISCIPLINE.load(Ordering::Relaxed) {
        true => remove_discipline(),
        false => Ok(()),
    };
    tables.and(discipline)
}

fn remove_discipline() -> Result<(), String> {
    DISCIPLINE.store(false, Ordering::Relaxed);
    tc("qdisc del dev lo root").map(drop)
}

/// Whether a program is here and starts; `flag` makes it tell its version.
///
/// # Errors
/// It is not, or what it says.
pub(crate) fn require(program: &str, flag: &str) -> Result<(), String> {
    run(program, &[flag], "").map(drop)
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

/// Runs a program to its end, [`PROGRAM_MAX`] at most, and gives what it printed.
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
    let (printed, complaint) = (text_of(child.stdout.take()), text_of(child.stderr.take()));
    if let Some(mut stdin) = child.stdin.take() {
        // What it does not read, it complains about itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let words = arguments.join(" ");
    let ended = wait(&mut child).map_err(|error| format!("{program} {words}: {error}"))?;
    let text = |read: Receiver<Vec<u8>>| {
        String::from_utf8_lossy(&read.recv_timeout(READ_MAX).unwrap_or_default()).into_owned()
    };
    let complaint = text(complaint);
    // `ss` reports a kernel that cannot kill and ends well nevertheless.
    let refused = program == "ss" && complaint.contains("not supported");
    if !ended.success() || refused {
        return Err(format!("{program} {words}: {ended}: {}", complaint.trim()));
    }
    Ok(text(printed))
}

/// Reads a pipe to its end, beside whoever waits for the program.
fn text_of(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (tell, read) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = tell.send(bytes);
    });
    read
}

fn wait(child: &mut Child) -> Result<ExitStatus, String> {
    let began = Instant::now();
    while began.elapsed() < PROGRAM_MAX {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(status);
        }
        thread::sleep(LOOK);
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(format!("did not end in {} s and was killed", PROGRAM_MAX.as_secs()))
}
