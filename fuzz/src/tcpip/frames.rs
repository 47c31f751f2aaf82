//! Frames that are made, and what those of the stack say.

use core::net::Ipv4Addr;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpPacket, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet, TcpPacket, TcpSeqNumber,
    UdpPacket,
};

use super::hosts::{CLIENT, STUB};

/// What the stack has to say to a client of its page.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    /// What it sends next, and what it awaits.
    pub(super) next: TcpSeqNumber,
    pub(super) awaits: TcpSeqNumber,
}

pub(super) fn framed(protocol: EthernetProtocol, bytes: &[u8]) -> Vec<u8> {
    let ethernet = EthernetRepr { src_addr: CLIENT, dst_addr: STUB, ethertype: protocol };
    let mut frame = vec![0; EthernetFrame::<&[u8]>::header_len()];
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut frame[..]));
    frame.extend(bytes);
    frame
}

pub(super) fn arp(
    operation: ArpOperation,
    mac: EthernetAddress,
    from: Ipv4Addr,
    to: Ipv4Addr,
) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: mac,
        source_protocol_addr: from,
        target_hardware_addr: STUB,
        target_protocol_addr: to,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut bytes[..]));
    framed(EthernetProtocol::Arp, &bytes)
}

pub(super) fn packet(
    from: IpAddress,
    to: IpAddress,
    protocol: IpProtocol,
    bytes: &[u8],
) -> Vec<u8> {
    let ip = IpRepr::new(from, to, protocol, bytes.len(), 64);
    let mut packet = vec![0; ip.header_len()];
    ip.emit(&mut packet[..], &Default::default());
    packet.extend(bytes);
    let ethernet = match from {
        IpAddress::Ipv4(_) => EthernetProtocol::Ipv4,
        IpAddress::Ipv6(_) => EthernetProtocol::Ipv6,
    };
    framed(ethernet, &packet)
}

/// The payload of a packet of the stack's, if it is of that protocol.
pub(super) fn payload_of(frame: &[u8], wanted: IpProtocol) -> Option<&[u8]> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let (protocol, payload) = match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
            (packet.next_header(), packet.payload())
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(frame.payload()).ok()?;
            (packet.next_header(), packet.payload())
        }
        _ => return None,
    };
    (protocol == wanted).then_some(payload)
}

/// To which port a segment goes, and where the stack is after it.
pub(super) fn segment_of(frame: &[u8]) -> Option<(u16, Seen)> {
    let tcp = TcpPacket::new_checked(payload_of(frame, IpProtocol::Tcp)?).ok()?;
    let next = tcp.seq_number() + tcp.segment_len();
    Some((tcp.dst_port(), Seen { next, awaits: tcp.ack_number() }))
}

/// The number of a question for an address.
pub(super) fn question_of(frame: &[u8]) -> Option<u32> {
    let udp = UdpPacket::new_checked(payload_of(frame, IpProtocol::Udp)?).ok()?;
    if udp.dst_port() != 67 {
        return None;
    }
    Some(DhcpPacket::new_checked(udp.payload()).ok()?.transaction_id())
}

pub(super) fn is_arp_answer(frame: &[u8]) -> bool {
    let Ok(frame) = EthernetFrame::new_checked(frame) else { return false };
    frame.ethertype() == EthernetProtocol::Arp
        && ArpPacket::new_checked(frame.payload())
            .is_ok_and(|packet| packet.operation() == ArpOperation::Reply)
}
