//! `/dev/xen/xenbus`, by which a Linux kernel takes requests to Xenstore from its programs.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use embedded_io::{ErrorType, Read, ReadReady, Write};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The device's path. It is there in every guest and in dom0, without any module.
pub const XENBUS: &str = "/dev/xen/xenbus";

/// The device as a stream of frames.
#[derive(Debug)]
pub(crate) struct Xenbus(File);

impl Xenbus {
    /// Opens it; each open file is a connection with watches and transactions of its own.
    ///
    /// # Errors
    /// Those of opening a file: no such device, or no right to it.
    pub(crate) fn open() -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).open(XENBUS).map(Self)
    }
}

impl ErrorType for Xenbus {
    type Error = io::Error;
}

impl Read for Xenbus {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.read(bytes))
    }
}

impl Write for Xenbus {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ReadReady for Xenbus {
    fn read_ready(&mut self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        uninterrupted(|| Ok(poll(&mut fds, PollTimeout::ZERO)? > 0))
    }
}

impl AsFd for Xenbus {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The time until a deadline, rounded up to what can be waited for; for ever if there is none.
pub(crate) fn left(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let left = deadline.saturating_duration_since(Instant::now());
    let milliseconds = left.as_nanos().div_ceil(1_000_000);
    i32::try_from(milliseconds).map_or(PollTimeout::MAX, |milliseconds| {
        PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
    })
}

/// Does it again when a signal came in between.
pub(crate) fn uninterrupted<T>(mut step: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match step() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
