//! The names that peers must have certificates for.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use crate::options::{DeviceId, Options};

/// Addresses that devices had before; the oldest gives place to one more.
const FORMER_MAX: usize = 4096;

/// An address, and the name of the device there, if it has one.
type Place = (SocketAddr, Option<Box<str>>);

/// Names by address.
#[derive(Debug, Default)]
pub(super) struct PeerNames {
    /// By host, as it is configured or DNS says.
    current: HashMap<IpAddr, Vec<Place>>,
    /// Where devices were before, the oldest first: calls stay there when DNS or a reload moves their device.
    former: VecDeque<Place>,
    /// Of each device that has one.
    devices: Vec<(DeviceId, Box<str>)>,
}

impl PeerNames {
    /// The names of `options` are in force from now on.
    pub(super) fn set_options(&mut self, options: &Options) {
        let before = std::mem::take(&mut self.current);
        self.devices.clear();
        for (id, device) in options.named_devices() {
            let name = device.tls_name.as_deref().map(Box::from);
            for address in device.addresses() {
                self.current.entry(address.ip()).or_default().push((address, name.clone()));
            }
            self.devices.extend(name.map(|name| (id, name)));
        }
        let now = addresses(self.current.values().flatten());
        let mut gone: Vec<Place> = before.into_values().flatten().collect();
        gone.retain(|(address, name)| name.is_some() && !now.contains(address));
        if gone.is_empty() {
            return;
        }
        let moved = addresses(gone.iter());
        self.former.retain(|(address, _)| !moved.contains(address));
        self.former.extend(gone);
        let excess = self.former.len().saturating_sub(FORMER_MAX);
        self.former.drain(..excess);
    }

    /// The name for an address, else for its host. What was before counts only where nothing is now.
    pub(super) fn of(&self, target: SocketAddr) -> Option<&str> {
        let here = self.here(target.ip());
        let is_exact = |(address, _): &&Place| *address == target;
        let is_host = |(address, _): &&Place| address.ip() == target.ip();
        if here.iter().any(|place| is_exact(&place)) {
            return here.iter().filter(is_exact).find_map(name);
        }
        let former = || self.former.iter().rev().filter(is_host).find_map(name);
        (self.former.iter().filter(is_exact).find_map(name))
            .or_else(|| if here.is_empty() { former() } else { here.iter().find_map(name) })
    }

    /// Each device that has a name.
    pub(super) fn devices(&self) -> impl Iterator<Item = (DeviceId, &str)> {
        self.devices.iter().map(|(id, name)| (*id, &**name))
    }

    fn here(&self, host: IpAddr) -> &[Place] {
        self.current.get(&host).map_or(&[][..], |here| here)
    }
}

fn name((_, name): &Place) -> Option<&str> {
    name.as_deref()
}

fn addresses<'a>(named: impl Iterator<Item = &'a Place>) -> HashSet<SocketAddr> {
    named.map(|(address, _)| *address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Device, DeviceKind};
    use crate::target::Transport;

    fn options(devices: &[(&str, &str)]) -> Options {
        let device = |(address, name): &(&str, &str)| Device {
            dn: Some((*name).to_owned()),
            prefix: None,
            kind: DeviceKind::Softswitch,
            contact: String::new(),
            address: Some(address.parse().unwrap()),
            names: Box::default(),
            transport: Transport::Tls,
            backups: Vec::new(),
            outbound: None,
            tls_name: Some((*name).to_owned()).filter(|name| !name.is_empty()),
            contact_has_user: false,
            retry_after: None,
        };
        Options::default().with_devices(devices.iter().map(device).collect())
    }

    #[test]
    fn a_device_that_moves_keeps_its_name_where_its_calls_are() {
        let mut names = PeerNames::default();
        names.set_options(&options(&[("127.0.0.2:5061", "a"), ("127.0.0.3:5061", "b")]));
        names.set_options(&options(&[("127.0.0.4:5061", "a"), ("127.0.0.3:5061", "b")]));
        let of = |names: &PeerNames, address: &str| {
            names.of(address.parse().unwrap()).map(str::to_owned)
        };
        assert_eq!(of(&names, "127.0.0.4:5061").as_deref(), Some("a"));
        assert_eq!(of(&names, "127.0.0.2:5061").as_deref(), Some("a"));
        assert_eq!(of(&names, "127.0.0.2:40000").as_deref(), Some("a"), "the host");
        assert_eq!(of(&names, "127.0.0.9:5061"), None);
        names.set_options(&options(&[("127.0.0.2:5061", "c")]));
        assert_eq!(of(&names, "127.0.0.2:5061").as_deref(), Some("c"), "it is another's now");
        assert_eq!(names.devices().map(|(_, name)| name).collect::<Vec<_>>(), ["c"]);
        names.set_options(&options(&[("127.0.0.2:5061", ""), ("127.0.0.2:5062", "d")]));
        assert_eq!(of(&names, "127.0.0.2:5061"), None, "who is there now has none");
        assert_eq!(of(&names, "127.0.0.2:40000").as_deref(), Some("d"), "the host");
    }

    #[test]
    fn so_many_former_addresses_are_kept_and_the_newest_of_them() {
        let address = |n: usize| SocketAddr::from(([127, 0, (n >> 8) as u8, n as u8], 5061));
        let devices = |range: std::ops::Range<usize>| {
            let texts: Vec<_> = range.map(|n| address(n).to_string()).collect();
            options(&texts.iter().map(|text| (text.as_str(), "a")).collect::<Vec<_>>())
        };
        let mut names = PeerNames::default();
        for range in [0..10, 10..10 + FORMER_MAX, 0..0] {
            names.set_options(&devices(range));
        }
        assert_eq!(names.former.len(), FORMER_MAX);
        assert_eq!(names.of(address(9)), None);
        assert_eq!(names.of(address(10)), Some("a"));
    }
}
