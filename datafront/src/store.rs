//! What is asked of Xenstore: who we are, who has the channels, and a channel.

use core::hash::BuildHasher;
use core::str::FromStr;
use core::time::Duration;
use std::hash::RandomState;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use databack::ask::{ANSWER, ASK, Ask, ChannelName};
use nix::poll::{PollFd, PollFlags, poll};
use xen_sys::ids::{DomId, GrantRef, Port};
use xenstore_core::client::{Access, Client, Failure, Nodes, Permission};
use xenstore_core::host;
use xenstore_core::wire;

use crate::xenbus::{XENBUS, Xenbus, left, uninterrupted};
use crate::{Backend, Error, Options};

/// Where the operator says which domain has the data channels of this host.
pub const ANNOUNCED: &str = "/tool/datafront/backend";

/// The token of each watch: all of them make us look at the same things.
const TOKEN: &str = "datafront";

/// A connection to Xenstore.
pub(crate) struct Store(Client<Xenbus>);

impl Store {
    pub(crate) fn open() -> Result<Self, Error> {
        let stream = Xenbus::open().map_err(|error| Error::Device { path: XENBUS, error })?;
        Ok(Self(Client::without_ids(stream)))
    }

    /// A node's text, if there is one that we may read.
    fn text(&mut self, path: &str) -> Result<Option<String>, Error> {
        match self.0.read(path) {
            Ok(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            Err(Failure::Answer(wire::Error::Enoent | wire::Error::Eacces)) => Ok(None),
            Err(failure) => Err(Error::Store { path: path.to_owned(), failure }),
        }
    }

    /// A node that says a number.
    fn number<T: FromStr>(
        &mut self,
        path: &str,
        expected: &'static str,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.text(path)? else { return Ok(None) };
        match value.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Error::Node { path: path.to_owned(), value, expected }),
        }
    }

    /// A node that says a domain's number.
    fn domain(&mut self, path: &str) -> Result<Option<DomId>, Error> {
        let number: Option<u16> = self.number(path, "domain's number")?;
        let Some(number) = number else { return Ok(None) };
        let wrong = || Error::Node {
            path: path.to_owned(),
            value: number.to_string(),
            expected: "domain's number",
        };
        DomId::new(number).map(Some).ok_or_else(wrong)
    }

    /// Our own domain.
    pub(crate) fn own_domain(&mut self) -> Result<DomId, Error> {
        let missing = || Error::Store {
            path: "domid".to_owned(),
            failure: Failure::Answer(wire::Error::Enoent),
        };
        self.domain("domid")?.ok_or_else(missing)
    }

    /// The domain that is meant.
    pub(crate) fn backend(&mut self, backend: &Backend) -> Result<DomId, Error> {
        match backend {
            Backend::Domain(domain) => Ok(*domain),
            Backend::Named(name) => self.named(name),
            Backend::Announced => {
                self.domain(ANNOUNCED)?.ok_or(Error::NoBackend { node: ANNOUNCED })
            }
        }
    }

    /// The domain of that name. Only dom0 may list the domains and read all their names.
    fn named(&mut self, name: &str) -> Result<DomId, Error> {
        let unknown = || Error::UnknownDomain(name.to_owned());
        let domains = self.0.directory("/local/domain").map_err(|_| unknown())?;
        for number in domains {
            let home = format!("/local/domain/{number}");
            if self.text(&format!("{home}/name"))?.as_deref() == Some(name) {
                return number.parse().ok().and_then(DomId::new).ok_or_else(unknown);
            }
        }
        Err(unknown())
    }

    /// Whether there is such a node, as far as we may see: what is hidden from us is there.
    fn has(&mut self, path: &str) -> Result<bool, Error> {
        match self.0.read(path) {
            Ok(_) | Err(Failure::Answer(wire::Error::Eacces)) => Ok(true),
            Err(Failure::Answer(wire::Error::Enoent)) => Ok(false),
            Err(failure) => Err(Error::Store { path: path.to_owned(), failure }),
        }
    }

    /// Waits until a domain takes requests, which it does some time after its start. dom0 could
    /// write them anywhere, even where no domain is.
    fn await_requests(&mut self, backend: DomId, patience: Duration) -> Result<(), Error> {
        let path = format!("{}/{ASK}", home(backend));
        let deadline = Instant::now() + patience;
        let failure = Failure::Answer(wire::Error::Enoent);
        if self.has(&path)? {
            return Ok(());
        }
        if !self.has(&home(backend))? {
            return Err(Error::NoChannels { backend, path, failure });
        }
        self.watch(&path)?;
        while !self.has(&path)? {
            if !self.take_events()? && !self.is_ready_by(deadline)? {
                return Err(Error::NoChannels { backend, path, failure });
            }
        }
        Ok(())
    }

    /// Lets every domain of this host know that `domain` has the data channels.
    pub(crate) fn announce(&mut self, domain: DomId) -> Result<(), Error> {
        let home = home(domain);
        if !self.has(&home)? {
            let failure = Failure::Answer(wire::Error::Enoent);
            return Err(Error::NoChannels { backend: domain, path: home, failure });
        }
        let own = self.own_domain()?;
        let perms = [Permission::new(Access::Read, host::DomId(own.raw()))];
        let value = domain.raw().to_string();
        let announced = self.0.transact(|t| {
            t.write(ANNOUNCED, value.as_bytes())?;
            t.set_perms(ANNOUNCED, &perms)
        });
        announced.map_err(|failure| Error::Store { path: ANNOUNCED.to_owned(), failure })
    }

    /// Asks for a channel and waits for the answer.
    pub(crate) fn ask(
        mut self,
        ask: &Ask,
        options: &Options,
    ) -> Result<(Asked, GrantRef, Port), Error> {
        let own = self.own_domain()?;
        let backend = self.backend(&options.backend)?;
        self.await_requests(backend, options.patience)?;
        let home = home(backend);
        let name = fresh_name(own)?;
        let request = format!("{home}/{ASK}/{name}");
        let answer = format!("{home}/{ANSWER}/{}/{name}", own.raw());
        self.watch(&answer)?;
        if options.backend == Backend::Announced {
            self.watch(ANNOUNCED)?;
        }
        // Who is called is to read it, and to clean it away when it is left behind; nobody else.
        let perms = [(Access::None, own), (Access::Both, backend)]
            .map(|(access, domain)| Permission::new(access, host::DomId(domain.raw())));
        let asked = self.0.transact(|t| {
            t.write(&request, ask.to_string().as_bytes())?;
            t.set_perms(&request, &perms)
        });
        if let Err(failure) = asked {
            return Err(Error::NoChannels { backend, path: request, failure });
        }
        let announced = options.backend == Backend::Announced;
        let mut asked = Asked { store: self, backend, announced, request, answer, ring: None };
        let (ring, port) = asked.answer(Instant::now() + options.patience, options)?;
        asked.ring = Some(ring);
        Ok((asked, ring, port))
    }

    fn watch(&mut self, path: &str) -> Result<(), Error> {
        let watched = self.0.watch(path, TOKEN);
        watched.map_err(|failure| Error::Store { path: path.to_owned(), failure })
    }

    /// Waits until there is something to read, or the time has come; says whether there is.
    fn is_ready_by(&self, deadline: Instant) -> Result<bool, Error> {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        let ready = uninterrupted(|| Ok(poll(&mut fds, left(Some(deadline)))? > 0));
        ready.map_err(|error| Error::Device { path: XENBUS, error })
    }

    /// Takes the events that are here; says whether there were any.
    fn take_events(&mut self) -> Result<bool, Error> {
        let mut any = false;
        let failed = |failure| Error::Store { path: XENBUS.to_owned(), failure };
        while self.0.poll_event().map_err(failed)?.is_some() {
            any = true;
        }
        Ok(any)
    }
}

impl AsFd for Store {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.stream().as_fd()
    }
}

/// A request for a channel; dropped, it is taken back, and the channel ends.
pub(crate) struct Asked {
    store: Store,
    backend: DomId,
    /// Whether the operator's node named the backend.
    announced: bool,
    request: String,
    answer: String,
    /// What was promised.
    ring: Option<GrantRef>,
}

impl Asked {
    /// The domain that was asked.
    pub(crate) const fn backend(&self) -> DomId {
        self.backend
    }

    /// Takes the request back by a connection of its own.
    pub(crate) fn withdrawal(&self) -> impl Fn() + Send + use<> {
        let request = self.request.clone();
        move || {
            // The program is about to end; there is nobody to be told of a failure.
            if let Ok(mut store) = Store::open() {
                let _ = store.0.rm(&request);
            }
        }
    }

    /// Waits until the domain has promised a channel: its first page and its port.
    fn answer(&mut self, deadline: Instant, options: &Options) -> Result<(GrantRef, Port), Error> {
        loop {
            if let Some(why) = self.store.text(&format!("{}/error", self.answer))? {
                return Err(Error::Refused { backend: self.backend, why });
            }
            if let (Some(ring), Some(port)) = (self.ring()?, self.port()?) {
                return Ok((ring, port));
            }
            // What came while these were read is kept with us, and the file says nothing of it.
            if self.store.take_events()? {
                continue;
            }
            if !self.store.is_ready_by(deadline)? {
                let (backend, path) = (self.backend, self.request.clone());
                return Err(Error::NoAnswer { backend, path, patience: options.patience });
            }
        }
    }

    fn ring(&mut self) -> Result<Option<GrantRef>, Error> {
        let path = format!("{}/ring-ref", self.answer);
        Ok(self.store.number(&path, "grant reference")?.map(GrantRef))
    }

    fn port(&mut self) -> Result<Option<Port>, Error> {
        let path = format!("{}/event-channel", self.answer);
        Ok(self.store.number(&path, "port")?.map(Port))
    }

    /// Looks at what Xenstore has to say.
    ///
    /// A domain that ends is not heard on its rings; but what it had in Xenstore goes with it.
    ///
    /// # Errors
    /// [`Error::Gone`] if the promise stands no longer, or another domain has the channels now.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        // Again for what comes while it is read: that is kept with us, and the file says nothing.
        while self.store.take_events()? {
            let elsewhere = self.announced && self.store.domain(ANNOUNCED)? != Some(self.backend);
            if elsewhere || self.ring()? != self.ring {
                return Err(Error::Gone);
            }
        }
        Ok(())
    }
}

impl AsFd for Asked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.store.as_fd()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Whoever called is told of what failed before; a request that is left behind goes with
        // this domain, or with the other.
        let _ = self.store.0.rm(&self.request);
    }
}

/// Where the nodes of a domain are.
fn home(domain: DomId) -> String {
    format!("/local/domain/{}", domain.raw())
}

/// A name that no other channel has. Its randomness is that of the standard library's tables, which
/// waits for nothing: what waits, `/dev/urandom` too, keeps a guest that has just booted for seconds.
/// Two of those may know no difference but their domain's number.
fn fresh_name(own: DomId) -> Result<ChannelName, Error> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bits = RandomState::new().hash_one((own.raw(), std::process::id()));
    let letters = (0..ChannelName::MAX).map(|at| LETTERS[(bits >> (5 * at) & 31) as usize]);
    let name: String = letters.map(char::from).collect();
    Ok(name.parse()?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_of_channels_are_their_own() {
        let domain = DomId::new(7).unwrap();
        let names: HashSet<String> =
            (0..1000).map(|_| fresh_name(domain).unwrap().to_string()).collect();
        assert_eq!(names.len(), 1000);
    }
}
