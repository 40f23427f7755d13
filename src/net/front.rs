//! Connections of load balancers: the PROXY header comes first, and says who the peer is.
//!
//! ```text
//! accept ─► header ─► [TLS handshake] ─► flow, whose peer is the header's source
//! ```
//!
//! The header is read to its last byte and no further: what follows stays in the socket.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::AsyncRead;
use glommio::net::TcpStream;

use super::{Host, NewFlow, in_time, tcp};
use crate::proxy_protocol::{Header, HeaderError, Parsed, parse};

/// Why a header did not come, as the log tells it.
#[derive(Debug)]
enum Error {
    /// It took too long.
    Timeout,
    /// The connection ended before its first byte, as those do by which load balancers ask whether we live.
    Silent,
    /// It ended in the header.
    Socket(io::Error),
    /// What came is no header, or a bad one.
    Header(HeaderError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("it took too long"),
            Self::Silent => f.write_str("nothing came"),
            Self::Socket(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("the connection was closed before its end")
            }
            Self::Socket(error) => write!(f, "the connection died: {error}"),
            Self::Header(error) => error.fmt(f),
        }
    }
}

/// Takes a connection that must begin with a header. It has a place among the handshakes until that is read.
pub(super) fn accept<H: Host>(host: &Rc<H>, stream: TcpStream, ends: NewFlow) -> io::Result<()> {
    let net = host.net();
    if !net.begin_handshake() {
        return tcp::refuse(host, &stream, |stats| &mut stats.refused_handshake);
    }
    let patience = net.limits.borrow().tls_handshake_timeout;
    glommio::spawn_local(introduce(Rc::clone(host), stream, ends, patience)).detach();
    Ok(())
}

/// Learns who the peer is, and goes on as if it had connected itself.
async fn introduce<H: Host>(host: Rc<H>, mut stream: TcpStream, ends: NewFlow, patience: Duration) {
    let read = in_time(patience, Error::Timeout, read(&mut stream)).await;
    let net = host.net();
    net.end_handshake();
    let front = ends.peer;
    match read {
        Ok(header) => {
            let peer = header.source.unwrap_or(front);
            tracing::debug!(%front, %peer, "PROXY header");
            if let Err(error) = tcp::enter(&host, stream, NewFlow { peer, ..ends }) {
                tracing::debug!(%front, %peer, %error, "connection was gone after its PROXY header");
            }
        }
        Err(error) => {
            match error {
                Error::Silent => tracing::debug!(%front, "connection without a byte"),
                error => net.tally.header_refused(host.now(), front, &error),
            }
            let _ = stream.shutdown(Shutdown::Both).await;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Result<Header, Error> {
    let mut bytes = Vec::new();
    loop {
        let missing = match parse(&bytes).map_err(Error::Header)? {
            Parsed::Whole(header) => return Ok(header),
            Parsed::Partial(missing) => missing,
        };
        let begin = bytes.len();
        bytes.resize(begin + missing, 0);
        let count = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut bytes[begin..])).await;
        match count.map_err(Error::Socket)? {
            0 if begin == 0 => return Err(Error::Silent),
            0 => return Err(Error::Socket(io::ErrorKind::UnexpectedEof.into())),
            count => bytes.truncate(begin + count),
        }
    }
}
