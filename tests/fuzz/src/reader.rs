//! A message that is read, and then written from what was read, reads the same.

use holdfast::sip::message::{
    Frame, Framer, HEADERS_MAX, Head, Name, NameAddr, Uri, Values, Via, View, home, write,
};

/// Headers that a response copies from its request (RFC 3261 §8.2.6.2).
const COPIED: [Name; 5] = [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq];

/// Longer messages are not written again: with a Content-Length more they might exceed a limit.
const WRITTEN_BYTES_MAX: usize = 16_000;

/// Reads `input` as a message, as a stream, and as each kind of value.
pub fn run(input: &[u8]) {
    let mut head = Head::new();
    let read = head.read(input);
    let view = View::new(input, &head);
    look_at_everything(view);
    home(input);
    Values::new(input).for_each(drop);
    let _ = (Via::parse(input), NameAddr::parse(input), Uri::parse(input));
    if let Err(error) = read.and_then(|()| view.check()) {
        assert!((400..600).contains(&error.status()), "{error}");
        return;
    }
    check_home(view);
    if input.len() <= WRITTEN_BYTES_MAX && view.headers().count() < HEADERS_MAX {
        check_written(view);
        if view.is_request() {
            check_response(view);
        }
    }
    check_framed(view);
}

/// Calls every accessor.
fn look_at_everything(view: View<'_>) {
    let _ = (view.is_request(), view.method(), view.method_bytes(), view.request_uri());
    let _ = (view.status(), view.reason(), view.body(), view.cseq(), view.call_id());
    let _ = (view.max_forwards(), view.has_offer(), view.retry_after(), view.session_expires());
    if let Some(via) = view.via() {
        assert!(!via.value.is_empty() && !via.host.is_empty());
    }
    for address in [view.from(), view.to(), view.contact()].into_iter().flatten() {
        let (before, after) = address.without_tag();
        assert!(before.len() + after.len() <= address.value.len());
        let _ = (address.param("tag"), address.token());
        if let Some(uri) = address.uri() {
            let _ = (uri.param("lr"), uri.ip(), uri.socket_addr(5060), uri.is_secure());
        }
    }
    for header in view.headers() {
        assert!(header.line.ends_with(b"\r\n") && !header.name_bytes.is_empty());
        assert!(view.count(header.name) > 0 && view.first(header.name).is_some());
    }
    for route in view.routes().chain(view.record_routes()) {
        assert!(!route.is_empty());
        NameAddr::parse(route);
    }
}

/// What tells the shard without a table agrees with the table.
fn check_home(view: View<'_>) {
    let token = if view.is_request() {
        view.to().and_then(|to| to.token())
    } else {
        view.via().and_then(|via| via.token())
    };
    assert_eq!(home(view.bytes()), token.map(|token| token.shard));
}

fn check_written(view: View<'_>) {
    let mut out = Vec::new();
    if view.is_request() {
        write::request_line(&mut out, view.method_bytes(), view.request_uri());
    } else {
        write::status_line(&mut out, view.status(), view.reason());
    }
    for header in view.headers().filter(|header| header.name != Name::ContentLength) {
        write::line(&mut out, header.line);
    }
    write::body(&mut out, view.body());
    let mut head = Head::new();
    assert_eq!(head.read(&out), Ok(()), "{}", out.escape_ascii());
    let again = View::new(&out, &head);
    assert_eq!(again.check(), Ok(()), "{}", out.escape_ascii());
    assert_eq!(again.method_bytes(), view.method_bytes());
    assert_eq!(again.request_uri(), view.request_uri());
    assert_eq!((again.status(), again.reason()), (view.status(), view.reason()));
    assert_eq!(again.body(), view.body());
    assert_eq!((again.cseq(), again.call_id()), (view.cseq(), view.call_id()));
    assert_eq!((again.from(), again.to()), (view.from(), view.to()));
    assert_eq!((again.via(), again.contact()), (view.via(), view.contact()));
    let rest = |view: View<'_>| -> Vec<(Vec<u8>, Vec<u8>)> {
        let others = view.headers().filter(|header| header.name != Name::ContentLength);
        others.map(|header| (header.name_bytes.to_vec(), header.value.to_vec())).collect()
    };
    assert_eq!(rest(again), rest(view));
}

/// A response to the request can be formed, and is one message for whoever gets it.
fn check_response(request: View<'_>) {
    let mut out = Vec::new();
    write::status_line(&mut out, 486, b"Busy Here");
    for header in request.headers().filter(|header| COPIED.contains(&header.name)) {
        write::line(&mut out, header.line);
    }
    write::body(&mut out, b"");
    let mut head = Head::new();
    assert_eq!(head.read(&out), Ok(()));
    let response = View::new(&out, &head);
    assert_eq!(response.check(), Ok(()), "{}", out.escape_ascii());
    assert_eq!(response.via(), request.via());
    assert_eq!(response.cseq(), request.cseq());
}

/// A message with a Content-Length is the first one of a stream that begins with it, or is refused
/// there for its size.
fn check_framed(view: View<'_>) {
    if view.count(Name::ContentLength) == 0 {
        return;
    }
    let mut framer = Framer::new(usize::MAX);
    let mut is_first = true;
    framer.feed(view.bytes(), &mut Head::new(), |frame| {
        if std::mem::take(&mut is_first) {
            match frame {
                Frame::Message(message) => assert!(view.bytes().starts_with(message.bytes())),
                Frame::Ping => panic!("a message was taken for a ping"),
                Frame::Unframed { error, .. } => panic!("{error}"),
            }
        }
    });
    assert!(!is_first, "not framed");
}
