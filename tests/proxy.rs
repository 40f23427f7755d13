//! The proxy role, one sentence each, on one endpoint (RFC 3261 §16; `spec` §9).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast::key::{FlowId, ShardId};
use holdfast::options::{Options, Pair, Role};
use holdfast::sip::{Action, Actions, Endpoint, FlowError, Input, NewFlow};
use holdfast::target::{Target, Transport};
use holdfast::time::Instant;

/// The proxy itself.
const PROXY: &str = "127.0.0.1:5060";
/// A device, and where it listens.
const DEVICE: &str = "127.0.0.7:5070";
/// The members of the pair.
const PRIMARY: &str = "127.0.0.2:5060";
const BACKUP: &str = "127.0.0.3:5060";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

struct Bench {
    endpoint: Endpoint,
    now: Instant,
    connects: Vec<(FlowId, SocketAddr)>,
    sent: Vec<(FlowId, String)>,
}

fn options() -> Options {
    let mut options = Options::default();
    options.role = Role::Proxy;
    options.sent_by = PROXY.to_owned();
    options.sent_by_tls = "127.0.0.1:5061".to_owned();
    let members = [PRIMARY, BACKUP].map(|member| Target::tcp(addr(member))).to_vec();
    options.pairs = vec![Pair { name: "one".to_owned(), members, sources: Vec::new() }];
    options
}

impl Bench {
    fn new() -> Self {
        Self::with(options())
    }

    fn with(options: Options) -> Self {
        let endpoint = Endpoint::new(ShardId(0), [7; 32], Arc::new(options));
        Self { endpoint, now: Instant::ZERO, connects: vec![], sent: vec![] }
    }

    /// A peer connects.
    fn accept(&mut self, peer: &str) -> FlowId {
        self.accept_over(peer, Transport::Tcp)
    }

    fn accept_over(&mut self, peer: &str, transport: Transport) -> FlowId {
        let flow = NewFlow { peer: addr(peer), local: addr(PROXY), transport };
        self.endpoint.accept(self.now, flow).unwrap()
    }

    fn input(&mut self, input: Input<'_>) {
        let mut out = Actions::new();
        self.endpoint.handle(self.now, input, &mut out);
        for action in out.iter() {
            match action {
                Action::Connect { flow, target, .. } => self.connects.push((flow, target.address)),
                Action::Send { bytes: b"\r\n\r\n", .. } => {}
                Action::Send { flow, bytes } => {
                    self.sent.push((flow, String::from_utf8(bytes.to_vec()).unwrap()));
                }
                Action::Close { .. } | Action::Alias { .. } | Action::Emit(_) => {}
            }
        }
    }

    fn receive(&mut self, flow: FlowId, text: &str) {
        let bytes = text.replace('\n', "\r\n");
        self.input(Input::Message { flow, bytes: bytes.as_bytes(), waited: Duration::ZERO });
    }

    /// Opens the connection that was asked for last, which must be to `peer`.
    fn opens(&mut self, peer: &str) -> FlowId {
        let (flow, target) = self.connects.remove(0);
        assert_eq!(target, addr(peer));
        self.input(Input::FlowOpened { flow });
        flow
    }

    fn fails(&mut self, flow: FlowId, error: FlowError) {
        self.input(Input::FlowFailed { flow, error });
    }

    /// The next message that was sent: on this flow, and it begins so.
    fn sends(&mut self, flow: FlowId, start: &str) -> String {
        assert!(!self.sent.is_empty(), "nothing was sent, wanted {start}");
        let (on, text) = self.sent.remove(0);
        assert!(text.starts_with(start), "{text}\ninstead of {start}");
        assert_eq!(on, flow, "{text}");
        text
    }

    fn nothing(&self) {
        assert!(self.sent.is_empty(), "{:?}", self.sent);
        assert!(self.connects.is_empty(), "{:?}", self.connects);
    }

    fn until(&mut self, millis: u64) {
        let end = Instant::from_millis(millis);
        while let Some(due) = self.endpoint.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.input(Input::Timeout);
        }
        self.now = end;
    }

    /// Nothing is left when everything late is over.
    fn is_empty(&mut self) {
        let later = self.now.as_millis() + 70_000;
        self.until(later);
        let stats = self.endpoint.stats();
        assert_eq!((stats.clients, stats.servers, stats.timers), (0, 0, 0), "{stats:?}");
    }

    /// A device calls, and the primary has the INVITE.
    fn called(&mut self) -> (FlowId, FlowId, String) {
        let device = self.accept("127.0.0.7:40000");
        self.receive(device, &from_device("INVITE", "sip:7002@127.0.0.1", ""));
        self.sends(device, "SIP/2.0 100");
        let server = self.opens(PRIMARY);
        let invite = self.sends(server, "INVITE sip:7002@127.0.0.1 SIP/2.0\r\n");
        (device, server, invite)
    }

    /// The server re-INVITEs a device through the proxy, and the device has it.
    fn reinvited(&mut self) -> (FlowId, FlowId, String) {
        let server = self.accept("127.0.0.2:40000");
        self.receive(server, &reinvite());
        self.sends(server, "SIP/2.0 100");
        let device = self.opens(DEVICE);
        let invite = self.sends(device, "INVITE sip:7001@127.0.0.7:5070;transport=tcp SIP/2.0\r\n");
        (server, device, invite)
    }
}

/// A request of the device; `more` are further header lines.
fn from_device(method: &str, uri: &str, more: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\nVia: SIP/2.0/TCP {DEVICE};branch=z9hG4bKd{method}\n\
         From: <sip:7001@d>;tag=d1\nTo: <sip:7002@d>\nCall-ID: call@d\nCSeq: 1 {method}\n\
         Contact: <sip:7001@{DEVICE};transport=tcp>\n{more}Content-Length: 0\n\n"
    )
}

/// A re-INVITE of the server to the device, along the route set that the proxy made.
fn reinvite() -> String {
    format!(
        "INVITE sip:7001@{DEVICE};transport=tcp SIP/2.0\n\
         Via: SIP/2.0/TCP {PRIMARY};branch=z9hG4bKhf\nMax-Forwards: 70\n\
         From: <sip:7002@d>;tag=s1\nTo: <sip:7001@d>;tag=d1\nCall-ID: leg@s\nCSeq: 2 INVITE\n\
         Route: <sip:{PROXY};transport=tcp;lr>\n\
         Contact: <sip:{PRIMARY};transport=tcp>\nContent-Type: application/sdp\nContent-Length: 5\n\nv=0\r\n"
    )
    .replace("v=0\r\n", "v=0\n")
}

fn header<'a>(text: &'a str, name: &'a str) -> &'a str {
    headers(text, name).next().unwrap_or_else(|| panic!("no {name} in {text}"))
}

fn headers<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// A response to what was forwarded.
fn answer(request: &str, status: &str) -> String {
    let vias: String = headers(request, "Via").map(|via| format!("Via: {via}\n")).collect();
    let routes: String =
        headers(request, "Record-Route").map(|it| format!("Record-Route: {it}\n")).collect();
    let to = header(request, "To");
    let tag = if to.contains("tag=") { "" } else { ";tag=b1" };
    format!(
        "SIP/2.0 {status}\n{vias}{routes}From: {}\nTo: {to}{tag}\nCall-ID: {}\nCSeq: {}\n\
         X-Own: as it came\nContent-Length: 0\n\n",
        header(request, "From"),
        header(request, "Call-ID"),
        header(request, "CSeq")
    )
}

#[test]
fn a_call_of_a_device_goes_to_the_pair_with_our_via_and_record_route() {
    let mut bench = Bench::new();
    let (device, server, invite) = bench.called();
    let vias: Vec<_> = headers(&invite, "Via").collect();
    assert_eq!(vias.len(), 2, "{invite}");
    assert!(vias[0].starts_with(&format!("SIP/2.0/TCP {PROXY};branch=z9hG4bKhf")), "{invite}");
    assert!(vias[1].starts_with(&format!("SIP/2.0/TCP {DEVICE};branch=z9hG4bKdINVITE")));
    assert_eq!(header(&invite, "Record-Route"), format!("<sip:{PROXY};transport=tcp;lr>"));
    assert_eq!(header(&invite, "Max-Forwards"), "69");
    bench.receive(server, &answer(&invite, "180 Ringing"));
    let ringing = bench.sends(device, "SIP/2.0 180 Ringing");
    assert_eq!(headers(&ringing, "Via").count(), 1);
    assert_eq!(header(&ringing, "X-Own"), "as it came");
    bench.receive(server, &answer(&invite, "200 OK"));
    let ok = bench.sends(device, "SIP/2.0 200 OK");
    assert_eq!(header(&ok, "Record-Route"), format!("<sip:{PROXY};transport=tcp;lr>"));
    // A 2xx that comes again is passed on again: its ACK goes from end to end.
    bench.receive(server, &answer(&invite, "200 OK"));
    bench.sends(device, "SIP/2.0 200 OK");
    let ack = from_device("ACK", &format!("sip:{PRIMARY};transport=tcp"), "").replace(
        "To: <sip:7002@d>",
        &format!("Route: <sip:{PROXY};transport=tcp;lr>\nTo: <sip:7002@d>;tag=b1"),
    );
    bench.receive(device, &ack);
    let ack = bench.sends(server, &format!("ACK sip:{PRIMARY};transport=tcp SIP/2.0"));
    assert_eq!(headers(&ack, "Route").count(), 0, "{ack}");
    assert_eq!(headers(&ack, "Record-Route").count(), 0, "{ack}");
    bench.nothing();
    bench.is_empty();
}

#[test]
fn a_request_in_a_dialog_follows_its_routes_and_everything_else_stays_as_it_came() {
    let mut bench = Bench::new();
    let (server, device, invite) = bench.reinvited();
    assert!(invite.ends_with("Content-Length: 5\r\n\r\nv=0\r\n"), "{invite}");
    assert_eq!(headers(&invite, "Route").count(), 0);
    assert_eq!(headers(&invite, "Record-Route").count(), 0, "the dialog has its routes");
    assert_eq!(header(&invite, "Contact"), format!("<sip:{PRIMARY};transport=tcp>"));
    bench.receive(device, &answer(&invite, "488 Not Acceptable Here"));
    bench.sends(device, "ACK sip:7001@127.0.0.7:5070;transport=tcp");
    bench.sends(server, "SIP/2.0 488 Not Acceptable Here");
    bench.receive(server, &reinvite().replace("INVITE", "ACK"));
    bench.nothing();
    bench.is_empty();
}

#[test]
fn routes_behind_ours_are_followed_and_a_strict_router_gets_its_own() {
    for (lr, uri, route) in [
        (";lr", "sip:7001@127.0.0.7:5070;transport=tcp", "<sip:127.0.0.8:5060;transport=tcp;lr>"),
        ("", "sip:127.0.0.8:5060;transport=tcp", "<sip:7001@127.0.0.7:5070;transport=tcp>"),
    ] {
        let mut bench = Bench::new();
        let server = bench.accept("127.0.0.2:40000");
        let next = format!(
            "Route: <sip:{PROXY};transport=tcp;lr>, <sip:127.0.0.8:5060;transport=tcp{lr}>"
        );
        let text = reinvite().replace(&format!("Route: <sip:{PROXY};transport=tcp;lr>"), &next);
        bench.receive(server, &text);
        bench.sends(server, "SIP/2.0 100");
        let hop = bench.opens("127.0.0.8:5060");
        let invite = bench.sends(hop, &format!("INVITE {uri} SIP/2.0\r\n"));
        assert_eq!(headers(&invite, "Route").collect::<Vec<_>>(), [route], "{invite}");
    }
}

#[test]
fn what_a_strict_router_made_of_a_request_is_put_right() {
    let mut bench = Bench::new();
    let server = bench.accept("127.0.0.2:40000");
    let text = reinvite()
        .replace(
            &format!("Route: <sip:{PROXY};transport=tcp;lr>"),
            &format!("Route: <sip:7001@{DEVICE};transport=tcp>"),
        )
        .replace(
            &format!("INVITE sip:7001@{DEVICE};transport=tcp SIP"),
            &format!("INVITE sip:{PROXY};transport=tcp;lr SIP"),
        );
    bench.receive(server, &text);
    bench.sends(server, "SIP/2.0 100");
    let device = bench.opens(DEVICE);
    let invite = bench.sends(device, "INVITE sip:7001@127.0.0.7:5070;transport=tcp SIP/2.0\r\n");
    assert_eq!(headers(&invite, "Route").count(), 0);
}

#[test]
fn two_transports_make_two_record_routes() {
    let mut bench = Bench::new();
    let device = bench.accept_over("127.0.0.7:40000", Transport::Tls);
    bench.receive(device, &from_device("INVITE", "sip:7002@127.0.0.1", ""));
    bench.sends(device, "SIP/2.0 100");
    let server = bench.opens(PRIMARY);
    let invite = bench.sends(server, "INVITE ");
    let routes: Vec<_> = headers(&invite, "Record-Route").collect();
    assert_eq!(
        routes,
        ["<sip:127.0.0.1:5060;transport=tcp;lr>", "<sip:127.0.0.1:5061;transport=tls;lr>"],
        "the side of the next hop first (RFC 5658 §4)"
    );
}

#[test]
fn a_flow_that_is_lost_is_503_with_error_info_in_the_same_turn_and_nothing_is_left() {
    for (rings, error) in
        [(false, FlowError::Reset), (true, FlowError::Closed), (false, FlowError::Silent)]
    {
        let mut bench = Bench::new();
        let (server, device, invite) = bench.reinvited();
        if rings {
            bench.receive(device, &answer(&invite, "180 Ringing"));
            bench.sends(server, "SIP/2.0 180");
        }
        bench.fails(device, error);
        let refused = bench.sends(server, "SIP/2.0 503 Service Unavailable");
        assert_eq!(header(&refused, "Error-Info"), "<transport-error>");
        assert_eq!(header(&refused, "Reason"), "SIP;cause=503;text=\"transport-error\"");
        assert_eq!(headers(&refused, "Via").count(), 1);
        bench.receive(server, &reinvite().replace("INVITE", "ACK"));
        bench.until(5_000);
        bench.nothing();
        bench.is_empty();
    }
}

#[test]
fn a_connection_that_cannot_be_opened_is_503_with_error_info() {
    let mut bench = Bench::new();
    let server = bench.accept("127.0.0.2:40000");
    bench.receive(server, &reinvite());
    bench.sends(server, "SIP/2.0 100");
    let (flow, _) = bench.connects.remove(0);
    bench.sent.clear();
    bench.fails(flow, FlowError::Refused);
    let refused = bench.sends(server, "SIP/2.0 503 ");
    assert_eq!(header(&refused, "Error-Info"), "<transport-error>");
}

#[test]
fn every_other_request_gets_one_new_connection_and_then_503() {
    for method in ["BYE", "INFO", "UPDATE", "NOTIFY", "REFER"] {
        let mut bench = Bench::new();
        let server = bench.accept("127.0.0.2:40000");
        bench.receive(server, &reinvite().replace("INVITE", method));
        let device = bench.opens(DEVICE);
        bench.sends(device, method);
        bench.fails(device, FlowError::Reset);
        let (flow, _) = bench.connects.remove(0);
        bench.sends(flow, method);
        bench.fails(flow, FlowError::Refused);
        let refused = bench.sends(server, "SIP/2.0 503 ");
        assert_eq!(header(&refused, "Error-Info"), "<transport-error>", "{method}");
        bench.is_empty();
    }
}

#[test]
fn the_late_2xx_of_a_request_that_was_given_up_is_passed_back() {
    let mut bench = Bench::new();
    let (server, device, invite) = bench.reinvited();
    bench.fails(device, FlowError::Reset);
    bench.sends(server, "SIP/2.0 503 ");
    bench.receive(server, &reinvite().replace("INVITE", "ACK"));
    let again = bench.accept("127.0.0.7:40001");
    bench.receive(again, &answer(&invite, "180 Ringing"));
    bench.nothing();
    bench.receive(again, &answer(&invite, "200 OK"));
    // To where the server listens: its Via says so.
    let (flow, target) = bench.connects.remove(0);
    assert_eq!(target, addr(PRIMARY));
    let ok = bench.sends(flow, "SIP/2.0 200 OK");
    assert_eq!(headers(&ok, "Via").count(), 1);
    // The ACK got lost, as the next one may.
    bench.receive(again, &answer(&invite, "200 OK"));
    assert_eq!(bench.sends(flow, "SIP/2.0 200 OK"), ok);
    // A device has no say in where to.
    let via = format!("Via: {}", headers(&invite, "Via").nth(1).unwrap());
    let other =
        answer(&invite, "200 OK").replace(&via, "Via: SIP/2.0/TCP 127.0.0.99:9;branch=z9hG4bKx");
    assert!(other.contains("127.0.0.99"));
    bench.receive(again, &other);
    bench.sends(flow, "SIP/2.0 200 OK");
    bench.is_empty();
}

#[test]
fn when_the_primary_is_lost_the_backup_gets_the_call() {
    let mut bench = Bench::new();
    let device = bench.accept("127.0.0.7:40000");
    bench.receive(device, &from_device("INVITE", "sip:7002@127.0.0.1", ""));
    bench.sends(device, "SIP/2.0 100");
    let (primary, _) = bench.connects.remove(0);
    let first = bench.sends(primary, "INVITE ");
    bench.fails(primary, FlowError::Refused);
    let backup = bench.opens(BACKUP);
    let second = bench.sends(backup, "INVITE sip:7002@127.0.0.1 ");
    let branch = |text: &str| header(text, "Via").to_owned();
    assert_ne!(branch(&first), branch(&second));
    assert_eq!(headers(&second, "Via").nth(1), headers(&first, "Via").nth(1));
    assert_eq!(header(&second, "Record-Route"), header(&first, "Record-Route"));
    // And when that is lost as well, nobody is left.
    bench.fails(backup, FlowError::Reset);
    let refused = bench.sends(device, "SIP/2.0 503 ");
    assert_eq!(header(&refused, "Error-Info"), "<transport-error>");
    bench.receive(device, &from_device("ACK", "sip:7002@127.0.0.1", "").replace("dACK", "dINVITE"));
    bench.is_empty();
}

#[test]
fn a_503_of_the_primary_sends_the_call_to_the_backup_and_any_other_answer_is_passed_back() {
    let mut bench = Bench::new();
    let (device, server, invite) = bench.called();
    bench.receive(server, &answer(&invite, "503 Service Unavailable"));
    bench.sends(server, "ACK ");
    let backup = bench.opens(BACKUP);
    let invite = bench.sends(backup, "INVITE ");
    bench.receive(backup, &answer(&invite, "486 Busy Here"));
    bench.sends(backup, "ACK ");
    bench.sends(device, "SIP/2.0 486 Busy Here");
    bench.nothing();
}

#[test]
fn a_request_in_a_dialog_goes_to_the_other_member_when_its_own_is_lost() {
    let mut bench = Bench::new();
    let device = bench.accept("127.0.0.7:40000");
    let bye = from_device("BYE", &format!("sip:{BACKUP};transport=tcp"), "").replace(
        "To: <sip:7002@d>",
        &format!("Route: <sip:{PROXY};transport=tcp;lr>\nTo: <sip:7002@d>;tag=b1"),
    );
    bench.receive(device, &bye);
    let (flow, target) = bench.connects.remove(0);
    assert_eq!(target, addr(BACKUP), "its own first");
    bench.sends(flow, "BYE ");
    bench.fails(flow, FlowError::Refused);
    let primary = bench.opens(PRIMARY);
    bench.sends(primary, "BYE ");
}

#[test]
fn a_cancel_is_answered_here_and_goes_on_by_its_own_branch() {
    let mut bench = Bench::new();
    let (device, server, invite) = bench.called();
    bench.receive(server, &answer(&invite, "180 Ringing"));
    bench.sends(device, "SIP/2.0 180");
    let cancel = from_device("CANCEL", "sip:7002@127.0.0.1", "").replace("dCANCEL", "dINVITE");
    bench.receive(device, &cancel);
    bench.sends(device, "SIP/2.0 200");
    let cancel = bench.sends(server, "CANCEL sip:7002@127.0.0.1");
    assert_eq!(header(&cancel, "Via"), header(&invite, "Via"));
    bench.receive(server, &answer(&invite, "487 Request Terminated"));
    bench.sends(server, "ACK ");
    bench.sends(device, "SIP/2.0 487");
    bench.receive(device, &from_device("ACK", "sip:7002@127.0.0.1", "").replace("dACK", "dINVITE"));
    bench.is_empty();
}

#[test]
fn a_cancelled_request_whose_flow_is_lost_is_487_and_tries_nobody_else() {
    let mut bench = Bench::new();
    let (device, server, _) = bench.called();
    let cancel = from_device("CANCEL", "sip:7002@127.0.0.1", "").replace("dCANCEL", "dINVITE");
    bench.receive(device, &cancel);
    bench.sends(device, "SIP/2.0 200");
    bench.fails(server, FlowError::Reset);
    bench.sends(device, "SIP/2.0 487");
    bench.nothing();
}

#[test]
fn a_cancel_of_nothing_is_481() {
    let mut bench = Bench::new();
    let device = bench.accept("127.0.0.7:40000");
    bench.receive(device, &from_device("CANCEL", "sip:7002@127.0.0.1", ""));
    bench.sends(device, "SIP/2.0 481");
    bench.is_empty();
}

#[test]
fn a_request_that_came_round_unchanged_is_482_and_one_that_changed_goes_on() {
    let mut bench = Bench::new();
    let (_, server, invite) = bench.called();
    let _ = server;
    let back = bench.accept("127.0.0.2:40001");
    let looped = invite.replace("\r\n", "\n");
    bench.receive(
        back,
        &format!(
            "{}\nVia: SIP/2.0/TCP {PRIMARY};branch=z9hG4bKx\n{}",
            looped.split_once('\n').unwrap().0,
            looped.split_once('\n').unwrap().1
        ),
    );
    bench.sends(back, "SIP/2.0 482 Loop Detected");
    let spiral =
        looped.replace("sip:7002@127.0.0.1 SIP", &format!("sip:7001@{DEVICE};transport=tcp SIP"));
    bench.receive(
        back,
        &format!(
            "{}\nVia: SIP/2.0/TCP {PRIMARY};branch=z9hG4bKy\n{}",
            spiral.split_once('\n').unwrap().0,
            spiral.split_once('\n').unwrap().1
        ),
    );
    bench.sends(back, "SIP/2.0 100");
    bench.opens(DEVICE);
}

#[test]
fn a_request_without_hops_left_is_483_and_one_that_requires_what_we_do_not_know_420() {
    let mut bench = Bench::new();
    let device = bench.accept("127.0.0.7:40000");
    bench.receive(device, &from_device("INVITE", "sip:7002@127.0.0.1", "Max-Forwards: 0\n"));
    bench.sends(device, "SIP/2.0 483");
    let text = from_device("INFO", "sip:7002@127.0.0.1", "Proxy-Require: foo, bar\n");
    bench.receive(device, &text);
    let refused = bench.sends(device, "SIP/2.0 420");
    assert_eq!(headers(&refused, "Unsupported").collect::<Vec<_>>(), ["foo", "bar"]);
    bench.nothing();
}

#[test]
fn a_stranger_reaches_the_pair_and_nobody_else() {
    let mut bench = Bench::new();
    let stranger = bench.accept("127.0.0.66:40000");
    let mut server = None;
    for uri in ["sip:7001@127.0.0.99:5070", "sip:7001@phone.example"] {
        let text = from_device("INVITE", uri, "").replace("call@d", uri);
        bench.receive(stranger, &text.replace("z9hG4bKd", &format!("z9hG4bK{}", uri.len())));
        bench.sends(stranger, "SIP/2.0 100");
        let flow = *server.get_or_insert_with(|| bench.opens(PRIMARY));
        bench.sends(flow, &format!("INVITE {uri} "));
    }
    let routed = from_device("INFO", "sip:x@127.0.0.1", "Route: <sip:127.0.0.99;lr>\n");
    bench.receive(stranger, &routed);
    bench.sends(stranger, "SIP/2.0 403");
    let in_dialog = from_device("BYE", "sip:x@127.0.0.99", "")
        .replace("To: <sip:7002@d>", "To: <sip:7002@d>;tag=x");
    bench.receive(stranger, &in_dialog);
    bench.sends(stranger, "SIP/2.0 403");
    bench.nothing();
}

#[test]
fn what_has_no_address_or_a_strange_scheme_is_refused() {
    let mut bench = Bench::new();
    let server = bench.accept("127.0.0.2:40000");
    for (uri, status) in [("sip:7001@phone.example", 404), ("tel:7001", 416)] {
        let text = reinvite()
            .replace(&format!("sip:7001@{DEVICE};transport=tcp"), uri)
            .replace("bKhf", &format!("bK{status}"));
        bench.receive(server, &text);
        bench.sends(server, &format!("SIP/2.0 {status}"));
    }
    bench.nothing();
}

#[test]
fn options_for_the_proxy_itself_are_answered_and_for_a_user_forwarded() {
    let mut bench = Bench::new();
    let device = bench.accept("127.0.0.7:40000");
    bench.receive(device, &from_device("OPTIONS", "sip:127.0.0.1:5060", "Max-Forwards: 0\n"));
    bench.sends(device, "SIP/2.0 200");
    bench.receive(
        device,
        &from_device("OPTIONS", "sip:7002@127.0.0.1:5060", "").replace("dOPTIONS", "d2"),
    );
    let server = bench.opens(PRIMARY);
    bench.sends(server, "OPTIONS sip:7002@127.0.0.1:5060 ");
}

#[test]
fn a_request_that_nobody_answers_is_408_after_timer_b_and_nothing_after_timer_f() {
    let mut bench = Bench::new();
    let (device, _, _) = bench.called();
    bench.until(31_999);
    bench.nothing();
    bench.until(32_001);
    bench.sends(device, "SIP/2.0 408");
    bench.receive(device, &from_device("ACK", "sip:7002@127.0.0.1", "").replace("dACK", "dINVITE"));
    bench.receive(device, &from_device("INFO", "sip:7002@127.0.0.1", ""));
    bench.sent.clear();
    bench.is_empty();
    bench.nothing();
}

#[test]
fn members_that_do_not_answer_are_passed_over_until_they_do() {
    let mut options = options();
    options.oos_check = Duration::from_secs(10);
    options.oos_force = Duration::from_secs(2);
    let mut bench = Bench::with(options);
    bench.until(10_000);
    let (primary, target) = bench.connects.remove(0);
    assert_eq!(target, addr(PRIMARY));
    let backup = bench.opens(BACKUP);
    bench.sends(primary, "OPTIONS sip:127.0.0.2:5060;transport=tcp ");
    let probe = bench.sends(backup, "OPTIONS sip:127.0.0.3:5060;transport=tcp ");
    bench.receive(backup, &answer(&probe, "404 Not Found"));
    bench.fails(primary, FlowError::Refused);
    // Out of service: the call goes to the backup at once.
    let device = bench.accept("127.0.0.7:40000");
    bench.receive(device, &from_device("INVITE", "sip:7002@127.0.0.1", ""));
    bench.sends(device, "SIP/2.0 100");
    bench.sends(backup, "INVITE ");
    bench.nothing();
    // Any answer puts it back.
    bench.until(20_000);
    let primary = bench.opens(PRIMARY);
    let probe = bench.sends(primary, "OPTIONS ");
    bench.sends(backup, "OPTIONS ");
    bench.receive(primary, &answer(&probe, "200 OK"));
    let text = from_device("INVITE", "sip:7003@127.0.0.1", "").replace("bKd", "bKe");
    bench.receive(device, &text);
    bench.sends(device, "SIP/2.0 100");
    bench.sends(primary, "INVITE sip:7003@127.0.0.1 ");
    // One that says nothing is out after oos-force.
    bench.until(22_500);
    let text = from_device("INVITE", "sip:7004@127.0.0.1", "").replace("bKd", "bKf");
    bench.receive(device, &text);
    bench.sends(device, "SIP/2.0 100");
    bench.sends(primary, "INVITE sip:7004@127.0.0.1 ");
}

#[test]
fn when_all_members_are_out_of_service_they_are_tried_all_the_same() {
    let mut options = options();
    options.oos_check = Duration::from_secs(10);
    options.oos_force = Duration::from_secs(2);
    let mut bench = Bench::with(options);
    bench.until(10_000);
    for _ in 0..2 {
        let (flow, _) = bench.connects.remove(0);
        bench.fails(flow, FlowError::Refused);
    }
    bench.sent.clear();
    bench.called();
}

#[test]
fn a_drain_takes_no_new_calls_and_lets_what_is_under_way_end() {
    let mut bench = Bench::new();
    let (device, server, invite) = bench.called();
    let deadline = Instant::from_millis(60_000);
    bench.input(Input::Drain { deadline });
    assert!(!bench.endpoint.is_drained());
    bench.receive(device, &from_device("INVITE", "sip:7003@127.0.0.1", "").replace("bKd", "bKe"));
    let refused = bench.sends(device, "SIP/2.0 503");
    assert_eq!(header(&refused, "Retry-After"), "5");
    bench.receive(server, &answer(&invite, "200 OK"));
    bench.sends(device, "SIP/2.0 200");
    assert!(bench.endpoint.is_drained());
}

#[test]
fn a_request_too_large_for_a_datagram_goes_over_tcp_and_else_as_a_datagram_after_all() {
    let mut bench = Bench::new();
    let server = bench.accept("127.0.0.2:40000");
    let large = format!("X-Large: {}\nContact:", "x".repeat(1300));
    let invite = reinvite()
        .replacen(&format!("{DEVICE};transport=tcp"), &format!("{DEVICE};transport=udp"), 1)
        .replacen("Contact:", &large, 1);
    bench.receive(server, &invite);
    bench.sends(server, "SIP/2.0 100");
    // RFC 3261 §18.1.1: over TCP, which its Via says too.
    let (tcp, target) = bench.connects.remove(0);
    assert_eq!(target, addr(DEVICE));
    let first = bench.sends(tcp, "INVITE ");
    assert!(header(&first, "Via").starts_with("SIP/2.0/TCP "), "{first}");
    bench.fails(tcp, FlowError::Refused);
    let (udp, target) = bench.connects.remove(0);
    assert_eq!(target, addr(DEVICE));
    let second = bench.sends(udp, "INVITE ");
    assert_eq!(first.replacen("/TCP", "/UDP", 1), second);
    bench.receive(udp, &answer(&second, "200 OK"));
    bench.sends(server, "SIP/2.0 200 OK");
}
