//! A guest as it should be.

use stubdom::own_store;
use stubdom::platform::Platform;
use xen_sys::sched;
use xenstore_core::client::Nodes;

/// Says hello, reads it back, and waits until it is asked to end.
pub(crate) fn run(platform: &Platform) -> ! {
    let mut store = own_store::connect(platform).expect("a Xenstore ring");
    store.write("data/hello", b"from a small guest").expect("data/ is ours to write");
    let hello = store.read("data/hello").expect("what was just written");
    log::info!("guest: hello {:?}", str::from_utf8(&hello));
    own_store::accept_orders(&mut store).expect("control/ is ours to write");
    loop {
        store.next_event().expect("the store stays");
        if let Some(reason) = own_store::take_order(&mut store).expect("the store stays") {
            log::info!("guest: asked for {reason:?}");
            sched::shutdown(reason);
        }
    }
}
