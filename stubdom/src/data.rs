//! The data role: a domain among others that moves data between them, known by what it publishes
//! in the host's Xenstore.
//!
//! While it waits for an answer of the store it serves its channels: so a store that is slow, or
//! gone, delays only what is asked of it.

mod figures;
mod hand;
mod lines;
mod network;
mod own;
mod requests;
mod rules;
mod slabs;
mod traffic;

use alloc::vec::Vec;
use core::cell::RefCell;
use core::convert::Infallible;
use core::time::Duration;

use embedded_io::{Read, ReadReady, Write};
use netback::Mac;
use stubdom::metrics;
use stubdom::options::Net;
use stubdom::own_store;
use stubdom::platform::{Platform, VERSION, refuse};
use stubdom::stack;
use xen_pvh_boot::BootInfo;
use xen_sys::event::Virq;
use xen_sys::grant::GrantTable;
use xen_sys::param;
use xenstore_core::client::{Client, Failure, Nodes};

use requests::Requests;
use traffic::Traffic;

/// How often the uptime and figures are published, and what no event tells is looked after.
const PERIOD: Duration = Duration::from_secs(10);

/// Events of the store that are heeded before all else gets its chance: a guest can cause more while
/// one is heeded.
const EVENTS_A_TURN: usize = 64;

/// Runs until the toolstack asks for the end.
pub(crate) fn run(platform: &Platform, boot: &'static BootInfo, net: Net) -> ! {
    let Some(store_port) = param::store_port() else {
        refuse(format_args!("no Xenstore ring was given, and no --event to serve one"));
    };
    let grants = GrantTable::open(platform.window).unwrap_or_else(|error| {
        refuse(format_args!("no grant table: {error:?}"));
    });
    let timer = platform.events.borrow_mut().bind_virq(Virq::Timer);
    if let Err(error) = &timer {
        log::warn!("no timer, so nothing times out and the uptime stands still: {error}");
    }
    let traffic = RefCell::new(Traffic::new(platform, store_port, grants));
    let store = own_store::connect_waiting(platform, || traffic.borrow_mut().wait_for_store());
    let Some(mut store) = store else {
        refuse(format_args!("the Xenstore ring that was given cannot be used"));
    };
    let Err(failure) = serve(platform, boot, net, (&traffic, grants), &mut store);
    refuse(format_args!("{failure:?}"));
}

/// Serves until the connection to the store fails.
fn serve<T: Read + Write + ReadReady>(
    platform: &Platform,
    boot: &'static BootInfo,
    net: Net,
    (traffic, grants): (&RefCell<Traffic<'_>>, &'static GrantTable),
    store: &mut Client<T>,
) -> Result<Infallible, Failure<T::Error>> {
    publish(platform, store)?;
    let mut requests = Requests::begin(store, boot, platform, traffic, grants)?;
    if net.is_wanted() {
        start_stack(traffic, store, net)?;
    }
    log::info!("data role ready");

    let mut nodes = metrics::Nodes::default();
    let mut next = platform.clock.now();
    loop {
        let mut busy = false;
        for _ in 0..EVENTS_A_TURN {
            let Some(event) = store.poll_event()? else { break };
            busy = true;
            requests.heard(store, &event)?;
        }
        if store.events_were_lost() {
            busy = true;
            requests.look_again(store)?;
        }
        busy |= requests.tell_ends(store)?;
        let now = platform.clock.now();
        if now >= next {
            busy = true;
            next = now.after(PERIOD);
            traffic.borrow_mut().look_after();
            requests.rest();
            report(traffic, &mut nodes, store)?;
        }
        let leaving = requests.vifs.remove_left(store, now)?;
        if !busy {
            let mut traffic = traffic.borrow_mut();
            traffic.wake_at(leaving.map_or(next, |leaving| leaving.min(next)));
            traffic.wait();
        }
    }
}

/// Gives this domain its addresses. Its hardware's address comes from its UUID, so that it is the
/// same whenever the domain is, and no other's.
fn start_stack<T: Read + Write>(
    traffic: &RefCell<Traffic<'_>>,
    store: &mut Client<T>,
    net: Net,
) -> Result<(), Failure<T::Error>> {
    let vm = match store.read("vm") {
        Err(Failure::Answer(_)) => Vec::new(),
        read => read?,
    };
    let digits = vm.iter().filter_map(|&byte| char::from(byte).to_digit(16));
    let uuid = digits.fold(0_u128, |number, digit| number << 4 | u128::from(digit));
    let [_, _, _, _, _, _, _, _, seed @ .., _, _, _, _, _] = uuid.to_be_bytes();
    let mac = Mac(stack::hardware_address(uuid));
    let now = traffic.borrow().now();
    let seed = seed.into_iter().fold(0, |seed, byte| seed << 8 | u64::from(byte));
    let mut traffic = traffic.borrow_mut();
    let (platform, network) = traffic.network();
    let seed = seed << 40 ^ platform.clock.now().0;
    if network.start_stack(net, mac, seed, now) {
        log::info!("own interface {mac}");
    } else {
        log::warn!("no memory for addresses of its own");
    }
    Ok(())
}

/// Publishes how long this domain has been at work, and its figures.
fn report<T: Read + Write>(
    traffic: &RefCell<Traffic<'_>>,
    nodes: &mut metrics::Nodes,
    store: &mut Client<T>,
) -> Result<(), Failure<T::Error>> {
    let uptime = traffic.borrow().now().as_secs();
    store.write("data/uptime", alloc::format!("{uptime}").as_bytes())?;
    let changes = traffic.borrow_mut().figures(|figures| nodes.update(figures));
    for (path, value) in changes.into_iter().flatten() {
        let node = alloc::format!("data/figures/{path}");
        let done = match value {
            Some(value) => store.write(&node, value.as_bytes()),
            None => store.rm(&node),
        };
        match done {
            // The store may refuse it: others that it refuses are more to be missed.
            Err(Failure::Answer(_)) => nodes.refused(&path),
            done => done?,
        }
    }
    Ok(())
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
