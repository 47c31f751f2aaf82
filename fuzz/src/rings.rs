//! The target `rings`: the rings under a peer that may lie.
//!
//! The peer's indexes and bytes are the input, and change between any two of our steps; in some
//! runs a second thread changes them all the while. No step panics, claims more than a ring holds,
//! or writes anywhere but to its own half. As long as both ends were honest, what comes out is
//! what went in, in its order.
//!
//! Memory on both sides of the shared page and of every private buffer is watched by marks and
//! not by a sanitizer: the ring's copies are single instructions, which no sanitizer sees.

mod page;
mod slots;
mod stream;

use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::VecDeque;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use xen_sys::page::{OwnPage, OwnPages, PAGE_SIZE};
use xen_sys::ring::BadIndex;
use xen_sys::ring::shared::Region;
use xen_sys::ring::xenstore::RING_SIZE;

use page::Page;
use slots::Slots;
use stream::Stream;

/// One run.
#[derive(Arbitrary, Debug)]
pub struct Input {
    ring: Ring,
    /// Where the indexes stand at the start.
    start: u32,
    /// What a second thread writes over and over; none if there is nothing.
    storm: Vec<Lie>,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Ring {
    /// The Xenstore page.
    Xenstore,
    /// A byte stream of its own layout, of this many bytes as a power of two.
    Stream(u8),
    /// Request and response slots.
    Slots,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// The guest's end puts something in.
    Put(u16),
    /// The guest's end takes something out.
    Take(u16),
    /// The other end answers.
    Answer(u16),
    /// The other end looks, and takes only a part of what it saw.
    Fetch { see: u16, take: u16 },
    /// The other end begins anew.
    Reset,
    /// A peer writes what it should not.
    Lie(Lie),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Lie {
    /// A word of the page, most of which are indexes.
    Word { at: u8, value: u32 },
    /// One that is near to what stands there.
    Nudge { at: u8, by: i8 },
    /// A byte anywhere.
    Byte { at: u16, value: u8 },
}

/// Runs the steps, and panics where a ring breaks a promise.
pub fn run(input: &Input) {
    let pages = OwnPages::zeroed(3).expect("there is memory");
    let pages: Vec<OwnPage> = pages.split().collect();
    let [before, page, after] = &pages[..] else { panic!("three pages") };
    for side in [before, after] {
        Region::of(side).fill(0, PAGE_SIZE, MARK);
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if !input.storm.is_empty() {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    input.storm.iter().for_each(|lie| lie.tell(page));
                }
            });
        }
        match input.ring {
            Ring::Xenstore => Page::new(page, input).run(&input.steps),
            Ring::Stream(bits) => Stream::new(page, bits, input).run(&input.steps),
            Ring::Slots => Slots::new(page, input).run(&input.steps),
        }
        over.store(true, Ordering::Relaxed);
    });
    for side in [before, after] {
        let mut bytes = [0; PAGE_SIZE];
        Region::of(side).copy_out(0, &mut bytes);
        assert!(bytes.iter().all(|&byte| byte == MARK), "something was written beside the page");
    }
}

const MARK: u8 = 0xa5;

impl Lie {
    fn tell(self, page: &OwnPage) {
        let region = Region::of(page);
        match self {
            Self::Word { at, value } => region.word(place(at)).store(value, Ordering::Relaxed),
            Self::Nudge { at, by } => {
                region.word(place(at)).fetch_add(i32::from(by).cast_unsigned(), Ordering::Relaxed);
            }
            Self::Byte { at, value } => {
                region.byte(usize::from(at) % PAGE_SIZE).store(value, Ordering::Relaxed);
            }
        }
    }
}

/// Where the words lie that rings have: at the page's start, or behind both Xenstore rings.
fn place(at: u8) -> usize {
    let word = usize::from(at % 16) * 4;
    if at & 0x80 == 0 { word } else { 2 * RING_SIZE + word }
}

/// A private buffer with marks on both sides.
struct Marked {
    bytes: Vec<u8>,
    len: usize,
}

impl Marked {
    fn new(len: usize) -> Self {
        Self { bytes: vec![MARK; len + 64], len }
    }

    fn inside(&mut self) -> &mut [u8] {
        &mut self.bytes[32..32 + self.len]
    }

    /// What was written, of which no more may have been.
    fn written(&self, count: usize) -> &[u8] {
        let (before, rest) = self.bytes.split_at(32);
        let (written, after) = rest.split_at(count);
        let untouched = before.iter().chain(after).all(|&byte| byte == MARK);
        assert!(count <= self.len && untouched, "more than {count} of {} bytes came", self.len);
        written
    }
}

/// One direction of a stream, as it should be.
#[derive(Default)]
struct Queue {
    bytes: VecDeque<u8>,
    next: u8,
}

impl Queue {
    /// Bytes to write next, never the mark.
    fn fresh(&self, len: usize) -> Vec<u8> {
        let bytes = (0..len).map(|at| self.next.wrapping_add(at.to_le_bytes()[0]));
        bytes.map(|byte| if byte == MARK { 0 } else { byte }).collect()
    }

    fn wrote(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.next = self.next.wrapping_add(bytes.len().to_le_bytes()[0]);
    }

    fn read(&mut self, bytes: &[u8]) {
        let expected: Vec<u8> = self.bytes.drain(..bytes.len().min(self.bytes.len())).collect();
        assert_eq!(bytes, expected, "what came out is not what went in");
    }
}

fn judge(
    honest: bool,
    result: Result<usize, BadIndex>,
    expected: usize,
    size: usize,
) -> Option<usize> {
    match result {
        Ok(count) if honest => assert_eq!(count, expected, "how many bytes moved"),
        // A peer that frees room while it is filled gets more than one ring, but never more
        // than was meant for it, which the caller's slices see to.
        Ok(_) => {}
        Err(BadIndex { prod, cons }) => {
            assert!(!honest, "an honest end was refused: {prod} {cons}");
            assert!(prod.wrapping_sub(cons) as usize > size, "a possible index was refused");
        }
    }
    honest.then_some(expected)
}
