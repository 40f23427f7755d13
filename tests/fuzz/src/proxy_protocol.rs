//! The beginning of a connection of a load balancer, in pieces, reads as it does in one, and nothing behind the
//! header is asked for.
//!
//! ```text
//! input = 4 sizes of pieces, stream
//! ```

use holdfast::proxy_protocol::{Header, HeaderError, PROXY_HEADER_BYTES_MAX, Parsed, parse};

use super::bytes::Bytes;

/// Reads the stream in `input` in several ways.
pub fn run(input: &[u8]) {
    let mut input = Bytes::new(input);
    let sizes = [input.byte(), input.byte(), input.byte(), input.byte()].map(usize::from);
    let stream = input.rest();
    let whole = match parse(stream) {
        Ok(Parsed::Partial(_)) => None,
        Ok(Parsed::Whole(header)) => Some(Ok(header)),
        Err(error) => Some(Err(error)),
    };
    if let Some(Ok(Header { length, source })) = whole {
        assert!((16..=PROXY_HEADER_BYTES_MAX.min(stream.len())).contains(&length), "{length}");
        assert!(source.is_none_or(|source| source.port() != 0 && !source.ip().is_unspecified()));
        assert_eq!(parse(&stream[..length]), parse(stream), "what follows is no part of it");
    }
    for sizes in [&sizes[..], &[1], &[usize::MAX]] {
        let (found, end) = read(stream, sizes);
        assert_eq!(found, whole, "in pieces of {sizes:?}");
        if let Some(Ok(header)) = whole {
            assert_eq!(end, header.length, "in pieces of {sizes:?}");
        }
    }
}

/// What is read, and how many bytes it took, as from a socket that has so many at a time.
fn read(stream: &[u8], sizes: &[usize]) -> (Option<Result<Header, HeaderError>>, usize) {
    let mut end = 0;
    for turn in 0.. {
        let missing = match parse(&stream[..end]) {
            Ok(Parsed::Whole(header)) => return (Some(Ok(header)), end),
            Err(error) => return (Some(Err(error)), end),
            Ok(Parsed::Partial(missing)) => missing,
        };
        assert!(missing > 0 && end + missing <= PROXY_HEADER_BYTES_MAX, "{missing} after {end}");
        if end == stream.len() {
            break;
        }
        let size: usize = sizes[turn % sizes.len()];
        end = stream.len().min(end + size.clamp(1, missing));
    }
    (None, end)
}
