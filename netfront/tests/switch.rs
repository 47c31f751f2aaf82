//! Stacks on ports of this project's own switch, alone and with an uplink to another one. Nothing that
//! carries frames between them allocates.

use core::time::Duration;

use allocation_counter::measure;
use netback::Switch;
use netback::place::{Copier, Copy, Place};
use netback::port::{Config, PortId, QueueId, Rings, Takes};
use netback::switch::PAGES;
use netfront::Vif;
use netfront::device::{self, Device};
use netfront::patch::{self, Patch};
use smoltcp::iface::{self, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};
use xen_sys::page::{OwnPage, OwnPages, PAGE_SIZE};
use xen_sys::ring::shared::Region;

/// Pages of a device in one direction.
const DEVICE: usize = 64;
/// Pages of an uplink in one direction.
const UPLINK: usize = 128;

fn pages(count: usize) -> Vec<OwnPage> {
    OwnPages::zeroed(count).expect("memory").split().collect()
}

/// What a piece of work gives that must not allocate.
fn without_allocations<R>(what: &str, work: impl FnOnce() -> R) -> R {
    let mut result = None;
    let made = measure(|| result = Some(work()));
    assert_eq!(made.count_total, 0, "{what} allocates: {made:?}");
    result.expect("it ran")
}

/// A switch, and the pages that it can reach, by their references.
struct Bridge {
    switch: Switch<OwnPage>,
    memory: Memory,
}

struct Memory(Vec<OwnPage>);

impl Memory {
    fn at(&self, place: Place) -> (Region<'_>, usize) {
        let Place::Own(at) = place else { panic!("no port has pages of others: {place:?}") };
        let at = at as usize;
        (Region::of(&self.0[at / PAGE_SIZE]), at % PAGE_SIZE)
    }
}

impl Copier for Memory {
    fn copy(&mut self, copies: &mut [Copy]) {
        for copy in copies {
            let ((from, from_at), (to, to_at)) = (self.at(copy.from), self.at(copy.to));
            from.copy_to(from_at, to, to_at, copy.len.into());
            copy.made = Ok(());
        }
    }

    fn read(&self, at: u32, bytes: &mut [u8]) {
        let (region, at) = self.at(Place::Own(at));
        region.copy_out(at, bytes);
    }

    fn write(&mut self, at: u32, bytes: &[u8]) {
        let (region, at) = self.at(Place::Own(at));
        region.copy_in(at, bytes);
    }
}

impl Bridge {
    fn new() -> Self {
        Self { switch: Switch::new(), memory: Memory(pages(PAGES)) }
    }

    /// Lets the switch reach a page; gives its reference.
    fn admit(&mut self, page: &OwnPage) -> u32 {
        self.memory.0.push(page.clone());
        u32::try_from(self.memory.0.len()).expect("few pages") - 1
    }

    /// A frontend to a new port, behind which there may be anybody.
    fn port(&mut self) -> (Vif<OwnPage>, PortId) {
        let rings = pages(2);
        let vif = Vif::set_up(rings[0].clone(), rings[1].clone());
        let takes = Takes { chains: true, gso4: true, gso6: true, blank4: true, blank6: true };
        let config = Config { domain: None, mac: None, rate: None, takes };
        let rings = Rings { tx: rings[0].clone(), rx: rings[1].clone() };
        let port = self.switch.attach(config, [rings].into_iter()).expect("a port");
        (vif, port)
    }

    fn turn(&mut self, port: PortId, now: Duration) {
        without_allocations("the switch", || {
            self.switch.hear(QueueId { port, number: 0 });
            while self.switch.turn(&mut self.memory, now) {}
            while self.switch.next_notification().is_some() {}
        });
        let violation = self.switch.next_violation();
        assert!(violation.is_none(), "the switch complains of {violation:?}");
    }
}

struct Host {
    interface: Interface,
    device: Device<OwnPage, OwnPage>,
    port: PortId,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
}

impl Host {
    fn new(at: &mut Bridge, number: u8) -> Self {
        let (vif, port) = at.port();
        let mut named = || {
            let named = pages(DEVICE).into_iter();
            named.map(|memory| device::Page { reference: at.admit(&memory), memory }).collect()
        };
        let mut device = Device::new(vif, named(), named());
        let mac = EthernetAddress([0x00, 0x16, 0x3e, 0, 0, number]);
        let config = iface::Config::new(mac.into());
        let mut interface = Interface::new(config, &mut device, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, number), 24)).expect("room for one");
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; 16_000]);
        let mut sockets = SocketSet::new(vec![]);
        let socket = sockets.add(tcp::Socket::new(buffer(), buffer()));
        let _ = device.publish();
        Self { interface, device, port, sockets, socket }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    fn poll(&mut self, now: Duration) {
        let now = Instant::from_micros(i64::try_from(now.as_micros()).expect("a small time"));
        without_allocations("a stack and its device", || {
            self.interface.poll(now, &mut self.device, &mut self.sockets);
            let _ = self.device.publish();
            self.device.has_more().expect("the switch keeps the rules");
        });
    }
}

/// Sends 200,000 bytes from one host to the other; `carry` moves frames, and is called between.
fn transfer(here: &mut Host, there: &mut Host, mut carry: impl FnMut(Duration)) {
    let bytes: Vec<u8> = (0..=250).cycle().take(200_000).collect();
    let to = there.interface.ipv4_addr().expect("an address");
    there.socket().listen(80).expect("a closed socket");
    let Host { interface, sockets, socket, .. } = &mut *here;
    let client = sockets.get_mut::<tcp::Socket<'_>>(*socket);
    client
        .connect(interface.context(), (IpAddress::Ipv4(to), 80), 49_152)
        .expect("a closed socket");
    let (mut sent, mut arrived) = (0, Vec::new());
    for turn in 0..2000 {
        let now = Duration::from_millis(10 * turn);
        if here.socket().can_send() {
            sent += here.socket().send_slice(&bytes[sent..]).expect("a connection");
        }
        here.poll(now);
        carry(now);
        there.poll(now);
        while there.socket().can_recv() {
            there
                .socket()
                .recv(|part| (part.len(), arrived.extend_from_slice(part)))
                .expect("a connection");
        }
        there.poll(now);
        carry(now);
        if arrived.len() == bytes.len() {
            break;
        }
    }
    assert!(arrived == bytes, "{} bytes arrived", arrived.len());
}

#[test]
fn two_stacks_talk_through_the_switch() {
    let mut place = Bridge::new();
    let [mut here, mut there] = [1, 2].map(|number| Host::new(&mut place, number));
    let ports = [here.port, there.port];
    transfer(&mut here, &mut there, |now| ports.iter().for_each(|&port| place.turn(port, now)));
    let counters = place.switch.counters(ports[1]).unwrap();
    assert!(counters.received_bytes > 200_000, "{counters:?}");
    assert_eq!(counters.dropped, [0; 6]);
}

#[test]
fn an_uplink_joins_two_switches() {
    let (mut ours, mut dom0s) = (Bridge::new(), Bridge::new());
    let ((outer, outer_port), (inner, inner_port)) = (dom0s.port(), ours.port());
    let mut inward = pages(UPLINK)
        .into_iter()
        .map(|page| patch::Page { filled_as: dom0s.admit(&page), sent_as: ours.admit(&page) });
    let inward: Box<[patch::Page]> = inward.by_ref().collect();
    let outward = pages(UPLINK).into_iter();
    let outward = outward
        .map(|page| patch::Page { filled_as: ours.admit(&page), sent_as: dom0s.admit(&page) })
        .collect();
    let mut uplink = Patch::new(outer, inner, inward, outward);
    let (mut guest, mut dom0) = (Host::new(&mut ours, 1), Host::new(&mut dom0s, 2));
    let (guest_port, dom0_port) = (guest.port, dom0.port);
    transfer(&mut guest, &mut dom0, |now| {
        for _ in 0..3 {
            ours.turn(guest_port, now);
            ours.turn(inner_port, now);
            without_allocations("the uplink", || {
                while uplink.carry().expect("both switches keep the rules").has_more {}
            });
            dom0s.turn(outer_port, now);
            dom0s.turn(dom0_port, now);
        }
    });
    let (inward, outward) = (uplink.inward(), uplink.outward());
    assert!(outward.bytes > 200_000 && inward.frames > 0, "{outward:?} {inward:?}");
    for count in [inward, outward] {
        assert_eq!((count.full, count.lost, count.refused), (0, 0, 0), "{count:?}");
    }
}
