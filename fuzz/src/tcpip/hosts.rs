//! Who is on the link, and addresses that nobody should have.

use core::net::{Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{EthernetAddress, IpAddress};

pub(super) const STUB: EthernetAddress = EthernetAddress([0x02, 0, 0, 0, 0, 2]);
pub(super) const CLIENT: EthernetAddress = EthernetAddress([0x02, 0, 0, 0, 0, 1]);
pub(super) const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(super) const HONEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

pub(super) fn four(number: u8) -> Ipv4Addr {
    match number % 12 {
        0 => HONEST,
        1 => OWN,
        2 => Ipv4Addr::new(10, 0, 0, 255),
        3 => Ipv4Addr::UNSPECIFIED,
        4 => Ipv4Addr::BROADCAST,
        5 => Ipv4Addr::LOCALHOST,
        6 => Ipv4Addr::new(224, 0, 0, 1),
        7 => Ipv4Addr::new(240, 0, 0, 1),
        8 => Ipv4Addr::new(192, 168, 7, 1),
        9 => Ipv4Addr::new(10, 0, 0, 0),
        10 => Ipv4Addr::new(0, 0, 0, 1),
        _ => Ipv4Addr::new(10, 0, 0, number),
    }
}

pub(super) fn six(number: u8) -> Ipv6Addr {
    match number % 12 {
        0 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1),
        1 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 2),
        2 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        3 => Ipv6Addr::UNSPECIFIED,
        4 => Ipv6Addr::LOCALHOST,
        5 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 2),
        6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
        7 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
        8 => Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 1),
        9 => HONEST.to_ipv6_mapped(),
        10 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        _ => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number.into()),
    }
}

pub(super) fn station(number: u8) -> EthernetAddress {
    match number % 5 {
        0 => CLIENT,
        1 => STUB,
        2 => EthernetAddress::BROADCAST,
        3 => EthernetAddress([0x33, 0x33, 0, 0, 0, 1]),
        _ => EthernetAddress([2, 0, 0, 0, 1, number]),
    }
}

/// Two addresses of one family.
pub(super) fn pair(is_six: bool, from: u8, to: u8) -> (IpAddress, IpAddress) {
    if is_six { (six(from).into(), six(to).into()) } else { (four(from).into(), four(to).into()) }
}
