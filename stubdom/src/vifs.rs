//! Network interfaces on request: what the toolstack and guests say of them in the host's Xenstore.
//! [`netback::device`] has the form of both.
//!
//! Each call waits for the store's answers. Whoever owns the connection serves the interfaces
//! meanwhile.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use embedded_io::{Read, Write};
use netback::Mac;
use netback::device::{self, OFFER, Step, Wanted};
use netback::port::Rate;
use xen_sys::clock::SystemTime;
use xen_sys::xenbus::State;
use xenstore_core::DomId;
use xenstore_core::client::{Client, Failure, Nodes};

use crate::complaints::Complaints;
use crate::nodes::{none_if_refused, read};

/// The directory of this domain's halves, relative to its home.
const BACKEND: &str = "backend/vif";

/// For how long a half that is closed for ever stays readable: the toolstack waits to see it closed
/// first, and only then for it to be gone. A directory that went before it looked is a failure to it.
const LINGER: Duration = Duration::from_secs(1);

/// Who has the interfaces.
pub trait Interfaces {
    /// An interface, named.
    type Id: Copy + Ord;
    /// Why there is none.
    type Refusal: fmt::Display;

    /// Connects to the rings of a guest.
    ///
    /// # Errors
    /// One sentence for the guest's administrator.
    fn connect(
        &mut self,
        guest: DomId,
        settings: &Settings,
        wanted: &Wanted,
    ) -> Result<Self::Id, Self::Refusal>;

    /// Disconnects from them.
    fn disconnect(&mut self, id: Self::Id);
}

/// What the toolstack says of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its address.
    pub mac: Mac,
    /// How much it may send.
    pub rate: Option<Rate>,
}

/// Which interface: its guest, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    guest: DomId,
    handle: u32,
}

impl Key {
    /// Reads `GUEST/HANDLE`, and what stands behind it.
    fn parse(text: &str) -> Option<(Self, &str)> {
        let (guest, rest) = text.split_once('/')?;
        let (handle, leaf) = rest.split_once('/').unwrap_or((rest, ""));
        let key = Self { guest: DomId(guest.parse().ok()?), handle: handle.parse().ok()? };
        // What is written otherwise is another directory.
        (format!("{key}") == text[..text.len() - leaf.len()].trim_end_matches('/'))
            .then_some((key, leaf))
    }

    fn node(self, leaf: &str) -> String {
        format!("{BACKEND}/{self}/{leaf}")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.guest, self.handle)
    }
}

struct Device<I> {
    /// The other half's directory.
    frontend: String,
    /// It is connected, as this.
    id: Option<I>,
}

/// The interfaces that stand in the store.
pub struct Vifs<I> {
    devices: BTreeMap<Key, Device<I>>,
    keys: BTreeMap<I, Key>,
    /// Directories that are to be removed, and when; `None` if that is not set yet.
    leaving: VecDeque<(Key, Option<SystemTime>)>,
    complaints: Complaints,
}

impl<I: Copy + Ord> Vifs<I> {
    /// The token of the watch that [`begin`](Self::begin) sets.
    pub const TOKEN: &'static str = "vif";

    /// What the tokens of the watches on other halves begin with.
    const OTHER: &'static str = "vif/";

    /// Watches for interfaces; those that are there already come as events.
    ///
    /// # Errors
    /// Any [`Failure`].
    pub fn begin<T: Read + Write>(store: &mut Client<T>) -> Result<Self, Failure<T::Error>> {
        store.watch(BACKEND, Self::TOKEN)?;
        Ok(Self {
            devices: BTreeMap::new(),
            keys: BTreeMap::new(),
            leaving: VecDeque::new(),
            complaints: Complaints::default(),
        })
    }

    /// Whether a watch event is one of these.
    #[must_use]
    pub fn concerns(token: &str) -> bool {
        token == Self::TOKEN || token.starts_with(Self::OTHER)
    }

    /// Some time has passed: what is wrong may be said again.
    pub fn rest(&mut self) {
        self.complaints.rest();
    }

    /// Looks at what an event names.
    ///
    /// # Errors
    /// Any [`Failure`] but an answer.
    pub fn heard<T: Read + Write, N: Interfaces<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        network: &mut N,
        path: &str,
        token: &str,
    ) -> Result<(), Failure<T::Error>> {
        if let Some(key) = token.strip_prefix(Self::OTHER).and_then(Key::parse) {
            return self.look(store, network, key.0);
        }
        match path.strip_prefix(BACKEND).map(|rest| rest.trim_start_matches('/')) {
            Some("") => self.look_at_all(store, network),
            Some(rest) => match Key::parse(rest) {
                Some((key, "" | "state" | "online")) => self.look(store, network, key),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Removes what is to go by now, and says when there is more to remove.
    ///
    /// # Errors
    /// Any [`Failure`] but an answer.
    pub fn remove_left<T: Read + Write>(
        &mut self,
        store: &mut Client<T>,
        now: SystemTime,
    ) -> Result<Option<SystemTime>, Failure<T::Error>> {
        for (_, due) in self.leaving.iter_mut().rev().take_while(|(_, due)| due.is_none()) {
            *due = Some(now.after(LINGER));
        }
        while let Some((key, _)) = self.leaving.pop_front_if(|(_, due)| *due <= Some(now)) {
            // The toolstack may have begun the next of this number.
            if read::<u8, _>(store, &key.node("online"))? != Some(1) {
                remove(store, key)?;
            }
        }
        Ok(self.leaving.front().and_then(|&(_, due)| due))
    }

    /// An interface broke a rule: it is ended, and stays so until its guest begins anew.
    ///
    /// # Errors
    /// Any [`Failure`] but an answer.
    pub fn broken<T: Read + Write, N: Interfaces<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        network: &mut N,
        id: I,
        why: impl fmt::Display,
    ) -> Result<(), Failure<T::Error>> {
        let Some(&key) = self.keys.get(&id) else { return Ok(()) };
        self.disconnect(network, key);
        self.refuse(store, key, why)
    }

    /// Looks at all that there are: at the beginning, when their directory as a whole changed, or
    /// when events were lost.
    ///
    /// # Errors
    /// Any [`Failure`] but an answer.
    pub fn look_at_all<T: Read + Write, N: Interfaces<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        network: &mut N,
    ) -> Result<(), Failure<T::Error>> {
        let known = self.devices.keys().copied().collect::<Vec<_>>();
        for key in known {
            self.look(store, network, key)?;
        }
        for guest in store.directory(BACKEND).or_else(none_if_refused)? {
            let handles = store.directory(&format!("{BACKEND}/{guest}"));
            for handle in handles.or_else(none_if_refused)? {
                if let Some((key, "")) = Key::parse(&format!("{guest}/{handle}")) {
                    self.look(store, network, key)?;
                }
            }
        }
        Ok(())
    }

    /// Looks at both halves of an interface and does what is next.
    fn look<T: Read + Write, N: Interfaces<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        network: &mut N,
        key: Key,
    ) -> Result<(), Failure<T::Error>> {
        let Some(own) = read::<State, _>(store, &key.node("state"))? else {
            return self.forget(store, network, key);
        };
        if !self.devices.contains_key(&key) {
            if own == State::Closed {
                return self.pass_by(store, key);
            }
            if !self.meet(store, key)? {
                return Ok(());
            }
        }
        let Some(device) = self.devices.get(&key) else { return Ok(()) };
        let (frontend, connected) = (device.frontend.clone(), device.id.is_some());
        let other = read(store, &format!("{frontend}/state"))?.unwrap_or(State::Unknown);
        let online = read::<u8, _>(store, &key.node("online"))? == Some(1);
        match device::next(own, other, online, connected) {
            Step::Wait => Ok(()),
            Step::Offer => offer(store, key),
            Step::Connect => self.connect(store, network, key, &frontend),
            Step::Disconnect(state) => {
                self.disconnect(network, key);
                write_state(store, key, state)
            }
            Step::Remove => {
                self.disconnect(network, key);
                write_state(store, key, State::Closed)?;
                self.forget(store, network, key)?;
                if other == State::Unknown {
                    return remove(store, key);
                }
                self.leaving.push_back((key, None));
                Ok(())
            }
        }
    }

    /// What was refused as no interface at all is not looked at again before it changes; what was
    /// closed for ever is to go, whoever closed it.
    fn pass_by<T: Read + Write>(
        &mut self,
        store: &mut Client<T>,
        key: Key,
    ) -> Result<(), Failure<T::Error>> {
        let is_leaving = self.leaving.iter().any(|&(leaving, _)| leaving == key);
        if !is_leaving && read::<u8, _>(store, &key.node("online"))? == Some(0) {
            self.leaving.push_back((key, None));
        }
        Ok(())
    }

    /// Gets to know a new interface, and watches its other half; `false` if that cannot be one.
    fn meet<T: Read + Write>(
        &mut self,
        store: &mut Client<T>,
        key: Key,
    ) -> Result<bool, Failure<T::Error>> {
        let Some(frontend) = read::<String, _>(store, &key.node("frontend"))? else {
            return Ok(false);
        };
        // Only what that guest alone can write is its own half.
        if !frontend.starts_with(&format!("/local/domain/{}/", key.guest)) {
            self.refuse(store, key, format_args!("its frontend is not a directory of its guest"))?;
            return Ok(false);
        }
        let watched = store.watch(&format!("{frontend}/state"), &token(key));
        if let Err(failure) = watched {
            none_if_refused::<(), _>(failure)?;
            self.complaints.note(key.guest, format_args!("interface {key} cannot be watched"));
            return Ok(false);
        }
        self.devices.insert(key, Device { frontend, id: None });
        Ok(true)
    }

    fn connect<T: Read + Write, N: Interfaces<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        network: &mut N,
        key: Key,
        frontend: &str,
    ) -> Result<(), Failure<T::Error>> {
        let Some(mac) = read(store, &key.node("mac"))? else {
            return self.refuse(store, key, format_args!("its mac is no address"));
        };
        let rate = read::<String, _>(store, &key.node("rate"))?;
        let settings = Settings { mac, rate: rate.and_then(|rate| Rate::parse(&rate)) };
        let wanted = Wanted::read(|node| read(store, &format!("{frontend}/{node}")))?;
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(unfit) => return self.refuse(store, key, unfit),
        };
        match network.connect(key.guest, &settings, &wanted) {
            Ok(id) => {
                self.keys.insert(id, key);
                if let Some(device) = self.devices.get_mut(&key) {
                    device.id = Some(id);
                }
                store.rm(&key.node("error")).or_else(none_if_refused)?;
                write_state(store, key, State::Connected)
            }
            Err(refusal) => self.refuse(store, key, refusal),
        }
    }

    fn disconnect<N: Interfaces<Id = I>>(&mut self, network: &mut N, key: Key) {
        let id = self.devices.get_mut(&key).and_then(|device| device.id.take());
        if let Some(id) = id {
            self.keys.remove(&id);
            network.disconnect(id);
        }
    }

    /// An interface's directory is gone, or about to go.
    fn forget<T: Read + Write, N: Interfaces<Id = I>>(
        &mut self,
        store: &mut Client<T>,
        network: &mut N,
        key: Key,
    ) -> Result<(), Failure<T::Error>> {
        self.disconnect(network, key);
        let Some(device) = self.devices.remove(&key) else { return Ok(()) };
        let unwatched = store.unwatch(&format!("{}/state", device.frontend), &token(key));
        unwatched.or_else(none_if_refused)
    }

    /// Ends an interface, and says why.
    fn refuse<T: Read + Write>(
        &mut self,
        store: &mut Client<T>,
        key: Key,
        why: impl fmt::Display,
    ) -> Result<(), Failure<T::Error>> {
        self.complaints.note(key.guest, format_args!("interface {}: {why}", key.handle));
        let why = format!("{why}");
        let written = store.transact(|t| {
            t.write(&key.node("error"), why.as_bytes())?;
            t.write(&key.node("state"), format!("{}", State::Closed).as_bytes())
        });
        written.or_else(none_if_refused)
    }
}

fn token(key: Key) -> String {
    format!("{}{key}", Vifs::<()>::OTHER)
}

fn remove<T: Read + Write>(store: &mut Client<T>, key: Key) -> Result<(), Failure<T::Error>> {
    store.rm(&format!("{BACKEND}/{key}")).or_else(none_if_refused)
}

/// Says what this half can do, and then that it waits.
fn offer<T: Read + Write>(store: &mut Client<T>, key: Key) -> Result<(), Failure<T::Error>> {
    let written = store.transact(|t| {
        for (leaf, value) in OFFER {
            t.write(&key.node(leaf), value.as_bytes())?;
        }
        t.write(&key.node("state"), format!("{}", State::InitWait).as_bytes())
    });
    written.or_else(none_if_refused)
}

fn write_state<T: Read + Write>(
    store: &mut Client<T>,
    key: Key,
    state: State,
) -> Result<(), Failure<T::Error>> {
    store.write(&key.node("state"), format!("{state}").as_bytes()).or_else(none_if_refused)
}

#[cfg(test)]
mod tests;
