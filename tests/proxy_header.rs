//! Properties of the reader of PROXY headers: whole, in pieces, and of anything else.

mod proxy_support;

use std::net::{IpAddr, SocketAddr};

use holdfast::proxy_protocol::{Header, HeaderError, PROXY_HEADER_BYTES_MAX, Parsed, parse};
use proptest::prelude::*;
use proxy_support::Writer;

/// Reads a connection that comes in pieces of these sizes, as a socket does; what is not there yet may be asked
/// for, and nothing behind the header. Returns also how many bytes were read.
fn read(stream: &[u8], sizes: &[usize]) -> (Option<Result<Header, HeaderError>>, usize) {
    let mut end = 0;
    for size in sizes.iter().copied().cycle() {
        let missing = match parse(&stream[..end]) {
            Ok(Parsed::Whole(header)) => return (Some(Ok(header)), end),
            Err(error) => return (Some(Err(error)), end),
            Ok(Parsed::Partial(missing)) => missing,
        };
        assert!(missing > 0);
        if end == stream.len() {
            return (None, end);
        }
        end = stream.len().min(end + size.clamp(1, missing));
    }
    unreachable!("sizes are repeated")
}

fn hosts() -> impl Strategy<Value = [SocketAddr; 2]> + Clone {
    let is_host = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast();
    let ends = (1..=u16::MAX, any::<u16>());
    let v4 = (any::<[[u8; 4]; 2]>(), ends.clone())
        .prop_map(|(ip, (from, to))| [SocketAddr::from((ip[0], from)), (ip[1], to).into()]);
    let v6 = (any::<[[u8; 16]; 2]>(), ends)
        .prop_map(|(ip, (from, to))| [SocketAddr::from((ip[0], from)), (ip[1], to).into()]);
    prop_oneof![v4, v6].prop_filter("a host", move |ends| is_host(&ends[0].ip().to_canonical()))
}

fn tlvs() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> + Clone {
    let kind = any::<u8>().prop_filter("a checksum would be wrong", |kind| *kind != 3);
    prop::collection::vec((kind, prop::collection::vec(any::<u8>(), 0..100)), 0..8)
}

/// Headers, some of them with something wrong, and other beginnings.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let header = (hosts(), tlvs(), any::<bool>()).prop_map(|([from, to], tlvs, crc)| {
        let writer = Writer { tlvs, ..Writer::tcp(from, to) };
        if crc { writer.bytes_with_crc() } else { writer.bytes() }
    });
    let spoilt = (header.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(
        |(mut bytes, at, byte)| {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        },
    );
    let bytes = prop::collection::vec(any::<u8>(), 0..100);
    let text = Just(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec());
    let begun = (prop_oneof![Just(Vec::new()), Just(Writer::local().bytes())], bytes.clone())
        .prop_map(|(begin, mut rest)| {
            let kept = begin.len().min(13);
            rest.splice(0..0, begin[..kept].to_vec());
            rest
        });
    let first = prop_oneof![4 => header, 4 => spoilt, 1 => bytes.clone(), 1 => text, 2 => begun];
    (first, bytes).prop_map(|(first, behind)| [first, behind].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_header_reads_as_it_was_written_and_what_follows_is_left(
        [from, to] in hosts(),
        tlvs in tlvs(),
        crc in any::<bool>(),
        behind in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let writer = Writer { tlvs, ..Writer::tcp(from, to) };
        let bytes = if crc { writer.bytes_with_crc() } else { writer.bytes() };
        let stream = [&bytes[..], &behind].concat();
        let source = SocketAddr::new(from.ip().to_canonical(), from.port());
        let expected = Header { length: bytes.len(), source: Some(source) };
        prop_assert_eq!(parse(&stream), Ok(Parsed::Whole(expected)));
        prop_assert_eq!(read(&stream, &[usize::MAX]).1, bytes.len());
    }

    #[test]
    fn a_stream_in_pieces_reads_as_it_does_in_one(
        stream in streams(),
        sizes in prop::collection::vec(1..30usize, 1..6),
    ) {
        let whole = match parse(&stream) {
            Ok(Parsed::Partial(_)) => None,
            Ok(Parsed::Whole(header)) => Some(Ok(header)),
            Err(error) => Some(Err(error)),
        };
        for sizes in [&sizes[..], &[1], &[usize::MAX]] {
            let (found, end) = read(&stream, sizes);
            prop_assert_eq!(found, whole, "in pieces of {:?}", sizes);
            if let Some(Ok(header)) = whole {
                prop_assert_eq!(end, header.length);
            }
        }
    }

    #[test]
    fn whatever_comes_is_decided_within_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for begin in [&b""[..], b"\r\n\r\n\0\r\nQUIT\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11"] {
            let mut stream = [begin, &bytes].concat();
            if let Ok(Parsed::Partial(missing)) = parse(&stream) {
                prop_assert!(stream.len() + missing <= PROXY_HEADER_BYTES_MAX);
            }
            stream.resize(PROXY_HEADER_BYTES_MAX, 0);
            prop_assert!(!matches!(parse(&stream), Ok(Parsed::Partial(_))));
        }
    }

    #[test]
    fn one_wrong_bit_in_what_is_said_is_noticed_where_there_is_a_checksum(
        [from, to] in hosts(),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let writer = Writer::tcp(from, to);
        let mut bytes = writer.bytes_with_crc();
        // Not the type and the length of the checksum itself.
        let (addresses, end) = (writer.addresses.len(), bytes.len());
        let said: Vec<_> = (16..16 + addresses).chain(end - 4..end).collect();
        bytes[*at.get(&said)] ^= 1 << bit;
        prop_assert_eq!(parse(&bytes), Err(HeaderError::Checksum));
    }
}
