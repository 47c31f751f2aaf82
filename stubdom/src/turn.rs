//! One turn of the store's loop: pending events, then guests whose requests were left behind, then
//! connections to which others' requests gave something to send. Each part is bounded, and each
//! guest gets a bounded amount of work a turn, so none keeps another waiting.

use xen_sys::ids::Port;
use xenstore_core::Server;

use crate::departures;
use crate::guests::Guests;
use crate::machine::Machine;

/// Events that are looked at before the rest of a turn gets its chance.
const EVENTS_A_TURN: usize = 64;

/// Does what there is to do; `exceptions` is the port at which Xen tells that a domain ended.
pub fn take<M: Machine>(server: &mut Server, guests: &mut Guests<M>, exceptions: Option<Port>) {
    guests.activity.turns += 1;
    for _ in 0..EVENTS_A_TURN {
        let Some(port) = guests.machine.next_event() else { break };
        guests.activity.events += 1;
        if Some(port) == exceptions {
            departures::look(server, guests);
        } else if let Some(conn) = guests.at(port) {
            guests.serve(conn, server);
        }
    }
    guests.serve_backlog(server);
    while let Some(conn) = server.next_ready() {
        guests.flush(conn, server);
    }
}

#[cfg(test)]
mod tests;
