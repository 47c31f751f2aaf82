//! Accounts: what each domain uses, what its quotas allow, and which nodes are its own.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use heapless::Vec as Bounded;

use super::{Caller, Store};
use crate::change::{Change, Effect, charge_of};
use crate::debris::{Debris, Survey};
use crate::domain::{Domain, Domains};
use crate::host::{ConnId, DomId};
use crate::path::{Path, Place};
use crate::perms::{Entry, Who};
use crate::quota::{Denial, Quota};
use crate::transaction::Record;
use crate::tree::{Tree, for_each_node};
use crate::wire::Error;

/// So many nodes that a transaction removes are looked at to see whether it exceeds a quota. A guest
/// may own a thousand.
const SURVEYED_FOR_ROOM: usize = 4096;

impl Store {
    /// Whether the caller's quotas, and those of the owners it would charge, allow a change.
    pub(super) fn admit(
        &self,
        caller: Caller,
        place: Place<'_>,
        change: &Change,
    ) -> Result<(), Denial> {
        if caller.subject.privileged || matches!(change, Change::Removed { .. }) {
            return Ok(());
        }
        let created = matches!(change, Change::Created { .. });
        let mut bill = Bill::default();
        change.follow(place, &mut |effect| {
            if let Effect::Charge { owner, nodes, bytes } = effect {
                bill.add(owner, nodes, bytes);
            }
        });
        for Line { owner, nodes, bytes } in bill.0 {
            let Some(domain) = self.domains.named_by(owner) else { continue };
            if self.is_privileged(domain.id) {
                continue;
            }
            if nodes > 0 && !domain.limits.allow(Quota::Nodes, sum(domain.usage.nodes, nodes)) {
                return Err(Quota::Nodes.into());
            }
            if !domain.has_room(bytes) {
                // Clients know this error of a node that cannot be made.
                let error = if created { Error::Eio } else { Error::Enomem };
                return Err(Denial { error, ..Quota::Memory.into() });
            }
        }
        Ok(())
    }

    pub(super) fn admit_all(&self, caller: Caller, log: &[Record]) -> Result<(), Denial> {
        if caller.subject.privileged {
            return Ok(());
        }
        let Some(domain) = self.domains.find(caller.domain) else { return Ok(()) };
        let add = |(more, memory): &mut (isize, isize), effect: Effect<'_>| {
            if let Effect::Charge { owner, nodes, bytes } = effect
                && owner.who == domain.who
            {
                *more += nodes;
                *memory += bytes;
            }
        };
        let mut charge = (0, 0);
        for record in log {
            record.change.follow(record.place(), &mut |effect| add(&mut charge, effect));
        }
        let exceeded = |(more, memory)| {
            if more > 0 && !domain.limits.allow(Quota::Nodes, sum(domain.usage.nodes, more)) {
                Some(Quota::Nodes)
            } else {
                (!domain.has_room(memory)).then_some(Quota::Memory)
            }
        };
        if exceeded(charge).is_none() {
            return Ok(());
        }
        // What it removes makes room for what it makes.
        let mut nodes = SURVEYED_FOR_ROOM;
        let mut add = |effect: Effect<'_>| add(&mut charge, effect);
        for record in log {
            if let Some(mut survey) = survey_of(record.place(), &record.change, &mut add) {
                survey.go_on(&mut nodes, &mut add);
            }
        }
        exceeded(charge).map_or(Ok(()), |quota| Err(quota.into()))
    }

    /// Brings every account and the index of owned nodes up to a change. Of what it removed, so many
    /// nodes are settled now, and taken from the number.
    pub(super) fn account(&mut self, place: Place<'_>, change: &Change, nodes: &mut usize) {
        let (debris, mut books) = self.books();
        let to = &mut |effect: Effect<'_>| books.enter(effect);
        change.follow(place, to);
        if let Change::Removed { subtree, .. } = change
            && let Some(mut survey) = survey_of(place, change, to)
        {
            survey.go_on(nodes, to);
            debris.add(subtree, survey);
        }
    }

    /// Settles and frees so many nodes of what was removed.
    pub(crate) fn clear(&mut self, nodes: usize) {
        let (debris, mut books) = self.books();
        debris.clear(nodes, &mut |effect| books.enter(effect));
    }

    fn books(&mut self) -> (&mut Debris, Books<'_>) {
        let Self { tree, domains, notices, relieved, privileged, debris, .. } = self;
        (debris, Books { tree, domains, notices, relieved, privileged: *privileged })
    }

    /// Charges a domain with memory that is no node's.
    pub(crate) fn charge_bytes(&mut self, domain: DomId, bytes: isize) {
        if let Some(domain) = self.domains.find_mut(domain) {
            domain.charge(0, bytes);
            tell_soft_limit(domain, self.privileged, &mut self.notices);
            relieve(domain, &mut self.relieved);
        }
    }

    /// Counts a refusal, and tells the log of the first, the second, the fourth and so on: often
    /// enough to be seen, too rarely to be a nuisance.
    pub(crate) fn count_refusal(&mut self, domain: DomId, quota: Quota) {
        let Some(domain) = self.domains.find_mut(domain) else { return };
        let count = domain.refused.get_or_insert_default().count(quota);
        if count.is_power_of_two() {
            let (id, name, limit) = (domain.id, quota.name(), domain.limits.of(quota));
            let line =
                format!("domain {id} is refused more than {limit} of quota {name} ({count} times)");
            self.notices.push(line);
        }
    }

    pub(super) fn charge_whole_tree(&mut self) {
        let (tree, domains) = (&self.tree, &mut self.domains);
        for_each_node(tree, |path, node, _| {
            let bytes = charge_of(node, path.len());
            if let Some(domain) = domains.named_by_mut(node.perms.owner()) {
                domain.charge(1, bytes.cast_signed());
            }
        });
    }
}

/// Where what follows from changes is entered.
struct Books<'s> {
    tree: &'s Tree,
    domains: &'s mut Domains,
    notices: &'s mut Vec<String>,
    relieved: &'s mut Vec<ConnId>,
    privileged: DomId,
}

impl Books<'_> {
    fn enter(&mut self, effect: Effect<'_>) {
        match effect {
            Effect::Charge { owner, nodes, bytes } => {
                if let Some(domain) = self.domains.named_by_mut(owner) {
                    domain.charge(nodes, bytes);
                    tell_soft_limit(domain, self.privileged, self.notices);
                    relieve(domain, self.relieved);
                }
            }
            Effect::Root { owner, .. } if owner.domain == self.privileged => {}
            Effect::Root { owner, path, added } => {
                if let Some(domain) = self.domains.named_by_mut(owner) {
                    if added {
                        domain.roots.insert(path.into());
                    } else if !is_root_of(self.tree, owner.who, path) {
                        domain.roots.remove(path);
                    }
                }
            }
        }
    }
}

/// Whether the node of that path belongs to somebody who does not own its parent. What was removed
/// may be settled when another node has the path.
pub(super) fn is_root_of(tree: &Tree, who: Who, path: &[u8]) -> bool {
    let reach = tree.reach(Path::trusted(path), None, &mut ());
    reach.missing == 0
        && reach.node.perms.owner().who == who
        && reach.parent.is_none_or(|parent| parent.perms.owner().who != who)
}

/// Begins the survey of what a change removes.
fn survey_of(place: Place<'_>, change: &Change, to: &mut dyn FnMut(Effect<'_>)) -> Option<Survey> {
    match (place, change) {
        (Place::Node(path), Change::Removed { subtree, parent }) => {
            Some(Survey::new(path, subtree, parent.owner(), to))
        }
        _ => None,
    }
}

/// Notes a domain whose requests waited for memory, once it uses less than it may.
fn relieve(domain: &mut Domain, relieved: &mut Vec<ConnId>) {
    if domain.waits_for_memory && domain.limits.allow(Quota::Memory, domain.usage.memory) {
        domain.waits_for_memory = false;
        relieved.extend(domain.conn);
    }
}

/// Tells the log once that a domain passed its soft limit, and again after it was below.
fn tell_soft_limit(domain: &mut Domain, privileged: DomId, notices: &mut Vec<String>) {
    let passed =
        domain.id != privileged && !domain.limits.allow(Quota::SoftMemory, domain.usage.memory);
    if passed && !domain.soft_limit_told {
        let (id, memory) = (domain.id, domain.usage.memory);
        notices.push(format!("domain {id} uses {memory} bytes, more than its soft limit"));
    }
    domain.soft_limit_told = passed;
}

/// What one change adds to each owner: there are at most two, of the node and of its parent, or
/// of the node before and after.
#[derive(Default)]
struct Bill(Bounded<Line, 2>);

struct Line {
    owner: Entry,
    nodes: isize,
    bytes: isize,
}

impl Bill {
    fn add(&mut self, owner: Entry, nodes: isize, bytes: isize) {
        match self.0.iter_mut().find(|line| line.owner.who == owner.who) {
            Some(line) => {
                line.nodes += nodes;
                line.bytes += bytes;
            }
            None => drop(self.0.push(Line { owner, nodes, bytes })),
        }
    }
}

fn sum(count: usize, more: isize) -> usize {
    count.saturating_add_signed(more)
}
