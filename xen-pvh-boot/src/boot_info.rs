//! What Xen's domain builder tells a PVH domain, copied out of the start_info page.
//!
//! Layouts: xen/include/public/arch-x86/hvm/start_info.h. The builder puts start_info, command line
//! and memory map in the pages after the image, where the heap will be: everything is copied here
//! before anything else happens, only module contents stay in place.

use core::fmt;
use core::ops::Range;
#[cfg(not(test))]
use core::sync::atomic::{AtomicBool, Ordering};

use heapless::Vec;
use zerocopy::FromBytes;

/// Longest command line that is taken; init-xenstore-domain gives at most 511 bytes, xl 1,023.
pub const COMMAND_LINE_MAX: usize = 1024;
/// Modules that are taken; Xen's domain builder gives at most two.
pub const MODULES_MAX: usize = 4;
/// Memory map entries that are taken; libxl writes five.
pub const REGIONS_MAX: usize = 32;

/// Bytes in a page.
pub const PAGE: u64 = 4096;

const MAGIC: u32 = 0x336e_c578;

/// `struct hvm_start_info`, versions 0 (40 bytes) and 1.
#[derive(FromBytes, Clone, Copy, Default)]
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    nr_modules: u32,
    modlist_paddr: u64,
    cmdline_paddr: u64,
    rsdp_paddr: u64,
    memmap_paddr: u64,
    memmap_entries: u32,
    reserved: u32,
}
const _: () = assert!(size_of::<StartInfo>() == 56);

/// `struct hvm_modlist_entry`.
#[derive(FromBytes)]
#[repr(C)]
struct ModuleEntry {
    paddr: u64,
    size: u64,
    cmdline_paddr: u64,
    reserved: u64,
}
const _: () = assert!(size_of::<ModuleEntry>() == 32);

/// `struct hvm_memmap_table_entry`.
#[derive(FromBytes)]
#[repr(C)]
struct MemoryMapEntry {
    addr: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}
const _: () = assert!(size_of::<MemoryMapEntry>() == 24);

/// What a region of the memory map is for (`XEN_HVM_MEMMAP_TYPE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionKind {
    /// Usable memory.
    Ram,
    /// ACPI tables, reclaimable once they are read.
    Acpi,
    /// Anything else: reserved, non-volatile storage, unusable.
    Reserved,
}

/// One entry of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First byte, guest physical.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
    /// What it is for.
    pub kind: RegionKind,
}

/// A boot module (`ramdisk=` of an xl configuration, `--ramdisk` of init-xenstore-domain).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// First byte, guest physical.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
}

/// Why start_info cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadStartInfo {
    /// The page does not begin with the magic number; this is what stood there.
    Magic(u32),
    /// The address of what is named lies outside the first 4 GiB.
    Address(&'static str, u64),
}

impl fmt::Display for BadStartInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(found) => {
                write!(f, "start_info has magic {found:#x} instead of {MAGIC:#x}")
            }
            Self::Address(what, address) => {
                write!(f, "start_info puts the {what} at {address:#x}, above 4 GiB")
            }
        }
    }
}

/// Where the image lies, in guest physical memory.
#[derive(Clone, Debug)]
pub struct Image {
    /// What is never written: code and constants, in whole pages.
    pub constant: Range<u64>,
    /// What is, behind that: stack, with the page below it that is not mapped, data and .bss.
    pub written: Range<u64>,
}

impl Image {
    /// Whether an address is in it.
    pub fn contains(&self, address: u64) -> bool {
        self.constant.contains(&address) || self.written.contains(&address)
    }
}

/// All that the domain builder says.
#[derive(Debug)]
pub struct BootInfo {
    command_line: Vec<u8, COMMAND_LINE_MAX>,
    command_line_cut: bool,
    modules: Vec<Module, MODULES_MAX>,
    regions: Vec<Region, REGIONS_MAX>,
    image: Image,
}

impl BootInfo {
    /// Copies everything out of guest memory.
    ///
    /// `read` fills its buffer from a guest physical address below 4 GiB.
    ///
    /// # Errors
    /// [`BadStartInfo`] when `address` holds something else, or points outside memory.
    pub fn parse(
        address: u64,
        image: Image,
        read: impl Fn(u64, &mut [u8]),
    ) -> Result<Self, BadStartInfo> {
        let memory = Memory { read };
        let info: StartInfo = memory.load("start_info page", address, 0)?;
        if info.magic != MAGIC {
            return Err(BadStartInfo::Magic(info.magic));
        }
        // Version 0 ends before memmap_paddr. From init-xenstore-domain the map's address is set
        // and its length is 0, so it is the length that counts.
        let entries = if info.version == 0 { 0 } else { info.memmap_entries };
        let (command_line, command_line_cut) = memory.string(info.cmdline_paddr)?;

        Ok(Self {
            command_line,
            command_line_cut,
            modules: memory.modules(info.modlist_paddr, info.nr_modules)?,
            regions: memory.regions(info.memmap_paddr, entries)?,
            image,
        })
    }

    /// The command line, without a program name in front.
    pub fn command_line(&self) -> &[u8] {
        &self.command_line
    }

    /// Whether the command line was longer than [`COMMAND_LINE_MAX`] and its end is missing.
    pub fn command_line_was_cut(&self) -> bool {
        self.command_line_cut
    }

    /// The boot modules; their contents are left where the builder put them.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// Where module `index` lies, if all of it is behind the image and in the first `populated`
    /// pages of memory, as a builder puts it.
    fn module_range(&self, index: usize, populated: u64) -> Option<Range<u64>> {
        let module = self.modules.get(index)?;
        let end = module.start.checked_add(module.size)?;
        let inside =
            module.start >= self.image.written.end && end <= populated.saturating_mul(PAGE);
        inside.then_some(module.start..end)
    }

    /// What module `index` holds; `None` if there is no such module, or it is not where it can be.
    ///
    /// `populated` must be what Xen says, as for [`take_free_memory`](Self::take_free_memory).
    #[cfg(not(test))]
    pub fn module(&'static self, index: usize, populated: u64) -> Option<&'static [u8]> {
        let Range { start, end } = self.module_range(index, populated.min(0xf_c000))?;
        let (len, start) = (usize::try_from(end - start).ok()?, usize::try_from(start).ok()?);
        // SAFETY:
        // 1. Xen has populated these pages, and they are mapped onto themselves.
        // 2. They lie behind the image and before the free memory, so nobody ever writes there.
        Some(unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(start), len) })
    }

    /// The memory map; empty when init-xenstore-domain built the domain.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// [`memory_below`](Self::memory_below), [`memory_inside`](Self::memory_inside) and
    /// [`free_memory`](Self::free_memory); no two overlap.
    fn usable(&self, populated: u64) -> [Range<u64>; 3] {
        // Four GiB are mapped; the top holds special pages in any case.
        let behind = self.free_memory(populated.min(0xf_c000));
        [self.memory_below(), self.memory_inside(), behind]
    }

    /// How many bytes [`take_free_memory`](Self::take_free_memory) hands out.
    pub fn usable_memory(&self, populated: u64) -> u64 {
        let bytes = |range: Range<u64>| range.end.saturating_sub(range.start);
        self.usable(populated).into_iter().map(bytes).sum()
    }

    /// Hands out the memory that nothing is in, before, inside and behind the image, once: later
    /// calls get nothing.
    ///
    /// `populated` must be what Xen says (`XENMEM_current_reservation` less the special pages).
    #[cfg(not(test))]
    #[expect(
        clippy::mut_from_ref,
        reason = "the memory is not behind the reference, and goes once"
    )]
    pub fn take_free_memory(&'static self, populated: u64) -> [&'static mut [u8]; 3] {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::Relaxed) {
            return [&mut [], &mut [], &mut []];
        }
        self.usable(populated).map(|Range { start, end }| {
            let length = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
            let Ok(start) = usize::try_from(start) else { return &mut [][..] };
            if length == 0 {
                return &mut [];
            }
            let start = core::ptr::with_exposed_provenance_mut(start);
            // SAFETY:
            // 1. Xen has populated these pages, and they are mapped onto themselves.
            // 2. The image and its modules are not in them, and what start_info held was copied.
            // 3. They are handed out once, and no two overlap: parts of the image are in between.
            unsafe { core::slice::from_raw_parts_mut(start, length) }
        })
    }

    /// The memory before the image that it may use: all of it but page 0, which is not mapped.
    ///
    /// A domain without emulated devices has RAM there without a hole. The memory map, where there
    /// is one that makes sense, can only make it less.
    pub fn memory_below(&self) -> Range<u64> {
        self.unused(PAGE..self.image.constant.start)
    }

    /// The memory between the two parts of the image.
    pub fn memory_inside(&self) -> Range<u64> {
        self.unused(self.image.constant.end..self.image.written.start)
    }

    /// Pages before the end of the image, unless the builder put modules there.
    fn unused(&self, pages: Range<u64>) -> Range<u64> {
        let Range { start, end } = pages;
        if self.modules.iter().any(|module| module.start < self.image.written.end) {
            return start..start;
        }
        start..self.announced(start).min(end) / PAGE * PAGE
    }

    /// Where the RAM ends that holds `address`, as the memory map says; without limit if it says
    /// nothing of that address.
    fn announced(&self, address: u64) -> u64 {
        let end = |region: &Region| region.start.saturating_add(region.size);
        (self.regions.iter())
            .filter(|region| region.kind == RegionKind::Ram)
            .find(|region| (region.start..end(region)).contains(&address))
            .map_or(u64::MAX, end)
    }

    /// The memory an image may use: whole pages behind the image and its modules.
    ///
    /// `populated` is the number of pages that Xen says the domain has (without special pages),
    /// counted from address 0. The memory map, where there is one, can only make it less: up to
    /// Xen 4.18 init-xenstore-domain announces a wrong one, and RAM up to `maxmem` is announced
    /// although it is not there yet.
    ///
    /// The result is empty (`start >= end`) when there is no memory beyond the image.
    pub fn free_memory(&self, populated: u64) -> Range<u64> {
        let page_up = |bytes: u64| bytes.div_ceil(PAGE) * PAGE;
        let start = (self.modules.iter())
            .map(|module| module.start.saturating_add(module.size))
            .fold(self.image.written.end, u64::max);
        let end = populated.saturating_mul(PAGE).min(self.announced(start));
        page_up(start.min(u64::MAX - PAGE))..end / PAGE * PAGE
    }
}

/// Guest memory, read by copying.
struct Memory<R> {
    read: R,
}

impl<R: Fn(u64, &mut [u8])> Memory<R> {
    /// Copies element `index` of an array of `T` at `base`.
    fn load<T: FromBytes>(
        &self,
        what: &'static str,
        base: u64,
        index: u64,
    ) -> Result<T, BadStartInfo> {
        const LARGEST: usize = size_of::<StartInfo>();
        const { assert!(size_of::<T>() <= LARGEST) };
        let out_of_reach = BadStartInfo::Address(what, base);
        let address = (index.checked_mul(size_of::<T>() as u64))
            .and_then(|offset| base.checked_add(offset))
            .filter(|&address| address <= u64::from(u32::MAX) - LARGEST as u64)
            .ok_or(out_of_reach)?;

        let mut buffer = [0; LARGEST];
        let bytes = &mut buffer[..size_of::<T>()];
        (self.read)(address, bytes);
        // The buffer has T's size, so this cannot fail; if it did, the address would be to blame.
        T::read_from_bytes(bytes).map_err(|_| out_of_reach)
    }

    /// Copies a NUL-terminated string; says whether it had to be cut. Address 0 is no string.
    fn string(&self, address: u64) -> Result<(Vec<u8, COMMAND_LINE_MAX>, bool), BadStartInfo> {
        let mut out = Vec::new();
        if address == 0 {
            return Ok((out, false));
        }
        for index in 0.. {
            let byte: u8 = self.load("command line", address, index)?;
            if byte == 0 {
                break;
            }
            if out.push(byte).is_err() {
                return Ok((out, true));
            }
        }
        Ok((out, false))
    }

    fn modules(&self, base: u64, count: u32) -> Result<Vec<Module, MODULES_MAX>, BadStartInfo> {
        let mut out = Vec::new();
        for index in 0..u64::from(count) {
            let entry: ModuleEntry = self.load("module list", base, index)?;
            if out.push(Module { start: entry.paddr, size: entry.size }).is_err() {
                break;
            }
        }
        Ok(out)
    }

    fn regions(&self, base: u64, count: u32) -> Result<Vec<Region, REGIONS_MAX>, BadStartInfo> {
        let mut out = Vec::new();
        for index in 0..u64::from(count) {
            let entry: MemoryMapEntry = self.load("memory map", base, index)?;
            let kind = match entry.kind {
                1 => RegionKind::Ram,
                3 => RegionKind::Acpi,
                _ => RegionKind::Reserved,
            };
            if out.push(Region { start: entry.addr, size: entry.size, kind }).is_err() {
                break;
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: Image = Image { constant: 0x10_0000..0x12_0000, written: 0x14_0000..0x15_0000 };
    const START_INFO: u64 = 0x15_0000;

    /// Guest memory with a start_info page at 0x150000.
    struct Guest(std::vec::Vec<u8>);

    impl Guest {
        fn new() -> Self {
            let mut guest = Self(vec![0; 0x20_0000]);
            guest.put(START_INFO, &MAGIC.to_le_bytes());
            guest.put(START_INFO + 4, &1u32.to_le_bytes());
            guest
        }
        fn put(&mut self, at: u64, bytes: &[u8]) {
            let at = usize::try_from(at).unwrap();
            self.0[at..at + bytes.len()].copy_from_slice(bytes);
        }
        fn parse(&self) -> Result<BootInfo, BadStartInfo> {
            BootInfo::parse(START_INFO, IMAGE, |at, out| {
                for (i, byte) in (usize::try_from(at).unwrap()..).zip(out) {
                    *byte = self.0.get(i).copied().unwrap_or(0xff);
                }
            })
        }
        fn command_line(mut self, text: &[u8]) -> Self {
            self.put(START_INFO + 24, &(START_INFO + 0x100).to_le_bytes());
            self.put(START_INFO + 0x100, text);
            self
        }
        fn map(mut self, entries: &[(u64, u64, u32)]) -> Self {
            let table = START_INFO + 0x800;
            self.put(START_INFO + 40, &table.to_le_bytes());
            self.put(START_INFO + 48, &u32::try_from(entries.len()).unwrap().to_le_bytes());
            for (i, &(start, size, kind)) in entries.iter().enumerate() {
                let at = table + 24 * i as u64;
                self.put(at, &start.to_le_bytes());
                self.put(at + 8, &size.to_le_bytes());
                self.put(at + 16, &kind.to_le_bytes());
            }
            self
        }
    }

    #[test]
    fn xenstore_domain_has_a_command_line_and_no_map() {
        let guest = Guest::new().command_line(b"--event 14\0junk").map(&[]);
        let boot = guest.parse().unwrap();
        assert_eq!(boot.command_line(), b"--event 14");
        assert!(!boot.command_line_was_cut());
        assert!(boot.regions().is_empty());
        assert_eq!(boot.free_memory(2048), 0x15_0000..0x80_0000, "8 MiB by Xen's own count");
    }

    #[test]
    fn the_map_limits_what_the_reservation_promises() {
        let guest = Guest::new().map(&[
            (0, 0x100_0000, 1),
            (0xfeff_8000, 0x8000, 2),
            (0xfc00_0000, 0x1000, 3),
        ]);
        let boot = guest.parse().unwrap();
        assert_eq!(boot.memory_below(), 0x1000..0x10_0000, "all but the page that is not mapped");
        assert_eq!(boot.free_memory(0x1000 + 8).end, 0x100_0000, "special pages are no RAM");
        assert_eq!(boot.free_memory(0x800).end, 0x80_0000, "unpopulated RAM is no RAM");
        assert_eq!(boot.regions()[2].kind, RegionKind::Acpi);
    }

    #[test]
    fn a_nonsense_map_is_ignored() {
        // init-xenstore-domain --maxmem on Xen 4.17 announces 0x40 bytes of RAM.
        let boot = Guest::new().map(&[(0, 0x40, 1)]).parse().unwrap();
        assert_eq!(boot.memory_below(), 0x1000..0x10_0000);
        assert_eq!(boot.free_memory(2048), 0x15_0000..0x80_0000);
    }

    #[test]
    fn modules_are_kept_out_of_the_free_memory() {
        let mut guest = Guest::new();
        guest.put(START_INFO + 12, &1u32.to_le_bytes());
        guest.put(START_INFO + 16, &(START_INFO + 0x400).to_le_bytes());
        guest.put(START_INFO + 0x400, &0x15_1000u64.to_le_bytes());
        guest.put(START_INFO + 0x408, &0x1801u64.to_le_bytes());
        let boot = guest.parse().unwrap();
        assert_eq!(boot.modules(), [Module { start: 0x15_1000, size: 0x1801 }]);
        assert_eq!(boot.free_memory(2048), 0x15_3000..0x80_0000);
        assert_eq!(boot.module_range(0, 2048), Some(0x15_1000..0x15_2801));
        assert_eq!(boot.module_range(0, 0x152), None, "its end is not populated");
        assert_eq!(boot.module_range(1, 2048), None);
    }

    #[test]
    fn a_module_that_lies_where_none_can_is_not_read() {
        for (start, size) in [(0x14_f000_u64, 0x1000_u64), (0, 0x10), (0x15_1000, u64::MAX)] {
            let mut guest = Guest::new();
            guest.put(START_INFO + 12, &1u32.to_le_bytes());
            guest.put(START_INFO + 16, &(START_INFO + 0x400).to_le_bytes());
            guest.put(START_INFO + 0x400, &start.to_le_bytes());
            guest.put(START_INFO + 0x408, &size.to_le_bytes());
            assert_eq!(guest.parse().unwrap().module_range(0, 2048), None, "{start:#x}");
        }
    }

    #[test]
    fn memory_before_the_image_ends_where_the_map_or_a_module_says() {
        let boot = Guest::new().map(&[(0, 0xa_0000, 1), (0x10_0000, 0x100_0000, 1)]);
        let boot = boot.parse().unwrap();
        assert_eq!(boot.memory_below(), 0x1000..0xa_0000, "there is a hole");
        assert_eq!(boot.memory_inside(), 0x12_0000..0x14_0000, "none is in the image");
        assert_eq!(boot.free_memory(0x800), 0x15_0000..0x80_0000);
        let mut guest = Guest::new();
        guest.put(START_INFO + 12, &1u32.to_le_bytes());
        guest.put(START_INFO + 16, &(START_INFO + 0x400).to_le_bytes());
        guest.put(START_INFO + 0x400, &0x8000u64.to_le_bytes());
        guest.put(START_INFO + 0x408, &0x1000u64.to_le_bytes());
        let boot = guest.parse().unwrap();
        assert!(boot.memory_below().is_empty(), "a module is there");
        assert!(boot.memory_inside().is_empty(), "a module is somewhere before the image's end");
    }

    #[test]
    fn no_memory_behind_the_image_is_an_empty_range() {
        let boot = Guest::new().parse().unwrap();
        let free = boot.free_memory(0x100);
        assert!(free.is_empty(), "{free:x?}");
        assert_eq!(boot.usable_memory(0x100), 0xf_f000 + 0x2_0000, "what is before and inside it");
    }

    #[test]
    fn memory_of_all_three_places_counts() {
        let boot = Guest::new().parse().unwrap();
        assert_eq!(boot.usable_memory(0x800), 0xf_f000 + 0x2_0000 + (0x80_0000 - 0x15_0000));
        let behind = boot.usable_memory(u64::MAX) - (0xf_f000 + 0x2_0000);
        assert_eq!(behind, 0xfc00_0000 - 0x15_0000, "no more than is mapped");
    }

    #[test]
    fn a_command_line_without_end_is_cut_and_said() {
        let boot = Guest::new().command_line(&[b'x'; 2000]).parse().unwrap();
        assert_eq!(boot.command_line().len(), COMMAND_LINE_MAX);
        assert!(boot.command_line_was_cut());
    }

    #[test]
    fn what_is_not_start_info_is_named() {
        let mut guest = Guest::new();
        guest.put(START_INFO, &[0; 4]);
        assert_eq!(guest.parse().unwrap_err(), BadStartInfo::Magic(0));
        let mut guest = Guest::new();
        guest.put(START_INFO + 24, &u64::MAX.to_le_bytes());
        assert_eq!(guest.parse().unwrap_err(), BadStartInfo::Address("command line", u64::MAX));
        let mut guest = Guest::new();
        guest.put(START_INFO + 12, &u32::MAX.to_le_bytes());
        guest.put(START_INFO + 16, &0xffff_fff0u64.to_le_bytes());
        assert_eq!(guest.parse().unwrap_err(), BadStartInfo::Address("module list", 0xffff_fff0));
    }
}
