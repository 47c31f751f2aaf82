//! A guest that serves a Xenstore ring of another, and does nothing for it but answer: the least
//! that a store can cost there, to compare stores with.
//!
//! dom0 writes `DOMID GRANT PORT` to `data/serve`. A WRITE is then answered with `OK` and anything
//! else with ten bytes, as the node that is measured has.

use core::cell::RefMut;

use stubdom::own_store;
use stubdom::platform::Platform;
use xen_pvh_boot::idle;
use xen_sys::event::Events;
use xen_sys::grant::GrantMapping;
use xen_sys::ids::{DomId, GrantRef, Port};
use xen_sys::ring::xenstore::{RING_SIZE, Server};
use xenstore_core::client::Nodes;
use xenstore_core::wire::{HEADER_SIZE, Header, Op};
use zerocopy::{FromBytes, IntoBytes};

/// Says hello, waits for a ring to serve, and serves it for ever.
pub(crate) fn run(platform: &Platform) -> ! {
    let mut store = own_store::connect(platform).expect("a Xenstore ring");
    store.watch("data/serve", "serve").expect("a watch");
    store.write("data/hello", b"from an echo").expect("data/ is ours to write");
    let (domain, grant, port) = loop {
        store.next_event().expect("the store stays");
        let offer = store.read("data/serve").unwrap_or_default();
        if let Some(offer) = str::from_utf8(&offer).ok().and_then(parsed) {
            break offer;
        }
    };
    let page = GrantMapping::map(platform.window, domain, grant).expect("a page to serve");
    let mut events = platform.events.borrow_mut();
    let channel = events.bind_interdomain(domain, port).expect("a port that waits for us");
    let mut ring = Server::attach(page);
    loop {
        see_all(&mut events);
        while answer(&mut ring) {}
        if ring.take_notify() {
            channel.notify();
        }
        if events.nothing_pending() {
            idle();
        }
    }
}

fn parsed(offer: &str) -> Option<(DomId, GrantRef, Port)> {
    let mut words = offer.split_whitespace();
    let domain = DomId::new(words.next()?.parse().ok()?)?;
    let grant = GrantRef(words.next()?.parse().ok()?);
    let port = Port(words.next()?.parse().ok()?);
    Some((domain, grant, port))
}

fn see_all(events: &mut RefMut<'_, Events>) {
    while events.next().is_some() {}
}

/// Answers what waits in the ring, while there is room; says whether there was anything.
fn answer(ring: &mut Server<GrantMapping>) -> bool {
    let mut requests = [0; RING_SIZE];
    let waiting = ring.peek(&mut requests).expect("the client's index is possible");
    let mut rest = &requests[..waiting];
    while let Ok((header, after)) = Header::read_from_prefix(rest) {
        let len = header.payload_len().expect("a length of the client's");
        let Some(next) = after.get(len..) else { break };
        let payload: &[u8] =
            if header.kind.get() == Op::Write.to_wire() { b"OK\0" } else { b"ten bytes." };
        let room = ring.room().expect("the client's index is possible");
        if room < HEADER_SIZE + payload.len() {
            break;
        }
        let len = u32::try_from(payload.len()).expect("a short payload");
        let mut reply = [0; HEADER_SIZE + 10];
        let reply = &mut reply[..HEADER_SIZE + payload.len()];
        reply[..HEADER_SIZE].copy_from_slice(Header { len: len.into(), ..header }.as_bytes());
        reply[HEADER_SIZE..].copy_from_slice(payload);
        ring.write(reply).expect("the client's index is possible");
        rest = next;
    }
    let taken = waiting - rest.len();
    ring.consume(taken);
    taken > 0
}
