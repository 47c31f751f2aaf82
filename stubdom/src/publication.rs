//! The store's figures as nodes of its own tree, below `/tool/xenstored/figures`: dom0 can read them,
//! and no guest can do either.
//!
//! Whoever reads one wakes the store, so that they are brought up to date before the first request
//! after a pause, and while it works every ten seconds. Nothing wakes it for them.

use alloc::format;
use core::time::Duration;

use xen_sys::clock::SystemTime;
use xenstore_core::Server;

use crate::guests::Guests;
use crate::machine::Machine;
use crate::metrics::Nodes;

/// How old they may become.
const PERIOD: Duration = Duration::from_secs(10);

/// What was published, and until when that will do.
#[derive(Debug, Default)]
pub struct Publication {
    nodes: Nodes,
    until: SystemTime,
}

impl Publication {
    /// Publishes what has changed, if it is time for that.
    pub fn look<M: Machine>(&mut self, server: &mut Server, guests: &Guests<M>, now: SystemTime) {
        if now < self.until {
            return;
        }
        self.until = now.after(PERIOD);
        for (path, value) in self.nodes.update(&guests.figures(server.counts(), server.stats())) {
            // No figure of the store's goes away.
            let Some(value) = value else { continue };
            let node = format!("/tool/xenstored/figures/{path}");
            if !server.publish(&node, value.as_bytes(), guests) {
                self.nodes.refused(&path);
            }
        }
    }
}
