//! What CPUID tells about Xen (xen/include/public/arch-x86/cpuid.h).

use core::arch::x86_64::{__cpuid_count, CpuidResult};

use bitflags::bitflags;

use crate::ids::DomId;

bitflags! {
    /// Leaf base + 4, `eax`: `XEN_HVM_CPUID_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u32 {
        /// APIC registers are virtualised by hardware.
        const APIC_ACCESS_VIRT = 1 << 0;
        /// x2APIC registers are virtualised by hardware.
        const X2APIC_VIRT = 1 << 1;
        /// Grant mappings get an IOMMU entry.
        const IOMMU_MAPPINGS = 1 << 2;
        /// `ebx` of the leaf is this vCPU's id.
        const VCPU_ID_PRESENT = 1 << 3;
        /// `ecx` of the leaf is this domain's id.
        const DOMID_PRESENT = 1 << 4;
        /// Interrupt messages may carry more destination bits.
        const EXT_DEST_ID = 1 << 5;
        /// A vector per vCPU may announce events.
        const UPCALL_VECTOR = 1 << 6;
        /// What later versions of Xen define.
        const _ = !0;
    }
}

/// Xen's CPUID leaves, found.
///
/// Having one tells that the signature was seen and from which leaf on Xen answers.
#[derive(Clone, Copy, Debug)]
pub struct Xen {
    base: u32,
    last: u32,
    leaf: fn(u32, u32) -> CpuidResult,
}

impl Xen {
    /// Looks for Xen's signature in the hypervisor range, every 0x100 from 0x4000_0000.
    /// With viridian enabled it is not the first.
    #[must_use]
    pub fn find() -> Option<Self> {
        Self::find_by(__cpuid_count)
    }

    fn find_by(leaf: fn(u32, u32) -> CpuidResult) -> Option<Self> {
        (0x4000_0000..0x4001_0000u32).step_by(0x100).find_map(|base| {
            let answer = leaf(base, 0);
            let signature = [answer.ebx, answer.ecx, answer.edx].map(u32::to_le_bytes);
            let found = signature.as_flattened() == b"XenVMMXenVMM";
            found.then_some(Self { base, last: answer.eax, leaf })
        })
    }

    /// Xen's version as (major, minor).
    #[must_use]
    pub fn version(&self) -> (u16, u16) {
        let [major_high, major_low, minor_high, minor_low] =
            (self.leaf)(self.base + 1, 0).eax.to_be_bytes();
        (u16::from_be_bytes([major_high, major_low]), u16::from_be_bytes([minor_high, minor_low]))
    }

    /// The MSR that has Xen fill a hypercall page.
    #[must_use]
    pub fn hypercall_msr(&self) -> Option<u32> {
        let answer = (self.leaf)(self.base + 2, 0);
        (answer.eax > 0).then_some(answer.ebx)
    }

    /// What an HVM guest may use; empty where this Xen has no such leaf.
    #[must_use]
    pub fn features(&self) -> Features {
        Features::from_bits_retain(self.hvm_leaf().map_or(0, |leaf| leaf.eax))
    }

    /// This domain's id, where Xen tells it (4.16 and later);
    /// [`crate::event::own_domid`] finds it elsewhere.
    #[must_use]
    pub fn domid(&self) -> Option<DomId> {
        let told = self.features().contains(Features::DOMID_PRESENT);
        let raw = u16::try_from(self.hvm_leaf()?.ecx).ok()?;
        if told { DomId::new(raw) } else { None }
    }

    /// The time-stamp counter's frequency as Xen presents it to this domain, in kHz.
    #[must_use]
    pub fn tsc_khz(&self) -> u32 {
        (self.leaf)(self.base + 3, 0).ecx
    }

    fn hvm_leaf(&self) -> Option<CpuidResult> {
        (self.last >= self.base + 4).then(|| (self.leaf)(self.base + 4, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(eax: u32, ebx: u32, ecx: u32, edx: u32) -> CpuidResult {
        CpuidResult { eax, ebx, ecx, edx }
    }

    /// Xen 4.17 with viridian in front of it.
    fn with_viridian(leaf: u32, _: u32) -> CpuidResult {
        match leaf {
            0x4000_0000 => result(0x4000_0006, 0x7263_694d, 0x666f_736f, 0x7648_2074),
            0x4000_0100 => result(0x4000_0105, 0x566e_6558, 0x6558_4d4d, 0x4d4d_566e),
            0x4000_0101 => result(0x0004_0011, 0, 0, 0),
            0x4000_0102 => result(1, 0x4000_0200, 0, 0),
            0x4000_0103 => result(0, 0, 2_596_000, 0),
            0x4000_0104 => result(0x5c, 0, 7, 0),
            _ => result(0, 0, 0, 0),
        }
    }

    #[test]
    fn xen_is_found_behind_viridian() {
        let xen = Xen::find_by(with_viridian).expect("the signature is at base 0x40000100");
        assert_eq!(xen.version(), (4, 17));
        assert_eq!(xen.hypercall_msr(), Some(0x4000_0200));
        assert_eq!(xen.domid().map(DomId::raw), Some(7));
        assert!(xen.features().contains(Features::UPCALL_VECTOR));
        assert_eq!(xen.tsc_khz(), 2_596_000);
    }

    #[test]
    fn elsewhere_there_is_no_xen() {
        assert!(Xen::find_by(|_, _| result(0, 0, 0, 0)).is_none());
    }

    #[test]
    fn an_old_xen_does_not_tell_the_domid() {
        let old = |leaf: u32, sub: u32| match leaf {
            0x4000_0104 => result(0x0c, 0, 7, 0),
            _ => with_viridian(leaf, sub),
        };
        assert_eq!(Xen::find_by(old).and_then(|xen| xen.domid()), None);
    }
}
