//! Small objects: pages that hold objects of one size each, and besides them only a head.
//!
//! A store keeps hundreds of thousands of objects of some ten sizes, and every change takes and gives
//! back a few. Here an object has nothing beside it, and some twenty instructions take it; an
//! allocator of any size needs a word more for each, larger steps, and 130. A page whose last object
//! goes serves another size next, and a chunk whose last page goes is given back.
//!
//! `bench` has this file as its own, to weigh and to count what the image does.

use core::alloc::Layout;
use core::ptr::NonNull;

/// Bytes that are taken at a time. A power of two, so that the chunk of a page is known.
pub(crate) const CHUNK: usize = 64 << 10;

const PAGE: usize = 4096;
const PAGES: usize = CHUNK / PAGE;

/// The sizes of objects, in bytes. No page wastes more than 1 in 18 at its end.
const SIZES: [u16; 29] = [
    8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 96, 112, 128, 160, 176, 192, 208, 224, 240, 264, 288,
    336, 400, 448, 504, 576, 672, 808, 1000,
];

/// The largest small object.
pub(crate) const LARGEST: usize = SIZES[SIZES.len() - 1] as usize;

/// The alignment that every object has.
const ALIGN: usize = 8;

/// By size in words: which of [`SIZES`] it gets.
const CLASSES: [u8; LARGEST / ALIGN + 1] = {
    let mut classes = [0; LARGEST / ALIGN + 1];
    let (mut words, mut class) = (0, 0);
    while words < classes.len() {
        if words * ALIGN > SIZES[class as usize] as usize {
            class += 1;
        }
        classes[words] = class;
        words += 1;
    }
    classes
};

/// Where chunks come from.
pub(crate) trait Chunks {
    /// Returns a chunk that is aligned to its size and nobody else's.
    fn take(&mut self) -> Option<NonNull<u8>>;

    /// Takes a chunk back.
    ///
    /// # Safety
    /// It came from [`take`](Self::take), and nobody uses it any more.
    unsafe fn give_back(&mut self, chunk: NonNull<u8>);
}

/// Whether an object of that layout is small.
pub(crate) fn is_small(layout: Layout) -> bool {
    layout.size() <= LARGEST && layout.align() <= ALIGN
}

/// Small objects, in chunks of that source.
pub(crate) struct Small<C> {
    source: C,
    /// By class: pages with room.
    pages: [List<Page>; SIZES.len()],
    /// By class: one of these without any object, kept because the next object is often not far.
    idle: [Option<At<Page>>; SIZES.len()],
    /// Chunks with free pages.
    chunks: List<Chunk>,
    /// What it holds.
    pub(crate) counters: Counters,
}

// SAFETY: its pointers lead to what it alone has.
unsafe impl<C: Send> Send for Small<C> {}

/// How much is held, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// In objects, as they were asked for.
    pub(crate) allocated: usize,
    /// In chunks.
    pub(crate) claimed: usize,
    /// Free, in pages or for objects of one size.
    pub(crate) available: usize,
}

/// The head of a page.
struct Page {
    links: Links<Self>,
    /// The last object that was given back; each holds the one before.
    free: Option<Free>,
    /// Where the part begins that was never used.
    fresh: u16,
    /// How many objects are used.
    used: u16,
    /// How many there can be.
    capacity: u16,
}

/// What a free object holds: the next one.
#[derive(Clone, Copy)]
struct Free(NonNull<Option<Self>>);

/// The head of a chunk, behind that of its first page.
struct Chunk {
    links: Links<Self>,
    /// A bit for each page that is free.
    free: u16,
}

const ALL_FREE: u16 = u16::MAX;

const HEAD: usize = size_of::<Page>();
const CHUNK_HEAD: usize = size_of::<Chunk>();

const _: () = assert!(PAGES == ALL_FREE.count_ones() as usize);
const _: () = assert!(HEAD.is_multiple_of(ALIGN) && CHUNK_HEAD.is_multiple_of(ALIGN));

/// A head that was written, in a chunk that was not given back.
struct At<T>(NonNull<T>);

impl<T> Clone for At<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for At<T> {}

impl<T> At<T> {
    fn head(&mut self) -> &mut T {
        // SAFETY: the head is there as long as there is an `At`; only `Small` makes these, while it
        // is borrowed as a whole, and nothing here holds the references to two heads at a time.
        unsafe { self.0.as_mut() }
    }
}

/// The neighbours in a list.
struct Links<T> {
    next: Option<At<T>>,
    previous: Option<At<T>>,
}

impl<T> Links<T> {
    const NONE: Self = Self { next: None, previous: None };
}

trait Linked: Sized {
    fn links(&mut self) -> &mut Links<Self>;
}

impl Linked for Page {
    fn links(&mut self) -> &mut Links<Self> {
        &mut self.links
    }
}

impl Linked for Chunk {
    fn links(&mut self) -> &mut Links<Self> {
        &mut self.links
    }
}

struct List<T> {
    first: Option<At<T>>,
}

impl<T: Linked> List<T> {
    const EMPTY: Self = Self { first: None };

    fn push(&mut self, mut at: At<T>) {
        *at.head().links() = Links { next: self.first, previous: None };
        if let Some(mut next) = self.first {
            next.head().links().previous = Some(at);
        }
        self.first = Some(at);
    }

    fn remove(&mut self, mut at: At<T>) {
        let Links { next, previous } = core::mem::replace(at.head().links(), Links::NONE);
        match previous {
            Some(mut previous) => previous.head().links().next = next,
            None => self.first = next,
        }
        if let Some(mut next) = next {
            next.head().links().previous = previous;
        }
    }
}

impl<C: Chunks> Small<C> {
    pub(crate) const fn new(source: C) -> Self {
        let counters = Counters { allocated: 0, claimed: 0, available: 0 };
        let pages = [const { List::EMPTY }; SIZES.len()];
        let idle = [const { None }; SIZES.len()];
        Self { source, pages, idle, chunks: List::EMPTY, counters }
    }

    /// Returns a free object of `size` bytes, [`LARGEST`] at most.
    #[inline(never)]
    pub(crate) fn allocate(&mut self, size: usize) -> Option<NonNull<u8>> {
        let class = class_of(size);
        let mut at = match self.pages[class].first {
            Some(page) => page,
            None => self.take_page(class)?,
        };
        let page = at.head();
        let object = match page.free {
            Some(Free(object)) => {
                // SAFETY: what is free holds the next.
                page.free = unsafe { object.read() };
                object.cast()
            }
            None => {
                let place = usize::from(page.fresh);
                page.fresh += SIZES[class];
                // SAFETY: fewer are used than the page holds, and none is free: this one is left.
                unsafe { at.0.cast::<u8>().add(place) }
            }
        };
        let page = at.head();
        page.used += 1;
        let (used, capacity) = (page.used, page.capacity);
        if used == 1 {
            self.idle[class] = None;
        } else if used == capacity {
            self.pages[class].remove(at);
        }
        self.counters.allocated += size;
        self.counters.available -= usize::from(SIZES[class]);
        Some(object)
    }

    /// Takes an object back.
    ///
    /// # Safety
    /// It came from [`allocate`](Self::allocate) with the same size, and nobody uses it any more.
    #[inline(never)]
    pub(crate) unsafe fn free(&mut self, object: NonNull<u8>, size: usize) {
        let class = class_of(size);
        let mut at = below::<Page>(object, PAGE);
        let page = at.head();
        let object = object.cast();
        // SAFETY: nobody else uses the object, and no object is smaller than this.
        unsafe { object.write(page.free) };
        page.free = Some(Free(object));
        page.used -= 1;
        let (used, full) = (page.used, page.capacity - 1);
        self.counters.allocated -= size;
        self.counters.available += usize::from(SIZES[class]);
        if used == full {
            self.pages[class].push(at);
        } else if used == 0
            && let Some(other) = self.idle[class].replace(at)
        {
            self.give_back_page(class, other);
        }
    }

    /// Gives back what is kept for the next objects.
    #[cold]
    pub(crate) fn trim(&mut self) {
        for class in 0..SIZES.len() {
            if let Some(page) = self.idle[class].take() {
                self.give_back_page(class, page);
            }
        }
    }

    /// Whether an object keeps its place when its size changes so.
    pub(crate) fn fits(size: usize, new: usize) -> bool {
        new <= LARGEST && class_of(size) == class_of(new)
    }

    /// As if an object that keeps its place was given back and taken.
    pub(crate) fn resize(&mut self, size: usize, new: usize) {
        self.counters.allocated = self.counters.allocated - size + new;
    }

    #[cold]
    fn take_page(&mut self, class: usize) -> Option<At<Page>> {
        let mut chunk = match self.chunks.first {
            Some(chunk) => chunk,
            None => self.take_chunk()?,
        };
        let head = chunk.head();
        let number = head.free.trailing_zeros() as usize;
        head.free &= head.free - 1;
        if head.free == 0 {
            self.chunks.remove(chunk);
        }
        let start = below::<u8>(chunk.0.cast(), CHUNK).0;
        // SAFETY: the chunk has so many pages.
        let page = unsafe { start.add(number * PAGE) }.cast::<Page>();
        let first = if number == 0 { HEAD + CHUNK_HEAD } else { HEAD };
        let capacity = (PAGE - first) / usize::from(SIZES[class]);
        let [fresh, capacity] = [first, capacity].map(|part| u16::try_from(part).unwrap_or(0));
        // SAFETY: the page is ours, and free.
        unsafe { page.write(Page { links: Links::NONE, free: None, fresh, used: 0, capacity }) };
        self.counters.available += usize::from(capacity) * usize::from(SIZES[class]);
        self.counters.available -= PAGE;
        self.pages[class].push(At(page));
        self.idle[class] = Some(At(page));
        Some(At(page))
    }

    /// Takes a page back that has no object.
    #[cold]
    fn give_back_page(&mut self, class: usize, mut page: At<Page>) {
        self.pages[class].remove(page);
        self.counters.available += PAGE;
        self.counters.available -= usize::from(page.head().capacity) * usize::from(SIZES[class]);
        let start = below::<u8>(page.0.cast(), CHUNK).0;
        // SAFETY: the chunk's head is there, behind that of its first page.
        let mut chunk = At(unsafe { start.add(HEAD) }.cast::<Chunk>());
        let number = (page.0.addr().get() - start.addr().get()) / PAGE;
        let head = chunk.head();
        let full = head.free == 0;
        head.free |= 1 << number;
        let all_free = head.free == ALL_FREE;
        if full {
            self.chunks.push(chunk);
        }
        if all_free {
            self.chunks.remove(chunk);
            self.counters.claimed -= CHUNK;
            self.counters.available -= CHUNK;
            // SAFETY: it came from there, and has no page that is used.
            unsafe { self.source.give_back(start) };
        }
    }

    fn take_chunk(&mut self) -> Option<At<Chunk>> {
        let start = self.source.take()?;
        // SAFETY: the chunk is longer than that.
        let chunk = unsafe { start.add(HEAD) }.cast::<Chunk>();
        // SAFETY: the chunk is ours; the place is aligned, because the chunk and a head's length are.
        unsafe { chunk.write(Chunk { links: Links::NONE, free: ALL_FREE }) };
        self.counters.claimed += CHUNK;
        self.counters.available += CHUNK;
        self.chunks.push(At(chunk));
        Some(At(chunk))
    }
}

fn class_of(size: usize) -> usize {
    CLASSES[size.div_ceil(ALIGN)].into()
}

/// Returns what stands at the multiple of `unit`, a power of two, that is at or below an address.
fn below<T>(address: NonNull<u8>, unit: usize) -> At<T> {
    let start = address.as_ptr().map_addr(|address| address & !(unit - 1));
    At(NonNull::new(start.cast()).unwrap_or(NonNull::dangling()))
}

#[cfg(test)]
mod tests {
    use std::alloc;
    use std::collections::VecDeque;
    use std::vec::Vec;

    use super::*;

    /// The machine's memory, as far as the limit allows.
    struct Limited(usize);

    const LAYOUT: Layout = match Layout::from_size_align(CHUNK, CHUNK) {
        Ok(layout) => layout,
        Err(_) => panic!(),
    };

    impl Chunks for Limited {
        fn take(&mut self) -> Option<NonNull<u8>> {
            self.0 = self.0.checked_sub(1)?;
            // SAFETY: the size is not zero.
            NonNull::new(unsafe { alloc::alloc(LAYOUT) })
        }

        unsafe fn give_back(&mut self, chunk: NonNull<u8>) {
            self.0 += 1;
            // SAFETY: `take` allocated it.
            unsafe { alloc::dealloc(chunk.as_ptr(), LAYOUT) };
        }
    }

    /// Fills an object with its number.
    fn fill(object: NonNull<u8>, size: usize, number: usize) {
        // SAFETY: an object of this size.
        let bytes = unsafe { core::slice::from_raw_parts_mut(object.as_ptr(), size) };
        bytes.fill(number.to_le_bytes()[0]);
    }

    fn is_filled(object: NonNull<u8>, size: usize, number: usize) -> bool {
        // SAFETY: an object of this size, which was filled.
        let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), size) };
        bytes.iter().all(|byte| *byte == number.to_le_bytes()[0])
    }

    #[test]
    fn every_size_has_a_class_that_holds_it() {
        for size in 1..=LARGEST {
            let class = class_of(size);
            assert!(usize::from(SIZES[class]) >= size, "{size} bytes");
            assert!(class == 0 || usize::from(SIZES[class - 1]) < size, "{size}: the smallest");
        }
        assert!(SIZES.iter().all(|size| {
            let left = (PAGE - HEAD) % usize::from(*size);
            left * 18 < PAGE
        }));
    }

    #[test]
    fn objects_never_overlap_and_all_memory_comes_back() {
        let mut small = Small::new(Limited(16));
        let mut objects = VecDeque::new();
        let (mut seed, mut taken, mut refused) = (12_345_u64, 0_usize, 0);
        // Waves: many are taken, then many are given back, the oldest or the newest.
        for step in 0..200_000_usize {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let random = (seed >> 33) as usize;
            let grows = (step / 20_000).is_multiple_of(2);
            if random % 8 < if grows { 6 } else { 2 } {
                let size = 1 + (random >> 3) % if random.is_multiple_of(3) { LARGEST } else { 70 };
                match small.allocate(size) {
                    Some(object) => {
                        assert_eq!(object.addr().get() % ALIGN, 0, "{size} bytes");
                        fill(object, size, step);
                        taken += size;
                        objects.push_back((object, size, step));
                    }
                    None => refused += 1,
                }
            } else if let Some((object, size, number)) =
                if random.is_multiple_of(2) { objects.pop_front() } else { objects.pop_back() }
            {
                assert!(is_filled(object, size, number), "{size} bytes were overwritten");
                // SAFETY: taken with this size, once.
                unsafe { small.free(object, size) };
                taken -= size;
            }
            let Counters { allocated, claimed, available } = small.counters;
            assert_eq!(allocated, taken);
            assert_eq!(claimed, (16 - small.source.0) * CHUNK);
            assert!(allocated <= claimed - available, "{:?}", small.counters);
        }
        assert!(refused > 0, "memory never ended");
        for (object, size, _) in objects {
            // SAFETY: taken with this size, once.
            unsafe { small.free(object, size) };
        }
        let Counters { allocated, claimed, available } = small.counters;
        assert_eq!((allocated, claimed > 0), (0, true), "a page of each size is kept");
        let kept = SIZES.len() * (PAGE / 18 + CHUNK_HEAD + HEAD);
        assert!(claimed - available < kept, "{:?}", small.counters);
        small.trim();
        let Counters { allocated, claimed, available } = small.counters;
        assert_eq!((allocated, claimed, available), (0, 0, 0), "all came back");
        assert_eq!(small.source.0, 16, "and every chunk went back");
    }

    #[test]
    fn a_page_that_is_empty_serves_another_size() {
        let mut small = Small::new(Limited(1));
        let take = |small: &mut Small<Limited>, size| {
            core::iter::from_fn(|| small.allocate(size)).collect::<Vec<_>>()
        };
        for size in [8, 64, LARGEST, 24] {
            let objects = take(&mut small, size);
            let most = CHUNK / size;
            assert!(objects.len() > most * 9 / 10, "{} of {size} bytes", objects.len());
            for object in objects {
                // SAFETY: taken with this size, once.
                unsafe { small.free(object, size) };
            }
            small.trim();
        }
        assert!(Small::<Limited>::fits(57, 64) && !Small::<Limited>::fits(56, 57));
    }
}
