//! Messages: published, and on their way to who subscribed.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;

use xen_sys::ids::DomId;
use xen_sys::page::Shared;

use super::channel::{Channel, Purpose, RESERVE};
use super::session::{Answer, Sink};
use super::slab::Key;
use super::subscription::Offer;
use super::{Broker, ChannelId, Ended, SubscriptionId, Violation};
use crate::frame::{HEAD_MAX, Notice, Reason, is_topic};
use crate::policy::Act;

/// What a message in memory is charged beside its bytes and its topic.
const MESSAGE_COST: usize = 256;

/// What it takes to give a message to a subscription, as so many bytes moved.
const MESSAGE_WORK: usize = 512;

/// What it takes to look at a node of the filters, or at a message that is kept, as so many bytes
/// moved.
pub(super) const LOOK_WORK: usize = 512;

/// A message that somebody waits for the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PublicationId(pub(super) Key);

/// A message, shared by all that it waits for.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: Box<str>,
    pub(super) from: DomId,
    /// Grows from message to message.
    pub(super) seq: u64,
    pub(super) bytes: Vec<u8>,
}

/// A message that is being published. It stays until its publisher was answered and nobody waits.
#[derive(Debug)]
pub(super) struct Publication {
    /// The publisher's channel, while it is there.
    pub(super) publisher: Option<ChannelId>,
    /// The publisher's id for it.
    number: u32,
    pub(super) domain: DomId,
    /// What the publisher's domain is charged for the message.
    pub(super) charge: usize,
    receivers: u32,
    /// What must come or go before the publisher is answered: its own last byte, and every
    /// subscription for whose sake it waits.
    waits: u32,
    refused: Option<Reason>,
}

/// A message of which the rest is to come.
#[derive(Debug)]
pub(super) struct Gathering {
    publication: PublicationId,
    retain: bool,
    message: Message,
}

/// What a publisher asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct News<'a> {
    pub(super) id: u32,
    pub(super) topic: &'a str,
    pub(super) retain: bool,
}

impl<M: Shared> Broker<M> {
    /// Begins to publish; where the payload goes.
    pub(super) fn start_publish(
        &mut self,
        id: ChannelId,
        news: &News<'_>,
        payload: usize,
    ) -> Result<Sink, Violation> {
        let session = self.session(id);
        if session.is_some_and(|session| session.publications.iter().any(|&(n, _)| n == news.id)) {
            return Err(Violation::Id);
        }
        let done = self.judge_publish(id, news, payload).and_then(|domain| {
            let through =
                if news.retain { None } else { self.publish_through(id, domain, news, payload) };
            match through {
                Some(receivers) => Ok(Some(receivers)),
                None => self.gather(id, domain, news, payload).map(|()| None),
            }
        });
        match done {
            Ok(None) if payload > 0 => return Ok(Sink::Message),
            Ok(None) => self.finish_publish(id),
            Ok(Some(receivers)) => {
                self.answer(id, &Notice::Published { id: news.id, receivers }, &[])?;
            }
            Err(reason) => self.answer(id, &Notice::NotPublished { id: news.id, reason }, &[])?,
        }
        Ok(Sink::Nobody)
    }

    fn judge_publish(
        &mut self,
        id: ChannelId,
        news: &News<'_>,
        payload: usize,
    ) -> Result<DomId, Reason> {
        if !is_topic(news.topic) {
            return Err(Reason::BadName);
        }
        let domain = self.domain_of(id).ok_or(Reason::Denied)?;
        let account = self.accounts.find(domain).ok_or(Reason::Denied)?;
        if !account.rights.allow(Act::Publish(news.topic)) {
            return Err(Reason::Denied);
        }
        self.accounts.count(domain, |counts| {
            counts.published += 1;
            counts.published_bytes += payload as u64;
        });
        let most = usize::from(self.limits.publishes);
        let session = self.session(id).ok_or(Reason::Denied)?;
        if session.publications.len() >= most { Err(Reason::TooMany) } else { Ok(domain) }
    }

    /// Publishes from ring to rings with nothing in between, if all of the message is there and
    /// every receiver has room and credit for it; to how many.
    fn publish_through(
        &mut self,
        id: ChannelId,
        domain: DomId,
        news: &News<'_>,
        payload: usize,
    ) -> Option<u32> {
        if self.channels.find_mut(id.0)?.end.available().ok()? < payload {
            return None;
        }
        let mut found = core::mem::take(&mut self.found);
        found.clear();
        self.round += 1;
        let direct = self.find_receivers(news.topic, &mut found)
            && found.iter().all(|&one| self.can_take(id, one, payload));
        if direct {
            let seq = self.count_message();
            for &one in &found {
                self.forward(id, one, news.topic, (domain, seq), payload);
            }
        }
        let receivers = u32::try_from(found.len()).unwrap_or(u32::MAX);
        self.found = found;
        direct.then_some(receivers)
    }

    /// Finds the subscriptions that a topic has; false if there is no memory for them.
    fn find_receivers(&mut self, topic: &str, found: &mut Vec<SubscriptionId>) -> bool {
        let mut looks = 0;
        let complete = self.filters.matches(topic, found, &mut looks);
        self.work += looks * LOOK_WORK;
        complete
    }

    fn count_message(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    /// Whether a subscription can have a message straight from the publisher's ring. A front that
    /// has several such cannot: the first takes the room of the second.
    fn can_take(&mut self, id: ChannelId, subscription: SubscriptionId, payload: usize) -> bool {
        let Some(entry) = self.subscriptions.find(subscription.0) else { return false };
        let Some(channel) = self.channels.find_mut(entry.channel.0) else { return false };
        let round = self.round;
        let seen = channel.session().map(|session| core::mem::replace(&mut session.round, round));
        entry.channel != id
            && seen.is_some_and(|seen| seen != round)
            && entry.offer(is_ready(channel, payload)) == Offer::Direct
    }

    /// Passes the message that waits at the publisher's end to a subscription that can take it.
    fn forward(
        &mut self,
        id: ChannelId,
        subscription: SubscriptionId,
        topic: &str,
        from: (DomId, u64),
        payload: usize,
    ) {
        let Some(entry) = self.subscriptions.find_mut(subscription.0) else { return };
        let to = entry.channel;
        self.work += payload + MESSAGE_WORK;
        let Some((source, sink)) = self.channels.find_both(id.0, to.0) else { return };
        let head = entry.head(topic, from, payload, false);
        let passed = source.end.forward(&mut sink.end, head.bytes(), 0..payload);
        match passed {
            Ok(true) => entry.sent(),
            // Its index went back since it was asked for room: the message is lost by its doing.
            Ok(false) => self.end_subscription(subscription, Reason::Slow),
            Err(bad) => self.end(to, Ended::Violation(bad.into())),
        }
        self.touch(to);
    }

    /// Makes ready to take a message into memory.
    fn gather(
        &mut self,
        id: ChannelId,
        domain: DomId,
        news: &News<'_>,
        payload: usize,
    ) -> Result<(), Reason> {
        let charge = MESSAGE_COST + news.topic.len() + payload;
        let room = self.publications.reserve()
            && self.session(id).is_some_and(|session| {
                session.publications.try_reserve(1).is_ok() && session.reserve()
            });
        let mut bytes = Vec::new();
        if !room || !self.accounts.charge(domain, charge, &self.limits) {
            return Err(Reason::NoMemory);
        }
        if bytes.try_reserve_exact(payload).is_err() {
            self.accounts.release(domain, charge);
            return Err(Reason::NoMemory);
        }
        let publication = PublicationId(self.publications.insert(Publication {
            publisher: Some(id),
            number: news.id,
            domain,
            charge,
            receivers: 0,
            waits: 1,
            refused: None,
        }));
        let message = Message { topic: news.topic.into(), from: domain, seq: 0, bytes };
        if let Some(session) = self.session(id) {
            session.publications.push((news.id, publication));
            session.gathering = Some(Gathering { publication, retain: news.retain, message });
        }
        Ok(())
    }

    /// Takes `count` of the `left` bytes of a message, which wait at its publisher's end.
    pub(super) fn take_message(&mut self, id: ChannelId, count: usize, left: usize) {
        let Some(channel) = self.channels.find_mut(id.0) else { return };
        let Purpose::Services(session) = &mut channel.purpose else { return };
        if let Some(gathering) = &mut session.gathering {
            let bytes = &mut gathering.message.bytes;
            let start = bytes.len();
            bytes.resize(start + count, 0);
            channel.end.copy_out(0, &mut bytes[start..]);
        }
        channel.end.consume(count);
        if count == left {
            self.finish_publish(id);
        }
    }

    /// Publishes a message of which all is there.
    fn finish_publish(&mut self, id: ChannelId) {
        let Some(gathering) = self.session(id).and_then(|session| session.gathering.take()) else {
            return;
        };
        let Gathering { publication, retain, mut message } = gathering;
        message.seq = self.count_message();
        let message = Rc::new(message);
        let kept = if retain { self.keep(&message) } else { Ok(()) };
        match kept {
            Ok(()) => self.distribute(publication, &message),
            Err(reason) => {
                if let Some(entry) = self.publications.find_mut(publication.0) {
                    entry.refused = Some(reason);
                }
            }
        }
        self.taken(Some(publication));
    }

    fn distribute(&mut self, publication: PublicationId, message: &Rc<Message>) {
        let mut found = core::mem::take(&mut self.found);
        found.clear();
        let complete = self.find_receivers(&message.topic, &mut found);
        self.work += found.len() * MESSAGE_WORK;
        let (mut receivers, mut waits) = (0, 0);
        for &one in &found {
            let waiting = match self.offer_of(one, message.bytes.len()) {
                Offer::Direct => {
                    self.hand_over(one, message);
                    false
                }
                Offer::Keep => self.enqueue(one, message, None),
                Offer::Wait => self.enqueue(one, message, Some(publication)),
                Offer::End => {
                    self.end_subscription(one, Reason::Slow);
                    continue;
                }
                Offer::Nothing => continue,
            };
            receivers += 1;
            waits += u32::from(waiting);
        }
        self.found = found;
        if let Some(entry) = self.publications.find_mut(publication.0) {
            entry.receivers = receivers;
            entry.waits += waits;
            entry.refused = if complete { None } else { Some(Reason::NoMemory) };
        }
    }

    fn offer_of(&mut self, subscription: SubscriptionId, payload: usize) -> Offer {
        let Some(entry) = self.subscriptions.find(subscription.0) else { return Offer::Nothing };
        let Some(channel) = self.channels.find_mut(entry.channel.0) else { return Offer::Nothing };
        entry.offer(is_ready(channel, payload))
    }

    /// Writes a message into the ring of a subscription that can take it.
    fn hand_over(&mut self, subscription: SubscriptionId, message: &Rc<Message>) {
        let Some(entry) = self.subscriptions.find_mut(subscription.0) else { return };
        let to = entry.channel;
        let Some(channel) = self.channels.find_mut(to.0) else { return };
        let head =
            entry.head(&message.topic, (message.from, message.seq), message.bytes.len(), false);
        entry.sent();
        self.work += message.bytes.len();
        let written =
            channel.end.write(head.bytes()).and_then(|_| channel.end.write(&message.bytes));
        if let Err(bad) = written {
            self.end(to, Ended::Violation(bad.into()));
        }
        self.touch(to);
    }

    /// One thing less that the answer to a publisher waits for.
    pub(super) fn taken(&mut self, publication: Option<PublicationId>) {
        let Some(publication) = publication else { return };
        let Some(entry) = self.publications.find_mut(publication.0) else { return };
        entry.waits -= 1;
        if entry.waits > 0 {
            return;
        }
        let (domain, charge, publisher) = (entry.domain, entry.charge, entry.publisher);
        entry.charge = 0;
        self.accounts.release(domain, charge);
        let Some(publisher) = publisher else {
            self.publications.remove(publication.0);
            return;
        };
        if let Some(session) = self.session(publisher) {
            session.answers.push_back(Answer::Publication(publication));
        }
        self.wake(publisher);
    }

    /// Answers the publisher at the head of its answers; false if there is no room.
    pub(super) fn write_published(
        &mut self,
        id: ChannelId,
        publication: PublicationId,
    ) -> Result<bool, Violation> {
        let Some(channel) = self.channels.find_mut(id.0) else { return Ok(true) };
        if let Some(entry) = self.publications.find(publication.0) {
            let number = entry.number;
            let notice = match entry.refused {
                Some(reason) => Notice::NotPublished { id: number, reason },
                None => Notice::Published { id: number, receivers: entry.receivers },
            };
            if !channel.put(&notice, &[])? {
                return Ok(false);
            }
        }
        self.publications.remove(publication.0);
        if let Some(session) = self.session(id) {
            session.answers.pop_front();
            session.publications.retain(|&(_, other)| other != publication);
        }
        Ok(true)
    }

    /// The publisher's channel ends; `gathering` tells that the message is not whole.
    pub(super) fn lose_publisher(&mut self, publication: PublicationId, gathering: bool) {
        let Some(entry) = self.publications.find_mut(publication.0) else { return };
        entry.publisher = None;
        if entry.waits == 0 {
            self.publications.remove(publication.0);
        } else if gathering {
            self.taken(Some(publication));
        }
    }
}

#[cfg(any(test, fuzzing))]
impl Publication {
    pub(super) const fn waits(&self) -> u32 {
        self.waits
    }
}

impl Gathering {
    pub(super) const fn publication(&self) -> PublicationId {
        self.publication
    }
}

/// Whether a front's ring can have a message whole, now, past its queues.
fn is_ready<M: Shared>(channel: &mut Channel<M>, payload: usize) -> bool {
    let room = channel.end.room().unwrap_or(0);
    room >= HEAD_MAX + payload + RESERVE
        && channel.session().is_some_and(|session| session.is_idle())
}
