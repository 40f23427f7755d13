//! `[tls]`: which certificates we show, and whose we believe.

use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::read::PATH_BYTES_MAX;
use super::read::Reader;
use super::{Config, TLS_CERTIFICATES_MAX};
use crate::net::tls::{ClientCertificate, Contexts, Identity, TlsError};
use crate::target::Transport;

/// What `[tls]` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Our certificates; a peer that asks for a name gets the one that is for it, any other the first.
    pub identities: Vec<Identity>,
    /// Authorities of the peers that we connect to; `None`: those of the system.
    pub authorities: Option<PathBuf>,
    /// Whether peers that connect to us must show a certificate.
    pub client_certificate: ClientCertificate,
    /// Their authorities; `None`: as those above.
    pub client_authorities: Option<PathBuf>,
}

impl Config {
    /// Reads what TLS needs; `None` where nothing is served or reached over TLS.
    ///
    /// # Errors
    /// The file that cannot be used, and why.
    pub fn tls_contexts(&self) -> Result<Option<Contexts>, TlsError> {
        if !self.speaks_tls() {
            return Ok(None);
        }
        let TlsConfig { identities, authorities, client_certificate, client_authorities } =
            &self.tls;
        let (authorities, client_authorities) =
            (authorities.as_deref(), client_authorities.as_deref());
        Contexts::load(identities, authorities, *client_certificate, client_authorities).map(Some)
    }

    /// True where something is served or reached over TLS. A name that says no transport is only if something
    /// else is.
    pub fn speaks_tls(&self) -> bool {
        let served = self.server.listen.iter().any(|target| target.transport == Transport::Tls);
        served || self.options.devices().any(|device| device.transport == Transport::Tls)
    }

    /// The files that [`tls_contexts`](Self::tls_contexts) reads, as far as they are configured.
    pub fn tls_files(&self) -> Vec<PathBuf> {
        let TlsConfig { identities, authorities, client_certificate: _, client_authorities } =
            &self.tls;
        let own = identities.iter().flat_map(|it| [it.certificate.clone(), it.private_key.clone()]);
        own.chain(authorities.clone()).chain(client_authorities.clone()).collect()
    }
}

/// Reads the section; `served` when something is listened on over TLS.
pub(super) fn read(reader: &mut Reader<'_>, table: &DeTable<'_>, served: bool) -> TlsConfig {
    let certificates = paths(reader, table, "certificate");
    let keys = paths(reader, table, "private-key");
    if certificates.len() != keys.len() {
        let (certificates, keys) = (certificates.len(), keys.len());
        let text = format!(
            "certificate in [tls] has {certificates} entries and private-key {keys}; expected a key \
             for each certificate"
        );
        reader.error(table.get("certificate").or(table.get("private-key")), text);
    }
    if served && certificates.is_empty() && table.get("certificate").is_none() {
        let text = "certificate is missing in [tls]: listen has a tls address; expected a list such \
                    as [\"/etc/holdfast/cert.pem\"]";
        reader.error(None, text.to_owned());
    }
    let choices = [
        ("none", ClientCertificate::None),
        ("wanted", ClientCertificate::Wanted),
        ("required", ClientCertificate::Required),
    ];
    let authorities = reader.path("tls", table, "authorities");
    let client_certificate = reader.chosen("tls", table, "client-certificate", choices);
    let client_authorities = reader.path("tls", table, "client-authorities");
    let identities = certificates
        .into_iter()
        .zip(keys)
        .map(|(certificate, private_key)| Identity { certificate, private_key })
        .collect();
    TlsConfig { identities, authorities, client_certificate, client_authorities }
}

/// A list of files.
fn paths(reader: &mut Reader<'_>, table: &DeTable<'_>, name: &'static str) -> Vec<PathBuf> {
    const EXPECTED: &str = "a list such as [\"/etc/holdfast/cert.pem\"]";
    let Some(value) = table.get(name) else { return Vec::new() };
    let Some(entries) = reader.array(name, value, EXPECTED) else { return Vec::new() };
    if entries.is_empty() || entries.len() > TLS_CERTIFICATES_MAX {
        let count = entries.len();
        let text = format!("{name} has {count} entries; expected 1 to {TLS_CERTIFICATES_MAX}");
        reader.error(Some(value), text);
    }
    let mut paths = Vec::new();
    for entry in entries.iter().take(TLS_CERTIFICATES_MAX) {
        match entry.get_ref() {
            DeValue::String(text) if super::read::is_plain_path(text) => {
                paths.push(PathBuf::from(text.as_ref()));
            }
            DeValue::String(_) => {
                let text = format!(
                    "{name} has an entry that is no path: expected 1 to {PATH_BYTES_MAX} bytes \
                     without quotes, backslashes and control characters"
                );
                reader.error(Some(entry), text);
            }
            _ => reader.wrong(name, entry, EXPECTED),
        }
    }
    let written: Vec<_> = paths.iter().map(|path| format!("\"{}\"", path.display())).collect();
    reader.set("tls", name, format!("[{}]", written.join(", ")), "", Some(value));
    paths
}
