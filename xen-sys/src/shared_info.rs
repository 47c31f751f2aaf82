//! The page Xen and a domain share: events, time (xen/include/public/xen.h).

use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicI8, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::grant::GfnWindow;
use crate::ids::Errno;
use crate::memory::{self, Space};

/// `struct vcpu_time_info`: system time as of `tsc_timestamp`, and how to go on from there.
#[repr(C)]
pub(crate) struct VcpuTime {
    pub(crate) version: AtomicU32,
    _pad: AtomicU32,
    pub(crate) tsc_timestamp: AtomicU64,
    pub(crate) system_time: AtomicU64,
    pub(crate) tsc_to_system_mul: AtomicU32,
    pub(crate) tsc_shift: AtomicI8,
    _flags: AtomicU8,
    _pad_end: [AtomicU8; 2],
}

/// `struct vcpu_info`.
#[repr(C)]
pub(crate) struct VcpuInfo {
    pub(crate) upcall_pending: AtomicU8,
    /// For PV guests; Xen ignores it here.
    _upcall_mask: AtomicU8,
    _pad: [AtomicU8; 6],
    pub(crate) pending_sel: AtomicU64,
    _arch: [AtomicU64; 2],
    pub(crate) time: VcpuTime,
}

/// `struct shared_info` as a 64-bit domain sees it.
#[repr(C)]
pub(crate) struct Layout {
    vcpu_info: [VcpuInfo; 32],
    pub(crate) evtchn_pending: [AtomicU64; 64],
    pub(crate) evtchn_mask: [AtomicU64; 64],
    pub(crate) wc_version: AtomicU32,
    pub(crate) wc_sec: AtomicU32,
    pub(crate) wc_nsec: AtomicU32,
    pub(crate) wc_sec_hi: AtomicU32,
}

const _: () = assert!(size_of::<VcpuTime>() == 32 && offset_of!(VcpuTime, tsc_shift) == 28);
const _: () = assert!(size_of::<VcpuInfo>() == 64 && offset_of!(VcpuInfo, time) == 32);
const _: () = assert!(offset_of!(VcpuInfo, pending_sel) == 8);
const _: () = assert!(offset_of!(Layout, evtchn_pending) == 2048);
const _: () = assert!(offset_of!(Layout, evtchn_mask) == 2560);
const _: () = assert!(offset_of!(Layout, wc_version) == 3072);
const _: () = assert!(offset_of!(Layout, wc_sec_hi) == 3084);

impl Layout {
    /// The first vCPU's part; this crate runs on no other.
    pub(crate) const fn vcpu(&self) -> &VcpuInfo {
        &self.vcpu_info[0]
    }
}

/// This domain's shared_info, mapped for good.
///
/// Copies are handles to the one page; every field is atomic, and Xen is the only other
/// writer.
#[derive(Clone, Copy)]
pub struct SharedInfo(&'static Layout);

static MAPPED: AtomicBool = AtomicBool::new(false);

/// An error returned by [`SharedInfo::map`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// It is mapped already; mapping it again would move it away from its first place.
    Twice,
    /// The window has no free frame.
    NoFrame,
    /// Xen refused.
    Xen(Errno),
}

impl SharedInfo {
    /// Maps the page at a frame of `window`, once.
    ///
    /// Its wall clock reads zero until [`crate::param::announce_events_at`] or
    /// [`crate::hypercall::select`] with a page made Xen fill it in.
    ///
    /// # Errors
    /// As [`MapError`] lists.
    pub fn map(window: &GfnWindow) -> Result<Self, MapError> {
        if MAPPED.swap(true, Ordering::Relaxed) {
            return Err(MapError::Twice);
        }
        let frame = window.take().ok_or(MapError::NoFrame)?;
        // SAFETY: a frame of the window is a hole, and this one is never given back.
        unsafe { memory::add_to_physmap(Space::SharedInfo, 0, frame) }.map_err(MapError::Xen)?;
        let page = NonNull::<Layout>::new(frame.pointer()).ok_or(MapError::NoFrame)?;
        // SAFETY: a whole page is mapped there for the life of the domain, identity-mapped and
        // page-aligned; every field is atomic and any bits are valid in it.
        Ok(Self(unsafe { page.as_ref() }))
    }

    pub(crate) const fn page(self) -> &'static Layout {
        self.0
    }

    /// A page of zeros without Xen behind it.
    #[cfg(test)]
    pub(crate) fn fake() -> Self {
        let page = Box::leak(crate::page::Page::zeroed().expect("memory"));
        // SAFETY: leaked, larger than a `Layout`, aligned to a page, zeros are valid.
        Self(unsafe { &*core::ptr::from_mut(page).cast::<Layout>() })
    }
}
