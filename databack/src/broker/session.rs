//! A channel of services: what its front is at, and the turn that serves it.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::time::Duration;

use xen_sys::ids::DomId;
use xen_sys::page::Shared;
use xen_sys::ring::BadIndex;

use super::channel::{RESERVE, TURN_BYTES};
use super::publish::{Gathering, Message, PublicationId};
use super::services::SERVICE_COST;
use super::{Broker, ChannelId, Name, PushId, SubscriptionId, Turn, Violation};
use crate::frame::{self, Call, HEAD_MAX, Head, REPLY_MAX};
use crate::vchan::{End, Sizes};

/// Frames that one turn takes at most.
const TURN_FRAMES: usize = 64;

/// Bytes of room in a front's ring with which any answer fits but a status.
const ANSWER_ROOM: usize = 128;

const _: () = assert!(ANSWER_ROOM < RESERVE);

/// The least window: bytes of a block ahead of credit.
const LEAST_WINDOW: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) greeted: bool,
    pub(super) window: u32,
    pub(super) input: Input,
    /// What it is to be told, before anything of `bulk`.
    pub(super) answers: VecDeque<Answer>,
    /// What brings it bytes.
    pub(super) bulk: VecDeque<Bulk>,
    /// The message that it is getting.
    pub(super) sending: Option<Sending>,
    /// Its own pushes, by its ids.
    pub(super) pushes: Vec<(u32, PushId)>,
    /// Pushes to it.
    pub(super) deliveries: Vec<PushId>,
    /// What it serves.
    pub(super) services: Vec<Name>,
    /// What it no longer may serve, until it was told.
    pub(super) revoked: Vec<Name>,
    /// Its subscriptions, in order of its ids.
    pub(super) subscriptions: Vec<(u32, SubscriptionId)>,
    /// What it publishes, by its ids.
    pub(super) publications: Vec<(u32, PublicationId)>,
    /// The message that it is publishing.
    pub(super) gathering: Option<Gathering>,
    /// The last round of looking for receivers that met it.
    pub(super) round: u64,
}

/// A message on its way into a ring, which it may not fit into at once.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) message: Rc<Message>,
    pub(super) head: Head,
    /// How much of head and message is written.
    pub(super) at: usize,
    /// What its subscriber is charged until then.
    pub(super) charge: usize,
    /// Who waits until then.
    pub(super) publication: Option<PublicationId>,
}

/// Something that brings a front bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bulk {
    /// A block.
    Block(PushId),
    /// Messages.
    Messages(SubscriptionId),
}

/// Something that a front is to be told. What exactly, is known where it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Of its push: credit, or the outcome.
    Push(PushId),
    /// That its message was published.
    Publication(PublicationId),
    /// That a subscription is over.
    Ended(SubscriptionId),
    /// That it no longer serves the first of what was revoked.
    Revoked,
}

/// Where in a frame the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Head,
    Payload { left: u32, to: Sink },
}

/// Where a payload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    /// Nobody waits for it any more.
    Nobody,
    /// It is of a block.
    Block(PushId),
    /// It is the receiver's word on a block.
    Word(PushId),
    /// It is of the message that is being published.
    Message,
}

/// What came of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes of input are done with.
    Took(usize),
    /// There must be more bytes than these.
    Starved(usize),
    /// There must be more room than this for the answer.
    Blocked(usize),
}

impl Session {
    pub(super) fn new(sizes: Sizes) -> Self {
        let window = sizes.left().bytes().max(LEAST_WINDOW);
        Self {
            greeted: false,
            window: u32::try_from(window).unwrap_or(u32::MAX),
            input: Input::Head,
            answers: VecDeque::new(),
            bulk: VecDeque::new(),
            pushes: Vec::new(),
            deliveries: Vec::new(),
            services: Vec::new(),
            revoked: Vec::new(),
            sending: None,
            subscriptions: Vec::new(),
            publications: Vec::new(),
            gathering: None,
            round: 0,
        }
    }

    /// Makes room in its queues for one more of whatever may be in them; false if there is no
    /// memory.
    pub(super) fn reserve(&mut self) -> bool {
        let answers = self.pushes.len()
            + self.publications.len()
            + self.subscriptions.len()
            + self.services.len()
            + self.revoked.len();
        let bulk = self.deliveries.len() + self.subscriptions.len();
        self.answers.try_reserve((answers + 1).saturating_sub(self.answers.len())).is_ok()
            && self.bulk.try_reserve((bulk + 1).saturating_sub(self.bulk.len())).is_ok()
            && self.subscriptions.try_reserve(1).is_ok()
    }

    /// Where a subscription is, or would be.
    pub(super) fn find_subscription(&self, number: u32) -> Result<usize, usize> {
        self.subscriptions.binary_search_by_key(&number, |&(number, _)| number)
    }

    pub(super) fn forget_subscription(&mut self, number: u32, subscription: SubscriptionId) {
        if let Ok(place) = self.find_subscription(number) {
            self.subscriptions.remove(place);
        }
        self.bulk.retain(|&other| other != Bulk::Messages(subscription));
        self.answers.retain(|&other| other != Answer::Ended(subscription));
    }

    /// Whether an answer can go to it past its queue.
    pub(super) fn hears_nothing_else(&self) -> bool {
        self.answers.is_empty() && self.sending.is_none()
    }

    /// Whether bytes can go to it past both queues.
    pub(super) fn is_idle(&self) -> bool {
        self.hears_nothing_else() && self.bulk.is_empty()
    }
}

impl<M: Shared> Broker<M> {
    /// Takes what a front says, a bounded part of it.
    pub(super) fn serve_session(
        &mut self,
        id: ChannelId,
        now: Duration,
    ) -> Result<Turn, Violation> {
        self.write_out(id);
        let mut bytes = 0;
        self.work = 0;
        for _ in 0..TURN_FRAMES {
            match self.step(id, now)? {
                Step::Took(count) => bytes += count,
                Step::Starved(seen) => return self.wait(id, |end| end.await_bytes(seen)),
                Step::Blocked(seen) => return self.wait(id, |end| end.await_room(seen)),
            }
            if bytes + self.work >= TURN_BYTES {
                break;
            }
        }
        Ok(Turn::More)
    }

    fn wait(
        &mut self,
        id: ChannelId,
        look: impl FnOnce(&mut End<M>) -> Result<bool, BadIndex>,
    ) -> Result<Turn, Violation> {
        let Some(channel) = self.channels.find_mut(id.0) else { return Ok(Turn::Waits) };
        Ok(if look(&mut channel.end)? { Turn::More } else { Turn::Waits })
    }

    fn step(&mut self, id: ChannelId, now: Duration) -> Result<Step, Violation> {
        let Some(channel) = self.channels.find_mut(id.0) else { return Ok(Step::Starved(0)) };
        let Some(session) = channel.session() else { return Ok(Step::Starved(0)) };
        match session.input {
            Input::Head => self.take_head(id, now),
            Input::Payload { left, to } => {
                let waiting = channel.end.available()?;
                let count = waiting.min(left as usize);
                if count == 0 {
                    return Ok(Step::Starved(waiting));
                }
                match to {
                    Sink::Nobody => channel.end.consume(count),
                    Sink::Block(push) => self.take_block(id, push, count),
                    Sink::Word(push) => self.take_word(id, push, count, left as usize)?,
                    Sink::Message => self.take_message(id, count, left as usize),
                }
                self.took(id, left, to, count);
                Ok(Step::Took(count))
            }
        }
    }

    /// Notes that `count` bytes of the `left` bytes of a payload are done with.
    fn took(&mut self, id: ChannelId, left: u32, to: Sink, count: usize) {
        let left = left.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        if let Some(session) = self.session(id) {
            session.input = if left == 0 { Input::Head } else { Input::Payload { left, to } };
        }
    }

    fn take_head(&mut self, id: ChannelId, now: Duration) -> Result<Step, Violation> {
        let Some(channel) = self.channels.find_mut(id.0) else { return Ok(Step::Starved(0)) };
        let room = channel.end.room()?;
        let busy = channel.session().is_some_and(|session| session.sending.is_some());
        if busy || room < ANSWER_ROOM {
            return Ok(Step::Blocked(room));
        }
        let mut bytes = [0; HEAD_MAX];
        let count = channel.end.peek(&mut bytes)?;
        let Some(frame) = frame::decode::<Call<'_>>(&bytes[..count])? else {
            return Ok(Step::Starved(count));
        };
        if frame.header == Call::Status && room < RESERVE + REPLY_MAX as usize {
            return Ok(Step::Blocked(room));
        }
        channel.end.consume(frame.head);
        let to = self.take_call(id, frame.header, frame.payload, now)?;
        if frame.payload > 0
            && let Some(session) = self.session(id)
        {
            session.input = Input::Payload { left: frame.payload, to };
        }
        Ok(Step::Took(frame.head))
    }

    pub(super) fn session(&mut self, id: ChannelId) -> Option<&mut Session> {
        self.channels.find_mut(id.0)?.session()
    }

    /// Writes what waits for a front, as much as there is room for. What does not fit is tried once
    /// more after it was asked for room: what the front read in between brings no event.
    pub(super) fn write_out(&mut self, id: ChannelId) {
        for asks in [true, false] {
            let written = self.write_queues(id);
            self.touch(id);
            let asked = written.and_then(|all| {
                let Some(channel) = self.channels.find_mut(id.0) else { return Ok(false) };
                if all || !asks || channel.session().is_none() {
                    return Ok(false);
                }
                channel.end.await_room(0)?;
                Ok(true)
            });
            match asked {
                Ok(true) => {}
                Ok(false) => return,
                Err(violation) => return self.end(id, super::Ended::Violation(violation)),
            }
        }
    }

    /// Writes what there is room for, what is begun first; whether that was all.
    fn write_queues(&mut self, id: ChannelId) -> Result<bool, Violation> {
        Ok(self.write_sending(id)? && self.write_answers(id)? && self.write_bulk(id)?)
    }

    /// Writes answers; whether that was all.
    fn write_answers(&mut self, id: ChannelId) -> Result<bool, Violation> {
        while let Some(&answer) = self.session(id).and_then(|session| session.answers.front()) {
            let written = match answer {
                Answer::Push(push) => self.write_push_answer(id, push)?,
                Answer::Publication(publication) => self.write_published(id, publication)?,
                Answer::Ended(subscription) => self.write_ended(id, subscription)?,
                Answer::Revoked => self.write_revoked(id)?,
            };
            if !written {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes blocks and messages, of each a part in turn; whether that was all.
    fn write_bulk(&mut self, id: ChannelId) -> Result<bool, Violation> {
        while let Some(&bulk) = self.session(id).and_then(|session| session.bulk.front()) {
            let written = match bulk {
                Bulk::Block(push) => self.write_delivery(id, push)?,
                Bulk::Messages(subscription) => self.write_message(id, subscription)?,
            };
            if !written {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ends everything that a front has begun or was to have.
    pub(super) fn end_session(&mut self, id: ChannelId, domain: DomId, session: Session) {
        for name in &session.services {
            self.services.remove(name, domain, id);
        }
        self.accounts.release(domain, session.services.len() * SERVICE_COST);
        for &(_, push) in &session.pushes {
            self.lose_sender(push, domain);
        }
        for &push in &session.deliveries {
            self.lose_receiver(push, domain);
        }
        let gathering = session.gathering.as_ref().map(Gathering::publication);
        for &(_, publication) in &session.publications {
            self.lose_publisher(publication, gathering == Some(publication));
        }
        for &(_, subscription) in &session.subscriptions {
            self.remove_subscription(subscription);
        }
        if let Some(sending) = session.sending {
            self.accounts.release(domain, sending.charge);
            self.taken(sending.publication);
        }
    }
}
