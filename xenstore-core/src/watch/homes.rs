//! Where the trie has the homes of domains, by number: most of what is changed or watched is in
//! one, and the way there must not grow with the number of domains.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::trie::{PointId, Spot};
use crate::host::DomId;
use crate::path::{Key, Name};

/// How many homes one page of the table holds.
const PAGE: usize = 256;

/// The points on the way to all homes, and what stands at each home.
#[derive(Debug, Default)]
pub(super) struct Homes {
    /// The point of `/local`.
    pub(super) local: Option<PointId>,
    /// The point of `/local/domain`.
    pub(super) domain: Option<PointId>,
    pages: Vec<Option<Box<Page>>>,
}

#[derive(Debug)]
struct Page {
    used: usize,
    spots: [Option<Spot>; PAGE],
}

impl Homes {
    /// Returns what stands at a domain's home.
    pub(super) fn find(&self, domain: DomId) -> Option<Spot> {
        let (page, place) = split(domain);
        self.pages.get(page)?.as_ref()?.spots[place]
    }

    /// Returns how many homes it has.
    pub(super) fn len(&self) -> usize {
        self.pages.iter().flatten().map(|page| page.used).sum()
    }

    /// Notes a point that was made below another.
    pub(super) fn note_point(&mut self, root: PointId, at: PointId, key: Key, new: PointId) {
        if at == root && key == Key::LOCAL {
            self.local = Some(new);
        } else if Some(at) == self.local && key == Key::DOMAIN {
            self.domain = Some(new);
        }
    }

    /// Forgets a point that is removed.
    pub(super) fn forget_point(&mut self, point: PointId) {
        for known in [&mut self.local, &mut self.domain] {
            if *known == Some(point) {
                *known = None;
            }
        }
    }

    /// Notes what stands at a name below a point, if that is a home.
    pub(super) fn set(&mut self, at: PointId, name: Name<'_>, spot: Option<Spot>) {
        if Some(at) != self.domain {
            return;
        }
        let Some(domain) = name.domain() else { return };
        let (page, place) = split(domain);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let table = &mut self.pages[page];
        let home = table.get_or_insert_with(|| Box::new(Page { used: 0, spots: [None; PAGE] }));
        let before = core::mem::replace(&mut home.spots[place], spot);
        home.used = home.used + usize::from(spot.is_some()) - usize::from(before.is_some());
        if home.used == 0 {
            *table = None;
        }
    }
}

fn split(domain: DomId) -> (usize, usize) {
    (usize::from(domain.0) / PAGE, usize::from(domain.0) % PAGE)
}
