//! A table of values at dense numbers that are reused, each use with a generation of its own.

use alloc::vec::Vec;

/// Where a value is. Once the value is removed, nothing is ever found there by it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) index: u32,
    pub(super) generation: u32,
}

#[derive(Debug)]
enum Content<T> {
    /// The next such slot.
    Free(u32),
    Used(T),
}

#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<(u32, Content<T>)>,
    free: u32,
    len: usize,
}

/// Ends the list of slots that are not in use.
const END: u32 = u32::MAX;

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: END, len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Makes room for one more value; false if there is no memory.
    pub(super) fn reserve(&mut self) -> bool {
        self.free != END || self.slots.len() < self.slots.capacity() || {
            self.slots.len() < END as usize && self.slots.try_reserve(1).is_ok()
        }
    }

    /// The key of the next value.
    pub(super) fn next_key(&self) -> Key {
        let index = if self.free == END { self.slots() } else { self.free };
        let generation = self.slots.get(index as usize).map_or(0, |(generation, _)| *generation);
        Key { index, generation }
    }

    /// Puts a value where there is [room](Self::reserve).
    pub(super) fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        if self.free == END {
            let index = u32::try_from(self.slots.len()).expect("room was made");
            self.slots.push((0, Content::Used(value)));
            return Key { index, generation: 0 };
        }
        let index = self.free;
        let (generation, content) = &mut self.slots[index as usize];
        if let Content::Free(next) = core::mem::replace(content, Content::Used(value)) {
            self.free = next;
        }
        Key { index, generation: *generation }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let (generation, content) = self.slots.get_mut(key.index as usize)?;
        if *generation != key.generation || matches!(content, Content::Free(_)) {
            return None;
        }
        *generation = generation.wrapping_add(1);
        let freed = core::mem::replace(content, Content::Free(self.free));
        self.free = key.index;
        self.len -= 1;
        match freed {
            Content::Used(value) => Some(value),
            Content::Free(_) => None,
        }
    }

    pub(super) fn find(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index as usize)? {
            (generation, Content::Used(value)) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    pub(super) fn find_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize)? {
            (generation, Content::Used(value)) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Finds two different values at once.
    pub(super) fn find_both(&mut self, one: Key, other: Key) -> Option<(&mut T, &mut T)> {
        let places = [one.index as usize, other.index as usize];
        let [a, b] = self.slots.get_disjoint_mut(places).ok()?;
        match (a, b) {
            ((x, Content::Used(a)), (y, Content::Used(b)))
                if (*x, *y) == (one.generation, other.generation) =>
            {
                Some((a, b))
            }
            _ => None,
        }
    }

    /// The key of the value that is at this index now.
    pub(super) fn key_at(&self, index: u32) -> Option<Key> {
        match self.slots.get(index as usize)? {
            (generation, Content::Used(_)) => Some(Key { index, generation: *generation }),
            _ => None,
        }
    }

    /// How many slots there are, in use or not.
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(END)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_serves_again_and_an_old_key_does_not() {
        let mut slab = Slab::new();
        assert!(slab.reserve());
        let first = slab.insert('a');
        assert!(slab.reserve());
        let second = slab.insert('b');
        assert_eq!(slab.find_both(first, second), Some((&mut 'a', &mut 'b')));
        assert_eq!(slab.find_both(first, first), None);
        assert_eq!((slab.remove(first), slab.remove(first)), (Some('a'), None));
        assert!(slab.reserve());
        let next = slab.next_key();
        let third = slab.insert('c');
        assert_eq!(next, third);
        assert_eq!(
            (third.index, slab.find(first), slab.find(third)),
            (first.index, None, Some(&'c'))
        );
        assert_eq!(slab.find_both(first, second), None);
        assert_eq!((slab.len(), slab.slots()), (2, 2));
        assert_eq!((slab.key_at(0), slab.key_at(2)), (Some(third), None));
    }
}
