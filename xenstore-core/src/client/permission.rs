//! Permissions as clients write and read them.

use core::fmt::{self, Write as _};

use crate::host::DomId;

/// What an entry allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    None,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Both.
    Both,
}

impl Access {
    /// Returns the letter that stands for it on the wire.
    pub const fn letter(self) -> char {
        match self {
            Self::None => 'n',
            Self::Read => 'r',
            Self::Write => 'w',
            Self::Both => 'b',
        }
    }
}

/// One entry of a node's list. The first names the owner, and what everybody may whom no later
/// entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What the entry allows.
    pub access: Access,
    /// To whom.
    pub domain: DomId,
}

impl Permission {
    /// Combines the two.
    pub const fn new(access: Access, domain: DomId) -> Self {
        Self { access, domain }
    }

    /// Reads one entry as a server writes it: a letter and a decimal domain id.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let (letter, number) = text.split_first()?;
        let access = match letter {
            b'n' => Access::None,
            b'r' => Access::Read,
            b'w' => Access::Write,
            b'b' => Access::Both,
            _ => return None,
        };
        let number = core::str::from_utf8(number).ok()?;
        Some(Self::new(access, DomId(number.parse().ok()?)))
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char(self.access.letter())?;
        self.domain.fmt(f)
    }
}
