//! Messages that are kept for those who subscribe later: the last one of each topic.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Bound;

#[cfg(any(test, fuzzing))]
use xen_sys::ids::DomId;
use xen_sys::page::Shared;

use super::Broker;
use super::publish::{LOOK_WORK, Message};
use crate::frame::Reason;
use crate::policy::covers;

/// What a kept message is charged beside its bytes and its topic.
const KEPT_COST: usize = 256;

/// Topics that are looked at in one go.
const LOOKS: usize = 256;

/// All of them, by topic.
#[derive(Debug, Default)]
pub(super) struct Kept {
    messages: BTreeMap<Box<str>, Rc<Message>>,
    /// What they are charged.
    pub(super) memory: usize,
}

/// How far a subscription has come with what was kept before it began.
#[derive(Debug)]
pub(super) struct Replay {
    /// The last topic that was looked at.
    topic: Option<Box<str>>,
    /// Messages from then on come by themselves.
    until: u64,
}

/// What comes next of what was kept.
pub(super) enum Next {
    Message(Rc<Message>),
    /// None of those that were looked at; there are more.
    Later,
    Nothing,
}

/// What a message that is kept is charged.
fn charge(message: &Message) -> usize {
    KEPT_COST + 2 * message.topic.len() + message.bytes.len()
}

impl Replay {
    /// Everything that was kept up to now.
    pub(super) const fn new(until: u64) -> Self {
        Self { topic: None, until }
    }

    /// Notes that everything up to that topic was looked at.
    pub(super) fn pass(&mut self, topic: &str) {
        self.topic = Some(topic.into());
    }
}

impl Kept {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// What each domain is charged. For tests.
    #[cfg(any(test, fuzzing))]
    pub(super) fn charges(&self) -> impl Iterator<Item = (DomId, usize)> {
        self.messages.values().map(|message| (message.from, charge(message)))
    }

    /// The next message for a subscription; what was looked at in vain is noted, and each look is
    /// added to `looks`.
    pub(super) fn next(&self, filter: &str, replay: &mut Replay, looks: &mut usize) -> Next {
        let fixed =
            filter.find(['+', '#']).map_or(filter, |end| filter[..end].trim_end_matches('/'));
        let start = match &replay.topic {
            Some(topic) => Bound::Excluded(&**topic),
            None => Bound::Included(fixed),
        };
        let mut last = None;
        let range = self.messages.range::<str, _>((start, Bound::Unbounded));
        for (count, (topic, message)) in range.enumerate() {
            if !topic.starts_with(fixed) {
                break;
            }
            *looks += 1;
            if count == LOOKS {
                replay.topic = last;
                return Next::Later;
            }
            if message.seq < replay.until && covers(filter, topic) {
                return Next::Message(Rc::clone(message));
            }
            last = (count + 1 == LOOKS).then(|| topic.clone());
        }
        Next::Nothing
    }
}

impl<M: Shared> Broker<M> {
    /// Keeps a message for later, in place of the one before of its topic; one of no bytes only
    /// removes that.
    pub(super) fn keep(&mut self, message: &Rc<Message>) -> Result<(), Reason> {
        let before = self.kept.messages.get(&message.topic).map(|old| (old.from, charge(old)));
        if message.bytes.is_empty() {
            self.unkeep(&message.topic);
            return Ok(());
        }
        let bytes = charge(message);
        if self.kept.memory.saturating_add(bytes) > self.limits.kept_memory {
            self.unkeep_departed();
        }
        if self.kept.memory.saturating_add(bytes) > self.limits.kept_memory
            || !self.accounts.charge(message.from, bytes, &self.limits)
        {
            return Err(Reason::NoMemory);
        }
        if let Some((domain, bytes)) = before {
            self.kept.memory -= bytes;
            self.accounts.release(domain, bytes);
        }
        self.kept.memory += bytes;
        self.kept.messages.insert(message.topic.clone(), Rc::clone(message));
        Ok(())
    }

    fn unkeep(&mut self, topic: &str) {
        if let Some(message) = self.kept.messages.remove(topic) {
            let bytes = charge(&message);
            self.kept.memory -= bytes;
            self.accounts.release(message.from, bytes);
        }
    }

    /// Gives up what domains left that have no channel any more: only when there is no room else,
    /// since a publisher may well come, say something and go.
    fn unkeep_departed(&mut self) {
        if !self.accounts.has_departed() {
            return;
        }
        self.work += self.kept.len() * LOOK_WORK;
        let departed = |message: &Rc<Message>| {
            self.accounts.find(message.from).is_none_or(|account| account.channels == 0)
        };
        let gone = self.kept.messages.extract_if(.., |_, message| departed(message));
        let gone: Vec<_> = gone.map(|(_, message)| (message.from, charge(&message))).collect();
        for (domain, bytes) in gone {
            self.kept.memory -= bytes;
            self.accounts.release(domain, bytes);
        }
    }
}
