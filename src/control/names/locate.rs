//! Where a name leads (RFC 3263 §4.1, §4.2).
//!
//! ```text
//! a port is written ──────────────────────────────────► A, AAAA of the name
//! a transport is written ─► its SRV ─────── none ─────► A, AAAA
//! neither ─► NAPTR ─ some ─► SRV of each, in order ───► none: a failure
//!              └──── none ─► SRV: TLS, TCP, UDP ─ none ► A, AAAA, over TCP
//! ```
//!
//! What DNS says is a stranger's word: each answer is cut to named limits, and what was left out is
//! told.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_chacha::rand_core::Rng;

use super::order::{Srv, order};
use super::{RETRY, TTL_MAX, TTL_MIN};
use crate::options::{HostName, Located, NAME_TARGETS_MAX};
use crate::target::{Target, Transport};

/// Records of one answer that are read; further ones are left out.
pub(super) const RECORDS_MAX: usize = 256;
/// Services of a NAPTR answer that are followed; further ones are left out.
const SERVICES_MAX: usize = 4;

/// Whom names are asked for.
pub(super) trait Source {
    /// NAPTR records of `name`; none where it has none.
    fn naptr(&self, name: &str) -> impl Future<Output = Reply<Naptr>> + Send;
    /// SRV records of `name`.
    fn srv(&self, name: &str) -> impl Future<Output = Reply<Srv>> + Send;
    /// A or AAAA records of `name`.
    fn addresses(&self, name: &str, family: Family) -> impl Future<Output = Reply<IpAddr>> + Send;
}

/// What came to a question.
pub(super) type Reply<T> = Result<Answer<T>, Failure>;

/// Records, and how long they are good.
#[derive(Clone, Debug)]
pub(super) struct Answer<T> {
    /// At most [`RECORDS_MAX`]; none where the name has none.
    pub(super) records: Vec<T>,
    /// Records beyond those.
    pub(super) more: usize,
    pub(super) ttl: Duration,
}

/// One NAPTR record.
#[derive(Clone, Debug)]
pub(super) struct Naptr {
    pub(super) order: u16,
    pub(super) preference: u16,
    /// True for flag `s` and no regular expression: what follows is SRV.
    pub(super) is_plain: bool,
    pub(super) service: String,
    pub(super) replacement: String,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// Why a name leads nowhere, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure(pub(super) String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the server can reach peers over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// Families of connections, in the order in which they are tried.
    streams: Vec<Family>,
    /// Families of datagrams.
    datagrams: Vec<Family>,
    tls: bool,
}

impl Reach {
    /// What a server that listens there can reach, with TLS or without.
    pub(super) fn new(listen: &[Target], tls: bool) -> Self {
        let mut reach = Self { streams: Vec::new(), datagrams: Vec::new(), tls };
        let mut add = |target: &Target, family| {
            for (list, fits) in [
                (&mut reach.streams, true),
                (&mut reach.datagrams, target.transport == Transport::Udp),
            ] {
                if fits && !list.contains(&family) {
                    list.push(family);
                }
            }
        };
        for target in listen {
            let v4 = target.address.is_ipv4();
            add(target, if v4 { Family::V4 } else { Family::V6 });
            // Both, unless the system says otherwise.
            if !v4 && target.address.ip().is_unspecified() && !target.transport.is_unreliable() {
                add(target, Family::V4);
            }
        }
        reach
    }

    fn families(&self, transport: Transport) -> &[Family] {
        match transport {
            Transport::Tcp | Transport::Tls => &self.streams,
            Transport::Udp => &self.datagrams,
        }
    }

    /// True when `transport` may be chosen for a URI, a SIPS URI if `secure`.
    fn may(&self, transport: Transport, secure: bool) -> bool {
        match transport {
            Transport::Tls => self.tls,
            Transport::Tcp | Transport::Udp => !secure && !self.families(transport).is_empty(),
        }
    }
}

/// Where a name leads, and for how long.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) located: Located,
    /// Between [`TTL_MIN`] and [`TTL_MAX`].
    pub(super) ttl: Duration,
    pub(super) cut: Cut,
}

/// What was left out of the answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// Records, services and targets beyond the limits.
    beyond: usize,
    /// SRV records with port 0.
    ports: usize,
    /// Targets that are no host name.
    names: usize,
    /// Addresses that are nobody's own.
    addresses: usize,
    /// Targets whose address DNS did not tell.
    unanswered: usize,
}

impl Cut {
    /// True when everything was taken.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { beyond, ports, names, addresses, unanswered } = *self;
        let mut gap = "";
        for (count, what) in [
            (beyond, "records or targets beyond the limits"),
            (ports, "SRV records with port 0"),
            (names, "SRV records without a host name"),
            (addresses, "addresses that are nobody's own"),
            (unanswered, "targets that DNS did not answer for"),
        ] {
            if count > 0 {
                write!(f, "{gap}{count} {what}")?;
                gap = ", ";
            }
        }
        Ok(())
    }
}

/// Asks for the targets of a name.
///
/// # Errors
/// DNS did not answer, or what it says leads to no address.
pub(super) async fn locate(
    source: &impl Source,
    name: &HostName,
    reach: &Reach,
    rng: impl Rng,
) -> Result<Found, Failure> {
    let mut search = Search { source, reach, rng, ttl: TTL_MAX, cut: Cut::default() };
    let located = search.located(name).await;
    let Search { ttl, cut, .. } = search;
    // What was not answered is the failure.
    let useless = Cut { unanswered: 0, ..cut };
    match located {
        Ok(located) => Ok(Found { located, ttl: ttl.clamp(TTL_MIN, TTL_MAX), cut }),
        Err(failure) if useless.is_empty() => Err(failure),
        Err(failure) => Err(Failure(format!("{failure} (left out: {useless})"))),
    }
}

struct Search<'a, S, R> {
    source: &'a S,
    reach: &'a Reach,
    rng: R,
    /// The shortest of all answers that were used.
    ttl: Duration,
    cut: Cut,
}

/// What SRV says of a service.
enum Service {
    /// Nothing.
    Absent,
    /// That it is not there, or nothing that is of use.
    Useless(Failure),
    Found(Located),
}

impl<S: Source, R: Rng> Search<'_, S, R> {
    async fn located(&mut self, name: &HostName) -> Result<Located, Failure> {
        let secure = name.secure.then_some(Transport::Tls);
        let written = name.transport.or(secure);
        let last = written.unwrap_or_default();
        if let Some(port) = name.port {
            return self.plain(&name.host, last, port).await;
        }
        let mut services = Vec::new();
        if name.transport.is_none() {
            services = self.services(name).await?;
        }
        let delegated = !services.is_empty();
        if !delegated {
            let may = |transport: &Transport| match written {
                Some(written) => *transport == written,
                None => self.reach.may(*transport, false),
            };
            let transports = [Transport::Tls, Transport::Tcp, Transport::Udp].into_iter();
            let service = |transport| (transport, format!("{}.{}", label(transport), name.host));
            services = transports.filter(may).map(service).collect();
        }
        let mut useless = None;
        for (transport, service) in services {
            match self.service(transport, &service).await? {
                Service::Found(located) => return Ok(located),
                Service::Useless(failure) => useless = useless.or(Some(failure)),
                Service::Absent => {}
            }
        }
        match useless {
            Some(failure) => Err(failure),
            None if delegated => {
                Err(Failure(format!("what NAPTR of {} names has no SRV record", name.host)))
            }
            None => self.plain(&name.host, last, last.port()).await,
        }
    }

    /// The services that NAPTR names and that are spoken here, the best first (RFC 3263 §4.1).
    async fn services(&mut self, name: &HostName) -> Result<Vec<(Transport, String)>, Failure> {
        let answer = self.source.naptr(&name.host).await?;
        let mut records = self.taken(answer);
        records.sort_by_key(|naptr| (naptr.order, naptr.preference));
        let mut services = Vec::new();
        for naptr in records {
            let known = [Transport::Tls, Transport::Tcp, Transport::Udp]
                .into_iter()
                .find(|it| naptr.service.eq_ignore_ascii_case(in_naptr(*it)))
                .filter(|transport| self.reach.may(*transport, name.secure));
            let Some(transport) = known.filter(|_| naptr.is_plain) else { continue };
            if naptr.replacement.is_empty() {
                self.cut.names += 1;
            } else if services.len() < SERVICES_MAX {
                services.push((transport, naptr.replacement));
            } else {
                self.cut.beyond += 1;
            }
        }
        Ok(services)
    }

    /// The targets of a service (RFC 3263 §4.2).
    async fn service(&mut self, transport: Transport, name: &str) -> Result<Service, Failure> {
        let answer = self.source.srv(name).await?;
        if answer.records.is_empty() {
            return Ok(Service::Absent);
        }
        let records = self.taken(answer);
        if matches!(&records[..], [only] if only.target.is_empty()) {
            return Ok(Service::Useless(Failure(format!("SRV {name} says that it is not served"))));
        }
        let mut usable = Vec::with_capacity(records.len());
        for srv in records {
            if srv.port == 0 {
                self.cut.ports += 1;
            } else if srv.target.is_empty() {
                self.cut.names += 1;
            } else {
                usable.push(srv);
            }
        }
        let ordered = order(usable, &mut self.rng);
        let hosts = ordered.into_iter().map(|srv| (srv.target, srv.port)).collect();
        let addresses = self.addresses(transport, hosts).await?;
        Ok(match addresses.is_empty() {
            true => Service::Useless(Failure(format!("no record of SRV {name} has an address"))),
            false => Service::Found(Located { transport, addresses }),
        })
    }

    /// The name's own addresses.
    async fn plain(&mut self, host: &str, to: Transport, port: u16) -> Result<Located, Failure> {
        let addresses = self.addresses(to, VecDeque::from([(host.to_owned(), port)])).await?;
        match addresses.is_empty() {
            true => Err(Failure(format!("{host} has no address"))),
            false => Ok(Located { transport: to, addresses }),
        }
    }

    /// The addresses of hosts, in order, as many as a device may have. Fails if DNS failed for all.
    async fn addresses(
        &mut self,
        transport: Transport,
        mut hosts: VecDeque<(String, u16)>,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let reach = self.reach;
        let (mut found, mut failed) = (Vec::new(), None);
        for _ in 0..NAME_TARGETS_MAX {
            if found.len() == NAME_TARGETS_MAX {
                break;
            }
            let Some((host, port)) = hosts.pop_front() else { break };
            for &family in reach.families(transport) {
                let answer = match self.source.addresses(&host, family).await {
                    Ok(answer) => answer,
                    Err(failure) => {
                        self.cut.unanswered += 1;
                        failed = failed.or(Some(failure));
                        continue;
                    }
                };
                for ip in self.taken(answer) {
                    self.add(&mut found, SocketAddr::new(ip, port));
                }
            }
        }
        self.cut.beyond += hosts.len();
        match failed {
            Some(failure) if found.is_empty() => return Err(failure),
            Some(_) => self.ttl = self.ttl.min(RETRY),
            None => {}
        }
        Ok(found)
    }

    fn add(&mut self, found: &mut Vec<SocketAddr>, address: SocketAddr) {
        let nobodys = match address.ip() {
            IpAddr::V4(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast(),
        };
        if nobodys {
            self.cut.addresses += 1;
        } else if found.contains(&address) {
            // Two names of one host.
        } else if found.len() < NAME_TARGETS_MAX {
            found.push(address);
        } else {
            self.cut.beyond += 1;
        }
    }

    /// The records of an answer, whose time counts from now on.
    fn taken<T>(&mut self, answer: Answer<T>) -> Vec<T> {
        if !answer.records.is_empty() {
            self.ttl = self.ttl.min(answer.ttl);
        }
        self.cut.beyond += answer.more;
        answer.records
    }
}

/// How NAPTR calls it (RFC 3263 §4.1).
fn in_naptr(transport: Transport) -> &'static str {
    match transport {
        Transport::Tls => "SIPS+D2T",
        Transport::Tcp => "SIP+D2T",
        Transport::Udp => "SIP+D2U",
    }
}

/// What stands before a host in the name of its SRV records (RFC 3263 §4.2).
fn label(transport: Transport) -> &'static str {
    match transport {
        Transport::Tls => "_sips._tcp",
        Transport::Tcp => "_sip._tcp",
        Transport::Udp => "_sip._udp",
    }
}

#[cfg(test)]
mod tests;
