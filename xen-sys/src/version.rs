//! Which Xen this is (xen/include/public/{version,features}.h).

use core::fmt;

use bitflags::bitflags;

use crate::hypercall::{self, Op};
use crate::ids::Errno;

const XENVER_VERSION: u64 = 0;
const XENVER_EXTRAVERSION: u64 = 1;
const XENVER_GET_FEATURES: u64 = 6;

/// The running Xen's version; prints as `4.17.7`, with the vendor's suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// As 4 in 4.17.
    pub major: u16,
    /// As 17 in 4.17.
    pub minor: u16,
    extra: [u8; 16],
}

impl Version {
    /// Asks Xen.
    ///
    /// # Errors
    /// As Xen refuses; it has no reason to.
    pub fn running() -> Result<Self, Errno> {
        // SAFETY: without an argument.
        let version = unsafe { hypercall::call(Op::XenVersion, [XENVER_VERSION, 0, 0]) }?;
        let mut extra = [0u8; 16];
        // SAFETY: `xen_extraversion_t` is 16 bytes.
        unsafe { hypercall::command(Op::XenVersion, XENVER_EXTRAVERSION, &mut extra) }?;
        let [.., major_high, major_low, minor_high, minor_low] = version.to_be_bytes();
        Ok(Self {
            major: u16::from_be_bytes([major_high, major_low]),
            minor: u16::from_be_bytes([minor_high, minor_low]),
            extra,
        })
    }

    /// What follows the minor number: `.7` and a vendor's suffix.
    #[must_use]
    pub fn extra(&self) -> &str {
        let text = self.extra.split(|&byte| byte == 0).next().unwrap_or(&[]);
        str::from_utf8(text).unwrap_or("?")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}{}", self.major, self.minor, self.extra())
    }
}

bitflags! {
    /// `XENFEAT_*` of submap 0, those that mean something to a PVH guest.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u32 {
        /// Guest frames are translated by Xen.
        const AUTO_TRANSLATED_PHYSMAP = 1 << 2;
        /// Events can be announced at a vector.
        const HVM_CALLBACK_VECTOR = 1 << 8;
        /// The clock of shared_info is usable by an HVM guest.
        const HVM_SAFE_PVCLOCK = 1 << 9;
        /// This domain controls the hardware.
        const DOM0 = 1 << 11;
        /// What the header defines besides.
        const _ = !0;
    }
}

#[repr(C)]
struct FeatureInfo {
    submap_idx: u32,
    submap: u32,
}

/// Asks Xen for its features.
///
/// # Errors
/// As Xen refuses; it has no reason to.
pub fn features() -> Result<Features, Errno> {
    let mut info = FeatureInfo { submap_idx: 0, submap: 0 };
    // SAFETY: `struct xen_feature_info`.
    unsafe { hypercall::command(Op::XenVersion, XENVER_GET_FEATURES, &mut info) }?;
    Ok(Features::from_bits_retain(info.submap))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypercall::fake;

    #[test]
    fn debians_xen_prints_as_it_prints_itself() {
        fake::install(|op, [command, arg, _]| {
            assert_eq!(op, Op::XenVersion);
            match command {
                XENVER_VERSION => 0x4_0011,
                XENVER_EXTRAVERSION => {
                    // SAFETY: `running` passes 16 bytes.
                    unsafe { (arg as *mut [u8; 16]).write(*b".7\0garbage\0after") };
                    0
                }
                _ => -38,
            }
        });
        assert_eq!(Version::running().unwrap().to_string(), "4.17.7");
    }
}
