//! Several operations as one.

use alloc::vec::Vec;

use embedded_io::{Read, Write};

use crate::wire::{Error, Op};

use super::codec::Nonsense;
use super::{Client, Failure, Nodes, acknowledged};

/// How often [`Client::transact`] begins anew after a conflict.
pub const TRANSACTION_ATTEMPTS: usize = 1000;

/// An open transaction: sees the store of one moment and its own changes.
pub struct Transaction<'c, T> {
    client: &'c mut Client<T>,
    id: u32,
}

impl<T: Read + Write> Nodes for Transaction<'_, T> {
    type Error = T::Error;

    fn ask(&mut self, op: Op, parts: &[&[u8]]) -> Result<Vec<u8>, Failure<T::Error>> {
        self.client.call_in(self.id, op, parts)
    }
}

impl<T: Read + Write> Transaction<'_, T> {
    fn end(self, commit: bool) -> Result<(), Failure<T::Error>> {
        let flag: &[u8] = if commit { b"T\0" } else { b"F\0" };
        self.client.call_in(self.id, Op::TransactionEnd, &[flag]).and_then(acknowledged)
    }
}

impl<T: Read + Write> Client<T> {
    /// Runs `body` so that all it does takes effect at once or not at all.
    ///
    /// When others got in between, everything is undone and `body` runs again, at most
    /// [`TRANSACTION_ATTEMPTS`] times; it must bear being repeated.
    ///
    /// # Errors
    /// What `body` fails with, after which nothing has happened; [`Error::Eagain`] if others
    /// always got in between; or any other [`Failure`].
    pub fn transact<R>(
        &mut self,
        mut body: impl FnMut(&mut Transaction<'_, T>) -> Result<R, Failure<T::Error>>,
    ) -> Result<R, Failure<T::Error>> {
        for _ in 0..TRANSACTION_ATTEMPTS {
            let mut transaction = self.begin()?;
            match body(&mut transaction) {
                Ok(result) => match transaction.end(true) {
                    Ok(()) => return Ok(result),
                    Err(Failure::Answer(Error::Eagain)) => {}
                    Err(failure) => return Err(failure),
                },
                Err(failure) => {
                    // Whatever stands in the way of giving up, the first failure says more.
                    transaction.end(false).ok();
                    return Err(failure);
                }
            }
        }
        Err(Failure::Answer(Error::Eagain))
    }

    fn begin(&mut self) -> Result<Transaction<'_, T>, Failure<T::Error>> {
        let reply = self.call(Op::TransactionStart, &[&[0]])?;
        let id = reply.strip_suffix(b"\0").and_then(|id| core::str::from_utf8(id).ok());
        let id = id.and_then(|id| id.parse().ok()).filter(|id| *id != 0);
        Ok(Transaction { id: id.ok_or(Nonsense::Malformed)?, client: self })
    }
}
