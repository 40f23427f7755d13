//! What a datagram holds: one message (RFC 3261 §18.3).

/// The message in a datagram, without line ends before it (RFC 3261 §7.5). `None` when there is nothing
/// else in it: a peer keeps the way open (RFC 5626 §3.5.1).
///
/// Where the body ends is for the reader: at Content-Length, and what follows is dropped; without
/// one, at the end of the datagram; and a body that is cut short is refused.
pub fn datagram(bytes: &[u8]) -> Option<&[u8]> {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    bytes.get(start..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_before_a_message_are_no_part_of_it() {
        assert_eq!(datagram(b"\r\n\r\nBYE x"), Some(&b"BYE x"[..]));
        assert_eq!(datagram(b"BYE x\r\n\r\n"), Some(&b"BYE x\r\n\r\n"[..]));
    }

    #[test]
    fn a_datagram_without_anything_else_is_a_keep_alive() {
        for bytes in [&b""[..], b"\r\n", b"\r\n\r\n", b"\n"] {
            assert_eq!(datagram(bytes), None);
        }
    }
}
