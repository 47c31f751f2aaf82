//! What this domain has to show of itself, from those who count it.

use alloc::vec::Vec;
use core::time::Duration;

use databack::broker;
use netback::port::Drop;
use stubdom::activity::{Activity, Copying};
use stubdom::metrics::{Figures, Identity, Port, Way};
use stubdom::platform::VERSION;
use xen_pvh_boot::heap;

use super::network::Switch;
use super::own::Named;

/// What is not the network's.
pub(super) struct Rest<'a> {
    pub(super) xen: &'a str,
    pub(super) activity: Activity,
    pub(super) channels: broker::Figures,
}

/// The switch, and what else of the network is shown.
pub(super) struct Shown<'a> {
    pub(super) switch: &'a mut Switch,
    pub(super) names: &'a [Named],
    pub(super) copying: Copying,
}

impl Shown<'_> {
    /// Looks at all figures of this moment, unless there is not the memory to collect them.
    pub(super) fn figures<R>(
        &mut self,
        rest: &Rest<'_>,
        uptime: Duration,
        look: impl FnOnce(&Figures<'_>) -> R,
    ) -> Option<R> {
        let mut counted = Vec::new();
        counted.try_reserve_exact(self.names.len()).ok()?;
        for (port, name) in self.names {
            let Some(counters) = self.switch.counters(*port) else { continue };
            let mut drops = [("", 0); Drop::ALL.len()];
            for ((drop, why), count) in drops.iter_mut().zip(Drop::ALL).zip(counters.dropped) {
                *drop = (why.word(), count);
            }
            counted.push((name, counters, drops));
        }
        let mut ports = Vec::new();
        ports.try_reserve_exact(counted.len()).ok()?;
        ports.extend(counted.iter().map(|(name, counters, drops)| Port {
            name,
            incoming: Way { frames: counters.sent_frames, bytes: counters.sent_bytes },
            outgoing: Way { frames: counters.received_frames, bytes: counters.received_bytes },
            drops,
        }));
        let memory = heap::statistics();
        Some(look(&Figures {
            identity: Identity { version: VERSION, role: "data", xen: rest.xen },
            uptime,
            memory: memory.total,
            memory_free: memory.free(),
            activity: rest.activity,
            copying: Some(self.copying),
            channels: Some(rest.channels),
            ports: &ports,
            ..Figures::default()
        }))
    }
}
