//! Page frames by the buddy system, and objects of three sizes on top of them.
//!
//! The buddy system keeps whole pages, as they come from the domain builder and from Xen, and gives
//! out what is large or must be a page; blocks that come back merge, so a large one can be had again
//! after small use. The store needs hundreds of thousands of objects of less than a hundred bytes:
//! those share pages with others of their size (`small`). What is between, such as buffers, comes
//! from talc. Both take pages in chunks, and a chunk goes back when the last object in it does. When
//! no page is left the image may ask Xen for more ([`grow_with`]).
//!
//! An allocation that fails is a panic in Rust's collections, so the image asks [`reserve`] before
//! it starts what could need memory, and refuses it while there is still a reserve.

#[cfg(feature = "host")]
pub mod host;
mod small;

use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr::NonNull;

use buddy_system_allocator::Heap as Buddy;
use spin::Mutex;
use talc::DefaultBinning;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

use small::{CHUNK, Small, is_small};

/// Bytes in a page frame.
pub const FRAME: usize = 4096;

/// From this size on an object gets pages of its own: in a chunk it would leave large holes.
const LARGE: usize = CHUNK / 4;

/// Asks for at least `bytes` more bytes of memory. What comes is used from its first to its last
/// whole page; nothing comes when there is no more. It must not allocate.
pub type Grow = fn(bytes: usize) -> &'static mut [u8];

/// Page frames and where more come from.
struct Frames {
    buddy: Buddy<32>,
    grow: Option<Grow>,
    /// Bytes that were ever given to us.
    total: usize,
    /// Bytes that nobody has.
    free: usize,
    /// Bytes asked for in large objects.
    large: usize,
    /// A block of this size was there when it was last looked for, and nothing was taken since.
    reserved: usize,
}

static FRAMES: Mutex<Frames> = Mutex::new(Frames {
    buddy: Buddy::empty(),
    grow: None,
    total: 0,
    free: 0,
    large: 0,
    reserved: 0,
});

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
        self.reserved = 0;
        Some(block)
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// It came from [`take`](Self::take) with the same layout, and nobody uses it any more.
    unsafe fn give_back(&mut self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { self.buddy.dealloc(block, layout) };
        self.free += layout.size();
    }
}

/// The block that holds `bytes` bytes: whole pages, a power of two of them, aligned to its size.
fn block_layout(bytes: usize) -> Option<Layout> {
    let size = bytes.checked_next_power_of_two()?.max(FRAME);
    Layout::from_size_align(size, size).ok()
}

/// The block for an object that gets pages of its own; `None` for a small one.
fn large_layout(layout: Layout) -> Option<Layout> {
    let large = layout.size() >= LARGE || layout.align() >= FRAME;
    if large { block_layout(layout.size().max(layout.align())) } else { None }
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
    /// In objects, without the allocators' own overhead.
    pub allocated: usize,
    /// Free in chunks that hold small objects.
    pub chunks_free: usize,
    /// In page frames that nobody has taken.
    pub frames_free: usize,
    /// All that was ever given to the page frames.
    pub total: usize,
}

impl Statistics {
    /// Bytes that can still be allocated without asking Xen for more, fragmentation aside.
    pub fn free(&self) -> usize {
        self.chunks_free + self.frames_free
    }
}

/// The figures of now. Cheap: counters are kept, nothing is walked.
pub fn statistics() -> Statistics {
    let small = SMALL.lock().counters;
    let counters = *TALC.lock().counters();
    let frames = FRAMES.lock();
    Statistics {
        allocated: small.allocated + counters.allocated_bytes + frames.large,
        chunks_free: small.available + counters.available_bytes,
        frames_free: frames.free,
        total: frames.total,
    }
}

/// Makes sure that a block of `bytes` bytes can be had, asking Xen for more memory if it cannot.
/// Says whether it can: as one large object, or as any number of smaller ones.
pub fn reserve(bytes: usize) -> bool {
    let Some(layout) = block_layout(bytes) else { return false };
    // Pages are taken rarely, and this is asked before each request that needs memory.
    if FRAMES.lock().reserved < layout.size() {
        let mut block = take_frames(layout);
        if block.is_none() {
            SMALL.lock().trim();
            block = take_frames(layout);
        }
        let Some(block) = block else { return false };
        let mut frames = FRAMES.lock();
        // SAFETY: taken just now, and not used.
        unsafe { frames.give_back(block, layout) };
        frames.reserved = layout.size();
    }
    true
}

/// Takes a block, and holds the lock no longer than that.
fn take_frames(layout: Layout) -> Option<NonNull<u8>> {
    FRAMES.lock().take(layout)
}

/// Feeds the others from the page frames, a chunk at a time.
#[derive(Debug)]
struct Chunks;

impl small::Chunks for Chunks {
    fn take(&mut self) -> Option<NonNull<u8>> {
        take_frames(block_layout(CHUNK)?)
    }

    unsafe fn give_back(&mut self, chunk: NonNull<u8>) {
        if let Some(layout) = block_layout(CHUNK) {
            // SAFETY: `take` took it, and the caller does not use it any more.
            unsafe { FRAMES.lock().give_back(chunk, layout) };
        }
    }
}

// SAFETY: `acquire` reaches the allocator through the reference it is given only; `FRAMES` is
// another lock, and taking frames does not allocate. `resize` returns one of its arguments.
unsafe impl Source for Chunks {
    const TRACK_HEAP_END: bool = true;

    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, _layout: Layout) -> Result<(), ()> {
        let block = block_layout(CHUNK).and_then(take_frames).ok_or(())?;
        // SAFETY: the block was taken and belongs to nobody else.
        unsafe { talc.claim(block.as_ptr(), CHUNK) }.map(drop).ok_or(())
    }

    /// Gives a chunk back whose last object has gone.
    unsafe fn resize(&mut self, free: *mut u8, end: *mut u8, whole: bool) -> *mut u8 {
        let start = end.wrapping_sub(CHUNK);
        let (Some(layout), Some(block)) = (block_layout(CHUNK), NonNull::new(start)) else {
            return end;
        };
        if !whole {
            return end;
        }
        // SAFETY: what `acquire` claimed is a chunk, nothing in it is used, and by the result
        // talc forgets it.
        unsafe { FRAMES.lock().give_back(block, layout) };
        free
    }
}

static SMALL: Mutex<Small<Chunks>> = Mutex::new(Small::new(Chunks));
static TALC: Mutex<Talc<Chunks, DefaultBinning>> = Mutex::new(Talc::new(Chunks));

/// The global allocator of an image.
#[derive(Debug)]
pub struct Heap;

// SAFETY: each object is of one of the three allocators, by its layout alone; all give memory of
// that layout that nobody else has. The locks make it `Sync`.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_small(layout) {
            let object = SMALL.lock().allocate(layout.size());
            return object.map_or(core::ptr::null_mut(), NonNull::as_ptr);
        }
        let block = match large_layout(layout) {
            Some(block) => {
                let mut frames = FRAMES.lock();
                let taken = frames.take(block);
                frames.large += if taken.is_some() { layout.size() } else { 0 };
                taken
            }
            // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
            None => unsafe { TALC.lock().allocate(layout) },
        };
        block.map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_small(layout) {
            if let Some(object) = NonNull::new(block) {
                // SAFETY: `alloc` took it with the same layout.
                unsafe { SMALL.lock().free(object, layout.size()) };
            }
            return;
        }
        match (large_layout(layout), NonNull::new(block)) {
            (Some(taken), Some(block)) => {
                let mut frames = FRAMES.lock();
                frames.large -= layout.size();
                // SAFETY: `alloc` took it with the same layout.
                unsafe { frames.give_back(block, taken) };
            }
            // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
            (None, _) => unsafe { TALC.lock().deallocate(block, layout) },
            (Some(_), None) => {}
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller gave a size that is valid with this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let stays = match (is_small(layout), is_small(new_layout)) {
            (true, true) => resize_small(layout, new_layout),
            // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
            (false, false) => unsafe { resize_in_place(block, layout, new_layout) },
            _ => false,
        };
        if stays {
            return block;
        }
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

/// Lets a small object keep its place when its size changes so, if that is large enough.
fn resize_small(layout: Layout, new: Layout) -> bool {
    let fits = Small::<Chunks>::fits(layout.size(), new.size());
    if fits {
        SMALL.lock().resize(layout.size(), new.size());
    }
    fits
}

/// Lets an object that is not small, and will not be, keep its place when its size changes, if that
/// is large enough.
///
/// # Safety
/// The object was allocated with the first layout.
unsafe fn resize_in_place(block: *mut u8, layout: Layout, new: Layout) -> bool {
    match (large_layout(layout), large_layout(new)) {
        (Some(old_block), Some(new_block)) if old_block == new_block => {
            let mut frames = FRAMES.lock();
            frames.large = frames.large - layout.size() + new.size();
            true
        }
        // SAFETY: the caller's; neither layout is of another allocator.
        (None, None) => unsafe { TALC.lock().try_realloc_in_place(block, layout, new.size()) },
        _ => false,
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

    /// Takes an object of `size` bytes and fills it.
    fn take(size: usize) -> Option<(*mut u8, usize)> {
        // SAFETY: the size is not zero.
        let object = NonNull::new(unsafe { Heap.alloc(layout(size)) })?.as_ptr();
        // SAFETY: an object of `size` bytes.
        unsafe { object.write_bytes(pattern(size), size) };
        Some((object, size))
    }

    /// Looks whether an object is as it was filled, and gives it back.
    fn free((object, size): (*mut u8, usize)) {
        // SAFETY: `take` filled it.
        let bytes = unsafe { core::slice::from_raw_parts(object, size) };
        assert!(bytes.iter().all(|&b| b == pattern(size)), "an object of {size} was overwritten");
        // SAFETY: from `take`, with the same layout, once.
        unsafe { Heap.dealloc(object, layout(size)) };
    }

    /// One test, because page frames and heap are one per process.
    #[test]
    fn memory_is_taken_given_back_and_grown() {
        add_memory(memory(128));
        let start = statistics();
        assert_eq!((start.total, start.allocated), (128 * FRAME, 0));

        // Small objects and large ones.
        let objects: Vec<_> = (1..200).chain([LARGE - 1, LARGE, 3 * LARGE]).map(take).collect();
        let used = statistics();
        let asked: usize = objects.iter().flatten().map(|(_, size)| size).sum();
        assert_eq!(used.allocated, asked, "{used:?}");
        // SAFETY: the size is not zero.
        let page = unsafe { Heap.alloc(Layout::from_size_align(FRAME, FRAME).unwrap()) };
        assert_eq!(page as usize % FRAME, 0, "pages are aligned");
        // SAFETY: allocated above.
        unsafe { Heap.dealloc(page, Layout::from_size_align(FRAME, FRAME).unwrap()) };

        // All that is left in small objects: then chunks go back, and large objects fit again.
        let rest: Vec<_> = core::iter::from_fn(|| take(1000)).collect();
        assert!(rest.len() > 200, "{} objects; {:?}", rest.len(), statistics());
        assert!(!reserve(CHUNK), "full: {:?}", statistics());
        rest.into_iter().for_each(free);
        assert!(reserve(32 * FRAME), "chunks went back: {:?}", statistics());

        // More than there is: refused, nothing lost.
        assert!(take(256 * FRAME).is_none());
        assert!(!reserve(256 * FRAME), "nothing to grow from yet");
        assert_eq!(statistics().allocated, used.allocated);
        grow_with(|bytes| if bytes <= 512 * FRAME { memory(bytes / FRAME) } else { &mut [] });
        let large = take(256 * FRAME).expect("memory grows");
        assert_eq!(statistics().total, (128 + 512) * FRAME, "twice what was asked for");

        // An object keeps its contents when it grows into pages of its own, and back.
        let (object, _) = take(100).unwrap();
        // SAFETY: from `take`, of 100 bytes.
        let object = unsafe { Heap.realloc(object, layout(100), LARGE + 5) };
        // SAFETY: of that size since.
        let object = unsafe { Heap.realloc(object, layout(LARGE + 5), LARGE + 9) };
        // SAFETY: of that size since.
        let object = unsafe { Heap.realloc(object, layout(LARGE + 9), 100) };
        free((object, 100));

        free(large);
        objects.into_iter().flatten().for_each(free);
        SMALL.lock().trim();
        let end = statistics();
        assert_eq!(end.allocated, 0, "all given back");
        assert!(end.frames_free + CHUNK >= end.total, "one chunk is kept: {end:?}");
    }
}
