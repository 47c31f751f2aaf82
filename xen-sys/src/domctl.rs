//! What became of other domains (xen/include/public/domctl.h).
//!
//! A Xenstore domain may ask; any other guest may not. There are two ways. The stable one,
//! `XEN_DOMCTL_get_domain_state`, is in Xen 4.21 and later. The other,
//! `XEN_DOMCTL_getdomaininfo`, is in all, but answers only those who name the
//! version of the interface that this Xen was built with, so it is found by trying.

use core::fmt;
use core::mem::offset_of;

use crate::hypercall::{self, Op};
use crate::ids::{DOMID_INVALID, DomId, Errno};

const XEN_DOMCTL_GETDOMAININFO: u32 = 5;
const XEN_DOMCTL_GET_DOMAIN_STATE: u32 = 90;

/// Interface versions to try: 0x12 is Xen 4.13, 0x18 is 4.22, the rest is room for more.
const VERSIONS: core::ops::RangeInclusive<u32> = 0x12..=0x20;

/// `struct xen_domctl`; the union as the two operations above see it.
#[repr(C)]
struct Request<U> {
    cmd: u32,
    interface_version: u32,
    domain: u16,
    pad: [u16; 3],
    detail: U,
}

/// The start of `struct xen_domctl_getdomaininfo`, equal in all versions tried, and room for
/// the rest of the union, which Xen reads and writes whole.
#[repr(C)]
struct DomainInfo {
    domain: u16,
    pad: u16,
    flags: u32,
    counts: [u64; 7],
    online_vcpus: u32,
    max_vcpu_id: u32,
    ssidref: u32,
    handle: [u8; 16],
    cpupool: u32,
    rest: [u64; 4],
}

/// `struct xen_domctl_get_domain_state`, with the rest of the union.
#[repr(C)]
struct StateInfo {
    state: u16,
    caps: u16,
    pad: u32,
    unique_id: u64,
    rest: [u64; 14],
}

const _: () = assert!(size_of::<Request<DomainInfo>>() == 144);
const _: () = assert!(size_of::<Request<StateInfo>>() == 144);
const _: () = assert!(offset_of!(Request<DomainInfo>, detail) == 16);
const _: () = assert!(offset_of!(DomainInfo, flags) == 4 && offset_of!(DomainInfo, handle) == 76);
const _: () = assert!(offset_of!(StateInfo, unique_id) == 8);

/// `XEN_DOMINF_dying`: set when a domain is dead.
const DOMINF_DYING: u32 = 1 << 0;
/// `XEN_DOMINF_shutdown`.
const DOMINF_SHUTDOWN: u32 = 1 << 2;

/// `XEN_DOMCTL_GETDOMSTATE_STATE_*`.
const STATE_EXIST: u16 = 1;
const STATE_SHUTDOWN: u16 = 2;
const STATE_DYING: u16 = 4;
const STATE_DEAD: u16 = 8;

/// What tells a domain from the next one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Xen's own number, never used twice in the life of the host (4.21 on).
    UniqueId(u64),
    /// The UUID the toolstack gave, which is usually, not surely, its own.
    Handle([u8; 16]),
}

/// A domain that exists, as of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainState {
    /// Which of the domains that bear this id it is.
    pub identity: Identity,
    /// It stopped, for whatever reason; suspended counts, so it may come back.
    pub shutdown: bool,
    /// It is being taken apart. Told by the stable interface only.
    pub dying: bool,
    /// Nothing is left but pages that others map; ours must be let go.
    pub dead: bool,
}

/// The way to ask that works here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domctl {
    /// `XEN_DOMCTL_get_domain_state`.
    Stable,
    /// `XEN_DOMCTL_getdomaininfo` of this interface version.
    Versioned(u32),
}

impl fmt::Display for Domctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stable => f.write_str("XEN_DOMCTL_get_domain_state"),
            Self::Versioned(version) => {
                write!(f, "XEN_DOMCTL_getdomaininfo of interface version {version:#x}")
            }
        }
    }
}

impl Domctl {
    /// Finds a way that works, by asking after dom0; `None` if this domain may not ask, or
    /// this Xen is newer than both.
    #[must_use]
    pub fn probe() -> Option<Self> {
        let ways = core::iter::once(Self::Stable).chain(VERSIONS.map(Self::Versioned));
        ways.into_iter().find(|way| matches!(way.query(DomId::DOM0), Ok(Some(_))))
    }

    /// Asks after a domain; `None` if there is none of this id.
    ///
    /// # Errors
    /// `EACCES` or `ENOSYS` where this way does not work; `EPERM` for dom0 if this domain may
    /// not ask. (For others `EPERM` is how Xen 4.22 says that there is no such domain.)
    pub fn query(self, domain: DomId) -> Result<Option<DomainState>, Errno> {
        let state = match self {
            Self::Stable => stable(domain.raw()).map(|(_, state)| state),
            Self::Versioned(version) => versioned(version, domain),
        };
        match state {
            Err(Errno::ESRCH) => Ok(None),
            Err(Errno::EPERM) if domain != DomId::DOM0 => Ok(None),
            answer => answer,
        }
    }

    /// Whether [`next_changed`](Self::next_changed) works, once
    /// [`crate::event::Virq::DomExc`] is bound.
    #[must_use]
    pub fn tells_changes(self) -> bool {
        self == Self::Stable
    }

    /// Takes the next domain whose state changed since it was last told, with its state, or
    /// `None` for the state if it is gone; `None` at all if there is no more. All domains
    /// count as changed when [`crate::event::Virq::DomExc`] is bound.
    ///
    /// # Errors
    /// `ENOSYS` where the way in use cannot tell; `EACCES` unless the virtual interrupt is
    /// ours.
    pub fn next_changed(self) -> Result<Option<(DomId, Option<DomainState>)>, Errno> {
        if !self.tells_changes() {
            return Err(Errno::ENOSYS);
        }
        match stable(DOMID_INVALID) {
            Ok((domain, state)) => Ok(DomId::new(domain).map(|domain| (domain, state))),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Asks by the stable interface; tells which domain the answer is about.
fn stable(domain: u16) -> Result<(u16, Option<DomainState>), Errno> {
    let detail = StateInfo { state: 0, caps: 0, pad: 0, unique_id: 0, rest: [0; 14] };
    let mut request = Request {
        cmd: XEN_DOMCTL_GET_DOMAIN_STATE,
        interface_version: 0,
        domain,
        pad: [0; 3],
        detail,
    };
    run(&mut request)?;
    let StateInfo { state, unique_id, .. } = request.detail;
    let domain_state = DomainState {
        identity: Identity::UniqueId(unique_id),
        shutdown: state & STATE_SHUTDOWN != 0,
        dying: state & STATE_DYING != 0,
        dead: state & STATE_DEAD != 0,
    };
    Ok((request.domain, (state & STATE_EXIST != 0).then_some(domain_state)))
}

fn versioned(interface_version: u32, domain: DomId) -> Result<Option<DomainState>, Errno> {
    let detail = DomainInfo {
        domain: 0,
        pad: 0,
        flags: 0,
        counts: [0; 7],
        online_vcpus: 0,
        max_vcpu_id: 0,
        ssidref: 0,
        handle: [0; 16],
        cpupool: 0,
        rest: [0; 4],
    };
    let mut request = Request {
        cmd: XEN_DOMCTL_GETDOMAININFO,
        interface_version,
        domain: domain.raw(),
        pad: [0; 3],
        detail,
    };
    run(&mut request)?;
    let DomainInfo { domain: answered, flags, handle, .. } = request.detail;
    // Up to 4.17 Xen answers with the next domain there is.
    Ok((answered == domain.raw()).then_some(DomainState {
        identity: Identity::Handle(handle),
        shutdown: flags & DOMINF_SHUTDOWN != 0,
        dying: false,
        dead: flags & DOMINF_DYING != 0,
    }))
}

fn run<U>(request: &mut Request<U>) -> Result<(), Errno> {
    let address = core::ptr::from_mut(request) as u64;
    // SAFETY: `struct xen_domctl`, of its full size by the assertions above, exclusively ours;
    // the two commands this file uses only report.
    unsafe { hypercall::call(Op::Domctl, [address, 0, 0]) }.map(drop)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test data is small, or meant to wrap")]
mod tests {
    use super::*;
    use crate::hypercall::fake;

    fn dom(id: u16) -> DomId {
        DomId::new(id).unwrap()
    }

    /// A host with dom0 (running), 3 (shut down), 7 (dead) and 8 (dead, and never shut down), under
    /// a Xen of this interface version; `gone` is what it answers for others, 0 meaning the next
    /// one there is.
    fn xen_of(version: u32, gone: i64) {
        fake::install(move |op, [address, ..]| {
            assert_eq!(op, Op::Domctl);
            // SAFETY: `run` passes a live request of the full size.
            let request = unsafe { &mut *(address as *mut Request<DomainInfo>) };
            if request.cmd != XEN_DOMCTL_GETDOMAININFO || request.interface_version != version {
                return -13;
            }
            let asked = request.domain;
            let Some(found) = [0, 3, 7, 8].into_iter().find(|&id| id >= asked) else { return -3 };
            if found != asked && gone != 0 {
                return gone;
            }
            request.detail.domain = found;
            request.detail.flags = match found {
                0 => 0xffff_0020,
                3 => DOMINF_SHUTDOWN | 2,
                7 => DOMINF_SHUTDOWN | DOMINF_DYING,
                _ => DOMINF_DYING,
            };
            request.detail.handle = [found as u8; 16];
            0
        });
    }

    #[test]
    fn the_version_is_found_by_trying() {
        for version in [0x12, 0x15, 0x18, 0x20] {
            xen_of(version, -3);
            assert_eq!(Domctl::probe(), Some(Domctl::Versioned(version)));
        }
        xen_of(0x99, -3);
        assert_eq!(Domctl::probe(), None, "an unknown Xen is an answer");
        fake::install(|_, _| -1);
        assert_eq!(Domctl::probe(), None, "a plain guest may not ask, not even after dom0");
    }

    #[test]
    fn the_way_found_can_be_told() {
        xen_of(0x17, -3);
        let told = Domctl::probe().unwrap().to_string();
        assert_eq!(told, "XEN_DOMCTL_getdomaininfo of interface version 0x17");
        assert_eq!(Domctl::Stable.to_string(), "XEN_DOMCTL_get_domain_state");
    }

    #[test]
    fn every_way_of_saying_gone_is_understood() {
        for (version, gone, what) in
            [(0x15, 0, "the next domain"), (0x16, -3, "ESRCH"), (0x18, -1, "EPERM")]
        {
            xen_of(version, gone);
            let domctl = Domctl::probe().unwrap();
            assert_eq!(domctl.query(dom(5)), Ok(None), "{what} means gone");
            assert_eq!(domctl.query(dom(3)).map(|state| state.is_some()), Ok(true));
        }
    }

    #[test]
    fn a_domains_state_is_told() {
        xen_of(0x15, 0);
        let domctl = Domctl::probe().unwrap();
        let state = |id| domctl.query(dom(id)).unwrap().unwrap();
        assert!(!state(0).shutdown && !state(0).dead);
        assert!(state(3).shutdown && !state(3).dead);
        assert!(state(7).shutdown && state(7).dead);
        assert!(!state(8).shutdown && state(8).dead, "it is dead, however it came to be so");
        assert_eq!(state(7).identity, Identity::Handle([7; 16]));
        assert_ne!(state(7).identity, state(3).identity);
        assert_eq!(domctl.next_changed(), Err(Errno::ENOSYS));
    }

    #[test]
    fn refusal_for_dom0_is_a_lack_of_privilege() {
        fake::install(|_, _| -1);
        assert_eq!(Domctl::Versioned(0x18).query(DomId::DOM0), Err(Errno::EPERM));
        assert_eq!(Domctl::Stable.query(DomId::DOM0), Err(Errno::EPERM));
    }

    #[test]
    fn the_stable_interface_is_preferred_and_tells_changes() {
        let mut changed = [(4u16, STATE_EXIST | STATE_DEAD, 99u64), (5, 0, 0)].into_iter();
        fake::install(move |_, [address, ..]| {
            // SAFETY: `run` passes a live request of the full size.
            let request = unsafe { &mut *(address as *mut Request<StateInfo>) };
            if request.cmd != XEN_DOMCTL_GET_DOMAIN_STATE || request.interface_version != 0 {
                return -13;
            }
            assert_eq!((request.pad, request.detail.pad), ([0; 3], 0), "padding must be zero");
            let (domain, state, id) = match request.domain {
                0 => (0, STATE_EXIST, 1),
                DOMID_INVALID => match changed.next() {
                    Some(next) => next,
                    None => return -2,
                },
                _ => return -1,
            };
            request.domain = domain;
            (request.detail.state, request.detail.unique_id) = (state, id);
            0
        });
        let domctl = Domctl::probe().unwrap();
        assert_eq!(domctl, Domctl::Stable);
        let dead = DomainState {
            identity: Identity::UniqueId(99),
            shutdown: false,
            dying: false,
            dead: true,
        };
        assert_eq!(domctl.next_changed(), Ok(Some((dom(4), Some(dead)))));
        assert_eq!(domctl.next_changed(), Ok(Some((dom(5), None))), "state 0 means gone");
        assert_eq!(domctl.next_changed(), Ok(None));
        assert_eq!(domctl.query(dom(9)), Ok(None), "EPERM means gone");
    }
}
