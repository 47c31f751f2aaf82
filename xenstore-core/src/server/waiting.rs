//! What a request waits for: memory, its quotas, and that what was removed is cleared away.

use crate::debris::Debris;
use crate::host::{ConnId, Host};
use crate::quota::{Denial, Hope, Quota};
use crate::store::{Caller, Store};
use crate::wire::Error;

use super::Server;

/// When this many bytes wait for a connection, its requests wait too, whoever it is.
const BACKLOG: usize = 64 << 10;

/// Memory that the store's growth leaves alone, in one piece: what one request may need at most (a
/// commit, the events of a large removal, the buffers of a guest that connects).
pub(super) const RESERVE: usize = 512 << 10;

/// The part of it that is left to the privileged domain alone, for the watches and transactions by
/// which its tools destroy a guest.
const LAST_RESERVE: usize = RESERVE / 2;

/// What is left to the privileged domain when guests are not even read any more.
pub(super) const FINAL_RESERVE: usize = LAST_RESERVE / 2;

/// A request waits so often at most for what was removed to be cleared away.
const WAITS_MAX: u8 = 2;

/// How much memory was left when it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    Enough,
    /// So little that a guest gets its next answer only when it has taken the one before.
    Low,
    /// So little that guests wait: even an answer needs some.
    Out,
}

impl Server {
    /// Whether a connection may send a request now; if not, it is told when it may again.
    pub(super) fn may_receive(&mut self, conn: ConnId) -> bool {
        let Some(connection) = self.audience.connections.find_mut(conn) else { return false };
        if connection.ignored {
            return false;
        }
        let waiting = connection.outbox.len();
        let domain = self.store.domains.find(connection.domain);
        let privileged = self.store.is_privileged(connection.domain);
        let memory = privileged
            || match self.memory {
                Memory::Enough => true,
                Memory::Low => waiting == 0,
                Memory::Out => false,
            };
        let within = privileged
            || domain.is_some_and(|domain| {
                let outstanding = domain.limits.of(Quota::Outstanding) as usize;
                (outstanding == 0 || connection.outbox.replies() < outstanding)
                    && domain.limits.allow(Quota::Memory, domain.usage.memory)
            });
        let waits = connection.waits_now;
        connection.stalled = !within || waiting >= BACKLOG || !memory || waits;
        if connection.stalled {
            self.stall(conn);
            return false;
        }
        true
    }

    /// Sees to it that a connection is looked at when what it waits for is there.
    #[cold]
    pub(super) fn stall(&mut self, conn: ConnId) {
        let Some(connection) = self.audience.connections.find_mut(conn) else { return };
        if let Some(domain) = self.store.domains.find_mut(connection.domain) {
            domain.waits_for_memory = !domain.limits.allow(Quota::Memory, domain.usage.memory);
        }
        if self.memory == Memory::Out && !connection.starved {
            connection.starved = true;
            self.starved.push(conn);
        }
    }

    /// Notes how much memory is left, and has guests looked at that waited for some.
    pub(super) fn look_at_memory(&mut self, host: &dyn Host) {
        self.memory = if host.has_memory(LAST_RESERVE) {
            Memory::Enough
        } else if host.has_memory(FINAL_RESERVE) {
            Memory::Low
        } else {
            Memory::Out
        };
        if self.memory != Memory::Out && !self.starved.is_empty() {
            for conn in core::mem::take(&mut self.starved) {
                if let Some(connection) = self.audience.connections.find_mut(conn) {
                    connection.starved = false;
                }
                self.wake(conn);
            }
        }
    }

    /// Has a connection looked at whose input was refused, if it may go on now.
    pub(super) fn wake(&mut self, conn: ConnId) {
        let stalled = self.audience.connections.find(conn).is_some_and(|conn| conn.stalled);
        if stalled && self.may_receive(conn) {
            self.audience.connections.mark_resumed(conn.slot);
        }
    }

    /// Has a connection wait whose request is to be refused, if clearing away what was removed may
    /// let it be done.
    pub(super) fn has_wait(&mut self, conn: ConnId, hope: Hope) -> bool {
        let Some(connection) = self.audience.connections.find_mut(conn) else { return false };
        if !may_wait(hope, connection.waits, &self.store.debris) {
            return false;
        }
        connection.waits += 1;
        (connection.waits_now, connection.stalled) = (true, true);
        self.waiting.push_back((self.store.debris.newest(), conn));
        true
    }

    /// Has who asks for figures wait until they tell nothing of what was removed before.
    pub(super) fn must_be_settled(&self, conn: ConnId) -> Result<(), Denial> {
        let connection = self.audience.connections.find(conn);
        if self.store.debris.is_settled() || connection.is_none_or(|conn| conn.waits > 0) {
            Ok(())
        } else {
            Err(Denial { hope: Hope::Settling, ..Error::Eagain.into() })
        }
    }

    /// Refuses a request when less memory is left than that. When all is free that was removed,
    /// snapshots of guests are given up: they may hold everything that was removed since they began.
    pub(super) fn must_have(&mut self, reserve: usize, host: &dyn Host) -> Result<(), Denial> {
        if host.has_memory(reserve) {
            return Ok(());
        }
        // None has begun since they were last given up: then there is nothing to look for.
        if self.store.debris.is_empty() && core::mem::take(&mut self.snapshots) {
            let Self { audience, store, config, .. } = self;
            let Store { tree, debris, .. } = store;
            audience.connections.sacrifice_transactions(config.privileged, tree, debris);
        }
        if host.has_memory(reserve) { Ok(()) } else { Err(Denial::NO_MEMORY) }
    }

    /// Does what a change left to do: looks at connections that may go on, and prints.
    pub(super) fn follow_up(&mut self, host: &mut dyn Host) {
        while let Some(conn) = self.store.relieved.pop() {
            self.wake(conn);
        }
        for notice in core::mem::take(&mut self.store.notices) {
            host.print(&notice);
        }
    }
}

/// Whether a request that waited so often waits for what was removed. Once is enough for what was there
/// when it asked; a second time is for snapshots that were given up meanwhile.
pub(super) fn may_wait(hope: Hope, waits: u8, debris: &Debris) -> bool {
    waits < WAITS_MAX
        && match hope {
            Hope::None => false,
            Hope::Settling => !debris.is_settled(),
            Hope::Memory => !debris.is_empty(),
        }
}

/// Returns what must be left when a caller has something kept that is no node.
pub(super) fn reserve_of(caller: Caller) -> usize {
    if caller.subject.privileged { LAST_RESERVE } else { RESERVE }
}
