//! Copies that Xen makes for the switch: between guests, and between guests and pages of ours.

use netback::place::{Copier, Copy, Place};
use stubdom::activity::Copying;
use xen_sys::grant::Status;
use xen_sys::grant::copy::{AddError, Batch, Ticket};
use xen_sys::page::{OwnPages, PAGE_SIZE, Shared};
use xen_sys::ring::shared::Region;

use super::slabs::{Slab, Slabs};

/// Copies of one call of Xen's.
const CALL: usize = 64;

/// Xen's hand, and the pages that it reaches into: the switch's, and behind them those of ports of
/// our own.
pub(super) struct Hand {
    pages: OwnPages,
    pub(super) slabs: Slabs,
    pub(super) done: Copying,
}

impl Copier for Hand {
    fn copy(&mut self, copies: &mut [Copy]) {
        for copies in copies.chunks_mut(CALL) {
            self.done.calls += 1;
            self.done.copies += copies.len() as u64;
            let mut batch = Batch::<{ 2 * CALL }>::new();
            let mut tickets = heapless::Vec::<Result<Ticket, AddError>, CALL>::new();
            for copy in &*copies {
                let _ = tickets.push(self.add(&mut batch, copy));
            }
            let ran = batch.run();
            for (copy, ticket) in copies.iter_mut().zip(&tickets) {
                copy.made = match (ran, ticket) {
                    (Ok(()), &Ok(ticket)) => batch.status(ticket),
                    (Ok(()), Err(_)) => Err(Status::BadCopyArgument),
                    (Err(_), _) => Err(Status::GeneralError),
                };
            }
        }
    }

    fn read(&self, at: u32, bytes: &mut [u8]) {
        Region::of(&self.pages).copy_out(at as usize, bytes);
    }

    fn write(&mut self, at: u32, bytes: &[u8]) {
        Region::of(&self.pages).copy_in(at as usize, bytes);
    }
}

impl Hand {
    /// One that reaches into the switch's pages.
    pub(super) fn new(pages: OwnPages) -> Self {
        Self { pages, slabs: Slabs::default(), done: Copying::default() }
    }

    fn add<'a>(
        &'a self,
        batch: &mut Batch<'a, { 2 * CALL }>,
        copy: &Copy,
    ) -> Result<Ticket, AddError> {
        let Copy { from, to, len, .. } = *copy;
        match (from, to) {
            (Place::Foreign(from), Place::Foreign(to)) => batch.relay(from, to, len),
            (Place::Foreign(from), Place::Own(at)) => match self.find(at, len)? {
                (Memory::Switch, at) => batch.fetch(from, &self.pages, at, len),
                (Memory::Slab(Slab::Own(pages)), at) => {
                    batch.fetch(from, &pages[at / PAGE_SIZE], at % PAGE_SIZE, len)
                }
                (Memory::Slab(Slab::Lent(pages)), at) => batch.fetch(from, &**pages, at, len),
            },
            (Place::Own(at), Place::Foreign(to)) => match self.find(at, len)? {
                (Memory::Switch, at) => batch.store(&self.pages, at, to, len),
                (Memory::Slab(Slab::Own(pages)), at) => {
                    batch.store(&pages[at / PAGE_SIZE], at % PAGE_SIZE, to, len)
                }
                (Memory::Slab(Slab::Lent(pages)), at) => batch.store(&**pages, at, to, len),
            },
            (Place::Own(from), Place::Own(to)) => {
                let ((from, from_at), (to, to_at)) =
                    (self.region(from, len)?, self.region(to, len)?);
                from.copy_to(from_at, to, to_at, len.into());
                batch.nothing()
            }
        }
    }

    /// Where a place of ours is, unless there is none, or it goes beyond its page.
    fn find(&self, at: u32, len: u16) -> Result<(Memory<'_>, usize), AddError> {
        let at = at as usize;
        let end = at + usize::from(len);
        if end <= self.pages.len() {
            return Ok((Memory::Switch, at));
        }
        let beyond = at.checked_sub(self.pages.len()).ok_or(AddError::OutsidePage)?;
        let is_inside = at % PAGE_SIZE + usize::from(len) <= PAGE_SIZE;
        let found = self.slabs.find(beyond / PAGE_SIZE).filter(|_| is_inside);
        let (slab, page) = found.ok_or(AddError::OutsidePage)?;
        let count = match slab {
            Slab::Own(pages) => pages.len(),
            Slab::Lent(pages) => pages.len() / PAGE_SIZE,
        };
        if page < count {
            Ok((Memory::Slab(slab), page * PAGE_SIZE + at % PAGE_SIZE))
        } else {
            Err(AddError::OutsidePage)
        }
    }

    /// The same, to be looked into.
    fn region(&self, at: u32, len: u16) -> Result<(Region<'_>, usize), AddError> {
        Ok(match self.find(at, len)? {
            (Memory::Switch, at) => (Region::of(&self.pages), at),
            (Memory::Slab(Slab::Own(pages)), at) => {
                (Region::of(&pages[at / PAGE_SIZE]), at % PAGE_SIZE)
            }
            (Memory::Slab(Slab::Lent(pages)), at) => (Region::of(&**pages), at),
        })
    }
}

/// Memory of ours.
enum Memory<'a> {
    /// The switch's own.
    Switch,
    /// Of a port.
    Slab(&'a Slab),
}
