//! What others ask of this domain through Xenstore, and what they are to be told of it there.

use core::cell::RefCell;

use databack::broker::{ChannelId, Ended};
use embedded_io::{Read, Write};
use netback::Violation;
use netback::port::PortId;
use stubdom::asks::{Asks, End};
use stubdom::own_store;
use stubdom::platform::{Platform, own_domid};
use stubdom::uplinks::Uplinks;
use stubdom::vifs::Vifs;
use xen_pvh_boot::BootInfo;
use xen_sys::grant::GrantTable;
use xen_sys::sched::{self, Reason};
use xenstore_core::DomId;
use xenstore_core::client::{Client, Event, Failure};

use super::network::ByDevice;
use super::own::{ByUplink, Fault, UplinkId};
use super::rules::Rules;
use super::traffic::{ByRequest, Traffic};

/// Channels, interfaces and uplinks as Xenstore has them, the policy, and the toolstack's orders.
pub(super) struct Requests<'t, 'p> {
    traffic: &'t RefCell<Traffic<'p>>,
    grants: &'static GrantTable,
    rules: Rules,
    asks: Asks<ChannelId>,
    pub(super) vifs: Vifs<PortId>,
    uplinks: Uplinks<UplinkId>,
}

impl<'t, 'p> Requests<'t, 'p> {
    /// Watches for them; those that are there already come as events.
    pub(super) fn begin<T: Read + Write>(
        store: &mut Client<T>,
        boot: &'static BootInfo,
        platform: &Platform,
        traffic: &'t RefCell<Traffic<'p>>,
        grants: &'static GrantTable,
    ) -> Result<Self, Failure<T::Error>> {
        own_store::accept_orders(store)?;
        let rules = Rules::begin(store, boot, platform)?;
        let asks = Asks::begin(store, DomId(own_domid().raw()))?;
        let (vifs, uplinks) = (Vifs::begin(store)?, Uplinks::begin(store)?);
        Ok(Self { traffic, grants, rules, asks, vifs, uplinks })
    }

    /// Does what an event tells of.
    pub(super) fn heard<T: Read + Write>(
        &mut self,
        store: &mut Client<T>,
        event: &Event,
    ) -> Result<(), Failure<T::Error>> {
        let (path, traffic) = (event.path(), self.traffic);
        match event.token() {
            Asks::<ChannelId>::TOKEN => self.asks.heard(store, &mut ByRequest(traffic), path),
            Rules::TOKEN => self.apply(store),
            token if Vifs::<PortId>::concerns(token) => {
                self.vifs.heard(store, &mut ByDevice(traffic), path, token)
            }
            token if Uplinks::<UplinkId>::concerns(token) => {
                self.uplinks.heard(store, &mut ByUplink(traffic, self.grants), path, token)
            }
            _ => {
                obey(own_store::take_order(store)?);
                Ok(())
            }
        }
    }

    /// Looks at everything: a guest may ask more often than this domain can look, and others are
    /// heard all the same.
    pub(super) fn look_again<T: Read + Write>(
        &mut self,
        store: &mut Client<T>,
    ) -> Result<(), Failure<T::Error>> {
        let traffic = self.traffic;
        self.apply(store)?;
        obey(own_store::take_order(store)?);
        self.asks.look_again(store, &mut ByRequest(traffic))?;
        self.vifs.look_at_all(store, &mut ByDevice(traffic))?;
        self.uplinks.look_again(store, &mut ByUplink(traffic, self.grants))
    }

    /// Tells of what has ended by itself; false if nothing has.
    pub(super) fn tell_ends<T: Read + Write>(
        &mut self,
        store: &mut Client<T>,
    ) -> Result<bool, Failure<T::Error>> {
        let (traffic, mut any) = (self.traffic, false);
        while let Some((id, ended)) = next_ended(traffic) {
            any = true;
            let end = match ended {
                Ended::Closed | Ended::Partner => End::Left,
                Ended::Denied | Ended::Violation(_) => End::Broken,
            };
            self.asks.ended(store, &mut ByRequest(traffic), id, end)?;
        }
        while let Some((id, violation)) = next_violation(traffic) {
            any = true;
            self.vifs.broken(store, &mut ByDevice(traffic), id, violation)?;
        }
        while let Some((id, broken)) = next_broken(traffic) {
            any = true;
            self.uplinks.broken(store, &mut ByUplink(traffic, self.grants), id, broken)?;
        }
        Ok(any)
    }

    /// Some time has passed: what is wrong may be said again.
    pub(super) fn rest(&mut self) {
        self.asks.rest();
        self.vifs.rest();
    }

    /// Has the policy that there is now hold, if it can be read.
    fn apply<T: Read + Write>(&mut self, store: &mut Client<T>) -> Result<(), Failure<T::Error>> {
        if let Some(policy) = self.rules.read(store)? {
            self.traffic.borrow_mut().broker().set_policy(policy);
        }
        Ok(())
    }
}

fn next_ended(traffic: &RefCell<Traffic<'_>>) -> Option<(ChannelId, Ended)> {
    traffic.borrow_mut().next_ended()
}

fn next_violation(traffic: &RefCell<Traffic<'_>>) -> Option<(PortId, Violation)> {
    traffic.borrow_mut().network().1.next_violation()
}

fn next_broken(traffic: &RefCell<Traffic<'_>>) -> Option<(UplinkId, Fault)> {
    traffic.borrow_mut().network().1.next_broken()
}

fn obey(order: Option<Reason>) {
    if let Some(reason) = order {
        log::info!("asked for {reason:?}");
        sched::shutdown(reason);
    }
}
