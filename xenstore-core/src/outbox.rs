//! What waits to be sent to one connection: replies and events, in one order.
//!
//! Replies are kept as the bytes that will be sent. An event is kept as a note of which watch is to
//! be told what, and becomes bytes when there is room for them; all who hear of one change share
//! its path. Events are kept from piling up: one that waits already is not noted again, and a watch
//! with many waiting ones gets a single event for its own path instead of more. So a connection
//! that does not read costs a bounded amount of memory, and nobody else any time.

mod spare;
mod waiting;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::iter;

use zerocopy::{FromBytes, IntoBytes};

use crate::watch::{Watch, WatchId, Watches};
use crate::wire::{HEADER_SIZE, Header, PAYLOAD_MAX};
pub(crate) use spare::Spare;
use waiting::{Orphan, Waiting, What, frame_len, narrow, small};

/// The most events that wait for one watch before they become one.
const EVENTS_PER_WATCH: usize = 32;

/// When this much memory is held by what waits, every watch's events become one at once.
const CROWDED: usize = 32 << 10;

/// So many bytes of events are made at once, where so many wait: a ring's worth.
const EVENTS_AT_ONCE: usize = 1024;

/// Room for events that an idle connection keeps.
const SPARE_EVENTS: usize = 4;

#[derive(Debug)]
pub(crate) struct Outbox {
    /// Replies, one after another.
    replies: Vec<u8>,
    /// Up to where they were sent.
    sent: u32,
    /// Where the first reply begins that was not sent to its end.
    front: u32,
    events: VecDeque<Waiting>,
    /// How many bytes of replies were dropped from the front since the first.
    base: u32,
    /// The number of the first of `events`; each further one has the next number.
    first: u32,
    replies_waiting: u32,
    /// The most replies that waited at once.
    most_replies: u32,
    /// How many bytes the events will have.
    events_len: u32,
    /// How many bytes of paths they hold, shared or not.
    paths_len: u32,
    /// How many bytes of the first event were sent.
    event_sent: u16,
    /// There was no memory for an event: every watch must be told of its own path, from this one
    /// on in the connection's list. [`NOTHING`] if there was.
    owed: u32,
}

/// No watch is owed anything.
const NOTHING: u32 = u32::MAX;

/// An event to be noted.
#[derive(Debug)]
pub(crate) struct Event<'a> {
    pub(crate) id: WatchId,
    pub(crate) watch: &'a Watch,
    /// The path that changed.
    pub(crate) path: &'a [u8],
    /// How much of it is told.
    pub(crate) told: usize,
    /// How much of it is the watch's own path.
    pub(crate) own: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            replies: Vec::new(),
            sent: 0,
            front: 0,
            events: VecDeque::new(),
            base: 0,
            first: 0,
            replies_waiting: 0,
            most_replies: 0,
            events_len: 0,
            paths_len: 0,
            event_sent: 0,
            owed: NOTHING,
        }
    }
}

impl Outbox {
    /// Returns how many replies wait.
    pub(crate) fn replies(&self) -> usize {
        self.replies_waiting as usize
    }

    /// Forgets how many replies waited at once, apart from those that do now.
    pub(crate) fn forget_highest(&mut self) {
        self.most_replies = self.replies_waiting;
    }

    /// Returns the most replies that waited at once.
    pub(crate) fn most_replies(&self) -> usize {
        self.most_replies as usize
    }

    /// Returns how many bytes wait.
    pub(crate) fn len(&self) -> usize {
        let events = self.events_len as usize - usize::from(self.event_sent);
        self.replies.len() - self.sent as usize + events
    }

    /// Returns the number that the next event will have.
    pub(crate) fn next_event(&self) -> u32 {
        self.first.wrapping_add(u32::try_from(self.events.len()).unwrap_or(u32::MAX))
    }

    /// Whether nothing waits and nothing is owed.
    #[inline]
    pub(crate) fn is_at_rest(&self) -> bool {
        self.events.is_empty() && self.replies.is_empty() && self.owed == NOTHING
    }

    /// Queues a reply.
    ///
    /// A payload that is too long for a frame is none: false.
    #[inline]
    pub(crate) fn reply(&mut self, mut header: Header, spare: &mut Spare, payload: &[u8]) -> bool {
        if payload.len() > PAYLOAD_MAX {
            return false;
        }
        if self.replies.capacity() == 0 {
            self.replies = spare.take();
        }
        header.len = u32::try_from(payload.len()).unwrap_or(0).into();
        self.replies.reserve(HEADER_SIZE + payload.len());
        self.replies.extend_from_slice(header.as_bytes());
        self.replies.extend_from_slice(payload);
        self.count_reply();
        true
    }

    /// Queues a reply whose payload the caller writes.
    ///
    /// A payload that is too long for a frame is taken back: false.
    #[inline(never)]
    pub(crate) fn long_reply(
        &mut self,
        mut header: Header,
        spare: &mut Spare,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        if self.replies.capacity() == 0 {
            self.replies = spare.take();
        }
        let start = self.replies.len();
        self.replies.extend_from_slice(header.as_bytes());
        write(&mut self.replies);
        let len = self.replies.len() - start - HEADER_SIZE;
        if len > PAYLOAD_MAX {
            self.replies.truncate(start);
            return false;
        }
        header.len = u32::try_from(len).unwrap_or(0).into();
        self.replies[start..start + HEADER_SIZE].copy_from_slice(header.as_bytes());
        self.count_reply();
        true
    }

    fn count_reply(&mut self) {
        self.replies_waiting += 1;
        self.most_replies = self.most_replies.max(self.replies_waiting);
    }

    /// Notes an event and returns its number; `None` if it is not needed. `shared` holds the path
    /// for all who are told of it.
    pub(crate) fn event(
        &mut self,
        event: &Event<'_>,
        shared: &mut Option<Rc<[u8]>>,
    ) -> Option<u32> {
        let &Event { id, watch, path, own, mut told } = event;
        let again = |waiting: &Waiting, told: usize| waiting.tells(&path[..told], own);
        let (count, known) = self.waiting_of(event, |waiting| again(waiting, told));
        // Events of special names are counted by some clients, and stay apart.
        if known && path.first() != Some(&b'@') {
            return None;
        }
        if told != own && (count >= EVENTS_PER_WATCH || self.held() > CROWDED) {
            told = own;
            if self.waiting_of(event, |waiting| again(waiting, own)).1 {
                return None;
            }
        }
        let len = told.saturating_sub(watch.implied()) + watch.token().len() + 2;
        if len > PAYLOAD_MAX {
            return None;
        }
        if self.events.try_reserve(1).is_err() {
            self.owed = 0;
            return None;
        }
        let number = self.next_event();
        // To make a watch's path from the names of its points takes longer than to share it, but not
        // than to have it for this one event.
        let alone = shared.is_none() || told < path.len();
        let what = if told == own && (alone || self.held() > CROWDED) {
            What::Own
        } else {
            self.paths_len += small(path.len());
            What::Path(Rc::clone(shared.get_or_insert_with(|| path.into())))
        };
        let at = self.base.wrapping_add(small(self.replies.len()));
        let (len, told) = (narrow(len), narrow(told));
        self.events_len += frame_len(len);
        let previous = watch.newest;
        self.events.push_back(Waiting { watch: id, previous, at, len, told, what });
        Some(number)
    }

    /// Lets the events that wait for a watch go on without it; `own` tells its path.
    pub(crate) fn orphan(&mut self, id: WatchId, watch: &Watch, own: impl FnOnce() -> Rc<[u8]>) {
        let places: Vec<_> = self.places_of(id, watch.newest).collect();
        if places.is_empty() {
            return;
        }
        let (own, token, implied) = (own(), watch.shared_token(), watch.implied());
        for place in places {
            let Some(waiting) = self.events.get_mut(place) else { continue };
            let path = match &waiting.what {
                What::Own => {
                    self.paths_len += small(own.len());
                    &own
                }
                What::Path(path) => path,
                What::Orphan(_) => continue,
            };
            let (path, token) = (Rc::clone(path), Rc::clone(&token));
            waiting.what = What::Orphan(Box::new(Orphan { path, implied, token }));
        }
    }

    /// Returns the bytes to send next.
    #[inline]
    pub(crate) fn next<'a>(&'a self, watches: &Watches, spare: &'a mut Spare) -> Option<&'a [u8]> {
        if self.events.is_empty() {
            return self.replies.get(self.sent as usize..).filter(|bytes| !bytes.is_empty());
        }
        self.next_with_events(watches, spare)
    }

    #[inline(never)]
    fn next_with_events<'a>(&'a self, watches: &Watches, spare: &'a mut Spare) -> Option<&'a [u8]> {
        let sent = self.sent as usize;
        let before = self.events.front().map_or(self.replies.len(), |event| self.place_of(event));
        if before > sent {
            return self.replies.get(sent..before);
        }
        let frames = &mut spare.frames;
        frames.clear();
        // Most often there is one: an index for it costs less than an iterator over two slices.
        for event in (0..).map_while(|place| self.events.get(place)) {
            if self.place_of(event) != sent || frames.len() >= EVENTS_AT_ONCE {
                break;
            }
            event.extend(frames, watches);
        }
        frames.get(self.event_sent.into()..).filter(|bytes| !bytes.is_empty())
    }

    /// Forgets bytes that were sent, at most those that wait.
    #[inline]
    pub(crate) fn forget(&mut self, count: usize, spare: &mut Spare) {
        if count < self.len() {
            return self.forget_some(count, spare);
        }
        if !self.events.is_empty() {
            self.forget_events();
        }
        self.replies_waiting = 0;
        self.empty(spare);
    }

    /// Drops all events.
    fn forget_events(&mut self) {
        self.first = self.next_event();
        while self.events.pop_front().is_some() {}
        if self.events.capacity() > SPARE_EVENTS {
            self.events = VecDeque::new();
        }
        (self.events_len, self.paths_len, self.event_sent) = (0, 0, 0);
    }

    #[inline(never)]
    fn forget_some(&mut self, mut count: usize, spare: &mut Spare) {
        while count > 0 {
            let next = self.events.front().map(|event| (self.place_of(event), event.len));
            count = match next {
                Some((place, len)) if place == self.sent as usize => self.forget_event(len, count),
                _ => {
                    let before = next.map_or(self.replies.len(), |(place, _)| place);
                    let more = count.min(before - self.sent as usize);
                    if more == 0 {
                        break;
                    }
                    self.sent += small(more);
                    count - more
                }
            };
        }
        self.forget_replies(spare);
    }

    /// Drops everything that waits.
    pub(crate) fn clear(&mut self, spare: &mut Spare) {
        self.forget_events();
        (self.replies_waiting, self.owed) = (0, NOTHING);
        self.empty(spare);
    }

    /// Returns where in the list of watches those begin that must be told of their own paths,
    /// when all else was sent.
    pub(crate) fn owed(&self) -> Option<usize> {
        (self.owed != NOTHING && self.len() == 0).then_some(self.owed as usize)
    }

    /// Notes where those begin now.
    pub(crate) fn owe(&mut self, first: Option<usize>) {
        self.owed = first.map_or(NOTHING, small);
    }

    /// As [`owe`](Self::owe) of all, where some are; the list was put in another order.
    pub(crate) fn owe_from_start(&mut self) {
        if self.owed != NOTHING {
            self.owed = 0;
        }
    }

    /// Returns roughly how much memory is held by what waits.
    pub(crate) fn held(&self) -> usize {
        let events = self.events.len() * size_of::<Waiting>() + self.paths_len as usize;
        self.replies.len() + events
    }

    /// Returns where the replies end that come before an event.
    fn place_of(&self, event: &Waiting) -> usize {
        event.at.wrapping_sub(self.base) as usize
    }

    /// Forgets bytes of the first event, which has a payload of that length; returns how many
    /// bytes are left of `count`.
    fn forget_event(&mut self, len: u16, count: usize) -> usize {
        let frame = frame_len(len);
        let left = frame as usize - usize::from(self.event_sent);
        if count < left {
            self.event_sent += narrow(count);
            return 0;
        }
        match self.events.pop_front().map(|event| event.what) {
            None | Some(What::Own) => {}
            Some(What::Path(path)) => self.paths_len -= small(path.len()),
            Some(What::Orphan(orphan)) => self.paths_len -= small(orphan.path.len()),
        }
        self.first = self.first.wrapping_add(1);
        self.events_len -= frame;
        self.event_sent = 0;
        if self.events.is_empty() && self.events.capacity() > SPARE_EVENTS {
            self.events = VecDeque::new();
        }
        count - left
    }

    /// Takes replies that were sent to their end off the counts, and their bytes away.
    fn forget_replies(&mut self, spare: &mut Spare) {
        while let Some(end) = self.front_end().filter(|end| *end <= self.sent) {
            self.replies_waiting -= 1;
            self.front = end;
        }
        let front = self.front as usize;
        if front == self.replies.len() {
            self.empty(spare);
        } else if front > PAYLOAD_MAX && front > self.replies.len() / 2 {
            self.replies.drain(..front);
            self.base = self.base.wrapping_add(self.front);
            self.sent -= self.front;
            self.front = 0;
        }
    }

    /// Gives the replies' buffer back.
    fn empty(&mut self, spare: &mut Spare) {
        self.base = self.base.wrapping_add(small(self.replies.len()));
        (self.sent, self.front) = (0, 0);
        spare.give(core::mem::take(&mut self.replies));
    }

    fn front_end(&self) -> Option<u32> {
        let front = self.replies.get(self.front as usize..)?;
        let (header, _) = Header::read_from_prefix(front).ok()?;
        Some(self.front + small(HEADER_SIZE) + header.len.get())
    }

    /// Returns how many events of the watch wait, up to one that fits, and whether one does.
    fn waiting_of(&self, event: &Event<'_>, fits: impl Fn(&Waiting) -> bool) -> (usize, bool) {
        let mut count = 0;
        for place in self.places_of(event.id, event.watch.newest) {
            count += 1;
            if self.events.get(place).is_some_and(&fits) {
                return (count, true);
            }
        }
        (count, false)
    }

    /// Returns where the events of a watch are, the last one first.
    fn places_of(&self, watch: WatchId, newest: u32) -> impl Iterator<Item = usize> + '_ {
        // Numbers of events that were sent, or of a watch that was there before, match nothing.
        let (mut number, mut before) = (newest, self.events.len());
        iter::from_fn(move || {
            let place = number.wrapping_sub(self.first) as usize;
            let waiting = self.events.get(place).filter(|waiting| waiting.watch == watch)?;
            if place >= before {
                return None;
            }
            (before, number) = (place, waiting.previous);
            Some(place)
        })
    }
}

#[cfg(test)]
mod tests;
