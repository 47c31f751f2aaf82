//! Rings over pages that a peer can write at any moment.
//!
//! The rules, kept by every type here:
//!
//! - A shared page is an output, never a memory: each end keeps its own copy of the indexes
//!   it owns and never reads them back.
//! - The peer's index is read once per step and judged. One that no honest peer could have
//!   written is [`BadIndex`]: the peer's fault, and the end of its service, not of ours.
//! - Bytes are copied out before anyone parses them, and no reference to shared bytes exists.
//! - Bytes become visible before the index that covers them, and have been copied before the
//!   index that frees them.

use core::fmt;

pub mod netif;
pub mod shared;
pub mod slots;
pub mod stream;
pub mod xenstore;

/// A violation: an index that no honest peer could have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadIndex {
    /// The producer's index, free-running.
    pub prod: u32,
    /// The consumer's index, free-running.
    pub cons: u32,
}

impl fmt::Display for BadIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "impossible ring indexes: producer {:#x}, consumer {:#x}", self.prod, self.cons)
    }
}

impl core::error::Error for BadIndex {}

impl embedded_io::Error for BadIndex {
    fn kind(&self) -> embedded_io::ErrorKind {
        embedded_io::ErrorKind::InvalidData
    }
}

/// How far `prod` is ahead of `cons`, if that is at most `size`.
fn distance(prod: u32, cons: u32, size: u32) -> Result<u32, BadIndex> {
    let ahead = prod.wrapping_sub(cons);
    if ahead <= size { Ok(ahead) } else { Err(BadIndex { prod, cons }) }
}
