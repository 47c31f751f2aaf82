//! Numbers that come from outside, each with a name that says what is known about it.

use core::fmt;

/// The id of an ordinary domain: below `DOMID_FIRST_RESERVED`
/// (xen/include/public/xen.h).
///
/// Having one tells that the number *may* name a domain. It does not tell that the domain
/// exists, nor that it is still the one that bore this id a moment ago: ids are reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct DomId(u16);

impl DomId {
    /// The control domain.
    pub const DOM0: Self = Self(0);
    /// `DOMID_FIRST_RESERVED`: from here on a number is a wildcard, not a domain.
    pub const FIRST_RESERVED: u16 = 0x7ff0;

    /// Accepts the ids that can name one domain, refuses Xen's wildcards.
    #[must_use]
    pub const fn new(raw: u16) -> Option<Self> {
        if raw < Self::FIRST_RESERVED { Some(Self(raw)) } else { None }
    }

    /// The number as Xen writes it.
    #[must_use]
    pub const fn raw(self) -> u16 {
        self.0
    }
}

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{}", self.0)
    }
}

/// `DOMID_SELF`: the caller. Only inside this crate, where an operation takes it.
pub(crate) const DOMID_SELF: u16 = 0x7ff0;
/// `DOMID_INVALID`: no domain.
pub(crate) const DOMID_INVALID: u16 = 0x7ff4;

/// An event channel's number in one domain's table.
///
/// Having one tells nothing: it may be closed, somebody else's, or out of range. An open
/// local port that is ours is a [`crate::event::Channel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Port(pub u32);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}", self.0)
    }
}

/// An index into some domain's grant table.
///
/// Having one tells nothing: it is a claim until a map or copy with it succeeds, and even
/// then the granter may write to the page at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct GrantRef(pub u32);

impl GrantRef {
    /// Where a domain grants its console page (`GNTTAB_RESERVED_CONSOLE`).
    pub const CONSOLE: Self = Self(0);
    /// Where a domain grants its Xenstore page (`GNTTAB_RESERVED_XENSTORE`).
    pub const XENSTORE: Self = Self(1);
}

/// A guest frame number: a guest-physical address in units of 4 KiB.
///
/// Having one tells neither that memory is there nor whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Gfn(pub u64);

impl Gfn {
    /// The guest-physical address of the frame's first byte. Wraps for a frame no machine has.
    #[must_use]
    pub const fn address(self) -> u64 {
        self.0 << 12
    }

    /// The frame's first byte, which is mapped at its own address if there is memory.
    pub(crate) const fn pointer<T>(self) -> *mut T {
        #[expect(clippy::cast_possible_truncation, reason = "addresses have 64 bits")]
        core::ptr::with_exposed_provenance_mut(self.address() as usize)
    }

    /// The frame that holds a guest-physical address.
    #[must_use]
    pub const fn holding(address: u64) -> Self {
        Self(address >> 12)
    }
}

/// Why Xen refused a hypercall: the positive number of xen/include/public/errno.h.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Errno(u16);

impl Errno {
    /// Operation not permitted.
    pub const EPERM: Self = Self(1);
    /// No such object.
    pub const ENOENT: Self = Self(2);
    /// No such domain.
    pub const ESRCH: Self = Self(3);
    /// Argument list too long.
    pub const E2BIG: Self = Self(7);
    /// Out of memory, ours or the host's.
    pub const ENOMEM: Self = Self(12);
    /// Access denied; for a domctl also: wrong interface version.
    pub const EACCES: Self = Self(13);
    /// An argument's address could not be read or written.
    pub const EFAULT: Self = Self(14);
    /// Already in use.
    pub const EBUSY: Self = Self(16);
    /// Already there.
    pub const EEXIST: Self = Self(17);
    /// Invalid argument.
    pub const EINVAL: Self = Self(22);
    /// No room, as for event channels.
    pub const ENOSPC: Self = Self(28);
    /// This Xen does not have the operation.
    pub const ENOSYS: Self = Self(38);
    /// This Xen does not do that here.
    pub const EOPNOTSUPP: Self = Self(95);

    /// The number as the header has it, positive.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Parts a hypercall's `rax` into a value and an error.
    pub(crate) fn check(rax: i64) -> Result<u64, Self> {
        // MAX_ERRNO: Xen's error numbers are below 4096. Anything more negative is no error
        // Xen knows, and is reported as one number rather than believed to be a value.
        u64::try_from(rax).map_err(|_| Self(u16::try_from(rax.unsigned_abs()).unwrap_or(u16::MAX)))
    }

    const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::EPERM => "EPERM",
            Self::ENOENT => "ENOENT",
            Self::ESRCH => "ESRCH",
            Self::E2BIG => "E2BIG",
            Self::ENOMEM => "ENOMEM",
            Self::EACCES => "EACCES",
            Self::EFAULT => "EFAULT",
            Self::EBUSY => "EBUSY",
            Self::EEXIST => "EEXIST",
            Self::EINVAL => "EINVAL",
            Self::ENOSPC => "ENOSPC",
            Self::ENOSYS => "ENOSYS",
            Self::EOPNOTSUPP => "EOPNOTSUPP",
            _ => return None,
        })
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_id_is_never_a_wildcard() {
        assert_eq!(DomId::new(0), Some(DomId::DOM0));
        assert_eq!(DomId::new(0x7fef).map(DomId::raw), Some(0x7fef));
        for wildcard in [DOMID_SELF, DOMID_INVALID, 0x7fff, 0x8000, u16::MAX] {
            assert_eq!(DomId::new(wildcard), None, "{wildcard:#x} names no single domain");
        }
    }

    #[test]
    fn a_negative_result_is_an_error_with_its_name() {
        assert_eq!(Errno::check(0), Ok(0));
        assert_eq!(Errno::check(7), Ok(7));
        assert_eq!(Errno::check(-22), Err(Errno::EINVAL));
        assert_eq!(Errno::check(-13).unwrap_err().to_string(), "EACCES");
        assert_eq!(Errno::check(-999).unwrap_err().to_string(), "errno 999");
        assert!(Errno::check(i64::MIN).is_err(), "no huge negative number is a value");
    }
}
