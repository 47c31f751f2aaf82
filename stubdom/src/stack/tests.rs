//! A stack and a client on a wire.

mod addresses;
mod odd;
mod page;

use core::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use allocation_counter::{measure, opt_out};
use smoltcp::phy::{self, DeviceCapabilities, Medium};

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
        let mut frame = Vec::new();
        opt_out(|| frame.resize(len, 0));
        let result = f(&mut frame);
        opt_out(|| self.0.borrow_mut().push_back(frame));
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

    /// Lets both do what they have to do at this moment. The stub allocates nothing for that but the
    /// page.
    fn settle(&mut self) {
        for _ in 0..50 {
            let Self { stack, end, now, page, .. } = self;
            let page = || {
                let mut text = String::new();
                opt_out(|| text.clone_from(page));
                Some(Page { kind: "text/plain", text })
            };
            let made = measure(|| self.due = stack.poll(*now, end, page));
            assert_eq!(made.count_total, 0, "allocations of the stack: {made:?}");
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
