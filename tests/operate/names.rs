//! Devices that are reached by a name, with a DNS server that says what it is told to.

use std::net::UdpSocket;

use super::dns::{A, Dns, NAPTR, SRV};
use super::tls::{self, Authority, Files, Validity};
use super::ua::Message;
use super::*;

/// An answer is kept at least so long.
const TTL_MIN: Duration = Duration::from_secs(5);

/// Where a device listens.
struct Callee {
    listener: TcpListener,
    port: u16,
}

impl Callee {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    fn accept(&self) -> Ua {
        let deadline = Instant::now() + PATIENCE;
        self.listener.set_nonblocking(true).unwrap();
        loop {
            if let Ok((stream, _)) = self.listener.accept() {
                stream.set_nonblocking(false).unwrap();
                return Ua::new(stream);
            }
            assert!(Instant::now() < deadline, "nobody connects to {}", self.port);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// As the device names itself.
    fn contact(&self) -> String {
        format!("sip:127.0.0.1:{};transport=tcp", self.port)
    }

    /// True when nobody waits for [`accept`](Self::accept).
    fn is_idle(&self) -> bool {
        self.listener.set_nonblocking(true).unwrap();
        self.listener.accept().is_err()
    }
}

fn devices(dns: &Dns, contacts: &[(&str, &str)]) -> String {
    let devices: String = contacts
        .iter()
        .map(|(dn, contact)| {
            format!("[[device]]\ndn = \"{dn}\"\ntype = \"Extension\"\ncontact = \"{contact}\"\n")
        })
        .collect();
    format!("[dns]\nservers = [\"{}\"]\ntimeout = 1\n{devices}", dns.address)
}

fn world(dns: &Dns, contacts: &[(&str, &str)]) -> World {
    let more = devices(dns, contacts);
    World::new(says(&more)).0
}

fn says(more: &str) -> Says<'_> {
    Says { delay: 500, device: None, window: 20, more }
}

fn invite(dn: &str, number: u32) -> String {
    request("INVITE", number, 1, None).replace("7002", dn)
}

impl World {
    /// What the caller hears when it calls `dn` and nobody is there.
    fn refusal(&mut self, dn: &str, number: u32) -> String {
        self.caller.send(&invite(dn, number));
        let answer = self.caller.receive_after("SIP/2.0 100");
        self.caller.send(
            &request("ACK", number, 1, Some(("sip:7002@127.0.0.1", answer.header("To"))))
                .replace("x1001", "x1"),
        );
        answer.0.lines().next().unwrap().to_owned()
    }

    /// Calls `dn`, whose INVITE comes over a new connection.
    fn call_at(&mut self, dn: &str, number: u32, callee: &Callee) -> (Call, Ua, String) {
        self.caller.send(&invite(dn, number));
        let mut ua = callee.accept();
        let (call, invite) = Call::accepted(number, &mut self.caller, &mut ua, &callee.contact());
        let uri = invite.0.split(' ').nth(1).unwrap().to_owned();
        (call, ua, uri)
    }
}

#[test]
fn a_call_goes_to_the_target_that_naptr_and_srv_name_and_to_the_next_when_it_is_refused() {
    let (first, second, dns) = (Callee::new(), Callee::new(), Dns::new());
    dns.naptr("pbx.example", 20, "SIP+D2U", "_sip._udp.pbx.example")
        .naptr("pbx.example", 10, "SIP+D2T", "_sip._tcp.east.example")
        .srv("_sip._tcp.east.example", 3600, 20, ("b.example", second.port))
        .srv("_sip._tcp.east.example", 3600, 10, ("a.example", first.port))
        .a("a.example", 3600, [127, 0, 0, 1])
        .a("b.example", 3600, [127, 0, 0, 1]);
    let mut world = world(&dns, &[("7010", "sip:pbx.example")]);
    let (call, mut ua, uri) = world.call_at("7010", 1, &first);
    assert_eq!(uri, "sip:7010@pbx.example", "the name stays in the Request-URI");
    world.end(&call, 2, &mut ua);
    drop((first, ua));
    world.wait_until("holdfast_flows{", 1);
    let (call, mut ua, uri) = world.call_at("7010", 2, &second);
    assert_eq!(uri, "sip:7010@pbx.example");
    world.end(&call, 2, &mut ua);
    assert_eq!(world.metric("holdfast_dns_lookups_total{result=\"answered\"}"), 1);
    assert_eq!(dns.count("pbx.example", NAPTR), 1, "the answer is kept");
}

#[test]
fn calls_from_any_address_of_a_name_are_the_devices() {
    let dns = Dns::new();
    dns.a("phone.example", 3600, [127, 0, 0, 77]).a("phone.example", 3600, [127, 0, 0, 78]);
    let mut world = world(&dns, &[("7010", "sip:phone.example:5070")]);
    for (number, host) in [(1, [127, 0, 0, 78]), (2, [127, 0, 0, 79])] {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&SocketAddr::from((host, 0)).into()).unwrap();
        socket.connect(&world.server.address.into()).unwrap();
        world.caller = Ua::new(socket.into());
        let status = world.refusal("7777", number);
        let expected = if number == 1 { "SIP/2.0 404" } else { "SIP/2.0 403" };
        assert!(status.starts_with(expected), "{status}");
    }
}

#[test]
fn a_new_answer_moves_new_calls_and_leaves_the_running_one() {
    let (old, new, dns) = (Callee::new(), Callee::new(), Dns::new());
    let service = "_sip._tcp.pbx.example";
    dns.srv(service, 1, 1, ("a.example", old.port)).a("a.example", 3600, [127, 0, 0, 1]);
    let mut world = world(&dns, &[("7010", "sip:pbx.example;transport=tcp")]);
    let (call, mut ua, _) = world.call_at("7010", 1, &old);
    let began = Instant::now();
    dns.forget(service, SRV).srv(service, 1, 1, ("a.example", new.port));
    let line = world.server.wait_for("pbx.example (device 7010) is at");
    assert!(line.contains(&format!("tcp:127.0.0.1:{}", new.port)), "{line}");
    assert!(began.elapsed() > TTL_MIN / 2, "a TTL of 1 s has a floor");
    let deadline = Instant::now() + PATIENCE;
    let (second, mut second_ua, _) = loop {
        // The line is written just before the shards are told.
        if began.elapsed() > TTL_MIN + Duration::from_secs(2) {
            break world.call_at("7010", 2, &new);
        }
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(50));
    };
    // The first call is where it was, over its old connection and over a new one.
    world.caller.send(&call.request("INFO", 2));
    let info = ua.receive();
    assert!(info.is("INFO "), "{info:?}");
    ua.send(&info.response("200 OK", &old.contact()));
    assert!(world.caller.receive().is("SIP/2.0 200"));
    ua.reset();
    world.wait_until("holdfast_flows{", 2);
    world.caller.send(&call.request("BYE", 3));
    let mut ua = old.accept();
    let bye = ua.receive();
    assert!(bye.is("BYE "), "{bye:?}");
    ua.send(&bye.response("200 OK", &old.contact()));
    assert!(world.caller.receive().is("SIP/2.0 200"));
    world.end(&second, 2, &mut second_ua);
    assert!(new.is_idle());
}

#[test]
fn a_device_without_an_answer_is_kept_and_called_when_there_is_one() {
    let (callee, dns) = (Callee::new(), Dns::new());
    dns.silence("pbx.example", A);
    let more = devices(&dns, &[("7010", "sip:pbx.example:5070"), ("7011", "sip:late.example")]);
    let began = Instant::now();
    let (mut world, listener) = World::new(says(&more));
    assert!(began.elapsed() < Duration::from_secs(5), "the start does not wait for DNS");
    assert!(world.refusal("7010", 1).starts_with("SIP/2.0 503"));
    assert!(world.refusal("7011", 2).starts_with("SIP/2.0 503"));
    assert_eq!(world.metric("holdfast_dns_names_unknown"), 2);
    // Others are called as ever.
    let mut other = None;
    let call = world.call(3, &listener, &mut other);
    world.end(&call, 2, &mut other.unwrap());
    dns.srv("_sip._tcp.late.example", 60, 1, ("a.example", callee.port));
    dns.a("a.example", 60, [127, 0, 0, 1]);
    let line = world.server.wait_for("late.example (device 7011) is at tcp:127.0.0.1");
    assert!(line.contains("INFO"), "{line}");
    world.wait_until("holdfast_dns_names_unknown", 1);
    thread::sleep(Duration::from_millis(1200));
    let (call, mut ua, _) = world.call_at("7011", 4, &callee);
    world.end(&call, 2, &mut ua);
}

#[test]
fn what_was_not_found_or_left_out_is_told_with_its_device_and_its_reason() {
    let dns = Dns::new();
    dns.refuse("refused.example", A, 5);
    let service = "_sip._tcp.odd.example";
    dns.srv(service, 60, 1, ("a.example", 0)).srv(service, 60, 1, ("a.example", 9));
    dns.a("a.example", 60, [127, 0, 0, 1]).garbage("garbage.example", A);
    let more = devices(
        &dns,
        &[
            ("7014", "sip:garbage.example:5070"),
            ("7010", "sip:refused.example:5070"),
            ("7011", "sip:none.example"),
            ("7012", "sip:odd.example"),
            ("7013", "sip:odd.example"),
        ],
    );
    let (address, metrics) = (free_address(), free_address());
    let whole = Some(text(says(&more), address, metrics, free_address()));
    let server = Server::spawn(&Setup { address, whole, ..Setup::default() });
    let mut told = Vec::new();
    while !told.last().is_some_and(|line: &String| line.contains("listening on")) {
        told.push(server.wait_for(""));
    }
    for expected in [
        "none.example (device 7011) was not found: none.example has no address; it cannot be called, \
         and DNS is asked again every 5 s",
        "refused.example (device 7010) was not found: A refused.example: ",
        "odd.example (devices 7012, 7013): left out of the answer: 1 SRV records with port 0",
        "odd.example (devices 7012, 7013) is at tcp:127.0.0.1:9",
    ] {
        assert_eq!(told.iter().filter(|line| line.contains(expected)).count(), 1, "{told:#?}");
    }
    assert!(!told.iter().any(|line| line.contains("hickory")), "{told:#?}");
}

#[test]
fn the_last_answer_stays_when_dns_fails_and_that_is_told_once() {
    let (callee, dns) = (Callee::new(), Dns::new());
    let service = "_sip._tcp.pbx.example";
    dns.srv(service, 1, 1, ("a.example", callee.port)).a("a.example", 1, [127, 0, 0, 1]);
    let mut world = world(&dns, &[("7010", "sip:pbx.example;transport=tcp")]);
    dns.refuse(service, SRV, 2);
    let line = world.server.wait_for("was not found");
    assert!(line.contains("its last answer stays in force"), "{line}");
    let (call, mut ua, _) = world.call_at("7010", 1, &callee);
    world.end(&call, 2, &mut ua);
    let asked = dns.count(service, SRV);
    thread::sleep(TTL_MIN + Duration::from_secs(1));
    assert!(dns.count(service, SRV) > asked, "it is asked again");
    assert!(!world.server.lines().iter().any(|line| line.contains("was not found")));
    dns.forget(service, SRV).srv(service, 1, 1, ("a.example", callee.port));
    world.server.wait_for("pbx.example (device 7010) is at");
}

#[test]
fn absurd_answers_harm_nobody() {
    let (callee, dns) = (Callee::new(), Dns::new());
    let port = callee.port;
    let hosts = ["many", "port0", "root", "garbage", "cut", "loop", "nobody", "silent"];
    let numbered = || hosts.iter().enumerate();
    dns.srv("_sip._tcp.good.example", 60, 1, ("a.example", port)).a(
        "a.example",
        60,
        [127, 0, 0, 1],
    );
    for _ in 0..10_000 {
        dns.srv("_sip._tcp.many.example", 60, 1, ("a.example", port));
    }
    dns.srv("_sip._tcp.port0.example", 60, 1, ("a.example", 0));
    dns.srv("_sip._tcp.root.example", 60, 1, ("", port));
    dns.garbage("_sip._tcp.garbage.example", SRV).truncated("_sip._tcp.cut.example", SRV);
    dns.srv("_sip._tcp.loop.example", 60, 1, ("one.example", port));
    dns.alias("one.example", A, "two.example").alias("two.example", A, "one.example");
    dns.srv("_sip._tcp.nobody.example", 60, 1, ("zero.example", port));
    dns.a("zero.example", 60, [0, 0, 0, 0]);
    dns.silence("_sip._tcp.silent.example", SRV);
    let names: Vec<_> = numbered()
        .map(|(index, host)| (format!("702{index}"), format!("sip:{host}.example;transport=tcp")))
        .collect();
    let mut contacts: Vec<_> =
        names.iter().map(|(dn, contact)| (dn.as_str(), contact.as_str())).collect();
    contacts.push(("7010", "sip:good.example;transport=tcp"));
    let mut world = world(&dns, &contacts);
    assert_eq!(world.metric("holdfast_dns_answers_cut_total"), 1, "of many.example");
    for (index, host) in numbered().skip(1) {
        let status = world.refusal(&format!("702{index}"), 100 + index as u32);
        assert!(status.starts_with("SIP/2.0 503"), "{host}: {status}");
    }
    for (number, dn) in (1..).zip(["7010", "7020"]) {
        let (call, mut ua, _) = world.call_at(dn, number, &callee);
        world.end(&call, 2, &mut ua);
        ua.reset();
        world.wait_until("holdfast_flows{", 1);
    }
}

#[test]
fn another_dns_server_is_asked_at_once_and_a_new_device_is_looked_up() {
    let (one, two) = (Callee::new(), Callee::new());
    let (dns, other) = (Dns::new(), Dns::new());
    for (dns, port) in [(&dns, one.port), (&other, two.port)] {
        dns.srv("_sip._tcp.pbx.example", 3600, 1, ("a.example", port));
        dns.a("a.example", 3600, [127, 0, 0, 1]);
    }
    let contact = "sip:pbx.example;transport=tcp";
    let mut world = world(&dns, &[("7010", contact)]);
    let (first, mut first_ua, _) = world.call_at("7010", 1, &one);
    world.configure(says(&devices(&other, &[("7010", contact), ("7011", "sip:a.example:9")])));
    world.server.wait_for(&format!("tcp:127.0.0.1:{}", two.port));
    thread::sleep(Duration::from_millis(1200));
    let (second, mut second_ua, _) = world.call_at("7010", 2, &two);
    assert!(world.refusal("7011", 3).starts_with("SIP/2.0 503"), "nobody listens there");
    assert!(other.count("a.example", A) >= 1);
    world.end(&first, 2, &mut first_ua);
    world.end(&second, 2, &mut second_ua);
}

/// One device more, and what stands in its section beside its number.
fn device(dns: &Dns, dn: &str, more: &str) -> String {
    let device = format!("[[device]]\ndn = \"{dn}\"\ntype = \"Extension\"\n{more}\n");
    format!("[dns]\nservers = [\"{}\"]\ntimeout = 1\n{device}", dns.address)
}

#[test]
fn a_proxy_is_found_by_its_name_and_nobody_is_called_past_it() {
    let (proxy, phone, dns) = (Callee::new(), Callee::new(), Dns::new());
    let contact = phone.contact();
    let lines = format!("contact = \"{contact}\"\noutbound-proxy = \"sip:proxy.example\"");
    let (mut world, _listener) = World::new(says(&device(&dns, "7010", &lines)));
    assert!(world.refusal("7010", 1).starts_with("SIP/2.0 503"));
    assert!(phone.is_idle(), "not past the proxy");
    dns.srv("_sip._tcp.proxy.example", 60, 1, ("a.example", proxy.port));
    dns.a("a.example", 60, [127, 0, 0, 1]);
    world.server.wait_for("proxy.example (device 7010) is at tcp:127.0.0.1");
    thread::sleep(Duration::from_millis(1200));
    world.caller.send(&invite("7010", 2));
    let mut ua = proxy.accept();
    let (call, invite) = Call::accepted(2, &mut world.caller, &mut ua, &proxy.contact());
    let uri = contact.replace("sip:", "sip:7010@");
    assert!(invite.is(&format!("INVITE {uri} ")), "{invite:?}");
    assert!(invite.header("Route").contains(&format!("127.0.0.1:{}", proxy.port)), "{invite:?}");
    world.end(&call, 2, &mut ua);
    assert!(phone.is_idle());
}

#[test]
fn a_backup_is_found_by_its_name_and_again_when_it_moves() {
    let (first, second, third, dns) = (Callee::new(), Callee::new(), Callee::new(), Dns::new());
    let service = "_sip._tcp.backup.example";
    dns.srv(service, 1, 1, ("a.example", second.port)).a("a.example", 3600, [127, 0, 0, 1]);
    let lines =
        format!("contact = \"{}\"\ncontact-backup = [\"sip:backup.example\"]", first.contact());
    let (mut world, _listener) = World::new(says(&device(&dns, "7010", &lines)));
    let (call, mut ua, uri) = world.call_at("7010", 1, &first);
    world.end(&call, 2, &mut ua);
    drop((first, ua));
    world.wait_until("holdfast_flows{", 1);
    let (call, mut ua, moved) = world.call_at("7010", 2, &second);
    assert_eq!(moved, uri, "the Request-URI stays that of contact");
    world.end(&call, 2, &mut ua);
    drop(ua);
    dns.forget(service, SRV).srv(service, 1, 1, ("a.example", third.port));
    world.server.wait_for(&format!("tcp:127.0.0.1:{}", third.port));
    thread::sleep(Duration::from_millis(1200));
    let (call, mut ua, _) = world.call_at("7010", 3, &third);
    world.end(&call, 2, &mut ua);
    assert!(second.is_idle());
}

#[test]
fn a_name_leads_to_a_device_over_tls_that_has_a_certificate_for_it() {
    let (good, bad, dns) = (Callee::new(), Callee::new(), Dns::new());
    for (host, port) in [("good", good.port), ("bad", bad.port)] {
        dns.srv(&format!("_sips._tcp.{host}.example"), 60, 1, ("a.example", port));
    }
    dns.a("a.example", 60, [127, 0, 0, 1]);
    let (authority, files) = (Authority::new("all"), Files::new());
    let own = authority.certify(&["holdfast.test"], Validity::Now);
    let contacts =
        [("7010", "sip:good.example;transport=tls"), ("7011", "sip:bad.example;transport=tls")];
    let more = files.section(&own, &authority) + &devices(&dns, &contacts);
    let (mut world, _listener) = World::new(says(&more));
    // What SRV made of the name is nobody to trust.
    let refused = authority.certify(&["a.example"], Validity::Now).server();
    let shown = authority.certify(&["good.example"], Validity::Now).server();
    let impostor = thread::spawn(move || {
        let mut ua = tls::accepted(bad.listener.accept().unwrap().0, &refused);
        ua.stream.read(&mut [0; 1]).is_err()
    });
    let status = world.refusal("7011", 1);
    assert!(status.starts_with("SIP/2.0 503"), "{status}");
    assert!(impostor.join().unwrap(), "its certificate was not taken");
    world.caller.send(&invite("7010", 2));
    let mut ua = tls::accepted(good.listener.accept().unwrap().0, &shown);
    let contact = format!("sip:127.0.0.1:{};transport=tls", good.port);
    let (call, invite) = Call::accepted(2, &mut world.caller, &mut ua, &contact);
    assert!(invite.is("INVITE sip:7010@good.example"), "{invite:?}");
    assert!(invite.header("Via").starts_with("SIP/2.0/TLS"), "{invite:?}");
    world.end(&call, 2, &mut ua);
}

#[test]
fn naptr_leads_to_a_device_over_udp() {
    let dns = Dns::new();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = socket.local_addr().unwrap().port();
    dns.naptr("pbx.example", 10, "SIP+D2U", "_sip._udp.pbx.example")
        .srv("_sip._udp.pbx.example", 60, 1, ("a.example", port))
        .a("a.example", 60, [127, 0, 0, 1]);
    let (address, metrics) = (free_address(), free_address());
    let more = devices(&dns, &[("7010", "sip:pbx.example")]);
    let whole = text(says(&more), address, metrics, free_address());
    let tcp = format!("\"tcp:{address}\"");
    let whole = Some(whole.replace(&tcp, &format!("{tcp}, \"udp:{address}\"")));
    let server = Server::start(&Setup { address, whole, ..Setup::default() });
    let mut caller = Ua::connect(server.address);
    caller.send(&invite("7010", 1));
    let receive = || {
        let mut bytes = [0; 65_535];
        let (len, from) = socket.recv_from(&mut bytes).expect("a datagram in time");
        assert_eq!(from, address);
        Message(String::from_utf8(bytes[..len].to_vec()).unwrap())
    };
    let invite = receive();
    assert!(invite.is("INVITE sip:7010@pbx.example"), "{invite:?}");
    assert!(invite.header("Via").starts_with("SIP/2.0/UDP"), "{invite:?}");
    let contact = format!("sip:127.0.0.1:{port};transport=udp");
    socket.send_to(invite.response("200 OK", &contact).as_bytes(), address).unwrap();
    let ok = caller.receive_after("SIP/2.0 100");
    assert!(ok.is("SIP/2.0 200"), "{ok:?}");
    caller.send(&request("ACK", 1, 1, Some((ok.target(), ok.header("To")))));
    let ack = std::iter::repeat_with(receive).find(|message| !message.is("INVITE ")).unwrap();
    assert!(ack.is("ACK "), "{ack:?}");
}
