use core::fmt;

use xen_sys::grant::Status;
use xen_sys::ring::BadIndex;

/// What no honest frontend does. It ends the interface, and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An index of a ring cannot be.
    Index(BadIndex),
    /// The slots of a frame were not all there.
    CutChain,
    /// A frame has more slots than any may have.
    LongChain,
    /// A slot reaches beyond its page.
    OutsidePage,
    /// The slots of a frame are larger than the frame.
    Sizes,
    /// Extra information that was not offered, or makes no sense.
    Extra,
    /// A page that it names in a slot cannot be used.
    Page(Status),
}

impl From<BadIndex> for Violation {
    fn from(index: BadIndex) -> Self {
        Self::Index(index)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Index(index) => return index.fmt(f),
            Self::CutChain => "the ring ends in the middle of a frame",
            Self::LongChain => "a frame has too many slots",
            Self::OutsidePage => "a slot reaches beyond its page",
            Self::Sizes => "the slots of a frame are larger than the frame",
            Self::Extra => "extra information that was not offered",
            Self::Page(status) => return write!(f, "a page of a slot cannot be used: {status}"),
        })
    }
}

impl core::error::Error for Violation {}
