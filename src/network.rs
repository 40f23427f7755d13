//! Networks: addresses that begin with the same bits.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address and how many of its first bits count (RFC 4632 §3.1, RFC 4291 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// True for an address of the network; `::ffff:a.b.c.d` is the IPv4 address in it.
    pub fn contains(self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.address.is_ipv4() && masked(ip, self.bits) == self.address
    }

    /// True when it has every address of its family.
    pub fn is_everything(self) -> bool {
        self.bits == 0
    }
}

/// `ip` with zeros behind its first `bits`.
fn masked(ip: IpAddr, bits: u32) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

impl FromStr for Network {
    type Err = String;

    /// Reads `IP` or `IP/BITS`; what is wrong, to follow the text in a sentence.
    fn from_str(text: &str) -> Result<Self, String> {
        let form = "is not of the form IP or IP/BITS";
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| form)?;
        if address.to_canonical() != address {
            return Err(format!("is an IPv4 address: write {}", address.to_canonical()));
        }
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.is_empty() || !bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(form.into());
            }
            Some(bits) => match bits.parse() {
                Ok(bits) if bits <= most => bits,
                _ => return Err(format!("has {bits} bits; expected 0 to {most}")),
            },
        };
        let first = masked(address, bits);
        if first != address {
            return Err(format!("is no network: did you mean {first}/{bits}, or {address} alone?"));
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        match self.bits == whole {
            true => self.address.fmt(f),
            false => write!(f, "{}/{}", self.address, self.bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_like_it() {
        for (network, inside, outside) in [
            ("10.0.0.0/24", "10.0.0.255", "10.0.1.0"),
            ("10.0.0.0/24", "::ffff:10.0.0.7", "::10.0.0.7"),
            ("10.0.0.8", "10.0.0.8", "10.0.0.9"),
            ("0.0.0.0/0", "255.0.0.1", "::1"),
            ("128.0.0.0/1", "200.0.0.1", "127.255.255.255"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("::/0", "ffff::1", "10.0.0.1"),
            ("::1", "::1", "::2"),
        ] {
            let read: Network = network.parse().unwrap();
            assert_eq!(read.to_string(), network);
            assert!(read.contains(inside.parse().unwrap()), "{inside} in {network}");
            assert!(!read.contains(outside.parse().unwrap()), "{outside} in {network}");
            assert_eq!(read.is_everything(), network.ends_with("/0"));
        }
        let whole: Network = "10.0.0.8/32".parse().unwrap();
        assert_eq!(whole.to_string(), "10.0.0.8");
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_reason() {
        let form = "is not of the form IP or IP/BITS";
        for (text, reason) in [
            ("", form),
            ("lb.example", form),
            ("10.0.0.1:5060", form),
            ("10.0.0.0/", form),
            ("10.0.0.0/+8", form),
            ("10.0.0.0/8/8", form),
            ("10.0.0.0/33", "has 33 bits; expected 0 to 32"),
            ("::/129", "has 129 bits; expected 0 to 128"),
            ("10.0.0.5/24", "is no network: did you mean 10.0.0.0/24, or 10.0.0.5 alone?"),
            ("::ffff:10.0.0.1", "is an IPv4 address: write 10.0.0.1"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap_err(), reason, "{text}");
        }
    }
}
