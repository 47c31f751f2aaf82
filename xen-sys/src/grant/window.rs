//! The frames at which foreign pages may appear.

use alloc::boxed::Box;
use core::cell::RefCell;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::bitmap::Bitmap;
use crate::ids::{Errno, Gfn};
use crate::memory;

/// A dense run of frames above all RAM this domain has or may get, holes until something is
/// mapped there.
///
/// Dense, because each 2 MiB that hold a mapping cost Xen a page of a pool that a Xenstore
/// domain has only 256 of. The lowest free frame is taken first, so the window's
/// used part stays as small as the mappings allow.
pub struct GfnWindow {
    first: u64,
    free: RefCell<Bitmap>,
}

/// An error returned by [`GfnWindow::claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// It was claimed before; two windows would give a frame out twice.
    Twice,
    /// The domain's memory leaves no gap below 4 GiB.
    NoGap,
    /// Xen refused to tell how much memory there is.
    Xen(Errno),
}

static CLAIMED: AtomicBool = AtomicBool::new(false);

impl GfnWindow {
    /// Finds the window, once and for the life of the domain.
    ///
    /// # Errors
    /// As [`ClaimError`] lists.
    pub fn claim() -> Result<&'static Self, ClaimError> {
        let gap = memory::gap_above_ram(Bitmap::CAPACITY as u64).map_err(ClaimError::Xen)?;
        if gap.is_empty() {
            return Err(ClaimError::NoGap);
        }
        if CLAIMED.swap(true, Ordering::Relaxed) {
            return Err(ClaimError::Twice);
        }
        Ok(Box::leak(Box::new(Self::over(gap))))
    }

    /// A window over `frames`, all of them holes.
    pub(crate) fn over(frames: Range<u64>) -> Self {
        let count = frames.end.saturating_sub(frames.start);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Self { first: frames.start, free: RefCell::new(Bitmap::with_free(0..count)) }
    }

    /// Takes the lowest free frame.
    pub(crate) fn take(&self) -> Option<Gfn> {
        self.free.borrow_mut().take().map(|number| Gfn(self.first + number as u64))
    }

    /// Takes the lowest `count` free frames that follow each other; gives the first.
    pub(crate) fn take_run(&self, count: usize) -> Option<Gfn> {
        self.free.borrow_mut().take_run(count).map(|number| Gfn(self.first + number as u64))
    }

    /// Returns a frame that [`take`](Self::take) gave and that is a hole again.
    pub(crate) fn give_back(&self, frame: Gfn) {
        #[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits here")]
        self.free.borrow_mut().free((frame.0 - self.first) as usize);
    }

    /// How many frames are free. Looks at the whole window: for reports.
    #[must_use]
    pub fn count_free(&self) -> usize {
        self.free.borrow().count_free()
    }
}

impl fmt::Debug for GfnWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GfnWindow({:#x}.., {} free)", self.first, self.count_free())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_one_owner_at_a_time() {
        let window = GfnWindow::over(0xc0000..0xc0002);
        let (first, second) = (window.take().unwrap(), window.take().unwrap());
        assert_eq!((first, second), (Gfn(0xc0000), Gfn(0xc0001)));
        assert_eq!(window.take(), None, "the window is used up");
        window.give_back(first);
        assert_eq!(window.take(), Some(first), "the lowest free frame comes first");
    }
}
