//! Watches of connections.

use super::Server;
use super::waiting::reserve_of;
use crate::announce::Audience;
use crate::host::{ConnId, DomId, Host};
use crate::path::WatchPath;
use crate::quota::{Denial, Quota};
use crate::reply::Reply;
use crate::store::Caller;
use crate::wire::Error;

impl Server {
    pub(super) fn watch<'a>(
        &mut self,
        conn: ConnId,
        caller: Caller,
        path: WatchPath<'a>,
        token: &[u8],
        depth: Option<u32>,
        host: &dyn Host,
    ) -> Result<Reply<'a>, Denial> {
        self.must_have(reserve_of(caller), host)?;
        let Audience { watches, connections, .. } = &mut self.audience;
        if watches.find(conn.slot, path.full, token).is_some() {
            return Err(Error::Eexist.into());
        }
        let memory = (path.full.len() + token.len()).cast_signed();
        let domain = self.store.domains.find_mut(caller.domain).ok_or(Error::Einval)?;
        if !caller.subject.privileged {
            if !domain.limits.allow(Quota::Watches, domain.usage.watches + 1) {
                return Err(Quota::Watches.into());
            }
            if !domain.has_room(memory) {
                return Err(Quota::Memory.into());
            }
        }
        let connection = connections.find_mut(conn).ok_or(Error::Einval)?;
        let listed_at = u32::try_from(connection.watches.len()).unwrap_or(u32::MAX);
        let newest = connection.outbox.next_event();
        let watch = watches.add(conn.slot, path, token, depth, listed_at, newest);
        connection.watches.push(watch);
        domain.usage.watches += 1;
        domain.highest.raise(Quota::Watches, domain.usage.watches);
        self.store.charge_bytes(caller.domain, memory);
        Ok(Reply::Watching(watch, path.full))
    }

    pub(super) fn unwatch(
        &mut self,
        conn: ConnId,
        path: WatchPath<'_>,
        token: &[u8],
    ) -> Result<Reply<'static>, Denial> {
        let Audience { watches, connections, .. } = &mut self.audience;
        let Some(id) = watches.find(conn.slot, path.full, token) else {
            path.judge()?;
            return Err(Error::Enoent.into());
        };
        let connection = connections.find_mut(conn).ok_or(Error::Einval)?;
        // What it was told already is sent all the same.
        if let Some(watch) = watches.watch(id) {
            connection.outbox.orphan(id, watch, || path.full.into());
        }
        let watch = watches.remove(id).ok_or(Error::Enoent)?;
        // The last one takes the place that becomes free.
        connection.watches.swap_remove(watch.listed_at as usize);
        if let Some(&moved) = connection.watches.get(watch.listed_at as usize)
            && let Some(moved) = watches.watch_mut(moved)
        {
            moved.listed_at = watch.listed_at;
        }
        connection.outbox.owe_from_start();
        let domain = connection.domain;
        self.forget_watches(domain, 1, watch.memory());
        Ok(Reply::Done)
    }

    /// Takes all watches off a connection.
    pub(super) fn drop_watches(&mut self, conn: ConnId) {
        let Audience { watches, connections, .. } = &mut self.audience;
        let Some(connection) = connections.find_mut(conn) else { return };
        let domain = connection.domain;
        let ids = core::mem::take(&mut connection.watches);
        let mut memory = 0;
        for &id in &ids {
            if let Some(watch) = watches.watch(id) {
                connection.outbox.orphan(id, watch, || watches.path_of(watch));
            }
            memory += watches.remove(id).map_or(0, |watch| watch.memory());
        }
        self.forget_watches(domain, ids.len(), memory);
    }

    fn forget_watches(&mut self, domain: DomId, count: usize, memory: usize) {
        if let Some(domain) = self.store.domains.find_mut(domain) {
            domain.usage.watches -= count;
        }
        self.store.charge_bytes(domain, -memory.cast_signed());
    }
}
