//! Events that wait: notes of whom to tell what, which become frames when there is room.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;

use zerocopy::IntoBytes;

use crate::watch::{WatchId, Watches};
use crate::wire::{HEADER_SIZE, Header, Op};

/// An event that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) watch: WatchId,
    /// The number of the event that was noted before it for the same watch.
    pub(super) previous: u32,
    /// It comes after so many bytes of replies, counted like `base`.
    pub(super) at: u32,
    /// The length of its payload.
    pub(super) len: u16,
    /// The length of the path that changed, where its owner left nothing out.
    pub(super) told: u16,
    pub(super) what: What,
}

/// What an event tells.
#[derive(Debug)]
pub(super) enum What {
    /// The watch's own path.
    Own,
    /// A path that begins so, and is shared with others who hear of the same.
    Path(Rc<[u8]>),
    /// Its watch is no more.
    Orphan(Box<Orphan>),
}

/// What an event needs of a watch that is gone.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) path: Rc<[u8]>,
    pub(super) implied: usize,
    pub(super) token: Rc<[u8]>,
}

impl Waiting {
    /// Whether it tells that path, to a watch whose own path is so long.
    pub(super) fn tells(&self, path: &[u8], own: usize) -> bool {
        if usize::from(self.told) != path.len() {
            return false;
        }
        match &self.what {
            What::Own => path.len() == own,
            What::Path(told) => told.get(..path.len()) == Some(path),
            What::Orphan(_) => false,
        }
    }

    /// Appends the event's frame.
    pub(super) fn extend(&self, out: &mut Vec<u8>, watches: &Watches) {
        let header = Header::new(Op::WatchEvent.to_wire(), 0, 0, self.len.into());
        out.reserve(HEADER_SIZE + usize::from(self.len));
        out.extend_from_slice(header.as_bytes());
        let told = usize::from(self.told);
        if let What::Orphan(orphan) = &self.what {
            let path = orphan.path.get(orphan.implied..told).unwrap_or_default();
            return extend_strings(out, path, &orphan.token);
        }
        let Some(watch) = watches.watch(self.watch) else { return };
        if let What::Path(path) = &self.what {
            let path = path.get(watch.implied()..told).unwrap_or_default();
            return extend_strings(out, path, watch.token());
        }
        let start = out.len();
        watches.extend_path(watch, out);
        out.drain(start..start + watch.implied());
        extend_strings(out, &[], watch.token());
    }
}

fn extend_strings(out: &mut Vec<u8>, path: &[u8], token: &[u8]) {
    out.extend_from_slice(path);
    out.push(0);
    out.extend_from_slice(token);
    out.push(0);
}

pub(super) fn frame_len(payload: u16) -> u32 {
    u32::from(payload) + small(HEADER_SIZE)
}

/// No more than a backlog is counted.
pub(super) fn small(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// No more than a frame is counted.
pub(super) fn narrow(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
