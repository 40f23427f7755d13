//! Where a request goes (RFC 3261 §16.4, §16.5, §16.6 steps 2, 6 and 7).

use std::net::IpAddr;

use crate::options::{Options, Pair};
use crate::sip::dialog::ROUTES_MAX;
use crate::sip::message::{NameAddr, Uri, View};
use crate::target::{Target, Transport};

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// One target.
    To(Target),
    /// The members of a pair; `first` before the other, where it matters.
    Pair {
        /// Place among the pairs.
        pair: u16,
        /// Place in the pair.
        first: Option<u8>,
    },
}

/// What a request becomes.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) hop: Hop,
    /// The Request-URI.
    pub(super) uri: &'a [u8],
    /// The Route values that are left.
    pub(super) routes: Vec<&'a [u8]>,
    /// A URI that goes behind them: the next hop is a strict router.
    pub(super) last_route: Option<&'a [u8]>,
    /// Neither Request-URI nor Route leads further than here.
    pub(super) is_for_us: bool,
}

/// Decides where a request from `from` goes.
///
/// # Errors
/// The status that refuses it: 403 where a stranger asks for a way that is not to a pair, 416 for a scheme that
/// is not known, 404 for a host that is no address.
pub(super) fn plan<'a>(
    options: &Options,
    from: IpAddr,
    request: View<'a>,
) -> Result<Plan<'a>, u16> {
    // One with more than a dialog keeps is refused: what is behind them would be lost.
    let mut routes: Vec<&[u8]> = request.routes().take(ROUTES_MAX + 1).collect();
    if routes.len() > ROUTES_MAX {
        return Err(513);
    }
    let mut uri = request.request_uri();
    // A strict router has put our Record-Route into the Request-URI, and what was there behind the Route
    // (§16.4).
    let is_record_route =
        Uri::parse(uri).is_some_and(|uri| uri.user.is_none() && uri.param("lr").is_some());
    if !routes.is_empty() && is_record_route && is_ours(options, uri) {
        let last = routes.pop().and_then(uri_of);
        uri = last.ok_or(400u16)?;
    }
    // One for each side of us.
    for _ in 0..2 {
        if routes.first().copied().and_then(uri_of).is_some_and(|uri| is_ours(options, uri)) {
            routes.remove(0);
        }
    }
    let trusted = options.is_member(from);
    if let Some(first) = routes.first().copied() {
        let next = uri_of(first).ok_or(400u16)?;
        let target = target_of(next)?;
        if !trusted && !options.is_member(target.address.ip()) {
            return Err(403);
        }
        let strict = Uri::parse(next).is_some_and(|uri| uri.param("lr").is_none());
        let hop = options.pair_of(target).unwrap_or(Hop::To(target));
        if !strict {
            return Ok(Plan { hop, uri, routes, last_route: None, is_for_us: false });
        }
        routes.remove(0);
        return Ok(Plan { hop, uri: next, routes, last_route: Some(uri), is_for_us: false });
    }
    let parsed = Uri::parse(uri).ok_or(416u16)?;
    let is_for_us = is_ours(options, uri);
    let in_dialog = request.to().is_some_and(|to| to.tag.is_some());
    let named = target_of(uri).ok();
    let to_pair = named.and_then(|target| options.pair_of(target));
    let hop = match (to_pair, named) {
        _ if is_for_us && in_dialog => return Err(404),
        (Some(hop), _) if !is_for_us => hop,
        (None, Some(target)) if trusted && !is_for_us => Hop::To(target),
        (None, None) if trusted && !is_for_us => return Err(404),
        // Nobody but a pair is reached from outside, and a dialog says by its routes where it goes.
        _ if in_dialog => return Err(403),
        _ => choose(&options.pairs, request.call_id().unwrap_or_default()).ok_or(404u16)?,
    };
    let is_for_us = is_for_us && parsed.user.is_none();
    Ok(Plan { hop, uri, routes, last_route: None, is_for_us })
}

/// The pair for a Call-ID: the one with the highest hash of both (rendezvous hashing), so that all proxies
/// agree, and a pair more takes only its share from the others.
fn choose(pairs: &[Pair], call_id: &[u8]) -> Option<Hop> {
    let weight = |pair: &Pair| mix(hash(hash(SEED, pair.name.as_bytes()), call_id));
    let (place, _) = pairs.iter().enumerate().max_by_key(|(_, pair)| weight(pair))?;
    Some(Hop::Pair { pair: place as u16, first: None })
}

/// FNV-1a: the same on every machine and in every version.
const SEED: u64 = 0xcbf2_9ce4_8422_2325;

fn hash(start: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(start, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Its low bits depend on the high ones, too.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ hash >> 33
}

/// The hash of what makes two requests the same for a proxy (RFC 3261 §16.6 step 8).
pub(super) fn loop_hash(request: View<'_>) -> u64 {
    let tag = |tag: Option<&[u8]>| tag.map(<[u8]>::to_vec).unwrap_or_default();
    let from = tag(request.from().and_then(|from| from.tag));
    let to = tag(request.to().and_then(|to| to.tag));
    let cseq = request.cseq().map_or(0, |(number, _)| number).to_be_bytes();
    let parts = [request.request_uri(), &from, &to, request.call_id().unwrap_or_default(), &cseq];
    let whole = parts.iter().fold(SEED, |start, part| hash(hash(start, part), b"\0"));
    mix(request.routes().fold(whole, |start, route| hash(hash(start, route), b"\0")))
}

fn uri_of(value: &[u8]) -> Option<&[u8]> {
    NameAddr::parse(value).map(|address| address.uri)
}

/// Where a URI leads, when its host is an address.
fn target_of(uri: &[u8]) -> Result<Target, u16> {
    let uri = Uri::parse(uri).ok_or(416u16)?;
    let transport = uri.transport().unwrap_or_default();
    let address = uri.socket_addr(transport.port()).ok_or(404u16)?;
    Ok(Target { transport, address })
}

/// True for a URI with an address of ours.
fn is_ours(options: &Options, uri: &[u8]) -> bool {
    let Some(uri) = Uri::parse(uri) else { return false };
    names_us(options, uri.host, uri.port, uri.transport().unwrap_or_default())
}

/// True for a host and port that Via and Record-Route of ours have.
pub(super) fn names_us(
    options: &Options,
    host: &[u8],
    port: Option<u16>,
    transport: Transport,
) -> bool {
    let own = options.sent_by(transport);
    let (own_host, own_port) = own.rsplit_once(':').unwrap_or((own, ""));
    let port = port.unwrap_or(transport.port());
    host.eq_ignore_ascii_case(own_host.as_bytes()) && own_port.parse() == Ok(port)
}

impl Options {
    /// True for the address of a member of a pair.
    fn is_member(&self, ip: IpAddr) -> bool {
        self.pairs.iter().any(|pair| {
            pair.members.iter().any(|member| member.address.ip() == ip)
                || pair.sources.contains(&ip)
        })
    }

    /// The pair that a target is a member of.
    fn pair_of(&self, target: Target) -> Option<Hop> {
        self.pairs.iter().enumerate().find_map(|(pair, here)| {
            let first = here.members.iter().position(|member| *member == target)?;
            Some(Hop::Pair { pair: pair as u16, first: Some(first as u8) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(count: u16) -> Vec<Pair> {
        (0..count)
            .map(|n| Pair { name: format!("pair-{n}"), members: Vec::new(), sources: Vec::new() })
            .collect()
    }

    #[test]
    fn calls_spread_evenly_over_pairs_and_a_pair_more_takes_only_its_share() {
        let (three, four) = (pairs(3), pairs(4));
        let mut counts = [0; 4];
        for call in 0..40_000 {
            let call_id = format!("{call}@somewhere");
            let before = choose(&three, call_id.as_bytes());
            let after = choose(&four, call_id.as_bytes());
            let Some(Hop::Pair { pair, .. }) = after else { panic!("no pair") };
            counts[usize::from(pair)] += 1;
            assert!(after == before || pair == 3, "a call moved between old pairs");
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert_eq!(choose(&[], b"x"), None);
    }
}
