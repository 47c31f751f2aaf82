//! Going through a subtree.

use alloc::rc::Rc;
use alloc::vec::Vec;

use super::{Node, Tree};
use crate::path::Path;

/// A step of a [`Walk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The node is met, before its children.
    Enter,
    /// The node's children are done.
    Leave,
}

/// Goes through a subtree in name order, each node before and after its children, without using
/// the stack for depth.
pub(crate) struct Walk<'t> {
    path: Vec<u8>,
    /// The nodes from the top to the present one.
    open: Vec<Open<'t>>,
    top: Option<&'t Rc<Node>>,
    /// Where the path ends once the node that was just left is forgotten.
    cut: Option<usize>,
}

struct Open<'t> {
    node: &'t Rc<Node>,
    /// The place of the child that comes next.
    place: usize,
    /// The length of the parent's path.
    above: usize,
}

/// Where a [`Walk`] is.
pub(crate) struct Visit<'a, 't> {
    pub(crate) step: Step,
    pub(crate) path: &'a [u8],
    pub(crate) node: &'t Rc<Node>,
    /// `None` at the top.
    pub(crate) parent: Option<&'t Rc<Node>>,
}

impl<'t> Walk<'t> {
    /// Begins a walk at a node of that path.
    pub(crate) fn new(path: Path<'_>, top: &'t Rc<Node>) -> Self {
        // The root adds nothing to its children's paths.
        let path = if path.is_root() { Vec::new() } else { path.as_bytes().to_vec() };
        Self { path, open: Vec::new(), top: Some(top), cut: None }
    }

    /// Leaves out the children of the node that was just entered.
    pub(crate) fn skip_children(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.place = open.node.children_len();
        }
    }

    pub(crate) fn next(&mut self) -> Option<Visit<'_, 't>> {
        if let Some(end) = self.cut.take() {
            self.path.truncate(end);
        }
        if let Some(node) = self.top.take() {
            self.open.push(Open { node, place: 0, above: self.path.len() });
            return self.visit(Step::Enter, node, None);
        }
        let Open { node: parent, place, .. } = self.open.last_mut()?;
        let parent = *parent;
        let Some((key, node)) = parent.nth_child(*place) else { return self.leave() };
        *place += 1;
        let above = self.path.len();
        self.path.push(b'/');
        key.extend(&mut self.path);
        self.path.extend_from_slice(node.tail());
        self.open.push(Open { node, place: 0, above });
        self.visit(Step::Enter, node, Some(parent))
    }

    fn leave(&mut self) -> Option<Visit<'_, 't>> {
        let Open { node, above, .. } = self.open.pop()?;
        self.cut = Some(above);
        let parent = self.open.last().map(|open| open.node);
        self.visit(Step::Leave, node, parent)
    }

    fn visit(
        &mut self,
        step: Step,
        node: &'t Rc<Node>,
        parent: Option<&'t Rc<Node>>,
    ) -> Option<Visit<'_, 't>> {
        let path = if self.path.is_empty() { &b"/"[..] } else { &self.path };
        Some(Visit { step, path, node, parent })
    }
}

/// Calls for every node with its path and its parent.
pub(crate) fn for_each_node(tree: &Tree, mut each: impl FnMut(&[u8], &Node, Option<&Rc<Node>>)) {
    let mut walk = Walk::new(Path::ROOT, tree.root());
    while let Some(visit) = walk.next() {
        if visit.step == Step::Enter {
            each(visit.path, visit.node, visit.parent);
        }
    }
}
