//! Messages that wait for a subscription, and how its front's ring gets them.

use alloc::rc::Rc;

use xen_sys::page::Shared;

use super::kept;
use super::publish::{LOOK_WORK, Message, PublicationId};
use super::session::{Bulk, Sending};
use super::subscription::{MOST_WAITING, Subscription};
use super::{Broker, ChannelId, SubscriptionId, Violation};
use crate::frame::{Reason, Slow};

/// What a message that waits is charged beside its bytes.
const WAITING_COST: usize = 64;

/// A message that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    message: Rc<Message>,
    /// What its subscriber is charged.
    pub(super) charge: usize,
    /// Who waits for it to be taken.
    pub(super) publication: Option<PublicationId>,
}

/// What a subscription gets next.
enum Next {
    /// A message, and whether it was kept from earlier.
    Message(Waiting, bool),
    /// There may be one; others come first.
    Later,
    Nothing,
}

impl<M: Shared> Broker<M> {
    /// Notes that a front's ring is to have messages, if there are any and credit for them.
    pub(super) fn queue_messages(&mut self, subscription: SubscriptionId) {
        let Some(entry) = self.subscriptions.find_mut(subscription.0) else { return };
        if entry.queued || !entry.has_work() {
            return;
        }
        entry.queued = true;
        let channel = entry.channel;
        if let Some(session) = self.session(channel) {
            session.bulk.push_back(Bulk::Messages(subscription));
        }
        self.wake(channel);
    }

    /// Has a message wait for a subscription; whether its publisher has to wait too.
    pub(super) fn enqueue(
        &mut self,
        subscription: SubscriptionId,
        message: &Rc<Message>,
        waits: Option<PublicationId>,
    ) -> bool {
        let Some(entry) = self.subscriptions.find_mut(subscription.0) else { return false };
        let (domain, slow) = (entry.domain, entry.slow);
        // The bytes of a message whose publisher waits are charged to the publisher.
        let bytes = if waits.is_some() { 0 } else { message.bytes.len() };
        let charge = WAITING_COST + bytes;
        while slow == Slow::DropOldest
            && self
                .subscriptions
                .find(subscription.0)
                .is_some_and(|e| e.waiting.len() >= MOST_WAITING)
        {
            self.drop_oldest(subscription);
        }
        let mut room = self.accounts.charge(domain, charge, &self.limits);
        while !room && slow == Slow::DropOldest && self.drop_oldest(subscription) {
            room = self.accounts.charge(domain, charge, &self.limits);
        }
        let Some(entry) = self.subscriptions.find_mut(subscription.0) else { return false };
        if room && entry.waiting.try_reserve(1).is_ok() {
            let message = Rc::clone(message);
            entry.waiting.push_back(Waiting { message, charge, publication: waits });
            self.queue_messages(subscription);
            return waits.is_some();
        }
        if room {
            self.accounts.release(domain, charge);
        }
        match slow {
            Slow::DropOldest => self.note_dropped(subscription),
            Slow::Wait | Slow::Disconnect => self.end_subscription(subscription, Reason::NoMemory),
        }
        false
    }

    fn note_dropped(&mut self, subscription: SubscriptionId) {
        if let Some(entry) = self.subscriptions.find_mut(subscription.0) {
            entry.dropped = entry.dropped.saturating_add(1);
        }
    }

    fn drop_oldest(&mut self, subscription: SubscriptionId) -> bool {
        let Some(entry) = self.subscriptions.find_mut(subscription.0) else { return false };
        let (domain, oldest) = (entry.domain, entry.waiting.pop_front());
        let Some(oldest) = oldest else { return false };
        self.accounts.release(domain, oldest.charge);
        self.note_dropped(subscription);
        true
    }

    /// Forgets what waits for a subscription.
    pub(super) fn drop_waiting(&mut self, subscription: SubscriptionId) {
        let Some(entry) = self.subscriptions.find_mut(subscription.0) else { return };
        let (domain, waiting) = (entry.domain, core::mem::take(&mut entry.waiting));
        for one in waiting {
            self.accounts.release(domain, one.charge);
            self.taken(one.publication);
        }
    }

    /// Finds what a subscription gets next: first what was kept, then what waits.
    fn next_message(&mut self, subscription: SubscriptionId) -> Next {
        let entry = self.subscriptions.find_mut(subscription.0).filter(|entry| entry.has_work());
        let Some(entry) = entry else { return Next::Nothing };
        let Some(replay) = &mut entry.replay else {
            return entry
                .waiting
                .front()
                .map_or(Next::Nothing, |one| Next::Message(one.clone(), false));
        };
        let mut looks = 0;
        let next = self.kept.next(&entry.filter, replay, &mut looks);
        self.work += looks * LOOK_WORK;
        match next {
            kept::Next::Message(message) => {
                Next::Message(Waiting { message, charge: 0, publication: None }, true)
            }
            kept::Next::Later => Next::Later,
            kept::Next::Nothing => {
                entry.replay = None;
                Next::Nothing
            }
        }
    }

    /// Has a front's ring get a message, which is then no longer one that waits; false if there is
    /// no room to begin.
    fn begin_sending(
        &mut self,
        id: ChannelId,
        subscription: SubscriptionId,
        waiting: &Waiting,
        retained: bool,
    ) -> Result<bool, Violation> {
        let Some(channel) = self.channels.find_mut(id.0) else { return Ok(true) };
        let Some(entry) = self.subscriptions.find_mut(subscription.0) else { return Ok(true) };
        let message = &waiting.message;
        let from = (message.from, message.seq);
        let head = entry.head(&message.topic, from, message.bytes.len(), retained);
        let needed = Subscription::needed(channel, head.bytes().len(), message.bytes.len());
        if channel.end.room()? < needed {
            return Ok(false);
        }
        match &mut entry.replay {
            Some(replay) => replay.pass(&message.topic),
            None => drop(entry.waiting.pop_front()),
        }
        entry.sent();
        let &Waiting { charge, publication, .. } = waiting;
        let message = Rc::clone(message);
        if let Some(session) = channel.session() {
            session.sending = Some(Sending { message, head, at: 0, charge, publication });
        }
        Ok(true)
    }

    /// Writes the next message of the subscription at the head of a front's queue; false if there
    /// is no room.
    pub(super) fn write_message(
        &mut self,
        id: ChannelId,
        subscription: SubscriptionId,
    ) -> Result<bool, Violation> {
        let next = self.next_message(subscription);
        if let Next::Message(waiting, retained) = &next
            && !self.begin_sending(id, subscription, waiting, *retained)?
        {
            return Ok(false);
        }
        let later = matches!(next, Next::Later);
        let entry = self.subscriptions.find_mut(subscription.0);
        let queued = entry.is_some_and(|entry| {
            entry.queued = entry.has_work();
            entry.queued
        });
        if let Some(session) = self.session(id) {
            session.bulk.pop_front();
            if queued {
                session.bulk.push_back(Bulk::Messages(subscription));
            }
        }
        if later {
            // Others come first.
            self.wake(id);
        }
        Ok(self.write_sending(id)? && !later)
    }

    /// Writes what is left of the message that a front is getting; false if there is no room for
    /// all of it.
    pub(super) fn write_sending(&mut self, id: ChannelId) -> Result<bool, Violation> {
        let Some(channel) = self.channels.find_mut(id.0) else { return Ok(true) };
        let domain = channel.domain;
        let super::Purpose::Services(session) = &mut channel.purpose else { return Ok(true) };
        let Some(sending) = &mut session.sending else { return Ok(true) };
        let head = sending.head.bytes();
        if sending.at < head.len() {
            sending.at += channel.end.write(&head[sending.at..])?;
        }
        if let Some(at) = sending.at.checked_sub(head.len()) {
            sending.at += channel.end.write(&sending.message.bytes[at..])?;
            if sending.at == head.len() + sending.message.bytes.len() {
                let (charge, publication) = (sending.charge, sending.publication);
                session.sending = None;
                self.accounts.release(domain, charge);
                self.taken(publication);
                return Ok(true);
            }
        }
        Ok(false)
    }
}
