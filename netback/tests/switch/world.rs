//! Guests with pages of their own, and a Xen that copies between them.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use netback::place::{Copier, Copy, Place};
use netback::port::{Config, Drop, PortId, QueueId, Rate, Rings, Takes};
use netback::switch::{PAGES, Side};
use netback::{Mac, Switch, Violation};
use xen_sys::grant::Status;
use xen_sys::ids::DomId;
use xen_sys::page::{OwnPage, OwnPages, PAGE_SIZE};
use xen_sys::ring::netif::{
    ExtraInfo, Flags, Gso, NULL, RxRequest, RxResponse, TxRequest, TxResponse,
};
use xen_sys::ring::slots::Front;

pub(crate) const ALL: Mac = Mac([0xff; 6]);

/// What guests granted, and the pages that the switch reads in.
#[derive(Default)]
pub(crate) struct Memory {
    granted: BTreeMap<(DomId, u32), Vec<u8>>,
    own: Vec<u8>,
    /// Pages that are taken back, and granted again after the next time they are used.
    flickering: BTreeSet<(DomId, u32)>,
    /// How many calls of Xen's there were.
    pub(crate) calls: usize,
}

impl Memory {
    fn bytes(&mut self, place: Place, len: usize) -> Result<&mut [u8], Status> {
        let (bytes, at) = match place {
            Place::Own(at) => {
                // As if no other pages were behind the last one, whatever is copied there.
                if at as usize >= self.own.len() {
                    return Err(Status::BadCopyArgument);
                }
                (&mut self.own, at as usize)
            }
            Place::Foreign(at) => {
                let name = (at.domain, at.reference.0);
                if self.flickering.remove(&name) {
                    return Err(Status::BadReference);
                }
                let page = self.granted.get_mut(&name);
                (page.ok_or(Status::BadReference)?, at.offset.into())
            }
        };
        assert!(
            at / PAGE_SIZE == (at + len.max(1) - 1) / PAGE_SIZE,
            "{place:?}+{len} crosses a page"
        );
        bytes.get_mut(at..at + len).ok_or(Status::BadCopyArgument)
    }

    /// A domain grants a page that begins with these bytes.
    pub(crate) fn grant(&mut self, domain: DomId, reference: u32, bytes: &[u8]) {
        let mut page = bytes.to_vec();
        page.resize(PAGE_SIZE, 0xa5);
        self.granted.insert((domain, reference), page);
    }

    /// Takes a page back, and grants it again as soon as somebody has missed it.
    pub(crate) fn flicker(&mut self, domain: DomId, reference: u32) {
        self.flickering.insert((domain, reference));
    }

    /// Takes a page back though it is in use.
    pub(crate) fn revoke(&mut self, domain: DomId, reference: u32) {
        self.granted.remove(&(domain, reference));
    }
}

impl Copier for Memory {
    fn copy(&mut self, copies: &mut [Copy]) {
        self.calls += 1;
        for copy in copies {
            let len = usize::from(copy.len);
            let bytes = self.bytes(copy.from, len).map(|bytes| bytes.to_vec());
            copy.made = bytes.and_then(|bytes| {
                self.bytes(copy.to, len)?.copy_from_slice(&bytes);
                Ok(())
            });
        }
    }

    fn read(&self, at: u32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.own[at as usize..][..bytes.len()]);
    }

    fn write(&mut self, at: u32, bytes: &[u8]) {
        self.own[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }
}

/// A frame as a guest receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) flags: Flags,
    pub(crate) gso: Option<Gso>,
}

/// A guest's frontend.
pub(crate) struct Guest {
    pub(crate) domain: DomId,
    pub(crate) port: PortId,
    pub(crate) mac: Mac,
    pub(crate) tx: Front<OwnPage, TxRequest, TxResponse>,
    rx: Front<OwnPage, RxRequest, RxResponse>,
    /// The pages it posted, in order.
    posted: VecDeque<RxRequest>,
    /// What it was told of the slots it sent, but for those of extra information.
    pub(crate) statuses: Vec<i16>,
    next: u32,
    ids: u16,
}

impl Guest {
    pub(crate) fn grant(&mut self, memory: &mut Memory, bytes: &[u8]) -> u32 {
        self.next += 1;
        memory.grant(self.domain, self.next, bytes);
        self.next
    }

    /// The reference of the page that was granted last.
    pub(crate) const fn next(&self) -> u32 {
        self.next
    }

    /// Posts pages to receive in.
    pub(crate) fn post(&mut self, memory: &mut Memory, count: usize) {
        for _ in 0..count {
            let reference = self.grant(memory, &[]);
            self.ids = self.ids.wrapping_add(7);
            let request = RxRequest { id: self.ids, pad: 0, reference };
            self.rx.put(&request).expect("room in the receive ring");
            self.posted.push_back(request);
        }
        let _ = self.rx.publish();
    }

    /// How many more pages fit into its receive ring.
    pub(crate) fn room(&self) -> usize {
        self.rx.free() as usize
    }

    /// Sends a frame, cut at these places.
    pub(crate) fn send_as(
        &mut self,
        memory: &mut Memory,
        bytes: &[u8],
        cuts: &[usize],
        flags: Flags,
        gso: Option<Gso>,
    ) {
        let mut starts = vec![0];
        starts.extend(cuts);
        let ends = cuts.iter().copied().chain([bytes.len()]);
        let pieces: Vec<&[u8]> =
            starts.iter().zip(ends).map(|(&start, end)| &bytes[start..end]).collect();
        for (number, piece) in pieces.iter().enumerate() {
            let reference = self.grant(memory, piece);
            let first = number == 0;
            let mut slot = if first { flags } else { Flags::empty() };
            slot.set(Flags::MORE_DATA, number + 1 < pieces.len());
            slot.set(Flags::EXTRA_INFO, first && gso.is_some());
            let size = if first { bytes.len() } else { piece.len() };
            self.put(TxRequest {
                reference,
                offset: 0,
                flags: slot.bits(),
                id: 0,
                size: size as u16,
            });
            if let (true, Some(gso)) = (first, gso) {
                self.put(gso.extra().into());
            }
        }
        let _ = self.tx.publish();
    }

    /// Puts one slot, as it is.
    pub(crate) fn put(&mut self, slot: TxRequest) {
        self.tx.put(&slot).expect("room in the transmit ring");
    }

    /// Sends a frame in one slot.
    pub(crate) fn send(&mut self, memory: &mut Memory, bytes: &[u8]) {
        self.send_as(memory, bytes, &[], Flags::empty(), None);
    }

    /// Takes what it was told of its own frames; tells how many slots that were.
    pub(crate) fn settle(&mut self) -> usize {
        let mut slots = 0;
        while let Some(response) = self.tx.take().expect("an honest backend") {
            slots += 1;
            if response.status != NULL {
                self.statuses.push(response.status);
            }
        }
        slots
    }

    /// Takes the frames that have come.
    pub(crate) fn receive(&mut self, memory: &Memory) -> Vec<Received> {
        let mut frames = Vec::new();
        while let Some(first) = self.next_slot() {
            let (mut response, request) = first;
            let flags = Flags::from_bits_truncate(response.flags);
            let gso = flags.contains(Flags::EXTRA_INFO).then(|| {
                let (extra, _) = self.next_slot().expect("the extra slot");
                Gso::of(&ExtraInfo::from(extra)).expect("a segment's size")
            });
            let mut bytes = Vec::new();
            let mut request = request;
            let mut slots = 0;
            loop {
                assert_eq!(response.id, request.id, "the n-th response answers the n-th request");
                slots += 1;
                let len = usize::try_from(response.status).unwrap_or(0);
                let page = &memory.granted[&(self.domain, request.reference)];
                bytes.extend(&page[usize::from(response.offset)..][..len]);
                if !Flags::from_bits_truncate(response.flags).contains(Flags::MORE_DATA) {
                    break;
                }
                (response, request) = self.next_slot().expect("the rest of the frame");
            }
            assert!(slots <= 18, "a frame in {slots} slots");
            if response.status >= 0 {
                let flags = flags & (Flags::CSUM_BLANK | Flags::DATA_VALIDATED);
                frames.push(Received { bytes, flags, gso });
            }
        }
        frames
    }

    fn next_slot(&mut self) -> Option<(RxResponse, RxRequest)> {
        let response = self.rx.take().expect("an honest backend")?;
        Some((response, self.posted.pop_front().expect("a request for each response")))
    }
}

/// The switch and its guests.
pub(crate) struct World {
    pub(crate) memory: Memory,
    pub(crate) switch: Switch<OwnPage>,
    pub(crate) now: Duration,
    guests: u16,
    pub(crate) notified: Vec<(QueueId, Side)>,
    pub(crate) violations: Vec<(PortId, Violation)>,
}

pub(crate) const EVERYTHING: Takes =
    Takes { chains: true, gso4: true, gso6: true, blank4: true, blank6: true };

impl World {
    pub(crate) fn new() -> Self {
        let own = vec![0; PAGES * PAGE_SIZE];
        Self {
            memory: Memory { own, ..Memory::default() },
            switch: Switch::new(),
            now: Duration::from_secs(1),
            guests: 0,
            notified: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Adds a guest with an address of its own.
    pub(crate) fn guest(&mut self) -> Guest {
        self.guest_as(true, None, EVERYTHING)
    }

    pub(crate) fn guest_as(&mut self, own_mac: bool, rate: Option<Rate>, takes: Takes) -> Guest {
        let [high, low] = (self.guests + 1).to_be_bytes();
        self.guest_at(Mac([0, 0x16, 0x3e, 0, high, low]), own_mac, rate, takes)
    }

    /// Adds a guest with an address that another has.
    pub(crate) fn guest_with_mac_of(&mut self, other: &Guest) -> Guest {
        self.guest_at(other.mac, true, None, EVERYTHING)
    }

    fn guest_at(&mut self, mac: Mac, own_mac: bool, rate: Option<Rate>, takes: Takes) -> Guest {
        self.guests += 1;
        let domain = DomId::new(self.guests).expect("few guests");
        let mut pages = OwnPages::zeroed(2).expect("memory").split();
        let [tx, rx] = [(); 2].map(|()| pages.next().expect("two pages"));
        let fronts = (Front::set_up(tx.clone()), Front::set_up(rx.clone()));
        let config = Config { domain: Some(domain), mac: own_mac.then_some(mac), rate, takes };
        let port = self.switch.attach(config, [Rings { tx, rx }].into_iter()).expect("a port");
        Guest {
            domain,
            port,
            mac,
            tx: fronts.0,
            rx: fronts.1,
            posted: VecDeque::new(),
            statuses: Vec::new(),
            next: 0,
            ids: 0,
        }
    }

    /// Tells the switch of an event of each, and has it work until it has nothing to do.
    pub(crate) fn run(&mut self, guests: &[&Guest]) {
        for guest in guests {
            self.switch.hear(QueueId { port: guest.port, number: 0 });
        }
        for turn in 0.. {
            assert!(turn < 10_000, "the switch comes to no end");
            let more = self.switch.turn(&mut self.memory, self.now);
            self.notified.extend(core::iter::from_fn(|| self.switch.next_notification()));
            while let Some((port, violation)) = self.switch.next_violation() {
                self.violations.push((port, violation));
                self.switch.detach(port);
            }
            if !more {
                return;
            }
        }
    }

    pub(crate) fn dropped(&mut self, guest: &Guest, why: Drop) -> u64 {
        let place = Drop::ALL.iter().position(|&other| other == why).expect("one of all");
        self.switch.counters(guest.port).expect("a port").dropped[place]
    }
}

/// An Ethernet frame of no protocol in particular.
pub(crate) fn frame(to: Mac, from: Mac, len: usize) -> Vec<u8> {
    let mut bytes = [to.0, from.0].concat();
    bytes.extend([0x88, 0xb5]);
    bytes.extend((bytes.len()..len).map(|at| (at * 31) as u8));
    bytes
}
