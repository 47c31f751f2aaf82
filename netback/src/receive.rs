//! A receive ring: pages in which a guest wants to receive, and frames that wait for them.

use alloc::collections::VecDeque;

use xen_sys::page::{PAGE_SIZE, Shared};
use xen_sys::ring::netif::{self, Flags, RxRequest, RxResponse};
use xen_sys::ring::slots::Back;

use crate::held::{Frame, FrameId, Piece};
use crate::port::QueueId;
use crate::violation::Violation;

/// Frames that wait for one ring at most.
pub(crate) const WAITING_MAX: usize = 256;

/// Slots that a frame may need: it may have to be cut into others.
pub(crate) const NEED_MAX: usize = 128;

const _: () = assert!(NEED_MAX > netif::CHAIN_MAX, "one for each of its own, one for the extra");

/// A frame that waits, and where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) from: QueueId,
    pub(crate) frame: FrameId,
}

/// A receive ring and what waits for it.
pub(crate) struct Receive<P> {
    ring: Back<P, RxRequest, RxResponse>,
    /// Requests that were taken and not used, in order.
    posted: heapless::Deque<RxRequest, NEED_MAX>,
    /// Frames for this ring, in order; room for all is there from the beginning.
    pub(crate) waiting: VecDeque<Waiting>,
    /// It had no pages for the frame that waits first.
    pub(crate) is_starved: bool,
    /// It left frames waiting for too long, and has not posted a page since.
    pub(crate) is_stalled: bool,
}

/// How much memory one takes beside its own.
pub(crate) const BYTES: usize = WAITING_MAX * size_of::<Waiting>();

impl<P: Shared> Receive<P> {
    pub(crate) fn new(page: P) -> Self {
        Self {
            ring: Back::attach(page),
            posted: heapless::Deque::new(),
            waiting: VecDeque::with_capacity(WAITING_MAX),
            is_starved: false,
            is_stalled: false,
        }
    }

    /// Whether that many pages are there; if not, an event comes when there are more.
    pub(crate) fn has(&mut self, need: usize) -> Result<bool, Violation> {
        while self.posted.len() < need {
            match self.ring.take()? {
                Some(request) => {
                    self.is_stalled = false;
                    let _ = self.posted.push_back(request);
                }
                None if self.ring.has_more()? => {}
                None => {
                    self.is_starved = true;
                    return Ok(false);
                }
            }
        }
        self.is_starved = false;
        Ok(true)
    }

    /// The next page that was [found](Self::has).
    pub(crate) fn next(&mut self) -> Option<RxRequest> {
        self.posted.pop_front()
    }

    /// Responds to the next request that was taken.
    pub(crate) fn put(&mut self, response: &RxResponse) {
        self.ring.put(response);
    }

    /// Shows the guest all responses; tells whether to notify it.
    pub(crate) fn publish(&mut self) -> bool {
        self.ring.publish()
    }
}

/// How a frame's bytes lie in the receiver's pages: each piece whole in one, and in the same as the
/// one before if there is room behind it. So every piece takes one copy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layout {
    used: usize,
    pages: usize,
}

impl Layout {
    /// Places the next piece: where in its page it begins, and whether that page is a new one.
    pub(crate) fn place(&mut self, len: u16) -> (u16, bool) {
        let len = usize::from(len);
        let is_new = self.pages == 0 || self.used + len > PAGE_SIZE;
        if is_new {
            (self.used, self.pages) = (0, self.pages + 1);
        }
        let at = self.used;
        self.used += len;
        #[expect(clippy::cast_possible_truncation, reason = "at most a page")]
        (at as u16, is_new)
    }

    /// How many slots a frame of these pieces takes.
    pub(crate) fn need(frame: &Frame, pieces: impl Iterator<Item = Piece>) -> usize {
        let mut layout = Self::default();
        for piece in pieces {
            layout.place(piece.len);
        }
        layout.pages + usize::from(frame.gso.is_some())
    }
}

/// The flags of a received frame: a blank checksum need not be looked at, either.
pub(crate) fn received(flags: Flags) -> Flags {
    if flags.contains(Flags::CSUM_BLANK) { flags | Flags::DATA_VALIDATED } else { flags }
}
