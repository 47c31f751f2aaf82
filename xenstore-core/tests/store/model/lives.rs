//! Domains come and go, and the toolstack says what they may.

use super::{Checked, Model, OUTSIDE, Told, done, readable};
use crate::reference;
use crate::steps::{Deed, Life, Quota};

use proptest::prelude::*;

impl Model {
    pub(super) fn live(&mut self, guest: u16, event: Life) -> Checked {
        self.resume_all()?;
        let exists = self.lives.contains_key(&guest);
        let is_introduced = self.introduced.contains(&guest);
        match event {
            Life::Born if !is_introduced => return self.be_born(guest),
            Life::Created if !exists => self.create(guest),
            Life::Introduced => return self.introduce(guest),
            Life::Released => {
                let answer = if is_introduced { done() } else { Err("ENOENT") };
                let told = if is_introduced { self.depart(guest, true) } else { Told::new() };
                let got = self.ask(0, 9, 0, format!("{guest}\0").as_bytes())?;
                prop_assert_eq!(&got.answer, &super::owned(&answer), "{} is released", guest);
                self.compare_departure(guest, got.told, told)?;
            }
            Life::Destroyed | Life::Replaced if exists => {
                let lives_on = matches!(event, Life::Replaced);
                let told = self.depart(guest, lives_on);
                if lives_on {
                    self.world.replace(&[guest]);
                } else {
                    self.world.destroy(&[guest]);
                }
                let mut heard = self.heard()?;
                heard.remove(&guest);
                self.compare_departure(guest, heard, told)?;
            }
            Life::ShutDown if exists => {
                let mut told = Told::new();
                if is_introduced && self.shut_down.insert(guest) {
                    self.announce("@releaseDomain", Some(guest), &mut told);
                    self.announce("@releaseDomain", None, &mut told);
                }
                self.world.notice(&[guest]);
                let heard = self.heard()?;
                prop_assert_eq!(readable(&heard), readable(&told), "{} shuts down", guest);
            }
            Life::Resumed => {
                self.shut_down.remove(&guest);
                let answer = if is_introduced { done() } else { Err("ENOENT") };
                let got = self.ask(0, 18, 0, format!("{guest}\0").as_bytes())?;
                self.compare(&got, &answer, &Told::new(), &format!("{guest} resumes"))?;
            }
            // Nothing can happen that way.
            Life::Born | Life::Created | Life::Destroyed | Life::Replaced | Life::ShutDown => {}
        }
        Ok(())
    }

    /// A guest as a toolstack makes one.
    pub(super) fn be_born(&mut self, guest: u16) -> Checked {
        if !self.lives.contains_key(&guest) {
            self.create(guest);
        }
        let home = format!("/local/domain/{guest}");
        let data = format!("{home}/data");
        for (path, perms) in [(home, vec![('n', 0), ('r', guest)]), (data, vec![('n', guest)])] {
            self.act(0, OUTSIDE, &path, &Deed::Mkdir)?;
            self.act(0, OUTSIDE, &path, &Deed::SetPerms(perms))?;
        }
        self.introduce(guest)
    }

    fn create(&mut self, guest: u16) {
        self.world.create(guest);
        self.begin_life(guest);
    }

    fn begin_life(&mut self, guest: u16) {
        self.last_life += 1;
        self.lives.insert(guest, self.last_life);
    }

    fn introduce(&mut self, guest: u16) -> Checked {
        let (mut answer, mut told) = (done(), Told::new());
        if !self.lives.contains_key(&guest) {
            answer = Err("EINVAL");
        } else if self.introduced.insert(guest) {
            self.known.insert(guest);
            self.announce("@introduceDomain", None, &mut told);
            self.announce("@introduceDomain", Some(guest), &mut told);
        } else {
            // Again: as if it had just connected.
            self.watches.retain(|watch| watch.domain != guest);
            self.transactions.remove(&guest);
        }
        let got = self.ask(0, 8, 0, format!("{guest}\x001\x001\0").as_bytes())?;
        self.compare(&got, &answer, &told, &format!("{guest} is introduced"))
    }

    /// Ends a domain's life for the store, and begins another where the domain lives on; returns
    /// what is told of it.
    fn depart(&mut self, guest: u16, lives_on: bool) -> Told {
        let dead = self.caller(guest);
        self.watches.retain(|watch| watch.domain != guest);
        self.transactions.remove(&guest);
        self.targets.remove(&guest);
        self.features.remove(&guest);
        self.limits.remove(&guest);
        self.shut_down.remove(&guest);
        self.epoch += u32::from(self.known.remove(&guest));
        let before = self.tree.clone();
        let touched = reference::bury(&mut self.tree, dead);
        // Who has its rights hears what becomes of its nodes, and then has them no more.
        let mut told = self.told(&before, &touched);
        self.lives.remove(&guest);
        if lives_on {
            self.begin_life(guest);
        }
        if self.introduced.remove(&guest) {
            self.announce("@releaseDomain", None, &mut told);
            self.announce("@releaseDomain", Some(guest), &mut told);
        }
        told
    }

    fn compare_departure(&mut self, guest: u16, mut heard: Told, mut told: Told) -> Checked {
        // One subtree goes after the other, in an order that nobody promised.
        told.values_mut().chain(heard.values_mut()).for_each(|events| events.sort());
        prop_assert_eq!(readable(&heard), readable(&told), "events of the end of {}", guest);
        self.compare_store(&format!("after the end of {guest}"))
    }

    pub(super) fn set_target(&mut self, of: u16, target: u16) -> Checked {
        let are_here = [of, target].iter().all(|domain| self.introduced.contains(domain));
        if let Some(life) = self.lives.get(&target).filter(|_| are_here) {
            self.targets.insert(of, (target, *life));
            self.epoch += 1;
        }
        let answer = if are_here { done() } else { Err("ENOENT") };
        let got = self.ask(0, 19, 0, format!("{of}\0{target}\0").as_bytes())?;
        self.compare(&got, &answer, &Told::new(), &format!("{of} gets the rights of {target}"))
    }

    /// The features that a domain is offered.
    pub(super) fn features(&self, domain: u16) -> u32 {
        self.features.get(&domain).copied().unwrap_or(15)
    }

    pub(super) fn set_features(&mut self, of: u16, features: u32) -> Checked {
        let exists = self.lives.contains_key(&of);
        self.known.extend(Some(of).filter(|_| exists));
        let answer = match features {
            _ if !exists => Err("ENOENT"),
            _ if self.introduced.contains(&of) => Err("EBUSY"),
            16.. => Err("EINVAL"),
            _ => {
                self.features.insert(of, features);
                done()
            }
        };
        let got = self.ask(0, 24, 0, format!("{of}\0{features}\0").as_bytes())?;
        self.compare(&got, &answer, &Told::new(), &format!("features of {of}: {features}"))?;
        let offered = format!("{}\0", self.features(of)).into_bytes();
        let answer = if exists { Ok(offered.clone()) } else { Err("ENOENT") };
        let got = self.ask(0, 23, 0, format!("{of}\0").as_bytes())?;
        self.compare(&got, &answer, &Told::new(), &format!("features of {of}"))?;
        if self.is_able(of) {
            let got = self.ask(of, 23, 0, b"")?;
            self.compare(&got, &Ok(offered), &Told::new(), &format!("own features of {of}"))?;
        }
        Ok(())
    }

    pub(super) fn set_limit(&mut self, of: u16, quota: Quota, limit: usize) -> Checked {
        // A transaction that nothing disturbed is not judged by a node size that came later.
        let has_open = self.transactions.get(&of).is_some_and(|open| !open.is_empty());
        if has_open && matches!(quota, Quota::NodeSize) {
            return Ok(());
        }
        let exists = self.lives.contains_key(&of);
        if exists {
            self.known.insert(of);
            let limits = self.limits.entry(of).or_default();
            let place = match quota {
                Quota::Nodes => &mut limits.nodes,
                Quota::Watches => &mut limits.watches,
                Quota::Transactions => &mut limits.transactions,
                Quota::TransactionNodes => &mut limits.transaction_nodes,
                Quota::NodePermissions => &mut limits.node_permissions,
                Quota::NodeSize => &mut limits.node_size,
            };
            *place = Some(limit).filter(|limit| *limit != 0);
        }
        let name = quota.name();
        let answer = if exists { done() } else { Err("ENOENT") };
        let got = self.ask(0, 26, 0, format!("{of}\0{name}\0{limit}\0").as_bytes())?;
        self.compare(&got, &answer, &Told::new(), &format!("{name} of {of}: {limit}"))?;
        if exists {
            let got = self.ask(0, 25, 0, format!("{of}\0{name}\0").as_bytes())?;
            let answer = Ok(format!("{limit}\0").into_bytes());
            self.compare(&got, &answer, &Told::new(), &format!("{name} of {of}"))?;
        }
        Ok(())
    }
}
