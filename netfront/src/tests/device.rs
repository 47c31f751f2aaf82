//! Two stacks on a wire, by a device each.

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device as _, RxToken as _, TxToken as _};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};
use xen_sys::ring::shared::Region;

use super::*;
use crate::Violation;
use crate::device::{Device, Page};
use crate::frame::MOST;

/// How a backend's pages are named: by the device's own memory.
struct Port {
    backend: Backend,
    to_receive: Vec<OwnPage>,
    to_send: Vec<OwnPage>,
}

fn device(pages: usize) -> (Device<OwnPage, OwnPage>, Port) {
    let (vif, backend) = vif();
    let own: Vec<OwnPage> = OwnPages::zeroed(2 * pages).unwrap().split().collect();
    let (to_receive, to_send) = own.split_at(pages);
    let named = |pages: &[OwnPage]| {
        let named = (0..).zip(pages);
        named.map(|(reference, memory)| Page { memory: memory.clone(), reference }).collect()
    };
    let device = Device::new(vif, named(to_receive), named(to_send));
    (device, Port { backend, to_receive: to_receive.to_vec(), to_send: to_send.to_vec() })
}

impl Port {
    /// The next frame that the device sent.
    fn take(&mut self) -> Option<(Vec<u8>, Flags)> {
        let asked = self.backend.transmit.take()?;
        let mut bytes = Vec::new();
        for piece in &asked.frame.pieces {
            let mut part = vec![0; piece.len.into()];
            let page = &self.to_send[usize::from(piece.page)];
            Region::of(page).copy_out(piece.offset.into(), &mut part);
            bytes.extend(part);
        }
        self.backend.transmit.answer_all(&asked);
        Some((bytes, asked.frame.flags))
    }

    /// Gives the device a frame, at most `part` bytes in a page; drops it if there are no pages.
    fn give(&mut self, bytes: &[u8], flags: Flags, part: usize) {
        let parts: Vec<&[u8]> = bytes.chunks(part).collect();
        if self.backend.receive.look() < parts.len() {
            return;
        }
        let lens: Vec<u16> = parts.iter().map(|part| u16::try_from(part.len()).unwrap()).collect();
        let frame = self.backend.receive.give_frame(&lens, flags, None);
        for (piece, part) in frame.pieces.iter().zip(parts) {
            let page = &self.to_receive[usize::from(piece.page)];
            Region::of(page).copy_in(piece.offset.into(), part);
        }
        let _ = self.backend.receive.ring.publish();
    }
}

struct Host {
    interface: Interface,
    device: Device<OwnPage, OwnPage>,
    port: Port,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
}

fn host(number: u8) -> Host {
    let (mut device, port) = device(200);
    let mac = EthernetAddress([0x00, 0x16, 0x3e, 0, 0, number]);
    let mut interface = Interface::new(Config::new(mac.into()), &mut device, Instant::ZERO);
    interface.update_ip_addrs(|addresses| {
        addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, number), 24)).unwrap();
        let six = IpAddress::v6(0xfe80, 0, 0, 0, 0, 0, 0, number.into());
        addresses.push(IpCidr::new(six, 64)).unwrap();
    });
    let buffer = || tcp::SocketBuffer::new(vec![0; 20_000]);
    let mut sockets = SocketSet::new(vec![]);
    let socket = sockets.add(tcp::Socket::new(buffer(), buffer()));
    Host { interface, device, port, sockets, socket }
}

impl Host {
    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    fn poll(&mut self, now: Instant) {
        self.interface.poll(now, &mut self.device, &mut self.sockets);
        let _ = self.device.publish();
        self.device.has_more().unwrap();
    }
}

/// What the wire does to a frame on its way: its flags, and the bytes.
type Change = fn(Vec<u8>) -> (Flags, Vec<u8>);

/// Sends `bytes` from one host to the other; tells what arrived within a minute.
fn transfer(bytes: &[u8], to: IpAddress, part: usize, change: Change) -> Vec<u8> {
    let (mut here, mut there) = (host(1), host(2));
    there.socket().listen(80).unwrap();
    let Host { interface, sockets, socket, .. } = &mut here;
    let client = sockets.get_mut::<tcp::Socket<'_>>(*socket);
    client.connect(interface.context(), (to, 80), 49_152).unwrap();
    let (mut sent, mut arrived) = (0, Vec::new());
    for now in (0..60_000).step_by(10) {
        let now = Instant::from_millis(now);
        if here.socket().can_send() {
            sent += here.socket().send_slice(&bytes[sent..]).unwrap();
        }
        here.poll(now);
        there.poll(now);
        while let Some((bytes, flags)) = here.port.take() {
            assert_eq!(flags, Flags::empty(), "its checksums are all there");
            let (flags, bytes) = change(bytes);
            there.port.give(&bytes, flags, part);
        }
        while let Some((bytes, _)) = there.port.take() {
            here.port.give(&bytes, Flags::empty(), part);
        }
        there.poll(now);
        while there.socket().can_recv() {
            there.socket().recv(|part| (part.len(), arrived.extend_from_slice(part))).unwrap();
        }
        if arrived.len() == bytes.len() {
            break;
        }
    }
    arrived
}

fn pattern(len: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(len).collect()
}

const IPV4: IpAddress = IpAddress::v4(10, 0, 0, 2);
const IPV6: IpAddress = IpAddress::v6(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// Where TCP's checksum is in a frame; `None` if it is not of TCP.
fn checksum_at(frame: &[u8]) -> Option<usize> {
    match frame[12..14] {
        [8, 0] if frame[23] == 6 => Some(14 + 20 + 16),
        [0x86, 0xdd] if frame[20] == 6 => Some(14 + 40 + 16),
        _ => None,
    }
}

/// As a guest sends it: what is at the checksum's place is not the checksum.
fn blank(mut frame: Vec<u8>) -> (Flags, Vec<u8>) {
    let Some(at) = checksum_at(&frame) else { return (Flags::empty(), frame) };
    frame[at..at + 2].copy_from_slice(&[0x12, 0x34]);
    (Flags::CSUM_BLANK | Flags::DATA_VALIDATED, frame)
}

#[test]
fn bytes_arrive_as_they_were_sent_however_frames_are_cut() {
    let bytes = pattern(100_000);
    for (to, part) in [(IPV4, 4096), (IPV6, 4096), (IPV4, 100), (IPV6, 333)] {
        let arrived = transfer(&bytes, to, part, |frame| (Flags::empty(), frame));
        assert!(arrived == bytes, "to {to} by {part}: {} bytes arrived", arrived.len());
    }
}

#[test]
fn a_blank_checksum_is_no_wrong_one() {
    let bytes = pattern(30_000);
    for to in [IPV4, IPV6] {
        let arrived = transfer(&bytes, to, 4096, blank);
        assert!(arrived == bytes, "to {to}: {} bytes arrived", arrived.len());
    }
}

#[test]
fn a_wrong_checksum_is_not_believed() {
    let wrong: Change = |frame| (Flags::empty(), blank(frame).1);
    for to in [IPV4, IPV6] {
        assert_eq!(transfer(b"never", to, 4096, wrong), b"", "to {to}");
    }
}

#[test]
fn frames_of_any_size_are_gathered() {
    let (mut device, mut port) = device(32);
    for len in [14, 60, 4096, 4097, 40_000, MOST] {
        let bytes = pattern(len);
        let _ = device.publish();
        port.give(&bytes, Flags::CSUM_BLANK, 4096);
        let (received, _) = device.receive(Instant::ZERO).expect("a frame");
        received.consume(|received| assert!(received == bytes, "{len} bytes"));
    }
    assert!(device.receive(Instant::ZERO).is_none());
}

#[test]
fn what_cannot_be_sent_is_not_begun() {
    let (mut device, mut port) = device(2);
    for _ in 0..2 {
        let token = device.transmit(Instant::ZERO).expect("a page to send in");
        token.consume(60, |bytes| bytes.fill(1));
    }
    assert!(device.transmit(Instant::ZERO).is_none(), "both pages are away");
    let _ = device.publish();
    port.give(&[2; 60], Flags::empty(), 4096);
    assert!(device.receive(Instant::ZERO).is_none(), "nobody could answer it");
    let (bytes, _) = port.take().unwrap();
    assert_eq!(bytes, [1; 60]);
    assert!(device.receive(Instant::ZERO).is_some(), "it was kept");
}

#[test]
fn a_backend_that_lies_gives_no_frames_any_more() {
    let (mut device, mut port) = device(2);
    let _ = device.publish();
    port.backend.receive.look();
    port.backend.receive.give(4000, 1000, Flags::empty());
    port.backend.receive.give(0, 60, Flags::empty());
    let _ = port.backend.receive.ring.publish();
    assert!(device.receive(Instant::ZERO).is_none());
    let violation = Violation::Outside { offset: 4000, len: 1000 };
    assert_eq!(device.has_more(), Err(violation));
    assert!(device.receive(Instant::ZERO).is_none() && device.transmit(Instant::ZERO).is_none());
}
