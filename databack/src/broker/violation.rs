//! What ends a channel.

use core::fmt;

use xen_sys::ring::BadIndex;

use crate::frame::Malformed;

/// What no honest front does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// It wrote an index that cannot be.
    Index(BadIndex),
    /// It wrote what is no frame.
    Frame(Malformed),
    /// It said something before it greeted, or greeted twice, or in a version that there is not.
    Greeting,
    /// It sent more of a block than the block has or it had credit for.
    Overrun,
    /// It used an id that it has in use.
    Id,
    /// A reply or a message is longer than may be, or something has a payload that has none.
    Payload,
}

/// Why a channel is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its peer closed it.
    Closed,
    /// The other end of the stream closed it.
    Partner,
    /// The policy no longer allows it.
    Denied,
    /// Its peer misbehaved.
    Violation(Violation),
}

/// How often each was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) index: u64,
    pub(super) frame: u64,
    pub(super) greeting: u64,
    pub(super) overrun: u64,
    pub(super) id: u64,
    pub(super) payload: u64,
}

impl Counts {
    /// Each with its name.
    pub(super) const fn named(&self) -> [(&'static str, u64); 6] {
        let Self { index, frame, greeting, overrun, id, payload } = *self;
        [
            ("index", index),
            ("frame", frame),
            ("greeting", greeting),
            ("overrun", overrun),
            ("id", id),
            ("payload", payload),
        ]
    }

    pub(super) fn count(&mut self, violation: Violation) {
        *match violation {
            Violation::Index(_) => &mut self.index,
            Violation::Frame(_) => &mut self.frame,
            Violation::Greeting => &mut self.greeting,
            Violation::Overrun => &mut self.overrun,
            Violation::Id => &mut self.id,
            Violation::Payload => &mut self.payload,
        } += 1;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, count)) in self.named().into_iter().enumerate() {
            let before = if number == 0 { "" } else { ", " };
            write!(f, "{before}{name} {count}")?;
        }
        Ok(())
    }
}

impl From<BadIndex> for Violation {
    fn from(bad: BadIndex) -> Self {
        Self::Index(bad)
    }
}

impl From<Malformed> for Violation {
    fn from(malformed: Malformed) -> Self {
        Self::Frame(malformed)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(bad) => bad.fmt(f),
            Self::Frame(malformed) => malformed.fmt(f),
            Self::Greeting => f.write_str("no greeting where one belongs"),
            Self::Overrun => f.write_str("more of a block than there is or was asked for"),
            Self::Id => f.write_str("an id that is in use"),
            Self::Payload => f.write_str("a payload that cannot be"),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by its peer"),
            Self::Partner => f.write_str("the other end of the stream is closed"),
            Self::Denied => f.write_str("no longer allowed by the policy"),
            Self::Violation(violation) => write!(f, "its peer misbehaved: {violation}"),
        }
    }
}
