//! The command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

/// Measures a Holdfast server: how long calls stay in danger when connections die, and how much
/// work it does for its CPU time.
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Every command starts a server of its own (`holdfast serve`), plays all callers and all callees on \
loopback addresses, and ends the server again. With --server it uses one that runs.

Examples:
  A thousand calls, every callee's connection reset while a re-INVITE is unanswered, 500 ms delay:
      loadgen drill
  Ten thousand calls; the requests are lost unread; the callees stay away for two seconds:
      loadgen drill --calls 10000 --fault before-read --return-after 1800
  The delay is 0: every call must be released, and nothing may be left:
      loadgen drill --delay 0 --expect released
  The callees never come back in time; the window is three seconds:
      loadgen drill --window 3 --return-after 10000 --expect released
  Calls and re-INVITEs for each second of the server's CPU time:
      loadgen calls --duration 10
      loadgen reinvites --calls 10000 --duration 10 --json reinvites.json
  Against a server that runs already: print the devices it must know, then go:
      loadgen drill --server 127.0.0.1:5060 --print-config > holdfast.toml
      loadgen drill --server 127.0.0.1:5060 --server-pid 4711

Exit status: 0 everything was as expected; 1 a call was lost, or not released, or the protocol was
breached; 2 the command line or the machine does not allow the run.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Set up calls, reset every callee's connection under a re-INVITE, and count what is kept
    Drill(DrillArgs),
    /// INVITE, ACK, BYE in a closed loop: calls per second and per CPU second
    Calls(CallsArgs),
    /// Re-INVITEs on standing calls in a closed loop
    Reinvites(ReinvitesArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    /// Calls to set up
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=200_000))]
    pub(crate) calls: u32,
    /// Calls set up a second, at most
    #[arg(long, default_value_t = 2000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// Requests in flight while calls are set up, checked and ended
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) in_flight: u32,
    /// When the connections are reset
    #[arg(long, value_enum, default_value_t = Fault::AfterRead)]
    pub(crate) fault: Fault,
    /// `retry-after-reliable-transport-error` of the server, milliseconds
    #[arg(long, default_value_t = 500, value_parser = value_parser!(u32).range(0..=34_000))]
    pub(crate) delay: u32,
    /// `sip-invite-timeout` of the server, seconds; 0 stands for 32
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u32).range(0..=34))]
    pub(crate) window: u32,
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
pub(crate) struct CallsArgs {
    /// Calls in flight
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) in_flight: u32,
    #[command(flatten)]
    pub(crate) time: Time,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct ReinvitesArgs {
    /// Standing calls
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=200_000))]
    pub(crate) calls: u32,
    /// Re-INVITEs in flight, each on a call of its own
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) in_flight: u32,
    #[command(flatten)]
    pub(crate) time: Time,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Time {
    /// How long is measured, seconds
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=3600))]
    pub(crate) duration: u32,
    /// How long it runs before anything is measured, seconds
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(0..=600))]
    pub(crate) warm_up: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Callees, each a device with an address and a connection of its own
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) callee_connections: u32,
    /// Callers, each with an address and a connection of its own
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=1000))]
    pub(crate) caller_connections: u32,
    /// A server that runs already: an address in 127.0.0.0/8 and a port
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    pub(crate) server: Option<SocketAddrV4>,
    /// Process of that server, to report its CPU time and memory
    #[arg(long, value_name = "PID", requires = "server")]
    pub(crate) server_pid: Option<u32>,
    /// The server's program; without it `holdfast` beside this one
    #[arg(long, value_name = "PATH", conflicts_with = "server")]
    pub(crate) holdfast: Option<PathBuf>,
    /// `cores` of the server, with commas
    #[arg(long, value_name = "LIST", default_value = "0", value_delimiter = ',')]
    pub(crate) server_cores: Vec<u16>,
    /// CPU that the generator is pinned to; without it the kernel chooses
    #[arg(long, value_name = "CPU")]
    pub(crate) core: Option<u16>,
    /// Port that callers and callees listen on; 0: any free one (5070 with --server)
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// Names the run in Call-IDs, tags and branches; without it taken from the clock
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Where the figures go as JSON; docs/LOADGEN.md has the schema
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The run ends after this many seconds, whatever happens
    #[arg(long, default_value_t = 300, value_parser = value_parser!(u32).range(1..=86_400))]
    pub(crate) timeout: u32,
    /// Print the server's configuration for this run and end
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// The point at which the connections are reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// The re-INVITEs are in the kernel of the callee's host, unread
    BeforeRead,
    /// The callee has read them and said nothing
    AfterRead,
    /// The callee has answered 100
    #[value(name = "after-100")]
    After100,
}

impl Fault {
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
