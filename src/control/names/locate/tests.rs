//! Look-ups in a table instead of DNS.

use std::collections::HashMap;
use std::sync::Mutex;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;

/// What DNS knows, and what it was asked.
#[derive(Default)]
struct Table {
    naptr: HashMap<String, Vec<Naptr>>,
    srv: HashMap<String, Vec<Srv>>,
    ips: HashMap<String, Vec<IpAddr>>,
    /// Names for which it does not answer.
    silent: Vec<String>,
    asked: Mutex<Vec<String>>,
}

impl Table {
    fn naptr(mut self, order: u16, preference: u16, service: &str, replacement: &str) -> Self {
        let record = Naptr {
            order,
            preference,
            is_plain: true,
            service: service.to_owned(),
            replacement: replacement.to_owned(),
        };
        self.naptr.entry("x.example".to_owned()).or_default().push(record);
        self
    }

    fn srv(mut self, name: &str, priority: u16, target: &str, port: u16) -> Self {
        let record = Srv { priority, weight: 0, port, target: target.to_owned() };
        self.srv.entry(name.to_owned()).or_default().push(record);
        self
    }

    fn a(mut self, name: &str, ip: &str) -> Self {
        self.ips.entry(name.to_owned()).or_default().push(ip.parse().unwrap());
        self
    }

    fn answer<T: Clone>(&self, kind: &str, name: &str, from: &HashMap<String, Vec<T>>) -> Reply<T> {
        self.asked.lock().unwrap().push(format!("{kind} {name}"));
        if self.silent.iter().any(|silent| silent == name) {
            return Err(Failure(format!("{kind} {name}: silence")));
        }
        let all = from.get(name).cloned().unwrap_or_default();
        let more = all.len().saturating_sub(RECORDS_MAX);
        let records = all.into_iter().take(RECORDS_MAX).collect();
        Ok(Answer { records, more, ttl: Duration::from_secs(60) })
    }

    fn look_up(&self, uri: &str) -> Result<Found, Failure> {
        self.look_up_with(uri, &["tcp:127.0.0.1:5060", "udp:127.0.0.1:5060"], true)
    }

    fn look_up_with(&self, uri: &str, listen: &[&str], tls: bool) -> Result<Found, Failure> {
        let host = super::super::super::config::parse_contact(uri).unwrap().host;
        let super::super::super::config::Host::Name(name) = host else { panic!("{uri}") };
        let listen: Vec<Target> = listen
            .iter()
            .map(|text| {
                let (transport, address) = text.split_once(':').unwrap();
                let transport = Transport::parse(transport.as_bytes()).unwrap();
                Target { transport, address: address.parse().unwrap() }
            })
            .collect();
        let reach = Reach::new(&listen, tls);
        let rng = ChaCha12Rng::seed_from_u64(1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(locate(self, &name, &reach, rng))
    }

    /// Where it leads, as text.
    fn leads(&self, uri: &str) -> String {
        match self.look_up(uri) {
            Ok(found) => shown(&found),
            Err(Failure(text)) => text,
        }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn shown(found: &Found) -> String {
    let Located { transport, addresses } = &found.located;
    let list: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    format!("{} {}", transport.in_uri(), list.join(" "))
}

impl Source for Table {
    async fn naptr(&self, name: &str) -> Reply<Naptr> {
        self.answer("NAPTR", name, &self.naptr)
    }

    async fn srv(&self, name: &str) -> Reply<Srv> {
        self.answer("SRV", name, &self.srv)
    }

    async fn addresses(&self, name: &str, family: Family) -> Reply<IpAddr> {
        let kind = if family == Family::V4 { "A" } else { "AAAA" };
        let mut answer = self.answer(kind, name, &self.ips)?;
        answer.records.retain(|ip| ip.is_ipv4() == (family == Family::V4));
        Ok(answer)
    }
}

#[test]
fn a_port_asks_for_addresses_alone() {
    let dns = Table::default().a("x.example", "192.0.2.1").a("x.example", "192.0.2.2");
    assert_eq!(dns.leads("sip:x.example:5070"), "tcp 192.0.2.1:5070 192.0.2.2:5070");
    assert_eq!(dns.asked(), ["A x.example"]);
    assert_eq!(dns.leads("sips:x.example:5071"), "tls 192.0.2.1:5071 192.0.2.2:5071");
    assert_eq!(dns.leads("sip:x.example:5072;transport=udp"), "udp 192.0.2.1:5072 192.0.2.2:5072");
}

#[test]
fn a_transport_asks_for_its_srv_and_then_for_addresses() {
    let dns = Table::default()
        .srv("_sip._tcp.x.example", 20, "b.example", 5070)
        .srv("_sip._tcp.x.example", 10, "a.example", 5080)
        .a("a.example", "192.0.2.1")
        .a("b.example", "192.0.2.2")
        .a("x.example", "192.0.2.9");
    assert_eq!(dns.leads("sip:x.example;transport=tcp"), "tcp 192.0.2.1:5080 192.0.2.2:5070");
    assert_eq!(dns.asked(), ["SRV _sip._tcp.x.example", "A a.example", "A b.example"]);
    assert_eq!(dns.leads("sip:x.example;transport=udp"), "udp 192.0.2.9:5060");
    assert_eq!(dns.leads("sip:x.example;transport=tls"), "tls 192.0.2.9:5061");
    assert_eq!(dns.leads("sips:x.example;transport=tcp"), "tls 192.0.2.9:5061");
    dns.asked();
    assert_eq!(dns.leads("sips:x.example"), "tls 192.0.2.9:5061");
    assert_eq!(
        dns.asked(),
        ["NAPTR x.example", "SRV _sips._tcp.x.example", "A x.example"],
        "SIPS asks for nothing but TLS"
    );
}

#[test]
fn naptr_chooses_by_order_and_preference_among_what_is_spoken() {
    let dns = || {
        Table::default()
            .naptr(30, 1, "SIP+D2U", "_sip._udp.y.example")
            .naptr(20, 9, "SIP+D2T", "_sip._tcp.y.example")
            .naptr(20, 1, "sips+d2t", "_sips._tcp.y.example")
            .naptr(10, 1, "SIP+D2S", "_sip._sctp.y.example")
            .srv("_sips._tcp.y.example", 1, "a.example", 5061)
            .srv("_sip._tcp.y.example", 1, "a.example", 5060)
            .srv("_sip._udp.y.example", 1, "a.example", 5065)
            .a("a.example", "192.0.2.1")
    };
    assert_eq!(dns().leads("sip:x.example"), "tls 192.0.2.1:5061");
    let listen = ["tcp:127.0.0.1:5060", "udp:127.0.0.1:5060"];
    let found = |dns: Table, listen: &[&str]| {
        shown(&dns.look_up_with("sip:x.example", listen, false).unwrap())
    };
    assert_eq!(found(dns(), &listen), "tcp 192.0.2.1:5060", "without TLS");
    let mut gone = dns();
    gone.srv.remove("_sip._tcp.y.example");
    assert_eq!(found(gone, &listen), "udp 192.0.2.1:5065", "the next service");
    let mut gone = dns();
    gone.srv.clear();
    assert!(gone.leads("sip:x.example").contains("no SRV record"));
    assert_eq!(dns().leads("sips:x.example"), "tls 192.0.2.1:5061");
}

#[test]
fn naptr_that_is_no_plain_sip_service_is_as_if_it_were_not_there() {
    let mut dns = Table::default()
        .naptr(1, 1, "E2U+sip", "_sip._tcp.y.example")
        .naptr(1, 1, "SIP+D2T", "_sip._tcp.y.example")
        .srv("_sip._tcp.y.example", 1, "a.example", 5060)
        .srv("_sip._udp.x.example", 1, "b.example", 5060)
        .a("a.example", "192.0.2.1")
        .a("b.example", "192.0.2.2");
    dns.naptr.get_mut("x.example").unwrap()[1].is_plain = false;
    assert_eq!(dns.leads("sip:x.example"), "udp 192.0.2.2:5060");
    assert_eq!(
        dns.asked(),
        [
            "NAPTR x.example",
            "SRV _sips._tcp.x.example",
            "SRV _sip._tcp.x.example",
            "SRV _sip._udp.x.example",
            "A b.example"
        ]
    );
}

#[test]
fn without_naptr_and_srv_the_name_itself_is_called_over_tcp() {
    let dns = Table::default().a("x.example", "192.0.2.1").a("x.example", "2001:db8::1");
    let listen = ["tcp:[::1]:5060", "tcp:127.0.0.1:5060"];
    let both = dns.look_up_with("sip:x.example", &listen, false).unwrap();
    assert_eq!(shown(&both), "tcp [2001:db8::1]:5060 192.0.2.1:5060", "in the order of listen");
    assert_eq!(dns.leads("sip:x.example"), "tcp 192.0.2.1:5060", "no family but that of listen");
    assert_eq!(Table::default().leads("sip:x.example"), "x.example has no address");
}

#[test]
fn a_service_that_is_not_served_is_not_looked_for_elsewhere() {
    let dns = Table::default().srv("_sip._tcp.x.example", 1, "", 5060).a("x.example", "192.0.2.1");
    let text = "SRV _sip._tcp.x.example says that it is not served";
    assert_eq!(dns.leads("sip:x.example;transport=tcp"), text);
    assert_eq!(dns.leads("sip:x.example"), text);
}

#[test]
fn a_question_that_is_not_answered_fails_the_look_up_and_not_the_other_targets() {
    let mut dns = Table::default()
        .srv("_sip._tcp.x.example", 1, "a.example", 5060)
        .srv("_sip._tcp.x.example", 2, "b.example", 5060)
        .a("a.example", "192.0.2.1")
        .a("b.example", "192.0.2.2")
        .a("x.example", "192.0.2.9");
    dns.silent = vec!["a.example".to_owned()];
    let found = dns.look_up("sip:x.example;transport=tcp").unwrap();
    assert_eq!(shown(&found), "tcp 192.0.2.2:5060");
    assert_eq!((found.cut.unanswered, found.ttl), (1, RETRY));
    dns.silent.push("b.example".to_owned());
    assert_eq!(dns.leads("sip:x.example;transport=tcp"), "A a.example: silence");
    // Not the name's own address: who knows what SRV would have said.
    dns.silent = vec!["_sip._tcp.x.example".to_owned()];
    assert!(dns.leads("sip:x.example;transport=tcp").contains("silence"));
}

#[test]
fn absurd_answers_are_cut_and_told() {
    let mut dns = Table::default().a("good.example", "192.0.2.1").a("x.example", "192.0.2.7");
    for _ in 0..10_000 {
        dns = dns.a("many.example", "192.0.2.2");
    }
    let service = "_sip._tcp.x.example";
    for port in 1..=10_000 {
        dns = dns.srv(service, 7, "good.example", port);
    }
    let records = dns.srv.get_mut(service).unwrap();
    records[0].port = 0;
    records[1].target.clear();
    let found = dns.look_up("sip:x.example;transport=tcp").unwrap();
    assert_eq!(found.located.addresses.len(), NAME_TARGETS_MAX);
    let told = found.cut.to_string();
    let beyond = 10_000 - RECORDS_MAX + RECORDS_MAX - 2 - NAME_TARGETS_MAX;
    assert!(told.contains(&format!("{beyond} records or targets beyond the limits")), "{told}");
    assert!(told.contains("1 SRV records with port 0, 1 SRV records without a host"), "{told}");
    assert_eq!(dns.asked().len(), 1 + NAME_TARGETS_MAX, "no more questions than targets");

    let found = dns.look_up("sip:many.example;transport=udp").unwrap();
    assert_eq!(shown(&found), "udp 192.0.2.2:5060", "one address is one target");
    for (number, ip) in ["0.0.0.0", "224.0.0.1", "255.255.255.255"].into_iter().enumerate() {
        let host = format!("bad{number}.example");
        let dns = Table::default().a(&host, ip);
        let told = "has no address (left out: 1 addresses that are nobody's own)";
        assert_eq!(dns.leads(&format!("sip:{host}:5060")), format!("{host} {told}"));
    }
}

#[test]
fn more_services_than_the_limit_are_left_out() {
    let mut dns = Table::default();
    for number in 0..1000 {
        dns = dns.naptr(1, 1, "SIP+D2T", &format!("_sip._tcp.n{number}.example"));
    }
    assert!(dns.look_up("sip:x.example").is_err());
    assert_eq!(dns.asked().len(), 1 + SERVICES_MAX);
}
