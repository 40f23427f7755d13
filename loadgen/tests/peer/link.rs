//! A connection of the peer, over TCP or TLS, that tells what its socket saw.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore};
use rustls::{ServerConfig, ServerConnection};

use super::Party;

/// Reads of so few bytes…
const TRICKLE_BYTES: usize = 2;
/// …so many in a row are a trickle.
const TRICKLE_READS: u32 = 20;

/// One certificate, which both sides show and trust.
#[derive(Clone)]
pub(crate) struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    /// As PEM.
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Tls {
    pub(crate) fn new() -> Self {
        let mut names: Vec<String> = (1..=9).map(|n| format!("127.20.0.{n}")).collect();
        names.push("127.0.0.1".into());
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let chain = vec![made.cert.der().clone()];
        let key = || PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(chain[0].clone()).unwrap();
        let provider = || Arc::new(ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key())
            .unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Self { client: Arc::new(client), server: Arc::new(server), certificate, key }
    }

    pub(super) fn accept(&self) -> Connection {
        ServerConnection::new(Arc::clone(&self.server)).unwrap().into()
    }

    pub(super) fn connect(&self, to: IpAddr) -> Connection {
        let name = ServerName::IpAddress(to.into());
        ClientConnection::new(Arc::clone(&self.client), name).unwrap().into()
    }
}

/// What a turn of a connection brought.
pub(super) enum Heard {
    Nothing,
    Bytes,
    Trickle,
    Eof,
    /// It had ended before; whether it takes no more, either.
    AfterEof(bool),
    Reset,
    Alert(String),
    /// TLS was begun and not answered.
    Stalled,
}

pub(super) struct Link {
    pub(super) stream: TcpStream,
    pub(super) party: Party,
    pub(super) inbox: Vec<u8>,
    /// When FIN came.
    pub(super) ended: Option<Instant>,
    tls: Option<Connection>,
    outbox: Vec<u8>,
    began: Instant,
    few: u32,
}

impl Link {
    pub(super) fn new(stream: TcpStream, party: Party, tls: Option<Connection>) -> Self {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            party,
            inbox: Vec::new(),
            ended: None,
            tls,
            outbox: Vec::new(),
            began: Instant::now(),
            few: 0,
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes).unwrap(),
            None => self.outbox.extend_from_slice(bytes),
        }
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            tls.write_tls(&mut self.outbox).unwrap();
        }
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(len) => drop(self.outbox.drain(..len)),
                // An error is heard of by reading.
                Err(_) => return,
            }
        }
    }

    pub(super) fn turn(&mut self, patience: Duration) -> Heard {
        self.flush();
        if self.ended.is_some() {
            // Reading would only say again that it has ended.
            let error = self.stream.take_error().unwrap_or_else(Some);
            return Heard::AfterEof(error.is_some());
        }
        let mut buffer = [0; 16384];
        let len = match self.stream.read(&mut buffer) {
            Ok(0) => return Heard::Eof,
            Ok(len) => len,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                let handshake = self.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
                let stalled = handshake && self.began.elapsed() > patience;
                return if stalled { Heard::Stalled } else { Heard::Nothing };
            }
            Err(_) => return Heard::Reset,
        };
        self.few = if len <= TRICKLE_BYTES { self.few + 1 } else { 0 };
        match &mut self.tls {
            None => self.inbox.extend_from_slice(&buffer[..len]),
            Some(tls) => {
                let mut rest = &buffer[..len];
                while !rest.is_empty() {
                    tls.read_tls(&mut rest).unwrap();
                    if let Err(error) = tls.process_new_packets() {
                        return Heard::Alert(format!("{error:?}"));
                    }
                    // That there is no more for now is an error, too.
                    let _ = tls.reader().read_to_end(&mut self.inbox);
                }
            }
        }
        if self.few == TRICKLE_READS { Heard::Trickle } else { Heard::Bytes }
    }
}
