//! Operations on nodes, the same inside and outside of a transaction.

use alloc::string::String;
use alloc::vec::Vec;

use crate::wire::{Error, Op};

use super::codec::Nonsense;
use super::permission::Permission;
use super::{Failure, acknowledged, string};

/// The most bytes of names that [`Nodes::directory`] collects.
pub const LISTING_MAX: usize = 4 << 20;

/// How often a directory that changes while it is listed is begun anew.
const LISTING_ATTEMPTS: usize = 100;

/// What can be done with nodes. Paths are absolute, or relative to the own domain's home.
pub trait Nodes {
    /// The stream's error.
    type Error;

    /// Sends any request about nodes; `parts` follow each other as they stand.
    ///
    /// # Errors
    /// Any [`Failure`].
    fn ask(&mut self, op: Op, parts: &[&[u8]]) -> Result<Vec<u8>, Failure<Self::Error>>;

    /// Returns a node's value.
    ///
    /// # Errors
    /// [`Error::Enoent`], [`Error::Eacces`], or any other [`Failure`].
    fn read(&mut self, path: &str) -> Result<Vec<u8>, Failure<Self::Error>> {
        self.ask(Op::Read, &[string(path)?, &[0]])
    }

    /// Sets a node's value; makes it and its parents where they are missing.
    ///
    /// # Errors
    /// [`Error::Eacces`], [`Error::Enospc`], or any other [`Failure`].
    fn write(&mut self, path: &str, value: &[u8]) -> Result<(), Failure<Self::Error>> {
        self.ask(Op::Write, &[string(path)?, &[0], value]).and_then(acknowledged)
    }

    /// Makes an empty node and its parents; one that exists stays as it is.
    ///
    /// # Errors
    /// [`Error::Eacces`], [`Error::Enospc`], or any other [`Failure`].
    fn mkdir(&mut self, path: &str) -> Result<(), Failure<Self::Error>> {
        self.ask(Op::Mkdir, &[string(path)?, &[0]]).and_then(acknowledged)
    }

    /// Removes a node with all below it; one that is missing in an existing parent is no error.
    ///
    /// # Errors
    /// [`Error::Eacces`], [`Error::Enoent`], or any other [`Failure`].
    fn rm(&mut self, path: &str) -> Result<(), Failure<Self::Error>> {
        self.ask(Op::Rm, &[string(path)?, &[0]]).and_then(acknowledged)
    }

    /// Returns a node's permissions, the owner's entry first.
    ///
    /// # Errors
    /// [`Error::Enoent`], [`Error::Eacces`], or any other [`Failure`].
    fn perms(&mut self, path: &str) -> Result<Vec<Permission>, Failure<Self::Error>> {
        let reply = self.ask(Op::GetPerms, &[string(path)?, &[0]])?;
        let entries = reply.strip_suffix(b"\0").ok_or(Nonsense::Malformed)?;
        let entries = entries.split(|&byte| byte == 0);
        entries.map(|entry| Ok(Permission::parse(entry).ok_or(Nonsense::Malformed)?)).collect()
    }

    /// Sets a node's permissions; the first entry names the owner.
    ///
    /// # Errors
    /// [`Error::Eacces`], [`Error::Eperm`], [`Error::Enospc`], or any other [`Failure`].
    fn set_perms(&mut self, path: &str, perms: &[Permission]) -> Result<(), Failure<Self::Error>> {
        let entries: String = perms.iter().map(|entry| alloc::format!("{entry}\0")).collect();
        let parts = [string(path)?, &[0], entries.as_bytes()];
        self.ask(Op::SetPerms, &parts).and_then(acknowledged)
    }

    /// Returns the names of a node's children, as they were at one moment.
    ///
    /// # Errors
    /// [`Error::Enoent`], [`Error::Eacces`]; [`Error::Eagain`] for a large directory that never
    /// stays the same while it is fetched; or any other [`Failure`].
    fn directory(&mut self, path: &str) -> Result<Vec<String>, Failure<Self::Error>> {
        match self.ask(Op::Directory, &[string(path)?, &[0]]) {
            Ok(reply) => names(&reply),
            Err(Failure::Answer(Error::E2big)) => {
                for _ in 0..LISTING_ATTEMPTS {
                    if let Some(listing) = listing(self, path)? {
                        return names(&listing);
                    }
                }
                Err(Failure::Answer(Error::Eagain))
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Fetches a directory in parts; `None` if it changed meanwhile.
fn listing<N: Nodes + ?Sized>(
    nodes: &mut N,
    path: &str,
) -> Result<Option<Vec<u8>>, Failure<N::Error>> {
    let mut collected: Vec<u8> = Vec::new();
    let mut generation: Option<Vec<u8>> = None;
    loop {
        let offset = alloc::format!("{}\0", collected.len());
        let parts = [string(path)?, &[0], offset.as_bytes()];
        let reply = nodes.ask(Op::DirectoryPart, &parts)?;
        let end = reply.iter().position(|&byte| byte == 0).ok_or(Nonsense::Malformed)?;
        let (now, rest) = reply.split_at(end);
        let part = rest.get(1..).unwrap_or_default();
        if generation.get_or_insert_with(|| now.to_vec()) != now {
            return Ok(None);
        }
        // An empty string ends the last part.
        if part == b"\0" || part.ends_with(b"\0\0") {
            collected.extend(part.strip_suffix(b"\0").unwrap_or_default());
            return Ok(Some(collected));
        }
        if !part.ends_with(b"\0") {
            return Err(Nonsense::Malformed.into());
        }
        collected.extend(part);
        if collected.len() > LISTING_MAX {
            return Err(Nonsense::Endless.into());
        }
    }
}

/// Splits a list of names, each with its NUL.
fn names<E>(list: &[u8]) -> Result<Vec<String>, Failure<E>> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let list = list.strip_suffix(b"\0").ok_or(Nonsense::Malformed)?;
    let list = core::str::from_utf8(list).map_err(|_| Nonsense::Malformed)?;
    if list.split('\0').any(|name| name.is_empty() || name.contains('/')) {
        return Err(Nonsense::Malformed.into());
    }
    Ok(list.split('\0').map(String::from).collect())
}
