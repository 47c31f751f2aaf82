//! The releases of Xen that a lab can be made of, and which Debian has each.

use core::fmt;

use clap::ValueEnum;

/// A release of Xen; its tools, its Linux and its QEMU are of the same release of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Release {
    /// Debian 12's
    #[value(name = "4.17")]
    Xen4_17,
    /// Debian 13's
    #[value(name = "4.20")]
    Xen4_20,
}

impl Release {
    /// As Xen's folders and commands name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Xen4_17 => "4.17",
            Self::Xen4_20 => "4.20",
        }
    }

    /// The suite of Debian's archive that has it.
    pub(crate) fn suite(self) -> &'static str {
        match self {
            Self::Xen4_17 => "bookworm",
            Self::Xen4_20 => "trixie",
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
