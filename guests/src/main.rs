//! A small guest for the tests: a client of the host's Xenstore through its own ring, polite or
//! not as its command line says.
//!
//! | word | what the guest does after it has said hello |
//! | --- | --- |
//! | (none) | waits for `control/shutdown` and obeys |
//! | `bad-index` | claims more requests than a ring can hold |
//! | `oversize` | sends a header that announces more than a message may have |
//!
//! What it sees goes to port 0xe9 and its console, each line with `guest:` in front.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod hostile;
mod polite;

use log::LevelFilter;
use stubdom::platform::{Platform, read_options};
use xen_pvh_boot::BootInfo;
use xen_sys::console;
use xen_sys::sched::{self, Reason};

xen_pvh_boot::entry!(main: main, crash: crash);

fn main(boot: &'static BootInfo) -> ! {
    console::log_from(LevelFilter::Info);
    let mut act = None;
    let options = read_options(boot, |word| act = Some(word));
    let platform = Platform::start(boot, &options);
    match act {
        None => polite::run(&platform),
        Some("bad-index") => hostile::bad_index(&platform),
        Some("oversize") => hostile::oversize(&platform),
        Some(other) => panic!("no act is called {other:?}"),
    }
}

fn crash() -> ! {
    sched::shutdown(Reason::Crash)
}
