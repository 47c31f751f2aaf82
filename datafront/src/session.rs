//! What is said on a channel of services: calls become frames in one ring, frames in the other
//! become events. It neither waits nor notifies; who owns the channel does.

use alloc::collections::BTreeMap;

use databack::frame::{self, Call, Frame, HEAD_MAX, Head, Notice, PAYLOAD_MAX, VERSION};
use databack::vchan::End;
use serde::Serialize;
use xen_sys::ids::DomId;
use xen_sys::page::Shared;

use crate::Error;
use crate::event::{Delivery, Event, Message, Welcome};

/// The frame that is being received.
#[derive(Debug)]
enum Incoming {
    /// None, or not all of its head.
    Head,
    /// One whose payload belongs to its event.
    Whole { event: Event, payload: Vec<u8>, left: usize },
    /// One with bytes of a block.
    Block { id: u64, left: usize },
}

/// A block that we push.
#[derive(Clone, Copy, Debug)]
struct Sending {
    /// How many bytes were not sent yet.
    left: u64,
    /// How many may be sent now.
    credit: u64,
}

/// Our side of a conversation with the broker.
#[derive(Debug)]
pub struct Session {
    welcome: Option<Welcome>,
    /// Frames of ours, from `sent` on not in the ring yet.
    out: Vec<u8>,
    sent: usize,
    incoming: Incoming,
    pushes: BTreeMap<u32, Sending>,
    last_id: u32,
    /// How many bytes were in the ring to us when they were not enough.
    seen_bytes: usize,
    /// How much room was in the ring from us when it was not enough, if more is waited for.
    seen_room: Option<usize>,
}

/// What [`Session::rest`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: it can be slept until there is an event.
    Idle,
    /// Something came: [`Session::poll`] again.
    More,
    /// There is room for what was not taken.
    Room,
}

impl Session {
    /// Begins one, with our first frame ready to be sent.
    #[must_use]
    pub fn new() -> Self {
        let mut session = Self {
            welcome: None,
            out: Vec::new(),
            sent: 0,
            incoming: Incoming::Head,
            pushes: BTreeMap::new(),
            last_id: 0,
            seen_bytes: 0,
            seen_room: None,
        };
        if let Some(head) = frame::encode(&Call::Hello { version: VERSION, features: 0 }, 0) {
            session.out.extend_from_slice(head.bytes());
        }
        session
    }

    /// What the broker said of itself and us, if it has.
    #[must_use]
    pub const fn welcome(&self) -> Option<&Welcome> {
        self.welcome.as_ref()
    }

    /// An id that no push, publish or subscription of ours has.
    pub fn fresh_id(&mut self) -> u32 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }

    /// Whether frames wait for room in the ring.
    #[must_use]
    pub const fn has_unsent(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Sends what there is room for, and returns what the broker said next, if it said anything.
    ///
    /// # Errors
    /// [`Error::Ring`], [`Error::Frame`] or [`Error::Nonsense`]: the channel has to be given up.
    pub fn poll<M: Shared>(&mut self, end: &mut End<M>) -> Result<Option<Event>, Error> {
        self.flush(end)?;
        loop {
            match &mut self.incoming {
                Incoming::Head => match self.begin(end)? {
                    Some(event) if matches!(self.incoming, Incoming::Head) => {
                        return Ok(Some(event));
                    }
                    Some(event @ Event::Delivery(_)) => return Ok(Some(event)),
                    None if matches!(self.incoming, Incoming::Head) => return Ok(None),
                    _ => {}
                },
                Incoming::Block { left: 0, .. } => self.incoming = Incoming::Head,
                Incoming::Block { id, .. } => {
                    let id = *id;
                    self.seen_bytes = end.available()?;
                    return Ok((self.seen_bytes > 0).then_some(Event::Data { id }));
                }
                Incoming::Whole { payload, left, .. } => {
                    let from = payload.len();
                    payload.resize(from + end.available()?.min(*left), 0);
                    let count = end.read(&mut payload[from..])?;
                    payload.truncate(from + count);
                    *left -= count;
                    if *left > 0 {
                        self.seen_bytes = 0;
                        return Ok(None);
                    }
                    if let Incoming::Whole { event, payload, .. } =
                        core::mem::replace(&mut self.incoming, Incoming::Head)
                    {
                        return Ok(Some(event.with_payload(payload)));
                    }
                }
            }
        }
    }

    /// After [`poll`](Self::poll) returned nothing: asks for events of what is missing, then looks
    /// once more whether it came meanwhile.
    ///
    /// # Errors
    /// [`Error::Ring`].
    pub fn rest<M: Shared>(&mut self, end: &mut End<M>) -> Result<Rest, Error> {
        if end.await_bytes(self.seen_bytes)? {
            return Ok(Rest::More);
        }
        if let Some(seen) = self.seen_room
            && end.await_room(seen)?
        {
            self.seen_room = None;
            return Ok(Rest::Room);
        }
        Ok(Rest::Idle)
    }

    /// Takes bytes of the block that [`Event::Data`] spoke of; tells how many.
    ///
    /// # Errors
    /// [`Error::Ring`].
    pub fn read<M: Shared>(
        &mut self,
        end: &mut End<M>,
        block: u64,
        bytes: &mut [u8],
    ) -> Result<usize, Error> {
        let Incoming::Block { id, left } = &mut self.incoming else { return Ok(0) };
        if *id != block {
            return Ok(0);
        }
        let most = bytes.len().min(*left);
        let count = end.read(&mut bytes[..most])?;
        *left -= count;
        Ok(count)
    }

    /// Says something. What finds no room is kept and sent by [`poll`](Self::poll).
    ///
    /// # Errors
    /// [`Error::TooLong`] if a frame cannot hold it; [`Error::Ring`].
    pub fn call<M: Shared>(
        &mut self,
        end: &mut End<M>,
        call: &Call<'_>,
        payload: &[u8],
    ) -> Result<(), Error> {
        let head = head(call, payload.len())?;
        self.flush(end)?;
        if !self.has_unsent() && end.room()? >= head.bytes().len() + payload.len() {
            end.write(head.bytes())?;
            end.write(payload)?;
        } else {
            self.out.extend_from_slice(head.bytes());
            self.out.extend_from_slice(payload);
            self.flush(end)?;
        }
        Ok(())
    }

    /// Begins to push a block of `len` bytes, of which `first` are the first; tells how many of
    /// these were taken. The others are to be [fed](Self::feed).
    ///
    /// # Errors
    /// As [`call`](Self::call); [`Error::Nonsense`] before the broker's welcome.
    pub fn push<M: Shared>(
        &mut self,
        end: &mut End<M>,
        push: &Push<'_>,
        first: &[u8],
    ) -> Result<usize, Error> {
        let window = self.welcome.ok_or(Error::Nonsense("no welcome"))?.limits.window.into();
        let Push { id, domain, name, len, timeout_ms } = *push;
        let call = Call::Push { id, domain: domain.map(DomId::raw), name, len, timeout_ms };
        self.flush(end)?;
        let most = u64::min(len, window);
        let spare = spare(end).max(HEAD_MAX);
        let room = if self.has_unsent() { 0 } else { end.room()?.saturating_sub(spare) };
        let first = &first[..first.len().min(room).min(PAYLOAD_MAX as usize)];
        let first = &first[..usize::try_from(most).map_or(first.len(), |m| m.min(first.len()))];
        self.call(end, &call, first)?;
        let count = first.len() as u64;
        self.pushes.insert(id, Sending { left: len - count, credit: window - count });
        Ok(first.len())
    }

    /// Sends more of a block; tells how many of `bytes` were taken. If none were, there will be
    /// [`Event::Credit`] or [`Event::Room`] when it is worth another try.
    ///
    /// # Errors
    /// [`Error::Ring`].
    pub fn feed<M: Shared>(
        &mut self,
        end: &mut End<M>,
        id: u32,
        bytes: &[u8],
    ) -> Result<usize, Error> {
        self.flush(end)?;
        let Some(Sending { left, credit }) = self.pushes.get(&id).copied() else { return Ok(0) };
        let most = left.min(credit).min(PAYLOAD_MAX.into());
        let wanted = bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        if wanted == 0 || self.has_unsent() {
            return Ok(0);
        }
        if credit < left && credit < self.least_credit(end) {
            return Ok(0);
        }
        let free = end.room()?;
        let room = free.saturating_sub(spare(end));
        // Many small frames would cost more than they bring.
        if room < wanted.min(worth(end)) {
            self.seen_room = Some(free);
            return Ok(0);
        }
        let bytes = &bytes[..wanted.min(room)];
        self.call(end, &Call::PushData { id }, bytes)?;
        let count = bytes.len() as u64;
        if let Some(sending) = self.pushes.get_mut(&id) {
            *sending = Sending { left: left - count, credit: credit - count };
        }
        Ok(bytes.len())
    }

    /// Less credit than that is not used, unless it is all that a block needs: it would make small
    /// frames, and more comes when half of the window is with the receiver.
    fn least_credit<M: Shared>(&self, end: &End<M>) -> u64 {
        let window = self.welcome.map_or(0, |welcome| u64::from(welcome.limits.window));
        (window / 2).min(worth(end) as u64)
    }

    fn flush<M: Shared>(&mut self, end: &mut End<M>) -> Result<(), Error> {
        if !self.has_unsent() {
            return Ok(());
        }
        self.sent += end.write(&self.out[self.sent..])?;
        if self.has_unsent() {
            self.seen_room = Some(0);
        } else {
            self.out.clear();
            self.sent = 0;
            self.seen_room = None;
        }
        Ok(())
    }

    /// Takes the head of a frame, if all of it is here. Its event may want a payload.
    fn begin<M: Shared>(&mut self, end: &mut End<M>) -> Result<Option<Event>, Error> {
        let mut bytes = [0; HEAD_MAX];
        let count = end.peek(&mut bytes)?;
        self.seen_bytes = count;
        let decoded = frame::decode::<Notice<'_>>(&bytes[..count]).map_err(Error::Frame)?;
        let Some(Frame { header, head, payload }) = decoded else { return Ok(None) };
        end.consume(head);
        let left = payload as usize;
        let event = self.event(&header)?;
        match header {
            Notice::Deliver { id, .. } | Notice::DeliverData { id } => {
                self.incoming = Incoming::Block { id, left };
                return Ok(Some(event).filter(|event| matches!(event, Event::Delivery(_))));
            }
            _ if left > 0 => {
                self.incoming = Incoming::Whole { event, payload: Vec::new(), left };
                return Ok(None);
            }
            _ => {}
        }
        Ok(Some(event))
    }

    /// What a header says, before its payload is known; notes what it means for our pushes.
    fn event(&mut self, notice: &Notice<'_>) -> Result<Event, Error> {
        let domain = |raw| DomId::new(raw).ok_or(Error::Nonsense("a domain's number"));
        Ok(match *notice {
            Notice::Hello { version, features: _, domain: own, limits } => {
                let welcome = Welcome { version, domain: domain(own)?, limits };
                self.welcome = Some(welcome);
                Event::Welcome(welcome)
            }
            Notice::Served { name } => Event::Served { name: name.to_owned() },
            Notice::NotServed { name, reason } => {
                Event::NotServed { name: name.to_owned(), reason }
            }
            Notice::PushCredit { id, bytes } => {
                if let Some(sending) = self.pushes.get_mut(&id) {
                    sending.credit = sending.credit.saturating_add(bytes.into());
                }
                Event::Credit { id }
            }
            Notice::PushDone { id, outcome } => {
                self.pushes.remove(&id);
                self.seen_room = self.seen_room.filter(|_| self.has_unsent());
                Event::Pushed { id, outcome, reply: Vec::new() }
            }
            Notice::Deliver { id, from, name, len } => {
                Event::Delivery(Delivery { id, from: domain(from)?, name: name.to_owned(), len })
            }
            Notice::DeliverData { id } => Event::Data { id },
            Notice::DeliverCancel { id, reason } => Event::Cancelled { id, reason },
            Notice::Published { id, receivers } => Event::Published { id, receivers },
            Notice::NotPublished { id, reason } => Event::NotPublished { id, reason },
            Notice::Subscribed { id } => Event::Subscribed { id },
            Notice::Ended { id, reason } => Event::Ended { id, reason },
            Notice::Message { id, seq, dropped, retained, from, topic } => {
                let (from, topic, payload) = (domain(from)?, topic.to_owned(), Vec::new());
                let subscription = id;
                let message =
                    Message { subscription, from, topic, seq, dropped, retained, payload };
                Event::Message(message)
            }
            Notice::Status => Event::Status(String::new()),
            Notice::Pong { cookie } => Event::Pong { cookie },
        })
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

/// A block that is to be pushed.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    /// Our own choice, by [`Session::fresh_id`].
    pub id: u32,
    /// To whom; to whoever serves the name if there is one such domain.
    pub domain: Option<DomId>,
    /// The name that the receiver serves.
    pub name: &'a str,
    /// How many bytes.
    pub len: u64,
    /// The most milliseconds until the receiver's answer; 0 for as long as it takes.
    pub timeout_ms: u32,
}

/// From so much room on another frame of data is worth it: half of the ring, or this.
const WORTH_MAX: usize = 64 << 10;

fn worth<M: Shared>(end: &End<M>) -> usize {
    (end.sizes().left().bytes() / 2).min(WORTH_MAX) - spare(end)
}

/// Bytes of the ring from us that blocks leave free: heads of frames, and as much as blocks do not
/// get of a receiver's ring. What went through a ring of the same size has room there then, and
/// waits in nobody's memory.
fn spare<M: Shared>(end: &End<M>) -> usize {
    (end.sizes().left().bytes() / 8).min(1024)
}

fn head(header: &impl Serialize, payload: usize) -> Result<Head, Error> {
    let payload = u32::try_from(payload).ok();
    payload.and_then(|payload| frame::encode(header, payload)).ok_or(Error::TooLong)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test data is small, or meant to wrap")]
mod tests;
