//! The server: bytes of many connections in, bytes and events out.

mod control;
mod lifecycle;
mod setting;
#[cfg(test)]
mod tests;
mod transacting;
mod watching;

use alloc::string::String;
use alloc::vec::Vec;

use zerocopy::FromBytes;

use crate::announce::Audience;
use crate::change::Change;
use crate::connection::Connection;
use crate::domain::Domain;
use crate::host::{Config, ConnId, DomId, Host, UniqueId};
use crate::operation::{Edit, Look, PathOp, look};
use crate::path::{Namer, Place};
use crate::perms::Spelled;
use crate::quota::{Denial, Quota};
use crate::reply::Reply;
use crate::request::{CallerRule, Client, Kind, Request, Rules, TransactionRule};
use crate::store::{Caller, Store};
use crate::wire::{Error, Features, HEADER_SIZE, Header, Violation};

/// The most bytes that one call of [`Server::receive`] takes: a ring's worth
/// (`XENSTORE_RING_SIZE` in xen/include/public/io/xs_wire.h).
const RECEIVE_MAX: usize = 1024;

/// When this many bytes wait for a connection, its requests wait too, whoever it is.
const BACKLOG: usize = 64 << 10;

/// A transaction of more requests than this ends the turn of who commits it, and so does an edit that
/// makes more nodes: several such would otherwise be done in one go, while all others wait.
const LARGE: usize = 64;

/// Memory that the store's growth leaves alone, in one piece: what one request may need at most (a
/// commit, the events of a large removal, the buffers of a guest that connects).
const RESERVE: usize = 512 << 10;

/// The part of it that is left to the privileged domain alone, for the watches and transactions by
/// which its tools destroy a guest.
const LAST_RESERVE: usize = RESERVE / 2;

/// What is left to the privileged domain when guests are not even read any more.
const FINAL_RESERVE: usize = LAST_RESERVE / 2;

/// A Xenstore server for one host.
///
/// Its owner moves bytes: after an event on a ring it calls [`receive`](Self::receive) with what
/// the ring holds, and then, for that connection and for every one that
/// [`next_ready`](Self::next_ready) names, [`transmit`](Self::transmit) until the ring is full, and
/// `receive` again for what was not taken.
#[derive(Debug)]
pub struct Server {
    config: Config,
    store: Store,
    audience: Audience,
    /// Holds the path of the present request; kept for its memory.
    scratch: Vec<u8>,
    requests: u64,
    /// Whether shutdowns were told by domain, but not yet by the plain event.
    shutdowns: bool,
    /// Whether a guest began a transaction since all were last sacrificed.
    snapshots: bool,
    log_switches: control::Switches,
    memory: Memory,
    /// Guests whose requests wait until there is memory again.
    starved: Vec<ConnId>,
    /// Whether the last request was so much work that others come before the next.
    turn_over: bool,
}

/// How much memory was left when it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    Enough,
    /// So little that a guest gets its next answer only when it has taken the one before.
    Low,
    /// So little that guests wait: even an answer needs some.
    Out,
}

/// Counts of what a server holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nodes of the tree.
    pub nodes: usize,
    /// Watches of all connections.
    pub watches: usize,
    /// Open transactions of all connections.
    pub transactions: usize,
    /// Connections, including those whose service ended after a violation.
    pub connections: usize,
    /// Domains known, introduced or not.
    pub domains: usize,
    /// Different permission lists.
    pub permission_lists: usize,
    /// Requests answered since the start.
    pub requests: u64,
}

impl Server {
    /// Makes a store with its first nodes, which belong to the privileged domain.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            store: Store::new(config),
            audience: Audience::new(),
            scratch: Vec::new(),
            requests: 0,
            shutdowns: false,
            snapshots: false,
            log_switches: control::Switches::default(),
            memory: Memory::Enough,
            starved: Vec::new(),
            turn_over: false,
        }
    }

    /// Takes bytes from the front of what a connection's ring holds, at most 1024, and answers the
    /// requests that they complete.
    ///
    /// Returns how many were taken. Where that is fewer than there were, either the connection must
    /// first read what waits for it, or another reason holds its requests up: then
    /// [`is_stalled`](Self::is_stalled), and `next_ready` names it when it can go on. Or the last
    /// request was a large piece of work: then it is the others' turn first.
    ///
    /// # Errors
    /// A [`Violation`] ends the service, as [`ignore`](Self::ignore) does; the owner reports it in
    /// the ring.
    pub fn receive(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        host: &mut dyn Host,
    ) -> Result<usize, Violation> {
        let bytes = &bytes[..bytes.len().min(RECEIVE_MAX)];
        self.look_at_memory(host);
        self.turn_over = false;
        let mut rest = bytes;
        while !rest.is_empty() && !self.turn_over && self.may_receive(conn) {
            match self.take_frame(conn, rest, host) {
                Ok(after) => rest = after,
                Err(violation) => {
                    self.ignore(conn);
                    return Err(violation);
                }
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// Gives `write` the bytes that a connection's ring should get next, again and again, until
    /// it takes fewer than it was given, or there are none left: then true is returned. `write`
    /// returns how many it took.
    ///
    /// # Errors
    /// That of `write`; the bytes still wait.
    #[inline]
    pub fn transmit<E>(
        &mut self,
        conn: ConnId,
        write: impl FnMut(&[u8]) -> Result<usize, E>,
    ) -> Result<bool, E> {
        let connection = self.audience.connections.find(conn);
        if connection.is_some_and(|conn| !conn.outbox.is_at_rest() || conn.stalled) {
            self.transmit_waiting(conn, write)
        } else {
            Ok(true)
        }
    }

    #[inline(never)]
    fn transmit_waiting<E>(
        &mut self,
        conn: ConnId,
        mut write: impl FnMut(&[u8]) -> Result<usize, E>,
    ) -> Result<bool, E> {
        let Audience { connections, watches, .. } = &mut self.audience;
        let Some((connection, spare)) = connections.parts(conn) else { return Ok(true) };
        let outbox = &mut connection.outbox;
        let mut drained = true;
        while drained && let Some(bytes) = outbox.next(watches, spare) {
            let (len, taken) = (bytes.len(), write(bytes)?);
            outbox.forget(taken, spare);
            drained = taken >= len;
        }
        let (stalled, owed) = (connection.stalled, outbox.owed());
        if stalled {
            self.wake(conn);
        } else if drained {
            connection.drained();
        }
        if owed.is_some() {
            self.audience.make_good(conn);
        }
        Ok(drained)
    }

    /// Returns a connection whose output changed, or whose input can go on, since it was last
    /// returned; `None` when there is none left. Answers alone name nobody: whoever gave the
    /// requests to `receive` knows of them.
    pub fn next_ready(&mut self) -> Option<ConnId> {
        self.audience.connections.next_ready()
    }

    /// Frees a part of what requests and deaths removed; says whether more is left.
    ///
    /// Its owner calls this once a round, and waits for nothing while there is more. Whoever needs
    /// the memory before gets it all at once.
    #[inline]
    pub fn clear_away(&mut self) -> bool {
        self.store.clear_away()
    }

    /// Whether a connection's requests must wait, for one of the reasons that `receive` has to take
    /// none; [`next_ready`](Self::next_ready) names it when that is over.
    pub fn is_stalled(&self, conn: ConnId) -> bool {
        self.audience.connections.find(conn).is_some_and(|connection| connection.stalled)
    }

    /// Returns every domain that is introduced or that a permission names, with its identity.
    ///
    /// Its owner asks Xen of these, and reports with [`shut_down`](Self::shut_down) and
    /// [`gone`](Self::gone).
    pub fn domains(&self) -> impl Iterator<Item = (DomId, UniqueId)> + '_ {
        self.store.domains.iter().map(|domain| (domain.id, domain.identity))
    }

    /// Returns the identity of a domain that is introduced or that a permission names.
    pub fn identity(&self, domain: DomId) -> Option<UniqueId> {
        self.store.domains.find(domain).map(|domain| domain.identity)
    }

    /// Returns the features that a connection was offered.
    pub fn features(&self, conn: ConnId) -> Features {
        let connection = self.audience.connections.find(conn);
        let domain = connection.and_then(|conn| self.store.domains.find(conn.domain));
        domain.map_or(Features::empty(), |domain| domain.features)
    }

    /// Recomputes every account and index from the tree and compares them with what is kept.
    ///
    /// # Errors
    /// A sentence on the first difference; there is none unless the server has a fault.
    pub fn check(&self) -> Result<(), String> {
        crate::check::check(&self.store, &self.audience)
    }

    /// Returns counts of what the server holds.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            watches: self.audience.watches.len(),
            connections: self.audience.connections.len(),
            domains: self.store.domains.len(),
            permission_lists: self.store.interned.len(),
            requests: self.requests,
            ..Stats::default()
        };
        for domain in self.store.domains.iter() {
            stats.nodes += domain.usage.nodes;
            stats.transactions += domain.usage.transactions;
        }
        stats
    }

    /// Whether a connection may send a request now; if not, it is told when it may again.
    fn may_receive(&mut self, conn: ConnId) -> bool {
        let Some(connection) = self.audience.connections.find_mut(conn) else { return false };
        if connection.ignored {
            return false;
        }
        let waiting = connection.outbox.len();
        let domain = self.store.domains.find(connection.domain);
        let privileged = self.store.is_privileged(connection.domain);
        let memory = privileged
            || match self.memory {
                Memory::Enough => true,
                Memory::Low => waiting == 0,
                Memory::Out => false,
            };
        let within = privileged
            || domain.is_some_and(|domain| {
                let outstanding = domain.limits.of(Quota::Outstanding) as usize;
                (outstanding == 0 || connection.outbox.replies() < outstanding)
                    && domain.limits.allow(Quota::Memory, domain.usage.memory)
            });
        connection.stalled = !within || waiting >= BACKLOG || !memory;
        if connection.stalled {
            self.stall(conn);
            return false;
        }
        true
    }

    /// Sees to it that a connection is looked at when what it waits for is there.
    #[cold]
    fn stall(&mut self, conn: ConnId) {
        let Some(connection) = self.audience.connections.find_mut(conn) else { return };
        if let Some(domain) = self.store.domains.find_mut(connection.domain) {
            domain.waits_for_memory = !domain.limits.allow(Quota::Memory, domain.usage.memory);
        }
        if self.memory == Memory::Out && !connection.starved {
            connection.starved = true;
            self.starved.push(conn);
        }
    }

    /// Notes how much memory is left, and has guests looked at that waited for some.
    fn look_at_memory(&mut self, host: &dyn Host) {
        self.memory = if has_memory(LAST_RESERVE, &mut self.store, host) {
            Memory::Enough
        } else if host.has_memory(FINAL_RESERVE) {
            Memory::Low
        } else {
            Memory::Out
        };
        if self.memory != Memory::Out && !self.starved.is_empty() {
            for conn in core::mem::take(&mut self.starved) {
                if let Some(connection) = self.audience.connections.find_mut(conn) {
                    connection.starved = false;
                }
                self.wake(conn);
            }
        }
    }

    /// Has a connection looked at whose input was refused, if it may go on now.
    fn wake(&mut self, conn: ConnId) {
        let stalled = self.audience.connections.find(conn).is_some_and(|conn| conn.stalled);
        if stalled && self.may_receive(conn) {
            self.audience.connections.mark_resumed(conn.slot);
        }
    }

    /// Takes one frame, or the part of one that has come, and returns what follows it.
    fn take_frame<'b>(
        &mut self,
        conn: ConnId,
        bytes: &'b [u8],
        host: &mut dyn Host,
    ) -> Result<&'b [u8], Violation> {
        let Some((connection, spare)) = self.audience.connections.parts(conn) else {
            return Ok(&[]);
        };
        if connection.input.is_empty() {
            if let Ok((header, after)) = Header::read_from_prefix(bytes) {
                let len = header.payload_len()?;
                if let Some((payload, rest)) = after.split_at_checked(len) {
                    self.dispatch(conn, header, payload, host);
                    return Ok(rest);
                }
            }
            connection.input = spare.take();
        }
        let input = &mut connection.input;
        let mut rest = bytes;
        let mut fill = |input: &mut Vec<u8>, up_to: usize| {
            let (part, after) = rest.split_at(rest.len().min(up_to.saturating_sub(input.len())));
            input.extend_from_slice(part);
            rest = after;
        };
        fill(input, HEADER_SIZE);
        if let Ok((header, _)) = Header::read_from_prefix(input) {
            let end = HEADER_SIZE + header.payload_len()?;
            fill(input, end);
            if input.len() == end {
                let input = core::mem::take(input);
                self.dispatch(conn, header, &input[HEADER_SIZE..], host);
                self.audience.connections.spare.give(input);
            }
        }
        Ok(rest)
    }

    /// Answers one request: whatever it is, exactly one reply is queued.
    fn dispatch(&mut self, conn: ConnId, header: Header, payload: &[u8], host: &mut dyn Host) {
        self.requests += 1;
        let Self { store, audience, .. } = self;
        let Some((connection, spare)) = audience.connections.parts(conn) else { return };
        let number = header.tx_id.get();
        let (rules, sender) = match sender(store, connection, header) {
            Ok(known) => known,
            Err(denial) => return self.conclude(conn, header, Err(denial), host),
        };
        if rules.kind == Kind::Look && number == 0 {
            let home = Some(&sender.domain.home);
            let seen = Look::parse(rules.op, payload, sender.namer(), None)
                .and_then(|what| look(&store.tree, &sender.caller.subject, home, what));
            return match seen {
                Ok(seen) => {
                    connection.answer(&store.domains, spare, header, Ok(&Reply::Seen(seen)))
                }
                Err(denial) => self.conclude(conn, header, Err(denial), host),
            };
        }
        let caller = sender.caller;
        let mut scratch = core::mem::take(&mut self.scratch);
        let outcome = if rules.kind == Kind::Edit && number == 0 {
            match Edit::parse(rules.op, payload, sender.namer(), &mut scratch) {
                Ok(edit) => self.edit(caller, &edit, host),
                Err(denial) => Err(denial),
            }
        } else {
            let client = Client { namer: sender.namer(), features: sender.domain.features };
            match &Request::parse(rules.op, payload, client, &mut scratch) {
                Ok(request) => self.perform(conn, caller, number, request, host),
                Err(denial) => Err(*denial),
            }
        };
        self.conclude(conn, header, outcome, host);
        self.scratch = scratch;
    }

    /// Answers a request with what came of it, and does what must come after the answer.
    fn conclude(
        &mut self,
        conn: ConnId,
        header: Header,
        outcome: Result<Reply<'_>, Denial>,
        host: &mut dyn Host,
    ) {
        let Self { store, audience, .. } = self;
        let Some((connection, spare)) = audience.connections.parts(conn) else { return };
        connection.answer(
            &store.domains,
            spare,
            header,
            outcome.as_ref().map_err(|denial| *denial),
        );
        match outcome {
            Ok(Reply::Watching(watch, path)) => audience.greet(watch, path),
            Err(Denial { quota: Some(quota), .. }) => store.count_refusal(connection.domain, quota),
            Ok(_) | Err(_) => {}
        }
        if !self.store.notices.is_empty() || !self.store.relieved.is_empty() {
            self.follow_up(host);
        }
    }

    /// Does what a request asks that more than looks at the store as it is.
    fn perform<'a>(
        &mut self,
        conn: ConnId,
        caller: Caller,
        number: u32,
        request: &Request<'a>,
        host: &mut dyn Host,
    ) -> Result<Reply<'a>, Denial> {
        match *request {
            Request::Path(ref op) => self.operate(conn, caller, number, op, host),
            Request::SetPerms { place, ref perms } => {
                self.set_perms(conn, caller, number, place, perms, host)
            }
            Request::Watch { path, token, depth } => {
                self.watch(conn, caller, path, token, depth, host)
            }
            Request::Unwatch { path, token } => self.unwatch(conn, path, token),
            Request::ResetWatches => {
                self.drop_watches(conn);
                self.drop_transactions(conn);
                Ok(Reply::Done)
            }
            Request::TransactionStart => self.start_transaction(conn, caller, number, host),
            Request::TransactionEnd { commit } => {
                self.end_transaction(conn, caller, number, commit)
            }
            Request::Introduce { domain, gfn, port } => self.introduce(domain, gfn, port, host),
            Request::Release(domain) => self.release(domain, host),
            Request::Resume(domain) => self.resume(domain),
            Request::GetDomainPath(domain) => Ok(Reply::Home(domain)),
            Request::IsDomainIntroduced(domain) => {
                Ok(Reply::Flag(domain == DomId::SELF || self.is_introduced(domain)))
            }
            Request::SetTarget { domain, target } => self.set_target(domain, target),
            Request::GetFeature(domain) => self.feature(caller, domain, host),
            Request::SetFeature { domain, features } => self.set_feature(domain, features, host),
            Request::GetQuota { domain, name } => self.quota(domain, name, host),
            Request::SetQuota { domain, name, limit } => self.set_quota(domain, name, limit, host),
            Request::Control(strings) => self.control(strings, host),
        }
    }

    fn operate(
        &mut self,
        conn: ConnId,
        caller: Caller,
        number: u32,
        op: &PathOp<'_>,
        host: &dyn Host,
    ) -> Result<Reply<'static>, Denial> {
        match op {
            PathOp::Edit(edit) if number == 0 => self.edit(caller, edit, host),
            _ => self.operate_within(conn, caller, number, op, host),
        }
    }

    /// Edits the store itself, and tells who listens.
    fn edit(
        &mut self,
        caller: Caller,
        edit: &Edit<'_>,
        host: &dyn Host,
    ) -> Result<Reply<'static>, Denial> {
        if edit.grows() {
            self.must_have(RESERVE, host)?;
        }
        let change = self.store.edit(caller, edit)?;
        self.turn_over = match &change {
            Change::Created { made, .. } => *made > LARGE,
            // How much is below, nobody knows before it was gone through.
            Change::Removed { subtree, .. } => subtree.children_len() > 0,
            _ => false,
        };
        if !change.is_nothing() {
            self.audience.tell(&self.store, edit.place(), &change);
            self.store.discard(change);
        }
        Ok(Reply::Done)
    }

    fn set_perms(
        &mut self,
        conn: ConnId,
        caller: Caller,
        number: u32,
        place: Result<Place<'_>, Denial>,
        spelled: &[Spelled],
        host: &mut dyn Host,
    ) -> Result<Reply<'static>, Denial> {
        let everybody = self.store.may_name_everybody(caller.domain);
        let perms = self.store.resolve(spelled, everybody, |domain| host.identify(domain))?;
        if let Some(domain) = self.store.domains.find_mut(caller.domain) {
            domain.highest.raise(Quota::NodePermissions, spelled.len());
        }
        let edit = Edit::Perms(place?, perms);
        self.operate(conn, caller, number, &PathOp::Edit(edit), host)
    }

    /// Refuses a request when less memory is left than that. Snapshots of guests are given up
    /// first: they may hold everything that was removed since they began.
    fn must_have(&mut self, reserve: usize, host: &dyn Host) -> Result<(), Denial> {
        if has_memory(reserve, &mut self.store, host) {
            return Ok(());
        }
        // None has begun since they were last given up: then there is nothing to look for.
        if core::mem::take(&mut self.snapshots) {
            let Self { audience, store, config, .. } = self;
            audience.connections.sacrifice_transactions(config.privileged, &store.tree);
        }
        if host.has_memory(reserve) { Ok(()) } else { Err(Error::Enomem.into()) }
    }

    /// Does what a change left to do: looks at connections that may go on, and prints.
    fn follow_up(&mut self, host: &mut dyn Host) {
        while let Some(conn) = self.store.relieved.pop() {
            self.wake(conn);
        }
        for notice in core::mem::take(&mut self.store.notices) {
            host.print(&notice);
        }
    }
}

/// Whether there is so much memory, if need be after all was freed that was removed.
fn has_memory(bytes: usize, store: &mut Store, host: &dyn Host) -> bool {
    if host.has_memory(bytes) {
        return true;
    }
    store.clear_all();
    host.has_memory(bytes)
}

/// Returns what must be left when a caller has something kept that is no node.
fn reserve_of(caller: Caller) -> usize {
    if caller.subject.privileged { LAST_RESERVE } else { RESERVE }
}

/// Who sent a request.
struct Sender<'s> {
    domain: &'s Domain,
    caller: Caller,
}

impl<'s> Sender<'s> {
    fn namer(&self) -> Namer<'s> {
        let limits = (!self.caller.subject.privileged).then_some(&self.domain.limits);
        Namer { home: self.domain.home.text(), limits }
    }
}

/// Applies the rules that hold before a request is even read.
#[inline]
fn sender<'s>(
    store: &'s Store,
    connection: &Connection,
    header: Header,
) -> Result<(Rules, Sender<'s>), Denial> {
    let rules = Rules::of(header.kind.get()).ok_or(Error::Enosys)?;
    let domain = store.domains.find(connection.domain).ok_or(Error::Einval)?;
    let privileged = store.is_privileged(domain.id);
    if rules.caller == CallerRule::Privileged && !privileged {
        return Err(Error::Eacces.into());
    }
    let number = header.tx_id.get();
    let open = number == 0 || connection.transactions.contains_key(&number);
    if rules.transaction == TransactionRule::Checked && !open {
        return Err(Error::Enoent.into());
    }
    let subject = store.domains.subject_of(domain, privileged);
    Ok((rules, Sender { domain, caller: Caller { domain: domain.id, subject } }))
}
