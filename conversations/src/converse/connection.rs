//! A connection of dom0's: an open file of its kernel's, or a socket of a daemon's. Both carry the
//! frames of the protocol as they are.

use core::time::Duration;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use conversations::world::{ERROR, Frame, Mailbox, Open, Wanted};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long anybody waits for what is to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Where dom0's programs reach the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// `/dev/xen/xenbus`: dom0's kernel gives the requests of all its programs to the store as its
    /// own, gives them their answers and events, and adapts some of them.
    Kernel,
    /// The socket of a daemon, which takes each program as a client of its own.
    Socket,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    file: File,
}

impl Connection {
    /// Opens a fresh one.
    pub(crate) fn open(door: Door) -> Result<Self, String> {
        let file = match door {
            Door::Kernel => OpenOptions::new().read(true).write(true).open("/dev/xen/xenbus"),
            Door::Socket => {
                UnixStream::connect("/run/xenstored/socket").map(|s| OwnedFd::from(s).into())
            }
        };
        Ok(Self { file: file.map_err(|e| format!("the store cannot be reached: {e}"))? })
    }

    /// Says these bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.file.write_all(bytes).map_err(|e| format!("dom0's request was not taken: {e}"))
    }

    /// Puts what comes within `patience` into the mailbox; says whether anything came.
    pub(crate) fn receive(
        &mut self,
        mailbox: &mut Mailbox,
        patience: Duration,
    ) -> Result<bool, String> {
        if !is_readable(&self.file, patience)? {
            return Ok(false);
        }
        let mut bytes = [0; 8192];
        let count = self.file.read(&mut bytes).map_err(|e| format!("dom0 cannot read: {e}"))?;
        if count == 0 {
            return Err("the store closed dom0's connection".to_owned());
        }
        mailbox.receive(&bytes[..count])?;
        Ok(true)
    }
}

/// Whether something can be read within that time.
pub(crate) fn is_readable(file: &impl AsFd, patience: Duration) -> Result<bool, String> {
    let timeout = PollTimeout::try_from(patience).map_err(|e| e.to_string())?;
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, timeout).map_err(|e| format!("cannot wait: {e}"))? > 0)
}

/// A connection for what no conversation says: preparing guests, putting things back, waiting.
#[derive(Debug)]
pub(crate) struct Toolstack {
    connection: Connection,
    mailbox: Mailbox,
    door: Door,
}

impl Toolstack {
    pub(crate) fn open(door: Door) -> Result<Self, String> {
        let mut mailbox = Mailbox::default();
        mailbox.two_queues = true;
        Ok(Self { connection: Connection::open(door)?, mailbox, door })
    }

    /// Asks and waits for the answer, errors of the store included.
    pub(crate) fn ask(&mut self, kind: u32, words: &[&[u8]]) -> Result<Frame, String> {
        let payload: Vec<u8> = words.iter().flat_map(|word| [word, &b"\0"[..]].concat()).collect();
        self.ask_raw(kind, &payload)
    }

    fn ask_raw(&mut self, kind: u32, payload: &[u8]) -> Result<Frame, String> {
        let open = Open { kind, req_id: self.mailbox.fresh_req_id(), tx_id: 0 };
        let len = u32::try_from(payload.len()).map_err(|e| e.to_string())?;
        self.connection.send(&[&open.header(len)[..], payload].concat())?;
        self.take(Wanted::Answer)
    }

    fn take(&mut self, wanted: Wanted) -> Result<Frame, String> {
        loop {
            if let Some(frame) = self.mailbox.take(wanted) {
                return Ok(frame);
            }
            if !self.connection.receive(&mut self.mailbox, PATIENCE)? {
                return Err("the store does not answer dom0".to_owned());
            }
        }
    }

    /// The strings of an answer; `None` if it is an error.
    pub(crate) fn strings(
        &mut self,
        kind: u32,
        words: &[&[u8]],
    ) -> Result<Option<Vec<Vec<u8>>>, String> {
        let frame = self.ask(kind, words)?;
        if frame.kind == ERROR {
            return Ok(None);
        }
        let strings = frame.payload.split_inclusive(|&byte| byte == 0);
        Ok(Some(strings.map(|s| s.strip_suffix(b"\0").unwrap_or(s).to_vec()).collect()))
    }

    /// The value of a node, if it is there.
    pub(crate) fn read(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let frame = self.ask(READ, &[path])?;
        Ok((frame.kind != ERROR).then_some(frame.payload))
    }

    /// Writes a node.
    pub(crate) fn write(&mut self, path: &[u8], value: &[u8]) -> Result<(), String> {
        let frame = self.ask_raw(WRITE, &[path, b"\0", value].concat())?;
        done("WRITE", path, &frame)
    }

    /// Removes a node.
    pub(crate) fn remove(&mut self, path: &[u8]) -> Result<(), String> {
        let frame = self.ask(RM, &[path])?;
        done("RM", path, &frame)
    }

    /// Returns when the store has dealt with all that it was sent before, and dom0's programs have
    /// what came of it.
    ///
    /// The kernel hands answers over as they come but events in their own time, one after the
    /// other: the first event of a new watch tells that those before it are with their owners. A
    /// daemon looks at one request of each connection in turn; in the third round, what the first
    /// one found is done and written.
    pub(crate) fn barrier(&mut self) -> Result<(), String> {
        match self.door {
            Door::Kernel => {
                let watch = [&b"@converse"[..], b"barrier"];
                done("WATCH", watch[0], &self.ask(WATCH, &watch)?)?;
                self.take(Wanted::Event)?;
                done("UNWATCH", watch[0], &self.ask(UNWATCH, &watch)?)
            }
            Door::Socket => {
                for _ in 0..3 {
                    self.ask(GET_DOMAIN_PATH, &[b"0"])?;
                }
                Ok(())
            }
        }
    }
}

fn done(what: &str, path: &[u8], frame: &Frame) -> Result<(), String> {
    if frame.kind != ERROR {
        return Ok(());
    }
    let (path, answer) = (path.escape_ascii(), frame.payload.escape_ascii());
    Err(format!("dom0's own {what} {path} was answered with {answer}"))
}

/// `XS_DIRECTORY` of xen/include/public/io/xs_wire.h.
pub(crate) const DIRECTORY: u32 = 1;
const READ: u32 = 2;
/// `XS_GET_PERMS`.
pub(crate) const GET_PERMS: u32 = 3;
const WATCH: u32 = 4;
const UNWATCH: u32 = 5;
const GET_DOMAIN_PATH: u32 = 10;
const WRITE: u32 = 11;
const RM: u32 = 13;
/// `XS_SET_PERMS`.
pub(crate) const SET_PERMS: u32 = 14;
