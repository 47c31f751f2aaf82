//! The client's half of the protocol: requests go out, replies and events come in, over any
//! stream of bytes.
//!
//! [`Client`] asks one thing at a time and waits for the answer; whether waiting sleeps or spins
//! is the stream's business. Events that arrive in between are kept, see [`Client::poll_event`].
//! Operations on nodes are in [`Nodes`], which a [`Client`] and a [`Transaction`] both offer.
//! The codec below ([`codec::encode`], [`codec::Decoder`]) does no I/O and can be used alone.
//!
//! The server is not trusted: what breaks the protocol is a [`Failure`], never a panic, and
//! everything that it can make the client keep is bounded.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use embedded_io::{Read, ReadReady, Write};

use crate::host::DomId;
use crate::wire::{Error, Op};

pub mod codec;
mod event;
mod nodes;
mod permission;
mod transaction;

use codec::{Decoder, Frame, Nonsense};
use event::EventQueue;

pub use event::{EVENTS_MAX, Event};
pub use nodes::{LISTING_MAX, Nodes};
pub use permission::{Access, Permission};
pub use transaction::{TRANSACTION_ATTEMPTS, Transaction};

/// Why a request brought no result; `E` is the stream's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure<E> {
    /// The server refused: the connection is well.
    Answer(Error),
    /// The request would not fit into a frame, or a string in it holds a NUL: nothing was sent.
    Unsendable,
    /// The server broke the protocol; the connection is best given up.
    Nonsense(Nonsense),
    /// The stream failed; the connection cannot be used any more.
    Stream(E),
    /// The stream has ended, or an earlier failure made the connection useless.
    Closed,
}

impl<E> From<Nonsense> for Failure<E> {
    fn from(nonsense: Nonsense) -> Self {
        Self::Nonsense(nonsense)
    }
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(error) => write!(f, "the store answered {}", error.name()),
            Self::Unsendable => f.write_str("the request does not fit into a frame"),
            Self::Nonsense(nonsense) => write!(f, "the store broke the protocol: {nonsense}"),
            Self::Stream(error) => write!(f, "the connection to the store failed: {error}"),
            Self::Closed => f.write_str("the connection to the store is closed"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for Failure<E> {}

/// A connection to a store, the only user of `stream`.
///
/// A request goes out as a whole before anything is read, so a stream whose other end must be
/// read from before it takes more has to do that by itself; a Xenstore ring does not.
pub struct Client<T> {
    stream: T,
    decoder: Decoder,
    /// The request being sent; kept for its capacity.
    request: Vec<u8>,
    events: EventQueue,
    last_req_id: u32,
    /// What one request's id is ahead of the last one's: 1, or 0 where ids are not given back.
    step: u32,
    /// An earlier failure left the stream somewhere inside a frame.
    broken: bool,
}

impl<T: Read + Write> Client<T> {
    /// Begins a conversation on a stream that carries nothing yet.
    pub fn new(stream: T) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            request: Vec::new(),
            events: EventQueue::new(),
            last_req_id: 0,
            step: 1,
            broken: false,
        }
    }

    /// Begins one on a stream that does not give a request's id back with every reply, as Linux's
    /// `/dev/xen/xenbus` does not for a watch: all requests have the id 0.
    pub fn without_ids(stream: T) -> Self {
        Self { step: 0, ..Self::new(stream) }
    }

    /// The stream, to be waited for: whoever reads from it or writes to it ends the conversation.
    pub const fn stream(&self) -> &T {
        &self.stream
    }

    /// Gives the stream back; events that wait are lost.
    pub fn into_stream(self) -> T {
        self.stream
    }

    /// Sends any request and returns its reply's payload; `parts` follow each other as they
    /// stand, so strings bring their NUL.
    ///
    /// # Errors
    /// [`Failure::Answer`] with the server's error, or any other [`Failure`].
    pub fn call(&mut self, op: Op, parts: &[&[u8]]) -> Result<Vec<u8>, Failure<T::Error>> {
        self.call_in(0, op, parts)
    }

    /// Asks for an event at every change of `path` and below; the first comes at once.
    ///
    /// `token` comes back with each event. `path` may be special (`@releaseDomain`).
    ///
    /// # Errors
    /// [`Error::Eexist`] if this path and token are watched already, or any other [`Failure`].
    pub fn watch(&mut self, path: &str, token: &str) -> Result<(), Failure<T::Error>> {
        let [path, token] = [string(path)?, string(token)?];
        self.call(Op::Watch, &[path, &[0], token, &[0]]).and_then(acknowledged)
    }

    /// Ends a watch: no event of it arrives later, those that wait here may still be fetched.
    ///
    /// # Errors
    /// [`Error::Enoent`] if there is no such watch, or any other [`Failure`].
    pub fn unwatch(&mut self, path: &str, token: &str) -> Result<(), Failure<T::Error>> {
        let [path, token] = [string(path)?, string(token)?];
        self.call(Op::Unwatch, &[path, &[0], token, &[0]]).and_then(acknowledged)
    }

    /// Returns the path of a domain's home, whether or not there is such a domain.
    ///
    /// # Errors
    /// Any [`Failure`].
    pub fn domain_path(&mut self, domain: DomId) -> Result<String, Failure<T::Error>> {
        let number = alloc::format!("{domain}\0");
        let reply = self.call(Op::GetDomainPath, &[number.as_bytes()])?;
        let path = reply.strip_suffix(b"\0").ok_or(Nonsense::Malformed)?;
        let path = core::str::from_utf8(path).map_err(|_| Nonsense::Malformed)?;
        Ok(path.into())
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// Any [`Failure`] but an answer.
    pub fn next_event(&mut self) -> Result<Event, Failure<T::Error>> {
        loop {
            if let Some(event) = self.events.pop() {
                return Ok(event);
            }
            if let Some(frame) = self.advance()? {
                self.accept_event(frame)?;
            }
        }
    }

    /// Returns the next event if one is here, without waiting.
    ///
    /// # Errors
    /// Any [`Failure`] but an answer.
    pub fn poll_event(&mut self) -> Result<Option<Event>, Failure<T::Error>>
    where
        T: ReadReady,
    {
        loop {
            if let Some(event) = self.events.pop() {
                return Ok(Some(event));
            }
            if self.broken {
                return Err(Failure::Closed);
            }
            if !self.stream.read_ready().map_err(Failure::Stream)? {
                return Ok(None);
            }
            if let Some(frame) = self.advance()? {
                self.accept_event(frame)?;
            }
        }
    }

    /// Whether events were dropped since the last call because [`EVENTS_MAX`] waited unfetched.
    ///
    /// Then anything watched may have changed and must be read again.
    pub fn events_were_lost(&mut self) -> bool {
        self.events.take_loss()
    }

    /// Sends a request in transaction `tx_id` and waits for its reply, keeping events.
    fn call_in(
        &mut self,
        tx_id: u32,
        op: Op,
        parts: &[&[u8]],
    ) -> Result<Vec<u8>, Failure<T::Error>> {
        if self.broken {
            return Err(Failure::Closed);
        }
        self.last_req_id = self.last_req_id.wrapping_add(self.step);
        let req_id = self.last_req_id;
        self.request.clear();
        codec::encode(&mut self.request, op, req_id, tx_id, parts)
            .map_err(|_| Failure::Unsendable)?;
        self.send()?;
        loop {
            let Some(frame) = self.advance()? else { continue };
            if frame.is_event() {
                self.accept_event(frame)?;
            } else {
                return self.judge(frame, op, req_id, tx_id);
            }
        }
    }

    /// Writes the whole request.
    fn send(&mut self) -> Result<(), Failure<T::Error>> {
        // Until the last byte is out, a failure leaves half a frame behind.
        self.broken = true;
        let mut rest = &self.request[..];
        while !rest.is_empty() {
            let written = self.stream.write(rest).map_err(Failure::Stream)?;
            if written == 0 {
                return Err(Failure::Closed);
            }
            rest = rest.get(written..).unwrap_or_default();
        }
        self.stream.flush().map_err(Failure::Stream)?;
        self.broken = false;
        Ok(())
    }

    /// Reads once; returns the frame if that completed one.
    fn advance(&mut self) -> Result<Option<Frame>, Failure<T::Error>> {
        if self.broken {
            return Err(Failure::Closed);
        }
        self.broken = true;
        let read = self.stream.read(self.decoder.vacant()).map_err(Failure::Stream)?;
        if read == 0 {
            return Err(Failure::Closed);
        }
        let frame = self.decoder.filled(read)?;
        self.broken = false;
        Ok(frame)
    }

    /// Keeps an event; at this point nothing else may arrive.
    fn accept_event(&mut self, frame: Frame) -> Result<(), Failure<T::Error>> {
        let event = Event::from_frame(frame);
        self.broken = event.is_err();
        self.events.push(event?);
        Ok(())
    }

    /// Turns the reply to the one open request into its result.
    fn judge(
        &mut self,
        frame: Frame,
        op: Op,
        req_id: u32,
        tx_id: u32,
    ) -> Result<Vec<u8>, Failure<T::Error>> {
        let result = frame.into_reply(op, req_id, tx_id);
        self.broken = matches!(result, Err(codec::Refusal::Nonsense(_)));
        result.map_err(|refusal| match refusal {
            codec::Refusal::Answer(error) => Failure::Answer(error),
            codec::Refusal::Nonsense(nonsense) => Failure::Nonsense(nonsense),
        })
    }
}

impl<T: Read + Write> Nodes for Client<T> {
    type Error = T::Error;

    fn ask(&mut self, op: Op, parts: &[&[u8]]) -> Result<Vec<u8>, Failure<T::Error>> {
        self.call_in(0, op, parts)
    }
}

/// Lets a string into a request only if its end can be seen there.
fn string<E>(text: &str) -> Result<&[u8], Failure<E>> {
    if text.contains('\0') { Err(Failure::Unsendable) } else { Ok(text.as_bytes()) }
}

/// Expects the reply of an operation that has nothing to tell.
fn acknowledged<E>(reply: Vec<u8>) -> Result<(), Failure<E>> {
    if reply == b"OK\0" { Ok(()) } else { Err(Nonsense::Malformed.into()) }
}

#[cfg(test)]
mod tests;
