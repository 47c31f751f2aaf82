//! Transactions of connections.

use alloc::boxed::Box;

use super::Server;
use super::answering::LARGE;
use super::waiting::{RESERVE, may_wait, reserve_of};
use crate::counts::End;
use crate::host::{ConnId, DomId, Host};
use crate::operation::PathOp;
use crate::quota::{Denial, Quota};
use crate::reply::Reply;
use crate::store::Caller;
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
        self.counts.transaction_started();
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
        let mut open = connection.transactions.remove(&number).ok_or(Error::Enoent)?;
        self.forget_transactions(caller.domain, 1, open.memory);
        if !commit {
            self.counts.transactions_end(End::Dropped, 1);
            self.store.scrap(open);
            return Ok(Reply::Done);
        }
        self.turn_over = open.log().len() > LARGE;
        if let Err(denial) = self.store.admit_commit(caller, &mut open) {
            self.refuse_commit(conn, number, open, denial);
            return Err(denial);
        }
        self.counts.transactions_end(End::Committed, 1);
        let commit = self.store.commit(open);
        let home = self.store.domains.find(caller.domain).map(|domain| &domain.home);
        self.audience.tell_commit(&self.store, home, &commit);
        self.store.scrap_commit(commit);
        Ok(Reply::Done)
    }

    /// Gives up a transaction that cannot be committed, or keeps it until that is asked again.
    #[cold]
    fn refuse_commit(&mut self, conn: ConnId, number: u32, open: Box<Transaction>, denial: Denial) {
        let connection = self.audience.connections.find_mut(conn);
        let Some(connection) = connection
            .filter(|connection| may_wait(denial.hope, connection.waits, &self.store.debris))
        else {
            let conflict = denial.error == Error::Eagain;
            self.counts.transactions_end(if conflict { End::Conflict } else { End::Refused }, 1);
            return self.store.scrap(open);
        };
        let (domain, memory) = (connection.domain, open.memory);
        connection.transactions.insert(number, open);
        if let Some(domain) = self.store.domains.find_mut(domain) {
            domain.usage.transactions += 1;
        }
        self.store.charge_bytes(domain, memory.cast_signed());
    }

    /// Drops all transactions of a connection.
    pub(super) fn drop_transactions(&mut self, conn: ConnId) {
        let Some(connection) = self.audience.connections.find_mut(conn) else { return };
        let domain = connection.domain;
        let open = core::mem::take(&mut connection.transactions);
        let memory = open.values().map(|open| open.memory).sum();
        self.counts.transactions_end(End::Dropped, open.len());
        self.forget_transactions(domain, open.len(), memory);
        open.into_values().for_each(|open| self.store.scrap(open));
    }

    fn forget_transactions(&mut self, domain: DomId, count: usize, memory: usize) {
        if let Some(domain) = self.store.domains.find_mut(domain) {
            domain.usage.transactions -= count;
        }
        self.store.charge_bytes(domain, -memory.cast_signed());
    }
}
