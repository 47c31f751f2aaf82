//! Frames that their receiver does not take as they were sent: their checksums are filled, they are
//! cut into segments, or gathered in one page. For that, and only for that, the whole frame is
//! copied here.

use alloc::boxed::Box;
use alloc::vec;

use offload::{Segments, fill_checksum};
use xen_sys::page::{PAGE_SIZE, Shared};
use xen_sys::ring::netif::{CHAIN_MAX, DROPPED, Flags, Gso, GsoKind};

use super::deliver::Next;
use super::{Switch, gather};
use crate::held::{Frame, FrameId, Network, Piece};
use crate::place::{Copier, Copy, PAGE, Place};
use crate::port::{Drop, QueueId, Takes};
use crate::receive::{Layout, NEED_MAX, Waiting};
use crate::violation::Violation;

/// Pages into which a frame is copied: none is larger.
const IN_PAGES: usize = 16;
/// Where they begin.
const IN: usize = gather::HEADS_PAGES;
/// Pages out of which it is copied on, in segments with a header each.
const OUT_PAGES: usize = 32;
/// Where they begin.
const OUT: usize = IN + IN_PAGES;

/// Where they end.
pub(super) const END: usize = OUT + OUT_PAGES;

/// The largest segment.
const SEGMENT_MAX: usize = 4 * PAGE_SIZE;

impl Takes {
    /// Whether a frame can be received as it was sent, in that many slots.
    pub(super) const fn takes(&self, frame: &Frame, slots: usize) -> bool {
        let blank = match frame.network {
            Network::V4 => self.blank4,
            Network::V6 => self.blank6,
            Network::Other => true,
        };
        (blank || !frame.flags.contains(Flags::CSUM_BLANK))
            && self.cuts(frame.gso)
            && (self.chains || slots == 1)
    }

    /// Whether it is every frame, as it was sent.
    pub(super) const fn is_all(&self) -> bool {
        self.chains && self.gso4 && self.gso6 && self.blank4 && self.blank6
    }

    /// Whether the frontend cuts such a frame itself.
    const fn cuts(&self, gso: Option<Gso>) -> bool {
        match gso {
            None => true,
            Some(Gso { kind: GsoKind::Tcp4, .. }) => self.gso4,
            Some(Gso { kind: GsoKind::Tcp6, .. }) => self.gso6,
        }
    }
}

/// Where a frame is made into others.
pub(super) struct Bench {
    frame: Box<[u8]>,
    segment: Box<[u8]>,
    /// The others, each the pieces up to a number.
    frames: heapless::Vec<(Frame, usize), NEED_MAX>,
    pieces: heapless::Vec<Piece, NEED_MAX>,
    /// Bytes of our pages that are used.
    used: usize,
}

/// How much memory a bench takes.
pub(super) const BENCH_BYTES: usize = size_of::<Bench>() + IN_PAGES * PAGE_SIZE + SEGMENT_MAX;

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            frame: vec![0; IN_PAGES * PAGE_SIZE].into_boxed_slice(),
            segment: vec![0; SEGMENT_MAX].into_boxed_slice(),
            frames: heapless::Vec::new(),
            pieces: heapless::Vec::new(),
            used: 0,
        }
    }

    /// Makes frames of the one that is in `frame`; `None` if that cannot be.
    fn make(&mut self, about: &Frame, takes: &Takes, copier: &mut impl Copier) -> Option<()> {
        (self.used, self.frames, self.pieces) = (0, heapless::Vec::new(), heapless::Vec::new());
        let mut frame = core::mem::take(&mut self.frame);
        let made = self.make_of(&mut frame[..about.len.into()], about, takes, copier);
        self.frame = frame;
        made
    }

    fn make_of(
        &mut self,
        frame: &mut [u8],
        about: &Frame,
        takes: &Takes,
        copier: &mut impl Copier,
    ) -> Option<()> {
        // Whoever cuts frames may need this one cut all the same: as it is it cannot have it.
        let Some(gso) = about.gso else {
            if about.flags.contains(Flags::CSUM_BLANK) {
                // What has none is passed on as it is, as a router would.
                fill_checksum(frame);
            }
            return self.add(frame, takes, copier);
        };
        let segments = Segments::of(frame, gso)?;
        if segments.count() > NEED_MAX || segments.largest() > SEGMENT_MAX {
            return None;
        }
        let mut bytes = core::mem::take(&mut self.segment);
        let made = (0..segments.count()).try_for_each(|number| {
            let len = segments.write(number, &mut bytes);
            self.add(&bytes[..len], takes, copier)
        });
        self.segment = bytes;
        made
    }

    /// Puts a frame into our pages, to be copied on from there.
    fn add(&mut self, bytes: &[u8], takes: &Takes, copier: &mut impl Copier) -> Option<()> {
        if bytes.len() > PAGE_SIZE && !takes.chains {
            return None;
        }
        for piece in bytes.chunks(PAGE_SIZE) {
            let room = PAGE_SIZE - self.used % PAGE_SIZE;
            if room < piece.len() {
                self.used += room;
            }
            if self.used + piece.len() > OUT_PAGES * PAGE_SIZE {
                return None;
            }
            let (reference, offset) = (OUT + self.used / PAGE_SIZE, self.used % PAGE_SIZE);
            let reference = u32::try_from(reference).ok()?;
            let offset = u16::try_from(offset).ok()?;
            copier.write(reference * PAGE + u32::from(offset), piece);
            self.pieces.push(Piece::new(reference, offset, piece.len().try_into().ok()?)).ok()?;
            self.used += piece.len();
        }
        let len = bytes.len().try_into().ok()?;
        let about = Frame::made(len, Flags::DATA_VALIDATED);
        self.frames.push((about, self.pieces.len())).ok()
    }

    /// How many slots all of them take.
    fn need(&self) -> usize {
        self.each().map(|(about, pieces)| Layout::need(about, pieces.iter().copied())).sum()
    }

    fn each(&self) -> impl Iterator<Item = (&Frame, &[Piece])> {
        let mut start = 0;
        self.frames.iter().map(move |(about, end)| {
            let pieces = &self.pieces[start..*end];
            start = *end;
            (about, pieces)
        })
    }
}

impl<P: Shared> Switch<P> {
    /// Puts the frame that waits first into the round, in a form that its receiver takes. The round
    /// is empty before.
    pub(super) fn send_converted(
        &mut self,
        to: QueueId,
        takes: &Takes,
        about: &Frame,
        rest: &[Piece],
        copier: &mut impl Copier,
    ) -> Result<Next, Violation> {
        let Some(queue) = self.queue(to) else { return Ok(Next::Nothing) };
        let Some(&Waiting { from, frame }) = queue.receive.waiting.front() else {
            return Ok(Next::Nothing);
        };
        // It is not worth looking at before there are some pages.
        if !queue.receive.has(1)? {
            return Ok(Next::NoPages);
        }
        if !self.fetch(from, about, rest, copier) {
            self.forget_first(to);
            return Ok(Next::Done);
        }
        let Some(mut bench) = self.bench.take() else { return Ok(Next::Nothing) };
        copier.read(IN_AT, &mut bench.frame[..about.len.into()]);
        if let Some(queue) = self.queue(from) {
            let head = queue.held.head(frame);
            bench.frame[..head.len()].copy_from_slice(head);
        }
        let made = bench.make(about, takes, copier);
        let next = match made.map(|()| bench.need()) {
            Some(need) if need <= NEED_MAX => self.send_made(to, from, frame, &bench, need),
            _ => {
                self.forget_first(to);
                self.count_drop(to.port, Drop::Form);
                self.end_use(from, frame, DROPPED);
                Ok(Next::Done)
            }
        };
        self.bench = Some(bench);
        next
    }

    fn send_made(
        &mut self,
        to: QueueId,
        from: QueueId,
        frame: FrameId,
        bench: &Bench,
        need: usize,
    ) -> Result<Next, Violation> {
        let Some(queue) = self.queue(to) else { return Ok(Next::Nothing) };
        if !queue.receive.has(need)? {
            return Ok(Next::NoPages);
        }
        self.forget_first(to);
        for (number, (about, pieces)) in bench.each().enumerate() {
            if number > 0 {
                self.add_use(from, frame);
            }
            self.plan(to, about, pieces.iter().map(|&piece| (None, piece)));
            self.deliver_planned(from, frame, to, about);
        }
        Ok(Next::Full)
    }

    /// Copies what is behind a frame's head into our pages, where it is behind the head; `false` if it
    /// cannot be, which ends its sender.
    fn fetch(
        &mut self,
        from: QueueId,
        about: &Frame,
        rest: &[Piece],
        copier: &mut impl Copier,
    ) -> bool {
        let Some(source) = self.port(from.port).map(|port| port.config.domain) else {
            return false;
        };
        let mut copies = heapless::Vec::<Copy, { 2 * CHAIN_MAX }>::new();
        let behind: u32 = rest.iter().map(|piece| u32::from(piece.len)).sum();
        let mut at = IN_AT + u32::from(about.len) - behind;
        for piece in rest {
            let (mut offset, mut left) = (piece.offset, piece.len);
            while left > 0 {
                let room = PAGE - at % PAGE;
                let len = u16::try_from(room).unwrap_or(left).min(left);
                let from = Place::in_page(source, piece.reference, offset);
                let _ = copies.push(Copy { from, to: Place::Own(at), len, made: Ok(()) });
                (offset, left, at) = (offset + len, left - len, at + u32::from(len));
            }
        }
        debug_assert_eq!(at - IN_AT, u32::from(about.len), "all pieces are the frame");
        copier.copy(&mut copies);
        match copies.iter().find_map(|copy| copy.made.err()) {
            Some(status) => {
                self.accuse(from.port, Violation::Page(status));
                false
            }
            None => true,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a few pages")]
const IN_AT: u32 = (IN * PAGE_SIZE) as u32;
