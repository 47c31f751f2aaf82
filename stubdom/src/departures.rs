//! Which domains have shut down or died: asked of Xen when VIRQ_DOM_EXC says that one has.
//!
//! Xen 4.21 and later tell which domains changed. Before, each domain that the store knows must be
//! asked after; it is the only place in the store where the number of guests counts.

use alloc::vec::Vec;

use xen_sys::domctl::{DomainState, Identity};
use xen_sys::ids::DomId as XenDomId;
use xenstore_core::{DomId, Server, UniqueId};

use crate::guests::Guests;
use crate::machine::{Fates, Machine};

/// Tells the server of every domain that has shut down, died, or become another one.
pub fn look<M: Machine>(server: &mut Server, guests: &mut Guests<M>) {
    match guests.machine.fates() {
        Some(fates) if fates.tells_changes() => {
            while let Ok(Some((domain, state))) = fates.next_changed() {
                let domain = DomId(domain.raw());
                if let Some(known) = server.identity(domain) {
                    judge(domain, known, state, server, guests);
                }
            }
        }
        Some(fates) => {
            let known: Vec<_> = server.domains().collect();
            for (domain, identity) in known {
                let state = XenDomId::new(domain.0).map(|xen| fates.query(xen));
                match state {
                    Some(Ok(state)) => judge(domain, identity, state, server, guests),
                    // What Xen would not tell is not a death.
                    Some(Err(error)) => log::warn!("domain {domain}: no answer: {error}"),
                    None => {}
                }
            }
        }
        None => {}
    }
    server.settle();
}

fn judge(
    domain: DomId,
    known: UniqueId,
    state: Option<DomainState>,
    server: &mut Server,
    guests: &mut Guests<impl Machine>,
) {
    match state {
        Some(state) if !is_over(&state) && unique(state.identity) == known => {
            if state.shutdown {
                server.shut_down(domain);
            }
        }
        _ => server.gone(domain, guests),
    }
}

/// The identity of the domain that has this number now.
pub(crate) fn identify(fates: Option<&impl Fates>, domain: DomId) -> Option<UniqueId> {
    let Some(fates) = fates else {
        // Xen tells us nothing: whoever is spoken of exists, and stays who it is.
        return Some(UniqueId(0));
    };
    let state = fates.query(XenDomId::new(domain.0)?).ok()??;
    (!is_over(&state)).then(|| unique(state.identity))
}

/// Nothing of the domain's is left but what others hold, us among them.
fn is_over(state: &DomainState) -> bool {
    state.dead
}

/// Xen's number for a domain; before 4.21, one made of the UUID that its toolstack gave it.
fn unique(identity: Identity) -> UniqueId {
    match identity {
        Identity::UniqueId(number) => UniqueId(number),
        Identity::Handle(uuid) => {
            let [high, low] = [0, 8].map(|at| {
                let mut half = [0; 8];
                half.copy_from_slice(&uuid[at..at + 8]);
                u64::from_le_bytes(half)
            });
            // The halves of a random UUID are independent; folded they still differ.
            UniqueId(high.rotate_left(32) ^ low)
        }
    }
}
