//! Changes of [`Children`]: names come and go, chunks are split and merged.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::iter;

use super::{Branch, CHUNK, Children, Inner, Part, Slot, Tails, cost, position, small};
use crate::path::Name;

/// A chunk with fewer entries is merged with a neighbour, where both fit into one.
const SPARSE: usize = CHUNK / 4;

impl<V: Clone> Children<V> {
    /// Adds a child of a name that no child has yet.
    pub(crate) fn insert(&mut self, name: Name<'_>, child: V, tails: &impl Tails<V>) {
        if let Some(right) = self.insert_below(name, child, tails) {
            let (names, count) = (self.names + right.below.names, self.count + right.below.count);
            let below = self.clone();
            let left = Branch { first: below.first().0, below };
            let branches = Vec::from([left, right]);
            *self = Self { names, count, part: Part::Inner(Rc::new(Inner { branches })) };
        }
    }

    /// Takes the child of that name out.
    ///
    /// What is left after the last one is good for nothing but to be dropped or filled again.
    pub(crate) fn remove(&mut self, name: Name<'_>, tails: &impl Tails<V>) -> Option<V> {
        let child = self.remove_below(name, tails)?;
        while let Part::Inner(inner) = &mut self.part {
            if inner.branches.len() > 1 {
                break;
            }
            let only = Rc::make_mut(inner).branches.pop()?.below;
            *self = only;
        }
        Some(child)
    }

    /// Adds a child below; where that overfills a chunk, returns its right half.
    fn insert_below(
        &mut self,
        name: Name<'_>,
        child: V,
        tails: &impl Tails<V>,
    ) -> Option<Branch<V>> {
        self.names += cost(name);
        self.count += 1;
        let right = match &mut self.part {
            Part::Leaf(slots) => {
                let (Ok(at) | Err(at)) = position(slots, name, tails);
                let slot = Slot { key: name.key, child };
                let (before, after) = slots.split_at(at);
                *slots = before
                    .iter()
                    .cloned()
                    .chain(iter::once(slot))
                    .chain(after.iter().cloned())
                    .collect();
                split_leaf(slots, at, tails)?
            }
            Part::Inner(inner) => {
                let at = inner.branch_for(name, tails);
                let branches = &mut Rc::make_mut(inner).branches;
                let branch = &mut branches[at];
                branch.first = branch.first.min(name.key);
                let right = branch.below.insert_below(name, child, tails)?;
                branches.insert(at + 1, right);
                split_inner(branches, at + 1)?
            }
        };
        self.names -= right.below.names;
        self.count -= right.below.count;
        Some(right)
    }

    fn remove_below(&mut self, name: Name<'_>, tails: &impl Tails<V>) -> Option<V> {
        let child = match &mut self.part {
            Part::Leaf(slots) => {
                let at = position(slots, name, tails).ok()?;
                let child = slots[at].child.clone();
                let (before, after) = (&slots[..at], &slots[at + 1..]);
                *slots = before.iter().chain(after).cloned().collect();
                child
            }
            Part::Inner(inner) => {
                let at = inner.branch_for(name, tails);
                // Nothing is copied for a name that is not there.
                inner.branches[at].below.find(name, tails)?;
                let branches = &mut Rc::make_mut(inner).branches;
                let child = branches[at].below.remove_below(name, tails)?;
                mend(branches, at);
                child
            }
        };
        self.names -= cost(name);
        self.count -= 1;
        Some(child)
    }

    fn chunk_len(&self) -> usize {
        match &self.part {
            Part::Leaf(slots) => slots.len(),
            Part::Inner(inner) => inner.branches.len(),
        }
    }
}

/// Takes the right part off an overfull leaf; `at` is where it grew.
fn split_leaf<V: Clone>(
    slots: &mut Rc<[Slot<V>]>,
    at: usize,
    tails: &impl Tails<V>,
) -> Option<Branch<V>> {
    if slots.len() <= CHUNK {
        return None;
    }
    let (left, right) = slots.split_at(middle(slots.len(), at));
    let names =
        right.iter().map(|slot| slot.key.len() + tails.tail(&slot.child).len() + 1).sum::<usize>();
    let (count, names) = (small(right.len()), small(names));
    let (left, right): (Rc<[_]>, Rc<[_]>) =
        (left.iter().cloned().collect(), right.iter().cloned().collect());
    *slots = left;
    Some(Branch { first: right[0].key, below: Children::leaf(right, count, names) })
}

/// Takes the right part off an overfull list of branches; `at` is where it grew.
fn split_inner<V: Clone>(branches: &mut Vec<Branch<V>>, at: usize) -> Option<Branch<V>> {
    if branches.len() <= CHUNK {
        return None;
    }
    let right = branches.split_off(middle(branches.len(), at));
    let names = right.iter().map(|branch| branch.below.names).sum();
    let count = right.iter().map(|branch| branch.below.count).sum();
    let first = right[0].first;
    let part = Part::Inner(Rc::new(Inner { branches: right }));
    Some(Branch { first, below: Children { names, count, part } })
}

/// Returns where to split: in the middle, but near the end where names arrive in order.
fn middle(len: usize, at: usize) -> usize {
    if at + 1 == len { len - SPARSE } else { len / 2 }
}

/// Drops an empty branch and merges a sparse one with a neighbour where both fit into one.
fn mend<V: Clone>(branches: &mut Vec<Branch<V>>, at: usize) {
    let len = branches[at].below.chunk_len();
    if len == 0 {
        branches.remove(at);
        return;
    }
    branches[at].first = branches[at].below.first().0;
    // A lone branch has no neighbour; its parent takes its place.
    if len >= SPARSE || branches.len() < 2 {
        return;
    }
    let left = if at > 0 { at - 1 } else { at };
    if branches[left].below.chunk_len() + branches[left + 1].below.chunk_len() > CHUNK {
        return;
    }
    let right = branches.remove(left + 1).below;
    let below = &mut branches[left].below;
    below.names += right.names;
    below.count += right.count;
    match (&mut below.part, right.part) {
        (Part::Leaf(slots), Part::Leaf(more)) => {
            *slots = slots.iter().chain(more.iter()).cloned().collect();
        }
        (Part::Inner(inner), Part::Inner(more)) => {
            Rc::make_mut(inner).branches.extend(more.branches.iter().cloned());
        }
        (Part::Leaf(_), Part::Inner(_)) | (Part::Inner(_), Part::Leaf(_)) => {
            unreachable!("all leaves of a B-tree are at one depth")
        }
    }
}
