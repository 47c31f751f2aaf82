//! Guests that break the protocol, to see what a store does about it.

use core::sync::atomic::Ordering;
use core::time::Duration;

use stubdom::own_store;
use stubdom::platform::Platform;
use xen_sys::clock;
use xen_sys::event::Virq;
use xen_sys::page::SpecialPage;
use xen_sys::param;
use xen_sys::ring::shared::Region;
use xenstore_core::client::Nodes;

/// Offsets in the page, xen/include/public/io/xs_wire.h.
const REQ_CONS: usize = 2048;
const REQ_PROD: usize = 2052;
const RSP_PROD: usize = 2060;
const ERROR: usize = 2072;

/// How long a server gets to react.
const PATIENCE: Duration = Duration::from_secs(2);

/// Claims 2,000 bytes of requests in a ring of 1,024.
pub(crate) fn bad_index(platform: &Platform) -> ! {
    offend(platform, |ring| {
        let cons = ring.word(REQ_CONS).load(Ordering::Relaxed);
        ring.word(REQ_PROD).store(cons.wrapping_add(2000), Ordering::Release);
    })
}

/// Announces a payload of 5,000 bytes.
pub(crate) fn oversize(platform: &Platform) -> ! {
    offend(platform, |ring| {
        // READ, request 1, no transaction.
        let header = [2u32, 1, 0, 5000].map(u32::to_le_bytes);
        let prod = ring.word(REQ_PROD).load(Ordering::Relaxed);
        for (i, &byte) in header.as_flattened().iter().enumerate() {
            ring.copy_in((prod as usize + i) % 1024, &[byte]);
        }
        ring.word(REQ_PROD).store(prod.wrapping_add(16), Ordering::Release);
    })
}

/// Says hello as it should, then does `offence`, and tells what came back.
fn offend(platform: &Platform, offence: impl FnOnce(Region<'_>)) -> ! {
    let page: SpecialPage = param::store_page().expect("a Xenstore ring");
    let port = param::store_port().expect("a Xenstore port");
    let mut store = own_store::connect(platform).expect("a Xenstore ring");
    store.write("data/hello", b"from a hostile guest").expect("data/ is ours to write");

    let ring = Region::of(&page);
    let answered = ring.word(RSP_PROD).load(Ordering::Acquire);
    offence(ring);
    xen_sys::event::send(port).expect("an event");

    let _timer = platform.events.borrow_mut().bind_virq(Virq::Timer).expect("a timer");
    let deadline = platform.clock.now().after(PATIENCE);
    while platform.clock.now() < deadline && ring.word(ERROR).load(Ordering::Acquire) == 0 {
        clock::set_timer(Some(deadline)).expect("a timer");
        platform.wait();
    }
    let error = ring.word(ERROR).load(Ordering::Acquire);
    let answered = ring.word(RSP_PROD).load(Ordering::Acquire).wrapping_sub(answered);
    log::info!("guest: ring error {error}, {answered} bytes of answer");
    loop {
        platform.wait();
    }
}
