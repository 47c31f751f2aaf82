//! The events of all channels: whose a port is, and who has something to do.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use databack::broker::ChannelId;
use xen_sys::event::Channel;
use xen_sys::ids::Port;

/// A channel's events.
pub(super) struct Line {
    pub(super) id: ChannelId,
    pub(super) channel: Channel,
    /// It is among those with something to do.
    pub(super) is_ready: bool,
}

/// The lines of all channels, by the channel's number and by the port's, which are both dense.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) by_channel: Vec<Option<Line>>,
    by_port: Vec<Option<ChannelId>>,
}

impl Lines {
    pub(super) fn insert(&mut self, line: Line) {
        let (id, port) = (line.id, line.channel.port());
        *place(&mut self.by_port, port.0 as usize) = Some(id);
        *place(&mut self.by_channel, id.index()) = Some(line);
    }

    pub(super) fn remove(&mut self, id: ChannelId) -> Option<Line> {
        let line = self.by_channel.get_mut(id.index())?.take_if(|line| line.id == id)?;
        *place(&mut self.by_port, line.channel.port().0 as usize) = None;
        Some(line)
    }

    pub(super) fn at(&self, port: Port) -> Option<ChannelId> {
        *self.by_port.get(port.0 as usize)?
    }

    pub(super) fn find(&mut self, id: ChannelId) -> Option<&mut Line> {
        self.by_channel.get_mut(id.index())?.as_mut().filter(|line| line.id == id)
    }

    /// Puts a channel behind those with something to do, unless it is there.
    pub(super) fn enlist(&mut self, id: ChannelId, ready: &mut VecDeque<ChannelId>) {
        if let Some(line) = self.find(id).filter(|line| !line.is_ready) {
            line.is_ready = true;
            ready.push_back(id);
        }
    }
}

/// An entry of a table that grows when it has to.
pub(super) fn place<T>(table: &mut Vec<Option<T>>, index: usize) -> &mut Option<T> {
    if table.len() <= index {
        table.resize_with(index + 1, || None);
    }
    &mut table[index]
}
