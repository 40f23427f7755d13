//! The server as a process of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::ua::PATIENCE;

/// A running `holdfast serve` and the lines of its log.
pub(crate) struct Server {
    child: Child,
    log: Receiver<String>,
    pub(crate) address: SocketAddr,
    config: PathBuf,
}

/// An address that nobody listens on at the moment.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// One of the fields of a statistics line, by its name.
#[allow(dead_code)] // Not for tests/torture_wire.
pub(crate) fn field(line: &str, name: &str) -> u64 {
    let prefix = format!("{name}=");
    let value = line.split(' ').find_map(|word| word.strip_prefix(&prefix));
    value.unwrap_or_else(|| panic!("no {name} in {line}")).parse().unwrap()
}

/// What the server is started with.
pub(crate) struct Setup<'a> {
    /// Value of `cores`.
    pub(crate) cores: &'a str,
    /// Where the device 7002 listens.
    pub(crate) callee: SocketAddr,
    /// Where the server listens.
    pub(crate) address: SocketAddr,
    /// Over UDP, too.
    pub(crate) udp: bool,
    /// Shell command before the server is executed, such as `ulimit -n 200`.
    pub(crate) before: &'a str,
    /// More of the `[TServer]` section.
    pub(crate) tserver: &'a str,
    /// More of the configuration.
    pub(crate) more: &'a str,
    /// The whole configuration, instead.
    pub(crate) whole: Option<String>,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        let callee = free_address();
        Self {
            cores: "[0]",
            callee,
            address: free_address(),
            udp: false,
            before: "true",
            tserver: "",
            more: "",
            whole: None,
        }
    }
}

impl Server {
    /// Starts it and waits until it listens.
    pub(crate) fn start(setup: &Setup<'_>) -> Self {
        let server = Self::spawn(setup);
        server.wait_for("listening on");
        server
    }

    /// Starts it.
    pub(crate) fn spawn(setup: &Setup<'_>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let config = std::env::temp_dir()
            .join(format!("holdfast-loopback-{}-{number}.toml", std::process::id()));
        let Setup { cores, callee, address, udp, before, tserver, more, whole } = setup;
        let udp = if *udp { format!(", \"udp:{address}\"") } else { String::new() };
        let usual = format!(
            "[server]\nlisten = [\"tcp:{address}\"{udp}]\ncores = {cores}\ndrain-timeout = 2\n\
             [TServer]\nretry-after-reliable-transport-error = 200\n{tserver}\
             [[device]]\ndn = \"7001\"\ntype = \"Extension\"\ncontact = \"sip:7001@127.0.0.1:9\"\n\
             [[device]]\ndn = \"7002\"\ntype = \"Extension\"\ncontact = \"sip:7002@{callee}\"\n{more}"
        );
        fs::write(&config, whole.as_ref().unwrap_or(&usual)).unwrap();
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("{before} && exec \"$0\" serve --config \"$1\""))
            .arg(env!("CARGO_BIN_EXE_holdfast"))
            .arg(&config)
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (line, log) = channel();
        thread::spawn(move || {
            for text in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    break;
                }
            }
        });
        Self { child, log, address: *address, config }
    }

    /// The first line of the log from here on that contains `part`.
    pub(crate) fn wait_for(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) if line.contains(part) => return line,
                Ok(_) => {}
                Err(error) => panic!("no {part:?} in the log: {error}"),
            }
        }
    }

    /// The line of its statistics.
    #[allow(dead_code)] // Not for tests/torture_wire.
    pub(crate) fn stats(&self) -> String {
        self.signal("USR1");
        self.wait_for("stats total")
    }

    /// One of them.
    #[allow(dead_code)] // The same.
    pub(crate) fn stat(&self, name: &str) -> u64 {
        field(&self.stats(), name)
    }

    /// Waits until one of them is as it should be.
    #[allow(dead_code)] // The same.
    pub(crate) fn until(&self, name: &str, wanted: impl Fn(u64) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.stats();
            if wanted(field(&line, name)) {
                return;
            }
            assert!(Instant::now() < deadline, "{name} in {line}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Lines of the log that nobody has waited for.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.try_iter().collect()
    }

    /// Puts another configuration in the place of the one that was loaded, as editors do.
    #[allow(dead_code)] // For tests/operate.
    pub(crate) fn configure(&self, text: &str) {
        let new = self.config.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &self.config).unwrap();
    }

    #[allow(dead_code)] // For tests/rude.rs.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("sh").args(["-c", "kill -$0 $1", name, &pid]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the server does not end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.config);
    }
}
