//! The options in force: plain data, already validated, read by every decision at its moment.
//!
//! What a file may say, with units, ranges and defaults, is in `docs/OPTIONS.md`; `control::config`
//! reads it into these types.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::network::Network;
use crate::target::{Target, Transport};

/// The window when `sip-invite-timeout` is 0 or absent: 64·T1 (RFC 3261 timer B).
pub const SIP_INVITE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(32);
/// Above this `retry-after-reliable-transport-error` is refused, in milliseconds.
pub const RETRY_AFTER_MILLIS_MAX: u64 = 34_000;
/// Above this `sip-invite-timeout` is refused, in seconds.
pub const SIP_INVITE_TIMEOUT_SECS_MAX: u64 = 34;

/// Above this a device's further contacts are refused.
pub const CONTACT_BACKUPS_MAX: usize = 8;
/// Targets that a name may have; further ones are left out.
pub const NAME_TARGETS_MAX: usize = 16;

/// Names a device as long as the server runs, through every reload that keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub u32);

/// What a device is (as the published option spells it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A phone: reached by its exact number, `dn`.
    Extension,
    /// A gateway or carrier: reached by the longest matching `prefix`.
    Trunk,
    /// Another call server: reached by `dn` or `prefix`.
    Softswitch,
    /// A proxy: reached by `dn` or `prefix`.
    Proxy,
}

/// A configured SIP peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number; a Trunk may have none.
    pub dn: Option<String>,
    /// Numbers that begin so are routed to it.
    pub prefix: Option<String>,
    /// What it is.
    pub kind: DeviceKind,
    /// The URI requests go to, as configured, without angle brackets.
    pub contact: String,
    /// The address in `contact`; where `contact` has a name, the first that the name has, and `None` while
    /// it is not known.
    pub address: Option<SocketAddr>,
    /// Names that stand where addresses may.
    pub names: Box<Names>,
    /// What `contact` and its backups are reached over.
    pub transport: Transport,
    /// Further addresses of the same device, in the order in which they are tried.
    pub backups: Vec<SocketAddr>,
    /// The proxy that its calls go through; `contact` is then what the proxy sends them to. `None`, too, while
    /// its name is not known.
    pub outbound: Option<Target>,
    /// The name that its certificate must be for, over TLS; `None`: its address.
    pub tls_name: Option<String>,
    /// True when `contact` has a user part: the Request-URI is then `contact` as it stands.
    pub contact_has_user: bool,
    /// `retry-after-reliable-transport-error` of this device; `None` when absent, which differs
    /// from zero: zero switches recovery off for this device.
    pub retry_after: Option<Duration>,
}

/// The names of a device, which DNS is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// In `contact`.
    pub contact: Option<Box<HostName>>,
    /// In `outbound-proxy`.
    pub outbound: Option<Box<HostName>>,
    /// All of `contact-backup` as it is written; empty where no name is among them.
    pub backups: Vec<Backup>,
}

/// A further contact of a device, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backup {
    /// An address.
    Address(SocketAddr),
    /// A name.
    Name(HostName),
}

impl Backup {
    /// Its address; `None` where it has a name.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name(_) => None,
        }
    }

    /// Its name; `None` where it has an address.
    pub fn name(&self) -> Option<&HostName> {
        match self {
            Self::Address(_) => None,
            Self::Name(name) => Some(name),
        }
    }
}

/// A name that stands for targets: what DNS is asked (RFC 3263 §4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName {
    /// In lower case, without a dot at its end.
    pub host: String,
    /// The port of the URI; `None`: SRV says.
    pub port: Option<u16>,
    /// The `transport` of the URI; `None`: NAPTR and SRV say.
    pub transport: Option<Transport>,
    /// True in a SIPS URI: nothing but TLS.
    pub secure: bool,
}

impl HostName {
    /// A URI with this name and nothing that needs to be known besides.
    pub fn uri(&self) -> String {
        let scheme = if self.secure { "sips" } else { "sip" };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let transport = self.transport.map(|it| format!(";transport={}", it.in_uri()));
        format!("{scheme}:{}{port}{}", self.host, transport.unwrap_or_default())
    }
}

/// Where a name leads: at least one address, at most [`NAME_TARGETS_MAX`], in the order in which they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// What they are reached over.
    pub transport: Transport,
    /// The addresses.
    pub addresses: Vec<SocketAddr>,
}

/// What to do with a new INVITE whose source is the address of no configured device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForeignCallers {
    /// Answer 403. The default: an open relay is an invitation to toll fraud.
    #[default]
    Refuse,
    /// Route it as if it came from a device.
    Relay,
}

/// What the server is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// A back-to-back user agent, which owns calls and recovers them.
    #[default]
    Server,
    /// A proxy in front of such servers.
    Proxy,
}

/// Two servers of which one stands in for the other, as a proxy sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its name, which calls are spread by: all proxies of a fleet have the same.
    pub name: String,
    /// The primary, and the backup if there is one; over one transport.
    pub members: Vec<Target>,
    /// Further addresses that requests of theirs come from.
    pub sources: Vec<IpAddr>,
}

/// Bounds of what one shard holds for its peers, each with its option in `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open flows of a shard; one more takes the place of idle ones, and is closed where there are none.
    pub flows_max: u32,
    /// Calls of a shard; further INVITEs are answered 503.
    pub calls_max: u32,
    /// Calls that may begin in a second; a further INVITE is answered 503. 0: as many as come.
    pub calls_per_second_max: u32,
    /// How long an INVITE of a new call may have waited to be read; one that may have waited longer is answered
    /// 503. Zero: as long as it takes.
    pub queueing_delay_max: Duration,
    /// Bytes queued for one flow; one more closes the flow.
    pub outbox_bytes_max: usize,
    /// Bytes of one message, head and body.
    pub message_bytes_max: usize,
    /// From the first byte of a message to its last; longer closes the flow.
    pub message_timeout: Duration,
    /// From the accept of a flow to its first whole message; longer closes the flow.
    pub first_message_timeout: Duration,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long what was sent may stay unacknowledged; longer ends the flow. Zero: as long as the kernel
    /// has it.
    pub tcp_user_timeout: Duration,
    /// How long a connection may be idle before the kernel asks whether its peer is still there. Zero:
    /// never.
    pub tcp_keepalive: Duration,
    /// TLS handshakes of peers under way; a further connection is closed.
    pub tls_handshakes_max: u32,
    /// How long the TLS handshake of a peer may take.
    pub tls_handshake_timeout: Duration,
    /// Connections from one address that is none of [`Options::addresses`]; a further one is closed.
    pub flows_per_source_max: u32,
    /// Messages and pings a second on a flow from such an address; what is more waits in the socket.
    pub messages_per_second_max: u32,
    /// How often a connection on which a request waits is pinged. Zero: never.
    pub ping_interval: Duration,
}

impl Limits {
    /// True when what may have waited so long has waited too long.
    pub(crate) fn is_late(&self, waited: Duration) -> bool {
        waited > self.queueing_delay_max && !self.queueing_delay_max.is_zero()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows_max: 100_000,
            calls_max: 1_000_000,
            calls_per_second_max: 0,
            queueing_delay_max: Duration::from_millis(200),
            outbox_bytes_max: 16 << 20,
            message_bytes_max: 65_535,
            message_timeout: Duration::from_secs(10),
            first_message_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(4),
            tcp_user_timeout: Duration::from_secs(3),
            tcp_keepalive: Duration::from_secs(60),
            tls_handshakes_max: 1000,
            tls_handshake_timeout: Duration::from_secs(10),
            flows_per_source_max: 1000,
            messages_per_second_max: 1000,
            ping_interval: Duration::from_secs(1),
        }
    }
}

/// Everything the core reads of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Host and port that Via and Contact name: a listening address that peers can reach, over TCP and UDP as
    /// far as they are listened on.
    pub sent_by: String,
    /// The same over TLS; empty where nothing is served over TLS.
    pub sent_by_tls: String,
    /// `[TServer] retry-after-reliable-transport-error`; zero: no recovery.
    pub retry_after: Duration,
    /// `[TServer] sip-invite-timeout` as configured; zero means the default.
    pub sip_invite_timeout: Duration,
    /// `[TServer] transport-error-responses`: answers to a re-INVITE that count as a transport
    /// failure (F6).
    pub transport_error_responses: Vec<u16>,
    /// True while somebody is to be told of events.
    pub events: bool,
    /// What the server is.
    pub role: Role,
    /// A proxy's servers.
    pub pairs: Vec<Pair>,
    /// How often a proxy asks each of them whether it lives; zero: never.
    pub oos_check: Duration,
    /// How long an answer may take until it counts as out of service.
    pub oos_force: Duration,
    /// What happens to callers that are no device.
    pub foreign_callers: ForeignCallers,
    /// Load balancers: their connections begin with a PROXY header, which says who the peer is.
    pub proxy_protocol_from: Vec<Network>,
    /// Bounds.
    pub limits: Limits,
    places: Vec<Place>,
    /// The devices there are, in the order of the configuration.
    devices: Vec<DeviceId>,
    by_dn: HashMap<String, DeviceId, FixedState>,
    by_address: HashMap<IpAddr, Vec<DeviceId>, FixedState>,
    /// Longest prefix first.
    by_prefix: Vec<DeviceId>,
}

/// What a [`DeviceId`] stands for.
#[derive(Clone, Debug)]
enum Place {
    Here(Device),
    /// A reload took it away; a later one may bring it back.
    Gone(Identity),
}

/// What makes a device the same one after a reload: its number, else its prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Identity {
    Number(String),
    Prefix(String),
}

impl Place {
    /// What is left of it for the next options.
    fn left(&self) -> Self {
        match self {
            Self::Here(device) => Self::Gone(Identity::of(device)),
            Self::Gone(identity) => Self::Gone(identity.clone()),
        }
    }
}

impl Identity {
    fn of(device: &Device) -> Self {
        match (&device.dn, &device.prefix) {
            (Some(dn), _) => Self::Number(dn.clone()),
            (None, prefix) => Self::Prefix(prefix.clone().unwrap_or_default()),
        }
    }
}

impl Device {
    /// Where its requests go; `None` while the name of that has no answer.
    pub fn target(&self) -> Option<Target> {
        let own = self.address.map(|address| Target { transport: self.transport, address });
        self.outbound.or(own.filter(|_| !self.has_proxy()))
    }

    /// True when its calls go through a proxy, whether or not the proxy's name is known.
    pub fn has_proxy(&self) -> bool {
        self.outbound.is_some() || self.names.outbound.is_some()
    }

    /// The names that must be looked up to reach it: its own, unless a proxy does that.
    pub fn looked_up(&self) -> impl Iterator<Item = &HostName> {
        let Names { contact, outbound, backups } = &*self.names;
        let own = contact.as_deref().filter(|_| !self.has_proxy());
        let backups = backups.iter().filter_map(Backup::name);
        own.into_iter().chain(outbound.as_deref()).chain(backups)
    }

    /// Puts the addresses of its names where `find` says that they lead. A proxy gets the first: Route names it,
    /// so what is for one must not go to another.
    fn locate<'a>(&mut self, find: impl Fn(&HostName) -> Option<&'a Located>) {
        if let Some(located) = self.names.outbound.as_deref().and_then(&find) {
            let transport = located.transport;
            let first = located.addresses.first();
            self.outbound = first.map(|&address| Target { transport, address });
        }
        let own = self.names.contact.as_deref().filter(|_| !self.has_proxy());
        if let Some(located) = own.and_then(&find)
            && let Some((first, rest)) = located.addresses.split_first()
        {
            self.transport = located.transport;
            self.address = Some(*first);
            self.backups = rest.to_vec();
        }
        if !self.names.backups.is_empty() {
            let addresses = self.names.backups.iter().flat_map(|backup| match backup {
                Backup::Address(address) => std::slice::from_ref(address),
                Backup::Name(name) => find(name).map_or(&[][..], |located| &located.addresses),
            });
            self.backups = addresses.copied().take(NAME_TARGETS_MAX).collect();
        }
    }

    /// Every address that it is at, its proxy's last.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let proxy = self.outbound.map(|proxy| proxy.address);
        self.address.into_iter().chain(self.backups.iter().copied()).chain(proxy)
    }
}

impl Options {
    /// The same options with these devices.
    pub fn with_devices(self, devices: Vec<Device>) -> Self {
        let order = (0..devices.len()).map(|place| DeviceId(place as u32)).collect();
        self.with_places(devices.into_iter().map(Place::Here).collect(), order)
    }

    /// The same options, when `before` was in force until now: a device that was there keeps its
    /// name, so that what was begun with it goes on with its new values.
    ///
    /// Names are never given anew: there are as many as devices were ever configured.
    pub fn succeed(mut self, before: &Self) -> Self {
        let mut places: Vec<Place> = before.places.iter().map(Place::left).collect();
        let known: HashMap<Identity, usize, FixedState> = places
            .iter()
            .enumerate()
            .filter_map(|(place, left)| match left {
                Place::Gone(identity) => Some((identity.clone(), place)),
                Place::Here(_) => None,
            })
            .collect();
        let mut order = Vec::with_capacity(self.devices.len());
        for here in std::mem::take(&mut self.places) {
            let Place::Here(device) = here else { continue };
            let place = known.get(&Identity::of(&device)).copied().unwrap_or(places.len());
            order.push(DeviceId(place as u32));
            match places.get_mut(place) {
                Some(left) => *left = Place::Here(device),
                None => places.push(Place::Here(device)),
            }
        }
        self.with_places(places, order)
    }

    /// The same options, with the devices that have a name where `find` says that it leads.
    pub fn located<'a>(&self, find: impl Fn(&HostName) -> Option<&'a Located>) -> Self {
        let mut options = self.clone();
        for place in &mut options.places {
            if let Place::Here(device) = place {
                device.locate(&find);
            }
        }
        let places = std::mem::take(&mut options.places);
        let order = std::mem::take(&mut options.devices);
        options.with_places(places, order)
    }

    fn with_places(mut self, places: Vec<Place>, order: Vec<DeviceId>) -> Self {
        self.by_dn.clear();
        self.by_address.clear();
        self.by_prefix.clear();
        self.places = places;
        for &id in &order {
            let Some(Place::Here(device)) = self.places.get(id.0 as usize) else { continue };
            if let Some(dn) = &device.dn {
                self.by_dn.insert(dn.clone(), id);
            }
            if device.prefix.is_some() {
                self.by_prefix.push(id);
            }
            for address in device.addresses() {
                let here = self.by_address.entry(address.ip()).or_default();
                if !here.contains(&id) {
                    here.push(id);
                }
            }
        }
        self.devices = order;
        let mut by_prefix = std::mem::take(&mut self.by_prefix);
        let prefix_len = |id: &DeviceId| self.device(*id)?.prefix.as_ref().map(String::len);
        by_prefix.sort_by_key(|id| std::cmp::Reverse(prefix_len(id)));
        self.by_prefix = by_prefix;
        self
    }

    /// All devices, in the order of the configuration.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.named_devices().map(|(_, device)| device)
    }

    /// The same, each with what names it.
    pub fn named_devices(&self) -> impl Iterator<Item = (DeviceId, &Device)> {
        self.devices.iter().filter_map(|id| Some((*id, self.device(*id)?)))
    }

    /// The device, or `None` when a reload took it away.
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        match self.places.get(id.0 as usize)? {
            Place::Here(device) => Some(device),
            Place::Gone(_) => None,
        }
    }

    /// The device a call to `number` goes to: the exact `dn`, else the longest `prefix`.
    pub fn route(&self, number: &str) -> Option<DeviceId> {
        self.by_dn.get(number).copied().or_else(|| {
            self.by_prefix.iter().copied().find(|id| {
                let prefix = self.device(*id).and_then(|device| device.prefix.as_deref());
                prefix.is_some_and(|prefix| number.starts_with(prefix))
            })
        })
    }

    /// The device behind a source address: the one whose `dn` is `number` among those at that
    /// address, else the first of them that stands for many numbers, else the first.
    pub fn caller(&self, address: IpAddr, number: &str) -> Option<DeviceId> {
        let here = self.by_address.get(&address)?;
        let named = self.by_dn.get(number).filter(|id| here.contains(id));
        let many = || {
            here.iter().find(|id| {
                self.device(**id).is_some_and(|device| device.kind != DeviceKind::Extension)
            })
        };
        named.or_else(many).or_else(|| here.first()).copied()
    }

    /// Every address that is configured: of devices, of proxies in front of them, of a proxy's servers.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let pairs = self.pairs.iter().flat_map(|pair| {
            let members = pair.members.iter().map(|member| member.address.ip());
            members.chain(pair.sources.iter().copied())
        });
        self.by_address.keys().copied().chain(pairs)
    }

    /// True when a device is configured to be reached at exactly this target.
    pub fn is_target(&self, target: Target) -> bool {
        let Target { transport, address } = target;
        self.by_address.get(&address.ip()).is_some_and(|here| {
            here.iter().filter_map(|id| self.device(*id)).any(|device| {
                device.transport == transport
                    && (device.address == Some(address) || device.backups.contains(&address))
            })
        })
    }

    /// Host and port that Via and Contact name over `transport`.
    pub fn sent_by(&self, transport: Transport) -> &str {
        match transport {
            Transport::Tls if !self.sent_by_tls.is_empty() => &self.sent_by_tls,
            Transport::Tcp | Transport::Tls | Transport::Udp => &self.sent_by,
        }
    }

    /// The delay in force for a leg of `device`: its own value where it has one, else the
    /// application's. Zero: no recovery.
    pub fn retry_delay(&self, device: Option<DeviceId>) -> Duration {
        device
            .and_then(|id| self.device(id))
            .and_then(|device| device.retry_after)
            .unwrap_or(self.retry_after)
    }

    /// The window in force.
    pub fn window(&self) -> Duration {
        if self.sip_invite_timeout.is_zero() {
            SIP_INVITE_TIMEOUT_DEFAULT
        } else {
            self.sip_invite_timeout
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(dn: Option<&str>, prefix: Option<&str>, port: u16) -> Device {
        Device {
            dn: dn.map(str::to_owned),
            prefix: prefix.map(str::to_owned),
            kind: DeviceKind::Softswitch,
            contact: String::new(),
            address: Some(SocketAddr::from(([127, 0, 0, 1], port))),
            names: Box::default(),
            transport: Transport::Tcp,
            backups: Vec::new(),
            outbound: None,
            tls_name: None,
            contact_has_user: false,
            retry_after: None,
        }
    }

    fn options(devices: &[Device]) -> Options {
        Options::default().with_devices(devices.to_vec())
    }

    #[test]
    fn a_device_keeps_its_name_through_reloads_that_move_change_and_remove_it() {
        let [one, two, three] = [1, 2, 3].map(|n| device(Some(&n.to_string()), None, n));
        let trunk = device(None, Some("1"), 9);
        let before = options(&[one.clone(), two.clone(), trunk.clone()]);
        let names = ["1", "2"].map(|number| before.route(number));

        let moved = device(Some("2"), None, 22);
        let after = options(&[trunk.clone(), three, moved]).succeed(&before);
        assert_eq!(names[0].and_then(|id| after.device(id)), None);
        assert_eq!(
            names[1].and_then(|id| after.device(id)).and_then(|d| d.address).map(|it| it.port()),
            Some(22)
        );
        assert_eq!(after.route("2"), names[1]);
        assert_eq!(after.route("1"), before.route("17"), "the number is gone, the prefix is not");
        assert_ne!(after.route("3"), names[0], "a name is never given anew");
        let ports: Vec<_> =
            after.devices().filter_map(|device| device.address).map(|it| it.port()).collect();
        assert_eq!(ports, [9, 3, 22], "the order is the configuration's");

        let back = options(&[one, two, trunk]).succeed(&after);
        assert_eq!(["1", "2"].map(|number| back.route(number)), names);
        assert_eq!(back.device(after.route("3").unwrap()), None);
    }

    #[test]
    fn the_first_device_of_an_address_is_the_first_of_the_configuration_after_a_reload() {
        let [one, two] = [1, 2].map(|n| device(Some(&n.to_string()), None, n));
        let before = options(&[one.clone(), two.clone()]);
        let after = options(&[two, one]).succeed(&before);
        let address = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(after.caller(address, "nobody"), before.route("2"));
    }

    #[test]
    fn a_name_gives_its_device_targets_and_the_file_does_not_change() {
        let name =
            HostName { host: "pbx.example".into(), port: None, transport: None, secure: false };
        let one = Device {
            address: None,
            names: Box::new(Names { contact: Some(Box::new(name.clone())), ..Names::default() }),
            ..device(Some("1"), None, 1)
        };
        let two = device(Some("2"), None, 2);
        let file = options(&[one, two]);
        let id = file.route("1").unwrap();
        let [first, second] = [10, 11].map(|last| SocketAddr::from(([127, 0, 0, last], 5070)));
        assert_eq!(file.device(id).unwrap().target(), None);
        assert_eq!(file.caller(first.ip(), "1"), None);

        let located = Located { transport: Transport::Udp, addresses: vec![first, second] };
        let found = file.located(|asked| (*asked == name).then_some(&located));
        let device = found.device(id).unwrap();
        assert_eq!(device.target(), Some(Target::udp(first)));
        assert_eq!(device.backups, [second]);
        assert_eq!(found.caller(second.ip(), "1"), Some(id));
        assert!(found.is_target(Target::udp(second)) && !found.is_target(Target::tcp(second)));
        assert_eq!(found.route("2"), file.route("2"));
        let none = file.located(|_| None);
        assert_eq!(none.device(id).unwrap().target(), None);
    }
}
