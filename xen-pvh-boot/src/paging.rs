//! Protections: `entry.s` mapped everything writable by large pages, this takes away what no
//! correct program needs.
//!
//! What is below the stack gets 4 KiB pages: code is executable and read-only, constants are
//! read-only, the page under the stack, which is the last of them, and page 0 are not mapped.
//! Everything else up to 4 GiB (stack, data, heap, special pages, the grant window) is in pages of
//! 2 MiB, writable and not executable.

use core::ops::Range;
use core::ptr::addr_of;

use spin::Mutex;
use x86_64::registers::control::{Cr3, Cr3Flags, Efer, EferFlags};
use x86_64::structures::paging::{PageTable, PageTableFlags as Flags, PhysFrame};
use x86_64::{PhysAddr, VirtAddr};

use crate::boot_info::Image;

const PAGE: u64 = 4096;
const LARGE_PAGE: u64 = 2 << 20;
/// The 4 KiB pages, as many tables of them as lie below the stack; `linker.ld` asserts that they
/// suffice.
static SMALL_PAGES: Mutex<[PageTable; 2]> = Mutex::new([const { PageTable::new() }; 2]);

unsafe extern "C" {
    static pvh_image_start: u8;
    static pvh_rodata_start: u8;
    static pvh_constants_end: u8;
    static pvh_stack_guard: u8;
    static pvh_stack_top: u8;
    static pvh_image_end: u8;
    static mut pvh_page_directories: [PageTable; 4];
    static pvh_page_root: PageTable;
}

/// Where the image lies, .bss and stack included.
pub(crate) fn image() -> Image {
    Image {
        constant: addr_of!(pvh_image_start) as u64..constants().end,
        written: stack_guard().start..addr_of!(pvh_image_end) as u64,
    }
}

/// The image's code.
pub(crate) fn text() -> Range<u64> {
    addr_of!(pvh_image_start) as u64..addr_of!(pvh_rodata_start) as u64
}

/// Its constants.
fn constants() -> Range<u64> {
    text().end..addr_of!(pvh_constants_end) as u64
}

/// The page that a stack overflow hits first.
pub(crate) fn stack_guard() -> Range<u64> {
    let start = addr_of!(pvh_stack_guard) as u64;
    start..start + PAGE
}

/// The stack of `main`.
pub(crate) fn stack() -> Range<u64> {
    stack_guard().end..addr_of!(pvh_stack_top) as u64
}

/// Puts the protections in force. Called once, before anything uses page 0 or the heap.
pub(crate) fn protect() {
    // SAFETY: turns on a meaning for bit 63 of entries that so far is clear in all of them.
    unsafe { Efer::update(|efer| efer.insert(EferFlags::NO_EXECUTE_ENABLE)) };

    let mut tables = SMALL_PAGES.lock();
    for (number, entry) in tables.iter_mut().flat_map(PageTable::iter_mut).enumerate() {
        let address = number as u64 * PAGE;
        if let Some(flags) = flags_of(address) {
            entry.set_addr(PhysAddr::new(address), flags);
        }
    }

    let directories = &raw mut pvh_page_directories;
    // SAFETY: the only other user was entry.s, and this is called once.
    let directories = unsafe { &mut *directories };
    for (number, entry) in directories.iter_mut().flat_map(PageTable::iter_mut).enumerate() {
        let address = number as u64 * LARGE_PAGE;
        match tables.get(number) {
            // Identity-mapped, so a table's address is its physical address.
            Some(table) if address < stack().start => entry.set_addr(
                PhysAddr::new(core::ptr::from_ref(table) as u64),
                Flags::PRESENT | Flags::WRITABLE,
            ),
            _ => entry.set_addr(
                PhysAddr::new(address),
                Flags::PRESENT | Flags::WRITABLE | Flags::HUGE_PAGE | Flags::NO_EXECUTE,
            ),
        }
    }

    let root = PhysFrame::containing_address(PhysAddr::new(addr_of!(pvh_page_root) as u64));
    // SAFETY: the same root as before, reloaded to drop stale translations; everything that runs
    // or is used (image, stack, memory) is still mapped onto itself.
    unsafe { Cr3::write(root, Cr3Flags::empty()) };
}

/// How the 4 KiB page at `address` is mapped; `None`: not at all.
fn flags_of(address: u64) -> Option<Flags> {
    if address == 0 || stack_guard().contains(&address) {
        None
    } else if text().contains(&address) {
        Some(Flags::PRESENT)
    } else if constants().contains(&address) {
        Some(Flags::PRESENT | Flags::NO_EXECUTE)
    } else {
        Some(Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE)
    }
}

/// What an address of a fault is, in words, when that explains the fault.
pub(crate) fn describe(address: VirtAddr) -> &'static str {
    let address = address.as_u64();
    if address < PAGE {
        "null pointer"
    } else if stack_guard().contains(&address) {
        "stack overflow"
    } else if image().contains(address) {
        "inside the image"
    } else {
        "outside the image"
    }
}
