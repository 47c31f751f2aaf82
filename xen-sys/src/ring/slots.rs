//! Request and response rings (xen/include/public/io/ring.h).
//!
//! One ring of slots carries both: the front end puts requests in, the back end takes each
//! out and later puts a response into a slot whose request it took. A slot therefore is free
//! for a new request once its response was read. Each side says from which index on it wants
//! to be notified, so that a busy peer is left alone.
//!
//! The order that makes this work: publish an index, *then* look at the event threshold;
//! set a threshold, *then* look at the index again. Either end's two steps are parted by a
//! full fence, or both could look before the other wrote, and sleep for ever.

use core::marker::PhantomData;
use core::sync::atomic::{Ordering, fence};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::shared::Region;
use super::{BadIndex, distance};
use crate::page::{PAGE_SIZE, Shared};

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;
const SLOTS: usize = 64;

/// How the slots of a ring of `Req` and `Rsp` lie in shared memory.
#[derive(Clone, Copy, Debug)]
struct Slots<Req, Rsp> {
    /// How many, a power of two.
    count: u32,
    types: PhantomData<fn(Req) -> Rsp>,
}

impl<Req, Rsp> Slots<Req, Rsp> {
    /// A slot holds either, so is as large as the larger.
    const SIZE: usize =
        if size_of::<Req>() > size_of::<Rsp>() { size_of::<Req>() } else { size_of::<Rsp>() };
    const FITS: () = assert!(Self::SIZE > 0 && Self::SIZE <= PAGE_SIZE - SLOTS);

    /// As many slots as fit, rounded down to a power of two.
    fn of(region: Region<'_>) -> Self {
        const { Self::FITS };
        let fit = (region.len() - SLOTS) / Self::SIZE;
        Self { count: 1 << fit.ilog2(), types: PhantomData }
    }

    const fn at(&self, index: u32) -> usize {
        SLOTS + (index & (self.count - 1)) as usize * Self::SIZE
    }
}

/// Reads the other end's producer index and judges it.
fn produced(region: Region<'_>, at: usize, cons: u32, most: u32) -> Result<u32, BadIndex> {
    // Acquire: the slots are read after the index that covers them.
    let prod = region.word(at).load(Ordering::Acquire);
    distance(prod, cons, most).map(|_| prod)
}

/// Publishes a producer index; tells whether the other end wants to be notified of it.
fn publish(region: Region<'_>, prod_at: usize, event_at: usize, old: u32, new: u32) -> bool {
    // Release: the slots are there before the index that covers them.
    region.word(prod_at).store(new, Ordering::Release);
    fence(Ordering::SeqCst);
    let event = region.word(event_at).load(Ordering::Relaxed);
    new.wrapping_sub(event) < new.wrapping_sub(old)
}

/// Asks to be notified of the index after `cons`.
fn ask_for_event(region: Region<'_>, event_at: usize, cons: u32) {
    region.word(event_at).store(cons.wrapping_add(1), Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// Copies a whole slot out before anyone looks at it: what the peer writes there later
/// changes nothing that was judged.
fn take_slot<T: FromBytes + IntoBytes>(region: Region<'_>, at: usize) -> T {
    let mut slot = T::new_zeroed();
    region.copy_out(at, slot.as_mut_bytes());
    slot
}

/// The back end: takes requests, puts responses; over memory `P` that it keeps.
///
/// `Req` and `Rsp` are the header's structures, any bits of which are valid.
#[derive(Debug)]
pub struct Back<P, Req, Rsp> {
    memory: P,
    slots: Slots<Req, Rsp>,
    /// Requests taken.
    taken: u32,
    /// Requests last seen to be there.
    seen: u32,
    /// Responses put into slots.
    put: u32,
    /// Responses the front end was shown.
    shown: u32,
}

impl<P, Req, Rsp> Back<P, Req, Rsp>
where
    P: Shared,
    Req: FromBytes + IntoBytes,
    Rsp: IntoBytes + Immutable,
{
    /// Attaches to a ring the front end set up: requests without a response are taken, again
    /// if an earlier back end had taken them.
    #[must_use]
    pub fn attach(memory: P) -> Self {
        let region = Region::of(&memory);
        let at = region.word(RSP_PROD).load(Ordering::Acquire);
        let slots = Slots::of(region);
        Self { memory, slots, taken: at, seen: at, put: at, shown: at }
    }

    /// How many slots the ring has.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.slots.count
    }

    /// Takes the next request, if there is one.
    ///
    /// # Errors
    /// [`BadIndex`] if the front end claims requests for which there are no free slots.
    #[inline]
    pub fn take(&mut self) -> Result<Option<Req>, BadIndex> {
        let region = Region::of(&self.memory);
        if self.taken == self.seen {
            // A slot is free only once its response was put.
            let most = self.slots.count - self.taken.wrapping_sub(self.put);
            self.seen = produced(region, REQ_PROD, self.taken, most)?;
            if self.taken == self.seen {
                return Ok(None);
            }
        }
        let request = take_slot(region, self.slots.at(self.taken));
        self.taken = self.taken.wrapping_add(1);
        Ok(Some(request))
    }

    /// How many requests were taken that have no response yet.
    #[must_use]
    pub const fn outstanding(&self) -> u32 {
        self.taken.wrapping_sub(self.put)
    }

    /// Puts the next response into its slot. The front end sees it after
    /// [`publish`](Self::publish).
    ///
    /// # Panics
    /// If every request taken has one already: that is our own mistake.
    #[inline]
    pub fn put(&mut self, response: &Rsp) {
        assert!(self.outstanding() > 0, "a response without a request");
        Region::of(&self.memory).copy_in(self.slots.at(self.put), response.as_bytes());
        self.put = self.put.wrapping_add(1);
    }

    /// Shows the front end all responses put so far; tells whether to notify it.
    #[inline]
    #[must_use]
    pub fn publish(&mut self) -> bool {
        let old = core::mem::replace(&mut self.shown, self.put);
        old != self.put && publish(Region::of(&self.memory), RSP_PROD, RSP_EVENT, old, self.put)
    }

    /// How many responses were put that the front end was not shown.
    #[must_use]
    pub const fn unshown(&self) -> u32 {
        self.put.wrapping_sub(self.shown)
    }

    /// Whether the front end still waits for an event of what it was shown: for whoever does not
    /// send every event at once.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        let event = Region::of(&self.memory).word(RSP_EVENT).load(Ordering::Relaxed);
        self.shown.wrapping_sub(event).cast_signed() >= 0
    }

    /// Asks for an event at the next request, then looks once more whether there is one. Wait
    /// only if there is not.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn has_more(&mut self) -> Result<bool, BadIndex> {
        let region = Region::of(&self.memory);
        if self.taken == self.seen {
            ask_for_event(region, REQ_EVENT, self.taken);
            let most = self.slots.count - self.taken.wrapping_sub(self.put);
            self.seen = produced(region, REQ_PROD, self.taken, most)?;
        }
        Ok(self.taken != self.seen)
    }
}

/// An error returned by [`Front::put`]: no slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The front end: puts requests, takes responses; over memory `P` that it keeps.
#[derive(Debug)]
pub struct Front<P, Req, Rsp> {
    memory: P,
    slots: Slots<Req, Rsp>,
    /// Requests put into slots.
    put: u32,
    /// Requests the back end was shown.
    shown: u32,
    /// Responses taken.
    taken: u32,
    /// Responses last seen to be there.
    seen: u32,
}

impl<P, Req, Rsp> Front<P, Req, Rsp>
where
    P: Shared,
    Req: IntoBytes + Immutable,
    Rsp: FromBytes + IntoBytes,
{
    /// Sets up an empty ring.
    #[must_use]
    pub fn set_up(memory: P) -> Self {
        let region = Region::of(&memory);
        region.fill(0, region.len(), 0);
        // Each side wants to know of the first.
        region.word(REQ_EVENT).store(1, Ordering::Relaxed);
        region.word(RSP_EVENT).store(1, Ordering::Release);
        let slots = Slots::of(region);
        Self { memory, slots, put: 0, shown: 0, taken: 0, seen: 0 }
    }

    /// How many slots the ring has.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.slots.count
    }

    /// How many requests fit now.
    #[must_use]
    pub const fn free(&self) -> u32 {
        self.slots.count - self.put.wrapping_sub(self.taken)
    }

    /// Puts a request into the next slot; tells the slot's index in the ring. The back end sees
    /// it after [`publish`](Self::publish).
    ///
    /// # Errors
    /// [`Full`] until a response is taken.
    #[inline]
    pub fn put(&mut self, request: &Req) -> Result<u32, Full> {
        if self.free() == 0 {
            return Err(Full);
        }
        let slot = self.put & (self.slots.count - 1);
        Region::of(&self.memory).copy_in(self.slots.at(self.put), request.as_bytes());
        self.put = self.put.wrapping_add(1);
        Ok(slot)
    }

    /// Shows the back end all requests put so far; tells whether to notify it.
    #[inline]
    #[must_use]
    pub fn publish(&mut self) -> bool {
        let old = core::mem::replace(&mut self.shown, self.put);
        old != self.put && publish(Region::of(&self.memory), REQ_PROD, REQ_EVENT, old, self.put)
    }

    /// Takes the next response, if there is one.
    ///
    /// # Errors
    /// [`BadIndex`] if the back end claims to have answered what it was never shown.
    #[inline]
    pub fn take(&mut self) -> Result<Option<Rsp>, BadIndex> {
        let region = Region::of(&self.memory);
        if self.taken == self.seen {
            self.seen = produced(region, RSP_PROD, self.taken, self.unanswered())?;
            if self.taken == self.seen {
                return Ok(None);
            }
        }
        let response = take_slot(region, self.slots.at(self.taken));
        self.taken = self.taken.wrapping_add(1);
        Ok(Some(response))
    }

    /// Asks for an event at the next response, then looks once more whether there is one. Wait
    /// only if there is not.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn has_more(&mut self) -> Result<bool, BadIndex> {
        let region = Region::of(&self.memory);
        if self.taken == self.seen {
            ask_for_event(region, RSP_EVENT, self.taken);
            self.seen = produced(region, RSP_PROD, self.taken, self.unanswered())?;
        }
        Ok(self.taken != self.seen)
    }

    /// The memory it is in.
    #[must_use]
    pub const fn memory(&self) -> &P {
        &self.memory
    }

    /// The ring's memory, to be taken back from the back end.
    #[must_use]
    pub fn into_memory(self) -> P {
        self.memory
    }

    const fn unanswered(&self) -> u32 {
        self.shown.wrapping_sub(self.taken)
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
