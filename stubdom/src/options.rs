//! The command line: which role, and the switches of the tests.
//!
//! Words are separated by blanks. A word is an option, with or without `--` in front; a value
//! follows after `=` or as the next word. `init-xenstore-domain` gives `--event PORT`, followed by
//! the text of its `--param`; `xl` gives the text of `extra=`.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use heapless::Vec;

/// The options that have a value.
const WITH_VALUE: [&str; 7] = ["event", "events", "hypercalls", "ip", "gw", "ip6", "gw6"];

/// Those of the data role alone: the store has no network.
const OF_DATA: [&str; 4] = ["ip", "gw", "ip6", "gw6"];

/// Everything the command line can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// `--event PORT`: dom0's event channel. It makes this the Xenstore of the host.
    pub event: Option<u32>,
    /// `events=fifo|2l`: the event channel ABI instead of the best that Xen offers.
    pub events: EventAbi,
    /// `hypercalls=page|direct`: how Xen is called.
    pub hypercalls: Hypercalls,
    /// `ip=`, `gw=`, `ip6=`, `gw6=`: this domain's own addresses.
    pub net: Net,
    /// `test-fault`, `test-panic`: fail at once, on purpose.
    pub failure: Option<Failure>,
}

/// Which event channel ABI to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EventAbi {
    /// FIFO where Xen has it, else 2-level.
    #[default]
    Best,
    /// FIFO or nothing.
    Fifo,
    /// 2-level, even where Xen has FIFO.
    TwoLevel,
}

/// How hypercalls enter Xen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hypercalls {
    /// By the instruction of the processor's vendor.
    #[default]
    Direct,
    /// Through the hypercall page.
    Page,
}

/// The addresses of this domain's own, written as other hosts of virtual machines have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Net {
    /// `ip=dhcp|ADDRESS/PREFIX`.
    pub ipv4: Option<Ipv4>,
    /// `gw=ADDRESS`: where packets for other networks go; in the network of `ip=`.
    pub gateway4: Option<Ipv4Addr>,
    /// `ip6=ADDRESS/PREFIX`.
    pub ipv6: Option<Subnet<Ipv6Addr>>,
    /// `gw6=ADDRESS`: in the network of `ip6=`, or an address of its link.
    pub gateway6: Option<Ipv6Addr>,
}

impl Net {
    /// Whether this domain has an address at all.
    #[must_use]
    pub const fn is_wanted(&self) -> bool {
        self.ipv4.is_some() || self.ipv6.is_some()
    }

    /// Sets what an option of these says, or tells what it wants.
    fn set(&mut self, option: &str, value: &str) -> Result<(), &'static str> {
        match option {
            "ip" => {
                let ipv4 = match value {
                    "dhcp" => Some(Ipv4::Dhcp),
                    _ => Subnet::parse(value).map(Ipv4::Static),
                };
                self.ipv4 =
                    Some(ipv4.ok_or("dhcp, or one host's address and its prefix as 10.0.0.2/24")?);
            }
            "ip6" => {
                let ipv6 = Subnet::parse(value)
                    .ok_or("one host's address and its prefix as fd00::2/64")?;
                self.ipv6 = Some(ipv6);
            }
            "gw" => self.gateway4 = Some(host(value).ok_or("one host's IPv4 address")?),
            _ => self.gateway6 = Some(host(value).ok_or("one host's IPv6 address")?),
        }
        Ok(())
    }

    /// Fails with the gateway that no packet of this domain could be sent to.
    fn check(&self) -> Result<(), Malformed<'static>> {
        let near4 = |gateway| match self.ipv4 {
            Some(Ipv4::Static(own)) => own.has_beside(gateway),
            _ => false,
        };
        let near6 = |gateway: Ipv6Addr| {
            self.ipv6.is_some_and(|own| {
                own.has_beside(gateway) || own.address != gateway && gateway.is_unicast_link_local()
            })
        };
        if !self.gateway4.is_none_or(near4) {
            return Err(Malformed::Beyond { gateway: "gw", address: "ip" });
        }
        if !self.gateway6.is_none_or(near6) {
            return Err(Malformed::Beyond { gateway: "gw6", address: "ip6" });
        }
        Ok(())
    }
}

/// How this domain comes by its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv4 {
    /// It asks for one.
    Dhcp,
    /// It has this one.
    Static(Subnet<Ipv4Addr>),
}

/// An address of one host, and how many bits of it are its network's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet<A> {
    /// The address.
    pub address: A,
    /// The bits.
    pub prefix: u8,
}

impl<A: FromStr + Copy + Into<IpAddr>> Subnet<A> {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let subnet = Self { address: host::<A>(address)?, prefix: prefix.parse().ok()? };
        subnet.is_of_one_host().then_some(subnet)
    }

    /// Whether the address can be one host's in a network of that size.
    fn is_of_one_host(self) -> bool {
        match self.address.into() {
            // The lowest address names the network and the highest all of it, but where there is
            // no room for that (RFC 3021).
            IpAddr::V4(_) if self.prefix >= 31 => self.prefix <= 32,
            IpAddr::V4(address) => {
                let all = u32::MAX >> self.prefix;
                self.prefix > 0 && address.to_bits() & all != 0 && address.to_bits() & all != all
            }
            IpAddr::V6(_) => (1..=128).contains(&self.prefix),
        }
    }

    /// Whether `other` is another address of this network.
    fn has_beside(self, other: A) -> bool {
        let bits = |address: A| match address.into() {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        };
        let differs = bits(self.address) ^ bits(other);
        differs != 0 && differs >> (128 - self.prefix) == 0
    }
}

/// Reads an address that one host can have.
fn host<A: FromStr + Copy + Into<IpAddr>>(text: &str) -> Option<A> {
    text.parse().ok().filter(|&address: &A| is_one_host(address.into()))
}

/// Whether one host can have an address, and others send to it there.
pub(crate) fn is_one_host(address: IpAddr) -> bool {
    let is_one = !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
    is_one && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// A failure on purpose, for the tests of its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// An access to memory that is not mapped.
    Fault,
    /// A panic.
    Panic,
}

/// A command line that cannot be obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed<'a> {
    /// An option without a value that it can have.
    Value {
        /// The option's name.
        option: &'a str,
        /// The value that was found, if there was one.
        value: Option<&'a str>,
        /// What would have been right.
        wanted: &'static str,
    },
    /// An option said twice: one of the values would be lost.
    Twice {
        /// The option's name.
        option: &'a str,
    },
    /// A gateway in no network of this domain's.
    Beyond {
        /// The option that names the gateway.
        gateway: &'static str,
        /// The option whose network it would have to be in.
        address: &'static str,
    },
}

impl fmt::Display for Malformed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("command line: ")?;
        match self {
            Self::Value { option, value: Some(value), wanted } => {
                write!(f, "{option} wants {wanted}, not {value:?}")
            }
            Self::Value { option, value: None, wanted } => {
                write!(f, "{option} wants {wanted}, and nothing follows it")
            }
            Self::Twice { option } => write!(f, "{option} is there twice"),
            Self::Beyond { gateway, address } => write!(
                f,
                "{gateway} wants another address of the network of {address}=ADDRESS/PREFIX"
            ),
        }
    }
}

impl Options {
    /// Reads a command line. Each word that is no option is given to `unknown` and ignored, as
    /// other Xenstore servers have options that mean nothing here. So is an option that is none of
    /// the store's: its host would not start for it.
    ///
    /// # Errors
    /// [`Malformed`] when a known option has no value, one that it cannot have, or two.
    pub fn parse<'a>(
        command_line: &'a str,
        mut unknown: impl FnMut(&'a str),
    ) -> Result<Self, Malformed<'a>> {
        let mut options = Self::default();
        let mut said = Vec::<_, { WITH_VALUE.len() }>::new();
        let mut words = command_line.split_ascii_whitespace();
        while let Some(word) = words.next() {
            let (name, attached) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            let option = name.strip_prefix("--").unwrap_or(name);
            match option {
                "test-fault" => options.failure = Some(Failure::Fault),
                "test-panic" => options.failure = Some(Failure::Panic),
                _ if !WITH_VALUE.contains(&option) => unknown(word),
                _ if said.contains(&option) => return Err(Malformed::Twice { option }),
                _ => {
                    // There is room for each of them once.
                    let _ = said.push(option);
                    let value = attached.or_else(|| words.next());
                    options
                        .set(option, value.unwrap_or_default())
                        .map_err(|wanted| Malformed::Value { option, value, wanted })?;
                }
            }
        }
        if options.event.is_some() {
            options.net = Net::default();
            said.iter()
                .filter(|option| OF_DATA.contains(option))
                .for_each(|option| unknown(option));
        }
        options.net.check()?;
        Ok(options)
    }

    /// Sets what an option says, or tells what it wants.
    fn set(&mut self, option: &str, value: &str) -> Result<(), &'static str> {
        match (option, value) {
            ("event", _) => {
                let port = value.parse().ok().filter(|&port| port != 0);
                self.event = Some(port.ok_or("a port number")?);
            }
            ("events", "fifo") => self.events = EventAbi::Fifo,
            ("events", "2l") => self.events = EventAbi::TwoLevel,
            ("events", _) => return Err("fifo or 2l"),
            ("hypercalls", "direct") => self.hypercalls = Hypercalls::Direct,
            ("hypercalls", "page") => self.hypercalls = Hypercalls::Page,
            ("hypercalls", _) => return Err("direct or page"),
            _ => self.net.set(option, value)?,
        }
        Ok(())
    }
}
