//! Permissions: who may read and write a node.
//!
//! An entry names a domain by number *and* by [`Who`], so that a later domain of the same number
//! gets nothing, and a domain's death costs no search for entries that name it.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::borrow::Borrow;
use core::ops::Bound;

use crate::host::DomId;
use crate::number;

/// A domain as one life, never reused: what an entry grants to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who(pub(crate) u64);

impl Who {
    /// A domain that did not exist when the entry was written: listed, but nobody is it, ever.
    pub(crate) const NOBODY: Self = Self(0);
    /// Every domain.
    pub(crate) const EVERYBODY: Self = Self(1);
    /// The first that stands for a real domain.
    pub(crate) const FIRST: Self = Self(2);
}

/// What an entry grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    /// `n`
    None,
    /// `r`
    Read,
    /// `w`
    Write,
    /// `b`
    Both,
}

impl Access {
    pub(crate) fn from_letter(letter: u8) -> Option<Self> {
        match letter {
            b'n' => Some(Self::None),
            b'r' => Some(Self::Read),
            b'w' => Some(Self::Write),
            b'b' => Some(Self::Both),
            _ => None,
        }
    }

    pub(crate) fn letter(self) -> u8 {
        match self {
            Self::None => b'n',
            Self::Read => b'r',
            Self::Write => b'w',
            Self::Both => b'b',
        }
    }
}

/// A permission as a client spells it: a letter and a domain's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spelled {
    pub(crate) access: Access,
    pub(crate) domain: DomId,
}

impl Spelled {
    /// Reads `<letter><number>`, the number in any base.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (&letter, number) = text.split_first()?;
        let access = Access::from_letter(letter)?;
        let number = number::any_base(number, u16::MAX.into())?;
        Some(Self { access, domain: DomId(u16::try_from(number).ok()?) })
    }
}

/// One permission of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) who: Who,
    pub(crate) domain: DomId,
    pub(crate) access: Access,
}

/// The permissions of a node: its owner, whose entry also says what everybody else may do, and
/// then exceptions. Never empty.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Perms(Box<[Entry]>);

impl Perms {
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.0
    }

    pub(crate) fn owner(&self) -> Entry {
        self.0[0]
    }

    /// Returns what the subject may do with a node that has these permissions.
    ///
    /// The first entry that matches decides; none adds to another.
    pub(crate) fn rights(&self, subject: &Subject) -> Rights {
        let owner = self.owner();
        if subject.privileged || subject.is(owner.who) {
            return Rights { access: Access::Both, owner: true };
        }
        let exception = self.0[1..].iter().find(|entry| subject.is(entry.who));
        Rights { access: exception.unwrap_or(&owner).access, owner: false }
    }

    pub(crate) fn readable(&self, subject: &Subject) -> bool {
        self.rights(subject).read()
    }
}

/// Whose rights are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    pub(crate) who: Who,
    /// The domain whose rights it has besides its own (`SET_TARGET`); itself if none.
    pub(crate) target: Who,
    /// Whether nothing is forbidden to it.
    pub(crate) privileged: bool,
}

impl Subject {
    fn is(&self, who: Who) -> bool {
        who == self.who || who == self.target || who == Who::EVERYBODY
    }
}

/// What somebody may do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    access: Access,
    /// Whether it may set the permissions.
    pub(crate) owner: bool,
}

impl Rights {
    pub(crate) fn read(self) -> bool {
        matches!(self.access, Access::Read | Access::Both)
    }

    pub(crate) fn write(self) -> bool {
        matches!(self.access, Access::Write | Access::Both)
    }
}

/// Every permission list in use, each once: thousands of nodes share a few.
#[derive(Debug, Default)]
pub(crate) struct Interned {
    /// Those of each owner: so many owners are told apart by a number, not by comparing lists.
    lists: BTreeMap<Who, BTreeSet<ByEntries>>,
    len: usize,
    /// Where the search for lists that nobody uses goes on.
    sweep: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ByEntries(Rc<Perms>);

impl Borrow<[Entry]> for ByEntries {
    fn borrow(&self) -> &[Entry] {
        &self.0.0
    }
}

impl Interned {
    /// Returns the one list with these entries, of which there must be at least one.
    pub(crate) fn list(&mut self, entries: &[Entry]) -> Rc<Perms> {
        let owner = owner_of(entries);
        if let Some(list) = self.lists.get(&owner).and_then(|own| own.get(entries)) {
            return Rc::clone(&list.0);
        }
        // Each new list pays for a look at two old ones, which bounds the table to about twice
        // what is in use without ever stopping to sweep it.
        self.sweep_one();
        self.sweep_one();
        let list = Rc::new(Perms(entries.into()));
        self.lists.entry(owner).or_default().insert(ByEntries(Rc::clone(&list)));
        self.len += 1;
        list
    }

    /// Returns the list as a node of this owner inherits it.
    pub(crate) fn inherited(&mut self, parent: &Rc<Perms>, domain: DomId, who: Who) -> Rc<Perms> {
        if parent.owner().who == who {
            return Rc::clone(parent);
        }
        let mut entries = parent.entries().to_vec();
        entries[0].who = who;
        entries[0].domain = domain;
        self.list(&entries)
    }

    /// Forgets the lists of an owner that is dead. Nobody asks for one again; where a snapshot still
    /// has one, it goes with that.
    pub(crate) fn bury(&mut self, owner: Who) {
        self.len -= self.lists.remove(&owner).map_or(0, |own| own.len());
    }

    /// Returns how many lists are kept.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn sweep_one(&mut self) {
        let owner = owner_of(&self.sweep);
        let after = (Bound::Excluded(&self.sweep[..]), Bound::Unbounded);
        let own = self.lists.get(&owner).and_then(|own| own.range::<[Entry], _>(after).next());
        let next = own.or_else(|| {
            let (_, others) =
                self.lists.range((Bound::Excluded(owner), Bound::Unbounded)).next()?;
            others.first()
        });
        self.sweep.clear();
        let Some(ByEntries(next)) = next else { return };
        self.sweep.extend_from_slice(next.entries());
        if Rc::strong_count(next) > 1 {
            return;
        }
        let owner = next.owner().who;
        let Some(own) = self.lists.get_mut(&owner) else { return };
        own.remove(&self.sweep[..]);
        self.len -= 1;
        if own.is_empty() {
            self.lists.remove(&owner);
        }
    }
}

fn owner_of(entries: &[Entry]) -> Who {
    entries.first().map_or(Who::NOBODY, |owner| owner.who)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(access: Access, who: u16) -> Entry {
        Entry { who: Who(who.into()), domain: DomId(who), access }
    }

    fn guest(who: u64) -> Subject {
        Subject { who: Who(who), target: Who(who), privileged: false }
    }

    fn list(entries: &[Entry]) -> Rc<Perms> {
        Interned::default().list(entries)
    }

    #[test]
    fn the_first_match_decides() {
        let perms =
            list(&[entry(Access::None, 10), entry(Access::None, 11), entry(Access::Read, 11)]);
        assert!(!perms.readable(&guest(11)), "n before r of the same domain");
        let perms = list(&[entry(Access::Read, 10), entry(Access::None, 11)]);
        assert!(!perms.readable(&guest(11)) && perms.readable(&guest(12)), "r for all but one");
        assert!(perms.rights(&guest(10)).owner && !perms.rights(&guest(12)).owner);
    }

    #[test]
    fn a_target_lends_its_rights() {
        let perms = list(&[entry(Access::None, 10)]);
        let stub = Subject { target: Who(10), ..guest(13) };
        assert!(perms.rights(&stub).owner && !perms.rights(&guest(13)).owner);
    }

    #[test]
    fn nobody_is_nobody_and_everybody_is_everybody() {
        let nobody = Entry { who: Who::NOBODY, ..entry(Access::Read, 20) };
        let perms = list(&[entry(Access::None, 10), nobody]);
        assert!(!perms.readable(&guest(20)), "the domain did not exist when it was named");
        let all = Entry { who: Who::EVERYBODY, ..entry(Access::Read, 20) };
        assert!(list(&[entry(Access::None, 10), all]).readable(&guest(99)));
    }

    #[test]
    fn permissions_are_spelled_with_a_letter_and_a_number() {
        let spelled = |text: &str| Spelled::parse(text.as_bytes());
        assert_eq!(spelled("b0x1f"), Some(Spelled { access: Access::Both, domain: DomId(31) }));
        for text in ["", "x1", "n", "n1x", "r65536"] {
            assert_eq!(spelled(text), None, "{text:?}");
        }
    }

    #[test]
    fn equal_lists_are_one_and_unused_ones_go() {
        let mut interned = Interned::default();
        let kept = interned.list(&[entry(Access::Read, 2)]);
        assert!(Rc::ptr_eq(&kept, &interned.list(&[entry(Access::Read, 2)])));
        for who in 3..1000 {
            interned.list(&[entry(Access::Read, who)]);
        }
        assert!(interned.len() < 10, "{} lists are kept, one is in use", interned.len());
        assert!(
            Rc::ptr_eq(&kept, &interned.list(&[entry(Access::Read, 2)])),
            "the one in use stays"
        );
    }

    #[test]
    fn a_dead_owners_lists_go_with_it() {
        let mut interned = Interned::default();
        let mut kept = Vec::new();
        for owner in 2..5 {
            for other in 0..100 {
                kept.push(interned.list(&[entry(Access::None, owner), entry(Access::Read, other)]));
            }
        }
        let snapshot = Rc::clone(&kept[150]);
        kept.retain(|list| list.owner().who != Who(3));
        interned.bury(Who(3));
        assert_eq!(interned.len(), 200, "those of the living stay");
        assert_eq!(snapshot.owner(), entry(Access::None, 3), "a snapshot keeps what it has");
        for who in 10..1000 {
            interned.list(&[entry(Access::Read, who)]);
        }
        assert!(interned.len() < 450, "{} lists are kept, 200 are in use", interned.len());
    }
}
