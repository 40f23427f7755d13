//! Writes PROXY headers, as load balancers do.

use std::net::{IpAddr, SocketAddr};

/// A header of version 2 before its length is known.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    /// Version and command.
    pub(crate) command: u8,
    /// Family and transport.
    pub(crate) family: u8,
    /// Addresses and ports.
    pub(crate) addresses: Vec<u8>,
    /// Types and values.
    pub(crate) tlvs: Vec<(u8, Vec<u8>)>,
}

impl Writer {
    /// A connection from `source` over TCP; two addresses of one family.
    pub(crate) fn tcp(source: SocketAddr, destination: SocketAddr) -> Self {
        let mut addresses = Vec::new();
        for end in [source, destination] {
            match end.ip() {
                IpAddr::V4(ip) => addresses.extend(ip.octets()),
                IpAddr::V6(ip) => addresses.extend(ip.octets()),
            }
        }
        addresses.extend([source.port(), destination.port()].map(u16::to_be_bytes).concat());
        let family = if source.is_ipv4() { 0x11 } else { 0x21 };
        Self { command: 0x21, family, addresses, tlvs: Vec::new() }
    }

    /// A connection of the load balancer itself.
    pub(crate) fn local() -> Self {
        Self { command: 0x20, family: 0, addresses: Vec::new(), tlvs: Vec::new() }
    }

    pub(crate) fn with_tlv(mut self, kind: u8, value: &[u8]) -> Self {
        self.tlvs.push((kind, value.to_vec()));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut block = self.addresses.clone();
        for (kind, value) in &self.tlvs {
            block.push(*kind);
            block.extend((value.len() as u16).to_be_bytes());
            block.extend(value);
        }
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        bytes.extend([self.command, self.family]);
        bytes.extend((block.len() as u16).to_be_bytes());
        bytes.extend(block);
        bytes
    }

    /// The same with a checksum as its last TLV.
    #[allow(dead_code)] // For the properties.
    pub(crate) fn bytes_with_crc(&self) -> Vec<u8> {
        let mut bytes = self.clone().with_tlv(3, &[0; 4]).bytes();
        let place = bytes.len() - 4;
        let crc = crc32c(&bytes).to_be_bytes();
        bytes[place..].copy_from_slice(&crc);
        bytes
    }
}

/// CRC32c by polynomial division, most significant bit first, over mirrored bytes: another way than the
/// server's.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(byte.reverse_bits()) << 24;
        for _ in 0..8 {
            crc = (crc << 1) ^ if crc >> 31 == 1 { 0x1edc_6f41 } else { 0 };
        }
    }
    !crc.reverse_bits()
}
