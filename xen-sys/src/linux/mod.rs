//! Xen's grants and events as a Linux kernel gives them to its programs: `/dev/xen/gntdev`,
//! `/dev/xen/gntalloc` and `/dev/xen/evtchn`.
//!
//! A program needs no hypercall for them, and so no `/dev/xen/privcmd`. The devices belong to
//! root; they are there when the modules of the same names, as `xen-gntdev`, are loaded.

mod evtchn;
mod gntalloc;
mod gntdev;

pub use evtchn::{Channel, EVTCHN};
pub use gntalloc::{GNTALLOC, Granted};
pub use gntdev::{GNTDEV, Mapping, Protection};

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

/// Opens a device to read and write; `flags` are more of open(2)'s, or 0.
fn open(path: &str, flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

/// Calls `call` with a device's number until no signal interrupts it; an error is an [`io::Error`].
fn uninterrupted(
    device: &impl AsRawFd,
    mut call: impl FnMut(RawFd) -> nix::Result<i32>,
) -> io::Result<i32> {
    loop {
        match call(device.as_raw_fd()) {
            Err(nix::Error::EINTR) => {}
            result => return Ok(result?),
        }
    }
}
