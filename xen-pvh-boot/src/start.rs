//! The first Rust after `entry.s`, the panic report, and waiting.

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Once;

use crate::debug_port::DebugPort;
use crate::{BootInfo, paging, traps};

core::arch::global_asm!(include_str!("entry.s"));

unsafe extern "Rust" {
    // Defined by `entry!` in the image.
    safe fn pvh_main(boot: &'static BootInfo) -> !;
    safe fn pvh_crash() -> !;
}

unsafe extern "C" {
    /// Opens interrupts, halts, closes them (`entry.s`).
    fn pvh_idle();

    /// Raises upcalls where none should come; 1 if they left no trace (`entry.s`).
    fn pvh_try_upcalls() -> u32;

    /// The time-stamp counter at the first instruction; written before any Rust runs.
    static pvh_entry_counter: u64;
}

static BOOT_INFO: Once<BootInfo> = Once::new();

/// `entry.s` calls this in long mode, on the final stack, with the address of start_info.
#[unsafe(no_mangle)]
extern "C" fn pvh_start(start_info: u64) -> ! {
    traps::load();
    // Before page 0 goes away: Xen puts start_info behind the image, but QEMU's loader down there.
    let boot = BootInfo::parse(start_info, paging::image(), read_physical);
    paging::protect();
    match boot {
        Ok(boot) => pvh_main(BOOT_INFO.call_once(|| boot)),
        Err(error) => {
            // The sink cannot fail.
            let _ = writeln!(DebugPort, "FATAL: {error}");
            crash()
        }
    }
}

/// Copies guest physical memory below 4 GiB; what is not RAM reads as 0xff.
fn read_physical(address: u64, out: &mut [u8]) {
    for (address, byte) in (address..).zip(out) {
        let from = address as *const u8;
        // SAFETY: everything up to 4 GiB is still mapped, and `BootInfo` asks for nothing above.
        // Any bit pattern is a byte.
        *byte = unsafe { from.read_volatile() };
    }
}

/// Tells Xen that the domain has crashed.
pub(crate) fn crash() -> ! {
    pvh_crash()
}

/// Prints where and why on port 0xe9, then crashes the domain. The image's panic handler.
pub fn report_panic(info: &PanicInfo<'_>) -> ! {
    static PANICKING: AtomicBool = AtomicBool::new(false);
    // A panic while printing a panic ends at once.
    if !PANICKING.swap(true, Ordering::Relaxed) {
        // The sink cannot fail.
        let _ = writeln!(DebugPort, "\nFATAL: {info}");
        // Where the panic began: the library's own place says little.
        traps::call_sites(&mut DebugPort, core::ptr::from_ref(&info) as u64);
    }
    crash()
}

/// What the time-stamp counter was at the domain's first instruction.
pub fn entry_counter() -> u64 {
    // SAFETY: `entry.s` defines it, wrote it before it called us, and nothing writes it again.
    unsafe { pvh_entry_counter }
}

/// Sleeps until an event is pending whose upcall is not masked.
///
/// Call it with interrupts off (they always are) after looking for pending events: one that comes
/// between that look and the sleep ends the sleep at once. The upcall flag of the vCPU stays set;
/// whoever scans the ports clears it.
pub fn idle() {
    // SAFETY: takes nothing and returns; the upcall handler, the only code that can run meanwhile,
    // changes no register but the flags, and writes to its own stack.
    unsafe { pvh_idle() };
}

/// Whether an upcall that comes although interrupts are off, as under QEMU's emulation of SVM, leaves
/// what it interrupts as it was. Test guests ask; [`idle`] counts on it.
pub fn upcalls_leave_no_trace() -> bool {
    // SAFETY: takes nothing and returns, with the stack and the registers that a call preserves as
    // they were.
    unsafe { pvh_try_upcalls() == 1 }
}
