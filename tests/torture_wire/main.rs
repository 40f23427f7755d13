//! The torture messages on the wire: each over a TCP connection of its own to the real server.
//!
//! What is expected stands in `docs/TORTURE.md`, one row a message, and nowhere else. The messages of
//! RFC 4475 and `edge` lie outside of the package; without them this says so, and takes its own.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]
#![allow(clippy::disallowed_methods, reason = "a test of real sockets")]
#![allow(dead_code, unreachable_pub, reason = "shared with tests/loopback and tests/torture.rs")]

#[path = "../loopback/child.rs"]
mod child;
#[path = "../torture_messages/mod.rs"]
mod torture_messages;
#[path = "../loopback/ua.rs"]
mod ua;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use child::{Server, Setup};

/// A server that says nothing for so long waits for the rest of a message.
const SILENCE: Duration = Duration::from_millis(400);

const PING: &[u8] = b"\r\n\r\n";

/// Each message by its name: the project's own, and those that lie outside where they are there.
fn messages() -> BTreeMap<String, Vec<u8>> {
    let own = torture_messages::own();
    let mut all: BTreeMap<String, Vec<u8>> =
        own.into_iter().map(|own| (own.name.to_owned(), own.bytes)).collect();
    for folder in ["rfc4475", "edge"] {
        let path = match std::env::var_os("HOLDFAST_TORTURE") {
            Some(root) => Path::new(&root).join(folder),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/torture").join(folder),
        };
        let Ok(files) = std::fs::read_dir(&path) else {
            eprintln!("skipped: {} is not there", path.display());
            continue;
        };
        for file in files.map(|file| file.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "dat") {
                let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
                all.insert(name, std::fs::read(&file).unwrap());
            }
        }
    }
    all
}

/// The outcome of each message in the document.
fn rows() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/TORTURE.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some((name.to_owned(), rest.split_once(" |")?.0.trim().to_owned()))
    });
    let mut unique = BTreeMap::new();
    for (name, outcome) in rows {
        assert!(unique.insert(name.clone(), outcome).is_none(), "{name} has two rows");
    }
    unique
}

/// The statuses that come back, and then `silence` or `closed`, or, where nothing came and the next
/// ping is answered, `nothing`.
fn outcome(server: SocketAddr, message: &[u8]) -> String {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let mut said = Vec::new();
    let written = stream.write_all(message).and_then(|()| stream.write_all(PING));
    let mut read = Vec::new();
    let end = loop {
        while let Some(len) = whole(&read) {
            let text = String::from_utf8_lossy(&read[..len]).into_owned();
            said.push(text.split(' ').nth(1).unwrap().to_owned());
            check_response(&text);
            read.drain(..len);
        }
        if read.starts_with(b"\r\n") {
            break None;
        }
        let mut bytes = [0; 65_536];
        match stream.read(&mut bytes) {
            Ok(0) => break Some("closed"),
            Ok(count) => read.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break Some("silence"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break Some("closed"),
            Err(error) => panic!("{error}, {written:?}"),
        }
    };
    said.extend(end.map(str::to_owned));
    if said.is_empty() { "nothing".to_owned() } else { said.join(", ") }
}

/// Bytes of the response that `read` begins with.
fn whole(read: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(read);
    let head = read.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
    let len = head + length.parse::<usize>().unwrap();
    (read.len() >= len).then_some(len)
}

/// What goes with a status (RFC 3261 §8.2.1, §8.2.2.3).
fn check_response(response: &str) {
    if response.starts_with("SIP/2.0 405 ") || response.starts_with("SIP/2.0 501 ") {
        assert!(response.contains("\r\nAllow: INVITE, "), "{response}");
    }
    if response.starts_with("SIP/2.0 420 ") {
        assert!(response.contains("\r\nUnsupported: "), "{response}");
        assert!(!response.contains("100rel"), "{response}");
    }
}

fn assert_serves(server: SocketAddr, after: &str) {
    let options = torture_messages::own().into_iter().find(|own| own.name == "v6-uri").unwrap();
    assert_eq!(outcome(server, &options.bytes), "200", "after {after}");
}

#[test]
fn every_message_has_its_outcome_and_the_server_serves_on() {
    let server = Server::start(&Setup::default());
    let rows = rows();
    let mut wrong = Vec::new();
    for (name, bytes) in messages() {
        let found = outcome(server.address, &bytes);
        let expected = rows.get(&name).map_or("no row", String::as_str);
        if found != expected {
            wrong.push(format!("{name}: {expected} in the table, {found} on the wire"));
        }
        assert_serves(server.address, &name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_row_of_the_table_is_of_a_message() {
    let messages = messages();
    let has_all = messages.contains_key("wsinv") && messages.contains_key("e01_plain");
    let own = torture_messages::own().len();
    for name in rows().keys() {
        assert!(messages.contains_key(name) || !has_all, "{name}");
    }
    assert!(rows().len() >= own);
}

#[test]
fn messages_with_ipv6_have_the_same_outcome_over_ipv6() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return eprintln!("skipped: this machine has no ::1");
    };
    let address = listener.local_addr().unwrap();
    drop(listener);
    let more = "[[device]]\ndn = \"7006\"\ntype = \"Extension\"\ncontact = \"sip:7006@[::1]:9\"\n";
    let server = Server::start(&Setup { address, more, ..Setup::default() });
    let rows = rows();
    for own in torture_messages::own().iter().filter(|own| own.name.starts_with("v6-")) {
        assert_eq!(outcome(server.address, &own.bytes), rows[own.name], "{}", own.name);
    }
    assert_serves(server.address, "all");
}
