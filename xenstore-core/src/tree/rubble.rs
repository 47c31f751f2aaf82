//! Nodes that are gone, as memory.

use alloc::rc::Rc;
use alloc::vec::Vec;

use super::Node;
use crate::children::Children;

/// Memory of nodes, to be freed a part at a time.
#[derive(Debug, Default)]
pub(crate) struct Rubble {
    open: Vec<Children<Rc<Node>>>,
}

impl Rubble {
    /// Adds what is below a node, unless somebody else has the node.
    pub(crate) fn add(&mut self, node: Rc<Node>) {
        self.open.extend(Rc::into_inner(node).and_then(|mut node| node.take_children()));
    }

    /// Frees children with all below them.
    pub(super) fn free_all(children: Children<Rc<Node>>) {
        let mut all = usize::MAX;
        Self { open: Vec::from([children]) }.free(&mut all);
    }

    /// Frees so many nodes, and takes them from the number; says whether none is left.
    pub(crate) fn free(&mut self, nodes: &mut usize) -> bool {
        while *nodes > 0 {
            let Some(children) = self.open.pop() else { return true };
            *nodes = nodes.saturating_sub(1 + children.entries());
            let below = |child: &mut Rc<Node>| Rc::get_mut(child)?.take_children();
            children.take_apart(&mut self.open, below);
        }
        self.open.is_empty()
    }
}
