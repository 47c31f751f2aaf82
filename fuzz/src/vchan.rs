//! The target `vchan`: a channel whose peer writes what it likes into the page of words.
//!
//! The other end's indexes, lives, wishes and orders are the input, and change between any two of our
//! steps. No step panics, moves more than a ring holds, or writes anywhere but where its end writes.
//! As long as nobody lied, what comes out is what went in.

use core::sync::atomic::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use databack::vchan::{End, Order, Sizes};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use xen_sys::page::{OwnPages, PAGE_SIZE};
use xen_sys::ring::shared::Region;

/// One run.
#[derive(Arbitrary, Debug)]
pub struct Input {
    left: u8,
    right: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Write {
        server: bool,
        len: u16,
    },
    Read {
        server: bool,
        len: u16,
    },
    Echo {
        most: u16,
    },
    Forward {
        head: u8,
        len: u16,
    },
    Await {
        server: bool,
        bytes: bool,
        seen: u16,
    },
    Notify {
        server: bool,
    },
    Close {
        server: bool,
    },
    /// A peer writes a word of the page.
    Lie {
        at: u8,
        value: u32,
    },
    /// Or one that is near to what stands there.
    Nudge {
        at: u8,
        by: i8,
    },
}

type Ring = End<Arc<OwnPages>>;

/// Runs the steps, and panics where a ring breaks a promise.
pub fn run(input: &Input) {
    let order = |raw: u8| Order::new(10 + u16::from(raw % 5)).expect("a ring can have it");
    let Some(sizes) = Sizes::new(order(input.left), order(input.right)) else { return };
    let memory = Arc::new(OwnPages::zeroed(sizes.pages()).expect("there is memory"));
    let grants = 0..u32::try_from(sizes.grants()).expect("few");
    let server = End::serve(Arc::clone(&memory), sizes, Count(grants));
    assert_eq!(Sizes::announced(&memory), Some(sizes));
    let client = End::connect(memory, sizes);
    let sink_sizes = Sizes::new(order(2), order(3)).expect("pages of their own");
    let sink = Arc::new(OwnPages::zeroed(sink_sizes.pages()).expect("there is memory"));
    let other = 0..u32::try_from(sink_sizes.grants()).expect("few");
    let sink = End::serve(sink, sink_sizes, Count(other));
    let mut world =
        World { ends: [server, client], sink, queues: Default::default(), honest: true, next: 0 };
    for step in &input.steps {
        world.step(step);
    }
}

/// An iterator that knows its length; a range of u32 does not.
struct Count(core::ops::Range<u32>);

impl Iterator for Count {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Count {}

struct World {
    /// The server's and the client's.
    ends: [Ring; 2],
    /// A channel that bytes are forwarded to.
    sink: Ring,
    /// What is on the way to each of them.
    queues: [VecDeque<u8>; 2],
    honest: bool,
    next: u8,
}

impl World {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write { server, len } => self.write(usize::from(!server), len.into()),
            Step::Read { server, len } => self.read(usize::from(!server), len.into()),
            Step::Echo { most } => self.echo(most.into()),
            Step::Forward { head, len } => self.forward(head.into(), len.into()),
            Step::Await { server, bytes, seen } => {
                let end = &mut self.ends[usize::from(!server)];
                let seen = seen.into();
                let told = if bytes { end.await_bytes(seen) } else { end.await_room(seen) };
                assert!(told.is_ok() || !self.honest);
            }
            Step::Notify { server } => {
                let end = &mut self.ends[usize::from(!server)];
                let _ = end.take_notify();
                assert!(!end.take_notify(), "nothing moved since");
            }
            Step::Close { server } => self.ends[usize::from(!server)].close(),
            Step::Lie { at, value } => self.word(at, |word| word.store(value, Ordering::Relaxed)),
            Step::Nudge { at, by } => self.word(at, |word| {
                word.fetch_add(i32::from(by).cast_unsigned(), Ordering::Relaxed);
            }),
        }
    }

    fn word(&mut self, at: u8, change: impl FnOnce(&core::sync::atomic::AtomicU32)) {
        self.honest = false;
        change(Region::of(self.ends[0].memory()).word(usize::from(at % 8) * 4));
    }

    /// The size of the ring that an end writes to.
    fn ring(&self, end: usize) -> usize {
        let sizes = self.ends[0].sizes();
        if end == 0 { sizes.right().bytes() } else { sizes.left().bytes() }
    }

    fn write(&mut self, end: usize, len: usize) {
        let bytes: Vec<u8> = (0..len).map(|_| self.fresh()).collect();
        let ring = self.ring(end);
        match self.ends[end].write(&bytes) {
            Ok(count) => {
                assert!(count <= ring && count <= len);
                let queue = &mut self.queues[1 - end];
                assert!(!self.honest || count == len.min(ring - queue.len()));
                queue.extend(&bytes[..count]);
            }
            Err(_) => assert!(!self.honest),
        }
    }

    fn read(&mut self, end: usize, len: usize) {
        let mut bytes = vec![MARK; len + 2];
        let ring = self.ring(1 - end);
        match self.ends[end].read(&mut bytes[1..=len]) {
            Ok(count) => {
                assert!(count <= ring && count <= len);
                assert!(bytes[0] == MARK && bytes[count + 1..].iter().all(|&byte| byte == MARK));
                let queue = &mut self.queues[end];
                if self.honest {
                    let expected: Vec<u8> = queue.drain(..len.min(queue.len())).collect();
                    assert_eq!(bytes[1..=count], expected);
                }
            }
            Err(_) => assert!(!self.honest),
        }
    }

    fn echo(&mut self, most: usize) {
        match self.ends[0].echo(most) {
            Ok(count) => {
                assert!(count <= most && count <= PAGE_SIZE * 4);
                if self.honest {
                    let moved: Vec<u8> = self.queues[0].drain(..count).collect();
                    self.queues[1].extend(moved);
                }
            }
            Err(_) => assert!(!self.honest),
        }
    }

    /// Forwards what the server has into another channel, without taking it.
    fn forward(&mut self, head: usize, len: usize) {
        let Ok(seen) = self.ends[0].available() else { return assert!(!self.honest) };
        let range = 0..len.min(seen);
        let count = range.len();
        let room = self.sink.room().expect("nobody lies there");
        let fits = self.ends[0].forward(&mut self.sink, &vec![MARK; head], range);
        assert_eq!(fits, Ok(head + count <= room));
        if fits == Ok(true) {
            self.ends[0].consume(count);
            if self.honest {
                self.queues[0].drain(..count);
            }
        }
        if room < 2000 {
            // The other channel's client reads it all.
            let sizes = self.sink.sizes();
            let mut client = End::connect(Arc::clone(self.sink.memory()), sizes);
            let mut bytes = vec![0; sizes.right().bytes()];
            client.read(&mut bytes).expect("nobody lies there");
        }
    }

    fn fresh(&mut self) -> u8 {
        self.next = self.next.wrapping_add(1);
        self.next
    }
}

const MARK: u8 = 0xa5;
