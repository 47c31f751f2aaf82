//! Who serves which name.

use alloc::vec::Vec;

use xen_sys::ids::DomId;

use super::{ChannelId, Name};
use crate::frame::{Outcome, Reason};

/// What a domain is charged for a name that it serves, which is kept here and with its channel.
pub(super) const SERVICE_COST: usize = 256;

#[derive(Clone, Debug)]
struct Service {
    name: Name,
    domain: DomId,
    channel: ChannelId,
}

/// All services, in order of name and domain.
#[derive(Debug, Default)]
pub(super) struct Services(Vec<Service>);

impl Services {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn add(
        &mut self,
        name: &Name,
        domain: DomId,
        channel: ChannelId,
    ) -> Result<(), Reason> {
        let Err(place) = self.place(name, domain) else { return Err(Reason::Taken) };
        self.0.try_reserve(1).map_err(|_| Reason::NoMemory)?;
        self.0.insert(place, Service { name: name.clone(), domain, channel });
        Ok(())
    }

    /// Removes what this channel serves by that name; false if it does not.
    pub(super) fn remove(&mut self, name: &str, domain: DomId, channel: ChannelId) -> bool {
        match self.place(name, domain) {
            Ok(place) if self.0[place].channel == channel => {
                self.0.remove(place);
                true
            }
            _ => false,
        }
    }

    /// The channel that takes blocks for `name`, in `domain` if one is given.
    pub(super) fn find(&self, name: &str, domain: Option<DomId>) -> Result<ChannelId, Outcome> {
        if let Some(domain) = domain {
            let place = self.place(name, domain).map_err(|_| Outcome::NoReceiver)?;
            return Ok(self.0[place].channel);
        }
        let first = self.0.partition_point(|service| service.name.as_str() < name);
        let mut those =
            self.0[first..].iter().take(2).filter(|service| service.name.as_str() == name);
        let service = those.next().ok_or(Outcome::NoReceiver)?;
        if those.next().is_some() { Err(Outcome::Ambiguous) } else { Ok(service.channel) }
    }

    fn place(&self, name: &str, domain: DomId) -> Result<usize, usize> {
        self.0.binary_search_by(|service| {
            (service.name.as_str(), service.domain).cmp(&(name, domain))
        })
    }
}
