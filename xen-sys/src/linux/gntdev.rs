//! `/dev/xen/gntdev`: pages that another domain granted (linux/include/uapi/xen/gntdev.h).

use core::ffi::c_void;
use core::num::NonZeroUsize;
use core::ptr::NonNull;
use std::fs::File;
use std::io;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::{open, uninterrupted};
use crate::ids::{DomId, GrantRef, Port};
use crate::page::{PAGE_SIZE, Shared};

/// The device's path.
pub const GNTDEV: &str = "/dev/xen/gntdev";

mod call {
    use nix::{ioc, ioctl_readwrite_bad, ioctl_write_ptr_bad, sys::ioctl::NONE};

    /// Two words of `struct ioctl_gntdev_map_grant_ref`, which is as long as it has grants: the
    /// count and padding; the index, low word first, which the kernel fills in; then a domain id
    /// and a reference for each grant.
    pub(super) type Words = [u32; 2];

    /// `struct ioctl_gntdev_unmap_notify`.
    #[repr(C)]
    pub(super) struct UnmapNotify {
        pub(super) index: u64,
        pub(super) action: u32,
        pub(super) event_channel_port: u32,
    }

    /// `UNMAP_NOTIFY_CLEAR_BYTE | UNMAP_NOTIFY_SEND_EVENT`.
    pub(super) const CLEAR_BYTE_AND_SEND_EVENT: u32 = 1 | 2;

    // The number is made with the size of a structure that has one grant.
    pub(super) const MAP_GRANT_REF: u64 = ioc!(NONE, b'G', 0, size_of::<[Words; 3]>());
    pub(super) const SET_UNMAP_NOTIFY: u64 = ioc!(NONE, b'G', 7, size_of::<UnmapNotify>());

    ioctl_readwrite_bad!(map_grant_ref, MAP_GRANT_REF, Words);
    ioctl_write_ptr_bad!(set_unmap_notify, SET_UNMAP_NOTIFY, UnmapNotify);
}

/// What may be done with mapped pages. It must be what the granter allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Reading alone.
    Read,
    /// Reading and writing.
    Write,
}

/// Adjacent addresses into which pages of another domain are mapped, from the first one on and as
/// many as are known so far; goes back as a whole when dropped.
#[derive(Debug)]
pub struct Mapping {
    device: File,
    base: NonNull<u8>,
    /// Bytes, whole pages, at `base`, that nobody else maps anything into.
    reserved: usize,
    /// How many of them, from the first on, are pages of the other domain.
    mapped: usize,
    /// How many of those, from the first on, may be written.
    writable: usize,
    /// Where the first page is in the device's own numbering.
    first_index: u64,
}

impl Mapping {
    /// Sets addresses for as many as `pages` pages aside.
    ///
    /// # Errors
    /// Of opening the device, [`io::ErrorKind::NotFound`] or [`io::ErrorKind::PermissionDenied`]
    /// among them, or no room.
    pub fn reserve(pages: usize) -> io::Result<Self> {
        let device = open(GNTDEV, 0)?;
        let bytes = pages.checked_mul(PAGE_SIZE).and_then(NonZeroUsize::new);
        let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at addresses that the kernel chooses touches nothing.
        let base = unsafe { mmap_anonymous(None, bytes, ProtFlags::PROT_NONE, flags)? }.cast();
        let reserved = bytes.get();
        Ok(Self { device, base, reserved, mapped: 0, writable: 0, first_index: 0 })
    }

    /// Maps pages that `domain` granted to this one behind those that are mapped already.
    ///
    /// # Errors
    /// `EINVAL` if one of them is not granted so, or is granted for reading alone and asked for
    /// writing; [`io::ErrorKind::InvalidInput`] if they are more than was reserved, or are to be
    /// written behind some that are not. Nothing is mapped then.
    pub fn extend(
        &mut self,
        domain: DomId,
        grants: &[GrantRef],
        protection: Protection,
    ) -> io::Result<()> {
        let Some(bytes) = NonZeroUsize::new(grants.len() * PAGE_SIZE) else { return Ok(()) };
        let too_long = bytes.get() > self.reserved - self.mapped;
        if too_long || protection == Protection::Write && self.writable < self.mapped {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let index = self.announce(domain, grants)?;
        let access = match protection {
            Protection::Read => ProtFlags::PROT_READ,
            Protection::Write => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        let address = NonZeroUsize::new(self.base.as_ptr() as usize + self.mapped);
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
        let offset = i64::try_from(index).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: the addresses lie inside our reservation, where nothing is mapped so far, and no
        // reference to them exists.
        let mapped = unsafe { mmap(address, bytes, access, flags, &self.device, offset) };
        if let Err(error) = mapped {
            self.reserve_again(address, bytes)?;
            return Err(error.into());
        }
        if self.mapped == 0 {
            self.first_index = index;
        }
        self.mapped += bytes.get();
        if protection == Protection::Write {
            self.writable = self.mapped;
        }
        Ok(())
    }

    /// Lets the kernel clear the byte at `offset` of the first page and send an event by `port`,
    /// one of ours, when that page is unmapped, be it because the program was killed.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if that page is not there, has no such byte, or may not be
    /// written; or the kernel's.
    pub fn notify_on_unmap(&mut self, offset: usize, port: Port) -> io::Result<()> {
        if offset >= self.writable.min(PAGE_SIZE) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let wanted = call::UnmapNotify {
            index: self.first_index + offset as u64,
            action: call::CLEAR_BYTE_AND_SEND_EVENT,
            event_channel_port: port.0,
        };
        uninterrupted(&self.device, |fd| {
            // SAFETY: the call reads the structure. The byte that is cleared later is one of
            // shared pages, which change under us anyway.
            unsafe { call::set_unmap_notify(fd, &raw const wanted) }
        })?;
        Ok(())
    }

    /// Tells the device of grants to be mapped; returns where it will map them.
    fn announce(&self, domain: DomId, grants: &[GrantRef]) -> io::Result<u64> {
        let count = u32::try_from(grants.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut words: Vec<call::Words> = Vec::with_capacity(grants.len() + 2);
        words.extend([[count, 0], [0, 0]]);
        words.extend(grants.iter().map(|grant| [domain.raw().into(), grant.0]));
        uninterrupted(&self.device, |fd| {
            // SAFETY: the call reads a structure of two pairs of words and `count` more, which are
            // there, and writes into the second pair.
            unsafe { call::map_grant_ref(fd, words.as_mut_ptr()) }
        })?;
        let [low, high] = words[1];
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    /// After a mapping that failed, which may have left a hole in our addresses.
    fn reserve_again(&self, address: Option<NonZeroUsize>, bytes: NonZeroUsize) -> io::Result<()> {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED;
        // SAFETY: the addresses lie inside our reservation, behind what is mapped; nobody refers
        // to them.
        unsafe { mmap_anonymous(address, bytes, ProtFlags::PROT_NONE, flags)? };
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let base: NonNull<c_void> = self.base.cast();
        // SAFETY: our own addresses, to which nobody has a reference: those that borrow them by
        // `Shared` are gone.
        let unmapped = unsafe { munmap(base, self.reserved) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?} for addresses of our own");
    }
}

// SAFETY: the pages stay mapped at `base`, which is a page's address, until `self` is dropped; no
// reference to their bytes exists. Of what is behind `writable` bytes, writing is a fault that ends
// the program and touches nothing.
unsafe impl Shared for Mapping {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.mapped
    }
}

// SAFETY: an address; what it leads to is only touched by atomics and by copies that tolerate other
// writers.
unsafe impl Send for Mapping {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_the_numbers_of_the_header() {
        assert_eq!(call::MAP_GRANT_REF, 0x18_4700, "IOCTL_GNTDEV_MAP_GRANT_REF");
        assert_eq!(call::SET_UNMAP_NOTIFY, 0x10_4707, "IOCTL_GNTDEV_SET_UNMAP_NOTIFY");
    }
}
