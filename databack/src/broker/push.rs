//! Blocks on their way: the sender's side of them.

use alloc::vec::Vec;
use core::time::Duration;

use xen_sys::ids::DomId;
use xen_sys::page::Shared;

use super::held::Held;
use super::session::{Answer, Sink};
use super::{Broker, ChannelId, Name, PushId, Violation};
use crate::frame::{Cancel, Notice, Outcome, REPLY_MAX, is_name};
use crate::policy::{Act, Owner};

/// What a sender's domain is charged for a push: its record, and room for a reply.
pub(super) const PUSH_COST: usize = 512 + REPLY_MAX as usize;

/// What a sender asks for.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub(super) id: u32,
    pub(super) domain: Option<u16>,
    pub(super) name: &'a str,
    pub(super) len: u64,
    pub(super) timeout_ms: u32,
}

/// A block on its way. It stays until neither side has to be told anything.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) name: Name,
    pub(super) from: DomId,
    pub(super) len: u64,
    window: u32,
    /// Bytes that the sender's frames have announced.
    sent: u64,
    /// Bytes that the receiver's ring took.
    pub(super) given: u64,
    /// Those of them that the sender was told of.
    told: u64,
    pub(super) sender: Option<Side>,
    pub(super) receiver: Option<Side>,
    /// Where it is among those of the receiver.
    pub(super) place: usize,
    /// Whether the receiver knows of it.
    pub(super) announced: bool,
    /// What the receiver's ring did not take yet.
    pub(super) held: Held,
    pub(super) outcome: Option<Outcome>,
    /// What the receiver is to be told of the outcome.
    pub(super) cancel: Option<Cancel>,
    /// What the receiver is saying, until its reply is whole.
    pub(super) word: Option<Outcome>,
    pub(super) reply: Vec<u8>,
}

/// One of the two at a push.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    pub(super) channel: ChannelId,
    /// The sender's id for it.
    id: u32,
    /// Whether it is in the queue of what that channel is to have.
    pub(super) queued: bool,
}

impl PushId {
    /// The number by which a receiver knows it.
    pub(super) const fn on_wire(self) -> u64 {
        (self.0.generation as u64) << 32 | self.0.index as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "both halves have 32 bits")]
    pub(super) const fn from_wire(number: u64) -> Self {
        Self(super::Key { generation: (number >> 32) as u32, index: number as u32 })
    }
}

impl Push {
    /// Bytes that the sender's credit lets it be ahead; what it was not told of does not count.
    const fn allowed(&self) -> u64 {
        self.told + self.window as u64
    }

    /// Whether the sender is to be told of what was given. It needs credit for what is beyond its
    /// window; half a window at a time is enough to never stop it.
    const fn owes_credit(&self) -> bool {
        self.outcome.is_none()
            && self.allowed() < self.len
            && self.given - self.told >= (self.window / 2) as u64
    }

    /// How much memory what waits of it can need: no more than is sent ahead of credit.
    pub(super) fn most_held(&self) -> usize {
        usize::try_from(self.len - self.given)
            .map_or(self.window as usize, |rest| rest.min(self.window as usize))
    }
}

impl<M: Shared> Broker<M> {
    pub(super) fn start_push(
        &mut self,
        id: ChannelId,
        block: &Block<'_>,
        payload: u32,
        now: Duration,
    ) -> Result<Sink, Violation> {
        let Some(session) = self.session(id) else { return Ok(Sink::Nobody) };
        if session.pushes.iter().any(|&(other, _)| other == block.id) {
            return Err(Violation::Id);
        }
        if u64::from(payload) > block.len || payload > session.window {
            return Err(Violation::Overrun);
        }
        match self.route(id, block).and_then(|receiver| self.add_push(id, block, receiver)) {
            Ok(push) => {
                if let Some(entry) = self.pushes.find_mut(push.0) {
                    entry.sent = payload.into();
                }
                if block.timeout_ms > 0 {
                    let patience = Duration::from_millis(block.timeout_ms.into());
                    self.deadlines.set(push.0.index, now.saturating_add(patience));
                }
                if payload == 0 {
                    self.announce(push);
                }
                Ok(Sink::Block(push))
            }
            Err(outcome) => {
                self.answer(id, &Notice::PushDone { id: block.id, outcome }, &[])?;
                Ok(Sink::Nobody)
            }
        }
    }

    /// Finds who gets a block. Nobody without the right learns who serves what.
    fn route(&mut self, id: ChannelId, block: &Block<'_>) -> Result<ChannelId, Outcome> {
        if !is_name(block.name) {
            return Err(Outcome::BadName);
        }
        let from = self.domain_of(id).ok_or(Outcome::Denied)?;
        let rights = &self.accounts.find(from).ok_or(Outcome::Denied)?.rights;
        let to = block.domain.map(|raw| DomId::new(raw).ok_or(Outcome::NoReceiver)).transpose()?;
        let found = self.services.find(block.name, to);
        let to = to.or_else(|| self.domain_of(*found.as_ref().ok()?));
        let stranger = to.map(|domain| Owner { domain, name: None });
        let known = to.and_then(|domain| self.accounts.find(domain)).map(|account| &account.owner);
        let allowed = match known.or(stranger.as_ref()) {
            Some(owner) => rights.allow(Act::Push(owner, block.name)),
            None => rights.allow(Act::PushAnywhere(block.name)),
        };
        if allowed { found } else { Err(Outcome::Denied) }
    }

    fn add_push(
        &mut self,
        id: ChannelId,
        block: &Block<'_>,
        receiver: ChannelId,
    ) -> Result<PushId, Outcome> {
        let from = self.domain_of(id).ok_or(Outcome::Denied)?;
        let name = Name::try_from(block.name).map_err(|_| Outcome::BadName)?;
        let most = usize::from(self.limits.pushes);
        let sender = self.session(id).ok_or(Outcome::Denied)?;
        let window = sender.window;
        let room =
            sender.pushes.len() < most && sender.pushes.try_reserve(1).is_ok() && sender.reserve();
        let target = self.session(receiver).ok_or(Outcome::NoReceiver)?;
        let room = room && target.deliveries.try_reserve(1).is_ok() && target.reserve();
        let place = target.deliveries.len();
        let room = room && self.pushes.reserve();
        if !room || !self.accounts.charge(from, PUSH_COST, &self.limits) {
            return Err(Outcome::Busy);
        }
        let push = PushId(self.pushes.insert(Push {
            name,
            from,
            len: block.len,
            window,
            sent: 0,
            given: 0,
            told: 0,
            sender: Some(Side { channel: id, id: block.id, queued: false }),
            receiver: Some(Side { channel: receiver, id: 0, queued: false }),
            place,
            announced: false,
            held: Held::default(),
            outcome: None,
            cancel: None,
            word: None,
            reply: Vec::new(),
        }));
        if !self.deadlines.reserve(push.0.index) {
            self.pushes.remove(push.0);
            self.accounts.release(from, PUSH_COST);
            return Err(Outcome::Busy);
        }
        self.accounts.count(from, |counts| counts.pushes += 1);
        if let Some(sender) = self.session(id) {
            sender.pushes.push((block.id, push));
        }
        if let Some(target) = self.session(receiver) {
            target.deliveries.push(push);
        }
        Ok(push)
    }

    pub(super) fn continue_push(
        &mut self,
        id: ChannelId,
        number: u32,
        payload: u32,
    ) -> Result<Sink, Violation> {
        let Some(push) = self.push_of(id, number) else { return Ok(Sink::Nobody) };
        let Some(entry) = self.pushes.find_mut(push.0) else { return Ok(Sink::Nobody) };
        entry.sent = entry.sent.saturating_add(payload.into());
        if entry.sent > entry.len || (entry.outcome.is_none() && entry.sent > entry.allowed()) {
            return Err(Violation::Overrun);
        }
        Ok(Sink::Block(push))
    }

    pub(super) fn cancel_push(&mut self, id: ChannelId, number: u32) {
        if let Some(push) = self.push_of(id, number) {
            self.settle(push, Outcome::Cancelled, Some(Cancel::Cancelled));
        }
    }

    /// Ends those of a front's pushes that it may no longer make, or their receivers no longer take.
    pub(super) fn revoke_pushes(&mut self, id: ChannelId) {
        let mut place = 0;
        while let Some(&(_, push)) = self.session(id).and_then(|session| session.pushes.get(place))
        {
            if !self.may_go_on(push) {
                self.settle(push, Outcome::Denied, Some(Cancel::Cancelled));
            }
            place += 1;
        }
    }

    /// Whether the policy still allows a push.
    fn may_go_on(&self, push: PushId) -> bool {
        let Some(entry) = self.pushes.find(push.0) else { return true };
        let to = entry.receiver.and_then(|side| self.domain_of(side.channel));
        let (Some(from), Some(to)) =
            (self.accounts.find(entry.from), to.and_then(|domain| self.accounts.find(domain)))
        else {
            return true;
        };
        from.rights.allow(Act::Push(&to.owner, entry.name.as_str()))
            && to.rights.allow(Act::Serve(entry.name.as_str()))
    }

    fn push_of(&mut self, id: ChannelId, number: u32) -> Option<PushId> {
        let pushes = &self.session(id)?.pushes;
        pushes.iter().find(|(other, _)| *other == number).map(|(_, push)| *push)
    }

    /// Ends what is not answered in time.
    pub(super) fn time_out(&mut self, now: Duration) {
        while let Some((when, number)) = self.deadlines.first() {
            if when > now {
                break;
            }
            match self.pushes.key_at(number) {
                Some(key) => self.settle(PushId(key), Outcome::TimedOut, Some(Cancel::TimedOut)),
                None => self.deadlines.remove(number),
            }
        }
    }

    /// Decides how a push ended, unless that is decided. The sender is told when it has room; the
    /// receiver too, if it knows of the push and did not end it.
    pub(super) fn settle(&mut self, push: PushId, outcome: Outcome, cancel: Option<Cancel>) {
        let Some(entry) = self.pushes.find_mut(push.0) else { return };
        if entry.outcome.is_some() {
            return;
        }
        entry.outcome = Some(outcome);
        if entry.word != Some(outcome) {
            // A reply of which the end is missing is none.
            entry.reply = Vec::new();
        }
        entry.cancel = cancel.filter(|_| entry.announced);
        let tells = entry.cancel.is_some();
        self.deadlines.remove(push.0.index);
        self.drop_held(push);
        if tells {
            self.queue_delivery(push);
        } else {
            self.leave_receiver(push);
        }
        self.queue_answer(push);
        self.forget(push);
    }

    /// Notes that the sender's ring is to hear of a push.
    pub(super) fn queue_answer(&mut self, push: PushId) {
        let Some(entry) = self.pushes.find_mut(push.0) else { return };
        let Some(side) = entry.sender.as_mut().filter(|side| !side.queued) else { return };
        side.queued = true;
        let channel = side.channel;
        if let Some(session) = self.session(channel) {
            session.answers.push_back(Answer::Push(push));
        }
        self.wake(channel);
    }

    /// The receiver's ring took `count` more bytes.
    pub(super) fn gave(&mut self, push: PushId, count: usize) {
        let Some(entry) = self.pushes.find_mut(push.0) else { return };
        entry.announced = true;
        entry.given += count as u64;
        let from = entry.from;
        let owes = entry.owes_credit();
        self.accounts.count(from, |counts| counts.bytes += count as u64);
        if owes {
            self.queue_answer(push);
        }
    }

    /// Writes what the sender is to hear of the push at the head of its answers; false if there is
    /// no room.
    pub(super) fn write_push_answer(
        &mut self,
        id: ChannelId,
        push: PushId,
    ) -> Result<bool, Violation> {
        let Some(channel) = self.channels.find_mut(id.0) else { return Ok(true) };
        let Some(entry) = self.pushes.find_mut(push.0) else { return Ok(self.pop_answer(id)) };
        let Some(side) = &mut entry.sender else { return Ok(self.pop_answer(id)) };
        let number = side.id;
        if let Some(outcome) = entry.outcome {
            if !channel.put(&Notice::PushDone { id: number, outcome }, &entry.reply)? {
                return Ok(false);
            }
            self.pop_answer(id);
            self.leave_sender(push);
            return Ok(true);
        }
        side.queued = false;
        if entry.owes_credit() {
            let bytes = u32::try_from(entry.given - entry.told).unwrap_or(u32::MAX);
            if !channel.put(&Notice::PushCredit { id: number, bytes }, &[])? {
                if let Some(side) = &mut entry.sender {
                    side.queued = true;
                }
                return Ok(false);
            }
            entry.told += u64::from(bytes);
        }
        Ok(self.pop_answer(id))
    }

    fn pop_answer(&mut self, id: ChannelId) -> bool {
        self.session(id).is_none_or(|session| session.answers.pop_front().is_some())
    }

    /// The sender knows the outcome, and has no more to do with the push.
    pub(super) fn leave_sender(&mut self, push: PushId) {
        let Some(entry) = self.pushes.find_mut(push.0) else { return };
        let Some(side) = entry.sender.take() else { return };
        let from = entry.from;
        if let Some(session) = self.session(side.channel) {
            session.pushes.retain(|&(number, _)| number != side.id);
        }
        self.accounts.release(from, PUSH_COST);
        self.forget(push);
    }

    /// The sender's channel ends.
    pub(super) fn lose_sender(&mut self, push: PushId, domain: DomId) {
        let Some(entry) = self.pushes.find_mut(push.0) else { return };
        entry.sender = None;
        self.accounts.release(domain, PUSH_COST);
        self.settle(push, Outcome::Cancelled, Some(Cancel::SenderGone));
        self.forget(push);
    }

    /// Removes a push that is over for both sides.
    pub(super) fn forget(&mut self, push: PushId) {
        let over = |entry: &Push| entry.sender.is_none() && entry.receiver.is_none();
        if self.pushes.find(push.0).is_some_and(over) {
            self.pushes.remove(push.0);
        }
    }

    /// The sender's id and channel, while it waits.
    pub(super) fn sender_of(&self, push: PushId) -> Option<(ChannelId, u32)> {
        let side = self.pushes.find(push.0)?.sender?;
        Some((side.channel, side.id))
    }
}
