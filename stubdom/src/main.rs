//! The image: Xenstore for a whole host, or a driver domain, on bare Xen PVH.
//!
//! It owns every resource and wires the parts; what they decide is decided in the crates it joins.
//! The role comes from the command line: with `--event` it is the store, else a data domain.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod data;
mod store;

use log::LevelFilter;
use stubdom::options::Failure;
use stubdom::platform::{Platform, VERSION, read_options};
use xen_pvh_boot::{BootInfo, heap};
use xen_sys::console;
use xen_sys::hypercall;
use xen_sys::sched::{self, Reason};

xen_pvh_boot::entry!(main: main, crash: crash);

fn main(boot: &'static BootInfo) -> ! {
    console::log_from(LevelFilter::Info);
    let options = read_options(boot, |word| log::warn!("{word:?} is no option here; ignored"));
    let platform = Platform::start(boot, &options);
    let memory = heap::statistics();
    let role = if options.event.is_some() { "store" } else { "data" };
    log::info!(
        "stubdom {VERSION}, {role} role, on Xen {}; {} KiB of memory, {} KiB free; {:?} events, \
         hypercalls by {}",
        platform.xen,
        platform.memory / 1024,
        memory.free() / 1024,
        platform.events.borrow().abi(),
        hypercall::method(),
    );
    match options.failure {
        Some(Failure::Fault) => fault(),
        Some(Failure::Panic) => panic!("asked to by the command line"),
        None => {}
    }
    match options.event {
        Some(port) => store::run(platform, port),
        None => data::run(&platform, boot, options.net),
    }
}

fn crash() -> ! {
    sched::shutdown(Reason::Crash)
}

/// Overflows the stack: the page below it is the one that is certainly not there.
fn fault() -> ! {
    #[inline(never)]
    fn deeper(depth: u64) -> u64 {
        let frame = core::hint::black_box([depth; 64]);
        if depth == u64::MAX { 0 } else { deeper(depth + 1) + frame[0] }
    }
    panic!("the stack has no end: {}", deeper(0));
}
