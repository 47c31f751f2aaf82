//! One request: who sent it, what it asks, and its answer.

use crate::change::Change;
use crate::connection::Connection;
use crate::domain::Domain;
use crate::host::{ConnId, DomId, Host};
use crate::operation::{Edit, Look, PathOp, look};
use crate::path::{Namer, Place};
use crate::perms::Spelled;
use crate::quota::{Denial, Quota};
use crate::reply::Reply;
use crate::request::{CallerRule, Client, Kind, Request, Rules, TransactionRule};
use crate::store::{Caller, Store};
use crate::wire::{Error, Header};

use super::Server;
use super::waiting::RESERVE;

/// A transaction of more requests than this ends the turn of who commits it, and so does an edit that
/// makes more nodes: several such would otherwise be done in one go, while all others wait.
pub(super) const LARGE: usize = 64;

impl Server {
    /// Answers one request: whatever it is, exactly one reply is queued. Or it must wait, and nothing
    /// is done: false.
    pub(super) fn dispatch(
        &mut self,
        conn: ConnId,
        header: Header,
        payload: &[u8],
        host: &mut dyn Host,
    ) -> bool {
        let Self { store, audience, counts, .. } = self;
        let Some((connection, spare)) = audience.connections.parts(conn) else { return true };
        let number = header.tx_id.get();
        let (rules, sender) = match sender(store, connection, header) {
            Ok(known) => known,
            Err(denial) => {
                self.conclude(conn, header, Err(denial), host);
                return true;
            }
        };
        if rules.kind == Kind::Look && number == 0 {
            let home = Some(&sender.domain.home);
            let seen = Look::parse(rules.op, payload, sender.namer(), None)
                .and_then(|what| look(&store.tree, &sender.caller.subject, home, what));
            match seen {
                Ok(seen) => {
                    counts.request(header.kind.get());
                    let reply = Ok(&Reply::Seen(seen));
                    if let Some(error) = connection.answer(&store.domains, spare, header, reply) {
                        counts.error(error);
                    }
                }
                Err(denial) => self.conclude(conn, header, Err(denial), host),
            }
            return true;
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
        let waits = outcome.as_ref().is_err_and(|denial| self.has_wait(conn, denial.hope));
        if !waits {
            self.conclude(conn, header, outcome, host);
        }
        self.scratch = scratch;
        !waits
    }

    /// Answers a request with what came of it, and does what must come after the answer.
    fn conclude(
        &mut self,
        conn: ConnId,
        header: Header,
        outcome: Result<Reply<'_>, Denial>,
        host: &mut dyn Host,
    ) {
        let Self { store, audience, counts, .. } = self;
        let Some((connection, spare)) = audience.connections.parts(conn) else { return };
        connection.waits = 0;
        counts.request(header.kind.get());
        let reply = outcome.as_ref().map_err(|denial| *denial);
        if let Some(error) = connection.answer(&store.domains, spare, header, reply) {
            counts.error(error);
        }
        match outcome {
            Ok(Reply::Watching(watch, path)) => audience.greet(watch, path),
            Err(Denial { quota: Some(quota), .. }) => {
                counts.refusal(quota);
                store.count_refusal(connection.domain, quota);
            }
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
            Request::Control(strings) => {
                self.must_be_settled(conn)?;
                self.control(strings, host)
            }
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
    pub(super) fn edit(
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
