//! This domain's own ports of the switch: uplinks, and its stack of TCP/IP.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::time::Duration;

use netback::port::{Config, PortId, QueueId, Rings, Takes};
use netback::{Mac, Violation};
use netfront::Vif;
use netfront::device::{self, Device};
use netfront::handshake::{self, Features};
use netfront::patch::{self, Broken, Patch};
use stubdom::options::Net;
use stubdom::platform::Platform;
use stubdom::stack::Stack;
use stubdom::uplinks::Frontends;
use xen_sys::event::Channel;
use xen_sys::grant::{Access, GrantError, GrantTable, Granted};
use xen_sys::ids::{DomId, Errno, Port};
use xen_sys::page::{Either, OwnPage, OwnPages};
use xenstore_core::DomId as StoreDomId;

use super::figures::{Rest, Shown};
use super::network::{Ring, Switch};
use super::slabs::{SLAB, Slab, Slabs};
use super::traffic::Traffic;

/// Pages of an uplink in one direction: seven frames of the largest.
pub(super) const UPLINK: usize = 128;
/// Pages of the stack in one direction.
const STACK: usize = 32;
/// How many pages or runs of pages one backend may still map of uplinks that ended: those of four.
const LINGERING_MAX: usize = 4 * 3;

/// Names an uplink.
pub(super) type UplinkId = u32;

struct Uplink {
    id: UplinkId,
    /// Of its backend.
    domain: DomId,
    patch: Patch<Granted, OwnPage>,
    port: PortId,
    line: Channel,
    frames: Rc<Granted>,
    slab: usize,
    /// Its backend is there, and keeps the rules.
    is_at_work: bool,
    /// There was an event of one of its rings.
    has_news: bool,
}

struct Host {
    stack: Stack,
    device: Device<OwnPage, OwnPage>,
    port: PortId,
    due: Option<Duration>,
    /// There was an event of its rings.
    has_news: bool,
}

/// What is wrong with an uplink.
pub(super) enum Fault {
    /// One of its ends broke a rule of rings.
    Rings(Broken),
    /// Its port broke one of the switch.
    Port(Violation),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rings(broken) => broken.fmt(f),
            Self::Port(violation) => write!(f, "its own port: {violation}"),
        }
    }
}

/// Whose port of ours it is.
pub(super) enum Accused {
    Uplink,
    Host,
}

/// A port and its name among the figures.
pub(super) type Named = (PortId, String);

/// All of them.
#[derive(Default)]
pub(super) struct Own {
    host: Option<Host>,
    uplinks: Vec<Uplink>,
    made: UplinkId,
    broken: VecDeque<(UplinkId, Fault)>,
    /// Pages that a backend, which is that domain, still maps though its uplink is gone.
    lingering: Vec<(DomId, Granted)>,
    /// Something is to be done.
    pub(super) has_news: bool,
}

impl Own {
    /// There was an event; `false` if its port is not of an uplink.
    pub(super) fn hear(&mut self, port: Port) -> bool {
        let found = self.uplinks.iter_mut().find(|uplink| uplink.line.port() == port);
        let is_own = found.map(|uplink| uplink.has_news = true).is_some();
        self.has_news |= is_own;
        is_own
    }

    /// The switch has news for a port of ours.
    pub(super) fn hear_switch(&mut self, port: PortId) {
        for uplink in self.uplinks.iter_mut().filter(|uplink| uplink.port == port) {
            uplink.has_news = true;
        }
        for host in self.host.iter_mut().filter(|host| host.port == port) {
            host.has_news = true;
        }
        self.has_news = true;
    }

    /// When there is something to do without an event.
    pub(super) fn due(&self) -> Option<Duration> {
        self.host.as_ref().and_then(|host| host.due)
    }

    /// Whether a device broke a rule.
    pub(super) fn has_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    /// A device that broke a rule, and is to be ended.
    pub(super) fn next_broken(&mut self) -> Option<(UplinkId, Fault)> {
        self.broken.pop_front()
    }

    /// The switch has ended a port, which no guest can bring about. Notes it if the port is an
    /// uplink's; gives up the addresses if it is theirs, and then it is to be detached. `None` if it
    /// is not ours.
    pub(super) fn accuse(&mut self, port: PortId, violation: Violation) -> Option<Accused> {
        if let Some(uplink) = self.uplinks.iter_mut().find(|uplink| uplink.port == port) {
            uplink.is_at_work = false;
            self.broken.push_back((uplink.id, Fault::Port(violation)));
            return Some(Accused::Uplink);
        }
        self.host.take_if(|host| host.port == port).map(|_| Accused::Host)
    }

    /// Moves frames between the switch and what is behind; gives the number of events sent. `rest`
    /// is what there is to show beside the network's own.
    pub(super) fn work<'r>(
        &mut self,
        shown: &mut Shown<'_>,
        rest: &dyn Fn() -> Rest<'r>,
        now: Duration,
    ) -> u64 {
        let mut sent = 0;
        self.has_news = false;
        for uplink in self.uplinks.iter_mut().filter(|uplink| uplink.is_at_work && uplink.has_news)
        {
            uplink.has_news = false;
            match uplink.patch.carry() {
                Ok(turn) => {
                    if turn.notify_outer {
                        uplink.line.notify();
                        sent += 1;
                    }
                    if turn.notify_inner {
                        shown.switch.hear(QueueId { port: uplink.port, number: 0 });
                    }
                    uplink.has_news = turn.has_more;
                    self.has_news |= turn.has_more;
                }
                Err(broken) => {
                    uplink.is_at_work = false;
                    self.broken.push_back((uplink.id, Fault::Rings(broken)));
                }
            }
        }
        let host = self.host.iter_mut();
        for host in host.filter(|host| host.has_news || host.due.is_some_and(|due| due <= now)) {
            host.has_news = host.work(shown, rest, now);
            self.has_news |= host.has_news;
        }
        sent
    }

    /// Gives this domain a stack of its own, on a port.
    pub(super) fn start_stack(
        &mut self,
        (switch, slabs): (&mut Switch, &mut Slabs),
        (net, mac, seed): (Net, Mac, u64),
        now: Duration,
    ) -> Option<PortId> {
        let (to_receive, to_send) = (OwnPages::zeroed(STACK)?, OwnPages::zeroed(STACK)?);
        let pages: Vec<OwnPage> = to_receive.split().chain(to_send.split()).collect();
        let slab = slabs.admit(Slab::Own(pages.clone()));
        let mut named = pages.into_iter().enumerate().map(|(number, memory)| device::Page {
            memory,
            reference: Slabs::reference(slab, number),
        });
        let to_receive = named.by_ref().take(STACK).collect();
        let takes = Takes { chains: true, gso4: true, gso6: true, blank4: true, blank6: true };
        let (vif, port) = plug(switch, Some(mac), takes)?;
        let mut device = Device::new(vif, to_receive, named.collect());
        let stack = Stack::new(net, mac.0, seed, &mut device, now);
        self.host = Some(Host { stack, device, port, due: Some(now), has_news: true });
        self.has_news = true;
        Some(port)
    }

    /// Sets up an uplink for a backend.
    pub(super) fn set_up(
        &mut self,
        platform: &Platform,
        grants: &'static GrantTable,
        (switch, slabs): (&mut Switch, &mut Slabs),
        domain: DomId,
        features: Features,
    ) -> Result<(UplinkId, PortId, handshake::Rings), Refusal> {
        self.retry_lingering();
        if self.lingering.iter().filter(|(whose, _)| *whose == domain).count() >= LINGERING_MAX {
            return Err(Refusal::Lingering);
        }
        let grant = |pages| {
            let pages = OwnPages::zeroed(pages).ok_or(Refusal::NoMemory)?;
            grants.grant(domain, pages, Access::ReadWrite).map_err(Refusal::Grant)
        };
        let (transmit, receive, frames) = (grant(1)?, grant(1)?, Rc::new(grant(SLAB)?));
        let name = |ring: &Granted| ring.references().first().map_or(0, |reference| reference.0);
        let (transmit_name, receive_name) = (name(&transmit), name(&receive));
        let line = platform.events.borrow_mut().alloc_unbound(domain).map_err(Refusal::Port)?;
        let Features { sg, gso_tcp4, gso_tcp6, ipv6_csum } = features;
        let takes =
            Takes { chains: sg, gso4: gso_tcp4, gso6: gso_tcp6, blank4: true, blank6: ipv6_csum };
        let (inner, port) = plug(switch, None, takes).ok_or(Refusal::NoMemory)?;
        let slab = slabs.admit(Slab::Lent(Rc::clone(&frames)));
        let references = frames.references();
        let (into, out) = references.split_at(UPLINK);
        let own = |number| Slabs::reference(slab, number);
        let inward: Box<[patch::Page]> = (0..)
            .zip(into)
            .map(|(number, granted)| patch::Page { filled_as: granted.0, sent_as: own(number) })
            .collect();
        let outward: Box<[patch::Page]> = (UPLINK..)
            .zip(out)
            .map(|(number, granted)| patch::Page { filled_as: own(number), sent_as: granted.0 })
            .collect();
        let patch = Patch::new(Vif::set_up(transmit, receive), inner, inward, outward);
        self.made += 1;
        let (id, event) = (self.made, line.port().0);
        self.uplinks.push(Uplink {
            id,
            domain,
            patch,
            port,
            line,
            frames,
            slab,
            is_at_work: false,
            has_news: true,
        });
        let rings =
            handshake::Rings { transmit: transmit_name, receive: receive_name, port: event };
        Ok((id, port, rings))
    }

    /// The backend of an uplink is there.
    pub(super) fn begin(&mut self, id: UplinkId) {
        for uplink in self.uplinks.iter_mut().filter(|uplink| uplink.id == id) {
            (uplink.is_at_work, uplink.has_news) = (true, true);
            self.has_news = true;
        }
    }

    /// Ends an uplink; gives its port, which is to be detached.
    pub(super) fn end(&mut self, slabs: &mut Slabs, id: UplinkId) -> Option<PortId> {
        let number = self.uplinks.iter().position(|uplink| uplink.id == id)?;
        let Uplink { domain, patch, port, frames, slab, .. } = self.uplinks.swap_remove(number);
        slabs.dismiss(slab);
        let (outer, _, _) = patch.part();
        // Nobody else has the frames now.
        let all = outer.into_memory().into_iter().chain(Rc::into_inner(frames));
        self.lingering.extend(all.map(|granted| (domain, granted)));
        self.retry_lingering();
        Some(port)
    }

    /// Takes pages back that a backend has unmapped by now.
    pub(super) fn retry_lingering(&mut self) {
        let lingering = core::mem::take(&mut self.lingering);
        let still = lingering
            .into_iter()
            .filter_map(|(domain, granted)| granted.end().err().map(|mapped| (domain, mapped)));
        self.lingering.extend(still);
    }
}

impl Host {
    /// Moves frames; tells whether there are more.
    fn work<'r>(
        &mut self,
        shown: &mut Shown<'_>,
        rest: &dyn Fn() -> Rest<'r>,
        now: Duration,
    ) -> bool {
        let port = self.port;
        let page = || shown.figures(&rest(), now, |figures| figures.page()).flatten();
        self.due = self.stack.poll(now, &mut self.device, page);
        if self.device.publish() {
            shown.switch.hear(QueueId { port, number: 0 });
        }
        // The other end is our own switch; if it breaks the rules there are no frames any more.
        self.device.has_more().unwrap_or(false)
    }
}

/// A frontend on a new port.
fn plug(switch: &mut Switch, mac: Option<Mac>, takes: Takes) -> Option<(Vif<OwnPage>, PortId)> {
    let mut rings = OwnPages::zeroed(2)?.split();
    let (tx, rx) = (rings.next()?, rings.next()?);
    let vif = Vif::set_up(tx.clone(), rx.clone());
    let rings = Rings::<Ring> { tx: Either::Second(tx), rx: Either::Second(rx) };
    let config = Config { domain: None, mac, rate: None, takes };
    Some((vif, switch.attach(config, [rings].into_iter())?))
}

/// Why there is no uplink.
pub(super) enum Refusal {
    NoDomain,
    NoMemory,
    Grant(GrantError),
    Port(Errno),
    Lingering,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDomain => f.write_str("its backend is no domain"),
            Self::NoMemory => f.write_str("no memory for its rings and pages"),
            Self::Grant(error) => write!(f, "its pages cannot be granted: {error}"),
            Self::Port(error) => write!(f, "no event channel: {error}"),
            Self::Lingering => f.write_str("its backend still maps the pages of earlier uplinks"),
        }
    }
}

/// The uplinks, to be set up and ended by request. They are borrowed for no longer than that, as
/// they are served while the store is waited for.
pub(super) struct ByUplink<'t, 'a>(
    pub(super) &'t RefCell<Traffic<'a>>,
    pub(super) &'static GrantTable,
);

impl Frontends for ByUplink<'_, '_> {
    type Id = UplinkId;
    type Refusal = Refusal;

    fn set_up(
        &mut self,
        backend: StoreDomId,
        features: Features,
    ) -> Result<(UplinkId, handshake::Rings), Refusal> {
        let domain = DomId::new(backend.0).ok_or(Refusal::NoDomain)?;
        let mut traffic = self.0.borrow_mut();
        let (platform, network) = traffic.network();
        network.set_up_uplink(platform, self.1, domain, features)
    }

    fn begin(&mut self, id: UplinkId) {
        self.0.borrow_mut().network().1.begin_uplink(id);
    }

    fn end(&mut self, id: UplinkId) {
        self.0.borrow_mut().network().1.end_uplink(id);
    }
}
