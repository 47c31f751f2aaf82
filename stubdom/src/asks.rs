//! Channels on request: what guests ask for by nodes in the host's Xenstore, and where they find
//! the answer. [`databack::ask`] has the form of both.
//!
//! Each call waits for the store's answers. Whoever owns the connection serves the channels
//! meanwhile.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use databack::ask::{ANSWER, ASK, Ask, ChannelName, Malformed};
use embedded_io::{Read, Write};
use xen_sys::ids::{GrantRef, Port};
use xenstore_core::DomId;
use xenstore_core::client::{Access, Client, Failure, Nodes, Permission};
use xenstore_core::wire::Error;

use crate::complaints::Complaints;

/// Why a request by a number that is another domain's is refused.
const NOT_YOURS: &str = "a name that begins with a number and `-` is for the domain of that number";

/// How many refusals of one domain stand in the store at once; more are not answered, as each costs
/// this domain nodes of its own.
const REFUSALS_MAX: u32 = 4;

/// Who has the channels.
pub trait Endpoints {
    /// A channel, named.
    type Id: Copy + Ord;
    /// Why there is none.
    type Refusal: fmt::Display;

    /// Makes a channel that a domain, of that name if it is known, asks for.
    ///
    /// # Errors
    /// One sentence for who asked.
    fn open(
        &mut self,
        domain: DomId,
        name: Option<&str>,
        ask: &Ask,
    ) -> Result<Endpoint<Self::Id>, Self::Refusal>;

    /// Ends a channel.
    fn close(&mut self, id: Self::Id);
}

/// A channel that waits for its client.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<I> {
    /// Which.
    pub id: I,
    /// Where its page of words is.
    pub ring: GrantRef,
    /// Where its events go.
    pub port: Port,
}

/// Why a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its client went; another may come.
    Left,
    /// Its client broke a rule.
    Broken,
}

struct Request<I> {
    owner: DomId,
    /// What it asked for, and the channel that it got; `None` if it was refused.
    granted: Option<(Ask, I)>,
}

/// What one domain has.
#[derive(Default)]
struct Tally {
    answers: u32,
    refusals: u32,
}

/// The requests that stand in the store.
pub struct Asks<I> {
    own: DomId,
    /// By the names of their nodes, which need not be such as a channel can have.
    requests: BTreeMap<String, Request<I>>,
    names: BTreeMap<I, ChannelName>,
    tallies: BTreeMap<DomId, Tally>,
    complaints: Complaints,
}

impl<I: Copy + Ord> Asks<I> {
    /// The token of the watch that [`begin`](Self::begin) sets.
    pub const TOKEN: &'static str = "ask";

    /// Opens the directory of requests: anybody may create a node in it, nobody may list it. What
    /// is created there inherits that this domain may read and remove it.
    ///
    /// # Errors
    /// Any [`Failure`].
    pub fn begin<T: Read + Write>(
        store: &mut Client<T>,
        own: DomId,
    ) -> Result<Self, Failure<T::Error>> {
        store.transact(|t| {
            t.mkdir(ANSWER)?;
            t.mkdir(ASK)?;
            let entries = [Access::Write, Access::Both].map(|access| Permission::new(access, own));
            t.set_perms(ASK, &entries)
        })?;
        store.watch(ASK, Self::TOKEN)?;
        Ok(Self {
            own,
            requests: BTreeMap::new(),
            names: BTreeMap::new(),
            tallies: BTreeMap::new(),
            complaints: Complaints::default(),
        })
    }

    /// Some time has passed: what is wrong may be said again.
    pub fn rest(&mut self) {
        self.complaints.rest();
    }

    /// Looks at a request that an event names, by the event's path. An event of the directory stands
    /// for many of what is in it.
    ///
    /// # Errors
    /// Any [`Failure`] but an answer.
    pub fn heard<T: Read + Write, E: Endpoints<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        endpoints: &mut E,
        path: &str,
    ) -> Result<(), Failure<T::Error>> {
        if path == ASK {
            return self.look_again(store, endpoints);
        }
        let name = path.strip_prefix(ASK).and_then(|rest| rest.strip_prefix('/'));
        // What lies deeper is nobody's request.
        let Some(name) = name.filter(|name| !name.contains('/')) else { return Ok(()) };
        let node = format!("{ASK}/{name}");
        let owner = match store.perms(&node) {
            Ok(entries) => entries.first().map(|entry| self.who_owns_as(entry.domain)),
            Err(Failure::Answer(Error::Enoent)) => None,
            Err(failure) => return unless_answer(failure),
        };
        if let Some(request) = self.requests.get(name) {
            // Who was refused may write it again, and have another answer.
            if Some(request.owner) == owner && request.granted.is_some() {
                return Ok(());
            }
            self.withdraw(store, endpoints, name)?;
        }
        match owner {
            Some(owner) => self.answer(store, endpoints, name, owner),
            None => Ok(()),
        }
    }

    /// Looks at every request that there is, after events were lost: those of many may hide that of
    /// one.
    ///
    /// # Errors
    /// Any [`Failure`] but an answer.
    pub fn look_again<T: Read + Write, E: Endpoints<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        endpoints: &mut E,
    ) -> Result<(), Failure<T::Error>> {
        let known: Vec<_> = self.requests.keys().map(|name| format!("{ASK}/{name}")).collect();
        for path in known {
            self.heard(store, endpoints, &path)?;
        }
        let names = match store.directory(ASK) {
            Ok(names) => names,
            Err(failure) => return unless_answer(failure),
        };
        for name in names {
            if !self.requests.contains_key(&name) {
                self.heard(store, endpoints, &format!("{ASK}/{name}"))?;
            }
        }
        Ok(())
    }

    /// A channel has ended by itself. One that only its client left is made anew, for another,
    /// unless it was asked for once; then the request ends too.
    ///
    /// # Errors
    /// Any [`Failure`] but an answer.
    pub fn ended<T: Read + Write, E: Endpoints<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        endpoints: &mut E,
        id: I,
        end: End,
    ) -> Result<(), Failure<T::Error>> {
        let Some(name) = self.names.get(&id).cloned() else { return Ok(()) };
        let again = end == End::Left
            && self
                .requests
                .get(name.as_str())
                .is_some_and(|request| request.granted.as_ref().is_some_and(|(ask, _)| !ask.once));
        let owner = self.withdraw(store, endpoints, name.as_str())?;
        match owner {
            Some(owner) if again => self.answer(store, endpoints, name.as_str(), owner),
            // It may have been removed in between.
            _ => store.rm(&format!("{ASK}/{name}")).or_else(unless_answer),
        }
    }

    /// Who created a node of that owner. What dom0 creates keeps the owner of the directory, which
    /// creates nothing there by itself.
    fn who_owns_as(&self, owner: DomId) -> DomId {
        if owner == self.own { DomId(0) } else { owner }
    }

    fn answer<T: Read + Write, E: Endpoints<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        endpoints: &mut E,
        name: &str,
        owner: DomId,
    ) -> Result<(), Failure<T::Error>> {
        let value = match store.read(&format!("{ASK}/{name}")) {
            Ok(value) => value,
            Err(failure) => return unless_answer(failure),
        };
        let opened = match asked(name, &value) {
            Err(malformed) => Err(format!("{malformed}")),
            Ok((channel, _)) if is_anothers(&channel, owner) => Err(String::from(NOT_YOURS)),
            Ok((channel, ask)) => {
                let called = name_of(store, owner)?;
                let opened = endpoints.open(owner, called.as_deref(), &ask);
                opened
                    .map(|endpoint| (channel, ask, endpoint))
                    .map_err(|refusal| format!("{refusal}"))
            }
        };
        let granted = match opened {
            Ok((channel, ask, endpoint)) => {
                if let Err(failure) = self.publish(store, owner, &channel, &endpoint) {
                    let unpublished =
                        format_args!("channel {name} cannot be published: {failure:?}");
                    self.complaints.note(owner, unpublished);
                    endpoints.close(endpoint.id);
                    return unless_answer(failure);
                }
                self.names.insert(endpoint.id, channel);
                Some((ask, endpoint.id))
            }
            Err(refusal) => {
                self.complaints.note(owner, format_args!("channel {name}: {refusal}"));
                if self.tallies.get(&owner).is_some_and(|tally| tally.refusals == REFUSALS_MAX) {
                    return Ok(());
                }
                self.refuse(store, owner, name, &refusal).or_else(unless_answer)?;
                None
            }
        };
        let tally = self.tallies.entry(owner).or_default();
        tally.answers += 1;
        tally.refusals += u32::from(granted.is_none());
        self.requests.insert(name.into(), Request { owner, granted });
        Ok(())
    }

    /// As a libxenvchan server does.
    fn publish<T: Read + Write>(
        &self,
        store: &mut Client<T>,
        owner: DomId,
        name: &ChannelName,
        endpoint: &Endpoint<I>,
    ) -> Result<(), Failure<T::Error>> {
        let readers = self.readable_by(owner);
        let (ring, port) = (format!("{}", endpoint.ring.0), format!("{}", endpoint.port.0));
        let leaf = |leaf| format!("{ANSWER}/{owner}/{name}/{leaf}");
        store.transact(|t| {
            for (leaf, value) in [(leaf("ring-ref"), &ring), (leaf("event-channel"), &port)] {
                t.write(&leaf, value.as_bytes())?;
                t.set_perms(&leaf, &readers)?;
            }
            Ok(())
        })
    }

    fn refuse<T: Read + Write>(
        &self,
        store: &mut Client<T>,
        owner: DomId,
        name: &str,
        refusal: &str,
    ) -> Result<(), Failure<T::Error>> {
        let readers = self.readable_by(owner);
        let leaf = format!("{ANSWER}/{owner}/{name}/error");
        store.transact(|t| {
            t.write(&leaf, refusal.as_bytes())?;
            t.set_perms(&leaf, &readers)
        })
    }

    fn readable_by(&self, owner: DomId) -> [Permission; 2] {
        [Permission::new(Access::None, self.own), Permission::new(Access::Read, owner)]
    }

    /// Takes an answer back, and ends the channel. Says whose it was.
    fn withdraw<T: Read + Write, E: Endpoints<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        endpoints: &mut E,
        name: &str,
    ) -> Result<Option<DomId>, Failure<T::Error>> {
        let Some(request) = self.requests.remove(name) else { return Ok(None) };
        let owner = request.owner;
        let refused = request.granted.is_none();
        if let Some((_, id)) = request.granted {
            self.names.remove(&id);
            endpoints.close(id);
        }
        let tally = self.tallies.entry(owner).or_default();
        tally.answers -= 1;
        tally.refusals -= u32::from(refused);
        let node = if tally.answers == 0 {
            self.tallies.remove(&owner);
            format!("{ANSWER}/{owner}")
        } else {
            format!("{ANSWER}/{owner}/{name}")
        };
        store.rm(&node).or_else(unless_answer)?;
        Ok(Some(owner))
    }
}

/// Reads what a node of that name and value asks for.
fn asked(name: &str, value: &[u8]) -> Result<(ChannelName, Ask), Malformed> {
    Ok((name.parse()?, str::from_utf8(value).unwrap_or_default().parse()?))
}

/// Whether a name begins with the number of another domain, as in `7-tape`: so whoever begins a name
/// with its own finds nobody else there.
fn is_anothers(name: &ChannelName, owner: DomId) -> bool {
    let number = name.as_str().split_once('-').and_then(|(number, _)| number.parse::<u16>().ok());
    number.is_some_and(|number| number != owner.0)
}

/// What a domain is called, if this domain may know: the toolstack lets only dom0 and the domain
/// itself read it.
fn name_of<T: Read + Write>(
    store: &mut Client<T>,
    domain: DomId,
) -> Result<Option<String>, Failure<T::Error>> {
    match store.read(&format!("/local/domain/{domain}/name")) {
        Ok(name) => Ok(String::from_utf8(name).ok()),
        Err(failure) => unless_answer(failure).map(|()| None),
    }
}

/// A refusal of the store is somebody's fault, but no reason to end.
fn unless_answer<E>(failure: Failure<E>) -> Result<(), Failure<E>> {
    match failure {
        Failure::Answer(error) => {
            log::debug!("the store refuses: {}", error.name());
            Ok(())
        }
        failure => Err(failure),
    }
}

#[cfg(test)]
mod tests;
