//! What a configuration says of TLS, and what is wrong with it.

// Files belong to the control plane.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg(feature = "server")]

mod config_support;

use config_support::{errors, parse};
use holdfast::net::tls::ClientCertificate;
use holdfast::target::{Target, Transport};

const SERVER: &str = "[server]\nlisten = [\"tls:127.0.0.1:5061\", \"tcp:127.0.0.1:5060\"]\n";
const TLS: &str = "[tls]\ncertificate = [\"/a.pem\"]\nprivate-key = [\"/b.pem\"]\n";

#[test]
fn via_and_contact_name_the_first_address_of_each_kind() {
    let config = parse(&format!("{SERVER}{TLS}"));
    assert_eq!(config.options.sent_by(Transport::Tcp), "127.0.0.1:5060");
    assert_eq!(config.options.sent_by(Transport::Tls), "127.0.0.1:5061");
    let config = parse(&format!("{SERVER}advertise = \"sip.example:5070\"\n{TLS}"));
    assert_eq!(config.options.sent_by(Transport::Tls), "sip.example:5061");
    let config = parse(&format!("{SERVER}advertise-tls = \"[::1]:7\"\n{TLS}"));
    assert_eq!(config.options.sent_by(Transport::Tls), "[::1]:7");
    let only = SERVER.replace(", \"tcp:127.0.0.1:5060\"", "");
    assert_eq!(parse(&format!("{only}{TLS}")).options.sent_by(Transport::Tcp), "127.0.0.1:5061");
}

#[test]
fn a_section_is_read_and_shown_as_it_was_meant() {
    let more = "authorities = \"/c.pem\"\nclient-certificate = \"wanted\"\nclient-authorities = \"/d.pem\"\n";
    let config = parse(&format!("{SERVER}{TLS}{more}"));
    let [identity] = &config.tls.identities[..] else { panic!("one") };
    assert_eq!(identity.certificate.to_str(), Some("/a.pem"));
    assert_eq!(identity.private_key.to_str(), Some("/b.pem"));
    assert_eq!(config.tls.client_certificate, ClientCertificate::Wanted);
    assert_eq!(config.tls_files().len(), 4);
    let mut shown = Vec::new();
    config.write_effective(&mut shown).unwrap();
    let again = parse(std::str::from_utf8(&shown).unwrap());
    assert_eq!(again.tls, config.tls);
    assert_eq!(again.options.sent_by_tls, config.options.sent_by_tls);
}

#[test]
fn a_device_over_tls_has_the_port_and_the_name_of_tls() {
    let device = |contact: &str| {
        let text =
            format!("[[device]]\ndn = \"1\"\ntype = \"Extension\"\ncontact = \"{contact}\"\n");
        let config = parse(&format!("{SERVER}{TLS}{text}tls-name = \"phone.example\"\n"));
        let device = config.options.devices().next().unwrap().clone();
        assert_eq!(device.tls_name.as_deref(), Some("phone.example"));
        device.target().unwrap()
    };
    let at = |port| Target::tls(([127, 0, 0, 2], port).into());
    assert_eq!(device("sip:1@127.0.0.2;transport=tls"), at(5061));
    assert_eq!(device("sips:1@127.0.0.2"), at(5061));
    assert_eq!(device("sips:1@127.0.0.2:7;transport=tcp"), at(7));
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    assert_eq!(
        errors(SERVER),
        " certificate is missing in [tls]: listen has a tls address; expected a list such as \
         [\"/etc/holdfast/cert.pem\"]"
    );
    for (section, expected) in [
        (
            "certificate = [\"/a\", \"/b\"]\nprivate-key = [\"/a\"]",
            "4: certificate in [tls] has 2 entries and private-key 1; expected a key for each certificate",
        ),
        (
            "certificate = []\nprivate-key = []",
            "4: certificate has 0 entries; expected 1 to 64\n5: private-key has 0 entries; expected 1 to 64",
        ),
        (
            "certificate = \"/a\"\nprivate-key = [\"/a\"]",
            "4: certificate is \"/a\", a string; expected a list such as [\"/etc/holdfast/cert.pem\"]",
        ),
        (
            "certificate = [\"\"]\nprivate-key = [\"/a\"]",
            "4: certificate has an entry that is no path: expected 1 to 4000 bytes without quotes, \
             backslashes and control characters",
        ),
        (
            "certificate = [\"/a\"]\nprivate-key = [\"/a\"]\nclient-certificate = \"maybe\"",
            "6: client-certificate is \"maybe\"; expected none, wanted or required",
        ),
        (
            "certificat = [\"/a\"]",
            "4: unknown option `certificat` in [tls]; did you mean `certificate`?",
        ),
    ] {
        let found = errors(&format!("{SERVER}[tls]\n{section}\n"));
        assert!(found.contains(expected), "{found}\ninstead of\n{expected}");
    }
    let device = "[[device]]\ndn = \"1\"\ntype = \"Extension\"\n";
    for (lines, expected) in [
        (
            "contact = \"sip:1@127.0.0.2;transport=tcp\"\ntls-name = \"x.example\"",
            "tls-name \"x.example\" is of a device that is reached over tcp",
        ),
        (
            "contact = \"sip:1@127.0.0.2;transport=tls\"\ntls-name = \"-x\"",
            "tls-name \"-x\" is neither a host name nor an IP address",
        ),
    ] {
        let found = errors(&format!("{SERVER}{TLS}{device}{lines}\n"));
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let config = parse(&format!("{SERVER}{TLS}"));
    let error = config.tls_contexts().unwrap_err().to_string();
    assert!(error.starts_with("/a.pem: cannot be read: "), "{error}");
    let without = parse("[server]\nlisten = [\"tcp:127.0.0.1:5060\"]\n");
    assert!(without.tls_contexts().unwrap().is_none());
}
