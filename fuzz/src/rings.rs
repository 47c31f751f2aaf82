//! The target `rings`: the rings under a peer that may lie.
//!
//! The peer's indexes and bytes are the input, and change between any two of our steps; in some
//! runs a second thread changes them all the while. No step panics, claims more than a ring holds,
//! or writes anywhere but to its own half. As long as both ends were honest, what comes out is
//! what went in, in its order.
//!
//! Memory on both sides of the shared page and of every private buffer is watched by marks and
//! not by a sanitizer: the ring's copies are single instructions, which no sanitizer sees.

use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::VecDeque;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use xen_sys::page::{OwnPage, OwnPages, PAGE_SIZE};
use xen_sys::ring::BadIndex;
use xen_sys::ring::shared::Region;
use xen_sys::ring::slots::{Back, Front};
use xen_sys::ring::stream::{Half, Reader, Writer};
use xen_sys::ring::xenstore::{Client, RING_SIZE, RingError, Server, ServerFeatures};

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

/// Both ends of the Xenstore page.
struct Page {
    page: OwnPage,
    server: Server<OwnPage>,
    client: Client<OwnPage>,
    requests: Queue,
    responses: Queue,
    honest: bool,
}

impl Page {
    fn new(page: &OwnPage, input: &Input) -> Self {
        for word in 0..4 {
            Region::of(page).word(2 * RING_SIZE + 4 * word).store(input.start, Ordering::Relaxed);
        }
        let (server, client) = (Server::attach(page.clone()), Client::attach(page.clone()));
        let (requests, responses) = (Queue::default(), Queue::default());
        Self {
            page: page.clone(),
            server,
            client,
            requests,
            responses,
            honest: input.storm.is_empty(),
        }
    }

    fn run(mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Put(len) => {
                    let bytes = self.requests.fresh(usize::from(*len) % 1500);
                    let written = self.client.write(&bytes);
                    let room = RING_SIZE - self.requests.bytes.len().min(RING_SIZE);
                    if let Some(count) = self.judge(written, bytes.len().min(room)) {
                        self.requests.wrote(&bytes[..count]);
                    }
                }
                Step::Take(len) => {
                    let mut bytes = Marked::new(usize::from(*len) % 1500);
                    let read = self.client.read(bytes.inside());
                    let count = *read.as_ref().unwrap_or(&0);
                    let waiting = self.responses.bytes.len();
                    if self.judge(read, bytes.len.min(waiting)).is_some() {
                        self.responses.read(bytes.written(count));
                    }
                    bytes.written(count);
                }
                Step::Answer(len) => {
                    let bytes = self.responses.fresh(usize::from(*len) % 1500);
                    let written = self.server.write(&bytes);
                    let room = RING_SIZE - self.responses.bytes.len().min(RING_SIZE);
                    if let Some(count) = self.judge(written, bytes.len().min(room)) {
                        self.responses.wrote(&bytes[..count]);
                    }
                }
                Step::Fetch { see, take } => self.fetch(*see, *take),
                Step::Reset => {
                    self.server.reset();
                    self.server.announce(ServerFeatures::RECONNECTION);
                    self.server.tell_error(RingError::None);
                    self.server.mark_connected();
                    self.client = Client::attach(self.page.clone());
                    (self.requests, self.responses) = (Queue::default(), Queue::default());
                    // Both indexes are where they should be again, unless somebody writes on.
                }
                Step::Lie(lie) => {
                    lie.tell(&self.page);
                    self.honest = false;
                }
            }
            let _ = (self.server.take_notify(), self.server.reconnect_wanted());
            let _ = (self.client.room(), self.client.available(), self.server.client_port());
        }
    }

    fn fetch(&mut self, see: u16, take: u16) {
        let mut bytes = Marked::new(usize::from(see) % 1500);
        let seen = self.server.peek(bytes.inside());
        let Ok(count) = seen else {
            self.judge(seen, 0);
            return;
        };
        assert!(count <= RING_SIZE && count <= bytes.len, "{count} bytes of a ring were seen");
        // What was seen may be consumed whatever the peer wrote meanwhile.
        let consumed = usize::from(take).min(count);
        self.server.consume(consumed);
        let waiting = self.requests.bytes.len();
        if self.judge(seen, bytes.len.min(waiting)).is_some() {
            self.requests.read(&bytes.written(count)[..consumed]);
        }
        bytes.written(count);
    }

    /// The count of a step, if it must be what it should be: both ends are honest.
    fn judge(&self, result: Result<usize, BadIndex>, expected: usize) -> Option<usize> {
        judge(self.honest, result, expected, RING_SIZE)
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

/// Both ends of a byte stream that lies at the end of the page.
struct Stream {
    page: OwnPage,
    half: Half,
    writer: Writer,
    reader: Reader,
    queue: Queue,
    honest: bool,
}

impl Stream {
    fn new(page: &OwnPage, bits: u8, input: &Input) -> Self {
        let size = 1 << (bits % 12);
        let half = Half::new(4096 - size, size, 4, 8);
        let region = Region::of(page);
        for index in [4, 8] {
            region.word(index).store(input.start, Ordering::Relaxed);
        }
        let (writer, reader) = (Writer::attach(half, region), Reader::attach(half, region));
        Self {
            page: page.clone(),
            half,
            writer,
            reader,
            queue: Queue::default(),
            honest: input.storm.is_empty(),
        }
    }

    fn run(mut self, steps: &[Step]) {
        for step in steps {
            let region = Region::of(&self.page);
            let size = self.half.size();
            match step {
                Step::Put(len) | Step::Answer(len) => {
                    let bytes = self.queue.fresh(usize::from(*len) % (2 * size));
                    let written = self.writer.write(region, &bytes);
                    let room = size.saturating_sub(self.queue.bytes.len());
                    let count = judge(self.honest, written, bytes.len().min(room), size);
                    if let Some(count) = count {
                        self.queue.wrote(&bytes[..count]);
                    }
                }
                Step::Take(len) | Step::Fetch { see: len, .. } => {
                    let mut bytes = Marked::new(usize::from(*len) % (2 * size));
                    let read = self.reader.read(region, bytes.inside());
                    let count = *read.as_ref().unwrap_or(&0);
                    assert!(count <= size, "{count} bytes of {size} were read");
                    let waiting = bytes.len.min(self.queue.bytes.len());
                    if judge(self.honest, read, waiting, size).is_some() {
                        self.queue.read(bytes.written(count));
                    }
                    bytes.written(count);
                }
                Step::Reset => {
                    self.reader = Reader::attach(self.half, region);
                    self.writer = Writer::attach(self.half, region);
                }
                Step::Lie(lie) => {
                    lie.tell(&self.page);
                    self.honest = false;
                }
            }
        }
    }
}

type Request = [u8; 20];
type Response = [u8; 12];

/// Both ends of a ring of slots.
struct Slots {
    page: OwnPage,
    front: Front<OwnPage, Request, Response>,
    back: Back<OwnPage, Request, Response>,
    /// Requests put and not taken, taken and not answered, answered and not read.
    asked: VecDeque<u8>,
    taken: VecDeque<u8>,
    answered: VecDeque<u8>,
    next: u8,
    honest: bool,
}

impl Slots {
    fn new(page: &OwnPage, input: &Input) -> Self {
        let front = Front::set_up(page.clone());
        let back = Back::attach(page.clone());
        let none = VecDeque::new;
        let (asked, taken, answered) = (none(), none(), none());
        Self {
            page: page.clone(),
            front,
            back,
            asked,
            taken,
            answered,
            next: 0,
            honest: input.storm.is_empty(),
        }
    }

    fn run(mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Put(count) => {
                    (0..count % 300).for_each(|_| self.put());
                    let _ = self.front.publish();
                }
                Step::Take(count) => (0..count % 300).for_each(|_| self.read()),
                Step::Answer(count) => {
                    (0..count % 300).for_each(|_| self.answer());
                    let _ = self.back.publish();
                }
                Step::Fetch { see, .. } => (0..see % 300).for_each(|_| self.take()),
                Step::Reset => {
                    let more = (self.front.has_more(), self.back.has_more());
                    assert!(!self.honest || more.0.is_ok() && more.1.is_ok(), "{more:?}");
                }
                Step::Lie(lie) => {
                    lie.tell(&self.page);
                    self.honest = false;
                }
            }
            assert!(self.back.outstanding() <= self.back.size(), "more requests than slots");
            assert!(self.front.free() <= self.front.size(), "more free slots than slots");
        }
    }

    fn put(&mut self) {
        let put = self.front.put(&[self.next; 20]);
        let count = self.asked.len() + self.taken.len() + self.answered.len();
        if self.honest {
            assert_eq!(put.is_ok(), count < self.front.size() as usize, "whether a slot is free");
        }
        if put.is_ok() {
            self.asked.push_back(self.next);
            self.next = self.next.wrapping_add(1);
        }
    }

    fn take(&mut self) {
        let _ = self.front.publish();
        let taken = self.back.take();
        if self.honest {
            let expected = self.asked.pop_front();
            assert_eq!(taken, Ok(expected.map(|number| [number; 20])), "a request");
            self.taken.extend(expected);
        } else if let Ok(Some(_)) = taken {
            self.taken.push_back(0);
        }
    }

    fn answer(&mut self) {
        if let Some(number) = self.taken.pop_front() {
            self.back.put(&[number; 12]);
            self.answered.push_back(number);
        }
    }

    fn read(&mut self) {
        let _ = self.back.publish();
        let read = self.front.take();
        if self.honest {
            let expected = self.answered.pop_front();
            assert_eq!(read, Ok(expected.map(|number| [number; 12])), "a response");
        }
    }
}
