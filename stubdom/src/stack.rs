//! This domain's own TCP/IP: an address, answers to ping, and the page of figures over HTTP.
//!
//! It runs over any device of `smoltcp` and has no clock of its own. It allocates when it is made
//! and for each page that it shows, and for nothing in between.

mod connection;

use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::phy::Device;
use smoltcp::socket::{dhcpv4, tcp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv4Cidr};

use crate::http::Page;
use crate::options::{Ipv4, Net, is_one_host};
use connection::Connection;

/// The port of HTTP.
pub const PORT: u16 = 80;
/// How many connections there can be at once. Who asks for one more is refused.
pub const CONNECTIONS: usize = 8;

/// Frames that are taken in a turn: then it is somebody else's.
const FRAMES_A_TURN: usize = 64;
/// How often each socket may send in a turn.
const ROUNDS_A_TURN: usize = 64;
/// What a connection keeps of what came and was not looked at. Nobody has to say as much.
const TO_READ: usize = 2 * crate::http::HEAD_MAX;
/// What a connection keeps until it is acknowledged.
const TO_SEND: usize = 8192;
/// How long to wait where only the device keeps something back: its event comes before.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long no server is asked after one gave what nobody can use, and nothing is said of the address
/// after something was.
const PAUSE: Duration = Duration::from_secs(10);

/// The stack.
pub struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    dhcp: Option<SocketHandle>,
    /// When a server is to be asked, if none is now.
    ask_at: Option<Duration>,
    /// What was last said of the address that a server gave, and when more may be said.
    told: Option<Ipv4Cidr>,
    tell_at: Duration,
    net: Net,
}

impl Stack {
    /// Makes a stack for a device with the address `mac`. `seed` is a number that others do not
    /// know.
    pub fn new(net: Net, mac: [u8; 6], seed: u64, device: &mut impl Device, now: Duration) -> Self {
        let mut config = Config::new(EthernetAddress(mac).into());
        config.random_seed = seed;
        let interface = Interface::new(config, device, instant(now));
        let mut sockets = SocketSet::new(Vec::with_capacity(CONNECTIONS + 1));
        let buffer = |size| tcp::SocketBuffer::new(vec![0; size]);
        let connections = (0..CONNECTIONS)
            .map(|_| {
                Connection::new(sockets.add(tcp::Socket::new(buffer(TO_READ), buffer(TO_SEND))))
            })
            .collect();
        let ask_at = (net.ipv4 == Some(Ipv4::Dhcp)).then_some(now);
        let dhcp = None;
        let (told, tell_at) = (None, now);
        let mut stack = Self { interface, sockets, connections, dhcp, ask_at, told, tell_at, net };
        stack.take_addresses(link_local(mac));
        stack
    }

    /// The address over IPv4, once there is one.
    #[must_use]
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.interface.ipv4_addr()
    }

    /// Does what there is to do, a bounded amount: call it after an event of the device, and at the
    /// time that it tells. `page` makes the page when one is asked for, unless there is no memory.
    pub fn poll(
        &mut self,
        now: Duration,
        device: &mut impl Device,
        mut page: impl FnMut() -> Option<Page>,
    ) -> Option<Duration> {
        let at = instant(now);
        if self.ask_at.take_if(|ask_at| *ask_at <= now).is_some() {
            self.dhcp = Some(self.sockets.add(dhcpv4::Socket::new()));
        }
        let none = PollIngressSingleResult::None;
        let mut is_left = |_| {
            let taken = self.interface.poll_ingress_single(at, device, &mut self.sockets);
            for connection in &mut self.connections {
                connection.look(self.sockets.get_mut(connection.socket));
            }
            taken != none
        };
        let has_more = (0..FRAMES_A_TURN).all(&mut is_left);
        self.heed_dhcp(now);
        self.tell(now);
        for connection in &mut self.connections {
            connection.serve(self.sockets.get_mut(connection.socket), now, &mut page);
        }
        self.make_place(now);
        let mut is_left =
            |_| self.interface.poll_egress(at, device, &mut self.sockets) != PollResult::None;
        let has_more = (0..ROUNDS_A_TURN).all(&mut is_left) || has_more;
        // What was reset could say so by now.
        for connection in &mut self.connections {
            connection.listen(self.sockets.get_mut(connection.socket));
        }
        if has_more { Some(now) } else { self.next_time(now) }
    }

    /// If all places are taken, those who have not come to it in a while lose theirs.
    fn make_place(&mut self, now: Duration) {
        let sockets = &mut self.sockets;
        let socket = |one: &Connection| sockets.get::<tcp::Socket<'_>>(one.socket);
        if self.connections.iter().any(|one| !socket(one).is_active()) {
            return;
        }
        for one in &self.connections {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(one.socket);
            if one.greeted_until(socket).is_some_and(|until| until <= now) {
                socket.abort();
            }
        }
    }

    fn next_time(&mut self, now: Duration) -> Option<Duration> {
        let delay = self.interface.poll_delay(instant(now), &self.sockets);
        let delay = delay.map(|delay| match Duration::from_micros(delay.total_micros()) {
            Duration::ZERO => PATIENCE,
            delay => delay,
        });
        let until = |one: &Connection| one.until(self.sockets.get(one.socket), now);
        let until = self.connections.iter().filter_map(until);
        until.chain(delay.map(|delay| now + delay)).chain(self.ask_at).min()
    }

    fn take_addresses(&mut self, link_local: Ipv6Addr) {
        let Net { ipv4, gateway4, ipv6, gateway6 } = self.net;
        let four = match ipv4 {
            Some(Ipv4::Static(subnet)) => Some((IpAddress::Ipv4(subnet.address), subnet.prefix)),
            Some(Ipv4::Dhcp) | None => None,
        };
        let six = ipv6.map(|subnet| (IpAddress::Ipv6(subnet.address), subnet.prefix));
        let local = (IpAddress::Ipv6(link_local), 64);
        self.interface.update_ip_addrs(|addresses| {
            let all = [Some(local), four, six].into_iter().flatten();
            addresses.extend(all.map(|(address, prefix)| IpCidr::new(address, prefix)));
        });
        let routes = self.interface.routes_mut();
        // There is room for one of each.
        let _ = gateway4.map(|gateway| routes.add_default_ipv4_route(gateway));
        let _ = gateway6.map(|gateway| routes.add_default_ipv6_route(gateway));
    }

    /// Takes the address that a server gave, or gives it up.
    fn heed_dhcp(&mut self, now: Duration) {
        let Some(dhcp) = self.dhcp else { return };
        let Some(event) = self.sockets.get_mut::<dhcpv4::Socket<'_>>(dhcp).poll() else { return };
        let config = match event {
            dhcpv4::Event::Configured(config) => Some(config),
            dhcpv4::Event::Deconfigured => None,
        };
        let is_refused = config.as_ref().is_some_and(|config| !is_sound(config));
        let config = config.filter(is_sound);
        let address = config.as_ref().map(|config| config.address);
        let router = config.and_then(|config| config.router);
        let router = router.filter(|&router| is_one_host(router.into()));
        if is_refused {
            self.sockets.remove(dhcp);
            (self.dhcp, self.ask_at) = (None, Some(now + PAUSE));
        }
        self.interface.update_ip_addrs(|addresses| {
            addresses.retain(|address| !matches!(address, IpCidr::Ipv4(_)));
            addresses.extend(address.map(IpCidr::Ipv4));
        });
        let routes = self.interface.routes_mut();
        match self.net.gateway4.or(router) {
            Some(gateway) => drop(routes.add_default_ipv4_route(gateway)),
            None => drop(routes.remove_default_ipv4_route()),
        }
    }

    /// Says how it is with the address by DHCP, if that is something new, and not too soon again:
    /// whoever is on the link can give one and take it back.
    fn tell(&mut self, now: Duration) {
        let Some(Ipv4::Dhcp) = self.net.ipv4 else { return };
        let is_four = |cidr: &IpCidr| match *cidr {
            IpCidr::Ipv4(cidr) => Some(cidr),
            IpCidr::Ipv6(_) => None,
        };
        let address = self.interface.ip_addrs().iter().find_map(is_four);
        if address == self.told || now < self.tell_at {
            return;
        }
        match address {
            Some(address) => log::info!("address {address} by DHCP"),
            None => log::info!("no address by DHCP any more"),
        }
        (self.told, self.tell_at) = (address, now + PAUSE);
    }
}

/// The address of a domain's hardware, of its UUID: the same whenever the domain is. All of a UUID
/// tells it from others: of those that are made of a host and the time, a few bytes only.
#[must_use]
pub fn hardware_address(uuid: u128) -> [u8; 6] {
    // FNV-1a, its upper bits folded into the lower.
    let hash = uuid.to_be_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [_, _, _, a, b, c, d, e] = (hash ^ hash >> 40).to_be_bytes();
    // Of one interface, and given by nobody who makes them.
    [0x02, a, b, c, d, e]
}

/// Whether a lease can be taken. Whoever is on the link can be the server, and give what no host can
/// have, or from where no host can be: the stack would not outlive it when it is to be renewed there.
fn is_sound(config: &dhcpv4::Config<'_>) -> bool {
    let hosts = [config.address.address(), config.server.address];
    hosts.into_iter().all(|host| is_one_host(host.into()))
}

/// The time as the stack has it.
fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

/// The address on the link that everybody has, from its hardware's (RFC 4291, appendix A).
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    let pair = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

#[cfg(test)]
mod tests;
