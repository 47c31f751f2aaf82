//! A frame, as a chain of pieces of pages.

use heapless::Vec;
use xen_sys::page::PAGE_SIZE;
use xen_sys::ring::netif::{CHAIN_MAX, Flags, Gso};

use crate::Violation;

/// The least bytes of a frame: the header of Ethernet.
pub const LEAST: usize = 14;
/// The most bytes of a frame: what the size of a transmit slot can say.
pub const MOST: usize = u16::MAX as usize;

/// Bytes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which page: the owner's number for it, that means nothing here.
    pub page: u16,
    /// Where in it the bytes begin.
    pub offset: u16,
    /// How many they are; with the offset at most [`PAGE_SIZE`].
    pub len: u16,
}

impl Piece {
    /// The bytes of a page that a backend says are there.
    pub(crate) fn within_page(page: u16, offset: u16, len: u16) -> Result<Self, Violation> {
        let inside = usize::from(offset) + usize::from(len) <= PAGE_SIZE;
        if inside {
            Ok(Self { page, offset, len })
        } else {
            Err(Violation::Outside { offset, len })
        }
    }
}

/// A frame of Ethernet without its check sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Where its bytes are, in order.
    pub pieces: Vec<Piece, CHAIN_MAX>,
    /// [`Flags::CSUM_BLANK`] and [`Flags::DATA_VALIDATED`]; the others are the rings' own.
    pub flags: Flags,
    /// How it is to be cut, if it is.
    pub gso: Option<Gso>,
}

/// What flags say of a frame, as against those that only hold its slots together.
pub(crate) const OF_FRAME: Flags = Flags::CSUM_BLANK.union(Flags::DATA_VALIDATED);

impl Frame {
    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| usize::from(piece.len)).sum()
    }

    /// Whether it has no bytes, as no frame that was received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
