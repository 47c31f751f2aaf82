//! A connection to whoever serves a Xenstore ring, used as Linux uses its own: it notifies when it
//! has put something in, and when it has taken something out of a ring that was full.

use core::convert::Infallible;
use core::sync::atomic::{Ordering, fence};

use embedded_io::{ErrorType, Read, Write};
use stubdom::platform::Platform;
use xen_sys::event::Channel;
use xen_sys::page::{Shared, SpecialPage};
use xen_sys::param;
use xen_sys::ring::xenstore::{Client, RING_SIZE};

/// The client's end of a ring, and the event channel beside it.
pub(crate) struct Line<'a, P> {
    client: Client<P>,
    channel: Channel,
    platform: &'a Platform,
}

impl<'a> Line<'a, SpecialPage> {
    /// The connection to the host's Xenstore.
    pub(crate) fn to_store(platform: &'a Platform) -> Self {
        let page = param::store_page().expect("a Xenstore ring");
        let port = param::store_port().expect("a Xenstore port");
        let channel = platform.events.borrow_mut().adopt(port).expect("the port is open");
        Self::over(page, channel, platform)
    }
}

impl<'a, P: Shared> Line<'a, P> {
    /// A connection over a page that is ours and a port beside it.
    pub(crate) fn over(page: P, channel: Channel, platform: &'a Platform) -> Self {
        Self { client: Client::attach(page), channel, platform }
    }

    /// Puts as many of these bytes into the ring as fit, and tells nobody; says how many.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> usize {
        self.client.write(bytes).expect("the server's index is possible")
    }

    /// Takes what waits of the replies and tells nobody; says how many bytes, and whether the
    /// server may wait for the room that this made.
    pub(crate) fn take(&mut self, bytes: &mut [u8]) -> (usize, bool) {
        let count = self.client.read(bytes).expect("the server's index is possible");
        if count == 0 {
            return (0, false);
        }
        // A server that finds the ring full waits for an event.
        fence(Ordering::SeqCst);
        let left = self.client.available().expect("the server's index is possible");
        (count, left + count >= RING_SIZE)
    }

    pub(crate) fn notify(&self) {
        self.channel.notify();
    }

    /// Waits until something may have changed.
    pub(crate) fn wait(&self) {
        self.platform.wait();
    }
}

impl<P> ErrorType for Line<'_, P> {
    type Error = Infallible;
}

impl<P: Shared> Read for Line<'_, P> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        loop {
            let (count, was_full) = self.take(bytes);
            if was_full {
                self.notify();
            }
            if count > 0 || bytes.is_empty() {
                return Ok(count);
            }
            self.wait();
        }
    }
}

impl<P: Shared> Write for Line<'_, P> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        loop {
            let count = self.put(bytes);
            if count > 0 {
                self.notify();
            }
            if count > 0 || bytes.is_empty() {
                return Ok(count);
            }
            self.wait();
        }
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        // What was written is in the ring, and the server was told.
        Ok(())
    }
}
