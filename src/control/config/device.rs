//! Reads `[[device]]`.

use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::DeviceOrigin;
use super::address::{Contact, Host, is_host_name, parse_contact};
use super::read::{Reader, Seen, Value};
use super::spec::{DEVICE_TSERVER, RETRY_AFTER, SECTIONS};
use crate::options::{Backup, CONTACT_BACKUPS_MAX, Device, DeviceKind, HostName, Names};
use crate::target::{Target, Transport};

/// Bytes of a `dn` or `prefix`; a longer one is refused.
pub const NUMBER_BYTES_MAX: usize = 64;

const KINDS: [(&str, DeviceKind); 4] = [
    ("Extension", DeviceKind::Extension),
    ("Trunk", DeviceKind::Trunk),
    ("Softswitch", DeviceKind::Softswitch),
    ("Proxy", DeviceKind::Proxy),
];

/// The name of a kind as the published option spells it.
pub(super) fn kind_name(kind: DeviceKind) -> &'static str {
    KINDS.iter().find(|(_, other)| *other == kind).map_or("", |(name, _)| name)
}

/// All devices that have no error, and the errors of the others.
pub(super) fn read(reader: &mut Reader<'_>, root: &DeTable<'_>, window: Duration) -> Vec<Device> {
    let Some(value) = root.get("device") else { return Vec::new() };
    let expected = "[[device]], once for each device";
    let DeValue::Array(entries) = value.get_ref() else {
        reader.wrong("device", value, expected);
        return Vec::new();
    };
    let (mut numbers, mut prefixes) = (Seen::new(), Seen::new());
    let mut devices = Vec::with_capacity(entries.len());
    for entry in entries.iter() {
        let DeValue::Table(table) = entry.get_ref() else {
            reader.wrong("device", entry, expected);
            continue;
        };
        let line = reader.line(entry);
        if let Some(section) = SECTIONS.iter().find(|section| section.name == "device") {
            reader.check_names(table, section);
        }
        let dn = number(reader, table, "dn", line, &mut numbers);
        let prefix = number(reader, table, "prefix", line, &mut prefixes);
        let kind = kind(reader, table, line);
        if let Some(kind) = kind {
            check_reach(reader, table, kind, line);
        }
        let contact = contact(reader, table, line);
        let own = contact.as_ref().map(|(_, contact)| transport(contact));
        let backups = backups(reader, table, own);
        let proxy = outbound(reader, table);
        let (outbound, proxy_name) = placed(proxy.as_ref());
        if let (Some(_), Some(value)) = (&proxy, table.get("contact-backup")) {
            let text = "contact-backup stands beside outbound-proxy, which all requests go to";
            reader.error(Some(value), text.to_owned());
        }
        let name = contact.as_ref().and_then(|(_, contact)| named(contact)).cloned();
        if let (Some(name), Some(value)) = (&name, table.get("contact-backup")) {
            let text = format!(
                "contact-backup stands beside the name `{}` in contact: DNS says what else it has",
                name.host
            );
            reader.error(Some(value), text);
        }
        // NAPTR and SRV may say TLS where the contact says nothing.
        let own = own.filter(|_| name.as_ref().is_none_or(is_settled));
        let tls_name = tls_name(reader, table, proxy.as_ref().map(transport).or(own));
        check_backup_names(reader, table, &backups, own, tls_name.as_deref());
        let reached = proxy_name.as_ref().or(name.as_ref().filter(|_| proxy.is_none()));
        let host = reached.map(|name| name.host.clone());
        let (retry_after, retry_line) = retry_after(reader, table, window);
        let (Some(kind), Some((contact, address))) = (kind, contact) else { continue };
        let origin = DeviceOrigin {
            line,
            dn: reader.line_of(table, "dn"),
            prefix: reader.line_of(table, "prefix"),
            kind: reader.line_of(table, "type"),
            contact: reader.line_of(table, "contact"),
            backups: reader.line_of(table, "contact-backup"),
            outbound: reader.line_of(table, "outbound-proxy"),
            tls_name: reader.line_of(table, "tls-name"),
            retry_after: retry_line,
        };
        reader.origins.devices.push(origin);
        devices.push(Device {
            dn,
            prefix,
            kind,
            contact,
            address: address.address(),
            names: Box::new(Names {
                contact: name.map(Box::new),
                outbound: proxy_name.map(Box::new),
                backups: if has_name(&backups) { backups.clone() } else { Vec::new() },
            }),
            transport: transport(&address),
            backups: backups.iter().filter_map(Backup::address).collect(),
            outbound,
            // RFC 5922 §7.2: whoever DNS names must be who was asked for.
            tls_name: tls_name.or(host),
            contact_has_user: address.has_user,
            retry_after,
        });
    }
    devices
}

fn kind(reader: &mut Reader<'_>, table: &DeTable<'_>, line: usize) -> Option<DeviceKind> {
    match table.get("type") {
        Some(value) => reader.choice("type", value, &KINDS).map(|(_, kind)| kind),
        None => {
            let text = "the device has no type; expected Extension, Trunk, Softswitch or Proxy";
            reader.errors.add(Some(line), text.to_owned());
            None
        }
    }
}

/// A kind says how its devices are reached: by number, by prefix, or by either.
fn check_reach(reader: &mut Reader<'_>, table: &DeTable<'_>, kind: DeviceKind, line: usize) {
    let (dn, prefix) = (table.get("dn"), table.get("prefix"));
    let missing = match kind {
        DeviceKind::Extension => {
            if let Some(prefix) = prefix {
                let text = "an Extension has a prefix; it is reached by its dn alone";
                reader.error(Some(prefix), text.to_owned());
            }
            dn.is_none().then_some("an Extension has no dn; expected the number it is reached by")
        }
        DeviceKind::Trunk => prefix
            .is_none()
            .then_some("a Trunk has no prefix; expected what the numbers that it takes begin with"),
        DeviceKind::Softswitch => (dn.is_none() && prefix.is_none())
            .then_some("a Softswitch has neither dn nor prefix; expected one of them"),
        DeviceKind::Proxy => (dn.is_none() && prefix.is_none())
            .then_some("a Proxy has neither dn nor prefix; expected one of them"),
    };
    if let Some(text) = missing {
        reader.errors.add(Some(line), text.to_owned());
    }
}

/// A `dn` or a `prefix`, which no two devices share. An empty prefix stands for every number.
fn number(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    name: &str,
    line: usize,
    seen: &mut Seen,
) -> Option<String> {
    let value = table.get(name)?;
    let text = reader.string(name, value, "a string of digits such as \"7001\"")?;
    let fits = text.len() <= NUMBER_BYTES_MAX && (name == "prefix" || !text.is_empty());
    if !fits {
        let text = format!("{name} has {} bytes; expected 1 to {NUMBER_BYTES_MAX}", text.len());
        reader.error(Some(value), text);
        return None;
    }
    if let Some(odd) = text.chars().find(|c| !is_number_char(*c)) {
        let text = format!(
            "{name} \"{}\" has {odd:?}, which a user part of a SIP URI cannot have \
            unescaped",
            text.escape_debug()
        );
        reader.error(Some(value), text);
        return None;
    }
    match seen.entry(text.to_owned()) {
        Entry::Occupied(first) => {
            let text = format!("{name} \"{text}\" is that of the device at line {}", first.get());
            reader.error(Some(value), text);
        }
        Entry::Vacant(vacant) => {
            vacant.insert(line);
        }
    }
    Some(text.to_owned())
}

/// RFC 3261 §25.1 `user`, without escapes: numbers are compared as they are written.
fn is_number_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.!~*'()&=+$,;?/".contains(c)
}

fn contact(reader: &mut Reader<'_>, table: &DeTable<'_>, line: usize) -> Option<(String, Contact)> {
    const EXPECTED: &str = "a string such as \"sip:7001@192.0.2.7:5060;transport=tcp\"";
    let Some(value) = table.get("contact") else {
        reader.errors.add(Some(line), format!("the device has no contact; expected {EXPECTED}"));
        return None;
    };
    let text = reader.string("contact", value, EXPECTED)?;
    match parse_contact(text) {
        Ok(contact) => {
            if contact.transport.is_none() && named(&contact).is_none_or(is_settled) {
                let text = format!("contact {text} names no transport: tcp is used");
                let line = reader.line(value);
                reader.warnings.add(Some(line), text);
            }
            Some((text.to_owned(), contact))
        }
        Err(reason) => {
            reader.error(Some(value), format!("contact \"{}\" {reason}", shown(value)));
            None
        }
    }
}

/// The target or the name of a proxy.
fn placed(proxy: Option<&Contact>) -> (Option<Target>, Option<HostName>) {
    let Some(proxy) = proxy else { return (None, None) };
    let transport = transport(proxy);
    (proxy.address().map(|address| Target { transport, address }), named(proxy).cloned())
}

/// The proxy that calls to the device go through.
fn outbound(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Option<Contact> {
    let value = table.get("outbound-proxy")?;
    let expected = "a string such as \"sip:192.0.2.9:5060;transport=tcp\"";
    let text = reader.string("outbound-proxy", value, expected)?;
    let reason = match parse_contact(text) {
        Ok(contact) if contact.has_user => {
            "has a user part: it is the address of a proxy".to_owned()
        }
        Ok(contact) if transport(&contact).is_unreliable() => {
            "has transport `udp`: nothing is recovered over it".to_owned()
        }
        Ok(contact) => return Some(contact.settled()),
        Err(reason) => reason,
    };
    reader.error(Some(value), format!("outbound-proxy \"{}\" {reason}", shown(value)));
    None
}

/// The name that the device's certificate must be for.
fn tls_name(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    device: Option<Transport>,
) -> Option<String> {
    let value = table.get("tls-name")?;
    let text = reader.string("tls-name", value, "a string such as \"sip.example.com\"")?;
    if let Some(transport) = device.filter(|transport| *transport != Transport::Tls) {
        let text = format!(
            "tls-name \"{}\" is of a device that is reached over {}",
            shown(value),
            transport.in_uri()
        );
        reader.error(Some(value), text);
    } else if !is_host_name(text) && text.parse::<IpAddr>().is_err() {
        let text =
            format!("tls-name \"{}\" is neither a host name nor an IP address", shown(value));
        reader.error(Some(value), text);
    }
    Some(text.to_owned())
}

/// The name in a contact, if it has one.
fn named(contact: &Contact) -> Option<&HostName> {
    match &contact.host {
        Host::Name(name) => Some(name),
        Host::Address(_) => None,
    }
}

/// True when neither NAPTR nor SRV has a say in the transport.
fn is_settled(name: &HostName) -> bool {
    name.transport.is_some() || name.port.is_some() || name.secure
}

/// TCP where a contact names none: that is what a recovery is for.
fn transport(contact: &Contact) -> Transport {
    contact.transport.unwrap_or_default()
}

/// Further addresses of the device, in order.
fn backups(reader: &mut Reader<'_>, table: &DeTable<'_>, device: Option<Transport>) -> Vec<Backup> {
    const EXPECTED: &str = "a list such as [\"sip:192.0.2.8:5060;transport=tcp\"]";
    let name = "contact-backup";
    let Some(value) = table.get(name) else { return Vec::new() };
    let Some(entries) = reader.array(name, value, EXPECTED) else { return Vec::new() };
    if entries.len() > CONTACT_BACKUPS_MAX {
        let count = entries.len();
        let text = format!("{name} has {count} entries; expected at most {CONTACT_BACKUPS_MAX}");
        reader.error(Some(value), text);
    }
    let mut backups = Vec::new();
    for entry in entries.iter().take(CONTACT_BACKUPS_MAX) {
        let Some(text) = reader.string(name, entry, EXPECTED) else { continue };
        match parse_contact(text) {
            Ok(contact) if contact.has_user => {
                let text =
                    "has a user part: requests keep the URI of `contact`, only the address counts";
                reader.error(Some(entry), format!("{name} \"{}\" {text}", shown(entry)));
            }
            Ok(contact) if device.is_some_and(|device| device != transport(&contact)) => {
                let text = "has another transport than `contact`: a device has one";
                reader.error(Some(entry), format!("{name} \"{}\" {text}", shown(entry)));
            }
            Ok(contact) => backups.push(match contact.settled().host {
                Host::Address(address) => Backup::Address(address),
                Host::Name(name) => Backup::Name(name),
            }),
            Err(reason) => {
                reader.error(Some(entry), format!("{name} \"{}\" {reason}", shown(entry)));
            }
        }
    }
    backups
}

fn has_name(backups: &[Backup]) -> bool {
    backups.iter().any(|backup| backup.name().is_some())
}

/// A device has one name that its certificate must be for, so where a backup is reached over TLS by a name of its
/// own, that name must be written.
fn check_backup_names(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    backups: &[Backup],
    device: Option<Transport>,
    tls_name: Option<&str>,
) {
    if device == Some(Transport::Tls) && tls_name.is_none() && has_name(backups) {
        let text = "contact-backup has a name over TLS; expected a tls-name, which the \
                    certificates of the device are for";
        reader.error(table.get("contact-backup"), text.to_owned());
    }
}

/// A device over UDP needs a socket to send from.
pub(super) fn check_sockets(reader: &mut Reader<'_>, devices: &[Device], listen: &[Target]) {
    for (index, device) in devices.iter().enumerate() {
        // What DNS says is looked at when it is said.
        let same_family = |target: &Target| {
            device.address.is_none_or(|own| own.is_ipv4() == target.address.is_ipv4())
        };
        let reaches = |target: &Target| target.transport == device.transport && same_family(target);
        if device.transport == Transport::Udp && !listen.iter().any(reaches) {
            let line = reader.origins.devices.get(index).and_then(|origin| origin.contact);
            let text = format!(
                "contact \"{}\" has transport `udp`, and listen has no udp address of its family \
                 to send from",
                device.contact
            );
            reader.errors.add(line, text);
        }
    }
}

/// As much of a string as an error shows.
fn shown(value: &Value<'_>) -> String {
    let text = value.get_ref().as_str().unwrap_or_default();
    text.escape_debug().take(80).collect()
}

/// The device's own delay and its line; `None` when it has none, which differs from zero.
fn retry_after(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    window: Duration,
) -> (Option<Duration>, Option<usize>) {
    let Some(value) = table.get("TServer") else { return (None, None) };
    let DeValue::Table(own) = value.get_ref() else {
        reader.wrong("TServer", value, &format!("a table: {{ {} = 1000 }}", RETRY_AFTER.name));
        return (None, None);
    };
    reader.check_names(own, &DEVICE_TSERVER);
    let written: Option<&Value<'_>> = own.get(RETRY_AFTER.name);
    let millis = written.and_then(|value| reader.integer(value, &RETRY_AFTER));
    let delay = millis.map(Duration::from_millis);
    let line = written.map(|value| reader.line(value));
    if let Some(delay) = delay {
        reader.check_delay(delay, window, line);
    }
    (delay, line)
}
