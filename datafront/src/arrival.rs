//! Blocks that come while something else is waited for.

use databack::frame::{Call, Cancel};

use crate::connection::Connection;
use crate::event::Delivery;
use crate::{Error, Link};

/// Bytes of blocks that are kept for later while something else is waited for; a block that does
/// not fit is rejected.
const BACKLOG_MAX: usize = 16 << 20;

/// A block that came, or comes, while nobody reads it.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) delivery: Delivery,
    /// Bytes that were taken out of the ring, from `read` on not given to anybody.
    pub(crate) kept: Vec<u8>,
    pub(crate) read: usize,
    /// How many bytes are still to come.
    pub(crate) left: u64,
    pub(crate) cancelled: Option<Cancel>,
}

impl Arrival {
    /// A block of which nothing has come yet.
    pub(crate) const fn of(delivery: Delivery) -> Self {
        let left = delivery.len;
        Self { delivery, kept: Vec::new(), read: 0, left, cancelled: None }
    }
}

impl<L: Link> Connection<L> {
    /// Takes bytes of a block out of the way: they are kept if somebody may want them.
    pub(crate) fn keep_data(&mut self, id: u64) -> Result<(), Error> {
        let mut bytes = [0; 16 << 10];
        let count = self.with(|session, link| session.read(link.end(), id, &mut bytes))?;
        let Some(arrival) = self.arrivals.get_mut(&id) else { return Ok(()) };
        if self.backlog + count > BACKLOG_MAX {
            self.forget(id);
            return self.call(&Call::Reject { id }, b"the receiver is busy with other blocks");
        }
        arrival.left = arrival.left.saturating_sub(count as u64);
        arrival.kept.extend_from_slice(&bytes[..count]);
        self.backlog += count;
        Ok(())
    }

    /// Gives `count` bytes of those that were kept up.
    pub(crate) const fn unkeep(&mut self, count: usize) {
        self.backlog = self.backlog.saturating_sub(count);
    }

    /// Nothing more of this block is wanted.
    pub(crate) fn forget(&mut self, id: u64) {
        if let Some(arrival) = self.arrivals.remove(&id) {
            self.unkeep(arrival.kept.len() - arrival.read);
        }
        self.new_arrivals.retain(|new| *new != id);
    }
}
