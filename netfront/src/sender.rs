//! The transmit ring.

use heapless::Vec;
use xen_sys::page::Shared;
use xen_sys::ring::netif::{Flags, NULL, OKAY, TxRequest, TxResponse};
use xen_sys::ring::slots::{Front, Full};

use crate::frame::{Frame, MOST, OF_FRAME};
use crate::{SLOTS, Violation};

/// Sends frames, over memory `P` that it keeps.
#[derive(Debug)]
pub struct Sender<P> {
    ring: Front<P, TxRequest, TxResponse>,
    /// The page in each request without a response, by the request's id.
    pages: [Option<u16>; SLOTS as usize],
    /// The ids that name no request. Requests may be answered in any order, so a free slot of the
    /// ring says nothing about the id of the same number.
    ids: Vec<u16, { SLOTS as usize }>,
    /// Extra slots without a response.
    extras: u32,
}

/// A page whose bytes the backend needs no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Which.
    pub page: u16,
    /// Whether they went out, as far as the backend tells.
    pub is_ok: bool,
}

impl<P: Shared> Sender<P> {
    /// Sets up an empty ring.
    ///
    /// # Panics
    /// If the memory is not one page: that is our own mistake.
    #[must_use]
    pub fn set_up(memory: P) -> Self {
        let ring = Front::set_up(memory);
        assert_eq!(ring.size(), u32::from(SLOTS), "a ring of one page");
        let ids = (0..SLOTS).collect();
        Self { ring, pages: [None; SLOTS as usize], ids, extras: 0 }
    }

    /// How many slots are free. A frame takes one for each piece, and one if it is to be cut.
    #[must_use]
    pub const fn free(&self) -> usize {
        self.ring.free() as usize
    }

    /// Puts a frame, whose pages `reference` names as the backend knows them. It sees the frame
    /// after [`publish`](Self::publish), and has its pages until [`take`](Self::take) gives them
    /// back.
    ///
    /// # Errors
    /// [`Full`] if there are not slots for all of it; then nothing was put.
    ///
    /// # Panics
    /// If the frame has no pieces, or more than [`MOST`] bytes: that is our own mistake.
    pub fn put(&mut self, frame: &Frame, reference: impl Fn(u16) -> u32) -> Result<(), Full> {
        let (first, rest) = frame.pieces.split_first().expect("a frame has bytes");
        let size = u16::try_from(frame.len());
        let size = size.unwrap_or_else(|_| panic!("a frame has at most {MOST} bytes"));
        if self.free() < frame.pieces.len() + usize::from(frame.gso.is_some()) {
            return Err(Full);
        }
        let more = |more: bool| if more { Flags::MORE_DATA } else { Flags::empty() };
        let extra = if frame.gso.is_some() { Flags::EXTRA_INFO } else { Flags::empty() };
        let flags = (frame.flags & OF_FRAME) | extra | more(!rest.is_empty());
        self.put_page(first.page, |id| TxRequest {
            reference: reference(first.page),
            offset: first.offset,
            flags: flags.bits(),
            id,
            size,
        })?;
        if let Some(gso) = frame.gso {
            self.ring.put(&gso.extra().into())?;
            self.extras += 1;
        }
        for (left, piece) in (0..rest.len()).rev().zip(rest) {
            self.put_page(piece.page, |id| TxRequest {
                reference: reference(piece.page),
                offset: piece.offset,
                flags: more(left > 0).bits(),
                id,
                size: piece.len,
            })?;
        }
        Ok(())
    }

    fn put_page(&mut self, page: u16, request: impl FnOnce(u16) -> TxRequest) -> Result<(), Full> {
        // There are as many ids as slots, and every request of a page has one of each.
        let id = self.ids.pop().ok_or(Full)?;
        self.pages[usize::from(id)] = Some(page);
        self.ring.put(&request(id)).map(|_| ())
    }

    /// Shows the backend all frames put so far; tells whether to notify it.
    #[must_use]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Takes back the next page that the backend has done with, if there is one.
    ///
    /// # Errors
    /// [`Violation`] if it answers what it was not asked.
    pub fn take(&mut self) -> Result<Option<Sent>, Violation> {
        while let Some(TxResponse { id, status }) = self.ring.take()? {
            if status == NULL {
                self.extras = self.extras.checked_sub(1).ok_or(Violation::NoExtra)?;
                continue;
            }
            let slot = self.pages.get_mut(usize::from(id)).and_then(Option::take);
            let page = slot.ok_or(Violation::Id(id))?;
            // As many as there are slots in `pages`, so there is room.
            let _ = self.ids.push(id);
            return Ok(Some(Sent { page, is_ok: status == OKAY }));
        }
        Ok(None)
    }

    /// The ring's memory, once the backend was told that the device is closed.
    #[must_use]
    pub fn into_memory(self) -> P {
        self.ring.into_memory()
    }

    /// Asks for an event when there is a page to take, then looks once more whether there is one.
    /// Wait only if there is not.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn has_more(&mut self) -> Result<bool, Violation> {
        Ok(self.ring.has_more()?)
    }
}
