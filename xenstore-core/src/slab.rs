//! A table of values at numbers that are reused, in chunks: it grows without copying and wastes
//! at most one chunk.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::array;

const CHUNK: usize = 64;

#[derive(Debug)]
enum Entry<T> {
    /// Not in use; the number of the next such entry.
    Free(u32),
    Used(T),
}

/// Ends the list of entries that are not in use.
const END: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Box<[Entry<T>; CHUNK]>>,
    free: u32,
    len: usize,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), free: END, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if self.free == END {
            self.grow();
        }
        let number = self.free;
        if let Some(entry) = self.entry_mut(number)
            && let Entry::Free(next) = core::mem::replace(entry, Entry::Used(value))
        {
            self.free = next;
        }
        self.len += 1;
        number
    }

    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        let free = self.free;
        let entry = self.entry_mut(number)?;
        if let Entry::Free(_) = entry {
            return None;
        }
        let Entry::Used(value) = core::mem::replace(entry, Entry::Free(free)) else { return None };
        self.free = number;
        self.len -= 1;
        Some(value)
    }

    pub(crate) fn find(&self, number: u32) -> Option<&T> {
        let (chunk, place) = split(number);
        match &self.chunks.get(chunk)?[place] {
            Entry::Used(value) => Some(value),
            Entry::Free(_) => None,
        }
    }

    pub(crate) fn find_mut(&mut self, number: u32) -> Option<&mut T> {
        match self.entry_mut(number)? {
            Entry::Used(value) => Some(value),
            Entry::Free(_) => None,
        }
    }

    /// Returns every value with its number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> + '_ {
        let entries = self.chunks.iter().flat_map(|chunk| chunk.iter());
        (0..).zip(entries).filter_map(|(number, entry)| match entry {
            Entry::Used(value) => Some((number, value)),
            Entry::Free(_) => None,
        })
    }

    fn entry_mut(&mut self, number: u32) -> Option<&mut Entry<T>> {
        let (chunk, place) = split(number);
        self.chunks.get_mut(chunk).map(|chunk| &mut chunk[place])
    }

    /// Adds a chunk whose entries are free, the lowest number first.
    fn grow(&mut self) {
        let first = u32::try_from(self.chunks.len() * CHUNK).expect("memory ends before numbers");
        let mut next = first;
        let chunk = array::from_fn(|_| {
            next += 1;
            Entry::Free(next)
        });
        self.chunks.push(Box::new(chunk));
        if let Some(last) = self.entry_mut(next - 1) {
            *last = Entry::Free(END);
        }
        self.free = first;
    }
}

fn split(number: u32) -> (usize, usize) {
    (number as usize / CHUNK, number as usize % CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_serve_again() {
        let mut slab = Slab::new();
        for expected in 0..200 {
            assert_eq!(slab.insert(expected), expected);
        }
        assert_eq!(slab.remove(7), Some(7));
        assert_eq!(slab.remove(150), Some(150));
        assert_eq!((slab.remove(7), slab.find(7), slab.len()), (None, None, 198));
        assert_eq!(slab.find_mut(7), None, "what is free is nobody's to change");
        assert_eq!((slab.insert(1), slab.insert(2), slab.insert(3)), (150, 7, 200));
        assert_eq!((slab.find(7), slab.find(100_000)), (Some(&2), None));
        assert_eq!(slab.iter().count(), 201);
    }
}
