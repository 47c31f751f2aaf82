//! Domains come and go: introduction, shutdown, death and release.

use alloc::boxed::Box;

use super::Server;
use crate::host::{ConnId, DomId, Host, UniqueId};
use crate::path::Place;
use crate::quota::{Denial, Quota};
use crate::reply::Reply;
use crate::tree::Special;
use crate::wire::{Error, Features};

impl Server {
    /// Connects a domain whose ring the owner has mapped by itself, as it does at its start for
    /// those that run already. Nobody is told.
    pub fn connect(&mut self, domain: DomId, identity: UniqueId) -> ConnId {
        let stale =
            self.store.domains.find(domain).is_some_and(|known| {
                known.identity != identity && !self.store.is_privileged(domain)
            });
        if stale {
            self.forget_domain(domain);
        }
        if let Some(conn) = self.store.domains.find(domain).and_then(|known| known.conn) {
            self.reset(conn);
            return conn;
        }
        let conn = self.audience.connections.add(domain);
        self.introduced(domain, identity, conn);
        conn
    }

    /// Forgets all that a guest began: half frames, what waits to be sent, watches and
    /// transactions; the next transaction is 1. The guest asked to reconnect.
    pub fn reset(&mut self, conn: ConnId) {
        // What waits goes first: none of it need outlive its watch.
        if let Some((connection, spare)) = self.audience.connections.parts(conn) {
            connection.restart(spare);
        }
        self.drop_watches(conn);
        self.drop_transactions(conn);
    }

    /// Ends the service of a connection that broke the protocol: as [`reset`](Self::reset), and
    /// nothing is received or sent until the domain is introduced again. The domain stays known.
    pub fn ignore(&mut self, conn: ConnId) {
        self.reset(conn);
        if let Some(connection) = self.audience.connections.find_mut(conn) {
            connection.ignored = true;
        }
    }

    /// Reports that a domain was seen shut down; once until it resumes, however often it is
    /// called. After the last of a batch comes [`settle`](Self::settle).
    pub fn shut_down(&mut self, domain: DomId) {
        let Some(known) = self.store.domains.find_mut(domain) else { return };
        if known.conn.is_none() || known.shut_down {
            return;
        }
        known.shut_down = true;
        self.shutdowns = true;
        self.audience.tell_special(&self.store, Special::Release, Some(domain));
    }

    /// Reports that a domain is dead, unknown to Xen, or another than it was.
    ///
    /// What it owned is removed, with all below, and nothing that names it holds any more.
    pub fn gone(&mut self, domain: DomId, host: &mut dyn Host) {
        if self.store.is_privileged(domain) {
            return;
        }
        let Some(conn) = self.forget_domain(domain) else {
            self.follow_up(host);
            return;
        };
        host.release(conn, domain);
        self.audience.tell_special(&self.store, Special::Release, None);
        self.audience.tell_special(&self.store, Special::Release, Some(domain));
        // The plain event speaks for the shutdowns before it, too.
        self.shutdowns = false;
        self.look_at_memory(host);
        self.follow_up(host);
    }

    /// Ends a batch of reports: tells once that there were shutdowns.
    pub fn settle(&mut self) {
        if core::mem::take(&mut self.shutdowns) {
            self.audience.tell_special(&self.store, Special::Release, None);
        }
    }

    pub(super) fn is_introduced(&self, domain: DomId) -> bool {
        self.store.domains.find(domain).is_some_and(|known| known.conn.is_some())
    }

    pub(super) fn introduce(
        &mut self,
        domain: DomId,
        gfn: u64,
        port: u32,
        host: &mut dyn Host,
    ) -> Result<Reply<'static>, Denial> {
        if domain == self.config.privileged || domain == self.config.store {
            // Their rings are in use, and were never introduced this way.
            return Err(Error::Einval.into());
        }
        let identity = host.identify(domain).ok_or(Error::Einval)?;
        if self.store.domains.find(domain).is_some_and(|known| known.identity != identity) {
            self.gone(domain, host);
        }
        let known = self.store.domains.find(domain);
        let features = known.map_or(Features::all(), |known| known.features).bits();
        if let Some(conn) = known.and_then(|known| known.conn) {
            if host.reintroduce(conn, domain, port, features).is_err() {
                self.ignore(conn);
                return Err(Error::Einval.into());
            }
            self.reset(conn);
            if let Some(connection) = self.audience.connections.find_mut(conn) {
                connection.ignored = false;
            }
            return Ok(Reply::Done);
        }
        let conn = self.audience.connections.add(domain);
        if host.introduce(conn, domain, gfn, port, features).is_err() {
            self.audience.connections.remove(conn);
            return Err(Error::Einval.into());
        }
        self.introduced(domain, identity, conn);
        self.audience.tell_special(&self.store, Special::Introduce, None);
        self.audience.tell_special(&self.store, Special::Introduce, Some(domain));
        Ok(Reply::Done)
    }

    pub(super) fn release(
        &mut self,
        domain: DomId,
        host: &mut dyn Host,
    ) -> Result<Reply<'static>, Denial> {
        self.must_be_guest(domain)?;
        self.gone(domain, host);
        Ok(Reply::Done)
    }

    pub(super) fn resume(&mut self, domain: DomId) -> Result<Reply<'static>, Denial> {
        self.must_be_guest(domain)?;
        if let Some(known) = self.store.domains.find_mut(domain) {
            known.shut_down = false;
        }
        Ok(Reply::Done)
    }

    pub(super) fn set_target(
        &mut self,
        domain: DomId,
        target: DomId,
    ) -> Result<Reply<'static>, Denial> {
        if !self.is_introduced(domain) || !self.is_introduced(target) {
            return Err(Error::Enoent.into());
        }
        let lent = self.store.domains.find(target).map(|known| (target, known.who));
        if let Some(known) = self.store.domains.find_mut(domain) {
            known.target = lent.map(Box::new);
            // What open transactions were told by the old rights must be judged again.
            self.store.epoch += 1;
        }
        Ok(Reply::Done)
    }

    fn must_be_guest(&self, domain: DomId) -> Result<(), Denial> {
        if domain == self.config.privileged || domain == self.config.store {
            return Err(Error::Einval.into());
        }
        if self.is_introduced(domain) { Ok(()) } else { Err(Error::Enoent.into()) }
    }

    fn introduced(&mut self, domain: DomId, identity: UniqueId, conn: ConnId) {
        let limits = self.store.limits;
        if self.store.domains.find(domain).is_none() {
            self.store.domains.add(domain, identity, limits);
        }
        if let Some(known) = self.store.domains.find_mut(domain) {
            known.conn = Some(conn);
            known.identity = identity;
            known.shut_down = false;
        }
    }

    /// Ends a domain's life; returns its connection, which is no more, if it had one.
    fn forget_domain(&mut self, domain: DomId) -> Option<ConnId> {
        let known = self.store.domains.find_mut(domain)?;
        let conn = known.conn.take();
        if let Some(conn) = conn {
            let connection = self.audience.connections.find(conn);
            let most_replies = connection.map_or(0, |conn| conn.outbox.most_replies());
            known.highest.raise(Quota::Outstanding, most_replies);
            self.reset(conn);
            self.audience.connections.remove(conn);
        }
        let audience = &mut self.audience;
        self.store.bury(domain, |store, path, change| {
            audience.tell(store, Place::Node(path), change);
        });
        conn
    }
}
