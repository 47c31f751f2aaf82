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
        let Range { start, end } = numbers.start..numbers.end.min(Self::CAPACITY);
        // By words: number by number it took a fifth of the store's start.
        for word in start / 64..end.div_ceil(64) {
            let (low, high) = (start.max(word * 64) % 64, end.min(word * 64 + 64) - word * 64);
            set.words[word] = (u64::MAX >> (64 - high)) & (u64::MAX << low);
            set.summary[word / 64] |= u64::from(set.words[word] != 0) << (word % 64);
        }
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

    /// Takes the lowest `count` free numbers that follow each other; gives the first. Looks at each
    /// number: for what is set up once.
    pub(crate) fn take_run(&mut self, count: usize) -> Option<usize> {
        let mut run = 0;
        let last = (0..Self::CAPACITY).find(|&number| {
            run = if self.is_free(number) { run + 1 } else { 0 };
            run == count
        })?;
        let first = last + 1 - count;
        for number in first..=last {
            let word = number / 64;
            self.words[word] &= !(1 << (number % 64));
            if self.words[word] == 0 {
                self.summary[word / 64] &= !(1 << (word % 64));
            }
        }
        Some(first)
    }

    const fn is_free(&self, number: usize) -> bool {
        self.words[number / 64] & 1 << (number % 64) != 0
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

    #[test]
    fn free_are_those_that_were_said_to_be() {
        let ends = [0, 1, 63, 64, 65, 127, 128, 4096, Bitmap::CAPACITY - 1, Bitmap::CAPACITY];
        for start in ends {
            for end in ends {
                let mut bitmap = Bitmap::with_free(start..end);
                assert_eq!(bitmap.count_free(), end.saturating_sub(start), "{start}..{end}");
                let first = (start < end).then_some(start);
                assert_eq!(bitmap.take(), first, "{start}..{end}");
            }
        }
        assert_eq!(Bitmap::with_free(0..usize::MAX).count_free(), Bitmap::CAPACITY);
    }

    #[test]
    fn a_run_is_the_lowest_that_is_long_enough() {
        let mut bitmap = Bitmap::with_free(10..200);
        while bitmap.take() != Some(70) {}
        (10..70).filter(|&number| number != 12).for_each(|number| bitmap.free(number));
        assert_eq!(bitmap.take_run(3), Some(13), "10 to 11 are too few");
        assert_eq!(bitmap.take_run(60), Some(71), "16 to 69 are too few");
        assert_eq!(bitmap.take_run(100), None);
        assert_eq!(bitmap.take(), Some(10), "what was passed over is still free");
        assert_eq!(bitmap.count_free(), 190 - 2 - 3 - 60 - 1);
    }

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
