//! A user agent of a few lines: blocking sockets, one message at a time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

/// Long enough for a machine that does something else, too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a connection is made of.
pub(crate) trait Duplex: Read + Write + Send {
    /// The connection under it.
    fn tcp(&self) -> &TcpStream;
}

impl Duplex for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

/// One connection.
pub(crate) struct Ua {
    pub(crate) stream: Box<dyn Duplex>,
    read: Vec<u8>,
}

impl Ua {
    pub(crate) fn connect(server: SocketAddr) -> Self {
        Self::new(TcpStream::connect(server).unwrap())
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        Self::over(Box::new(stream))
    }

    pub(crate) fn over(stream: Box<dyn Duplex>) -> Self {
        stream.tcp().set_read_timeout(Some(PATIENCE)).unwrap();
        stream.tcp().set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.try_send(text).unwrap();
    }

    /// The same, where the connection may be gone.
    pub(crate) fn try_send(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes())?;
        self.stream.flush()
    }

    /// The next message, whole.
    pub(crate) fn receive(&mut self) -> Message {
        self.try_receive().expect("a message before the end")
    }

    /// The next message; `None` when the connection is closed.
    pub(crate) fn try_receive(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.parse() {
                return Some(message);
            }
            let mut bytes = [0; 4096];
            let count = match self.stream.read(&mut bytes) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                Err(error) => panic!("a message in time: {error}"),
            };
            if count == 0 {
                return None;
            }
            self.read.extend_from_slice(&bytes[..count]);
        }
    }

    fn parse(&mut self) -> Option<Message> {
        let pings = self.read.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.read.drain(..pings);
        let text = String::from_utf8_lossy(&self.read).into_owned();
        let head = text.find("\r\n\r\n")? + 4;
        let length: usize = Message(text.clone()).header("Content-Length").parse().unwrap();
        let message = text.get(..head + length)?.to_owned();
        self.read.drain(..head + length);
        Some(Message(message))
    }

    /// The next message that does not begin so.
    pub(crate) fn receive_after(&mut self, skipped: &str) -> Message {
        loop {
            let message = self.receive();
            if !message.0.starts_with(skipped) {
                return message;
            }
        }
    }

    /// Resets the connection (RST).
    pub(crate) fn reset(self) {
        SockRef::from(self.stream.tcp()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub(crate) fn is_closed(&mut self) -> bool {
        self.stream.read(&mut [0; 1]).map_or(true, |count| count == 0)
    }
}

/// A message as text.
#[derive(Clone, Debug)]
pub(crate) struct Message(pub(crate) String);

impl Message {
    /// The value of the first header of this name.
    pub(crate) fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        let value = self.0.lines().find_map(|line| line.strip_prefix(&prefix));
        value.unwrap_or_else(|| panic!("no {name} in {}", self.0))
    }

    /// The URI in Contact.
    pub(crate) fn target(&self) -> &str {
        self.header("Contact").split(['<', '>']).nth(1).expect("a URI in brackets")
    }

    pub(crate) fn is(&self, start: &str) -> bool {
        self.0.starts_with(start)
    }

    /// A response to this request with its dialog headers, and the tag where To has none.
    pub(crate) fn response(&self, status: &str, contact: &str) -> String {
        let to = self.header("To");
        let tag = if to.contains(";tag=") { "" } else { ";tag=callee" };
        let copied = |line: &&str| line.starts_with("Via: ") || line.starts_with("Record-Route: ");
        let via: Vec<_> = self.0.lines().filter(copied).collect();
        format!(
            "SIP/2.0 {status}\r\n{}\r\nFrom: {}\r\nTo: {to}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n\
             Contact: <{contact}>\r\nContent-Length: 0\r\n\r\n",
            via.join("\r\n"),
            self.header("From"),
            self.header("Call-ID"),
            self.header("CSeq"),
        )
    }
}

/// An established call: what the caller needs for requests in the dialog.
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) target: String,
    pub(crate) to: String,
}

impl Call {
    /// The call that `ok` answers.
    pub(crate) fn of(number: u32, ok: &Message) -> Self {
        Self { number, target: ok.target().to_owned(), to: ok.header("To").to_owned() }
    }

    /// The call that the caller's INVITE has begun: the callee, which hears of it next, accepts it at `contact`.
    /// With it that INVITE as the callee got it.
    #[allow(dead_code)] // Not for tests/rude.rs and tests/silence.rs.
    pub(crate) fn accepted(
        number: u32,
        caller: &mut Ua,
        callee: &mut Ua,
        contact: &str,
    ) -> (Self, Message) {
        let invite = callee.receive();
        assert!(invite.is("INVITE "), "{invite:?}");
        callee.send(&invite.response("200 OK", contact));
        let ok = caller.receive_after("SIP/2.0 100");
        assert!(ok.is("SIP/2.0 200"), "{ok:?}");
        let call = Self::of(number, &ok);
        caller.send(&call.request("ACK", 1));
        assert!(callee.receive().is("ACK "));
        (call, invite)
    }

    pub(crate) fn request(&self, method: &str, cseq: u32) -> String {
        request(method, self.number, cseq, Some((&self.target, &self.to)))
    }
}

/// A request of the caller. `to_tag` and `target` are the server's, once there is a dialog.
pub(crate) fn request(method: &str, call: u32, cseq: u32, dialog: Option<(&str, &str)>) -> String {
    let (uri, to) = match dialog {
        Some((target, to)) => (target.to_owned(), to.to_owned()),
        None => ("sip:7002@127.0.0.1".to_owned(), "<sip:7002@127.0.0.1>".to_owned()),
    };
    let number = if method == "ACK" { cseq + 1000 } else { cseq };
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK{call}x{number}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:7001@127.0.0.1>;tag=caller{call}\r\nTo: {to}\r\n\
         Call-ID: {call}@caller\r\nCSeq: {cseq} {method}\r\n\
         Contact: <sip:7001@127.0.0.1:9;transport=tcp>\r\nContent-Length: 0\r\n\r\n"
    )
}
