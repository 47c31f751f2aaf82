//! The command line: which role, and the switches of the tests.
//!
//! Words are separated by blanks. A word is an option, with or without `--` in front; a value
//! follows after `=` or as the next word. `init-xenstore-domain` gives `--event PORT`, followed by
//! the text of its `--param`; `xl` gives the text of `extra=`.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

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
    /// `gw=ADDRESS`: where packets for other networks go.
    pub gateway4: Option<Ipv4Addr>,
    /// `ip6=ADDRESS/PREFIX`.
    pub ipv6: Option<Subnet<Ipv6Addr>>,
    /// `gw6=ADDRESS`.
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
                self.ipv4 = Some(ipv4.ok_or("dhcp, or an address and its prefix as 10.0.0.2/24")?);
            }
            "ip6" => {
                let ipv6 = Subnet::parse(value).ok_or("an address and its prefix as fd00::2/64")?;
                self.ipv6 = Some(ipv6);
            }
            "gw" => self.gateway4 = Some(host(value).ok_or("an IPv4 address")?),
            _ => self.gateway6 = Some(host(value).ok_or("an IPv6 address")?),
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
        let (address, prefix) = (host::<A>(address)?, prefix.parse().ok()?);
        let bits = if address.into().is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then_some(Self { address, prefix })
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

/// A command line that cannot be obeyed: the option, and what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed<'a> {
    /// The option's name.
    pub option: &'a str,
    /// The value that was found, if there was one.
    pub value: Option<&'a str>,
    /// What would have been right.
    pub wanted: &'static str,
}

impl fmt::Display for Malformed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, value, wanted } = self;
        match value {
            Some(value) => write!(f, "command line: {option} wants {wanted}, not {value:?}"),
            None => write!(f, "command line: {option} wants {wanted}, and nothing follows it"),
        }
    }
}

impl Options {
    /// Reads a command line. Each word that is no option is given to `unknown` and ignored, as
    /// other Xenstore servers have options that mean nothing here.
    ///
    /// # Errors
    /// [`Malformed`] when a known option has no value, or one that it cannot have.
    pub fn parse<'a>(
        command_line: &'a str,
        mut unknown: impl FnMut(&'a str),
    ) -> Result<Self, Malformed<'a>> {
        let mut options = Self::default();
        let mut words = command_line.split_ascii_whitespace();
        while let Some(word) = words.next() {
            let (name, attached) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            let option = name.strip_prefix("--").unwrap_or(name);
            let mut value = || attached.or_else(|| words.next());
            let malformed = |value, wanted| Malformed { option, value, wanted };
            match option {
                "event" => {
                    let value = value();
                    let port = value.and_then(|v| v.parse().ok()).filter(|&port| port != 0);
                    options.event = Some(port.ok_or(malformed(value, "a port number"))?);
                }
                "events" => {
                    options.events = match value() {
                        Some("fifo") => EventAbi::Fifo,
                        Some("2l") => EventAbi::TwoLevel,
                        other => return Err(malformed(other, "fifo or 2l")),
                    }
                }
                "hypercalls" => {
                    options.hypercalls = match value() {
                        Some("direct") => Hypercalls::Direct,
                        Some("page") => Hypercalls::Page,
                        other => return Err(malformed(other, "direct or page")),
                    }
                }
                "ip" | "gw" | "ip6" | "gw6" => {
                    let value = value();
                    let set = options.net.set(option, value.unwrap_or_default());
                    set.map_err(|wanted| malformed(value, wanted))?;
                }
                "test-fault" => options.failure = Some(Failure::Fault),
                "test-panic" => options.failure = Some(Failure::Panic),
                _ => unknown(word),
            }
        }
        Ok(options)
    }
}
