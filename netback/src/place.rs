//! Where bytes of frames are, and who moves them.

use xen_sys::grant::Status;
use xen_sys::grant::copy::Foreign;
use xen_sys::ids::{DomId, GrantRef};
use xen_sys::page::PAGE_SIZE;

#[expect(clippy::cast_possible_truncation, reason = "4096")]
pub(crate) const PAGE: u32 = PAGE_SIZE as u32;

/// Where bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a page that another domain grants.
    Foreign(Foreign),
    /// In our own pages, that many bytes from the start of the first.
    Own(u32),
}

impl Place {
    /// In the page that a domain grants by a reference; or, without a domain, in that page of ours.
    #[must_use]
    pub fn in_page(domain: Option<DomId>, reference: u32, offset: u16) -> Self {
        match domain {
            Some(domain) => {
                Self::Foreign(Foreign { domain, reference: GrantRef(reference), offset })
            }
            None => {
                let page = reference.saturating_mul(PAGE);
                Self::Own(page.saturating_add(offset.into()))
            }
        }
    }
}

/// Bytes to be copied from one place to another. Neither side goes beyond its page.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    /// Where they are.
    pub from: Place,
    /// Where they are to be.
    pub to: Place,
    /// How many.
    pub len: u16,
    /// How it went; what it is before is of no matter.
    pub made: Result<(), Status>,
}

/// Xen's hand, and our own pages that it reaches into.
pub trait Copier {
    /// Has copies made, in their order, and notes of each how it went.
    fn copy(&mut self, copies: &mut [Copy]);

    /// Reads our own pages, from `at` on.
    fn read(&self, at: u32, bytes: &mut [u8]);

    /// Writes to them.
    fn write(&mut self, at: u32, bytes: &[u8]);
}
