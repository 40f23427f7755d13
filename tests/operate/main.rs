//! The server as an operator runs it: a configuration that changes, events and requests of
//! applications, metrics; on real sockets, with calls on it.

// Clocks, threads and processes belong to the other side of the socket.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[allow(dead_code)] // For tests/loopback.
#[path = "../loopback/child.rs"]
mod child;
mod dns;
mod events;
mod memory;
mod metrics;
mod names;
mod overload;
mod reload;
#[allow(dead_code)] // For tests/tls.
#[path = "../loopback/tls.rs"]
mod tls;
#[allow(dead_code)] // For tests/loopback.
#[path = "../loopback/ua.rs"]
mod ua;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use child::{Server, Setup, free_address};
use ua::{Call, PATIENCE, Ua, request};

/// What the configuration says beside the addresses.
#[derive(Clone, Copy)]
struct Says<'a> {
    /// Delay of the application, in milliseconds.
    delay: u64,
    /// Delay of the device 7002.
    device: Option<u64>,
    /// Window, in seconds.
    window: u64,
    more: &'a str,
}

/// A server, its caller, and where the callee is called.
struct World {
    server: Server,
    metrics: SocketAddr,
    callee: SocketAddr,
    caller: Ua,
}

/// A path that no other test has; what is there goes with it.
struct OwnPath(PathBuf);

impl OwnPath {
    fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("holdfast-{}-{number}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl std::ops::Deref for OwnPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for OwnPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn text(says: Says<'_>, address: SocketAddr, metrics: SocketAddr, callee: SocketAddr) -> String {
    let device = says.device.map_or(String::new(), |delay| {
        format!("TServer = {{ retry-after-reliable-transport-error = {delay} }}\n")
    });
    let Says { delay, window, more, .. } = says;
    format!(
        "[server]\nlisten = [\"tcp:{address}\"]\ncores = [0]\ndrain-timeout = 1\n\
         [metrics]\nlisten = \"{metrics}\"\n\
         [TServer]\nretry-after-reliable-transport-error = {delay}\nsip-invite-timeout = {window}\n\
         [[device]]\ndn = \"7001\"\ntype = \"Extension\"\ncontact = \"sip:7001@127.0.0.1:9\"\n\
         [[device]]\ndn = \"7002\"\ntype = \"Extension\"\ncontact = \"sip:7002@{callee}\"\n{device}{more}"
    )
}

impl World {
    /// With the callee's listener.
    fn new(says: Says<'_>) -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let callee = listener.local_addr().unwrap();
        let (address, metrics) = (free_address(), free_address());
        let whole = Some(text(says, address, metrics, callee));
        let server = Server::start(&Setup { callee, address, whole, ..Setup::default() });
        let caller = Ua::connect(server.address);
        (Self { server, metrics, callee, caller }, listener)
    }

    /// Changes the configuration and waits until it is in force.
    fn configure(&self, says: Says<'_>) {
        self.server.configure(&text(says, self.server.address, self.metrics, self.callee));
        self.server.wait_for("configuration in force");
    }

    fn contact(&self) -> String {
        format!("sip:7002@{};transport=tcp", self.callee)
    }

    /// Sets up a call.
    fn call(&mut self, number: u32, listener: &TcpListener, callee: &mut Option<Ua>) -> Call {
        self.caller.send(&request("INVITE", number, 1, None));
        let callee = callee.get_or_insert_with(|| Ua::new(listener.accept().unwrap().0));
        let contact = self.contact();
        Call::accepted(number, &mut self.caller, callee, &contact).0
    }

    /// Answers the re-INVITE with CSeq 2 that a call was waiting for, over the connection that the
    /// server opens now.
    fn recover(&mut self, call: &Call, listener: &TcpListener) -> Ua {
        let mut callee = Ua::new(listener.accept().unwrap().0);
        let invite = callee.receive();
        callee.send(&invite.response("200 OK", &self.contact()));
        assert!(self.caller.receive_after("SIP/2.0 100").is("SIP/2.0 200"));
        self.caller.send(&call.request("ACK", 2));
        assert!(callee.receive().is("ACK "));
        callee
    }

    fn end(&mut self, call: &Call, cseq: u32, callee: &mut Ua) {
        self.caller.send(&call.request("BYE", cseq));
        let bye = callee.receive();
        assert!(bye.is("BYE "), "{bye:?}");
        callee.send(&bye.response("200 OK", &self.contact()));
        let ok = self.caller.receive();
        assert!(ok.is("SIP/2.0 200") && ok.header("CSeq").ends_with("BYE"), "{ok:?}");
    }

    /// The sum of a metric's samples whose name and labels begin so.
    fn metric(&self, start: &str) -> u64 {
        let scraped = scrape(self.metrics);
        let samples = scraped.lines().filter(|line| line.starts_with(start));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    }

    /// Waits until a metric has a value.
    fn wait_until(&self, start: &str, value: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.metric(start);
            if now == value {
                return;
            }
            assert!(Instant::now() < deadline, "{start} is {now}, not {value}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The body of `GET /metrics`.
fn scrape(address: SocketAddr) -> String {
    let answer = http(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
