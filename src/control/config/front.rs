//! `proxy-protocol-from`: the load balancers in front, whose connections begin with a PROXY header.

use toml::de::DeTable;

use super::FRONTS_MAX;
use super::read::Reader;
use crate::network::Network;

const NAME: &str = "proxy-protocol-from";

pub(super) fn read(reader: &mut Reader<'_>, server: &DeTable<'_>) -> Vec<Network> {
    const EXPECTED: &str = "a list such as [\"192.0.2.7\", \"10.0.0.0/24\"]";
    let value = server.get(NAME);
    let entries = value.and_then(|value| reader.array(NAME, value, EXPECTED));
    let entries: Vec<_> = entries.into_iter().flat_map(|entries| entries.iter()).collect();
    if entries.len() > FRONTS_MAX {
        let text = format!("{NAME} has {} entries; expected at most {FRONTS_MAX}", entries.len());
        reader.error(value, text);
    }
    let mut fronts: Vec<Network> = Vec::new();
    for entry in entries.into_iter().take(FRONTS_MAX) {
        let Some(text) = reader.string(NAME, entry, EXPECTED) else { continue };
        match text.parse() {
            Ok(network) if fronts.contains(&network) => {
                reader.error(Some(entry), format!("{NAME} names {network} twice"));
            }
            Ok(network) => {
                if network.is_everything() {
                    let text = format!("{NAME} has {network}: any peer may claim any address");
                    reader.warnings.add(Some(reader.line(entry)), text);
                }
                fronts.push(network);
            }
            Err(reason) => {
                let shown: String = text.escape_debug().take(80).collect();
                reader.error(Some(entry), format!("{NAME} has \"{shown}\", which {reason}"));
            }
        }
    }
    let written: Vec<_> = fronts.iter().map(|network| format!("\"{network}\"")).collect();
    reader.set("server", NAME, format!("[{}]", written.join(", ")), "", value);
    fronts
}
