//! The Xenstore page: a ring of requests, a ring of responses, and a few words beside them
//! (xen/include/public/io/xs_wire.h, `struct xenstore_domain_interface`).
//!
//! One event channel serves both directions, and there is no way to ask for fewer events:
//! each end notifies the other after it consumed or produced, never without.

use core::sync::atomic::{Ordering, fence};

use bitflags::bitflags;
use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

use super::BadIndex;
use super::shared::Region;
use super::stream::{Half, Reader, Writer};
use crate::ids::Port;
use crate::page::Shared;

/// Bytes in each direction's ring, `XENSTORE_RING_SIZE`.
pub const RING_SIZE: usize = 1024;

/// Where requests travel.
pub const REQUESTS: Half = Half::new(0, 1024, 2052, 2048);
/// Where answers and events travel.
pub const RESPONSES: Half = Half::new(1024, 1024, 2060, 2056);
const SERVER_FEATURES: usize = 2064;
const CONNECTION: usize = 2068;
const ERROR: usize = 2072;
const EVTCHN_PORT: usize = 2076;

bitflags! {
    /// What the server can do, `XENSTORE_SERVER_FEATURE_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ServerFeatures: u32 {
        /// A client may ask for its connection to begin anew.
        const RECONNECTION = 1 << 0;
        /// The error field is used.
        const ERROR = 1 << 1;
        /// Watches may be limited in depth.
        const WATCH_DEPTH = 1 << 2;
        /// Permissions may name any domain.
        const DOMID_ANY = 1 << 3;
        /// What later headers define.
        const _ = !0;
    }
}

/// Why a connection ended, `XENSTORE_ERROR_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RingError {
    /// It did not.
    None = 0,
    /// Communication failed.
    Communication = 1,
    /// An index was impossible.
    RingIndex = 2,
    /// A message was impossible.
    Protocol = 3,
}

/// `XENSTORE_CONNECTED`.
const CONNECTED: u32 = 0;
/// `XENSTORE_RECONNECT`.
const RECONNECT: u32 = 1;

/// The server's end, over a page `P` that it keeps.
#[derive(Debug)]
pub struct Server<P> {
    page: P,
    requests: Reader,
    responses: Writer,
    moved: bool,
}

impl<P: Shared> Server<P> {
    /// Attaches to the page as it stands: requests that wait in it are kept.
    #[must_use]
    pub fn attach(page: P) -> Self {
        let region = Region::of(&page);
        let requests = Reader::attach(REQUESTS, region);
        let responses = Writer::attach(RESPONSES, region);
        Self { page, requests, responses, moved: false }
    }

    /// Begins anew: both rings are empty, and what was in them is gone.
    pub fn reset(&mut self) {
        let region = Region::of(&self.page);
        REQUESTS.clear(region);
        RESPONSES.clear(region);
        self.requests = Reader::attach(REQUESTS, region);
        self.responses = Writer::attach(RESPONSES, region);
        self.moved = true;
    }

    /// Copies up to `bytes.len()` bytes of requests and leaves them in the ring; tells how
    /// many.
    ///
    /// # Errors
    /// [`BadIndex`] if the client's index is impossible.
    #[inline]
    pub fn peek(&mut self, bytes: &mut [u8]) -> Result<usize, BadIndex> {
        self.requests.peek(Region::of(&self.page), bytes)
    }

    /// Frees the first `count` bytes of those the last [`peek`](Self::peek) found waiting.
    ///
    /// # Panics
    /// If fewer were waiting.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        self.requests.consume(Region::of(&self.page), count);
        self.moved |= count > 0;
    }

    /// Copies up to `bytes.len()` bytes of requests out and frees them; tells how many.
    ///
    /// # Errors
    /// [`BadIndex`] if the client's index is impossible.
    #[inline]
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<usize, BadIndex> {
        let count = self.requests.read(Region::of(&self.page), bytes)?;
        self.moved |= count > 0;
        Ok(count)
    }

    /// How many bytes of responses fit now.
    ///
    /// # Errors
    /// [`BadIndex`] if the client's index is impossible.
    #[inline]
    pub fn room(&self) -> Result<usize, BadIndex> {
        self.responses.room(Region::of(&self.page))
    }

    /// Writes as many bytes of responses as fit; tells how many. If those are not all, the
    /// client will notify when it has made room.
    ///
    /// A client notifies of room only if it sees the ring full after it has read from it. It may
    /// have looked just before this end filled the ring, so the ring counts as full only if
    /// it still is once the index is out: one of the two sees the other.
    ///
    /// # Errors
    /// [`BadIndex`] if the client's index is impossible.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, BadIndex> {
        let region = Region::of(&self.page);
        let mut count = self.responses.write(region, bytes)?;
        self.moved |= count > 0;
        while count < bytes.len() {
            fence(Ordering::SeqCst);
            let more = self.responses.write(region, &bytes[count..])?;
            if more == 0 {
                break;
            }
            self.moved = true;
            count += more;
        }
        Ok(count)
    }

    /// Whether the client is to be notified: something moved since the last time this was
    /// asked. Call before each wait, and notify if so.
    #[inline]
    #[must_use]
    pub fn take_notify(&mut self) -> bool {
        core::mem::take(&mut self.moved)
    }

    /// Tells the client what this server can do.
    pub fn announce(&self, features: ServerFeatures) {
        self.word(SERVER_FEATURES).store(features.bits(), Ordering::Relaxed);
    }

    /// Whether the client asks for its connection to begin anew.
    #[must_use]
    pub fn reconnect_wanted(&self) -> bool {
        self.word(CONNECTION).load(Ordering::Acquire) == RECONNECT
    }

    /// Tells the client that the connection stands. Comes after [`reset`](Self::reset).
    pub fn mark_connected(&self) {
        self.word(CONNECTION).store(CONNECTED, Ordering::Release);
    }

    /// Tells the client why its connection ended, or that it did not.
    pub fn tell_error(&self, error: RingError) {
        self.word(ERROR).store(error as u32, Ordering::Relaxed);
    }

    /// The client's unbound port, where whoever built the domain wrote one (Xen 4.21 on).
    #[must_use]
    pub fn client_port(&self) -> Option<Port> {
        let port = self.word(EVTCHN_PORT).load(Ordering::Relaxed);
        (port != 0).then_some(Port(port))
    }

    fn word(&self, offset: usize) -> &core::sync::atomic::AtomicU32 {
        Region::of(&self.page).word(offset)
    }
}

/// The client's end, over a page `P` that it keeps.
#[derive(Debug)]
pub struct Client<P> {
    page: P,
    requests: Writer,
    responses: Reader,
}

impl<P: Shared> Client<P> {
    /// Attaches to the page as it stands.
    #[must_use]
    pub fn attach(page: P) -> Self {
        let region = Region::of(&page);
        let requests = Writer::attach(REQUESTS, region);
        let responses = Reader::attach(RESPONSES, region);
        Self { page, requests, responses }
    }

    /// Copies up to `bytes.len()` bytes of responses out and frees them; tells how many.
    ///
    /// # Errors
    /// [`BadIndex`] if the server's index is impossible.
    #[inline]
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<usize, BadIndex> {
        self.responses.read(Region::of(&self.page), bytes)
    }

    /// Writes as many bytes of requests as fit now; tells how many.
    ///
    /// # Errors
    /// [`BadIndex`] if the server's index is impossible.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, BadIndex> {
        self.requests.write(Region::of(&self.page), bytes)
    }

    /// How many bytes of responses wait.
    ///
    /// # Errors
    /// [`BadIndex`] if the server's index is impossible.
    pub fn available(&mut self) -> Result<usize, BadIndex> {
        self.responses.available(Region::of(&self.page))
    }

    /// How many bytes of requests fit now.
    ///
    /// # Errors
    /// [`BadIndex`] if the server's index is impossible.
    pub fn room(&self) -> Result<usize, BadIndex> {
        self.requests.room(Region::of(&self.page))
    }

    /// What the server says it can do.
    #[must_use]
    pub fn server_features(&self) -> ServerFeatures {
        let bits = Region::of(&self.page).word(SERVER_FEATURES).load(Ordering::Relaxed);
        ServerFeatures::from_bits_retain(bits)
    }

    /// Whether the connection stands, as far as its flag tells; false while the domain builder
    /// or this client waits for the server to begin it anew.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        Region::of(&self.page).word(CONNECTION).load(Ordering::Acquire) == CONNECTED
    }

    /// Asks the server to begin the connection anew; notify it, then wait until
    /// [`is_connected`](Self::is_connected), then [`attach`](Self::attach) again. Only for a
    /// server with [`ServerFeatures::RECONNECTION`].
    pub fn ask_reconnect(&self) {
        Region::of(&self.page).word(CONNECTION).store(RECONNECT, Ordering::Release);
    }

    /// A byte stream over this end that waits by calling `wait` and notifies by `notify`.
    ///
    /// `wait` returns when the channel had an event, or earlier; `notify` sends one.
    pub fn blocking<W: FnMut(), N: FnMut()>(self, wait: W, notify: N) -> Blocking<P, W, N> {
        Blocking { client: self, wait, notify }
    }
}

/// A client's end as a blocking byte stream.
#[derive(Debug)]
pub struct Blocking<P, W, N> {
    client: Client<P>,
    wait: W,
    notify: N,
}

impl<P, W, N> Blocking<P, W, N> {
    /// The end itself, back.
    pub fn into_inner(self) -> Client<P> {
        self.client
    }
}

impl<P, W, N> ErrorType for Blocking<P, W, N> {
    type Error = BadIndex;
}

impl<P: Shared, W: FnMut(), N: FnMut()> Read for Blocking<P, W, N> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, BadIndex> {
        loop {
            let count = self.client.read(bytes)?;
            if count > 0 {
                // The server may wait for the room this made.
                (self.notify)();
                return Ok(count);
            }
            if bytes.is_empty() {
                return Ok(0);
            }
            (self.wait)();
        }
    }
}

impl<P: Shared, W: FnMut(), N: FnMut()> Write for Blocking<P, W, N> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, BadIndex> {
        loop {
            let count = self.client.write(bytes)?;
            if count > 0 {
                (self.notify)();
                return Ok(count);
            }
            if bytes.is_empty() {
                return Ok(0);
            }
            (self.wait)();
        }
    }

    fn flush(&mut self) -> Result<(), BadIndex> {
        // What was written is in the ring already, and the server was told.
        Ok(())
    }
}

impl<P: Shared, W: FnMut(), N: FnMut()> ReadReady for Blocking<P, W, N> {
    fn read_ready(&mut self) -> Result<bool, BadIndex> {
        Ok(self.client.available()? > 0)
    }
}

impl<P: Shared, W: FnMut(), N: FnMut()> WriteReady for Blocking<P, W, N> {
    fn write_ready(&mut self) -> Result<bool, BadIndex> {
        Ok(self.client.room()? > 0)
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test data is small, or meant to wrap")]
mod tests {
    use core::cell::{Cell, RefCell};
    use core::sync::atomic::AtomicBool;

    use super::*;
    use crate::page::{OwnPage, OwnPages, PAGE_SIZE};

    fn page() -> OwnPage {
        OwnPages::zeroed(1).unwrap().split().next().unwrap()
    }

    fn pair() -> (Server<OwnPage>, Client<OwnPage>) {
        let page = page();
        (Server::attach(page.clone()), Client::attach(page))
    }

    #[test]
    fn the_page_is_laid_out_as_the_header_has_it() {
        let (mut server, mut client) = pair();
        client.write(b"request").unwrap();
        server.write(b"response!").unwrap();
        server.announce(ServerFeatures::RECONNECTION | ServerFeatures::ERROR);
        server.tell_error(RingError::Protocol);
        client.ask_reconnect();
        let region = Region::of(&server.page);
        let mut page = [0; PAGE_SIZE];
        region.copy_out(0, &mut page);
        assert_eq!(&page[..7], b"request");
        assert_eq!(&page[1024..1033], b"response!");
        // req_cons, req_prod, rsp_cons, rsp_prod, server_features, connection, error.
        let words: Vec<u32> =
            (0..7).map(|i| region.word(2048 + 4 * i).load(Ordering::Relaxed)).collect();
        assert_eq!(words, [0, 7, 0, 9, 3, 1, 3]);
        assert_eq!(server.client_port(), None);
        region.word(EVTCHN_PORT).store(9, Ordering::Relaxed);
        assert_eq!(server.client_port(), Some(Port(9)));
    }

    /// A client that reads as Linux does (drivers/xen/xenbus/xenbus_comms.c): it notifies of room
    /// only if the ring is full as it sees it. Each end sleeps without a notification.
    #[test]
    fn no_notification_of_room_is_missed() {
        const TOTAL: u32 = 4 << 20;
        let (mut server, client) = pair();
        let [cons, prod] = [2056, 2060].map(|offset| Region::of(&client.page).word(offset));
        let (room, news) = (AtomicBool::new(false), AtomicBool::new(true));
        let patience = core::time::Duration::from_secs(20);

        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut read = 0u32;
                let mut size = 0;
                while read < TOTAL {
                    let waiting = prod.load(Ordering::Acquire).wrapping_sub(read);
                    if waiting == 0 {
                        if !news.swap(false, Ordering::AcqRel) {
                            std::thread::yield_now();
                        }
                        continue;
                    }
                    // A header, then a payload, and so on: pieces of all sizes.
                    size = (size + 37) % 500 + 1;
                    let before = read;
                    read += waiting.min(size);
                    cons.store(read, Ordering::SeqCst);
                    fence(Ordering::SeqCst);
                    if prod.load(Ordering::SeqCst).wrapping_sub(before) >= 1024 {
                        room.store(true, Ordering::Release);
                    }
                }
            });
            let message = [0; 4112];
            let mut sent = 0;
            while sent < TOTAL as usize {
                let len = message.len().min(TOTAL as usize - sent);
                let count = server.write(&message[..len]).unwrap();
                sent += count;
                news.store(true, Ordering::Release);
                let asleep = std::time::Instant::now();
                while count < len && !room.swap(false, Ordering::AcqRel) {
                    // Let the client end before this fails, so that it fails and does not hang.
                    if asleep.elapsed() > patience {
                        prod.store(TOTAL, Ordering::Release);
                        panic!("asleep after {sent} bytes, and nobody will notify");
                    }
                    core::hint::spin_loop();
                }
            }
        });
    }

    #[test]
    fn the_server_notifies_after_work_and_never_without() {
        let (mut server, mut client) = pair();
        let mut bytes = [0; 16];
        assert_eq!(server.peek(&mut bytes), Ok(0));
        server.consume(0);
        assert_eq!(server.write(b""), Ok(0));
        assert!(!server.take_notify(), "nothing moved");
        client.write(b"abc").unwrap();
        assert_eq!(server.peek(&mut bytes), Ok(3));
        assert!(!server.take_notify(), "looking is no work");
        server.consume(2);
        assert!(server.take_notify(), "the client may wait for the room");
        assert!(!server.take_notify(), "one notification is enough");
        assert_eq!(server.read(&mut bytes), Ok(1));
        assert_eq!(bytes[0], b'c');
        assert!(server.take_notify());
        server.write(b"x").unwrap();
        assert!(server.take_notify(), "there is a response");
    }

    #[test]
    fn a_full_ring_takes_what_fits() {
        let (mut server, mut client) = pair();
        assert_eq!(client.write(&[1; 1500]), Ok(RING_SIZE));
        assert_eq!(client.write(&[1; 1]), Ok(0));
        assert_eq!(client.room(), Ok(0));
        assert_eq!(server.read(&mut [0; 10]), Ok(10));
        assert_eq!(client.write(&[2; 1500]), Ok(10));
    }

    /// Indexes run freely: those of a ring long in use end at 2^32 and go on from 0.
    #[test]
    fn requests_and_responses_pass_the_end_of_the_indexes() {
        const BEFORE: u32 = 0xffff_fff0;
        let page = page();
        for offset in (2048..2064).step_by(4) {
            Region::of(&page).word(offset).store(BEFORE, Ordering::Relaxed);
        }
        let (mut server, mut client) = (Server::attach(page.clone()), Client::attach(page));
        let request: Vec<u8> = (0..40).collect();
        // The client dribbles; the server takes the first half as it comes and the rest at once.
        let mut bytes = [0; 64];
        for (at, byte) in request.iter().enumerate() {
            assert_eq!(client.write(&[*byte]), Ok(1));
            if at < 20 {
                assert_eq!(server.read(&mut bytes[at..]), Ok(1), "byte {at}");
            }
        }
        assert_eq!(server.read(&mut bytes[20..]), Ok(20));
        assert_eq!(bytes[..40], request);
        let response = [7; RING_SIZE];
        assert_eq!(server.write(&response), Ok(RING_SIZE), "a whole ring over the end");
        let mut received = [0; RING_SIZE];
        assert_eq!(client.read(&mut received), Ok(RING_SIZE));
        assert_eq!(received, response);
        let words: Vec<u32> = (2048..2064)
            .step_by(4)
            .map(|offset| Region::of(&client.page).word(offset).load(Ordering::Relaxed))
            .collect();
        let ends = [40, RING_SIZE as u32].map(|count| BEFORE.wrapping_add(count));
        assert_eq!(words, [ends[0], ends[0], ends[1], ends[1]]);
        // Just beyond a full ring is impossible there, too.
        Region::of(&client.page).word(2052).store(ends[0].wrapping_add(1025), Ordering::Relaxed);
        assert!(server.peek(&mut bytes).is_err());
    }

    #[test]
    fn a_reset_leaves_nothing_of_the_last_connection() {
        let (mut server, mut client) = pair();
        client.write(b"old").unwrap();
        server.read(&mut [0; 2]).unwrap();
        server.write(b"old").unwrap();
        let _ = server.take_notify();
        server.reset();
        assert!(server.take_notify(), "the client is to be told");
        assert_eq!(server.peek(&mut [0; 8]), Ok(0), "the rest of the request is gone");
        let mut client = Client::attach(client.page);
        assert_eq!(client.available(), Ok(0));
        let mut page = [0; PAGE_SIZE];
        Region::of(&server.page).copy_out(0, &mut page);
        assert!(page[..2048].iter().all(|&byte| byte == 0xff), "old bytes are overwritten");
        assert_eq!(page[2048..2064], [0; 16]);
        client.write(b"new").unwrap();
        let mut bytes = [0; 8];
        assert_eq!((server.read(&mut bytes), &bytes[..3]), (Ok(3), &b"new"[..]));
    }

    #[test]
    fn reconnecting_is_asked_for_and_granted() {
        let (mut server, client) = pair();
        assert!(!server.reconnect_wanted() && client.is_connected());
        client.ask_reconnect();
        assert!(server.reconnect_wanted() && !client.is_connected());
        server.reset();
        assert!(server.reconnect_wanted(), "not done until the server says so");
        server.mark_connected();
        assert!(!server.reconnect_wanted() && client.is_connected());
    }

    #[test]
    fn impossible_indexes_are_the_clients_fault() {
        let (mut server, client) = pair();
        let region = Region::of(&client.page);
        region.word(2052).store(1025, Ordering::Relaxed);
        assert_eq!(server.peek(&mut [0; 8]), Err(BadIndex { prod: 1025, cons: 0 }));
        region.word(2056).store(1, Ordering::Relaxed);
        assert_eq!(server.write(b"x"), Err(BadIndex { prod: 0, cons: 1 }));
        assert!(server.room().is_err());
    }

    #[test]
    fn the_blocking_client_waits_and_notifies() {
        let (server, client) = pair();
        let server = RefCell::new(server);
        let notified = Cell::new(0);
        // Whenever the client waits, the server echoes what it can.
        let echo = || {
            let mut server = server.borrow_mut();
            let mut bytes = [0; 300];
            let room = server.room().unwrap().min(300);
            let count = server.read(&mut bytes[..room]).unwrap();
            assert_eq!(server.write(&bytes[..count]), Ok(count));
        };
        let mut stream = client.blocking(echo, || notified.set(notified.get() + 1));
        assert_eq!(stream.read_ready(), Ok(false));
        assert_eq!(stream.write_ready(), Ok(true));
        let sent: Vec<u8> = (0..1500u32).map(|i| i as u8).collect();
        stream.write_all(&sent).unwrap();
        assert_eq!(stream.write(&[]), Ok(0));
        assert!(notified.get() >= 2, "each piece was announced: {}", notified.get());
        let mut received = vec![0; 1500];
        stream.read_exact(&mut received).unwrap();
        assert_eq!(sent, received);
        assert_eq!(stream.read(&mut []), Ok(0));
    }
}
