//! `[dns]`: whom names of devices are asked for.

use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeTable;

use super::read::Reader;
use super::spec::DNS_TIMEOUT;

/// DNS servers; more are refused.
pub const DNS_SERVERS_MAX: usize = 8;
/// Where a server is asked when it is written without a port (RFC 1035 §4.2).
const PORT: u16 = 53;

/// What `[dns]` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Whom to ask, in this order; none: those of the system.
    pub servers: Vec<SocketAddr>,
    /// How long one may take to answer a question.
    pub timeout: Duration,
}

/// Reads the section.
pub(super) fn read(reader: &mut Reader<'_>, table: &DeTable<'_>) -> DnsConfig {
    DnsConfig { servers: servers(reader, table), timeout: reader.seconds(table, &DNS_TIMEOUT) }
}

fn servers(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Vec<SocketAddr> {
    const EXPECTED: &str = "a list such as [\"127.0.0.53:53\"]";
    let name = "servers";
    let value = table.get(name);
    let entries = value.and_then(|value| reader.array(name, value, EXPECTED));
    if let Some(entries) = entries.filter(|list| list.len() > DNS_SERVERS_MAX) {
        let count = entries.len();
        let text =
            format!("{name} in [dns] has {count} entries; expected at most {DNS_SERVERS_MAX}");
        reader.error(value, text);
    }
    let mut servers: Vec<SocketAddr> = Vec::new();
    for entry in entries.into_iter().flat_map(|list| list.iter()).take(DNS_SERVERS_MAX) {
        let Some(text) = reader.string(name, entry, EXPECTED) else { continue };
        let shown: String = text.escape_debug().take(80).collect();
        let reason = match parse(text) {
            None => "is not of the form IP, IP:PORT or [IPv6]:PORT",
            Some(server) if server.port() == 0 => "has port 0",
            Some(server) if server.ip().is_unspecified() || server.ip().is_multicast() => {
                "has the address of no server"
            }
            Some(server) if servers.contains(&server) => "is there twice",
            Some(server) => {
                servers.push(server);
                continue;
            }
        };
        reader.error(Some(entry), format!("{name} in [dns] \"{shown}\" {reason}"));
    }
    let written: Vec<_> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    reader.set("dns", name, format!("[{}]", written.join(", ")), "", value);
    servers
}

fn parse(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse().ok()?, PORT)))
}
