//! Taking frames from transmit rings, and finding out whom they are for.

use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;

use xen_sys::page::{PAGE_SIZE, Shared};
use xen_sys::ring::netif::{CHAIN_MAX, DROPPED, ERROR};

use super::{Switch, Timer, find};
use crate::head::{HEAD, Head};
use crate::held::{FrameId, SLOTS};
use crate::place::{Copier, Copy, Place};
use crate::port::{Drop, Port, PortId, QueueId};
use crate::receive::{WAITING_MAX, Waiting};
use crate::violation::Violation;

/// Frames whose heads are read by one call.
const HEADS: usize = 128;

/// The pages in which those heads are.
pub(super) const HEADS_PAGES: usize = HEADS * HEAD / PAGE_SIZE;

/// Frames that are taken from one ring in a turn.
const FRAMES_A_TURN: usize = 64;

/// Copies of one call; a head may be in as many pieces as a frame.
const COPIES: usize = HEADS + CHAIN_MAX;

/// Slots of a ring that frames may hold which cannot be delivered yet: the rest is kept for those
/// that can.
const HELD_MAX: usize = SLOTS - 32;

/// Frames that were just taken, and the copies of their heads.
pub(super) struct Fresh {
    frames: Vec<New>,
    copies: Vec<Copy>,
}

#[derive(Clone, Copy)]
struct New {
    from: QueueId,
    frame: FrameId,
    /// Bytes of its head.
    head: usize,
    /// The number of copies up to and including its own.
    copies: usize,
}

impl Fresh {
    pub(super) fn new() -> Self {
        Self { frames: Vec::with_capacity(HEADS), copies: Vec::with_capacity(COPIES) }
    }

    fn is_full(&self) -> bool {
        self.frames.len() == HEADS || self.copies.len() + CHAIN_MAX > COPIES
    }
}

/// Where the n-th head is.
#[expect(clippy::cast_possible_truncation, reason = "a few pages")]
const fn head_at(number: usize) -> u32 {
    (number * HEAD) as u32
}

impl<P: Shared> Switch<P> {
    /// Takes frames from the rings that are ready, a bounded number from each.
    pub(super) fn gather(&mut self, copier: &mut impl Copier, now: Duration) {
        for _ in 0..self.ready.len() {
            if self.fresh.is_full() {
                break;
            }
            let Some(id) = self.ready.pop_front() else { break };
            let Some(queue) = self.queue(id) else { continue };
            queue.is_ready = false;
            match self.gather_from(id, now) {
                Ok(true) => self.hear(id),
                Ok(false) => {}
                Err(violation) => self.accuse(id.port, violation),
            }
        }
        if !self.fresh.copies.is_empty() {
            copier.copy(&mut self.fresh.copies);
        }
        let (mut frames, mut made) = (core::mem::take(&mut self.fresh.frames), 0);
        for (number, new) in frames.drain(..).enumerate() {
            let copies = &self.fresh.copies[made..new.copies];
            made = new.copies;
            let failed = copies.iter().find_map(|copy| copy.made.err());
            if let Some(status) = failed {
                self.accuse(new.from.port, Violation::Page(status));
                continue;
            }
            let mut head = [0; HEAD];
            copier.read(head_at(number), &mut head[..new.head]);
            self.forward(new.from, new.frame, &Head::new(head), now);
        }
        self.fresh.frames = frames;
        self.fresh.copies.clear();
    }

    /// Takes frames from a ring; tells whether there are more. If not, the next one's event comes.
    fn gather_from(&mut self, id: QueueId, now: Duration) -> Result<bool, Violation> {
        for _ in 0..FRAMES_A_TURN {
            if self.fresh.is_full() {
                return Ok(true);
            }
            let Some(port) = self.port(id.port) else { return Ok(false) };
            if let Some(until) = port.credit.as_mut().and_then(|credit| credit.exhausted_until(now))
            {
                // A guest may have sent any number of events meanwhile.
                let queue = &mut port.queues[usize::from(id.number)];
                if !core::mem::replace(&mut queue.is_spent, true) {
                    self.timers.push(Reverse((until, Timer::Credit(id))));
                }
                return Ok(false);
            }
            let queue = &mut port.queues[usize::from(id.number)];
            let Some(frame) = queue.held.take(&mut queue.ring, now)? else {
                return Ok(queue.ring.has_more()?);
            };
            let len = queue.held.frame(frame).len;
            port.counters.sent_frames += 1;
            port.counters.sent_bytes += u64::from(len);
            if let Some(credit) = &mut port.credit {
                credit.spend(len);
            }
            self.fetch_head(id, frame);
        }
        Ok(true)
    }

    /// Notes what copies a frame's head takes.
    fn fetch_head(&mut self, from: QueueId, frame: FrameId) {
        let Some(port) = find(&mut self.entries, from.port) else { return };
        let held = &port.queues[usize::from(from.number)].held;
        let is_too_short = held.frame(frame).is_too_short();
        let wanted = if is_too_short { 0 } else { held.head_len(frame).into() };
        let (mut head, at) = (0, head_at(self.fresh.frames.len()));
        for piece in held.pieces(frame) {
            let len = usize::from(piece.len).min(wanted - head);
            if len == 0 {
                continue;
            }
            #[expect(clippy::cast_possible_truncation, reason = "at most a head")]
            self.fresh.copies.push(Copy {
                from: Place::in_page(port.config.domain, piece.reference, piece.offset),
                to: Place::Own(at + head as u32),
                len: len as u16,
                made: Ok(()),
            });
            head += len;
        }
        let copies = self.fresh.copies.len();
        self.fresh.frames.push(New { from, frame, head, copies });
    }

    /// Finds out whom a frame is for, and has it wait there.
    fn forward(&mut self, from: QueueId, frame: FrameId, head: &Head, now: Duration) {
        if let Some(queue) = self.queue(from) {
            queue.held.frame_mut(frame).network = head.network();
            queue.held.keep(frame, head);
        }
        match self.receivers(from, frame, head, now) {
            Ok(Receivers::One(to)) => self.enqueue(from, frame, to, head),
            Ok(Receivers::Many { group }) => self.flood(from, frame, group, head),
            Err(why) => self.refuse(from, frame, why),
        }
    }

    fn receivers(
        &mut self,
        from: QueueId,
        frame: FrameId,
        head: &Head,
        now: Duration,
    ) -> Result<Receivers, Drop> {
        let port = find(&mut self.entries, from.port).ok_or(Drop::Nobody)?;
        if port.queues[usize::from(from.number)].held.frame(frame).is_too_short() {
            return Err(Drop::Short);
        }
        if !port.may_send_from(from.port, head.source(), &mut self.table, now) {
            return Err(Drop::Source);
        }
        let destination = head.destination();
        if destination.is_group() {
            return Ok(Receivers::Many { group: true });
        }
        match self.table.find(destination, now) {
            Some(to) if to == from.port => Err(Drop::Nobody),
            Some(to) => Ok(Receivers::One(to)),
            // It can only be behind a port of which not all addresses are known.
            None => Ok(Receivers::Many { group: false }),
        }
    }

    /// Has a frame wait at one port; refuses it if there is no place to wait.
    fn enqueue(&mut self, from: QueueId, frame: FrameId, to: PortId, head: &Head) {
        if !self.wait_at(from, frame, to, head) {
            self.count_drop(to, Drop::NoRoom);
            self.refuse_silently(from, frame);
        }
    }

    /// Has a frame wait at all ports but its own: all of a group, or all behind which there may be
    /// addresses that are not known.
    fn flood(&mut self, from: QueueId, frame: FrameId, group: bool, head: &Head) {
        // It must not be responded to before the last one was asked.
        self.add_use(from, frame);
        let mut found = false;
        for number in 0..self.present.len() {
            let to = self.present[number];
            let wanted = |port: &mut Port<P>| group || port.config.mac.is_none();
            if to != from.port && self.port(to).is_some_and(wanted) {
                found = true;
                if !self.wait_at(from, frame, to, head) {
                    self.count_drop(to, Drop::NoRoom);
                }
            }
        }
        if !found {
            self.count_drop(from.port, Drop::Nobody);
        }
        self.end_use(from, frame, DROPPED);
    }

    /// Has a frame wait at a port, if there is a place to wait.
    fn wait_at(&mut self, from: QueueId, frame: FrameId, to: PortId, head: &Head) -> bool {
        let crowded = self.queue(from).is_none_or(|queue| queue.held.len() > HELD_MAX);
        let Some(port) = self.port(to).filter(|port| !port.is_ended) else { return false };
        let number = match port.queues.len() {
            1 => 0,
            count => head.flow() as usize % count,
        };
        let queue = &mut port.queues[number];
        let full = queue.receive.waiting.len() == WAITING_MAX;
        if full || queue.receive.is_stalled && !queue.receive.has(1).unwrap_or(true) {
            return false;
        }
        if crowded && queue.receive.is_starved {
            return false;
        }
        queue.receive.waiting.push_back(Waiting { from, frame });
        let enlist = !core::mem::replace(&mut queue.is_output, true);
        if enlist {
            #[expect(clippy::cast_possible_truncation, reason = "as many as fit a u8")]
            self.outputs.push_back(QueueId { port: to, number: number as u8 });
        }
        self.add_use(from, frame);
        true
    }

    /// A frame goes nowhere.
    fn refuse(&mut self, from: QueueId, frame: FrameId, why: Drop) {
        self.count_drop(from.port, why);
        let status = if why == Drop::Short { ERROR } else { DROPPED };
        self.add_use(from, frame);
        self.end_use(from, frame, status);
    }

    fn refuse_silently(&mut self, from: QueueId, frame: FrameId) {
        self.add_use(from, frame);
        self.end_use(from, frame, DROPPED);
    }

    pub(super) fn count_drop(&mut self, id: PortId, why: Drop) {
        if let Some(port) = self.port(id) {
            port.counters.drop(why);
        }
    }

    pub(super) fn add_use(&mut self, from: QueueId, frame: FrameId) {
        if let Some(queue) = self.queue(from) {
            queue.held.add_use(frame);
        }
    }

    /// A frame needs no longer be kept for one receiver.
    pub(super) fn end_use(&mut self, from: QueueId, frame: FrameId, status: i16) {
        if let Some(queue) = self.queue(from) {
            queue.held.end_use(&mut queue.ring, frame, status);
            self.touch(from);
        }
    }
}

/// Whom a frame is for.
enum Receivers {
    One(PortId),
    /// All, of a group; or all behind which it may be.
    Many {
        group: bool,
    },
}
