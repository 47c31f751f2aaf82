//! The server: bytes of many connections in, bytes and events out.

mod answering;
mod control;
mod lifecycle;
mod setting;
#[cfg(test)]
mod tests;
mod transacting;
mod waiting;
mod watching;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use zerocopy::FromBytes;

use crate::announce::Audience;
use crate::counts::{Counts, Stats};
use crate::debris::Ticket;
use crate::host::{Config, ConnId, DomId, Host, UniqueId};
use crate::operation::Edit;
use crate::path::Path;
use crate::store::{NODES_AT_ONCE, Store};
use crate::wire::{Features, HEADER_SIZE, Header, Violation};
use waiting::{Memory, RESERVE};

/// The most bytes that one call of [`Server::receive`] takes: a ring's worth
/// (`XENSTORE_RING_SIZE` in xen/include/public/io/xs_wire.h).
const RECEIVE_MAX: usize = 1024;

/// So many bytes that are received clear away as much as a call of [`Server::clear_away`] does: two
/// nodes a byte.
const CLEARS_A_ROUND: usize = NODES_AT_ONCE / 2;

/// A Xenstore server for one host.
///
/// Its owner moves bytes: after an event on a ring it calls [`receive`](Self::receive) with what
/// the ring holds, and then, for that connection and for every one that
/// [`next_ready`](Self::next_ready) names, [`transmit`](Self::transmit) until the ring is full, and
/// `receive` again for what was not taken.
#[derive(Debug)]
pub struct Server {
    config: Config,
    store: Store,
    audience: Audience,
    /// Holds the path of the present request; kept for its memory.
    scratch: Vec<u8>,
    counts: Counts,
    /// Whether shutdowns were told by domain, but not yet by the plain event.
    shutdowns: bool,
    /// Whether a guest began a transaction since all were last sacrificed.
    snapshots: bool,
    log_switches: control::Switches,
    memory: Memory,
    /// Guests whose requests wait until there is memory again.
    starved: Vec<ConnId>,
    /// Connections whose requests wait until so much of what was removed is cleared away.
    waiting: VecDeque<(Ticket, ConnId)>,
    /// Whether the last request was so much work that others come before the next.
    turn_over: bool,
}

impl Server {
    /// Makes a store with its first nodes, which belong to the privileged domain.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            store: Store::new(config),
            audience: Audience::new(),
            scratch: Vec::new(),
            counts: Counts::default(),
            shutdowns: false,
            snapshots: false,
            log_switches: control::Switches::default(),
            memory: Memory::Enough,
            starved: Vec::new(),
            waiting: VecDeque::new(),
            turn_over: false,
        }
    }

    /// Takes bytes from the front of what a connection's ring holds, at most 1024, and answers the
    /// requests that they complete.
    ///
    /// Returns how many were taken. Where that is fewer than there were, either the connection must
    /// first read what waits for it, or another reason holds its requests up: then
    /// [`is_stalled`](Self::is_stalled), and `next_ready` names it when it can go on. Or the last
    /// request was a large piece of work: then it is the others' turn first.
    ///
    /// # Errors
    /// A [`Violation`] ends the service, as [`ignore`](Self::ignore) does; the owner reports it in
    /// the ring.
    pub fn receive(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        host: &mut dyn Host,
    ) -> Result<usize, Violation> {
        let bytes = &bytes[..bytes.len().min(RECEIVE_MAX)];
        self.look_at_memory(host);
        self.turn_over = false;
        let mut rest = bytes;
        while !rest.is_empty() && !self.turn_over && self.may_receive(conn) {
            match self.take_frame(conn, rest, host) {
                Ok(Some(after)) => rest = after,
                Ok(None) => break,
                Err(violation) => {
                    self.ignore(conn);
                    return Err(violation);
                }
            }
        }
        let taken = bytes.len() - rest.len();
        self.counts.received(taken);
        // A node that is to be cleared away takes two bytes of a path to make: so whoever makes and
        // removes some cannot do it faster than they are freed.
        if !self.store.debris.is_empty() {
            self.clear(self.store.pace * taken / CLEARS_A_ROUND, host);
        }
        Ok(taken)
    }

    /// Gives `write` the bytes that a connection's ring should get next, again and again, until
    /// it takes fewer than it was given, or there are none left: then true is returned. `write`
    /// returns how many it took.
    ///
    /// # Errors
    /// That of `write`; the bytes still wait.
    #[inline]
    pub fn transmit<E>(
        &mut self,
        conn: ConnId,
        write: impl FnMut(&[u8]) -> Result<usize, E>,
    ) -> Result<bool, E> {
        let connection = self.audience.connections.find(conn);
        if connection.is_some_and(|conn| !conn.outbox.is_at_rest() || conn.stalled) {
            self.transmit_waiting(conn, write)
        } else {
            Ok(true)
        }
    }

    #[inline(never)]
    fn transmit_waiting<E>(
        &mut self,
        conn: ConnId,
        mut write: impl FnMut(&[u8]) -> Result<usize, E>,
    ) -> Result<bool, E> {
        let Audience { connections, watches, .. } = &mut self.audience;
        let Some((connection, spare)) = connections.parts(conn) else { return Ok(true) };
        let (stalled, outbox) = (connection.stalled, &mut connection.outbox);
        let mut drained = true;
        while drained
            && !outbox.is_at_rest()
            && let Some(bytes) = outbox.next(watches, spare)
        {
            let (len, taken) = (bytes.len(), write(bytes)?);
            self.counts.sent(taken);
            outbox.forget(taken, spare);
            drained = taken >= len;
        }
        let owed = outbox.owed();
        if stalled {
            self.wake(conn);
        } else if drained {
            connection.drained();
        }
        if owed.is_some() {
            self.audience.make_good(conn);
        }
        Ok(drained)
    }

    /// Returns a connection whose output changed, or whose input can go on, since it was last
    /// returned; `None` when there is none left. Answers alone name nobody: whoever gave the
    /// requests to `receive` knows of them.
    pub fn next_ready(&mut self) -> Option<ConnId> {
        self.audience.connections.next_ready()
    }

    /// Settles and frees a part of what requests and deaths removed; says whether more is left to do,
    /// of that or by connections that waited for it.
    ///
    /// Its owner calls this once a round, and waits for nothing while there is more.
    #[inline]
    pub fn clear_away(&mut self, host: &mut dyn Host) -> bool {
        if self.store.debris.is_empty() {
            return false;
        }
        self.clear(self.store.pace, host);
        !self.store.debris.is_empty() || self.audience.connections.has_ready()
    }

    /// Has so many nodes settled or freed in one go, and not 1024. With few, tests see much of what
    /// is in between.
    pub fn set_pace(&mut self, nodes: usize) {
        self.store.pace = nodes;
    }

    #[inline(never)]
    fn clear(&mut self, nodes: usize, host: &mut dyn Host) {
        self.store.clear(nodes);
        let done = self.store.debris.done();
        while let Some((_, conn)) = self.waiting.pop_front_if(|(ticket, _)| *ticket <= done) {
            if let Some(connection) = self.audience.connections.find_mut(conn) {
                connection.waits_now = false;
            }
            self.wake(conn);
        }
        if !self.starved.is_empty() {
            self.look_at_memory(host);
        }
        self.follow_up(host);
    }

    /// Whether a connection's requests must wait, for one of the reasons that `receive` has to take
    /// none; [`next_ready`](Self::next_ready) names it when that is over.
    pub fn is_stalled(&self, conn: ConnId) -> bool {
        self.audience.connections.find(conn).is_some_and(|connection| connection.stalled)
    }

    /// Returns every domain that is introduced or that a permission names, with its identity.
    ///
    /// Its owner asks Xen of these, and reports with [`shut_down`](Self::shut_down) and
    /// [`gone`](Self::gone).
    pub fn domains(&self) -> impl Iterator<Item = (DomId, UniqueId)> + '_ {
        self.store.domains.iter().map(|domain| (domain.id, domain.identity))
    }

    /// Returns the identity of a domain that is introduced or that a permission names.
    pub fn identity(&self, domain: DomId) -> Option<UniqueId> {
        self.store.domains.find(domain).map(|domain| domain.identity)
    }

    /// Returns the features that a connection was offered.
    pub fn features(&self, conn: ConnId) -> Features {
        let connection = self.audience.connections.find(conn);
        let domain = connection.and_then(|conn| self.store.domains.find(conn.domain));
        domain.map_or(Features::empty(), |domain| domain.features)
    }

    /// Recomputes every account and index from the tree and compares them with what is kept.
    ///
    /// # Errors
    /// A sentence on the first difference; there is none unless the server has a fault.
    pub fn check(&self) -> Result<(), String> {
        crate::check::check(&self.store, &self.audience)
    }

    /// Returns counts of what the server did since its start.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns counts of what the server holds. It goes through all domains: not to be called for
    /// each request.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            watches: self.audience.watches.len(),
            connections: self.audience.connections.len(),
            domains: self.store.domains.len(),
            permission_lists: self.store.interned.len(),
            requests: self.counts.all_requests(),
            ..Stats::default()
        };
        for domain in self.store.domains.iter() {
            stats.nodes += domain.usage.nodes;
            stats.transactions += domain.usage.transactions;
        }
        stats
    }

    /// Sets a node of the server's own. It is the privileged domain's, and has the permissions of the
    /// node in which it is made: below `/tool/xenstored` nobody else can see it. Who watches it hears
    /// of it. Nothing is done if the path cannot be one, or while memory is short; true if it was
    /// done.
    pub fn publish(&mut self, path: &str, value: &[u8], host: &dyn Host) -> bool {
        let caller = self.store.caller(self.config.privileged);
        let path = path.starts_with('/').then(|| Path::trusted(path.as_bytes()));
        let (Some(caller), Some(path)) = (caller, path) else { return false };
        // Nobody's transaction is given up for it.
        host.has_memory(RESERVE) && self.edit(caller, &Edit::Write(path, value), host).is_ok()
    }

    /// Takes one frame, or the part of one that has come, and returns what follows it; `None` if its
    /// request must wait, and then nothing was taken.
    fn take_frame<'b>(
        &mut self,
        conn: ConnId,
        bytes: &'b [u8],
        host: &mut dyn Host,
    ) -> Result<Option<&'b [u8]>, Violation> {
        let Some((connection, spare)) = self.audience.connections.parts(conn) else {
            return Ok(Some(&[]));
        };
        if connection.input.is_empty() {
            if let Ok((header, after)) = Header::read_from_prefix(bytes) {
                let len = header.payload_len()?;
                if let Some((payload, rest)) = after.split_at_checked(len) {
                    let answered = self.dispatch(conn, header, payload, host);
                    return Ok(answered.then_some(rest));
                }
            }
            connection.input = spare.take();
        }
        let input = &mut connection.input;
        let before = input.len();
        let mut rest = bytes;
        let mut fill = |input: &mut Vec<u8>, up_to: usize| {
            let (part, after) = rest.split_at(rest.len().min(up_to.saturating_sub(input.len())));
            input.extend_from_slice(part);
            rest = after;
        };
        fill(input, HEADER_SIZE);
        if let Ok((header, _)) = Header::read_from_prefix(input) {
            let end = HEADER_SIZE + header.payload_len()?;
            fill(input, end);
            if input.len() == end {
                let mut input = core::mem::take(input);
                if !self.dispatch(conn, header, &input[HEADER_SIZE..], host) {
                    input.truncate(before);
                    if let Some(connection) = self.audience.connections.find_mut(conn) {
                        connection.input = input;
                    }
                    return Ok(None);
                }
                self.audience.connections.spare.give(input);
            }
        }
        Ok(Some(rest))
    }
}
