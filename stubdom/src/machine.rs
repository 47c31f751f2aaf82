//! What the store needs of the machine below it: of Xen, and of its own heap.
//!
//! Under Xen it is the domain itself; in tests of this crate, memory.

use xen_sys::domctl::{DomainState, Domctl};
use xen_sys::event::Channel;
use xen_sys::grant::MapError;
use xen_sys::ids::{DomId, Errno, Port};
use xen_sys::page::Shared;

use crate::metrics::Figures;

/// Where the store runs.
pub trait Machine {
    /// A guest's page with its rings; given back when dropped.
    type Page: Shared;
    /// An event channel to a guest; closed when dropped.
    type Line: Line;
    /// The way to ask what became of domains.
    type Fates: Fates;

    /// Takes the next local port at which there was an event.
    fn next_event(&mut self) -> Option<Port>;

    /// Maps the Xenstore page of a domain.
    ///
    /// # Errors
    /// As Xen refuses, or if there is no room.
    fn map(&mut self, domain: DomId) -> Result<Self::Page, MapError>;

    /// Connects to a port of a domain, which must wait for us.
    ///
    /// # Errors
    /// As Xen refuses.
    fn bind(&mut self, domain: DomId, port: Port) -> Result<Self::Line, Errno>;

    /// How to ask after domains, if this domain may.
    fn fates(&self) -> Option<Self::Fates>;

    /// Whether that many bytes can be had, and enough is left for what must go on.
    fn has_memory(&self, bytes: usize) -> bool;

    /// How many bytes of the heap are in use.
    fn memory_used(&self) -> usize;

    /// What it has to show of itself: who it is, since when, and its memory.
    fn figures(&self) -> Figures<'_>;
}

/// An open local port with a guest at the other end.
pub trait Line {
    /// The local port.
    fn port(&self) -> Port;

    /// Sends an event to the other end.
    fn notify(&self);
}

impl Line for Channel {
    fn port(&self) -> Port {
        self.port()
    }

    fn notify(&self) {
        self.notify();
    }
}

/// The answers of Xen about domains, as [`Domctl`] gives them.
#[expect(clippy::missing_errors_doc, reason = "as those of `Domctl`")]
pub trait Fates {
    /// As [`Domctl::tells_changes`].
    fn tells_changes(&self) -> bool;

    /// As [`Domctl::next_changed`].
    fn next_changed(&self) -> Result<Option<(DomId, Option<DomainState>)>, Errno>;

    /// As [`Domctl::query`].
    fn query(&self, domain: DomId) -> Result<Option<DomainState>, Errno>;
}

impl Fates for Domctl {
    fn tells_changes(&self) -> bool {
        (*self).tells_changes()
    }

    fn next_changed(&self) -> Result<Option<(DomId, Option<DomainState>)>, Errno> {
        (*self).next_changed()
    }

    fn query(&self, domain: DomId) -> Result<Option<DomainState>, Errno> {
        (*self).query(domain)
    }
}
