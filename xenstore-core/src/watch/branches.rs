//! What is below a point of the trie.

use alloc::boxed::Box;

use super::trie::{Points, Spot};
use crate::children::{Children, Tails};
use crate::path::{Key, Name};

/// The spots below a point, by name.
///
/// Where a frontend watches its backend's state, each device has a point with one spot below; in a
/// directory of its own that would take half as much memory again as the watch.
#[derive(Debug, Default)]
pub(super) enum Branches {
    #[default]
    None,
    One(Key, Spot),
    /// More than one, or one of those that are left.
    Many(Box<Children<Spot>>),
}

impl Branches {
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Many(children) => children.len(),
        }
    }

    /// Returns the spot at that place in name order, and its key.
    pub(super) fn nth(&self, place: usize) -> Option<(Key, Spot)> {
        match self {
            Self::One(key, spot) if place == 0 => Some((*key, *spot)),
            Self::None | Self::One(..) => None,
            Self::Many(children) => children.nth(place).map(|(key, spot)| (key, *spot)),
        }
    }

    #[inline]
    pub(super) fn find(&self, name: Name<'_>, points: &Points) -> Option<Spot> {
        match self {
            Self::None => None,
            Self::One(key, spot) => is(name, *key, *spot, points).then_some(*spot),
            Self::Many(children) => children.find(name, points).copied(),
        }
    }

    /// Adds a spot under a name that there is not yet.
    pub(super) fn insert(&mut self, name: Name<'_>, spot: Spot, points: &Points) {
        match self {
            Self::None => *self = Self::One(name.key, spot),
            Self::One(key, first) => {
                let (key, first) = (*key, *first);
                let tail = points.tail(&first);
                let mut children = Box::new(Children::new(Name { key, tail }, first));
                children.insert(name, spot, points);
                *self = Self::Many(children);
            }
            Self::Many(children) => children.insert(name, spot, points),
        }
    }

    /// Puts a spot in the place of the one of that name.
    pub(super) fn replace(&mut self, name: Name<'_>, spot: Spot, points: &Points) {
        match self {
            Self::None => {}
            Self::One(key, present) => {
                if is(name, *key, *present, points) {
                    *present = spot;
                }
            }
            Self::Many(children) => {
                if let Some(present) = children.find_mut(name, points) {
                    *present = spot;
                }
            }
        }
    }

    /// Takes out the spot of that name.
    pub(super) fn remove(&mut self, name: Name<'_>, points: &Points) {
        match self {
            Self::None => {}
            Self::One(key, spot) => {
                if is(name, *key, *spot, points) {
                    *self = Self::None;
                }
            }
            Self::Many(children) => {
                children.remove(name, points);
                if children.len() == 0 {
                    *self = Self::None;
                }
            }
        }
    }
}

fn is(name: Name<'_>, key: Key, spot: Spot, points: &Points) -> bool {
    key == name.key && points.tail(&spot) == name.tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_small() {
        assert!(size_of::<Branches>() <= 16, "{} bytes", size_of::<Branches>());
    }
}
