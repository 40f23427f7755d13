//! Scenarios of SIPp, played end to end through the scripted relay.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real programs, real sockets, real time"
)]

mod relay;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use relay::{Relay, Script};
use serde_json::Value;

const UAC: &str = r#"<?xml version="1.0" encoding="ISO-8859-1" ?>
<!DOCTYPE scenario SYSTEM "sipp.dtd">
<scenario name="caller">
  <send retrans="500" start_rtd="answer"><![CDATA[

      INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: <sip:[field0]@[local_ip]:[local_port]>;tag=[pid]tag[call_number]
      To: <sip:[service]@[remote_ip]:[remote_port]>
      Call-ID: [call_id]
      CSeq: 1 INVITE
      Contact: <sip:[field0]@[local_ip]:[local_port];transport=[transport]>
      Max-Forwards: 70
      Content-Type: application/sdp
      Content-Length: [len]

      v=0
      o=u 1 1 IN IP[local_ip_type] [local_ip]
      s=-
      c=IN IP[media_ip_type] [media_ip]
      t=0 0
      m=audio [media_port] RTP/AVP 0

  ]]></send>
  <recv response="100" optional="true"/>
  <recv response="180" optional="true"/>
  <recv response="WANTED" rtd="answer"/>
  <send><![CDATA[

      ACK sip:[service]@[remote_ip]:[remote_port] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: <sip:[field0]@[local_ip]:[local_port]>;tag=[pid]tag[call_number]
      To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]
      Call-ID: [call_id]
      CSeq: 1 ACK
      Max-Forwards: 70
      Content-Length: 0

  ]]></send>
  <pause milliseconds="20"/>
  <send retrans="500"><![CDATA[

      BYE sip:[service]@[remote_ip]:[remote_port] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: <sip:[field0]@[local_ip]:[local_port]>;tag=[pid]tag[call_number]
      To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]
      Call-ID: [call_id]
      CSeq: 2 BYE
      Max-Forwards: 70
      Content-Length: 0

  ]]></send>
  <recv response="200"/>
</scenario>
"#;

fn file(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn run(name: &str, wanted: &str) -> (Output, Value) {
    let relay = Relay::start(Script { delay: Duration::from_millis(200), ..Script::default() });
    let scenario = file(&format!("{name}.xml"), &UAC.replace("WANTED", wanted));
    let fields = file(&format!("{name}.csv"), "SEQUENTIAL\nalice;\nbob;\n");
    let json = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
    let (server, port) = (relay.address.to_string(), relay.callee_port.to_string());
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .arg("run")
        .arg(&scenario)
        .args(["--profile", "closed 4 for 1s", "--drain", "5", "--timeout", "30"])
        .args(["--callee-connections", "4", "--caller-connections", "2"])
        .args(["--server", &server, "--port", &port, "--fields"])
        .arg(&fields)
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let bytes = std::fs::read(&json).unwrap_or_default();
    let value = serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{output:?}"));
    (output, value)
}

#[test]
fn a_caller_of_sipp_plays_its_calls_and_measures_what_it_marks() {
    let (output, result) = run("sipp-caller", "200");
    let kept = result["calls"]["kept"].as_u64().unwrap();
    assert!(kept > 10, "{output:?}");
    assert_eq!(result["calls"]["failed"], 0, "{output:?}");
    // Up to four calls are between answer and end when the measured time begins or ends.
    let answers = result["response"]["rtd answer"]["corrected"]["count"].as_u64().unwrap_or(0);
    assert!(answers.abs_diff(kept) <= 4, "{answers} answers, {kept} calls: {}", result["response"]);
}

#[test]
fn an_unexpected_message_fails_the_call_and_names_the_line() {
    // The call waits from the first optional step on.
    let (output, result) = run("sipp-unexpected", "486");
    assert_eq!(result["calls"]["kept"], 0, "{output:?}");
    let failures = result["calls"]["failures"].to_string();
    assert!(failures.contains("line 25: unexpected 200"), "{failures}");
}
