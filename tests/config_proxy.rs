//! What a configuration says of the proxy role, and what is wrong with it.

// Files belong to the control plane.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg(feature = "server")]

mod config_support;

use std::time::Duration;

use config_support::{errors, parse};
use holdfast::options::Role;
use holdfast::target::Target;

const PROXY: &str = "[server]\nrole = \"proxy\"\nlisten = [\"tcp:127.0.0.1:5060\"]\n";
const PAIR: &str = "[[pair]]\nname = \"a\"\nprimary = \"sip:127.0.0.2:5060;transport=tcp\"\n";

#[test]
fn the_example_of_a_proxy_is_read_and_shown_as_it_was_meant() {
    let text = std::fs::read_to_string("docs/proxy.toml").unwrap();
    let config = parse(&text);
    let options = &config.options;
    assert_eq!(options.role, Role::Proxy);
    assert_eq!(options.oos_check, Duration::from_secs(10));
    assert_eq!(options.oos_force, Duration::from_secs(3));
    let [one, two] = &options.pairs[..] else { panic!("two pairs") };
    assert_eq!(one.name, "east-1");
    let members = ["127.0.0.1:5060", "127.0.0.6:5060"].map(|it| Target::tcp(it.parse().unwrap()));
    assert_eq!(one.members, members);
    assert_eq!(one.sources, ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(two.members.len(), 1);
    let mut shown = Vec::new();
    config.write_effective(&mut shown).unwrap();
    assert_eq!(parse(std::str::from_utf8(&shown).unwrap()).options.pairs, options.pairs);
}

#[test]
fn what_is_wrong_with_a_proxy_is_told_with_its_line() {
    let device = "[[device]]\ndn = \"1\"\ntype = \"Extension\"\ncontact = \"sip:1@127.0.0.2;transport=tcp\"\n";
    let backup = |uri: &str| format!("{PROXY}{PAIR}backup = \"{uri}\"\n");
    for (text, expected) in [
        (PROXY.to_owned(), "2: a proxy has no [[pair]]"),
        (format!("{PROXY}{PAIR}{device}"), "7: [[device]] is for role = \"server\""),
        (
            format!("[server]\nlisten = [\"tcp:127.0.0.1:5060\"]\n{PAIR}"),
            "[[pair]] is for role = \"proxy\"",
        ),
        (PROXY.replace("\"proxy\"", "\"prxy\""), "role is \"prxy\"; expected server or proxy"),
        (format!("{PROXY}{PAIR}{PAIR}"), "two pairs have the name \"a\""),
        (format!("{PROXY}{PAIR}{}", PAIR.replace("\"a\"", "\"b\"")), "is a member of a pair twice"),
        (format!("{PROXY}[[pair]]\nname = \"a\"\n"), "4: the pair has no primary"),
        (format!("{PROXY}{}", PAIR.replace("name = \"a\"\n", "")), "4: the pair has no name"),
        (
            format!("{PROXY}{}", PAIR.replace("\"a\"", "\"a b\"")),
            "name of a pair: expected 1 to 64",
        ),
        (backup("sip:x@127.0.0.3;transport=tcp"), "has a user part"),
        (backup("sip:127.0.0.3;transport=udp"), "has transport `udp`"),
        (backup("sip:127.0.0.3;transport=tls"), "have two transports; expected one"),
        (backup("sip:server.example"), "a proxy looks up no names"),
        (
            format!("{PROXY}{PAIR}sources = [\"0.0.0.0\"]\n"),
            "sources has \"0.0.0.0\", which is no address",
        ),
        (format!("{PROXY}[proxy]\noos-force = 0\n{PAIR}"), "5: oos-force is 0"),
    ] {
        let found = errors(&text);
        assert!(found.contains(expected), "{found}\ninstead of\n{expected}");
    }
}

#[test]
fn an_outbound_proxy_is_where_the_calls_of_a_device_go() {
    let server = "[server]\nlisten = [\"tcp:127.0.0.1:5060\"]\n";
    let device = "[[device]]\ndn = \"1\"\ntype = \"Extension\"\ncontact = \"sip:1@127.0.0.2;transport=tcp\"\n";
    let with = |lines: &str| format!("{server}{device}{lines}\n");
    let config = parse(&with("outbound-proxy = \"sip:127.0.0.9:5070;transport=tcp\""));
    let found = config.options.devices().next().unwrap();
    assert_eq!(found.target(), Some(Target::tcp("127.0.0.9:5070".parse().unwrap())));
    let caller = config.options.caller("127.0.0.9".parse().unwrap(), "1");
    assert!(caller.is_some(), "calls come from the proxy");
    for (lines, expected) in [
        ("outbound-proxy = \"sip:127.0.0.9;transport=udp\"", "has transport `udp`"),
        ("outbound-proxy = \"sip:p@127.0.0.9;transport=tcp\"", "has a user part"),
        (
            "outbound-proxy = \"sip:127.0.0.9;transport=tcp\"\ncontact-backup = [\"sip:127.0.0.3;transport=tcp\"]",
            "contact-backup stands beside outbound-proxy",
        ),
    ] {
        let found = errors(&with(lines));
        assert!(found.contains(expected), "{found}");
    }
}
