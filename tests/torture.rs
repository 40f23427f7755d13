//! The torture messages of RFC 4475 and some more, each with what the reader makes of it.
//!
//! They are datagrams: the head reader and `check` take them as they are. The framer, which is for
//! streams, must only be steady on them. The files lie outside of the package; without them these
//! tests say so and pass.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod message_support;
mod torture_messages;

use std::path::{Path, PathBuf};

use holdfast::sip::message::*;
use message_support::{OwnedFrame, frames, frames_of_cuts, read_everything};

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It is read. What it asks for may still be refused, with 420 or 483 for example.
    Read,
    /// It is refused: a request with this status, a response silently.
    Refused(u16),
}

use Outcome::{Read, Refused};

/// The messages of RFC 4475 by section.
const RFC4475: &[(&str, &str, Outcome, &str)] = &[
    ("wsinv", "3.1.1.1", Read, "a short tortuous INVITE"),
    ("intmeth", "3.1.1.2", Read, "wide range of valid characters"),
    ("esc01", "3.1.1.3", Read, "valid use of % escaping"),
    ("escnull", "3.1.1.4", Read, "escaped nulls in URIs"),
    ("esc02", "3.1.1.5", Read, "% where it is not an escape"),
    ("lwsdisp", "3.1.1.6", Read, "no LWS between display name and <"),
    ("longreq", "3.1.1.7", Read, "long values in header fields"),
    ("dblreq", "3.1.1.8", Read, "extra trailing octets in a datagram"),
    ("semiuri", "3.1.1.9", Read, "semicolon-separated parameters in the user part"),
    ("transports", "3.1.1.10", Read, "varied and unknown transport types"),
    ("mpart01", "3.1.1.11", Read, "multipart MIME message"),
    ("unreason", "3.1.1.12", Read, "unusual reason phrase"),
    ("noreason", "3.1.1.13", Read, "empty reason phrase"),
    ("badinv01", "3.1.2.1", Refused(400), "extraneous header field separators"),
    ("clerr", "3.1.2.2", Refused(400), "Content-Length larger than the message"),
    ("ncl", "3.1.2.3", Refused(400), "negative Content-Length"),
    ("scalar02", "3.1.2.4", Refused(400), "request scalar fields with overlarge values"),
    ("scalarlg", "3.1.2.5", Refused(400), "response scalar fields with overlarge values"),
    ("quotbal", "3.1.2.6", Refused(400), "unterminated quoted string in a display name"),
    ("ltgtruri", "3.1.2.7", Refused(400), "<> enclosing the Request-URI"),
    ("lwsruri", "3.1.2.8", Refused(400), "malformed Request-URI with LWS in it"),
    ("lwsstart", "3.1.2.9", Refused(400), "multiple SP separating Request-Line elements"),
    ("trws", "3.1.2.10", Refused(400), "SP characters at the end of the Request-Line"),
    // Its headers part is allowed in a URI, though not in a Request-URI; it is not acted on.
    ("escruri", "3.1.2.11", Read, "escaped headers in the Request-URI"),
    // Date is not read.
    ("baddate", "3.1.2.12", Read, "invalid time zone in Date"),
    // Only the Contact is wrong, which the view then does not give out.
    ("regbadct", "3.1.2.13", Read, "failure to enclose a name-addr URI in <>"),
    ("badaspec", "3.1.2.14", Refused(400), "spaces within the addr-spec"),
    ("baddn", "3.1.2.15", Refused(400), "non-token characters in a display name"),
    ("badvers", "3.1.2.16", Refused(505), "unknown protocol version"),
    ("mismatch01", "3.1.2.17", Refused(400), "start line and CSeq method mismatch"),
    ("mismatch02", "3.1.2.18", Refused(400), "unknown method with CSeq method mismatch"),
    ("bigcode", "3.1.2.19", Refused(400), "overlarge response code"),
    ("badbranch", "3.2.1", Read, "missing transaction identifier"),
    ("insuf", "3.3.1", Refused(400), "missing required header fields"),
    ("unkscm", "3.3.2", Read, "Request-URI with unknown scheme"),
    ("novelsc", "3.3.3", Read, "Request-URI with known but atypical scheme"),
    ("unksm2", "3.3.4", Read, "unknown URI schemes in header fields"),
    ("bext01", "3.3.5", Read, "Proxy-Require and Require"),
    ("invut", "3.3.6", Read, "unknown Content-Type"),
    ("regaut01", "3.3.7", Read, "unknown authorization scheme"),
    ("multi01", "3.3.8", Refused(400), "multiple values in single value required fields"),
    ("mcl01", "3.3.9", Refused(400), "multiple Content-Length values"),
    ("bcast", "3.3.10", Read, "200 OK response with broadcast Via header field"),
    ("zeromf", "3.3.11", Read, "Max-Forwards of zero"),
    ("cparam01", "3.3.12", Read, "REGISTER with a contact header parameter"),
    ("cparam02", "3.3.13", Read, "REGISTER with a URL parameter"),
    ("regescrt", "3.3.14", Read, "REGISTER with a URL escaped header"),
    ("sdp01", "3.3.15", Read, "unacceptable Accept offering"),
    ("inv2543", "3.4.1", Read, "INVITE with RFC 2543 syntax"),
];

/// Messages from the grammar and from practice.
const EDGE: &[(&str, Outcome)] = &[
    ("e01_plain", Read),
    ("e03_from_user_dot", Read),
    ("e05_ipv6_via", Read),
    ("e07_ruri_headers", Read),
    ("e09_fold", Read),
    ("e11_two_via_one_line", Read),
    ("e13_esc_quote", Read),
    ("e15_bare_lf", Refused(400)),
    ("e17_no_space", Read),
    ("e19_cseq_tab", Read),
    ("e21_no_brackets", Read),
    ("e23_two_contacts", Read),
    ("e25_lr_on", Read),
    ("e27_lower_method", Read),
    ("e29_nonutf8_header", Read),
    ("e31_bin_body", Read),
    // For a datagram; the framer refuses it on a stream.
    ("e33_no_cl_tcp", Read),
    ("e35_cl_long", Refused(400)),
    // The framer skips the empty lines.
    ("e37_leading_crlf", Refused(400)),
    ("e39_empty_header", Read),
    ("e41_colon_body", Read),
    ("e43_user_params", Read),
    ("e45_status_799", Refused(400)),
    ("e47_status_noreason", Read),
    ("e49_maxfwd_big", Refused(400)),
    ("e51_via_no_params", Read),
    ("e53_warning_folded", Read),
    ("e55_tab_after_colon", Read),
];

/// Where the files are; `None` after saying that they are not.
fn folder(name: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("HOLDFAST_TORTURE") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/torture"),
    };
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {} is not there", folder.display());
    None
}

fn files(folder: &Path) -> impl Iterator<Item = (String, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "dat"))
        .collect();
    paths.sort();
    paths.into_iter().map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(path).unwrap())
    })
}

fn outcome(bytes: &[u8]) -> Outcome {
    let mut head = Head::new();
    match head.read(bytes).and_then(|()| View::new(bytes, &head).check()) {
        Ok(()) => Read,
        Err(error) => Refused(error.status()),
    }
}

#[test]
fn every_message_of_rfc_4475_has_the_expected_outcome() {
    let Some(folder) = folder("rfc4475") else { return };
    let mut count = 0;
    for (name, bytes) in files(&folder) {
        let row = RFC4475.iter().find(|row| row.0 == name);
        let (_, section, expected, title) = row.unwrap_or_else(|| panic!("{name} has no row"));
        assert_eq!(outcome(&bytes), *expected, "{name}: RFC 4475 §{section}, {title}");
        count += 1;
    }
    assert_eq!(count, RFC4475.len());
}

#[test]
fn every_edge_message_has_the_expected_outcome() {
    let Some(folder) = folder("edge") else { return };
    let mut count = 0;
    for (name, bytes) in files(&folder) {
        let row = EDGE.iter().find(|row| row.0 == name);
        let (_, expected) = row.unwrap_or_else(|| panic!("{name} has no row"));
        assert_eq!(outcome(&bytes), *expected, "{name}");
        count += 1;
    }
    assert_eq!(count, EDGE.len());
}

#[test]
fn no_torture_message_whole_cut_or_spoiled_makes_a_reader_panic() {
    for folder in ["rfc4475", "edge"].into_iter().filter_map(folder) {
        for (_, bytes) in files(&folder) {
            read_everything(&bytes);
            for at in 0..bytes.len() {
                let mut head = Head::new();
                let _ = head.read(&bytes[..at]);
                message_support::look_at_everything(&View::new(&bytes[..at], &head));
                let mut spoiled = bytes.clone();
                spoiled[at] ^= 1 << (at % 8);
                let _ = head.read(&spoiled);
                message_support::look_at_everything(&View::new(&spoiled, &head));
            }
        }
    }
}

#[test]
fn torture_messages_are_framed_the_same_for_every_split() {
    for folder in ["rfc4475", "edge"].into_iter().filter_map(folder) {
        for (name, bytes) in files(&folder) {
            let whole = frames(&bytes);
            assert_eq!(frames_of_cuts(&bytes, 1..bytes.len()), whole, "{name}");
            for cut in 0..bytes.len() {
                assert_eq!(frames_of_cuts(&bytes, [cut]), whole, "{name} cut at {cut}");
            }
        }
    }
}

#[test]
fn two_requests_in_one_datagram_are_two_messages_of_a_stream() {
    let Some(folder) = folder("rfc4475") else { return };
    let bytes = std::fs::read(folder.join("dblreq.dat")).unwrap();
    let frames = frames(&bytes);
    // What is left is a line that the second Content-Length cuts off.
    let methods: Vec<Method> = frames
        .iter()
        .take(2)
        .map(|frame| {
            let OwnedFrame::Message(bytes) = frame else { panic!("{frame:?}") };
            let mut head = Head::new();
            head.read(bytes).unwrap();
            View::new(bytes, &head).method()
        })
        .collect();
    assert_eq!(methods, [Method::Register, Method::Invite]);
}

#[test]
fn the_tortuous_invite_is_read_in_all_its_parts() {
    let Some(folder) = folder("rfc4475") else { return };
    let bytes = std::fs::read(folder.join("wsinv.dat")).unwrap();
    let mut head = Head::new();
    head.read(&bytes).unwrap();
    let view = View::new(&bytes, &head);
    let via = view.via().unwrap();
    assert_eq!((via.transport, via.host), (&b"UDP"[..], &b"192.0.2.2"[..]));
    assert_eq!(via.branch, Some(&b"390skdjuw"[..]));
    assert_eq!(view.values(Name::Via).count(), 3);
    let last = Via::parse(view.values(Name::Via).last().unwrap()).unwrap();
    assert_eq!(last.branch, Some(&b"z9hG4bK30239"[..]));
    assert_eq!(view.to().unwrap().tag, Some(&b"1918181833n"[..]));
    assert_eq!(view.from().unwrap().tag, Some(&b"98asjd8"[..]));
    assert_eq!(view.from().unwrap().display, br#""J Rosenberg \\\"""#);
    assert_eq!(view.cseq(), Some((9, &b"INVITE"[..])));
    assert_eq!(view.max_forwards(), Some(68));
    assert_eq!(view.contact().unwrap().param("q"), Some(Some(&b"0.33"[..])));
    assert_eq!(view.contact().unwrap().param("newparam"), Some(Some(&b"newvalue"[..])));
    assert_eq!(view.first(Name::Subject), Some(&b""[..]));
    assert!(view.has_offer());
}

#[test]
fn every_message_of_the_project_has_the_expected_outcome() {
    for own in torture_messages::own() {
        let expected = if own.read == 0 { Read } else { Refused(own.read) };
        assert_eq!(outcome(&own.bytes), expected, "{}", own.name);
        read_everything(&own.bytes);
    }
}

#[test]
fn messages_of_the_project_are_framed_the_same_for_every_split() {
    for own in torture_messages::own() {
        let whole = frames(&own.bytes);
        assert_eq!(frames_of_cuts(&own.bytes, 1..own.bytes.len()), whole, "{}", own.name);
    }
}
