//! A set of numbers from which the lowest is taken: grant references, frames of the window.

use core::ops::Range;

const WORDS: usize = 512;

/// Free numbers below [`Bitmap::CAPACITY`]; taking the lowest looks at nine words, however
/// many are taken.
pub(crate) struct Bitmap {
    /// Bit set: free.
    words: [u64; WORDS],
    /// Bit set: the word has a free bit.
    summary: [u64; WORDS / 64],
}

impl Bitmap {
    /// How many numbers it can hold.
    pub(crate) const CAPACITY: usize = WORDS * 64;

    /// A set without any free number.
    pub(crate) const fn taken() -> Self {
        Self { words: [0; WORDS], summary: [0; WORDS / 64] }
    }

    /// A set in which `numbers` are free, as far as they fit.
    pub(crate) fn with_free(numbers: Range<usize>) -> Self {
        let mut set = Self::taken();
        numbers.take_while(|&number| number < Self::CAPACITY).for_each(|number| set.free(number));
        set
    }

    /// Takes the lowest free number.
    pub(crate) fn take(&mut self) -> Option<usize> {
        let (group, summary) = self.summary.iter().enumerate().find(|(_, word)| **word != 0)?;
        let word = group * 64 + summary.trailing_zeros() as usize;
        let bit = self.words[word].trailing_zeros() as usize;
        self.words[word] &= !(1 << bit);
        if self.words[word] == 0 {
            self.summary[group] &= !(1 << (word % 64));
        }
        Some(word * 64 + bit)
    }

    /// Makes a taken number free again.
    ///
    /// # Panics
    /// If it is free already or beyond the capacity: two owners of one number is our own
    /// mistake, and going on would share memory between them.
    pub(crate) fn free(&mut self, number: usize) {
        let (word, bit) = (number / 64, number % 64);
        assert!(self.words[word] & 1 << bit == 0, "number {number} was freed twice");
        self.words[word] |= 1 << bit;
        self.summary[word / 64] |= 1 << (word % 64);
    }

    /// How many numbers are free. Looks at every word: for reports and tests.
    pub(crate) fn count_free(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn takes_the_lowest_as_an_ordered_set_would(
            start in 0..Bitmap::CAPACITY, len in 0..300usize,
            steps in proptest::collection::vec(any::<Option<prop::sample::Index>>(), 0..400),
        ) {
            let end = (start + len).min(Bitmap::CAPACITY);
            let mut bitmap = Bitmap::with_free(start..start + len);
            let mut free: BTreeSet<usize> = (start..end).collect();
            let mut taken = Vec::new();
            for step in steps {
                match step {
                    Some(which) if !taken.is_empty() => {
                        let number = taken.swap_remove(which.index(taken.len()));
                        bitmap.free(number);
                        free.insert(number);
                    }
                    _ => {
                        let number = bitmap.take();
                        prop_assert_eq!(number, free.pop_first());
                        taken.extend(number);
                    }
                }
                prop_assert_eq!(bitmap.count_free(), free.len());
            }
        }
    }

    #[test]
    fn the_last_number_is_usable() {
        let mut bitmap = Bitmap::with_free(Bitmap::CAPACITY - 1..Bitmap::CAPACITY + 5);
        assert_eq!(bitmap.take(), Some(Bitmap::CAPACITY - 1));
        assert_eq!(bitmap.take(), None);
    }

    #[test]
    #[should_panic = "freed twice"]
    fn freeing_twice_is_our_mistake() {
        Bitmap::with_free(0..5).free(3);
    }
}
