//! The data role: a domain among others, known by what it publishes in the host's Xenstore.

use core::time::Duration;

use embedded_io::{Read, ReadReady, Write};
use stubdom::own_store;
use stubdom::platform::{Platform, VERSION, refuse};
use xen_sys::clock::{self, SystemTime};
use xen_sys::event::Virq;
use xen_sys::sched;
use xenstore_core::client::{Client, Failure, Nodes};

/// How often the uptime is published.
const UPTIME_PERIOD: Duration = Duration::from_secs(10);

/// Runs until the toolstack asks for the end.
pub(crate) fn run(platform: &Platform) -> ! {
    let Some(mut store) = own_store::connect(platform) else {
        refuse(format_args!("no Xenstore ring was given, and no --event to serve one"));
    };
    let Err(failure) = serve(platform, &mut store);
    refuse(format_args!("{failure:?}"));
}

fn serve<T: Read + Write + ReadReady>(
    platform: &Platform,
    store: &mut Client<T>,
) -> Result<core::convert::Infallible, Failure<T::Error>> {
    let started = platform.clock.now();
    publish(platform, store)?;
    own_store::accept_orders(store)?;
    log::info!("data role ready");

    let timer = platform.events.borrow_mut().bind_virq(Virq::Timer);
    if let Err(error) = &timer {
        log::warn!("no timer, so the uptime stands still: {error}");
    }
    let mut next_uptime = SystemTime::default();
    loop {
        while store.poll_event()?.is_some() {
            if let Some(reason) = own_store::take_order(store)? {
                log::info!("asked for {reason:?}");
                sched::shutdown(reason);
            }
        }
        let now = platform.clock.now();
        if now >= next_uptime {
            let seconds = alloc::format!("{}", now.since(started).as_secs());
            store.write("data/uptime", seconds.as_bytes())?;
            next_uptime = now.after(UPTIME_PERIOD);
            if let Err(error) = clock::set_timer(Some(next_uptime)) {
                log::warn!("no timer: {error}");
            }
        }
        platform.wait();
    }
}

/// Says who is here.
fn publish<T: Read + Write>(
    platform: &Platform,
    store: &mut Client<T>,
) -> Result<(), Failure<T::Error>> {
    let xen = alloc::format!("{}", platform.xen);
    store.transact(|t| {
        t.write("data/role", b"data")?;
        t.write("data/version", VERSION.as_bytes())?;
        t.write("data/xen", xen.as_bytes())
    })
}
