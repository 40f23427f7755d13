//! The one thing the server ever says in a session description: be quiet (RFC 3264 §8.4).

use crate::sip::message::{View, write};

/// Writes a description, or the end of a message without body.
pub(super) fn write(out: &mut Vec<u8>, sdp: &[u8]) {
    if !sdp.is_empty() {
        write::header(out, "Content-Type", b"application/sdp");
    }
    write::body(out, sdp);
}

/// Writes the body of an ACK that no peer's answer will come for. An offer in `response`, a 2xx to an INVITE
/// without one, must be answered all the same (RFC 3261 §13.2.2.4): all media stop.
pub(super) fn write_quiet(out: &mut Vec<u8>, offered: bool, response: View<'_>) {
    let offer = if !offered && response.is_sdp() { response.body() } else { b"" };
    write(out, &inactive(offer));
}

/// The answer to `offer` that stops all media: what was offered, every stream inactive.
///
/// Everything else stays as it is, because an answer must have the offer's streams and may repeat its
/// formats (RFC 3264 §6.1); the origin gets a user name of the server's, for it is not the peer's own
/// description any more.
pub(super) fn inactive(offer: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(offer.len() + 32);
    let mut in_media = false;
    for line in offer.split_inclusive(|&byte| byte == b'\n') {
        let text = line.trim_ascii_end();
        if is_direction(text) {
            continue;
        }
        if !in_media && text.starts_with(b"m=") {
            in_media = true;
            out.extend_from_slice(b"a=inactive\r\n");
        }
        match text {
            [b'o', b'=', rest @ ..] => {
                let rest = memchr::memchr(b' ', rest).map_or(&b""[..], |at| &rest[at..]);
                out.extend_from_slice(b"o=holdfast");
                out.extend_from_slice(rest);
            }
            // An answer must decide who opens the handshake (RFC 5763 §5).
            b"a=setup:actpass" => out.extend_from_slice(b"a=setup:passive"),
            _ => out.extend_from_slice(text),
        }
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn is_direction(line: &[u8]) -> bool {
    matches!(line, b"a=sendrecv" | b"a=sendonly" | b"a=recvonly" | b"a=inactive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_of_the_answer_is_inactive_and_the_rest_is_as_offered() {
        let offer = b"v=0\r\no=- 7 8 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
            a=sendrecv\r\nm=audio 4000 RTP/AVP 0 8\r\na=sendonly\r\na=rtpmap:0 PCMU/8000\r\n\
            m=video 4002 RTP/AVP 99\r\na=setup:actpass\r\n";
        let answer = String::from_utf8(inactive(offer)).unwrap();
        assert_eq!(
            answer,
            "v=0\r\no=holdfast 7 8 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
             a=inactive\r\nm=audio 4000 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\n\
             m=video 4002 RTP/AVP 99\r\na=setup:passive\r\n"
        );
    }

    #[test]
    fn nonsense_stays_nonsense() {
        assert_eq!(inactive(b""), b"");
        assert_eq!(inactive(b"o="), b"o=holdfast\r\n");
        assert_eq!(inactive(b"\xff\n\n"), b"\xff\r\n\r\n");
    }
}
