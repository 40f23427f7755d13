//! A scripted server for the generator's tests: passes messages on as they are, and after a
//! reset sends the request again after delays that the script chose, and writes down what it did.

#![allow(dead_code, reason = "each program of tests uses a part of it")]

mod breach;

pub(crate) use breach::Breach;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// What the relay does after a reset.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Script {
    /// The n-th request that is sent again waits this long…
    pub(crate) delay: Duration,
    /// …and this much more for each n modulo 10.
    pub(crate) more: Duration,
    /// The n-th one is answered 503 instead.
    pub(crate) refuse: Option<usize>,
    /// None is sent again: 408 and BYE to the caller.
    pub(crate) release: bool,
    /// Requests are sent again with the CSeq and the branch that they had.
    pub(crate) same_cseq: bool,
    /// The rule that it breaks.
    pub(crate) breach: Option<Breach>,
}

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    /// Port that callees must listen on.
    pub(crate) callee_port: u16,
    stop: Arc<AtomicBool>,
    waits: Receiver<Duration>,
}

impl Relay {
    pub(crate) fn start(script: Script) -> Self {
        let free = TcpListener::bind((Ipv4Addr::new(127, 20, 0, 1), 0)).unwrap();
        let callee_port = free.local_addr().unwrap().port();
        Self::at("127.0.0.1:0".parse().unwrap(), callee_port, script)
    }

    /// One for callers at `address` and callees at a port that somebody else chose.
    pub(crate) fn at(address: SocketAddr, callee_port: u16, script: Script) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, (tell, waits)) = (Arc::new(AtomicBool::new(false)), channel());
        let flag = Arc::clone(&stop);
        thread::spawn(move || World::new(listener, callee_port, script, tell).run(&flag));
        Self { address, callee_port, stop, waits }
    }

    /// How long each recovered request took, from the reset to its answer: sorted.
    pub(crate) fn waits(&self) -> Vec<Duration> {
        let mut waits: Vec<_> = self.waits.try_iter().collect();
        waits.sort();
        waits
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Conn {
    stream: TcpStream,
    bytes: Vec<u8>,
    /// The number that it leads to; `None`: a caller.
    number: Option<u32>,
}

struct Call {
    caller: usize,
    number: u32,
    /// What is added to the caller's CSeq numbers.
    shift: u32,
    /// The INVITE that has no final response yet, as the caller sent it.
    pending: Option<String>,
    reset_at: Option<Instant>,
}

struct World {
    listener: TcpListener,
    callee_port: u16,
    script: Script,
    tell: Sender<Duration>,
    conns: Vec<Option<Conn>>,
    callees: HashMap<u32, usize>,
    calls: HashMap<String, Call>,
    /// When, and the Call-ID of what is sent again then.
    again: Vec<(Instant, String)>,
    resets: usize,
}

impl World {
    fn new(
        listener: TcpListener,
        callee_port: u16,
        script: Script,
        tell: Sender<Duration>,
    ) -> Self {
        listener.set_nonblocking(true).unwrap();
        Self {
            listener,
            callee_port,
            script,
            tell,
            conns: Vec::new(),
            callees: HashMap::new(),
            calls: HashMap::new(),
            again: Vec::new(),
            resets: 0,
        }
    }

    fn run(mut self, stop: &AtomicBool) {
        let ends = Instant::now() + Duration::from_secs(60);
        while !stop.load(Ordering::Relaxed) && Instant::now() < ends {
            let mut idle = true;
            if let Ok((stream, _)) = self.listener.accept() {
                self.adopt(stream, None);
                idle = false;
            }
            for id in 0..self.conns.len() {
                idle &= !self.read(id);
            }
            let now = Instant::now();
            let due: Vec<_> = self.again.extract_if(.., |(at, _)| *at <= now).collect();
            for (_, call_id) in due {
                self.send_again(&call_id);
            }
            if idle {
                thread::sleep(Duration::from_micros(100));
            }
        }
    }

    fn adopt(&mut self, stream: TcpStream, number: Option<u32>) -> usize {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        self.conns.push(Some(Conn { stream, bytes: Vec::new(), number }));
        self.conns.len() - 1
    }

    /// True when there was something to read.
    fn read(&mut self, id: usize) -> bool {
        let Some(conn) = &mut self.conns[id] else { return false };
        let mut buffer = [0; 65536];
        match conn.stream.read(&mut buffer) {
            Ok(len) if len > 0 => conn.bytes.extend_from_slice(&buffer[..len]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
            Ok(_) | Err(_) => {
                let conn = self.conns[id].take().unwrap();
                if let Some(number) = conn.number {
                    self.on_callee_lost(number);
                }
                return true;
            }
        }
        while let Some(message) = self.next_message(id) {
            match self.conns[id].as_ref().and_then(|conn| conn.number) {
                None => self.on_caller_message(id, message),
                Some(_) => self.on_callee_message(message),
            }
        }
        true
    }

    fn next_message(&mut self, id: usize) -> Option<String> {
        let bytes = &mut self.conns[id].as_mut()?.bytes;
        let text = std::str::from_utf8(bytes).unwrap();
        let head = text.find("\r\n\r\n")? + 4;
        let body: usize = header(&text[..head], "Content-Length").parse().unwrap();
        if bytes.len() < head + body {
            return None;
        }
        let message = bytes.drain(..head + body).collect();
        Some(String::from_utf8(message).unwrap())
    }

    fn send(&mut self, id: usize, text: &str) {
        let Some(conn) = &mut self.conns[id] else { return };
        let (mut rest, mut tries) = (text.as_bytes(), 0);
        while !rest.is_empty() && tries < 10_000 {
            tries += 1;
            match conn.stream.write(rest) {
                Ok(len) => rest = &rest[len..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_micros(200));
                }
                Err(_) => return,
            }
        }
    }

    fn on_caller_message(&mut self, id: usize, text: String) {
        if text.starts_with("SIP/2.0") {
            return;
        }
        let call_id = header(&text, "Call-ID").to_owned();
        let uri = text.split(' ').nth(1).unwrap();
        let number = uri["sip:".len()..].split('@').next().unwrap().parse().unwrap_or(0);
        let call = self.calls.entry(call_id.clone()).or_insert_with(|| Call {
            caller: id,
            number,
            shift: 0,
            pending: None,
            reset_at: None,
        });
        if text.starts_with("INVITE") {
            call.pending = Some(text.clone());
        }
        let breach = self.script.breach;
        for back in breach.map(|breach| breach.back(&text)).unwrap_or_default() {
            self.send(id, &back);
        }
        self.pass_on(&call_id, &text, "");
    }

    /// To the callee, with the CSeq that it expects.
    fn pass_on(&mut self, call_id: &str, text: &str, branch_end: &str) {
        let call = &self.calls[call_id];
        let (cseq, method) = header(text, "CSeq").split_once(' ').unwrap();
        let cseq = cseq.parse::<u32>().unwrap() + call.shift;
        let branch = branch(text);
        let text = text
            .replacen(
                &format!("\r\nCSeq: {}", header(text, "CSeq")),
                &format!("\r\nCSeq: {cseq} {method}"),
                1,
            )
            .replacen(branch, &format!("{branch}{branch_end}"), 1);
        let number = call.number;
        let id = match self.callees.get(&number) {
            Some(id) => *id,
            None => {
                let ip = Ipv4Addr::new(127, 20, 0, (number - 70_000) as u8);
                let Ok(stream) = TcpStream::connect((ip, self.callee_port)) else {
                    return self.retry_later(call_id, self.script.delay);
                };
                let id = self.adopt(stream, Some(number));
                self.callees.insert(number, id);
                id
            }
        };
        match self.script.breach {
            None => self.send(id, &text),
            Some(breach) => {
                for text in breach.to_callee(&text, !branch_end.is_empty()) {
                    self.send(id, &text);
                }
            }
        }
    }

    fn retry_later(&mut self, call_id: &str, wait: Duration) {
        self.again.push((Instant::now() + wait, call_id.to_owned()));
    }

    fn send_again(&mut self, call_id: &str) {
        let call = self.calls.get_mut(call_id).unwrap();
        let Some(text) = call.pending.clone() else { return };
        if !self.script.same_cseq {
            call.shift += 1;
        }
        let end = if self.script.same_cseq { "" } else { &format!("r{}", call.shift) };
        self.pass_on(call_id, &text, end);
    }

    fn on_callee_message(&mut self, text: String) {
        if !text.starts_with("SIP/2.0") {
            return;
        }
        let call = self.calls.get_mut(header(&text, "Call-ID")).unwrap();
        let (cseq, method) = header(&text, "CSeq").split_once(' ').unwrap();
        let cseq = cseq.parse::<u32>().unwrap() - call.shift;
        let final_invite = method == "INVITE" && !text.starts_with("SIP/2.0 1");
        let mut back = text.replacen(
            &format!("\r\nCSeq: {}", header(&text, "CSeq")),
            &format!("\r\nCSeq: {cseq} {method}"),
            1,
        );
        if let Some(request) = call.pending.take_if(|_| final_invite) {
            back = back.replacen(branch(&text), branch(&request), 1);
            if let Some(at) = call.reset_at.take() {
                let _ = self.tell.send(at.elapsed());
            }
        }
        let caller = call.caller;
        for more in self.script.breach.map_or(vec![back.clone()], |breach| breach.to_caller(&back))
        {
            self.send(caller, &more);
        }
    }

    fn on_callee_lost(&mut self, number: u32) {
        self.callees.remove(&number);
        let now = Instant::now();
        let mut waiting: Vec<_> = self.calls.iter_mut().collect();
        waiting.retain(|(_, call)| call.number == number && call.pending.is_some());
        waiting.sort_by_key(|(call_id, _)| (*call_id).clone());
        let mut to_callers = Vec::new();
        for (call_id, call) in waiting {
            let n = self.resets;
            self.resets += 1;
            if self.script.refuse == Some(n) || self.script.release {
                let request = call.pending.take().unwrap();
                let status = if self.script.release { "408 Timeout" } else { "503 Unavailable" };
                to_callers.push((call.caller, refusal(&request, status)));
                if self.script.release {
                    to_callers.push((call.caller, bye(&request)));
                }
                continue;
            }
            call.reset_at = Some(now);
            let wait = self.script.delay + self.script.more * (n % 10) as u32;
            self.again.push((now + wait, call_id.clone()));
        }
        for (caller, text) in to_callers {
            self.send(caller, &text);
        }
    }
}

pub(crate) fn refusal(request: &str, status: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        text += &format!("{name}: {}\r\n", header(request, name));
    }
    text + "Content-Length: 0\r\n\r\n"
}

/// A BYE from the callee's side of the caller's dialog.
fn bye(request: &str) -> String {
    let (from, to) = (header(request, "To"), header(request, "From"));
    let call_id = header(request, "Call-ID");
    format!(
        "BYE sip:caller@127.30.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bKbye\r\n\
         From: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: 1 BYE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
}

pub(crate) fn header<'a>(text: &'a str, name: &str) -> &'a str {
    let line =
        text.lines().find(|line| line.starts_with(name) && line[name.len()..].starts_with(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))[name.len() + 1..].trim()
}

pub(crate) fn branch(text: &str) -> &str {
    let at = text.find("branch=").unwrap() + 7;
    text[at..].split([';', '\r', ',']).next().unwrap()
}
