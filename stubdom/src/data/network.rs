//! The network: rings of guests, their events, and the turns in which the switch serves them.

use alloc::format;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::time::Duration;

use netback::device::{Events as Ports, Queue, Wanted};
use netback::port::{Config, PortId, QueueId, Rings};
use netback::switch::{self, Side};
use netback::{Mac, Violation};
use netfront::handshake::{self, Features};
use stubdom::metrics::{self, Figures};
use stubdom::options::Net;
use stubdom::platform::Platform;
use stubdom::vifs::{Interfaces, Settings};
use xen_sys::event::Channel;
use xen_sys::grant::{GrantMapping, GrantTable, MapError};
use xen_sys::ids::{DomId, Errno, GrantRef, Port};
use xen_sys::page::{Either, OwnPage, OwnPages};
use xenstore_core::DomId as StoreDomId;

use super::figures::{Rest, Shown};
use super::hand::Hand;
use super::lines::place;
use super::own::{self, Accused, Fault, Named, Own, UplinkId};
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
        let hand = Hand::new(pages);
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

    /// Moves frames; gives the number of events sent. `rest` is what there is to show beside the
    /// network's own.
    pub(super) fn turn<'r>(&mut self, now: Duration, rest: &dyn Fn() -> Rest<'r>) -> u64 {
        if !self.has_more && self.due().is_none_or(|due| due > now) {
            return 0;
        }
        let (switch, names, copying) = (&mut self.switch, &self.names, self.hand.done);
        let mut sent = self.own.work(&mut Shown { switch, names, copying }, rest, now);
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

    /// Looks after what no event tells.
    pub(super) fn look_after(&mut self) {
        self.own.retry_lingering();
    }

    /// What there is to show, unless there is not the memory for it.
    pub(super) fn figures<R>(
        &mut self,
        rest: &Rest<'_>,
        now: Duration,
        look: impl FnOnce(&Figures<'_>) -> R,
    ) -> Option<R> {
        let (switch, names, copying) = (&mut self.switch, &self.names, self.hand.done);
        Shown { switch, names, copying }.figures(rest, now, look)
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
        while let Some((id, violation)) = self.switch.next_violation() {
            match self.own.accuse(id, violation) {
                None => return Some((id, violation)),
                Some(Accused::Uplink) => {}
                Some(Accused::Host) => {
                    log::error!("own interface: {violation}; there are no own addresses any more");
                    self.detach(id);
                }
            }
        }
        None
    }

    /// An uplink that is to be ended, as a backend broke a rule.
    pub(super) fn next_broken(&mut self) -> Option<(UplinkId, Fault)> {
        self.own.next_broken()
    }

    /// Gives this domain addresses of its own; `false` if there is no memory for that.
    pub(super) fn start_stack(&mut self, net: Net, mac: Mac, seed: u64, now: Duration) -> bool {
        let switch = (&mut self.switch, &mut self.hand.slabs);
        let port = self.own.start_stack(switch, (net, mac, seed), now);
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
                *place(&mut self.by_port, channel.port().0 as usize) =
                    Some(QueueId { port: id, number });
            }
        }
        *place(&mut self.lines, id.index()) = Some(Lines { id, queues });
        let is_taken = |name: &str| self.names.iter().any(|(_, taken)| taken == name);
        self.names.push((id, metrics::port_name(format!("{mac}"), is_taken)));
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
            Self::TooMany => f.write_str("there is no room for another interface"),
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
