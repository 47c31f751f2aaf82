//! The store: the tree, the domains that own its nodes, and what each of them uses.

mod account;

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use crate::change::Change;
use crate::debris::Debris;
use crate::domain::Domains;
use crate::host::{Config, ConnId, DomId, UniqueId};
use crate::operation::{Answer, Edit, Judge, PathOp, apply};
use crate::path::{Path, Place};
use crate::perms::{Access, Entry, Interned, Perms, Spelled, Subject, Who};
use crate::quota::{Denial, Limits, Marks, Quota};
use crate::trail::Trail;
use crate::transaction::{Outcome, Record, Transaction};
use crate::tree::{Special, Tree, Way};
use crate::wire::{Error, Features};
use account::is_root_of;

/// The most requests of a guest in one transaction, however few paths they are about: all may have
/// to be judged again in one go, while the others wait.
const REQUESTS_MAX: usize = 4096;

/// The most work that such a record may be, in levels of paths and names in listings: a listing of a
/// thousand names that were all made anew costs as much as hundreds of other requests.
const STEPS_MAX: usize = 32_768;

/// So many nodes of what was removed are settled or freed in one go: some 160,000 instructions. All
/// that a guest may own is settled with the request that removes it.
pub(crate) const NODES_AT_ONCE: usize = 1024;

/// Who makes a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) domain: DomId,
    pub(crate) subject: Subject,
}

/// What a transaction's end did.
#[derive(Debug)]
pub(crate) enum Commit {
    Nothing,
    /// One change.
    Change(Record),
    /// Changes one after the other, and the tree as it was before.
    Changes {
        before: Tree,
        log: Vec<Record>,
    },
}

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) tree: Tree,
    pub(crate) domains: Domains,
    pub(crate) interned: Interned,
    /// The limits that the next domain gets.
    pub(crate) limits: Limits,
    /// The largest uses seen of domains that are gone.
    pub(crate) departed: Marks,
    privileged: DomId,
    /// Counts changes of nodes.
    generation: u64,
    /// Counts what changes rights other than by the tree: deaths and targets.
    pub(crate) epoch: u64,
    /// What was removed, and is to be settled and freed.
    pub(crate) debris: Debris,
    /// How many nodes of it are settled or freed in one go.
    pub(crate) pace: usize,
    /// Lines for the log.
    pub(crate) notices: Vec<String>,
    /// Connections whose requests waited for memory, and need not any more.
    pub(crate) relieved: Vec<ConnId>,
}

impl Store {
    pub(crate) fn new(config: Config) -> Self {
        let limits = Limits::DEFAULT;
        let mut domains = Domains::new();
        let who = domains.add(config.privileged, UniqueId(0), limits).who;
        let mut interned = Interned::default();
        let owner = Entry { who, domain: config.privileged, access: Access::None };
        let everybody = Entry { who: Who::EVERYBODY, domain: DomId::ANY, access: Access::Read };
        let private = interned.list(&[owner]);
        let public = interned.list(&[owner, everybody]);
        let mut tree = Tree::new(Rc::clone(&private), Rc::clone(&private), public);
        let path = Path::trusted(b"/tool/xenstored");
        tree.create(Way { path, trail: &Trail::default() }, &[], &private, 1);
        let mut store = Self {
            tree,
            domains,
            interned,
            limits,
            departed: Marks::default(),
            privileged: config.privileged,
            generation: 1,
            epoch: 0,
            debris: Debris::default(),
            pace: NODES_AT_ONCE,
            notices: Vec::new(),
            relieved: Vec::new(),
        };
        store.charge_whole_tree();
        store
    }

    pub(crate) fn is_privileged(&self, domain: DomId) -> bool {
        domain == self.privileged
    }

    /// Returns who asks when a domain does.
    pub(crate) fn caller(&self, domain: DomId) -> Option<Caller> {
        let known = self.domains.find(domain)?;
        let subject = self.domains.subject_of(known, domain == self.privileged);
        Some(Caller { domain, subject })
    }

    /// Edits the store itself.
    ///
    /// # Errors
    /// Those of the operation, and what the quotas say; then nothing changed.
    pub(crate) fn edit(&mut self, caller: Caller, edit: &Edit<'_>) -> Result<Change, Denial> {
        let mut judge = judge(&self.domains, &mut self.interned, caller);
        let change = judge.edit(&self.tree, edit)?;
        let trail = judge.trail;
        if change.is_nothing() {
            return Ok(change);
        }
        let counts = change.counts();
        if counts {
            self.admit(caller, edit.place(), &change)?;
        }
        self.generation += 1;
        apply(&mut self.tree, edit, &change, self.generation, &trail);
        if counts {
            let mut nodes = self.pace;
            self.account(edit.place(), &change, &mut nodes);
        }
        Ok(change)
    }

    /// Runs an operation within a transaction.
    ///
    /// # Errors
    /// Those of the operation, and what the quotas say.
    pub(crate) fn operate_within(
        &mut self,
        caller: Caller,
        transaction: &mut Transaction,
        op: &PathOp<'_>,
    ) -> Result<Answer, Denial> {
        let limits = self.limits_of(caller);
        let mut judge = judge(&self.domains, &mut self.interned, caller);
        let judged = judge.judge(transaction.tree(), op);
        let trail = judge.trail;
        if let Err(denial @ Denial { error: Error::Einval, quota: None, .. }) = judged {
            // Who asked for what cannot be was told nothing of the store.
            return Err(denial);
        }
        let unchanged = Change::Nothing;
        let change = judged.as_ref().map_or(&unchanged, |(_, change)| change);
        let memory = Record::memory(op, change);
        if let Some(domain) = self.domains.find(caller.domain)
            && limits.is_some()
            && !domain.has_room(memory.cast_signed())
        {
            return Err(Quota::Memory.into());
        }
        transaction.make_room()?;
        transaction.ask_at(self.epoch);
        if let Some(limits) = limits {
            let most = limits.of(Quota::TransactionNodes) as usize;
            let touched = transaction.touch(op.place(), change, most);
            let asked = transaction.log().len();
            let names = judged.as_ref().map_or(0, |(answer, _)| answer.names());
            let steps = transaction.go(op.place(), names, STEPS_MAX);
            if asked >= REQUESTS_MAX
                || steps > STEPS_MAX
                || !limits.allow(Quota::TransactionNodes, touched)
            {
                transaction.doomed = true;
                return Err(Quota::TransactionNodes.into());
            }
            if let Some(domain) = self.domains.find_mut(caller.domain) {
                domain.highest.raise(Quota::TransactionNodes, touched);
            }
        }
        if let PathOp::Edit(_) = op {
            self.generation += 1;
        }
        transaction.memory += memory;
        self.charge_bytes(caller.domain, memory.cast_signed());
        let (answer, change) = match judged {
            Ok((answer, change)) => (Ok(answer), change),
            Err(denial) => (Err(denial), Change::Nothing),
        };
        let kept = answer.clone().map_err(|denial| denial.error);
        transaction.record(Record::new(op, kept, change), self.generation, trail);
        answer
    }

    /// Makes sure that what a transaction did can be made part of the store.
    ///
    /// # Errors
    /// [`Error::Eagain`] if it does not fit after what happened meanwhile, [`Error::Enomem`] if a
    /// refusal left it incomplete, and what the quotas say.
    pub(crate) fn admit_commit(
        &mut self,
        caller: Caller,
        transaction: &mut Transaction,
    ) -> Result<(), Denial> {
        if transaction.doomed {
            return Err(Error::Enomem.into());
        }
        if transaction.sacrificed {
            return Err(Error::Eagain.into());
        }
        if transaction.only_read() && transaction.is_of_one_moment() {
            return Ok(());
        }
        if !transaction.is_undisturbed(&self.tree, self.epoch) {
            let Self { tree, domains, interned, debris, generation, .. } = self;
            let mut judge = judge(domains, interned, caller);
            transaction.replay(tree, &mut judge, debris, generation)?;
        }
        self.admit_all(caller, transaction.log())
    }

    /// Makes what a transaction did, and may do, part of the store.
    pub(crate) fn commit(&mut self, mut transaction: Box<Transaction>) -> Commit {
        let outcome = transaction.end();
        transaction.scrap(&self.tree, &mut self.debris);
        let mut nodes = self.pace;
        match outcome {
            Outcome::Nothing => Commit::Nothing,
            Outcome::Change(record, waiting) => {
                record.apply(&mut self.tree, &waiting);
                self.account(record.place(), &record.change, &mut nodes);
                Commit::Change(record)
            }
            Outcome::Tree(tree, log) => {
                let before = core::mem::replace(&mut self.tree, tree);
                for record in &log {
                    self.account(record.place(), &record.change, &mut nodes);
                }
                Commit::Changes { before, log }
            }
        }
    }

    /// Gives up a transaction.
    pub(crate) fn scrap(&mut self, transaction: Box<Transaction>) {
        transaction.scrap(&self.tree, &mut self.debris);
    }

    /// Gives up what is remembered of a commit that was told.
    pub(crate) fn scrap_commit(&mut self, commit: Commit) {
        match commit {
            Commit::Nothing => {}
            Commit::Change(record) => record.scrap(&mut self.debris),
            Commit::Changes { before, log } => {
                self.debris.take_tree(before);
                log.into_iter().for_each(|record| record.scrap(&mut self.debris));
            }
        }
    }

    /// Returns the permissions with the domains that are named, as they live now.
    ///
    /// A domain that exists but was not known becomes known, and dies when Xen says so.
    ///
    /// # Errors
    /// [`Error::Enoent`] if the owner does not exist, [`Error::Enomem`] if it is everybody.
    pub(crate) fn resolve(
        &mut self,
        spelled: &[Spelled],
        everybody_allowed: bool,
        mut identify: impl FnMut(DomId) -> Option<UniqueId>,
    ) -> Result<Rc<Perms>, Denial> {
        let mut entries = Vec::with_capacity(spelled.len());
        for &Spelled { access, domain } in spelled {
            let who = if domain == DomId::ANY {
                if entries.is_empty() {
                    return Err(Error::Enomem.into());
                }
                if everybody_allowed { Who::EVERYBODY } else { Who::NOBODY }
            } else if let Some(known) = self.domains.find(domain) {
                known.who
            } else if let Some(identity) = identify(domain) {
                self.domains.add(domain, identity, self.limits).who
            } else if entries.is_empty() {
                return Err(Error::Enoent.into());
            } else {
                Who::NOBODY
            };
            entries.push(Entry { who, domain, access });
        }
        if entries.is_empty() {
            Err(Error::Einval.into())
        } else {
            Ok(self.interned.list(&entries))
        }
    }

    /// Forgets the largest uses that were seen, apart from the present ones.
    pub(crate) fn forget_highest(&mut self) {
        self.departed = Marks::default();
        for domain in self.domains.iter_mut() {
            domain.highest = Marks::default();
            domain.charge(0, 0);
        }
    }

    /// Ends a domain's life: what it owns is removed, one subtree at a time.
    ///
    /// Each removal is told before the next, with the store as it is then.
    pub(crate) fn bury(&mut self, id: DomId, mut told: impl FnMut(&mut Self, Path<'_>, &Change)) {
        let next = |store: &Self| {
            let domain = store.domains.find(id)?;
            Some((domain.who, domain.roots.first().cloned()?))
        };
        let mut nodes = self.pace;
        while let Some((who, root)) = next(self) {
            let path = Path::trusted(&root);
            // A part of what was removed before may not be settled.
            if is_root_of(&self.tree, who, &root) {
                let change = self.remove_owned(path);
                self.account(Place::Node(path), &change, &mut nodes);
                told(self, path, &change);
            }
            if let Some(domain) = self.domains.find_mut(id) {
                // Whatever the change was, the search must go on.
                domain.roots.remove(&root);
            }
        }
        self.free_specials(id);
        if let Some(domain) = self.domains.remove(id) {
            self.departed.merge(&domain.highest);
            self.interned.bury(domain.who);
        }
        self.epoch += 1;
    }

    /// Removes a node whose owner dies; the root, which must stay, goes back to the privileged
    /// domain.
    fn remove_owned(&mut self, path: Path<'_>) -> Change {
        self.generation += 1;
        let mut trail = Trail::default();
        let reach = self.tree.reach(path, None, &mut trail);
        let trail = &trail;
        match reach.parent.map(|parent| Rc::clone(&parent.perms)) {
            Some(parent) => match self.tree.remove(Way { path, trail }, self.generation) {
                Some(subtree) => Change::Removed { subtree, parent },
                None => Change::Nothing,
            },
            None => {
                let node = Rc::clone(reach.node);
                let perms = self.private();
                self.tree.set_perms(Way { path, trail }, Rc::clone(&perms), self.generation);
                Change::Permitted { node, perms, parent: None }
            }
        }
    }

    fn free_specials(&mut self, id: DomId) {
        for special in [Special::Introduce, Special::Release] {
            if self.tree.special(special).owner().domain == id {
                let perms = self.private();
                self.tree.set_special(special, perms);
            }
        }
    }

    /// Returns the permissions of what only the privileged domain may see.
    fn private(&mut self) -> Rc<Perms> {
        let who = self.domains.find(self.privileged).map_or(Who::NOBODY, |domain| domain.who);
        self.interned.list(&[Entry { who, domain: self.privileged, access: Access::None }])
    }

    /// Returns the limits of a caller that is bound by any.
    pub(crate) fn limits_of(&self, caller: Caller) -> Option<Limits> {
        if caller.subject.privileged {
            return None;
        }
        self.domains.find(caller.domain).map(|domain| domain.limits)
    }

    /// Whether the domain may name everybody in a permission.
    pub(crate) fn may_name_everybody(&self, domain: DomId) -> bool {
        self.domains
            .find(domain)
            .is_some_and(|domain| domain.features.contains(Features::DOMID_ANY))
    }
}

fn judge<'a>(domains: &'a Domains, interned: &'a mut Interned, caller: Caller) -> Judge<'a> {
    let domain = domains.find(caller.domain);
    let bound = domain.filter(|_| !caller.subject.privileged);
    Judge {
        home: domain.map(|domain| &domain.home),
        trail: Trail::default(),
        domain: caller.domain,
        subject: caller.subject,
        limits: bound.map(|domain| &domain.limits),
        domains,
        interned,
    }
}
