//! The store with guests in memory: their pages are real, Xen is not.

use core::cell::RefCell;
use core::sync::atomic::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use conversations::world::{Frame, Mailbox, Open, WATCH_EVENT};
use xen_sys::clock::SystemTime;
use xen_sys::domctl::{DomainState, Identity};
use xen_sys::grant::MapError;
use xen_sys::ids::{DomId as XenDomId, Errno};
use xen_sys::page::{OwnPage, OwnPages};
use xen_sys::ring::shared::Region;
use xen_sys::ring::xenstore::{Client, ServerFeatures};
use xenstore_core::{Config, DomId, Host, UniqueId};

use super::*;
use crate::machine::{Fates, Line};
use crate::metrics::Figures;
use crate::publication::Publication;

/// Where `struct xenstore_domain_interface` has what the guest has put and the store has taken,
/// and the port that the builder of the domain left there.
const REQ_CONS: usize = 2048;
const EVTCHN_PORT: usize = 2076;

/// The port of VIRQ_DOM_EXC.
const EXCEPTIONS: Port = Port(1);

/// Operations of xen/include/public/io/xs_wire.h.
const GET_DOMAIN_PATH: u32 = 10;
const INTRODUCE: u32 = 8;
const READ: u32 = 2;
const WATCH: u32 = 4;

/// A Xen in memory.
#[derive(Default)]
struct Xen {
    domains: BTreeMap<u16, DomainState>,
    /// Those whose state changed and was not told yet; `None` for a Xen that does not tell.
    changed: Option<VecDeque<u16>>,
    pages: BTreeMap<u16, OwnPage>,
    events: VecDeque<Port>,
    /// Open local ports, and the domain and port at the other end.
    lines: BTreeMap<u32, (u16, u32)>,
    /// Domains that were sent an event.
    notified: BTreeSet<u16>,
}

type SharedXen = Rc<RefCell<Xen>>;

struct FakeLine(SharedXen, u32);

impl Line for FakeLine {
    fn port(&self) -> Port {
        Port(self.1)
    }

    fn notify(&self) {
        let mut xen = self.0.borrow_mut();
        let (domain, _) = xen.lines[&self.1];
        xen.notified.insert(domain);
    }
}

impl Drop for FakeLine {
    fn drop(&mut self) {
        self.0.borrow_mut().lines.remove(&self.1);
    }
}

impl Fates for SharedXen {
    fn tells_changes(&self) -> bool {
        self.borrow().changed.is_some()
    }

    fn next_changed(&self) -> Result<Option<(XenDomId, Option<DomainState>)>, Errno> {
        let mut xen = self.borrow_mut();
        let next = xen.changed.as_mut().and_then(VecDeque::pop_front);
        Ok(next.and_then(|id| Some((XenDomId::new(id)?, xen.domains.get(&id).copied()))))
    }

    fn query(&self, domain: XenDomId) -> Result<Option<DomainState>, Errno> {
        Ok(self.borrow().domains.get(&domain.raw()).copied())
    }
}

impl Machine for SharedXen {
    type Page = OwnPage;
    type Line = FakeLine;
    type Fates = Self;

    fn next_event(&mut self) -> Option<Port> {
        self.borrow_mut().events.pop_front()
    }

    fn map(&mut self, domain: XenDomId) -> Result<OwnPage, MapError> {
        self.borrow().pages.get(&domain.raw()).cloned().ok_or(MapError::Xen(Errno::EINVAL))
    }

    fn bind(&mut self, domain: XenDomId, port: Port) -> Result<FakeLine, Errno> {
        let mut xen = self.borrow_mut();
        let local = (2..).find(|local| !xen.lines.contains_key(local)).expect("a free port");
        xen.lines.insert(local, (domain.raw(), port.0));
        Ok(FakeLine(Self::clone(self), local))
    }

    fn fates(&self) -> Option<Self> {
        Some(Self::clone(self))
    }

    fn has_memory(&self, _: usize) -> bool {
        true
    }

    fn memory_used(&self) -> usize {
        0
    }

    fn figures(&self) -> Figures<'_> {
        Figures { memory: 1000, ..Figures::default() }
    }
}

/// A domain that runs.
fn running(identity: u64) -> DomainState {
    let identity = Identity::UniqueId(identity);
    DomainState { identity, shutdown: false, dying: false, dead: false }
}

/// A host whose store serves dom0.
struct Lab {
    xen: SharedXen,
    server: Server,
    guests: Guests<SharedXen>,
    clients: BTreeMap<u16, Client<OwnPage>>,
}

impl Lab {
    fn new() -> Self {
        let xen = SharedXen::default();
        let config = Config { privileged: DomId(0), store: DomId(999), version: "test" };
        let mut server = Server::new(config);
        let mut lab_guests = Guests::new(Rc::clone(&xen));
        let mut clients = BTreeMap::new();
        clients.insert(0, boot(&xen, 0));
        let identity = lab_guests.identify(DomId(0)).unwrap_or(UniqueId(0));
        let conn = server.connect(DomId(0), identity);
        let features = ServerFeatures::from_bits_retain(server.features(conn).bits());
        lab_guests.connect_dom0(conn, Port(7), features).expect("dom0's ring is there");
        Self { xen, server, guests: lab_guests, clients }
    }

    /// A guest that runs and was introduced with that port; returns our end of it.
    fn introduce(&mut self, domain: u16, port: u32) -> Port {
        if !self.clients.contains_key(&domain) {
            self.clients.insert(domain, boot(&self.xen, domain));
        }
        assert_eq!(self.ask(0, INTRODUCE, &format!("{domain}\x001\0{port}\0")), b"OK\0");
        self.line(domain).expect("an introduced guest has a line")
    }

    /// Our end of the line to a guest.
    fn line(&self, domain: u16) -> Option<Port> {
        let xen = self.xen.borrow();
        let mut lines = xen.lines.iter();
        lines.find(|(_, (remote, _))| *remote == domain).map(|(local, _)| Port(*local))
    }

    /// Puts a request into the ring of `domain`, which says nothing of it.
    fn put(&mut self, domain: u16, kind: u32, payload: &str) {
        let len = u32::try_from(payload.len()).expect("a short payload");
        let header = Open { kind, req_id: 1, tx_id: 0 }.header(len);
        let frame = [&header[..], payload.as_bytes()].concat();
        let written = self.clients.get_mut(&domain).expect("a domain").write(&frame);
        assert_eq!(written, Ok(frame.len()), "domain {domain} has room for a request");
    }

    /// An event comes at our port.
    fn event(&mut self, port: Port) {
        self.xen.borrow_mut().events.push_back(port);
        take(&mut self.server, &mut self.guests, Some(EXCEPTIONS));
        assert!(!self.guests.has_backlog(), "one turn is enough here");
    }

    /// What is in the ring of `domain`.
    fn read(&mut self, domain: u16) -> Vec<Frame> {
        let client = self.clients.get_mut(&domain).expect("a domain");
        let (mut mailbox, mut bytes) = (Mailbox::default(), [0; 1024]);
        let count = client.read(&mut bytes).expect("the store writes possible indexes");
        mailbox.receive(&bytes[..count]).expect("whole frames");
        mailbox.inbox.into()
    }

    /// Asks, and returns the answer, with which no event of before comes.
    fn ask(&mut self, domain: u16, kind: u32, payload: &str) -> Vec<u8> {
        self.put(domain, kind, payload);
        let port = self.line(domain).expect("a line");
        self.event(port);
        let answer = self.read(domain).into_iter().next().expect("an answer");
        assert_ne!(answer.kind, WATCH_EVENT, "an answer to {kind} comes first");
        answer.payload
    }

    /// Paths of the events in dom0's ring.
    fn told(&mut self) -> Vec<String> {
        let frames = self.read(0).into_iter();
        let events = frames.filter(|frame| frame.kind == WATCH_EVENT);
        events.map(|event| String::from_utf8_lossy(&event.payload).into_owned()).collect()
    }

    /// How many bytes of requests the store has taken from a guest.
    fn taken(&self, domain: u16) -> u32 {
        let page = self.xen.borrow().pages[&domain].clone();
        Region::of(&page).word(REQ_CONS).load(Ordering::Relaxed)
    }
}

/// A domain that runs and grants its page.
fn boot(xen: &SharedXen, domain: u16) -> Client<OwnPage> {
    let page = OwnPages::zeroed(1).and_then(|page| page.split().next()).expect("a page");
    xen.borrow_mut().pages.insert(domain, page.clone());
    xen.borrow_mut().domains.insert(domain, running(domain.into()));
    Client::attach(page)
}

#[test]
fn the_port_in_the_page_goes_before_the_one_in_the_request() {
    let mut lab = Lab::new();
    let client = boot(&lab.xen, 5);
    let page = lab.xen.borrow().pages[&5].clone();
    Region::of(&page).word(EVTCHN_PORT).store(9, Ordering::Relaxed);
    lab.clients.insert(5, client);
    let line = lab.introduce(5, 3);
    assert_eq!(lab.xen.borrow().lines[&line.0], (5, 9), "who built the domain knows its port");
    assert_eq!(lab.ask(5, GET_DOMAIN_PATH, "0\0"), b"/local/domain/0\0", "and there it is served");

    let line = lab.introduce(6, 3);
    assert_eq!(lab.xen.borrow().lines[&line.0], (6, 3), "a page without one leaves the request's");
}

#[test]
fn a_domain_that_is_dead_and_nothing_else_is_let_go() {
    for tells_changes in [false, true] {
        let mut lab = Lab::new();
        lab.introduce(5, 3);
        assert_eq!(lab.ask(0, WATCH, "@releaseDomain\0t\0"), b"OK\0");
        let mut fate = |change: fn(&mut DomainState)| {
            let mut xen = lab.xen.borrow_mut();
            xen.changed = tells_changes.then(|| VecDeque::from([5]));
            change(xen.domains.get_mut(&5).expect("it was booted"));
            drop(xen);
            lab.event(EXCEPTIONS);
            (lab.told(), lab.line(5).is_some())
        };
        assert_eq!(fate(|state| state.dying = true), (vec![], true), "it is not dead yet");
        let (told, is_served) = fate(|state| state.dead = true);
        assert_eq!(told, ["@releaseDomain\0t\0"], "it did not shut down before");
        assert!(!is_served, "its port is closed");
        assert_eq!(lab.server.domains().filter(|(domain, _)| domain.0 == 5).count(), 0);
    }
}

#[test]
fn an_event_has_one_ring_looked_at() {
    let mut lab = Lab::new();
    for domain in 1..=100 {
        lab.introduce(domain, 3);
        lab.put(domain, GET_DOMAIN_PATH, "0\0");
    }
    lab.xen.borrow_mut().notified.clear();
    let port = lab.line(50).expect("a line");
    lab.event(port);
    let looked_at: Vec<u16> = (1..=100).filter(|&domain| lab.taken(domain) > 0).collect();
    assert_eq!(looked_at, [50], "the others have said nothing");
    assert_eq!(lab.xen.borrow().notified, BTreeSet::from([50]));
    assert_eq!(lab.read(50).len(), 1);
}

#[test]
fn an_event_at_a_port_that_is_nobodys_is_nothing() {
    let mut lab = Lab::new();
    let port = lab.introduce(5, 3);
    lab.put(5, GET_DOMAIN_PATH, "0\0");
    lab.event(Port(port.0 + 1));
    lab.event(Port(u32::MAX));
    assert_eq!(lab.taken(5), 0, "a guest that has said nothing is not looked at");
    lab.event(port);
    assert_eq!(lab.read(5).len(), 1);
}

#[test]
fn the_figures_are_published_before_the_first_request_after_a_pause() {
    let mut lab = Lab::new();
    let mut publication = Publication::default();
    let at = |seconds: u64| SystemTime(seconds * 1_000_000_000);
    publication.look(&mut lab.server, &lab.guests, at(100));
    let requests = |lab: &mut Lab| {
        let read = lab.ask(0, READ, "/tool/xenstored/figures/store_requests_total\0");
        let read = String::from_utf8(read).expect("words");
        let words: Vec<_> = read.split(' ').collect();
        let reads = words.iter().position(|&word| word == "READ").expect("READ is counted");
        words[reads + 1].parse::<u64>().expect("a number")
    };
    assert_eq!(requests(&mut lab), 0, "before the first");
    assert_eq!(lab.ask(0, READ, "/tool/xenstored/figures/memory_bytes\0"), b"1000");
    publication.look(&mut lab.server, &lab.guests, at(109));
    assert_eq!(requests(&mut lab), 0, "they are fresh enough");
    publication.look(&mut lab.server, &lab.guests, at(110));
    assert_eq!(requests(&mut lab), 3);
    lab.server.check().expect("the accounts are right");
}
