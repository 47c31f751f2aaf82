//! Bytes that wait between two rings.

use alloc::vec::Vec;

/// A queue of bytes in one piece, of a capacity that is taken at once and given back at once.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// Where those begin that still wait.
    start: usize,
    capacity: usize,
}

impl Held {
    /// Takes memory for `capacity` bytes; false if there is none.
    pub(super) fn open(&mut self, capacity: usize) -> bool {
        if self.bytes.try_reserve_exact(capacity).is_err() {
            return false;
        }
        self.capacity = capacity;
        true
    }

    /// What it has taken.
    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Room for `count` bytes behind the others, to be written by the caller.
    ///
    /// # Panics
    /// If they are more than the capacity: that is our own mistake.
    pub(super) fn extend(&mut self, count: usize) -> &mut [u8] {
        assert!(self.len() + count <= self.capacity, "{count} bytes more than can be held");
        if self.bytes.len() + count > self.capacity {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let end = self.bytes.len();
        self.bytes.resize(end + count, 0);
        &mut self.bytes[end..]
    }

    /// Forgets the first `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start >= self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_within_the_capacity() {
        let mut held = Held::default();
        assert!(held.open(10));
        held.extend(6).copy_from_slice(b"abcdef");
        held.consume(4);
        held.extend(8).copy_from_slice(b"ghijklmn");
        assert_eq!((held.bytes(), held.capacity()), (&b"efghijklmn"[..], 10));
        held.consume(10);
        assert_eq!(held.len(), 0);
        held.extend(10).fill(7);
        assert_eq!(held.bytes(), [7; 10]);
    }
}
