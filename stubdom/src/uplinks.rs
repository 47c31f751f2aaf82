//! Uplinks: this domain's own network devices, as the toolstack gives them by `vif=` like those of
//! any domain. What both halves of one say of it in the host's Xenstore goes through
//! [`netfront::handshake`], which has the form of it.
//!
//! Each call waits for the store's answers. Whoever owns the connection serves its devices
//! meanwhile.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use embedded_io::{Read, Write};
use netfront::handshake::{Features, Handshake, Rings, Step};
use xen_sys::xenbus::State;
use xenstore_core::DomId;
use xenstore_core::client::{Client, Failure, Nodes};

use crate::nodes::{none_if_refused, read};

/// The directory of this domain's halves, relative to its home.
const FRONTEND: &str = "device/vif";

/// Steps that are taken one after the other for one device: more than any sound backend needs.
const STEPS: usize = 4;

/// Who has the devices.
pub trait Frontends {
    /// A device, named.
    type Id: Copy;
    /// Why there is none.
    type Refusal: fmt::Display;

    /// Sets up rings for a backend.
    ///
    /// # Errors
    /// One sentence for the operator.
    fn set_up(
        &mut self,
        backend: DomId,
        features: Features,
    ) -> Result<(Self::Id, Rings), Self::Refusal>;

    /// The backend is connected to them.
    fn begin(&mut self, id: Self::Id);

    /// Gives them up.
    fn end(&mut self, id: Self::Id);
}

struct Device<I> {
    /// Where the backend is.
    domain: DomId,
    /// Its directory.
    backend: String,
    handshake: Handshake,
    id: Option<I>,
}

/// The devices that stand in the store, by their number.
pub struct Uplinks<I> {
    devices: BTreeMap<u32, Device<I>>,
}

impl<I: Copy + PartialEq> Uplinks<I> {
    /// The token of the watch that [`begin`](Self::begin) sets.
    const TOKEN: &'static str = "uplink";

    /// What the tokens of the watches on backends begin with.
    const BACKEND: &'static str = "uplink/";

    /// Watches for devices; those that are there already come as events.
    ///
    /// # Errors
    /// Any [`Failure`].
    pub fn begin<T: Read + Write>(store: &mut Client<T>) -> Result<Self, Failure<T::Error>> {
        store.watch(FRONTEND, Self::TOKEN)?;
        Ok(Self { devices: BTreeMap::new() })
    }

    /// Whether a watch event is one of these.
    #[must_use]
    pub fn concerns(token: &str) -> bool {
        token == Self::TOKEN || token.starts_with(Self::BACKEND)
    }

    /// Looks at what an event names.
    ///
    /// # Errors
    /// Any [`Failure`] but an answer.
    pub fn heard<T: Read + Write, F: Frontends<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        frontends: &mut F,
        path: &str,
        token: &str,
    ) -> Result<(), Failure<T::Error>> {
        let backend = token.strip_prefix(Self::BACKEND).and_then(number);
        if let Some(handle) = backend {
            return self.look(store, frontends, handle);
        }
        match path.strip_prefix(FRONTEND).map(|rest| rest.trim_start_matches('/')) {
            Some("") => self.look_again(store, frontends),
            // What else changes below is our own doing, but for the end of it.
            Some(rest) => number(rest).map_or(Ok(()), |handle| self.look(store, frontends, handle)),
            None => Ok(()),
        }
    }

    /// Looks at all devices: at the beginning, and when events were lost.
    ///
    /// # Errors
    /// Any [`Failure`] but an answer.
    pub fn look_again<T: Read + Write, F: Frontends<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        frontends: &mut F,
    ) -> Result<(), Failure<T::Error>> {
        let there = store.directory(FRONTEND).or_else(none_if_refused)?;
        let mut handles: Vec<u32> = self.devices.keys().copied().collect();
        handles.extend(there.iter().filter_map(|name| number(name)));
        handles.into_iter().try_for_each(|handle| self.look(store, frontends, handle))
    }

    /// A device's backend broke a rule, so it is closed, and not tried again.
    ///
    /// # Errors
    /// Any [`Failure`] but an answer.
    pub fn broken<T: Read + Write, F: Frontends<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        frontends: &mut F,
        id: I,
        why: impl fmt::Display,
    ) -> Result<(), Failure<T::Error>> {
        let mut devices = self.devices.iter_mut();
        let Some((&handle, device)) = devices.find(|(_, device)| device.id == Some(id)) else {
            return Ok(());
        };
        device.fail(store, frontends, handle, why)
    }

    /// Looks at a device's backend and does what is next.
    fn look<T: Read + Write, F: Frontends<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        frontends: &mut F,
        handle: u32,
    ) -> Result<(), Failure<T::Error>> {
        let backend = read::<String, _>(store, &node(handle, "backend"))?;
        if self.devices.get(&handle).map(|device| &device.backend) != backend.as_ref() {
            self.forget(store, frontends, handle)?;
            match backend {
                Some(backend) => self.meet(store, handle, backend)?,
                None => return Ok(()),
            }
        }
        match self.devices.get_mut(&handle) {
            Some(device) => device.look(store, frontends, handle),
            None => Ok(()),
        }
    }

    /// Gets to know a device, and watches its backend.
    fn meet<T: Read + Write>(
        &mut self,
        store: &mut Client<T>,
        handle: u32,
        backend: String,
    ) -> Result<(), Failure<T::Error>> {
        let domain = read::<u16, _>(store, &node(handle, "backend-id"))?.map(DomId);
        let home = domain.map(|domain| format!("/local/domain/{domain}/"));
        let Some(domain) = domain.filter(|_| home.is_some_and(|home| backend.starts_with(&home)))
        else {
            log::warn!("uplink {handle}: its backend is not a directory of its domain");
            return Ok(());
        };
        let watched = store.watch(&format!("{backend}/state"), &token(handle));
        if watched.map(|()| true).or_else(none_if_refused)? {
            let handshake = Handshake::default();
            self.devices.insert(handle, Device { domain, backend, handshake, id: None });
        } else {
            log::warn!("uplink {handle}: its backend cannot be watched");
        }
        Ok(())
    }

    /// A device's directory is gone, or of another device.
    fn forget<T: Read + Write, F: Frontends<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        frontends: &mut F,
        handle: u32,
    ) -> Result<(), Failure<T::Error>> {
        let Some(mut device) = self.devices.remove(&handle) else { return Ok(()) };
        device.give_up(frontends);
        let unwatched = store.unwatch(&format!("{}/state", device.backend), &token(handle));
        unwatched.or_else(none_if_refused)
    }
}

impl<I: Copy> Device<I> {
    fn look<T: Read + Write, F: Frontends<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        frontends: &mut F,
        handle: u32,
    ) -> Result<(), Failure<T::Error>> {
        for _ in 0..STEPS {
            let state = read(store, &format!("{}/state", self.backend))?;
            let online = read::<u8, _>(store, &format!("{}/online", self.backend))? == Some(1);
            match self.handshake.backend_is(state.unwrap_or(State::Unknown), online) {
                Step::Wait => break,
                Step::Connect => self.connect(store, frontends, handle)?,
                Step::Work => {
                    log::info!("uplink {handle}: connected to domain {}", self.domain);
                    self.id.into_iter().for_each(|id| frontends.begin(id));
                }
                Step::Enter(state) => self.enter(store, frontends, handle, state)?,
            }
        }
        Ok(())
    }

    fn connect<T: Read + Write, F: Frontends<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        frontends: &mut F,
        handle: u32,
    ) -> Result<(), Failure<T::Error>> {
        let backend = &self.backend;
        let features = Features::read(|node| {
            Ok::<_, Failure<T::Error>>(
                read::<u32, _>(store, &format!("{backend}/{node}"))?
                    .is_some_and(|value| value != 0),
            )
        })?;
        let Some(features) = features else {
            return self.fail(store, frontends, handle, "its backend has no feature-rx-copy");
        };
        let rings = match frontends.set_up(self.domain, features) {
            Ok((id, rings)) => {
                self.id = Some(id);
                rings
            }
            Err(refusal) => return self.fail(store, frontends, handle, refusal),
        };
        let written = store.transact(|t| {
            for (leaf, value) in rings.nodes() {
                t.write(&node(handle, leaf), format!("{value}").as_bytes())?;
            }
            t.write(&node(handle, "state"), format!("{}", State::Connected).as_bytes())
        });
        written.or_else(none_if_refused)
    }

    fn fail<T: Read + Write, F: Frontends<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        frontends: &mut F,
        handle: u32,
        why: impl fmt::Display,
    ) -> Result<(), Failure<T::Error>> {
        log::warn!("uplink {handle}: {why}");
        match self.handshake.fail() {
            Step::Enter(state) => self.enter(store, frontends, handle, state),
            Step::Wait | Step::Connect | Step::Work => Ok(()),
        }
    }

    fn enter<T: Read + Write, F: Frontends<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        frontends: &mut F,
        handle: u32,
        state: State,
    ) -> Result<(), Failure<T::Error>> {
        self.give_up(frontends);
        let written = store.write(&node(handle, "state"), format!("{state}").as_bytes());
        written.or_else(none_if_refused)
    }

    fn give_up<F: Frontends<Id = I>>(&mut self, frontends: &mut F) {
        self.id.take().into_iter().for_each(|id| frontends.end(id));
    }
}

fn node(handle: u32, leaf: &str) -> String {
    format!("{FRONTEND}/{handle}/{leaf}")
}

fn token(handle: u32) -> String {
    format!("{}{handle}", Uplinks::<()>::BACKEND)
}

/// A device's number, as the toolstack writes it; what is written otherwise is something else.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| format!("{number}") == text)
}

#[cfg(test)]
mod tests;
