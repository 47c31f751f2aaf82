//! Transactions of connections.

use super::{LARGE, RESERVE, Server, reserve_of};
use crate::host::{ConnId, DomId, Host};
use crate::operation::PathOp;
use crate::quota::{Denial, Quota};
use crate::reply::Reply;
use crate::store::{Caller, Commit};
use crate::transaction::Transaction;
use crate::wire::Error;

impl Server {
    /// Runs an operation in a transaction, which keeps what it was told.
    pub(super) fn operate_within(
        &mut self,
        conn: ConnId,
        caller: Caller,
        number: u32,
        op: &PathOp<'_>,
        host: &dyn Host,
    ) -> Result<Reply<'static>, Denial> {
        let grows = matches!(op, PathOp::Edit(edit) if edit.grows());
        self.must_have(if grows { RESERVE } else { reserve_of(caller) }, host)?;
        let connection = self.audience.connections.find_mut(conn).ok_or(Error::Einval)?;
        let open = connection.transactions.get_mut(&number).ok_or(Error::Enoent)?;
        Ok(Reply::Answer(self.store.operate_within(caller, open, op)?))
    }

    pub(super) fn start_transaction(
        &mut self,
        conn: ConnId,
        caller: Caller,
        number: u32,
        host: &dyn Host,
    ) -> Result<Reply<'static>, Denial> {
        if number != 0 {
            return Err(Error::Ebusy.into());
        }
        self.must_have(reserve_of(caller), host)?;
        self.snapshots |= !caller.subject.privileged;
        let domain = self.store.domains.find_mut(caller.domain).ok_or(Error::Einval)?;
        let count = domain.usage.transactions + 1;
        if !caller.subject.privileged && !domain.limits.allow(Quota::Transactions, count) {
            return Err(Quota::Transactions.into());
        }
        let connection = self.audience.connections.find_mut(conn).ok_or(Error::Einval)?;
        let number = connection.next_transaction();
        let open = Transaction::new(&self.store.tree, self.store.epoch);
        connection.transactions.insert(number, open.into());
        domain.usage.transactions = count;
        domain.highest.raise(Quota::Transactions, count);
        Ok(Reply::Number(number.into()))
    }

    pub(super) fn end_transaction(
        &mut self,
        conn: ConnId,
        caller: Caller,
        number: u32,
        commit: bool,
    ) -> Result<Reply<'static>, Denial> {
        let connection = self.audience.connections.find_mut(conn).ok_or(Error::Einval)?;
        let open = connection.transactions.remove(&number).ok_or(Error::Enoent)?;
        self.forget_transactions(caller.domain, 1, open.memory);
        if commit {
            self.turn_over = open.log().len() > LARGE;
            let commit = self.store.commit(caller, *open)?;
            let home = self.store.domains.find(caller.domain).map(|domain| &domain.home);
            self.audience.tell_commit(&self.store, home, &commit);
            if let Commit::Change(record) = commit {
                self.store.discard(record.change);
            }
        }
        Ok(Reply::Done)
    }

    /// Drops all transactions of a connection.
    pub(super) fn drop_transactions(&mut self, conn: ConnId) {
        let Some(connection) = self.audience.connections.find_mut(conn) else { return };
        let domain = connection.domain;
        let open = core::mem::take(&mut connection.transactions);
        let memory = open.values().map(|open| open.memory).sum();
        self.forget_transactions(domain, open.len(), memory);
    }

    fn forget_transactions(&mut self, domain: DomId, count: usize, memory: usize) {
        if let Some(domain) = self.store.domains.find_mut(domain) {
            domain.usage.transactions -= count;
        }
        self.store.charge_bytes(domain, -memory.cast_signed());
    }
}
