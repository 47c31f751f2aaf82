//! Operations on a tree: each is judged first, without changing anything, and then done.
//!
//! Judging gives the answer and a [`Change`]. Accounting, the index of owned nodes and the events
//! all follow from changes alone, for a single request and for a transaction's commit alike.

use alloc::rc::Rc;

use crate::change::{Change, entry_len, size};
use crate::domain::Domains;
use crate::host::DomId;
use crate::path::{Path, Place};
use crate::perms::{Entry, Interned, Perms, Subject};
use crate::quota::{Denial, Limits, Quota};
use crate::trail::{Home, Trail};
use crate::tree::{Node, Reach, Special, Tree, Way};
use crate::wire::Error;

/// An operation that may run in a transaction.
#[derive(Clone, Debug)]
pub(crate) enum PathOp<'a> {
    /// An operation on a node of the tree.
    Node(Path<'a>, NodeOp<'a>),
    /// An operation on permissions, which the special nodes have too.
    Perms(Place<'a>, PermsOp),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum NodeOp<'a> {
    Read,
    Directory,
    /// A part of the list of names, from that byte on; a negative number is past the end.
    DirectoryPart(i32),
    Write(&'a [u8]),
    Mkdir,
    Rm,
}

#[derive(Clone, Debug)]
pub(crate) enum PermsOp {
    Show,
    Set(Rc<Perms>),
}

impl<'a> PathOp<'a> {
    pub(crate) fn place(&self) -> Place<'a> {
        match self {
            PathOp::Node(path, _) => Place::Node(*path),
            PathOp::Perms(place, _) => *place,
        }
    }
}

/// What an operation saw or did.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Done,
    /// The value of the node.
    Value(Rc<Node>),
    /// The names of the node's children.
    Names(Rc<Node>),
    /// The names of the node's children from that byte on.
    Part(Rc<Node>, i32),
    /// The permissions, and how many of them were listed: those of the dead are not.
    Perms {
        perms: Rc<Perms>,
        listed: usize,
    },
}

impl Answer {
    /// Whether an answer that was given is the one that would be given now.
    pub(crate) fn still_holds(&self, now: &Self, domains: &Domains) -> bool {
        match (self, now) {
            (Self::Done, Self::Done) => true,
            (Self::Value(then), Self::Value(now)) => {
                Rc::ptr_eq(then, now) || then.value() == now.value()
            }
            (Self::Names(then), Self::Names(now)) | (Self::Part(then, _), Self::Part(now, _)) => {
                Rc::ptr_eq(then, now) || then.has_names_of(now)
            }
            (Self::Perms { perms: then, listed: count }, Self::Perms { perms: now, .. }) => {
                // Entries only ever go from listed to dead, so an equal count means none went.
                listed(then, domains).count() == *count
                    && listed(then, domains).eq(listed(now, domains))
            }
            _ => false,
        }
    }

    /// Returns how many names there may be to compare before it is known whether the answer holds.
    pub(crate) fn names(&self) -> usize {
        match self {
            Self::Names(node) | Self::Part(node, _) => node.children_len(),
            Self::Done | Self::Value(_) | Self::Perms { .. } => 0,
        }
    }
}

/// Returns the entries of a list that are still about a living domain, or never were.
pub(crate) fn listed<'a>(
    perms: &'a Perms,
    domains: &'a Domains,
) -> impl Iterator<Item = Entry> + 'a {
    perms.entries().iter().copied().filter(|entry| domains.lists(*entry))
}

/// On whose behalf, and under which rules, operations are judged.
pub(crate) struct Judge<'a> {
    pub(crate) domain: DomId,
    pub(crate) subject: Subject,
    /// `None` for who is bound by no quota.
    pub(crate) limits: Option<&'a Limits>,
    pub(crate) domains: &'a Domains,
    pub(crate) interned: &'a mut Interned,
    /// The home of who asks.
    pub(crate) home: Option<&'a Home>,
    /// The way to the node of the last operation that was judged.
    pub(crate) trail: Trail,
}

impl Judge<'_> {
    /// Returns what the operation answers and changes on this tree, without changing it.
    ///
    /// # Errors
    /// Those of the operation, in the order in which docs/misc/xenstore.txt and the reference
    /// server let them win.
    pub(crate) fn judge(
        &mut self,
        tree: &Tree,
        op: &PathOp<'_>,
    ) -> Result<(Answer, Change), Denial> {
        match op {
            PathOp::Node(path, op) => {
                let reach = tree.reach(*path, self.home, &mut self.trail);
                if reach.missing > 0 {
                    path.judge()?;
                }
                match op {
                    NodeOp::Read => self.look(reach, Answer::Value),
                    NodeOp::Directory => self.look(reach, Answer::Names),
                    NodeOp::DirectoryPart(from) => {
                        self.look(reach, |node| Answer::Part(node, *from))
                    }
                    NodeOp::Write(value) if reach.missing == 0 => self.write(reach, value),
                    NodeOp::Write(value) => self.create(*path, reach, value),
                    NodeOp::Mkdir if reach.missing == 0 => self.mkdir_again(reach),
                    NodeOp::Mkdir => self.create(*path, reach, &[]),
                    NodeOp::Rm => self.remove(reach),
                }
            }
            PathOp::Perms(Place::Node(path), op) => {
                if let PermsOp::Set(perms) = op {
                    // Clients are told of this even before a malformed path.
                    self.must_own_alive(perms)?;
                }
                let reach = tree.reach(*path, self.home, &mut self.trail);
                if reach.missing > 0 {
                    path.judge()?;
                }
                match op {
                    PermsOp::Show => self.look(reach, |node| self.shown(&node.perms)),
                    PermsOp::Set(perms) => self.set_perms(reach, perms),
                }
            }
            PathOp::Perms(Place::Special(name), op) => self.special(tree, name, op),
        }
    }

    fn look(
        &self,
        reach: Reach<'_>,
        answer: impl FnOnce(Rc<Node>) -> Answer,
    ) -> Result<(Answer, Change), Denial> {
        let readable = reach.node.perms.readable(&self.subject);
        match (readable, reach.missing) {
            (true, 0) => Ok((answer(Rc::clone(reach.node)), Change::Nothing)),
            // Who may not read the nearest node is not told that the rest is missing.
            (false, _) => Err(Error::Eacces.into()),
            (true, _) => Err(Error::Enoent.into()),
        }
    }

    fn write(&self, reach: Reach<'_>, value: &[u8]) -> Result<(Answer, Change), Denial> {
        self.must_write(reach)?;
        let node = reach.node;
        self.must_fit(node.perms.entries().len(), value.len() + node.names_len())?;
        let change = Change::Written {
            perms: Rc::clone(&node.perms),
            parent: reach.parent.map(|parent| Rc::clone(&parent.perms)),
            from: node.value().len(),
            to: value.len(),
        };
        Ok((Answer::Done, change))
    }

    fn mkdir_again(&self, reach: Reach<'_>) -> Result<(Answer, Change), Denial> {
        self.must_write(reach)?;
        Ok((Answer::Done, Change::Nothing))
    }

    fn create(
        &mut self,
        path: Path<'_>,
        reach: Reach<'_>,
        value: &[u8],
    ) -> Result<(Answer, Change), Denial> {
        self.must_write(reach)?;
        let parent = &reach.node.perms;
        let perms = match self.limits {
            // What a guest makes is its own; the privileged domain makes it for the parent's owner.
            Some(_) => self.interned.inherited(parent, self.domain, self.subject.who),
            None => Rc::clone(parent),
        };
        let entries = perms.entries().len();
        let mut body = value.len();
        let mut here = path;
        for _ in 0..reach.missing {
            self.must_fit(entries, body)?;
            body = entry_len(here);
            here = here.ancestor(1);
        }
        let node = reach.node;
        let filled = node.value().len() + node.names_len() + body;
        self.must_fit(node.perms.entries().len(), filled)?;
        let parent = Rc::clone(parent);
        let change = Change::Created { perms, parent, made: reach.missing, value: value.len() };
        Ok((Answer::Done, change))
    }

    fn remove(&self, reach: Reach<'_>) -> Result<(Answer, Change), Denial> {
        self.must_write(reach)?;
        match (reach.missing, reach.parent) {
            (0, Some(parent)) => {
                let subtree = Rc::clone(reach.node);
                Ok((Answer::Done, Change::Removed { subtree, parent: Rc::clone(&parent.perms) }))
            }
            (0, None) => Err(Error::Einval.into()),
            // To remove what is not there is no error where it could have been.
            (1, _) => Ok((Answer::Done, Change::Nothing)),
            _ => Err(Error::Enoent.into()),
        }
    }

    fn set_perms(&self, reach: Reach<'_>, perms: &Rc<Perms>) -> Result<(Answer, Change), Denial> {
        let rights = reach.node.perms.rights(&self.subject);
        if reach.missing > 0 {
            return Err(if rights.write() { Error::Enoent } else { Error::Eacces }.into());
        }
        if !rights.owner {
            return Err(Error::Eacces.into());
        }
        let node = reach.node;
        self.must_keep_owner(&node.perms, perms)?;
        self.must_fit(perms.entries().len(), node.value().len() + node.names_len())?;
        let change = Change::Permitted {
            node: Rc::clone(node),
            perms: Rc::clone(perms),
            parent: reach.parent.map(|parent| Rc::clone(&parent.perms)),
        };
        Ok((Answer::Done, change))
    }

    fn special(&self, tree: &Tree, name: &[u8], op: &PermsOp) -> Result<(Answer, Change), Denial> {
        if let PermsOp::Set(perms) = op {
            self.must_own_alive(perms)?;
        }
        let Some(special) = Special::from_name(name) else {
            // Such a name has no parent but the root, whose rights decide what is told.
            let rights = tree.root().perms.rights(&self.subject);
            let told = match op {
                PermsOp::Show => rights.read(),
                PermsOp::Set(_) => rights.write(),
            };
            return Err(if told { Error::Enoent } else { Error::Eacces }.into());
        };
        let present = tree.special(special);
        let rights = present.rights(&self.subject);
        match op {
            PermsOp::Show if rights.read() => Ok((self.shown(present), Change::Nothing)),
            PermsOp::Set(perms) if rights.owner => {
                self.must_keep_owner(present, perms)?;
                let perms = Rc::clone(perms);
                Ok((Answer::Done, Change::Announced { special, perms }))
            }
            PermsOp::Show | PermsOp::Set(_) => Err(Error::Eacces.into()),
        }
    }

    fn shown(&self, perms: &Rc<Perms>) -> Answer {
        Answer::Perms { perms: Rc::clone(perms), listed: listed(perms, self.domains).count() }
    }

    fn must_write(&self, reach: Reach<'_>) -> Result<(), Denial> {
        if reach.node.perms.rights(&self.subject).write() {
            Ok(())
        } else {
            Err(Error::Eacces.into())
        }
    }

    /// A new owner must live: it may have died since a transaction named it.
    fn must_own_alive(&self, perms: &Perms) -> Result<(), Denial> {
        self.domains.named_by(perms.owner()).map(|_| ()).ok_or(Error::Enoent.into())
    }

    /// No guest may give a node away, or its quota with it.
    fn must_keep_owner(&self, from: &Perms, to: &Perms) -> Result<(), Denial> {
        let kept = self.subject.privileged || from.owner().who == to.owner().who;
        if kept { Ok(()) } else { Err(Error::Eperm.into()) }
    }

    fn must_fit(&self, entries: usize, body: usize) -> Result<(), Denial> {
        match self.limits {
            Some(limits) if !limits.allow(Quota::NodeSize, size(entries, body)) => {
                Err(Quota::NodeSize.into())
            }
            _ => Ok(()),
        }
    }
}

/// Does to the tree what judging it said.
///
/// The trail is the one that judging left.
pub(crate) fn apply(
    tree: &mut Tree,
    op: &PathOp<'_>,
    change: &Change,
    generation: u64,
    trail: &Trail,
) {
    match (op.place(), change) {
        (_, Change::Nothing) => {}
        (_, Change::Announced { special, perms }) => tree.set_special(*special, Rc::clone(perms)),
        (Place::Node(path), Change::Written { .. }) => {
            tree.write(Way { path, trail }, value_of(op), generation);
        }
        (Place::Node(path), Change::Created { perms, .. }) => {
            tree.create(Way { path, trail }, value_of(op), perms, generation);
        }
        (Place::Node(path), Change::Permitted { perms, .. }) => {
            tree.set_perms(Way { path, trail }, Rc::clone(perms), generation);
        }
        (Place::Node(path), Change::Removed { .. }) => {
            drop(tree.remove(Way { path, trail }, generation));
        }
        (Place::Special(_), _) => unreachable!("only permissions of special nodes change"),
    }
}

fn value_of<'a>(op: &PathOp<'a>) -> &'a [u8] {
    match op {
        PathOp::Node(_, NodeOp::Write(value)) => value,
        PathOp::Node(..) | PathOp::Perms(..) => &[],
    }
}
