//! The heap that the image has below its objects, on the host: talc, with its counters.

use std::alloc::System;

use talc::TalcLock;
use talc::source::GlobalAllocSource;

/// As the image takes from its page frames at a time.
const CHUNK: usize = 64 << 10;

#[global_allocator]
static HEAP: TalcLock<spin::Mutex<()>, GlobalAllocSource<System>> =
    TalcLock::new(GlobalAllocSource::with_block_size(System, CHUNK));

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
        let counters = *HEAP.lock().counters();
        let taken = counters.claimed_bytes - counters.available_bytes;
        Self { asked: counters.allocated_bytes, taken }
    }
}
