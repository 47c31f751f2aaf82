//! The target `tcpip`: the stub's own stack, with a link whose every sender means no good.
//!
//! Nothing that comes makes the stack panic, keeps it from resting, or keeps it busy while nothing
//! comes. When all is over, one whose address is its own answers an honest client.

mod frames;
mod hosts;
mod wire;

use core::net::Ipv4Addr;
use core::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use smoltcp::wire::{
    ArpOperation, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetProtocol, IpProtocol, TcpControl,
    TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket,
};
use stubdom::http::Page;
use stubdom::options::{Ipv4, Net, Subnet};
use stubdom::stack::{PORT, Stack};

use frames::{Seen, arp, framed, is_arp_answer, packet, question_of, segment_of};
use hosts::{CLIENT, HONEST, OWN, STUB, four, pair, six, station};
use wire::Wire;

/// One run.
#[derive(Arbitrary, Debug)]
pub struct Input {
    /// Whether the stack asks for its address, or has one.
    dhcp: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// Something comes, with a byte changed or its end cut off.
    Come { what: What, change: Option<(u16, u8)>, cut: Option<u8> },
    /// Time passes.
    Wait { millis: u16 },
    /// Much of it.
    WaitLong { seconds: u16 },
}

#[derive(Arbitrary, Debug)]
enum What {
    Arp { answer: bool, from: u8, to: u8, station: u8 },
    Neighbor { kind: u8, flags: u8, from: u8, to: u8, target: u8, option: u8, station: u8 },
    Packet { six: bool, from: u8, to: u8, protocol: u8, bytes: Vec<u8> },
    Tcp(Segment),
    Lease(Lease),
    Frame { protocol: u16, bytes: Vec<u8> },
}

#[derive(Arbitrary, Debug)]
struct Segment {
    six: bool,
    from: u8,
    to: u8,
    client: u8,
    control: u8,
    /// From where the stack is: near, or anywhere.
    seq: Distance,
    ack: Option<Distance>,
    window: u16,
    scale: Option<u8>,
    mss: Option<u16>,
    text: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Distance {
    Near(i8),
    Windows(i16),
    Far(i32),
}

#[derive(Arbitrary, Debug)]
struct Lease {
    kind: u8,
    from: u8,
    yours: u8,
    server: Option<u8>,
    router: Option<u8>,
    mask: Option<u8>,
    seconds: Option<u32>,
    renew: Option<u32>,
    rebind: Option<u32>,
    is_for_another: bool,
}

/// Runs the steps, and panics where the stack breaks a promise.
pub fn run(input: &Input) {
    let mut link = Link::new(input.dhcp);
    link.settle();
    for step in &input.steps {
        match step {
            Step::Come { what, change, cut } => {
                let mut frame = link.frame(what);
                if let Some((at, byte)) = change
                    && let Some(place) = frame.get_mut(usize::from(*at))
                {
                    *place = *byte;
                }
                frame.truncate(frame.len() - frame.len().min(cut.unwrap_or(0).into()));
                link.wire.incoming.push_back(frame);
                link.settle();
            }
            Step::Wait { millis } => link.wait(Duration::from_millis((*millis).into())),
            Step::WaitLong { seconds } => {
                link.wait(Duration::from_secs(u64::from(*seconds) % 5000));
            }
        }
    }
    if !input.dhcp {
        link.is_still_there();
    }
}

/// A stack on a link.
struct Link {
    stack: Stack,
    wire: Wire,
    now: Duration,
    due: Option<Duration>,
    seen: [Seen; 4],
    /// By what number it asked for an address.
    asked: u32,
    last: Vec<Vec<u8>>,
}

impl Link {
    fn new(dhcp: bool) -> Self {
        let mut wire = Wire::default();
        let ipv4 =
            if dhcp { Ipv4::Dhcp } else { Ipv4::Static(Subnet { address: OWN, prefix: 24 }) };
        let net = Net {
            ipv4: Some(ipv4),
            ipv6: Some(Subnet { address: six(7), prefix: 64 }),
            gateway4: (!dhcp).then_some(Ipv4Addr::new(10, 0, 0, 9)),
            gateway6: Some(six(0)),
        };
        let stack = Stack::new(net, STUB.0, 7, &mut wire, Duration::ZERO);
        Self {
            stack,
            wire,
            now: Duration::ZERO,
            due: None,
            seen: Default::default(),
            asked: 0,
            last: Vec::new(),
        }
    }

    /// Lets the stack do all that there is to do at this time.
    fn settle(&mut self) {
        self.last.clear();
        for _ in 0..300 {
            let page = || Some(Page { kind: "text/plain", text: "stubdom_up 1\n".repeat(300) });
            self.due = self.stack.poll(self.now, &mut self.wire, page);
            let sent = core::mem::take(&mut self.wire.outgoing);
            assert!(sent.len() <= 1000, "{} frames are sent in a turn", sent.len());
            for frame in sent {
                self.note(&frame);
                self.last.push(frame);
            }
            if self.due.is_none_or(|due| due > self.now) {
                assert!(self.wire.incoming.is_empty(), "it rests, and has not seen all frames");
                return;
            }
        }
        panic!("at {:?} the stack wants to be called at {:?}, for ever", self.now, self.due);
    }

    /// Lets time pass as the stack wants to be called.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        let mut calls = 0;
        while let Some(due) = self.due.filter(|&due| due <= until) {
            self.now = due;
            self.settle();
            calls += 1;
            let most = 200 + time.as_millis() / 5;
            assert!(calls <= most, "it wants {calls} calls in {time:?}, and nothing comes");
        }
        self.now = until;
        self.settle();
    }

    fn frame(&self, what: &What) -> Vec<u8> {
        match *what {
            What::Arp { answer, from, to, station: number } => {
                let operation = if answer { ArpOperation::Reply } else { ArpOperation::Request };
                arp(operation, station(number), four(from), four(to))
            }
            What::Neighbor { kind, flags, from, to, target, option, station: number } => {
                let mut bytes = vec![133 + kind % 5, 0, 0, 0, flags, 0, 0, 0];
                bytes.extend(six(target).octets());
                bytes.extend([option % 6, 1]);
                bytes.extend(station(number).0);
                let (from, to) = pair(true, from, to);
                packet(from, to, IpProtocol::Icmpv6, &bytes)
            }
            What::Packet { six, from, to, protocol, ref bytes } => {
                let (from, to) = pair(six, from, to);
                packet(from, to, IpProtocol::from(protocol), bytes)
            }
            What::Tcp(ref segment) => self.segment(segment),
            What::Lease(ref lease) => self.lease(lease),
            What::Frame { protocol, ref bytes } => framed(EthernetProtocol::from(protocol), bytes),
        }
    }

    fn segment(&self, segment: &Segment) -> Vec<u8> {
        let Seen { next, awaits } = self.seen[usize::from(segment.client) % self.seen.len()];
        let (from, to) = pair(segment.six, segment.from, segment.to);
        let controls =
            [TcpControl::None, TcpControl::Psh, TcpControl::Syn, TcpControl::Fin, TcpControl::Rst];
        let text = b"GET /metrics HTTP/1.1\r\nHost: stub\r\n\r\n".repeat(40);
        let tcp = TcpRepr {
            src_port: client_port(segment.client),
            dst_port: PORT,
            control: controls[usize::from(segment.control) % controls.len()],
            seq_number: moved(awaits, segment.seq),
            ack_number: segment.ack.map(|by| moved(next, by)),
            window_len: segment.window,
            window_scale: segment.scale,
            max_seg_size: segment.mss,
            sack_permitted: true,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &text[..usize::from(segment.text) * 4],
        };
        let mut bytes = vec![0; tcp.buffer_len()];
        let mut segment = TcpPacket::new_unchecked(&mut bytes[..]);
        tcp.emit(&mut segment, &from, &to, &Default::default());
        packet(from, to, IpProtocol::Tcp, &bytes)
    }

    fn lease(&self, lease: &Lease) -> Vec<u8> {
        let kinds = [DhcpMessageType::Offer, DhcpMessageType::Ack, DhcpMessageType::Nak];
        let mask = lease.mask.map(|bits| match bits % 40 {
            bits @ 0..=32 => {
                Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0))
            }
            odd => Ipv4Addr::new(255, odd, 255, 0),
        });
        let dhcp = DhcpRepr {
            message_type: kinds[usize::from(lease.kind) % kinds.len()],
            transaction_id: self.asked ^ u32::from(lease.is_for_another),
            secs: 0,
            client_hardware_address: STUB,
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: four(lease.yours),
            server_ip: four(lease.from),
            router: lease.router.map(four),
            subnet_mask: mask,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: lease.server.map(four),
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: lease.seconds,
            renew_duration: lease.renew,
            rebind_duration: lease.rebind,
            additional_options: &[],
        };
        let mut bytes = vec![0; 8 + dhcp.buffer_len()];
        let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let mut udp = UdpPacket::new_unchecked(&mut bytes[..]);
        udp.set_src_port(67);
        udp.set_dst_port(68);
        udp.set_len(len);
        let _ = dhcp.emit(&mut DhcpPacket::new_unchecked(udp.payload_mut()));
        packet(four(lease.from).into(), Ipv4Addr::BROADCAST.into(), IpProtocol::Udp, &bytes)
    }

    /// Keeps what an answer to a frame of the stack's needs.
    fn note(&mut self, frame: &[u8]) {
        if let Some((port, seen)) = segment_of(frame)
            && let Some(place) = (0..4).position(|client| client_port(client) == port)
        {
            self.seen[place] = seen;
        } else if let Some(number) = question_of(frame) {
            self.asked = number;
        }
    }

    /// An honest client comes, after some time in which nothing came.
    fn is_still_there(&mut self) {
        self.wait(Duration::from_secs(120));
        let ask = arp(ArpOperation::Request, CLIENT, HONEST, OWN);
        self.wire.incoming.push_back(ask);
        self.settle();
        assert!(
            self.last.iter().any(|frame| is_arp_answer(frame)),
            "no answer to who has its address"
        );
        let syn = Segment {
            six: false,
            from: 0,
            to: 1,
            client: 4,
            control: 2,
            seq: Distance::Near(1),
            ack: None,
            window: 1000,
            scale: None,
            mss: None,
            text: 0,
        };
        let mut frame = self.segment(&syn);
        // From a port that nobody had before.
        frame[34..36].copy_from_slice(&HONEST_PORT.to_be_bytes());
        self.wire.incoming.push_back(frame);
        self.settle();
        let is_answer =
            |frame: &Vec<u8>| segment_of(frame).is_some_and(|(port, _)| port == HONEST_PORT);
        assert!(self.last.iter().any(is_answer), "no answer to who wants to connect");
    }
}

/// The port of the honest client.
const HONEST_PORT: u16 = 0x5000;

fn client_port(client: u8) -> u16 {
    0x4000 + u16::from(client % 4)
}

fn moved(number: TcpSeqNumber, by: Distance) -> TcpSeqNumber {
    let by = match by {
        Distance::Near(by) => by.into(),
        Distance::Windows(by) => by.into(),
        Distance::Far(by) => by,
    };
    TcpSeqNumber(number.0.wrapping_add(by))
}
