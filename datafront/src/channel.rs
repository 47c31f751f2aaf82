//! A channel under Linux.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use databack::ask::{Ask, Kind};
use databack::vchan::{self, CLIENT_LIVE, End, Order, Peer, Sizes};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use xen_sys::ids::{DomId, GrantRef, Port};
use xen_sys::linux::{self, EVTCHN, GNTDEV, Mapping, Protection};

use crate::store::{Asked, Store};
use crate::xenbus::{left, uninterrupted};
use crate::{Error, Link, Options};

/// The most pages that a channel has.
const PAGES_MAX: usize = 1 + 2 * Order::LARGEST.pages();

/// What [`Epoll`] calls the two files.
const EVENTS: u64 = 0;
const STORE: u64 = 1;

/// Our end of a channel to the domain that has them. Its file, [`AsFd`], is readable when there is
/// something to look at.
pub struct Channel {
    // In the order in which they go: the pages, the port, then the request.
    end: End<Mapping>,
    events: linux::Channel,
    /// Both of them, and Xenstore.
    readiness: Epoll,
    asked: Asked,
}

impl Channel {
    /// Asks for a channel and takes it.
    ///
    /// # Errors
    /// Most of [`Error`].
    pub fn open(kind: Kind, options: &Options) -> Result<Self, Error> {
        // Should this program be killed, nobody comes after it.
        let ask = Ask { kind, sizes: options.sizes, once: true };
        let (asked, ring, port) = Store::open()?.ask(&ask, options)?;
        let (end, events) = attach(asked.backend(), ring, port)?;
        let readiness = readiness(&events, &asked).map_err(Error::Events)?;
        Ok(Self { end, events, readiness, asked })
    }

    /// The domain at the other end.
    #[must_use]
    pub const fn backend(&self) -> DomId {
        self.asked.backend()
    }

    /// Takes the request for the channel back, from any thread, which ends the channel: run what
    /// this returns.
    pub fn withdrawal(&self) -> impl Fn() + Send + use<> {
        self.asked.withdrawal()
    }
}

/// Binds the port, maps the pages and says that we are here.
fn attach(
    backend: DomId,
    ring: GrantRef,
    port: Port,
) -> Result<(End<Mapping>, linux::Channel), Error> {
    let failed = |what| move |error| Error::Attach { what, backend, error };
    let events = linux::Channel::bind(backend, port).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => {
            Error::Device { path: EVTCHN, error }
        }
        _ => failed("the event channel")(error),
    })?;
    let memory = Mapping::reserve(PAGES_MAX);
    let mut memory = memory.map_err(|error| Error::Device { path: GNTDEV, error })?;
    memory.extend(backend, &[ring], Protection::Write).map_err(failed("the channel's page"))?;
    memory.notify_on_unmap(CLIENT_LIVE, events.port()).map_err(failed("the channel's page"))?;
    let sizes = Sizes::announced(&memory)
        .ok_or_else(|| failed("the sizes of the rings")(std::io::ErrorKind::InvalidData.into()))?;
    let pages: Vec<_> = vchan::grants(&memory, sizes).map(GrantRef).collect();
    memory.extend(backend, &pages, Protection::Write).map_err(failed("the rings"))?;
    let end = End::connect(memory, sizes);
    events.notify().map_err(Error::Events)?;
    Ok((end, events))
}

fn readiness(events: &linux::Channel, asked: &Asked) -> std::io::Result<Epoll> {
    let readiness = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    readiness.add(events, EpollEvent::new(EpollFlags::EPOLLIN, EVENTS))?;
    readiness.add(asked, EpollEvent::new(EpollFlags::EPOLLIN, STORE))?;
    Ok(readiness)
}

impl Link for Channel {
    type Memory = Mapping;

    fn end(&mut self) -> &mut End<Mapping> {
        &mut self.end
    }

    fn notify(&mut self) -> Result<(), Error> {
        self.events.notify().map_err(Error::Events)
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<(), Error> {
        let mut ready = [EpollEvent::empty(); 2];
        let timeout = left(deadline);
        let waited = uninterrupted(|| Ok(self.readiness.wait(&mut ready, timeout)?));
        let count = waited.map_err(Error::Events)?;
        for ready in &ready[..count] {
            if ready.data() == STORE {
                self.asked.check()?;
            } else {
                self.events.take().map_err(Error::Events)?;
            }
        }
        Ok(())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readiness.0.as_fd()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if self.end.peer() != Peer::Gone {
            self.end.close();
            // Unmapping the page sends another; this one is for whoever looks at once.
            let _ = self.events.notify();
        }
    }
}
