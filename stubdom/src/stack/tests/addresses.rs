//! Addresses that the stack has or asks for, and what it says to who asks for them.

use core::cell::RefCell;
use std::collections::BTreeSet;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetFrame,
    EthernetProtocol, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket,
    UdpRepr,
};

use super::*;

#[test]
fn its_own_address_on_the_link_comes_from_its_hardware() {
    let address = link_local([0x00, 0x16, 0x3e, 0x12, 0x34, 0x56]);
    assert_eq!(address, "fe80::216:3eff:fe12:3456".parse::<Ipv6Addr>().unwrap());
}

#[test]
fn ping_is_answered() {
    let mut link = Link::new(fixed());
    link.fetch(FOUR.into());
    let echo = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 1, data: b"are you there?" };
    let ip = Ipv4Repr {
        src_addr: Ipv4Addr::new(10, 0, 0, 1),
        dst_addr: FOUR,
        next_header: IpProtocol::Icmp,
        payload_len: echo.buffer_len(),
        hop_limit: 64,
    };
    let frame = framed(STUB, EthernetProtocol::Ipv4, 20 + echo.buffer_len(), |payload| {
        let mut packet = Ipv4Packet::new_unchecked(payload);
        ip.emit(&mut packet, &Default::default());
        let mut icmp = Icmpv4Packet::new_unchecked(packet.payload_mut());
        echo.emit(&mut icmp, &Default::default());
    });
    link.end.incoming.borrow_mut().push_back(frame);
    link.stack.poll(link.now, &mut link.end, || None);
    let reply = link.far.incoming.borrow_mut().pop_front().expect("a reply");
    let frame = EthernetFrame::new_checked(&reply[..]).unwrap();
    let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
    let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
    let reply = Icmpv4Repr::parse(&icmp, &Default::default()).unwrap();
    assert_eq!(reply, Icmpv4Repr::EchoReply { ident: 7, seq_no: 1, data: b"are you there?" });
}

/// A frame to `to` from a server.
pub(super) fn framed(
    to: [u8; 6],
    kind: EthernetProtocol,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut bytes = vec![0; 14 + len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    frame.set_dst_addr(EthernetAddress(to));
    frame.set_src_addr(EthernetAddress(CLIENT));
    frame.set_ethertype(kind);
    fill(frame.payload_mut());
    bytes
}

pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);

const LEASED: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 20);

pub(super) const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);

/// What a host says who is asked for its address.
pub(super) fn arp_answer(frame: &[u8]) -> Option<Vec<u8>> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).ok()?).ok()?
    else {
        return None;
    };
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(CLIENT),
        source_protocol_addr: target_protocol_addr,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    Some(framed(STUB, EthernetProtocol::Arp, reply.buffer_len(), |payload| {
        reply.emit(&mut ArpPacket::new_unchecked(payload));
    }))
}

/// What a DHCP server answers to a frame, if it is for one: such a router, and such a mask.
pub(super) fn dhcp_answer(frame: &[u8], router: Ipv4Addr, mask: Ipv4Addr) -> Option<Vec<u8>> {
    dhcp_answer_from((SERVER, 600), frame, router, mask)
}

/// The same from a server that says it is there, for so many seconds.
pub(super) fn dhcp_answer_from(
    (server, seconds): (Ipv4Addr, u32),
    frame: &[u8],
    router: Ipv4Addr,
    mask: Ipv4Addr,
) -> Option<Vec<u8>> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    let udp = UdpPacket::new_checked(packet.payload()).ok()?;
    let asked = DhcpPacket::new_checked(udp.payload()).ok().filter(|_| udp.dst_port() == 67)?;
    let asked = DhcpRepr::parse(&asked).ok()?;
    let message_type = match asked.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        _ => DhcpMessageType::Ack,
    };
    let reply = DhcpRepr {
        message_type,
        your_ip: LEASED,
        server_ip: SERVER,
        router: Some(router),
        subnet_mask: Some(mask),
        server_identifier: Some(SERVER),
        lease_duration: Some(seconds),
        requested_ip: None,
        client_identifier: None,
        parameter_request_list: None,
        max_size: None,
        ..asked
    };
    let udp = UdpRepr { src_port: 67, dst_port: 68 };
    let len = 8 + reply.buffer_len();
    let ip = Ipv4Repr {
        src_addr: server,
        dst_addr: LEASED,
        next_header: IpProtocol::Udp,
        payload_len: len,
        hop_limit: 64,
    };
    Some(framed(STUB, EthernetProtocol::Ipv4, 20 + len, |payload| {
        let mut packet = Ipv4Packet::new_unchecked(payload);
        ip.emit(&mut packet, &Default::default());
        let (from, to) = (IpAddress::Ipv4(server), IpAddress::Ipv4(LEASED));
        let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
        let emit = |payload: &mut [u8]| {
            reply.emit(&mut DhcpPacket::new_unchecked(payload)).unwrap();
        };
        udp.emit(&mut datagram, &from, &to, reply.buffer_len(), emit, &Default::default());
    }))
}

/// Keeps what was said in the log by a thread, each of which is a test.
struct Hearer;

thread_local! {
    static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

impl log::Log for Hearer {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let said = || HEARD.with_borrow_mut(|heard| heard.push(record.args().to_string()));
        opt_out(said);
    }

    fn flush(&self) {}
}

/// From here on what is said is kept.
fn hear() {
    // Another test may have begun before.
    let _ = log::set_logger(&Hearer);
    log::set_max_level(log::LevelFilter::Info);
}

#[test]
fn who_gives_addresses_and_takes_them_back_fills_no_log() {
    hear();
    let mut link = Link::new(Net { ipv4: Some(Ipv4::Dhcp), ..Net::default() });
    let (mut changes, mut before) = (0, None);
    for _ in 0..600 {
        link.now += Duration::from_millis(100);
        link.stack.poll(link.now, &mut link.end, || None);
        changes += usize::from(link.stack.ipv4() != before);
        before = link.stack.ipv4();
        for sent in link.far.incoming.borrow_mut().drain(..) {
            // Who has an address asks in vain for more time.
            let answer = dhcp_answer_from((SERVER, 1), &sent, SERVER, MASK);
            let answer = answer.filter(|_| before.is_none());
            link.far.outgoing.borrow_mut().extend(answer.or_else(|| arp_answer(&sent)));
        }
    }
    let said = HEARD.take();
    assert!(changes > 20, "only {changes} changes in a minute");
    assert!(said.len() <= 7, "a line every ten seconds would do: {said:?}");
}

#[test]
fn an_address_comes_from_a_server_and_is_renewed() {
    hear();
    let net = Net { ipv4: Some(Ipv4::Dhcp), ..Net::default() };
    let mut link = Link::new(net);
    let mut asked = 0;
    let mut poll = |link: &mut Link, is_served: bool| {
        link.due = link.stack.poll(link.now, &mut link.end, || None);
        while let Some(frame) = link.far.incoming.borrow_mut().pop_front() {
            let answer = dhcp_answer(&frame, SERVER, MASK);
            asked += usize::from(answer.is_some());
            let answer = answer.or_else(|| arp_answer(&frame));
            let answer = answer.filter(|_| is_served);
            link.far.outgoing.borrow_mut().extend(answer);
        }
        asked
    };
    for _ in 0..10 {
        poll(&mut link, true);
        link.now += Duration::from_millis(100);
    }
    assert_eq!(link.stack.ipv4(), Some(LEASED));
    assert_eq!(poll(&mut link, true), 2, "one discovers, one requests");
    let renewal = link.due.expect("a lease ends");
    assert!((200..600).contains(&renewal.as_secs()), "{renewal:?} of 600 s");
    link.now = renewal;
    for _ in 0..20 {
        poll(&mut link, true);
        link.now += Duration::from_millis(100);
    }
    assert_eq!(poll(&mut link, true), 3, "one renews");
    for _ in 0..1300 {
        link.now += Duration::from_secs(1);
        poll(&mut link, false);
    }
    assert_eq!(link.stack.ipv4(), None, "nobody renewed it");
    let said = HEARD.take();
    assert_eq!(said, ["address 192.168.7.20/24 by DHCP", "no address by DHCP any more"]);
}

#[test]
fn other_hosts_are_told_where_it_is() {
    let mut link = Link::new(fixed());
    let who_has = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(CLIENT),
        source_protocol_addr: Ipv4Addr::new(10, 0, 0, 1),
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: FOUR,
    };
    let frame = framed([0xff; 6], EthernetProtocol::Arp, who_has.buffer_len(), |payload| {
        who_has.emit(&mut ArpPacket::new_unchecked(payload));
    });
    link.end.incoming.borrow_mut().push_back(frame);
    link.stack.poll(link.now, &mut link.end, || None);
    let reply = link.far.incoming.borrow_mut().pop_front().expect("a reply");
    let frame = EthernetFrame::new_checked(&reply[..]).unwrap();
    assert_eq!(frame.dst_addr(), EthernetAddress(CLIENT));
    assert_eq!(frame.src_addr(), EthernetAddress(STUB));
    assert_eq!(frame.ethertype(), EthernetProtocol::Arp);
}

#[test]
fn no_two_domains_have_hardware_of_one_address() {
    // As a host makes them by its clock, and one by chance.
    let ends = 0xb4d3_11ef_8001_02b7_4ec7_9411_u128;
    let mut uuids: Vec<u128> = (0..10_000).map(|time| (0x6dc2_7a10 + time) << 96 | ends).collect();
    uuids.push(0x1f9c_64d1_9d8e_4b0a_8c61_5d11_27c3_99a0);
    let addresses: BTreeSet<[u8; 6]> = uuids.iter().map(|&uuid| hardware_address(uuid)).collect();
    assert_eq!(addresses.len(), uuids.len());
    assert!(
        addresses.iter().all(|address| address[0] == 0x02),
        "of one, and nobody's who makes them"
    );
}
