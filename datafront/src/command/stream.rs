//! `datafront stream` and `datafront echo`: standard input and output, and a channel.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Instant;

use datafront::{Error, Link, Stream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::exit::Failure;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Both,
    /// What is sent comes back: when all of it has, that is the end.
    Back,
    Send,
    Receive,
}

const PIECE: usize = 64 << 10;

/// Copies until there is nothing more to come, or to send.
pub(crate) fn run<L: Link + AsFd>(stream: &mut Stream<L>, way: Way) -> Result<ExitCode, Failure> {
    let mut input = io::stdin().lock();
    let mut output = io::stdout().lock();
    let mut reads_input = way != Way::Receive;
    let mut received = vec![0; PIECE];
    let mut to_send = Pending { bytes: vec![0; PIECE], from: 0, to: 0 };
    let mut to_come: u64 = 0;
    loop {
        while let Some(count) = stream.try_read(&mut received)? {
            if count == 0 {
                // Bytes that nobody took are lost, and that is a failure.
                let is_done = to_send.is_empty() && (way != Way::Send || !reads_input);
                return if is_done { Ok(ExitCode::SUCCESS) } else { Err(Error::Gone.into()) };
            }
            to_come = to_come.saturating_sub(count as u64);
            if way != Way::Send {
                output.write_all(&received[..count])?;
                output.flush()?;
            }
        }
        to_send.send(stream)?;
        if way == Way::Send && !reads_input && to_send.is_empty() {
            stream.drain()?;
            return Ok(ExitCode::SUCCESS);
        }
        if way == Way::Back && !reads_input && to_come == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        let wants_input = reads_input && to_send.is_empty();
        if wait(stream, wants_input.then_some(&input))? {
            to_send.to = input.read(&mut to_send.bytes)?;
            to_send.from = 0;
            reads_input = to_send.to > 0;
            to_come += to_send.to as u64;
        }
    }
}

/// Waits until it is worth another try; whether there is something to read from `input`.
fn wait<L: Link + AsFd>(
    stream: &mut Stream<L>,
    input: Option<&io::StdinLock<'_>>,
) -> Result<bool, Failure> {
    let file = stream.as_fd().try_clone_to_owned()?;
    let mut fds = vec![PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    fds.extend(input.map(|input| PollFd::new(input.as_fd(), PollFlags::POLLIN)));
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
            Ok(_) => break,
        }
    }
    let is_ready = |fd: &PollFd<'_>| fd.any() == Some(true);
    let has_input = fds.get(1).is_some_and(is_ready);
    stream.wait(Some(Instant::now()))?;
    Ok(has_input)
}

/// Bytes that were read and not sent yet.
struct Pending {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Pending {
    const fn is_empty(&self) -> bool {
        self.from == self.to
    }

    fn send<L: Link>(&mut self, stream: &mut Stream<L>) -> Result<(), Failure> {
        while !self.is_empty() {
            match stream.try_write(&self.bytes[self.from..self.to]) {
                Ok(Some(count)) => self.from += count,
                // The end is told by the reading side, after what came last.
                Ok(None) | Err(Error::Gone) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
