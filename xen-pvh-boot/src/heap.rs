//! Page frames by the buddy system, and the heap on top of them.
//!
//! Two allocators because they serve two sizes. Memory arrives from the domain builder and from Xen
//! in whole pages, anywhere, which the buddy system keeps; the store needs hundreds of thousands of
//! small objects with a few bytes of overhead each, which talc gives. The heap takes frames in
//! chunks, and when no frame is left the image may ask Xen for more ([`grow_with`]).
//!
//! An allocation that fails is a panic in Rust's collections, so the image looks at [`statistics`]
//! before it starts what could need memory, and refuses it while there is still a reserve.

use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr::NonNull;

use buddy_system_allocator::Heap as Buddy;
use spin::Mutex;
use talc::DefaultBinning;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

/// Bytes in a page frame.
pub const FRAME: usize = 4096;

/// Frames that the heap takes at a time: few enough that a small domain wastes little, enough that
/// refilling is rare.
const CHUNK: usize = 16 * FRAME;

/// Asks for at least `bytes` more bytes of memory. What comes is used from its first to its last
/// whole page; nothing comes when there is no more. It must not allocate.
pub type Grow = fn(bytes: usize) -> &'static mut [u8];

/// Page frames and where more come from.
struct Frames {
    buddy: Buddy<32>,
    grow: Option<Grow>,
    total: usize,
    free: usize,
}

static FRAMES: Mutex<Frames> =
    Mutex::new(Frames { buddy: Buddy::empty(), grow: None, total: 0, free: 0 });

impl Frames {
    /// Takes what is whole pages of `memory`; says how many bytes that is.
    fn add(&mut self, memory: &'static mut [u8]) -> usize {
        let Range { start, end } = memory.as_mut_ptr_range();
        let (start, end) = (start.expose_provenance(), end.expose_provenance());
        let (start, end) = (start.next_multiple_of(FRAME), end / FRAME * FRAME);
        let size = end.saturating_sub(start);
        if size > 0 {
            // SAFETY: the caller gave the memory up for ever.
            unsafe { self.buddy.add_to_heap(start, end) };
            self.total += size;
            self.free += size;
        }
        size
    }

    /// Asks for `bytes` more, in whole chunks; says whether any came.
    fn grow(&mut self, bytes: usize) -> bool {
        let bytes = bytes.next_multiple_of(CHUNK);
        self.grow.is_some_and(|grow| self.add(grow(bytes)) > 0)
    }

    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let block = self.buddy.alloc(layout).ok().or_else(|| {
            // Aligned blocks of that size exist only where twice as much is in one piece.
            let asked = if layout.size() > CHUNK { 2 * layout.size() } else { layout.size() };
            self.grow(asked).then(|| self.buddy.alloc(layout).ok())?
        })?;
        self.free -= layout.size();
        Some(block)
    }
}

/// The sizes that the buddy system can give without waste: whole pages, a power of two of them.
fn frame_layout(bytes: usize) -> Option<Layout> {
    let size = bytes.checked_next_power_of_two()?.max(FRAME);
    Layout::from_size_align(size, FRAME).ok()
}

/// Gives memory to the page frames for ever: at the start all that is free.
pub fn add_memory(memory: &'static mut [u8]) {
    FRAMES.lock().add(memory);
}

/// Names the function that is asked for more memory when no frame is left.
pub fn grow_with(grow: Grow) {
    FRAMES.lock().grow = Some(grow);
}

/// How much memory there is and how much of it is used, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// In objects on the heap, without the allocator's own overhead.
    pub allocated: usize,
    /// Free within what the heap has taken.
    pub heap_free: usize,
    /// In page frames that nobody has taken.
    pub frames_free: usize,
    /// All that was ever given to the page frames.
    pub total: usize,
}

impl Statistics {
    /// Bytes that can still be allocated without asking Xen for more, fragmentation aside.
    pub fn free(&self) -> usize {
        self.heap_free + self.frames_free
    }
}

/// The figures of now. Cheap: counters are kept, nothing is walked.
pub fn statistics() -> Statistics {
    let counters = *TALC.lock().counters();
    let frames = FRAMES.lock();
    Statistics {
        allocated: counters.allocated_bytes,
        heap_free: counters.available_bytes,
        frames_free: frames.free,
        total: frames.total,
    }
}

/// Makes sure that `bytes` bytes are free, asking Xen for more when they are not. Says whether
/// they are.
pub fn reserve(bytes: usize) -> bool {
    let free = statistics().free();
    if free >= bytes {
        return true;
    }
    FRAMES.lock().grow(bytes - free) && statistics().free() >= bytes
}

/// Feeds talc from the page frames.
#[derive(Debug)]
struct FromFrames;

// SAFETY: `acquire` reaches the allocator through the reference it is given only; `FRAMES` is
// another lock, and taking frames does not allocate.
unsafe impl Source for FromFrames {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // Room for the request, its alignment and talc's tags.
        let needed = layout.size().checked_add(layout.align()).and_then(|n| n.checked_add(256));
        let layout = needed.and_then(|n| frame_layout(n.max(CHUNK))).ok_or(())?;
        let mut frames = FRAMES.lock();
        // In a nearly full domain a chunk may not be there but a page still is.
        let smaller = needed.and_then(frame_layout).ok_or(())?;
        let (block, size) = match frames.take(layout) {
            Some(block) => (block, layout.size()),
            None => (frames.take(smaller).ok_or(())?, smaller.size()),
        };
        drop(frames);
        // SAFETY: the block was taken for good and belongs to nobody else.
        unsafe { talc.claim(block.as_ptr(), size) }.map(drop).ok_or(())
    }
}

static TALC: Mutex<Talc<FromFrames, DefaultBinning>> = Mutex::new(Talc::new(FromFrames));

/// The global allocator of an image.
#[derive(Debug)]
pub struct Heap;

// SAFETY: talc's own contract is that of `GlobalAlloc`; the lock makes it `Sync`.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { TALC.lock().allocate(layout) }.map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { TALC.lock().deallocate(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
        if unsafe { TALC.lock().try_realloc_in_place(block, layout, size) } {
            return block;
        }
        // SAFETY: the caller gave a size that is valid with this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: as `alloc`.
        let new = unsafe { self.alloc(new_layout) };
        if !new.is_null() {
            // SAFETY: two different blocks, both at least this long.
            unsafe { new.copy_from_nonoverlapping(block, layout.size().min(size)) };
            // SAFETY: the caller's block, of which nothing is used any more.
            unsafe { self.dealloc(block, layout) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Memory that lives for ever, as a domain's does.
    fn memory(frames: usize) -> &'static mut [u8] {
        let layout = Layout::from_size_align(frames * FRAME, FRAME).unwrap();
        // SAFETY: the size is not zero.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        // SAFETY: fresh, never freed, initialised with zeros.
        unsafe { core::slice::from_raw_parts_mut(start, layout.size()) }
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    /// The byte that a block of `size` bytes is filled with.
    fn pattern(size: usize) -> u8 {
        u8::try_from(size % 251).unwrap()
    }

    /// One test, because page frames and heap are one per process.
    #[test]
    fn heap_takes_frames_grows_and_refuses_when_there_is_no_more() {
        add_memory(memory(64));
        let start = statistics();
        assert_eq!((start.total, start.allocated), (64 * FRAME, 0));

        // SAFETY (of the blocks below): each is freed once with its own layout.
        let blocks: Vec<_> = (1..200)
            .map(|size| {
                // SAFETY: the size is not zero.
                let block = unsafe { Heap.alloc(layout(size)) };
                assert!(!block.is_null(), "{size} bytes of {:?}", statistics());
                // SAFETY: a block of `size` bytes.
                unsafe { block.write_bytes(pattern(size), size) };
                (block, size)
            })
            .collect();
        let used = statistics();
        assert!(used.allocated >= 199 * 200 / 2, "{used:?}");
        for &(block, size) in &blocks {
            // SAFETY: written above.
            let bytes = unsafe { core::slice::from_raw_parts(block, size) };
            assert!(bytes.iter().all(|&b| b == pattern(size)), "block of {size} was overwritten");
        }

        // More than there is: refused, nothing lost.
        // SAFETY: the size is not zero.
        assert!(unsafe { Heap.alloc(layout(64 * FRAME)) }.is_null());
        assert_eq!(statistics().allocated, used.allocated);
        assert!(!reserve(64 * FRAME), "nothing to grow from yet");

        grow_with(|bytes| if bytes <= 256 * FRAME { memory(bytes / FRAME) } else { &mut [] });
        // SAFETY: the size is not zero.
        let large = unsafe { Heap.alloc(layout(64 * FRAME)) };
        assert!(!large.is_null(), "the heap grows: {:?}", statistics());
        assert_eq!(statistics().total, (64 + 256) * FRAME, "twice a block of 128 frames");
        assert!(reserve(250 * FRAME), "by growing again: {:?}", statistics());

        // SAFETY: the block allocated above.
        unsafe { Heap.dealloc(large, layout(64 * FRAME)) };
        for (block, size) in blocks {
            // SAFETY: the blocks allocated above.
            unsafe { Heap.dealloc(block, layout(size)) };
        }
        assert_eq!(statistics().allocated, 0, "all given back");
    }
}
