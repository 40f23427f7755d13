//! The failure-point matrix on real sockets: each row once, against the server as it is run.
//!
//! The simulator runs the same rows under many seeds (`tests/sim/matrix.rs`); here the kernel says
//! what a reset, a refused connection or a full backlog is. `HOLDFAST_MATRIX_TABLE` names a file that
//! gets a line a row (`tests/matrix`).

// Clocks, threads and processes belong to the other side of the socket.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "loopback/child.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod child;
#[path = "loopback/tls.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod tls;
#[path = "loopback/ua.rs"]
#[allow(dead_code)] // Other tests use the rest.
mod ua;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use child::{Server, Setup, free_address};
use rustls::{ClientConfig, ServerConfig};
use socket2::{Domain, Socket, Type};
use tls::{Authority, Files, Validity};
use ua::{Message, PATIENCE, Ua, request};

/// Long enough for the server to see what happened to a socket.
const NOTICED: Duration = Duration::from_millis(60);
/// Bytes of a body that no single segment holds.
const LARGE: usize = 30_000;
/// What the other leg is told when a call is given up.
const REASON: &str = "SIP;cause=503;text=\"transport-error\"";

/// A call from 7001, which keeps its flow, to 7002, whose flows die.
struct World {
    _server: Server,
    _proxies: Vec<Server>,
    over: Over,
    /// Where the callee finds whoever asked it, when its flow is gone.
    back: SocketAddr,
    server: SocketAddr,
    /// What TLS needs; `None` over TCP.
    secured: Option<Secured>,
    listener: Option<TcpListener>,
    callee: SocketAddr,
    caller: Ua,
    calls: Vec<Call>,
}

/// What the calls of a world go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Tcp,
    Tls,
    /// TCP, and a proxy stands between the server and the callee.
    Proxy,
}

/// What both ends of a connection over TLS believe.
struct Secured {
    _files: Files,
    client: Arc<ClientConfig>,
    callee: Arc<ServerConfig>,
}

impl Secured {
    /// A server that listens and reaches 7002 over TLS, and where.
    fn start(callee: SocketAddr, tserver: &str) -> (Server, SocketAddr, Option<Self>) {
        let authority = Authority::new("the authority");
        let own = authority.certify(&["127.0.0.1"], Validity::Now);
        let (files, address) = (Files::new(), free_address());
        let section = files.section(&own, &authority);
        let whole = format!(
            "[server]\nlisten = [\"tls:{address}\"]\ncores = [0]\ndrain-timeout = 2\n\
             [TServer]\nretry-after-reliable-transport-error = 200\n{tserver}{section}\
             [[device]]\ndn = \"7001\"\ntype = \"Extension\"\ncontact = \"sip:7001@127.0.0.1:9;transport=tls\"\n\
             [[device]]\ndn = \"7002\"\ntype = \"Extension\"\ncontact = \"sip:7002@{callee};transport=tls\"\n"
        );
        let child = Server::start(&Setup { whole: Some(whole), ..Setup::default() });
        let (client, callee) = (authority.client(None), own.server());
        (child, address, Some(Self { _files: files, client, callee }))
    }
}

/// A proxy in front of the server.
fn start_proxy(proxy: SocketAddr, server: SocketAddr) -> Server {
    let whole = format!(
        "[server]\nrole = \"proxy\"\nlisten = [\"tcp:{proxy}\"]\ncores = [0]\n\
         [[pair]]\nname = \"one\"\nprimary = \"sip:{server};transport=tcp\"\n"
    );
    Server::start(&Setup { whole: Some(whole), address: proxy, ..Setup::default() })
}

/// A server whose device 7002 is behind the proxy.
fn behind(server: SocketAddr, proxy: SocketAddr, callee: SocketAddr, tserver: &str) -> String {
    format!(
        "[server]\nlisten = [\"tcp:{server}\"]\ncores = [0]\ndrain-timeout = 2\n\
         [TServer]\nretry-after-reliable-transport-error = 200\n{tserver}\
         [[device]]\ndn = \"7001\"\ntype = \"Extension\"\ncontact = \"sip:7001@127.0.0.1:9;transport=tcp\"\n\
         [[device]]\ndn = \"7002\"\ntype = \"Extension\"\ncontact = \"sip:7002@{callee};transport=tcp\"\n\
         outbound-proxy = \"sip:{proxy};transport=tcp\"\n"
    )
}

fn connect(server: SocketAddr, secured: Option<&Secured>) -> Ua {
    match secured {
        Some(secured) => tls::ua(server, &secured.client, "127.0.0.1"),
        None => Ua::connect(server),
    }
}

/// What the caller needs for requests in a dialog.
struct Call {
    number: u32,
    cseq: u32,
    target: String,
    to: String,
}

impl Call {
    fn request(&self, method: &str) -> String {
        request(method, self.number, self.cseq, Some((&self.target, &self.to)))
    }
}

fn with_body(text: &str, bytes: usize) -> String {
    let body = "v=0\r\n".repeat(bytes / 5);
    let length = format!("Content-Type: application/sdp\r\nContent-Length: {}", body.len());
    text.replace("Content-Length: 0", &length) + &body
}

impl World {
    /// One call that is up, and the callee's end of its flow.
    fn new(over: Over, tserver: &str) -> (Self, Ua) {
        Self::with_calls(over, 1, tserver)
    }

    fn with_calls(over: Over, count: u32, tserver: &str) -> (Self, Ua) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let callee = listener.local_addr().unwrap();
        let (mut proxies, mut back) = (Vec::new(), callee);
        let (child, server, secured) = match over {
            Over::Tcp => {
                let child = Server::start(&Setup { callee, tserver, ..Setup::default() });
                let server = child.address;
                (child, server, None)
            }
            Over::Tls => Secured::start(callee, tserver),
            Over::Proxy => {
                let (server, proxy) = (free_address(), free_address());
                proxies.push(start_proxy(proxy, server));
                let whole = behind(server, proxy, callee, tserver);
                let setup = Setup { whole: Some(whole), address: server, ..Setup::default() };
                back = proxy;
                (Server::start(&setup), server, None)
            }
        };
        let caller = connect(server, secured.as_ref());
        let listener = Some(listener);
        let mut world = Self {
            _server: child,
            _proxies: proxies,
            over,
            back,
            server,
            secured,
            listener,
            callee,
            caller,
            calls: vec![],
        };
        let mut flow = None;
        for number in 0..count {
            world.caller.send(&request("INVITE", number, 1, None));
            let flow = flow.get_or_insert_with(|| world.accept());
            let invite = flow.receive();
            world.answer(flow, &invite, "200 OK");
            let ok = world.caller.receive_after("SIP/2.0 100");
            assert!(ok.is("SIP/2.0 200"), "{ok:?}");
            let target = ok.target().to_owned();
            let call = Call { number, cseq: 1, target, to: ok.header("To").to_owned() };
            world.caller.send(&call.request("ACK"));
            assert!(flow.receive().is("ACK "));
            world.calls.push(call);
        }
        (world, flow.unwrap())
    }

    /// A connection that the callee opens.
    fn connect(&self) -> Ua {
        let to = if self.over == Over::Proxy { self.back } else { self.server };
        connect(to, self.secured.as_ref())
    }

    /// The ACK of the answer to this: on the flow of the answer, or through the proxy, which has its own.
    fn acknowledged(&self, answered: Ua, invite: &Message) -> (Ua, Message) {
        let mut flow = match self.over {
            Over::Tcp | Over::Tls => answered,
            Over::Proxy => self.arrives(Some(answered)),
        };
        let ack = flow.receive();
        assert!(ack.is("ACK ") && cseq(&ack) == cseq(invite), "{ack:?}");
        (flow, ack)
    }

    fn accept(&self) -> Ua {
        self.arrives(None)
    }

    /// What the server opens, or an open flow once something comes over it.
    fn arrives(&self, mut flow: Option<Ua>) -> Ua {
        let listener = self.listener.as_ref().unwrap();
        listener.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Ok((stream, _)) = listener.accept() {
                return match &self.secured {
                    Some(secured) => tls::accepted(stream, &secured.callee),
                    None => Ua::new(stream),
                };
            }
            let came = flow.as_ref().is_some_and(|flow| {
                flow.stream.tcp().set_nonblocking(true).unwrap();
                let came = flow.stream.tcp().peek(&mut [0]).is_ok_and(|count| count > 0);
                flow.stream.tcp().set_nonblocking(false).unwrap();
                came
            });
            if came && let Some(flow) = flow.take() {
                return flow;
            }
            sleep(Duration::from_millis(2));
        }
        panic!("nothing comes to the callee");
    }

    fn answer(&self, flow: &mut Ua, request: &Message, status: &str) {
        flow.send(&self.response(request, status));
    }

    fn response(&self, request: &Message, status: &str) -> String {
        let transport = match self.over {
            Over::Tcp | Over::Proxy => "tcp",
            Over::Tls => "tls",
        };
        request.response(status, &format!("sip:7002@{};transport={transport}", self.callee))
    }

    /// The caller sends a re-INVITE with a body of so many bytes.
    fn reinvites(&mut self, call: usize, bytes: usize) {
        self.calls[call].cseq += 1;
        let text = self.calls[call].request("INVITE");
        self.caller.send(&if bytes == 0 { text } else { with_body(&text, bytes) });
    }

    /// A re-INVITE that the callee has read.
    fn asked(&mut self, flow: &mut Ua) -> Message {
        self.reinvites(0, LARGE);
        let invite = flow.receive();
        assert!(invite.is("INVITE "), "{invite:?}");
        invite
    }

    /// The next attempt comes over a new connection.
    fn next_attempt(&self) -> (Ua, Message) {
        let mut flow = self.accept();
        let invite = flow.receive();
        assert!(invite.is("INVITE "), "{invite:?}");
        let hops = if self.over == Over::Proxy { 2 } else { 1 };
        assert_eq!(invite.0.matches("\nVia: ").count(), hops, "{invite:?}");
        (flow, invite)
    }

    /// The next re-INVITE comes over the connection that the peer opened, or over a new one.
    fn next_request(&self, flow: Ua) -> (Ua, Message) {
        let mut flow = self.arrives(Some(flow));
        // An ACK that came twice, because the 2xx did.
        let invite = flow.receive_after("ACK ");
        assert!(invite.is("INVITE "), "{invite:?}");
        (flow, invite)
    }

    /// The caller has its answer and acknowledges it.
    fn caller_is_answered(&mut self) {
        let ok = self.caller.receive_after("SIP/2.0 1");
        assert!(ok.is("SIP/2.0 200"), "{ok:?}");
        let ack = self.calls[0].request("ACK");
        self.caller.send(&ack);
    }

    /// The attempt is answered, and the call goes on as if nothing had happened.
    fn survives_with(mut self, row: u32, mut flow: Ua, invite: &Message) {
        self.answer(&mut flow, invite, "200 OK");
        let mut ack = flow.receive();
        while ack.is("ACK ") && cseq(&ack) < cseq(invite) {
            // Of an earlier answer that came twice.
            ack = flow.receive();
        }
        assert!(ack.is("ACK ") && cseq(&ack) == cseq(invite), "{ack:?}");
        self.caller_is_answered();
        self.survives(row, flow);
    }

    /// Another re-INVITE and a BYE go through.
    fn survives(mut self, row: u32, mut flow: Ua) {
        self.reinvites(0, 200);
        let again = flow.receive();
        assert!(again.is("INVITE "), "{again:?}");
        self.answer(&mut flow, &again, "200 OK");
        assert!(flow.receive().is("ACK "));
        self.caller_is_answered();
        self.calls[0].cseq += 1;
        let bye = self.calls[0].request("BYE");
        self.caller.send(&bye);
        let bye = flow.receive();
        assert!(bye.is("BYE "), "{bye:?}");
        self.answer(&mut flow, &bye, "200 OK");
        let ok = self.caller.receive();
        assert!(ok.is("SIP/2.0 200") && ok.header("CSeq").ends_with("BYE"), "{ok:?}");
        tell(row, self.over, "kept");
    }
}

/// CSeq of a message.
fn cseq(message: &Message) -> u32 {
    message.header("CSeq").split(' ').next().unwrap().parse().unwrap()
}

/// Writes what became of a row into the table.
fn tell(row: u32, over: Over, what: &str) {
    if let Some(path) = std::env::var_os("HOLDFAST_MATRIX_TABLE") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(
            format!("{row:02}| {what} over {}\n", format!("{over:?}").to_uppercase()).as_bytes(),
        )
        .unwrap();
    }
}

fn flow_dies_while_idle(over: Over) {
    let (mut world, flow) = World::new(over, "");
    flow.reset();
    sleep(NOTICED);
    world.reinvites(0, LARGE);
    let (flow, invite) = world.next_attempt();
    world.survives_with(1, flow, &invite);
}

fn connect_is_refused(over: Over) {
    let (mut world, flow) = World::new(over, "");
    world.listener = None;
    flow.reset();
    sleep(NOTICED);
    world.reinvites(0, LARGE);
    sleep(Duration::from_millis(350));
    world.listener = Some(TcpListener::bind(world.callee).unwrap());
    let (flow, invite) = world.next_attempt();
    assert!(cseq(&invite) > 2, "an attempt was refused before: {}", cseq(&invite));
    world.survives_with(2, flow, &invite);
}

/// A listener that takes no more connections: its kernel drops the first packets of new ones.
fn full_listener(address: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(0).unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        fillers.push(filler);
        assert!(fillers.len() < 50, "the backlog has no end");
    }
    (socket.into(), fillers)
}

fn connect_gets_no_answer(over: Over) {
    let (mut world, flow) = World::new(over, "");
    world.listener = None;
    flow.reset();
    sleep(NOTICED);
    let (listener, fillers) = full_listener(world.callee);
    world.reinvites(0, LARGE);
    // The connect is given up after 4 s (connect-timeout).
    sleep(Duration::from_millis(4_300));
    for _ in &fillers {
        drop(listener.accept().unwrap());
    }
    world.listener = Some(listener);
    let (flow, invite) = world.next_attempt();
    assert!(cseq(&invite) > 2, "an attempt got no answer before: {}", cseq(&invite));
    world.survives_with(2, flow, &invite);
}

fn flow_dies_in_the_middle_of_the_requests_bytes(over: Over) {
    let (mut world, mut flow) = World::new(over, "");
    world.reinvites(0, LARGE);
    let mut some = [0; 1000];
    flow.stream.read_exact(&mut some).unwrap();
    assert!(some.starts_with(b"INVITE "));
    flow.reset();
    let (flow, invite) = world.next_attempt();
    assert!(invite.0.len() > LARGE, "{} bytes", invite.0.len());
    world.survives_with(3, flow, &invite);
}

fn flow_dies_after_the_request_arrived(over: Over) {
    let (mut world, mut flow) = World::new(over, "");
    let first = world.asked(&mut flow);
    flow.reset();
    let (flow, invite) = world.next_attempt();
    assert_eq!(cseq(&invite), cseq(&first) + 1);
    assert_ne!(invite.header("Via"), first.header("Via"));
    world.survives_with(4, flow, &invite);
}

fn flow_dies_after_100(over: Over) {
    let (mut world, mut flow) = World::new(over, "");
    let first = world.asked(&mut flow);
    world.answer(&mut flow, &first, "100 Trying");
    sleep(NOTICED);
    flow.reset();
    let (flow, invite) = world.next_attempt();
    world.survives_with(5, flow, &invite);
}

fn flow_dies_after_180(over: Over) {
    let (mut world, mut flow) = World::new(over, "");
    let first = world.asked(&mut flow);
    world.answer(&mut flow, &first, "180 Ringing");
    let ringing = world.caller.receive_after("SIP/2.0 100");
    assert!(ringing.is("SIP/2.0 180"), "{ringing:?}");
    flow.reset();
    let (flow, invite) = world.next_attempt();
    world.survives_with(6, flow, &invite);
}

/// Half of the 2xx to an attempt is written, and then the flow is reset.
fn half_answered(world: &World, mut flow: Ua, invite: &Message) {
    let ok = world.response(invite, "200 OK");
    flow.send(&ok[..ok.len() / 2]);
    sleep(NOTICED);
    flow.reset();
}

fn flow_dies_in_the_middle_of_the_responses_bytes(over: Over) {
    let (mut world, mut flow) = World::new(over, "");
    let first = world.asked(&mut flow);
    half_answered(&world, flow, &first);
    let (flow, invite) = world.next_attempt();
    world.survives_with(7, flow, &invite);
}

fn a_2xx_that_was_lost_comes_again_over_a_new_connection(over: Over) {
    let (mut world, mut flow) = World::new(over, "");
    let first = world.asked(&mut flow);
    half_answered(&world, flow, &first);
    let mut flow = world.connect();
    world.answer(&mut flow, &first, "200 OK");
    let (flow, _) = world.acknowledged(flow, &first);
    world.caller_is_answered();
    world.reinvites(0, 200);
    let (flow, invite) = world.next_request(flow);
    assert_eq!(cseq(&invite), cseq(&first) + 1, "the attempt was not repeated");
    world.survives_with(8, flow, &invite);
}

fn a_2xx_that_comes_when_the_next_attempt_is_out_is_acknowledged(over: Over) {
    let (mut world, mut flow) = World::new(over, "");
    let first = world.asked(&mut flow);
    half_answered(&world, flow, &first);
    let (flow, second) = world.next_attempt();
    let mut late = world.connect();
    world.answer(&mut late, &first, "200 OK");
    let flow = match over {
        Over::Tcp | Over::Tls => {
            world.acknowledged(late, &first);
            flow
        }
        Over::Proxy => world.acknowledged(flow, &first).0,
    };
    world.survives_with(8, flow, &second);
}

fn a_100_to_an_older_attempt_and_then_the_2xx_to_the_newest_is_success(over: Over) {
    let delay = Duration::from_millis(200);
    let (mut world, mut flow) = World::new(over, "");
    let first = world.asked(&mut flow);
    flow.reset();
    let (second_flow, second) = world.next_attempt();
    second_flow.reset();
    sleep(NOTICED);
    let mut late = world.connect();
    late.send(&world.response(&first, "100 Trying"));
    // No third attempt comes.
    sleep(delay + NOTICED);
    late.send(&world.response(&second, "200 OK"));
    let ack = late.receive();
    assert!(ack.is("ACK ") && cseq(&ack) == cseq(&second), "{ack:?}");
    world.caller_is_answered();
    // What becomes of the older one is nobody's business any more.
    late.send(&world.response(&first, "487 Request Terminated"));
    let ack = late.receive();
    assert!(ack.is("ACK ") && cseq(&ack) == cseq(&first), "{ack:?}");
    world.reinvites(0, 200);
    let (flow, invite) = world.next_request(late);
    assert_eq!(cseq(&invite), cseq(&second) + 1, "there was a third attempt");
    world.survives_with(8, flow, &invite);
}

fn flow_dies_before_the_ack_is_written(over: Over) {
    let (mut world, mut flow) = World::new(over, "");
    let first = world.asked(&mut flow);
    world.answer(&mut flow, &first, "200 OK");
    flow.reset();
    // Whether the server saw the 2xx or the reset first, it comes again and is acknowledged.
    let mut flow = world.connect();
    world.answer(&mut flow, &first, "200 OK");
    let (flow, _) = world.acknowledged(flow, &first);
    world.caller_is_answered();
    world.reinvites(0, 200);
    let (flow, invite) = world.next_request(flow);
    world.survives_with(9, flow, &invite);
}

fn flow_dies_in_the_middle_of_the_ack(over: Over) {
    let (mut world, mut flow) = World::new(over, "");
    // The answer to a delayed offer makes the ACK long.
    world.reinvites(0, 0);
    let first = flow.receive();
    world.answer(&mut flow, &first, "200 OK");
    let ok = world.caller.receive_after("SIP/2.0 1");
    assert!(ok.is("SIP/2.0 200"), "{ok:?}");
    let ack = with_body(&world.calls[0].request("ACK"), LARGE);
    world.caller.send(&ack);
    let mut some = [0; 500];
    flow.stream.read_exact(&mut some).unwrap();
    assert!(some.starts_with(b"ACK "));
    flow.reset();
    sleep(NOTICED);
    let mut flow = world.connect();
    world.answer(&mut flow, &first, "200 OK");
    let (flow, ack) = world.acknowledged(flow, &first);
    assert!(ack.0.len() > LARGE, "{} bytes", ack.0.len());
    world.reinvites(0, 200);
    let (flow, invite) = world.next_request(flow);
    world.survives_with(10, flow, &invite);
}

fn flow_dies_after_the_ack(over: Over) {
    let (mut world, mut flow) = World::new(over, "");
    let first = world.asked(&mut flow);
    world.answer(&mut flow, &first, "200 OK");
    assert!(flow.receive().is("ACK "));
    flow.reset();
    world.caller_is_answered();
    sleep(NOTICED);
    world.reinvites(0, 200);
    let (flow, invite) = world.next_attempt();
    world.survives_with(11, flow, &invite);
}

#[test]
fn flow_dies_during_the_tls_handshake() {
    let (mut world, flow) = World::new(Over::Tls, "");
    flow.reset();
    sleep(NOTICED);
    world.reinvites(0, LARGE);
    let listener = world.listener.as_ref().unwrap();
    listener.set_nonblocking(false).unwrap();
    for bytes in [0, 1, 100] {
        let mut stream = listener.accept().unwrap().0;
        let mut hello = vec![0; bytes];
        stream.read_exact(&mut hello).unwrap();
        Ua::new(stream).reset();
    }
    let (flow, invite) = world.next_attempt();
    assert_eq!(cseq(&invite), 5, "each handshake was an attempt");
    world.survives_with(12, flow, &invite);
}

fn flow_dies_again_during_the_retry(over: Over) {
    let (mut world, mut flow) = World::new(over, "");
    let mut last = world.asked(&mut flow);
    for _ in 0..3 {
        flow.reset();
        let (next, invite) = world.next_attempt();
        assert_eq!(cseq(&invite), cseq(&last) + 1);
        (flow, last) = (next, invite);
    }
    world.survives_with(13, flow, &last);
}

fn flow_dies_for_good(over: Over) {
    let (mut world, mut flow) = World::new(over, "sip-invite-timeout = 2\n");
    world.asked(&mut flow);
    world.listener = None;
    let began = Instant::now();
    flow.reset();
    let refused = world.caller.receive_after("SIP/2.0 1");
    assert!(refused.is("SIP/2.0 408"), "{refused:?}");
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1_700) && took < Duration::from_secs(4), "{took:?}");
    let bye = world.caller.receive();
    assert!(bye.is("BYE ") && bye.header("Reason") == REASON, "{bye:?}");
    world.caller.send(&bye.response("200 OK", "sip:7001@127.0.0.1:9"));
    // The dialog is gone.
    world.calls[0].cseq += 1;
    let info = world.calls[0].request("INFO");
    world.caller.send(&info);
    let gone = world.caller.receive();
    assert!(gone.is("SIP/2.0 481"), "{gone:?}");
    tell(15, over, "released after 2 s (`sip-invite-timeout`)");
}

fn flow_dies_together_with_many_others(over: Over) {
    const CALLS: u32 = 200;
    let (mut world, mut flow) = World::with_calls(over, CALLS, "");
    for call in 0..CALLS as usize {
        world.reinvites(call, 200);
        assert!(flow.receive().is("INVITE "));
    }
    flow.reset();
    let mut flow = world.accept();
    for _ in 0..CALLS {
        let invite = flow.receive_after("ACK ");
        assert!(invite.is("INVITE "), "{invite:?}");
        world.answer(&mut flow, &invite, "200 OK");
    }
    for _ in 0..CALLS {
        let ok = world.caller.receive_after("SIP/2.0 1");
        assert!(ok.is("SIP/2.0 200"), "{ok:?}");
    }
    let listener = world.listener.as_ref().unwrap();
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "more than one connection");
    tell(16, over, "200 calls kept over one connection");
}

/// Each case over TCP, over TLS, and through a proxy.
macro_rules! each_way {
    ($($name:ident),* $(,)?) => {
        mod tcp {
            $(#[test]
            fn $name() {
                super::$name(super::Over::Tcp);
            })*
        }
        mod secured {
            $(#[test]
            fn $name() {
                super::$name(super::Over::Tls);
            })*
        }
        mod behind_the_proxy {
            $(#[test]
            fn $name() {
                super::$name(super::Over::Proxy);
            })*
        }
    };
}

each_way! {
    flow_dies_while_idle,
    connect_is_refused,
    connect_gets_no_answer,
    flow_dies_in_the_middle_of_the_requests_bytes,
    flow_dies_after_the_request_arrived,
    flow_dies_after_100,
    flow_dies_after_180,
    flow_dies_in_the_middle_of_the_responses_bytes,
    a_2xx_that_was_lost_comes_again_over_a_new_connection,
    a_2xx_that_comes_when_the_next_attempt_is_out_is_acknowledged,
    flow_dies_before_the_ack_is_written,
    flow_dies_in_the_middle_of_the_ack,
    flow_dies_after_the_ack,
    flow_dies_again_during_the_retry,
    flow_dies_for_good,
    flow_dies_together_with_many_others,
}

/// A proxy has answered 503 for the older attempt, and passes no 1xx on after that.
mod without_a_proxy {
    use super::{
        Over, a_100_to_an_older_attempt_and_then_the_2xx_to_the_newest_is_success as story,
    };

    #[test]
    fn a_100_to_an_older_attempt_and_then_the_2xx_to_the_newest_is_success() {
        story(Over::Tcp);
    }

    #[test]
    fn the_same_over_tls() {
        story(Over::Tls);
    }
}
