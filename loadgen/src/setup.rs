//! Who calls whom and where, before anything is opened; and the server's configuration for it.
#![allow(clippy::disallowed_methods, reason = "names a run after the time of its start")]

use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::End;
use crate::cli::{self, Common};
use crate::net::{Authority, Side, TlsOptions, Transport};
use crate::plan::Strike;
use crate::server;
use crate::text::Party;

/// Port of the parties when the server was configured by somebody else.
const PORT_DEFAULT: u16 = 5070;

/// Events of the server that may wait to be written: those of a second at its fastest.
const EVENTS_QUEUE: u32 = 262_144;

/// Addresses, names and options of a run.
pub(crate) struct Setup {
    pub(crate) callers: Vec<Party>,
    pub(crate) callees: Vec<Party>,
    pub(crate) server: SocketAddrV4,
    pub(crate) transport: Transport,
    pub(crate) config: String,
    pub(crate) seed: u64,
    /// `seed` as it stands in names.
    pub(crate) run: u32,
    /// Certificates, over TLS.
    pub(crate) tls: Option<(TlsOptions, Arc<Authority>)>,
    /// Where the files for this run are: certificates, the server's configuration, log and events.
    pub(crate) dir: PathBuf,
    /// The events of a server that is started here.
    pub(crate) events: Option<PathBuf>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        // The server's log and configuration; what it said was quoted when it mattered.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The transport's name in Via.
pub(crate) fn name_of(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Tls => "TLS",
        Transport::Udp => "UDP",
    }
}

impl Setup {
    /// Chooses the addresses.
    ///
    /// # Errors
    /// No free port, more workers than parties, or certificates that cannot be made.
    pub(crate) fn new(common: &Common) -> Result<Self, End> {
        let workers = common.workers();
        for (parties, option) in [
            (common.callee_connections, "--callee-connections"),
            (common.caller_connections, "--caller-connections"),
        ] {
            if parties < workers {
                return Err(End::usage(format!(
                    "{option} {parties}: each of {workers} workers (--cores) needs one of its own"
                )));
            }
        }
        let seed = common.seed.unwrap_or_else(seed_of_now);
        let port = match (common.port, common.server.is_some() || common.print_config) {
            (0, true) => PORT_DEFAULT,
            (0, false) => server::free_port(cli::callee_address(0))?,
            (port, _) => port,
        };
        let server = match common.server {
            Some(address) => address,
            None if common.print_config => SocketAddrV4::new([127, 0, 0, 1].into(), 5060),
            None => {
                let ip = [127, 0, 0, 1].into();
                SocketAddrV4::new(ip, server::free_port(ip)?)
            }
        };
        let transport = common.transport.transport();
        let name = name_of(transport);
        let callee = |n| Party::new(format!("{}", 70_001 + n), cli::callee_address(n), port, name);
        let caller =
            |n| Party::new(format!("caller-{}-", n + 1), cli::caller_address(n), port, name);
        let run = (mix(seed) >> 32) as u32;
        let dir = std::env::temp_dir().join(format!("loadgen-{}-{run:08x}", std::process::id()));
        let mut this = Self {
            callers: (0..common.caller_connections).map(caller).collect(),
            callees: (0..common.callee_connections).map(callee).collect(),
            server,
            transport,
            config: String::new(),
            seed,
            run,
            tls: None,
            events: common.has_events().then(|| dir.join("events.jsonl")),
            dir,
        };
        this.config = this.configuration(common);
        Ok(this)
    }

    /// Makes the folder of the run, and certificates where it needs them.
    ///
    /// # Errors
    /// A folder or a file that cannot be made.
    pub(crate) fn prepare(&mut self, common: &Common) -> Result<(), End> {
        let fail = |e: &dyn std::fmt::Display| {
            End::usage(format!("cannot prepare {}: {e}", self.dir.display()))
        };
        std::fs::create_dir(&self.dir).map_err(|e| fail(&e))?;
        if self.transport != Transport::Tls {
            return Ok(());
        }
        let options = TlsOptions {
            authorities: common.tls_authorities.clone(),
            identity: common.tls_certificate.clone().zip(common.tls_key.clone()),
            insecure: common.tls_insecure,
            ..TlsOptions::default()
        };
        let authority = Authority::new().map_err(|e| fail(&e))?;
        let issued = authority.issue(&[self.server.ip().to_string()]).map_err(|e| fail(&e))?;
        for (name, text) in [
            ("authority.pem", authority.pem()),
            ("server.pem", &issued.certificate),
            ("server.key", &issued.private_key),
        ] {
            std::fs::write(self.dir.join(name), text).map_err(|e| fail(&e))?;
        }
        self.tls = Some((options, Arc::new(authority)));
        Ok(())
    }

    fn part(all: usize, worker: u32, workers: u32) -> Range<usize> {
        let at = |n: u32| (all as u64 * u64::from(n) / u64::from(workers)) as usize;
        at(worker)..at(worker + 1)
    }

    /// The parties of a worker: neighbours.
    pub(crate) fn callers_of(&self, worker: u32, workers: u32) -> &[Party] {
        &self.callers[Self::part(self.callers.len(), worker, workers)]
    }

    pub(crate) fn callees_of(&self, worker: u32, workers: u32) -> &[Party] {
        &self.callees[Self::part(self.callees.len(), worker, workers)]
    }

    /// The strikes on a worker's parties, in its own numbers.
    pub(crate) fn strikes_of(&self, all: &[Strike], worker: u32, workers: u32) -> Vec<Strike> {
        let of = |side| {
            let parties = if side == Side::Caller { &self.callers } else { &self.callees };
            Self::part(parties.len(), worker, workers)
        };
        let mine = |strike: &&Strike| of(strike.side).contains(&(strike.party as usize));
        let own = |strike: &Strike| {
            let party = strike.party - of(strike.side).start as u32;
            Strike { party, ..strike.clone() }
        };
        all.iter().filter(mine).map(own).collect()
    }

    /// What the server must be told for this run.
    fn configuration(&self, common: &Common) -> String {
        let (server, cores) = (self.server, &common.server_cores);
        let listen = match self.transport {
            Transport::Tcp => format!("\"tcp:{server}\""),
            Transport::Tls => format!("\"tls:{server}\""),
            // Messages that are too long for a datagram go over TCP (RFC 3261 §18.1.1).
            Transport::Udp => format!("\"udp:{server}\", \"tcp:{server}\""),
        };
        let (delay, window) = (common.delay, common.window);
        let mut text = format!(
            "[server]\nlisten = [{listen}]\ncores = {cores:?}\ndrain-timeout = 2\n\n[TServer]\n\
             retry-after-reliable-transport-error = {delay}\nsip-invite-timeout = {window}\n\
             transport-error-responses = [430, 477]\n"
        );
        if !common.limits.is_empty() {
            text.push_str("\n[limits]\n");
            for (name, number) in &common.limits {
                let _ = writeln!(text, "{name} = {number}");
            }
        }
        if self.transport == Transport::Tls {
            let file = |name: &str| match common.server.is_some() || common.print_config {
                true => PathBuf::from(name),
                false => self.dir.join(name),
            };
            let _ = write!(
                text,
                "\n[tls]\ncertificate = [{:?}]\nprivate-key = [{:?}]\nauthorities = {:?}\n",
                file("server.pem"),
                file("server.key"),
                file("authority.pem")
            );
        }
        if let Some(events) = &self.events {
            let _ = write!(text, "\n[events]\nfile = {events:?}\nqueue-max = {EVENTS_QUEUE}\n");
        }
        // Without `transport` the server takes TCP, which in a message would be UDP.
        let transport = if self.transport == Transport::Udp { ";transport=udp" } else { "" };
        for callee in &self.callees {
            let (user, uri) = (&callee.user, callee.uri());
            let _ = write!(
                text,
                "\n[[device]]\ntype = \"Extension\"\ndn = \"{user}\"\ncontact = \"{uri}{transport}\"\n"
            );
        }
        for caller in &self.callers {
            let (user, uri) = (&caller.user, caller.uri_of_host());
            let _ = write!(
                text,
                "\n[[device]]\ntype = \"Trunk\"\nprefix = \"{user}\"\ncontact = \"{uri}{transport}\"\n"
            );
        }
        text
    }
}

fn seed_of_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64) ^ u64::from(std::process::id())
}

/// Spreads neighbouring seeds over all numbers (the finaliser of SplitMix64).
fn mix(seed: u64) -> u64 {
    let a = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ a >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let c = (b ^ b >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    c ^ c >> 31
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::What;
    use clap::Parser;
    use std::time::Duration;

    fn common(args: &[&str]) -> Common {
        let all = ["loadgen", "drill", "--seed", "7"].iter().chain(args);
        match cli::Cli::parse_from(all).command {
            cli::Command::Drill(args) => args.common,
            _ => unreachable!("the command line says drill"),
        }
    }

    /// The setup of a drill with these options.
    pub(crate) fn of(args: &[&str]) -> Setup {
        Setup::new(&common(args)).unwrap()
    }

    #[test]
    fn the_configuration_names_every_party_as_a_device() {
        let args = ["--server", "127.0.0.1:5060", "--server-cores", "0,1", "--window", "8"];
        let more = ["--callee-connections", "2", "--caller-connections", "1"];
        let setup = Setup::new(&common(&[&args[..], &more].concat())).unwrap();
        let text = &setup.config;
        assert!(text.contains("cores = [0, 1]\n"));
        assert!(text.contains("retry-after-reliable-transport-error = 500\n"));
        assert!(
            text.contains("dn = \"70002\"\ncontact = \"sip:70002@127.20.0.2:5070;transport=tcp\"")
        );
        assert!(text.contains("prefix = \"caller-1-\"\ncontact = \"sip:127.30.0.1:5070;"));
        assert_eq!(text.matches("[[device]]").count(), 3);
        let setup = of(&[&args[..], &more, &["--transport", "udp"]].concat());
        assert!(setup.config.contains("contact = \"sip:127.30.0.1:5070;transport=udp\""));
        // Events are those of a server that is started here.
        assert!(!text.contains("[events]"));
        assert!(of(&[]).config.contains("/events.jsonl\"\nqueue-max = "));
        assert!(!of(&["--no-events"]).config.contains("[events]"));
    }

    #[test]
    fn workers_share_parties_and_strikes_without_rest() {
        let args = ["--server", "127.0.0.1:5060", "--callee-connections", "7", "--cores", "0,1,2"];
        let setup = Setup::new(&common(&args)).unwrap();
        let shares: Vec<usize> = (0..3).map(|n| setup.callees_of(n, 3).len()).collect();
        assert_eq!(shares.iter().sum::<usize>(), 7);
        let strike = |party| Strike {
            at: Duration::ZERO,
            until: None,
            side: Side::Callee,
            party,
            what: What::Reset,
        };
        let all: Vec<Strike> = (0..7).map(strike).collect();
        let parts: Vec<Vec<Strike>> = (0..3).map(|n| setup.strikes_of(&all, n, 3)).collect();
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), shares);
        assert!(parts.iter().flatten().all(|strike| strike.party < 3));
    }

    #[test]
    fn a_worker_without_a_party_is_refused() {
        let end = Setup::new(&common(&["--caller-connections", "1", "--cores", "0,1"]));
        assert!(end.is_err_and(|end| end.text.contains("--caller-connections")));
    }
}
