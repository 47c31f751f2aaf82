//! A node: its value, its permissions and its children.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::Cell;

use super::rubble::Rubble;
use crate::children::{Children, Spot, Tails};
use crate::path::{Key, Name};
use crate::perms::Perms;

/// A node: what belongs to one path.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The part of the name that its key leaves out, then the value.
    data: Box<[u8]>,
    pub(crate) perms: Rc<Perms>,
    pub(super) children: Option<Box<Children<Rc<Self>>>>,
    /// The generation, above [`TAIL_BITS`] bits for the length of the name's tail.
    stamp: u64,
}

/// Enough for the longest name that fits into a frame.
const TAIL_BITS: u32 = 16;

/// Lets [`Children`] ask nodes for their names.
pub(crate) struct OfNodes;

impl Tails<Rc<Node>> for OfNodes {
    fn tail<'a>(&'a self, child: &'a Rc<Node>) -> &'a [u8] {
        child.tail()
    }
}

impl Node {
    pub(super) fn new(
        tail: &[u8],
        value: &[u8],
        perms: Rc<Perms>,
        children: Option<Box<Children<Rc<Self>>>>,
        generation: u64,
    ) -> Rc<Self> {
        let data = [tail, value].concat().into();
        let stamp = generation << TAIL_BITS | tail.len() as u64;
        Rc::new(Self { data, perms, children, stamp })
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.data[self.tail_len()..]
    }

    /// Returns a number that grows with every change to the node's own state.
    pub(crate) fn generation(&self) -> u64 {
        self.stamp >> TAIL_BITS
    }

    /// Returns the part of the name after the first eight bytes.
    pub(crate) fn tail(&self) -> &[u8] {
        &self.data[..self.tail_len()]
    }

    #[inline(always)]
    pub(super) fn locate(&self, name: Name<'_>) -> Option<(Spot, &Rc<Self>)> {
        self.children.as_ref()?.locate(name, &OfNodes)
    }

    /// Returns the child of that name.
    pub(crate) fn child(&self, name: Name<'_>) -> Option<&Rc<Self>> {
        self.locate(name).map(|(_, child)| child)
    }

    /// Returns the child of a name that is most likely where it was last, and notes where it is.
    #[inline(always)]
    pub(super) fn child_at(&self, (key, hint): (Key, &Cell<Spot>)) -> Option<&Rc<Self>> {
        #[cold]
        fn search<'c>(
            children: &'c Children<Rc<Node>>,
            key: Key,
            hint: &Cell<Spot>,
        ) -> Option<&'c Rc<Node>> {
            let (found, child) = children.locate(Name { key, tail: &[] }, &OfNodes)?;
            hint.set(found);
            Some(child)
        }
        let children = self.children.as_deref()?;
        children.at(hint.get(), key).or_else(|| search(children, key, hint))
    }

    /// Returns the children from that place on in name order, some of them at least.
    pub(crate) fn children_from(&self, place: usize) -> impl Iterator<Item = (Key, &Rc<Self>)> {
        self.children.iter().flat_map(move |children| children.run_from(place))
    }

    /// Takes all children out.
    pub(super) fn take_children(&mut self) -> Option<Children<Rc<Self>>> {
        self.children.take().map(|children| *children)
    }

    /// Returns the child at that place in name order, and its key.
    pub(crate) fn nth_child(&self, place: usize) -> Option<(Key, &Rc<Self>)> {
        self.children.as_ref()?.nth(place)
    }

    pub(crate) fn children_len(&self) -> usize {
        self.children.as_ref().map_or(0, |children| children.len())
    }

    /// Returns the length of all children's names together, each with one byte for its end.
    pub(crate) fn names_len(&self) -> usize {
        self.children.as_ref().map_or(0, |children| children.names_len())
    }

    /// Returns the place of the child whose name holds that byte of the list of names, and how far
    /// into the name the byte is.
    pub(crate) fn seek_child(&self, offset: usize) -> Option<(usize, usize)> {
        self.children.as_ref()?.seek(offset, &OfNodes)
    }

    /// Whether both have children of the same names.
    pub(crate) fn has_names_of(&self, other: &Self) -> bool {
        match (&self.children, &other.children) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => {
                ours.is_shared_with(theirs)
                    || (ours.len() == theirs.len() && same_names(ours, theirs))
            }
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    fn tail_len(&self) -> usize {
        (self.stamp & ((1 << TAIL_BITS) - 1)) as usize
    }

    pub(super) fn touch(&mut self, generation: u64) {
        self.stamp = generation << TAIL_BITS | self.tail_len() as u64;
    }

    pub(super) fn set_value(&mut self, value: &[u8]) {
        let start = self.tail_len();
        if self.data.len() - start == value.len() {
            self.data[start..].copy_from_slice(value);
        } else {
            self.data = [&self.data[..start], value].concat().into();
        }
    }
}

fn same_names(ours: &Children<Rc<Node>>, theirs: &Children<Rc<Node>>) -> bool {
    let name = |children: &Children<Rc<Node>>, place| {
        children.nth(place).map(|(key, child)| (key, Rc::clone(child)))
    };
    (0..ours.len()).all(|place| match (name(ours, place), name(theirs, place)) {
        (Some((our_key, our)), Some((their_key, their))) => {
            our_key == their_key && our.tail() == their.tail()
        }
        _ => false,
    })
}

/// Frees a subtree step by step: it may be as deep as a path is long, and the stack is not.
impl Drop for Node {
    fn drop(&mut self) {
        if let Some(children) = self.take_children() {
            Rubble::free_all(children);
        }
    }
}
