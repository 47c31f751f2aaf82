//! A libxenvchan ring, either end of it (xen/include/public/io/libxenvchan.h).
//!
//! One page of words, then two rings of bytes: *left* from the client to the server, *right* back.
//! A small ring lies in that page, a larger one in pages of its own, whose grant references the
//! page lists. The server grants, the client maps.
//!
//! ```text
//!  0 left consumer    4 left producer     8 right consumer   12 right producer    free-running
//! 16 left order      18 right order                                               2^order bytes
//! 20 client lives    21 server lives                          2: no client came yet, 1, 0: gone
//! 22 what the server  23 what the client  wants to hear of          1: bytes came, 2: room came
//! 24 grant references of the left ring's pages, then of the right's
//! 1024 a ring of order 10, if there is one
//! 2048 a ring of order 11, if there is one
//! ```
//!
//! An end that is to sleep says what it waits for, then looks once more; an end that moved bytes
//! then looks whether the other asked. Each has a full fence between its two steps, so they cannot
//! both miss.
//!
//! An [`End`] works on one piece of memory: the page, then the left ring's pages, then the right's.
//! It sends no events: [`End::take_notify`] says when one is due.

use core::ops::Range;
use core::sync::atomic::{AtomicU8, Ordering, fence};

use xen_sys::page::{PAGE_SIZE, Shared};
use xen_sys::ring::BadIndex;
use xen_sys::ring::shared::Region;
use xen_sys::ring::stream::{self, BadPeer, Reader, Writer};

mod sizes;

pub use sizes::{Order, Sizes};

const LEFT_CONS: u32 = 0;
const LEFT_PROD: u32 = 4;
const RIGHT_CONS: u32 = 8;
const RIGHT_PROD: u32 = 12;
const LEFT_ORDER: usize = 16;
const RIGHT_ORDER: usize = 18;
/// Where the page of words says whether the client lives: the byte that the client's kernel is to
/// clear when the client's program ends, however it ends.
pub const CLIENT_LIVE: usize = 20;
const SERVER_LIVE: usize = 21;
const CLIENT_NOTIFY: usize = 22;
const SERVER_NOTIFY: usize = 23;
const GRANTS: usize = 24;

const GONE: u8 = 0;
const LIVE: u8 = 1;
const NOT_YET: u8 = 2;

/// `VCHAN_NOTIFY_WRITE`: tell me of bytes.
const OF_BYTES: u8 = 1;
/// `VCHAN_NOTIFY_READ`: tell me of room.
const OF_ROOM: u8 = 2;

/// The grant references that the page of words lists: the left ring's pages, then the right's.
pub fn grants(page: &impl Shared, sizes: Sizes) -> impl ExactSizeIterator<Item = u32> {
    let region = Region::of(page);
    (0..sizes.grants()).map(move |i| region.word(GRANTS + 4 * i).load(Ordering::Relaxed))
}

/// What is known of who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Nobody came yet.
    NotYet,
    /// It is there.
    Here,
    /// It went.
    Gone,
}

/// Which end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

impl Side {
    /// Where this end says that it lives.
    const fn own_life(self) -> usize {
        match self {
            Self::Server => SERVER_LIVE,
            Self::Client => CLIENT_LIVE,
        }
    }

    const fn peers_life(self) -> usize {
        match self {
            Self::Server => CLIENT_LIVE,
            Self::Client => SERVER_LIVE,
        }
    }

    /// Where this end asks the other for events.
    const fn asked(self) -> usize {
        match self {
            Self::Server => CLIENT_NOTIFY,
            Self::Client => SERVER_NOTIFY,
        }
    }

    /// Where the other asks this end.
    const fn owed(self) -> usize {
        match self {
            Self::Server => SERVER_NOTIFY,
            Self::Client => CLIENT_NOTIFY,
        }
    }
}

/// One end of a channel, over memory `M` that it keeps.
///
/// Whatever the other end writes, this one moves no more than its rings hold. An index that cannot
/// be is [`BadIndex`]: the channel has to end.
#[derive(Debug)]
pub struct End<M> {
    memory: M,
    sizes: Sizes,
    side: Side,
    reader: Reader,
    writer: Writer,
    /// What has moved since the other end was last told, in the bits by which it asks.
    moved: u8,
}

impl<M: Shared> End<M> {
    /// Sets up a channel as its server; `grants` are the references of all pages but the first, in
    /// order. The client may come as soon as it knows the first.
    ///
    /// # Panics
    /// If `memory` or `grants` are not of those sizes: that is our own mistake.
    #[must_use]
    pub fn serve(memory: M, sizes: Sizes, grants: impl ExactSizeIterator<Item = u32>) -> Self {
        let region = Region::of(&memory);
        assert_eq!(region.len(), sizes.pages() * PAGE_SIZE, "a channel's memory");
        assert_eq!(grants.len(), sizes.grants(), "a channel's grants");
        region.fill(0, PAGE_SIZE, 0);
        for (i, reference) in grants.enumerate() {
            region.word(GRANTS + 4 * i).store(reference, Ordering::Relaxed);
        }
        region.half_word(LEFT_ORDER).store(sizes.left().raw(), Ordering::Relaxed);
        region.half_word(RIGHT_ORDER).store(sizes.right().raw(), Ordering::Relaxed);
        region.byte(CLIENT_LIVE).store(NOT_YET, Ordering::Relaxed);
        region.byte(SERVER_LIVE).store(LIVE, Ordering::Release);
        let end = Self::attach(memory, sizes, Side::Server);
        end.ask(OF_BYTES);
        end
    }

    /// Attaches to a server's channel. It has to be told by an event, due or not.
    ///
    /// # Panics
    /// If `memory` is not of those sizes.
    #[must_use]
    pub fn connect(memory: M, sizes: Sizes) -> Self {
        let region = Region::of(&memory);
        assert_eq!(region.len(), sizes.pages() * PAGE_SIZE, "a channel's memory");
        region.byte(CLIENT_LIVE).store(LIVE, Ordering::Release);
        let end = Self::attach(memory, sizes, Side::Client);
        end.ask(OF_BYTES);
        end
    }

    fn attach(memory: M, sizes: Sizes, side: Side) -> Self {
        let region = Region::of(&memory);
        let (from, to) = match side {
            Side::Server => (sizes.left_half(), sizes.right_half()),
            Side::Client => (sizes.right_half(), sizes.left_half()),
        };
        let (reader, writer) = (Reader::attach(from, region), Writer::attach(to, region));
        Self { memory, sizes, side, reader, writer, moved: 0 }
    }

    /// The memory that it works on.
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// The sizes of its rings.
    #[must_use]
    pub const fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Who is at the other end.
    #[inline]
    #[must_use]
    pub fn peer(&self) -> Peer {
        match self.byte(self.side.peers_life()).load(Ordering::Acquire) {
            GONE => Peer::Gone,
            NOT_YET if self.side == Side::Server => Peer::NotYet,
            _ => Peer::Here,
        }
    }

    /// How many bytes wait.
    ///
    /// # Errors
    /// [`BadIndex`] if the other end claims more than the ring holds.
    #[inline]
    pub fn available(&mut self) -> Result<usize, BadIndex> {
        self.reader.available(Region::of(&self.memory))
    }

    /// Copies up to `bytes.len()` waiting bytes and leaves them where they are; tells how many.
    ///
    /// # Errors
    /// As [`available`](Self::available).
    #[inline]
    pub fn peek(&mut self, bytes: &mut [u8]) -> Result<usize, BadIndex> {
        self.reader.peek(Region::of(&self.memory), bytes)
    }

    /// Copies those of the bytes last found waiting that begin at `skip`, and leaves them there.
    ///
    /// # Panics
    /// If fewer were waiting.
    #[inline]
    pub fn copy_out(&self, skip: usize, bytes: &mut [u8]) {
        self.reader.copy_out(Region::of(&self.memory), skip, bytes);
    }

    /// Frees the first `count` bytes of those last found waiting.
    ///
    /// # Panics
    /// If fewer were waiting.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        if count > 0 {
            self.reader.consume(Region::of(&self.memory), count);
            self.moved |= OF_ROOM;
        }
    }

    /// Copies up to `bytes.len()` waiting bytes out and frees them; tells how many.
    ///
    /// # Errors
    /// As [`available`](Self::available).
    #[inline]
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<usize, BadIndex> {
        let count = self.peek(bytes)?;
        self.consume(count);
        Ok(count)
    }

    /// How many bytes fit now.
    ///
    /// # Errors
    /// [`BadIndex`] if the other end claims to have read what was never written.
    #[inline]
    pub fn room(&self) -> Result<usize, BadIndex> {
        self.writer.room(Region::of(&self.memory))
    }

    /// Writes as many of `bytes` as fit now; tells how many.
    ///
    /// # Errors
    /// As [`room`](Self::room).
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, BadIndex> {
        let count = self.writer.write(Region::of(&self.memory), bytes)?;
        self.moved |= if count > 0 { OF_BYTES } else { 0 };
        Ok(count)
    }

    /// Moves up to `most` waiting bytes into the ring of another channel, with nothing in between;
    /// tells how many.
    ///
    /// # Errors
    /// [`BadPeer`] names which channel has to end; nothing moved.
    #[inline]
    pub fn relay<N: Shared>(&mut self, to: &mut End<N>, most: usize) -> Result<usize, BadPeer> {
        let (from, sink) = (Region::of(&self.memory), Region::of(&to.memory));
        let count = stream::relay((&mut self.reader, from), (&mut to.writer, sink), most)?;
        if count > 0 {
            self.moved |= OF_ROOM;
            to.moved |= OF_BYTES;
        }
        Ok(count)
    }

    /// Writes `head` and those of the waiting bytes that `range` counts into the ring of another
    /// channel, with nothing in between; tells whether all of it fitted, else nothing was written.
    /// The bytes go on waiting here, for others or to be [consumed](Self::consume).
    ///
    /// # Errors
    /// [`BadIndex`] if the other channel has to end.
    ///
    /// # Panics
    /// If `range` goes beyond what was last found waiting.
    #[inline]
    pub fn forward<N: Shared>(
        &self,
        to: &mut End<N>,
        head: &[u8],
        range: Range<usize>,
    ) -> Result<bool, BadIndex> {
        let (from, sink) = (Region::of(&self.memory), Region::of(&to.memory));
        let fits = stream::forward((&self.reader, from), (&mut to.writer, sink), head, range)?;
        to.moved |= if fits { OF_BYTES } else { 0 };
        Ok(fits)
    }

    /// Gives up to `most` waiting bytes back to whom they came from; tells how many.
    ///
    /// # Errors
    /// [`BadIndex`] of either ring.
    pub fn echo(&mut self, most: usize) -> Result<usize, BadIndex> {
        let region = Region::of(&self.memory);
        let count = stream::relay((&mut self.reader, region), (&mut self.writer, region), most)
            .map_err(|peer| match peer {
                BadPeer::Source(bad) | BadPeer::Sink(bad) => bad,
            })?;
        self.moved |= if count > 0 { OF_BYTES | OF_ROOM } else { 0 };
        Ok(count)
    }

    /// Asks for an event when bytes come, then looks once more: whether there are more than `seen`
    /// now. Sleep only if not.
    ///
    /// # Errors
    /// As [`available`](Self::available).
    pub fn await_bytes(&mut self, seen: usize) -> Result<bool, BadIndex> {
        self.ask(OF_BYTES);
        Ok(self.available()? > seen)
    }

    /// Asks for an event when room comes, then looks once more: whether there is more than `seen`
    /// now. Sleep only if not.
    ///
    /// # Errors
    /// As [`room`](Self::room).
    pub fn await_room(&mut self, seen: usize) -> Result<bool, BadIndex> {
        self.ask(OF_ROOM);
        Ok(self.room()? > seen)
    }

    /// Whether the other end is to be told of what has moved since the last call: it asked to be,
    /// and will not be told of it again.
    #[must_use]
    pub fn take_notify(&mut self) -> bool {
        let moved = core::mem::take(&mut self.moved);
        if moved == 0 {
            return false;
        }
        // The indexes are there before it is looked at what the other end asked for.
        fence(Ordering::SeqCst);
        self.byte(self.side.owed()).fetch_and(!moved, Ordering::Relaxed) & moved != 0
    }

    /// Says that this end is gone. The other has to be told by an event.
    pub fn close(&mut self) {
        self.byte(self.side.own_life()).store(GONE, Ordering::Release);
    }

    /// Ends the use of the memory and gives it back.
    #[must_use]
    pub fn into_memory(self) -> M {
        self.memory
    }

    fn ask(&self, bits: u8) {
        self.byte(self.side.asked()).fetch_or(bits, Ordering::Relaxed);
        // It is asked before the indexes are looked at again.
        fence(Ordering::SeqCst);
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        Region::of(&self.memory).byte(at)
    }
}

#[cfg(test)]
mod tests;
