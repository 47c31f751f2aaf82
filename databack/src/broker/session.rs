//! A channel of services: what its front is at, and the turn that serves it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use xen_sys::ids::DomId;
use xen_sys::page::Shared;
use xen_sys::ring::BadIndex;

use super::channel::{RESERVE, TURN_BYTES};
use super::{Broker, ChannelId, Name, PushId, Turn, Violation};
use crate::frame::{self, Call, HEAD_MAX, REPLY_MAX};
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
    pub(super) bulk: VecDeque<PushId>,
    /// Its own pushes, by its ids.
    pub(super) pushes: Vec<(u32, PushId)>,
    /// Pushes to it.
    pub(super) deliveries: Vec<PushId>,
    /// What it serves.
    pub(super) services: Vec<Name>,
}

/// Something that a front is to be told. What exactly, is known where it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Of its push: credit, or the outcome.
    Push(PushId),
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
        }
    }

    /// Whether bytes can go to it past both queues.
    pub(super) fn is_idle(&self) -> bool {
        self.answers.is_empty() && self.bulk.is_empty()
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
        for _ in 0..TURN_FRAMES {
            match self.step(id, now)? {
                Step::Took(count) => bytes += count,
                Step::Starved(seen) => return self.wait(id, |end| end.await_bytes(seen)),
                Step::Blocked(seen) => return self.wait(id, |end| end.await_room(seen)),
            }
            if bytes >= TURN_BYTES {
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
        if room < ANSWER_ROOM {
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

    /// Writes what waits for a front, as much as there is room for.
    pub(super) fn write_out(&mut self, id: ChannelId) {
        loop {
            let written = self
                .write_answers(id)
                .and_then(|all| if all { self.write_bulk(id) } else { Ok(false) });
            self.touch(id);
            let again = written.and_then(|all| {
                let Some(channel) = self.channels.find_mut(id.0) else { return Ok(false) };
                if all || channel.session().is_none() {
                    return Ok(false);
                }
                let room = channel.end.room()?;
                Ok(channel.end.await_room(room)?)
            });
            match again {
                Ok(true) => {}
                Ok(false) => return,
                Err(violation) => return self.end(id, super::Ended::Violation(violation)),
            }
        }
    }

    /// Writes answers; whether that was all.
    fn write_answers(&mut self, id: ChannelId) -> Result<bool, Violation> {
        while let Some(&answer) = self.session(id).and_then(|session| session.answers.front()) {
            let written = match answer {
                Answer::Push(push) => self.write_push_answer(id, push)?,
            };
            if !written {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes blocks, each a part in turn; whether that was all.
    fn write_bulk(&mut self, id: ChannelId) -> Result<bool, Violation> {
        while let Some(&push) = self.session(id).and_then(|session| session.bulk.front()) {
            if !self.write_delivery(id, push)? {
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
        for &(_, push) in &session.pushes {
            self.lose_sender(push, domain);
        }
        for &push in &session.deliveries {
            self.lose_receiver(push, domain);
        }
    }
}
