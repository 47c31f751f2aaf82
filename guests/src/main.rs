//! A small guest for the tests: a client of the host's Xenstore through its own ring, polite or
//! not as its command line says.
//!
//! | words | what the guest does after it has said hello |
//! | --- | --- |
//! | (none) | waits for `control/shutdown` and obeys |
//! | `measure` | as above, and measures the store when `data/measure` asks for it |
//! | `meter` | measures how fast the store is, as [`meter`] tells |
//! | `echo` | serves a ring of another guest's, as [`echo`] tells |
//! | `ACT [then=END]` | an act of [`hostile`], which may end in `crash` or `poweroff` |
//!
//! One word makes another guest of it, which says nothing by itself:
//!
//! | `relay` | moves bytes between its console and its Xenstore ring, as [`relay`] tells |
//! | --- | --- |
//!
//! What it sees goes to port 0xe9 and its console, each line with `guest:` in front.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod blocks;
mod channel;
mod echo;
mod honest;
mod hostile;
mod line;
mod meter;
mod noise;
mod polite;
mod relay;
mod ring;
mod topics;

use core::time::Duration;

use log::LevelFilter;
use stubdom::platform::{Platform, read_options};
use xen_pvh_boot::BootInfo;
use xen_sys::clock;
use xen_sys::console;
use xen_sys::event::Virq;
use xen_sys::sched::{self, Reason};

xen_pvh_boot::entry!(main: main, crash: crash);

fn main(boot: &'static BootInfo) -> ! {
    console::log_from(LevelFilter::Info);
    assert!(xen_pvh_boot::upcalls_leave_no_trace(), "an upcall changed what it interrupted");
    let (mut act, mut then) = (None, None);
    let options = read_options(boot, |word| match word.strip_prefix("then=") {
        Some(end) => then = Some(end),
        None => act = Some(word),
    });
    let platform = Platform::start(boot, &options);
    let _timer = platform.events.borrow_mut().bind_virq(Virq::Timer).expect("a timer");
    match act {
        None => polite::run(&platform),
        Some("measure") => honest::run(&platform),
        Some("meter") => meter::run(&platform),
        Some("echo") => echo::run(&platform),
        Some("relay") => relay::run(&platform),
        Some(act) if let Some(backend) = act.strip_prefix("take-blocks=") => {
            blocks::take(&platform, backend)
        }
        Some(act) if let Some(backend) = act.strip_prefix("hear=") => {
            topics::hear(&platform, backend)
        }
        Some(act) if let Some(backend) = act.strip_prefix("push-blocks=") => {
            blocks::push(&platform, backend)
        }
        Some(act) => hostile::run(&platform, act, then),
    }
}

/// Sleeps for a while.
fn nap(platform: &Platform, time: Duration) {
    let end = platform.clock.now().after(time);
    clock::set_timer(Some(end)).expect("a timer");
    while platform.clock.now() < end {
        platform.wait();
    }
}

fn crash() -> ! {
    sched::shutdown(Reason::Crash)
}
