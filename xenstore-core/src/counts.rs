//! What there is, and what was done since the start, in numbers. They hold nothing that a guest
//! wrote.

use crate::quota::Quota;
use crate::request::Rules;
use crate::wire::{Error, Op};

/// How many kinds of requests are told apart: each type of message, and all that are none.
const KINDS: usize = Op::ALL.len() + 1;

/// Counts of what a server holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nodes of the tree, and those removed that still count for their owners: there are none when
    /// [`Server::clear_away`](crate::Server::clear_away) has nothing left to do.
    pub nodes: usize,
    /// Watches of all connections.
    pub watches: usize,
    /// Open transactions of all connections.
    pub transactions: usize,
    /// Connections, including those whose service ended after a violation.
    pub connections: usize,
    /// Domains known, introduced or not.
    pub domains: usize,
    /// Different permission lists.
    pub permission_lists: usize,
    /// Requests answered since the start.
    pub requests: u64,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is part of the store.
    Committed,
    /// It met a conflict, and may be tried again.
    Conflict,
    /// It was refused for another reason.
    Refused,
    /// It was given up, by its client or with its client's connection.
    Dropped,
}

/// Counts of what a server did since its start, each with the name of what it counts.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    requests: [u64; KINDS],
    errors: [u64; Error::ALL.len()],
    refusals: [u64; Quota::COUNT],
    started: u64,
    ended: [u64; 4],
    received_bytes: u64,
    sent_bytes: u64,
}

impl Counts {
    /// Requests that were answered, by the type of the message; those of no type that there is are
    /// the last.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> + Clone + '_ {
        let known = Op::ALL.into_iter().filter(|op| Rules::of(op.to_wire()).is_some());
        let known = known.map(|op| (op.name(), self.requests[op as usize]));
        // No client may send the others.
        let none = Op::ALL.into_iter().filter(|op| Rules::of(op.to_wire()).is_none());
        let none = none.map(|op| self.requests[op as usize]).sum::<u64>();
        known.chain([("none", none + self.requests[KINDS - 1])])
    }

    /// How many requests were answered.
    pub fn all_requests(&self) -> u64 {
        self.requests.iter().sum()
    }

    /// Answers that were errors, by the error's name.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> + Clone + '_ {
        Error::ALL.into_iter().map(|error| (error.name(), self.errors[error as usize]))
    }

    /// Requests that a quota refused, by the quota's name.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> + Clone + '_ {
        Quota::ALL.into_iter().map(|quota| (quota.name(), self.refusals[quota as usize]))
    }

    /// Transactions that were started.
    pub const fn transactions_started(&self) -> u64 {
        self.started
    }

    /// Transactions that ended, by how they did.
    pub fn transactions_ended(&self) -> impl Iterator<Item = (&'static str, u64)> + Clone + '_ {
        let ends = ["committed", "conflict", "refused", "dropped"];
        ends.into_iter().zip(self.ended)
    }

    /// Transactions that are open.
    pub fn transactions_open(&self) -> u64 {
        self.started.saturating_sub(self.ended.iter().sum())
    }

    /// Bytes of requests that were taken.
    pub const fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Bytes of answers and of events that were given out.
    pub const fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Counts a request by the number of its type.
    #[inline]
    pub(crate) fn request(&mut self, kind: u32) {
        let kind = usize::try_from(kind).unwrap_or(usize::MAX).min(KINDS - 1);
        self.requests[kind] += 1;
    }

    #[cold]
    pub(crate) fn error(&mut self, error: Error) {
        self.errors[error as usize] += 1;
    }

    #[cold]
    pub(crate) fn refusal(&mut self, quota: Quota) {
        self.refusals[quota as usize] += 1;
    }

    pub(crate) fn transaction_started(&mut self) {
        self.started += 1;
    }

    pub(crate) fn transactions_end(&mut self, how: End, count: usize) {
        self.ended[how as usize] += count as u64;
    }

    #[inline]
    pub(crate) fn received(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
    }

    #[inline]
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
    }
}
