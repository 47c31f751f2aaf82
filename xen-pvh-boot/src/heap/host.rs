//! The heap that an image has, for programs of the build host: its small objects, and talc for the
//! others. With it they count and weigh what an image does.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};
use std::alloc::System;

use spin::Mutex;
use talc::TalcLock;
use talc::source::GlobalAllocSource;

use super::small::{CHUNK, Chunks, Small, is_small};

/// The allocator, for whoever makes it the global one of a program.
#[derive(Debug)]
pub struct HostHeap;

static SMALL: Mutex<Small<FromSystem>> = Mutex::new(Small::new(FromSystem));
static TALC: TalcLock<Mutex<()>, GlobalAllocSource<System>> =
    TalcLock::new(GlobalAllocSource::with_block_size(System, CHUNK));

/// The image has page frames where this has the machine's heap.
struct FromSystem;

const CHUNK_LAYOUT: Layout = match Layout::from_size_align(CHUNK, CHUNK) {
    Ok(layout) => layout,
    Err(_) => panic!("a chunk's size is a power of two"),
};

impl Chunks for FromSystem {
    fn take(&mut self) -> Option<NonNull<u8>> {
        // SAFETY: the size is not zero.
        NonNull::new(unsafe { System.alloc(CHUNK_LAYOUT) })
    }

    unsafe fn give_back(&mut self, chunk: NonNull<u8>) {
        // SAFETY: `take` allocated it, and the caller does not use it any more.
        unsafe { System.dealloc(chunk.as_ptr(), CHUNK_LAYOUT) };
    }
}

// SAFETY: each object is of one of the two allocators, by its layout alone; both give memory of
// that layout that nobody else has.
unsafe impl GlobalAlloc for HostHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_small(layout) {
            let object = SMALL.lock().allocate(layout.size());
            return object.map_or(null_mut(), NonNull::as_ptr);
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { TALC.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match NonNull::new(block).filter(|_| is_small(layout)) {
            // SAFETY: `alloc` took it with the same layout.
            Some(object) => unsafe { SMALL.lock().free(object, layout.size()) },
            // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
            None => unsafe { TALC.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller gave a size that is valid with this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (is_small(layout), is_small(new_layout)) {
            // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
            (false, false) => return unsafe { TALC.realloc(block, layout, size) },
            (true, true) if Small::<FromSystem>::fits(layout.size(), size) => {
                SMALL.lock().resize(layout.size(), size);
                return block;
            }
            _ => {}
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

/// What the heap holds, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// In objects, as they were asked for.
    pub asked: usize,
    /// In objects with all that the heap adds to them: what nobody else can have.
    pub taken: usize,
}

impl Use {
    /// The use of now.
    pub fn now() -> Self {
        let mut small = SMALL.lock();
        // As the image does when memory is asked for that is not there otherwise.
        small.trim();
        let small = small.counters;
        let rest = *TALC.lock().counters();
        let available = small.available + rest.available_bytes;
        Self {
            asked: small.allocated + rest.allocated_bytes,
            taken: small.claimed + rest.claimed_bytes - available,
        }
    }
}
