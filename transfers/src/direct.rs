//! By a vchan between the two domains, with nobody between them: one grants, the other maps.

use std::io::{self, Read, Write};

use anyhow::{Context, Result};
use databack::vchan::{self, End, Peer, Sizes};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use xen_sys::ids::{DomId, GrantRef, Port};
use xen_sys::linux::{Channel, Granted, Mapping, Protection};
use xen_sys::page::Shared;

use crate::{Blocks, tcp};

/// Grants the rings, prints the first page's reference and the port, and takes every block.
pub(crate) fn take(domain: u16, sizes: Sizes) -> Result<()> {
    let domain = DomId::new(domain).context("a domain's number")?;
    let granted = Granted::grant(domain, u32::try_from(sizes.pages())?)?;
    let references: Vec<u32> = granted.references().iter().map(|reference| reference.0).collect();
    let end = End::serve(granted, sizes, references[1..].iter().copied());
    let channel = Channel::listen(domain)?;
    println!("{} {}", references[0], channel.port().0);
    Ok(tcp::serve(Direct { end, channel })?)
}

/// Maps the rings and sends blocks.
pub(crate) fn push(domain: u16, ring: u32, port: u32, blocks: &Blocks) -> Result<()> {
    let domain = DomId::new(domain).context("a domain's number")?;
    let channel = Channel::bind(domain, Port(port))?;
    let mut memory = Mapping::reserve(1 + 512)?;
    memory.extend(domain, &[GrantRef(ring)], Protection::Write)?;
    let sizes = Sizes::announced(&memory).context("impossible sizes")?;
    let pages: Vec<_> = vchan::grants(&memory, sizes).map(GrantRef).collect();
    memory.extend(domain, &pages, Protection::Write)?;
    let end = End::connect(memory, sizes);
    channel.notify()?;
    tcp::send(Direct { end, channel }, blocks)
}

/// One end, as a stream of bytes.
struct Direct<M: Shared> {
    end: End<M>,
    channel: Channel,
}

impl<M: Shared> Direct<M> {
    fn tell(&mut self) -> io::Result<()> {
        if self.end.take_notify() { self.channel.notify() } else { Ok(()) }
    }

    fn wait(&self) -> io::Result<()> {
        let mut wanted = [PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
        poll(&mut wanted, PollTimeout::NONE)?;
        self.channel.take()?;
        Ok(())
    }
}

impl<M: Shared> Read for Direct<M> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.end.read(bytes).map_err(io::Error::other)?;
            if count > 0 {
                self.tell()?;
                return Ok(count);
            }
            if self.end.peer() == Peer::Gone {
                return Ok(0);
            }
            if !self.end.await_bytes(0).map_err(io::Error::other)? {
                self.wait()?;
            }
        }
    }
}

impl<M: Shared> Write for Direct<M> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let count = self.end.write(bytes).map_err(io::Error::other)?;
            if count > 0 {
                self.tell()?;
                return Ok(count);
            }
            if self.end.peer() == Peer::Gone {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if !self.end.await_room(0).map_err(io::Error::other)? {
                self.wait()?;
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<M: Shared> Drop for Direct<M> {
    fn drop(&mut self) {
        self.end.close();
        let _ = self.channel.notify();
    }
}
