//! Grants: pages one domain lets another map or copy (xen/include/public/grant_table.h).
//!
//! | to do | use |
//! | --- | --- |
//! | touch another domain's page for long, as a ring | [`GrantMapping`] |
//! | move bytes to or from another domain's page | [`copy::Batch`] |
//! | let another domain map a page of ours | [`GrantTable::grant`] |
//!
//! Mapping places a foreign page at a guest frame. The frame must be a hole: Xen ends a
//! domain that maps over another mapping, and forgets RAM that is mapped over. Frames
//! therefore come from one [`GfnWindow`], and a frame whose unmapping failed never returns
//! to it.

use core::fmt;

use crate::hypercall::{self, Op};
use crate::ids::Errno;

pub mod copy;
mod mapping;
mod table;
mod window;

pub use mapping::{GrantMapping, GrantRange, MapError, ReadOnlyMapping};
pub use table::{Access, GrantError, GrantTable, Granted, OpenError};
pub use window::{ClaimError, GfnWindow};

/// Why Xen refused one grant operation, `GNTST_*` below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Something without a name of its own: not granted, or out of page-table pages.
    GeneralError,
    /// No such domain.
    BadDomain,
    /// The reference is beyond the granter's table.
    BadReference,
    /// The handle names no mapping of ours.
    BadHandle,
    /// The address cannot be mapped at.
    BadVirtualAddress,
    /// The device address is not the mapping's.
    BadDeviceAddress,
    /// No space for an I/O mapping.
    NoDeviceSpace,
    /// The granter does not permit it.
    PermissionDenied,
    /// The granter's frame is not RAM.
    BadPage,
    /// A copy's range is outside its page.
    BadCopyArgument,
    /// The address is too high for this operation.
    AddressTooBig,
    /// The granter's page is paged out or shared; later it may not be.
    Again,
    /// No space in a handle table.
    NoSpace,
    /// A code that this header did not have, as Xen wrote it.
    Other(i16),
}

impl Status {
    /// `GNTST_okay` and anything above is success, as the header defines it.
    pub(crate) const fn check(code: i16) -> Result<(), Self> {
        Err(match code {
            0.. => return Ok(()),
            -1 => Self::GeneralError,
            -2 => Self::BadDomain,
            -3 => Self::BadReference,
            -4 => Self::BadHandle,
            -5 => Self::BadVirtualAddress,
            -6 => Self::BadDeviceAddress,
            -7 => Self::NoDeviceSpace,
            -8 => Self::PermissionDenied,
            -9 => Self::BadPage,
            -10 => Self::BadCopyArgument,
            -11 => Self::AddressTooBig,
            -12 => Self::Again,
            -13 => Self::NoSpace,
            _ => Self::Other(code),
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GeneralError => "general error",
            Self::BadDomain => "no such domain",
            Self::BadReference => "no such grant reference",
            Self::BadHandle => "no such mapping",
            Self::BadVirtualAddress => "bad address",
            Self::BadDeviceAddress => "bad device address",
            Self::NoDeviceSpace => "no device space",
            Self::PermissionDenied => "permission denied",
            Self::BadPage => "not a page of RAM",
            Self::BadCopyArgument => "range outside the page",
            Self::AddressTooBig => "address too big",
            Self::Again => "page not there for the moment",
            Self::NoSpace => "no space for the handle",
            Self::Other(code) => return write!(f, "grant status {code}"),
        })
    }
}

impl core::error::Error for Status {}

/// How often an operation is tried while its answer is [`Status::Again`]. Paging takes
/// milliseconds, a store must not wait for one guest that long; the caller may try later.
const TRIES: usize = 8;

/// What a status field holds until Xen writes it; no code of Xen's.
const UNWRITTEN: i16 = i16::MIN;

/// Runs `GNTTABOP_*` on an array of operations. Success says nothing about each of them.
///
/// # Safety
/// As [`hypercall::call`]; `T` must be the structure that `command` names.
unsafe fn run<T>(command: u64, operations: &mut [T]) -> Result<(), Errno> {
    let (start, count) = (operations.as_mut_ptr() as u64, operations.len() as u64);
    // SAFETY: the array is exclusively ours for the call; the caller answers for the rest.
    unsafe { hypercall::call(Op::GrantTable, [command, start, count]) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_negative_code_is_a_refusal() {
        assert_eq!(Status::check(0), Ok(()));
        assert_eq!(Status::check(-12), Err(Status::Again));
        assert_eq!(Status::check(-99), Err(Status::Other(-99)));
        assert!(Status::check(UNWRITTEN).is_err(), "an operation Xen never looked at");
        for code in -13..0 {
            assert!(!matches!(Status::check(code), Ok(()) | Err(Status::Other(_))), "{code}");
        }
    }
}
