//! The domains that the store knows: those introduced, and those that permissions name.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::array;

use crate::host::{ConnId, DomId, UniqueId};
use crate::perms::{Entry, Subject, Who};
use crate::quota::{Limits, Marks, Quota, Usage};
use crate::trail::Home;
use crate::wire::Features;

/// One life of a domain: it begins when the store first hears of it, and ends with its death, its
/// release, or another domain taking its number.
#[derive(Debug)]
pub(crate) struct Domain {
    pub(crate) id: DomId,
    pub(crate) who: Who,
    pub(crate) identity: UniqueId,
    /// Set while the domain is introduced.
    pub(crate) conn: Option<ConnId>,
    /// Whether its shutdown was announced, until it resumes.
    pub(crate) shut_down: bool,
    /// What is offered to it.
    pub(crate) features: Features,
    /// The domain whose rights it has besides its own; few have one, which is why it is boxed.
    pub(crate) target: Option<Box<(DomId, Who)>>,
    pub(crate) limits: Limits,
    pub(crate) usage: Usage,
    pub(crate) highest: Marks,
    /// How often which quota refused something; `None` if none did.
    pub(crate) refused: Option<Box<Marks>>,
    /// Whether requests of it wait until it uses less memory.
    pub(crate) waits_for_memory: bool,
    /// Whether the log was told that it passed its soft limit.
    pub(crate) soft_limit_told: bool,
    /// Paths of the nodes it owns whose parents it does not own: its death removes these.
    pub(crate) roots: BTreeSet<Box<[u8]>>,
    pub(crate) home: Home,
}

impl Domain {
    /// Adds to what the domain uses, or takes from it.
    pub(crate) fn charge(&mut self, nodes: isize, bytes: isize) {
        let usage = &mut self.usage;
        usage.nodes = usage.nodes.saturating_add_signed(nodes);
        usage.memory = usage.memory.saturating_add_signed(bytes);
        self.highest.raise(Quota::Nodes, self.usage.nodes);
        self.highest.raise(Quota::Memory, self.usage.memory);
    }

    /// Returns how often each quota refused something.
    pub(crate) fn refusals(&self) -> Marks {
        self.refused.as_deref().copied().unwrap_or_default()
    }

    /// Whether the domain may use that much more memory.
    pub(crate) fn has_room(&self, bytes: isize) -> bool {
        bytes <= 0
            || self.limits.allow(Quota::Memory, self.usage.memory.saturating_add_signed(bytes))
    }
}

/// How many domains one page of the table holds.
const PAGE: usize = 256;

type Page = Box<[Option<Box<Domain>>; PAGE]>;

/// All known domains, by number: two steps to any of them, however many there are.
#[derive(Debug)]
pub(crate) struct Domains {
    pages: Vec<Option<Page>>,
    next: Who,
    len: usize,
}

impl Domains {
    pub(crate) fn new() -> Self {
        Self { pages: Vec::new(), next: Who::FIRST, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn find(&self, id: DomId) -> Option<&Domain> {
        let (page, place) = split(id);
        self.pages.get(page)?.as_ref()?[place].as_deref()
    }

    pub(crate) fn find_mut(&mut self, id: DomId) -> Option<&mut Domain> {
        let (page, place) = split(id);
        self.pages.get_mut(page)?.as_mut()?[place].as_deref_mut()
    }

    /// Returns the domain that an entry names, if it still lives.
    pub(crate) fn named_by(&self, entry: Entry) -> Option<&Domain> {
        self.find(entry.domain).filter(|domain| domain.who == entry.who)
    }

    /// Returns the domain that an entry names, if it still lives.
    pub(crate) fn named_by_mut(&mut self, entry: Entry) -> Option<&mut Domain> {
        self.find_mut(entry.domain).filter(|domain| domain.who == entry.who)
    }

    /// Returns whose rights a domain's requests have: its own, and those of its target while that
    /// lives.
    #[inline]
    pub(crate) fn subject_of(&self, domain: &Domain, privileged: bool) -> Subject {
        let lives = |&(id, who): &(DomId, Who)| self.find(id).is_some_and(|known| known.who == who);
        let target = domain.target.as_deref().copied().filter(lives);
        let target = target.map_or(domain.who, |(_, who)| who);
        Subject { who: domain.who, target, privileged }
    }

    /// Whether an entry is still to be shown: its domain lives, or it never was about one.
    pub(crate) fn lists(&self, entry: Entry) -> bool {
        entry.who < Who::FIRST || self.named_by(entry).is_some()
    }

    /// Begins a life of a domain that is not known.
    pub(crate) fn add(&mut self, id: DomId, identity: UniqueId, limits: Limits) -> &mut Domain {
        let (page, place) = split(id);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| Box::new(array::from_fn(|_| None)));
        let who = self.next;
        self.next = Who(who.0 + 1);
        self.len += usize::from(page[place].is_none());
        page[place].insert(Box::new(Domain {
            id,
            who,
            identity,
            conn: None,
            shut_down: false,
            features: Features::all(),
            target: None,
            limits,
            usage: Usage::default(),
            highest: Marks::default(),
            refused: None,
            waits_for_memory: false,
            soft_limit_told: false,
            roots: BTreeSet::new(),
            home: Home::new(id),
        }))
    }

    /// Ends a life: no entry that names it grants or is listed any more.
    pub(crate) fn remove(&mut self, id: DomId) -> Option<Box<Domain>> {
        let (page, place) = split(id);
        let domain = self.pages.get_mut(page)?.as_mut()?[place].take()?;
        self.len -= 1;
        Some(domain)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Domain> + '_ {
        let pages = self.pages.iter_mut().flatten();
        pages.flat_map(|page| page.iter_mut()).flatten().map(|domain| &mut **domain)
    }

    /// Returns every domain in the order of the numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Domain> + '_ {
        let pages = self.pages.iter().flatten();
        pages.flat_map(|page| page.iter()).flatten().map(|domain| &**domain)
    }
}

fn split(id: DomId) -> (usize, usize) {
    (usize::from(id.0) / PAGE, usize::from(id.0) % PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perms::Access;

    #[test]
    fn a_life_ends_and_its_number_serves_again() {
        let mut domains = Domains::new();
        let first = domains.add(DomId(4), UniqueId(1), Limits::DEFAULT).who;
        domains.add(DomId(40_000), UniqueId(2), Limits::DEFAULT);
        let entry = Entry { who: first, domain: DomId(4), access: Access::Read };
        assert!(domains.named_by(entry).is_some() && domains.lists(entry));
        domains.remove(DomId(4));
        let second = domains.add(DomId(4), UniqueId(3), Limits::DEFAULT).who;
        assert_ne!(first, second, "the next life is another");
        assert!(domains.named_by(entry).is_none() && !domains.lists(entry));
        assert!(domains.lists(Entry { who: Who::NOBODY, ..entry }), "never was about a domain");
        let ids: Vec<_> = domains.iter().map(|domain| domain.id.0).collect();
        assert_eq!((ids, domains.len()), (vec![4, 40_000], 2));
    }

    #[test]
    fn an_idle_domain_is_small() {
        let size = size_of::<Domain>();
        assert!(size <= 288, "{size} bytes");
    }
}
