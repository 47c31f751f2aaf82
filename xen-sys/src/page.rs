//! Pages: ours, and those we share.
//!
//! The crate relies on one property of the machine it runs on: memory below 4 GiB is
//! identity-mapped and writable, so that a page's address is its guest-physical address.
//! `xen-pvh-boot` sets that up before any Rust runs.

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::alloc::Layout;
use core::ptr::NonNull;

use crate::ids::Gfn;

/// Bytes in a page and in a grant.
pub const PAGE_SIZE: usize = 4096;

/// A page's worth of bytes, page-aligned.
#[derive(Clone)]
#[repr(C, align(4096))]
pub struct Page([u8; PAGE_SIZE]);

impl Page {
    /// A page of zeros from the heap, or `None` when there is no more: running out of
    /// memory is an answer here, not a panic.
    #[must_use]
    pub fn zeroed() -> Option<Box<Self>> {
        // SAFETY: the layout's size is not zero.
        let raw = NonNull::new(unsafe { alloc_zeroed(Layout::new::<Self>()) })?;
        // SAFETY: freshly allocated by the global allocator with the layout of `Self`, and
        // zeros are a valid `Self`.
        Some(unsafe { Box::from_raw(raw.cast().as_ptr()) })
    }

    /// The page's bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; PAGE_SIZE] {
        &self.0
    }

    /// The page's bytes.
    #[must_use]
    pub const fn bytes_mut(&mut self) -> &mut [u8; PAGE_SIZE] {
        &mut self.0
    }

    /// The bytes of adjacent pages.
    #[must_use]
    pub const fn flatten(pages: &mut [Self]) -> &mut [u8] {
        let (start, len) = (pages.as_mut_ptr(), pages.len() * PAGE_SIZE);
        // SAFETY: a `Page` is exactly its bytes, a slice of them is contiguous, and the
        // borrow is exclusive for as long as the result lives.
        unsafe { core::slice::from_raw_parts_mut(start.cast(), len) }
    }
}

/// Memory that somebody else may write at any moment.
///
/// It is only ever touched through [`crate::ring`]: by atomics and by copies the compiler
/// cannot look into, never through a reference to plain bytes.
///
/// # Safety
/// For as long as `self` lives, `len` bytes from `base` are mapped, readable and writable,
/// `base` is aligned to a page, and no reference to plain bytes in there exists.
pub unsafe trait Shared {
    /// The first byte.
    fn base(&self) -> NonNull<u8>;

    /// How many bytes, a multiple of [`PAGE_SIZE`].
    fn len(&self) -> usize {
        PAGE_SIZE
    }

    /// Whether there are no bytes at all, which no shared memory of this crate has.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// SAFETY: the same memory, which lives as long as any handle to it does.
unsafe impl<M: Shared> Shared for Arc<M> {
    fn base(&self) -> NonNull<u8> {
        (**self).base()
    }

    fn len(&self) -> usize {
        (**self).len()
    }
}

/// One of two kinds of memory, for whoever has rings in both.
#[derive(Debug)]
pub enum Either<A, B> {
    /// The first.
    First(A),
    /// The second.
    Second(B),
}

// SAFETY: what it holds is memory of this kind.
unsafe impl<A: Shared, B: Shared> Shared for Either<A, B> {
    fn base(&self) -> NonNull<u8> {
        match self {
            Self::First(memory) => memory.base(),
            Self::Second(memory) => memory.base(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::First(memory) => memory.len(),
            Self::Second(memory) => memory.len(),
        }
    }
}

/// Pages of our own RAM, adjacent, taken from the heap to be shared; go back when dropped.
#[derive(Debug)]
pub struct OwnPages {
    first: NonNull<Page>,
    count: usize,
}

impl OwnPages {
    /// Takes `count` pages of zeros from the heap, or `None` when there are no more.
    #[must_use]
    pub fn zeroed(count: usize) -> Option<Self> {
        let layout = Self::layout(count).filter(|layout| layout.size() > 0)?;
        // SAFETY: the layout's size is not zero.
        let first = NonNull::new(unsafe { alloc_zeroed(layout) })?.cast();
        Some(Self { first, count })
    }

    /// How many pages there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Where each of them is.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Gfn> + use<> {
        let first = Gfn::holding(self.first.as_ptr() as u64);
        (0..self.count).map(move |number| Gfn(first.0 + number as u64))
    }

    /// The pages one by one, to be held by more than one.
    pub fn split(self) -> impl ExactSizeIterator<Item = OwnPage> {
        let count = self.count;
        let all = Arc::new(self);
        (0..count).map(move |number| OwnPage { all: Arc::clone(&all), number })
    }

    fn layout(count: usize) -> Option<Layout> {
        Layout::array::<Page>(count).ok()
    }
}

impl Drop for OwnPages {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.count) {
            // SAFETY: allocated in `zeroed` with this layout, and nobody else frees it.
            unsafe { dealloc(self.first.as_ptr().cast(), layout) };
        }
    }
}

// SAFETY: heap memory of whole pages, ours until dropped; no reference to it was kept.
unsafe impl Shared for OwnPages {
    fn base(&self) -> NonNull<u8> {
        self.first.cast()
    }

    fn len(&self) -> usize {
        self.count * PAGE_SIZE
    }
}

// SAFETY: an address; what it leads to is only touched by atomics and by copies that tolerate
// other writers.
unsafe impl Send for OwnPages {}
// SAFETY: as above.
unsafe impl Sync for OwnPages {}

/// A page of our own of which there is more than one handle: each clone is the same page, as the
/// other end of a ring has it. For tests that play both ends, in as many threads as they like.
#[derive(Clone, Debug)]
pub struct OwnPage {
    all: Arc<OwnPages>,
    /// Less than their count.
    number: usize,
}

// SAFETY: one of the pages of `all`, which live as long as any handle to one of them does; no
// reference to plain bytes of them is ever made.
unsafe impl Shared for OwnPage {
    fn base(&self) -> NonNull<u8> {
        // SAFETY: `number` is one of theirs, so this stays inside the one allocation.
        unsafe { self.all.first.add(self.number) }.cast()
    }
}

/// A page that the domain builder set aside, such as the Xenstore or console ring; it stays
/// for the life of the domain and is not part of the heap.
#[derive(Clone, Copy, Debug)]
pub struct SpecialPage(NonNull<Page>);

impl SpecialPage {
    /// Names the page at `gfn`, unless that lies outside the identity-mapped 4 GiB.
    ///
    /// # Safety
    /// Xen or the domain builder named `gfn` as a page of RAM for sharing; nothing of ours
    /// lives there.
    #[must_use]
    pub(crate) unsafe fn at(gfn: Gfn) -> Option<Self> {
        if !(1..1 << 20).contains(&gfn.0) {
            return None;
        }
        NonNull::new(gfn.pointer()).map(Self)
    }

    /// Where it is.
    #[must_use]
    pub fn gfn(&self) -> Gfn {
        Gfn::holding(self.0.as_ptr() as u64)
    }
}

// SAFETY: by the contract of `at`, RAM for sharing that stays as long as the domain.
unsafe impl Shared for SpecialPage {
    fn base(&self) -> NonNull<u8> {
        self.0.cast()
    }
}

// SAFETY: the handle is an address; what it leads to is only touched by atomics and by
// copies that tolerate other writers.
unsafe impl Send for SpecialPage {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_zero_aligned_and_whole() {
        let mut pages = [*Page::zeroed().unwrap(), *Page::zeroed().unwrap()];
        assert_eq!(align_of_val(&pages[0]), PAGE_SIZE);
        pages[1].bytes_mut()[0] = 7;
        let bytes = Page::flatten(&mut pages);
        assert_eq!((bytes.len(), bytes[PAGE_SIZE - 1], bytes[PAGE_SIZE]), (8192, 0, 7));
    }

    #[test]
    fn own_pages_know_their_frames() {
        let pages = OwnPages::zeroed(3).unwrap();
        let frames: Vec<u64> = pages.frames().map(Gfn::address).collect();
        let base = pages.base().as_ptr() as u64;
        assert_eq!(frames, [base, base + 4096, base + 8192]);
        assert_eq!(pages.len(), 3 * PAGE_SIZE);
        let pages: Vec<OwnPage> = pages.split().collect();
        let again: Vec<u64> = pages.iter().map(|page| page.base().as_ptr() as u64).collect();
        assert_eq!(again, frames, "each handle is its own page");
        assert_eq!(pages[1].clone().base(), pages[1].base(), "a clone is the same page");
        assert!(OwnPages::zeroed(0).is_none(), "no page is no memory to share");
        assert!(OwnPages::zeroed(usize::MAX).is_none(), "more than there can be is an answer");
    }
}
