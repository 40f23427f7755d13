//! A peer that stands between callers and callees and writes down what its sockets saw of faults.
//!
//! It passes messages on as they are. A re-INVITE is held for a while, so that one is unanswered at
//! most instants; one whose callee is lost, silent or unable is sent again after the delay.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::relay::{branch, header, refusal};

mod link;
pub(crate) use link::Tls;
use link::{Heard, Link};

/// `retry-after-reliable-transport-error`, and a little more.
const DELAY: Duration = Duration::from_millis(220);
/// How long a re-INVITE is held.
const LAG: Duration = Duration::from_millis(80);
/// A connect that takes longer is given up.
const CONNECT_MAX: Duration = Duration::from_millis(100);
/// A response may be lost with a connection whose end is heard of so late.
const RECENT: Duration = Duration::from_millis(50);
/// A request is refused after so many of them.
const FAILED_MAX: u32 = 6;
/// How long an end is looked at after its FIN: whoever closed both ways resets what comes.
const HALF_CLOSED: Duration = Duration::from_millis(150);
/// Between two probes of a door.
const PROBE: Duration = Duration::from_millis(30);
/// A door that nobody closes for so long is open.
const PROBE_READ: Duration = Duration::from_millis(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Party {
    Caller(u8),
    Callee(u8),
}

/// Something that a socket saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A connection of a party was accepted, or one to it made.
    Connected,
    Refused,
    ConnectTimedOut,
    /// FIN; in the middle of a message.
    Eof(bool),
    /// After its FIN the party took no more: it had closed both ways.
    Closed,
    /// After its FIN it went on reading.
    HalfClosed,
    /// RST; in the middle of a message.
    Reset(bool),
    /// A fatal alert of TLS.
    Alert(String),
    /// It accepted and did not answer the ClientHello.
    Stalled,
    /// It left a request without a final response.
    Silent,
    /// A final response to an INVITE: status, lines of interest, time since the request.
    Answered(u16, Vec<String>, Duration),
    /// A final response to what was answered before.
    Twice(u16),
    /// So few bytes came at once, twenty times in a row.
    Trickle,
    /// Port in the Contact of an INVITE.
    Contact(u16),
    /// What somebody finds who connects and says nothing: it stays open, or is closed at once.
    DoorOpen,
    DoorClosedAtOnce,
    DoorRefused,
}

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Since the peer's start.
    pub(crate) at: Duration,
    pub(crate) party: Party,
    pub(crate) what: What,
}

/// What the peer is to do.
#[derive(Clone, Default)]
pub(crate) struct Script {
    /// How long it waits for a final response.
    pub(crate) patience: Duration,
    pub(crate) tls: Option<Tls>,
    /// Callees whose doors it tries all the time.
    pub(crate) probes: u8,
}

pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) callee_port: u16,
    stop: Arc<AtomicBool>,
    notes: Notes,
}

#[derive(Clone)]
struct Notes {
    start: Instant,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Notes {
    fn note(&self, party: Party, what: What) {
        let at = self.start.elapsed();
        self.seen.lock().unwrap().push(Seen { at, party, what });
    }
}

impl Peer {
    pub(crate) fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let free = TcpListener::bind((Ipv4Addr::new(127, 20, 0, 1), 0)).unwrap();
        let callee_port = free.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let notes = Notes { start: Instant::now(), seen: Arc::default() };
        for callee in 1..=script.probes {
            let (stop, notes) = (Arc::clone(&stop), notes.clone());
            thread::spawn(move || probe(callee, callee_port, &notes, &stop));
        }
        let (flag, notes_of) = (Arc::clone(&stop), notes.clone());
        thread::spawn(move || World::new(listener, callee_port, script, notes_of).run(&flag));
        Self { address, callee_port, stop, notes }
    }

    /// All that was seen so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.notes.seen.lock().unwrap().clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Tries the door of a callee with sockets of its own.
fn probe(callee: u8, port: u16, notes: &Notes, stop: &AtomicBool) {
    let address = SocketAddr::from((Ipv4Addr::new(127, 20, 0, callee), port));
    while !stop.load(Ordering::Relaxed) {
        let what = match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(PROBE_READ)).unwrap();
                match stream.read(&mut [0]) {
                    Ok(_) => Some(What::DoorClosedAtOnce),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => Some(What::DoorOpen),
                    // The door was shut before anybody looked.
                    Err(_) => None,
                }
            }
            Err(_) => Some(What::DoorRefused),
        };
        if let Some(what) = what {
            notes.note(Party::Callee(callee), what);
        }
        thread::sleep(PROBE);
    }
}

/// A request that has no final response yet.
struct Pending {
    /// As the caller sent it.
    request: String,
    /// As the callee got it last.
    passed: Option<String>,
    /// Since when its answer is waited for.
    since: Option<Instant>,
    tries: u32,
    /// Connects that failed.
    failed: u32,
}

struct Call {
    caller: u8,
    number: u8,
    /// What is added to the caller's CSeq numbers.
    shift: u32,
    pending: Option<Pending>,
    /// It was refused here: what comes of it goes nowhere.
    refused: bool,
}

struct World {
    listener: TcpListener,
    callee_port: u16,
    script: Script,
    notes: Notes,
    links: Vec<Option<Link>>,
    /// The newest connection of each party.
    newest: HashMap<Party, usize>,
    calls: HashMap<String, Call>,
    /// When, and the Call-ID of what is passed on then.
    due: Vec<(Instant, String)>,
    /// For callers that have no connection now.
    mail: Vec<(u8, String)>,
    /// 2xx of INVITEs that callers may not have got before their connection was lost.
    recent: Vec<(Instant, u8, String)>,
}

impl World {
    fn new(listener: TcpListener, callee_port: u16, script: Script, notes: Notes) -> Self {
        Self {
            listener,
            callee_port,
            script,
            notes,
            links: Vec::new(),
            newest: HashMap::new(),
            calls: HashMap::new(),
            due: Vec::new(),
            mail: Vec::new(),
            recent: Vec::new(),
        }
    }

    fn run(mut self, stop: &AtomicBool) {
        let ends = Instant::now() + Duration::from_secs(60);
        while !stop.load(Ordering::Relaxed) && Instant::now() < ends {
            let mut idle = true;
            if let Ok((stream, from)) = self.listener.accept() {
                let IpAddr::V4(ip) = from.ip() else { continue };
                let party = match ip.octets() {
                    [_, 20, _, n] => Party::Callee(n),
                    [.., n] => Party::Caller(n),
                };
                let tls = self.script.tls.as_ref().map(Tls::accept);
                self.adopt(Link::new(stream, party, tls));
                idle = false;
            }
            for id in 0..self.links.len() {
                idle &= !self.turn(id);
            }
            self.pass_due();
            self.lose_patience();
            if idle {
                thread::sleep(Duration::from_micros(200));
            }
        }
    }

    fn adopt(&mut self, link: Link) -> usize {
        self.notes.note(link.party, What::Connected);
        self.newest.insert(link.party, self.links.len());
        if let Party::Caller(n) = link.party {
            let waiting: Vec<_> = self.mail.extract_if(.., |(to, _)| *to == n).collect();
            self.links.push(Some(link));
            for (_, text) in waiting {
                self.send(Party::Caller(n), &text);
            }
        } else {
            self.links.push(Some(link));
        }
        self.links.len() - 1
    }

    /// One turn of a connection; true when something came.
    fn turn(&mut self, id: usize) -> bool {
        let patience = self.script.patience;
        let Some(link) = &mut self.links[id] else { return false };
        let (party, inside) = (link.party, !link.inbox.is_empty());
        let over = match link.turn(patience) {
            Heard::Nothing => return false,
            Heard::Bytes => None,
            Heard::Trickle => {
                self.notes.note(party, What::Trickle);
                None
            }
            Heard::Eof => {
                self.notes.note(party, What::Eof(inside));
                link.ended = Some(Instant::now());
                let _ = link.stream.write(b"\r\n\r\n");
                self.lost(id, party);
                return true;
            }
            Heard::AfterEof(reset) => match link.ended.map(|at| at.elapsed()) {
                _ if reset => Some(What::Closed),
                Some(since) if since > HALF_CLOSED => Some(What::HalfClosed),
                _ => return false,
            },
            Heard::Reset => Some(What::Reset(inside)),
            Heard::Alert(text) => Some(What::Alert(text)),
            Heard::Stalled => Some(What::Stalled),
        };
        if let Some(what) = over {
            self.notes.note(party, what);
            self.drop_link(id);
            self.lost(id, party);
            return true;
        }
        self.read_messages(id, party);
        true
    }

    fn read_messages(&mut self, id: usize, party: Party) {
        while let Some(text) =
            self.links[id].as_mut().and_then(|link| next_message(&mut link.inbox))
        {
            match party {
                Party::Caller(n) => self.on_caller_message(n, text),
                Party::Callee(_) => self.on_callee_message(party, &text),
            }
        }
    }

    /// Ends a connection so that nothing of it comes later: neither what the party has not read, nor
    /// what a fault has held up.
    fn drop_link(&mut self, id: usize) {
        if let Some(link) = self.links[id].take() {
            let linger = Some(Duration::ZERO);
            socket2::SockRef::from(&link.stream).set_linger(linger).unwrap();
        }
    }

    /// A party's newest connection is gone: what its calls wait for is sent again.
    fn lost(&mut self, id: usize, party: Party) {
        if self.newest.get(&party) != Some(&id) {
            return;
        }
        self.newest.remove(&party);
        let number = match party {
            Party::Callee(number) => number,
            Party::Caller(n) => {
                let own =
                    self.recent.iter().filter(|(at, to, _)| *to == n && at.elapsed() < RECENT);
                self.mail.extend(own.map(|(_, to, text)| (*to, text.clone())));
                return;
            }
        };
        let of_party = |(_, call): &(&String, &Call)| call.number == number;
        let calls: Vec<String> =
            self.calls.iter().filter(of_party).map(|(id, _)| id.clone()).collect();
        for call_id in calls {
            self.try_later(&call_id, DELAY);
        }
    }

    fn try_later(&mut self, call_id: &str, wait: Duration) {
        let Some(call) = self.calls.get_mut(call_id) else { return };
        let Some(pending) = &mut call.pending else { return };
        if header(&pending.request, "To").contains(";tag=") {
            pending.since = None;
            self.due.retain(|(_, other)| other != call_id);
            self.due.push((Instant::now() + wait, call_id.to_owned()));
            return;
        }
        // A first INVITE is not recovered.
        call.refused = true;
        self.refuse(call_id);
    }

    fn refuse(&mut self, call_id: &str) {
        let Some(call) = self.calls.get_mut(call_id) else { return };
        let Some(pending) = call.pending.take() else { return };
        let party = Party::Caller(call.caller);
        self.send(party, &refusal(&pending.request, "503 Service Unavailable"));
    }

    fn lose_patience(&mut self) {
        let patience = self.script.patience;
        let silent = |call: &Call| {
            let since = call.pending.as_ref().and_then(|pending| pending.since);
            since.is_some_and(|since| since.elapsed() > patience)
        };
        let numbers: Vec<u8> =
            self.calls.values().filter(|call| silent(call)).map(|call| call.number).collect();
        for party in numbers.into_iter().map(Party::Callee) {
            if let Some(id) = self.newest.get(&party).copied() {
                self.notes.note(party, What::Silent);
                self.drop_link(id);
                self.lost(id, party);
            }
        }
    }

    fn send(&mut self, party: Party, text: &str) {
        match (self.newest.get(&party), party) {
            (Some(id), _) => {
                if let Some(link) = &mut self.links[*id] {
                    link.write(text.as_bytes());
                }
            }
            (None, Party::Caller(n)) => self.mail.push((n, text.to_owned())),
            (None, Party::Callee(_)) => {}
        }
    }

    fn on_caller_message(&mut self, caller: u8, text: String) {
        // The peer acknowledges what callees answer itself: an ACK may be lost with its caller's flow.
        if text.starts_with("SIP/2.0") || text.starts_with("ACK") {
            return;
        }
        let call_id = header(&text, "Call-ID").to_owned();
        let uri = text.split(' ').nth(1).unwrap();
        let number: u32 = uri["sip:".len()..].split('@').next().unwrap().parse().unwrap_or(0);
        let call = self.calls.entry(call_id.clone()).or_insert_with(|| Call {
            caller,
            number: number.saturating_sub(70_000) as u8,
            shift: 0,
            pending: None,
            refused: false,
        });
        if call.refused {
            return;
        }
        if text.starts_with("INVITE") {
            let contact = header(&text, "Contact");
            let port = contact.rsplit(':').next().unwrap().split([';', '>']).next().unwrap();
            self.notes.note(Party::Caller(caller), What::Contact(port.parse().unwrap()));
        }
        let again = text.starts_with("INVITE") && header(&text, "To").contains(";tag=");
        call.pending =
            Some(Pending { request: text, passed: None, since: None, tries: 0, failed: 0 });
        let wait = if again { LAG } else { Duration::ZERO };
        self.due.push((Instant::now() + wait, call_id));
    }

    fn pass_due(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self.due.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, call_id) in due {
            self.pass(&call_id);
        }
    }

    /// Sends a request to its callee, with a CSeq and a branch that it does not know.
    fn pass(&mut self, call_id: &str) {
        let number = self.calls[call_id].number;
        if !self.connect(number) {
            let pending = self.calls.get_mut(call_id).and_then(|call| call.pending.as_mut());
            let Some(pending) = pending else { return };
            pending.failed += 1;
            return match pending.failed > FAILED_MAX {
                true => self.refuse(call_id),
                false => self.try_later(call_id, DELAY),
            };
        }
        let call = self.calls.get_mut(call_id).unwrap();
        let Some(pending) = &mut call.pending else { return };
        if pending.tries > 0 {
            call.shift += 1;
        }
        pending.tries += 1;
        let old = branch(&pending.request);
        let new = format!("{old}t{}", pending.tries);
        let text = with_cseq(&pending.request, i64::from(call.shift)).replacen(old, &new, 1);
        (pending.passed, pending.since) = (Some(text.clone()), Some(Instant::now()));
        self.send(Party::Callee(number), &text);
    }

    /// Whether there is a connection to a callee now.
    fn connect(&mut self, number: u8) -> bool {
        let party = Party::Callee(number);
        if self.newest.contains_key(&party) {
            return true;
        }
        let address = SocketAddr::from((Ipv4Addr::new(127, 20, 0, number), self.callee_port));
        match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(stream) => {
                let tls = self.script.tls.as_ref().map(|tls| tls.connect(address.ip()));
                self.adopt(Link::new(stream, party, tls));
                true
            }
            Err(error) => {
                let timed_out = error.kind() == ErrorKind::TimedOut;
                let what = if timed_out { What::ConnectTimedOut } else { What::Refused };
                self.notes.note(party, what);
                false
            }
        }
    }

    fn on_callee_message(&mut self, party: Party, text: &str) {
        let call_id = header(text, "Call-ID");
        let Some(call) = self.calls.get(call_id).filter(|_| text.starts_with("SIP/2.0")) else {
            return;
        };
        let status: u16 = text["SIP/2.0 ".len()..][..3].parse().unwrap();
        if status < 200 {
            return;
        }
        let current = |passed: &&String| header(passed, "CSeq") == header(text, "CSeq");
        let pending = call.pending.as_ref();
        let passed = pending.and_then(|pending| pending.passed.as_ref());
        let Some(passed) = passed.filter(current).cloned() else {
            self.notes.note(party, What::Twice(status));
            return;
        };
        if passed.starts_with("INVITE") {
            let since = pending.and_then(|pending| pending.since);
            let waited = since.map(|since| since.elapsed()).unwrap_or_default();
            let lines = text
                .lines()
                .filter(|line| line.starts_with("Error-Info") || line.starts_with("Retry-After"));
            let lines: Vec<String> = lines.map(str::to_owned).collect();
            let wait = lines.iter().find_map(|line| line.strip_prefix("Retry-After: "));
            let wait = wait.map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
            self.notes.note(party, What::Answered(status, lines, waited));
            let again = header(&passed, "To").contains(";tag=");
            if again && [430, 477, 503].contains(&status) {
                self.send(party, &ack(&passed, text, branch(&passed)));
                return self.try_later(call_id, wait.unwrap_or(DELAY));
            }
        }
        self.pass_back(party, text, &passed);
    }

    /// A final response goes to the caller; a 2xx of INVITE is acknowledged here.
    fn pass_back(&mut self, party: Party, text: &str, passed: &str) {
        let call_id = header(text, "Call-ID");
        // What was to be sent again is not.
        self.due.retain(|(_, other)| other != call_id);
        let Some(call) = self.calls.get_mut(call_id) else { return };
        let Some(pending) = call.pending.take() else { return };
        let back = with_cseq(text, -i64::from(call.shift));
        let back = back.replacen(branch(text), branch(&pending.request), 1);
        let caller = call.caller;
        if passed.starts_with("INVITE") && text.starts_with("SIP/2.0 2") {
            let own = format!("{}ack", branch(passed));
            self.send(party, &ack(passed, text, &own));
            self.recent.retain(|(at, ..)| at.elapsed() < RECENT);
            self.recent.push((Instant::now(), caller, back.clone()));
        }
        self.send(Party::Caller(caller), &back);
    }
}

fn next_message(bytes: &mut Vec<u8>) -> Option<String> {
    while bytes.starts_with(b"\r\n") {
        bytes.drain(..2);
    }
    let text = std::str::from_utf8(bytes).unwrap();
    let head = text.find("\r\n\r\n")? + 4;
    let body: usize = header(&text[..head], "Content-Length").parse().unwrap();
    if bytes.len() < head + body {
        return None;
    }
    Some(String::from_utf8(bytes.drain(..head + body).collect()).unwrap())
}

fn with_cseq(text: &str, more: i64) -> String {
    let old = header(text, "CSeq");
    let (cseq, method) = old.split_once(' ').unwrap();
    let new = cseq.parse::<i64>().unwrap() + more;
    text.replacen(&format!("\r\nCSeq: {old}\r\n"), &format!("\r\nCSeq: {new} {method}\r\n"), 1)
}

/// The ACK of a final response; that of a refusal has the branch of its request.
fn ack(request: &str, response: &str, own: &str) -> String {
    let uri = request.split(' ').nth(1).unwrap();
    let mut text = format!("ACK {uri} SIP/2.0\r\nMax-Forwards: 70\r\n");
    for (name, from) in
        [("Via", request), ("From", request), ("To", response), ("Call-ID", request)]
    {
        text += &format!("{name}: {}\r\n", header(from, name));
    }
    let cseq = header(request, "CSeq").replace("INVITE", "ACK");
    text = text.replacen(branch(request), own, 1);
    text + &format!("CSeq: {cseq}\r\nContent-Length: 0\r\n\r\n")
}
