//! A network frontend: the half of a network device that has frames to send and pages to receive
//! others in (xen/include/public/io/netif.h).
//!
//! From the bottom up:
//!
//! - [`frame`]: a frame as a chain of pieces of pages, which are numbers here.
//! - [`Sender`] and [`Receiver`]: one ring each. They know neither grants nor what is in a page.
//! - [`Vif`]: both rings of a device. [`patch::Patch`] joins two devices, so that frames go from one
//!   to the other in the pages in which they came; [`device::Device`] is one for `smoltcp`.
//! - [`handshake`]: what is said in Xenstore before there are rings.
//!
//! Whoever owns these shares the memory, grants the pages, sends the events and talks to Xenstore.
//! A backend is trusted no more than a guest: what none could have put in a ring is a [`Violation`],
//! and the end of the device. Nothing here allocates for a frame.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod device;
pub mod frame;
pub mod handshake;
pub mod patch;
mod receiver;
mod sender;
mod vif;

use core::fmt;

use xen_sys::ring::BadIndex;
use xen_sys::ring::netif::CHAIN_MAX;

pub use receiver::Receiver;
pub use sender::{Sender, Sent};
pub use vif::Vif;

/// How many slots a ring of either kind has, in the one page that it is.
pub const SLOTS: u16 = 256;

/// What no honest backend does. The device that it is for must be closed; until then nothing else
/// comes of it than more of the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An index that cannot be.
    Index(BadIndex),
    /// A response that names no request, or not the one that it answers.
    Id(u16),
    /// A response to an extra slot, where there was none.
    NoExtra,
    /// More extra slots than there are kinds.
    Extras,
    /// A frame of more than [`CHAIN_MAX`] slots.
    Chain,
    /// Bytes that are not in their page.
    Outside {
        /// Where they begin.
        offset: u16,
        /// How many there are.
        len: u16,
    },
}

impl From<BadIndex> for Violation {
    fn from(index: BadIndex) -> Self {
        Self::Index(index)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => index.fmt(f),
            Self::Id(id) => write!(f, "a response to a request that is not there: {id}"),
            Self::NoExtra => f.write_str("a response to an extra slot that is not there"),
            Self::Extras => f.write_str("extra slots without an end"),
            Self::Chain => write!(f, "a frame of more than {CHAIN_MAX} slots"),
            Self::Outside { offset, len } => {
                write!(f, "{len} bytes at {offset} of a page")
            }
        }
    }
}

impl core::error::Error for Violation {}

#[cfg(test)]
mod tests;
