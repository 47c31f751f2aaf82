//! A channel of services, and the blocking use of it.

use alloc::collections::{BTreeMap, VecDeque};
use core::mem;
use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::Instant;

use databack::ask::Kind;
use databack::frame::Call;
use databack::vchan::Peer;

use crate::arrival::Arrival;
use crate::event::{Event, Message, Welcome};
use crate::session::{Rest, Session};
use crate::topics::Subscription;
use crate::{Channel, Error, Link, Options};

/// How long the broker may take for an answer that depends on nobody else.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait before a lost channel is asked for again: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A conversation with the broker by way of a [`Link`].
///
/// The calls that block wait for one thing each and keep what comes meanwhile. For use in an event
/// loop there is [`poll`](Self::poll), with the session's calls by [`with`](Self::with): when it
/// returns nothing, wait until the file ([`AsFd`]) is readable.
///
/// A connection that was [opened](Self::open) survives the end of the domain of the channels: what
/// was being pushed is [`Error::Interrupted`], and the next call takes a new channel, with the same
/// names served and the same subscriptions.
pub struct Connection<L> {
    link: Option<L>,
    pub(crate) session: Session,
    /// Takes a new channel after one was lost.
    reopen: Option<Box<dyn FnMut() -> Result<L, Error> + Send>>,
    /// The names that we serve.
    pub(crate) served: Vec<String>,
    pub(crate) subscriptions: BTreeMap<u32, Subscription>,
    pub(crate) arrivals: BTreeMap<u64, Arrival>,
    /// Those of them that nobody was told of.
    pub(crate) new_arrivals: VecDeque<u64>,
    pub(crate) messages: VecDeque<Message>,
    /// What ended without our asking.
    pub(crate) ended: VecDeque<Error>,
    pub(crate) backlog: usize,
}

impl Connection<Channel> {
    /// Takes a channel of services and waits for the broker's welcome.
    ///
    /// # Errors
    /// Most of [`Error`].
    pub fn open(options: &Options) -> Result<Self, Error> {
        let channel = Channel::open(Kind::Services, options)?;
        let options = options.clone();
        Self::over(channel, Some(Box::new(move || Channel::open(Kind::Services, &options))))
    }

    /// The channel, as long as there is one.
    #[must_use]
    pub const fn channel(&self) -> Option<&Channel> {
        self.link.as_ref()
    }
}

impl<L: Link> Connection<L> {
    /// Begins a conversation over `link`; `reopen` takes another when that is lost.
    ///
    /// # Errors
    /// [`Error::Silence`], and those of the link.
    pub fn over(
        link: L,
        reopen: Option<Box<dyn FnMut() -> Result<L, Error> + Send>>,
    ) -> Result<Self, Error> {
        let mut connection = Self {
            link: Some(link),
            session: Session::new(),
            reopen,
            served: Vec::new(),
            subscriptions: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            new_arrivals: VecDeque::new(),
            messages: VecDeque::new(),
            ended: VecDeque::new(),
            backlog: 0,
        };
        connection.greet()?;
        Ok(connection)
    }

    /// What the broker said of itself and of us.
    #[must_use]
    pub const fn welcome(&self) -> Option<&Welcome> {
        self.session.welcome()
    }

    /// What the broker tells of itself: as text, and as much as this domain may know.
    ///
    /// # Errors
    /// Those of the channel.
    pub fn status(&mut self) -> Result<String, Error> {
        self.call(&Call::Status, b"")?;
        self.answer(|event| match event {
            Event::Status(text) => Ok(text),
            other => Err(other),
        })
    }

    /// Asks the broker for a sign of life; everything that was called before is with it then.
    ///
    /// # Errors
    /// Those of the channel.
    pub fn ping(&mut self) -> Result<(), Error> {
        let wanted = u64::from(self.session.fresh_id());
        self.call(&Call::Ping { cookie: wanted }, b"")?;
        self.answer(|event| match event {
            Event::Pong { cookie } if cookie == wanted => Ok(()),
            other => Err(other),
        })
    }

    /// Ends the conversation when all that was called is with the broker.
    ///
    /// # Errors
    /// Those of the channel.
    pub fn close(mut self) -> Result<(), Error> {
        if self.link.is_some() { self.ping() } else { Ok(()) }
    }

    /// Returns what the broker said, if it said anything, without waiting. What the calls that
    /// block have kept is not among it.
    ///
    /// After `None` the channel's file becomes readable when there is something new, room for what
    /// was not taken included.
    ///
    /// # Errors
    /// Those of the channel; after [`Error::Gone`] the next call takes a new one.
    pub fn poll(&mut self) -> Result<Option<Event>, Error> {
        self.wait(Instant::now())?;
        loop {
            if let Some(event) = self.next_event()? {
                return Ok(Some(event));
            }
            match self.rest()? {
                Rest::Idle => return Ok(None),
                Rest::Room => return Ok(Some(Event::Room)),
                Rest::More => {}
            }
        }
    }

    /// Calls the session directly, which waits for nothing; notifies the broker if that is due.
    ///
    /// # Errors
    /// Those of the call, and of the channel.
    pub fn with<T>(
        &mut self,
        call: impl FnOnce(&mut Session, &mut L) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let link = self.link.as_mut().ok_or(Error::Gone)?;
        let result = call(&mut self.session, link);
        if link.end().take_notify() {
            link.notify()?;
        }
        result.or_else(|error| self.lost(error))
    }

    /// Says something to the broker, over a new channel if the old one was lost.
    pub(crate) fn call(&mut self, call: &Call<'_>, payload: &[u8]) -> Result<(), Error> {
        self.restore()?;
        self.with(|session, link| session.call(link.end(), call, payload))
    }

    /// Waits for what depends on the broker alone.
    pub(crate) fn answer<T>(
        &mut self,
        wanted: impl FnMut(Event) -> Result<T, Event>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + PATIENCE;
        self.await_event(Some(deadline), None, wanted)?.ok_or(Error::Silence)
    }

    /// Waits until `wanted` takes an event, or until the time has come; keeps all others. With a
    /// block `push`, of which more is to be sent, it returns as soon as that is worth a try.
    pub(crate) fn await_event<T>(
        &mut self,
        deadline: Option<Instant>,
        push: Option<u32>,
        mut wanted: impl FnMut(Event) -> Result<T, Event>,
    ) -> Result<Option<T>, Error> {
        loop {
            let mut has_credit = false;
            while let Some(event) = self.next_event()? {
                match wanted(event) {
                    Ok(found) => return Ok(Some(found)),
                    Err(Event::Credit { id }) => has_credit |= push == Some(id),
                    Err(other) => self.keep(other)?,
                }
            }
            if has_credit || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
            match self.rest()? {
                Rest::Room if push.is_some() => return Ok(None),
                Rest::Room | Rest::More => {}
                Rest::Idle => self.wait(deadline)?,
            }
        }
    }

    /// Keeps what came, without waiting, but for bytes of blocks.
    pub(crate) fn take_note(&mut self) -> Result<(), Error> {
        self.wait(Instant::now())?;
        while let Some(event) = self.next_event()? {
            if matches!(event, Event::Data { .. }) {
                break;
            }
            self.keep(event)?;
        }
        Ok(())
    }

    /// Waits until all that was called is in the ring.
    pub(crate) fn drain(&mut self) -> Result<(), Error> {
        while self.session.has_unsent() {
            while let Some(event) = self.next_event()? {
                self.keep(event)?;
            }
            if self.session.has_unsent() && self.rest()? == Rest::Idle {
                self.wait(None)?;
            }
        }
        Ok(())
    }

    /// The next thing that the broker said.
    fn next_event(&mut self) -> Result<Option<Event>, Error> {
        let event = self.with(|session, link| session.poll(link.end()))?;
        if event.is_none() {
            let link = self.link.as_mut().ok_or(Error::Gone)?;
            if link.end().peer() == Peer::Gone && link.end().available()? == 0 {
                return self.lost(Error::Gone);
            }
        }
        Ok(event)
    }

    fn rest(&mut self) -> Result<Rest, Error> {
        self.with(|session, link| session.rest(link.end()))
    }

    /// Returns when an event came, or the time has; sooner at times. For an event loop that has
    /// nothing else to wait for, after [`poll`](Self::poll) returned nothing.
    ///
    /// # Errors
    /// Those of the channel.
    pub fn wait(&mut self, deadline: impl Into<Option<Instant>>) -> Result<(), Error> {
        self.with(|_, link| link.wait(deadline.into()))
    }

    /// Takes note of what was not waited for.
    pub(crate) fn keep(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Delivery(delivery) => {
                self.new_arrivals.push_back(delivery.id);
                self.arrivals.insert(delivery.id, Arrival::of(delivery));
            }
            Event::Data { id } => self.keep_data(id)?,
            Event::Cancelled { id, reason } => {
                if let Some(arrival) = self.arrivals.get_mut(&id) {
                    arrival.cancelled = Some(reason);
                }
            }
            Event::Message(message) => self.messages.push_back(message),
            Event::NotServed { name, reason } => {
                self.served.retain(|served| *served != name);
                self.ended.push_back(Error::NotServed { name, reason });
            }
            Event::Ended { id, reason } => {
                if let Some(Subscription { filter, .. }) = self.subscriptions.remove(&id) {
                    self.ended.push_back(Error::NotSubscribed { filter, reason });
                }
            }
            // What nobody waits for any longer.
            Event::Welcome(_)
            | Event::Served { .. }
            | Event::Credit { .. }
            | Event::Room
            | Event::Pushed { .. }
            | Event::Published { .. }
            | Event::NotPublished { .. }
            | Event::Subscribed { .. }
            | Event::Status(_)
            | Event::Pong { .. } => {}
        }
        Ok(())
    }

    /// Gives the channel up if it cannot be used after this.
    fn lost<T>(&mut self, error: Error) -> Result<T, Error> {
        if !matches!(error, Error::TooLong | Error::Input(_)) {
            self.link = None;
            self.session = Session::new();
            self.arrivals.clear();
            self.new_arrivals.clear();
            self.backlog = 0;
        }
        Err(error)
    }

    /// Whether the channel was lost and none was taken since.
    pub(crate) const fn is_lost(&self) -> bool {
        self.link.is_none()
    }

    /// Takes a new channel if the old one was lost, as soon as there is one.
    ///
    /// # Errors
    /// [`Error::Gone`] if nobody told how; what will not get better by waiting.
    pub(crate) fn restore(&mut self) -> Result<(), Error> {
        let (mut pause, longest) = PAUSES;
        if self.link.is_none() && self.reopen.is_some() {
            log::warn!("the channel was lost; another is asked for");
        }
        while self.link.is_none() {
            let reopen = self.reopen.as_mut().ok_or(Error::Gone)?;
            match reopen() {
                Ok(link) => {
                    self.link = Some(link);
                    match self.greet().and_then(|()| self.resume()) {
                        Err(Error::Gone | Error::Silence) => self.link = None,
                        result => return result,
                    }
                }
                Err(error) if !error.may_pass() => return Err(error),
                Err(error) => log::warn!("{error}; this is tried again"),
            }
            if self.link.is_none() {
                thread::sleep(pause);
                pause = longest.min(pause * 2);
            }
        }
        Ok(())
    }

    /// Waits for the broker's first words.
    fn greet(&mut self) -> Result<(), Error> {
        self.session = Session::new();
        self.answer(|event| match event {
            Event::Welcome(_) => Ok(()),
            other => Err(other),
        })
    }

    /// Asks for everything anew that was granted on the channel that was lost.
    fn resume(&mut self) -> Result<(), Error> {
        let names = mem::take(&mut self.served);
        let subscriptions = mem::take(&mut self.subscriptions);
        let mut result = names.iter().try_for_each(|name| self.serve(name));
        for Subscription { filter, slow, credit, .. } in subscriptions.values() {
            result = result.and_then(|()| self.subscribe(filter, *slow, *credit).map(drop));
        }
        if self.is_lost() {
            // It is tried again.
            (self.served, self.subscriptions) = (names, subscriptions);
        }
        result
    }
}

impl Connection<Channel> {
    /// Takes the request for the channel back from anywhere, say when the program is interrupted:
    /// run what this returns.
    #[must_use]
    pub fn withdrawal(&self) -> Option<impl Fn() + Send + use<>> {
        self.channel().map(Channel::withdrawal)
    }
}

impl<L: Link + AsFd> Connection<L> {
    /// The file that is readable when there is something new.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] after the channel was lost.
    pub fn file(&self) -> io::Result<BorrowedFd<'_>> {
        self.link.as_ref().map(AsFd::as_fd).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}
