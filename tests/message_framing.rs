//! Framing: the same frames however the stream is cut, and an early end for what cannot be framed.

mod message_support;

use holdfast::sip::message::*;
use message_support::{OPTIONS, OwnedFrame, frames, frames_of_cuts, soup};
use proptest::prelude::*;

fn message(bytes: &[u8]) -> OwnedFrame {
    OwnedFrame::Message(bytes.to_vec())
}

/// The one error that `stream` ends with, and how many bytes of the message came with it.
fn refusal(stream: &[u8]) -> (FrameError, usize) {
    match &frames(stream)[..] {
        [OwnedFrame::Unframed { bytes, error }] => {
            assert!(stream.starts_with(bytes));
            (*error, bytes.len())
        }
        other => panic!("{other:?}"),
    }
}

fn with_length(content_length: &str) -> String {
    OPTIONS.replace("Content-Length: 0\r\n", content_length)
}

#[test]
fn messages_pings_and_pongs_are_told_apart() {
    let with_body = with_length("l : 008\r\n") + "a\r\n\r\nb\r\n\r\n";
    let stream = format!("\r\n{OPTIONS}\r\n\r\n\r\n\r\n{with_body}\r\n\r\n\r\n{OPTIONS}");
    let message_with_body = &with_body[..with_body.len() - 2];
    // The body has eight bytes: the CRLF behind them is half of a ping.
    assert_eq!(
        frames(stream.as_bytes()),
        [
            message(OPTIONS.as_bytes()),
            OwnedFrame::Ping,
            OwnedFrame::Ping,
            message(message_with_body.as_bytes()),
            OwnedFrame::Ping,
            OwnedFrame::Ping,
            message(OPTIONS.as_bytes()),
        ]
    );
}

#[test]
fn a_message_that_came_as_a_whole_is_not_copied() {
    let stream = OPTIONS.repeat(3);
    let mut framer = Framer::new(65_535);
    let mut count = 0;
    framer.feed(stream.as_bytes(), &mut Head::new(), |frame| {
        let Frame::Message(message) = frame else { panic!("{frame:?}") };
        assert_eq!(message.bytes().as_ptr(), stream[count * OPTIONS.len()..].as_ptr());
        count += 1;
    });
    assert_eq!(count, 3);
    assert!(!framer.is_partial());
}

#[test]
fn a_message_is_partial_from_its_first_byte_to_its_last() {
    let mut framer = Framer::new(65_535);
    let stream = format!("\r\n{}abc", with_length("Content-Length: 3\r\n"));
    for (at, byte) in stream.bytes().enumerate() {
        let mut count = 0;
        framer.feed(&[byte], &mut Head::new(), |_| count += 1);
        let is_last = at + 1 == stream.len();
        assert_eq!(count, usize::from(is_last));
        assert_eq!(framer.is_partial(), at >= 2 && !is_last, "after byte {at}");
    }
}

#[test]
fn content_length_must_be_there_once_and_be_a_number() {
    for (line, error) in [
        ("", FrameError::NoContentLength),
        ("Content-Length:\r\n", FrameError::BadContentLength),
        ("Content-Length: -1\r\n", FrameError::BadContentLength),
        ("Content-Length: +1\r\n", FrameError::BadContentLength),
        ("Content-Length: 1 1\r\n", FrameError::BadContentLength),
        ("Content-Length: 1\r\n 1\r\n", FrameError::BadContentLength),
        ("Content-Length: 0x10\r\n", FrameError::BadContentLength),
        ("Content-Length: 1, 1\r\n", FrameError::BadContentLength),
        ("Content-Length: ten\r\n", FrameError::BadContentLength),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", FrameError::ConflictingContentLength),
        ("Content-Length: 1\r\nl: 1\r\n", FrameError::ConflictingContentLength),
        ("L: 1\r\ncontent-LENGTH\t: 1\r\n", FrameError::ConflictingContentLength),
        ("l: x\r\nl: x\r\n", FrameError::ConflictingContentLength),
        ("Content-Length: 49153\r\n", FrameError::BodyTooLarge { content_length: 49_153 }),
        (
            "Content-Length: 99999999999999999999\r\n",
            FrameError::BodyTooLarge { content_length: u64::MAX },
        ),
        ("Content-Length : \r\n\r\n", FrameError::BadContentLength),
        // Not Content-Length, whatever another reader makes of them.
        ("Content\rLength: 1\r\n", FrameError::BareLineEnd),
        ("Content-Length\r\n : 1\r\n", FrameError::NoContentLength),
        ("Content-Length; 1\r\n", FrameError::NoContentLength),
        ("X: y\r\n Content-Length: 1\r\n", FrameError::NoContentLength),
    ] {
        let stream = with_length(line) + "body";
        let head_len = stream.find("\r\n\r\n").unwrap() + 4;
        let (found, len) = refusal(stream.as_bytes());
        assert_eq!(found, error, "{line:?}");
        if error != FrameError::BareLineEnd {
            assert_eq!(len, head_len, "the whole head comes with {line:?}");
        }
    }
}

#[test]
fn nothing_is_read_behind_an_error() {
    let stream = format!("{}{OPTIONS}", with_length(""));
    let mut framer = Framer::new(65_535);
    let mut count = 0;
    framer.feed(stream.as_bytes(), &mut Head::new(), |_| count += 1);
    framer.feed(OPTIONS.as_bytes(), &mut Head::new(), |_| count += 1);
    assert_eq!(count, 1);
    assert!(!framer.is_partial());
}

#[test]
fn a_cr_or_lf_by_itself_ends_the_stream() {
    for (stream, len) in [
        ("OPTIONS sip:h SIP/2.0\nTo: x\n\n", 22),
        ("OPTIONS sip:h SIP/2.0\r\nMax\rForwards: 70\r\n", 28),
        ("OPTIONS sip:h SIP/2.0\r\nX: a\nl: 1\r\n\r\n", 28),
        ("OPTIONS sip:h SIP/2.0\r\nX: a\r\r\n\r\n", 29),
        ("OPTIONS sip:h SIP/2.0\r\n\nX: a\r\n", 24),
        ("OPTIONS\r", 0),
        ("\r", 0),
        ("\r\n\r", 0),
        ("\r\rX", 1),
        ("\nX", 1),
        ("\r\n\nX", 1),
        ("\r\n\rX", 1),
    ] {
        match &frames(stream.as_bytes())[..] {
            [] => assert_eq!(len, 0, "{stream:?}"),
            [OwnedFrame::Unframed { bytes, error: FrameError::BareLineEnd }] => {
                assert_eq!(bytes.len(), len, "{stream:?}");
            }
            other => panic!("{stream:?}: {other:?}"),
        }
    }
}

#[test]
fn limits_are_met_exactly_and_not_exceeded_by_a_byte() {
    // One header of `len` bytes without its CRLF, in an otherwise good message.
    let with_header = |len: usize| format!("X: {}\r\nContent-Length: 0\r\n", "y".repeat(len - 3));
    let good = with_length(&with_header(HEADER_BYTES_MAX));
    assert_eq!(frames(good.as_bytes()), [message(good.as_bytes())]);
    let bad = with_length(&with_header(HEADER_BYTES_MAX + 1));
    assert_eq!(refusal(bad.as_bytes()).0, FrameError::HeaderTooLarge);
    // The same in many folds.
    let folded =
        |folds: usize| format!("X: y{}\r\nContent-Length: 0\r\n", "\r\n yyyyy".repeat(folds));
    let good = with_length(&folded(HEADER_BYTES_MAX / 8 - 1));
    assert_eq!(frames(good.as_bytes()), [message(good.as_bytes())]);
    let bad = with_length(&folded(HEADER_BYTES_MAX / 8));
    assert_eq!(refusal(bad.as_bytes()).0, FrameError::HeaderTooLarge);

    let with_line = |len: usize| {
        let uri_len = len - "OPTIONS sip: SIP/2.0".len();
        OPTIONS.replacen("sip:bob@example.com", &format!("sip:{}", "h".repeat(uri_len)), 1)
    };
    let good = with_line(START_LINE_BYTES_MAX);
    assert_eq!(frames(good.as_bytes()), [message(good.as_bytes())]);
    let bad = with_line(START_LINE_BYTES_MAX + 1);
    assert_eq!(refusal(bad.as_bytes()).0, FrameError::StartLineTooLarge);

    let own_headers = OPTIONS.matches("\r\n").count() - 2;
    let with_headers = |count: usize| {
        with_length(&("a: b\r\n".repeat(count - own_headers) + "Content-Length: 0\r\n"))
    };
    let good = with_headers(HEADERS_MAX);
    assert_eq!(frames(good.as_bytes()), [message(good.as_bytes())]);
    let bad = with_headers(HEADERS_MAX + 1);
    assert_eq!(refusal(bad.as_bytes()).0, FrameError::TooManyHeaders);

    let with_head = |len: usize| {
        let rest = len - OPTIONS.len() - 2 * "X: \r\n".len();
        let (one, two) = ("y".repeat(rest / 2), "y".repeat(rest - rest / 2));
        with_length(&format!("X: {one}\r\nX: {two}\r\nContent-Length: 0\r\n"))
    };
    let good = with_head(HEAD_BYTES_MAX);
    assert_eq!(good.len(), HEAD_BYTES_MAX);
    assert_eq!(frames(good.as_bytes()), [message(good.as_bytes())]);
    let bad = with_head(HEAD_BYTES_MAX + 1);
    assert_eq!(refusal(bad.as_bytes()).0, FrameError::HeadTooLarge);

    let body = "b".repeat(BODY_BYTES_MAX);
    let good = with_length(&format!("Content-Length: {BODY_BYTES_MAX}\r\n")) + &body;
    assert_eq!(frames(good.as_bytes()), [message(good.as_bytes())]);
    let bytes_max = good.len() - 1;
    let mut found = None;
    Framer::new(bytes_max).feed(good.as_bytes(), &mut Head::new(), |frame| {
        found = Some(matches!(
            frame,
            Frame::Unframed { error: FrameError::MessageTooLarge { bytes, .. }, .. }
                if bytes == bytes_max + 1
        ));
    });
    assert_eq!(found, Some(true));
}

#[test]
fn a_header_of_a_mebibyte_and_ten_thousand_headers_are_refused_early() {
    let long = format!("OPTIONS sip:h SIP/2.0\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
    let (error, len) = refusal(long.as_bytes());
    assert_eq!(error, FrameError::HeaderTooLarge);
    assert!(len <= HEAD_BYTES_MAX);
    let many = format!("OPTIONS sip:h SIP/2.0\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    let (error, len) = refusal(many.as_bytes());
    assert_eq!(error, FrameError::TooManyHeaders);
    assert!(len < 1024);
    // A byte at a time they are refused at the same byte.
    for stream in [long, many] {
        let mut framer = Framer::new(65_535);
        let mut refused_at = None;
        for (at, byte) in stream.bytes().enumerate() {
            framer.feed(&[byte], &mut Head::new(), |_| refused_at = Some(at));
            if refused_at.is_some() {
                break;
            }
        }
        assert!(refused_at.unwrap() <= refusal(stream.as_bytes()).1);
    }
}

#[test]
fn garbage_is_held_within_the_limits_and_then_refused() {
    for byte in [0u8, b' ', b'\t', b'x', b':', 0x16, 0xff] {
        let garbage = vec![byte; 1 << 20];
        let (error, len) = refusal(&garbage);
        assert_eq!(error, FrameError::StartLineTooLarge);
        assert!(len <= START_LINE_BYTES_MAX + 1);
    }
    let http = "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n";
    assert_eq!(refusal(http.as_bytes()), (FrameError::NoContentLength, http.len()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn framing_is_the_same_for_every_split_of_the_stream(
        stream in soup(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let whole = frames(&stream);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(&whole, &frames_of_cuts(&stream, cuts));
        prop_assert_eq!(&whole, &frames_of_cuts(&stream, 1..stream.len()));
    }

    #[test]
    fn whole_messages_are_framed_and_read_alike(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..5),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for body in bodies {
            let mut one = OPTIONS.strip_suffix("Content-Length: 0\r\n\r\n").unwrap().as_bytes().to_vec();
            write::body(&mut one, &body);
            stream.extend_from_slice(&one);
            expected.push(OwnedFrame::Message(one));
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(frames_of_cuts(&stream, cuts), expected);
    }

    #[test]
    fn a_framed_message_has_the_length_that_its_head_says(stream in soup()) {
        for frame in frames(&stream) {
            let OwnedFrame::Message(bytes) = frame else { continue };
            let mut head = Head::new();
            // What is wrong with it now is for a 400, and not for its neighbours.
            let _ = head.read(&bytes);
            let view = View::new(&bytes, &head);
            prop_assert_eq!(view.count(Name::ContentLength), 1);
            let length = view.first(Name::ContentLength).unwrap();
            let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
            prop_assert_eq!(view.body().len(), length);
            prop_assert!(bytes.ends_with(view.body()));
        }
    }
}
