//! Copying frames into the pages of their receivers.

use alloc::vec::Vec;
use core::cmp::Reverse;
use core::iter;
use core::time::Duration;

use xen_sys::ids::DomId;
use xen_sys::page::{PAGE_SIZE, Shared};
use xen_sys::ring::netif::{CHAIN_MAX, DROPPED, ERROR, Flags, Gso, OKAY, RxRequest, RxResponse};

use super::{Switch, Timer, convert, find};
use crate::head::HEAD;
use crate::held::{Frame, FrameId, Piece};
use crate::place::{Copier, Copy, PAGE, Place};
use crate::port::{Drop, QueueId};
use crate::receive::{Layout, Waiting, received};
use crate::violation::Violation;

/// Copies of one call.
const COPIES: usize = 256;

/// Copies of one frame at most: its head, and what is behind that.
const OF_FRAME: usize = CHAIN_MAX + 1;

/// Pages from which the heads of frames are copied, by the number of the delivery, and where they begin.
const HEADS_PAGES: usize = COPIES * HEAD / PAGE_SIZE;
const HEADS: usize = convert::END;

/// The pages of our own up to here are the switch's.
pub(super) const END: usize = HEADS + HEADS_PAGES;

/// For how long a frame waits for pages of its receiver. Whoever has let one wait that long is no
/// longer waited for, until it posts a page.
const PATIENCE: Duration = Duration::from_secs(1);

/// Deliveries that are made together.
pub(super) struct Round {
    copies: Vec<Copy>,
    responses: Vec<RxResponse>,
    deliveries: Vec<Delivery>,
}

/// A frame on its way into pages of a receiver.
#[derive(Clone, Copy)]
struct Delivery {
    from: QueueId,
    frame: FrameId,
    to: QueueId,
    len: u16,
    gso: Option<Gso>,
    /// The numbers of copies and responses up to and including its own.
    copies: usize,
    responses: usize,
}

impl Round {
    pub(super) fn new() -> Self {
        Self {
            copies: Vec::with_capacity(COPIES),
            responses: Vec::with_capacity(2 * COPIES),
            deliveries: Vec::with_capacity(COPIES),
        }
    }

    /// Whether there may be no room for another frame.
    fn is_full(&self) -> bool {
        self.copies.len() + OF_FRAME > COPIES || self.deliveries.len() == COPIES
    }

    /// Where the head of the next delivery is to be.
    fn next_head(&self, len: u16) -> Piece {
        let at = self.deliveries.len() * HEAD;
        #[expect(clippy::cast_possible_truncation, reason = "a few pages")]
        Piece::new((HEADS + at / PAGE_SIZE) as u32, (at % PAGE_SIZE) as u16, len)
    }

    /// What stands for the round while it is looked at.
    const fn empty() -> Self {
        Self { copies: Vec::new(), responses: Vec::new(), deliveries: Vec::new() }
    }

    fn clear(&mut self) {
        self.copies.clear();
        self.responses.clear();
        self.deliveries.clear();
    }
}

/// What becomes of the frame that waits first.
pub(super) enum Next {
    /// It is on its way, or was gone.
    Done,
    /// The round has to go first, or now.
    Full,
    /// Its receiver has no pages for it.
    NoPages,
    /// Nothing waits.
    Nothing,
}

impl<P: Shared> Switch<P> {
    /// Delivers what waits and has pages to go into, as much as one call takes; tells whether there
    /// may be more.
    pub(super) fn deliver(&mut self, copier: &mut impl Copier, now: Duration) -> bool {
        while !self.round.is_full() {
            let Some(to) = self.outputs.pop_front() else { break };
            let before = self.round.deliveries.len();
            match self.fill(to, copier, now) {
                // The round is full; there is more. Who was in it comes after the others.
                Ok(true) if self.round.deliveries.len() > before => {
                    self.outputs.push_back(to);
                    break;
                }
                Ok(true) => {
                    self.outputs.push_front(to);
                    break;
                }
                Ok(false) => {
                    if let Some(queue) = self.queue(to) {
                        queue.is_output = false;
                    }
                }
                Err(violation) => self.accuse(to.port, violation),
            }
        }
        let any = !self.round.deliveries.is_empty();
        if any {
            copier.copy(&mut self.round.copies);
            self.finish(copier);
        }
        any && !self.outputs.is_empty()
    }

    /// Puts what waits for a queue into the round; tells whether it is full before all is in it.
    fn fill(
        &mut self,
        to: QueueId,
        copier: &mut impl Copier,
        now: Duration,
    ) -> Result<bool, Violation> {
        loop {
            if self.round.is_full() {
                return Ok(true);
            }
            match self.send_next(to, copier)? {
                Next::Done => {}
                Next::Full => return Ok(true),
                Next::Nothing => return Ok(false),
                Next::NoPages => {
                    self.watch(to, now);
                    return Ok(false);
                }
            }
        }
    }

    fn send_next(&mut self, to: QueueId, copier: &mut impl Copier) -> Result<Next, Violation> {
        let Some(queue) = self.queue(to) else { return Ok(Next::Nothing) };
        let Some(&Waiting { from, frame }) = queue.receive.waiting.front() else {
            return Ok(Next::Nothing);
        };
        let Some((about, head, rest)) = self.taken(from, frame) else {
            // Whoever sent it has gone.
            self.forget_first(to);
            return Ok(Next::Done);
        };
        let head = self.round.next_head(head);
        let need = Layout::need(&about, iter::once(head).chain(rest.iter().copied()));
        let Some(port) = self.port(to.port) else { return Ok(Next::Nothing) };
        let takes = port.config.takes;
        if !takes.takes(&about, need) {
            if !self.round.deliveries.is_empty() {
                return Ok(Next::Full);
            }
            return self.send_converted(to, &takes, &about, &rest, copier);
        }
        if !port.queues[usize::from(to.number)].receive.has(need)? {
            return Ok(Next::NoPages);
        }
        self.forget_first(to);
        let Some(sender) = self.port(from.port) else { return Ok(Next::Done) };
        let source = sender.config.domain;
        // What was judged is what is delivered, whatever its sender has written there since.
        let bytes = sender.queues[usize::from(from.number)].held.head(frame);
        copier.write(head.reference * PAGE + u32::from(head.offset), bytes);
        let rest = rest.into_iter().map(|piece| (source, piece));
        self.plan(to, &about, iter::once((None, head)).chain(rest));
        self.deliver_planned(from, frame, to, &about);
        Ok(Next::Done)
    }

    /// What was planned last is this frame's.
    pub(super) fn deliver_planned(
        &mut self,
        from: QueueId,
        frame: FrameId,
        to: QueueId,
        about: &Frame,
    ) {
        let (copies, responses) = (self.round.copies.len(), self.round.responses.len());
        let Frame { len, gso, .. } = *about;
        self.round.deliveries.push(Delivery { from, frame, to, len, gso, copies, responses });
    }

    pub(super) fn forget_first(&mut self, to: QueueId) {
        if let Some(queue) = self.queue(to) {
            queue.receive.waiting.pop_front();
        }
    }

    /// What is known of a frame that waits, how long its head is, and where what is behind that is,
    /// unless its sender has gone.
    fn taken(
        &mut self,
        from: QueueId,
        frame: FrameId,
    ) -> Option<(Frame, u16, heapless::Vec<Piece, CHAIN_MAX>)> {
        let held = &self.queue(from)?.held;
        // A slot of no bytes may name a place where no page is: it is not to be copied.
        Some((*held.frame(frame), held.head_len(frame), held.behind_head(frame).collect()))
    }

    /// Notes the copies of a frame and the responses that go with them. The receiver's pages are
    /// there; each piece is in a page of that domain's, or of our own.
    pub(super) fn plan(
        &mut self,
        to: QueueId,
        about: &Frame,
        pieces: impl Iterator<Item = (Option<DomId>, Piece)>,
    ) {
        let Some(receiver) = find(&mut self.entries, to.port) else { return };
        let (dest, receive) =
            (receiver.config.domain, &mut receiver.queues[usize::from(to.number)].receive);
        let round = &mut self.round;
        let first = round.responses.len();
        let (mut layout, mut page, mut slot) = (Layout::default(), 0, first);
        for (source, piece) in pieces {
            let (at, is_new) = layout.place(piece.len);
            if is_new {
                let Some(request) = receive.next() else { return };
                (page, slot) = (request.reference, round.responses.len());
                round.responses.push(RxResponse { id: request.id, ..RxResponse::default() });
                if about.gso.is_some() && slot == first {
                    // It takes the slot of a page, which goes back unused.
                    let Some(RxRequest { id, .. }) = receive.next() else { return };
                    round.responses.push(RxResponse { id, ..RxResponse::default() });
                }
            }
            round.responses[slot].status += piece.len.cast_signed();
            round.copies.push(Copy {
                from: Place::in_page(source, piece.reference, piece.offset),
                to: Place::in_page(dest, page, at),
                len: piece.len,
                made: Ok(()),
            });
        }
        flag(&mut round.responses[first..], about);
    }

    /// Responds to what was copied, and to what could not be.
    fn finish(&mut self, copier: &mut impl Copier) {
        let mut round = core::mem::replace(&mut self.round, Round::empty());
        let (mut copies, mut responses) = (0, 0);
        for delivery in &round.deliveries {
            let of_copies = &mut round.copies[copies..delivery.copies];
            let of_responses = &mut round.responses[responses..delivery.responses];
            (copies, responses) = (delivery.copies, delivery.responses);
            let failed = of_copies.iter().find(|copy| copy.made.is_err()).copied();
            if let Some(copy) = failed {
                self.find_fault(delivery, copy, copier);
                fail(of_responses);
            }
            self.respond(delivery, of_responses, failed.is_none());
        }
        round.clear();
        self.round = round;
    }

    fn respond(&mut self, delivery: &Delivery, responses: &[RxResponse], made: bool) {
        let Delivery { from, frame, to, len, gso, .. } = *delivery;
        let extra = gso.filter(|_| made).map(|gso| RxResponse::from(gso.extra()));
        if let Some(port) = self.port(to.port).filter(|port| !port.is_ended) {
            let receive = &mut port.queues[usize::from(to.number)].receive;
            for (number, response) in responses.iter().enumerate() {
                receive.put(extra.as_ref().filter(|_| number == 1).unwrap_or(response));
            }
            if made {
                port.counters.received_frames += 1;
                port.counters.received_bytes += u64::from(len);
            } else {
                port.counters.drop(Drop::Copy);
            }
            self.touch(to);
        }
        self.end_use(from, frame, if made { OKAY } else { ERROR });
    }

    /// Finds out whose page it is that could not be copied, and accuses its owner: Xen tells of a
    /// copy between two guests only that it failed. Where both can be used by now, somebody took a
    /// page back and granted it again, and nothing tells who: then nobody is to blame.
    fn find_fault(&mut self, delivery: &Delivery, copy: Copy, copier: &mut impl Copier) {
        let (from, to) = (delivery.from.port, delivery.to.port);
        let own = Place::Own(0);
        for (place, guilty) in [((copy.from, own), from), ((own, copy.to), to)] {
            let mut probe = Copy { from: place.0, to: place.1, len: 1, made: Ok(()) };
            copier.copy(core::slice::from_mut(&mut probe));
            if let Err(status) = probe.made {
                return self.accuse(guilty, Violation::Page(status));
            }
        }
    }

    /// Frames wait for pages of a queue: looks again in a while.
    fn watch(&mut self, id: QueueId, now: Duration) {
        if let Some(queue) = self.queue(id)
            && !core::mem::replace(&mut queue.is_watched, true)
        {
            self.timers.push(Reverse((now + PATIENCE, Timer::Stall(id))));
        }
    }

    /// Frames have waited for pages of a queue: gives up those that waited too long, all of them if
    /// the first one did.
    pub(super) fn end_stall(&mut self, id: QueueId, now: Duration) {
        let Some(queue) = self.queue(id) else { return };
        queue.is_watched = false;
        let Some(&Waiting { from, frame }) = queue.receive.waiting.front() else { return };
        let since = self.taken(from, frame).map_or(Duration::ZERO, |(about, ..)| about.since);
        if now.saturating_sub(since) < PATIENCE {
            self.watch(id, since);
            return;
        }
        while let Some(queue) = self.queue(id) {
            queue.receive.is_stalled = true;
            let Some(Waiting { from, frame }) = queue.receive.waiting.pop_front() else { break };
            self.count_drop(id.port, Drop::NoRoom);
            self.end_use(from, frame, DROPPED);
        }
    }
}

/// Says of a frame's slots what they are.
fn flag(responses: &mut [RxResponse], about: &Frame) {
    let last = responses.len() - 1;
    let extra = about.gso.is_some();
    for (number, response) in responses.iter_mut().enumerate() {
        let mut flags = if number == 0 { received(about.flags) } else { Flags::empty() };
        flags.set(Flags::EXTRA_INFO, extra && number == 0);
        flags.set(Flags::MORE_DATA, number < last && !(extra && last == 1));
        response.flags = flags.bits();
    }
}

/// What was to be a frame is none.
fn fail(responses: &mut [RxResponse]) {
    for response in responses {
        (response.offset, response.flags, response.status) = (0, 0, ERROR);
    }
}
