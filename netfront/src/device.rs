//! A device for `smoltcp`.
//!
//! A frame is copied out of its pages before anyone parses it, so its pages can be posted again at
//! once. `smoltcp` verifies every checksum; where the sender left one blank, which says that the
//! data never was on a wire, the device fills it in first. So nothing is taken on trust that cannot
//! be understood, and what is sent has all its checksums.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use heapless::Vec as Stack;
use offload::fill_checksum;
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use xen_sys::page::{PAGE_SIZE, Shared};
use xen_sys::ring::netif::Flags;
use xen_sys::ring::shared::Region;

use crate::frame::{Frame, LEAST, MOST, Piece};
use crate::{SLOTS, Vif, Violation};

/// The most bytes of a packet that is sent, the header of Ethernet not counted: what every backend
/// takes.
const MTU: usize = 1500;
/// The most bytes of a frame that is sent.
const FRAME: usize = LEAST + MTU;

/// A page of this device's own, of which the backend knows by its reference.
#[derive(Debug)]
pub struct Page<M> {
    /// Where its bytes are.
    pub memory: M,
    /// How the backend knows it.
    pub reference: u32,
}

/// A frontend with pages `M` behind it, its rings in memory `P`.
#[derive(Debug)]
pub struct Device<P, M> {
    vif: Vif<P>,
    to_receive: Vec<Page<M>>,
    to_send: Vec<Page<M>>,
    /// Pages to send that nobody has.
    free: Stack<u16, { SLOTS as usize }>,
    /// The frame that was received last.
    received: Box<[u8]>,
    /// The frame that is sent next.
    sent: Box<[u8]>,
    violation: Option<Violation>,
}

impl<P: Shared, M: Shared> Device<P, M> {
    /// Makes a device of rings that are new and two sets of pages, of at most [`SLOTS`] each: beyond
    /// that they are of no use.
    #[must_use]
    pub fn new(mut vif: Vif<P>, to_receive: Vec<Page<M>>, to_send: Vec<Page<M>>) -> Self {
        for (number, page) in (0..SLOTS).zip(&to_receive) {
            // There is a slot for each: the ring is new.
            let _ = vif.receiver.post(number, page.reference);
        }
        let free = (0..SLOTS).take(to_send.len()).collect();
        let received = vec![0; MOST].into_boxed_slice();
        let sent = vec![0; FRAME].into_boxed_slice();
        Self { vif, to_receive, to_send, free, received, sent, violation: None }
    }

    /// Shows the backend what was done since it was last shown; tells whether to notify it. Call it
    /// after a poll of the stack.
    #[must_use]
    pub fn publish(&mut self) -> bool {
        self.vif.publish()
    }

    /// Asks for an event when there is something to be received, or a page to send is free again,
    /// and looks once more whether there is.
    ///
    /// # Errors
    /// [`Violation`] if the backend has broken the rules, now or before: the device must be closed,
    /// and gives no frames any more.
    pub fn has_more(&mut self) -> Result<bool, Violation> {
        match self.violation {
            Some(violation) => Err(violation),
            None => self.vif.has_more(),
        }
    }

    /// The device, to be closed, and its pages.
    pub fn part(self) -> (Vif<P>, [Vec<Page<M>>; 2]) {
        (self.vif, [self.to_receive, self.to_send])
    }

    /// Copies the next frame out of its pages; tells how long it is.
    fn take_frame(&mut self) -> Result<Option<usize>, Violation> {
        let Some(frame) = self.vif.receiver.take()? else { return Ok(None) };
        let mut rest = &mut self.received[..];
        for piece in &frame.pieces {
            let page = &self.to_receive[usize::from(piece.page)];
            let (part, after) = rest.split_at_mut(usize::from(piece.len));
            Region::of(&page.memory).copy_out(usize::from(piece.offset), part);
            rest = after;
            // It has just left a slot.
            let _ = self.vif.receiver.post(piece.page, page.reference);
        }
        let len = frame.len();
        if frame.flags.contains(Flags::CSUM_BLANK) {
            // What cannot be understood stays as it is, and the stack drops it.
            fill_checksum(&mut self.received[..len]);
        }
        Ok(Some(len))
    }

    /// Takes back pages that were sent; tells whether there is one to send in.
    fn can_send(&mut self) -> Result<bool, Violation> {
        while let Some(sent) = self.vif.sender.take()? {
            let _ = self.free.push(sent.page);
        }
        Ok(!self.free.is_empty() && self.vif.sender.free() > 0)
    }

    /// What the backend's rings gave, unless it has broken the rules.
    fn unless_broken<T: Default>(&mut self, result: Result<T, Violation>) -> T {
        result.unwrap_or_else(|violation| {
            self.violation = Some(violation);
            T::default()
        })
    }
}

impl<P: Shared, M: Shared> phy::Device for Device<P, M> {
    type RxToken<'a>
        = RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a, P, M>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_>, TxToken<'_, P, M>)> {
        if self.violation.is_some() {
            return None;
        }
        // A frame that nobody could answer stays in the ring.
        let can_send = self.can_send();
        if !self.unless_broken(can_send) {
            return None;
        }
        let len = self.take_frame();
        let len = self.unless_broken(len)?;
        let Self { vif, to_send, free, received, sent, .. } = self;
        Some((RxToken(&received[..len]), TxToken { vif, pages: to_send, free, buffer: sent }))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_, P, M>> {
        if self.violation.is_some() {
            return None;
        }
        let can_send = self.can_send();
        if !self.unless_broken(can_send) {
            return None;
        }
        let Self { vif, to_send, free, sent, .. } = self;
        Some(TxToken { vif, pages: to_send, free, buffer: sent })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }
}

/// A frame that was received.
#[derive(Debug)]
pub struct RxToken<'a>(&'a [u8]);

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// A page to send a frame in.
#[derive(Debug)]
pub struct TxToken<'a, P, M> {
    vif: &'a mut Vif<P>,
    pages: &'a [Page<M>],
    free: &'a mut Stack<u16, { SLOTS as usize }>,
    buffer: &'a mut [u8],
}

impl<P: Shared, M: Shared> phy::TxToken for TxToken<'_, P, M> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let bytes = &mut self.buffer[..len];
        let result = f(bytes);
        // There is one, or there would be no token.
        if let Some(page) = self.free.pop() {
            let Page { memory, reference } = &self.pages[usize::from(page)];
            Region::of(memory).copy_in(0, bytes);
            let len = u16::try_from(len).expect("at most what was said to be the most");
            let piece = Piece { page, offset: 0, len };
            let frame = Frame { pieces: [piece].into_iter().collect(), ..Frame::default() };
            let _ = self.vif.sender.put(&frame, |_| *reference);
        }
        result
    }
}

const _: () = assert!(FRAME <= PAGE_SIZE, "a frame that is sent is in one page");
