//! Features and quotas of domains.

use alloc::string::String;

use super::Server;
use crate::domain::Domain;
use crate::host::{DomId, Host};
use crate::quota::{Denial, Limits, Quota};
use crate::reply::Reply;
use crate::store::Caller;
use crate::wire::{Error, Features};

impl Server {
    pub(super) fn feature(
        &self,
        caller: Caller,
        domain: Option<DomId>,
        host: &mut dyn Host,
    ) -> Result<Reply<'static>, Denial> {
        if domain.is_some() && !caller.subject.privileged {
            return Err(Error::Eacces.into());
        }
        let domain = domain.unwrap_or(caller.domain);
        let features = match self.store.domains.find(domain) {
            Some(known) => known.features,
            None => host.identify(domain).map(|_| Features::all()).ok_or(Error::Enoent)?,
        };
        Ok(Reply::Number(features.bits().into()))
    }

    pub(super) fn set_feature(
        &mut self,
        domain: DomId,
        features: i32,
        host: &mut dyn Host,
    ) -> Result<Reply<'static>, Denial> {
        let known = self.known_or_existing(domain, host)?;
        if known.conn.is_some() {
            return Err(Error::Ebusy.into());
        }
        let features = u32::try_from(features).ok().and_then(Features::from_bits);
        known.features = features.ok_or(Error::Einval)?;
        Ok(Reply::Done)
    }

    pub(super) fn quota(
        &self,
        domain: Option<DomId>,
        name: Option<&[u8]>,
        host: &mut dyn Host,
    ) -> Result<Reply<'static>, Denial> {
        let Some(name) = name else { return Ok(Reply::Text(names())) };
        let limits = match domain {
            None => self.store.limits,
            Some(domain) => self.limits_of(domain, host)?,
        };
        let quota = Quota::from_name(name).ok_or(Error::Einval)?;
        Ok(Reply::Number(limits.of(quota).into()))
    }

    pub(super) fn set_quota(
        &mut self,
        domain: Option<DomId>,
        name: &[u8],
        limit: i32,
        host: &mut dyn Host,
    ) -> Result<Reply<'static>, Denial> {
        let setting = Quota::from_name(name).zip(u32::try_from(limit).ok());
        let Some(domain) = domain else {
            let (quota, limit) = setting.ok_or(Error::Einval)?;
            self.store.limits.set(quota, limit);
            return Ok(Reply::Done);
        };
        let known = self.known_or_existing(domain, host)?;
        let (quota, limit) = setting.ok_or(Error::Einval)?;
        known.limits.set(quota, limit);
        if let Some(conn) = known.conn {
            // A higher limit may be what it waits for.
            self.wake(conn);
        }
        Ok(Reply::Done)
    }

    fn limits_of(&self, domain: DomId, host: &mut dyn Host) -> Result<Limits, Denial> {
        match self.store.domains.find(domain) {
            Some(known) => Ok(known.limits),
            None => Ok(host.identify(domain).map(|_| self.store.limits).ok_or(Error::Enoent)?),
        }
    }

    /// Returns a domain that is known, or that Xen knows and that so becomes known.
    fn known_or_existing(
        &mut self,
        domain: DomId,
        host: &mut dyn Host,
    ) -> Result<&mut Domain, Denial> {
        if self.store.domains.find(domain).is_none() {
            let identity = host.identify(domain).ok_or(Error::Enoent)?;
            let limits = self.store.limits;
            self.store.domains.add(domain, identity, limits);
        }
        Ok(self.store.domains.find_mut(domain).ok_or(Error::Enoent)?)
    }
}

fn names() -> String {
    let names = Quota::ALL.map(Quota::name);
    names.join(" ")
}
