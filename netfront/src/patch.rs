//! Two devices joined: what comes in at one goes out at the other, in the pages in which it came.
//!
//! It is how a switch of this domain gets an uplink: one device's backend is another domain's, the
//! other's is a port of the switch. A page is posted to be received in at one device, sent at the
//! other when there is a frame in it, and posted again when it was sent. So no byte is copied here,
//! and each direction has pages of its own, that both backends know by some reference.

use alloc::boxed::Box;
use core::fmt;

use xen_sys::page::Shared;

use crate::{Receiver, SLOTS, Sender, Vif, Violation};

/// Frames that go in one direction in a turn: then it is the other's, and that of whoever else is
/// served beside.
const TURN: usize = 64;

/// A page that travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// How the backend that fills it knows it.
    pub filled_as: u32,
    /// How the backend that it is sent to knows it.
    pub sent_as: u32,
}

/// What went in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Frames that were passed on.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames for which the other device had no slots.
    pub full: u64,
    /// Frames that did not come whole.
    pub lost: u64,
    /// Pages that the backend they were sent to did not take.
    pub refused: u64,
}

/// Which of the two devices broke the rules, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The outer one.
    Outer(Violation),
    /// The inner one.
    Inner(Violation),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outer(violation) => write!(f, "its backend: {violation}"),
            Self::Inner(violation) => write!(f, "the backend behind it: {violation}"),
        }
    }
}

/// Two devices, joined.
#[derive(Debug)]
pub struct Patch<P, Q> {
    outer: Vif<P>,
    inner: Vif<Q>,
    inward: Way,
    outward: Way,
}

/// What is to be done after a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Notify the outer device's backend.
    pub notify_outer: bool,
    /// Notify the inner device's backend.
    pub notify_inner: bool,
    /// Give it another turn: there is more, and no event will tell.
    pub has_more: bool,
}

impl<P: Shared, Q: Shared> Patch<P, Q> {
    /// Joins two devices whose rings are new; pages beyond what a ring holds wait for ever.
    #[must_use]
    pub fn new(outer: Vif<P>, inner: Vif<Q>, inward: Box<[Page]>, outward: Box<[Page]>) -> Self {
        let (inward, outward) = (Way::new(inward), Way::new(outward));
        let mut patch = Self { outer, inner, inward, outward };
        patch.inward.post_all(&mut patch.outer.receiver);
        patch.outward.post_all(&mut patch.inner.receiver);
        patch
    }

    /// What went from the outer device to the inner one.
    #[must_use]
    pub const fn inward(&self) -> Count {
        Count { lost: self.outer.receiver.lost(), ..self.inward.count }
    }

    /// What went from the inner device to the outer one.
    #[must_use]
    pub const fn outward(&self) -> Count {
        Count { lost: self.inner.receiver.lost(), ..self.outward.count }
    }

    /// Passes on what there is, a bounded amount; call it after an event of either device.
    ///
    /// # Errors
    /// [`Broken`], and both devices must be closed: their pages are with both.
    pub fn carry(&mut self) -> Result<Turn, Broken> {
        let Self { outer, inner, inward, outward } = self;
        let outer_broke = Broken::Outer;
        let inner_broke = Broken::Inner;
        inward.carry((&mut outer.receiver, outer_broke), (&mut inner.sender, inner_broke))?;
        outward.carry((&mut inner.receiver, inner_broke), (&mut outer.sender, outer_broke))?;
        let (notify_outer, notify_inner) = (outer.publish(), inner.publish());
        let has_more = outer.has_more().map_err(outer_broke)?;
        let has_more = inner.has_more().map_err(inner_broke)? || has_more;
        Ok(Turn { notify_outer, notify_inner, has_more })
    }

    /// The devices, to be closed, and the pages of either direction.
    pub fn part(self) -> (Vif<P>, Vif<Q>, [Box<[Page]>; 2]) {
        (self.outer, self.inner, [self.inward.pages, self.outward.pages])
    }
}

/// One direction.
#[derive(Debug)]
struct Way {
    pages: Box<[Page]>,
    count: Count,
}

/// Says of a violation which device did it.
type Blame = fn(Violation) -> Broken;

impl Way {
    fn new(pages: Box<[Page]>) -> Self {
        Self { pages, count: Count::default() }
    }

    fn post_all<P: Shared>(&self, from: &mut Receiver<P>) {
        (0..SLOTS).take(self.pages.len()).for_each(|page| self.post(page, from));
    }

    /// Posts a page that nobody has. There are no more of them than slots, so there is one.
    fn post<P: Shared>(&self, page: u16, from: &mut Receiver<P>) {
        let _ = from.post(page, self.pages[usize::from(page)].filled_as);
    }

    fn carry<P: Shared, Q: Shared>(
        &mut self,
        (from, from_broke): (&mut Receiver<P>, Blame),
        (to, to_broke): (&mut Sender<Q>, Blame),
    ) -> Result<(), Broken> {
        while let Some(sent) = to.take().map_err(to_broke)? {
            self.count.refused += u64::from(!sent.is_ok);
            self.post(sent.page, from);
        }
        for _ in 0..TURN {
            let Some(frame) = from.take().map_err(from_broke)? else { break };
            if to.put(&frame, |page| self.pages[usize::from(page)].sent_as).is_ok() {
                self.count.frames += 1;
                self.count.bytes += frame.len() as u64;
            } else {
                self.count.full += 1;
                frame.pieces.iter().for_each(|piece| self.post(piece.page, from));
            }
        }
        Ok(())
    }
}
