//! What network frontends and backends say in their rings (xen/include/public/io/netif.h).
//!
//! Two rings of [`slots`](super::slots), a page each: in the transmit ring the frontend puts frames
//! that its guest sends, in the receive ring it puts pages in which frames for its guest may be
//! written. A frame is a chain of slots, all but the last of which have [`Flags::MORE_DATA`]. After
//! a chain's first slot stand extra slots if that has [`Flags::EXTRA_INFO`]; each but the last has
//! [`EXTRA_MORE`].
//!
//! In the transmit ring the first slot's size is the whole frame's, and what is in the first page
//! is what the others leave of it. In the receive ring the n-th response answers the n-th request.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ids::GrantRef;

bitflags! {
    /// What is said of a frame, or of a slot of it: `XEN_NETTXF_*` and `XEN_NETRXF_*`, which are
    /// the same.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u16 {
        /// Where the checksum of TCP or UDP belongs there is only that of the pseudo-header.
        const CSUM_BLANK = 1;
        /// The data is as whoever sent it wrote it: a checksum need not be looked at.
        const DATA_VALIDATED = 1 << 1;
        /// The frame goes on in the next slot.
        const MORE_DATA = 1 << 2;
        /// The next slot has extra information.
        const EXTRA_INFO = 1 << 3;
    }
}

/// The most slots of a chain that every backend takes (`XEN_NETIF_NR_SLOTS_MIN`), extra slots not
/// counted.
pub const CHAIN_MAX: usize = 18;

/// `struct netif_tx_request`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TxRequest {
    /// Which page.
    pub reference: u32,
    /// Where in it the bytes begin.
    pub offset: u16,
    /// [`Flags`].
    pub flags: u16,
    /// The frontend's name for this slot, which the response repeats.
    pub id: u16,
    /// Bytes: of the whole frame in a chain's first slot, of this slot in the others.
    pub size: u16,
}

impl TxRequest {
    /// The flags that this version of the header knows.
    #[must_use]
    pub const fn flags(&self) -> Flags {
        Flags::from_bits_truncate(self.flags)
    }

    /// The page as a grant reference.
    #[must_use]
    pub const fn reference(&self) -> GrantRef {
        GrantRef(self.reference)
    }
}

/// `struct netif_tx_response`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TxResponse {
    /// As in the request.
    pub id: u16,
    /// `NETIF_RSP_*`.
    pub status: i16,
}

/// `NETIF_RSP_NULL`: the response to an extra slot.
pub const NULL: i16 = 1;
/// `NETIF_RSP_OKAY`.
pub const OKAY: i16 = 0;
/// `NETIF_RSP_ERROR`.
pub const ERROR: i16 = -1;
/// `NETIF_RSP_DROPPED`.
pub const DROPPED: i16 = -2;

/// `struct netif_rx_request`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RxRequest {
    /// The frontend's name for this slot, which the response repeats.
    pub id: u16,
    /// Nothing.
    pub pad: u16,
    /// Which page, all of which may be written.
    pub reference: u32,
}

/// `struct netif_rx_response`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RxResponse {
    /// As in the request.
    pub id: u16,
    /// Where in the page the bytes begin.
    pub offset: u16,
    /// [`Flags`].
    pub flags: u16,
    /// How many bytes, or `NETIF_RSP_*` below zero.
    pub status: i16,
}

/// `XEN_NETIF_EXTRA_FLAG_MORE`: another extra slot follows.
pub const EXTRA_MORE: u8 = 1;

/// `XEN_NETIF_EXTRA_TYPE_GSO`.
pub const EXTRA_GSO: u8 = 1;

/// `struct netif_extra_info`, in a slot of either ring.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ExtraInfo {
    /// `XEN_NETIF_EXTRA_TYPE_*`.
    pub kind: u8,
    /// [`EXTRA_MORE`] or nothing.
    pub flags: u8,
    /// By kind.
    pub data: [u8; 6],
}

/// A frame whose data is to be cut into segments by whoever cannot take it whole: extra information
/// of kind [`EXTRA_GSO`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// The data of each segment, in bytes, headers not counted.
    pub size: u16,
    /// Which headers to repeat.
    pub kind: GsoKind,
}

/// What a frame to be cut is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GsoKind {
    /// `XEN_NETIF_GSO_TYPE_TCPV4`.
    Tcp4 = 1,
    /// `XEN_NETIF_GSO_TYPE_TCPV6`.
    Tcp6 = 2,
}

impl Gso {
    /// Reads an extra slot; `None` if it says nothing of a segment's size, or one that cannot be.
    #[must_use]
    pub const fn of(extra: &ExtraInfo) -> Option<Self> {
        let [low, high, kind, ..] = extra.data;
        let size = u16::from_le_bytes([low, high]);
        let kind = match kind {
            1 => GsoKind::Tcp4,
            2 => GsoKind::Tcp6,
            _ => return None,
        };
        if extra.kind != EXTRA_GSO || size == 0 { None } else { Some(Self { size, kind }) }
    }

    /// The extra slot that says so, the last of its chain.
    #[must_use]
    pub const fn extra(self) -> ExtraInfo {
        let [low, high] = self.size.to_le_bytes();
        ExtraInfo { kind: EXTRA_GSO, flags: 0, data: [low, high, self.kind as u8, 0, 0, 0] }
    }
}

impl From<TxRequest> for ExtraInfo {
    /// What is in a slot of the transmit ring, which is four bytes longer.
    fn from(slot: TxRequest) -> Self {
        let bytes: [u8; 12] = zerocopy::transmute!(slot);
        let [kind, flags, a, b, c, d, e, f, ..] = bytes;
        Self { kind, flags, data: [a, b, c, d, e, f] }
    }
}

impl From<ExtraInfo> for TxRequest {
    fn from(extra: ExtraInfo) -> Self {
        let [a, b, c, d, e, f] = extra.data;
        zerocopy::transmute!([extra.kind, extra.flags, a, b, c, d, e, f, 0, 0, 0, 0])
    }
}

impl From<RxResponse> for ExtraInfo {
    fn from(slot: RxResponse) -> Self {
        zerocopy::transmute!(slot)
    }
}

impl From<ExtraInfo> for RxResponse {
    fn from(extra: ExtraInfo) -> Self {
        let bytes: [u8; 8] = zerocopy::transmute!(extra);
        zerocopy::transmute!(bytes)
    }
}

const _: () = assert!(size_of::<TxRequest>() == 12 && size_of::<TxResponse>() == 4);
const _: () = assert!(size_of::<RxRequest>() == 8 && size_of::<RxResponse>() == 8);
const _: () = assert!(size_of::<ExtraInfo>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_lie_as_in_the_header() {
        let bytes: [u8; 12] = [1, 2, 3, 4, 5, 6, 0b1101, 0, 9, 10, 11, 12];
        let request = TxRequest::read_from_bytes(&bytes).unwrap();
        assert_eq!(request.reference(), GrantRef(0x0403_0201));
        assert_eq!((request.offset, request.id, request.size), (0x0605, 0x0a09, 0x0c0b));
        assert_eq!(request.flags(), Flags::CSUM_BLANK | Flags::MORE_DATA | Flags::EXTRA_INFO);
        let response = RxResponse { id: 0x0201, offset: 0x0403, flags: 4, status: -2 };
        assert_eq!(response.as_bytes(), [1, 2, 3, 4, 4, 0, 0xfe, 0xff]);
        let request = RxRequest { id: 0x0201, pad: 0, reference: 0x0807_0605 };
        assert_eq!(request.as_bytes(), [1, 2, 0, 0, 5, 6, 7, 8]);
    }

    #[test]
    fn an_extra_slot_is_the_same_in_both_rings() {
        let gso = Gso { size: 1448, kind: GsoKind::Tcp6 };
        let extra = gso.extra();
        assert_eq!(extra.as_bytes(), [1, 0, 0xa8, 0x05, 2, 0, 0, 0]);
        assert_eq!(Gso::of(&ExtraInfo::from(TxRequest::from(extra))), Some(gso));
        assert_eq!(Gso::of(&ExtraInfo::from(RxResponse::from(extra))), Some(gso));
    }

    #[test]
    fn no_segment_is_empty_or_of_an_unknown_kind() {
        let extra = Gso { size: 1448, kind: GsoKind::Tcp4 }.extra();
        for wrong in [
            ExtraInfo { kind: 4, ..extra },
            ExtraInfo { data: [0, 0, 1, 0, 0, 0], ..extra },
            ExtraInfo { data: [1, 0, 3, 0, 0, 0], ..extra },
        ] {
            assert_eq!(Gso::of(&wrong), None, "{wrong:?}");
        }
    }
}
