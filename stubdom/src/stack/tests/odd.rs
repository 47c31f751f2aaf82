//! Packets and leases whose sender means no good.

use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, IpRepr, Ipv4Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket,
    UdpRepr,
};

use super::addresses::{MASK, SERVER, arp_answer, dhcp_answer, dhcp_answer_from, framed};
use super::*;
use crate::stack::connection::TO_ASK;

/// Addresses that a packet can have whose sender means no good, and some that are honest.
fn odd_addresses() -> Vec<IpAddress> {
    let of = |text: &&str| text.parse().unwrap();
    [
        "0.0.0.0",
        "255.255.255.255",
        "127.0.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "10.0.0.0",
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.255",
        "192.168.7.1",
        "192.168.7.20",
        "203.0.113.1",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "fe80::1",
        "fe80::216:3eff:fe00:1",
        "fe80::216:3eff:fe00:2",
        "fd00::1",
        "ff02::1",
        "ff02::1:ff00:2",
        "2001:db8::1",
    ]
    .iter()
    .map(of)
    .collect()
}

/// What can be in such a packet: its protocol, and its bytes for both addresses.
fn odd_payloads(from: IpAddress, to: IpAddress) -> Vec<(IpProtocol, Vec<u8>)> {
    let mut all = Vec::new();
    for control in
        [TcpControl::Syn, TcpControl::None, TcpControl::Fin, TcpControl::Psh, TcpControl::Rst]
    {
        for (dst_port, ack_number) in [(PORT, None), (PORT, Some(TcpSeqNumber(7))), (81, None)] {
            let tcp = TcpRepr {
                src_port: 0x4000,
                dst_port,
                control,
                seq_number: TcpSeqNumber(1),
                ack_number,
                window_len: 0,
                window_scale: Some(14),
                max_seg_size: Some(1),
                sack_permitted: true,
                sack_ranges: [None; 3],
                timestamp: None,
                payload: b"GET",
            };
            let mut bytes = vec![0; tcp.buffer_len()];
            let mut packet = TcpPacket::new_unchecked(&mut bytes[..]);
            tcp.emit(&mut packet, &from, &to, &Default::default());
            all.push((IpProtocol::Tcp, bytes));
        }
    }
    for (src_port, dst_port) in [(67, 68), (68, 67), (53, 5353)] {
        let udp = UdpRepr { src_port, dst_port };
        let mut bytes = vec![0; 8 + 300];
        let mut packet = UdpPacket::new_unchecked(&mut bytes[..]);
        udp.emit(&mut packet, &from, &to, 300, |payload| payload.fill(1), &Default::default());
        all.push((IpProtocol::Udp, bytes));
    }
    for len in [0, 8, 1472, 20_000] {
        let (protocol, bytes) = match (from, to) {
            (IpAddress::Ipv6(from), IpAddress::Ipv6(to)) => {
                let echo = Icmpv6Repr::EchoRequest { ident: 1, seq_no: 1, data: &vec![0; len] };
                let mut bytes = vec![0; echo.buffer_len()];
                let mut packet = Icmpv6Packet::new_unchecked(&mut bytes[..]);
                echo.emit(&from, &to, &mut packet, &Default::default());
                (IpProtocol::Icmpv6, bytes)
            }
            _ => {
                let echo = Icmpv4Repr::EchoRequest { ident: 1, seq_no: 1, data: &vec![0; len] };
                let mut bytes = vec![0; echo.buffer_len()];
                echo.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes[..]), &Default::default());
                (IpProtocol::Icmp, bytes)
            }
        };
        all.push((protocol, bytes));
    }
    all.push((IpProtocol::Icmp, vec![3; 3]));
    all.push((IpProtocol::HopByHop, vec![6, 0, 0xc3, 4, 0, 0, 0, 0]));
    all.push((IpProtocol::HopByHop, vec![6, 255, 1, 250]));
    all.push((IpProtocol::Ipv6Frag, vec![6, 0, 0, 1, 0, 0, 0, 0]));
    all.push((IpProtocol::Unknown(99), vec![0; 3000]));
    all
}

/// All packets between such addresses, each as a frame to the stub.
fn odd_frames() -> Vec<Vec<u8>> {
    let addresses = odd_addresses();
    let mut frames = Vec::new();
    for &from in &addresses {
        for &to in addresses.iter().filter(|to| to.version() == from.version()) {
            for (next_header, bytes) in odd_payloads(from, to) {
                let ip = IpRepr::new(from, to, next_header, bytes.len(), 255);
                let kind = match ip {
                    IpRepr::Ipv4(_) => EthernetProtocol::Ipv4,
                    IpRepr::Ipv6(_) => EthernetProtocol::Ipv6,
                };
                frames.push(framed(STUB, kind, ip.header_len() + bytes.len(), |payload| {
                    ip.emit(&mut payload[..], &Default::default());
                    payload[ip.header_len()..].copy_from_slice(&bytes);
                }));
            }
        }
    }
    frames
}

/// Has the stack take such frames, each some time after the one before; then it works as before.
/// A DHCP server gives it such a router and such a mask.
fn endure(net: Net, router: Ipv4Addr, mask: Ipv4Addr) {
    let mut link = Link::new(net);
    let mut answered = 0;
    for frame in odd_frames() {
        for _ in 0..2 {
            link.now += Duration::from_millis(25);
            link.stack.poll(link.now, &mut link.end, || None);
            for sent in link.far.incoming.borrow_mut().drain(..) {
                assert!(sent.len() <= 1514, "a frame of {} bytes is sent", sent.len());
                let answer = dhcp_answer(&sent, router, mask).or_else(|| arp_answer(&sent));
                answered += usize::from(answer.is_none());
                link.far.outgoing.borrow_mut().extend(answer);
            }
        }
        link.end.incoming.borrow_mut().push_back(frame);
    }
    assert!(answered > 20, "{answered} packets got an answer; what is tested?");
    link.pass(2 * TO_ASK);
    let to = IpAddress::Ipv6(link_local(STUB));
    assert!(link.fetch(to).starts_with("HTTP/1.1 200 "), "{net:?}");
}

#[test]
fn no_packet_is_too_odd() {
    let subnet = |prefix| Some(Ipv4::Static(Subnet { address: FOUR, prefix }));
    let six = |prefix| Some(Subnet { address: "fd00::2".parse().unwrap(), prefix });
    let gateway4 = Some(Ipv4Addr::new(10, 0, 0, 1));
    let gateway6 = Some("fe80::1".parse().unwrap());
    for prefix in [24, 32, 31, 0] {
        endure(Net { ipv4: subnet(prefix), gateway4, ..Net::default() }, SERVER, MASK);
        endure(Net { ipv4: subnet(prefix), ipv6: six(64), ..Net::default() }, SERVER, MASK);
    }
    endure(Net { ipv6: six(64), gateway6, ..Net::default() }, SERVER, MASK);
    endure(Net { ipv6: six(0), ..Net::default() }, SERVER, MASK);
}

#[test]
fn no_router_that_a_server_names_is_too_odd() {
    let net = Net { ipv4: Some(Ipv4::Dhcp), ..Net::default() };
    for mask in [MASK, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST] {
        for router in odd_addresses() {
            if let IpAddress::Ipv4(router) = router {
                endure(net, router, mask);
            }
        }
    }
}

#[test]
fn no_server_is_at_too_odd_an_address() {
    let net = Net { ipv4: Some(Ipv4::Dhcp), ..Net::default() };
    for server in odd_addresses() {
        let IpAddress::Ipv4(server) = server else { continue };
        let mut link = Link::new(net);
        // A lease is for ten minutes, and is to be renewed after five.
        for _ in 0..700 {
            link.now += Duration::from_secs(1);
            link.stack.poll(link.now, &mut link.end, || None);
            for sent in link.far.incoming.borrow_mut().drain(..) {
                let answer = dhcp_answer_from((server, 600), &sent, SERVER, MASK);
                link.far.outgoing.borrow_mut().extend(answer.or_else(|| arp_answer(&sent)));
            }
        }
        let to = IpAddress::Ipv6(link_local(STUB));
        assert!(link.fetch(to).starts_with("HTTP/1.1 200 "), "a server at {server}");
    }
}

#[test]
fn who_never_answers_the_answer_keeps_no_place() {
    let mut link = Link::new(fixed());
    link.fetch(FOUR.into());
    link.end.incoming.borrow_mut().push_back(greeting(Ipv4Addr::new(10, 0, 0, 99), 999));
    link.pass(Duration::from_secs(1));
    assert!(link.due > Some(link.now), "nobody wants its place, and nobody waits");
    for second in 0..5 {
        for number in 0..3 * u8::try_from(CONNECTIONS).unwrap() {
            let from = Ipv4Addr::new(10, 0, 0, 100 + number);
            link.end.incoming.borrow_mut().push_back(greeting(from, 1000 + second));
        }
        link.pass(Duration::from_secs(1));
        assert!(link.fetch(FOUR.into()).starts_with("HTTP/1.1 200 "), "after {second} s");
    }
}

/// A segment of a connection, as long as another: where it begins, what it answers, and what it says.
fn segment(control: TcpControl, seq: i32, ack: i32, payload: &[u8]) -> Vec<u8> {
    let seq_number = TcpSeqNumber(seq);
    let ack_number = Some(TcpSeqNumber(ack));
    let from = Ipv4Addr::new(10, 0, 0, 1);
    tcp_frame(from, TcpRepr { control, seq_number, ack_number, payload, ..hello(999) })
}

#[test]
fn whose_end_is_behind_the_window_ends_alone() {
    let mut link = Link::new(fixed());
    link.fetch(FOUR.into());
    for (fill, far) in [(TO_READ, i32::MAX), (TO_READ, i32::MIN), (TO_READ - 1, i32::MAX)] {
        link.end.incoming.borrow_mut().push_back(greeting(Ipv4Addr::new(10, 0, 0, 1), 999));
        link.stack.poll(link.now, &mut link.end, || None);
        let answer = link.far.incoming.borrow_mut().pop_front().expect("an answer");
        let frame = EthernetFrame::new_checked(&answer[..]).unwrap();
        let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
        let ack = TcpPacket::new_checked(packet.payload()).unwrap().seq_number().0.wrapping_add(1);
        // All that the window takes, the end behind it, and a byte from half the numbers away.
        let text = vec![b'x'; fill];
        let mut at = 2;
        for part in text.chunks(1024) {
            let end = at + i32::try_from(part.len()).unwrap();
            let is_last = end == 2 + i32::try_from(fill).unwrap();
            let control = if is_last { TcpControl::Fin } else { TcpControl::None };
            link.end.incoming.borrow_mut().push_back(segment(control, at, ack, part));
            at = end;
        }
        let far = segment(TcpControl::None, (at + 1).wrapping_add(far), ack, b"x");
        link.end.incoming.borrow_mut().push_back(far);
        link.stack.poll(link.now, &mut link.end, || None);
        link.far.incoming.borrow_mut().clear();
        link.pass(2 * TO_ASK);
        assert!(link.fetch(FOUR.into()).starts_with("HTTP/1.1 200 "), "{fill} bytes");
    }
}

#[test]
fn who_takes_its_greeting_back_leaves_nothing_to_be_done() {
    let mut link = Link::new(fixed());
    link.settle();
    let from = Ipv4Addr::new(10, 0, 0, 99);
    let taken_back =
        TcpRepr { control: TcpControl::Rst, seq_number: TcpSeqNumber(2), ..hello(999) };
    for tcp in [hello(999), taken_back] {
        link.end.incoming.borrow_mut().push_back(tcp_frame(from, tcp));
        link.pass(Duration::from_millis(100));
    }
    link.pass(TO_ASK + Duration::from_secs(1));
    assert!(link.due.is_none_or(|due| due > link.now), "it is wanted at once, for ever");
    assert!(link.fetch(FOUR.into()).starts_with("HTTP/1.1 200 "));
}

/// A packet of TCP that asks for a connection.
fn greeting(from: Ipv4Addr, src_port: u16) -> Vec<u8> {
    tcp_frame(from, hello(src_port))
}

/// What it says.
fn hello(src_port: u16) -> TcpRepr<'static> {
    TcpRepr {
        src_port,
        dst_port: PORT,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

fn tcp_frame(from: Ipv4Addr, tcp: TcpRepr<'_>) -> Vec<u8> {
    let (from, to) = (IpAddress::Ipv4(from), IpAddress::Ipv4(FOUR));
    let ip = IpRepr::new(from, to, IpProtocol::Tcp, tcp.buffer_len(), 64);
    framed(STUB, EthernetProtocol::Ipv4, ip.header_len() + tcp.buffer_len(), |payload| {
        ip.emit(&mut payload[..], &Default::default());
        let mut packet = TcpPacket::new_unchecked(&mut payload[ip.header_len()..]);
        tcp.emit(&mut packet, &from, &to, &Default::default());
    })
}

#[test]
fn who_begins_anew_far_from_where_it_was_is_outlived() {
    let from = Ipv4Addr::new(10, 0, 0, 1);
    for far in [i32::MIN, i32::MAX, -0x4000_0000, 0x4000_0000, -2000, -600, -1, 5] {
        for near in [-700_i32, -1, 0, 1, 600, 1000, 4000, 5000] {
            for base in [0, far] {
                let mut link = Link::new(fixed());
                link.fetch(FOUR.into());
                // It asks, is answered, and takes it back; its place is free again.
                link.end.incoming.borrow_mut().push_back(greeting(from, 999));
                link.stack.poll(link.now, &mut link.end, || None);
                link.end.incoming.borrow_mut().push_back(segment(TcpControl::Rst, 2, 0, b""));
                link.stack.poll(link.now, &mut link.end, || None);
                // It asks again, and takes it back before it is answered.
                let again = TcpRepr { seq_number: TcpSeqNumber(far), ..hello(999) };
                link.end.incoming.borrow_mut().push_back(tcp_frame(from, again));
                let rst = segment(TcpControl::Rst, near.wrapping_add(base), 0, &[b'x'; 1400]);
                link.end.incoming.borrow_mut().push_back(rst);
                link.stack.poll(link.now, &mut link.end, || None);
                link.far.incoming.borrow_mut().clear();
            }
        }
    }
}
