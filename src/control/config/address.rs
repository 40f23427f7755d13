//! Addresses as a file writes them: `tcp:IP:PORT`, `udp:IP:PORT`, `host:port`, a device's contact.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::options::HostName;
use crate::sip::message::Uri;
use crate::target::{Target, Transport};

/// A longer contact is refused: it is the Request-URI of every request to the device, which must
/// fit into a start line.
pub const CONTACT_BYTES_MAX: usize = 1000;

/// A device's contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Where requests go.
    pub host: Host,
    /// True when it has a user part.
    pub has_user: bool,
    /// What it says in `transport`; `None` when it says nothing.
    pub transport: Option<Transport>,
}

/// What stands between user and parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An IP address, and the port or the one that stands for none.
    Address(SocketAddr),
    /// A name, which DNS knows.
    Name(HostName),
}

impl Contact {
    /// Its address; `None` where it has a name.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Address(address) => Some(address),
            Host::Name(_) => None,
        }
    }

    /// The same with the transport that is used where it names none: NAPTR has no say.
    pub(super) fn settled(mut self) -> Self {
        let transport = self.transport.unwrap_or_default();
        if let Host::Name(name) = &mut self.host {
            name.transport = Some(transport);
        }
        self
    }
}

/// Reads a contact: a SIP or SIPS URI with an IP address or a name, and TCP, TLS or UDP.
///
/// # Errors
/// What is wrong, to follow the URI in a sentence.
pub fn parse_contact(text: &str) -> Result<Contact, String> {
    if text.len() > CONTACT_BYTES_MAX {
        return Err(format!("is longer than {CONTACT_BYTES_MAX} bytes"));
    }
    let odd = |byte: u8| !byte.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&byte);
    if text.bytes().any(odd) {
        return Err("has a blank or a character that must be escaped as %HH".to_owned());
    }
    let uri = Uri::parse(text.as_bytes()).ok_or("is no SIP URI")?;
    if !uri.headers.is_empty() || text.ends_with('?') {
        return Err("has headers after `?`, which a Request-URI must not have".to_owned());
    }
    if uri.param("maddr").is_some() {
        return Err("has `maddr`, which is not supported: write that address as the host".into());
    }
    let transport = match uri.param("transport") {
        None => uri.transport(),
        Some(value) => {
            let value = value.unwrap_or_default();
            let unknown = || {
                let value = String::from_utf8_lossy(value);
                format!("has transport `{value}`: only tcp, tls and udp are served")
            };
            let named = Transport::parse(value).ok_or_else(unknown)?;
            if uri.is_secure() && named.is_unreliable() {
                return Err("is a SIPS URI, which means TLS, and has transport `udp`".into());
            }
            uri.transport().or(Some(named))
        }
    };
    if uri.port == Some(0) {
        return Err("has port 0".to_owned());
    }
    let host = host(&uri, transport)?;
    Ok(Contact { host, has_user: uri.user.is_some(), transport })
}

fn host(uri: &Uri<'_>, transport: Option<Transport>) -> Result<Host, String> {
    if let Some(address) = uri.socket_addr(transport.unwrap_or_default().port()) {
        if address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(format!("has the address {}, which is nobody's own", address.ip()));
        }
        return Ok(Host::Address(address));
    }
    let host = String::from_utf8_lossy(uri.host);
    if !is_host_name(&host) {
        return Err(format!("has the host `{host}`, which is neither an IP address nor a name"));
    }
    // RFC 3263 §4.1 asks for what the URI says; `sips` alone leaves the choice to NAPTR.
    let said = uri.param("transport").and(transport);
    Ok(Host::Name(HostName {
        host: host.strip_suffix('.').unwrap_or(&host).to_ascii_lowercase(),
        port: uri.port,
        transport: said,
        secure: uri.is_secure(),
    }))
}

/// Reads what to listen on: `tcp:IP:PORT`, `tls:IP:PORT` or `udp:IP:PORT`.
pub(super) fn parse_listen(text: &str) -> Result<Target, String> {
    let form = "is not of the form tcp:IP:PORT, tls:IP:PORT or udp:IP:PORT";
    let (transport, address) = text.split_once(':').ok_or(form)?;
    let transport = match transport {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        "tls" => Transport::Tls,
        "ws" | "wss" | "sctp" => {
            return Err(format!("has transport `{transport}`: only tcp, tls and udp are served"));
        }
        _ => return Err(form.to_owned()),
    };
    let Ok(address) = address.parse::<SocketAddr>() else {
        return Err(format!(
            "has the address `{address}`, which is not of the form IP:PORT or [IPv6]:PORT"
        ));
    };
    if address.port() == 0 {
        return Err("has port 0: peers need a port that stays the same".to_owned());
    }
    if address.ip().is_multicast() {
        return Err("has a multicast address".to_owned());
    }
    Ok(Target { transport, address })
}

/// True for two UDP sockets of one family: a flow over UDP is a peer's address, and says nothing of
/// ours.
pub(super) fn is_ambiguous(one: Target, other: Target) -> bool {
    let both = one.transport == Transport::Udp && other.transport == Transport::Udp;
    both && one.address.is_ipv4() == other.address.is_ipv4()
}

/// True when the first address is also the first of the other transport, if there is another: Via
/// and Contact name one host and port.
pub(super) fn is_reached_over_all(listen: &[Target]) -> bool {
    let first_of = |transport| listen.iter().find(|target| target.transport == transport);
    match (first_of(Transport::Tcp), first_of(Transport::Udp)) {
        (Some(tcp), Some(udp)) => tcp.address == udp.address,
        _ => true,
    }
}

/// Checks a sent-by: `host:port`, the host a name, an IPv4 address or an IPv6 address in brackets.
pub(super) fn check_sent_by(text: &str) -> Result<(), String> {
    let form = "is not of the form host:port";
    let (host, port) = text.rsplit_once(':').ok_or(form)?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || port.parse::<u16>().map_or(true, |port| port == 0) {
        return Err(format!("has the port `{port}`; expected 1 to 65535"));
    }
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let ip = match bracketed {
        Some(address) => Some(IpAddr::V6(address.parse::<Ipv6Addr>().map_err(|_| form)?)),
        None => host.parse().ok().filter(IpAddr::is_ipv4),
    };
    match ip {
        Some(ip) if ip.is_unspecified() || ip.is_multicast() => {
            Err(format!("names {ip}, which no peer can reach"))
        }
        Some(_) => Ok(()),
        None if is_host_name(host) => Ok(()),
        None => Err(form.to_owned()),
    }
}

/// RFC 3261 §25.1 `hostname`, with the lengths of RFC 1035 §2.3.4.
pub(super) fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        inner && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    // The last label begins with a letter, or 10.0.0.300 would be a name.
    let top = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253
        && host.split('.').all(is_label)
        && top.starts_with(|c: char| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_with_dots_in_the_user_and_ipv6_hosts_are_read() {
        let contact = parse_contact("sip:anna.b@[2001:db8::7]:5070;transport=TCP;x=y").unwrap();
        assert_eq!(contact.address(), Some("[2001:db8::7]:5070".parse().unwrap()));
        assert!(contact.has_user && contact.transport == Some(Transport::Tcp));
        let contact = parse_contact("sip:127.0.0.3").unwrap();
        assert_eq!(contact.address(), Some("127.0.0.3:5060".parse().unwrap()));
        assert!(!contact.has_user && contact.transport.is_none());
    }

    #[test]
    fn a_contact_may_have_a_name() {
        let name = |text: &str| match parse_contact(text).unwrap().host {
            Host::Name(name) => (name.host, name.port, name.transport, name.secure),
            Host::Address(address) => panic!("{address}"),
        };
        let host = || "pbx.example.com".to_owned();
        assert_eq!(name("sip:PBX.example.com."), (host(), None, None, false));
        assert_eq!(
            name("sip:7@pbx.example.com:5070;transport=UDP"),
            (host(), Some(5070), Some(Transport::Udp), false)
        );
        assert_eq!(name("sips:pbx.example.com"), (host(), None, None, true));
        assert_eq!(
            name("sips:pbx.example.com;transport=tcp"),
            (host(), None, Some(Transport::Tls), true)
        );
        for bad in ["sip:10.0.0.300", "sip:a_b.example", "sip:-a.example", "sip:a.example:0"] {
            assert!(parse_contact(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sent_by_is_a_name_or_an_address_with_a_port() {
        for good in ["a.example:5060", "10.0.0.1:1", "[2001:db8::1]:5060", "localhost:65535"] {
            assert_eq!(check_sent_by(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a.example",
            "a.example:",
            "a:0",
            "a:65536",
            "a:+1",
            "10.0.0.300:5060",
            "a b:1",
            "0.0.0.0:5060",
            "[::]:5060",
            "::1:5060",
            "[::1:5060",
            "-a:1",
            "a..b:1",
            ":5060",
        ] {
            assert!(check_sent_by(bad).is_err(), "{bad}");
        }
    }
}
