//! The handshake of one connection, before it becomes a flow.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use rustls::{CertificateError, Connection, Error};

use super::{Tls, is_handshake};
use crate::net::in_time;

/// Why a handshake failed, as the log tells it.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    /// It took too long.
    Timeout,
    /// The peer ended the connection.
    Socket(io::Error),
    /// What came is no TLS at all.
    NotTls,
    /// One end does not accept the other.
    Refused(Error),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("it took too long"),
            Self::Socket(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("the peer closed the connection")
            }
            Self::Socket(error) => write!(f, "the connection died: {error}"),
            Self::NotTls => f.write_str("the peer does not speak TLS: is it plain text?"),
            Self::Refused(Error::InvalidCertificate(reason)) => {
                f.write_str("the peer's certificate ")?;
                match reason {
                    CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                        f.write_str("has expired")
                    }
                    CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                        f.write_str("is not valid yet")
                    }
                    CertificateError::UnknownIssuer => {
                        f.write_str("is of an unknown authority: see `authorities` in [tls]")
                    }
                    CertificateError::NotValidForName => {
                        f.write_str("is for another name: see `tls-name` of the device")
                    }
                    CertificateError::NotValidForNameContext { expected, .. } => {
                        write!(f, "is not for {}: see `tls-name` of the device", expected.to_str())
                    }
                    reason => write!(f, "is refused: {reason}"),
                }
            }
            Self::Refused(Error::AlertReceived(alert)) => {
                write!(f, "the peer refused it: {alert:?}")
            }
            Self::Refused(Error::NoCertificatesPresented) => {
                f.write_str("the peer has no certificate, and `client-certificate` is required")
            }
            Self::Refused(error) => error.fmt(f),
        }
    }
}

/// Shakes hands over a connection that was just opened or accepted.
///
/// # Errors
/// What [`HandshakeError`] names; the peer was told by an alert if it could be.
pub(in crate::net) async fn shake_hands(
    stream: &mut TcpStream,
    connection: Connection,
    patience: Duration,
) -> Result<Box<Tls>, HandshakeError> {
    in_time(patience, HandshakeError::Timeout, exchange(stream, connection)).await
}

async fn exchange(
    stream: &mut TcpStream,
    connection: Connection,
) -> Result<Box<Tls>, HandshakeError> {
    let mut tls = Box::new(Tls::new(connection));
    let mut buffer = vec![0; 4096];
    let mut first = true;
    tls.pump();
    loop {
        flush(stream, &mut tls).await.map_err(HandshakeError::Socket)?;
        if !tls.connection.is_handshaking() {
            return Ok(tls);
        }
        let count = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut buffer)).await;
        let count = count.map_err(HandshakeError::Socket)?;
        if count == 0 {
            return Err(HandshakeError::Socket(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut bytes = &buffer[..count];
        if std::mem::take(&mut first) && !is_handshake(bytes) {
            return Err(HandshakeError::NotTls);
        }
        while !bytes.is_empty() {
            // Plain text that follows the handshake stays in the connection until the session reads it.
            let taken = tls.connection.read_tls(&mut bytes).map_err(HandshakeError::Socket)?;
            let processed = tls.connection.process_new_packets();
            tls.pump();
            if let Err(error) = processed {
                // The alert.
                let _ = flush(stream, &mut tls).await;
                return Err(HandshakeError::Refused(error));
            }
            if taken == 0 {
                break;
            }
        }
    }
}

async fn flush(stream: &mut TcpStream, tls: &mut Tls) -> io::Result<()> {
    poll_fn(|cx| tls.poll_flush(|bytes| Pin::new(&mut *stream).poll_write(cx, bytes))).await
}
