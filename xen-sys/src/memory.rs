//! How much memory there is and what is where (xen/include/public/memory.h).

use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::hypercall::{self, Op};
use crate::ids::{DOMID_SELF, Errno, Gfn};
use crate::page::Page;

const XENMEM_CURRENT_RESERVATION: u64 = 3;
const XENMEM_MAXIMUM_RESERVATION: u64 = 4;
const XENMEM_POPULATE_PHYSMAP: u64 = 6;
const XENMEM_ADD_TO_PHYSMAP: u64 = 7;
const XENMEM_MEMORY_MAP: u64 = 9;

/// Pages of a reservation that are not general RAM: a domain built by libxenguest has this
/// many special pages (paging, Xenstore, console and their like) below 4 GiB.
pub const SPECIAL_PAGES: u64 = 8;

/// The first frame that holds hardware or special pages in every domain libxenguest builds:
/// ACPI tables of an `xl` guest, the local APIC and special pages of every one.
const HARDWARE: u64 = 0xf_c000;

/// Pages this domain owns now, special pages included.
///
/// # Errors
/// As Xen refuses; it has no reason to.
pub fn current_reservation() -> Result<u64, Errno> {
    reservation(XENMEM_CURRENT_RESERVATION)
}

/// Pages this domain may own at most, special pages included.
///
/// # Errors
/// As Xen refuses; it has no reason to.
pub fn maximum_reservation() -> Result<u64, Errno> {
    reservation(XENMEM_MAXIMUM_RESERVATION)
}

fn reservation(command: u64) -> Result<u64, Errno> {
    let mut domid = DOMID_SELF;
    // SAFETY: both commands read a `domid_t`.
    unsafe { hypercall::command(Op::Memory, command, &mut domid) }
}

/// An entry of the machine's memory map as this domain is told it: 20 bytes, packed.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct MapEntry {
    start: u64,
    size: u64,
    kind: u32,
}

const _: () = assert!(size_of::<MapEntry>() == 20);

impl MapEntry {
    /// `E820_RAM`.
    pub const RAM: u32 = 1;

    /// First byte's guest-physical address.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// The address after the last byte, at most the highest a number can hold.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// What is there: [`MapEntry::RAM`], or one of the other e820 types.
    #[must_use]
    pub const fn kind(&self) -> u32 {
        self.kind
    }
}

#[repr(C)]
struct MemoryMap {
    nr_entries: u32,
    buffer: *mut MapEntry,
}

const _: () = assert!(size_of::<MemoryMap>() == 16);

/// The memory map, written into `room`.
///
/// It is a claim of the toolstack: `init-xenstore-domain` of Xen 4.17 and 4.18 gives
/// the size of RAM wrongly when told a maximum, and RAM up to the maximum is listed although
/// it is not there yet. The reservations tell how much there is.
///
/// # Errors
/// `ENOSYS` where the domain has no map; `ENOBUFS` where `room` is too small for it.
pub fn memory_map(room: &mut [MapEntry]) -> Result<&[MapEntry], Errno> {
    let nr_entries = u32::try_from(room.len()).unwrap_or(u32::MAX);
    let mut map = MemoryMap { nr_entries, buffer: room.as_mut_ptr() };
    // SAFETY: `struct xen_memory_map`; Xen writes at most `nr_entries` entries to the buffer,
    // which is exclusively ours.
    unsafe { hypercall::command(Op::Memory, XENMEM_MEMORY_MAP, &mut map) }?;
    Ok(room.get(..map.nr_entries as usize).unwrap_or(&[]))
}

/// What [`add_to_physmap`] can place (`XENMAPSPACE_*`).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Space {
    SharedInfo = 0,
    GrantTable = 1,
}

#[repr(C)]
struct AddToPhysmap {
    domid: u16,
    size: u16,
    space: u32,
    idx: u64,
    gpfn: u64,
}

const _: () = assert!(size_of::<AddToPhysmap>() == 24);

/// Makes a page of Xen's appear at `at`.
///
/// # Safety
/// Nothing of ours is at `at`: it is a hole.
pub(crate) unsafe fn add_to_physmap(space: Space, idx: u64, at: Gfn) -> Result<(), Errno> {
    let mut add = AddToPhysmap { domid: DOMID_SELF, size: 0, space: space as u32, idx, gpfn: at.0 };
    // SAFETY: `struct xen_add_to_physmap`; the caller says that no memory is replaced.
    unsafe { hypercall::command(Op::Memory, XENMEM_ADD_TO_PHYSMAP, &mut add) }.map(drop)
}

#[repr(C)]
struct Reservation {
    extent_start: *const Gfn,
    nr_extents: u64,
    extent_order: u32,
    mem_flags: u32,
    domid: u16,
}

const _: () = assert!(size_of::<Reservation>() == 32);

/// Puts RAM at each of `frames`; tells how many, from the first, now have it.
///
/// # Safety
/// Every frame is a hole: RAM that is already there would be replaced.
unsafe fn populate_physmap(frames: &[Gfn]) -> usize {
    let mut reservation = Reservation {
        extent_start: frames.as_ptr(),
        nr_extents: frames.len() as u64,
        extent_order: 0,
        mem_flags: 0,
        domid: DOMID_SELF,
    };
    // SAFETY: `struct xen_memory_reservation`, whose frames outlive the call; the caller says
    // that they are holes.
    let done = unsafe { hypercall::command(Op::Memory, XENMEM_POPULATE_PHYSMAP, &mut reservation) };
    done.map_or(0, |done| usize::try_from(done).map_or(frames.len(), |done| done.min(frames.len())))
}

/// The RAM this domain may still ask for: between what it was started with and its maximum.
///
/// Such RAM is announced by the memory map but is not there; until asked for, reads give ones
/// and writes are lost.
#[derive(Debug)]
pub struct Growth {
    holes: Range<u64>,
}

static GROWTH_CLAIMED: AtomicBool = AtomicBool::new(false);

impl Growth {
    /// Finds the RAM between now and the maximum; once, and never again.
    ///
    /// `None` if already claimed, or if the domain's RAM is not one piece from address 0 up
    /// that ends below the hardware, as every domain of less than 4032 MiB has it.
    #[must_use]
    pub fn claim() -> Option<Self> {
        let holes = Self::holes().ok()??;
        let first = !GROWTH_CLAIMED.swap(true, Ordering::Relaxed);
        first.then_some(Self { holes })
    }

    fn holes() -> Result<Option<Range<u64>>, Errno> {
        let mut room = [MapEntry::default(); 32];
        let one_piece = match memory_map(&mut room) {
            Ok(map) => {
                let mut ram = map.iter().filter(|entry| entry.kind() == MapEntry::RAM);
                ram.next().is_none_or(|entry| entry.start() == 0) && ram.next().is_none()
            }
            Err(Errno::ENOSYS) => true,
            Err(error) => return Err(error),
        };
        // RAM is one piece from 0 and special pages count too, so no RAM is at or above the
        // current reservation. The frames between its true end and this bound stay unused.
        let (now, most) = (current_reservation()?, maximum_reservation()?);
        Ok((one_piece && most <= HARDWARE).then_some(now..most.max(now)))
    }

    /// How many more pages may be asked for; the host may have fewer to give.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.holes.end - self.holes.start
    }

    /// Asks for up to `pages` more pages, adjacent to each other and to those given before.
    ///
    /// Gives fewer at the domain's maximum or when the host has no more; an empty slice then
    /// is an answer, and a later attempt may do better.
    #[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits here")]
    pub fn grow(&mut self, pages: usize) -> &'static mut [Page] {
        let wanted = (pages as u64).min(self.remaining());
        let start = self.holes.start;
        while self.holes.start < start + wanted {
            let batch: [Gfn; 64] = core::array::from_fn(|i| Gfn(self.holes.start + i as u64));
            let count = (start + wanted - self.holes.start).min(batch.len() as u64) as usize;
            // SAFETY: frames of `holes` are above all RAM, and each is tried until it is
            // given and then never again.
            let done = unsafe { populate_physmap(&batch[..count]) };
            self.holes.start += done as u64;
            if done < count {
                break;
            }
        }
        let grown = (self.holes.start - start) as usize;
        let Some(first) = NonNull::new(Gfn(start).pointer::<Page>()) else {
            return &mut [];
        };
        // SAFETY: RAM that Xen has just put there, identity-mapped below 4 GiB, scrubbed or
        // not but initialised, and handed out once.
        unsafe { core::slice::from_raw_parts_mut(first.as_ptr(), grown) }
    }
}

/// Frames that hold nothing now and that RAM will never reach: `count` at most, or none if
/// the domain's memory leaves no gap below the hardware.
pub(crate) fn gap_above_ram(count: u64) -> Result<Range<u64>, Errno> {
    let mut room = [MapEntry::default(); 128];
    let map = match memory_map(&mut room) {
        Ok(map) => map,
        Err(Errno::ENOSYS) => &[],
        Err(error) => return Err(error),
    };
    let occupied = map.iter().filter(|entry| entry.start() < Gfn(HARDWARE).address());
    let listed = occupied.map(|entry| entry.end().div_ceil(4096)).max().unwrap_or(0);
    let above = listed.max(maximum_reservation()?).max(current_reservation()?);
    // A gap that begins with a page table's reach of 2 MiB needs the fewest tables.
    let start = above.next_multiple_of(512).min(HARDWARE);
    Ok(start..(start + count).min(HARDWARE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypercall::fake;

    /// A domain with `now` of `most` pages whose map claims one piece of RAM of `ram` bytes.
    fn domain(now: i64, most: i64, ram: u64) {
        fake::install(move |op, [command, arg, _]| {
            assert_eq!(op, Op::Memory);
            match command {
                XENMEM_CURRENT_RESERVATION => now,
                XENMEM_MAXIMUM_RESERVATION => most,
                XENMEM_MEMORY_MAP => {
                    // SAFETY: `memory_map` passes a live structure.
                    let map = unsafe { &mut *(arg as *mut MemoryMap) };
                    let special = MapEntry { start: 0xfeff_8000, size: 0x8000, kind: 2 };
                    let ram = MapEntry { start: 0, size: ram, kind: MapEntry::RAM };
                    // SAFETY: with room for more than two entries.
                    unsafe { map.buffer.cast::<[MapEntry; 2]>().write([ram, special]) };
                    map.nr_entries = 2;
                    0
                }
                _ => -38,
            }
        });
    }

    #[test]
    fn the_gap_is_above_the_maximum_whatever_the_map_says() {
        // 8 MiB of 64, where the map says 0x40 bytes.
        domain(2056, 16392, 0x40);
        assert_eq!(gap_above_ram(1 << 15), Ok(16896..16896 + (1 << 15)));
        // The map says more than the reservation.
        domain(2056, 2056, 64 << 20);
        assert_eq!(gap_above_ram(64), Ok(16384..16384 + 64));
    }

    #[test]
    fn too_much_memory_leaves_no_gap() {
        domain(1 << 20, 1 << 20, 0xfc00_0000);
        assert!(gap_above_ram(64).unwrap().is_empty(), "no frame below the hardware is free");
    }

    #[test]
    fn growth_is_what_lies_between_now_and_the_maximum() {
        domain(2056, 16392, 0x40);
        assert_eq!(Growth::holes(), Ok(Some(2056..16392)));
        domain(2056, 2056, 8 << 20);
        assert_eq!(Growth::holes(), Ok(Some(2056..2056)));
        domain(1 << 20, 1 << 20, 0xfc00_0000);
        assert_eq!(Growth::holes(), Ok(None), "RAM of 4 GiB is not one piece");
    }

    #[test]
    fn growth_stops_where_the_host_has_no_more() {
        let mut asked = Vec::new();
        fake::install(move |op, [command, arg, _]| {
            assert_eq!((op, command), (Op::Memory, XENMEM_POPULATE_PHYSMAP));
            // SAFETY: `populate_physmap` passes a live structure.
            let reservation = unsafe { &*(arg as *const Reservation) };
            // SAFETY: with one frame at least.
            asked.push(unsafe { reservation.extent_start.read() });
            // Seven pages of the second batch, then nothing.
            [64, 7, 0].get(asked.len() - 1).copied().unwrap_or(0)
        });
        let mut growth = Growth { holes: 2056..16392 };
        let grown = growth.grow(100);
        assert_eq!((grown.as_ptr() as u64, grown.len()), (2056 << 12, 71));
        assert!(growth.grow(5).is_empty(), "the host has no more");
        assert_eq!(growth.remaining(), 16392 - 2056 - 71, "and may have more later");
    }
}
