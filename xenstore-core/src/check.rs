//! The check: recomputes every account and index from the tree itself, and compares.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;

use crate::announce::Audience;
use crate::change::charge_of;
use crate::connection::Connection;
use crate::domain::Domain;
use crate::host::{ConnId, DomId};
use crate::perms::Who;
use crate::store::Store;
use crate::tree::for_each_node;

/// What a domain should be charged with.
#[derive(Default)]
struct Due {
    nodes: usize,
    memory: usize,
    roots: BTreeSet<Box<[u8]>>,
    /// Roots that are removed, but may still be in the index.
    removed: BTreeSet<Box<[u8]>>,
}

type Dues = BTreeMap<Who, Due>;

/// Compares what is kept with what it should be; the error says where they differ.
pub(crate) fn check(store: &Store, audience: &Audience) -> Result<(), String> {
    let mut dues = dues_for_nodes(store)?;
    add_unsettled(store, &mut dues);
    for (id, connection) in audience.connections.iter() {
        let domain = store.domains.find(connection.domain);
        let Some(domain) = domain.filter(|domain| domain.conn == Some(id)) else {
            let (slot, id) = (id.slot, connection.domain);
            return Err(format!("connection {slot} serves domain {id}, which is not its"));
        };
        let due = dues.entry(domain.who).or_default();
        due.memory += memory_of(id, connection, audience)?;
        let (usage, id) = (domain.usage, domain.id);
        must_agree(id, "watches", connection.watches.len(), usage.watches)?;
        must_agree(id, "transactions", connection.transactions.len(), usage.transactions)?;
    }
    for domain in store.domains.iter() {
        compare(domain, &dues.remove(&domain.who).unwrap_or_default())?;
    }
    let listed: usize = audience.connections.iter().map(|(_, conn)| conn.watches.len()).sum();
    if listed != audience.watches.len() {
        let all = audience.watches.len();
        return Err(format!("connections list {listed} watches, {all} exist"));
    }
    audience.watches.check()
}

/// What each domain is due for its nodes; only living domains may have any.
fn dues_for_nodes(store: &Store) -> Result<Dues, String> {
    let mut dues = Dues::new();
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
    let mut living = BTreeSet::new();
    living.extend(store.domains.iter().map(|domain| domain.who));
    match dues.iter().find(|(who, _)| !living.contains(who)) {
        Some((_, due)) => {
            let root = due.roots.first().map(|root| String::from_utf8_lossy(root));
            Err(format!("{} belongs to a dead domain", root.unwrap_or_default()))
        }
        None => Ok(dues),
    }
}

/// Adds what living domains are charged with for nodes that are removed and not settled yet.
fn add_unsettled(store: &Store, dues: &mut Dues) {
    store.debris.each_unsettled(&mut |node| {
        if store.domains.named_by(node.owner).is_some() {
            let due = dues.entry(node.owner.who).or_default();
            due.nodes += 1;
            due.memory += node.charge;
            if node.is_root {
                due.removed.insert(node.path.into());
            }
        }
    });
}

/// The memory that a connection's watches and transactions are due.
fn memory_of(id: ConnId, connection: &Connection, audience: &Audience) -> Result<usize, String> {
    let mut memory = connection.transactions.values().map(|open| open.memory).sum();
    for (at, &watch) in (0..).zip(&connection.watches) {
        match audience.watches.watch(watch) {
            Some(watch) if watch.conn == id.slot && watch.listed_at == at => {
                memory += watch.memory();
            }
            _ => return Err(format!("watch {at} of connection {} is not its", id.slot)),
        }
    }
    Ok(memory)
}

/// Holds what a domain is charged with, and the index of what it owns, against what is due.
fn compare(domain: &Domain, due: &Due) -> Result<(), String> {
    let id = domain.id;
    must_agree(id, "nodes", due.nodes, domain.usage.nodes)?;
    must_agree(id, "bytes", due.memory, domain.usage.memory)?;
    if let Some(root) = due.roots.difference(&domain.roots).next() {
        let root = String::from_utf8_lossy(root);
        return Err(format!("domain {id} owns {root}, which the index has not"));
    }
    let mut known = domain.roots.iter();
    match known.find(|&root| !due.roots.contains(root) && !due.removed.contains(root)) {
        Some(root) => {
            let root = String::from_utf8_lossy(root);
            Err(format!("domain {id} does not own {root}, which the index has"))
        }
        None => Ok(()),
    }
}

fn must_agree(domain: DomId, what: &str, has: usize, charged: usize) -> Result<(), String> {
    if has == charged {
        Ok(())
    } else {
        Err(format!("domain {domain} has {has} {what}, charged {charged}"))
    }
}
