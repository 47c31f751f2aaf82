//! `/dev/xen/gntalloc`: pages of our own that another domain may map
//! (linux/include/uapi/xen/gntalloc.h).

use core::ffi::c_void;
use core::num::NonZeroUsize;
use core::ptr::NonNull;
use std::fs::File;
use std::io;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::{open, uninterrupted};
use crate::ids::{DomId, GrantRef};
use crate::page::{PAGE_SIZE, Shared};

/// The device's path.
pub const GNTALLOC: &str = "/dev/xen/gntalloc";

mod call {
    use nix::{ioc, ioctl_readwrite_bad, sys::ioctl::NONE};

    /// `struct ioctl_gntalloc_alloc_gref`, which is as long as it has references, in words: the
    /// domain, flags and the count; the index, which the kernel fills in; then two references in
    /// each word, which it fills in too.
    pub(super) type Word = u64;

    /// `GNTALLOC_FLAG_WRITABLE`, where the flags are.
    pub(super) const WRITABLE: Word = 1 << 16;

    // The number is made with the size of a structure that has one reference.
    pub(super) const ALLOC_GREF: u64 = ioc!(NONE, b'G', 5, size_of::<[Word; 3]>());

    ioctl_readwrite_bad!(alloc_gref, ALLOC_GREF, Word);
}

/// Pages of zeros that another domain may read and write, one reference each; taken back when
/// dropped. A page that it still maps then stays until it lets go.
#[derive(Debug)]
pub struct Granted {
    base: NonNull<u8>,
    bytes: NonZeroUsize,
    references: Vec<GrantRef>,
    /// The grants end when it is closed.
    _device: File,
}

impl Granted {
    /// Lets `domain` use so many pages.
    ///
    /// # Errors
    /// Of opening the device, or the kernel's: `ENOSPC` past the limit of its module, which is
    /// 1,024 pages if nobody changed it.
    pub fn grant(domain: DomId, pages: u32) -> io::Result<Self> {
        let device = open(GNTALLOC, 0)?;
        let count = pages as usize;
        let mut words: Vec<call::Word> = vec![0; 2 + count.div_ceil(2)];
        words[0] = u64::from(domain.raw()) | call::WRITABLE | u64::from(pages) << 32;
        uninterrupted(&device, |fd| {
            // SAFETY: the call reads and writes a structure of two words and `count` references of
            // half a word, which are there.
            unsafe { call::alloc_gref(fd, words.as_mut_ptr()) }
        })?;
        let halves = words[2..].iter().flat_map(|word| [word & 0xffff_ffff, word >> 32]);
        let references = halves.take(count).map(|half| u32::try_from(half).map(GrantRef));
        let references = references.collect::<Result<_, _>>();
        let references = references.map_err(|_| io::ErrorKind::InvalidData)?;
        let offset = i64::try_from(words[1]).map_err(|_| io::ErrorKind::InvalidData)?;
        let bytes = NonZeroUsize::new(count * PAGE_SIZE).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a mapping at addresses that the kernel chooses touches nothing.
        let base = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, &device, offset)? };
        Ok(Self { base: base.cast(), bytes, references, _device: device })
    }

    /// The references to tell the other domain, in the pages' order.
    #[must_use]
    pub fn references(&self) -> &[GrantRef] {
        &self.references
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        let base: NonNull<c_void> = self.base.cast();
        // SAFETY: our own addresses, to which nobody has a reference: those that borrow them by
        // `Shared` are gone.
        let unmapped = unsafe { munmap(base, self.bytes.get()) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?} for addresses of our own");
    }
}

// SAFETY: the pages stay mapped, readable and writable, at `base`, which is a page's address, until
// `self` is dropped; no reference to their bytes exists.
unsafe impl Shared for Granted {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.bytes.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_has_the_number_of_the_header() {
        assert_eq!(call::ALLOC_GREF, 0x18_4705, "IOCTL_GNTALLOC_ALLOC_GREF");
    }
}
