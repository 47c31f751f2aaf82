//! Foreign pages in our address space.

use alloc::vec::Vec;
use core::fmt;
use core::mem::offset_of;
use core::ptr::NonNull;

use super::{GfnWindow, Status, TRIES, UNWRITTEN, run};
use crate::ids::{DomId, Errno, Gfn, GrantRef};
use crate::page::{PAGE_SIZE, Shared};
use crate::ring::shared::Region;
use crate::sched;

const GNTTABOP_MAP_GRANT_REF: u64 = 0;
const GNTTABOP_UNMAP_GRANT_REF: u64 = 1;

/// `GNTMAP_host_map`; a translated domain may add [`READ_ONLY`] and nothing else.
const HOST_MAP: u32 = 2;
/// `GNTMAP_readonly`.
const READ_ONLY: u32 = 4;

#[repr(C)]
struct Map {
    host_addr: u64,
    flags: u32,
    reference: u32,
    dom: u16,
    status: i16,
    handle: u32,
    dev_bus_addr: u64,
}

#[repr(C)]
struct Unmap {
    host_addr: u64,
    dev_bus_addr: u64,
    handle: u32,
    status: i16,
}

const _: () = assert!(size_of::<Map>() == 32 && offset_of!(Map, status) == 18);
const _: () = assert!(offset_of!(Map, handle) == 20);
const _: () = assert!(size_of::<Unmap>() == 24 && offset_of!(Unmap, status) == 20);

/// An error returned by [`GrantMapping::map`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// The window has no free frame.
    WindowFull,
    /// Xen refused this grant; most often the granter's doing.
    Refused(Status),
    /// Xen refused to look at it.
    Xen(Errno),
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WindowFull => f.write_str("no frame left to map at"),
            Self::Refused(status) => status.fmt(f),
            Self::Xen(errno) => errno.fmt(f),
        }
    }
}

impl core::error::Error for MapError {}

/// A page of another domain's, mapped for reading and writing until dropped.
///
/// Having one tells that the page is there and stays, whatever becomes of its owner; a dead
/// owner stays a zombie for as long. It tells nothing about the contents, which the
/// owner may change between any two reads.
pub struct GrantMapping {
    window: &'static GfnWindow,
    frame: Gfn,
    handle: u32,
}

impl GrantMapping {
    /// Maps what `granter` grants as `reference`.
    ///
    /// # Errors
    /// As [`MapError`] lists. No frame is lost by a refusal.
    pub fn map(
        window: &'static GfnWindow,
        granter: DomId,
        reference: GrantRef,
    ) -> Result<Self, MapError> {
        Self::map_with(window, granter, reference, HOST_MAP)
    }

    /// Maps what `granter` grants as `reference`, for reading only.
    ///
    /// # Errors
    /// As [`MapError`] lists.
    pub fn map_read_only(
        window: &'static GfnWindow,
        granter: DomId,
        reference: GrantRef,
    ) -> Result<ReadOnlyMapping, MapError> {
        Self::map_with(window, granter, reference, HOST_MAP | READ_ONLY).map(ReadOnlyMapping)
    }

    fn map_with(
        window: &'static GfnWindow,
        granter: DomId,
        reference: GrantRef,
        flags: u32,
    ) -> Result<Self, MapError> {
        let frame = window.take().ok_or(MapError::WindowFull)?;
        Self::map_at(window, frame, granter, reference, flags)
    }

    /// Maps at a frame that was taken from the window, and given back if it fails.
    fn map_at(
        window: &'static GfnWindow,
        frame: Gfn,
        granter: DomId,
        reference: GrantRef,
        flags: u32,
    ) -> Result<Self, MapError> {
        let mut operation = [Map {
            host_addr: frame.address(),
            flags,
            reference: reference.0,
            dom: granter.raw(),
            status: UNWRITTEN,
            handle: 0,
            dev_bus_addr: 0,
        }];
        for _ in 0..TRIES {
            // SAFETY: `frame` is a hole that we own, so no memory is replaced.
            unsafe { run(GNTTABOP_MAP_GRANT_REF, &mut operation) }.map_err(MapError::Xen)?;
            match Status::check(operation[0].status) {
                Ok(()) => return Ok(Self { window, frame, handle: operation[0].handle }),
                Err(Status::Again) => sched::yield_now(),
                Err(_) => break,
            }
        }
        window.give_back(frame);
        let [Map { status, .. }] = operation;
        Err(MapError::Refused(Status::check(status).err().unwrap_or(Status::GeneralError)))
    }

    /// Where the page appears.
    #[must_use]
    pub fn gfn(&self) -> Gfn {
        self.frame
    }
}

impl Drop for GrantMapping {
    fn drop(&mut self) {
        let mut operation = [Unmap {
            host_addr: self.frame.address(),
            dev_bus_addr: 0,
            handle: self.handle,
            status: UNWRITTEN,
        }];
        // SAFETY: the mapping is ours, and whoever looked into it borrowed `self`.
        let done = unsafe { run(GNTTABOP_UNMAP_GRANT_REF, &mut operation) };
        match (done, Status::check(operation[0].status)) {
            (Ok(()), Ok(())) => self.window.give_back(self.frame),
            // Something may still be mapped there: mapping over it would end this domain.
            (done, status) => log::error!(
                "unmapping frame {:#x} failed ({done:?}, {status:?}): frame given up",
                self.frame.0
            ),
        }
    }
}

impl fmt::Debug for GrantMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantMapping({:#x}, handle {})", self.frame.0, self.handle)
    }
}

// SAFETY: a whole page, mapped readable and writable until `drop`, and touched by no one here
// but through `Shared`.
unsafe impl Shared for GrantMapping {
    fn base(&self) -> NonNull<u8> {
        // Frames of the window lie above RAM, so never at 0.
        NonNull::new(self.frame.pointer()).unwrap_or(NonNull::dangling())
    }
}

/// Pages of another domain's, mapped one behind the other for reading and writing until dropped.
#[derive(Debug)]
pub struct GrantRange(Vec<GrantMapping>);

impl GrantRange {
    /// Maps what `granter` grants as `references`, in their order.
    ///
    /// # Errors
    /// As [`MapError`] lists; then none is mapped.
    pub fn map(
        window: &'static GfnWindow,
        granter: DomId,
        references: &[GrantRef],
    ) -> Result<Self, MapError> {
        let first = window.take_run(references.len()).ok_or(MapError::WindowFull)?;
        let mut frames = (0..references.len() as u64).map(|number| Gfn(first.0 + number));
        let mut mapped = Vec::with_capacity(references.len());
        for (&reference, frame) in references.iter().zip(frames.by_ref()) {
            match GrantMapping::map_at(window, frame, granter, reference, HOST_MAP) {
                Ok(mapping) => mapped.push(mapping),
                Err(error) => {
                    frames.for_each(|frame| window.give_back(frame));
                    return Err(error);
                }
            }
        }
        Ok(Self(mapped))
    }
}

// SAFETY: whole pages, mapped readable and writable one behind the other until `drop`, and touched
// by no one here but through `Shared`. A range of none has no bytes.
unsafe impl Shared for GrantRange {
    fn base(&self) -> NonNull<u8> {
        self.0.first().map_or(NonNull::dangling(), GrantMapping::base)
    }

    fn len(&self) -> usize {
        self.0.len() * PAGE_SIZE
    }
}

/// A page of another domain's that we may only read, mapped until dropped.
#[derive(Debug)]
pub struct ReadOnlyMapping(GrantMapping);

impl ReadOnlyMapping {
    /// Copies bytes out, from `offset` in the page on; `false` if they are not all in it.
    #[must_use]
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> bool {
        let region = Region::of(&self.0);
        let inside = offset.checked_add(bytes.len()).is_some_and(|end| end <= region.len());
        if inside {
            region.copy_out(offset, bytes);
        }
        inside
    }
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::hypercall::{Op, fake};

    /// A Xen that answers maps with `statuses` in turn, then with success, and unmaps with
    /// `unmap`; tells which frames it saw.
    fn xen(statuses: &'static [i16], unmap: i16) -> Rc<RefCell<Vec<(u64, u64)>>> {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let mut statuses = statuses.iter().copied();
        let log = seen.clone();
        fake::install(move |op, [command, arg, count]| match (op, command) {
            (Op::Sched, _) => 0,
            (Op::GrantTable, GNTTABOP_MAP_GRANT_REF) => {
                assert_eq!(count, 1);
                // SAFETY: `map_with` passes a live operation.
                let map = unsafe { &mut *(arg as *mut Map) };
                assert_eq!((map.dom, map.reference), (5, 1));
                map.status = statuses.next().unwrap_or(0);
                map.handle = 0x1234;
                log.borrow_mut().push((0, map.host_addr >> 12));
                0
            }
            (Op::GrantTable, GNTTABOP_UNMAP_GRANT_REF) => {
                // SAFETY: `drop` passes a live operation.
                let operation = unsafe { &mut *(arg as *mut Unmap) };
                assert_eq!((operation.handle, operation.dev_bus_addr), (0x1234, 0));
                operation.status = unmap;
                log.borrow_mut().push((1, operation.host_addr >> 12));
                0
            }
            other => panic!("unexpected hypercall {other:?}"),
        });
        seen
    }

    fn window() -> &'static GfnWindow {
        Box::leak(Box::new(GfnWindow::over(0xc0000..0xc0004)))
    }

    fn map(window: &'static GfnWindow) -> Result<GrantMapping, MapError> {
        GrantMapping::map(window, DomId::new(5).unwrap(), GrantRef::XENSTORE)
    }

    #[test]
    fn dropping_unmaps_and_returns_the_frame() {
        let (seen, window) = (xen(&[], 0), window());
        let mapping = map(window).unwrap();
        assert_eq!((mapping.gfn(), window.count_free()), (Gfn(0xc0000), 3));
        drop(mapping);
        assert_eq!(*seen.borrow(), [(0, 0xc0000), (1, 0xc0000)]);
        assert_eq!(window.count_free(), 4);
    }

    #[test]
    fn a_refusal_loses_no_frame() {
        let window = window();
        for (code, status) in [(-1, Status::GeneralError), (-3, Status::BadReference)] {
            xen(if code == -1 { &[-1] } else { &[-3] }, 0);
            assert_eq!(map(window).unwrap_err(), MapError::Refused(status));
            assert_eq!(window.count_free(), 4);
        }
    }

    #[test]
    fn a_page_that_is_away_is_tried_again_but_not_for_ever() {
        let (seen, window) = (xen(&[-12, -12], 0), window());
        assert!(map(window).is_ok(), "the third try succeeds");
        assert_eq!(seen.borrow().len(), 4, "three maps and the unmap");

        let seen = xen(&[-12; 1000], 0);
        assert_eq!(map(window).unwrap_err(), MapError::Refused(Status::Again));
        assert_eq!(seen.borrow().len(), TRIES);
        assert_eq!(window.count_free(), 4);
    }

    #[test]
    fn a_range_lies_in_one_piece_and_goes_as_a_whole() {
        let (seen, window) = (xen(&[], 0), window());
        let hole = map(window).unwrap();
        let one = map(window).unwrap();
        drop(hole);
        let granter = DomId::new(5).unwrap();
        let range = GrantRange::map(window, granter, &[GrantRef::XENSTORE; 2]).unwrap();
        assert_eq!(range.len(), 2 * PAGE_SIZE);
        let maps: Vec<u64> =
            seen.borrow().iter().filter(|(unmap, _)| *unmap == 0).map(|(_, at)| *at).collect();
        assert_eq!(maps, [0xc0000, 0xc0001, 0xc0002, 0xc0003], "the hole is too small");
        drop((one, range));
        assert_eq!(window.count_free(), 4);
        assert_eq!(
            GrantRange::map(window, granter, &[GrantRef::XENSTORE; 5]).unwrap_err(),
            MapError::WindowFull
        );
    }

    #[test]
    fn of_a_range_that_is_refused_nothing_stays() {
        let (_, window) = (xen(&[0, -3], 0), window());
        let refused =
            GrantRange::map(window, DomId::new(5).unwrap(), &[GrantRef::XENSTORE; 3]).unwrap_err();
        assert_eq!(refused, MapError::Refused(Status::BadReference));
        assert_eq!(window.count_free(), 4);
    }

    #[test]
    fn a_frame_that_could_not_be_unmapped_is_never_used_again() {
        let (_, window) = (xen(&[], -4), window());
        drop(map(window).unwrap());
        assert_eq!(window.count_free(), 3, "the frame is given up");
        assert_eq!(map(window).unwrap().gfn(), Gfn(0xc0001));
    }

    #[test]
    fn a_full_window_is_an_answer() {
        xen(&[], 0);
        let window = Box::leak(Box::new(GfnWindow::over(0xc0000..0xc0000)));
        assert_eq!(map(window).unwrap_err(), MapError::WindowFull);
    }
}
