//! Messages by topic: publishing them, and subscribing to what others publish.

use databack::frame::{Call, Slow};

use crate::connection::Connection;
use crate::event::{Event, Message};
use crate::{Error, Link};

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) filter: String,
    pub(crate) slow: Slow,
    pub(crate) credit: u32,
    /// Messages that were taken since credit was last given back.
    taken: u32,
}

impl<L: Link> Connection<L> {
    /// Publishes a message; `retain` keeps it for those who subscribe later. Returns how many
    /// subscriptions it went to.
    ///
    /// # Errors
    /// [`Error::NotPublished`], [`Error::TooLong`], and those of the channel.
    pub fn publish(&mut self, topic: &str, message: &[u8], retain: bool) -> Result<u32, Error> {
        let id = self.session.fresh_id();
        self.call(&Call::Publish { id, topic, retain }, message)?;
        // A subscriber may let its publishers wait.
        let published = self.await_event(None, None, |event| match event {
            Event::Published { id: answered, receivers } if answered == id => Ok(Ok(receivers)),
            Event::NotPublished { id: answered, reason } if answered == id => Ok(Err(reason)),
            other => Err(other),
        })?;
        let published = published.ok_or(Error::Silence)?;
        published.map_err(|reason| Error::NotPublished { topic: topic.to_owned(), reason })
    }

    /// Subscribes to the topics that `filter` matches: levels separated by `/`, of which `+` is any
    /// one, and `#` at the end any rest. At most `credit` messages wait here; what becomes of more
    /// says `slow`. Returns the subscription's number.
    ///
    /// # Errors
    /// [`Error::NotSubscribed`], and those of the channel.
    pub fn subscribe(&mut self, filter: &str, slow: Slow, credit: u32) -> Result<u32, Error> {
        let id = self.session.fresh_id();
        let credit = credit.max(1);
        self.call(&Call::Subscribe { id, filter, slow, credit }, b"")?;
        let refused = self.answer(|event| match event {
            Event::Subscribed { id: answered } if answered == id => Ok(None),
            Event::Ended { id: answered, reason } if answered == id => Ok(Some(reason)),
            other => Err(other),
        })?;
        let filter = filter.to_owned();
        if let Some(reason) = refused {
            return Err(Error::NotSubscribed { filter, reason });
        }
        self.subscriptions.insert(id, Subscription { filter, slow, credit, taken: 0 });
        Ok(id)
    }

    /// Ends a subscription. Messages that are here already can still be taken.
    ///
    /// # Errors
    /// Those of the channel.
    pub fn unsubscribe(&mut self, subscription: u32) -> Result<(), Error> {
        if self.subscriptions.remove(&subscription).is_none() {
            return Ok(());
        }
        self.call(&Call::Unsubscribe { id: subscription }, b"")?;
        self.answer(|event| match event {
            Event::Ended { id, .. } if id == subscription => Ok(()),
            other => Err(other),
        })
    }

    /// Waits for the next message of any subscription.
    ///
    /// # Errors
    /// [`Error::NotSubscribed`] if a subscription ended; and those of the channel, where no new one
    /// can be had.
    pub fn next_message(&mut self) -> Result<Message, Error> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                self.give_credit(message.subscription)?;
                return Ok(message);
            }
            if let Some(error) = self.ended.pop_front() {
                return Err(error);
            }
            self.restore()?;
            match self.await_event(None, None, |event| match event {
                event @ (Event::Message(_) | Event::Ended { .. }) => Ok(event),
                other => Err(other),
            }) {
                Ok(event) => event.map_or(Ok(()), |event| self.keep(event))?,
                // The channel is taken anew above, if it can be.
                Err(Error::Gone) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The messages of all subscriptions, as they come; the end is an error.
    pub fn messages(&mut self) -> impl Iterator<Item = Result<Message, Error>> {
        core::iter::from_fn(|| Some(self.next_message()))
    }

    /// A message was taken: lets others come, half of the credit at a time.
    fn give_credit(&mut self, id: u32) -> Result<(), Error> {
        let is_lost = self.is_lost();
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return Ok(()) };
        subscription.taken += 1;
        if subscription.taken * 2 < subscription.credit || is_lost {
            return Ok(());
        }
        let messages = core::mem::take(&mut subscription.taken);
        match self.call(&Call::Credit { id, messages }, b"") {
            Err(Error::Gone) => Ok(()),
            result => result,
        }
    }
}
