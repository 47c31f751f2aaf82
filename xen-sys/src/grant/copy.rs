//! Moving bytes by Xen's hand: to and from pages others grant, without mapping them.
//!
//! A batch of copies is one hypercall. Copies next to each other that name the same grant
//! cost Xen less, so keep them together.

use core::fmt;
use core::marker::PhantomData;
use core::mem::offset_of;

use super::{Status, TRIES, UNWRITTEN, run};
use crate::ids::{DOMID_SELF, DomId, Errno, Gfn, GrantRef};
use crate::page::{PAGE_SIZE, Shared};
use crate::sched;

const GNTTABOP_COPY: u64 = 5;

/// `GNTCOPY_source_gref`.
const SOURCE_GRANT: u16 = 1;
/// `GNTCOPY_dest_gref`.
const DEST_GRANT: u16 = 2;

/// `struct gnttab_copy_ptr`. The union's u64 holds a frame, or a reference in its low half.
#[derive(Clone, Copy)]
#[repr(C)]
struct Place {
    frame_or_reference: u64,
    domid: u16,
    offset: u16,
}

/// `struct gnttab_copy`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Copy {
    source: Place,
    dest: Place,
    len: u16,
    flags: u16,
    status: i16,
}

const _: () = assert!(size_of::<Place>() == 16 && offset_of!(Place, domid) == 8);
const _: () = assert!(size_of::<Copy>() == 40 && offset_of!(Copy, len) == 32);
const _: () = assert!(offset_of!(Copy, status) == 36);

/// A place in a page that another domain grants.
///
/// Having one tells nothing: each of the three is a claim until a copy succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Whose page it is.
    pub domain: DomId,
    /// The reference it is granted by.
    pub reference: GrantRef,
    /// In bytes from the page's start.
    pub offset: u16,
}

impl Foreign {
    fn place(self) -> Place {
        Place {
            frame_or_reference: self.reference.0.into(),
            domid: self.domain.raw(),
            offset: self.offset,
        }
    }

    /// The place `by` bytes further on, which [`Batch::room_for`] found inside the page.
    fn skip(self, by: u16) -> Self {
        Self { offset: self.offset + by, ..self }
    }
}

/// An error returned when a copy is added to a [`Batch`]; nothing was added then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// The batch has no room for it: run this one first.
    Full,
    /// It would reach beyond the foreign page.
    OutsidePage,
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the batch is full",
            Self::OutsidePage => "the copy would reach beyond its page",
        })
    }
}

impl core::error::Error for AddError {}

/// The number of a copy in its batch, to ask for its [`Batch::status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(usize);

/// Up to `N` copies that Xen makes in one call.
///
/// A local side that crosses a page boundary takes two of them. Local bytes, and shared memory
/// of ours, are borrowed for as long as the batch lives.
pub struct Batch<'a, const N: usize> {
    copies: heapless::Vec<Copy, N>,
    /// For each ticket, the number of copies up to and including its own.
    ends: heapless::Vec<usize, N>,
    local: PhantomData<&'a mut [u8]>,
}

impl<'a, const N: usize> Batch<'a, N> {
    /// An empty batch.
    #[must_use]
    pub const fn new() -> Self {
        Self { copies: heapless::Vec::new(), ends: heapless::Vec::new(), local: PhantomData }
    }

    /// How many copies it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.copies.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// Adds a copy from a foreign page into `to`.
    ///
    /// # Errors
    /// As [`AddError`] lists.
    pub fn read(&mut self, from: Foreign, to: &'a mut [u8]) -> Result<Ticket, AddError> {
        let [first, second] = runs(to.as_ptr(), to.len());
        self.room_for(from, to.len(), 2)?;
        self.add(from.place(), first.place, first.len, SOURCE_GRANT);
        self.add(from.skip(first.len).place(), second.place, second.len, SOURCE_GRANT);
        Ok(self.ticket())
    }

    /// Adds a copy of `from` into a foreign page.
    ///
    /// # Errors
    /// As [`AddError`] lists.
    pub fn write(&mut self, from: &'a [u8], to: Foreign) -> Result<Ticket, AddError> {
        let [first, second] = runs(from.as_ptr(), from.len());
        self.room_for(to, from.len(), 2)?;
        self.add(first.place, to.place(), first.len, DEST_GRANT);
        self.add(second.place, to.skip(first.len).place(), second.len, DEST_GRANT);
        Ok(self.ticket())
    }

    /// Adds a copy of `len` bytes from one foreign page into another; they never come here.
    ///
    /// # Errors
    /// As [`AddError`] lists.
    pub fn relay(&mut self, from: Foreign, to: Foreign, len: u16) -> Result<Ticket, AddError> {
        self.room_for(from, len.into(), 1)?;
        self.room_for(to, len.into(), 1)?;
        self.add(from.place(), to.place(), len, SOURCE_GRANT | DEST_GRANT);
        Ok(self.ticket())
    }

    /// Adds a copy of `len` bytes from a foreign page to `at` in memory of ours that is shared.
    ///
    /// # Errors
    /// As [`AddError`] lists.
    ///
    /// # Panics
    /// If they are not all inside, which is the caller's mistake.
    pub fn fetch(
        &mut self,
        from: Foreign,
        to: &'a impl Shared,
        at: usize,
        len: u16,
    ) -> Result<Ticket, AddError> {
        let [first, second] = runs(own_bytes(to, at, len), len.into());
        self.room_for(from, len.into(), 2)?;
        self.add(from.place(), first.place, first.len, SOURCE_GRANT);
        self.add(from.skip(first.len).place(), second.place, second.len, SOURCE_GRANT);
        Ok(self.ticket())
    }

    /// Adds a copy of `len` bytes at `at` in memory of ours that is shared into a foreign page.
    ///
    /// # Errors
    /// As [`AddError`] lists.
    ///
    /// # Panics
    /// As [`fetch`](Self::fetch).
    pub fn store(
        &mut self,
        from: &'a impl Shared,
        at: usize,
        to: Foreign,
        len: u16,
    ) -> Result<Ticket, AddError> {
        let [first, second] = runs(own_bytes(from, at, len), len.into());
        self.room_for(to, len.into(), 2)?;
        self.add(first.place, to.place(), first.len, DEST_GRANT);
        self.add(second.place, to.skip(first.len).place(), second.len, DEST_GRANT);
        Ok(self.ticket())
    }

    /// Adds no copy, which succeeds: for one that was made without Xen.
    ///
    /// # Errors
    /// As [`AddError`] lists.
    pub fn nothing(&mut self) -> Result<Ticket, AddError> {
        if self.ends.is_full() { Err(AddError::Full) } else { Ok(self.ticket()) }
    }

    /// Has Xen make the copies, in order. Each may fail by itself: see
    /// [`status`](Self::status). A page that is away for the moment is tried again a few
    /// times.
    ///
    /// # Errors
    /// As Xen refuses to look at them; then none is known to be made.
    pub fn run(&mut self) -> Result<(), Errno> {
        if self.copies.is_empty() {
            return Ok(());
        }
        // SAFETY: each copy's local side was borrowed for 'a, exclusively where it is written
        // unless it is shared memory, and lies in one page; the foreign sides are Xen's to judge.
        unsafe { run(GNTTABOP_COPY, &mut self.copies) }?;
        for copy in &mut self.copies {
            for _ in 1..TRIES {
                if Status::check(copy.status) != Err(Status::Again) {
                    break;
                }
                sched::yield_now();
                // SAFETY: as above.
                unsafe { run(GNTTABOP_COPY, core::slice::from_mut(copy)) }?;
            }
        }
        Ok(())
    }

    /// How a copy ended, after [`run`](Self::run).
    ///
    /// # Errors
    /// Why Xen refused it; part of it may have been made.
    pub fn status(&self, ticket: Ticket) -> Result<(), Status> {
        let end = self.ends.get(ticket.0).copied().unwrap_or(0);
        let start = ticket.0.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let copies = self.copies.get(start.unwrap_or(0)..end).unwrap_or(&[]);
        copies.iter().try_for_each(|copy| Status::check(copy.status))
    }

    fn room_for(&self, foreign: Foreign, len: usize, copies: usize) -> Result<(), AddError> {
        if usize::from(foreign.offset).saturating_add(len) > PAGE_SIZE {
            return Err(AddError::OutsidePage);
        }
        if self.copies.len() + copies > N || self.ends.is_full() {
            return Err(AddError::Full);
        }
        Ok(())
    }

    /// Adds a copy for which there is room; of nothing, none.
    fn add(&mut self, source: Place, dest: Place, len: u16, flags: u16) {
        if len > 0 {
            let copy = Copy { source, dest, len, flags, status: UNWRITTEN };
            let _ = self.copies.push(copy);
        }
    }

    fn ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.ends.len());
        let _ = self.ends.push(self.copies.len());
        ticket
    }
}

impl<const N: usize> Default for Batch<'_, N> {
    fn default() -> Self {
        Self::new()
    }
}

struct Run {
    place: Place,
    len: u16,
}

/// Where bytes of shared memory are.
fn own_bytes(memory: &impl Shared, at: usize, len: u16) -> *const u8 {
    let inside = at.checked_add(len.into()).is_some_and(|end| end <= memory.len());
    assert!(inside, "{len} bytes at {at} are outside {} shared bytes", memory.len());
    memory.base().as_ptr().wrapping_add(at)
}

/// The at most two pages that up to a page of our own bytes lie in.
fn runs(bytes: *const u8, len: usize) -> [Run; 2] {
    let offset = bytes.addr() % PAGE_SIZE;
    let first = len.min(PAGE_SIZE - offset);
    let run = |frame: u64, offset: usize, len: usize| Run {
        place: Place { frame_or_reference: frame, domid: DOMID_SELF, offset: narrow(offset) },
        len: narrow(len),
    };
    let frame = Gfn::holding(bytes as u64).0;
    [run(frame, offset, first), run(frame + 1, 0, len - first)]
}

/// A number of bytes of one page. More than a page is refused before it is used.
fn narrow(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test data is small")]
mod tests {
    use core::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    use super::*;
    use crate::hypercall::{Op, fake};
    use crate::page::{OwnPages, Page};

    /// A Xen whose granted pages are one page of our own, and that answers with `statuses`
    /// in turn, then with success.
    fn xen(statuses: &[i16]) -> Rc<RefCell<Box<Page>>> {
        let granted = Rc::new(RefCell::new(Page::zeroed().unwrap()));
        let page = granted.clone();
        let mut statuses: VecDeque<i16> = statuses.iter().copied().collect();
        fake::install(move |op, [command, arg, count]| {
            if op == Op::Sched {
                return 0;
            }
            assert_eq!((op, command), (Op::GrantTable, GNTTABOP_COPY));
            // SAFETY: `run` passes a live array.
            let copies =
                unsafe { core::slice::from_raw_parts_mut(arg as *mut Copy, count as usize) };
            for copy in copies {
                copy.status = statuses.pop_front().unwrap_or(0);
                if copy.status == 0 {
                    make(copy, page.borrow_mut().bytes_mut());
                }
            }
            0
        });
        granted
    }

    fn make(copy: &Copy, granted: &mut [u8; PAGE_SIZE]) {
        let len = usize::from(copy.len);
        let at = |place: Place, grant: u16, granted: &mut [u8; PAGE_SIZE]| -> *mut u8 {
            let offset = usize::from(place.offset);
            assert!(offset + len <= PAGE_SIZE, "a copy crosses a page");
            if copy.flags & grant != 0 {
                assert_eq!((place.domid, place.frame_or_reference), (5, 9));
                return granted[offset..].as_mut_ptr();
            }
            assert_eq!(place.domid, DOMID_SELF);
            core::ptr::with_exposed_provenance_mut(
                (place.frame_or_reference as usize) * PAGE_SIZE + offset,
            )
        };
        let source = at(copy.source, SOURCE_GRANT, granted);
        let dest = at(copy.dest, DEST_GRANT, granted);
        // SAFETY: both sides are live and of `len` bytes; between grants they may overlap.
        unsafe { core::ptr::copy(source, dest, len) };
    }

    fn foreign(offset: u16) -> Foreign {
        Foreign { domain: DomId::new(5).unwrap(), reference: GrantRef(9), offset }
    }

    #[test]
    fn bytes_come_and_go_across_page_boundaries() {
        let granted = xen(&[]);
        for start in [0, 1, 4000, 4090, 4096] {
            granted.borrow_mut().bytes_mut().fill(0);
            let mut local = vec![0u8; 3 * PAGE_SIZE];
            // A place of our own that crosses a page boundary for most starts.
            let aligned = local.as_ptr().align_offset(PAGE_SIZE);
            let bytes = &mut local[aligned + start..aligned + start + 100];
            bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = i as u8 + 1);
            let mut back = vec![0u8; 100];
            let mut batch = Batch::<8>::new();
            let out = batch.write(bytes, foreign(3900)).unwrap();
            let moved = batch.relay(foreign(3900), foreign(10), 100).unwrap();
            let home = batch.read(foreign(10), &mut back).unwrap();
            assert_eq!(batch.run(), Ok(()));
            for ticket in [out, moved, home] {
                assert_eq!(batch.status(ticket), Ok(()));
            }
            assert_eq!(back, (1..=100).collect::<Vec<u8>>(), "from {start} and back");
        }
    }

    #[test]
    fn shared_memory_of_ours_is_reached_across_page_boundaries() {
        let granted = xen(&[]);
        let pages = OwnPages::zeroed(2).unwrap();
        let bytes: Vec<u8> = (1..=100).collect();
        for at in [0, 4000, 4096, 8092] {
            granted.borrow_mut().bytes_mut()[..100].copy_from_slice(&bytes);
            let mut batch = Batch::<8>::new();
            let fetched = batch.fetch(foreign(0), &pages, at, 100).unwrap();
            let stored = batch.store(&pages, at, foreign(3996), 100).unwrap();
            assert_eq!(batch.run(), Ok(()));
            assert_eq!((batch.status(fetched), batch.status(stored)), (Ok(()), Ok(())));
            assert_eq!(granted.borrow().bytes()[3996..], bytes, "by {at}");
        }
    }

    #[test]
    #[should_panic(expected = "100 bytes at 8093 are outside 8192 shared bytes")]
    fn nothing_is_copied_behind_memory_of_ours() {
        let pages = OwnPages::zeroed(2).unwrap();
        let _ = Batch::<8>::new().fetch(foreign(0), &pages, 8093, 100);
    }

    #[test]
    fn every_copy_has_its_own_status() {
        xen(&[0, -3, -1]);
        let mut batch = Batch::<8>::new();
        let tickets = [(); 3].map(|()| batch.relay(foreign(0), foreign(8), 4).unwrap());
        assert_eq!(batch.status(tickets[0]), Err(Status::Other(UNWRITTEN)), "not run yet");
        batch.run().unwrap();
        assert_eq!(batch.status(tickets[0]), Ok(()));
        assert_eq!(batch.status(tickets[1]), Err(Status::BadReference));
        assert_eq!(batch.status(tickets[2]), Err(Status::GeneralError));
    }

    #[test]
    fn a_page_that_is_away_is_tried_again_but_not_for_ever() {
        xen(&[-12, 0, -12, -12]);
        let mut batch = Batch::<4>::new();
        let first = batch.relay(foreign(0), foreign(8), 4).unwrap();
        let second = batch.relay(foreign(0), foreign(8), 4).unwrap();
        batch.run().unwrap();
        assert_eq!((batch.status(first), batch.status(second)), (Ok(()), Ok(())));
        xen(&[-12; 100]);
        batch.run().unwrap();
        assert_eq!(batch.status(second), Err(Status::Again));
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        xen(&[]);
        let mut batch = Batch::<2>::new();
        assert_eq!(batch.relay(foreign(4000), foreign(0), 97), Err(AddError::OutsidePage));
        assert_eq!(batch.relay(foreign(0), foreign(4000), 97), Err(AddError::OutsidePage));
        assert_eq!(batch.write(&[0; 5000], foreign(0)), Err(AddError::OutsidePage));
        assert!(batch.is_empty());
        let nothing = batch.write(&[], foreign(4096)).unwrap();
        assert_eq!((batch.len(), batch.status(nothing)), (0, Ok(())));
        batch.relay(foreign(0), foreign(0), 4096).unwrap();
        assert_eq!(batch.write(b"x", foreign(0)), Err(AddError::Full), "it might need two");
    }
}
