//! From `main` to a domain that has memory, a console, a clock and events.

use core::cell::RefCell;
use core::fmt;

use spin::Mutex;
use xen_pvh_boot::{BootInfo, UPCALL_VECTOR, heap, idle};
use xen_sys::clock::Clock;
use xen_sys::console::{self, Console};
use xen_sys::event::{self, Abi, Events};
use xen_sys::grant::GfnWindow;
use xen_sys::hypercall::{self, Method};
use xen_sys::ids::DomId;
use xen_sys::memory::{self, Growth};
use xen_sys::page::{PAGE_SIZE, Page};
use xen_sys::shared_info::SharedInfo;
use xen_sys::version::Version;
use xen_sys::{cpuid, param, sched};

use crate::options::{EventAbi, Hypercalls, Options};

/// Bytes of memory beside the image below which nothing useful can be done. A data role with an uplink
/// and an address has taken 1.9 MiB before a guest comes, and a store keeps half a MiB from its guests.
const LEAST_MEMORY: u64 = 2560 * 1024;

/// The version of the image.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a domain works with.
pub struct Platform {
    /// The event channels. In a cell, because who waits for a reply and who waits for anything at
    /// all look at them by turns.
    pub events: RefCell<Events>,
    /// Where grants of other domains can be mapped.
    pub window: &'static GfnWindow,
    /// The time.
    pub clock: Clock,
    /// Which Xen this is.
    pub xen: Version,
    /// Bytes of memory that Xen has given us so far.
    pub memory: u64,
}

/// Says why this domain cannot run, and ends it as crashed.
pub fn refuse(reason: fmt::Arguments<'_>) -> ! {
    log::error!("cannot run: {reason}");
    sched::shutdown(sched::Reason::Crash)
}

/// Reads the command line; a malformed one ends the domain. Each word that is no option goes to
/// `unknown`.
pub fn read_options(boot: &'static BootInfo, unknown: impl FnMut(&'static str)) -> Options {
    if boot.command_line_was_cut() {
        refuse(format_args!("the command line is too long"));
    }
    let Ok(line) = str::from_utf8(boot.command_line()) else {
        refuse(format_args!(
            "the command line is not text: {}",
            boot.command_line().escape_ascii()
        ));
    };
    Options::parse(line, unknown).unwrap_or_else(|malformed| refuse(format_args!("{malformed}")))
}

/// This domain's number.
///
/// # Panics
/// If Xen tells it in none of its ways.
#[must_use]
pub fn own_domid() -> DomId {
    match cpuid::Xen::find().and_then(|xen| xen.domid()) {
        Some(domain) => domain,
        None => event::own_domid().expect("this domain's id"),
    }
}

impl Platform {
    /// Brings everything up, in the order in which one part needs the other.
    ///
    /// # Panics
    /// If Xen refuses what it has no reason to refuse.
    pub fn start(boot: &'static BootInfo, options: &Options) -> Self {
        if options.hypercalls == Hypercalls::Page {
            hypercall::select(Method::Page).expect("a hypercall page");
        }
        let memory = start_heap(boot);

        let window = GfnWindow::claim().expect("frames above memory");
        let shared = SharedInfo::map(window).expect("shared_info");
        param::announce_events_at(UPCALL_VECTOR).expect("event upcalls");
        let mut events = match options.events {
            EventAbi::Best => Events::best(shared),
            EventAbi::Fifo => Events::open(Abi::Fifo, shared).expect("FIFO events"),
            EventAbi::TwoLevel => Events::open(Abi::TwoLevel, shared).expect("2-level events"),
        };
        if let Some(console) = Console::open() {
            if let Some(port) = console.port() {
                // Its events only say that there is room again, or input; nobody waits for them.
                events.mask(port);
            }
            console::attach(console);
        }

        let xen = Version::running().expect("Xen's version");
        Self { events: RefCell::new(events), window, clock: Clock::new(shared), xen, memory }
    }

    /// Waits until there was an event at any port; all that were pending count as seen.
    pub fn wait(&self) {
        let mut events = self.events.borrow_mut();
        let mut seen = false;
        loop {
            while events.next().is_some() {
                seen = true;
            }
            if seen {
                return;
            }
            idle();
        }
    }
}

/// Gives the heap all memory that there is, and the way to ask for more. Says how much the domain
/// has.
fn start_heap(boot: &'static BootInfo) -> u64 {
    static GROWTH: Mutex<Option<Growth>> = Mutex::new(None);

    fn grow(bytes: usize) -> &'static mut [u8] {
        let mut growth = GROWTH.lock();
        let pages = growth.as_mut().map(|growth| growth.grow(bytes.div_ceil(PAGE_SIZE)));
        Page::flatten(pages.unwrap_or_default())
    }

    let reservation = memory::current_reservation().expect("the memory reservation");
    let populated = reservation.saturating_sub(memory::SPECIAL_PAGES);
    let free = boot.usable_memory(populated);
    if free < LEAST_MEMORY {
        refuse(format_args!(
            "{} KiB of memory are {} KiB too few",
            populated * 4,
            (LEAST_MEMORY - free).div_ceil(1024)
        ));
    }
    boot.take_free_memory(populated).into_iter().for_each(heap::add_memory);
    *GROWTH.lock() = Growth::claim();
    heap::grow_with(grow);
    populated * PAGE_SIZE as u64
}
