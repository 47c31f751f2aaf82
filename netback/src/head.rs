//! The first bytes of a frame: what a switch looks at, and passes on as it saw them.

use core::fmt;
use core::str::FromStr;

use offload::{IPV4, IPV6, TCP, UDP};

use crate::held::Network;

/// The address of an Ethernet interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether it names more than one: a multicast address, or that of all.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

/// An error: this is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMac;

impl fmt::Display for NoMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address is six bytes in hexadecimal with colons between, not of a group")
    }
}

impl core::error::Error for NoMac {}

impl FromStr for Mac {
    type Err = NoMac;

    /// Reads the address of one interface, as `00:16:3e:01:02:03`.
    fn from_str(text: &str) -> Result<Self, NoMac> {
        let mut parts = text.split(':');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+'));
            let part = part.and_then(|part| u8::from_str_radix(part, 16).ok());
            *byte = part.ok_or(NoMac)?;
        }
        let mac = Self(bytes);
        if parts.next().is_some() || mac.is_group() { Err(NoMac) } else { Ok(mac) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Bytes of a frame that are copied here at most, to be looked at: all headers of what is sent most.
pub const HEAD: usize = 128;

/// A first piece of so many bytes (Ethernet, IPv4 and TCP) is taken to have all headers: what is behind
/// it is not copied here.
pub(crate) const HEADERS: u16 = 14 + 20 + 20;

/// The first bytes of a frame; those that are not copied, or that it does not have, are zero.
#[derive(Clone, Copy, Debug)]
pub struct Head([u8; HEAD]);

impl Head {
    /// The head of a frame that has at least an [Ethernet header](offload::ETHERNET).
    #[must_use]
    pub const fn new(bytes: [u8; HEAD]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn bytes(&self) -> &[u8; HEAD] {
        &self.0
    }

    /// Who shall have it.
    #[must_use]
    pub const fn destination(&self) -> Mac {
        let [a, b, c, d, e, f, ..] = self.0;
        Mac([a, b, c, d, e, f])
    }

    /// Who sends it.
    #[must_use]
    pub const fn source(&self) -> Mac {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = self.0;
        Mac([a, b, c, d, e, f])
    }

    const fn half_word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    /// What it carries, and where that begins.
    fn carried(&self) -> (u16, usize) {
        offload::carried(&self.0).unwrap_or_default()
    }

    pub(crate) fn network(&self) -> Network {
        match self.carried().0 {
            IPV4 => Network::V4,
            IPV6 => Network::V6,
            _ => Network::Other,
        }
    }

    /// A number that frames of one conversation share, by its addresses and ports: they stay in
    /// order if they go the same way.
    #[must_use]
    pub fn flow(&self) -> u32 {
        let (kind, ip) = self.carried();
        let (addresses, protocol, ports) = match kind {
            IPV4 => {
                // Only the first fragment has ports.
                let whole = self.half_word(ip + 6) & 0x3fff == 0;
                let ports = ip + usize::from(self.0[ip] & 0xf) * 4;
                (ip + 12..ip + 20, self.0[ip + 9], whole.then_some(ports))
            }
            IPV6 => (ip + 8..ip + 40, self.0[ip + 6], Some(ip + 40)),
            _ => (0..12, 0, None),
        };
        let ports = ports.filter(|_| protocol == TCP || protocol == UDP);
        let ports = ports.and_then(|at| self.0.get(at..at + 4)).unwrap_or_default();
        let bytes = self.0[addresses].iter().chain(ports);
        // FNV-1a, whose low bits are good enough for a handful of queues.
        bytes.fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        let mac: Mac = "00:16:3e:0A:ff:7f".parse().unwrap();
        assert_eq!(
            (mac.0, mac.to_string()),
            ([0, 0x16, 0x3e, 0xa, 0xff, 0x7f], "00:16:3e:0a:ff:7f".into())
        );
        for wrong in [
            "",
            "00:16:3e:01:02",
            "00:16:3e:01:02:03:04",
            "0:16:3e:01:02:03",
            "00:16:3e:+1:02:03",
            "01:16:3e:01:02:03",
            "ff:ff:ff:ff:ff:ff",
            "00-16-3e-01-02-03",
        ] {
            assert_eq!(wrong.parse::<Mac>(), Err(NoMac), "{wrong:?}");
        }
    }

    fn head(bytes: &[(usize, &[u8])]) -> Head {
        let mut head = [0; HEAD];
        for (at, bytes) in bytes {
            head[*at..][..bytes.len()].copy_from_slice(bytes);
        }
        Head::new(head)
    }

    #[test]
    fn a_conversation_is_told_by_addresses_and_ports() {
        let tcp4 = |ports: &[u8], fragment: &[u8]| {
            head(&[
                (12, &[8, 0, 0x45]),
                (20, fragment),
                (23, &[TCP]),
                (26, &[10, 0, 0, 1, 10, 0, 0, 2]),
                (34, ports),
            ])
        };
        let whole = &[0x40, 0];
        assert_eq!(tcp4(&[0, 80, 4, 0], whole).flow(), tcp4(&[0, 80, 4, 0], whole).flow());
        assert_ne!(tcp4(&[0, 80, 4, 0], whole).flow(), tcp4(&[0, 81, 4, 0], whole).flow());
        // What looks like ports in a later fragment is data.
        assert_eq!(
            tcp4(&[0, 80, 4, 0], &[0x20, 5]).flow(),
            tcp4(&[0, 81, 4, 0], &[0x20, 5]).flow()
        );
        let tagged = |last: u8| {
            head(&[
                (12, &[0x81, 0, 0, 5, 0x86, 0xdd]),
                (24, &[UDP]),
                (26, &[0xfe]),
                (58, &[1, 2, 3, last]),
            ])
        };
        assert_ne!(tagged(4).flow(), tagged(5).flow());
    }

    #[test]
    fn no_head_is_too_odd_for_a_flow() {
        for first in 0..=255 {
            let options = head(&[(12, &[8, 0, first]), (23, &[UDP])]);
            let _ = options.flow();
        }
    }
}
