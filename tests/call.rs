//! One call through one endpoint, by hand: the smallest proof that the layers fit together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast::key::{FlowId, ShardId};
use holdfast::options::{Device, DeviceKind, Options};
use holdfast::sip::{Action, Actions, Endpoint, FlowError, Input, NewFlow};
use holdfast::target::Transport;
use holdfast::time::Instant;

struct Bench {
    endpoint: Endpoint,
    now: Instant,
    caller: FlowId,
    connects: Vec<(FlowId, SocketAddr)>,
    sent: Vec<(FlowId, String)>,
}

fn device(dn: &str, address: &str) -> Device {
    Device {
        dn: Some(dn.to_owned()),
        prefix: None,
        kind: DeviceKind::Extension,
        contact: format!("sip:{dn}@{address};transport=tcp"),
        address: Some(address.parse().unwrap()),
        names: Box::default(),
        transport: Transport::Tcp,
        backups: Vec::new(),
        outbound: None,
        tls_name: None,
        contact_has_user: true,
        retry_after: None,
    }
}

impl Bench {
    fn new(delay: u64) -> Self {
        let devices = vec![device("7001", "127.0.0.2:5070"), device("7002", "127.0.0.3:5070")];
        let mut options = Options::default().with_devices(devices);
        options.sent_by = "127.0.0.1:5060".to_owned();
        options.retry_after = Duration::from_millis(delay);
        let mut endpoint = Endpoint::new(ShardId(0), [7; 32], Arc::new(options));
        let flow = NewFlow {
            peer: "127.0.0.3:40000".parse().unwrap(),
            local: "127.0.0.1:5060".parse().unwrap(),
            transport: Transport::Tcp,
        };
        let caller = endpoint.accept(Instant::ZERO, flow).unwrap();
        Self { endpoint, now: Instant::ZERO, caller, connects: vec![], sent: vec![] }
    }

    fn input(&mut self, input: Input<'_>) {
        let mut out = Actions::new();
        self.endpoint.handle(self.now, input, &mut out);
        for action in out.iter() {
            match action {
                Action::Connect { flow, target, .. } => self.connects.push((flow, target.address)),
                Action::Send { flow, bytes } => {
                    self.sent.push((flow, String::from_utf8(bytes.to_vec()).unwrap()));
                }
                Action::Close { .. } | Action::Alias { .. } | Action::Emit(_) => {}
            }
        }
    }

    fn receive(&mut self, flow: FlowId, text: &str) {
        self.receive_late(flow, text, Duration::ZERO);
    }

    /// The same for a message that may have waited so long to be read.
    fn receive_late(&mut self, flow: FlowId, text: &str, waited: Duration) {
        let bytes = text.replace('\n', "\r\n");
        self.input(Input::Message { flow, bytes: bytes.as_bytes(), waited });
    }

    /// Runs timers until `millis`.
    fn until(&mut self, millis: u64) {
        let end = Instant::from_millis(millis);
        while let Some(due) = self.endpoint.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.input(Input::Timeout);
        }
        self.now = end;
    }

    /// The next message sent, which must begin so.
    fn next(&mut self, flow: FlowId, start: &str) -> String {
        assert!(!self.sent.is_empty(), "nothing sent, {start} expected");
        let (to, text) = self.sent.remove(0);
        assert!(text.starts_with(start), "{start} expected, got\n{text}");
        assert_eq!(to, flow, "{text}");
        text
    }

    fn connect(&mut self, target: &str) -> FlowId {
        let (flow, to) = self.connects.remove(0);
        assert_eq!(to, target.parse().unwrap());
        flow
    }
}

fn header<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

fn answer(request: &str, status: &str, tag: &str) -> String {
    let to = header(request, "To");
    let to = if to.contains("tag=") { to.to_owned() } else { format!("{to};tag={tag}") };
    format!(
        "SIP/2.0 {status}\nVia: {}\nFrom: {}\nTo: {to}\nCall-ID: {}\nCSeq: {}\n\
         Contact: <sip:7001@127.0.0.2:5070;transport=tcp>\nContent-Length: 0\n\n",
        header(request, "Via"),
        header(request, "From"),
        header(request, "Call-ID"),
        header(request, "CSeq"),
    )
}

const INVITE: &str = "INVITE sip:7001@127.0.0.1 SIP/2.0\n\
    Via: SIP/2.0/TCP 127.0.0.3:5070;branch=z9hG4bKa1\nMax-Forwards: 70\n\
    From: <sip:7002@127.0.0.3>;tag=at\nTo: <sip:7001@127.0.0.1>\nCall-ID: c1\nCSeq: 1 INVITE\n\
    Contact: <sip:7002@127.0.0.3:5070;transport=tcp>\nX-Unknown: kept\n\
    Content-Type: application/sdp\nContent-Length: 5\n\nv=0\n";

/// A call that is up, and the To value that the caller has.
fn established(bench: &mut Bench) -> (FlowId, String) {
    let caller = bench.caller;
    bench.receive(caller, INVITE);
    bench.next(caller, "SIP/2.0 100");
    let callee = bench.connect("127.0.0.2:5070");
    let invite = bench.next(callee, "INVITE sip:7001@127.0.0.2:5070;transport=tcp SIP/2.0");
    assert!(invite.contains("\r\nX-Unknown: kept\r\n"), "{invite}");
    assert_eq!(header(&invite, "Max-Forwards"), "69");
    bench.input(Input::FlowOpened { flow: callee });
    bench.receive(callee, &answer(&invite, "180 Ringing", "bt"));
    bench.next(caller, "SIP/2.0 180");
    bench.receive(callee, &answer(&invite, "200 OK", "bt"));
    bench.next(callee, "ACK sip:7001@127.0.0.2:5070;transport=tcp");
    let ok = bench.next(caller, "SIP/2.0 200 OK");
    let to = header(&ok, "To").to_owned();
    bench.receive(caller, &in_dialog("ACK", 1, &to));
    assert!(bench.sent.is_empty(), "{:?}", bench.sent);
    (callee, to)
}

fn in_dialog(method: &str, cseq: u32, to: &str) -> String {
    format!(
        "{method} sip:127.0.0.1:5060;transport=tcp SIP/2.0\n\
         Via: SIP/2.0/TCP 127.0.0.3:5070;branch=z9hG4bK{method}{cseq}\nMax-Forwards: 70\n\
         From: <sip:7002@127.0.0.3>;tag=at\nTo: {to}\nCall-ID: c1\nCSeq: {cseq} {method}\n\
         Contact: <sip:7002@127.0.0.3:5070;transport=tcp>\n\
         Content-Type: application/sdp\nContent-Length: 5\n\nv=1\n"
    )
}

#[test]
fn a_mapped_address_of_a_device_is_that_device() {
    let mut bench = Bench::new(500);
    let peer = "[::ffff:127.0.0.3]:40000".parse().unwrap();
    let local = "[::]:5060".parse().unwrap();
    let flow = bench
        .endpoint
        .accept(Instant::ZERO, NewFlow { peer, local, transport: Transport::Tcp })
        .unwrap();
    bench.receive(flow, INVITE);
    bench.next(flow, "SIP/2.0 100");
}

#[test]
fn a_request_outside_a_dialog_is_refused_with_the_status_that_says_why() {
    let mut bench = Bench::new(500);
    let caller = bench.caller;
    let refusals = [
        ("REGISTER", "sip:a@b", "", "405"),
        ("FROBNICATE", "sip:a@b", "", "501"),
        ("UPDATE", "sip:a@b", "", "481"),
        ("OPTIONS", "tel:+1", "", "416"),
        ("INVITE", "sip:7001@b", "Require: timer, x, replaces\n", "420"),
        ("OPTIONS", "sip:a@b", "Require: 100rel\n", "200"),
    ];
    for (number, (method, uri, more, status)) in refusals.into_iter().enumerate() {
        bench.receive(
            caller,
            &format!(
                "{method} {uri} SIP/2.0\nVia: SIP/2.0/TCP 127.0.0.3:5070;branch=z9hG4bKx{number}\n\
                 From: <sip:7002@127.0.0.3>;tag=at\nTo: <sip:a@b>\nCall-ID: x\nCSeq: 1 {method}\n\
                 {more}Content-Length: 0\n\n"
            ),
        );
        let answer = bench.next(caller, &format!("SIP/2.0 {status}"));
        assert_eq!(
            answer.contains("\r\nUnsupported: x\r\nUnsupported: replaces\r\n"),
            status == "420"
        );
    }
}

#[test]
fn a_new_call_that_waited_too_long_is_refused_and_what_belongs_to_another_is_served() {
    let mut bench = Bench::new(500);
    let (callee, to) = established(&mut bench);
    let caller = bench.caller;
    let max = Options::default().limits.queueing_delay_max;
    let late = max + Duration::from_micros(1);
    let new =
        |call: &str| INVITE.replace("c1", call).replace("z9hG4bKa1", &format!("z9hG4bK{call}"));
    // One that is late may be the only one.
    bench.receive_late(caller, &new("c0"), late);
    bench.next(caller, "SIP/2.0 100");
    bench.next(callee, "INVITE");
    bench.until(max.as_millis() as u64);
    bench.receive_late(caller, &new("c2"), late);
    let refusal = bench.next(caller, "SIP/2.0 503");
    assert!(!header(&refusal, "Retry-After").is_empty(), "{refusal}");
    assert_eq!(bench.endpoint.counters().overload, [0, 1]);
    bench.receive_late(caller, &in_dialog("INVITE", 2, &to), late);
    bench.next(caller, "SIP/2.0 100");
    bench.next(callee, "INVITE");
    bench.receive_late(caller, &new("c3"), max);
    bench.next(caller, "SIP/2.0 100");
    bench.next(callee, "INVITE");
    // A copy of one that was taken.
    bench.receive_late(caller, &new("c3"), late);
    bench.next(caller, "SIP/2.0 100");
    let mut options = Options::default().with_devices(vec![device("7002", "127.0.0.3:5070")]);
    options.limits.queueing_delay_max = Duration::ZERO;
    bench.input(Input::Options(Arc::new(options)));
    bench.receive_late(caller, &new("c4"), Duration::from_secs(9));
    bench.next(caller, "SIP/2.0 404");
    assert_eq!(bench.endpoint.counters().overload, [0, 1]);
}

#[test]
fn a_reinvite_whose_flow_dies_is_sent_again_and_the_call_goes_on() {
    let mut bench = Bench::new(500);
    let (callee, to) = established(&mut bench);
    let caller = bench.caller;
    bench.receive(caller, &in_dialog("INVITE", 2, &to));
    bench.next(caller, "SIP/2.0 100");
    let first = bench.next(callee, "INVITE");
    bench.input(Input::FlowFailed { flow: callee, error: FlowError::Reset });
    bench.until(499);
    assert!(bench.sent.is_empty() && bench.connects.is_empty());
    bench.until(500);
    let again = bench.connect("127.0.0.2:5070");
    let second = bench.next(again, "INVITE");
    assert_eq!(header(&first, "CSeq"), "2 INVITE");
    assert_eq!(header(&second, "CSeq"), "3 INVITE");
    assert_ne!(header(&first, "Via"), header(&second, "Via"));
    for name in ["Call-ID", "From", "To", "Contact"] {
        assert_eq!(header(&first, name), header(&second, name));
    }
    bench.input(Input::FlowOpened { flow: again });
    bench.receive(again, &answer(&second, "200 OK", "bt"));
    bench.next(again, "ACK");
    bench.next(caller, "SIP/2.0 200 OK");
    bench.receive(caller, &in_dialog("ACK", 2, &to));
    bench.receive(caller, &in_dialog("BYE", 3, &to));
    bench.next(caller, "SIP/2.0 200");
    let bye = bench.next(again, "BYE");
    bench.receive(again, &answer(&bye, "200 OK", "bt"));
    bench.until(120_000);
    let stats = bench.endpoint.stats();
    assert_eq!((stats.calls, stats.clients, stats.servers, stats.timers), (0, 0, 0, 0));
    assert_eq!((stats.recoveries_started, stats.recoveries_succeeded), (1, 1));
    assert_eq!(bench.endpoint.next_timeout(), None);
}

#[test]
fn without_a_delay_the_call_is_released_with_a_reason() {
    let mut bench = Bench::new(0);
    let (callee, to) = established(&mut bench);
    let caller = bench.caller;
    bench.receive(caller, &in_dialog("INVITE", 2, &to));
    bench.next(caller, "SIP/2.0 100");
    bench.next(callee, "INVITE");
    bench.input(Input::FlowFailed { flow: callee, error: FlowError::Reset });
    bench.next(caller, "SIP/2.0 408");
    let again = bench.connect("127.0.0.2:5070");
    bench.next(again, "BYE");
    let bye = bench.next(caller, "BYE sip:7002@127.0.0.3:5070");
    assert_eq!(header(&bye, "Reason"), "SIP;cause=503;text=\"transport-error\"");
    assert_eq!(bench.endpoint.stats().calls, 0);
}

fn untagged(request: &str, status: &str) -> String {
    answer(request, status, "X").replace(";tag=X", "")
}

#[test]
fn peer_that_gives_no_tag_keeps_its_call_when_its_2xx_comes_again() {
    let mut bench = Bench::new(500);
    let caller = bench.caller;
    bench.receive(caller, INVITE);
    bench.next(caller, "SIP/2.0 100");
    let callee = bench.connect("127.0.0.2:5070");
    let invite = bench.next(callee, "INVITE");
    bench.input(Input::FlowOpened { flow: callee });
    bench.receive(callee, &untagged(&invite, "200 OK"));
    bench.next(callee, "ACK");
    let ok = bench.next(caller, "SIP/2.0 200 OK");
    let to = header(&ok, "To").to_owned();
    bench.receive(caller, &in_dialog("ACK", 1, &to));
    // The ACK was lost.
    bench.receive(callee, &untagged(&invite, "200 OK"));
    bench.next(callee, "ACK");
    assert!(bench.sent.is_empty(), "{:?}", bench.sent);
    bench.receive(caller, &in_dialog("INFO", 2, &to));
    bench.next(callee, "INFO");
}

#[test]
fn refused_strangers_leave_no_transactions() {
    let mut bench = Bench::new(500);
    let flow = NewFlow {
        peer: "127.0.0.9:40000".parse().unwrap(),
        local: "127.0.0.1:5060".parse().unwrap(),
        transport: Transport::Tcp,
    };
    let stranger = bench.endpoint.accept(Instant::ZERO, flow).unwrap();
    let fat = format!("Via: SIP/2.0/TCP 1.2.3.4;branch=z9hG4bK{}\n", "x".repeat(7000));
    for n in 0..1000 {
        let text = INVITE
            .replace("z9hG4bKa1", &format!("z9hG4bKs{n}"))
            .replace("Max-Forwards", &format!("{fat}{fat}Max-Forwards"));
        bench.receive(stranger, &text);
    }
    bench.input(Input::FlowFailed { flow: stranger, error: FlowError::Closed });
    assert!(bench.sent.iter().all(|(_, text)| text.starts_with("SIP/2.0 403")));
    bench.until(31_000);
    assert_eq!(bench.endpoint.stats().servers, 0);
}

#[test]
fn answer_without_contact_is_passed_on_with_ours() {
    let mut bench = Bench::new(500);
    let caller = bench.caller;
    bench.receive(caller, INVITE);
    bench.next(caller, "SIP/2.0 100");
    let callee = bench.connect("127.0.0.2:5070");
    let invite = bench.next(callee, "INVITE");
    bench.input(Input::FlowOpened { flow: callee });
    let ok = answer(&invite, "200 OK", "bt")
        .replace("Contact: <sip:7001@127.0.0.2:5070;transport=tcp>\n", "");
    bench.receive(callee, &ok);
    bench.next(callee, "ACK");
    let ok = bench.next(caller, "SIP/2.0 200 OK");
    assert!(ok.contains("Contact"), "{ok}");
}

#[test]
fn answer_follows_the_caller_to_its_new_flow() {
    let mut bench = Bench::new(500);
    let (callee, to) = established(&mut bench);
    let caller = bench.caller;
    bench.receive(caller, &in_dialog("INVITE", 2, &to));
    bench.next(caller, "SIP/2.0 100");
    let invite = bench.next(callee, "INVITE");
    bench.input(Input::FlowFailed { flow: caller, error: FlowError::Reset });
    let flow = NewFlow {
        peer: "127.0.0.3:40001".parse().unwrap(),
        local: "127.0.0.1:5060".parse().unwrap(),
        transport: Transport::Tcp,
    };
    let back = bench.endpoint.accept(Instant::ZERO, flow).unwrap();
    bench.receive(back, &in_dialog("INFO", 3, &to));
    bench.next(callee, "INFO");
    bench.receive(callee, &answer(&invite, "200 OK", "bt"));
    bench.next(callee, "ACK");
    bench.next(back, "SIP/2.0 200");
}
