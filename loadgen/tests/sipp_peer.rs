//! Scenarios of SIPp, played with a real SIPp as the other end. Where SIPp is not installed the tests say so
//! and pass.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real programs, real sockets, real time"
)]

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const CALLS: u64 = 20;
/// A busy machine may be slow; a run takes 3 s.
const WAIT: Duration = Duration::from_secs(30);
/// Where the first callee of the generator listens.
const CALLEE: Ipv4Addr = Ipv4Addr::new(127, 20, 0, 1);

/// True when SIPp can be run; says so when not.
fn installed() -> bool {
    let found = Command::new("sipp").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        let _ = writeln!(std::io::stderr(), "skipped: sipp is not installed");
    }
    found.is_ok()
}

/// A file with one of SIPp's own scenarios. Its callee waits for 4 s after the end of a call: here for 200 ms.
fn own(name: &str, test: &str) -> PathBuf {
    let output = Command::new("sipp").args(["-sd", name]).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let path = folder().join(format!("{test}.xml"));
    std::fs::write(&path, text.replace("\"4000\"", "\"200\"")).unwrap();
    path
}

fn folder() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// A port of `ip` that is free over both transports.
fn free(ip: Ipv4Addr) -> SocketAddrV4 {
    loop {
        let port = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
        if UdpSocket::bind((ip, port)).is_ok() {
            return SocketAddrV4::new(ip, port);
        }
    }
}

/// A process that is killed when the test ends before it.
struct Running(Option<Child>);

impl Running {
    fn start(command: &mut Command) -> Self {
        let quiet = command.current_dir(folder()).stdin(Stdio::null());
        Self(Some(quiet.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    fn end(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until somebody has the address.
fn wait_for(address: SocketAddrV4, transport: &str) {
    let ip = u32::from_ne_bytes(address.ip().octets());
    let local = format!(" {ip:08X}:{:04X} ", address.port());
    let began = Instant::now();
    while !std::fs::read_to_string(format!("/proc/net/{transport}")).unwrap().contains(&local) {
        assert!(began.elapsed() < WAIT, "nobody listens at {address} over {transport}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// SIPp with a scenario, for so many calls.
fn sipp(scenario: &Path, address: SocketAddrV4, transport: &str) -> Command {
    let mode = if transport == "tcp" { "t1" } else { "u1" };
    let mut command = Command::new("sipp");
    command.arg("-sf").arg(scenario).args([
        "-t",
        mode,
        "-i",
        &address.ip().to_string(),
        "-bind_local",
    ]);
    command.args(["-p", &address.port().to_string(), "-m", &CALLS.to_string(), "-nostdin"]);
    command.args(["-timeout", &WAIT.as_secs().to_string(), "-timeout_error"]);
    command
}

/// The generator with a file of SIPp and a SIPp at `peer`.
fn loadgen(scenario: &Path, peer: SocketAddrV4, transport: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.arg("run").arg(scenario).args(["--server", &peer.to_string()]);
    command.args(["--transport", transport, "--timeout", "30", "--drain", "5"]);
    command.args(["--callee-connections", "1", "--caller-connections", "2"]);
    command.arg("--json").arg(scenario.with_extension("json"));
    command
}

/// What the generator found: every call as it should be, and nothing else.
fn assert_all_kept(scenario: &Path, output: &Output) {
    let bytes = std::fs::read(scenario.with_extension("json")).unwrap_or_default();
    let result: Value = serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{output:?}"));
    let calls = &result["calls"];
    for name in ["started", "set_up", "kept"] {
        assert_eq!(calls[name], CALLS, "{name}: {output:?}");
    }
    let broken = result["violations"]["counts"].as_object().unwrap();
    assert!(broken.values().all(|count| *count == 0), "{output:?}");
    // Calls that begin late on a busy machine are no fault of either end.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
}

fn calls_to_sipp(transport: &str) {
    if !installed() {
        return;
    }
    let address = free(Ipv4Addr::new(127, 40, 0, 1));
    let answers = own("uas", &format!("sipp-answers-{transport}"));
    let uas = Running::start(&mut sipp(&answers, address, transport));
    wait_for(address, transport);
    let scenario = own("uac", &format!("to-sipp-{transport}"));
    let mut command = loadgen(&scenario, address, transport);
    command.args(["--profile", "constant 20/s for 1s", "--spacing", "even", "--port"]);
    let output = command.arg(free(CALLEE).port().to_string()).output().unwrap();
    assert_all_kept(&scenario, &output);
    let ended = uas.end();
    assert!(ended.status.success(), "{ended:?}");
}

fn calls_from_sipp(transport: &str) {
    if !installed() {
        return;
    }
    let (address, callee) = (free(Ipv4Addr::new(127, 40, 0, 2)), free(CALLEE));
    let scenario = own("uas", &format!("from-sipp-{transport}"));
    let mut command = loadgen(&scenario, address, transport);
    command.args(["--profile", "constant 1/s for 3s", "--port", &callee.port().to_string()]);
    let answers = Running::start(&mut command);
    wait_for(callee, transport);
    let mut uac = sipp(&own("uac", &format!("sipp-calls-{transport}")), address, transport);
    let ended = uac.args(["-r", "20", &callee.to_string()]);
    let ended = Running::start(ended).end();
    let output = answers.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_all_kept(&scenario, &output);
}

#[test]
fn calls_to_a_sipp_that_answers_over_tcp() {
    calls_to_sipp("tcp");
}

#[test]
fn calls_to_a_sipp_that_answers_over_udp() {
    calls_to_sipp("udp");
}

#[test]
fn calls_of_a_sipp_over_tcp() {
    calls_from_sipp("tcp");
}

#[test]
fn calls_of_a_sipp_over_udp() {
    calls_from_sipp("udp");
}

#[test]
fn who_starts_no_calls_needs_somebody_who_does() {
    let uas = "<scenario name=\"uas\"><recv request=\"MESSAGE\"/><send><![CDATA[\nSIP/2.0 200 OK\n\
        [last_Via:]\n[last_From:]\n[last_To:]\n[last_Call-ID:]\n[last_CSeq:]\n\n]]></send></scenario>";
    let path = folder().join("nobody.xml");
    std::fs::write(&path, uas).unwrap();
    let alone = Command::new(env!("CARGO_BIN_EXE_loadgen")).arg("run").arg(&path).output().unwrap();
    let told = String::from_utf8_lossy(&alone.stderr);
    assert!(alone.status.code() == Some(2) && told.contains("starts no calls"), "{alone:?}");
    let mut command = loadgen(&path, free(Ipv4Addr::new(127, 40, 0, 3)), "tcp");
    command.args(["--profile", "constant 1/s for 1s", "--port", &free(CALLEE).port().to_string()]);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && told.contains("nobody called"), "{output:?}");
}
