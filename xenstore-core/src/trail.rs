//! Trails: where the nodes of a path were found, so that they need not be searched for again.

use alloc::vec::Vec;
use core::cell::Cell;

use crate::children::Spot;
use crate::host::DomId;
use crate::path::{Key, Names, Path, extend_home};

/// How many levels a trail remembers; what is deeper is searched for.
const LEVELS: usize = 10;

/// The way that a search took from the root; good for the tree as it was, and no other.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    spots: [Spot; LEVELS],
    len: usize,
}

/// Who is told of the way that a search takes.
pub(crate) trait Track {
    /// Goes back to the root.
    fn restart(&mut self);

    /// Goes one level down.
    fn push(&mut self, spot: Spot);
}

/// Nobody.
impl Track for () {
    fn restart(&mut self) {}

    fn push(&mut self, _: Spot) {}
}

impl Track for Trail {
    fn restart(&mut self) {
        self.len = 0;
    }

    #[inline]
    fn push(&mut self, spot: Spot) {
        if let Some(place) = self.spots.get_mut(self.len) {
            *place = spot;
        }
        self.len += 1;
    }
}

impl Trail {
    /// Returns how many names of the path led to nodes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the places of the first `levels` nodes below the root; `None` if one of them is not
    /// remembered.
    pub(crate) fn spots(&self, levels: usize) -> Option<&[Spot]> {
        self.spots.get(..levels).filter(|spots| !spots.contains(&Spot::LOST))
    }
}

/// A domain's home, `/local/domain/N`, and where it was found last.
#[derive(Debug)]
pub(crate) struct Home {
    /// The path with a slash at its end, as relative paths begin.
    text: heapless::Vec<u8, 20, u8>,
    /// The key of the domain's number.
    number: Key,
    /// Hints, to be verified: the tree changes, and transactions have their own.
    spots: [Cell<Spot>; Self::LEVELS],
}

impl Home {
    /// How many names a home's path has.
    pub(crate) const LEVELS: usize = 3;

    pub(crate) fn new(domain: DomId) -> Self {
        let mut path = Vec::new();
        extend_home(&mut path, domain);
        let number = Path::trusted(&path).last().map_or(Key::NONE, |name| name.key);
        path.push(b'/');
        let text = heapless::Vec::from_slice(&path).unwrap_or_default();
        Self { text, number, spots: <[Cell<Spot>; Self::LEVELS]>::default() }
    }

    /// Returns where relative paths begin, with a slash at the end.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Returns the names of a path that follow the home's, if it leads there.
    pub(crate) fn names_below<'p>(&self, path: Path<'p>) -> Option<Names<'p>> {
        path.names_below(&self.text)
    }

    /// Returns the names of its path.
    pub(crate) fn names(&self) -> Names<'_> {
        let path = &self.text[..self.text.len() - 1];
        Path::trusted(path).names()
    }

    /// Returns the names of its path, each with where it was found last.
    pub(crate) fn hints(&self) -> [(Key, &Cell<Spot>); Self::LEVELS] {
        let [local, domain, number] = &self.spots;
        [(Key::LOCAL, local), (Key::DOMAIN, domain), (self.number, number)]
    }
}
