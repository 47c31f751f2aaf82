//! The receive ring.

use core::mem;

use heapless::Vec;
use xen_sys::page::Shared;
use xen_sys::ring::netif::{CHAIN_MAX, EXTRA_MORE, ExtraInfo, Flags, Gso, RxRequest, RxResponse};
use xen_sys::ring::slots::{Front, Full};

use crate::frame::{Frame, LEAST, MOST, OF_FRAME, Piece};
use crate::{SLOTS, Violation};

/// How many kinds of extra slots the header has (`XEN_NETIF_EXTRA_TYPE_MAX`), and one of Linux.
const EXTRA_KINDS: u32 = 5;

/// Receives frames, over memory `P` that it keeps.
#[derive(Debug)]
pub struct Receiver<P> {
    ring: Front<P, RxRequest, RxResponse>,
    /// The page in each slot. The n-th response answers the n-th request, so that a request's slot
    /// is its id.
    pages: [Page; SLOTS as usize],
    /// The slot of the next request.
    put_at: u16,
    /// The slot of the next response.
    take_at: u16,
    /// The frame whose last slot has not been seen.
    frame: Frame,
    /// Its pages as the backend knows them, to be posted again if it is lost.
    references: Vec<u32, CHAIN_MAX>,
    next: Next,
    /// An error was reported for a part of it, or it makes no sense.
    is_bad: bool,
    lost: u64,
}

/// A page to receive in.
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    number: u16,
    reference: u32,
}

/// What the next response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A frame's first.
    First,
    /// An extra slot, of which there were so many; whether there is more of the frame then.
    Extra { before: u32, more: bool },
    /// More of a frame.
    More,
}

impl<P: Shared> Receiver<P> {
    /// Sets up an empty ring.
    ///
    /// # Panics
    /// If the memory is not one page: that is our own mistake.
    #[must_use]
    pub fn set_up(memory: P) -> Self {
        let ring = Front::set_up(memory);
        assert_eq!(ring.size(), u32::from(SLOTS), "a ring of one page");
        Self {
            ring,
            pages: [Page::default(); SLOTS as usize],
            put_at: 0,
            take_at: 0,
            frame: Frame::default(),
            references: Vec::new(),
            next: Next::First,
            is_bad: false,
            lost: 0,
        }
    }

    /// How many pages can be posted. As many slots as a frame that is not all there has taken are
    /// kept for its pages, which are posted again if it is lost.
    #[must_use]
    pub fn free(&self) -> usize {
        self.ring.free() as usize - self.references.len()
    }

    /// How many frames were lost because the backend could not bring all of one, or because it makes
    /// no sense.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Posts a page to be written by the backend, which knows it by `reference`. It sees it after
    /// [`publish`](Self::publish), and has it until [`take`](Self::take) returns it in a frame.
    ///
    /// # Errors
    /// [`Full`] if all slots are in use.
    pub fn post(&mut self, page: u16, reference: u32) -> Result<(), Full> {
        if self.free() == 0 {
            return Err(Full);
        }
        self.put(Page { number: page, reference });
        Ok(())
    }

    /// Puts a page into a slot that is kept for it.
    fn put(&mut self, page: Page) {
        let id = advance(&mut self.put_at);
        let request = RxRequest { id, pad: 0, reference: page.reference };
        self.ring.put(&request).expect("a slot for each page that came");
        self.pages[usize::from(id)] = page;
    }

    /// Shows the backend all pages posted so far; tells whether to notify it.
    #[must_use]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Takes the next frame, if all of one is there. Its pages are the caller's until it posts them
    /// again. Pages that hold nothing of a frame are posted again at once.
    ///
    /// # Errors
    /// [`Violation`] if the responses cannot be.
    pub fn take(&mut self) -> Result<Option<Frame>, Violation> {
        while let Some(response) = self.ring.take()? {
            let slot = advance(&mut self.take_at);
            let page = self.pages[usize::from(slot)];
            if let Next::Extra { before, more } = self.next {
                self.take_extra(response.into(), before, more, page)?;
            } else {
                self.take_piece(response, slot, page)?;
            }
            if self.next == Next::First
                && let Some(frame) = self.end_frame()
            {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// The ring's memory, once the backend was told that the device is closed.
    #[must_use]
    pub fn into_memory(self) -> P {
        self.ring.into_memory()
    }

    /// Asks for an event when there are responses, then looks once more whether there are. Wait
    /// only if there are not.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn has_more(&mut self) -> Result<bool, Violation> {
        Ok(self.ring.has_more()?)
    }

    fn take_piece(&mut self, response: RxResponse, slot: u16, page: Page) -> Result<(), Violation> {
        let RxResponse { id, offset, flags, status } = response;
        if id != slot {
            return Err(Violation::Id(id));
        }
        let piece = match u16::try_from(status) {
            Ok(len) if len > 0 => Piece::within_page(page.number, offset, len)?,
            // Below zero is why there is nothing in this page.
            _ => {
                self.is_bad = true;
                Piece { page: page.number, offset: 0, len: 0 }
            }
        };
        self.frame.pieces.push(piece).map_err(|_| Violation::Chain)?;
        self.references.push(page.reference).map_err(|_| Violation::Chain)?;
        let flags = Flags::from_bits_truncate(flags);
        let more = flags.contains(Flags::MORE_DATA);
        let is_first = self.next == Next::First;
        if is_first {
            self.frame.flags = flags & OF_FRAME;
        }
        self.next = match (is_first && flags.contains(Flags::EXTRA_INFO), more) {
            (true, more) => Next::Extra { before: 0, more },
            (false, true) => Next::More,
            (false, false) => Next::First,
        };
        Ok(())
    }

    fn take_extra(
        &mut self,
        extra: ExtraInfo,
        before: u32,
        more: bool,
        page: Page,
    ) -> Result<(), Violation> {
        self.put(page);
        match Gso::of(&extra) {
            Some(gso) => self.frame.gso = Some(gso),
            // Nothing else was asked for.
            None => self.is_bad = true,
        }
        let before = before + 1;
        self.next = match (extra.flags & EXTRA_MORE != 0, more) {
            (true, _) if before == EXTRA_KINDS => return Err(Violation::Extras),
            (true, more) => Next::Extra { before, more },
            (false, true) => Next::More,
            (false, false) => Next::First,
        };
        Ok(())
    }

    /// The frame that is all there; or none, if it is good for nothing.
    fn end_frame(&mut self) -> Option<Frame> {
        let frame = mem::take(&mut self.frame);
        let references = mem::take(&mut self.references);
        let is_bad = mem::take(&mut self.is_bad);
        if !is_bad && (LEAST..=MOST).contains(&frame.len()) {
            return Some(frame);
        }
        for (piece, reference) in frame.pieces.iter().zip(references) {
            self.put(Page { number: piece.page, reference });
        }
        self.lost += 1;
        None
    }
}

/// The slot that a place in the ring is at, and the place is at the next.
const fn advance(place: &mut u16) -> u16 {
    let slot = *place;
    *place = (slot + 1) % SLOTS;
    slot
}
