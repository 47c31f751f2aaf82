//! What has to happen when: a heap in which every entry knows its place, so that one that is no
//! longer needed goes at once.

use alloc::vec::Vec;
use core::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// Times with the numbers of whose they are, each not before its parent's.
    heap: Vec<(Duration, u32)>,
    /// By number: the place in the heap, or [`NOWHERE`].
    places: Vec<u32>,
}

const NOWHERE: u32 = u32::MAX;

impl Deadlines {
    /// Makes room for `number`; false if there is no memory.
    pub(super) fn reserve(&mut self, number: u32) -> bool {
        let needed = number as usize + 1;
        let more = needed.saturating_sub(self.places.len());
        if self.places.try_reserve(more).is_err() || self.heap.try_reserve(1).is_err() {
            return false;
        }
        if more > 0 {
            self.places.resize(needed, NOWHERE);
        }
        true
    }

    /// Sets the time of a number for which there is [room](Self::reserve) and no time yet.
    pub(super) fn set(&mut self, number: u32, when: Duration) {
        self.heap.push((when, number));
        self.rise(self.heap.len() - 1);
    }

    pub(super) fn remove(&mut self, number: u32) {
        let place = self.places.get_mut(number as usize);
        let place = place.map_or(NOWHERE, |place| core::mem::replace(place, NOWHERE)) as usize;
        if place >= self.heap.len() {
            return;
        }
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.rise(place);
            self.sink(self.places[self.heap[place].1 as usize] as usize);
        }
    }

    /// The earliest.
    pub(super) fn first(&self) -> Option<(Duration, u32)> {
        self.heap.first().copied()
    }

    /// Moves an entry up as far as it has to go.
    fn rise(&mut self, mut place: usize) {
        while place > 0 && self.heap[(place - 1) / 2].0 > self.heap[place].0 {
            self.heap.swap(place, (place - 1) / 2);
            self.note(place);
            place = (place - 1) / 2;
        }
        self.note(place);
    }

    /// Moves an entry down as far as it has to go.
    fn sink(&mut self, mut place: usize) {
        loop {
            let children = [2 * place + 1, 2 * place + 2];
            let present = children.into_iter().filter(|&child| child < self.heap.len());
            let Some(child) = present.min_by_key(|&child| self.heap[child].0) else { break };
            if self.heap[child].0 >= self.heap[place].0 {
                break;
            }
            self.heap.swap(place, child);
            self.note(place);
            place = child;
        }
        self.note(place);
    }

    fn note(&mut self, place: usize) {
        let number = self.heap[place].1 as usize;
        self.places[number] = u32::try_from(place).unwrap_or(NOWHERE);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_earliest_is_first(
            steps in prop::collection::vec((0..20u32, prop::option::of(0..50u8)), 0..200),
        ) {
            let mut deadlines = Deadlines::default();
            let mut model = BTreeMap::new();
            for (number, when) in steps {
                deadlines.remove(number);
                model.remove(&number);
                if let Some(when) = when {
                    prop_assert!(deadlines.reserve(number));
                    deadlines.set(number, Duration::from_millis(when.into()));
                    model.insert(number, when);
                }
                let first = deadlines.first();
                prop_assert_eq!(first.map(|(when, _)| when.as_millis()), model.values().min().map(|&when| when.into()));
                if let Some((when, number)) = first {
                    prop_assert_eq!(u128::from(model[&number]), when.as_millis());
                }
                prop_assert_eq!(deadlines.heap.len(), model.len());
            }
        }
    }
}
