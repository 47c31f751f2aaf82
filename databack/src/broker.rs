//! The broker: what comes on one channel goes where it belongs, on another.
//!
//! Its owner has the rings' memory and the events. For each channel that is wanted it asks
//! [`Broker::admit`], sets a ring up and [opens](Broker::open) it; on each event it
//! [serves](Broker::serve) the channel; now and then it [ticks](Broker::tick). After each of these
//! it sends the [notifications](Broker::next_notification) that are due, and closes the channels
//! that [ended](Broker::next_ended).
//!
//! # What it costs
//!
//! Bytes go from ring to ring with nothing in between while the receiver has room; what does not
//! fit waits in memory that is charged to the receiver's domain, so a receiver that does not read
//! holds up nobody's other traffic. Nothing goes through all channels, services or subscriptions.
//! A block whose receiver has room allocates nothing. Whatever a domain can make the broker keep is
//! bounded and charged to it, and memory that is not there is a refusal.
//!
//! # Who is to blame
//!
//! A front that breaks the format, a limit that the format marks, or its ring's indexes has its
//! channel ended ([`Violation`]); to all others that looks as if it had closed it. Everything else
//! that cannot be done is an answer.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use xen_sys::ids::DomId;
use xen_sys::page::Shared;

use crate::ask::{Application, Kind};
use crate::frame::NAME_MAX;
use crate::policy::{Act, Owner, Policy};
use crate::vchan::{End, Peer, Sizes};

use account::Accounts;
use admission::cost;
use channel::{Channel, Purpose, TURN_BYTES};
use deadlines::Deadlines;
use filters::Filters;
use kept::Kept;
use publish::Publication;
use push::Push;
use services::Services;
use session::Session;
use slab::{Key, Slab};
use subscription::Subscription;

mod account;
mod admission;
mod call;
mod channel;
#[cfg(any(test, fuzzing))]
mod check;
mod deadlines;
mod deliver;
mod figures;
mod filters;
mod held;
mod kept;
mod publish;
mod push;
mod services;
mod session;
mod slab;
mod status;
mod stream;
mod subscription;
mod violation;
mod waiting;

pub use admission::{Limits, Refusal};
pub use figures::Figures;
pub use violation::{Ended, Violation};

/// The name of a service, inline.
type Name = heapless::String<NAME_MAX>;

/// A channel of the broker. Its number is dense and used again; an old id finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(Key);

impl ChannelId {
    /// The number, less than the most channels that there ever were at a time.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0.index as usize
    }
}

/// A subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SubscriptionId(Key);

/// A push under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PushId(Key);

/// The broker of all channels, over memory `M` of their rings.
#[derive(Debug)]
pub struct Broker<M> {
    limits: Limits,
    policy: Policy,
    accounts: Accounts,
    channels: Slab<Channel<M>>,
    services: Services,
    pushes: Slab<Push>,
    deadlines: Deadlines,
    filters: Filters,
    subscriptions: Slab<Subscription>,
    publications: Slab<Publication>,
    kept: Kept,
    /// The number of the next message.
    next_seq: u64,
    /// The number of the last round of looking for receivers.
    round: u64,
    /// Bytes that went to others than the front whose turn it is.
    work: usize,
    /// The receivers of one message, while it is published.
    found: Vec<SubscriptionId>,
    /// Streams of which only one end is there.
    waiting: Vec<(Application, ChannelId)>,
    /// Channels that have something to be written; each once.
    ready: VecDeque<ChannelId>,
    /// Channels whose rings may have moved; each once.
    moved: VecDeque<ChannelId>,
    ended: VecDeque<(ChannelId, Ended)>,
    violations: violation::Counts,
}

/// Channels to which one turn writes what waits for them.
const TURN_WRITES: usize = 256;

impl<M: Shared> Broker<M> {
    /// A broker without channels, which allows nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            policy: Policy::default(),
            accounts: Accounts::default(),
            channels: Slab::new(),
            services: Services::default(),
            pushes: Slab::new(),
            deadlines: Deadlines::default(),
            filters: Filters::new(),
            subscriptions: Slab::new(),
            publications: Slab::new(),
            kept: Kept::default(),
            next_seq: 1,
            round: 0,
            work: 0,
            found: Vec::new(),
            waiting: Vec::new(),
            ready: VecDeque::new(),
            moved: VecDeque::new(),
            ended: VecDeque::new(),
            violations: violation::Counts::default(),
        }
    }

    /// Opens a channel that was [admitted](Self::admit), at its server's end.
    ///
    /// # Errors
    /// The end comes back if there is no memory, or what was admitted is no more allowed.
    pub fn open(&mut self, owner: Owner, kind: Kind, end: End<M>) -> Result<ChannelId, End<M>> {
        let domain = owner.domain;
        let room = self.channels.reserve()
            && self.ready.try_reserve(self.channels.len() + 1).is_ok()
            && self.moved.try_reserve(self.channels.len() + 1).is_ok()
            && self.ended.try_reserve(self.channels.len() + 1).is_ok()
            && self.waiting.try_reserve(1).is_ok();
        if !room || self.accounts.open(owner, &self.policy, &self.limits).is_none() {
            return Err(end);
        }
        if !self.accounts.charge(domain, cost(end.sizes()), &self.limits) {
            self.accounts.close(domain, 0);
            return Err(end);
        }
        let (purpose, stream) = match kind {
            Kind::Services => (Purpose::Services(Session::new(end.sizes())), None),
            Kind::Echo => (Purpose::Echo, None),
            Kind::Stream(name) => {
                (Purpose::Stream { name: name.clone(), partner: None }, Some(name))
            }
        };
        let id = ChannelId(self.channels.insert(Channel::new(end, domain, purpose)));
        self.accounts.count(domain, |counts| counts.opened += 1);
        if let Some(name) = stream {
            self.pair(id, name);
        }
        Ok(id)
    }

    /// Ends a channel, if it has not [ended](Self::next_ended) by itself, and gives back its end.
    /// Its peer has to be told by an event, due or not. `None`: there is no such channel. Its domain
    /// is charged for the rings until they are [free](Self::freed).
    pub fn close(&mut self, id: ChannelId) -> Option<End<M>> {
        self.finish(id);
        let channel = self.channels.remove(id.0)?;
        self.accounts.close(channel.domain, cost(channel.end.sizes()));
        for queue in [&mut self.ready, &mut self.moved] {
            queue.retain(|&other| other != id);
        }
        self.ended.retain(|&(other, _)| other != id);
        self.write_ready();
        Some(channel.end)
    }

    /// The rings of a channel of `domain` that was [closed](Self::close) are free: their client has
    /// let go of them.
    pub fn freed(&mut self, domain: DomId, sizes: Sizes) {
        self.accounts.free(domain, cost(sizes));
    }

    /// Applies another policy: what it no longer allows ends.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        self.accounts.judge(&self.policy, &self.limits);
        for index in 0..self.channels.slots() {
            if let Some(key) = self.channels.key_at(index) {
                self.revoke(ChannelId(key));
            }
        }
        self.write_ready();
    }

    /// Does what there is to do for a channel, as after an event of it; true if there is more, which
    /// is left for the next call so that others come in between.
    pub fn serve(&mut self, id: ChannelId, now: Duration) -> bool {
        let Some(channel) = self.channels.find_mut(id.0) else { return false };
        if channel.end.peer() == Peer::NotYet {
            return false;
        }
        // Looked at first: what the peer wrote before it went is still served.
        let gone = channel.end.peer() == Peer::Gone;
        let turn = match &channel.purpose {
            Purpose::Services(_) => self.serve_session(id, now).map(|turn| turn.unless(gone)),
            Purpose::Echo => channel.echo().map(|turn| turn.unless(gone)),
            &Purpose::Stream { partner, .. } => self.serve_stream(id, partner),
            Purpose::Over => return false,
        };
        self.touch(id);
        let more = match turn {
            Ok(Turn::More) => true,
            Ok(Turn::Waits) => false,
            Ok(Turn::Over) => {
                self.end(id, Ended::Closed);
                false
            }
            Err(violation) => {
                self.end(id, Ended::Violation(violation));
                false
            }
        };
        self.write_ready();
        more || !self.ready.is_empty()
    }

    /// Does what is due by now, and tells when something will be.
    pub fn tick(&mut self, now: Duration) -> Option<Duration> {
        self.time_out(now);
        self.write_ready();
        let next = self.deadlines.first().map(|(when, _)| when);
        if self.ready.is_empty() { next } else { Some(now) }
    }

    /// The next channel whose peer has to be sent an event.
    pub fn next_notification(&mut self) -> Option<ChannelId> {
        while let Some(id) = self.moved.pop_front() {
            let Some(channel) = self.channels.find_mut(id.0) else { continue };
            channel.moved = false;
            let parting = core::mem::take(&mut channel.parting);
            if channel.end.take_notify() || parting {
                return Some(id);
            }
        }
        None
    }

    /// The next channel that ended by itself, and why. It has to be [closed](Self::close).
    pub fn next_ended(&mut self) -> Option<(ChannelId, Ended)> {
        self.ended.pop_front()
    }

    /// Whether a channel's client is there.
    #[must_use]
    pub fn peer(&self, id: ChannelId) -> Option<Peer> {
        self.channels.find(id.0).map(|channel| channel.end.peer())
    }

    /// Bytes that all domains use: their rings and what waits.
    #[must_use]
    pub const fn memory(&self) -> usize {
        self.accounts.memory
    }

    /// Whose a channel is.
    #[must_use]
    pub fn owner(&self, id: ChannelId) -> Option<&Owner> {
        let channel = self.channels.find(id.0)?;
        self.accounts.find(channel.domain).map(|account| &account.owner)
    }

    /// Ends a channel by ourselves; it stays until it is closed.
    fn end(&mut self, id: ChannelId, why: Ended) {
        if !self.finish(id) {
            return;
        }
        if let Ended::Violation(violation) = why {
            self.violations.count(violation);
        }
        if let Some(channel) = self.channels.find_mut(id.0) {
            channel.end.close();
            channel.parting = true;
            self.ended.push_back((id, why));
            self.touch(id);
        }
    }

    /// Ends all that goes on on a channel; false if that was done before.
    fn finish(&mut self, id: ChannelId) -> bool {
        let Some(channel) = self.channels.find_mut(id.0) else { return false };
        let domain = channel.domain;
        match core::mem::replace(&mut channel.purpose, Purpose::Over) {
            Purpose::Over => return false,
            Purpose::Echo => {}
            Purpose::Stream { partner, .. } => self.part(id, partner),
            Purpose::Services(session) => self.end_session(id, domain, session),
        }
        true
    }

    /// Ends what the policy no longer allows on this channel.
    fn revoke(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.find(id.0) else { return };
        let Some(account) = self.accounts.find(channel.domain) else { return };
        let allowed = match &channel.purpose {
            Purpose::Over | Purpose::Services(_) => true,
            Purpose::Echo => account.rights.allow(Act::Echo),
            Purpose::Stream { name, .. } => account.rights.allow(Act::Stream(name.as_str())),
        };
        if allowed {
            self.revoke_services(id);
            self.revoke_pushes(id);
        } else {
            self.end(id, Ended::Denied);
        }
    }

    /// Notes that a channel has something to be written.
    fn wake(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.find_mut(id.0)
            && !channel.ready
        {
            channel.ready = true;
            self.ready.push_back(id);
        }
    }

    /// Notes that a channel's rings may have moved.
    fn touch(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.find_mut(id.0)
            && !channel.moved
        {
            channel.moved = true;
            self.moved.push_back(id);
        }
    }

    /// Writes what waits for the channels that have something to be written, a bounded part of it.
    fn write_ready(&mut self) {
        let most = self.work.saturating_add(TURN_BYTES);
        for _ in 0..TURN_WRITES {
            if self.work >= most {
                return;
            }
            let Some(id) = self.ready.pop_front() else { return };
            if let Some(channel) = self.channels.find_mut(id.0) {
                channel.ready = false;
                self.write_out(id);
            }
        }
    }

    fn domain_of(&self, id: ChannelId) -> Option<DomId> {
        self.channels.find(id.0).map(|channel| channel.domain)
    }
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// There is more to do.
    More,
    /// There is nothing to do until the next event.
    Waits,
    /// The peer is gone, and what it left is done with.
    Over,
}

impl Turn {
    /// What comes of it if the peer is gone: nobody sends another event.
    fn unless(self, gone: bool) -> Self {
        if gone && self == Self::Waits { Self::Over } else { self }
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "channel {}", self.0.index)
    }
}

#[cfg(test)]
mod tests;
