//! The FIFO ABI: a word per port, a linked queue of pending ports per priority
//! (xen/include/public/event_channel.h, "FIFO ABI").
//!
//! Xen links a port to the tail of its queue when it becomes pending; the consumer takes ports
//! from the head. A link is a port's number, so each is checked against the array before it
//! is followed, and no call follows more links than there are ports.

use alloc::boxed::Box;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use super::operate;
use crate::ids::{Errno, Gfn, Port};
use crate::page::Page;

const EVTCHNOP_INIT_CONTROL: u64 = 11;
const EVTCHNOP_EXPAND_ARRAY: u64 = 12;

const PENDING: u32 = 1 << 31;
const MASKED: u32 = 1 << 30;
const LINKED: u32 = 1 << 29;
const BUSY: u32 = 1 << 28;
const LINK: u32 = (1 << 17) - 1;

const WORDS_PER_PAGE: usize = 1024;
const MAX_PAGES: usize = (LINK as usize + 1) / WORDS_PER_PAGE;

/// How often a word is tried while Xen marks it busy, which it does for some instructions.
const TRIES: usize = 1000;

/// `struct evtchn_fifo_control_block`.
#[repr(C)]
pub(super) struct Control {
    ready: AtomicU32,
    _pad: AtomicU32,
    head: [AtomicU32; 16],
}

#[repr(C)]
struct InitControl {
    control_gfn: u64,
    offset: u32,
    vcpu: u32,
    link_bits: u8,
    pad: [u8; 7],
}

const _: () = assert!(size_of::<Control>() == 72 && offset_of!(Control, head) == 8);
const _: () = assert!(size_of::<InitControl>() == 24 && offset_of!(InitControl, link_bits) == 16);

type Words = [AtomicU32; WORDS_PER_PAGE];

const _: () = assert!(size_of::<Words>() == size_of::<Page>());

/// The consumer of all queues.
pub(super) struct Fifo {
    control: &'static Control,
    array: heapless::Vec<&'static Words, MAX_PAGES>,
    /// Per priority the next port to take, or 0 to ask the control block.
    heads: [u32; 16],
    /// Priorities whose queue is not known to be empty.
    ready: u32,
    faults: u64,
}

impl Fifo {
    /// Switches this domain to FIFO.
    pub(super) fn open() -> Result<Self, Errno> {
        let page = Page::zeroed().ok_or(Errno::ENOMEM)?;
        let mut arg = InitControl {
            control_gfn: gfn(&page).0,
            offset: 0,
            vcpu: 0,
            link_bits: 0,
            pad: [0; 7],
        };
        // SAFETY: `struct evtchn_init_control`; the page is ours to give, and stays Xen's if it
        // was taken.
        unsafe { operate(EVTCHNOP_INIT_CONTROL, &mut arg) }?;
        let page = core::ptr::from_mut(Box::leak(page)).cast::<Control>();
        // SAFETY: leaked, so valid for ever; larger than a `Control`, page-aligned, and every
        // field is atomic.
        Ok(Self::over(unsafe { &*page }))
    }

    fn over(control: &'static Control) -> Self {
        Self { control, array: heapless::Vec::new(), heads: [0; 16], ready: 0, faults: 0 }
    }

    /// Sees to it that the array has a word for `port`.
    pub(super) fn cover(&mut self, port: Port) -> Result<(), Errno> {
        while self.array.len() * WORDS_PER_PAGE <= port.0 as usize {
            if self.array.is_full() {
                return Err(Errno::ENOSPC);
            }
            let page = Page::zeroed().ok_or(Errno::ENOMEM)?;
            let mut array_gfn = gfn(&page).0;
            let words = Self::masked_words(page);
            // SAFETY: `struct evtchn_expand_array` is the frame, which is leaked.
            unsafe { operate(EVTCHNOP_EXPAND_ARRAY, &mut array_gfn) }?;
            let _ = self.array.push(words);
        }
        Ok(())
    }

    /// A page of words of ports that nobody has opened yet. Leaked even if Xen then refuses
    /// it: a refusal means that there will be no further one.
    fn masked_words(page: Box<Page>) -> &'static Words {
        let page = core::ptr::from_mut(Box::leak(page)).cast::<Words>();
        // SAFETY: leaked, of the same size, page-aligned, and every word is atomic.
        let words = unsafe { &*page };
        words.iter().for_each(|word| word.store(MASKED, Ordering::Relaxed));
        words
    }

    fn word(&self, port: u32) -> Option<&'static AtomicU32> {
        let page = *self.array.get(port as usize / WORDS_PER_PAGE)?;
        page.get(port as usize % WORDS_PER_PAGE).filter(|_| port != 0)
    }

    pub(super) fn next(&mut self, upcall_pending: &AtomicU8) -> Option<Port> {
        // The flag before the queues: what comes in between sets the flag again.
        upcall_pending.store(0, Ordering::SeqCst);
        self.ready |= self.control.ready.swap(0, Ordering::SeqCst) & 0xffff;
        // Each step takes a link, and of those there are no more than ports.
        for _ in 0..=self.array.len() * WORDS_PER_PAGE {
            if self.ready == 0 {
                return None;
            }
            if let Some(port) = self.take(self.ready.trailing_zeros() as usize) {
                return Some(port);
            }
        }
        // Only a queue that Xen relinks as fast as we read gets here.
        self.faults += 1;
        (self.ready, self.heads) = (0, [0; 16]);
        None
    }

    /// Takes the port at the head of a queue; `None` if it has nothing to deliver.
    fn take(&mut self, queue: usize) -> Option<Port> {
        let port = match self.heads[queue] {
            // Acquire: the head was linked before it was named.
            0 => self.control.head[queue].load(Ordering::Acquire),
            port => port,
        };
        let Some(word) = self.word(port) else {
            // A link to nowhere: what was behind it is lost, the other queues are not.
            self.faults += 1;
            self.ready &= !(1 << queue);
            self.heads[queue] = 0;
            return None;
        };
        let old = word.fetch_and(!(LINKED | LINK), Ordering::SeqCst);
        self.heads[queue] = old & LINK;
        if old & LINK == 0 {
            self.ready &= !(1 << queue);
        }
        // A port may be masked, or closed, after it was linked.
        if old & PENDING == 0 || old & MASKED != 0 {
            return None;
        }
        // Cleared before it is served: an event from now on is a new one.
        word.fetch_and(!PENDING, Ordering::SeqCst);
        Some(Port(port))
    }

    pub(super) fn nothing_pending(&self) -> bool {
        self.ready == 0 && self.control.ready.load(Ordering::SeqCst) == 0
    }

    pub(super) fn mask(&self, port: Port) {
        if let Some(word) = self.word(port.0) {
            word.fetch_or(MASKED, Ordering::SeqCst);
        }
    }

    /// Unmasks a port that is not pending; `false` if it is, and Xen has to do it.
    pub(super) fn unmask(&self, port: Port) -> bool {
        let Some(word) = self.word(port.0) else { return true };
        let mut seen = word.load(Ordering::SeqCst);
        for _ in 0..TRIES {
            if seen & MASKED == 0 {
                return true;
            }
            if seen & PENDING != 0 {
                return false;
            }
            // While Xen works on the word, an exchange that expects it idle fails.
            let idle = seen & !BUSY;
            let unmasked = idle & !MASKED;
            match word.compare_exchange(idle, unmasked, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    pub(super) const fn faults(&self) -> u64 {
        self.faults
    }
}

fn gfn(page: &Page) -> Gfn {
    Gfn::holding(core::ptr::from_ref(page) as u64)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test data is small, or meant to wrap")]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;

    use super::*;
    use crate::hypercall::fake;

    /// What Xen does (xen/common/event_fifo.c): links ports to the tails of queues.
    struct Xen {
        fifo: Fifo,
        upcall: AtomicU8,
        tails: [u32; 16],
        priorities: BTreeMap<u32, usize>,
    }

    impl Xen {
        fn with(pages: usize) -> Self {
            fake::install(|_, _| 0);
            let mut fifo = Fifo::open().unwrap();
            fifo.cover(Port((pages * WORDS_PER_PAGE) as u32 - 1)).unwrap();
            assert_eq!(fifo.array.len(), pages);
            fake::install(|_, _| -38);
            Self { fifo, upcall: AtomicU8::new(0), tails: [0; 16], priorities: BTreeMap::new() }
        }

        fn priority(&self, port: u32) -> usize {
            self.priorities.get(&port).copied().unwrap_or(7)
        }

        fn raise(&mut self, port: u32) {
            let word = self.fifo.word(port).unwrap();
            word.fetch_or(PENDING, Ordering::SeqCst);
            self.link(port);
        }

        fn link(&mut self, port: u32) {
            let (word, queue) = (self.fifo.word(port).unwrap(), self.priority(port));
            let seen = word.load(Ordering::SeqCst);
            if seen & (MASKED | LINKED) != 0 || seen & PENDING == 0 {
                return;
            }
            word.fetch_or(LINKED, Ordering::SeqCst);
            let tail = self.fifo.word(self.tails[queue]);
            let linked = tail.is_some_and(|tail| {
                let seen = tail.load(Ordering::SeqCst);
                let behind = seen & LINKED != 0 && self.tails[queue] != port;
                if behind {
                    tail.store(seen & !LINK | port, Ordering::SeqCst);
                }
                behind
            });
            self.tails[queue] = port;
            if !linked {
                self.fifo.control.head[queue].store(port, Ordering::SeqCst);
                let ready = self.fifo.control.ready.fetch_or(1 << queue, Ordering::SeqCst);
                if ready & 1 << queue == 0 {
                    self.upcall.store(1, Ordering::SeqCst);
                }
            }
        }

        fn unmask(&mut self, port: u32) {
            if !self.fifo.unmask(Port(port)) {
                // EVTCHNOP_unmask.
                self.fifo.word(port).unwrap().fetch_and(!MASKED, Ordering::SeqCst);
                self.link(port);
            }
        }

        fn next(&mut self) -> Option<u32> {
            self.fifo.next(&self.upcall).map(|port| port.0)
        }
    }

    #[test]
    fn the_most_urgent_comes_first_then_the_longest_pending() {
        let mut xen = Xen::with(2);
        xen.priorities.extend([(9, 0), (1500, 3), (8, 3)]);
        for port in [3, 4, 1500, 8, 9, 2047] {
            xen.unmask(port);
        }
        for port in [3, 2047, 1500, 4, 9, 8, 3] {
            xen.raise(port);
        }
        let order: Vec<u32> = core::iter::from_fn(|| xen.next()).collect();
        assert_eq!(order, [9, 1500, 8, 3, 2047, 4]);
        assert!(xen.fifo.nothing_pending());
        assert_eq!(xen.fifo.faults(), 0);
    }

    #[test]
    fn an_urgent_port_overtakes_a_queue_being_worked_off() {
        let mut xen = Xen::with(1);
        xen.priorities.insert(9, 0);
        for port in [3, 4, 5, 9] {
            xen.unmask(port);
        }
        [3, 4, 5].into_iter().for_each(|port| xen.raise(port));
        assert_eq!(xen.next(), Some(3));
        xen.raise(9);
        assert_eq!(xen.upcall.load(Ordering::SeqCst), 1, "a new queue announces itself");
        assert_eq!([xen.next(), xen.next(), xen.next()], [Some(9), Some(4), Some(5)]);
    }

    #[test]
    fn new_words_are_masked_until_their_port_is_ready() {
        let mut xen = Xen::with(1);
        xen.raise(5);
        assert_eq!(xen.next(), None);
        assert!(!xen.fifo.unmask(Port(5)), "a pending port is for Xen to link");
        xen.unmask(5);
        assert_eq!(xen.next(), Some(5));
    }

    #[test]
    fn a_word_that_stays_busy_is_left_to_xen() {
        let xen = Xen::with(1);
        xen.fifo.word(5).unwrap().store(MASKED | LINKED | BUSY, Ordering::SeqCst);
        assert!(!xen.fifo.unmask(Port(5)), "no endless wait for a busy word");
    }

    #[test]
    fn the_array_ends_at_the_abis_last_port() {
        fake::install(|_, _| 0);
        let mut fifo = Fifo::open().unwrap();
        assert_eq!(fifo.cover(Port(131_071)), Ok(()));
        assert_eq!(fifo.cover(Port(131_072)), Err(Errno::ENOSPC));
        assert!(fifo.word(131_071).is_some() && fifo.word(131_072).is_none());
        assert!(fifo.word(0).is_none(), "port 0 is never valid");
    }

    #[test]
    fn a_loop_of_links_ends() {
        let mut xen = Xen::with(1);
        let word = |port| xen.fifo.word(port).unwrap();
        word(3).store(LINKED | 4, Ordering::SeqCst);
        word(4).store(LINKED | 3, Ordering::SeqCst);
        xen.fifo.control.head[7].store(3, Ordering::SeqCst);
        xen.fifo.control.ready.store(1 << 7, Ordering::SeqCst);
        assert_eq!(xen.next(), None);
        assert!(xen.fifo.nothing_pending());
    }

    #[test]
    fn a_link_to_nowhere_is_a_fault_and_other_queues_go_on() {
        for nowhere in [0, 1024, 131_071] {
            let mut xen = Xen::with(1);
            xen.unmask(3);
            xen.raise(3);
            xen.fifo.control.head[2].store(nowhere, Ordering::SeqCst);
            xen.fifo.control.ready.fetch_or(1 << 2, Ordering::SeqCst);
            assert_eq!(xen.next(), Some(3), "queue 7 is not harmed by queue 2");
            assert_eq!(xen.next(), None);
            assert_eq!(xen.fifo.faults(), 1);
        }
    }

    proptest! {
        /// Arbitrary words and heads: every call ends, and only ports of the array come out.
        #[test]
        fn corrupt_queues_end(
            words in prop::collection::vec(any::<u32>(), 64), heads: [u32; 16], ready: u32,
        ) {
            let mut xen = Xen::with(1);
            for (port, word) in words.iter().enumerate().skip(1) {
                xen.fifo.word(port as u32).unwrap().store(word & !LINK | word & 63, Ordering::SeqCst);
            }
            for (to, head) in xen.fifo.control.head.iter().zip(heads) {
                to.store(head % 2048, Ordering::SeqCst);
            }
            xen.fifo.control.ready.store(ready, Ordering::SeqCst);
            let delivered: Vec<u32> = core::iter::from_fn(|| xen.next()).take(10_000).collect();
            prop_assert!(delivered.len() <= 64, "a port came twice: {:?}", delivered);
            prop_assert!(delivered.iter().all(|&port| (1..64).contains(&port)));
        }

        /// Against a queue per priority.
        #[test]
        fn delivers_what_queues_would(
            steps in prop::collection::vec((0..4u8, 1..6u32), 0..200),
        ) {
            let mut xen = Xen::with(1);
            xen.priorities.extend([(1, 0), (2, 3)]);
            let mut queues: [VecDeque<u32>; 16] = Default::default();
            let (mut masked, mut pending): (Vec<u32>, Vec<u32>) = ((1..6).collect(), vec![]);
            for (step, port) in steps {
                match step {
                    0 => {
                        xen.raise(port);
                        if !pending.contains(&port) { pending.push(port); }
                    }
                    1 => {
                        xen.fifo.mask(Port(port));
                        if !masked.contains(&port) { masked.push(port); }
                    }
                    2 => {
                        xen.unmask(port);
                        masked.retain(|&other| other != port);
                    }
                    _ => {
                        let port = xen.next();
                        if let Some(port) = port {
                            prop_assert!(pending.contains(&port) && !masked.contains(&port));
                            pending.retain(|&other| other != port);
                            queues.iter_mut().for_each(|queue| queue.retain(|&other| other != port));
                        } else {
                            prop_assert!(pending.iter().all(|port| masked.contains(port)), "lost");
                        }
                    }
                }
                if xen.fifo.nothing_pending() {
                    prop_assert!(
                        pending.iter().all(|port| masked.contains(port)), "would sleep over {:?}", pending
                    );
                }
            }
            prop_assert_eq!(xen.fifo.faults(), 0);
        }
    }
}
