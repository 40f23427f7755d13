//! A whole endpoint under a program: each instruction is an input, or lets time go by.
//!
//! ```text
//! program = options, instruction …        instruction = operation, its arguments, damage
//! message ─► Framer of its flow ─► Endpoint ─► actions: each is checked, connections are kept
//! at the end: every flow fails, 200 s go by, a drain: nothing may be left
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast::cti;
use holdfast::key::{CallId, FlowId, ShardId, Side};
use holdfast::options::{Device, DeviceId, DeviceKind, ForeignCallers, Options, Pair, Role};
use holdfast::sip::message::{Frame, FrameError, Framer, Head, PING};
use holdfast::sip::{Action, Actions, Endpoint, FlowError, Input, NewFlow, Stats};
use holdfast::target::{Target, Transport};
use holdfast::time::Instant;

use super::bytes::Bytes;
use super::mutate::mutate;
use super::template::{self, Copied, PEERS};

/// Flows that peers may open.
const FLOWS_MAX: u32 = 12;
/// Calls at once, with the smaller of two settings.
const CALLS_MAX: [u32; 2] = [2, 50];
/// Messages of the endpoint that its peers remember.
const SENT_MAX: usize = 24;
/// Calls that an application remembers.
const CALLS_KNOWN_MAX: usize = 16;
/// Turns of timers that one wait may take; more are an endless loop.
const TURNS_MAX: usize = 20_000;
/// Instructions of one program.
const INSTRUCTIONS_MAX: usize = 400;

/// Attempts of one recovery: every 100 ms of the longest window, at each of two targets.
const ATTEMPTS_MAX: usize = 2 * 340;

/// Below this no message exceeds a limit of the reader.
const LONG: usize = 4000;

/// How long nothing is heard at the end: longer than timer C; its CANCEL is followed by
/// nothing, because no flow is there.
const SILENCE: Duration = Duration::from_secs(200);

const WAITS_MILLIS: [u64; 12] =
    [0, 1, 99, 100, 500, 1_000, 2_000, 4_000, 32_000, 34_000, 91_000, 181_000];

/// Where devices are.
const TARGETS: [&str; 4] = ["127.0.0.2:5070", "127.0.0.2:5071", "127.0.0.3:5070", "127.0.0.4:5080"];

const ERRORS: [FlowError; 8] = [
    FlowError::Reset,
    FlowError::Closed,
    FlowError::Refused,
    FlowError::Unreachable,
    FlowError::ConnectTimeout,
    FlowError::OutboxFull,
    FlowError::Timeout,
    FlowError::Local,
];

/// Runs the program; gives what the endpoint counted before the end.
pub fn run(program: &[u8]) -> Stats {
    run_as(program, Role::Server)
}

/// The same in the proxy role.
pub fn run_proxy(program: &[u8]) -> Stats {
    run_as(program, Role::Proxy)
}

fn run_as(program: &[u8], role: Role) -> Stats {
    let mut input = Bytes::new(program);
    let mut world = World::new(role, input.byte());
    for _ in 0..INSTRUCTIONS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    let stats = world.endpoint.stats();
    world.finish();
    stats
}

/// Options by bits: 0 and 1 delay, 2 window, 3 listed answers, 4 events, 5 strangers, 6 calls, 7 the
/// second device is gone.
fn options(role: Role, bits: u8) -> Arc<Options> {
    match role {
        Role::Server => server_options(bits),
        Role::Proxy => proxy_options(bits),
    }
}

/// Options by bits: 0 members are asked whether they live, 1 there is a second pair, 2 the first has a backup.
fn proxy_options(bits: u8) -> Arc<Options> {
    let member = |text: &str| Target::tcp(text.parse().expect("an address"));
    let mut options = Options::default();
    options.role = Role::Proxy;
    options.sent_by = "127.0.0.1:5060".to_owned();
    options.limits.flows_max = FLOWS_MAX;
    options.oos_check = Duration::from_secs(if bits & 1 == 0 { 0 } else { 10 });
    options.oos_force = Duration::from_secs(5);
    let mut members = vec![member("127.0.0.2:5070")];
    if bits & 4 == 0 {
        members.push(member("127.0.0.3:5070"));
    }
    options.pairs = vec![Pair { name: "one".to_owned(), members, sources: Vec::new() }];
    if bits & 2 == 0 {
        let members = vec![member("127.0.0.4:5080"), member("127.0.0.4:5081")];
        options.pairs.push(Pair { name: "two".to_owned(), members, sources: Vec::new() });
    }
    Arc::new(options)
}

fn server_options(bits: u8) -> Arc<Options> {
    let mut devices = vec![
        device("7001", DeviceKind::Extension, "sip:7001@127.0.0.2:5070;transport=tcp"),
        device("9", DeviceKind::Trunk, "sip:127.0.0.4:5080"),
        device("7003", DeviceKind::Softswitch, "sip:[::1]:5070"),
        device("7002", DeviceKind::Extension, "sip:7002@127.0.0.3:5070;transport=tcp"),
    ];
    devices[0].backups.push("127.0.0.2:5071".parse().expect("an address"));
    if bits & 128 != 0 {
        devices.pop();
    }
    let mut options = Options::default().with_devices(devices);
    options.sent_by = "127.0.0.1:5060".to_owned();
    options.retry_after = Duration::from_millis([500, 0, 100, 34_000][usize::from(bits & 3)]);
    options.sip_invite_timeout = Duration::from_secs(if bits & 4 == 0 { 0 } else { 2 });
    if bits & 8 != 0 {
        options.transport_error_responses = vec![408, 503, 430];
    }
    options.events = bits & 16 == 0;
    if bits & 32 != 0 {
        options.foreign_callers = ForeignCallers::Relay;
    }
    options.limits.calls_max = CALLS_MAX[usize::from(bits & 64 == 0)];
    options.limits.flows_max = FLOWS_MAX;
    Arc::new(options)
}

fn device(number: &str, kind: DeviceKind, contact: &str) -> Device {
    let address = contact.trim_start_matches("sip:").trim_end_matches(";transport=tcp");
    let address = address.rsplit('@').next().expect("a part");
    let is_trunk = kind == DeviceKind::Trunk;
    Device {
        dn: (!is_trunk).then(|| number.to_owned()),
        prefix: is_trunk.then(|| number.to_owned()),
        kind,
        contact: contact.to_owned(),
        transport: Transport::Tcp,
        address: Some(address.parse().expect("an address")),
        names: Box::default(),
        backups: Vec::new(),
        outbound: None,
        tls_name: None,
        contact_has_user: contact.contains('@'),
        retry_after: None,
    }
}

/// Members that a proxy has at most.
const MEMBERS: usize = 4;

struct World {
    role: Role,
    /// Flows that there ever were.
    opened: usize,
    endpoint: Endpoint,
    now: Instant,
    flows: Vec<Flow>,
    /// What the endpoint sent last, newest first, and where.
    sent: VecDeque<(FlowId, Copied)>,
    calls: Vec<CallId>,
    events: u64,
    serial: u32,
    out: Actions,
}

struct Flow {
    id: FlowId,
    is_open: bool,
    is_outbound: bool,
    framer: Framer,
}

enum Read {
    Message(Vec<u8>),
    Unframed(Vec<u8>, FrameError),
}

impl World {
    fn new(role: Role, bits: u8) -> Self {
        Self {
            role,
            opened: 0,
            endpoint: Endpoint::new(ShardId(0), [7; 32], options(role, bits)),
            now: Instant::ZERO,
            flows: Vec::new(),
            sent: VecDeque::new(),
            calls: Vec::new(),
            events: 0,
            serial: 0,
            out: Actions::new(),
        }
    }

    fn step(&mut self, input: &mut Bytes<'_>) {
        self.serial += 1;
        match input.byte() % 16 {
            0 => self.wait(Duration::from_millis(input.pick(&WAITS_MILLIS))),
            1 => self.accept(input.pick(&PEERS).0),
            2 | 3 => {
                let flow = self.flow(input);
                let message = template::new_request(input, self.serial);
                self.say(flow, message, input);
            }
            4 | 5 => {
                let about = self.about(input, |_| true);
                self.answer(about, input, |input, sent, serial| {
                    template::request_in_dialog(input, sent, serial)
                });
            }
            6..=8 => {
                let about = self.about(input, |sent| sent.is_request);
                self.answer(about, input, |input, sent, _| template::response(input, sent));
            }
            9 => {
                let about = self.about(input, |sent| !sent.is_request);
                self.answer(about, input, template::follow_up);
            }
            10 => self.open(input),
            11 => {
                let flow = self.flow(input);
                let error = input.pick(&ERRORS);
                self.fail(flow, error);
            }
            12 => self.feed(Input::Options(options(self.role, input.byte()))),
            13 => self.ask(input),
            14 => match input.byte() {
                1 => self.crowd(input),
                2 => {
                    let (flow, target) = (self.flow(input), input.pick(&TARGETS));
                    let target = Target::tcp(target.parse().expect("an address"));
                    if let Some(flow) = flow {
                        self.feed(Input::Alias { flow, target });
                    }
                }
                3 => {
                    let (flow, device) = (self.flow(input), DeviceId(u32::from(input.byte() % 5)));
                    if let Some(flow) = flow {
                        self.feed(Input::Certified { flow, devices: &[device] });
                    }
                }
                7 => {
                    let deadline = self.now + Duration::from_millis(input.pick(&WAITS_MILLIS));
                    self.feed(Input::Drain { deadline });
                }
                _ => {}
            },
            _ => {
                let flow = self.flow(input);
                let len = usize::from(input.byte());
                let bytes = input.take(len).to_vec();
                self.say(flow, bytes, input);
            }
        }
    }

    /// Idle flows are closed, and with them no call.
    fn crowd(&mut self, input: &mut Bytes<'_>) {
        let before = self.endpoint.stats();
        let (held, count) = (self.flow(input), usize::from(input.byte()));
        self.feed(Input::Crowded { held: held.as_slice(), count });
        let after = self.endpoint.stats();
        assert!(held.is_none_or(|held| self.is_live(held)));
        assert!(before.flows - after.flows <= count);
        assert_eq!(Stats { flows: before.flows, ..after }, before);
    }

    /// An open flow.
    fn flow(&self, input: &mut Bytes<'_>) -> Option<FlowId> {
        let index = input.byte();
        let open: Vec<FlowId> =
            self.flows.iter().filter(|flow| flow.is_open).map(|flow| flow.id).collect();
        open.get(usize::from(index) % open.len().max(1)).copied()
    }

    /// One of the messages that the endpoint sent, and the flow where that was.
    fn about(
        &self,
        input: &mut Bytes<'_>,
        which: impl Fn(&Copied) -> bool,
    ) -> Option<(FlowId, Copied)> {
        let index = usize::from(input.byte());
        let sent: Vec<_> = self.sent.iter().filter(|(_, sent)| which(sent)).collect();
        sent.get(index % sent.len().max(1)).map(|&sent| sent.clone())
    }

    /// Says what `make` makes, mostly on the flow where the message that it is about was sent.
    fn answer(
        &mut self,
        about: Option<(FlowId, Copied)>,
        input: &mut Bytes<'_>,
        make: impl FnOnce(&mut Bytes<'_>, &Copied, u32) -> Vec<u8>,
    ) {
        let Some((flow, sent)) = about else { return };
        let elsewhere = input.byte();
        let flow = if elsewhere & 7 == 7 { self.flow(input) } else { Some(flow) };
        let message = make(input, &sent, self.serial);
        self.say(flow, message, input);
    }

    /// A peer says something on a flow that is open.
    fn say(&mut self, flow: Option<FlowId>, mut message: Vec<u8>, input: &mut Bytes<'_>) {
        mutate(input, &mut message);
        let Some(id) = flow else { return };
        let Some(flow) = self.flows.iter_mut().find(|flow| flow.id == id && flow.is_open) else {
            return;
        };
        let mut read = Vec::new();
        flow.framer.feed(&message, &mut Head::new(), |frame| match frame {
            Frame::Message(message) => read.push(Read::Message(message.bytes().to_vec())),
            Frame::Unframed { bytes, error } => read.push(Read::Unframed(bytes.to_vec(), error)),
            Frame::Ping => {}
        });
        for read in read {
            if !self.is_live(id) {
                return;
            }
            match read {
                Read::Message(bytes) => {
                    self.feed(Input::Message { flow: id, bytes: &bytes, waited: Duration::ZERO })
                }
                Read::Unframed(bytes, error) => {
                    self.feed(Input::Unframed { flow: id, bytes: &bytes, error });
                    assert!(!self.is_live(id), "a flow lives on that cannot be read");
                }
            }
        }
    }

    fn accept(&mut self, peer: &str) {
        let peer: SocketAddr = peer.parse().expect("an address");
        let local = "127.0.0.1:5060".parse().expect("an address");
        let accepted =
            self.endpoint.accept(self.now, NewFlow { peer, local, transport: Transport::Tcp });
        assert_eq!(accepted.is_none(), self.flows.len() >= FLOWS_MAX as usize);
        if let Some(id) = accepted {
            self.add(id, false);
        }
    }

    fn add(&mut self, id: FlowId, is_outbound: bool) {
        self.opened += 1;
        assert!(!self.is_live(id), "{id:?} was given twice");
        let framer = Framer::new(65_535);
        self.flows.push(Flow { id, is_open: !is_outbound, is_outbound, framer });
    }

    /// A connection of the endpoint opens, or does not.
    fn open(&mut self, input: &mut Bytes<'_>) {
        let how = input.byte();
        let Some(flow) = self.flows.iter_mut().find(|flow| !flow.is_open) else { return };
        let id = flow.id;
        if how & 3 == 3 {
            return self.fail(Some(id), FlowError::Refused);
        }
        flow.is_open = true;
        self.feed(Input::FlowOpened { flow: id });
    }

    fn fail(&mut self, flow: Option<FlowId>, error: FlowError) {
        let Some(index) = self.flows.iter().position(|open| Some(open.id) == flow) else { return };
        let flow = self.flows.remove(index).id;
        self.feed(Input::FlowFailed { flow, error });
    }

    fn ask(&mut self, input: &mut Bytes<'_>) {
        let (index, what, reference) = (input.byte(), input.byte(), u64::from(self.serial));
        if self.calls.is_empty() {
            return;
        }
        let call = self.calls[usize::from(index) % self.calls.len()];
        let side = if what & 1 == 0 { Side::A } else { Side::B };
        let what = match what >> 1 & 3 {
            0 => cti::What::Release,
            1 => cti::What::Retrieve,
            _ => cti::What::Hold,
        };
        self.feed(Input::Request(cti::Request { reference, call, side, what }));
    }

    /// Lets time go by, timer by timer.
    fn wait(&mut self, time: Duration) {
        self.wait_with(time, |_| {});
    }

    fn wait_with(&mut self, time: Duration, after_each: impl Fn(&mut Self)) {
        let end = self.now + time;
        for turn in 0.. {
            let Some(due) = self.endpoint.next_timeout().filter(|&due| due <= end) else { break };
            assert!(turn < TURNS_MAX, "timers without an end at {:?}", self.now);
            self.now = self.now.max(due);
            self.feed(Input::Timeout);
            after_each(self);
        }
        self.now = end;
    }

    fn is_live(&self, flow: FlowId) -> bool {
        self.flows.iter().any(|live| live.id == flow)
    }

    fn feed(&mut self, input: Input<'_>) {
        let mut out = std::mem::take(&mut self.out);
        self.endpoint.handle(self.now, input, &mut out);
        for action in out.iter() {
            self.carry_out(action);
        }
        out.clear();
        self.out = out;
        self.check_stats();
    }

    fn carry_out(&mut self, action: Action<'_>) {
        match action {
            Action::Connect { flow, timeout, .. } => {
                assert!(!timeout.is_zero());
                self.add(flow, true);
            }
            Action::Send { flow, bytes } => {
                assert!(self.is_live(flow), "sent to {flow:?}, which is gone");
                check_sent(bytes);
                if let Some(copied) = Copied::of(bytes) {
                    self.sent.push_front((flow, copied));
                    self.sent.truncate(SENT_MAX);
                }
            }
            Action::Close { flow, .. } => {
                let index = self.flows.iter().position(|live| live.id == flow);
                self.flows.remove(index.expect("a flow that is closed was there"));
            }
            Action::Alias { .. } => {}
            Action::Emit(event) => {
                self.events += 1;
                assert_eq!(event.sequence, self.events);
                assert_eq!(event.at, self.now);
                let call = event.leg.call;
                if !self.calls.contains(&call) {
                    if self.calls.len() == CALLS_KNOWN_MAX {
                        self.calls.remove(0);
                    }
                    self.calls.push(call);
                }
            }
        }
    }

    /// What the endpoint holds is bounded by what its peers and its options let it hold.
    fn check_stats(&self) {
        let stats = self.endpoint.stats();
        assert_eq!(stats.flows, self.flows.len());
        let inbound = self.flows.iter().filter(|flow| !flow.is_outbound).count();
        assert!(inbound <= FLOWS_MAX as usize, "{stats:?}");
        assert!(stats.calls <= CALLS_MAX[1] as usize, "{stats:?}");
        assert!(stats.waiting <= 2 * stats.calls, "{stats:?}");
        let attempts = ATTEMPTS_MAX * stats.recoveries_started as usize;
        assert!(stats.clients <= INSTRUCTIONS_MAX * 8 + attempts, "{stats:?}");
        assert!(stats.servers <= stats.messages as usize, "{stats:?}");
        // Two a leg and one for the session of a call, one of a drain, one for the pings of a flow, which may be
        // gone, and one for each member of a pair.
        let timers =
            5 * stats.calls + 2 * stats.clients + stats.servers + 1 + self.opened + MEMBERS;
        assert!(stats.timers <= timers, "{stats:?}");
        assert!(stats.recoveries_succeeded + stats.recoveries_failed <= stats.recoveries_started);
    }

    /// All flows fail and no new one opens; then nothing may wait any more, and after a drain nothing
    /// may be there.
    fn finish(&mut self) {
        // Nobody is asked whether he lives any more.
        self.feed(Input::Options(options(self.role, 0)));
        self.fail_all();
        self.silence(SILENCE);
        let stats = self.endpoint.stats();
        assert_eq!((stats.clients, stats.servers), (0, 0), "{stats:?}");
        self.feed(Input::Drain { deadline: self.now });
        self.silence(SILENCE);
        let stats = self.endpoint.stats();
        assert_eq!((stats.calls, stats.clients, stats.servers, stats.timers), (0, 0, 0, 0));
        assert_eq!((stats.waiting, stats.flows), (0, 0), "{stats:?}");
        assert!(self.endpoint.is_drained());
    }

    fn fail_all(&mut self) {
        for turn in 0.. {
            let Some(flow) = self.flows.first() else { return };
            assert!(turn < TURNS_MAX, "connections without an end at {:?}", self.now);
            let (id, error) = (flow.id, FlowError::Refused);
            self.fail(Some(id), error);
        }
    }

    /// Time goes by, and each connection is refused at once.
    fn silence(&mut self, time: Duration) {
        self.wait_with(time, Self::fail_all);
    }
}

/// A peer reads exactly one message in it; one that says nothing long is not too long for us either.
fn check_sent(bytes: &[u8]) {
    let mut framer = Framer::new(usize::MAX);
    let mut count = 0;
    framer.feed(bytes, &mut Head::new(), |frame| {
        count += 1;
        match frame {
            Frame::Message(message) => assert_eq!(message.bytes(), bytes),
            Frame::Ping => assert_eq!(bytes, PING),
            // A Contact and the headers that pass through are as long as a peer made them.
            Frame::Unframed { error, .. } => {
                assert!(bytes.len() > LONG, "{error}: {}", bytes.escape_ascii());
                assert!(matches!(error.status(), 414 | 513), "{error}: {}", bytes.escape_ascii());
            }
        }
    });
    assert_eq!(count, 1, "{}", bytes.escape_ascii());
    assert!(!framer.is_partial());
}
