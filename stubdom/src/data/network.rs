//! The network: rings of guests, their events, and the turns in which the switch serves them.

use alloc::format;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::time::Duration;

use netback::device::{Events as Ports, Queue, Wanted};
use netback::place::{Copier, Copy, Place};
use netback::port::{Config, PortId, QueueId, Rings};
use netback::switch::{self, Side};
use netback::{Mac, Violation};
use netfront::handshake::{self, Features};
use netfront::patch::Broken;
use stubdom::options::Net;
use stubdom::platform::Platform;
use stubdom::vifs::{Interfaces, Settings};
use xen_sys::event::Channel;
use xen_sys::grant::copy::{AddError, Batch, Ticket};
use xen_sys::grant::{GrantMapping, GrantTable, MapError, Status};
use xen_sys::ids::{DomId, Errno, GrantRef, Port};
use xen_sys::page::{Either, OwnPage, OwnPages, PAGE_SIZE, Shared};
use xen_sys::ring::shared::Region;
use xenstore_core::DomId as StoreDomId;

use super::own::{self, Named, Own, Slab, Slabs, UplinkId};
use super::traffic::Traffic;

/// A ring: a guest's, or of a frontend of our own.
pub(super) type Ring = Either<GrantMapping, OwnPage>;
/// The switch.
pub(super) type Switch = netback::Switch<Ring>;

/// Every interface, and the switch between them.
pub(super) struct Network {
    switch: Switch,
    hand: Hand,
    own: Own,
    names: Vec<Named>,
    /// By the port's number.
    lines: Vec<Option<Lines>>,
    /// By that of the event channel.
    by_port: Vec<Option<QueueId>>,
    has_more: bool,
}

/// The event channels of an interface, by queue.
struct Lines {
    id: PortId,
    queues: Vec<Line>,
}

enum Line {
    Shared(Channel),
    Split { tx: Channel, rx: Channel },
}

impl Line {
    fn channels(&self) -> impl Iterator<Item = &Channel> {
        match self {
            Self::Shared(channel) => [Some(channel), None],
            Self::Split { tx, rx } => [Some(tx), Some(rx)],
        }
        .into_iter()
        .flatten()
    }

    fn of(&self, side: Side) -> &Channel {
        match (self, side) {
            (Self::Shared(channel), _)
            | (Self::Split { tx: channel, .. }, Side::Tx)
            | (Self::Split { rx: channel, .. }, Side::Rx) => channel,
        }
    }
}

impl Network {
    /// A network without interfaces; `None` without memory.
    pub(super) fn new() -> Option<Self> {
        let pages = OwnPages::zeroed(switch::PAGES)?;
        let hand = Hand { pages, slabs: Slabs::default(), done: Copying::default() };
        Some(Self {
            switch: Switch::new(),
            hand,
            own: Own::default(),
            names: Vec::new(),
            lines: Vec::new(),
            by_port: Vec::new(),
            has_more: false,
        })
    }

    /// There was an event; `false` if its port is not of an interface.
    pub(super) fn hear(&mut self, port: Port) -> bool {
        match self.by_port.get(port.0 as usize) {
            Some(&Some(id)) => self.switch.hear(id),
            _ if self.own.hear(port) => {}
            _ => return false,
        }
        self.has_more = true;
        true
    }

    /// Moves frames; gives the number of events sent.
    pub(super) fn turn(&mut self, now: Duration) -> u64 {
        if !self.has_more && self.due().is_none_or(|due| due > now) {
            return 0;
        }
        let mut sent = self.own.work(&mut self.switch, &self.names, now);
        let has_more = self.switch.turn(&mut self.hand, now);
        while let Some((id, side)) = self.switch.next_notification() {
            let lines = self.lines.get(id.port.index()).and_then(Option::as_ref);
            let queue = lines.and_then(|lines| lines.queues.get(usize::from(id.number)));
            match queue {
                Some(queue) => {
                    queue.of(side).notify();
                    sent += 1;
                }
                // What has no event channel is a port of our own.
                None => self.own.hear_switch(id.port),
            }
        }
        self.has_more = has_more || self.own.has_news;
        sent
    }

    /// What moving frames took.
    pub(super) const fn copying(&self) -> Copying {
        self.hand.done
    }

    /// Whether there is something to do at once.
    pub(super) const fn has_more(&self) -> bool {
        self.has_more
    }

    /// When there is something to do without an event.
    pub(super) fn due(&self) -> Option<Duration> {
        self.switch.due().into_iter().chain(self.own.due()).min()
    }

    /// Whether an interface broke a rule.
    pub(super) fn has_violation(&self) -> bool {
        self.switch.has_violation() || self.own.has_broken()
    }

    /// An interface that broke a rule, and is to be disconnected.
    pub(super) fn next_violation(&mut self) -> Option<(PortId, Violation)> {
        self.switch.next_violation()
    }

    /// An uplink that is to be ended, as a backend broke a rule.
    pub(super) fn next_broken(&mut self) -> Option<(UplinkId, Broken)> {
        self.own.next_broken()
    }

    /// Gives this domain addresses of its own; `false` if there is no memory for that.
    pub(super) fn start_stack(
        &mut self,
        platform: &Platform,
        net: Net,
        mac: Mac,
        seed: u64,
        now: Duration,
    ) -> bool {
        let switch = (&mut self.switch, &mut self.hand.slabs);
        let port = self.own.start_stack(platform, switch, (net, mac, seed), now);
        self.names.extend(port.map(|port| (port, "stack".into())));
        self.has_more = true;
        port.is_some()
    }

    pub(super) fn set_up_uplink(
        &mut self,
        platform: &Platform,
        grants: &'static GrantTable,
        domain: DomId,
        features: Features,
    ) -> Result<(UplinkId, handshake::Rings), own::Refusal> {
        let switch = (&mut self.switch, &mut self.hand.slabs);
        let (id, port, rings) = self.own.set_up(platform, grants, switch, domain, features)?;
        self.names.push((port, format!("uplink{id}")));
        Ok((id, rings))
    }

    pub(super) fn begin_uplink(&mut self, id: UplinkId) {
        self.own.begin(id);
        self.has_more = true;
    }

    pub(super) fn end_uplink(&mut self, id: UplinkId) {
        if let Some(port) = self.own.end(&mut self.hand.slabs, id) {
            self.detach(port);
        }
    }

    fn detach(&mut self, id: PortId) {
        self.switch.detach(id);
        self.names.retain(|&(port, _)| port != id);
        self.has_more = true;
    }

    fn connect(
        &mut self,
        platform: &Platform,
        domain: DomId,
        settings: &Settings,
        wanted: &Wanted,
    ) -> Result<PortId, Refusal> {
        let map = |reference: GrantRef| {
            GrantMapping::map(platform.window, domain, reference).map(Either::First)
        };
        let mut rings = Vec::with_capacity(wanted.queues.len());
        for queue in &wanted.queues {
            let Rings { tx, rx } = queue.rings();
            rings.push(Rings { tx: map(tx)?, rx: map(rx)? });
        }
        let mut queues = Vec::with_capacity(wanted.queues.len());
        for queue in &wanted.queues {
            queues.push(bind(platform, domain, queue)?);
        }
        let Settings { mac, rate } = *settings;
        let config = Config { domain: Some(domain), mac: Some(mac), rate, takes: wanted.takes };
        let id = self.switch.attach(config, rings.into_iter()).ok_or(Refusal::TooMany)?;
        for (number, line) in (0..).zip(&queues) {
            for channel in line.channels() {
                *super::traffic::place(&mut self.by_port, channel.port().0 as usize) =
                    Some(QueueId { port: id, number });
            }
        }
        *super::traffic::place(&mut self.lines, id.index()) = Some(Lines { id, queues });
        self.names.push((id, format!("{mac}")));
        self.has_more = true;
        Ok(id)
    }

    fn disconnect(&mut self, id: PortId) {
        let lines = self.lines.get_mut(id.index());
        let Some(lines) = lines.and_then(|lines| lines.take_if(|lines| lines.id == id)) else {
            return;
        };
        for channel in lines.queues.iter().flat_map(Line::channels) {
            if let Some(place) = self.by_port.get_mut(channel.port().0 as usize) {
                *place = None;
            }
        }
        self.detach(id);
    }
}

fn bind(platform: &Platform, domain: DomId, queue: &Queue) -> Result<Line, Errno> {
    let mut events = platform.events.borrow_mut();
    Ok(match queue.events {
        Ports::Shared(port) => Line::Shared(events.bind_interdomain(domain, port)?),
        Ports::Split { tx, rx } => Line::Split {
            tx: events.bind_interdomain(domain, tx)?,
            rx: events.bind_interdomain(domain, rx)?,
        },
    })
}

/// Why an interface is not connected.
pub(super) enum Refusal {
    NoDomain,
    Map(MapError),
    Port(Errno),
    TooMany,
}

impl From<MapError> for Refusal {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Self {
        Self::Port(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDomain => f.write_str("no such domain"),
            Self::Map(error) => write!(f, "its rings cannot be mapped: {error}"),
            Self::Port(error) => write!(f, "no event channel: {error}"),
            Self::TooMany => f.write_str("there are too many interfaces"),
        }
    }
}

/// The interfaces, to be connected and disconnected by request. They are borrowed for no longer than
/// that, as they are served while the store is waited for.
pub(super) struct ByDevice<'t, 'a>(pub(super) &'t RefCell<Traffic<'a>>);

impl Interfaces for ByDevice<'_, '_> {
    type Id = PortId;
    type Refusal = Refusal;

    fn connect(
        &mut self,
        guest: StoreDomId,
        settings: &Settings,
        wanted: &Wanted,
    ) -> Result<PortId, Refusal> {
        let domain = DomId::new(guest.0).ok_or(Refusal::NoDomain)?;
        let mut traffic = self.0.borrow_mut();
        let (platform, network) = traffic.network();
        network.connect(platform, domain, settings, wanted)
    }

    fn disconnect(&mut self, id: PortId) {
        self.0.borrow_mut().network().1.disconnect(id);
    }
}

/// Copies of one call of Xen's.
const CALL: usize = 64;

/// Xen's hand, and the pages that it reaches into: the switch's, and behind them those of ports of
/// our own.
struct Hand {
    pages: OwnPages,
    slabs: Slabs,
    done: Copying,
}

/// What was asked of Xen since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copying {
    /// Calls.
    pub(super) calls: u64,
    /// Copies made by them.
    pub(super) copies: u64,
}

impl Copier for Hand {
    fn copy(&mut self, copies: &mut [Copy]) {
        for copies in copies.chunks_mut(CALL) {
            self.done.calls += 1;
            self.done.copies += copies.len() as u64;
            let mut batch = Batch::<{ 2 * CALL }>::new();
            let mut tickets = heapless::Vec::<Result<Ticket, AddError>, CALL>::new();
            for copy in &*copies {
                let _ = tickets.push(self.add(&mut batch, copy));
            }
            let ran = batch.run();
            for (copy, ticket) in copies.iter_mut().zip(&tickets) {
                copy.made = match (ran, ticket) {
                    (Ok(()), &Ok(ticket)) => batch.status(ticket),
                    (Ok(()), Err(_)) => Err(Status::BadCopyArgument),
                    (Err(_), _) => Err(Status::GeneralError),
                };
            }
        }
    }

    fn read(&self, at: u32, bytes: &mut [u8]) {
        Region::of(&self.pages).copy_out(at as usize, bytes);
    }

    fn write(&mut self, at: u32, bytes: &[u8]) {
        Region::of(&self.pages).copy_in(at as usize, bytes);
    }
}

impl Hand {
    fn add<'a>(
        &'a self,
        batch: &mut Batch<'a, { 2 * CALL }>,
        copy: &Copy,
    ) -> Result<Ticket, AddError> {
        let Copy { from, to, len, .. } = *copy;
        match (from, to) {
            (Place::Foreign(from), Place::Foreign(to)) => batch.relay(from, to, len),
            (Place::Foreign(from), Place::Own(at)) => match self.find(at, len)? {
                (Memory::Switch, at) => batch.fetch(from, &self.pages, at, len),
                (Memory::Slab(Slab::Own(pages)), at) => {
                    batch.fetch(from, &pages[at / PAGE_SIZE], at % PAGE_SIZE, len)
                }
                (Memory::Slab(Slab::Lent(pages)), at) => batch.fetch(from, &**pages, at, len),
            },
            (Place::Own(at), Place::Foreign(to)) => match self.find(at, len)? {
                (Memory::Switch, at) => batch.store(&self.pages, at, to, len),
                (Memory::Slab(Slab::Own(pages)), at) => {
                    batch.store(&pages[at / PAGE_SIZE], at % PAGE_SIZE, to, len)
                }
                (Memory::Slab(Slab::Lent(pages)), at) => batch.store(&**pages, at, to, len),
            },
            (Place::Own(from), Place::Own(to)) => {
                let ((from, from_at), (to, to_at)) =
                    (self.region(from, len)?, self.region(to, len)?);
                from.copy_to(from_at, to, to_at, len.into());
                batch.nothing()
            }
        }
    }

    /// Where a place of ours is, unless there is none, or it goes beyond its page.
    fn find(&self, at: u32, len: u16) -> Result<(Memory<'_>, usize), AddError> {
        let at = at as usize;
        let end = at + usize::from(len);
        if end <= self.pages.len() {
            return Ok((Memory::Switch, at));
        }
        let beyond = at.checked_sub(self.pages.len()).ok_or(AddError::OutsidePage)?;
        let is_inside = at % PAGE_SIZE + usize::from(len) <= PAGE_SIZE;
        let found = self.slabs.find(beyond / PAGE_SIZE).filter(|_| is_inside);
        let (slab, page) = found.ok_or(AddError::OutsidePage)?;
        let count = match slab {
            Slab::Own(pages) => pages.len(),
            Slab::Lent(pages) => pages.len() / PAGE_SIZE,
        };
        if page < count {
            Ok((Memory::Slab(slab), page * PAGE_SIZE + at % PAGE_SIZE))
        } else {
            Err(AddError::OutsidePage)
        }
    }

    /// The same, to be looked into.
    fn region(&self, at: u32, len: u16) -> Result<(Region<'_>, usize), AddError> {
        Ok(match self.find(at, len)? {
            (Memory::Switch, at) => (Region::of(&self.pages), at),
            (Memory::Slab(Slab::Own(pages)), at) => {
                (Region::of(&pages[at / PAGE_SIZE]), at % PAGE_SIZE)
            }
            (Memory::Slab(Slab::Lent(pages)), at) => (Region::of(&**pages), at),
        })
    }
}

/// Memory of ours.
enum Memory<'a> {
    /// The switch's own.
    Switch,
    /// Of a port.
    Slab(&'a Slab),
}
