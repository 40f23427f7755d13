//! What a configuration says of load balancers, and what is wrong with it.

#![cfg(feature = "server")]

mod config_support;

use config_support::{errors, parse};
use holdfast::control::config::FRONTS_MAX;

const SERVER: &str = "[server]\nlisten = [\"tcp:127.0.0.1:5060\"]\n";

fn with(value: &str) -> String {
    format!("{SERVER}proxy-protocol-from = {value}\n")
}

fn written(text: &str) -> String {
    let mut out = Vec::new();
    parse(text).write_effective(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn load_balancers_are_addresses_and_networks_and_none_by_default() {
    assert!(parse(SERVER).options.proxy_protocol_from.is_empty());
    let text = with("[\"127.0.0.9\", \"10.0.0.0/24\", \"2001:db8::/32\", \"192.0.2.1/32\"]");
    let config = parse(&text);
    assert!(config.warnings.is_empty());
    let is_front = |ip: &str| {
        let ip = ip.parse().unwrap();
        config.options.proxy_protocol_from.iter().any(|network| network.contains(ip))
    };
    assert!(
        ["127.0.0.9", "::ffff:10.0.0.7", "2001:db8::1", "192.0.2.1"].iter().all(|ip| is_front(ip))
    );
    assert!(!["127.0.0.1", "10.0.1.0", "2001:db9::", "192.0.2.0"].iter().any(|ip| is_front(ip)));
    let shown = written(&text);
    let line = shown.lines().find(|line| line.starts_with("proxy-protocol-from")).unwrap();
    assert!(line.contains("\"2001:db8::/32\", \"192.0.2.1\"]") && line.contains(":3"), "{line}");
    assert_eq!(parse(&shown).options.proxy_protocol_from, config.options.proxy_protocol_from);
    assert!(written(SERVER).contains("proxy-protocol-from = [] "));
}

#[test]
fn what_is_no_list_of_load_balancers_is_told() {
    for (value, expected) in [
        (
            "\"10.0.0.1\"",
            "3: proxy-protocol-from is \"10.0.0.1\", a string; expected a list such as",
        ),
        ("[1]", "3: proxy-protocol-from is 1, an integer; expected a list such as"),
        (
            "[\"lb.example\"]",
            "3: proxy-protocol-from has \"lb.example\", which is not of the form IP or IP/BITS",
        ),
        (
            "[\"10.0.0.0/40\"]",
            "3: proxy-protocol-from has \"10.0.0.0/40\", which has 40 bits; expected 0 to 32",
        ),
        ("[\"10.0.0.5/24\"]", "which is no network: did you mean 10.0.0.0/24, or 10.0.0.5 alone?"),
        ("[\"::1\", \"::1/128\"]", "3: proxy-protocol-from names ::1 twice"),
    ] {
        let errors = errors(&with(value));
        assert!(errors.contains(expected), "{errors}");
    }
    let many = |count: usize| {
        let list: Vec<_> =
            (0..count).map(|n| format!("\"10.0.{}.{}\"", n / 256, n % 256)).collect();
        with(&format!("[{}]", list.join(", ")))
    };
    assert_eq!(parse(&many(FRONTS_MAX)).options.proxy_protocol_from.len(), FRONTS_MAX);
    let expected = "3: proxy-protocol-from has 257 entries; expected at most 256";
    assert_eq!(errors(&many(FRONTS_MAX + 1)), expected);
    let errors = errors(&format!("{SERVER}[limits]\nproxy-protocol-from = []\n"));
    assert!(errors.contains("it belongs to [server]"), "{errors}");
}

#[test]
fn a_network_of_everybody_is_a_warning() {
    for everybody in ["0.0.0.0/0", "::/0"] {
        let warnings = parse(&with(&format!("[\"{everybody}\"]"))).warnings.to_string();
        let expected =
            format!("proxy-protocol-from has {everybody}: any peer may claim any address");
        assert!(warnings.contains(&expected), "{warnings}");
    }
}
