//! Where a child was found, so that it is found again without a search.

/// Where a child is: its place in each chunk on the way, the topmost in the lowest bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot(u32);

impl Spot {
    /// Enough for the places of a chunk.
    const BITS: u32 = 6;
    const MASK: u32 = (1 << Self::BITS) - 1;

    /// The spot of a child below more chunks than a spot can tell of. No chunk has such a place.
    pub(crate) const LOST: Self = Self(u32::MAX);

    /// Takes the topmost place out.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> usize {
        let place = self.0 & Self::MASK;
        self.0 >>= Self::BITS;
        place as usize
    }
}

/// A spot, as a search finds it.
#[derive(Default)]
pub(super) struct SpotSoFar {
    places: u32,
    bits: u32,
}

impl SpotSoFar {
    /// Goes one chunk down.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a chunk has few places")]
    pub(super) fn push(&mut self, place: usize) {
        self.places |= (place as u32) << (self.bits & (u32::BITS - 1));
        self.bits += Spot::BITS;
    }

    #[inline]
    pub(super) fn spot(&self) -> Spot {
        if self.bits > u32::BITS { Spot::LOST } else { Spot(self.places) }
    }
}
