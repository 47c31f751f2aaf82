//! Our own grant table, version 1: which pages of ours others may use.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};

use super::{GfnWindow, Status, UNWRITTEN, run};
use crate::bitmap::Bitmap;
use crate::ids::{DOMID_SELF, DomId, Errno, Gfn, GrantRef};
use crate::memory::{self, Space};
use crate::page::{OwnPages, Shared};

const GNTTABOP_QUERY_SIZE: u64 = 6;

/// `GTF_permit_access`.
const PERMIT_ACCESS: u16 = 1;
/// `GTF_readonly`.
const READ_ONLY: u16 = 1 << 2;
/// `GTF_reading | GTF_writing`: Xen notes here that somebody maps the page.
const IN_USE: u16 = 1 << 3 | 1 << 4;

/// References below belong to the domain builder.
const RESERVED: usize = 8;

#[repr(C)]
struct QuerySize {
    dom: u16,
    nr_frames: u32,
    max_nr_frames: u32,
    status: i16,
}

/// `struct grant_entry_v1`.
#[repr(C)]
struct Entry {
    flags: AtomicU16,
    domid: AtomicU16,
    frame: AtomicU32,
}

const ENTRIES: usize = 512;

type Frame = [Entry; ENTRIES];

const _: () = assert!(size_of::<QuerySize>() == 16 && offset_of!(QuerySize, status) == 12);
const _: () = assert!(size_of::<Entry>() == 8 && offset_of!(Entry, frame) == 4);
const _: () = assert!(size_of::<Frame>() == 4096);

/// An error returned by [`GrantTable::open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// It is open already; two would hand out the same references.
    Twice,
    /// Xen does not tell how large it may become.
    Refused(Status),
    /// Xen refused to look at the question.
    Xen(Errno),
}

/// An error returned by [`GrantTable::grant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    /// Every reference that this domain may have is in use.
    TableFull,
    /// The window has no free frame to map more of the table at.
    WindowFull,
    /// No memory to note the references in, or a page beyond what an entry can name.
    NoMemory,
    /// Xen refused to make the table larger.
    Xen(Errno),
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TableFull => f.write_str("the grant table is full"),
            Self::WindowFull => f.write_str("no frame left for the grant table"),
            Self::NoMemory => f.write_str("no memory for a grant"),
            Self::Xen(errno) => errno.fmt(f),
        }
    }
}

impl core::error::Error for GrantError {}

/// What the other domain may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and write it.
    ReadWrite,
    /// Only read it.
    ReadOnly,
}

/// This domain's grant table; grows as references are needed.
pub struct GrantTable {
    window: &'static GfnWindow,
    frames: RefCell<heapless::Vec<&'static Frame, { Bitmap::CAPACITY / ENTRIES }>>,
    free: RefCell<Bitmap>,
}

static OPENED: AtomicBool = AtomicBool::new(false);

impl GrantTable {
    /// Opens the table, once and for the life of the domain.
    ///
    /// # Errors
    /// As [`OpenError`] lists.
    pub fn open(window: &'static GfnWindow) -> Result<&'static Self, OpenError> {
        let max_frames = max_frames()?;
        if OPENED.swap(true, Ordering::Relaxed) {
            return Err(OpenError::Twice);
        }
        Ok(Box::leak(Box::new(Self::over(window, max_frames))))
    }

    fn over(window: &'static GfnWindow, max_frames: u32) -> Self {
        let references = RESERVED..(max_frames as usize).saturating_mul(ENTRIES);
        Self {
            window,
            frames: RefCell::new(heapless::Vec::new()),
            free: RefCell::new(Bitmap::with_free(references)),
        }
    }

    /// Lets `to` use `pages`, one reference each, until the result is dropped.
    ///
    /// # Errors
    /// As [`GrantError`] lists; the pages go back to the heap then.
    pub fn grant(
        &'static self,
        to: DomId,
        pages: OwnPages,
        access: Access,
    ) -> Result<Granted, GrantError> {
        let mut references = Vec::new();
        references.try_reserve_exact(pages.count()).map_err(|_| GrantError::NoMemory)?;
        let flags = match access {
            Access::ReadWrite => PERMIT_ACCESS,
            Access::ReadOnly => PERMIT_ACCESS | READ_ONLY,
        };
        // From here on dropping `granted` takes back what was given.
        let mut granted = Granted { table: self, references, pages: Some(pages) };
        for frame in granted.pages.iter().flat_map(OwnPages::frames) {
            let frame = nameable(frame).ok_or(GrantError::NoMemory)?;
            let number = self.take()?;
            let entry = self.entry(number).ok_or(GrantError::TableFull)?;
            entry.frame.store(frame, Ordering::Relaxed);
            entry.domid.store(to.raw(), Ordering::Relaxed);
            // Release: the flags make the rest of the entry valid.
            entry.flags.store(flags, Ordering::Release);
            granted.references.push(number);
        }
        Ok(granted)
    }

    /// Takes the lowest free reference and sees to it that the table has it.
    fn take(&self) -> Result<GrantRef, GrantError> {
        let number = self.free.borrow_mut().take().ok_or(GrantError::TableFull)?;
        let mut frames = self.frames.borrow_mut();
        while frames.len() * ENTRIES <= number {
            match self.map_frame(frames.len() as u64) {
                Ok(frame) => frames.push(frame).map_err(|_| GrantError::TableFull)?,
                Err(error) => {
                    self.free.borrow_mut().free(number);
                    return Err(error);
                }
            }
        }
        u32::try_from(number).map(GrantRef).map_err(|_| GrantError::TableFull)
    }

    fn map_frame(&self, index: u64) -> Result<&'static Frame, GrantError> {
        let at = self.window.take().ok_or(GrantError::WindowFull)?;
        // SAFETY: a frame of the window is a hole, and this one is given back only if it still
        // is one.
        let added = unsafe { memory::add_to_physmap(Space::GrantTable, index, at) };
        if let Err(error) = added {
            self.window.give_back(at);
            return Err(GrantError::Xen(error));
        }
        let frame = NonNull::<Frame>::new(mapped(at)).ok_or(GrantError::WindowFull)?;
        // SAFETY: a whole page of entries, mapped for the life of the domain; every field is
        // atomic.
        Ok(unsafe { frame.as_ref() })
    }

    fn entry(&self, reference: GrantRef) -> Option<&'static Entry> {
        let number = reference.0 as usize;
        let frame: &'static Frame = self.frames.borrow().get(number / ENTRIES)?;
        Some(&frame[number % ENTRIES])
    }

    /// Ends a grant, unless somebody still maps the page.
    fn revoke(&self, reference: GrantRef) -> bool {
        let Some(entry) = self.entry(reference) else { return false };
        let idle = entry.flags.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |flags| {
            (flags & IN_USE == 0).then_some(0)
        });
        if idle.is_ok() {
            self.free.borrow_mut().free(reference.0 as usize);
        }
        idle.is_ok()
    }

    /// How many references are free. Looks at the whole table: for reports.
    #[must_use]
    pub fn count_free(&self) -> usize {
        self.free.borrow().count_free()
    }
}

impl fmt::Debug for GrantTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantTable({} free)", self.count_free())
    }
}

fn max_frames() -> Result<u32, OpenError> {
    let mut query =
        [QuerySize { dom: DOMID_SELF, nr_frames: 0, max_nr_frames: 0, status: UNWRITTEN }];
    // SAFETY: `struct gnttab_query_size`.
    unsafe { run(GNTTABOP_QUERY_SIZE, &mut query) }.map_err(OpenError::Xen)?;
    Status::check(query[0].status).map_err(OpenError::Refused)?;
    Ok(query[0].max_nr_frames)
}

#[cfg(not(test))]
fn mapped(at: Gfn) -> *mut Frame {
    at.pointer()
}

/// A frame as an entry names it, in 32 bits: no bound for memory below 4 GiB.
#[cfg(not(test))]
fn nameable(frame: Gfn) -> Option<u32> {
    u32::try_from(frame.0).ok()
}

#[cfg(test)]
use tests::{mapped, nameable};

/// Pages of ours that another domain may use, until dropped.
///
/// Dropping takes the grants back. A page that the other domain still maps cannot be taken
/// back: all of the pages are then given up, never to be used for anything else.
pub struct Granted {
    table: &'static GrantTable,
    /// Those that are in force, the page's number each.
    references: Vec<GrantRef>,
    pages: Option<OwnPages>,
}

impl Granted {
    /// The references to tell the other domain, in the pages' order.
    #[must_use]
    pub fn references(&self) -> &[GrantRef] {
        &self.references
    }

    /// Whether the other domain maps one of the pages, as far as Xen noted by now.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        let entries = self.references.iter().filter_map(|&number| self.table.entry(number));
        entries.into_iter().any(|entry| entry.flags.load(Ordering::Acquire) & IN_USE != 0)
    }

    /// Ends the grants and gives the pages back, contents and all.
    ///
    /// # Errors
    /// What could not be ended, to be tried again later: the other domain still maps it.
    pub fn end(mut self) -> Result<OwnPages, Self> {
        self.revoke();
        match self.pages.take_if(|_| self.references.is_empty()) {
            Some(pages) => Ok(pages),
            None => Err(self),
        }
    }

    fn revoke(&mut self) {
        let table = self.table;
        self.references.retain(|&reference| !table.revoke(reference));
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        self.revoke();
        if !self.references.is_empty() {
            let pages = self.pages.take();
            log::warn!(
                "a domain still maps {} pages granted to it: given up with {} beside them",
                self.references.len(),
                pages.as_ref().map_or(0, OwnPages::count) - self.references.len(),
            );
            core::mem::forget(pages);
        }
    }
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Granted").field(&self.references).finish()
    }
}

// SAFETY: pages of ours, kept until `drop` or `end`, which take `self`.
unsafe impl Shared for Granted {
    fn base(&self) -> NonNull<u8> {
        self.pages.as_ref().map_or(NonNull::dangling(), Shared::base)
    }

    fn len(&self) -> usize {
        self.pages.as_ref().map_or(0, Shared::len)
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test data is small")]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::hypercall::{Op, fake};
    use crate::page::Page;

    std::thread_local! {
        static FRAMES: RefCell<BTreeMap<Gfn, *mut Frame>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// In host tests nothing appears at a frame: a page is made up, one per frame.
    pub(super) fn mapped(at: Gfn) -> *mut Frame {
        let new = || Box::leak(Page::zeroed().unwrap()) as *mut Page as *mut Frame;
        FRAMES.with(|frames| *frames.borrow_mut().entry(at).or_insert_with(new))
    }

    /// In host tests memory is anywhere: an entry holds the low bits of its frame.
    pub(super) fn nameable(frame: Gfn) -> Option<u32> {
        Some(frame.0 as u32)
    }

    /// A table under a Xen that allows `frames` frames, its first 8 references not ours.
    fn table(frames: u32) -> &'static GrantTable {
        fake::install(move |op, [command, arg, _]| match (op, command) {
            (Op::GrantTable, GNTTABOP_QUERY_SIZE) => {
                // SAFETY: `max_frames` passes a live operation.
                let query = unsafe { &mut *(arg as *mut QuerySize) };
                (query.max_nr_frames, query.status) = (frames, 0);
                0
            }
            (Op::Memory, _) => 0,
            _ => -38,
        });
        let window = Box::leak(Box::new(GfnWindow::over(0xc0000..0xc0010)));
        Box::leak(Box::new(GrantTable::over(window, max_frames().unwrap())))
    }

    fn dom() -> DomId {
        DomId::new(5).unwrap()
    }

    fn grant(table: &'static GrantTable, pages: usize) -> Result<Granted, GrantError> {
        table.grant(dom(), OwnPages::zeroed(pages).unwrap(), Access::ReadWrite)
    }

    #[test]
    fn an_entry_names_the_page_and_the_domain() {
        let table = table(4);
        let pages = OwnPages::zeroed(2).unwrap();
        let frames: Vec<u64> = pages.frames().map(|frame| frame.0).collect();
        let granted = table.grant(dom(), pages, Access::ReadOnly).unwrap();
        assert_eq!(granted.references(), [GrantRef(8), GrantRef(9)]);
        for (&reference, &frame) in granted.references().iter().zip(&frames) {
            let entry = table.entry(reference).unwrap();
            assert_eq!(entry.flags.load(Ordering::Relaxed), 0b101);
            assert_eq!(entry.domid.load(Ordering::Relaxed), 5);
            assert_eq!(Some(entry.frame.load(Ordering::Relaxed)), nameable(Gfn(frame)));
        }
        drop(granted);
        assert_eq!(table.entry(GrantRef(8)).unwrap().flags.load(Ordering::Relaxed), 0);
        assert_eq!(table.count_free(), 4 * 512 - 8);
    }

    #[test]
    fn a_page_in_use_is_given_up_not_reused() {
        let table = table(4);
        let granted = grant(table, 2).unwrap();
        let in_use = table.entry(GrantRef(9)).unwrap();
        in_use.flags.fetch_or(1 << 4, Ordering::Relaxed);
        assert!(granted.is_mapped());
        drop(granted);
        assert_ne!(in_use.flags.load(Ordering::Relaxed), 0, "the grant stays in force");
        assert_eq!(table.count_free(), 4 * 512 - 8 - 1, "its reference is lost, the other is not");
        let next = grant(table, 2).unwrap();
        assert_eq!(next.references(), [GrantRef(8), GrantRef(10)], "never the one in use");
    }

    #[test]
    fn ending_gives_the_pages_back_once_nobody_maps_them() {
        let table = table(4);
        let granted = grant(table, 2).unwrap();
        let in_use = table.entry(GrantRef(8)).unwrap();
        in_use.flags.fetch_or(1 << 3, Ordering::Relaxed);
        let granted = granted.end().expect_err("still mapped");
        assert_eq!(granted.references(), [GrantRef(8)]);
        in_use.flags.fetch_and(!(1 << 3), Ordering::Relaxed);
        assert_eq!(granted.end().map(|pages| pages.count()).ok(), Some(2));
        assert_eq!(table.count_free(), 4 * 512 - 8);
    }

    #[test]
    fn the_table_grows_to_its_limit_and_no_further() {
        let table = table(2);
        let all = grant(table, 1024 - 8).unwrap();
        assert_eq!(all.references().last(), Some(&GrantRef(1023)));
        assert_eq!(grant(table, 1).map(|_| ()), Err(GrantError::TableFull));
        drop(all);
        assert_eq!(grant(table, 1024).map(|_| ()), Err(GrantError::TableFull));
        assert_eq!(table.count_free(), 1024 - 8, "a grant that failed half-way leaves nothing");
    }
}
