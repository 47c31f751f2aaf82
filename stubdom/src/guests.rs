//! Who is connected, and how: a ring, an event channel, and the server's name for both.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use xen_sys::ids::{DomId as XenDomId, Port};
use xen_sys::page::Shared;
use xen_sys::ring::BadIndex;
use xen_sys::ring::xenstore::{RING_SIZE, RingError, Server as Ring, ServerFeatures};
use xenstore_core::wire::Violation;
use xenstore_core::{ConnId, Counts, DomId, Host, Server, Stats, UniqueId, Unreachable};

use crate::activity::Activity;
use crate::departures;
use crate::machine::{Line, Machine};
use crate::metrics::{Figures, Store};

/// One connected guest. The line, its event channel, goes before the page it speaks of.
struct Session<M: Machine> {
    conn: ConnId,
    domain: DomId,
    /// `None` if it was introduced again with a port that is not there.
    line: Option<M::Line>,
    ring: Ring<M::Page>,
    features: ServerFeatures,
    /// Its ring has lied: nothing of it is looked at until it is introduced again.
    ignored: bool,
    /// It waits in the backlog.
    queued: bool,
}

/// Why a guest's ring is left alone from now on.
enum Fault {
    Ring(BadIndex),
    Message(Violation),
}

impl From<BadIndex> for Fault {
    fn from(index: BadIndex) -> Self {
        Self::Ring(index)
    }
}

/// All guests, and the machine that lends what they need.
pub struct Guests<M: Machine> {
    /// By the server's slot numbers.
    sessions: Vec<Option<Session<M>>>,
    /// By local port: slot + 1, or 0.
    by_port: Vec<u32>,
    /// Where requests are copied to out of a ring; kept, because to fill it anew with zeros would
    /// take as long as to look for a node.
    requests: Box<[u8]>,
    /// Guests with requests that the last look at them left in the ring.
    backlog: VecDeque<ConnId>,
    /// Domains that are gone, which was not told yet.
    gone: Vec<DomId>,
    /// Where it all happens.
    pub machine: M,
    /// What was done so far.
    pub activity: Activity,
}

impl<M: Machine> Guests<M> {
    /// Nobody yet.
    pub fn new(machine: M) -> Self {
        let (sessions, by_port) = (Vec::new(), Vec::new());
        let (requests, activity) = (Box::new([0; RING_SIZE]), Activity::default());
        let (backlog, gone) = (VecDeque::new(), Vec::new());
        Self { sessions, by_port, requests, backlog, gone, machine, activity }
    }

    /// All that there is to show of the store.
    pub fn figures<'a>(&'a self, counts: &'a Counts, stats: Stats) -> Figures<'a> {
        let store = Store { counts, stats };
        Figures { activity: self.activity, store: Some(store), ..self.machine.figures() }
    }

    /// Whether a guest has requests that nobody has looked at yet.
    pub fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Logs which domains are gone. What they had is free only when the server has cleared it away.
    pub fn tell_who_is_gone(&mut self) {
        for domain in self.gone.drain(..) {
            log::info!("domain {domain} is gone; {} bytes in use", self.machine.memory_used());
        }
    }

    /// The guest that notified at `port`.
    pub fn at(&self, port: Port) -> Option<ConnId> {
        let slot = usize::try_from(*self.by_port.get(port.0 as usize)?).ok()?.checked_sub(1)?;
        self.sessions.get(slot)?.as_ref().map(|session| session.conn)
    }

    /// Serves each guest of the backlog once.
    pub fn serve_backlog(&mut self, server: &mut Server) {
        for _ in 0..self.backlog.len() {
            let Some(conn) = self.backlog.pop_front() else { break };
            if let Some(session) = self.session(conn) {
                session.queued = false;
                self.serve(conn, server);
            }
        }
    }

    /// Moves what can be moved between a guest's ring and the server: at most one ring of
    /// requests, and its replies and events as far as there is room. Notifies once if anything
    /// moved.
    pub fn serve(&mut self, conn: ConnId, server: &mut Server) {
        let Some(session) = self.session(conn).filter(|session| !session.ignored) else { return };
        if session.features.contains(ServerFeatures::RECONNECTION)
            && session.ring.reconnect_wanted()
        {
            server.reset(conn);
            session.ring.reset();
            session.ring.mark_connected();
        }
        let done = self.receive(conn, server).and_then(|()| self.send(conn, server));
        self.end_turn(conn, done, server);
    }

    /// As [`serve`](Self::serve), but takes no requests: for what the requests of others caused.
    pub fn flush(&mut self, conn: ConnId, server: &mut Server) {
        if self.session(conn).is_some_and(|session| !session.ignored) {
            let done = self.send(conn, server);
            self.end_turn(conn, done, server);
        }
    }

    /// Gives what waits in the guest's ring to the server. Room for the replies is made first.
    fn receive(&mut self, conn: ConnId, server: &mut Server) -> Result<(), Fault> {
        self.transmit(conn, server)?;
        let mut requests = core::mem::take(&mut self.requests);
        let done = self.receive_into(&mut requests, conn, server);
        self.requests = requests;
        done
    }

    fn receive_into(
        &mut self,
        requests: &mut [u8],
        conn: ConnId,
        server: &mut Server,
    ) -> Result<(), Fault> {
        let Some(session) = self.session(conn) else { return Ok(()) };
        let waiting = session.ring.peek(requests)?;
        if waiting > 0 {
            let taken = server.receive(conn, &requests[..waiting], self).map_err(Fault::Message)?;
            if let Some(session) = self.session(conn) {
                session.ring.consume(taken);
            }
        }
        Ok(())
    }

    /// Writes replies and events, and looks whether there is a reason to come back.
    ///
    /// A guest whose ring has room does not notify when it takes replies out. So once all is
    /// written, requests that are still there (they came meanwhile, or the server would not take
    /// more before its replies were out) are ours to remember. While the ring is full, the guest
    /// will notify; where the server has another reason to take none, it names the guest later.
    fn send(&mut self, conn: ConnId, server: &mut Server) -> Result<(), Fault> {
        let drained = self.transmit(conn, server)?;
        let Some(session) = self.session(conn) else { return Ok(()) };
        let goes_on = drained && !session.queued && !server.is_stalled(conn);
        if goes_on && session.ring.peek(&mut [0; 1])? > 0 {
            session.queued = true;
            self.backlog.push_back(conn);
        }
        Ok(())
    }

    /// Writes replies and events as far as the ring has room; says whether all went out.
    fn transmit(&mut self, conn: ConnId, server: &mut Server) -> Result<bool, Fault> {
        let Some(session) = self.session(conn) else { return Ok(true) };
        server.transmit(conn, |bytes| session.ring.write(bytes).map_err(Fault::from))
    }

    /// Notifies the guest once if anything moved, or of the end of service.
    fn end_turn(&mut self, conn: ConnId, done: Result<(), Fault>, server: &mut Server) {
        let ended = done.map_err(|fault| self.ignore(conn, &fault, server)).is_err();
        if let Some(session) = self.session(conn)
            && (session.ring.take_notify() || ended)
            && let Some(line) = &session.line
        {
            line.notify();
            self.activity.notifications += 1;
        }
    }

    /// Stops service to a guest whose ring or message cannot be.
    fn ignore(&mut self, conn: ConnId, fault: &Fault, server: &mut Server) {
        server.ignore(conn);
        let Some(session) = self.session(conn) else { return };
        session.ignored = true;
        let error = match fault {
            Fault::Ring(index) => {
                log::warn!("domain {}: {index}; not served any more", session.domain);
                RingError::RingIndex
            }
            Fault::Message(violation) => {
                log::warn!("domain {}: {violation}; not served any more", session.domain);
                RingError::Protocol
            }
        };
        if session.features.contains(ServerFeatures::ERROR) {
            session.ring.tell_error(error);
        }
    }

    fn session(&mut self, conn: ConnId) -> Option<&mut Session<M>> {
        let session = self.sessions.get_mut(conn.slot())?.as_mut()?;
        (session.conn == conn).then_some(session)
    }

    /// Connects dom0, whose kernel has been waiting in its ring since before we were started: what
    /// is in there stays. It says nothing before the first event, so it gets one.
    ///
    /// # Errors
    /// If its ring or its port is not there; the log says which.
    pub fn connect_dom0(
        &mut self,
        conn: ConnId,
        port: Port,
        features: ServerFeatures,
    ) -> Result<(), Unreachable> {
        let ring = self.map(DomId(0))?;
        let line = self.bind(DomId(0), port)?;
        ring.announce(features);
        ring.mark_connected();
        line.notify();
        self.enter(conn, DomId(0), line, ring, features);
        Ok(())
    }

    fn map(&mut self, domain: DomId) -> Result<Ring<M::Page>, Unreachable> {
        let granter = XenDomId::new(domain.0).ok_or(Unreachable)?;
        let page = self.machine.map(granter).map_err(|error| {
            log::warn!("domain {domain}: its ring cannot be mapped: {error}");
            Unreachable
        })?;
        Ok(Ring::attach(page))
    }

    fn bind(&mut self, domain: DomId, port: Port) -> Result<M::Line, Unreachable> {
        let remote = XenDomId::new(domain.0).ok_or(Unreachable)?;
        self.machine.bind(remote, port).map_err(|error| {
            log::warn!("domain {domain}: its {port} cannot be bound: {error}");
            Unreachable
        })
    }

    fn enter(
        &mut self,
        conn: ConnId,
        domain: DomId,
        line: M::Line,
        ring: Ring<M::Page>,
        features: ServerFeatures,
    ) {
        self.point(line.port(), Some(conn));
        let slot = conn.slot();
        if self.sessions.len() <= slot {
            self.sessions.resize_with(slot + 1, || None);
        }
        let (ignored, queued) = (false, false);
        let line = Some(line);
        self.sessions[slot] = Some(Session { conn, domain, line, ring, features, ignored, queued });
    }

    /// Makes a local port lead to a guest, or to nobody.
    fn point(&mut self, port: Port, conn: Option<ConnId>) {
        let port = port.0 as usize;
        if self.by_port.len() <= port {
            self.by_port.resize(port + 1, 0);
        }
        self.by_port[port] = conn.map_or(0, |conn| u32::try_from(conn.slot() + 1).unwrap_or(0));
    }
}

impl<M: Machine> Host for Guests<M> {
    fn identify(&mut self, domain: DomId) -> Option<UniqueId> {
        departures::identify(self.machine.fates().as_ref(), domain)
    }

    fn introduce(
        &mut self,
        conn: ConnId,
        domain: DomId,
        _gfn: u64,
        port: u32,
        features: u32,
    ) -> Result<(), Unreachable> {
        let mut ring = self.map(domain)?;
        // A port in the page comes from whoever built the domain, and knows better.
        let port = ring.client_port().unwrap_or(Port(port));
        let line = self.bind(domain, port)?;
        let features = ServerFeatures::from_bits_retain(features);
        begin(&mut ring, &line, features);
        self.enter(conn, domain, line, ring, features);
        log::info!("domain {domain} is here; {} bytes in use", self.machine.memory_used());
        Ok(())
    }

    fn reintroduce(
        &mut self,
        conn: ConnId,
        domain: DomId,
        port: u32,
        features: u32,
    ) -> Result<(), Unreachable> {
        // A port has one peer, and a guest that is introduced again has often kept its port: our
        // end of it must be closed first.
        let session = self.session(conn).ok_or(Unreachable)?;
        session.ignored = true;
        if let Some(old) = session.line.take() {
            self.point(old.port(), None);
        }
        let line = self.bind(domain, Port(port))?;
        self.point(line.port(), Some(conn));
        let session = self.session(conn).ok_or(Unreachable)?;
        session.features = ServerFeatures::from_bits_retain(features);
        begin(&mut session.ring, &line, session.features);
        session.line = Some(line);
        session.ignored = false;
        Ok(())
    }

    fn release(&mut self, conn: ConnId, domain: DomId) {
        let Some(session) = self.sessions.get_mut(conn.slot()).and_then(Option::take) else {
            return;
        };
        if let Some(line) = &session.line {
            self.point(line.port(), None);
        }
        drop(session);
        self.gone.push(domain);
    }

    fn has_memory(&self, bytes: usize) -> bool {
        self.machine.has_memory(bytes)
    }

    fn print(&mut self, text: &str) {
        log::info!("{text}");
    }

    fn counters(&self, counts: &Counts, stats: Stats) -> String {
        self.figures(counts, stats).lines()
    }
}

/// Makes a connection begin: empty rings, no error, our features.
fn begin(ring: &mut Ring<impl Shared>, line: &impl Line, features: ServerFeatures) {
    ring.reset();
    ring.announce(features);
    ring.tell_error(RingError::None);
    // A guest that was started without waiting for its toolstack waits for this word to change.
    let waits = ring.reconnect_wanted();
    ring.mark_connected();
    let _ = ring.take_notify();
    if waits {
        line.notify();
    }
}
