//! `role`, `[proxy]` and `[[pair]]`: what a proxy stands in front of.

use std::collections::HashSet;
use std::net::IpAddr;

use toml::de::{DeTable, DeValue};

use super::address::{Contact, parse_contact};
use super::read::{Reader, Value};
use super::spec::{OOS_CHECK, OOS_FORCE, SECTIONS};
use super::{PAIRS_MAX, PairOrigin};
use crate::options::{Options, Pair, Role};
use crate::target::Target;

/// Bytes of the name of a pair.
const NAME_BYTES_MAX: usize = 64;
/// Further addresses of a pair.
const SOURCES_MAX: usize = 64;
const ROLES: [(&str, Role); 2] = [("server", Role::Server), ("proxy", Role::Proxy)];

/// Reads what the server is, and what that takes.
pub(super) fn read(
    reader: &mut Reader<'_>,
    root: &DeTable<'_>,
    server: &DeTable<'_>,
    proxy: &DeTable<'_>,
    options: &mut Options,
) {
    let role = reader.chosen("server", server, "role", ROLES);
    options.role = role;
    options.oos_check = reader.seconds(proxy, &OOS_CHECK);
    options.oos_force = reader.seconds(proxy, &OOS_FORCE);
    options.pairs = pairs(reader, root);
    match role {
        Role::Proxy if options.pairs.is_empty() && root.get("pair").is_none() => {
            let text = "a proxy has no [[pair]]; expected one for each pair of servers behind it";
            reader.error(server.get("role"), text.to_owned());
        }
        Role::Server if root.get("pair").is_some() => {
            let text = "[[pair]] is for role = \"proxy\", and this is a server";
            reader.error(root.get("pair"), text.to_owned());
        }
        Role::Proxy | Role::Server => {}
    }
    if let (Role::Proxy, Some(device)) = (role, root.get("device")) {
        let text = "[[device]] is for role = \"server\": a proxy asks its servers where calls go";
        reader.error(Some(device), text.to_owned());
    }
}

fn pairs(reader: &mut Reader<'_>, root: &DeTable<'_>) -> Vec<Pair> {
    let Some(value) = root.get("pair") else { return Vec::new() };
    let expected = "[[pair]], once for each pair";
    let DeValue::Array(entries) = value.get_ref() else {
        reader.wrong("pair", value, expected);
        return Vec::new();
    };
    if entries.len() > PAIRS_MAX {
        let text = format!("there are {} pairs; expected at most {PAIRS_MAX}", entries.len());
        reader.error(Some(value), text);
    }
    let (mut pairs, mut names, mut members) = (Vec::new(), HashSet::new(), HashSet::new());
    for entry in entries.iter().take(PAIRS_MAX) {
        let DeValue::Table(table) = entry.get_ref() else {
            reader.wrong("pair", entry, expected);
            continue;
        };
        let Some(pair) = pair(reader, table, entry) else { continue };
        if !names.insert(pair.name.clone()) {
            reader.error(table.get("name"), format!("two pairs have the name \"{}\"", pair.name));
        }
        for member in &pair.members {
            if !members.insert(*member) {
                reader.error(Some(entry), format!("{member} is a member of a pair twice"));
            }
        }
        reader.origins.pairs.push(PairOrigin {
            line: reader.line(entry),
            name: reader.line_of(table, "name"),
            primary: reader.line_of(table, "primary"),
            backup: reader.line_of(table, "backup"),
            sources: reader.line_of(table, "sources"),
        });
        pairs.push(pair);
    }
    pairs
}

fn pair(reader: &mut Reader<'_>, table: &DeTable<'_>, entry: &Value<'_>) -> Option<Pair> {
    if let Some(section) = SECTIONS.iter().find(|section| section.name == "pair") {
        reader.check_names(table, section);
    }
    let name = match table.get("name") {
        Some(value) => {
            let text = reader.string("name", value, "a string such as \"east-1\"")?;
            let plain =
                text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte));
            if text.is_empty() || text.len() > NAME_BYTES_MAX || !plain {
                let text = format!(
                    "name of a pair: expected 1 to {NAME_BYTES_MAX} printable ASCII characters \
                     without blanks, quotes and backslashes"
                );
                reader.error(Some(value), text);
                return None;
            }
            text.to_owned()
        }
        None => {
            let text = "the pair has no name; expected one that all proxies give it";
            reader.error(Some(entry), text.to_owned());
            return None;
        }
    };
    let primary = member(reader, table, "primary");
    if primary.is_none() && table.get("primary").is_none() {
        let text = "the pair has no primary; expected a string such as \"sip:192.0.2.1:5060;transport=tcp\"";
        reader.error(Some(entry), text.to_owned());
    }
    let primary = primary?;
    let backup = member(reader, table, "backup");
    if let Some(backup) = backup.filter(|backup| backup.transport != primary.transport) {
        let text =
            format!("backup {backup} and primary {primary} have two transports; expected one");
        reader.error(table.get("backup"), text);
    }
    let members = [Some(primary), backup].into_iter().flatten().collect();
    Some(Pair { name, members, sources: sources(reader, table) })
}

/// Further addresses that requests of a pair come from.
fn sources(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Vec<IpAddr> {
    const EXPECTED: &str = "a list such as [\"192.0.2.7\"]";
    let Some(value) = table.get("sources") else { return Vec::new() };
    let Some(entries) = reader.array("sources", value, EXPECTED) else { return Vec::new() };
    if entries.len() > SOURCES_MAX {
        let text = format!("sources has {} entries; expected at most {SOURCES_MAX}", entries.len());
        reader.error(Some(value), text);
    }
    let mut sources = Vec::new();
    for entry in entries.iter().take(SOURCES_MAX) {
        let Some(text) = reader.string("sources", entry, EXPECTED) else { continue };
        match text.parse::<IpAddr>() {
            Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => sources.push(ip),
            Ok(_) | Err(_) => {
                let shown: String = text.escape_debug().take(80).collect();
                let text = format!("sources has \"{shown}\", which is no address of a server");
                reader.error(Some(entry), text);
            }
        }
    }
    sources
}

fn member(reader: &mut Reader<'_>, table: &DeTable<'_>, name: &'static str) -> Option<Target> {
    let value = table.get(name)?;
    let text =
        reader.string(name, value, "a string such as \"sip:192.0.2.1:5060;transport=tcp\"")?;
    let reason = match parse_contact(text) {
        Ok(Contact { has_user: true, .. }) => {
            "has a user part: it is the address of a server".to_owned()
        }
        Ok(contact) => {
            let transport = contact.transport.unwrap_or_default();
            match contact.address() {
                Some(address) if !transport.is_unreliable() => {
                    return Some(Target { transport, address });
                }
                Some(_) => {
                    "has transport `udp`: what is lost there nobody is told, so nothing would be \
                          recovered"
                        .to_owned()
                }
                None => "has no IP address as host: a proxy looks up no names".to_owned(),
            }
        }
        Err(reason) => reason,
    };
    let shown: String = text.escape_debug().take(80).collect();
    reader.error(Some(value), format!("{name} \"{shown}\" {reason}"));
    None
}
