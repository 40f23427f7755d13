//! Certificates: given as files, or made at the start by an authority of the run's own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ServerConfig;
use rustls::{ClientConnection, Connection, RootCertStore, ServerConnection};

/// How connections over TLS prove who is who.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsOptions {
    /// PEM of the authorities of the server's certificate; `None`: the run's own authority.
    pub(crate) authorities: Option<PathBuf>,
    /// PEM of our certificate chain and of its key, shown as server and as client; `None`: made by
    /// the run's own authority, one for each address.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// The name the server's certificate must have; `None`: its address.
    pub(crate) server_name: Option<String>,
    /// The server's certificate is taken as it is.
    pub(crate) insecure: bool,
    /// Sessions are not resumed: each connect costs a whole handshake.
    pub(crate) full_handshakes: bool,
}

/// An authority that lives as long as the run.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// A certificate and its key, both as PEM.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) private_key: String,
}

impl Authority {
    /// # Errors
    /// No random numbers.
    pub(crate) fn new() -> Result<Self, String> {
        let made = || -> Result<Self, rcgen::Error> {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(Vec::new())?;
            // Authorities of different runs must not pass for each other.
            let end = key.public_key_raw().iter().rev().take(8);
            let number: String = end.map(|byte| format!("{byte:02x}")).collect();
            let name = format!("loadgen, authority of run {number}");
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let certificate = params.self_signed(&key)?;
            let (pem, der) = (certificate.pem(), certificate.der().clone());
            Ok(Self { issuer: Issuer::new(params, key), certificate: der, pem })
        };
        made().map_err(|error| format!("cannot make an authority for TLS: {error}"))
    }

    /// Its own certificate, for peers that must trust it.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for names and addresses, good as server and as client.
    ///
    /// # Errors
    /// A name that no certificate can hold.
    pub(crate) fn issue(&self, names: &[String]) -> Result<Issued, String> {
        let key = KeyPair::generate().map_err(|error| cannot_issue(names, &error))?;
        let certificate = self.sign(names, &key)?;
        Ok(Issued { certificate: certificate.pem(), private_key: key.serialize_pem() })
    }

    fn sign(&self, names: &[String], key: &KeyPair) -> Result<rcgen::Certificate, String> {
        let signed = || {
            let mut params = CertificateParams::new(names)?;
            let name = names.first().map_or("loadgen", String::as_str);
            params.distinguished_name.push(DnType::CommonName, name);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            params.signed_by(key, &self.issuer)
        };
        signed().map_err(|error| cannot_issue(names, &error))
    }
}

fn cannot_issue(names: &[String], error: &rcgen::Error) -> String {
    format!("cannot make a certificate for {}: {error}", names.join(", "))
}

/// Everything that handshakes of one worker need.
#[derive(Clone)]
pub(crate) struct Tls {
    client: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    serving: Serving,
}

#[derive(Clone)]
enum Serving {
    /// One certificate for all addresses.
    Given(Arc<ServerConfig>),
    /// One for each, made when first needed.
    Made { authority: Arc<Authority>, key: Rc<KeyPair>, made: Rc<RefCell<Configs>> },
}

type Configs = BTreeMap<IpAddr, Arc<ServerConfig>>;

impl Tls {
    /// Reads the files; `authority` makes what is not given.
    ///
    /// # Errors
    /// The file that cannot be used, and why.
    pub(crate) fn new(options: &TlsOptions, authority: &Arc<Authority>) -> Result<Self, String> {
        let server_name = match &options.server_name {
            None => None,
            Some(name) => Some(ServerName::try_from(name.clone()).map_err(|_| {
                format!("{name} is neither a host name nor an address that TLS knows")
            })?),
        };
        let key = KeyPair::generate().map_err(|error| cannot_issue(&[], &error))?;
        let (chain, private_key) = match &options.identity {
            Some((certificate, key)) => (chain_of(certificate)?, key_of(key)?),
            None => {
                let certificate = authority.sign(&["loadgen".into()], &key)?;
                (vec![certificate.der().clone()], der_of(&key)?)
            }
        };
        let serving = match &options.identity {
            Some(_) => Serving::Given(serve(chain.clone(), private_key.clone_key())?),
            None => Serving::Made {
                authority: Arc::clone(authority),
                key: Rc::new(key),
                made: Rc::default(),
            },
        };
        let client = client(options, authority, chain, private_key)?;
        Ok(Self { client, server_name, serving })
    }

    /// A connection that a peer opened to `local`.
    pub(super) fn accept(&self, local: IpAddr) -> io::Result<Connection> {
        let config = match &self.serving {
            Serving::Given(config) => Arc::clone(config),
            Serving::Made { authority, key, made } => {
                let known = made.borrow().get(&local).cloned();
                match known {
                    Some(config) => config,
                    None => {
                        let config = made_for(authority, key, local).map_err(io::Error::other)?;
                        made.borrow_mut().insert(local, Arc::clone(&config));
                        config
                    }
                }
            }
        };
        let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
        connection.set_buffer_limit(None);
        Ok(connection.into())
    }

    /// A connection to a server at `address`.
    pub(super) fn connect(&self, address: IpAddr) -> io::Result<Connection> {
        let name = self.server_name.clone().unwrap_or(ServerName::IpAddress(address.into()));
        let connection = ClientConnection::new(Arc::clone(&self.client), name);
        let mut connection = connection.map_err(io::Error::other)?;
        connection.set_buffer_limit(None);
        Ok(connection.into())
    }
}

fn made_for(authority: &Authority, key: &KeyPair, at: IpAddr) -> Result<Arc<ServerConfig>, String> {
    let certificate = authority.sign(&[at.to_string()], key)?;
    serve(vec![certificate.der().clone()], der_of(key)?)
}

fn serve(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, String> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| broken(&error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| broken(&error))?;
    Ok(Arc::new(config))
}

fn client(
    options: &TlsOptions,
    authority: &Authority,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| broken(&error))?;
    let builder = match options.insecure {
        true => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider()))),
        false => builder.with_root_certificates(roots(options, authority)?),
    };
    let mut config = builder.with_client_auth_cert(chain, key).map_err(|error| broken(&error))?;
    if options.full_handshakes {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

fn roots(options: &TlsOptions, authority: &Authority) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match &options.authorities {
        None => roots.add(authority.certificate.clone()).map_err(|error| broken(&error))?,
        Some(path) => {
            for certificate in chain_of(path)? {
                roots.add(certificate).map_err(|error| in_file(path, &error))?;
            }
        }
    }
    Ok(roots)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn broken(error: &rustls::Error) -> String {
    format!("cannot set up TLS: {error}")
}

fn in_file(path: &Path, error: &dyn fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

fn chain_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| in_file(path, &error))?;
    let chain: Result<Vec<_>, _> = read.collect();
    let chain = chain.map_err(|error| in_file(path, &error))?;
    match chain.is_empty() {
        true => Err(in_file(path, &"no certificate in PEM form")),
        false => Ok(chain),
    }
}

fn key_of(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| in_file(path, &error))
}

fn der_of(key: &KeyPair) -> Result<PrivateKeyDer<'static>, String> {
    let der = PrivateKeyDer::try_from(key.serialize_der());
    der.map_err(|error| format!("cannot set up TLS: {error}"))
}

/// Takes every certificate; the handshake must still be signed with its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
