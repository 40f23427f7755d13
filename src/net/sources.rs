//! What one address may have of a shard: connections, and messages a second on each.
//!
//! A configured device, a proxy in front of one and a proxy's servers may have as much as they like: one
//! connection may carry a carrier's calls. Everybody else is held to what a phone, or an office full of phones,
//! needs.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use foldhash::fast::{FixedState, RandomState};

use crate::bucket::Bucket;
use crate::options::Options;
use crate::time::Instant;

/// Who has how many connections.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Addresses that are held to nothing.
    known: RefCell<HashSet<IpAddr, FixedState>>,
    /// Connections of all others; an entry lives as long as one is open.
    taken: RefCell<HashMap<IpAddr, u32, RandomState>>,
}

/// The right to one connection; dropped, it is free again.
#[derive(Debug)]
pub(super) struct Seat {
    sources: Rc<Sources>,
    /// `None` for an address that is held to nothing.
    source: Option<IpAddr>,
}

impl Sources {
    /// The addresses of `options` are held to nothing from now on.
    pub(super) fn set_options(&self, options: &Options) {
        *self.known.borrow_mut() = options.addresses().collect();
    }

    /// A seat for a connection from `address`; `None` when it has `max` already.
    pub(super) fn seat(self: &Rc<Self>, address: IpAddr, max: u32) -> Option<Seat> {
        let address = address.to_canonical();
        if self.known.borrow().contains(&address) {
            return Some(Seat { sources: Rc::clone(self), source: None });
        }
        let source = source_of(address);
        let mut all = self.taken.borrow_mut();
        let taken = all.entry(source).or_default();
        // An entry that is there has at least one, and `max` is at least one.
        if *taken >= max {
            return None;
        }
        *taken += 1;
        Some(Seat { sources: Rc::clone(self), source: Some(source) })
    }
}

impl Seat {
    /// True for a peer of whom nothing is known.
    pub(super) fn is_stranger(&self) -> bool {
        self.source.is_some()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(source) = self.source else { return };
        let mut all = self.sources.taken.borrow_mut();
        if let Some(taken) = all.get_mut(&source) {
            *taken -= 1;
            if *taken == 0 {
                all.remove(&source);
            }
        }
    }
}

/// What is counted as one: an IPv4 address, or the 64 bits that one IPv6 host has to itself (RFC 4291 §2.5.4).
fn source_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// Messages of one flow, at most so many a second: a bucket that may be one second full.
#[derive(Debug, Default)]
pub(super) struct Rate(Bucket);

impl Rate {
    /// Takes `count` messages that were read at `now`, where `per_second` may be. How long to read nothing;
    /// zero while they are not too many.
    pub(super) fn take(&mut self, now: Instant, count: u32, per_second: u32) -> Duration {
        self.0.fill(now, Duration::from_secs(1) * count / per_second.max(1));
        self.0.level(now).saturating_sub(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_has_so_many_seats_and_gets_back_what_it_leaves() {
        let sources = Rc::new(Sources::default());
        let one = address("192.0.2.1");
        let seats = [(); 2].map(|()| sources.seat(one, 2).unwrap());
        assert!(seats[0].is_stranger());
        assert!(sources.seat(one, 2).is_none());
        assert!(sources.seat(address("::ffff:192.0.2.1"), 2).is_none(), "the same host");
        assert!(sources.seat(address("192.0.2.2"), 2).is_some());
        drop(seats);
        assert!(sources.taken.borrow().is_empty());
        assert!(sources.seat(one, 2).is_some());
    }

    #[test]
    fn an_ipv6_host_cannot_multiply_itself() {
        let sources = Rc::new(Sources::default());
        let _seat = sources.seat(address("2001:db8:1:2::1"), 1).unwrap();
        assert!(sources.seat(address("2001:db8:1:2:ffff::9"), 1).is_none());
        assert!(sources.seat(address("2001:db8:1:3::1"), 1).is_some());
    }

    #[test]
    fn a_device_is_held_to_nothing() {
        let sources = Rc::new(Sources::default());
        let device = address("192.0.2.1");
        sources.known.borrow_mut().insert(device);
        let seats: Vec<_> = (0..9).filter_map(|_| sources.seat(device, 1)).collect();
        assert_eq!(seats.len(), 9);
        assert!(!seats[0].is_stranger());
    }

    #[test]
    fn a_second_full_of_messages_may_come_at_once_and_then_as_many_as_leak() {
        let (mut rate, at) = (Rate::default(), Instant::from_millis);
        assert_eq!(rate.take(at(0), 100, 100), Duration::ZERO);
        assert_eq!(rate.take(at(0), 1, 100), Duration::from_millis(10));
        assert_eq!(rate.take(at(10), 0, 100), Duration::ZERO);
        assert_eq!(rate.take(at(500), 200, 100), Duration::from_millis(1510));
        assert_eq!(rate.take(at(60_000), 100, 100), Duration::ZERO);
    }
}
