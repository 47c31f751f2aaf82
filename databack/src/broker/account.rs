//! What each domain has and uses.

use alloc::vec::Vec;

use xen_sys::ids::DomId;

use super::Limits;
use crate::policy::{Owner, Policy, Resource, Rights};

/// What a domain has of the broker, for as long as it has a channel.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) owner: Owner,
    pub(super) rights: Rights,
    pub(super) channels: u32,
    pub(super) subscriptions: u32,
    /// Bytes for its rings and for what waits for it or by its doing.
    pub(super) memory: usize,
    /// Those of them that are for rings of channels that are closed.
    pub(super) closed: usize,
    most_memory: usize,
    most_subscriptions: u32,
    pub(super) counts: Counts,
}

/// What a domain did since it came, or all did since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) opened: u64,
    pub(super) pushes: u64,
    pub(super) bytes: u64,
    pub(super) published: u64,
    pub(super) published_bytes: u64,
    pub(super) refused: u64,
}

/// All of them, in order of the domains.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    list: Vec<Account>,
    /// Bytes that all use together.
    pub(super) memory: usize,
    /// What all did, those that are gone included.
    pub(super) all: Counts,
    /// How many have no channel any more, and left something behind.
    departed: usize,
}

impl Account {
    fn new(owner: Owner) -> Self {
        Self {
            owner,
            rights: Rights::default(),
            channels: 0,
            subscriptions: 0,
            memory: 0,
            closed: 0,
            most_memory: 0,
            most_subscriptions: 0,
            counts: Counts::default(),
        }
    }

    fn judge(&mut self, policy: &Policy, limits: &Limits) {
        let limit = |resource| policy.limit(&self.owner, resource);
        let memory =
            limit(Resource::Memory).map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        let number =
            limit(Resource::Subscriptions).map(|most| u32::try_from(most).unwrap_or(u32::MAX));
        self.most_memory = memory.unwrap_or(limits.memory);
        self.most_subscriptions = number.unwrap_or(limits.subscriptions);
        self.rights = policy.rights_of(&self.owner);
    }
}

impl Account {
    /// Counts one subscription more, unless that is one too many.
    pub(super) fn add_subscription(&mut self) -> bool {
        let fits = self.subscriptions < self.most_subscriptions;
        self.subscriptions += u32::from(fits);
        fits
    }
}

impl Accounts {
    pub(super) fn find(&self, domain: DomId) -> Option<&Account> {
        let place = self.place(domain).ok()?;
        self.list.get(place)
    }

    pub(super) fn find_mut(&mut self, domain: DomId) -> Option<&mut Account> {
        let place = self.place(domain).ok()?;
        self.list.get_mut(place)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Account> {
        self.list.iter()
    }

    /// Counts what a domain did, for itself and among what all did.
    pub(super) fn count(&mut self, domain: DomId, what: impl Fn(&mut Counts)) {
        what(&mut self.all);
        if let Some(account) = self.find_mut(domain) {
            what(&mut account.counts);
        }
    }

    /// The account of a domain that has one channel more; `None` if there is no memory.
    pub(super) fn open(
        &mut self,
        owner: Owner,
        policy: &Policy,
        limits: &Limits,
    ) -> Option<&mut Account> {
        let place = match self.place(owner.domain) {
            Ok(place) => {
                self.list[place].owner = owner;
                place
            }
            Err(place) => {
                self.list.try_reserve(1).ok()?;
                self.list.insert(place, Account::new(owner));
                self.departed += 1;
                place
            }
        };
        let account = &mut self.list[place];
        account.judge(policy, limits);
        self.departed -= usize::from(account.channels == 0);
        account.channels += 1;
        Some(account)
    }

    /// The domain has one channel less, whose rings took so many bytes, which are not free yet.
    pub(super) fn close(&mut self, domain: DomId, bytes: usize) {
        let Ok(place) = self.place(domain) else { return };
        self.list[place].channels -= 1;
        self.list[place].closed += bytes;
        self.departed += usize::from(self.list[place].channels == 0);
        self.remove_unused(place);
    }

    /// The rings of a channel that is closed are free.
    pub(super) fn free(&mut self, domain: DomId, bytes: usize) {
        if let Some(account) = self.find_mut(domain) {
            account.closed -= bytes;
            self.release(domain, bytes);
        }
    }

    /// Removes an account that has neither channels nor anything left behind.
    fn remove_unused(&mut self, place: usize) {
        if self.list[place].channels == 0 && self.list[place].memory == 0 {
            self.list.remove(place);
            self.departed -= 1;
        }
    }

    /// Whether a domain without channels left something behind.
    pub(super) const fn has_departed(&self) -> bool {
        self.departed > 0
    }

    /// Applies another policy to all.
    pub(super) fn judge(&mut self, policy: &Policy, limits: &Limits) {
        for account in &mut self.list {
            account.judge(policy, limits);
        }
    }

    /// Counts `bytes` as used by the domain, unless that is too much for it or for all.
    pub(super) fn charge(&mut self, domain: DomId, bytes: usize, limits: &Limits) -> bool {
        let total = self.memory.saturating_add(bytes);
        let Some(account) = self.find_mut(domain) else { return false };
        let own = account.memory.saturating_add(bytes);
        let fits = own <= account.most_memory && total <= limits.total_memory;
        if fits {
            account.memory = own;
            self.memory = total;
        } else {
            account.counts.refused += 1;
            self.all.refused += 1;
        }
        fits
    }

    /// Takes back what was charged.
    pub(super) fn release(&mut self, domain: DomId, bytes: usize) {
        let Ok(place) = self.place(domain) else { return };
        self.list[place].memory -= bytes;
        self.memory -= bytes;
        self.remove_unused(place);
    }

    fn place(&self, domain: DomId) -> Result<usize, usize> {
        self.list.binary_search_by_key(&domain, |account| account.owner.domain)
    }
}
