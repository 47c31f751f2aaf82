//! Blocks: pushing them, and receiving what others push.

use core::str::FromStr;
use core::time::Duration;
use std::io::{self, BufRead, Read};
use std::time::Instant;

use databack::frame::{self, Call, Outcome, Reason};
use xen_sys::ids::DomId;

use crate::connection::Connection;
use crate::event::Event;
use crate::session::Push;
use crate::{Error, Link};

/// How much longer than its own time a push waits for the broker to say that the time is over.
const GRACE: Duration = Duration::from_secs(5);

/// Who shall get a block: the name of a service, and the domain if more than one serves it. As
/// text `NAME` or `DOMAIN/NAME`, with the domain's number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The domain, if it matters.
    pub domain: Option<DomId>,
    /// The name.
    pub name: String,
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let (domain, name) = match text.split_once('/') {
            Some((domain, name)) => {
                let domain = domain.parse().ok().and_then(DomId::new);
                (Some(domain.ok_or(BadTarget::Domain)?), name)
            }
            None => (None, text),
        };
        if !frame::is_name(name) {
            return Err(BadTarget::Name);
        }
        Ok(Self { domain, name: name.to_owned() })
    }
}

/// Why a text is no [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// Before the slash there is no number of a domain.
    #[error("before the `/` stands the number of a domain")]
    Domain,
    /// The name is none.
    #[error("a name is 1 to 64 bytes without blanks, `/`, `*`, `#`, `+` and quotes")]
    Name,
}

/// How a push ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The end; with the receiver's flag, if it gave one.
    pub outcome: Outcome,
    /// The receiver's reply, or why it did not want the block.
    pub reply: Vec<u8>,
}

impl<L: Link> Connection<L> {
    /// Pushes a block of `len` bytes and waits for the receiver's answer, for `timeout` at most if
    /// that is given.
    ///
    /// A slice is sent without being copied in between; a file wants a `BufReader`.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the channel was lost after the block was begun, [`Error::Input`]
    /// if the block cannot be read to its end, and those of the channel. Whatever became of the
    /// block otherwise is an [`Answer`].
    pub fn push(
        &mut self,
        to: &Target,
        mut block: impl BufRead,
        len: u64,
        timeout: Option<Duration>,
    ) -> Result<Answer, Error> {
        self.restore()?;
        let id = self.session.fresh_id();
        let timeout_ms = timeout
            .map_or(0, |timeout| u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1));
        let first = if len == 0 { &[][..] } else { block.fill_buf().map_err(Error::Input)? };
        let push = Push { id, domain: to.domain, name: &to.name, len, timeout_ms };
        let sent = self.with(|session, link| session.push(link.end(), &push, first))?;
        block.consume(sent);
        let deadline = timeout.map(|timeout| Instant::now() + timeout + GRACE);
        let answer = self.send_rest(id, &mut block, len - sent as u64, deadline);
        answer.map_err(|error| if self.is_lost() { Error::Interrupted } else { error })
    }

    /// Sends what is left of a block, and waits for the end of the push.
    fn send_rest(
        &mut self,
        id: u32,
        block: &mut impl BufRead,
        mut left: u64,
        deadline: Option<Instant>,
    ) -> Result<Answer, Error> {
        loop {
            while left > 0 {
                let bytes = match block.fill_buf() {
                    Ok([]) => Err(io::ErrorKind::UnexpectedEof.into()),
                    other => other,
                };
                let bytes = match bytes {
                    Ok(bytes) => bytes,
                    Err(error) => return self.give_up(id, error),
                };
                let count = self.with(|session, link| session.feed(link.end(), id, bytes))?;
                if count == 0 {
                    break;
                }
                block.consume(count);
                left -= count as u64;
            }
            let sending = Some(id).filter(|_| left > 0);
            let answer = self.await_event(deadline, sending, |event| match event {
                Event::Pushed { id: ended, outcome, reply } if ended == id => {
                    Ok(Answer { outcome, reply })
                }
                other => Err(other),
            })?;
            if let Some(answer) = answer {
                return Ok(answer);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.call(&Call::PushCancel { id }, b"")?;
                return Ok(Answer { outcome: Outcome::TimedOut, reply: Vec::new() });
            }
        }
    }

    /// Tells the broker that the rest of a block does not come.
    fn give_up(&mut self, id: u32, error: io::Error) -> Result<Answer, Error> {
        self.call(&Call::PushCancel { id }, b"")?;
        self.answer(|event| match event {
            Event::Pushed { id: ended, .. } if ended == id => Ok(()),
            other => Err(other),
        })?;
        Err(Error::Input(error))
    }

    /// Serves a name: blocks that are pushed to it come to this connection, see
    /// [`accept`](Self::accept).
    ///
    /// # Errors
    /// [`Error::NotServed`], and those of the channel.
    pub fn serve(&mut self, name: &str) -> Result<(), Error> {
        self.call(&Call::Serve { name }, b"")?;
        let reason = self.answer(|event| match event {
            Event::Served { name: served } if served == name => Ok(None),
            Event::NotServed { name: refused, reason } if refused == name => Ok(Some(reason)),
            other => Err(other),
        })?;
        if let Some(reason) = reason {
            return Err(Error::NotServed { name: name.to_owned(), reason });
        }
        self.served.push(name.to_owned());
        Ok(())
    }

    /// Serves a name no longer. Blocks that are here already can still be accepted.
    ///
    /// # Errors
    /// Those of the channel.
    pub fn unserve(&mut self, name: &str) -> Result<(), Error> {
        self.served.retain(|served| served != name);
        self.call(&Call::Unserve { name }, b"")?;
        self.answer(|event| match event {
            Event::NotServed { name: ended, reason: Reason::Asked } if ended == name => Ok(()),
            other => Err(other),
        })
    }

    /// Waits for a block that is pushed to a name that we [serve](Self::serve).
    ///
    /// # Errors
    /// [`Error::NotServed`] if a name is taken from us; and those of the channel, where no new one
    /// can be had.
    pub fn accept(&mut self) -> Result<Block<'_, L>, Error> {
        loop {
            if let Some(error) = self.ended.pop_front() {
                return Err(error);
            }
            while let Some(id) = self.new_arrivals.pop_front() {
                if self.arrivals.get(&id).is_some_and(|arrival| arrival.cancelled.is_some()) {
                    self.forget(id);
                } else if let Some(arrival) = self.arrivals.get(&id) {
                    let (from, len) = (arrival.delivery.from, arrival.delivery.len);
                    let name = arrival.delivery.name.clone();
                    return Ok(Block { connection: self, id, from, name, len, is_open: true });
                }
            }
            self.restore()?;
            match self.await_event(None, None, |event| match event {
                event @ (Event::Delivery(_) | Event::NotServed { .. }) => Ok(event),
                other => Err(other),
            }) {
                Ok(event) => event.map_or(Ok(()), |event| self.keep(event))?,
                // The channel is taken anew above, if it can be.
                Err(Error::Gone) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A block that somebody pushes to us. It is read as it comes, and then answered; dropped without
/// an answer, it is rejected.
pub struct Block<'c, L: Link> {
    connection: &'c mut Connection<L>,
    id: u64,
    from: DomId,
    name: String,
    len: u64,
    is_open: bool,
}

impl<L: Link> Block<'_, L> {
    /// Who pushes it.
    #[must_use]
    pub const fn from(&self) -> DomId {
        self.from
    }

    /// The name that it was pushed to.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes it has.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Looks, without waiting, whether there is still somebody who waits for an answer.
    ///
    /// # Errors
    /// [`Error::Input`] if the sender gave up or went; those of the channel.
    pub fn check(&mut self) -> Result<(), Error> {
        self.connection.take_note()?;
        let arrival = self.connection.arrivals.get(&self.id).ok_or(Error::Gone)?;
        match arrival.cancelled {
            Some(reason) => Err(Error::Input(io::Error::other(reason.to_string()))),
            None => Ok(()),
        }
    }

    /// Answers it with a flag, and up to 4,096 bytes that go with it. What was not read is not
    /// waited for.
    ///
    /// # Errors
    /// [`Error::TooLong`], or those of the channel.
    pub fn done(mut self, flag: u32, reply: &[u8]) -> Result<(), Error> {
        self.is_open = false;
        if reply.len() > frame::REPLY_MAX as usize {
            self.end(&Call::Reject { id: self.id }, b"the receiver's reply is too long")?;
            return Err(Error::TooLong);
        }
        self.end(&Call::Done { id: self.id, flag }, reply)
    }

    /// Does not take it, and tells why.
    ///
    /// # Errors
    /// Those of the channel.
    pub fn reject(mut self, why: &str) -> Result<(), Error> {
        self.is_open = false;
        let mut end = why.len().min(frame::REPLY_MAX as usize);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        self.end(&Call::Reject { id: self.id }, &why.as_bytes()[..end])
    }

    fn end(&mut self, call: &Call<'_>, payload: &[u8]) -> Result<(), Error> {
        if !self.connection.arrivals.contains_key(&self.id) {
            // Its channel is no more, and whoever pushed it knows.
            return Err(Error::Gone);
        }
        self.connection.forget(self.id);
        self.connection.call(call, payload)?;
        self.connection.drain()
    }

    /// Takes bytes that are here: `None` if there are none, though there will be.
    fn take(&mut self, bytes: &mut [u8]) -> Result<Option<usize>, Error> {
        let (id, connection) = (self.id, &mut *self.connection);
        let arrival = connection.arrivals.get_mut(&id).ok_or(Error::Gone)?;
        if arrival.read < arrival.kept.len() {
            let kept = &arrival.kept[arrival.read..];
            let count = kept.len().min(bytes.len());
            bytes[..count].copy_from_slice(&kept[..count]);
            arrival.read += count;
            if arrival.read == arrival.kept.len() {
                arrival.kept.clear();
                arrival.read = 0;
            }
            connection.unkeep(count);
            return Ok(Some(count));
        }
        if arrival.left == 0 {
            return Ok(Some(0));
        }
        if let Some(reason) = arrival.cancelled {
            return Err(Error::Input(io::Error::other(reason.to_string())));
        }
        let count = connection.with(|session, link| session.read(link.end(), id, bytes))?;
        if let Some(arrival) = connection.arrivals.get_mut(&id) {
            arrival.left = arrival.left.saturating_sub(count as u64);
        }
        Ok(Some(count).filter(|&count| count > 0))
    }
}

impl<L: Link> Read for Block<'_, L> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(count) = self.take(bytes).map_err(io::Error::other)? {
                return Ok(count);
            }
            let id = self.id;
            let event = self.connection.await_event(None, None, |event| match event {
                Event::Data { id: of } if of == id => Ok(None),
                Event::Cancelled { id: of, .. } if of == id => Ok(Some(event)),
                other => Err(other),
            });
            if let Some(event) = event.map_err(io::Error::other)?.flatten() {
                self.connection.keep(event).map_err(io::Error::other)?;
            }
        }
    }
}

impl<L: Link> Drop for Block<'_, L> {
    fn drop(&mut self) {
        if self.is_open {
            // Nobody is there to be told if it fails; the channel is lost then.
            let _ = self.end(&Call::Reject { id: self.id }, b"the receiver did not answer");
        }
    }
}
