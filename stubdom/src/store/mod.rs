//! The store role: Xenstore for dom0 and every guest of the host.
//!
//! One loop, one turn of which looks at pending events, then at guests whose requests were left
//! behind, then at connections to which others' requests gave something to send. Each part is
//! bounded, and each guest gets a bounded amount of work a turn, so none keeps another waiting.

mod activity;
mod departures;
mod guests;

use stubdom::platform::{Platform, VERSION, refuse};
use xen_pvh_boot::{entry_counter, idle};
use xen_sys::cpuid;
use xen_sys::domctl::Domctl;
use xen_sys::event::{self, Channel, Priority, Virq};
use xen_sys::ids::Port;
use xen_sys::ring::xenstore::ServerFeatures;
use xenstore_core::{Config, DomId, Host, Server, UniqueId};

use guests::Guests;

/// Events that are looked at before the rest of a turn gets its chance.
const EVENTS_A_TURN: usize = 64;

/// Serves until the host goes down.
pub(crate) fn run(platform: Platform, dom0_port: u32) -> ! {
    let own = match cpuid::Xen::find().and_then(|xen| xen.domid()) {
        Some(domain) => domain,
        None => event::own_domid().expect("this domain's id"),
    };
    let config = Config { privileged: DomId(0), store: DomId(own.raw()), version: VERSION };
    let mut server = Server::new(config);
    let domctl = Domctl::probe();
    match domctl {
        Some(domctl) => log::info!("Xen tells of domains by {domctl}"),
        None => log::error!("Xen tells nothing of domains; dead guests will not be noticed"),
    }
    let mut guests = Guests::new(platform.events.into_inner(), platform.window, domctl);

    // Before anyone connects, so that no death goes unseen.
    let exceptions = guests.events.bind_virq(Virq::DomExc);
    match &exceptions {
        Ok(channel) => {
            // A dead guest's ring and nodes are given back before others are served.
            if let Err(error) = guests.events.set_priority(channel, Priority::HIGHEST) {
                log::warn!("VIRQ_DOM_EXC has no priority: {error}");
            }
        }
        Err(error) => log::error!("VIRQ_DOM_EXC: {error}; dead guests will not be noticed"),
    }

    let identity = guests.identify(DomId(0)).unwrap_or(UniqueId(0));
    let conn = server.connect(DomId(0), identity);
    let features = ServerFeatures::from_bits_retain(server.features(conn).bits());
    if guests.connect_dom0(conn, Port(dom0_port), features).is_err() {
        refuse(format_args!("dom0's ring or port {dom0_port} is not there"));
    }
    log::info!("serving; dom0 is connected");

    let exceptions = exceptions.as_ref().map(Channel::port).ok();
    let mut answered = false;
    loop {
        guests.activity.turns += 1;
        for _ in 0..EVENTS_A_TURN {
            let Some(port) = guests.events.next() else { break };
            guests.activity.events += 1;
            if Some(port) == exceptions {
                departures::look(&mut server, &mut guests);
            } else if let Some(conn) = guests.at(port) {
                guests.serve(conn, &mut server);
            }
        }
        guests.serve_backlog(&mut server);
        while let Some(conn) = server.next_ready() {
            guests.flush(conn, &mut server);
        }
        if !answered && guests.activity.notifications > 0 {
            answered = true;
            let micros = platform.clock.since_counter(entry_counter()).as_micros();
            log::info!("the first reply is out {micros} us after the domain's entry");
        }
        if !guests.has_backlog() && guests.events.nothing_pending() {
            idle();
            guests.activity.wakeups += 1;
        }
    }
}
