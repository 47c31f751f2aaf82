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

    /// Whether anything follows from it for those who own nodes. A value that replaces one of the
    /// same length, as most do, changes no account.
    #[inline]
    pub(crate) fn counts(&self) -> bool {
        match self {
            Self::Nothing | Self::Announced { .. } => false,
            Self::Written { from, to, .. } => from != to,
            Self::Created { .. } | Self::Permitted { .. } | Self::Removed { .. } => true,
        }
    }

    /// Tells all that follows from the change for those who own nodes.
    ///
    /// To a trait object, because each copy of this would add kilobytes to the image.
    pub(crate) fn follow(&self, place: Place<'_>, to: &mut dyn FnMut(Effect<'_>)) {
        let Place::Node(path) = place else { return };
        match self {
            Self::Nothing | Self::Announced { .. } => {}
            Self::Written { perms, from, to: len, .. } => {
                if from != len {
                    to(Effect::charge(perms.owner(), 0, signed(*len) - signed(*from)));
                }
            }
            Self::Created { perms, parent, made, value } => {
                let (mut body, mut here, mut bytes) = (*value, path, 0);
                for _ in 0..*made {
                    bytes += size(perms.entries().len(), body) + here.as_bytes().len();
                    body = entry_len(here);
                    here = here.ancestor(1);
                }
                to(Effect::charge(perms.owner(), signed(*made), signed(bytes)));
                to(Effect::charge(parent.owner(), 0, signed(body)));
                if perms.owner().who != parent.owner().who {
                    let path = path.ancestor(made - 1).as_bytes();
                    to(Effect::Root { owner: perms.owner(), path, added: true });
                }
            }
            Self::Permitted { node, perms, parent } => {
                follow_permitted(path, node, perms, parent.as_ref(), to);
            }
            // What follows for the owners of the nodes themselves is the business of a survey.
            Self::Removed { parent, .. } => {
                to(Effect::charge(parent.owner(), 0, -signed(entry_len(path))));
            }
        }
    }
}

/// What follows from a change for one who owns nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Effect<'p> {
    /// The owner has so many nodes and bytes more.
    Charge { owner: Entry, nodes: isize, bytes: isize },
    /// The node becomes, or stops to be, one whose owner does not own the parent.
    Root { owner: Entry, path: &'p [u8], added: bool },
}

impl Effect<'_> {
    fn charge(owner: Entry, nodes: isize, bytes: isize) -> Self {
        Self::Charge { owner, nodes, bytes }
    }
}

fn follow_permitted(
    path: Path<'_>,
    node: &Rc<Node>,
    perms: &Perms,
    parent: Option<&Rc<Perms>>,
    to: &mut dyn FnMut(Effect<'_>),
) {
    let (from, new) = (node.perms.owner(), perms.owner());
    let before = charge_of(node, path.as_bytes().len());
    let after = before + 8 * perms.entries().len() - 8 * node.perms.entries().len();
    to(Effect::charge(from, -1, -signed(before)));
    to(Effect::charge(new, 1, signed(after)));
    if from.who == new.who {
        return;
    }
    let mut root = |owner, path: &[u8], added| to(Effect::Root { owner, path, added });
    let above = parent.map(|parent| parent.owner().who);
    if above != Some(from.who) {
        root(from, path.as_bytes(), false);
    }
    if above != Some(new.who) {
        root(new, path.as_bytes(), true);
    }
    let mut walk = Walk::new(path, node);
    walk.next();
    while let Some(visit) = walk.next() {
        if visit.step == Step::Leave {
            continue;
        }
        let owner = visit.node.perms.owner();
        if owner.who == from.who {
            root(owner, visit.path, true);
        }
        if owner.who == new.who {
            root(owner, visit.path, false);
        }
        walk.skip_children();
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
