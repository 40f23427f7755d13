//! Small damage to a message.

use super::bytes::Bytes;

/// What is put into messages: what ends a line, a value or a message, and numbers out of range.
const JUNK: [&[u8]; 24] = [
    b"\r",
    b"\r\n",
    b"\r\n\r\n",
    b"\r\n ",
    b"\0",
    b"\"",
    b"<",
    b">",
    b",",
    b";",
    b";tag=x",
    b";lr",
    b"[::1]",
    b"[::ffff:127.0.0.2]",
    b"%00",
    b"4294967296",
    b"2147483647",
    b"\r\nContent-Length: 0\r\n\r\n",
    b"\r\nContent-Length: 99999\r\n",
    b"\r\nRequire: nothing\r\n",
    b"\r\nVia: SIP/2.0/TCP 127.0.0.9;branch=z9hG4bKx\r\n",
    b"\r\nSession-Expires: 1;refresher=uas\r\n",
    b"\r\nRetry-After: 1\r\n",
    b"\xff\xfe",
];

/// How many damages the low bits of the first byte stand for: most messages have none.
const COUNTS: [u8; 8] = [0, 0, 0, 0, 0, 1, 2, 4];

/// Does what the next bytes of `input` say to `message`.
pub(crate) fn mutate(input: &mut Bytes<'_>, message: &mut Vec<u8>) {
    let first = input.byte();
    for _ in 0..COUNTS[usize::from(first & 7)] {
        damage(input, message);
    }
}

fn damage(input: &mut Bytes<'_>, message: &mut Vec<u8>) {
    let kind = input.below(7);
    if message.is_empty() {
        return;
    }
    let at = input.place() % message.len();
    match kind {
        0 => message[at] = input.byte(),
        1 => {
            let end = (at + input.below(64)).min(message.len());
            message.drain(at..end);
        }
        2 => {
            let junk = input.pick(&JUNK);
            message.splice(at..at, junk.iter().copied());
        }
        3 => {
            let len = input.below(16);
            let bytes = input.take(len).to_vec();
            message.splice(at..at, bytes);
        }
        4 => message.truncate(at),
        5 => {
            let line = line_at(message, at);
            message.splice(at..at, line);
        }
        _ => {
            let long = vec![input.byte(); 1 << input.below(16)];
            message.splice(at..at, long);
        }
    }
}

/// The line that `at` is in.
fn line_at(message: &[u8], at: usize) -> Vec<u8> {
    let start = message[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let end = message[at..].iter().position(|&byte| byte == b'\n').map_or(0, |end| at + end + 1);
    message.get(start..end).unwrap_or_default().to_vec()
}
