//! `/dev/xen/evtchn`: a port that is bound to another domain's (linux/include/uapi/xen/evtchn.h).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, RawFd};

use super::{open, uninterrupted};
use crate::ids::{DomId, Port};

/// The device's path.
pub const EVTCHN: &str = "/dev/xen/evtchn";

mod call {
    use core::ffi::c_uint;

    use nix::{ioc, ioctl_write_ptr_bad, sys::ioctl::NONE};

    /// `struct ioctl_evtchn_bind_interdomain`.
    #[repr(C)]
    pub(super) struct BindInterdomain {
        pub(super) remote_domain: c_uint,
        pub(super) remote_port: c_uint,
    }

    /// `struct ioctl_evtchn_bind_unbound_port`.
    #[repr(C)]
    pub(super) struct BindUnbound {
        pub(super) remote_domain: c_uint,
    }

    /// `struct ioctl_evtchn_notify`.
    #[repr(C)]
    pub(super) struct Notify {
        pub(super) port: c_uint,
    }

    pub(super) const BIND_INTERDOMAIN: u64 = ioc!(NONE, b'E', 1, size_of::<BindInterdomain>());
    pub(super) const BIND_UNBOUND: u64 = ioc!(NONE, b'E', 2, size_of::<BindUnbound>());
    pub(super) const NOTIFY: u64 = ioc!(NONE, b'E', 4, size_of::<Notify>());

    // These two return the local port.
    ioctl_write_ptr_bad!(bind_interdomain, BIND_INTERDOMAIN, BindInterdomain);
    ioctl_write_ptr_bad!(bind_unbound, BIND_UNBOUND, BindUnbound);
    ioctl_write_ptr_bad!(notify, NOTIFY, Notify);
}

/// An event channel to another domain, with a file of its own: readable, to whoever polls it, when
/// an event came. Closes when dropped.
#[derive(Debug)]
pub struct Channel {
    device: File,
    port: Port,
}

impl Channel {
    /// Binds a port of ours to one that `domain` left open for this domain.
    ///
    /// An event is pending at once: what the other side did before can be looked at then.
    ///
    /// # Errors
    /// Of opening the device, [`io::ErrorKind::NotFound`] or [`io::ErrorKind::PermissionDenied`]
    /// among them; and that of the binding, mostly `EINVAL`: there is no such port, or somebody is
    /// bound to it.
    pub fn bind(domain: DomId, port: Port) -> io::Result<Self> {
        let wanted =
            call::BindInterdomain { remote_domain: domain.raw().into(), remote_port: port.0 };
        Self::open(|fd| {
            // SAFETY: the call reads the structure and writes nothing.
            unsafe { call::bind_interdomain(fd, &raw const wanted) }
        })
    }

    /// Leaves a port of ours open for `domain` to bind to.
    ///
    /// # Errors
    /// As those of [`bind`](Self::bind).
    pub fn listen(domain: DomId) -> io::Result<Self> {
        let wanted = call::BindUnbound { remote_domain: domain.raw().into() };
        Self::open(|fd| {
            // SAFETY: the call reads the structure and writes nothing.
            unsafe { call::bind_unbound(fd, &raw const wanted) }
        })
    }

    /// Opens the device for the port that `bind` makes and returns.
    fn open(bind: impl FnMut(RawFd) -> nix::Result<i32>) -> io::Result<Self> {
        // O_NONBLOCK: whoever wants to wait polls, and reads what is there.
        let device = open(EVTCHN, O_NONBLOCK)?;
        let local = uninterrupted(&device, bind)?;
        let local = u32::try_from(local).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Self { device, port: Port(local) })
    }

    /// Our port, for [`Mapping::notify_on_unmap`](super::Mapping::notify_on_unmap).
    #[must_use]
    pub const fn port(&self) -> Port {
        self.port
    }

    /// Sends an event to the other side.
    ///
    /// # Errors
    /// None that a bound channel is known to give.
    pub fn notify(&self) -> io::Result<()> {
        let wanted = call::Notify { port: self.port.0 };
        uninterrupted(&self.device, |fd| {
            // SAFETY: the call reads the structure and writes nothing.
            unsafe { call::notify(fd, &raw const wanted) }
        })?;
        Ok(())
    }

    /// Takes note of an event, if one came, and lets the next one come; tells whether one had.
    ///
    /// Look at what the events are about after this, not before: what changes later comes with an
    /// event of its own.
    ///
    /// # Errors
    /// Those of the device.
    pub fn take(&self) -> io::Result<bool> {
        let mut port = [0; size_of::<u32>()];
        loop {
            match (&self.device).read(&mut port) {
                // The kernel masks a port when it reports it, until its number is written back.
                Ok(_) => return (&self.device).write_all(&port).map(|()| true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// `O_NONBLOCK` of linux/include/uapi/asm-generic/fcntl.h.
const O_NONBLOCK: i32 = 0o4000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_the_numbers_of_the_header() {
        assert_eq!(call::BIND_INTERDOMAIN, 0x8_4501, "IOCTL_EVTCHN_BIND_INTERDOMAIN");
        assert_eq!(call::NOTIFY, 0x4_4504, "IOCTL_EVTCHN_NOTIFY");
    }
}
