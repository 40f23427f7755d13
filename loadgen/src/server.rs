//! The server under test: its configuration, its process, its end.
#![allow(
    clippy::disallowed_methods,
    reason = "waits for a process in real time, outside the server's core"
)]

use std::fmt::Write as _;
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use crate::End;
use crate::text::Party;
use crate::usage::Usage;

/// How long it may take to listen.
const START_MAX: Duration = Duration::from_secs(10);
/// How long it may take to end after SIGTERM.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Bytes of its log shown when it fails.
const LOG_SHOWN: usize = 2000;

/// What the configuration says beside the devices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options<'a> {
    pub(crate) listen: SocketAddrV4,
    pub(crate) cores: &'a [u16],
    /// `retry-after-reliable-transport-error`, milliseconds.
    pub(crate) delay: u32,
    /// `sip-invite-timeout`, seconds.
    pub(crate) window: u32,
}

/// The configuration that the run needs.
pub(crate) fn config(options: Options<'_>, callers: &[Party], callees: &[Party]) -> String {
    let Options { listen, cores, delay, window } = options;
    let mut text = format!(
        "[server]\nlisten = [\"tcp:{listen}\"]\ncores = {cores:?}\ndrain-timeout = 2\n\n[TServer]\n\
         retry-after-reliable-transport-error = {delay}\nsip-invite-timeout = {window}\n"
    );
    for callee in callees {
        let Party { user, sent_by, .. } = callee;
        let _ = write!(
            text,
            "\n[[device]]\ntype = \"Extension\"\ndn = \"{user}\"\n\
             contact = \"sip:{user}@{sent_by};transport=tcp\"\n"
        );
    }
    for caller in callers {
        let Party { user, sent_by, .. } = caller;
        let _ = write!(
            text,
            "\n[[device]]\ntype = \"Trunk\"\nprefix = \"{user}\"\n\
             contact = \"sip:{sent_by};transport=tcp\"\n"
        );
    }
    text
}

/// A port on `ip` that nobody listens on now.
///
/// # Errors
/// The address cannot be bound.
pub(crate) fn free_port(ip: std::net::Ipv4Addr) -> Result<u16, End> {
    let bound = TcpListener::bind((ip, 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(|e| End::usage(format!("cannot bind {ip}: {e}")))
}

/// A running server, its own or somebody else's.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddrV4,
    pub(crate) pid: Option<u32>,
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    child: Child,
    dir: PathBuf,
}

impl Server {
    /// One that runs already.
    pub(crate) fn running(address: SocketAddrV4, pid: Option<u32>) -> Self {
        Self { address, pid, own: None }
    }

    /// Starts `program` with `config` and waits until it listens at `address`.
    ///
    /// # Errors
    /// No such program, or it ended, or it did not listen in time; its last words are quoted.
    pub(crate) fn start(
        program: &Path,
        config: &str,
        address: SocketAddrV4,
        run: u32,
    ) -> Result<Self, End> {
        let dir = std::env::temp_dir().join(format!("loadgen-{}-{run:08x}", std::process::id()));
        let file = dir.join("holdfast.toml");
        let log = dir.join("holdfast.log");
        let prepared = fs::create_dir(&dir)
            .and_then(|()| fs::write(&file, config))
            .and_then(|()| fs::File::create(&log));
        let out =
            prepared.map_err(|e| End::usage(format!("cannot prepare {}: {e}", dir.display())))?;
        let spawned = out.try_clone().and_then(|err| {
            Command::new(program)
                .args(["serve", "--config"])
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(out)
                .stderr(err)
                .spawn()
        });
        let child = spawned.map_err(|e| {
            let _ = fs::remove_dir_all(&dir);
            let hint = match e.kind() {
                io::ErrorKind::NotFound => "; build it, or name it with --holdfast PATH",
                _ => "",
            };
            End::usage(format!("cannot start the server {}: {e}{hint}", program.display()))
        })?;
        let pid = Some(child.id());
        let mut server = Self { address, pid, own: Some(Own { child, dir }) };
        server.wait_until_it_listens()?;
        Ok(server)
    }

    fn wait_until_it_listens(&mut self) -> Result<(), End> {
        let began = Instant::now();
        while began.elapsed() < START_MAX {
            if let Some(status) = self.has_ended() {
                return Err(End::usage(format!(
                    "the server ended at its start: {status}{}",
                    self.last_words()
                )));
            }
            if TcpStream::connect_timeout(&self.address.into(), START_MAX).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        let (address, words) = (self.address, self.last_words());
        let seconds = START_MAX.as_secs();
        Err(End::usage(format!("the server does not listen at {address} after {seconds} s{words}")))
    }

    /// How it ended, if it is one of ours and has.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.own.as_mut()?.child.try_wait().ok()?
    }

    /// The end of its log, on lines of its own.
    pub(crate) fn last_words(&self) -> String {
        let Some(own) = &self.own else { return String::new() };
        let log = fs::read(own.dir.join("holdfast.log")).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LOG_SHOWN)..];
        match String::from_utf8_lossy(tail).trim() {
            "" => "; it said nothing".into(),
            text => format!("; it said:\n{text}"),
        }
    }

    /// What it uses now.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.pid.and_then(Usage::of)
    }

    /// Ends a server that was started here: SIGTERM, and SIGKILL when that does not help.
    ///
    /// Gives what was wrong with its end.
    pub(crate) fn stop(&mut self) -> Option<String> {
        let mut own = self.own.take()?;
        let complaint = end_child(&mut own.child);
        let _ = fs::remove_dir_all(&own.dir);
        complaint
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn end_child(child: &mut Child) -> Option<String> {
    if let Ok(Some(status)) = child.try_wait() {
        return Some(format!("the server had ended before: {status}"));
    }
    terminate(child.id());
    let began = Instant::now();
    while began.elapsed() < STOP_MAX {
        match child.try_wait() {
            Ok(Some(status)) if status.success() || status.signal() == Some(15) => return None,
            Ok(Some(status)) => return Some(format!("the server ended badly: {status}")),
            Ok(None) => thread::sleep(Duration::from_millis(10)),
            Err(e) => return Some(format!("cannot wait for the server: {e}")),
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    Some(format!("the server ignored SIGTERM for {} s and was killed", STOP_MAX.as_secs()))
}

/// Sends SIGTERM to process `pid`, which this program started.
pub(crate) fn terminate(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(user: &str, host: &str) -> Party {
        let sent_by = format!("{host}:5070");
        Party { user: user.into(), host: host.into(), sent_by, conn: None }
    }

    #[test]
    fn the_configuration_names_every_party_as_a_device() {
        let options = Options {
            listen: "127.0.0.1:5060".parse().unwrap(),
            cores: &[0, 1],
            delay: 500,
            window: 8,
        };
        let text = config(
            options,
            &[party("caller-1-", "127.30.0.1")],
            &[party("70001", "127.20.0.1"), party("70002", "127.20.0.2")],
        );
        assert!(text.contains("cores = [0, 1]\n"));
        assert!(text.contains("retry-after-reliable-transport-error = 500\n"));
        assert!(
            text.contains("dn = \"70002\"\ncontact = \"sip:70002@127.20.0.2:5070;transport=tcp\"")
        );
        assert!(text.contains("prefix = \"caller-1-\"\ncontact = \"sip:127.30.0.1:5070;"));
        assert_eq!(text.matches("[[device]]").count(), 3);
    }

    #[test]
    fn a_server_that_cannot_be_found_is_named_with_the_remedy() {
        let address = "127.0.0.1:5060".parse().unwrap();
        let end = Server::start(Path::new("/nonexistent/holdfast"), "", address, 7).unwrap_err();
        assert_eq!(end.status, 2);
        assert!(end.text.contains("/nonexistent/holdfast") && end.text.contains("--holdfast"));
    }
}
