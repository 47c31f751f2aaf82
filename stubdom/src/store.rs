//! The store role: Xenstore for dom0 and every guest of the host.
//!
//! One loop around [`turn`], which waits when a turn leaves nothing to do.

use alloc::format;
use alloc::string::String;

use stubdom::guests::Guests;
use stubdom::machine::Machine;
use stubdom::metrics::{Figures, Identity};
use stubdom::platform::{Platform, VERSION, own_domid, refuse};
use stubdom::publication::Publication;
use stubdom::turn;
use xen_pvh_boot::{entry_counter, heap, idle};
use xen_sys::clock::{Clock, SystemTime};
use xen_sys::domctl::Domctl;
use xen_sys::event::{Channel, Events, Priority, Virq};
use xen_sys::grant::{GfnWindow, GrantMapping, MapError};
use xen_sys::ids::{DomId as XenDomId, Errno, GrantRef, Port};
use xen_sys::ring::xenstore::ServerFeatures;
use xenstore_core::{Config, DomId, Host, Server, UniqueId};

/// Serves until the host goes down.
pub(crate) fn run(platform: Platform, dom0_port: u32) -> ! {
    let config = Config { privileged: DomId(0), store: DomId(own_domid().raw()), version: VERSION };
    let mut server = Server::new(config);
    let domctl = Domctl::probe();
    match domctl {
        Some(domctl) => log::info!("Xen tells of domains by {domctl}"),
        None => log::error!("Xen tells nothing of domains; dead guests will not be noticed"),
    }
    let Platform { events, window, clock, xen, .. } = platform;
    let (events, started, xen) = (events.into_inner(), clock.now(), format!("{xen}"));
    let mut guests = Guests::new(UnderXen { events, window, domctl, clock, started, xen });
    let mut publication = Publication::default();

    // Before anyone connects, so that no death goes unseen.
    let exceptions = hear_of_deaths(&mut guests.machine.events);
    let identity = guests.identify(DomId(0)).unwrap_or(UniqueId(0));
    let conn = server.connect(DomId(0), identity);
    let features = ServerFeatures::from_bits_retain(server.features(conn).bits());
    if guests.connect_dom0(conn, Port(dom0_port), features).is_err() {
        refuse(format_args!("dom0's ring or port {dom0_port} is not there"));
    }
    log::info!("serving; dom0 is connected");

    let exceptions = exceptions.as_ref().map(Channel::port);
    let mut answered = false;
    loop {
        publication.look(&mut server, &guests, guests.machine.clock.lately());
        turn::take(&mut server, &mut guests, exceptions);
        if !answered && guests.activity.notifications > 0 {
            answered = true;
            let micros = guests.machine.clock.since_counter(entry_counter()).as_micros();
            log::info!("the first reply is out {micros} us after the domain's entry");
        }
        let clearing = server.clear_away(&mut guests);
        if !clearing {
            guests.tell_who_is_gone();
        }
        let more = clearing || guests.has_backlog();
        if !more && guests.machine.events.nothing_pending() {
            idle();
            guests.activity.wakeups += 1;
        }
    }
}

/// Opens the port at which Xen tells that a domain ended.
fn hear_of_deaths(events: &mut Events) -> Option<Channel> {
    let exceptions = events.bind_virq(Virq::DomExc);
    let exceptions = exceptions
        .inspect_err(|error| log::error!("VIRQ_DOM_EXC: {error}; dead guests will not be noticed"))
        .ok()?;
    // A dead guest's ring and nodes are given back before others are served.
    if let Err(error) = events.set_priority(&exceptions, Priority::HIGHEST) {
        log::warn!("VIRQ_DOM_EXC has no priority: {error}");
    }
    Some(exceptions)
}

/// This domain, as the store needs it.
struct UnderXen {
    events: Events,
    window: &'static GfnWindow,
    domctl: Option<Domctl>,
    clock: Clock,
    started: SystemTime,
    /// Xen's version.
    xen: String,
}

impl Machine for UnderXen {
    type Page = GrantMapping;
    type Line = Channel;
    type Fates = Domctl;

    fn next_event(&mut self) -> Option<Port> {
        self.events.next()
    }

    fn map(&mut self, domain: XenDomId) -> Result<GrantMapping, MapError> {
        GrantMapping::map(self.window, domain, GrantRef::XENSTORE)
    }

    fn bind(&mut self, domain: XenDomId, port: Port) -> Result<Channel, Errno> {
        self.events.bind_interdomain(domain, port)
    }

    fn fates(&self) -> Option<Domctl> {
        self.domctl
    }

    fn has_memory(&self, bytes: usize) -> bool {
        heap::reserve(bytes)
    }

    fn memory_used(&self) -> usize {
        heap::statistics().allocated
    }

    fn figures(&self) -> Figures<'_> {
        let memory = heap::statistics();
        Figures {
            identity: Identity { version: VERSION, role: "store", xen: &self.xen },
            uptime: self.clock.now().since(self.started),
            memory: memory.total,
            memory_free: memory.free(),
            ..Figures::default()
        }
    }
}
