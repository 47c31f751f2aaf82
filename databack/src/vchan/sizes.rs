//! How large a channel's rings are, and where they lie.

use core::fmt;
use core::sync::atomic::Ordering;

use xen_sys::page::{PAGE_SIZE, Shared};
use xen_sys::ring::shared::Region;
use xen_sys::ring::stream::Half;

use super::{GRANTS, LEFT_CONS, LEFT_ORDER, LEFT_PROD, RIGHT_CONS, RIGHT_ORDER, RIGHT_PROD};

/// The size of a ring: 2^order bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order(u8);

impl Order {
    /// 1 KiB, inside the page of words.
    pub const SMALLEST: Self = Self(10);
    /// 64 KiB: larger ones gain little.
    pub const DEFAULT: Self = Self(16);
    /// 1 MiB.
    pub const LARGEST: Self = Self(20);

    /// The order `raw`, if a ring can have it.
    #[must_use]
    pub const fn new(raw: u16) -> Option<Self> {
        match raw {
            10..=20 => Some(Self(raw.to_le_bytes()[0])),
            _ => None,
        }
    }

    /// The number, as the page of words has it.
    pub(super) const fn raw(self) -> u16 {
        self.0 as u16
    }

    /// How many bytes such a ring holds.
    #[must_use]
    pub const fn bytes(self) -> usize {
        1 << self.0
    }

    /// How many pages of its own such a ring has.
    #[must_use]
    pub const fn pages(self) -> usize {
        self.bytes() / PAGE_SIZE
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The sizes of both rings, which have room beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    left: Order,
    right: Order,
}

impl Sizes {
    /// These two, unless both would lie at the same place in the page of words, or the list of
    /// grants would run into a ring there.
    #[must_use]
    pub const fn new(left: Order, right: Order) -> Option<Self> {
        let sizes = Self { left, right };
        let same_place = left.0 == right.0 && left.pages() == 0;
        let list = GRANTS + 4 * sizes.grants();
        let first_ring = if left.0 == 10 || right.0 == 10 { 1024 } else { 2048 };
        let in_page = left.pages() == 0 || right.pages() == 0;
        if same_place || (in_page && list > first_ring) { None } else { Some(sizes) }
    }

    /// What the page of words says. Judge it once, and keep what was judged.
    #[must_use]
    pub fn announced(page: &impl Shared) -> Option<Self> {
        let region = Region::of(page);
        let order = |at| Order::new(region.half_word(at).load(Ordering::Acquire));
        Self::new(order(LEFT_ORDER)?, order(RIGHT_ORDER)?)
    }

    /// The ring from the client to the server.
    #[must_use]
    pub const fn left(self) -> Order {
        self.left
    }

    /// The ring from the server to the client.
    #[must_use]
    pub const fn right(self) -> Order {
        self.right
    }

    /// How many pages a channel has in all.
    #[must_use]
    pub const fn pages(self) -> usize {
        1 + self.grants()
    }

    /// How many grant references the page of words lists.
    #[must_use]
    pub const fn grants(self) -> usize {
        self.left.pages() + self.right.pages()
    }

    pub(super) const fn left_half(self) -> Half {
        Half::new(place(self.left, PAGE_SIZE), 1 << self.left.0, LEFT_PROD, LEFT_CONS)
    }

    pub(super) const fn right_half(self) -> Half {
        let behind = PAGE_SIZE + self.left.pages() * PAGE_SIZE;
        Half::new(place(self.right, behind), 1 << self.right.0, RIGHT_PROD, RIGHT_CONS)
    }
}

/// Where a ring of that order begins; `own` if it has pages of its own.
#[expect(clippy::cast_possible_truncation, reason = "a channel has 513 pages at most")]
const fn place(order: Order, own: usize) -> u32 {
    match order.0 {
        10 => 1024,
        11 => 2048,
        _ => own as u32,
    }
}
