//! What all connections over TLS share: certificates, authorities, sessions to resume.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{
    ClientHello, ParsedCertificate, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ClientConnection, Connection, RootCertStore, ServerConnection};

use super::read_capped;

/// Bytes of a PEM file; room for all authorities of a system several times over.
const PEM_BYTES_MAX: u64 = 4 << 20;

/// A certificate with its chain, and its key, as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PEM: the certificate, then those between it and its authority.
    pub certificate: PathBuf,
    /// PEM: PKCS #8, PKCS #1 or SEC 1.
    pub private_key: PathBuf,
}

/// Whether a peer that connects to us must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// It is not asked for one.
    #[default]
    None,
    /// It is asked for one; a wrong one is refused, none is not.
    Wanted,
    /// Without a good one it is refused.
    Required,
}

/// What is wrong with a file, or with what it holds.
#[derive(Debug)]
pub struct TlsError {
    path: PathBuf,
    text: String,
}

impl TlsError {
    fn new(path: &Path, text: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), text: text.to_string() }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.text)
    }
}

impl std::error::Error for TlsError {}

/// Everything a handshake needs; one for all shards, so that a session can be resumed by any of them.
#[derive(Clone, Debug)]
pub struct Contexts {
    /// `None`: nothing is served over TLS.
    server: Option<Arc<ServerConfig>>,
    client: Arc<ClientConfig>,
}

impl Contexts {
    /// Reads the files. Without identities there is nothing to serve with. `authorities` are those of the
    /// certificates that peers we connect to must show, by default the system's; `client_authorities`
    /// those of peers that connect to us, by default the same.
    ///
    /// # Errors
    /// The file that cannot be used, and why.
    pub fn load(
        identities: &[Identity],
        authorities: Option<&Path>,
        client_certificate: ClientCertificate,
        client_authorities: Option<&Path>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let keys = identities
            .iter()
            .map(|identity| certified_key(identity, &provider).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let roots = Arc::new(match authorities {
            Some(path) => roots_of(path)?,
            None => system_roots(),
        });
        let client_roots = match client_authorities {
            Some(path) => Arc::new(roots_of(path)?),
            None => Arc::clone(&roots),
        };
        let client = client_config(&provider, roots, keys.first())?;
        let server = match keys.is_empty() {
            true => None,
            false => {
                let config = server_config(&provider, keys, client_certificate, client_roots)?;
                Some(Arc::new(config))
            }
        };
        Ok(Self { server, client: Arc::new(client) })
    }

    /// A connection that a peer opened. `None`: nothing is served over TLS.
    pub(in crate::net) fn accept(&self) -> Option<Connection> {
        let config = self.server.as_ref()?;
        Some(ServerConnection::new(Arc::clone(config)).ok()?.into())
    }

    /// A connection to a peer that must show a certificate for `name`.
    pub(in crate::net) fn connect(&self, name: ServerName<'static>) -> Option<Connection> {
        Some(ClientConnection::new(Arc::clone(&self.client), name).ok()?.into())
    }
}

/// The name that a peer must have a certificate for.
pub(in crate::net) fn server_name(name: Option<&str>, address: IpAddr) -> ServerName<'static> {
    name.and_then(|name| ServerName::try_from(name.to_owned()).ok())
        .unwrap_or(ServerName::IpAddress(address.into()))
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    own: Option<&Arc<CertifiedKey>>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::new(Path::new("tls"), error))?
        .with_root_certificates(roots);
    // A peer that asks who we are is shown what those are shown who connect to us.
    Ok(match own {
        Some(key) => builder.with_client_cert_resolver(Arc::new(Own(Arc::clone(key)))),
        None => builder.with_no_client_auth(),
    })
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    keys: Vec<Arc<CertifiedKey>>,
    wanted: ClientCertificate,
    roots: Arc<RootCertStore>,
) -> Result<ServerConfig, TlsError> {
    let failed = |error: &dyn fmt::Display| TlsError::new(Path::new("tls"), error);
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?;
    let verifier = || WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let builder = match wanted {
        ClientCertificate::None => builder.with_no_client_auth(),
        ClientCertificate::Wanted => {
            let verifier = verifier().allow_unauthenticated().build();
            builder.with_client_cert_verifier(verifier.map_err(|error| failed(&error))?)
        }
        ClientCertificate::Required => {
            let verifier = verifier().build();
            builder.with_client_cert_verifier(verifier.map_err(|error| failed(&error))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName(keys)));
    // Tickets keep the session at the peer: what is resumed costs no memory here, on any shard.
    config.ticketer = ring::Ticketer::new().map_err(|error| failed(&error))?;
    Ok(config)
}

/// The one certificate of a client.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Own {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).is_some().then(|| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The certificate that is for the name the peer asks for (SNI, RFC 6066 §3), else the first.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = asked.and_then(|name| {
            self.0.iter().find(|key| {
                let parsed =
                    key.cert.first().and_then(|cert| ParsedCertificate::try_from(cert).ok());
                parsed.is_some_and(|cert| rustls::client::verify_server_name(&cert, &name).is_ok())
            })
        });
        named.or(self.0.first()).cloned()
    }
}

fn certified_key(identity: &Identity, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let Identity { certificate, private_key } = identity;
    let chain = certificates(certificate)?;
    let pem = read_file(private_key)?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| TlsError::new(private_key, "holds no private key in PEM"))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::new(private_key, format!("is not the key of {}", certificate.display()))
        }
        error => TlsError::new(private_key, error),
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read_file(path)?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::new(path, format!("is no PEM: {error:?}")))?;
    if chain.is_empty() {
        return Err(TlsError::new(path, "holds no certificate in PEM"));
    }
    Ok(chain)
}

fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::new(path, format!("holds no authority: {error}")))?;
    }
    Ok(roots)
}

/// Those that the system trusts; none where it has none, and then no peer can be trusted.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || -> io::Result<Vec<u8>> { read_capped(File::open(path)?, PEM_BYTES_MAX) };
    read().map_err(|error| TlsError::new(path, format!("cannot be read: {error}")))
}
