//! The names by which the outside and the server speak of domains and connections, and what only
//! the outside can do.

use alloc::format;
use alloc::string::String;
use core::fmt;

use crate::counts::{Counts, Stats};

/// A domain's number as Xen gives it; Xen reuses it after the domain's death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomId(pub u16);

impl DomId {
    /// Stands for the caller's own domain (`DOMID_SELF` in xen/include/public/xen.h).
    pub const SELF: Self = Self(0x7ff0);
    /// Stands for every domain in a permission (`DOMID_ANY` in xen/include/public/xen.h).
    pub const ANY: Self = Self(0x7ff5);
}

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What tells two domains apart that had the same number: Xen's identity of a domain, or the
/// outside's own count where this Xen has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UniqueId(pub u64);

/// A connection of the server: a small number that is reused, and a generation that is not.
///
/// A stale id is harmless: every call that takes one does nothing when its connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl ConnId {
    /// Returns the connection's place in a table: dense from 0, and free again after release.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// What the server is told once, at its start.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The domain that may administer the server and is bound by no quota; usually 0.
    pub privileged: DomId,
    /// The domain that the server itself runs in, which is never introduced.
    pub store: DomId,
    /// The server's name and version, for the log and the reports.
    pub version: &'static str,
}

/// A domain whose ring cannot be mapped or whose event channel cannot be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable;

/// What the server needs done and cannot do itself.
pub trait Host {
    /// Returns the identity of the domain that has this number now, or `None` if there is none.
    fn identify(&mut self, domain: DomId) -> Option<UniqueId>;

    /// Maps the domain's ring, binds its event channel, resets the ring's indexes and publishes
    /// the features in it.
    ///
    /// # Errors
    /// [`Unreachable`] if a part of it cannot be done; then none of it remains.
    fn introduce(
        &mut self,
        conn: ConnId,
        domain: DomId,
        gfn: u64,
        port: u32,
        features: u32,
    ) -> Result<(), Unreachable>;

    /// Binds the event channel anew and resets the ring's indexes and its error field.
    ///
    /// # Errors
    /// [`Unreachable`] if the event channel cannot be bound; then the domain has none.
    fn reintroduce(
        &mut self,
        conn: ConnId,
        domain: DomId,
        port: u32,
        features: u32,
    ) -> Result<(), Unreachable>;

    /// Gives back the domain's ring and event channel.
    fn release(&mut self, conn: ConnId, domain: DomId);

    /// Whether that many bytes of memory can be had, in one piece.
    fn has_memory(&self, bytes: usize) -> bool;

    /// Writes one line of text to the log.
    fn print(&mut self, text: &str);

    /// Says what was done since the start, here and by the server: a line for each count.
    fn counters(&self, counts: &Counts, _: Stats) -> String {
        format!("requests: {}\n", counts.all_requests())
    }
}
