//! The same behind a proxy: ten thousand requests are under way through it when its flow dies.

use std::net::SocketAddr;
use std::time::Duration;

use holdfast::key::FlowId;
use holdfast::sip::message::PING;
use holdfast::sip::{FlowError, Input, NewFlow};
use holdfast::target::{Target, Transport};

use super::{Bench, CALLS, DELAY_MILLIS, ok};
use crate::proxy::{self, Path};
use crate::swarm::{SERVER, peer_addr};

/// A server, and the proxy that its device is behind.
struct Chain {
    server: Bench,
    proxy: Bench,
    /// Their connection, at the server's end.
    between: Option<FlowId>,
    /// The proxy's to the device.
    callee: Option<FlowId>,
}

impl Chain {
    fn new() -> Self {
        let own = proxy::addr(Transport::Tcp);
        let path = Path { peer: 1, hop: Transport::Tcp, beyond: Transport::Tcp };
        let server: SocketAddr = SERVER.parse().expect("an address");
        let peer = SocketAddr::new(server.ip(), 40_000);
        let flow = NewFlow { peer, local: own, transport: Transport::Tcp };
        let proxy = Bench::with(path.options(server), flow);
        Self { server: Bench::new(Some(Target::tcp(own))), proxy, between: None, callee: None }
    }

    /// What one sends the other reads, until both are silent.
    fn exchange(&mut self) {
        loop {
            let Some(between) = self.between else { return };
            let down = take_on(&mut self.server, between);
            let from_server = self.proxy.caller;
            let up = take_on(&mut self.proxy, from_server);
            if down.is_empty() && up.is_empty() {
                return;
            }
            for bytes in down {
                self.proxy.handle(Input::Message {
                    flow: from_server,
                    bytes: &bytes,
                    waited: Duration::ZERO,
                });
            }
            for bytes in up {
                self.server.handle(Input::Message {
                    flow: between,
                    bytes: &bytes,
                    waited: Duration::ZERO,
                });
            }
        }
    }

    /// The caller sends something.
    fn caller_sends(&mut self, bytes: &[u8]) {
        let flow = self.server.caller;
        self.server.handle(Input::Message { flow, bytes, waited: Duration::ZERO });
        self.exchange();
    }

    /// The device answers all that is under way to it, and acknowledges nothing.
    fn callee_answers(&mut self) -> usize {
        let invites = self.proxy.take("INVITE");
        for (flow, invite) in &invites {
            self.proxy.handle(Input::Message {
                flow: *flow,
                bytes: &ok(invite),
                waited: Duration::ZERO,
            });
        }
        self.exchange();
        invites.len()
    }

    /// A call comes up; To as the caller knows it.
    fn establish(&mut self, call: usize) -> String {
        let invite = self.server.in_dialog("INVITE", call, 1, "<sip:1001@sim.example>");
        self.caller_sends(&invite);
        if self.between.is_none() {
            self.between = Some(opens(&mut self.server, proxy::addr(Transport::Tcp)));
            self.exchange();
            self.callee = Some(opens(&mut self.proxy, peer_addr(1)));
        }
        assert_eq!(self.callee_answers(), 1);
        let (_, answer) = self.server.take("SIP/2.0 200").remove(0);
        let to = answer.text("To").to_owned();
        let ack = self.server.in_dialog("ACK", call, 1, &to);
        self.caller_sends(&ack);
        assert_eq!(self.proxy.take("ACK").len(), 1);
        to
    }

    fn run_until(&mut self, millis: u64) {
        self.server.run_until(millis);
        self.proxy.run_until(millis);
        self.exchange();
    }
}

/// The connection that was asked for opens.
fn opens(bench: &mut Bench, peer: SocketAddr) -> FlowId {
    let (flow, target) = bench.connects.remove(0);
    assert_eq!(target, peer);
    bench.handle(Input::FlowOpened { flow });
    flow
}

/// Messages that were sent on a flow.
fn take_on(bench: &mut Bench, flow: FlowId) -> Vec<Vec<u8>> {
    let sent = std::mem::take(&mut bench.sent);
    let (taken, left) = sent.into_iter().partition(|(on, _)| *on == flow);
    bench.sent = left;
    let taken: Vec<(FlowId, Vec<u8>)> = taken;
    taken.into_iter().map(|(_, bytes)| bytes).filter(|bytes| bytes != PING).collect()
}

#[test]
fn ten_thousand_legs_behind_a_proxy_share_one_connect_of_its() {
    let mut chain = Chain::new();
    let tags: Vec<String> = (0..CALLS).map(|call| chain.establish(call)).collect();
    assert_eq!(chain.server.endpoint.stats().calls, CALLS);
    for (call, to) in tags.iter().enumerate() {
        let (flow, invite) = (chain.server.caller, chain.server.in_dialog("INVITE", call, 2, to));
        chain.server.handle(Input::Message { flow, bytes: &invite, waited: Duration::ZERO });
    }
    chain.exchange();
    assert_eq!(chain.proxy.take("INVITE").len(), CALLS);

    // The flow dies under all of them, and the first new connections get nowhere.
    let mut flow = chain.callee.expect("a flow");
    for error in [FlowError::Reset, FlowError::Refused, FlowError::ConnectTimeout] {
        chain.proxy.handle(Input::FlowFailed { flow, error });
        chain.exchange();
        let dead_at = chain.server.now.as_millis();
        assert_eq!(chain.server.endpoint.stats().waiting, CALLS);
        chain.run_until(dead_at + DELAY_MILLIS - 1);
        assert_eq!((chain.proxy.connects.len(), chain.proxy.take("INVITE").len()), (0, 0));
        chain.run_until(dead_at + DELAY_MILLIS + 1);
        assert_eq!(chain.proxy.connects.len(), 1, "connections");
        (flow, _) = chain.proxy.connects[0];
        if error != FlowError::ConnectTimeout {
            assert_eq!(chain.proxy.take("INVITE").len(), CALLS);
            chain.proxy.connects.clear();
        }
    }

    // The next one opens.
    opens(&mut chain.proxy, peer_addr(1));
    assert_eq!(chain.callee_answers(), CALLS);
    let stats = chain.server.endpoint.stats();
    assert_eq!((stats.calls, stats.waiting, stats.calls_lost), (CALLS, 0, 0));
    assert_eq!(stats.recoveries_succeeded, CALLS as u64);
    assert_eq!(chain.proxy.take("ACK").len(), CALLS);
    assert_eq!(chain.server.connects, []);
}
