//! What waits to be sent to one connection: replies and events, in one order.
//!
//! Frames are kept as the bytes that will be sent. Events are kept from piling up: one that waits
//! already is not queued again, and a watch with many waiting ones gets a single event for its own
//! path instead of more. So a connection that does not read costs a bounded amount of memory, and
//! nobody else any time.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use zerocopy::{FromBytes, IntoBytes};

use crate::watch::WatchId;
use crate::wire::{HEADER_SIZE, Header, Op, PAYLOAD_MAX};

/// The most events that wait for one watch before they become one.
const EVENTS_PER_WATCH: usize = 32;

/// When this many bytes wait, every watch's events become one at once.
const CROWDED: usize = 32 << 10;

/// A buffer that grew beyond this is freed when it is empty, not kept for the next connection.
const SPARE_CAPACITY: usize = 8 << 10;

/// How many empty buffers are kept for connections that next have something to send.
const SPARE_BUFFERS: usize = 16;

/// Room for events that an idle connection keeps.
const SPARE_EVENTS: usize = 8;

/// Buffers that no connection needs now: an idle one holds none.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<Vec<u8>>);

impl Spare {
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < SPARE_BUFFERS && (1..=SPARE_CAPACITY).contains(&buffer.capacity()) {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// Up to where the bytes were sent.
    sent: usize,
    /// Where the first frame begins that was not sent to its end.
    front: usize,
    /// How many bytes were dropped from the front of `bytes` since they were first queued.
    base: u64,
    events: VecDeque<Waiting>,
    /// The number of the first of `events`; each further one has the next number.
    first: u32,
    replies: u32,
    /// The most replies that waited at once.
    most_replies: u32,
}

/// An event that waits.
#[derive(Debug)]
struct Waiting {
    /// Where its frame begins, counted like `base`.
    at: u64,
    watch: WatchId,
    /// The number of the event that was queued before it for the same watch.
    previous: u32,
}

/// An event to be queued.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event<'a> {
    pub(crate) watch: WatchId,
    /// The number of the last event of the same watch.
    pub(crate) newest: u32,
    /// The path that changed, as the watch's owner spells it.
    pub(crate) path: &'a [u8],
    /// The path of the watch, likewise.
    pub(crate) own: &'a [u8],
    pub(crate) token: &'a [u8],
}

impl Outbox {
    /// Returns how many replies wait.
    pub(crate) fn replies(&self) -> usize {
        self.replies as usize
    }

    /// Forgets how many replies waited at once, apart from those that do now.
    pub(crate) fn forget_highest(&mut self) {
        self.most_replies = self.replies;
    }

    /// Returns the most replies that waited at once.
    pub(crate) fn most_replies(&self) -> usize {
        self.most_replies as usize
    }

    /// Returns how many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Returns the number that the next event will have.
    pub(crate) fn next_event(&self) -> u32 {
        self.first.wrapping_add(u32::try_from(self.events.len()).unwrap_or(u32::MAX))
    }

    /// Queues a reply whose payload the caller writes.
    ///
    /// A payload that is too long for a frame is taken back: false.
    pub(crate) fn reply(
        &mut self,
        mut header: Header,
        spare: &mut Spare,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let start = self.begin(spare);
        self.bytes.extend_from_slice(header.as_bytes());
        write(&mut self.bytes);
        let len = self.bytes.len() - start - HEADER_SIZE;
        if len > PAYLOAD_MAX {
            self.bytes.truncate(start);
            return false;
        }
        header.len = u32::try_from(len).unwrap_or(0).into();
        self.bytes[start..start + HEADER_SIZE].copy_from_slice(header.as_bytes());
        self.replies += 1;
        self.most_replies = self.most_replies.max(self.replies);
        true
    }

    /// Queues an event and returns its number; `None` if it is not needed.
    pub(crate) fn event(&mut self, event: Event<'_>, spare: &mut Spare) -> Option<u32> {
        let mut path = event.path;
        let (waiting, again) = self.waiting_of(event, path);
        // Events of special names are counted by some clients, and stay apart.
        if again && path.first() != Some(&b'@') {
            return None;
        }
        if waiting >= EVENTS_PER_WATCH || (waiting > 0 && self.len() > CROWDED) {
            path = event.own;
            if self.waiting_of(event, path).1 {
                return None;
            }
        }
        let len = path.len() + event.token.len() + 2;
        if len > PAYLOAD_MAX {
            return None;
        }
        let start = self.begin(spare);
        let kind = Op::WatchEvent.to_wire();
        let header = Header::new(kind, 0, 0, u32::try_from(len).unwrap_or(0));
        for part in [header.as_bytes(), path, b"\0", event.token, b"\0"] {
            self.bytes.extend_from_slice(part);
        }
        let number = self.next_event();
        let at = self.base + start as u64;
        self.events.push_back(Waiting { at, watch: event.watch, previous: event.newest });
        Some(number)
    }

    /// Returns the bytes to send next.
    pub(crate) fn next(&self) -> Option<&[u8]> {
        self.bytes.get(self.sent..).filter(|bytes| !bytes.is_empty())
    }

    /// Forgets bytes that were sent, at most those that wait.
    pub(crate) fn forget(&mut self, count: usize, spare: &mut Spare) {
        self.sent = self.bytes.len().min(self.sent.saturating_add(count));
        if self.sent == self.bytes.len() {
            self.first = self.next_event();
            self.events.clear();
            self.replies = 0;
            self.empty(spare);
            return;
        }
        while let Some(end) = self.front_end() {
            if end > self.sent {
                break;
            }
            self.leave_front();
            self.front = end;
        }
        if self.front > PAYLOAD_MAX && self.front > self.bytes.len() / 2 {
            self.bytes.drain(..self.front);
            self.base += self.front as u64;
            self.sent -= self.front;
            self.front = 0;
        }
    }

    /// Drops everything that waits.
    pub(crate) fn clear(&mut self, spare: &mut Spare) {
        self.first = self.next_event();
        self.events = VecDeque::new();
        self.replies = 0;
        self.empty(spare);
    }

    fn begin(&mut self, spare: &mut Spare) -> usize {
        if self.bytes.capacity() == 0 {
            self.bytes = spare.take();
        }
        self.bytes.len()
    }

    fn empty(&mut self, spare: &mut Spare) {
        self.base += self.bytes.len() as u64;
        (self.sent, self.front) = (0, 0);
        spare.give(core::mem::take(&mut self.bytes));
        if self.events.capacity() > SPARE_EVENTS {
            self.events = VecDeque::new();
        }
    }

    fn front_header(&self) -> Option<Header> {
        let (header, _) = Header::read_from_prefix(self.bytes.get(self.front..)?).ok()?;
        Some(header)
    }

    fn front_end(&self) -> Option<usize> {
        let len = self.front_header()?.len.get() as usize;
        Some(self.front + HEADER_SIZE + len)
    }

    /// Takes the front frame, which was sent to its end, off the counts.
    fn leave_front(&mut self) {
        let kind = self.front_header().map(|header| header.kind.get());
        if kind == Some(Op::WatchEvent.to_wire()) {
            self.events.pop_front();
            self.first = self.first.wrapping_add(1);
        } else {
            self.replies -= 1;
        }
    }

    /// Returns how many events of the watch wait, and whether one of them is for that path.
    fn waiting_of(&self, event: Event<'_>, path: &[u8]) -> (usize, bool) {
        let mut count = 0;
        let mut number = event.newest;
        // Numbers of events that were sent, or of a watch that was there before, match nothing.
        let mut before = self.events.len();
        loop {
            let place = number.wrapping_sub(self.first) as usize;
            let waiting = self.events.get(place).filter(|waiting| waiting.watch == event.watch);
            let Some(waiting) = waiting.filter(|_| place < before) else { return (count, false) };
            if self.path_of(waiting) == Some(path) {
                return (count + 1, true);
            }
            count += 1;
            (before, number) = (place, waiting.previous);
        }
    }

    fn path_of(&self, waiting: &Waiting) -> Option<&[u8]> {
        let start = usize::try_from(waiting.at - self.base).ok()? + HEADER_SIZE;
        self.bytes.get(start..)?.split(|&byte| byte == 0).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Queues an event as a connection with one watch would.
    fn event(outbox: &mut Outbox, newest: &mut u32, path: &str) {
        let watch = WatchId(7);
        let (path, own, token) = (path.as_bytes(), &b"/a"[..], &b"t"[..]);
        let event = Event { watch, newest: *newest, path, own, token };
        if let Some(number) = outbox.event(event, &mut Spare::default()) {
            *newest = number;
        }
    }

    fn reply(outbox: &mut Outbox, payload: &[u8]) -> bool {
        let header = Header::new(2, 1, 0, 0);
        outbox.reply(header, &mut Spare::default(), |out| out.extend_from_slice(payload))
    }

    /// Takes everything, as strings: events as their paths, replies as their payloads.
    fn drain(outbox: &mut Outbox) -> Vec<String> {
        let bytes = outbox.next().unwrap_or_default().to_vec();
        outbox.forget(bytes.len(), &mut Spare::default());
        let mut rest = &bytes[..];
        let mut frames = Vec::new();
        while let Ok((header, after)) = Header::read_from_prefix(rest) {
            let (payload, next) = after.split_at(header.len.get() as usize);
            let text = payload.split(|&byte| byte == 0).next().unwrap_or_default();
            let sign = if header.kind.get() == 15 { "event" } else { "reply" };
            frames.push(format!("{sign} {}", String::from_utf8_lossy(text)));
            rest = next;
        }
        frames
    }

    #[test]
    fn an_event_that_waits_is_not_queued_again() {
        let (mut outbox, mut newest) = (Outbox::default(), 0);
        for path in ["/a/k", "/a/k", "/a/l", "/a/k"] {
            event(&mut outbox, &mut newest, path);
        }
        assert!(reply(&mut outbox, b"x"));
        event(&mut outbox, &mut newest, "/a/l");
        assert_eq!(drain(&mut outbox), ["event /a/k", "event /a/l", "reply x"]);
        event(&mut outbox, &mut newest, "/a/k");
        assert_eq!(drain(&mut outbox), ["event /a/k"], "once sent, it may come again");
    }

    #[test]
    fn special_events_stay_apart() {
        let (mut outbox, mut newest) = (Outbox::default(), 0);
        event(&mut outbox, &mut newest, "@releaseDomain");
        event(&mut outbox, &mut newest, "@releaseDomain");
        assert_eq!(drain(&mut outbox).len(), 2);
    }

    #[test]
    fn many_events_of_a_watch_become_one() {
        let (mut outbox, mut newest) = (Outbox::default(), 0);
        for number in 0..100 {
            event(&mut outbox, &mut newest, &format!("/a/{number}"));
        }
        let frames = drain(&mut outbox);
        assert_eq!(frames.len(), EVENTS_PER_WATCH + 1);
        assert_eq!(frames.last().map(String::as_str), Some("event /a"), "its own path is last");
    }

    #[test]
    fn half_sent_events_still_count_as_waiting() {
        let (mut outbox, mut newest) = (Outbox::default(), 0);
        event(&mut outbox, &mut newest, "/a/k");
        outbox.forget(5, &mut Spare::default());
        event(&mut outbox, &mut newest, "/a/k");
        assert_eq!(outbox.events.len(), 1);
        outbox.forget(outbox.len(), &mut Spare::default());
        assert_eq!(outbox.events.len(), 0);
    }

    #[test]
    fn too_long_a_reply_is_taken_back() {
        let mut outbox = Outbox::default();
        assert!(!reply(&mut outbox, &[0; 4097]));
        assert!(reply(&mut outbox, &[0; 4096]));
        assert_eq!((outbox.len(), outbox.replies()), (16 + 4096, 1));
    }

    #[test]
    fn sent_bytes_are_dropped_while_more_wait() {
        let mut outbox = Outbox::default();
        for round in 0..100u8 {
            assert!(reply(&mut outbox, &[round; 1000]));
            assert!(reply(&mut outbox, &[round; 1000]));
            outbox.forget(1016 + 7, &mut Spare::default());
        }
        let waiting = outbox.len();
        assert_eq!(waiting, 100 * 2 * 1016 - 100 * 1023);
        assert!(outbox.bytes.len() <= 2 * waiting + PAYLOAD_MAX, "what was sent is still kept");
    }
}
