//! A channel of plain bytes: to the other who asked for the same stream, or back to ourselves.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use databack::ask::Kind;
use databack::vchan::Peer;

use crate::{Channel, Error, Link, Options};

/// A stream of bytes in both directions. Reading and writing block; for an event loop there are
/// [`try_read`](Self::try_read) and [`try_write`](Self::try_write), and a file ([`AsFd`]) that is
/// readable when it is worth another try of either.
pub struct Stream<L> {
    link: L,
    /// The domain of the channels went, without a word on the ring.
    is_lost: bool,
}

impl Stream<Channel> {
    /// Takes a channel for [`Kind::Stream`] or [`Kind::Echo`].
    ///
    /// # Errors
    /// Most of [`Error`].
    pub fn open(kind: Kind, options: &Options) -> Result<Self, Error> {
        Channel::open(kind, options).map(Self::over)
    }

    /// The channel.
    pub const fn channel(&self) -> &Channel {
        &self.link
    }
}

impl<L: Link> Stream<L> {
    /// A stream over `link`, on which nobody speaks in frames.
    pub const fn over(link: L) -> Self {
        Self { link, is_lost: false }
    }

    /// Reads what is here: `None` if nothing is yet, and no bytes if the other end closed the
    /// stream.
    ///
    /// # Errors
    /// [`Error::Gone`] if the domain of the channels is no more, and others of the channel.
    pub fn try_read(&mut self, bytes: &mut [u8]) -> Result<Option<usize>, Error> {
        let end = self.link.end();
        loop {
            // Whether it is gone is looked at before what it may have written last.
            let is_gone = end.peer() == Peer::Gone;
            let count = end.read(bytes)?;
            if count > 0 || bytes.is_empty() {
                self.notify()?;
                return Ok(Some(count));
            }
            if self.is_lost {
                return Err(Error::Gone);
            }
            if is_gone {
                return Ok(Some(0));
            }
            if !end.await_bytes(0)? && end.peer() != Peer::Gone {
                return Ok(None);
            }
        }
    }

    /// Writes as many bytes as there is room for: `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Gone`] if nobody will read them, and others of the channel.
    pub fn try_write(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let end = self.link.end();
        loop {
            if self.is_lost || end.peer() == Peer::Gone {
                return Err(Error::Gone);
            }
            let count = end.write(bytes)?;
            if count > 0 || bytes.is_empty() {
                self.notify()?;
                return Ok(Some(count));
            }
            if !end.await_room(0)? {
                return Ok(None);
            }
        }
    }

    /// Takes note of events that came, or come until `deadline`. What there is to it, reading and
    /// writing tell.
    ///
    /// # Errors
    /// Those of the devices.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Result<(), Error> {
        match self.link.wait(deadline) {
            Err(Error::Gone) => self.is_lost = true,
            result => return result,
        }
        Ok(())
    }

    /// Waits until the other end of the channel has taken all that was written.
    ///
    /// # Errors
    /// [`Error::Gone`] if it went before, and others of the channel.
    pub fn drain(&mut self) -> Result<(), Error> {
        loop {
            let end = self.link.end();
            let room = end.room()?;
            if room == end.sizes().left().bytes() {
                return Ok(());
            }
            if self.is_lost || end.peer() == Peer::Gone {
                return Err(Error::Gone);
            }
            if !end.await_room(room)? {
                self.wait(None)?;
            }
        }
    }

    fn notify(&mut self) -> Result<(), Error> {
        if self.link.end().take_notify() { self.link.notify() } else { Ok(()) }
    }
}

impl<L: Link> Read for Stream<L> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.try_read(bytes).map_err(io::Error::other)? {
                Some(count) => return Ok(count),
                None => self.wait(None).map_err(io::Error::other)?,
            }
        }
    }
}

impl<L: Link> Write for Stream<L> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if let Some(count) = self.try_write(bytes).map_err(io::Error::other)? {
                return Ok(count);
            }
            self.wait(None).map_err(io::Error::other)?;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<L: AsFd> AsFd for Stream<L> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}
