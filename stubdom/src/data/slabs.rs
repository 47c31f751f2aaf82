//! Pages of this domain's own ports, numbered so that the switch's hand finds them.

use alloc::rc::Rc;
use alloc::vec::Vec;

use xen_sys::grant::Granted;
use xen_sys::page::OwnPage;

use super::lines::place;
use super::own::UPLINK;

/// How many pages of one kind the switch's hand knows by adjacent numbers.
pub(super) const SLAB: usize = 2 * UPLINK;

/// Pages that the switch's hand reaches into beside its own.
pub(super) enum Slab {
    /// This domain's alone.
    Own(Vec<OwnPage>),
    /// Granted to a backend, too.
    Lent(Rc<Granted>),
}

/// The slabs; each has its number as long as it is there.
#[derive(Default)]
pub(super) struct Slabs(Vec<Option<Slab>>);

impl Slabs {
    /// The slab in which a page is, by the page's number among all, and its number there.
    pub(super) fn find(&self, page: usize) -> Option<(&Slab, usize)> {
        Some((self.0.get(page / SLAB)?.as_ref()?, page % SLAB))
    }

    pub(super) fn admit(&mut self, slab: Slab) -> usize {
        let free = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        *place(&mut self.0, free) = Some(slab);
        free
    }

    pub(super) fn dismiss(&mut self, number: usize) {
        if let Some(slab) = self.0.get_mut(number) {
            *slab = None;
        }
    }

    /// How a port of ours names a page.
    pub(super) fn reference(slab: usize, page: usize) -> u32 {
        let number = netback::switch::PAGES + slab * SLAB + page;
        u32::try_from(number).expect("less memory than there are numbers")
    }
}
