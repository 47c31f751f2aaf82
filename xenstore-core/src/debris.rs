//! What is left of what was removed: nobody sees it any more, and it is settled and freed a part at a
//! time, so that no request takes longer because it removes more.
//!
//! Until its part comes, a removed node still counts for its owner. Whoever would be refused
//! something for that reason waits: until all is done that was there when it asked.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;

use crate::change::{Change, Effect, charge_of};
use crate::operation::Answer;
use crate::path::Path;
use crate::perms::Entry;
use crate::tree::{Node, Rubble, Tree};

/// Removed trees, and snapshots that nobody needs any more, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Debris {
    queue: VecDeque<Remains>,
    /// How many of the queue have a survey.
    unsettled: usize,
    /// How many left the queue.
    done: u64,
}

/// A number for all that is in the [`Debris`] at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// One of them: first its accounts are settled, if it has any, and then it is freed.
#[derive(Debug)]
struct Remains {
    survey: Option<Survey>,
    top: Option<Rc<Node>>,
    rubble: Rubble,
}

impl Debris {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns how many removals and snapshots there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nodes that were removed still count for their owners.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// Returns what will be [done](Self::done) when all is that is there now.
    pub(crate) fn newest(&self) -> Ticket {
        Ticket(self.done + self.queue.len() as u64)
    }

    /// Returns up to where it is done.
    pub(crate) fn done(&self) -> Ticket {
        Ticket(self.done)
    }

    /// Adds a tree that was removed from a path, with its accounts settled as far as the survey went.
    pub(crate) fn add(&mut self, subtree: &Rc<Node>, survey: Survey) {
        let survey = Some(survey).filter(|survey| !survey.is_over());
        self.unsettled += usize::from(survey.is_some());
        if survey.is_some() || subtree.children_len() > 0 {
            let top = Some(Rc::clone(subtree));
            self.queue.push_back(Remains { survey, top, rubble: Rubble::default() });
        }
    }

    /// Takes the tree of a snapshot that nobody needs any more.
    pub(crate) fn take_tree(&mut self, tree: Tree) {
        self.take_node(tree.into_root());
    }

    /// Takes a node that somebody remembered. Where others have it, too, there is nothing to free.
    pub(crate) fn take_node(&mut self, node: Rc<Node>) {
        if Rc::strong_count(&node) == 1 && node.children_len() > 0 {
            let top = Some(node);
            self.queue.push_back(Remains { survey: None, top, rubble: Rubble::default() });
        }
    }

    /// Takes what an answer remembered.
    pub(crate) fn take_answer(&mut self, answer: Answer) {
        if let Answer::Value(node) | Answer::Names(node) | Answer::Part(node, _) = answer {
            self.take_node(node);
        }
    }

    /// Takes what a change remembered that was not done, or is told already.
    pub(crate) fn take_change(&mut self, change: Change) {
        if let Change::Removed { subtree: node, .. } | Change::Permitted { node, .. } = change {
            self.take_node(node);
        }
    }

    /// Goes on with so many nodes, and tells what follows for their owners.
    pub(crate) fn clear(&mut self, mut nodes: usize, to: &mut dyn FnMut(Effect<'_>)) {
        while nodes > 0
            && let Some(first) = self.queue.front_mut()
        {
            if let Some(survey) = &mut first.survey {
                survey.go_on(&mut nodes, to);
                if survey.is_over() {
                    first.survey = None;
                    self.unsettled -= 1;
                }
                continue;
            }
            if let Some(top) = first.top.take() {
                first.rubble.add(top);
            }
            if first.rubble.free(&mut nodes) {
                self.queue.pop_front();
                self.done += 1;
            }
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    /// Tells every node that still counts for its owner.
    pub(crate) fn each_unsettled(&self, to: &mut dyn FnMut(Unsettled<'_>)) {
        for survey in self.queue.iter().filter_map(|remains| remains.survey.as_ref()) {
            survey.clone().rest(to);
        }
    }
}

/// A node that is removed and still counts for its owner.
#[derive(Debug)]
pub(crate) struct Unsettled<'a> {
    pub(crate) path: &'a [u8],
    pub(crate) owner: Entry,
    /// What it is charged with.
    pub(crate) charge: usize,
    /// Whether another owned its parent.
    pub(crate) is_root: bool,
}

/// Goes through a removed tree to tell what no owner is to be charged with any more.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    /// The path of the last of `open`.
    path: Vec<u8>,
    /// The nodes from the top to the one whose children are next.
    open: Vec<Open>,
}

#[derive(Clone, Debug)]
struct Open {
    node: Rc<Node>,
    /// The place of the child that comes next.
    place: usize,
    /// The length of the parent's path.
    above: usize,
}

impl Survey {
    /// Begins with the topmost node, whose parent belongs to `above`.
    pub(crate) fn new(
        path: Path<'_>,
        top: &Rc<Node>,
        above: Entry,
        to: &mut dyn FnMut(Effect<'_>),
    ) -> Self {
        let (path, owner) = (path.as_bytes(), top.perms.owner());
        let bytes = charge_of(top, path.len()).cast_signed();
        to(Effect::Charge { owner, nodes: -1, bytes: -bytes });
        if owner.who != above.who {
            to(Effect::Root { owner, path, added: false });
        }
        if top.children_len() == 0 {
            return Self { path: Vec::new(), open: Vec::new() };
        }
        let open = Vec::from([Open { node: Rc::clone(top), place: 0, above: 0 }]);
        Self { path: path.to_vec(), open }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.open.is_empty()
    }

    /// Goes on with so many nodes, and takes them from the number.
    pub(crate) fn go_on(&mut self, nodes: &mut usize, to: &mut dyn FnMut(Effect<'_>)) {
        let Some(first) = self.open.last() else { return };
        let mut run = Run { owner: first.node.perms.owner(), nodes: 0, bytes: 0 };
        while *nodes > 0
            && let Some(directory) = self.open.last_mut()
        {
            let before = directory.place;
            let Open { node, place, .. } = directory;
            let deeper = go_through(node, place, &mut self.path, nodes, &mut run, to);
            let over = *place == before;
            match deeper {
                Some(deeper) => self.open.push(deeper),
                None if over => {
                    self.path.truncate(directory.above);
                    self.open.pop();
                }
                None => {}
            }
        }
        run.end(to);
    }

    /// Tells every node that is still to come.
    fn rest(mut self, to: &mut dyn FnMut(Unsettled<'_>)) {
        while let Some(open) = self.open.last_mut() {
            let Some((key, child)) = open.node.nth_child(open.place) else {
                self.path.truncate(open.above);
                self.open.pop();
                continue;
            };
            open.place += 1;
            let (above, parent) = (self.path.len(), open.node.perms.owner());
            self.path.push(b'/');
            key.extend(&mut self.path);
            self.path.extend_from_slice(child.tail());
            let (owner, charge) = (child.perms.owner(), charge_of(child, self.path.len()));
            let is_root = owner.who != parent.who;
            to(Unsettled { path: &self.path, owner, charge, is_root });
            let node = Rc::clone(child);
            self.open.push(Open { node, place: 0, above });
        }
    }
}

/// Goes on in a chunk of a directory's children, up to one that has children itself; returns that.
fn go_through(
    directory: &Rc<Node>,
    place: &mut usize,
    path: &mut Vec<u8>,
    nodes: &mut usize,
    run: &mut Run,
    to: &mut dyn FnMut(Effect<'_>),
) -> Option<Open> {
    let (above, owner) = (path.len(), directory.perms.owner());
    for (key, child) in directory.children_from(*place) {
        *place += 1;
        *nodes = nodes.saturating_sub(1);
        run.take(child, above + 1 + key.len() + child.tail().len(), to);
        let is_root = child.perms.owner().who != owner.who;
        let has_children = child.children_len() > 0;
        if is_root || has_children {
            path.push(b'/');
            key.extend(path);
            path.extend_from_slice(child.tail());
            if is_root {
                to(Effect::Root { owner: child.perms.owner(), path, added: false });
            }
            if has_children {
                return Some(Open { node: Rc::clone(child), place: 0, above });
            }
            path.truncate(above);
        }
    }
    None
}

/// Nodes of one owner, and what they were charged with.
struct Run {
    owner: Entry,
    nodes: usize,
    bytes: usize,
}

impl Run {
    /// Adds a node whose path is so long.
    fn take(&mut self, node: &Node, path_len: usize, to: &mut dyn FnMut(Effect<'_>)) {
        let owner = node.perms.owner();
        if owner.who != self.owner.who {
            self.end(to);
            *self = Self { owner, nodes: 0, bytes: 0 };
        }
        self.nodes += 1;
        self.bytes += charge_of(node, path_len);
    }

    fn end(&self, to: &mut dyn FnMut(Effect<'_>)) {
        let Self { owner, nodes, bytes } = *self;
        if nodes > 0 {
            let (nodes, bytes) = (-nodes.cast_signed(), -bytes.cast_signed());
            to(Effect::Charge { owner, nodes, bytes });
        }
    }
}
