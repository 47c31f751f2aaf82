//! The 2-level ABI: a bit per port, and a bit per word that has one set.
//!
//! Xen sets the port's bit, then its word's bit in the selector, then the upcall flag, each
//! only if the one before was not set. Clearing goes the other way round, or an event would
//! find its bit set and announce nothing, ever.

use core::sync::atomic::Ordering;

use crate::ids::Port;
use crate::shared_info::Layout;

/// How far the current round has come.
///
/// A round visits the words that had events when it began, each bit of each at most once. So
/// whoever is pending when a round begins is served in it, however busy the others are.
pub(super) struct TwoLevel {
    /// Words still to visit.
    words: u64,
    /// The word being visited, and its bits still to deliver.
    word: u32,
    bits: u64,
}

impl TwoLevel {
    pub(super) const fn new() -> Self {
        Self { words: 0, word: 0, bits: 0 }
    }

    pub(super) fn next(&mut self, page: &Layout) -> Option<Port> {
        loop {
            if self.bits == 0 && !self.next_word(page) {
                return None;
            }
            let bit = self.bits.trailing_zeros();
            self.bits &= !(1 << bit);
            // It may have been masked, or closed and so cleared, since the word was looked at.
            let masked =
                page.evtchn_mask[self.word as usize].load(Ordering::SeqCst) & 1 << bit != 0;
            if masked {
                continue;
            }
            // Cleared before it is served: an event from now on is a new one.
            let was =
                page.evtchn_pending[self.word as usize].fetch_and(!(1 << bit), Ordering::SeqCst);
            if was & 1 << bit != 0 {
                return Some(Port(self.word * 64 + bit));
            }
        }
    }

    /// Goes on to the next word that has something to deliver, in the next round if this one
    /// has none.
    fn next_word(&mut self, page: &Layout) -> bool {
        self.rest_of_round(page) || {
            let vcpu = page.vcpu();
            // The flag before the selector: what comes in between sets the flag again.
            vcpu.upcall_pending.store(0, Ordering::SeqCst);
            self.words = vcpu.pending_sel.swap(0, Ordering::SeqCst);
            self.rest_of_round(page)
        }
    }

    fn rest_of_round(&mut self, page: &Layout) -> bool {
        while self.words != 0 {
            self.word = self.words.trailing_zeros();
            self.words &= self.words - 1;
            let word = self.word as usize;
            self.bits = page.evtchn_pending[word].load(Ordering::SeqCst)
                & !page.evtchn_mask[word].load(Ordering::SeqCst);
            if self.bits != 0 {
                return true;
            }
        }
        false
    }

    pub(super) fn nothing_pending(&self, page: &Layout) -> bool {
        self.bits == 0 && self.words == 0 && page.vcpu().pending_sel.load(Ordering::SeqCst) == 0
    }
}

/// The word and bit of a port, if it is one of the 4096.
const fn place(port: Port) -> Option<(usize, u64)> {
    if port.0 < 4096 { Some((port.0 as usize / 64, 1 << (port.0 % 64))) } else { None }
}

pub(super) fn mask(page: &Layout, port: Port) {
    if let Some((word, bit)) = place(port) {
        page.evtchn_mask[word].fetch_or(bit, Ordering::SeqCst);
    }
}

pub(super) fn unmask(page: &Layout, port: Port) {
    let Some((word, bit)) = place(port) else { return };
    page.evtchn_mask[word].fetch_and(!bit, Ordering::SeqCst);
    // What came while masked was not announced; an event from now on announces itself.
    if page.evtchn_pending[word].load(Ordering::SeqCst) & bit != 0 {
        page.vcpu().pending_sel.fetch_or(1 << word, Ordering::SeqCst);
        page.vcpu().upcall_pending.store(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::shared_info::SharedInfo;

    /// What Xen does for an event at `port` (xen/common/event_2l.c). Tells whether it
    /// announced the event by an upcall.
    fn raise(page: &Layout, port: u32) -> bool {
        let (word, bit) = place(Port(port)).unwrap();
        if page.evtchn_pending[word].fetch_or(bit, Ordering::SeqCst) & bit != 0
            || page.evtchn_mask[word].load(Ordering::SeqCst) & bit != 0
        {
            return false;
        }
        let sel = page.vcpu().pending_sel.fetch_or(1 << word, Ordering::SeqCst);
        let newly = sel & 1 << word == 0;
        newly && page.vcpu().upcall_pending.swap(1, Ordering::SeqCst) == 0
    }

    #[derive(Clone, Debug)]
    enum Step {
        Raise(u32),
        Next,
        Mask(u32),
        Unmask(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        // A few ports of a few words, the first and last among them.
        let port = prop::sample::select(vec![0u32, 1, 63, 64, 65, 640, 4032, 4095]);
        prop_oneof![
            3 => port.clone().prop_map(Step::Raise),
            3 => Just(Step::Next),
            1 => port.clone().prop_map(Step::Mask),
            1 => port.prop_map(Step::Unmask),
        ]
    }

    proptest! {
        /// Against a set of pending and a set of masked ports: nothing lost, nothing invented,
        /// and before sleeping whatever could be delivered would have woken us.
        #[test]
        fn delivers_what_a_set_would(steps in prop::collection::vec(step(), 0..200)) {
            let page = SharedInfo::fake().page();
            let mut events = TwoLevel::new();
            let (mut pending, mut masked) = (BTreeSet::new(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Raise(port) => { raise(page, port); pending.insert(port); }
                    Step::Mask(port) => { mask(page, Port(port)); masked.insert(port); }
                    Step::Unmask(port) => { unmask(page, Port(port)); masked.remove(&port); }
                    Step::Next => match events.next(page) {
                        Some(Port(port)) => {
                            prop_assert!(!masked.contains(&port), "{} is masked", port);
                            prop_assert!(pending.remove(&port), "{} was not pending", port);
                        }
                        None => prop_assert!(pending.is_subset(&masked), "{:?} lost", pending),
                    },
                }
                if events.nothing_pending(page) {
                    prop_assert!(pending.is_subset(&masked), "would sleep over {:?}", pending);
                }
            }
            while let Some(Port(port)) = events.next(page) { pending.remove(&port); }
            prop_assert!(pending.is_subset(&masked));
            prop_assert!(events.nothing_pending(page));
            // After all is served an event announces itself again: the flag and selector are clear.
            if !masked.contains(&640) && !pending.contains(&640) {
                prop_assert!(raise(page, 640), "no upcall ever again");
            }
        }
    }

    #[test]
    fn a_busy_low_port_does_not_starve_a_high_one() {
        let page = SharedInfo::fake().page();
        let mut events = TwoLevel::new();
        raise(page, 1);
        raise(page, 4095);
        let mut order = Vec::new();
        for _ in 0..4 {
            let Port(port) = events.next(page).unwrap();
            order.push(port);
            raise(page, 1); // Port 1 is pending again as soon as it is served.
        }
        assert_eq!(order[..2], [1, 4095], "within one round both are served: {order:?}");
    }

    #[test]
    fn ports_beyond_the_abi_are_left_alone() {
        let page = SharedInfo::fake().page();
        mask(page, Port(4096));
        unmask(page, Port(u32::MAX));
        assert!(page.evtchn_mask.iter().all(|word| word.load(Ordering::SeqCst) == 0));
    }
}
