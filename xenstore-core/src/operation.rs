//! Operations on a tree: each is judged first, without changing anything, and then done.
//!
//! What only looks gives an answer, what edits gives a [`Change`]. Accounting, the index of owned
//! nodes and the events all follow from changes alone, for a single request and for a transaction's
//! commit alike.

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
    Look(Look<'a>),
    Edit(Edit<'a>),
}

/// An operation that changes nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look<'a> {
    Value(Path<'a>),
    /// The names of the children.
    Names(Path<'a>),
    /// A part of the list of names, from that byte on; a negative number is past the end.
    Part(Path<'a>, i32),
    Perms(Place<'a>),
}

/// An operation that may change something.
#[derive(Clone, Debug)]
pub(crate) enum Edit<'a> {
    Write(Path<'a>, &'a [u8]),
    Mkdir(Path<'a>),
    Rm(Path<'a>),
    Perms(Place<'a>, Rc<Perms>),
}

impl<'a> PathOp<'a> {
    pub(crate) fn place(&self) -> Place<'a> {
        match self {
            Self::Look(look) => look.place(),
            Self::Edit(edit) => edit.place(),
        }
    }
}

impl<'a> Look<'a> {
    pub(crate) fn place(self) -> Place<'a> {
        match self {
            Self::Value(path) | Self::Names(path) | Self::Part(path, _) => Place::Node(path),
            Self::Perms(place) => place,
        }
    }
}

impl<'a> Edit<'a> {
    pub(crate) fn place(&self) -> Place<'a> {
        match self {
            Self::Write(path, _) | Self::Mkdir(path) | Self::Rm(path) => Place::Node(*path),
            Self::Perms(place, _) => *place,
        }
    }

    /// Whether it can make the store larger.
    pub(crate) fn grows(&self) -> bool {
        !matches!(self, Self::Rm(_))
    }

    /// Returns the value that it writes.
    fn value(&self) -> &'a [u8] {
        if let Self::Write(_, value) = self { value } else { &[] }
    }
}

/// What a look found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen<'t> {
    /// The value of the node.
    Value(&'t Rc<Node>),
    /// The names of the node's children.
    Names(&'t Rc<Node>),
    /// The names of the node's children from that byte on.
    Part(&'t Rc<Node>, i32),
    Perms(&'t Rc<Perms>),
}

impl Seen<'_> {
    /// Returns it for a transaction to remember.
    fn keep(self, domains: &Domains) -> Answer {
        match self {
            Self::Value(node) => Answer::Value(Rc::clone(node)),
            Self::Names(node) => Answer::Names(Rc::clone(node)),
            Self::Part(node, from) => Answer::Part(Rc::clone(node), from),
            Self::Perms(perms) => {
                let listed = listed(perms, domains).count();
                Answer::Perms { perms: Rc::clone(perms), listed }
            }
        }
    }
}

/// What an operation of a transaction saw or did.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Done,
    Value(Rc<Node>),
    Names(Rc<Node>),
    Part(Rc<Node>, i32),
    /// The permissions, and how many of them were listed: those of the dead are not.
    Perms {
        perms: Rc<Perms>,
        listed: usize,
    },
}

impl Answer {
    /// Returns what was seen; `None` if something was done.
    pub(crate) fn seen(&self) -> Option<Seen<'_>> {
        match self {
            Self::Done => None,
            Self::Value(node) => Some(Seen::Value(node)),
            Self::Names(node) => Some(Seen::Names(node)),
            Self::Part(node, from) => Some(Seen::Part(node, *from)),
            Self::Perms { perms, .. } => Some(Seen::Perms(perms)),
        }
    }

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

/// Returns what a look sees.
///
/// # Errors
/// Those of the operation, in the order in which docs/misc/xenstore.txt and the reference server
/// let them win.
#[inline]
pub(crate) fn look<'t>(
    tree: &'t Tree,
    subject: &Subject,
    home: Option<&Home>,
    look: Look<'_>,
) -> Result<Seen<'t>, Denial> {
    let readable = |path| readable(tree, subject, home, path);
    match look {
        Look::Value(path) => readable(path).map(Seen::Value),
        Look::Names(path) => readable(path).map(Seen::Names),
        Look::Part(path, from) => readable(path).map(|node| Seen::Part(node, from)),
        Look::Perms(Place::Node(path)) => readable(path).map(|node| Seen::Perms(&node.perms)),
        Look::Perms(Place::Special(name)) => look_at_special(tree, subject, name),
    }
}

fn readable<'t>(
    tree: &'t Tree,
    subject: &Subject,
    home: Option<&Home>,
    path: Path<'_>,
) -> Result<&'t Rc<Node>, Denial> {
    let reach = tree.reach(path, home, &mut ());
    if reach.missing > 0 {
        path.judge()?;
    }
    match (reach.node.perms.readable(subject), reach.missing) {
        (true, 0) => Ok(reach.node),
        // Who may not read the nearest node is not told that the rest is missing.
        (false, _) => Err(Error::Eacces.into()),
        (true, _) => Err(Error::Enoent.into()),
    }
}

fn look_at_special<'t>(tree: &'t Tree, subject: &Subject, name: &[u8]) -> Result<Seen<'t>, Denial> {
    let Some(special) = Special::from_name(name) else {
        return Err(unknown(tree.root().perms.readable(subject)));
    };
    let perms = tree.special(special);
    if perms.readable(subject) { Ok(Seen::Perms(perms)) } else { Err(Error::Eacces.into()) }
}

/// Returns the refusal of a special name that there is not. It has no parent but the root, whose
/// rights decide what is told.
fn unknown(told: bool) -> Denial {
    if told { Error::Enoent } else { Error::Eacces }.into()
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
    /// Those of [`look`] and of [`edit`](Self::edit).
    pub(crate) fn judge(
        &mut self,
        tree: &Tree,
        op: &PathOp<'_>,
    ) -> Result<(Answer, Change), Denial> {
        match op {
            PathOp::Look(what) => {
                let seen = look(tree, &self.subject, self.home, *what)?;
                Ok((seen.keep(self.domains), Change::Nothing))
            }
            PathOp::Edit(edit) => Ok((Answer::Done, self.edit(tree, edit)?)),
        }
    }

    /// Returns what an edit changes on this tree, without changing it.
    ///
    /// # Errors
    /// Those of the operation, in the order in which docs/misc/xenstore.txt and the reference
    /// server let them win.
    pub(crate) fn edit(&mut self, tree: &Tree, edit: &Edit<'_>) -> Result<Change, Denial> {
        if let Edit::Perms(_, perms) = edit {
            // Clients are told of this even before a malformed path.
            self.must_own_alive(perms)?;
        }
        let path = match edit {
            Edit::Write(path, _)
            | Edit::Mkdir(path)
            | Edit::Rm(path)
            | Edit::Perms(Place::Node(path), _) => *path,
            Edit::Perms(Place::Special(name), perms) => {
                return self.set_special(tree, name, perms);
            }
        };
        let reach = tree.reach(path, self.home, &mut self.trail);
        if reach.missing > 0 {
            path.judge()?;
        }
        match edit {
            Edit::Write(_, value) if reach.missing == 0 => self.write(reach, value),
            Edit::Write(_, value) => self.create(path, reach, value),
            Edit::Mkdir(_) if reach.missing == 0 => self.mkdir_again(reach),
            Edit::Mkdir(_) => self.create(path, reach, &[]),
            Edit::Rm(_) => self.remove(reach),
            Edit::Perms(_, perms) => self.set_perms(reach, perms),
        }
    }

    fn write(&self, reach: Reach<'_>, value: &[u8]) -> Result<Change, Denial> {
        self.must_write(reach)?;
        let node = reach.node;
        self.must_fit(node.perms.entries().len(), value.len() + node.names_len())?;
        Ok(Change::Written {
            perms: Rc::clone(&node.perms),
            parent: reach.parent.map(|parent| Rc::clone(&parent.perms)),
            from: node.value().len(),
            to: value.len(),
        })
    }

    fn mkdir_again(&self, reach: Reach<'_>) -> Result<Change, Denial> {
        self.must_write(reach)?;
        Ok(Change::Nothing)
    }

    fn create(&mut self, path: Path<'_>, reach: Reach<'_>, value: &[u8]) -> Result<Change, Denial> {
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
        Ok(Change::Created { perms, parent, made: reach.missing, value: value.len() })
    }

    fn remove(&self, reach: Reach<'_>) -> Result<Change, Denial> {
        self.must_write(reach)?;
        match (reach.missing, reach.parent) {
            (0, Some(parent)) => {
                let subtree = Rc::clone(reach.node);
                Ok(Change::Removed { subtree, parent: Rc::clone(&parent.perms) })
            }
            (0, None) => Err(Error::Einval.into()),
            // To remove what is not there is no error where it could have been.
            (1, _) => Ok(Change::Nothing),
            _ => Err(Error::Enoent.into()),
        }
    }

    fn set_perms(&self, reach: Reach<'_>, perms: &Rc<Perms>) -> Result<Change, Denial> {
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
        Ok(Change::Permitted {
            node: Rc::clone(node),
            perms: Rc::clone(perms),
            parent: reach.parent.map(|parent| Rc::clone(&parent.perms)),
        })
    }

    fn set_special(&self, tree: &Tree, name: &[u8], perms: &Rc<Perms>) -> Result<Change, Denial> {
        let Some(special) = Special::from_name(name) else {
            return Err(unknown(tree.root().perms.rights(&self.subject).write()));
        };
        let present = tree.special(special);
        if !present.rights(&self.subject).owner {
            return Err(Error::Eacces.into());
        }
        self.must_keep_owner(present, perms)?;
        Ok(Change::Announced { special, perms: Rc::clone(perms) })
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
    edit: &Edit<'_>,
    change: &Change,
    generation: u64,
    trail: &Trail,
) {
    match (edit.place(), change) {
        (_, Change::Nothing) => {}
        (_, Change::Announced { special, perms }) => tree.set_special(*special, Rc::clone(perms)),
        (Place::Node(path), Change::Written { .. }) => {
            tree.write(Way { path, trail }, edit.value(), generation);
        }
        (Place::Node(path), Change::Created { perms, .. }) => {
            tree.create(Way { path, trail }, edit.value(), perms, generation);
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
