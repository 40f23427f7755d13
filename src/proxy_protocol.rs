//! The PROXY protocol, version 2: what a load balancer says first on a connection that it passes on.
//!
//! ```text
//! 12 bytes   4 bits    4 bits    4 bits   4 bits     2 bytes  length bytes
//! signature │ version │ command │ family │ transport │ length │ addresses, then TLVs │ TLS or SIP …
//! ```
//!
//! After "The PROXY protocol, versions 1 & 2" (W. Tarreau, haproxy), section 2.2. Version 1, which is text, is
//! recognised and refused. Bytes in, values out: no socket.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of a header; a longer one is refused. The addresses take 36 at most, the rest is TLVs.
pub const PROXY_HEADER_BYTES_MAX: usize = 4096;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// How version 1 begins.
const TEXT: [u8; 6] = *b"PROXY ";
/// Bytes up to the addresses.
const FIXED: usize = 16;
/// The type of the TLV that is a CRC32c of the whole header.
const CRC32C: u8 = 3;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of it; what follows is the connection's own.
    pub length: usize,
    /// Who opened the connection. `None`: the load balancer itself (LOCAL), or somebody whom it has no TCP
    /// address of (UNSPEC, a UNIX socket, UDP): the other end of the connection is all that is known.
    pub source: Option<SocketAddr>,
}

/// What the beginning of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header that has at least so many bytes more, 1 or more.
    Partial(usize),
    /// A header.
    Whole(Header),
}

/// Why a connection does not begin with a header that is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Something else.
    Missing,
    /// A header of version 1.
    Text,
    /// This version.
    Version(u8),
    /// This command.
    Command(u8),
    /// This byte for family and transport, of which one does not exist.
    Family(u8),
    /// So many bytes, more than [`PROXY_HEADER_BYTES_MAX`].
    TooLong(usize),
    /// So many bytes, which the addresses do not fit into.
    TooShort(usize),
    /// A TLV that reaches beyond the end.
    Tlv,
    /// The checksum is another.
    Checksum,
    /// A source that is no host's address.
    Source(SocketAddr),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the connection does not begin with one"),
            Self::Text => f.write_str("it is of version 1 (text); version 2 is expected"),
            Self::Version(version) => write!(f, "it is of version {version}; 2 is expected"),
            Self::Command(command) => write!(f, "it has the unknown command {command}"),
            Self::Family(byte) => write!(f, "it has the unknown family and transport 0x{byte:02x}"),
            Self::TooLong(bytes) => {
                write!(f, "it has {bytes} bytes, more than {PROXY_HEADER_BYTES_MAX}")
            }
            Self::TooShort(bytes) => write!(f, "its addresses do not fit into its {bytes} bytes"),
            Self::Tlv => f.write_str("a TLV reaches beyond its end"),
            Self::Checksum => f.write_str("its CRC32c is wrong"),
            Self::Source(source) => write!(f, "its source {source} is no host's address"),
        }
    }
}

/// Reads the header that `bytes` begin with.
///
/// What it says of some bytes it says of them with any others behind, except [`Parsed::Partial`]: a wrong
/// byte is refused as soon as it is there.
///
/// # Errors
/// They are no header, or none that is good: close the connection.
pub fn parse(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(one, other)| one == other);
    if begins(&TEXT) && !bytes.is_empty() {
        let missing = TEXT.len().saturating_sub(bytes.len());
        return if missing == 0 { Err(HeaderError::Text) } else { Ok(Parsed::Partial(missing)) };
    }
    if !begins(&SIGNATURE) {
        return Err(HeaderError::Missing);
    }
    let is_proxy = match bytes.get(12) {
        Some(byte) if byte >> 4 != 2 => return Err(HeaderError::Version(byte >> 4)),
        Some(byte) if byte & 15 > 1 => return Err(HeaderError::Command(byte & 15)),
        byte => byte.is_some_and(|byte| byte & 15 == 1),
    };
    // What a LOCAL header says of addresses is ignored, and its family with it.
    let family = bytes.get(13).copied().filter(|_| is_proxy).unwrap_or(0);
    if family >> 4 > 3 || family & 15 > 2 {
        return Err(HeaderError::Family(family));
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(Parsed::Partial(FIXED - bytes.len()));
    };
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > PROXY_HEADER_BYTES_MAX {
        return Err(HeaderError::TooLong(length));
    }
    let Some(block) = rest.get(..length - FIXED) else {
        return Ok(Parsed::Partial(length - bytes.len()));
    };
    let source = source(family, &bytes[..length], block)?;
    Ok(Parsed::Whole(Header { length, source }))
}

/// Who opened the connection, when the header is good.
fn source(family: u8, header: &[u8], block: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    // Both addresses, and both ports.
    let addresses = match family {
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        // Nobody knows how long they are, so what follows them is not looked at.
        _ => return Ok(None),
    };
    let too_short = HeaderError::TooShort(header.len());
    check_tlvs(header, block.get(addresses..).ok_or(too_short)?)?;
    let source = match family {
        0x11 => block.first_chunk().copied().map(Ipv4Addr::from).map(IpAddr::V4),
        0x21 => block.first_chunk().copied().map(Ipv6Addr::from).map(IpAddr::V6),
        _ => return Ok(None),
    };
    let port = block.get(addresses - 4..).and_then(<[u8]>::first_chunk).copied();
    let (ip, port) = source.zip(port).ok_or(too_short)?;
    let source = SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(port));
    let ip = source.ip();
    let is_host = !ip.is_unspecified() && !ip.is_multicast() && source.port() != 0;
    if is_host { Ok(Some(source)) } else { Err(HeaderError::Source(source)) }
}

/// Walks over the TLVs at the end of a header. Of what they say only the checksum matters here.
fn check_tlvs(header: &[u8], mut tlvs: &[u8]) -> Result<(), HeaderError> {
    while let Some((&kind, after)) = tlvs.split_first() {
        let (size, after) = after.split_first_chunk().ok_or(HeaderError::Tlv)?;
        let size = usize::from(u16::from_be_bytes(*size));
        let (value, after) = after.split_at_checked(size).ok_or(HeaderError::Tlv)?;
        if kind == CRC32C {
            let end = header.len() - after.len();
            let crc = value.try_into().ok().map(u32::from_be_bytes);
            // It is computed with zeros in its own place.
            let zeros = (header.iter().enumerate())
                .map(|(at, &byte)| if (end - size..end).contains(&at) { 0 } else { byte });
            if crc != Some(crc32c(zeros)) {
                return Err(HeaderError::Checksum);
            }
        }
        tlvs = after;
    }
    Ok(())
}

/// The checksum of RFC 9260 Appendix A.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let bit = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    !bytes.fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(byte), bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with this 13th and 14th byte and this block.
    fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = (block.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, block].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x9c, 0x40, 0x13, 0xc4];

    fn whole(bytes: &[u8]) -> Option<SocketAddr> {
        match parse(bytes) {
            Ok(Parsed::Whole(Header { length, source })) if length == bytes.len() => source,
            other => panic!("{other:?} of {bytes:02x?}"),
        }
    }

    #[test]
    fn the_source_is_who_opened_the_connection() {
        assert_eq!(whole(&header(0x21, 0x11, &V4)), Some("192.0.2.1:40000".parse().unwrap()));
        let ip: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let block = [&ip.octets()[..], &[0; 16], &[0x13, 0xc4, 0, 1]].concat();
        assert_eq!(whole(&header(0x21, 0x21, &block)), Some("[2001:db8::7]:5060".parse().unwrap()));
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
        let block = [&mapped.octets()[..], &[0; 16], &[0x13, 0xc4, 0, 1]].concat();
        assert_eq!(whole(&header(0x21, 0x21, &block)), Some("192.0.2.1:5060".parse().unwrap()));
    }

    #[test]
    fn where_it_names_no_tcp_address_the_connection_speaks_for_itself() {
        assert_eq!(whole(&header(0x20, 0x00, b"")), None);
        // A LOCAL header may say anything else.
        assert_eq!(whole(&header(0x20, 0x11, &V4)), None);
        assert_eq!(whole(&header(0x20, 0xff, b"\x03\xff\xff")), None);
        for (family, bytes) in [(0x00, 0), (0x00, 5), (0x01, 0), (0x10, 2), (0x12, 12), (0x22, 36)]
        {
            assert_eq!(whole(&header(0x21, family, &vec![1; bytes])), None, "0x{family:02x}");
        }
        for family in [0x31, 0x32] {
            assert_eq!(whole(&header(0x21, family, &[1; 216])), None);
        }
    }

    #[test]
    fn what_is_no_header_or_a_bad_one_is_refused_at_its_first_wrong_byte() {
        let refused = |bytes: &[u8]| parse(bytes).unwrap_err();
        for text in [&b"I"[..], b"\r\n\r\n\r", b"\x16", b"PROXI", b"PROXYT"] {
            assert_eq!(refused(text), HeaderError::Missing, "{text:?}");
            assert!(parse(&text[..text.len() - 1]).is_ok());
        }
        assert_eq!(refused(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), HeaderError::Text);
        assert_eq!(refused(&header(0x11, 0x11, &V4)[..13]), HeaderError::Version(1));
        assert_eq!(refused(&header(0x31, 0x11, &V4)[..13]), HeaderError::Version(3));
        assert_eq!(refused(&header(0x22, 0x11, &V4)[..13]), HeaderError::Command(2));
        assert_eq!(refused(&header(0x21, 0x41, &V4)[..14]), HeaderError::Family(0x41));
        assert_eq!(refused(&header(0x21, 0x13, &V4)[..14]), HeaderError::Family(0x13));
        let mut long = header(0x21, 0x11, &V4);
        (long[14], long[15]) = (0x0f, 0xf1);
        assert_eq!(refused(&long[..16]), HeaderError::TooLong(4097));
        long[15] = 0xf0;
        assert_eq!(parse(&long), Ok(Parsed::Partial(4096 - 28)));
        assert_eq!(refused(&header(0x21, 0x11, &V4[..11])), HeaderError::TooShort(27));
        assert_eq!(refused(&header(0x21, 0x21, &[1; 35])), HeaderError::TooShort(51));
        assert_eq!(refused(&header(0x21, 0x31, &[1; 215])), HeaderError::TooShort(231));
    }

    #[test]
    fn a_source_that_is_no_hosts_address_is_refused() {
        for (at, bytes) in [(0, &[0, 0, 0, 0][..]), (0, &[224, 0, 0, 1]), (8, &[0, 0])] {
            let mut block = V4;
            block[at..at + bytes.len()].copy_from_slice(bytes);
            let refused = parse(&header(0x21, 0x11, &block));
            assert!(matches!(refused, Err(HeaderError::Source(_))), "{refused:?}");
        }
    }

    #[test]
    fn tlvs_are_skipped_and_must_end_where_the_header_does() {
        let with = |tlvs: &[u8]| parse(&header(0x21, 0x11, &[&V4[..], tlvs].concat()));
        for good in [&b""[..], b"\x04\0\0", b"\x02\0\x01x\xee\0\0", b"\x20\0\x05\x01\0\0\0\0"] {
            assert!(matches!(with(good), Ok(Parsed::Whole(_))), "{good:?}");
        }
        for bad in [&b"\x04"[..], b"\x04\0", b"\x04\0\x01", b"\x04\0\0\x04\xff\xffx"] {
            assert_eq!(with(bad), Err(HeaderError::Tlv), "{bad:?}");
        }
    }

    #[test]
    fn a_checksum_must_be_right_wherever_it_stands() {
        // The check value of the polynomial.
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
        for (before, behind) in [(&b""[..], &b""[..]), (b"\x04\0\x01x", b""), (b"", b"\x04\0\x01x")]
        {
            let block = [&V4[..], before, b"\x03\0\x04\0\0\0\0", behind].concat();
            let mut bytes = header(0x21, 0x11, &block);
            let place = bytes.len() - behind.len() - 4;
            let crc = crc32c(bytes.iter().copied());
            bytes[place..place + 4].copy_from_slice(&crc.to_be_bytes());
            assert!(whole(&bytes).is_some());
            for at in [16, place, place + 3] {
                let mut other = bytes.clone();
                other[at] ^= 1;
                assert_eq!(parse(&other), Err(HeaderError::Checksum));
            }
        }
        let odd = header(0x21, 0x11, &[&V4[..], b"\x03\0\x03\0\0\0"].concat());
        assert_eq!(parse(&odd), Err(HeaderError::Checksum));
    }
}
