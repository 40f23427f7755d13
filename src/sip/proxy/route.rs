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
    pub(super) routes: Routes,
    /// A URI that goes behind them: the next hop is a strict router.
    pub(super) last_route: Option<&'a [u8]>,
    /// Neither Request-URI nor Route leads further than here.
    pub(super) is_for_us: bool,
}

/// Some of the Route values of a request that follow each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Routes {
    skipped: usize,
    count: usize,
}

impl Routes {
    /// The values.
    pub(super) fn of<'a>(self, request: View<'a>) -> impl Iterator<Item = &'a [u8]> {
        request.routes().skip(self.skipped).take(self.count)
    }

    fn drop_first(&mut self) {
        (self.skipped, self.count) = (self.skipped + 1, self.count.saturating_sub(1));
    }
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
    let count = request.routes().take(ROUTES_MAX + 1).count();
    if count > ROUTES_MAX {
        return Err(513);
    }
    let mut routes = Routes { skipped: 0, count };
    let mut uri = request.request_uri();
    let mut parsed = Uri::parse(uri);
    // A strict router has put our Record-Route into the Request-URI, and what was there behind the Route
    // (§16.4).
    let is_record_route =
        |uri: &Uri<'_>| uri.user.is_none() && uri.param("lr").is_some() && is_ours(options, uri);
    if count > 0 && parsed.as_ref().is_some_and(is_record_route) {
        uri = request.routes().nth(count - 1).and_then(uri_of).ok_or(400u16)?;
        parsed = Uri::parse(uri);
        routes.count -= 1;
    }
    let trusted = options.is_member(from);
    if let Some(next) = next_route(options, request, &mut routes)? {
        let parsed = Uri::parse(next);
        let target = target_of(parsed)?;
        if !trusted && !options.is_member(target.address.ip()) {
            return Err(403);
        }
        let strict = parsed.is_some_and(|uri| uri.param("lr").is_none());
        let hop = options.pair_of(target).unwrap_or(Hop::To(target));
        if !strict {
            return Ok(Plan { hop, uri, routes, last_route: None, is_for_us: false });
        }
        routes.drop_first();
        return Ok(Plan { hop, uri: next, routes, last_route: Some(uri), is_for_us: false });
    }
    let known = parsed.ok_or(416u16)?;
    let is_for_us = is_ours(options, &known);
    let in_dialog = request.to().is_some_and(|to| to.tag.is_some());
    let named = target_of(parsed).ok();
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
    let is_for_us = is_for_us && known.user.is_none();
    Ok(Plan { hop, uri, routes, last_route: None, is_for_us })
}

/// The URI of the first Route that is not ours; `routes` begin with it then.
///
/// # Errors
/// 400 when it cannot be read.
fn next_route<'a>(
    options: &Options,
    request: View<'a>,
    routes: &mut Routes,
) -> Result<Option<&'a [u8]>, u16> {
    // One for each side of us.
    let mut ours = 2;
    for route in routes.of(request) {
        let uri = uri_of(route).ok_or(400u16)?;
        if ours == 0 || !Uri::parse(uri).is_some_and(|uri| is_ours(options, &uri)) {
            return Ok(Some(uri));
        }
        ours -= 1;
        routes.drop_first();
    }
    Ok(None)
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

/// Spreads bits upwards (the finalizer of MurmurHash3 has it).
const MIXER: u64 = 0xff51_afd7_ed55_8ccd;

/// Its low bits depend on the high ones, too.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(MIXER);
    hash ^ hash >> 33
}

/// The hash of what makes two requests the same for a proxy (RFC 3261 §16.6 step 8). It comes back to us alone.
pub(super) fn loop_hash(request: View<'_>) -> u64 {
    let from = request.from().and_then(|from| from.tag).unwrap_or_default();
    let to = request.to().and_then(|to| to.tag).unwrap_or_default();
    let cseq = request.cseq().map_or(0, |(number, _)| number).to_be_bytes();
    let parts = [request.request_uri(), from, to, request.call_id().unwrap_or_default(), &cseq];
    mix(parts.into_iter().chain(request.routes()).fold(SEED, hash_part))
}

/// Eight bytes at a time, and how many they are.
fn hash_part(start: u64, part: &[u8]) -> u64 {
    let (words, rest) = part.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    words.chain([u64::from_le_bytes(last), part.len() as u64]).fold(start, |hash, word| {
        let hash = (hash ^ word).wrapping_mul(MIXER);
        hash ^ hash >> 32
    })
}

fn uri_of(value: &[u8]) -> Option<&[u8]> {
    NameAddr::parse(value).map(|address| address.uri)
}

/// Where a URI leads, when its host is an address.
fn target_of(uri: Option<Uri<'_>>) -> Result<Target, u16> {
    let uri = uri.ok_or(416u16)?;
    let transport = uri.transport().unwrap_or_default();
    let address = uri.socket_addr(transport.port()).ok_or(404u16)?;
    Ok(Target { transport, address })
}

/// True for a URI with an address of ours.
fn is_ours(options: &Options, uri: &Uri<'_>) -> bool {
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
