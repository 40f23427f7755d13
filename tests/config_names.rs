//! Names of devices in a configuration, and whom they are asked for. Nothing is looked up here.

#![cfg(feature = "server")]

mod config_support;

use std::net::SocketAddr;
use std::time::Duration;

use config_support::{errors, parse};
use holdfast::control::config::Config;
use holdfast::options::{Device, HostName, Located};
use holdfast::target::{Target, Transport};

const SERVER: &str = "[server]\nlisten = [\"tcp:127.0.0.1:5060\"]\n";

fn text(contact: &str, more: &str) -> String {
    format!("{SERVER}[[device]]\ndn = \"1\"\ntype = \"Extension\"\ncontact = \"{contact}\"\n{more}")
}

fn device(contact: &str, more: &str) -> Device {
    parse(&text(contact, more)).options.devices().next().unwrap().clone()
}

#[test]
fn a_contact_with_a_name_is_kept_as_the_question_that_dns_is_asked() {
    let found = device("sip:PBX.example.com", "");
    let host = "pbx.example.com".to_owned();
    let name = HostName { host, port: None, transport: None, secure: false };
    assert_eq!(found.looked_up().collect::<Vec<_>>(), [&name]);
    assert_eq!((found.target(), found.contact.as_str()), (None, "sip:PBX.example.com"));
    let found = device("sip:1@pbx.example.com:5070;transport=tls", "");
    let asked = found.looked_up().next().unwrap();
    assert_eq!((asked.port, asked.transport), (Some(5070), Some(Transport::Tls)));
    assert_eq!(found.tls_name.as_deref(), Some("pbx.example.com"), "RFC 5922 §7.2");
    let found = device("sips:pbx.example.com", "tls-name = \"other.example\"\n");
    assert_eq!(found.tls_name.as_deref(), Some("other.example"));
    assert_eq!(found.transport, Transport::Tls);
}

#[test]
fn a_name_behind_a_proxy_is_the_proxys_to_look_up() {
    let found =
        device("sip:1@pbx.example.com", "outbound-proxy = \"sip:127.0.0.5;transport=tcp\"\n");
    assert_eq!(found.looked_up().next(), None);
    assert_eq!(found.target(), Some(Target::tcp("127.0.0.5:5060".parse().unwrap())));
    assert_eq!(found.tls_name, None);
}

fn name(host: &str, port: Option<u16>, transport: Transport) -> HostName {
    HostName { host: host.to_owned(), port, transport: Some(transport), secure: false }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 9], port))
}

#[test]
fn a_proxy_by_its_name_gets_every_request_and_nobody_does_before_it_is_known() {
    let more = "outbound-proxy = \"sip:Proxy.example;transport=tls\"\n";
    let config = parse(&text("sip:1@pbx.example.com;transport=tcp", more));
    let found = config.options.devices().next().unwrap();
    let asked = name("proxy.example", None, Transport::Tls);
    assert_eq!(found.looked_up().collect::<Vec<_>>(), [&asked], "the contact is the proxy's");
    assert_eq!((found.target(), found.tls_name.as_deref()), (None, Some("proxy.example")));
    let located = Located { transport: Transport::Tls, addresses: vec![at(1), at(2)] };
    let options = config.options.located(|name| (*name == asked).then_some(&located));
    let there = options.devices().next().unwrap();
    assert_eq!(there.target(), Some(Target::tls(at(1))));
    assert_eq!(there.backups, [], "Route names the first");

    let direct = device("sip:1@127.0.0.2", "outbound-proxy = \"sip:proxy.example\"\n");
    assert_eq!(direct.target(), None, "not past the proxy");
    assert_eq!(direct.looked_up().next(), Some(&name("proxy.example", None, Transport::Tcp)));
}

#[test]
fn backups_by_their_names_are_where_the_list_has_them() {
    let more = "contact-backup = [\"sip:b.example\", \"sip:127.0.0.9:7\", \"sip:c.example:5\"]\n";
    let config = parse(&text("sip:127.0.0.2;transport=tcp", more));
    let found = config.options.devices().next().unwrap();
    let [b, c] = [("b.example", None), ("c.example", Some(5))]
        .map(|(host, port)| name(host, port, Transport::Tcp));
    assert_eq!(found.looked_up().collect::<Vec<_>>(), [&b, &c]);
    assert_eq!(found.backups, [at(7)], "what needs no answer is there");
    let located = |ports: &[u16]| Located {
        transport: Transport::Tcp,
        addresses: ports.iter().map(|port| at(*port)).collect(),
    };
    let (of_b, of_c) = (located(&[1, 2]), located(&[5]));
    let with = |known: &[(&HostName, &Located)]| {
        let options = config.options.located(|asked| {
            known.iter().find(|(name, _)| *name == asked).map(|(_, located)| *located)
        });
        let device = options.devices().next().unwrap().clone();
        assert_eq!(device.address, found.address);
        device.backups
    };
    assert_eq!(with(&[(&b, &of_b), (&c, &of_c)]), [at(1), at(2), at(7), at(5)]);
    assert_eq!(with(&[(&c, &of_c)]), [at(7), at(5)]);
}

#[test]
fn names_of_proxies_and_backups_are_shown_as_they_can_be_read() {
    let proxy = text("sip:127.0.0.2", "outbound-proxy = \"sips:proxy.example:5070\"\n");
    let backups = "contact-backup = [\"sip:b.example\", \"sip:127.0.0.9:7\"]\n";
    for text in [proxy, text("sip:127.0.0.2;transport=tcp", backups)] {
        let config = parse(&text);
        let mut shown = Vec::new();
        config.write_effective(&mut shown).unwrap();
        let again = parse(std::str::from_utf8(&shown).unwrap());
        let names = |config: &Config| config.options.devices().next().unwrap().names.clone();
        assert_eq!(names(&again), names(&config), "{}", String::from_utf8_lossy(&shown));
    }
}

#[test]
fn what_dns_decides_is_not_warned_of() {
    let warnings = |contact| parse(&text(contact, "")).warnings.to_string();
    assert_eq!(warnings("sip:pbx.example.com"), "");
    assert!(warnings("sip:pbx.example.com:5070").contains("names no transport: tcp is used"));
}

#[test]
fn a_name_where_none_can_be_is_refused_with_the_reason() {
    let told = |contact: &str, more: &str| errors(&text(contact, more));
    assert_eq!(
        told("sip:pbx.example.com", "contact-backup = [\"sip:127.0.0.4\"]\n"),
        "7: contact-backup stands beside the name `pbx.example.com` in contact: DNS says what else \
         it has"
    );
    let proxy = |uri| told("sip:127.0.0.2", &format!("outbound-proxy = \"{uri}\"\n"));
    assert!(proxy("sip:1@proxy.example").contains("has a user part"));
    assert!(proxy("sip:proxy.example;transport=udp").contains("has transport `udp`"));
    let backup = |contact, uri| told(contact, &format!("contact-backup = [\"{uri}\"]\n"));
    assert!(backup("sip:127.0.0.2", "sip:b.example;transport=tls").contains("another transport"));
    assert_eq!(
        backup("sip:127.0.0.2;transport=tls", "sip:b.example;transport=tls"),
        "7: contact-backup has a name over TLS; expected a tls-name, which the certificates of \
         the device are for"
    );
    let pair = errors(
        "[server]\nrole = \"proxy\"\nlisten = [\"tcp:127.0.0.1:5060\"]\n[[pair]]\nname = \"a\"\n\
         primary = \"sip:a.example\"\n",
    );
    assert!(pair.contains("a proxy looks up no names"), "{pair}");
    assert_eq!(
        told("sip:10.0.0.300", ""),
        "6: contact \"sip:10.0.0.300\" has the host `10.0.0.300`, which is neither an IP address \
         nor a name"
    );
    assert!(told("sip:pbx.example;transport=udp", "").contains("listen has no udp address"));
}

#[test]
fn the_servers_to_ask_are_read_and_shown() {
    let config = parse(SERVER);
    assert_eq!((config.dns.servers.len(), config.dns.timeout), (0, Duration::from_secs(2)));
    let some = "[dns]\nservers = [\"127.0.0.53:5353\", \"192.0.2.1\", \"[::1]:53\", \"::2\"]\n";
    let config = parse(&format!("{SERVER}{some}timeout = 30\n"));
    let servers = ["127.0.0.53:5353", "192.0.2.1:53", "[::1]:53", "[::2]:53"];
    assert_eq!(config.dns.servers, servers.map(|text| text.parse().unwrap()));
    assert_eq!(config.dns.timeout, Duration::from_secs(30));
    for config in [parse(SERVER), config] {
        let mut shown = Vec::new();
        config.write_effective(&mut shown).unwrap();
        assert_eq!(parse(std::str::from_utf8(&shown).unwrap()).dns, config.dns);
    }
}

#[test]
fn wrong_servers_are_told() {
    let told = errors(&format!(
        "{SERVER}[dns]\nservers = [\"dns.example\", \"127.0.0.1:0\", \"0.0.0.0\", \"127.0.0.1\", \
         \"127.0.0.1:53\", 7]\ntimeout = 31\n"
    ));
    for expected in [
        "4: servers in [dns] \"dns.example\" is not of the form IP, IP:PORT or [IPv6]:PORT",
        "4: servers in [dns] \"127.0.0.1:0\" has port 0",
        "4: servers in [dns] \"0.0.0.0\" has the address of no server",
        "4: servers in [dns] \"127.0.0.1:53\" is there twice",
        "4: servers is 7, an integer; expected a list such as [\"127.0.0.53:53\"]",
        "5: timeout is 31, above the limit of 30 s",
    ] {
        assert!(told.contains(expected), "{told}");
    }
    let nine: Vec<_> = (1..10).map(|n| format!("\"127.0.0.{n}\"")).collect();
    let told = errors(&format!("{SERVER}[dns]\nservers = [{}]\n", nine.join(", ")));
    assert_eq!(told, "4: servers in [dns] has 9 entries; expected at most 8");
}
