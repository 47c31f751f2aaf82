//! From Xen's PVH entry point to `main(&BootInfo) -> !`.
//!
//! | step | where |
//! | --- | --- |
//! | 32-bit entry, identity map of 4 GiB, SSE, long mode | `entry.s` |
//! | start_info becomes [`BootInfo`] | [`boot_info`] |
//! | own GDT, TSS, IDT; what a fault prints | `traps` |
//! | code read-only, data not executable, guard page, no page 0 | `paging` |
//! | page frames and the heap | [`heap`] |
//! | waiting | [`idle`] |
//!
//! # The one rule of concurrency
//!
//! There is one vCPU, and interrupts are open at a single instruction, the `hlt` of [`idle`]. The
//! upcall handler has a stack of its own and touches no other memory. So nothing of an image ever runs
//! concurrently with anything else of it, and the red zone that the prebuilt `core` uses is safe.
//! The spin locks in this workspace exist because Rust wants statics to be `Sync`; they are never
//! contended.
//!
//! # An image
//!
//! ```text
//! xen_pvh_boot::entry!(main: main, crash: crash);
//!
//! fn main(boot: &'static BootInfo) -> ! { … }  // on a stack of 128 KiB above a guard page
//! fn crash() -> ! { … }                        // tells Xen that the domain has crashed
//! ```
//!
//! The image's `linker.ld` defines the symbols that `paging` and `boot_info` use.
//!
//! With the feature `host` there is nothing of this but the heap, for programs that measure it.
#![cfg_attr(not(any(test, feature = "host")), no_std)]

pub mod boot_info;
pub mod debug_port;
pub mod heap;
mod memory;
#[cfg(any(doc, not(any(test, feature = "host"))))]
mod paging;
#[cfg(any(doc, not(any(test, feature = "host"))))]
mod start;
#[cfg(any(doc, not(any(test, feature = "host"))))]
mod traps;

pub use boot_info::{BootInfo, Module, Region, RegionKind};

/// Vector at which event upcalls must arrive; what the image sets as `HVM_PARAM_CALLBACK_IRQ`.
pub const UPCALL_VECTOR: u8 = 0x20;

#[cfg(any(doc, not(any(test, feature = "host"))))]
pub use start::{entry_counter, idle, report_panic, upcalls_leave_no_trace};

/// Defines the symbols by which this crate reaches an image: its `main`, its way to crash, the
/// global allocator and the panic handler.
///
/// `main: fn(&'static BootInfo) -> !` runs once, with interrupts off and an empty heap.
/// `crash: fn() -> !` must work at any time from the first instruction on, without the heap.
///
/// A macro, because these four can only be defined in the final crate.
#[macro_export]
macro_rules! entry {
    (main: $main:path, crash: $crash:path) => {
        #[global_allocator]
        static HEAP: $crate::heap::Heap = $crate::heap::Heap;

        #[unsafe(no_mangle)]
        extern "Rust" fn pvh_main(boot: &'static $crate::BootInfo) -> ! {
            $main(boot)
        }

        #[unsafe(no_mangle)]
        extern "Rust" fn pvh_crash() -> ! {
            $crash()
        }

        #[panic_handler]
        fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
            $crate::report_panic(info)
        }
    };
}
