//! Names that travel: they say which call is meant, so that no map of strings is needed.
//!
//! ```text
//! Call-ID   0000002a-00000001-5eed5eed        caller 42, its first use, this run
//! tag       c0000002a-00000001-5eed5eed       the same
//! tag       d00000007-00000001-5eed5eed       callee 7, its first use
//! branch    z9hG4bK-c0000002a-00000001-5eed5eed-3   CSeq 3 of it; the ACK of a 2xx has `-3a`
//! SDP       o=0000002a-00000001-5eed5eed 42 7 IN …  the call of caller 42, seventh offer
//! ```

/// Which call, and which use of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) index: u32,
    pub(crate) generation: u32,
    pub(crate) run: u32,
}

impl Name {
    /// Bytes of a written name.
    const LEN: usize = 26;

    /// Reads a name that [`write`](Self::write) wrote; `None` when it is somebody else's.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        if text.len() != Self::LEN || text[8] != b'-' || text[17] != b'-' {
            return None;
        }
        Some(Self {
            index: hex(&text[..8])?,
            generation: hex(&text[9..17])?,
            run: hex(&text[18..])?,
        })
    }

    /// Appends the name.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        put_hex(out, self.index);
        out.push(b'-');
        put_hex(out, self.generation);
        out.push(b'-');
        put_hex(out, self.run);
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}-{:08x}-{:08x}", self.index, self.generation, self.run)
    }
}

fn hex(text: &[u8]) -> Option<u32> {
    let (value, good) = text.iter().fold((0, true), |(value, good), &byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return (value, false),
        };
        (value << 4 | u32::from(digit), good)
    });
    good.then_some(value)
}

fn put_hex(out: &mut Vec<u8>, value: u32) {
    for shift in (0..8).rev() {
        out.push(b"0123456789abcdef"[(value >> (shift * 4) & 15) as usize]);
    }
}

/// The direction of the media in a session description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Both,
    SendOnly,
    ReceiveOnly,
    Inactive,
}

impl Direction {
    fn text(self) -> &'static str {
        match self {
            Self::Both => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::ReceiveOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// What answers an offer of this direction (RFC 3264 §6.1).
    pub(crate) fn answer(self) -> Self {
        match self {
            Self::Both => Self::Both,
            Self::SendOnly => Self::ReceiveOnly,
            Self::ReceiveOnly => Self::SendOnly,
            Self::Inactive => Self::Inactive,
        }
    }

    /// The direction a description states.
    pub(crate) fn of(sdp: &[u8]) -> Self {
        let states = |line: &[u8]| memchr::memmem::find(sdp, line).is_some();
        match () {
            () if states(b"a=sendonly") => Self::SendOnly,
            () if states(b"a=recvonly") => Self::ReceiveOnly,
            () if states(b"a=inactive") => Self::Inactive,
            () => Self::Both,
        }
    }
}

/// Appends a session description of the call `name`.
pub(crate) fn write_sdp(
    out: &mut Vec<u8>,
    host: std::net::Ipv4Addr,
    name: Name,
    version: u32,
    direction: Direction,
) {
    let direction = direction.text();
    out.extend_from_slice(b"v=0\r\no=");
    name.write(out);
    out.push(b' ');
    put_number(out, name.index);
    out.push(b' ');
    put_number(out, version);
    out.extend_from_slice(b" IN IP4 ");
    put_address(out, host);
    out.extend_from_slice(b"\r\ns=-\r\nc=IN IP4 ");
    put_address(out, host);
    out.extend_from_slice(
        b"\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0 8\r\n\
          a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=",
    );
    out.extend_from_slice(direction.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a decimal number.
pub(crate) fn put_number(out: &mut Vec<u8>, mut value: u32) {
    let mut digits = [0; 10];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends an address with its dots.
pub(crate) fn put_address(out: &mut Vec<u8>, address: std::net::Ipv4Addr) {
    for (n, byte) in address.octets().into_iter().enumerate() {
        if n > 0 {
            out.push(b'.');
        }
        put_number(out, byte.into());
    }
}

/// The call that a session description is about.
pub(crate) fn sdp_call(sdp: &[u8]) -> Option<Name> {
    let at = memchr::memmem::find(sdp, b"\no=")? + 3;
    let rest = &sdp[at..];
    Name::read(&rest[..memchr::memchr(b' ', rest)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written_and_foreign_names_are_not() {
        let name = Name { index: 42, generation: u32::MAX, run: 0x5eed };
        let mut text = Vec::new();
        name.write(&mut text);
        assert_eq!(text, b"0000002a-ffffffff-00005eed");
        assert_eq!(Name::read(&text), Some(name));
        assert_eq!(Name::read(&text[1..]), None);
        assert_eq!(Name::read(b"0000002x-ffffffff-00005eed"), None);
    }

    #[test]
    fn a_description_says_its_call_and_its_direction() {
        let mut sdp = Vec::new();
        let name = Name { index: 70, generation: 3, run: 9 };
        write_sdp(&mut sdp, [127, 0, 0, 1].into(), name, 2, Direction::SendOnly);
        assert_eq!(sdp_call(&sdp), Some(name));
        assert_eq!(Direction::of(&sdp).answer(), Direction::ReceiveOnly);
        assert_eq!(sdp_call(b"v=0\r\no=- 1 1 IN IP4 h\r\n"), None);
    }
}
