//! The data role: a domain among others that moves data between them, known by what it publishes
//! in the host's Xenstore.
//!
//! While it waits for an answer of the store it serves its channels: so a store that is slow, or
//! gone, delays only what is asked of it.

mod network;
mod own;
mod rules;
mod traffic;

use alloc::vec::Vec;
use core::cell::RefCell;
use core::convert::Infallible;
use core::time::Duration;

use databack::broker::{ChannelId, Ended};
use embedded_io::{Read, ReadReady, Write};
use netback::port::PortId;
use netback::{Mac, Violation};
use netfront::patch::Broken;
use stubdom::asks::{Asks, End};
use stubdom::options::Net;
use stubdom::own_store;
use stubdom::platform::{Platform, VERSION, own_domid, refuse};
use stubdom::uplinks::Uplinks;
use stubdom::vifs::Vifs;
use xen_pvh_boot::BootInfo;
use xen_sys::clock::SystemTime;
use xen_sys::event::Virq;
use xen_sys::grant::GrantTable;
use xen_sys::param;
use xen_sys::sched::{self, Reason};
use xenstore_core::DomId;
use xenstore_core::client::{Client, Failure, Nodes};

use network::{ByDevice, Copying};
use own::{ByUplink, UplinkId};
use rules::Rules;
use traffic::{ByRequest, Counters, Traffic};

/// How often the uptime is published, and what no event tells is looked after.
const PERIOD: Duration = Duration::from_secs(10);

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
    own_store::accept_orders(store)?;
    let rules = Rules::begin(store, boot, platform)?;
    let mut asks = Asks::begin(store, DomId(own_domid().raw()))?;
    let mut vifs = Vifs::begin(store)?;
    let mut uplinks = Uplinks::begin(store)?;
    if net.is_wanted() {
        start_stack(traffic, store, net)?;
    }
    log::info!("data role ready");

    let mut next = platform.clock.now();
    loop {
        let mut busy = false;
        while let Some(event) = store.poll_event()? {
            busy = true;
            match event.token() {
                Asks::<ChannelId>::TOKEN => {
                    asks.heard(store, &mut ByRequest(traffic), event.path())?
                }
                Rules::TOKEN => apply(&rules, traffic, store)?,
                token if Vifs::<PortId>::concerns(token) => {
                    vifs.heard(store, &mut ByDevice(traffic), event.path(), token)?;
                }
                token if Uplinks::<UplinkId>::concerns(token) => {
                    let mut frontends = ByUplink(traffic, grants);
                    uplinks.heard(store, &mut frontends, event.path(), token)?;
                }
                _ => obey(own_store::take_order(store)?),
            }
        }
        // A guest may ask more often than this domain can look; others are heard all the same.
        if store.events_were_lost() {
            busy = true;
            apply(&rules, traffic, store)?;
            obey(own_store::take_order(store)?);
            asks.look_again(store, &mut ByRequest(traffic))?;
            vifs.look_at_all(store, &mut ByDevice(traffic))?;
            uplinks.look_again(store, &mut ByUplink(traffic, grants))?;
        }
        while let Some((id, ended)) = next_ended(traffic) {
            busy = true;
            let end = match ended {
                Ended::Closed | Ended::Partner => End::Left,
                Ended::Denied | Ended::Violation(_) => End::Broken,
            };
            asks.ended(store, &mut ByRequest(traffic), id, end)?;
        }
        while let Some((id, violation)) = next_violation(traffic) {
            busy = true;
            vifs.broken(store, &mut ByDevice(traffic), id, violation)?;
        }
        while let Some((id, broken)) = next_broken(traffic) {
            busy = true;
            uplinks.broken(store, &mut ByUplink(traffic, grants), id, broken)?;
        }
        let now = platform.clock.now();
        if now >= next {
            busy = true;
            next = now.after(PERIOD);
            look_after(traffic, next);
            asks.rest();
            vifs.rest();
            report(traffic, store)?;
        }
        if !busy {
            traffic.borrow_mut().wait();
        }
    }
}

/// Has the policy that there is now hold, if it can be read.
fn apply<T: Read + Write>(
    rules: &Rules,
    traffic: &RefCell<Traffic<'_>>,
    store: &mut Client<T>,
) -> Result<(), Failure<T::Error>> {
    if let Some(policy) = rules.read(store)? {
        traffic.borrow_mut().broker().set_policy(policy);
    }
    Ok(())
}

fn next_ended(traffic: &RefCell<Traffic<'_>>) -> Option<(ChannelId, Ended)> {
    traffic.borrow_mut().next_ended()
}

fn next_violation(traffic: &RefCell<Traffic<'_>>) -> Option<(PortId, Violation)> {
    traffic.borrow_mut().network().1.next_violation()
}

fn next_broken(traffic: &RefCell<Traffic<'_>>) -> Option<(UplinkId, Broken)> {
    traffic.borrow_mut().network().1.next_broken()
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
    let [_, _, _, _, _, _, _, _, seed @ .., a, b, c, d, e] = uuid.to_be_bytes();
    let mac = Mac([0x02, a, b, c, d, e]);
    let now = traffic.borrow().now();
    let seed = seed.into_iter().fold(0, |seed, byte| seed << 8 | u64::from(byte));
    let mut traffic = traffic.borrow_mut();
    let (platform, network) = traffic.network();
    let seed = seed << 40 ^ platform.clock.now().0;
    if network.start_stack(platform, net, mac, seed, now) {
        log::info!("own interface {mac}");
    } else {
        log::warn!("no memory for addresses of its own");
    }
    Ok(())
}

/// Publishes how long this domain has been at work, and how much it did.
fn report<T: Read + Write>(
    traffic: &RefCell<Traffic<'_>>,
    store: &mut Client<T>,
) -> Result<(), Failure<T::Error>> {
    let (uptime, counters) = (traffic.borrow().now().as_secs(), traffic.borrow().counters);
    let Counters { events, notifications, wakeups } = counters;
    let Copying { calls, copies } = traffic.borrow_mut().network().1.copying();
    let counted = alloc::format!(
        "events {events} notifications {notifications} wakeups {wakeups} \
         copy-calls {calls} copies {copies}"
    );
    store.write("data/uptime", alloc::format!("{uptime}").as_bytes())?;
    store.write("data/counters", counted.as_bytes())
}

/// What no event tells is looked after from time to time.
fn look_after(traffic: &RefCell<Traffic<'_>>, next: SystemTime) {
    let mut traffic = traffic.borrow_mut();
    traffic.wake_at(next);
    traffic.look_after();
}

fn obey(order: Option<Reason>) {
    if let Some(reason) = order {
        log::info!("asked for {reason:?}");
        sched::shutdown(reason);
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
