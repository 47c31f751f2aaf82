//! The channels: their memory, their ports, and the turns in which the broker serves them.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::time::Duration;

use databack::ask::Ask;
use databack::broker::{self, Broker, ChannelId, Ended};
use databack::policy::Owner;
use databack::vchan::{self, Peer, Sizes};
use stubdom::activity::Activity;
use stubdom::asks::{Endpoint, Endpoints};
use stubdom::complaints::Complaints;
use stubdom::metrics::Figures;
use stubdom::platform::{Platform, refuse};
use xen_pvh_boot::{heap, idle};
use xen_sys::clock::{self, SystemTime};
use xen_sys::event::Status;
use xen_sys::grant::{Access, GrantError, GrantTable, Granted};
use xen_sys::ids::{DomId, Errno, Port};
use xen_sys::page::OwnPages;
use xenstore_core::DomId as StoreDomId;

use super::figures::Rest;
use super::lines::{Line, Lines};
use super::network::Network;

/// What there was besides the channels' events.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Something at the store's ring.
    pub(super) store: bool,
    /// A deadline has passed.
    pub(super) deadline: bool,
}

/// Every channel, and what waits to be done for them.
pub(super) struct Traffic<'a> {
    platform: &'a Platform,
    store: Port,
    grants: &'static GrantTable,
    broker: Broker<Granted>,
    network: Network,
    lines: Lines,
    /// Channels with something to do, each once.
    ready: VecDeque<ChannelId>,
    ended: VecDeque<(ChannelId, Ended)>,
    /// Pages that somebody still maps though their channel is gone.
    lingering: Vec<(DomId, Sizes, Granted)>,
    complaints: Complaints,
    activity: Activity,
    /// Xen's version.
    xen: String,
    started: SystemTime,
    /// When the broker wants to be called.
    due: Option<Duration>,
    /// When the owner of all this wants to.
    alarm: SystemTime,
    /// When Xen was asked for an event.
    timer: Option<SystemTime>,
}

impl<'a> Traffic<'a> {
    pub(super) fn new(platform: &'a Platform, store: Port, grants: &'static GrantTable) -> Self {
        Self {
            platform,
            store,
            grants,
            // Of what is there for sure: more, up to the domain's maximum, the host may not have.
            broker: Broker::new(broker::Limits::within(heap::statistics().free())),
            network: Network::new()
                .unwrap_or_else(|| refuse(format_args!("no memory for the heads of frames"))),
            lines: Lines::default(),
            ready: VecDeque::new(),
            ended: VecDeque::new(),
            lingering: Vec::new(),
            complaints: Complaints::default(),
            activity: Activity::default(),
            xen: format!("{}", platform.xen),
            started: platform.clock.now(),
            due: None,
            alarm: SystemTime::default(),
            timer: None,
        }
    }

    /// The broker, to be told or asked what needs no ring.
    pub(super) fn broker(&mut self) -> &mut Broker<Granted> {
        &mut self.broker
    }

    /// The network, and what it needs to be changed.
    pub(super) fn network(&mut self) -> (&Platform, &mut Network) {
        (self.platform, &mut self.network)
    }

    /// How long this domain has been at work.
    pub(super) fn now(&self) -> Duration {
        self.platform.clock.now().since(self.started)
    }

    /// What there is to show, unless there is not the memory for it.
    pub(super) fn figures<R>(&mut self, look: impl FnOnce(&Figures<'_>) -> R) -> Option<R> {
        let now = self.now();
        let Self { network, broker, activity, xen, .. } = self;
        network.figures(&rest(broker, *activity, xen), now, look)
    }

    /// From then on [`wait`](Self::wait) returns.
    pub(super) fn wake_at(&mut self, alarm: SystemTime) {
        self.alarm = alarm;
    }

    /// Serves channels until there is something else to do: at the store's ring, by the clock, or
    /// for a channel that has ended.
    pub(super) fn wait(&mut self) -> Seen {
        loop {
            let seen = self.turn();
            if seen.store || seen.deadline || self.has_ended() {
                return seen;
            }
            self.sleep(Some(self.alarm));
        }
    }

    /// Whether a channel or an interface has ended by itself.
    fn has_ended(&self) -> bool {
        !self.ended.is_empty() || self.network.has_violation()
    }

    /// Serves channels until there is something at the store's ring.
    pub(super) fn wait_for_store(&mut self) {
        while !self.turn().store {
            self.sleep(None);
        }
    }

    /// A channel that has ended by itself and is to be closed.
    pub(super) fn next_ended(&mut self) -> Option<(ChannelId, Ended)> {
        self.ended.pop_front()
    }

    /// Looks after what no event tells: clients whose domain went without a word, and pages that
    /// were still mapped.
    pub(super) fn look_after(&mut self) {
        for line in self.lines.by_channel.iter().flatten() {
            // A client that was there and closed, or died, leaves the port waiting again.
            let left = matches!(line.channel.status(), Ok(Status::Unbound(_)));
            if left && self.broker.peer(line.id) == Some(Peer::Here) {
                self.ended.push_back((line.id, Ended::Closed));
            }
        }
        self.retry_lingering();
        self.network.look_after();
        self.complaints.rest();
    }

    /// Takes pages back whose client has unmapped them by now.
    fn retry_lingering(&mut self) {
        let lingering = core::mem::take(&mut self.lingering);
        for (domain, sizes, granted) in lingering {
            self.give_back(domain, sizes, granted);
        }
    }

    /// Takes the events that are pending and gives each channel that has something to do a turn.
    fn turn(&mut self) -> Seen {
        let mut seen = Seen::default();
        self.activity.turns += 1;
        let mut events = self.platform.events.borrow_mut();
        // Guests that never stop to send them have no more than their part of a turn.
        for _ in 0..TURN_EVENTS {
            let Some(port) = events.next() else { break };
            if port == self.store {
                seen.store = true;
            } else if let Some(id) = self.lines.at(port) {
                self.activity.events += 1;
                self.lines.enlist(id, &mut self.ready);
            } else if self.network.hear(port) {
                self.activity.events += 1;
            } else {
                // The timer's; it has to be set again.
                self.timer = None;
            }
        }
        drop(events);
        // Once a turn: on some hosts Xen has to be asked for it.
        let clock = self.platform.clock.now();
        let now = clock.since(self.started);
        if self.due.is_some_and(|due| due <= now) {
            self.due = self.broker.tick(now);
        }
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else { break };
            if let Some(line) = self.lines.find(id) {
                line.is_ready = false;
            }
            if self.broker.serve(id, now) {
                self.lines.enlist(id, &mut self.ready);
            }
        }
        self.settle(now);
        let Self { network, broker, activity, xen, .. } = self;
        let rest = || rest(broker, *activity, xen);
        self.activity.notifications += network.turn(now, &rest);
        seen.deadline = clock >= self.alarm;
        seen
    }

    /// Sends what events are due, and notes who has ended and until when all may sleep.
    fn settle(&mut self, now: Duration) {
        while let Some(id) = self.broker.next_notification() {
            if let Some(line) = self.lines.find(id) {
                line.channel.notify();
                self.activity.notifications += 1;
            }
        }
        while let Some((id, ended)) = self.broker.next_ended() {
            if let (Ended::Violation(violation), Some(owner)) = (ended, self.broker.owner(id)) {
                self.complaints.note(owner.domain, format_args!("{violation}"));
            }
            self.ended.push_back((id, ended));
        }
        self.due = self.broker.tick(now);
    }

    /// Sleeps until an event comes, or something is due, or the alarm is, if there is one.
    fn sleep(&mut self, alarm: Option<SystemTime>) {
        let busy = !self.ready.is_empty() || self.network.has_more();
        if busy || !self.platform.events.borrow().nothing_pending() {
            return;
        }
        let due = self.due.into_iter().chain(self.network.due()).min();
        let next = due.map(|due| self.started.after(due)).into_iter().chain(alarm).min();
        if self.timer != next {
            if let Err(error) = clock::set_timer(next) {
                log::warn!("no timer: {error}");
            }
            self.timer = next;
        }
        idle();
        self.activity.wakeups += 1;
    }

    fn give_back(&mut self, domain: DomId, sizes: Sizes, granted: Granted) {
        match granted.end() {
            Ok(_) => self.broker.freed(domain, sizes),
            Err(mapped) => self.lingering.push((domain, sizes, mapped)),
        }
    }

    fn make(&mut self, owner: Owner, ask: &Ask) -> Result<Endpoint<ChannelId>, Refusal> {
        let domain = owner.domain;
        self.retry_lingering();
        self.broker.admit(&owner, &ask.kind, ask.sizes)?;
        if self.lingering.iter().filter(|(whose, ..)| *whose == domain).count() >= LINGERING_MAX {
            return Err(Refusal::Lingering);
        }
        // All may have something to do at once, and are not to allocate for that.
        let most = self.lines.by_channel.len() + 1;
        self.ready.try_reserve(most).map_err(|_| Refusal::NoMemory)?;
        let pages = OwnPages::zeroed(ask.sizes.pages()).ok_or(Refusal::NoMemory)?;
        let granted = self.grants.grant(domain, pages, Access::ReadWrite)?;
        let references: Vec<u32> =
            granted.references().iter().map(|reference| reference.0).collect();
        let (&ring, rest) = granted.references().split_first().ok_or(Refusal::NoMemory)?;
        let rest = &references[references.len() - rest.len()..];
        let line = self.platform.events.borrow_mut().alloc_unbound(domain)?;
        let end = vchan::End::serve(granted, ask.sizes, rest.iter().copied());
        let opened = self.broker.open(owner, ask.kind.clone(), end);
        let id = opened.map_err(|_| broker::Refusal::NoMemory)?;
        let port = line.port();
        self.lines.insert(Line { id, channel: line, is_ready: false });
        Ok(Endpoint { id, ring, port })
    }

    fn end(&mut self, id: ChannelId) {
        let line = self.lines.remove(id);
        let owner = self.broker.owner(id).map(|owner| owner.domain);
        if let (Some(owner), Some(mut end)) = (owner, self.broker.close(id)) {
            end.close();
            if let Some(line) = &line {
                line.channel.notify();
            }
            self.give_back(owner, end.sizes(), end.into_memory());
        }
        // Whom it concerns hears of it now.
        self.settle(self.now());
    }
}

/// What there is to show beside the switch's.
fn rest<'a>(broker: &Broker<Granted>, activity: Activity, xen: &'a str) -> Rest<'a> {
    Rest { xen, activity, channels: broker.figures() }
}

/// Events that one turn takes at most.
const TURN_EVENTS: usize = 1024;

/// How many channels' pages a domain may keep mapped though their channel is gone.
const LINGERING_MAX: usize = 4;

/// Why there is no channel.
pub(super) enum Refusal {
    Broker(broker::Refusal),
    NoMemory,
    Grant(GrantError),
    Port(Errno),
    Lingering,
}

impl From<broker::Refusal> for Refusal {
    fn from(refusal: broker::Refusal) -> Self {
        Self::Broker(refusal)
    }
}

impl From<GrantError> for Refusal {
    fn from(error: GrantError) -> Self {
        Self::Grant(error)
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
            Self::Broker(refusal) => refusal.fmt(f),
            Self::NoMemory => f.write_str("no memory for its rings"),
            Self::Grant(error) => write!(f, "its rings cannot be granted: {error}"),
            Self::Port(error) => write!(f, "no event channel: {error}"),
            Self::Lingering => f.write_str("this domain still maps the rings of earlier channels"),
        }
    }
}

/// The channels, to be opened and closed by request. They are borrowed for no longer than that, as
/// they are served while the store is waited for.
pub(super) struct ByRequest<'t, 'a>(pub(super) &'t RefCell<Traffic<'a>>);

impl Endpoints for ByRequest<'_, '_> {
    type Id = ChannelId;
    type Refusal = Refusal;

    fn open(
        &mut self,
        domain: StoreDomId,
        name: Option<&str>,
        ask: &Ask,
    ) -> Result<Endpoint<ChannelId>, Refusal> {
        let domain = DomId::new(domain.0).ok_or(Refusal::Port(Errno::ESRCH))?;
        self.0.borrow_mut().make(Owner { domain, name: name.map(Box::from) }, ask)
    }

    fn close(&mut self, id: ChannelId) {
        self.0.borrow_mut().end(id);
    }
}
