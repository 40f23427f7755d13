//! TLS: handshakes, certificates that are wrong, faults under it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls::{ServerConfig, ServerConnection};

use super::rig::{Event, LONG, Rig, Setup, address, request, request_of};
use super::streams::{peer, read_answers};
use crate::net::tls::Issued;
use crate::net::{Authority, Closed, Fault, Reconnect, Side, Tls, TlsOptions, Transport};

type Client = StreamOwned<ClientConnection, TcpStream>;

fn client(ca: &str, to: SocketAddr) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::IpAddress(to.ip().into());
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, peer(to))
}

fn callee() -> (Rig, Client, u32) {
    let mut rig = Rig::new();
    let mut client = client(&rig.ca, rig.listen(0, Transport::Tls));
    client.write_all(&request("first")).unwrap();
    let conn = rig.message().0.conn;
    assert_eq!(read_answers(&mut client, 1), 1);
    rig.opened();
    (rig, client, conn)
}

fn strike(rig: &Rig, fault: Fault) {
    let struck = rig.run(move |wire| wire.strike(Side::Callee, 0, fault)).unwrap();
    assert_eq!(struck.len(), 1);
}

/// A server of a given certificate; how its one handshake ends, and the client's certificates.
fn server(issued: &Issued, ask: Option<&str>) -> (SocketAddr, std::thread::JoinHandle<Served>) {
    let listener = TcpListener::bind((address(), 0)).unwrap();
    server_at(listener, issued, ask)
}

type Served = (Result<usize, std::io::Error>, usize);

fn server_at(
    listener: TcpListener,
    issued: &Issued,
    ask: Option<&str>,
) -> (SocketAddr, std::thread::JoinHandle<Served>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match ask {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                provider,
            );
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.private_key.as_bytes()).unwrap();
    let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
    let to = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer);
        if read.is_ok() {
            let _ = stream.write_all(b"\r\n");
        }
        (read, stream.conn.peer_certificates().map_or(0, <[_]>::len))
    });
    (to, served)
}

fn caller(rig: &Rig, to: SocketAddr) {
    let from = SocketAddr::from((address(), 0));
    rig.run(move |wire| {
        wire.start_connect(Side::Caller, 0, from, to, Transport::Tls, Reconnect::No);
    });
}

#[test]
fn many_messages_pass_both_ways() {
    let (_rig, mut client, _) = callee();
    let all: Vec<u8> = (0..300).flat_map(|n| request_of(&format!("{n}"), 500)).collect();
    client.write_all(&all).unwrap();
    assert_eq!(read_answers(&mut client, 300), 300);
}

#[test]
fn a_server_of_an_unknown_authority_is_refused() {
    let mut rig = Rig::new();
    let listener = TcpListener::bind((address(), 0)).unwrap();
    let ip = listener.local_addr().unwrap().ip();
    let foreign = Authority::new().unwrap().issue(&[ip.to_string()]).unwrap();
    let (to, served) = server_at(listener, &foreign, None);
    caller(&rig, to);
    let kind = failed(&mut rig);
    assert_eq!(kind, ErrorKind::InvalidData);
    let error = served.join().unwrap().0.expect_err("a handshake that fails");
    assert_alert(&error, AlertDescription::UnknownCA);
}

fn failed(rig: &mut Rig) -> ErrorKind {
    rig.event(|event| match event {
        Event::ConnectFailed(_, kind) => Some(*kind),
        _ => None,
    })
}

fn assert_alert(error: &std::io::Error, expected: AlertDescription) {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    assert_eq!(inner, Some(&rustls::Error::AlertReceived(expected)), "{error:?}");
}

/// A directory with what `authority` and one identity of it are.
fn files(authority: &Authority, issued: &Issued) -> (PathBuf, PathBuf, PathBuf) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("loadgen-tls-{}-{number}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    let of = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    (
        of("ca.pem", authority.pem()),
        of("certificate.pem", &issued.certificate),
        of("key.pem", &issued.private_key),
    )
}

#[test]
fn given_files_serve_as_authority_and_as_client_certificate() {
    let authority = Authority::new().unwrap();
    let own = authority.issue(&["caller".into()]).unwrap();
    let (ca, certificate, key) = files(&authority, &own);
    let listener = TcpListener::bind((address(), 0)).unwrap();
    let ip = listener.local_addr().unwrap().ip();
    let tls = TlsOptions {
        authorities: Some(ca.clone()),
        identity: Some((certificate, key)),
        full_handshakes: true,
        ..TlsOptions::default()
    };
    let mut rig = Rig::with(Setup { tls, ..Setup::default() });
    let theirs = authority.issue(&[ip.to_string()]).unwrap();
    let (to, served) = server_at(listener, &theirs, Some(authority.pem()));
    caller(&rig, to);
    let conn = rig.opened().conn;
    rig.say(conn, request("hello"));
    let (read, certificates) = served.join().unwrap();
    assert_eq!(read.unwrap(), request("hello").len());
    assert_eq!(certificates, 1);
    std::fs::remove_dir_all(ca.parent().unwrap()).unwrap();
}

#[test]
fn a_wrong_name_is_refused_and_insecure_takes_it() {
    let authority = Authority::new().unwrap();
    let own = authority.issue(&["caller".into()]).unwrap();
    let theirs = authority.issue(&["somebody.example".into()]).unwrap();
    let (ca, ..) = files(&authority, &own);
    for (insecure, name) in [(false, None), (false, Some("somebody.example")), (true, None)] {
        let good = insecure || name.is_some();
        let tls = TlsOptions {
            authorities: Some(ca.clone()),
            server_name: name.map(str::to_owned),
            insecure,
            ..TlsOptions::default()
        };
        let mut rig = Rig::with(Setup { tls, ..Setup::default() });
        let (to, served) = server(&theirs, None);
        caller(&rig, to);
        if good {
            let conn = rig.opened().conn;
            rig.say(conn, request("hello"));
            assert!(served.join().unwrap().0.is_ok());
        } else {
            assert_eq!(failed(&mut rig), ErrorKind::InvalidData);
            assert_alert(&served.join().unwrap().0.unwrap_err(), AlertDescription::BadCertificate);
        }
    }
    std::fs::remove_dir_all(ca.parent().unwrap()).unwrap();
}

#[test]
fn files_that_are_missing_or_hold_nothing_are_named() {
    let authority = std::sync::Arc::new(Authority::new().unwrap());
    let own = authority.issue(&["x".into()]).unwrap();
    let (ca, certificate, key) = files(&authority, &own);
    let empty = ca.with_file_name("empty.pem");
    std::fs::write(&empty, "no PEM\n").unwrap();
    let missing = ca.with_file_name("missing.pem");
    let error = |options: TlsOptions| Tls::new(&options, &authority).err().expect("an error");
    for path in [&empty, &missing] {
        let text = error(TlsOptions { authorities: Some(path.clone()), ..TlsOptions::default() });
        assert!(text.starts_with(&format!("{}: ", path.display())), "{text}");
        let identity = Some((path.clone(), key.clone()));
        let text = error(TlsOptions { identity, ..TlsOptions::default() });
        assert!(text.starts_with(&format!("{}: ", path.display())), "{text}");
        let identity = Some((certificate.clone(), path.clone()));
        let text = error(TlsOptions { identity, ..TlsOptions::default() });
        assert!(text.starts_with(&format!("{}: ", path.display())), "{text}");
    }
    std::fs::remove_dir_all(ca.parent().unwrap()).unwrap();
}

#[test]
fn a_fatal_alert_is_one_and_the_stream_ends() {
    let (mut rig, mut client, _) = callee();
    strike(&rig, Fault::TlsAlert);
    let error = client.read(&mut [0; 1]).expect_err("an alert");
    assert_alert(&error, AlertDescription::BadRecordMac);
    assert_eq!(client.sock.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(rig.closed(), Closed::Struck);
}

#[test]
fn fin_says_close_notify_first_and_reset_does_not() {
    let (rig, mut client, _) = callee();
    strike(&rig, Fault::Fin);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "an end in order");
    let (rig, mut client, _) = callee();
    strike(&rig, Fault::Reset);
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn half_close_goes_on_reading_under_tls() {
    let (mut rig, mut client, _) = callee();
    strike(&rig, Fault::HalfClose);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    client.write_all(&request("later")).unwrap();
    assert_eq!(rig.message().1, "later");
}

#[test]
fn half_a_message_is_decrypted_before_the_reset() {
    let (mut rig, mut client, conn) = callee();
    strike(&rig, Fault::CutInside);
    let whole = request_of("cut", 400);
    rig.say(conn, whole.clone());
    assert_eq!(rig.closed(), Closed::Struck);
    let mut read = Vec::new();
    let error = client.read_to_end(&mut read).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(read, whole[..whole.len() / 2]);
}

#[test]
fn blackhole_and_slow_writer_leave_tls_in_order() {
    let (mut rig, mut client, _) = callee();
    strike(&rig, Fault::Blackhole);
    client.write_all(&request("lost")).unwrap();
    client.sock.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.sock.set_read_timeout(Some(LONG)).unwrap();
    rig.run(|wire| wire.lift(Side::Callee, 0)).unwrap();
    strike(&rig, Fault::SlowWriter { gap: Duration::from_millis(1) });
    client.write_all(&request("trickle")).unwrap();
    assert_eq!(rig.message().1, "trickle");
    assert_eq!(read_answers(&mut client, 1), 1);
}

#[test]
fn a_stalled_handshake_gets_no_server_hello() {
    let rig = Rig::new();
    let to = rig.listen(0, Transport::Tls);
    rig.run(|wire| wire.strike(Side::Callee, 0, Fault::HandshakeStall)).unwrap();
    let mut stalled = client(&rig.ca, to);
    stalled.sock.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let error = stalled.write_all(&request("x")).expect_err("no handshake");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(rig.hears_nothing(Duration::from_millis(50)));
    rig.run(|wire| wire.lift(Side::Callee, 0)).unwrap();
    let mut good = client(&rig.ca, to);
    good.write_all(&request("y")).unwrap();
    assert_eq!(read_answers(&mut good, 1), 1);
}

#[test]
fn a_server_that_never_shakes_hands_is_given_up() {
    let limits = crate::net::Limits {
        connect_timeout: Duration::from_millis(300),
        ..crate::net::Limits::default()
    };
    let mut rig = Rig::with(Setup { limits, ..Setup::default() });
    let silent = TcpListener::bind((address(), 0)).unwrap();
    caller(&rig, silent.local_addr().unwrap());
    assert_eq!(failed(&mut rig), ErrorKind::TimedOut);
}

#[test]
fn a_handshake_that_fails_is_tried_again_once_a_pause() {
    let rig = Rig::new();
    let server = TcpListener::bind((address(), 0)).unwrap();
    let (from, to) = (SocketAddr::from((address(), 0)), server.local_addr().unwrap());
    let again = Reconnect::After(Duration::from_millis(50));
    rig.run(move |wire| wire.start_connect(Side::Caller, 0, from, to, Transport::Tls, again));
    let began = std::time::Instant::now();
    for _ in 0..8 {
        let (mut stream, _) = server.accept().unwrap();
        // A fatal alert in place of a ServerHello.
        stream.write_all(b"\x15\x03\x03\x00\x02\x02\x28").unwrap();
    }
    assert!(began.elapsed() >= Duration::from_millis(7 * 50), "{:?}", began.elapsed());
    let failed = rig.run(|wire| wire.tally()).failed;
    assert!(failed[&ErrorKind::InvalidData] >= 7, "{failed:?}");
}
