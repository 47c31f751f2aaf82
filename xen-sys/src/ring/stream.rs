//! Byte streams through a ring: one producer, one consumer, free-running 32-bit indexes.
//!
//! The ends here hold indexes only. Which memory they work on is an argument of each call, so
//! that whoever owns the page keeps owning it.

use core::ops::Range;
use core::sync::atomic::Ordering;

use super::shared::Region;
use super::{BadIndex, distance};

/// Where one direction of a byte-stream ring lies in shared memory; offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half {
    data: u32,
    size: u32,
    prod: u32,
    cons: u32,
}

impl Half {
    /// A ring of `size` bytes at `data`, whose indexes are at `prod` and `cons`.
    ///
    /// # Panics
    /// If `size` is not a power of two: the indexes would not wrap with it.
    #[must_use]
    pub const fn new(data: u32, size: u32, prod: u32, cons: u32) -> Self {
        assert!(size.is_power_of_two(), "a ring's size is a power of two");
        Self { data, size, prod, cons }
    }

    /// How many bytes the ring holds.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size as usize
    }

    /// Writes both shared indexes and fills the bytes with ones, so that nobody mistakes what
    /// is left of an earlier connection for data.
    pub(super) fn clear(&self, region: Region<'_>) {
        region.word(self.prod as usize).store(0, Ordering::Relaxed);
        region.word(self.cons as usize).store(0, Ordering::Relaxed);
        region.fill(self.data as usize, self.size as usize, 0xff);
    }

    /// The two runs of bytes that `len` bytes from index `at` on occupy: offset and length.
    fn runs(&self, at: u32, len: usize) -> [(usize, usize); 2] {
        let start = (at & (self.size - 1)) as usize;
        let first = len.min(self.size as usize - start);
        [(self.data as usize + start, first), (self.data as usize, len - first)]
    }
}

/// The consuming end of a byte stream.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    half: Half,
    /// Ours; the shared copy is only ever written.
    cons: u32,
    /// How many bytes from `cons` on were last judged to be there.
    waiting: u32,
}

impl Reader {
    /// Attaches where the shared consumer index stands: data that waits there is kept.
    #[must_use]
    pub fn attach(half: Half, region: Region<'_>) -> Self {
        let cons = region.word(half.cons as usize).load(Ordering::Acquire);
        Self { half, cons, waiting: 0 }
    }

    /// How many bytes wait.
    ///
    /// # Errors
    /// [`BadIndex`] if the producer claims more than the ring holds.
    #[inline]
    pub fn available(&mut self, region: Region<'_>) -> Result<usize, BadIndex> {
        // Acquire: the bytes are read after the index that covers them.
        let prod = region.word(self.half.prod as usize).load(Ordering::Acquire);
        self.waiting = 0;
        self.waiting = distance(prod, self.cons, self.half.size)?;
        Ok(self.waiting as usize)
    }

    /// Copies up to `bytes.len()` waiting bytes and leaves them in the ring; tells how many.
    ///
    /// # Errors
    /// [`BadIndex`] if the producer claims more than the ring holds.
    #[inline]
    pub fn peek(&mut self, region: Region<'_>, bytes: &mut [u8]) -> Result<usize, BadIndex> {
        let count = self.available(region)?.min(bytes.len());
        self.copy_out(region, 0, &mut bytes[..count]);
        Ok(count)
    }

    /// Copies those of the bytes last found waiting that begin at `skip`, and leaves them there.
    ///
    /// # Panics
    /// If fewer were waiting.
    #[inline]
    pub fn copy_out(&self, region: Region<'_>, skip: usize, bytes: &mut [u8]) {
        let (end, seen) = (skip + bytes.len(), self.waiting as usize);
        assert!(end <= seen, "{end} bytes copied, {seen} seen");
        let from = self.cons.wrapping_add(narrow(skip));
        let [(at, first), (start, rest)] = self.half.runs(from, bytes.len());
        region.copy_out(at, &mut bytes[..first]);
        if rest > 0 {
            region.copy_out(start, &mut bytes[first..]);
        }
    }

    /// Frees the first `count` bytes of those that [`peek`](Self::peek) last found waiting.
    ///
    /// # Panics
    /// If fewer were waiting.
    #[inline]
    pub fn consume(&mut self, region: Region<'_>, count: usize) {
        assert!(count <= self.waiting as usize, "{count} bytes consumed, {} seen", self.waiting);
        self.waiting -= narrow(count);
        self.cons = self.cons.wrapping_add(narrow(count));
        // Release: the bytes have been read before the producer may overwrite them.
        region.word(self.half.cons as usize).store(self.cons, Ordering::Release);
    }

    /// Copies up to `bytes.len()` waiting bytes out and frees them; tells how many.
    ///
    /// # Errors
    /// [`BadIndex`] if the producer claims more than the ring holds.
    #[inline]
    pub fn read(&mut self, region: Region<'_>, bytes: &mut [u8]) -> Result<usize, BadIndex> {
        let count = self.peek(region, bytes)?;
        if count > 0 {
            self.consume(region, count);
        }
        Ok(count)
    }
}

/// The producing end of a byte stream.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    half: Half,
    /// Ours; the shared copy is only ever written.
    prod: u32,
}

impl Writer {
    /// Attaches where the shared producer index stands: data that waits there is kept.
    #[must_use]
    pub fn attach(half: Half, region: Region<'_>) -> Self {
        let prod = region.word(half.prod as usize).load(Ordering::Acquire);
        Self { half, prod }
    }

    /// How many bytes fit now.
    ///
    /// # Errors
    /// [`BadIndex`] if the consumer claims to have read what was never written.
    #[inline]
    pub fn room(&self, region: Region<'_>) -> Result<usize, BadIndex> {
        // Acquire: the peer has read the bytes that are overwritten after this.
        let cons = region.word(self.half.cons as usize).load(Ordering::Acquire);
        let waiting = distance(self.prod, cons, self.half.size)?;
        Ok((self.half.size - waiting) as usize)
    }

    /// Writes as many of `bytes` as fit now; tells how many.
    ///
    /// # Errors
    /// [`BadIndex`] if the consumer claims to have read what was never written.
    #[inline]
    pub fn write(&mut self, region: Region<'_>, bytes: &[u8]) -> Result<usize, BadIndex> {
        let count = self.room(region)?.min(bytes.len());
        if count == 0 {
            return Ok(0);
        }
        let [(at, first), (start, rest)] = self.half.runs(self.prod, count);
        region.copy_in(at, &bytes[..first]);
        if rest > 0 {
            region.copy_in(start, &bytes[first..first + rest]);
        }
        self.advance(region, count);
        Ok(count)
    }

    /// Shows the consumer `count` bytes more.
    #[inline]
    fn advance(&mut self, region: Region<'_>, count: usize) {
        self.prod = self.prod.wrapping_add(narrow(count));
        // Release: the bytes are there before the index that covers them.
        region.word(self.half.prod as usize).store(self.prod, Ordering::Release);
    }
}

/// An error returned by [`relay`]: which of the two peers wrote an impossible index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPeer {
    /// The one that produces what is to be moved.
    Source(BadIndex),
    /// The one that is to have it.
    Sink(BadIndex),
}

/// Moves up to `most` bytes from one ring into another with nothing in between; tells how many.
///
/// # Errors
/// [`BadPeer`] names who is at fault; nothing has moved then.
pub fn relay(
    (reader, from): (&mut Reader, Region<'_>),
    (writer, to): (&mut Writer, Region<'_>),
    most: usize,
) -> Result<usize, BadPeer> {
    let waiting = reader.available(from).map_err(BadPeer::Source)?;
    let room = writer.room(to).map_err(BadPeer::Sink)?;
    let count = waiting.min(room).min(most);
    if count == 0 {
        return Ok(0);
    }
    copy((reader, from), 0, (writer, to), 0, count);
    writer.advance(to, count);
    reader.consume(from, count);
    Ok(count)
}

/// Writes `head` and then those of the waiting bytes that `range` counts, with nothing in between;
/// tells whether all of it fitted, else nothing was written. The bytes go on waiting. The consumer
/// of the other ring sees all at once.
///
/// # Errors
/// [`BadIndex`] of the ring that is written to: whose bytes these are was judged before.
///
/// # Panics
/// If `range` goes beyond what was last found waiting.
pub fn forward(
    (reader, from): (&Reader, Region<'_>),
    (writer, to): (&mut Writer, Region<'_>),
    head: &[u8],
    range: Range<usize>,
) -> Result<bool, BadIndex> {
    let seen = reader.waiting as usize;
    assert!(range.end <= seen, "{} bytes forwarded, {seen} seen", range.end);
    let total = head.len() + range.len();
    if writer.room(to)? < total {
        return Ok(false);
    }
    let [(at, first), (start, rest)] = writer.half.runs(writer.prod, head.len());
    to.copy_in(at, &head[..first]);
    if rest > 0 {
        to.copy_in(start, &head[first..]);
    }
    copy((reader, from), range.start, (writer, to), head.len(), range.len());
    writer.advance(to, total);
    Ok(true)
}

/// Copies `count` bytes from `skip` behind where the reader is to `beyond` where the writer is.
fn copy(
    (reader, from): (&Reader, Region<'_>),
    skip: usize,
    (writer, to): (&Writer, Region<'_>),
    beyond: usize,
    count: usize,
) {
    let mut moved = beyond;
    for (at, len) in reader.half.runs(reader.cons.wrapping_add(narrow(skip)), count) {
        let mut at = at;
        for (to_at, part) in writer.half.runs(writer.prod.wrapping_add(narrow(moved)), len) {
            from.copy_to(at, to, to_at, part);
            at += part;
        }
        moved += len;
    }
}

/// A count of bytes of one ring, whose size is a u32.
#[expect(clippy::cast_possible_truncation, reason = "a ring has at most 2^31 bytes")]
const fn narrow(count: usize) -> u32 {
    count as u32
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test data is small, or meant to wrap")]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::page::{OwnPages, PAGE_SIZE};

    const HALF: Half = Half::new(512, 64, 4, 0);

    /// A page whose indexes both stand at `start`.
    fn page_at(start: u32) -> OwnPages {
        let page = OwnPages::zeroed(1).unwrap();
        for offset in [HALF.prod, HALF.cons] {
            Region::of(&page).word(offset as usize).store(start, Ordering::Relaxed);
        }
        page
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(usize),
        Read(usize),
        Peek(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..100usize).prop_map(Step::Write),
            (0..100usize).prop_map(Step::Read),
            (0..100usize).prop_map(Step::Peek),
        ]
    }

    proptest! {
        /// Both ends against a queue, around the place where the indexes wrap.
        #[test]
        fn is_a_queue_of_bytes(
            start in prop_oneof![Just(0), (u32::MAX - 200)..=u32::MAX, any::<u32>()],
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let page = page_at(start);
            let region = Region::of(&page);
            let (mut writer, mut reader) = (Writer::attach(HALF, region), Reader::attach(HALF, region));
            let mut queue = VecDeque::new();
            let mut next = 0u8;
            for step in steps {
                match step {
                    Step::Write(len) => {
                        let bytes: Vec<u8> = (0..len).map(|i| next.wrapping_add(i as u8)).collect();
                        let count = writer.write(region, &bytes).unwrap();
                        prop_assert_eq!(count, len.min(HALF.size() - queue.len()));
                        queue.extend(&bytes[..count]);
                        next = next.wrapping_add(count as u8);
                    }
                    Step::Read(len) => {
                        let mut bytes = vec![0; len];
                        let count = reader.read(region, &mut bytes).unwrap();
                        let expected: Vec<u8> = queue.drain(..len.min(queue.len())).collect();
                        prop_assert_eq!(&bytes[..count], &expected[..]);
                    }
                    Step::Peek(len) => {
                        let mut bytes = vec![0; len];
                        let count = reader.peek(region, &mut bytes).unwrap();
                        let expected: Vec<u8> = queue.iter().copied().take(len).collect();
                        prop_assert_eq!(&bytes[..count], &expected[..]);
                    }
                }
                prop_assert_eq!(writer.room(region).unwrap(), HALF.size() - queue.len());
                prop_assert_eq!(reader.available(region).unwrap(), queue.len());
            }
        }

        /// A peer that writes anything anywhere between every two steps: each step gives at
        /// most what the ring holds or names the bad index, and the private indexes
        /// move by what was told and nothing else.
        #[test]
        fn a_hostile_peer_moves_nothing_of_ours(
            start: u32,
            steps in prop::collection::vec((any::<bool>(), any::<u32>(), 0..80u32, any::<bool>()), 1..50),
        ) {
            let page = page_at(start);
            let region = Region::of(&page);
            let (mut writer, mut reader) = (Writer::attach(HALF, region), Reader::attach(HALF, region));
            let (mut written, mut read) = (start, start);
            for (far, index, near, writes) in steps {
                // Sometimes anything, sometimes just plausible.
                let (prod, cons) = if far {
                    (index, index)
                } else {
                    (read.wrapping_add(near), written.wrapping_sub(near))
                };
                region.word(HALF.prod as usize).store(prod, Ordering::Relaxed);
                region.word(HALF.cons as usize).store(cons, Ordering::Relaxed);
                let mut bytes = [0; 100];
                if writes {
                    let fits = written.wrapping_sub(cons) <= 64;
                    match writer.write(region, &bytes) {
                        Ok(count) => {
                            prop_assert!(fits && count <= 64);
                            written = written.wrapping_add(count as u32);
                        }
                        Err(bad) => {
                            prop_assert!(!fits, "refused a possible index");
                            prop_assert_eq!(bad, BadIndex { prod: written, cons });
                        }
                    }
                } else {
                    let there = prod.wrapping_sub(read) <= 64;
                    match reader.read(region, &mut bytes) {
                        Ok(count) => {
                            prop_assert!(there && count == prod.wrapping_sub(read) as usize);
                            read = read.wrapping_add(count as u32);
                        }
                        Err(bad) => {
                            prop_assert!(!there, "refused a possible index");
                            prop_assert_eq!(bad, BadIndex { prod, cons: read });
                        }
                    }
                }
                prop_assert_eq!((writer.prod, reader.cons), (written, read));
            }
            // Nothing beside the ring was touched.
            let mut all = vec![0; PAGE_SIZE];
            region.copy_out(0, &mut all);
            prop_assert!(all[8..512].iter().chain(&all[576..]).all(|&byte| byte == 0));
        }
    }

    #[test]
    fn a_relay_moves_what_waits_and_fits_wherever_either_ring_wraps() {
        for (start, other, waiting, held) in [
            (0, 0, 64, 0),
            (60, 3, 40, 0),
            (63, 40, 64, 0),
            (u32::MAX - 5, 62, 50, 10),
            (17, 17, 0, 5),
            (9, 1, 30, 64),
        ] {
            let (one, two) = (page_at(start), page_at(other));
            let (from, to) = (Region::of(&one), Region::of(&two));
            let bytes: Vec<u8> = (0..waiting).map(|i| i as u8 + 1).collect();
            Writer::attach(HALF, from).write(from, &bytes).unwrap();
            let (mut source, mut sink) = (Reader::attach(HALF, from), Writer::attach(HALF, to));
            sink.write(to, &vec![0xee; held]).unwrap();
            let count = relay((&mut source, from), (&mut sink, to), 1000).unwrap();
            assert_eq!(count, waiting.min(64 - held), "{start} {other}");
            let mut moved = vec![0; 64];
            let mut end = Reader::attach(HALF, to);
            assert_eq!(end.read(to, &mut moved), Ok(held + count));
            assert_eq!(moved[held..held + count], bytes[..count], "{start} {other}");
            assert_eq!(source.available(from), Ok(waiting - count), "what did not fit stays");
        }
    }

    #[test]
    fn a_relay_names_the_peer_at_fault_and_moves_nothing() {
        let (one, two) = (page_at(0), page_at(0));
        let (from, to) = (Region::of(&one), Region::of(&two));
        Writer::attach(HALF, from).write(from, b"waits").unwrap();
        let (mut source, mut sink) = (Reader::attach(HALF, from), Writer::attach(HALF, to));
        to.word(HALF.cons as usize).store(1, Ordering::Relaxed);
        let bad = BadIndex { prod: 0, cons: 1 };
        assert_eq!(relay((&mut source, from), (&mut sink, to), 9), Err(BadPeer::Sink(bad)));
        from.word(HALF.prod as usize).store(65, Ordering::Relaxed);
        let bad = BadIndex { prod: 65, cons: 0 };
        assert_eq!(relay((&mut source, from), (&mut sink, to), 9), Err(BadPeer::Source(bad)));
        assert_eq!(to.word(HALF.prod as usize).load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_waits_is_forwarded_behind_a_head_and_goes_on_waiting() {
        for (start, other, skip, count) in [
            (0, 0, 0, 40),
            (60, 30, 0, 40),
            (40, 62, 10, 30),
            (u32::MAX - 5, 50, 20, 20),
            (9, 1, 7, 0),
        ] {
            let (one, two) = (page_at(start), page_at(other));
            let (from, to) = (Region::of(&one), Region::of(&two));
            let bytes: Vec<u8> = (1..=40).collect();
            Writer::attach(HALF, from).write(from, &bytes).unwrap();
            let (mut source, mut sink) = (Reader::attach(HALF, from), Writer::attach(HALF, to));
            source.available(from).unwrap();
            let range = skip..skip + count;
            assert_eq!(forward((&source, from), (&mut sink, to), b"head", range.clone()), Ok(true));
            let mut moved = [0; 64];
            assert_eq!(Reader::attach(HALF, to).read(to, &mut moved), Ok(4 + count));
            assert_eq!(moved[..4], *b"head", "{start} {other}");
            assert_eq!(moved[4..4 + count], bytes[range.clone()], "{start} {other}");
            assert_eq!(source.available(from), Ok(40), "they wait");
            let mut copied = vec![0; count];
            source.copy_out(from, skip, &mut copied);
            assert_eq!(copied, bytes[range]);
            // The other ring is read by an attached end only: 64 - 4 - count bytes are left.
            sink.write(to, &[0; 64]).unwrap();
            assert_eq!(forward((&source, from), (&mut sink, to), &[9; 64], 0..1), Ok(false));
        }
    }

    #[test]
    #[should_panic = "6 bytes forwarded, 5 seen"]
    fn forwarding_more_than_was_seen_is_our_mistake() {
        let (one, two) = (page_at(0), page_at(0));
        let (from, to) = (Region::of(&one), Region::of(&two));
        Writer::attach(HALF, from).write(from, b"waits").unwrap();
        let (mut source, mut sink) = (Reader::attach(HALF, from), Writer::attach(HALF, to));
        assert_eq!(source.available(from), Ok(5));
        // The producer claims more in between: it is not looked at again.
        from.word(HALF.prod as usize).store(6, Ordering::Relaxed);
        let _ = forward((&source, from), (&mut sink, to), b"", 0..6);
    }

    #[test]
    fn after_a_bad_index_nothing_can_be_consumed() {
        let page = page_at(0);
        let region = Region::of(&page);
        let mut reader = Reader::attach(HALF, region);
        region.word(4).store(10, Ordering::Relaxed);
        assert_eq!(reader.available(region), Ok(10));
        region.word(4).store(65, Ordering::Relaxed);
        assert_eq!(reader.available(region), Err(BadIndex { prod: 65, cons: 0 }));
        assert_eq!(reader.waiting, 0, "the earlier count must not stand");
    }

    #[test]
    #[should_panic = "6 bytes consumed, 5 seen"]
    fn consuming_more_than_was_seen_is_our_mistake() {
        let page = page_at(0);
        let region = Region::of(&page);
        let mut reader = Reader::attach(HALF, region);
        region.word(4).store(5, Ordering::Relaxed);
        assert_eq!(reader.available(region), Ok(5));
        reader.consume(region, 6);
    }

    #[test]
    fn data_that_waited_before_attaching_is_kept() {
        let page = page_at(u32::MAX - 1);
        let region = Region::of(&page);
        Writer::attach(HALF, region).write(region, b"hello").unwrap();
        let (mut bytes, mut reader) = ([0; 8], Reader::attach(HALF, region));
        assert_eq!(reader.read(region, &mut bytes), Ok(5));
        assert_eq!(&bytes[..5], b"hello");
    }
}
