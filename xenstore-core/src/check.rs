//! The check: recomputes every account and index from the tree itself, and compares.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;

use crate::announce::Audience;
use crate::change::charge_of;
use crate::perms::Who;
use crate::store::Store;
use crate::tree::for_each_node;

/// What a domain should be charged with.
#[derive(Default)]
struct Due {
    nodes: usize,
    memory: usize,
    roots: BTreeSet<Box<[u8]>>,
}

/// Compares what is kept with what it should be; the error says where they differ.
pub(crate) fn check(store: &Store, audience: &Audience) -> Result<(), String> {
    let mut dues: BTreeMap<Who, Due> = BTreeMap::new();
    for_each_node(&store.tree, |path, node, parent| {
        let owner = node.perms.owner();
        let due = dues.entry(owner.who).or_default();
        due.nodes += 1;
        due.memory += charge_of(node, path.len());
        let above = parent.map(|parent| parent.perms.owner().who);
        if above != Some(owner.who) && !store.is_privileged(owner.domain) {
            due.roots.insert(path.into());
        }
    });
    // By the lives themselves: what finds an entry's domain is to be checked, too.
    let living: BTreeSet<Who> = store.domains.iter().map(|domain| domain.who).collect();
    if let Some((_, due)) = dues.iter().find(|(who, _)| !living.contains(who)) {
        let root = due.roots.first().map(|root| String::from_utf8_lossy(root));
        return Err(format!("{} belongs to a dead domain", root.unwrap_or_default()));
    }
    for (id, connection) in audience.connections.iter() {
        let domain = store.domains.find(connection.domain);
        let Some(domain) = domain.filter(|domain| domain.conn == Some(id)) else {
            return Err(format!("{id:?} serves domain {}, which is not its", connection.domain));
        };
        let due = dues.entry(domain.who).or_default();
        for (at, &watch) in (0..).zip(&connection.watches) {
            match audience.watches.watch(watch) {
                Some(watch) if watch.conn == id.slot && watch.listed_at == at => {
                    due.memory += watch.memory();
                }
                other => return Err(format!("watch {at} of {id:?} is {other:?}")),
            }
        }
        due.memory += connection.transactions.values().map(|open| open.memory).sum::<usize>();
        let counted = (connection.watches.len(), connection.transactions.len());
        let usage = (domain.usage.watches, domain.usage.transactions);
        if counted != usage {
            return Err(format!(
                "domain {} has {counted:?} watches and transactions, charged {usage:?}",
                domain.id
            ));
        }
    }
    for domain in store.domains.iter() {
        let due = dues.remove(&domain.who).unwrap_or_default();
        let (due_use, usage) = ((due.nodes, due.memory), (domain.usage.nodes, domain.usage.memory));
        if due_use != usage {
            return Err(format!(
                "domain {} has {due_use:?} nodes and bytes, charged {usage:?}",
                domain.id
            ));
        }
        if due.roots != domain.roots {
            return Err(format!(
                "domain {} owns subtrees {:?}, the index has {:?}",
                domain.id, due.roots, domain.roots
            ));
        }
    }
    let listed: usize = audience.connections.iter().map(|(_, conn)| conn.watches.len()).sum();
    if listed != audience.watches.len() {
        let all = audience.watches.len();
        return Err(format!("connections list {listed} watches, {all} exist"));
    }
    audience.watches.check()
}
