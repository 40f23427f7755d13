//! The command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

use crate::net::Transport;
use crate::outcome::Goal;
use crate::plan::{Fault, Profile, Spacing};

/// Measures SIP servers: how long calls stay in danger when connections die, how much a server does,
/// and whether what it does is right.
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Without --server a command starts a server of its own (`holdfast serve`), plays all callers and all \
callees on loopback addresses, and ends the server again.

Examples:
  A thousand calls, every callee's connection reset while a re-INVITE is unanswered, 500 ms delay:
      loadgen drill
  Ten thousand calls; the requests are lost unread; the callees stay away for two seconds; a page to look at:
      loadgen drill --calls 10000 --fault before-read --return-after 1800 --html drill.html
  The delay is 0: every call must be released, and nothing may be left:
      loadgen drill --delay 0 --expect released
  Calls that arrive at 500 a second whatever the server does, for half a minute:
      loadgen run call --profile 'constant 500/s for 30s' --goal 'p99(invite)<5ms' --goal 'failed=0'
  The highest rate that a server bears:
      loadgen run call --profile 'knee 500/s to 20000/s, each 5s' --goal 'p99(invite)<10ms' --goal 'failed<0.1%'
  Holds and retrieves while connections die on a timeline:
      loadgen run reinvite --profile 'constant 100/s for 60s' --strike 'at 20s reset on 50% of callees, over 2s'
  As many calls as the server takes, 64 at a time; re-INVITEs on 1,000 standing calls:
      loadgen run call --profile 'closed 64 for 10s'
      loadgen run standing --calls 1000 --profile 'closed 64 for 10s'
  Built-in scenarios, the text of one, what is understood of a file of SIPp, two results side by side:
      loadgen scenarios
      loadgen scenarios reinvite > my.scenario
      loadgen import uac.xml
      loadgen compare before.json after.json
  Against a server that runs already: print the devices it must know, then go:
      loadgen drill --server 127.0.0.1:5060 --print-config > holdfast.toml
      loadgen drill --server 127.0.0.1:5060 --server-pid 4711

Exit status: 0 everything was as expected; 1 a call was lost, a goal missed, or the protocol breached; 2 the \
command line or the machine does not allow the run; 3 the generator was the limit, not the server.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Set up calls, reset every callee's connection under a re-INVITE, and count what is kept
    Drill(DrillArgs),
    /// Play a scenario by a profile: a built-in one, a file of its own format, or a file of SIPp
    Run(RunArgs),
    /// List the built-in scenarios, or print the text of one
    Scenarios {
        /// Its name
        name: Option<String>,
    },
    /// Tell what is understood of a scenario file, and what is not
    Import {
        /// A file of SIPp (.xml) or of the own format
        file: PathBuf,
    },
    /// Set results side by side: ratios, with the spread of repeats
    Compare(CompareArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Results before: JSON files; several are repeats
    #[arg(required = true, num_args = 1..)]
    pub(crate) files: Vec<String>,
    /// Results after, when there are several of each
    #[arg(last = true)]
    pub(crate) after: Vec<String>,
    /// Where the comparison goes as a page
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    /// Calls to set up
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub(crate) calls: u32,
    /// Calls set up a second, at most
    #[arg(long, default_value_t = 2000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// Requests in flight while calls are checked and ended
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) in_flight: u32,
    /// What the calls do: `drill`, or a file whose caller meets at `up`, `recovered` and `checked`
    #[arg(long, default_value = "drill")]
    pub(crate) scenario: String,
    /// When the connections are reset
    #[arg(long, value_enum, default_value_t = Moment::AfterRead)]
    pub(crate) fault: Moment,
    /// How long the callees refuse connections after the reset, milliseconds
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u32).range(0..=120_000))]
    pub(crate) return_after: u32,
    /// What every call must come to
    #[arg(long, value_enum, default_value_t = Expect::Kept)]
    pub(crate) expect: Expect,
    /// How long after the window an answer or a BYE still counts, seconds
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=60))]
    pub(crate) slack: u32,
    /// How long after the last call the server's memory is read, milliseconds
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(0..=120_000))]
    pub(crate) settle: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Name of a built-in scenario, or a file
    pub(crate) scenario: String,
    /// A second file of SIPp that the callees play
    #[arg(long, value_name = "FILE")]
    pub(crate) callee: Option<PathBuf>,
    /// When calls begin: `constant R/s for T`, `ramp`, `step`, `spike`, `soak`, `knee`, `closed N for T`
    #[arg(long, default_value = "constant 100/s for 10s")]
    pub(crate) profile: Profile,
    /// How arrivals are spaced
    #[arg(long, value_enum, default_value_t = SpacingArg::Poisson)]
    pub(crate) spacing: SpacingArg,
    /// Standing calls, for scenarios that wait for the run (`standing`)
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub(crate) calls: u32,
    /// A fault on the timeline: `at 10s reset on 50% of callees, over 2s, away 1800ms, every 5s, 3 times`
    #[arg(long = "strike", value_name = "FAULT")]
    pub(crate) strikes: Vec<Fault>,
    /// Not measured at the start, seconds
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u32).range(0..=600))]
    pub(crate) warm_up: u32,
    /// How long calls may take to end after the last arrival, seconds
    #[arg(long, default_value_t = 40, value_parser = value_parser!(u32).range(0..=3600))]
    pub(crate) drain: u32,
    /// A line of a field file for each call, for scenarios that name no file (SIPp `-inf`)
    #[arg(long, value_name = "FILE")]
    pub(crate) fields: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SpacingArg {
    Even,
    Poisson,
}

impl SpacingArg {
    pub(crate) fn spacing(self) -> Spacing {
        match self {
            Self::Even => Spacing::Even,
            Self::Poisson => Spacing::Poisson,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Callees, each a device with an address and a connection of its own
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) callee_connections: u32,
    /// Callers, each with an address and a connection of its own
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) caller_connections: u32,
    /// What the signalling goes over
    #[arg(long, value_enum, default_value_t = TransportArg::Tcp)]
    pub(crate) transport: TransportArg,
    /// `retry-after-reliable-transport-error` of the server, milliseconds
    #[arg(long, default_value_t = 500, value_parser = value_parser!(u32).range(0..=34_000))]
    pub(crate) delay: u32,
    /// `sip-invite-timeout` of the server, seconds; 0 stands for 32
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u32).range(0..=34))]
    pub(crate) window: u32,
    /// An option of `[limits]` of the server started here, `calls-per-second-max=2000`; may be given more
    /// than once
    #[arg(long = "limit", value_name = "NAME=NUMBER", value_parser = limit, conflicts_with = "server")]
    pub(crate) limits: Vec<(String, u64)>,
    /// A server that runs already: an address in 127.0.0.0/8 and a port
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    pub(crate) server: Option<SocketAddrV4>,
    /// Process of that server, to report its CPU time and memory
    #[arg(long, value_name = "PID", requires = "server")]
    pub(crate) server_pid: Option<u32>,
    /// The server's program; without it `holdfast` beside this one
    #[arg(long, value_name = "PATH", conflicts_with = "server")]
    pub(crate) holdfast: Option<PathBuf>,
    /// The server started here writes no events, and they are not compared with what was seen: for
    /// measuring its speed
    #[arg(long, conflicts_with = "server")]
    pub(crate) no_events: bool,
    /// `cores` of the server, with commas
    #[arg(long, value_name = "LIST", default_value = "0", value_delimiter = ',')]
    pub(crate) server_cores: Vec<u16>,
    /// CPUs that the generator's workers are pinned to, one worker each; without it one worker, unpinned
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) cores: Vec<u16>,
    /// Port that callers and callees listen on; 0: any free one (5070 with --server)
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// Fixes every arrival, every draw and every fault, and names the run; without it taken from the clock
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// What must hold at the end: `lost=0`, `p99(invite)<5ms`, `failed<0.1%`; may be given more than once
    #[arg(long = "goal", value_name = "GOAL", value_parser = Goal::parse)]
    pub(crate) goals: Vec<Goal>,
    /// Where the result goes as JSON; docs/LOADGEN.md has the schema
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Where each second goes as a line of JSON while it runs; the last line is the result
    #[arg(long, value_name = "FILE")]
    pub(crate) json_lines: Option<PathBuf>,
    /// Where the result goes as one page with plots
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Folder for the histograms as .hgrm files and a V2 interval log
    #[arg(long, value_name = "DIR")]
    pub(crate) histograms: Option<PathBuf>,
    /// The run ends after this many seconds, whatever happens; 0: when its profile says
    #[arg(long, default_value_t = 300, value_parser = value_parser!(u32).range(0..=604_800))]
    pub(crate) timeout: u32,
    /// Over TLS to a server that runs already: PEM of the authorities of its certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_authorities: Option<PathBuf>,
    /// PEM of the certificate that callers and callees show
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// PEM of its key
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Take the server's certificate as it is
    #[arg(long)]
    pub(crate) tls_insecure: bool,
    /// Print the server's configuration for this run and end
    #[arg(long)]
    pub(crate) print_config: bool,
}

impl Common {
    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay.into())
    }

    /// The server tells of its calls in a file, which is compared with what was seen.
    pub(crate) fn has_events(&self) -> bool {
        self.server.is_none() && !self.print_config && !self.no_events
    }

    pub(crate) fn workers(&self) -> u32 {
        self.cores.len().max(1) as u32
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransportArg {
    Udp,
    Tcp,
    Tls,
}

impl TransportArg {
    pub(crate) fn transport(self) -> Transport {
        match self {
            Self::Udp => Transport::Udp,
            Self::Tcp => Transport::Tcp,
            Self::Tls => Transport::Tls,
        }
    }
}

/// The point at which the connections are reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Moment {
    /// The re-INVITEs are in the kernel of the callee's host, unread
    BeforeRead,
    /// The callee has read them and said nothing
    AfterRead,
    /// The callee has answered 100
    #[value(name = "after-100")]
    After100,
}

impl Moment {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::BeforeRead => "before-read",
            Self::AfterRead => "after-read",
            Self::After100 => "after-100",
        }
    }
}

/// What success is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Expect {
    /// Every call goes on
    Kept,
    /// Every call is ended by the server, and nothing is left
    Released,
}

impl Expect {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Released => "released",
        }
    }
}

/// Addresses of the callees: 127.20.0.1, 127.20.0.2, …
pub(crate) fn callee_address(party: u32) -> Ipv4Addr {
    address(20, party)
}

/// Addresses of the callers: 127.30.0.1, 127.30.0.2, …
pub(crate) fn caller_address(party: u32) -> Ipv4Addr {
    address(30, party)
}

fn address(net: u8, party: u32) -> Ipv4Addr {
    Ipv4Addr::new(127, net, (party / 250) as u8, (party % 250) as u8 + 1)
}

/// A name of lower-case words and a number.
fn limit(text: &str) -> Result<(String, u64), String> {
    let (name, number) = text.split_once('=').ok_or("it is no NAME=NUMBER")?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
        return Err(format!("{name:?} is no name of an option"));
    }
    let number = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    Ok((name.to_owned(), number))
}

/// A target of the generator: on this machine, and nowhere else.
fn loopback(text: &str) -> Result<SocketAddrV4, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "not an IPv4 address and port, such as 127.0.0.1:5060")?;
    match address {
        SocketAddr::V4(address) if address.ip().is_loopback() && address.port() != 0 => Ok(address),
        SocketAddr::V4(address) if address.ip().is_loopback() => {
            Err("port 0 cannot be connected to, allowed are 1 to 65535".into())
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => {
            let ip: IpAddr = address.ip();
            Err(format!("{ip} is not in 127.0.0.0/8: the generator has no other targets"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn only_loopback_is_a_target() {
        assert!(loopback("127.3.2.1:5060").is_ok());
        assert!(loopback("10.0.0.1:5060").is_err_and(|e| e.contains("127.0.0.0/8")));
        assert!(loopback("[::1]:5060").is_err());
        assert!(loopback("127.0.0.1:0").is_err());
        assert!(loopback("localhost:5060").is_err());
    }

    #[test]
    fn every_party_has_an_address_of_its_own() {
        let mut all: Vec<_> = (0..10_000).map(callee_address).collect();
        all.dedup();
        assert_eq!(all.len(), 10_000);
        assert!(all.iter().all(Ipv4Addr::is_loopback));
    }
}
