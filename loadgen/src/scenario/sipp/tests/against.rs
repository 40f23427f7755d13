//! Messages of imported scenarios are those that SIPp sends for the same file, byte for byte.
//!
//! SIPp plays one call with a UDP peer on 127.0.0.0/8 that knows the scenario; each message that
//! it sends is compared with the one that the template writes. Where SIPp is not installed the
//! tests say so and pass.

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::message::{Field, field_of, headers, parameter};
use crate::scenario::program::{Awaited, Kind, Send};

const WAIT: Duration = Duration::from_secs(5);

/// True when SIPp can be run; says so when not.
fn installed() -> bool {
    let found = Command::new("sipp").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        let _ = writeln!(std::io::stderr(), "skipped: sipp is not installed");
    }
    found.is_ok()
}

/// The text of one of SIPp's own scenarios.
fn own(name: &str) -> String {
    let output = Command::new("sipp").args(["-sd", name]).stdin(Stdio::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A SIPp that plays one call; killed and its files removed at the end.
struct Sipp {
    child: Child,
    folder: PathBuf,
}

impl Drop for Sipp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Sipp {
    fn start(
        name: &str,
        xml: &str,
        fields: Option<&str>,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Self {
        let folder = std::env::temp_dir().join(format!("loadgen-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("scenario.xml"), xml).unwrap();
        let mut command = Command::new("sipp");
        command.current_dir(&folder).args([
            "-sf",
            "scenario.xml",
            "-m",
            "1",
            "-nostdin",
            "-s",
            "bob",
        ]);
        command.args(["-i", &local.ip().to_string(), "-p", &local.port().to_string()]);
        if let Some(fields) = fields {
            std::fs::write(folder.join("users.csv"), fields).unwrap();
            command.args(["-inf", "users.csv"]);
        }
        command.arg(peer.to_string());
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: quiet.spawn().unwrap(), folder }
    }
}

/// The port that SIPp found free for media.
fn media_port(message: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(message);
    let port = text.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next());
    port.map_or(0, |port| port.parse().unwrap())
}

/// A port that was free a moment ago.
fn free(ip: &str) -> SocketAddr {
    UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap()
}

/// The peer's side of one call.
struct Peer {
    socket: UdpSocket,
    local: SocketAddr,
    sipp: SocketAddr,
    pid: u32,
    /// What SIPp received last, what it sent last, and its route set and target.
    received: Vec<u8>,
    sent: Vec<u8>,
    routes: Vec<u8>,
    next_url: Vec<u8>,
    cseq: u32,
    peer_tag: &'static [u8],
}

impl Peer {
    fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; 65_536];
        let (len, _) = self.socket.recv_from(&mut bytes).expect("SIPp sends a message");
        bytes.truncate(len);
        bytes
    }

    /// Reads what SIPp sends and compares it with what the step writes.
    fn compare(&mut self, send: &Send, scenario: &Scenario, call_id: &[u8]) {
        if let Kind::Request(method) = &send.kind {
            self.cseq += u32::from(method != "ACK" && method != "CANCEL");
        }
        self.sent = self.read();
        let branch = format!("z9hG4bK-{}-1", self.pid);
        let (local_ip, remote_ip) = (self.sipp.ip().to_string(), self.local.ip().to_string());
        let context = Context {
            call_id,
            call_number: 1,
            local_ip: &local_ip,
            local_port: self.sipp.port(),
            remote_ip: &remote_ip,
            remote_port: self.local.port(),
            media_ip: &local_ip,
            media_port: media_port(&self.sent),
            transport: "UDP",
            branch: branch.as_bytes(),
            index: send.index,
            cseq: self.cseq,
            peer_tag: self.peer_tag,
            service: b"bob",
            next_url: &self.next_url,
            routes: &self.routes,
            last: &self.received,
            pid: self.pid,
            fields: &scenario.fields,
            rows: &[0],
            ..Context::default()
        };
        let mut ours = Vec::new();
        send.template.write(&context, &mut ours);
        assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&self.sent));
    }

    /// Sends what a `<recv>` of SIPp waits for.
    fn give(&mut self, what: &Awaited, first: bool, call_id: &[u8]) {
        self.received = match what {
            Awaited::Response(status) => self.response(*status),
            Awaited::Request(method) => self.request(method, call_id, first),
        };
        self.socket.send_to(&self.received, self.sipp).unwrap();
    }

    /// Two Record-Route fields and a repeated field of no meaning, to see how they are taken.
    fn response(&mut self, status: u16) -> Vec<u8> {
        let head = self.sent.iter().position(|b| *b == b'\n').unwrap() + 1;
        let mut out = format!("SIP/2.0 {status} Answer\r\n").into_bytes();
        for (name, value) in headers(&self.sent[head..]) {
            let field = field_of(name);
            if matches!(field, Field::Via | Field::From | Field::To | Field::CallId | Field::CSeq) {
                out.extend([name, b": ", value].concat());
                let tagged = field != Field::To || !parameter(value, b"tag").is_empty();
                out.extend_from_slice(if tagged { b"\r\n" } else { b";tag=peer\r\n" });
            }
        }
        self.peer_tag = b"peer";
        let port = self.local.port();
        let rest = format!(
            "Record-Route: <sip:p1.invalid;lr>\r\nRecord-Route: <sip:p2.invalid;lr>\r\n\
             Contact: <sip:me@127.0.0.9:{port}>;expires=3\r\nX-One: 1\r\nx-one: 2\r\n\
             Content-Length: 0\r\n\r\n"
        );
        out.extend_from_slice(rest.as_bytes());
        out
    }

    fn request(&mut self, method: &str, call_id: &[u8], first: bool) -> Vec<u8> {
        let to_tag = if first { "" } else { ";tag=theirs" };
        let (local, sipp, call_id) = (self.local, self.sipp, String::from_utf8_lossy(call_id));
        let cseq = if method == "BYE" { 2 } else { 1 };
        self.peer_tag = b"ours";
        format!(
            "{method} sip:bob@{sipp} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK-{method}\r\n\
             Via: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK-far\r\nFrom: <sip:me@{local}>;tag=ours\r\n\
             To: \"Bob\" <sip:bob@{sipp}>{to_tag}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:me@{local}>\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }
}

/// Plays `xml` with SIPp, and compares every message.
fn play(name: &str, xml: &str, fields: Option<&str>) {
    let read = |_: &str, _: usize| Ok(fields.unwrap_or_default().as_bytes().to_vec());
    let mut files = FieldFiles::new(&read);
    if fields.is_some() {
        files.add("users.csv").unwrap();
    }
    let (scenario, _) = parse("test.xml", xml.as_bytes(), files, Duration::ZERO)
        .unwrap_or_else(|errors| panic!("{}", lines(&errors)));
    let socket = UdpSocket::bind("127.0.0.9:0").unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    let (local, sipp) = (socket.local_addr().unwrap(), free("127.0.0.8"));
    let running = Sipp::start(name, xml, fields, sipp, local);
    let pid = running.child.id();
    let (received, sent, routes, next_url) = Default::default();
    let mut peer =
        Peer { socket, local, sipp, pid, received, sent, routes, next_url, cseq: 0, peer_tag: b"" };
    let calls = scenario.strict.caller;
    let call_id = match calls {
        true => format!("1-{pid}@{}", sipp.ip()).into_bytes(),
        false => b"name@peer".to_vec(),
    };
    if !calls {
        let until = Instant::now() + WAIT;
        while UdpSocket::bind(sipp).is_ok() {
            assert!(Instant::now() < until, "SIPp listens");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let mut compared = 0;
    for step in scenario.caller.iter().chain(&scenario.callee) {
        match step {
            Step::Send(send) => {
                peer.compare(send, &scenario, &call_id);
                compared += 1;
            }
            Step::Recv(recv) if !recv.optional => {
                peer.give(&recv.what, compared == 0, &call_id);
                if recv.routes {
                    peer.routes = b"<sip:p2.invalid;lr>, <sip:p1.invalid;lr>".to_vec();
                    peer.next_url = format!("sip:me@{}", peer.local).into_bytes();
                }
            }
            _ => {}
        }
    }
    assert!(compared > 0);
}

#[test]
fn callers_messages_are_those_of_sipp() {
    if !installed() {
        return;
    }
    play(
        "caller",
        r#"<?xml version="1.0" encoding="ISO-8859-1" ?>
<!DOCTYPE scenario SYSTEM "sipp.dtd">
<scenario name="Every keyword that can be compared">
  <send>
    <![CDATA[

      INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: "[field0]" <sip:[field0 file="users.csv"]@[local_ip]:[local_port]>;tag=[pid]T[call_number]
      To: [service] <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]
      Call-ID: [call_id]
      CSeq: [cseq] INVITE
      X-Sums: [cseq+1] [msg_index] [local_port+2] [branch+1]   
        X-Users: [users] [userid]
      [field1]
      X-Empty: a[field1]b
      [field1] the rest of a line
      X-Last: [last_Contact:] end
      X-Escape: \x41\x5b
      [last_Via:]
      Content-Type: application/sdp
      Content-Length: [len]

      v=0
      o=user1 1 1 IN IP[local_ip_type] [local_ip]
      c=IN IP[media_ip_type] [media_ip]
      m=audio [media_port] RTP/AVP 0

      a=last


    ]]>
  </send>
  <recv response="100" optional="true"/>
  <recv response="200" rrs="true"/>
  <pause milliseconds="1"/>
  <label id="1"/>
  <nop/>
  <send>
    <![CDATA[
      ACK [next_url] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch-5]
      [last_From:]
      [last_To]
      Call-ID: [call_id]
      CSeq: [cseq] ACK
      [routes]
      X-Routes: [routes] end
      X-One: [last_X-One:] end
      [last_x-one]
      [last_Nothing:]
      X-Uri: [last_Request_URI] [last_cseq_number] [last_cseq_number+1]
      X-Tag: a[peer_tag_param]b
      Content-Length: [len]

      abc]]>
  </send>
  <send><![CDATA[ BYE sip:a SIP/2.0
      Via: SIP/2.0/UDP [server_ip];branch=[branch]
      Call-ID: [call_id]
      CSeq: [cseq] BYE ]]></send>
  <recv response="200"/>
</scenario>"#,
        Some("SEQUENTIAL\nalice;;1\n# comment\nbob;;2\n"),
    );
}

#[test]
fn messages_of_sipps_own_client_and_server_are_those_of_sipp() {
    if !installed() {
        return;
    }
    play("uac", &own("uac"), None);
    play("uas", &own("uas"), None);
}

#[test]
fn sipps_own_scenarios_are_imported_or_said_why_not() {
    if !installed() {
        return;
    }
    let import = |name: &str| imported(&own(name)).map(|(_, warnings)| lines(&warnings));
    let refused = |name: &str| lines(&import(name).expect_err(name));
    assert_eq!(import("uac").unwrap(), "");
    assert_eq!(import("uas").unwrap(), "");
    assert_eq!(import("3pcc-A").unwrap(), "", "it sends no commands itself");
    assert_eq!(import("uac_pcap").unwrap().matches("no media is sent").count(), 2);
    assert!(refused("regexp").contains("<ereg check_it>: a check that fails the call"));
    assert!(refused("regexp").contains("the keyword [$1] is not understood"));
    assert!(refused("branchc").contains("<send test>: branches on variables"));
    assert!(refused("branchs").contains("<send test>: branches on variables"));
    assert!(refused("3pcc-C-A").contains("<sendCmd>: commands between SIPp processes"));
}
