//! Ten thousand calls on one endpoint, without network and peers in between.

mod behind;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast::key::{FlowId, ShardId};
use holdfast::options::Options;
use holdfast::sip::{Action, Actions, Endpoint, FlowError, Input, NewFlow};
use holdfast::target::{Target, Transport};
use holdfast::time::Instant;

use crate::message::Msg;
use crate::peer::Peer;
use crate::swarm::{SERVER, device, peer_addr};

const CALLS: usize = 10_000;
const DELAY_MILLIS: u64 = 700;

struct Bench {
    endpoint: Endpoint,
    now: Instant,
    caller: FlowId,
    /// Messages sent and where to, since they were last taken.
    sent: Vec<(FlowId, Vec<u8>)>,
    connects: Vec<(FlowId, SocketAddr)>,
}

impl Bench {
    /// A server with a caller and a device, which may be behind a proxy.
    fn new(outbound: Option<Target>) -> Self {
        let server: SocketAddr = SERVER.parse().expect("an address");
        let mut devices: Vec<_> = (0..2)
            .map(|index| {
                let peer = Peer::new(index, format!("100{index}"), peer_addr(index), server);
                device(&peer, &peer.name, None)
            })
            .collect();
        devices[1].outbound = outbound;
        let mut options = Options::default().with_devices(devices);
        options.sent_by = SERVER.to_owned();
        options.retry_after = Duration::from_millis(DELAY_MILLIS);
        let peer = "10.0.0.1:40000".parse().expect("an address");
        Self::with(options, NewFlow { peer, local: server, transport: Transport::Tcp })
    }

    fn with(options: Options, flow: NewFlow) -> Self {
        let mut endpoint = Endpoint::new(ShardId(0), [7; 32], Arc::new(options));
        let caller = endpoint.accept(Instant::ZERO, flow).expect("room for a flow");
        let (sent, connects) = (Vec::new(), Vec::new());
        Self { endpoint, now: Instant::from_millis(1), caller, sent, connects }
    }

    fn handle(&mut self, input: Input<'_>) {
        let mut actions = Actions::new();
        self.endpoint.handle(self.now, input, &mut actions);
        for action in actions.iter() {
            match action {
                Action::Send { flow, bytes } => self.sent.push((flow, bytes.to_vec())),
                Action::Connect { flow, target, .. } => self.connects.push((flow, target.address)),
                Action::Close { .. } => panic!("a flow is closed"),
                Action::Alias { .. } => {}
                Action::Emit(_) => panic!("nobody asked for events"),
            }
        }
    }

    /// Runs the timers that are due until `millis`; gives when each of them was first served.
    fn run_until(&mut self, millis: u64) {
        while let Some(at) = self.endpoint.next_timeout().filter(|at| at.as_millis() <= millis) {
            self.now = self.now.max(at);
            self.handle(Input::Timeout);
        }
        self.now = self.now.max(Instant::from_millis(millis));
    }

    /// What was sent, whole messages of one kind: a method, or `SIP/2.0 ` and a status.
    fn take(&mut self, start: &str) -> Vec<(FlowId, Msg)> {
        let sent = std::mem::take(&mut self.sent).into_iter();
        sent.filter(|(_, bytes)| bytes.starts_with(start.as_bytes()))
            .map(|(flow, bytes)| (flow, Msg::parse(&bytes).expect("a message")))
            .collect()
    }

    fn in_dialog(&self, method: &str, call: usize, cseq: u32, to: &str) -> Vec<u8> {
        Msg::request(method, &format!("sip:1001@{SERVER}"))
            .with("Via", format!("SIP/2.0/TCP 10.0.0.1;branch=z9hG4bK{method}{call}c{cseq}"))
            .with("Max-Forwards", "70")
            .with("From", format!("<sip:1000@sim.example>;tag=a{call}"))
            .with("To", to)
            .with("Call-ID", format!("{call}@sim.example"))
            .with("CSeq", format!("{cseq} {method}"))
            .with("Contact", "<sip:1000@10.0.0.1:5060>")
            .with_body("application/sdp", if method == "INVITE" { b"v=0\r\n" } else { b"" })
            .to_bytes()
    }
}

fn ok(request: &Msg) -> Vec<u8> {
    let tag = if request.tag_of_to().is_empty() { ";tag=b" } else { "" };
    let mut msg = Msg::response(200, "OK").with("To", format!("{}{tag}", request.text("To")));
    for name in ["Via", "Record-Route", "From", "Call-ID", "CSeq"] {
        for value in request.list(name) {
            msg.add(name, value);
        }
    }
    msg.with("Contact", "<sip:1001@10.0.0.2:5060>").to_bytes()
}

#[test]
fn ten_thousand_waiting_legs_share_one_connect() {
    let mut bench = Bench::new(None);
    let caller = bench.caller;
    let mut tags = Vec::new();
    let mut device = None;
    for call in 0..CALLS {
        let invite = bench.in_dialog("INVITE", call, 1, "<sip:1001@sim.example>");
        bench.handle(Input::Message { flow: caller, bytes: &invite, waited: Duration::ZERO });
        if device.is_none() {
            let (flow, target) = bench.connects.remove(0);
            assert_eq!(target, peer_addr(1));
            bench.handle(Input::FlowOpened { flow });
            device = Some(flow);
        }
        let (flow, invite) = bench.take("INVITE").remove(0);
        bench.handle(Input::Message { flow, bytes: &ok(&invite), waited: Duration::ZERO });
        let (_, answer) = bench.take("SIP/2.0 200").remove(0);
        let to = answer.text("To").to_owned();
        let ack = bench.in_dialog("ACK", call, 1, &to);
        bench.handle(Input::Message { flow: caller, bytes: &ack, waited: Duration::ZERO });
        tags.push(to);
    }
    assert_eq!(bench.endpoint.stats().calls, CALLS);
    for (call, to) in tags.iter().enumerate() {
        let invite = bench.in_dialog("INVITE", call, 2, to);
        bench.handle(Input::Message { flow: caller, bytes: &invite, waited: Duration::ZERO });
    }
    let first = bench.take("INVITE");
    assert_eq!(first.len(), CALLS);
    assert_eq!(bench.connects, []);

    // The flow dies under all of them, and the first new connection is refused.
    let flow = device.expect("a flow");
    bench.handle(Input::FlowFailed { flow, error: FlowError::Reset });
    let mut dead_at = bench.now.as_millis();
    for error in [FlowError::Refused, FlowError::ConnectTimeout] {
        assert_eq!(bench.endpoint.stats().waiting, CALLS);
        bench.run_until(dead_at + DELAY_MILLIS - 1);
        assert_eq!((bench.connects.len(), bench.take("INVITE").len()), (0, 0));
        bench.run_until(dead_at + DELAY_MILLIS + 1);
        assert_eq!(bench.connects.len(), 1, "connections");
        let attempts = bench.take("INVITE");
        assert_eq!(attempts.len(), CALLS);
        let (flow, _) = bench.connects.remove(0);
        assert!(attempts.iter().all(|(on, _)| *on == flow));
        let order = |sent: &[(FlowId, Msg)]| -> Vec<String> {
            sent.iter().map(|(_, msg)| msg.text("Call-ID").to_owned()).collect()
        };
        assert_eq!(order(&attempts), order(&first), "the order in which their waits ended");
        bench.handle(Input::FlowFailed { flow, error });
        dead_at = bench.now.as_millis();
    }

    // The next one opens.
    bench.run_until(dead_at + DELAY_MILLIS + 1);
    assert_eq!(bench.connects.len(), 1, "connections");
    let (flow, _) = bench.connects.remove(0);
    bench.handle(Input::FlowOpened { flow });
    for (flow, attempt) in bench.take("INVITE") {
        bench.handle(Input::Message { flow, bytes: &ok(&attempt), waited: Duration::ZERO });
    }
    let stats = bench.endpoint.stats();
    assert_eq!((stats.calls, stats.waiting, stats.calls_lost), (CALLS, 0, 0));
    assert_eq!(stats.recoveries_started, CALLS as u64);
    assert_eq!(stats.recoveries_succeeded, CALLS as u64);
    assert_eq!(bench.take("ACK").len(), CALLS);
}
