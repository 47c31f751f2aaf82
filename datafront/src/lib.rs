//! Data channels for an application under Linux, in a guest or in dom0: blocks, topics and streams to
//! other domains, by way of the domain that has the channels.
#![forbid(unsafe_code)]

extern crate alloc;

mod arrival;
mod block;
mod channel;
mod connection;
mod error;
mod event;
mod link;
mod session;
mod store;
mod stream;
#[cfg(test)]
mod tests;
mod topics;
mod xenbus;

use core::time::Duration;

use databack::vchan::{Order, Sizes};
use xen_sys::ids::DomId;

pub use block::{Answer, BadTarget, Block, Target};
pub use channel::Channel;
pub use connection::Connection;
pub use databack::ask::{Application, Kind};
pub use databack::frame::{Cancel, Limits, Outcome, Reason, Slow};
pub use error::Error;
pub use event::{Delivery, Event, Message, Welcome};
pub use link::Link;
pub use session::{Push, Rest, Session};
pub use store::ANNOUNCED;
pub use stream::Stream;
pub use xenbus::XENBUS;

/// Which domain has the channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The one that the operator announced in Xenstore, see [`ANNOUNCED`].
    Announced,
    /// The one of that number.
    Domain(DomId),
    /// The one of that name; only dom0 sees all names.
    Named(String),
}

/// How to get a channel.
#[derive(Clone, Debug)]
pub struct Options {
    /// From whom.
    pub backend: Backend,
    /// How large its rings shall be.
    pub sizes: Sizes,
    /// How long to wait for an answer.
    pub patience: Duration,
}

impl Default for Options {
    /// From whom the operator announced, with rings of 64 KiB, within ten seconds.
    fn default() -> Self {
        let sizes = Sizes::new(Order::DEFAULT, Order::DEFAULT);
        Self {
            backend: Backend::Announced,
            sizes: sizes.expect("rings of the default size fit beside each other"),
            patience: Duration::from_secs(10),
        }
    }
}

/// Lets every domain of this host know which domain has the channels; returns its number. For dom0.
///
/// # Errors
/// [`Error::UnknownDomain`], or [`Error::Store`] if this domain may not write [`ANNOUNCED`].
pub fn announce(backend: &Backend) -> Result<DomId, Error> {
    let mut store = store::Store::open()?;
    let domain = store.backend(backend)?;
    store.announce(domain)?;
    Ok(domain)
}
