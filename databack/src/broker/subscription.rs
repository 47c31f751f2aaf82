//! Subscriptions: what each waits for, and what its front's ring gets of it.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use xen_sys::ids::DomId;
use xen_sys::page::Shared;

use super::channel::{Channel, RESERVE};
use super::filters::{LEVEL_COST, Place};
use super::kept::Replay;
#[cfg(any(test, fuzzing))]
use super::publish::PublicationId;
use super::session::Answer;
use super::waiting::Waiting;
use super::{Broker, ChannelId, SubscriptionId, Violation};
use crate::frame::{self, Head, Notice, Reason, Slow, is_filter};
use crate::policy::Act;

/// What a subscription is charged beside the levels of its filter.
const SUBSCRIPTION_COST: usize = 512;

/// Messages that wait for a subscription that drops or ends at most.
pub(super) const MOST_WAITING: usize = 64;

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) channel: ChannelId,
    pub(super) domain: DomId,
    /// The front's id for it.
    number: u32,
    pub(super) filter: Box<str>,
    place: Place,
    pub(super) slow: Slow,
    credit: u32,
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) dropped: u32,
    /// Whether it is in its front's queue.
    pub(super) queued: bool,
    pub(super) replay: Option<Replay>,
    /// Why it is over, until the front was told.
    pub(super) over: Option<Reason>,
}

/// What a front asks for.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) id: u32,
    pub(super) filter: &'a str,
    pub(super) slow: Slow,
    pub(super) credit: u32,
}

/// What becomes of a message that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// It goes into the ring at once.
    Direct,
    /// It waits, and its publisher does not.
    Keep,
    /// It waits, as its publisher does.
    Wait,
    /// It is too much, the subscription is over.
    End,
    /// It is over already.
    Nothing,
}

fn cost(filter: &str) -> usize {
    SUBSCRIPTION_COST + filter.len() + (filter.split('/').count() + 1) * LEVEL_COST
}

impl Subscription {
    /// The head of the frame that brings the front a message: its topic, publisher and number.
    pub(super) fn head(
        &self,
        topic: &str,
        (from, seq): (DomId, u64),
        payload: usize,
        retained: bool,
    ) -> Head {
        let (id, dropped, from) = (self.number, self.dropped, from.raw());
        let notice = Notice::Message { id, seq, dropped, retained, from, topic };
        let payload = u32::try_from(payload).unwrap_or(u32::MAX);
        frame::encode(&notice, payload).expect("a notice of ours has room in a head")
    }

    /// Whether there is something that could be written now.
    pub(super) fn has_work(&self) -> bool {
        self.over.is_none()
            && self.credit > 0
            && (self.replay.is_some() || !self.waiting.is_empty())
    }

    /// What a front's ring needs to have room for before a message is begun: all of it and what
    /// blocks and messages leave free, if that can ever be.
    pub(super) fn needed<M: Shared>(channel: &Channel<M>, head: usize, payload: usize) -> usize {
        let whole = head + payload + RESERVE;
        let ring = channel.end.sizes().right().bytes();
        if whole <= ring { whole } else { frame::HEAD_MAX + RESERVE }
    }

    /// What is to be done with a message, going by what this subscription and its front are at.
    pub(super) fn offer(&self, ready: bool) -> Offer {
        let idle = self.waiting.is_empty() && self.replay.is_none() && self.credit > 0;
        match self.slow {
            _ if self.over.is_some() => Offer::Nothing,
            _ if idle && ready => Offer::Direct,
            Slow::Wait => Offer::Wait,
            Slow::Disconnect if self.waiting.len() >= MOST_WAITING => Offer::End,
            Slow::DropOldest | Slow::Disconnect => Offer::Keep,
        }
    }

    /// A message went into the ring, or began to.
    pub(super) const fn sent(&mut self) {
        self.credit -= 1;
        self.dropped = 0;
    }
}

#[cfg(any(test, fuzzing))]
impl Subscription {
    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// What its domain is charged for it and for what waits, and who waits for each.
    pub(super) fn charges(&self) -> impl Iterator<Item = (usize, Option<PublicationId>)> {
        let own = core::iter::once((cost(&self.filter), None));
        own.chain(self.waiting.iter().map(|one| (one.charge, one.publication)))
    }
}

impl<M: Shared> Broker<M> {
    pub(super) fn subscribe(&mut self, id: ChannelId, wish: &Wish<'_>) -> Result<(), Reason> {
        if !is_filter(wish.filter) {
            return Err(Reason::BadName);
        }
        let domain = self.domain_of(id).ok_or(Reason::Denied)?;
        let session = self.session(id).ok_or(Reason::Denied)?;
        let Err(place) = session.find_subscription(wish.id) else { return Err(Reason::Taken) };
        let account = self.accounts.find_mut(domain).ok_or(Reason::Denied)?;
        if !account.rights.allow(Act::Subscribe(wish.filter)) {
            return Err(Reason::Denied);
        }
        if !account.add_subscription() {
            return Err(Reason::TooMany);
        }
        let added = self.add_subscription(id, domain, wish, place);
        if added.is_none()
            && let Some(account) = self.accounts.find_mut(domain)
        {
            account.subscriptions -= 1;
        }
        added.ok_or(Reason::NoMemory)
    }

    fn add_subscription(
        &mut self,
        id: ChannelId,
        domain: DomId,
        wish: &Wish<'_>,
        place: usize,
    ) -> Option<()> {
        let room = self.subscriptions.reserve() && self.session(id)?.reserve();
        if !room || !self.accounts.charge(domain, cost(wish.filter), &self.limits) {
            return None;
        }
        let key = self.subscriptions.next_key();
        let Some(spot) = self.filters.add(wish.filter, SubscriptionId(key)) else {
            self.accounts.release(domain, cost(wish.filter));
            return None;
        };
        let subscription = SubscriptionId(self.subscriptions.insert(Subscription {
            channel: id,
            domain,
            number: wish.id,
            filter: wish.filter.into(),
            place: spot,
            slow: wish.slow,
            credit: wish.credit,
            waiting: VecDeque::new(),
            dropped: 0,
            queued: false,
            replay: Some(Replay::new(self.next_seq)),
            over: None,
        }));
        self.session(id)?.subscriptions.insert(place, (wish.id, subscription));
        self.queue_messages(subscription);
        Some(())
    }

    /// Whether the policy still allows a subscription.
    pub(super) fn may_have(&self, subscription: SubscriptionId) -> bool {
        let Some(entry) = self.subscriptions.find(subscription.0) else { return true };
        let account = self.accounts.find(entry.domain);
        account.is_some_and(|account| account.rights.allow(Act::Subscribe(&entry.filter)))
    }

    /// Gives a subscription credit. One that is unknown is over, and its front is about to hear so.
    pub(super) fn credit(&mut self, id: ChannelId, number: u32, messages: u32) {
        let Some(subscription) = self.subscription_of(id, number) else { return };
        if let Some(entry) = self.subscriptions.find_mut(subscription.0) {
            entry.credit = entry.credit.saturating_add(messages);
        }
        self.queue_messages(subscription);
    }

    /// Ends a subscription as its front asked.
    pub(super) fn unsubscribe(&mut self, id: ChannelId, number: u32) {
        if let Some(subscription) = self.subscription_of(id, number) {
            self.remove_subscription(subscription);
        }
    }

    fn subscription_of(&mut self, id: ChannelId, number: u32) -> Option<SubscriptionId> {
        let session = self.session(id)?;
        let place = session.find_subscription(number).ok()?;
        Some(session.subscriptions[place].1)
    }

    /// Ends a subscription by ourselves; the front is told.
    pub(super) fn end_subscription(&mut self, subscription: SubscriptionId, reason: Reason) {
        let Some(entry) = self.subscriptions.find_mut(subscription.0) else { return };
        if entry.over.replace(reason).is_some() {
            return;
        }
        let channel = entry.channel;
        self.drop_waiting(subscription);
        if let Some(session) = self.session(channel) {
            session.answers.push_back(Answer::Ended(subscription));
        }
        self.wake(channel);
    }

    /// Removes a subscription.
    pub(super) fn remove_subscription(&mut self, subscription: SubscriptionId) {
        self.drop_waiting(subscription);
        let Some(entry) = self.subscriptions.remove(subscription.0) else { return };
        if let Some((moved, place)) = self.filters.remove(entry.place)
            && let Some(other) = self.subscriptions.find_mut(moved.0)
        {
            other.place = place;
        }
        if let Some(account) = self.accounts.find_mut(entry.domain) {
            account.subscriptions -= 1;
        }
        self.accounts.release(entry.domain, cost(&entry.filter));
        if let Some(session) = self.session(entry.channel) {
            session.forget_subscription(entry.number, subscription);
        }
    }

    /// Tells a front why a subscription is over; false if there is no room.
    pub(super) fn write_ended(
        &mut self,
        id: ChannelId,
        subscription: SubscriptionId,
    ) -> Result<bool, Violation> {
        let Some(channel) = self.channels.find_mut(id.0) else { return Ok(true) };
        if let Some(entry) = self.subscriptions.find(subscription.0)
            && let Some(reason) = entry.over
            && !channel.put(&Notice::Ended { id: entry.number, reason }, &[])?
        {
            return Ok(false);
        }
        self.remove_subscription(subscription);
        Ok(true)
    }
}
