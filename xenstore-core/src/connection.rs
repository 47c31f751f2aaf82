//! Connections: what the server keeps for each ring.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::debris::Debris;
use crate::domain::Domains;
use crate::host::{ConnId, DomId};
use crate::outbox::{Outbox, Spare};
use crate::quota::Denial;
use crate::reply::Reply;
use crate::transaction::Transaction;
use crate::tree::Tree;
use crate::watch::WatchId;
use crate::wire::{Error, Header, Op};

/// One connection. When idle it holds no buffer.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) domain: DomId,
    generation: u32,
    /// The beginning of a frame whose rest has not come yet.
    pub(crate) input: Vec<u8>,
    pub(crate) outbox: Outbox,
    pub(crate) watches: Vec<WatchId>,
    pub(crate) transactions: BTreeMap<u32, Box<Transaction>>,
    last_transaction: u32,
    /// Whether [`Connections::ready`] has it.
    queued: bool,
    /// Whether its owner should look at it, because there is something to send.
    ready: bool,
    /// The same, because its input can go on.
    resumed: bool,
    /// Whether input was refused, so that its owner must be told when it can go on.
    pub(crate) stalled: bool,
    /// Whether it is noted that it waits for memory.
    pub(crate) starved: bool,
    /// How often the request that is next waited for what was removed to be cleared away.
    pub(crate) waits: u8,
    /// Whether it waits for that.
    pub(crate) waits_now: bool,
    /// Whether service ended after a violation.
    pub(crate) ignored: bool,
}

impl Connection {
    /// Returns the number of the next transaction: never 0, and none that is open.
    pub(crate) fn next_transaction(&mut self) -> u32 {
        loop {
            self.last_transaction = self.last_transaction.wrapping_add(1);
            let number = self.last_transaction;
            if number != 0 && !self.transactions.contains_key(&number) {
                return number;
            }
        }
    }

    /// Queues the reply to a request, and tells what error it is, if it is one. Whoever gave the
    /// request sends it: there is no other mark.
    pub(crate) fn answer(
        &mut self,
        domains: &Domains,
        spare: &mut Spare,
        header: Header,
        outcome: Result<&Reply<'_>, Denial>,
    ) -> Option<Error> {
        let outbox = &mut self.outbox;
        let done = outcome.map(|reply| match reply.bytes() {
            Some(bytes) => outbox.reply(header, spare, bytes),
            None => outbox.long_reply(header, spare, |out| reply.extend(out, domains)),
        });
        let error = match done {
            Ok(true) => return None,
            Ok(false) => Error::E2big,
            Err(denial) => denial.error,
        };
        let header = Header { kind: Op::Error.to_wire().into(), ..header };
        outbox.long_reply(header, spare, |out| {
            out.extend_from_slice(error.name().as_bytes());
            out.push(0);
        });
        Some(error)
    }

    /// Notes that all was sent.
    pub(crate) fn drained(&mut self) {
        self.ready = false;
    }

    /// Forgets all that the guest began, as if it had just connected. Its watches are the caller's
    /// business, and so are the transactions' accounts.
    pub(crate) fn restart(&mut self, spare: &mut Spare) {
        spare.give(core::mem::take(&mut self.input));
        self.outbox.clear(spare);
        self.last_transaction = 0;
        self.stalled = false;
        self.waits = 0;
        self.waits_now = false;
    }
}

/// All connections, and which of them their owner should look at.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: Vec<Slot>,
    free: Vec<u32>,
    ready: VecDeque<u32>,
    pub(crate) spare: Spare,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
}

impl Connections {
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn add(&mut self, domain: DomId) -> ConnId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, connection: None });
            u32::try_from(self.slots.len() - 1).expect("there are fewer domains than numbers")
        });
        let place = &mut self.slots[slot as usize];
        let generation = place.generation;
        place.connection = Some(Box::new(Connection {
            domain,
            generation,
            input: Vec::new(),
            outbox: Outbox::default(),
            watches: Vec::new(),
            transactions: BTreeMap::new(),
            last_transaction: 0,
            queued: false,
            ready: false,
            resumed: false,
            stalled: false,
            starved: false,
            waits: 0,
            waits_now: false,
            ignored: false,
        }));
        ConnId { slot, generation }
    }

    pub(crate) fn remove(&mut self, id: ConnId) {
        if self.find(id).is_none() {
            return;
        }
        let place = &mut self.slots[id.slot()];
        place.generation = place.generation.wrapping_add(1);
        if let Some(mut connection) = place.connection.take() {
            connection.restart(&mut self.spare);
        }
        self.free.push(id.slot);
    }

    pub(crate) fn find(&self, id: ConnId) -> Option<&Connection> {
        let connection = self.slots.get(id.slot())?.connection.as_deref()?;
        (connection.generation == id.generation).then_some(connection)
    }

    pub(crate) fn find_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.parts(id).map(|(connection, _)| connection)
    }

    /// Returns a connection with the buffers that it may take from and give to.
    pub(crate) fn parts(&mut self, id: ConnId) -> Option<(&mut Connection, &mut Spare)> {
        let connection = self.slots.get_mut(id.slot())?.connection.as_deref_mut()?;
        (connection.generation == id.generation).then_some((connection, &mut self.spare))
    }

    /// Returns the connection that is in a slot now.
    pub(crate) fn in_slot(&mut self, slot: u32) -> Option<(&mut Connection, &mut Spare)> {
        let connection = self.slots.get_mut(slot as usize)?.connection.as_deref_mut()?;
        Some((connection, &mut self.spare))
    }

    /// Has the owner look at the connection in a slot, if `why` says true of it.
    #[inline]
    pub(crate) fn mark(&mut self, slot: u32, why: impl FnOnce(&mut Connection) -> bool) {
        let connection =
            self.slots.get_mut(slot as usize).and_then(|place| place.connection.as_deref_mut());
        if let Some(connection) = connection
            && why(connection)
        {
            connection.ready = true;
            if !core::mem::replace(&mut connection.queued, true) {
                self.ready.push_back(slot);
            }
        }
    }

    /// Has the owner look at the connection in a slot for input that it was refused before.
    pub(crate) fn mark_resumed(&mut self, slot: u32) {
        self.mark(slot, |connection| {
            connection.resumed = true;
            true
        });
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(crate) fn next_ready(&mut self) -> Option<ConnId> {
        loop {
            let slot = self.ready.pop_front()?;
            // The slot may be empty by now, or hold another connection, which has its own mark.
            let Some((connection, _)) = self.in_slot(slot) else { continue };
            connection.queued = false;
            let resumed = core::mem::take(&mut connection.resumed);
            if core::mem::take(&mut connection.ready) || resumed {
                return Some(ConnId { slot, generation: connection.generation });
            }
        }
    }

    /// Forgets how many replies waited at once, apart from those that do now.
    pub(crate) fn forget_highest(&mut self) {
        let connections = self.slots.iter_mut().filter_map(|slot| slot.connection.as_mut());
        connections.for_each(|connection| connection.outbox.forget_highest());
    }

    /// Sacrifices the open transactions of every connection but the privileged domain's.
    pub(crate) fn sacrifice_transactions(
        &mut self,
        privileged: DomId,
        tree: &Tree,
        debris: &mut Debris,
    ) {
        let connections = self.slots.iter_mut().filter_map(|slot| slot.connection.as_mut());
        for connection in connections.filter(|connection| connection.domain != privileged) {
            connection.transactions.values_mut().for_each(|open| open.sacrifice(tree, debris));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnId, &Connection)> + '_ {
        (0..).zip(&self.slots).filter_map(|(slot, place)| {
            let connection = place.connection.as_deref()?;
            Some((ConnId { slot, generation: connection.generation }, connection))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_dense_and_stale_ids_find_nothing() {
        let mut connections = Connections::default();
        let first = connections.add(DomId(1));
        let second = connections.add(DomId(2));
        assert_eq!((first.slot(), second.slot()), (0, 1));
        connections.remove(first);
        let third = connections.add(DomId(3));
        assert_eq!(third.slot(), 0, "the slot serves again");
        assert!(connections.find(first).is_none(), "the old id does not name the new connection");
        connections.remove(first);
        assert_eq!(connections.find(third).map(|conn| conn.domain), Some(DomId(3)));
    }

    #[test]
    fn each_ready_connection_is_told_once() {
        let mut connections = Connections::default();
        let (first, second) = (connections.add(DomId(1)), connections.add(DomId(2)));
        for slot in [1, 0, 1] {
            connections.mark(slot, |_| true);
        }
        assert_eq!(connections.next_ready(), Some(second));
        connections.remove(first);
        let third = connections.add(DomId(3));
        assert_eq!(connections.next_ready(), None, "what was marked is gone");
        connections.mark(third.slot, |_| true);
        assert_eq!(connections.next_ready(), Some(third));
    }

    #[test]
    fn an_idle_connection_is_small() {
        let size = size_of::<Connection>() + size_of::<Slot>();
        assert!(size <= 224, "{size} bytes");
    }
}
