//! A DNS server of a few lines (RFC 1035 §4): it says what a test tells it to, over UDP and TCP.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

pub(crate) const A: u16 = 1;
const CNAME: u16 = 5;
pub(crate) const SRV: u16 = 33;
pub(crate) const NAPTR: u16 = 35;

/// Bytes of an answer over UDP; a longer one is truncated.
const DATAGRAM_BYTES_MAX: usize = 512;
/// Bytes of any answer: its length is 16 bits over TCP.
const ANSWER_BYTES_MAX: usize = 65_535;

/// How a question is answered.
#[derive(Clone)]
enum Reply {
    /// With records: type, TTL, data. None: there are none.
    Records(Vec<(u16, u32, Vec<u8>)>),
    /// With an error.
    Code(u8),
    /// With bytes that are no answer.
    Garbage,
    /// With an answer that says it is truncated, over TCP too.
    Truncated,
    /// Not at all.
    Silence,
}

/// What is answered, and what was asked.
#[derive(Default)]
struct Zone {
    replies: HashMap<(String, u16), Reply>,
    asked: Vec<(String, u16)>,
}

/// The server.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

impl Dns {
    pub(crate) fn new() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone::default()));
        let (over_udp, over_tcp) = (Arc::clone(&zone), Arc::clone(&zone));
        thread::spawn(move || serve_udp(&udp, &over_udp));
        thread::spawn(move || {
            for mut stream in tcp.incoming().map_while(Result::ok) {
                let zone = Arc::clone(&over_tcp);
                thread::spawn(move || serve_tcp(&mut stream, &zone));
            }
        });
        Self { address, zone }
    }

    fn set(&self, name: &str, kind: u16, reply: Reply) -> &Self {
        self.zone.lock().unwrap().replies.insert((name.to_owned(), kind), reply);
        self
    }

    fn add(&self, name: &str, kind: u16, ttl: u32, data: Vec<u8>) -> &Self {
        {
            let mut zone = self.zone.lock().unwrap();
            let reply = zone.replies.entry((name.to_owned(), kind));
            let reply = reply.or_insert_with(|| Reply::Records(Vec::new()));
            let Reply::Records(records) = reply else { panic!("{name} has another reply") };
            records.push((kind, ttl, data));
        }
        self
    }

    /// Takes an answer back.
    pub(crate) fn forget(&self, name: &str, kind: u16) -> &Self {
        self.zone.lock().unwrap().replies.remove(&(name.to_owned(), kind));
        self
    }

    pub(crate) fn a(&self, name: &str, ttl: u32, ip: [u8; 4]) -> &Self {
        self.add(name, A, ttl, Ipv4Addr::from(ip).octets().to_vec())
    }

    pub(crate) fn srv(
        &self,
        name: &str,
        ttl: u32,
        priority: u16,
        (target, port): (&str, u16),
    ) -> &Self {
        let head = [priority, 0, port].into_iter().flat_map(u16::to_be_bytes);
        self.add(name, SRV, ttl, head.chain(encoded(target)).collect())
    }

    pub(crate) fn naptr(&self, name: &str, order: u16, service: &str, replacement: &str) -> &Self {
        let mut data = [order, 1].into_iter().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
        for text in ["s", service, ""] {
            data.push(text.len() as u8);
            data.extend_from_slice(text.as_bytes());
        }
        data.extend(encoded(replacement));
        self.add(name, NAPTR, 3600, data)
    }

    /// Answers a question for `kind` with an alias.
    pub(crate) fn alias(&self, name: &str, kind: u16, to: &str) -> &Self {
        self.set(name, kind, Reply::Records(vec![(CNAME, 3600, encoded(to))]))
    }

    pub(crate) fn refuse(&self, name: &str, kind: u16, code: u8) -> &Self {
        self.set(name, kind, Reply::Code(code))
    }

    pub(crate) fn garbage(&self, name: &str, kind: u16) -> &Self {
        self.set(name, kind, Reply::Garbage)
    }

    pub(crate) fn truncated(&self, name: &str, kind: u16) -> &Self {
        self.set(name, kind, Reply::Truncated)
    }

    pub(crate) fn silence(&self, name: &str, kind: u16) -> &Self {
        self.set(name, kind, Reply::Silence)
    }

    /// How often a question was asked.
    pub(crate) fn count(&self, name: &str, kind: u16) -> usize {
        let zone = self.zone.lock().unwrap();
        zone.asked.iter().filter(|asked| **asked == (name.to_owned(), kind)).count()
    }
}

fn serve_udp(socket: &UdpSocket, zone: &Mutex<Zone>) {
    let mut bytes = [0; 4096];
    while let Ok((len, from)) = socket.recv_from(&mut bytes) {
        if let Some(answer) = answer(&bytes[..len], zone, DATAGRAM_BYTES_MAX) {
            // What is no message at all comes before each answer, and counts for nothing.
            let _ = socket.send_to(&[0; 3], from);
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn serve_tcp(stream: &mut (impl Read + Write), zone: &Mutex<Zone>) {
    let mut len = [0; 2];
    while stream.read_exact(&mut len).is_ok() {
        let mut question = vec![0; usize::from(u16::from_be_bytes(len))];
        if stream.read_exact(&mut question).is_err() {
            return;
        }
        let Some(answer) = answer(&question, zone, ANSWER_BYTES_MAX) else { continue };
        let len = (answer.len() as u16).to_be_bytes();
        if stream.write_all(&[&len, &answer[..]].concat()).is_err() {
            return;
        }
    }
}

fn answer(question: &[u8], zone: &Mutex<Zone>, bytes_max: usize) -> Option<Vec<u8>> {
    let (name, kind, end) = read(question)?;
    let reply = {
        let mut zone = zone.lock().unwrap();
        zone.asked.push((name.clone(), kind));
        zone.replies.get(&(name, kind)).cloned().unwrap_or(Reply::Records(Vec::new()))
    };
    let (code, truncated, records) = match reply {
        Reply::Records(records) => (0, false, records),
        Reply::Code(code) => (code, false, Vec::new()),
        Reply::Truncated => (0, true, Vec::new()),
        Reply::Garbage => return Some([&question[..2], &[0xff; 300]].concat()),
        Reply::Silence => return None,
    };
    let whole = message(question, end, code, truncated, &records);
    if whole.len() <= bytes_max {
        return Some(whole);
    }
    Some(message(question, end, code, true, &[]))
}

fn message(
    question: &[u8],
    end: usize,
    code: u8,
    truncated: bool,
    records: &[(u16, u32, Vec<u8>)],
) -> Vec<u8> {
    let mut out = question[..2].to_vec();
    out.extend([if truncated { 0x87 } else { 0x85 }, 0x80 | code, 0, 1]);
    let mut body = Vec::new();
    let mut count = 0u16;
    for (kind, ttl, data) in records {
        // As many as one message holds.
        if end + body.len() + 12 + data.len() > ANSWER_BYTES_MAX {
            break;
        }
        body.extend([0xc0, 12]);
        body.extend(kind.to_be_bytes());
        body.extend(1u16.to_be_bytes());
        body.extend(ttl.to_be_bytes());
        body.extend((data.len() as u16).to_be_bytes());
        body.extend(data);
        count += 1;
    }
    out.extend(count.to_be_bytes());
    out.extend([0, 0, 0, 0]);
    out.extend(&question[12..end]);
    out.extend(body);
    out
}

/// Name and type of a question, and where it ends.
fn read(message: &[u8]) -> Option<(String, u16, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + len)?).to_lowercase());
        at += len;
    }
    let kind = message.get(at..at + 2)?;
    Some((labels.join("."), u16::from_be_bytes([kind[0], kind[1]]), at + 4))
}

fn encoded(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> =
        labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}
