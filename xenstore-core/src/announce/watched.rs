//! Going through the nodes of a removed subtree at which somebody watches.

use alloc::rc::Rc;
use alloc::vec::Vec;

use crate::path::{Name, Path};
use crate::tree::{Node, Step};
use crate::watch::{Spot, Watches};

/// Goes through nodes that are watched or lead to such, in name order, each before and after those
/// below it.
///
/// Of a node's children and those that the watches have there, it goes through the fewer: neither
/// very many nodes nor very many watches cost much where there are few of the others.
pub(super) struct Watched<'t> {
    path: Vec<u8>,
    /// The nodes from the top to the present one.
    open: Vec<Open<'t>>,
    /// Where the path ends once the node that was just left is forgotten.
    cut: Option<usize>,
}

struct Open<'t> {
    node: &'t Rc<Node>,
    spot: Spot,
    /// The place of what comes next among the fewer.
    place: usize,
    /// The length of the parent's path.
    above: usize,
}

/// Where a [`Watched`] is.
pub(super) struct Visit<'a, 't> {
    pub(super) step: Step,
    pub(super) path: &'a [u8],
    pub(super) node: &'t Rc<Node>,
    pub(super) parent: &'t Rc<Node>,
    pub(super) spot: Spot,
}

impl<'t> Watched<'t> {
    /// Begins below a node of that path, at which the watches have that spot.
    pub(super) fn new(path: Path<'_>, top: &'t Rc<Node>, spot: Spot) -> Self {
        let open = Vec::from([Open { node: top, spot, place: 0, above: 0 }]);
        Self { path: path.as_bytes().to_vec(), open, cut: None }
    }

    /// Leaves the top unsaid.
    pub(super) fn next(&mut self, watches: &Watches) -> Option<Visit<'_, 't>> {
        if let Some(end) = self.cut.take() {
            self.path.truncate(end);
        }
        let directory = self.open.last_mut()?;
        let parent = directory.node;
        let above = self.path.len();
        if let Some((node, spot)) = directory.next(watches, &mut self.path) {
            self.open.push(Open { node, spot, place: 0, above });
            return Some(Visit { step: Step::Enter, path: &self.path, node, parent, spot });
        }
        let Open { node, spot, above, .. } = self.open.pop()?;
        self.cut = Some(above);
        let parent = self.open.last()?.node;
        Some(Visit { step: Step::Leave, path: &self.path, node, parent, spot })
    }
}

impl<'t> Open<'t> {
    /// Returns the next child that both have, and adds its name to the path.
    fn next(&mut self, watches: &Watches, path: &mut Vec<u8>) -> Option<(&'t Rc<Node>, Spot)> {
        let by_watches = watches.children_len(self.spot) < self.node.children_len();
        loop {
            let (name, found) = if by_watches {
                let (name, spot) = watches.nth_child(self.spot, self.place)?;
                (name, self.node.child(name).map(|node| (node, spot)))
            } else {
                let (key, node) = self.node.nth_child(self.place)?;
                let name = Name { key, tail: node.tail() };
                (name, watches.below(self.spot, name).map(|spot| (node, spot)))
            };
            self.place += 1;
            if found.is_some() {
                path.push(b'/');
                name.key.extend(path);
                path.extend_from_slice(name.tail);
                return found;
            }
        }
    }
}
