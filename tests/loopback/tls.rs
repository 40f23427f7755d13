//! Peers over TLS, and an authority that gives out certificates good and bad.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use crate::ua::{Duplex, Ua};

impl Duplex for StreamOwned<ClientConnection, TcpStream> {
    fn tcp(&self) -> &TcpStream {
        &self.sock
    }
}

impl Duplex for StreamOwned<ServerConnection, TcpStream> {
    fn tcp(&self) -> &TcpStream {
        &self.sock
    }
}

/// Who certifies others.
pub(crate) struct Authority {
    pub(crate) pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, also as files.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

/// What a certificate says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    Now,
    Past,
    Future,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { pem, certificate: der, issuer: Issuer::new(params, key) }
    }

    /// Certifies that somebody has these names.
    pub(crate) fn certify(&self, names: &[&str], validity: Validity) -> Identity {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let (from, to) = match validity {
            Validity::Now => (2020, 2100),
            Validity::Past => (2020, 2021),
            Validity::Future => (2099, 2100),
        };
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    /// Believes this authority, and shows a certificate if it has one.
    pub(crate) fn client(&self, own: Option<&Identity>) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder().with_root_certificates(self.roots());
        Arc::new(match own {
            Some(own) => {
                builder.with_client_auth_cert(own.chain.clone(), own.key.clone_key()).unwrap()
            }
            None => builder.with_no_client_auth(),
        })
    }
}

impl Identity {
    /// A peer that takes connections with this certificate.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder().with_no_client_auth();
        Arc::new(builder.with_single_cert(self.chain.clone(), self.key.clone_key()).unwrap())
    }
}

/// Connects to the server, which must have a certificate for `name`.
pub(crate) fn connect(
    server: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    shake_hands(TcpStream::connect(server)?, b"", config, name)
}

/// The same over a connection that is there, with `before` in the segment of our first words.
pub(crate) fn shake_hands(
    mut stream: TcpStream,
    before: &[u8],
    config: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut first = before.to_vec();
    connection.write_tls(&mut first)?;
    stream.write_all(&first)?;
    stream.set_read_timeout(Some(crate::ua::PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut stream = StreamOwned::new(connection, stream);
    // Before the pong come the tickets of TLS 1.3, which are no message.
    stream.write_all(b"\r\n\r\n")?;
    let mut pong = [0; 2];
    stream.read_exact(&mut pong)?;
    assert_eq!(&pong, b"\r\n");
    Ok(stream)
}

/// A user agent connected to the server.
pub(crate) fn ua(server: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Ua {
    Ua::over(Box::new(connect(server, config, name).unwrap()))
}

/// The end of a connection that the server opens.
pub(crate) fn accepted(stream: TcpStream, config: &Arc<ServerConfig>) -> Ua {
    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
    Ua::over(Box::new(StreamOwned::new(connection, stream)))
}

/// Files of this test process, gone when it ends.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("holdfast-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Puts a file in the place of what was there, as operators do.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let (path, new) = (self.0.join(name), self.0.join("new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }

    /// `[tls]` with this certificate, believing this authority.
    pub(crate) fn section(&self, own: &Identity, authority: &Authority) -> String {
        let certificate = self.write("cert.pem", &own.certificate_pem);
        let key = self.write("key.pem", &own.key_pem);
        let authorities = self.write("ca.pem", &authority.pem);
        let show = |path: &Path| path.display().to_string();
        format!(
            "[tls]\ncertificate = [\"{}\"]\nprivate-key = [\"{}\"]\nauthorities = \"{}\"\n",
            show(&certificate),
            show(&key),
            show(&authorities)
        )
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
