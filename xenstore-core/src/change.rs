//! Changes: what an operation does to the tree, and what follows for accounts and indexes.

use alloc::rc::Rc;

use crate::path::{Path, Place};
use crate::perms::{Entry, Perms};
use crate::tree::{Node, Special, Step, Walk};

/// What an operation changes, with all that follows from it.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Nothing,
    /// A node got a value; the lengths are those of the value before and after.
    Written {
        perms: Rc<Perms>,
        parent: Option<Rc<Perms>>,
        from: usize,
        to: usize,
    },
    /// A node was made with the last `made` names of its path, which all get the same permissions;
    /// `parent` is the one that was there.
    Created {
        perms: Rc<Perms>,
        parent: Rc<Perms>,
        made: usize,
        value: usize,
    },
    /// A node, as it is before, gets other permissions.
    Permitted {
        node: Rc<Node>,
        perms: Rc<Perms>,
        parent: Option<Rc<Perms>>,
    },
    /// A special node got other permissions.
    Announced {
        special: Special,
        perms: Rc<Perms>,
    },
    /// A node was removed with all below it.
    Removed {
        subtree: Rc<Node>,
        parent: Rc<Perms>,
    },
}

/// Returns what the node-size quota counts.
pub(crate) fn size(entries: usize, body: usize) -> usize {
    16 + 8 * entries + body
}

/// Returns what a node is charged to its owner with: its size, and its path.
pub(crate) fn charge_of(node: &Node, path_len: usize) -> usize {
    size(node.perms.entries().len(), node.value().len() + node.names_len()) + path_len
}

impl Change {
    /// Whether nothing changes.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Tells what the change adds to each owner: nodes, and bytes.
    pub(crate) fn charge(&self, place: Place<'_>, mut to: impl FnMut(Entry, isize, isize)) {
        let Place::Node(path) = place else { return };
        match self {
            Self::Nothing | Self::Announced { .. } => {}
            Self::Written { perms, from, to: len, .. } => {
                if from != len {
                    to(perms.owner(), 0, signed(*len) - signed(*from));
                }
            }
            Self::Created { perms, parent, made, value } => {
                let (mut body, mut here) = (*value, path);
                for _ in 0..*made {
                    let bytes = size(perms.entries().len(), body) + here.as_bytes().len();
                    to(perms.owner(), 1, signed(bytes));
                    body = entry_len(here);
                    here = here.ancestor(1);
                }
                to(parent.owner(), 0, signed(body));
            }
            Self::Permitted { node, perms, .. } => {
                let bytes = charge_of(node, path.as_bytes().len());
                let new = bytes + 8 * perms.entries().len() - 8 * node.perms.entries().len();
                to(node.perms.owner(), -1, -signed(bytes));
                to(perms.owner(), 1, signed(new));
            }
            Self::Removed { subtree, parent } => {
                to(parent.owner(), 0, -signed(entry_len(path)));
                let mut walk = Walk::new(path, subtree);
                while let Some(visit) = walk.next() {
                    if visit.step == Step::Enter {
                        let bytes = charge_of(visit.node, visit.path.len());
                        to(visit.node.perms.owner(), -1, -signed(bytes));
                    }
                }
            }
        }
    }

    /// Tells which paths become, or stop to be, nodes whose owner does not own the parent.
    pub(crate) fn move_roots(&self, place: Place<'_>, mut to: impl FnMut(Entry, &[u8], bool)) {
        let Place::Node(path) = place else { return };
        match self {
            Self::Nothing | Self::Announced { .. } | Self::Written { .. } => {}
            Self::Created { perms, parent, made, .. } => {
                if perms.owner().who != parent.owner().who {
                    to(perms.owner(), path.ancestor(made - 1).as_bytes(), true);
                }
            }
            Self::Permitted { node, perms, parent } => {
                let (from, new) = (node.perms.owner(), perms.owner());
                if from.who == new.who {
                    return;
                }
                let above = parent.as_ref().map(|parent| parent.owner().who);
                if above != Some(from.who) {
                    to(from, path.as_bytes(), false);
                }
                if above != Some(new.who) {
                    to(new, path.as_bytes(), true);
                }
                let mut walk = Walk::new(path, node);
                walk.next();
                while let Some(visit) = walk.next() {
                    if visit.step == Step::Leave {
                        continue;
                    }
                    let owner = visit.node.perms.owner();
                    if owner.who == from.who {
                        to(owner, visit.path, true);
                    }
                    if owner.who == new.who {
                        to(owner, visit.path, false);
                    }
                    walk.skip_children();
                }
            }
            Self::Removed { subtree, parent } => {
                let mut walk = Walk::new(path, subtree);
                while let Some(visit) = walk.next() {
                    let above = visit.parent.map_or(parent, |parent| &parent.perms);
                    let owner = visit.node.perms.owner();
                    if visit.step == Step::Enter && owner.who != above.owner().who {
                        to(owner, visit.path, false);
                    }
                }
            }
        }
    }
}

/// Lengths fit: memory holds what they count.
fn signed(len: usize) -> isize {
    isize::try_from(len).unwrap_or(isize::MAX)
}

/// Returns what a node's name adds to the size of its parent.
pub(crate) fn entry_len(path: Path<'_>) -> usize {
    path.last().map_or(0, |name| name.len() + 1)
}
