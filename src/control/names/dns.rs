//! Questions to DNS servers, over UDP, and over TCP where an answer does not fit.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;

use super::super::config::DnsConfig;
use super::super::reload::Watched;
use super::locate::{Answer, Failure, Family, Naptr, RECORDS_MAX, Reply, Source};
use super::order::Srv;

/// What the system's own resolver is configured by.
const SYSTEM: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// How often a question is asked again when nobody answers in time.
const REPEATS: usize = 1;

/// A way to DNS.
#[derive(Clone)]
pub(super) struct Dns {
    resolver: TokioResolver,
    /// Files of the system that it was made from.
    files: Vec<Watched>,
}

impl Dns {
    /// Reads the system's configuration where no servers are given. Nothing is asked yet.
    ///
    /// # Errors
    /// There is nobody to ask.
    pub(super) fn open(config: &DnsConfig) -> Result<Self, Failure> {
        let cannot = |error: NetError| Failure(format!("no DNS server is known: {error}"));
        let (files, servers, hosts) = if config.servers.is_empty() {
            let files = SYSTEM.map(|path| Watched::new(Path::new(path)));
            let (servers, _) = read_system_conf().map_err(cannot)?;
            (Vec::from(files), servers, ResolveHosts::Auto)
        } else {
            let servers = config.servers.iter().map(|server| {
                let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                connections.iter_mut().for_each(|connection| connection.port = server.port());
                NameServerConfig::new(server.ip(), true, connections)
            });
            let servers = ResolverConfig::from_name_servers(servers.collect());
            (Vec::new(), servers, ResolveHosts::Never)
        };
        let mut options = ResolverOpts::default();
        options.timeout = config.timeout;
        options.attempts = REPEATS;
        options.use_hosts_file = hosts;
        // Answers are kept here, with limits of their own.
        options.cache_size = 0;
        let builder = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default());
        let resolver = builder.with_options(options).build().map_err(cannot)?;
        Ok(Self { resolver, files })
    }

    /// True when the system's configuration is another one by now.
    pub(super) fn is_stale(&self) -> bool {
        self.files.iter().any(Watched::has_changed)
    }

    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Reply<T> {
        let failed = |error: &dyn std::fmt::Display| Failure(format!("{kind} {name}: {error}"));
        // Names are whole: the search list is for people.
        let full = Name::from_ascii(format!("{name}.")).map_err(|error| failed(&error))?;
        let none = Answer { records: Vec::new(), more: 0, ttl: Duration::MAX };
        match self.resolver.lookup(full, kind).await {
            Ok(lookup) => {
                let answers = lookup.answers();
                // Aliases on the way count (RFC 1034 §3.6.2).
                let ttl = answers.iter().map(|record| record.ttl).min().unwrap_or(0);
                let mut records: Vec<T> =
                    answers.iter().filter_map(|record| read(&record.data)).collect();
                let more = records.len().saturating_sub(RECORDS_MAX);
                records.truncate(RECORDS_MAX);
                Ok(Answer { records, more, ttl: Duration::from_secs(u64::from(ttl)) })
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Ok(none),
            // A server that does not know the type of record.
            Err(NetError::Dns(DnsError::ResponseCode(
                ResponseCode::NotImp | ResponseCode::FormErr,
            ))) => Ok(none),
            Err(error) => Err(failed(&error)),
        }
    }
}

impl Source for Dns {
    async fn naptr(&self, name: &str) -> Reply<Naptr> {
        self.ask(name, RecordType::NAPTR, |data| {
            let RData::NAPTR(naptr) = data else { return None };
            Some(Naptr {
                order: naptr.order,
                preference: naptr.preference,
                is_plain: naptr.flags.eq_ignore_ascii_case(b"s") && naptr.regexp.is_empty(),
                service: String::from_utf8_lossy(&naptr.services).into_owned(),
                replacement: written(&naptr.replacement),
            })
        })
        .await
    }

    async fn srv(&self, name: &str) -> Reply<Srv> {
        self.ask(name, RecordType::SRV, |data| {
            let RData::SRV(srv) = data else { return None };
            let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
            Some(Srv { priority, weight, port, target: written(&srv.target) })
        })
        .await
    }

    async fn addresses(&self, name: &str, family: Family) -> Reply<IpAddr> {
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        self.ask(name, kind, |data| match data {
            RData::A(ip) if family == Family::V4 => Some(IpAddr::V4(ip.0)),
            RData::AAAA(ip) if family == Family::V6 => Some(IpAddr::V6(ip.0)),
            _ => None,
        })
        .await
    }
}

/// A name without the dot at its end; empty for the root.
fn written(name: &Name) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}
