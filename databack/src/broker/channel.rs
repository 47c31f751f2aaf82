//! A channel: one ring, and what it is for.

use xen_sys::ids::DomId;
use xen_sys::page::Shared;

use super::session::Session;
use super::{ChannelId, Turn, Violation};
use crate::ask::Application;
use crate::frame::{self, Notice};
use crate::vchan::End;

/// Bytes that one turn echoes or moves along a stream at most.
pub(super) const TURN_BYTES: usize = 256 << 10;

/// Bytes of a front's ring that blocks and messages leave free for answers.
pub(super) const RESERVE: usize = 512;

#[derive(Debug)]
pub(super) struct Channel<M> {
    pub(super) end: End<M>,
    pub(super) domain: DomId,
    pub(super) purpose: Purpose,
    /// Whether it is among those that have something to be written.
    pub(super) ready: bool,
    /// Whether it is among those whose rings may have moved.
    pub(super) moved: bool,
    /// Whether its peer has to be told in any case.
    pub(super) parting: bool,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most channels are for services")]
pub(super) enum Purpose {
    Services(Session),
    Echo,
    Stream {
        name: Application,
        partner: Option<ChannelId>,
    },
    /// It ended and is to be closed.
    Over,
}

impl<M: Shared> Channel<M> {
    pub(super) const fn new(end: End<M>, domain: DomId, purpose: Purpose) -> Self {
        Self { end, domain, purpose, ready: false, moved: false, parting: false }
    }

    pub(super) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.purpose {
            Purpose::Services(session) => Some(session),
            _ => None,
        }
    }

    /// Writes a frame; false if there is no room for all of it now.
    pub(super) fn put(&mut self, notice: &Notice<'_>, payload: &[u8]) -> Result<bool, Violation> {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let head = frame::encode(notice, length).expect("a notice of ours has room in a head");
        if self.end.room()? < head.bytes().len() + payload.len() {
            return Ok(false);
        }
        // A peer whose index goes back in between has less room than it said, and a broken frame.
        self.end.write(head.bytes())?;
        self.end.write(payload)?;
        Ok(true)
    }

    /// Gives back what came.
    pub(super) fn echo(&mut self) -> Result<Turn, Violation> {
        if self.end.echo(TURN_BYTES)? == TURN_BYTES {
            return Ok(Turn::More);
        }
        let waiting = self.end.available()?;
        let more = if waiting > 0 {
            let room = self.end.room()?;
            room > 0 || self.end.await_room(room)?
        } else {
            self.end.await_bytes(waiting)?
        };
        Ok(if more { Turn::More } else { Turn::Waits })
    }
}
