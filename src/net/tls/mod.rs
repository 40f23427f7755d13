//! TLS around a stream (RFC 5246, RFC 8446), by rustls: bytes in, bytes out, no socket.
//!
//! ```text
//! socket ──► read ──► plain text ──► framer
//! outbox ──► encrypt ──► cipher ──► flush ──► socket
//! ```
//!
//! What a flow over TLS costs beyond one over TCP is here; the session and the flow are the same.

mod context;
mod handshake;

use std::io::{self, BufRead, Read, Write};
use std::task::{Poll, ready};

use rustls::Connection;
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;

use crate::options::DeviceId;

pub(super) use context::server_name;
pub use context::{ClientCertificate, Contexts, Identity, TlsError};
pub(super) use handshake::shake_hands;

/// Bytes of plain text that become cipher text at a time: what a peer that does not read makes us hold.
const ENCRYPT_MAX: usize = 64 << 10;

/// One connection's state.
pub(super) struct Tls {
    connection: Connection,
    /// Bytes to write to the socket, of which the first `written` have been.
    cipher: Vec<u8>,
    written: usize,
}

impl Tls {
    fn new(connection: Connection) -> Self {
        Self { connection, cipher: Vec::new(), written: 0 }
    }

    /// Decrypts what was read from the socket and hands in the plain text. True when the peer has said that
    /// nothing more comes.
    ///
    /// # Errors
    /// The peer breaks the protocol, or somebody between us does; the flow is over. An alert for it is
    /// queued.
    pub(super) fn read(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> Result<bool, rustls::Error> {
        loop {
            let processed = self.connection.process_new_packets();
            self.pump();
            let closed = processed?.peer_has_closed();
            self.plain_text(&mut each);
            if closed || bytes.is_empty() {
                return Ok(closed);
            }
            // It takes a part at a time, and always some: its buffers were emptied just now.
            let taken = self.connection.read_tls(&mut bytes);
            if !taken.is_ok_and(|count| count > 0) {
                return Err(rustls::Error::General("the record is too large".to_owned()));
            }
        }
    }

    fn plain_text(&mut self, each: &mut impl FnMut(&[u8])) {
        let mut reader = self.connection.reader();
        // An error says that there is nothing, now or ever.
        while let Ok(bytes) = reader.fill_buf() {
            let count = bytes.len();
            if count == 0 {
                return;
            }
            each(bytes);
            reader.consume(count);
        }
    }

    /// Of these devices and their names those that the peer's certificate is for, in their order.
    pub(super) fn is_certified_for<'a>(
        &self,
        named: impl Iterator<Item = (DeviceId, &'a str)>,
    ) -> Box<[DeviceId]> {
        let shown = self.connection.peer_certificates().and_then(<[_]>::first);
        let parsed = shown.and_then(|shown| ParsedCertificate::try_from(shown).ok());
        let Some(certificate) = parsed else { return Box::default() };
        let is_for = |name: &str| {
            let name = ServerName::try_from(name);
            name.is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
        };
        named.filter(|(_, name)| is_for(name)).map(|(device, _)| device).collect()
    }

    /// Makes some of the plain text cipher text; how much.
    pub(super) fn encrypt(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.connection.writer().write(&bytes[..bytes.len().min(ENCRYPT_MAX)])?;
        self.pump();
        Ok(count)
    }

    /// Says that nothing more comes from us.
    pub(super) fn close(&mut self) {
        self.connection.send_close_notify();
        self.pump();
    }

    /// Writes the cipher text with `write`, as far as it goes. Ready when all is written.
    pub(super) fn poll_flush(
        &mut self,
        mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        while self.written < self.cipher.len() {
            self.written += ready!(write(&self.cipher[self.written..]))?;
        }
        // An idle flow holds no buffer.
        self.cipher = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Moves what the connection wants to write to the cipher text.
    fn pump(&mut self) {
        while self.connection.wants_write() {
            // Writing to a vector does not fail.
            if self.connection.write_tls(&mut self.cipher).is_err() {
                return;
            }
        }
    }
}

/// True while `bytes` may be the beginning of a handshake: its record's type (RFC 8446 §5.1).
fn is_handshake(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|&kind| kind == 22)
}

/// All of a reader, at most `max` bytes.
fn read_capped(reader: impl Read, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {max} bytes")));
    }
    Ok(bytes)
}
