//! Blocks on their way: the receiver's side of them.

use xen_sys::ids::DomId;
use xen_sys::page::Shared;

use super::channel::RESERVE;
use super::push::Push;
use super::session::{Bulk, Sink};
use super::{Broker, ChannelId, Ended, PushId, Violation};
use crate::frame::{self, Cancel, Head, Notice, Outcome, PAYLOAD_MAX};

/// Bytes below which a part of a block is not worth a frame, unless it is all there is.
const LEAST_PART: usize = 1024;

impl Push {
    /// The head of a frame that brings the receiver the next `count` bytes.
    fn head(&self, push: PushId, count: usize) -> Head {
        let (id, len) = (push.on_wire(), self.len);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let head = if self.announced {
            frame::encode(&Notice::DeliverData { id }, count)
        } else {
            let from = self.from.raw();
            frame::encode(&Notice::Deliver { id, from, name: self.name.as_str(), len }, count)
        };
        head.expect("a notice of ours has room in a head")
    }

    /// How many of `have` bytes are to go into a ring with so much room.
    fn part(&self, push: PushId, have: usize, room: usize) -> Option<usize> {
        let have = have.min(PAYLOAD_MAX as usize);
        let head = self.head(push, have).bytes().len();
        let fits = room.checked_sub(RESERVE + head)?.min(have);
        (fits == have || fits >= LEAST_PART).then_some(fits)
    }
}

impl<M: Shared> Broker<M> {
    /// Tells the receiver of a block of which no byte is there yet.
    pub(super) fn announce(&mut self, push: PushId) {
        self.queue_delivery(push);
    }

    /// Takes `count` bytes of a block that wait at the sender's end: into the receiver's ring if
    /// it has room, else into memory.
    pub(super) fn take_block(&mut self, id: ChannelId, push: PushId, count: usize) {
        let live = self.pushes.find(push.0).filter(|entry| entry.outcome.is_none());
        let receiver = live.and_then(|entry| entry.receiver).map(|side| side.channel);
        if let Some(receiver) = receiver {
            match self.pass(id, push, receiver, count) {
                Ok(0) => self.hold(id, push, 0, count),
                Ok(passed) => {
                    self.touch(receiver);
                    self.gave(push, passed);
                    if passed < count {
                        self.hold(id, push, passed, count - passed);
                    }
                }
                Err(violation) => self.end(receiver, Ended::Violation(violation)),
            }
        }
        if let Some(channel) = self.channels.find_mut(id.0) {
            channel.end.consume(count);
        }
    }

    /// Passes bytes from ring to ring, as far as there is room; how many.
    fn pass(
        &mut self,
        id: ChannelId,
        push: PushId,
        receiver: ChannelId,
        count: usize,
    ) -> Result<usize, Violation> {
        let Some(entry) = self.pushes.find(push.0) else { return Ok(0) };
        // To itself there is only the way through memory.
        let Some((from, to)) = self.channels.find_both(id.0, receiver.0) else { return Ok(0) };
        if !to.session().is_some_and(|session| session.is_idle()) {
            return Ok(0);
        }
        let Some(part) = entry.part(push, count, to.end.room()?) else { return Ok(0) };
        let fits = from.end.forward(&mut to.end, entry.head(push, part).bytes(), 0..part)?;
        Ok(if fits { part } else { 0 })
    }

    /// Keeps bytes that wait at the sender's end, from `skip` on, until the receiver has room.
    fn hold(&mut self, id: ChannelId, push: PushId, skip: usize, count: usize) {
        if !self.open_held(push) {
            return self.settle(push, Outcome::Busy, Some(Cancel::Busy));
        }
        let Some(channel) = self.channels.find(id.0) else { return };
        let Some(entry) = self.pushes.find_mut(push.0) else { return };
        channel.end.copy_out(skip, entry.held.extend(count));
        self.queue_delivery(push);
    }

    /// Sees to it that a push has memory for what waits; false if there is none.
    fn open_held(&mut self, push: PushId) -> bool {
        let Some(entry) = self.pushes.find_mut(push.0) else { return false };
        if entry.held.capacity() > 0 {
            return true;
        }
        let Some(side) = entry.receiver else { return false };
        let most = entry.most_held();
        let Some(domain) = self.domain_of(side.channel) else { return false };
        if !self.accounts.charge(domain, most, &self.limits) {
            return false;
        }
        let opened = self.pushes.find_mut(push.0).is_some_and(|entry| entry.held.open(most));
        if !opened {
            self.accounts.release(domain, most);
        }
        opened
    }

    /// Gives up the memory for what waits.
    pub(super) fn drop_held(&mut self, push: PushId) {
        let Some(entry) = self.pushes.find_mut(push.0) else { return };
        let held = core::mem::take(&mut entry.held);
        let receiver = entry.receiver.map(|side| side.channel);
        if held.capacity() > 0
            && let Some(domain) = receiver.and_then(|channel| self.domain_of(channel))
        {
            self.accounts.release(domain, held.capacity());
        }
    }

    /// Notes that the receiver's ring is to have something of a push.
    pub(super) fn queue_delivery(&mut self, push: PushId) {
        let Some(entry) = self.pushes.find_mut(push.0) else { return };
        let Some(side) = entry.receiver.as_mut().filter(|side| !side.queued) else { return };
        side.queued = true;
        let channel = side.channel;
        if let Some(session) = self.session(channel) {
            session.bulk.push_back(Bulk::Block(push));
        }
        self.wake(channel);
    }

    /// Writes what the receiver is to have of the push at the head of its queue; false if there is
    /// no room.
    pub(super) fn write_delivery(
        &mut self,
        id: ChannelId,
        push: PushId,
    ) -> Result<bool, Violation> {
        let Some(channel) = self.channels.find_mut(id.0) else { return Ok(true) };
        let Some(entry) = self.pushes.find_mut(push.0) else { return Ok(self.pop_bulk(id)) };
        if let Some(reason) = entry.cancel {
            let notice = Notice::DeliverCancel { id: push.on_wire(), reason };
            if !channel.put(&notice, &[])? {
                return Ok(false);
            }
        }
        if entry.outcome.is_some() {
            self.pop_bulk(id);
            if let Some(side) = self.pushes.find_mut(push.0).and_then(|e| e.receiver.as_mut()) {
                side.queued = false;
            }
            self.leave_receiver(push);
            return Ok(true);
        }
        let Some(part) = entry.part(push, entry.held.len(), channel.end.room()?) else {
            return Ok(false);
        };
        let head = entry.head(push, part);
        channel.end.write(head.bytes())?;
        channel.end.write(&entry.held.bytes()[..part])?;
        entry.held.consume(part);
        let rest = entry.held.len();
        if let Some(side) = &mut entry.receiver {
            side.queued = rest > 0;
        }
        self.pop_bulk(id);
        if rest > 0 {
            if let Some(session) = self.session(id) {
                session.bulk.push_back(Bulk::Block(push));
            }
        } else {
            self.drop_held(push);
        }
        self.gave(push, part);
        Ok(true)
    }

    fn pop_bulk(&mut self, id: ChannelId) -> bool {
        self.session(id).is_none_or(|session| session.bulk.pop_front().is_some())
    }

    /// The receiver begins to say what became of a delivery; where the payload of that goes.
    pub(super) fn start_word(
        &mut self,
        id: ChannelId,
        delivery: u64,
        word: Outcome,
        payload: u32,
    ) -> Sink {
        let push = PushId::from_wire(delivery);
        let Some(entry) = self.pushes.find_mut(push.0) else { return Sink::Nobody };
        let its_own = entry.receiver.is_some_and(|side| side.channel == id) && entry.announced;
        if !its_own || entry.outcome.is_some() {
            return Sink::Nobody;
        }
        if payload == 0 {
            self.settle(push, word, None);
            return Sink::Nobody;
        }
        entry.word = Some(word);
        Sink::Word(push)
    }

    /// Takes `count` of the `left` bytes of a receiver's word, which wait at its end.
    pub(super) fn take_word(
        &mut self,
        id: ChannelId,
        push: PushId,
        count: usize,
        left: usize,
    ) -> Result<(), Violation> {
        let passed = count == left && self.pass_word(id, push, count);
        let Some(channel) = self.channels.find_mut(id.0) else { return Ok(()) };
        let entry = self.pushes.find_mut(push.0).filter(|entry| entry.outcome.is_none());
        let Some(entry) = entry.filter(|_| !passed) else {
            channel.end.consume(count);
            return Ok(());
        };
        let (word, start) = (entry.word, entry.reply.len());
        if entry.reply.try_reserve_exact(left).is_err() {
            channel.end.consume(count);
            self.settle(push, Outcome::Busy, None);
            return Ok(());
        }
        entry.reply.resize(start + count, 0);
        channel.end.copy_out(0, &mut entry.reply[start..]);
        channel.end.consume(count);
        if count == left
            && let Some(outcome) = word
        {
            self.settle(push, outcome, None);
        }
        Ok(())
    }

    /// Passes a whole reply from ring to ring, if the sender has room and hears nothing else first.
    fn pass_word(&mut self, id: ChannelId, push: PushId, count: usize) -> bool {
        let Some((sender, number)) = self.sender_of(push) else { return false };
        let Some(entry) = self.pushes.find(push.0) else { return false };
        let whole = entry.outcome.is_none() && entry.reply.is_empty();
        let Some(outcome) = entry.word.filter(|_| whole) else { return false };
        let Some((from, to)) = self.channels.find_both(id.0, sender.0) else { return false };
        if !to.session().is_some_and(|session| session.hears_nothing_else()) {
            return false;
        }
        let length = u32::try_from(count).unwrap_or(u32::MAX);
        let notice = Notice::PushDone { id: number, outcome };
        let head = frame::encode(&notice, length).expect("a notice of ours has room in a head");
        match from.end.forward(&mut to.end, head.bytes(), 0..count) {
            Ok(true) => {
                self.touch(sender);
                self.leave_sender(push);
                self.settle(push, outcome, None);
                true
            }
            Ok(false) => false,
            Err(bad) => {
                self.end(sender, Ended::Violation(bad.into()));
                true
            }
        }
    }

    /// The receiver has no more to do with a push that is over, or will have when the queue comes
    /// to it.
    pub(super) fn leave_receiver(&mut self, push: PushId) {
        let Some(entry) = self.pushes.find_mut(push.0) else { return };
        let Some(side) = entry.receiver.filter(|side| !side.queued) else { return };
        let place = entry.place;
        entry.receiver = None;
        let Some(session) = self.session(side.channel) else { return };
        session.deliveries.swap_remove(place);
        let moved = session.deliveries.get(place).copied();
        if let Some(entry) = moved.and_then(|moved| self.pushes.find_mut(moved.0)) {
            entry.place = place;
        }
        self.forget(push);
    }

    /// The receiver's channel ends.
    pub(super) fn lose_receiver(&mut self, push: PushId, domain: DomId) {
        let Some(entry) = self.pushes.find_mut(push.0) else { return };
        entry.receiver = None;
        let held = core::mem::take(&mut entry.held);
        self.accounts.release(domain, held.capacity());
        self.settle(push, Outcome::ReceiverGone, None);
        self.forget(push);
    }
}
