//! The server under test: its configuration, its process, its end.
#![allow(
    clippy::disallowed_methods,
    reason = "waits for a process in real time, outside the server's core"
)]

use std::collections::HashMap;
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use crate::End;
use crate::oracle::SeenCalls;
use crate::outcome::Usage;
use crate::setup::Setup;
use crate::usage;

/// How long it may take to listen.
const START_MAX: Duration = Duration::from_secs(10);
/// How long it may take to end after SIGTERM: `drain-timeout` below and its own grace.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(10);
/// Bytes of its log shown when it fails.
const LOG_SHOWN: usize = 2000;

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
    /// What was seen of its calls, by the number of the callee, in all runs so far.
    pub(crate) seen: HashMap<String, SeenCalls>,
}

#[derive(Debug)]
struct Own {
    child: Child,
    /// It was sent SIGTERM.
    asked: bool,
    dir: PathBuf,
}

impl Server {
    /// One that runs already.
    pub(crate) fn running(address: SocketAddrV4, pid: Option<u32>) -> Self {
        Self { address, pid, own: None, seen: HashMap::new() }
    }

    /// Starts `program` with the configuration of the run and waits until it listens.
    ///
    /// # Errors
    /// No such program, or it ended, or it did not listen in time; its last words are quoted. A
    /// signal to end.
    pub(crate) fn start(program: &Path, setup: &Setup, stop: &AtomicBool) -> Result<Self, End> {
        let (dir, address) = (setup.dir.clone(), setup.server);
        let file = dir.join("holdfast.toml");
        let log = dir.join("holdfast.log");
        let prepared = fs::write(&file, &setup.config).and_then(|()| fs::File::create(&log));
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
            let hint = match e.kind() {
                io::ErrorKind::NotFound => "; build it, or name it with --holdfast PATH",
                _ => "",
            };
            End::usage(format!("cannot start the server {}: {e}{hint}", program.display()))
        })?;
        let pid = Some(child.id());
        let mut server = Self {
            address,
            pid,
            own: Some(Own { child, asked: false, dir }),
            seen: HashMap::new(),
        };
        server.wait_until_it_listens(stop)?;
        Ok(server)
    }

    fn wait_until_it_listens(&mut self, stop: &AtomicBool) -> Result<(), End> {
        let began = Instant::now();
        while began.elapsed() < START_MAX {
            if stop.load(Ordering::Relaxed) {
                return Err(End::interrupted());
            }
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

    /// What it and its children use now.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.pid.and_then(usage::of_family)
    }

    /// Asks a server that was started here to end; false when there is none (any more).
    pub(crate) fn ask_to_end(&mut self) -> bool {
        let running = self.own.is_some() && self.has_ended().is_none();
        if let Some(own) = self.own.as_mut().filter(|_| running) {
            own.asked = true;
            terminate(own.child.id());
        }
        running
    }

    /// Ends the server, if it was started here; what was wrong with its end.
    pub(crate) fn end(&mut self) -> Option<String> {
        let began = Instant::now();
        if self.ask_to_end() {
            while began.elapsed() < STOP_MAX && self.has_ended().is_none() {
                thread::sleep(Duration::from_millis(5));
            }
        }
        self.clear_up()
    }

    /// Kills what has not ended on being asked, and clears up. Gives what was wrong with its end.
    pub(crate) fn clear_up(&mut self) -> Option<String> {
        let own = self.own.as_mut()?;
        let complaint = match (own.child.try_wait(), own.asked) {
            (Ok(Some(status)), false) => Some(format!("the server had ended before: {status}")),
            (Ok(Some(status)), true) if status.success() || status.signal() == Some(15) => None,
            (Ok(Some(status)), true) => Some(format!("the server ended badly: {status}")),
            (Ok(None), _) => {
                let _ = own.child.kill();
                let _ = own.child.wait();
                let seconds = STOP_MAX.as_secs();
                Some(format!("the server did not end {seconds} s after SIGTERM and was killed"))
            }
            (Err(e), _) => Some(format!("cannot wait for the server: {e}")),
        };
        let complaint = complaint.map(|complaint| complaint + &self.last_words());
        self.own = None;
        complaint
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends SIGTERM to process `pid`, which this program started.
pub(crate) fn terminate(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// Ends a child of this program whose owner hangs: by SIGTERM, or by SIGKILL when it does not end.
pub(crate) fn end_child(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
        return;
    };
    // Once it has been waited for, the number may be another's: then this is an error.
    let runs = || {
        let looked = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
        matches!(looked, Ok(None))
    };
    if !runs() {
        return;
    }
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    let began = Instant::now();
    while began.elapsed() < STOP_MAX {
        if !runs() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_be_found_is_named_with_the_remedy() {
        let setup = crate::setup::tests::of(&["--server", "127.0.0.1:5060"]);
        std::fs::create_dir(&setup.dir).unwrap();
        let end =
            Server::start(Path::new("/nonexistent/holdfast"), &setup, &AtomicBool::new(false))
                .unwrap_err();
        assert_eq!(end.status, 2);
        assert!(end.text.contains("/nonexistent/holdfast") && end.text.contains("--holdfast"));
    }
}
