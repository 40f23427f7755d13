//! Digests in place of copies.
//!
//! Where two values must be equal, 32 bits do: a collision hides one breach in four thousand
//! million. Where they must differ, it would invent one, and 64 bits are kept.

use memchr::memmem;

use crate::message::{self, Field, Message};

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;
/// Weight of a place in a list, odd.
const PLACE: u64 = 0xa076_1d64_78bd_642f;

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Of bytes; never 0, which stands for nothing seen.
pub(crate) fn long(bytes: &[u8]) -> u64 {
    let mut state = fold(SEED ^ bytes.len() as u64, FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), FACTOR).wrapping_add(SEED);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    fold(state ^ u64::from_le_bytes(last), FACTOR).max(1)
}

/// Half of it; never 0.
pub(super) fn short(bytes: &[u8]) -> u32 {
    ((long(bytes) >> 32) as u32).max(1)
}

/// Of a route set in the order in which Route lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As it stands: the Record-Route of a request, at its UAS; a Route.
    Forward,
    /// The Record-Route of a response, at the UAC (RFC 3261 §12.1.2).
    Reverse,
}

/// Digest of the members of all Route or Record-Route lines; an empty list has one, too.
pub(super) fn routes(message: &Message<'_>, field: Field, order: Order) -> u32 {
    let (mut sum, mut weight) = (SEED, 1u64);
    let lines = match field {
        Field::RecordRoute => message.record_routes,
        _ => message.routes,
    };
    if lines > 0 {
        for (name, value) in message::headers(message.headers) {
            let wanted = match field {
                Field::RecordRoute => message::field_of(name) == Field::RecordRoute,
                _ => message::is_route(name),
            };
            if wanted {
                for member in message::members(value) {
                    let member = long(member);
                    match order {
                        Order::Forward => sum = sum.wrapping_add(member.wrapping_mul(weight)),
                        Order::Reverse => {
                            sum = sum.wrapping_sub(SEED).wrapping_mul(PLACE);
                            sum = sum.wrapping_add(member).wrapping_add(SEED);
                        }
                    }
                    weight = weight.wrapping_mul(PLACE);
                }
            }
        }
    }
    ((fold(sum, FACTOR) >> 32) as u32).max(1)
}

/// The origin of a session description: digest of all but its version, and the version's low half.
pub(super) fn origin(body: &[u8]) -> Option<(u32, u32)> {
    let start = match body.starts_with(b"o=") {
        true => 2,
        false => memmem::find(body, b"\no=")? + 3,
    };
    let line = body[start..].split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let (user, session, version) = (words.next()?, words.next()?, words.next()?);
    let rest = words.next().unwrap_or_default();
    if version.is_empty() || !version.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = version
        .iter()
        .fold(0u32, |number, digit| number.wrapping_mul(10).wrapping_add(u32::from(digit - b'0')));
    let parts = [user, session, rest].map(long);
    let whole = parts.iter().fold(SEED, |whole, part| fold(whole ^ part, FACTOR));
    Some((((whole >> 32) as u32).max(1), number))
}
