//! Names of devices in a configuration, and whom they are asked for. Nothing is looked up here.

#![cfg(feature = "server")]

mod config_support;

use std::time::Duration;

use config_support::{errors, parse};
use holdfast::options::{Device, HostName};
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
    assert_eq!(found.looked_up(), Some(&name));
    assert_eq!((found.target(), found.contact.as_str()), (None, "sip:PBX.example.com"));
    let found = device("sip:1@pbx.example.com:5070;transport=tls", "");
    let asked = found.looked_up().unwrap();
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
    assert_eq!(found.looked_up(), None);
    assert_eq!(found.target(), Some(Target::tcp("127.0.0.5:5060".parse().unwrap())));
    assert_eq!(found.tls_name, None);
}

#[test]
fn what_dns_decides_is_not_warned_of() {
    let warnings = |contact| parse(&text(contact, "")).warnings.to_string();
    assert_eq!(warnings("sip:pbx.example.com"), "");
    assert!(warnings("sip:pbx.example.com:5070").contains("names no transport: tcp is used"));
}

#[test]
fn a_name_where_none_can_be_is_refused_with_the_reason() {
    let told = |contact, more| errors(&text(contact, more));
    assert_eq!(
        told("sip:pbx.example.com", "contact-backup = [\"sip:127.0.0.4\"]\n"),
        "7: contact-backup stands beside the name `pbx.example.com` in contact: DNS says what else \
         it has"
    );
    let proxy = "outbound-proxy = \"sip:proxy.example;transport=tcp\"\n";
    assert!(told("sip:127.0.0.2", proxy).contains("only `contact` may have a name"));
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
