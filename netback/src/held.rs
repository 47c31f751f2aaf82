//! Frames of one transmit ring that were taken from it and not yet delivered.
//!
//! Their bytes are still in their guest's pages; what is here is where, and a copy of each head: a
//! guest can change its pages after the head was judged. As many slots as the ring has are enough for
//! whatever is taken, as a slot is free for another request only when it was responded to.

use alloc::boxed::Box;
use alloc::vec;
use core::time::Duration;

use offload::ETHERNET;
use xen_sys::page::Shared;
use xen_sys::ring::netif::{
    self, EXTRA_GSO, EXTRA_MORE, ExtraInfo, Flags, Gso, TxRequest, TxResponse,
};
use xen_sys::ring::slots::Back;

use crate::head::{HEAD, HEADERS, Head};
use crate::violation::Violation;

/// Slots of a transmit ring of one page.
pub(crate) const SLOTS: usize = 256;

/// Extra slots of one frame. There is one kind that makes sense, and it makes sense once.
const EXTRAS_MAX: u8 = 1;

/// The transmit ring of a guest.
pub(crate) type Ring<P> = Back<P, TxRequest, TxResponse>;

/// A frame's number: that of its first slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameId(u16);

/// Some bytes of a frame, in one page.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Piece {
    pub(crate) reference: u32,
    pub(crate) offset: u16,
    pub(crate) len: u16,
    /// The frontend's name for its slot.
    id: u16,
    /// The frame's next slot here, or the next free one.
    next: u16,
}

/// A frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Frame {
    /// Bytes of all its pieces.
    pub(crate) len: u16,
    /// [`Flags::CSUM_BLANK`] and [`Flags::DATA_VALIDATED`] of it.
    pub(crate) flags: Flags,
    pub(crate) gso: Option<Gso>,
    pub(crate) network: Network,
    /// When it was taken.
    pub(crate) since: Duration,
    pieces: u8,
    extras: u8,
    /// For how many receivers it still waits.
    uses: u16,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Network {
    V4,
    V6,
    #[default]
    Other,
}

impl Piece {
    pub(crate) const fn new(reference: u32, offset: u16, len: u16) -> Self {
        Self { reference, offset, len, id: 0, next: 0 }
    }

    /// What is behind its first bytes, if there is something.
    fn behind(self, skipped: u16) -> Option<Self> {
        let Self { offset, len, .. } = self;
        (len > skipped).then(|| Self { offset: offset + skipped, len: len - skipped, ..self })
    }
}

/// Those of one ring.
pub(crate) struct Held {
    pieces: Box<[Piece; SLOTS]>,
    frames: Box<[Frame; SLOTS]>,
    heads: Box<[[u8; HEAD]]>,
    /// The first free slot.
    free: u16,
    len: usize,
}

const END: u16 = u16::MAX;

impl Held {
    /// How much memory it takes beside its own.
    pub(crate) const BYTES: usize = SLOTS * (size_of::<Piece>() + size_of::<Frame>() + HEAD);

    pub(crate) fn new() -> Self {
        let mut pieces = Box::new([Piece::default(); SLOTS]);
        for (next, piece) in (1..).zip(pieces.iter_mut()) {
            piece.next = if usize::from(next) < SLOTS { next } else { END };
        }
        let frames = Box::new([Frame::default(); SLOTS]);
        let heads = vec![[0; HEAD]; SLOTS].into_boxed_slice();
        Self { pieces, frames, heads, free: 0, len: 0 }
    }

    /// How many slots are held.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn frame(&self, id: FrameId) -> &Frame {
        &self.frames[usize::from(id.0)]
    }

    pub(crate) fn frame_mut(&mut self, id: FrameId) -> &mut Frame {
        &mut self.frames[usize::from(id.0)]
    }

    /// Keeps a frame's head.
    pub(crate) fn keep(&mut self, id: FrameId, head: &Head) {
        self.heads[usize::from(id.0)] = *head.bytes();
    }

    /// How many of a frame's bytes are its head: no more than are in its first piece, if that can have
    /// the headers, as each piece costs two copies.
    pub(crate) fn head_len(&self, id: FrameId) -> u16 {
        let first = self.pieces[usize::from(id.0)].len;
        let whole = if first < HEADERS { self.frame(id).len } else { first };
        #[expect(clippy::cast_possible_truncation, reason = "small")]
        whole.min(HEAD as u16)
    }

    /// The head of a frame, as it was kept.
    pub(crate) fn head(&self, id: FrameId) -> &[u8] {
        &self.heads[usize::from(id.0)][..self.head_len(id).into()]
    }

    /// What of a frame's pieces is behind its head, in order; none of them is empty.
    pub(crate) fn behind_head(&self, id: FrameId) -> impl Iterator<Item = Piece> {
        let mut left = self.head_len(id);
        self.pieces(id).filter_map(move |piece| {
            let skipped = left.min(piece.len);
            left -= skipped;
            piece.behind(skipped)
        })
    }

    /// The pieces of a frame, in order.
    pub(crate) fn pieces(&self, id: FrameId) -> impl Iterator<Item = Piece> + Clone {
        let mut at = id.0;
        (0..self.frame(id).pieces).map(move |_| {
            let piece = self.pieces[usize::from(at)];
            at = piece.next;
            piece
        })
    }

    /// Takes the next frame from its ring, if there is one. It has at least an Ethernet header, or
    /// is [too short](Frame::is_too_short).
    pub(crate) fn take<P: Shared>(
        &mut self,
        ring: &mut Ring<P>,
        now: Duration,
    ) -> Result<Option<FrameId>, Violation> {
        let Some(first) = ring.take()? else { return Ok(None) };
        let (extras, gso) = take_extras(ring, first.flags())?;
        let id = FrameId(self.hold(&first)?);
        let (mut last, mut more) = (id.0, first.flags().contains(Flags::MORE_DATA));
        let (mut rest, mut pieces) = (first.size, 1_u8);
        while more {
            let slot = ring.take()?.ok_or(Violation::CutChain)?;
            if usize::from(pieces) == netif::CHAIN_MAX {
                return Err(Violation::LongChain);
            }
            check_inside(slot.offset, slot.size)?;
            let next = self.hold(&slot)?;
            rest = rest.checked_sub(slot.size).ok_or(Violation::Sizes)?;
            self.pieces[usize::from(last)].next = next;
            (last, pieces) = (next, pieces + 1);
            more = slot.flags().contains(Flags::MORE_DATA);
        }
        let piece = &mut self.pieces[usize::from(id.0)];
        piece.len = rest;
        check_inside(piece.offset, rest)?;
        let flags = first.flags() & (Flags::CSUM_BLANK | Flags::DATA_VALIDATED);
        *self.frame_mut(id) = Frame {
            len: first.size,
            flags,
            gso,
            network: Network::Other,
            since: now,
            pieces,
            extras,
            uses: 0,
        };
        Ok(Some(id))
    }

    /// Notes where a slot's bytes are.
    fn hold(&mut self, slot: &TxRequest) -> Result<u16, Violation> {
        let at = self.free;
        // The first slot's size is the frame's, and judged when the others' are known.
        let piece = Piece {
            reference: slot.reference,
            offset: slot.offset,
            len: slot.size,
            id: slot.id,
            next: END,
        };
        let place = self.pieces.get_mut(usize::from(at)).ok_or(Violation::LongChain)?;
        let free = core::mem::replace(place, piece).next;
        (self.free, self.len) = (free, self.len + 1);
        Ok(at)
    }

    /// A frame is to be delivered to one more.
    pub(crate) fn add_use(&mut self, id: FrameId) {
        self.frame_mut(id).uses += 1;
    }

    /// It was delivered, or will not be. If that was the last one, its slots are responded to.
    pub(crate) fn end_use<P: Shared>(&mut self, ring: &mut Ring<P>, id: FrameId, status: i16) {
        let frame = self.frame_mut(id);
        frame.uses = frame.uses.saturating_sub(1);
        if frame.uses == 0 {
            self.respond(ring, id, status);
        }
    }

    fn respond<P: Shared>(&mut self, ring: &mut Ring<P>, id: FrameId, status: i16) {
        let Frame { pieces, extras, .. } = *self.frame(id);
        let mut at = id.0;
        for number in 0..pieces {
            let piece = &mut self.pieces[usize::from(at)];
            ring.put(&TxResponse { id: piece.id, status });
            if number == 0 {
                for _ in 0..extras {
                    ring.put(&TxResponse { id: piece.id, status: netif::NULL });
                }
            }
            let next = core::mem::replace(&mut piece.next, self.free);
            (self.free, at) = (at, next);
            self.len -= 1;
        }
    }
}

impl Frame {
    /// A frame that was made here.
    pub(crate) fn made(len: u16, flags: Flags) -> Self {
        Self { len, flags, ..Self::default() }
    }

    /// Whether it has not even an Ethernet header.
    pub(crate) const fn is_too_short(&self) -> bool {
        (self.len as usize) < ETHERNET
    }
}

/// Takes the extra slots behind a frame's first one: how many there are, and what they say.
fn take_extras<P: Shared>(
    ring: &mut Ring<P>,
    flags: Flags,
) -> Result<(u8, Option<Gso>), Violation> {
    let (mut extras, mut gso) = (0, None);
    let mut more = flags.contains(Flags::EXTRA_INFO);
    while more {
        let extra = ExtraInfo::from(ring.take()?.ok_or(Violation::CutChain)?);
        if extra.kind != EXTRA_GSO || extras == EXTRAS_MAX {
            return Err(Violation::Extra);
        }
        gso = Some(Gso::of(&extra).ok_or(Violation::Extra)?);
        extras += 1;
        more = extra.flags & EXTRA_MORE != 0;
    }
    Ok((extras, gso))
}

fn check_inside(offset: u16, len: u16) -> Result<(), Violation> {
    let end = usize::from(offset) + usize::from(len);
    if end > xen_sys::page::PAGE_SIZE { Err(Violation::OutsidePage) } else { Ok(()) }
}
