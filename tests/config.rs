//! The configuration: what is in force, and what is said when something is wrong.

#![cfg(feature = "server")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // A test writes files.

mod config_support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config_support::{errors, parse};
use holdfast::control::config::{Config, Cores, FILE_BYTES_MAX, LISTEN_MAX, NUMBERS, PROBLEMS_MAX};
use holdfast::options::{DeviceKind, ForeignCallers, Limits, Options};
use holdfast::target::{Target, Transport};

const SERVER: &str = "[server]\nlisten = [\"tcp:127.0.0.1:5060\"]\n";
const CONTACT: &str = "contact = \"sip:7001@127.0.0.2:5070;transport=tcp\"";

/// The errors of `text` after a valid `[server]`, which takes lines 1 and 2.
fn errors_after_server(text: &str) -> String {
    errors(&format!("{SERVER}{text}"))
}

/// The errors of a device, whose header is line 3.
fn device_errors(text: &str) -> String {
    errors_after_server(&format!("[[device]]\n{text}"))
}

fn warnings(text: &str) -> String {
    parse(&format!("{SERVER}{text}")).warnings.to_string().replace("holdfast.toml:", "")
}

fn effective(config: &Config) -> String {
    let mut out = Vec::new();
    config.write_effective(&mut out).expect("a vector takes every write");
    String::from_utf8(out).expect("it is text")
}

fn retry_delays(options: &Options) -> Vec<u64> {
    let number = |dn| options.retry_delay(options.route(dn)).as_millis() as u64;
    ["1", "2", "3"].map(number).to_vec()
}

#[test]
fn the_smallest_file_means_the_published_defaults() {
    let config = parse(SERVER);
    assert_eq!(config.server.listen, [Target::tcp("127.0.0.1:5060".parse().unwrap())]);
    assert_eq!(config.server.cores, Cores::All);
    assert!(!config.server.huge_pages);
    assert_eq!(config.server.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.options.sent_by, "127.0.0.1:5060");
    assert_eq!(config.options.limits, Limits::default());
    assert_eq!(config.options.foreign_callers, ForeignCallers::Refuse);
    assert_eq!(config.options.retry_after, Duration::ZERO);
    assert_eq!(config.options.window(), Duration::from_secs(32));
    assert!(config.warnings.is_empty());
}

#[test]
fn every_option_arrives_where_it_is_read() {
    let config = parse(
        r#"
        [server]
        listen = ["tcp:0.0.0.0:5060", "tcp:[::1]:5062"]
        cores = [0, 2, 2]
        huge-pages = "on"
        advertise = "sip.example.com:5064"
        drain-timeout = 0
        foreign-callers = "relay"
        [limits]
        flows-max = 11
        calls-max = 12
        calls-per-second-max = 123
        queueing-delay-max = 124
        outbox-bytes-max = 0x1_0000
        message-bytes-max = 14_000
        message-timeout = 15
        first-message-timeout = 16
        connect-timeout = 1700
        tcp-user-timeout = 0
        tcp-keepalive = 17
        ping-interval = 1800
        tls-handshakes-max = 19
        tls-handshake-timeout = 20
        flows-per-source-max = 21
        messages-per-second-max = 122
        [TServer]
        retry-after-reliable-transport-error = 1000
        sip-invite-timeout = 20
        [[device]]
        dn = "7001"
        type = "Extension"
        contact = "sip:anna.b@[::1]:5070;transport=TCP"
        [[device]]
        type = "Trunk"
        prefix = "00"
        contact = "sip:127.0.0.3;transport=tcp"
        [device.TServer]
        retry-after-reliable-transport-error = 600
        "#,
    );
    assert_eq!(config.server.listen.len(), 2);
    assert_eq!(config.server.cores, Cores::List(vec![0, 2, 2]));
    assert!(config.server.huge_pages);
    assert_eq!(config.server.drain_timeout, Duration::ZERO);
    let options = &config.options;
    assert_eq!(options.sent_by, "sip.example.com:5064");
    assert_eq!(options.foreign_callers, ForeignCallers::Relay);
    let expected = Limits {
        flows_max: 11,
        calls_max: 12,
        calls_per_second_max: 123,
        queueing_delay_max: Duration::from_millis(124),
        outbox_bytes_max: 65_536,
        message_bytes_max: 14_000,
        message_timeout: Duration::from_secs(15),
        first_message_timeout: Duration::from_secs(16),
        connect_timeout: Duration::from_millis(1700),
        tcp_user_timeout: Duration::ZERO,
        tcp_keepalive: Duration::from_secs(17),
        ping_interval: Duration::from_millis(1800),
        tls_handshakes_max: 19,
        tls_handshake_timeout: Duration::from_secs(20),
        flows_per_source_max: 21,
        messages_per_second_max: 122,
    };
    assert_eq!(options.limits, expected);
    assert_eq!(options.retry_after, Duration::from_secs(1));
    assert_eq!(options.window(), Duration::from_secs(20));
    let devices: Vec<_> = options.devices().collect();
    let [phone, trunk] = devices[..] else { panic!("two devices") };
    assert_eq!((phone.kind, phone.dn.as_deref()), (DeviceKind::Extension, Some("7001")));
    assert_eq!(phone.address, "[::1]:5070".parse().ok());
    assert!(phone.contact_has_user);
    assert_eq!(phone.retry_after, None);
    assert_eq!((trunk.kind, trunk.prefix.as_deref()), (DeviceKind::Trunk, Some("00")));
    assert_eq!(trunk.address, "127.0.0.3:5060".parse().ok());
    assert!(!trunk.contact_has_user);
    assert_eq!(trunk.retry_after, Some(Duration::from_millis(600)));
    assert!(config.warnings.is_empty(), "{}", config.warnings);
}

#[test]
fn the_device_wins_over_the_application_and_its_zero_is_not_absence() {
    let mut text = SERVER.to_owned();
    for (dn, own) in [
        ("1", ""),
        ("2", "TServer = { retry-after-reliable-transport-error = 500 }"),
        ("3", "TServer = { retry-after-reliable-transport-error = 0 }"),
    ] {
        writeln!(text, "[[device]]\ndn = \"{dn}\"\ntype = \"Extension\"\n{CONTACT}\n{own}")
            .unwrap();
    }
    assert_eq!(retry_delays(&parse(&text).options), [0, 500, 0]);
    text.push_str("[TServer]\nretry-after-reliable-transport-error = 1000\n");
    assert_eq!(retry_delays(&parse(&text).options), [1000, 500, 0]);
}

#[test]
fn effective_options_name_their_origin() {
    let text = format!(
        "{SERVER}[TServer]\nretry-after-reliable-transport-error = 1000\n[[device]]\ndn = \"1\"\n\
         type = \"Extension\"\n{CONTACT}\n[[device]]\ndn = \"2\"\ntype = \"Extension\"\n{CONTACT}\n\
         TServer = {{ retry-after-reliable-transport-error = 0 }}\n"
    );
    let shown = effective(&parse(&text));
    for (option, origin) in [
        ("listen = [\"tcp:127.0.0.1:5060\"]", "holdfast.toml:2"),
        ("cores = \"all\"", "default"),
        ("advertise = \"127.0.0.1:5060\"", "default, the first address of listen"),
        ("drain-timeout = 30", "s, default"),
        ("retry-after-reliable-transport-error = 1000", "ms, holdfast.toml:4"),
        ("sip-invite-timeout = 0", "s, default, which means 32 s"),
        ("dn = \"2\"", "holdfast.toml:10"),
        (
            "# TServer = { retry-after-reliable-transport-error = 1000 }",
            "ms, inherited from [TServer]",
        ),
        ("TServer = { retry-after-reliable-transport-error = 0 }", "ms, holdfast.toml:13"),
    ] {
        let found = shown
            .lines()
            .any(|line| line.starts_with(option) && line.ends_with(&format!(" # {origin}")));
        assert!(found, "{option} # {origin} in\n{shown}");
    }
}

#[test]
fn effective_options_are_a_configuration_that_says_the_same() {
    let text = std::fs::read_to_string("docs/holdfast.toml").unwrap();
    let first = parse(&text);
    let second = parse(&effective(&first));
    assert_eq!(first.server, second.server);
    assert!(first.options.devices().eq(second.options.devices()));
    assert_eq!(first.options.limits, second.options.limits);
    assert_eq!(first.options.retry_after, second.options.retry_after);
    assert!(first.warnings.is_empty(), "{}", first.warnings);
}

#[test]
fn a_number_out_of_range_is_told_with_line_value_and_range() {
    for (text, expected) in [
        (
            "[TServer]\nretry-after-reliable-transport-error = 40000",
            "4: retry-after-reliable-transport-error is 40000, above the limit of 34000 ms",
        ),
        (
            "[TServer]\nretry-after-reliable-transport-error = -1",
            "4: retry-after-reliable-transport-error is -1, below the minimum of 0 ms",
        ),
        (
            "[TServer]\nsip-invite-timeout = 99_999_999_999_999_999_999",
            "4: sip-invite-timeout is 99_999_999_999_999_999_999, above the limit of 34 s",
        ),
        (
            "[limits]\nmessage-bytes-max = 0x10000",
            "4: message-bytes-max is 0x10000, above the limit of 65535 bytes",
        ),
        ("[limits]\nflows-max = 0", "4: flows-max is 0, below the minimum of 1 flows"),
    ] {
        assert_eq!(errors_after_server(text), expected);
    }
}

#[test]
fn every_number_is_taken_at_both_ends_of_its_range_and_not_beyond() {
    for number in NUMBERS {
        let parses = |value: i128| {
            let option = format!("{} = {value}\n", number.name);
            let text = match number.section {
                "server" => format!("{SERVER}{option}"),
                section => format!("{SERVER}[{section}]\n{option}"),
            };
            Config::parse("holdfast.toml", &text).is_ok()
        };
        let (min, max) = (i128::from(number.min), i128::from(number.max));
        assert!(parses(min) && parses(max), "{}", number.name);
        assert!(!parses(min - 1) && !parses(max + 1), "{}", number.name);
    }
}

#[test]
fn a_value_of_the_wrong_type_is_no_value() {
    for (text, expected) in [
        (
            "[TServer]\nretry-after-reliable-transport-error = \"500\"",
            "4: retry-after-reliable-transport-error is \"500\", a string; expected a whole number \
             from 0 to 34000 ms",
        ),
        (
            "[TServer]\nsip-invite-timeout = 1.5",
            "4: sip-invite-timeout is 1.5, a float; expected a whole number from 0 to 34 s",
        ),
        (
            "[limits]\ncalls-max = []",
            "4: calls-max is an array; expected a whole number from 1 to 10000000 calls",
        ),
        ("[[TServer]]", "3: TServer is an array; expected a section [TServer], once"),
        ("[device]\ndn = \"1\"", "3: device is a table; expected [[device]], once for each device"),
    ] {
        assert_eq!(errors_after_server(text), expected);
    }
    assert_eq!(
        device_errors(&format!("type = 5\ndn = 7001\n{CONTACT}\nTServer = 3")),
        "4: type is 5, an integer; expected a string: Extension, Trunk, Softswitch or Proxy\n\
         5: dn is 7001, an integer; expected a string of digits such as \"7001\"\n\
         7: TServer is 3, an integer; expected a table: { retry-after-reliable-transport-error = 1000 }"
    );
}

#[test]
fn an_unknown_name_is_refused_with_what_was_perhaps_meant() {
    for (text, expected) in [
        (
            "[TServer]\nretry-after = 500",
            "4: unknown option `retry-after` in [TServer]; did you mean \
             `retry-after-reliable-transport-error`?",
        ),
        ("[TServer]\ncolour = 1", "4: unknown option `colour` in [TServer]"),
        ("[limit]\nflows-max = 1", "3: unknown section [limit]; did you mean `limits`?"),
        ("[tserver]", "3: unknown section [tserver]; did you mean `TServer`?"),
        ("[colours]", "3: unknown section [colours]"),
        (
            "[limits]\nsip-invite-timeout = 1",
            "4: unknown option `sip-invite-timeout` in [limits]; it belongs to [TServer]",
        ),
    ] {
        assert_eq!(errors_after_server(text), expected);
    }
    assert_eq!(
        errors(&format!("cores = \"all\"\n{SERVER}")),
        "1: option `cores` is outside its section [server]"
    );
    assert_eq!(errors(&format!("x = 1\n{SERVER}")), "1: unknown option `x` outside any section");
    assert_eq!(
        device_errors(&format!(
            "dn = \"1\"\ntype = \"Extension\"\n{CONTACT}\nTServer = {{ sip-invite-timeout = 1 }}"
        )),
        "7: unknown option `sip-invite-timeout` in [device.TServer]; it belongs to [TServer]"
    );
}

#[test]
fn what_to_listen_on_must_be_there_once_and_served() {
    assert_eq!(
        errors(""),
        " listen is missing in [server]; expected a list such as [\"tcp:192.0.2.1:5060\"]"
    );
    for (value, expected) in [
        ("[]", format!("2: listen has 0 entries; expected 1 to {LISTEN_MAX}")),
        ("5", "2: listen is 5, an integer; expected a list such as [\"tcp:192.0.2.1:5060\"]".into()),
        ("[5]", "2: listen is 5, an integer; expected a string such as \"tcp:192.0.2.1:5060\"".into()),
        ("[\"tcp:[::1]:1\",\n\"tcp:[0::1]:1\"]", "3: listen names tcp:[::1]:1 twice".into()),
        ("[\"wss:1.2.3.4:5\"]", "2: listen \"wss:1.2.3.4:5\" has transport `wss`: only tcp, tls and udp are served".into()),
        (
            "[\"udp:1.2.3.4:5\",\n\"udp:1.2.3.5:5\"]",
            "3: listen names udp:1.2.3.5:5 beside another udp address of its family: a datagram \
             could be sent from either"
                .into(),
        ),
        (
            "[\"tcp:1.2.3.4:5\", \"udp:1.2.3.4:6\"]",
            "2: advertise is missing: the first tcp and the first udp address of listen differ; \
             expected one host and port for both"
                .into(),
        ),
        ("[\"1.2.3.4:5\"]", "2: listen \"1.2.3.4:5\" is not of the form tcp:IP:PORT, tls:IP:PORT or udp:IP:PORT".into()),
        (
            "[\"tcp:a.example:5\"]",
            "2: listen \"tcp:a.example:5\" has the address `a.example:5`, which is not of the form \
             IP:PORT or [IPv6]:PORT"
                .into(),
        ),
        ("[\"tcp:1.2.3.4:0\"]", "2: listen \"tcp:1.2.3.4:0\" has port 0: peers need a port that stays the same".into()),
        ("[\"tcp:224.0.0.1:5\"]", "2: listen \"tcp:224.0.0.1:5\" has a multicast address".into()),
    ] {
        assert_eq!(errors(&format!("[server]\nlisten = {value}")), expected);
    }
}

#[test]
fn a_wildcard_needs_an_address_to_advertise() {
    assert_eq!(
        errors("[server]\nlisten = [\"tcp:[::]:5062\"]"),
        "2: advertise is missing: peers cannot reach [::]:5062; expected the host and port that they \
         can, such as \"sip.example.com:5062\""
    );
    for (value, expected) in [
        ("\"sip.example.com\"", "3: advertise \"sip.example.com\" is not of the form host:port"),
        ("\"h:99999\"", "3: advertise \"h:99999\" has the port `99999`; expected 1 to 65535"),
        (
            "\"0.0.0.0:5060\"",
            "3: advertise \"0.0.0.0:5060\" names 0.0.0.0, which no peer can reach",
        ),
        (
            "5060",
            "3: advertise is 5060, an integer; expected a string such as \"sip.example.com:5060\"",
        ),
    ] {
        assert_eq!(errors_after_server(&format!("advertise = {value}")), expected);
    }
}

#[test]
fn cores_are_all_or_a_list() {
    for (value, expected) in [
        ("[]", "3: cores has 0 entries; expected 1 to 256"),
        ("[0, 1024]", "3: cores is 1024, above the limit of 1023"),
        ("[-1]", "3: cores is -1, below the minimum of 0"),
        (
            "\"some\"",
            "3: cores is \"some\", a string; expected \"all\" or a list of core numbers such as [0, 1]",
        ),
        (
            "4",
            "3: cores is 4, an integer; expected \"all\" or a list of core numbers such as [0, 1]",
        ),
    ] {
        assert_eq!(errors_after_server(&format!("cores = {value}")), expected);
    }
}

#[test]
fn huge_pages_are_on_or_off() {
    for (value, expected) in [
        ("\"of\"", "huge-pages is \"of\"; expected off or on; did you mean `off`?"),
        ("true", "huge-pages is true, a boolean; expected a string: off or on"),
    ] {
        let errors = errors_after_server(&format!("huge-pages = {value}"));
        assert_eq!(errors, format!("3: {expected}"));
    }
}

#[test]
fn foreign_callers_are_refused_or_relayed() {
    assert_eq!(
        errors_after_server("foreign-callers = \"rely\""),
        "3: foreign-callers is \"rely\"; expected refuse or relay; did you mean `relay`?"
    );
}

#[test]
fn a_device_says_how_it_is_reached() {
    for (text, expected) in [
        ("type = \"Extension\"", "3: an Extension has no dn; expected the number it is reached by"),
        (
            "type = \"Extension\"\ndn = \"1\"\nprefix = \"2\"",
            "6: an Extension has a prefix; it is reached by its dn alone",
        ),
        (
            "type = \"Trunk\"\ndn = \"1\"",
            "3: a Trunk has no prefix; expected what the numbers that it takes begin with",
        ),
        (
            "type = \"Softswitch\"",
            "3: a Softswitch has neither dn nor prefix; expected one of them",
        ),
        ("type = \"Proxy\"", "3: a Proxy has neither dn nor prefix; expected one of them"),
        ("dn = \"1\"", "3: the device has no type; expected Extension, Trunk, Softswitch or Proxy"),
        (
            "dn = \"1\"\ntype = \"Extention\"",
            "5: type is \"Extention\"; expected Extension, Trunk, Softswitch or Proxy; did you mean \
             `Extension`?",
        ),
        ("dn = \"\"\ntype = \"Extension\"", "4: dn has 0 bytes; expected 1 to 64"),
        (
            "dn = \"7 1\"\ntype = \"Extension\"",
            "4: dn \"7 1\" has ' ', which a user part of a SIP URI cannot have unescaped",
        ),
    ] {
        assert_eq!(device_errors(&format!("{text}\n{CONTACT}")), expected);
    }
}

#[test]
fn two_devices_share_neither_number_nor_prefix() {
    let device = |text: &str| format!("[[device]]\n{CONTACT}\n{text}\n");
    assert_eq!(
        errors_after_server(
            &[device("type = \"Extension\"\ndn = \"1\""), device("type = \"Proxy\"\ndn = \"1\"")]
                .concat()
        ),
        "10: dn \"1\" is that of the device at line 3"
    );
    assert_eq!(
        errors_after_server(
            &[
                device("type = \"Trunk\"\nprefix = \"0\""),
                device("type = \"Trunk\"\nprefix = \"0\"")
            ]
            .concat()
        ),
        "10: prefix \"0\" is that of the device at line 3"
    );
    parse(
        &[
            SERVER,
            &device("type = \"Trunk\"\nprefix = \"0\""),
            &device("type = \"Trunk\"\nprefix = \"\"\ndn = \"0\""),
        ]
        .concat(),
    );
}

#[test]
fn a_contact_is_a_sip_uri_that_can_be_served() {
    for (uri, reason) in [
        ("7001@127.0.0.2", "is no SIP URI"),
        ("tel:7001", "is no SIP URI"),
        ("sip:", "is no SIP URI"),
        ("sip:a@b@127.0.0.2", "is no SIP URI"),
        (
            "sips:a@127.0.0.2;transport=udp",
            "is a SIPS URI, which means TLS, and has transport `udp`",
        ),
        (
            "sip:a@127.0.0.2;transport=sctp",
            "has transport `sctp`: only tcp, tls and udp are served",
        ),
        (
            "sip:a@10.0.0.300;transport=tcp",
            "has the host `10.0.0.300`, which is neither an IP address nor a name",
        ),
        ("sip:a@0.0.0.0;transport=tcp", "has the address 0.0.0.0, which is nobody's own"),
        ("sip:a@127.0.0.2:0;transport=tcp", "has port 0"),
        (
            "sip:a@127.0.0.2;maddr=10.0.0.1;transport=tcp",
            "has `maddr`, which is not supported: write that address as the host",
        ),
        (
            "sip:a@127.0.0.2;transport=tcp?subject=x",
            "has headers after `?`, which a Request-URI must not have",
        ),
        ("sip:a b@127.0.0.2", "has a blank or a character that must be escaped as %HH"),
    ] {
        let text = format!("dn = \"1\"\ntype = \"Extension\"\ncontact = \"{uri}\"");
        assert_eq!(device_errors(&text), format!("6: contact \"{uri}\" {reason}"));
    }
    assert_eq!(
        device_errors("dn = \"1\"\ntype = \"Extension\""),
        "3: the device has no contact; expected a string such as \
         \"sip:7001@192.0.2.7:5060;transport=tcp\""
    );
}

#[test]
fn a_delay_that_is_hardly_meant_is_a_warning() {
    let tserver = "[TServer]\nretry-after-reliable-transport-error =";
    assert_eq!(
        warnings(&format!("{tserver} 20000\nsip-invite-timeout = 20")),
        "4: retry-after-reliable-transport-error is 20000 ms, not shorter than the window of 20 s \
         (sip-invite-timeout): no attempt can be repeated"
    );
    assert_eq!(
        warnings(&format!("{tserver} 34000")),
        "4: retry-after-reliable-transport-error is 34000 ms, not shorter than the window of 32 s \
         (sip-invite-timeout): no attempt can be repeated"
    );
    for (millis, warned) in
        [(0, false), (1, true), (499, true), (500, false), (5000, false), (5001, true)]
    {
        let expected = format!(
            "4: retry-after-reliable-transport-error is {millis} ms, outside the recommended 500 to \
             5000 ms"
        );
        let expected = if warned { expected } else { String::new() };
        assert_eq!(warnings(&format!("{tserver} {millis}")), expected);
    }
    let device = "[[device]]\ndn = \"1\"\ntype = \"Extension\"\ncontact = \"sip:127.0.0.2\"\n\
                  TServer = { retry-after-reliable-transport-error = 100 }";
    assert_eq!(
        warnings(device),
        "6: contact sip:127.0.0.2 names no transport: tcp is used\n\
         7: retry-after-reliable-transport-error is 100 ms, outside the recommended 500 to 5000 ms"
    );
}

#[test]
fn what_is_no_toml_is_told_with_every_line() {
    let told =
        errors("[server]\nlisten = [\"tcp:127.0.0.1:5060\"]\ncores = \nlisten = 1\n[TServer\n");
    let lines: Vec<_> = told.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["3", "4", "5"], "{told}");
    assert!(told.contains("4: no TOML: duplicate key in `listen = 1`"), "{told}");
}

#[test]
fn all_errors_are_told_in_the_order_of_their_lines_and_too_many_are_counted() {
    let told = errors("[TServer]\nx = 1\n[server]\ny = 1\nlisten = 3\n[[device]]\n[limits]\nz = 1");
    let lines: Vec<_> = told.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["2", "4", "5", "6", "6", "8"], "{told}");
    let devices = "[[device]]\n".repeat(PROBLEMS_MAX);
    let told = errors_after_server(&devices);
    assert_eq!(told.lines().count(), PROBLEMS_MAX + 1);
    assert!(
        told.ends_with(&format!(" {PROBLEMS_MAX} more like these")),
        "{}",
        &told[told.len() - 99..]
    );
}

#[test]
fn no_text_makes_the_reader_panic_or_recurse() {
    let text = std::fs::read_to_string("docs/holdfast.toml").unwrap();
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
        let _ = Config::parse("holdfast.toml", &text[..end]);
    }
    for deep in ["[", "{a=", "[[", "a.", "\u{feff}", "\"\"\"", "\0", "\r"] {
        let _ = Config::parse("holdfast.toml", &format!("x = {}", deep.repeat(20_000)));
        let _ = Config::parse("holdfast.toml", &deep.repeat(20_000));
    }
}

/// A file of this test's own, gone when the test is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &[u8]) -> Self {
        let name = format!("holdfast-config-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn load_error(path: &Path) -> String {
    let error = Config::load(path).expect_err("it cannot be read").to_string();
    error.replace(&path.display().to_string(), "FILE")
}

#[test]
fn a_file_that_cannot_be_a_configuration_is_refused_without_reading_it_all() {
    let missing = std::env::temp_dir().join("holdfast-config-that-is-not-there");
    assert_eq!(
        load_error(&missing),
        "FILE: cannot be read: No such file or directory (os error 2)"
    );
    assert_eq!(load_error(&std::env::temp_dir()), "FILE: is a directory; expected a file");
    let latin = Scratch::new("latin", b"[server]\n# caf\xe9\n");
    assert_eq!(load_error(&latin.0), "FILE:2: byte 0xe9 is not UTF-8");
    let large = Scratch::new("large", b"");
    let file = std::fs::File::options().write(true).open(&large.0).unwrap();
    file.set_len(100 << 20).unwrap();
    assert_eq!(load_error(&large.0), format!("FILE: is larger than {FILE_BYTES_MAX} bytes"));
}

#[test]
fn a_file_with_a_byte_order_mark_and_crlf_is_read() {
    let config = parse(&format!("\u{feff}{}", SERVER.replace('\n', "\r\n")));
    assert_eq!(config.server.listen.len(), 1);
    assert!(effective(&config).contains("# holdfast.toml:2"));
}

#[test]
fn two_hundred_thousand_devices_are_read() {
    let mut text = SERVER.to_owned();
    for n in 0..200_000 {
        let contact = format!("sip:10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
        writeln!(text, "[[device]]\ndn=\"{n}\"\ntype=\"Proxy\"\ncontact=\"{contact}\"").unwrap();
    }
    assert!(text.len() < FILE_BYTES_MAX);
    let config = parse(&text);
    assert_eq!(config.options.devices().count(), 200_000);
    assert_eq!(config.warnings.list().len(), PROBLEMS_MAX);
}

#[test]
fn backups_and_listed_responses_arrive_where_they_are_read_and_are_shown() {
    let text = format!(
        "{SERVER}[TServer]\ntransport-error-responses = [430, 477, 430]\n[[device]]\n\
         type = \"Trunk\"\nprefix = \"0\"\ncontact = \"sip:127.0.0.3;transport=tcp\"\n\
         contact-backup = [\"sip:127.0.0.4:5070;transport=tcp\", \"sip:[::1]\"]\n"
    );
    let config = parse(&text);
    assert_eq!(config.options.transport_error_responses, [430, 477]);
    let backups = ["127.0.0.4:5070", "[::1]:5060"].map(|text| text.parse().unwrap());
    assert_eq!(config.options.devices().next().unwrap().backups, backups);
    assert!(config.options.is_target(Target::tcp("127.0.0.4:5070".parse().unwrap())));
    assert!(!config.options.is_target(Target::tcp("127.0.0.4:5071".parse().unwrap())));
    let shown = effective(&config);
    assert!(shown.contains("transport-error-responses = [430, 477]"), "{shown}");
    let again = parse(&shown);
    assert!(again.options.devices().eq(config.options.devices()));
}

#[test]
fn wrong_backups_and_responses_are_told() {
    let told =
        errors_after_server("[TServer]\ntransport-error-responses = [200, 481, 700, \"x\"]\n");
    let expected = [
        "4: transport-error-responses is 200, below the minimum of 400",
        "4: transport-error-responses has 408 or 481: they end the dialog",
        "4: transport-error-responses is 700, above the limit of 699",
        "4: transport-error-responses is \"x\", a string; expected a whole number from 400 to 699",
    ];
    for line in expected {
        assert!(told.contains(line), "{told}");
    }
    let device = |backups: &str| {
        let text = "type = \"Trunk\"\nprefix = \"0\"\ncontact = \"sip:127.0.0.3\"\n";
        device_errors(&format!("{text}contact-backup = {backups}\n"))
    };
    assert!(device("\"sip:127.0.0.4\"").contains("expected a list such as"));
    assert!(device("[\"sip:u@127.0.0.4\"]").contains("has a user part"));
    assert!(device("[\"sip:10.0.0.300\"]").contains("neither an IP address nor a name"));
    let nine = ["\"sip:127.0.0.4\""; 9].join(", ");
    assert!(device(&format!("[{nine}]")).contains("has 9 entries; expected at most 8"));
}

/// A device over UDP with two addresses.
const UDP_DEVICE: &str = "[[device]]\ntype = \"Trunk\"\nprefix = \"0\"\n\
    contact = \"sip:127.0.0.2;transport=UDP\"\n\
    contact-backup = [\"sip:127.0.0.3;transport=udp\"]\n";

#[test]
fn a_device_over_udp_is_read_and_written_as_it_is() {
    let listen = "[server]\nlisten = [\"tcp:127.0.0.1:5060\", \"udp:127.0.0.1:5060\"]\n";
    let text = format!("{listen}{UDP_DEVICE}");
    let config = Config::parse("holdfast.toml", &text).unwrap();
    let device = &config.options.devices().next().unwrap();
    assert_eq!(device.target(), Some(Target::udp("127.0.0.2:5060".parse().unwrap())));
    assert_eq!(config.server.listen[1].transport, Transport::Udp);
    let mut written = Vec::new();
    config.write_effective(&mut written).unwrap();
    let again = Config::parse("holdfast.toml", std::str::from_utf8(&written).unwrap()).unwrap();
    assert_eq!(again.server.listen, config.server.listen);
    assert_eq!(again.options.devices().next().unwrap().target(), device.target());
}

#[test]
fn a_device_over_udp_needs_a_socket_and_backups_over_udp() {
    assert_eq!(
        errors(&format!("{SERVER}{UDP_DEVICE}")),
        "6: contact \"sip:127.0.0.2;transport=UDP\" has transport `udp`, and listen has no udp \
         address of its family to send from"
    );
    let mixed = UDP_DEVICE.replace("3;transport=udp", "3;transport=tcp");
    assert_eq!(
        errors(&format!("[server]\nlisten = [\"udp:127.0.0.1:5060\"]\n{mixed}")),
        "7: contact-backup \"sip:127.0.0.3;transport=tcp\" has another transport than `contact`: a \
         device has one"
    );
}
