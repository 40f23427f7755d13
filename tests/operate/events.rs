//! Events in a file and on a socket, and what applications ask for there.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::net::UnixStream;

use super::*;

fn says(more: &str) -> Says<'_> {
    Says { delay: 500, device: None, window: 20, more }
}

/// The value of a member of a line of JSON, as it is written.
fn member<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("\"{name}\":"))?;
    let end = rest.find([',', '}']).unwrap();
    Some(rest[..end].trim_matches('"'))
}

fn number(line: &str, name: &str) -> Option<u64> {
    member(line, name).map(|text| text.parse().unwrap())
}

struct Reader(BufReader<UnixStream>);

impl Reader {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the socket was closed");
        assert!(line.starts_with("{\"Event\":\"") && line.ends_with("}\n"), "{line}");
        line
    }

    /// The next event of this name.
    fn event(&mut self, name: &str) -> String {
        loop {
            let line = self.line();
            if member(&line, "Event") == Some(name) {
                return line;
            }
        }
    }
}

fn ask(request: &str, reference: u64, connection: &str, leg: &str) -> String {
    format!(
        "{{\"Request\":\"{request}\",\"ReferenceID\":{reference},\"ConnID\":\"{connection}\",\
         \"Leg\":\"{leg}\"}}\n"
    )
}

#[test]
fn an_application_holds_retrieves_and_releases_a_call_over_the_socket() {
    let path = OwnPath::new("events");
    let more = format!("[events]\nsocket = \"{}\"\n", path.display());
    let (mut world, listener) = World::new(says(&more));
    let mut reader = Reader::connect(&path);
    world.wait_until("holdfast_events_subscribers", 1);
    let mut callee = None;
    world.call(1, &listener, &mut callee);
    let mut callee = callee.unwrap();
    let established = reader.event("EventEstablished");
    assert_eq!(number(&established, "MessageID"), Some(64));
    assert_eq!(member(&established, "Leg"), Some("caller"));
    let connection = member(&established, "ConnID").unwrap().to_owned();

    reader.ask(&ask("RequestHoldCall", 7, &connection, "callee"));
    let invite = callee.receive();
    assert!(invite.is("INVITE ") && invite.header("Content-Length") == "0", "{invite:?}");
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
               m=audio 4000 RTP/AVP 0\r\n";
    let with_offer = |answer: String| {
        answer.replace(
            "Content-Length: 0\r\n\r\n",
            &format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len()),
        )
    };
    let contact = world.contact();
    callee.send(&with_offer(invite.response("200 OK", &contact)));
    let ack = callee.receive();
    assert!(ack.is("ACK ") && ack.0.contains("a=inactive"), "{ack:?}");
    let held = reader.event("EventHeld");
    assert_eq!(number(&held, "ReferenceID"), Some(7));
    assert_eq!(member(&held, "ThisDN"), Some("7002"));

    reader.ask(&ask("RequestHoldCall", 8, &connection, "callee"));
    let refused = reader.event("EventError");
    assert_eq!(number(&refused, "ReferenceID"), Some(8));
    assert_eq!(number(&refused, "ErrorCode"), Some(43));

    reader.ask(&ask("RequestRetrieveCall", 9, &connection, "callee"));
    let invite = callee.receive();
    callee.send(&with_offer(invite.response("200 OK", &contact)));
    let rejoin = world.caller.receive();
    assert!(rejoin.is("INVITE ") && rejoin.0.ends_with(sdp), "{rejoin:?}");
    let own = "sip:7001@127.0.0.1:9;transport=tcp";
    world.caller.send(&with_offer(rejoin.response("200 OK", own)));
    assert!(world.caller.receive().is("ACK "));
    assert!(callee.receive().is("ACK "));
    assert_eq!(number(&reader.event("EventRetrieved"), "ReferenceID"), Some(9));

    reader.ask(&ask("RequestReleaseCall", 10, &connection, "caller"));
    assert!(callee.receive().is("BYE "));
    assert!(world.caller.receive().is("BYE "));
    let released = reader.event("EventReleased");
    assert!(released.contains("\"ReleasingParty\":\""), "{released}");
    reader.ask(&ask("RequestReleaseCall", 11, &connection, "caller"));
    let unknown = reader.event("EventError");
    assert_eq!(
        (number(&unknown, "ErrorCode"), number(&unknown, "ReferenceID")),
        (Some(56), Some(11))
    );
}

#[test]
fn a_recovery_is_in_the_file_with_cause_delay_and_deadline() {
    let path = OwnPath::new("events.jsonl");
    let more = format!("[events]\nfile = \"{}\"\n", path.display());
    let (mut world, listener) = World::new(says(&more));
    let mut callee = None;
    let call = world.call(1, &listener, &mut callee);
    drop(callee);
    world.wait_until("holdfast_flows{", 1);
    drop(listener);
    world.caller.send(&call.request("INVITE", 2));
    world.wait_until("holdfast_recoveries_waiting{", 1);
    // Rotation: the file is moved away, and SIGHUP makes a new one.
    let moved = path.with_extension("1");
    thread::sleep(Duration::from_millis(50));
    fs::rename(&*path, &moved).unwrap();
    world.server.signal("HUP");
    world.server.wait_for("configuration in force");
    let listener = TcpListener::bind(world.callee).unwrap();
    let mut callee = world.recover(&call, &listener);
    world.end(&call, 3, &mut callee);
    world.server.signal("TERM");
    world.server.wait();

    let (before, after) =
        (fs::read_to_string(&moved).unwrap(), fs::read_to_string(&*path).unwrap());
    fs::remove_file(&moved).unwrap();
    let started = before.lines().last().unwrap();
    assert_eq!(member(started, "UserEvent"), Some("RecoveryStarted"), "{before}");
    assert_eq!(member(started, "Cause"), Some("connect"));
    assert_eq!(number(started, "Delay"), Some(500));
    assert!(started.contains("\"Deadline\":{\"TimeinSecs\":"), "{started}");
    let succeeded = after.lines().next().unwrap();
    assert_eq!(member(succeeded, "UserEvent"), Some("RecoverySucceeded"), "{after}");
    assert_eq!(number(succeeded, "Attempts"), Some(2));
    assert_eq!(after.lines().filter(|line| line.contains("EventReleased")).count(), 2);
    let numbers: Vec<_> = before
        .lines()
        .chain(after.lines())
        .map(|line| number(line, "EventSequenceNumber").unwrap())
        .collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");
}

/// Events and lost ones of lines; the sequence must have exactly the gaps that are told.
fn count(lines: impl Iterator<Item = String>) -> (u64, u64) {
    let (mut events, mut lost) = (0, 0);
    for line in lines {
        if member(&line, "Event") == Some("Gap") {
            lost += number(&line, "Lost").unwrap();
        } else {
            events += 1;
            let sequence = number(&line, "EventSequenceNumber").unwrap();
            assert_eq!(events + lost, sequence, "{line}");
        }
    }
    (events, lost)
}

#[test]
fn events_that_find_no_room_are_a_gap_of_their_number() {
    let path = OwnPath::new("events.jsonl");
    let more = format!("[events]\nfile = \"{}\"\nqueue-max = 16\n", path.display());
    let (mut world, listener) = World::new(says(&more));
    let mut callee = None;
    let calls: Vec<_> = (0..300).map(|number| world.call(number, &listener, &mut callee)).collect();
    let mut callee = callee.unwrap();
    // All at once: the end of every call is two events.
    let text: String = calls.iter().map(|call| call.request("BYE", 2)).collect();
    world.caller.send(&text);
    world.wait_until("holdfast_calls{", 0);
    // And one more, after which every gap is known.
    thread::sleep(Duration::from_millis(100));
    let mut listening = None;
    for _ in 0..300 {
        assert!(callee.receive().is("BYE "));
    }
    listening.replace(callee);
    while world.caller.receive().header("Call-ID") != "299@caller" {}
    world.call(1000, &listener, &mut listening);
    let lost = world.metric("holdfast_events_lost_total{");
    let told = world.metric("holdfast_events_total{");
    world.server.signal("TERM");
    world.server.wait();
    let text = fs::read_to_string(&*path).unwrap();
    assert!(lost > 0, "nothing was lost of {told}");
    let (events, gaps) = count(text.lines().map(str::to_owned));
    assert!(gaps >= lost && events >= told.saturating_sub(1), "{events} {gaps} {told} {lost}");
}

#[test]
fn a_reader_that_does_not_read_loses_events_with_a_counted_gap_and_nobody_waits() {
    let path = OwnPath::new("events");
    let more = format!("[events]\nsocket = \"{}\"\n", path.display());
    let (mut world, listener) = World::new(says(&more));
    let mut slow = Reader::connect(&path);
    let mut quick = Reader::connect(&path);
    world.wait_until("holdfast_events_subscribers", 2);
    let quick = thread::spawn(move || {
        count(std::iter::from_fn(|| {
            let mut line = String::new();
            (quick.0.read_line(&mut line).unwrap_or(0) > 0).then_some(line)
        }))
    });
    let mut callee = None;
    let (mut number, mut lost) = (0, 0);
    while lost == 0 && number < 20_000 {
        let call = world.call(number, &listener, &mut callee);
        let callee = callee.as_mut().unwrap();
        world.end(&call, 2, callee);
        number += 1;
        if number % 200 == 0 {
            lost = world.metric("holdfast_events_unwritten_total{to=\"socket\"}");
        }
    }
    assert!(lost > 0, "nothing was lost in {number} calls");
    slow.0.get_ref().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        match slow.0.read_line(&mut line) {
            Ok(0) => break,
            Ok(_) => lines.push(line),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    // One more call brings the gap to the reader.
    let call = world.call(number, &listener, &mut callee);
    world.end(&call, 2, callee.as_mut().unwrap());
    world.server.signal("TERM");
    world.server.wait();
    for line in slow.0.lines().map_while(Result::ok) {
        lines.push(line);
    }
    let (events, gaps) = count(lines.into_iter());
    assert!(gaps > 0, "{events} events and no gap");
    let all = u64::from(number + 1) * 6;
    assert_eq!(events + gaps, all, "{number} calls of 6 events");
    assert_eq!(quick.join().unwrap(), (all, 0), "a reader that reads misses nothing");
}

#[test]
fn hostile_requests_are_answered_and_harm_nobody() {
    let path = OwnPath::new("events");
    let more = format!("[events]\nsocket = \"{}\"\n", path.display());
    let (mut world, listener) = World::new(says(&more));
    let mut rude = Reader::connect(&path);
    for line in [
        "\n",
        "{}\n",
        "RequestReleaseCall\n",
        "{\"Request\":\"RequestReleaseCall\",\"ReferenceID\":1,\"ConnID\":\"zz\",\"Leg\":\"caller\"}\n",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
        "\u{0}\u{1}\u{2}\n",
    ] {
        rude.ask(line);
        let refused = rude.event("EventError");
        assert_eq!(number(&refused, "ErrorCode"), Some(53), "{line}: {refused}");
    }
    for connection in ["ffffffffffffffffffff", "00000000000000000000", "00ff0000000100000001"] {
        rude.ask(&ask("RequestReleaseCall", 5, connection, "caller"));
        assert_eq!(number(&rude.event("EventError"), "ErrorCode"), Some(56), "{connection}");
    }
    rude.ask(&"x".repeat(5000));
    rude.event("EventError");
    let mut rest = String::new();
    assert_eq!(rude.0.read_line(&mut rest).unwrap_or(0), 0, "a line without end ends it: {rest}");

    let mut many: Vec<_> = (0..16).map(|_| Reader::connect(&path)).collect();
    world.wait_until("holdfast_events_subscribers", 16);
    let mut refused = Reader::connect(&path);
    assert_eq!(refused.0.read_line(&mut rest).unwrap_or(0), 0, "one too many is closed");
    let mut callee = None;
    let call = world.call(1, &listener, &mut callee);
    world.end(&call, 2, callee.as_mut().unwrap());
    for reader in &mut many {
        reader.event("EventReleased");
    }
}

#[test]
fn an_outlet_that_cannot_be_had_refuses_the_start_and_names_it() {
    for (option, value, part) in [
        ("file", "/nowhere/events", "/nowhere/events"),
        ("file", "/dev/null", "is no file"),
        ("socket", "/nowhere/events", "/nowhere/events"),
        ("socket", "/etc/passwd", "no socket"),
    ] {
        let more = format!("[events]\n{option} = \"{value}\"\n");
        let address = free_address();
        let whole = Some(text(says(&more), address, free_address(), free_address()));
        let mut server = Server::spawn(&Setup { address, whole, ..Setup::default() });
        server.wait_for(part);
        assert_eq!(server.wait().code(), Some(1));
    }
    assert!(fs::metadata("/etc/passwd").unwrap().is_file());
}

#[test]
fn a_socket_that_an_earlier_run_left_behind_is_taken_and_one_in_use_is_not() {
    let path = OwnPath::new("events");
    let more = format!("[events]\nsocket = \"{}\"\n", path.display());
    drop(std::os::unix::net::UnixListener::bind(&*path).unwrap());
    let (_world, _listener) = World::new(says(&more));
    Reader::connect(&path);
    let address = free_address();
    let whole = Some(text(says(&more), address, free_address(), free_address()));
    let mut second = Server::spawn(&Setup { address, whole, ..Setup::default() });
    second.wait_for("in use by another process");
    assert_eq!(second.wait().code(), Some(1));
}
