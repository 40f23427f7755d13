//! An endpoint and its peers, who answer at once; what happens to the endpoint can be recorded.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast::key::FlowId;
use holdfast::options::{Device, DeviceKind, Options, Pair, Role};
use holdfast::sip::{Action, NewFlow};
use holdfast::target::{Target, Transport};
use holdfast::time::Instant;

use super::messages::{CALLER, Request, SERVER, callee, header, number, response};
use super::server::{Event, Server, Trace};

/// Connections of the caller's device, which its calls take in turn.
const CALLER_CONNECTIONS: usize = 10;
/// Devices that are called, each with one connection.
pub(crate) const CALLEES: usize = 100;
/// What passes until a flow that died is tried again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The server between the caller's device and those that it calls.
pub(crate) fn server_options() -> Arc<Options> {
    let caller = device("+12125550142".to_owned(), CALLER.parse().expect("an address"));
    let callees = (0..CALLEES).map(|n| device(number(n), callee(n)));
    let mut options =
        Options::default().with_devices([caller].into_iter().chain(callees).collect());
    SERVER.clone_into(&mut options.sent_by);
    options.retry_after = RETRY_AFTER;
    Arc::new(options)
}

/// A proxy between the caller's device and a pair, which is callee 0 and 1.
pub(crate) fn proxy_options() -> Arc<Options> {
    let members = [0, 1].map(|n| Target::tcp(callee(n))).to_vec();
    let mut options = Options::default();
    SERVER.clone_into(&mut options.sent_by);
    options.role = Role::Proxy;
    options.pairs = vec![Pair { name: "one".to_owned(), members, sources: Vec::new() }];
    Arc::new(options)
}

fn device(dn: String, address: SocketAddr) -> Device {
    Device {
        contact: format!("sip:{dn}@{address};transport=tcp"),
        dn: Some(dn),
        prefix: None,
        kind: DeviceKind::Trunk,
        address: Some(address),
        names: Box::default(),
        transport: Transport::Tcp,
        backups: Vec::new(),
        outbound: None,
        tls_name: None,
        contact_has_user: true,
        retry_after: None,
    }
}

/// An endpoint and its peers.
pub(crate) struct Exchange {
    pub(crate) server: Server,
    pub(crate) now: Instant,
    /// What happened, if that is wanted.
    pub(crate) trace: Option<Trace>,
    /// False: callees do not answer.
    pub(crate) answering: bool,
    role: Role,
    callers: Vec<FlowId>,
    /// Flows to callees that are open.
    pub(crate) to_callees: Vec<FlowId>,
    sent: VecDeque<(FlowId, String)>,
    /// To of the last 2xx that the caller got.
    to: String,
}

impl Exchange {
    /// An endpoint with the connections of the caller's device.
    pub(crate) fn new(options: &Arc<Options>) -> Self {
        let mut exchange = Self {
            server: Server::new(options),
            now: Instant::from_millis(1),
            trace: None,
            answering: true,
            role: options.role,
            callers: Vec::new(),
            to_callees: Vec::new(),
            sent: VecDeque::new(),
            to: String::new(),
        };
        exchange.trace = Some(Trace::default());
        for n in 0..CALLER_CONNECTIONS {
            exchange.accept(40_000 + n as u16);
        }
        exchange
    }

    /// Stops recording and forgets what was recorded.
    pub(crate) fn forget(&mut self) {
        self.trace = None;
    }

    /// How much was recorded.
    pub(crate) fn steps(&self) -> usize {
        self.trace.as_ref().map_or(0, |trace| trace.steps.len())
    }

    /// The caller's device connects from `port`.
    fn accept(&mut self, port: u16) {
        let mut peer: SocketAddr = CALLER.parse().expect("an address");
        peer.set_port(port);
        let local = SERVER.parse().expect("an address");
        let new = NewFlow { peer, local, transport: Transport::Tcp };
        let flow = self.server.accept(self.now, new);
        self.callers.push(flow);
        if let Some(trace) = &mut self.trace {
            trace.steps.push((self.now, Event::Accept(new)));
        }
    }

    /// The caller begins a call, which is answered; To as the caller has it then.
    pub(crate) fn establish(&mut self, call: usize) -> String {
        let to = format!("<sip:{}@edge1.example.net>", number(call % CALLEES));
        self.request("INVITE", call, &to, 1);
        std::mem::take(&mut self.to)
    }

    /// The caller sends a request of a call. It acknowledges what it gets for an INVITE.
    pub(crate) fn request(&mut self, method: &str, call: usize, to: &str, cseq: u32) {
        let in_dialog = to.contains("tag=");
        let route = format!("Route: <sip:{SERVER};transport=tcp;lr>\r\n");
        let (uri, route) = self.way(call, in_dialog, &route);
        let text = Request { method, uri: &uri, route, call, to, cseq }.text();
        let flow = self.callers[call % self.callers.len()];
        self.read(flow, &text);
    }

    /// Request-URI and Route of a request of the caller.
    fn way<'a>(&self, call: usize, in_dialog: bool, route: &'a str) -> (String, &'a str) {
        match self.role {
            Role::Server if in_dialog => (format!("sip:{SERVER};transport=tcp"), ""),
            Role::Proxy if in_dialog => (Target::tcp(callee(0)).uri(), route),
            Role::Server | Role::Proxy => (format!("sip:{}@{SERVER}", number(call % CALLEES)), ""),
        }
    }

    /// Runs the timers that are due until `at`, and the answers to what they send.
    pub(crate) fn until(&mut self, at: Instant) {
        while let Some(due) = self.server.endpoint.next_timeout().filter(|due| *due <= at) {
            self.now = self.now.max(due);
            self.input(Event::Timeout);
            self.settle();
        }
        self.now = at;
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.until(self.now + time);
    }

    /// A peer connects of whom nothing is known.
    pub(crate) fn stranger(&mut self, n: usize) {
        let [high, middle, low] = [n >> 16, n >> 8, n].map(|n| n as u8);
        let peer = SocketAddr::from(([11, high, middle, low], 40_000));
        let local = SERVER.parse().expect("an address");
        self.server.accept(self.now, NewFlow { peer, local, transport: Transport::Tcp });
    }

    /// All connections to callees are reset.
    pub(crate) fn reset_callees(&mut self) {
        for flow in std::mem::take(&mut self.to_callees) {
            self.input(Event::Failed(flow));
            self.settle();
        }
    }

    fn read(&mut self, flow: FlowId, text: &str) {
        let mut lone = Trace::default();
        let trace = self.trace.as_mut().unwrap_or(&mut lone);
        let start = trace.bytes.len();
        trace.bytes.extend_from_slice(text.as_bytes());
        let event = Event::Read { flow, bytes: start..trace.bytes.len() };
        self.server.handle(self.now, &event, &trace.bytes);
        trace.steps.push((self.now, event));
        self.carry_out();
        self.settle();
    }

    fn input(&mut self, event: Event) {
        self.server.handle(self.now, &event, &[]);
        if let Some(trace) = &mut self.trace {
            trace.steps.push((self.now, event));
        }
        self.carry_out();
    }

    /// Connections open at once.
    fn carry_out(&mut self) {
        let mut opened = Vec::new();
        for action in self.server.actions.iter() {
            match action {
                Action::Connect { flow, .. } => opened.push(flow),
                Action::Send { flow, bytes } => {
                    self.server.written += bytes.len() as u64;
                    let text = str::from_utf8(bytes).expect("text").to_owned();
                    self.sent.push_back((flow, text));
                }
                Action::Close { .. } => panic!("a flow is closed"),
                Action::Alias { .. } | Action::Emit(_) => {}
            }
        }
        self.server.actions.clear();
        for flow in opened {
            self.to_callees.push(flow);
            self.input(Event::Opened(flow));
        }
    }

    /// The peers answer what was sent to them, until nobody has anything to say.
    fn settle(&mut self) {
        while let Some((flow, text)) = self.sent.pop_front() {
            if self.callers.contains(&flow) {
                self.caller_reads(&text);
            } else if self.answering {
                self.callee_reads(flow, &text);
            }
        }
    }

    fn caller_reads(&mut self, text: &str) {
        let cseq = header(text, "CSeq");
        if !text.starts_with("SIP/2.0 2") || !cseq.ends_with("INVITE") {
            let fine = ["SIP/2.0 1", "SIP/2.0 200"].iter().any(|start| text.starts_with(start));
            assert!(fine, "the caller reads {text}");
            return;
        }
        let call_id = header(text, "Call-ID");
        let call =
            call_id.get(19..26).and_then(|call| call.parse().ok()).expect("a Call-ID of ours");
        let number = cseq.split(' ').next().and_then(|number| number.parse().ok()).expect("CSeq");
        header(text, "To").clone_into(&mut self.to);
        let to = self.to.clone();
        self.request("ACK", call, &to, number);
    }

    fn callee_reads(&mut self, flow: FlowId, text: &str) {
        if text.starts_with("ACK ") || text == "\r\n\r\n" {
            return;
        }
        if !header(text, "To").contains("tag=") {
            self.read(flow, &response(text, "180 Ringing"));
        }
        self.read(flow, &response(text, "200 OK"));
    }
}
