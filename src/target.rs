//! Where messages go: an address and how they get there.

use std::fmt;
use std::net::SocketAddr;

/// What carries messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A stream that delivers in order or dies: reliable in the sense of RFC 3261 §17.
    #[default]
    Tcp,
    /// The same inside TLS (RFC 3261 §26.2).
    Tls,
    /// Datagrams, each a message, which may be lost, doubled and overtaken.
    Udp,
}

impl Transport {
    /// True when a message may be lost without anybody being told.
    pub const fn is_unreliable(self) -> bool {
        matches!(self, Self::Udp)
    }

    /// As it stands in Via (RFC 3261 §20.42).
    pub const fn in_via(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Udp => "UDP",
        }
    }

    /// As it stands in the `transport` parameter of a URI (RFC 3261 §19.1.1).
    pub const fn in_uri(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Udp => "udp",
        }
    }

    /// The port where none is written (RFC 3261 §18.2.2, §19.1.2).
    pub const fn port(self) -> u16 {
        match self {
            Self::Tcp | Self::Udp => 5060,
            Self::Tls => 5061,
        }
    }

    /// Reads the `transport` parameter of a URI, in any case; `None` when it is none of these.
    pub fn parse(text: &[u8]) -> Option<Self> {
        [Self::Tcp, Self::Tls, Self::Udp]
            .into_iter()
            .find(|known| text.eq_ignore_ascii_case(known.in_uri().as_bytes()))
    }
}

/// Where requests are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// What carries them.
    pub transport: Transport,
    /// Where to.
    pub address: SocketAddr,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport.in_uri(), self.address)
    }
}

impl Target {
    /// A connection to `address`.
    pub const fn tcp(address: SocketAddr) -> Self {
        Self { transport: Transport::Tcp, address }
    }

    /// The URI that leads there (RFC 3261 §19.1.1).
    pub fn uri(&self) -> String {
        format!("sip:{};transport={}", self.address, self.transport.in_uri())
    }

    /// A connection inside TLS to `address`.
    pub const fn tls(address: SocketAddr) -> Self {
        Self { transport: Transport::Tls, address }
    }

    /// Datagrams to `address`.
    pub const fn udp(address: SocketAddr) -> Self {
        Self { transport: Transport::Udp, address }
    }
}
