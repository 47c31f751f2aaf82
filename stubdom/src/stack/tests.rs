use core::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetFrame,
    EthernetProtocol, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket,
    UdpRepr,
};

use super::connection::{TO_ANSWER, TO_ASK};
use super::*;
use crate::options::Subnet;

type Frames = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// An end of a wire.
#[derive(Clone, Default)]
struct End {
    incoming: Frames,
    outgoing: Frames,
}

fn wire() -> (End, End) {
    let one = End::default();
    let other = End { incoming: one.outgoing.clone(), outgoing: one.incoming.clone() };
    (one, other)
}

struct Incoming(Vec<u8>);
struct Outgoing(Frames);

impl phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Outgoing {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.borrow_mut().push_back(frame);
        result
    }
}

impl Device for End {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing)> {
        let frame = self.incoming.borrow_mut().pop_front()?;
        Some((Incoming(frame), Outgoing(self.outgoing.clone())))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing> {
        Some(Outgoing(self.outgoing.clone()))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

const STUB: [u8; 6] = [0x00, 0x16, 0x3e, 0, 0, 2];
const CLIENT: [u8; 6] = [0x00, 0x16, 0x3e, 0, 0, 1];
const FOUR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: stub\r\n\r\n";

fn fixed() -> Net {
    Net { ipv4: Some(Ipv4::Static(Subnet { address: FOUR, prefix: 24 })), ..Net::default() }
}

/// The stub's stack, a client's, and the time.
struct Link {
    stack: Stack,
    end: End,
    /// When the stack wants to be called.
    due: Option<Duration>,
    interface: Interface,
    sockets: SocketSet<'static>,
    far: End,
    now: Duration,
    page: String,
}

impl Link {
    fn new(net: Net) -> Self {
        let (mut end, mut far) = wire();
        let stack = Stack::new(net, STUB, 7, &mut end, Duration::ZERO);
        let config = Config::new(EthernetAddress(CLIENT).into());
        let mut interface = Interface::new(config, &mut far, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, 1), 24)).unwrap();
            addresses.push(IpCidr::new(IpAddress::Ipv6(link_local(CLIENT)), 64)).unwrap();
        });
        let sockets = SocketSet::new(vec![]);
        let (now, page) = (Duration::ZERO, String::from("stubdom_info 1\n"));
        Self { stack, end, due: None, interface, sockets, far, now, page }
    }

    /// Connects a socket that keeps so many bytes until they are read.
    fn connect(&mut self, to: IpAddress, room: usize) -> SocketHandle {
        let mut socket = tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; room]),
            tcp::SocketBuffer::new(vec![0; 4096]),
        );
        let from = 50_000 + u16::try_from(self.sockets.iter().count()).unwrap();
        socket.connect(self.interface.context(), (to, PORT), from).unwrap();
        self.sockets.add(socket)
    }

    fn socket(&mut self, socket: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(socket)
    }

    /// Lets both do what they have to do at this moment.
    fn settle(&mut self) {
        for _ in 0..50 {
            let page = || Some(Page { kind: "text/plain", text: self.page.clone() });
            self.due = self.stack.poll(self.now, &mut self.end, page);
            self.interface.poll(instant(self.now), &mut self.far, &mut self.sockets);
        }
    }

    /// Lets time pass, in steps of a tenth of a second.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(100);
            self.settle();
        }
    }

    fn read(&mut self, socket: SocketHandle) -> String {
        let mut text = Vec::new();
        while self.socket(socket).can_recv() {
            self.socket(socket).recv(|part| (part.len(), text.extend_from_slice(part))).unwrap();
        }
        String::from_utf8(text).unwrap()
    }

    /// Asks for the page; tells what came, when the stub has closed.
    fn fetch(&mut self, to: IpAddress) -> String {
        let socket = self.connect(to, 65_535);
        self.settle();
        while !self.socket(socket).may_send() {
            self.pass(Duration::from_millis(100));
            assert!(self.socket(socket).is_open(), "{to} refused");
        }
        self.socket(socket).send_slice(GET).unwrap();
        let mut text = String::new();
        for _ in 0..100 {
            self.pass(Duration::from_millis(100));
            text += &self.read(socket);
            if !self.socket(socket).may_recv() {
                break;
            }
        }
        self.socket(socket).close();
        self.settle();
        text
    }
}

#[test]
fn the_page_is_shown_over_ipv4_and_ipv6() {
    let mut link = Link::new(fixed());
    link.page = "stubdom_info 1\n".repeat(5000);
    for to in [IpAddress::Ipv4(FOUR), IpAddress::Ipv6(link_local(STUB))] {
        let answer = link.fetch(to);
        let (head, page) = answer.split_once("\r\n\r\n").unwrap_or_default();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "from {to}: {head}");
        assert!(head.contains("Content-Length: 75000"), "from {to}: {head}");
        assert!(page == link.page, "from {to}: {} bytes", page.len());
    }
}

#[test]
fn its_own_address_on_the_link_comes_from_its_hardware() {
    let address = link_local([0x00, 0x16, 0x3e, 0x12, 0x34, 0x56]);
    assert_eq!(address, "fe80::216:3eff:fe12:3456".parse::<Ipv6Addr>().unwrap());
}

#[test]
fn places_are_free_again_at_once() {
    let mut link = Link::new(fixed());
    for number in 0..4 * CONNECTIONS {
        let answer = link.fetch(FOUR.into());
        assert!(answer.starts_with("HTTP/1.1 200 "), "connection {number}: {answer:?}");
    }
    assert!(link.now < Duration::from_secs(8), "they took {:?}", link.now);
}

#[test]
fn who_reads_slowly_keeps_nobody_waiting_and_is_let_go() {
    let mut link = Link::new(fixed());
    link.page = "stubdom_info 1\n".repeat(5000);
    let slow = link.connect(FOUR.into(), 512);
    link.settle();
    link.socket(slow).send_slice(GET).unwrap();
    link.pass(Duration::from_secs(1));
    assert!(link.socket(slow).can_recv());
    assert!(link.fetch(FOUR.into()).ends_with(&link.page), "while another does not read");
    link.pass(TO_ANSWER);
    assert!(!link.socket(slow).is_open(), "it was reset");
    link.page = "a page".into();
    for _ in 0..CONNECTIONS {
        link.connect(FOUR.into(), 512);
    }
    link.settle();
    let established = link.sockets.iter().filter(
        |(_, socket)| matches!(socket, smoltcp::socket::Socket::Tcp(socket) if socket.may_send()),
    );
    assert_eq!(established.count(), CONNECTIONS, "all places are free again");
}

#[test]
fn who_says_nothing_is_let_go_and_one_too_many_is_refused() {
    let mut link = Link::new(fixed());
    let silent: Vec<_> = (0..CONNECTIONS).map(|_| link.connect(FOUR.into(), 512)).collect();
    link.settle();
    assert!(silent.iter().all(|&socket| link.socket(socket).may_send()), "all are connected");
    link.socket(silent[0]).send_slice(b"GET /metr").unwrap();
    let refused = link.connect(FOUR.into(), 512);
    link.settle();
    assert!(!link.socket(refused).is_open(), "there is no place");
    link.pass(TO_ASK / 2);
    assert_eq!(link.due, Some(TO_ASK), "then it looks after them");
    link.pass(TO_ASK / 2);
    assert!(silent.iter().all(|&socket| !link.socket(socket).is_open()), "they were reset");
    assert!(link.fetch(FOUR.into()).starts_with("HTTP/1.1 200 "));
}

#[test]
fn who_closes_without_a_word_leaves_its_place() {
    let mut link = Link::new(fixed());
    for _ in 0..2 * CONNECTIONS {
        let socket = link.connect(FOUR.into(), 512);
        link.settle();
        assert!(link.socket(socket).may_send());
        link.socket(socket).close();
        link.settle();
        assert_eq!(link.socket(socket).state(), tcp::State::TimeWait, "the stub closed, too");
    }
}

#[test]
fn a_turn_is_bounded() {
    let mut link = Link::new(fixed());
    let frame = vec![0xff; 60];
    link.end.incoming.borrow_mut().extend(vec![frame; 3 * FRAMES_A_TURN]);
    let due = link.stack.poll(link.now, &mut link.end, || None);
    assert_eq!(link.end.incoming.borrow().len(), 2 * FRAMES_A_TURN);
    assert_eq!(due, Some(link.now), "there is more");
    link.settle();
    assert_eq!(link.due, None, "nobody is there, and nothing is to be done");
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
fn framed(
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

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);
const LEASED: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 20);

/// What a host says who is asked for its address.
fn arp_answer(frame: &[u8]) -> Option<Vec<u8>> {
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

/// What a DHCP server answers to a frame, if it is for one.
fn dhcp_answer(frame: &[u8]) -> Option<Vec<u8>> {
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
        router: Some(SERVER),
        subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        server_identifier: Some(SERVER),
        lease_duration: Some(600),
        requested_ip: None,
        client_identifier: None,
        parameter_request_list: None,
        max_size: None,
        ..asked
    };
    let udp = UdpRepr { src_port: 67, dst_port: 68 };
    let len = 8 + reply.buffer_len();
    let ip = Ipv4Repr {
        src_addr: SERVER,
        dst_addr: LEASED,
        next_header: IpProtocol::Udp,
        payload_len: len,
        hop_limit: 64,
    };
    Some(framed(STUB, EthernetProtocol::Ipv4, 20 + len, |payload| {
        let mut packet = Ipv4Packet::new_unchecked(payload);
        ip.emit(&mut packet, &Default::default());
        let (from, to) = (IpAddress::Ipv4(SERVER), IpAddress::Ipv4(LEASED));
        let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
        let emit = |payload: &mut [u8]| {
            reply.emit(&mut DhcpPacket::new_unchecked(payload)).unwrap();
        };
        udp.emit(&mut datagram, &from, &to, reply.buffer_len(), emit, &Default::default());
    }))
}

#[test]
fn an_address_comes_from_a_server_and_is_renewed() {
    let net = Net { ipv4: Some(Ipv4::Dhcp), ..Net::default() };
    let mut link = Link::new(net);
    let mut asked = 0;
    let mut poll = |link: &mut Link, is_served: bool| {
        link.due = link.stack.poll(link.now, &mut link.end, || None);
        while let Some(frame) = link.far.incoming.borrow_mut().pop_front() {
            asked += usize::from(dhcp_answer(&frame).is_some());
            let answer = dhcp_answer(&frame).or_else(|| arp_answer(&frame));
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
