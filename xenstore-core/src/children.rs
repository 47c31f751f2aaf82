//! The children of a node, by name, in name order: a persistent B-tree.
//!
//! Cloning takes a reference; a change copies only the chunks on its way, and only those that a
//! clone shares. So a directory of ten thousand names costs a transaction a few chunks of at most
//! [`CHUNK`] entries, not a copy of it all.

mod edit;
mod spot;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::iter;

use crate::path::{Key, Name};
pub(crate) use spot::Spot;
use spot::SpotSoFar;

/// The most entries of a chunk.
const CHUNK: usize = 32;

/// Tells the part of a child's name that its [`Key`] leaves out.
pub(crate) trait Tails<V> {
    /// Returns the bytes of the name after the first eight.
    fn tail<'a>(&'a self, child: &'a V) -> &'a [u8];
}

/// The children of one node.
#[derive(Clone, Debug)]
pub(crate) struct Children<V> {
    /// The length of all names together, each with one byte for its end.
    names: u32,
    count: u32,
    part: Part<V>,
}

#[derive(Clone, Debug)]
enum Part<V> {
    Leaf(Rc<[Slot<V>]>),
    Inner(Rc<Inner<V>>),
}

#[derive(Clone, Debug)]
struct Slot<V> {
    key: Key,
    child: V,
}

/// Two branches or more; a wrapper because a thin pointer keeps [`Children`] at 24 bytes.
#[derive(Clone, Debug)]
struct Inner<V> {
    branches: Vec<Branch<V>>,
}

#[derive(Clone, Debug)]
struct Branch<V> {
    /// The key of the first name below.
    first: Key,
    below: Children<V>,
}

impl<V: Clone> Children<V> {
    /// Makes a directory of one child.
    pub(crate) fn new(name: Name<'_>, child: V) -> Self {
        Self::leaf(iter::once(Slot { key: name.key, child }).collect(), 1, cost(name))
    }

    /// Returns how many children there are.
    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    /// Returns the length of all names together, each with one byte for its end.
    pub(crate) fn names_len(&self) -> usize {
        self.names as usize
    }

    /// Whether both are the same by construction; false says nothing.
    pub(crate) fn is_shared_with(&self, other: &Self) -> bool {
        match (&self.part, &other.part) {
            (Part::Leaf(a), Part::Leaf(b)) => Rc::ptr_eq(a, b),
            (Part::Inner(a), Part::Inner(b)) => Rc::ptr_eq(a, b),
            (Part::Leaf(_), Part::Inner(_)) | (Part::Inner(_), Part::Leaf(_)) => false,
        }
    }

    /// Returns the child of that name.
    #[inline]
    pub(crate) fn find(&self, name: Name<'_>, tails: &impl Tails<V>) -> Option<&V> {
        self.locate(name, tails).map(|(_, child)| child)
    }

    /// Returns the child of that name, and where it is.
    #[inline(always)]
    pub(crate) fn locate(&self, name: Name<'_>, tails: &impl Tails<V>) -> Option<(Spot, &V)> {
        if !name.key.is_whole() {
            return self.locate_long(name, tails);
        }
        let (mut here, mut way) = (self, SpotSoFar::default());
        loop {
            match &here.part {
                Part::Inner(inner) => {
                    let at = last_not_above(&inner.branches, name.key, |branch| branch.first);
                    way.push(at);
                    here = &inner.branches.get(at)?.below;
                }
                Part::Leaf(slots) => {
                    let (at, slot) = find_slot(slots, name.key)?;
                    way.push(at);
                    return Some((way.spot(), &slot.child));
                }
            }
        }
    }

    /// As [`locate`](Self::locate), for a name that its key may not tell from others.
    #[inline(never)]
    fn locate_long(&self, name: Name<'_>, tails: &impl Tails<V>) -> Option<(Spot, &V)> {
        let (mut here, mut way) = (self, SpotSoFar::default());
        loop {
            match &here.part {
                Part::Inner(inner) => {
                    let at = inner.branch_for(name, tails);
                    way.push(at);
                    here = &inner.branches.get(at)?.below;
                }
                Part::Leaf(slots) => {
                    let at = position(slots, name, tails).ok()?;
                    way.push(at);
                    return slots.get(at).map(|slot| (way.spot(), &slot.child));
                }
            }
        }
    }

    /// Returns the child at a spot, if it has that name, which is all in its key.
    #[inline(always)]
    pub(crate) fn at(&self, spot: Spot, key: Key) -> Option<&V> {
        let (mut here, mut rest) = (self, spot);
        loop {
            let at = rest.pop();
            match &here.part {
                Part::Leaf(slots) => {
                    let slot = slots.get(at)?;
                    return (slot.key == key).then_some(&slot.child);
                }
                Part::Inner(inner) => here = &inner.branches.get(at)?.below,
            }
        }
    }

    /// Returns the child at a spot where these children have one, in chunks that no clone shares.
    #[inline(always)]
    pub(crate) fn at_mut(&mut self, spot: Spot) -> Option<&mut V> {
        let (mut here, mut rest) = (self, spot);
        loop {
            let at = rest.pop();
            match &mut here.part {
                Part::Leaf(slots) => {
                    return own_slots(slots)?.get_mut(at).map(|slot| &mut slot.child);
                }
                Part::Inner(inner) => here = &mut own(inner)?.branches.get_mut(at)?.below,
            }
        }
    }

    /// Returns the child of that name, in chunks that no clone shares.
    pub(crate) fn find_mut(&mut self, name: Name<'_>, tails: &impl Tails<V>) -> Option<&mut V> {
        let mut here = self;
        loop {
            match &mut here.part {
                Part::Leaf(slots) => {
                    let at = position(slots, name, tails).ok()?;
                    return own_slots(slots)?.get_mut(at).map(|slot| &mut slot.child);
                }
                Part::Inner(inner) => {
                    let at = inner.branch_for(name, tails);
                    here = &mut own(inner)?.branches.get_mut(at)?.below;
                }
            }
        }
    }

    /// Returns the child at that place in name order, and its key.
    pub(crate) fn nth(&self, place: usize) -> Option<(Key, &V)> {
        self.run_from(place).next()
    }

    /// Returns the children from that place on in name order, as far as they are in one chunk.
    pub(crate) fn run_from(&self, mut place: usize) -> impl Iterator<Item = (Key, &V)> {
        let mut here = self;
        let run = loop {
            match &here.part {
                Part::Leaf(slots) => break slots.get(place..),
                Part::Inner(inner) => {
                    let mut branches = inner.branches.iter();
                    let below = loop {
                        match branches.next() {
                            Some(branch) if place < branch.below.len() => {
                                break Some(&branch.below);
                            }
                            Some(branch) => place -= branch.below.len(),
                            None => break None,
                        }
                    };
                    match below {
                        Some(below) => here = below,
                        None => break None,
                    }
                }
            }
        };
        run.unwrap_or_default().iter().map(|slot| (slot.key, &slot.child))
    }

    /// Returns how many entries the topmost chunk has.
    pub(crate) fn entries(&self) -> usize {
        match &self.part {
            Part::Leaf(slots) => slots.len(),
            Part::Inner(inner) => inner.branches.len(),
        }
    }

    /// Drops these children level by level: what must be dropped next is added to `open`.
    ///
    /// `below` takes what is below a child that is about to be dropped. Chunks that a clone shares
    /// are left to it, with all that is in them.
    pub(crate) fn take_apart(
        self,
        open: &mut Vec<Self>,
        mut below: impl FnMut(&mut V) -> Option<Self>,
    ) {
        match self.part {
            Part::Leaf(mut slots) => {
                if let Some(slots) = Rc::get_mut(&mut slots) {
                    open.extend(slots.iter_mut().filter_map(|slot| below(&mut slot.child)));
                }
            }
            Part::Inner(inner) => {
                if let Ok(inner) = Rc::try_unwrap(inner) {
                    open.extend(inner.branches.into_iter().map(|branch| branch.below));
                }
            }
        }
    }

    /// Returns the place of the child whose name holds that byte of the whole list of names, each
    /// with one byte for its end, and how far into the name the byte is.
    pub(crate) fn seek(&self, mut offset: usize, tails: &impl Tails<V>) -> Option<(usize, usize)> {
        let (mut here, mut place) = (self, 0);
        loop {
            match &here.part {
                Part::Leaf(slots) => {
                    for slot in slots.iter() {
                        let len = slot.key.len() + tails.tail(&slot.child).len() + 1;
                        if offset < len {
                            return Some((place, offset));
                        }
                        offset -= len;
                        place += 1;
                    }
                    return None;
                }
                Part::Inner(inner) => {
                    let mut branches = inner.branches.iter();
                    here = loop {
                        let below = &branches.next()?.below;
                        if offset < below.names_len() {
                            break below;
                        }
                        offset -= below.names_len();
                        place += below.len();
                    };
                }
            }
        }
    }

    fn leaf(slots: Rc<[Slot<V>]>, count: u32, names: u32) -> Self {
        Self { names, count, part: Part::Leaf(slots) }
    }

    /// Returns the key and the child of the first name.
    fn first(&self) -> (Key, &V) {
        let mut here = self;
        loop {
            match &here.part {
                Part::Leaf(slots) => return (slots[0].key, &slots[0].child),
                Part::Inner(inner) => here = &inner.branches[0].below,
            }
        }
    }
}

impl<V: Clone> Inner<V> {
    /// Returns the place of the branch that has the name, if any has.
    fn branch_for(&self, name: Name<'_>, tails: &impl Tails<V>) -> usize {
        let mut at = last_not_above(&self.branches, name.key, |branch| branch.first);
        if name.key.is_whole() {
            return at;
        }
        // Names that begin alike may fill several branches; then the tails decide.
        while at > 0 && self.branches[at].first == name.key {
            if tails.tail(self.branches[at].below.first().1) <= name.tail {
                break;
            }
            at -= 1;
        }
        at
    }
}

/// Returns a value for change, copied if a clone shares it.
///
/// As `Rc::make_mut`, but short enough to stand in a loop, because there are no weak references.
#[inline(always)]
pub(crate) fn own<T: Clone>(shared: &mut Rc<T>) -> Option<&mut T> {
    #[cold]
    fn copy<T: Clone>(shared: &mut Rc<T>) {
        *shared = Rc::new(T::clone(shared));
    }
    if Rc::get_mut(shared).is_none() {
        copy(shared);
    }
    Rc::get_mut(shared)
}

/// As [`own`], for the entries of a leaf.
#[inline(always)]
fn own_slots<V: Clone>(slots: &mut Rc<[Slot<V>]>) -> Option<&mut [Slot<V>]> {
    #[cold]
    fn copy<V: Clone>(slots: &mut Rc<[Slot<V>]>) {
        *slots = slots.iter().cloned().collect();
    }
    if Rc::get_mut(slots).is_none() {
        copy(slots);
    }
    Rc::get_mut(slots)
}

/// Returns the place of the name, or where it belongs.
fn position<V>(slots: &[Slot<V>], name: Name<'_>, tails: &impl Tails<V>) -> Result<usize, usize> {
    let mut start = last_not_above(slots, name.key, |slot| slot.key);
    if name.key.is_whole() {
        // No other name has this key.
        return match slots.get(start) {
            Some(slot) if slot.key == name.key => Ok(start),
            Some(slot) if slot.key < name.key => Err(start + 1),
            _ => Err(start),
        };
    }
    while start > 0 && slots[start - 1].key == name.key {
        start -= 1;
    }
    if slots.get(start).is_some_and(|slot| slot.key < name.key) {
        start += 1;
    }
    let alike = &slots[start..];
    let before = |slot: &Slot<V>| slot.key == name.key && tails.tail(&slot.child) < name.tail;
    let at = if name.tail.is_empty() { 0 } else { alike.partition_point(before) };
    match alike.get(at) {
        Some(slot) if slot.key == name.key && tails.tail(&slot.child) == name.tail => {
            Ok(start + at)
        }
        _ => Err(start + at),
    }
}

/// Returns the entry with that key, which is all of its name, and its place.
///
/// Halves only what is long: to go through what is left takes a third of the instructions.
#[inline(always)]
fn find_slot<V>(slots: &[Slot<V>], key: Key) -> Option<(usize, &Slot<V>)> {
    const SHORT: usize = 8;
    let (mut first, mut rest) = (0, slots);
    while rest.len() > SHORT {
        let (low, high) = rest.split_at(rest.len() / 2);
        rest = if high[0].key > key {
            low
        } else {
            first += low.len();
            high
        };
    }
    let at = rest.iter().position(|slot| slot.key == key)?;
    Some((first + at, &rest[at]))
}

/// Returns the place of the last entry whose key is not above this one; 0 if all are.
#[inline]
fn last_not_above<T>(entries: &[T], key: Key, key_of: impl Fn(&T) -> Key) -> usize {
    let (mut start, mut len) = (0, entries.len());
    while len > 1 {
        let half = len / 2;
        // Never out of range; a select is cheaper than a branch that guesses wrong.
        let above = entries.get(start + half).is_none_or(|entry| key_of(entry) > key);
        start = if above { start } else { start + half };
        len -= half;
    }
    start
}

/// Returns what a name adds to [`Children::names_len`].
fn cost(name: Name<'_>) -> u32 {
    small(name.len() + 1)
}

/// Narrows a length that memory bounds far below 4 GiB.
fn small(len: usize) -> u32 {
    u32::try_from(len).expect("4 GiB of names are beyond any domain's memory")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Children that carry their own tails.
    struct Own;
    type Child = Rc<[u8]>;

    impl Tails<Child> for Own {
        fn tail<'a>(&'a self, child: &'a Child) -> &'a [u8] {
            child
        }
    }

    fn child(name: &[u8]) -> Child {
        name.get(8..).unwrap_or_default().into()
    }

    fn name_of(key: Key, child: &Child) -> Vec<u8> {
        let mut name = Vec::new();
        key.extend(&mut name);
        name.extend_from_slice(child);
        name
    }

    fn names(children: &Children<Child>) -> Vec<Vec<u8>> {
        let nth = |place| children.nth(place).map(|(key, child)| name_of(key, child));
        (0..children.len()).map(|place| nth(place).expect("every place holds a child")).collect()
    }

    /// Compares everything that can be asked with a naive model.
    fn assert_same(children: &Children<Child>, model: &BTreeMap<Vec<u8>, ()>) {
        let expected: Vec<_> = model.keys().cloned().collect();
        assert_eq!(names(children), expected, "names in order");
        assert_eq!(children.len(), model.len());
        let total: usize = expected.iter().map(|name| name.len() + 1).sum();
        assert_eq!(children.names_len(), total, "the length of all names");
        let mut offset = 0;
        for (place, name) in expected.iter().enumerate() {
            let at = children.seek(offset + name.len(), &Own);
            assert_eq!(at, Some((place, name.len())), "the byte that ends {name:?}");
            offset += name.len() + 1;
            assert!(children.find(Name::new(name), &Own).is_some(), "{name:?} is not found");
        }
        assert_eq!(children.seek(total, &Own), None, "past the end");
    }

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<Children<Rc<u8>>>(), 24);
        assert_eq!(size_of::<Slot<Rc<u8>>>(), 16);
    }

    /// No merge takes up a chunk whose neighbour is full, so it can run empty.
    #[test]
    fn a_chunk_beside_a_full_one_may_run_empty() {
        let name = |number: usize| format!("{number:04}").into_bytes();
        let mut model = BTreeMap::from([(name(0), ())]);
        let mut children = Children::new(Name::new(&name(0)), child(&name(0)));
        // One more than a chunk holds, in order, leaves a second one; then the first is filled up.
        let (ascending, between) = (1..=CHUNK, 1..CHUNK / 4);
        for number in ascending.map(|number| number * 100).chain(between) {
            let name = name(number);
            children.insert(Name::new(&name), child(&name), &Own);
            model.insert(name, ());
        }
        assert_same(&children, &model);
        while let Some((last, ())) = model.pop_last() {
            if model.is_empty() {
                break;
            }
            assert!(children.remove(Name::new(&last), &Own).is_some(), "{last:?} was there");
            assert_same(&children, &model);
        }
        assert_eq!(children.len(), 1);
    }

    #[test]
    fn sharing_is_seen_at_every_size() {
        let mut small = Children::new(Name::new(b"0"), child(b"0"));
        let copy = small.clone();
        assert!(small.is_shared_with(&copy));
        for number in 1..100 {
            let name = format!("{number}").into_bytes();
            small.insert(Name::new(&name), child(&name), &Own);
        }
        assert!(small.is_shared_with(&small.clone()), "many chunks");
        assert!(!small.is_shared_with(&copy), "one chunk and many");
        assert!(!copy.is_shared_with(&small));
    }

    #[test]
    fn ten_thousand_names_go_in_and_out_in_any_order() {
        let mut model = BTreeMap::from([(b"0".to_vec(), ())]);
        let mut children = Children::new(Name::new(b"0"), child(b"0"));
        let numbers = (1..10_000u64).map(|i| (i * 7919) % 10_007);
        for number in numbers.clone().filter(|&number| number != 0) {
            let name = format!("{number}").into_bytes();
            children.insert(Name::new(&name), child(&name), &Own);
            model.insert(name, ());
        }
        assert_same(&children, &model);
        for number in numbers.filter(|&number| number != 0) {
            let name = format!("{number}").into_bytes();
            assert!(children.remove(Name::new(&name), &Own).is_some(), "{number} was there");
        }
        assert_eq!(names(&children), [b"0"]);
    }

    proptest! {
        /// Names come from a small set with long common beginnings, so that tails decide often.
        #[test]
        fn matches_a_naive_map(
            steps in prop::collection::vec((0u32..3, 0u32..400), 1..600),
            snapshot_at in 0usize..600,
        ) {
            let name = |number: u32| match number % 4 {
                0 => format!("{number}"),
                1 => format!("backend-{number}"),
                2 => format!("backend-{}", "x".repeat((number / 4) as usize)),
                _ => format!("{number:08}"),
            }.into_bytes();
            let mut model = BTreeMap::from([(b"first".to_vec(), ())]);
            let mut children = Children::new(Name::new(b"first"), child(b"first"));
            let mut snapshot = None;
            for (step, (action, number)) in steps.into_iter().enumerate() {
                if step == snapshot_at {
                    snapshot = Some((children.clone(), model.clone()));
                }
                let name = name(number);
                let found = children.find(Name::new(&name), &Own).is_some();
                prop_assert_eq!(found, model.contains_key(&name));
                if action < 2 && !found {
                    children.insert(Name::new(&name), child(&name), &Own);
                    model.insert(name, ());
                } else if action == 2 {
                    let removed = children.remove(Name::new(&name), &Own).is_some();
                    prop_assert_eq!(removed, model.remove(&name).is_some());
                }
            }
            assert_same(&children, &model);
            if let Some((children, model)) = snapshot {
                assert_same(&children, &model);
            }
        }
    }
}
