//! The only code that touches bytes a peer may write.
//!
//! Indexes and flags are atomics. Payload is moved by instructions written out in `asm!`: the
//! compiler neither sees nor assumes anything about the bytes, so a peer's write in the middle
//! of a copy yields some mixture of bytes and nothing worse, and the copy still goes 16 bytes
//! or more at a time.

use core::arch::asm;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32};

use crate::page::Shared;

/// Shared memory, borrowed from whoever keeps it mapped.
///
/// Offsets are the caller's own, never a peer's; one outside the memory is a mistake of ours
/// and panics.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    base: *mut u8,
    len: usize,
    owner: PhantomData<&'a ()>,
}

impl<'a> Region<'a> {
    /// All of `memory`.
    #[must_use]
    pub fn of(memory: &'a impl Shared) -> Self {
        Self { base: memory.base().as_ptr(), len: memory.len(), owner: PhantomData }
    }

    /// How many bytes there are.
    #[must_use]
    pub const fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The 32-bit word at `offset`.
    ///
    /// # Panics
    /// If it is misaligned or not all inside.
    #[must_use]
    pub fn word(self, offset: usize) -> &'a AtomicU32 {
        let word = self.at(offset, 4).cast::<u32>();
        assert!(offset.is_multiple_of(4), "misaligned index at {offset}");
        // SAFETY: inside mapped memory for 'a by `Shared`, aligned as the base is to a page;
        // all access to it here is atomic.
        unsafe { AtomicU32::from_ptr(word) }
    }

    /// The 16-bit word at `offset`.
    ///
    /// # Panics
    /// If it is misaligned or not all inside.
    #[must_use]
    pub fn half_word(self, offset: usize) -> &'a AtomicU16 {
        let word = self.at(offset, 2).cast::<u16>();
        assert!(offset.is_multiple_of(2), "misaligned half-word at {offset}");
        // SAFETY: as in `word`.
        unsafe { AtomicU16::from_ptr(word) }
    }

    /// The byte at `offset`.
    ///
    /// # Panics
    /// If it is not inside.
    #[must_use]
    pub fn byte(self, offset: usize) -> &'a AtomicU8 {
        // SAFETY: as in `word`.
        unsafe { AtomicU8::from_ptr(self.at(offset, 1)) }
    }

    /// Copies the bytes from `offset` on into `to`.
    ///
    /// # Panics
    /// If they are not all inside.
    #[inline]
    pub fn copy_out(self, offset: usize, to: &mut [u8]) {
        let from = self.at(offset, to.len());
        // SAFETY: `at` checked the shared side, `to` is exclusively ours; the two cannot
        // overlap as no reference to shared bytes exists.
        unsafe { copy(from, to.as_mut_ptr(), to.len()) };
    }

    /// Copies `from` to the bytes from `offset` on.
    ///
    /// # Panics
    /// If they do not all fit.
    #[inline]
    pub fn copy_in(self, offset: usize, from: &[u8]) {
        let to = self.at(offset, from.len());
        // SAFETY: as in `copy_out`, the other way round.
        unsafe { copy(from.as_ptr(), to, from.len()) };
    }

    /// Copies `len` bytes from `offset` on to `to_offset` of other shared memory.
    ///
    /// # Panics
    /// If they are not all inside, on either side.
    #[inline]
    pub fn copy_to(self, offset: usize, to: Region<'_>, to_offset: usize, len: usize) {
        let (from, to) = (self.at(offset, len), to.at(to_offset, len));
        // SAFETY: `at` checked both. Should the two ranges overlap, which is a mistake of the
        // caller's, the bytes of both are some mixture, as whoever shares them may make of them
        // at any moment; no reference to either exists.
        unsafe { copy(from, to, len) };
    }

    /// Writes `byte` over `len` bytes from `offset` on.
    ///
    /// # Panics
    /// If they are not all inside.
    pub fn fill(self, offset: usize, len: usize, byte: u8) {
        let to = self.at(offset, len);
        // SAFETY: `at` checked the range; the direction flag is clear by the calling convention.
        unsafe {
            asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") byte,
                 options(nostack, preserves_flags));
        }
    }

    fn at(self, offset: usize, len: usize) -> *mut u8 {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(inside, "{len} bytes at {offset} are outside {} shared bytes", self.len);
        // SAFETY: inside the one mapped object.
        unsafe { self.base.add(offset) }
    }
}

/// From here on the CPU's own block move is as fast as any loop.
const BLOCK: usize = 512;

/// Moves bytes, one side of which a peer may write meanwhile. A short remainder is moved by
/// a step that overlaps the one before.
///
/// # Safety
/// `len` bytes are readable at `from` and writable at `to`, and do not overlap.
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    match len {
        // SAFETY: inside the caller's ranges.
        0..4 => (0..len).for_each(|at| unsafe { step1(from, to, at) }),
        // SAFETY: both steps are inside, as `len >= 4`.
        4..8 => [0, len - 4].into_iter().for_each(|at| unsafe { step4(from, to, at) }),
        // SAFETY: both steps are inside, as `len >= 8`.
        8..16 => [0, len - 8].into_iter().for_each(|at| unsafe { step8(from, to, at) }),
        16..BLOCK => {
            let mut at = 0;
            while at + 16 < len {
                // SAFETY: at + 16 is inside.
                unsafe { step16(from, to, at) };
                at += 16;
            }
            // SAFETY: the last 16 bytes, as `len >= 16`.
            unsafe { step16(from, to, len - 16) };
        }
        _ => {
            // SAFETY: whole words inside; the direction flag is clear by convention.
            unsafe {
                asm!("rep movsq", inout("rcx") len / 8 => _, inout("rsi") from => _,
                     inout("rdi") to => _, options(nostack, preserves_flags));
            }
            // SAFETY: the last 8 bytes, as `len >= 8`.
            unsafe { step8(from, to, len - 8) };
        }
    }
}

/// # Safety
/// 16 bytes are readable at `from + at` and writable at `to + at`.
#[inline(always)]
unsafe fn step16(from: *const u8, to: *mut u8, at: usize) {
    // SAFETY: the caller's; neither address needs alignment.
    unsafe {
        asm!("movups {t}, [{from} + {at}]", "movups [{to} + {at}], {t}", t = out(xmm_reg) _, from = in(reg) from,
             to = in(reg) to, at = in(reg) at, options(nostack, preserves_flags));
    }
}

/// # Safety
/// 8 bytes are readable at `from + at` and writable at `to + at`.
#[inline(always)]
unsafe fn step8(from: *const u8, to: *mut u8, at: usize) {
    // SAFETY: the caller's.
    unsafe {
        asm!("mov {t}, [{from} + {at}]", "mov [{to} + {at}], {t}", t = out(reg) _, from = in(reg) from,
             to = in(reg) to, at = in(reg) at, options(nostack, preserves_flags));
    }
}

/// # Safety
/// 4 bytes are readable at `from + at` and writable at `to + at`.
#[inline(always)]
unsafe fn step4(from: *const u8, to: *mut u8, at: usize) {
    // SAFETY: the caller's.
    unsafe {
        asm!("mov {t:e}, [{from} + {at}]", "mov [{to} + {at}], {t:e}", t = out(reg) _, from = in(reg) from,
             to = in(reg) to, at = in(reg) at, options(nostack, preserves_flags));
    }
}

/// # Safety
/// A byte is readable at `from + at` and writable at `to + at`.
#[inline(always)]
unsafe fn step1(from: *const u8, to: *mut u8, at: usize) {
    // SAFETY: the caller's.
    unsafe {
        asm!("mov {t}, [{from} + {at}]", "mov [{to} + {at}], {t}", t = out(reg_byte) _, from = in(reg) from,
             to = in(reg) to, at = in(reg) at, options(nostack, preserves_flags));
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::Ordering;

    use super::*;
    use crate::page::{OwnPages, PAGE_SIZE};

    #[test]
    fn copies_of_every_length_and_place_move_exactly_their_bytes() {
        let page = OwnPages::zeroed(1).unwrap();
        let region = Region::of(&page);
        let pattern: Vec<u8> = (0..1100u32).map(|i| (i * 31 % 251) as u8).collect();
        for len in (0..70).chain([127, 128, 511, 512, 513, 1000, 1024, 1031]) {
            for offset in [0, 1, 7, 9, 1000, PAGE_SIZE - len - 1, PAGE_SIZE - len] {
                region.fill(0, PAGE_SIZE, 0xee);
                region.copy_in(offset, &pattern[..len]);
                let mut all = vec![0; PAGE_SIZE];
                region.copy_out(0, &mut all);
                assert_eq!(&all[offset..offset + len], &pattern[..len], "{len} at {offset}");
                assert!(
                    all[..offset].iter().chain(&all[offset + len..]).all(|&byte| byte == 0xee),
                    "a copy of {len} bytes to {offset} wrote beside its place"
                );
                let mut back = vec![0; len + 2];
                region.copy_out(offset, &mut back[1..=len]);
                assert_eq!(back[1..=len], pattern[..len]);
                assert_eq!((back[0], back[len + 1]), (0, 0), "wrote beside the private side");
            }
        }
    }

    #[test]
    fn bytes_go_from_one_shared_memory_to_another() {
        let (from, to) = (OwnPages::zeroed(1).unwrap(), OwnPages::zeroed(1).unwrap());
        Region::of(&from).copy_in(100, b"from one to the other");
        Region::of(&from).copy_to(105, Region::of(&to), PAGE_SIZE - 16, 16);
        let mut all = [0; PAGE_SIZE];
        Region::of(&to).copy_out(0, &mut all);
        assert_eq!(&all[PAGE_SIZE - 16..], b"one to the other");
        assert!(all[..PAGE_SIZE - 16].iter().all(|&byte| byte == 0), "wrote beside its place");
    }

    #[test]
    fn words_are_where_their_offset_says() {
        let page = OwnPages::zeroed(1).unwrap();
        let region = Region::of(&page);
        region.word(2052).store(0x0403_0201, Ordering::Relaxed);
        assert_eq!(region.byte(2054).load(Ordering::Relaxed), 3);
        assert_eq!(region.half_word(2052).load(Ordering::Relaxed), 0x0201);
    }

    #[test]
    #[should_panic = "outside 4096 shared bytes"]
    fn a_range_beyond_the_page_is_our_mistake() {
        let page = OwnPages::zeroed(1).unwrap();
        Region::of(&page).copy_in(4090, &[0; 7]);
    }
}
