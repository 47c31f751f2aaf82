//! This domain as a client of the host's Xenstore, through its own ring.

use embedded_io::{Read, ReadReady, Write};
use xen_sys::param;
use xen_sys::ring::xenstore::Client as Ring;
use xen_sys::sched::Reason;
use xenstore_core::client::{Client, Failure, Nodes};

use crate::platform::Platform;

/// Connects to the host's Xenstore; `None` if this domain was given no ring to it.
///
/// The connection waits by [`Platform::wait`], so whoever holds it can be woken by events that
/// have nothing to do with it.
pub fn connect(platform: &Platform) -> Option<Client<impl Read + Write + ReadReady>> {
    connect_waiting(platform, || platform.wait())
}

/// The same, waiting in its own way: `wait` returns when there was an event at
/// [`param::store_port`], or earlier.
pub fn connect_waiting(
    platform: &Platform,
    wait: impl FnMut(),
) -> Option<Client<impl Read + Write + ReadReady>> {
    let ring = Ring::attach(param::store_page()?);
    let channel = platform.events.borrow_mut().adopt(param::store_port()?).ok()?;
    Some(Client::new(ring.blocking(wait, move || channel.notify())))
}

/// Tells the toolstack that this domain can be asked to end, and watches for that.
///
/// # Errors
/// Any [`Failure`].
pub fn accept_orders<T: Read + Write>(store: &mut Client<T>) -> Result<(), Failure<T::Error>> {
    store.transact(|t| {
        t.write("control/feature-poweroff", b"1")?;
        t.write("control/feature-reboot", b"1")
    })?;
    store.watch("control/shutdown", "shutdown")
}

/// Takes what `control/shutdown` asks for, if it asks for anything. Emptying the node is the
/// acknowledgement that the toolstack waits for.
///
/// # Errors
/// Any [`Failure`] but an answer: the watch's first event comes whether the node is there or not.
pub fn take_order<T: Read + Write>(
    store: &mut Client<T>,
) -> Result<Option<Reason>, Failure<T::Error>> {
    let order = store.transact(|t| {
        let order = t.read("control/shutdown")?;
        if !order.is_empty() {
            t.write("control/shutdown", b"")?;
        }
        Ok(order)
    });
    let order = match order {
        Ok(order) => order,
        Err(Failure::Answer(_)) => return Ok(None),
        Err(failure) => return Err(failure),
    };
    Ok(match &order[..] {
        b"" => None,
        b"poweroff" | b"halt" => Some(Reason::Poweroff),
        b"reboot" => Some(Reason::Reboot),
        b"crash" => Some(Reason::Crash),
        other => {
            log::warn!("control/shutdown asks for {:?}: not known here", str::from_utf8(other));
            None
        }
    })
}
